//! What every scenario starts from: a cluster over the wide-area network with a namespace all PoPs know, and the
//! questions all of them ask: does everybody hold the same, and what went over the wire since.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use littoral::api::Status;

use crate::cluster::{Cluster, Options, Rest};
use crate::random::Random;
use crate::wan::{Apart, Counts, Terms, Wan};

/// How soon PoPs must agree once nothing is written and every path is open.
pub(super) const AGREE_WITHIN: Duration = Duration::from_secs(120);
/// The bytes of each value written.
pub(super) const VALUE_BYTES: usize = 100;
/// The bytes of each key written.
pub(super) const KEY_BYTES: usize = 16;
/// The bytes that a client writes with one key and value.
pub(super) const WRITE_BYTES: usize = KEY_BYTES + VALUE_BYTES;

/// The pause between two looks at something awaited.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// Pairs in one bulk request.
const BULK_PAIRS: usize = 5_000;

/// The network, the cluster on it, and a namespace.
pub struct Stage {
    /// The nodes; they go before the network does.
    pub cluster: Cluster,
    /// The network.
    pub wan: Wan,
    /// A client of each PoP.
    pub rests: Vec<Rest>,
}

impl Stage {
    /// A PoP for each region named, all linked with all and in step.
    pub async fn set(place: &Apart, regions: &[&str], options: Options, seed: u64) -> anyhow::Result<Self> {
        Self::set_over(place, regions, options, seed, Terms::default()).await
    }

    /// As [`Stage::set`], with all paths of these terms from the beginning.
    pub async fn set_over(
        place: &Apart,
        regions: &[&str],
        options: Options,
        seed: u64,
        terms: Terms,
    ) -> anyhow::Result<Self> {
        let wan = Wan::new(place, regions.len(), seed)?;
        wan.set_all(|_, _| terms);
        let sites = regions.iter().enumerate().map(|(site, region)| wan.site(site, region)).collect();
        let cluster = Cluster::started(Options { pops: regions.len(), sites, ..options }).await?;
        let namespace = cluster.rest(0, "").create_namespace("wan").await?;
        let rests = (0..regions.len()).map(|pop| cluster.rest(pop, &namespace)).collect();
        let stage = Self { cluster, wan, rests };
        stage.agree().await?;
        Ok(stage)
    }

    /// Waits until all PoPs are linked with all and hold the same: equal vectors, equal roots and no lag known to any.
    /// Gives how long it took.
    pub async fn agree(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            let statuses = self.statuses().await;
            match statuses.and_then(|statuses| differs(&statuses)) {
                Ok(()) => return Ok(started.elapsed()),
                Err(why) if started.elapsed() > AGREE_WITHIN => {
                    return Err(why.context(format!("not in step after {AGREE_WITHIN:?}")));
                }
                Err(_) => tokio::time::sleep(POLL_PAUSE).await,
            }
        }
    }

    /// Waits until two PoPs have equal roots and vectors, whatever they know of each other. Gives how long it took.
    pub async fn equal(&self, one: usize, other: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        loop {
            if let (Ok(one), Ok(other)) = (self.status(one).await, self.status(other).await)
                && one.root == other.root
                && held(&one) == held(&other)
            {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < AGREE_WITHIN, "not equal after {AGREE_WITHIN:?}");
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    /// Waits until a PoP has no link, or one, to another. Gives how long it took.
    pub async fn linked(&self, pop: usize, other: usize, is_linked: bool) -> anyhow::Result<Duration> {
        let (started, other) = (Instant::now(), format!("pop-{other}"));
        loop {
            if let Ok(status) = self.status(pop).await
                && status.peers.iter().any(|peer| peer.pop == other && peer.connected) == is_linked
            {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < AGREE_WITHIN, "{other} stays as it was for {AGREE_WITHIN:?}");
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    /// Writes so many pairs under fresh keys that start with `prefix` (of 4 letters), in bulk requests of which two
    /// are under way at once.
    pub async fn write_bulk(&self, pop: usize, prefix: &str, writes: usize) -> anyhow::Result<Duration> {
        let numbers: Vec<usize> = (0..writes).collect();
        let started = Instant::now();
        let (mut at, mut under_way) = (0, tokio::task::JoinSet::new());
        while at < writes || !under_way.is_empty() {
            while at < writes && under_way.len() < 2 {
                let part = &numbers[at..writes.min(at + BULK_PAIRS)];
                let pairs: Vec<_> =
                    part.iter().map(|number| (key(prefix, *number), value(*number as u64))).collect();
                at += part.len();
                let rest = self.rests[pop].clone();
                under_way.spawn(async move { rest.put_bulk(&pairs).await });
            }
            under_way.join_next().await.context("one is under way")???;
        }
        Ok(started.elapsed())
    }

    pub(super) async fn status(&self, pop: usize) -> anyhow::Result<Status> {
        let answer = self.rests[pop].page("/v1/status").await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    async fn statuses(&self) -> anyhow::Result<Vec<Status>> {
        let mut statuses = Vec::new();
        for pop in 0..self.rests.len() {
            statuses.push(self.status(pop).await?);
        }
        Ok(statuses)
    }
}

/// What went over some paths between two moments.
pub(super) struct Wire {
    before: BTreeMap<(usize, usize), Counts>,
    after: BTreeMap<(usize, usize), Counts>,
}

impl Wire {
    pub(super) fn between(
        before: BTreeMap<(usize, usize), Counts>,
        after: BTreeMap<(usize, usize), Counts>,
    ) -> Self {
        Self { before, after }
    }

    /// The sum of a figure over the paths from which and to which `of` is true.
    pub(super) fn sum(&self, figure: impl Fn(&Counts) -> u64, of: impl Fn(usize, usize) -> bool) -> u64 {
        let pairs = self.after.iter().filter(|((from, to), _)| of(*from, *to));
        pairs.map(|(pair, after)| figure(after) - self.before.get(pair).map_or(0, &figure)).sum()
    }

    pub(super) fn bytes(&self, of: impl Fn(usize, usize) -> bool) -> u64 {
        self.sum(|counts| counts.sent_bytes, of)
    }

    pub(super) fn packets(&self, of: impl Fn(usize, usize) -> bool) -> u64 {
        self.sum(|counts| counts.sent_packets, of)
    }

    /// The lengths of the packets of one direction that were sent most often, with how often.
    pub(super) fn lengths(&self, from: usize, to: usize, shown: usize) -> String {
        let (before, after) = (&self.before[&(from, to)].lengths, &self.after[&(from, to)].lengths);
        let mut lengths: Vec<(u64, usize)> = after
            .iter()
            .map(|(length, count)| (count - before.get(length).unwrap_or(&0), *length))
            .filter(|(count, _)| *count > 0)
            .collect();
        lengths.sort_unstable_by(|one, other| other.cmp(one));
        let shown = lengths.iter().take(shown).map(|(count, length)| format!("{length} B x {count}"));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// A key of [`KEY_BYTES`].
pub(super) fn key(prefix: &str, number: usize) -> String {
    assert_eq!(prefix.len(), 4, "a prefix that makes keys of another length");
    format!("{prefix}{number:012}")
}

/// A value of [`VALUE_BYTES`]: random bytes, so that there is nothing to compress.
pub(super) fn value(number: u64) -> Vec<u8> {
    let mut value = vec![0; VALUE_BYTES];
    Random::new(number).fill(&mut value);
    value
}

/// A value of so many random bytes, unlike any other's.
pub(super) fn large_value(number: usize, bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    Random::new(u64::MAX - number as u64).fill(&mut value);
    value
}

/// The value below which this share of the times is; they are sorted by it.
pub(super) fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn held(status: &Status) -> Vec<(&str, u64, u64)> {
    let mut held: Vec<_> =
        status.vector.iter().map(|held| (held.replica.as_str(), held.wall_ms, held.ops)).collect();
    held.sort_unstable();
    held
}

/// Says what the PoPs differ in, if anything.
fn differs(statuses: &[Status]) -> anyhow::Result<()> {
    for status in statuses {
        let first = &statuses[0];
        ensure!(
            status.peers.iter().filter(|peer| peer.connected).count() + 1 >= statuses.len(),
            "{} is not linked with all: {:?}",
            status.pop,
            status.peers
        );
        ensure!(held(status) == held(first), "{} and {} hold different events", status.pop, first.pop);
        ensure!(status.root == first.root, "{} and {} have different roots", status.pop, first.pop);
        let behind = status.lag.iter().find(|lag| lag.ops > 0);
        ensure!(behind.is_none(), "{} knows of {behind:?}", status.pop);
    }
    Ok(())
}
