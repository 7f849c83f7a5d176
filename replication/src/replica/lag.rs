//! Lag: how far each replica is behind each origin, from durable claims. Exact, never sampled.

use std::ops::ControlFlow;

use super::Replica;
use crate::clock::{Hlc, Now, ReplicaId};
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::Position;

/// How far `replica` is behind `origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Whose events.
    pub origin: ReplicaId,
    /// Who lacks them, or has not said that it holds them durably.
    pub replica: ReplicaId,
    /// How many events.
    pub ops: u64,
    /// Bytes of keys and values those events wrote.
    pub bytes: u64,
    /// Milliseconds since the oldest of them, by its own time; 0 without any. Where this replica lacks that
    /// event itself, the time since the newest it holds: an upper bound.
    pub time_ms: u64,
}

impl<S: Store> Replica<S> {
    /// The lag of this replica and of every peer behind every other origin.
    pub fn lag(&self, now: Now) -> Result<Vec<Lag>, StoreError> {
        let mut lags = Vec::new();
        for origin in self.known_origins() {
            let head = self.head(origin);
            let is_out = |replica: ReplicaId| self.members().removal(replica).is_some();
            let replicas = self.peers.keys().copied().chain([self.id]);
            for replica in replicas.filter(|replica| *replica != origin && !is_out(*replica)) {
                lags.push(self.lag_behind(now, origin, replica, head)?);
            }
        }
        Ok(lags)
    }

    fn known_origins(&self) -> Vec<ReplicaId> {
        let claims = self.peers.values().flat_map(|peer| peer.claims.iter().map(|(origin, _)| origin));
        let held = self.durable.iter().map(|(origin, _)| origin);
        let mut known: Vec<_> =
            claims.chain(held).chain(self.peers.keys().copied()).chain([self.id]).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// The furthest position of `origin` that anyone is known to hold. What a removed replica alone has does not
    /// count: nobody will get it from there.
    pub(super) fn head(&self, origin: ReplicaId) -> Position {
        let peers = self.peers.iter().filter(|(id, _)| self.members().removal(**id).is_none());
        let claims = peers.map(|(_, peer)| peer.claims.position(origin));
        claims.chain([self.durable.position(origin)]).max_by_key(|position| position.hlc).unwrap_or_default()
    }

    fn lag_behind(
        &self,
        now: Now,
        origin: ReplicaId,
        replica: ReplicaId,
        head: Position,
    ) -> Result<Lag, StoreError> {
        let held = match self.peers.get(&replica) {
            Some(peer) => peer.claims.position(origin),
            None if replica == self.id => self.durable.position(origin),
            None => Position::default(),
        };
        // Of an origin that was cloned, two who hold all of it may have counted different events.
        let (ops, bytes) = match head.hlc > held.hlc {
            true => (head.ops.saturating_sub(held.ops), head.bytes.saturating_sub(held.bytes)),
            false => (0, 0),
        };
        // A claim that rose without an event is nothing to wait for.
        let time_ms = if ops > 0 {
            let oldest = self.first_event_after(origin, held.hlc)?.unwrap_or(held.hlc);
            now.wall_ms.saturating_sub(oldest.wall_ms())
        } else {
            0
        };
        Ok(Lag { origin, replica, ops, bytes, time_ms })
    }

    fn first_event_after(&self, origin: ReplicaId, hlc: Hlc) -> Result<Option<Hlc>, StoreError> {
        let Some(index) = self.known_origin_index(origin) else { return Ok(None) };
        let mut first = None;
        self.store.scan(&keys::log(index, hlc.next()), &mut |row_key, _| {
            first = keys::parse_log(row_key, index);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }
}
