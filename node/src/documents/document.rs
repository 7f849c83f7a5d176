//! One document in memory.
//!
//! The rule this file upholds: whatever fails leaves it as it was, except that after [`DocumentError::Broken`] it is not
//! to be used any more, but loaded anew.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ChangeHash, ReadDoc};
use replication::doc::{self, Chunk};
use serde_json::Value as Json;

use super::conflicts::{self, Conflict};
use super::history::{self, Page};
use super::pointer::Pointer;
use super::read::Reader;
use super::tree::Tree;
use super::write::Writer;
use super::{DocumentError, Limits, MAX_DEPTH, Patch, changes, merge};

/// A document, and about how large it is stored.
#[derive(Clone)]
pub(crate) struct Document {
    doc: Automerge,
    stored_bytes: u64,
    is_whole: bool,
}

/// What is to become of a document.
#[derive(Debug)]
pub(crate) enum Edit<'a> {
    /// It is this.
    Put(&'a Json),
    /// A merge patch.
    Merge(&'a Json),
    /// A JSON patch.
    Patch(&'a Patch),
}

impl Document {
    /// The document of these chunks, for edits by this actor, who has never made any.
    pub(crate) fn load(chunks: &[Chunk], actor: &[u8]) -> Result<Self, DocumentError> {
        guarded(|| {
            let changes: BTreeMap<_, _> = chunks
                .iter()
                .flat_map(|chunk| doc::changes(chunk.form, &chunk.bytes))
                .map(|change| (change.hash(), change))
                .collect();
            let given = changes.len() as u64;
            let mut doc = doc::assemble(changes.into_values());
            let is_whole = doc.stats().num_changes == given;
            doc.set_actor(ActorId::from(actor));
            let stored_bytes = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
            Ok(Self { doc, stored_bytes, is_whole })
        })
    }

    /// Takes in chunks that were stored meanwhile. Where it fails, or not [`Document::is_whole`], it is to be loaded anew.
    pub(crate) fn absorb(&mut self, chunks: &[Chunk]) -> Result<(), DocumentError> {
        guarded(|| {
            let changes = chunks.iter().flat_map(|chunk| doc::changes(chunk.form, &chunk.bytes));
            // What breaks the rules is sorted out by loading all anew.
            Ok(self.doc.apply_changes(changes.collect::<Vec<_>>())?)
        })?;
        self.stored_bytes += chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Whether all that was stored is in it. What follows on changes that are still to come is not.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The latest changes, sorted: they name what the document is.
    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        self.doc.get_heads()
    }

    /// Whether nobody has ever changed it.
    pub(crate) fn is_new(&self) -> bool {
        self.doc.get_heads().is_empty()
    }

    /// About how many bytes of memory it takes: what is measured of automerge, an operation takes 20 to 60 bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        const BASE_BYTES: u64 = 4 << 10;
        const OP_BYTES: u64 = 64;
        BASE_BYTES + 2 * self.stored_bytes + OP_BYTES * self.doc.stats().num_ops
    }

    /// The document, or what a pointer leads to, now or at some heads.
    pub(crate) fn json(&self, path: &str, heads: Option<&[ChangeHash]>) -> Result<Json, DocumentError> {
        guarded(|| {
            let path = Pointer::parse(path)?;
            changes::check_heads(&self.doc, heads.unwrap_or_default())?;
            let (value, id, depth) = path.value(&self.doc, heads)?;
            Ok(Reader::new(heads).tree(&self.doc, value, &id, depth)?.to_json())
        })
    }

    /// All values that were written at once where a pointer leads.
    pub(crate) fn conflicts(&self, path: &str) -> Result<Vec<Conflict>, DocumentError> {
        guarded(|| conflicts::at(&self.doc, &Pointer::parse(path)?))
    }

    /// Some of the changes it was made by.
    pub(crate) fn history(&self, after: Option<ChangeHash>, limit: usize) -> Result<Page, DocumentError> {
        guarded(|| history::page(&self.doc, after, limit))
    }

    /// The raw changes that whoever has these heads does not have, one after the other.
    pub(crate) fn changes_since(&self, heads: &[ChangeHash]) -> Result<Vec<u8>, DocumentError> {
        guarded(|| {
            changes::check_heads(&self.doc, heads)?;
            let changes = self.doc.get_changes(heads).into_iter();
            Ok(changes.flat_map(|mut change| change.bytes().into_owned()).collect())
        })
    }

    /// Edits it, at this time by the clock, and gives the change to be stored; `None` where nothing is otherwise.
    pub(crate) fn edit(
        &mut self,
        edit: &Edit<'_>,
        message: Option<&str>,
        now_s: u64,
        limits: Limits,
    ) -> Result<Option<Vec<u8>>, DocumentError> {
        let before = self.doc.clone();
        let edited = guarded(|| self.commit(edit, message, now_s)).and_then(|change| {
            let Some(bytes) = change else { return Ok(None) };
            self.check(bytes.len() as u64, limits)?;
            self.stored_bytes += bytes.len() as u64;
            Ok(Some(bytes))
        });
        if edited.is_err() {
            self.doc = before;
        }
        edited
    }

    /// Takes a client's raw changes in, and gives those that are to be stored, each by itself.
    pub(crate) fn take(&mut self, body: &[u8], limits: Limits) -> Result<Vec<Vec<u8>>, DocumentError> {
        let mut taken = self.clone();
        let stored = guarded(|| {
            let changes = changes::unknown(&taken.doc, body)?;
            let refused =
                |error: automerge::AutomergeError| DocumentError::BadChanges { reason: error.to_string() };
            taken.doc.apply_changes(changes.clone()).map_err(refused)?;
            // Read once as clients will, so that nothing is stored that cannot be read.
            Reader::new(None).tree(&taken.doc, automerge::Value::map(), &automerge::ROOT, 1)?;
            Ok(changes.into_iter().map(|mut change: Change| change.bytes().into_owned()).collect::<Vec<_>>())
        });
        let stored = stored.map_err(|error| match error {
            DocumentError::Broken { reason } => DocumentError::BadChanges { reason },
            other => other,
        })?;
        let bytes = stored.iter().map(|change| change.len() as u64).sum();
        taken.check(bytes, limits)?;
        taken.stored_bytes += bytes;
        *self = taken;
        Ok(stored)
    }

    /// How large it is as one saved document.
    #[cfg(test)]
    pub(super) fn doc_bytes(&self) -> u64 {
        self.doc.save().len() as u64
    }

    fn commit(
        &mut self,
        edit: &Edit<'_>,
        message: Option<&str>,
        now_s: u64,
    ) -> Result<Option<Vec<u8>>, DocumentError> {
        let mut tx = self.doc.transaction();
        let mut writer = Writer::new(&mut tx);
        match edit {
            Edit::Put(json) => writer.assign_root(&root(json)?)?,
            Edit::Merge(json) => merge::apply(&mut writer, json)?,
            Edit::Patch(patch) => patch.apply(&mut writer)?,
        }
        let mut options = CommitOptions::default().with_time(now_s as i64);
        if let Some(message) = message {
            options.set_message(message);
        }
        match tx.pending_ops() {
            0 => {
                tx.rollback();
                if !self.is_new() {
                    return Ok(None);
                }
                // An empty document is one, too.
                self.doc.empty_commit(options);
            }
            _ => drop(tx.commit_with(options)),
        }
        let change = self.doc.get_last_local_change();
        Ok(change.map(|mut change| change.bytes().into_owned()))
    }

    /// Whether it may be as it has become, with so many bytes more to store.
    fn check(&mut self, more: u64, limits: Limits) -> Result<(), DocumentError> {
        let ops = self.doc.stats().num_ops;
        if ops > limits.max_ops.most {
            return Err(DocumentError::TooManyOps { given: ops, limit: limits.max_ops });
        }
        if self.stored_bytes + more <= limits.max_bytes.most {
            return Ok(());
        }
        // Stored as many changes it takes more than it needs to.
        let saved = guarded(|| Ok(self.doc.save().len() as u64))?;
        if saved > limits.max_bytes.most {
            return Err(DocumentError::TooLarge { given: saved, limit: limits.max_bytes });
        }
        self.stored_bytes = saved.saturating_sub(more);
        Ok(())
    }
}

fn root(json: &Json) -> Result<Tree, DocumentError> {
    let tree = Tree::from_json(json, 1)?;
    debug_assert!(tree.depth() <= MAX_DEPTH);
    Ok(tree)
}

/// Does what automerge may panic at. What it leaves behind then is not to be used.
fn guarded<T>(work: impl FnOnce() -> Result<T, DocumentError>) -> Result<T, DocumentError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let reason = "automerge failed at it: please report it, with the document".to_owned();
        Err(DocumentError::Broken { reason })
    })
}
