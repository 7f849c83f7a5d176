//! Which changes of documents are folded together, and when.
//!
//! A change is folded once all members hold it and its row of the log has been swept: by then there is no hurry about it
//! any more, nobody asks for it alone, and it changes only with its whole document. The changes of a document are folded in
//! the order in which they were made, so that most of what they follow on is in the same fold. What waits to be folded is
//! known in memory only: a few changes that a restart leaves in rows of their own are found by the next verification.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Replica;
use crate::clock::Hlc;
use crate::codec::fold::MAX_FOLDED;
use crate::doc::{self, Form};
use crate::entry::{EntryId, Kind, NamespaceId};
use crate::keys;
use crate::store::{Store, StoreError};

/// The most changes that are remembered, of all documents together.
const MAX_REMEMBERED: usize = 65_536;

/// The changes that may be folded.
#[derive(Debug, Default)]
pub(super) struct Foldable {
    by_document: BTreeMap<(NamespaceId, Bytes), BTreeSet<(Hlc, Bytes)>>,
    count: usize,
    /// The documents that have enough of them.
    due: BTreeSet<(NamespaceId, Bytes)>,
}

impl Foldable {
    /// Takes note of a state that all members hold. With `enough` changes a document is due.
    pub(super) fn note(&mut self, id: &EntryId, hlc: Hlc, enough: usize) {
        let is_change = id.kind == Kind::Doc && doc::form_of(&id.element) == Some(Form::Change);
        if !is_change || self.count == MAX_REMEMBERED {
            return;
        }
        let document = (id.namespace, id.key.clone());
        let changes = self.by_document.entry(document.clone()).or_default();
        self.count += usize::from(changes.insert((hlc, id.element.clone())));
        if changes.len() >= enough {
            self.due.insert(document);
        }
    }

    /// A document that is due, and the elements of its oldest changes.
    fn next(&self) -> Option<(EntryId, Vec<Bytes>)> {
        let document = self.due.first()?;
        let changes = self.by_document.get(document)?.iter().take(MAX_FOLDED);
        let whole = EntryId::whole(document.0, Kind::Doc, document.1.clone());
        Some((whole, changes.map(|(_, element)| element.clone()).collect()))
    }

    /// Forgets so many of the oldest changes of this document.
    fn forget(&mut self, whole: EntryId, count: usize, enough: usize) {
        let document = (whole.namespace, whole.key);
        let Some(changes) = self.by_document.get_mut(&document) else { return };
        for _ in 0..count {
            self.count -= usize::from(changes.pop_first().is_some());
        }
        if changes.len() < enough {
            self.due.remove(&document);
        }
        if changes.is_empty() {
            self.by_document.remove(&document);
        }
    }
}

impl<S: Store> Replica<S> {
    /// Whether there is something to fold now.
    pub(super) fn may_fold(&self) -> bool {
        self.sweep.is_none() && !self.foldable.due.is_empty()
    }

    /// Folds some changes of one document.
    pub(super) fn fold_slice(&mut self) -> Result<(), StoreError> {
        // The store folds committed rows only.
        if self.unflushed || !self.staged.is_empty() || !self.may_fold() {
            return Ok(());
        }
        let Some((whole, elements)) = self.foldable.next() else { return Ok(()) };
        let folded = self.store.fold(&keys::entry(&whole), &elements);
        self.fail_on_error(folded.as_ref().map(|_| ()).map_err(Clone::clone))?;
        let folded = folded?;
        self.unflushed |= folded.kept > 0;
        self.counters.folded += folded.kept as u64;
        // At least one, or it would go on for ever.
        self.foldable.forget(whole, folded.seen.max(1), self.settings.fold_from);
        Ok(())
    }
}
