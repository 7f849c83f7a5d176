//! Version vectors: what a replica claims to hold.
//!
//! The rule everything else rests on: `vector[o] >= t` implies that the store holds the effect of *every*
//! event of origin `o` up to `t`. Each component also counts the origin's events and bytes up to there, so
//! that lag is a subtraction, not an estimate.

use std::collections::BTreeMap;

use crate::clock::{Dot, Hlc, ReplicaId};

/// The most origins there may be in a vector: every incarnation of every store that a cluster has had. A vector of as
/// many still fits a frame.
pub const MAX_ORIGINS: usize = 4_096;

/// A place in one origin's sequence of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The event there.
    pub hlc: Hlc,
    /// Events of the origin up to and including it.
    pub ops: u64,
    /// Bytes of keys and values those events wrote.
    pub bytes: u64,
}

impl Position {
    /// The position after one more event at `hlc` that wrote `bytes`. Counts wrap: a peer may have forged them.
    pub fn after(self, hlc: Hlc, bytes: u64) -> Self {
        let events = if planted!(EventsMiscounted) && hlc.counter() > 0 { 2 } else { 1 };
        Self { hlc, ops: self.ops.wrapping_add(events), bytes: self.bytes.wrapping_add(bytes) }
    }
}

/// By origin, the position up to which everything is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector(BTreeMap<ReplicaId, Position>);

impl VersionVector {
    /// The position held of `origin`; zero when nothing is.
    pub fn position(&self, origin: ReplicaId) -> Position {
        self.0.get(&origin).copied().unwrap_or_default()
    }

    /// The newest event held of `origin`.
    pub fn hlc(&self, origin: ReplicaId) -> Hlc {
        self.position(origin).hlc
    }

    /// Whether the effect of this event is held.
    pub fn covers(&self, dot: Dot) -> bool {
        self.hlc(dot.replica) >= dot.hlc
    }

    /// Whether everything `other` holds is held.
    pub fn covers_all(&self, other: &Self) -> bool {
        other.iter().all(|(origin, position)| self.hlc(origin) >= position.hlc)
    }

    /// Moves the claim for `origin` up to `position`; never down.
    pub fn advance(&mut self, origin: ReplicaId, position: Position) {
        if position.hlc > self.hlc(origin) {
            self.0.insert(origin, position);
        }
    }

    /// Moves the claim for `origin` down to `hlc`, if it is above it; the counts stay.
    pub fn lower(&mut self, origin: ReplicaId, hlc: Hlc) {
        if let Some(position) = self.0.get_mut(&origin) {
            position.hlc = position.hlc.min(hlc);
        }
    }

    /// The least vector that covers both.
    pub fn join(&mut self, other: &Self) {
        for (origin, position) in other.iter() {
            self.advance(origin, position);
        }
    }

    /// As [`VersionVector::join`], but leaves out origins that would be more than [`MAX_ORIGINS`].
    pub fn join_bounded(&mut self, other: &Self) {
        for (origin, position) in other.iter() {
            if self.0.len() < MAX_ORIGINS || self.0.contains_key(&origin) {
                self.advance(origin, position);
            }
        }
    }

    /// The origins with their positions, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, Position)> + '_ {
        self.0.iter().map(|(origin, position)| (*origin, *position))
    }

    /// The greatest event held of any origin.
    pub fn newest(&self) -> Hlc {
        self.0.values().map(|position| position.hlc).max().unwrap_or(Hlc::ZERO)
    }
}

impl FromIterator<(ReplicaId, Position)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (ReplicaId, Position)>>(positions: I) -> Self {
        let mut vector = Self::default();
        positions.into_iter().for_each(|(origin, position)| vector.advance(origin, position));
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { hlc: Hlc::new(ms, 0), ops: ms, bytes: 10 * ms }
    }

    #[test]
    fn a_claim_only_rises() {
        let a = ReplicaId([1; 16]);
        let mut vector = VersionVector::default();
        vector.advance(a, at(5));
        vector.advance(a, at(3));
        assert_eq!(vector.position(a), at(5));
        assert!(vector.covers(Dot { hlc: Hlc::new(5, 0), replica: a }));
        assert!(!vector.covers(Dot { hlc: Hlc::new(5, 1), replica: a }));
    }

    #[test]
    fn a_bounded_join_stops_at_the_most_origins() {
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            ReplicaId(id)
        };
        for (count, expected) in
            [(MAX_ORIGINS - 1, MAX_ORIGINS - 1), (MAX_ORIGINS, MAX_ORIGINS), (MAX_ORIGINS + 1, MAX_ORIGINS)]
        {
            let mut vector = VersionVector::default();
            for number in 0..count {
                vector.join_bounded(&[(id(number), at(1))].into_iter().collect());
            }
            vector.join_bounded(&[(id(0), at(2))].into_iter().collect());
            assert_eq!((vector.iter().count(), vector.position(id(0))), (expected, at(2)));
        }
    }

    #[test]
    fn a_join_covers_both_sides() {
        let (a, b) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let left: VersionVector = [(a, at(5)), (b, at(1))].into_iter().collect();
        let right: VersionVector = [(b, at(4))].into_iter().collect();
        let mut joined = left.clone();
        joined.join(&right);
        assert!(joined.covers_all(&left) && joined.covers_all(&right));
        assert!(!left.covers_all(&joined) && !right.covers_all(&joined));
    }
}
