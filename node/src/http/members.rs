//! The pages about members, garbage and dead letters.
//!
//! The rule this file upholds: what changes the cluster is a POST with a small JSON body that says all it asks for; a body
//! with anything else in it is refused.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::response::Json;
use hyper::HeaderMap;
use hyper::http::request::Parts;
use littoral::api::members::{
    ChunkGarbage, DeadLetters, Drain, GarbageReport, MembersReport, Remove, Settle,
};
use serde::de::DeserializeOwned;

use super::error::PageError;
use super::native::Native;

/// The largest body an order may have.
const MAX_ORDER_BYTES: usize = 1 << 10;
/// How long it may take to come.
const MAX_ORDER_MS: u64 = 10_000;

type Page<T> = Result<Json<T>, PageError>;

pub(super) async fn list(State(native): State<Native>, headers: HeaderMap) -> Page<MembersReport> {
    native.authorize(&headers)?;
    Ok(Json(native.engine.members().await?))
}

pub(super) async fn drain(
    State(native): State<Native>,
    Named(replica): Named,
    headers: HeaderMap,
    body: Body,
) -> Page<MembersReport> {
    let Drain { draining } = order(&native, &headers, body).await?;
    Ok(Json(native.engine.drain_member(&replica, draining).await?))
}

pub(super) async fn remove(
    State(native): State<Native>,
    Named(replica): Named,
    headers: HeaderMap,
    body: Body,
) -> Page<MembersReport> {
    let Remove { force } = order(&native, &headers, body).await?;
    Ok(Json(native.engine.remove_member(&replica, force).await?))
}

pub(super) async fn garbage(State(native): State<Native>, headers: HeaderMap) -> Page<GarbageReport> {
    native.authorize(&headers)?;
    let figures = native.chunks.figures();
    let chunks = ChunkGarbage {
        files: figures.files,
        bytes: figures.bytes,
        waiting: figures.waiting,
        waiting_bytes: figures.waiting_bytes,
        collected: figures.collected,
        collected_bytes: figures.collected_bytes,
    };
    Ok(Json(GarbageReport { chunks, ..native.engine.garbage().await? }))
}

pub(super) async fn dead_letters(State(native): State<Native>, headers: HeaderMap) -> Page<DeadLetters> {
    native.authorize(&headers)?;
    Ok(Json(native.engine.dead_letters().await?))
}

pub(super) async fn settle(
    State(native): State<Native>,
    Named(dot): Named,
    headers: HeaderMap,
    body: Body,
) -> Page<DeadLetters> {
    let Settle { write } = order(&native, &headers, body).await?;
    Ok(Json(native.engine.settle_dead_letter(&dot, write).await?))
}

/// The name in a path, or a tuple of them, decoded.
pub(super) struct Named<T = String>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Native> for Named<T> {
    type Rejection = PageError;

    async fn from_request_parts(head: &mut Parts, native: &Native) -> Result<Self, PageError> {
        let path = Path::<T>::from_request_parts(head, native).await;
        path.map(|Path(names)| Self(names)).map_err(|_| PageError::PathNotText)
    }
}

/// What the body asks for, if the request may ask for anything.
pub(super) async fn order<T: DeserializeOwned>(
    native: &Native,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, PageError> {
    native.authorize(headers)?;
    received(body, MAX_ORDER_BYTES).await
}

/// What the body asks for.
pub(super) async fn received<T: DeserializeOwned>(body: Body, max_bytes: usize) -> Result<T, PageError> {
    let read = tokio::time::timeout(Duration::from_millis(MAX_ORDER_MS), to_bytes(body, max_bytes));
    let not_understood = |reason: String| PageError::OrderNotUnderstood { reason };
    let body = match read.await {
        Ok(Ok(body)) => body,
        // One that broke off has nobody who would read this.
        Ok(Err(_)) => return Err(PageError::OrderTooLarge),
        Err(_) => return Err(not_understood(format!("it has not come within {MAX_ORDER_MS} ms"))),
    };
    // serde would take a list for the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(not_understood("send a JSON object".to_owned()));
    }
    serde_json::from_slice(&body).map_err(|error| not_understood(error.to_string()))
}
