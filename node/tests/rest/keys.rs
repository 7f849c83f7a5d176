//! Listing: order, prefixes, limits and cursors.

use serde_json::{Value as Json, json};

use super::client::Answer;
use super::{TestNode, now_s, test_node};

/// Writes these keys, value "v".
async fn put_all(node: &TestNode, keys: impl IntoIterator<Item = String>) {
    let pairs: Vec<_> = keys.into_iter().map(|key| json!({"key": key, "value": "v"})).collect();
    node.send("PUT", "/bulk", json!(pairs).to_string()).await.ok();
}

fn names(answer: &Answer) -> Vec<String> {
    answer.ok().as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

fn cursor(answer: &Answer) -> String {
    let info = &answer.json()["result_info"];
    assert_eq!(info["cursor"], info["cursors"]["after"], "old and new clients read the same cursor");
    assert_eq!(info["count"], answer.ok().as_array().unwrap().len());
    info["cursor"].as_str().unwrap().to_owned()
}

/// Every name under these parameters, page after page.
async fn walk(node: &TestNode, parameters: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = node.send("GET", &format!("/keys?{parameters}&cursor={after}"), "").await;
        all.extend(names(&page));
        after = cursor(&page);
        if after.is_empty() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_add_up_to_every_key_in_order() {
    let node = test_node().await;
    let mut keys: Vec<String> = (0..95).map(|i| format!("k{i}")).collect();
    keys.extend([
        "K".to_owned(),
        "ä".to_owned(),
        "\u{1f30a}".to_owned(),
        "\u{ffee}".to_owned(),
        "k".to_owned(),
    ]);
    put_all(&node, keys.clone()).await;
    keys.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for limit in [10, 33, 99, 100, 101, 1000] {
        assert_eq!(walk(&node, &format!("limit={limit}")).await, keys, "{limit}");
    }
    assert_eq!(walk(&node, "prefix=").await, keys);
    let of_prefix: Vec<_> = keys.iter().filter(|key| key.starts_with("k1")).cloned().collect();
    assert_eq!(walk(&node, "limit=10&prefix=k1").await, of_prefix);
    assert_eq!(walk(&node, "prefix=k94").await, ["k94"]);
    assert_eq!(walk(&node, "prefix=%C3%A4").await, ["ä"]);
    assert_eq!(walk(&node, "prefix=nothing").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_outlives_deletes_and_sees_inserts() {
    let node = test_node().await;
    put_all(&node, (10..40).map(|i| format!("k{i}"))).await;
    let first = node.send("GET", "/keys?limit=10", "").await;
    let after = cursor(&first);
    assert_eq!(names(&first).last().unwrap(), "k19");
    node.send("DELETE", "/values/k19", "").await.ok();
    node.send("DELETE", "/values/k20", "").await.ok();
    put_all(&node, ["k195".to_owned(), "k15x".to_owned()]).await;
    let second = node.send("GET", &format!("/keys?limit=10&cursor={after}"), "").await;
    assert_eq!(names(&second)[..2], ["k195", "k21"]);
    assert_eq!(names(&node.send("GET", &format!("/keys?limit=10&cursor={after}"), "").await), names(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_show_expiry_and_metadata_only_where_set() {
    let node = test_node().await;
    let at_s = now_s() + 1000;
    let pairs = json!([
        {"key": "a", "value": "1"},
        {"key": "b", "value": "2", "expiration": at_s},
        {"key": "c", "value": "3", "metadata": {"x": [1.0]}},
        {"key": "d", "value": "4", "metadata": null},
    ]);
    node.send("PUT", "/bulk", pairs.to_string()).await.ok();
    let rows = node.send("GET", "/keys", "").await.ok();
    let expected = json!([
        {"name": "a"},
        {"name": "b", "expiration": at_s},
        {"name": "c", "metadata": {"x": [1.0]}},
        {"name": "d"},
    ]);
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_parameters_are_refused() {
    let node = test_node().await;
    let too_long = format!("prefix={}", "k".repeat(513));
    for (query, status, code, text) in [
        ("limit=9", 400, 10021, "limit must be 10 to 1000, not 9"),
        ("limit=1001", 400, 10021, "limit must be 10 to 1000, not 1001"),
        ("limit=0", 400, 10021, "limit must be"),
        ("limit=10.5", 400, 10021, "limit must be a whole number, not \"10.5\""),
        ("limit=9.0", 400, 10021, "limit must be 10 to 1000, not 9"),
        ("limit=-10", 400, 10021, "whole number"),
        ("limit=ten", 400, 10021, "whole number"),
        ("cursor=nonsense", 400, 10021, "cursor"),
        ("cursor=AQAAAABr", 400, 10021, "cursor"),
        ("cursor=%00", 400, 10021, "cursor"),
        ("prefix=%FF", 400, 10021, "UTF-8"),
        (&too_long, 414, 10022, "513"),
    ] {
        node.send("GET", &format!("/keys?{query}"), "").await.assert_error(status, code, text);
    }
    // The official client in Python sends every number as a float.
    for query in
        ["limit=10", "limit=10.0", "limit=11", "limit=999", "limit=1000.0", "cursor=&prefix=", "unknown=1"]
    {
        assert_eq!(node.send("GET", &format!("/keys?{query}"), "").await.ok(), Json::Array(vec![]));
    }
}
