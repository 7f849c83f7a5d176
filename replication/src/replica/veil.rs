//! Veils: what keeps readers from seeing a part of a batch.
//!
//! A replica sends the latest state of an entry, and that may show an event of a batch whose other events the receiver is
//! yet to get: of the same origin, with a later interval, or of another, with its own stream. The store takes the state at
//! once, as always: claims, digests and what is passed on know nothing of veils. But readers go on seeing the entry as it
//! was ([`crate::read::shown`]), and so every entry of a batch that touches one that is veiled, until all that the states
//! show of batches is held. Then all veils are lifted, in one batch of the store.
//!
//! The rule this file upholds: with no veil there is no part of a batch to be seen without the rest. What a state shows of an
//! origin's events is known by the latest of them, and which origin has a batch under way by [`Batches::ends`], which goes
//! with every delta.
//!
//! What is veiled is behind, and says so: [`Replica::shown`] is what readers see all of. Where there would be too many veils,
//! or they hang for too long since new batches come and come, readers see the parts, and `batches_torn` counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::{Replica, damaged_row};
use crate::clock::{Dot, Hlc, Now, ReplicaId};
use crate::codec::message::{Batches, DeltaRow};
use crate::codec::row::{self, EntryRow};
use crate::codec::veil::{self, Veiling};
use crate::entry::{Body, Entry, EntryId, Kind, NamespaceId};
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::{MAX_ORIGINS, VersionVector};

/// The most entries that are veiled at once.
pub const MAX_VEILS: usize = 4_096;
/// How long one of them may hang while batches it waits for are under way.
pub const MAX_VEILED_US: u64 = 60_000_000;

/// How many veils there are, for those who read the store beside the replica: while there is none they need not look.
pub type VeilCount = Arc<AtomicUsize>;

/// The veils of a replica, and what it knows of batches under way.
#[derive(Default)]
pub(super) struct Veils {
    /// By origin, the last event of the last batch that anybody has told of.
    ends: BTreeMap<ReplicaId, Hlc>,
    /// The row keys of the entries that are veiled.
    veiled: BTreeSet<Vec<u8>>,
    veiling: Veiling,
    since_us: u64,
    /// Those that are staged or on disk.
    count: VeilCount,
    /// Those of them that the next commit removes.
    lifted: usize,
}

impl Veils {
    /// A batch of this origin ends with this event.
    pub(super) fn note_end(&mut self, origin: ReplicaId, hlc: Hlc) {
        if self.ends.len() < MAX_ORIGINS || self.ends.contains_key(&origin) {
            let end = self.ends.entry(origin).or_default();
            *end = hlc.max(*end);
        }
    }

    fn end_of(&self, origin: ReplicaId) -> Hlc {
        self.ends.get(&origin).copied().unwrap_or_default()
    }

    /// Opening has found this entry veiled.
    pub(super) fn found(&mut self, entry_key: &[u8]) {
        self.veiled.insert(entry_key.to_vec());
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Opening has found what holds of all of them.
    pub(super) fn found_veiling(&mut self, veiling: Veiling) {
        veiling.needs.iter().for_each(|(origin, hlc)| self.note_end(*origin, *hlc));
        self.veiling = veiling;
    }

    pub(super) fn is_veiled(&self, entry_key: &[u8]) -> bool {
        !self.veiled.is_empty() && self.veiled.contains(entry_key)
    }

    /// The row key of an entry, if that is veiled. Where nothing is, none is made.
    pub(super) fn key_if_veiled(&self, id: &EntryId) -> Option<Vec<u8>> {
        if self.veiled.is_empty() {
            return None;
        }
        Some(keys::entry(id)).filter(|entry_key| self.veiled.contains(entry_key))
    }

    /// The batch that removed them is in the store: nobody needs to look for them any more.
    pub(super) fn committed(&mut self) {
        self.count.fetch_sub(std::mem::take(&mut self.lifted), Ordering::AcqRel);
    }

    /// Everybody who is to copy from, or to count on, what is at or below the epoch holds all of it.
    pub(super) fn settle(&mut self, epoch: Hlc) {
        self.ends.retain(|_, end| *end > epoch);
    }

    /// When some hang for too long.
    pub(super) fn due_us(&self) -> Option<u64> {
        (!self.veiled.is_empty()).then_some(self.since_us + MAX_VEILED_US)
    }
}

/// Whether this entry may be written by a batch.
pub(super) fn may_be_in_batch(id: &EntryId) -> bool {
    id.namespace != NamespaceId::SYSTEM && id.kind != Kind::Doc
}

impl<S: Store> Replica<S> {
    /// How many veils there are; kept true while this replica lives.
    pub fn veil_count(&self) -> VeilCount {
        self.veils.count.clone()
    }

    /// Of what is held durably, that of which readers see all.
    pub fn shown(&self) -> VersionVector {
        let mut shown = self.durable.clone();
        for (origin, hidden) in &self.veils.veiling.hides {
            shown.lower(*origin, hidden.previous());
        }
        shown
    }

    /// Of the events of one origin that are held durably, up to which readers see all.
    pub(super) fn shown_of(&self, origin: ReplicaId) -> Hlc {
        let held = self.durable.hlc(origin);
        self.veils.veiling.hides.get(&origin).map_or(held, |hidden| hidden.previous().min(held))
    }

    /// The entry as readers see it, staged changes included.
    ///
    /// # Errors
    /// Where its row cannot be read.
    pub fn shown_entry(&self, id: &EntryId) -> Result<Option<Entry>, StoreError> {
        match self.veils.key_if_veiled(id) {
            Some(entry_key) => self.entry_on_veil(&entry_key),
            None => self.entry(id),
        }
    }

    /// The state that this write of a value leaves: what its writer has seen is what readers see, and that is `current` where
    /// nothing is veiled.
    pub(super) fn over_what_is_seen(
        &self,
        id: &EntryId,
        current: Option<&Entry>,
        dot: Dot,
        body: Body,
    ) -> Result<Entry, StoreError> {
        Ok(match self.veils.key_if_veiled(id) {
            Some(entry_key) => Entry::over(self.entry_on_veil(&entry_key)?.as_ref(), dot, body),
            None => Entry::over(current, dot, body),
        })
    }

    /// What the veil of an entry shows of it.
    fn entry_on_veil(&self, entry_key: &[u8]) -> Result<Option<Entry>, StoreError> {
        let row_key = keys::veil(entry_key);
        let Some(row) = self.row(&row_key)? else { return Ok(None) };
        let shown = veil::decode_veil(&row_key, &row).map_err(|why| damaged_row(&why))?;
        self.decoded(entry_key, shown.as_ref())
    }

    fn decoded(&self, entry_key: &[u8], row: Option<&Bytes>) -> Result<Option<Entry>, StoreError> {
        let decoded = row.map(|row| {
            row::decode_entry(entry_key, row).and_then(|row| super::entry_of_row(&self.origins, row))
        });
        decoded.transpose().map_err(|why| damaged_row(&why))
    }

    /// What a peer that claims so much must know of batches under way.
    pub(super) fn batches_beyond(&self, claims: &VersionVector) -> Vec<(ReplicaId, Hlc)> {
        let ends = self.veils.ends.iter().map(|(origin, end)| (*origin, *end));
        ends.filter(|(origin, end)| *end > claims.hlc(*origin)).collect()
    }

    /// What a delta says of batches.
    pub(super) fn hear_of_batches(&mut self, origin: ReplicaId, batches: &Batches, rows: &[DeltaRow]) {
        for (origin, end) in &batches.ends {
            if *end > self.held.hlc(*origin) {
                self.veils.note_end(*origin, *end);
            }
        }
        let ends = batches.going_on.iter().filter_map(|row| rows.get(*row as usize + 1));
        ends.for_each(|row| self.veils.note_end(origin, row.position.hlc));
    }

    /// Before these events of `origin`, a whole batch or a single one, are applied: veils what readers must not see yet.
    pub(super) fn veil(
        &mut self,
        now: Now,
        origin: ReplicaId,
        events: &[DeltaRow],
    ) -> Result<(), StoreError> {
        let is_quiet = self.veils.ends.is_empty() && self.veils.veiled.is_empty();
        let may_be_in_batch = events.iter().any(|row| may_be_in_batch(&row.id));
        let (true, Some(first), Some(last)) =
            (!is_quiet && may_be_in_batch && !planted!(AheadShown), events.first(), events.last())
        else {
            return Ok(());
        };
        let unmet = self.unmet(origin, last.position.hlc, events);
        let touches = events.iter().any(|row| self.veils.key_if_veiled(&row.id).is_some());
        if unmet.is_empty() && !touches {
            return Ok(());
        }
        if self.veils.veiled.len() + events.len() > MAX_VEILS {
            return self.tear();
        }
        if self.veils.veiled.is_empty() {
            self.veils.since_us = now.mono_us;
        }
        let before = self.veils.veiling.clone();
        let Veiling { needs, hides } = &mut self.veils.veiling;
        for (origin, hlc) in unmet {
            let need = needs.entry(origin).or_default();
            *need = hlc.max(*need);
        }
        let hidden = hides.entry(origin).or_insert(first.position.hlc);
        *hidden = first.position.hlc.min(*hidden);
        if self.veils.veiling != before {
            let row = veil::encode_veiling(&self.veils.veiling);
            self.staged.insert(keys::VEILING.to_vec(), Some(row));
        }
        for event in events.iter().filter(|_| !planted!(BatchMatesShown) || !touches) {
            self.veil_entry(keys::entry(&event.id))?;
        }
        Ok(())
    }

    /// What the states show of batches that are not held, when all of `origin` is applied up to `upto`.
    fn unmet(&self, origin: ReplicaId, upto: Hlc, events: &[DeltaRow]) -> BTreeMap<ReplicaId, Hlc> {
        let held = |replica| {
            if replica == origin { upto.max(self.held.hlc(replica)) } else { self.held.hlc(replica) }
        };
        let mut unmet: BTreeMap<ReplicaId, Hlc> = BTreeMap::new();
        for dot in events.iter().filter_map(|row| row.entry.as_ref()).flat_map(Entry::dots) {
            if self.is_unmet(dot, held(dot.replica)) {
                let need = unmet.entry(dot.replica).or_default();
                *need = dot.hlc.max(*need);
            }
        }
        unmet
    }

    /// Whether a state shows a part of a batch that is not held.
    pub(super) fn shows_unmet(&self, id: &EntryId, entry: &Entry) -> bool {
        let is_unmet = |dot: Dot| self.is_unmet(dot, self.held.hlc(dot.replica));
        !self.veils.ends.is_empty() && may_be_in_batch(id) && entry.dots().into_iter().any(is_unmet)
    }

    /// Whether this event may be of a batch that is not held, where so much of its origin is.
    fn is_unmet(&self, dot: Dot, held: Hlc) -> bool {
        dot.replica != self.id && dot.hlc > held && self.veils.end_of(dot.replica) > held
    }

    fn veil_entry(&mut self, entry_key: Vec<u8>) -> Result<(), StoreError> {
        if self.veils.veiled.contains(&entry_key) {
            return Ok(());
        }
        let shown = self.row(&entry_key)?;
        let row_key = keys::veil(&entry_key);
        let body = self.decoded(&entry_key, shown.as_ref())?.map(|shown| shown.body);
        self.chunks_renamed(&row_key, None, body.as_ref());
        let row = veil::encode_veil(&row_key, shown.as_deref());
        self.staged.insert(row_key, Some(row));
        self.veils.count.fetch_add(1, Ordering::AcqRel);
        self.veils.veiled.insert(entry_key);
        Ok(())
    }

    /// Lifts the veils, if all that they wait for is held.
    pub(super) fn consider_veils(&mut self) -> Result<(), StoreError> {
        let is_met = |(origin, need): (&ReplicaId, &Hlc)| self.held.hlc(*origin) >= *need;
        if !self.veils.veiled.is_empty() && self.veils.veiling.needs.iter().all(is_met) {
            self.lift_veils()?;
        }
        Ok(())
    }

    /// Readers see parts of batches from now on: there are too many veils, or they hang for too long.
    pub(super) fn tear(&mut self) -> Result<(), StoreError> {
        self.counters.batches_torn += self.veils.veiled.len() as u64;
        self.lift_veils()
    }

    /// All veils are lifted by the same batch of the store, however many they are: or their entries would be seen one
    /// after the other.
    fn lift_veils(&mut self) -> Result<(), StoreError> {
        self.forget_veiling();
        for entry_key in std::mem::take(&mut self.veils.veiled) {
            self.remove_veil(&entry_key)?;
            if let Some(id) = keys::parse_entry(&entry_key)
                && let Some(entry) = self.entry(&id)?
            {
                self.ahead.note(&self.held, &entry);
                self.note_changed(&id, &entry);
            }
        }
        Ok(())
    }

    /// Nothing is hidden any more.
    fn forget_veiling(&mut self) {
        self.veils.veiling = Veiling::default();
        self.staged.insert(keys::VEILING.to_vec(), None);
    }

    fn remove_veil(&mut self, entry_key: &[u8]) -> Result<(), StoreError> {
        let row_key = keys::veil(entry_key);
        let body = self.entry_on_veil(entry_key)?.map(|shown| shown.body);
        self.chunks_renamed(&row_key, body.as_ref(), None);
        self.staged.insert(row_key, None);
        self.veils.lifted += 1;
        Ok(())
    }

    /// This replica has written to an entry: its own write is seen at once, and what it did not replace stays veiled.
    pub(super) fn show_own_write(&mut self, id: &EntryId) -> Result<(), StoreError> {
        let Some(entry_key) = self.veils.key_if_veiled(id) else { return Ok(()) };
        let replaces_all = !matches!(id.kind, Kind::Counter | Kind::Bounded)
            && (id.kind == Kind::Value || !id.element.is_empty());
        let own = self.entry(id)?.and_then(|entry| entry.said_by(self.id));
        let Some(own) = own.filter(|_| !replaces_all) else { return self.forget_veil(&entry_key) };
        let shown = match self.entry_on_veil(&entry_key)? {
            Some(shown) => shown.join(own),
            None => own,
        };
        let index = self.known_origin_index(shown.dot.replica);
        let index = index.ok_or_else(|| StoreError::new("a state of an origin without an index"))?;
        let shown = row::encode_entry(&entry_key, &EntryRow::of(index, shown));
        let row_key = keys::veil(&entry_key);
        let row = veil::encode_veil(&row_key, Some(&shown));
        self.staged.insert(row_key, Some(row));
        Ok(())
    }

    /// The entry needs no veil any more.
    pub(super) fn forget_veil(&mut self, entry_key: &[u8]) -> Result<(), StoreError> {
        if self.veils.veiled.remove(entry_key) {
            self.remove_veil(entry_key)?;
            if self.veils.veiled.is_empty() {
                self.forget_veiling();
            }
        }
        Ok(())
    }
}
