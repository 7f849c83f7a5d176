//! Listing values: a page of them as JSON, or as NDJSON, whose lines are orders to write them again.
//!
//! The rule this file upholds: a page has a bounded number of bytes of values, and says which values it leaves out
//! for that.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};
use littoral::api::tokens::Action;
use littoral::api::values::{
    MAX_PAGE_VALUE_BYTES, NDJSON, NEXT_AFTER_HEADER, OMITTED_HEADER, ValueRow, ValuesPage,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use replication::entry::MAX_KEY_BYTES;
use replication::{Payload, Value};

use super::super::super::Surface;
use super::super::super::auth::Place;
use super::super::super::bulk::Share;
use super::super::super::error::ApiError;
use super::super::super::query::Query;
use super::super::{Span, json_bytes, metadata_of, text};

/// How much of a page is handed out at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Memory that a page with values may take: each as read, and as JSON.
const PAGE_KIB: u32 = 4 * (MAX_PAGE_VALUE_BYTES / 1024) as u32;

pub(in super::super) async fn list(
    surface: &Arc<Surface>,
    place: &Place,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let span = Span::asked(query)?;
    let longest = span.prefix.len().max(span.after.map_or(0, str::len));
    if longest > MAX_KEY_BYTES {
        return Err(ApiError::KeyTooLong { len: longest });
    }
    place.check(span.prefix)?;
    let with_values = match query.text("include") {
        None => false,
        Some("values") => {
            place.check_to(Action::Read, span.prefix)?;
            true
        }
        Some(other) => return Err(ApiError::invalid(format!("include must be values, not \"{other}\""))),
    };
    let share = if with_values { Some(Share::wait(surface, PAGE_KIB).await?) } else { None };
    let list = || surface.engine.values(place.namespace, span.prefix_bytes(), span.after_bytes(), span.limit);
    let page = tokio::task::block_in_place(list)?;
    let next_after = page.next_after.as_deref().map(text);
    let page = if with_values {
        fill(surface, page.rows, next_after).await
    } else {
        ValuesPage {
            values: page.rows.iter().map(|(key, value)| row(key, value)).collect(),
            next_after,
            omitted: 0,
        }
    };
    let is_lines = wants_lines(headers);
    let bytes = if is_lines { lines(&page) } else { json_bytes(&page) };
    let len = bytes.len();
    let mut response = Response::new(body_of(bytes, share));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, len.into());
    headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(if is_lines { NDJSON } else { "application/json" }));
    if is_lines {
        headers.insert(HeaderName::from_static(OMITTED_HEADER), page.omitted.into());
        let after =
            page.next_after.as_deref().map(|after| utf8_percent_encode(after, NON_ALPHANUMERIC).to_string());
        if let Some(after) = after.and_then(|after| HeaderValue::from_str(&after).ok()) {
            headers.insert(HeaderName::from_static(NEXT_AFTER_HEADER), after);
        }
    }
    Ok(response)
}

/// The body of an answer, whose share of the memory lasts until a client, however slow, has taken it.
fn body_of(bytes: Vec<u8>, share: Option<Share>) -> Body {
    let Some(share) = share else { return Body::from(bytes) };
    Body::from_stream(stream::unfold((Bytes::from(bytes), share), |(mut left, share)| async move {
        let piece = left.split_to(left.len().min(PIECE_BYTES));
        (!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), (left, share)))
    }))
}

/// The rows with their values, as many as the page may have bytes of.
async fn fill(surface: &Surface, rows: Vec<(Bytes, Value)>, next_after: Option<String>) -> ValuesPage {
    let mut page = ValuesPage { next_after, ..ValuesPage::default() };
    let mut left = MAX_PAGE_VALUE_BYTES;
    for (key, value) in rows {
        let row = row(&key, &value);
        let len = value.payload.len();
        if len > MAX_PAGE_VALUE_BYTES {
            page.omitted += 1;
            page.values.push(row);
            continue;
        }
        if len > left {
            page.next_after = page.values.last().map(|row| row.key.clone());
            break;
        }
        match whole(surface, value.payload).await {
            Some(bytes) => {
                left -= len;
                page.values.push(row.with_bytes(&bytes));
            }
            None => {
                page.omitted += 1;
                page.values.push(row);
            }
        }
    }
    page
}

/// The bytes; `None` where part of them cannot be had now, which a read of the value by itself tells more of.
async fn whole(surface: &Surface, payload: Payload) -> Option<Bytes> {
    let read = surface.chunks.whole(payload).await;
    read.inspect_err(|error| tracing::debug!(%error, "a listing leaves a value out")).ok()
}

fn row(key: &[u8], value: &Value) -> ValueRow {
    ValueRow {
        key: text(key),
        size: Some(value.payload.len()),
        metadata: metadata_of(value.metadata.as_deref()),
        expiration: value.expires_at_s,
        ..ValueRow::default()
    }
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("ndjson"))
}

fn lines(page: &ValuesPage) -> Vec<u8> {
    let mut lines = Vec::new();
    for row in &page.values {
        lines.extend(json_bytes(row));
        lines.push(b'\n');
    }
    lines
}
