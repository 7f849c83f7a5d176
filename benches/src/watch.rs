//! Many who watch one namespace, and when each hears of a write.
//!
//! The watchers share this program's one thread, so the last of them hears of an event when all others' was read: the
//! figures are of the machine with both ends on it.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use littoral::api::watch::WatchType;
use littoral::{Namespace, PutOptions, Watch, WatchOptions};
use tokio::task::{JoinSet, LocalSet};

use crate::cluster::Cluster;
use crate::load;
use crate::report::{Tables, whole};

/// How long an event may take.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many watch
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=2_048))]
    watchers: u64,
    /// Writes a second, at an even pace
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How many writes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    writes: u32,
}

/// When each write was acknowledged, by its number, and when watchers heard of it.
#[derive(Default)]
struct Times {
    acked: Vec<Option<Instant>>,
    heard: Vec<(u32, Instant)>,
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let cluster = Cluster::start(folder, 1).await?;
    let namespace = cluster.namespace(0, "watched").await?;
    let times = Rc::new(RefCell::new(Times::default()));
    let sent = LocalSet::new().run_until(measure(options, &namespace, times.clone())).await?;
    let Times { acked, heard } = std::mem::take(&mut *times.borrow_mut());
    let expected = options.watchers * u64::from(options.writes);
    ensure!(heard.len() as u64 == expected, "{} events were told, {expected} were expected", heard.len());
    let [mut after_sent, mut after_ack] = [(); 2].map(|()| load::latencies());
    for (number, at) in heard {
        let acked = acked[number as usize].context("a write that was not acknowledged")?;
        after_sent.saturating_record((at - sent[number as usize]).as_nanos() as u64);
        after_ack.saturating_record(at.saturating_duration_since(acked).as_nanos() as u64);
    }
    let us = |histogram: &hdrhistogram::Histogram<u64>, quantile| {
        whole(histogram.value_at_quantile(quantile) as f64 / 1e3)
    };
    let row = |what: &str, histogram: &hdrhistogram::Histogram<u64>| {
        [what.to_owned(), us(histogram, 0.5), us(histogram, 0.99), us(histogram, 1.0)]
    };
    tables.print(
        &format!("{} watchers, {} durable writes at {}/s", options.watchers, options.writes, options.rate),
        ["measured", "p50 us", "p99 us", "max us"],
        &[
            row("from sending the PUT to the event", &after_sent),
            row("from the PUT's answer to the event (0 where it came first)", &after_ack),
        ],
    );
    Ok(())
}

/// Writes while all watch. Gives when each write was sent.
async fn measure(
    options: &Options,
    namespace: &Namespace,
    times: Rc<RefCell<Times>>,
) -> anyhow::Result<Vec<Instant>> {
    times.borrow_mut().acked = vec![None; options.writes as usize];
    let mut watchers = JoinSet::new();
    for _ in 0..options.watchers {
        let mut watch = namespace.watch(WatchOptions::default());
        while watch.next().await?.what != WatchType::Sync {}
        watchers.spawn_local(listen(watch, options.writes, times.clone()));
    }
    let mut sent = Vec::new();
    let started = Instant::now();
    for number in 0..options.writes {
        let due = started + Duration::from_secs(1) * number / options.rate;
        tokio::time::sleep_until(due.into()).await;
        sent.push(Instant::now());
        namespace.put(&format!("key-{number}"), number.to_string(), PutOptions::default()).await?;
        times.borrow_mut().acked[number as usize] = Some(Instant::now());
    }
    while let Some(ended) = watchers.join_next().await {
        ended??;
    }
    Ok(sent)
}

async fn listen(mut watch: Watch, writes: u32, times: Rc<RefCell<Times>>) -> anyhow::Result<()> {
    let mut left = writes;
    while left > 0 {
        let event = tokio::time::timeout(TOLD_WITHIN, watch.next()).await.context("nothing was told")??;
        let at = Instant::now();
        if event.what == WatchType::Put {
            let number = event.value.context("a put without its value")?.parse()?;
            times.borrow_mut().heard.push((number, at));
            left -= 1;
        }
    }
    Ok(())
}
