//! What the engine tells operators: one struct that metrics, REST and CLI all read.

use std::collections::{BTreeMap, BTreeSet};

use littoral::api::{Counters, Lag, Peer, Position, Status};
use replication::replica::PeerView;
use replication::{Hlc, Replica, ReplicaId, StoreError};

use super::driver::Driver;
use super::{Condition, ReadError};
use crate::storage::SledStore;

/// The node's status at this moment.
pub(super) fn status(driver: &Driver, condition: &Condition) -> Result<Status, ReadError> {
    let replica = driver.replica.as_ref();
    let failed = |error: StoreError| ReadError { reason: error.reason };
    Ok(Status {
        pop: driver.settings.pop.clone(),
        region: driver.settings.region.clone(),
        replica: replica.map(|replica| replica.id().to_string()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").into(),
        state: condition.state,
        reason: condition.reason.clone(),
        root: replica.map(|replica| replica.root().to_string()).unwrap_or_default(),
        entries: replica.map_or(0, Replica::entries),
        vector: replica.map(|replica| vector(driver, replica)).unwrap_or_default(),
        peers: replica.map(|replica| peers(driver, replica)).unwrap_or_default(),
        counters: replica.map(|replica| counters(replica.counters())).unwrap_or_default(),
        lag: replica.map_or(Ok(Vec::new()), |replica| lag(driver, replica)).map_err(failed)?,
    })
}

fn counters(counters: replication::replica::Counters) -> Counters {
    Counters {
        events_applied: counters.events_applied,
        events_sent: counters.events_sent,
        gaps: counters.gaps,
        rewinds: counters.rewinds,
        held_back: counters.held_back,
        rounds: counters.rounds,
        repaired: counters.repaired,
    }
}

fn vector(driver: &Driver, replica: &Replica<SledStore>) -> Vec<Position> {
    let position = |(origin, at): (_, replication::Position)| Position {
        replica: format!("{origin}"),
        pop: driver.pops.get(&origin).cloned(),
        wall_ms: at.hlc.wall_ms(),
        ops: at.ops,
        bytes: at.bytes,
    };
    replica.vector().iter().map(position).collect()
}

fn peers(driver: &Driver, replica: &Replica<SledStore>) -> Vec<Peer> {
    let replaced = replaced(&incarnations(driver, replica));
    let views = replica.peers().filter(|view| !replaced.contains(&view.replica));
    let mut peers: Vec<Peer> = views.map(|view| met(driver, view)).collect();
    let unmet = driver.settings.peers.iter().filter(|pop| !peers.iter().any(|peer| peer.pop == **pop));
    let unmet: Vec<Peer> = unmet
        .map(|pop| Peer {
            pop: pop.clone(),
            replica: None,
            connected: false,
            root: None,
            clock_offset_ms: None,
            rtt_us: None,
        })
        .collect();
    peers.extend(unmet);
    peers.sort_by(|a, b| a.pop.cmp(&b.pop));
    peers
}

fn met(driver: &Driver, view: PeerView) -> Peer {
    Peer {
        pop: driver.pop_of(view.replica),
        replica: Some(view.replica.to_string()),
        connected: view.connected,
        root: view.root.map(|root| root.to_string()),
        clock_offset_ms: view.clock_offset_ms,
        rtt_us: view.rtt_us,
    }
}

/// By PoP: what its incarnations wrote, and are missing, is one figure.
fn lag(driver: &Driver, replica: &Replica<SledStore>) -> Result<Vec<Lag>, StoreError> {
    let replaced = replaced(&incarnations(driver, replica));
    let mut by_pop: BTreeMap<(String, String), Lag> = BTreeMap::new();
    for lag in replica.lag(driver.now())?.iter().filter(|lag| !replaced.contains(&lag.replica)) {
        let (origin, peer) = (driver.pop_of(lag.origin), driver.pop_of(lag.replica));
        let none = Lag { origin: origin.clone(), peer: peer.clone(), ops: 0, bytes: 0, time_ms: 0 };
        let sum = by_pop.entry((origin, peer)).or_insert(none);
        sum.ops += lag.ops;
        sum.bytes += lag.bytes;
        sum.time_ms = sum.time_ms.max(lag.time_ms);
    }
    Ok(by_pop.into_values().collect())
}

/// A replica, and what tells which of two of one PoP came later.
struct Incarnation {
    replica: ReplicaId,
    pop: String,
    /// Whether it is linked, or is this one.
    is_here: bool,
    /// Its newest event.
    newest: Hlc,
}

fn incarnations(driver: &Driver, replica: &Replica<SledStore>) -> Vec<Incarnation> {
    let linked = replica.peers().map(|view| (view.replica, view.connected));
    let all = linked.chain([(replica.id(), true)]);
    let incarnation = |(id, is_here)| Incarnation {
        replica: id,
        pop: driver.pop_of(id),
        is_here,
        newest: replica.vector().hlc(id),
    };
    all.map(incarnation).collect()
}

/// The replicas whose place a later one of the same PoP has taken, as a rebuild does: they never come back, so
/// that their lag would grow for ever. One that is linked still is not among them: two nodes of one name must show.
fn replaced(incarnations: &[Incarnation]) -> BTreeSet<ReplicaId> {
    let has_later = |old: &&Incarnation| {
        incarnations.iter().any(|other| other.pop == old.pop && other.newest > old.newest)
    };
    let gone = incarnations.iter().filter(|old| !old.is_here).filter(has_later);
    gone.map(|old| old.replica).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each incarnation is (PoP, is_here, newest event), and its replica is its place in the list.
    fn check(incarnations: &[(&str, bool, u64)], expected: &[u8]) {
        let incarnation = |(id, (pop, is_here, ms)): (u8, &(&str, bool, u64))| Incarnation {
            replica: ReplicaId([id; 16]),
            pop: (*pop).into(),
            is_here: *is_here,
            newest: Hlc::new(*ms, 0),
        };
        let all: Vec<_> = (0..).zip(incarnations).map(incarnation).collect();
        let expected = expected.iter().map(|id| ReplicaId([*id; 16])).collect();
        assert_eq!(replaced(&all), expected, "{incarnations:?}");
    }

    /// After `serve --rebuild` both incarnations showed under one name: the old one lagged for ever, and its
    /// figures stood in the metrics in place of the new one's.
    #[test]
    fn a_rebuilt_pop_shows_once() {
        check(&[("a", true, 1), ("b", false, 5), ("b", true, 9)], &[1]);
        check(&[("a", true, 1), ("b", false, 9), ("b", false, 5)], &[2]);
        check(&[("b", false, 5), ("b", false, 7), ("b", false, 9)], &[0, 1]);
    }

    #[test]
    fn two_nodes_of_one_name_and_a_pop_that_is_away_still_show() {
        check(&[("a", true, 1), ("b", true, 5), ("b", true, 9)], &[]);
        check(&[("a", true, 9), ("b", false, 1)], &[]);
        check(&[("b", false, 5), ("b", false, 5)], &[]);
    }
}
