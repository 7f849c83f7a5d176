//! Conflicts at real processes: what loses while two PoPs are parted is listed at both, and can be put back.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::fmt::Debug;
use std::time::{Duration, Instant};

use littoral::api::conflicts::Conflict;
use littoral::{Client, ConflictOptions, Namespace, PutOptions};
use littoral_tests::cluster::{ACCOUNT, Cluster, Options, TOKEN};
use serde_json::Value as Json;

/// How soon all PoPs must agree.
const AGREE_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);
/// Values larger than this lie in chunk files.
const MAX_INLINE_BYTES: usize = 16 << 10;

/// Two PoPs, and one namespace as each has it.
async fn started() -> (Cluster, [Namespace; 2]) {
    let cluster = Cluster::started(Options { pops: 2, ..Options::default() }).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("conflicts").await.unwrap();
    let namespace = |pop| Client::new(&cluster.url(pop), TOKEN).unwrap().account(ACCOUNT).namespace(&id);
    let namespaces = [namespace(0), namespace(1)];
    for kv in &namespaces {
        // A namespace made elsewhere may not be known here yet, which is an answer of its own.
        until(kv, true, async |kv| kv.get("none").await.is_ok()).await;
    }
    (cluster, namespaces)
}

/// Waits until this PoP sees this.
async fn until<T: PartialEq + Debug>(kv: &Namespace, expected: T, seen: impl AsyncFn(&Namespace) -> T) {
    let deadline = Instant::now() + AGREE_WITHIN;
    loop {
        let found = seen(kv).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?} is not {expected:?} after {AGREE_WITHIN:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn put(kv: &Namespace, key: &str, value: impl Into<Vec<u8>>) {
    kv.put(key, value.into(), PutOptions::default()).await.unwrap();
}

async fn text(kv: &Namespace, key: &str) -> Option<String> {
    let value = kv.get(key).await.unwrap()?;
    Some(String::from_utf8(value.bytes.to_vec()).unwrap())
}

async fn listed(kv: &Namespace) -> Vec<Conflict> {
    let mut pages = kv.conflicts(ConflictOptions { preview: true, ..ConflictOptions::default() });
    let mut all = Vec::new();
    while let Some(page) = pages.next_page().await.unwrap() {
        all.extend(page.conflicts);
    }
    all
}

fn part(cluster: &Cluster, order: &str) {
    cluster.run(0, &["link", order, "pop-1"]).unwrap();
    cluster.run(1, &["link", order, "pop-0"]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loses_while_two_pops_are_parted_is_listed_at_both_and_wins_when_it_is_restored() {
    let (cluster, namespaces) = started().await;
    // Whoever has seen what it overwrites makes no conflict.
    for turn in 0..6 {
        let value = format!("turn {turn}");
        put(&namespaces[turn % 2], "k", value.clone()).await;
        for kv in &namespaces {
            until(kv, Some(value.clone()), async |kv| text(kv, "k").await).await;
        }
    }
    part(&cluster, "pause");
    let values = ["of pop-0", "of pop-1"];
    for (kv, value) in namespaces.iter().zip(values) {
        put(kv, "k", value).await;
    }
    // Both have it: the link does carry nothing.
    for (kv, value) in namespaces.iter().zip(values) {
        assert_eq!(text(kv, "k").await.as_deref(), Some(value));
        assert!(listed(kv).await.is_empty());
    }
    part(&cluster, "resume");
    for kv in &namespaces {
        until(kv, 1, async |kv| listed(kv).await.len()).await;
    }
    let conflicts = [listed(&namespaces[0]).await.remove(0), listed(&namespaces[1]).await.remove(0)];
    let [here, there] = &conflicts;
    assert_eq!((&here.id, &here.lost.pop, &here.won), (&there.id, &there.lost.pop, &there.won));
    let loser = usize::from(here.lost.pop.as_deref() == Some("pop-1"));
    assert_eq!(here.lost.pop.as_deref(), Some(["pop-0", "pop-1"][loser]));
    assert_eq!(here.won.pop.as_deref(), Some(["pop-0", "pop-1"][1 - loser]));
    assert_eq!((here.key.as_str(), here.won.deleted), ("k", false));
    assert_eq!((here.lost.preview.as_deref(), here.lost.size), (Some(values[loser]), 8));
    assert!(here.kept_until_ms > here.noticed_ms && here.noticed_ms >= here.won.written_ms);
    for kv in &namespaces {
        until(kv, Some(values[1 - loser].to_owned()), async |kv| text(kv, "k").await).await;
    }
    // Figures are brought up to date now and then.
    let rest = cluster.rest(0, "");
    until(&namespaces[0], true, async |_| {
        let metrics = rest.page("/metrics").await.unwrap().text();
        ["littoral_conflicts_total 1", "littoral_conflict_rows 1"]
            .into_iter()
            .all(|told| metrics.lines().any(|line| line == told))
    })
    .await;

    // At the shell, at one PoP; and by the SDK at the other.
    let at = ["--namespace", namespaces[0].id(), "--account", ACCOUNT];
    let run = |line: &[&str]| cluster.run(0, &[line, &at].concat());
    assert!(run(&["conflict", "list"]).unwrap().contains(&here.id));
    let rows = run(&["--json", "conflict", "list", "--key", "k"]).unwrap();
    assert_eq!(serde_json::from_str::<Json>(&rows).unwrap()["id"], here.id.as_str());
    assert_eq!(run(&["conflict", "list", "--prefix", "other"]).unwrap(), "");
    assert_eq!(run(&["conflict", "show", &here.id]).unwrap(), values[loser]);
    let refused = run(&["conflict", "restore", &here.id, "--if-match", "other"]).unwrap_err().to_string();
    assert!(refused.contains("is not one that this request is for"), "{refused}");
    let written = namespaces[1].restore_conflict(&here.id, None).await.unwrap().unwrap();
    assert!(written.receipt.is_some());
    for kv in &namespaces {
        until(kv, Some(values[loser].to_owned()), async |kv| text(kv, "k").await).await;
    }
    assert!(listed(&namespaces[1]).await.is_empty(), "what is restored is no conflict any more");
    assert_eq!(listed(&namespaces[0]).await.len(), 1, "the other PoP keeps its own");
    run(&["conflict", "dismiss", &here.id]).unwrap();
    assert!(
        run(&["conflict", "dismiss", &here.id]).unwrap_err().to_string().contains("there is no conflict")
    );
    for kv in &namespaces {
        assert!(listed(kv).await.is_empty());
        assert!(kv.conflict(&here.id).await.unwrap().is_none());
        assert!(kv.restore_conflict(&here.id, None).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_that_lost_is_whole_at_both_pops_and_after_a_restart() {
    let (mut cluster, namespaces) = started().await;
    part(&cluster, "pause");
    let values = [b'a', b'b'].map(|letter| vec![letter; 40 * MAX_INLINE_BYTES]);
    for (kv, value) in namespaces.iter().zip(&values) {
        put(kv, "large", value.clone()).await;
    }
    part(&cluster, "resume");
    for kv in &namespaces {
        until(kv, 1, async |kv| listed(kv).await.len()).await;
    }
    cluster.kill9(0).unwrap();
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    let conflict = listed(&namespaces[0]).await.remove(0);
    assert_eq!((conflict.lost.size, conflict.lost.preview), (values[0].len() as u64, None));
    let loser = usize::from(conflict.lost.pop.as_deref() == Some("pop-1"));
    for kv in &namespaces {
        until(kv, true, async |kv| {
            let lost = kv.conflict(&conflict.id).await;
            lost.is_ok_and(|lost| lost.unwrap().bytes == values[loser])
        })
        .await;
    }
    namespaces[1 - loser].restore_conflict(&conflict.id, None).await.unwrap().unwrap();
    for kv in &namespaces {
        until(kv, true, async |kv| kv.get("large").await.unwrap().unwrap().bytes == values[loser]).await;
    }
}
