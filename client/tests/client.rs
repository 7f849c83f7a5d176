//! The client against a small server that answers as each case says: paths, bodies, retries and errors.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response};
use futures_util::TryStreamExt;
use littoral::api::kv::BulkPair;
use littoral::{Client, Error, ListOptions, MAX_ATTEMPTS, Namespace, PutOptions};

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const OK: &str = r#"{"success":true,"errors":[],"messages":[],"result":null}"#;
const NO_KEY: &str = r#"{"success":false,"errors":[{"code":10009,"message":"get: 'key not found'"}],"messages":[],"result":null}"#;

/// An answer: status, headers, body.
type Answer = (u16, Vec<(&'static str, &'static str)>, &'static str);

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    content_type: String,
    body: Bytes,
}

/// Answers in turn; the last answer stays.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            seen: Arc::default(),
        };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://{}/", self.address), "secret").unwrap()
    }

    fn namespace(&self) -> Namespace {
        self.client().account(ACCOUNT).namespace("ns")
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The request lines, without the part all of them share.
    fn lines(&self) -> Vec<String> {
        let shared = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces");
        self.seen().iter().map(|seen| seen.line.replace(&shared, "~")).collect()
    }
}

async fn answer(State(server): State<Server>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["authorization"], "Bearer secret");
    let content_type = head.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
    let seen = Seen {
        line: format!("{} {}", head.method, head.uri),
        content_type: content_type.to_owned(),
        body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
    };
    server.seen.lock().unwrap().push(seen);
    let mut answers = server.answers.lock().unwrap();
    let (status, headers, body) =
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
    let response = Response::builder().status(status);
    headers
        .into_iter()
        .fold(response, |r, (name, value)| r.header(name, value))
        .body(Body::from(body))
        .unwrap()
}

fn ok(body: &'static str) -> Answer {
    (200, vec![], body)
}

#[tokio::test]
async fn every_key_is_one_encoded_segment() {
    let server = Server::start([ok(OK)]).await;
    for (key, path) in [
        ("a", "a"),
        ("a/../b", "a%2F..%2Fb"),
        ("x%2Fy", "x%252Fy"),
        ("ü +?#&", "%C3%BC%20%2B%3F%23%26"),
        ("bulk/get", "bulk%2Fget"),
        ("...", "..."),
    ] {
        server.namespace().delete(key).await.unwrap();
        assert_eq!(server.lines().pop().unwrap(), format!("DELETE ~/ns/values/{path}"), "{key}");
    }
}

#[tokio::test]
async fn a_key_that_a_url_would_fold_is_never_sent() {
    let server = Server::start([ok(OK)]).await;
    for key in ["", ".", ".."] {
        let refused = server.namespace().delete(key).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{key:?}: {refused:?}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_put_carries_bytes_and_expiry() {
    let server = Server::start([ok(OK)]).await;
    let value = Bytes::from_iter(0..=255);
    let options = PutOptions::default().expiration_ttl_s(60).ack(littoral::Ack::Buffered);
    server.namespace().put("k", value.clone(), options).await.unwrap();
    let seen = server.seen().pop().unwrap();
    assert!(seen.line.ends_with("/ns/values/k?expiration_ttl=60&ack=buffered"), "{}", seen.line);
    assert_eq!((seen.content_type.as_str(), seen.body), ("application/octet-stream", value));
}

#[tokio::test]
async fn a_put_with_metadata_is_multipart_and_byte_exact() {
    let server = Server::start([ok(OK)]).await;
    let options = PutOptions::default().metadata(&["ü"]).unwrap();
    server.namespace().put("k", "\r\n--x--\r\n", options).await.unwrap();
    let seen = server.seen().pop().unwrap();
    let boundary = seen.content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let expected = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n[\"ü\"]\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"value\"\r\nContent-Type: application/octet-stream\r\n\r\n\
         \r\n--x--\r\n\r\n--{boundary}--\r\n"
    );
    assert_eq!(seen.body, expected.as_bytes());
}

#[tokio::test]
async fn a_value_comes_with_its_expiry_whole_or_streamed() {
    let server = Server::start([(200, vec![("expiration", "1893456000")], "bytes")]).await;
    let value = server.namespace().get("k").await.unwrap().unwrap();
    assert_eq!((value.bytes.as_ref(), value.expires_at_s), (b"bytes".as_slice(), Some(1_893_456_000)));
    let stream = server.namespace().get_stream("k").await.unwrap().unwrap();
    assert_eq!(stream.try_collect::<Vec<Bytes>>().await.unwrap().concat(), b"bytes");
}

#[tokio::test]
async fn a_missing_key_is_none_and_a_missing_namespace_is_an_error() {
    let server = Server::start([(404, vec![], NO_KEY)]).await;
    assert_eq!(server.namespace().get("k").await.unwrap(), None);
    assert!(server.namespace().metadata("k").await.unwrap().is_none());
    let no_namespace = r#"{"success":false,"errors":[{"code":10013,"message":"gone"}],"result":null}"#;
    let server = Server::start([(404, vec![], no_namespace)]).await;
    assert!(server.namespace().get("k").await.unwrap_err().is_namespace_not_found());
}

#[tokio::test]
async fn metadata_keeps_its_text() {
    let with = r#"{"success":true,"result":{"b":1e400,"a":12345678901234567890123}}"#;
    let server = Server::start([ok(with), ok(OK)]).await;
    let metadata = server.namespace().metadata("k").await.unwrap().unwrap().unwrap();
    assert_eq!(metadata.get(), r#"{"b":1e400,"a":12345678901234567890123}"#);
    assert!(server.namespace().metadata("k").await.unwrap().unwrap().is_none());
}

#[tokio::test]
async fn a_listing_follows_its_cursor_and_can_be_resumed() {
    let first =
        r#"{"success":true,"result":[{"name":"a"},{"name":"b"}],"result_info":{"count":2,"cursor":"C"}}"#;
    let empty = r#"{"success":true,"result":[],"result_info":{"count":0,"cursor":"D"}}"#;
    let last = r#"{"success":true,"result":[{"name":"c"}],"result_info":{"count":1,"cursor":""}}"#;
    let server = Server::start([ok(first), ok(empty), ok(last)]).await;
    let options = ListOptions { prefix: "p&".into(), ..Default::default() };
    let keys: Vec<_> = server.namespace().list(options).keys().try_collect().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let paths = [
        "GET ~/ns/keys?prefix=p%26",
        "GET ~/ns/keys?prefix=p%26&cursor=C",
        "GET ~/ns/keys?prefix=p%26&cursor=D",
    ];
    assert_eq!(server.lines(), paths);

    let options = ListOptions { cursor: Some("D".into()), page_limit: Some(10), ..Default::default() };
    let page = server.namespace().list(options).next_page().await.unwrap().unwrap();
    assert!(page.cursor.is_none());
    assert_eq!(server.lines().pop().unwrap(), "GET ~/ns/keys?prefix=&limit=10&cursor=D");
}

#[tokio::test]
async fn a_listing_that_does_not_advance_is_an_error() {
    let same = r#"{"success":true,"result":[],"result_info":{"count":0,"cursor":"C"}}"#;
    let server = Server::start([ok(same)]).await;
    let listing = server.namespace().list(ListOptions::default());
    let outcome = listing.keys().try_collect::<Vec<_>>().await;
    assert!(matches!(outcome, Err(Error::Decode { .. })), "{outcome:?}");
}

#[tokio::test]
async fn bulk_calls_carry_their_bodies() {
    let done = r#"{"success":true,"result":{"successful_key_count":1,"unsuccessful_keys":["b"]}}"#;
    let values = r#"{"success":true,"result":{"values":{"a":{"value":"1","metadata":null},"b":null}}}"#;
    let server = Server::start([ok(done), ok(done), ok(values)]).await;
    let pair = BulkPair { key: "a".into(), value: "AA==".into(), base64: true, ..Default::default() };
    let keys = ["a".to_owned(), "b".to_owned()];
    let result = server.namespace().bulk_put(&[pair]).await.unwrap();
    assert_eq!((result.successful_key_count, result.unsuccessful_keys), (1, vec!["b".to_owned()]));
    server.namespace().bulk_delete(&keys).await.unwrap();
    let values = server.namespace().bulk_get(&keys).await.unwrap().values;
    assert!(values["a"].as_ref().is_some_and(|value| value.value == "1") && values["b"].is_none());

    assert_eq!(server.lines(), ["PUT ~/ns/bulk", "POST ~/ns/bulk/delete", "POST ~/ns/bulk/get"]);
    let bodies = [
        r#"[{"key":"a","value":"AA==","base64":true}]"#,
        r#"["a","b"]"#,
        r#"{"keys":["a","b"],"withMetadata":true}"#,
    ];
    for (seen, body) in server.seen().iter().zip(bodies) {
        assert_eq!((seen.content_type.as_str(), seen.body.as_ref()), ("application/json", body.as_bytes()));
    }
}

#[tokio::test]
async fn a_namespace_is_found_by_title_or_made() {
    let none = r#"{"success":true,"result":[],"result_info":{"page":1,"per_page":1000,"count":0,"total_count":0,"total_pages":0}}"#;
    let some = r#"{"success":true,"result":[{"id":"aa","title":"demo"}]}"#;
    let made = r#"{"success":true,"result":{"id":"bb","title":"demo","supports_url_encoding":true}}"#;
    let duplicate = r#"{"success":false,"errors":[{"code":10014,"message":"exists"}],"result":null}"#;
    for (story, answers, id) in [
        ("found", vec![ok(some), ok(none)], "aa"),
        ("made", vec![ok(none), ok(made)], "bb"),
        ("made by another", vec![ok(none), (400, vec![], duplicate), ok(some), ok(none)], "aa"),
    ] {
        let server = Server::start(answers).await;
        let namespace = server.client().account(ACCOUNT).namespace_titled("demo").await.unwrap();
        assert_eq!(namespace.id(), id, "{story}");
    }
}

#[tokio::test]
async fn overload_and_server_trouble_are_retried_and_refusals_are_not() {
    for (status, attempts) in [(429, 3), (500, 3), (502, 3), (503, 3), (504, 3)] {
        let trouble = (status, vec![], "busy");
        let server = Server::start([trouble.clone(), trouble, ok(OK)]).await;
        server.namespace().delete("k").await.unwrap();
        assert_eq!(server.seen().len(), attempts, "{status}");
    }
    for status in [400, 403, 404, 413, 507] {
        let server = Server::start([(status, vec![], "no")]).await;
        let error = server.namespace().delete("k").await.unwrap_err();
        assert_eq!(error.to_string(), format!("no (HTTP {status})"));
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retries_have_an_end() {
    let server = Server::start([(503, vec![("retry-after", "0")], "busy")]).await;
    assert!(matches!(server.namespace().get("k").await, Err(Error::Api { status: 503, .. })));
    assert_eq!(server.seen().len(), MAX_ATTEMPTS as usize);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let server = Server::start([(429, vec![("retry-after", "1")], "busy"), ok(OK)]).await;
    let begun = Instant::now();
    server.namespace().delete("k").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn making_a_namespace_is_repeated_only_when_it_was_not_done() {
    let made = r#"{"success":true,"result":{"id":"bb","title":"demo"}}"#;
    let server = Server::start([(500, vec![], "who knows"), ok(made)]).await;
    assert!(server.client().account(ACCOUNT).create_namespace("demo").await.is_err());
    let server = Server::start([(429, vec![], "not now"), ok(made)]).await;
    assert_eq!(server.client().account(ACCOUNT).create_namespace("demo").await.unwrap().id, "bb");
}

#[tokio::test]
async fn a_pop_that_is_away_is_a_transport_error_that_names_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = Client::new(&format!("http://127.0.0.1:{port}"), "secret").unwrap();
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert!(error.to_string().contains("onnection refused"), "{error}");
}

#[tokio::test]
async fn the_detail_of_a_problem_is_the_message() {
    let problem = r#"{"type":"about:blank","title":"Unauthorized","status":401,"detail":"no such token"}"#;
    let server = Server::start([(401, vec![], problem)]).await;
    let error = server.client().status().await.unwrap_err();
    assert_eq!(error.to_string(), "no such token (HTTP 401)");
}

#[tokio::test]
async fn an_answer_that_is_no_envelope_is_quoted() {
    let server = Server::start([(200, vec![], "<html>")]).await;
    assert!(matches!(server.namespace().delete("k").await, Err(Error::Decode { .. })));
    let server = Server::start([(404, vec![], "<html>nothing here")]).await;
    let error = server.namespace().get("k").await.unwrap_err();
    assert_eq!(error.to_string(), "<html>nothing here (HTTP 404)");
}

#[test]
fn an_address_or_token_that_cannot_work_is_refused() {
    for (url, token) in [
        ("127.0.0.1:8787", "t"),
        ("ftp://127.0.0.1", "t"),
        ("http://h/?a=b", "t"),
        ("", "t"),
        ("http://h", "line\nbreak"),
    ] {
        assert!(matches!(Client::new(url, token), Err(Error::Invalid { .. })), "{url} {token}");
    }
    for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let refused = Client::builder().authorities(pem).build("http://h", "t");
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{pem}");
    }
    assert!(!format!("{:?}", Client::new("http://h", "hunter2").unwrap()).contains("hunter2"));
}
