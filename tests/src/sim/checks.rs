//! When what is checked: the oracle's questions put to every replica, throughout and at the end.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use replication::codec::message::Stage;
use replication::replica::returned;
use replication::{Body, Dot, Entry, Replica, ReplicaId};

use super::disk::Disk;
use super::nodes::Node;
use super::{Simulation, rows};

impl Simulation {
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica<Disk>> {
        self.nodes.iter().filter_map(|node| node.replica.as_ref())
    }

    /// Everyone holds the same, and everyone knows it; and nothing is left of what was over.
    pub(super) fn agreed(&self) -> bool {
        let is_out = |node: usize| {
            let is_removed =
                |replica: &Replica<Disk>| replica.members().removal(self.nodes[node].id).is_some();
            self.is_out_for_good(node) && self.replicas().any(is_removed)
        };
        let is_back = (0..self.nodes.len()).all(|node| self.nodes[node].replica.is_some() || is_out(node));
        let mut ids: Vec<ReplicaId> = self.replicas().map(Replica::id).collect();
        ids.sort_unstable();
        ids.dedup();
        let Some(first) = self.replicas().next() else { return false };
        // Claims follow the clocks while nothing is written; events do not. Of one that was removed claims stand still; and
        // if it was cloned, two who hold all of it may have counted different events.
        let events = |replica: &Replica<Disk>| -> Vec<_> {
            let removed = |origin| replica.members().removal(origin).is_some();
            let held = replica.vector().iter();
            held.map(|(origin, at)| (origin, if removed(origin) { at.hlc.to_bits() } else { at.ops }))
                .collect()
        };
        let same = |replica: &Replica<Disk>| {
            let garbage = replica.garbage();
            let waits = garbage.waiting.tombstones + garbage.waiting.expiring > 0;
            let is_collected =
                garbage.log_rows == 0 && garbage.swept && (!waits || only_orphans_wait(replica));
            replica.stage() == Stage::Member
                && is_collected
                && replica.root() == first.root()
                && events(replica) == events(first)
        };
        is_back
            && ids.len() == self.replicas().count()
            && self.replicas().all(same)
            && (0..self.nodes.len()).all(|node| self.nobody_lags(node))
    }

    fn nobody_lags(&self, node: usize) -> bool {
        let Some(replica) = &self.nodes[node].replica else { return true };
        let is_in = |id| replica.members().contains(id);
        let lags = replica.lag(self.now(node)).unwrap_or_default();
        let between_members = lags.iter().filter(|lag| is_in(lag.replica) && is_in(lag.origin));
        between_members.map(|lag| lag.ops).sum::<u64>() == 0
    }

    /// What each replica holds and has counted, for a report.
    pub(super) fn views(&self) -> String {
        self.reports() + &self.differences()
    }

    /// The entries that not all replicas have in the same state.
    fn differences(&self) -> String {
        let mut text = String::new();
        let held: Result<Vec<_>, _> = self.replicas().map(|replica| rows::entries(replica.store())).collect();
        let Ok(held) = held else { return "\n  a store cannot be read".into() };
        let ids: BTreeSet<_> = held.iter().flat_map(|entries| entries.keys()).collect();
        for id in ids {
            let states: Vec<_> = held.iter().map(|entries| entries.get(id)).collect();
            if states.iter().any(|state| *state != states[0]) {
                let _ = write!(text, "\n  {:?}: {states:?}", id.key);
            }
        }
        text
    }

    fn reports(&self) -> String {
        self.replicas().fold(String::new(), |mut text, replica| {
            let _ = write!(text, "\n  {:?} {:?} root {:?}", replica.id(), replica.stage(), replica.root());
            for (origin, at) in replica.vector().iter() {
                let _ = write!(text, " {origin:?}:{}/{}", at.hlc, at.ops);
            }
            let garbage = replica.garbage();
            let _ = write!(
                text,
                "\n    epoch {} swept {} frontier {} {:?} log {}",
                garbage.epoch, garbage.swept, garbage.frontier, garbage.waiting, garbage.log_rows
            );
            for lag in replica.lag(self.now(0)).unwrap_or_default().iter().filter(|lag| lag.ops > 0) {
                let _ = write!(text, "\n    {lag:?}");
            }
            for holder in garbage.holders.iter().take(2) {
                let _ =
                    write!(text, "\n    {:?} holds {:?} up to {}", holder.member, holder.origin, holder.upto);
            }
            for entry in waiting(replica).iter().take(2) {
                let _ = write!(text, "\n    {entry:?} waits to be dropped");
            }
            let removed = replica.members().iter().filter(|(_, member)| member.removed.is_some());
            let _ = write!(text, "\n    removed {:?}", removed.map(|(id, _)| id).collect::<Vec<_>>());
            let _ = write!(text, "\n    {:?}", replica.counters());
            text
        })
    }

    /// Lets the oracle know all that is claimed durably.
    pub(super) fn note_claims(&mut self) {
        for replica in self.nodes.iter().filter_map(|node| node.replica.as_ref()) {
            self.oracle.note(replica.id(), replica.vector());
            self.oracle.note_members(replica);
        }
    }

    /// Holds at any moment.
    pub(super) fn check_always(&mut self) -> Result<(), String> {
        self.note_claims();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else { continue };
            if !self.forgot && !self.oracle.doubts(node.id) {
                self.oracle.check_states(replica)?;
            }
            if !self.forgot {
                self.oracle.check_ledger(replica)?;
            }
            self.oracle.check_epoch(replica)?;
            self.oracle.check_own(replica.id(), replica.vector())?;
            self.oracle.check_lag(replica, self.now(number))?;
        }
        Ok(())
    }

    /// Holds on every disk, of nodes that are down too: what a node acknowledged is there, and digests are right.
    pub(super) fn check_disks(&self) -> Result<(), String> {
        for node in &self.nodes {
            let disk = node.replica.as_ref().map_or(&node.disk, Replica::store).clone();
            // Opening reads every row, and compares counts and root with the summary.
            let reopened = Replica::open(disk, self.settings(0), node.id);
            let reopened =
                reopened.map_err(|error| format!("the stored digest is not the recomputed one: {error}"))?;
            // What rot has taken the index misses at the next opening, and then it is made anew.
            let indexed = node.replica.as_ref().map_or(reopened.store(), Replica::store);
            rows::check_chunk_index(indexed)?;
            let settled = node.replica.as_ref().filter(|replica| replica.store().memory().unflushed() == 0);
            if settled.is_some_and(|replica| replica.root() != reopened.root()) {
                return Err("the root changes when the store is opened again".into());
            }
            // What is staged is in the tree already.
            let is_told = |replica: &&Replica<Disk>| replica.tree().root() == replica.root();
            if settled.filter(is_told).is_some_and(|replica| replica.tree() != reopened.tree()) {
                return Err("the counts or the sketch change when the store is opened again".into());
            }
            self.oracle.check_own(reopened.id(), reopened.vector())?;
            self.oracle.check_swept(&reopened)?;
        }
        Ok(())
    }

    /// Holds when all agree.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let counters: Vec<_> = self.replicas().map(|replica| replica.counters()).collect();
        for counters in counters {
            self.outcome.repaired += counters.repaired;
            self.outcome.dropped += counters.dropped;
            self.outcome.folded += counters.folded;
            self.outcome.written_anew += counters.written_anew;
        }
        // What a removed replica wrote, and others hold ahead of its claims, is brought to all by rounds.
        let has_removed = self
            .replicas()
            .any(|replica| replica.members().iter().any(|(_, member)| member.removed.is_some()));
        let is_doubtful = has_removed || self.nodes.iter().any(|node| node.incarnation > 0);
        if !self.forgot && !is_doubtful && self.outcome.repaired > 0 {
            return Err(
                "anti-entropy repaired what bookkeeping had claimed, and nothing was forgotten".into()
            );
        }
        let mut letters: BTreeSet<Dot> = BTreeSet::new();
        for replica in self.replicas() {
            let listed = replica.dead_letters().map_err(|error| error.to_string())?;
            letters.extend(listed.iter().map(|letter| letter.entry.dot));
        }
        self.outcome.dead_letters += letters.len() as u64;
        let is_out = |node: &&Node| node.replica.is_none();
        let out: BTreeSet<ReplicaId> = self.nodes.iter().filter(is_out).map(|node| node.id).collect();
        // What such a node had brought back of earlier incarnations is on its disk still.
        for node in self.nodes.iter().filter(is_out) {
            let mut visit = |state: replication::codec::round::RepairRow| {
                letters.insert(state.entry.dot);
                Ok(())
            };
            returned::salvage(&node.disk, &mut visit).map_err(|error| error.to_string())?;
        }
        let present: BTreeSet<ReplicaId> = self.replicas().map(Replica::id).collect();
        for replica in self.replicas() {
            self.oracle.check_end(replica)?;
            self.oracle.check_no_older_copy(replica)?;
            self.oracle.check_accounts(replica, &letters, &out)?;
            if !self.forgot && !self.oracle.has_doubts() && out.is_empty() {
                self.oracle.check_bounded_sums(replica, &letters)?;
            }
            // A replica whose store was rolled back goes on where nobody has heard more of it; sums leave out what it wrote.
            if !self.forgot && !is_doubtful && !self.oracle.has_doubts() {
                self.oracle.check_changes(replica, self.now(0).wall_ms / 1000)?;
                self.oracle.check_documents(replica, &present, self.now(0).wall_ms / 1000)?;
            }
        }
        self.check_disks()
    }
}

/// Whether all that waits to be dropped are states, or parts of states, of removed replicas from above their cuts.
fn only_orphans_wait(replica: &Replica<Disk>) -> bool {
    let is_orphan =
        |dot: &Dot| replica.members().removal(dot.replica).is_some() && !replica.vector().covers(*dot);
    waiting(replica).iter().all(|entry| entry.dots().iter().any(is_orphan))
}

/// The states that are over, or will be, and wait to be dropped.
fn waiting(replica: &Replica<Disk>) -> Vec<Entry> {
    let waits = |entry: &Entry| match &entry.body {
        Body::Value(_) | Body::Tombstone => entry.is_over_at().is_some(),
        parts => parts.is_tombstone() || parts.next_expiry().is_some(),
    };
    rows::states(replica.store()).unwrap_or_default().into_values().filter(waits).collect()
}
