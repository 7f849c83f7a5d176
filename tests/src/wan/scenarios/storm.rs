//! Six PoPs that all write, under everything that can happen to them at once: cuts of one or both directions, loss,
//! delays, rates that fall off a cliff, `kill -9` and restarts, with a budget for each. When it is over all must be in
//! step, and hold every write that was acknowledged. The seed chooses what happens and when; how far the nodes have come by then it cannot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use super::Request;
use super::caps::Caps;
use super::report::Report;
use super::stage::Stage;
use crate::cluster::{Options, Rest, verify};
use crate::ledger::{Change, Ledger, Mix};
use crate::random::Random;
use crate::wan::{Apart, Terms};

const REGIONS: [&str; 6] = ["a", "a", "b", "b", "c", "c"];
/// Short, so that deletes are dropped many times in a storm.
const EPOCH_MS: u64 = 5_000;
const MIX: Mix = Mix { sizes: &[(60, 100), (30, 1_000), (10, 8 << 10)], delete_percent: 15 };
/// What each PoP may send: less than its writers would have it send, so that budgets are full in calm weather.
const BUDGET_BYTES_PER_S: u64 = 400_000;
/// How often what was sent is looked at.
const LOOKED_EVERY: Duration = Duration::from_millis(50);
/// Writers of each PoP, and keys of each writer.
const WRITERS: usize = 2;
const KEYS: u64 = 100;
/// The pause of a writer after each write, and after one that was not acknowledged.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// From one change of the weather to the next, in milliseconds.
const CALM_MS: (u64, u64) = (100, 1_500);
/// How long a killed PoP stays away, in milliseconds.
const AWAY_MS: (u64, u64) = (200, 12_000);
/// PoPs that are away at once.
const MAX_AWAY: usize = 2;
/// Wrong values that an error shows.
const SHOWN_WRONG: usize = 5;

pub(super) async fn run(place: &Apart, request: Request) -> anyhow::Result<Report> {
    let more_settings = format!("[budgets]\nnode_bytes_per_s = {BUDGET_BYTES_PER_S}\n");
    let options = Options { epoch_ms: EPOCH_MS, more_settings, ..Options::default() };
    let mut stage = Stage::set(place, &REGIONS, options, request.seed).await?;
    let ended = weather(&mut stage, request).await;
    ended.with_context(|| {
        let logs = (0..REGIONS.len()).map(|pop| stage.cluster.log_tail(pop));
        format!("seed {}\n{}", request.seed, logs.collect::<Vec<_>>().join("\n"))
    })
}

async fn weather(stage: &mut Stage, request: Request) -> anyhow::Result<Report> {
    let ledger = Arc::new(Ledger::new(request.seed, MIX));
    let writers = Writers::start(&stage.rests, &ledger);
    let mut storm = Storm::new(request.seed);
    let mut caps = Caps::new(BUDGET_BYTES_PER_S);
    let lasts = Duration::from_secs(request.minutes * 60);
    let started = Instant::now();
    while started.elapsed() < lasts {
        storm.change(stage)?;
        let until = Instant::now() + storm.between_ms(CALM_MS).min(lasts.saturating_sub(started.elapsed()));
        while Instant::now() < until {
            tokio::time::sleep(LOOKED_EVERY.min(until - Instant::now())).await;
            caps.look(REGIONS.len(), &stage.wan.counts());
        }
    }
    storm.end(stage)?;
    let (answered, unanswered) = writers.stop().await?;
    let acked = ledger.acked();
    let behind = stage.agree().await.context("after the storm")?;
    let mut wrong = Vec::new();
    for rest in &stage.rests {
        wrong.extend(verify(rest, &ledger, &acked).await.wrong);
    }
    stage.wan.check_counts()?;
    if !wrong.is_empty() {
        bail!("{} values are wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(SHOWN_WRONG)]);
    }
    let mut report = Report::new(format!(
        "storm: {} PoPs, {} min, seed {}: all in step, nothing lost",
        REGIONS.len(),
        request.minutes,
        request.seed
    ));
    report.tell("writes acknowledged", answered.to_string());
    report.tell("writes without an answer, or refused", unanswered.to_string());
    report.tell("keys", acked.len().to_string());
    for (what, times) in &storm.tally {
        report.tell(*what, times.to_string());
    }
    let counts = stage.wan.counts();
    let sum = |of: fn(&crate::wan::Counts) -> u64| counts.values().map(of).sum::<u64>().to_string();
    report.tell("packets sent", sum(|counts| counts.sent_packets));
    report.tell("packets lost by chance", sum(|counts| counts.lost_packets));
    report.tell("packets that found no room", sum(|counts| counts.overflowed_packets));
    report.tell("packets cut off", sum(|counts| counts.cut_packets));
    report.tell("s from the end of the storm until in step", format!("{:.1}", behind.as_secs_f64()));
    caps.tell(&mut report);
    report.at_most("values lost or foreign, of all PoPs", 0.0, 0.0, 0);
    Ok(report)
}

/// What happens next, and what has happened.
struct Storm {
    random: Random,
    /// When each PoP that is away comes back.
    away: BTreeMap<usize, Instant>,
    tally: BTreeMap<&'static str, u64>,
}

impl Storm {
    fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), away: BTreeMap::new(), tally: BTreeMap::new() }
    }

    /// Brings back who was away long enough, and lets one thing happen.
    fn change(&mut self, stage: &mut Stage) -> anyhow::Result<()> {
        let now = Instant::now();
        let back: Vec<usize> =
            self.away.iter().filter(|(_, until)| **until <= now).map(|(pop, _)| *pop).collect();
        for pop in back {
            self.away.remove(&pop);
            stage.cluster.start(pop)?;
        }
        let (from, to) = self.pair();
        match self.random.below(10) {
            0 => self.cut(stage, &[(from, to)]),
            1 => self.cut(stage, &[(from, to), (to, from)]),
            2..=4 => {
                self.count("paths healed");
                stage.wan.set(from, to, Terms::default());
                stage.wan.cut(from, to, false);
                stage.wan.cut(to, from, false);
            }
            5..=7 => {
                self.count("paths with new delay, loss and rate");
                let terms = self.terms();
                stage.wan.set(from, to, terms);
            }
            8 if self.away.len() < MAX_AWAY && !self.away.contains_key(&from) => {
                self.count("kill -9");
                stage.cluster.kill9(from)?;
                let away = self.between_ms(AWAY_MS);
                self.away.insert(from, now + away);
            }
            9 if !self.away.contains_key(&from) => {
                self.count("kill -9 and started again at once");
                stage.cluster.kill9(from)?;
                stage.cluster.start(from)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Heals all paths and brings everybody back.
    fn end(&mut self, stage: &mut Stage) -> anyhow::Result<()> {
        stage.wan.set_all(|_, _| Terms::default());
        for from in 0..REGIONS.len() {
            (0..REGIONS.len()).filter(|to| *to != from).for_each(|to| stage.wan.cut(from, to, false));
        }
        for (pop, _) in std::mem::take(&mut self.away) {
            stage.cluster.start(pop)?;
        }
        Ok(())
    }

    fn cut(&mut self, stage: &Stage, paths: &[(usize, usize)]) {
        self.count(if paths.len() == 1 { "cuts of one direction" } else { "cuts of both directions" });
        for (from, to) in paths {
            stage.wan.cut(*from, *to, true);
        }
    }

    fn terms(&mut self) -> Terms {
        Terms {
            delay: self.between_ms((0, 100)),
            jitter: self.between_ms((0, 20)),
            loss_permille: *self.random.pick(&[0, 5, 50, 200]),
            rate_bytes_per_s: *self.random.pick(&[None, Some(1_000_000), Some(64_000), Some(16_000)]),
            queue_bytes: *self.random.pick(&[8 << 10, 64 << 10]),
            is_cut: false,
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let pops = REGIONS.len() as u64;
        let from = self.random.below(pops);
        (from as usize, ((from + 1 + self.random.below(pops - 1)) % pops) as usize)
    }

    fn between_ms(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(least + self.random.below(most - least + 1))
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }
}

/// Writers that go on whatever becomes of their PoP, each with keys of its own.
struct Writers {
    tasks: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    /// Acknowledged, and not.
    writes: Arc<[AtomicU64; 2]>,
}

impl Writers {
    fn start(rests: &[Rest], ledger: &Arc<Ledger>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let writes = Arc::new([const { AtomicU64::new(0) }; 2]);
        let mut tasks = JoinSet::new();
        for (pop, rest) in rests.iter().enumerate() {
            for writer in 0..WRITERS {
                let (rest, ledger) = (rest.clone(), ledger.clone());
                let (is_over, writes) = (is_over.clone(), writes.clone());
                tasks.spawn(async move {
                    let mut random = Random::new(Random::fresh_seed());
                    while !is_over.load(Ordering::SeqCst) {
                        let key = format!("p{pop}-w{writer}-k{}", random.below(KEYS));
                        let is_acked = write(&rest, &ledger, &key).await;
                        writes[usize::from(!is_acked)].fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(if is_acked { WRITE_PAUSE } else { RETRY_PAUSE }).await;
                    }
                });
            }
        }
        Self { tasks, is_over, writes }
    }

    /// Ends them after the write they are at, and gives how many writes were acknowledged, and how many not.
    async fn stop(mut self) -> anyhow::Result<(u64, u64)> {
        self.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a writer")?;
        }
        let [acked, not_acked] = &*self.writes;
        Ok((acked.load(Ordering::SeqCst), not_acked.load(Ordering::SeqCst)))
    }
}

/// Whether the write was acknowledged.
async fn write(rest: &Rest, ledger: &Ledger, key: &str) -> bool {
    let (number, change) = ledger.issue(key);
    let answer = match change {
        Change::Put(value) => rest.put(key, value).await,
        Change::Delete => rest.delete(key).await,
    };
    let is_acked = answer.is_ok_and(|answer| (200..300).contains(&answer.status));
    if is_acked {
        ledger.ack(key, number);
    }
    is_acked
}
