//! Batches: whoever sees one of the writes sees all, or what has replaced them.

use std::collections::BTreeMap;

use replication::entry::Kind;
use replication::kinds::PartState;
use replication::{Body, Dot, Entry, EntryId, Hlc};

use super::Oracle;

impl Oracle {
    /// These are the writes of a batch.
    pub(crate) fn note_batch(&mut self, writes: Vec<(EntryId, Dot)>) {
        for (_, dot) in &writes {
            self.batches.insert(*dot, writes.clone());
        }
    }
}

/// Whether nothing that is shown is a part of a batch.
pub(crate) fn check_whole(
    oracle: &Oracle,
    shown: &BTreeMap<EntryId, Entry>,
    epoch: Hlc,
) -> Result<(), String> {
    for (id, entry) in shown {
        // Of what everybody has, a state need not tell any more.
        for dot in visible(entry).into_iter().filter(|dot| dot.hlc > epoch) {
            let Some(batch) = oracle.batches.get(&dot) else { continue };
            let covers = |(id, dot): &&(EntryId, Dot)| shown.get(id).is_some_and(|entry| entry.covers(*dot));
            if let Some((other, missing)) = batch.iter().find(|write| !covers(write)) {
                let there = shown.get(other);
                return Err(format!("{dot:?} on {id:?}, and not {missing:?} on {other:?}: {there:?}"));
            }
        }
    }
    Ok(())
}

/// The events whose effect a reader sees in this state; of a counter, whose parts are sums, the last of each replica.
fn visible(entry: &Entry) -> Vec<Dot> {
    match &entry.body {
        Body::Element(element) => {
            let alive = element.parts.iter().filter(|(_, part)| matches!(part.state, PartState::Alive(_)));
            alive.map(|(replica, part)| Dot { hlc: part.hlc, replica: *replica }).collect()
        }
        _ => entry.dots(),
    }
}

/// What batches move from one account to another is neither more nor less anywhere: by replica, the sum is nothing.
pub(crate) fn check_sums(shown: &BTreeMap<EntryId, Entry>) -> Result<(), String> {
    let mut sums: BTreeMap<_, i128> = BTreeMap::new();
    for (_, entry) in shown.iter().filter(|(id, _)| id.kind == Kind::Counter) {
        let Body::Counter(counter) = &entry.body else { continue };
        for (birth, part) in &counter.parts {
            *sums.entry(birth.replica).or_default() += i128::from(part.up) - i128::from(part.down);
        }
    }
    match sums.iter().find(|(_, sum)| **sum != 0) {
        Some((replica, sum)) => Err(format!("accounts that {replica:?} has moved {sum} into")),
        None => Ok(()),
    }
}
