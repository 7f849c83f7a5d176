//! The Rust client's documents, against a node.

use littoral::{ChangeOptions, Client, DocOptions, Error};
use serde_json::{Value as Json, json};

use super::super::{ACCOUNT, TOKEN, test_node};

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_edits_reads_and_carries_changes() {
    let node = test_node().await;
    let client = Client::new(&format!("http://{}", node.running.address), TOKEN).unwrap();
    let kv = client.account(ACCOUNT).namespace(node.id());
    let doc = kv.doc("a/b ü");
    assert_eq!(doc.get::<Json>().await.unwrap(), None);
    let said = |message: &str| DocOptions { message: Some(message.into()), ..DocOptions::default() };
    let only_new = DocOptions { change: ChangeOptions::default().if_absent(), ..said("begin") };
    let first = doc.put_with(&json!({"n": 1, "t": {"$text": "ab"}}), only_new.clone()).await.unwrap();
    assert!(first.receipt.is_some());
    assert!(doc.put_with(&json!({}), only_new).await.unwrap_err().is_precondition_failed());
    let snapshot = doc.snapshot::<Json>("", &[]).await.unwrap().unwrap();
    assert_eq!((&snapshot.value, &snapshot.heads), (&json!({"n": 1, "t": "ab"}), &first.heads));
    let change = ChangeOptions::default().if_match(&snapshot.etag);
    let for_it = DocOptions { change, ..DocOptions::default() };
    doc.merge_with(&json!({"n": 2}), for_it.clone()).await.unwrap();
    assert!(doc.merge_with(&json!({"n": 3}), for_it).await.unwrap_err().is_precondition_failed());
    doc.patch(&json!([{"op": "splice", "path": "/t", "position": 1, "insert": "-"}])).await.unwrap();
    assert_eq!(doc.get_at::<String>("/t").await.unwrap().as_deref(), Some("a-b"));
    assert_eq!(doc.get_at::<String>("/none").await.unwrap(), None);
    let former = doc.snapshot::<i64>("/n", &first.heads).await.unwrap().unwrap();
    assert_eq!(former.value, 1);

    let page = doc.history(None, 2).await.unwrap();
    assert_eq!((page.changes[0].message.as_deref(), page.changes.len()), (Some("begin"), 2));
    assert_eq!(doc.history(page.next_after.as_deref(), 2).await.unwrap().next_after, None);
    assert_eq!(doc.conflicts("/n").await.unwrap()[0].value.get(), "2");

    let (changes, heads) = doc.changes(&[]).await.unwrap().unwrap();
    let copy = kv.doc("copy");
    let (late, _) = doc.changes(&first.heads).await.unwrap().unwrap();
    assert!(matches!(copy.apply(late).await, Err(Error::Api { status: 409, .. })));
    assert_eq!(copy.apply(changes).await.unwrap().heads, heads);
    assert_eq!(copy.get::<Json>().await.unwrap(), doc.get::<Json>().await.unwrap());

    doc.describe(&json!({"of": "x"})).await.unwrap();
    assert_eq!(doc.metadata().await.unwrap().unwrap().get(), r#"{"of":"x"}"#);
    assert_eq!(kv.docs(Default::default()).next_page().await.unwrap().unwrap().keys.len(), 2);
    doc.delete().await.unwrap();
    assert_eq!(doc.get::<Json>().await.unwrap(), None);
    assert!(doc.changes(&[]).await.unwrap().is_none() && doc.metadata().await.unwrap().is_none());
}
