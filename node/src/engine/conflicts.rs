//! The ledger of conflicts: reading it past the engine's thread, and taking from it on that thread.

use std::collections::BTreeMap;

use replication::codec::conflict::Conflict;
use replication::read::conflicts::{self, Keys, Page};
use replication::{Dot, NamespaceId, ReplicaId};

use super::{Engine, OperatorError, ReadError};

/// What there is to know of conflicts beside their rows.
pub struct Known {
    /// The PoPs of those replicas that this node knows.
    pub pops: BTreeMap<ReplicaId, String>,
    /// How long what lost is kept, in milliseconds.
    pub kept_ms: u64,
}

impl Engine {
    /// Up to `limit` values that have lost at this PoP to one whose writer had not seen them, after this key and event.
    /// Blocking, and short pages have a next one, as those of [`Engine::list`].
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn conflicts(
        &self,
        namespace: NamespaceId,
        of: Keys<'_>,
        after: Option<(&[u8], Dot)>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let store = &self.shared.readable()?;
        let page = conflicts::page(store, namespace, of, after, limit);
        page.map_err(|error| self.shared.read_failed(error))
    }

    /// One of those; `None` where it is not kept, or not any more.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn conflict(
        &self,
        namespace: NamespaceId,
        key: &[u8],
        lost: Dot,
    ) -> Result<Option<Conflict>, ReadError> {
        let store = &self.shared.readable()?;
        let found = conflicts::conflict(store, namespace, key, lost);
        found.map_err(|error| self.shared.read_failed(error))
    }

    /// What there is to know of conflicts between these replicas.
    ///
    /// # Errors
    /// In quarantine.
    pub async fn known_of_conflicts(&self, replicas: Vec<ReplicaId>) -> Result<Known, ReadError> {
        self.ask(move |core, _| {
            let pop_of = |id| Some((id, core.members().find(id)?.record.as_ref()?.pop.clone()));
            Known {
                pops: replicas.into_iter().filter_map(pop_of).collect(),
                kept_ms: core.conflict_bounds().kept_ms,
            }
        })
        .await
    }

    /// Forgets a value that has lost, durably. Gives whether it was there.
    ///
    /// # Errors
    /// Where this node does not serve, or its store has failed.
    pub async fn dismiss_conflict(
        &self,
        namespace: NamespaceId,
        key: &[u8],
        lost: Dot,
    ) -> Result<bool, OperatorError> {
        let key = key.to_vec();
        self.operate(move |driver| {
            driver.order(|core, _| core.dismiss_conflict(namespace, &key, lost).map_err(Into::into))
        })
        .await
    }
}
