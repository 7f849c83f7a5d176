//! The types of the Workers KV REST v4 contract: envelopes, namespaces, keys and bulk bodies, with the
//! limits and error codes both sides hold each other to.
//!
//! Metadata stays raw JSON text, so that no number and no order of fields is lost on the way through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest metadata, in bytes of serialised JSON.
pub const MAX_METADATA_BYTES: usize = 1024;
/// The largest value: 25 MiB.
pub const MAX_VALUE_BYTES: usize = 25 << 20;
/// The nearest expiry a write may ask for, in seconds from now.
pub const MIN_TTL_S: u64 = 60;
/// The most pairs or keys in one bulk write or bulk delete.
pub const MAX_BULK_PAIRS: usize = 10_000;
/// The largest body of a bulk call: 100 MiB.
pub const MAX_BULK_BYTES: usize = 100 << 20;
/// The most keys in one bulk read.
pub const MAX_BULK_GET_KEYS: usize = 100;
/// The most keys on one page of a listing; also the default.
pub const MAX_LIST_LIMIT: usize = 1_000;
/// The fewest keys one may ask for on a page.
pub const MIN_LIST_LIMIT: usize = 10;
/// The most namespaces on one page of their listing.
pub const MAX_NAMESPACES_PER_PAGE: usize = 1_000;

/// The numbers in [`ErrorInfo::code`] that a client acts on.
pub mod code {
    /// The token is wrong, or not for this account.
    pub const AUTHENTICATION: u32 = 10_000;
    /// No such key.
    pub const KEY_NOT_FOUND: u32 = 10_009;
    /// The namespace id is not 32 hexadecimal digits.
    pub const BAD_NAMESPACE_ID: u32 = 10_011;
    /// No such namespace.
    pub const NAMESPACE_NOT_FOUND: u32 = 10_013;
    /// The account has a namespace of this title already.
    pub const DUPLICATE_TITLE: u32 = 10_014;
    /// Too many requests a second: of the token, or to the namespace.
    pub const TOO_FAST: u32 = 971;
    /// The namespace would hold more than its quota.
    pub const OVER_QUOTA: u32 = 20_012;
    /// The state is not the one that a conditional request is for.
    pub const PRECONDITION_FAILED: u32 = 20_020;
    /// More was to be taken from a bounded counter than there is, or than this PoP got rights to in time.
    pub const LACKS_RIGHTS: u32 = 20_040;
}

/// What every answer but a value's bytes is wrapped in; `I` is what it says about paging.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>, I: Deserialize<'de>"))]
pub struct Envelope<T, I = ()> {
    /// Whether the call did what was asked.
    pub success: bool,
    /// Why not; empty on success.
    #[serde(default)]
    pub errors: Vec<ErrorInfo>,
    /// Remarks; clients ignore them.
    #[serde(default)]
    pub messages: Vec<ErrorInfo>,
    /// What was asked for; `null` for writes, and on failure.
    pub result: Option<T>,
    /// Where this page stands in the whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result_info: Option<I>,
}

/// One error, or one remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// See [`code`]; 0 where none is given.
    #[serde(default)]
    pub code: u32,
    /// For people.
    pub message: String,
}

/// Paging of namespaces, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageInfo {
    /// This page; the first is 1.
    pub page: usize,
    /// The most rows on a page.
    pub per_page: usize,
    /// Rows on this page.
    pub count: usize,
    /// Rows on all pages.
    pub total_count: usize,
    /// Pages.
    pub total_pages: usize,
}

/// Paging of keys, by cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorInfo {
    /// Keys on this page.
    pub count: usize,
    /// Asks for the next page; empty on the last one.
    #[serde(default)]
    pub cursor: String,
    /// The same, where older clients look for it.
    #[serde(default)]
    pub cursors: Cursors,
}

/// The second home of a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursors {
    /// Equal to [`CursorInfo::cursor`].
    #[serde(default)]
    pub after: String,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// 32 lower-case hexadecimal digits.
    pub id: String,
    /// Its name, unique in the account.
    pub title: String,
    /// Always true: keys are percent-encoded in paths.
    #[serde(default)]
    pub supports_url_encoding: bool,
}

/// The body that creates or renames a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceTitle {
    /// The name.
    pub title: String,
}

/// One key of a listing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The key.
    pub name: String,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
    /// What was stored along with the value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
}

/// One write of a bulk put.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BulkPair {
    /// The key.
    pub key: String,
    /// The value: text, or base64 where `base64` says so.
    pub value: String,
    /// Whether `value` is base64 of the bytes to store.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub base64: bool,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
    /// Expiry in seconds from now; wins over `expiration`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration_ttl: Option<u64>,
    /// JSON to store along with the value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
}

/// What a bulk put or bulk delete did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkResult {
    /// Keys written.
    pub successful_key_count: usize,
    /// Keys to send again.
    #[serde(default)]
    pub unsuccessful_keys: Vec<String>,
}

/// The body of a bulk read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkGet {
    /// 1 to [`MAX_BULK_GET_KEYS`] keys.
    pub keys: Vec<String>,
    /// `text` (the default) or `json`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// Whether metadata and expiry are wanted too.
    #[serde(rename = "withMetadata", skip_serializing_if = "std::ops::Not::not", default)]
    pub with_metadata: bool,
}

/// The result of a bulk read: `V` is the value alone, or a [`BulkValue`]; `None` where there is no key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BulkValues<V> {
    /// By key.
    pub values: BTreeMap<String, Option<V>>,
}

/// One value of a bulk read with metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BulkValue {
    /// The value, as text.
    pub value: String,
    /// What was stored along with it.
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
}
