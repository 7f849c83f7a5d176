//! Conditional writes and batches of namespaces with a home: each is decided there, wherever it was sent; and the page
//! about homes.
//!
//! The PoP that was asked looks at the token, and calls the home ([`crate::transport::Call`]); over the call goes the
//! request as it came, in HTTP/1.1, and back comes the answer. The rule this file upholds: a conditional write, or a batch, is
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
use metrics::counter;
use replication::NamespaceId;
use tokio::sync::mpsc;

use super::error::{ApiError, PageError};
use super::links::LinkControl;
use super::listener::Door;
use super::members::{Named, order};
use super::native::Native;
use super::native_path::ACCOUNTS;
use super::route::Operation;
use super::{Surface, batch, binding, conditions, documents, idempotency, kinds, no_route};
use crate::homes::{Deciding, Home, HomeError};
use crate::namespaces::NamespaceError;
use crate::transport::Call;

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

/// A conditional write, as far as its path tells. A batch is one, for it may be.
enum Conditional<'a> {
    Batch(batch::Asked<'a>),
    OfKind(kinds::Asked<'a>),
    OfDocument(documents::Asked<'a>),
}

impl<'a> Conditional<'a> {
    fn of(door: Door, head: &'a Parts) -> Option<Self> {
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        if is_read || binding::is_meant(door, head) {
            return None;
        }
        let path = head.uri.path();
        if let Some(asked) = batch::route(path) {
            return Some(Self::Batch(asked));
        }
        if !conditions::is_conditional(&head.headers) {
            return None;
        }
        kinds::route(path).map(Self::OfKind).or_else(|| documents::route(path).map(Self::OfDocument))
    }

    /// What is wrong with it is told where it is decided.
    fn namespace(&self) -> Option<NamespaceId> {
        let named = match self {
            Self::Batch(asked) => asked.namespace(),
            Self::OfKind(asked) => asked.namespace(),
            Self::OfDocument(asked) => asked.namespace(),
        };
        named.parse().ok()
    }

    /// Whether who asks may make it, as far as its head tells.
    fn check(&self, surface: &Surface, head: &Parts) -> Result<(), ApiError> {
        match self {
            // Its keys are in its body, which is read before it is passed on.
            Self::Batch(_) => Ok(()),
            Self::OfKind(asked) => kinds::check(surface, asked, head),
            Self::OfDocument(asked) => documents::check(surface, asked, head),
        }
    }

    fn operation(&self) -> Operation {
        match self {
            Self::Batch(_) => Operation::Batch,
            Self::OfKind(asked) => asked.operation(),
            Self::OfDocument(_) => Operation::Documents,
        }
    }
}

/// The home that is to answer this request in our place, which may be made as far as its head tells; and what is asked of
/// it.
pub(super) fn elsewhere(
    surface: &Surface,
    door: Door,
    head: &Parts,
) -> Option<(Operation, Result<Arc<Home>, ApiError>)> {
    let conditional = Conditional::of(door, head)?;
    let home = match surface.homes.of(conditional.namespace()?) {
        Ok(home) => home.filter(|home| !surface.homes.is_here(home))?,
        Err(error) => return Some((conditional.operation(), Err(error.into()))),
    };
    let home = if head.extensions.get::<Called>().is_some() {
        Err(HomeError::Moved { pop: home.pop.clone() }.into())
    } else {
        conditional.check(surface, head).map(|()| home)
    };
    Some((conditional.operation(), home))
}

/// Lets this PoP decide about a request, as long as what is given is kept; nothing where there is nothing to decide for all.
pub(super) async fn decide(
    surface: &Surface,
    door: Door,
    head: &Parts,
) -> Result<Option<Deciding>, ApiError> {
    let namespace = Conditional::of(door, head).and_then(|conditional| conditional.namespace());
    match namespace {
        Some(namespace) if surface.homes.of(namespace)?.is_some() => {
            Ok(Some(surface.homes.decide(namespace).await?))
        }
        _ => Ok(None),
    }
}

/// Has the home answer a request of somebody who may make it, which of a batch is looked at here.
pub(super) async fn pass_on(
    surface: &Surface,
    home: &Home,
    mut head: Parts,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let (body, _share) = match batch::route(head.uri.path()) {
        Some(asked) => {
            let (body, share) = batch::admit(surface, &asked, &head, body).await?;
            (body, Some(share))
        }
        None => (body, None),
    };
    if !surface.homes.is_member(home) {
        let gone = HomeError::Gone { pop: home.pop.clone() };
        return Err(surface.refuse(gone.into(), &head, body).await);
    }
    if let Some(key) = idempotency::own_key(&head.headers) {
        head.headers.insert(idempotency::KEY, key);
    }
    let answer = ask(&*surface.links, home, head, body).await;
    let result = match &answer {
        Ok(_) => "answered",
        Err(HomeError::Unreachable { .. }) => "unreachable",
        Err(_) => "silent",
    };
    counter!("littoral_home_calls_total", "result" => result).increment(1);
    Ok(answer?)
}

/// Has the home answer.
async fn ask(
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
    let lower = path.strip_prefix(ACCOUNTS).and_then(|rest| {
        let (account, rest) = rest.split_once('/')?;
        Uri::try_from(format!("{ACCOUNTS}{}/{rest}", account.to_ascii_lowercase())).ok()
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
        let is_callable = path.starts_with(ACCOUNTS) && path.contains("/namespaces/");
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
    let id = native.seen(&headers, &account, &namespace)?;
    native.owned(&account, id)?;
    Ok(Json(native.homes.report(id)?))
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
        *request.uri_mut() = format!("{ACCOUNTS}{account}/namespaces/{id}/home").parse().unwrap_or_default();
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
