//! Schedules: rates that hold at times of the day, UTC.
//!
//! The rule upheld here: time is an argument, so that every minute of a week can be tried.

use replication::budget::{LinkClass, Rate};

const DAY_S: u64 = 86_400;
const MINUTE_S: u64 = 60;
/// The first day of Unix time was a Thursday, three days after a Monday.
const FIRST_DAY: u64 = 3;

/// A rate in force at times.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Which links share it: those of a class; without one, all of the node.
    pub links: Option<LinkClass>,
    /// Whether a window begins on this day of the week, Monday first.
    pub days: [bool; 7],
    /// When it begins, in minutes after midnight UTC; less than a day.
    pub from_minutes: u16,
    /// When it ends: on the next day, where that is no later than it begins.
    pub to_minutes: u16,
    /// The rate; none is no limit.
    pub rate: Option<Rate>,
}

impl Schedule {
    /// When the window ends that it is now in.
    fn until_s(&self, unix_s: u64) -> Option<u64> {
        let today = unix_s / DAY_S;
        let window = |day: u64| {
            let at_s = |minutes: u16| day * DAY_S + u64::from(minutes) * MINUTE_S;
            let passes_midnight = self.to_minutes <= self.from_minutes;
            let until_s = at_s(self.to_minutes) + if passes_midnight { DAY_S } else { 0 };
            let is_in = (at_s(self.from_minutes)..until_s).contains(&unix_s);
            (is_in && self.days[((day + FIRST_DAY) % 7) as usize]).then_some(until_s)
        };
        // Yesterday's may last until today; today's ends later.
        window(today).or_else(|| window(today.checked_sub(1)?))
    }
}

/// The least rate that schedules put to these links now, and until when.
pub(super) fn least(schedules: &[Schedule], links: Option<LinkClass>, unix_s: u64) -> Option<(Rate, u64)> {
    let ours = schedules.iter().filter(|schedule| schedule.links == links);
    let in_force = ours.filter_map(|schedule| Some((schedule.rate?, schedule.until_s(unix_s)?)));
    // Of equal ones, the one that lasts longest.
    in_force.min_by_key(|(rate, until_s)| (*rate, u64::MAX - until_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 23 November 2026, 00:00 UTC.
    const MONDAY_S: u64 = 1_795_392_000;
    const WORKING: [bool; 7] = [true, true, true, true, true, false, false];
    const SATURDAY: [bool; 7] = [false, false, false, false, false, true, false];

    fn at(day: u64, hour: u64, minute: u64) -> u64 {
        MONDAY_S + day * DAY_S + hour * 3_600 + minute * MINUTE_S
    }

    fn schedule(days: [bool; 7], from_minutes: u16, to_minutes: u16) -> Schedule {
        Schedule { links: None, days, from_minutes, to_minutes, rate: Rate::new(1 << 20) }
    }

    #[test]
    fn a_window_holds_on_its_days_from_its_first_second_to_its_last() {
        let office = schedule(WORKING, 8 * 60, 20 * 60);
        let cases = [
            (at(0, 8, 0) - 1, None),
            (at(0, 8, 0), Some(at(0, 20, 0))),
            (at(0, 20, 0) - 1, Some(at(0, 20, 0))),
            (at(0, 20, 0), None),
            (at(4, 12, 0), Some(at(4, 20, 0))),
            (at(5, 12, 0), None),
            (at(6, 12, 0), None),
            (at(7, 12, 0), Some(at(7, 20, 0))),
        ];
        for (unix_s, until_s) in cases {
            assert_eq!(office.until_s(unix_s), until_s, "{unix_s}");
        }
    }

    #[test]
    fn a_window_that_passes_midnight_belongs_to_the_day_it_begins_on() {
        let night = schedule(SATURDAY, 22 * 60, 6 * 60);
        let cases = [
            (at(5, 5, 0), None),
            (at(5, 22, 0), Some(at(6, 6, 0))),
            (at(6, 0, 0), Some(at(6, 6, 0))),
            (at(6, 6, 0), None),
            (at(6, 23, 0), None),
        ];
        for (unix_s, until_s) in cases {
            assert_eq!(night.until_s(unix_s), until_s, "{unix_s}");
        }
        // To midnight is not past it.
        assert_eq!(schedule(SATURDAY, 0, 1_440).until_s(at(5, 23, 59)), Some(at(6, 0, 0)));
        assert_eq!(schedule(SATURDAY, 0, 1_440).until_s(at(6, 0, 0)), None);
        assert_eq!(schedule(SATURDAY, 60, 0).until_s(at(5, 23, 59)), Some(at(6, 0, 0)));
        assert_eq!(schedule([true; 7], 22 * 60, 6 * 60).until_s(0), None, "there is no day before the first");
    }

    #[test]
    fn the_least_of_those_in_force_counts_for_its_links_only() {
        let of = |links, rate: u64, to_hour: u16| Schedule {
            links,
            rate: Rate::new(rate),
            ..schedule([true; 7], 0, to_hour * 60)
        };
        let metered = Some(LinkClass::Metered);
        let schedules = [
            of(None, 5 << 20, 24),
            of(None, 2 << 20, 10),
            of(None, 2 << 20, 11),
            of(metered, 1 << 20, 24),
            Schedule { rate: None, ..of(Some(LinkClass::Region), 1 << 20, 24) },
        ];
        let rate = |rate: u64| Rate::new(rate).unwrap();
        assert_eq!(least(&schedules, None, at(0, 9, 0)), Some((rate(2 << 20), at(0, 11, 0))));
        assert_eq!(least(&schedules, None, at(0, 11, 0)), Some((rate(5 << 20), at(1, 0, 0))));
        assert_eq!(least(&schedules, metered, at(0, 9, 0)), Some((rate(1 << 20), at(1, 0, 0))));
        for links in [LinkClass::Region, LinkClass::InterRegion] {
            assert_eq!(least(&schedules, Some(links), at(0, 9, 0)), None);
        }
    }
}
