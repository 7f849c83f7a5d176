//! Made tokens: what each scope lets through by each dialect, how long, and what is told of the rest.

use std::time::Instant;

use littoral_node::engine::{Ack, Write};
use littoral_node::http::{Access, Door, Listener};
use replication::{ChunkId, NamespaceId, Payload, Value};
use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::client::{Answer, head, read_answer};
use super::{
    ACCOUNT, ACCOUNT_TOKEN, OTHER_ACCOUNT, OTHER_TOKEN, TOKEN, TestNode, namespaces_path, now_s, test_node,
};

impl TestNode {
    pub(crate) fn namespace(&self) -> &str {
        self.kv.rsplit_once('/').unwrap().1
    }

    /// A request with this token.
    pub(crate) async fn send_as(&self, token: &str, method: &str, path: &str, body: &[u8]) -> Answer {
        let headers =
            [("Authorization", format!("Bearer {token}")), ("Content-Length", body.len().to_string())];
        self.client.raw(&[head(method, path, &headers), body.to_vec()].concat()).await
    }

    /// Makes a token of the account; the answer's JSON.
    async fn make(&self, token: Json) -> Json {
        let path = format!("/v1/accounts/{ACCOUNT}/tokens");
        let made = self.client.send("POST", &path, &[], token.to_string().as_bytes()).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()
    }

    /// Makes a token with one scope, and gives what a client presents.
    pub(crate) async fn scoped(&self, namespace: &str, prefix: &str, actions: &[&str]) -> String {
        let scope = json!({ "namespace": namespace, "prefix": prefix, "actions": actions });
        let made = self.make(json!({ "name": "scoped", "scopes": [scope] })).await;
        made["token"].as_str().unwrap().to_owned()
    }

    async fn revoke(&self, id: &str) -> Answer {
        self.client.send("DELETE", &format!("/v1/accounts/{ACCOUNT}/tokens/{id}"), &[], b"").await
    }
}

/// The calls by which keys are reached: the action that each is, method, path for the key, and body.
fn calls(node: &TestNode, key: &str) -> Vec<(&'static str, &'static str, String, String)> {
    let rest = &node.kv;
    let binding = format!("/binding/{}", node.namespace());
    let keys = json!([key]).to_string();
    let wanted = json!({ "keys": [key] }).to_string();
    let pairs = json!([{ "key": key, "value": "v" }]).to_string();
    let none = String::new;
    vec![
        ("write", "PUT", format!("{rest}/values/{key}"), "v".to_owned()),
        ("write", "PUT", format!("{rest}/bulk"), pairs),
        ("write", "PUT", format!("{binding}/{key}"), "v".to_owned()),
        ("read", "GET", format!("{rest}/values/{key}"), none()),
        ("read", "GET", format!("{rest}/metadata/{key}"), none()),
        ("read", "POST", format!("{rest}/bulk/get"), wanted.clone()),
        ("read", "GET", format!("{binding}/{key}"), none()),
        ("read", "POST", format!("{binding}/bulk/get"), wanted),
        ("list", "GET", format!("{rest}/keys?prefix={key}"), none()),
        ("list", "GET", format!("{binding}/?prefix={key}"), none()),
        ("write", "POST", format!("{rest}/bulk/delete"), keys.clone()),
        ("write", "DELETE", format!("{rest}/bulk"), keys),
        ("write", "DELETE", format!("{rest}/values/{key}"), none()),
        ("write", "DELETE", format!("{binding}/{key}"), none()),
    ]
}

/// Makes every call as the token; `is_allowed` says which are to be let through.
async fn check_calls(node: &TestNode, token: &str, key: &str, is_allowed: impl Fn(&str) -> bool) {
    for (action, method, path, body) in calls(node, key) {
        // There is something to read, whatever the call before did.
        node.send("PUT", &format!("/values/{key}"), "v").await.ok();
        let answer = node.send_as(token, method, &path, body.as_bytes()).await;
        let what = format!("{action} by {method} {path}: {answer:?}");
        if is_allowed(action) {
            assert_eq!(answer.status, 200, "{what}");
            continue;
        }
        assert_eq!(answer.status, 403, "{what}");
        let lacks = format!("this token lacks the right \"{action}\" on ");
        if path.starts_with("/binding/") {
            assert!(answer.reason().starts_with(&lacks), "{what}");
        } else {
            answer.assert_error(403, 10000, &lacks);
        }
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(said.contains(node.namespace()), "the namespace is not named: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_action_opens_its_calls_by_both_dialects_and_no_other() {
    let node = test_node().await;
    for action in ["read", "write", "list", "admin"] {
        for namespace in [node.namespace(), "*"] {
            let token = node.scoped(namespace, "", &[action]).await;
            check_calls(&node, &token, "key", |called| called == action).await;
        }
    }
    let both = node.scoped(node.namespace(), "", &["read", "list"]).await;
    check_calls(&node, &both, "key", |called| called != "write").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_opens_the_keys_that_begin_with_it() {
    let node = test_node().await;
    let token = node.scoped(node.namespace(), "ab:", &["read", "write", "list"]).await;
    for (key, is_inside) in
        [("ab:", true), ("ab:c", true), ("ab", false), ("a", false), ("ac:", false), ("AB:", false)]
    {
        check_calls(&node, &token, key, |_| is_inside).await;
    }
    // Without a prefix of its own a listing is of all keys.
    for path in [format!("{}/keys", node.kv), format!("/binding/{}/", node.namespace())] {
        assert_eq!(node.send_as(&token, "GET", &path, b"").await.status, 403, "{path}");
    }
    // A cursor leads on behind the last key, and no further than the prefix.
    for key in ["ab:1", "ab:2", "zz"] {
        node.send("PUT", &format!("/values/{key}"), "v").await.ok();
    }
    let path = format!("/binding/{}/?prefix=ab:&key_count_limit=1", node.namespace());
    let first = node.send_as(&token, "GET", &path, b"").await.json();
    let rest =
        format!("/binding/{}/?prefix=ab:&cursor={}", node.namespace(), first["cursor"].as_str().unwrap());
    let rest = node.send_as(&token, "GET", &rest, b"").await.json();
    assert!(
        rest["keys"].as_array().unwrap().iter().all(|key| key["name"].as_str().unwrap().starts_with("ab:"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_bulk_call_with_one_key_outside_nothing_is_done() {
    let node = test_node().await;
    let token = node.scoped(node.namespace(), "in/", &["read", "write"]).await;
    let pairs = json!([{ "key": "in/1", "value": "v" }, { "key": "out", "value": "v" }]).to_string();
    let refused = node.send_as(&token, "PUT", &format!("{}/bulk", node.kv), pairs.as_bytes()).await;
    refused.assert_error(403, 10000, "\"write\" on \"out\"");
    node.send("GET", "/values/in/1", "").await.assert_error(404, 10009, "");
    let keys = br#"["in/1","out"]"#;
    node.send("PUT", "/values/in/1", "kept").await.ok();
    let refused = node.send_as(&token, "DELETE", &format!("{}/bulk", node.kv), keys).await;
    refused.assert_error(403, 10000, "\"write\" on \"out\"");
    assert_eq!(node.value("in/1").await, b"kept");
    let wanted = br#"{"keys":["in/1","out"]}"#;
    let refused = node.send_as(&token, "POST", &format!("{}/bulk/get", node.kv), wanted).await;
    refused.assert_error(403, 10000, "\"read\" on \"out\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_never_learns_of_namespaces_that_it_has_no_scope_for() {
    let node = test_node().await;
    let other = node.client.send("POST", &namespaces_path(ACCOUNT), &[], br#"{"title":"other"}"#).await;
    let other = other.ok()["id"].as_str().unwrap().to_owned();
    let none = "f".repeat(32);
    let token = node.scoped(node.namespace(), "", &["read", "list", "write"]).await;
    for path in ["", "/values/k", "/keys", "/metadata/k"] {
        let said = async |id: &str| {
            let path = format!("{}/{id}{path}", namespaces_path(ACCOUNT));
            let answer = node.send_as(&token, "GET", &path, b"").await;
            (answer.status, String::from_utf8_lossy(&answer.body).replace(id, "ID"))
        };
        assert_eq!(said(&other).await, said(&none).await, "{path}");
        assert_eq!(said(&other).await.0, 403, "{path}");
    }
    let listed = node.send_as(&token, "GET", &namespaces_path(ACCOUNT), b"").await;
    assert_eq!(listed.json()["result_info"]["total_count"], 1, "{listed:?}");
    assert_eq!(listed.ok()[0]["id"], node.namespace());
    assert_eq!(node.send_as(&token, "GET", &node.kv, b"").await.ok()["title"], "test");
    let blind = node.scoped("*", "", &["read", "write"]).await;
    let refused = node.send_as(&blind, "GET", &namespaces_path(ACCOUNT), b"").await;
    refused.assert_error(403, 10000, "\"list\"");
    // A namespace of another account is none, whatever the scope says.
    let theirs =
        node.send_as(OTHER_TOKEN, "POST", &namespaces_path(OTHER_ACCOUNT), br#"{"title":"x"}"#).await;
    let theirs = theirs.ok()["id"].as_str().unwrap().to_owned();
    let greedy = node.scoped(&theirs, "", &["read"]).await;
    let path = |account: &str| format!("{}/{theirs}/values/k", namespaces_path(account));
    node.send_as(&greedy, "GET", &path(ACCOUNT), b"").await.assert_error(404, 10013, "");
    node.send_as(&greedy, "GET", &path(OTHER_ACCOUNT), b"").await.assert_error(403, 10000, "Authentication");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_is_of_one_namespace_or_of_the_account() {
    let node = test_node().await;
    let title = br#"{"title":"renamed"}"#;
    let tokens = format!("/v1/accounts/{ACCOUNT}/tokens");
    let writer = node.scoped("*", "", &["read", "write", "list"]).await;
    for method in ["PUT", "DELETE"] {
        node.send_as(&writer, method, &node.kv, title).await.assert_error(403, 10000, "\"admin\"");
    }
    let one = node.scoped(node.namespace(), "", &["admin"]).await;
    node.send_as(&one, "PUT", &node.kv, title).await.ok();
    for token in [&writer, &one] {
        let refused = node.send_as(token, "POST", &namespaces_path(ACCOUNT), br#"{"title":"more"}"#).await;
        refused.assert_error(403, 10000, "\"admin\" on every namespace");
        for (method, path) in
            [("GET", tokens.clone()), ("POST", tokens.clone()), ("DELETE", format!("{tokens}/x"))]
        {
            assert_eq!(node.send_as(token, method, &path, b"{}").await.status, 403, "{method} {path}");
        }
    }
    let all = node.scoped("*", "", &["admin"]).await;
    let made = node.send_as(&all, "POST", &namespaces_path(ACCOUNT), br#"{"title":"more"}"#).await.ok();
    let path = format!("{}/{}", namespaces_path(ACCOUNT), made["id"].as_str().unwrap());
    node.send_as(&all, "DELETE", &path, b"").await.ok();
    assert_eq!(node.send_as(&all, "GET", &tokens, b"").await.status, 200);
    let elsewhere = format!("/v1/accounts/{OTHER_ACCOUNT}/tokens");
    assert_eq!(node.send_as(&all, "GET", &elsewhere, b"").await.status, 403);
    node.send_as(&one, "DELETE", &node.kv, b"").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_from_the_second_of_its_expiry_and_listed_as_expired() {
    let node = test_node().await;
    let at_s = now_s() + 2;
    let scope = json!({ "namespace": "*", "actions": ["list"] });
    let made = node.make(json!({ "name": "short", "scopes": [scope], "expires_at": at_s })).await;
    let token = made["token"].as_str().unwrap();
    let path = format!("{}/keys", node.kv);
    let mut was_let_in = false;
    loop {
        let before_s = now_s();
        let answer = node.send_as(token, "GET", &path, b"").await;
        let after_s = now_s();
        assert!(
            answer.status == 200 || before_s + 1 > at_s || after_s >= at_s,
            "refused too early: {answer:?}"
        );
        assert!(answer.status == 403 || before_s < at_s, "let in too late: {answer:?}");
        was_let_in |= answer.status == 200;
        if answer.status == 403 {
            answer.assert_error(403, 10000, "Authentication error");
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(was_let_in);
    let listed = node.client.send("GET", &format!("/v1/accounts/{ACCOUNT}/tokens"), &[], b"").await.json();
    assert_eq!(
        (&listed["tokens"][0]["expired"], &listed["tokens"][0]["name"]),
        (&true.into(), &"short".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_at_once_and_over_a_restart() {
    let node = test_node().await;
    let scope = json!([{ "namespace": "*", "actions": ["list"] }]);
    let gone = node.make(json!({ "name": "gone", "scopes": scope })).await;
    let kept = node.make(json!({ "name": "kept", "scopes": scope })).await;
    let [gone_token, kept_token] = [&gone, &kept].map(|made| made["token"].as_str().unwrap().to_owned());
    let path = format!("{}/keys", node.kv);
    node.send_as(&gone_token, "GET", &path, b"").await.ok();
    let left = node.revoke(gone["id"].as_str().unwrap()).await;
    assert_eq!((left.status, left.json()["tokens"].as_array().unwrap().len()), (200, 1), "{left:?}");
    node.send_as(&gone_token, "GET", &path, b"").await.assert_error(403, 10000, "Authentication error");
    let elsewhere = format!("/v1/accounts/{}/tokens", "e".repeat(32));
    assert_eq!(node.client.send("GET", &elsewhere, &[], b"").await.json()["tokens"], json!([]));
    let again = node.revoke(gone["id"].as_str().unwrap()).await;
    assert_eq!((again.status, again.header("content-type")), (404, Some("application/problem+json")));
    let node = node.restart(0).await;
    node.send_as(&kept_token, "GET", &path, b"").await.ok();
    node.send_as(&gone_token, "GET", &path, b"").await.assert_error(403, 10000, "Authentication error");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_in_any_file() {
    let node = test_node().await;
    let token = node.scoped("*", "", &["list"]).await;
    let listed = node.client.send("GET", &format!("/v1/accounts/{ACCOUNT}/tokens"), &[], b"").await;
    let hash = blake3_hex(&token);
    let text = String::from_utf8(listed.body.clone()).unwrap();
    assert!(!text.contains(&token) && !text.contains(&hash), "{text}");
    let node = node.restart(0).await;
    node.send_as(&token, "GET", &format!("{}/keys", node.kv), b"").await.ok();
    let mut folders = vec![node.folder.path().to_owned()];
    let (mut has_hash, mut files) = (false, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let bytes = std::fs::read(&entry).unwrap();
            let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            files += 1;
            has_hash |= holds(&hash);
            let secret = token.rsplit_once('_').unwrap().1;
            assert!(!holds(secret), "{} has the token", entry.display());
        }
    }
    assert!(has_hash, "the search has not found what must be there, in {files} files");
}

fn blake3_hex(token: &str) -> String {
    ChunkId::of(token.as_bytes()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_pages_are_for_tokens_of_the_cluster() {
    let node = test_node().await;
    let all = node.scoped("*", "", &["read", "write", "list", "admin"]).await;
    let pages = [
        "/v1/status",
        "/v1/lag",
        "/v1/members",
        "/v1/links",
        "/v1/gc",
        "/v1/leaves",
        "/v1/entries",
        "/v1/verify",
    ];
    for token in [all.as_str(), ACCOUNT_TOKEN] {
        for path in pages {
            let refused = node.send_as(token, "GET", path, b"").await;
            assert_eq!(refused.status, 403, "{path} {refused:?}");
            assert!(refused.json()["detail"].as_str().unwrap().contains("token of the cluster"));
        }
        for path in ["/v1/accounts", "/v1/verify", "/v1/budgets"] {
            assert_eq!(node.send_as(token, "POST", path, br#"{"name":"x"}"#).await.status, 403, "{path}");
        }
        let account = format!("/v1/accounts/{ACCOUNT}");
        assert_eq!(node.send_as(token, "DELETE", &account, b"").await.status, 403);
        // In its own account it may do everything.
        assert_eq!(node.send_as(token, "GET", &format!("{account}/tokens"), b"").await.status, 200);
        node.send_as(token, "PUT", &format!("{}/values/k", node.kv), b"v").await.ok();
        node.send_as(token, "GET", &namespaces_path(OTHER_ACCOUNT), b"").await.assert_error(403, 10000, "");
    }
    for path in pages {
        assert_eq!(node.send_as("unknown", "GET", path, b"").await.status, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_miniflares_path_and_a_socket_without_one_reach_what_they_may() {
    let node = test_node().await;
    let token = node.scoped(node.namespace(), "in/", &["read", "write"]).await;
    let path = format!("/binding/{}/{token}", node.namespace());
    for (key, status) in [("in%2Fk", 200), ("out", 403)] {
        let url = ("MF-URL", format!("https://fake-host/{key}?urlencoded=true"));
        let request = head("PUT", &path, &[url, ("Content-Length", "1".to_owned())]);
        let answer = node.client.raw(&[request, b"v".to_vec()].concat()).await;
        assert_eq!(answer.status, status, "{key} {answer:?}");
    }
    // The door of a namespace whose account no configuration knows.
    let made = node.client.send("POST", "/v1/accounts", &[], br#"{"name":"shop"}"#).await.json();
    let account = made["id"].as_str().unwrap();
    let admin =
        json!({ "name": "n", "scopes": [{ "namespace": "*", "actions": ["admin", "read"] }] }).to_string();
    let tokens = format!("/v1/accounts/{account}/tokens");
    let admin = node.client.send("POST", &tokens, &[], admin.as_bytes()).await.json();
    let admin = admin["token"].as_str().unwrap();
    let theirs = node.send_as(admin, "POST", &namespaces_path(account), br#"{"title":"t"}"#).await.ok();
    let id = theirs["id"].as_str().unwrap();
    let socket = node.folder.path().join("kv.sock");
    let door = Door::Namespace { id: id.parse().unwrap(), access: Access::Socket };
    let node = node.restart_with(0, vec![Listener::unix(&socket, door).unwrap()]).await;
    for (named, status) in [(None, 200), (Some(account), 200), (Some(ACCOUNT), 400)] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let mut headers = vec![("Content-Length", "1".to_owned())];
        headers.extend(named.map(|account| ("X-KV-Account-Id", account.to_uppercase())));
        stream.write_all(&[head("PUT", "/k", &headers), b"v".to_vec()].concat()).await.unwrap();
        let answer = read_answer(&mut stream).await.unwrap();
        assert_eq!(answer.status, status, "{named:?} {answer:?}");
    }
    let kv = format!("{}/{id}/values/k", namespaces_path(account));
    assert_eq!(node.send_as(admin, "GET", &kv, b"").await.body, b"v");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_at_most_a_thousand_made_accounts() {
    let node = test_node().await;
    let record = |number: usize| {
        let payload = Payload::Inline(r#"{"name":"n","created_at":1}"#.into());
        let value = Value { payload, metadata: None, expires_at_s: None };
        Write::Put { namespace: NamespaceId::SYSTEM, key: format!("accounts/{number:032x}").into(), value }
    };
    node.running.engine.write((0..999).map(record).collect(), Ack::Durable).await.unwrap();
    let create = async || node.client.send("POST", "/v1/accounts", &[], br#"{"name":"n"}"#).await;
    assert_eq!(create().await.status, 201);
    let refused = create().await;
    assert!(
        refused.status == 409 && refused.json()["detail"].as_str().unwrap().contains("1000 accounts"),
        "{refused:?}"
    );
    let path = format!("/v1/accounts/{:032x}", 5);
    assert_eq!(node.client.send("DELETE", &path, &[], b"").await.status, 200);
    assert_eq!(create().await.status, 201);
    let same = format!(r#"{{"name":"n","id":"{:032x}"}}"#, 6);
    assert_eq!(node.client.send("POST", "/v1/accounts", &[], same.as_bytes()).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_told_what_it_is() {
    let node = test_node().await;
    let scope = json!({ "namespace": "*", "prefix": "a", "actions": ["read"] });
    let made = node.make(json!({ "name": "n", "scopes": [scope], "expires_at": 4_000_000_000_u64 })).await;
    let said = node.send_as(made["token"].as_str().unwrap(), "GET", "/v1/token", b"").await.json();
    assert_eq!((&said["accounts"], &said["cluster"]), (&json!([ACCOUNT]), &false.into()));
    assert_eq!((&said["token"]["id"], &said["token"]["scopes"]), (&made["id"], &json!([scope])));
    assert_eq!(said["token"]["expires_at"], 4_000_000_000_u64);
    let said = node.send_as(TOKEN, "GET", "/v1/token", b"").await.json();
    assert_eq!(said, json!({ "accounts": [ACCOUNT], "cluster": true, "token": null }));
    assert_eq!(node.send_as("unknown", "GET", "/v1/token", b"").await.status, 401);
    let verify = "/client/v4/user/tokens/verify";
    let verified = node.send_as(made["token"].as_str().unwrap(), "GET", verify, b"").await.ok();
    assert_eq!(verified, json!({ "id": made["id"], "status": "active" }));
    assert_eq!(node.send_as(TOKEN, "GET", verify, b"").await.ok()["status"], "active");
    node.send_as("unknown", "GET", verify, b"").await.assert_error(403, 10000, "Authentication error");
    let accounts = node.send_as(made["token"].as_str().unwrap(), "GET", "/v1/accounts", b"").await.json();
    assert_eq!(accounts["accounts"].as_array().unwrap().len(), 1, "{accounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_made_works_without_the_configuration_and_goes_when_it_is_empty() {
    let node = test_node().await;
    let made = node.client.send("POST", "/v1/accounts", &[], br#"{"name":"shop"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/accounts/{id}/tokens");
    let scope =
        json!({ "name": "first", "scopes": [{ "namespace": "*", "actions": ["admin", "write", "read"] }] });
    let first = node.client.send("POST", &path, &[], scope.to_string().as_bytes()).await.json();
    let token = first["token"].as_str().unwrap().to_owned();
    let namespace = node.send_as(&token, "POST", &namespaces_path(&id), br#"{"title":"t"}"#).await.ok();
    let kv = format!("{}/{}", namespaces_path(&id), namespace["id"].as_str().unwrap());
    node.send_as(&token, "PUT", &format!("{kv}/values/k"), b"v").await.ok();
    assert_eq!(node.send_as(&token, "GET", &format!("{kv}/values/k"), b"").await.body, b"v");

    let delete = async || node.client.send("DELETE", &format!("/v1/accounts/{id}"), &[], b"").await;
    let refused = delete().await;
    assert!(
        refused.status == 409
            && refused.json()["detail"].as_str().unwrap().contains("1 namespaces and 1 tokens")
    );
    node.send_as(&token, "DELETE", &kv, b"").await.ok();
    assert_eq!(delete().await.status, 409);
    let revoked =
        node.client.send("DELETE", &format!("{path}/{}", first["id"].as_str().unwrap()), &[], b"").await;
    assert_eq!(revoked.status, 200);
    assert_eq!(delete().await.status, 200);
    assert_eq!(delete().await.status, 404);
    assert_eq!(node.client.send("POST", &path, &[], scope.to_string().as_bytes()).await.status, 404);
    let configured = node.client.send("DELETE", &format!("/v1/accounts/{OTHER_ACCOUNT}"), &[], b"").await;
    assert!(
        configured.status == 409 && configured.json()["detail"].as_str().unwrap().contains("[[http.tokens]]")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_account_and_no_token_is_refused_with_what_would_be_right() {
    let node = test_node().await;
    let tokens = format!("/v1/accounts/{ACCOUNT}/tokens");
    let scope = r#"{"namespace":"*","actions":["read"]}"#;
    let long = "x".repeat(257);
    let prefixed = |bytes: usize| {
        let scope = json!({ "namespace": "*", "prefix": "p".repeat(bytes), "actions": ["read"] });
        json!({ "name": "n", "scopes": vec![scope; 32] }).to_string()
    };
    for (path, body, status, text) in [
        ("/v1/accounts", "{}".to_owned(), 400, "name"),
        ("/v1/accounts", format!(r#"{{"name":"{long}"}}"#), 400, "1 to 256 bytes"),
        ("/v1/accounts", r#"{"name":"n","id":"12"}"#.to_owned(), 400, "32 hexadecimal digits"),
        ("/v1/accounts", r#"{"name":"n","plan":"free"}"#.to_owned(), 400, "plan"),
        (&tokens, "{}".to_owned(), 400, "name"),
        (&tokens, format!(r#"{{"name":"n","scopes":[{scope}],"ttl":5}}"#), 400, "ttl"),
        (&tokens, r#"{"name":"n","scopes":[{"namespace":"*","actions":["own"]}]}"#.to_owned(), 400, "own"),
        (&tokens, r#"{"name":"n","scopes":[]}"#.to_owned(), 400, "1 to 32 scopes"),
        (&tokens, format!(r#"{{"name":"n","scopes":[{scope}],"expires_at":1}}"#), 400, "has passed"),
        (&tokens, prefixed(400), 201, ""),
        (&tokens, prefixed(512), 400, "fewer scopes"),
        (&tokens, " ".repeat((64 << 10) + 1), 413, "larger"),
        ("/v1/accounts/12/tokens", format!(r#"{{"name":"n","scopes":[{scope}]}}"#), 404, "no account 12"),
    ] {
        let answer = node.client.send("POST", path, &[], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{path} {body:.80} {answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains(text), "{text}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_at_most_a_thousand_tokens() {
    let node = test_node().await;
    let record = |number: usize| {
        let record = json!({ "name": "n", "hash": "", "scopes": [], "created_at": 0, "expires_at": null, "requests_per_s": null });
        let payload = Payload::Inline(record.to_string().into());
        let value = Value { payload, metadata: None, expires_at_s: None };
        Write::Put {
            namespace: NamespaceId::SYSTEM,
            key: format!("token/{ACCOUNT}/{number:016x}").into(),
            value,
        }
    };
    node.running.engine.write((0..999).map(record).collect(), Ack::Durable).await.unwrap();
    node.scoped("*", "", &["read"]).await;
    let path = format!("/v1/accounts/{ACCOUNT}/tokens");
    let more = json!({ "name": "n", "scopes": [{ "namespace": "*", "actions": ["read"] }] }).to_string();
    let refused = node.client.send("POST", &path, &[], more.as_bytes()).await;
    assert!(
        refused.status == 409 && refused.json()["detail"].as_str().unwrap().contains("1000 tokens"),
        "{refused:?}"
    );
    node.revoke(&format!("{:016x}", 5)).await;
    node.scoped("*", "", &["read"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_too_fast_is_told_when_to_come_again() {
    let node = test_node().await;
    let scope = json!({ "namespace": "*", "actions": ["list", "read"] });
    let made = node.make(json!({ "name": "slow", "scopes": [scope], "requests_per_s": 1 })).await;
    let token = made["token"].as_str().unwrap();
    let began = Instant::now();
    let (mut passed, mut last) = (0, None);
    for _ in 0..20 {
        let answer = node.send_as(token, "GET", &format!("{}/keys", node.kv), b"").await;
        match answer.status {
            200 => passed += 1,
            _ => last = Some(answer),
        }
        // A change elsewhere in the system namespace must not make it forget.
        node.scoped("*", "", &["read"]).await;
    }
    assert!(passed >= 1 && passed <= began.elapsed().as_secs() + 1, "{passed} in {:?}", began.elapsed());
    let refused = last.expect("twenty take less than twenty seconds");
    refused.assert_error(429, 971, "this token is asked too often: no more than 1 requests a second");
    assert_eq!(refused.header("retry-after"), Some("1"));
    for path in [format!("/binding/{}/k", node.namespace()), "/v1/token".to_owned()] {
        // One may pass in between: a second is over.
        let refused = loop {
            let answer = node.send_as(token, "GET", &path, b"").await;
            if !matches!(answer.status, 200 | 404) {
                break answer;
            }
        };
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{path} {refused:?}");
    }
}
