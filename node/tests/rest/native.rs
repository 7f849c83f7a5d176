//! The node's own pages.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::head;
use super::test_node;

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_need_no_token() {
    let node = test_node().await;
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n"), ("/metrics", "littoral_test 1\n")] {
        let answer = node.client.raw(&head("GET", path, &[])).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, body.as_bytes()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_lag_need_a_token_and_errors_are_problems() {
    let node = test_node().await;
    for path in ["/v1/status", "/v1/lag"] {
        let answer = node.client.send("GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.json()["pop"].is_string() && answer.json()["lag"].is_array(), "{answer:?}");
    }
    let with_token = node.client.send("GET", "/v1/nothing", &[], b"").await;
    let wrong_method = node.client.send("POST", "/v1/lag", &[], b"").await;
    let without = node.client.raw(&head("GET", "/v1/lag", &[])).await;
    let wrong = node.client.raw(&head("GET", "/v1/lag", &[("Authorization", "Bearer no".to_owned())])).await;
    assert_eq!(without.header("www-authenticate"), Some("Bearer"));
    for (answer, status) in [(with_token, 404), (wrong_method, 405), (without, 401), (wrong, 401)] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["status"], status);
        assert!(answer.json()["detail"].is_string());
    }
    let elsewhere = node.client.send("GET", "/client/v4/user", &[], b"").await;
    elsewhere.assert_error(404, 7003, "Could not route to /client/v4/user");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_needs_no_token_and_is_sent_once() {
    let node = test_node().await;
    let ask =
        async |headers: &[(&str, String)]| node.client.raw(&head("GET", "/v1/openapi.json", headers)).await;
    let document = ask(&[]).await;
    assert_eq!((document.status, document.header("content-type")), (200, Some("application/json")));
    assert_eq!(document.json()["openapi"], "3.1.0");
    let tag = document.header("etag").unwrap();
    let cases = [
        (tag.to_owned(), true),
        (format!("\"x\", W/{tag}"), true),
        ("*".to_owned(), true),
        ("\"x\"".to_owned(), false),
        (tag.trim_matches('"').to_owned(), false),
    ];
    for (known, is_known) in cases {
        let mut stream = node.client.connect().await;
        stream
            .write_all(&head("GET", "/v1/openapi.json", &[("If-None-Match", known.clone())]))
            .await
            .unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line == b"HTTP/1.1 304", is_known, "{known}");
    }
    let wrong_method = node.client.send("POST", "/v1/openapi.json", &[], b"").await;
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, Some("GET,HEAD")));
}

/// They were said in plain text, which no client of these pages reads.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_in_an_address_is_a_problem_too() {
    let node = test_node().await;
    for (method, path) in [
        ("POST", "/v1/members/%FF/drain"),
        ("POST", "/v1/links/%ED%A0%80/pause"),
        ("DELETE", "/v1/accounts/a/tokens/%FF"),
        ("GET", "/v1/accounts/a/namespaces/%FF/quota"),
        ("GET", "/v1/entries?leaves=1&leaves=2"),
        ("GET", "/v1/entries?after=%FF"),
    ] {
        let answer = node.client.send(method, path, &[], br#"{"paused":true}"#).await;
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (400, Some(400)), "{path} {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

/// A list was taken for the fields in their order, and an empty one for those that may be left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_object_asks_for_nothing() {
    let node = test_node().await;
    let (_, namespace) = node.kv.rsplit_once('/').unwrap();
    let quota = format!("/v1/accounts/{}/namespaces/{namespace}/quota", super::ACCOUNT);
    for (method, path, body) in [
        ("PUT", quota.as_str(), "[]"),
        ("PUT", &quota, "[null, 0, 0]"),
        ("POST", "/v1/accounts", r#"["shop"]"#),
        ("POST", "/v1/budgets", r#"["node", null]"#),
        ("POST", "/v1/budgets", ""),
    ] {
        let answer = node.client.send(method, path, &[], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("send a JSON object"), "{answer:?}");
    }
    let whole = node.client.send("PUT", &quota, &[], b" \n{}").await;
    assert_eq!(whole.status, 200, "{whole:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_is_begun_once_and_told_of() {
    let node = test_node().await;
    // Large enough that the second request comes while the first is at work: chunks are read at a bounded pace.
    let large = super::noise(20_000_000);
    let chunks = 20_000_000_u64.div_ceil(512 << 10);
    assert_eq!(node.send("PUT", "/values/large", &large).await.status, 200);
    let begun = node.client.send("POST", "/v1/verify", &[], b"").await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let again = node.client.send("POST", "/v1/verify", &[], b"").await;
    assert_eq!(again.status, 409, "{again:?}");
    let last = loop {
        let report = node.client.send("GET", "/v1/verify", &[], b"").await.json();
        if report["running"].is_null() {
            break report["last"].clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&last["chunks"]["good"], &last["mismatches"]),
        (&chunks.into(), &serde_json::json!([])),
        "{last}"
    );
    for method in ["GET", "POST"] {
        assert_eq!(node.client.raw(&head(method, "/v1/verify", &[])).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_and_entries_are_told_without_values_and_keys_only_to_their_owner() {
    let node = test_node().await;
    assert_eq!(node.send("PUT", "/values/mine?expiration=4000000000", "secret").await.status, 200);
    let leaves = node.client.send("GET", "/v1/leaves", &[], b"").await.json();
    assert_eq!(leaves["entries"], 3, "the namespace, the member and the value: {leaves}");
    let key_shown = async |token: &str| {
        let bearer = ("Authorization", format!("Bearer {token}"));
        let answer = node.client.raw(&head("GET", "/v1/entries", &[bearer])).await;
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
        let page = answer.json();
        let entries = page["entries"].as_array().unwrap().clone();
        let value = entries.into_iter().find(|entry| entry["expires_at_s"] == 4_000_000_000_u64).unwrap();
        value["key"].as_str().map(str::to_owned)
    };
    assert_eq!(key_shown(super::TOKEN).await.as_deref(), Some("mine"));
    assert_eq!(key_shown(super::OTHER_TOKEN).await, None);
    for (path, status) in [("/v1/entries?leaves=zz", 400), ("/v1/entries?after=%25", 400)] {
        assert_eq!(node.client.send("GET", path, &[], b"").await.status, status, "{path}");
    }
    for path in ["/v1/leaves", "/v1/entries"] {
        assert_eq!(node.client.raw(&head("GET", path, &[])).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed_drained_and_refused_with_a_reason() {
    let node = test_node().await;
    let report = node.client.send("GET", "/v1/members", &[], b"").await.json();
    let own = &report["members"][0];
    assert_eq!(
        (&own["pop"], &own["is_this"], &own["stage"]),
        (&"test".into(), &true.into(), &"member".into())
    );
    let path = |order: &str| format!("/v1/members/{}/{order}", own["replica"].as_str().unwrap());
    let drained = node.client.send("POST", &path("drain"), &[], br#"{"draining":true}"#).await;
    assert_eq!((drained.status, &drained.json()["members"][0]["draining"]), (200, &true.into()));
    let refused = node.send("PUT", "/values/key", "value").await;
    refused.assert_error(503, 20011, "put: 'this node is being drained");
    let undone = node.client.send("POST", &path("drain"), &[], br#"{"draining":false}"#).await;
    assert_eq!((undone.status, &undone.json()["members"][0]["draining"]), (200, &false.into()));
    assert_eq!(node.send("PUT", "/values/key", "value").await.status, 200);

    let nobody = format!("/v1/members/{}/remove", "0".repeat(32));
    let cases: [(&str, &[u8], u16); 8] = [
        (&path("remove"), br#"{"force":true}"#, 409),
        (&nobody, b"{}", 404),
        ("/v1/members/x/remove", b"{}", 404),
        (&path("remove"), br#"{"forced":true}"#, 400),
        (&path("drain"), b"", 400),
        (&path("drain"), &[b' '; 1025], 413),
        ("/v1/dead-letters/x", br#"{"write":true}"#, 404),
        (&format!("/v1/dead-letters/{:016x}-{:032x}", 1, 1), br#"{"write":true}"#, 404),
    ];
    for (path, body, status) in cases {
        let answer = node.client.send("POST", path, &[], body).await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        let without = node.client.raw(&head("POST", path, &[("Content-Length", "0".to_owned())])).await;
        assert_eq!(without.status, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_listed_and_their_budgets_set_within_bounds() {
    let node = test_node().await;
    let report = node.client.send("GET", "/v1/links", &[], b"").await.json();
    assert_eq!((&report["pop"], report["links"].as_array().map(Vec::len)), (&"test".into(), Some(0)));
    assert_eq!(node.client.send("GET", "/v1/budgets", &[], b"").await.json(), report);
    let cases: [(&str, &[u8], u16); 13] = [
        ("/v1/budgets/burst", br#"{"burst_ms":1000}"#, 200),
        ("/v1/budgets/burst", br#"{"burst_ms":4}"#, 400),
        ("/v1/budgets/burst", br#"{"burst_bytes":100000}"#, 400),
        ("/v1/budgets", br#"{"of":"node","bytes_per_s":1000000}"#, 200),
        ("/v1/budgets", br#"{"of":"inter_region","bytes_per_s":null}"#, 200),
        ("/v1/budgets", br#"{"of":"node","bytes_per_s":16383}"#, 400),
        ("/v1/budgets", br#"{"of":"ocean","bytes_per_s":1000000}"#, 400),
        ("/v1/budgets", br#"{"of":"node","bytes_per_s":"1MB"}"#, 400),
        ("/v1/links/nowhere/budget", br#"{"bytes_per_s":1000000}"#, 404),
        ("/v1/links/nowhere/budget", br#"{"bytes_per_s":0}"#, 400),
        ("/v1/links/nowhere/budget", br#"{"rate":1000000}"#, 400),
        ("/v1/links/nowhere/pause", br#"{"paused":true}"#, 404),
        ("/v1/links/nowhere/pause", b"{}", 400),
    ];
    for (path, body, status) in cases {
        let answer = node.client.send("POST", path, &[], body).await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        let without = node.client.raw(&head("POST", path, &[("Content-Length", "0".to_owned())])).await;
        assert_eq!(without.status, 401, "{path}");
    }
    for path in ["/v1/links", "/v1/budgets"] {
        assert_eq!(node.client.raw(&head("GET", path, &[])).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_dead_letters_are_listed() {
    let node = test_node().await;
    assert_eq!(node.send("DELETE", "/values/key", "").await.status, 200);
    let garbage = node.client.send("GET", "/v1/gc", &[], b"").await.json();
    assert_eq!(garbage["garbage"]["tombstones"], 1);
    assert_eq!(garbage["holders"][0]["pop"], "test");
    let letters = node.client.send("GET", "/v1/dead-letters", &[], b"").await.json();
    assert_eq!(letters["letters"].as_array().map(Vec::len), Some(0));
    let status = node.client.send("GET", "/v1/status", &[], b"").await.json();
    assert_eq!(status["membership"]["stage"], "member");
    for path in ["/v1/members", "/v1/gc", "/v1/dead-letters"] {
        assert_eq!(node.client.raw(&head("GET", path, &[])).await.status, 401, "{path}");
    }
}
