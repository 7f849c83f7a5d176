//! Anti-entropy: the safety net under the bookkeeping, and the proof that it was right.
//!
//! A round has an initiator (of two replicas the one with the lesser id) and a responder:
//!
//! 1. The initiator sends the digests of its tree level by level ([`Compare`]), and the responder answers
//!    with the nodes that differ ([`Differ`]), down to the leaves.
//! 2. The initiator walks its entries in the differing leaves, in the order of row keys, a slice at a time,
//!    and sends name and state of each as short hashes ([`Listing`]).
//! 3. The responder walks the same range, and answers ([`Findings`]) with the entries that the initiator
//!    lacks, and the names of those it lacks itself.
//! 4. The initiator applies the former, sends the latter ([`Repair`]), and lists the next range.
//!
//! In flight is not divergence: an entry whose dot the other side's claims do not cover is on its way, and is
//! left alone. Covered and absent is true divergence: it is repaired and counted.
//!
//! The walks are slices of `SLICE_ROWS` rows, done when the driver calls `handle_timeout`; a round holds at
//! most one listing in memory, and one that makes no progress is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use super::{Event, MessageError, Replica, entry_of_row};
use crate::clock::{Now, ReplicaId};
use crate::codec::message::{Compare, Differ, Findings, Listing, Message, Repair, RepairRow};
use crate::codec::row;
use crate::digest::{DEPTH, FANOUT, LEAVES, nodes_at};
use crate::entry::{Body, Entry, EntryId, Payload};
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::VersionVector;

/// Rows walked in one go.
const SLICE_ROWS: usize = 1_000;

/// The most entries of one listing.
const MAX_LISTED: usize = 8_192;

/// The most nodes compared in one message; a round that meets more repairs these, and the next the rest.
const MAX_COMPARED: usize = 16_384;

/// A round without a message for this long is dropped.
const ROUND_TIMEOUT_US: u64 = 10_000_000;

/// The least time between two rounds with one peer.
const ROUND_PAUSE_US: u64 = 5_000_000;

/// Even under constant writes, when vectors are never seen equal, differing roots are looked into this often.
const ROUND_EVERY_US: u64 = 60_000_000;

/// A set of leaves.
struct Leaves(Vec<u64>);

impl Leaves {
    fn of(nodes: &[u16]) -> Self {
        let mut bits = vec![0; LEAVES / 64];
        nodes.iter().for_each(|leaf| bits[usize::from(*leaf) / 64] |= 1u64 << (leaf % 64));
        Self(bits)
    }

    fn contains(&self, leaf: u16) -> bool {
        self.0[usize::from(leaf) / 64] & 1u64 << (leaf % 64) != 0
    }
}

/// The initiator's side of a round.
pub(super) struct Initiator {
    number: u32,
    deadline_us: u64,
    /// Entries repaired on either side.
    repaired: u64,
    outbox: VecDeque<Message>,
    walk: Option<Walk>,
}

/// The initiator's walk over its entries in the differing leaves.
struct Walk {
    leaves: Leaves,
    /// Where the present range began, and how far it has been walked.
    from: Vec<u8>,
    cursor: Vec<u8>,
    /// The listing in the making, then what it was made of until it is answered: state and row key by name.
    listed: BTreeMap<u64, (u64, Vec<u8>)>,
    /// Where the listing that was sent ends; `None` inside while it is being made.
    sent_until: Option<Option<Vec<u8>>>,
    /// Rows the responder wants, not sent yet.
    wanted: VecDeque<Vec<u8>>,
    /// Whether the present listing is answered in full.
    answered: bool,
}

impl Initiator {
    pub(super) fn due_us(&self) -> u64 {
        let walking = self.walk.as_ref().is_some_and(|walk| walk.sent_until.is_none());
        if walking { 0 } else { self.deadline_us }
    }
}

/// The responder's side of a round.
pub(super) struct Responder {
    number: u32,
    deadline_us: u64,
    leaves: Option<Leaves>,
    outbox: VecDeque<Message>,
    answer: Option<Answer>,
}

/// The responder's walk over its own entries, against one listing.
struct Answer {
    until: Option<Vec<u8>>,
    cursor: Vec<u8>,
    /// Listed entries not met yet: state by name.
    unmatched: BTreeMap<u64, u64>,
    wanted: Vec<u64>,
    rows: Vec<RepairRow>,
    rows_bytes: usize,
}

impl Responder {
    pub(super) fn due_us(&self) -> u64 {
        // While an answer waits for room on the link, the walk rests.
        let walking = self.answer.is_some() && self.outbox.is_empty();
        if walking { 0 } else { self.deadline_us }
    }
}

/// Rows of about this many bytes fill a message.
const REPAIR_BYTES: usize = 256 << 10;

/// One entry met on a walk, as short hashes.
struct Met {
    row_key: Vec<u8>,
    name: u64,
    state: u64,
    entry: Entry,
}

impl<S: Store> Replica<S> {
    /// Starts a round with `with` where there is reason to.
    pub(super) fn consider_round(&mut self, now: Now, with: ReplicaId) {
        let Some(peer) = self.peers.get(&with) else { return };
        let due = now.mono_us >= peer.next_round_us && peer.initiator.is_none();
        if self.id > with || !due || !self.may_compare(peer) || !self.root_differs(peer) {
            return;
        }
        // Unequal vectors explain unequal roots, so wait; but not for ever.
        let overdue = now.mono_us >= peer.next_round_us + ROUND_EVERY_US;
        if !self.is_converged_with(peer) && !overdue {
            return;
        }
        self.counters.rounds += 1;
        let number = self.counters.rounds as u32;
        let first = self.compare(number, 1, &[0]);
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.initiator = Some(Initiator {
                number,
                deadline_us: now.mono_us + ROUND_TIMEOUT_US,
                repaired: 0,
                outbox: VecDeque::from([first]),
                walk: None,
            });
        }
    }

    fn compare(&self, round: u32, level: u8, parents: &[u16]) -> Message {
        let children = parents
            .iter()
            .flat_map(|parent| (0..FANOUT as u32).map(|c| u32::from(*parent) * FANOUT as u32 + c));
        let nodes = children
            .take(MAX_COMPARED)
            .filter_map(|index| u16::try_from(index).ok())
            .filter_map(|index| Some((index, self.tree.node(level, index)?.to_bytes())))
            .collect();
        Message::Compare(Compare { round, level, nodes })
    }

    pub(super) fn handle_compare(
        &mut self,
        now: Now,
        from: ReplicaId,
        compare: Compare,
    ) -> Result<(), MessageError> {
        let Compare { round, level, nodes } = compare;
        if level == 0 || level > DEPTH || nodes.len() > MAX_COMPARED {
            return Err(protocol("a comparison outside the tree"));
        }
        let differing: Vec<u16> = nodes
            .into_iter()
            .filter(|(index, digest)| {
                self.tree.node(level, *index).is_some_and(|own| own.to_bytes() != *digest)
            })
            .map(|(index, _)| index)
            .collect();
        let leaves = (level == DEPTH).then(|| Leaves::of(&differing));
        let answer = Message::Differ(Differ { round, level, nodes: differing });
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.responder = Some(Responder {
                number: round,
                deadline_us: now.mono_us + ROUND_TIMEOUT_US,
                leaves,
                outbox: VecDeque::from([answer]),
                answer: None,
            });
        }
        Ok(())
    }

    pub(super) fn handle_differ(
        &mut self,
        now: Now,
        from: ReplicaId,
        differ: Differ,
    ) -> Result<(), MessageError> {
        let Differ { round, level, nodes } = differ;
        if level == 0 || level > DEPTH || nodes.iter().any(|index| usize::from(*index) >= nodes_at(level)) {
            return Err(protocol("a difference outside the tree"));
        }
        if nodes.is_empty() {
            self.end_round(now, from, round);
            return Ok(());
        }
        let next = (level < DEPTH).then(|| self.compare(round, level + 1, &nodes));
        let Some(initiator) = self.initiator(now, from, round) else { return Ok(()) };
        match next {
            Some(next) => initiator.outbox.push_back(next),
            None => {
                initiator.walk = Some(Walk {
                    leaves: Leaves::of(&nodes),
                    from: vec![keys::ENTRY],
                    cursor: vec![keys::ENTRY],
                    listed: BTreeMap::new(),
                    sent_until: None,
                    wanted: VecDeque::new(),
                    answered: false,
                });
            }
        }
        Ok(())
    }

    pub(super) fn handle_listing(
        &mut self,
        now: Now,
        from: ReplicaId,
        listing: Listing,
    ) -> Result<(), MessageError> {
        if listing.items.len() > MAX_LISTED {
            return Err(protocol("a listing longer than any may be"));
        }
        let Some(responder) = self.peers.get_mut(&from).and_then(|peer| peer.responder.as_mut()) else {
            return Ok(());
        };
        if responder.number != listing.round || responder.leaves.is_none() {
            return Ok(());
        }
        responder.deadline_us = now.mono_us + ROUND_TIMEOUT_US;
        responder.answer = Some(Answer {
            until: listing.until,
            cursor: listing.from,
            unmatched: listing.items.into_iter().collect(),
            wanted: Vec::new(),
            rows: Vec::new(),
            rows_bytes: 0,
        });
        Ok(())
    }

    pub(super) fn handle_findings(
        &mut self,
        now: Now,
        from: ReplicaId,
        findings: Findings,
    ) -> Result<(), MessageError> {
        if self.initiator(now, from, findings.round).is_none() {
            return Ok(());
        }
        let repaired = self.repair_rows(findings.rows)?;
        let Some(initiator) = self.initiator(now, from, findings.round) else { return Ok(()) };
        initiator.repaired += repaired;
        let Some(walk) = initiator.walk.as_mut() else { return Err(protocol("findings without a listing")) };
        let rows = findings
            .wanted
            .iter()
            .filter_map(|name| walk.listed.get(name))
            .map(|(_, row_key)| row_key.clone());
        walk.wanted.extend(rows);
        walk.answered |= !findings.more;
        Ok(())
    }

    pub(super) fn handle_repair(
        &mut self,
        now: Now,
        from: ReplicaId,
        repair: Repair,
    ) -> Result<(), MessageError> {
        let Some(responder) = self.peers.get_mut(&from).and_then(|peer| peer.responder.as_mut()) else {
            return Ok(());
        };
        if responder.number != repair.round {
            return Ok(());
        }
        responder.deadline_us = now.mono_us + ROUND_TIMEOUT_US;
        let repaired = self.repair_rows(repair.rows)?;
        if repair.last
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.responder = None;
            self.emit(Event::RoundEnded { peer: from, repaired });
            self.sweep_thoroughly();
        }
        Ok(())
    }

    /// Applies entries our claims cover; others are in flight and come by their own way.
    fn repair_rows(&mut self, rows: Vec<RepairRow>) -> Result<u64, StoreError> {
        let mut repaired = 0;
        for row in rows {
            if self.held.covers(row.entry.dot) {
                self.commit_if_full()?;
                repaired += u64::from(self.apply_repair(&row.id, row.entry)?);
            }
        }
        self.counters.repaired += repaired;
        Ok(repaired)
    }

    /// The round with this number, if it is still on; it has made progress.
    fn initiator(&mut self, now: Now, with: ReplicaId, number: u32) -> Option<&mut Initiator> {
        let initiator =
            self.peers.get_mut(&with)?.initiator.as_mut().filter(|round| round.number == number)?;
        initiator.deadline_us = now.mono_us + ROUND_TIMEOUT_US;
        Some(initiator)
    }

    fn end_round(&mut self, now: Now, with: ReplicaId, number: u32) {
        let Some(peer) = self.peers.get_mut(&with) else { return };
        if let Some(ended) = peer.initiator.take_if(|round| round.number == number) {
            peer.next_round_us = now.mono_us + ROUND_PAUSE_US;
            self.emit(Event::RoundEnded { peer: with, repaired: ended.repaired });
            self.sweep_thoroughly();
        }
    }

    /// Drops rounds that stand still, and walks a slice of those that have walking to do.
    pub(super) fn work_on_rounds(&mut self, now: Now, with: ReplicaId) -> Result<(), StoreError> {
        let Some(peer) = self.peers.get_mut(&with) else { return Ok(()) };
        if peer.initiator.take_if(|round| round.deadline_us <= now.mono_us).is_some() {
            peer.next_round_us = now.mono_us + ROUND_PAUSE_US;
        }
        peer.responder.take_if(|round| round.deadline_us <= now.mono_us);
        // A walk compares durable state: what is staged now will be seen by the next slice.
        if self.unflushed || !self.staged.is_empty() {
            return Ok(());
        }
        self.walk_to_list(with)?;
        self.walk_to_answer(with)
    }

    fn walk_to_list(&mut self, with: ReplicaId) -> Result<(), StoreError> {
        let Some(mut initiator) = self.peers.get_mut(&with).and_then(|peer| peer.initiator.take()) else {
            return Ok(());
        };
        if let Some(walk) = initiator.walk.as_mut().filter(|walk| walk.sent_until.is_none()) {
            let (met, next) = self.walk_slice(&walk.cursor, None, &walk.leaves)?;
            walk.listed.extend(met.into_iter().map(|met| (met.name, (met.state, met.row_key))));
            let full = walk.listed.len() + SLICE_ROWS > MAX_LISTED;
            if let Some(next) = &next {
                walk.cursor.clone_from(next);
            }
            if next.is_none() || full {
                let items = walk.listed.iter().map(|(name, (state, _))| (*name, *state)).collect();
                let listing =
                    Listing { round: initiator.number, from: walk.from.clone(), until: next.clone(), items };
                initiator.outbox.push_back(Message::Listing(listing));
                walk.sent_until = Some(next);
            }
        }
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.initiator = Some(initiator);
        }
        Ok(())
    }

    fn walk_to_answer(&mut self, with: ReplicaId) -> Result<(), StoreError> {
        let Some(peer) = self.peers.get_mut(&with) else { return Ok(()) };
        let Some(mut responder) = peer.responder.take() else { return Ok(()) };
        let theirs = peer.claims.clone();
        if responder.outbox.is_empty()
            && let (Some(leaves), Some(mut answer)) = (&responder.leaves, responder.answer.take())
        {
            let (met, next) = self.walk_slice(&answer.cursor, answer.until.as_deref(), leaves)?;
            met.into_iter().for_each(|met| answer.meet(met, &theirs));
            if next.is_none() && !planted!(LackNotAskedFor) {
                answer.wanted.extend(std::mem::take(&mut answer.unmatched).into_keys());
            }
            if next.is_none() || answer.rows_bytes >= REPAIR_BYTES {
                responder.outbox.push_back(Message::Findings(Findings {
                    round: responder.number,
                    wanted: std::mem::take(&mut answer.wanted),
                    rows: std::mem::take(&mut answer.rows),
                    more: next.is_some(),
                }));
                answer.rows_bytes = 0;
            }
            if let Some(next) = next {
                answer.cursor = next;
                responder.answer = Some(answer);
            }
        }
        if let Some(peer) = self.peers.get_mut(&with) {
            peer.responder = Some(responder);
        }
        Ok(())
    }

    /// Walks entries from `cursor` on. Gives those in `leaves`, and where to go on (`None` at the end). Stops
    /// early where what it met would overfill a message.
    fn walk_slice(
        &self,
        cursor: &[u8],
        until: Option<&[u8]>,
        leaves: &Leaves,
    ) -> Result<(Vec<Met>, Option<Vec<u8>>), StoreError> {
        let mut met = Vec::new();
        let mut next = None;
        let (mut seen, mut bytes) = (0, 0);
        let mut fault = None;
        self.store.scan(cursor, &mut |row_key, row| {
            if row_key.first() != Some(&keys::ENTRY) || until.is_some_and(|until| row_key >= until) {
                return ControlFlow::Break(());
            }
            if seen == SLICE_ROWS || bytes >= REPAIR_BYTES {
                next = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            seen += 1;
            let Some(id) = keys::parse_entry(row_key) else { return ControlFlow::Continue(()) };
            let name = self.settings.digest_key.name_hash(&id);
            if leaves.contains(name.leaf()) {
                match row::decode_entry(row_key, &row).and_then(|row| entry_of_row(&self.origins, row)) {
                    Ok(entry) => {
                        bytes += row.len();
                        let state = self.settings.digest_key.state_digest(name, &entry).short();
                        met.push(Met { row_key: row_key.to_vec(), name: name.short(), state, entry });
                    }
                    Err(why) => {
                        fault = Some(StoreError::new(format!("the row of an entry is damaged: {why}")));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        fault.map_or(Ok((met, next)), Err)
    }

    /// The next message of the anti-entropy lane.
    pub(super) fn next_anti_entropy(
        &mut self,
        now: Now,
        to: ReplicaId,
        max_bytes: usize,
    ) -> Result<Option<Message>, StoreError> {
        let Some(peer) = self.peers.get_mut(&to) else { return Ok(None) };
        let queued = peer.responder.as_mut().and_then(|responder| responder.outbox.pop_front());
        let queued =
            queued.or_else(|| peer.initiator.as_mut().and_then(|initiator| initiator.outbox.pop_front()));
        if queued.is_some() {
            return Ok(queued);
        }
        let theirs = peer.claims.clone();
        let Some(initiator) = peer.initiator.as_mut() else { return Ok(None) };
        let Some(walk) = initiator.walk.as_mut() else { return Ok(None) };
        if walk.wanted.is_empty() && !walk.answered {
            return Ok(None);
        }
        let number = initiator.number;
        let mut wanted = std::mem::take(&mut walk.wanted);
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes.min(REPAIR_BYTES)
            && let Some(row_key) = wanted.pop_front()
        {
            // Its dot not covered: in flight to them.
            if let Some(id) = keys::parse_entry(&row_key)
                && let Some(entry) = self.entry(&id)?
                && theirs.covers(entry.dot)
            {
                bytes += row_bytes(&id, &entry);
                rows.push(RepairRow { id, entry });
            }
        }
        let Some(initiator) = self.peers.get_mut(&to).and_then(|peer| peer.initiator.as_mut()) else {
            return Ok(None);
        };
        let Some(walk) = initiator.walk.as_mut() else { return Ok(None) };
        initiator.repaired += rows.len() as u64;
        walk.wanted = wanted;
        let range_done = walk.wanted.is_empty() && walk.answered;
        let last = range_done && !walk.next_range();
        if last {
            self.end_round(now, to, number);
        }
        Ok(Some(Message::Repair(Repair { round: number, rows, last })))
    }
}

impl Walk {
    /// Goes on to the range after the one just answered; `false` when that was the last.
    fn next_range(&mut self) -> bool {
        self.listed.clear();
        self.answered = false;
        match self.sent_until.take().flatten() {
            Some(from) => {
                self.cursor.clone_from(&from);
                self.from = from;
                true
            }
            None => false,
        }
    }
}

impl Answer {
    fn meet(&mut self, met: Met, theirs: &VersionVector) {
        let listed = self.unmatched.remove(&met.name);
        if listed == Some(met.state) {
            return;
        }
        if listed.is_some() {
            self.wanted.push(met.name);
        }
        if theirs.covers(met.entry.dot)
            && let Some(id) = keys::parse_entry(&met.row_key)
        {
            self.rows_bytes += row_bytes(&id, &met.entry);
            self.rows.push(RepairRow { id, entry: met.entry });
        }
    }
}

/// About how many bytes a repaired entry takes in a message.
fn row_bytes(id: &EntryId, entry: &Entry) -> usize {
    let payload = match &entry.body {
        Body::Tombstone => 0,
        Body::Value(value) => match &value.payload {
            Payload::Inline(bytes) => bytes.len(),
            Payload::Chunked(manifest) => 32 * manifest.chunks.len(),
        },
    };
    64 + id.key.len() + payload
}

fn protocol(reason: &str) -> MessageError {
    MessageError::Protocol { reason: reason.into() }
}
