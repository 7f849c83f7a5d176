//! Which losses are congestion.
//!
//! CUBIC (RFC 9438) takes each loss for congestion: with one datagram in two hundred lost and 80 ms of round trip it holds
//! a link at some 300 kB/s, whatever the link could carry. Lines across oceans lose that much by themselves. So a loss
//! counts only where it tells of a full queue: more than one in fifty is lost (the threshold of BBRv2, in
//! draft-cardwell-iccrg-bbr-congestion-control-02), or the round trip has grown beyond what it was.
//!
//! The rule this file upholds: what counts as congestion goes to CUBIC as it is, and what does not changes nothing.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// One byte lost in so many is no congestion.
const BEARABLE: u64 = 50;
/// Nor are so many bytes: among the first hundred packets of a link, three losses say nothing.
const FEW_BYTES: u64 = 3 * 1_500;
/// What is counted of acknowledged and lost bytes before both are halved, so that the latest weigh most.
const REMEMBERED_BYTES: u64 = 1 << 20;
/// The least round trip is that of the last one to two of these: a path may change.
const LEAST_OF: Duration = Duration::from_secs(5);
/// A queue shows when the round trip is longer by this part of itself, and by this time.
const LONGER_BY: u32 = 4;
const LONGER_BY_AT_LEAST: Duration = Duration::from_millis(10);

/// Makes the controllers of links.
#[derive(Debug, Default)]
pub(super) struct Tolerant {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for Tolerant {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = self.cubic.clone().build(now, current_mtu);
        Box::new(Control { cubic, path: PathSigns::default() })
    }
}

/// The controller of one link.
struct Control {
    cubic: Box<dyn Controller>,
    path: PathSigns,
}

/// What a path has shown lately.
#[derive(Clone, Debug, Default)]
struct PathSigns {
    acknowledged: u64,
    lost: u64,
    /// Smoothed.
    rtt: Duration,
    /// The least of the present time of [`LEAST_OF`], since when it lasts, and the least of the one before.
    least_rtt: Option<(Duration, Instant)>,
    least_rtt_before: Option<Duration>,
}

impl PathSigns {
    fn note_acknowledged(&mut self, now: Instant, bytes: u64, rtt: Duration) {
        self.rtt = rtt;
        self.least_rtt = match self.least_rtt {
            Some((least, since)) if now < since + LEAST_OF => Some((least.min(rtt), since)),
            over => {
                self.least_rtt_before = over.map(|(least, _)| least);
                Some((rtt, now))
            }
        };
        self.acknowledged += bytes;
        self.forget();
    }

    fn note_lost(&mut self, bytes: u64) {
        self.lost += bytes;
        self.forget();
    }

    fn forget(&mut self) {
        if self.acknowledged + self.lost > REMEMBERED_BYTES {
            (self.acknowledged, self.lost) = (self.acknowledged / 2, self.lost / 2);
        }
    }

    fn is_congested(&self) -> bool {
        let bearable = (self.acknowledged + self.lost) / BEARABLE + FEW_BYTES;
        let least = self.least_rtt.map(|(least, _)| least).into_iter().chain(self.least_rtt_before).min();
        let least = least.unwrap_or(self.rtt);
        let queue = self.rtt.saturating_sub(least);
        self.lost > bearable || queue > (least / LONGER_BY).max(LONGER_BY_AT_LEAST)
    }
}

impl Controller for Control {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.path.note_acknowledged(now, bytes, rtt.get());
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.path.note_lost(lost_bytes);
        // A router that marks instead of dropping means it: no bytes are lost then.
        if is_persistent_congestion || lost_bytes == 0 || self.path.is_congested() {
            self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), path: self.path.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1_200;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// So many packets, a millisecond apart, of which one in `one_in` is lost, over a path of 80 ms with a queue of so
    /// long at the end.
    fn path(packets: u64, one_in: u64, queue_ms: u64) -> PathSigns {
        let (mut path, start) = (PathSigns::default(), Instant::now());
        for number in 1..=packets {
            if number % one_in == 0 {
                path.note_lost(MTU);
            } else {
                let rtt = if number + 10 > packets { ms(80 + queue_ms) } else { ms(80) };
                path.note_acknowledged(start + ms(number), MTU, rtt);
            }
        }
        path
    }

    #[test]
    fn a_line_that_loses_some_is_not_congested_and_a_full_queue_is() {
        for (packets, one_in, queue_ms, is_congested) in [
            (10_000, 200, 0, false),
            (10_000, 100, 15, false),
            (10_000, 200, 25, true),
            (10_000, 25, 0, true),
            // The first of a link.
            (10, 5, 0, false),
            (20, 4, 0, true),
        ] {
            let path = path(packets, one_in, queue_ms);
            assert_eq!(path.is_congested(), is_congested, "{packets} {one_in} {queue_ms}: {path:?}");
        }
    }

    #[test]
    fn what_was_lost_long_ago_is_forgotten() {
        let mut path = path(1_000, 10, 0);
        assert!(path.is_congested());
        let start = Instant::now();
        for number in 0..4_000 {
            path.note_acknowledged(start + ms(number), MTU, ms(80));
        }
        assert!(!path.is_congested());
    }

    /// A link that was up before its path became longer took each loss for congestion, for ever.
    #[test]
    fn a_path_that_becomes_longer_is_not_congested_for_ever() {
        let (mut path, start) = (PathSigns::default(), Instant::now());
        path.note_acknowledged(start, MTU, ms(1));
        for (after_s, is_congested) in [(1, true), (6, true), (11, false), (16, false)] {
            path.note_acknowledged(start + Duration::from_secs(after_s), MTU, ms(80));
            assert_eq!(path.is_congested(), is_congested, "after {after_s} s: {path:?}");
        }
    }

    #[test]
    fn cubic_hears_of_congestion_and_of_nothing_else() {
        let now = Instant::now();
        let window_after = |lost_bytes, is_persistent| {
            let mut control = Arc::new(Tolerant::default()).build(now, 1_200);
            let before = control.window();
            control.on_congestion_event(now, now, is_persistent, lost_bytes);
            control.window() as f64 / before as f64
        };
        assert!((window_after(MTU, false) - 1.0).abs() < 0.01, "one of the first is lost");
        assert!(window_after(10 * MTU, false) < 0.8, "many are");
        assert!(window_after(0, false) < 0.8, "a router marks");
        assert!(window_after(MTU, true) < 0.5, "nothing arrives any more");
    }
}
