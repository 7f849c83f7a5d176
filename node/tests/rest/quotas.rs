//! Quotas of namespaces: what is refused, how, and what passes all the same.

use std::time::Instant;

use bytes::Bytes;
use littoral_node::engine::{Ack, Write};
use replication::{NamespaceId, Payload, Value};
use serde_json::{Value as Json, json};

use super::client::{Answer, head};
use super::kinds::assert_problem;
use super::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, TestNode, namespaces_path, noise, test_node};

impl TestNode {
    fn quota_path(&self) -> String {
        format!("/v1/accounts/{ACCOUNT}/namespaces/{}/quota", self.kv.rsplit_once('/').unwrap().1)
    }

    async fn set_quota(&self, quota: Json) -> Json {
        let set = self.client.send("PUT", &self.quota_path(), &[], quota.to_string().as_bytes()).await;
        assert_eq!(set.status, 200, "{set:?}");
        set.json()
    }

    async fn used(&self) -> (u64, u64) {
        let report = self.client.send("GET", &self.quota_path(), &[], b"").await.json();
        (report["used"]["keys"].as_u64().unwrap(), report["used"]["bytes"].as_u64().unwrap())
    }

    async fn binding(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let id = self.kv.rsplit_once('/').unwrap().1;
        self.client.send(method, &format!("/binding/{id}{path}"), &[], body).await
    }
}

#[track_caller]
fn assert_over(answer: &Answer, text: &str) {
    answer.assert_error(429, 20012, text);
    let seconds: u32 = answer.header("retry-after").expect("it says when to come again").parse().unwrap();
    assert!(seconds >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_counted_as_values_come_grow_and_go_and_over_a_restart() {
    let node = test_node().await;
    assert_eq!(node.used().await, (0, 0));
    node.send("PUT", "/values/ab", "four").await.ok();
    assert_eq!(node.used().await, (1, 6));
    let pairs = json!([{ "key": "ab", "value": "1234567" }, { "key": "c", "value": "v", "metadata": [1] }]);
    node.send("PUT", "/bulk", pairs.to_string()).await.ok();
    assert_eq!(node.used().await, (2, 9 + 5));
    let large = noise(600_000);
    node.send("PUT", "/values/l", &large).await.ok();
    assert_eq!(node.used().await, (3, 14 + 600_001));
    let node = node.restart(0).await;
    assert_eq!(node.used().await, (3, 14 + 600_001));
    for key in ["ab", "c", "l", "never"] {
        node.send("DELETE", &format!("/values/{key}"), "").await.ok();
    }
    assert_eq!(node.used().await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_beyond_the_limit_are_refused_and_overwrites_and_deletes_are_not() {
    let node = test_node().await;
    let set = node.set_quota(json!({ "max_keys": 2 })).await;
    let quota = set["quota"].as_object().unwrap();
    assert_eq!(quota["max_keys"], 2);
    assert!(quota.iter().all(|(name, bound)| name == "max_keys" || bound.is_null()), "{quota:?}");
    node.send("PUT", "/values/a", "1").await.ok();
    node.send("PUT", "/values/b", "1").await.ok();
    let refused = node.send("PUT", "/values/c", "1").await;
    assert_over(&refused, "put: 'max_keys of this namespace is 2: it has 2, and this would add 1");
    node.send("PUT", "/values/b", "a longer value").await.ok();
    let refused = node.binding("PUT", "/c?urlencoded=true", b"1").await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{refused:?}");
    assert!(refused.reason().starts_with("max_keys of this namespace is 2"), "{refused:?}");
    node.send("DELETE", "/values/a", "").await.ok();
    node.send("PUT", "/values/c", "1").await.ok();
    // Over the limit, as one is who gets a lower one.
    node.set_quota(json!({ "max_keys": 0 })).await;
    node.send("PUT", "/values/c", "2").await.ok();
    assert_over(&node.send("PUT", "/values/d", "1").await, "max_keys");
    node.send("DELETE", "/values/b", "").await.ok();
    node.set_quota(json!({})).await;
    node.send("PUT", "/values/d", "1").await.ok();
    assert_eq!(node.used().await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_have_a_limit_that_is_met_exactly() {
    let node = test_node().await;
    node.set_quota(json!({ "max_bytes": 100 })).await;
    for (key, len, fits) in [("a", 50, true), ("b", 49, false), ("b", 48, true), ("c", 0, false)] {
        let answer = node.send("PUT", &format!("/values/{key}"), "x".repeat(len)).await;
        answer.assert_limit(fits, 429, 20012, "max_bytes of this namespace is 100");
    }
    assert_eq!(node.used().await, (2, 100));
    // What shrinks passes, and what is as long as before, and then there is room again.
    node.send("PUT", "/values/a", "y".repeat(50)).await.ok();
    assert_over(&node.send("PUT", "/values/a", "y".repeat(51)).await, "it has 100, and this would add 1");
    node.send("PUT", "/values/a", "y".repeat(40)).await.ok();
    node.send("PUT", "/values/c", "x".repeat(9)).await.ok();
    let large = noise(600_000);
    assert_over(&node.send("PUT", "/values/l", &large).await, "max_bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_bulk_write_that_is_too_much_nothing_is_done() {
    let node = test_node().await;
    node.set_quota(json!({ "max_keys": 3 })).await;
    let pairs = |keys: &[&str]| {
        let pairs: Vec<_> = keys.iter().map(|key| json!({ "key": key, "value": "v" })).collect();
        json!(pairs).to_string()
    };
    assert_over(&node.send("PUT", "/bulk", pairs(&["a", "b", "c", "d"])).await, "this would add 4");
    assert_eq!(node.used().await, (0, 0));
    // One key twice is one key.
    node.send("PUT", "/bulk", pairs(&["a", "b", "c", "c"])).await.ok();
    assert_eq!(node.used().await.0, 3);
    // Of a bulk of several slices those before are done, and that is said.
    node.set_quota(json!({ "max_keys": 250 })).await;
    let many: Vec<String> = (0..300).map(|number| format!("k{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_over(&node.send("PUT", "/bulk", pairs(&many)).await, "200 of 300 were done");
    assert_eq!(node.used().await.0, 203);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_namespace_have_a_rate_and_those_of_others_do_not() {
    let node = test_node().await;
    let other = node.client.send("POST", &namespaces_path(ACCOUNT), &[], br#"{"title":"other"}"#).await;
    let other = format!("{}/{}", namespaces_path(ACCOUNT), other.ok()["id"].as_str().unwrap());
    node.set_quota(json!({ "requests_per_s": 1 })).await;
    let began = Instant::now();
    let (mut passed, mut last) = (0, None);
    for round in 0..20 {
        let answer = node.send("GET", "/keys", "").await;
        match answer.status {
            200 => passed += 1,
            _ => last = Some(answer),
        }
        // A change elsewhere in the system namespace must not make it forget.
        let title = format!(r#"{{"title":"{round}"}}"#);
        node.client.send("POST", &namespaces_path(ACCOUNT), &[], title.as_bytes()).await.ok();
    }
    assert!(passed >= 1 && passed <= began.elapsed().as_secs() + 1, "{passed} in {:?}", began.elapsed());
    let refused = last.expect("twenty take less than twenty seconds");
    refused.assert_error(429, 971, "this namespace is asked too often: no more than 1 requests a second");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for _ in 0..3 {
        node.client.send("GET", &format!("{other}/keys"), &[], b"").await.ok();
    }
    // One may pass in between: a second is over.
    let refused = node.binding("GET", "/k", b"").await;
    assert!(refused.status == 404 || refused.reason().starts_with("this namespace is asked too often"));
    node.set_quota(json!({})).await;
    for _ in 0..3 {
        node.send("GET", "/keys", "").await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_set_by_the_cluster_within_bounds_and_seen_by_the_account() {
    let node = test_node().await;
    let path = node.quota_path();
    for (quota, status) in [
        (json!({ "requests_per_s": 0 }), 400),
        (json!({ "requests_per_s": 1 }), 200),
        (json!({ "requests_per_s": 1_000_000 }), 200),
        (json!({ "requests_per_s": 1_000_001 }), 400),
        (json!({ "max_bytes": 0 }), 200),
        (json!({ "max_bytes": 1_u64 << 50 }), 200),
        (json!({ "max_bytes": (1_u64 << 50) + 1 }), 400),
        (json!({ "max_keys": 1_u64 << 40 }), 200),
        (json!({ "max_keys": (1_u64 << 40) + 1 }), 400),
        (json!({ "max_keys": -1 }), 400),
        (json!({ "max_values": 1 }), 400),
    ] {
        let answer = node.client.send("PUT", &path, &[], quota.to_string().as_bytes()).await;
        assert_eq!(answer.status, status, "{quota} {answer:?}");
    }
    node.set_quota(json!({ "max_keys": 7 })).await;
    let namespace = path.split('/').nth(5).unwrap().to_owned();
    let make = async |namespace: &str| {
        let token =
            json!({ "name": "n", "scopes": [{ "namespace": namespace, "actions": ["read", "admin"] }] });
        let tokens = format!("/v1/accounts/{ACCOUNT}/tokens");
        let made = node.client.send("POST", &tokens, &[], token.to_string().as_bytes()).await.json();
        made["token"].as_str().unwrap().to_owned()
    };
    let (reader, stranger) = (make(&namespace).await, make(&"f".repeat(32)).await);
    let send = async |token: &str, method: &str, path: &str| {
        let headers = [("Authorization", format!("Bearer {token}")), ("Content-Length", "2".to_owned())];
        node.client.raw(&[head(method, path, &headers), b"{}".to_vec()].concat()).await
    };
    let seen = send(&reader, "GET", &path).await;
    assert_eq!((seen.status, &seen.json()["quota"]["max_keys"]), (200, &json!(7)), "{seen:?}");
    assert_eq!(send(&stranger, "GET", &path).await.status, 404);
    assert_eq!(send(&reader, "PUT", &path).await.status, 403);
    assert_eq!(send("unknown", "GET", &path).await.status, 401);
    assert_eq!(send(OTHER_TOKEN, "GET", &path.replace(ACCOUNT, OTHER_ACCOUNT)).await.status, 404);
    // It goes with its namespace.
    node.send("DELETE", "", "").await.ok();
    assert_eq!(send(OTHER_TOKEN, "PUT", &path).await.status, 404);
    let row = format!("quota/{namespace}");
    assert!(node.running.engine.read(NamespaceId::SYSTEM, row.as_bytes()).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_cannot_be_read_lets_nothing_grow() {
    let node = test_node().await;
    node.send("PUT", "/values/a", "1").await.ok();
    let key = format!("quota/{}", node.kv.rsplit_once('/').unwrap().1).into_bytes();
    let key = Bytes::from(key);
    let put = |json: &'static str| {
        let value = Value { payload: Payload::Inline(json.into()), metadata: None, expires_at_s: None };
        vec![Write::Put { namespace: NamespaceId::SYSTEM, key: Bytes::clone(&key), value }]
    };
    let of_a_later_version = put(r#"{"max_keys":2,"max_values":{}}"#);
    node.running.engine.write(of_a_later_version, Ack::Durable).await.unwrap();
    node.send("PUT", "/values/a2", "1").await.ok();
    assert_over(&node.send("PUT", "/values/b", "1").await, "max_keys of this namespace is 2");
    node.running.engine.write(put(r#"{"max_keys":"many"}"#), Ack::Durable).await.unwrap();
    assert_over(&node.send("PUT", "/values/b", "1").await, "max_keys of this namespace is 0");
    assert_eq!(node.value("a").await, b"1");
    node.send("DELETE", "/values/a", "").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_namespace_can_be_kept_smaller_than_the_node_takes_them() {
    let node = test_node().await;
    let path = node.quota_path().replace("/quota", "/docs/d");
    let put = async |document: Json| {
        let text = document.to_string();
        node.client.send("PUT", &path, &[], text.as_bytes()).await
    };
    let text = String::from_utf8(noise(3_000).iter().map(|byte| b'a' + byte % 26).collect()).unwrap();
    let set = node.set_quota(json!({ "max_document_bytes": 1_000, "max_document_ops": 20 })).await;
    assert_eq!(
        (&set["quota"]["max_document_bytes"], &set["quota"]["max_document_ops"]),
        (&json!(1_000), &json!(20))
    );
    assert_problem(
        &put(json!({ "text": text })).await,
        413,
        10030,
        "more than the namespace's max_document_bytes: 1000",
    );
    let many: Vec<u8> = (0..30).collect();
    assert_problem(
        &put(json!({ "items": many })).await,
        413,
        10030,
        "more than the namespace's max_document_ops: 20",
    );
    assert_eq!(put(json!({ "text": "short" })).await.status, 200);
    // What is above the node's own limit changes nothing.
    node.set_quota(json!({ "max_document_bytes": 1u64 << 40, "max_document_ops": 1 << 30 })).await;
    assert_eq!(put(json!({ "text": text, "items": many })).await.status, 200);
    let more = json!({ "text": { "$text": "x".repeat(30_000) } });
    assert_problem(&put(more).await, 413, 10030, "more than documents.max_ops: 20000");
}
