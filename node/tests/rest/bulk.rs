//! Many keys in one request.

use serde_json::{Value as Json, json};

use super::{noise, now_s, padded, test_node};

fn pairs(count: usize) -> Json {
    (0..count).map(|i| json!({"key": format!("k{i:05}"), "value": format!("v{i}")})).collect()
}

fn keys(count: usize) -> Json {
    (0..count).map(|i| json!(format!("k{i:05}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_pair_may_carry_is_written() {
    let node = test_node().await;
    let at_s = now_s() + 500;
    let large = "x".repeat(700_000);
    let body = json!([
        {"key": "text", "value": "ü\n\u{0}"},
        {"key": "bytes", "value": "AP+A", "base64": true},
        {"key": "literal", "value": "AP+A", "base64": false},
        {"key": "large", "value": large},
        {"key": "at", "value": "", "expiration": at_s, "metadata": {"m": "ä"}},
        {"key": "ttl", "value": "", "expiration": 1, "expiration_ttl": 60.0},
        {"key": "text2", "value": "first", "unknown": [1]},
        {"key": "text2", "value": "last"},
    ]);
    let answer = node.send("PUT", "/bulk?ack=buffered", body.to_string()).await.ok();
    assert_eq!(answer, json!({"successful_key_count": 8, "unsuccessful_keys": []}));
    assert_eq!(node.value("text").await, "ü\n\0".as_bytes());
    assert_eq!(node.value("bytes").await, [0, 255, 128]);
    assert_eq!(node.value("literal").await, b"AP+A");
    assert!(node.value("large").await == large.as_bytes());
    assert_eq!(node.value("text2").await, b"last");
    assert_eq!(
        node.send("GET", "/values/at", "").await.header("expiration"),
        Some(at_s.to_string().as_str())
    );
    assert_eq!(node.send("GET", "/metadata/at", "").await.ok(), json!({"m": "ä"}));
    assert!(node.send("GET", "/values/ttl", "").await.header("expiration").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_keys_are_taken_and_one_more_is_not() {
    let node = test_node().await;
    node.send("PUT", "/bulk", pairs(9_999).to_string()).await.ok();
    node.send("POST", "/bulk/delete", keys(9_999).to_string()).await.ok();
    let count_of = |answer: Json| answer["successful_key_count"].as_u64().unwrap();
    assert_eq!(count_of(node.send("PUT", "/bulk", pairs(10_000).to_string()).await.ok()), 10_000);
    assert_eq!(node.value("k09999").await, b"v9999");
    for (method, path, body) in [
        ("PUT", "/bulk", pairs(10_001)),
        ("DELETE", "/bulk", keys(10_001)),
        ("POST", "/bulk/delete", keys(10_001)),
    ] {
        let answer = node.send(method, path, body.to_string()).await;
        answer.assert_error(400, 10024, "10001 keys exceed the limit of 10000");
    }
    assert_eq!(count_of(node.send("DELETE", "/bulk", keys(5_000).to_string()).await.ok()), 5_000);
    let first = node.send("GET", "/keys?limit=10", "").await.ok()[0]["name"].clone();
    assert_eq!(first, "k05000");
    assert_eq!(count_of(node.send("POST", "/bulk/delete", keys(10_000).to_string()).await.ok()), 10_000);
    assert_eq!(node.send("GET", "/keys", "").await.ok(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_pair_leaves_the_whole_request_undone() {
    let node = test_node().await;
    let too_long = "k".repeat(513);
    let too_large = "v".repeat((25 << 20) + 1);
    let long_metadata = "m".repeat(1023);
    for (bad, status, code, text) in [
        (json!({"key": "", "value": "v"}), 400, 10021, "empty"),
        (json!({"key": "..", "value": "v"}), 400, 10021, "not allowed"),
        (json!({"key": too_long, "value": "v"}), 414, 10022, "513"),
        (json!({"key": "b"}), 400, 10012, "missing field `value`"),
        (json!({"value": "b"}), 400, 10012, "missing field `key`"),
        (json!({"key": "b", "value": 1}), 400, 10012, "could not parse request body"),
        (json!({"key": "b", "value": "?", "base64": true}), 400, 10012, "not base64"),
        (json!({"key": "b", "value": "v", "expiration_ttl": 59}), 400, 10034, "of 59."),
        (json!({"key": "b", "value": "v", "expiration": "soon"}), 400, 10012, "could not parse"),
        (json!({"key": "b", "value": "v", "metadata": long_metadata}), 413, 10030, "Metadata length of 1025"),
        (json!({"key": "b", "value": too_large}), 413, 10030, "Value length of 26214401"),
        (json!("b"), 400, 10012, "could not parse"),
    ] {
        let body = json!([{"key": "good", "value": "v"}, bad]).to_string();
        node.send("PUT", "/bulk", body).await.assert_error(status, code, text);
    }
    for (method, path) in
        [("PUT", "/bulk"), ("DELETE", "/bulk"), ("POST", "/bulk/delete"), ("POST", "/bulk/get")]
    {
        for body in ["", "{", "[1]", "\"x\"", "[\"a\"", "[{]", "\u{0}", "[\"\\ud800\"]"] {
            node.send(method, path, body).await.assert_error(400, 10012, "could not parse request body");
        }
        let nothing = if path == "/bulk/get" { r#"{"keys":[]}"# } else { "[]" };
        node.send(method, path, nothing).await.assert_error(400, 10029, "at least 1 key");
    }
    node.send("POST", "/bulk/delete", r#"["good", ".."]"#).await.assert_error(400, 10021, "not allowed");
    node.send("GET", "/values/good", "").await.assert_error(404, 10009, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_body_has_a_limit_and_its_sender_sees_the_answer() {
    let node = test_node().await;
    let path = format!("{}/bulk", node.kv);
    let spaces = vec![b' '; 100_000_000 - 2];
    let largest = [b"[", spaces.as_slice(), b"]"].concat();
    node.client.send("PUT", &path, &[], &largest).await.assert_error(400, 10029, "");
    let too_large = [largest.as_slice(), b" "].concat();
    node.client.send("PUT", &path, &[], &too_large).await.assert_error(413, 20010, "exceeds 100000000 bytes");
    node.client.send_chunked("DELETE", &path, &too_large, 1 << 20).await.assert_error(
        413,
        20010,
        "exceeds 100000000",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_read_gives_every_key_its_value_or_null() {
    let node = test_node().await;
    let at_s = now_s() + 500;
    let large = "x".repeat(600_000);
    let body = json!([
        {"key": "json", "value": "{\"a\":[1.0,\"ü\"]}", "metadata": {"m": 1}, "expiration": at_s},
        {"key": "text", "value": "plain"},
        {"key": "123", "value": "7"},
        {"key": "large", "value": large},
        {"key": "bytes", "value": "/w==", "base64": true},
    ]);
    node.send("PUT", "/bulk", body.to_string()).await.ok();
    let json_text = "{\"a\":[1.0,\"ü\"]}";
    for (request, expected) in [
        (
            json!({"keys": ["text", "none", "json", "text"]}),
            json!({"text": "plain", "none": null, "json": json_text}),
        ),
        (json!({"keys": ["123", "json"], "type": "json"}), json!({"123": 7, "json": {"a": [1.0, "ü"]}})),
        (json!({"keys": ["large"], "type": "text"}), json!({"large": large})),
        (
            json!({"keys": ["json", "text", "none"], "withMetadata": true}),
            json!({
                "json": {"value": json_text, "metadata": {"m": 1}, "expiration": at_s},
                "text": {"value": "plain", "metadata": null},
                "none": null,
            }),
        ),
        (
            json!({"keys": ["json"], "type": "json", "withMetadata": true, "cacheTtl": "60"}),
            json!({"json": {"value": {"a": [1.0, "ü"]}, "metadata": {"m": 1}, "expiration": at_s}}),
        ),
    ] {
        let answer = node.send("POST", "/bulk/get", request.to_string()).await.ok();
        assert_eq!(answer, json!({"values": expected}), "{request}");
    }
    for (request, code, text) in [
        (json!({"keys": ["text"], "type": "json"}), 10021, "non-json value"),
        (json!({"keys": ["bytes"]}), 10021, "not UTF-8"),
        (json!({"keys": ["text"], "type": "stream"}), 10021, "type must be"),
        (json!({"keys": [".."]}), 10021, "not allowed"),
        (json!({"keys": "text"}), 10012, "could not parse"),
        (json!({}), 10012, "missing field `keys`"),
        (json!({"keys": keys(101)}), 10024, "101 keys exceed the limit of 100"),
    ] {
        node.send("POST", "/bulk/get", request.to_string()).await.assert_error(400, code, text);
    }
    node.send("POST", "/bulk/get", json!({"keys": keys(99)}).to_string()).await.ok();
    let hundred = node.send("POST", "/bulk/get", json!({"keys": keys(100)}).to_string()).await.ok();
    assert_eq!(hundred["values"].as_object().unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_bulk_read_has_a_limit() {
    let node = test_node().await;
    for (len, fits) in [((1 << 20) - 1, true), (1 << 20, true), ((1 << 20) + 1, false)] {
        let answer = node.send("POST", "/bulk/get", padded(r#"{"keys":["k"]}"#, len)).await;
        answer.assert_limit(fits, 413, 20010, "exceeds 1048576 bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_read_gives_25_mib_and_no_more() {
    let node = test_node().await;
    let value: Vec<u8> = noise(5 << 20).iter().map(|byte| b'a' + byte % 26).collect();
    for key in 0..5 {
        node.send("PUT", &format!("/values/k0000{key}"), &value).await.ok();
    }
    node.send("PUT", "/values/k00005", "x").await.ok();
    let five = node.send("POST", "/bulk/get", json!({"keys": keys(5)}).to_string()).await.ok();
    assert!(five["values"]["k00004"].as_str().unwrap().as_bytes() == value);
    let six = node.send("POST", "/bulk/get", json!({"keys": keys(6)}).to_string()).await;
    six.assert_error(413, 10030, "add up to more than 26214400 bytes");
}
