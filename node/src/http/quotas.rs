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
    let id = native.seen(&headers, &account, &namespace)?;
    native.quota(&account, id).await
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

    /// The namespace, where who asks may know of it.
    pub(super) fn seen(
        &self,
        headers: &HeaderMap,
        account: &str,
        namespace: &str,
    ) -> Result<NamespaceId, PageError> {
        let grant = self.grant(headers)?;
        let is_seen = |id| grant.is_cluster || grant.account(account).is_some() && grant.may_see(id);
        let id = namespace.parse().ok().filter(|id| is_seen(*id));
        Ok(id.ok_or(NamespaceError::NotFound)?)
    }

    pub(super) fn owned(&self, account: &str, id: NamespaceId) -> Result<(), PageError> {
        match self.namespaces.owns(&account.to_ascii_lowercase(), id)? {
            true => Ok(()),
            false => Err(NamespaceError::NotFound.into()),
        }
    }
}
