//! A replica's store as the oracle reads it: row by row, past the replica's own bookkeeping.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use replication::codec::conflict::{Conflict, decode_conflict};
use replication::codec::{row, veil};
use replication::read::shown::Shown;
use replication::{Body, Dot, Entry, EntryId, Hlc, Replica, ReplicaId, Store, VersionVector, keys};

/// One entry as its store has it, staged changes left out.
pub(super) fn entry(disk: &impl Store, id: &EntryId) -> Result<Option<(Dot, Body)>, String> {
    let row_key = keys::entry(id);
    let row = disk.read(&row_key).map_err(|error| error.to_string())?;
    row.map(|row| decoded(&origins(disk)?, &row_key, &row)).transpose()
}

/// The state of an entry, staged changes left out.
pub(super) fn state(disk: &impl Store, id: &EntryId) -> Result<Option<Entry>, String> {
    Ok(entry(disk, id)?.map(|(dot, body)| Entry::first(dot, body)))
}

/// The states of entries.
pub(super) type States = BTreeMap<EntryId, Entry>;

/// As [`state`], of several entries: those that there are.
pub(super) fn states_of(disk: &impl Store, ids: impl Iterator<Item = EntryId>) -> Result<States, String> {
    let origins = origins(disk)?;
    let mut states = States::new();
    for id in ids {
        let row_key = keys::entry(&id);
        if let Some(row) = disk.read(&row_key).map_err(|error| error.to_string())? {
            let (dot, body) = decoded(&origins, &row_key, &row)?;
            states.insert(id, Entry::first(dot, body));
        }
    }
    Ok(states)
}

/// The states of all entries of a store.
pub(super) fn states(disk: &impl Store) -> Result<States, String> {
    let states = entries(disk)?.into_iter();
    Ok(states.map(|(id, (dot, body))| (id, Entry::first(dot, body))).collect())
}

/// The entries of a store, with the dots that wrote them.
pub(super) fn entries(disk: &impl Store) -> Result<BTreeMap<EntryId, (Dot, Body)>, String> {
    let origins = origins(disk)?;
    let mut entries = BTreeMap::new();
    let scanned = disk.scan(&[keys::ENTRY], &mut |row_key, row| {
        if let Some(id) = keys::parse_entry(row_key) {
            entries.insert(id, decoded(&origins, row_key, &row));
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    scanned.map_err(|error| error.to_string())?;
    entries.into_iter().map(|(id, entry)| Ok((id, entry?))).collect()
}

/// The chunk index lists each state under the chunks it names, and nothing else.
pub(super) fn check_chunk_index(disk: &impl Store) -> Result<(), String> {
    let (mut listed, mut named) = (BTreeSet::new(), BTreeSet::new());
    let mut fault = None;
    let scanned = disk.scan(&[], &mut |row_key, row| {
        let body = match row_key.first() {
            Some(&keys::CHUNK) => {
                listed.extend(keys::parse_chunk(row_key).map(|(chunk, state)| (chunk, state.to_vec())));
                return ControlFlow::Continue(());
            }
            Some(&keys::ENTRY) => row::decode_entry(row_key, &row).map(|row| row.body),
            Some(&keys::CONFLICT) => decode_conflict(row_key, &row).map(|conflict| conflict.lost.body),
            Some(&keys::RETURNED) => row::decode_returned(row_key, &row).map(|state| state.entry.body),
            Some(&keys::VEIL) => {
                veil::shown_body(row_key, &row).map(|shown| shown.unwrap_or(Body::Tombstone))
            }
            _ => return ControlFlow::Continue(()),
        };
        match body {
            Ok(body) => {
                let chunks = body.manifest().map(|manifest| manifest.chunks.clone()).unwrap_or_default();
                named.extend(chunks.into_iter().map(|chunk| (chunk, row_key.to_vec())));
            }
            Err(why) => fault = Some(why.to_string()),
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    fault.map_or(Ok(()), Err)?;
    match listed.symmetric_difference(&named).next() {
        Some((chunk, state)) => Err(format!(
            "chunk {chunk:?} is named by {}: {}, and listed so: {}",
            state.escape_ascii(),
            named.contains(&(*chunk, state.clone())),
            listed.contains(&(*chunk, state.clone()))
        )),
        None => Ok(()),
    }
}

/// The ledger of conflicts, staged changes left out.
pub(super) fn conflicts(disk: &impl Store) -> Result<Vec<Conflict>, String> {
    let mut conflicts = Vec::new();
    let scanned = disk.scan(&[keys::CONFLICT], &mut |row_key, row| {
        if row_key.first() != Some(&keys::CONFLICT) {
            return ControlFlow::Break(());
        }
        conflicts.push(decode_conflict(row_key, &row).map_err(|why| why.to_string()));
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    conflicts.into_iter().collect()
}

/// What the disk claims to hold.
pub(super) fn claims(disk: &impl Store) -> Result<VersionVector, String> {
    let Some(summary) = disk.read(keys::SUMMARY).map_err(|error| error.to_string())? else {
        return Ok(VersionVector::default());
    };
    let summary = row::decode_summary(&summary).map_err(|why| why.to_string())?;
    Ok(summary.origins.into_iter().collect())
}

/// From when on nobody needs this state.
pub(super) fn is_over(dot: Dot, body: &Body, epoch: Hlc) -> bool {
    Entry::first(dot, body.clone()).is_over_at().is_some_and(|at| at <= epoch)
}

/// What readers of a replica see under an entry's name.
pub(super) fn shown(replica: &Replica<impl Store>, id: &EntryId) -> Result<Option<(Dot, Body)>, String> {
    entry(&Shown::new(replica.store(), &replica.veil_count()), id)
}

fn decoded(origins: &[ReplicaId], row_key: &[u8], row: &Bytes) -> Result<(Dot, Body), String> {
    let row = row::decode_entry(row_key, row).map_err(|why| why.to_string())?;
    let replica = origins.get(usize::from(row.origin_index)).ok_or("a row of an origin without a name")?;
    let Entry { dot, body, .. } = row.entry(*replica);
    Ok((dot, body))
}

/// The origins by their index in the rows of this store.
fn origins(disk: &impl Store) -> Result<Vec<ReplicaId>, String> {
    let Some(summary) = disk.read(keys::SUMMARY).map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let summary = row::decode_summary(&summary).map_err(|why| why.to_string())?;
    Ok(summary.origins.into_iter().map(|(origin, _)| origin).collect())
}
