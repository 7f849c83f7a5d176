//! Reading values straight from a store, beside the replica that writes it.
//!
//! A reader sees what is committed, also before it is flushed. What it cannot read is an error, never
//! "absent".

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Malformed;
use crate::codec::row;
use crate::entry::{Body, ChunkId, Entry, EntryId, Kind, NamespaceId, Value};
use crate::keys;
use crate::store::{Store, StoreError};

pub mod conflicts;
pub mod kinds;
pub mod shown;
pub mod states;
pub mod tail;

/// The value under `key` as of `now_s` (Unix seconds); `None` when never written, deleted or expired.
pub fn value<S: Store>(
    store: &S,
    namespace: NamespaceId,
    key: &[u8],
    now_s: u64,
) -> Result<Option<Value>, StoreError> {
    let row_key = keys::key_parts(namespace, Kind::Value, key);
    let Some(row) = store.read(&row_key)? else { return Ok(None) };
    visible(&row_key, &row, now_s)
}

/// All of an entry's state, whether a reader sees something in it or not; `None` where there is no row.
pub fn entry<S: Store>(store: &S, id: &EntryId) -> Result<Option<Entry>, StoreError> {
    let row_key = keys::entry(id);
    let Some(row) = store.read(&row_key)? else { return Ok(None) };
    let row = row::decode_entry(&row_key, &row).map_err(|why| damaged_row(&why))?;
    states::named(store, &mut row::Summary::default(), &row_key, row).map(Some)
}

fn visible(row_key: &[u8], row: &Bytes, now_s: u64) -> Result<Option<Value>, StoreError> {
    let row = row::decode_entry(row_key, row).map_err(|why| damaged_row(&why))?;
    Ok(match row.body {
        Body::Value(value) if !value.is_expired(now_s) => Some(value),
        _ => None,
    })
}

fn damaged_row(why: &Malformed) -> StoreError {
    StoreError::new(format!("a row of the store is damaged ({why}); rebuild this node"))
}

/// Names every chunk that a state in the store names, once, with its length in bytes. Reads the chunk index.
pub fn chunks<S: Store>(store: &S, visit: &mut dyn FnMut(ChunkId, u64)) -> Result<(), StoreError> {
    let mut last = None;
    let mut fault = None;
    store.scan(&[keys::CHUNK], &mut |row_key, row| {
        let Some((chunk, _)) = keys::parse_chunk(row_key) else { return ControlFlow::Break(()) };
        match row::decode_chunk(row_key, &row) {
            Ok(bytes) => {
                if last.replace(chunk) != Some(chunk) {
                    visit(chunk, bytes);
                }
                ControlFlow::Continue(())
            }
            Err(why) => {
                fault = Some(StoreError::new(format!("a row of the chunk index is damaged ({why})")));
                ControlFlow::Break(())
            }
        }
    })?;
    fault.map_or(Ok(()), Err)
}

/// The rows a listing may look at before it gives what it has: a page over many deleted keys stays short.
const MAX_ROWS_LOOKED_AT: usize = 10_000;

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the order of the keys' bytes.
    pub rows: Vec<(Bytes, Value)>,
    /// The page after this one lists what comes after this key; `None` where nothing may come.
    pub next_after: Option<Bytes>,
}

/// Up to `limit` values of a namespace whose keys start with `prefix` and come after `after`. A page may be
/// short, even empty, and still have a next one.
pub fn page<S: Store>(
    store: &S,
    namespace: NamespaceId,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
    now_s: u64,
) -> Result<Page, StoreError> {
    let range = keys::key_parts(namespace, Kind::Value, prefix);
    let from = match after {
        Some(after) if after >= prefix => {
            [&keys::key_parts(namespace, Kind::Value, after)[..], &[0]].concat()
        }
        _ => range.clone(),
    };
    let scanned = scan_page(store, &from, &range, limit, |row_key, row| {
        let Some(id) = keys::parse_entry(row_key) else { return Ok(None) };
        Ok(visible(row_key, &row, now_s)?.map(|value| (id.key, value)))
    })?;
    let next_after = scanned.last_of_more.and_then(|row_key| keys::parse_entry(&row_key)).map(|id| id.key);
    Ok(Page { rows: scanned.found, next_after })
}

/// What a page found in a range of rows.
struct Scanned<T> {
    found: Vec<T>,
    /// How many rows were looked at.
    looked_at: usize,
    /// The key of the last of them, where the range goes on.
    last_of_more: Option<Vec<u8>>,
}

/// Looks at rows from this key on whose keys start with `range`, until `limit` of them have given something, or it has
/// looked at [`MAX_ROWS_LOOKED_AT`].
fn scan_page<S: Store, T>(
    store: &S,
    from: &[u8],
    range: &[u8],
    limit: usize,
    mut look: impl FnMut(&[u8], Bytes) -> Result<Option<T>, StoreError>,
) -> Result<Scanned<T>, StoreError> {
    let mut scanned = Scanned { found: Vec::new(), looked_at: 0, last_of_more: None };
    let mut last = None;
    let mut fault = None;
    store.scan(from, &mut |row_key, row| {
        if !row_key.starts_with(range) {
            return ControlFlow::Break(());
        }
        if scanned.found.len() == limit || scanned.looked_at == MAX_ROWS_LOOKED_AT {
            scanned.last_of_more = last.take();
            return ControlFlow::Break(());
        }
        scanned.looked_at += 1;
        last = Some(row_key.to_vec());
        match look(row_key, row) {
            Ok(found) => scanned.found.extend(found),
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    fault.map_or(Ok(scanned), Err)
}
