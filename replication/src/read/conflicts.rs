//! The ledger of conflicts as a reader sees it: what lost here, by key and then by time.

use crate::clock::Dot;
use crate::codec::conflict::{Conflict, decode_conflict};
use crate::entry::NamespaceId;
use crate::keys;
use crate::store::{Store, StoreError};

use super::{damaged_row, scan_page};

/// Of which keys to list what has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys<'a> {
    /// All that start with this.
    Prefix(&'a [u8]),
    /// This one.
    One(&'a [u8]),
}

/// One page of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of the keys' bytes, and under one key the oldest write first.
    pub rows: Vec<Conflict>,
    /// The page after this one lists what comes after this key and event; `None` where nothing may come.
    pub next_after: Option<(bytes::Bytes, Dot)>,
}

/// Up to `limit` values of a namespace that have lost, after this key and event.
///
/// # Errors
/// Where a row cannot be read.
pub fn page<S: Store>(
    store: &S,
    namespace: NamespaceId,
    of: Keys<'_>,
    after: Option<(&[u8], Dot)>,
    limit: usize,
) -> Result<Page, StoreError> {
    let range = match of {
        Keys::Prefix(prefix) => keys::conflicts(namespace, prefix),
        Keys::One(key) => keys::conflicts_of_key(namespace, key),
    };
    let after = after.map(|(key, lost)| [&keys::conflict(namespace, key, lost)[..], &[0]].concat());
    let from = after.filter(|after| *after > range).unwrap_or_else(|| range.clone());
    let scanned = scan_page(store, &from, &range, limit, |row_key, row| {
        decode_conflict(row_key, &row).map(Some).map_err(|why| damaged_row(&why))
    })?;
    let next_after = scanned.last_of_more.and_then(|row_key| keys::parse_conflict(&row_key));
    Ok(Page { rows: scanned.found, next_after: next_after.map(|(id, lost)| (id.key, lost)) })
}

/// The value under this key that this event wrote, if it has lost and is kept.
///
/// # Errors
/// Where its row cannot be read.
pub fn conflict<S: Store>(
    store: &S,
    namespace: NamespaceId,
    key: &[u8],
    lost: Dot,
) -> Result<Option<Conflict>, StoreError> {
    let row_key = keys::conflict(namespace, key, lost);
    let Some(row) = store.read(&row_key)? else { return Ok(None) };
    decode_conflict(&row_key, &row).map(Some).map_err(|why| damaged_row(&why))
}
