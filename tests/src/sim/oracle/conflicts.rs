//! What must hold of the ledger of conflicts, said of what each writer held when it wrote.

use replication::codec::conflict::Conflict;
use replication::{Body, Dot, EntryId, Hlc, Replica, Store, VersionVector};

use super::Oracle;
use crate::sim::rows;

/// What the writer of a value had before it.
pub(super) struct Seen {
    /// Whose state of the entry.
    over: Option<Dot>,
    /// Whose events.
    held: VersionVector,
}

impl Oracle {
    /// The event writes a value where its writer has this state of it, and these events.
    pub(crate) fn writes_over(&mut self, dot: Dot, over: Option<Dot>, held: VersionVector) {
        self.seen.insert(dot, Seen { over, held });
    }

    /// What the winner's writer had when its run of writes began; `None` where that is not known.
    fn run_of(&self, won: Dot) -> Option<&Seen> {
        let mut seen = self.seen.get(&won)?;
        while let Some(own) = seen.over.filter(|over| over.replica == won.replica) {
            seen = self.seen.get(&own)?;
        }
        Some(seen)
    }

    /// Whether the run of writes that `won` is of passed over `lost` unseen, so that whoever sees them meet has to note it:
    /// what the run began with is older than `lost`.
    pub(crate) fn must_be_noted(&self, lost: Dot, won: Dot) -> bool {
        let is_known = !self.doubts(lost.replica) && !self.doubts(won.replica);
        let run = self.run_of(won).filter(|_| is_known && lost.replica != won.replica);
        run.is_some_and(|run| {
            let base = run.over.map_or(Hlc::ZERO, |over| over.hlc);
            !run.held.covers(lost) && base < lost.hlc
        })
    }

    /// Each value in the ledger was written, and lost to a write of another replica that had not seen it when its run
    /// began.
    pub(crate) fn check_ledger(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        rows::conflicts(replica.store())?.iter().try_for_each(|conflict| {
            let wrong = |what: &str| Err(format!("{:?} lists {conflict:?}, and {what}", replica.id()));
            let Conflict { id, lost, won, .. } = conflict;
            if lost.dot.replica == won.replica || lost.dot > *won {
                return wrong("that did not lose to another replica's");
            }
            if self.doubts(lost.dot.replica) || self.doubts(won.replica) {
                return Ok(());
            }
            if !self.was_written(lost.dot, id, &lost.body) {
                return wrong("nobody wrote what lost");
            }
            match self.run_of(*won) {
                Some(run) if run.held.covers(lost.dot) || run.over == Some(lost.dot) => {
                    wrong("the winner's writer had seen it")
                }
                _ => Ok(()),
            }
        })
    }

    fn was_written(&self, dot: Dot, id: &EntryId, body: &Body) -> bool {
        let unsettled = self.unsettled.iter().filter(|((_, known), _)| *known == dot).map(|(_, write)| write);
        let mut written = self.durable.get(&dot).into_iter().chain(unsettled);
        let is_it = |(known_id, known): &(EntryId, Body)| known_id == id && known == body;
        written.any(is_it)
    }
}
