//! Where two values meet at a node: whether what lost unseen is in its ledger of conflicts then.

use std::collections::BTreeMap;

use replication::codec::message::Message;
use replication::codec::round::Step;
use replication::{Body, Dot, Entry, EntryId, Kind, ReplicaId};

use super::oracle::NAMESPACE;
use super::{Simulation, rows};

/// A state that comes to a node which has another.
pub(super) struct Meeting {
    id: EntryId,
    here: Entry,
    come: Entry,
    /// It came with the event that wrote it, which was not known here: it has met what is here if that event is known now.
    is_new: bool,
    /// How many conflicts the bounds of the ledger had driven out by then.
    dropped: u64,
}

impl Simulation {
    /// What the message would bring together with what is here. An entry that comes more than once is left out.
    pub(super) fn meetings(&self, to: usize, from: ReplicaId, message: &Message) -> Vec<Meeting> {
        let Some(replica) = self.nodes[to].replica.as_ref().filter(|_| !self.forgot) else {
            return Vec::new();
        };
        let mut come: BTreeMap<EntryId, Vec<(Entry, bool)>> = BTreeMap::new();
        match message.clone() {
            Message::Delta(delta) => {
                let delta = delta.heard_from(from);
                for row in delta.rows {
                    let event = Dot { hlc: row.position.hlc, replica: delta.origin };
                    let Some(entry) = row.entry else { continue };
                    let is_new = entry.dot == event && !replica.vector().covers(event);
                    come.entry(row.id).or_default().push((entry, is_new));
                }
            }
            Message::Round(round) => {
                let Step::Rows(rows) = round.step else { return Vec::new() };
                for row in rows.rows {
                    come.entry(row.id).or_default().push((row.entry, false));
                }
            }
            _ => return Vec::new(),
        }
        let values = come.into_iter().filter(|(id, _)| id.namespace == NAMESPACE && id.kind == Kind::Value);
        let meetings = values.filter_map(|(id, mut states)| {
            let (come, is_new) = states.pop().filter(|_| states.is_empty())?;
            let here = replica.entry(&id).ok()??;
            Some(Meeting { id, here, come, is_new, dropped: replica.counters().conflicts_dropped })
        });
        meetings.collect()
    }

    /// After these have met: what has lost unseen is listed.
    pub(super) fn check_meetings(
        &self,
        node: usize,
        me: ReplicaId,
        meetings: Vec<Meeting>,
    ) -> Result<(), String> {
        let Some(replica) = self.nodes[node].replica.as_ref().filter(|_| self.nodes[node].id == me) else {
            return Ok(());
        };
        for Meeting { id, here, come, is_new, dropped } in meetings {
            // One noticed in the same moment may have had to make room.
            if replica.counters().conflicts_dropped > dropped {
                continue;
            }
            let now = replica.entry(&id).map_err(|error| error.to_string())?.map(|entry| entry.dot);
            let has_won = here.dot < come.dot && now == Some(come.dot);
            let has_lost = come.dot < here.dot && is_new && replica.vector().covers(come.dot);
            let (lost, won) = match (has_won, has_lost) {
                (true, _) => (here, come),
                (_, true) => (come, here),
                _ => continue,
            };
            let listed = rows::conflicts(replica.store())?;
            let is_listed = listed.iter().any(|conflict| conflict.id == id && conflict.lost.dot == lost.dot);
            let is_missed = would_be_missed(&lost, &won) && self.oracle.must_be_noted(lost.dot, won.dot);
            if is_missed && !is_listed {
                return Err(format!(
                    "{me:?} saw {lost:?} on {:?} lose to {won:?}, and does not list it",
                    id.key
                ));
            }
        }
        Ok(())
    }
}

/// Whether somebody may miss the one for the other. Of what expires the core decides by its own clock.
fn would_be_missed(lost: &Entry, won: &Entry) -> bool {
    match (&lost.body, &won.body) {
        (Body::Value(lost), Body::Value(won)) => lost.expires_at_s.is_none() && lost.payload != won.payload,
        (Body::Value(lost), _) => lost.expires_at_s.is_none(),
        _ => false,
    }
}
