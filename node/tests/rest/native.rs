//! The node's own pages.

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
