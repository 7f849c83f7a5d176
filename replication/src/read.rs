//! Reading values straight from a store, beside the replica that writes it.
//!
//! A reader sees what is committed, also before it is flushed. What it cannot read is an error, never
//! "absent".

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Malformed;
use crate::codec::row;
use crate::entry::{Body, ChunkId, Kind, NamespaceId, Value};
use crate::keys;
use crate::store::{Store, StoreError};

pub mod kinds;
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
    let mut page = Page::default();
    let mut looked_at = 0;
    let mut last: Option<Bytes> = None;
    let mut fault = None;
    store.scan(&from, &mut |row_key, row| {
        if !row_key.starts_with(&range) {
            return ControlFlow::Break(());
        }
        if page.rows.len() == limit || looked_at == MAX_ROWS_LOOKED_AT {
            page.next_after = last.take();
            return ControlFlow::Break(());
        }
        looked_at += 1;
        let Some(id) = keys::parse_entry(row_key) else { return ControlFlow::Continue(()) };
        last = Some(id.key.clone());
        match visible(row_key, &row, now_s) {
            Ok(Some(value)) => page.rows.push((id.key, value)),
            Ok(None) => {}
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    fault.map_or(Ok(page), Err)
}
