//! One key at a time: its value and its metadata.

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use multer::{Constraints, Field, Multipart, SizeLimit};
use replication::entry::{MAX_METADATA_BYTES, MAX_VALUE_BYTES};
use replication::{Payload, Value};
use serde_json::value::RawValue;

use super::Surface;
use super::attributes::{self, expires_at_s, now_s};
use super::auth::Place;
use super::body::{DRAIN_SLACK_BYTES, Upload};
use super::envelope;
use super::error::ApiError;
use super::large::{Received, ValueWriter};
use super::query::Query;
use crate::engine::{Ack, Write};

/// The most bytes of a multipart body: a value, and room for its lines and parts nobody asked for.
const MAX_MULTIPART_BYTES: u64 = MAX_VALUE_BYTES + DRAIN_SLACK_BYTES;
/// The most bytes of a metadata part: white space is dropped before [`MAX_METADATA_BYTES`] counts.
const MAX_METADATA_PART_BYTES: usize = 16 * MAX_METADATA_BYTES;

pub(super) async fn read(
    surface: &Surface,
    place: &Place,
    raw_key: &str,
) -> Result<Response<Body>, ApiError> {
    let value = stored(surface, place, raw_key)?;
    let mut response = with_payload(surface, value.payload).await?;
    if let Some(at_s) = value.expires_at_s {
        response.headers_mut().insert(HeaderName::from_static("expiration"), at_s.into());
    }
    Ok(response)
}

/// An answer that is the bytes of a value.
pub(super) async fn with_payload(surface: &Surface, payload: Payload) -> Result<Response<Body>, ApiError> {
    let mut response = match payload {
        Payload::Inline(bytes) => Response::new(Body::from(bytes)),
        Payload::Chunked(manifest) => {
            let len = manifest.len;
            let mut response = Response::new(surface.chunks.body(manifest).await?);
            response.headers_mut().insert(CONTENT_LENGTH, len.into());
            response
        }
    };
    // Exactly this: a client asserts it.
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

pub(super) fn read_metadata(
    surface: &Surface,
    place: &Place,
    raw_key: &str,
) -> Result<Response<Body>, ApiError> {
    let value = stored(surface, place, raw_key)?;
    Ok(envelope::result(metadata_json(value.metadata.as_deref())))
}

/// The value under a key as it stands in the path.
pub(super) fn stored(surface: &Surface, place: &Place, raw_key: &str) -> Result<Value, ApiError> {
    let key = place.key(raw_key)?;
    surface.engine.read(place.namespace, key.as_bytes())?.ok_or(ApiError::KeyNotFound)
}

/// Metadata as a field of an answer. It was checked when it was written; what cannot be read is left out.
pub(super) fn metadata_json(metadata: Option<&[u8]>) -> Option<&RawValue> {
    serde_json::from_slice(metadata?).ok()
}

pub(super) async fn put(
    surface: &Surface,
    place: &Place,
    raw_key: &str,
    query: Option<&str>,
    headers: &HeaderMap,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let key = Bytes::copy_from_slice(place.key(raw_key)?.as_bytes());
    let query = Query::parse(query)?;
    let ack = query.ack()?;
    let expires_at_s = expires_at_s(query.float("expiration")?, query.float("expiration_ttl")?, now_s())?;
    let (received, metadata) = match boundary(headers)? {
        Some(boundary) => receive_multipart(surface, boundary, upload).await?,
        None => (receive_verbatim(surface, upload).await?, None),
    };
    store(surface, place, key, received, metadata, expires_at_s, ack).await?;
    Ok(envelope::done())
}

/// Writes a value that was received, and all that goes with it.
pub(super) async fn store(
    surface: &Surface,
    place: &Place,
    key: Bytes,
    received: Received,
    metadata: Option<Bytes>,
    expires_at_s: Option<u64>,
    ack: Ack,
) -> Result<(), ApiError> {
    let Received { payload, pins } = received;
    let value = Value { payload, metadata, expires_at_s };
    place.write(surface, vec![Write::Put { namespace: place.namespace, key, value }], ack).await?;
    // From now on the value keeps its chunks.
    drop(pins);
    Ok(())
}

pub(super) async fn delete(
    surface: &Surface,
    place: &Place,
    raw_key: &str,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let key = Bytes::copy_from_slice(place.key(raw_key)?.as_bytes());
    let ack = Query::parse(query)?.ack()?;
    place.write(surface, vec![Write::Delete { namespace: place.namespace, key }], ack).await?;
    Ok(envelope::done())
}

/// The boundary if this is a multipart form. Any other body is the value as it stands, JSON included:
/// the real API is not clever about it either.
fn boundary(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    let boundary = multer::parse_boundary(content_type);
    boundary.map(Some).map_err(|error| malformed(format!("malformed multipart body: {error}")))
}

/// The body as it comes.
pub(super) async fn receive_verbatim(surface: &Surface, upload: &mut Upload) -> Result<Received, ApiError> {
    if let Some(len) = upload.announced().filter(|len| *len > MAX_VALUE_BYTES) {
        return Err(ApiError::ValueTooLarge { len });
    }
    let mut value = ValueWriter::new(&surface.chunks);
    while let Some(bytes) = upload.piece().await? {
        value.push(&bytes).await?;
    }
    value.finish().await
}

/// The parts `value` and `metadata`, in whichever order. Other parts are ignored: a client library sends
/// some by mistake.
async fn receive_multipart(
    surface: &Surface,
    boundary: String,
    upload: &mut Upload,
) -> Result<(Received, Option<Bytes>), ApiError> {
    let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(MAX_MULTIPART_BYTES));
    let mut form = Multipart::with_constraints(upload.pieces(), boundary, limits);
    let mut received = None;
    let mut metadata = None;
    while let Some(mut field) = form.next_field().await.map_err(broken_form)? {
        match field.name() {
            Some("value") if received.is_none() => {
                let mut value = ValueWriter::new(&surface.chunks);
                while let Some(bytes) = field.chunk().await.map_err(broken_form)? {
                    value.push(&bytes).await?;
                }
                received = Some(value.finish().await?);
            }
            Some("metadata") if metadata.is_none() => metadata = Some(receive_metadata(field).await?),
            Some(name @ ("value" | "metadata")) => {
                return Err(malformed(format!("the multipart body has more than one part \"{name}\"")));
            }
            // Read to its end here: multer waits for ever when a part it skips is cut off.
            _ => while field.chunk().await.map_err(broken_form)?.is_some() {},
        }
    }
    let missing = || malformed("the multipart body has no part \"value\"".to_owned());
    Ok((received.ok_or_else(missing)?, metadata.flatten()))
}

async fn receive_metadata(mut field: Field<'_>) -> Result<Option<Bytes>, ApiError> {
    let mut text = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(broken_form)? {
        text.extend_from_slice(&bytes);
        if text.len() > MAX_METADATA_PART_BYTES {
            return Err(ApiError::MetadataTooLarge { len: text.len() });
        }
    }
    attributes::metadata(&text)
}

fn malformed(reason: String) -> ApiError {
    ApiError::BadBody { reason }
}

/// What went wrong in a form: with the body that carries it, or with the form itself.
fn broken_form(error: multer::Error) -> ApiError {
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<ApiError>() {
            Ok(error) => *error,
            Err(other) => malformed(format!("malformed multipart body: {other}")),
        },
        multer::Error::StreamSizeExceeded { limit } => ApiError::BodyTooLarge { limit },
        error => malformed(format!("malformed multipart body: {error}")),
    }
}
