//! Successful answers in the envelope of the REST API. Errors are in `error.rs`.

use axum::body::Body;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

#[derive(Serialize)]
struct Envelope<T, I> {
    success: bool,
    errors: [(); 0],
    messages: [(); 0],
    result: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<I>,
}

/// A result.
pub(crate) fn result(result: impl Serialize) -> Response<Body> {
    respond(result, None::<()>)
}

/// A page of a list, with what leads to the next one.
pub(crate) fn page(result: impl Serialize, result_info: impl Serialize) -> Response<Body> {
    respond(result, Some(result_info))
}

/// What a write answers. The result is null and not `{}`: every known client takes null.
pub(crate) fn done() -> Response<Body> {
    json(Body::from(r#"{"success":true,"errors":[],"messages":[],"result":null}"#))
}

fn respond(result: impl Serialize, result_info: Option<impl Serialize>) -> Response<Body> {
    let envelope = Envelope { success: true, errors: [], messages: [], result, result_info };
    json(Body::from(serde_json::to_vec(&envelope).expect("our types have string keys and no failing fields")))
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
