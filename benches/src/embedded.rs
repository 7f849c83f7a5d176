//! Reads of a node in this process, beside what the store below it can do, and the same node over HTTP.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use hdrhistogram::Histogram;
use littoral::{Ack, Namespace, PutOptions};
use littoral_node::embedded::{Embedded, alone};
use littoral_node::storage::SledStore;
use replication::store::Batch;
use replication::{EntryId, NamespaceId, Store, keys};

use crate::cluster;
use crate::load::{self, Protocol};
use crate::report::{Tables, median, spread, whole};
use crate::text;

/// The cache of either store: all fits.
const CACHE_BYTES: u64 = 256 << 20;
/// Load before each measurement that does not count.
const WARM_UP: Duration = Duration::from_millis(200);
/// Reads between two looks at the clock that ends a measurement.
const READS_AT_ONCE: u64 = 64;
/// Who takes turns, in the order they do.
const NAMES: [&str; 3] = ["embedded get", "the store's own get", "HTTP get, one connection"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the contenders take turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each measurement takes, in milliseconds
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    lasting_ms: u64,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    keys: u64,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let lasting = Duration::from_millis(options.lasting_ms);
    let node = start(&folder.join("node")).await?;
    let kv = node.account(cluster::ACCOUNT).namespace_titled("bench").await?;
    let buffered = || PutOptions::default().ack(Ack::Buffered);
    for number in 0..options.keys {
        kv.put(&text::key(number), text::value(number), buffered()).await?;
    }
    let store = filled(&folder.join("bare"), options.keys)?;
    let names: Vec<String> = (0..options.keys).map(text::key).collect();
    let rows: Vec<_> = names.iter().map(|name| row(name)).collect();
    let requests = cluster::requests(options.keys, |key, _| cluster::get(kv.id(), key));
    let address = node.http_address().context("it serves HTTP")?;

    let mut figures = [const { Vec::new() }; NAMES.len()];
    for _ in 0..options.rounds {
        figures[0].push(embedded(&kv, &names, lasting).await?);
        figures[1].push(of_store(&store, &rows, lasting)?);
        figures[2].push(over_http(address, &requests, lasting).await?);
    }
    node.close().await?;
    print(options, &figures, tables);
    Ok(())
}

async fn start(folder: &Path) -> anyhow::Result<Embedded> {
    let mut config = alone(folder)?;
    config.storage.cache_bytes = CACHE_BYTES;
    config.http.tokens = vec![config::Token {
        account: cluster::ACCOUNT.parse()?,
        token: cluster::TOKEN.parse()?,
        cluster: false,
    }];
    let node = Embedded::open_with_http(config).await?;
    node.ready().await;
    Ok(node)
}

fn row(key: &str) -> Vec<u8> {
    keys::entry(&EntryId::value(NamespaceId([5; 16]), key.to_owned()))
}

/// A store with the same keys and values, and nothing else.
fn filled(folder: &Path, keys: u64) -> anyhow::Result<SledStore> {
    let mut store = SledStore::open(folder, CACHE_BYTES)?;
    let mut batch = Batch::new();
    for number in 0..keys {
        batch.insert(row(&text::key(number)), Some(text::value(number).into()));
    }
    store.commit(batch)?;
    store.flush()?;
    Ok(store)
}

async fn embedded(kv: &Namespace, names: &[String], lasting: Duration) -> anyhow::Result<Figures> {
    let mut last = None;
    for lasting in [WARM_UP, lasting] {
        let mut run = Run::begin()?;
        while run.began.elapsed() < lasting {
            for _ in 0..READS_AT_ONCE {
                let name = run.next(names);
                let asked = Instant::now();
                let value = kv.get(name).await?;
                run.note(asked);
                anyhow::ensure!(value.is_some(), "{name} is not there");
            }
        }
        last = Some(run.figures());
    }
    last.context("it was measured")
}

fn of_store(store: &SledStore, rows: &[Vec<u8>], lasting: Duration) -> anyhow::Result<Figures> {
    let mut last = None;
    for lasting in [WARM_UP, lasting] {
        let mut run = Run::begin()?;
        while run.began.elapsed() < lasting {
            for _ in 0..READS_AT_ONCE {
                let row = run.next(rows);
                let asked = Instant::now();
                let value = store.read(row)?;
                run.note(asked);
                anyhow::ensure!(value.is_some(), "a row is not there");
            }
        }
        last = Some(run.figures());
    }
    last.context("it was measured")
}

async fn over_http(
    address: std::net::SocketAddr,
    requests: &Rc<[Bytes]>,
    lasting: Duration,
) -> anyhow::Result<Figures> {
    let connections = load::connect(address, Protocol::Http, 1).await?;
    let (connections, _) = load::drive(connections, requests, WARM_UP).await?;
    let (_, outcome) = load::drive(connections, requests, lasting).await?;
    Ok(Figures {
        per_second: outcome.per_second(),
        p50_us: outcome.latency_us(0.5),
        p99_us: outcome.latency_us(0.99),
    })
}

/// Reads under way, one after the other, of keys in an order without neighbours.
struct Run {
    began: Instant,
    took_ns: Histogram<u64>,
    asked: usize,
}

impl Run {
    fn begin() -> anyhow::Result<Self> {
        Ok(Self { began: Instant::now(), took_ns: Histogram::new(3)?, asked: 0 })
    }

    fn next<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        // A large prime, so that every one has its turn.
        self.asked = (self.asked + 7_368_787) % all.len();
        &all[self.asked]
    }

    fn note(&mut self, asked: Instant) {
        self.took_ns.saturating_record(asked.elapsed().as_nanos() as u64);
    }

    fn figures(&self) -> Figures {
        let quantile_us = |quantile| self.took_ns.value_at_quantile(quantile) as f64 / 1_000.0;
        Figures {
            per_second: self.took_ns.len() as f64 / self.began.elapsed().as_secs_f64(),
            p50_us: quantile_us(0.5),
            p99_us: quantile_us(0.99),
        }
    }
}

fn print(options: &Options, figures: &[Vec<Figures>; NAMES.len()], tables: &mut Tables) {
    let rows: Vec<_> = NAMES
        .iter()
        .zip(figures)
        .map(|(name, figures)| {
            let of = |field: fn(&Figures) -> f64| median(figures.iter().map(field));
            let us = |figure: f64| format!("{figure:.2}");
            [
                name.to_string(),
                whole(of(|figures| figures.per_second)),
                us(of(|figures| figures.p50_us)),
                us(of(|figures| figures.p99_us)),
            ]
        })
        .collect();
    let title = format!(
        "{} keys, values of {} bytes, one reader, medians of {} rounds of {} ms",
        options.keys,
        text::VALUE_BYTES,
        options.rounds,
        options.lasting_ms
    );
    tables.print(&title, ["read", "reads/s", "p50 us", "p99 us"], &rows);
    let ratios: Vec<_> = [1, 2]
        .map(|to| {
            let ratio = |field: fn(&Figures) -> f64| {
                let pairs = figures[0].iter().zip(&figures[to]);
                spread(&pairs.map(|(own, other)| field(own) / field(other)).collect::<Vec<_>>())
            };
            [
                format!("embedded / {}", NAMES[to]),
                ratio(|figures| figures.per_second),
                ratio(|figures| figures.p50_us),
                ratio(|figures| figures.p99_us),
            ]
        })
        .into();
    let title = "The embedded get's figure over the other's, by round: median (least to greatest)";
    tables.print(title, ["read", "rate", "p50", "p99"], &ratios);
}
