//! Eviction: the silent are taken out, so that nothing need be kept for them for ever; and who may decide that.
//!
//! The rule this file upholds: whoever takes a member out hears from most of them. Where two sides of a cut took each
//! other out, each would go on alone, drop what it alone deleted, and refuse the other for ever. An operator may insist,
//! and is told what that risks.

use super::peer::Peer;
use super::{Replica, WriteError};
use crate::clock::{Dot, Hlc, Now, ReplicaId};
use crate::member::RemovalReason;
use crate::store::{Store, StoreError};

/// The least number of members of which some may evict another: of two, neither can tell who is cut off.
const MIN_MEMBERS_TO_EVICT: usize = 3;

/// A replica evicts nobody before it has run for this part of the time a member may be away: after an outage of all,
/// those that start last are not silent, only late. Where more waits than may, a member may be away for no longer than
/// that either.
const EVICTION_GRACE: u64 = 100;

/// Who is here to agree that a member is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Members that take part and are heard, this replica included.
    pub here: usize,
    /// Members, and those that were taken out without all others knowing of it yet.
    pub of: usize,
}

impl Quorum {
    /// Whether those that are here are most of them.
    pub fn is_met(self) -> bool {
        2 * self.here > self.of
    }
}

impl<S: Store> Replica<S> {
    /// Who is here to agree that a member is to go. Only those count that take part: they would hand on what the silent
    /// one has said. One who still copies is linked to both sides of a cut and knows of neither, so that each side would
    /// take the other out.
    pub fn quorum(&self) -> Quorum {
        let members = || self.members.current().map(|(id, _)| id);
        Quorum {
            here: members().filter(|id| *id == self.id || self.is_witness(*id)).count(),
            of: members().count() + self.unconfirmed_removals(),
        }
    }

    /// Removes members that have been silent for too long, where most members are here to agree.
    pub(super) fn evict_silent(&mut self, now: Now) -> Result<(), StoreError> {
        let since_us = *self.running_since_us.get_or_insert(now.mono_us);
        let is_new = now.mono_us - since_us < self.settings.max_away_ms * 1000 / EVICTION_GRACE;
        let members = || self.members.current().map(|(id, _)| id);
        let silent: Vec<ReplicaId> = members().filter(|id| self.is_silent(now, *id)).collect();
        // Nobody is, nearly always, and then nothing is to be counted.
        if silent.is_empty() || is_new || members().count() < MIN_MEMBERS_TO_EVICT || !self.quorum().is_met()
        {
            return Ok(());
        }
        for id in silent {
            // With a clock that is off, silence means nothing.
            if let Err(WriteError::Store(error)) = self.remove_member(now, id, RemovalReason::Silent) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether nothing has been heard of this member for longer than it may be away, here or by one who would hand on
    /// what it says. That one may be late in doing so: without asking it, two that are cut off from each other would each
    /// take the other out, by the same witness.
    pub(super) fn is_silent(&self, now: Now, id: ReplicaId) -> bool {
        let away_ms = now.wall_ms.saturating_sub(self.last_known_ms(id));
        let is_heard_there =
            |(witness, peer): (&ReplicaId, &Peer)| self.is_witness(*witness) && peer.hears.contains(&id);
        id != self.id
            && !self.is_connected(id)
            && away_ms > self.most_away_ms()
            && !self.peers.iter().any(is_heard_there)
    }

    /// The newest that is known of a member, in milliseconds of its clock.
    pub(super) fn last_known_ms(&self, id: ReplicaId) -> u64 {
        self.held.hlc(id).max(self.joined_at(id).unwrap_or(Hlc::ZERO)).wall_ms()
    }

    /// How long a member may be away, in milliseconds.
    fn most_away_ms(&self) -> u64 {
        let has_room = self.waiting.bytes() <= self.settings.max_waiting_bytes;
        self.settings.max_away_ms / if has_room { 1 } else { EVICTION_GRACE }
    }

    /// Members that were taken out, and not every member is known to have heard of it. They count where most must agree:
    /// else a few on one side of a cut would shrink the cluster by one after the other, until they were most of it. Who
    /// was replaced by its own PoP does not count: it has asked for it.
    fn unconfirmed_removals(&self) -> usize {
        let digest = self.members.digest();
        let knows = |id: ReplicaId, removal: Dot| {
            let peer = self.peers.get(&id);
            id == self.id
                || peer.is_some_and(|peer| peer.claims.covers(removal) || peer.members == Some(digest))
        };
        let removals = self.members.iter().filter_map(|(_, member)| match member.removed {
            Some((RemovalReason::Silent | RemovalReason::Operator, removal)) if member.joined.is_some() => {
                Some(removal)
            }
            _ => None,
        });
        removals.filter(|removal| !self.members.current().all(|(id, _)| knows(id, *removal))).count()
    }

    /// Whether what others have heard of a member would be known from this one.
    fn is_witness(&self, replica: ReplicaId) -> bool {
        self.is_heard(replica) && self.peers.get(&replica).is_some_and(|peer| peer.stage.takes_part())
    }
}
