//! How many bytes, and how many a second of late.

/// Seconds over which a rate is taken.
const WINDOW_S: u64 = 10;

/// Counts bytes; seconds are of one clock that only rises.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    total: u64,
    /// The bytes of the last seconds, each at its second modulo the window.
    seconds: [u64; WINDOW_S as usize],
    /// The second counted in last.
    last_s: u64,
    /// The first second of all, where one was counted.
    first_s: Option<u64>,
}

impl Meter {
    pub(super) fn count(&mut self, now_s: u64, bytes: u64) {
        self.first_s.get_or_insert(now_s);
        self.forget(now_s);
        self.total += bytes;
        self.seconds[(now_s % WINDOW_S) as usize] += bytes;
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.total
    }

    /// The mean over the last whole seconds, of those since the first was counted.
    pub(super) fn bytes_per_s(&self, now_s: u64) -> u64 {
        let mut seen = self.clone();
        seen.forget(now_s);
        let whole_s = now_s.saturating_sub(self.first_s.unwrap_or(now_s)).min(WINDOW_S - 1);
        let present = seen.seconds[(now_s % WINDOW_S) as usize];
        (seen.seconds.iter().sum::<u64>() - present).checked_div(whole_s).unwrap_or(0)
    }

    /// Empties the seconds that have passed since the last.
    fn forget(&mut self, now_s: u64) {
        for second in (self.last_s + 1..=now_s).rev().take(WINDOW_S as usize) {
            self.seconds[(second % WINDOW_S) as usize] = 0;
        }
        self.last_s = self.last_s.max(now_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_mean_of_the_last_whole_seconds() {
        let mut meter = Meter::default();
        assert_eq!((meter.bytes_per_s(5), meter.total_bytes()), (0, 0));
        for second in 100..104 {
            meter.count(second, 600);
            meter.count(second, 400);
        }
        assert_eq!(meter.bytes_per_s(104), 1_000);
        assert_eq!(meter.bytes_per_s(108), 500);
        assert_eq!(meter.bytes_per_s(112), 1_000 / 9);
        assert_eq!((meter.bytes_per_s(113), meter.bytes_per_s(1_000_000)), (0, 0));
        meter.count(1_000_000, 90);
        assert_eq!((meter.bytes_per_s(1_000_001), meter.total_bytes()), (10, 4_090));
    }
}
