//! What holds when all agree: nothing acknowledged is lost in silence, and nothing is back from the dead.

use std::collections::BTreeSet;

use replication::entry::Kind;
use replication::{Dot, EntryId, Replica, ReplicaId, Store};

use super::{NAMESPACE, Oracle};
use crate::sim::rows;

impl Oracle {
    /// The surviving state of every entry is a write that was issued, as it was issued, and no older than any that
    /// its replica claims; or it is gone, and was over.
    pub(crate) fn check_end(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        let entries = rows::entries(replica.store())?;
        for (id, _) in self.values() {
            let newest = self.newest_covered(id, replica.vector());
            let Some((dot, body)) = entries.get(id) else {
                match newest.filter(|(dot, body)| !self.may_be_absent(id, *dot, body, replica.epoch())) {
                    Some((dot, _)) => {
                        return Err(format!("the entry {:?} is lost, which {dot:?} wrote", id.key));
                    }
                    None => continue,
                }
            };
            if let Some((newest, _)) = newest.filter(|(newest, _)| dot < newest) {
                return Err(format!("{:?} stands at {dot:?}, though {newest:?} was acknowledged", id.key));
            }
            let doubtful = self.doubtful_writes.iter().filter(|(known, ..)| known == dot);
            let mut issued = doubtful
                .map(|(_, id, body)| (id, body))
                .chain(self.durable.get(dot).map(|(id, body)| (id, body)));
            if !issued.any(|issued| issued == (id, body)) {
                return Err(format!("{:?} has {body:?} by {dot:?}, which nobody issued", id.key));
            }
        }
        Ok(())
    }

    /// No replica goes on from an older copy of its store where a sound member has heard more of it.
    pub(crate) fn check_no_older_copy(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        let is_sound = |id: &ReplicaId| replica.members().contains(*id) && !self.doubts(*id);
        let noticed_by =
            self.older_copies.get(&replica.id()).and_then(|ids| ids.iter().find(|id| is_sound(id)));
        match noticed_by {
            Some(peer) => Err(format!("{:?} is an older copy, as {peer:?} knows, and goes on", replica.id())),
            None => Ok(()),
        }
    }

    /// Every acknowledged write is visible, superseded by a newer one, written anew, or listed as a dead letter; but
    /// for those of replicas that are out, and those whose only disk is gone.
    pub(crate) fn check_accounts(
        &self,
        replica: &Replica<impl Store>,
        letters: &BTreeSet<Dot>,
        out: &BTreeSet<ReplicaId>,
    ) -> Result<(), String> {
        let entries = rows::entries(replica.store())?;
        let is_kept = |dot: &Dot| self.written_anew.contains_key(dot) || letters.contains(dot);
        let held = |id: &EntryId| entries.get(id).map(|(dot, _)| *dot);
        // What a replica said about the cluster itself goes with it.
        for (id, dots) in self.values().filter(|(id, _)| id.namespace == NAMESPACE) {
            let top = dots.iter().rev().find(|dot| !out.contains(&dot.replica));
            let Some(top) = top.copied() else { continue };
            let is_covered = replica.vector().covers(top);
            let later_kept = self.dots_of(id).into_iter().any(|dot| dot >= top && is_kept(&dot));
            if !is_covered
                && !later_kept
                && held(id).is_none_or(|held| held < top)
                && !self.overtaken(id, top, replica)
            {
                return Err(format!(
                    "{top:?} on {:?} was acknowledged, and nothing tells of it any more",
                    id.key
                ));
            }
        }
        let is_value = |id: &EntryId| id.namespace == NAMESPACE && id.kind == Kind::Value;
        for (dot, id, _) in self.doubtful_writes.iter().filter(|(_, id, _)| is_value(id)) {
            let excused = self.is_gone(*dot) || out.contains(&dot.replica);
            let later_kept = self.dots_of(id).into_iter().any(|later| later >= *dot && is_kept(&later));
            if !excused
                && !later_kept
                && held(id).is_none_or(|held| held < *dot)
                && !self.overtaken(id, *dot, replica)
            {
                return Err(format!(
                    "{dot:?} on {:?} was acknowledged by a copy, and nothing tells of it",
                    id.key
                ));
            }
        }
        Ok(())
    }

    /// Whether a newer state was here, and is dropped since: it was over.
    fn overtaken(&self, id: &EntryId, dot: Dot, replica: &Replica<impl Store>) -> bool {
        let epoch = replica.epoch();
        let durable = self.by_entry.get(id).into_iter().flatten();
        let durable = durable.filter(|later| replica.vector().covers(**later));
        let durable = durable.filter_map(|later| Some((*later, &self.durable.get(later)?.1)));
        let doubtful = self.doubtful_writes.iter().filter(|(_, written, _)| written == id);
        let mut later = durable.chain(doubtful.map(|(dot, _, body)| (*dot, body)));
        later.any(|(later, body)| later >= dot && rows::is_over(later, body, epoch))
    }

    /// Every dot there was on an entry, of writes never acknowledged too.
    fn dots_of(&self, id: &EntryId) -> BTreeSet<Dot> {
        let unsettled = self.unsettled.iter().filter(|(_, (written, _))| written == id);
        let unsettled = unsettled.map(|((_, dot), _)| *dot);
        let doubtful =
            self.doubtful_writes.iter().filter(|(_, written, _)| written == id).map(|(dot, ..)| *dot);
        self.by_entry.get(id).into_iter().flatten().copied().chain(unsettled).chain(doubtful).collect()
    }
}
