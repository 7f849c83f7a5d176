//! Conditional writes of namespaces with a home: each is decided there, wherever it was sent; and the page about homes.
//!
//! The PoP that was asked looks at the token, and calls the home ([`crate::transport::Call`]); over the call goes the
//! request as it came, in HTTP/1.1, and back comes the answer. The rule this file upholds: a conditional write is
//! decided by the home or refused, and the answer never leaves it open that nothing was done.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Json};
use hyper::body::Incoming;
use hyper::client::conn::http1 as caller;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use hyper::http::request::Parts;
use hyper::server::conn::http1 as called;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use littoral::api::homes::{HomeReport, SetHome};
use replication::NamespaceId;
use tokio::sync::mpsc;

use super::error::{ApiError, PageError};
use super::links::LinkControl;
use super::listener::Door;
use super::members::{Named, order};
use super::native::Native;
use super::{Surface, conditions, documents, kinds, no_route};
use crate::homes::{Deciding, Home, HomeError};
use crate::namespaces::NamespaceError;
use crate::transport::Call;

/// Under this stand the accounts.
const ROOT: &str = "/v1/accounts/";
/// The longest that a home may take to answer, the request's body and what it waits for included.
const MAX_ANSWER: Duration = Duration::from_secs(300);
/// What is for one connection, or about who asks.
const OWN_HEADERS: [HeaderName; 11] = [
    AUTHORIZATION,
    CONNECTION,
    EXPECT,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-auth-key"),
    HeaderName::from_static("x-auth-user-service-key"),
];

/// A request that another PoP has sent here, for a client that may make it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called;

/// Who decides about a request.
pub(super) enum Decides {
    /// This PoP, for itself: nothing is to be decided, or the namespace has no home.
    Alone,
    /// This PoP, for all: as long as this is kept.
    ForAll(#[expect(dead_code, reason = "it is held")] Deciding),
    /// Another.
    Home(Arc<Home>),
}

/// Who decides about this request. It may be made, where that is another PoP.
pub(super) async fn decider(surface: &Surface, head: &Parts) -> Result<Decides, ApiError> {
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    if is_read || !conditions::is_conditional(&head.headers) {
        return Ok(Decides::Alone);
    }
    let path = head.uri.path();
    let (kind, document) = (kinds::route(path), documents::route(path));
    let namespace = match (&kind, &document) {
        (Some(asked), _) => asked.namespace(),
        (_, Some(asked)) => asked.namespace(),
        (None, None) => return Ok(Decides::Alone),
    };
    // What is wrong with it is told where it is decided.
    let Ok(namespace) = namespace.parse::<NamespaceId>() else { return Ok(Decides::Alone) };
    let Some(home) = surface.homes.of(namespace)? else { return Ok(Decides::Alone) };
    if surface.homes.is_here(&home) {
        return Ok(Decides::ForAll(surface.homes.decide(namespace).await?));
    }
    if head.extensions.get::<Called>().is_some() {
        return Err(HomeError::Moved { pop: home.pop.clone() }.into());
    }
    match (&kind, &document) {
        (Some(asked), _) => kinds::check(surface, asked, head)?,
        (_, Some(asked)) => documents::check(surface, asked, head)?,
        (None, None) => {}
    }
    if !surface.homes.is_member(&home) {
        return Err(HomeError::Gone { pop: home.pop.clone() }.into());
    }
    Ok(Decides::Home(home))
}

/// Has the home answer.
pub(super) async fn ask(
    links: &dyn LinkControl,
    home: &Home,
    mut head: Parts,
    body: Body,
) -> Result<Response<Body>, HomeError> {
    let unreachable = |why| HomeError::Unreachable { pop: home.pop.clone(), why };
    let silent = |why: String| HomeError::Silent { pop: home.pop.clone(), why };
    let broken = |error: hyper::Error| silent(error.to_string());
    let stream = links.call(&home.pop).await.map_err(unreachable)?;
    let (mut request, connection) = caller::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the answer, or when nobody waits for that any more.
    tokio::spawn(connection);
    head.uri = path_of(&head.uri);
    head.version = Version::HTTP_11;
    OWN_HEADERS.iter().for_each(|name| drop(head.headers.remove(name)));
    let answer = request.send_request(Request::from_parts(head, body));
    let too_late = |_| silent(format!("for {} s", MAX_ANSWER.as_secs()));
    let answer = tokio::time::timeout(MAX_ANSWER, answer).await.map_err(too_late)?.map_err(broken)?;
    let (mut head, body) = answer.into_parts();
    OWN_HEADERS.iter().for_each(|name| drop(head.headers.remove(name)));
    Ok(Response::from_parts(head, Body::new(body)))
}

/// The path as it was sent, with the account in lower case, as the home knows it.
fn path_of(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let lower = path.strip_prefix(ROOT).and_then(|rest| {
        let (account, rest) = rest.split_once('/')?;
        Uri::try_from(format!("{ROOT}{}/{rest}", account.to_ascii_lowercase())).ok()
    });
    lower.or_else(|| path.parse().ok()).unwrap_or_default()
}

/// Answers the calls of other PoPs, for as long as there are any.
pub(crate) async fn answer_calls(surface: Arc<Surface>, mut calls: mpsc::Receiver<Call>) {
    while let Some(Call { pop, stream }) = calls.recv().await {
        let surface = surface.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let surface = surface.clone();
                async move { Ok::<_, Infallible>(surface.answer_called(request.map(Body::new)).await) }
            });
            let connection =
                called::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(pop, %error, "a call broke off");
            }
        });
    }
}

impl Surface {
    /// Answers for another PoP, which has looked at who asks.
    async fn answer_called(self: &Arc<Self>, mut request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let is_callable = path.starts_with(ROOT) && path.contains("/namespaces/");
        let _counted = self.inside.token();
        if !is_callable || self.is_ending.is_cancelled() {
            let (head, _) = request.into_parts();
            return no_route(&head).into_problem();
        }
        request.headers_mut().insert(AUTHORIZATION, self.own_bearer.clone());
        request.extensions_mut().insert(Called);
        self.answer(Door::Node, request).await
    }
}

pub(super) async fn report(
    State(native): State<Native>,
    Named((account, namespace)): Named<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<HomeReport>, PageError> {
    let grant = native.grant(&headers)?;
    let is_seen = |id| grant.account(&account).is_some() && grant.may_see(id);
    match namespace.parse() {
        Ok(id) if grant.is_cluster || is_seen(id) => {
            native.owned(&account, id)?;
            Ok(Json(native.homes.report(id)?))
        }
        _ => Err(NamespaceError::NotFound.into()),
    }
}

pub(super) async fn set(
    State(native): State<Native>,
    Named((account, namespace)): Named<(String, String)>,
    is_called: Option<Extension<Called>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, PageError> {
    let wanted: SetHome = order(&native, &headers, body).await?;
    let id: NamespaceId = namespace.parse().map_err(|_| NamespaceError::NotFound)?;
    native.owned(&account, id)?;
    if let Some(home) = native.homes.of(id)?
        && !native.homes.is_here(&home)
        && native.homes.is_member(&home)
    {
        if is_called.is_some() {
            return Err(HomeError::Moved { pop: home.pop.clone() }.into());
        }
        let json = serde_json::to_vec(&wanted).expect("a text is JSON");
        let mut request = Request::new(Body::from(json));
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = format!("{ROOT}{account}/namespaces/{id}/home").parse().unwrap_or_default();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (head, body) = request.into_parts();
        return Ok(ask(&*native.links, &home, head, body).await?);
    }
    native.homes.set(id, wanted.region.as_deref()).await?;
    tracing::info!(namespace = %id, region = wanted.region, "the home of a namespace was set");
    Ok(Json(native.homes.report(id)?).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_goes_to_the_home_as_it_knows_it_and_the_rest_as_it_was_sent() {
        for (sent, goes) in [
            ("/v1/accounts/AB/namespaces/CD/values/K?ttl=5", "/v1/accounts/ab/namespaces/CD/values/K?ttl=5"),
            ("http://here:1/v1/accounts/A/namespaces/n/docs/%2F", "/v1/accounts/a/namespaces/n/docs/%2F"),
            ("/v1/accounts/A", "/v1/accounts/A"),
            ("/", "/"),
        ] {
            assert_eq!(path_of(&sent.parse().unwrap()), goes, "{sent}");
        }
    }
}
