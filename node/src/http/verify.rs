//! `/v1/verify`: begins a verification, and tells how it goes.

use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use hyper::{HeaderMap, StatusCode};
use littoral::api::verify::VerifyReport;

use super::error::problem;
use super::native::Native;
use crate::verifier::NotBegun;

pub(crate) async fn begin(State(native): State<Native>, headers: HeaderMap) -> Response {
    if let Err(refused) = native.authorize(&headers) {
        return refused.into_response();
    }
    match native.verifier.begin().await {
        Ok(()) => (StatusCode::ACCEPTED, Json(native.verify_report())).into_response(),
        Err(why @ NotBegun::Running) => problem(StatusCode::CONFLICT, &why.to_string()),
        Err(NotBegun::Read(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.reason),
    }
}

pub(crate) async fn report(State(native): State<Native>, headers: HeaderMap) -> Response {
    match native.authorize(&headers) {
        Ok(_) => Json(native.verify_report()).into_response(),
        Err(refused) => refused.into_response(),
    }
}

impl Native {
    fn verify_report(&self) -> VerifyReport {
        let progress = self.verifier.progress();
        VerifyReport { pop: self.engine.pop().into(), running: progress.running, last: progress.last }
    }
}
