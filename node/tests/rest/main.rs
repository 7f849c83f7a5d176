//! The HTTP surface as its clients meet it: real sockets, raw requests, one node per test.
//!
//! Requests are written byte by byte (`client.rs`), because much of what is tested here no well-behaved
//! client library would send.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod bulk;
mod client;
mod connections;
mod keys;
mod large;
mod multipart;
mod namespaces;
mod native;
mod values;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use littoral_node::chunks::ChunkStore;
use littoral_node::engine::Engine;
use littoral_node::http::{AccountToken, ChunkFetch, HttpContext, Limits, serve};
use replication::ChunkId;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use client::Client;

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const OTHER_ACCOUNT: &str = "ffffffffffffffffffffffffffffffff";
const TOKEN: &str = "test-token";
const OTHER_TOKEN: &str = "other-token";

/// A node that serves HTTP, with one namespace.
struct TestNode {
    client: Client,
    /// Path of the namespace.
    kv: String,
    /// Where its chunk files are.
    chunks: PathBuf,
    peer: Arc<Peer>,
    /// Stops the node when dropped or told.
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

/// The engine under test. The one place that knows how an engine is started.
fn start_engine(folder: &std::path::Path) -> Engine {
    let _ = folder;
    Engine::in_memory()
}

async fn test_node() -> TestNode {
    test_node_with(Limits { max_connections: 64, header_timeout_ms: 10_000 }).await
}

async fn test_node_with(limits: Limits) -> TestNode {
    let folder = tempfile::tempdir().unwrap();
    let chunks = folder.path().join("chunks");
    let peer = Arc::new(Peer::default());
    let token = |account: &str, token: &str| AccountToken { account: account.into(), token: token.into() };
    let context = HttpContext {
        engine: start_engine(folder.path()),
        chunks: Arc::new(ChunkStore::open(&chunks).unwrap()),
        tokens: vec![token(ACCOUNT, TOKEN), token(OTHER_ACCOUNT, OTHER_TOKEN)],
        fetch: peer.clone(),
        render_metrics: Arc::new(|| "littoral_test 1\n".to_owned()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, context, limits, async {
        let _ = stopped.await;
    }));
    let created = client.send("POST", &namespaces_path(ACCOUNT), &[], br#"{"title":"test"}"#).await;
    let id = created.ok()["id"].as_str().unwrap().to_owned();
    let kv = format!("{}/{id}", namespaces_path(ACCOUNT));
    TestNode { client, kv, chunks, peer, stop: Some(stop), serving, _folder: folder }
}

fn namespaces_path(account: &str) -> String {
    format!("/client/v4/accounts/{account}/storage/kv/namespaces")
}

impl TestNode {
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

impl ChunkFetch for Peer {
    fn fetch(&self, id: ChunkId) -> BoxFuture<'_, Result<Bytes, String>> {
        let found = self.0.lock().unwrap().get(&id).cloned();
        Box::pin(async move { found.ok_or_else(|| "no peer has it".to_owned()) })
    }
}
