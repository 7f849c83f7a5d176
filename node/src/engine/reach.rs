//! How far this PoP reaches, for those who read beside the engine: what they may have seen, what is durable here, what
//! the other members hold; and waiting for more of it.
//!
//! The rule this file upholds: what readers may see is published before the commit that shows it, and what is durable
//! after the flush. Nobody polls: the engine wakes those who wait, and bounds how many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::gauge;
use replication::{EntryId, Hlc, NamespaceId, Position, Replica, ReplicaId, VersionVector};
use tokio_util::task::AbortOnDropHandle;

use super::feed::Bell;
use super::{Engine, ReadError, Shared, unix_ms};
use crate::storage::SledStore;

/// The most requests that may wait at once for this PoP, or others, to hold more; one more is refused. Each takes a
/// connection, of which there must be some for others: a quarter of the default of `http.max_connections`.
pub(crate) const MAX_WAITERS: usize = 1_024;

/// What a read may have shown.
#[derive(Debug, Default)]
struct Seen {
    /// By origin its newest event, of those that some member may lack.
    newest: VersionVector,
    /// Good for so many batches of the store.
    commits: u64,
}

/// What is durable, here and elsewhere.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// What this PoP holds of each member, and of who wrote after the epoch.
    pub(crate) here: VersionVector,
    /// Every member holds everything up to here.
    pub(crate) epoch: Hlc,
    /// The other members, each with what it holds of this PoP's events.
    pub(crate) others: Vec<(ReplicaId, Hlc)>,
    /// Who they all are.
    pub(crate) members: Arc<BTreeMap<ReplicaId, Named>>,
}

/// Where a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) pop: String,
    pub(crate) region: String,
}

impl Held {
    /// The names of the other members that hold this PoP's events up to here, and their regions.
    pub(crate) fn holders(&self, upto: Hlc) -> impl Iterator<Item = &Named> {
        let holders = self.others.iter().filter(move |(_, held)| *held >= upto);
        holders.filter_map(|(replica, _)| self.members.get(replica))
    }
}

/// What the engine publishes.
pub(super) struct Reach {
    /// By it tokens of this cluster are told from any others.
    secret: [u8; 16],
    seen: ArcSwap<Seen>,
    held: ArcSwap<Held>,
    /// See [`Engine::complete_upto_ms`].
    complete_ms: AtomicU64,
    waiters: AtomicUsize,
    bell: Arc<Bell>,
    ringer: OnceLock<AbortOnDropHandle<()>>,
}

impl Reach {
    /// Of a replica with these settings.
    pub(super) fn new(settings: &replication::Settings) -> Self {
        let name = EntryId::value(NamespaceId::SYSTEM, "session");
        Self {
            secret: settings.digest_key.name_hash(&name).to_bits().to_be_bytes(),
            seen: ArcSwap::default(),
            held: ArcSwap::default(),
            complete_ms: AtomicU64::new(0),
            waiters: AtomicUsize::new(0),
            bell: Arc::default(),
            ringer: OnceLock::new(),
        }
    }

    /// Counts one more that waits, if there may be one.
    fn admit(&self) -> bool {
        let more = |waiters| (waiters < MAX_WAITERS).then_some(waiters + 1);
        self.waiters.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

/// The engine's own notes for it.
#[derive(Default)]
pub(super) struct Publisher {
    /// By origin, how many events it had written when its claim was last raised by one, and up to where.
    events: BTreeMap<ReplicaId, (u64, Hlc)>,
    /// The members, and what they were made from.
    members: (u64, Arc<BTreeMap<ReplicaId, Named>>),
}

impl Publisher {
    /// Before a commit: what a reader may see after it.
    pub(super) fn foresee(&mut self, shared: &Shared, replica: &Replica<SledStore>) {
        self.see(shared, replica, 1);
    }

    /// After a flush.
    pub(super) fn publish(&mut self, shared: &Shared, replica: &Replica<SledStore>) {
        self.see(shared, replica, 0);
        let reach = &shared.reach;
        let held = self.held(replica);
        let is_new = **reach.held.load() != held;
        if is_new {
            reach.held.store(Arc::new(held));
        }
        let complete_ms = replica.complete_upto_ms().unwrap_or(u64::MAX);
        let was_ms = reach.complete_ms.swap(complete_ms, Ordering::SeqCst);
        if (is_new || was_ms != complete_ms) && reach.waiters.load(Ordering::SeqCst) > 0 {
            reach.bell.ring_for_more();
        }
    }

    fn see(&mut self, shared: &Shared, replica: &Replica<SledStore>, more_commits: u64) {
        let epoch = replica.epoch();
        let mut newest = VersionVector::default();
        for (origin, at) in replica.held().iter().filter(|(_, at)| at.hlc > epoch) {
            let event = self.events.entry(origin).or_insert((at.ops, at.hlc));
            if event.0 != at.ops {
                *event = (at.ops, at.hlc);
            }
            if event.1 > epoch {
                newest.advance(origin, Position { hlc: event.1, ..at });
            }
        }
        for (origin, hlc) in replica.ahead().filter(|(_, hlc)| *hlc > epoch) {
            let ops = replica.held().position(origin).ops.saturating_add(1);
            newest.advance(origin, Position { hlc, ops, bytes: 0 });
        }
        let commits = replica.store().commits() + more_commits;
        let reach = &shared.reach;
        let is_new = { reach.seen.load().newest != newest };
        if is_new || reach.seen.load().commits != commits {
            reach.seen.store(Arc::new(Seen { newest, commits }));
        }
    }

    fn held(&mut self, replica: &Replica<SledStore>) -> Held {
        let members = replica.members();
        if self.members.0 != members.digest() || self.members.1.is_empty() {
            let named = members.current().map(|(id, member)| {
                let record = member.record.clone().unwrap_or_default();
                (id, Named { pop: record.pop, region: record.region })
            });
            self.members = (members.digest(), Arc::new(named.collect()));
            // Of who has gone, nothing is to be noted for ever.
            let known: BTreeSet<_> = replica.vector().iter().map(|(origin, _)| origin).collect();
            self.events.retain(|origin, _| known.contains(origin));
        }
        let epoch = replica.epoch();
        let matters = |(origin, at): &(ReplicaId, Position)| at.hlc > epoch || members.contains(*origin);
        Held {
            here: replica.shown().iter().filter(matters).collect(),
            epoch,
            others: replica.held_of(replica.id()).collect(),
            members: self.members.1.clone(),
        }
    }
}

/// Why waiting gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReached {
    /// As many wait as may.
    TooMany,
    /// It did not come in time.
    InTime,
}

/// A place among those that wait.
pub(crate) struct WaiterSeat(Engine);

impl Drop for WaiterSeat {
    fn drop(&mut self) {
        self.0.shared.reach.waiters.fetch_sub(1, Ordering::SeqCst);
        gauge!("littoral_waiters").decrement(1.0);
    }
}

impl WaiterSeat {
    /// Waits until `look` gives something, which it is asked for whenever there is more; for so long at most.
    pub(crate) async fn wait<T>(
        &self,
        within: Duration,
        look: impl Fn() -> Option<T>,
    ) -> Result<T, NotReached> {
        let reach = &self.0.shared.reach;
        reach.ringer.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(reach.bell.clone().ring())));
        let mut moved = reach.bell.listen();
        let until_found = async {
            loop {
                moved.mark_unchanged();
                if let Some(found) = look() {
                    return found;
                }
                // It fails only without a sender, which lives as long as the engine.
                let _ = moved.changed().await;
            }
        };
        tokio::time::timeout(within, until_found).await.map_err(|_| NotReached::InTime)
    }
}

impl Engine {
    /// Takes a place among those that wait.
    ///
    /// # Errors
    /// [`NotReached::TooMany`] beyond [`MAX_WAITERS`].
    pub(crate) fn take_seat(&self) -> Result<WaiterSeat, NotReached> {
        if !self.shared.reach.admit() {
            return Err(NotReached::TooMany);
        }
        gauge!("littoral_waiters").increment(1.0);
        Ok(WaiterSeat(self.clone()))
    }

    /// What only nodes of this cluster know, to tell what they have given to clients from all else.
    pub(crate) fn secret(&self) -> [u8; 16] {
        self.shared.reach.secret
    }

    /// What is durable here and elsewhere, as of the latest flush.
    pub(crate) fn held(&self) -> Arc<Held> {
        self.shared.reach.held.load_full()
    }

    /// By origin the newest event that a read which has ended may have shown, of those that some member may lack.
    ///
    /// # Errors
    /// In quarantine.
    pub(crate) async fn seen(&self) -> Result<VersionVector, ReadError> {
        self.shared.readable()?;
        if self.seen_by_now().is_none() {
            // A batch of a long message is in sight, before the message is at its end.
            self.ask(|_, _| ()).await?;
        }
        Ok(self.seen_so_far())
    }

    /// Whether [`Engine::seen_so_far`] covers every read that has ended by now; `None` where it does not yet.
    pub(crate) fn seen_by_now(&self) -> Option<()> {
        let commits = self.shared.serving().ok()?.commits();
        (self.shared.reach.seen.load().commits >= commits).then_some(())
    }

    /// As [`Engine::seen`], as far as it was told.
    pub(crate) fn seen_so_far(&self) -> VersionVector {
        self.shared.reach.seen.load().newest.clone()
    }

    /// All that each other member wrote up to then, by its clock, is here, in Unix milliseconds; [`u64::MAX`] where there
    /// is no other member.
    pub(crate) fn complete_upto_ms(&self) -> u64 {
        self.shared.reach.complete_ms.load(Ordering::SeqCst)
    }

    /// How much, in milliseconds, what is complete up to then may lack by now.
    pub(crate) fn staleness_ms(complete_upto_ms: u64) -> u64 {
        unix_ms().saturating_sub(complete_upto_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Hlc {
        Hlc::new(ms, 0)
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let reach = Reach::new(&replication::Settings::new([1; 16], replication::DigestKey::new([2; 32])));
        let admitted = (0..=MAX_WAITERS).filter(|_| reach.admit()).count();
        assert_eq!(admitted, MAX_WAITERS);
        reach.waiters.fetch_sub(1, Ordering::SeqCst);
        assert!(reach.admit() && !reach.admit());
    }

    #[test]
    fn only_who_holds_all_up_to_an_event_is_a_holder_of_it() {
        let (near, far) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let named = |pop: &str| Named { pop: pop.into(), region: "r".into() };
        let members = Arc::new([(near, named("near")), (far, named("far"))].into_iter().collect());
        let held = Held { others: vec![(near, at(5)), (far, at(4))], members, ..Held::default() };
        let holders = |ms| held.holders(at(ms)).map(|holder| holder.pop.as_str()).collect::<Vec<_>>();
        assert_eq!((holders(4), holders(5)), (vec!["near", "far"], vec!["near"]));
        assert!(holders(6).is_empty());
    }
}
