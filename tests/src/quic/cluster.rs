//! A cluster of nodes on one network in memory, all of which dial one another, and what must hold of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use littoral_node::identity::Identity;
use littoral_node::transport::{self, Budgets, Transport};
use replication::codec::message::Stage;
use replication::{Body, DigestKey, EntryId, NamespaceId, Payload, Replica, ReplicaId, Settings, Value};
use tokio::time::sleep;

use super::identities;
use super::network::{Network, Path};
use super::node::{NoChunks, Node, Place, Shared, lock};
use super::socket;
use super::vandal::{Standing, Vandal};
use crate::random::{Random, mix};
use crate::sim::oracle::Oracle;

/// The most nodes of one cluster. Names are of one length, so that certificates are.
const POPS: [&str; 5] = ["ams", "fra", "lon", "par", "sto"];
/// The PoP of a [`Vandal`].
const VANDAL_POP: &str = "zzz";
/// Its number, which no node has.
const VANDAL: usize = POPS.len();
/// How often a condition that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The pause between two heartbeats; production's default is of this size.
const HEARTBEAT_EVERY_US: u64 = 500_000;
const PORT: u16 = 4_433;

/// Where the node of this number listens.
pub fn address(node: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, node as u8 + 1), PORT).into()
}

fn replica(node: usize) -> ReplicaId {
    ReplicaId([node as u8 + 1; 16])
}

fn make_identities(pops: &[&str]) -> Result<Vec<Identity>, String> {
    identities::make(pops).map_err(|error| format!("no identities: {error:#}"))
}

/// Runs `act` on virtual time, in one thread.
///
/// # Errors
/// Those of `act`.
pub fn on_virtual_time<T>(act: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(act)
}

/// The nodes, and the network between them.
pub struct Cluster {
    /// The network; its paths are the caller's to change.
    pub network: Network,
    shared: Shared,
    nodes: Vec<Node>,
    /// Of the cluster, for a PoP that none of the nodes knows.
    spare: Identity,
    writes: u64,
}

impl Cluster {
    /// Starts `count` nodes. Call it within [`on_virtual_time`].
    ///
    /// # Errors
    /// Where a node does not start.
    pub fn start(seed: u64, count: usize, path: Path) -> Result<Self, String> {
        Self::start_with(seed, count, path, &Budgets::default())
    }

    /// As [`Cluster::start`], with these budgets at each node.
    ///
    /// # Errors
    /// Where a node does not start.
    pub fn start_with(seed: u64, count: usize, path: Path, budgets: &Budgets) -> Result<Self, String> {
        let network = Network::new(mix(seed), path);
        tokio::spawn(network.clone().carry());
        let shared = Shared {
            network: network.clone(),
            oracle: Arc::new(Mutex::new(Oracle::default())),
            violation: Arc::default(),
            replica: Settings {
                heartbeat_every_us: HEARTBEAT_EVERY_US,
                ..Settings::new([1; 16], DigestKey::new([2; 32]))
            },
        };
        let pops = &POPS[..count];
        let mut identities = make_identities(&[pops, &[VANDAL_POP]].concat())?;
        let spare = identities.pop().expect("one was made for each name");
        let nodes = identities.into_iter().enumerate().map(|(number, identity)| {
            let peers = (0..count).filter(|peer| *peer != number);
            let peers = peers.map(|peer| (pops[peer].into(), address(peer).to_string())).collect();
            let is_founder = number == 0;
            let (replica, address, budgets) = (replica(number), address(number), budgets.clone());
            let place = Place { identity, replica, address, peers, is_founder, budgets };
            Node::new(place, shared.clone(), mix(seed ^ 0x5eed) ^ number as u64)
        });
        let mut cluster = Self { network, nodes: nodes.collect(), spare, shared, writes: 0 };
        for node in 0..count {
            cluster.restart(node)?;
        }
        Ok(cluster)
    }

    /// How many nodes there are, running or not.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Starts a node that is down, with the disk it had, on a new endpoint.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].start()
    }

    /// Stops a node as an operator does.
    pub async fn stop(&mut self, node: usize) {
        self.nodes[node].stop().await;
    }

    /// Ends a node without a word to its peers.
    pub fn crash(&mut self, node: usize) {
        self.nodes[node].crash();
    }

    /// Starts a vandal that dials every node.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_vandal(&self, seed: u64, standing: Standing) -> Result<Transport, String> {
        let (number, own);
        let identity = match standing {
            Standing::Member => {
                number = VANDAL;
                &self.spare
            }
            Standing::Impostor { node } => {
                number = node;
                own = make_identities(&[POPS[node]])?.remove(0);
                &own
            }
        };
        let peers = (0..self.count()).filter(|peer| *peer != number);
        let settings = transport::Settings {
            budgets: Budgets::default(),
            packs: true,
            listen: address(number),
            pop: identity.pop.clone(),
            region: "eu".into(),
            replica: replica(number),
            peers: peers.map(|peer| (POPS[peer].into(), address(peer).to_string())).collect(),
        };
        let wire = socket::wire(&self.network, settings.listen, seed);
        transport::start_on(wire, settings, identity, Vandal { seed }, Arc::new(NoChunks))
            .map_err(|error| format!("the vandal does not start: {error}"))
    }

    /// Has a node write `len` bytes to a key; one that is down does not.
    pub fn write(&mut self, node: usize, key: &str, len: usize) {
        self.writes += 1;
        let mut bytes = format!("write {} at {}, ", self.writes, POPS[node]).into_bytes();
        // Bytes that cannot be packed, so that they take their room on the wire.
        let told = bytes.len();
        bytes.resize(len.max(told), 0);
        Random::new(self.writes).fill(&mut bytes[told..]);
        let value = Value { payload: Payload::Inline(bytes.into()), metadata: None, expires_at_s: None };
        self.nodes[node]
            .write(EntryId::value(NamespaceId([9; 16]), Bytes::from(key.to_owned())), Body::Value(value));
    }

    /// The transport of a running node.
    pub fn transport(&self, node: usize) -> Option<&Transport> {
        self.nodes[node].transport()
    }

    /// Whether `node` has a link to `peer`.
    pub fn is_linked(&self, node: usize, peer: usize) -> bool {
        self.nodes[node].inspect(|engine| engine.is_linked(replica(peer))).unwrap_or(false)
    }

    /// Whether `node` claims to hold all that `origin` has written.
    pub fn holds_all_of(&self, node: usize, origin: usize) -> bool {
        let held = |node: usize| {
            let held = self.nodes[node]
                .inspect(|engine| engine.replica.as_ref().map(|it| it.vector().hlc(replica(origin))));
            held.flatten()
        };
        held(origin).is_some_and(|written| held(node) >= Some(written))
    }

    /// How many links a node has had since it started.
    pub fn links_had(&self, node: usize) -> u64 {
        self.nodes[node].inspect(|engine| engine.links_had).unwrap_or(0)
    }

    /// How many links a node has closed since it started because the peer sent what the protocol forbids.
    pub fn links_closed(&self, node: usize) -> u64 {
        self.nodes[node].inspect(|engine| engine.links_closed).unwrap_or(0)
    }

    /// How long `peer` has lacked the oldest write of `node` that it lacks, as `node` knows it.
    pub fn lag_ms(&self, node: usize, peer: usize) -> Option<u64> {
        let now = self.shared.now();
        let lags = self.nodes[node].inspect(|engine| engine.replica.as_ref().map(|it| it.lag(now)));
        let mut lags = lags.flatten()?.ok()?.into_iter();
        lags.find(|lag| (lag.origin, lag.replica) == (replica(node), replica(peer))).map(|lag| lag.time_ms)
    }

    /// Every pair is linked, everyone holds the same, and everyone knows it.
    pub fn agrees(&self) -> bool {
        let now = self.shared.now();
        // A vandal that was linked once is known as a peer, and acknowledges nothing.
        let ours = |id: &ReplicaId| (0..self.count()).any(|node| replica(node) == *id);
        let view = |node: &Node| {
            node.inspect(|engine| {
                let replica = engine.replica.as_ref()?;
                let lags = replica.lag(now).ok()?;
                let no_lag = lags.iter().all(|lag| lag.ops == 0 || !ours(&lag.replica));
                // Claims follow the clocks while nothing is written; events do not.
                let events: Vec<_> = replica.vector().iter().map(|(origin, at)| (origin, at.ops)).collect();
                (no_lag && replica.stage() == Stage::Member).then(|| (replica.root(), events))
            })
        };
        let mut views = self.nodes.iter().map(|node| view(node).flatten());
        let first = views.next().flatten();
        let pairs = || (0..self.count()).flat_map(|a| (0..self.count()).map(move |b| (a, b)));
        first.is_some()
            && views.all(|view| view == first)
            && pairs().filter(|(a, b)| a != b).all(|(a, b)| self.is_linked(a, b))
    }

    /// Lets virtual time pass until `holds`.
    ///
    /// # Errors
    /// A violation on the way; or that it does not come to hold within `limit_s`.
    pub async fn until(
        &self,
        what: &str,
        limit_s: u64,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let end_us = self.network.now_us() + limit_s * 1_000_000;
        loop {
            self.check()?;
            if holds(self) {
                return Ok(());
            }
            if self.network.now_us() > end_us {
                return Err(self.failed(&format!("{what}: not within {limit_s} s")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// What must hold at any moment.
    ///
    /// # Errors
    /// The first breach.
    pub fn check(&self) -> Result<(), String> {
        if let Some(violation) = lock(&self.shared.violation).take() {
            return Err(self.failed(&violation));
        }
        match self.nodes.iter().position(Node::is_broken) {
            Some(node) => Err(self.failed(&format!("the driver of {} has ended", POPS[node]))),
            None => Ok(()),
        }
    }

    /// That each claim of each replica is true; slow with many writes.
    ///
    /// # Errors
    /// The first claim that is not.
    pub fn check_claims(&self) -> Result<(), String> {
        self.check_replicas(|oracle, replica| oracle.check_states(replica))
    }

    /// That every entry is a write that was issued, and none acknowledged is lost.
    ///
    /// # Errors
    /// The first entry for which this does not hold.
    pub fn check_end(&self) -> Result<(), String> {
        self.check()?;
        self.check_claims()?;
        self.check_replicas(|oracle, replica| {
            let repaired = replica.counters().repaired;
            if repaired > 0 {
                return Err(format!("anti-entropy repaired {repaired} entries that bookkeeping had claimed"));
            }
            oracle.check_end(replica)
        })
    }

    fn check_replicas(
        &self,
        check: impl Fn(&Oracle, &Replica<replication::store::memory::MemoryStore>) -> Result<(), String>,
    ) -> Result<(), String> {
        let oracle = lock(&self.shared.oracle);
        for node in &self.nodes {
            let checked =
                node.inspect(|engine| engine.replica.as_ref().map_or(Ok(()), |it| check(&oracle, it)));
            checked.unwrap_or(Ok(())).map_err(|violation| self.failed(&violation))?;
        }
        Ok(())
    }

    /// A violation with when it was seen and what each node held then.
    fn failed(&self, violation: &str) -> String {
        let mut text = format!("at {:.3} s: {violation}", self.network.now_us() as f64 / 1e6);
        for (number, node) in self.nodes.iter().enumerate() {
            let linked: Vec<_> = (0..self.count()).filter(|peer| self.is_linked(number, *peer)).collect();
            let held = node.inspect(|engine| {
                engine.replica.as_ref().map(|replica| format!("{:?} {:?}", replica.root(), replica.vector()))
            });
            let held = held.flatten().unwrap_or_else(|| "down".into());
            text.push_str(&format!("\n  {} linked with {linked:?}: {held}", POPS[number]));
        }
        text
    }
}
