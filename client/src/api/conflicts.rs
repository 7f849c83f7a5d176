//! The types of `/v1/accounts/{id}/namespaces/{namespace}/conflicts`, with their limits.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most rows on one page of a listing; also the default. The least is 1.
pub const MAX_PAGE_CONFLICTS: usize = 1_000;
/// How much of a value that lost a listing shows, where it is asked for: so many bytes of its beginning.
pub const PREVIEW_BYTES: usize = 256;

/// A value that lost to another write, whose writer had not seen it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conflict {
    /// By this it is read, restored and dismissed, at the PoP that lists it. The same at every PoP that does.
    pub id: String,
    /// The key.
    pub key: String,
    /// What lost.
    pub lost: Lost,
    /// What won.
    pub won: Won,
    /// When this PoP noticed, in Unix milliseconds.
    pub noticed_ms: u64,
    /// Until when it is kept, in Unix milliseconds, if there is room for so long.
    pub kept_until_ms: u64,
}

/// The side that lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// The PoP that it was written at; `None` where it is not known any more.
    pub pop: Option<String>,
    /// The replica id of the node there.
    pub replica: String,
    /// When it was written, in Unix milliseconds.
    pub written_ms: u64,
    /// Bytes of the value.
    pub size: u64,
    /// Its beginning, where that was asked for: bytes that are no UTF-8 are replaced. `None` for one in chunks, too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preview: Option<String>,
    /// What was stored along with it, where a preview was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
}

/// The side that won.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Won {
    /// As [`Lost::pop`].
    pub pop: Option<String>,
    /// As [`Lost::replica`].
    pub replica: String,
    /// As [`Lost::written_ms`].
    pub written_ms: u64,
    /// Whether it was a delete.
    pub deleted: bool,
}

/// `GET conflicts`: a page of the ledger of the PoP that answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConflictsPage {
    /// In the order of the keys' bytes, and of one key the oldest write first.
    pub conflicts: Vec<Conflict>,
    /// The next page is asked for with `after` this; `None` on the last one.
    pub next_after: Option<String>,
}

/// `DELETE conflicts/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dismissed {
    /// Which.
    pub id: String,
}
