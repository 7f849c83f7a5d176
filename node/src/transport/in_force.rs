//! Which rate is in force, and why: the least of what is set, what schedules say, and what a used-up cap leaves.
//!
//! The rule upheld here: clocks and counts are arguments, and nothing is decided anywhere else.

use std::collections::{BTreeMap, BTreeSet};

use replication::budget::{Burst, LinkClass, Rate};

use super::month::{Months, PerLinks, month_of};
use super::schedule::{self, Schedule};
use crate::smoothed::Smoothed;

/// The present pace is a mean over about this long: what is sent for a moment is no pace.
const PACE_OVER_S: f64 = 3_600.0;

/// The parts of a cap, in percent, at which a word is due when they are passed.
const TOLD_PERCENT: [u64; 2] = [100, 80];

/// The budgets that a node starts with; absent ones are unlimited.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// Of links together, as they are set.
    pub base: PerLinks<Option<Rate>>,
    /// Of the link to a PoP.
    pub pops: BTreeMap<String, Rate>,
    /// PoPs whose bytes are paid for one by one.
    pub metered: BTreeSet<String>,
    /// Lesser rates at times.
    pub schedules: Vec<Schedule>,
    /// What may be sent in a calendar month (UTC), in bytes on the wire.
    pub caps: PerLinks<Option<u64>>,
    /// The rate once a cap is used up.
    pub beyond_cap: Option<Rate>,
    /// What may go at once after a pause, of each.
    pub burst: Burst,
    /// What was sent before the node started.
    pub months: Months,
}

/// A rate, and what made it that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The rate; without one there is no limit.
    pub rate: Option<Rate>,
    /// What made it that.
    pub why: Why,
}

/// What makes a rate the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is what is set.
    Base,
    /// A schedule.
    Schedule {
        /// The end of its window, in Unix seconds.
        until_s: u64,
    },
    /// The monthly cap is used up.
    MonthlyCap,
}

/// What was sent in the present month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonthView {
    /// The month, such as `2026-11`.
    pub name: String,
    /// Bytes on the wire.
    pub sent_bytes: u64,
    /// How many it may be.
    pub cap_bytes: Option<u64>,
    /// When the cap will be used up at the pace of the last hour, in Unix seconds; nothing where it will not be this
    /// month, or is already.
    pub used_up_at_s: Option<u64>,
}

/// A part of a cap that was passed since the last review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whose cap: of links of a class; without one, of the node.
    pub links: Option<LinkClass>,
    /// The part, in percent: 80 or 100.
    pub percent: u64,
    /// What was sent this month, in bytes.
    pub sent_bytes: u64,
    /// The cap, in bytes.
    pub cap_bytes: u64,
}

/// What holds budgets down at this time.
#[derive(Debug)]
pub(super) struct Bounds {
    schedules: Vec<Schedule>,
    caps: PerLinks<Option<u64>>,
    beyond_cap: Option<Rate>,
    months: Months,
    /// What of the meters' totals is counted.
    counted: PerLinks<u64>,
    paces: PerLinks<Smoothed>,
    /// The part of each cap that was passed last.
    told_percent: PerLinks<u64>,
    /// The present month, and its end.
    month: (String, u64),
    unix_s: u64,
    /// The last review, by a clock that only rises.
    reviewed_us: u64,
}

impl Bounds {
    pub(super) fn new(budgets: &Budgets) -> Self {
        Self {
            schedules: budgets.schedules.clone(),
            caps: budgets.caps,
            beyond_cap: budgets.beyond_cap,
            months: budgets.months.clone(),
            counted: PerLinks::default(),
            paces: PerLinks::each(|_| Smoothed::over_s(PACE_OVER_S)),
            told_percent: PerLinks::default(),
            month: month_of(0),
            unix_s: 0,
            reviewed_us: 0,
        }
    }

    /// Counts what was sent since the last review, and tells which parts of caps that has passed. `totals` only rise.
    pub(super) fn review(&mut self, now_us: u64, unix_s: u64, totals: PerLinks<u64>) -> Vec<Passed> {
        let elapsed_s = now_us.saturating_sub(self.reviewed_us) as f64 / 1e6;
        (self.reviewed_us, self.unix_s) = (now_us, unix_s);
        let month = month_of(unix_s);
        if month != self.month {
            (self.month, self.told_percent) = (month, PerLinks::default());
        }
        let mut passed = Vec::new();
        for links in PerLinks::<u64>::ALL {
            let bytes = totals.of(links).saturating_sub(*self.counted.of(links));
            self.months.count(&self.month.0, links, bytes);
            self.paces.of_mut(links).add(bytes as f64, elapsed_s);
            passed.extend(self.passed(links));
        }
        self.counted = totals;
        passed
    }

    /// The greatest part of the cap that is passed, and was not when this was last asked.
    fn passed(&mut self, links: Option<LinkClass>) -> Option<Passed> {
        let (sent_bytes, cap_bytes) = (self.sent_bytes(links), (*self.caps.of(links))?);
        let is_passed = |percent: &u64| u128::from(sent_bytes) * 100 >= u128::from(cap_bytes * percent);
        let percent = TOLD_PERCENT.into_iter().find(is_passed)?;
        let told = self.told_percent.of_mut(links);
        let is_new = percent > *told;
        *told = percent;
        is_new.then_some(Passed { links, percent, sent_bytes, cap_bytes })
    }

    /// The rate for these links, where `base` is what is set.
    pub(super) fn in_force(&self, links: Option<LinkClass>, base: Option<Rate>) -> InForce {
        let cap = self.beyond_cap.filter(|_| self.is_used_up(links));
        let scheduled = schedule::least(&self.schedules, links, self.unix_s);
        let rates = [
            base.map(|rate| (rate, Why::Base)),
            cap.map(|rate| (rate, Why::MonthlyCap)),
            scheduled.map(|(rate, until_s)| (rate, Why::Schedule { until_s })),
        ];
        // Of equal ones the first, which lasts longest.
        match rates.into_iter().flatten().min_by_key(|(rate, _)| *rate) {
            Some((rate, why)) => InForce { rate: Some(rate), why },
            None => InForce { rate: None, why: Why::Base },
        }
    }

    /// What was sent over these links this month.
    pub(super) fn month(&self, links: Option<LinkClass>) -> MonthView {
        MonthView {
            name: self.month.0.clone(),
            sent_bytes: self.sent_bytes(links),
            cap_bytes: *self.caps.of(links),
            used_up_at_s: self.used_up_at_s(links),
        }
    }

    /// What was sent in all months that are known.
    pub(super) fn months(&self) -> &Months {
        &self.months
    }

    fn sent_bytes(&self, links: Option<LinkClass>) -> u64 {
        *self.months.sent(&self.month.0).of(links)
    }

    fn is_used_up(&self, links: Option<LinkClass>) -> bool {
        self.caps.of(links).is_some_and(|cap_bytes| self.sent_bytes(links) >= cap_bytes)
    }

    fn used_up_at_s(&self, links: Option<LinkClass>) -> Option<u64> {
        let left_bytes =
            (*self.caps.of(links))?.checked_sub(self.sent_bytes(links)).filter(|left| *left > 0)?;
        let pace = self.paces.of(links).per_s(1.0).filter(|pace| *pace > 0.0)?;
        // A conversion from a float ends at the greatest number.
        let at_s = self.unix_s.saturating_add((left_bytes as f64 / pace) as u64);
        (at_s < self.month.1).then_some(at_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METERED: Option<LinkClass> = Some(LinkClass::Metered);
    /// Sunday, 22 November 2026, 12:00 UTC.
    const NOON_S: u64 = 1_795_348_800;
    const DAY_S: u64 = 86_400;

    fn rate(bytes_per_s: u64) -> Option<Rate> {
        Rate::new(bytes_per_s)
    }

    fn metered(bytes: u64) -> PerLinks<u64> {
        PerLinks { node: bytes, metered: bytes, ..PerLinks::default() }
    }

    fn bounds(schedules: Vec<Schedule>, cap_bytes: u64) -> Bounds {
        let caps = PerLinks { metered: Some(cap_bytes), ..PerLinks::default() };
        Bounds::new(&Budgets { schedules, caps, beyond_cap: rate(20_000), ..Budgets::default() })
    }

    #[test]
    fn the_least_of_base_schedule_and_what_a_cap_leaves_is_in_force_with_its_reason() {
        let from_eleven = |rate| Schedule {
            links: METERED,
            days: [true; 7],
            from_minutes: 11 * 60,
            to_minutes: 13 * 60,
            rate,
        };
        let by_schedule = Why::Schedule { until_s: NOON_S + 3_600 };
        let cases = [
            (None, None, 0, None, Why::Base),
            (rate(50_000), None, 0, rate(50_000), Why::Base),
            (rate(50_000), rate(40_000), 0, rate(40_000), by_schedule),
            (None, rate(40_000), 0, rate(40_000), by_schedule),
            (rate(30_000), rate(40_000), 0, rate(30_000), Why::Base),
            (rate(40_000), rate(40_000), 0, rate(40_000), Why::Base),
            (rate(50_000), rate(40_000), 999, rate(40_000), by_schedule),
            (rate(50_000), rate(40_000), 1_000, rate(20_000), Why::MonthlyCap),
            (None, None, 1_000, rate(20_000), Why::MonthlyCap),
            (rate(50_000), rate(18_000), 1_000, rate(18_000), by_schedule),
            (rate(17_000), None, 1_000, rate(17_000), Why::Base),
        ];
        for (base, scheduled, sent, in_force, why) in cases {
            let mut bounds = bounds(vec![from_eleven(scheduled)], 1_000);
            bounds.review(0, NOON_S, metered(sent));
            assert_eq!(bounds.in_force(METERED, base), InForce { rate: in_force, why }, "{base:?} {sent}");
            assert_eq!(bounds.in_force(None, base), InForce { rate: base, why: Why::Base });
        }
    }

    #[test]
    fn a_used_up_cap_holds_to_the_end_of_the_month_and_over_a_restart() {
        let mut before = bounds(Vec::new(), 1_000);
        before.review(0, NOON_S, metered(600));
        let caps = PerLinks { metered: Some(1_000), ..PerLinks::default() };
        let months = before.months().clone();
        let mut bounds =
            Bounds::new(&Budgets { caps, beyond_cap: rate(20_000), months, ..Budgets::default() });
        bounds.review(0, NOON_S, metered(399));
        assert_eq!(bounds.in_force(METERED, None).why, Why::Base);
        bounds.review(1, NOON_S + 1, metered(400));
        let month = bounds.month(METERED);
        assert_eq!((month.sent_bytes, month.cap_bytes, month.name.as_str()), (1_000, Some(1_000), "2026-11"));
        let last_s = month_of(NOON_S).1 - 1;
        bounds.review(2, last_s, metered(400));
        assert_eq!(bounds.in_force(METERED, None).why, Why::MonthlyCap);
        bounds.review(3, last_s + 1, metered(400));
        assert_eq!(bounds.in_force(METERED, None).why, Why::Base);
        assert_eq!((bounds.month(METERED).sent_bytes, bounds.month(METERED).name.as_str()), (0, "2026-12"));
    }

    #[test]
    fn each_part_of_a_cap_is_told_of_once_a_month() {
        let mut bounds = bounds(Vec::new(), 1_000);
        let mut told = |total: u64, unix_s: u64| {
            let passed = bounds.review(0, unix_s, metered(total));
            passed.iter().map(|passed| (passed.links, passed.percent)).collect::<Vec<_>>()
        };
        for (total, percent) in [(799, None), (800, Some(80)), (999, None), (1_000, Some(100)), (5_000, None)]
        {
            assert_eq!(
                told(total, NOON_S),
                Vec::from_iter(percent.map(|percent| (METERED, percent))),
                "{total}"
            );
        }
        assert_eq!(told(5_700, NOON_S + 10 * DAY_S), [], "a new month");
        assert_eq!(told(9_000, NOON_S + 10 * DAY_S), [(METERED, 100)], "both at once are told as one");
    }

    #[test]
    fn it_is_told_when_a_cap_will_be_used_up_at_the_present_pace() {
        let per_day = |bytes_per_s: u64, cap_bytes: u64| {
            let mut bounds = bounds(Vec::new(), cap_bytes);
            for second in 0..600 {
                bounds.review(second * 1_000_000, NOON_S + second, metered(second * bytes_per_s));
            }
            (bounds.month(METERED).used_up_at_s, bounds.month(None).used_up_at_s)
        };
        let (at_s, of_the_node) = per_day(1_000, 1_000 * DAY_S);
        assert!(at_s.is_some_and(|at_s| at_s.abs_diff(NOON_S + DAY_S) < 60), "{at_s:?}");
        assert_eq!(of_the_node, None, "it has no cap");
        assert_eq!(per_day(1_000, 1_000 * DAY_S * 10).0, None, "not this month");
        assert_eq!(per_day(0, 1_000).0, None, "nothing is sent");
        assert_eq!(per_day(1_000, 1_000).0, None, "it is used up already");
    }
}
