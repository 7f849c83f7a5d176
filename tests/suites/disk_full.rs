//! A full disk: writes are refused with the error that says so, reads go on, and when there is room again
//! writes go on too and nothing acknowledged is missing, also after a restart. The disk is a small tmpfs.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use littoral_tests::cluster::{Answer, Cluster, Load, Options, Rest, Stopped, verify};
use littoral_tests::ledger::{Acked, Ledger, Mix};
use littoral_tests::mounts::{self, Mount};
use littoral_tests::random::Random;
use serde_json::Value;

const DISK_BYTES: u64 = 192 << 20;
const LARGER_DISK_BYTES: u64 = 320 << 20;
/// `storage.min_free_bytes`: more than the load writes between two looks of the node at its free space.
const MIN_FREE_BYTES: u64 = 48 << 20;
/// Rows, and some chunk files.
const MIX: Mix = Mix { sizes: &[(10, 1000), (10, 12 << 10), (1, 128 << 10)], delete_percent: 5 };
const WRITERS: usize = 8;
/// So many that the disk fills with values rather than with old versions of few.
const KEYS_PER_WRITER: u64 = 1_000_000;
/// The HTTP status and the code of a full disk.
const FULL: (u16, Option<u64>) = (507, Some(20_002));
/// The pause between two looks at something awaited.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon writes must go on when there is room again.
const RECOVERS_WITHIN: Duration = Duration::from_secs(15);
/// How long the load goes on before something else takes the disk.
const BEFORE_THE_FILLER: Duration = Duration::from_millis(300);

/// How the disk gets full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// By what the clients write; a larger disk gives room.
    ByValues,
    /// By someone else, at once and to the last byte; removing that gives room.
    ByOthers,
}

#[test]
fn a_disk_filled_by_values_refuses_writes_until_it_is_larger() {
    check(Filled::ByValues);
}

#[test]
fn a_disk_filled_by_others_refuses_writes_until_they_are_gone() {
    check(Filled::ByOthers);
}

/// It once dropped every frame of its peers, heartbeats too: its lag stood at nothing however much it missed, and nobody
/// could tell it anything.
#[test]
fn a_pop_with_a_full_disk_hears_what_it_lacks_and_gets_it_when_there_is_room() {
    on_a_small_disk(async |disk| {
        let first_data_dir = Some(disk.folder().join("data"));
        let options =
            Options { pops: 2, first_data_dir, min_free_bytes: MIN_FREE_BYTES, ..Options::default() };
        let cluster = Cluster::started(options).await.unwrap();
        let namespace = cluster.rest(0, "").create_namespace("full").await.unwrap();
        let (full, other) = (cluster.rest(0, &namespace), cluster.rest(1, &namespace));
        put_when_possible(&full).await;
        until_has(&other, "one-more").await;
        let filler = disk.folder().join("filler");
        fill(&filler);
        until_refused(&full).await;

        assert_eq!(other.put("elsewhere", vec![2; 1000]).await.unwrap().status, 200);
        let deadline = Instant::now() + RECOVERS_WITHIN;
        loop {
            let lag: Value = serde_json::from_slice(&full.page("/v1/lag").await.unwrap().body).unwrap();
            let lacks = |lag: &Value| lag["origin"] == "pop-1" && lag["peer"] == "pop-0" && lag["ops"] != 0;
            if lag["lag"].as_array().unwrap().iter().any(lacks) {
                break;
            }
            assert!(Instant::now() < deadline, "it does not know that it lacks anything: {lag:#}");
            tokio::time::sleep(PAUSE).await;
        }
        assert_eq!(full.read("elsewhere").await.unwrap(), None);
        std::fs::remove_file(&filler).unwrap();
        until_has(&full, "elsewhere").await;
    });
}

/// Free space is looked up a few times a second, not with each write.
async fn until_refused(rest: &Rest) {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    loop {
        let answer = rest.put("one-more", vec![1; 1000]).await.unwrap();
        if answer.status != 200 {
            return assert_refused(&answer);
        }
        assert!(Instant::now() < deadline, "a full disk takes writes");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_has(rest: &Rest, key: &str) {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    while !rest.read(key).await.is_ok_and(|found| found.is_some()) {
        assert!(Instant::now() < deadline, "{key} has not come");
        tokio::time::sleep(PAUSE).await;
    }
}

fn check(filled: Filled) {
    on_a_small_disk(async |disk| fill_and_free(disk, filled).await);
}

fn on_a_small_disk(test: impl AsyncFnOnce(&Mount)) {
    if let Some(reason) = mounts::missing() {
        println!("SKIP: mounts cannot be made here: {reason}");
        return;
    }
    mounts::enter_private_mounts().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = Mount::tmpfs(DISK_BYTES, folder.path()).unwrap();
    // A runtime of its own: its threads must be in this thread's view of the mounts.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(&disk));
}

async fn fill_and_free(disk: &Mount, filled: Filled) {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let first_data_dir = Some(disk.folder().join("data"));
    let options = Options { first_data_dir, min_free_bytes: MIN_FREE_BYTES, ..Options::default() };
    let mut cluster = Cluster::started(options).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("full").await.unwrap();
    let rest = cluster.rest(0, &namespace);
    let ledger = Arc::new(Ledger::new(seed, MIX));

    let filler = disk.folder().join("filler");
    let load = Load::start(&rest, &ledger, WRITERS, KEYS_PER_WRITER);
    if filled == Filled::ByOthers {
        tokio::time::sleep(BEFORE_THE_FILLER).await;
        fill(&filler);
    }
    for stopped in load.ended().await {
        let Stopped::Refused(answer) = stopped else { panic!("a writer was stopped by {stopped:?}") };
        assert_refused(&answer);
    }
    println!("{} keys were written before the disk was full", written(&ledger).len());
    assert!(!written(&ledger).is_empty());
    assert_reads(&rest, &ledger, "while the disk is full").await;
    assert_eq!(rest.page("/healthz").await.unwrap().status, 200);
    refused_soon(&rest).await;

    match filled {
        Filled::ByValues => disk.resize_tmpfs(LARGER_DISK_BYTES).unwrap(),
        Filled::ByOthers => std::fs::remove_file(&filler).unwrap(),
    }
    put_when_possible(&rest).await;
    assert_reads(&rest, &ledger, "with room again").await;
    cluster.kill9(0).unwrap();
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    let rest = cluster.rest(0, &namespace);
    assert_reads(&rest, &ledger, "after a restart").await;
    put_when_possible(&rest).await;
}

fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, answer.code()), FULL, "{}", answer.text());
}

/// The writers may all have been stopped by large values, for which there was no room, within the fifth of a second
/// between two looks at the free space; until the next look, room set aside before takes a small one.
async fn refused_soon(rest: &Rest) {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    loop {
        let answer = rest.put("one-more", vec![1; 1000]).await.unwrap();
        if answer.status != 200 {
            return assert_refused(&answer);
        }
        assert!(Instant::now() < deadline, "writes are taken on a full disk");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn put_when_possible(rest: &Rest) {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    loop {
        let answer = rest.put("one-more", vec![1; 1000]).await.unwrap();
        if answer.status == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "still refused: {} {}", answer.status, answer.text());
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(rest.read("one-more").await.unwrap().as_deref(), Some([1; 1000].as_slice()));
}

/// The keys with an acknowledged write: most keys of this load are never touched, and those whose only
/// write was refused may be there or not.
fn written(ledger: &Ledger) -> Acked {
    ledger.acked().into_iter().filter(|(_, number)| *number > 0).collect()
}

async fn assert_reads(rest: &Rest, ledger: &Arc<Ledger>, when: &str) {
    verify(rest, ledger, &written(ledger)).await.assert_right(when);
}

/// Writes until there is no byte left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece_bytes in [64 << 10, 4 << 10, 1] {
        let piece = vec![0xff; piece_bytes];
        while file.write_all(&piece).is_ok() {}
    }
}
