//! `kill -9` under load: one node is killed again and again at random moments while writers put and delete,
//! and after each restart every acknowledged write must be there. `TEST_KILLS` sets how often.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use littoral_tests::cluster::{Cluster, Load, Options, Stopped, verify};
use littoral_tests::ledger::{Ledger, Mix};
use littoral_tests::random::Random;

/// Kills in a row where `TEST_KILLS` does not say otherwise.
const KILLS: u64 = 50;
const WRITERS: usize = 12;
const KEYS_PER_WRITER: u64 = 16;
/// Mostly small values, some that fill a row, a few in chunk files.
const MIX: Mix = Mix { sizes: &[(80, 100), (15, 2000), (4, 16 << 10), (1, 64 << 10)], delete_percent: 20 };
/// A kill comes this long after the writers have begun, at most.
const KILL_WITHIN: Duration = Duration::from_millis(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_kills_in_a_row() {
    let kills =
        std::env::var("TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("TEST_KILLS is a number"));
    let seed = Random::fresh_seed();
    println!("seed {seed}, {kills} kills");
    let mut random = Random::new(seed);
    let ledger = Arc::new(Ledger::new(seed, MIX));
    let mut cluster = Cluster::started(Options::default()).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("kills").await.unwrap();
    for kill in 1..=kills {
        // A fresh client each time: none of its connections is of the process before.
        let load = Load::start(&cluster.rest(0, &namespace), &ledger, WRITERS, KEYS_PER_WRITER);
        let moment = Duration::from_micros(random.below(KILL_WITHIN.as_micros() as u64));
        tokio::time::sleep(moment).await;
        cluster.kill9(0).unwrap();
        for stopped in load.ended().await {
            assert!(
                matches!(stopped, Stopped::Unanswered(_)),
                "kill {kill}: a writer was stopped by {stopped:?}"
            );
        }
        cluster.start(0).unwrap();
        cluster.wait_ready(0).await.unwrap();
        let verdict = verify(&cluster.rest(0, &namespace), &ledger, &ledger.acked()).await;
        verdict.assert_right(&format!("kill {kill}, {moment:?} after the writers began"));
        ledger.note_seen(&verdict.seen);
    }
    println!(
        "{} writes were acknowledged, on {} keys",
        ledger.acked().values().sum::<u64>(),
        ledger.acked().len()
    );
    assert!(!ledger.acked().is_empty(), "nothing was written");
}
