//! What readers see of a store: its entries, but for those that are veiled ([`crate::replica::veil`]) as they were before.

use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::damaged_row;
use crate::codec::veil;
use crate::keys;
use crate::replica::veil::VeilCount;
use crate::store::{Batch, Store, StoreError, Visit};

/// A store as readers see it. It can only be read.
#[derive(Clone, Copy)]
pub struct Shown<'a, S> {
    store: &'a S,
    veils: &'a VeilCount,
}

impl<'a, S: Store> Shown<'a, S> {
    /// Of the store of a replica with so many veils ([`crate::Replica::veil_count`]).
    pub fn new(store: &'a S, veils: &'a VeilCount) -> Self {
        Self { store, veils }
    }

    /// The row of an entry, for whom it is read as this one. Ask after it was read: a veil comes with the batch that needs
    /// it, and is counted before.
    fn veiled(&self, row_key: &[u8], row: Option<Bytes>) -> Result<Option<Bytes>, StoreError> {
        if row_key.first() != Some(&keys::ENTRY) || self.veils.load(Ordering::Acquire) == 0 {
            return Ok(row);
        }
        let veil_key = keys::veil(row_key);
        match self.store.read(&veil_key)? {
            None => Ok(row),
            Some(veil) => veil::decode_veil(&veil_key, &veil).map_err(|why| damaged_row(&why)),
        }
    }
}

impl<S: Store> Store for Shown<'_, S> {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let row = self.store.read(key)?;
        self.veiled(key, row)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut fault = None;
        self.store.scan(from, &mut |row_key, row| match self.veiled(row_key, Some(row)) {
            Ok(Some(row)) => visit(row_key, row),
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })?;
        fault.map_or(Ok(()), Err)
    }

    fn commit(&mut self, _: Batch) -> Result<(), StoreError> {
        Err(StoreError::new("what readers see of a store cannot be written"))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
