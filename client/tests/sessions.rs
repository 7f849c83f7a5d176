//! What the client carries from PoP to PoP, what it sends again and where, against servers that answer as each case says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response};
use littoral::{Client, MAX_ATTEMPTS, Namespace};

const COUNTER: &str = r#"{"key":"k","count":1}"#;

type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);

/// A PoP that answers in turn; the last answer stays.
#[derive(Clone)]
struct Pop {
    url: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// Method and path with the query, and the headers.
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Pop {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pop =
            Self { url, answers: Arc::new(Mutex::new(answers.into_iter().collect())), seen: Arc::default() };
        let router = Router::new().fallback(answer).with_state(pop.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        pop
    }

    fn seen(&self) -> Vec<(String, HeaderMap)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Each header of this name in each request that came.
    fn sent(&self, name: &str) -> Vec<Vec<String>> {
        let values = |(_, headers): (String, HeaderMap)| {
            headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        self.seen().into_iter().map(values).collect()
    }
}

async fn answer(State(pop): State<Pop>, request: Request<Body>) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri());
    pop.seen.lock().unwrap().push((line, request.headers().clone()));
    let mut answers = pop.answers.lock().unwrap();
    let (status, headers, body) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0] };
    let response = Response::builder().status(status);
    let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(Body::from(body)).unwrap()
}

fn client(pops: &[&Pop]) -> Client {
    let builder = pops[1..].iter().fold(Client::builder(), |builder, pop| builder.endpoint(&pop.url));
    builder.build(&pops[0].url, "secret").unwrap()
}

fn namespace(client: &Client) -> Namespace {
    client.account("acc").namespace("ns")
}

#[tokio::test]
async fn each_answer_has_the_token_of_the_next_request() {
    let pop = Pop::start([
        (200, &[("littoral-session", "A"), ("littoral-staleness-ms", "7")][..], "v"),
        (404, &[("littoral-session", "B")][..], r#"{"status":404,"detail":"none","code":10009}"#),
        (200, &[], "v"),
    ])
    .await;
    let client = client(&[&pop]);
    assert_eq!((client.session(), client.staleness()), (None, None));
    for _ in 0..4 {
        let _ = namespace(&client).get("k").await.unwrap();
    }
    assert_eq!(pop.sent("littoral-session"), [["new"], ["A"], ["B"], ["B"]]);
    assert_eq!(
        (client.session().unwrap(), client.staleness().unwrap()),
        ("B".into(), Duration::from_millis(7))
    );
    // Handed over; and switched off.
    let other = client.with_session("X,Y").unwrap();
    namespace(&other).get("k").await.unwrap();
    assert_eq!(pop.sent("littoral-session"), [["X", "Y"]]);
    assert!(client.with_session("").is_err() && client.with_session("a b").is_err());
    let without = Client::builder().sessions(false).build(&pop.url, "secret").unwrap();
    namespace(&without).get("k").await.unwrap();
    assert_eq!(pop.sent("littoral-session"), [Vec::<String>::new()]);
}

#[tokio::test]
async fn a_read_goes_on_at_the_next_pop_with_its_session() {
    let away = (503, &[][..], "away");
    let first = Pop::start([(200, &[("littoral-session", "A")][..], "old"), away]).await;
    let second = Pop::start([(200, &[][..], "new")]).await;
    let client = client(&[&first, &second]);
    assert_eq!(namespace(&client).get("k").await.unwrap().unwrap().bytes, "old");
    assert_eq!(namespace(&client).get("k").await.unwrap().unwrap().bytes, "new");
    assert_eq!(second.sent("littoral-session"), [["A"]]);
    // It stays there.
    first.seen();
    namespace(&client).delete("k").await.unwrap_err();
    assert!(first.seen().is_empty());
}

#[tokio::test]
async fn a_pop_that_is_gone_is_left_and_the_pages_of_operators_are_asked_for_where_they_are() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let other = Pop::start([(200, &[][..], "v")]).await;
    let client = Client::builder().endpoint(&other.url).build(&url, "secret").unwrap();
    assert!(client.lag().await.is_err());
    assert!(other.seen().is_empty());
    assert!(namespace(&client).get("k").await.unwrap().is_some());
}

#[tokio::test]
async fn what_must_not_be_done_twice_is_sent_again_under_its_key_to_the_same_pop_only() {
    let unsure = (500, &[][..], "who knows");
    let first = Pop::start([unsure, unsure, (200, &[][..], COUNTER)]).await;
    let second = Pop::start([(200, &[][..], COUNTER)]).await;
    let client = client(&[&first, &second]);
    namespace(&client).counter("k").add(1).await.unwrap();
    assert!(second.seen().is_empty());
    let seen = first.seen();
    let header = |n: usize, name: &str| seen[n].1.get(name).map(|value| value.to_str().unwrap().to_owned());
    let key = header(0, "idempotency-key").unwrap();
    assert_eq!(seen.len(), 3);
    for n in [1, 2] {
        assert_eq!(header(n, "idempotency-key").as_ref(), Some(&key));
        assert!(header(n, "littoral-first-sent-ms").is_some());
    }
    assert_eq!(header(0, "littoral-first-sent-ms"), None);
    namespace(&client).counter("k").add(1).await.unwrap();
    assert_ne!(first.sent("idempotency-key")[0][0], key);
    // Forgotten, or another request's: nothing helps.
    for status in [409, 422] {
        let pop = Pop::start([(status, &[][..], "no")]).await;
        assert!(namespace(&self::client(&[&pop])).counter("k").add(1).await.is_err());
        assert_eq!(pop.seen().len(), 1, "{status}");
    }
    let pop = Pop::start([(409, &[("retry-after", "0")][..], "under way")]).await;
    assert!(namespace(&self::client(&[&pop])).counter("k").add(1).await.is_err());
    assert_eq!(pop.seen().len(), MAX_ATTEMPTS as usize);
}

#[tokio::test]
async fn writes_wait_for_others_where_they_are_to_and_reads_never() {
    let told = &[("littoral-wait", "timeout"), ("littoral-held-by", "ams, sin")][..];
    let pop = Pop::start([(202, told, r#"{"receipt":null}"#)]).await;
    let kv = namespace(&client(&[&pop]));
    for (waiting, query) in [
        (kv.wait(2), "?wait=2"),
        (kv.wait_for_all(), "?wait=all"),
        (kv.wait_region("eu"), "?wait=region%3Deu"),
        (kv.clone(), ""),
    ] {
        waiting.set("s").insert("m").await.unwrap();
        let (line, _) = pop.seen().remove(0);
        assert_eq!(line, format!("PUT /v1/accounts/acc/namespaces/ns/sets/s/members/m{query}"));
        waiting.get("k").await.unwrap();
        assert!(!pop.seen().remove(0).0.contains("wait"));
    }
    let held = kv.client().held_by().unwrap();
    assert_eq!((held.is_met, held.pops), (false, vec!["ams".to_owned(), "sin".to_owned()]));
}
