//! Large values over real processes: the files of what is gone go at every PoP, those that are shared stay, and a chunk
//! whose link is cut goes on where it was.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use littoral_tests::cluster::{ACCOUNT, Cluster, Options, Rest, TOKEN};
use serde_json::Value;

/// How soon what is awaited must come about; the grace is a second, and a node looks every second.
const WITHIN: Duration = Duration::from_secs(30);
const CHUNK_BYTES: usize = 512 << 10;

/// Bytes without a pattern that repeats.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

async fn cluster(pops: usize) -> (Cluster, String) {
    let cluster = Cluster::started(Options { pops, chunk_grace_s: 1, ..Options::default() }).await.unwrap();
    let namespace = cluster.rest(0, "").create_namespace("large").await.unwrap();
    (cluster, namespace)
}

/// The chunk files of a PoP.
fn files(cluster: &Cluster, pop: usize) -> Vec<PathBuf> {
    let inside = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let shards = inside(cluster.data_dir(pop).join("chunks"));
    shards.filter(|shard| shard.file_name().unwrap().len() == 2).flat_map(inside).collect()
}

/// Waits for a condition, and says what it last was where it does not come.
async fn until<T: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<(), T>) {
    let deadline = Instant::now() + WITHIN;
    while let Err(last) = look().await {
        assert!(Instant::now() < deadline, "{what}, not within {WITHIN:?}: {last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until each PoP has so many chunk files, and lacks none.
async fn until_files(cluster: &Cluster, pops: usize, count: usize) {
    for pop in 0..pops {
        let rest = cluster.rest(pop, "");
        until(&format!("{count} files at PoP {pop}"), async || {
            let (found, lag) = (files(cluster, pop).len(), page(&rest, "/v1/lag").await);
            if found == count && lag["chunks_missing"] == 0 { Ok(()) } else { Err((found, lag)) }
        })
        .await;
    }
}

async fn page(rest: &Rest, path: &str) -> Value {
    serde_json::from_slice(&rest.page(path).await.unwrap().body).unwrap()
}

async fn put(rest: &Rest, key: &str, value: &[u8]) {
    let answer = rest.put(key, value.to_vec()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn until_read(rest: &Rest, key: &str, value: Option<&[u8]>) {
    until(&format!("{key} as it was written"), async || match rest.read(key).await {
        Ok(found) if found.as_deref() == value => Ok(()),
        other => Err(other.map(|found| found.map(|found| found.len()))),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_files_of_what_is_gone_go_everywhere_and_those_of_other_values_stay() {
    let (cluster, namespace) = cluster(3).await;
    let rests: Vec<Rest> = (0..3).map(|pop| cluster.rest(pop, &namespace)).collect();
    // Three chunks and two, of which one is both values'.
    let first = noise(2 * CHUNK_BYTES + 5, 1);
    let second = [&first[..CHUNK_BYTES], &noise(20_000, 2)].concat();
    put(&rests[0], "first", &first).await;
    put(&rests[1], "second", &second).await;
    until_files(&cluster, 3, 4).await;
    let report = page(&rests[2], "/v1/gc").await;
    let bytes = first.len() + 20_000;
    assert_eq!(report["chunks"]["files"], 4);
    assert_eq!(report["chunks"]["bytes"], bytes, "{report}");

    put(&rests[1], "first", b"small now").await;
    until_files(&cluster, 3, 2).await;
    for rest in &rests {
        until_read(rest, "second", Some(&second)).await;
        until_read(rest, "first", Some(b"small now")).await;
    }
    assert_eq!(rests[2].delete("second").await.unwrap().status, 200);
    until_files(&cluster, 3, 0).await;
    for rest in &rests {
        until_read(rest, "second", None).await;
        let chunks = page(rest, "/v1/gc").await["chunks"].clone();
        assert_eq!((&chunks["collected"], &chunks["collected_bytes"]), (&4.into(), &bytes.into()));
    }
    let explained = cluster.run(0, &["gc", "explain"]).unwrap();
    assert!(explained.contains("4 chunk files ("), "{explained}");

    // What is written again is there again.
    put(&rests[2], "second", &second).await;
    until_files(&cluster, 3, 2).await;
    until_read(&rests[0], "second", Some(&second)).await;
}

/// The beginning of an upload that never ends.
fn begin_upload(cluster: &Cluster, namespace: &str) -> TcpStream {
    let mut upload = TcpStream::connect(cluster.http_address(0)).unwrap();
    let path = format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces/{namespace}/values/broken");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 5000000\r\n\r\n"
    );
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(&noise(3 * CHUNK_BYTES, 3)).unwrap();
    upload
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chunks_of_an_upload_that_broke_off_go() {
    let (mut cluster, namespace) = cluster(1).await;
    let kept = noise(20_000, 4);
    put(&cluster.rest(0, &namespace), "kept", &kept).await;
    for is_killed in [false, true] {
        let upload = begin_upload(&cluster, &namespace);
        until("chunks of the upload", async || match files(&cluster, 0).len() {
            3.. => Ok(()),
            fewer => Err(fewer),
        })
        .await;
        if is_killed {
            cluster.kill9(0).unwrap();
            assert!(files(&cluster, 0).len() >= 3);
            cluster.start(0).unwrap();
            cluster.wait_ready(0).await.unwrap();
        }
        drop(upload);
        until_files(&cluster, 1, 1).await;
    }
    until_read(&cluster.rest(0, &namespace), "kept", Some(&kept)).await;
}

/// Bytes of chunks that have come from PoP 0.
async fn received(rest: &Rest) -> u64 {
    let text = rest.page("/metrics").await.unwrap().text();
    let is_it = |line: &&str| {
        line.starts_with("littoral_link_received_bytes") && line.contains("bulk") && line.contains("pop-0")
    };
    let value = text.lines().find(is_it).and_then(|line| line.rsplit(' ').next());
    value.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_whose_link_is_cut_goes_on_where_it_was() {
    let (mut cluster, namespace) = cluster(2).await;
    cluster.run(0, &["link", "budget", "100kB", "--pop", "pop-1"]).unwrap();
    let value = noise(CHUNK_BYTES, 5);
    put(&cluster.rest(0, &namespace), "large", &value).await;
    let other = cluster.rest(1, &namespace);
    until("a part of the chunk", async || match received(&other).await {
        150_000.. => Ok(()),
        fewer => Err(fewer),
    })
    .await;
    let lag = page(&other, "/v1/lag").await;
    assert_eq!((&lag["chunks_missing"], &lag["chunk_bytes_missing"]), (&1.into(), &CHUNK_BYTES.into()));
    cluster.kill9(0).unwrap();
    assert!(files(&cluster, 1).is_empty(), "it was here before it was cut");
    // It comes back without a budget.
    cluster.start(0).unwrap();
    cluster.wait_ready(0).await.unwrap();
    until_read(&other, "large", Some(&value)).await;
    let received = received(&other).await;
    assert!(received < CHUNK_BYTES as u64 + 50_000, "{received} bytes of a chunk of {CHUNK_BYTES}");
}
