//! Listing keys, a page at a time.
//!
//! The rule this file upholds: a cursor says "after this key", so it holds whatever is deleted or
//! inserted meanwhile, on every PoP alike.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Response;
use replication::entry::MAX_KEY_BYTES;
use serde::Serialize;
use serde_json::json;

use super::Surface;
use super::auth::Place;
use super::envelope;
use super::error::ApiError;
use super::query::Query;
use super::values::metadata_json;
use crate::engine::Page;

/// Fewer keys a page are refused, as the real API's documentation has it.
const MIN_LIMIT: u64 = 10;
/// More keys a page are refused too, rather than fewer given than were asked for.
pub(super) const MAX_LIMIT: u64 = 1000;
/// What a cursor begins with: the version of its format.
const CURSOR_VERSION: u8 = 1;
/// How much of a BLAKE3 hash tells a cursor of ours from any other text.
const CHECK_BYTES: usize = 4;

/// A key as it is listed, its metadata in the form `M` of the dialect.
#[derive(Serialize)]
pub(super) struct KeyRow<'a, M> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
}

pub(super) fn list(
    surface: &Surface,
    place: &Place,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(query)?;
    let limit = query.number("limit")?.unwrap_or(MAX_LIMIT);
    if !(MIN_LIMIT..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(format!("limit must be {MIN_LIMIT} to {MAX_LIMIT}, not {limit}")));
    }
    let page = page(surface, place, &query, limit)?;
    let rows = rows(&page, metadata_json);
    // Older clients read the second form, newer ones the first.
    let cursor = page.next_after.as_ref().map_or_else(String::new, |after| encode_cursor(after));
    let info = json!({ "count": rows.len(), "cursor": cursor, "cursors": { "after": cursor } });
    Ok(envelope::page(rows, info))
}

/// The next `limit` keys of the prefix, after the cursor: parameters of the same names in both dialects.
pub(super) fn page(
    surface: &Surface,
    place: &Place,
    query: &Query<'_>,
    limit: u64,
) -> Result<Page, ApiError> {
    let prefix = query.text("prefix").unwrap_or_default();
    if prefix.len() > MAX_KEY_BYTES {
        return Err(ApiError::KeyTooLong { len: prefix.len() });
    }
    place.check(prefix)?;
    let after = query.text("cursor").filter(|cursor| !cursor.is_empty()).map(decode_cursor).transpose()?;
    let list = || surface.engine.list(place.namespace, prefix.as_bytes(), after.as_deref(), limit as usize);
    Ok(tokio::task::block_in_place(list)?)
}

/// The rows of a page.
pub(super) fn rows<'a, M>(
    page: &'a Page,
    metadata: impl Fn(Option<&'a [u8]>) -> Option<M>,
) -> Vec<KeyRow<'a, M>> {
    let rows = page.rows.iter().filter_map(|row| {
        Some(KeyRow {
            // Keys are checked to be UTF-8 where they enter.
            name: std::str::from_utf8(&row.key).ok()?,
            expiration: row.expires_at_s,
            metadata: metadata(row.metadata.as_deref()),
        })
    });
    rows.collect()
}

pub(crate) fn encode_cursor(after: &[u8]) -> String {
    let mut cursor = vec![CURSOR_VERSION];
    cursor.extend_from_slice(&check_bytes(after));
    cursor.extend_from_slice(after);
    URL_SAFE_NO_PAD.encode(cursor)
}

pub(crate) fn decode_cursor(cursor: &str) -> Result<Vec<u8>, ApiError> {
    let after = || {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (check, after) = bytes.strip_prefix(&[CURSOR_VERSION])?.split_at_checked(CHECK_BYTES)?;
        (after.len() <= MAX_KEY_BYTES && check == check_bytes(after)).then(|| after.to_vec())
    };
    after().ok_or_else(|| ApiError::invalid("the cursor is not one that this store has given"))
}

fn check_bytes(after: &[u8]) -> [u8; CHECK_BYTES] {
    *blake3::hash(after).as_bytes().first_chunk().expect("a hash is longer than the check")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_key_and_nothing_else_does() {
        for key in [&b"a"[..], "ü/\0".as_bytes(), &[b'k'; MAX_KEY_BYTES]] {
            assert_eq!(decode_cursor(&encode_cursor(key)).unwrap(), key);
        }
        let mut flipped = encode_cursor(b"key").into_bytes();
        flipped[9] ^= 1;
        let flipped = String::from_utf8(flipped).unwrap();
        let of_another_version = URL_SAFE_NO_PAD.encode([2, 0, 0, 0, 0, b'a']);
        let too_long = encode_cursor(&[b'k'; MAX_KEY_BYTES + 1]);
        for bad in ["", "a", "AQ", "not base64!", "AAAAAAAA", &flipped, &of_another_version, &too_long] {
            assert!(decode_cursor(bad).is_err(), "{bad}");
        }
    }
}
