//! Anti-entropy: the safety net under the bookkeeping, and the proof that it was right.
//!
//! A round has an initiator (of two replicas the one with the lesser id) and a responder:
//!
//! 1. The initiator sends counts and a small fold of its sketch ([`Step::Probe`]). Where that names what differs,
//!    the responder does so at once, which is step 3.
//! 2. Otherwise the counts tell what is the matter:
//!    - a whole range is missing somewhere: the responder tells where ([`Step::Outline`]), the initiator asks for
//!      what it lacks there ([`Step::Fetch`]), and both send whole leaves;
//!    - the sketch can name the difference: the responder sends a fold of the right size ([`Step::Cells`]), half as
//!      many cells again if they were too few ([`Step::More`]), and the initiator names what differs;
//!    - it is too much for a sketch, or a list is shorter: the responder asks for one ([`Step::List`]), and the
//!      initiator lists a part of the leaves ([`Step::Listing`]).
//! 3. Who can name what differs asks for what it lacks ([`Step::Wanted`]). Each finds the rows the other lacks by one
//!    walk over its own entries, and sends them ([`Step::Rows`]).
//!
//! After whole leaves, or a list of some, the next round follows at once.
//!
//! In flight is not divergence: an entry whose dot the other side's claims do not cover is on its way, and is
//! left alone. Covered and absent is true divergence: it is repaired and counted, where it was missing.
//!
//! The walks are slices of `SLICE_ROWS` rows, done when the driver calls `handle_timeout`; one side of a round holds
//! at most one fold and its reserve, or one list, and a round that makes no progress is dropped. A message of another
//! round, or one that does not fit, is left alone: the peer may have given the round up, and what it costs is one
//! fruitless round.

use super::peer::Peer;
use super::{Event, MessageError, Replica};
use crate::clock::{Now, ReplicaId};
use crate::codec::message::{Message, Round};
use crate::codec::round::{RepairRow, Rows, Step};
use crate::entry::Entry;
use crate::store::{Store, StoreError};
use crate::vector::VersionVector;

mod exchange;
mod holes;
mod initiator;
mod responder;
mod walk;

pub(super) use initiator::Initiator;
pub(super) use responder::Responder;

use exchange::Exchange;

/// Cells of each table of the fold that a round begins with. Measured: it names 40 differing states 99 times in 100.
const PROBE_SIZE: u32 = 20;

/// A round without a message for this long is dropped.
const ROUND_TIMEOUT_US: u64 = 10_000_000;

/// Who walks for so long without anything to send says that it is still there.
const SIGN_OF_LIFE_US: u64 = 2_000_000;

/// The least time between two rounds with one peer, where none follows from the other.
const ROUND_PAUSE_US: u64 = 5_000_000;

/// Even under constant writes, when vectors are never seen equal, differing roots are looked into this often.
const ROUND_EVERY_US: u64 = 60_000_000;

/// The most rounds that follow one another without a pause.
const MAX_FOLLOWING: u32 = 64;

/// The most states one side may ask for in a round: more than any sketch names or any list has.
const MAX_NAMED: usize = 262_144;

/// The most entries of one listing. In unit tests so few that a list takes several rounds.
const MAX_LISTED: usize = if cfg!(test) { 1_500 } else { 131_072 };

/// Where roots still differ so long after a round, the difference may be something that is over and that no index
/// tells of any more.
const THOROUGH_AFTER_US: u64 = 8_000_000;

impl<S: Store> Replica<S> {
    /// Whether there may be rounds with this peer now. While not, none begins, and what comes of one is left alone.
    /// Both must be members, and have dropped all that is over at the same epoch: then what each holds is alive.
    fn may_compare_with(&self, with: ReplicaId) -> bool {
        self.peers.get(&with).is_some_and(|peer| self.may_compare(peer))
    }

    /// Starts a round with `with` where there is reason to.
    pub(super) fn consider_round(&mut self, now: Now, with: ReplicaId) {
        let Some(peer) = self.peers.get(&with) else { return };
        if self.id < with && self.is_round_due(now, with, peer) && self.may_compare(peer) {
            self.begin_round(now, with, None);
        }
    }

    /// Whether there is reason for a round with this peer, whichever side begins it.
    fn is_round_due(&self, now: Now, with: ReplicaId, peer: &Peer) -> bool {
        let is_on = peer.initiator.is_some() || peer.responder.is_some();
        if is_on || now.mono_us < peer.next_round_us || !self.root_differs(peer) {
            return false;
        }
        if self.is_round_for_others(now, with, peer) {
            return false;
        }
        // Unequal vectors explain unequal roots, so wait; but not for ever.
        let is_overdue = now.mono_us >= peer.next_round_us + ROUND_EVERY_US;
        self.is_converged_with(peer) || is_overdue
    }

    /// Whether a round waits until both its sides are at one epoch.
    pub(super) fn awaits_round(&self, now: Now) -> bool {
        let takes_part =
            |id, peer: &Peer| peer.connected && peer.stage.takes_part() && self.members.contains(id);
        self.peers.iter().any(|(id, peer)| takes_part(*id, peer) && self.is_round_due(now, *id, peer))
    }

    /// Takes a message of a round.
    pub(super) fn handle_round(
        &mut self,
        now: Now,
        from: ReplicaId,
        round: Round,
    ) -> Result<(), MessageError> {
        let Round { number, step } = round;
        if !self.may_compare_with(from) {
            return Ok(());
        }
        if let Step::Probe(probe) = step {
            return self.handle_probe(now, from, number, probe);
        }
        let Some(exchange) = self.exchange(from, number) else { return Ok(()) };
        exchange.deadline_us = now.mono_us + ROUND_TIMEOUT_US;
        match step {
            Step::Wanted(wanted) => {
                exchange.take_wanted(wanted)?;
                self.drop_reserve(from);
            }
            Step::Rows(rows) => self.handle_rows(from, number, rows)?,
            Step::Cells(cells) => self.handle_cells(from, cells)?,
            Step::Outline(outline) => self.handle_outline(from, outline)?,
            Step::List => self.handle_list(from),
            Step::Probe(_) | Step::More => self.handle_more(from),
            Step::Fetch(ranges) => self.handle_fetch(from, ranges)?,
            Step::Listing(listing) => self.handle_listing(from, listing)?,
        }
        self.end_finished_round(now, from);
        Ok(())
    }

    /// This side's part in the round with this number, if it is still on.
    fn exchange(&mut self, with: ReplicaId, number: u32) -> Option<&mut Exchange> {
        let peer = self.peers.get_mut(&with)?;
        let parts = peer.initiator.iter_mut().map(|initiator| &mut initiator.exchange);
        let mut parts = parts.chain(peer.responder.iter_mut().map(|responder| &mut responder.exchange));
        parts.find(|exchange| exchange.number == number)
    }

    fn handle_rows(&mut self, from: ReplicaId, number: u32, rows: Rows) -> Result<(), StoreError> {
        let repaired = self.repair_rows(rows.rows)?;
        if let Some(exchange) = self.exchange(from, number) {
            exchange.repaired += repaired;
            exchange.received_all |= !rows.more;
        }
        Ok(())
    }

    /// Applies entries our claims cover; others are in flight and come by their own way.
    fn repair_rows(&mut self, rows: Vec<RepairRow>) -> Result<u64, StoreError> {
        let mut repaired = 0;
        for row in rows {
            if self.is_settled_state(&self.held, &row.entry) {
                self.commit_if_full()?;
                repaired += u64::from(self.apply_repair(&row.id, row.entry)?);
            }
        }
        self.counters.repaired += repaired;
        Ok(repaired)
    }

    /// Whether nothing of a state is still on its way to whoever has these claims. States run ahead of claims, so
    /// that some members may hold one of a removed replica from above its cut: nothing else will bring it to the rest.
    fn is_settled_state(&self, claims: &VersionVector, entry: &Entry) -> bool {
        entry.all_dots(|dot| claims.covers(dot) || self.members.removal(dot.replica).is_some())
    }

    /// Ends the rounds in which both sides have sent all there was to send.
    fn end_finished_round(&mut self, now: Now, with: ReplicaId) {
        let Some(peer) = self.peers.get_mut(&with) else { return };
        if let Some(ended) = peer.responder.take_if(|responder| responder.exchange.is_finished()) {
            self.thorough_due_us.get_or_insert(now.mono_us + THOROUGH_AFTER_US);
            self.emit(Event::RoundEnded { peer: with, repaired: ended.exchange.repaired });
        }
        let Some(peer) = self.peers.get_mut(&with) else { return };
        if let Some(ended) = peer.initiator.take_if(|initiator| initiator.exchange.is_finished()) {
            peer.next_round_us = now.mono_us + ROUND_PAUSE_US;
            self.thorough_due_us.get_or_insert(now.mono_us + THOROUGH_AFTER_US);
            self.emit(Event::RoundEnded { peer: with, repaired: ended.exchange.repaired });
            if let Some(next) = ended.following().filter(|_| self.may_compare_with(with)) {
                self.begin_round(now, with, Some(next));
            }
        }
    }

    /// Drops rounds that stand still, and walks a slice of those that have walking to do.
    pub(super) fn work_on_rounds(&mut self, now: Now, with: ReplicaId) -> Result<(), StoreError> {
        let Some(peer) = self.peers.get_mut(&with) else { return Ok(()) };
        if peer.initiator.take_if(|initiator| initiator.exchange.deadline_us <= now.mono_us).is_some() {
            peer.next_round_us = now.mono_us + ROUND_PAUSE_US;
        }
        peer.responder.take_if(|responder| responder.exchange.deadline_us <= now.mono_us);
        // A walk compares durable state: what is staged now will be seen by the next slice.
        if self.unflushed || !self.staged.is_empty() {
            return Ok(());
        }
        self.walk_to_list(now, with)?;
        self.walk_to_send(now, with)
    }

    /// The next message of the anti-entropy lane; each has some 64 KiB at most, and a row may exceed that.
    pub(super) fn next_anti_entropy(&mut self, now: Now, to: ReplicaId) -> Option<Message> {
        let peer = self.peers.get_mut(&to)?;
        let sent = peer.responder.as_mut().and_then(|responder| responder.exchange.next_step(now));
        let sent =
            sent.or_else(|| peer.initiator.as_mut().and_then(|initiator| initiator.exchange.next_step(now)));
        self.end_finished_round(now, to);
        sent.map(Message::Round)
    }
}

fn protocol(reason: &str) -> MessageError {
    MessageError::Protocol { reason: reason.into() }
}

#[cfg(test)]
mod tests;
