//! What a replica stores: entries, their names, and how two states of one entry merge.
//!
//! An entry of kind *value* is a last-writer-wins register (Shapiro et al., "A comprehensive study of
//! Convergent and Commutative Replicated Data Types", 2011, section 3.2.1): the greater [`Dot`] wins, and
//! payload, metadata and expiry travel as one. A delete is a state like any other, a tombstone.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::clock::{Dot, Hlc, NotHex, parse_hex};

/// The longest key, in bytes of UTF-8 (the limit of Workers KV).
pub const MAX_KEY_BYTES: usize = 512;
/// The longest metadata, in bytes of serialised JSON (the limit of Workers KV).
pub const MAX_METADATA_BYTES: usize = 1024;
/// The largest value (the limit of Workers KV: 25 MiB).
pub const MAX_VALUE_BYTES: u64 = 25 << 20;
/// The largest value kept inside its row; a larger one is a [`Manifest`] of chunks.
pub const MAX_INLINE_BYTES: usize = 16 << 10;
/// The size of every chunk of a large value but its last.
pub const CHUNK_BYTES: usize = 512 << 10;

/// A namespace, as the API shows it: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub [u8; 16]);

impl NamespaceId {
    /// Where the cluster keeps its own entries (the list of namespaces); never served to applications.
    pub const SYSTEM: Self = Self([0; 16]);
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NamespaceId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self)
    }
}

/// How an entry merges. Part of its name, so that two kinds never meet in a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Last writer wins.
    Value = 1,
}

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The namespace it belongs to.
    pub namespace: NamespaceId,
    /// How it merges.
    pub kind: Kind,
    /// UTF-8, 1 to [`MAX_KEY_BYTES`] bytes; checked where it enters.
    pub key: Bytes,
}

impl EntryId {
    /// The entry of kind value under `key`.
    pub fn value(namespace: NamespaceId, key: impl Into<Bytes>) -> Self {
        Self { namespace, kind: Kind::Value, key: key.into() }
    }
}

/// One state of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The event that wrote this state.
    pub dot: Dot,
    /// What it wrote.
    pub body: Body,
}

impl Entry {
    /// Whether `other` replaces this state. A total order, so merging is commutative, associative and
    /// idempotent. One dot names one event, and so one state, unless two clones of one data folder have
    /// written: then the contents decide, so that replicas agree all the same.
    pub fn is_replaced_by(&self, other: &Entry) -> bool {
        if planted!(TieBreakForgotten) {
            return self.dot.hlc <= other.dot.hlc;
        }
        self.dot.cmp(&other.dot).then_with(|| self.body.cmp(&other.body)) == Ordering::Less
    }

    /// The time from which on nobody needs this state, once everybody holds all that happened up to it: a
    /// tombstone's own, or that of an expiry. `None` for a value that stays.
    pub fn is_over_at(&self) -> Option<Hlc> {
        match &self.body {
            Body::Tombstone => Some(self.dot.hlc),
            Body::Value(value) => {
                value.expires_at_s.map(|at| self.dot.hlc.max(Hlc::new(at.saturating_mul(1000), 0)))
            }
        }
    }

    /// Bytes of application data in this state beside its key: what lag and budgets count.
    pub fn user_bytes(&self) -> u64 {
        match &self.body {
            Body::Tombstone => 0,
            Body::Value(value) => value.payload.len() + value.metadata.as_ref().map_or(0, |m| m.len() as u64),
        }
    }
}

/// What an event wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Body {
    /// A put.
    Value(Value),
    /// A delete.
    Tombstone,
}

impl Body {
    /// The chunks of the value, if it has any.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Body::Value(Value { payload: Payload::Chunked(manifest), .. }) => Some(manifest),
            Body::Value(_) | Body::Tombstone => None,
        }
    }
}

/// A value with all that is written along with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The bytes, or where they are.
    pub payload: Payload,
    /// Serialised JSON, at most [`MAX_METADATA_BYTES`]; checked where it enters.
    pub metadata: Option<Bytes>,
    /// Absolute expiry in Unix seconds: from that second on, no reader sees the value.
    pub expires_at_s: Option<u64>,
}

impl Value {
    /// Whether no reader may see it any more.
    pub fn is_expired(&self, now_s: u64) -> bool {
        self.expires_at_s.is_some_and(|at| at <= now_s)
    }
}

/// The bytes of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payload {
    /// Kept in the row; at most [`MAX_INLINE_BYTES`].
    Inline(Bytes),
    /// Kept in chunk files beside the store.
    Chunked(Manifest),
}

impl Payload {
    /// Length of the value in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Chunked(manifest) => manifest.len,
        }
    }
}

/// Where the bytes of a large value are: its chunks in order, each [`CHUNK_BYTES`] long but the last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manifest {
    /// Length of the value in bytes.
    pub len: u64,
    /// The chunks in order.
    pub chunks: Vec<ChunkId>,
}

impl Manifest {
    /// How many chunks a value of `len` bytes has.
    pub fn chunk_count(len: u64) -> usize {
        len.div_ceil(CHUNK_BYTES as u64) as usize
    }

    /// The chunks in order, each with its length in bytes.
    pub fn parts(&self) -> impl Iterator<Item = (ChunkId, u64)> {
        let chunk_bytes = CHUNK_BYTES as u64;
        let left = move |index: u64| self.len.saturating_sub(index * chunk_bytes).min(chunk_bytes);
        (0..).zip(&self.chunks).map(move |(index, chunk)| (*chunk, left(index)))
    }
}

/// A chunk's name: the BLAKE3 hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl FromStr for ChunkId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::ReplicaId;

    /// Few times and replicas, so that ties are common. One dot names one event, so the body follows from it.
    fn states() -> impl Strategy<Value = Entry> {
        (0..4u64, 0..3u8).prop_map(|(ms, replica)| {
            let dot = Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([replica; 16]) };
            let payload = Payload::Inline(Bytes::from(format!("{ms} {replica}")));
            let value = Value { payload, metadata: None, expires_at_s: None };
            Entry { dot, body: if ms % 3 == 0 { Body::Tombstone } else { Body::Value(value) } }
        })
    }

    fn merged(left: &Entry, right: &Entry) -> Entry {
        if left.is_replaced_by(right) { right.clone() } else { left.clone() }
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in states(), b in states(), c in states()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }

        #[test]
        fn merging_never_goes_back(a in states(), b in states()) {
            let merged = merged(&a, &b);
            prop_assert!(merged.dot >= a.dot && merged.dot >= b.dot);
        }
    }

    #[test]
    fn the_lengths_of_chunks_add_up_to_the_value() {
        let chunk_bytes = CHUNK_BYTES as u64;
        for len in [1, chunk_bytes - 1, chunk_bytes, chunk_bytes + 1, 3 * chunk_bytes] {
            let chunks = vec![ChunkId([1; 32]); Manifest::chunk_count(len)];
            let lens: Vec<u64> = Manifest { len, chunks }.parts().map(|(_, bytes)| bytes).collect();
            assert_eq!(lens.iter().sum::<u64>(), len);
            assert!(lens[..lens.len() - 1].iter().all(|bytes| *bytes == chunk_bytes), "{lens:?}");
        }
    }

    #[test]
    fn a_value_is_gone_from_the_second_it_expires_at() {
        let value = Value { payload: Payload::Inline(Bytes::new()), metadata: None, expires_at_s: Some(100) };
        let seen = [99, 100, 101].map(|now_s| value.is_expired(now_s));
        assert_eq!(seen, [false, true, true]);
    }
}
