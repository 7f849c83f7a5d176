//! The types of `/v1/accounts/{id}/namespaces/{namespace}/values`, with their limits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The header with a value's metadata: JSON, what is not ASCII in it escaped as `\u` in answers.
pub const METADATA_HEADER: &str = "littoral-metadata";
/// The header of the answer to a conditional request: `pop=` and the PoP that decided.
pub const CONDITION_HEADER: &str = "littoral-condition";
/// The header of a listing in NDJSON that says where the next page begins, percent-encoded; without it there is none.
pub const NEXT_AFTER_HEADER: &str = "littoral-next-after";
/// The header of a listing in NDJSON with [`ValuesPage::omitted`].
pub const OMITTED_HEADER: &str = "littoral-omitted";
/// The content type of one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The most bytes of values on one page: 4 MiB. A larger value is given by its size only.
pub const MAX_PAGE_VALUE_BYTES: u64 = 4 << 20;
/// The longest line of orders, in bytes: a value of 25 MiB in base64, and room for the rest.
pub const MAX_LINE_BYTES: usize = 36 << 20;
/// The most entity tags in one condition.
pub const MAX_TAGS: usize = 32;

/// A value in a listing: a line of its NDJSON, which is an order to write the value, unless it has only the size.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ValueRow {
    /// The key.
    pub key: String,
    /// The value, where it was asked for and is UTF-8 text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// The value in base64, where it was asked for and is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
    /// Bytes of the value, where it is not given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// What is stored along with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<u64>,
}

impl ValueRow {
    /// Gives it these bytes, as text where they are.
    pub fn with_bytes(mut self, bytes: &[u8]) -> Self {
        (self.value, self.base64) = text_or_base64(bytes);
        Self { size: None, ..self }
    }

    /// The bytes of the value; `None` where they are not given.
    pub fn bytes(&self) -> Option<Bytes> {
        match (&self.value, &self.base64) {
            (Some(text), _) => Some(Bytes::copy_from_slice(text.as_bytes())),
            (None, base64) => STANDARD.decode(base64.as_ref()?).ok().map(Bytes::from),
        }
    }
}

/// Bytes as JSON carries them: as text where they are UTF-8, else in base64.
pub fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// `GET values`: a page of the listing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ValuesPage {
    /// In the order of the keys' bytes. May be fewer than asked for, even none, before the last page.
    pub values: Vec<ValueRow>,
    /// The next page is asked for with `after` this; `None` on the last one.
    pub next_after: Option<String>,
    /// How many of these values were asked for and are given by their size only: they are larger than
    /// [`MAX_PAGE_VALUE_BYTES`], or part of them is not at this PoP now.
    #[serde(default)]
    pub omitted: u64,
}

/// `DELETE values?prefix=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// How many keys this request has deleted.
    pub deleted: u64,
    /// Whether none is left; where not, the same request again goes on.
    pub complete: bool,
}

/// One line of `POST values`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The key.
    pub key: String,
    /// The value, as text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// The value in base64; one of the two.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
    /// What to store along with it, at most 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<Box<RawValue>>,
    /// Absolute expiry in Unix seconds, at least 1 s ahead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration: Option<f64>,
    /// Expiry in seconds from now, at least 1; wins over `expiration`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expiration_ttl: Option<f64>,
    /// Whether the key is to be deleted instead.
    #[serde(skip_serializing_if = "is_false", default)]
    pub delete: bool,
    /// As listings give it of values that they leave out; without the value it is no order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
}

impl Order {
    /// An order to write these bytes.
    pub fn put(key: impl Into<String>, bytes: &[u8]) -> Self {
        let ValueRow { value, base64, .. } = ValueRow::default().with_bytes(bytes);
        Self { key: key.into(), value, base64, ..Self::default() }
    }

    /// An order to delete this key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self { key: key.into(), delete: true, ..Self::default() }
    }
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The answer to one line of `POST values`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ordered {
    /// The number of the line, from 1; blank ones count, and are not answered.
    pub line: u64,
    /// The key, where the line could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The event by which it was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<String>,
    /// Why it was not done: problem details, as RFC 9457 has them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<Box<RawValue>>,
}
