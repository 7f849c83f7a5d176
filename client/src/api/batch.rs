//! The types of `/v1/accounts/{id}/namespaces/{namespace}/batch`, with their limits.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::values::text_or_base64;

/// The most writes in a batch; the least is 1.
pub const MAX_WRITES: usize = 100;
/// The most bytes of a batch: keys, members, fields, values and metadata. 256 KiB.
pub const MAX_BYTES: usize = 256 << 10;
/// The largest value in a batch: 16 KiB.
pub const MAX_VALUE_BYTES: usize = 16 << 10;

/// What a write of a batch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchKind {
    /// A value: [`BatchOp::Put`] and [`BatchOp::Delete`].
    Value,
    /// A counter: [`BatchOp::Add`] and [`BatchOp::Delete`].
    Counter,
    /// A bounded counter: [`BatchOp::Add`], [`BatchOp::Take`] and [`BatchOp::Delete`].
    Bounded,
    /// A set: [`BatchOp::Add`] and [`BatchOp::Remove`] of a member, [`BatchOp::Delete`].
    Set,
    /// A map: [`BatchOp::Put`] and [`BatchOp::Remove`] of a field, [`BatchOp::Delete`].
    Map,
}

/// What a write of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchOp {
    /// Replaces a value, or the value of a field.
    Put,
    /// Deletes the whole under the key, as far as the PoP has seen it.
    Delete,
    /// Adds to a counter, or puts a member in.
    Add,
    /// Takes from a bounded counter, all or nothing.
    Take,
    /// Takes a member out, or a field away, as far as the PoP has seen it.
    Remove,
}

/// One write of a batch. Each kind and operation takes some of the fields, and no others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchWrite {
    /// What it is about.
    pub kind: BatchKind,
    /// What it does.
    pub op: BatchOp,
    /// The key.
    pub key: String,
    /// The member of a set, 1 to 512 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub member: Option<String>,
    /// The name of the field of a map, 1 to 512 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub field: Option<String>,
    /// What to put, as text; at most [`MAX_VALUE_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub value: Option<String>,
    /// The same in base64; one of the two.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub base64: Option<String>,
    /// How much to add or take, as a request of its own has it.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub amount: Option<i64>,
    /// What to store along with a value, at most 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds, at least 1 s ahead.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub expiration: Option<u64>,
    /// Expiry in seconds from now, at least 1; wins over `expiration`.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub expiration_ttl: Option<u64>,
    /// The batch is done only where the state is this one, or one of several: as the header `If-Match` has it.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub if_match: Option<String>,
    /// The batch is done only where the state is none of these, `*` where there is any: as `If-None-Match` has it.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    pub if_none_match: Option<String>,
}

impl BatchWrite {
    /// A write that says nothing else yet.
    pub fn new(kind: BatchKind, op: BatchOp, key: impl Into<String>) -> Self {
        Self {
            kind,
            op,
            key: key.into(),
            member: None,
            field: None,
            value: None,
            base64: None,
            amount: None,
            metadata: None,
            expiration: None,
            expiration_ttl: None,
            if_match: None,
            if_none_match: None,
        }
    }

    /// With these bytes to put.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        (self.value, self.base64) = text_or_base64(bytes);
        self
    }
}

/// A field that is there. Null is refused: what was meant to be said would not be done.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The body of `POST batch`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// 1 to [`MAX_WRITES`] writes, each of another entry, of at most [`MAX_BYTES`] in all.
    pub writes: Vec<BatchWrite>,
}

/// What became of one write of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchDone {
    /// The event by which it was done.
    pub receipt: String,
    /// The state that it left, in quotes: of what was put or added.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// What a counter, bounded or not, stands at after an addition or taking, as of this PoP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<i64>,
}

/// The answer to `POST batch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchWritten {
    /// The event by which the last write was done, as in [`RECEIPT_HEADER`](super::kinds::RECEIPT_HEADER): who holds it
    /// holds all of the batch.
    pub receipt: String,
    /// What became of each, in the order of the writes.
    pub writes: Vec<BatchDone>,
}
