//! The five calls of a binding, in its own words; what they do is what the REST API does.
//!
//! The rule this file upholds: only parameters, headers and the form of answers differ between the two dialects. How
//! values are read, stored and listed stands once, in the files of the REST API.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::super::Surface;
use super::super::attributes::{expires_at_s, now_s};
use super::super::auth::Place;
use super::super::body::Upload;
use super::super::bulk::{self, MAX_READ_BODY_BYTES};
use super::super::error::ApiError;
use super::super::keys::{self, MAX_LIMIT};
use super::super::query::Query;
use super::super::values;
use super::{Call, METADATA_HEADER};

/// When the value expires, in Unix seconds; workerd does not need it, people may.
const EXPIRATION_HEADER: HeaderName = HeaderName::from_static("cf-expiration");
/// The least time a Worker may ask a value to be cached for (the limit of Workers KV). Nothing is cached here: each
/// read is that of this PoP's own store.
const MIN_CACHE_TTL_S: f64 = 30.0;
/// The one byte that JSON takes and a header does not.
const DELETE_BYTE: u8 = 0x7f;

pub(super) async fn get(
    surface: &Surface,
    place: &Place,
    call: &Call<'_>,
) -> Result<Response<Body>, ApiError> {
    check_cache_ttl(Query::parse(call.query)?.text("cache_ttl"))?;
    let value = values::stored(surface, place, call.key)?;
    let mut response = values::with_payload(surface, value.payload).await?;
    if let Some(metadata) = value.metadata.as_deref().and_then(metadata_header) {
        response.headers_mut().insert(METADATA_HEADER, metadata);
    }
    if let Some(at_s) = value.expires_at_s {
        response.headers_mut().insert(EXPIRATION_HEADER, at_s.into());
    }
    Ok(response)
}

pub(super) async fn put(
    surface: &Surface,
    place: &Place,
    call: &Call<'_>,
    headers: &HeaderMap,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let key = Bytes::copy_from_slice(place.key(call.key)?.as_bytes());
    let query = Query::parse(call.query)?;
    let ack = query.ack()?;
    let expires_at_s = expires_at_s(query.float("expiration")?, query.float("expiration_ttl")?, now_s())?;
    let metadata = call.metadata(headers)?;
    let received = values::receive_verbatim(surface, upload).await?;
    values::store(surface, place, key, received, metadata, expires_at_s, ack).await?;
    Ok(Response::default())
}

pub(super) async fn delete(
    surface: &Surface,
    place: &Place,
    call: &Call<'_>,
) -> Result<Response<Body>, ApiError> {
    values::delete(surface, place, call.key, call.query).await?;
    Ok(Response::default())
}

#[derive(Serialize)]
struct List<'a> {
    /// Metadata is JSON in a string, which workerd parses.
    keys: Vec<keys::KeyRow<'a, &'a str>>,
    list_complete: bool,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

pub(super) fn list(surface: &Surface, place: &Place, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(call.query)?;
    let limit = query.number("key_count_limit")?.unwrap_or(MAX_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let wanted = format!("Please specify a number from 1 to {MAX_LIMIT}.");
        return Err(ApiError::invalid(format!("Invalid key_count_limit of {limit}. {wanted}")));
    }
    let page = keys::page(surface, place, &query, limit)?;
    let keys = keys::rows(&page, |json| std::str::from_utf8(json?).ok());
    let cursor = page.next_after.as_ref().map(|after| keys::encode_cursor(after));
    Ok(json(&List { keys, list_complete: cursor.is_none(), cursor }))
}

/// What a bulk read has beside the request of the REST API.
#[derive(Deserialize)]
struct CacheTtl {
    /// A text with a number in it.
    #[serde(rename = "cacheTtl")]
    cache_ttl: Option<Json>,
}

pub(super) async fn bulk_get(
    surface: &Surface,
    place: &Place,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let body = upload.collect(MAX_READ_BODY_BYTES).await?;
    if let Ok(CacheTtl { cache_ttl: Some(given) }) = serde_json::from_slice(&body) {
        let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
        check_cache_ttl(Some(&text))?;
    }
    Ok(json(&bulk::values_of(surface, place, &body, false).await?))
}

fn check_cache_ttl(given: Option<&str>) -> Result<(), ApiError> {
    match given {
        Some(text) if !text.parse().is_ok_and(|ttl_s: f64| ttl_s >= MIN_CACHE_TTL_S) => {
            let wanted = format!("Cache TTL must be at least {MIN_CACHE_TTL_S}.");
            Err(ApiError::invalid(format!("Invalid cache_ttl of {text}. {wanted}")))
        }
        _ => Ok(()),
    }
}

/// Metadata as the header it is read from.
pub(super) fn metadata_header(json: &[u8]) -> Option<HeaderValue> {
    let text = match json.contains(&DELETE_BYTE) {
        false => Cow::Borrowed(json),
        // It stands only inside of strings there.
        true => Cow::Owned(std::str::from_utf8(json).ok()?.replace('\u{7f}', "\\u007f").into_bytes()),
    };
    HeaderValue::from_bytes(&text).ok()
}

fn json(answer: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(answer).expect("our types have string keys and no failing fields");
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::super::super::attributes;
    use super::*;

    #[test]
    fn any_metadata_that_is_stored_fits_its_header() {
        let written = "{\"ü\":\"\u{7f}\u{1f30a}\",\"a\":1e400}";
        let stored = attributes::metadata(written.as_bytes()).unwrap().unwrap();
        let header = metadata_header(&stored).unwrap();
        assert_eq!(header.as_bytes(), "{\"ü\":\"\\u007f\u{1f30a}\",\"a\":1e400}".as_bytes());
        assert_eq!(metadata_header(b"true").unwrap(), "true");
    }

    #[test]
    fn a_time_to_cache_is_half_a_minute_or_more() {
        for (given, is_taken) in [
            (None, true),
            (Some("30"), true),
            (Some("60.5"), true),
            (Some("29"), false),
            (Some("-1"), false),
            (Some("NaN"), false),
            (Some(""), false),
            (Some("soon"), false),
        ] {
            assert_eq!(check_cache_ttl(given).is_ok(), is_taken, "{given:?}");
        }
        let error = check_cache_ttl(Some("29")).unwrap_err().to_string();
        assert_eq!(error, "Invalid cache_ttl of 29. Cache TTL must be at least 30.");
    }
}
