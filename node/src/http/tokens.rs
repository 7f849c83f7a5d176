//! The pages about accounts and their tokens, and the one that says what a token is.
//!
//! The rule this file upholds: who has a token of the cluster may do all of it; who may administer an account as a whole
//! lists, makes and revokes its tokens, and sees no other account.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Json;
use hyper::{HeaderMap, Response, StatusCode};
use littoral::api::tokens::{
    AccountInfo, AccountsReport, Action, CreateAccount, CreateToken, CreatedToken, PresentedToken,
    TokensReport,
};
use serde_json::json;

use super::envelope;
use super::error::PageError;
use super::members::{Named, received};
use super::native::Native;
use crate::accounts::{AccountError, parse_id};
use crate::tokens::Grant;

/// The largest body that makes an account or a token.
const MAX_BODY_BYTES: usize = 64 << 10;

type Page<T> = Result<Json<T>, PageError>;
type Made<T> = Result<(StatusCode, Json<T>), PageError>;

pub(super) async fn presented(State(native): State<Native>, headers: HeaderMap) -> Page<PresentedToken> {
    let grant = native.grant(&headers)?;
    Ok(Json(PresentedToken {
        accounts: grant.accounts.clone(),
        cluster: grant.is_cluster,
        token: grant.info().cloned(),
    }))
}

/// What the real API says of a token that is good; who asks looks at the status.
pub(super) fn verified(grant: &Grant) -> Response<Body> {
    let id = grant.info().map(|info| info.id.as_str());
    envelope::result(json!({ "id": id, "status": "active" }))
}

pub(super) async fn accounts(State(native): State<Native>, headers: HeaderMap) -> Page<AccountsReport> {
    let grant = native.grant(&headers)?;
    let mut accounts = tokio::task::block_in_place(|| native.accounts.list())?;
    accounts.retain(|account| grant.is_cluster || grant.account(&account.id).is_some());
    Ok(Json(AccountsReport { accounts }))
}

pub(super) async fn create_account(
    State(native): State<Native>,
    headers: HeaderMap,
    body: Body,
) -> Made<AccountInfo> {
    native.authorize(&headers)?;
    let wanted: CreateAccount = received(body, MAX_BODY_BYTES).await?;
    Ok((StatusCode::CREATED, Json(native.accounts.create(wanted).await?)))
}

pub(super) async fn delete_account(
    State(native): State<Native>,
    Named(account): Named,
    headers: HeaderMap,
) -> Page<AccountsReport> {
    native.authorize(&headers)?;
    native.accounts.delete(&account).await?;
    let accounts = tokio::task::block_in_place(|| native.accounts.list())?;
    Ok(Json(AccountsReport { accounts }))
}

pub(super) async fn list(
    State(native): State<Native>,
    Named(account): Named,
    headers: HeaderMap,
) -> Page<TokensReport> {
    let (_, account) = native.administered(&headers, &account)?;
    native.tokens_of(account)
}

pub(super) async fn create(
    State(native): State<Native>,
    Named(account): Named,
    headers: HeaderMap,
    body: Body,
) -> Made<CreatedToken> {
    let (grant, account) = native.administered(&headers, &account)?;
    if grant.is_cluster {
        // A mistyped id must not become an account.
        native.accounts.find(&account)?;
    }
    let wanted: CreateToken = received(body, MAX_BODY_BYTES).await?;
    Ok((StatusCode::CREATED, Json(native.tokens.create(&account, wanted).await?)))
}

pub(super) async fn revoke(
    State(native): State<Native>,
    Named((account, token)): Named<(String, String)>,
    headers: HeaderMap,
) -> Page<TokensReport> {
    let (_, account) = native.administered(&headers, &account)?;
    native.tokens.revoke(&account, &token).await?;
    native.tokens_of(account)
}

impl Native {
    /// The account, in lower case, where who asks may administer it as a whole. A token can be revoked also where only the
    /// configuration of another PoP knows its account.
    fn administered(&self, headers: &HeaderMap, account: &str) -> Result<(Arc<Grant>, String), PageError> {
        let grant = self.grant(headers)?;
        if grant.is_cluster {
            let not_found = || AccountError::NotFound { id: account.to_owned() };
            let account = parse_id(account).ok_or_else(not_found)?;
            return Ok((grant, account));
        }
        let other = || PageError::OtherAccount { id: account.to_owned() };
        let own = grant.account(account).ok_or_else(other)?.to_owned();
        grant.check_account(Action::Admin)?;
        Ok((grant, own))
    }

    fn tokens_of(&self, account: String) -> Page<TokensReport> {
        let tokens = tokio::task::block_in_place(|| self.tokens.list(&account))?;
        Ok(Json(TokensReport { account, tokens }))
    }
}
