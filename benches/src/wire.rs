//! Two PoPs: what a replicated write costs on the wire, and when it is visible at the peer.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;

use crate::cluster::{self, Cluster, Wire};
use crate::load::{self, Connection, Protocol};
use crate::report::{Tables, whole};
use crate::text;

/// A PoP's figures of its links are at most this old, and so is a heartbeat.
const METRICS_AGE: Duration = Duration::from_millis(1_500);
/// How long the links are watched without writes.
const IDLE: Duration = Duration::from_secs(5);
/// How long a write may take until it is visible at the peer.
const MAX_VISIBLE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Writes a second, paced
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long paced writes last, in seconds
    #[arg(long, default_value_t = 20)]
    paced_s: u64,
    /// How long writes at full speed last, in seconds
    #[arg(long, default_value_t = 10)]
    full_s: u64,
    /// Writers at full speed
    #[arg(long, default_value_t = 64)]
    writers: usize,
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let cluster = Cluster::start(folder, 2).await?;
    let namespace = cluster.namespace(0, "bench").await?.id().to_owned();
    cluster.wait_equal().await?;
    let idle_per_s = idle(&cluster).await?;

    let before = settled(&cluster, 0).await?;
    let visible = paced(options, &cluster, &namespace).await?;
    let paced_writes = visible.writes;
    let paced = since(before, settled(&cluster, 0).await?);

    let puts = cluster::requests(20_000, |key, value| cluster::put(&namespace, key, value));
    let writers = load::connect(cluster.address(0), Protocol::Http, options.writers).await?;
    let before = settled(&cluster, 0).await?;
    let (_, outcome) = load::drive(writers, &puts, Duration::from_secs(options.full_s)).await?;
    let written = Instant::now();
    cluster.wait_equal().await?;
    let behind = written.elapsed();
    let full = since(before, settled(&cluster, 0).await?);

    let user_bytes = (text::KEY_BYTES + text::VALUE_BYTES) as f64;
    let row = |what: String, writes: f64, rate: f64, wire: Wire| {
        let per_write = |bytes: u64| bytes as f64 / writes;
        [
            what,
            whole(rate),
            format!("{:.0}", per_write(wire.sent)),
            format!("{:.0}", per_write(wire.received)),
            format!("{:.2}", per_write(wire.total()) / user_bytes),
        ]
    };
    let rows = [
        row(format!("paced at {}/s", options.rate), paced_writes as f64, visible.rate(), paced),
        row(format!("{} writers", options.writers), outcome.requests as f64, outcome.per_second(), full),
    ];
    let title = format!(
        "One link, bytes of UDP payload (without 28 bytes of IP and UDP a datagram) for a write of {user_bytes} bytes; \
         idle {idle_per_s:.0} bytes/s; at full speed the peer was level {:.0} ms after the last answer",
        behind.as_secs_f64() * 1e3
    );
    tables.print(
        &title,
        ["writes", "writes/s", "sent a write", "received a write", "both / user bytes"],
        &rows,
    );

    let us = |histogram: &Histogram<u64>, quantile| whole(histogram.value_at_quantile(quantile) as f64 / 1e3);
    let row = |what: &str, histogram: &Histogram<u64>| {
        [what.to_owned(), us(histogram, 0.5), us(histogram, 0.99), us(histogram, 1.0)]
    };
    tables.print(
        "When a write is visible at the peer, read there in a tight loop",
        ["measured", "p50 us", "p99 us", "max us"],
        &[
            row("from sending the PUT to its answer", &visible.acked_ns),
            row("from sending the PUT to the first GET that shows it", &visible.seen_ns),
            row("from the PUT's answer to that GET (0 where it came first)", &visible.after_ack_ns),
            row("one GET of the tight loop", &visible.get_ns),
        ],
    );
    Ok(())
}

/// Bytes a second of PoP 0's links, both ways, on which nothing is written.
pub(super) async fn idle(cluster: &Cluster) -> anyhow::Result<f64> {
    let before = settled(cluster, 0).await?;
    let started = Instant::now();
    tokio::time::sleep(IDLE).await;
    let after = settled(cluster, 0).await?;
    Ok(since(before, after).total() as f64 / started.elapsed().as_secs_f64())
}

/// The figures of this PoP's links, once they cover all that has happened.
pub(super) async fn settled(cluster: &Cluster, pop: usize) -> anyhow::Result<Wire> {
    tokio::time::sleep(METRICS_AGE).await;
    cluster.wire(pop).await
}

pub(super) fn since(before: Wire, after: Wire) -> Wire {
    Wire { sent: after.sent - before.sent, received: after.received - before.received }
}

/// What paced writes showed.
struct Visible {
    writes: u64,
    lasted: Duration,
    acked_ns: Histogram<u64>,
    seen_ns: Histogram<u64>,
    after_ack_ns: Histogram<u64>,
    get_ns: Histogram<u64>,
}

impl Visible {
    fn rate(&self) -> f64 {
        self.writes as f64 / self.lasted.as_secs_f64()
    }
}

/// Writes at PoP 0 at an even pace, and reads each key at PoP 1 until it is there.
async fn paced(options: &Options, cluster: &Cluster, namespace: &str) -> anyhow::Result<Visible> {
    let mut writer = Connection::open(cluster.address(0), Protocol::Http).await?;
    let mut reader = Connection::open(cluster.address(1), Protocol::Http).await?;
    let [mut acked_ns, mut seen_ns, mut after_ack_ns] = [(); 3].map(|()| load::latencies());
    let mut get_ns = load::latencies();
    let nanos = |duration: Duration| duration.as_nanos() as u64;
    let writes = u64::from(options.rate) * options.paced_s;
    let started = Instant::now();
    for number in 0..writes {
        let (key, value) = (text::key(1_000_000 + number), text::value(number));
        let (put, get) = (cluster::put(namespace, &key, &value), cluster::get(namespace, &key));
        let due = started + Duration::from_secs(1) * u32::try_from(number)? / options.rate;
        tokio::time::sleep_until(due.into()).await;
        let sent = Instant::now();
        let write = async {
            writer.exchange(&put).await?;
            anyhow::Ok(Instant::now())
        };
        let read = async {
            let mut asked = Instant::now();
            loop {
                let found = reader.find(&get).await?.is_some();
                let answered = Instant::now();
                get_ns.saturating_record(nanos(answered - asked));
                if found {
                    return Ok(answered);
                }
                ensure!(answered - sent < MAX_VISIBLE, "{key} is not visible within {MAX_VISIBLE:?}");
                asked = answered;
            }
        };
        let (acked, seen) = tokio::try_join!(write, read)?;
        acked_ns.saturating_record(nanos(acked - sent));
        seen_ns.saturating_record(nanos(seen - sent));
        after_ack_ns.saturating_record(nanos(seen.saturating_duration_since(acked)));
    }
    Ok(Visible { writes, lasted: started.elapsed(), acked_ns, seen_ns, after_ack_ns, get_ns })
}
