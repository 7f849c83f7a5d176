//! What a PoP says of the members of its cluster, of what waits to be dropped, and of dead letters.

use serde::{Deserialize, Serialize};

/// How far a replica has come into its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It has nothing, and is not a member.
    #[default]
    Fresh,
    /// It was let in, and copies what the cluster holds.
    Copying,
    /// It holds a copy, and catches up with what was written meanwhile.
    CatchingUp,
    /// It is a full member.
    Member,
    /// It was removed.
    Removed,
}

/// Why a replica is a member no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// An operator took it out.
    Operator,
    /// It was away for too long.
    Silent,
    /// A later incarnation of its PoP has taken its place.
    Replaced,
}

/// `GET /v1/members`: the cluster, as the PoP that answers knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReport {
    /// The PoP that answers.
    pub pop: String,
    /// Its replica id.
    pub replica: String,
    /// How far it has come into the cluster itself.
    pub stage: Stage,
    /// How much of the cluster it has copied, while it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub copy: Option<Copy>,
    /// The members, by PoP.
    pub members: Vec<Member>,
    /// Those who were members, by PoP.
    pub removed: Vec<Removed>,
}

/// How far a copy has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Entries that are here.
    pub entries: u64,
    /// About how many there are; 0 until the source has said so.
    pub total: u64,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its PoP; its replica id where that is not known.
    pub pop: String,
    /// Its region.
    pub region: String,
    /// Its replica id: 32 hexadecimal digits.
    pub replica: String,
    /// Whether it is the one that answers.
    pub is_this: bool,
    /// Whether a link to it is up.
    pub connected: bool,
    /// How far it has come; unknown where it was never heard.
    pub stage: Option<Stage>,
    /// Whether it takes no more writes, on its way out.
    pub draining: bool,
    /// Events it lacks, of all origins.
    pub lacks_ops: u64,
    /// Events of its own that not every other member holds.
    pub unsent_ops: u64,
    /// When it was let in, in Unix milliseconds.
    pub joined_ms: u64,
    /// The newest that is known of it, in Unix milliseconds.
    pub last_known_ms: u64,
    /// Why it cannot be removed without force; `None` where it can.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept_because: Option<String>,
}

/// One that was a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its PoP; its replica id where that is not known.
    pub pop: String,
    /// Its replica id: 32 hexadecimal digits.
    pub replica: String,
    /// Why.
    pub reason: Reason,
    /// When, in Unix milliseconds.
    pub removed_ms: u64,
}

/// The body of `POST /v1/members/{replica}/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Whether it shall take no more writes, or take them again.
    pub draining: bool,
}

/// The body of `POST /v1/members/{replica}/remove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Remove it though that may lose writes.
    #[serde(default)]
    pub force: bool,
}

/// `GET /v1/gc`: what waits to be dropped, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageReport {
    /// The PoP that answers.
    pub pop: String,
    /// Its clock, in Unix milliseconds.
    pub now_ms: u64,
    /// The steps in which the epoch moves, in milliseconds.
    pub epoch_every_ms: u64,
    /// What waits.
    pub garbage: Garbage,
    /// Beyond so many bytes of tombstones and log rows, those that are away are evicted a hundred times sooner.
    pub max_waiting_bytes: u64,
    /// Every member, the one furthest back first.
    pub holders: Vec<Holder>,
    /// Chunk files of large values.
    #[serde(default)]
    pub chunks: ChunkGarbage,
}

/// Chunk files of large values that no value names, and what became of such files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkGarbage {
    /// All chunk files of the PoP.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that no value names, and that wait for their grace (`storage.chunk_grace_s`) to pass.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Files deleted since the node started.
    pub collected: u64,
    /// Their bytes.
    pub collected_bytes: u64,
}

/// What a store keeps only until everyone has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// All that was over at or before this is dropped, or being dropped; in Unix milliseconds.
    pub epoch_ms: u64,
    /// Whether it all is.
    pub swept: bool,
    /// Up to here every member holds everything; in Unix milliseconds.
    pub frontier_ms: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of their rows.
    pub tombstone_bytes: u64,
    /// Values with an expiry, come or not.
    pub expiring: u64,
    /// Events in the log.
    pub log_rows: u64,
    /// Bytes of their rows.
    pub log_bytes: u64,
}

/// One member, and up to when it holds everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its PoP.
    pub pop: String,
    /// Its replica id.
    pub replica: String,
    /// Whether a link to it is up, or it is the one that answers.
    pub connected: bool,
    /// The PoP whose events it is furthest behind with.
    pub origin: String,
    /// It holds everything up to here; in Unix milliseconds.
    pub upto_ms: u64,
}

/// `GET /v1/dead-letters`: writes of earlier incarnations of this PoP that are not part of its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// The PoP that answers.
    pub pop: String,
    /// The oldest first; at most 1,000.
    pub letters: Vec<DeadLetter>,
}

/// A write of an earlier incarnation. It is too old to tell whether its key was deleted since, or was not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event: by this it is settled.
    pub dot: String,
    /// When it was written, in Unix milliseconds.
    pub written_ms: u64,
    /// The namespace's id.
    pub namespace: String,
    /// The key; bytes that are no UTF-8 are replaced.
    pub key: String,
    /// Bytes of the value; `None` for a delete.
    pub bytes: Option<u64>,
}

/// The body of `POST /v1/dead-letters/{dot}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// Write it anew, or forget it.
    pub write: bool,
}
