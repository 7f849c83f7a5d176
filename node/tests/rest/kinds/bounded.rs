//! Bounded counters at one PoP: each call, its limits, and what is refused.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::super::{TestNode, test_node};
use super::{assert_fits, assert_problem, names, receipt};

impl TestNode {
    async fn left(&self, key: &str) -> Option<i64> {
        let answer = self.ask("GET", &format!("/bounded/{key}"), "").await;
        (answer.status != 404).then(|| answer.json()["count"].as_i64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_counter_counts_down_to_zero_and_no_further() {
    let node = test_node().await;
    assert_problem(&node.ask("GET", "/bounded/seats", "").await, 404, 10009, "no such bounded counter");
    let first = node.ask("POST", "/bounded/seats", r#"{"add":5}"#).await;
    assert_eq!(first.json(), json!({ "key": "seats", "count": 5, "rights_here": 5, "metadata": null }));
    let second = node.ask("POST", "/bounded/seats", r#"{"take":3}"#).await;
    assert_eq!(second.json()["count"], 2);
    assert!(receipt(&first) < receipt(&second), "{first:?} {second:?}");

    // There is too little in all: nobody is waited for.
    let began = Instant::now();
    let refused = node.ask("POST", "/bounded/seats", r#"{"take":3}"#).await;
    assert_problem(
        &refused,
        409,
        20040,
        "2 left in the world as far as this PoP knows, fewer than the 3 wanted",
    );
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let problem = refused.json();
    assert_eq!((&problem["rights_here"], &problem["count"]), (&json!(2), &json!(2)));
    assert_eq!((refused.header("littoral-receipt"), refused.header("retry-after")), (None, None));
    assert_eq!(node.done("POST", "/bounded/seats?ack=buffered", r#"{"take":2}"#).await["rights_here"], 0);
    assert_problem(&node.ask("POST", "/bounded/seats", r#"{"take":1}"#).await, 409, 20040, "0 left");
    assert_problem(&node.ask("POST", "/bounded/never", r#"{"take":1}"#).await, 409, 20040, "0 left");
    assert_eq!((node.left("seats").await, node.left("never").await), (Some(0), None));

    receipt(&node.ask("PUT", "/bounded/seats/metadata", r#"{"hall":1}"#).await);
    node.done("POST", "/bounded/other", r#"{"add":0}"#).await;
    let listed = node.done("GET", "/bounded", "").await;
    assert_eq!(names(&listed["keys"]), ["other", "seats"]);
    assert_eq!(listed["keys"][1], json!({ "name": "seats", "metadata": { "hall": 1 } }));
    receipt(&node.ask("DELETE", "/bounded/seats/metadata", "").await);
    assert_eq!(node.done("GET", "/bounded/seats", "").await["metadata"], Json::Null);

    receipt(&node.ask("DELETE", "/bounded/seats", "").await);
    receipt(&node.ask("DELETE", "/bounded/seats", "").await);
    assert_eq!(node.left("seats").await, None);
    assert_eq!(names(&node.done("GET", "/bounded", "").await["keys"]), ["other"]);
    assert_eq!(node.done("POST", "/bounded/seats", r#"{"add":3}"#).await["count"], 3);
    let node = node.restart(0).await;
    assert_eq!(node.done("POST", "/bounded/seats", r#"{"take":1}"#).await["count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_counter_has_limits_and_says_which() {
    let node = test_node().await;
    const MOST: u64 = (1 << 53) - 1;
    for (amount, fits) in [(0, true), (MOST - 1, true), (1, true), (MOST + 1, false), (u64::MAX, false)] {
        let body = json!({ "add": amount }).to_string();
        let answer = node.ask("POST", "/bounded/c", body).await;
        assert_fits(&answer, fits, 400, 10021, "add must be 0 to 9007199254740991, not ");
    }
    let refused = node.ask("POST", "/bounded/c", r#"{"add":1}"#).await;
    assert_problem(&refused, 400, 10021, "cannot count further than 9007199254740991");
    for (amount, fits) in [(0, false), (1, true), (MOST - 1, true), (MOST, false), (MOST + 1, false)] {
        let body = json!({ "take": amount }).to_string();
        let answer = node.ask("POST", "/bounded/c", body).await;
        if amount == MOST {
            assert_problem(&answer, 409, 20040, "0 left");
        } else {
            assert_fits(&answer, fits, 400, 10021, "take must be 1 to 9007199254740991, not ");
        }
    }
    for (body, code, text) in [
        ("{}", 10021, "give one of \"add\" and \"take\""),
        (r#"{"add":1,"take":1}"#, 10021, "give one of \"add\" and \"take\""),
        (r#"{"add":1,"expiration_ttl":60}"#, 10021, "does not expire: leave out the expiry"),
        (r#"{"add":1,"expiration":9}"#, 10021, "does not expire: leave out the expiry"),
        (r#"{"add":-1}"#, 6008, "expected u64"),
        (r#"{"take":1.5}"#, 6008, "expected u64"),
        (r#"{"give":1}"#, 6008, "unknown field `give`"),
        ("", 6008, "it is no object"),
    ] {
        assert_problem(&node.ask("POST", "/bounded/new", body).await, 400, code, text);
    }
    let refused = node.ask("POST", "/bounded/c?timeout=soon", r#"{"take":1}"#).await;
    assert_problem(&refused, 400, 10021, "timeout must be a whole number");
    assert_eq!(node.left("new").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_counter_is_changed_in_certain_states_only_where_that_is_asked() {
    let node = test_node().await;
    let path = node.kinds_path("/bounded/c");
    let send = async |method: &str, headers: &[(&str, &str)], body: &str| {
        node.client.send(method, &path, headers, body.as_bytes()).await
    };
    let first = send("POST", &[("If-None-Match", "*")], r#"{"add":2}"#).await;
    let etag = first.header("etag").unwrap().to_owned();
    assert_eq!(send("POST", &[("If-None-Match", "*")], r#"{"add":2}"#).await.status, 412);
    assert_eq!(send("GET", &[("If-None-Match", &etag)], "").await.status, 304);
    assert_eq!(send("POST", &[("If-Match", &etag)], r#"{"take":1}"#).await.status, 200);
    assert_eq!(send("POST", &[("If-Match", &etag)], r#"{"take":1}"#).await.status, 412);
    assert_eq!(node.left("c").await, Some(1));
}
