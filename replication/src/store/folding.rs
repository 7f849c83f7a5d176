//! A store that keeps the changes of documents folded together: what took hundreds of bytes for each edit takes some tens.
//!
//! Everybody who reads it finds each change in a row of its own, under its own key, as it was written, in the same order: so
//! digests, repair, copies, deletes and quotas know nothing of folds, and two replicas of which one has folded more are
//! equal. A row under the key itself stands before what is folded: what is written anew there simply lies over it.
//!
//! The rule this file upholds: changes go from rows of their own into a fold, in one batch, and never back. So whoever reads
//! those rows first and the folds after that, while a batch is committed, finds every change, and none twice.

#![expect(clippy::disallowed_types, reason = "a store is read on other threads than its replica's")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Folded, Store, StoreError, Visit};
use crate::clock::{Dot, ReplicaId};
use crate::codec::Malformed;
use crate::codec::fold::{self, Fold, FoldBuilder, FoldedChange, MAX_FOLDED_CHANGE_BYTES, Mark};
use crate::codec::row::{self, EntryRow};
use crate::doc;
use crate::entry::{Body, Entry};
use crate::keys;
use crate::kinds::{Content, Element, PartState};

/// Fewer changes are not worth a fold.
const MIN_FOLDED: usize = 2;
/// Of so many documents it is known what is in their folds, without reading those again.
const MAX_KNOWN_DOCUMENTS: usize = 256;

/// A row's key, and the row.
type Row = (Vec<u8>, Bytes);

/// A store over another, which has the folds in rows of their own ([`keys::FOLD`]).
#[derive(Debug, Default)]
pub struct Folding<S> {
    rows: S,
    known: Arc<Known>,
}

/// What was found out about folds.
#[derive(Debug, Default)]
struct Known {
    /// The document that was unfolded last: who reads a large one in slices does so once.
    last: Mutex<Option<Arc<Unfolded>>>,
    /// What is in folds of some documents, by their heads. Whoever puts a change asks whether it is there already, and mostly
    /// it is not.
    marks: Mutex<BTreeMap<Vec<u8>, Marks>>,
    /// How often folds have begun to change, and have changed: it is odd while they do.
    changes: AtomicU64,
}

/// The marks of all that is in the folds of a document.
#[derive(Debug)]
struct Marks {
    /// In order.
    marks: Vec<Mark>,
    /// As of so many changes of folds.
    changes: u64,
}

impl Marks {
    fn may_have(&self, element: &[u8]) -> bool {
        self.marks.binary_search(&fold::mark(element)).is_ok()
    }
}

/// The folds of a document, and the rows that were in them.
#[derive(Debug)]
struct Unfolded {
    folds: Vec<Row>,
    rows: Vec<Row>,
}

impl<S> Folding<S> {
    /// Folds what is in this store.
    pub fn new(rows: S) -> Self {
        Self { rows, known: Arc::default() }
    }

    /// The store beneath, folds and all.
    pub fn beneath(&self) -> &S {
        &self.rows
    }

    /// The store beneath, for a driver that simulates its failures.
    pub fn beneath_mut(&mut self) -> &mut S {
        self.known = Arc::default();
        &mut self.rows
    }

    /// Another handle on a store whose clones are that store.
    pub fn handle(&self) -> Self
    where
        S: Clone,
    {
        Self { rows: self.rows.clone(), known: self.known.clone() }
    }
}

impl<S: Store> Folding<S> {
    /// The folds of the document with this head.
    fn folds(&self, head: &[u8]) -> Result<Vec<Row>, StoreError> {
        let prefix = keys::fold(head);
        let mut folds = Vec::new();
        self.rows.scan(&prefix, &mut |fold_key, row| {
            if !fold_key.starts_with(&prefix) {
                return ControlFlow::Break(());
            }
            folds.push((fold_key.to_vec(), row));
            ControlFlow::Continue(())
        })?;
        Ok(folds)
    }

    /// Whether this element of the document with this head may be in a fold.
    fn may_be_folded(&self, head: &[u8], element: &[u8]) -> Result<bool, StoreError> {
        let changes = self.known.changes.load(Ordering::SeqCst);
        if let Some(known) = lock(&self.known.marks).get(head).filter(|known| known.changes == changes) {
            return Ok(known.may_have(element));
        }
        let mut marks = Vec::new();
        for (fold_key, row) in self.folds(head)? {
            let fold = Fold::read(&fold_key, &row).map_err(|why| damaged(&why))?;
            marks.extend(fold.marks().map(|(_, mark)| mark));
        }
        marks.sort_unstable();
        let found = Marks { marks, changes };
        let may_have = found.may_have(element);
        // What was read while they change is of both.
        if changes.is_multiple_of(2) && changes == self.known.changes.load(Ordering::SeqCst) {
            let mut known = lock(&self.known.marks);
            if known.len() >= MAX_KNOWN_DOCUMENTS {
                known.clear();
            }
            known.insert(head.to_vec(), found);
        }
        Ok(may_have)
    }

    /// Commits a batch that changes folds.
    fn commit_folds(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.known.changes.fetch_add(1, Ordering::SeqCst);
        let committed = self.rows.commit(batch);
        self.known.changes.fetch_add(1, Ordering::SeqCst);
        committed
    }

    /// The head of the first document from this row key on that has folds.
    fn next_folded(&self, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.rows.scan(&keys::fold(from), &mut |fold_key, _| {
            let entry_key = fold_key.strip_prefix(&[keys::FOLD]);
            found = entry_key.and_then(keys::split_document).map(|(head, _)| head.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The row under this key of the document with this head, as far as it is in these folds.
    fn folded(&self, (head, element): (&[u8], &[u8])) -> Result<Option<Bytes>, StoreError> {
        for (fold_key, row) in self.folds(head)? {
            let fold = Fold::read(&fold_key, &row).map_err(|why| damaged(&why))?;
            if let Some(folded) = place_of(&fold, element)?.map(|(_, folded)| folded) {
                return Ok(Some(unfolded_row(head, folded).1));
            }
        }
        Ok(None)
    }

    /// All rows that are in these folds of one document, in the order of their keys.
    fn unfolded(&self, head: &[u8], folds: Vec<Row>) -> Result<Arc<Unfolded>, StoreError> {
        let mut last = lock(&self.known.last);
        if let Some(last) = last.as_ref().filter(|last| last.folds == folds) {
            return Ok(last.clone());
        }
        let mut rows = Vec::new();
        for (fold_key, row) in &folds {
            let fold = Fold::read(fold_key, row).map_err(|why| damaged(&why))?;
            let all = fold.unfold().map_err(|why| damaged(&why))?.into_iter().enumerate();
            rows.extend(
                all.filter(|(at, _)| !fold.is_gone(*at)).map(|(_, folded)| unfolded_row(head, folded)),
            );
        }
        rows.sort_unstable();
        let unfolded = Arc::new(Unfolded { folds, rows });
        *last = Some(unfolded.clone());
        Ok(unfolded)
    }

    /// Adds to the batch that these elements are in no fold any more.
    fn leave_folds(&self, head: &[u8], elements: &[&[u8]], batch: &mut Batch) -> Result<(), StoreError> {
        for (fold_key, row) in self.folds(head)? {
            let fold = Fold::read(&fold_key, &row).map_err(|why| damaged(&why))?;
            let mut places = Vec::new();
            for element in elements {
                places.extend(place_of(&fold, element)?.map(|(at, _)| at));
            }
            if !places.is_empty() {
                let left = fold.without(&fold_key, &places);
                batch.insert(fold_key, left);
            }
        }
        Ok(())
    }
}

/// Where this element is in a fold, and with what.
fn place_of(fold: &Fold<'_>, element: &[u8]) -> Result<Option<(usize, FoldedChange)>, StoreError> {
    let wanted = fold::mark(element);
    let mut places = fold.marks().filter(|(_, mark)| *mark == wanted).map(|(at, _)| at).peekable();
    if places.peek().is_none() {
        return Ok(None);
    }
    // Whoever makes changes can make two whose names end alike.
    let mut all = fold.unfold().map_err(|why| damaged(&why))?;
    let found = places.find(|at| doc::element_of(&all[*at].change) == element);
    Ok(found.map(|at| (at, all.swap_remove(at))))
}

fn lock<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves what is compared before it is used.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(why: &Malformed) -> StoreError {
    StoreError::new(format!("a fold of a document's changes is damaged ({why}); rebuild this node"))
}

/// A folded change in the row of its own that it was in.
fn unfolded_row(head: &[u8], folded: FoldedChange) -> Row {
    let row_key = [head, &doc::element_of(&folded.change)].concat();
    let dot = Dot { hlc: folded.hlc, replica: ReplicaId::SENDER };
    let put = Element::put(None, dot, Content { bytes: folded.change, expires_at_s: None });
    let entry = Entry::first(dot, Body::Element(put));
    let row = EntryRow::of(folded.origin_index, entry);
    let row = row::encode_entry(&row_key, &row);
    (row_key, row.into())
}

/// What a fold keeps of a row; `None` where it would not come out as it is.
fn to_fold(head: &[u8], row_key: &[u8], row: &Bytes) -> Option<FoldedChange> {
    let EntryRow { origin_index, hlc, body: Body::Element(element), .. } =
        row::decode_entry(row_key, row).ok()?
    else {
        return None;
    };
    let (_, part) = element.parts.into_iter().next()?;
    let PartState::Alive(Content { bytes, .. }) = part.state else { return None };
    if bytes.len() > MAX_FOLDED_CHANGE_BYTES {
        return None;
    }
    let folded = FoldedChange { origin_index, hlc, change: bytes };
    (unfolded_row(head, folded.clone()) == (row_key.to_vec(), row.clone())).then_some(folded)
}

impl<S: Store> Store for Folding<S> {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match (self.rows.read(key)?, keys::split_document(key)) {
            (None, Some((head, element))) if !element.is_empty() && self.may_be_folded(head, element)? => {
                self.folded((head, element))
            }
            (row, _) => Ok(row),
        }
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut walk = Walk::new(self, from, visit);
        let mut fault = None;
        self.rows.scan(from, &mut |row_key, row| match walk.meet(row_key, row) {
            Ok(flow) => flow,
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })?;
        fault.map_or(Ok(()), Err)?;
        walk.end()
    }

    fn commit(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        let mut removed: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
        for row_key in batch.iter().filter(|(_, row)| row.is_none()).map(|(row_key, _)| row_key) {
            if let Some((head, element)) =
                keys::split_document(row_key).filter(|_| !planted!(FoldKeepsRemoved))
            {
                removed.entry(head).or_default().push(element);
            }
        }
        let mut left = Batch::new();
        for (head, elements) in removed {
            self.leave_folds(head, &elements, &mut left)?;
        }
        if left.is_empty() {
            return self.rows.commit(batch);
        }
        batch.append(&mut left);
        self.commit_folds(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.rows.flush()
    }

    fn fold(&mut self, document: &[u8], elements: &[Bytes]) -> Result<Folded, StoreError> {
        let (mut fold, mut folded, mut seen) = (FoldBuilder::default(), Vec::new(), elements.len());
        let mut taken = BTreeSet::new();
        for (at, element) in elements.iter().enumerate() {
            // Two replicas may have put one change, at two times; in a fold twice, it would outlive its removal.
            if !taken.insert(element) {
                continue;
            }
            let row_key = [document, element].concat();
            let Some(row) = self.rows.read(&row_key)? else { continue };
            let Some(change) = to_fold(document, &row_key, &row) else { continue };
            if !fold.add(element, &change) {
                seen = at;
                break;
            }
            folded.push((row_key, row));
        }
        let nothing = Folded { seen, kept: 0 };
        let Some((first, _)) = folded.first().filter(|_| folded.len() >= MIN_FOLDED) else {
            return Ok(nothing);
        };
        let mut fold_key = keys::fold(first);
        // An older fold may begin with it, too.
        while self.rows.read(&fold_key)?.is_some() {
            fold_key.push(0);
        }
        let row = Bytes::from(fold.finish(&fold_key));
        // Nothing is given up before it is seen to come back.
        let unfolded = Fold::read(&fold_key, &row).and_then(|fold| fold.unfold()).unwrap_or_default();
        if !unfolded.into_iter().map(|change| unfolded_row(document, change)).eq(folded.iter().cloned()) {
            return Ok(nothing);
        }
        let mut batch = Batch::new();
        // Where one was folded before, what lay over it takes its place.
        let elements: Vec<&[u8]> = folded.iter().map(|(row_key, _)| &row_key[document.len()..]).collect();
        self.leave_folds(document, &elements, &mut batch)?;
        batch.insert(fold_key, Some(row.to_vec()));
        batch.extend(folded.iter().map(|(row_key, _)| (row_key.clone(), None)));
        self.commit_folds(batch)?;
        Ok(Folded { seen, kept: folded.len() })
    }
}

/// A scan: the rows of each document are gathered, and after that its folds are read.
struct Walk<'a, 'v, S> {
    store: &'a Folding<S>,
    visit: &'a mut Visit<'v>,
    from: &'a [u8],
    /// The head of a document, and what was met of its rows.
    document: Option<(Vec<u8>, Vec<Row>)>,
    /// FoldedChange documents before this were visited.
    passed: Vec<u8>,
    /// The last key that was met.
    last: Vec<u8>,
    is_over: bool,
}

impl<'a, 'v, S: Store> Walk<'a, 'v, S> {
    fn new(store: &'a Folding<S>, from: &'a [u8], visit: &'a mut Visit<'v>) -> Self {
        let head = keys::split_document(from).map_or(from, |(head, _)| head);
        let (passed, last) = (head.to_vec(), from.to_vec());
        Self { store, visit, from, document: None, passed, last, is_over: false }
    }

    fn meet(&mut self, row_key: &[u8], row: Bytes) -> Result<ControlFlow<()>, StoreError> {
        if row_key.first() == Some(&keys::FOLD) {
            return Ok(ControlFlow::Continue(()));
        }
        let head = keys::split_document(row_key).map(|(head, _)| head);
        match (&mut self.document, head) {
            (Some((gathering, rows)), Some(head)) if gathering == head => rows.push((row_key.to_vec(), row)),
            (_, head) => {
                self.visit_document()?;
                if keys::may_pass_documents(&self.last, row_key) {
                    self.visit_folded(Some(row_key))?;
                    self.last = row_key.to_vec();
                }
                match head {
                    _ if self.is_over => {}
                    Some(head) => self.document = Some((head.to_vec(), vec![(row_key.to_vec(), row)])),
                    None => self.is_over = (self.visit)(row_key, row).is_break(),
                }
            }
        }
        Ok(if self.is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn end(&mut self) -> Result<(), StoreError> {
        if self.is_over {
            return Ok(());
        }
        self.visit_document()?;
        if self.last.first().is_none_or(|first| *first <= keys::ENTRY) {
            self.visit_folded(None)
        } else {
            Ok(())
        }
    }

    /// Visits the documents before this key that have nothing but folds.
    fn visit_folded(&mut self, before: Option<&[u8]>) -> Result<(), StoreError> {
        while !self.is_over {
            let Some(head) = self.store.next_folded(&self.passed)? else { return Ok(()) };
            if before.is_some_and(|before| before <= &head[..] || before.starts_with(&head)) {
                return Ok(());
            }
            self.document = Some((head, Vec::new()));
            self.visit_document()?;
        }
        Ok(())
    }

    /// Visits the rows that were gathered, and between them those that are folded.
    fn visit_document(&mut self) -> Result<(), StoreError> {
        let Some((head, mut rows)) = self.document.take().filter(|_| !self.is_over) else { return Ok(()) };
        let folds = self.store.folds(&head)?;
        if !folds.is_empty() {
            let unfolded = self.store.unfolded(&head, folds)?;
            let is_here = |row_key: &[u8]| rows.binary_search_by(|(here, _)| here[..].cmp(row_key)).is_ok();
            let more =
                unfolded.rows.iter().filter(|(row_key, _)| &row_key[..] >= self.from && !is_here(row_key));
            let more: Vec<Row> = more.cloned().collect();
            rows.extend(more);
            rows.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        }
        self.passed = keys::after_prefix(&head);
        self.is_over = rows.into_iter().any(|(row_key, row)| (self.visit)(&row_key, row).is_break());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
