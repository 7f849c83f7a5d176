//! Sessions, staleness and waiting at real processes: with a link that carries nothing, and with a PoP that is down.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::time::{Duration, Instant};

use littoral::{Client, PutOptions};
use littoral_tests::cluster::{ACCOUNT, Answer, Cluster, Options, Rest, TOKEN};
use reqwest::Method;
use reqwest::header::HeaderMap;

/// How soon what is awaited must be.
const WITHIN: Duration = Duration::from_secs(30);

struct Told(Answer, HeaderMap);

impl Told {
    fn header(&self, name: &str) -> &str {
        self.1.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn staleness_ms(&self) -> u64 {
        self.header("littoral-staleness-ms").parse().unwrap()
    }
}

async fn get(rest: &Rest, path: &str, session: &str) -> Told {
    let headers = [("littoral-session", session)];
    let headers = if session.is_empty() { &headers[..0] } else { &headers[..] };
    let (answer, headers) = rest.send(Method::GET, path, headers, "").await.unwrap();
    Told(answer, headers)
}

async fn put(rest: &Rest, path: &str, value: &str, session: &str) -> Told {
    let (answer, headers) =
        rest.send(Method::PUT, path, &[("littoral-session", session)], value).await.unwrap();
    Told(answer, headers)
}

async fn until(rest: &Rest, path: &str, is_awaited: impl Fn(&Told) -> bool) -> Told {
    let deadline = Instant::now() + WITHIN;
    loop {
        let told = get(rest, path, "").await;
        if is_awaited(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "{path}: {} {}", told.0.status, told.0.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A cluster, and a namespace that all know, with "k" = "old".
async fn cluster(pops: usize) -> (Cluster, Vec<Rest>) {
    let cluster = Cluster::started(Options { pops, ..Options::default() }).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("sessions").await.unwrap();
    let rests: Vec<Rest> = (0..pops).map(|pop| cluster.rest(pop, &id)).collect();
    assert_eq!(put(&rests[0], "/values/k", "old", "new").await.0.status, 200);
    for rest in &rests {
        until(rest, "/values/k", |told| told.0.body == "old").await;
    }
    (cluster, rests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_what_it_wrote_or_nothing_while_a_link_carries_nothing() {
    let (cluster, rests) = cluster(2).await;
    cluster.run(0, &["link", "pause", "pop-1"]).unwrap();
    let written = put(&rests[0], "/values/k", "new", "new").await;
    let token = written.header("littoral-session").to_owned();
    for path in
        ["/values/k?timeout=200", "/values/none?timeout=0", "/keys?timeout=0", "/metadata/k?timeout=0"]
    {
        let refused = get(&rests[1], path, &token).await;
        assert_eq!((refused.0.status, refused.0.code()), (503, Some(20_013)), "{path}: {}", refused.0.text());
        assert!(refused.0.text().contains("of pop-0 "), "{}", refused.0.text());
        assert_eq!(
            (refused.header("retry-after"), refused.header("littoral-session")),
            ("1", token.as_str())
        );
    }
    // Who has no session reads what is there; so the link does carry nothing.
    assert_eq!(get(&rests[1], "/values/k", "").await.0.body, "old");
    let waiting = tokio::spawn({
        let (rest, token) = (rests[1].clone(), token.clone());
        async move { get(&rest, "/values/k", &token).await }
    });
    let waits = |line: &str| line == "littoral_waiters 1";
    let deadline = Instant::now() + WITHIN;
    while !rests[1].page("/metrics").await.unwrap().text().lines().any(waits) {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.run(0, &["link", "resume", "pop-1"]).unwrap();
    let read = waiting.await.unwrap();
    assert_eq!((read.0.status, read.0.text().as_str()), (200, "new"));
    // Anything it reads from now on, and then at the first PoP, is no older.
    let token = read.header("littoral-session").to_owned();
    assert_eq!(get(&rests[0], "/values/k", &token).await.0.body, "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staleness_grows_while_a_pop_is_cut_off_and_falls_after() {
    let (mut cluster, rests) = cluster(2).await;
    until(&rests[1], "/values/k", |told| told.staleness_ms() < 1_500).await;
    cluster.kill9(0).unwrap();
    let stale = until(&rests[1], "/values/none", |told| told.staleness_ms() > 2_500).await;
    assert_eq!(stale.0.status, 404);
    let refused = get(&rests[1], "/values/k?max-staleness=1000&timeout=50", "").await;
    assert_eq!((refused.0.status, refused.0.code()), (503, Some(20_013)), "{}", refused.0.text());
    let taken = get(&rests[1], "/values/k?max-staleness=100000", "").await;
    assert_eq!(taken.0.body, "old");
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    until(&rests[1], "/values/k", |told| told.staleness_ms() < 1_500).await;
    // A heartbeat comes twice a second: it waits for one.
    assert_eq!(get(&rests[1], "/values/k?max-staleness=400", "").await.0.body, "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_others_and_says_who_holds_it_where_one_is_down() {
    let (mut cluster, rests) = cluster(3).await;
    let held = put(&rests[0], "/values/k?wait=all", "first", "new").await;
    assert_eq!((held.0.status, held.header("littoral-wait")), (200, "held"), "{}", held.0.text());
    assert_eq!(held.header("littoral-held-by"), "pop-1, pop-2");
    for rest in &rests {
        assert_eq!(get(rest, "/values/k", "").await.0.body, "first");
    }
    cluster.kill9(2).unwrap();
    let some = put(&rests[0], "/values/k?wait=1", "second", "new").await;
    assert_eq!((some.0.status, some.header("littoral-held-by")), (200, "pop-1"));
    for wait in ["2", "all"] {
        let late = put(&rests[0], &format!("/values/k?wait={wait}&timeout=300"), "third", "new").await;
        assert_eq!((late.0.status, late.header("littoral-wait")), (202, "timeout"), "{}", late.0.text());
        assert_eq!(late.header("littoral-held-by"), "pop-1");
    }
    // Done all the same.
    assert_eq!(get(&rests[0], "/values/k", "").await.0.body, "third");
    let never = put(&rests[0], "/values/k?wait=3", "never", "new").await;
    assert_eq!(never.0.status, 400, "{}", never.0.text());
    let region = put(&rests[0], "/values/k?wait=region=local", "fourth", "new").await;
    assert_eq!((region.0.status, region.header("littoral-wait")), (200, "held"));
    let shown = cluster.run(0, &["where", region.header("littoral-receipt")]).unwrap();
    let holds = |pop: &str| shown.lines().find(|line| line.starts_with(pop)).unwrap().contains(" yes ");
    assert_eq!([holds("pop-0"), holds("pop-1"), holds("pop-2")], [true, true, false], "{shown}");
    let unknown = format!("{}-{}", "01".repeat(8), "ab".repeat(16));
    assert!(cluster.run(0, &["where", &unknown]).unwrap_err().to_string().contains("never heard of"));
    let session = cluster.run(0, &["where", "--session", region.header("littoral-session")]).unwrap();
    assert!(session.lines().any(|line| line.starts_with("pop-2") && line.contains(" no ")), "{session}");
}

/// The PoP it speaks to dies with a write that the other has not heard of. Until that is back, it is told so, and never what
/// was there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_to_another_pop_reads_nothing_older() {
    let (mut cluster, _) = cluster(2).await;
    let client = Client::builder().endpoint(&cluster.url(1)).build(&cluster.url(0), TOKEN).unwrap();
    let client = client.wait_timeout(Duration::from_millis(100));
    let account = client.account(ACCOUNT);
    let kv = account.namespace_titled("sessions").await.unwrap();
    assert_eq!(kv.get("k").await.unwrap().unwrap().bytes, "old");
    cluster.run(0, &["link", "pause", "pop-1"]).unwrap();
    kv.put("k", "new", PutOptions::default()).await.unwrap();
    assert_eq!(kv.counter("c").add(1).await.unwrap(), 1);
    cluster.kill9(0).unwrap();
    let refused = kv.get("k").await.unwrap_err().to_string();
    assert!(
        refused.contains("lacks what the session has seen") || refused.contains("no answer"),
        "{refused}"
    );
    let stranger = Client::new(&cluster.url(1), TOKEN).unwrap();
    let stranger = stranger.account(ACCOUNT).namespace(kv.id());
    assert_eq!(stranger.get("k").await.unwrap().unwrap().bytes, "old");
    // Another's session: what it has seen is as good there.
    let heir = Client::new(&cluster.url(1), TOKEN).unwrap().with_session(&client.session().unwrap()).unwrap();
    let heir = heir.wait_timeout(Duration::from_millis(100)).account(ACCOUNT).namespace(kv.id());
    assert_eq!(heir.get("k").await.unwrap_err().code(), Some(20_013));
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    for reader in [&kv, &heir] {
        let deadline = Instant::now() + WITHIN;
        loop {
            match reader.get("k").await {
                Ok(value) => {
                    assert_eq!(value.unwrap().bytes, "new");
                    break;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }
}
