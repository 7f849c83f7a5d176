//! When to say what is held: soon, but for many writes at once.
//!
//! The rule this file upholds: only what is durable is acknowledged. (Nothing is sent while anything is not.)

use std::collections::BTreeSet;

use super::Replica;
use crate::clock::{Now, ReplicaId};
use crate::codec::message::Ack;
use crate::store::Store;

/// How long an acknowledgement waits for others to go with, and how many bytes of keys and values end the wait. It
/// costs some 70 bytes on the wire, as much as half a small write; nothing but figures and the window waits for it.
const ACKNOWLEDGE_AFTER_US: u64 = 20_000;
const ACKNOWLEDGE_AFTER_BYTES: u64 = 256 << 10;

/// The same for an origin whose events came by somebody else, across an ocean: no window waits there.
const TELL_ORIGIN_AFTER_US: u64 = 200_000;

/// What is to be acknowledged to a peer: soon, and many writes at once.
#[derive(Default)]
pub(super) struct Acknowledgement {
    /// Origins whose claims have risen here by its deltas.
    origins: BTreeSet<ReplicaId>,
    /// Bytes they have risen by.
    bytes: u64,
    due_us: u64,
}

impl Acknowledgement {
    fn add(&mut self, now: Now, origin: ReplicaId, bytes: u64, within_us: u64) {
        let due_us = now.mono_us + within_us;
        self.due_us = if self.origins.is_empty() { due_us } else { self.due_us.min(due_us) };
        self.origins.insert(origin);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= ACKNOWLEDGE_AFTER_BYTES {
            self.due_us = now.mono_us;
        }
    }

    pub(super) fn due_us(&self) -> Option<u64> {
        (!self.origins.is_empty()).then_some(self.due_us)
    }

    pub(super) fn take(&mut self) -> BTreeSet<ReplicaId> {
        std::mem::take(self).origins
    }
}

impl<S: Store> Replica<S> {
    /// Events of this origin, of so many bytes, came from this peer and are taken in.
    pub(super) fn owe_acknowledgement(&mut self, now: Now, to: ReplicaId, origin: ReplicaId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.acknowledgement.add(now, origin, bytes, ACKNOWLEDGE_AFTER_US);
        }
    }

    /// Events of this origin came by another peer and are taken in.
    pub(super) fn owe_word_to_origin(&mut self, now: Now, origin: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&origin).filter(|peer| peer.connected) {
            peer.acknowledgement.add(now, origin, 0, TELL_ORIGIN_AFTER_US);
        }
    }

    pub(super) fn next_acknowledgement(&mut self, now: Now, to: ReplicaId) -> Option<Ack> {
        let owed = &mut self.peers.get_mut(&to)?.acknowledgement;
        if owed.due_us().is_none_or(|due_us| due_us > now.mono_us) {
            return None;
        }
        let mut origins = owed.take();
        let yours = origins.remove(&to).then(|| self.durable.position(to));
        let others = origins.into_iter().map(|origin| (origin, self.durable.position(origin)));
        Some(Ack { yours, others: others.collect() })
    }
}
