//! The replication core alone, on a store in memory: nanoseconds for each of its steps.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use replication::codec::message::Message;
use replication::codec::row::{self, EntryRow};
use replication::digest::DigestTree;
use replication::store::memory::MemoryStore;
use replication::{
    Body, DigestKey, Dot, Entry, EntryId, Hlc, Lane, MemberRecord, NamespaceId, Now, Payload, Replica,
    ReplicaId, Settings, Value, keys,
};

use crate::report::{Tables, median, whole};
use crate::text;

/// Measured rounds of each step, after one that does not count.
const ROUNDS: usize = 15;
/// Operations in a round.
const EVENTS: u64 = 4_096;
/// Writes that share one flush.
const GROUP: u64 = 64;
/// What the engine asks for.
const FRAME_BYTES: usize = 64 << 10;

const KEY: [u8; 32] = [7; 32];
const NAMESPACE: NamespaceId = NamespaceId([5; 16]);

pub(crate) fn run(tables: &mut Tables) -> anyhow::Result<()> {
    let rows = [
        row("write, new key (flush every 64)", &mut || writes(false))?,
        row("write, over an old one (flush every 64)", &mut || writes(true))?,
        row("digest: name, state before and after, tree", &mut digests)?,
        row("encode an entry row", &mut || {
            Ok(rows(&mut |key, row, _| black_box(row::encode_entry(key, row)).len()))
        })?,
        row("decode an entry row", &mut || {
            Ok(rows(&mut |key, _, bytes| black_box(row::decode_entry(key, bytes)).map_or(0, |_| 1)))
        })?,
        row("delta: build and encode, per event", &mut || Ok(deltas()?.built))?,
        row("delta: decode, per event", &mut || Ok(deltas()?.decoded))?,
        row("delta: apply new keys and flush, per event", &mut || Ok(deltas()?.applied))?,
    ];
    let title = format!(
        "The core on a store in memory, 100-byte values, {EVENTS} operations a round, {ROUNDS} rounds"
    );
    tables.print(&title, ["step", "least ns", "median ns"], &rows);
    Ok(())
}

fn row(what: &str, round: &mut dyn FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<[String; 3]> {
    round()?;
    let mut ns = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        ns.push(round()?.as_nanos() as f64 / EVENTS as f64);
    }
    let least = ns.iter().copied().fold(f64::INFINITY, f64::min);
    Ok([what.to_owned(), whole(least), whole(median(ns))])
}

/// Local writes; `over` writes each key a second time, and times that.
fn writes(over: bool) -> anyhow::Result<Duration> {
    let mut replica = open(1)?;
    if over {
        write_all(&mut replica, 0)?;
    }
    let entries: Vec<_> = (0..EVENTS).map(|n| (id(n), body(n + 1))).collect();
    let started = Instant::now();
    for (n, (id, body)) in (1..).zip(entries) {
        replica.write(now(1), id, body)?;
        if n % GROUP == 0 {
            replica.flush()?;
        }
    }
    Ok(started.elapsed())
}

fn digests() -> anyhow::Result<Duration> {
    let key = DigestKey::new(KEY);
    let mut tree = DigestTree::default();
    let entries: Vec<_> = (0..EVENTS).map(|n| (id(n), entry(n, n), entry(n, n + 1))).collect();
    let started = Instant::now();
    for (id, before, after) in &entries {
        let name = key.name_hash(id);
        tree.replace(name, Some(key.state_digest(name, before)), Some(key.state_digest(name, after)));
    }
    let elapsed = started.elapsed();
    black_box(tree.root());
    Ok(elapsed)
}

/// Times `step` over rows of entries, encoded and not.
fn rows(step: &mut dyn FnMut(&[u8], &EntryRow, &Bytes) -> usize) -> Duration {
    let row = |n| EntryRow { origin_index: 1, hlc: hlc(n), body: body(n), base: Hlc::ZERO };
    let rows: Vec<_> = (0..EVENTS)
        .map(|n| {
            let key = keys::entry(&id(n));
            let bytes = Bytes::from(row::encode_entry(&key, &row(n)));
            (key, row(n), bytes)
        })
        .collect();
    let started = Instant::now();
    for (key, row, bytes) in &rows {
        black_box(step(key, row, bytes));
    }
    started.elapsed()
}

/// How long the three steps of replicating all events took.
struct Deltas {
    built: Duration,
    decoded: Duration,
    applied: Duration,
}

/// One replica sends all of its events to another.
fn deltas() -> anyhow::Result<Deltas> {
    let (mut sender, mut receiver) = (open(1)?, open(2)?);
    write_all(&mut sender, 0)?;
    let (from, to) = (sender.id(), receiver.id());
    sender.handle_connected(now(2), to);
    receiver.handle_connected(now(2), from);
    let heartbeat = receiver.poll_transmit(now(2), from, Lane::Control, FRAME_BYTES)?;
    sender.handle_message(now(2), to, Message::from_frame(&heartbeat.context("no heartbeat")?)?)?;
    sender.flush()?;

    let started = Instant::now();
    let mut frames = Vec::new();
    for lane in [Lane::Delta, Lane::CatchUp] {
        while let Some(frame) = sender.poll_transmit(now(3), to, lane, FRAME_BYTES)? {
            frames.push(frame);
        }
    }
    let built = started.elapsed();

    let started = Instant::now();
    let messages: Vec<Message> =
        frames.iter().map(|frame| Message::from_frame(frame)).collect::<Result<_, _>>()?;
    let decoded = started.elapsed();

    let started = Instant::now();
    for message in messages {
        receiver.handle_message(now(4), from, message)?;
        receiver.flush()?;
    }
    let applied = started.elapsed();
    ensure!(receiver.root() == sender.root(), "the replicas differ");
    Ok(Deltas { built, decoded, applied })
}

fn open(number: u8) -> anyhow::Result<Replica<MemoryStore>> {
    let settings = Settings::new([9; 16], DigestKey::new(KEY));
    let mut replica = Replica::open(MemoryStore::default(), settings, ReplicaId([number; 16]))?;
    replica.found(now(0), &MemberRecord::default())?;
    Ok(replica)
}

fn write_all(replica: &mut Replica<MemoryStore>, first: u64) -> anyhow::Result<()> {
    for n in 0..EVENTS {
        replica.write(now(0), id(n), body(first + n))?;
    }
    Ok(replica.flush()?)
}

fn now(seconds: u64) -> Now {
    Now { wall_ms: 1_800_000_000_000 + seconds * 1_000, mono_us: seconds * 1_000_000 }
}

fn hlc(n: u64) -> Hlc {
    Hlc::new(1_800_000_000_000 + n, 0)
}

fn id(n: u64) -> EntryId {
    EntryId::value(NAMESPACE, text::key(n))
}

fn body(n: u64) -> Body {
    let payload = Payload::Inline(text::value(n).into());
    Body::Value(Value { payload, metadata: None, expires_at_s: None })
}

fn entry(n: u64, value: u64) -> Entry {
    Entry::first(Dot { hlc: hlc(n), replica: ReplicaId([1; 16]) }, body(value))
}
