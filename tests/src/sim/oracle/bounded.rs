//! Bounded counters: never below zero, and in the end what was added less what was taken.

use std::collections::BTreeSet;

use replication::entry::Kind;
use replication::read::kinds;
use replication::{Body, Change, Dot, Entry, EntryId, Replica, ReplicaId, Store};

use super::{NAMESPACE, Oracle};

/// The beginning of the keys of those that are never deleted.
pub(crate) const KEPT: &str = "kept";
/// Of the others.
pub(crate) const SOLD: &str = "sold";

/// What lives of this state is not below zero, nor has any replica spent more rights in it than it had.
pub(crate) fn check_not_negative(state: &Entry) -> Result<(), String> {
    let Body::Bounded(bounded) = &state.body else { return Err(format!("{state:?} is no bounded counter")) };
    for (birth, generation) in bounded.generations.iter().filter(|(_, known)| known.ended.is_none()) {
        let tallies = generation.tallies();
        let got = |of: &ReplicaId| tallies.values().filter_map(|tally| tally.given.get(of)).sum::<u64>();
        let overspent = tallies.iter().find(|(replica, tally)| {
            tally.up + got(replica) < tally.down + tally.given.values().sum::<u64>()
        });
        if let Some((replica, _)) = overspent {
            return Err(format!(
                "{replica:?} has spent rights that it had not, of {birth:?}: {generation:?}"
            ));
        }
        let (up, down) =
            tallies.values().fold((0, 0), |(up, down), tally| (up + tally.up, down + tally.down));
        if up < down {
            return Err(format!("it is below zero, of {birth:?}: {generation:?}"));
        }
    }
    Ok(())
}

impl Oracle {
    /// When all agree, one that nobody has deleted is what was added less what was taken: also where members were taken out
    /// and came back, if they have told all that they had to tell.
    pub(crate) fn check_bounded_sums(
        &self,
        replica: &Replica<impl Store>,
        letters: &BTreeSet<Dot>,
    ) -> Result<(), String> {
        let kept = self.by_entry.iter().filter(|(id, _)| {
            id.kind == Kind::Bounded && id.namespace == NAMESPACE && id.key.starts_with(KEPT.as_bytes())
        });
        for (id, dots) in kept {
            let is_open = self.unsettled.values().any(|(written, _)| written == id);
            let is_left = letters.iter().any(|letter| dots.iter().any(|dot| dot.replica == letter.replica));
            if is_open || is_left {
                continue;
            }
            let counted = dots.iter().filter_map(|dot| match self.changes.get(dot)?.change {
                Change::Add { amount, .. } => Some(i128::from(amount)),
                _ => None,
            });
            let expected: i128 = counted.sum();
            let found = kinds::keys_page(replica.store(), (NAMESPACE, Kind::Bounded), &id.key, None, 1, 0);
            let is_there = !found.map_err(|error| error.to_string())?.keys.is_empty();
            let count = self.bounded_count(replica, id)?;
            if count.unwrap_or_default() != expected || is_there != count.is_some() {
                return Err(format!(
                    "{:?} has {count:?} in {id:?}, and {expected} was added less what was taken",
                    replica.id()
                ));
            }
        }
        Ok(())
    }

    fn bounded_count(&self, replica: &Replica<impl Store>, id: &EntryId) -> Result<Option<i128>, String> {
        let state = crate::sim::rows::state(replica.store(), id)?;
        Ok(match state.map(|state| state.body) {
            Some(Body::Bounded(bounded)) => bounded.count(),
            _ => None,
        })
    }
}
