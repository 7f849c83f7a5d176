//! `littoral verify` and `littoral diff` against real PoPs: what they print, and their exit codes.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use littoral_tests::cluster::{Cluster, Options, Rest, TOKEN, binary};
use serde_json::Value;

/// How soon PoPs must be equal.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);
const KEYS: usize = 100;

/// Runs a command with `--json`. Gives its exit code and what it printed.
async fn littoral(args: Vec<String>) -> (i32, Value) {
    let run = move || -> Output {
        let mut command = Command::new(binary().unwrap());
        command.args(args).args(["--json", "--token", TOKEN]).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let code = output.status.code().unwrap();
    match serde_json::from_slice(&output.stdout) {
        Ok(printed) => (code, printed),
        Err(_) => panic!("exit code {code}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

async fn verify(cluster: &Cluster, pop: usize) -> (i32, Value) {
    littoral(vec!["verify".into(), "--url".into(), cluster.url(pop)]).await
}

async fn diff(cluster: &Cluster) -> (i32, Value) {
    littoral(vec!["diff".into(), cluster.url(0), cluster.url(1)]).await
}

async fn write(rest: &Rest, value: &str) {
    for number in 0..KEYS {
        assert_eq!(rest.put(&format!("key-{number}"), value.into()).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_damage_and_is_not_disturbed_by_writes() {
    let cluster = Cluster::started(Options::default()).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("verified").await.unwrap();
    let rest = cluster.rest(0, &namespace);
    let large: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(rest.put("large", large).await.unwrap().status, 200);

    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (rest, stop) = (rest.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                write(&rest, "again").await;
            }
        }
    });
    for _ in 0..3 {
        let (code, found) = verify(&cluster, 0).await;
        assert_eq!((code, &found["mismatches"]), (0, &Value::Array(Vec::new())), "{found:#}");
        assert_eq!(found["chunks"]["good"], 3, "{found:#}");
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();

    let chunks = chunk_files(cluster.data_dir(0));
    std::fs::write(&chunks[0], b"other bytes").unwrap();
    std::fs::remove_file(&chunks[1]).unwrap();
    let (code, found) = verify(&cluster, 0).await;
    let counts = &found["chunks"];
    assert_eq!(
        (code, &counts["good"], &counts["damaged"], &counts["missing"]),
        (1, &1.into(), &1.into(), &1.into())
    );
    let metrics = rest.page("/metrics").await.unwrap().text();
    assert!(metrics.contains("littoral_verify_failures_total 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn diff_tells_what_has_not_come_over_a_cut() {
    let mut cluster = Cluster::started(Options { pops: 2, ..Options::default() }).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("compared").await.unwrap();
    write(&cluster.rest(0, &namespace), "first").await;
    await_equal(&cluster).await;

    // Both are up, and neither can reach the other.
    let configs = [config(&cluster, 0), config(&cluster, 1)];
    let texts = configs.each_ref().map(|config| std::fs::read_to_string(config).unwrap());
    for (pop, text) in texts.iter().enumerate() {
        assert!(cluster.stop(pop).unwrap().success());
        let other = cluster.replication_address(1 - pop).to_string();
        std::fs::write(&configs[pop], text.replace(&other, "127.0.0.1:9")).unwrap();
    }
    start(&mut cluster).await;
    let rest = cluster.rest(0, &namespace);
    assert_eq!(rest.put("key-1", b"second".to_vec()).await.unwrap().status, 200);
    assert_eq!(rest.delete("key-2").await.unwrap().status, 200);
    assert_eq!(cluster.rest(1, &namespace).put("new", b"n".to_vec()).await.unwrap().status, 200);
    let (code, found) = diff(&cluster).await;
    assert_eq!((code, &found["in_flight"], &found["diverged"]), (1, &3.into(), &0.into()), "{found:#}");
    let differences = found["differences"].as_array().unwrap();
    let bodies = |key: &str| {
        let is_of = |side: &Value| side["key"] == key;
        let found = differences.iter().find(|one| is_of(&one["left"]) || is_of(&one["right"])).unwrap();
        (found["left"]["body"].clone(), found["right"]["body"].clone())
    };
    assert_eq!(bodies("key-1"), ("value".into(), "value".into()));
    assert_eq!(bodies("key-2"), ("tombstone".into(), "value".into()));
    assert_eq!(bodies("new"), (Value::Null, "value".into()));

    for (pop, text) in texts.iter().enumerate() {
        assert!(cluster.stop(pop).unwrap().success());
        std::fs::write(&configs[pop], text).unwrap();
    }
    start(&mut cluster).await;
    await_equal(&cluster).await;
}

async fn start(cluster: &mut Cluster) {
    for pop in 0..2 {
        cluster.start(pop).unwrap();
    }
    for pop in 0..2 {
        cluster.wait_ready(pop).await.unwrap();
    }
}

async fn await_equal(cluster: &Cluster) {
    let deadline = Instant::now() + EQUAL_WITHIN;
    loop {
        let (code, found) = diff(cluster).await;
        if code == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "not equal after {EQUAL_WITHIN:?}: {found:#}");
    }
}

/// The configuration file lies beside the data folder.
fn config(cluster: &Cluster, pop: usize) -> PathBuf {
    cluster.data_dir(pop).with_file_name("config.toml")
}

fn chunk_files(data_dir: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(data_dir.join("chunks")).unwrap().map(|folder| folder.unwrap().path());
    let named = folders.filter(|folder| folder.file_name().unwrap().len() == 2);
    named.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path()).collect()
}
