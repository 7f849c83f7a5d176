//! A node inside a program: what the SDK does with it, and what is there when it is opened again.
//!
//! The tests run on the simplest runtime, since a program may have that one.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use config::{Config, Peer};
use futures_util::TryStreamExt;
use littoral::api::watch::WatchType;
use littoral::{Ack, Client, Error, Namespace, PutOptions, WatchOptions};
use littoral_node::embedded::{Embedded, alone};
use littoral_node::identity::{init_node, join_token};
use serde_json::{Value as Json, json};

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
/// How soon what must come has come.
const WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// More than fits a row, and more than an answer that is handed over whole.
const LARGE_BYTES: usize = 3 << 20;
/// The size of the longest of those.
const WHOLE_BYTES: usize = 1 << 20;

/// A node alone on this folder, that serves.
async fn opened(folder: &Path) -> Embedded {
    let node = Embedded::open(alone(folder).unwrap()).await.unwrap();
    ready(&node).await;
    node
}

async fn ready(node: &Embedded) {
    tokio::time::timeout(WITHIN, node.ready()).await.unwrap();
}

async fn namespace(node: &Embedded) -> Namespace {
    node.account(ACCOUNT).namespace_titled("test").await.unwrap()
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(WITHIN, waiting).await.is_ok(), "not so after {WITHIN:?}: {what}");
}

async fn text(kv: &Namespace, key: &str) -> Option<String> {
    let value = kv.get(key).await.unwrap()?;
    Some(String::from_utf8(value.bytes.into()).unwrap())
}

#[tokio::test]
async fn values_are_written_read_listed_and_deleted_without_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    assert_eq!(node.http_address(), None);
    let kv = namespace(&node).await;

    assert_eq!(kv.get("a").await.unwrap(), None);
    kv.put("a", "1", PutOptions::default().metadata(&json!({"of": "a"})).unwrap()).await.unwrap();
    kv.put("b", "2", PutOptions::default().expiration_ttl_s(3_600).ack(Ack::Buffered)).await.unwrap();
    assert_eq!(text(&kv, "a").await.as_deref(), Some("1"));
    assert!(kv.get("b").await.unwrap().unwrap().expires_at_s.is_some());
    assert_eq!(kv.metadata("a").await.unwrap().unwrap().unwrap().get(), r#"{"of":"a"}"#);
    let page = kv.list(Default::default()).next_page().await.unwrap().unwrap();
    assert_eq!(page.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);

    let refused = kv.put("a", "3", PutOptions::default().if_absent()).await.unwrap_err();
    assert!(refused.is_precondition_failed(), "{refused}");
    kv.delete("a").await.unwrap();
    assert_eq!(kv.get("a").await.unwrap(), None);
    // What is wrong is told as by a node elsewhere.
    let refused = kv.get(&"k".repeat(513)).await.unwrap_err();
    assert!(matches!(refused, Error::Api { status: 414, .. }), "{refused:?}");
    let refused = node.account(ACCOUNT).namespace(&"0".repeat(32)).get("a").await.unwrap_err();
    assert!(refused.is_namespace_not_found(), "{refused}");
    node.close().await.unwrap();
}

#[tokio::test]
async fn a_batch_is_done_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    let kv = namespace(&node).await;
    let batch = kv
        .batch()
        .put("v", "1")
        .if_absent()
        .metadata(&json!({"of": "v"}))
        .add("c", 5)
        .add_bounded("b", 3)
        .insert("s", "m")
        .expiration_ttl_s(3_600)
        .put_field("m", "f", vec![0xff])
        .ack(Ack::Buffered);
    assert_eq!((batch.len(), batch.is_empty()), (5, false));
    let done = batch.clone().commit().await.unwrap();
    assert_eq!(
        done.writes.iter().map(|done| done.count).collect::<Vec<_>>(),
        [None, Some(5), Some(3), None, None]
    );
    assert_eq!(text(&kv, "v").await.as_deref(), Some("1"));
    assert_eq!(kv.map("m").get("f").await.unwrap().unwrap().bytes.as_ref(), [0xff]);
    let refused = batch.commit().await.unwrap_err();
    assert!(refused.is_precondition_failed() && refused.to_string().contains("writes[0]"), "{refused}");
    assert_eq!(kv.counter("c").count().await.unwrap(), Some(5));
    let etag = done.writes[0].etag.as_deref().unwrap();
    let rest = kv.batch().delete("v").if_match(etag).reset("c").take("b", 1).remove("s", "m");
    rest.remove_field("m", "f").commit().await.unwrap();
    assert_eq!((kv.get("v").await.unwrap(), kv.counter("c").count().await.unwrap()), (None, None));
    let cleared =
        kv.batch().clear_set("s").insert("s", "n").clear_map("m").delete_bounded("b").commit().await;
    assert_eq!(cleared.unwrap().writes.len(), 4);
    // What cannot be sent is told when it would be.
    for (wrong, text) in [
        (kv.batch().if_match("\"a\"").put("k", "v"), "if_match is about the write before it"),
        (kv.batch().take("b", u64::MAX), "more than a bounded counter counts"),
    ] {
        let error = wrong.commit().await.unwrap_err();
        assert!(matches!(&error, Error::Invalid { reason } if reason.contains(text)), "{error:?}");
    }
    node.close().await.unwrap();
}

#[tokio::test]
async fn a_large_value_comes_whole_and_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    let kv = namespace(&node).await;
    let large: Vec<u8> = (0..LARGE_BYTES).map(|at| (at / 7) as u8).collect();
    kv.put("large", large.clone(), PutOptions::default()).await.unwrap();
    assert_eq!(kv.get("large").await.unwrap().unwrap().bytes, large);
    let pieces: Vec<_> = kv.get_stream("large").await.unwrap().unwrap().try_collect().await.unwrap();
    assert_eq!(pieces.concat(), large);
    // At the size up to which an answer is handed over whole.
    for len in [WHOLE_BYTES - 1, WHOLE_BYTES, WHOLE_BYTES + 1] {
        kv.put("whole", large[..len].to_vec(), PutOptions::default()).await.unwrap();
        assert_eq!(kv.get("whole").await.unwrap().unwrap().bytes, large[..len]);
    }
    // One that nobody reads to its end does not hold up the stop.
    let begun = kv.get_stream("large").await.unwrap().unwrap();
    drop(begun);
    node.close().await.unwrap();
}

#[tokio::test]
async fn counters_documents_and_watches_work_without_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    let kv = namespace(&node).await;
    let mut watch = kv.watch(WatchOptions::default());
    assert_eq!(watch.next().await.unwrap().what, WatchType::Sync);

    kv.counter("visits").add(3).await.unwrap();
    kv.counter("visits").add(4).await.unwrap();
    assert_eq!(kv.counter("visits").count().await.unwrap(), Some(7));
    let page = kv.doc("page");
    page.put(&json!({"title": "Tides"})).await.unwrap();
    page.merge(&json!({"reads": 1})).await.unwrap();
    assert_eq!(page.get::<Json>().await.unwrap(), Some(json!({"title": "Tides", "reads": 1})));
    kv.put("last", "x", PutOptions::default()).await.unwrap();

    let mut keys = Vec::new();
    while keys.last().map(String::as_str) != Some("last") {
        let event = tokio::time::timeout(WITHIN, watch.next()).await.unwrap().unwrap();
        keys.extend(event.key);
    }
    assert!(keys.contains(&"visits".to_owned()) && keys.contains(&"page".to_owned()), "{keys:?}");
    // A watch ends with its node, and does not hold it up.
    node.close().await.unwrap();
}

#[tokio::test]
async fn what_is_read_at_once_is_in_the_session_and_tells_how_stale_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    let kv = namespace(&node).await;
    kv.put("a", "1", PutOptions::default()).await.unwrap();
    let id = kv.id().to_owned();
    node.close().await.unwrap();
    let node = opened(folder.path()).await;
    let kv = node.account(ACCOUNT).namespace(&id);
    assert_eq!(node.client().staleness(), None);
    assert_eq!(text(&kv, "a").await.as_deref(), Some("1"));
    assert_eq!(node.client().staleness(), Some(Duration::ZERO), "there is no other PoP");
    // It has made no request that could have given it a token.
    let session = node.client().session().unwrap();
    let carried = node.client().with_session(&session).unwrap().account(ACCOUNT).namespace(&id);
    assert_eq!(text(&carried, "a").await.as_deref(), Some("1"));
    node.close().await.unwrap();
}

#[tokio::test]
async fn a_folder_is_open_once_and_again_after_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    let kv = namespace(&node).await;
    kv.put("a", "1", PutOptions::default()).await.unwrap();
    let refused = Embedded::open(alone(folder.path()).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("is open in another process; stop that one"), "{refused}");
    assert_eq!(text(&kv, "a").await.as_deref(), Some("1"), "it is as it was");
    node.close().await.unwrap();

    let late = kv.get("a").await.unwrap_err();
    assert!(late.to_string().contains("this node is not up: it was closed"), "{late}");
    for _ in 0..3 {
        let node = opened(folder.path()).await;
        assert_eq!(text(&namespace(&node).await, "a").await.as_deref(), Some("1"));
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn one_that_cannot_start_lets_go_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = alone(folder.path()).unwrap();
    config.replication.listen = taken.local_addr().unwrap();
    let refused = Embedded::open(config).await.unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
    opened(folder.path()).await.close().await.unwrap();
}

#[tokio::test]
async fn what_a_dropped_node_has_acknowledged_is_there_when_it_is_opened_again() {
    const KEYS: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let node = opened(folder.path()).await;
    let kv = namespace(&node).await;
    for n in 0..KEYS {
        kv.put(&format!("k{n}"), format!("v{n}"), PutOptions::default()).await.unwrap();
    }
    drop(node);
    // It lets go of its folder by itself.
    let node = loop {
        match Embedded::open(alone(folder.path()).unwrap()).await {
            Ok(node) => break node,
            Err(error) => assert!(error.to_string().contains("is open in another process"), "{error}"),
        }
    };
    ready(&node).await;
    let kv = namespace(&node).await;
    for n in 0..KEYS {
        assert_eq!(text(&kv, &format!("k{n}")).await, Some(format!("v{n}")));
    }
    node.close().await.unwrap();
}

/// The settings of a second PoP of the cluster that the first was made with.
fn beside(first: &Path, folder: &Path, peer: &Embedded) -> Config {
    let mut config = alone(folder).unwrap();
    let token = join_token(&first.join("cluster"), "other", WITHIN).unwrap();
    config.node.identity_dir = folder.join("other");
    init_node(&config.node.identity_dir, &token).unwrap();
    config.node.pop = "other".parse().unwrap();
    let address = peer.quic_address().unwrap().to_string();
    config.replication.peers = vec![Peer::new("embedded".parse().unwrap(), address)];
    config
}

#[tokio::test]
async fn two_nodes_in_one_process_converge() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = opened(folders[0].path()).await;
    let kv = namespace(&one).await;
    kv.put("before", "1", PutOptions::default()).await.unwrap();
    let two = Embedded::open(beside(folders[0].path(), folders[1].path(), &one)).await.unwrap();
    ready(&two).await;
    let other = two.account(ACCOUNT).namespace(kv.id());
    assert_eq!(text(&other, "before").await.as_deref(), Some("1"));

    kv.set("both").insert("one").await.unwrap();
    other.set("both").insert("two").await.unwrap();
    other.put("after", "2", PutOptions::default()).await.unwrap();
    for kv in [&kv, &other] {
        until("both members and the value are here", async || {
            let members = kv.set("both").members(Default::default()).rows();
            let members: Vec<_> = members.map_ok(|member| member.name).try_collect().await.unwrap();
            members == ["one", "two"] && text(kv, "after").await.as_deref() == Some("2")
        })
        .await;
    }
    // A session begun at one is waited for at the other, though that reads at once otherwise.
    kv.put("session", "seen", PutOptions::default()).await.unwrap();
    let carried = two.client().with_session(&one.client().session().unwrap()).unwrap();
    let seen = carried.account(ACCOUNT).namespace(kv.id());
    assert_eq!(text(&seen, "session").await.as_deref(), Some("seen"));
    two.close().await.unwrap();
    one.close().await.unwrap();
}

#[tokio::test]
async fn with_http_others_need_a_token_and_find_the_same() {
    const TOKEN: &str = "of-the-configuration";
    let folder = tempfile::tempdir().unwrap();
    let mut config = alone(folder.path()).unwrap();
    let (account, token) = (ACCOUNT.parse().unwrap(), TOKEN.parse().unwrap());
    config.http.tokens = vec![config::Token { account, token, cluster: false }];
    let node = Embedded::open_with_http(config).await.unwrap();
    ready(&node).await;
    let kv = namespace(&node).await;
    kv.put("a", "1", PutOptions::default()).await.unwrap();
    let url = format!("http://{}", node.http_address().unwrap());
    let at = |token| Client::new(&url, token).unwrap().account(ACCOUNT).namespace(kv.id());
    assert_eq!(text(&at(TOKEN), "a").await.as_deref(), Some("1"));
    let refused = at("guessed").get("a").await.unwrap_err();
    assert!(matches!(refused, Error::Api { status: 401 | 403, .. }), "{refused:?}");
    node.close().await.unwrap();
}
