//! Many keys in one request.
//!
//! The rule this file upholds: the whole request is checked before its first write, and then written in
//! slices, so that a large bulk does not keep other writers waiting. Bodies being held in memory are
//! bounded over all requests together.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Response;
use replication::Value;
use replication::entry::MAX_VALUE_BYTES;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;

use super::Surface;
use super::attributes::{expires_at_s, metadata, now_s};
use super::auth::Place;
use super::body::Upload;
use super::envelope;
use super::error::ApiError;
use super::large::ValueWriter;
use super::query::{Query, check_key};
use super::values::metadata_json;
use crate::engine::{Ack, Write};

/// The most bytes of a bulk body (the limit of Workers KV: 100 MB).
pub(super) const MAX_BULK_BYTES: u64 = 100_000_000;
/// The most keys written or deleted in one request (the limit of Workers KV).
const MAX_BULK_KEYS: usize = 10_000;
/// The most keys read in one request (the limit of Workers KV).
const MAX_READ_KEYS: usize = 100;
/// The most bytes of values read in one request (the limit of Workers KV: 25 MB).
const MAX_READ_BYTES: u64 = 25 << 20;
/// The most bytes of a list of keys to read: [`MAX_READ_KEYS`] keys, each byte escaped as JSON can.
pub(super) const MAX_READ_BODY_BYTES: u64 = 1 << 20;
/// How many writes go to the engine at once.
pub(super) const SLICE_WRITES: usize = 200;
/// The most KiB of bulk bodies in memory over all requests.
pub(super) const MAX_HELD_KIB: u32 = 400_000;
/// How long a bulk request waits for its share of that.
const MAX_WAIT_MS: u64 = 10_000;

/// The elements of a JSON array, of which at most `LIMIT` are kept, and how many there were.
pub(super) struct AtMost<T, const LIMIT: usize> {
    pub(super) items: Vec<T>,
    pub(super) given: usize,
}

/// A pair as a client sends it.
#[derive(Deserialize)]
struct PairText<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    base64: Option<bool>,
    expiration: Option<f64>,
    expiration_ttl: Option<f64>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// A pair that can be written.
pub(crate) struct Pair<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) value: Cow<'a, [u8]>,
    expires_at_s: Option<u64>,
    metadata: Option<Bytes>,
}

pub(super) async fn put(
    surface: &Surface,
    place: &Place,
    query: Option<&str>,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let ack = Query::parse(query)?.ack()?;
    let _share = wait_for_memory(surface, upload.announced()).await?;
    let body = upload.collect(MAX_BULK_BYTES).await?;
    let pairs = tokio::task::block_in_place(|| check_pairs(&body))?;
    place.check_all(pairs.iter().map(|pair| &*pair.key))?;
    for (number, slice) in pairs.chunks(SLICE_WRITES).enumerate() {
        let written = put_slice(surface, place, slice, ack).await;
        written.map_err(|cause| partly_done(number * SLICE_WRITES, pairs.len(), cause))?;
    }
    Ok(all_done(pairs.len()))
}

pub(super) async fn delete(
    surface: &Surface,
    place: &Place,
    query: Option<&str>,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let ack = Query::parse(query)?.ack()?;
    let _share = wait_for_memory(surface, upload.announced()).await?;
    let body = upload.collect(MAX_BULK_BYTES).await?;
    let keys = tokio::task::block_in_place(|| check_keys(&body))?;
    place.check_all(keys.iter().map(|key| &**key))?;
    let namespace = place.namespace;
    for (number, slice) in keys.chunks(SLICE_WRITES).enumerate() {
        let delete =
            |key: &Cow<'_, str>| Write::Delete { namespace, key: Bytes::copy_from_slice(key.as_bytes()) };
        let written = place.write(surface, slice.iter().map(delete).collect(), ack).await;
        written.map_err(|cause| partly_done(number * SLICE_WRITES, keys.len(), cause))?;
    }
    Ok(all_done(keys.len()))
}

#[derive(Deserialize)]
struct KeyText<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct ReadRequest<'a> {
    #[serde(borrow)]
    keys: AtMost<KeyText<'a>, MAX_READ_KEYS>,
    #[serde(borrow, rename = "type")]
    form: Option<Cow<'a, str>>,
    #[serde(rename = "withMetadata", default)]
    with_metadata: bool,
}

/// A bulk read that can be done.
pub(crate) struct Wanted<'a> {
    pub(crate) keys: Vec<Cow<'a, str>>,
    as_json: bool,
    with_metadata: bool,
}

/// A value in the answer of a bulk read.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Found {
    Text(String),
    Json(Box<RawValue>),
    WithMetadata {
        value: Box<Found>,
        metadata: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        expiration: Option<u64>,
    },
}

pub(super) async fn read(
    surface: &Surface,
    place: &Place,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let body = upload.collect(MAX_READ_BODY_BYTES).await?;
    Ok(envelope::result(json_object(values_of(surface, place, &body, true).await?)))
}

/// What a bulk read with this body finds, by key. Only the REST API says when a value expires.
pub(super) async fn values_of<'a>(
    surface: &Surface,
    place: &Place,
    body: &'a [u8],
    shows_expiry: bool,
) -> Result<BTreeMap<Cow<'a, str>, Option<Found>>, ApiError> {
    let Wanted { keys, as_json, with_metadata } = check_read(body)?;
    place.check_all(keys.iter().map(|key| &**key))?;
    let mut values = BTreeMap::new();
    let mut read_bytes = 0;
    for key in keys {
        if values.contains_key(&key) {
            continue;
        }
        let Some(value) = surface.engine.read(place.namespace, key.as_bytes())? else {
            values.insert(key, None);
            continue;
        };
        read_bytes += value.payload.len();
        if read_bytes > MAX_READ_BYTES {
            return Err(ApiError::ValuesTooLarge { limit: MAX_READ_BYTES });
        }
        let text = text_of(surface.chunks.whole(value.payload).await?, &key, as_json)?;
        let found = match with_metadata {
            false => text,
            true => Found::WithMetadata {
                value: Box::new(text),
                metadata: metadata_json(value.metadata.as_deref()).map(ToOwned::to_owned),
                expiration: value.expires_at_s.filter(|_| shows_expiry),
            },
        };
        values.insert(key, Some(found));
    }
    Ok(values)
}

/// `{"values": {...}}`.
fn json_object(values: impl Serialize) -> impl Serialize {
    BTreeMap::from([("values", values)])
}

/// A value as text or JSON; one that is neither cannot be told in this answer, only read by itself.
fn text_of(bytes: Bytes, key: &str, as_json: bool) -> Result<Found, ApiError> {
    let text = String::from_utf8(bytes.into()).map_err(|_| {
        ApiError::invalid(format!(
            "the value of \"{key}\" is not UTF-8 text; read it with a request of its own"
        ))
    })?;
    if !as_json {
        return Ok(Found::Text(text));
    }
    RawValue::from_string(text)
        .map(Found::Json)
        .map_err(|_| ApiError::invalid("At least one of the requested keys corresponds to a non-json value"))
}

/// Waits until there is room for the body among those in memory.
pub(super) async fn wait_for_memory(
    surface: &Surface,
    announced: Option<u64>,
) -> Result<SemaphorePermit<'_>, ApiError> {
    let kib = announced.unwrap_or(MAX_BULK_BYTES).min(MAX_BULK_BYTES).div_ceil(1024) as u32;
    wait_for_share(surface, kib).await
}

/// Waits until there is room for so much.
async fn wait_for_share(surface: &Surface, kib: u32) -> Result<SemaphorePermit<'_>, ApiError> {
    let share = surface.bulk_memory.acquire_many(kib);
    match tokio::time::timeout(Duration::from_millis(MAX_WAIT_MS), share).await {
        Ok(Ok(share)) => Ok(share),
        _ => Err(ApiError::Busy),
    }
}

/// A share of the memory for bulk bodies that lasts as long as this.
pub(super) struct Share {
    surface: Arc<Surface>,
    kib: u32,
}

impl Share {
    /// Waits until there is room for so much.
    pub(super) async fn wait(surface: &Arc<Surface>, kib: u32) -> Result<Self, ApiError> {
        wait_for_share(surface, kib).await?.forget();
        Ok(Self { surface: surface.clone(), kib })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.surface.bulk_memory.add_permits(self.kib as usize);
    }
}

/// What a bulk read asks for.
pub(crate) fn check_read(body: &[u8]) -> Result<Wanted<'_>, ApiError> {
    let request: ReadRequest<'_> = parse(body)?;
    let as_json = match request.form.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(ApiError::invalid(format!("type must be text or json, not \"{other}\""))),
    };
    let keys = request.keys.within_limit()?.into_iter();
    let keys = keys.map(|KeyText(key)| check_key(&key).map(|()| key)).collect::<Result<_, _>>()?;
    Ok(Wanted { keys, as_json, with_metadata: request.with_metadata })
}

/// The keys of a bulk delete.
pub(crate) fn check_keys(body: &[u8]) -> Result<Vec<Cow<'_, str>>, ApiError> {
    let keys = parse::<AtMost<KeyText<'_>, MAX_BULK_KEYS>>(body)?.within_limit()?;
    keys.into_iter().map(|KeyText(key)| check_key(&key).map(|()| key)).collect()
}

/// The pairs of a bulk put.
pub(crate) fn check_pairs(body: &[u8]) -> Result<Vec<Pair<'_>>, ApiError> {
    let pairs = parse::<AtMost<PairText<'_>, MAX_BULK_KEYS>>(body)?.within_limit()?;
    let now_s = now_s();
    pairs.into_iter().map(|pair| check_pair(pair, now_s)).collect()
}

fn check_pair(pair: PairText<'_>, now_s: u64) -> Result<Pair<'_>, ApiError> {
    check_key(&pair.key)?;
    let value = match (pair.base64, pair.value) {
        (Some(true), text) => Cow::Owned(decode_value(&pair.key, &text)?),
        (_, Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        (_, Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
    };
    if value.len() as u64 > MAX_VALUE_BYTES {
        return Err(ApiError::ValueTooLarge { len: value.len() as u64 });
    }
    let expires_at_s = expires_at_s(pair.expiration, pair.expiration_ttl, now_s)?;
    let metadata = pair.metadata.map(|json| metadata(json.get().as_bytes())).transpose()?.flatten();
    Ok(Pair { key: pair.key, value, expires_at_s, metadata })
}

/// The bytes of a value in base64.
pub(super) fn decode_value(key: &str, base64: &str) -> Result<Vec<u8>, ApiError> {
    let wrong =
        |error| ApiError::BadBulk { reason: format!("the value of \"{key}\" is not base64: {error}") };
    STANDARD.decode(base64.as_bytes()).map_err(wrong)
}

async fn put_slice(surface: &Surface, place: &Place, pairs: &[Pair<'_>], ack: Ack) -> Result<(), ApiError> {
    let mut writes = Vec::with_capacity(pairs.len());
    // Until the slice is written, nothing else keeps their chunks.
    let mut pins = Vec::new();
    for pair in pairs {
        let mut writer = ValueWriter::new(&surface.chunks);
        writer.push(&pair.value).await?;
        let received = writer.finish().await?;
        pins.extend(received.pins);
        let value = Value {
            payload: received.payload,
            metadata: pair.metadata.clone(),
            expires_at_s: pair.expires_at_s,
        };
        let key = Bytes::copy_from_slice(pair.key.as_bytes());
        writes.push(Write::Put { namespace: place.namespace, key, value });
    }
    place.write(surface, writes, ack).await?;
    drop(pins);
    Ok(())
}

/// An error after some slices were written: said plainly, so that nobody takes it for all or nothing.
fn partly_done(done: usize, total: usize, cause: ApiError) -> ApiError {
    match done {
        0 => cause,
        _ => ApiError::PartlyDone { done, total, cause: Box::new(cause) },
    }
}

fn all_done(count: usize) -> Response<Body> {
    envelope::result(json!({ "successful_key_count": count, "unsuccessful_keys": [] }))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::BadBulk { reason: error.to_string() })
}

impl<T, const LIMIT: usize> AtMost<T, LIMIT> {
    /// The elements, if there are 1 to `LIMIT`.
    fn within_limit(self) -> Result<Vec<T>, ApiError> {
        match self.given {
            0 => Err(ApiError::NoKeys),
            given if given > LIMIT => Err(ApiError::TooManyKeys { given, limit: LIMIT }),
            _ => Ok(self.items),
        }
    }
}

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Deserialize<'de> for AtMost<T, LIMIT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const LIMIT: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Elements<T, LIMIT> {
            type Value = AtMost<T, LIMIT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < LIMIT {
                    match elements.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(AtMost { given: items.len(), items }),
                    }
                }
                let mut given = LIMIT;
                while elements.next_element::<IgnoredAny>()?.is_some() {
                    given += 1;
                }
                Ok(AtMost { items, given })
            }
        }
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_keeps_up_to_its_limit_and_counts_the_rest() {
        for (json, kept, given) in [("[]", 0, 0), ("[1,2]", 2, 2), ("[1,2,3]", 3, 3), ("[1,2,3,{}]", 3, 4)] {
            let array: AtMost<u8, 3> = parse(json.as_bytes()).unwrap();
            assert_eq!((array.items.len(), array.given), (kept, given), "{json}");
        }
        for bad in ["", "{}", "[1", "[1] 2", "[\"a\"]"] {
            assert!(parse::<AtMost<u8, 3>>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let pairs =
            check_pairs(br#"[{"key":"a","value":"b"},{"key":"c","value":"\n","metadata":null}]"#).unwrap();
        assert!(matches!(&pairs[0], Pair { key: Cow::Borrowed("a"), value: Cow::Borrowed(b"b"), .. }));
        assert!(matches!(&pairs[1], Pair { value: Cow::Owned(_), metadata: None, .. }));
    }
}
