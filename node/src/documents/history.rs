//! The changes that a document was made by.

use automerge::{Automerge, ChangeHash};

use super::DocumentError;

/// A change, without what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeInfo {
    pub(crate) hash: ChangeHash,
    /// Who made it, in hexadecimal.
    pub(crate) actor: String,
    /// Which of the actor's it is, from 1 on.
    pub(crate) seq: u64,
    /// When, in Unix seconds by the clock of who made it.
    pub(crate) time_s: i64,
    pub(crate) message: Option<String>,
    /// How many operations it has.
    pub(crate) ops: u64,
    /// What it was made on top of.
    pub(crate) deps: Vec<ChangeHash>,
}

/// Some of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) changes: Vec<ChangeInfo>,
    /// What the next page comes after; `None` at the end.
    pub(crate) next_after: Option<ChangeHash>,
}

/// Up to `limit` changes after this one, or from the first on. Each comes after those it was made on top of.
pub(crate) fn page(doc: &Automerge, after: Option<ChangeHash>, limit: usize) -> Result<Page, DocumentError> {
    let all = doc.get_changes_meta(&[]);
    let start = match after {
        None => 0,
        Some(hash) => {
            let found = all.iter().position(|change| change.hash == hash);
            1 + found.ok_or_else(|| DocumentError::UnknownHeads { hashes: vec![hash.to_string()] })?
        }
    };
    let has_more = all.len() > start + limit;
    let info = |change: automerge::ChangeMetadata<'_>| ChangeInfo {
        hash: change.hash,
        actor: change.actor.to_hex_string(),
        seq: change.seq,
        time_s: change.timestamp,
        message: change.message.map(|message| message.into_owned()),
        ops: (change.max_op + 1).saturating_sub(change.start_op),
        deps: change.deps,
    };
    let changes: Vec<_> = all.into_iter().skip(start).take(limit).map(info).collect();
    let next_after = changes.last().map(|change| change.hash).filter(|_| has_more);
    Ok(Page { changes, next_after })
}
