//! The chunk index: which states name which chunks, so that the bytes of a chunk go when, and only when, nothing names it.
//!
//! The rule this file upholds: for each chunk of each entry, returned state, lost value and veil there is one row, and no
//! other, staged in the same batch as the state that names it. States without chunks cost nothing. The index is outside the digest: it follows
//! from what is in it, and is made anew at open where it does not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::{Event, MAX_CHUNKS_TOLD, Replica, entry_of_row};
use crate::codec::Malformed;
use crate::codec::conflict::decode_conflict;
use crate::codec::message::Stage;
use crate::codec::{row, veil};
use crate::entry::{Body, ChunkId};
use crate::keys;
use crate::store::{MAX_BATCH_ROWS, Store, StoreError};

/// Rows of the index, by their keys.
type NewRows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Rows of the index, or those that there should be: how many, and a sum by which two sets are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkRows {
    rows: u64,
    sum: u128,
}

impl ChunkRows {
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn add(&mut self, row_key: &[u8], chunk_bytes: u64) {
        self.rows += 1;
        self.sum ^= hash(row_key, chunk_bytes);
    }

    pub(super) fn remove(&mut self, row_key: &[u8], chunk_bytes: u64) {
        self.rows = self.rows.saturating_sub(1);
        self.sum ^= hash(row_key, chunk_bytes);
    }

    /// Adds all rows that this state should have.
    pub(super) fn add_all(&mut self, state_key: &[u8], body: &Body) {
        for (chunk, chunk_bytes) in named(Some(body)) {
            self.add(&keys::chunk(&chunk, state_key), chunk_bytes);
        }
    }
}

fn hash(row_key: &[u8], chunk_bytes: u64) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chunk_bytes.to_le_bytes()).update(row_key);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    u128::from_le_bytes(sum)
}

/// The chunks a state names, each once, with their lengths in bytes.
fn named(body: Option<&Body>) -> BTreeMap<ChunkId, u64> {
    body.and_then(Body::manifest).map(|manifest| manifest.parts().collect()).unwrap_or_default()
}

impl<S: Store> Replica<S> {
    /// Whether a state here names this chunk, staged changes included.
    ///
    /// # Errors
    /// Where the store has failed, so that nothing can be said.
    pub fn is_chunk_named(&self, chunk: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.chunk_bytes(chunk)?.is_some())
    }

    /// The length of a chunk in bytes, as a state that names it says; `None` where none does.
    ///
    /// # Errors
    /// As [`Replica::is_chunk_named`].
    pub fn chunk_bytes(&self, chunk: &ChunkId) -> Result<Option<u64>, StoreError> {
        self.check_usable()?;
        let prefix = keys::chunk(chunk, &[]);
        let mut staged = self.staged.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let mut found = staged.find_map(|(key, row)| Some(row::decode_chunk(key, row.as_ref()?)));
        if found.is_none() {
            self.store.scan(&prefix, &mut |row_key, row| {
                if !row_key.starts_with(&prefix) {
                    return ControlFlow::Break(());
                }
                // One that is staged to go is passed over.
                if self.staged.contains_key(row_key) {
                    return ControlFlow::Continue(());
                }
                found = Some(row::decode_chunk(row_key, &row));
                ControlFlow::Break(())
            })?;
        }
        found.transpose().map_err(|why| damaged(&why))
    }

    /// Of these chunks, those whose bytes nobody here needs: durably, no state names them. `None` while this replica is
    /// no full member, since what it is still to copy may name any of them.
    ///
    /// # Errors
    /// As [`Replica::is_chunk_named`].
    pub fn unnamed_chunks(&mut self, chunks: Vec<ChunkId>) -> Result<Option<Vec<ChunkId>>, StoreError> {
        // What is gone in memory only would be there again after a power cut.
        self.flush()?;
        if self.stage() != Stage::Member {
            return Ok(None);
        }
        let mut unnamed = Vec::new();
        for chunk in chunks {
            if !self.is_chunk_named(&chunk)? {
                unnamed.push(chunk);
            }
        }
        Ok(Some(unnamed))
    }

    /// The state under this row key changes from one body to another: stages what that changes in the index.
    pub(super) fn chunks_renamed(&mut self, state_key: &[u8], old: Option<&Body>, new: Option<&Body>) {
        let (old, new) = (named(old), named(new));
        for (chunk, chunk_bytes) in &old {
            if new.get(chunk) == Some(chunk_bytes) {
                continue;
            }
            let row_key = keys::chunk(chunk, state_key);
            if let Some(walk) = &mut self.walk {
                walk.chunk_changed(state_key, &row_key, *chunk_bytes, false);
            }
            if !planted!(ChunkRowStays) {
                self.staged.insert(row_key, None);
            }
            if self.let_go.len() < MAX_CHUNKS_TOLD {
                self.let_go.insert(*chunk);
            }
        }
        for (chunk, chunk_bytes) in &new {
            if old.get(chunk) == Some(chunk_bytes) {
                continue;
            }
            let row_key = keys::chunk(chunk, state_key);
            if let Some(walk) = &mut self.walk {
                walk.chunk_changed(state_key, &row_key, *chunk_bytes, true);
            }
            let row = row::encode_chunk(&row_key, *chunk_bytes);
            self.staged.insert(row_key, Some(row));
        }
    }

    /// After a flush: tells of the chunks that have lost their last name with it.
    pub(super) fn release_chunks(&mut self) -> Result<(), StoreError> {
        let mut released = Vec::new();
        for chunk in std::mem::take(&mut self.let_go) {
            if !self.is_chunk_named(&chunk)? {
                released.push(chunk);
            }
        }
        if !released.is_empty() {
            self.emit(Event::ChunksReleased(released));
        }
        Ok(())
    }

    /// Makes the index anew from the states. One that is cut short does not fit either, and is made anew at the next open.
    pub(super) fn rebuild_chunk_index(&mut self) -> Result<(), StoreError> {
        loop {
            let stale = self.first_chunk_rows()?;
            if stale.is_empty() {
                break;
            }
            self.staged.extend(stale.into_iter().map(|row_key| (row_key, None)));
            self.commit()?;
        }
        let mut from = Some(vec![keys::RETURNED]);
        while let Some(cursor) = from {
            let (rows, next) = self.chunk_rows_of_states(&cursor)?;
            self.staged.extend(rows.into_iter().map(|(row_key, row)| (row_key, Some(row))));
            self.commit()?;
            from = next;
        }
        self.flush()
    }

    /// The keys of the first rows of the index.
    fn first_chunk_rows(&self) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let mut rows = BTreeSet::new();
        self.store.scan(&[keys::CHUNK], &mut |row_key, _| {
            if row_key.first() != Some(&keys::CHUNK) || rows.len() == MAX_BATCH_ROWS {
                return ControlFlow::Break(());
            }
            rows.insert(row_key.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// The rows that a batch of states should have, from this row key on, and where to go on.
    fn chunk_rows_of_states(&self, from: &[u8]) -> Result<(NewRows, Option<Vec<u8>>), StoreError> {
        let (mut rows, mut next, mut fault) = (NewRows::new(), None, None);
        self.store.scan(from, &mut |row_key, row| {
            let body = match row_key.first() {
                Some(&keys::RETURNED) => row::decode_returned(row_key, &row).map(|state| state.entry.body),
                Some(&keys::CONFLICT) => decode_conflict(row_key, &row).map(|conflict| conflict.lost.body),
                Some(&keys::ENTRY) => row::decode_entry(row_key, &row)
                    .and_then(|row| entry_of_row(&self.origins, row))
                    .map(|entry| entry.body),
                Some(&keys::VEIL) => {
                    veil::shown_body(row_key, &row).map(|shown| shown.unwrap_or(Body::Tombstone))
                }
                Some(family) if *family < keys::VEIL => {
                    next = Some(vec![keys::VEIL]);
                    return ControlFlow::Break(());
                }
                _ => return ControlFlow::Break(()),
            };
            if rows.len() >= MAX_BATCH_ROWS {
                next = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            match body {
                Ok(body) => {
                    for (chunk, chunk_bytes) in named(Some(&body)) {
                        let row_key = keys::chunk(&chunk, row_key);
                        let row = row::encode_chunk(&row_key, chunk_bytes);
                        rows.insert(row_key, row);
                    }
                    ControlFlow::Continue(())
                }
                Err(why) => {
                    fault = Some(damaged(&why));
                    ControlFlow::Break(())
                }
            }
        })?;
        fault.map_or(Ok((rows, next)), Err)
    }
}

fn damaged(why: &Malformed) -> StoreError {
    StoreError::new(format!("a row that names chunks is damaged: {why}"))
}

#[cfg(test)]
mod tests;
