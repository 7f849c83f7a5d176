//! One slice at a time: the lanes of a link take turns in handing bytes to QUIC.
//!
//! QUIC sends streams by priority, but only of what it was given; and what it was given fills a window that all lanes share.
//! So a lane hands over a slice, and then the most urgent one that waits has its turn.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use replication::Lane;
use replication::budget::Rate;
use replication::turns::{MAX_SLICE_BYTES, MIN_SLICE_BYTES, Turns};
use tokio::sync::Notify;

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

/// What governs the sending side of one link.
#[derive(Debug)]
pub(super) struct Gate {
    turns: Mutex<Turns>,
    /// Rung, by lane, when it may be that lane's turn.
    rung: [Notify; Lane::ALL.len()],
    slice_bytes: AtomicUsize,
    frame_bytes: AtomicUsize,
    /// The least rate that the link's bytes pass; 0 is none.
    bytes_per_s: AtomicU64,
    paused: AtomicBool,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            turns: Mutex::default(),
            rung: Default::default(),
            slice_bytes: AtomicUsize::new(MAX_SLICE_BYTES),
            frame_bytes: AtomicUsize::new(MAX_FRAME_BYTES),
            bytes_per_s: AtomicU64::new(0),
            paused: AtomicBool::new(false),
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
        lane: Lane,
        mut rest: VecDeque<Bytes>,
    ) -> Result<(), WriteError> {
        while !rest.is_empty() {
            let turn = if lane == Lane::Control { None } else { Some(self.turn(lane).await) };
            let mut slice = cut(&mut rest, self.slice_bytes.load(Ordering::Relaxed));
            let bytes = slice.iter().map(Bytes::len).sum();
            stream.write_all_chunks(&mut slice).await?;
            if let Some(turn) = turn {
                turn.end(bytes);
            }
        }
        Ok(())
    }

    async fn turn(self: &Arc<Self>, lane: Lane) -> Turn {
        self.lock().wait(lane);
        let mut turn = Turn { gate: self.clone(), lane, has_begun: false, written: 0 };
        while !self.lock().take(lane) {
            self.rung[lane as usize].notified().await;
        }
        turn.has_begun = true;
        turn
    }

    /// Wakes whoever is next.
    fn ring(&self) {
        if let Some(lane) = self.lock().next() {
            self.rung[lane as usize].notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A turn, or a place among those that wait for one; given back when it is dropped.
struct Turn {
    gate: Arc<Gate>,
    lane: Lane,
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
            self.gate.lock().give_back(self.lane, self.written);
        } else {
            self.gate.lock().leave(self.lane);
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
        let bulk = gate.turn(Lane::Bulk).await;
        let mut waits = std::pin::pin!(gate.turn(Lane::Delta));
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        {
            let mut gone = std::pin::pin!(gate.turn(Lane::CatchUp));
            assert!(futures_util::poll!(gone.as_mut()).is_pending());
        }
        bulk.end(MAX_SLICE_BYTES);
        waits.await.end(1);
        // Nobody waits any more, and the turn is free.
        gate.turn(Lane::AntiEntropy).await.end(1);
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
