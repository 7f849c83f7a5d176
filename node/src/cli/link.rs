//! `link`: what a PoP sends to its peers, within which budgets; pausing, and changing budgets while it runs.
//!
//! The rule this file upholds: what is changed here holds until the PoP's node stops, and each answer says so.

use std::time::Duration;

use bytesize::ByteSize;
use littoral::Client;
use littoral::api::links::{Budget, Link, Links, LinksReport, Month, Why};

use super::connection::Connection;
use super::failure::Failure;
use super::print;

/// How long a changed budget holds.
const KEPT: &str = "set until the node stops; to keep it, write it into the configuration too";

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the links: what they send, within which budgets, and how long a backlog will last
    List(Connection),
    /// Set a budget, of one link or of several together
    Budget(SetBudget),
    /// Set how much may go at once after a pause, of every budget
    Burst(SetBurst),
    /// Send a PoP nothing but heartbeats and acknowledgements
    Pause(One),
    /// Send a paused PoP all again
    Resume(One),
}

#[derive(clap::Args)]
pub(super) struct SetBudget {
    /// Bytes a second on the wire, such as 500kB, 12.5MB or 1GiB; or none
    #[arg(value_parser = rate)]
    rate: Rate,
    /// Of the link to this PoP
    #[arg(long, conflicts_with = "of", required_unless_present = "of")]
    pop: Option<String>,
    /// Of these links together
    #[arg(long, value_enum)]
    of: Option<Of>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub(super) struct SetBurst {
    /// What each rate gives in so many milliseconds, 5 to 1000; it is 16 KiB at least
    #[arg(value_parser = clap::value_parser!(u64).range(5..=1000))]
    milliseconds: u64,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub(super) struct One {
    /// The PoP's name
    pop: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Of {
    /// All links
    Node,
    /// Those inside the region
    Region,
    /// Those to other regions
    InterRegion,
    /// Those the configuration calls metered
    Metered,
}

impl From<Of> for Links {
    fn from(of: Of) -> Self {
        match of {
            Of::Node => Self::Node,
            Of::Region => Self::Region,
            Of::InterRegion => Self::InterRegion,
            Of::Metered => Self::Metered,
        }
    }
}

/// A rate, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate(Option<u64>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let parsed = text.parse::<ByteSize>();
    parsed.map(|size| Rate(Some(size.as_u64()))).map_err(|_| "write 500kB, 12.5MB, 1GiB or none".into())
}

pub(super) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    let (report, done) = match command {
        Command::List(connection) => (connection.client()?.links().await?, None),
        Command::Budget(args) => (set_budget(&args.connection.client()?, &args).await?, Some(KEPT)),
        Command::Burst(args) => (args.connection.client()?.set_burst(args.milliseconds).await?, Some(KEPT)),
        Command::Pause(one) => {
            let report = one.connection.client()?.pause_link(&one.pop, true).await?;
            (report, Some("paused until it is resumed, or the node stops"))
        }
        Command::Resume(one) => {
            (one.connection.client()?.pause_link(&one.pop, false).await?, Some("resumed"))
        }
    };
    match (json, done) {
        (true, _) => print::json(&report),
        (false, None) => print::line(page(&report)),
        (false, Some(done)) => print::line(format!("{}\n\n{done}", page(&report))),
    }
}

async fn set_budget(client: &Client, args: &SetBudget) -> Result<LinksReport, Failure> {
    let Rate(bytes_per_s) = args.rate;
    Ok(match (&args.pop, args.of) {
        (Some(pop), _) => client.set_link_budget(pop, bytes_per_s).await?,
        (None, Some(of)) => client.set_budget(of.into(), bytes_per_s).await?,
        (None, None) => return Err(Failure::usage("no link is named").hint("pass --pop or --of")),
    })
}

fn page(report: &LinksReport) -> String {
    let links = print::table(
        ["LINK", "STATE", "BUDGET", "RATE", "SENT", "BEHIND", "GONE IN"],
        report.links.iter().map(link),
    );
    let budgets =
        print::table(["ALL LINKS", "BUDGET", "BY", "RATE", "SENT"], report.budgets.iter().map(budget));
    let capped: Vec<[String; 4]> = report.budgets.iter().filter_map(month).collect();
    if capped.is_empty() {
        return format!("{links}\n\n{budgets}");
    }
    let months = print::table(["THIS MONTH", "SENT", "CAP", "USED UP, AT THIS PACE"], capped);
    format!("{links}\n\n{budgets}\n\n{months}")
}

fn link(link: &Link) -> [String; 7] {
    let state = match (link.up, link.paused) {
        (_, true) => "paused",
        (false, _) => "down",
        (true, _) if link.coalescing => "coalescing",
        (true, _) => "up",
    };
    let gone_in = match link.gone_in_ms {
        Some(0) => String::new(),
        Some(ms) => print::time(Duration::from_millis(ms)),
        None => "never".into(),
    };
    [
        link.pop.clone(),
        if link.is_relay { format!("{state}, relay") } else { state.into() },
        limit(link.bytes_per_s),
        per_second(link.sent_bytes_per_s),
        print::size(link.sent_bytes),
        if link.behind_ops == 0 { String::new() } else { print::size(link.behind_bytes) },
        gone_in,
    ]
}

fn budget(budget: &Budget) -> [String; 5] {
    let by = match (budget.in_force_bytes_per_s, budget.why) {
        (None, _) => String::new(),
        (_, Why::Base) => "base".into(),
        (_, Why::Schedule { until_s }) => {
            format!("schedule until {:02}:{:02} UTC", until_s / 3_600 % 24, until_s / 60 % 60)
        }
        (_, Why::MonthlyCap) => "monthly cap used up".into(),
    };
    [
        named(budget.of),
        limit(budget.in_force_bytes_per_s),
        by,
        per_second(budget.sent_bytes_per_s),
        print::size(budget.sent_bytes),
    ]
}

/// What has a cap: how much of it is used, and when it will be all.
fn month(budget: &Budget) -> Option<[String; 4]> {
    let Month { sent_bytes, cap_bytes, used_up_at_s, .. } = budget.month;
    let cap_bytes = cap_bytes?;
    let percent = u128::from(sent_bytes) * 100 / u128::from(cap_bytes.max(1));
    let used_up = match used_up_at_s {
        _ if sent_bytes >= cap_bytes => "now".into(),
        Some(at_s) => print::moment(at_s.saturating_mul(1_000)),
        None => "not this month".into(),
    };
    let sent = format!("{} ({percent} %)", print::size(sent_bytes));
    Some([named(budget.of), sent, print::size(cap_bytes), used_up])
}

/// As `--of` has it.
fn named(of: Links) -> String {
    of.name().replace('_', "-")
}

fn limit(bytes_per_s: Option<u64>) -> String {
    bytes_per_s.map_or("none".into(), per_second)
}

fn per_second(bytes: u64) -> String {
    format!("{}/s", print::size(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_typed_as_people_write_them() {
        for (text, bytes_per_s) in [
            ("500kB", Some(500_000)),
            ("12.5MB", Some(12_500_000)),
            ("1GiB", Some(1 << 30)),
            ("65536", Some(65_536)),
            ("none", None),
        ] {
            assert_eq!(rate(text), Ok(Rate(bytes_per_s)), "{text}");
        }
        assert!(rate("fast").is_err() && rate("").is_err() && rate("-1").is_err());
    }

    #[test]
    fn the_page_fits_80_columns_and_says_what_a_link_does() {
        let mut one = Link {
            pop: "a-pop-with-a-long-name".into(),
            up: true,
            kind: Some(Links::Metered),
            is_relay: true,
            paused: false,
            bytes_per_s: Some(12_500_000),
            tightest_bytes_per_s: Some(12_500_000),
            sent_bytes: 1 << 44,
            sent_bytes_per_s: 12_499_999,
            rtt_us: Some(80_000),
            behind_ops: 1_000_000,
            behind_bytes: 1 << 30,
            behind_ms: 90_000,
            coalescing: true,
            gone_in_ms: Some(86_000),
        };
        let report = |link: &Link| LinksReport {
            pop: "ams".into(),
            burst_ms: 50,
            budgets: vec![budget_of(Links::InterRegion)],
            links: vec![link.clone()],
        };
        let text = page(&report(&one));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(
            text.contains("coalescing,")
                && text.contains("relay")
                && text.contains("86.0 s")
                && text.contains("none"),
            "{text}"
        );
        (one.paused, one.gone_in_ms, one.is_relay) = (true, None, false);
        let text = page(&report(&one));
        assert!(text.contains("paused") && text.contains("never") && !text.contains("relay"), "{text}");
        assert!(!text.contains("THIS MONTH"), "nothing has a cap: {text}");
    }

    fn budget_of(of: Links) -> Budget {
        Budget {
            of,
            bytes_per_s: None,
            in_force_bytes_per_s: None,
            why: Why::Base,
            month: Month { name: "2026-11".into(), sent_bytes: 0, cap_bytes: None, used_up_at_s: None },
            sent_bytes: 1 << 44,
            sent_bytes_per_s: 12_499_999,
        }
    }

    #[test]
    fn a_budget_says_why_it_is_what_it_is_within_80_columns() {
        let evening_s = 1_795_377_600 + 20 * 3_600 + 5 * 60;
        let cases = [
            (None, Why::Base, "none"),
            (Some(12_500_000), Why::Base, "base"),
            (Some(12_500_000), Why::Schedule { until_s: evening_s }, "schedule until 16:05 UTC"),
            (Some(16_384), Why::MonthlyCap, "monthly cap used up"),
        ];
        for (in_force_bytes_per_s, why, wanted) in cases {
            let budget = Budget { in_force_bytes_per_s, why, ..budget_of(Links::InterRegion) };
            let text = page(&LinksReport {
                pop: "ams".into(),
                budgets: vec![budget],
                burst_ms: 50,
                links: Vec::new(),
            });
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains(wanted) && text.contains("inter-region"), "{wanted}: {text}");
        }
    }

    #[test]
    fn a_cap_says_how_much_of_it_is_used_and_when_it_will_be_all() {
        let month = |sent_bytes, used_up_at_s| Month {
            name: "2026-11".into(),
            sent_bytes,
            cap_bytes: Some(1 << 40),
            used_up_at_s,
        };
        let cases = [
            (month(1 << 39, Some(1_795_348_800)), "512.00 GiB (50 %)", "2026-11-22 12:00:00 UTC"),
            (month(1 << 39, None), "1.00 TiB", "not this month"),
            (month(3 << 40, None), "3.00 TiB (300 %)", "now"),
        ];
        for (month, sent, used_up) in cases {
            let capped = Budget { month, ..budget_of(Links::InterRegion) };
            let budgets = vec![budget_of(Links::Node), capped];
            let text = page(&LinksReport { pop: "ams".into(), budgets, burst_ms: 50, links: Vec::new() });
            let months = text.split("THIS MONTH").nth(1).unwrap();
            assert!(months.contains(sent) && months.contains(used_up), "{text}");
            assert!(
                months.contains("inter-region") && !months.contains("node"),
                "only what has a cap: {text}"
            );
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }
}
