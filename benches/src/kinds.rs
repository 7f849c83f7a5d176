//! What a member of a set costs, as the set grows: an addition and a look-up, beside those of a plain value in the same
//! store, and the bytes that one addition is on the wire.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use littoral_node::storage::SledStore;
use replication::codec::delta::{Batches, Delta, DeltaRow};
use replication::codec::message::Message;
use replication::entry::Kind;
use replication::read;
use replication::{
    Body, Change, Content, DigestKey, Dot, Entry, EntryId, MemberRecord, NamespaceId, Now, Payload, Position,
    Replica, ReplicaId, Settings, Value,
};

use crate::report::{Tables, median, whole};

/// Sizes of the set at which it is measured; the last is an option.
const SIZES: [u64; 2] = [1_000, 100_000];
/// Additions in a group that is flushed at once.
const GROUP: u64 = 256;
/// Groups in one figure.
const GROUPS: u64 = 40;
/// Look-ups in one figure.
const LOOK_UPS: u64 = 20_000;
/// Figures of each kind, of which the median is shown.
const ROUNDS: u64 = 5;
const CACHE_BYTES: u64 = 512 << 20;
const NAMESPACE: NamespaceId = NamespaceId([5; 16]);
const START_MS: u64 = 1_800_000_000_000;
const NOW_S: u64 = START_MS / 1000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Members of the set in the end
    #[arg(long, default_value_t = 1_000_000)]
    members: u64,
}

struct Bench {
    replica: Replica<SledStore>,
    started: Instant,
    members: u64,
    values: u64,
    last: Dot,
}

pub(crate) fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let store = SledStore::open(&folder.join("kinds"), CACHE_BYTES)?;
    let settings = Settings::new([1; 16], DigestKey::new([2; 32]));
    let mut replica = Replica::open(store, settings, ReplicaId([3; 16]))?;
    let now = Now { wall_ms: START_MS, mono_us: 0 };
    replica.found(now, &MemberRecord { pop: "bench".into(), region: "local".into() })?;
    replica.flush()?;
    let last = Dot { hlc: replication::Hlc::ZERO, replica: replica.id() };
    let mut bench = Bench { replica, started: Instant::now(), members: 0, values: 0, last };
    let mut rows = Vec::new();
    for size in SIZES.into_iter().filter(|size| *size < options.members).chain([options.members]) {
        while bench.members < size {
            bench.add_members()?;
        }
        rows.push(bench.row()?);
    }
    let title = format!(
        "One set as it grows, in the store of one node: medians of {ROUNDS} figures, in microseconds. Additions in groups \
         of {GROUP}, each flushed as one; beside them values of no bytes, put and read in the same store"
    );
    let columns =
        ["members", "add", "put", "add / put", "contains", "get", "contains / get", "bytes on the wire"];
    tables.print(&title, columns, &rows);
    Ok(())
}

impl Bench {
    fn now(&self) -> Now {
        let since = self.started.elapsed();
        Now { wall_ms: START_MS + since.as_millis() as u64, mono_us: since.as_micros() as u64 }
    }

    fn add_members(&mut self) -> anyhow::Result<()> {
        for _ in 0..GROUP {
            let change = Change::Put(Content::default());
            self.last = self.replica.change(self.now(), member(self.members), change)?;
            self.members += 1;
        }
        Ok(self.replica.flush()?)
    }

    fn put_values(&mut self) -> anyhow::Result<()> {
        for _ in 0..GROUP {
            let value =
                Value { payload: Payload::Inline(Default::default()), metadata: None, expires_at_s: None };
            self.replica.write(self.now(), plain(self.values), Body::Value(value))?;
            self.values += 1;
        }
        Ok(self.replica.flush()?)
    }

    fn row(&mut self) -> anyhow::Result<[String; 8]> {
        let members = self.members;
        let mut figures = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            figures[0].push(each(GROUP * GROUPS, || (0..GROUPS).try_for_each(|_| self.add_members()))?);
            figures[1].push(each(GROUP * GROUPS, || (0..GROUPS).try_for_each(|_| self.put_values()))?);
            let (members, values, store) = (self.members, self.values, self.replica.store());
            let at = |n: u64, of: u64| (n * 7_919 + round) % of;
            figures[2].push(each(LOOK_UPS, || {
                (0..LOOK_UPS).try_for_each(|n| {
                    let found = read::kinds::element(store, &member(at(n, members)), NOW_S)?;
                    found.map(drop).context("a member that was added is not there")
                })
            })?);
            figures[3].push(each(LOOK_UPS, || {
                (0..LOOK_UPS).try_for_each(|n| {
                    let found = read::value(store, NAMESPACE, &plain(at(n, values)).key, NOW_S)?;
                    found.map(drop).context("a value that was put is not there")
                })
            })?);
        }
        let [add, put, contains, get] = figures.map(median);
        let micros = |micros: f64| format!("{micros:.1}");
        Ok([
            whole(members as f64),
            micros(add),
            micros(put),
            format!("{:.2}", add / put),
            micros(contains),
            micros(get),
            format!("{:.2}", contains / get),
            self.wire_bytes().to_string(),
        ])
    }

    /// Bytes of a frame that brings the last addition, and nothing else, before it is packed.
    fn wire_bytes(&self) -> usize {
        let (id, dot) = (member(self.members - 1), self.last);
        let before = Position { hlc: dot.hlc.previous(), ops: self.members - 1, bytes: 30 * self.members };
        let after = before.after(dot.hlc, id.user_bytes() as u64);
        let body = Change::Put(Content::default()).outline();
        let mut entry = Entry::first(dot, body);
        if let Body::Element(element) = &mut entry.body
            && let Some((_, mut part)) = element.parts.pop_first()
        {
            part.hlc = dot.hlc;
            element.parts.insert(dot.replica, part);
        }
        let rows = vec![DeltaRow { position: after, id, entry: Some(entry) }];
        let delta = Delta {
            origin: dot.replica,
            group: 0,
            after: before,
            upto: after,
            rows,
            batches: Batches::default(),
        };
        Message::Delta(delta.said_by(dot.replica)).to_frame().len()
    }
}

fn member(number: u64) -> EntryId {
    EntryId::element(NAMESPACE, Kind::Set, "followers of somebody", format!("user-{number:012}"))
}

fn plain(number: u64) -> EntryId {
    EntryId::value(NAMESPACE, format!("followers of somebody/user-{number:012}"))
}

/// Microseconds that each of so many steps takes.
fn each(steps: u64, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let started = Instant::now();
    run()?;
    Ok(Duration::as_secs_f64(&started.elapsed()) * 1e6 / steps as f64)
}
