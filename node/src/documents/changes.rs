//! A client's changes, raw, as automerge has them.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, Change, ChangeHash};

use super::{DocumentError, measure};

/// Those changes in a client's bytes that are not in the document, each with what it was made on top of in front of it.
/// What they are made on top of must be here, or among them.
pub(super) fn unknown(doc: &Automerge, body: &[u8]) -> Result<Vec<Change>, DocumentError> {
    let parse = |bytes: &[u8]| {
        let bad = |reason| DocumentError::BadChanges { reason };
        let change = Change::try_from(bytes).map_err(|error| bad(error.to_string()))?;
        // Nobody could load it again.
        match change.hash().0.starts_with(measure::checksum(bytes)) {
            true => Ok(change),
            false => Err(bad("a checksum is wrong".to_owned())),
        }
    };
    let given: Vec<Change> = measure::changes(body)?.into_iter().map(parse).collect::<Result<_, _>>()?;
    let mut waiting = BTreeMap::new();
    for change in given {
        if !has(doc, &change.hash()) {
            waiting.insert(change.hash(), change);
        }
    }
    check_deps(doc, &waiting)?;
    Ok(in_order(waiting))
}

/// Whether this change is part of the document.
pub(super) fn has(doc: &Automerge, hash: &ChangeHash) -> bool {
    doc.get_change_meta_by_hash(hash).is_some()
}

/// Which of these heads are not part of the document's history.
pub(super) fn check_heads(doc: &Automerge, heads: &[ChangeHash]) -> Result<(), DocumentError> {
    let unknown = heads.iter().filter(|hash| !has(doc, hash));
    let hashes: Vec<_> = unknown.map(ToString::to_string).collect();
    if hashes.is_empty() { Ok(()) } else { Err(DocumentError::UnknownHeads { hashes }) }
}

fn check_deps(doc: &Automerge, waiting: &BTreeMap<ChangeHash, Change>) -> Result<(), DocumentError> {
    let deps = waiting.values().flat_map(Change::deps);
    let missing: BTreeSet<_> = deps.filter(|dep| !waiting.contains_key(dep) && !has(doc, dep)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DocumentError::MissingChanges { hashes: missing.into_iter().map(ToString::to_string).collect() })
}

/// Each after those it was made on top of: a change's operations have higher numbers than those it knows. What is
/// numbered otherwise automerge refuses.
fn in_order(changes: BTreeMap<ChangeHash, Change>) -> Vec<Change> {
    let mut changes: Vec<_> = changes.into_values().collect();
    changes.sort_by_key(|change| (change.start_op(), change.hash()));
    changes
}
