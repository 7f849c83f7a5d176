//! What the engine tells operators: one struct that metrics, REST and CLI all read.

use littoral::api::{Counters, Lag, Peer, Position, Status};
use replication::replica::PeerView;
use replication::{Replica, StoreError};

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
    let mut peers: Vec<Peer> = replica.peers().map(|view| met(driver, view)).collect();
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

fn lag(driver: &Driver, replica: &Replica<SledStore>) -> Result<Vec<Lag>, StoreError> {
    let lags = replica.lag(driver.now())?;
    let mut lags: Vec<Lag> = lags
        .into_iter()
        .map(|lag| Lag {
            origin: driver.pop_of(lag.origin),
            peer: driver.pop_of(lag.replica),
            ops: lag.ops,
            bytes: lag.bytes,
            time_ms: lag.time_ms,
        })
        .collect();
    lags.sort_by(|a, b| (&a.origin, &a.peer).cmp(&(&b.origin, &b.peer)));
    Ok(lags)
}
