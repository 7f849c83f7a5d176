//! A PoP for tests: one namespace in memory, behind the part of the REST API that imports and exports use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use base64::Engine as _;
use clap::Parser;
use littoral::api::kv::{BulkPair, MAX_BULK_BYTES};
use littoral::api::{self, Status};
use serde_json::json;

use super::connection::AccountArgs;

/// The id of the one namespace.
pub(super) const NAMESPACE: &str = "00000000000000000000000000000abc";
const PAGE_KEYS: usize = 10;

/// The status of a PoP that serves, alone and empty: what tests of pages begin with.
pub(super) fn status(pop: &str) -> Status {
    Status {
        pop: pop.into(),
        region: "local".into(),
        replica: "aa".into(),
        version: "0".into(),
        state: api::State::Ready,
        reason: None,
        root: "r1".into(),
        entries: 1,
        vector: Vec::new(),
        peers: Vec::new(),
        counters: api::Counters::default(),
        lag: Vec::new(),
        membership: api::Membership::default(),
    }
}

/// See the file.
#[derive(Clone)]
pub(super) struct FakePop {
    address: SocketAddr,
    state: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    rows: BTreeMap<String, Vec<u8>>,
    /// Refuses bulk puts with this key in them.
    refused: String,
    /// Cannot read this key.
    unreadable: String,
    bulk_puts: usize,
}

impl FakePop {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let pop = Self { address: listener.local_addr().expect("an address"), state: Arc::default() };
        let namespace = format!("/client/v4/accounts/{{account}}/storage/kv/namespaces/{NAMESPACE}");
        let router = Router::new()
            .route(&format!("{namespace}/bulk"), put(bulk))
            .route(&format!("{namespace}/keys"), get(keys))
            .route(&format!("{namespace}/values/{{key}}"), get(value))
            .layer(axum::extract::DefaultBodyLimit::max(MAX_BULK_BYTES))
            .with_state(pop.state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        pop
    }

    pub(super) fn account_args(&self) -> AccountArgs {
        #[derive(Parser)]
        struct Typed {
            #[command(flatten)]
            args: AccountArgs,
        }
        let url = format!("http://{}", self.address);
        let typed = ["t", "--url", &url, "--token", "t", "--account", "a", "--namespace", NAMESPACE];
        Typed::try_parse_from(typed).expect("it is understood").args
    }

    pub(super) fn insert(&self, key: &str, value: Vec<u8>) {
        self.memory(|memory| memory.rows.insert(key.into(), value));
    }

    pub(super) fn refuse_puts_of(&self, key: &str) {
        self.memory(|memory| memory.refused = key.into());
    }

    pub(super) fn fail_reads_of(&self, key: &str) {
        self.memory(|memory| memory.unreadable = key.into());
    }

    pub(super) fn rows(&self) -> BTreeMap<String, Vec<u8>> {
        self.memory(|memory| memory.rows.clone())
    }

    pub(super) fn bulk_puts(&self) -> usize {
        self.memory(|memory| memory.bulk_puts)
    }

    fn memory<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.state.lock().expect("no test panics inside"))
    }
}

type Shared = State<Arc<Mutex<Memory>>>;

async fn bulk(State(state): Shared, body: Bytes) -> Response {
    let pairs: Vec<BulkPair> = serde_json::from_slice(&body).expect("pairs");
    let mut memory = state.lock().expect("no test panics inside");
    memory.bulk_puts += 1;
    if pairs.iter().any(|pair| pair.key == memory.refused) {
        return refusal(StatusCode::BAD_REQUEST, 10_021, "refused");
    }
    let count = pairs.len();
    for pair in pairs {
        let decoded = base64::engine::general_purpose::STANDARD.decode(&pair.value);
        let value = if pair.base64 { decoded.expect("base64") } else { pair.value.into_bytes() };
        memory.rows.insert(pair.key, value);
    }
    Json(json!({ "success": true, "result": { "successful_key_count": count } })).into_response()
}

async fn keys(State(state): Shared, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let memory = state.lock().expect("no test panics inside");
    let after = query.get("cursor").cloned().unwrap_or_default();
    let left: Vec<_> = memory.rows.keys().filter(|key| **key > after).collect();
    let page: Vec<_> = left.iter().take(PAGE_KEYS).map(|key| json!({ "name": key })).collect();
    let cursor = if left.len() > PAGE_KEYS { left[PAGE_KEYS - 1].as_str() } else { "" };
    Json(json!({ "success": true, "result": page, "result_info": { "count": page.len(), "cursor": cursor } }))
        .into_response()
}

async fn value(State(state): Shared, Path((_, key)): Path<(String, String)>) -> Response {
    let memory = state.lock().expect("no test panics inside");
    if key == memory.unreadable {
        return refusal(StatusCode::BAD_REQUEST, 10_021, "unreadable");
    }
    match memory.rows.get(&key) {
        Some(value) => value.clone().into_response(),
        None => refusal(StatusCode::NOT_FOUND, 10_009, "get: 'key not found'"),
    }
}

fn refusal(status: StatusCode, code: u32, message: &str) -> Response {
    let body = json!({ "success": false, "errors": [{ "code": code, "message": message }], "result": null });
    (status, Json(body)).into_response()
}
