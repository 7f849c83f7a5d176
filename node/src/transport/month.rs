//! What was sent in each calendar month, UTC.

use std::collections::BTreeMap;

use replication::budget::LinkClass;
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};

/// The most months that are kept: the oldest go first.
pub const MAX_MONTHS: usize = 13;

/// One for all links of the node together, and one for those of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerLinks<T> {
    /// All links of the node.
    pub node: T,
    /// Those inside its region.
    pub region: T,
    /// Those to other regions.
    pub inter_region: T,
    /// Those whose bytes are paid for one by one.
    pub metered: T,
}

impl<T> PerLinks<T> {
    /// Each kind of links: all of the node, then the classes.
    pub const ALL: [Option<LinkClass>; 1 + LinkClass::ALL.len()] =
        [None, Some(LinkClass::Region), Some(LinkClass::InterRegion), Some(LinkClass::Metered)];

    /// That of a class; without one, of the node.
    pub fn of(&self, links: Option<LinkClass>) -> &T {
        match links {
            None => &self.node,
            Some(LinkClass::Region) => &self.region,
            Some(LinkClass::InterRegion) => &self.inter_region,
            Some(LinkClass::Metered) => &self.metered,
        }
    }

    /// As [`PerLinks::of`], to change it.
    pub fn of_mut(&mut self, links: Option<LinkClass>) -> &mut T {
        match links {
            None => &mut self.node,
            Some(LinkClass::Region) => &mut self.region,
            Some(LinkClass::InterRegion) => &mut self.inter_region,
            Some(LinkClass::Metered) => &mut self.metered,
        }
    }

    /// One made for each.
    pub fn each(mut make: impl FnMut(Option<LinkClass>) -> T) -> Self {
        let [node, region, inter_region, metered] = Self::ALL.map(&mut make);
        Self { node, region, inter_region, metered }
    }
}

/// The bytes on the wire that were sent in each of the last months. A clock that is wrong for a while counts to a month
/// of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Months {
    /// By the name of the month, such as `2026-11`.
    months: BTreeMap<String, PerLinks<u64>>,
}

impl Months {
    /// What was sent in this month.
    pub fn sent(&self, month: &str) -> PerLinks<u64> {
        self.months.get(month).copied().unwrap_or_default()
    }

    /// Adds to a month; beyond [`MAX_MONTHS`] the oldest other one is forgotten.
    pub(super) fn count(&mut self, month: &str, links: Option<LinkClass>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let sent = self.months.entry(month.to_owned()).or_default().of_mut(links);
        *sent = sent.saturating_add(bytes);
        while self.months.len() > MAX_MONTHS {
            let oldest = self.months.keys().find(|other| *other != month).cloned();
            oldest.map(|oldest| self.months.remove(&oldest));
        }
    }
}

/// The name of the month that this moment is in, and when it ends.
pub(super) fn month_of(unix_s: u64) -> (String, u64) {
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    // Beyond the year 9999 nothing is told apart.
    let date = OffsetDateTime::from_unix_timestamp(seconds).map_or(Date::MAX, OffsetDateTime::date);
    let first_of_next = match date.month() {
        time::Month::December => Date::from_calendar_date(date.year() + 1, time::Month::January, 1),
        month => Date::from_calendar_date(date.year(), month.next(), 1),
    };
    let end_s = first_of_next.map_or(i64::MAX, |first| first.midnight().assume_utc().unix_timestamp());
    (format!("{:04}-{:02}", date.year(), u8::from(date.month())), end_s.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_and_ends_at_midnight_utc() {
        let cases = [
            (0, "1970-01", 31 * 86_400),
            (1_795_996_799, "2026-11", 1_796_083_200),
            (1_796_083_199, "2026-11", 1_796_083_200),
            (1_796_083_200, "2026-12", 1_798_761_600),
            (1_798_761_600, "2027-01", 1_801_440_000),
            (1_709_164_800, "2024-02", 1_709_251_200),
        ];
        for (unix_s, name, end_s) in cases {
            assert_eq!(month_of(unix_s), (name.to_owned(), end_s), "{unix_s}");
        }
        assert_eq!(month_of(u64::MAX).0, "9999-12");
    }

    #[test]
    fn a_wrong_clock_counts_to_a_month_of_its_own() {
        let mut months = Months::default();
        months.count("2026-11", Some(LinkClass::Metered), 100);
        months.count("1970-01", Some(LinkClass::Metered), 7);
        months.count("2026-11", Some(LinkClass::Metered), 1);
        assert_eq!(months.sent("2026-11"), PerLinks { metered: 101, ..PerLinks::default() });
        months.count("2026-11", Some(LinkClass::Metered), u64::MAX);
        assert_eq!(months.sent("2026-11").metered, u64::MAX, "it ends, and does not begin anew");
    }

    #[test]
    fn the_oldest_months_are_forgotten_but_never_the_present_one() {
        let mut months = Months::default();
        let name = |number: usize| format!("2026-{number:02}");
        (1..=MAX_MONTHS).for_each(|number| months.count(&name(number), None, 1));
        assert_eq!(months.sent(&name(1)).node, 1);
        months.count(&name(MAX_MONTHS + 1), None, 1);
        assert_eq!((months.sent(&name(1)).node, months.sent(&name(2)).node), (0, 1));
        months.count("1970-01", None, 5);
        months.count("1970-01", None, 5);
        assert_eq!((months.sent("1970-01").node, months.sent(&name(2)).node), (10, 0));
        assert_eq!(months.months.len(), MAX_MONTHS);
    }
}
