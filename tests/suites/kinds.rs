//! Counters, sets, maps and documents at three PoPs as processes: what is changed at several at once comes out the same at all.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use littoral::{Client, Namespace, PageOptions};
use littoral_tests::cluster::{ACCOUNT, Cluster, Options, TOKEN};
use serde_json::{Value as Json, json};

/// How soon all PoPs must agree.
const AGREE_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);
const POPS: usize = 3;

/// A cluster, and one namespace as each PoP has it.
async fn started() -> (Cluster, Vec<Namespace>) {
    let cluster = Cluster::started(Options { pops: POPS, ..Options::default() }).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("kinds").await.unwrap();
    let namespace = |pop| Client::new(&cluster.url(pop), TOKEN).unwrap().account(ACCOUNT).namespace(&id);
    let namespaces: Vec<_> = (0..POPS).map(namespace).collect();
    for kv in &namespaces {
        // A namespace made elsewhere may not be known here yet, which is an answer of its own.
        until(kv, true, async |kv| kv.counter("none").count().await.is_ok()).await;
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

async fn until_everywhere<T: PartialEq + Debug + Clone>(
    namespaces: &[Namespace],
    expected: T,
    seen: impl AsyncFn(&Namespace) -> T,
) {
    for kv in namespaces {
        until(kv, expected.clone(), &seen).await;
    }
}

async fn count(kv: &Namespace) -> Option<i64> {
    kv.counter("c").count().await.unwrap()
}

async fn members(kv: &Namespace) -> BTreeSet<String> {
    let rows = kv.set("s").members(PageOptions::default()).rows();
    rows.map_ok(|member| member.name).try_collect().await.unwrap()
}

async fn fields(kv: &Namespace) -> Vec<(String, String)> {
    let rows = kv.map("m").fields(PageOptions::default()).rows();
    rows.map_ok(|field| (field.name, field.value.unwrap())).try_collect().await.unwrap()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_counted_at_three_pops_at_once_adds_up_and_a_reset_takes_what_it_has_seen() {
    const ADDS: i64 = 100;
    let (mut cluster, namespaces) = started().await;
    let counting = namespaces.iter().zip([1, 10, -3]).map(|(kv, amount)| {
        let counter = kv.counter("c");
        tokio::spawn(async move {
            for _ in 0..ADDS {
                counter.add(amount).await.unwrap();
            }
        })
    });
    for counted in counting.collect::<Vec<_>>() {
        counted.await.unwrap();
    }
    until_everywhere(&namespaces, Some(ADDS * 8), count).await;

    // PoP 2 is away: it counts on alone, and so does the reset.
    cluster.stop(2).unwrap();
    namespaces[0].counter("c").reset().await.unwrap();
    namespaces[0].counter("c").add(5).await.unwrap();
    until(&namespaces[1], Some(5), count).await;
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    namespaces[2].counter("c").add(7).await.unwrap();
    until_everywhere(&namespaces, Some(12), count).await;
    namespaces[1].counter("c").reset().await.unwrap();
    until_everywhere(&namespaces, None, count).await;
}

/// The stock is at one PoP, and each sells all that it can, asking for the rights of the others. No answer of any PoP is ever
/// below zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pops_that_sell_one_stock_sell_all_of_it_and_no_more() {
    const STOCK: u64 = 60;
    let (cluster, namespaces) = started().await;
    namespaces[0].bounded("stock").add(STOCK).await.unwrap();
    let left = async |kv: &Namespace| kv.bounded("stock").count().await.unwrap();
    until_everywhere(&namespaces, Some(STOCK as i64), left).await;
    let selling = namespaces.iter().flat_map(|kv| [kv.bounded("stock"), kv.bounded("stock")]).map(|stock| {
        tokio::spawn(async move {
            let mut sold = 0;
            loop {
                match stock.take(1).await {
                    Ok(info) => {
                        assert!(info.count >= 0, "{info:?}");
                        sold += 1;
                    }
                    Err(error) if error.lacks_rights() => return sold,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let mut sold = Vec::new();
    for seller in selling.collect::<Vec<_>>() {
        sold.push(seller.await.unwrap());
    }
    assert_eq!(sold.iter().sum::<u64>(), STOCK, "{sold:?}");
    until_everywhere(&namespaces, Some(0), left).await;

    // What is added anywhere can be taken anywhere, whole or not at all.
    namespaces[2].bounded("stock").add(5).await.unwrap();
    until_everywhere(&namespaces, Some(5), left).await;
    assert!(namespaces[0].bounded("stock").take_within(5, Duration::ZERO).await.unwrap_err().lacks_rights());
    assert_eq!(namespaces[0].bounded("stock").take(5).await.unwrap().count, 0);
    until_everywhere(&namespaces, Some(0), left).await;
    namespaces[1].bounded("stock").delete().await.unwrap();
    until_everywhere(&namespaces, None, left).await;
    drop(cluster);
}

/// Each round, one PoP puts a member in while another takes it out: the other has seen what was there before, and not what is
/// put in meanwhile, unless it came in time; then it is out everywhere. All agree in either case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_members_put_in_and_taken_out_at_once_all_pops_have_the_same() {
    const ROUNDS: usize = 20;
    let (mut cluster, namespaces) = started().await;
    namespaces[0].set("s").change(&["kept", "gone", "both"], &[]).await.unwrap();
    until_everywhere(&namespaces, names(["kept", "gone", "both"]), members).await;
    for round in 0..ROUNDS {
        let member = format!("m{round}");
        let (one, two) = (namespaces[round % POPS].set("s"), namespaces[(round + 1) % POPS].set("s"));
        one.insert(&member).await.unwrap();
        let (put, removed) = tokio::join!(one.insert(&member), two.remove(&member));
        put.unwrap();
        removed.unwrap();
    }
    let deadline = Instant::now() + AGREE_WITHIN;
    loop {
        let seen =
            [members(&namespaces[0]).await, members(&namespaces[1]).await, members(&namespaces[2]).await];
        if seen[0] == seen[1] && seen[1] == seen[2] && is_caught_up(&cluster).await {
            break;
        }
        assert!(Instant::now() < deadline, "they do not agree: {seen:?}");
        tokio::time::sleep(PAUSE).await;
    }

    // While PoP 2 is stopped, one removes what it has and puts in again what the other removes.
    let everything = members(&namespaces[0]).await;
    cluster.stop(2).unwrap();
    namespaces[0].set("s").remove("gone").await.unwrap();
    namespaces[0].set("s").remove("both").await.unwrap();
    until(&namespaces[1], false, async |kv| kv.set("s").contains("both").await.unwrap()).await;
    namespaces[1].set("s").insert("both").await.unwrap();
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    let left: BTreeSet<_> = everything.into_iter().filter(|member| member != "gone").collect();
    until_everywhere(&namespaces, left, members).await;
}

/// Whether nobody is behind anybody, as each PoP knows it.
async fn is_caught_up(cluster: &Cluster) -> bool {
    for pop in 0..POPS {
        let answer = cluster.rest(pop, "").page("/v1/lag").await.unwrap();
        let report: littoral::api::LagReport = serde_json::from_slice(&answer.body).unwrap();
        if report.lag.iter().any(|lag| lag.ops > 0) {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_put_at_several_pops_are_all_there_and_of_one_field_the_last_value() {
    let (_cluster, namespaces) = started().await;
    let maps: Vec<_> = namespaces.iter().map(|kv| kv.map("m")).collect();
    let all = tokio::join!(
        maps[0].put("a", "0"),
        maps[1].put("b", "1"),
        maps[2].put("c", "2"),
        maps[0].put("same", "0"),
        maps[1].put("same", "1"),
        maps[2].put("same", "2"),
    );
    let same = [all.3.unwrap(), all.4.unwrap(), all.5.unwrap()];
    for written in [all.0, all.1, all.2] {
        written.unwrap();
    }
    // The receipts are in the order of the events: the last writer is known.
    let last = (0..POPS).max_by_key(|pop| same[*pop].receipt.clone().unwrap()).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [pair("a", "0"), pair("b", "1"), pair("c", "2"), pair("same", &last.to_string())];
    until_everywhere(&namespaces, expected.to_vec(), fields).await;
    namespaces[1].map("m").change([("same", Some("later")), ("a", None)]).await.unwrap();
    until_everywhere(&namespaces, vec![pair("b", "1"), pair("c", "2"), pair("same", "later")], fields).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_that_is_deleted_leaves_what_was_added_elsewhere_meanwhile() {
    let (mut cluster, namespaces) = started().await;
    namespaces[0].set("s").change(&["a", "b"], &[]).await.unwrap();
    namespaces[0].map("m").change([("a", Some("old")), ("b", Some("old"))]).await.unwrap();
    let old = |name: &str| (name.to_owned(), "old".to_owned());
    until_everywhere(&namespaces, names(["a", "b"]), members).await;
    until_everywhere(&namespaces, vec![old("a"), old("b")], fields).await;
    // Neither hears of the other: PoP 0 adds and goes away before PoP 1, which was away, comes back.
    cluster.stop(1).unwrap();
    namespaces[0].set("s").insert("new").await.unwrap();
    namespaces[0].map("m").put("a", "new").await.unwrap();
    cluster.stop(0).unwrap();
    cluster.stop(2).unwrap();
    cluster.start(1).unwrap();
    cluster.wait_ready(1).await.unwrap();
    assert_eq!(members(&namespaces[1]).await, names(["a", "b"]));
    namespaces[1].set("s").clear().await.unwrap();
    namespaces[1].map("m").clear().await.unwrap();
    assert_eq!((members(&namespaces[1]).await, fields(&namespaces[1]).await), (names([]), vec![]));
    for pop in [0, 2] {
        cluster.start(pop).unwrap();
        cluster.wait_ready(pop).await.unwrap();
    }
    until_everywhere(&namespaces, names(["new"]), members).await;
    until_everywhere(&namespaces, vec![("a".to_owned(), "new".to_owned())], fields).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_changes_and_shows_them() {
    let cluster = Cluster::started(Options::default()).await.unwrap();
    let id = cluster.rest(0, "").create_namespace("kinds").await.unwrap();
    let at = ["--namespace", &id, "--account", ACCOUNT];
    let run = |line: &[&str]| cluster.run(0, &[line, &at].concat());
    assert!(run(&["counter", "get", "c"]).unwrap_err().to_string().contains("there is no counter"));
    assert_eq!(run(&["counter", "add", "c"]).unwrap(), "1");
    assert_eq!(run(&["counter", "add", "c", "-5", "--ttl", "1000"]).unwrap(), "-4");
    assert_eq!(run(&["counter", "get", "c"]).unwrap(), "-4");
    run(&["counter", "reset", "c"]).unwrap();
    assert!(run(&["counter", "get", "c"]).is_err());

    assert_eq!(run(&["bounded", "add", "b", "3"]).unwrap(), "3");
    assert_eq!(run(&["bounded", "take", "b", "2"]).unwrap(), "1");
    assert!(run(&["bounded", "take", "b", "2"]).unwrap_err().to_string().contains("1 left in the world"));
    assert_eq!(run(&["bounded", "get", "b"]).unwrap(), "1");
    run(&["bounded", "delete", "b"]).unwrap();
    assert!(run(&["bounded", "get", "b"]).unwrap_err().to_string().contains("there is no bounded counter"));

    for member in ["b", "a", "gone", "line\nbreak"] {
        run(&["set", "add", "s", member]).unwrap();
    }
    run(&["set", "remove", "s", "gone"]).unwrap();
    assert_eq!(run(&["set", "list", "s"]).unwrap(), "a\nb\nline\\nbreak");
    assert_eq!(run(&["set", "list", "s", "--limit", "1"]).unwrap(), "a");
    assert_eq!(run(&["set", "list", "s", "--prefix", "b", "--json"]).unwrap(), r#"{"name":"b"}"#);
    run(&["set", "contains", "s", "a"]).unwrap();
    assert!(run(&["set", "contains", "s", "gone"]).unwrap_err().to_string().contains("is not in the set"));

    run(&["map", "put", "m", "f", "v w"]).unwrap();
    run(&["map", "put", "m", "g", ""]).unwrap();
    assert_eq!(run(&["map", "get", "m", "f"]).unwrap(), "v w");
    assert_eq!(run(&["map", "list", "m"]).unwrap(), "f  v w\ng");
    run(&["map", "remove", "m", "f"]).unwrap();
    assert!(run(&["map", "get", "m", "f"]).unwrap_err().to_string().contains("there is no field"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_edited_at_three_pops_at_once_has_all_edits_until_it_is_deleted() {
    const EDITS: usize = 20;
    let (mut cluster, namespaces) = started().await;
    let doc = async |kv: &Namespace| kv.doc("d").get::<Json>().await.unwrap();
    let base = json!({"l": [], "t": {"$text": ""}, "k": {"$counter": 0}});
    namespaces[0].doc("d").put(&base).await.unwrap();
    until_everywhere(&namespaces, Some(json!({"l": [], "t": "", "k": 0})), doc).await;
    let editing = namespaces.iter().enumerate().map(|(pop, kv)| {
        let doc = kv.doc("d");
        tokio::spawn(async move {
            for n in 0..EDITS {
                let patch = json!([{"op": "add", "path": "/l/-", "value": format!("{pop}-{n}")},
                    {"op": "splice", "path": "/t", "position": 0, "insert": "x"},
                    {"op": "increment", "path": "/k", "by": 1},
                    {"op": "add", "path": format!("/p{pop}"), "value": n}]);
                doc.patch(&patch).await.unwrap();
            }
        })
    });
    for edited in editing.collect::<Vec<_>>() {
        edited.await.unwrap();
    }
    let sums = async |kv: &Namespace| {
        let doc = doc(kv).await.unwrap();
        let items: BTreeSet<String> = serde_json::from_value(doc["l"].clone()).unwrap();
        let last = (0..POPS).map(|pop| doc[format!("p{pop}")].as_u64()).collect::<Vec<_>>();
        (items.len(), doc["t"].as_str().unwrap().len(), doc["k"].as_u64(), last)
    };
    let all = EDITS * POPS;
    let last = vec![Some(EDITS as u64 - 1); POPS];
    until_everywhere(&namespaces, (all, all, Some(all as u64), last), sums).await;
    let said = doc(&namespaces[0]).await;
    until_everywhere(&namespaces, said, doc).await;

    // PoP 2 edits it while it is alone.
    cluster.stop(1).unwrap();
    cluster.stop(0).unwrap();
    namespaces[2].doc("d").merge(&json!({"kept": true})).await.unwrap();
    let kept = doc(&namespaces[2]).await;
    cluster.start(0).unwrap();
    cluster.start(1).unwrap();
    cluster.wait_ready(0).await.unwrap();
    cluster.wait_ready(1).await.unwrap();
    until_everywhere(&namespaces, kept, doc).await;
    namespaces[1].doc("d").delete().await.unwrap();
    until_everywhere(&namespaces, None, doc).await;
}
