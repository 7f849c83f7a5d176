//! Reading what a store holds for a comparison with another: digests of leaves, and the states of entries.
//!
//! Both are made from the rows on the disk, not from the replica's digest tree, so that a comparison also finds
//! what was lost behind the replica's back. The rule: a holding is read before the rows it is given with, so
//! the rows hold at least what it claims.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::clock::{Dot, Hlc, ReplicaId};
use crate::codec::Malformed;
use crate::codec::row::{self, EntryRow, Summary};
use crate::digest::{DigestKey, LEAVES};
use crate::entry::{Body, Entry, EntryId};
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::VersionVector;

/// The rows that one page looks at before it gives what it has.
pub const MAX_ROWS_LOOKED_AT: usize = 20_000;

/// What a store held, and had dropped, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// What it held.
    pub vector: VersionVector,
    /// Its epoch.
    pub epoch: Hlc,
}

/// The state of an entry, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The entry.
    pub id: EntryId,
    /// Its name, hashed with the cluster's secret: for those who may not see the key.
    pub name: u64,
    /// The event that wrote it.
    pub dot: Dot,
    /// What was written; `None` for a tombstone.
    pub value: Option<ValueState>,
    /// Equal states have equal digests.
    pub digest: u64,
}

/// What is told of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueState {
    /// Whether it lies in chunk files.
    pub is_chunked: bool,
    /// Absolute expiry in Unix seconds.
    pub expires_at_s: Option<u64>,
}

/// A page of a walk over the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What the store held when the page was begun.
    pub holding: Holding,
    /// The states found.
    pub states: Vec<State>,
    /// The row key with which the next page begins; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// Up to `limit` states of entries in the leaves that `wanted` picks, from this row key on; an empty one is the
/// first.
pub fn page<S: Store>(
    store: &S,
    key: &DigestKey,
    from: &[u8],
    limit: usize,
    wanted: &dyn Fn(u16) -> bool,
) -> Result<Page, StoreError> {
    let mut page = Page::default();
    let (holding, next) = walk(store, from, MAX_ROWS_LOOKED_AT, &mut |id, entry| {
        let name = key.name_hash(&id);
        if wanted(name.leaf()) {
            let value = match &entry.body {
                Body::Value(value) => Some(ValueState {
                    is_chunked: matches!(value.payload, crate::entry::Payload::Chunked(_)),
                    expires_at_s: value.expires_at_s,
                }),
                body if body.is_tombstone() => None,
                body => Some(ValueState { is_chunked: false, expires_at_s: body.next_expiry() }),
            };
            let digest = short(key, name, &entry);
            let nothing = Entry::first(Dot { hlc: Hlc::ZERO, replica: ReplicaId([0; 16]) }, Body::Tombstone);
            let name = short(key, name, &nothing);
            page.states.push(State { id, name, dot: entry.dot, value, digest });
        }
        page.states.len() < limit
    })?;
    (page.holding, page.next) = (holding, next);
    Ok(page)
}

/// The sums of the digests of the entries in each leaf, and how many entries there are. Reads all entries; `pause`
/// is called now and then.
pub fn leaves<S: Store>(
    store: &S,
    key: &DigestKey,
    pause: &mut dyn FnMut(),
) -> Result<(Holding, Vec<u64>, u64), StoreError> {
    let mut sums = vec![0_u64; LEAVES];
    let (mut entries, mut first) = (0, None);
    let mut from = Vec::new();
    loop {
        let (holding, next) = walk(store, &from, MAX_ROWS_LOOKED_AT, &mut |id, entry| {
            let name = key.name_hash(&id);
            let sum = &mut sums[usize::from(name.leaf())];
            *sum = sum.wrapping_add(short(key, name, &entry));
            entries += 1;
            true
        })?;
        let holding = first.get_or_insert(holding);
        match next {
            Some(next) => from = next,
            None => return Ok((std::mem::take(holding), sums, entries)),
        }
        pause();
    }
}

fn short(key: &DigestKey, name: crate::digest::NameHash, entry: &Entry) -> u64 {
    let bytes = key.state_digest(name, entry).to_bytes();
    bytes[8..].iter().fold(0, |short, byte| short << 8 | u64::from(*byte))
}

/// Visits entries from this row key on until `visit` has enough, and gives where to go on.
pub(super) fn walk<S: Store>(
    store: &S,
    from: &[u8],
    max_rows: usize,
    visit: &mut dyn FnMut(EntryId, Entry) -> bool,
) -> Result<(Holding, Option<Vec<u8>>), StoreError> {
    let mut summary = summary(store)?;
    let epoch = summary.epoch;
    let holding = Holding { vector: summary.origins.iter().copied().collect(), epoch };
    let from = if from.first() == Some(&keys::ENTRY) { from } else { &[keys::ENTRY] };
    let (mut looked_at, mut has_enough) = (0, false);
    let (mut next, mut fault) = (None, None);
    store.scan(from, &mut |row_key, row| {
        if row_key.first() != Some(&keys::ENTRY) {
            return ControlFlow::Break(());
        }
        if has_enough || looked_at == max_rows {
            next = Some(row_key.to_vec());
            return ControlFlow::Break(());
        }
        looked_at += 1;
        match decoded(store, &mut summary, row_key, &row) {
            Ok((id, entry)) => has_enough = !visit(id, entry),
            Err(error) => {
                fault = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    fault.map_or(Ok((holding, next)), Err)
}

pub(crate) fn summary<S: Store>(store: &S) -> Result<Summary, StoreError> {
    // A store nothing was ever written to has none.
    let Some(row) = store.read(keys::SUMMARY)? else { return Ok(Summary::default()) };
    row::decode_summary(&row).map_err(|why| damaged(keys::SUMMARY, &why))
}

pub(crate) fn decoded<S: Store>(
    store: &S,
    summary: &mut Summary,
    row_key: &[u8],
    row: &Bytes,
) -> Result<(EntryId, Entry), StoreError> {
    let foreign = || damaged(row_key, &Malformed::Form("a foreign row key".into()));
    let id = keys::parse_entry(row_key).ok_or_else(foreign)?;
    let row = row::decode_entry(row_key, row).map_err(|why| damaged(row_key, &why))?;
    named(store, summary, row_key, row).map(|entry| (id, entry))
}

/// The state in a row, its replica by name. The summary is read where it does not know that one: an empty one will do.
pub(crate) fn named<S: Store>(
    store: &S,
    summary: &mut Summary,
    row_key: &[u8],
    row: EntryRow,
) -> Result<Entry, StoreError> {
    let index = usize::from(row.origin_index);
    if index >= summary.origins.len() {
        // Written since, by an origin that was new: a batch holds the summary that names it.
        *summary = self::summary(store)?;
    }
    let replica = summary.origins.get(index).map(|(origin, _)| *origin);
    let unknown = || damaged(row_key, &Malformed::Form("an origin outside the table".into()));
    Ok(row.entry(replica.ok_or_else(unknown)?))
}

fn damaged(row_key: &[u8], why: &Malformed) -> StoreError {
    StoreError::new(format!(
        "the row {} of the store is damaged ({why}); rebuild this node",
        row_key.escape_ascii()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::entry::{NamespaceId, Payload, Value};
    use crate::member::MemberRecord;
    use crate::replica::{Replica, Settings};
    use crate::store::memory::MemoryStore;

    const KEY: DigestKey = DigestKey::new([8; 32]);

    fn store(keys: std::ops::Range<u64>) -> MemoryStore {
        let settings = Settings::new([7; 16], KEY);
        let mut replica = Replica::open(MemoryStore::default(), settings, ReplicaId([1; 16])).unwrap();
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 0 };
        replica.found(now, &MemberRecord { pop: "a".into(), region: "here".into() }).unwrap();
        for n in keys {
            let payload = Payload::Inline(Bytes::from("v"));
            let value = Value { payload, metadata: None, expires_at_s: Some(n) };
            let body = if n % 2 == 0 { Body::Value(value) } else { Body::Tombstone };
            replica.write(now, EntryId::value(NamespaceId([9; 16]), n.to_string()), body).unwrap();
        }
        replica.flush().unwrap();
        replica.into_store()
    }

    #[test]
    fn pages_hold_every_entry_once_and_sum_up_to_the_leaves() {
        let store = store(0..100);
        let (holding, sums, entries) = leaves(&store, &KEY, &mut || {}).unwrap();
        assert_eq!(entries, 101, "the member's record is an entry too");
        let (mut from, mut states, mut summed) = (Vec::new(), Vec::new(), vec![0_u64; LEAVES]);
        loop {
            let page = page(&store, &KEY, &from, 7, &|_| true).unwrap();
            assert!(page.states.len() <= 7 && page.holding == holding);
            states.extend(page.states);
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        for state in &states {
            let leaf = KEY.name_hash(&state.id).leaf();
            summed[usize::from(leaf)] = summed[usize::from(leaf)].wrapping_add(state.digest);
            assert!(holding.vector.covers(state.dot));
        }
        assert_eq!((states.len(), &summed), (101, &sums));
        assert_eq!(states.iter().filter(|state| state.value.is_none()).count(), 50);
    }

    #[test]
    fn only_the_wanted_leaves_are_given_and_a_difference_shows_in_its_leaf() {
        let (short, long) = (store(0..50), store(0..51));
        let (_, left, _) = leaves(&short, &KEY, &mut || {}).unwrap();
        let (_, right, _) = leaves(&long, &KEY, &mut || {}).unwrap();
        let differing: Vec<u16> = (0..=u16::MAX)
            .zip(left.iter().zip(&right))
            .filter(|(_, (l, r))| l != r)
            .map(|(leaf, _)| leaf)
            .collect();
        let id = EntryId::value(NamespaceId([9; 16]), "50");
        assert_eq!(differing, [KEY.name_hash(&id).leaf()]);
        let found = page(&long, &KEY, &[], 1000, &|leaf| differing.contains(&leaf)).unwrap();
        assert!(found.states.iter().any(|state| state.id == id), "{found:?}");
        assert!(found.states.len() < 10 && found.next.is_none());
    }
}
