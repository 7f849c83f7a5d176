//! The ledger of conflicts: values that lost to one whose writer had not seen them, kept for a while.
//!
//! Of two concurrent writes of a value the later one wins everywhere, without a question to anyone. What lost is noted where
//! the two meet ([`Entry::is_unseen_by`]), in the batch that merges them, so that somebody can look at it and put it back.
//! The ledger is a replica's own: it is outside the digest, is not replicated and not copied, and each lists what it saw
//! lose. But the event that wrote what lost brings others that state, not the one that won: an overwritten value does not
//! travel, and one that nobody has chosen to overwrite does. The rule this file upholds: it never holds more than its
//! [`Bounds`]; what is noted beyond them drives out what was noted first.

use std::ops::ControlFlow;

use super::{Event, Replica};
use crate::clock::{Dot, Hlc, Now};
use crate::codec::Malformed;
use crate::codec::conflict::{Conflict, decode_conflict, encode_conflict, encode_conflict_age};
use crate::entry::{Body, Entry, EntryId, Kind, MAX_VALUE_BYTES, NamespaceId, Value};
use crate::keys;
use crate::store::{Store, StoreError};

/// Values dropped from the ledger in one slice of a sweep.
const SLICE_ROWS: usize = 150;

/// The most values that one new one drives out.
const MAX_ROOM_ROWS: usize = 50;

/// The time from one look at what has grown too old to the next, in microseconds.
const LOOKED_EVERY_US: u64 = 10_000_000;

/// What the ledger may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long a value is kept from when it was noticed that it lost, in milliseconds; 0 for no ledger.
    pub kept_ms: u64,
    /// The most values.
    pub max_rows: u64,
    /// The most bytes: of rows with their keys, and of chunks that they name.
    pub max_bytes: u64,
}

impl Bounds {
    /// Seven days, 100,000 values, 64 MiB.
    pub const USUAL: Self = Self { kept_ms: 7 * 24 * 3_600_000, max_rows: 100_000, max_bytes: 64 << 20 };
}

/// What the ledger holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Values.
    pub rows: u64,
    /// Bytes, as [`Bounds::max_bytes`] counts them.
    pub bytes: u64,
}

/// The books of the ledger, made from its rows at open.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    kept: Kept,
    look_due_us: u64,
}

impl Ledger {
    pub(super) fn kept(&self) -> Kept {
        self.kept
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.kept.rows += 1;
        self.kept.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.kept.rows = self.kept.rows.saturating_sub(1);
        self.kept.bytes = self.kept.bytes.saturating_sub(bytes);
    }
}

/// The bytes that a row of this length counts for.
pub(super) fn kept_bytes(row_key: &[u8], row_bytes: usize, conflict: &Conflict) -> u64 {
    let chunks = conflict.lost.body.manifest().map_or(0, |manifest| manifest.len);
    (row_key.len() + row_bytes) as u64 + chunks
}

impl<S: Store> Replica<S> {
    /// What the ledger of conflicts holds.
    pub fn conflicts_kept(&self) -> Kept {
        self.ledger.kept()
    }

    /// What it may hold.
    pub fn conflict_bounds(&self) -> Bounds {
        self.settings.conflicts
    }

    /// Forgets a value in the ledger of conflicts. Gives whether it was there.
    ///
    /// # Errors
    /// Where the store has failed.
    pub fn dismiss_conflict(
        &mut self,
        namespace: NamespaceId,
        key: &[u8],
        lost: Dot,
    ) -> Result<bool, StoreError> {
        self.check_usable()?;
        self.drop_conflict(&keys::conflict(namespace, key, lost))
    }

    /// Notes in the ledger that one state of an entry has lost to another, if it is a value that the winner's writer had not
    /// seen, and says something else. Met twice, it is one row.
    pub(super) fn note_conflict(
        &mut self,
        id: &EntryId,
        lost: &Entry,
        won: &Entry,
    ) -> Result<(), StoreError> {
        let bounds = self.settings.conflicts;
        if bounds.kept_ms == 0 || id.kind != Kind::Value || id.namespace == NamespaceId::SYSTEM {
            return Ok(());
        }
        let Body::Value(value) = &lost.body else { return Ok(()) };
        let noticed = self.clock.last();
        let is_lost = lost.is_unseen_by(won) && !says_the_same(value, &won.body);
        if !is_lost || value.is_expired(noticed.wall_ms() / 1000) {
            return Ok(());
        }
        let row_key = keys::conflict(id.namespace, &id.key, lost.dot);
        if self.row(&row_key)?.is_some() {
            return Ok(());
        }
        self.counters.conflicts += 1;
        let deleted = won.body.is_tombstone();
        let conflict = Conflict { id: id.clone(), lost: lost.clone(), won: won.dot, deleted, noticed };
        let row = encode_conflict(&row_key, &conflict);
        let bytes = kept_bytes(&row_key, row.len(), &conflict);
        if bounds.max_rows == 0 || bytes > bounds.max_bytes {
            self.counters.conflicts_dropped += 1;
            return Ok(());
        }
        if !self.make_room(bytes)? {
            self.counters.conflicts_dropped += 1;
            return Ok(());
        }
        self.ledger.add(bytes);
        if let Some(walk) = &mut self.walk {
            walk.conflict_changed(&row_key, false, true);
        }
        self.chunks_renamed(&row_key, None, Some(&lost.body));
        if let Some(manifest) = lost.body.manifest() {
            self.emit(Event::ChunksWanted(manifest.parts().collect()));
        }
        let age_key = keys::conflict_age(noticed, &row_key);
        let age = encode_conflict_age(&age_key);
        self.staged.insert(age_key, Some(age));
        self.staged.insert(row_key, Some(row));
        Ok(())
    }

    /// The state that this event wrote, if it has lost unseen and is kept.
    pub(super) fn lost_by(&self, id: &EntryId, dot: Dot) -> Result<Option<Entry>, StoreError> {
        if self.ledger.kept.rows == 0 || id.kind != Kind::Value {
            return Ok(None);
        }
        let row_key = keys::conflict(id.namespace, &id.key, dot);
        let Some(row) = self.row(&row_key)? else { return Ok(None) };
        Ok(Some(decode_conflict(&row_key, &row).map_err(|why| damaged(&why))?.lost))
    }

    /// The rows that the next value may have dropped for it: an event is begun only in a batch that has room for them.
    pub(super) fn room_rows(&self) -> usize {
        let (kept, Bounds { max_rows, max_bytes, .. }) = (self.ledger.kept, self.settings.conflicts);
        // The largest value, with its row.
        let may_be_full = kept.rows >= max_rows || kept.bytes + 2 * MAX_VALUE_BYTES > max_bytes;
        // Each has its row, that of its age, and one of a chunk.
        if may_be_full { 3 * MAX_ROOM_ROWS.min(kept.rows as usize) } else { 0 }
    }

    /// Drops what was noticed first until there is room for a value of so many bytes. Gives whether there is: where a large
    /// one would drive out more small ones than one batch should, it goes itself.
    fn make_room(&mut self, bytes: u64) -> Result<bool, StoreError> {
        let Bounds { max_rows, max_bytes, .. } = self.settings.conflicts;
        let has_room = |kept: Kept| kept.rows < max_rows && kept.bytes + bytes <= max_bytes;
        if has_room(self.ledger.kept) {
            return Ok(true);
        }
        for age_key in self.oldest_conflicts(MAX_ROOM_ROWS, Hlc::from_bits(u64::MAX))? {
            if has_room(self.ledger.kept) {
                break;
            }
            self.drop_aged(&age_key)?;
            self.counters.conflicts_dropped += 1;
        }
        Ok(has_room(self.ledger.kept))
    }

    /// Drops a slice of what has been kept for its time, or is beyond the bounds since they were lowered.
    pub(super) fn sweep_ledger(&mut self, now: Now) -> Result<(), StoreError> {
        if self.ledger.look_due_us > now.mono_us {
            return Ok(());
        }
        let Bounds { kept_ms, max_rows, max_bytes } = self.settings.conflicts;
        let upto = Hlc::new(now.wall_ms.saturating_sub(kept_ms), u16::MAX);
        let aged = self.oldest_conflicts(SLICE_ROWS, upto)?;
        let mut is_more = aged.len() == SLICE_ROWS;
        for age_key in aged {
            self.drop_aged(&age_key)?;
        }
        let is_beyond = |kept: Kept| kept.rows > max_rows || kept.bytes > max_bytes;
        if !is_more && is_beyond(self.ledger.kept) {
            for age_key in self.oldest_conflicts(SLICE_ROWS, Hlc::from_bits(u64::MAX))? {
                if is_beyond(self.ledger.kept) {
                    self.drop_aged(&age_key)?;
                    self.counters.conflicts_dropped += 1;
                }
            }
            is_more = is_beyond(self.ledger.kept);
        }
        self.ledger.look_due_us = if is_more { now.mono_us } else { now.mono_us + LOOKED_EVERY_US };
        Ok(())
    }

    /// When the next slice is due; `None` while the ledger is empty.
    pub(super) fn ledger_due_us(&self) -> Option<u64> {
        (self.ledger.kept.rows > 0).then_some(self.ledger.look_due_us)
    }

    /// The row keys by age of what was noticed first, staged changes included, up to this time: so many at most.
    fn oldest_conflicts(&self, limit: usize, upto: Hlc) -> Result<Vec<Vec<u8>>, StoreError> {
        let is_due = |row_key: &[u8]| keys::parse_conflict_age(row_key).is_some_and(|(at, _)| at <= upto);
        let staged = self.staged.range(vec![keys::CONFLICT_AGE]..).take_while(|(key, _)| is_due(key));
        let mut oldest: Vec<Vec<u8>> =
            staged.filter(|(_, row)| row.is_some()).map(|(key, _)| key.clone()).take(limit).collect();
        let mut committed = 0;
        self.store.scan(&[keys::CONFLICT_AGE], &mut |row_key, _| {
            if committed == limit || !is_due(row_key) {
                return ControlFlow::Break(());
            }
            if !self.staged.contains_key(row_key) {
                committed += 1;
                oldest.push(row_key.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        oldest.sort_unstable();
        oldest.truncate(limit);
        Ok(oldest)
    }

    fn drop_aged(&mut self, age_key: &[u8]) -> Result<(), StoreError> {
        if let Some((_, row_key)) = keys::parse_conflict_age(age_key) {
            self.drop_conflict(row_key)?;
        }
        self.staged.insert(age_key.to_vec(), None);
        Ok(())
    }

    fn drop_conflict(&mut self, row_key: &[u8]) -> Result<bool, StoreError> {
        let Some(row) = self.row(row_key)? else { return Ok(false) };
        let conflict = decode_conflict(row_key, &row).map_err(|why| damaged(&why))?;
        self.ledger.remove(kept_bytes(row_key, row.len(), &conflict));
        if let Some(walk) = &mut self.walk {
            walk.conflict_changed(row_key, true, false);
        }
        self.chunks_renamed(row_key, Some(&conflict.lost.body), None);
        self.staged.insert(keys::conflict_age(conflict.noticed, row_key), None);
        self.staged.insert(row_key.to_vec(), None);
        Ok(true)
    }
}

fn damaged(why: &Malformed) -> StoreError {
    StoreError::new(format!("a row of the ledger of conflicts is damaged: {why}"))
}

/// Whether nobody would miss the one for the other.
fn says_the_same(lost: &Value, won: &Body) -> bool {
    matches!(won, Body::Value(won) if won.payload == lost.payload && won.metadata == lost.metadata)
}

#[cfg(test)]
mod tests;
