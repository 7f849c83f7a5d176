//! Two PoPs and writes at one of them, seen at the other while they are made: what they cost on the wire, and when
//! they are visible there. One process asks both, so that there is one clock.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::report::Report;
use super::stage::{Stage, VALUE_BYTES, WRITE_BYTES, Wire, key, quantile, value};
use crate::cluster::{Options, Rest};
use crate::wan::{Apart, Terms};

/// Writes a second, and seconds, of `trickle`.
const TRICKLE: (usize, u64) = (200, 20);
/// The pairs of `burst`.
const BURST_WRITES: usize = 100_000;
/// How long an idle link is watched.
const IDLE: Duration = Duration::from_secs(5);
/// How long each way of `ocean` takes.
const ONE_WAY: Duration = Duration::from_millis(40);
/// Packets of 1,000 that `ocean` loses.
const LOSS_PERMILLE: u64 = 5;
/// The rate of `ocean` in each direction, 2 Mbit/s, and its queue of 0.1 s.
const RATE_BYTES_PER_S: u64 = 250_000;
const QUEUE_BYTES: u64 = 25_000;
/// The share of that rate which keys and values take, and for how many seconds.
const RATE_SHARE: f64 = 0.7;
const OCEAN_S: u64 = 15;
/// One write of so many is waited for in `ocean`.
const OCEAN_WATCHED: usize = 50;
/// The line of `ocean`.
pub(super) const OCEAN_LINE: Terms = Terms {
    delay: ONE_WAY,
    loss_permille: LOSS_PERMILLE,
    rate_bytes_per_s: Some(RATE_BYTES_PER_S),
    queue_bytes: QUEUE_BYTES,
    jitter: Duration::ZERO,
    is_cut: false,
};
/// How it is written to.
pub(super) const OCEAN_PACE: Pace = Pace {
    per_s: (RATE_BYTES_PER_S as f64 * RATE_SHARE / WRITE_BYTES as f64) as usize,
    seconds: OCEAN_S,
    watched: OCEAN_WATCHED,
    poll: Some(OCEAN_POLL),
};
/// When reads of one that is waited for begin, and the pause between two: few enough that the nodes do not notice.
const OCEAN_POLL: (Duration, Duration) = (Duration::from_millis(35), Duration::from_millis(1));
/// How long a write may take until it is visible.
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
/// Lengths of packets that are listed.
const LENGTHS_SHOWN: usize = 4;

pub(super) async fn trickle(place: &Apart, seed: u64) -> anyhow::Result<Report> {
    let stage = Stage::set(place, &["a", "a"], Options::default(), seed).await?;
    let before = stage.wan.counts();
    tokio::time::sleep(IDLE).await;
    let idle = Wire::between(before, stage.wan.counts());

    let (per_s, seconds) = TRICKLE;
    let before = stage.wan.counts();
    let pace = Pace { per_s, seconds, watched: 1, poll: None };
    let mut seen = paced(&stage, pace).await?;
    let wire = Wire::between(before, stage.wan.counts());
    stage.agree().await?;
    stage.wan.check_counts()?;

    let writes = seen.writes as f64;
    let mut report =
        Report::new(format!("trickle: {per_s} writes/s of {WRITE_BYTES} B for {seconds} s, 2 PoPs"));
    report.tell("writes/s", format!("{:.0}", seen.writes_per_s()));
    report.at_most("bytes on the wire for a write", wire.bytes(|_, _| true) as f64 / writes, 280.0, 1);
    for (what, from, to) in [("there", 0, 1), ("back", 1, 0)] {
        let is = |a, b| (a, b) == (from, to);
        report.tell(format!("  {what}: bytes for a write"), format!("{:.1}", wire.bytes(is) as f64 / writes));
        report.tell(
            format!("  {what}: packets for a write"),
            format!("{:.2}", wire.packets(is) as f64 / writes),
        );
    }
    let idle_per_s = idle.bytes(|_, _| true) as f64 / IDLE.as_secs_f64();
    report.tell("bytes/s of the idle link, both directions", format!("{idle_per_s:.0}"));
    let idle_packets = idle.packets(|_, _| true) as f64 / IDLE.as_secs_f64();
    report.tell("packets/s of the idle link", format!("{idle_packets:.1}"));
    seen.tell_visible(&mut report, 1.0, 5.0);
    report.notes.push(format!("most frequent lengths there: {}", wire.lengths(0, 1, LENGTHS_SHOWN)));
    report.notes.push(format!("most frequent lengths back:  {}", wire.lengths(1, 0, LENGTHS_SHOWN)));
    Ok(report)
}

pub(super) async fn burst(place: &Apart, seed: u64) -> anyhow::Result<Report> {
    let stage = Stage::set(place, &["a", "a"], Options::default(), seed).await?;
    let before = stage.wan.counts();
    let took = stage.write_bulk(0, "bulk", BURST_WRITES).await?;
    let behind = stage.equal(0, 1).await?;
    let wire = Wire::between(before, stage.wan.counts());
    stage.agree().await?;
    stage.wan.check_counts()?;

    let written = (BURST_WRITES * WRITE_BYTES) as f64;
    let mut report = Report::new(format!("burst: {BURST_WRITES} writes of {WRITE_BYTES} B in bulk, 2 PoPs"));
    report.tell("writes/s", format!("{:.0}", BURST_WRITES as f64 / took.as_secs_f64()));
    report.at_most("bytes on the wire / keys and values", wire.bytes(|_, _| true) as f64 / written, 1.25, 3);
    for (what, from, to) in [("there", 0, 1), ("back", 1, 0)] {
        let is = |a, b| (a, b) == (from, to);
        report.tell(
            format!("  {what}: bytes / keys and values"),
            format!("{:.3}", wire.bytes(is) as f64 / written),
        );
        let packets = wire.packets(is).max(1);
        report.tell(format!("  {what}: packets"), packets.to_string());
        report.tell(
            format!("  {what}: bytes a packet"),
            format!("{:.0}", wire.bytes(is) as f64 / packets as f64),
        );
    }
    report.tell("ms from the last answer until equal", format!("{:.0}", behind.as_secs_f64() * 1e3));
    report.notes.push(format!("most frequent lengths there: {}", wire.lengths(0, 1, LENGTHS_SHOWN)));
    report.notes.push(format!("most frequent lengths back:  {}", wire.lengths(1, 0, LENGTHS_SHOWN)));
    Ok(report)
}

pub(super) async fn ocean(place: &Apart, seed: u64) -> anyhow::Result<Report> {
    let (per_s, all) = (OCEAN_PACE.per_s, OCEAN_LINE);
    let mut report = Report::new(format!(
        "ocean: RTT {} ms, {:.1} % loss, {RATE_BYTES_PER_S} B/s with a queue of {QUEUE_BYTES} B,\n\
         {per_s} writes/s of {WRITE_BYTES} B ({:.0} % of the rate), {OCEAN_S} s each, 2 PoPs",
        2 * ONE_WAY.as_millis(),
        LOSS_PERMILLE as f64 / 10.0,
        RATE_SHARE * 100.0,
    ));
    // What is asked for, and what is to blame where it is not met.
    for (what, terms) in [
        ("all of it", all),
        ("without loss", Terms { loss_permille: 0, ..all }),
        ("without the limit of the rate", Terms { rate_bytes_per_s: None, ..all }),
        ("delay alone", Terms { delay: ONE_WAY, ..Terms::default() }),
    ] {
        report.tell(format!("{what}:"), "");
        cross(place, seed, terms, &mut report).await?;
    }
    Ok(report)
}

/// Writes over paths of these terms in both directions.
async fn cross(place: &Apart, seed: u64, terms: Terms, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::set_over(place, &["a", "b"], Options::default(), seed, terms).await?;
    let before = stage.wan.counts();
    let mut seen = paced(&stage, OCEAN_PACE).await?;
    let wire = Wire::between(before, stage.wan.counts());
    let behind = stage.agree().await?;
    stage.wan.check_counts()?;

    let there = |a, b| (a, b) == (0, 1);
    // Of all that was sent until the last was seen, over the time of writing: above 1, the line cannot keep up.
    let used = wire.bytes(there) as f64 / seen.took.as_secs_f64() / RATE_BYTES_PER_S as f64;
    report.tell("  writes/s", format!("{:.0}", seen.writes_per_s()));
    report.tell("  bytes there / what the line carries meanwhile", format!("{:.0} %", used * 100.0));
    let a_write = wire.bytes(|_, _| true) as f64 / seen.writes as f64;
    report.tell("  bytes on the wire for a write", format!("{a_write:.0}"));
    let counts = [wire.packets(there), wire.sum(|counts| counts.lost_packets, there)];
    let overflowed = wire.sum(|counts| counts.overflowed_packets, there);
    let counts = format!("{} / {} / {overflowed}", counts[0], counts[1]);
    report.tell("  packets there: sent / lost / without room", counts);
    let one_way_ms = ONE_WAY.as_secs_f64() * 1e3;
    seen.tell_visible(report, one_way_ms + 10.0, 4.0 * one_way_ms);
    report.tell("  ms from the last one seen until in step", format!("{:.0}", behind.as_secs_f64() * 1e3));
    Ok(())
}

/// How fast writes are made, and how they are watched.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) per_s: usize,
    pub(super) seconds: u64,
    /// One of so many is waited for at the other PoP.
    watched: usize,
    /// When reads of it begin after the answer, and the pause between two; none, and no pause, where not given.
    poll: Option<(Duration, Duration)>,
}

pub(super) struct Seen {
    writes: usize,
    took: Duration,
    /// Until the last was seen.
    took_all: Duration,
    /// From sending a write to its answer.
    answered: Vec<Duration>,
    /// From the answer to the first read at the other PoP that shows it.
    visible: Vec<Duration>,
}

impl Seen {
    /// How long writing and watching took.
    pub(super) fn took_all(&self) -> Duration {
        self.took_all
    }

    /// Milliseconds within which this share of the writes was visible.
    pub(super) fn visible_ms(&mut self, share: f64) -> f64 {
        quantile(&mut self.visible, share).as_secs_f64() * 1e3
    }

    pub(super) fn tell_visible(&mut self, report: &mut Report, p50_ms: f64, p99_ms: f64) {
        let answered_ms = |seen: &mut Self, share| quantile(&mut seen.answered, share).as_secs_f64() * 1e3;
        report.tell("  ms to the answer of a write, p50", format!("{:.2}", answered_ms(self, 0.5)));
        report.tell("  ms to the answer of a write, p99", format!("{:.2}", answered_ms(self, 0.99)));
        report.at_most("  ms from there until visible, p50", self.visible_ms(0.5), p50_ms, 2);
        report.at_most("  ms from there until visible, p99", self.visible_ms(0.99), p99_ms, 2);
        report.tell("  ms from there until visible, most", format!("{:.2}", self.visible_ms(1.0)));
    }

    fn writes_per_s(&self) -> f64 {
        self.writes as f64 / self.took.as_secs_f64()
    }
}

/// Writes at PoP 0 at a steady pace, whatever the answers take, and reads at PoP 1.
pub(super) async fn paced(stage: &Stage, pace: Pace) -> anyhow::Result<Seen> {
    let writes = pace.per_s * pace.seconds as usize;
    let mut tasks = JoinSet::new();
    let mut clock = tokio::time::interval(Duration::from_millis(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let started = Instant::now();
    let mut begun = 0;
    while begun < writes {
        clock.tick().await;
        let due = (started.elapsed().as_secs_f64() * pace.per_s as f64) as usize;
        while begun < due.min(writes) {
            let (writer, reader) = (stage.rests[0].clone(), stage.rests[1].clone());
            let poll = begun.is_multiple_of(pace.watched).then_some(pace.poll);
            tasks.spawn(write_and_watch(writer, reader, begun, poll));
            begun += 1;
        }
    }
    let took = started.elapsed();
    let mut seen = Seen { writes, took, took_all: took, answered: Vec::new(), visible: Vec::new() };
    while let Some(task) = tasks.join_next().await {
        let (answered, visible) = task??;
        seen.answered.push(answered);
        seen.visible.extend(visible);
    }
    seen.took_all = started.elapsed();
    Ok(seen)
}

/// Writes one key; with `poll`, also reads it at the other PoP until it is there.
async fn write_and_watch(
    writer: Rest,
    reader: Rest,
    number: usize,
    poll: Option<Option<(Duration, Duration)>>,
) -> anyhow::Result<(Duration, Option<Duration>)> {
    let key = key("live", number);
    let sent = Instant::now();
    let answer = writer.put(&key, value(number as u64)).await?;
    let acked = Instant::now();
    ensure!(answer.status == 200, "a write: {} {}", answer.status, answer.text());
    let Some(poll) = poll else { return Ok((acked - sent, None)) };
    if let Some((first, _)) = poll {
        tokio::time::sleep(first).await;
    }
    loop {
        if reader.read(&key).await?.is_some_and(|value| value.len() == VALUE_BYTES) {
            return Ok((acked - sent, Some(acked.elapsed())));
        }
        ensure!(acked.elapsed() < VISIBLE_WITHIN, "{key} is not visible after {VISIBLE_WITHIN:?}");
        if let Some((_, pause)) = poll {
            tokio::time::sleep(pause).await;
        }
    }
}
