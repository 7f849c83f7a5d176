//! One value: its bytes, and what is stored along with them.
//!
//! The rule this file upholds: what is changed of a value, its metadata too, replaces the state that was read for
//! that, and never one that another request has written meanwhile.

pub(super) mod list;
pub(super) mod orders;
pub(super) mod prefix;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use littoral::api::values::METADATA_HEADER;
use replication::Value;

use super::super::attributes;
use super::super::body::Upload;
use super::super::conditions;
use super::super::error::ApiError;
use super::super::large::Received;
use super::super::values::{receive_verbatim, with_payload};
use super::{Whole, asked_expiry, written};
use crate::engine::{Etag, Precondition, Tag, Tags, Write, WriteError};

/// How often the metadata of a value is tried to be replaced while others write the value.
const MAX_DESCRIBE_ATTEMPTS: usize = 16;

pub(super) async fn read(value: &Whole<'_>, is_head: bool) -> Result<Response<Body>, ApiError> {
    let found = found(value)?;
    if let Some(answer) = conditions::read(value.precondition, found.as_ref().map(|(_, etag)| etag))? {
        return Ok(answer);
    }
    let (Value { payload, metadata, expires_at_s }, etag) = found.ok_or(ApiError::KeyNotFound)?;
    let mut response = if is_head {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, payload.len().into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    } else {
        with_payload(value.surface, payload).await?
    };
    let headers = response.headers_mut();
    if let Some(at_s) = expires_at_s {
        headers.insert(HeaderName::from_static("expiration"), at_s.into());
    }
    if let Some(metadata) = metadata.as_deref().and_then(as_header) {
        headers.insert(HeaderName::from_static(METADATA_HEADER), metadata);
    }
    Ok(conditions::tagged(response, Some(&etag)))
}

pub(super) async fn put(
    value: &Whole<'_>,
    headers: &HeaderMap,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    value.query.ack()?;
    let expires_at_s = asked_expiry(value.query)?;
    let metadata = headers.get(METADATA_HEADER).map(|json| attributes::metadata(json.as_bytes()));
    let metadata = metadata.transpose()?.flatten();
    let Received { payload, pins } = receive_verbatim(value.surface, upload).await?;
    let answer = replace(value, Value { payload, metadata, expires_at_s }).await;
    // From now on the value keeps its chunks.
    drop(pins);
    answer
}

pub(super) async fn delete(value: &Whole<'_>) -> Result<Response<Body>, ApiError> {
    let delete = Write::Delete { namespace: value.place.namespace, key: key(value) };
    Ok(written(value.write(vec![delete]).await?))
}

/// Replaces the metadata, and nothing else; `None` takes it away.
pub(super) async fn describe(value: &Whole<'_>, metadata: Option<Bytes>) -> Result<Response<Body>, ApiError> {
    value.query.ack()?;
    for _ in 0..MAX_DESCRIBE_ATTEMPTS {
        let found = found(value)?;
        conditions::decide(value.precondition, found.as_ref().map(|(_, etag)| etag))?;
        let (old, etag) = match found {
            Some((old, _)) if metadata.is_none() && old.metadata.is_none() => return Ok(written(None)),
            Some(found) => found,
            None if metadata.is_none() => return Ok(written(None)),
            None => return Err(ApiError::KeyNotFound),
        };
        let tag = Tag { text: etag.as_str().to_owned(), is_weak: false };
        let unchanged = Precondition { is: Some(Tags::These(vec![tag])), is_not: None };
        let value = Whole { precondition: Some(&unchanged), key: value.key.clone(), ..*value };
        match replace(&value, Value { metadata: metadata.clone(), ..old }).await {
            Err(ApiError::Write(WriteError::Precondition { .. })) => {}
            done => return done,
        }
    }
    Err(ApiError::Contended)
}

async fn replace(whole: &Whole<'_>, value: Value) -> Result<Response<Body>, ApiError> {
    let put = Write::Put { namespace: whole.place.namespace, key: key(whole), value };
    let dot = whole.write(vec![put]).await?;
    Ok(conditions::tagged(written(dot), dot.map(Etag::of_event).as_ref()))
}

fn found(value: &Whole<'_>) -> Result<Option<(Value, Etag)>, ApiError> {
    Ok(value.surface.engine.tagged_value(value.place.namespace, value.key.as_bytes())?)
}

fn key(value: &Whole<'_>) -> Bytes {
    Bytes::copy_from_slice(value.key.as_bytes())
}

/// JSON as it may stand in a header: what is not printable ASCII can only be in its strings, and is escaped.
pub(in super::super) fn as_header(json: &[u8]) -> Option<HeaderValue> {
    let mut ascii = String::new();
    for c in std::str::from_utf8(json).ok()?.chars() {
        match c {
            ' '..='~' => ascii.push(c),
            _ => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}")))
            }
        }
    }
    HeaderValue::from_str(&ascii).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_the_same_json_in_a_header() {
        for json in [r#"{"a":[1.0,"x y~"]}"#, "\"ü\u{7f}\u{2028}😀\\\"\"", "\"\\u00fc\""] {
            let header = as_header(json.as_bytes()).unwrap();
            assert!(header.to_str().unwrap().is_ascii(), "{header:?}");
            let parsed = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
            assert_eq!(parsed(header.as_bytes()), parsed(json.as_bytes()));
        }
        assert!(as_header(b"\"\xff\"").is_none());
    }
}
