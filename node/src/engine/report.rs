//! What the engine tells operators: one struct that metrics, REST and CLI all read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use littoral::api::{Counters, Lag, Membership, Peer, Position, Status};
use replication::replica::PeerView;
use replication::{Replica, ReplicaId, StoreError};

use super::driver::Driver;
use super::{Condition, ReadError, members};
use crate::storage::SledStore;

/// The node's status at this moment.
pub(super) fn status(driver: &mut Driver, condition: &Condition) -> Result<Status, ReadError> {
    let failed = |error: StoreError| ReadError { reason: error.reason };
    let lag = forecast(driver).map_err(failed)?;
    let driver = &*driver;
    let replica = driver.replica.as_ref();
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
        counters: replica.map(counters).unwrap_or_default(),
        lag,
        membership: replica
            .map_or(Ok(Membership::default()), |replica| membership(driver, replica))
            .map_err(failed)?,
    })
}

fn counters(replica: &Replica<SledStore>) -> Counters {
    let (counters, conflicts) = (replica.counters(), replica.conflicts_kept());
    Counters {
        events_applied: counters.events_applied,
        events_sent: counters.events_sent,
        gaps: counters.gaps,
        rewinds: counters.rewinds,
        held_back: counters.held_back,
        rounds: counters.rounds,
        repaired: counters.repaired,
        dropped: counters.dropped,
        written_anew: counters.written_anew,
        superseded: counters.superseded,
        conflicts: counters.conflicts,
        conflicts_dropped: counters.conflicts_dropped,
        veiled: replica.veil_count().load(Ordering::Acquire) as u64,
        batches_torn: counters.batches_torn,
        folded: counters.folded,
        conflict_rows: conflicts.rows,
        conflict_bytes: conflicts.bytes,
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
    // One that is removed shows while it is linked still: two nodes of one name must be seen.
    let views = replica.peers().filter(|view| view.connected || !is_gone(replica, view.replica));
    let mut peers: Vec<Peer> = views.map(|view| met(driver, view)).collect();
    let unmet = driver.settings.peers.iter().filter(|pop| !peers.iter().any(|peer| peer.pop == **pop));
    let unmet: Vec<Peer> = unmet.map(|pop| Peer { pop: pop.clone(), ..Peer::default() }).collect();
    peers.extend(unmet);
    peers.sort_by(|a, b| a.pop.cmp(&b.pop));
    peers
}

fn met(driver: &Driver, view: PeerView) -> Peer {
    let pops = |replicas: Vec<ReplicaId>| {
        let pops: BTreeSet<String> = replicas.into_iter().map(|replica| driver.pop_of(replica)).collect();
        pops.into_iter().collect()
    };
    Peer {
        pop: driver.pop_of(view.replica),
        replica: Some(view.replica.to_string()),
        connected: view.connected,
        root: view.root.map(|root| root.to_string()),
        clock_offset_ms: view.clock_offset_ms,
        rtt_us: view.rtt_us,
        is_relay: view.is_relay,
        brings: pops(view.brings),
        is_brought: pops(view.is_brought),
    }
}

/// The lag of all, and when it will be gone.
fn forecast(driver: &mut Driver) -> Result<Vec<Lag>, StoreError> {
    let Some(replica) = &driver.replica else { return Ok(Vec::new()) };
    let mut lags = lag(driver, replica)?;
    let mut forecasts = std::mem::take(&mut driver.forecasts);
    forecasts.tell(driver.now().mono_us, &mut lags, |lag| budget(driver, lag));
    driver.forecasts = forecasts;
    Ok(lags)
}

/// What this node may send a second to the peer that is behind it. Who sends it the events of others, and by which
/// budget, is not known here.
fn budget(driver: &Driver, lag: &Lag) -> Option<u64> {
    let is_ours = lag.origin == driver.settings.pop;
    let mut linked =
        driver.links.iter().filter(|(replica, _)| is_ours && driver.pop_of(**replica) == lag.peer);
    Some(linked.find_map(|(_, link)| link.budget())?.bytes_per_s())
}

/// By PoP: what its incarnations wrote, and are missing, is one figure.
fn lag(driver: &Driver, replica: &Replica<SledStore>) -> Result<Vec<Lag>, StoreError> {
    let mut by_pop: BTreeMap<(String, String), Lag> = BTreeMap::new();
    for lag in replica.lag(driver.now())?.iter().filter(|lag| !is_gone(replica, lag.replica)) {
        let (origin, peer) = (driver.pop_of(lag.origin), driver.pop_of(lag.replica));
        let none = Lag { origin: origin.clone(), peer: peer.clone(), ..Lag::default() };
        let sum = by_pop.entry((origin, peer)).or_insert(none);
        sum.ops += lag.ops;
        sum.bytes += lag.bytes;
        sum.time_ms = sum.time_ms.max(lag.time_ms);
    }
    Ok(by_pop.into_values().collect())
}

/// Whether this replica was removed, so that what it lacks is waited for by nobody.
fn is_gone(replica: &Replica<SledStore>, other: ReplicaId) -> bool {
    replica.members().removal(other).is_some()
}

fn membership(driver: &Driver, replica: &Replica<SledStore>) -> Result<Membership, StoreError> {
    let members = replica.members();
    let garbage = members::garbage(replica);
    Ok(Membership {
        stage: members::stage(replica.stage()),
        members: members.current().count() as u64,
        draining: members.current().filter(|(_, member)| member.draining).count() as u64,
        removed: members.iter().filter(|(_, member)| member.removed.is_some()).count() as u64,
        frontier_lag_ms: driver.now().wall_ms.saturating_sub(garbage.frontier_ms),
        garbage,
        clock_skew_ms: replica.clock_skew_ms(),
        dead_letters: replica.dead_letters()?.len() as u64,
    })
}
