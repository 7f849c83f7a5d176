//! The way of the Rust client and of the command line to values under `/v1`, against a node.

use std::process::{Command, Output};

use futures_util::{StreamExt, TryStreamExt, stream};
use littoral::api::values::Order;
use littoral::{Error, ListOptions, Namespace, PutOptions};

use super::{ACCOUNT, TOKEN, TestNode, noise, test_node};

fn namespace(node: &TestNode) -> Namespace {
    let client = littoral::Client::new(&format!("http://{}", node.running.address), TOKEN).unwrap();
    client.account(ACCOUNT).namespace(node.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_replaced_in_the_state_that_was_read() {
    let node = test_node().await;
    let kv = namespace(&node);
    assert!(kv.get_versioned("k").await.unwrap().is_none());
    let options = || PutOptions::default().metadata(&["ü\u{7f}"]).unwrap().expiration_ttl_s(1_000);
    let first = kv.put_versioned("k", "1", options().if_absent()).await.unwrap();
    let entry = kv.get_versioned("k").await.unwrap().unwrap();
    assert_eq!((&entry.bytes[..], &entry.etag), (&b"1"[..], &first));
    assert!(entry.expires_at_s.is_some());
    let metadata: Vec<String> = serde_json::from_str(entry.metadata.unwrap().get()).unwrap();
    assert_eq!(metadata, ["ü\u{7f}"]);

    let taken = kv.put("k", "2", PutOptions::default().if_absent()).await.unwrap_err();
    assert!(taken.is_precondition_failed() && taken.to_string().contains(&first), "{taken}");
    kv.put("k", "2", PutOptions::default().if_match(&first)).await.unwrap();
    assert!(
        kv.put("k", "3", PutOptions::default().if_match(&first)).await.unwrap_err().is_precondition_failed()
    );
    assert!(kv.delete_if_match("k", &first).await.unwrap_err().is_precondition_failed());
    let second = kv.get_versioned("k").await.unwrap().unwrap().etag;
    assert!(kv.delete_if_match("k", &second).await.unwrap().receipt.is_some());
    assert!(kv.get("k").await.unwrap().is_none());
    let wrong = kv.put("k", "1", PutOptions::default().if_match("\n")).await;
    assert!(matches!(wrong, Err(Error::Invalid { .. })), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_streamed_listed_with_values_and_deleted_by_prefix() {
    const COUNT: usize = 1_500;
    let node = test_node().await;
    let kv = namespace(&node);
    let orders = stream::iter(0..COUNT).map(|number| match number {
        7 => Order::put("..", b"no key"),
        8 => Order::put("p/8", &noise(100_000)),
        _ => Order::put(format!("p/{number:04}"), number.to_string().as_bytes()),
    });
    let answers: Vec<_> = kv.put_many(orders).await.unwrap().try_collect().await.unwrap();
    assert_eq!(answers.len(), COUNT);
    assert!(answers.iter().zip(1..).all(|(answer, line)| answer.line == line));
    let refused: Vec<_> = answers.iter().filter(|answer| answer.problem.is_some()).collect();
    assert!(matches!(refused[..], [one] if one.line == 8 && one.key.as_deref() == Some("..")), "{refused:?}");

    let options = ListOptions { prefix: "p/".into(), page_limit: Some(400), cursor: None };
    let rows: Vec<_> = kv.list(options.clone()).with_values().rows().try_collect().await.unwrap();
    assert_eq!(rows.len(), COUNT - 1);
    assert_eq!(rows[0].bytes().unwrap(), "0");
    let large = rows.iter().find(|row| row.key == "p/8").unwrap();
    assert_eq!(large.bytes().unwrap(), noise(100_000));
    let keys: Vec<_> = kv.list(options).keys().try_collect().await.unwrap();
    assert!(keys.iter().map(|key| &key.name).eq(rows.iter().map(|row| &row.key)));
    let from_cursor = ListOptions { cursor: Some("c".into()), ..ListOptions::default() };
    assert!(matches!(kv.list(from_cursor).with_values().next_page().await, Err(Error::Invalid { .. })));

    kv.put_many(stream::iter([Order::delete("p/0000"), Order::put("q", b"")])).await.unwrap().count().await;
    assert_eq!(kv.delete_prefix("p/").await.unwrap(), COUNT as u64 - 2);
    assert!(matches!(kv.delete_prefix("").await, Err(Error::Invalid { .. })));
    assert_eq!(kv.delete_all().await.unwrap(), 1);
    let refused = littoral::Client::new(&format!("http://{}", node.running.address), "wrong").unwrap();
    let refused = refused.account(ACCOUNT).namespace(node.id()).put_many(stream::empty()).await;
    assert!(matches!(refused, Err(Error::Api { status: 401, .. })));
}

async fn kv(node: &TestNode, args: &[&str]) -> (Option<i32>, String, String) {
    run(node, &[&["kv"], args].concat()).await
}

/// What the command line prints, and how it exits.
pub(super) async fn run(node: &TestNode, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LITTORAL_")) {
        command.env_remove(name);
    }
    let url = format!("http://{}", node.running.address);
    command.args(args);
    command.args(["--url", &url, "--token", TOKEN, "--account", ACCOUNT, "--namespace", node.id()]);
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| command.output().unwrap());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_upon_a_state_and_deletes_by_prefix() {
    let node = test_node().await;
    let (exit, first, _) = kv(&node, &["put", "a/1", "one", "--if-absent"]).await;
    assert_eq!(exit, Some(0));
    assert_eq!(kv(&node, &["get", "a/1", "--etag"]).await, (Some(0), first.clone(), String::new()));
    let (exit, _, told) = kv(&node, &["put", "a/1", "two", "--if-absent"]).await;
    assert!(exit == Some(1) && told.contains(&first) && told.contains("--etag"), "{told}");
    let (exit, second, _) = kv(&node, &["put", "a/1", "two", "--if-match", &first]).await;
    assert!(exit == Some(0) && second != first);
    assert_eq!(kv(&node, &["put", "a/1", "three", "--if-match", &first]).await.0, Some(1));
    assert_eq!(node.value("a%2F1").await, b"two");
    assert_eq!(kv(&node, &["get", "none", "--etag"]).await.0, Some(4));

    for key in ["a/2", "b", "c"] {
        assert_eq!(kv(&node, &["put", key, "v"]).await.0, Some(0));
    }
    for wrong in [&["delete"] as &[&str], &["delete", "--prefix", ""], &["delete", "b", "--prefix", "a"]] {
        assert_eq!(kv(&node, wrong).await.0, Some(2), "{wrong:?}");
    }
    assert_eq!(kv(&node, &["delete", "--prefix", "a/"]).await.1, "2 keys deleted");
    assert_eq!(kv(&node, &["delete", "b"]).await, (Some(0), String::new(), String::new()));
    assert_eq!(kv(&node, &["--json", "delete", "--all"]).await.1, r#"{"deleted":1}"#);
}
