//! What a long document takes on the disk and costs its node, with each change in a row of its own, and folded.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT};
use bytes::Bytes;
use littoral_node::storage::SledStore;
use replication::codec::fold::MAX_FOLDED;
use replication::entry::Kind;
use replication::store::Store;
use replication::store::folding::Folding;
use replication::store::memory::MemoryStore;
use replication::{
    Change, DigestKey, EntryId, MemberRecord, NamespaceId, Now, Replica, ReplicaId, Settings, doc, keys,
};

use crate::report::{Tables, median, whole};

/// Edits in a group that is flushed at once.
const GROUP: usize = 256;
/// Figures of each kind, of which the median is shown.
const ROUNDS: usize = 5;
/// After so many edits the next are by another author, as where a node reads the document anew.
const EDITS_OF_ONE: usize = 500;
const CACHE_BYTES: u64 = 512 << 20;
const START_MS: u64 = 1_800_000_000_000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Edits that the document has had
    #[arg(long, default_value_t = 10_000)]
    edits: usize,
}

pub(crate) fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let changes = edits(options.edits + 2 * ROUNDS * GROUP);
    let (before, after) = changes.split_at(options.edits);
    let (one, other) = after.split_at(ROUNDS * GROUP);
    let mut sizes = Bench::open(Folding::<MemoryStore>::default())?;
    let mut times = Bench::open(SledStore::open(&folder.join("folds"), CACHE_BYTES)?)?;
    sizes.put(before)?;
    times.put(before)?;
    let apart = (sizes.bytes()?, times.read()?, times.edit(one)?);
    sizes.fold(before)?;
    let folding = times.fold(before)?;
    let folded = (sizes.bytes()?, times.read()?, times.edit(other)?);
    let count = options.edits.max(1) as f64;
    let row = |name: &str, (bytes, read_ms, edit_us): (usize, f64, f64)| {
        let each = format!("{:.1}", bytes as f64 / count);
        [name.to_owned(), whole(bytes as f64), each, format!("{read_ms:.1}"), format!("{edit_us:.1}")]
    };
    let ratios = (apart.0 as f64 / folded.0 as f64, folded.1 / apart.1, folded.2 / apart.2);
    let title = format!(
        "A document with {count} edits in the store of one node: bytes of its rows with their keys; reading all its chunks, \
         in milliseconds; and what one more edit takes of the engine's thread, in groups of {GROUP} that are flushed as \
         one, in microseconds: medians of {ROUNDS}. Folded it takes {:.1} times less, is read in {:.2} of the time and \
         edited in {:.2}. Folding takes {folding:.0} µs a fold at the median",
        ratios.0, ratios.1, ratios.2
    );
    let columns = ["its changes", "bytes", "bytes an edit", "read ms", "edit µs"];
    tables.print(&title, columns, &[row("in rows of their own", apart), row("folded", folded)]);
    Ok(())
}

/// Edits as the bench of documents makes them: of four one puts a card into a list, the others count a move.
fn edits(count: usize) -> Vec<Bytes> {
    let mut document = AutoCommit::new();
    let cards = document.put_object(ROOT, "cards", ObjType::List).expect("an empty document takes a list");
    let mut edit = |number: usize| {
        if number.is_multiple_of(EDITS_OF_ONE) {
            document.set_actor(automerge::ActorId::random());
        }
        let edited = match number % 4 {
            0 => document.insert(&cards, number / 4, format!("card {number}")),
            _ => document.put(ROOT, "moves", number as u64),
        };
        edited.expect("a list takes items, and an object members");
        document.commit();
        Bytes::from(document.get_last_local_change().expect("it was edited").bytes().into_owned())
    };
    (0..count).map(&mut edit).collect()
}

struct Bench<S: Store> {
    replica: Replica<S>,
    started: Instant,
}

impl<S: Store> Bench<S> {
    fn open(store: S) -> anyhow::Result<Self> {
        let settings = Settings::new([1; 16], DigestKey::new([2; 32]));
        let mut bench =
            Self { replica: Replica::open(store, settings, ReplicaId([3; 16]))?, started: Instant::now() };
        let now = bench.now();
        bench.replica.found(now, &MemberRecord { pop: "bench".into(), region: "local".into() })?;
        bench.replica.flush()?;
        Ok(bench)
    }

    fn now(&self) -> Now {
        let since = self.started.elapsed();
        Now { wall_ms: START_MS + since.as_millis() as u64, mono_us: since.as_micros() as u64 }
    }

    fn put(&mut self, changes: &[Bytes]) -> anyhow::Result<()> {
        for group in changes.chunks(GROUP) {
            for change in group {
                for (element, content) in doc::rows(change)? {
                    let id = EntryId { element, ..whole_document() };
                    self.replica.change(self.now(), id, Change::Put(content))?;
                }
            }
            self.replica.flush()?;
        }
        Ok(())
    }

    /// Microseconds that each of these takes.
    fn edit(&mut self, changes: &[Bytes]) -> anyhow::Result<f64> {
        let mut figures = Vec::new();
        for group in changes.chunks(GROUP) {
            let started = Instant::now();
            self.put(group)?;
            figures.push(started.elapsed().as_secs_f64() * 1e6 / group.len() as f64);
        }
        Ok(median(figures))
    }

    /// Milliseconds that reading all takes.
    fn read(&self) -> anyhow::Result<f64> {
        let mut figures = Vec::new();
        let whole = whole_document();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let chunks = doc::read(self.replica.store(), (whole.namespace, &whole.key), START_MS / 1000)?;
            figures.push(started.elapsed().as_secs_f64() * 1e3);
            ensure!(!chunks.standing.is_empty(), "the document is not there");
        }
        Ok(median(figures))
    }

    /// Folds these, as the replica would once they are stable; gives the microseconds of one fold.
    fn fold(&mut self, changes: &[Bytes]) -> anyhow::Result<f64> {
        let mut elements = Vec::new();
        for change in changes {
            elements.extend(doc::rows(change)?.into_iter().map(|(element, _)| element));
        }
        let (head, mut figures, mut rest) = (keys::entry(&whole_document()), Vec::new(), &elements[..]);
        while rest.len() >= 2 {
            let started = Instant::now();
            let folded = self.replica.store_mut().fold(&head, &rest[..rest.len().min(MAX_FOLDED)])?;
            figures.push(started.elapsed().as_secs_f64() * 1e6);
            ensure!(folded.kept > 0, "nothing was folded");
            rest = &rest[folded.seen..];
        }
        self.replica.store_mut().flush()?;
        Ok(median(figures))
    }
}

impl Bench<Folding<MemoryStore>> {
    /// What the rows of the document take.
    fn bytes(&self) -> anyhow::Result<usize> {
        let head = keys::entry(&whole_document());
        let mut bytes = 0;
        for start in [head.clone(), keys::fold(&head)] {
            self.replica.store().beneath().scan(&start, &mut |row_key, row| {
                if !row_key.starts_with(&start) {
                    return ControlFlow::Break(());
                }
                bytes += row_key.len() + row.len();
                ControlFlow::Continue(())
            })?;
        }
        Ok(bytes)
    }
}

fn whole_document() -> EntryId {
    EntryId::whole(NamespaceId([5; 16]), Kind::Doc, "boards/of somebody/a board")
}
