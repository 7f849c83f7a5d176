//! Walks over the entries, a slice at a time: for rows to send, or for ids to list.
//!
//! There is no index from an id to its row: the rare round walks the store, and every write is spared a row.

use std::ops::ControlFlow;

use super::super::{Replica, entry_of_row};
use crate::clock::{Now, ReplicaId};
use crate::codec::round::{Ids, Listing, MAX_IDS_A_MESSAGE, RepairRow, Rows, Step};
use crate::codec::row;
use crate::digest::{LEAVES, NameHash};
use crate::entry::{Entry, EntryId};
use crate::keys;
use crate::store::{Store, StoreError};

/// Rows walked in one go.
const SLICE_ROWS: usize = 1_000;

/// Rows of about this many bytes fill a message.
const REPAIR_BYTES: usize = 64 << 10;

/// Bits of an id that are sent to name a state. They fit a state that is not meant once in 2^40 pairs, and its row is
/// then sent for nothing.
pub(super) const SHORT_BITS: u32 = 40;

/// A set of leaves.
#[derive(Clone)]
pub(super) struct Leaves(Vec<u64>);

impl Leaves {
    pub(super) fn of(ranges: &[(u16, u16)]) -> Self {
        let mut bits = vec![0; LEAVES / 64];
        for leaf in ranges.iter().flat_map(|(first, last)| usize::from(*first)..=usize::from(*last)) {
            bits[leaf / 64] |= 1u64 << (leaf % 64);
        }
        Self(bits)
    }

    fn contains(&self, leaf: u16) -> bool {
        self.0[usize::from(leaf) / 64] & 1u64 << (leaf % 64) != 0
    }
}

/// Which rows to send.
pub(super) enum Pick {
    /// Those with one of these short ids, rising; whether each was met, and how many were not.
    Named { ids: Vec<u64>, met: Vec<bool>, left: usize },
    /// All in these leaves.
    Leaves(Leaves),
    /// All in these leaves whose short id is not among these, rising; whether each was met. Those that were not are
    /// then asked for.
    Unlisted { leaves: Leaves, ids: Vec<u64>, met: Vec<bool> },
}

impl Pick {
    pub(super) fn named(mut ids: Vec<u64>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self::Named { met: vec![false; ids.len()], left: ids.len(), ids }
    }

    pub(super) fn unlisted(leaves: Leaves, mut ids: Vec<u64>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self::Unlisted { leaves, met: vec![false; ids.len()], ids }
    }

    /// Whether an entry in this leaf may be meant, whatever its state.
    fn may_take(&self, leaf: u16) -> bool {
        match self {
            Self::Named { .. } => true,
            Self::Leaves(leaves) | Self::Unlisted { leaves, .. } => leaves.contains(leaf),
        }
    }

    /// Whether the state is to be sent.
    fn takes(&mut self, state: impl FnOnce() -> u64) -> bool {
        match self {
            Self::Leaves(_) => true,
            Self::Named { ids, met, left } => {
                let Ok(at) = ids.binary_search(&state()) else { return false };
                *left -= usize::from(!std::mem::replace(&mut met[at], true));
                true
            }
            Self::Unlisted { ids, met, .. } => match ids.binary_search(&state()) {
                Ok(at) => {
                    met[at] = true;
                    false
                }
                Err(_) => true,
            },
        }
    }

    /// Whether every row there can be has been met.
    fn is_exhausted(&self) -> bool {
        matches!(self, Self::Named { left: 0, .. })
    }
}

/// A walk for rows to send.
pub(super) struct Errand {
    pick: Pick,
    cursor: Vec<u8>,
    rows: Vec<RepairRow>,
    rows_bytes: usize,
}

impl Errand {
    pub(super) fn new(pick: Pick) -> Self {
        Self { pick, cursor: vec![keys::ENTRY], rows: Vec::new(), rows_bytes: 0 }
    }
}

/// A walk for the ids of all states in some leaves.
pub(super) struct Gathering {
    pub(super) first: u16,
    pub(super) last: u16,
    cursor: Vec<u8>,
    ids: Vec<u64>,
}

impl Gathering {
    pub(super) fn new(first: u16, last: u16) -> Self {
        Self { first, last, cursor: vec![keys::ENTRY], ids: Vec::new() }
    }

    /// The list, in messages.
    fn into_steps(mut self) -> impl Iterator<Item = Step> {
        self.ids.sort_unstable();
        self.ids.dedup();
        let (first, last, len) = (self.first, self.last, self.ids.len());
        let parts = len.div_ceil(MAX_IDS_A_MESSAGE).max(1);
        (0..parts).map(move |part| {
            let from = part * MAX_IDS_A_MESSAGE;
            let upto = (from + MAX_IDS_A_MESSAGE).min(len);
            let ids = Ids(self.ids[from..upto].to_vec());
            Step::Listing(Listing { first, last, ids, more: part + 1 < parts })
        })
    }
}

impl<S: Store> Replica<S> {
    /// A slice of the walk for rows that the other side of a round lacks.
    pub(super) fn walk_to_send(&mut self, now: Now, with: ReplicaId) -> Result<(), StoreError> {
        let Some(peer) = self.peers.get_mut(&with) else { return Ok(()) };
        let theirs = peer.claims.clone();
        let parts = peer.responder.iter_mut().map(|responder| &mut responder.exchange);
        let mut parts = parts.chain(peer.initiator.iter_mut().map(|initiator| &mut initiator.exchange));
        let Some(exchange) = parts.find(|part| part.may_walk() && part.errand.is_some()) else {
            return Ok(());
        };
        let number = exchange.number;
        let Some(mut errand) = exchange.errand.take() else { return Ok(()) };
        let mut next = None;
        if !errand.pick.is_exhausted() {
            let Errand { pick, cursor, rows, rows_bytes } = &mut errand;
            next = self.walk_slice(cursor, &mut |replica, name, id, row_key, row| {
                if !pick.may_take(name.leaf()) {
                    return Ok(true);
                }
                let entry = replica.walked_entry(row_key, row)?;
                if pick.takes(|| replica.short_id(name, &entry))
                    && replica.is_settled_state(&theirs, &entry)
                    && !replica.is_droppable(&entry)
                {
                    *rows_bytes += row_bytes(&id, &entry);
                    rows.push(RepairRow { id, entry });
                }
                Ok(*rows_bytes < REPAIR_BYTES && !pick.is_exhausted())
            })?;
        }
        let next = next.filter(|_| !errand.pick.is_exhausted());
        let Some(exchange) = self.exchange(with, number) else { return Ok(()) };
        let done = next.is_none();
        if done && let Pick::Unlisted { ids, met, .. } = &errand.pick {
            let lacked = ids.iter().zip(met).filter(|(_, met)| !**met);
            exchange.ask(&lacked.map(|(id, _)| *id).collect::<Vec<_>>());
        }
        if done || errand.rows_bytes >= REPAIR_BYTES {
            exchange.say(Step::Rows(Rows { rows: std::mem::take(&mut errand.rows), more: !done }));
            errand.rows_bytes = 0;
        }
        if let Some(next) = next {
            errand.cursor = next;
            exchange.errand = Some(errand);
            exchange.show_life(now);
        }
        Ok(())
    }

    /// A slice of the initiator's walk for its list.
    pub(super) fn walk_to_list(&mut self, now: Now, with: ReplicaId) -> Result<(), StoreError> {
        let Some(initiator) = self.peers.get_mut(&with).and_then(|peer| peer.initiator.as_mut()) else {
            return Ok(());
        };
        if !initiator.exchange.may_walk() {
            return Ok(());
        }
        let Some(mut gathering) = initiator.take_gathering() else { return Ok(()) };
        let Gathering { first, last, cursor, ids } = &mut gathering;
        let next = self.walk_slice(cursor, &mut |replica, name, _, row_key, row| {
            if (*first..=*last).contains(&name.leaf()) {
                let entry = replica.walked_entry(row_key, row)?;
                ids.push(replica.short_id(name, &entry));
            }
            Ok(ids.len() < 2 * super::MAX_LISTED)
        })?;
        let Some(initiator) = self.peers.get_mut(&with).and_then(|peer| peer.initiator.as_mut()) else {
            return Ok(());
        };
        match next {
            Some(next) => {
                gathering.cursor = next;
                initiator.put_gathering(gathering);
                initiator.exchange.show_life(now);
            }
            None => gathering.into_steps().for_each(|step| initiator.exchange.say(step)),
        }
        Ok(())
    }

    /// Visits entries from `cursor` on, until `visit` says that it has had enough. Gives where to go on (`None` at
    /// the end).
    fn walk_slice(&self, cursor: &[u8], visit: &mut Visit<'_, S>) -> Result<Option<Vec<u8>>, StoreError> {
        let mut seen = 0;
        let mut enough = false;
        let mut next = None;
        let mut fault = None;
        self.store.scan(cursor, &mut |row_key, row| {
            if row_key.first() != Some(&keys::ENTRY) {
                return ControlFlow::Break(());
            }
            if seen == SLICE_ROWS || enough {
                next = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            seen += 1;
            let Some(id) = keys::parse_entry(row_key) else { return ControlFlow::Continue(()) };
            let name = self.settings.digest_key.name_hash(&id);
            match visit(self, name, id, row_key, &row) {
                Ok(goes_on) => enough = !goes_on,
                Err(error) => {
                    fault = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        fault.map_or(Ok(next), Err)
    }

    fn walked_entry(&self, row_key: &[u8], row: &bytes::Bytes) -> Result<Entry, StoreError> {
        row::decode_entry(row_key, row)
            .and_then(|row| entry_of_row(&self.origins, row))
            .map_err(|why| StoreError::new(format!("the row of an entry is damaged: {why}")))
    }

    fn short_id(&self, name: NameHash, entry: &Entry) -> u64 {
        self.settings.digest_key.state_digest(name, entry).item().id() >> (48 - SHORT_BITS)
    }
}

/// What a walk calls for each entry: with its name's hash, its name, and its row. Gives whether to go on.
type Visit<'a, S> =
    dyn FnMut(&Replica<S>, NameHash, EntryId, &[u8], &bytes::Bytes) -> Result<bool, StoreError> + 'a;

/// About how many bytes a repaired entry takes in a message.
fn row_bytes(id: &EntryId, entry: &Entry) -> usize {
    64 + id.user_bytes() + entry.body.frame_bytes()
}
