//! A store in memory that can crash: what was not flushed is gone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Batch, Store, StoreError, Visit};

/// A store for tests and simulations.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    rows: BTreeMap<Vec<u8>, Bytes>,
    /// What each unflushed batch replaced, oldest first.
    undo: Vec<Vec<(Vec<u8>, Option<Bytes>)>>,
    /// The error every commit and flush gives from now on.
    failure: Option<StoreError>,
}

impl MemoryStore {
    /// Loses power: of the unflushed batches only the first `kept` survive.
    pub fn crash(&mut self, kept: usize) {
        let lost = self.undo.split_off(kept.min(self.undo.len()));
        for (key, old) in lost.into_iter().rev().flatten() {
            match old {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
        self.undo.clear();
        self.failure = None;
    }

    /// Batches committed and not yet flushed.
    pub fn unflushed(&self) -> usize {
        self.undo.len()
    }

    /// Makes every later commit and flush fail.
    pub fn fail(&mut self, error: StoreError) {
        self.failure = Some(error);
    }

    /// Loses a row, as rot of the disk does: behind the replica's back.
    pub fn lose(&mut self, key: &[u8]) -> bool {
        self.rows.remove(key).is_some()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for (key, row) in self.rows.range(from.to_vec()..) {
            if let ControlFlow::Break(()) = visit(key, row.clone()) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        let replaced = batch.into_iter().map(|(key, row)| {
            let old = match row {
                Some(row) => self.rows.insert(key.clone(), row.into()),
                None => self.rows.remove(&key),
            };
            (key, old)
        });
        let replaced = replaced.collect();
        self.undo.push(replaced);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.check()?;
        self.undo.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn it_conforms() {
        conformance::check(&mut MemoryStore::default);
    }

    #[test]
    fn a_crash_loses_the_unflushed_batches_from_the_end() {
        let mut store = MemoryStore::default();
        let batch = |key: &str, row: Option<&str>| Batch::from([(key.into(), row.map(|row| row.into()))]);
        store.commit(batch("a", Some("1"))).unwrap();
        store.flush().unwrap();
        store.commit(batch("a", Some("2"))).unwrap();
        store.commit(batch("a", None)).unwrap();
        store.commit(batch("b", Some("3"))).unwrap();
        store.crash(1);
        assert_eq!(store.read(b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.read(b"b").unwrap(), None);
    }
}
