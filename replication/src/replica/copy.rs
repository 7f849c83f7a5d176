//! Copying a whole store from a peer: how a new replica gets what the log does not tell any more.
//!
//! The one who copies asks for ranges of rows in the order of row keys, entries first, then the log, and the source
//! streams them. A range replaces all the receiver has in it: an entry that is not there was deleted. What the source
//! held durably before the first row is the base: every row was sent later, so when all have come, the base may be
//! claimed, and not before. From another source the copy goes on where it stands, and the base is what both held.
//!
//! The epoch may pass the base while the copy is made; then what was copied may be dead, and it begins again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use super::membership::Progress;
use super::sweep::Sweep;
use super::{Event, MAX_AHEAD_MS, MessageError, Replica, entry_of_row};
use crate::clock::{Hlc, Now, ReplicaId};
use crate::codec::member::StageRow;
use crate::codec::message::{Snapshot, SnapshotLog, Stage};
use crate::codec::round::RepairRow;
use crate::codec::row;
use crate::entry::EntryId;
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::{Position, VersionVector};

/// A copy that makes no progress for this long is asked for anew, perhaps from another source.
const COPY_TIMEOUT_US: u64 = 3_000_000;

/// The most bytes of rows on their way to one who copies.
const MAX_UNACKNOWLEDGED_BYTES: usize = 4 << 20;

/// The most rows in one frame.
const MAX_FRAME_ROWS: usize = 2_000;

/// About how many bytes a row takes in a frame beside its key and value.
const ROW_OVERHEAD_BYTES: usize = 40;

/// The side that copies.
#[derive(Debug)]
pub(super) struct Copying {
    /// Whom it copies from; chosen anew after a break.
    source: Option<ReplicaId>,
    session: u32,
    /// Whether the source must be asked, or told how far it got.
    pub(super) fetch_due: bool,
    deadline_us: u64,
    /// Everything before this row key is here.
    cursor: Vec<u8>,
    base: Option<VersionVector>,
    /// The greatest epoch of a source so far: what is over at it may be missing here.
    epoch: Hlc,
    /// Entries there are at the source.
    total: u64,
}

impl Copying {
    pub(super) fn new(now: Now, source: ReplicaId) -> Self {
        let deadline_us = now.mono_us + COPY_TIMEOUT_US;
        Self { source: Some(source), fetch_due: true, deadline_us, ..Self::resumed(vec![keys::ENTRY], None) }
    }

    /// As it was when it was last stored.
    pub(super) fn resumed(cursor: Vec<u8>, base: Option<VersionVector>) -> Self {
        let (source, epoch) = (None, Hlc::ZERO);
        Self { source, session: 0, fetch_due: false, deadline_us: 0, cursor, base, epoch, total: 0 }
    }

    pub(super) fn to_row(&self) -> StageRow {
        StageRow::Copying { cursor: self.cursor.clone(), base: self.base.clone() }
    }

    pub(super) fn deadline_us(&self) -> u64 {
        self.deadline_us
    }

    /// Goes on with this source. Entries stand under the same keys at every replica; log rows do not, since each
    /// numbers the origins in its own order.
    fn turn_to(&mut self, source: Option<ReplicaId>) {
        if self.cursor.first() == Some(&keys::LOG) {
            self.cursor = vec![keys::LOG];
        }
        self.source = source;
        self.session += 1;
        self.fetch_due = true;
    }

    fn restart(&mut self) {
        self.cursor = vec![keys::ENTRY];
        self.base = None;
        self.session += 1;
    }
}

/// The side that is copied from.
#[derive(Debug)]
pub(super) struct Source {
    session: u32,
    /// Sent up to here.
    cursor: Vec<u8>,
    is_first: bool,
    is_done: bool,
    /// The ends of the ranges on their way, with their bytes.
    unacknowledged: VecDeque<(Vec<u8>, usize)>,
    unacknowledged_bytes: usize,
}

/// Rows of one frame in the making.
#[derive(Default)]
struct Gathered {
    rows: Vec<RepairRow>,
    log: Vec<SnapshotLog>,
    looked_at: usize,
    bytes: usize,
}

impl<S: Store> Replica<S> {
    /// How many entries are copied, and of how many; while this replica copies.
    pub fn copied(&self) -> Option<(u64, u64)> {
        match &self.progress {
            Progress::Copying(copying) => Some((self.entries, copying.total)),
            _ => None,
        }
    }

    /// Goes to another source where this one gives nothing any more.
    pub(super) fn mind_copy(&mut self, now: Now) {
        let next = self.nearest_member();
        let is_gone = |source: ReplicaId| !self.is_connected(source);
        let Progress::Copying(copying) = &self.progress else { return };
        let is_lost = copying.source.is_none_or(is_gone) || copying.deadline_us <= now.mono_us;
        let Progress::Copying(copying) = &mut self.progress else { return };
        if is_lost {
            copying.turn_to(next);
            copying.deadline_us = now.mono_us + COPY_TIMEOUT_US;
            // The source may not know us: our record may be lost with the one who wrote it.
            if let Some(peer) = next.and_then(|id| self.peers.get_mut(&id)) {
                peer.join_due = true;
            }
        }
    }

    /// What to ask this peer for, if it is the source.
    pub(super) fn next_fetch(&mut self, to: ReplicaId) -> Option<(u32, Vec<u8>)> {
        let Progress::Copying(copying) = &mut self.progress else { return None };
        let is_due = copying.source == Some(to) && std::mem::take(&mut copying.fetch_due);
        is_due.then(|| (copying.session, copying.cursor.clone()))
    }

    pub(super) fn handle_copy(&mut self, from: ReplicaId, session: u32, cursor: Vec<u8>) {
        let may_serve = self.stage() == Stage::Member && self.members.contains(from);
        let Some(peer) = self.peers.get_mut(&from).filter(|_| may_serve) else { return };
        match &mut peer.source {
            Some(source) if source.session == session => {
                while let Some((until, bytes)) = source.unacknowledged.front()
                    && *until <= cursor
                {
                    source.unacknowledged_bytes -= bytes;
                    source.unacknowledged.pop_front();
                }
            }
            _ => {
                peer.source = Some(Source {
                    session,
                    cursor,
                    is_first: true,
                    is_done: false,
                    unacknowledged: VecDeque::new(),
                    unacknowledged_bytes: 0,
                });
            }
        }
    }

    /// The next range for a peer that copies.
    pub(super) fn next_snapshot(
        &mut self,
        to: ReplicaId,
        max_bytes: usize,
    ) -> Result<Option<Snapshot>, StoreError> {
        let Some(mut source) = self.peers.get_mut(&to).and_then(|peer| peer.source.take()) else {
            return Ok(None);
        };
        let mut snapshot = None;
        if !source.is_done && source.unacknowledged_bytes < MAX_UNACKNOWLEDGED_BYTES {
            let (gathered, next) = self.gather(&source.cursor, max_bytes)?;
            let until = next.clone().unwrap_or_else(|| vec![keys::LOG + 1]);
            snapshot = Some(Snapshot {
                session: source.session,
                from: std::mem::replace(&mut source.cursor, until.clone()),
                until: until.clone(),
                base: std::mem::take(&mut source.is_first).then(|| self.durable.clone()),
                epoch: self.epoch,
                total: self.entries,
                rows: gathered.rows,
                log: gathered.log,
                last: next.is_none(),
            });
            source.is_done = next.is_none();
            source.unacknowledged.push_back((until, gathered.bytes));
            source.unacknowledged_bytes += gathered.bytes;
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.source = Some(source);
        }
        Ok(snapshot)
    }

    /// Rows from this key on, and where to go on; `None` at the end.
    fn gather(&self, from: &[u8], max_bytes: usize) -> Result<(Gathered, Option<Vec<u8>>), StoreError> {
        let mut gathered = Gathered::default();
        let mut next = None;
        let mut fault = None;
        self.store.scan(from, &mut |row_key, row| {
            if row_key.first().is_none_or(|family| *family > keys::LOG) {
                return ControlFlow::Break(());
            }
            if gathered.bytes >= max_bytes || gathered.looked_at == MAX_FRAME_ROWS {
                next = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            // The ledger of conflicts is this store's own.
            if matches!(row_key.first(), Some(&keys::CONFLICT | &keys::CONFLICT_AGE)) {
                next = Some(vec![keys::LOG]);
                return ControlFlow::Break(());
            }
            gathered.looked_at += 1;
            match self.gather_row(row_key, &row, &mut gathered) {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    fault = Some(StoreError::new(format!("a row of the store is damaged: {why}")));
                    ControlFlow::Break(())
                }
            }
        })?;
        fault.map_or(Ok((gathered, next)), Err)
    }

    /// Rows that are over at our epoch are left out.
    fn gather_row(
        &self,
        row_key: &[u8],
        row: &bytes::Bytes,
        gathered: &mut Gathered,
    ) -> Result<(), crate::codec::Malformed> {
        if let Some(id) = keys::parse_entry(row_key) {
            let entry = entry_of_row(&self.origins, row::decode_entry(row_key, row)?)?;
            if !self.is_droppable(&entry) {
                gathered.bytes += ROW_OVERHEAD_BYTES + row_key.len() + row.len();
                gathered.rows.push(RepairRow { id, entry });
            }
        } else if let Some((index, hlc)) = keys::parse_any_log(row_key)
            && let Some(origin) = self.origins.get(usize::from(index))
            && hlc > self.epoch
        {
            gathered.bytes += ROW_OVERHEAD_BYTES + row.len();
            gathered.log.push(SnapshotLog { origin: *origin, row: row::decode_log(row_key, hlc, row)? });
        }
        Ok(())
    }

    pub(super) fn handle_snapshot(
        &mut self,
        now: Now,
        from: ReplicaId,
        snapshot: Snapshot,
    ) -> Result<(), MessageError> {
        let Progress::Copying(copying) = &mut self.progress else { return Ok(()) };
        let fits = copying.source == Some(from) && copying.session == snapshot.session;
        if !fits || copying.cursor != snapshot.from || snapshot.until < snapshot.from {
            return Ok(());
        }
        let newest = snapshot.rows.iter().map(|row| row.entry.dot.hlc).max().unwrap_or(Hlc::ZERO);
        let newest = snapshot.base.iter().map(VersionVector::newest).fold(newest, Hlc::max);
        if newest.wall_ms() > now.wall_ms + MAX_AHEAD_MS {
            // It is asked for again when its time has come.
            self.counters.held_back += 1;
            return Ok(());
        }
        if let Some(base) = &snapshot.base {
            copying.base = Some(copying.base.take().map_or_else(|| base.clone(), |known| meet(&known, base)));
        }
        copying.epoch = copying.epoch.max(snapshot.epoch);
        if copying.base.is_none() {
            return Err(MessageError::Protocol { reason: "a copy without a base".into() });
        }
        copying.deadline_us = now.mono_us + COPY_TIMEOUT_US;
        copying.total = snapshot.total;
        copying.fetch_due = true;
        copying.cursor.clone_from(&snapshot.until);
        self.replace_range(&snapshot.from, &snapshot.until, snapshot.rows)?;
        for SnapshotLog { origin, row } in snapshot.log {
            self.commit_if_full()?;
            self.append_log(origin, &row)?;
        }
        if snapshot.last {
            self.finish_copy(now)?;
        }
        self.store_stage();
        Ok(())
    }

    /// Makes the entries in the range exactly these.
    fn replace_range(&mut self, from: &[u8], until: &[u8], rows: Vec<RepairRow>) -> Result<(), StoreError> {
        self.commit()?;
        let mut here = BTreeSet::new();
        self.store.scan(from, &mut |row_key, _| {
            let is_inside = row_key < until && row_key.first() == Some(&keys::ENTRY);
            if is_inside && let Some(id) = keys::parse_entry(row_key) {
                here.insert(id);
            }
            if is_inside { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let rows: BTreeMap<EntryId, _> = rows.into_iter().map(|row| (row.id, row.entry)).collect();
        for gone in here.iter().filter(|id| !rows.contains_key(id)) {
            self.commit_if_full()?;
            if let Some(entry) = self.entry(gone)? {
                self.drop_entry(gone, &entry);
            }
        }
        for (id, entry) in rows {
            self.commit_if_full()?;
            let current = self.entry(&id)?;
            if current.as_ref() != Some(&entry) {
                self.clock.observe(entry.dot.hlc);
                self.put_entry(&id, current, entry)?;
            }
        }
        Ok(())
    }

    /// All rows have come: claims the base, unless the epoch has passed it.
    fn finish_copy(&mut self, now: Now) -> Result<(), StoreError> {
        let Progress::Copying(copying) = &mut self.progress else { return Ok(()) };
        let Some(base) = copying.base.clone() else { return Ok(()) };
        let epoch = copying.epoch;
        let knows_itself = self.members.contains(self.id);
        let covers = self
            .members
            .current()
            .filter(|(id, member)| *id != self.id && member.joined.is_some_and(|dot| dot.hlc <= epoch))
            .all(|(id, _)| base.hlc(id) >= epoch);
        if !covers || !knows_itself {
            copying.restart();
            return Ok(());
        }
        for (origin, position) in base.iter() {
            self.clock.observe(position.hlc);
            self.claim(origin, position)?;
        }
        self.epoch = epoch;
        // The source may have gone on to it between the entries and the log.
        self.sweep = Some(Sweep::thorough());
        let own = Position { hlc: self.clock.tick(now), ..Position::default() };
        self.claim(self.id, own)?;
        self.catch_up_with_members();
        self.emit(Event::MembersChanged);
        Ok(())
    }
}

/// What both vectors hold.
fn meet(a: &VersionVector, b: &VersionVector) -> VersionVector {
    let lesser = |(origin, at): (ReplicaId, Position)| {
        let other = b.position(origin);
        (origin, if other.hlc < at.hlc { other } else { at })
    };
    a.iter().map(lesser).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sources had numbered the origins each in its own order: what stood before the cursor at the first was skipped
    /// at the second, and the log of the copy had holes.
    #[test]
    fn another_source_is_asked_for_all_its_log() {
        let mut copying = Copying::resumed(keys::log(3, Hlc::new(7, 0)).to_vec(), None);
        copying.turn_to(Some(ReplicaId([1; 16])));
        assert_eq!(copying.cursor, [keys::LOG]);
        let entry = keys::entry(&EntryId::value(crate::entry::NamespaceId([9; 16]), "k"));
        let mut copying = Copying::resumed(entry.clone(), None);
        copying.turn_to(Some(ReplicaId([1; 16])));
        assert_eq!(copying.cursor, entry);
    }
}
