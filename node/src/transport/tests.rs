//! The transport against itself and against hand-made peers, with a recorder in the engine's place.

mod chunks;
mod lifecycle;
mod refused;

use std::collections::BTreeMap;
use std::sync::Mutex;

use quinn::{Connection, EndpointConfig, TokioRuntime};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

use super::*;
use crate::identity::{Authority, ClusterId, Validity, pop_dns_name};

/// A test that waits longer than this has failed. Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1:0";

/// Bytes without any order, which nothing can pack.
pub(super) fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

async fn soon<F: Future>(awaited: F) -> F::Output {
    timeout(PATIENCE, awaited).await.expect("what was awaited did not come about")
}

#[derive(Debug)]
enum Event {
    Connected(PeerInfo, LinkSender),
    Disconnected(ReplicaId),
    Frame(ReplicaId, Lane, Bytes),
}

/// Stands in for the engine.
#[derive(Clone)]
struct Recorder {
    events: mpsc::UnboundedSender<Event>,
    ready: watch::Sender<BTreeMap<(ReplicaId, Lane), u64>>,
    /// The engine takes frames of the bulk lane while this has permits.
    bulk: Arc<Semaphore>,
}

impl LinkEvents for Recorder {
    async fn connected(&self, peer: PeerInfo, link: LinkSender) {
        let _ = self.events.send(Event::Connected(peer, link));
    }

    async fn disconnected(&self, replica: ReplicaId) {
        let _ = self.events.send(Event::Disconnected(replica));
    }

    async fn frame(&self, replica: ReplicaId, lane: Lane, frame: Bytes) {
        if lane == Lane::Bulk {
            self.bulk.acquire().await.unwrap().forget();
        }
        let _ = self.events.send(Event::Frame(replica, lane, frame));
    }

    fn ready(&self, replica: ReplicaId, lane: Lane) {
        self.ready.send_modify(|ready| *ready.entry((replica, lane)).or_default() += 1);
    }
}

/// Chunks served as they are, whether they match their names or not.
#[derive(Default)]
struct Chunks(Mutex<BTreeMap<[u8; 32], Bytes>>);

impl ChunkSource for Chunks {
    fn read(&self, id: &ChunkId) -> io::Result<Option<Bytes>> {
        Ok(self.0.lock().unwrap().get(&id.0).cloned())
    }
}

/// An authority, and identities of its making.
struct Cluster(Authority);

impl Cluster {
    fn new(id: u8) -> Self {
        let life = Validity::from_now(Duration::from_secs(3_600));
        Self(Authority::create(ClusterId([id; 16]), [0; 32], life).unwrap())
    }

    fn identity(&self, pop: &str) -> Identity {
        self.identity_valid(pop, Validity::of_certificates())
    }

    fn identity_valid(&self, pop: &str, validity: Validity) -> Identity {
        let issued = self.0.issue(pop, validity).unwrap();
        Identity {
            pop: pop.into(),
            cluster: self.0.cluster,
            digest_secret: self.0.digest_secret,
            chain: vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()],
            key: PrivatePkcs8KeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
            authority: CertificateDer::from_pem_slice(self.0.certificate_pem.as_bytes()).unwrap(),
        }
    }
}

fn settings(pop: &str, replica: u8, peers: &[(&str, SocketAddr)]) -> Settings {
    Settings {
        budgets: Budgets::default(),
        packs: true,
        listen: LOOPBACK.parse().unwrap(),
        pop: pop.into(),
        region: "eu".into(),
        replica: ReplicaId([replica; 16]),
        peers: peers.iter().map(|(pop, address)| (pop.to_string(), address.to_string())).collect(),
    }
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A whole transport with its recorder.
struct TestNode {
    transport: Transport,
    replica: ReplicaId,
    events: mpsc::UnboundedReceiver<Event>,
    recorder: Recorder,
    chunks: Arc<Chunks>,
}

impl TestNode {
    fn start(cluster: &Cluster, pop: &str, replica: u8, peers: &[(&str, SocketAddr)]) -> Self {
        Self::start_on(socket().0, cluster, pop, replica, peers)
    }

    fn start_on(
        socket: UdpSocket,
        cluster: &Cluster,
        pop: &str,
        replica: u8,
        peers: &[(&str, SocketAddr)],
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let bulk = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let recorder = Recorder { events: sender, ready: watch::Sender::default(), bulk };
        let chunks = Arc::new(Chunks::default());
        let settings = settings(pop, replica, peers);
        let (identity, replica) = (cluster.identity(pop), settings.replica);
        let wire = Wire::of_system(socket).unwrap();
        let transport = start_on(wire, settings, &identity, recorder.clone(), chunks.clone()).unwrap();
        Self { transport, replica, events, recorder, chunks }
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_addr()
    }

    async fn next(&mut self) -> Event {
        soon(self.events.recv()).await.unwrap()
    }

    async fn connected(&mut self) -> (PeerInfo, LinkSender) {
        match self.next().await {
            Event::Connected(peer, link) => (peer, link),
            other => panic!("{other:?}"),
        }
    }

    async fn disconnected(&mut self) -> ReplicaId {
        match self.next().await {
            Event::Disconnected(replica) => replica,
            other => panic!("{other:?}"),
        }
    }

    async fn frame(&mut self) -> (ReplicaId, Lane, Bytes) {
        match self.next().await {
            Event::Frame(replica, lane, frame) => (replica, lane, frame),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until this many refusals for this reason have been counted.
    async fn refused(&self, reason: Reason, count: u64) {
        let mut counts = self.transport.refusals();
        let reached = counts.wait_for(|counts| counts.get(&reason).copied().unwrap_or(0) >= count);
        soon(reached).await.unwrap();
    }

    /// Waits until the lane has written this many frames.
    async fn wrote(&self, to: ReplicaId, lane: Lane, count: u64) {
        let mut ready = self.recorder.ready.subscribe();
        soon(ready.wait_for(|ready| ready.get(&(to, lane)).copied().unwrap_or(0) >= count)).await.unwrap();
    }
}

/// A peer that speaks QUIC and TLS as ours do, and then does as the test pleases.
struct HandMade {
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    hello: Hello,
}

impl HandMade {
    fn new(identity: &Identity, replica: u8) -> Self {
        let tls = tls::Tls::new(identity).unwrap();
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(tls.server), socket().0, runtime).unwrap();
        let hello = Hello {
            cluster: identity.cluster,
            replica: ReplicaId([replica; 16]),
            boot_nonce: [replica; 16],
            pop: identity.pop.clone(),
            region: "eu".into(),
        };
        Self { endpoint, client: tls.client, hello }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    async fn dial(&self, pop: &str, to: SocketAddr) -> Result<Connection, ConnectionError> {
        soon(self.endpoint.connect_with(self.client.clone(), to, &pop_dns_name(pop)).unwrap()).await
    }

    async fn accept(&self) -> Connection {
        soon(soon(self.endpoint.accept()).await.unwrap().accept().unwrap()).await.unwrap()
    }
}

/// Opens a stream, writes `bytes` as they are, and ends it.
async fn say(connection: &Connection, bytes: &[u8]) {
    let mut stream = soon(connection.open_uni()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.finish().unwrap();
}

async fn say_hello(connection: &Connection, hello: &Hello) {
    let bytes = hello.encode();
    say(connection, &framed(&bytes)).await;
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// The code with which the other side closed the connection.
async fn close_code_of(connection: &Connection) -> u64 {
    match soon(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other:?}"),
    }
}
