//! The one door: every change of state, from a local write to a repair, is staged here and nowhere else.
//!
//! A call stages, in one batch: the entry's row, its log row, its place in the indices of expiries and chunks, the row of
//! a value that has lost unseen, and the change of the digest tree; the summary joins them when the batch is committed. So a batch that is on disk is on disk with all of these.

use bytes::Bytes;

use super::sweep::Sweep;
use super::{Event, Replica, damaged_row, entry_of_row};
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::codec::member as member_codec;
use crate::codec::message::DeltaRow;
use crate::codec::row::{self, EntryRow, LogRow};
use crate::entry::{Body, Entry, EntryId, Kind, NamespaceId, Settled};
use crate::keys;
use crate::kinds::Cleared;
use crate::store::{MAX_BATCH_ROWS, Store, StoreError};
use crate::vector::{MAX_ORIGINS, Position};

impl<S: Store> Replica<S> {
    /// Applies one event of `origin`: merges the entry's state, which holds the event's effect, and writes
    /// the event's log row. `entry` is `None` where that state came with an earlier event. Gives whether the
    /// store now holds the event's effect; it does not when there is no state to hold it. The event's batch may go on
    /// with the origin's next one.
    ///
    /// The caller moves the claim for `origin` ([`Replica::claim`]) once every event of its interval is applied.
    pub(super) fn apply_event(
        &mut self,
        origin: ReplicaId,
        position: Position,
        (id, goes_on): (&EntryId, bool),
        entry: Option<Entry>,
    ) -> Result<bool, StoreError> {
        let current = self.entry(id)?;
        self.apply_event_over(current, origin, position, (id, goes_on), entry)
    }

    /// Whether [`Replica::apply_event`] would find, or be given, a state that holds the event's effect.
    pub(super) fn may_apply_event(&self, origin: ReplicaId, event: &DeltaRow) -> Result<bool, StoreError> {
        let current = self.entry(&event.id)?;
        Ok(match (&event.entry, &current) {
            (Some(_), _) if event.id.kind == Kind::Value => true,
            (Some(entry), current) => entry.fresh(current.as_ref(), self.frontier()).is_some(),
            (None, Some(current)) => current.covers(Dot { hlc: event.position.hlc, replica: origin }),
            (None, None) => false,
        })
    }

    /// As [`Replica::apply_event`], for one who has read the entry's current state.
    pub(super) fn apply_event_over(
        &mut self,
        current: Option<Entry>,
        origin: ReplicaId,
        position: Position,
        (id, goes_on): (&EntryId, bool),
        entry: Option<Entry>,
    ) -> Result<bool, StoreError> {
        let dot = Dot { hlc: position.hlc, replica: origin };
        let previous = current.as_ref().map(|current| current.last_of(origin));
        let previous = previous.filter(|previous| *previous < dot.hlc).unwrap_or_default();
        let holds_effect = match (&entry, &current) {
            (Some(_), _) => true,
            (None, Some(current)) => current.covers(dot),
            (None, None) => false,
        };
        if !holds_effect && !planted!(EventTakenOnTrust) {
            return Ok(false);
        }
        match entry {
            Some(entry) if id.kind != Kind::Value && origin != self.id && !planted!(StaleJoinedAgain) => {
                let Some(fresh) = entry.fresh(current.as_ref(), self.frontier()) else { return Ok(false) };
                self.clock.observe(entry.dot.hlc);
                if let Some(fresh) = Entry::of_parts(fresh) {
                    self.merge(id, current, fresh)?;
                }
            }
            Some(entry) => {
                self.merge(id, current, entry)?;
            }
            None => {}
        }
        self.append_log(origin, &LogRow { position, previous, id: id.clone(), goes_on })?;
        Ok(true)
    }

    /// Moves the claim for `origin` up: every event of the interval is applied. The claim is stored with the next
    /// batch, also where that has no other row.
    pub(super) fn claim(&mut self, origin: ReplicaId, position: Position) -> Result<(), StoreError> {
        self.origin_index(origin)?;
        let before = self.held.hlc(origin);
        self.held.advance(origin, position);
        self.documents.claimed();
        self.consider_veils()?;
        self.staged.entry(keys::SUMMARY.to_vec()).or_default();
        // Members' events come before the epoch that covers them; those of a removed replica may come after it. A sweep
        // that met their states ahead of the claims has let them be.
        if before < self.epoch && before < position.hlc && self.members.removal(origin).is_some() {
            self.sweep = Some(Sweep::thorough());
        }
        Ok(())
    }

    /// Applies an entry that anti-entropy found missing here, although the claims cover it. Gives whether
    /// it changed anything.
    pub(super) fn apply_repair(&mut self, id: &EntryId, entry: Entry) -> Result<bool, StoreError> {
        if self.is_droppable(&entry) && !planted!(RoundOutlivesEpoch) {
            return Ok(false);
        }
        // It shows a part of a batch that is under way; nothing of it is missing.
        if self.shows_unmet(id, &entry) {
            return Ok(false);
        }
        let dots = entry.dots();
        let current = self.entry(id)?;
        let before = self.appearance(id, current.as_ref())?;
        let is_merged = self.merge(id, current, entry)?;
        let changed =
            is_merged && (id.kind == Kind::Value || self.appearance(id, self.entry(id)?.as_ref())? != before);
        for dot in dots {
            let origin_index = self.origin_index(dot.replica)?;
            // Of what is below the epoch the log has been swept.
            let is_logged = dot.hlc <= self.epoch || self.row(&keys::log(origin_index, dot.hlc))?.is_some();
            if !is_logged {
                // The counts at a repaired place are not known; no interval ends there, so that none reaches a claim.
                let position = Position { hlc: dot.hlc, ..Position::default() };
                let row = LogRow { position, previous: Hlc::ZERO, id: id.clone(), goes_on: false };
                self.append_log(dot.replica, &row)?;
            }
        }
        Ok(changed)
    }

    /// What of a state made of parts can be seen. The rest may differ for a while where some have dropped already what nobody
    /// needs, and have told others of the entry since: that is no damage.
    fn appearance(&self, id: &EntryId, entry: Option<&Entry>) -> Result<Vec<(Dot, i128)>, StoreError> {
        let now_s = self.clock.last().wall_ms() / 1000;
        Ok(match entry.map(|entry| &entry.body) {
            None | Some(Body::Value(_) | Body::Tombstone) => Vec::new(),
            Some(Body::Counter(counter)) => counter.standing(now_s),
            Some(Body::Bounded(bounded)) => bounded.standing(),
            Some(Body::Element(element)) => {
                let head = self.entry(&EntryId::whole(id.namespace, id.kind, id.key.clone()))?;
                let cleared = match head.map(|head| head.body) {
                    Some(Body::Head(head)) => head.cleared(now_s),
                    _ => Cleared::default(),
                };
                element.alive(&cleared, now_s).into_iter().map(|(dot, _)| (dot, 1)).collect()
            }
            Some(Body::Head(head)) => {
                let cleared = head.cleared_times().into_iter().map(|(replica, hlc)| Dot { hlc, replica });
                let note = head.note.as_ref().filter(|note| note.bytes.is_some()).map(|note| note.dot);
                let expiry = head.expiries.last_key_value();
                let expiry =
                    expiry.filter(|(_, at_s)| at_s.is_some_and(|at| at > now_s)).map(|(dot, _)| *dot);
                cleared.chain(note).chain(expiry).map(|dot| (dot, 1)).collect()
            }
        })
    }

    /// Merges a state into the entry and the tree. Gives whether that changed anything.
    fn merge(&mut self, id: &EntryId, current: Option<Entry>, entry: Entry) -> Result<bool, StoreError> {
        self.clock.observe(entry.dot.hlc);
        if id.kind != Kind::Value {
            return self.merge_parts(id, current, entry);
        }
        let wins = current.as_ref().is_none_or(|current| current.is_replaced_by(&entry));
        if let Some(current) = &current {
            let (lost, won) = if wins { (current, &entry) } else { (&entry, current) };
            self.note_conflict(id, lost, won)?;
        }
        if !wins && !planted!(MergeReplacesAlways) {
            return Ok(false);
        }
        self.note_changed(id, &entry);
        self.put_entry(id, current, entry)?;
        Ok(true)
    }

    /// As [`Replica::merge`], for a state made of parts. Of parts that are over nothing is kept: whoever has swept them has
    /// none, and would differ from us.
    fn merge_parts(
        &mut self,
        id: &EntryId,
        current: Option<Entry>,
        entry: Entry,
    ) -> Result<bool, StoreError> {
        let mut joined = match &current {
            Some(current) if !planted!(PartsReplacedNotJoined) => current.clone().join(entry),
            _ => entry,
        };
        if let Settled::Less(less) = joined.settled(self.frontier()) {
            joined = less;
        }
        if current.as_ref() == Some(&joined) {
            return Ok(false);
        }
        self.note_changed(id, &joined);
        self.put_entry(id, current, joined)?;
        Ok(true)
    }

    /// Puts a state in the place of the current one.
    pub(super) fn put_entry(
        &mut self,
        id: &EntryId,
        current: Option<Entry>,
        entry: Entry,
    ) -> Result<(), StoreError> {
        let key = &self.settings.digest_key;
        let name = key.name_hash(id);
        let old = current.as_ref().map(|current| key.state_digest(name, current));
        let new = Some(key.state_digest(name, &entry));
        self.tree.replace(name, old, new);
        self.entries += u64::from(current.is_none());
        let row_key = keys::entry(id);
        if let Some(walk) = &mut self.walk {
            walk.entry_changed(&row_key, name, old, new);
        }
        self.leave_indices(id, &row_key, current.as_ref());
        self.chunks_renamed(&row_key, current.as_ref().map(|current| &current.body), Some(&entry.body));
        self.usage_changed(&row_key, id, current.as_ref().map(|current| &current.body), Some(&entry.body));
        self.waiting.entry_came(id, &entry);
        let is_own_value = entry.dot.replica == self.id && id.kind == Kind::Value;
        if !is_own_value && !self.veils.is_veiled(&row_key) {
            self.ahead.note(&self.held, &entry);
        }
        if let Some(at) = entry.body.next_expiry() {
            let expiry_key = keys::expiry(at, &row_key);
            let row = member_codec::encode_expiry(&expiry_key);
            self.staged.insert(expiry_key, Some(row));
        }
        if id.namespace == NamespaceId::SYSTEM {
            self.note_system_entry(id, &entry);
        }
        if let Some(manifest) = entry.body.manifest() {
            self.emit(Event::ChunksWanted(manifest.parts().collect()));
        }
        let origin_index = self.origin_index(entry.dot.replica)?;
        let row = row::encode_entry(&row_key, &EntryRow::of(origin_index, entry));
        self.staged.insert(row_key, Some(row));
        Ok(())
    }

    /// Removes an entry, without leaving anything in its place. What readers see on its veil stays until that is lifted.
    pub(super) fn drop_entry(&mut self, id: &EntryId, entry: &Entry) {
        let key = &self.settings.digest_key;
        let name = key.name_hash(id);
        let old = Some(key.state_digest(name, entry));
        self.tree.replace(name, old, None);
        self.entries -= 1;
        let row_key = keys::entry(id);
        if let Some(walk) = &mut self.walk {
            walk.entry_changed(&row_key, name, old, None);
        }
        self.leave_indices(id, &row_key, Some(entry));
        self.chunks_renamed(&row_key, Some(&entry.body), None);
        self.usage_changed(&row_key, id, Some(&entry.body), None);
        self.staged.insert(row_key, None);
    }

    /// The state leaves the expiry index and the count of what waits.
    fn leave_indices(&mut self, id: &EntryId, row_key: &[u8], entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        self.waiting.entry_went(id, entry);
        if let Some(at) = entry.body.next_expiry() {
            self.staged.insert(keys::expiry(at, row_key), None);
        }
    }

    pub(super) fn append_log(&mut self, origin: ReplicaId, log_row: &LogRow) -> Result<(), StoreError> {
        if planted!(LogRowForgotten) && origin != self.id {
            return Ok(());
        }
        let row_key = keys::log(self.origin_index(origin)?, log_row.position.hlc);
        // An interval that was cut short by a crash or a gap comes again, with rows that are here already. Our own
        // events are always new.
        let old = if origin == self.id { None } else { self.row(&row_key)? };
        if let Some(old) = &old {
            self.waiting.log_row_went(row_key.len() + old.len());
        }
        let row = row::encode_log(&row_key, log_row);
        self.waiting.log_row_came(row_key.len() + row.len());
        self.staged.insert(row_key.to_vec(), Some(row));
        self.log_rows += u64::from(old.is_none());
        if let Some(walk) = &mut self.walk {
            walk.log_changed(&row_key, old.is_some(), true);
        }
        Ok(())
    }

    /// The index under which rows of this store name `origin`; a new one when it is new.
    fn origin_index(&mut self, origin: ReplicaId) -> Result<u16, StoreError> {
        if let Some(index) = self.known_origin_index(origin) {
            return Ok(index);
        }
        match u16::try_from(self.origins.len()) {
            Ok(index) if self.origins.len() < MAX_ORIGINS => {
                self.origins.push(origin);
                Ok(index)
            }
            _ => Err(StoreError::new(format!(
                "this store has met {MAX_ORIGINS} origins, the most it can name"
            ))),
        }
    }

    pub(super) fn known_origin_index(&self, origin: ReplicaId) -> Option<u16> {
        let index = self.origins.iter().position(|known| *known == origin)?;
        u16::try_from(index).ok()
    }

    /// The entry's current state, staged changes included: the one that the next write to it will meet.
    ///
    /// # Errors
    /// Where its row cannot be read.
    pub fn entry(&self, id: &EntryId) -> Result<Option<Entry>, StoreError> {
        let row_key = keys::entry(id);
        let Some(row) = self.row(&row_key)? else { return Ok(None) };
        let row = row::decode_entry(&row_key, &row).and_then(|row| entry_of_row(&self.origins, row));
        row.map(Some).map_err(|why| damaged_row(&why))
    }

    pub(super) fn row(&self, row_key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.staged.get(row_key) {
            Some(staged) => Ok(staged.as_ref().map(|row| Bytes::copy_from_slice(row))),
            None => self.store.read(row_key),
        }
    }

    /// Commits when the batch is as large as it should get. Call it only between events: the rows of one
    /// event belong into one batch.
    pub(super) fn commit_if_full(&mut self) -> Result<(), StoreError> {
        if self.staged.len() + self.room_rows() >= MAX_BATCH_ROWS { self.commit() } else { Ok(()) }
    }
}
