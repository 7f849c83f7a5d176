//! Documents: an edit stays with all it follows on, unless a delete has seen it and no later edit follows on it.

use std::collections::BTreeSet;

use replication::entry::Kind;
use replication::read::kinds;
use replication::{EntryId, Replica, ReplicaId, Store};

use super::Oracle;
use crate::sim::documents::fields;

/// This document expires; what it says is not foretold.
pub(crate) const EXPIRING: &[u8] = b"expiring";

/// What a client did to a document.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    /// Which field it added.
    pub(crate) field: String,
    /// The fields it saw.
    pub(crate) follows: BTreeSet<String>,
}

impl Oracle {
    /// The chunk of this name holds this edit.
    pub(crate) fn note_edit(&mut self, id: EntryId, edit: Edit) {
        self.edits.insert(id, edit);
    }

    /// What a reader sees of each document, when all agree, is what follows from the edits that stand. Who of `present` has
    /// made one sees to it that what it follows on is there.
    pub(crate) fn check_documents(
        &self,
        replica: &Replica<impl Store>,
        present: &BTreeSet<ReplicaId>,
        now_s: u64,
    ) -> Result<(), String> {
        let keys: BTreeSet<_> = self.edits.keys().map(|id| (id.namespace, id.key.clone())).collect();
        for (namespace, key) in keys.into_iter().filter(|(_, key)| *key != EXPIRING) {
            let seen: BTreeSet<String> = fields(replica.store(), &key, now_s)?.into_iter().collect();
            let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
            let mut is_certain = true;
            let of_it = self.edits.iter().filter(|(id, _)| id.namespace == namespace && id.key == key);
            for (id, edit) in of_it {
                let shown = kinds::element(replica.store(), id, now_s).map_err(|error| error.to_string())?;
                let by = self.by_entry.get(id).into_iter().flatten();
                let all_present = by.clone().all(|dot| present.contains(&dot.replica));
                is_certain &= all_present;
                if shown.is_none() {
                    continue;
                }
                let said = || edit.follows.iter().chain([&edit.field]).cloned();
                may.extend(said());
                if all_present && by.count() > 0 {
                    must.extend(said());
                }
            }
            let all: BTreeSet<String> = self.edits.values().map(|edit| edit.field.clone()).collect();
            let may = if is_certain { &may } else { &all };
            if !must.is_subset(&seen) || !seen.is_subset(may) {
                let missing: Vec<_> = must.difference(&seen).collect();
                let beyond: Vec<_> = seen.difference(may).collect();
                return Err(format!(
                    "{:?} lacks {missing:?} in {}, and shows {beyond:?} which were deleted",
                    replica.id(),
                    key.escape_ascii()
                ));
            }
        }
        Ok(())
    }

    /// Whether it is known what is to be seen of this entry.
    pub(super) fn is_foretold(id: &EntryId) -> bool {
        id.kind != Kind::Doc || id.key != EXPIRING
    }
}
