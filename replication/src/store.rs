//! The one effect inside the core: an ordered map of bytes that commits batches and flushes.
//!
//! Two implementations: [`memory::MemoryStore`] here and sled's in the node, under one conformance suite
//! ([`conformance`]).

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

pub mod conformance;
pub mod folding;
pub mod memory;

/// Rows to write (`Some`) or remove (`None`), by key.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The most rows one batch should hold: a batch takes sled's process-wide lock, and readers wait for it.
pub const MAX_BATCH_ROWS: usize = 400;

/// What a scan calls for each row, in order, until it says break.
pub type Visit<'a> = dyn FnMut(&[u8], Bytes) -> ControlFlow<()> + 'a;

/// The store is broken or out of space; what it acknowledged before stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct StoreError {
    /// What happened.
    pub reason: String,
}

impl StoreError {
    /// An error with this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// What came of [`Store::fold`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// So many of the elements, from the first on, need not be asked for again.
    pub seen: usize,
    /// So many of them take less room now.
    pub kept: usize,
}

/// An ordered map of bytes.
pub trait Store {
    /// The row under `key`.
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows with keys of at least `from`, in order. Not a snapshot: rows committed meanwhile
    /// may or may not be seen.
    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Applies a batch: all of it or, after a crash, none. Not durable before [`Store::flush`].
    fn commit(&mut self, batch: Batch) -> Result<(), StoreError>;

    /// Returns once every committed batch would survive a loss of power.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// Takes note that these elements of a document, in the order in which they were put, are hardly going to change any
    /// more: a store may keep them in less room. Nobody who reads it sees a difference.
    fn fold(&mut self, _document: &[u8], elements: &[Bytes]) -> Result<Folded, StoreError> {
        Ok(Folded { seen: elements.len(), kept: 0 })
    }
}
