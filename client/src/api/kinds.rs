//! The types of `/v1/accounts/{id}/namespaces/{namespace}/counters`, `/bounded`, `/sets` and `/maps`, with their limits.
//!
//! Metadata stays raw JSON text, so that no number and no order of fields is lost on the way through.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::kv::KeyInfo;

/// The header of each write's answer that names the event by which it was done.
pub const RECEIPT_HEADER: &str = "littoral-receipt";
/// The longest member of a set, or name of a field of a map, in bytes of UTF-8.
pub const MAX_ELEMENT_BYTES: usize = 512;
/// The largest value of a field: 16 KiB.
pub const MAX_FIELD_BYTES: usize = 16 << 10;
/// The most members or fields changed in one request.
pub const MAX_CHANGES: usize = 1_000;
/// The most that one request adds to a counter, or takes from it: what every JSON reader keeps exactly.
pub const MAX_AMOUNT: i64 = (1 << 53) - 1;
/// The nearest expiry that can be asked for here, in seconds from now.
pub const MIN_TTL_S: u64 = 1;
/// The most rows on one page of a listing; also the default. The least is 1.
pub const MAX_PAGE_ROWS: usize = 1_000;

/// `GET` of a counter, and the answer to `POST`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CounterInfo {
    /// Its key.
    pub key: String,
    /// What it stands at, as of the PoP that answers.
    pub count: i64,
    /// What was stored along with it.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// When all of it will have expired, in Unix seconds.
    #[serde(default)]
    pub expiration: Option<u64>,
}

/// The body of `POST` to a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// How much, at most [`MAX_AMOUNT`] either way.
    pub add: i64,
    /// Absolute expiry in Unix seconds, at least [`MIN_TTL_S`] ahead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
    /// Expiry in seconds from now; wins over `expiration`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration_ttl: Option<u64>,
}

/// `GET` of a bounded counter, and the answer to `POST`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoundedInfo {
    /// Its key.
    pub key: String,
    /// What it stands at, as of the PoP that answers.
    pub count: i64,
    /// How much of that can be taken at this PoP without asking another.
    pub rights_here: u64,
    /// What was stored along with it.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
}

/// The body of `POST` to a bounded counter: one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundedChange {
    /// How much to add, at most [`MAX_AMOUNT`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub add: Option<u64>,
    /// How much to take, from 1 to [`MAX_AMOUNT`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub take: Option<u64>,
}

/// A page of the keys of counters, sets or maps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeysPage {
    /// In the order of their bytes.
    pub keys: Vec<KeyInfo>,
    /// The next page is asked for with `after` this; `None` on the last one.
    pub next_after: Option<String>,
}

/// A member of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member.
    pub name: String,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
}

/// `GET` of a set: a page of its members. A set without members is empty, not missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MembersPage {
    /// The set's key.
    pub key: String,
    /// What was stored along with the set.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// In the order of their bytes.
    pub members: Vec<Member>,
    /// As [`KeysPage::next_after`].
    pub next_after: Option<String>,
}

/// The body of `POST` to a set: 1 to [`MAX_CHANGES`] members in all, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetChange {
    /// Members to put in.
    #[serde(default)]
    pub add: Vec<String>,
    /// Members to take out.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A field of a map with its value, in one of two forms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The field.
    pub name: String,
    /// The value, where it is UTF-8 text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// The value in base64, where it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
}

impl Field {
    /// A field with these bytes.
    pub fn new(name: impl Into<String>, bytes: &[u8], expiration: Option<u64>) -> Self {
        let (value, base64) = match std::str::from_utf8(bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(bytes))),
        };
        Self { name: name.into(), value, base64, expiration }
    }

    /// The bytes of the value; `None` where it is in neither form.
    pub fn bytes(&self) -> Option<Bytes> {
        match (&self.value, &self.base64) {
            (Some(text), _) => Some(Bytes::copy_from_slice(text.as_bytes())),
            (None, base64) => STANDARD.decode(base64.as_ref()?).ok().map(Bytes::from),
        }
    }
}

/// `GET` of a map: a page of its fields. A map without fields is empty, not missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FieldsPage {
    /// The map's key.
    pub key: String,
    /// What was stored along with the map.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// In the order of the bytes of their names.
    pub fields: Vec<Field>,
    /// As [`KeysPage::next_after`].
    pub next_after: Option<String>,
}

/// The body of `PATCH` to a map: 1 to [`MAX_CHANGES`] fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapChange {
    /// Each field with the text it is to have; `None` takes it away.
    pub fields: BTreeMap<String, Option<String>>,
}

/// What a write answers that has nothing else to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The event, as in [`RECEIPT_HEADER`]; `None` where there was nothing to write.
    pub receipt: Option<String>,
}
