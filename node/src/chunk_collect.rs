//! Collects chunk files that nothing names any more: of values overwritten or deleted, and of uploads that broke off.
//!
//! What the engine releases, and what an upload lets go, is looked at at once; a listing of the whole folder, at the start
//! and daily, finds what was let go while nobody looked. Each waits for its grace and is then deleted, in the steps that
//! [`crate::chunks`] tells, which see to it that nothing goes that is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use replication::ChunkId;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior};

use crate::chunks::{ChunkStore, Sentence};
use crate::engine::Engine;

/// How often there is a look at what was let go, and what is due.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// How often the whole folder is listed.
const LIST_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// A turn lists further folders until it has seen so many files.
const LISTED_A_TURN: usize = 4_096;
/// Chunks about which the engine is asked at once: it does nothing else meanwhile.
const ASKED_AT_ONCE: usize = 256;
/// Chunks that may wait for their grace; a later listing finds the others.
const MAX_WAITING: usize = 1 << 20;

/// A file, its length in bytes, and how long ago it was touched.
type Found = (ChunkId, u64, Duration);

struct Collector {
    chunks: Arc<ChunkStore>,
    engine: Engine,
    grace: Duration,
    /// Chunks without a name, with the length of the file and when to look at them again.
    waiting: BTreeMap<ChunkId, (u64, Instant)>,
    /// The folder to list next; `None` until the next listing is due.
    next_folder: Option<u8>,
    list_due: Instant,
}

/// Collects until it is stopped.
pub(crate) async fn run(chunks: Arc<ChunkStore>, engine: Engine, grace: Duration) {
    let (waiting, list_due) = (BTreeMap::new(), Instant::now());
    let mut collector = Collector { chunks, engine, grace, waiting, next_folder: None, list_due };
    let mut turns = tokio::time::interval(TURN_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if let Err(error) = collector.turn().await {
            tracing::warn!(%error, "chunk files cannot be collected now; it is tried again");
        }
        let bytes = collector.waiting.values().map(|(bytes, _)| bytes).sum();
        collector.chunks.set_waiting(collector.waiting.len() as u64, bytes);
    }
}

impl Collector {
    async fn turn(&mut self) -> io::Result<()> {
        // Before this node is a member, what is named cannot be told.
        if self.unnamed(Vec::new()).await.is_none() {
            return Ok(());
        }
        let let_go = self.chunks.take_let_go();
        let candidates = self.on_disk(move |chunks| with_ages(chunks, let_go)).await?;
        self.take_in(candidates).await;
        self.list().await?;
        self.collect().await
    }

    /// Lists a part of the folder, if that is due.
    async fn list(&mut self) -> io::Result<()> {
        if self.next_folder.is_none() && self.list_due <= Instant::now() {
            self.next_folder = Some(0);
            self.list_due = Instant::now() + LIST_EVERY;
        }
        let Some(from) = self.next_folder else { return Ok(()) };
        let (next, candidates) = self.on_disk(move |chunks| list_from(chunks, from)).await?;
        if self.take_in(candidates).await {
            self.next_folder = next;
        }
        Ok(())
    }

    /// Has those wait that no state names. Gives whether it could be told which.
    async fn take_in(&mut self, candidates: Vec<Found>) -> bool {
        for some in candidates.chunks(ASKED_AT_ONCE) {
            let asked = some.iter().map(|(chunk, ..)| *chunk).collect();
            let Some(unnamed) = self.unnamed(asked).await else {
                self.chunks.offer(candidates.iter().map(|(chunk, ..)| *chunk));
                return false;
            };
            for (chunk, bytes, age) in some.iter().filter(|(chunk, ..)| unnamed.contains(chunk)) {
                let due = Instant::now() + self.grace.saturating_sub(*age);
                if self.waiting.len() < MAX_WAITING {
                    self.waiting.insert(*chunk, (*bytes, due));
                }
            }
        }
        true
    }

    /// Deletes what is due.
    async fn collect(&mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let due = self.waiting.iter().filter(|(_, (_, due))| *due <= now);
            let due: Vec<ChunkId> = due.map(|(chunk, _)| *chunk).take(ASKED_AT_ONCE).collect();
            if due.is_empty() {
                return Ok(());
            }
            let grace = self.grace;
            let sentences = self.on_disk(move |chunks| {
                // What cannot be looked at now is left for later, as what was touched just now.
                let sentence = |chunk| told(chunks.condemn(&chunk, grace)).unwrap_or(Sentence::Spared(grace));
                due.into_iter().map(|chunk| (chunk, sentence(chunk))).collect::<Vec<_>>()
            });
            let mut condemned = BTreeSet::new();
            for (chunk, sentence) in sentences.await? {
                match sentence {
                    Sentence::Condemned => condemned.extend([chunk]),
                    Sentence::Gone => {
                        self.waiting.remove(&chunk);
                    }
                    Sentence::Spared(left) => {
                        // At least a turn, so that this ends.
                        let due = now + left.max(TURN_EVERY);
                        self.waiting.entry(chunk).and_modify(|waiting| waiting.1 = due);
                    }
                }
            }
            // Only now: who is told from here on that a chunk is here takes the sentence back.
            let Some(unnamed) = self.unnamed(condemned.iter().copied().collect()).await else {
                condemned.iter().for_each(|chunk| self.chunks.absolve(chunk));
                return Ok(());
            };
            self.waiting.retain(|chunk, _| !condemned.contains(chunk));
            let deleted = self.on_disk(move |chunks| delete(chunks, &condemned, &unnamed)).await?;
            if deleted > 0 {
                tracing::debug!(deleted, "collected chunk files that no value names");
            }
        }
    }

    /// Of these, those that no state names; `None` where that cannot be told.
    async fn unnamed(&self, chunks: Vec<ChunkId>) -> Option<BTreeSet<ChunkId>> {
        let unnamed = self.engine.unnamed_chunks(chunks).await.ok().flatten();
        unnamed.map(|unnamed| unnamed.into_iter().collect())
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&ChunkStore) -> T + Send + 'static,
    ) -> io::Result<T> {
        let chunks = self.chunks.clone();
        Ok(spawn_blocking(move || act(&chunks)).await?)
    }
}

/// Those that are here, with the lengths of their files and how long ago they were touched.
fn with_ages(chunks: &ChunkStore, ids: impl IntoIterator<Item = ChunkId>) -> Vec<Found> {
    let age = |id| Some((id, told(chunks.age(&id)).flatten()?));
    ids.into_iter().filter_map(age).map(|(id, (bytes, age))| (id, bytes, age)).collect()
}

/// Lists folders from this one on, and gives where to go on.
fn list_from(chunks: &ChunkStore, first_byte: u8) -> (Option<u8>, Vec<Found>) {
    let mut listed = Vec::new();
    for byte in first_byte..=u8::MAX {
        let files = told(chunks.list(byte)).unwrap_or_default();
        listed.extend(files.into_iter().map(|(chunk, _)| chunk));
        if listed.len() >= LISTED_A_TURN {
            return (byte.checked_add(1), with_ages(chunks, listed));
        }
    }
    (None, with_ages(chunks, listed))
}

/// Deletes the condemned that no state names, and absolves the others. Gives how many went.
fn delete(chunks: &ChunkStore, condemned: &BTreeSet<ChunkId>, unnamed: &BTreeSet<ChunkId>) -> usize {
    condemned.difference(unnamed).for_each(|chunk| chunks.absolve(chunk));
    let is_deleted = |chunk: &&ChunkId| told(chunks.delete_condemned(chunk)) == Some(true);
    condemned.intersection(unnamed).filter(is_deleted).count()
}

/// What the disk says. A file that it will not let be looked at, or deleted, holds up no other; the next listing finds it.
fn told<T>(result: io::Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "a chunk file cannot be collected now")).ok()
}

#[cfg(test)]
mod tests {
    use littoral::api::State;
    use replication::entry::Manifest;
    use replication::{DigestKey, NamespaceId, Payload, Value};
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::{Ack, ChunkNews, Settings, Write};

    const NAMESPACE: NamespaceId = NamespaceId([9; 16]);

    struct Node {
        _folder: tempfile::TempDir,
        collector: Collector,
        news: mpsc::Receiver<ChunkNews>,
    }

    impl Node {
        /// One whose collector lists the folder in its first turn only, and waits for nothing.
        fn new(peers: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let settings = Settings {
                pop: "a".into(),
                region: "here".into(),
                peers: peers.iter().map(ToString::to_string).collect(),
                data_folder: folder.path().to_owned(),
                cache_bytes: 16 << 20,
                min_free_bytes: 0,
                replica: replication::Settings::new([1; 16], DigestKey::new([2; 32])),
            };
            let (told, news) = mpsc::channel(100);
            let engine = Engine::start(settings, told).unwrap();
            let chunks = Arc::new(ChunkStore::open(&folder.path().join("chunks")).unwrap());
            let (waiting, list_due, grace) = (BTreeMap::new(), Instant::now(), Duration::ZERO);
            let collector = Collector { chunks, engine, grace, waiting, next_folder: None, list_due };
            Self { _folder: folder, collector, news }
        }

        async fn serving() -> Self {
            let node = Self::new(&[]);
            while node.collector.engine.status().await.unwrap().state != State::Ready {
                tokio::task::yield_now().await;
            }
            node
        }

        /// As an upload does; a value of no chunks is a delete.
        async fn put(&self, key: &'static str, chunks: &[&'static str]) {
            let store = &self.collector.chunks;
            let pins: Vec<_> = chunks.iter().map(|text| store.pin(ChunkId::of(text.as_bytes()))).collect();
            for text in chunks {
                store.write(text.as_bytes()).unwrap();
            }
            let chunks: Vec<_> = pins.iter().map(crate::chunks::Pin::chunk).collect();
            let len = (chunks.len() as u64 * (512 << 10)).saturating_sub(1);
            let write = if chunks.is_empty() {
                Write::Delete { namespace: NAMESPACE, key: key.into() }
            } else {
                let payload = Payload::Chunked(Manifest { len, chunks });
                let value = Value { payload, metadata: None, expires_at_s: None };
                Write::Put { namespace: NAMESPACE, key: key.into(), value }
            };
            self.collector.engine.write(vec![write], Ack::Durable).await.unwrap();
        }

        fn has(&self, text: &str) -> bool {
            self.collector.chunks.contains(&ChunkId::of(text.as_bytes()))
        }

        /// Waits until the engine releases this chunk, and passes that on as the puller does.
        async fn released(&mut self, text: &str) {
            let chunk = ChunkId::of(text.as_bytes());
            while self.news.recv().await.unwrap() != (ChunkNews::Released { chunk }) {}
            self.collector.chunks.let_go(chunk).unwrap();
        }
    }

    #[tokio::test]
    async fn what_the_engine_releases_goes_and_what_another_value_names_stays() {
        let mut node = Node::serving().await;
        node.put("first", &["one", "both"]).await;
        node.put("second", &["both", "two"]).await;
        node.collector.turn().await.unwrap();
        assert!(node.has("one") && node.has("both") && node.has("two"));
        node.put("first", &["new"]).await;
        node.released("one").await;
        node.collector.turn().await.unwrap();
        assert!(!node.has("one") && node.has("both") && node.has("two") && node.has("new"));
        node.put("second", &[]).await;
        node.released("two").await;
        node.collector.turn().await.unwrap();
        assert!(!node.has("two") && node.has("new"));
        let figures = node.collector.chunks.figures();
        assert_eq!((figures.collected, figures.collected_bytes), (2, 6));
        node.collector.engine.shutdown().await;
    }

    #[tokio::test]
    async fn uploads_that_broke_off_leave_nothing_behind() {
        let mut node = Node::serving().await;
        let store = node.collector.chunks.clone();
        // Of an earlier run, which only the listing finds; of this run; and of one that goes on.
        store.write(b"earlier").unwrap();
        drop(store.pin(store.write(b"broken").unwrap()));
        let pin = store.pin(store.write(b"going on").unwrap());
        node.collector.turn().await.unwrap();
        assert!(!node.has("earlier") && !node.has("broken") && node.has("going on"));
        drop(pin);
        node.collector.waiting.clear();
        node.collector.turn().await.unwrap();
        assert!(!node.has("going on"));
        node.collector.engine.shutdown().await;
    }

    #[tokio::test]
    async fn within_the_grace_a_chunk_waits_and_counts() {
        let mut node = Node::serving().await;
        node.collector.grace = Duration::from_secs(3_600);
        node.collector.chunks.write(b"earlier").unwrap();
        node.collector.turn().await.unwrap();
        assert!(node.has("earlier"));
        let waiting: Vec<u64> = node.collector.waiting.values().map(|(bytes, _)| *bytes).collect();
        assert_eq!(waiting, [7]);
        node.collector.engine.shutdown().await;
    }

    /// All its files were garbage to a node that had yet to copy what names them.
    #[tokio::test]
    async fn a_node_that_is_no_member_yet_deletes_nothing() {
        let mut node = Node::new(&["b"]);
        node.collector.chunks.write(b"perhaps named").unwrap();
        for _ in 0..3 {
            node.collector.turn().await.unwrap();
        }
        assert!(node.has("perhaps named") && node.collector.waiting.is_empty());
        node.collector.engine.shutdown().await;
    }
}
