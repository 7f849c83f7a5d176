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
