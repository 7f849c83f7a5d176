//! Six PoPs in three regions, all of which write: how often a byte crosses from one region to another.

use std::time::Duration;

use super::report::Report;
use super::stage::{Stage, WRITE_BYTES, Wire};
use crate::cluster::Options;
use crate::wan::{Apart, Terms};

/// The region of each PoP.
const REGIONS: [&str; 6] = ["a", "a", "b", "b", "c", "c"];
/// How many regions a write has to reach beside its own.
const OTHER_REGIONS: u64 = 2;
/// The writes of each PoP.
const WRITES: usize = 5_000;
/// How long a packet takes from one region to another, and within one.
const FAR: Duration = Duration::from_millis(20);
const NEAR: Duration = Duration::from_micros(500);
/// How long the idle links are watched.
const IDLE: Duration = Duration::from_secs(3);

pub(super) async fn run(place: &Apart, seed: u64) -> anyhow::Result<Report> {
    let stage = Stage::set(place, &REGIONS, Options::default(), seed).await?;
    let is_far = |from: usize, to: usize| REGIONS[from] != REGIONS[to];
    stage
        .wan
        .set_all(|from, to| Terms { delay: if is_far(from, to) { FAR } else { NEAR }, ..Terms::default() });
    let before = stage.wan.counts();
    tokio::time::sleep(IDLE).await;
    let idle = Wire::between(before, stage.wan.counts());

    let before = stage.wan.counts();
    tokio::try_join!(
        stage.write_bulk(0, "reg0", WRITES),
        stage.write_bulk(1, "reg1", WRITES),
        stage.write_bulk(2, "reg2", WRITES),
        stage.write_bulk(3, "reg3", WRITES),
        stage.write_bulk(4, "reg4", WRITES),
        stage.write_bulk(5, "reg5", WRITES),
    )?;
    let behind = stage.agree().await?;
    let wire = Wire::between(before, stage.wan.counts());
    stage.wan.check_counts()?;

    let written = (REGIONS.len() * WRITES * WRITE_BYTES) as u64;
    let ideal = (OTHER_REGIONS * written) as f64;
    let mut report = Report::new(format!(
        "regions: {WRITES} writes of {WRITE_BYTES} B at each of 6 PoPs in 3 regions, W = {written} B"
    ));
    report.at_most("bytes between regions / 2 W", wire.bytes(is_far) as f64 / ideal, 1.05, 3);
    report.tell("bytes between regions / W", format!("{:.3}", wire.bytes(is_far) as f64 / written as f64));
    let near = wire.bytes(|from, to| !is_far(from, to)) as f64 / written as f64;
    report.tell("bytes within regions / W", format!("{near:.3}"));
    report.tell(
        "idle bytes/s between regions",
        format!("{:.0}", idle.bytes(is_far) as f64 / IDLE.as_secs_f64()),
    );
    report.tell("ms from the last answer until in step", format!("{:.0}", behind.as_secs_f64() * 1e3));
    Ok(report)
}
