//! The page about the quota of a namespace.
//!
//! The rule this file upholds: a quota is set by who runs the cluster, and not by those that it bounds, who may look at it.

use axum::body::Body;
use axum::extract::State;
use axum::response::Json;
use hyper::HeaderMap;
use littoral::api::quotas::{Quota, QuotaReport};
use replication::NamespaceId;

use super::error::PageError;
use super::members::{Named, order};
use super::native::Native;
use crate::namespaces::NamespaceError;

type Page = Result<Json<QuotaReport>, PageError>;

pub(super) async fn report(
    State(native): State<Native>,
    Named((account, namespace)): Named<(String, String)>,
    headers: HeaderMap,
) -> Page {
    let grant = native.grant(&headers)?;
    let is_seen = |id| grant.account(&account).is_some() && grant.may_see(id);
    match namespace.parse() {
        Ok(id) if grant.is_cluster || is_seen(id) => native.quota(&account, id).await,
        _ => Err(NamespaceError::NotFound.into()),
    }
}

pub(super) async fn set(
    State(native): State<Native>,
    Named((account, namespace)): Named<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Page {
    let quota: Quota = order(&native, &headers, body).await?;
    let id = namespace.parse().map_err(|_| NamespaceError::NotFound)?;
    native.owned(&account, id)?;
    native.quotas.set(id, quota).await?;
    native.quota(&account, id).await
}

impl Native {
    async fn quota(&self, account: &str, id: NamespaceId) -> Page {
        self.owned(account, id)?;
        Ok(Json(self.quotas.report(id).await?))
    }

    pub(super) fn owned(&self, account: &str, id: NamespaceId) -> Result<(), PageError> {
        match self.namespaces.owns(&account.to_ascii_lowercase(), id)? {
            true => Ok(()),
            false => Err(NamespaceError::NotFound.into()),
        }
    }
}
