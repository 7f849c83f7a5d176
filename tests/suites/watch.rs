//! Watches of real processes: over kills and restarts, from one PoP to another, and beyond what the log keeps.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use littoral::api::watch::{WatchEvent, WatchType};
use littoral::{Client, Namespace, PutOptions, Watch, WatchOptions};
use littoral_tests::cluster::{ACCOUNT, Cluster, Options, TOKEN};

/// How soon what is written must be told.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
const KEYS: usize = 40;

fn namespace(cluster: &Cluster, pop: usize, id: &str) -> Namespace {
    Client::new(&cluster.url(pop), TOKEN).unwrap().account(ACCOUNT).namespace(id)
}

async fn next(watch: &mut Watch) -> WatchEvent {
    tokio::time::timeout(TOLD_WITHIN, watch.next()).await.expect("nothing was told").unwrap()
}

/// What a client knows by what it was told.
#[derive(Default)]
struct Told {
    values: BTreeMap<String, String>,
    resets: usize,
}

impl Told {
    fn take(&mut self, event: &WatchEvent) {
        match event.what {
            WatchType::Put => {
                self.values.insert(event.key.clone().unwrap(), event.value.clone().unwrap());
            }
            WatchType::Delete => {
                self.values.remove(event.key.as_deref().unwrap());
            }
            WatchType::Reset => {
                self.values.clear();
                self.resets += 1;
            }
            _ => {}
        }
    }

    async fn until(&mut self, watch: &mut Watch, is_enough: impl Fn(&Self, &WatchEvent) -> bool) {
        loop {
            let event = next(watch).await;
            self.take(&event);
            if is_enough(self, &event) {
                return;
            }
        }
    }
}

fn key(number: usize) -> String {
    format!("key-{number}")
}

async fn write(namespace: &Namespace, round: usize) {
    for number in 0..KEYS {
        let value = round.to_string();
        while namespace.put(&key(number), value.clone(), PutOptions::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn all_are(round: usize) -> impl Fn(&Told, &WatchEvent) -> bool {
    let value = round.to_string();
    move |told, _| told.values.len() == KEYS && told.values.values().all(|told| *told == value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_over_kills_and_restarts_and_at_another_pop() {
    let mut cluster = Cluster::started(Options { pops: 2, ..Options::default() }).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("watched").await.unwrap();
    let here = namespace(&cluster, 0, &id);
    let mut told = Told::default();
    let mut watch = here.watch(WatchOptions::default());
    told.until(&mut watch, |_, event| event.what == WatchType::Sync).await;
    // A kill in mid-stream, while somebody writes.
    let writer = tokio::spawn({
        let here = here.clone();
        async move {
            for round in 0..10 {
                write(&here, round).await;
            }
        }
    });
    told.until(&mut watch, |told, _| told.values.len() == KEYS).await;
    cluster.kill9(0).unwrap();
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    told.until(&mut watch, all_are(9)).await;
    writer.await.unwrap();
    assert!(cluster.stop(0).unwrap().success());
    // What was written elsewhere meanwhile is told there, from the same cursor.
    let there = namespace(&cluster, 1, &id);
    write(&there, 10).await;
    there.delete(&key(0)).await.unwrap();
    let cursor = Some(watch.cursor().unwrap().to_owned());
    let mut watch = there.watch(WatchOptions { cursor, ..WatchOptions::default() });
    let is_deleted =
        |told: &Told, event: &WatchEvent| event.what == WatchType::Sync && !told.values.contains_key(&key(0));
    told.until(&mut watch, is_deleted).await;
    assert_eq!((told.values.len(), told.resets), (KEYS - 1, 0));
    assert!(told.values.values().all(|value| value == "10"));
    // And back again.
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    let cursor = Some(watch.cursor().unwrap().to_owned());
    let mut watch = here.watch(WatchOptions { cursor, ..WatchOptions::default() });
    write(&there, 11).await;
    told.until(&mut watch, all_are(11)).await;
    assert_eq!(told.resets, 0);
    let args = ["kv", "--account", ACCOUNT, "--namespace", &id, "watch", "--key", "key-1", "--limit", "2"];
    let shown = cluster.run(0, &args).unwrap();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "put       value  key-1  11"), "{shown}");
    let metrics = cluster.rest(0, &id).page("/metrics").await.unwrap().text();
    assert!(metrics.lines().any(|line| line == "littoral_watchers 1"), "{metrics}");
}

/// A PoP that was away hears of what the client knows already only later, and does not tell it: a client once informed never
/// sees an entry go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_that_holds_less_than_the_cursor_tells_nothing_older() {
    let mut cluster = Cluster::started(Options { pops: 2, ..Options::default() }).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("failover").await.unwrap();
    let (here, there) = (namespace(&cluster, 0, &id), namespace(&cluster, 1, &id));
    let mut behind = there.watch(WatchOptions::default());
    while behind.next().await.is_err() {
        // The namespace is not known there yet.
        behind = there.watch(WatchOptions::default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    write(&here, 0).await;
    Told::default().until(&mut behind, all_are(0)).await;
    drop(behind);
    assert!(cluster.stop(1).unwrap().success());
    write(&here, 1).await;
    let mut told = Told::default();
    let mut watch = here.watch(WatchOptions::default());
    told.until(&mut watch, |_, event| event.what == WatchType::Sync).await;
    let cursor = Some(watch.cursor().unwrap().to_owned());
    drop(watch);
    assert!(cluster.stop(0).unwrap().success());
    cluster.start(1).unwrap();
    cluster.wait_ready(1).await.unwrap();
    let mut watch = there.watch(WatchOptions { cursor, ..WatchOptions::default() });
    assert_eq!(next(&mut watch).await.what, WatchType::Sync);
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    here.put("last", "2", PutOptions::default()).await.unwrap();
    let event = next(&mut watch).await;
    assert_eq!((event.key.as_deref(), event.value.as_deref()), (Some("last"), Some("2")), "{event:?}");
    let missed = there.get(&key(0)).await.unwrap().unwrap();
    assert_eq!(missed.bytes, "1", "it came by the same way, and was not told");
}

/// The log keeps what happened for about as long as somebody lacks it. Who was away for longer is told to begin anew: else
/// the delete would never be heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_from_before_the_log_begins_is_reset() {
    let options = Options { epoch_ms: 1_000, ..Options::default() };
    let cluster = Cluster::started(options).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("swept").await.unwrap();
    let here = namespace(&cluster, 0, &id);
    write(&here, 0).await;
    let mut told = Told::default();
    let mut watch = here.watch(WatchOptions::default());
    told.until(&mut watch, |_, event| event.what == WatchType::Sync).await;
    let cursor = watch.cursor().unwrap().to_owned();
    drop(watch);
    here.delete(&key(0)).await.unwrap();
    await_empty_log(&cluster).await;
    let resume = || here.watch(WatchOptions { cursor: Some(cursor.clone()), ..WatchOptions::default() });
    let mut watch = resume();
    told.until(&mut watch, |_, event| event.what == WatchType::Sync).await;
    assert_eq!((told.resets, told.values.len(), told.values.contains_key(&key(0))), (1, KEYS - 1, false));
    // Where nothing has happened since, a cursor is good for as long as one likes.
    let cursor = watch.cursor().unwrap().to_owned();
    let mut watch = here.watch(WatchOptions { cursor: Some(cursor), ..WatchOptions::default() });
    told.until(&mut watch, |_, event| event.what == WatchType::Sync).await;
    assert_eq!(told.resets, 1);
}

async fn await_empty_log(cluster: &Cluster) {
    let deadline = Instant::now() + TOLD_WITHIN;
    loop {
        let page = cluster.rest(0, "").page("/v1/gc").await.unwrap();
        let report: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        if report["garbage"]["log_rows"] == 0 && report["garbage"]["swept"] == true {
            return;
        }
        assert!(Instant::now() < deadline, "the log is not swept: {report:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
