//! The engine: the one thread that owns the replica, and the handle everything else holds.

use std::time::Duration;

use bytes::Bytes;
use replication::{Dot, Lane, NamespaceId, Payload, ReplicaId, Value};

use crate::transport::LinkSender;

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
    #[error("the disk has {free_bytes} bytes free, fewer than storage.min_free_bytes = {min_free_bytes}; make room, then try again")]
    DiskFull {
        /// Free now.
        free_bytes: u64,
        /// The setting.
        min_free_bytes: u64,
    },
    /// This node's clock cannot be trusted.
    #[error("this node's clock is {skew_ms} ms away from its peers' median (limit {limit_ms} ms); set the clock, then try again")]
    ClockSkew {
        /// How far, and which way.
        skew_ms: i64,
        /// The limit.
        limit_ms: u64,
    },
    /// The store failed or the node is stopping.
    #[error("{reason}")]
    Unavailable {
        /// What happened, and what to do.
        reason: String,
    },
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

/// The peer at the other end of an established link; the handshake has proven it.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its replica.
    pub replica: ReplicaId,
    /// Its PoP's name, as its certificate says.
    pub pop: String,
    /// Its region, as it says.
    pub region: String,
}

/// A handle to the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Applies these writes in order and answers once all are acknowledged as `ack` says.
    pub async fn write(&self, writes: Vec<Write>, ack: Ack) -> Result<Vec<Dot>, WriteError> {
        let _ = (writes, ack);
        todo!()
    }

    /// The value a reader sees now; `None` when there is none (never written, deleted or expired).
    /// Reads the store directly, without the engine thread: microseconds when the row is cached.
    pub fn read(&self, namespace: NamespaceId, key: &[u8]) -> Result<Option<Value>, ReadError> {
        let _ = (namespace, key);
        todo!()
    }

    /// Up to `limit` keys that start with `prefix` and come strictly after `after`. Blocking: call it
    /// under `tokio::task::block_in_place`. A page may hold fewer rows than `limit` (even none) and
    /// still have a `next_after`.
    pub fn list(&self, namespace: NamespaceId, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page, ReadError> {
        let _ = (namespace, prefix, after, limit);
        todo!()
    }

    /// Rises whenever an entry of [`NamespaceId::SYSTEM`] has changed, here or by replication, and only
    /// once that change can be read: whoever reads the version first and the entries after it never
    /// takes an old entry for a new one. One atomic load.
    pub fn namespaces_version(&self) -> u64 {
        todo!()
    }

    /// Everything an operator may ask of this node, exact at one moment of the engine.
    pub async fn status(&self) -> Result<littoral::api::Status, ReadError> {
        todo!()
    }

    // --- what the transport calls ---

    /// A link is up: from now on the engine fills `link` and expects [`Engine::peer_frame`].
    pub async fn peer_connected(&self, peer: PeerInfo, link: LinkSender) {
        let _ = (peer, link);
        todo!()
    }

    /// The link is gone.
    pub async fn peer_disconnected(&self, replica: ReplicaId) {
        let _ = replica;
        todo!()
    }

    /// A frame has come in. Waits while the engine's queue is full, which is the back pressure that QUIC
    /// flow control carries to the sender.
    pub async fn peer_frame(&self, replica: ReplicaId, lane: Lane, frame: Bytes) {
        let _ = (replica, lane, frame);
        todo!()
    }

    /// A lane of this link has taken its frames and can take more.
    pub fn link_ready(&self, replica: ReplicaId, lane: Lane) {
        let _ = (replica, lane);
        todo!()
    }

    /// Waits until everything acknowledged is on disk, then stops the thread.
    pub async fn shutdown(&self, within: Duration) {
        let _ = within;
        todo!()
    }
}
