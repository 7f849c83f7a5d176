//! Counters, sets and maps by the client: the requests it sends, what it makes of the answers, and what it sends twice.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use futures_util::TryStreamExt;
use littoral::{Ack, ChangeOptions, Client, Error, MAX_ATTEMPTS, Namespace, PageOptions};

const WRITTEN: &str = r#"{"receipt":"0000000000000001-00000000000000000000000000000002"}"#;
const COUNTER: &str = r#"{"key":"k","count":-5,"metadata":{"a":1e400},"expiration":9}"#;
const NOT_HERE: &str = r#"{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no such member here","code":10009}"#;

type Answer = (u16, &'static str);

/// Answers in turn; the last answer stays.
#[derive(Clone)]
struct Server {
    namespace: Namespace,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// Method, path without what all of them share, and body.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), "secret").unwrap();
        let shared =
            Shared { answers: Arc::new(Mutex::new(answers.into_iter().collect())), seen: Arc::default() };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { namespace: client.account("acc").namespace("ns"), shared }
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }
}

async fn answer(State(shared): State<Shared>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.to_string().replace("/v1/accounts/acc/namespaces/ns", "~");
    shared.seen.lock().unwrap().push(format!("{} {path} {}", head.method, String::from_utf8_lossy(&body)));
    let mut answers = shared.answers.lock().unwrap();
    let (status, body) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0] };
    Response::builder().status(status).header("expiration", "7").body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn each_call_of_a_bounded_counter_is_sent_as_it_should_be() {
    const BOUNDED: &str = r#"{"key":"k","count":5,"rights_here":2,"metadata":null}"#;
    let server = Server::start([(200, BOUNDED)]).await;
    let seats = server.namespace.bounded("a/b");
    assert_eq!(seats.add(3).await.unwrap().count, 5);
    assert_eq!(seats.take(2).await.unwrap().rights_here, 2);
    seats.take_within(2, Duration::from_millis(50)).await.unwrap();
    assert_eq!(seats.count().await.unwrap(), Some(5));
    let sent = [
        r#"POST ~/bounded/a%2Fb {"add":3}"#,
        r#"POST ~/bounded/a%2Fb {"take":2}"#,
        r#"POST ~/bounded/a%2Fb?timeout=50 {"take":2}"#,
        "GET ~/bounded/a%2Fb ",
    ];
    assert_eq!(server.seen(), sent);
    const TOO_LITTLE: &str =
        r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"0 left","code":20040}"#;
    let server = Server::start([(409, TOO_LITTLE)]).await;
    let refused = server.namespace.bounded("k").take(1).await.unwrap_err();
    assert!(refused.lacks_rights(), "{refused}");
    assert_eq!(server.seen().len(), 1, "it is not tried again");
}

#[tokio::test]
async fn each_call_of_a_counter_is_sent_as_it_should_be() {
    let server = Server::start([(200, COUNTER)]).await;
    let counter = server.namespace.counter("a/b");
    assert_eq!(counter.add(3).await.unwrap(), -5);
    let options = ChangeOptions::default().expiration_ttl_s(60).ack(Ack::Buffered);
    counter.add_with(-3, options).await.unwrap();
    counter.add_with(1, ChangeOptions::default().expires_at_s(9)).await.unwrap();
    assert_eq!(counter.count().await.unwrap(), Some(-5));
    let info = counter.info().await.unwrap().unwrap();
    assert_eq!((info.expiration, info.metadata.unwrap().get()), (Some(9), r#"{"a":1e400}"#));
    let sent = [
        r#"POST ~/counters/a%2Fb {"add":3}"#,
        r#"POST ~/counters/a%2Fb?ack=buffered {"add":-3,"expiration_ttl":60}"#,
        r#"POST ~/counters/a%2Fb {"add":1,"expiration":9}"#,
        "GET ~/counters/a%2Fb ",
        "GET ~/counters/a%2Fb ",
    ];
    assert_eq!(server.seen(), sent);

    let server = Server::start([(200, WRITTEN)]).await;
    let counter = server.namespace.counter("k");
    assert!(counter.reset().await.unwrap().receipt.unwrap().starts_with("0000000000000001-"));
    counter.describe(&["m"]).await.unwrap();
    counter.describe(&()).await.unwrap();
    let sent =
        ["DELETE ~/counters/k ", r#"PUT ~/counters/k/metadata ["m"]"#, "PUT ~/counters/k/metadata null"];
    assert_eq!(server.seen(), sent);
}

#[tokio::test]
async fn each_call_of_a_set_and_a_map_is_sent_as_it_should_be() {
    let server = Server::start([(200, WRITTEN)]).await;
    let (set, map) = (server.namespace.set("s"), server.namespace.map("m"));
    set.insert("ü/").await.unwrap();
    set.insert_with("a", ChangeOptions::default().expires_at_s(9).ack(Ack::Buffered)).await.unwrap();
    set.remove("a").await.unwrap();
    set.change(&["a", "b"], &["c"]).await.unwrap();
    assert!(set.contains("a").await.unwrap());
    set.clear().await.unwrap();
    map.put("f", "v").await.unwrap();
    map.put_with("f", "v", ChangeOptions::default().expiration_ttl_s(1)).await.unwrap();
    map.change([("a", Some("1")), ("b", None)]).await.unwrap();
    let value = map.get("f").await.unwrap().unwrap();
    assert_eq!((value.bytes.as_ref(), value.expires_at_s), (WRITTEN.as_bytes(), Some(7)));
    map.remove("f").await.unwrap();
    map.clear().await.unwrap();
    let sent = [
        "PUT ~/sets/s/members/%C3%BC%2F ",
        "PUT ~/sets/s/members/a?expiration=9&ack=buffered ",
        "DELETE ~/sets/s/members/a ",
        r#"POST ~/sets/s {"add":["a","b"],"remove":["c"]}"#,
        "GET ~/sets/s/members/a ",
        "DELETE ~/sets/s ",
        "PUT ~/maps/m/fields/f v",
        "PUT ~/maps/m/fields/f?expiration_ttl=1 v",
        r#"PATCH ~/maps/m {"fields":{"a":"1","b":null}}"#,
        "GET ~/maps/m/fields/f ",
        "DELETE ~/maps/m/fields/f ",
        "DELETE ~/maps/m ",
    ];
    assert_eq!(server.seen(), sent);
}

#[tokio::test]
async fn a_batch_is_sent_as_it_was_gathered_and_again_under_its_key() {
    const DONE: &str = r#"{"receipt":"r","writes":[{"receipt":"r","etag":"\"e\"","count":2}]}"#;
    let server = Server::start([(503, ""), (200, DONE)]).await;
    let batch =
        server.namespace.batch().add("a/b", 2).expiration_ttl_s(9).if_match("\"e\"").ack(Ack::Buffered);
    let done = batch.insert("s", "ü").expires_at_s(7).commit().await.unwrap();
    assert_eq!((done.receipt.as_str(), done.writes[0].count), ("r", Some(2)));
    let body = concat!(
        r#"{"writes":[{"kind":"counter","op":"add","key":"a/b","amount":2,"expiration_ttl":9,"if_match":"\"e\""},"#,
        r#"{"kind":"set","op":"add","key":"s","member":"ü","expiration":7}]}"#
    );
    let sent = format!("POST ~/batch?ack=buffered {body}");
    assert_eq!(server.seen(), [sent.clone(), sent]);
}

#[tokio::test]
async fn what_is_not_there_is_no_error_and_a_missing_namespace_is_one() {
    let server = Server::start([(404, NOT_HERE)]).await;
    assert_eq!(server.namespace.counter("k").count().await.unwrap(), None);
    assert!(!server.namespace.set("k").contains("m").await.unwrap());
    assert_eq!(server.namespace.map("k").get("f").await.unwrap(), None);
    let gone = r#"{"status":404,"detail":"namespace not found","code":10013}"#;
    let server = Server::start([(404, gone)]).await;
    assert!(server.namespace.counter("k").count().await.unwrap_err().is_namespace_not_found());
    assert!(server.namespace.set("k").contains("m").await.is_err());
    assert!(server.namespace.map("k").get("f").await.is_err());
}

#[tokio::test]
async fn adding_is_repeated_as_the_rest_is() {
    let busy = (429, "busy");
    let server = Server::start([busy, busy, (200, COUNTER)]).await;
    assert_eq!(server.namespace.counter("k").add(1).await.unwrap(), -5);
    assert_eq!(server.seen().len(), 3);
    for status in [500, 502, 503, 504] {
        let server = Server::start([(status, "who knows"), (200, COUNTER)]).await;
        // Under one key, by which the node knows that it has done it.
        assert_eq!(server.namespace.counter("k").add(1).await.unwrap(), -5, "{status}");
        assert_eq!(server.seen().len(), 2, "{status}");
    }
    let server = Server::start([(503, "away"), (200, WRITTEN)]).await;
    server.namespace.set("k").insert("m").await.unwrap();
    let server = Server::start([(500, "away"), (200, WRITTEN)]).await;
    server.namespace.set("k").change(&["m"], &[]).await.unwrap();
    let server = Server::start([(502, "away"), (200, WRITTEN)]).await;
    server.namespace.map("k").change([("f", None)]).await.unwrap();
    let server = Server::start([(504, "away")]).await;
    assert!(server.namespace.counter("k").reset().await.is_err());
    assert_eq!(server.seen().len(), MAX_ATTEMPTS as usize);
}

#[tokio::test]
async fn pages_follow_one_another_to_the_last_and_must_advance() {
    let first = r#"{"key":"s","metadata":null,"members":[{"name":"a"}],"next_after":"a"}"#;
    let empty = r#"{"key":"s","metadata":null,"members":[],"next_after":"b&"}"#;
    let last = r#"{"key":"s","members":[{"name":"c","expiration":9}],"next_after":null}"#;
    let server = Server::start([(200, first), (200, empty), (200, last)]).await;
    let options = PageOptions { prefix: "p".into(), page_limit: Some(1), after: None };
    let members: Vec<_> = server.namespace.set("s").members(options).rows().try_collect().await.unwrap();
    assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let sent = [
        "GET ~/sets/s?prefix=p&limit=1 ",
        "GET ~/sets/s?prefix=p&limit=1&after=a ",
        "GET ~/sets/s?prefix=p&limit=1&after=b%26 ",
    ];
    assert_eq!(server.seen(), sent);

    let server = Server::start([(200, first)]).await;
    let outcome = server.namespace.set("s").members(PageOptions::default()).rows().try_collect::<Vec<_>>();
    assert!(matches!(outcome.await, Err(Error::Decode { .. })));

    let fields =
        r#"{"key":"m","fields":[{"name":"a","value":"ü"},{"name":"b","base64":"//4="}],"next_after":null}"#;
    let server = Server::start([(200, fields)]).await;
    let fields = server.namespace.map("m").fields(PageOptions::default()).rows();
    let fields: Vec<_> = fields.map_ok(|field| field.bytes().unwrap().to_vec()).try_collect().await.unwrap();
    assert_eq!(fields, ["ü".as_bytes(), &[0xff, 0xfe]]);

    let keys = r#"{"keys":[{"name":"k","metadata":[1]}],"next_after":null}"#;
    let server = Server::start([(200, keys)]).await;
    for mut pages in [
        server.namespace.counters(PageOptions::default()),
        server.namespace.sets(PageOptions::default()),
        server.namespace.maps(PageOptions::default()),
    ] {
        assert_eq!(pages.next_page().await.unwrap().unwrap().keys[0].name, "k");
        assert!(pages.next_page().await.unwrap().is_none());
    }
    assert_eq!(server.seen(), ["GET ~/counters?prefix= ", "GET ~/sets?prefix= ", "GET ~/maps?prefix= "]);
}

#[tokio::test]
async fn a_name_that_a_url_would_fold_is_never_sent() {
    let server = Server::start([(200, WRITTEN)]).await;
    for name in ["", ".", ".."] {
        let refusals = [
            server.namespace.counter(name).reset().await.err(),
            server.namespace.set("s").remove(name).await.err(),
            server.namespace.map(name).clear().await.err(),
            server.namespace.map("m").put(name, "v").await.err(),
            server.namespace.set(name).members(PageOptions::default()).next_page().await.err(),
        ];
        for refused in refusals {
            assert!(matches!(refused, Some(Error::Invalid { .. })), "{name:?}: {refused:?}");
        }
    }
    assert!(server.seen().is_empty());
}
