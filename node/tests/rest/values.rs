//! Values and metadata of one key, and who may reach them.

use serde_json::{Value as Json, json};

use super::client::head;
use super::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, TOKEN, namespaces_path, now_s, test_node};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_read_as_it_was_written() {
    let node = test_node().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    for (body, content_type) in [
        (&b""[..], "text/plain;charset=UTF-8"),
        (b"\r\nvalue\r\n", "application/octet-stream"),
        (&all_bytes, "application/octet-stream"),
        (b"a=b&c=d", "application/x-www-form-urlencoded"),
        (br#"{"value":"x","metadata":{}}"#, "application/json"),
        (b"--x\r\n\r\nnot a form\r\n--x--", "multipart/mixed; boundary=x"),
    ] {
        assert_eq!(node.send_typed("/values/k", content_type, body).await.ok(), Json::Null);
        let answer = node.send("GET", "/values/k", "").await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, body), "{content_type}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("expiration"), None);
    }
    assert_eq!(
        node.client.send_chunked("PUT", &format!("{}/values/k", node.kv), b"in pieces", 2).await.status,
        200
    );
    assert_eq!(node.value("k").await, b"in pieces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_key_is_gone_and_can_be_deleted_again() {
    let node = test_node().await;
    node.send("PUT", "/values/k?ack=buffered", "v").await.ok();
    for ack in ["", "?ack=durable", "?ack=buffered"] {
        assert_eq!(node.send("DELETE", &format!("/values/k{ack}"), "").await.ok(), Json::Null);
    }
    node.send("GET", "/values/k", "").await.assert_error(404, 10009, "get: 'key not found'");
    node.send("GET", "/metadata/k", "").await.assert_error(404, 10009, "key not found");
    node.send("PUT", "/values/k?ack=never", "v").await.assert_error(400, 10021, "ack must be");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_is_the_key_whatever_it_looks_like() {
    let node = test_node().await;
    let keys = [
        "bulk/get",
        "a/../b",
        "a/..",
        "../x",
        "x%2Fy",
        "x%252Fy",
        "keys",
        "a//b",
        "/",
        "a/",
        "+",
        "a%20b",
        "%00%0D%0A",
        "!$&'()*+,;=:@",
        "[]|^",
        "%C3%BC",
        "...",
    ];
    for key in keys {
        node.send("PUT", &format!("/values/{key}"), key).await.ok();
    }
    for key in keys {
        assert_eq!(node.value(key).await, key.as_bytes());
    }
    let decoded: Vec<String> = keys
        .iter()
        .map(|key| percent_encoding::percent_decode_str(key).decode_utf8().unwrap().into_owned())
        .collect();
    let listed = node.send("GET", "/keys", "").await.ok();
    let mut names: Vec<_> =
        listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let mut expected: Vec<&str> = decoded.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(node.value("%78%2f%79").await, b"x%2Fy", "another spelling of x%2Fy");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused() {
    let node = test_node().await;
    let longest = "k".repeat(512);
    for (key, status, code, text) in [
        ("", 400, 10021, "empty"),
        (".", 400, 10021, "not allowed"),
        ("..", 400, 10021, "not allowed"),
        ("%2E%2e", 400, 10021, "not allowed"),
        ("%ED%A0%80", 400, 10021, "UTF-8"),
        ("%zz", 400, 10021, "hexadecimal"),
        (&format!("{longest}k"), 414, 10022, "UTF-8 encoded length of 513 exceeds key length limit of 512."),
        (&"%C3%BC".repeat(257), 414, 10022, "514"),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            node.send(method, &format!("/values/{key}"), "").await.assert_error(status, code, text);
        }
        node.send("GET", &format!("/metadata/{key}"), "").await.assert_error(status, code, text);
    }
    node.send("PUT", &format!("/values/{longest}"), "v").await.ok();
    assert_eq!(node.value(&longest).await, b"v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailing_slash_never_reaches_the_namespace() {
    let node = test_node().await;
    for (method, path) in
        [("PUT", "/"), ("DELETE", "/"), ("GET", "/"), ("DELETE", "//"), ("DELETE", "/values")]
    {
        node.send(method, path, r#"{"title":"stolen"}"#).await.assert_error(404, 7003, "Could not route");
    }
    assert_eq!(node.send("GET", "", "").await.ok()["title"], "test");
    let wrong = node.send("PATCH", "/values/k", "").await;
    wrong.assert_error(405, 10405, "Method not allowed");
    assert_eq!(wrong.header("allow"), Some("GET, PUT, DELETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_time_to_live_have_their_limits() {
    let node = test_node().await;
    // The limit is of the key, not of its encoding, and counts bytes.
    for (len, fits) in [(511, true), (512, true), (513, false)] {
        for key in [
            "k".repeat(len),
            "%6b".repeat(len),
            format!("{}{}", "%C3%BC".repeat(len / 2), "k".repeat(len % 2)),
        ] {
            let answer = node.send("PUT", &format!("/values/{key}"), "v").await;
            answer.assert_limit(fits, 414, 10022, "length of 513 exceeds key length limit of 512.");
        }
    }
    for (ttl, fits) in [("59", false), ("59.9", false), ("60", true), ("60.0", true), ("61", true)] {
        let answer = node.send("PUT", &format!("/values/k?expiration_ttl={ttl}"), "v").await;
        answer.assert_limit(fits, 400, 10034, "Expiration TTL must be at least 60.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_is_checked_kept_and_cleared() {
    let node = test_node().await;
    let in_100_s = now_s() + 100;
    for (query, earliest) in [
        ("expiration_ttl=60".to_owned(), now_s() + 60),
        ("expiration_ttl=60.0".to_owned(), now_s() + 60),
        (format!("expiration={in_100_s}"), in_100_s),
        (format!("expiration={in_100_s}.0"), in_100_s),
        ("expiration=1&expiration_ttl=3600".to_owned(), now_s() + 3600),
    ] {
        node.send("PUT", &format!("/values/k?{query}"), "v").await.ok();
        let expires_at_s: u64 =
            node.send("GET", "/values/k", "").await.header("expiration").unwrap().parse().unwrap();
        assert!((earliest..earliest + 5).contains(&expires_at_s), "{query}: {expires_at_s}, not {earliest}");
    }
    node.send("PUT", "/values/k", "v").await.ok();
    assert_eq!(node.send("GET", "/values/k", "").await.header("expiration"), None);
    for (query, text) in [
        ("expiration_ttl=59".to_owned(), "Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
        ("expiration_ttl=-60".to_owned(), "Invalid expiration_ttl of -60."),
        ("expiration_ttl=soon".to_owned(), "Invalid expiration_ttl of soon."),
        ("expiration_ttl=NaN".to_owned(), "Invalid expiration_ttl of NaN."),
        ("expiration_ttl=1e30".to_owned(), "Invalid expiration"),
        (format!("expiration={}", now_s() + 30), "must be at least 60 seconds in the future."),
    ] {
        node.send("PUT", &format!("/values/k?{query}"), "v").await.assert_error(400, 10034, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_tokens_are_kept_apart() {
    let node = test_node().await;
    let bearer = |token: &str| vec![("Authorization", format!("Bearer {token}"))];
    let cases = [
        (vec![], 400, 9106),
        (vec![("Authorization", "Basic abc".to_owned())], 400, 6003),
        (bearer("wrong"), 403, 10000),
        (bearer(""), 400, 6003),
        (bearer(OTHER_TOKEN), 403, 10000),
        (vec![("X-Auth-Email", "a@b".to_owned()), ("X-Auth-Key", TOKEN.to_owned())], 404, 10009),
        (vec![("X-Auth-User-Service-Key", TOKEN.to_owned())], 404, 10009),
        (vec![("X-Auth-Email", "a@b".to_owned())], 400, 9106),
        (vec![("Authorization", format!("bearer {TOKEN}"))], 404, 10009),
        (bearer(TOKEN), 404, 10009),
    ];
    for (headers, status, code) in cases {
        let answer = node.client.raw(&head("GET", &format!("{}/values/k", node.kv), &headers)).await;
        answer.assert_error(status, code, "");
    }
    let theirs = node.kv.replace(ACCOUNT, OTHER_ACCOUNT);
    let answer = node.client.raw(&head("GET", &format!("{theirs}/values/k"), &bearer(OTHER_TOKEN))).await;
    answer.assert_error(404, 10013, "get: 'namespace not found'");
    let system = format!("{}/{}/values/k", namespaces_path(ACCOUNT), "0".repeat(32));
    node.client.send("GET", &system, &[], b"").await.assert_error(404, 10013, "namespace not found");
    let nobody = node.kv.replace(ACCOUNT, "me");
    let answer = node.client.raw(&head("GET", &format!("{nobody}/values/k"), &bearer("wrong"))).await;
    answer.assert_error(404, 7003, "Could not route to /client/v4/accounts/me/");
    let bad = format!("{}/not-an-id/values/k", namespaces_path(ACCOUNT));
    node.client.send("GET", &bad, &[], b"").await.assert_error(400, 10011, "could not parse UUID");
    let (path, id) = node.kv.rsplit_once('/').unwrap();
    let upper = format!("{path}/{}", id.to_uppercase());
    node.client.send("GET", &format!("{upper}/values/k"), &[], b"").await.assert_error(404, 10009, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_tells_length_and_expiry_without_the_value() {
    let node = test_node().await;
    node.send("PUT", "/values/k?expiration_ttl=100", "12345").await.ok();
    let mut stream = node.client.connect().await;
    let request =
        head("HEAD", &format!("{}/values/k", node.kv), &[("Authorization", format!("Bearer {TOKEN}"))]);
    let get = head("GET", &format!("{}/values/k", node.kv), &[("Authorization", format!("Bearer {TOKEN}"))]);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[request, get].concat()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"12345") {
        assert!(tokio::io::AsyncReadExt::read_buf(&mut stream, &mut bytes).await.unwrap() > 0);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("content-length: 5\r\n").count(), 2, "{text}");
    assert_eq!(text.matches("12345").count(), 1, "{text}");
    assert_eq!(text.matches("expiration: ").count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_without_metadata_clears_it() {
    let node = test_node().await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{\"a\": [1, \"x y\"]}\r\n\
                --b\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nv\r\n--b--\r\n";
    node.send_typed("/values/k", "multipart/form-data; boundary=b", form.as_bytes()).await.ok();
    assert_eq!(node.send("GET", "/metadata/k", "").await.ok(), json!({"a": [1, "x y"]}));
    node.send("PUT", "/values/k", "v").await.ok();
    assert_eq!(node.send("GET", "/metadata/k", "").await.ok(), Json::Null);
}
