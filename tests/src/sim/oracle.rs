//! What must hold, said without a word of how replicas work: only of writes, acknowledgements, claims and epochs.
//!
//! It remembers all that was ever written and what became of it. Its questions are in [`claims`], which
//! hold at any moment, and in [`ending`], which hold when all agree.

use std::collections::{BTreeMap, BTreeSet};

use replication::entry::Kind;
use replication::{Body, Dot, EntryId, Hlc, NamespaceId, Replica, ReplicaId, Store, VersionVector};

pub(super) mod batches;
pub(super) mod bounded;
mod claims;
mod conflicts;
pub(super) mod documents;
mod ending;
pub(super) mod kinds;

/// The namespace that clients of a simulation write to.
pub(super) const NAMESPACE: NamespaceId = NamespaceId([9; 16]);

/// Every write there was.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Acknowledged as durable, or found so after a crash.
    durable: BTreeMap<Dot, (EntryId, Body)>,
    /// The dots of those, by entry.
    by_entry: BTreeMap<EntryId, BTreeSet<Dot>>,
    /// The writes of the batch that each event is of.
    batches: BTreeMap<Dot, Vec<(EntryId, Dot)>>,
    /// What was asked for by events on counters, sets and maps, some of which never came to be durable.
    changes: BTreeMap<Dot, kinds::Changed>,
    /// The edits of documents, by the chunks that hold them.
    edits: BTreeMap<EntryId, documents::Edit>,
    /// Staged when their node crashed, with its number: its store tells at the next start whether they survived. Of two
    /// clones each has its own.
    unsettled: BTreeMap<(usize, Dot), (EntryId, Body)>,
    /// Replicas of whose store there has been more than one. Their events have no one history any more: what they
    /// acknowledge from then on must be accounted for in the end, and nothing is said of claims.
    doubtful: BTreeSet<ReplicaId>,
    /// What those acknowledged.
    doubtful_writes: Vec<(Dot, EntryId, Body)>,
    /// Acknowledged, and not on its writer's disk any more, whose place an old copy took; with those that claimed it
    /// then. Later claims tell nothing: the copy's own events come after it.
    rolled_back: BTreeMap<Dot, BTreeSet<ReplicaId>>,
    /// Replicas whose store is an older copy, with those that had heard more of their events than it holds.
    older_copies: BTreeMap<ReplicaId, BTreeSet<ReplicaId>>,
    /// Events of earlier incarnations, and the events that took their place.
    written_anew: BTreeMap<Dot, Dot>,
    /// What the writers of values had there.
    seen: BTreeMap<Dot, conflicts::Seen>,
    /// The most each replica ever claimed durably.
    claims: BTreeMap<ReplicaId, VersionVector>,
    /// By which event each member's record was written, and whether it was ever removed.
    members: BTreeMap<ReplicaId, (Option<Dot>, bool)>,
    /// Who has been a full member at some time.
    full_members: BTreeSet<ReplicaId>,
}

impl Oracle {
    /// This write was acknowledged.
    ///
    /// # Errors
    /// Where its dot was acknowledged before for another write.
    pub(crate) fn acknowledge(&mut self, dot: Dot, id: EntryId, body: Body) -> Result<(), String> {
        if self.doubtful.contains(&dot.replica) {
            self.doubtful_writes.push((dot, id, body));
            return Ok(());
        }
        self.by_entry.entry(id.clone()).or_default().insert(dot);
        match self.durable.insert(dot, (id, body)) {
            Some(_) => Err(format!("the dot {dot:?} was used twice")),
            None => Ok(()),
        }
    }

    /// This write's node crashed before it was acknowledged.
    pub(crate) fn crashed(&mut self, node: usize, dot: Dot, id: EntryId, body: Body) {
        self.unsettled.insert((node, dot), (id, body));
    }

    /// The node has started again: of its unacknowledged writes, those its store claims stand, and the others must
    /// never be seen anywhere.
    pub(crate) fn started(&mut self, node: usize, replica: &Replica<impl Store>) -> Result<(), String> {
        let is_its = |(at, dot): &(usize, Dot)| *at == node && dot.replica == replica.id();
        let unsettled = std::mem::take(&mut self.unsettled).into_iter();
        let (its, others): (BTreeMap<_, _>, BTreeMap<_, _>) = unsettled.partition(|(key, _)| is_its(key));
        self.unsettled = others;
        for ((_, dot), (id, body)) in its {
            if replica.vector().covers(dot) {
                self.acknowledge(dot, id, body)?;
            } else {
                // Nobody has seen the dot: another event may have it now.
                self.changes.remove(&dot);
                self.seen.remove(&dot);
                self.batches.remove(&dot);
            }
        }
        Ok(())
    }

    /// A write of an earlier incarnation was written anew.
    ///
    /// # Errors
    /// Where there was no such write.
    pub(crate) fn was_written_anew(
        &mut self,
        old: Dot,
        new: Dot,
        id: &EntryId,
        body: &Body,
    ) -> Result<(), String> {
        let doubtful = self.doubtful_writes.iter().filter(|(known, ..)| *known == old);
        let known = doubtful.map(|(_, id, body)| (id, body));
        let unsettled = self.unsettled.iter().filter(|((_, dot), _)| *dot == old).map(|(_, write)| write);
        let others = self.durable.get(&old).into_iter().chain(unsettled);
        let mut written = known.chain(others.map(|(id, body)| (id, body)));
        let is_told = |told: (&EntryId, &Body)| told.0 == id && (id.kind != Kind::Value || told.1 == body);
        if !written.any(is_told) {
            return Err(format!("{old:?} on {:?} was written anew, and nobody issued it", id.key));
        }
        self.written_anew.insert(old, new);
        Ok(())
    }

    /// From now on there is, or was, more than one store of this replica.
    pub(crate) fn doubt(&mut self, id: ReplicaId) {
        self.doubtful.insert(id);
        let own: Vec<Dot> = self.durable.keys().filter(|dot| dot.replica == id).copied().collect();
        for dot in own {
            let (entry, body) = self.durable.remove(&dot).expect("its key was found");
            if let Some(dots) = self.by_entry.get_mut(&entry) {
                dots.remove(&dot);
            }
            self.doubtful_writes.push((dot, entry, body));
        }
    }

    /// A replica goes on from this older copy of its store. Whoever has heard more of it will notice.
    pub(crate) fn rolled_back_to(&mut self, id: ReplicaId, copy: &VersionVector) {
        self.doubt(id);
        let mine = self.doubtful_writes.iter().map(|(dot, ..)| *dot).filter(|dot| dot.replica == id);
        for dot in mine.filter(|dot| !copy.covers(*dot)) {
            let others = self.claims.iter().filter(|(other, claims)| **other != id && claims.covers(dot));
            self.rolled_back.entry(dot).or_insert_with(|| others.map(|(other, _)| *other).collect());
        }
        let knows_more = |claims: &VersionVector| claims.position(id).ops > copy.position(id).ops;
        let others = self.claims.iter().filter(|(other, claims)| **other != id && knows_more(claims));
        self.older_copies.insert(id, others.map(|(other, _)| *other).collect());
    }

    /// Whether a write is on no disk any more: its writer's was rolled back, and every other that had it is out of
    /// use, or was rolled back too.
    fn is_gone(&self, dot: Dot) -> bool {
        let is_whole = |id: &ReplicaId| !self.doubts(*id) && !self.was_removed(*id);
        self.rolled_back.get(&dot).is_some_and(|held_by| !held_by.iter().any(is_whole))
    }

    /// Whether there has been more than one store of this replica.
    pub(crate) fn doubts(&self, id: ReplicaId) -> bool {
        self.doubtful.contains(&id)
    }

    /// Whether there has been more than one store of any replica.
    pub(crate) fn has_doubts(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Whether this replica was ever removed.
    pub(crate) fn was_removed(&self, id: ReplicaId) -> bool {
        self.members.get(&id).is_some_and(|(_, removed)| *removed)
    }

    /// Whether the member that wrote this one's record was removed: then the others may never have heard of it.
    pub(crate) fn was_let_in_by_a_removed_one(&self, id: ReplicaId) -> bool {
        let joined = self.members.get(&id).and_then(|(joined, _)| *joined);
        joined.is_some_and(|dot| dot.replica != id && self.was_removed(dot.replica))
    }

    /// The values that were written, with their events.
    fn values(&self) -> impl Iterator<Item = (&EntryId, &BTreeSet<Dot>)> {
        self.by_entry.iter().filter(|(id, _)| id.kind == Kind::Value)
    }

    /// The newest state of an entry that this vector covers.
    fn newest_covered(&self, id: &EntryId, vector: &VersionVector) -> Option<(Dot, &Body)> {
        let dots = self.by_entry.get(id)?;
        let dot = dots.iter().rev().find(|dot| vector.covers(**dot))?;
        Some((*dot, &self.durable.get(dot)?.1))
    }

    /// The durable states of an entry from this one on.
    fn states_since(&self, id: &EntryId, first: Dot) -> impl Iterator<Item = (Dot, &Body)> {
        let dots = self.by_entry.get(id).into_iter().flat_map(move |dots| dots.range(first..));
        dots.filter_map(|dot| Some((*dot, &self.durable.get(dot)?.1)))
    }

    /// Whether an entry may be absent where this is the newest of its states that must be known: it is over, or a
    /// state of a replica without one history came after it, and that is over.
    fn may_be_absent(&self, id: &EntryId, newest: Dot, body: &Body, epoch: Hlc) -> bool {
        let later = self.doubtful_writes.iter().filter(|(dot, written, _)| written == id && *dot >= newest);
        super::rows::is_over(newest, body, epoch)
            || later.into_iter().any(|(dot, _, body)| super::rows::is_over(*dot, body, epoch))
    }
}
