//! Group commit in this process: durable writes through the engine, beside what the store and the disk
//! below it can do, so that it shows where the time goes.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use littoral_node::engine::{self, Ack, Engine, Write, WriteError};
use littoral_node::storage::SledStore;
use replication::store::Batch;
use replication::{DigestKey, NamespaceId, Payload, Store, Value, keys};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::report::{Tables, median, whole};
use crate::text;

/// Writers at once; also the size of the groups that the layers below are given.
const WRITERS: [u64; 3] = [1, 8, 64];
/// Keys in all.
const KEYS: u64 = 100_000;
/// How long the engine may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// The cache: all that is written fits.
const CACHE_BYTES: u64 = 256 << 20;
/// How long the file is that is written beside the stores.
const LOG_BYTES: u64 = 64 << 20;
const NAMESPACE: NamespaceId = NamespaceId([5; 16]);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often each measurement is repeated
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each takes, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    lasting_ms: u64,
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let lasting = Duration::from_millis(options.lasting_ms);
    let engine = start(&folder.join("engine")).await?;
    let mut store = SledStore::open(&folder.join("bare"), CACHE_BYTES)?;
    let mut log = File::create(folder.join("log"))?;
    // Written before, as sled's is, so that a sync has no new size or blocks of the file to note.
    log.write_all(&vec![0; LOG_BYTES as usize])?;
    log.sync_all()?;
    let mut figures = [const { [const { Vec::new() }; 3] }; WRITERS.len()];
    for round in 0..options.rounds {
        for (writers, cell) in WRITERS.into_iter().zip(&mut figures) {
            let first = u64::from(round) * 31_337;
            cell[0].push(through_engine(&engine, writers, first, lasting).await?);
            cell[1].push(tokio::task::block_in_place(|| commits(&mut store, writers, first, lasting))?);
            cell[2].push(tokio::task::block_in_place(|| appends(&mut log, writers, lasting))?);
        }
    }
    engine.shutdown().await;
    let mut rows = Vec::new();
    for (writers, cell) in WRITERS.into_iter().zip(figures) {
        let per_second = cell.map(median);
        let ratio = |to: usize| format!("{:.2}", per_second[0] / per_second[to]);
        let [engine, store, log] = per_second.map(whole);
        rows.push([writers.to_string(), engine, store, log, ratio(1), ratio(2)]);
    }
    let title = format!(
        "Durable writes of 100 bytes a second, median of {} rounds: through the engine; an entry and a log row \
         committed and flushed to the store by one thread, in groups of as many; the same bytes written to \
         a file and synced",
        options.rounds
    );
    let columns =
        ["writers", "engine", "store alone", "file and fdatasync", "engine / store", "engine / file"];
    tables.print(&title, columns, &rows);
    Ok(())
}

async fn start(folder: &Path) -> anyhow::Result<Engine> {
    let settings = engine::Settings {
        pop: "bench".into(),
        region: "local".into(),
        peers: Vec::new(),
        data_folder: folder.to_owned(),
        cache_bytes: CACHE_BYTES,
        min_free_bytes: 1 << 20,
        replica: replication::Settings::new([1; 16], DigestKey::new([2; 32])),
    };
    let (chunk_news, _) = mpsc::channel(1);
    let engine = Engine::start(settings, chunk_news)?;
    let started = Instant::now();
    while let Err(WriteError::Unavailable { reason }) = engine.write(vec![put(0)], Ack::Durable).await {
        ensure!(started.elapsed() < READY_WITHIN, "the engine does not serve: {reason}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(engine)
}

fn put(number: u64) -> Write {
    let payload = Payload::Inline(text::value(number).into());
    let value = Value { payload, metadata: None, expires_at_s: None };
    Write::Put { namespace: NAMESPACE, key: text::key(number % KEYS).into(), value }
}

/// Writes a second, each writer its next one once it has its acknowledgement.
async fn through_engine(engine: &Engine, writers: u64, first: u64, lasting: Duration) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let engine = engine.clone();
        tasks.spawn(async move {
            let mut written = 0;
            while started.elapsed() < lasting {
                engine.write(vec![put(first + writer + written * writers)], Ack::Durable).await?;
                written += 1;
            }
            anyhow::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(ended) = tasks.join_next().await {
        written += ended??;
    }
    Ok(written as f64 / started.elapsed().as_secs_f64())
}

/// Writes a second of one thread that has as many at once for each flush.
fn commits(store: &mut SledStore, group: u64, first: u64, lasting: Duration) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut written = 0;
    while started.elapsed() < lasting {
        let mut batch = Batch::new();
        for number in first + written..first + written + group {
            let key = text::key(number % KEYS);
            let entry = keys::entry(&replication::EntryId::value(NAMESPACE, key.clone()));
            batch.insert(entry, Some(text::value(number).into()));
            batch.insert(keys::log(0, replication::Hlc::new(number, 0)).to_vec(), Some(key.into()));
        }
        batch.insert(keys::SUMMARY.to_vec(), Some(vec![0; 64]));
        store.commit(batch)?;
        store.flush()?;
        written += group;
    }
    Ok(written as f64 / started.elapsed().as_secs_f64())
}

/// As [`commits`], one after another into a file.
fn appends(log: &mut File, group: u64, lasting: Duration) -> anyhow::Result<f64> {
    let bytes = vec![b'x'; (text::KEY_BYTES + text::VALUE_BYTES) * group as usize];
    let started = Instant::now();
    let mut written = 0;
    while started.elapsed() < lasting {
        if log.stream_position()? + bytes.len() as u64 > LOG_BYTES {
            log.rewind()?;
        }
        log.write_all(&bytes)?;
        log.sync_data()?;
        written += group;
    }
    Ok(written as f64 / started.elapsed().as_secs_f64())
}
