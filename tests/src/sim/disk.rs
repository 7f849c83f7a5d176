//! The disk of a simulated node: the in-memory store that crashes, and refuses batches larger than any may be.

use bytes::Bytes;
use replication::store::memory::MemoryStore;
use replication::store::{Batch, MAX_BATCH_ROWS, Visit};
use replication::{Store, StoreError};

/// How far a batch may be beyond [`MAX_BATCH_ROWS`]: the rows of one event belong into one batch, with the summary.
const MAX_ROWS_BEYOND: usize = 8;

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// What is on it.
    pub(super) memory: MemoryStore,
}

impl Store for Disk {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.memory.read(key)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.memory.scan(from, visit)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if batch.len() > MAX_BATCH_ROWS + MAX_ROWS_BEYOND {
            return Err(StoreError::new(format!("a batch of {} rows", batch.len())));
        }
        self.memory.commit(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.memory.flush()
    }
}
