//! The engine: the one thread that owns the replica, and the handle everything else holds.
//!
//! Writes queue up for the thread, which takes all that wait as one group: one batch, one flush, then every
//! acknowledgement. Reads do not pass it; they go straight to the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use littoral::api::{State, Status};
use replication::kinds::ChangeError;
use replication::read::shown::Shown;
use replication::replica::batch::BatchWrite;
pub use replication::replica::batch::{MAX_BATCH_BYTES, MAX_BATCH_WRITES};
use replication::replica::veil::VeilCount;
use replication::replica::verify::Verified;
use replication::{Body, Change, ChunkId, Dot, EntryId, Lane, NamespaceId, Now, Replica, ReplicaId, Value};
use tokio::sync::{mpsc, oneshot, watch};

use crate::storage::SledStore;
use crate::transport::{LinkEvents, LinkSender, PeerInfo};

mod ask;
mod conflicts;
pub(crate) mod documents;
mod driver;
mod etag;
pub(crate) mod feed;
mod forecast;
mod inbox;
mod members;
mod open;
mod precondition;
mod quota;
pub(crate) mod reach;
mod reads;
mod report;
mod whereabouts;

pub use conflicts::Known;
pub use etag::Etag;
use inbox::{Command, Inbox};
pub use members::OperatorError;
pub(crate) use members::{parse_dot, show_dot};
use open::{Unopened, open};
pub use precondition::{Precondition, Tag, Tags, Verdict};
pub use quota::StorageQuota;

/// One change an application asks for.
#[derive(Clone, Debug)]
pub enum Write {
    /// Replace value, metadata and expiry as one.
    Put {
        /// Where.
        namespace: NamespaceId,
        /// 1 to 512 bytes of UTF-8; the caller has checked it.
        key: Bytes,
        /// The new state.
        value: Value,
    },
    /// Leave a tombstone, also where there is nothing.
    Delete {
        /// Where.
        namespace: NamespaceId,
        /// The key.
        key: Bytes,
    },
    /// Change a counter, a set or a map; what is written follows from its state.
    Change {
        /// Where. The caller has checked the lengths of key and element.
        id: EntryId,
        /// How.
        change: Change,
    },
    /// The write, where the entry is in a state that it is for. Of a group, all such are decided before any write is
    /// done.
    If {
        /// In which states.
        precondition: Precondition,
        /// What then.
        write: Box<Write>,
    },
}

impl Write {
    fn namespace(&self) -> NamespaceId {
        match self {
            Self::Put { namespace, .. } | Self::Delete { namespace, .. } => *namespace,
            Self::Change { id, .. } => id.namespace,
            Self::If { write, .. } => write.namespace(),
        }
    }

    /// What the replica is asked for.
    fn undisguised(self) -> (EntryId, BatchWrite) {
        match self {
            Self::Put { namespace, key, value } => {
                (EntryId::value(namespace, key), BatchWrite::Write(Body::Value(value)))
            }
            Self::Delete { namespace, key } => {
                (EntryId::value(namespace, key), BatchWrite::Write(Body::Tombstone))
            }
            Self::Change { id, change } => (id, BatchWrite::Change(change)),
            Self::If { .. } => unreachable!("what is decided has no condition any more"),
        }
    }

    /// The entry, and a state of the size that it will have.
    fn outline(&self) -> (EntryId, Body) {
        match self {
            Self::Put { namespace, key, value } => {
                (EntryId::value(*namespace, key.clone()), Body::Value(value.clone()))
            }
            Self::Delete { namespace, key } => (EntryId::value(*namespace, key.clone()), Body::Tombstone),
            Self::Change { id, change } => (id.clone(), change.outline()),
            Self::If { write, .. } => write.outline(),
        }
    }
}

/// What an operator does about a store that must not be served. (`serve --rebuild` does the same.)
const REMEDY: &str = "stop it, run `littoral store rebuild`, and start it again: it sets this store aside, and returns under \
                      a new identity with what it alone has";

/// What becomes of the names of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkNews {
    /// A state that has come in names it.
    Wanted {
        /// The chunk.
        chunk: ChunkId,
        /// Its length.
        bytes: u64,
    },
    /// No state names it any more.
    Released {
        /// The chunk.
        chunk: ChunkId,
    },
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// After it is flushed to the disk of this PoP.
    #[default]
    Durable,
    /// After it is applied here; a power cut or crash within the next commit may lose it.
    Buffered,
}

/// Why a write was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The queue is full: try again after a moment.
    #[error("this node is overloaded: {queued} writes are waiting; try again in a second")]
    Overloaded {
        /// The bound that was met.
        queued: usize,
    },
    /// The disk has no room left.
    #[error(
        "the disk has {free_bytes} bytes free, fewer than storage.min_free_bytes = {min_free_bytes}; make room, then try again"
    )]
    DiskFull {
        /// Free now.
        free_bytes: u64,
        /// The setting.
        min_free_bytes: u64,
    },
    /// This node's clock cannot be trusted.
    #[error(
        "this node's clock is {skew_ms} ms away from its peers' median (limit {limit_ms} ms); set the clock, then try again"
    )]
    ClockSkew {
        /// How far, and which way.
        skew_ms: i64,
        /// The limit.
        limit_ms: u64,
    },
    /// This node's clock has been set back.
    #[error(
        "this node's clock is {behind_ms} ms behind events it already holds (limit {limit_ms} ms); set the clock, or wait \
         until it has caught up"
    )]
    ClockBehind {
        /// How far.
        behind_ms: u64,
        /// The limit.
        limit_ms: u64,
    },
    /// The entry cannot take this change; nothing was written.
    #[error("{error}")]
    Change {
        /// Which write of the group, from 0.
        index: usize,
        /// Why.
        error: ChangeError,
    },
    /// The entry is in a state that the write is not for; nothing was written.
    #[error("{}", precondition::explain(current.as_ref()))]
    Precondition {
        /// Which of the writes of the group, from 0.
        index: usize,
        /// The state that a reader at this PoP sees; `None` where there is nothing.
        current: Option<Etag>,
    },
    /// The namespace would hold more than it may.
    #[error(
        "{quota} of this namespace is {limit}: it has {used}, and this would add {added}; delete keys, or have an \
         operator raise the quota"
    )]
    OverQuota {
        /// `max_keys` or `max_bytes`.
        quota: &'static str,
        /// The limit.
        limit: u64,
        /// What there is.
        used: u64,
        /// What would come on top.
        added: u64,
    },
    /// An operator is taking this node out.
    #[error("this node is being drained and takes no more writes; write at another PoP")]
    Draining,
    /// The store failed or the node is stopping.
    #[error("{reason}")]
    Unavailable {
        /// What happened, and what to do.
        reason: String,
    },
}

impl WriteError {
    /// What metrics call it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overload",
            Self::DiskFull { .. } => "disk_full",
            Self::ClockSkew { .. } | Self::ClockBehind { .. } => "clock",
            Self::OverQuota { .. } => "quota",
            Self::Draining => "draining",
            Self::Change { .. } => "change",
            Self::Precondition { .. } => "precondition",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// Why a read could not be answered. Never used for a key that is not there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ReadError {
    /// What happened, and what to do.
    pub reason: String,
}

/// One row of a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The key.
    pub key: Bytes,
    /// Absolute expiry in Unix seconds.
    pub expires_at_s: Option<u64>,
    /// Serialised JSON.
    pub metadata: Option<Bytes>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order of the keys' bytes; none deleted, none expired.
    pub rows: Vec<Listed>,
    /// Where the next page begins (strictly after this key); `None` when there is no more.
    pub next_after: Option<Bytes>,
}

/// What the engine needs to start.
pub struct Settings {
    /// This PoP's name.
    pub pop: String,
    /// Its region.
    pub region: String,
    /// The PoPs it should be linked with.
    pub peers: Vec<String>,
    /// Where the store is.
    pub data_folder: PathBuf,
    /// Bytes of memory for sled's cache.
    pub cache_bytes: u64,
    /// With less free space than this, writes are refused.
    pub min_free_bytes: u64,
    /// What the replica needs.
    pub replica: replication::Settings,
}

/// Why the engine cannot start at all. A damaged store is no such reason: the node runs, and says so.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store is in use, of another cluster, or unreadable.
    #[error("{0}")]
    Store(String),
    /// The thread could not be started.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A handle to the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What the handles and the thread share.
struct Shared {
    pop: String,
    inbox: Inbox,
    clocks: Clocks,
    /// The store to read from; none where it could not be opened.
    store: Option<SledStore>,
    /// How many of its entries are veiled.
    veils: VeilCount,
    replica: Option<ReplicaId>,
    condition: ArcSwap<Condition>,
    /// Rises when an entry of the system namespace changes.
    system_version: AtomicU64,
    /// What the last verification of the rows has found.
    verified: ArcSwapOption<Verified>,
    /// Whether this node must be started anew under a new identity, which it does by itself.
    returning: watch::Sender<bool>,
    /// For those who watch.
    feed: feed::Feed,
    /// For those who keep documents in memory.
    followed: documents::Followed,
    /// For those who wait.
    reach: reach::Reach,
}

/// Whether the node serves, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    state: State,
    reason: Option<String>,
}

impl Condition {
    fn of(state: State, reason: impl Into<String>) -> Self {
        Self { state, reason: Some(reason.into()) }
    }

    fn ready() -> Self {
        Self { state: State::Ready, reason: None }
    }
}

/// The clocks of the operating system: the only place that reads them for the core.
struct Clocks {
    started: Instant,
}

impl Clocks {
    fn now(&self) -> Now {
        Now { wall_ms: unix_ms(), mono_us: self.started.elapsed().as_micros() as u64 }
    }
}

/// The wall clock; 0 before 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Engine {
    /// Opens the store and starts the thread. What becomes of the names of chunks is told on `chunk_news`; what has no room
    /// there is left out.
    ///
    /// # Errors
    /// Where the store is open elsewhere or of another cluster. A damaged store starts in quarantine.
    pub fn start(settings: Settings, chunk_news: mpsc::Sender<ChunkNews>) -> Result<Self, StartError> {
        let (replica, condition) = match open(&settings) {
            Ok(replica) => {
                (Some(replica), Condition::of(State::Bootstrapping, "it has not heard from a peer yet"))
            }
            Err(Unopened::Damaged(reason)) => {
                tracing::error!(%reason, "the store is quarantined");
                (None, Condition::of(State::Quarantined, reason))
            }
            Err(Unopened::Refused(reason)) => return Err(StartError::Store(reason)),
        };
        let shared = Arc::new(Shared {
            pop: settings.pop.clone(),
            inbox: Inbox::default(),
            clocks: Clocks { started: Instant::now() },
            store: replica.as_ref().map(|replica| replica.store().clone()),
            veils: replica.as_ref().map(Replica::veil_count).unwrap_or_default(),
            replica: replica.as_ref().map(Replica::id),
            condition: ArcSwap::from_pointee(condition),
            system_version: AtomicU64::new(0),
            verified: ArcSwapOption::empty(),
            returning: watch::Sender::new(false),
            feed: feed::Feed::default(),
            followed: documents::Followed::default(),
            reach: reach::Reach::new(&settings.replica),
        });
        driver::spawn(shared.clone(), settings, replica, chunk_news)?;
        Ok(Self { shared })
    }

    /// This PoP's name.
    pub fn pop(&self) -> &str {
        &self.shared.pop
    }

    /// This store's replica; `None` in quarantine.
    pub fn replica(&self) -> Option<ReplicaId> {
        self.shared.replica
    }

    /// Completes when this store must be rebuilt and the node started anew, and no operator is needed for that.
    pub async fn must_return(&self) {
        // It fails only without a sender, which lives as long as this.
        let _ = self.shared.returning.subscribe().wait_for(|returning| *returning).await;
    }

    /// Applies these writes in order and answers once all are acknowledged as `ack` says.
    ///
    /// # Errors
    /// None of them may be taken as done, though some may have been: repeat them all.
    pub async fn write(&self, writes: Vec<Write>, ack: Ack) -> Result<Vec<Dot>, WriteError> {
        self.write_within(StorageQuota::default(), writes, ack).await
    }

    /// As [`Engine::write`], of writes to one namespace, of which none is done where all together would exceed its quota.
    ///
    /// # Errors
    /// [`WriteError::OverQuota`] too.
    pub async fn write_within(
        &self,
        quota: StorageQuota,
        writes: Vec<Write>,
        ack: Ack,
    ) -> Result<Vec<Dot>, WriteError> {
        self.write_counted(quota, writes, false, ack).await
    }

    /// As [`Engine::write_within`], of at most [`MAX_BATCH_WRITES`] writes to different entries, which all become visible
    /// together, at every PoP.
    ///
    /// # Errors
    /// Then none was done, unless the store has failed.
    pub async fn write_batch(
        &self,
        quota: StorageQuota,
        writes: Vec<Write>,
        ack: Ack,
    ) -> Result<Vec<Dot>, WriteError> {
        self.write_counted(quota, writes, true, ack).await
    }

    async fn write_counted(
        &self,
        quota: StorageQuota,
        writes: Vec<Write>,
        as_one: bool,
        ack: Ack,
    ) -> Result<Vec<Dot>, WriteError> {
        let count = writes.len() as u64;
        let is_system = writes.iter().any(|write| write.namespace() == NamespaceId::SYSTEM);
        let written = self.queue_and_wait(quota, writes, as_one, ack).await;
        if is_system {
            // The thread raises it too, but a moment later.
            self.shared.system_version.fetch_add(1, Ordering::Release);
        }
        if let Err(error) = &written {
            metrics::counter!("littoral_writes_refused_total", "reason" => error.kind()).increment(count);
        }
        written
    }

    async fn queue_and_wait(
        &self,
        quota: StorageQuota,
        writes: Vec<Write>,
        as_one: bool,
        ack: Ack,
    ) -> Result<Vec<Dot>, WriteError> {
        {
            let condition = self.shared.condition.load();
            if condition.state != State::Ready {
                return Err(WriteError::Unavailable { reason: condition.explain() });
            }
        }
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.queue_writes(quota, writes, as_one, ack, reply)?;
        answer
            .await
            .unwrap_or_else(|_| Err(WriteError::Unavailable { reason: "this node is stopping".into() }))
    }

    /// A number that rises whenever entries of the system namespace may have changed, by a peer, or here: then before
    /// the write is acknowledged.
    pub fn system_version(&self) -> u64 {
        self.shared.system_version.load(Ordering::Acquire)
    }

    /// Everything an operator may ask of this node, exact at one moment of the engine.
    ///
    /// # Errors
    /// While the node stops, or its store fails.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.queue(Command::Status { reply });
        answer.await.unwrap_or_else(|_| Err(ReadError { reason: "this node is stopping".into() }))
    }

    /// Makes everything acknowledged durable, leaves a checkpoint and stops the thread.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.queue(Command::Stop { reply });
        // An error means that the thread has ended already.
        let _ = answer.await;
    }
}

/// Frames and the ends of links pass one queue, so a frame of an old link never comes after a new link's begin.
impl LinkEvents for Engine {
    async fn connected(&self, peer: PeerInfo, link: LinkSender) {
        self.shared.inbox.queue(Command::Connected { peer, link });
    }

    async fn disconnected(&self, replica: ReplicaId) {
        self.shared.inbox.queue(Command::Disconnected { replica });
    }

    async fn frame(&self, replica: ReplicaId, _lane: Lane, frame: Bytes) {
        self.shared.inbox.queue_frame(replica, frame).await;
    }

    fn ready(&self, _replica: ReplicaId, _lane: Lane) {
        self.shared.inbox.wake();
    }
}

impl Shared {
    /// What readers see.
    fn readable(&self) -> Result<Shown<'_, SledStore>, ReadError> {
        Ok(Shown::new(self.serving()?, &self.veils))
    }

    /// The store, veiled entries and all.
    fn serving(&self) -> Result<&SledStore, ReadError> {
        let condition = self.condition.load();
        match (&condition.state, &self.store) {
            (State::Ready | State::ReadOnly, Some(store)) => Ok(store),
            _ => Err(ReadError { reason: condition.explain() }),
        }
    }

    /// A row that cannot be read is damage: from now on nothing of this store is served or gossiped.
    fn read_failed(&self, error: replication::StoreError) -> ReadError {
        self.change(Condition::of(State::Quarantined, error.reason.clone()));
        self.inbox.wake();
        ReadError { reason: error.reason }
    }

    fn change(&self, condition: Condition) {
        let known = self.condition.load();
        if **known != condition {
            // How far a copy has got is for those who ask.
            let is_progress = known.state == condition.state && condition.state == State::Bootstrapping;
            match &condition.reason {
                Some(_) if is_progress => {}
                Some(reason) => {
                    tracing::error!(state = ?condition.state, %reason, "this node does not serve")
                }
                None => tracing::info!("this node serves"),
            }
            self.condition.store(Arc::new(condition));
        }
    }
}

impl Condition {
    fn explain(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or("it is ready");
        match self.state {
            State::Ready => reason.into(),
            State::Bootstrapping => {
                format!("this node is copying the cluster's state ({reason}); ask another PoP")
            }
            State::Quarantined => format!("this node's store is quarantined: {reason}"),
            State::ReadOnly => format!("this node takes no writes until it is started again: {reason}"),
        }
    }
}
