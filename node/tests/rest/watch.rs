//! Watching a namespace: what is there, what changes, and where to go on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use littoral_node::engine::{Ack, Engine, Write};
use replication::{Change, Content, EntryId, Kind, NamespaceId, Payload, Value};
use serde_json::{Value as Json, json};

mod documents;

use super::client::head;
use super::{ACCOUNT, TOKEN, TestNode, noise, test_node};

/// How long an event may take.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

impl TestNode {
    fn namespace_id(&self) -> NamespaceId {
        self.namespace().parse().unwrap()
    }

    fn watch_path(&self, query: &str) -> String {
        format!("/v1/accounts/{ACCOUNT}/namespaces/{}/watch?{query}", self.namespace())
    }

    /// Begins a watch, as lines of JSON.
    async fn watch(&self, query: &str) -> Watch {
        let watch = Watch::begin(self, TOKEN, query, &[NDJSON]).await;
        assert_eq!((watch.status, watch.content_type.as_str()), (200, "application/x-ndjson"));
        watch
    }

    async fn change(&self, kind: Kind, key: &str, element: &str, change: Change) {
        let id = EntryId::element(self.namespace_id(), kind, key.to_owned(), element.to_owned());
        self.running.engine.write(vec![Write::Change { id, change }], Ack::Durable).await.unwrap();
    }
}

/// A watch under way.
struct Watch {
    status: u16,
    content_type: String,
    body: Incoming,
    read: Vec<u8>,
    /// The last cursor that was given.
    cursor: Option<String>,
}

impl Watch {
    async fn begin(node: &TestNode, token: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TokioIo::new(node.client.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::get(node.watch_path(query))
            .header("Host", "test")
            .header("Authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        Self {
            status: response.status().as_u16(),
            content_type,
            body: response.into_body(),
            read: Vec::new(),
            cursor: None,
        }
    }

    /// The next line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let frame = tokio::time::timeout(SEEN_WITHIN, self.body.frame()).await.expect("nothing came");
            self.read.extend_from_slice(frame?.ok()?.data_ref()?);
        }
    }

    /// The next event.
    async fn next(&mut self) -> Json {
        let line = self.line().await.expect("the watch has ended");
        let event: Json = serde_json::from_str(&line).unwrap();
        if let Some(cursor) = event["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        event
    }

    /// Events up to one of this type, without it.
    async fn until(&mut self, what: &str) -> Vec<Json> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            if event["type"] == what {
                return events;
            }
            events.push(event);
        }
    }

    /// The parts of the next events that a test is about.
    async fn brief(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(brief(&self.next().await));
        }
        events
    }
}

fn brief(event: &Json) -> String {
    let fields = ["type", "kind", "key", "element", "value", "base64", "size", "count", "metadata"];
    let shown = fields.iter().filter_map(|field| event.get(*field));
    shown
        .map(|field| field.as_str().map_or_else(|| field.to_string(), str::to_owned))
        .collect::<Vec<_>>()
        .join(" ")
}

fn keys(events: &[Json]) -> Vec<&str> {
    events.iter().map(|event| event["key"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_first_and_then_what_changes() {
    let node = test_node().await;
    node.send("PUT", "/values/b?expiration=4000000000", "old").await.ok();
    node.send("PUT", "/values/a", [0xff, 0xfe]).await.ok();
    node.send("PUT", "/values/gone", "x").await.ok();
    node.send("DELETE", "/values/gone", "").await.ok();
    node.send("PUT", "/values/large", noise(100_000)).await.ok();
    let mut watch = node.watch("").await;
    let snapshot = watch.brief(4).await;
    assert_eq!(snapshot, ["put value a //4=", "put value b old", "put value large 100000", "sync"]);
    assert!(watch.cursor.is_some(), "the snapshot ends with where to go on");
    node.send("PUT", "/values/b", "new").await.ok();
    node.send("DELETE", "/values/a", "").await.ok();
    let put = watch.next().await;
    assert_eq!(brief(&put), "put value b new");
    let replica = node.running.engine.replica().unwrap().to_string();
    assert_eq!(put["origin"], replica);
    assert_eq!(put["receipt"].as_str().unwrap().split_once('-').unwrap().1, replica);
    assert!(put["time"].as_u64().unwrap() > 1_600_000_000_000 && put["expiration"].is_null(), "{put}");
    assert_eq!(watch.brief(1).await, ["delete value a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_sets_and_maps_are_told_with_what_they_hold() {
    let node = test_node().await;
    let put = |bytes: &str| Change::Put(Content { bytes: bytes.to_owned().into(), expires_at_s: None });
    node.change(Kind::Counter, "hits", "", Change::Add { amount: 5, expires_at_s: None }).await;
    node.change(Kind::Set, "s", "one", put("")).await;
    node.change(Kind::Map, "m", "f", put("v")).await;
    node.change(Kind::Set, "s", "", Change::Describe(Some("{\n\"a\":1}".into()))).await;
    let mut watch = node.watch("").await;
    let expected =
        ["put counter hits 5", "describe set s {\"a\":1}", "put set s one", "put map m f v", "sync"];
    assert_eq!(watch.brief(5).await, expected);
    node.change(Kind::Counter, "hits", "", Change::Add { amount: -7, expires_at_s: None }).await;
    assert_eq!(watch.brief(1).await, ["put counter hits -2"]);
    node.change(Kind::Map, "m", "f", Change::Remove).await;
    assert_eq!(watch.brief(1).await, ["delete map m f"]);
    node.change(Kind::Set, "s", "", Change::Clear).await;
    assert_eq!(watch.brief(1).await, ["clear set s"]);
    node.change(Kind::Set, "s", "two", put("")).await;
    assert_eq!(watch.brief(1).await, ["put set s two"]);
    node.change(Kind::Counter, "hits", "", Change::Clear).await;
    assert_eq!(watch.brief(1).await, ["delete counter hits"]);
    // Who was away is told the same by the log: that the set was emptied, and what is in it all the same.
    let (before, mut now) = (node.watch("snapshot=false&key=s").await, node.watch("key=s").await);
    assert_eq!(now.brief(2).await, ["put set s two", "sync"]);
    drop((before, now));
    let mut begun = node.watch("snapshot=false&kind=set").await;
    assert_eq!(begun.until("sync").await.len(), 0);
    node.change(Kind::Set, "s", "", Change::Clear).await;
    node.change(Kind::Set, "s", "three", put("")).await;
    let cursor = begun.cursor.unwrap();
    let mut resumed = node.watch(&format!("kind=set&cursor={cursor}")).await;
    let told: Vec<_> = resumed.until("sync").await.iter().map(brief).collect();
    assert!(
        told.contains(&"clear set s".to_owned()) && told.last().unwrap() == "put set s three",
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_told() {
    let node = test_node().await;
    node.change(Kind::Counter, "a/1", "", Change::Add { amount: 1, expires_at_s: None }).await;
    for key in ["a/1", "a/2", "b"] {
        node.send("PUT", &format!("/values/{}", key.replace('/', "%2F")), "1").await.ok();
    }
    let cases: [(&str, &[&str]); 6] = [
        ("", &["a/1", "a/2", "b", "a/1"]),
        ("prefix=a/", &["a/1", "a/2", "a/1"]),
        ("prefix=a/&kind=value", &["a/1", "a/2"]),
        ("kind=counter", &["a/1"]),
        ("key=a/1", &["a/1", "a/1"]),
        ("key=a/", &[]),
    ];
    let mut watches = Vec::new();
    for (query, expected) in cases {
        let mut watch = node.watch(query).await;
        assert_eq!(keys(&watch.until("sync").await), expected, "{query}");
        watches.push((query, watch));
    }
    for key in ["c", "b", "a%2F1", "a%2F"] {
        node.send("PUT", &format!("/values/{key}"), "2").await.ok();
    }
    let expected = ["c b a/1 a/", "a/1 a/", "a/1 a/", "", "a/1", "a/"];
    for ((query, mut watch), expected) in watches.into_iter().zip(expected) {
        for key in expected.split_whitespace() {
            assert_eq!(watch.next().await["key"], key, "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_from_its_cursor_also_after_a_restart() {
    let node = test_node().await;
    node.send("PUT", "/values/there", "1").await.ok();
    let mut watch = node.watch("snapshot=false").await;
    assert_eq!(watch.until("sync").await.len(), 0);
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        node.send("PUT", &format!("/values/{key}"), value).await.ok();
    }
    assert_eq!(watch.brief(1).await, ["put value a 1"]);
    let cursor = watch.cursor.clone().unwrap();
    drop(watch);
    let node = node.restart(0).await;
    node.send("DELETE", "/values/there", "").await.ok();
    let mut watch = node.watch(&format!("cursor={cursor}")).await;
    // Of what was overwritten meanwhile, only the latest.
    let told: Vec<_> = watch.until("sync").await.iter().map(brief).collect();
    assert_eq!(told, ["put value b 1", "put value a 2", "delete value there"]);
    node.send("PUT", "/values/c", "1").await.ok();
    assert_eq!(watch.brief(1).await, ["put value c 1"]);
}

/// Twenty connections while somebody writes: of each key the last value is told, and no connection tells a state twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_told_twice_over_twenty_reconnects() {
    const CONNECTIONS: usize = 20;
    let mut node = test_node().await;
    let mut told = BTreeMap::new();
    let mut cursor = None;
    for connection in 0..CONNECTIONS {
        if connection == CONNECTIONS / 2 {
            node = node.restart(0).await;
        }
        let query = cursor.map_or_else(String::new, |cursor| format!("cursor={cursor}"));
        let mut watch = node.watch(&query).await;
        let writer = write_some(node.running.engine.clone(), node.namespace_id(), connection);
        let writer = tokio::spawn(writer);
        let mut receipts = Vec::new();
        // Cut off somewhere in the middle.
        while receipts.len() < 7 * connection % 40 || watch.cursor.is_none() {
            let event = watch.next().await;
            assert_ne!(event["type"], "reset");
            if let Some(key) = event["key"].as_str() {
                receipts.push(event["receipt"].as_str().unwrap().to_owned());
                told.insert(key.to_owned(), event["value"].as_str().unwrap().to_owned());
            }
        }
        let count = receipts.len();
        receipts.sort_unstable();
        receipts.dedup();
        assert_eq!(receipts.len(), count, "a state was told twice on connection {connection}");
        cursor = watch.cursor.take();
        writer.await.unwrap();
    }
    let mut watch = node.watch(&format!("cursor={}", cursor.unwrap())).await;
    for event in watch.until("sync").await {
        told.insert(event["key"].as_str().unwrap().into(), event["value"].as_str().unwrap().into());
    }
    for (key, value) in &told {
        assert_eq!(node.value(key).await, value.as_bytes(), "{key}");
    }
    assert_eq!(told.len(), 25);
}

/// More than a page, while others write: every key is there, and what was read ahead of the feed does not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_many_pages_under_writes_tells_no_state_twice() {
    const KEYS: usize = 1_700;
    let node = test_node().await;
    let (engine, namespace) = (node.running.engine.clone(), node.namespace_id());
    let put = move |n: usize, round: usize| {
        let payload = Payload::Inline(round.to_string().into());
        let value = Value { payload, metadata: None, expires_at_s: None };
        Write::Put { namespace, key: format!("key-{n:04}").into(), value }
    };
    engine.write((0..KEYS).map(|n| put(n, 0)).collect(), Ack::Durable).await.unwrap();
    let writer = tokio::spawn(async move {
        for round in 1..=300 {
            engine.write(vec![put(round * 5, round), put(KEYS - round, round)], Ack::Durable).await.unwrap();
        }
    });
    let mut watch = node.watch("").await;
    let (mut latest, mut receipts) = (BTreeMap::new(), std::collections::BTreeSet::new());
    // What the last round writes.
    while ["key-1400", "key-1500"].iter().any(|key| latest.get(*key).is_none_or(|value| value != "300")) {
        let event = watch.next().await;
        let Some(key) = event["key"].as_str() else { continue };
        latest.insert(key.to_owned(), event["value"].as_str().unwrap().to_owned());
        assert!(receipts.insert(event["receipt"].as_str().unwrap().to_owned()), "told twice: {event}");
    }
    writer.await.unwrap();
    assert_eq!(latest.len(), KEYS);
    for n in (0..KEYS).step_by(50) {
        let key = format!("key-{n:04}");
        assert_eq!(node.value(&key).await, latest[&key].as_bytes(), "{key}");
    }
}

/// Fifty writes to twenty-five keys, some of them in one flush.
async fn write_some(engine: Engine, namespace: NamespaceId, round: usize) {
    for n in 0..25 {
        let put = |n: usize| Write::Put {
            namespace,
            key: format!("key-{}", n % 25).into(),
            value: Value {
                payload: Payload::Inline(format!("{round}-{n}").into()),
                metadata: None,
                expires_at_s: None,
            },
        };
        engine.write(vec![put(n), put(n + 32)], Ack::Durable).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_get_events_with_ids_and_reconnect_by_them() {
    let node = test_node().await;
    node.send("PUT", "/values/a", "1").await.ok();
    let mut watch = Watch::begin(&node, TOKEN, "", &[]).await;
    assert_eq!(watch.content_type, "text/event-stream; charset=utf-8");
    let mut lines = Vec::new();
    while lines.len() < 5 {
        lines.push(watch.line().await.unwrap());
    }
    assert!(lines[0].starts_with("data: {\"type\":\"put\"") && lines[1].is_empty(), "{lines:?}");
    let id = lines[2].strip_prefix("id: ").unwrap().to_owned();
    assert!(lines[3].starts_with("data: {\"type\":\"sync\"") && lines[4].is_empty(), "{lines:?}");
    node.send("PUT", "/values/b", "1").await.ok();
    // The address is that of the first request, with what is no cursor of this watch any more; the header counts.
    let headers = [("Last-Event-ID", id.as_str()), NDJSON];
    let mut resumed = Watch::begin(&node, TOKEN, "cursor=stale", &headers).await;
    assert_eq!(resumed.brief(2).await, ["put value b 1", "sync"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_with_a_reason() {
    let node = test_node().await;
    let mut watch = node.watch("prefix=a").await;
    watch.until("sync").await;
    let of_another = format!("prefix=b&cursor={}", watch.cursor.unwrap());
    let cases: [(&str, u16, &str); 8] = [
        ("cursor=nonsense", 400, "watch again without it"),
        (&of_another, 400, "watch again without it"),
        ("key=a&prefix=b", 400, "exclude each other"),
        ("kind=document", 400, "value, counter, bounded, set, map or doc"),
        ("snapshot=no", 400, "true or false"),
        ("key=", 400, "cannot be empty"),
        (&format!("prefix={}", "a".repeat(513)), 414, "exceeds key length limit"),
        ("prefix=%FF", 400, "UTF-8"),
    ];
    for (query, status, text) in cases {
        let answer = node.client.send("GET", &node.watch_path(query), &[], b"").await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(text), "{query}: {answer:?}");
    }
    let elsewhere = format!("/v1/accounts/{ACCOUNT}/namespaces/{}/watch", "9".repeat(32));
    assert_eq!(node.client.send("GET", &elsewhere, &[], b"").await.status, 404);
    assert_eq!(node.client.send("POST", &node.watch_path(""), &[], b"").await.status, 405);
    assert_eq!(node.client.raw(&head("GET", &node.watch_path(""), &[])).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_watches_what_it_may_read_and_list_until_it_is_revoked() {
    let node = test_node().await;
    let path = format!("/v1/accounts/{ACCOUNT}/tokens");
    let create = async |actions: &[&str]| {
        let scope = json!({ "namespace": node.namespace(), "prefix": "mine/", "actions": actions });
        let wanted = json!({ "name": "watcher", "scopes": [scope] }).to_string();
        let made = node.client.send("POST", &path, &[], wanted.as_bytes()).await;
        assert!(made.status < 300, "{made:?}");
        let made = made.json();
        let id = made["id"].as_str().or_else(|| made["info"]["id"].as_str()).unwrap().to_owned();
        (made["token"].as_str().unwrap().to_owned(), id)
    };
    let (reader, _) = create(&["read"]).await;
    assert_eq!(Watch::begin(&node, &reader, "prefix=mine/", &[NDJSON]).await.status, 403);
    let (watcher, id) = create(&["read", "list"]).await;
    assert_eq!(Watch::begin(&node, &watcher, "", &[NDJSON]).await.status, 403);
    let mut watch = Watch::begin(&node, &watcher, "prefix=mine/", &[NDJSON]).await;
    assert_eq!(watch.brief(1).await, ["sync"]);
    assert!(node.client.send("DELETE", &format!("{path}/{id}"), &[], b"").await.status < 300);
    let end = watch.next().await;
    assert_eq!(end["type"], "end");
    assert!(end["reason"].as_str().unwrap().contains("revoked"), "{end}");
    assert_eq!(watch.line().await, None);
}

/// A client that reads nothing costs no more than the bounds, is told that it fell behind, and still hears the latest state
/// of every key.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_is_told_and_loses_nothing() {
    let node = test_node().await;
    let mut watch = node.watch("").await;
    watch.until("sync").await;
    // More than the feed keeps and the buffers on the way hold.
    let engine = &node.running.engine;
    let payload = Bytes::from("v".repeat(16 << 10));
    for round in 0..40_usize {
        let put = |n: usize| {
            let payload = Payload::Inline([format!("{round}-").as_bytes(), &payload[100..]].concat().into());
            let value = Value { payload, metadata: None, expires_at_s: None };
            Write::Put { namespace: node.namespace_id(), key: format!("key-{n}").into(), value }
        };
        engine.write((0..50).map(put).collect(), Ack::Durable).await.unwrap();
    }
    watch.until("behind").await;
    assert!(watch.cursor.is_some());
    let mut latest = BTreeMap::new();
    for event in watch.until("sync").await {
        latest.insert(event["key"].as_str().unwrap().to_owned(), event["value"].as_str().unwrap().to_owned());
    }
    assert_eq!(latest.len(), 50);
    assert!(latest.values().all(|value| value.starts_with("39-")));
    node.send("PUT", "/values/after", "1").await.ok();
    assert_eq!(watch.brief(1).await, ["put value after 1"]);
}

/// A watch once would have held the end of the node up until it was cut off, without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_ends_its_watches() {
    let node = test_node().await;
    let mut watch = node.watch("").await;
    watch.until("sync").await;
    let cursor = watch.cursor.clone();
    let node = node.restart(0).await;
    let end = watch.next().await;
    assert_eq!((&end["type"], &end["reason"]), (&json!("end"), &json!("this node is stopping")));
    assert_eq!(node.watch(&format!("cursor={}", cursor.unwrap())).await.brief(1).await, ["sync"]);
}
