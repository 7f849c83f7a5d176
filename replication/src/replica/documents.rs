//! Documents that survive their deletion, and word of which documents have changed.
//!
//! The rule this file upholds: an edit that a delete has not seen can be read wherever it is held. The changes it follows on
//! went with the delete, and are dropped once everyone knows of that; so the replica that made the edit puts them again, as
//! a chunk of form [`Form::History`], while it still has them: after each turn in which it has heard of a delete or has made
//! an edit. Of what it has put so, it takes back what no edit of its own follows on any more. So a document says what its
//! standing edits say and follow on, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Change as DocChange, ChangeHash};
use bytes::Bytes;

use super::{Event, Replica, WriteError};
use crate::clock::{Now, ReplicaId};
use crate::codec::message::Stage;
use crate::doc::{self, Chunk, Form};
use crate::entry::{Body, Entry, EntryId, Kind, NamespaceId};
use crate::kinds::{Change, Head};
use crate::store::{Store, StoreError};

/// The most changed elements of documents that are told of until they are taken.
const MAX_CHANGED_ELEMENTS: usize = 16_384;

/// How long it is waited after a document could not be mended.
const AGAIN_AFTER_US: u64 = 1_000_000;

/// Which elements of documents have changed since that was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedDocuments {
    /// Their heads and elements.
    pub ids: BTreeSet<EntryId>,
    /// Whether there were more: any document may have changed.
    pub is_cut: bool,
}

/// What is to be done about documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    changed: ChangedDocuments,
    /// Deletes and edits have met here, maybe; and whether histories were put again, which stand where no delete is told
    /// of any more.
    due: BTreeMap<(NamespaceId, Bytes), bool>,
    /// When to look at them, after one could not be mended.
    again_us: u64,
    /// Those of which a delete is told that is not claimed yet.
    ahead: BTreeMap<(NamespaceId, Bytes), bool>,
}

impl Documents {
    /// When the next is to be mended.
    pub(super) fn due_us(&self) -> Option<u64> {
        (!self.due.is_empty()).then_some(self.again_us)
    }

    /// Takes note that a claim has risen.
    pub(super) fn claimed(&mut self) {
        for (document, has_history) in std::mem::take(&mut self.ahead) {
            *self.due.entry(document).or_default() |= has_history;
        }
    }

    /// Takes note of a state that opening has found. An edit needs to be looked at only where a delete is told of, and
    /// that is then a cause itself.
    pub(super) fn found(&mut self, me: ReplicaId, id: &EntryId, entry: &Entry) {
        if id.kind == Kind::Doc && doc::form_of(&id.element) != Some(Form::Change) {
            self.consider(me, id, entry);
        }
    }

    fn consider(&mut self, me: ReplicaId, id: &EntryId, entry: &Entry) {
        let is_cause = match &entry.body {
            Body::Head(head) => !head.clears.is_empty(),
            _ => entry.dot.replica == me,
        };
        if is_cause {
            let is_history = doc::form_of(&id.element) == Some(Form::History);
            *self.due.entry((id.namespace, id.key.clone())).or_default() |= is_history;
        }
    }

    /// Takes note of a state that came in.
    pub(super) fn note(&mut self, me: ReplicaId, id: &EntryId, entry: &Entry) {
        if id.kind != Kind::Doc {
            return;
        }
        self.consider(me, id, entry);
        if self.changed.ids.len() < MAX_CHANGED_ELEMENTS {
            self.changed.ids.insert(id.clone());
        } else {
            self.changed.is_cut = true;
        }
    }
}

impl<S: Store> Replica<S> {
    /// Which documents have changed since this was last called. After [`Replica::flush`] the changes are durable.
    pub fn take_changed_documents(&mut self) -> ChangedDocuments {
        std::mem::take(&mut self.documents.changed)
    }

    /// When a document is to be mended next. Until all are, nothing is swept, which they may need.
    pub(super) fn documents_due_us(&self) -> Option<u64> {
        self.documents.due_us().filter(|_| self.stage() == Stage::Member)
    }

    /// Sees to one document in which a delete and an edit may have met.
    pub(super) fn mend_document(&mut self, now: Now) -> Result<(), StoreError> {
        // It looks at committed rows only, and writes.
        let is_due = self.documents_due_us().is_some_and(|due_us| due_us <= now.mono_us);
        if !is_due || self.unflushed || !self.staged.is_empty() {
            return Ok(());
        }
        let Some(((namespace, key), has_history)) = self.documents.due.pop_first() else { return Ok(()) };
        let whole = EntryId::whole(namespace, Kind::Doc, key.clone());
        let head = match self.entry(&whole)?.map(|entry| entry.body) {
            Some(Body::Head(head)) => head,
            _ => Head::default(),
        };
        // Most have never been deleted.
        if head.clears.is_empty() && !has_history {
            return Ok(());
        }
        if !head.clears.keys().all(|by| self.held.covers(*by)) {
            self.documents.ahead.insert((namespace, key.clone()), has_history);
        }
        for (element, change) in self.mending(now, &whole)? {
            let id = EntryId { element, ..whole.clone() };
            let dot = match self.append_change(now, &id, change) {
                Ok(dot) => dot,
                Err(WriteError::Store(error)) => return Err(error),
                // A clock that is off, say.
                Err(_) => {
                    self.documents.due.insert((namespace, key), has_history);
                    self.documents.again_us = now.mono_us + AGAIN_AFTER_US;
                    return Ok(());
                }
            };
            let body = self.entry(&id)?.map_or(Body::Tombstone, |entry| entry.body);
            self.emit(Event::Recorded { dot, id, body });
        }
        Ok(())
    }

    /// What is to be put under the document, and removed.
    fn mending(&self, now: Now, whole: &EntryId) -> Result<Vec<(Bytes, Change)>, StoreError> {
        let chunks = doc::read(&self.store, (whole.namespace, &whole.key), now.wall_ms / 1000)?;
        let (edits, histories): (Vec<&Chunk>, Vec<&Chunk>) =
            chunks.standing.iter().partition(|chunk| chunk.form == Form::Change);
        let is_ours = |chunk: &&Chunk| chunk.dots.iter().any(|dot| dot.replica == self.id);
        let ours: Vec<DocChange> = edits.iter().copied().filter(is_ours).flat_map(changes_of).collect();
        let standing: BTreeSet<ChangeHash> =
            edits.into_iter().flat_map(changes_of).map(|edit| edit.hash()).collect();
        let all = chunks.standing.iter().chain(&chunks.deleted).flat_map(changes_of);
        let all: BTreeMap<ChangeHash, DocChange> = all.map(|change| (change.hash(), change)).collect();
        let wanted = doc::history(ours.iter().map(DocChange::hash), &all);
        let lost: BTreeSet<ChangeHash> =
            wanted.keys().copied().filter(|hash| !standing.contains(hash)).collect();
        let mut is_given = lost.is_empty();
        let mut mending = Vec::new();
        for chunk in histories.into_iter().filter(is_ours) {
            let given: BTreeSet<ChangeHash> = changes_of(chunk).iter().map(DocChange::hash).collect();
            if !is_given && lost.is_subset(&given) && given.iter().all(|hash| wanted.contains_key(hash)) {
                is_given = true;
                continue;
            }
            // By its own name: an earlier incarnation may have put it first.
            mending.extend(chunk.elements.iter().map(|element| (element.clone(), Change::Remove)));
        }
        if !is_given {
            let history = doc::assemble(doc::history(lost.into_iter(), &wanted).into_values());
            // What is larger cannot have been written: the limits of documents are below that.
            let rows = doc::history_rows(self.id, &history.save().into()).unwrap_or_default();
            mending.extend(rows.into_iter().map(|(element, content)| (element, Change::Put(content))));
        }
        Ok(mending)
    }
}

fn changes_of(chunk: &Chunk) -> Vec<DocChange> {
    doc::changes(chunk.form, &chunk.bytes)
}
