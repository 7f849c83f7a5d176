//! Copies of a document in apps, at two PoPs: what each lacks goes over, once, and edits meet.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT, ReadDoc};
use config::Peer;
use littoral::Doc;
use littoral_node::embedded::{Embedded, alone};
use littoral_node::identity::{init_node, join_token};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// Two PoPs, and one document at each.
struct Pops {
    nodes: [Embedded; 2],
    docs: [Doc; 2],
    _folders: [TempDir; 2],
}

async fn pops() -> Pops {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let one = Embedded::open(alone(folders[0].path()).unwrap()).await.unwrap();
    tokio::time::timeout(WITHIN, one.ready()).await.unwrap();
    let mut config = alone(folders[1].path()).unwrap();
    config.node.pop = "other".parse().unwrap();
    config.node.identity_dir = folders[1].path().join("other");
    let token = join_token(&folders[0].path().join("cluster"), "other", WITHIN).unwrap();
    init_node(&config.node.identity_dir, &token).unwrap();
    let address = one.quic_address().unwrap().to_string();
    config.replication.peers = vec![Peer::new("embedded".parse().unwrap(), address)];
    let kv = one.account(ACCOUNT).namespace_titled("test").await.unwrap();
    let two = Embedded::open(config).await.unwrap();
    tokio::time::timeout(WITHIN, two.ready()).await.unwrap();
    let other = two.account(ACCOUNT).namespace(kv.id());
    Pops { docs: [kv.doc("page"), other.doc("page")], nodes: [one, two], _folders: folders }
}

impl Pops {
    async fn close(self) {
        for node in self.nodes {
            node.close().await.unwrap();
        }
    }
}

async fn says(doc: &Doc) -> Option<Json> {
    doc.get().await.unwrap()
}

async fn until_it_says(doc: &Doc, expected: Json) {
    let waiting = async {
        while says(doc).await.as_ref() != Some(&expected) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(WITHIN, waiting).await.is_ok(), "{:?} is not {expected}", says(doc).await);
}

#[tokio::test]
async fn edits_of_copies_at_two_pops_meet() {
    let pops = pops().await;
    let [one, two] = &pops.docs;
    let (mut anns, mut bens) = (AutoCommit::new(), AutoCommit::new());
    assert_eq!(one.pull(&mut anns).await.unwrap(), 0, "there is no document");
    assert_eq!(one.push(&mut anns).await.unwrap().receipt, None, "there is nothing to push");
    assert_eq!(says(one).await, None);

    anns.put(ROOT, "a", 1).unwrap();
    let written = one.push(&mut anns).await.unwrap();
    assert!(written.receipt.is_some());
    assert_eq!(written.heads, [anns.get_heads()[0].to_string()]);
    until_it_says(two, json!({"a": 1})).await;
    assert_eq!(two.pull(&mut bens).await.unwrap(), 1);

    // Both edit before either hears of the other.
    anns.put(ROOT, "b", 2).unwrap();
    bens.put(ROOT, "c", 3).unwrap();
    one.push(&mut anns).await.unwrap();
    two.push(&mut bens).await.unwrap();
    let all = json!({"a": 1, "b": 2, "c": 3});
    for (doc, copy) in [(one, &mut anns), (two, &mut bens)] {
        until_it_says(doc, all.clone()).await;
        assert_eq!(doc.pull(copy).await.unwrap(), 1);
        assert_eq!(doc.pull(copy).await.unwrap(), 0, "it lacks nothing");
        let again = doc.push(copy).await.unwrap();
        assert_eq!((again.receipt, again.heads.len()), (None, 2), "nothing is sent");
        assert_eq!(copy.keys(ROOT).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
    pops.close().await;
}

#[tokio::test]
async fn a_copy_that_was_away_for_long_sends_what_is_new_and_takes_what_is_new() {
    const BEFORE: usize = 300;
    const AWAY: usize = 1_200;
    let pops = pops().await;
    let [one, _] = &pops.docs;
    let (mut anns, mut bens) = (AutoCommit::new(), AutoCommit::new());
    let edit = |copy: &mut AutoCommit, who: &str, edits: usize| {
        for n in 0..edits {
            copy.put(ROOT, who, n as i64).unwrap();
            copy.commit();
        }
    };
    edit(&mut anns, "ann", BEFORE);
    one.push(&mut anns).await.unwrap();
    assert_eq!(one.pull(&mut bens).await.unwrap(), BEFORE);
    // More than fits one request; meanwhile somebody else has edited.
    edit(&mut anns, "ann", AWAY);
    edit(&mut bens, "ben", 10);
    one.push(&mut bens).await.unwrap();
    // With changes of its own that the PoP does not know, it is told what it lacks all the same.
    assert_eq!(one.pull(&mut anns).await.unwrap(), 10);
    let written = one.push(&mut anns).await.unwrap();
    assert!(written.receipt.is_some());
    assert_eq!(says(one).await, Some(json!({"ann": AWAY - 1, "ben": 9})));
    assert_eq!(one.pull(&mut bens).await.unwrap(), AWAY);
    assert_eq!(one.history(None, 1_000).await.unwrap().changes.len(), 1_000);
    pops.close().await;
}

#[tokio::test]
async fn changes_whose_document_was_deleted_make_it_anew() {
    let pops = pops().await;
    let [one, _] = &pops.docs;
    let mut copy = AutoCommit::new();
    copy.put(ROOT, "a", 1).unwrap();
    one.push(&mut copy).await.unwrap();
    one.delete().await.unwrap();
    assert_eq!(one.pull(&mut copy).await.unwrap(), 0);
    copy.put(ROOT, "b", 2).unwrap();
    one.push(&mut copy).await.unwrap();
    assert_eq!(says(one).await, Some(json!({"a": 1, "b": 2})));
    pops.close().await;
}

/// A PoP is asked for 100 changes at once, and a copy may have more that nothing was made on top of.
#[tokio::test]
async fn a_copy_that_many_have_edited_at_once_is_pushed_once() {
    let pops = pops().await;
    let kv = pops.nodes[0].account(ACCOUNT).namespace_titled("test").await.unwrap();
    for heads in [99, 100, 101] {
        let doc = kv.doc(&format!("by {heads}"));
        let mut copy = AutoCommit::new();
        for n in 0..heads {
            let mut one = AutoCommit::new();
            one.put(ROOT, format!("{n}"), n).unwrap();
            copy.merge(&mut one).unwrap();
        }
        assert_eq!(copy.get_heads().len(), heads as usize);
        assert!(doc.push(&mut copy).await.unwrap().receipt.is_some());
        assert_eq!(doc.push(&mut copy).await.unwrap().receipt, None, "{heads}: nothing is sent");
        assert_eq!(doc.pull(&mut copy).await.unwrap(), 0, "{heads}: nothing is taken");
        // Of one more edit, only that.
        copy.put(ROOT, "more", true).unwrap();
        assert!(doc.push(&mut copy).await.unwrap().receipt.is_some());
        let mut fresh = AutoCommit::new();
        assert_eq!(doc.pull(&mut fresh).await.unwrap(), heads as usize + 1);
    }
    pops.close().await;
}
