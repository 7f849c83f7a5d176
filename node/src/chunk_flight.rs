//! Fetching chunks: one fetch in flight per chunk, however many wait for it.
//!
//! The puller and all readers ask here. Who asks for a chunk that is on its way joins those who wait; a reader makes it
//! urgent. The rule this file upholds: bytes are given on only if they hash to the name, and each chunk that comes is
//! stored once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use replication::ChunkId;
use tokio::sync::{Semaphore, watch};

use crate::chunks::ChunkStore;
use crate::transport::Urgency;

/// Chunks fetched for readers at once, beside those that are pulled; with these no more than a peer may be asked for.
const READ_AT_ONCE: usize = 12;

/// Brings a chunk that is not here from a peer that has it.
pub trait ChunkFetch: Send + Sync {
    /// The chunk's bytes, or why no peer gave them. The caller checks them against the name. The urgency may rise while
    /// they are fetched.
    fn fetch(&self, id: ChunkId, urgency: watch::Receiver<Urgency>) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// The fetches in flight.
pub struct ChunkFlights {
    store: Arc<ChunkStore>,
    fetch: Arc<dyn ChunkFetch>,
    flights: Mutex<BTreeMap<ChunkId, Flight>>,
    for_readers: Semaphore,
}

/// One fetch, as those see it who wait for it.
struct Flight {
    urgency: watch::Sender<Urgency>,
    landed: watch::Receiver<Option<Landed>>,
}

type Landed = Result<Bytes, String>;

impl ChunkFlights {
    /// None yet. What comes goes into `store`.
    pub fn new(store: Arc<ChunkStore>, fetch: Arc<dyn ChunkFetch>) -> Arc<Self> {
        let (flights, for_readers) = (Mutex::default(), Semaphore::new(READ_AT_ONCE));
        Arc::new(Self { store, fetch, flights, for_readers })
    }

    /// A chunk's bytes, stored by then if the disk takes them.
    ///
    /// # Errors
    /// Why no peer gave it.
    pub async fn fetch(self: &Arc<Self>, id: ChunkId, urgency: Urgency) -> Result<Bytes, String> {
        let mut landed = self.join(id, urgency);
        match landed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(landed)) => landed.clone(),
            _ => Err(format!("the fetch of chunk {id} ended in a fault")),
        }
    }

    /// The flight of this chunk: the present one, or else a new one, which goes on if nobody waits for it any more.
    fn join(self: &Arc<Self>, id: ChunkId, urgency: Urgency) -> watch::Receiver<Option<Landed>> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&id) {
            flight.urgency.send_if_modified(|known| {
                let is_raised = *known < urgency;
                *known = urgency.max(*known);
                is_raised
            });
            return flight.landed.clone();
        }
        let (sender, raised) = watch::channel(urgency);
        let (land, landed) = watch::channel(None);
        flights.insert(id, Flight { urgency: sender, landed: landed.clone() });
        let flights = self.clone();
        tokio::spawn(async move {
            let entry = Entry { flights: flights.clone(), id };
            let result = flights.fly(id, raised).await;
            // Whoever asks from here on finds the chunk in the store, or begins anew.
            drop(entry);
            land.send_replace(Some(result));
        });
        landed
    }

    async fn fly(&self, id: ChunkId, urgency: watch::Receiver<Urgency>) -> Landed {
        // Pulled ones have slots of the puller's. The semaphore is never closed.
        let is_read = *urgency.borrow() == Urgency::Reader;
        let _slot = if is_read { self.for_readers.acquire().await.ok() } else { None };
        let bytes = self.fetch.fetch(id, urgency).await?;
        if ChunkId::of(&bytes) != id {
            return Err(format!("a peer sent other bytes than chunk {id}"));
        }
        let (store, stored) = (self.store.clone(), bytes.clone());
        let kept = tokio::task::spawn_blocking(move || {
            let written = store.write(&stored);
            // What named it may be gone by now.
            store.offer(std::iter::once(id));
            written
        })
        .await;
        // Given on even if it cannot be kept: then the next reader fetches it again.
        if let Err(error) = kept.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            tracing::warn!(%error, chunk = %id, "a fetched chunk could not be stored");
        }
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChunkId, Flight>> {
        // A panic elsewhere leaves a table that is still one.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the table, left however the flight ends.
struct Entry {
    flights: Arc<ChunkFlights>,
    id: ChunkId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out the chunk when it is let, to any number of fetches, which it counts.
    struct Peer {
        chunk: Bytes,
        gate: Semaphore,
        asked: Mutex<Vec<watch::Receiver<Urgency>>>,
    }

    impl ChunkFetch for Peer {
        fn fetch(
            &self,
            _: ChunkId,
            urgency: watch::Receiver<Urgency>,
        ) -> BoxFuture<'_, Result<Bytes, String>> {
            self.asked.lock().unwrap().push(urgency);
            Box::pin(async move {
                self.gate.acquire().await.unwrap().forget();
                Ok(self.chunk.clone())
            })
        }
    }

    fn flights(chunk: &'static [u8]) -> (tempfile::TempDir, Arc<Peer>, Arc<ChunkFlights>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(ChunkStore::open(&folder.path().join("chunks")).unwrap());
        let chunk = Bytes::from_static(chunk);
        let peer = Arc::new(Peer { chunk, gate: Semaphore::new(0), asked: Mutex::default() });
        let flights = ChunkFlights::new(store, peer.clone());
        (folder, peer, flights)
    }

    #[tokio::test]
    async fn however_many_ask_it_is_fetched_once_and_a_reader_makes_it_urgent() {
        let (_folder, peer, flights) = flights(b"hello");
        let id = ChunkId::of(b"hello");
        let mut pulled = std::pin::pin!(flights.fetch(id, Urgency::Background));
        assert!(futures_util::poll!(pulled.as_mut()).is_pending());
        tokio::task::yield_now().await;
        let mut urgency = peer.asked.lock().unwrap()[0].clone();
        assert_eq!(*urgency.borrow_and_update(), Urgency::Background);
        let mut readers = std::pin::pin!(futures_util::future::join_all(
            (0..50).map(|_| flights.fetch(id, Urgency::Reader))
        ));
        assert!(futures_util::poll!(readers.as_mut()).is_pending());
        assert!(urgency.has_changed().unwrap() && *urgency.borrow() == Urgency::Reader);
        peer.gate.add_permits(1);
        assert!(readers.await.iter().all(|landed| landed.as_deref() == Ok(b"hello")));
        assert_eq!(pulled.await.as_deref(), Ok(&b"hello"[..]));
        assert_eq!(peer.asked.lock().unwrap().len(), 1);
        assert_eq!(flights.store.read(&id).unwrap().unwrap(), &b"hello"[..]);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn other_bytes_than_the_names_go_no_further_and_the_next_asks_anew() {
        let (_folder, peer, flights) = flights(b"something else");
        let id = ChunkId::of(b"hello");
        peer.gate.add_permits(2);
        for asked in 1..3 {
            let refused = flights.fetch(id, Urgency::Reader).await.unwrap_err();
            assert!(refused.contains("sent other bytes"), "{refused}");
            assert_eq!(peer.asked.lock().unwrap().len(), asked);
        }
        assert!(!flights.store.contains(&id));
    }
}
