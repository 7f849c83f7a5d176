//! Values above the inline limit: chunk files, missing chunks, and the limits in bytes.

use replication::ChunkId;
use replication::entry::{CHUNK_BYTES, MAX_INLINE_BYTES, MAX_VALUE_BYTES};

use super::{noise, test_node};

#[tokio::test(flavor = "multi_thread")]
async fn values_around_every_limit_come_back_whole() {
    let node = test_node().await;
    let mut chunks = 0;
    for (len, more_chunks) in [
        (MAX_INLINE_BYTES - 1, 0),
        (MAX_INLINE_BYTES, 0),
        (MAX_INLINE_BYTES + 1, 1),
        (CHUNK_BYTES - 1, 1),
        (CHUNK_BYTES, 1),
        (CHUNK_BYTES + 1, 2),
        (3 * CHUNK_BYTES + 17, 4),
    ] {
        let value = noise(len);
        node.send("PUT", "/values/k", &value).await.ok();
        let answer = node.send("GET", "/values/k", "").await;
        assert!(answer.complete && answer.body == value, "{len}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        chunks += more_chunks;
        assert_eq!(node.chunk_files().len(), chunks, "{len}");
    }
    node.send("PUT", "/values/copy", noise(3 * CHUNK_BYTES + 17)).await.ok();
    assert_eq!(node.chunk_files().len(), chunks, "equal chunks are kept once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_has_its_limit_with_and_without_a_content_length() {
    let node = test_node().await;
    let path = format!("{}/values/k", node.kv);
    let value = noise(MAX_VALUE_BYTES as usize + 1);
    let largest = &value[..MAX_VALUE_BYTES as usize];
    let text = "put: 'Value length of 26214401 exceeds limit of 26214400.'";

    node.send("PUT", "/values/k", &largest[1..]).await.ok();
    node.send("PUT", "/values/k", largest).await.ok();
    assert!(node.value("k").await == largest);
    node.send("PUT", "/values/k", &value).await.assert_error(413, 10030, text);
    node.client.send_chunked("PUT", &path, &value, 60_000).await.assert_error(
        413,
        10030,
        "exceeds limit of 26214400.",
    );
    assert!(node.value("k").await == largest, "a refused value leaves the old one");
    node.client.send_chunked("PUT", &path, largest, 60_000).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_first_chunk_is_fetched_or_said_to_be_missing() {
    let node = test_node().await;
    let value = noise(2 * CHUNK_BYTES + 5);
    node.send("PUT", "/values/k", &value).await.ok();
    node.chunk_files().iter().for_each(|file| std::fs::remove_file(file).unwrap());

    let missing = node.send("GET", "/values/k", "").await;
    missing.assert_error(503, 20005, "no peer has it");
    assert_eq!(missing.header("retry-after"), Some("1"));

    node.peer.give_wrong(ChunkId::of(&value[..CHUNK_BYTES]), b"other bytes");
    node.send("GET", "/values/k", "").await.assert_error(503, 20005, "a peer sent other bytes");

    value.chunks(CHUNK_BYTES).for_each(|chunk| node.peer.give(chunk));
    assert!(node.value("k").await == value);
    assert_eq!(node.chunk_files().len(), 3, "what was fetched is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_later_chunk_breaks_the_connection_off() {
    let node = test_node().await;
    let value = noise(3 * CHUNK_BYTES);
    node.send("PUT", "/values/k", &value).await.ok();
    let last = ChunkId::of(&value[2 * CHUNK_BYTES..]).to_string();
    let file = node.chunk_files().into_iter().find(|file| file.ends_with(&last)).unwrap();
    std::fs::write(&file, b"damaged").unwrap();

    let answer = node.send("GET", "/values/k", "").await;
    assert_eq!((answer.status, answer.complete), (200, false));
    assert!(value.starts_with(&answer.body), "what came was right, as far as it went");

    node.peer.give(&value[2 * CHUNK_BYTES..]);
    assert!(node.value("k").await == value);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_cut_off_changes_nothing() {
    let node = test_node().await;
    node.send("PUT", "/values/k", "before").await.ok();
    let authorization = format!("Authorization: Bearer {}", super::TOKEN);
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut request =
            format!("PUT {}/values/k HTTP/1.1\r\nHost: x\r\n{authorization}\r\n{framing}\r\n\r\n", node.kv)
                .into_bytes();
        request.extend_from_slice(b"ffff\r\n");
        request.extend_from_slice(&noise(20_000));
        if let Some(answer) = node.client.raw_cut_off(&request).await {
            answer.assert_error(400, 20006, "ended before it was complete");
        }
        assert_eq!(node.value("k").await, b"before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_writes_and_no_chunks() {
    let node = test_node().await;
    let value = noise(CHUNK_BYTES + 1);
    node.send("PUT", "/values/k", &value).await.ok();
    let full = node.restart(u64::MAX).await;
    for (method, path, body) in [
        ("PUT", "/values/k", noise(5)),
        ("PUT", "/values/k", noise(3 * CHUNK_BYTES)),
        ("DELETE", "/values/k", vec![]),
        ("PUT", "/bulk", br#"[{"key":"k","value":"v"}]"#.to_vec()),
        ("POST", "/bulk/delete", br#"["k"]"#.to_vec()),
        ("PUT", "", br#"{"title":"new"}"#.to_vec()),
        ("DELETE", "", vec![]),
    ] {
        full.send(method, path, &body).await.assert_error(507, 20002, "bytes free");
    }
    assert_eq!(full.chunk_files().len(), 2, "nothing was stored for the refused value");
    assert!(full.value("k").await == value, "reads go on");
    let roomy = full.restart(0).await;
    roomy.send("PUT", "/values/k", "after").await.ok();
    assert_eq!(roomy.value("k").await, b"after");
}
