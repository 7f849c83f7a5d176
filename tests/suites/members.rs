//! PoPs that come and go: one is added and taken out again, one is rebuilt, one is cloned, one is put back to an older
//! copy, one is away for too long. No acknowledged write is lost, and no store is served that must not be.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use littoral_tests::cluster::{Cluster, Options, Rest, copy_folder};
use serde_json::Value;

/// How soon what is awaited must be there.
const WITHIN: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);
const KEYS: usize = 200;
/// The code of a write that a draining node refuses.
const DRAINING: u64 = 20_011;

async fn three(options: Options) -> (Cluster, String) {
    let cluster = Cluster::started(Options { pops: 3, ..options }).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("shared").await.unwrap();
    (cluster, namespace)
}

async fn put(rest: &Rest, key: &str, value: &str) {
    let answer = rest.put(key, value.into()).await.unwrap();
    assert_eq!(answer.status, 200, "{key}: {}", answer.text());
}

/// Waits until this condition holds. An error is as good as a no: a node may be starting.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let held = holds().await;
        if matches!(held, Ok(true)) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not within {WITHIN:?}: {held:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_read(rest: &Rest, key: &str, value: &str) {
    until(&format!("{key} = {value}"), async || {
        Ok(rest.read(key).await?.is_some_and(|found| found == value))
    })
    .await;
}

async fn page(rest: &Rest, path: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&rest.page(path).await?.body)?)
}

/// Waits until a PoP refuses to serve, and gives its reason.
async fn refusal(cluster: &Cluster, index: usize, words: &str) -> String {
    let rest = cluster.rest(index, "");
    let mut said = String::new();
    until(&format!("pop {index} says {words:?}"), async || {
        let answer = rest.page("/readyz").await?;
        said = answer.text();
        Ok(answer.status == 503 && said.contains(words))
    })
    .await;
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_pop_is_ready_only_with_all_data_and_goes_without_loss() {
    let (mut cluster, namespace) = three(Options::default()).await;
    let first = cluster.rest(0, &namespace);
    for number in 0..KEYS {
        put(&first, &format!("key-{number}"), "old").await;
    }
    let authority = cluster.authority();
    let made = cluster.run(0, &["--json", "member", "add", "pop-3", "--authority", &authority]).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    let added = cluster.add(made["token"].as_str().unwrap()).unwrap();
    cluster.start(added).unwrap();
    cluster.wait_ready(added).await.unwrap();
    let fourth = cluster.rest(added, &namespace);
    for number in 0..KEYS {
        let found = fourth.read(&format!("key-{number}")).await.unwrap();
        assert!(found.is_some_and(|found| found == "old"), "key-{number} was not there when it was ready");
    }
    put(&fourth, "of-the-fourth", "kept").await;

    let refused = cluster.run(0, &["member", "remove", "pop-3"]).unwrap_err().to_string();
    assert!(refused.contains("drain it first"), "{refused}");
    let refused = cluster.run(0, &["member", "remove", "pop-0", "--force"]).unwrap_err().to_string();
    assert!(refused.contains("ask another PoP"), "{refused}");
    cluster.run(0, &["member", "drain", "pop-3", "--dry-run"]).unwrap();
    put(&fourth, "before-the-drain", "kept").await;
    let drained = cluster.run(0, &["member", "drain", "pop-3", "--wait"]).unwrap();
    assert!(drained.contains("pop-3 is drained"), "{drained}");
    let late = fourth.put("too-late", "x".into()).await.unwrap();
    assert_eq!((late.status, late.code()), (503, Some(DRAINING)), "{}", late.text());
    cluster.run(0, &["member", "remove", "pop-3"]).unwrap();
    let said = refusal(&cluster, added, "an operator has removed this node").await;
    assert!(said.contains("littoral store rebuild"), "{said}");
    for rest in (0..3).map(|pop| cluster.rest(pop, &namespace)) {
        until_read(&rest, "of-the-fourth", "kept").await;
        until_read(&rest, "before-the-drain", "kept").await;
    }
    let report = page(&first, "/v1/members").await.unwrap();
    assert_eq!(report["members"].as_array().unwrap().len(), 3, "{report:#}");
    assert_eq!(report["removed"][0]["reason"], "operator", "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_takes_the_place_of_a_pop() {
    let (mut cluster, namespace) = three(Options::default()).await;
    let rest = cluster.rest(0, &namespace);
    put(&rest, "key", "value").await;
    let authority = cluster.authority();
    let replace = ["--json", "member", "replace", "pop-2", "--authority", &authority];
    let replaced: Value = serde_json::from_str(&cluster.run(0, &replace).unwrap()).unwrap();
    refusal(&cluster, 2, "an operator has removed this node").await;
    cluster.kill9(2).unwrap();
    cluster.replace(2, replaced["token"].as_str().unwrap()).unwrap();
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    let found = cluster.rest(2, &namespace).read("key").await.unwrap();
    assert!(found.is_some_and(|found| found == "value"));
    let listed = cluster.run(0, &["member", "list"]).unwrap();
    assert!(listed.contains("by an operator"), "{listed}");
    let explained = cluster.run(0, &["gc", "explain"]).unwrap();
    assert!(explained.contains("Nobody holds it up"), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_pop_keeps_an_acknowledged_write_that_it_had_not_sent() {
    let (mut cluster, namespace) = three(Options::default()).await;
    let rests: Vec<Rest> = (0..3).map(|pop| cluster.rest(pop, &namespace)).collect();
    put(&rests[0], "shared", "old").await;
    until_read(&rests[2], "shared", "old").await;
    assert!(cluster.stop(0).unwrap().success() && cluster.stop(1).unwrap().success());
    put(&rests[2], "unsent", "kept").await;
    put(&rests[2], "shared", "new").await;
    assert!(cluster.stop(2).unwrap().success());

    let config = cluster.config_path(2);
    let rebuild = ["store", "rebuild", "--config", config.to_str().unwrap()];
    let dry = cluster.run(2, &[&rebuild[..], &["--dry-run"]].concat()).unwrap();
    assert!(dry.contains("2 writes of its own would be carried over"), "{dry}");
    assert!(cluster.data_dir(2).join("store").exists());
    let done = cluster.run(2, &rebuild).unwrap();
    assert!(done.contains("2 writes of its own are carried over"), "{done}");
    for pop in 0..3 {
        cluster.start(pop).unwrap();
    }
    cluster.wait_ready(2).await.unwrap();
    for rest in &rests {
        until_read(rest, "unsent", "kept").await;
        until_read(rest, "shared", "new").await;
    }
}

fn aside(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.data_dir(2).with_file_name(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_of_a_running_pop_is_found_out() {
    let (mut cluster, namespace) = three(Options::default()).await;
    put(&cluster.rest(0, &namespace), "key", "value").await;
    until_read(&cluster.rest(2, &namespace), "key", "value").await;
    assert!(cluster.stop(2).unwrap().success());
    let copy = aside(&cluster, "copy");
    copy_folder(cluster.data_dir(2), &copy).unwrap();
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    let clone = cluster.add_clone(2, copy).unwrap();
    cluster.start(clone).unwrap();
    for pop in [2, clone] {
        let said = refusal(&cluster, pop, "littoral store rebuild").await;
        assert!(said.contains("clone"), "{said}");
        let write = cluster.rest(pop, &namespace).put("key", "of a clone".into()).await.unwrap();
        assert_eq!(write.status, 503, "{}", write.text());
    }
    // One of the two returns under a new identity, when the other is gone.
    cluster.kill9(clone).unwrap();
    cluster.kill9(2).unwrap();
    cluster.start_with(2, &["--rebuild"]).unwrap();
    cluster.wait_ready(2).await.unwrap();
    until_read(&cluster.rest(2, &namespace), "key", "value").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_data_folder_is_found_out() {
    let (mut cluster, namespace) = three(Options::default()).await;
    put(&cluster.rest(0, &namespace), "key", "old").await;
    until_read(&cluster.rest(2, &namespace), "key", "old").await;
    assert!(cluster.stop(2).unwrap().success());
    let copy = aside(&cluster, "copy");
    copy_folder(cluster.data_dir(2), &copy).unwrap();
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    put(&cluster.rest(2, &namespace), "key", "new").await;
    until_read(&cluster.rest(0, &namespace), "key", "new").await;
    assert!(cluster.stop(2).unwrap().success());

    cluster.move_data(2, copy).unwrap();
    cluster.start(2).unwrap();
    let said = refusal(&cluster, 2, "it is an older copy").await;
    assert!(said.contains("littoral store rebuild"), "{said}");
    assert!(cluster.stop(2).unwrap().success());
    let config = cluster.config_path(2);
    cluster.run(2, &["store", "rebuild", "--config", config.to_str().unwrap()]).unwrap();
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    until_read(&cluster.rest(2, &namespace), "key", "new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop_that_was_away_too_long_is_evicted_and_returns_by_itself() {
    let options = Options { epoch_ms: 500, max_away_s: 10, ..Options::default() };
    let (mut cluster, namespace) = three(options).await;
    let rests: Vec<Rest> = (0..3).map(|pop| cluster.rest(pop, &namespace)).collect();
    put(&rests[0], "shared", "old").await;
    until_read(&rests[2], "shared", "old").await;
    assert!(cluster.stop(0).unwrap().success() && cluster.stop(1).unwrap().success());
    put(&rests[2], "shared", "new").await;
    put(&rests[2], "unsent", "kept").await;
    assert!(cluster.stop(2).unwrap().success());
    cluster.start(0).unwrap();
    cluster.start(1).unwrap();
    until("pop-2 is evicted", async || {
        Ok(page(&rests[0], "/v1/members").await?["removed"][0]["reason"] == "silent")
    })
    .await;
    // The others go on without it: what waits for it can go.
    until("the epoch has passed its last word", async || {
        let gc = page(&rests[0], "/v1/gc").await?;
        Ok(gc["holders"].as_array().is_some_and(|holders| holders.len() == 2)
            && gc["garbage"]["log_rows"] == 0)
    })
    .await;

    cluster.start(2).unwrap();
    until("pop-2 is a member again", async || {
        let report = page(&rests[0], "/v1/members").await?;
        let is_back = |member: &Value| member["pop"] == "pop-2" && member["stage"] == "member";
        Ok(report["members"].as_array().is_some_and(|members| members.iter().any(is_back)))
    })
    .await;
    cluster.wait_ready(2).await.unwrap();
    assert!(cluster.log(2).contains("returns by itself"), "{}", cluster.log(2));
    // A newer write to a key that is there is no question of deletes; one to a key that is not there is.
    for rest in &rests {
        until_read(rest, "shared", "new").await;
    }
    let listed = cluster.run(2, &["store", "dead-letters", "--json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let letter = listed["letters"].as_array().unwrap().iter().find(|letter| letter["key"] == "unsent");
    let event = letter.unwrap_or_else(|| panic!("no letter: {listed:#}"))["dot"].as_str().unwrap();
    cluster.run(2, &["store", "dead-letters", "--write", event]).unwrap();
    for rest in &rests {
        until_read(rest, "unsent", "kept").await;
    }
}
