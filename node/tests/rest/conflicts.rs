//! Conflicts at one node, which has none: what is refused, and by which right. What two PoPs list is in the suite
//! `conflicts`.

use serde_json::{Value as Json, json};

use super::kinds::assert_problem;
use super::test_node;

const MAX_PAGE_CONFLICTS: usize = 1_000;
const MAX_KEY_BYTES: usize = 512;

/// The id of a conflict under this key, which nobody has seen.
fn id(key: &str) -> String {
    let key: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{key}0000{}", "07".repeat(24))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_conflicts_lists_none_and_has_no_other() {
    let node = test_node().await;
    let nothing = json!({ "conflicts": [], "next_after": null });
    for query in ["", "?prefix=a", "?key=a", "?include=preview", "?after=&limit=5"] {
        assert_eq!(node.done("GET", &format!("/conflicts{query}"), "").await, nothing, "{query}");
    }
    assert_eq!(node.done("GET", &format!("/conflicts?after={}", id("k")), "").await, nothing);
    for wrong in [id("k"), "00".to_owned(), "no-id".to_owned(), id("k") + "00", id("")] {
        for (method, rest) in [("GET", ""), ("DELETE", ""), ("POST", "/restore")] {
            let answer = node.ask(method, &format!("/conflicts/{wrong}{rest}"), "").await;
            assert_problem(&answer, 404, 10009, "there is no such conflict here");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_of_conflicts_is_refused_with_what_would_be_right() {
    let node = test_node().await;
    for (limit, fits) in [
        (0, false),
        (1, true),
        (2, true),
        (MAX_PAGE_CONFLICTS - 1, true),
        (MAX_PAGE_CONFLICTS, true),
        (MAX_PAGE_CONFLICTS + 1, false),
    ] {
        let answer = node.ask("GET", &format!("/conflicts?limit={limit}"), "").await;
        assert_eq!(answer.status, if fits { 200 } else { 400 }, "{limit}: {answer:?}");
    }
    for bytes in [MAX_KEY_BYTES - 1, MAX_KEY_BYTES, MAX_KEY_BYTES + 1] {
        for name in ["key", "prefix"] {
            let answer = node.ask("GET", &format!("/conflicts?{name}={}", "k".repeat(bytes)), "").await;
            let expected = if bytes <= MAX_KEY_BYTES { 200 } else { 414 };
            assert_eq!(answer.status, expected, "{name} of {bytes}: {answer:?}");
        }
    }
    for (query, text) in [
        ("key=a&prefix=b", "give either key or prefix"),
        ("include=values", "include must be preview"),
        ("after=zz", "after must be next_after"),
        ("limit=many", "limit"),
    ] {
        assert_problem(&node.ask("GET", &format!("/conflicts?{query}"), "").await, 400, 10021, text);
    }
    for (method, path) in [("POST", "/conflicts"), ("PUT", "/conflicts/00"), ("GET", "/conflicts/00/restore")]
    {
        assert_eq!(node.ask(method, path, "").await.status, 405, "{method} {path}");
    }
    let path = node.kinds_path(&format!("/conflicts/{}", id("k")));
    let answer = node.client.send("DELETE", &path, &[("if-match", "\"a\"")], b"").await;
    assert_problem(&answer, 400, 10021, "are for restoring a conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_opens_its_calls_about_the_keys_it_is_for() {
    let node = test_node().await;
    for action in ["read", "write", "list"] {
        let token = node.scoped(node.namespace(), "ab:", &[action]).await;
        for (key, is_inside) in [("ab:", true), ("ab:c", true), ("ab", false), ("ac:", false)] {
            for (needs, method, path, found) in [
                ("list", "GET", format!("/conflicts?prefix={key}"), 200),
                ("list", "GET", format!("/conflicts?key={key}"), 200),
                ("read", "GET", format!("/conflicts/{}", id(key)), 404),
                ("write", "DELETE", format!("/conflicts/{}", id(key)), 404),
                ("write", "POST", format!("/conflicts/{}/restore", id(key)), 404),
            ] {
                let answer = node.send_as(&token, method, &node.kinds_path(&path), b"").await;
                let expected = if is_inside && needs == action { found } else { 403 };
                assert_eq!(answer.status, expected, "{action} to {method} {path}: {answer:?}");
            }
        }
    }
    // A preview shows what is under a key.
    let path = node.kinds_path("/conflicts?prefix=ab:&include=preview");
    for (actions, status) in [(&["list"][..], 403), (&["list", "read"], 200)] {
        let token = node.scoped(node.namespace(), "ab:", actions).await;
        let answer = node.send_as(&token, "GET", &path, b"").await;
        assert_eq!(answer.status, status, "{actions:?}: {answer:?}");
    }
    let told = node.client.send("GET", "/v1/status", &[], b"").await.json();
    assert_eq!([&told["counters"]["conflicts"], &told["counters"]["conflict_rows"]], [&Json::from(0); 2]);
}
