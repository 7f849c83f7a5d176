//! One slice at a time: the lanes of a link take turns in handing bytes to QUIC.
//!
//! QUIC sends streams by priority, but only of what it was given; and what it was given fills a window that all lanes share.
//! So a lane hands over a slice, and then the most urgent one that waits has its turn.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use replication::budget::Rate;
use replication::turns::{MAX_SLICE_BYTES, MIN_SLICE_BYTES, Turns};
use replication::{Lane, ReplicaId};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::pacer::Pacer;
use super::tls::LINK_WINDOW_BYTES;

/// A slice is at most what the link's budget gives in this time.
const SLICE_MS: u64 = 5;
/// A frame is at most what the link's budget gives in this time, within the two bounds below.
const FRAME_MS: u64 = 100;
const MIN_FRAME_BYTES: usize = 2 << 10;
/// Small enough that lanes take turns on a slow link.
const MAX_FRAME_BYTES: usize = 64 << 10;
/// QUIC is given what the budget sends in a round trip and this time beyond; the rest waits in the log, where what is
/// overwritten meanwhile needs not be sent at all.
const AHEAD: Duration = Duration::from_millis(250);
/// QUIC is given at least this.
const MIN_WINDOW_BYTES: u64 = 16 << 10;

/// Where in the order of a link something goes: in its lane, and there ahead of others where a reader waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    lane: Lane,
    is_for_reader: bool,
}

impl Place {
    /// A chunk that a reader waits for.
    pub(super) const READER: Self = Self { lane: Lane::Bulk, is_for_reader: true };

    /// The ordinary one of a lane.
    pub(super) const fn of(lane: Lane) -> Self {
        Self { lane, is_for_reader: false }
    }

    /// quinn sends streams of a higher priority first.
    pub(super) fn priority(self) -> i32 {
        i32::from(self.is_for_reader) - 2 * i32::from(self.lane as u8)
    }

    /// The number of its bell.
    fn bell(self) -> usize {
        if self.is_for_reader { Lane::ALL.len() } else { self.lane as usize }
    }
}

/// Who waits for a turn.
#[derive(Debug, Default)]
struct Queue {
    turns: Turns,
    /// Those of the bulk lane for whom readers wait.
    for_readers: usize,
}

impl Queue {
    fn wait(&mut self, place: Place) {
        self.turns.wait(place.lane);
        self.for_readers += usize::from(place.is_for_reader);
    }

    fn leave(&mut self, place: Place) {
        self.turns.leave(place.lane);
        self.for_readers -= usize::from(place.is_for_reader);
    }

    /// Takes the turn, if it is free and this place is next; if there is room, where that is to be asked.
    fn take(&mut self, place: Place, room: impl FnOnce() -> Result<(), Instant>) -> Taken {
        if self.next() != Some(place) || self.turns.is_taken() {
            return Taken::NotNext;
        }
        // Its floor is due to a lane whatever else is under way.
        let needs_room = place.lane > Lane::Delta && !self.turns.is_due(place.lane);
        if needs_room && let Err(again) = room() {
            return Taken::NoRoom { again };
        }
        self.for_readers -= usize::from(place.is_for_reader);
        self.turns.take(place.lane);
        Taken::Yes
    }

    fn next(&self) -> Option<Place> {
        let lane = self.turns.next()?;
        Some(Place { lane, is_for_reader: lane == Lane::Bulk && self.for_readers > 0 })
    }
}

/// What came of asking for the turn.
enum Taken {
    Yes,
    NotNext,
    NoRoom { again: Instant },
}

/// What governs the sending side of one link.
#[derive(Debug)]
pub(super) struct Gate {
    queue: Mutex<Queue>,
    /// Rung, by place, when it may be the turn of one who waits there.
    rung: [Notify; Lane::ALL.len() + 1],
    slice_bytes: AtomicUsize,
    frame_bytes: AtomicUsize,
    /// The least rate that the link's bytes pass; 0 is none.
    bytes_per_s: AtomicU64,
    paused: AtomicBool,
    /// Who paces the link, once it is up.
    pacer: OnceLock<(Arc<Pacer>, ReplicaId)>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            rung: Default::default(),
            slice_bytes: AtomicUsize::new(MAX_SLICE_BYTES),
            frame_bytes: AtomicUsize::new(MAX_FRAME_BYTES),
            bytes_per_s: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            pacer: OnceLock::new(),
        }
    }
}

impl Gate {
    /// Fits slices and frames to the least rate that the link's bytes pass.
    pub(super) fn fit(&self, rate: Option<Rate>) {
        let within = |ms, least, most: usize| {
            let bytes = rate.map_or(u64::MAX, |rate| rate.bytes_per_s() / 1000 * ms);
            usize::try_from(bytes).unwrap_or(usize::MAX).clamp(least, most)
        };
        self.slice_bytes.store(within(SLICE_MS, MIN_SLICE_BYTES, MAX_SLICE_BYTES), Ordering::Relaxed);
        self.frame_bytes.store(within(FRAME_MS, MIN_FRAME_BYTES, MAX_FRAME_BYTES), Ordering::Relaxed);
        self.bytes_per_s.store(rate.map_or(0, Rate::bytes_per_s), Ordering::Relaxed);
    }

    /// The link is up: from now on lanes below the fresh one write where this pacer has room.
    pub(super) fn paced_by(&self, pacer: Arc<Pacer>, replica: ReplicaId) {
        // A gate is of one link, which comes up once.
        let _ = self.pacer.set((pacer, replica));
    }

    /// The least rate that the link's bytes pass, where there is any.
    pub(super) fn rate(&self) -> Option<Rate> {
        Rate::new(self.bytes_per_s.load(Ordering::Relaxed))
    }

    /// About how large a frame is to be.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes.load(Ordering::Relaxed)
    }

    /// Lets nothing but heartbeats and acknowledgements be queued; or lets it again.
    pub(super) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether this lane is paused.
    pub(super) fn is_paused(&self, lane: Lane) -> bool {
        lane != Lane::Control && self.paused.load(Ordering::Relaxed)
    }

    /// Writes all of these, slice by slice, each in a turn of its own and in one go. The control lane waits for nobody.
    pub(super) async fn write(
        self: &Arc<Self>,
        stream: &mut SendStream,
        place: Place,
        mut rest: VecDeque<Bytes>,
    ) -> Result<(), WriteError> {
        while !rest.is_empty() {
            let turn = if place.lane == Lane::Control { None } else { Some(self.turn(place).await) };
            let mut slice = cut(&mut rest, self.slice_bytes.load(Ordering::Relaxed));
            let bytes = slice.iter().map(Bytes::len).sum();
            stream.write_all_chunks(&mut slice).await?;
            if let Some((pacer, replica)) = self.pacer.get() {
                pacer.gave(*replica, bytes);
            }
            if let Some(turn) = turn {
                turn.end(bytes);
            }
        }
        Ok(())
    }

    fn room(&self) -> Result<(), Instant> {
        let slice_bytes = self.slice_bytes.load(Ordering::Relaxed) as u64;
        self.pacer.get().map_or(Ok(()), |(pacer, replica)| pacer.room(*replica, slice_bytes))
    }

    async fn turn(self: &Arc<Self>, place: Place) -> Turn {
        self.lock().wait(place);
        let mut turn = Turn { gate: self.clone(), place, has_begun: false, written: 0 };
        loop {
            let rung = self.rung[place.bell()].notified();
            let taken = self.lock().take(place, || self.room());
            match taken {
                Taken::Yes => break,
                Taken::NotNext => rung.await,
                // Whoever is more urgent may come meanwhile, and has the turn then.
                Taken::NoRoom { again } => drop(timeout_at(again, rung).await),
            }
        }
        turn.has_begun = true;
        turn
    }

    /// Wakes whoever is next.
    fn ring(&self) {
        if let Some(place) = self.lock().next() {
            self.rung[place.bell()].notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A turn, or a place among those that wait for one; given back when it is dropped.
struct Turn {
    gate: Arc<Gate>,
    place: Place,
    has_begun: bool,
    written: usize,
}

impl Turn {
    fn end(mut self, written: usize) {
        self.written = written;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.has_begun {
            self.gate.lock().turns.give_back(self.place.lane, self.written);
        } else {
            self.gate.lock().leave(self.place);
        }
        self.gate.ring();
    }
}

/// Cuts so many bytes off the front, or all there are.
fn cut(rest: &mut VecDeque<Bytes>, mut room: usize) -> Vec<Bytes> {
    let mut slice = Vec::with_capacity(rest.len());
    while room > 0
        && let Some(mut first) = rest.pop_front()
    {
        let part = first.split_to(first.len().min(room));
        room -= part.len();
        slice.push(part);
        if !first.is_empty() {
            rest.push_front(first);
        }
    }
    slice
}

/// How much QUIC may be given that is not acknowledged yet: what its congestion control lets be under way, and half as much
/// again, so that it can grow; and no more than the budget sends meanwhile.
pub(super) fn window_bytes(rate: Option<Rate>, congestion_window: u64, round_trip: Duration) -> u64 {
    let by_path = congestion_window.saturating_mul(3) / 2 + MIN_WINDOW_BYTES;
    let by_budget = rate.map_or(u64::MAX, |rate| {
        let ahead_ms = (round_trip + AHEAD).as_millis().try_into().unwrap_or(u64::MAX);
        (rate.bytes_per_s() / 1000).saturating_mul(ahead_ms)
    });
    by_path.min(by_budget).clamp(MIN_WINDOW_BYTES, LINK_WINDOW_BYTES.into())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::task::Poll;

    use replication::budget::{LinkClass, Scope};

    use super::super::in_force::Budgets;
    use super::*;

    #[test]
    fn slices_are_cut_across_chunks() {
        let chunks = || VecDeque::from([&b"a"[..], b"", b"bcd", b"efgh"].map(Bytes::from_static));
        for room in 1..10 {
            let (mut rest, mut whole, mut slices) = (chunks(), Vec::new(), 0);
            while !rest.is_empty() {
                let slice = cut(&mut rest, room);
                let bytes: usize = slice.iter().map(Bytes::len).sum();
                assert!(bytes <= room);
                slice.iter().for_each(|part| whole.extend_from_slice(part));
                slices += 1;
            }
            assert_eq!((&whole[..], slices), (&b"abcdefgh"[..], 8usize.div_ceil(room)));
        }
    }

    #[test]
    fn slices_frames_and_windows_fit_the_budget() {
        let gate = Gate::default();
        for (bytes_per_s, slice, frame, window) in [
            (None, MAX_SLICE_BYTES, MAX_FRAME_BYTES, 1_500_000 + MIN_WINDOW_BYTES),
            (Some(16 << 10), MIN_SLICE_BYTES, MIN_FRAME_BYTES, MIN_WINDOW_BYTES),
            (Some(500_000), 2_500, 50_000, 175_000),
            (Some(1 << 30), MAX_SLICE_BYTES, MAX_FRAME_BYTES, 1_500_000 + MIN_WINDOW_BYTES),
        ] {
            let rate = bytes_per_s.and_then(Rate::new);
            gate.fit(rate);
            let fitted = (gate.slice_bytes.load(Ordering::Relaxed), gate.frame_bytes());
            assert_eq!(fitted, (slice, frame), "{bytes_per_s:?}");
            assert_eq!(window_bytes(rate, 1_000_000, Duration::from_millis(100)), window, "{bytes_per_s:?}");
        }
        assert_eq!(window_bytes(None, u64::MAX, Duration::ZERO), u64::from(LINK_WINDOW_BYTES));
    }

    #[tokio::test]
    async fn a_turn_that_is_given_up_passes_to_the_next() {
        let gate = Arc::new(Gate::default());
        let bulk = gate.turn(Place::of(Lane::Bulk)).await;
        let mut waits = std::pin::pin!(gate.turn(Place::of(Lane::Delta)));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        {
            let mut gone = std::pin::pin!(gate.turn(Place::of(Lane::CatchUp)));
            assert!(futures_util::poll!(gone.as_mut()).is_pending());
        }
        bulk.end(MAX_SLICE_BYTES);
        waits.await.end(1);
        // Nobody waits any more, and the turn is free.
        gate.turn(Place::of(Lane::AntiEntropy)).await.end(1);
    }

    #[tokio::test]
    async fn what_a_reader_waits_for_goes_before_the_rest_of_its_lane_and_after_other_lanes() {
        let gate = Arc::new(Gate::default());
        let order = Mutex::new(Vec::new());
        let write = async |place: Place| {
            let turn = gate.turn(place).await;
            order.lock().unwrap().push(place);
            turn.end(MIN_SLICE_BYTES);
        };
        let first = gate.turn(Place::of(Lane::Bulk)).await;
        let (bulk, reader, delta) = (Place::of(Lane::Bulk), Place::READER, Place::of(Lane::Delta));
        let waiting = futures_util::future::join_all([bulk, bulk, reader, delta, reader].map(write));
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        {
            let mut gone = std::pin::pin!(gate.turn(reader));
            assert!(futures_util::poll!(gone.as_mut()).is_pending());
        }
        first.end(MIN_SLICE_BYTES);
        waiting.await;
        assert_eq!(*order.lock().unwrap(), [delta, reader, reader, bulk, bulk]);
        gate.turn(bulk).await.end(1);
    }

    /// New writes beside large values once waited for two acknowledgements: one for the slice before theirs, and one for
    /// their own, since what is not urgent filled all that QUIC takes.
    #[tokio::test]
    async fn what_is_not_urgent_waits_for_budget_and_leaves_the_turn_meanwhile() {
        let (pacer, replica) = (Pacer::new(Budgets::default()), ReplicaId([1; 16]));
        let address = SocketAddr::from(([192, 0, 2, 1], 4_433));
        pacer.add(address, replica, "sin", LinkClass::InterRegion);
        pacer.set(&Scope::Link("sin".into()), Rate::new(100_000));
        let gate = Arc::new(Gate::default());
        gate.paced_by(pacer.clone(), replica);
        gate.fit(pacer.tightest(replica));
        let mut slices = 0;
        loop {
            let mut bulk = std::pin::pin!(gate.turn(Place::of(Lane::Bulk)));
            let Poll::Ready(turn) = futures_util::poll!(bulk.as_mut()) else { break };
            pacer.gave(replica, MIN_SLICE_BYTES);
            turn.end(MIN_SLICE_BYTES);
            slices += 1;
        }
        assert!((1..16).contains(&slices), "{slices} KiB");
        let mut bulk = std::pin::pin!(gate.turn(Place::of(Lane::Bulk)));
        assert!(futures_util::poll!(bulk.as_mut()).is_pending());
        gate.turn(Place::of(Lane::Delta)).await.end(1);
        // What QUIC was given is never sent, for the peer wants it no more: it does not hold up others for ever.
        bulk.await.end(MIN_SLICE_BYTES);
    }

    #[test]
    fn priorities_follow_the_lanes_and_readers_come_first_in_theirs() {
        let lanes = Lane::ALL.map(|lane| Place::of(lane).priority());
        assert!(lanes.windows(2).all(|pair| pair[0] > pair[1]), "{lanes:?}");
        let reader = Place::READER.priority();
        assert!(lanes[Lane::AntiEntropy as usize] > reader && reader > lanes[Lane::Bulk as usize]);
    }

    #[test]
    fn a_paused_link_has_its_control_lane() {
        let gate = Gate::default();
        gate.pause(true);
        assert!(!gate.is_paused(Lane::Control) && gate.is_paused(Lane::Delta) && gate.is_paused(Lane::Bulk));
        gate.pause(false);
        assert!(!gate.is_paused(Lane::Delta));
    }
}
