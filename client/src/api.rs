//! The types of the REST contract, shared by the server and its clients.

use serde::{Deserialize, Serialize};

pub mod batch;
pub mod conflicts;
pub mod diff;
pub mod docs;
pub mod homes;
pub mod kinds;
pub mod kv;
pub mod links;
pub mod members;
pub mod quotas;
pub mod tokens;
pub mod values;
pub mod verify;
pub mod watch;
pub mod whereabouts;

/// `GET /v1/status`: one node, at one moment of its engine. Lag has its own page, `GET /v1/lag`, made
/// from the same moment's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The PoP's name.
    pub pop: String,
    /// Its region.
    pub region: String,
    /// 32 hexadecimal digits: this incarnation of its data folder.
    pub replica: String,
    /// The program's version.
    pub version: String,
    /// Whether it serves.
    pub state: State,
    /// Why it does not serve, where it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Digest of the whole store: 32 hexadecimal digits. Replicas with equal vectors have equal roots.
    pub root: String,
    /// Rows in the store: values and tombstones.
    pub entries: u64,
    /// What this node holds, by origin.
    pub vector: Vec<Position>,
    /// The PoPs it knows beside itself.
    pub peers: Vec<Peer>,
    /// What replication has done since the node started.
    #[serde(default)]
    pub counters: Counters,
    /// How far each known replica is behind each origin, as this node knows it.
    pub lag: Vec<Lag>,
    /// Its place in the cluster, and what waits to be dropped.
    #[serde(default)]
    pub membership: Membership,
}

/// A node's place in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// How far it has come into the cluster.
    pub stage: members::Stage,
    /// How many members it knows.
    pub members: u64,
    /// How many of them are being drained.
    pub draining: u64,
    /// How many members there were beside them.
    pub removed: u64,
    /// What waits to be dropped.
    pub garbage: members::Garbage,
    /// How long ago the stable frontier was, in milliseconds.
    pub frontier_lag_ms: u64,
    /// Its clock less the median of all it sees, in milliseconds, where known.
    pub clock_skew_ms: Option<i64>,
    /// Writes of earlier incarnations that are not part of its state; counted to 1,000.
    pub dead_letters: u64,
}

/// What replication has done since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Events of other replicas applied.
    pub events_applied: u64,
    /// Events sent, repeats included.
    pub events_sent: u64,
    /// Deltas that did not join what was held.
    pub gaps: u64,
    /// Streams sent again for want of an acknowledgement.
    pub rewinds: u64,
    /// Deltas put off because they come from the future.
    pub held_back: u64,
    /// Anti-entropy rounds begun.
    pub rounds: u64,
    /// Entries repaired here by anti-entropy: each is a fault found.
    pub repaired: u64,
    /// Entries dropped because they were over.
    #[serde(default)]
    pub dropped: u64,
    /// Writes of an earlier incarnation that were written anew.
    #[serde(default)]
    pub written_anew: u64,
    /// Writes of an earlier incarnation that a newer one had overtaken.
    #[serde(default)]
    pub superseded: u64,
    /// Values that lost to one whose writer had not seen them.
    #[serde(default)]
    pub conflicts: u64,
    /// Of those, how many were not kept to their time for want of room.
    #[serde(default)]
    pub conflicts_dropped: u64,
    /// Entries that readers see as they were, until all of a batch is here.
    #[serde(default)]
    pub veiled: u64,
    /// Entries that readers may have seen with a part of a batch only.
    #[serde(default)]
    pub batches_torn: u64,
    /// Changes of documents that were folded together.
    #[serde(default)]
    pub folded: u64,
    /// Values in the ledger of conflicts now.
    #[serde(default)]
    pub conflict_rows: u64,
    /// Their bytes, with those of their chunks.
    #[serde(default)]
    pub conflict_bytes: u64,
}

/// Whether a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It serves.
    Ready,
    /// It is copying the cluster's state and does not serve yet.
    Bootstrapping,
    /// Its store is damaged, or an older copy of itself: it serves nothing and gossips nothing.
    Quarantined,
    /// A write to its disk failed: it serves reads, and takes no writes until it is started again.
    ReadOnly,
}

/// Everything of one origin up to one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The origin's replica id.
    pub replica: String,
    /// Its PoP, where known.
    pub pop: Option<String>,
    /// The time of the newest event held, in Unix milliseconds.
    pub wall_ms: u64,
    /// Events of the origin up to there.
    pub ops: u64,
    /// Bytes of keys and values those events wrote.
    pub bytes: u64,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// The PoP's name.
    pub pop: String,
    /// Its replica id; unknown before the first contact.
    pub replica: Option<String>,
    /// Whether a link is up.
    pub connected: bool,
    /// The root it last reported.
    pub root: Option<String>,
    /// Its clock less ours, in milliseconds, where known.
    pub clock_offset_ms: Option<i64>,
    /// Smoothed round trip, in microseconds, where known.
    pub rtt_us: Option<u64>,
    /// Whether this node's events go to the peer's region by it: it is the relay there.
    #[serde(default)]
    pub is_relay: bool,
    /// PoPs of other regions whose events it has brought here latest.
    #[serde(default)]
    pub brings: Vec<String>,
    /// PoPs of other regions whose events this node passes on to it.
    #[serde(default)]
    pub is_brought: Vec<String>,
}

/// How far one replica is behind one origin: exact, from durable acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// The origin's PoP (its replica id where the name is unknown).
    pub origin: String,
    /// The PoP that is behind.
    pub peer: String,
    /// Events it has not acknowledged as durable.
    pub ops: u64,
    /// Bytes of keys and values in those events.
    pub bytes: u64,
    /// Milliseconds since the oldest of those events; 0 when there are none.
    pub time_ms: u64,
    /// By how many bytes a second that gets less, over the last ten seconds or so, new writes counted in; below 0 it
    /// grows. Without it nothing is behind, or that is not known yet.
    #[serde(default)]
    pub shrinks_bytes_per_s: Option<i64>,
    /// In how many milliseconds all of them will be gone at that pace, or by the budget while the pace is not known;
    /// without it never at this pace, or neither is known.
    #[serde(default)]
    pub gone_in_ms: Option<u64>,
}

/// `GET /v1/lag`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LagReport {
    /// The PoP that answers.
    pub pop: String,
    /// Every (origin, peer) pair it knows.
    pub lag: Vec<Lag>,
    /// Chunks of large values that entries of this PoP name and that are not here yet; a read fetches them.
    #[serde(default)]
    pub chunks_missing: u64,
    /// Bytes of those chunks.
    #[serde(default)]
    pub chunk_bytes_missing: u64,
}
