//! Connections: slow ones, many of them, broken ones, and the end of the node.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{head, read_answer};
use super::{LIMITS, Limits, TOKEN, TestNode, noise, test_node, test_node_with};

const HALF_A_HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: ";

fn request(node: &TestNode, method: &str, path: &str, more: &[(&str, String)]) -> Vec<u8> {
    let mut headers = vec![("Authorization", format!("Bearer {TOKEN}"))];
    headers.extend_from_slice(more);
    head(method, &format!("{}{path}", node.kv), &headers)
}

/// What is left to read until the server closes.
async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

/// A connection that sends a part of a head, and one that sends nothing.
async fn check_closed_after_a_second(node: &TestNode) {
    for sent in [HALF_A_HEAD, b""] {
        // A new connection's time begins when it is taken.
        let started = Instant::now();
        let stream = node.client.connect().await;
        check_closed_a_second_after(started, stream, sent).await;
    }
}

async fn check_closed_a_second_after(started: Instant, mut stream: TcpStream, sent: &[u8]) {
    stream.write_all(sent).await.unwrap();
    read_to_end(&mut stream).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
}

/// A connection on which a request was answered.
async fn used(node: &TestNode) -> TcpStream {
    let mut stream = node.client.connect().await;
    check_answers(node, &mut stream).await;
    stream
}

async fn check_answers(node: &TestNode, stream: &mut TcpStream) {
    stream.write_all(&request(node, "GET", "/values/none", &[])).await.unwrap();
    assert_eq!(read_answer(stream).await.unwrap().status, 404);
}

/// A connection with a request under way, and what is left to send of it.
async fn busy(node: &TestNode) -> (TcpStream, &'static [u8]) {
    let mut stream = node.client.connect().await;
    let length = [("Content-Length", "5".to_owned()), ("Expect", "100-continue".to_owned())];
    stream.write_all(&request(node, "PUT", "/values/k", &length)).await.unwrap();
    // The node has begun to read the body once it asks for it.
    stream.read_exact(&mut [0; 25]).await.unwrap();
    (stream, b"12345")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let node = test_node_with(Limits { header_timeout_ms: 1_000, ..LIMITS }).await;
    check_closed_after_a_second(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_first_request_ends_and_one_with_stays() {
    let node = test_node_with(Limits { opening_timeout_ms: 1_000, ..LIMITS }).await;
    let mut used = used(&node).await;
    check_closed_after_a_second(&node).await;
    check_answers(&node, &mut used).await;
}

/// It had the time that an idle connection has, a minute, for each head.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_head_that_has_begun_has_the_time_of_the_first() {
    let node = test_node_with(Limits { opening_timeout_ms: 1_000, ..LIMITS }).await;
    let [slow, mut idle] = [used(&node).await, used(&node).await];
    let before = Instant::now();
    check_closed_a_second_after(before, slow, HALF_A_HEAD).await;
    assert!(before.elapsed() < Duration::from_millis(LIMITS.header_timeout_ms));
    check_answers(&node, &mut idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_requests_under_way_on_all_connections_one_more_waits_for_a_place() {
    let node = test_node_with(Limits { max_connections: 3, ..LIMITS }).await;
    let [mut first, mut second, mut third] = [busy(&node).await, busy(&node).await, busy(&node).await];
    let mut fourth = node.client.connect().await;
    fourth.write_all(&request(&node, "GET", "/values/none", &[])).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), read_answer(&mut fourth)).await;
    assert!(waiting.is_err(), "the fourth connection is not served while all have requests under way");
    for (stream, rest) in [&mut first, &mut second, &mut third] {
        stream.write_all(rest).await.unwrap();
        assert_eq!(read_answer(stream).await.unwrap().status, 200);
    }
    assert_eq!(read_answer(&mut fourth).await.unwrap().status, 404);
    let mut closed = 0;
    for (stream, _) in [&mut first, &mut second, &mut third] {
        let end = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut [0])).await;
        closed += usize::from(end.is_ok());
    }
    assert_eq!(closed, 1, "one of the idle ones has gone for it");
}

/// Connections without a request held every place, and nobody else was served until they timed out.
#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_lock_nobody_out() {
    let node = test_node_with(Limits { max_connections: 8, ..LIMITS }).await;
    let (mut working, rest) = busy(&node).await;
    let mut idle = used(&node).await;
    let mut hostile = Vec::new();
    for sent in [HALF_A_HEAD, b""].repeat(10) {
        let mut stream = node.client.connect().await;
        stream.write_all(sent).await.unwrap();
        hostile.push(stream);
    }
    for _ in 0..10 {
        check_answers(&node, &mut node.client.connect().await).await;
    }
    // They went in the order in which they came, before the one that had come to a request.
    for stream in &mut hostile[..14] {
        assert_eq!(read_to_end(stream).await, b"");
    }
    check_answers(&node, &mut idle).await;
    working.write_all(rest).await.unwrap();
    assert_eq!(read_answer(&mut working).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_gets_an_error_and_the_node_goes_on() {
    let node = test_node().await;
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let put = String::from_utf8(request(&node, "PUT", "/values/k", &[])).unwrap();
    let put = put.trim_end();
    let nonsense = [
        "\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2}".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("{put}\r\nContent-Length: -1\r\n\r\n"),
        format!("{put}\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        format!("{put}\r\nContent-Length: 9999999999999\r\n\r\nx"),
        format!("{put}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        format!("{put}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("{put}\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000)),
        long_path,
    ];
    for bytes in nonsense {
        if let Some(answer) = node.client.raw_cut_off(bytes.as_bytes()).await {
            assert!((400..500).contains(&answer.status), "{bytes:.60}: {answer:?}");
        }
    }
    node.send("PUT", "/values/k", "still here").await.ok();
    assert_eq!(node.value("k").await, b"still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_drained_and_the_connection_goes_on() {
    let node = test_node().await;
    let body = noise(3 << 20);
    let length = [("Content-Length", body.len().to_string())];
    let mut stream = node.client.connect().await;
    for path in ["/values/..", "/values/k?expiration_ttl=1", "/values/k?ack=x"] {
        stream.write_all(&request(&node, "PUT", path, &length)).await.unwrap();
        stream.write_all(&body).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 400, "{path}");
    }
    stream.write_all(&request(&node, "GET", "/values/k", &[])).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 404);
}

/// wrangler sends a whole value to where the key ".." leads, which is the path of the namespace and a slash.
/// It was cut off in the middle, and said that the fetch had failed instead of why.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_leads_nowhere_is_drained_too() {
    let node = test_node().await;
    let body = noise(3 << 20);
    let length = [("Content-Length", body.len().to_string())];
    let mut stream = node.client.connect().await;
    for (method, path, status, code) in [
        ("PUT", "/", 404, 7003),
        ("DELETE", "/", 404, 7003),
        ("PUT", "/values", 404, 7003),
        ("POST", "/values/k", 405, 10405),
        ("POST", "/bulk", 405, 10405),
    ] {
        stream.write_all(&request(&node, method, path, &length)).await.unwrap();
        stream.write_all(&body).await.unwrap();
        read_answer(&mut stream).await.unwrap().assert_error(status, code, "");
    }
    stream.write_all(&request(&node, "GET", "/values/k", &[])).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 404);
}

/// The client may well send for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_without_end_is_drained_to_a_bound() {
    let node = test_node().await;
    let chunked = [("Transfer-Encoding", "chunked".to_owned())];
    let chunk = [b"10000\r\n".as_slice(), &noise(1 << 16), b"\r\n"].concat();
    for path in ["/", "/values/..", "/values/k"] {
        let mut stream = node.client.connect().await;
        stream.write_all(&request(&node, "PUT", path, &chunked)).await.unwrap();
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
        }
        // Beside what is drained, buffers of both sides take some.
        assert!((25 << 20..48 << 20).contains(&sent), "{path}: {sent} bytes were taken");
    }
}

/// Less than 4 KiB in a second is none, whether it comes at once or in drops.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_cut_with_408() {
    let node = test_node_with(Limits { stalled_timeout_ms: 1_000, ..LIMITS }).await;
    for drops in [1, 4_095, 4_096 + 2_048] {
        let started = Instant::now();
        let mut stream = node.client.connect().await;
        let length = [("Content-Length", "10000".to_owned())];
        stream.write_all(&request(&node, "PUT", "/values/k", &length)).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let dropping = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            for piece in noise(drops).chunks(drops.div_ceil(9)) {
                ticks.tick().await;
                let _ = writing.write_all(piece).await;
            }
        };
        let (answer, ()) = tokio::join!(read_answer(&mut reading), dropping);
        let text = "the request body stopped coming: fewer than 4096 bytes in 1000 ms";
        answer.unwrap().assert_error(408, 20_007, text);
        let has_moved = drops >= 4_096;
        assert!(started.elapsed() >= Duration::from_millis(if has_moved { 1_500 } else { 1_000 }));
        assert_eq!(read_to_end(&mut stream).await, b"", "the connection is closed");
    }
    assert_eq!(node.send("GET", "/values/k", "").await.status, 404);
}

/// Whoever did not read held the connection, half a megabyte of memory, and what the system keeps to send, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_is_cut_and_one_that_is_taken_slowly_is_not() {
    let node = test_node_with(Limits { stalled_timeout_ms: 1_000, ..LIMITS }).await;
    let large = noise(25 << 20);
    node.send("PUT", "/values/large", &large).await.ok();
    let get = request(&node, "GET", "/values/large", &[]);
    let [mut stalled, mut slow] = [node.client.connect().await, node.client.connect().await];
    stalled.write_all(&get).await.unwrap();
    slow.write_all(&get).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(300));
    let mut taken = 0;
    let mut piece = vec![0; 2 << 20];
    while taken < large.len() {
        ticks.tick().await;
        taken += slow.read(&mut piece).await.unwrap();
    }
    assert!(read_to_end(&mut stalled).await.len() < large.len(), "it was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_at_once() {
    let node = test_node().await;
    let ask = |path, len: u64| {
        let headers = [("Expect", "100-continue".to_owned()), ("Content-Length", len.to_string())];
        request(&node, "PUT", path, &headers)
    };
    for (path, len) in [("/values/k", (25 << 20) + 1), ("/values/..", 5)] {
        let mut stream = node.client.connect().await;
        stream.write_all(&ask(path, len)).await.unwrap();
        let status = read_answer(&mut stream).await.unwrap().status;
        assert!(matches!(status, 413 | 400), "{path}: {status}");
    }
    let mut stream = node.client.connect().await;
    stream.write_all(&ask("/values/k", 5)).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"12345").await.unwrap();
    read_answer(&mut stream).await.unwrap().ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_a_request_finish_and_closes_idle_connections() {
    let mut node = test_node().await;
    let mut idle = used(&node).await;
    let (mut busy, rest) = busy(&node).await;

    drop(node.running.stop.take());
    assert_eq!(read_to_end(&mut idle).await, b"");
    busy.write_all(rest).await.unwrap();
    // An idle client would use the connection again: it is told not to.
    let answer = read_to_end(&mut busy).await;
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    node.running.serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(node.client.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_cuts_off_what_does_not_end_in_time() {
    let mut node = test_node_with(Limits { drain_ms: 200, ..LIMITS }).await;
    let (mut busy, _) = busy(&node).await;
    drop(node.running.stop.take());
    node.running.serving.await.unwrap().unwrap();
    assert_eq!(read_to_end(&mut busy).await, b"");
}
