//! The feed: what each flush has made durable, from the engine's thread to all who watch.
//!
//! The rule this file upholds: the engine never waits for a watcher, and no watcher makes it keep more than the feed's bound.
//! Who does not come along is told so, and goes on by the log from where it was.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::gauge;
use replication::read::shown::Shown;
use replication::replica::changed::{Changed, changed_bytes};
use replication::{Entry, EntryId, Replica, VersionVector};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{Engine, ReadError};
use crate::storage::SledStore;

/// The most watchers of a node at once; one more is refused. Each may take a connection, and there must be some for others:
/// this is half of the default of `http.max_connections`.
const MAX_WATCHERS: usize = 2_048;
/// The most changes the feed keeps for those who are behind.
const MAX_FEED_ENTRIES: usize = 32_768;
/// The most bytes of their names and states; as JSON they take up to twice as much again.
const MAX_FEED_BYTES: usize = 16 << 20;
/// About how many bytes of changes are handed over as one: what a watcher holds on to while its client is slow.
const BATCH_BYTES: usize = 128 << 10;

/// A change that is durable.
pub(crate) struct Item {
    /// The entry.
    pub(crate) id: EntryId,
    /// Its state.
    pub(crate) entry: Entry,
    /// What watchers are told of it, if anything, made by the first of them.
    pub(crate) told: OnceLock<Option<String>>,
}

/// Changes in the order of their flushes; those of one flush in the order of their entries.
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    /// What is held durably with them; `None` where more of the same flush follows.
    pub(crate) vector: Option<VersionVector>,
    bytes: usize,
}

/// What follows in the feed.
pub(crate) enum Next {
    /// These changes.
    Batch(Arc<Batch>),
    /// Changes that are not in the feed any more.
    Behind,
}

/// The feed of an engine.
#[derive(Default)]
pub(super) struct Feed {
    watchers: AtomicUsize,
    tail: Mutex<Tail>,
    bell: Arc<Bell>,
    /// Rings the bell from the first watch on.
    ringer: OnceLock<AbortOnDropHandle<()>>,
}

/// Wakes the watchers on a task of its own: to wake a thousand takes longer than a flush, and the engine must not wait.
#[derive(Default)]
pub(super) struct Bell {
    published: Notify,
    /// The number of the batch that will be next.
    end: AtomicU64,
    /// The same, for those who wait.
    moved: watch::Sender<u64>,
}

impl Bell {
    /// There is one more thing to hear of.
    pub(super) fn ring_for_more(&self) {
        self.end.fetch_add(1, Ordering::AcqRel);
        self.published.notify_one();
    }

    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Passes on what was rung for, for as long as it is polled.
    pub(super) async fn ring(self: Arc<Self>) {
        loop {
            self.published.notified().await;
            self.moved.send_replace(self.end.load(Ordering::Acquire));
        }
    }
}

#[derive(Default)]
struct Tail {
    batches: VecDeque<Arc<Batch>>,
    /// The number of the first of them.
    first: u64,
    entries: usize,
    bytes: usize,
    /// What is held durably after the last.
    vector: VersionVector,
}

impl Tail {
    fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    fn push(&mut self, batch: Batch) {
        self.entries += batch.items.len();
        self.bytes += batch.bytes;
        self.batches.push_back(Arc::new(batch));
        while self.entries > MAX_FEED_ENTRIES || self.bytes > MAX_FEED_BYTES {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.first += 1;
            self.entries -= oldest.items.len();
            self.bytes -= oldest.bytes;
        }
    }

    /// Forgets all, so that whoever is not at the end is behind.
    fn cut(&mut self) {
        *self = Self { first: self.end() + 1, vector: std::mem::take(&mut self.vector), ..Self::default() };
    }
}

impl Feed {
    /// Takes what a flush has changed; on the engine's thread, after the flush.
    pub(super) fn publish(&self, replica: &mut Replica<SledStore>) {
        let Some(changed) = replica.take_changed() else { return };
        let mut tail = self.lock();
        if self.watchers.load(Ordering::Acquire) == 0 {
            replica.note_changes(false);
            tail.cut();
            return;
        }
        let shown = replica.shown();
        if tail.vector != shown {
            tail.vector = shown;
        }
        if changed.is_cut {
            tail.cut();
        } else if !changed.states.is_empty() {
            let vector = tail.vector.clone();
            batches(changed, vector).into_iter().for_each(|batch| tail.push(batch));
        } else {
            return;
        }
        self.bell.end.store(tail.end(), Ordering::Release);
        self.bell.published.notify_one();
    }

    /// Counts one more watcher, if there may be one.
    fn admit(&self) -> bool {
        let more = |watchers| (watchers < MAX_WATCHERS).then_some(watchers + 1);
        self.watchers.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // A panic elsewhere leaves a feed that is still a feed.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes of one flush, in pieces.
fn batches(changed: Changed, vector: VersionVector) -> Vec<Batch> {
    let empty = || Batch { items: Vec::new(), vector: None, bytes: 0 };
    let (mut batches, mut batch) = (Vec::new(), empty());
    for (id, entry) in changed.states {
        if batch.bytes >= BATCH_BYTES {
            batches.push(std::mem::replace(&mut batch, empty()));
        }
        batch.bytes += changed_bytes(&id, &entry);
        batch.items.push(Item { id, entry, told: OnceLock::new() });
    }
    batch.vector = Some(vector);
    batches.push(batch);
    batches
}

/// Why nobody can watch now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotWatched {
    #[error(
        "this node has {MAX_WATCHERS} watchers, the most it takes; try again in a second, or at another PoP"
    )]
    TooMany,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A place among the watchers.
struct Seat(Engine);

impl Seat {
    fn take(engine: &Engine) -> Result<Self, NotWatched> {
        if !engine.shared.feed.admit() {
            return Err(NotWatched::TooMany);
        }
        gauge!("littoral_watchers").increment(1.0);
        Ok(Self(engine.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.shared.feed.watchers.fetch_sub(1, Ordering::AcqRel);
        gauge!("littoral_watchers").decrement(1.0);
    }
}

/// One who watches.
pub(crate) struct Subscription {
    seat: Seat,
    /// The number of the batch that is next.
    next: u64,
    moved: watch::Receiver<u64>,
    /// What was held durably when it began, or began again.
    pub(crate) vector: VersionVector,
}

impl Subscription {
    /// Begins again at the end of the feed.
    pub(crate) async fn begin_again(&mut self) -> Result<(), ReadError> {
        (self.next, self.vector) = self.seat.0.end_of_feed().await?;
        Ok(())
    }

    /// The number of the batch that is next.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// The number that the next batch will have, once all that can be read in the store by now is in the feed.
    pub(crate) async fn end(&self) -> Result<u64, ReadError> {
        Ok(self.seat.0.end_of_feed().await?.0)
    }

    /// Waits until there is more. May be dropped and called again.
    pub(crate) async fn moved(&mut self) {
        let next = self.next;
        // It fails only without a sender, which lives as long as the engine that the seat holds.
        let _ = self.moved.wait_for(|end| *end > next).await;
    }

    /// What is held durably, if this is at the end of the feed.
    pub(crate) fn claims(&self) -> Option<VersionVector> {
        let tail = self.seat.0.shared.feed.lock();
        (self.next == tail.end()).then(|| tail.vector.clone())
    }

    /// What follows, after [`Subscription::moved`].
    pub(crate) fn next(&mut self) -> Next {
        let tail = self.seat.0.shared.feed.lock();
        let batch = self.next.checked_sub(tail.first).and_then(|at| tail.batches.get(at as usize));
        match batch {
            Some(batch) => {
                self.next += 1;
                Next::Batch(batch.clone())
            }
            None => Next::Behind,
        }
    }
}

impl Engine {
    /// Takes a place at the end of the feed.
    pub(crate) async fn watch(&self) -> Result<Subscription, NotWatched> {
        self.shared.readable()?;
        let seat = Seat::take(self)?;
        let feed = &self.shared.feed;
        feed.ringer.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(feed.bell.clone().ring())));
        let (next, vector) = self.end_of_feed().await?;
        Ok(Subscription { seat, next, moved: feed.bell.moved.subscribe(), vector })
    }

    /// The end of the feed, and what is durably held there, at one moment between two turns.
    async fn end_of_feed(&self) -> Result<(u64, VersionVector), ReadError> {
        let shared = self.shared.clone();
        let end = self.ask(move |replica, _| {
            replica.note_changes(true);
            let mut tail = shared.feed.lock();
            tail.vector = replica.shown();
            (tail.end(), tail.vector.clone())
        });
        end.await
    }

    /// What readers see of the store, while this node serves.
    pub(crate) fn store(&self) -> Result<Shown<'_, SledStore>, ReadError> {
        self.shared.readable()
    }
}

#[cfg(test)]
mod tests {
    use replication::{Body, Dot, Hlc, NamespaceId, ReplicaId};

    use super::*;

    fn batch(entries: usize, bytes: usize) -> Batch {
        let dot = Dot { hlc: Hlc::new(1, 0), replica: ReplicaId([1; 16]) };
        let item = || Item {
            id: EntryId::value(NamespaceId([9; 16]), "k"),
            entry: Entry::first(dot, Body::Tombstone),
            told: OnceLock::new(),
        };
        Batch { items: (0..entries).map(|_| item()).collect(), vector: None, bytes }
    }

    #[test]
    fn the_feed_is_bounded_in_entries_and_bytes() {
        let cases = [
            (MAX_FEED_ENTRIES - 1, 1, 0),
            (MAX_FEED_ENTRIES, 1, 1),
            (1, MAX_FEED_BYTES - 1, 0),
            (1, MAX_FEED_BYTES, 1),
        ];
        for (entries, bytes, dropped) in cases {
            let mut tail = Tail::default();
            tail.push(batch(1, 1));
            tail.push(batch(entries, bytes));
            assert_eq!((tail.first, tail.end()), (dropped, 2), "{entries} entries, {bytes} bytes");
        }
    }

    #[test]
    fn a_node_takes_so_many_watchers_and_no_more() {
        let feed = Feed::default();
        let admitted = (0..=MAX_WATCHERS).map(|_| feed.admit());
        assert_eq!(admitted.filter(|is_admitted| *is_admitted).count(), MAX_WATCHERS);
        feed.watchers.fetch_sub(1, Ordering::AcqRel);
        assert!(feed.admit() && !feed.admit());
    }

    /// Whoever stood at the end when the feed was cut has missed what was cut.
    #[test]
    fn a_cut_leaves_everyone_behind() {
        let mut tail = Tail::default();
        tail.push(batch(1, 1));
        let at_the_end = tail.end();
        tail.cut();
        assert!(at_the_end < tail.first && tail.first == tail.end());
    }

    #[test]
    fn a_flush_of_much_is_handed_over_in_pieces_and_only_the_last_says_what_is_held() {
        let mut changed = Changed::default();
        let piece = batch(1, 1).items.remove(0);
        for n in 0..2_000 {
            let id = EntryId::value(NamespaceId([9; 16]), n.to_string());
            changed.states.insert(id, piece.entry.clone());
        }
        let batches = batches(changed, VersionVector::default());
        assert!(batches.len() > 1);
        assert_eq!(batches.iter().map(|batch| batch.items.len()).sum::<usize>(), 2_000);
        assert!(batches.iter().all(|batch| batch.bytes < 2 * BATCH_BYTES));
        let (last, others) = batches.split_last().unwrap();
        assert!(last.vector.is_some() && others.iter().all(|batch| batch.vector.is_none()));
    }
}
