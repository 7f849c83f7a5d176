//! Documents: JSON that several PoPs edit at once, kept as automerge changes.
//!
//! Here is what is done to one document in memory: read it, edit it with as few operations as say it, take changes in and
//! give them out. Nothing here knows HTTP or the store.
//!
//! The rule this part upholds: a refused edit changes nothing, and no byte of a client's brings the node down. Automerge
//! may panic on bytes that are crafted, so what they touch runs under `catch_unwind`; and what could make it allocate or
//! loop without end (compressed columns, runs, depth) is measured before automerge sees it.

mod cache;
mod changes;
mod conflicts;
mod diff;
mod document;
mod error;
mod history;
mod measure;
mod merge;
mod patch;
mod pointer;
mod read;
#[cfg(test)]
mod tests;
mod tree;
mod write;

pub use self::cache::Settings;
pub(crate) use self::cache::{NotOpened, Opened, WarmDocuments};
pub(crate) use self::conflicts::Conflict;
pub(crate) use self::document::{Document, Edit};
pub(crate) use self::error::DocumentError;
pub(crate) use self::history::ChangeInfo;
pub(crate) use self::patch::Patch;

/// The most containers inside each other, the document itself counted. Below what JSON parsers take (127), so that what
/// was written can be read, and be put into a patch.
pub(crate) const MAX_DEPTH: usize = 120;
/// The most bytes of JSON, about, that one request may have a document read as, or read of it while it is edited. A
/// document of few bytes can be far larger as JSON, since what repeats is stored once.
pub(crate) const MAX_JSON_BYTES: usize = 32 << 20;
/// The most automerge operations of one change. A member, an item and a character of a text are one each.
pub(crate) const MAX_CHANGE_OPS: usize = 200_000;
/// The most operations of one JSON patch.
pub(crate) const MAX_PATCH_OPERATIONS: usize = 1_000;
/// The most either way that a counter counts: what JSON has everywhere.
pub(crate) const MAX_COUNT: i64 = (1 << 53) - 1;
/// The most changes in one body.
pub(crate) const MAX_CHANGES: usize = 1_000;

/// What a document may be. It is held by the PoP that edits: what several add at once may exceed it, and merges all the
/// same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes as it is stored.
    pub(crate) max_bytes: Limit,
    /// Operations of its whole history.
    pub(crate) max_ops: Limit,
}

/// A limit, and where it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) most: u64,
    pub(crate) set_by: &'static str,
}

impl Limits {
    /// Those of a node.
    pub(crate) const fn of_node(max_bytes: u64, max_ops: u64) -> Self {
        Self {
            max_bytes: Limit { most: max_bytes, set_by: "documents.max_bytes" },
            max_ops: Limit { most: max_ops, set_by: "documents.max_ops" },
        }
    }
}

impl Limit {
    /// The lower one of two, where there is another.
    pub(crate) fn or_lower(self, most: Option<u64>, set_by: &'static str) -> Self {
        most.filter(|most| *most < self.most).map_or(self, |most| Self { most, set_by })
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { most, set_by } = self;
        write!(f, "{set_by}: {most}")
    }
}
