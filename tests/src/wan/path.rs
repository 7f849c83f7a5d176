//! One direction between two sites: when a packet that is sent now arrives, if it does. Pure: the time is an argument
//! and chance has a seed. Packets of a path never overtake one another, as on one line through one router.

use std::time::Duration;

use crate::random::Random;

/// What a path does to packets. The default passes them on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a packet takes, beside its wait for the line.
    pub delay: Duration,
    /// Up to this much more, drawn evenly for each packet.
    pub jitter: Duration,
    /// How many of 1,000 packets vanish.
    pub loss_permille: u64,
    /// The line's bytes a second; `None` is as fast as the machine.
    pub rate_bytes_per_s: Option<u64>,
    /// How many bytes may wait for the line; a packet that finds no room is dropped. Without a rate nothing waits.
    pub queue_bytes: u64,
    /// Nothing passes, and what was on its way is lost.
    pub is_cut: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss_permille: 0,
            rate_bytes_per_s: None,
            queue_bytes: 64 << 10,
            is_cut: false,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives then, if the path is not cut in the meantime.
    Arrives(Duration),
    /// It is lost by chance.
    Lost,
    /// The queue has no room.
    Overflows,
    /// The path is cut.
    Cut,
}

/// The state of one direction.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// What holds from the next packet on.
    pub terms: Terms,
    random: Random,
    /// When the bucket is full again; a packet leaves as soon as that is no further away than filling it takes.
    paid_at: Duration,
    /// When the newest packet arrives.
    last_arrival: Duration,
}

/// The bytes that a line which was idle sends at once: the depth of its token bucket, two full packets.
const BURST_BYTES: u64 = 3_000;

impl Path {
    /// A path without delay, loss or limit.
    pub(super) fn new(seed: u64) -> Self {
        let terms = Terms::default();
        Self { terms, random: Random::new(seed), paid_at: Duration::ZERO, last_arrival: Duration::ZERO }
    }

    /// Sends a packet of so many bytes, now.
    pub(super) fn send(&mut self, now: Duration, bytes: usize) -> Fate {
        let terms = self.terms;
        if terms.is_cut {
            return Fate::Cut;
        }
        let mut leaves = now;
        if let Some(rate) = terms.rate_bytes_per_s {
            let paid_at = self.paid_at.max(now) + time_for(bytes as u64, rate);
            let wait = paid_at.saturating_sub(now + time_for(BURST_BYTES, rate));
            if wait > time_for(terms.queue_bytes + bytes as u64, rate) {
                return Fate::Overflows;
            }
            self.paid_at = paid_at;
            leaves = now + wait;
        }
        // Drawn behind the line: what is lost on the way has used it.
        if self.random.permille(terms.loss_permille) {
            return Fate::Lost;
        }
        let jitter = Duration::from_nanos(match terms.jitter.as_nanos() as u64 {
            0 => 0,
            most => self.random.below(most + 1),
        });
        self.last_arrival = self.last_arrival.max(leaves + terms.delay + jitter);
        Fate::Arrives(self.last_arrival)
    }

    /// Cuts the path or heals it. A cut also forgets what waits for the line.
    pub(super) fn cut(&mut self, is_cut: bool) {
        self.terms.is_cut = is_cut;
        if is_cut {
            (self.paid_at, self.last_arrival) = (Duration::ZERO, Duration::ZERO);
        }
    }

    /// Whether a packet that was on its way since the terms were last changed still arrives.
    pub(super) fn is_open(&self) -> bool {
        !self.terms.is_cut
    }
}

fn time_for(bytes: u64, bytes_per_s: u64) -> Duration {
    Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1))) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends so many packets of 1,000 bytes, one each `pause`.
    fn check(terms: Terms, packets: u32, pause: Duration) -> Vec<Fate> {
        let mut path = Path::new(7);
        path.terms = terms;
        (0..packets).map(|packet| path.send(pause * packet, 1_000)).collect()
    }

    #[test]
    fn a_packet_takes_the_delay_and_at_most_the_jitter_more() {
        let terms = Terms { delay: 40 * MS, jitter: 5 * MS, ..Terms::default() };
        let mut last = Duration::ZERO;
        for (packet, fate) in check(terms, 1_000, MS / 2).into_iter().enumerate() {
            let sent = MS / 2 * packet as u32;
            let Fate::Arrives(at) = fate else { panic!("packet {packet}: {fate:?}") };
            assert!((sent + 40 * MS..=sent + 45 * MS).contains(&at), "sent {sent:?}, arrives {at:?}");
            assert!(at >= last, "packet {packet} overtakes the one before");
            last = at;
        }
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_asked_for() {
        for loss_permille in [0, 5, 200, 1_000] {
            let fates = check(Terms { loss_permille, ..Terms::default() }, 100_000, MS);
            let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count() as f64 / 100.0;
            let (least, most) = (loss_permille as f64 * 0.8, loss_permille as f64 * 1.2);
            assert!((least..=most).contains(&lost), "{lost} of 1,000 for {loss_permille}");
        }
    }

    #[test]
    fn a_line_sends_a_burst_and_then_its_rate_and_drops_what_its_queue_has_no_room_for() {
        let terms = Terms { rate_bytes_per_s: Some(1_000_000), queue_bytes: 10_000, ..Terms::default() };
        // All at once: three packets are the burst, one is being sent, and ten wait.
        let fates = check(terms, 20, Duration::ZERO);
        let arrives = |fate: &Fate| matches!(fate, Fate::Arrives(_));
        assert_eq!(fates.iter().filter(|fate| arrives(fate)).count(), 14, "{fates:?}");
        assert_eq!(fates[19], Fate::Overflows);
        assert_eq!(fates[13], Fate::Arrives(11 * MS), "behind ten others, 1 ms each");
        // Twice the rate for a second: half of it arrives, and what was queued.
        let fates = check(terms, 2_000, MS / 2);
        let arrived = fates.iter().filter(|fate| arrives(fate)).count();
        assert!((1_000..=1_020).contains(&arrived), "{arrived} of 2,000 arrive");
    }

    #[test]
    fn nothing_is_sent_into_a_cut_path_and_all_into_a_healed_one() {
        let mut path = Path::new(7);
        path.cut(true);
        assert_eq!(path.send(MS, 100), Fate::Cut);
        assert!(!path.is_open());
        path.cut(false);
        assert_eq!(path.send(MS, 100), Fate::Arrives(MS));
        assert!(path.is_open());
    }
}
