//! Three PoPs as processes: what is written at one is read at the others, also by one that was killed and
//! comes back, and by one whose store is rebuilt.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::time::{Duration, Instant};

use littoral_tests::cluster::{Cluster, Options, Rest};
use serde_json::Value;

/// How soon a write must be seen everywhere.
const SEEN_WITHIN: Duration = Duration::from_secs(20);
const KEYS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_read_everywhere_and_a_killed_pop_catches_up() {
    let mut cluster = Cluster::started(Options { pops: 3, ..Options::default() }).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("shared").await.unwrap();
    let rests: Vec<Rest> = (0..3).map(|pop| cluster.rest(pop, &namespace)).collect();
    write(&rests[0], "first").await;
    for rest in &rests {
        await_values(rest, "first").await;
    }
    cluster.kill9(2).unwrap();
    write(&rests[1], "second").await;
    await_values(&rests[0], "second").await;
    cluster.start(2).unwrap();
    cluster.wait_ready(2).await.unwrap();
    await_values(&cluster.rest(2, &namespace), "second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_quarantined_and_rebuilt_from_the_peers() {
    let mut cluster = Cluster::started(Options { pops: 3, ..Options::default() }).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("rebuilt").await.unwrap();
    let damaged = cluster.rest(2, &namespace);
    write(&cluster.rest(0, &namespace), "first").await;
    await_values(&damaged, "first").await;
    // Large, so that it lives in chunk files, which the peer pulls by themselves.
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(cluster.rest(1, &namespace).put("large", large.clone()).await.unwrap().status, 200);

    assert!(cluster.stop(2).unwrap().success());
    std::fs::write(cluster.data_dir(2).join("store/db"), b"").unwrap();
    cluster.start(2).unwrap();
    let quarantined = cluster.wait_answer(2, "/readyz", |status| status == 503).await.unwrap().unwrap();
    assert!(quarantined.text().contains("littoral store rebuild"), "{}", quarantined.text());
    let read = damaged.read_raw("key-1").await.unwrap();
    assert_eq!(read.status, 503, "a quarantined node answered: {}", read.text());
    let refused = cluster.run(2, &["link", "budget", "1MB", "--of", "node"]).unwrap_err().to_string();
    assert!(refused.contains("forgets orders about them: repeat this once it serves"), "{refused}");
    // Nor does it stand in the way of the others.
    write(&cluster.rest(1, &namespace), "second").await;
    await_values(&cluster.rest(0, &namespace), "second").await;

    cluster.kill9(2).unwrap();
    cluster.start_with(2, &["--rebuild"]).unwrap();
    cluster.wait_ready(2).await.unwrap();
    await_values(&damaged, "second").await;
    assert!(damaged.read("large").await.unwrap().is_some_and(|value| value == large));
    for pop in 0..3 {
        await_all_in_step(&cluster.rest(pop, &namespace)).await;
    }
}

/// Waits until this PoP sees each other one once, linked, and nobody behind anybody: the incarnation from before a
/// rebuild once stayed for ever, under the same name.
async fn await_all_in_step(rest: &Rest) {
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let answer = rest.page("/v1/status").await.unwrap();
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        let (peers, lag) = (status["peers"].as_array().unwrap(), status["lag"].as_array().unwrap());
        let are_linked = peers.len() == 2 && peers.iter().all(|peer| peer["connected"] == true);
        if are_linked && lag.iter().all(|lag| lag["ops"] == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "not in step after {SEEN_WITHIN:?}: {status:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn write(rest: &Rest, value: &str) {
    for number in 0..KEYS {
        let answer = rest.put(&format!("key-{number}"), value.into()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

async fn await_values(rest: &Rest, value: &str) {
    let deadline = Instant::now() + SEEN_WITHIN;
    for number in 0..KEYS {
        // A namespace made elsewhere may not be known here yet, which is an answer of its own.
        while !rest
            .read(&format!("key-{number}"))
            .await
            .is_ok_and(|found| found.is_some_and(|found| found == value))
        {
            assert!(Instant::now() < deadline, "key-{number} is not {value} after {SEEN_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
