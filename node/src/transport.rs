//! Links to the peers: QUIC with mutual TLS, one link per replica, lanes of bounded frames.
//!
//! What a link is made of, by file: `tls` (who may connect, and the limits of a connection), `handshake`
//! and `hello` (who it is), `refusal` (who is turned away, and why), `links` (one per replica), `link` (the
//! lanes), `frame`, `dial` (how links come back), `chunk_fetch` (chunks of large values), `call` (what a node has
//! another do), `wire` (the socket and clock below all that).
//!
//! The rule upheld here: the transport carries frames and knows nothing of what is in them. It needs
//! [`LinkEvents`] of whoever is behind it, and [`ChunkSource`] of the disk.

mod call;
pub(crate) mod chunk_fetch;
mod congestion;
mod control;
mod dial;
mod frame;
mod handshake;
pub(crate) mod hello;
mod in_force;
mod link;
mod links;
mod meter;
mod month;
mod pacer;
pub(crate) mod packing;
mod refusal;
mod schedule;
mod tls;
mod turn;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use quinn::{ConnectionError, Endpoint};
use replication::{ChunkId, Lane, ReplicaId};
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chunks::ChunkStore;
use crate::identity::{Identity, is_label};
pub use call::{Call, CallError};
pub use chunk_fetch::{FetchError, Urgency};
pub use control::{LinkError, LinkView, SharedBudget, Up};
use handshake::Greeted;
use hello::Hello;
pub use in_force::{Budgets, InForce, MonthView, Passed, Why};
pub use link::{LANE_QUEUE_FRAMES, LinkQueues, LinkSender};
use links::{Candidate, Links, permits};
pub use month::{MAX_MONTHS, Months, PerLinks};
pub use pacer::Sent;
use pacer::{PacedSocket, Pacer};
pub use refusal::Reason;
use refusal::{RefusalLog, close_code};
pub use schedule::Schedule;
pub use wire::{Seed, Wire};

/// How many strangers may be in the handshake at once; more are turned away without one.
const MAX_HANDSHAKES: usize = 64;
/// How long a stopping node waits for its links to end, and again for its peers to hear of it.
const SHUTDOWN_STEP: Duration = Duration::from_secs(2);

/// Where this node listens, who it is and whom it dials.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen (UDP). Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The PoP, as the identity has it.
    pub pop: String,
    /// The region: a lower-case DNS label.
    pub region: String,
    /// This incarnation of the data folder.
    pub replica: ReplicaId,
    /// Whom to dial: the PoP, which its certificate must name, and `host:port`.
    pub peers: Vec<(String, String)>,
    /// What it may send.
    pub budgets: Budgets,
    /// Whether what it sends is packed.
    pub packs: bool,
}

/// What the transport needs of whoever reads and fills the links: the engine.
///
/// For each replica the calls come in this order: `connected`, any number of `frame` and `ready`,
/// `disconnected`; and only then, for a new link, `connected` again.
pub trait LinkEvents: Clone + Send + Sync + 'static {
    /// A link is up.
    fn connected(&self, peer: PeerInfo, link: LinkSender) -> impl Future<Output = ()> + Send;
    /// The link is gone.
    fn disconnected(&self, replica: ReplicaId) -> impl Future<Output = ()> + Send;
    /// A frame has come in. While this waits, no more is read from that lane.
    fn frame(&self, replica: ReplicaId, lane: Lane, frame: Bytes) -> impl Future<Output = ()> + Send;
    /// The lane has written a frame and has room for more.
    fn ready(&self, replica: ReplicaId, lane: Lane);
}

/// The peer at the other end of an established link; the handshake has proven it.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its replica.
    pub replica: ReplicaId,
    /// Its PoP's name, as its certificate says.
    pub pop: String,
    /// Its region, as it says.
    pub region: String,
}

/// What the transport needs to answer peers that ask for chunks.
pub trait ChunkSource: Send + Sync + 'static {
    /// The bytes of a chunk, where it is here. Blocking.
    fn read(&self, id: &ChunkId) -> io::Result<Option<Bytes>>;
}

impl ChunkSource for ChunkStore {
    fn read(&self, id: &ChunkId) -> io::Result<Option<Bytes>> {
        ChunkStore::read(self, id)
    }
}

/// Why the transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Another process listens there.
    #[error("UDP {listen} is in use by another process; stop it, or set replication.listen to another port")]
    PortInUse {
        /// The address wanted.
        listen: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on UDP {listen}: {source}; see replication.listen")]
    Listen {
        /// The address wanted.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The certificate, its key and the authority do not make a TLS identity.
    #[error(
        "the identity cannot be used: {problem}; make a fresh join token and run `littoral node init` into a new folder"
    )]
    Identity {
        /// What is wrong.
        problem: String,
    },
    /// The settings contradict the identity or themselves.
    #[error("{problem}")]
    Settings {
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// What is known of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// Smoothed round trip, in microseconds.
    pub rtt_us: u64,
    /// UDP payload bytes sent over this link since it came up, all overhead of QUIC included.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
}

/// Binds the port, starts to dial the peers and lets peers in.
pub async fn start<E: LinkEvents, C: ChunkSource>(
    settings: Settings,
    identity: &Identity,
    events: E,
    chunks: Arc<C>,
) -> Result<Transport, TransportError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => TransportError::PortInUse { listen: settings.listen },
        _ => TransportError::Listen { listen: settings.listen, source },
    };
    let wire = UdpSocket::bind(settings.listen).and_then(Wire::of_system).map_err(failed)?;
    start_on(wire, settings, identity, events, chunks)
}

/// As [`start`], on a wire that is there already. Call it within a tokio runtime.
///
/// # Errors
/// Where identity and settings do not fit, or the wire cannot be used.
pub fn start_on<E: LinkEvents, C: ChunkSource>(
    wire: Wire,
    settings: Settings,
    identity: &Identity,
    events: E,
    chunks: Arc<C>,
) -> Result<Transport, TransportError> {
    check(&settings, identity)?;
    describe_metrics();
    let failed = |source: io::Error| TransportError::Listen { listen: settings.listen, source };
    let tls = tls::Tls::new(identity)?;
    let Wire { socket, runtime, endpoint, seed } = wire;
    let address = socket.local_addr().map_err(failed)?;
    let pacer = Pacer::new(settings.budgets);
    let socket = Arc::new(PacedSocket { socket, pacer: pacer.clone() });
    let endpoint =
        Endpoint::new_with_abstract_socket(endpoint, Some(tls.server), socket, runtime).map_err(failed)?;
    let (takers, calls) = mpsc::channel(call::MAX_WAITING);
    let local = Arc::new(Local {
        hello: Hello {
            cluster: identity.cluster,
            replica: settings.replica,
            boot_nonce: seed.draw("boot nonce"),
            pop: settings.pop,
            region: settings.region,
        },
        endpoint,
        address,
        peers: settings.peers.iter().map(|(pop, _)| pop.clone()).collect(),
        packs: settings.packs,
        client: tls.client,
        seed,
        links: Links::default(),
        chunk_parts: chunk_fetch::Parts::default(),
        calls: takers,
        pacer,
        paused: Mutex::default(),
        refusals: RefusalLog::new(),
        stop: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    let driver = Arc::new(Driver { local: local.clone(), events, chunks });
    for (pop, peer_address) in settings.peers {
        metrics::gauge!("littoral_link_up", "peer" => pop.clone()).set(0.0);
        tasks.spawn(dial::keep_dialling(driver.clone(), pop, peer_address));
    }
    tasks.spawn(let_in(driver, tasks.clone()));
    tracing::info!(%address, pop = local.hello.pop, replica = %local.hello.replica, "listening for peers");
    Ok(Transport { local, tasks, calls: Mutex::new(Some(calls)) })
}

/// The running transport. Dropping it ends its links at once; [`Transport::shutdown`] waits for them.
pub struct Transport {
    local: Arc<Local>,
    tasks: TaskTracker,
    /// Those that come in, until somebody takes them.
    calls: Mutex<Option<mpsc::Receiver<Call>>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("address", &self.local.address).finish_non_exhaustive()
    }
}

impl Transport {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local.address
    }

    /// Fetches a chunk from the connected peers, asked in turn, the nearest first. What it gives hashes to
    /// `id`; it is not stored here.
    /// What comes of one that cannot be had is kept for the next attempt. The urgency may rise meanwhile.
    pub async fn fetch_chunk(
        &self,
        id: ChunkId,
        urgency: watch::Receiver<Urgency>,
    ) -> Result<Bytes, FetchError> {
        chunk_fetch::fetch(&self.local.links, &self.local.chunk_parts, id, urgency).await
    }

    /// Calls a PoP: what is written to the stream comes to whoever takes the calls there.
    ///
    /// # Errors
    /// Where it cannot be reached, or is called too often at once: nothing has reached it then.
    pub async fn call(&self, pop: &str) -> Result<DuplexStream, CallError> {
        call::open(&self.local.links, pop).await
    }

    /// The calls of other PoPs, for the first who asks. Those that nobody takes wait, and are refused when they are many.
    pub fn take_calls(&self) -> Option<mpsc::Receiver<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Figures of the link to this replica; `None` when there is none.
    pub fn link_stats(&self, replica: ReplicaId) -> Option<LinkStats> {
        let stats = self.local.links.connection(replica)?.stats();
        Some(LinkStats {
            rtt_us: stats.path.rtt.as_micros().try_into().unwrap_or(u64::MAX),
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        })
    }

    /// How many peers this node turned away since it started, by reason.
    pub fn refusals(&self) -> watch::Receiver<BTreeMap<Reason, u64>> {
        self.local.refusals.counts()
    }

    /// Ends the links, tells the peers, and returns once the engine has heard of each end. Bounded by
    /// some seconds.
    pub async fn shutdown(&self) {
        self.stop();
        self.tasks.close();
        if timeout(SHUTDOWN_STEP, self.tasks.wait()).await.is_err() {
            tracing::warn!("links did not end within {} s; they are abandoned", SHUTDOWN_STEP.as_secs());
        }
        // Without this a peer might learn of it by its idle timeout only.
        let _ = timeout(SHUTDOWN_STEP, self.local.endpoint.wait_idle()).await;
    }

    fn stop(&self) {
        self.local.stop.cancel();
        self.local.endpoint.close(close_code::SHUTDOWN, b"the node is stopping");
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop();
    }
}

/// This node as its links see it.
struct Local {
    hello: Hello,
    endpoint: Endpoint,
    address: SocketAddr,
    /// The PoPs that are dialled.
    peers: BTreeSet<String>,
    packs: bool,
    client: quinn::ClientConfig,
    seed: Seed,
    links: Links,
    chunk_parts: chunk_fetch::Parts,
    /// Where calls of peers go.
    calls: mpsc::Sender<Call>,
    pacer: Arc<Pacer>,
    /// PoPs whose links are paused, linked or not.
    paused: Mutex<BTreeSet<String>>,
    refusals: RefusalLog,
    stop: CancellationToken,
}

impl Local {
    /// Whether the socket can send there. An IPv6 socket reaches IPv4 too.
    fn can_reach(&self, to: &SocketAddr) -> bool {
        self.address.is_ipv6() || to.is_ipv4()
    }
}

/// What it takes to run a link.
struct Driver<E, C> {
    local: Arc<Local>,
    events: E,
    chunks: Arc<C>,
}

impl<E: LinkEvents, C: ChunkSource> Driver<E, C> {
    /// Runs the link to its end and says how it ended; `None` when another link to the replica stays.
    async fn run(&self, greeted: Greeted) -> Option<ConnectionError> {
        let Greeted { connection, hello, dialler } = greeted;
        let peer = PeerInfo { replica: hello.replica, pop: hello.pop, region: hello.region };
        let class = self.local.pacer.class_of(&peer.pop, peer.region == self.local.hello.region);
        let candidate = Candidate {
            connection,
            gate: Arc::default(),
            pop: peer.pop.clone(),
            class,
            dialler,
            boot_nonce: hello.boot_nonce,
            packs: self.local.packs,
            chunks_out: permits(tls::MAX_CHUNK_REQUESTS),
            calls_out: permits(call::MAX_CALLS),
            calls_in: permits(call::MAX_CALLS),
        };
        let Local { links, refusals, pacer, calls, .. } = &*self.local;
        if !links.admit(peer.replica, &candidate).await {
            return None;
        }
        pacer.add(candidate.connection.remote_address(), peer.replica, &peer.pop, class);
        candidate.gate.pause(self.local.paused().contains(&peer.pop));
        let behind = link::Behind { events: &self.events, chunks: &self.chunks, calls };
        let end = link::drive(&candidate, peer.clone(), behind, refusals, pacer).await;
        pacer.remove(peer.replica);
        links.remove(peer.replica);
        refusals.explain_end(&end, &peer.pop);
        Some(end)
    }
}

/// Lets peers in until the node stops.
async fn let_in<E: LinkEvents, C: ChunkSource>(driver: Arc<Driver<E, C>>, tasks: TaskTracker) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    // `accept` gives nothing once the endpoint is closed.
    while let Some(incoming) = driver.local.endpoint.accept().await {
        match handshakes.clone().try_acquire_owned() {
            Ok(permit) => drop(tasks.spawn(let_one_in(driver.clone(), incoming, permit))),
            Err(_) => incoming.refuse(),
        }
    }
}

async fn let_one_in<E: LinkEvents, C: ChunkSource>(
    driver: Arc<Driver<E, C>>,
    incoming: quinn::Incoming,
    permit: OwnedSemaphorePermit,
) {
    let stranger = incoming.remote_address().ip().to_string();
    let greeted = handshake::accept(&driver.local, incoming).await;
    drop(permit);
    match greeted {
        Ok(greeted) => {
            driver.run(greeted).await;
        }
        Err(failure) => driver.local.refusals.explain(&failure, &stranger),
    }
}

fn check(settings: &Settings, identity: &Identity) -> Result<(), TransportError> {
    let refused = |problem: String| Err(TransportError::Settings { problem });
    let Settings { pop, region, peers, .. } = settings;
    if *pop != identity.pop {
        let theirs = &identity.pop;
        return refused(format!("node.pop is {pop:?}, but the identity is for {theirs:?}: make them agree"));
    }
    if let Some(label) =
        std::iter::once(region).chain(peers.iter().map(|(pop, _)| pop)).find(|name| !is_label(name))
    {
        return refused(format!("{label:?} cannot name a region or PoP: use 1 to 63 of a-z, 0-9 and -"));
    }
    let mut named = BTreeSet::from([pop]);
    match peers.iter().find(|(peer, _)| !named.insert(peer)) {
        Some((peer, _)) => {
            refused(format!("the peer {peer:?} is listed twice, or is this PoP: list each peer once"))
        }
        None => Ok(()),
    }
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_gauge!("littoral_link_up", "1 while a link to the peer is up, else 0");
    describe_counter!("littoral_link_refused_total", "Links this node refused, by reason");
    describe_counter!("littoral_link_dials_total", "Attempts to dial a peer, by how they ended");
    describe_counter!("littoral_link_sent_bytes", Unit::Bytes, "Bytes of frames sent to a peer, by lane");
    describe_counter!(
        "littoral_link_received_bytes",
        Unit::Bytes,
        "Bytes of frames received from a peer, by lane"
    );
}

#[cfg(test)]
mod tests;
