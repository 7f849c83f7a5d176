//! The disk of a simulated node: the in-memory store that crashes, and refuses batches larger than any may be.

use bytes::Bytes;
use replication::store::folding::Folding;
use replication::store::memory::MemoryStore;
use replication::store::{Batch, Folded, MAX_BATCH_ROWS, Visit};
use replication::{Store, StoreError};

/// How far a batch may be beyond [`MAX_BATCH_ROWS`]: the rows of one event belong into one batch, with the summary.
const MAX_ROWS_BEYOND: usize = 8;

/// One node's disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What is on it.
    rows: Folding<MemoryStore>,
}

impl Clone for Disk {
    fn clone(&self) -> Self {
        Self { rows: Folding::new(self.memory().clone()) }
    }
}

impl Disk {
    /// The store of all its rows, folds and all.
    pub(super) fn memory(&self) -> &MemoryStore {
        self.rows.beneath()
    }

    /// As [`Disk::memory`], to be damaged.
    pub(super) fn memory_mut(&mut self) -> &mut MemoryStore {
        self.rows.beneath_mut()
    }

    /// Loses a row, as rot does: behind the replica's back. Of a fold it loses one change.
    pub(super) fn lose(&mut self, key: &[u8]) -> bool {
        self.memory_mut().lose(key)
            || self.read(key).is_ok_and(|row| row.is_some()) && {
                let lost = self.rows.commit(Batch::from([(key.to_vec(), None)]));
                lost.and_then(|()| self.rows.flush()).is_ok()
            }
    }
}

impl Store for Disk {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.read(key)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rows.scan(from, visit)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if batch.len() > MAX_BATCH_ROWS + MAX_ROWS_BEYOND {
            return Err(StoreError::new(format!("a batch of {} rows", batch.len())));
        }
        self.rows.commit(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.rows.flush()
    }

    fn fold(&mut self, document: &[u8], elements: &[Bytes]) -> Result<Folded, StoreError> {
        self.rows.fold(document, elements)
    }
}
