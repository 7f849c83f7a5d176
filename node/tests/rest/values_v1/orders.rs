//! Orders: a line each, answered while they come.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::super::client::head;
use super::super::kinds::assert_problem;
use super::super::{LIMITS, Limits, TOKEN, TestNode, test_node, test_node_with};
use super::keys;

impl TestNode {
    /// Orders that are sent in one piece, and the answers to them.
    pub(super) async fn order(&self, lines: impl Into<String>) -> Vec<Json> {
        let (body, mut answers) = Orders::begin(self).await;
        body.send(Bytes::from(lines.into())).await.unwrap();
        drop(body);
        let mut found = Vec::new();
        while let Some(answer) = answers.next().await {
            found.push(answer);
        }
        found
    }
}

/// The answers to orders, while these are sent.
struct Orders {
    body: Incoming,
    read: Vec<u8>,
}

impl Orders {
    async fn begin(node: &TestNode) -> (mpsc::Sender<Bytes>, Self) {
        let stream = TokioIo::new(node.client.connect().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let (pieces, received) = mpsc::channel::<Bytes>(1);
        let frames = stream::unfold(received, |mut received| async {
            let piece = received.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(Frame::data(piece)), received))
        });
        let request = hyper::Request::post(node.kinds_path("/values"))
            .header("Host", "test")
            .header("Authorization", format!("Bearer {TOKEN}"))
            .header("Content-Type", "application/x-ndjson")
            .body(StreamBody::new(Box::pin(frames)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        (pieces, Self { body: response.into_body(), read: Vec::new() })
    }

    /// The next answer; `None` at the end.
    async fn next(&mut self) -> Option<Json> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.read.extend_from_slice(self.body.frame().await?.ok()?.data_ref()?);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_is_answered_in_its_order_and_a_bad_one_stops_no_other() {
    let node = test_node().await;
    let lines = [
        r#"{"key":"a","value":"text","metadata":{"n": 1.0},"expiration_ttl":1000}"#,
        r#"{"key":"b","base64":"/w=="}"#,
        "",
        "not json",
        r#"{"key":"a","value":"second"}"#,
        r#"{"key":"b","delete":true}"#,
        r#"{"key":"","value":"x"}"#,
        r#"{"key":"c"}"#,
        r#"{"key":"c","value":"x","base64":"eA=="}"#,
        r#"{"key":"c","base64":"!"}"#,
        r#"{"key":"c","value":"x","expiration_ttl":0}"#,
        r#"{"key":"c","value":"x","ttl":5}"#,
        r#"{"key":"c","delete":true,"metadata":1}"#,
        "[1]",
        r#"{"key":"d","value":"last, without an end of line"}"#,
    ];
    let answers = node.order(lines.join("\n")).await;
    let told: Vec<_> = answers
        .iter()
        .map(|answer| (answer["line"].as_u64().unwrap(), answer["problem"]["code"].as_u64().unwrap_or(0)))
        .collect();
    let expected = [
        (1, 0),
        (2, 0),
        (4, 6008),
        (5, 0),
        (6, 0),
        (7, 10021),
        (8, 10021),
        (9, 10021),
        (10, 10012),
        (11, 10034),
        (12, 6008),
        (13, 10021),
        (14, 6008),
        (15, 0),
    ];
    assert_eq!(told, expected);
    assert_eq!((&answers[0]["key"], answers[2].get("key")), (&json!("a"), None));
    assert!(answers[3]["receipt"].as_str() > answers[0]["receipt"].as_str(), "{answers:?}");
    assert_eq!(node.value("a").await, b"second");
    assert_eq!(keys(&node.done("GET", "/values", "").await["values"]), ["a", "d"]);

    let refused = node.ask_with("POST", "/values", &[("Content-Type", "application/json")], "{}").await;
    assert_problem(&refused, 400, 10021, "Content-Type: application/x-ndjson");
    let refused =
        node.ask_with("POST", "/values?ack=x", &[("Content-Type", "application/x-ndjson")], "").await;
    assert_problem(&refused, 400, 10021, "ack must be");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_answered_while_they_come() {
    let node = test_node().await;
    let (body, mut answers) = Orders::begin(&node).await;
    for number in 1..=3 {
        let line = format!("{{\"key\":\"{number}\",\"value\":\"{}\"}}\n", "x".repeat(300_000 * (number - 1)));
        for piece in line.as_bytes().chunks(100_000) {
            body.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let answer = answers.next().await.unwrap();
        assert_eq!((&answer["line"], answer["receipt"].is_string()), (&json!(number), true), "{answer}");
    }
    assert_eq!(node.value("3").await.len(), 600_000);
    drop(body);
    assert_eq!(answers.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_off_is_no_order() {
    let node = test_node().await;
    let body = "{\"key\":\"whole\",\"value\":\"\"}\n{\"key\":\"cut\",\"value\":\"\"}";
    let headers = [
        ("Authorization", format!("Bearer {TOKEN}")),
        ("Content-Type", "application/x-ndjson".to_owned()),
        ("Content-Length", (body.len() + 1).to_string()),
    ];
    let mut stream = node.client.connect().await;
    stream.write_all(&head("POST", &node.kinds_path("/values"), &headers)).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut told = String::new();
    // Where the connection is reset, the end of the answer may be lost.
    let _ = stream.read_to_string(&mut told).await;
    assert!(!told.contains("\"key\":\"cut\""), "{told}");
    while node.ask("GET", "/values/whole", "").await.status != 200 {}
    assert_eq!(node.ask("GET", "/values/cut", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_what_is_not_done() {
    let mut node = test_node().await;
    let (body, mut answers) = Orders::begin(&node).await;
    body.send(Bytes::from("{\"key\":\"a\",\"value\":\"\"}\n{\"key\":\"b\"")).await.unwrap();
    assert_eq!(answers.next().await.unwrap()["key"], "a");
    drop(node.running.stop.take());
    let last = answers.next().await.unwrap();
    assert_eq!((&last["line"], &last["problem"]["code"]), (&json!(2), &json!(20004)), "{last}");
    assert_eq!(answers.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_orders_that_do_not_all_fit_the_namespace_those_are_done_that_fit() {
    let node = test_node().await;
    let quota = json!({ "max_keys": 2 }).to_string();
    let set = node.ask_with("PUT", "/quota", &[("Content-Type", "application/json")], quota).await;
    assert_eq!(set.status, 200, "{set:?}");
    let lines = ["a", "b", "c", "a"].map(|key| format!("{{\"key\":\"{key}\",\"value\":\"1\"}}\n")).concat();
    let answers = node.order(lines).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer["problem"]["code"].as_u64()).collect();
    assert_eq!(codes, [None, None, Some(20012), None], "{answers:?}");
}

/// Lines of two bytes have answers of hundreds: a client that sends and takes none must not fill the node's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_is_not_read_from() {
    const MOST_BYTES: usize = 64 << 20;
    let limits = Limits { stalled_timeout_ms: 1_000, ..LIMITS };
    let node = test_node_with(limits).await;
    let mut stream = node.client.connect().await;
    let headers = [
        ("Authorization", format!("Bearer {TOKEN}")),
        ("Content-Type", "application/x-ndjson".to_owned()),
        ("Content-Length", (2 * MOST_BYTES).to_string()),
    ];
    let head = head("POST", &node.kinds_path("/values"), &headers);
    stream.write_all(&head).await.unwrap();
    let lines = b"x\n".repeat(32 << 10);
    let mut sent = 0;
    while stream.write_all(&lines).await.is_ok() {
        sent += lines.len();
        assert!(sent < MOST_BYTES, "the node has read all of it");
    }
    assert_eq!(node.ask("GET", "/values", "").await.status, 200);
}
