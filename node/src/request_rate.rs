//! How many requests a second are let through: a token bucket of one second's worth, kept as the one time at which it
//! will be full again (the virtual scheduling form of the generic cell rate algorithm, ITU-T I.371, annex A).
//!
//! The rule this file upholds: over any T seconds no more than rate x (T + 1) requests pass, and one that is refused
//! costs nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SECOND_NS: u64 = 1_000_000_000;

/// The bound of one token, or of one namespace, at this PoP.
#[derive(Debug)]
pub(crate) struct RequestRate {
    per_s: u64,
    full_at_ns: AtomicU64,
}

/// A request that was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more than {per_s} requests a second pass at each PoP; try again in {retry_after_s} s")]
pub(crate) struct TooMany {
    /// The bound.
    pub(crate) per_s: u64,
    /// When the next one passes, in whole seconds, at least 1.
    pub(crate) retry_after_s: u32,
}

impl RequestRate {
    /// So many a second, at least 1.
    pub(crate) fn new(per_s: u64) -> Self {
        Self { per_s: per_s.clamp(1, SECOND_NS), full_at_ns: AtomicU64::new(0) }
    }

    pub(crate) fn per_s(&self) -> u64 {
        self.per_s
    }

    /// Lets a request through now, or says when.
    pub(crate) fn take(&self) -> Result<(), TooMany> {
        static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.take_at(u64::try_from(STARTED.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn take_at(&self, now_ns: u64) -> Result<(), TooMany> {
        let one_ns = SECOND_NS.div_ceil(self.per_s);
        let burst_ns = one_ns * self.per_s;
        let next = |full_at_ns: u64| {
            let full_at_ns = full_at_ns.max(now_ns).saturating_add(one_ns);
            (full_at_ns - now_ns <= burst_ns).then_some(full_at_ns)
        };
        // Nothing else is ordered by it.
        let taken = self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(drop).map_err(|full_at_ns| {
            let wait_ns = full_at_ns.saturating_add(one_ns).saturating_sub(now_ns.saturating_add(burst_ns));
            let retry_after_s = u32::try_from(wait_ns.div_ceil(SECOND_NS)).unwrap_or(u32::MAX).max(1);
            TooMany { per_s: self.per_s, retry_after_s }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &RequestRate, at_ns: u64, tries: u64) -> u64 {
        (0..tries).filter(|_| rate.take_at(at_ns).is_ok()).count() as u64
    }

    #[test]
    fn a_second_is_worth_its_rate_at_once_and_then_as_time_passes() {
        for per_s in [1, 2, 3, 10, 1_000_000] {
            let rate = RequestRate::new(per_s);
            let begin_ns = 5 * SECOND_NS;
            assert_eq!(taken(&rate, begin_ns, per_s + 2), per_s, "{per_s}");
            assert_eq!(taken(&rate, begin_ns + SECOND_NS.div_ceil(per_s) - 1, 2), 0, "{per_s}");
            assert_eq!(taken(&rate, begin_ns + SECOND_NS.div_ceil(per_s), 2), 1, "{per_s}");
            assert_eq!(
                taken(&rate, begin_ns + 100 * SECOND_NS, per_s + 2),
                per_s,
                "{per_s}: pauses are not saved up"
            );
        }
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let rate = RequestRate::new(1);
        assert_eq!(rate.take_at(0), Ok(()));
        let refused = rate.take_at(1).unwrap_err();
        assert_eq!(refused, TooMany { per_s: 1, retry_after_s: 1 });
        assert_eq!(rate.take_at(u64::from(refused.retry_after_s) * SECOND_NS + 1), Ok(()));
    }
}
