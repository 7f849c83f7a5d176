//! Documents: each call, its limits, and what it answers.

mod client;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};
use littoral_node::engine::{Ack, Write};
use replication::doc::rows;
use replication::{Change, EntryId, Kind};
use serde_json::{Value as Json, json};

use super::client::Answer;
use super::kinds::{assert_fits, assert_problem, receipt};
use super::{DOCUMENTS, TestNode, now_s, test_node};

const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");
const PATCH: (&str, &str) = ("Content-Type", "application/json-patch+json; charset=utf-8");

impl TestNode {
    async fn doc_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        self.client.send(method, &self.kinds_path(&format!("/docs{path}")), headers, body.as_ref()).await
    }

    async fn doc(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.doc_with(method, path, &[], body).await
    }

    async fn merge(&self, key: &str, patch: Json) -> Answer {
        self.doc_with("PATCH", &format!("/{key}"), &[MERGE], patch.to_string()).await
    }

    async fn patch(&self, key: &str, patch: Json) -> Answer {
        self.doc_with("PATCH", &format!("/{key}"), &[PATCH], patch.to_string()).await
    }

    async fn shown(&self, key: &str) -> Json {
        let answer = self.doc("GET", &format!("/{key}"), "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Stores a change as one that has come from another PoP is: past what is in memory.
    async fn store(&self, key: &str, change: &[u8]) {
        let namespace = self.id().parse().unwrap();
        let whole = EntryId::whole(namespace, Kind::Doc, key.to_owned());
        let put = |(element, content)| Write::Change {
            id: EntryId { element, ..whole.clone() },
            change: Change::Put(content),
        };
        let parts = rows(&change.to_vec().into()).unwrap();
        self.running.engine.write(parts.into_iter().map(put).collect(), Ack::Durable).await.unwrap();
    }
}

fn etag(answer: &Answer) -> &str {
    answer.header("etag").expect("it names a state")
}

fn heads(answer: &Answer) -> String {
    answer.header("littoral-heads").expect("it names heads").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_put_patched_listed_and_deleted() {
    let node = test_node().await;
    assert_problem(&node.doc("GET", "/d", "").await, 404, 10009, "no such document");
    let first = node.doc("PUT", "/d", r#"{"a":[1,2],"t":{"$text":"hello"}}"#).await;
    receipt(&first);
    assert_eq!(first.json()["heads"], json!([heads(&first)]));
    assert_eq!(node.shown("d").await, json!({"a": [1, 2], "t": "hello"}));

    let merged = node.merge("d", json!({"b": {"c": 1}, "a": null})).await;
    assert!(receipt(&first) < receipt(&merged), "{merged:?}");
    let patch = json!([{"op": "splice", "path": "/t", "position": 5, "insert": "!"},
        {"op": "add", "path": "/b/d", "value": [true]}]);
    receipt(&node.patch("d", patch).await);
    assert_eq!(node.shown("d").await, json!({"b": {"c": 1, "d": [true]}, "t": "hello!"}));
    let part = node.doc("GET", "/d?pointer=/b/d/0", "").await;
    assert_eq!((part.status, part.json()), (200, json!(true)));
    assert_problem(&node.doc("GET", "/d?pointer=/b/x", "").await, 404, 10009, "nothing at \"/b/x\"");
    assert_problem(&node.doc("GET", "/d?pointer=b", "").await, 400, 10021, "no JSON pointer");
    let same = node.merge("d", json!({"b": {"c": 1.0}})).await;
    assert_eq!(
        (same.status, &same.json()["receipt"], same.header("littoral-receipt")),
        (200, &Json::Null, None)
    );

    // What is there, is there after a restart, and can be edited on.
    let node = node.restart(0).await;
    receipt(&node.merge("d", json!({"t": "hullo!"})).await);
    assert_eq!(node.shown("d").await["t"], "hullo!");
    receipt(&node.doc("PUT", "/e", "{}").await);
    assert_eq!(node.shown("e").await, json!({}));
    let listed = node.doc("GET", "?prefix=", "").await.json();
    let names: Vec<_> = listed["keys"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["d", "e"]);

    receipt(&node.doc("DELETE", "/d", "").await);
    receipt(&node.doc("DELETE", "/d", "").await);
    assert_problem(&node.doc("GET", "/d", "").await, 404, 10009, "no such document");
    receipt(&node.merge("d", json!({"new": 1})).await);
    assert_eq!(node.shown("d").await, json!({"new": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_along_with_a_document_can_be_read_and_taken_away() {
    let node = test_node().await;
    node.doc("PUT", "/d?expiration_ttl=1000", r#"{"a":1}"#).await;
    assert_problem(&node.doc("GET", "/d/metadata", "").await, 404, 10009, "no such metadata");
    receipt(&node.doc("PUT", "/d/metadata", r#" {"of": 1.0} "#).await);
    let metadata = node.doc("GET", "/d/metadata", "").await;
    assert_eq!(String::from_utf8_lossy(&metadata.body), r#"{"of":1.0}"#);
    let listed = node.doc("GET", "", "").await.json();
    assert_eq!(listed["keys"][0]["metadata"], json!({"of": 1.0}));
    let shown = node.doc("GET", "/d", "").await;
    let at_s: u64 = shown.header("expiration").unwrap().parse().unwrap();
    assert!((now_s() + 990..=now_s() + 1000).contains(&at_s), "{shown:?}");
    receipt(&node.doc("DELETE", "/d/metadata", "").await);
    assert_eq!(node.doc("GET", "/d/metadata", "").await.status, 404);
    assert_eq!(node.shown("d").await, json!({"a": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_patch_changes_nothing_and_says_what_and_where() {
    let node = test_node().await;
    node.doc("PUT", "/d", r#"{"a":[1],"s":"x"}"#).await;
    let patch =
        json!([{"op": "add", "path": "/new", "value": 1}, {"op": "test", "path": "/s", "value": "y"}]);
    assert_problem(&node.patch("d", patch).await, 409, 20031, "operation 1 (counted from 0)");
    let patch = json!([{"op": "remove", "path": "/none"}]);
    assert_problem(&node.patch("d", patch).await, 409, 20031, "nothing at \"/none\"");
    assert_problem(&node.patch("d", json!([{"op": "x", "path": ""}])).await, 400, 10021, "not \"x\"");
    assert_problem(&node.patch("d", json!({})).await, 400, 10021, "list of operations");
    assert_problem(&node.merge("d", json!([1])).await, 400, 10021, "a JSON object, not a list");
    assert_problem(&node.doc("PUT", "/d", "[]").await, 400, 10021, "a JSON object, not a list");
    assert_problem(&node.doc("PUT", "/d", "{").await, 400, 6008, "parse request body as JSON");
    assert_problem(&node.doc("PATCH", "/d", "{}").await, 415, 20032, "application/merge-patch+json");
    assert_problem(&node.doc("PUT", "/d?ack=maybe", "{}").await, 400, 10021, "durable or buffered");
    assert_problem(&node.doc("POST", "/d", "{}").await, 405, 10405, "GET, PUT, PATCH, DELETE");
    for (len, fits) in [(1_024, true), (1_025, false)] {
        let path = format!("/d?message={}", "m".repeat(len));
        assert_fits(&node.doc("PUT", &path, r#"{"a":[1],"s":"x"}"#).await, fits, 400, 10021, "1024 bytes");
    }
    assert_eq!(node.shown("d").await, json!({"a": [1], "s": "x"}));
    // It goes on after that.
    receipt(&node.merge("d", json!({"s": "z"})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_for_one_state_only() {
    let node = test_node().await;
    let only_new = [("If-None-Match", "*")];
    let first = node.doc_with("PUT", "/d", &only_new, r#"{"n":1}"#).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_problem(
        &node.doc_with("PUT", "/d", &only_new, "{}").await,
        412,
        20020,
        "is not one that this request is for",
    );
    let tag = etag(&first).to_owned();
    assert_eq!(etag(&node.doc("GET", "/d", "").await), tag);
    let known = node.doc_with("GET", "/d", &[("If-None-Match", &tag)], "").await;
    assert_eq!((known.status, known.body.len(), etag(&known)), (304, 0, &*tag));

    let for_it = [MERGE, ("If-Match", &tag)];
    let second = node.doc_with("PATCH", "/d", &for_it, r#"{"n":2}"#).await;
    assert_eq!(second.status, 200, "{second:?}");
    let stale = node.doc_with("PATCH", "/d", &for_it, r#"{"n":3}"#).await;
    assert_problem(&stale, 412, 20020, "is not one that this request is for");
    assert_eq!(etag(&stale), etag(&second));
    assert_problem(&node.doc_with("DELETE", "/d", &[("If-Match", &tag)], "").await, 412, 20020, "");
    assert_eq!(node.doc_with("GET", "/d", &[("If-None-Match", &tag)], "").await.json(), json!({"n": 2}));
    assert_eq!(node.doc_with("DELETE", "/d", &[("If-Match", etag(&second))], "").await.status, 200);
}

/// Each reads, adds one, and writes for what it has read, until that is done.
#[tokio::test(flavor = "multi_thread")]
async fn of_edits_for_one_state_one_is_done() {
    let node = test_node().await;
    node.doc("PUT", "/d", r#"{"n":0}"#).await;
    let add = async || {
        loop {
            let read = node.doc("GET", "/d", "").await;
            let n = read.json()["n"].as_i64().unwrap() + 1;
            let headers = [MERGE, ("If-Match", etag(&read))];
            match node.doc_with("PATCH", "/d", &headers, json!({"n": n}).to_string()).await.status {
                200 => return,
                status => assert_eq!(status, 412),
            }
        }
    };
    let adding = (0..8).map(|_| async {
        for _ in 0..5 {
            add().await;
        }
    });
    futures_util::future::join_all(adding).await;
    assert_eq!(node.shown("d").await, json!({"n": 40}));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_former_states_can_be_read() {
    let node = test_node().await;
    let first = node.doc("PUT", "/d?message=begin", r#"{"n":1}"#).await;
    let second = node.merge("d", json!({"n": 2})).await;
    node.merge("d", json!({"n": 3})).await;
    let all = node.doc("GET", "/d/history", "").await.json();
    let changes = all["changes"].as_array().unwrap();
    assert_eq!((changes.len(), &all["next_after"]), (3, &Json::Null));
    assert_eq!((&changes[0]["message"], &changes[0]["hash"]), (&json!("begin"), &json!(heads(&first))));
    assert_eq!(changes[1]["deps"], json!([heads(&first)]));
    assert!(changes[2]["time"].as_u64().unwrap().abs_diff(now_s()) < 60);
    let page = node.doc("GET", "/d/history?limit=1", "").await.json();
    assert_eq!(page["next_after"], json!(heads(&first)));
    let next = node.doc("GET", &format!("/d/history?limit=1&after={}", heads(&first)), "").await.json();
    assert_eq!(next["changes"][0], changes[1]);
    assert_problem(&node.doc("GET", "/d/history?limit=0", "").await, 400, 10021, "limit must be");

    let former = node.doc("GET", &format!("/d?heads={}", heads(&second)), "").await;
    assert_eq!((former.json(), etag(&former)), (json!({"n": 2}), etag(&second)));
    let unknown = format!("/d?heads={}", "0".repeat(64));
    assert_problem(&node.doc("GET", &unknown, "").await, 409, 20030, "not known here");
    assert_problem(&node.doc("GET", "/d?heads=x", "").await, 400, 10021, "64 hexadecimal digits");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_changes_make_the_same_document_elsewhere_and_come_back() {
    let node = test_node().await;
    node.doc("PUT", "/d", r#"{"t":{"$text":"hello"},"n":1}"#).await;
    let raw = node.doc("GET", "/d/changes", "").await;
    assert_eq!(raw.header("content-type"), Some("application/octet-stream"));
    let mut copy = AutoCommit::load(&raw.body).unwrap();
    let (_, text) = copy.get(ROOT, "t").unwrap().unwrap();
    copy.splice_text(&text, 5, 0, " there").unwrap();
    copy.commit();
    copy.put(ROOT, "n", 2).unwrap();
    let since = heads(&raw);
    let mine = copy.save_after(&[since.parse().unwrap()]);
    // Meanwhile somebody edits it here.
    node.merge("d", json!({"t": "Hello"})).await;
    let taken = node.doc("POST", "/d/changes", &mine).await;
    receipt(&taken);
    assert_eq!(node.shown("d").await, json!({"t": "Hello there", "n": 2}));
    let again = node.doc("POST", "/d/changes", &mine).await;
    assert_eq!((again.status, &again.json()["receipt"]), (200, &Json::Null));
    let rest = node.doc("GET", &format!("/d/changes?since={since}"), "").await;
    copy.load_incremental(&rest.body).unwrap();
    assert_eq!(heads(&rest), heads(&taken));
    assert_eq!(copy.text(&text).unwrap(), "Hello there");

    let changes: Vec<_> = copy.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect();
    let needed = copy.get_changes(&[])[0].hash().to_string();
    assert_problem(&node.doc("POST", "/new/changes", &changes[1]).await, 409, 20030, &needed);
    for bad in [&b"no changes"[..], &changes[0][..30], &copy.save()] {
        assert_problem(&node.doc("POST", "/new/changes", bad).await, 400, 10021, "cannot be taken");
    }
    assert_eq!(node.doc("GET", "/new", "").await.status, 404);
    receipt(&node.doc("POST", "/new/changes", changes.concat()).await);
    assert_eq!(node.shown("new").await, node.shown("d").await);
}

/// What another PoP has written is there at the next reading, also where the document was in memory, in pieces or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_elsewhere_reaches_a_document_in_memory() {
    let node = test_node().await;
    node.doc("PUT", "/d", r#"{"n":1}"#).await;
    let base = node.doc("GET", "/d/changes", "").await.body;
    let mut other = AutoCommit::load(&base).unwrap();
    for (key, len) in [("small", 10), ("large", 40_000)] {
        let noise: String = super::noise(len).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        other.put(ROOT, key, &noise).unwrap();
        let change = other.get_last_local_change().unwrap();
        node.store("d", change.raw_bytes()).await;
        assert_eq!(node.shown("d").await[key], json!(noise));
    }
    // At one place, at once.
    let before = heads(&node.doc("GET", "/d", "").await);
    node.merge("d", json!({"n": 2})).await;
    other.put(ROOT, "n", 3).unwrap();
    node.store("d", other.get_last_local_change().unwrap().raw_bytes()).await;
    let conflicts = node.doc("GET", "/d/conflicts?pointer=/n", "").await.json();
    let values = conflicts["values"].as_array().unwrap();
    let mut seen: Vec<_> = values.iter().map(|value| value["value"].as_i64().unwrap()).collect();
    assert_eq!(values.last().unwrap()["value"], node.shown("d").await["n"]);
    seen.sort_unstable();
    assert_eq!(seen, [2, 3]);
    assert_eq!(heads(&node.doc("GET", "/d", "").await).split(',').count(), 2);
    assert_problem(&node.doc("GET", "/d/conflicts", "").await, 400, 10021, "give a pointer");
    assert_problem(&node.doc("GET", "/d/conflicts?pointer=/none", "").await, 404, 10009, "");
    let former = node.doc("GET", &format!("/d?heads={before}&pointer=/n"), "").await;
    assert_eq!(former.json(), json!(1));
}

/// What follows on changes that have not come yet is not "no such document".
#[tokio::test(flavor = "multi_thread")]
async fn a_document_whose_beginning_is_on_its_way_is_not_called_missing() {
    let node = test_node().await;
    let mut other = AutoCommit::new();
    other.put(ROOT, "a", 1).unwrap();
    let first = other.get_last_local_change().unwrap().raw_bytes().to_vec();
    other.put(ROOT, "a", 2).unwrap();
    node.store("d", other.get_last_local_change().unwrap().raw_bytes()).await;
    assert_problem(&node.doc("GET", "/d", "").await, 503, 20005, "on its way");
    assert_problem(&node.merge("d", json!({"a": 3})).await, 503, 20005, "on its way");
    node.store("d", &first).await;
    assert_eq!(node.shown("d").await, json!({"a": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_has_limits_and_says_which() {
    let node = test_node().await;
    let noise: String = super::noise(100_000).iter().map(|byte| char::from(b'!' + byte % 90)).collect();
    let noise = noise.replace(['"', '\\'], "x");
    let large = node.doc("PUT", "/d", json!({"s": noise}).to_string()).await;
    assert_problem(&large, 413, 10030, "documents.max_bytes: 65536");
    let many = node
        .doc("PUT", "/d", json!({"t": {"$text": "x".repeat(DOCUMENTS.max_ops as usize)}}).to_string())
        .await;
    assert_problem(&many, 413, 10030, "documents.max_ops: 20000");
    assert_eq!(node.doc("GET", "/d", "").await.status, 404);
    let deep =
        |depth: usize| format!("{}{}", r#"{"a":"#.repeat(depth), format_args!("1{}", "}".repeat(depth)));
    for (depth, fits) in [(120, true), (121, false)] {
        assert_fits(&node.doc("PUT", "/deep", deep(depth)).await, fits, 400, 10021, "deeper than 120 levels");
    }
    let body = vec![b' '; (8 << 20) + 1];
    assert_problem(&node.doc("PUT", "/d", &body).await, 413, 20010, "exceeds 8388608 bytes");
}

/// The memory for documents is small here: many are loaded again and again.
#[tokio::test(flavor = "multi_thread")]
async fn more_documents_than_memory_holds_are_all_there() {
    let node = test_node().await;
    let text = "x".repeat(8_000);
    for n in 0..12 {
        let body = json!({"n": n, "t": {"$text": text}}).to_string();
        receipt(&node.doc("PUT", &format!("/{n}"), body).await);
    }
    for round in 0..2 {
        for n in 0..12 {
            receipt(&node.merge(&n.to_string(), json!({"n": n + 100 * (round + 1)})).await);
        }
    }
    for n in 0..12 {
        assert_eq!(node.shown(&n.to_string()).await, json!({"n": n + 200, "t": text}));
    }
}
