//! Whether this replica's clock is right, by what its peers' clocks say.
//!
//! A heartbeat tells the sender's time, and the round trip bounds how wrong that is by now (as in the Network Time
//! Protocol, RFC 5905 section 8). Only what is certain counts: behind a full link a heartbeat may wait for a second,
//! and a clock that is right must not be called wrong for it.

use super::{MAX_AHEAD_MS, Replica};
use crate::clock::Now;
use crate::store::Store;

/// A replica whose clock is further than this from its peers' median refuses writes: its events would
/// win or lose merges they should not.
pub const CLOCK_SKEW_LIMIT_MS: u64 = 400;

/// What a heartbeat told of a peer's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockSample {
    /// Its wall clock less ours, if both ways took as long.
    pub(super) offset_ms: i64,
    /// They may not have: it is wrong by at most half the round trip.
    error_ms: i64,
}

impl ClockSample {
    pub(super) fn of(now: Now, their_wall_ms: u64, rtt_us: u64) -> Self {
        let half_way_ms = (rtt_us / 2_000) as i64;
        // A peer may say anything of its clock.
        let theirs_ms = (their_wall_ms as i64).saturating_add(half_way_ms);
        Self { offset_ms: theirs_ms.saturating_sub(now.wall_ms as i64), error_ms: half_way_ms }
    }

    /// By how much the clocks differ at least. A heartbeat that waited behind other traffic proves less.
    fn least_offset_ms(self) -> i64 {
        match self.offset_ms {
            ..0 => self.offset_ms.saturating_add(self.error_ms).min(0),
            0.. => self.offset_ms.saturating_sub(self.error_ms).max(0),
        }
    }
}

impl<S: Store> Replica<S> {
    /// By how much this replica's clock is at least ahead of the median of all clocks it sees, its own included: so one
    /// wrong clock among three is the one that stands out.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        let connected = self.peers.values().filter(|peer| peer.connected);
        let mut offsets: Vec<i64> =
            connected.filter_map(|peer| Some(peer.clock?.least_offset_ms())).collect();
        offsets.push(0);
        offsets.sort_by_key(|offset| (*offset, offset.unsigned_abs()));
        let (low, high) = (offsets[(offsets.len() - 1) / 2], offsets[offsets.len() / 2]);
        // Of two middle ones, the one nearer to us: two replicas that disagree both go on.
        let median = if low.unsigned_abs() <= high.unsigned_abs() { low } else { high };
        (offsets.len() > 1).then_some(median.saturating_neg())
    }

    /// Whether our clock is further from the others' than writes may be.
    pub(super) fn is_clock_off(&self, now: Now) -> bool {
        let skew_ms = self.clock_skew_ms().unwrap_or(0);
        skew_ms.unsigned_abs() > CLOCK_SKEW_LIMIT_MS
            || self.clock.last().wall_ms().saturating_sub(now.wall_ms) > MAX_AHEAD_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_proves_as_much_as_its_round_trip_allows() {
        let now = Now { wall_ms: 10_000, mono_us: 0 };
        for (their_wall_ms, rtt_us, least_ms) in [
            (10_000, 0, 0),
            (10_600, 0, 600),
            (9_400, 0, -600),
            // It lay in a queue of ours for a second, and was up to date when it was sent.
            (9_000, 1_000_000, 0),
            // Or in one of theirs.
            (10_000, 1_000_000, 0),
            (20_000, 1_000_000, 10_000),
            (0, 1_000_000, -9_000),
            (u64::MAX, u64::MAX, 0),
        ] {
            let sample = ClockSample::of(now, their_wall_ms, rtt_us);
            assert_eq!(sample.least_offset_ms(), least_ms, "{their_wall_ms} {rtt_us}");
        }
    }
}
