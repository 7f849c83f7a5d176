//! `gc explain`: what waits to be dropped, since when, and for whom.

use std::time::Duration;

use littoral::api::members::{ChunkGarbage, GarbageReport, Holder};

use super::connection::Connection;
use super::failure::Failure;
use super::print;

/// A member that is further back than this many epochs is what the others wait for; nearer is the ordinary pace.
const PATIENCE_EPOCHS: u64 = 2;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Tell what waits to be dropped, and for whom
    Explain(Connection),
}

pub(super) async fn run(Command::Explain(connection): Command, json: bool) -> Result<(), Failure> {
    let report = connection.client()?.garbage().await?;
    if json { print::json(&report) } else { print::line(page(&report)) }
}

fn page(report: &GarbageReport) -> String {
    let garbage = &report.garbage;
    let epoch = if garbage.epoch_ms == 0 {
        "Nothing has been dropped yet: no epoch has begun.".to_owned()
    } else {
        let done = if garbage.swept { "is dropped" } else { "is being dropped now" };
        format!("What was over at {} (the epoch) {done}.", print::moment(garbage.epoch_ms))
    };
    let rows = report.holders.iter().map(|holder| row(report, holder));
    format!(
        "{epoch}\n\nWaiting at {}:\n{}\n{}\n\nEvery member holds everything up to {} (the frontier).\n{}\n\n{}",
        report.pop,
        waiting(report),
        chunks(&report.chunks),
        frontier(report),
        verdict(report),
        print::table(["MEMBER", "LINK", "HOLDS ALL UP TO", "BEHIND", "FURTHEST WITH"], rows),
    )
}

fn waiting(report: &GarbageReport) -> String {
    let garbage = &report.garbage;
    let (count, size) = (print::count, print::size);
    format!(
        "  {} tombstones ({})\n  {} values with an expiry\n  {} log rows ({})\n  of {} that may wait{}",
        count(garbage.tombstones),
        size(garbage.tombstone_bytes),
        count(garbage.expiring),
        count(garbage.log_rows),
        size(garbage.log_bytes),
        size(report.max_waiting_bytes),
        if is_too_much(report) { ": the silent are evicted a hundred times sooner" } else { "" }
    )
}

fn chunks(chunks: &ChunkGarbage) -> String {
    let (count, size) = (print::count, print::size);
    format!(
        "  {} chunk files ({}) that no value names, of {} ({})\n  {} chunk files ({}) collected since the start",
        count(chunks.waiting),
        size(chunks.waiting_bytes),
        count(chunks.files),
        size(chunks.bytes),
        count(chunks.collected),
        size(chunks.collected_bytes)
    )
}

fn is_too_much(report: &GarbageReport) -> bool {
    report.garbage.tombstone_bytes + report.garbage.log_bytes > report.max_waiting_bytes
}

fn frontier(report: &GarbageReport) -> String {
    match report.garbage.frontier_ms {
        0 => "no time that is known".into(),
        ms => print::moment(ms),
    }
}

fn verdict(report: &GarbageReport) -> String {
    let every = print::time(Duration::from_millis(report.epoch_every_ms));
    match waited_for(report).as_slice() {
        [] => format!("Nobody holds it up: what is over goes within about {every}."),
        [one] => format!("All of it waits for {}.{}", one.pop, remedy(one)),
        [first, others @ ..] => {
            let pops: Vec<&str> = others.iter().map(|holder| holder.pop.as_str()).collect();
            format!("All of it waits for {}, then for {}.{}", first.pop, pops.join(", "), remedy(first))
        }
    }
}

/// Whom the others wait for, the one furthest back first. Who lacks the latest word of one that is away lacks what only
/// that one could tell: the one that is away is waited for.
fn waited_for(report: &GarbageReport) -> Vec<&Holder> {
    let is_late = |holder: &&Holder| behind_ms(report, holder) > PATIENCE_EPOCHS * report.epoch_every_ms;
    let mut waited_for: Vec<&Holder> = Vec::new();
    for late in report.holders.iter().filter(is_late) {
        let away = report.holders.iter().find(|holder| holder.pop == late.origin && !holder.connected);
        let culprit = if late.connected { away.unwrap_or(late) } else { late };
        if !waited_for.iter().any(|known| known.replica == culprit.replica) {
            waited_for.push(culprit);
        }
    }
    waited_for
}

fn remedy(holder: &Holder) -> String {
    if holder.connected {
        format!("\nIt is linked, and catches up with {}.", holder.origin)
    } else {
        format!("\nIt is away. If it never comes back: littoral member remove {} --force", holder.pop)
    }
}

fn behind_ms(report: &GarbageReport, holder: &Holder) -> u64 {
    report.now_ms.saturating_sub(holder.upto_ms)
}

fn row(report: &GarbageReport, holder: &Holder) -> [String; 5] {
    let (upto, behind) = match holder.upto_ms {
        0 => ("nothing".into(), String::new()),
        ms => (print::moment(ms), print::time(Duration::from_millis(behind_ms(report, holder)))),
    };
    let link = if holder.connected { "up" } else { "down" };
    [holder.pop.clone(), link.into(), upto, behind, holder.origin.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral::api::members::Garbage;

    #[test]
    fn the_page_fits_80_columns_and_names_who_is_waited_for() {
        let now_ms = 1_700_000_000_000;
        let holder = |pop: &str, connected, behind_ms| Holder {
            pop: pop.into(),
            replica: pop.into(),
            connected,
            origin: "sin".into(),
            upto_ms: now_ms - behind_ms,
        };
        let mut report = GarbageReport {
            pop: "ams".into(),
            now_ms,
            epoch_every_ms: 60_000,
            garbage: Garbage {
                epoch_ms: now_ms - 90_000,
                swept: true,
                frontier_ms: now_ms - 15_000,
                tombstones: 1_234,
                tombstone_bytes: 55_555,
                expiring: 2,
                log_rows: 3_000_000,
                log_bytes: 1 << 30,
            },
            max_waiting_bytes: 16 << 30,
            holders: vec![holder("fra", true, 15_000), holder("ams", true, 1_000)],
            chunks: ChunkGarbage {
                files: 1_000_000,
                bytes: 500 << 30,
                waiting: 4_321,
                waiting_bytes: 2 << 30,
                collected: 12,
                collected_bytes: 6 << 20,
            },
        };
        let text = page(&report);
        assert!(text.contains("4,321 chunk files (2"), "{text}");
        assert!(text.contains("Nobody holds it up") && text.contains("1,234 tombstones"), "{text}");
        report.holders.insert(0, holder("sin", false, 10_000_000));
        // It lacks what nobody can tell it.
        report.holders.insert(1, holder("lon", true, 9_000_000));
        let text = page(&report);
        assert!(text.contains("waits for sin.\nIt is away"), "{text}");
        let slow = Holder { origin: "fra".into(), ..holder("a-pop-with-a-long-name", true, 1_000_000) };
        report.holders.insert(2, slow);
        let text = page(&report);
        assert!(text.contains("for sin, then for a-pop-with"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("of 16.00 GiB that may wait\n"), "{text}");
        report.max_waiting_bytes = 1 << 29;
        assert!(page(&report).contains("that may wait: the silent are evicted"), "{}", page(&report));
        report.garbage = Garbage::default();
        assert!(page(&report).starts_with("Nothing has been dropped yet"), "{}", page(&report));
    }
}
