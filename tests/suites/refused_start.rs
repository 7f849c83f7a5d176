//! Starts that must not go well: a data folder in use, a port in use, a store that was damaged while the
//! node was down. The first two end the process with a reason; a damaged store is never served as if rows
//! that are missing had never been there.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::fs::{File, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use littoral_tests::cluster::{Cluster, Load, Options, copy_folder, verify, wait_exit};
use littoral_tests::ledger::{Ledger, Mix};
use littoral_tests::random::Random;

/// How soon a start that cannot go well must end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Small values only: all rows are in the file that is damaged.
const MIX: Mix = Mix { sizes: &[(1, 100), (1, 2000)], delete_percent: 10 };
const WRITERS: usize = 8;
const KEYS_PER_WRITER: u64 = 40;
const WRITE_TIME: Duration = Duration::from_millis(500);
/// More than a row takes: it goes to a chunk file.
const LARGE_VALUE_BYTES: usize = 100_000;
/// How long after a write its loss must be noticed at the next start, without a clean stop between.
const NOTICED_AFTER: Duration = Duration::from_secs(3);

/// Starts a second process, which must end with an error that has all of these words.
fn assert_ends(cluster: &Cluster, words: &[&str]) {
    let logged_before = cluster.log(0).len();
    let mut process = cluster.spawn(0, &[]).unwrap();
    let status = wait_exit(&mut process, ENDS_WITHIN);
    // A process that goes on must not outlive the test.
    let _ = process.kill();
    let _ = process.wait();
    let said = cluster.log(0)[logged_before..].to_owned();
    assert!(!status.expect(&said).success(), "it ended as if all were well: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in what it said: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn a_data_folder_in_use_is_refused_and_its_owner_goes_on() {
    let mut cluster = Cluster::started(Options::default()).await.unwrap();
    let owner = cluster.rest(0, "");
    cluster.move_ports(0).unwrap();
    assert_ends(&cluster, &[cluster.data_dir(0).to_str().unwrap()]);
    assert_eq!(owner.page("/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_refused() {
    let cluster = Cluster::new(Options::default()).unwrap();
    let http = TcpListener::bind(cluster.http_address(0)).unwrap();
    assert_ends(&cluster, &[&cluster.http_address(0).to_string()]);
    drop(http);
    let _replication = UdpSocket::bind(cluster.replication_address(0)).unwrap();
    assert_ends(&cluster, &[&cluster.replication_address(0).to_string()]);
}

/// What is done to the largest file of the store.
#[derive(Clone, Copy, Debug)]
enum Damage {
    CutToPercent(u64),
    FlipBytes(u64),
    Remove,
}

/// How the node went down before its store was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Stopped,
    /// With SIGKILL, some time after the last write.
    Killed,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_damaged_after_a_stop_is_never_served_as_if_rows_had_never_been_there() {
    check_damage(Down::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_damaged_after_a_kill_is_never_served_as_if_rows_had_never_been_there() {
    check_damage(Down::Killed).await;
}

async fn check_damage(down: Down) {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let damages = [
        Damage::CutToPercent(0),
        Damage::CutToPercent(50),
        Damage::CutToPercent(99),
        Damage::FlipBytes(1),
        Damage::FlipBytes(20),
        Damage::FlipBytes(500),
        Damage::Remove,
    ];
    let mut cluster = Cluster::started(Options::default()).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("damage").await.unwrap();
    let ledger = Arc::new(Ledger::new(seed, MIX));
    let load = Load::start(&cluster.rest(0, &namespace), &ledger, WRITERS, KEYS_PER_WRITER);
    tokio::time::sleep(WRITE_TIME).await;
    load.stop().await;
    match down {
        Down::Stopped => {
            assert!(cluster.stop(0).unwrap().success(), "it did not stop cleanly: {}", cluster.log(0));
        }
        Down::Killed => {
            // Damage that takes the store back to before this cannot be told from a kill at that time.
            tokio::time::sleep(NOTICED_AFTER).await;
            cluster.kill9(0).unwrap();
        }
    }

    let healthy = cluster.data_dir(0).to_owned();
    for damage in damages {
        let damaged = healthy.with_file_name(format!("{damage:?}"));
        copy_folder(&healthy, &damaged).unwrap();
        harm(&largest_file(&damaged), damage, &mut random);
        cluster.move_data(0, damaged).unwrap();
        cluster.start(0).unwrap();
        check_damaged(&mut cluster, &namespace, &ledger, damage).await;
        cluster.kill9(0).unwrap();
    }
}

/// It once kept the node from starting at all, without a word of what to do.
#[tokio::test]
async fn a_torn_checkpoint_is_damage_like_any_other() {
    let mut cluster = Cluster::started(Options::default()).await.unwrap();
    assert!(cluster.stop(0).unwrap().success());
    std::fs::write(cluster.data_dir(0).join("checkpoint.json"), "{").unwrap();
    cluster.start(0).unwrap();
    let refused = cluster.wait_answer(0, "/readyz", |status| status == 503).await.unwrap().unwrap();
    assert!(refused.text().contains("checkpoint") && refused.text().contains("store rebuild"), "{refused:?}");
}

#[tokio::test]
async fn a_value_whose_chunk_is_damaged_is_neither_served_nor_said_to_be_absent() {
    let mut cluster = Cluster::started(Options::default()).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("chunks").await.unwrap();
    let put = cluster.rest(0, &namespace).put("large", vec![7; LARGE_VALUE_BYTES]).await.unwrap();
    assert_eq!(put.status, 200, "{}", put.text());
    cluster.kill9(0).unwrap();
    harm(&largest_file(&cluster.data_dir(0).join("chunks")), Damage::FlipBytes(1), &mut Random::new(1));
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    let answer = cluster.rest(0, &namespace).read_raw("large").await.unwrap();
    assert_eq!(answer.status, 503, "{} bytes", answer.body.len());
}

/// Either the node is quarantined, or every row is right: bytes flipped where nothing is stored harm
/// nobody.
async fn check_damaged(cluster: &mut Cluster, namespace: &str, ledger: &Arc<Ledger>, damage: Damage) {
    cluster.wait_answer(0, "/healthz", |status| status == 200).await.unwrap().unwrap();
    let ready = cluster.wait_answer(0, "/readyz", |_| true).await.unwrap().unwrap();
    let rest = cluster.rest(0, namespace);
    println!("{damage:?}: /readyz says {} {}", ready.status, ready.text());
    if ready.status == 200 {
        return verify(&rest, ledger, &ledger.acked())
            .await
            .assert_right(&format!("{damage:?}, and it serves"));
    }
    assert_eq!(ready.status, 503, "{damage:?}: {}", ready.text());
    assert!(ready.text().contains("store"), "{damage:?}: no reason given: {}", ready.text());
    for key in ledger.acked().keys() {
        let answer = rest.read_raw(key).await.unwrap();
        assert_eq!(answer.status, 503, "{damage:?}: {key}: {}", answer.text());
    }
    assert_eq!(rest.put("a-write", vec![1; 100]).await.unwrap().status, 503, "{damage:?}");
}

fn harm(file: &Path, damage: Damage, random: &mut Random) {
    let bytes = file.metadata().unwrap().len();
    match damage {
        Damage::CutToPercent(percent) => {
            OpenOptions::new().write(true).open(file).unwrap().set_len(bytes * percent / 100).unwrap();
        }
        Damage::FlipBytes(count) => {
            let file = File::options().read(true).write(true).open(file).unwrap();
            let used = used_bytes(&file, bytes);
            for _ in 0..count {
                let at = random.below(used);
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
            }
        }
        Damage::Remove => std::fs::remove_file(file).unwrap(),
    }
}

/// The store lays its file out in advance: where its last byte that is not zero ends.
fn used_bytes(file: &File, bytes: u64) -> u64 {
    let mut content = vec![0; bytes as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content.iter().rposition(|byte| *byte != 0).map_or(bytes, |last| last as u64 + 1)
}

fn largest_file(folder: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push((entry.metadata().unwrap().len(), entry.path()));
            }
        }
    }
    files.into_iter().max().expect("a store has files").1
}
