//! The types of `/v1/accounts/{id}/namespaces/{namespace}/quota`: what a namespace may hold and be asked, and what it has.

use serde::{Deserialize, Serialize};

/// The most keys that a namespace can be bounded to.
pub const MAX_QUOTA_KEYS: u64 = 1 << 40;
/// The most operations that documents of a namespace can be bounded to.
pub const MAX_QUOTA_DOCUMENT_OPS: u64 = 1 << 31;
/// The most bytes that a namespace can be bounded to: 1 PiB.
pub const MAX_QUOTA_BYTES: u64 = 1 << 50;

/// The bounds of a namespace; one that is not there does not hold. The body of `PUT`, which sets all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How many requests a second each PoP takes of all who ask: 1 to [`crate::api::tokens::MAX_REQUESTS_PER_S`].
    #[serde(default)]
    pub requests_per_s: Option<u64>,
    /// How many bytes of keys, values and metadata it may have, to [`MAX_QUOTA_BYTES`]; at 0 it takes none.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// How many keys it may have, to [`MAX_QUOTA_KEYS`]; at 0 it takes none.
    #[serde(default)]
    pub max_keys: Option<u64>,
    /// How many bytes one document may be, as it is stored, where a PoP's `documents.max_bytes` is not less: to
    /// [`MAX_QUOTA_BYTES`].
    #[serde(default)]
    pub max_document_bytes: Option<u64>,
    /// How many operations the history of one document may have, where a PoP's `documents.max_ops` is not less: to
    /// [`MAX_QUOTA_DOCUMENT_OPS`].
    #[serde(default)]
    pub max_document_ops: Option<u64>,
}

/// What a namespace has at the PoP that answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Of keys, values and metadata; large values whole, each for itself.
    pub bytes: u64,
    /// Values that are not deleted; one that has expired counts until it is dropped.
    pub keys: u64,
}

/// `GET` of a quota, and the answer to `PUT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaReport {
    /// The namespace's id.
    pub namespace: String,
    /// Its bounds.
    pub quota: Quota,
    /// What it has.
    pub used: Used,
}
