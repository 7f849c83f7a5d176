//! The stable frontier, and what may be dropped below it: tombstones, expired values and log rows.
//!
//! A tombstone cannot go when everyone has *it*: an older write of another origin may still be on its way, and would
//! find nothing that says no. So the rule is about everything at once. `G` is the least component of any member's
//! vector: everyone holds durably all that happened up to it. `E`, the epoch, is `G` rounded down; every replica
//! adopts the greatest it hears of. What is over at or below `E` is dropped, and counts for nothing:
//!
//! - Who computes `E` at or above a time has seen every membership record up to that time, since it holds all events
//!   of all members up to there. A newer member is no danger: its own events come after its record, and what it
//!   copied is checked against the epochs it hears of (`hears_epoch`).
//! - An event's state in a stream is never older than the event, and events at or below a receiver's claims are
//!   left out. Claims cover `E`, so a stream brings nothing back that was dropped.
//! - Repairs could; so rounds of anti-entropy are held between full members of one epoch only, and end with it.
//! - A member that carried writes over from an earlier incarnation holds `G` below them until it has judged them
//!   ([`super::returned`]).
//! - A removed replica's events hold `G` back until all members have fenced it, and say in a full heartbeat of after
//!   that that they hold the same of it: that is the cut, above which nothing of it is ever taken again.
//!
//! Dropping is a sweep in slices (`sweep.rs`). Roots are compared only between replicas that have both finished it.

use std::collections::BTreeSet;

use super::peer::Peer;
use super::sweep::Sweep;
use super::{Event, Replica};
use crate::clock::{Dot, Hlc, Now, ReplicaId};
use crate::codec::message::Stage;
use crate::entry::{Entry, EntryId, Settled};
use crate::keys;
use crate::kinds::Frontier;
use crate::store::{Store, StoreError};
use crate::vector::VersionVector;

/// A new epoch ends open rounds, so it is put off while there is one, or one is due; but not longer than this.
const MAX_PUT_OFF_US: u64 = 60_000_000;

/// In how many steps an idle replica's own claim follows its clock within one epoch.
const CLAIMS_AN_EPOCH: u64 = 4;

/// Bytes that an entry's row takes beside its key.
const TOMBSTONE_ROW_BYTES: u64 = 31;

/// What a store keeps only until everyone has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of their rows.
    pub tombstone_bytes: u64,
    /// Values with an expiry, come or not.
    pub expiring: u64,
    /// Bytes of log rows.
    pub log_bytes: u64,
}

impl Waiting {
    pub(super) fn entry_came(&mut self, id: &EntryId, entry: &Entry) {
        if entry.body.is_tombstone() {
            self.tombstones += 1;
            self.tombstone_bytes += TOMBSTONE_ROW_BYTES + id.user_bytes() as u64;
        }
        self.expiring += u64::from(entry.body.next_expiry().is_some());
    }

    pub(super) fn entry_went(&mut self, id: &EntryId, entry: &Entry) {
        if entry.body.is_tombstone() {
            self.tombstones -= 1;
            self.tombstone_bytes -= TOMBSTONE_ROW_BYTES + id.user_bytes() as u64;
        }
        self.expiring -= u64::from(entry.body.next_expiry().is_some());
    }

    pub(super) fn log_row_came(&mut self, bytes: usize) {
        self.log_bytes += bytes as u64;
    }

    /// What is kept for those that are away.
    pub(super) fn bytes(&self) -> u64 {
        self.tombstone_bytes + self.log_bytes
    }

    pub(super) fn log_row_went(&mut self, bytes: usize) {
        self.log_bytes -= bytes as u64;
    }
}

/// One member that has not said it holds everything up to now, and so holds the frontier back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub member: ReplicaId,
    /// Whose events it lacks, or has not said that it holds.
    pub origin: ReplicaId,
    /// Up to when it holds them.
    pub upto: Hlc,
}

/// What waits to be dropped, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// All that was over at or below this is dropped, or being dropped.
    pub epoch: Hlc,
    /// Whether it all is.
    pub swept: bool,
    /// Up to here every member holds everything, as far as this replica knows.
    pub frontier: Hlc,
    /// What waits.
    pub waiting: Waiting,
    /// Events in the log.
    pub log_rows: u64,
    /// For each member the origin it is furthest behind with, the one furthest back first.
    pub holders: Vec<Holder>,
}

impl<S: Store> Replica<S> {
    /// The epoch this replica has adopted.
    pub fn epoch(&self) -> Hlc {
        self.epoch
    }

    /// Whether all that is over at the epoch is dropped.
    pub fn is_swept(&self) -> bool {
        self.sweep.is_none()
    }

    /// What waits to be dropped, and for whom.
    pub fn garbage(&self) -> Garbage {
        let mut holders = self.holders();
        holders.sort_by_key(|holder| (holder.upto, holder.member));
        Garbage {
            epoch: self.epoch,
            swept: self.is_swept(),
            frontier: holders.first().map_or(Hlc::ZERO, |holder| holder.upto),
            waiting: self.waiting,
            log_rows: self.log_rows,
            holders,
        }
    }

    /// Whether a state is over at the epoch, so that nobody needs it. A state of a removed replica from above its cut,
    /// which ran ahead of its claims, is not held by everyone and never will be by its event: it stays, and rounds
    /// bring it to the others.
    pub(super) fn is_droppable(&self, entry: &Entry) -> bool {
        entry.settled(self.frontier()) == Settled::Gone
    }

    /// What everyone holds, as the epoch says.
    pub(super) fn frontier(&self) -> Frontier<'_> {
        Frontier { epoch: self.epoch, held: &self.held }
    }

    /// For each member, this replica included, the origin it is furthest behind with.
    fn holders(&self) -> Vec<Holder> {
        let origins = self.counted_origins();
        let furthest_behind = |member, claims: &VersionVector| {
            let upto = origins.iter().map(|origin| (claims.hlc(*origin), *origin));
            let (upto, origin) = upto.min()?;
            let upto = upto.min(self.carried_at(member).unwrap_or(upto));
            Some(Holder { member, origin, upto })
        };
        let nothing = VersionVector::default();
        let holders = self
            .members
            .current()
            .filter_map(|(member, _)| furthest_behind(member, self.claims_of(member).unwrap_or(&nothing)));
        holders.collect()
    }

    /// Below what a member is yet to write anew of an earlier incarnation.
    fn carried_at(&self, member: ReplicaId) -> Option<Hlc> {
        let carried = if member == self.id { self.carried } else { self.peers.get(&member)?.carried };
        carried.map(Hlc::previous)
    }

    /// The members, and of the removed replicas those whose cut is not known yet.
    fn counted_origins(&self) -> BTreeSet<ReplicaId> {
        let counts = |(id, member): (ReplicaId, &crate::member::Member)| match member.removed {
            Some(_) => !self.is_cut_known(id),
            None => member.joined.is_some(),
        };
        self.members.iter().filter(|(id, member)| counts((*id, member))).map(|(id, _)| id).collect()
    }

    /// Whether all members have fenced this removed replica, and hold the same of it. Full heartbeats tell, not
    /// acknowledgements, which raise one component of what is known of a peer and leave the others old. That they have
    /// fenced it shows in the members they know: the record of a removal may be by one who was removed in turn, and
    /// reach them by other ways than its log.
    fn is_cut_known(&self, removed: ReplicaId) -> bool {
        let cut = self.durable.hlc(removed);
        self.members.current().filter(|(member, _)| *member != self.id).all(|(member, _)| {
            let Some(peer) = self.peers.get(&member) else { return false };
            if planted!(CutFromAcknowledgements) {
                return peer.claims.hlc(removed) == cut;
            }
            let has_fenced = peer.members == Some(self.members.digest());
            // Whom this member has let in before it fenced, we must know of too.
            peer.told.as_ref().is_some_and(|told| {
                has_fenced && told.hlc(removed) == cut && self.durable.hlc(member) >= told.hlc(member)
            })
        })
    }

    /// Whether the cut of every removed replica is known.
    pub(super) fn are_cuts_known(&self) -> bool {
        let removed = self.members.iter().filter(|(_, member)| member.removed.is_some());
        removed.map(|(id, _)| id).all(|id| self.is_cut_known(id))
    }

    /// Raises the epoch where the frontier has passed a step.
    pub(super) fn consider_epoch(&mut self, now: Now) {
        if self.stage() != Stage::Member {
            return;
        }
        let step_ms = self.settings.epoch_every_ms.max(1);
        // The cheap question first: it is asked with every heartbeat.
        let epoch = self.epoch;
        let reachable = |upto: Hlc| upto.wall_ms() / step_ms * step_ms > epoch.wall_ms();
        if !reachable(self.durable.hlc(self.id)) {
            return;
        }
        let frontier = self.holders().iter().map(|holder| holder.upto).min().unwrap_or(Hlc::ZERO);
        if !reachable(frontier) || !self.do_members_agree() {
            return;
        }
        // Where epochs follow one another quickly, two who differ would never be at one at the same time.
        if !self.awaits_round(now) || self.is_put_off_for_long(now) {
            self.adopt_epoch(now, Hlc::new(frontier.wall_ms() / step_ms * step_ms, 0));
        }
    }

    /// A peer has adopted this epoch.
    pub(super) fn hears_epoch(&mut self, now: Now, epoch: Hlc) {
        if epoch <= self.epoch {
            return;
        }
        // A copy in the making is checked when it is complete.
        if !self.stage().takes_part() {
            return;
        }
        if planted!(EpochTakenOnTrust) || self.covers_epoch(epoch) {
            self.adopt_epoch(now, epoch);
        } else {
            self.fall_behind(epoch);
        }
    }

    /// Whether we hold all that happened up to this epoch, as the members do. Members from after it have no events
    /// below it, and what we must hold of removed replicas was made sure before they ceased to count.
    pub(super) fn covers_epoch(&self, epoch: Hlc) -> bool {
        let from_before = |joined: Option<Dot>| joined.is_some_and(|dot| dot.hlc <= epoch);
        self.members
            .current()
            .filter(|(id, member)| *id != self.id && from_before(member.joined))
            .all(|(id, _)| self.held.hlc(id) >= epoch)
    }

    /// Whether this origin may have written something at or below the epoch.
    pub(super) fn is_from_before_epoch(&self, origin: ReplicaId) -> bool {
        self.joined_at(origin).is_none_or(|joined| joined <= self.epoch)
    }

    /// Whether all who have spoken to us know the same members as we do. Our own records may be lost to rot, or still
    /// on their way; who counts too few members finds a frontier that is none.
    fn do_members_agree(&self) -> bool {
        let own = self.members.digest();
        self.peers.iter().filter(|(id, _)| self.members.removal(**id).is_none()).all(|(id, peer)| match peer
            .members
        {
            Some(theirs) if peer.stage == Stage::Member => theirs == own,
            _ => self.members.contains(*id) || peer.claims == VersionVector::default(),
        })
    }

    /// The others have dropped what we have not heard of: what we hold may be dead, or what we lack cannot be told.
    pub(super) fn fall_behind(&mut self, epoch: Hlc) {
        // Of one whom no record tells of any more, nothing from before the epoch will come either; while we come in we must
        // begin anew. As a member we do not: it may be that the record is still on its way.
        let is_coming_in = self.stage() == Stage::CatchingUp;
        let is_over = |id, offered: Hlc| match self.members.find(id) {
            // Of one that came after the epoch nothing was dropped, whatever a peer thinks that has not seen its record.
            Some(member) if member.joined.is_some_and(|joined| joined.hlc > epoch) => false,
            Some(member) if member.removed.is_some() => true,
            Some(member) if member.joined.is_some() => false,
            _ => is_coming_in && offered <= epoch,
        };
        let lacks_for_ever = |id, offered: Hlc| {
            let held = self.held.hlc(id);
            held < epoch && offered > held && is_over(id, offered)
        };
        let has_more = |peer: &Peer| {
            peer.epoch >= epoch && peer.claims.iter().any(|(id, offered)| lacks_for_ever(id, offered.hlc))
        };
        let is_behind = !self.covers_epoch(epoch) || self.peers.values().any(has_more);
        if self.stage().takes_part() && is_behind {
            self.stop("the cluster has dropped what this store lacks", Event::Behind { epoch });
        }
    }

    fn adopt_epoch(&mut self, now: Now, epoch: Hlc) {
        // A peer that has gone on to another epoch has ended its round.
        let is_on =
            |peer: &Peer| (peer.initiator.is_some() || peer.responder.is_some()) && self.may_compare(peer);
        let in_round = !planted!(RoundOutlivesEpoch) && self.peers.values().any(is_on);
        if in_round && !self.is_put_off_for_long(now) {
            return;
        }
        self.put_off_since_us = None;
        // Where a replica was cloned, two of its events may have one name, and the log tells of one of them only: once all
        // of a removed replica is below the epoch, the entries themselves are looked at.
        let before = self.epoch;
        let ends_now = |id| before < self.held.hlc(id) && self.held.hlc(id) <= epoch;
        let mut removed = self.members.iter().filter(|(_, member)| member.removed.is_some());
        // A thorough sweep that is not done begins again as one.
        let is_under_way = self.sweep.as_ref().is_some_and(Sweep::is_thorough);
        let is_thorough = is_under_way || removed.any(|(id, _)| ends_now(id));
        self.epoch = epoch;
        self.veils.settle(epoch);
        self.sweep = Some(if is_thorough { Sweep::thorough() } else { Sweep::default() });
        self.staged.entry(keys::SUMMARY.to_vec()).or_default();
        if planted!(RoundOutlivesEpoch) {
            return;
        }
        // What a round has found is true of its epoch only.
        for peer in self.peers.values_mut() {
            peer.initiator = None;
            peer.responder = None;
        }
    }

    /// Whether the next epoch has been put off for as long as it may.
    fn is_put_off_for_long(&mut self, now: Now) -> bool {
        let since_us = *self.put_off_since_us.get_or_insert(now.mono_us);
        now.mono_us >= since_us + MAX_PUT_OFF_US
    }

    /// Moves our own claim up to the clock: we shall write nothing older. Only while peers agree with the clock. A new
    /// member waits for the claims of all others to pass its record.
    pub(super) fn claim_idle_time(&mut self, now: Now) -> Result<(), StoreError> {
        let held = self.held.position(self.id);
        let every_ms = (self.settings.epoch_every_ms / CLAIMS_AN_EPOCH).max(1);
        let is_awaited =
            self.members.current().any(|(_, member)| member.joined.is_some_and(|at| at.hlc > held.hlc));
        let is_due = is_awaited || now.wall_ms >= held.hlc.wall_ms().saturating_add(every_ms);
        if !is_due || !self.stage().takes_part() || self.is_clock_off(now) {
            return Ok(());
        }
        let position = crate::vector::Position { hlc: self.clock.tick(now), ..held };
        self.claim(self.id, position)
    }
}
