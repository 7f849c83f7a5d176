//! What may be sent to the peers: the section `[budgets]`, its schedules and its monthly caps.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::sections::RATE;
use crate::source::Otherwise::Missing;
use crate::source::Source;
use crate::spelling::suggest;

/// What may be sent in a month, in bytes: 1 MiB to 1 PiB, which is no cap.
pub const MONTHLY_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// The most schedules in a file.
pub const MAX_SCHEDULES: usize = 64;

/// What goes on when a cap is used up, in bytes a second: heartbeats, and a trickle of fresh writes.
const BEYOND_CAP_BYTES_PER_S: u64 = 16 << 10;
const DEFAULT_BURST_MS: u64 = 50;

/// The bounds of [`Budgets::burst_ms`], in milliseconds.
pub const BURST_MS: RangeInclusive<u64> = 5..=1_000;

/// What may be sent to the peers, on the wire; each rate within [`RATE`], of which the greatest is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Budgets {
    /// To all of them together, in bytes a second.
    pub node_bytes_per_s: u64,
    /// To those of this node's region together, in bytes a second.
    pub region_bytes_per_s: u64,
    /// To those of other regions together, in bytes a second.
    pub inter_region_bytes_per_s: u64,
    /// To metered ones together, in bytes a second.
    pub metered_bytes_per_s: u64,
    /// What a budget comes down to once its monthly cap is used up, in bytes a second.
    pub beyond_cap_bytes_per_s: u64,
    /// What may go at once after a pause: what a rate gives in so many milliseconds, within [`BURST_MS`].
    pub burst_ms: u64,
    /// What may be sent in a month.
    pub monthly: Monthly,
    /// Lesser rates at times: at most [`MAX_SCHEDULES`].
    pub schedules: Vec<Schedule>,
}

/// What may be sent in a calendar month (UTC), in bytes; each within [`MONTHLY_BYTES`], of which the greatest is no
/// cap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Monthly {
    /// To all peers together.
    pub node_bytes: u64,
    /// To those of this node's region together.
    pub region_bytes: u64,
    /// To those of other regions together.
    pub inter_region_bytes: u64,
    /// To metered ones together.
    pub metered_bytes: u64,
}

/// A lesser rate at times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Which budget it lowers.
    pub links: BudgetLinks,
    /// On which days its window begins: at least one, each once.
    pub days: Vec<Day>,
    /// When the window begins (UTC).
    pub from: DayTime,
    /// When it ends (UTC): on the next day, where that is no later than it begins.
    pub to: DayTime,
    /// The rate meanwhile, in bytes a second; within [`RATE`].
    pub bytes_per_s: u64,
}

/// The links that share a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetLinks {
    /// All of them.
    Node,
    /// Those inside the region.
    Region,
    /// Those to other regions.
    InterRegion,
    /// Those to metered peers.
    Metered,
}

/// A day of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is what it is called")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time of day, in minutes after midnight: `00:00` to `24:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayTime(u16);

impl Default for Budgets {
    /// No limits.
    fn default() -> Self {
        let none = *RATE.end();
        Self {
            node_bytes_per_s: none,
            region_bytes_per_s: none,
            inter_region_bytes_per_s: none,
            metered_bytes_per_s: none,
            beyond_cap_bytes_per_s: BEYOND_CAP_BYTES_PER_S,
            burst_ms: DEFAULT_BURST_MS,
            monthly: Monthly::default(),
            schedules: Vec::new(),
        }
    }
}

impl Default for Monthly {
    /// No caps.
    fn default() -> Self {
        let none = *MONTHLY_BYTES.end();
        Self { node_bytes: none, region_bytes: none, inter_region_bytes: none, metered_bytes: none }
    }
}

impl Budgets {
    pub(crate) fn read(source: &mut Source<'_>) -> Option<Self> {
        let default = Self::default();
        let mut rate = |key: &str, default| source.number(&format!("budgets.{key}"), default, RATE);
        let node = rate("node_bytes_per_s", default.node_bytes_per_s);
        let region = rate("region_bytes_per_s", default.region_bytes_per_s);
        let inter_region = rate("inter_region_bytes_per_s", default.inter_region_bytes_per_s);
        let metered = rate("metered_bytes_per_s", default.metered_bytes_per_s);
        let beyond_cap = rate("beyond_cap_bytes_per_s", default.beyond_cap_bytes_per_s);
        let burst = source.number("budgets.burst_ms", default.burst_ms, BURST_MS);
        let monthly = Monthly::read(source);
        let schedules = schedules(source);
        Some(Self {
            node_bytes_per_s: node?,
            region_bytes_per_s: region?,
            inter_region_bytes_per_s: inter_region?,
            metered_bytes_per_s: metered?,
            beyond_cap_bytes_per_s: beyond_cap?,
            burst_ms: burst?,
            monthly: monthly?,
            schedules: schedules?,
        })
    }
}

impl Monthly {
    fn read(source: &mut Source<'_>) -> Option<Self> {
        let none = *MONTHLY_BYTES.end();
        let mut cap = |key: &str| source.number(&format!("budgets.monthly.{key}"), none, MONTHLY_BYTES);
        let (node, region) = (cap("node_bytes"), cap("region_bytes"));
        let (inter_region, metered) = (cap("inter_region_bytes"), cap("metered_bytes"));
        Some(Self {
            node_bytes: node?,
            region_bytes: region?,
            inter_region_bytes: inter_region?,
            metered_bytes: metered?,
        })
    }
}

fn schedules(source: &mut Source<'_>) -> Option<Vec<Schedule>> {
    let count = source.tables("budgets.schedules", MAX_SCHEDULES);
    let schedules: Vec<_> = (0..count.unwrap_or(0)).map(|index| Schedule::read(source, index)).collect();
    count?;
    schedules.into_iter().collect()
}

impl Schedule {
    fn read(source: &mut Source<'_>, index: usize) -> Option<Self> {
        let path = |key: &str| format!("budgets.schedules[{index}].{key}");
        let wanted = "\"node\", \"region\", \"inter_region\" or \"metered\"";
        let links = source.text(&path("links"), Missing(wanted), str::parse);
        let days = source.texts(&path("days"), Day::ALL.to_vec(), "\"mon\", \"tue\"", str::parse);
        let from = source.text(&path("from"), Missing("when it begins in UTC, such as \"08:00\""), begin);
        let to = source.text(&path("to"), Missing("when it ends in UTC, such as \"20:00\""), str::parse);
        let wanted = "what may be sent meanwhile, in bytes a second";
        let bytes_per_s = source.required_number(&path("bytes_per_s"), wanted, RATE);
        let schedule = Self { links: links?, days: days?, from: from?, to: to?, bytes_per_s: bytes_per_s? };
        schedule.check(source, path).then_some(schedule)
    }

    /// What must hold between its keys.
    fn check(&self, source: &mut Source<'_>, path: impl Fn(&str) -> String) -> bool {
        let mut days = self.days.clone();
        days.sort_unstable();
        let twice = days.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let (key, wrong) = if self.from == self.to {
            let whole = "for whole days use \"00:00\" and \"24:00\"";
            ("to", format!("= \"{}\" is also when it begins: give the window a length; {whole}", self.to))
        } else if let Some(day) = twice {
            ("days", format!("has \"{day}\" twice: list each day once"))
        } else if days.is_empty() {
            ("days", "is empty: list the days it begins on, or leave the key out for every day".into())
        } else {
            return true;
        };
        source.refuse(source.place(&path(key)), format!("{} {wrong}", path(key)));
        false
    }
}

impl FromStr for BudgetLinks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const NAMES: [&str; 4] = ["node", "region", "inter_region", "metered"];
        match text {
            "node" => Ok(Self::Node),
            "region" => Ok(Self::Region),
            "inter_region" => Ok(Self::InterRegion),
            "metered" => Ok(Self::Metered),
            other => Err(match suggest(other, NAMES) {
                Some(meant) => format!("is no kind of links: did you mean {meant:?}?"),
                None => {
                    format!("is no kind of links: use {}", NAMES.map(|name| format!("{name:?}")).join(", "))
                }
            }),
        }
    }
}

impl Day {
    /// Every day, Monday first.
    pub const ALL: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

    fn name(self) -> &'static str {
        ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][self as usize]
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Day {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let known = Self::ALL.into_iter().find(|day| day.name() == text);
        known.ok_or("is not a day: use \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\" or \"sun\"")
    }
}

impl DayTime {
    /// Minutes after midnight; 1440 at most.
    pub fn minutes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for DayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl FromStr for DayTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "is not a time of day: use HH:MM in UTC, from \"00:00\" to \"24:00\"";
        let two_digits = |text: &str| {
            let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| text.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(hour, minute)| two_digits(hour).zip(two_digits(minute)));
        match parts {
            Some((hour, minute)) if minute < 60 && hour * 60 + minute <= 24 * 60 => {
                Ok(Self(hour * 60 + minute))
            }
            _ => Err(wrong),
        }
    }
}

impl Serialize for DayTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn begin(text: &str) -> Result<DayTime, &'static str> {
    match text.parse::<DayTime>() {
        Ok(DayTime(1440)) => Err("is the end of a day, when no window begins: use \"00:00\""),
        parsed => parsed,
    }
}
