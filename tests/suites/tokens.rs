//! Accounts, tokens and quotas at several PoPs: what is made at one holds at another, and what is revoked at one is refused
//! at another.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::time::{Duration, Instant};

use littoral_tests::cluster::{ACCOUNT, Cluster, Options, Rest};
use serde_json::Value;

/// How soon what was changed at one PoP must hold at another.
const HEARD_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until a read of a key that is there is answered with this status.
async fn until_read(rest: &Rest, status: u16) {
    let deadline = Instant::now() + HEARD_WITHIN;
    loop {
        let answer = rest.read_raw("key").await.unwrap();
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "not {status} but {} {}", answer.status, answer.text());
        tokio::time::sleep(PAUSE).await;
    }
}

fn json(cluster: &Cluster, pop: usize, line: &[&str]) -> Value {
    let line = [&["--json"], line].concat();
    serde_json::from_str(&cluster.run(pop, &line).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_revoked_and_bounded_at_one_pop_is_so_at_the_next() {
    let cluster = Cluster::started(Options { pops: 2, ..Options::default() }).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("shared").await.unwrap();
    cluster.rest(0, &namespace).put("key", b"value".to_vec()).await.unwrap();
    let scope = format!("read:{namespace}:k");
    let made = json(&cluster, 0, &["token", "create", "reader", "--scope", &scope, "--account", ACCOUNT]);
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let reader = |pop: usize| cluster.rest(pop, &namespace).with_token(token);
    until_read(&reader(0), 200).await;
    until_read(&reader(1), 200).await;
    let refused = reader(1).put("key", b"other".to_vec()).await.unwrap();
    assert_eq!((refused.status, refused.code()), (403, Some(10_000)), "{}", refused.text());
    let listed = json(&cluster, 1, &["token", "list", "--account", ACCOUNT]);
    assert_eq!(listed["tokens"][0]["id"], id, "{listed}");

    cluster.run(1, &["token", "revoke", id, "--account", ACCOUNT]).unwrap();
    until_read(&reader(1), 403).await;
    until_read(&reader(0), 403).await;

    // An account without a place in any configuration.
    let account = json(&cluster, 0, &["account", "create", "shop"])["id"].as_str().unwrap().to_owned();
    let create = ["token", "create", "first", "--scope", "admin:*", "--account", &account];
    let first = json(&cluster, 0, &create)["token"].as_str().unwrap().to_owned();
    let shown = ["token", "show", "--token", &first];
    let deadline = Instant::now() + HEARD_WITHIN;
    while cluster.run(1, &shown).is_err() {
        assert!(Instant::now() < deadline, "the other PoP does not hear of the account's token");
        tokio::time::sleep(PAUSE).await;
    }
    assert!(cluster.run(1, &shown).unwrap().contains(&account));

    let quota = ["kv", "namespace", "quota", &namespace, "--max-keys", "1", "--account", ACCOUNT];
    assert_eq!(json(&cluster, 0, &quota)["used"]["keys"], 1);
    let writer = cluster.rest(1, &namespace);
    let deadline = Instant::now() + HEARD_WITHIN;
    let refused = loop {
        let answer = writer.put("another", b"value".to_vec()).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
        writer.delete("another").await.unwrap();
        assert!(Instant::now() < deadline, "the other PoP does not hear of the quota");
        tokio::time::sleep(PAUSE).await;
    };
    assert_eq!((refused.status, refused.code()), (429, Some(20_012)), "{}", refused.text());
}
