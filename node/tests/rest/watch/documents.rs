//! Documents in a watch: each once in a snapshot, and then by their changes.

use automerge::{AutoCommit, ReadDoc};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");

impl TestNode {
    async fn docs(&self, method: &str, page: &str, headers: &[(&str, &str)], body: Json) {
        let path = format!("/v1/accounts/{ACCOUNT}/namespaces/{}/docs/{page}", self.namespace());
        let answer = self.client.send(method, &path, headers, body.to_string().as_bytes()).await;
        assert!(answer.status < 300, "{method} {page}: {answer:?}");
    }

    async fn entitle(&self, key: &str, title: &str) {
        self.docs("PATCH", key, &[MERGE], json!({ "title": title })).await;
    }
}

/// Takes the changes in these events into a copy, and gives its title then.
fn title(copy: &mut AutoCommit, events: &[Json]) -> String {
    for event in events {
        let change = STANDARD.decode(event["change_base64"].as_str().unwrap()).unwrap();
        copy.load_incremental(&change).unwrap();
    }
    assert!(copy.get_missing_deps(&[]).is_empty());
    copy.get(automerge::ROOT, "title").unwrap().unwrap().0.into_string().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_by_what_a_watch_tells() {
    let node = test_node().await;
    let mut watch = node.watch("snapshot=false&kind=doc&key=page").await;
    watch.until("sync").await;
    node.docs("PUT", "page", &[], json!({ "title": "one" })).await;
    let mut copy = AutoCommit::new();
    assert_eq!(title(&mut copy, &[watch.next().await]), "one");
    let (cursor, mut behind) = (watch.cursor.clone().unwrap(), copy.fork());
    for number in ["two", "three"] {
        node.entitle("page", number).await;
        assert_eq!(title(&mut copy, &[watch.next().await]), number);
    }
    // From a cursor on come the changes since, no others.
    let mut resumed = node.watch(&format!("kind=doc&key=page&cursor={cursor}")).await;
    let missed = resumed.until("sync").await;
    assert_eq!(missed.len(), 2);
    assert_eq!(title(&mut behind, &missed), "three");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_tells_once_of_a_document_that_is_there() {
    let node = test_node().await;
    for page in ["a", "b", "gone"] {
        node.docs("PUT", page, &[], json!({ "title": 0 })).await;
        for title in ["1", "2", "3"] {
            node.entitle(page, title).await;
        }
    }
    node.docs("PUT", "a/metadata", &[], json!({ "by": "Ann" })).await;
    node.docs("DELETE", "gone", &[], Json::Null).await;
    let mut watch = node.watch("").await;
    let snapshot = watch.until("sync").await;
    let told: Vec<_> = snapshot.iter().map(brief).collect();
    assert_eq!(told, ["describe doc a {\"by\":\"Ann\"}", "put doc a", "put doc b"]);
    // The document is to be read: one change would not make it.
    assert!(snapshot.iter().all(|event| event.get("change_base64").is_none()), "{snapshot:?}");
    node.docs("DELETE", "b", &[], Json::Null).await;
    assert_eq!(watch.brief(1).await, ["clear doc b"]);
    node.docs("PUT", "b", &[], json!({ "title": "anew" })).await;
    let put = watch.next().await;
    assert_eq!(brief(&put), "put doc b");
    assert_eq!(title(&mut AutoCommit::new(), &[put]), "anew");
}

/// A change that takes more than a row is told of without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_change_is_told_of_and_not_told() {
    let node = test_node().await;
    let mut watch = node.watch("").await;
    watch.until("sync").await;
    let text: String = noise(40_000).iter().map(|byte| char::from(b'!' + byte % 90)).collect();
    node.docs("PUT", "large", &[], json!({ "text": text })).await;
    let put = watch.next().await;
    assert_eq!((brief(&put).as_str(), put.get("change_base64")), ("put doc large", None));
}
