//! Sessions, staleness and waiting, at one PoP that is alone; what several make of it is for the suites.

use super::client::Answer;
use super::{ACCOUNT, TestNode, test_node};

impl TestNode {
    async fn kv_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.client.send(method, &format!("{}{path}", self.kv), headers, body.as_bytes()).await
    }

    /// A page under the namespace, of `/v1`.
    async fn v1_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let namespace = self.kv.rsplit('/').next().unwrap();
        let path = format!("/v1/accounts/{ACCOUNT}/namespaces/{namespace}{path}");
        self.client.send(method, &path, headers, body.as_bytes()).await
    }
}

fn token(answer: &Answer) -> String {
    answer.header("littoral-session").unwrap_or_else(|| panic!("no token: {answer:?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_session_is_given_one_and_nobody_else() {
    let node = test_node().await;
    assert_eq!(node.kv_with("PUT", "/values/k", &[], "v").await.header("littoral-session"), None);
    let begun = node.kv_with("PUT", "/values/k", &[("Littoral-Session", "new")], "v").await;
    begun.ok();
    let first = token(&begun);
    let read = node.kv_with("GET", "/values/k", &[("Littoral-Session", &first)], "").await;
    assert_eq!((read.status, read.body.as_slice()), (200, b"v".as_slice()));
    let carried = [("Littoral-Session", first.as_str())];
    for answer in [
        node.kv_with("GET", "/values/none", &carried, "").await,
        node.kv_with("GET", "/keys", &carried, "").await,
        node.kv_with("POST", "/bulk/get", &carried, r#"{"keys":["k"]}"#).await,
        node.v1_with("POST", "/counters/c", &carried, r#"{"add":1}"#).await,
        node.v1_with("GET", "/sets", &carried, "").await,
        node.v1_with("PUT", "/maps/m/fields/f", &carried, "v").await,
        node.v1_with("GET", "/sets/s/members/none", &carried, "").await,
    ] {
        let next = token(&answer);
        assert!((4..200).contains(&next.len()), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_nobody_or_another_cluster_is_refused() {
    let node = test_node().await;
    let good = token(&node.kv_with("PUT", "/values/k", &[("Littoral-Session", "new")], "v").await);
    let flipped = format!("{}{}", if good.starts_with('A') { 'B' } else { 'A' }, &good[1..]);
    for bad in ["", "New", "x", &good[1..], &flipped, &"A".repeat(40_000)] {
        for method in ["GET", "PUT"] {
            let refused = node.kv_with(method, "/values/k", &[("Littoral-Session", bad)], "w").await;
            assert_eq!(refused.status, 400, "{refused:?}");
            assert!(String::from_utf8_lossy(&refused.body).contains("send \\\"new\\\""), "{refused:?}");
        }
    }
    assert_eq!(node.value("k").await, b"v");
    let native = node.v1_with("GET", "/sets/s", &[("Littoral-Session", "x")], "").await;
    assert_eq!((native.status, native.header("content-type")), (400, Some("application/problem+json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_tells_how_stale_it_may_be() {
    let node = test_node().await;
    node.kv_with("PUT", "/values/k", &[], "v").await.ok();
    for answer in [
        node.kv_with("GET", "/values/k", &[], "").await,
        node.kv_with("GET", "/values/none", &[], "").await,
        node.kv_with("GET", "/metadata/k", &[], "").await,
        node.kv_with("GET", "/keys?max-staleness=0", &[], "").await,
        node.kv_with("GET", "/values/k", &[("Littoral-Max-Staleness-Ms", "0")], "").await,
        node.kv_with("POST", "/bulk/get", &[], r#"{"keys":["k"]}"#).await,
        node.v1_with("GET", "/counters/none", &[], "").await,
        node.v1_with("GET", "/maps/m", &[], "").await,
    ] {
        // Alone there is nothing to be behind of.
        assert_eq!(answer.header("littoral-staleness-ms"), Some("0"), "{answer:?}");
    }
    assert_eq!(node.kv_with("PUT", "/values/k", &[], "w").await.header("littoral-staleness-ms"), None);
    for wrong in ["-1", "soon", ""] {
        let refused = node.kv_with("GET", &format!("/values/k?max-staleness={wrong}"), &[], "").await;
        assert_eq!(refused.status, 400, "{wrong}");
        let refused = node.kv_with("GET", "/values/k", &[("Littoral-Max-Staleness-Ms", wrong)], "").await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_more_pops_than_there_are_is_refused_before_anything_is_written() {
    let node = test_node().await;
    for wait in ["1", "region=test", "region=", "some", "-1"] {
        for (method, path) in [("PUT", "/values/k"), ("DELETE", "/values/k"), ("PUT", "/bulk")] {
            let refused = node.kv_with(method, &format!("{path}?wait={wait}"), &[], "[]").await;
            assert_eq!(refused.status, 400, "{wait}: {refused:?}");
        }
        let refused = node.v1_with("POST", &format!("/counters/c?wait={wait}"), &[], r#"{"add":1}"#).await;
        assert_eq!(refused.status, 400, "{wait}: {refused:?}");
    }
    assert_eq!(node.kv_with("GET", "/values/k", &[], "").await.status, 404);
    assert_eq!(node.kv_with("GET", "/values/k?wait=0", &[], "").await.status, 400);
    for wait in ["0", "all"] {
        let done = node.kv_with("PUT", &format!("/values/k?wait={wait}&timeout=10"), &[], "v").await;
        done.ok();
        assert_eq!((done.header("littoral-wait"), done.header("littoral-held-by")), (Some("held"), Some("")));
        assert!(done.header("littoral-receipt").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_under_its_key_is_answered_again_and_done_once() {
    let node = test_node().await;
    let add = async |key: &str, by: u32, more: &[(&str, &str)]| {
        let headers = [&[("Idempotency-Key", key)], more].concat();
        node.v1_with("POST", "/counters/c", &headers, &format!(r#"{{"add":{by}}}"#)).await
    };
    let first = add("one", 5, &[]).await;
    assert_eq!((first.status, first.json()["count"].as_i64()), (200, Some(5)), "{first:?}");
    let again = add("one", 5, &[("Littoral-First-Sent-Ms", "1"), ("Littoral-Session", "new")]).await;
    assert_eq!((again.status, &again.body), (200, &first.body), "{again:?}");
    assert_eq!(again.header("littoral-receipt"), first.header("littoral-receipt"));
    assert_eq!(
        (again.header("idempotency-replayed"), first.header("idempotency-replayed")),
        (Some("true"), None)
    );
    token(&again);
    assert_eq!(add("one", 6, &[]).await.status, 422);
    assert_eq!(add("two", 5, &[]).await.json()["count"], 10);
    // It was sent before this node was started.
    let forgotten = add("three", 5, &[("Littoral-First-Sent-Ms", "500000")]).await;
    assert_eq!((forgotten.status, forgotten.header("retry-after")), (409, None), "{forgotten:?}");
    let long = "k".repeat(256);
    for key in ["", &long] {
        assert_eq!(add(key, 1, &[]).await.status, 400);
    }
    assert_eq!(node.v1_with("GET", "/counters/c", &[], "").await.json()["count"], 10);
    // A refusal is one again; what could not be done may be tried again.
    let wrong = node.v1_with("POST", "/counters/c", &[("Idempotency-Key", "bad")], "{}").await;
    assert_eq!(wrong.status, 400);
    let wrong = node.v1_with("POST", "/counters/c", &[("Idempotency-Key", "bad")], "{}").await;
    assert_eq!((wrong.status, wrong.header("idempotency-replayed")), (400, Some("true")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_joins_the_tokens_that_it_carries() {
    let node = test_node().await;
    let new = [("Littoral-Session", "new")];
    let tokens = [
        token(&node.kv_with("PUT", "/values/a", &new, "1").await),
        token(&node.kv_with("PUT", "/values/b", &new, "2").await),
    ];
    let both = [("Littoral-Session", tokens[0].as_str()), ("Littoral-Session", tokens[1].as_str())];
    let joined = token(&node.kv_with("PUT", "/values/c", &both, "3").await);
    assert!(!tokens.contains(&joined));
    for (carried, status) in [(64, 200), (65, 400)] {
        let many = vec![("Littoral-Session", tokens[0].as_str()); carried];
        assert_eq!(node.kv_with("GET", "/values/a", &many, "").await.status, status, "{carried}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_documents_are_read_and_edited_on_the_same_terms() {
    let node = test_node().await;
    let new = [("Littoral-Session", "new")];
    let first = token(&node.v1_with("PUT", "/docs/d", &new, r#"{"n":1}"#).await);
    let carried = [("Littoral-Session", first.as_str())];
    for path in ["/docs", "/docs/d", "/docs/d/history", "/docs/d/changes", "/docs/d/conflicts?pointer=/n"] {
        let answer = node.v1_with("GET", path, &carried, "").await;
        assert_eq!((answer.status, answer.header("littoral-staleness-ms")), (200, Some("0")), "{answer:?}");
        token(&answer);
    }
    for path in ["/docs/none", "/docs/d/metadata", "/docs/d?max-staleness=0&pointer=/none"] {
        let answer = node.v1_with("GET", path, &carried, "").await;
        assert_eq!((answer.status, answer.header("littoral-staleness-ms")), (404, Some("0")), "{answer:?}");
    }
    let merge = ("Content-Type", "application/merge-patch+json");
    let patched = node.v1_with("PATCH", "/docs/d?wait=all", &[merge, carried[0]], r#"{"n":2}"#).await;
    assert_eq!((patched.status, patched.header("littoral-wait")), (200, Some("held")), "{patched:?}");
    assert_eq!(patched.header("littoral-staleness-ms"), None);
    assert_ne!(token(&patched), first, "it has written");
    assert_eq!(node.v1_with("PATCH", "/docs/d?wait=1", &[merge], r#"{"n":3}"#).await.status, 400);
    assert_eq!(node.v1_with("GET", "/docs/d", &[], "").await.json()["n"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_write_that_is_sent_again_under_its_key_does_not_meet_itself() {
    let node = test_node().await;
    for (path, value) in [("/values/k", "v"), ("/docs/d", r#"{"n":1}"#)] {
        let put =
            async |condition| node.v1_with("PUT", path, &[("Idempotency-Key", path), condition], value).await;
        let first = put(("If-None-Match", "*")).await;
        assert_eq!(first.status, 200, "{first:?}");
        let again = put(("If-None-Match", "*")).await;
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")), "{again:?}");
        assert_eq!(again.header("etag"), first.header("etag"));
        // For another state it is another request; and without the key it meets itself.
        assert_eq!(put(("If-Match", "*")).await.status, 422);
        assert_eq!(node.v1_with("PUT", path, &[("If-None-Match", "*")], value).await.status, 412);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_orders_takes_no_terms_that_it_could_not_keep() {
    let node = test_node().await;
    let lines = ("Content-Type", "application/x-ndjson");
    let order = "{\"key\":\"k\",\"value\":\"v\"}\n";
    for (path, header) in [
        ("/values", ("Littoral-Session", "new")),
        ("/values?wait=all", lines),
        ("/values", ("Idempotency-Key", "one")),
    ] {
        let refused = node.v1_with("POST", path, &[lines, header], order).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.body).contains("a stream of orders"), "{refused:?}");
    }
    assert_eq!(node.v1_with("GET", "/values/k", &[], "").await.status, 404);
}
