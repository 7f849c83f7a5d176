//! Two PoPs, of which one is away while the other takes writes: how long it takes to catch up, and what
//! that costs on the wire.

use std::path::Path;
use std::time::{Duration, Instant};

use littoral::api::kv::BulkPair;

use crate::cluster::Cluster;
use crate::report::{Tables, whole};
use crate::text;

/// Pairs in one bulk request: the limit of the API.
const BULK_KEYS: u64 = 10_000;
/// Metrics are at most this old, and so is a heartbeat.
const METRICS_AGE: Duration = Duration::from_millis(1_500);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Writes missed; each to a key of its own
    #[arg(long, default_value_t = 100_000)]
    writes: u64,
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(folder, 2).await?;
    let namespace = cluster.namespace(0, "bench").await?;
    cluster.wait_equal().await?;
    cluster.stop_pop(1)?;

    let loading = Instant::now();
    for first in (0..options.writes).step_by(BULK_KEYS as usize) {
        let numbers = first..options.writes.min(first + BULK_KEYS);
        namespace.bulk_put(&numbers.map(pair).collect::<Vec<_>>()).await?;
    }
    let loaded = loading.elapsed();

    let cpu_before_us = cluster.server(0)?.cpu_us()?;
    let started = Instant::now();
    cluster.start_pop(1)?;
    cluster.wait_ready(1).await?;
    let ready = started.elapsed();
    while !cluster.status(1).await?.peers.iter().any(|peer| peer.connected) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let linked = started.elapsed();
    cluster.wait_equal().await?;
    let equal = started.elapsed();
    let sender_us = cluster.server(0)?.cpu_us()? - cpu_before_us;
    let receiver_us = cluster.server(1)?.cpu_us()?;
    tokio::time::sleep(METRICS_AGE).await;
    // Of the PoP that started anew. The figures of UDP are those of its present link alone; of frames, of all.
    let wire = cluster.wire(1).await?;
    let frames = cluster.metric(1, "littoral_link_received_bytes").await?;
    let links = cluster.links(1)?;

    let user_bytes = options.writes * (text::KEY_BYTES + text::VALUE_BYTES) as u64;
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let share = |bytes: u64| format!("{} ({:.3})", whole(bytes as f64), bytes as f64 / user_bytes as f64);
    let catching = (equal - linked).as_secs_f64();
    let row = |what: &str, figure: String| [what.to_owned(), figure];
    let rows = [
        row("written in bulk at the other PoP", seconds(loaded)),
        row("from the start of the process: ready", seconds(ready)),
        row("linked", seconds(linked)),
        row("equal vectors and roots", seconds(equal)),
        row("writes caught up a second, from link to equal", whole(options.writes as f64 / catching)),
        row("CPU of the sender, us a write", format!("{:.1}", sender_us / options.writes as f64)),
        row(
            "CPU of the receiver, start included, us a write",
            format!("{:.1}", receiver_us / options.writes as f64),
        ),
        row("bytes of keys and values", whole(user_bytes as f64)),
        row("bytes of frames received (over keys and values)", share(frames)),
        row("UDP payload received over the last link", share(wire.received)),
        row("UDP payload sent back over it", share(wire.sent)),
        row("links it took", links.to_string()),
    ];
    tables.print(&format!("{} missed writes", whole(options.writes as f64)), ["", "figure"], &rows);
    Ok(())
}

fn pair(number: u64) -> BulkPair {
    BulkPair { key: text::key(number), value: text::value(number), ..BulkPair::default() }
}
