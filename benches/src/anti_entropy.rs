//! Anti-entropy between two replicas in memory that differ: what a round says beside the rows it moves, in how many
//! round trips, and what it costs to compute; against range-based reconciliation and a Merkle tree on the same sets.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use replication::codec::member::{self, StageRow};
use replication::codec::message::{Message, Round};
use replication::codec::round::Step;
use replication::codec::row::{self, EntryRow, Identity, Summary};
use replication::digest::{DigestTree, LEAVES, NameHash};
use replication::sketch::{CELLS, TABLES};
use replication::store::Batch;
use replication::store::memory::MemoryStore;
use replication::{
    Body, Digest, DigestKey, Dot, Entry, EntryId, Hlc, Lane, NamespaceId, Now, Payload, Position, Replica,
    ReplicaId, Settings, Store, Value, VersionVector, keys,
};

use crate::report::{Tables, median};
use crate::text;

mod others;

const KEY: DigestKey = DigestKey::new([7; 32]);
const SETTINGS: Settings = Settings::new([9; 16], KEY);
const NAMESPACE: NamespaceId = NamespaceId([5; 16]);
const IDS: [ReplicaId; 2] = [ReplicaId([1; 16]), ReplicaId([2; 16])];
const START_MS: u64 = 1_800_000_000_000;
/// What the engine asks for.
const FRAME_BYTES: usize = 64 << 10;
/// More half round trips than any exchange needs.
const MAX_TRIPS: u32 = 2_000;

/// Updates timed in one go.
const UPDATES: usize = 1 << 16;

/// What to compare.
#[derive(Args)]
pub(crate) struct Options {
    /// Entries of each replica
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// How many states differ; 0 is always measured
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000, 100_000])]
    differences: Vec<u64>,
    /// How many entries are lost in one range
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    ranges: Vec<u64>,
    /// Measure Littoral alone
    #[arg(long)]
    alone: bool,
}

/// One entry as digests know it.
pub(crate) struct Known {
    number: u64,
    name: NameHash,
    digest: Digest,
}

/// What one exchange took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Bytes of frames from the initiator and from the responder, without those of rows.
    bytes: [u64; 2],
    /// Bytes of frames of rows.
    rows: u64,
    half_trips: u32,
    cpu_ms: f64,
}

pub(crate) fn run(options: &Options, tables: &mut Tables) -> anyhow::Result<()> {
    let count = options.entries;
    eprintln!("building {count} entries");
    let known: Vec<Known> = (0..count).map(known).collect();
    updates(&known, tables);
    let (store, tree) = build(&known)?;
    let mut rows = Vec::new();
    for case in cases(options, &known) {
        eprintln!("{}", case.what);
        let sides = [0, 1].map(|side| remove(&store, &tree, &known, &case.lost[side]));
        let [left, right] = sides;
        let cost = reconcile([left?, right?])?;
        rows.push(line(&case.what, "Littoral", cost));
        if !options.alone {
            let sets = [0, 1].map(|side| others::set(&known, &case.lost[side]));
            rows.push(line("", "negentropy", others::negentropy(&sets)?));
            rows.push(line("", "Merkle tree", others::merkle(&sets)));
        }
    }
    let title = format!("{count} entries on each of two replicas in memory; KB = 1,000 bytes");
    let columns = ["lost", "by", "KB there", "KB back", "KB both", "of rows KB", "round trips", "CPU ms"];
    tables.print(&title, columns, &rows);
    Ok(())
}

fn line(what: &str, by: &str, cost: Cost) -> [String; 8] {
    let kb = |bytes: u64| format!("{:.2}", bytes as f64 / 1e3);
    let [there, back] = cost.bytes;
    [
        what.to_owned(),
        by.to_owned(),
        kb(there),
        kb(back),
        kb(there + back),
        kb(cost.rows),
        format!("{:.1}", f64::from(cost.half_trips) / 2.0),
        format!("{:.0}", cost.cpu_ms),
    ]
}

/// Which entries each side has lost, by number, rising.
struct Case {
    what: String,
    lost: [Vec<u64>; 2],
}

fn cases(options: &Options, known: &[Known]) -> Vec<Case> {
    let count = known.len() as u64;
    let mut cases = vec![Case { what: "nothing".into(), lost: [Vec::new(), Vec::new()] }];
    for differing in &options.differences {
        let every = count / differing;
        let all: Vec<u64> = (0..*differing).map(|n| n * every).collect();
        let (odd, even) = all.iter().partition(|number| *number / every % 2 == 1);
        cases.push(Case { what: format!("{differing}, by the initiator"), lost: [all.clone(), Vec::new()] });
        cases.push(Case { what: format!("{differing}, by the responder"), lost: [Vec::new(), all] });
        cases.push(Case { what: format!("{differing}, half by each"), lost: [odd, even] });
    }
    let mut by_name: Vec<(NameHash, u64)> = known.iter().map(|known| (known.name, known.number)).collect();
    by_name.sort_unstable();
    for lost in options.ranges.iter().filter(|lost| 2 * **lost < count) {
        // Off the middle, so that it begins and ends within leaves.
        let from = (count / 3) as usize + 5;
        let mut hashes: Vec<u64> =
            by_name[from..from + *lost as usize].iter().map(|(_, number)| *number).collect();
        hashes.sort_unstable();
        cases.push(Case { what: format!("{lost} by hash, initiator"), lost: [hashes.clone(), Vec::new()] });
        cases.push(Case { what: format!("{lost} by hash, responder"), lost: [Vec::new(), hashes] });
        let keys: Vec<u64> = (count / 3..count / 3 + lost).collect();
        cases.push(Case { what: format!("{lost} by key, initiator"), lost: [keys.clone(), Vec::new()] });
        cases.push(Case { what: format!("{lost} by key, responder"), lost: [Vec::new(), keys] });
    }
    cases
}

/// What keeping the tree costs, beyond hashing.
fn updates(known: &[Known], tables: &mut Tables) {
    let mut tree = DigestTree::default();
    let mut rounds = [Vec::new(), Vec::new()];
    for part in known.chunks_exact(UPDATES) {
        let started = Instant::now();
        part.iter().for_each(|known| tree.replace(known.name, None, Some(known.digest)));
        let added = started.elapsed();
        for pair in part.windows(2) {
            tree.replace(pair[0].name, Some(pair[0].digest), Some(pair[1].digest));
        }
        let steps = [added, started.elapsed() - added];
        rounds.iter_mut().zip(steps).for_each(|(ns, took)| ns.push(took.as_nanos() as f64 / UPDATES as f64));
    }
    black_box(tree.root());
    let kept = (CELLS as usize * TABLES * 16 + LEAVES * 4) as f64;
    let figures = |what: &str, ns: &[f64]| {
        let least = ns.iter().copied().fold(f64::INFINITY, f64::min);
        [what.to_owned(), format!("{least:.1}"), format!("{:.1}", median(ns.iter().copied()))]
    };
    let rows = [
        figures("an entry at open, ns", &rounds[0]),
        figures("a write over an old state, ns", &rounds[1]),
        figures("memory, MiB", &[kept / f64::from(1 << 20)]),
        figures("memory, bytes an entry", &[kept / known.len() as f64]),
    ];
    let title = format!(
        "The tree and its sketch beside hashing, {} entries, {} rounds of {UPDATES}",
        known.len(),
        rounds[0].len()
    );
    tables.print(&title, ["step", "least", "median"], &rows);
}

fn known(number: u64) -> Known {
    let name = KEY.name_hash(&id(number));
    Known { number, name, digest: KEY.state_digest(name, &entry(number)) }
}

fn id(number: u64) -> EntryId {
    EntryId::value(NAMESPACE, text::key(number))
}

fn entry(number: u64) -> Entry {
    let payload = Payload::Inline(text::value(number).into());
    let body = Body::Value(Value { payload, metadata: None, expires_at_s: None });
    Entry::first(Dot { hlc: hlc(number), replica: IDS[0] }, body)
}

fn hlc(number: u64) -> Hlc {
    Hlc::new(START_MS - 100_000_000 + number, 0)
}

/// The store that both had before they lost anything, without a log: what is claimed is not sent.
fn build(known: &[Known]) -> anyhow::Result<(MemoryStore, DigestTree)> {
    let mut store = MemoryStore::default();
    let mut tree = DigestTree::default();
    for part in known.chunks(10_000) {
        let mut batch = Batch::new();
        for known in part {
            let Entry { dot, body, base } = entry(known.number);
            let row_key = keys::entry(&id(known.number));
            let row = row::encode_entry(&row_key, &EntryRow { origin_index: 0, hlc: dot.hlc, body, base });
            batch.insert(row_key, Some(row));
            tree.replace(known.name, None, Some(known.digest));
        }
        store.commit(batch)?;
        store.flush()?;
    }
    Ok((store, tree))
}

fn remove(
    store: &MemoryStore,
    tree: &DigestTree,
    known: &[Known],
    lost: &[u64],
) -> anyhow::Result<(MemoryStore, Summary)> {
    let (mut store, mut tree) = (store.clone(), tree.clone());
    for number in lost {
        ensure!(store.lose(&keys::entry(&id(*number))), "{number} was not there");
        let known = &known[*number as usize];
        tree.replace(known.name, Some(known.digest), None);
    }
    let position =
        Position { hlc: Hlc::new(START_MS - 1, 0), ops: known.len() as u64, bytes: 116 * known.len() as u64 };
    let entries = (known.len() - lost.len()) as u64;
    let summary = Summary {
        origins: vec![(IDS[0], position)],
        entries,
        log_rows: 0,
        root: tree.root(),
        epoch: Hlc::ZERO,
        swept: true,
    };
    Ok((store, summary))
}

fn open(side: usize, (mut store, summary): (MemoryStore, Summary)) -> anyhow::Result<Replica<MemoryStore>> {
    let vector: VersionVector = summary.origins.iter().copied().collect();
    let identity = Identity { replica: IDS[side], cluster: SETTINGS.cluster };
    let peers = vec![(IDS[1 - side], vector)];
    store.commit(Batch::from([
        (keys::IDENTITY.to_vec(), Some(row::encode_identity(&identity))),
        (keys::SUMMARY.to_vec(), Some(row::encode_summary(&summary))),
        (keys::STAGE.to_vec(), Some(member::encode_stage(&StageRow::Member))),
        (keys::PEERS.to_vec(), Some(row::encode_peers(&peers))),
    ]))?;
    store.flush()?;
    Ok(Replica::open(store, SETTINGS, IDS[side])?)
}

/// Lets two replicas find and mend what differs. Frames cross at once, when neither has anything more to say: each
/// crossing is half a round trip.
fn reconcile(stores: [(MemoryStore, Summary); 2]) -> anyhow::Result<Cost> {
    let [left, right] = stores;
    let mut replicas = [open(0, left)?, open(1, right)?];
    let now = Now { wall_ms: START_MS, mono_us: 1 };
    for side in 0..2 {
        replicas[side].handle_connected(now, IDS[1 - side]);
    }
    // Heartbeats there and back, so that the initiator knows the root.
    let mut heartbeats = Vec::new();
    for side in 0..2 {
        let beat = replicas[side].poll_transmit(now, IDS[1 - side], Lane::Control, FRAME_BYTES)?;
        heartbeats.push(beat.context("no heartbeat")?);
    }
    let started = cpu_ms();
    for side in 0..2 {
        replicas[side].handle_message(now, IDS[1 - side], Message::from_frame(&heartbeats[1 - side])?)?;
        replicas[side].flush()?;
    }
    let mut cost = Cost::default();
    for _ in 0..MAX_TRIPS {
        let mut crossing = [Vec::new(), Vec::new()];
        for side in 0..2 {
            let frames = &mut crossing[side];
            say_all(&mut replicas[side], now, IDS[1 - side], frames)?;
            for frame in frames.iter() {
                match Message::from_frame(frame)? {
                    Message::Round(Round { step: Step::Rows(rows), .. }) if !rows.rows.is_empty() => {
                        cost.rows += frame.len() as u64;
                    }
                    _ => cost.bytes[side] += frame.len() as u64,
                }
            }
        }
        if crossing.iter().all(Vec::is_empty) {
            break;
        }
        cost.half_trips += 1;
        for side in 0..2 {
            for frame in &crossing[1 - side] {
                replicas[side].handle_message(now, IDS[1 - side], Message::from_frame(frame)?)?;
                replicas[side].flush()?;
            }
        }
    }
    cost.cpu_ms = cpu_ms() - started;
    ensure!(replicas[0].root() == replicas[1].root(), "the replicas still differ");
    Ok(cost)
}

/// All frames of the round that the replica sends before it hears anything.
fn say_all(
    replica: &mut Replica<MemoryStore>,
    now: Now,
    to: ReplicaId,
    frames: &mut Vec<bytes::Bytes>,
) -> anyhow::Result<()> {
    loop {
        let mut said = false;
        while let Some(frame) = replica.poll_transmit(now, to, Lane::AntiEntropy, FRAME_BYTES)? {
            frames.push(frame);
            said = true;
        }
        let walks = replica.poll_timeout() == Some(0);
        if walks {
            replica.handle_timeout(now)?;
            replica.flush()?;
        }
        if !said && !walks {
            return Ok(());
        }
    }
}

/// Time this thread has had a processor.
fn cpu_ms() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    ns.unwrap_or(f64::NAN) / 1e6
}
