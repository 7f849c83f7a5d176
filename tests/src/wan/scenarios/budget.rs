//! One link with a budget of its own on a line that could carry more: how long a write takes to be visible while writes
//! take most of the budget, and how long when large values wait for what is left of it.

use super::live::{OCEAN_LINE, OCEAN_PACE, Seen, paced};
use super::report::Report;
use super::stage::{Stage, WRITE_BYTES, Wire, large_value};
use crate::cluster::Options;
use crate::wan::{Apart, Terms};

/// What each node may send.
const BUDGET_BYTES_PER_S: u64 = 250_000;
/// Large values written before, and their bytes: together what the budget sends in four and a half minutes.
const LARGE_VALUES: (usize, usize) = (8, 8 << 20);
/// What may be sent above rate and time, besides: a burst, and what the ends of the measure differ by.
const SLACK: f64 = 1.02;

pub(super) async fn run(place: &Apart, seed: u64) -> anyhow::Result<Report> {
    let (values, value_bytes) = LARGE_VALUES;
    let mut report = Report::new(format!(
        "budget: {BUDGET_BYTES_PER_S} B/s on a line of RTT {} ms that loses {:.1} %,\n\
         {} writes/s of {WRITE_BYTES} B for {} s, 2 PoPs",
        2 * OCEAN_LINE.delay.as_millis(),
        OCEAN_LINE.loss_permille as f64 / 10.0,
        OCEAN_PACE.per_s,
        OCEAN_PACE.seconds,
    ));
    report.tell("alone:", "");
    let mut alone = cross(place, seed, 0, &mut report).await?;
    let one_way_ms = OCEAN_LINE.delay.as_secs_f64() * 1e3;
    alone.tell_visible(&mut report, one_way_ms + 10.0, 4.0 * one_way_ms);
    report.tell(format!("beside {values} large values of {value_bytes} B:"), "");
    let mut beside = cross(place, seed, values, &mut report).await?;
    beside.tell_visible(&mut report, one_way_ms + 10.0, 1.3 * alone.visible_ms(0.99));
    Ok(report)
}

async fn cross(place: &Apart, seed: u64, large: usize, report: &mut Report) -> anyhow::Result<Seen> {
    let more_settings = format!("[budgets]\nnode_bytes_per_s = {BUDGET_BYTES_PER_S}\n");
    let options = Options { more_settings, ..Options::default() };
    let line = Terms { rate_bytes_per_s: None, ..OCEAN_LINE };
    let stage = Stage::set_over(place, &["a", "b"], options, seed, line).await?;
    for number in 0..large {
        let answer =
            stage.rests[0].put(&format!("large-{number}"), large_value(number, LARGE_VALUES.1)).await?;
        anyhow::ensure!(answer.status == 200, "a large value: {} {}", answer.status, answer.text());
    }
    let before = stage.wan.counts();
    let seen = paced(&stage, OCEAN_PACE).await?;
    let wire = Wire::between(before, stage.wan.counts());
    stage.agree().await?;
    stage.wan.check_counts()?;
    let sent = wire.bytes(|from, to| (from, to) == (0, 1)) as f64;
    let used = sent / seen.took_all().as_secs_f64() / BUDGET_BYTES_PER_S as f64;
    report.at_most("  bytes there / what the budget gives meanwhile", used, SLACK, 3);
    Ok(seen)
}
