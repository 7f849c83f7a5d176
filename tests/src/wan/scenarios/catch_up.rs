//! Two PoPs, of which one misses 100,000 writes, behind a cut path and then as a process that was down: what bringing
//! them over costs, and how long it takes until both hold the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::report::Report;
use super::stage::{Stage, WRITE_BYTES, Wire};
use crate::cluster::Options;
use crate::wan::{Apart, Counts, Terms};

/// The writes missed, each time.
const MISSED_WRITES: usize = 100_000;
/// Lengths of packets that are listed.
const LENGTHS_SHOWN: usize = 3;
/// What each node may send, where that is what counts.
const BUDGET_BYTES_PER_S: u64 = 2_000_000;
/// How long each way takes.
const ONE_WAY: Duration = Duration::from_millis(40);

pub(super) async fn run(place: &Apart, seed: u64) -> anyhow::Result<Report> {
    let mut stage = Stage::set(place, &["a", "b"], Options::default(), seed).await?;
    stage.wan.set_all(|_, _| Terms { delay: ONE_WAY, ..Terms::default() });
    let mut report = Report::new(format!(
        "catch-up: {MISSED_WRITES} writes of {WRITE_BYTES} B missed, RTT {} ms, 2 PoPs",
        2 * ONE_WAY.as_millis()
    ));

    cut(&stage, true);
    stage.write_bulk(0, "cut-", MISSED_WRITES).await?;
    stage.linked(0, 1, false).await?;
    stage.linked(1, 0, false).await?;
    let (before, healed) = (stage.wan.counts(), Instant::now());
    cut(&stage, false);
    tell(&stage, &mut report, "a path that was cut", before, healed).await?;

    stage.cluster.kill9(1)?;
    stage.write_bulk(0, "down", MISSED_WRITES).await?;
    stage.linked(0, 1, false).await?;
    let (before, started) = (stage.wan.counts(), Instant::now());
    stage.cluster.start(1)?;
    tell(&stage, &mut report, "a node that was down", before, started).await?;
    stage.wan.check_counts()?;
    drop(stage);
    near(place, seed, &mut report).await?;
    within_budget(place, seed, &mut report).await?;
    Ok(report)
}

/// No budget and no way between the two: how long both take for it.
async fn near(place: &Apart, seed: u64, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::set(place, &["a", "b"], Options::default(), seed).await?;
    let (_, took) = after_a_cut(&stage).await?;
    report.at_most("no delay, no budget: s from linked until equal", took.as_secs_f64(), 1.5, 2);
    Ok(())
}

/// How long it takes against what the budget gives.
async fn within_budget(place: &Apart, seed: u64, report: &mut Report) -> anyhow::Result<()> {
    let more_settings = format!("[budgets]\nnode_bytes_per_s = {BUDGET_BYTES_PER_S}\n");
    let stage = Stage::set(place, &["a", "b"], Options { more_settings, ..Options::default() }, seed).await?;
    stage.wan.set_all(|_, _| Terms { delay: ONE_WAY, ..Terms::default() });
    let (wire, took) = after_a_cut(&stage).await?;
    let least = wire.bytes(|from, _| from == 0) as f64 / BUDGET_BYTES_PER_S as f64;
    let what = format!("a budget of {BUDGET_BYTES_PER_S} B/s: time / (bytes / budget)");
    report.at_most(what, took.as_secs_f64() / least, 1.1, 3);
    Ok(())
}

/// What is sent, and how long it takes, from the moment at which a cut path is linked again.
async fn after_a_cut(stage: &Stage) -> anyhow::Result<(Wire, Duration)> {
    cut(stage, true);
    stage.write_bulk(0, "cut-", MISSED_WRITES).await?;
    stage.linked(0, 1, false).await?;
    stage.linked(1, 0, false).await?;
    cut(stage, false);
    stage.linked(0, 1, true).await?;
    let (before, linked) = (stage.wan.counts(), Instant::now());
    stage.equal(0, 1).await?;
    Ok((Wire::between(before, stage.wan.counts()), linked.elapsed()))
}

fn cut(stage: &Stage, is_cut: bool) {
    stage.wan.cut(0, 1, is_cut);
    stage.wan.cut(1, 0, is_cut);
}

async fn tell(
    stage: &Stage,
    report: &mut Report,
    what: &str,
    before: BTreeMap<(usize, usize), Counts>,
    since: Instant,
) -> anyhow::Result<()> {
    stage.linked(0, 1, true).await?;
    let linked = since.elapsed();
    stage.equal(0, 1).await?;
    let equal = since.elapsed();
    let wire = Wire::between(before, stage.wan.counts());
    stage.agree().await?;
    let written = (MISSED_WRITES * WRITE_BYTES) as f64;
    report.at_most(
        format!("{what}: bytes / keys and values"),
        wire.bytes(|_, _| true) as f64 / written,
        1.1,
        3,
    );
    report.tell("  there", format!("{:.3}", wire.bytes(|from, _| from == 0) as f64 / written));
    report.tell("  back", format!("{:.3}", wire.bytes(|from, _| from == 1) as f64 / written));
    let there = |from, _| from == 0;
    let a_packet = wire.bytes(there) as f64 / wire.packets(there).max(1) as f64;
    report.tell("  there: bytes a packet", format!("{a_packet:.0}"));
    report.tell("  s until linked", format!("{:.2}", linked.as_secs_f64()));
    report.tell("  s until equal", format!("{:.2}", equal.as_secs_f64()));
    report.notes.push(format!("most frequent lengths there, {what}: {}", wire.lengths(0, 1, LENGTHS_SHOWN)));
    Ok(())
}
