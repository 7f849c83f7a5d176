//! Who asks, and where that lets them: the token of a request, and the one namespace that a call is about.
//!
//! The rule this file upholds: no call reaches a namespace but through a [`Place`], which is had only by who holds the
//! right, and each key and prefix of the call passes it. Rights are looked at before it is looked up whether the
//! namespace exists: so a token learns nothing of those that it has no scope for.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use littoral::api::tokens::Action;
use replication::{Dot, NamespaceId};

use super::error::ApiError;
use super::kinds::method_of;
use super::measures::count_over_quota;
use super::query::decode_key;
use super::{Surface, parse_namespace, terms};
use crate::documents::Limits;
use crate::engine::{Ack, Write, WriteError};
use crate::namespaces::NamespaceError;
use crate::quotas::InForce;
use crate::request_rate::TooMany;
use crate::tokens::{Grant, Tokens};

/// What the token of a request stands for.
pub(super) fn grant_of(tokens: &Tokens, headers: &HeaderMap) -> Result<Arc<Grant>, ApiError> {
    grant_of_token(tokens, presented(headers)?)
}

/// The same, where the token was sent otherwise than in a header.
pub(super) fn grant_of_token(tokens: &Tokens, token: &[u8]) -> Result<Arc<Grant>, ApiError> {
    let grant = tokens.grant(token)?.ok_or(ApiError::Forbidden)?;
    grant.admit().map_err(|refused| too_fast("this token", "token_requests", refused))?;
    Ok(grant)
}

/// The refusal of a request that was one too many for what or whom.
fn too_fast(of: &'static str, quota: &'static str, refused: TooMany) -> ApiError {
    count_over_quota(quota);
    ApiError::TooFast { of, refused }
}

/// The token in a request, in whichever of the three ways of the REST API it was sent.
pub(super) fn presented(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        return match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(token.trim_ascii()),
            _ => Err(ApiError::BadAuthorization),
        };
    }
    let key = headers.get("x-auth-key").or_else(|| headers.get("x-auth-user-service-key"));
    key.map(|key| key.as_bytes()).ok_or(ApiError::MissingCredentials)
}

/// Whose the namespace may be.
#[derive(Clone, Copy)]
pub(super) enum Owner<'a> {
    /// This account's.
    Account(&'a str),
    /// That of any account of the token.
    OfToken,
    /// Anyone's.
    Anyone,
}

/// A namespace that exists, in which who asks may do one kind of thing to some keys.
pub(super) struct Place {
    grant: Arc<Grant>,
    action: Action,
    pub(super) namespace: NamespaceId,
    quota: Arc<InForce>,
}

impl Place {
    /// The namespace, for who may do this to any of its keys.
    pub(super) fn enter(
        surface: &Surface,
        grant: Arc<Grant>,
        owner: Owner<'_>,
        namespace: NamespaceId,
        action: Action,
    ) -> Result<Self, ApiError> {
        grant.check_any(action, namespace)?;
        let is_owned = match owner {
            Owner::Account(account) => surface.namespaces.owns(account, namespace)?,
            Owner::OfToken => surface.namespaces.is_owned_by_any(&grant.accounts, namespace)?,
            Owner::Anyone => surface.accounts.own(namespace)?,
        };
        if !is_owned {
            return Err(NamespaceError::NotFound.into());
        }
        let quota = surface.quotas.in_force(namespace)?;
        quota.admit().map_err(|refused| too_fast("this namespace", "namespace_requests", refused))?;
        Ok(Self { grant, action, namespace, quota })
    }

    /// The namespace of a path under `/v1/accounts`, for who may do this there, by one of the methods that there are.
    pub(super) fn named(
        surface: &Surface,
        head: &Parts,
        (account, namespace): (&str, &str),
        allow: &'static str,
        action: Action,
    ) -> Result<Self, ApiError> {
        let grant = grant_of(&surface.tokens, &head.headers)?;
        if !allow.split(", ").any(|allowed| allowed == method_of(head).as_str()) {
            return Err(ApiError::MethodNotAllowed { allow });
        }
        let other = || ApiError::OtherAccount { id: account.to_owned() };
        let owner = Owner::Account(grant.account(account).ok_or_else(other)?);
        Self::enter(surface, grant.clone(), owner, parse_namespace(namespace)?, action)
    }

    /// Writes within the quota of the namespace, and gives the events. Who writes has checked each key.
    pub(super) async fn write(
        &self,
        surface: &Surface,
        writes: Vec<Write>,
        ack: Ack,
    ) -> Result<Vec<Dot>, ApiError> {
        noted(surface.engine.write_within(self.quota.storage(), writes, ack).await)
    }

    /// The same, of writes that all become visible together: at most [`MAX_BATCH_WRITES`](crate::engine::MAX_BATCH_WRITES),
    /// each to another entry.
    pub(super) async fn write_batch(
        &self,
        surface: &Surface,
        writes: Vec<Write>,
        ack: Ack,
    ) -> Result<Vec<Dot>, ApiError> {
        noted(surface.engine.write_batch(self.quota.storage(), writes, ack).await)
    }

    /// What a document may be here.
    pub(super) fn document_limits(&self, surface: &Surface) -> Limits {
        self.quota.document(surface.documents.limits())
    }

    /// The key of a path, decoded, where it may be acted upon.
    pub(super) fn key<'a>(&self, raw: &'a str) -> Result<Cow<'a, str>, ApiError> {
        let key = decode_key(raw)?;
        self.check(&key)?;
        Ok(key)
    }

    /// Whether the key, or everything that begins with this prefix, may be acted upon.
    pub(super) fn check(&self, text: &str) -> Result<(), ApiError> {
        Ok(self.grant.check(self.action, self.namespace, text)?)
    }

    /// The same, of another kind of thing that the call does besides.
    pub(super) fn check_to(&self, action: Action, text: &str) -> Result<(), ApiError> {
        Ok(self.grant.check(action, self.namespace, text)?)
    }

    /// Whether each of these keys may be acted upon.
    pub(super) fn check_all<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<(), ApiError> {
        keys.into_iter().try_for_each(|key| self.check(key))
    }
}

/// What has come of a write, told to the metrics of quotas and to the terms of the request.
fn noted(written: Result<Vec<Dot>, WriteError>) -> Result<Vec<Dot>, ApiError> {
    if let Err(WriteError::OverQuota { quota, .. }) = &written {
        count_over_quota(quota);
    }
    let dots = written?;
    terms::note_written(&dots);
    Ok(dots)
}
