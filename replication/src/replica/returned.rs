//! Coming back under a new identity: nothing that was acknowledged is lost in silence.
//!
//! A store whose replica was evicted, or that is an older copy or a clone, is not merged back: it may hold what
//! everyone else has forgotten. Its replica becomes a new one, with an empty store that copies the cluster's. What
//! the old store alone may hold, its own states from above its epoch, is carried over ([`salvage`],
//! [`Replica::keep_returned`]) and looked at when the copy is complete:
//!
//! | here now | then |
//! |---|---|
//! | a newer state, or this one, covered by the claims | it was overtaken, or known |
//! | an older state, or this one by chance | it is written anew |
//! | nothing, and it is from above the epoch | it is written anew: whoever deleted it did so before it was written |
//! | nothing, and it is from below | whether it was deleted cannot be told: it stays, for an operator to see |
//!
//! From the time it takes part until it has judged them, the replica holds the epoch below what it may yet write anew.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::{Event, Replica, WriteError, entry_of_row};
use crate::clock::{Dot, Hlc, Now};
use crate::codec::Malformed;
use crate::codec::message::Stage;
use crate::codec::round::RepairRow;
use crate::codec::row::{self, Identity, Summary};
use crate::entry::{Body, Entry, Kind, NamespaceId};
use crate::keys;
use crate::store::{Store, StoreError};

/// Returned states looked at in one go.
const SLICE_ROWS: usize = 100;

/// The most dead letters one listing gives.
const MAX_LISTED: usize = 1_000;

/// Visits what this store alone may hold: the states its replica wrote itself after its epoch, and those it has kept
/// of incarnations before it. Rows that cannot be read are passed over, and counted: the store may be damaged.
pub fn salvage<S: Store>(
    store: &S,
    visit: &mut dyn FnMut(RepairRow) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let read = |row_key| store.read(row_key).ok().flatten();
    let identity = read(keys::IDENTITY).and_then(|row| row::decode_identity(&row).ok());
    let summary = read(keys::SUMMARY).and_then(|row| row::decode_summary(&row).ok());
    let (Some(identity), Some(summary)) = (identity, summary) else { return Ok(0) };
    if planted!(SalvageSkipped) {
        return Ok(0);
    }
    let origins: Vec<_> = summary.origins.iter().map(|(origin, _)| *origin).collect();
    let mut unreadable = 0;
    let mut fault = None;
    store.scan(&[], &mut |row_key, row| {
        let salvaged = match row_key.first() {
            Some(&keys::ENTRY) => own_state(&origins, row_key, &row, &identity, &summary),
            Some(&keys::RETURNED) => row::decode_returned(row_key, &row).map(Some),
            _ => Ok(None),
        };
        match salvaged {
            Ok(Some(state)) => fault = visit(state).err(),
            Ok(None) => {}
            Err(_) => unreadable += 1,
        }
        if fault.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    fault.map_or(Ok(unreadable), Err)
}

/// The state, if it is the store's own and from above its epoch. What it says about the cluster itself is left behind.
fn own_state(
    origins: &[crate::ReplicaId],
    row_key: &[u8],
    row: &bytes::Bytes,
    identity: &Identity,
    summary: &Summary,
) -> Result<Option<RepairRow>, Malformed> {
    let entry = entry_of_row(origins, row::decode_entry(row_key, row)?)?;
    let id = keys::parse_entry(row_key).ok_or_else(|| Malformed::Form("a foreign row key".into()))?;
    let own = entry.said_by(identity.replica).filter(|own| own.dot.hlc > summary.epoch);
    let is_about_members = id.namespace == NamespaceId::SYSTEM && crate::member::is_about_members(&id.key);
    Ok(own.filter(|_| !is_about_members).map(|entry| RepairRow { id, entry }))
}

impl<S: Store> Replica<S> {
    /// Keeps a salvaged state, to be looked at when this replica is a full member. Durable with the next flush.
    pub fn keep_returned(&mut self, state: &RepairRow) -> Result<(), StoreError> {
        self.commit_if_full()?;
        let row_key = keys::returned(state.entry.dot);
        let row = row::encode_returned(&row_key, state);
        self.chunks_renamed(&row_key, None, Some(&state.entry.body));
        self.staged.insert(row_key, Some(row));
        self.returned_wait = true;
        Ok(())
    }

    /// Returned states that were not written anew, up to 1,000 of them, the oldest first: too old to tell
    /// whether they were deleted, or not looked at yet.
    pub fn dead_letters(&self) -> Result<Vec<RepairRow>, StoreError> {
        self.returned_after(&[keys::RETURNED], MAX_LISTED)
    }

    /// Writes a dead letter anew, or forgets it: an operator has decided. Gives whether there was one.
    pub fn settle_dead_letter(&mut self, now: Now, dot: Dot, write: bool) -> Result<bool, WriteError> {
        let row_key = keys::returned(dot);
        let Some(row) = self.row(&row_key)? else { return Ok(false) };
        if write {
            let state = row::decode_returned(&row_key, &row)
                .map_err(|why| StoreError::new(format!("the row of a returned state is damaged: {why}")))?;
            self.write_anew(now, state)?;
        }
        self.drop_returned(dot)?;
        Ok(true)
    }

    /// Looks at a slice of the returned states.
    pub(super) fn settle_returned(&mut self, now: Now) -> Result<(), StoreError> {
        self.carried = self.carried_from()?;
        let may_judge = self.stage() == Stage::Member && self.is_settled();
        if !self.returned_wait || !may_judge || !self.staged.is_empty() {
            return Ok(());
        }
        let from = std::mem::replace(&mut self.returned_cursor, vec![keys::RETURNED]);
        let slice = self.returned_after(&from, SLICE_ROWS)?;
        // The last look finds nothing to do, and what was done before it is durable: see `carried_from`.
        self.returned_wait =
            slice.len() == SLICE_ROWS || slice.iter().any(|state| state.entry.dot.hlc > self.epoch);
        for state in slice {
            self.commit_if_full()?;
            let dot = state.entry.dot;
            let current = self.entry(&state.id)?;
            let is_of_parts = state.id.kind != Kind::Value;
            let is_overtaken = match current.as_ref().map(|current| compare(current, &state.entry)) {
                // Of a part too old to tell: it may have been spent, and that forgotten.
                Some(Ordering::Less) if is_of_parts && dot.hlc <= self.epoch => {
                    self.returned_cursor = [&keys::returned(dot)[..], &[0]].concat();
                    continue;
                }
                Some(Ordering::Less) => false,
                // It ran ahead of claims to where we copied it from, and not everyone will get it.
                Some(Ordering::Equal) if !self.durable.covers(dot) => false,
                Some(_) => true,
                // Too old to tell: it stays.
                None if dot.hlc <= self.epoch => {
                    self.returned_cursor = [&keys::returned(dot)[..], &[0]].concat();
                    continue;
                }
                None => false,
            };
            if is_overtaken {
                self.counters.superseded += 1;
                // What everyone has held was seen by who overwrote it, also where that was a deletion which has been dropped
                // since: who writes then finds nothing to be over.
                let is_news = !is_of_parts && !self.frontier().is_stable(dot);
                if let Some(current) = current.filter(|_| is_news) {
                    self.note_conflict(&state.id, &state.entry, &current)?;
                }
            } else {
                match self.write_anew(now, state) {
                    Ok(()) => {}
                    Err(WriteError::Store(error)) => return Err(error),
                    // The clock is off, or this member is being drained: later.
                    Err(_) => {
                        self.returned_wait = true;
                        self.returned_cursor = keys::returned(dot);
                        return Ok(());
                    }
                }
            }
            self.drop_returned(dot)?;
            self.returned_cursor = [&keys::returned(dot)[..], &[0]].concat();
        }
        Ok(())
    }

    /// The oldest returned state that is yet to be judged, and can be: from above the epoch. No epoch passes it while its
    /// holder says so, or the time that a copy takes would make dead letters of writes that nobody has deleted.
    pub(super) fn carried_from(&self) -> Result<Option<Hlc>, StoreError> {
        if !self.returned_wait {
            return Ok(None);
        }
        let from = keys::returned(Dot { hlc: self.epoch.next(), replica: crate::clock::ReplicaId::SENDER });
        Ok(self.returned_after(&from, 1)?.first().map(|state| state.entry.dot.hlc))
    }

    fn write_anew(&mut self, now: Now, state: RepairRow) -> Result<(), WriteError> {
        self.check_not_draining()?;
        let RepairRow { id, entry } = state;
        let mut body = entry.body.clone();
        let new = self.append(now, id.clone(), |replica, current, dot| {
            body = entry.said_anew(current, dot, replica.frontier());
            // What it was written over is what it was written over then: whoever wrote it has not seen what is here now. A
            // clock that was set back since may stand before that.
            Ok(Entry { dot, body: body.clone(), base: entry.base.min(dot.hlc.previous()) })
        })?;
        let old = entry.dot;
        self.counters.written_anew += 1;
        self.emit(Event::WrittenAnew { old, new, id, body });
        Ok(())
    }

    fn drop_returned(&mut self, dot: Dot) -> Result<(), StoreError> {
        let row_key = keys::returned(dot);
        // One that cannot be read goes all the same; what it named is found when the store is opened next.
        let state = self.row(&row_key)?.and_then(|row| row::decode_returned(&row_key, &row).ok());
        self.chunks_renamed(&row_key, state.as_ref().map(|state| &state.entry.body), None);
        self.staged.insert(row_key, None);
        Ok(())
    }

    fn returned_after(&self, from: &[u8], limit: usize) -> Result<Vec<RepairRow>, StoreError> {
        let mut states = Vec::new();
        let mut fault = None;
        self.store.scan(from, &mut |row_key, row| {
            if row_key.first() != Some(&keys::RETURNED) || states.len() == limit {
                return ControlFlow::Break(());
            }
            match row::decode_returned(row_key, &row) {
                Ok(state) => states.push(state),
                Err(why) => {
                    fault = Some(StoreError::new(format!("the row of a returned state is damaged: {why}")));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        fault.map_or(Ok(states), Err)
    }
}

/// Whether the current state is older than this one, or holds it. Of parts that is asked of the one that was carried over.
fn compare(current: &Entry, state: &Entry) -> Ordering {
    match state.body {
        Body::Value(_) | Body::Tombstone => {
            current.dot.cmp(&state.dot).then_with(|| current.body.cmp(&state.body))
        }
        _ => current.last_of(state.dot.replica).cmp(&state.dot.hlc),
    }
}
