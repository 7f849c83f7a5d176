//! Counters, sets and maps: what each event did follows from what it had seen, and that from nothing else.

use std::collections::BTreeMap;

use replication::entry::Kind;
use replication::read::kinds;
use replication::{Change, Dot, EntryId, Hlc, Replica, ReplicaId, Store, VersionVector};

use super::{NAMESPACE, Oracle};
use crate::sim::rows::States;

/// Counters with this in front of their keys expire; what they stand at then is not foretold.
pub(crate) const WINDOW: &[u8] = b"window";

/// What was asked for, by an event that had seen so much.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) change: Change,
    /// Of each replica its latest event in the state of the entry; of one that empties a whole, all that was held.
    pub(crate) seen: BTreeMap<ReplicaId, Hlc>,
    /// All up to the epoch was seen, whether the state still names it or not.
    pub(crate) epoch: Hlc,
}

impl Changed {
    /// This change at a replica that holds so much, of an entry whose state names these events.
    pub(crate) fn new(change: Change, dots: &[Dot], held: &VersionVector, epoch: Hlc, id: &EntryId) -> Self {
        let is_of_whole = change == Change::Clear && id.kind.has_elements();
        let seen = if is_of_whole {
            held.iter().map(|(origin, at)| (origin, at.hlc)).collect()
        } else {
            dots.iter().map(|dot| (dot.replica, dot.hlc)).collect()
        };
        Self { change, seen, epoch }
    }

    fn has_seen(&self, dot: Dot) -> bool {
        dot.hlc <= self.epoch || self.seen.get(&dot.replica).is_some_and(|upto| *upto >= dot.hlc)
    }
}

impl Oracle {
    /// This event makes this change.
    pub(crate) fn note_change(&mut self, dot: Dot, changed: Changed) {
        self.changes.insert(dot, changed);
    }

    /// The entries of these kinds with their events, those that stand.
    fn changed_entries(&self) -> BTreeMap<&EntryId, Vec<(Dot, &Changed)>> {
        let mut by_entry: BTreeMap<&EntryId, Vec<(Dot, &Changed)>> = BTreeMap::new();
        for (id, dots) in self.by_entry.iter().filter(|(id, _)| id.kind != Kind::Value) {
            let changes = dots.iter().filter_map(|dot| Some((*dot, self.changes.get(dot)?)));
            by_entry.insert(id, changes.collect());
        }
        by_entry
    }

    /// What a replica claims of such an entry is in its state, or was over.
    pub(super) fn check_claimed_changes(
        &self,
        replica: &Replica<impl Store>,
        states: &States,
    ) -> Result<(), String> {
        for (id, changes) in self.changed_entries() {
            let is_missing = |dot: &Dot| {
                replica.vector().covers(*dot)
                    && *dot > Dot { hlc: replica.epoch(), replica: dot.replica }
                    && states.get(id).is_none_or(|state| !state.covers(*dot))
            };
            if let Some((dot, _)) = changes.iter().find(|(dot, _)| is_missing(dot)) {
                let held = states.get(id);
                return Err(format!("{:?} claims {dot:?} on {id:?}, and has {held:?}", replica.id()));
            }
        }
        Ok(())
    }

    /// What a reader sees, when all agree, is what follows from all events.
    pub(crate) fn check_changes(&self, replica: &Replica<impl Store>, now_s: u64) -> Result<(), String> {
        let entries = self.changed_entries();
        for (id, changes) in &entries {
            let (seen, expected) = if id.kind == Kind::Counter {
                if id.key.starts_with(WINDOW) {
                    continue;
                }
                let found = kinds::counter(replica.store(), NAMESPACE, &id.key, now_s);
                let found = found.map_err(|error| error.to_string())?;
                (format!("{}", found.map_or(0, |found| found.count)), format!("{}", sum(changes)))
            } else if id.kind == Kind::Bounded {
                // What stands is told by [`Oracle::check_bounded_sums`].
                continue;
            } else if !id.element.is_empty() && !changes.is_empty() && Self::is_foretold(id) {
                let head = EntryId::whole(id.namespace, id.kind, id.key.clone());
                let cleared = entries.get(&head).map(Vec::as_slice).unwrap_or_default();
                let found = kinds::element(replica.store(), id, now_s).map_err(|error| error.to_string())?;
                (
                    format!("{:?}", found.map(|found| found.bytes)),
                    format!("{:?}", shown(changes, cleared, now_s)),
                )
            } else {
                continue;
            };
            if seen != expected {
                return Err(format!(
                    "{:?} shows {seen} on {id:?}, and should show {expected}: {changes:?}",
                    replica.id()
                ));
            }
        }
        Ok(())
    }
}

/// The sum of what no reset has seen.
fn sum(changes: &[(Dot, &Changed)]) -> i128 {
    let is_reset =
        |dot: Dot| changes.iter().any(|(_, later)| later.change == Change::Clear && later.has_seen(dot));
    let added = changes.iter().map(|(dot, changed)| match changed.change {
        Change::Add { amount, .. } if !is_reset(*dot) => i128::from(amount),
        _ => 0,
    });
    added.sum()
}

/// The last content that no later event has seen, and that has not expired.
fn shown(changes: &[(Dot, &Changed)], cleared: &[(Dot, &Changed)], now_s: u64) -> Option<bytes::Bytes> {
    let is_gone = |dot: Dot| {
        let later = changes.iter().chain(cleared).filter(|(later, _)| *later != dot);
        let mut later = later.filter(|(_, later)| !matches!(later.change, Change::Describe(_)));
        later.any(|(by, later)| *by > dot && later.has_seen(dot))
    };
    let standing = changes.iter().filter_map(|(dot, changed)| match &changed.change {
        Change::Put(content) if !is_gone(*dot) => Some((*dot, content)),
        _ => None,
    });
    let standing = standing.filter(|(_, content)| content.expires_at_s.is_none_or(|at| at > now_s));
    standing.max_by_key(|(dot, _)| *dot).map(|(_, content)| content.bytes.clone())
}
