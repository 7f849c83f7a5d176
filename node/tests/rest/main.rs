//! The HTTP surface as its clients meet it: real sockets, raw requests, one node per test.
//!
//! Requests are written byte by byte (`client.rs`), because much of what is tested here no well-behaved
//! client library would send.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod batch;
mod binding;
mod bulk;
mod client;
mod conflicts;
mod connections;
mod documents;
mod http2;
mod keys;
mod kinds;
mod large;
mod multipart;
mod namespaces;
mod native;
mod quotas;
mod sessions;
mod tls;
mod tokens;
mod values;
mod values_client;
mod values_v1;
mod watch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use littoral::api::State;
use littoral_node::chunk_flight::{ChunkFetch, ChunkFlights};
use littoral_node::chunks::ChunkStore;
use littoral_node::engine::{self, Engine, StartError};
use littoral_node::http::{
    AccountToken, DocumentSettings, Door, HttpContext, Limits, LinkControl, Listener, Surface, serve,
};
use littoral_node::transport::{CallError, LinkError, LinkView, SharedBudget, Urgency};
use replication::budget::{Burst, Rate, Scope};
use replication::{ChunkId, DigestKey};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use client::Client;

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const OTHER_ACCOUNT: &str = "ffffffffffffffffffffffffffffffff";
const TOKEN: &str = "test-token";
const OTHER_TOKEN: &str = "other-token";
/// One of the configuration, for the account and nothing else.
const ACCOUNT_TOKEN: &str = "account-token";
const LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout_ms: 10_000,
    opening_timeout_ms: 10_000,
    stalled_timeout_ms: 30_000,
    session_wait_ms: 5_000,
    drain_ms: 10_000,
};

/// Small, so that their limits can be reached.
const DOCUMENTS: DocumentSettings =
    DocumentSettings { max_bytes: 64 << 10, max_ops: 20_000, warm_bytes: 1 << 20 };

/// A node that serves HTTP, with one namespace.
struct TestNode {
    client: Client,
    /// Path of the namespace.
    kv: String,
    /// Where its chunk files are.
    chunks: PathBuf,
    peer: Arc<Peer>,
    running: Running,
    folder: tempfile::TempDir,
}

/// A node's engine and its HTTP surface.
struct Running {
    engine: Engine,
    address: SocketAddr,
    /// Stops the HTTP surface when dropped or told.
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

async fn test_node() -> TestNode {
    test_node_with(LIMITS).await
}

async fn test_node_with(limits: Limits) -> TestNode {
    let folder = tempfile::tempdir().unwrap();
    let peer = Arc::new(Peer::default());
    let running = start(folder.path(), peer.clone(), limits, 0, Vec::new()).await;
    let client = Client::new(running.address);
    let created = client.send("POST", &namespaces_path(ACCOUNT), &[], br#"{"title":"test"}"#).await;
    let id = created.ok()["id"].as_str().unwrap().to_owned();
    let kv = format!("{}/{id}", namespaces_path(ACCOUNT));
    TestNode { client, kv, chunks: folder.path().join("chunks"), peer, running, folder }
}

/// Starts a node on this folder, and waits until it serves.
async fn start(
    folder: &Path,
    peer: Arc<Peer>,
    limits: Limits,
    min_free_bytes: u64,
    mut listeners: Vec<Listener>,
) -> Running {
    let engine = start_engine(folder, min_free_bytes).await;
    let token = |account: &str, token: &str, cluster| AccountToken {
        account: account.into(),
        token: token.into(),
        cluster,
    };
    let chunks = Arc::new(ChunkStore::open(&folder.join("chunks")).unwrap());
    let context = HttpContext {
        engine: engine.clone(),
        chunks: chunks.clone(),
        documents: DOCUMENTS,
        tokens: vec![
            token(ACCOUNT, TOKEN, true),
            token(OTHER_ACCOUNT, OTHER_TOKEN, true),
            token(ACCOUNT, ACCOUNT_TOKEN, false),
        ],
        flights: ChunkFlights::new(chunks, peer.clone()),
        links: peer,
        program_token: None,
        render_metrics: Arc::new(|| "littoral_test 1\n".to_owned()),
    };
    let surface = Arc::new(Surface::new(context, limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    listeners.push(Listener::tcp(listener, Door::Node));
    let serving = tokio::spawn(serve(listeners, surface, async {
        let _ = stopped.await;
    }));
    Running { engine, address, stop: Some(stop), serving }
}

/// The engine under test, once it serves. The one place that knows how an engine is started.
async fn start_engine(folder: &Path, min_free_bytes: u64) -> Engine {
    let settings = || engine::Settings {
        pop: "test".to_owned(),
        region: "test".to_owned(),
        peers: Vec::new(),
        data_folder: folder.to_owned(),
        cache_bytes: 16 << 20,
        min_free_bytes,
        replica: replication::Settings::new([1; 16], DigestKey::new([2; 32])),
    };
    let (chunk_news, _) = tokio::sync::mpsc::channel(1);
    let engine = loop {
        match Engine::start(settings(), chunk_news.clone()) {
            Ok(engine) => break engine,
            // The thread of the engine before this one is about to let go of the store.
            Err(StartError::Store(reason)) if reason.contains("open in another process") => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    while engine.status().await.unwrap().state != State::Ready {
        tokio::task::yield_now().await;
    }
    engine
}

fn namespaces_path(account: &str) -> String {
    format!("/client/v4/accounts/{account}/storage/kv/namespaces")
}

impl TestNode {
    /// Stops the node and starts it again on the same folder, with this reserve of disk space.
    async fn restart(self, min_free_bytes: u64) -> Self {
        self.restart_with(min_free_bytes, Vec::new()).await
    }

    /// The same, with more listeners.
    async fn restart_with(mut self, min_free_bytes: u64, listeners: Vec<Listener>) -> Self {
        drop(self.running.stop.take());
        self.running.serving.await.unwrap().unwrap();
        self.running.engine.shutdown().await;
        drop(self.running.engine);
        let running = start(self.folder.path(), self.peer.clone(), LIMITS, min_free_bytes, listeners).await;
        Self { client: Client::new(running.address), running, ..self }
    }

    /// A request about the namespace: `path` begins with "/" or is empty.
    async fn send(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> client::Answer {
        self.client.send(method, &format!("{}{path}", self.kv), &[], body.as_ref()).await
    }

    async fn send_typed(&self, path: &str, content_type: &str, body: &[u8]) -> client::Answer {
        self.client.send("PUT", &format!("{}{path}", self.kv), &[("Content-Type", content_type)], body).await
    }

    /// The raw value under a key that needs no encoding.
    async fn value(&self, key: &str) -> Vec<u8> {
        let answer = self.send("GET", &format!("/values/{key}"), "").await;
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
        answer.body
    }

    /// Every chunk file, in no order.
    fn chunk_files(&self) -> Vec<PathBuf> {
        let is_shard = |path: &PathBuf| path.file_name().unwrap().len() == 2;
        let shards =
            std::fs::read_dir(&self.chunks).unwrap().map(|entry| entry.unwrap().path()).filter(is_shard);
        shards
            .flat_map(|shard| std::fs::read_dir(shard).unwrap().map(|entry| entry.unwrap().path()))
            .collect()
    }
}

/// Bytes without a pattern that repeats.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// JSON with white space behind it, `len` bytes in all.
fn padded(json: &str, len: usize) -> String {
    format!("{json}{}", " ".repeat(len - json.len()))
}

/// Unix seconds.
fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A peer that has the chunks it was given.
#[derive(Default)]
struct Peer(Mutex<HashMap<ChunkId, Bytes>>);

impl Peer {
    fn give(&self, chunk: &[u8]) {
        self.0.lock().unwrap().insert(ChunkId::of(chunk), Bytes::copy_from_slice(chunk));
    }

    /// The peer answers with other bytes than those asked for.
    fn give_wrong(&self, id: ChunkId, chunk: &[u8]) {
        self.0.lock().unwrap().insert(id, Bytes::copy_from_slice(chunk));
    }
}

/// No links.
impl LinkControl for Peer {
    fn links(&self) -> Vec<LinkView> {
        Vec::new()
    }

    fn shared_budgets(&self) -> Vec<SharedBudget> {
        Vec::new()
    }

    fn set_budget(&self, scope: &Scope<String>, _: Option<Rate>) -> Result<(), LinkError> {
        match scope {
            Scope::Link(pop) => Err(LinkError::NoSuchLink { pop: pop.clone() }),
            Scope::Node | Scope::Class(_) => Ok(()),
        }
    }

    fn burst(&self) -> Burst {
        Burst::default()
    }

    fn set_burst(&self, _: Burst) -> Result<(), LinkError> {
        Ok(())
    }

    fn pause(&self, pop: &str, _: bool) -> Result<(), LinkError> {
        Err(LinkError::NoSuchLink { pop: pop.to_owned() })
    }

    fn call<'a>(&'a self, pop: &'a str) -> BoxFuture<'a, Result<tokio::io::DuplexStream, CallError>> {
        Box::pin(async move { Err(CallError::NoLink { pop: pop.to_owned() }) })
    }
}

impl ChunkFetch for Peer {
    fn fetch(
        &self,
        id: ChunkId,
        _: tokio::sync::watch::Receiver<Urgency>,
    ) -> BoxFuture<'_, Result<Bytes, String>> {
        let found = self.0.lock().unwrap().get(&id).cloned();
        Box::pin(async move { found.ok_or_else(|| "no peer has it".to_owned()) })
    }
}
