//! How far this copy reaches: what a reader of it may have seen, and up to when it is complete.
//!
//! The rule this file upholds: both err on the safe side. A reader may have seen less than is said here, and the copy may
//! be complete up to later than is said.

use std::collections::BTreeMap;

use super::Replica;
use crate::clock::{Hlc, ReplicaId};
use crate::entry::Entry;
use crate::store::Store;
use crate::vector::{MAX_ORIGINS, VersionVector};

/// By origin, the newest event that a state here shows although it is not claimed: a state may come with one event and
/// show a later one, or one of another origin.
#[derive(Default)]
pub(super) struct Ahead(BTreeMap<ReplicaId, Hlc>);

impl Ahead {
    /// A state is here from now on. Claims that cover all of it need no note.
    pub(super) fn note(&mut self, held: &VersionVector, entry: &Entry) {
        for dot in entry.dots().into_iter().filter(|dot| !held.covers(*dot)) {
            if self.0.len() < MAX_ORIGINS || self.0.contains_key(&dot.replica) {
                let newest = self.0.entry(dot.replica).or_default();
                *newest = dot.hlc.max(*newest);
            }
        }
    }

    /// Forgets what is claimed by now.
    pub(super) fn settle(&mut self, held: &VersionVector) {
        self.0.retain(|origin, newest| *newest > held.hlc(*origin));
    }
}

impl<S: Store> Replica<S> {
    /// What is held, staged events included: after the next commit a reader may see all of it.
    pub fn held(&self) -> &VersionVector {
        &self.held
    }

    /// Events beyond [`Replica::held`] that a reader may see all the same: by origin the newest.
    pub fn ahead(&self) -> impl Iterator<Item = (ReplicaId, Hlc)> + '_ {
        self.ahead.0.iter().map(|(origin, newest)| (*origin, *newest))
    }

    /// Everything that each other member wrote up to then, by its clock, is held durably: the least of them, in Unix
    /// milliseconds; `None` where there is no other member.
    pub fn complete_upto_ms(&self) -> Option<u64> {
        self.others().map(|other| self.complete_of_ms(other)).min()
    }

    /// The same, of one member.
    pub(super) fn complete_of_ms(&self, member: ReplicaId) -> u64 {
        let held = self.shown_of(member);
        let joined = self.joined_at(member).unwrap_or(Hlc::ZERO);
        let peer = self.peers.get(&member);
        let told = peer.filter(|peer| {
            // It said what it had written by then, and that is here.
            peer.told.as_ref().is_some_and(|told| told.hlc(member) <= held)
        });
        let complete_ms = peer.map_or(0, |peer| peer.complete_ms).max(told.map_or(0, |peer| peer.told_ms));
        held.max(joined).wall_ms().max(complete_ms)
    }

    /// Up to which event of `origin` each member but this one holds all, durably, as it said.
    pub fn held_of(&self, origin: ReplicaId) -> impl Iterator<Item = (ReplicaId, Hlc)> + '_ {
        self.others()
            .map(move |other| (other, self.claims_of(other).map_or(Hlc::ZERO, |held| held.hlc(origin))))
    }

    /// What a member holds durably, as it said; nothing where it was never heard.
    pub fn held_by(&self, member: ReplicaId) -> VersionVector {
        self.claims_of(member).cloned().unwrap_or_default()
    }

    fn others(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.members.current().map(|(member, _)| member).filter(|member| *member != self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Dot;
    use crate::entry::Body;
    use crate::vector::Position;

    #[test]
    fn what_is_ahead_of_the_claims_is_noted_until_they_cover_it() {
        let origin = ReplicaId([1; 16]);
        let at = |ms| Hlc::new(ms, 0);
        let held = |ms| [(origin, Position { hlc: at(ms), ops: 1, bytes: 0 })].into_iter().collect();
        let state = |ms| Entry::first(Dot { hlc: at(ms), replica: origin }, Body::Tombstone);
        let mut ahead = Ahead::default();
        for ms in [5, 9, 7] {
            ahead.note(&held(5), &state(ms));
        }
        assert_eq!(ahead.0.get(&origin), Some(&at(9)));
        ahead.settle(&held(8));
        assert!(!ahead.0.is_empty());
        ahead.settle(&held(9));
        assert!(ahead.0.is_empty());
    }
}
