//! `GET /v1/where`: which PoPs hold a write, by its receipt, or all that a session has seen, by its token.
//!
//! It needs a token of this node, whichever: a receipt tells nothing of a namespace or a key.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Json, Response};
use hyper::{HeaderMap, StatusCode};

use super::error::{ApiError, problem};
use super::native::Native;
use super::query::Query;
use super::session::Session;
use crate::cursor::Cursor;
use crate::engine::parse_dot;

pub(super) async fn holders(
    State(native): State<Native>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = native.grant(&headers) {
        return refused.into_response();
    }
    let asked = match asked(&native, query.as_deref()) {
        Ok(asked) => asked,
        Err(error) => return error.into_problem(),
    };
    match native.engine.holders(asked).await {
        Ok(Some(holders)) => Json(holders).into_response(),
        Ok(None) => problem(
            StatusCode::NOT_FOUND,
            "it was written by a replica that this PoP has never heard of: is it of another cluster?",
        ),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.reason),
    }
}

fn asked(native: &Native, query: Option<&str>) -> Result<Cursor, ApiError> {
    let query = Query::parse(query)?;
    match (query.text("receipt"), query.text("session")) {
        (Some(receipt), None) => {
            let wrong =
                || ApiError::invalid("this is no receipt: it is what Littoral-Receipt of a write has");
            let mut cursor = Cursor::default();
            cursor.tell(parse_dot(receipt).ok_or_else(wrong)?, 0);
            Ok(cursor)
        }
        (None, Some(token)) => {
            let session = Session::decode(&native.engine, token).map(Session::into_cursor);
            session.ok_or_else(|| ApiError::invalid("this is no session token that this cluster has given"))
        }
        _ => Err(ApiError::invalid("ask with receipt= or with session=, not both")),
    }
}
