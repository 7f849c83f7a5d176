//! The types of `/v1/accounts/{id}/namespaces/{namespace}/docs`, with their limits.
//!
//! A document itself is any JSON object, and is read and written as it is, without anything around it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The header that names the heads of the document that an answer is of: hashes in hexadecimal, with commas between them.
pub const HEADS_HEADER: &str = "littoral-heads";
/// The most bytes of a body with a document, a patch or changes.
pub const MAX_DOC_BODY_BYTES: u64 = 8 << 20;
/// The most changes in one body.
pub const MAX_BODY_CHANGES: usize = 1_000;
/// The most heads that a request names.
pub const MAX_HEADS: usize = 100;
/// The longest message of a change, in bytes of UTF-8.
pub const MAX_MESSAGE_BYTES: usize = 1_024;
/// The content type of a merge patch (RFC 7386).
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// The content type of a JSON patch (RFC 6902).
pub const JSON_PATCH: &str = "application/json-patch+json";

/// What a write to a document answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocWritten {
    /// The event by which it was done; `None` where nothing was otherwise.
    pub receipt: Option<String>,
    /// The document's latest changes then: their hashes in hexadecimal, sorted.
    pub heads: Vec<String>,
}

/// `GET …/conflicts`: all values that were written at one place at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conflicts {
    /// One where nobody disagrees. The last is the one that readers see.
    pub values: Vec<ConflictingValue>,
}

/// One of the values at a place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConflictingValue {
    /// The value.
    pub value: Box<RawValue>,
    /// The change that wrote it.
    pub hash: String,
    /// Who made that, in hexadecimal.
    pub actor: String,
    /// When, in Unix seconds by the clock of who made it.
    pub time: i64,
}

/// `GET …/history`: a page of the changes that a document was made by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Each after those it was made on top of.
    pub changes: Vec<ChangeInfo>,
    /// The next page is asked for with `after` this; `None` on the last one.
    pub next_after: Option<String>,
}

/// A change, without what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeInfo {
    /// Its name, in hexadecimal.
    pub hash: String,
    /// Who made it, in hexadecimal.
    pub actor: String,
    /// Which of the actor's it is, from 1 on.
    pub seq: u64,
    /// When, in Unix seconds by the clock of who made it.
    pub time: i64,
    /// What whoever made it said about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
    /// How many operations it has.
    pub ops: u64,
    /// The changes it was made on top of.
    pub deps: Vec<String>,
}
