//! Verification: recomputes the digest and the counts of a store from its rows, while it serves and takes writes.
//!
//! The store is walked in slices, in the order of its keys, and each row is checked and added to a shadow tree. A
//! change to a row that the walk has passed changes the shadow too; one to a row that is still to come is met by
//! the walk. So at the end shadow and replica have seen the same changes, and must be equal to the last bit: what
//! differs was lost or changed behind the replica's back. It mends nothing, and leaves the verdict to the driver.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::chunk_index::ChunkRows;
use super::usage::Usages;
use super::{Event, Replica, entry_of_row};
use crate::clock::{Hlc, Now};
use crate::codec::{Malformed, conflict, row, veil};
use crate::digest::{Digest, DigestKey, DigestTree, NameHash};
use crate::entry::{Body, EntryId, Kind};
use crate::keys;
use crate::store::{Store, StoreError};

/// Rows looked at in one slice.
const SLICE_ROWS: usize = 256;

/// A slice ends after the row with which it has read so many bytes.
const SLICE_BYTES: u64 = 1 << 20;

/// The time from one slice to the next, in microseconds: writes go between.
const SLICE_EVERY_US: u64 = 2_000;

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A row fails its check. The walk ends there: nothing of such a store may be trusted.
    Damaged {
        /// Its key, escaped.
        row: String,
        /// What is wrong.
        reason: String,
    },
    /// There are more or fewer entry rows than the replica has put there.
    Entries {
        /// Found by the walk.
        found: u64,
        /// By the replica's books.
        expected: u64,
    },
    /// As [`Mismatch::Entries`], of log rows.
    LogRows {
        /// Found by the walk.
        found: u64,
        /// By the replica's books.
        expected: u64,
    },
    /// As [`Mismatch::Entries`], of values in the ledger of conflicts.
    Conflicts {
        /// Found by the walk.
        found: u64,
        /// By the replica's books.
        expected: u64,
    },
    /// The entries are not those that the replica has put there.
    Root {
        /// Of the rows.
        found: Digest,
        /// By the replica's books.
        expected: Digest,
    },
    /// The root is right, but the counts by leaf or the sketch are not those of the entries.
    Tree,
    /// What namespaces are said to have is not what their entries add up to.
    Usage,
    /// The chunk index is not what the states say.
    ChunkIndex {
        /// Rows of the index.
        found: u64,
        /// That there should be.
        expected: u64,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { row, reason } => write!(f, "the row {row} is damaged: {reason}"),
            Self::Entries { found, expected } => {
                write!(f, "there are {found} entries, and {expected} were written")
            }
            Self::LogRows { found, expected } => {
                write!(f, "there are {found} log rows, and {expected} were written")
            }
            Self::Conflicts { found, expected } => {
                write!(f, "there are {found} conflicts in the ledger, and {expected} were noted")
            }
            Self::Root { found, expected } => {
                write!(f, "the entries have the root {found}, and those written have {expected}")
            }
            Self::Tree => f.write_str("the counts or the sketch kept of the entries are not theirs"),
            Self::Usage => {
                f.write_str("the keys and bytes counted for namespaces are not those of the entries")
            }
            Self::ChunkIndex { found, expected } => {
                write!(f, "the chunk index has {found} rows that are not the {expected} that the values say")
            }
        }
    }
}

/// What a verification has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// How long it took.
    pub took_us: u64,
    /// Entry rows at its end.
    pub entries: u64,
    /// Log rows at its end.
    pub log_rows: u64,
    /// Bytes of the rows that the walk has read, keys included.
    pub bytes: u64,
    /// The digest of the entries at its end, made from the rows.
    pub root: Digest,
    /// What does not fit; empty where everything does.
    pub mismatches: Vec<Mismatch>,
}

impl Verified {
    /// Whether a row was damaged, so that the store must not be served.
    pub fn is_damaged(&self) -> bool {
        self.mismatches.iter().any(|mismatch| matches!(mismatch, Mismatch::Damaged { .. }))
    }
}

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifying {
    /// When it began, in Unix milliseconds.
    pub began_ms: u64,
    /// Rows checked.
    pub done: u64,
    /// Rows there are.
    pub total: u64,
}

/// A walk over the rows, and what it has found.
pub(super) struct Walk {
    began: Now,
    /// The walk has seen the rows below this key.
    cursor: Vec<u8>,
    tree: DigestTree,
    entries: u64,
    log_rows: u64,
    conflicts: u64,
    usages: Usages,
    /// The rows of the chunk index, and what they should be.
    listed: ChunkRows,
    named: ChunkRows,
    bytes: u64,
    /// Changes of documents that may be folded together.
    held_by_all: Vec<(EntryId, Hlc)>,
    due_us: u64,
}

impl Walk {
    /// When its next slice is due.
    pub(super) fn due_us(&self) -> u64 {
        self.due_us
    }

    /// An entry's row has changed. What the walk has still to see it takes as it will be then.
    pub(super) fn entry_changed(
        &mut self,
        row_key: &[u8],
        name: NameHash,
        old: Option<Digest>,
        new: Option<Digest>,
    ) {
        if row_key < self.cursor.as_slice() {
            self.tree.replace(name, old, new);
            self.entries = step(self.entries, old.is_some(), new.is_some());
        }
    }

    /// What an entry counts has changed.
    pub(super) fn usage_changed(
        &mut self,
        row_key: &[u8],
        id: &EntryId,
        old: Option<&Body>,
        new: Option<&Body>,
    ) {
        if row_key < self.cursor.as_slice() {
            self.usages.change(id, old, new);
        }
    }

    /// A log row has come or gone.
    pub(super) fn log_changed(&mut self, row_key: &[u8], was_there: bool, is_there: bool) {
        if row_key < self.cursor.as_slice() {
            self.log_rows = step(self.log_rows, was_there, is_there);
        }
    }

    /// A value has come into the ledger of conflicts, or gone from it.
    pub(super) fn conflict_changed(&mut self, row_key: &[u8], was_there: bool, is_there: bool) {
        if row_key < self.cursor.as_slice() {
            self.conflicts = step(self.conflicts, was_there, is_there);
        }
    }

    /// A row of the chunk index has come, or gone, along with what says so in this state.
    pub(super) fn chunk_changed(
        &mut self,
        state_key: &[u8],
        row_key: &[u8],
        chunk_bytes: u64,
        has_come: bool,
    ) {
        let cursor = self.cursor.as_slice();
        let sums = [(state_key, &mut self.named), (row_key, &mut self.listed)];
        for (_, sum) in sums.into_iter().filter(|(key, _)| *key < cursor) {
            if has_come { sum.add(row_key, chunk_bytes) } else { sum.remove(row_key, chunk_bytes) }
        }
    }

    /// Checks a row and adds it to the shadow.
    fn see<S: Store>(&mut self, replica: &Replica<S>, row_key: &[u8], row: &Bytes) -> Result<(), Malformed> {
        self.bytes += (row_key.len() + row.len()) as u64;
        if row_key.first() == Some(&keys::ENTRY) {
            let foreign = || Malformed::Form("a foreign row key".into());
            let id = keys::parse_entry(row_key).ok_or_else(foreign)?;
            let entry = entry_of_row(&replica.origins, row::decode_entry(row_key, row)?)?;
            let key = &replica.settings.digest_key;
            let name = key.name_hash(&id);
            self.tree.replace(name, None, Some(key.state_digest(name, &entry)));
            self.entries += 1;
            self.usages.change(&id, None, Some(&entry.body));
            self.named.add_all(row_key, &entry.body);
            if id.kind == Kind::Doc && entry.dot.hlc <= replica.epoch {
                self.held_by_all.push((id, entry.dot.hlc));
            }
        } else if row_key.first() == Some(&keys::CHUNK) {
            self.listed.add(row_key, row::decode_chunk(row_key, row)?);
        } else if row_key.first() == Some(&keys::RETURNED) {
            self.named.add_all(row_key, &row::decode_returned(row_key, row)?.entry.body);
        } else if row_key.first() == Some(&keys::VEIL) {
            if let Some(body) = veil::shown_body(row_key, row)? {
                self.named.add_all(row_key, &body);
            }
        } else if row_key.first() == Some(&keys::CONFLICT) {
            self.named.add_all(row_key, &conflict::decode_conflict(row_key, row)?.lost.body);
            self.conflicts += 1;
        } else if row_key.first() == Some(&keys::CONFLICT_AGE) {
            conflict::decode_conflict_age(row_key, row)?;
        } else if row_key.first() == Some(&keys::LOG) {
            row::decode_log(row_key, Hlc::ZERO, row)?;
            self.log_rows += 1;
        }
        Ok(())
    }
}

fn step(count: u64, was_there: bool, is_there: bool) -> u64 {
    (count + u64::from(is_there)).saturating_sub(u64::from(was_there))
}

impl<S: Store> Replica<S> {
    /// Begins a verification, which goes on in [`Replica::handle_timeout`] and ends with [`Event::Verified`].
    /// Gives whether it did: not while one runs.
    ///
    /// # Errors
    /// When the store has failed, so that nothing goes on.
    pub fn verify(&mut self, now: Now) -> Result<bool, StoreError> {
        self.check_usable()?;
        if self.walk.is_some() {
            return Ok(false);
        }
        self.walk = Some(Walk {
            began: now,
            cursor: vec![keys::CHUNK],
            tree: DigestTree::default(),
            entries: 0,
            log_rows: 0,
            conflicts: 0,
            usages: Usages::default(),
            listed: ChunkRows::default(),
            named: ChunkRows::default(),
            bytes: 0,
            held_by_all: Vec::new(),
            due_us: now.mono_us,
        });
        Ok(true)
    }

    /// The key of the cluster's digests.
    pub fn digest_key(&self) -> DigestKey {
        self.settings.digest_key
    }

    /// How far the running verification has come.
    pub fn verifying(&self) -> Option<Verifying> {
        let walk = self.walk.as_ref()?;
        Some(Verifying {
            began_ms: walk.began.wall_ms,
            done: walk.entries + walk.log_rows,
            total: self.entries + self.log_rows,
        })
    }

    /// Walks a slice of the rows.
    pub(super) fn verify_slice(&mut self, now: Now) -> Result<(), StoreError> {
        // It sees committed rows only, and the books count staged ones too.
        if !self.staged.is_empty() || self.walk.as_ref().is_none_or(|walk| walk.due_us > now.mono_us) {
            return Ok(());
        }
        let Some(mut walk) = self.walk.take() else { return Ok(()) };
        walk.due_us = now.mono_us + SLICE_EVERY_US;
        let from = std::mem::take(&mut walk.cursor);
        let (mut rows, enough_bytes) = (0, walk.bytes + SLICE_BYTES);
        let mut damaged = None;
        self.store.scan(&from, &mut |row_key, row| {
            if row_key.first().is_none_or(|family| *family > keys::LOG) {
                return ControlFlow::Break(());
            }
            if rows == SLICE_ROWS || walk.bytes >= enough_bytes {
                walk.cursor = row_key.to_vec();
                return ControlFlow::Break(());
            }
            rows += 1;
            match walk.see(self, row_key, &row) {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    let row = row_key.escape_ascii().to_string();
                    damaged = Some(Mismatch::Damaged { row, reason: why.to_string() });
                    ControlFlow::Break(())
                }
            }
        })?;
        for (id, hlc) in walk.held_by_all.drain(..) {
            self.foldable.note(&id, hlc, self.settings.fold_from);
        }
        if damaged.is_none() && !walk.cursor.is_empty() {
            self.walk = Some(walk);
        } else {
            let mismatches = damaged.map_or_else(|| self.mismatches(&walk), |damaged| vec![damaged]);
            self.emit(Event::Verified(Box::new(Verified {
                began_ms: walk.began.wall_ms,
                took_us: now.mono_us.saturating_sub(walk.began.mono_us),
                entries: walk.entries,
                log_rows: walk.log_rows,
                bytes: walk.bytes,
                root: walk.tree.root(),
                mismatches,
            })));
        }
        Ok(())
    }

    /// How the rows differ from the books, now that the walk has seen them all.
    fn mismatches(&self, walk: &Walk) -> Vec<Mismatch> {
        let (root, expected) = (walk.tree.root(), self.tree.root());
        let entries = Mismatch::Entries { found: walk.entries, expected: self.entries };
        let log_rows = Mismatch::LogRows { found: walk.log_rows, expected: self.log_rows };
        let conflicts = Mismatch::Conflicts { found: walk.conflicts, expected: self.ledger.kept().rows };
        let root_differs = Mismatch::Root { found: root, expected };
        let index_differs = Mismatch::ChunkIndex { found: walk.listed.rows(), expected: walk.named.rows() };
        [
            (walk.entries != self.entries, entries),
            (walk.log_rows != self.log_rows, log_rows),
            (walk.conflicts != self.ledger.kept().rows, conflicts),
            (root != expected, root_differs),
            (root == expected && walk.tree != self.tree, Mismatch::Tree),
            (root == expected && walk.usages != self.usages, Mismatch::Usage),
            (walk.listed != walk.named, index_differs),
        ]
        .into_iter()
        .filter_map(|(differs, mismatch)| differs.then_some(mismatch))
        .collect()
    }
}

#[cfg(test)]
mod tests;
