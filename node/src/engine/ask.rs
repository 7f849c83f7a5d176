//! Questions to the replica that need nothing but the replica: verification, what it holds for comparisons, and rights
//! that others hold.

use std::sync::Arc;
use std::time::Duration;

use replication::replica::Usage;
use replication::replica::verify::{Verified, Verifying};
use replication::{ChunkId, DigestKey, EntryId, NamespaceId, Now, Replica, read};
use tokio::sync::oneshot;

use super::inbox::Command;
use super::{Engine, ReadError};
use crate::storage::SledStore;

impl Engine {
    /// Asks the replica between two turns of its thread.
    pub(super) async fn ask<T: Send + 'static>(
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

    /// Has other PoPs asked for rights to take `amount` from a bounded counter, for so long at most. Gives whether there
    /// was room for one more that is asked for.
    ///
    /// # Errors
    /// In quarantine.
    pub(crate) async fn want_rights(
        &self,
        id: EntryId,
        amount: u64,
        within: Duration,
    ) -> Result<bool, ReadError> {
        let within_us = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        self.ask(move |replica, now| replica.want_rights(id, amount, now.mono_us.saturating_add(within_us)))
            .await
    }

    /// What a namespace has.
    ///
    /// # Errors
    /// In quarantine.
    pub async fn usage(&self, namespace: NamespaceId) -> Result<Usage, ReadError> {
        self.ask(move |replica, _| replica.usage(namespace)).await
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

    /// Of these chunks, those that durably no state here names; `None` before this node is a full member, and has all
    /// that could name them. At most some hundreds at once: the engine does nothing else meanwhile.
    ///
    /// # Errors
    /// In quarantine, or when the store has failed.
    pub async fn unnamed_chunks(&self, chunks: Vec<ChunkId>) -> Result<Option<Vec<ChunkId>>, ReadError> {
        let unnamed = self.ask(|replica, _| replica.unnamed_chunks(chunks)).await?;
        unnamed.map_err(|error| ReadError { reason: error.reason })
    }

    /// The chunks that states here name and `lacking` picks, each once, with their lengths in bytes. Blocking: reads the
    /// whole index of chunks.
    pub fn chunks_named(&self, lacking: &dyn Fn(&ChunkId) -> bool) -> Vec<(ChunkId, u64)> {
        let Some(store) = &self.shared.store else { return Vec::new() };
        let mut named = Vec::new();
        let read = read::chunks(store, &mut |chunk, bytes| {
            if lacking(&chunk) {
                named.push((chunk, bytes));
            }
        });
        if let Err(error) = read {
            tracing::warn!(%error, "the chunks that values name cannot be read");
        }
        named
    }

    /// The store, for reading states, and the key of its digests.
    ///
    /// # Errors
    /// Where the node does not serve.
    pub(crate) async fn states(&self) -> Result<(SledStore, DigestKey), ReadError> {
        let store = self.shared.serving()?.clone();
        Ok((store, self.ask(|replica, _| replica.digest_key()).await?))
    }

    /// A row cannot be read: the store is quarantined.
    pub(crate) fn states_failed(&self, error: replication::StoreError) -> ReadError {
        self.shared.read_failed(error)
    }
}

#[cfg(test)]
mod tests {
    use replication::store::Batch;
    use replication::{Payload, Store, Value, keys};
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::{Ack, Settings, Write, unix_ms};
    use littoral::api::State;

    const NAMESPACE: NamespaceId = NamespaceId([9; 16]);

    /// An engine that serves, with one value in it.
    async fn engine(folder: &std::path::Path) -> Engine {
        let settings = Settings {
            pop: "a".into(),
            region: "here".into(),
            peers: Vec::new(),
            data_folder: folder.to_owned(),
            cache_bytes: 16 << 20,
            min_free_bytes: 0,
            replica: replication::Settings::new([1; 16], DigestKey::new([2; 32])),
        };
        let engine = Engine::start(settings, mpsc::channel(1).0).unwrap();
        while engine.status().await.unwrap().state != State::Ready {
            tokio::task::yield_now().await;
        }
        let value = Value { payload: Payload::Inline("v".into()), metadata: None, expires_at_s: None };
        let put = Write::Put { namespace: NAMESPACE, key: "k".into(), value };
        engine.write(vec![put], Ack::Durable).await.unwrap();
        engine
    }

    async fn verified(engine: &Engine) -> Arc<Verified> {
        let began_ms = engine.verify().await.unwrap().unwrap();
        assert!(began_ms <= unix_ms());
        loop {
            match engine.verified() {
                Some(verified) => return verified,
                None => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_damaged_row_puts_the_store_into_quarantine() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path()).await;
        let row_key = keys::entry(&replication::EntryId::value(NAMESPACE, "k"));
        let mut store = engine.shared.store.clone().unwrap();
        let mut row = store.read(&row_key).unwrap().unwrap().to_vec();
        row[3] ^= 1;
        store.commit(Batch::from([(row_key, Some(row))])).unwrap();
        let found = verified(&engine).await;
        assert!(found.is_damaged(), "{found:?}");
        assert_eq!(engine.status().await.unwrap().state, State::Quarantined);
        assert!(engine.read(NAMESPACE, b"k").is_err());
        assert!(engine.verify().await.unwrap_err().reason.contains("is damaged"));
        engine.shutdown().await;
    }

    /// A row that is gone shows; whether the store is to be rebuilt is for an operator to say.
    #[tokio::test]
    async fn a_lost_row_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path()).await;
        let row_key = keys::entry(&replication::EntryId::value(NAMESPACE, "k"));
        let mut store = engine.shared.store.clone().unwrap();
        store.commit(Batch::from([(row_key, None)])).unwrap();
        let found = verified(&engine).await;
        assert!(!found.is_damaged() && found.mismatches.len() == 2, "{found:?}");
        assert_eq!(engine.status().await.unwrap().state, State::Ready);
        engine.shutdown().await;
    }
}
