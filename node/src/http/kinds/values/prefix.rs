//! Deleting all keys under a prefix.
//!
//! The rule this file upholds: it is done in slices, each of them whole, so it can be cut short at any moment, by the
//! client, by time or by a stop, and the same request goes on where it was: what is deleted is not listed again.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use hyper::Response;
use littoral::api::values::Deleted;
use replication::entry::MAX_KEY_BYTES;

use super::super::super::Surface;
use super::super::super::auth::Place;
use super::super::super::bulk::SLICE_WRITES;
use super::super::super::error::ApiError;
use super::super::super::query::Query;
use super::super::json;
use crate::engine::Write;

/// How long one request goes on; then it answers that there is more.
const MAX_TURN: Duration = Duration::from_secs(20);

pub(in super::super) async fn delete(
    surface: &Surface,
    place: &Place,
    query: &Query<'_>,
) -> Result<Response<Body>, ApiError> {
    let ack = query.ack()?;
    let prefix = query.text("prefix").unwrap_or_default();
    let is_all = match query.text("all") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(ApiError::invalid(format!("all must be true or false, not \"{other}\""))),
    };
    if prefix.is_empty() && !is_all {
        return Err(ApiError::invalid(
            "without a prefix this deletes every value of the namespace: give prefix, or all=true if that is meant",
        ));
    }
    if prefix.len() > MAX_KEY_BYTES {
        return Err(ApiError::KeyTooLong { len: prefix.len() });
    }
    place.check(prefix)?;
    let began = Instant::now();
    let mut deleted = 0;
    let mut after: Option<Bytes> = None;
    loop {
        let stopped = |cause: ApiError| match deleted {
            0 => cause,
            _ => ApiError::PartlyDeleted { deleted, cause: Box::new(cause) },
        };
        let list = || surface.engine.list(place.namespace, prefix.as_bytes(), after.as_deref(), SLICE_WRITES);
        let page = tokio::task::block_in_place(list).map_err(|error| stopped(error.into()))?;
        let count = page.rows.len() as u64;
        if count > 0 {
            let delete = |key| Write::Delete { namespace: place.namespace, key };
            let deletes = page.rows.into_iter().map(|row| delete(row.key)).collect();
            place.write(surface, deletes, ack).await.map_err(stopped)?;
            deleted += count;
        }
        let complete = page.next_after.is_none();
        if complete || began.elapsed() >= MAX_TURN || surface.is_ending.is_cancelled() {
            return Ok(json(&Deleted { deleted, complete }));
        }
        after = page.next_after;
    }
}
