//! Connections: slow ones, many of them, broken ones, and the end of the node.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{head, read_answer};
use super::{LIMITS, Limits, TOKEN, TestNode, noise, test_node, test_node_with};

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
    for sent in [&b"GET / HTTP/1.1\r\nHost: "[..], b""] {
        let started = Instant::now();
        let mut stream = node.client.connect().await;
        stream.write_all(sent).await.unwrap();
        read_to_end(&mut stream).await;
        assert!(started.elapsed() >= Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let node = test_node_with(Limits { header_timeout_ms: 1_000, ..LIMITS }).await;
    check_closed_after_a_second(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_first_request_ends_and_one_with_stays() {
    let node = test_node_with(Limits { opening_timeout_ms: 1_000, ..LIMITS }).await;
    let get = request(&node, "GET", "/values/none", &[]);
    let mut used = node.client.connect().await;
    used.write_all(&get).await.unwrap();
    assert_eq!(read_answer(&mut used).await.unwrap().status, 404);
    check_closed_after_a_second(&node).await;
    used.write_all(&get).await.unwrap();
    assert_eq!(read_answer(&mut used).await.unwrap().status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let node = test_node_with(Limits { max_connections: 2, ..LIMITS }).await;
    let get = request(&node, "GET", "/values/none", &[]);
    let mut first = node.client.connect().await;
    let mut second = node.client.connect().await;
    for stream in [&mut first, &mut second] {
        stream.write_all(&get).await.unwrap();
        assert_eq!(read_answer(stream).await.unwrap().status, 404);
    }
    let mut third = node.client.connect().await;
    third.write_all(&get).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(100), read_answer(&mut third)).await;
    assert!(waiting.is_err(), "the third connection is not served while two are open");
    drop(first);
    assert_eq!(read_answer(&mut third).await.unwrap().status, 404);
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

/// Takes the 30 s that a body may stand still for.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_is_cut_with_408() {
    let node = test_node().await;
    let started = Instant::now();
    let mut stream = node.client.connect().await;
    let length = [("Content-Length", "10".to_owned())];
    stream.write_all(&request(&node, "PUT", "/values/k", &length)).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    let answer = read_answer(&mut stream).await.unwrap();
    answer.assert_error(408, 20_007, "the request body stopped coming for 30000 ms");
    assert!(started.elapsed() >= Duration::from_secs(30));
    assert_eq!(read_to_end(&mut stream).await, b"", "the connection is closed");
    assert_eq!(node.send("GET", "/values/k", "").await.status, 404);
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
    let mut idle = node.client.connect().await;
    idle.write_all(&request(&node, "GET", "/values/none", &[])).await.unwrap();
    read_answer(&mut idle).await.unwrap();
    let mut busy = node.client.connect().await;
    let length = [("Content-Length", "5".to_owned()), ("Expect", "100-continue".to_owned())];
    busy.write_all(&request(&node, "PUT", "/values/k", &length)).await.unwrap();
    // The node has begun to read the body once it asks for it.
    busy.read_exact(&mut [0; 25]).await.unwrap();

    drop(node.running.stop.take());
    assert_eq!(read_to_end(&mut idle).await, b"");
    busy.write_all(b"12345").await.unwrap();
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
    let mut busy = node.client.connect().await;
    let length = [("Content-Length", "5".to_owned()), ("Expect", "100-continue".to_owned())];
    busy.write_all(&request(&node, "PUT", "/values/k", &length)).await.unwrap();
    busy.read_exact(&mut [0; 25]).await.unwrap();
    drop(node.running.stop.take());
    node.running.serving.await.unwrap().unwrap();
    assert_eq!(read_to_end(&mut busy).await, b"");
}
