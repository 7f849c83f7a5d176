//! The types of `/v1/leaves` and `/v1/entries`: what one PoP holds, in a form that two PoPs can be compared by.
//! Values never travel here.

use serde::{Deserialize, Serialize};

/// The leaves into which the keyed hash of its name puts an entry.
pub const LEAVES: usize = 1 << 16;

/// The most leaves that one call of `/v1/entries` may name; leave them out to be given all.
pub const MAX_LEAVES_NAMED: usize = 4_096;

/// What a store held and had dropped when a page was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The PoP that answers.
    pub pop: String,
    /// What its store held when the page was begun: replica ids, and the packed time of the newest event.
    pub vector: Vec<(String, u64)>,
    /// Its epoch then, packed: what is over at or below it is dropped, or about to be.
    pub epoch: u64,
}

/// `GET /v1/leaves`: the digest of each leaf, recomputed from the rows on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// What they were read under.
    pub holding: Holding,
    /// Entries they are the sum of.
    pub entries: u64,
    /// [`LEAVES`] sums of 8 bytes each, big endian, in base64.
    pub digests: String,
}

/// `GET /v1/entries`: the states of entries in some leaves, a page at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPage {
    /// What it was read under.
    pub holding: Holding,
    /// In the order of namespaces and keys.
    pub entries: Vec<EntryState>,
    /// What to ask the next page with, as `after`; absent at the end. A page may be short and have a next one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_after: Option<String>,
}

/// The state of one entry, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryState {
    /// The namespace's id.
    pub namespace: String,
    /// 16 hexadecimal digits that stand for namespace and key, the same at every PoP of the cluster.
    pub name: String,
    /// The key; absent where the token's accounts do not own the namespace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The member of a set, or the field of a map; as the key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub element: Option<String>,
    /// The replica that wrote it; of what several have written to, the last.
    pub replica: String,
    /// When, packed: 48 bits of Unix milliseconds and a counter of 16.
    pub hlc: u64,
    /// What it wrote.
    pub body: BodyKind,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at_s: Option<u64>,
    /// 16 hexadecimal digits: equal states have equal digests.
    pub digest: String,
}

/// What an event wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// A value in its row.
    Value,
    /// A value in chunk files.
    LargeValue,
    /// A counter.
    Counter,
    /// A bounded counter.
    Bounded,
    /// A member of a set.
    Member,
    /// A field of a map.
    Field,
    /// A chunk of a document.
    Chunk,
    /// What is said of a set, map or document as a whole.
    Whole,
    /// A delete, a removal or a reset.
    Tombstone,
}
