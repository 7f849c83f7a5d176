//! The node's own pages: health, metrics and `/v1`. Errors are problem details (RFC 9457).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use axum::{Router, http::HeaderMap};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use littoral::api::{LagReport, Status};

use super::auth::grant_of;
use super::error::{ApiError, PageError, problem};
use super::links::LinkControl;
use super::members;
use super::{diff, links, quotas, tokens, verify};
use crate::accounts::Accounts;
use crate::chunks::ChunkStore;
use crate::engine::Engine;
use crate::namespaces::Namespaces;
use crate::quotas::Quotas;
use crate::tokens::{Grant, Tokens};
use crate::verifier::Verifier;

/// How long the engine may take to tell its state before the node counts as not ready.
const MAX_STATUS_MS: u64 = 2_000;

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
    pub(crate) render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

pub(crate) fn router(native: Native) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/lag", get(lag))
        .route("/v1/verify", get(verify::report).post(verify::begin))
        .route("/v1/leaves", get(diff::leaves))
        .route("/v1/entries", get(diff::entries))
        .route("/v1/members", get(members::list))
        .route("/v1/members/{replica}/drain", post(members::drain))
        .route("/v1/members/{replica}/remove", post(members::remove))
        .route("/v1/links", get(links::list))
        .route("/v1/links/{pop}/budget", post(links::set_own))
        .route("/v1/links/{pop}/pause", post(links::pause))
        .route("/v1/budgets", get(links::list).post(links::set_shared))
        .route("/v1/budgets/burst", post(links::set_burst))
        .route("/v1/gc", get(members::garbage))
        .route("/v1/dead-letters", get(members::dead_letters))
        .route("/v1/dead-letters/{dot}", post(members::settle))
        .route("/v1/token", get(tokens::presented))
        .route("/v1/accounts", get(tokens::accounts).post(tokens::create_account))
        .route("/v1/accounts/{account}", delete(tokens::delete_account))
        .route("/v1/accounts/{account}/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/accounts/{account}/tokens/{token}", delete(tokens::revoke))
        .route("/v1/accounts/{account}/namespaces/{namespace}/quota", get(quotas::report).put(quotas::set))
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
