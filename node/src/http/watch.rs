//! `GET /v1/accounts/{account}/namespaces/{namespace}/watch`: what is there, and what changes, as it changes.
//!
//! The rule this file upholds: all that can be wrong with a request is said before the stream begins.

mod event;
mod outlet;
mod standing;
mod tail;
mod watched;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use self::outlet::{Form, Outlet};
use self::standing::{ACTIONS, Standing};
use self::tail::{Ahead, Start, Tail};
use self::watched::Watched;
use super::Surface;
use super::auth::{Owner, Place, grant_of, presented};
use super::error::{ApiError, problem};
use super::native_path::NativePath;
use super::parse_namespace;
use super::query::Query;
use crate::cursor::Cursor;
use crate::engine::feed::NotWatched;

/// Whose namespace is to be watched, by the path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    account: &'a str,
    namespace: &'a str,
}

/// Where the path leads to a watch.
pub(super) fn target(path: &str) -> Option<Target<'_>> {
    let NativePath { account, namespace, page, rest } = NativePath::parse(path)?;
    (page == "watch" && rest == [None; 3]).then_some(Target { account, namespace })
}

/// Begins the watch.
pub(super) async fn answer(surface: &Surface, target: Target<'_>, head: &Parts) -> Response<Body> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return ApiError::MethodNotAllowed { allow: "GET" }.into_problem();
    }
    begin(surface, target, head).await.unwrap_or_else(ApiError::into_problem)
}

async fn begin(surface: &Surface, target: Target<'_>, head: &Parts) -> Result<Response<Body>, ApiError> {
    let grant = grant_of(&surface.tokens, &head.headers)?;
    let account = grant.account(target.account).ok_or(ApiError::Forbidden)?.to_owned();
    let namespace = parse_namespace(target.namespace)?;
    let query = Query::parse(head.uri.query())?;
    let watched = Watched::parse(namespace, &query)?;
    for action in ACTIONS {
        grant.check(action, namespace, watched.text())?;
    }
    Place::enter(surface, grant.clone(), Owner::Account(&account), namespace, ACTIONS[0])?;
    let start = start(&query, &head.headers, &watched)?;
    let form = form(&head.headers);
    let subscription = match surface.engine.watch().await {
        Ok(subscription) => subscription,
        Err(NotWatched::Read(error)) => return Err(error.into()),
        Err(full @ NotWatched::TooMany) => {
            return Ok(problem(StatusCode::SERVICE_UNAVAILABLE, &full.to_string()));
        }
    };
    let (outlet, pieces) = Outlet::new(form);
    let standing = Standing {
        tokens: surface.tokens.clone(),
        namespaces: surface.namespaces.clone(),
        token: presented(&head.headers)?.to_vec(),
        account,
        namespace,
        text: watched.text().to_owned(),
    };
    let tail = Tail {
        engine: surface.engine.clone(),
        subscription,
        watched,
        standing,
        outlet,
        is_ending: surface.is_ending.clone(),
        cursor: Cursor::default(),
        foreign: None,
        ahead: Ahead::default(),
    };
    Ok(streamed(form, pieces, AbortOnDropHandle::new(tokio::spawn(tail.run(start)))))
}

/// The pieces as they come; with the body the task goes.
fn streamed(form: Form, pieces: mpsc::Receiver<Bytes>, task: AbortOnDropHandle<()>) -> Response<Body> {
    let next = |(mut pieces, task): (mpsc::Receiver<Bytes>, AbortOnDropHandle<()>)| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), (pieces, task)))
    };
    let mut response = Response::new(Body::from_stream(stream::unfold((pieces, task), next)));
    let content_type = match form {
        Form::EventStream => "text/event-stream; charset=utf-8",
        Form::NdJson => "application/x-ndjson",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn form(headers: &HeaderMap) -> Form {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.contains("ndjson")) { Form::NdJson } else { Form::EventStream }
}

/// A browser that reconnects sends the address of its first request, with the cursor of then: the header is newer.
fn start(query: &Query<'_>, headers: &HeaderMap, watched: &Watched) -> Result<Start, ApiError> {
    let is_wanted = match query.text("snapshot") {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => {
            return Err(ApiError::invalid(format!("snapshot must be true or false, not \"{other}\"")));
        }
    };
    let last = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()));
    let given = last.as_deref().or_else(|| query.text("cursor")).filter(|cursor| !cursor.is_empty());
    let Some(cursor) = given else { return Ok(if is_wanted { Start::Snapshot } else { Start::Now }) };
    let wrong = || {
        ApiError::invalid(
            "the cursor is not one that a watch of these keys and kinds has given; watch again without it",
        )
    };
    Cursor::decode(cursor, &watched.to_bytes()).map(Start::Cursor).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_watch_leads_to_one() {
        let found = Target { account: "a", namespace: "n" };
        assert_eq!(target("/v1/accounts/a/namespaces/n/watch"), Some(found));
        for path in [
            "/v1/accounts/a/namespaces/n",
            "/v1/accounts/a/namespaces/n/watch/",
            "/v1/accounts/a/namespaces//watch",
            "/v1/accounts//namespaces/n/watch",
            "/v1/accounts/a/namespaces/n/values/k/watch",
            "/v1/accounts/a/b/namespaces/n/watch",
        ] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
