//! Who may make which call about counters, sets and maps, how often, and what is told to who may not.

use serde_json::json;

use super::super::client::{Answer, head};
use super::super::{ACCOUNT, ACCOUNT_TOKEN, OTHER_ACCOUNT, OTHER_TOKEN, TestNode, test_node};
use super::assert_problem;

impl TestNode {
    async fn ask_as(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers =
            [("Authorization", format!("Bearer {token}")), ("Content-Length", body.len().to_string())];
        self.client.raw(&[head(method, path, &headers), body.as_bytes().to_vec()].concat()).await
    }
}

/// The calls: the action that each is, method, path and body.
fn calls(key: &str) -> Vec<(&'static str, &'static str, String, &'static str)> {
    let mut calls = vec![
        ("write", "POST", format!("/counters/{key}"), r#"{"add":1}"#),
        ("read", "GET", format!("/counters/{key}"), ""),
        ("list", "GET", format!("/counters?prefix={key}"), ""),
        ("write", "POST", format!("/bounded/{key}"), r#"{"add":1}"#),
        ("write", "POST", format!("/bounded/{key}"), r#"{"take":1}"#),
        ("read", "GET", format!("/bounded/{key}"), ""),
        ("list", "GET", format!("/bounded?prefix={key}"), ""),
        ("write", "POST", format!("/sets/{key}"), r#"{"add":["e"]}"#),
        ("write", "PUT", format!("/sets/{key}/members/e"), ""),
        ("read", "GET", format!("/sets/{key}/members/e"), ""),
        ("write", "DELETE", format!("/sets/{key}/members/e"), ""),
        ("list", "GET", format!("/sets/{key}"), ""),
        ("list", "GET", format!("/sets?prefix={key}"), ""),
        ("write", "PATCH", format!("/maps/{key}"), r#"{"fields":{"e":"v"}}"#),
        ("write", "PUT", format!("/maps/{key}/fields/e"), "v"),
        ("read", "GET", format!("/maps/{key}/fields/e"), ""),
        ("write", "DELETE", format!("/maps/{key}/fields/e"), ""),
        ("list", "GET", format!("/maps/{key}"), ""),
        ("list", "GET", format!("/maps?prefix={key}"), ""),
    ];
    for kind in ["counters", "bounded", "sets", "maps"] {
        calls.push(("write", "PUT", format!("/{kind}/{key}/metadata"), "1"));
        calls.push(("write", "DELETE", format!("/{kind}/{key}/metadata"), ""));
        calls.push(("write", "DELETE", format!("/{kind}/{key}"), ""));
    }
    calls
}

async fn check_calls(node: &TestNode, token: &str, key: &str, is_allowed: impl Fn(&str) -> bool) {
    for (action, method, path, body) in calls(key) {
        // There is something to read, whatever the call before did.
        node.done("POST", &format!("/counters/{key}"), r#"{"add":1}"#).await;
        node.done("POST", &format!("/bounded/{key}"), r#"{"add":1}"#).await;
        node.done("PUT", &format!("/sets/{key}/members/e"), "").await;
        node.done("PUT", &format!("/maps/{key}/fields/e"), "v").await;
        let answer = node.ask_as(token, method, &node.kinds_path(&path), body).await;
        if is_allowed(action) {
            assert_eq!(answer.status, 200, "{action} by {method} {path}: {answer:?}");
        } else {
            assert_problem(&answer, 403, 10000, &format!("this token lacks the right \"{action}\" on "));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_opens_what_its_actions_and_its_prefix_say() {
    let node = test_node().await;
    let make = async |namespace: &str, prefix: &str, actions: &[&str]| {
        let scope = json!({ "namespace": namespace, "prefix": prefix, "actions": actions });
        let token = json!({ "name": "t", "scopes": [scope] }).to_string();
        let path = format!("/v1/accounts/{ACCOUNT}/tokens");
        let made = node.client.send("POST", &path, &[], token.as_bytes()).await;
        made.json()["token"].as_str().unwrap().to_owned()
    };
    for action in ["read", "write", "list", "admin"] {
        let token = make(node.id(), "", &[action]).await;
        check_calls(&node, &token, "key", |called| called == action).await;
    }
    let token = make("*", "ab:", &["read", "write", "list"]).await;
    for (key, is_inside) in [("ab:", true), ("ab:c", true), ("ab", false), ("ac:", false)] {
        check_calls(&node, &token, key, |_| is_inside).await;
    }
    for kind in ["counters", "sets", "maps"] {
        let all = node.ask_as(&token, "GET", &node.kinds_path(&format!("/{kind}")), "").await;
        assert_problem(&all, 403, 10000, "on all keys of namespace");
    }
    let elsewhere = make(&"f".repeat(32), "", &["read", "write", "list"]).await;
    check_calls(&node, &elsewhere, "key", |_| false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_or_of_another_account_is_told_so() {
    let node = test_node().await;
    let path = node.kinds_path("/counters/k");
    let add = r#"{"add":1}"#;
    let unknown = node.ask_as("unknown", "POST", &path, add).await;
    assert_eq!((unknown.status, unknown.header("www-authenticate")), (401, Some("Bearer")), "{unknown:?}");
    let without = node.client.raw(&head("GET", &path, &[])).await;
    assert_eq!(without.status, 401, "{without:?}");
    assert_problem(
        &node.ask_as(OTHER_TOKEN, "POST", &path, add).await,
        403,
        10000,
        "is not one of this token's",
    );
    let others = path.replace(ACCOUNT, OTHER_ACCOUNT);
    assert_problem(&node.ask_as(OTHER_TOKEN, "POST", &others, add).await, 404, 10013, "namespace not found");
    assert_eq!(node.ask_as(ACCOUNT_TOKEN, "POST", &path, add).await.status, 200);
    let bad_id = path.replace(node.id(), "zz");
    assert_problem(&node.ask_as(ACCOUNT_TOKEN, "GET", &bad_id, "").await, 400, 10011, "could not parse UUID");
    let upper = path.replace(ACCOUNT, &ACCOUNT.to_uppercase());
    assert_eq!(node.ask_as(ACCOUNT_TOKEN, "GET", &upper, "").await.json()["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_a_disk_without_room_hold_here_too() {
    let node = test_node().await;
    node.client.send("PUT", &node.kinds_path("/quota"), &[], br#"{"max_keys":2}"#).await;
    node.done("POST", "/counters/c", r#"{"add":1}"#).await;
    let refused = node.ask("POST", "/sets/s", r#"{"add":["a","b"]}"#).await;
    assert_problem(&refused, 429, 20012, "max_keys of this namespace is 2: it has 1, and this would add 2");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(node.done("GET", "/sets/s", "").await["members"], json!([]), "nothing of it was done");
    node.done("PUT", "/maps/m/fields/f", "v").await;
    node.done("PUT", "/maps/m/fields/f", "other").await;
    node.done("POST", "/counters/c", r#"{"add":1}"#).await;
    assert_problem(&node.ask("PUT", "/maps/m/fields/g", "v").await, 429, 20012, "max_keys");
    node.done("DELETE", "/maps/m/fields/f", "").await;
    node.done("PUT", "/maps/m/fields/g", "v").await;
    node.client.send("PUT", &node.kinds_path("/quota"), &[], br#"{"requests_per_s":1}"#).await;
    let refused = loop {
        let answer = node.ask("GET", "/counters/c", "").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_problem(&refused, 429, 971, "this namespace is asked too often");
    assert!(refused.header("retry-after").is_some());
    node.client.send("PUT", &node.kinds_path("/quota"), &[], b"{}").await;

    let node = node.restart(u64::MAX).await;
    assert_problem(
        &node.ask("POST", "/counters/c", r#"{"add":1}"#).await,
        507,
        20002,
        "make room, then try again",
    );
    assert_eq!(node.count("c").await, Some(2));
}
