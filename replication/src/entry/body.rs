//! What a state says: a value, that there is none, or what is made of parts.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::CHUNK_BYTES;
use crate::clock::{Dot, NotHex, parse_hex};
use crate::kinds::{Bounded, Counter, Element, Head, Joined};

/// What an event wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Body {
    /// A put.
    Value(Value),
    /// A delete.
    Tombstone,
    /// A counter.
    Counter(Counter),
    /// A bounded counter.
    Bounded(Bounded),
    /// A member of a set, a field of a map, or a chunk of a document.
    Element(Element),
    /// What is said of a set, map or document as a whole.
    Head(Head),
}

impl Body {
    /// The chunks of the value, if it has any.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Body::Value(Value { payload: Payload::Chunked(manifest), .. }) => Some(manifest),
            _ => None,
        }
    }

    /// The counter, if it is one.
    pub(super) fn counter(&self) -> Option<&Counter> {
        if let Body::Counter(counter) = self { Some(counter) } else { None }
    }

    /// The bounded counter, if it is one.
    pub(super) fn bounded(&self) -> Option<&Bounded> {
        if let Body::Bounded(bounded) = self { Some(bounded) } else { None }
    }

    /// The member or field, if it is one.
    pub(super) fn element(&self) -> Option<&Element> {
        if let Body::Element(element) = self { Some(element) } else { None }
    }

    /// What is said of a whole, if it is that.
    pub(super) fn head(&self) -> Option<&Head> {
        if let Body::Head(head) = self { Some(head) } else { None }
    }

    /// The events of its parts; `None` for what has no parts.
    pub(super) fn dots(&self) -> Option<Vec<Dot>> {
        match self {
            Body::Value(_) | Body::Tombstone => None,
            Body::Counter(counter) => Some(counter.dots().collect()),
            Body::Bounded(bounded) => Some(bounded.dots().collect()),
            Body::Element(element) => Some(element.dots().collect()),
            Body::Head(head) => Some(head.dots().collect()),
        }
    }

    /// Whether it says only that there is nothing.
    pub fn is_tombstone(&self) -> bool {
        match self {
            Body::Tombstone => true,
            Body::Value(_) | Body::Head(_) => false,
            Body::Counter(counter) => counter.is_dead(),
            Body::Bounded(bounded) => bounded.is_dead(),
            Body::Element(element) => element.is_dead(),
        }
    }

    /// Bytes of application data in it.
    pub fn user_bytes(&self) -> u64 {
        let of_metadata = |metadata: Option<&Bytes>| metadata.map_or(0, |metadata| metadata.len() as u64);
        match self {
            Body::Tombstone => 0,
            Body::Value(value) => value.payload.len() + of_metadata(value.metadata.as_ref()),
            Body::Counter(counter) => 8 + of_metadata(counter.metadata()),
            Body::Bounded(bounded) => 8 + of_metadata(bounded.metadata()),
            Body::Element(element) => element.content_bytes(),
            Body::Head(head) => of_metadata(head.metadata()),
        }
    }

    /// When the next of it expires, in Unix seconds.
    pub fn next_expiry(&self) -> Option<u64> {
        match self {
            Body::Tombstone | Body::Bounded(_) => None,
            Body::Head(head) => head.next_expiry(),
            Body::Value(value) => value.expires_at_s,
            Body::Counter(counter) => counter.next_expiry(),
            Body::Element(element) => element.next_expiry(),
        }
    }

    /// About how many bytes it takes in a message.
    pub fn frame_bytes(&self) -> usize {
        let of_metadata = |metadata: Option<&Bytes>| metadata.map_or(0, |metadata| metadata.len() + 2);
        match self {
            Body::Tombstone => 0,
            Body::Value(value) => {
                let payload = match &value.payload {
                    Payload::Inline(bytes) => bytes.len(),
                    Payload::Chunked(manifest) => 10 + 32 * manifest.chunks.len(),
                };
                payload + of_metadata(value.metadata.as_ref())
            }
            Body::Counter(counter) => 48 * counter.parts.len() + of_metadata(counter.metadata()),
            Body::Bounded(bounded) => bounded.frame_bytes() + of_metadata(bounded.metadata()),
            Body::Element(element) => 32 * element.parts.len() + element.content_bytes() as usize,
            Body::Head(head) => {
                let times = head.events.len()
                    + head.expiries.len()
                    + head.clears.values().map(|cleared| cleared.len()).sum::<usize>();
                24 * times + of_metadata(head.metadata())
            }
        }
    }
}

/// A value with all that is written along with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The bytes, or where they are.
    pub payload: Payload,
    /// Serialised JSON, at most [`super::MAX_METADATA_BYTES`]; checked where it enters.
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
    /// Kept in the row; at most [`super::MAX_INLINE_BYTES`].
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
