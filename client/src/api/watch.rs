//! The types of a watch: `GET /v1/accounts/{account}/namespaces/{namespace}/watch`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What an event of a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchType {
    /// There is this value, counter, member or field now.
    Put,
    /// There is none any more.
    Delete,
    /// The whole set or map was emptied; what has survived that follows, put by put.
    Clear,
    /// The set or map as a whole has this metadata now, or none.
    Describe,
    /// All that was there, or has changed since the cursor, is told; from here on changes follow as they come.
    Sync,
    /// The cursor leads to a time that the log does not reach any more: forget everything, a snapshot follows.
    Reset,
    /// The client was too slow, and some changes were not kept for it. They follow now, in their latest states.
    Behind,
    /// Nothing has changed; the cursor has moved on.
    Cursor,
    /// The watch ends, for this reason. Watch again from the last cursor.
    End,
    /// One of a later version.
    #[serde(other)]
    Other,
}

/// What of a namespace is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchKind {
    /// The last writer wins.
    Value,
    /// A sum of increments and decrements.
    Counter,
    /// A sum that never goes below zero.
    Bounded,
    /// Members.
    Set,
    /// Fields with values.
    Map,
    /// JSON that many edit at once. Its events tell a change each, for copies of it.
    Doc,
}

impl WatchKind {
    /// Every kind there is.
    pub const ALL: [Self; 6] = [Self::Value, Self::Counter, Self::Bounded, Self::Set, Self::Map, Self::Doc];

    /// Its name in documents and URLs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Counter => "counter",
            Self::Bounded => "bounded",
            Self::Set => "set",
            Self::Map => "map",
            Self::Doc => "doc",
        }
    }
}

/// One event. What does not apply to its type is absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchEvent {
    /// What it tells.
    #[serde(rename = "type")]
    pub what: WatchType,
    /// Of which kind the entry is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<WatchKind>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The member of a set or the field of a map.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub element: Option<String>,
    /// The same in base64, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub element_base64: Option<String>,
    /// The value, or that of the field, where it is text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// The same in base64, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
    /// The length in bytes of a value that is too large to be told here: read it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// The change of a document, as Automerge has it, in base64. Where it is absent, read the document: it is there, or more of
    /// it has changed than is told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change_base64: Option<String>,
    /// What a counter stands at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<i128>,
    /// What was stored along with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds. No event tells when it comes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
    /// The replica that wrote it, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// When, in Unix milliseconds of its clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<u64>,
    /// The name of the event that wrote it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<String>,
    /// Why it ends, or began anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Where to go on after this event, at this PoP or another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cursor: Option<String>,
}

impl WatchEvent {
    /// An event of this type, and nothing else yet.
    pub fn of(what: WatchType) -> Self {
        Self {
            what,
            kind: None,
            key: None,
            element: None,
            element_base64: None,
            value: None,
            base64: None,
            size: None,
            change_base64: None,
            count: None,
            metadata: None,
            expiration: None,
            origin: None,
            time: None,
            receipt: None,
            reason: None,
            cursor: None,
        }
    }
}
