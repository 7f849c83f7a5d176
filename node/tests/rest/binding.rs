//! The binding protocol of workerd: its own words for what the REST API does, and what it never says.

use littoral_node::http::{Access, Door, Listener};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::client::{Answer, Client, head, read_answer};
use super::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, TOKEN, TestNode, noise, now_s, test_node};

const MAX_VALUE_BYTES: usize = 25 << 20;

impl TestNode {
    pub(super) fn id(&self) -> &str {
        self.kv.rsplit_once('/').unwrap().1
    }

    /// A request of the protocol, the namespace in its path; `path` begins with "/".
    async fn bind(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.client.send(method, &format!("/binding/{}{path}", self.id()), headers, body).await
    }

    async fn bulk(&self, body: Json) -> Answer {
        self.bind("POST", "/bulk/get", &[("Content-Type", "application/json")], body.to_string().as_bytes())
            .await
    }
}

/// One request on a stream that stays open.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> Answer {
    let mut all = headers.to_vec();
    all.push(("Content-Length", body.len().to_string()));
    stream.write_all(&[head(method, path, &all), body.to_vec()].concat()).await.unwrap();
    read_answer(stream).await.unwrap()
}

fn bearer(token: &str) -> (&'static str, String) {
    ("Authorization", format!("Bearer {token}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_writes_the_rest_api_reads_and_the_other_way_round() {
    let node = test_node().await;
    let metadata = "{\"größe\":[1.0,\"\u{1f30a}\"]}";
    let all_bytes: Vec<u8> = (0..=255).collect();
    let put = node
        .bind(
            "PUT",
            "/a%2Fb%20[%C3%BC]?urlencoded=true&expiration_ttl=100",
            &[("CF-KV-Metadata", metadata)],
            &all_bytes,
        )
        .await;
    assert_eq!((put.status, put.body.as_slice()), (200, &b""[..]), "{put:?}");
    let rest = node.send("GET", "/values/a%2Fb%20%5B%C3%BC%5D", "").await;
    assert_eq!(rest.body, all_bytes);
    assert!(rest.header("expiration").unwrap().parse::<u64>().unwrap() >= now_s() + 99);
    let meta = node.send("GET", "/metadata/a%2Fb%20%5B%C3%BC%5D", "").await;
    assert_eq!(meta.ok(), json!({"größe": [1.0, "\u{1f30a}"]}));

    let got = node.bind("GET", "/a%2Fb%20%5B%C3%BC%5D?urlencoded=true&cache_ttl=60", &[], b"").await;
    assert_eq!((got.status, got.body.as_slice()), (200, all_bytes.as_slice()));
    assert_eq!(got.header("cf-kv-metadata"), Some(metadata));
    assert_eq!(got.header("cf-expiration"), rest.header("expiration"));

    // JSON, forms and the like are bytes here.
    for content_type in ["multipart/form-data; boundary=b", "application/json", "text/plain;charset=UTF-8"] {
        let body = b"--b\r\n\r\nno form\r\n--b--";
        assert_eq!(node.bind("PUT", "/k", &[("Content-Type", content_type)], body).await.status, 200);
        let got = node.bind("GET", "/k", &[], b"").await;
        assert_eq!((got.body.as_slice(), got.header("cf-kv-metadata")), (&body[..], None));
    }

    for _ in 0..2 {
        assert_eq!(node.bind("DELETE", "/k?urlencoded=true", &[], b"").await.status, 200);
    }
    let gone = node.bind("GET", "/k?urlencoded=true", &[], b"").await;
    assert_eq!((gone.status, gone.reason()), (404, "key not found"));
    node.send("GET", "/values/k", "").await.assert_error(404, 10009, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_apart_from_routes_and_from_what_is_no_text() {
    let node = test_node().await;
    for key in ["bulk%2Fget", "binding", "%00%0D%0A", "metrics", "%252F", "a%2F..%2Fb", "!$&'()*+,;=:@[]|^~"]
    {
        let path = format!("/{key}?urlencoded=true");
        assert_eq!(node.bind("PUT", &path, &[], key.as_bytes()).await.status, 200, "{key}");
        assert_eq!(node.bind("GET", &path, &[], b"").await.body, key.as_bytes());
    }
    let same = node.bind("GET", "/%21%24%26%27%28%29%2A%2B%2C%3B%3D%3A%40%5B%5D%7C%5E~", &[], b"").await;
    assert_eq!(same.status, 200, "the spelling of a key does not matter");
    let longest = "%C3%BC".repeat(256);
    assert_eq!(node.bind("PUT", &format!("/{longest}"), &[], b"").await.status, 200);
    for (key, status, text) in [
        ("%ED%A0%80", 400, "not percent-encoded UTF-8"),
        ("%FF", 400, "not percent-encoded UTF-8"),
        ("%2E%2E", 400, "\"..\" is not allowed"),
        (&format!("{longest}a"), 414, "UTF-8 encoded length of 513 exceeds key length limit of 512."),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = node.bind(method, &format!("/{key}?urlencoded=true"), &[], b"").await;
            assert_eq!(answer.status, status, "{method} {key}");
            assert!(answer.reason().contains(text), "{answer:?}");
        }
    }
    assert_eq!(node.bind("POST", "/k", &[], b"").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_has_metadata_as_text_and_a_cursor_until_its_last_page() {
    let node = test_node().await;
    let at_s = now_s() + 1000;
    let pairs = json!([
        {"key": "a", "value": "1"},
        {"key": "b", "value": "2", "expiration": at_s, "metadata": {"x": "ü"}},
        {"key": "c", "value": "3"},
        {"key": "other", "value": "4"},
    ]);
    node.send("PUT", "/bulk", pairs.to_string()).await.ok();
    let whole = node.bind("GET", "/", &[], b"").await.json();
    let rows = json!([
        {"name": "a"},
        {"name": "b", "expiration": at_s, "metadata": "{\"x\":\"ü\"}"},
        {"name": "c"},
        {"name": "other"},
    ]);
    assert_eq!(whole, json!({"keys": rows, "list_complete": true}));

    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = node.bind("GET", &format!("/?key_count_limit=1&cursor={cursor}"), &[], b"").await.json();
        names.push(page["keys"][0]["name"].as_str().unwrap().to_owned());
        assert_eq!(page["list_complete"], page.get("cursor").is_none());
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = next.to_owned();
    }
    assert_eq!(names, ["a", "b", "c", "other"]);
    assert_eq!(node.bind("GET", "?prefix=ot", &[], b"").await.json()["keys"], json!([{"name": "other"}]));
    for (query, text) in [
        ("key_count_limit=0", "Invalid key_count_limit of 0."),
        ("key_count_limit=1001", "Invalid key_count_limit of 1001."),
        ("cursor=nonsense", "the cursor is not one"),
    ] {
        let answer = node.bind("GET", &format!("/?{query}"), &[], b"").await;
        assert!(answer.status == 400 && answer.reason().starts_with(text), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_read_at_once_in_the_form_asked_for() {
    let node = test_node().await;
    let pairs = json!([
        {"key": "a", "value": "1", "metadata": {"m": 1}, "expiration_ttl": 1000},
        {"key": "b", "value": "{\"x\":[1.0]}"},
        {"key": "t", "value": "text"},
    ]);
    node.send("PUT", "/bulk", pairs.to_string()).await.ok();
    let read = node.bulk(json!({"keys": ["a", "b", "none"], "cacheTtl": "60"})).await.json();
    assert_eq!(read, json!({"a": "1", "b": "{\"x\":[1.0]}", "none": null}));
    let read = node.bulk(json!({"keys": ["a", "b"], "type": "json"})).await.json();
    assert_eq!(read, json!({"a": 1, "b": {"x": [1.0]}}));
    let read = node.bulk(json!({"keys": ["a", "t", "none"], "withMetadata": true})).await.json();
    let with = json!({"a": {"value": "1", "metadata": {"m": 1}}, "t": {"value": "text", "metadata": null}, "none": null});
    assert_eq!(read, with);

    let many: Vec<_> = (0..101).map(|n| n.to_string()).collect();
    for (body, text) in [
        (json!({"keys": []}), "You must request a minimum of 1 key"),
        (json!({"keys": many}), "You can request a maximum of 100 keys"),
        (json!({"keys": ["a"], "type": "stream"}), "type must be text or json"),
        (
            json!({"keys": ["t"], "type": "json"}),
            "At least one of the requested keys corresponds to a non-json value",
        ),
        (json!({"keys": ["a"], "cacheTtl": "29"}), "Invalid cache_ttl of 29."),
        (json!({"keys": [1]}), "could not parse request body"),
    ] {
        let answer = node.bulk(body).await;
        assert!(answer.status == 400 && answer.reason().starts_with(text), "{answer:?}");
        assert_eq!(answer.reason(), String::from_utf8_lossy(&answer.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_beside_a_value_is_checked() {
    let node = test_node().await;
    let metadata = |bytes: usize| format!("\"{}\"", "m".repeat(bytes - 2));
    assert_eq!(node.bind("PUT", "/k", &[("CF-KV-Metadata", &metadata(1024))], b"v").await.status, 200);
    for (query, metadata, status, text) in [
        ("", metadata(1025), 413, "Metadata length of 1025 exceeds limit of 1024."),
        ("", "{".to_owned(), 400, "metadata must be valid JSON"),
        (
            "?expiration_ttl=59",
            "1".to_owned(),
            400,
            "Invalid expiration_ttl of 59. Expiration TTL must be at least 60.",
        ),
        (
            "?expiration=1",
            "1".to_owned(),
            400,
            "Invalid expiration of 1. Expiration times must be at least 60 seconds",
        ),
    ] {
        let answer = node.bind("PUT", &format!("/k{query}"), &[("CF-KV-Metadata", &metadata)], b"new").await;
        assert!(answer.status == status && answer.reason().starts_with(text), "{answer:?}");
    }
    assert_eq!(node.value("k").await, b"v", "nothing that was refused is written");
    let answer = node.bind("GET", "/k?cache_ttl=29", &[], b"").await;
    assert_eq!(
        (answer.status, answer.reason()),
        (400, "Invalid cache_ttl of 29. Cache TTL must be at least 30.")
    );
}

/// workerd reports a lost connection instead of the status where unread bytes are left behind an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_one_byte_too_many_is_refused_in_both_forms_and_the_connection_goes_on() {
    let node = test_node().await;
    let mut body = noise(MAX_VALUE_BYTES + 1);
    let path = format!("/binding/{}/k", node.id());
    let too_large = "Value length of 26214401 exceeds limit of 26214400.";
    let mut stream = node.client.connect().await;
    let answer = ask(&mut stream, "PUT", &path, &[bearer(TOKEN)], &body).await;
    assert_eq!((answer.status, answer.reason()), (413, too_large));
    let half_more = vec![0; MAX_VALUE_BYTES * 3 / 2];
    assert_eq!(ask(&mut stream, "PUT", &path, &[bearer(TOKEN)], &half_more).await.status, 413);
    assert_eq!(ask(&mut stream, "PUT", &path, &[bearer("wrong")], &half_more).await.status, 403);
    assert_eq!(ask(&mut stream, "GET", &path, &[bearer(TOKEN)], b"").await.status, 404);
    assert_eq!(node.client.send_chunked("PUT", &path, &body, 1 << 20).await.status, 413);
    body.pop();
    assert_eq!(node.client.send_chunked("PUT", &path, &body, 1 << 20).await.status, 200);
    assert!(ask(&mut stream, "GET", &path, &[bearer(TOKEN)], b"").await.body == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_never_takes_a_bad_token_or_a_missing_namespace_for_a_missing_key() {
    let node = test_node().await;
    let prefixed = |id: &str| format!("/binding/{id}/k");
    let no_such = "f".repeat(32);
    let id = |id: &str| ("X-KV-Namespace-Id", id.to_owned());
    let account = |id: &str| ("X-KV-Account-Id", id.to_owned());
    let cases = [
        (prefixed(node.id()), vec![], 401, "inject the header Authorization"),
        (prefixed(node.id()), vec![bearer("wrong")], 403, "Authentication error"),
        (prefixed(node.id()), vec![bearer(OTHER_TOKEN)], 400, "namespace not found"),
        (prefixed(&no_such), vec![bearer(TOKEN)], 400, "namespace not found"),
        (prefixed(&"0".repeat(32)), vec![bearer(TOKEN)], 400, "namespace not found"),
        (prefixed("demo"), vec![bearer(TOKEN)], 400, "could not parse UUID"),
        ("/binding/".to_owned(), vec![bearer(TOKEN)], 400, "could not parse UUID"),
        (prefixed(node.id()), vec![bearer(TOKEN), id(&no_such)], 400, "another namespace"),
        (prefixed(node.id()), vec![bearer(TOKEN), account(OTHER_ACCOUNT)], 403, "Authentication error"),
        (prefixed(node.id()), vec![bearer(TOKEN), account(ACCOUNT)], 404, "key not found"),
        ("/k".to_owned(), vec![bearer(TOKEN), id(&no_such)], 400, "namespace not found"),
        ("/k".to_owned(), vec![bearer(TOKEN), id("")], 400, "could not parse UUID"),
        ("/k".to_owned(), vec![bearer(TOKEN), id(node.id())], 404, "key not found"),
        ("/metrics".to_owned(), vec![bearer(TOKEN), id(node.id())], 404, "key not found"),
        (
            "https://fake-host/k".to_owned(),
            vec![bearer(TOKEN), id(&node.id().to_uppercase())],
            404,
            "key not found",
        ),
    ];
    for (path, headers, status, text) in cases {
        let answer = node.client.raw(&head("GET", &path, &headers)).await;
        assert_eq!(answer.status, status, "{path} {headers:?} {answer:?}");
        assert!(answer.reason().contains(text), "{path} {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_one_namespace_leads_to_it_and_to_nothing_else() {
    let node = test_node().await;
    let id = node.id().parse().unwrap();
    let other =
        node.client.send("POST", &super::namespaces_path(ACCOUNT), &[], br#"{"title":"other"}"#).await;
    let other = other.ok()["id"].as_str().unwrap().to_owned();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    let socket = node.folder.path().join("kv.sock");
    let listeners = vec![
        Listener::tcp(port, Door::Namespace { id, access: Access::Token }),
        Listener::unix(&socket, Door::Namespace { id, access: Access::Socket }).unwrap(),
    ];
    let node = node.restart_with(0, listeners).await;

    let mut unix = UnixStream::connect(&socket).await.unwrap();
    assert_eq!(ask(&mut unix, "PUT", "/k?urlencoded=true", &[], b"by the socket").await.status, 200);
    assert_eq!(node.value("k").await, b"by the socket");
    let mut tcp = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut tcp, "GET", "/k", &[], b"").await.status, 401, "a port needs a token");
    assert_eq!(ask(&mut tcp, "GET", "/k", &[bearer(OTHER_TOKEN)], b"").await.status, 400);
    assert_eq!(ask(&mut tcp, "GET", "/k", &[bearer(TOKEN)], b"").await.body, b"by the socket");

    let elsewhere = format!("/binding/{other}/k");
    node.client.send("PUT", &elsewhere, &[], b"of the other").await;
    for path in [elsewhere.as_str(), "/metrics", "/healthz", &node.kv] {
        assert_eq!(
            ask(&mut unix, "GET", path, &[], b"").await.status,
            404,
            "{path} is a key that is not there"
        );
    }
    let named = [("X-KV-Namespace-Id", other.clone())];
    let answer = ask(&mut unix, "GET", "/k", &named, b"").await;
    assert!(answer.status == 400 && answer.reason().contains("another namespace"), "{answer:?}");

    let gone = node.client.send("DELETE", &node.kv, &[], b"").await;
    assert_eq!(gone.status, 200);
    let answer = ask(&mut unix, "GET", "/k", &[], b"").await;
    assert_eq!((answer.status, answer.reason()), (400, "namespace not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn miniflare_forwards_requests_with_their_target_and_headers_wrapped() {
    let node = test_node().await;
    let path = format!("/binding/{}/{TOKEN}", node.id());
    let client = Client::new(node.client.address);
    let forward = async |method: &str, url: &str, metadata: &str, body: &str| {
        let mut headers = vec![("MF-URL", url.to_owned()), ("MF-Binding", "KV".to_owned())];
        headers.push(("Content-Length", body.len().to_string()));
        if !metadata.is_empty() {
            headers.push(("MF-Header-CF-KV-Metadata", metadata.to_owned()));
        }
        client.raw(&[head(method, &path, &headers), body.into()].concat()).await
    };
    let url = "https://fake-host/a%2Fb%20%C3%BC?urlencoded=true";
    assert_eq!(forward("PUT", url, "{\"m\":1}", "v").await.status, 200);
    let got = forward("GET", url, "", "").await;
    assert_eq!((got.body.as_slice(), got.header("cf-kv-metadata")), (&b"v"[..], Some("{\"m\":1}")));
    let listed = forward("GET", "https://fake-host?prefix=a", "", "").await.json();
    assert_eq!(listed["keys"], json!([{"name": "a/b ü", "metadata": "{\"m\":1}"}]));
    let bulk = forward("POST", "https://fake-host/bulk/get", "", "{\"keys\":[\"a/b ü\"]}").await.json();
    assert_eq!(bulk, json!({"a/b ü": "v"}));
    let wrong = format!("/binding/{}/wrong", node.id());
    let refused = client.raw(&head("GET", &wrong, &[("MF-URL", url.to_owned())])).await;
    assert_eq!(refused.status, 403);
    let socket = [("Upgrade", "websocket".to_owned()), ("Connection", "Upgrade".to_owned())];
    let refused = client.raw(&head("GET", &format!("{path}?MF-Binding=KV"), &socket)).await;
    assert_eq!(refused.status, 400);
}
