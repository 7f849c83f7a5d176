//! Several writes as one: what they answer, and that quotas, scopes and terms hold for them as for other writes.

use serde_json::{Value as Json, json};

use super::client::Answer;
use super::kinds::{assert_problem, receipt};
use super::{TestNode, test_node};

const MAX_BODY_BYTES: usize = 4 << 20;

impl TestNode {
    async fn batch(&self, writes: Json) -> Answer {
        self.ask("POST", "/batch", json!({ "writes": writes }).to_string()).await
    }

    async fn batch_with(&self, query: &str, headers: &[(&str, &str)], writes: Json) -> Answer {
        let path = self.kinds_path(&format!("/batch{query}"));
        self.client.send("POST", &path, headers, json!({ "writes": writes }).to_string().as_bytes()).await
    }

    async fn etag_of(&self, path: &str) -> Option<String> {
        let answer = self.ask("GET", path, "").await;
        (answer.status == 200).then(|| answer.header("etag").unwrap().to_owned())
    }
}

fn put(key: &str, value: &str) -> Json {
    json!({ "kind": "value", "op": "put", "key": key, "value": value })
}

fn with(mut write: Json, name: &str, value: impl Into<Json>) -> Json {
    write[name] = value.into();
    write
}

/// That nothing was done, because of this write.
#[track_caller]
fn assert_refused(answer: &Answer, (status, code): (u16, u64), index: u64, key: &str, text: &str) {
    assert_problem(answer, status, code, text);
    let problem = answer.json();
    assert_eq!((&problem["index"], &problem["key"]), (&json!(index), &json!(key)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().starts_with(&format!("writes[{index}] (key \"{key}\"): ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_what_its_writes_would() {
    let node = test_node().await;
    node.done("POST", "/counters/c", r#"{"add":5}"#).await;
    node.done("POST", "/sets/s", r#"{"add":["old","gone"]}"#).await;
    let answer = node
        .batch(json!([
            with(with(put("v", "text"), "metadata", json!({"a": 1})), "expiration_ttl", 600),
            {"kind": "value", "op": "delete", "key": "none"},
            {"kind": "counter", "op": "add", "key": "c", "amount": -3},
            {"kind": "bounded", "op": "add", "key": "b", "amount": 7},
            {"kind": "set", "op": "add", "key": "s", "member": "new"},
            {"kind": "set", "op": "remove", "key": "s", "member": "gone"},
            {"kind": "map", "op": "put", "key": "m", "field": "f", "base64": "/w=="},
        ]))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("littoral-condition"), Some("pop=test"));
    let done = answer.json();
    let done = done["writes"].as_array().unwrap();
    assert_eq!(done[6]["receipt"], json!(receipt(&answer)));
    for (at, path) in [
        (0, "/values/v"),
        (2, "/counters/c"),
        (3, "/bounded/b"),
        (4, "/sets/s/members/new"),
        (6, "/maps/m/fields/f"),
    ] {
        assert_eq!(done[at]["etag"].as_str(), node.etag_of(path).await.as_deref(), "{path}");
    }
    assert_eq!((&done[2]["count"], &done[3]["count"]), (&json!(2), &json!(7)));
    assert!(done[1].get("etag").is_none() && done[5].get("etag").is_none(), "{done:?}");
    let value = node.ask("GET", "/values/v", "").await;
    assert_eq!((&value.body[..], value.header("littoral-metadata")), (&b"text"[..], Some(r#"{"a":1}"#)));
    assert!(value.header("expiration").is_some());
    assert_eq!(node.ask("GET", "/maps/m/fields/f", "").await.body, b"\xff");

    // What is emptied first is filled anew.
    let answer = node
        .batch(json!([
            {"kind": "set", "op": "delete", "key": "s"},
            {"kind": "set", "op": "add", "key": "s", "member": "only"},
            {"kind": "counter", "op": "delete", "key": "c"},
            {"kind": "bounded", "op": "take", "key": "b", "amount": 2},
        ]))
        .await;
    assert_eq!(answer.json()["writes"][3]["count"], json!(5), "{answer:?}");
    assert_eq!(node.done("GET", "/sets/s", "").await["members"], json!([{ "name": "only" }]));
    assert_eq!(node.ask("GET", "/counters/c", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_conditions_are_decided_before_anything_is_written() {
    let node = test_node().await;
    node.done("PUT", "/values/a", "1").await;
    let at_first = node.etag_of("/values/a").await.unwrap();
    let answer = node
        .batch(json!([
            put("b", "2"),
            with(put("a", "2"), "if_match", at_first.clone()),
            {"kind": "counter", "op": "add", "key": "c", "amount": 1, "if_none_match": "*"},
            {"kind": "set", "op": "add", "key": "s", "member": "m", "if_none_match": "*"},
        ]))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let now = node.etag_of("/values/a").await;
    for (index, key, writes, met) in [
        (1, "a", json!([put("z", "3"), with(put("a", "3"), "if_match", at_first)]), now.clone()),
        (
            1,
            "s",
            json!([put("z", "3"), {"kind": "set", "op": "remove", "key": "s", "member": "n", "if_match": "*"}]),
            None,
        ),
        // Not what the batch itself would make of it.
        (0, "y", json!([with(put("y", "3"), "if_match", "*"), put("z", "3")]), None),
        (
            2,
            "c",
            json!([put("z", "3"), put("y", "3"),
                   {"kind": "counter", "op": "delete", "key": "c", "if_none_match": "*"}]),
            node.etag_of("/counters/c").await,
        ),
    ] {
        let refused = node.batch(writes).await;
        assert_refused(&refused, (412, 20020), index, key, "is not one that this request is for");
        assert_eq!(refused.json()["etag"], json!(met), "{refused:?}");
        assert_eq!((refused.header("etag"), refused.header("littoral-receipt")), (None, None));
    }
    assert_eq!((node.etag_of("/values/z").await, node.etag_of("/values/y").await), (None, None));
    assert_eq!(node.etag_of("/values/a").await, now);
    // The head is not about one of them.
    let refused = node.batch_with("", &[("If-None-Match", "*")], json!([put("z", "3")])).await;
    assert_problem(&refused, 400, 10021, "give \"if_match\" or \"if_none_match\" with the write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_cannot_be_done_keeps_the_others_from_being_done() {
    let node = test_node().await;
    node.done("POST", "/bounded/seats", r#"{"add":2}"#).await;
    let take = |amount: u64| json!({"kind": "bounded", "op": "take", "key": "seats", "amount": amount});
    let enough = json!({"kind": "bounded", "op": "add", "key": "other", "amount": 9});
    let refused = node.batch(json!([put("sold", "1"), enough, take(3)])).await;
    assert_refused(&refused, (409, 20040), 2, "seats", "2 left in the world");
    assert_eq!((&refused.json()["count"], &refused.json()["rights_here"]), (&json!(2), &json!(2)));
    let most = json!({"kind": "counter", "op": "add", "key": "c", "amount": 9_007_199_254_740_991_u64});
    assert_eq!(node.batch(json!([most])).await.status, 200);
    let one_more = json!({"kind": "counter", "op": "add", "key": "c", "amount": 1});
    let another = json!({"kind": "counter", "op": "add", "key": "d", "amount": 1});
    let refused = node.batch(json!([put("sold", "1"), another, one_more])).await;
    assert_refused(&refused, (400, 10021), 2, "c", "cannot count further");
    assert_eq!(node.etag_of("/values/sold").await, None);
    assert_eq!(node.etag_of("/bounded/other").await, None);
    assert_eq!(node.batch(json!([put("sold", "1"), take(2)])).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_is_refused_and_its_body_has_a_limit() {
    let node = test_node().await;
    assert_problem(&node.batch(json!([])).await, 400, 10021, "at least 1 write");
    assert_problem(&node.ask("POST", "/batch", "no JSON").await, 400, 6008, "no object");
    assert_refused(
        &node.batch(json!([put("a", "1"), put("a", "2")])).await,
        (400, 10021),
        1,
        "a",
        "same entry",
    );
    assert_problem(&node.ask("GET", "/batch", "").await, 405, 10405, "POST");
    assert_problem(&node.ask("POST", "/batch?ack=never", r#"{"writes":[]}"#).await, 400, 10021, "durable");
    let body = json!({ "writes": [put("a", "1")] }).to_string();
    for (bytes, status) in [(MAX_BODY_BYTES - 1, 200), (MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)] {
        let padded = body.clone() + &" ".repeat(bytes - body.len());
        assert_eq!(node.ask("POST", "/batch", padded).await.status, status, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_needs_the_right_to_each_key() {
    let node = test_node().await;
    let path = node.kinds_path("/batch");
    let ask = async |token: &str, writes: Json| {
        let body = json!({ "writes": writes }).to_string();
        node.send_as(token, "POST", &path, body.as_bytes()).await
    };
    let inside = node.scoped(node.namespace(), "in/", &["write"]).await;
    let member = |key: &str| json!({"kind": "set", "op": "add", "key": key, "member": "m"});
    let refused = ask(&inside, json!([put("in/a", "1"), member("out")])).await;
    assert_refused(&refused, (403, 10000), 1, "out", "\"write\" on \"out\"");
    assert_eq!(node.etag_of("/values/in%2Fa").await, None);
    assert_eq!(ask(&inside, json!([put("in/a", "1"), member("in/s")])).await.status, 200);
    let reader = node.scoped(node.namespace(), "", &["read", "list"]).await;
    assert_eq!(ask(&reader, json!([put("in/a", "2")])).await.status, 403);
    assert_eq!(ask("nobody", json!([put("in/a", "2")])).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_beyond_the_quota_writes_nothing() {
    let node = test_node().await;
    let quota = node.ask("PUT", "/quota", r#"{"max_keys":3}"#).await;
    assert_eq!(quota.status, 200, "{quota:?}");
    assert_eq!(node.batch(json!([put("a", "1"), put("b", "1")])).await.status, 200);
    let refused = node.batch(json!([put("a", "2"), put("c", "2"), put("d", "2")])).await;
    assert_problem(&refused, 429, 20012, "max_keys");
    assert_eq!(node.value("a").await, b"1");
    assert_eq!(node.batch(json!([put("a", "2"), put("c", "2")])).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_again_is_answered_again_and_not_done_again() {
    let node = test_node().await;
    let writes =
        |amount: i64| json!([put("v", "x"), {"kind": "counter", "op": "add", "key": "c", "amount": amount}]);
    let key = [("Idempotency-Key", "once")];
    let first = node.batch_with("", &key, writes(2)).await;
    let again = node.batch_with("", &key, writes(2)).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")), "{again:?}");
    assert_eq!((first.json(), receipt(&first)), (again.json(), receipt(&again)));
    assert_eq!(node.batch_with("", &key, writes(3)).await.status, 422);
    assert_eq!(node.done("GET", "/counters/c", "").await["count"], json!(2));
    // What was refused for good is so again.
    let key = [("Idempotency-Key", "never")];
    let absent = json!([with(put("v", "y"), "if_none_match", "*")]);
    assert_eq!(node.batch_with("", &key, absent.clone()).await.status, 412);
    node.done("DELETE", "/values/v", "").await;
    assert_eq!(node.batch_with("", &key, absent).await.status, 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_the_terms_of_other_writes() {
    let node = test_node().await;
    let written =
        node.batch_with("?ack=buffered", &[("Littoral-Session", "new")], json!([put("a", "1")])).await;
    assert_eq!(written.status, 200, "{written:?}");
    let session = written.header("littoral-session").unwrap().to_owned();
    let read =
        node.client.send("GET", &node.kinds_path("/values/a"), &[("Littoral-Session", &session)], b"").await;
    assert_eq!(&read.body[..], b"1");
    let held = node.batch_with("?wait=all", &[], json!([put("a", "2")])).await;
    assert_eq!(held.status, 200, "{held:?}");
    assert!(held.header("littoral-held-by").is_some(), "{held:?}");
}
