//! When backlogs will be gone: by the pace at which each of them shrinks, new writes counted in.
//!
//! The rule upheld here: the clock is an argument, and what is told follows from the lags that were seen alone. The
//! more often lags are asked for, the sooner a change of pace shows; once a second, as metrics do, is enough.

use std::collections::BTreeMap;

use littoral::api::Lag;

use crate::smoothed::Smoothed;

/// A pace is a mean over about this long.
const PACE_OVER_S: f64 = 10.0;
/// A pace is told once it was seen for so long.
const MIN_SEEN_S: f64 = 1.0;
/// Lags that are asked for again sooner than this are not compared.
const MIN_ELAPSED_US: u64 = 200_000;
/// What is behind for less long than this is on its way, and no backlog: while writes go on, there is always some.
const ON_ITS_WAY_MS: u64 = 1_000;
/// What takes longer than a year comes never.
const MAX_GONE_IN_MS: u128 = 365 * 86_400_000;

/// What is known of the backlogs, by (origin, peer).
#[derive(Default)]
pub(super) struct Forecasts {
    backlogs: BTreeMap<(String, String), Backlog>,
}

struct Backlog {
    bytes: u64,
    seen_us: u64,
    shrinks: Smoothed,
}

impl Forecasts {
    /// Tells of each of these lags when it will be gone. They are all that there are at this time. `budget` is how many
    /// bytes a second may be sent to a peer that is behind, where that is known: what is told before a pace is.
    pub(super) fn tell(&mut self, now_us: u64, lags: &mut [Lag], budget: impl Fn(&Lag) -> Option<u64>) {
        let mut before = std::mem::take(&mut self.backlogs);
        for lag in lags {
            if lag.ops == 0 {
                (lag.shrinks_bytes_per_s, lag.gone_in_ms) = (None, Some(0));
                continue;
            }
            let pair = (lag.origin.clone(), lag.peer.clone());
            let fresh = Backlog { bytes: lag.bytes, seen_us: now_us, shrinks: Smoothed::over_s(PACE_OVER_S) };
            let mut backlog = before.remove(&pair).unwrap_or(fresh);
            backlog.see(now_us, lag.bytes);
            let pace = backlog.shrinks.per_s(MIN_SEEN_S).map(|pace| pace as i64);
            lag.shrinks_bytes_per_s = pace;
            lag.gone_in_ms = match pace.or_else(|| budget(lag)?.try_into().ok()) {
                // It took this long to get where it is, and will take as long again.
                _ if lag.time_ms < ON_ITS_WAY_MS => Some(lag.time_ms),
                Some(pace) => gone_in_ms(lag.bytes, pace),
                None => None,
            };
            self.backlogs.insert(pair, backlog);
        }
    }
}

impl Backlog {
    fn see(&mut self, now_us: u64, bytes: u64) {
        let elapsed_us = now_us.saturating_sub(self.seen_us);
        if elapsed_us >= MIN_ELAPSED_US {
            self.shrinks.add(self.bytes as f64 - bytes as f64, elapsed_us as f64 / 1e6);
            (self.bytes, self.seen_us) = (bytes, now_us);
        }
    }
}

/// At this pace; `None` is never.
fn gone_in_ms(bytes: u64, pace: i64) -> Option<u64> {
    let pace = u128::try_from(pace).ok().filter(|pace| *pace > 0)?;
    let gone_in_ms = u128::from(bytes) * 1_000 / pace;
    u64::try_from(gone_in_ms).ok().filter(|_| gone_in_ms <= MAX_GONE_IN_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(bytes: u64) -> Lag {
        let (origin, peer) = ("fra".into(), "sin".into());
        Lag { origin, peer, ops: bytes.div_ceil(100), bytes, time_ms: 5_000, ..Lag::default() }
    }

    /// Tells of a backlog at each second, the first at 0.
    fn tell_each_second(forecasts: &mut Forecasts, bytes: impl IntoIterator<Item = u64>) -> Vec<Lag> {
        let each = bytes.into_iter().zip(0_u64..).map(|(bytes, second)| {
            let mut lags = [lag(bytes)];
            forecasts.tell(second * 1_000_000, &mut lags, |_| None);
            let [lag] = lags;
            lag
        });
        each.collect()
    }

    #[track_caller]
    fn check(lag: &Lag, pace: i64, gone_in_ms: Option<u64>) {
        let near = |found: i64, wanted: i64| found.abs_diff(wanted) <= wanted.unsigned_abs() / 50 + 1;
        assert!(lag.shrinks_bytes_per_s.is_some_and(|found| near(found, pace)), "{pace}: {lag:?}");
        match (lag.gone_in_ms, gone_in_ms) {
            (None, None) => {}
            (Some(found), Some(wanted)) if near(found as i64, wanted as i64) => {}
            _ => panic!("{gone_in_ms:?}: {lag:?}"),
        }
    }

    #[test]
    fn a_backlog_that_shrinks_evenly_is_gone_when_it_says() {
        let all =
            tell_each_second(&mut Forecasts::default(), (0..30).map(|second| 1_000_000 - second * 20_000));
        assert_eq!((all[0].shrinks_bytes_per_s, all[0].gone_in_ms), (None, None), "nothing is known yet");
        check(&all[1], 20_000, Some(49_000));
        check(&all[29], 20_000, Some(21_000));
    }

    #[test]
    fn new_writes_count_and_one_that_grows_or_stands_is_never_gone() {
        // 50,000 bytes a second are sent, and 30,000 written.
        let all =
            tell_each_second(&mut Forecasts::default(), (0..20).map(|s| 900_000 + s * 30_000 - s * 50_000));
        check(&all[19], 20_000, Some(26_000));
        let all = tell_each_second(&mut Forecasts::default(), (0..20).map(|s| 900_000 + s * 1_000));
        check(&all[19], -1_000, None);
        let all = tell_each_second(&mut Forecasts::default(), [900_000; 20]);
        check(&all[19], 0, None);
    }

    #[test]
    fn a_change_of_pace_shows_within_some_seconds() {
        let grows = (0..20).map(|second| 1_000_000 + second * 20_000);
        let shrinks = (0..40).map(|second| 1_400_000 - second * 20_000);
        let all = tell_each_second(&mut Forecasts::default(), grows.chain(shrinks));
        check(&all[19], -20_000, None);
        assert_eq!(all[24].gone_in_ms, None, "half of what is remembered");
        assert!(all[30].gone_in_ms.is_some(), "{:?}", all[30]);
        check(&all[59], 19_300, Some(32_000));
    }

    #[test]
    fn before_a_pace_is_known_the_budget_tells() {
        let mut forecasts = Forecasts::default();
        let mut tell = |now_us, budget: Option<u64>| {
            let mut lags = [lag(1_000_000)];
            forecasts.tell(now_us, &mut lags, |lag| budget.filter(|_| lag.peer == "sin"));
            (lags[0].shrinks_bytes_per_s, lags[0].gone_in_ms)
        };
        assert_eq!(tell(0, None), (None, None));
        assert_eq!(tell(100_000, Some(100_000)), (None, Some(10_000)));
        assert_eq!(tell(900_000, Some(50_000)), (None, Some(20_000)));
        assert_eq!(tell(2_000_000, Some(50_000)), (Some(0), None), "it does not shrink, whatever the budget");
    }

    #[test]
    fn what_is_on_its_way_is_no_backlog_and_nothing_behind_is_gone() {
        let mut forecasts = Forecasts::default();
        for (now_us, time_ms, gone_in_ms) in
            [(0, 80, Some(80)), (1_000_000, 999, Some(999)), (2_000_000, 1_000, None)]
        {
            let mut lags = [Lag { time_ms, ..lag(5_000) }];
            forecasts.tell(now_us, &mut lags, |_| None);
            assert_eq!(lags[0].gone_in_ms, gone_in_ms, "{time_ms}");
        }
        let mut lags = [Lag { ops: 0, bytes: 0, time_ms: 0, ..lag(0) }];
        forecasts.tell(3_000_000, &mut lags, |_| None);
        assert_eq!((lags[0].gone_in_ms, lags[0].shrinks_bytes_per_s), (Some(0), None));
        assert!(forecasts.backlogs.is_empty(), "what was is forgotten");
        forecasts.tell(4_000_000, &mut [lag(7)], |_| None);
        forecasts.tell(5_000_000, &mut [], |_| None);
        assert!(forecasts.backlogs.is_empty(), "nor is a pair remembered that is gone");
    }

    #[test]
    fn what_takes_years_comes_never() {
        let year_s = 365 * 86_400;
        assert_eq!(gone_in_ms(year_s, 1), Some(year_s * 1_000));
        assert_eq!(gone_in_ms(year_s + 1, 1), None);
        assert_eq!(gone_in_ms(u64::MAX, i64::MAX), Some(2_000));
        assert_eq!((gone_in_ms(5, 0), gone_in_ms(5, i64::MIN)), (None, None));
    }
}
