//! The table of links: which replicas are connected, and which of two links to one replica stays.
//!
//! The rule upheld here: at most one link per replica is up, and a new one is admitted only after the
//! engine has heard of the old one's end. Both sides decide alike, so no message is needed for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::Connection;
use replication::ReplicaId;
use replication::budget::LinkClass;
use tokio::sync::{Notify, Semaphore};

use super::refusal::close_code;
use super::turn::Gate;

/// A connection whose peer has proven who it is.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) connection: Connection,
    /// What governs its sending side.
    pub(super) gate: Arc<Gate>,
    /// The PoP at the other end.
    pub(super) pop: String,
    /// What kind of path leads there.
    pub(super) class: LinkClass,
    /// Which of the two replicas dialled.
    pub(super) dialler: ReplicaId,
    /// Of the process at the other end.
    pub(super) boot_nonce: [u8; 16],
    /// Whether what is sent over it is packed.
    pub(super) packs: bool,
    /// A permit per chunk that may be asked for, so that calls have streams left.
    pub(super) chunks_out: Arc<Semaphore>,
    /// A permit per call that may be under way, from here and from there.
    pub(super) calls_out: Arc<Semaphore>,
    pub(super) calls_in: Arc<Semaphore>,
}

/// Permits for so many.
pub(super) fn permits(count: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count as usize))
}

impl Candidate {
    /// Whether this link takes the place of `current`, to the same replica.
    fn replaces(&self, current: &Candidate) -> bool {
        let is_restarted = self.boot_nonce != current.boot_nonce;
        // A node dials only while it has no link: its second call means that it lost the first one.
        let is_redialled = self.dialler == current.dialler;
        let is_ending = current.connection.close_reason().is_some();
        is_restarted || is_redialled || is_ending || self.dialler < current.dialler
    }
}

/// The links that are up.
#[derive(Default)]
pub(super) struct Links {
    table: Mutex<BTreeMap<ReplicaId, Candidate>>,
    /// Rung when the table changes. It wakes those who wait in the order they came; a watch channel would wake
    /// them in any, and one seed of the simulated network is to give one trace.
    changed: Notify,
}

impl Links {
    /// Enters the link into the table, once the one it replaces has ended. False, and the candidate
    /// closed, when another stays.
    pub(super) async fn admit(&self, replica: ReplicaId, candidate: &Candidate) -> bool {
        loop {
            // It hears whatever changes from here on, so a change after the look at the table is not missed.
            let changed = self.changed.notified();
            if candidate.connection.close_reason().is_some() {
                return false;
            }
            {
                let mut table = self.lock();
                let Some(current) = table.get(&replica) else {
                    table.insert(replica, candidate.clone());
                    self.changed.notify_waiters();
                    return true;
                };
                let loser = if candidate.replaces(current) { current } else { candidate };
                loser.connection.close(close_code::DUPLICATE, b"another link between the two stays");
            }
            // Rung at the latest when the loser in the table has ended.
            if candidate.connection.close_reason().is_none() {
                changed.await;
            }
        }
    }

    /// Takes the ended link out of the table.
    pub(super) fn remove(&self, replica: ReplicaId) {
        self.lock().remove(&replica);
        self.changed.notify_waiters();
    }

    /// Waits until no link to this PoP is up.
    pub(super) async fn until_absent(&self, pop: &str) {
        loop {
            let changed = self.changed.notified();
            if !self.lock().values().any(|link| link.pop == pop) {
                return;
            }
            changed.await;
        }
    }

    /// The link to this PoP.
    pub(super) fn to_pop(&self, pop: &str) -> Option<Candidate> {
        self.lock().values().find(|link| link.pop == pop).cloned()
    }

    /// The connection to this replica.
    pub(super) fn connection(&self, replica: ReplicaId) -> Option<Connection> {
        self.lock().get(&replica).map(|link| link.connection.clone())
    }

    /// Every link, by replica.
    pub(super) fn all(&self) -> Vec<(ReplicaId, Candidate)> {
        self.lock().iter().map(|(replica, link)| (*replica, link.clone())).collect()
    }

    /// Every link, the nearest first.
    pub(super) fn nearest_first(&self) -> Vec<Candidate> {
        let mut links: Vec<_> = self.lock().values().cloned().collect();
        links.sort_by_key(|link| link.connection.rtt());
        links
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Candidate>> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
