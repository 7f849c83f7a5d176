//! The pages about members, garbage and dead letters.
//!
//! The rule this file upholds: what changes the cluster is a POST with a small JSON body that says all it asks for; a body
//! with anything else in it is refused.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Json, Response};
use hyper::{HeaderMap, StatusCode};
use littoral::api::members::{Drain, Remove, Settle};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{not_done, problem};
use super::native::Native;
use crate::engine::OperatorError;

/// The largest body an order may have.
const MAX_ORDER_BYTES: usize = 1 << 10;

pub(super) async fn list(State(native): State<Native>, headers: HeaderMap) -> Response {
    if let Err(refused) = native.authorize(&headers) {
        return refused;
    }
    page(native.engine.members().await)
}

pub(super) async fn drain(
    State(native): State<Native>,
    Path(replica): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match order::<Drain>(&native, &headers, &body) {
        Ok(Drain { draining }) => page(native.engine.drain_member(&replica, draining).await),
        Err(refused) => refused,
    }
}

pub(super) async fn remove(
    State(native): State<Native>,
    Path(replica): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match order::<Remove>(&native, &headers, &body) {
        Ok(Remove { force }) => page(native.engine.remove_member(&replica, force).await),
        Err(refused) => refused,
    }
}

pub(super) async fn garbage(State(native): State<Native>, headers: HeaderMap) -> Response {
    if let Err(refused) = native.authorize(&headers) {
        return refused;
    }
    page(native.engine.garbage().await)
}

pub(super) async fn dead_letters(State(native): State<Native>, headers: HeaderMap) -> Response {
    if let Err(refused) = native.authorize(&headers) {
        return refused;
    }
    page(native.engine.dead_letters().await)
}

pub(super) async fn settle(
    State(native): State<Native>,
    Path(dot): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match order::<Settle>(&native, &headers, &body) {
        Ok(Settle { write }) => page(native.engine.settle_dead_letter(&dot, write).await),
        Err(refused) => refused,
    }
}

fn page<T: Serialize>(found: Result<T, OperatorError>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => not_done(&error),
    }
}

/// What the body asks for, if the request may ask for anything.
fn order<T: DeserializeOwned>(
    native: &Native,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<T, Response<Body>> {
    native.authorize(headers)?;
    if body.len() > MAX_ORDER_BYTES {
        return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than any order"));
    }
    serde_json::from_slice(body)
        .map_err(|error| problem(StatusCode::BAD_REQUEST, &format!("the body is not understood: {error}")))
}
