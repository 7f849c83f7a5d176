//! Questions to the replica that need nothing but the replica: verification, and what it holds for comparisons.

use std::sync::Arc;

use replication::replica::verify::{Verified, Verifying};
use replication::{DigestKey, Now, Replica};
use tokio::sync::oneshot;

use super::inbox::Command;
use super::{Engine, ReadError};
use crate::storage::SledStore;

impl Engine {
    /// Asks the replica between two turns of its thread.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Replica<SledStore>, Now) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let ask = Box::new(move |replica: Option<&mut Replica<SledStore>>, now: Now| {
            // Whoever asked may be gone.
            let _ = reply.send(replica.map(|replica| ask(replica, now)));
        });
        self.shared.inbox.queue(Command::Ask { ask });
        match answer.await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ReadError { reason: self.shared.condition.load().explain() }),
            Err(_) => Err(ReadError { reason: "this node is stopping".into() }),
        }
    }

    /// Begins a verification of the rows. Gives when it began, in Unix milliseconds; `None` where one runs.
    ///
    /// # Errors
    /// In quarantine, or when the store has failed.
    pub async fn verify(&self) -> Result<Option<u64>, ReadError> {
        let began = self.ask(|replica, now| replica.verify(now).map(|began| began.then_some(now.wall_ms)));
        began.await?.map_err(|error| ReadError { reason: error.reason })
    }

    /// How far the verification is; `None` where none runs.
    ///
    /// # Errors
    /// In quarantine.
    pub async fn verifying(&self) -> Result<Option<Verifying>, ReadError> {
        self.ask(|replica, _| replica.verifying()).await
    }

    /// What the last verification of the rows has found.
    pub fn verified(&self) -> Option<Arc<Verified>> {
        self.shared.verified.load_full()
    }

    /// The store, for reading states, and the key of its digests.
    ///
    /// # Errors
    /// Where the node does not serve.
    pub(crate) async fn states(&self) -> Result<(SledStore, DigestKey), ReadError> {
        let store = self.shared.readable()?.clone();
        Ok((store, self.ask(|replica, _| replica.digest_key()).await?))
    }

    /// A row cannot be read: the store is quarantined.
    pub(crate) fn states_failed(&self, error: replication::StoreError) -> ReadError {
        self.shared.read_failed(error)
    }
}
