//! When what is checked: the oracle's questions put to every replica, throughout and at the end.

use std::fmt::Write as _;

use replication::Replica;

use super::Simulation;
use super::disk::Disk;

impl Simulation {
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica<Disk>> {
        self.nodes.iter().filter_map(|node| node.replica.as_ref())
    }

    /// Everyone holds the same, and everyone knows it.
    pub(super) fn agreed(&self) -> bool {
        let mut replicas = self.replicas();
        let Some(first) = replicas.next() else { return false };
        let same =
            replicas.all(|replica| replica.vector() == first.vector() && replica.root() == first.root());
        let no_lag = |node: usize| {
            let replica = self.nodes[node].replica.as_ref();
            replica.is_some_and(|r| r.lag(self.now(node)).is_ok_and(|lag| lag.iter().all(|lag| lag.ops == 0)))
        };
        same && (0..self.nodes.len()).all(no_lag)
    }

    /// What each replica holds and has counted, for a report.
    pub(super) fn views(&self) -> String {
        self.replicas().fold(String::new(), |mut text, replica| {
            let (id, root, vector) = (replica.id(), replica.root(), replica.vector());
            let _ = write!(text, "\n  {id:?} root {root:?} holds {vector:?}\n    {:?}", replica.counters());
            text
        })
    }

    /// Holds at any moment.
    pub(super) fn check_always(&self) -> Result<(), String> {
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else { continue };
            if !self.forgot {
                self.oracle.check_claims(replica)?;
                self.oracle.check_origins(replica)?;
            }
            self.oracle.check_own(replica)?;
            self.oracle.check_lag(replica, self.now(number))?;
        }
        Ok(())
    }

    /// Holds on every disk, of nodes that are down too: what a node acknowledged is there, and digests are right.
    pub(super) fn check_disks(&self) -> Result<(), String> {
        for node in &self.nodes {
            let (disk, root) = match &node.replica {
                Some(replica) => (replica.store().clone(), Some(replica.root())),
                None => (node.disk.clone(), None),
            };
            // Opening reads every row, and compares counts and root with the summary.
            let reopened = Replica::open(disk, self.settings(), node.id);
            let reopened =
                reopened.map_err(|error| format!("the stored digest is not the recomputed one: {error}"))?;
            if node.staged.is_empty() && root.is_some_and(|root| root != reopened.root()) {
                return Err("the root changes when the store is opened again".into());
            }
            self.oracle.check_own(&reopened)?;
        }
        Ok(())
    }

    /// Holds when all agree.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let repaired: u64 = self.replicas().map(|replica| replica.counters().repaired).sum();
        self.outcome.repaired += repaired;
        if !self.forgot && self.outcome.repaired > 0 {
            return Err(
                "anti-entropy repaired what bookkeeping had claimed, and nothing was forgotten".into()
            );
        }
        for node in &self.nodes {
            let Some(replica) = &node.replica else { return Err("a node is down at the end".into()) };
            self.oracle.check_end(replica)?;
        }
        self.check_disks()
    }
}
