//! The node's own pages: health, metrics and `/v1`. Errors are problem details (RFC 9457).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::handler::Handler;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Router, http::HeaderMap};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use littoral::api::{LagReport, Status};

use super::auth::grant_of;
use super::error::{ApiError, PageError, problem};
use super::links::LinkControl;
use super::members;
use super::{diff, homes, links, openapi, quotas, tokens, verify, whereabouts};
use crate::accounts::Accounts;
use crate::chunks::ChunkStore;
use crate::engine::Engine;
use crate::homes::Homes;
use crate::namespaces::Namespaces;
use crate::quotas::Quotas;
use crate::tokens::{Grant, Tokens};
use crate::verifier::Verifier;

/// How long the engine may take to tell its state before the node counts as not ready.
const MAX_STATUS_MS: u64 = 2_000;
const HOME_PATH: &str = "/v1/accounts/{account}/namespaces/{namespace}/home";
const QUOTA_PATH: &str = "/v1/accounts/{account}/namespaces/{namespace}/quota";

/// What these pages are made from.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) engine: Engine,
    pub(crate) links: Arc<dyn LinkControl>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) chunks: Arc<ChunkStore>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) diff: Arc<diff::Slot>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) homes: Arc<Homes>,
    pub(crate) render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// A page: its method, its path, and who makes it.
type Page = (Method, &'static str, MethodRouter<Native>);

/// Every page, also those of `openapi.json`.
pub(super) fn pages() -> Vec<Page> {
    vec![
        page(Method::GET, "/healthz", || async { "ok\n" }),
        page(Method::GET, "/readyz", ready),
        page(Method::GET, "/metrics", metrics),
        page(Method::GET, "/v1/openapi.json", openapi::document),
        page(Method::GET, "/v1/status", status),
        page(Method::GET, "/v1/lag", lag),
        page(Method::GET, "/v1/where", whereabouts::holders),
        page(Method::GET, "/v1/verify", verify::report),
        page(Method::POST, "/v1/verify", verify::begin),
        page(Method::GET, "/v1/leaves", diff::leaves),
        page(Method::GET, "/v1/entries", diff::entries),
        page(Method::GET, "/v1/members", members::list),
        page(Method::POST, "/v1/members/{replica}/drain", members::drain),
        page(Method::POST, "/v1/members/{replica}/remove", members::remove),
        page(Method::GET, "/v1/links", links::list),
        page(Method::POST, "/v1/links/{pop}/budget", links::set_own),
        page(Method::POST, "/v1/links/{pop}/pause", links::pause),
        page(Method::GET, "/v1/budgets", links::list),
        page(Method::POST, "/v1/budgets", links::set_shared),
        page(Method::POST, "/v1/budgets/burst", links::set_burst),
        page(Method::GET, "/v1/gc", members::garbage),
        page(Method::GET, "/v1/dead-letters", members::dead_letters),
        page(Method::POST, "/v1/dead-letters/{dot}", members::settle),
        page(Method::GET, "/v1/token", tokens::presented),
        page(Method::GET, "/v1/accounts", tokens::accounts),
        page(Method::POST, "/v1/accounts", tokens::create_account),
        page(Method::DELETE, "/v1/accounts/{account}", tokens::delete_account),
        page(Method::GET, "/v1/accounts/{account}/tokens", tokens::list),
        page(Method::POST, "/v1/accounts/{account}/tokens", tokens::create),
        page(Method::DELETE, "/v1/accounts/{account}/tokens/{token}", tokens::revoke),
        page(Method::GET, QUOTA_PATH, quotas::report),
        page(Method::PUT, QUOTA_PATH, quotas::set),
        page(Method::GET, HOME_PATH, homes::report),
        page(Method::PUT, HOME_PATH, homes::set),
    ]
}

fn page<H: Handler<T, Native>, T: 'static>(method: Method, path: &'static str, handler: H) -> Page {
    let filter = MethodFilter::try_from(method.clone()).expect("pages have methods of HTTP's own");
    (method, path, on(filter, handler))
}

pub(crate) fn router(native: Native) -> Router {
    pages()
        .into_iter()
        .fold(Router::new(), |router, (_, path, page)| router.route(path, page))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such page") })
        .method_not_allowed_fallback(|| async {
            problem(StatusCode::METHOD_NOT_ALLOWED, "this page does not take this method")
        })
        .with_state(native)
}

async fn ready(State(native): State<Native>) -> Response {
    let unready = |reason: &str| problem(StatusCode::SERVICE_UNAVAILABLE, reason);
    match native.status().await {
        Ok(Status { state: littoral::api::State::Ready, .. }) => "ready\n".into_response(),
        Ok(Status { state, reason, .. }) => {
            unready(&reason.unwrap_or_else(|| format!("this node does not serve yet: {state:?}")))
        }
        Err(reason) => unready(&reason),
    }
}

async fn metrics(State(native): State<Native>) -> Response {
    let text = tokio::task::block_in_place(|| (native.render_metrics)());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status(State(native): State<Native>, headers: HeaderMap) -> Response {
    native.report(&headers, Json).await
}

async fn lag(State(native): State<Native>, headers: HeaderMap) -> Response {
    let chunks = native.chunks.figures();
    let page = |status: Status| LagReport {
        pop: status.pop,
        lag: status.lag,
        chunks_missing: chunks.missing,
        chunk_bytes_missing: chunks.missing_bytes,
    };
    native.report(&headers, |status| Json(page(status))).await
}

impl Native {
    async fn report<R: IntoResponse>(
        &self,
        headers: &HeaderMap,
        page: impl FnOnce(Status) -> R,
    ) -> Response<Body> {
        if let Err(refused) = self.authorize(headers) {
            return refused.into_response();
        }
        match self.status().await {
            Ok(status) => page(status).into_response(),
            Err(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, &reason),
        }
    }

    /// A token of the cluster will do, to read and to change.
    pub(super) fn authorize(&self, headers: &HeaderMap) -> Result<Arc<Grant>, PageError> {
        let grant = self.grant(headers)?;
        if grant.is_cluster { Ok(grant) } else { Err(PageError::NotOfCluster) }
    }

    /// What the token of the request stands for.
    pub(super) fn grant(&self, headers: &HeaderMap) -> Result<Arc<Grant>, PageError> {
        grant_of(&self.tokens, headers).map_err(|error| match error {
            ApiError::Read(error) => error.into(),
            ApiError::TooFast { refused, .. } => PageError::TooFast(refused),
            _ => PageError::Unauthorized,
        })
    }

    pub(super) async fn status(&self) -> Result<Status, String> {
        match tokio::time::timeout(Duration::from_millis(MAX_STATUS_MS), self.engine.status()).await {
            Ok(status) => status.map_err(|error| error.reason),
            Err(_) => Err(format!("the engine has not answered for {MAX_STATUS_MS} ms")),
        }
    }
}
