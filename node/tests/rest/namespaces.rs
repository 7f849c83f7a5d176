//! Namespaces: their life, their pages, their limits.

use serde_json::{Value as Json, json};

use super::client::Answer;
use super::{ACCOUNT, OTHER_ACCOUNT, OTHER_TOKEN, TestNode, namespaces_path, padded, test_node};

async fn send(node: &TestNode, method: &str, path: &str, body: &str) -> Answer {
    node.client.send(method, &format!("{}{path}", namespaces_path(ACCOUNT)), &[], body.as_bytes()).await
}

async fn titles(node: &TestNode, query: &str) -> Vec<String> {
    let page = send(node, "GET", &format!("?{query}"), "").await.ok();
    page.as_array().unwrap().iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_lives_from_create_to_delete() {
    let node = test_node().await;
    let created = send(&node, "POST", "", r#"{"title":"märz"}"#).await.ok();
    let id = created["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 32 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_eq!(created, json!({"id": id, "title": "märz", "supports_url_encoding": true}));
    assert_eq!(send(&node, "GET", &format!("/{id}"), "").await.ok(), created);

    send(&node, "PUT", &format!("/{id}/values/k"), "v").await.ok();
    let renamed = send(&node, "PUT", &format!("/{id}"), r#"{"title":"april"}"#).await.ok();
    assert_eq!(renamed, json!({"id": id, "title": "april", "supports_url_encoding": true}));
    send(&node, "PUT", &format!("/{id}"), r#"{"title":"april"}"#).await.ok();
    assert_eq!(send(&node, "GET", &format!("/{id}/values/k"), "").await.body, b"v");

    assert_eq!(send(&node, "DELETE", &format!("/{id}"), "").await.ok(), Json::Null);
    for (method, path) in [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("GET", "/values/k"),
        ("PUT", "/values/k"),
        ("GET", "/keys"),
    ] {
        let answer = send(&node, method, &format!("/{id}{path}"), r#"{"title":"x"}"#).await;
        answer.assert_error(404, 10013, "namespace not found");
    }
    assert_eq!(titles(&node, "").await, ["test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn titles_are_required_and_unique() {
    let node = test_node().await;
    let id = node.kv.rsplit('/').next().unwrap().to_owned();
    send(&node, "POST", "", r#"{"title":"other"}"#).await.ok();
    let longest = json!({"title": "t".repeat(512)}).to_string();
    let too_long = json!({"title": "t".repeat(513)}).to_string();
    let huge = json!({"title": "t".repeat(70_000)}).to_string();
    for (body, status, code, text) in [
        (r#"{"title":"other"}"#, 400, 10014, "a namespace with this account ID and title already exists"),
        (r#"{"title":""}"#, 400, 10019, "title is required"),
        (r#"{"title":7}"#, 400, 10019, "title is required"),
        ("{}", 400, 10019, "title is required"),
        ("[]", 400, 10019, "title is required"),
        ("", 400, 6008, "JSON"),
        ("{\"title\"", 400, 6008, "JSON"),
        ("\u{0}", 400, 6008, "JSON"),
        (r#"{"title":"x","jurisdiction":"eu"}"#, 400, 10021, "jurisdictions are not supported"),
        (&too_long, 400, 10021, "513"),
        (&huge, 413, 20010, "exceeds 65536 bytes"),
    ] {
        send(&node, "POST", "", body).await.assert_error(status, code, text);
        send(&node, "PUT", &format!("/{id}"), body).await.assert_error(status, code, text);
    }
    send(&node, "POST", "", &longest).await.ok();
    send(&node, "POST", "", &json!({"title": "t".repeat(511)}).to_string()).await.ok();
    let theirs = [("Authorization", format!("Bearer {OTHER_TOKEN}")), ("Content-Length", "17".to_owned())];
    let mut request = super::client::head("POST", &namespaces_path(OTHER_ACCOUNT), &theirs);
    request.extend_from_slice(br#"{"title":"other"}"#);
    node.client.raw(&request).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_title_has_a_limit() {
    let node = test_node().await;
    for (len, fits) in [(65_535, true), (65_536, true), (65_537, false)] {
        let title = format!(r#"{{"title":"of {len}"}}"#);
        let answer = send(&node, "POST", "", &padded(&title, len)).await;
        answer.assert_limit(fits, 413, 20010, "exceeds 65536 bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_end_with_an_empty_one() {
    let node = test_node().await;
    for i in 0..24 {
        send(&node, "POST", "", &json!({"title": format!("n{:02}", (i * 7) % 24)}).to_string()).await.ok();
    }
    let mut expected: Vec<String> = (0..24).map(|i| format!("n{i:02}")).collect();
    expected.push("test".to_owned());
    for query in [
        "per_page=1000&order=title&direction=asc",
        "order=Title&direction=Asc&per_page=5000",
        "per_page=100&order=TITLE",
    ] {
        assert_eq!(titles(&node, query).await, expected, "{query}");
        assert_eq!(titles(&node, &format!("{query}&page=2")).await, [""; 0], "{query}");
    }
    assert_eq!(titles(&node, "").await.len(), 20, "the default");
    assert_eq!(titles(&node, "page=2").await.len(), 5);
    assert_eq!(titles(&node, "page=2.0&per_page=10.0").await.len(), 10);
    assert_eq!(titles(&node, "page=18446744073709551615").await.len(), 0);
    let walked = [
        titles(&node, "order=title&per_page=10").await,
        titles(&node, "order=title&per_page=10&page=2").await,
    ];
    assert_eq!(walked.concat(), expected[..20]);
    expected.reverse();
    assert_eq!(titles(&node, "order=title&direction=desc&per_page=25").await, expected);

    let page = send(&node, "GET", "?page=2&per_page=10", "").await.json();
    assert_eq!(
        page["result_info"],
        json!({"page": 2, "per_page": 10, "count": 10, "total_count": 25, "total_pages": 3})
    );
    let ids: Vec<_> = page["result"].as_array().unwrap().iter().map(|row| row["id"].to_string()).collect();
    assert!(ids.is_sorted());

    for (query, text) in [
        ("page=0", "page"),
        ("page=x", "whole number"),
        ("per_page=-1", "whole number"),
        ("order=size", "order must be"),
        ("direction=up", "direction must be"),
    ] {
        send(&node, "GET", &format!("?{query}"), "").await.assert_error(400, 10021, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_at_most_a_thousand() {
    let node = test_node().await;
    for i in 1..1000 {
        send(&node, "POST", "", &format!(r#"{{"title":"n{i}"}}"#)).await.ok();
    }
    send(&node, "POST", "", r#"{"title":"n1000"}"#).await.assert_error(400, 20008, "1000 namespaces");
    assert_eq!(titles(&node, "per_page=1000").await.len(), 1000);
}
