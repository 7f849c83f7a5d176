//! Whether who watches may go on: a watch outlives the request that was checked.

use std::sync::Arc;

use littoral::api::tokens::Action;
use replication::NamespaceId;

use crate::http::error::ApiError;
use crate::namespaces::{NamespaceError, Namespaces};
use crate::tokens::{Grant, Tokens};

/// What a watch needs.
pub(super) const ACTIONS: [Action; 2] = [Action::Read, Action::List];

/// The token of a watch, and what it must still be good for.
pub(super) struct Standing {
    pub(super) tokens: Arc<Tokens>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) token: Vec<u8>,
    pub(super) account: String,
    pub(super) namespace: NamespaceId,
    /// The key or prefix.
    pub(super) text: String,
}

impl Standing {
    /// The reason why it may not go on.
    pub(super) fn check(&self) -> Result<(), String> {
        self.refused().map_err(|error| match error {
            ApiError::Forbidden => "this token was revoked, or has expired".to_owned(),
            other => other.to_string(),
        })
    }

    fn refused(&self) -> Result<(), ApiError> {
        let grant: Arc<Grant> = self.tokens.grant(&self.token)?.ok_or(ApiError::Forbidden)?;
        let account = grant.account(&self.account).ok_or(ApiError::Forbidden)?;
        for action in ACTIONS {
            grant.check(action, self.namespace, &self.text)?;
        }
        match self.namespaces.owns(account, self.namespace)? {
            true => Ok(()),
            false => Err(NamespaceError::NotFound.into()),
        }
    }
}
