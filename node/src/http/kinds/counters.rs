//! One counter: what it stands at, and adding to it.

use axum::body::Body;
use hyper::Response;
use littoral::api::kinds::{Add, CounterInfo, MAX_AMOUNT, MIN_TTL_S};
use replication::Change;
use replication::read::kinds::CounterView;

use super::super::attributes::{expires_later_than, now_s};
use super::super::body::Upload;
use super::super::conditions;
use super::super::error::ApiError;
use super::{Whole, json, metadata_of, received, with_receipt};
use crate::engine::{Etag, Write};

pub(super) fn read(counter: &Whole<'_>) -> Result<Response<Body>, ApiError> {
    let found = found(counter)?;
    if let Some(answer) = conditions::read(counter.precondition, found.as_ref().map(|(_, etag)| etag))? {
        return Ok(answer);
    }
    let (view, etag) = found.ok_or(ApiError::NotHere { what: "counter" })?;
    Ok(conditions::tagged(json(&info(counter, view)), Some(&etag)))
}

/// Adds, and answers with the count as of here. Others may have added between the two.
pub(super) async fn add(counter: &Whole<'_>, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
    let Add { add, expiration, expiration_ttl } = received(counter.surface, upload).await?;
    if add.unsigned_abs() > MAX_AMOUNT.unsigned_abs() {
        return Err(ApiError::AmountTooLarge { given: add });
    }
    let seconds = |given: Option<u64>| given.map(|seconds| seconds as f64);
    let expires_at_s = expires_later_than(MIN_TTL_S, seconds(expiration), seconds(expiration_ttl), now_s())?;
    let change = Change::Add { amount: add, expires_at_s };
    let dot = counter.write(vec![Write::Change { id: counter.id(), change }]).await?;
    // Gone again already: it was reset, or has expired.
    let gone = CounterView { count: 0, metadata: None, expires_at_s: None };
    let (view, etag) = found(counter)?.map_or((gone, None), |(view, etag)| (view, Some(etag)));
    Ok(conditions::tagged(with_receipt(json(&info(counter, view)), dot), etag.as_ref()))
}

fn found(counter: &Whole<'_>) -> Result<Option<(CounterView, Etag)>, ApiError> {
    Ok(counter.surface.engine.counter(counter.place.namespace, counter.key.as_bytes())?)
}

fn info(counter: &Whole<'_>, view: CounterView) -> CounterInfo {
    let edge = if view.count < 0 { i64::MIN } else { i64::MAX };
    CounterInfo {
        key: counter.key.clone().into_owned(),
        // More than a thousand PoPs would have to count as far as one may.
        count: i64::try_from(view.count).unwrap_or(edge),
        metadata: metadata_of(view.metadata.as_deref()),
        expiration: view.expires_at_s,
    }
}
