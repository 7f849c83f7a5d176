//! How each member stands: what it lacks, what of its own is not everywhere yet, and so whether it can be removed without
//! loss.
//!
//! The rule this file upholds: a member counts as drained only by a whole heartbeat of its own that covers the record of
//! its draining. All it ever wrote is in that vector, for it has taken no write since; acknowledgements, which raise one
//! component of what is known of a peer and leave the others old, say nothing of the kind.

use super::Replica;
use crate::clock::{Now, ReplicaId};
use crate::codec::message::Stage;
use crate::store::Store;
use crate::vector::{Position, VersionVector};

/// One member, as this replica knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub replica: ReplicaId,
    /// Whether a link to it is up, or it is this replica.
    pub connected: bool,
    /// How far it has come; unknown where it was never heard.
    pub stage: Option<Stage>,
    /// Events it lacks, of all origins.
    pub lacks_ops: u64,
    /// Events of its own that not every other member holds.
    pub unsent_ops: u64,
    /// The newest that is known of it, in milliseconds of its clock.
    pub last_known_ms: u64,
    /// Why it cannot be removed without the risk of loss.
    pub obstacle: Option<Obstacle>,
}

/// What stands in the way of removing a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// It takes writes.
    #[error("it takes writes: drain it first")]
    NotDrained,
    /// It may have taken writes after it was told to take none.
    #[error("it has not confirmed yet that it takes no more writes")]
    Unconfirmed,
    /// Somebody lacks what it wrote.
    #[error("{ops} of its events are not at every other member yet")]
    Unsent {
        /// How many events.
        ops: u64,
    },
    /// It is silent, but those that are here are too few to tell who is cut off.
    #[error("only {here} of {of} members are here to agree that it is gone")]
    TooFewHere {
        /// Members that are heard, this one included.
        here: usize,
        /// Members in all.
        of: usize,
    },
}

impl<S: Store> Replica<S> {
    /// Every member, in the order of their ids.
    pub fn standings(&self, now: Now) -> Vec<Standing> {
        self.members.current().map(|(replica, _)| self.standing(now, replica)).collect()
    }

    fn standing(&self, now: Now, replica: ReplicaId) -> Standing {
        let peer = self.peers.get(&replica);
        let is_self = replica == self.id;
        let claims = self.claims_of(replica);
        let origins = self.members.iter().map(|(origin, _)| origin);
        let lacks = |origin| self.head(origin).ops.saturating_sub(position(claims, origin).ops);
        let mut standing = Standing {
            replica,
            connected: is_self || self.is_connected(replica),
            stage: if is_self { Some(self.stage()) } else { peer.map(|peer| peer.stage) },
            lacks_ops: origins.map(lacks).sum(),
            unsent_ops: self.unsent_ops(replica),
            last_known_ms: self.last_known_ms(replica),
            obstacle: None,
        };
        standing.obstacle = if self.is_silent(now, replica) {
            let quorum = self.quorum();
            (!quorum.is_met()).then_some(Obstacle::TooFewHere { here: quorum.here, of: quorum.of })
        } else {
            self.obstacle(&standing)
        };
        standing
    }

    fn obstacle(&self, standing: &Standing) -> Option<Obstacle> {
        let member = self.members.find(standing.replica)?;
        let told = match self.peers.get(&standing.replica) {
            _ if standing.replica == self.id => Some(&self.durable),
            peer => peer.and_then(|peer| peer.told.as_ref()),
        };
        if !member.draining {
            return Some(Obstacle::NotDrained);
        }
        if !told.zip(member.drain_changed).is_some_and(|(told, changed)| told.covers(changed)) {
            return Some(Obstacle::Unconfirmed);
        }
        (standing.unsent_ops > 0).then_some(Obstacle::Unsent { ops: standing.unsent_ops })
    }

    /// How many of an origin's events its worst informed fellow member lacks.
    fn unsent_ops(&self, origin: ReplicaId) -> u64 {
        let others = self.members.current().map(|(id, _)| id).filter(|id| *id != origin);
        let held = others.map(|id| position(self.claims_of(id), origin).ops).min();
        let written = self.head(origin).ops;
        held.map_or(0, |held| written.saturating_sub(held))
    }

    /// What a replica holds durably, as it said; this one included.
    pub(super) fn claims_of(&self, replica: ReplicaId) -> Option<&VersionVector> {
        if replica == self.id {
            return Some(&self.durable);
        }
        self.peers.get(&replica).map(|peer| &peer.claims)
    }
}

fn position(claims: Option<&VersionVector>, origin: ReplicaId) -> Position {
    claims.map(|claims| claims.position(origin)).unwrap_or_default()
}
