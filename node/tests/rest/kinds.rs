//! Counters, sets and maps: each call, its limits, and what it answers.

mod access;
mod bounded;
mod client;

use littoral_node::engine::{Ack, Write};
use replication::{Change, Content, EntryId, Kind};
use serde_json::{Value as Json, json};

use super::client::Answer;
use super::{ACCOUNT, TestNode, now_s, test_node};

/// The largest metadata, as JSON.
const MAX_METADATA_BYTES: usize = 1024;

impl TestNode {
    pub(super) fn kinds_path(&self, path: &str) -> String {
        format!("/v1/accounts/{ACCOUNT}/namespaces/{}{path}", self.id())
    }

    /// A request about a counter, set or map: `path` begins with "/".
    pub(super) async fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.client.send(method, &self.kinds_path(path), &[], body.as_ref()).await
    }

    /// The same, as JSON, where it is done.
    pub(super) async fn done(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Json {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.json()
    }

    async fn count(&self, key: &str) -> Option<i64> {
        let answer = self.ask("GET", &format!("/counters/{key}"), "").await;
        (answer.status != 404).then(|| answer.json()["count"].as_i64().unwrap())
    }
}

/// Asserts that these are the problem details of this error.
#[track_caller]
pub(super) fn assert_problem(answer: &Answer, status: u16, code: u64, text: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{answer:?}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(text), "\"{text}\" is not in \"{detail}\"");
}

/// What was done where it fits a limit, and refused with this error where not.
#[track_caller]
pub(super) fn assert_fits(answer: &Answer, fits: bool, status: u16, code: u64, text: &str) {
    if fits {
        assert_eq!(answer.status, 200, "{answer:?}");
    } else {
        assert_problem(answer, status, code, text);
    }
}

/// The event that a write's answer names, in its header and where its body has one.
#[track_caller]
pub(super) fn receipt(answer: &Answer) -> String {
    let receipt = answer.header("littoral-receipt").expect("a write names its event").to_owned();
    let (hlc, replica) = receipt.split_once('-').unwrap();
    assert!(hlc.len() == 16 && replica.len() == 32, "{receipt}");
    let body = answer.json();
    assert!(body.get("receipt").is_none_or(|said| *said == receipt), "{answer:?}");
    receipt
}

fn names(rows: &Json) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_counts_is_described_listed_and_reset() {
    let node = test_node().await;
    assert_problem(&node.ask("GET", "/counters/hits", "").await, 404, 10009, "no such counter");
    let first = node.ask("POST", "/counters/hits", r#"{"add":5}"#).await;
    let expected = json!({ "key": "hits", "count": 5, "metadata": null, "expiration": null });
    assert_eq!(first.json(), expected);
    let second = node.ask("POST", "/counters/hits", r#"{"add":-7}"#).await;
    assert_eq!(second.json()["count"], -2);
    assert!(receipt(&first) < receipt(&second), "{first:?} {second:?}");
    assert_eq!(node.done("POST", "/counters/hits?ack=buffered", r#"{"add":0}"#).await["count"], -2);

    receipt(&node.ask("PUT", "/counters/hits/metadata", r#" {"of": 1.0} "#).await);
    let counter = node.ask("GET", "/counters/hits", "").await;
    assert!(String::from_utf8_lossy(&counter.body).contains(r#""metadata":{"of":1.0}"#), "{counter:?}");
    node.done("POST", "/counters/other", r#"{"add":1,"expiration_ttl":1000}"#).await;
    let listed = node.done("GET", "/counters", "").await;
    assert_eq!(names(&listed["keys"]), ["hits", "other"]);
    assert_eq!(listed["keys"][0], json!({ "name": "hits", "metadata": { "of": 1.0 } }));
    let at_s = listed["keys"][1]["expiration"].as_u64().unwrap();
    assert!((now_s() + 990..=now_s() + 1000).contains(&at_s), "{listed}");
    assert_eq!(listed["next_after"], Json::Null);
    receipt(&node.ask("DELETE", "/counters/hits/metadata", "").await);
    assert_eq!(node.done("GET", "/counters/hits", "").await["metadata"], Json::Null);

    receipt(&node.ask("DELETE", "/counters/hits", "").await);
    receipt(&node.ask("DELETE", "/counters/hits", "").await);
    assert_eq!(node.count("hits").await, None);
    assert_eq!(names(&node.done("GET", "/counters", "").await["keys"]), ["other"]);
    assert_eq!(node.done("POST", "/counters/hits", r#"{"add":3}"#).await["count"], 3);
    // No metadata is taken from what is not there, and no counter made by that.
    let nothing = node.ask("DELETE", "/counters/never/metadata", "").await;
    assert_eq!(
        (nothing.status, nothing.json(), nothing.header("littoral-receipt")),
        (200, json!({ "receipt": null }), None)
    );
    assert_eq!(node.count("never").await, None);
    let node = node.restart(0).await;
    assert_eq!((node.count("hits").await, node.count("other").await), (Some(3), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_has_limits_and_says_which() {
    let node = test_node().await;
    const MOST: i64 = (1 << 53) - 1;
    for (amount, fits) in [(MOST - 1, true), (1, true), (-MOST, true)] {
        let body = json!({ "add": amount }).to_string();
        assert_fits(&node.ask("POST", "/counters/c", body).await, fits, 400, 10021, "");
    }
    assert_eq!(node.count("c").await, Some(0));
    for amount in [MOST + 1, -MOST - 1, i64::MIN, i64::MAX] {
        let body = json!({ "add": amount }).to_string();
        let refused = node.ask("POST", "/counters/new", body).await;
        assert_problem(&refused, 400, 10021, "add must be at most 9007199254740991 either way");
    }
    let refused = node.ask("POST", "/counters/c", r#"{"add":1}"#).await;
    assert_problem(&refused, 400, 10021, "cannot count further than 9007199254740991");
    for (body, text) in [
        ("", "it is no object"),
        ("{}", "missing field `add`"),
        (r#"{"add":1.5}"#, "expected i64"),
        (r#"{"add":"1"}"#, "expected i64"),
        (r#"{"add":1e300}"#, "expected i64"),
        (r#"{"add":1,"ttl":1}"#, "unknown field `ttl`"),
        (r#"{"add":1,"expiration_ttl":-1}"#, "expected u64"),
        ("[1]", "it is no object"),
    ] {
        assert_problem(&node.ask("POST", "/counters/new", body).await, 400, 6008, text);
    }
    assert_eq!(node.count("new").await, None);
    let longer = json!({ "add": 1, "pad": "x".repeat(4 << 20) }).to_string();
    assert_problem(&node.ask("POST", "/counters/new", longer).await, 413, 20010, "exceeds 4194304 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_asked_for_in_seconds_and_at_least_one() {
    let node = test_node().await;
    let now = now_s();
    for (body, fits, text) in [
        (json!({ "add": 1, "expiration_ttl": 0 }), false, "Expiration TTL must be at least 1."),
        (json!({ "add": 1, "expiration_ttl": 1 }), true, ""),
        (json!({ "add": 1, "expiration_ttl": 2 }), true, ""),
        (json!({ "add": 1, "expiration": now }), false, "must be at least 1 seconds in the future"),
        (json!({ "add": 1, "expiration": now + 100 }), true, ""),
        (json!({ "add": 1, "expiration": u64::MAX }), false, "after the year 9999"),
    ] {
        let answer = node.ask("POST", "/counters/c", body.to_string()).await;
        assert_fits(&answer, fits, 400, 10034, text);
    }
    for path in ["/sets/s/members/m", "/maps/m/fields/f"] {
        for (ttl, fits) in [("0", false), ("0.9", false), ("1", true), ("100", true)] {
            let answer = node.ask("PUT", &format!("{path}?expiration_ttl={ttl}"), "v").await;
            assert_fits(&answer, fits, 400, 10034, "must be at least 1");
        }
        let answer = node.ask("PUT", &format!("{path}?expiration={}", now + 1000), "v").await;
        assert_fits(&answer, true, 0, 0, "");
    }
    assert_eq!(node.done("GET", "/sets/s/members/m", "").await["expiration"], now + 1000);
    assert_eq!(node.done("GET", "/sets/s", "").await["members"][0]["expiration"], now + 1000);
    assert_eq!(node.done("GET", "/maps/m", "").await["fields"][0]["expiration"], now + 1000);
    let field = node.ask("GET", "/maps/m/fields/f", "").await;
    assert_eq!(field.header("expiration"), Some((now + 1000).to_string().as_str()));
}

/// What has expired is nowhere to be seen. Written past the REST API, which takes no time that is over.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_on_no_page() {
    let node = test_node().await;
    let namespace = node.id().parse().unwrap();
    let over = Some(now_s() - 1);
    let content = |bytes: &'static str| Content { bytes: bytes.into(), expires_at_s: over };
    let writes = vec![
        Write::Change {
            id: EntryId::whole(namespace, Kind::Counter, "k"),
            change: Change::Add { amount: 9, expires_at_s: over },
        },
        Write::Change {
            id: EntryId::element(namespace, Kind::Set, "k", "m"),
            change: Change::Put(content("")),
        },
        Write::Change {
            id: EntryId::element(namespace, Kind::Map, "k", "f"),
            change: Change::Put(content("v")),
        },
    ];
    node.running.engine.write(writes, Ack::Durable).await.unwrap();
    for path in ["/counters/k", "/sets/k/members/m", "/maps/k/fields/f"] {
        assert_problem(&node.ask("GET", path, "").await, 404, 10009, "there is no such");
    }
    for (path, rows) in [
        ("/counters", "keys"),
        ("/sets", "keys"),
        ("/maps", "keys"),
        ("/sets/k", "members"),
        ("/maps/k", "fields"),
    ] {
        assert_eq!(node.done("GET", path, "").await[rows], json!([]), "{path}");
    }
    assert_eq!(node.done("POST", "/counters/k", r#"{"add":1}"#).await["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_has_members_a_page_at_a_time() {
    let node = test_node().await;
    let empty = json!({ "key": "s", "metadata": null, "members": [], "next_after": null });
    assert_eq!(node.done("GET", "/sets/s", "").await, empty);
    assert_problem(&node.ask("GET", "/sets/s/members/a", "").await, 404, 10009, "no such member");
    let put = node.ask("PUT", "/sets/s/members/a", "").await;
    let body = r#"{"add":["b","c","d"],"remove":["a","never"]}"#;
    assert!(receipt(&put) < receipt(&node.ask("POST", "/sets/s", body).await));
    assert_eq!(node.done("GET", "/sets/s/members/b", "").await, json!({ "name": "b" }));
    receipt(&node.ask("PUT", "/sets/s/metadata", "[1]").await);
    let page = node.done("GET", "/sets/s", "").await;
    assert_eq!((names(&page["members"]), &page["metadata"]), (vec!["b", "c", "d"], &json!([1])));
    let listed = node.done("GET", "/sets", "").await;
    assert_eq!(listed["keys"], json!([{ "name": "s", "metadata": [1] }]));

    receipt(&node.ask("DELETE", "/sets/s/members/c", "").await);
    receipt(&node.ask("DELETE", "/sets/s/members/c", "").await);
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = node.done("GET", &format!("/sets/s?limit=1&after={after}"), "").await;
        seen.extend(names(&page["members"]).into_iter().map(str::to_owned));
        match page["next_after"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["b", "d"]);
    assert_eq!(names(&node.done("GET", "/sets/s?prefix=d", "").await["members"]), ["d"]);

    receipt(&node.ask("DELETE", "/sets/s", "").await);
    assert_eq!(node.done("GET", "/sets/s", "").await, empty);
    assert_eq!(node.done("GET", "/sets", "").await["keys"], json!([]));
    node.done("PUT", "/sets/s/members/b", "").await;
    assert_eq!(names(&node.done("GET", "/sets/s", "").await["members"]), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_set_have_limits_and_of_one_refused_nothing_is_done() {
    let node = test_node().await;
    let members = |from: usize, to: usize| (from..to).map(|n| format!("m{n:04}")).collect::<Vec<_>>();
    for (adds, removes, fits) in [(999, 0, true), (600, 400, true), (601, 400, false), (0, 1001, false)] {
        let body = json!({ "add": members(0, adds), "remove": members(adds, adds + removes) }).to_string();
        let answer = node.ask("POST", "/sets/s", body).await;
        assert_fits(&answer, fits, 400, 10024, "1001 changes exceed the limit of 1000");
    }
    assert_eq!(node.done("GET", "/sets/s", "").await["members"].as_array().unwrap().len(), 600);
    let longest = "ü".repeat(256);
    for (body, text) in [
        (json!({}), "there is nothing to change"),
        (json!({ "add": [] }), "there is nothing to change"),
        (json!({ "add": ["new", ""] }), "the member cannot be empty"),
        (json!({ "add": ["new", ".."] }), "\"..\" is not allowed as the member"),
        (json!({ "add": ["new"], "remove": ["new"] }), "the member \"new\" is given twice"),
        (json!({ "add": ["new", "new"] }), "the member \"new\" is given twice"),
    ] {
        assert_problem(&node.ask("POST", "/sets/n", body.to_string()).await, 400, 10021, text);
    }
    let body = json!({ "add": ["new", format!("{longest}x")] }).to_string();
    let refused = node.ask("POST", "/sets/n", body).await;
    assert_problem(&refused, 400, 10022, "the member of 513 bytes exceeds the limit of 512 bytes");
    for body in ["", "[]", r#"{"add":"a"}"#, r#"{"add":[1]}"#, r#"{"put":["a"]}"#, "{\"add\":[\"\u{fffd}\"]"]
    {
        assert_problem(&node.ask("POST", "/sets/n", body).await, 400, 6008, "could not parse");
    }
    assert_eq!(node.done("GET", "/sets/n", "").await["members"], json!([]));
    node.done("POST", "/sets/n", json!({ "add": [longest] }).to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_has_fields_with_values_of_any_bytes() {
    let node = test_node().await;
    assert_problem(&node.ask("GET", "/maps/m/fields/a", "").await, 404, 10009, "no such field");
    let bytes: Vec<u8> = (0..=255).collect();
    receipt(&node.ask("PUT", "/maps/m/fields/bytes", &bytes).await);
    receipt(&node.ask("PUT", "/maps/m/fields/empty", "").await);
    let answer = node.ask("GET", "/maps/m/fields/bytes", "").await;
    assert_eq!((answer.header("content-type"), &answer.body), (Some("application/octet-stream"), &bytes));
    let patch = json!({ "fields": { "a": "ü\0", "empty": null, "never": null } }).to_string();
    receipt(&node.ask("PATCH", "/maps/m", patch).await);
    receipt(&node.ask("PUT", "/maps/m/metadata", r#""m""#).await);
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
    let expected = json!({
        "key": "m",
        "metadata": "m",
        "fields": [{ "name": "a", "value": "ü\0" }, { "name": "bytes", "base64": base64 }],
        "next_after": null,
    });
    assert_eq!(node.done("GET", "/maps/m", "").await, expected);
    let first = node.done("GET", "/maps/m?limit=1", "").await;
    assert_eq!((names(&first["fields"]), &first["next_after"]), (vec!["a"], &json!("a")));
    assert_eq!(names(&node.done("GET", "/maps/m?after=a", "").await["fields"]), ["bytes"]);
    assert_eq!(node.done("GET", "/maps", "").await["keys"], json!([{ "name": "m", "metadata": "m" }]));
    node.done("PUT", "/maps/m/fields/a", "later").await;
    assert_eq!(node.ask("GET", "/maps/m/fields/a", "").await.body, b"later");
    receipt(&node.ask("DELETE", "/maps/m/fields/a", "").await);
    assert_eq!(node.ask("GET", "/maps/m/fields/a", "").await.status, 404);
    receipt(&node.ask("DELETE", "/maps/m", "").await);
    assert_eq!(node.done("GET", "/maps/m", "").await["fields"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_map_have_limits() {
    let node = test_node().await;
    for (len, fits) in [(16_383, true), (16_384, true), (16_385, false)] {
        let value = "v".repeat(len);
        let put = node.ask("PUT", "/maps/m/fields/f", &value).await;
        assert_fits(&put, fits, 413, 10030, "the value of a field exceeds 16384 bytes");
        let path = node.kinds_path("/maps/m/fields/f");
        let chunked = node.client.send_chunked("PUT", &path, value.as_bytes(), 1000).await;
        assert_fits(&chunked, fits, 413, 10030, "the value of a field exceeds 16384 bytes");
        let patch = node.ask("PATCH", "/maps/m", json!({ "fields": { "g": value } }).to_string()).await;
        assert_fits(&patch, fits, 413, 10030, "the value of a field exceeds 16384 bytes");
    }
    for (count, fits) in [(999, true), (1000, true), (1001, false)] {
        let fields: serde_json::Map<_, _> = (0..count).map(|n| (format!("f{n}"), json!("v"))).collect();
        let patch = node.ask("PATCH", "/maps/many", json!({ "fields": fields }).to_string()).await;
        assert_fits(&patch, fits, 400, 10024, "1001 changes exceed the limit of 1000");
    }
    for (body, code, text) in [
        (r#"{"fields":{}}"#, 10021, "there is nothing to change"),
        (r#"{"fields":{"":"v"}}"#, 10021, "the field cannot be empty"),
        (r#"{"fields":{"a":"v",".":"v"}}"#, 10021, "\".\" is not allowed as the field"),
        (r#"{"fields":{"a":1}}"#, 6008, "invalid type"),
        ("{}", 6008, "missing field"),
    ] {
        assert_problem(&node.ask("PATCH", "/maps/n", body).await, 400, code, text);
    }
    assert_eq!(node.done("GET", "/maps/n", "").await["fields"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_as_long_as_they_may_be_and_any_text() {
    let node = test_node().await;
    let add = r#"{"add":1}"#;
    for (len, fits) in [(511, true), (512, true), (513, false)] {
        let name = "k".repeat(len);
        let too_long = "UTF-8 encoded length of 513 exceeds key length limit of 512";
        let key = node.ask("POST", &format!("/counters/{name}"), add).await;
        assert_fits(&key, fits, 414, 10022, too_long);
        let list = node.ask("GET", &format!("/sets?prefix={name}"), "").await;
        assert_fits(&list, fits, 414, 10022, too_long);
        for (path, word) in [("/sets/s/members/", "the member"), ("/maps/m/fields/", "the field")] {
            let element = node.ask("PUT", &format!("{path}{name}"), "").await;
            let text = format!("{word} of 513 bytes exceeds the limit of 512 bytes");
            assert_fits(&element, fits, 400, 10022, &text);
        }
        let list = node.ask("GET", &format!("/sets/s?after={name}"), "").await;
        assert_fits(&list, fits, 400, 10022, "the member of 513 bytes");
    }
    for name in
        ["a%2Fb", "%C3%BC", "%00", "a%00%00b", "%2525", "%F0%9F%8C%8A", "+", "metadata", "members", "a:b"]
    {
        let raw = percent_encoding::percent_decode_str(name).decode_utf8().unwrap().into_owned();
        let counter = node.done("POST", &format!("/counters/{name}"), add).await;
        assert_eq!(counter["key"], raw, "{name}");
        assert_eq!(node.count(name).await, Some(1), "{name}");
        node.done("PUT", &format!("/sets/{name}/members/{name}"), "").await;
        assert_eq!(node.done("GET", &format!("/sets/{name}"), "").await["members"], json!([{ "name": raw }]));
        node.done("PUT", &format!("/maps/{name}/fields/{name}"), &raw).await;
        let listed = node.done("GET", &format!("/maps/{name}"), "").await;
        assert_eq!(listed["fields"], json!([{ "name": raw, "value": raw }]), "{name}");
        node.done("DELETE", &format!("/sets/{name}/members/{name}"), "").await;
        assert_eq!(node.ask("GET", &format!("/sets/{name}/members/{name}"), "").await.status, 404);
    }
    for (path, text) in [
        ("/counters/%FF", "the key is not percent-encoded UTF-8"),
        ("/counters/%zz", "two hexadecimal digits do not follow"),
        ("/counters/.", "\".\" is not allowed as a key name"),
        ("/counters/%2e%2E", "\"..\" is not allowed as a key name"),
        ("/sets/k/members/", "the member cannot be empty"),
        ("/sets/k/members/%FF", "the member is not percent-encoded UTF-8"),
        ("/sets/k/members/..", "\"..\" is not allowed as the member"),
        ("/maps/k/fields/%2E", "\".\" is not allowed as the field"),
        ("/maps/k/fields/%", "the field has a \"%\""),
        ("/maps/k?prefix=%FF", "the query is not percent-encoded UTF-8"),
    ] {
        assert_problem(&node.ask("GET", path, "").await, 400, 10021, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_in_order_and_bounded() {
    let node = test_node().await;
    for key in ["b", "a", "ab", "%C3%A4"] {
        node.done("PUT", &format!("/maps/{key}/fields/f"), "v").await;
        node.done("POST", &format!("/counters/{key}"), r#"{"add":1}"#).await;
    }
    for kind in ["maps", "counters"] {
        assert_eq!(names(&node.done("GET", &format!("/{kind}"), "").await["keys"]), ["a", "ab", "b", "ä"]);
        let page = node.done("GET", &format!("/{kind}?prefix=a&limit=1"), "").await;
        assert_eq!((names(&page["keys"]), &page["next_after"]), (vec!["a"], &json!("a")));
        let page = node.done("GET", &format!("/{kind}?prefix=a&limit=1&after=a"), "").await;
        assert_eq!(names(&page["keys"]), ["ab"]);
    }
    assert_eq!(node.done("GET", "/sets", "").await, json!({ "keys": [], "next_after": null }));
    for path in ["/counters", "/sets", "/maps", "/sets/s", "/maps/m"] {
        for (limit, fits) in [("0", false), ("1", true), ("1000", true), ("1001", false)] {
            let answer = node.ask("GET", &format!("{path}?limit={limit}"), "").await;
            assert_fits(&answer, fits, 400, 10021, "limit must be 1 to 1000, not ");
        }
        let refused = node.ask("GET", &format!("{path}?limit=many"), "").await;
        assert_problem(&refused, 400, 10021, "limit must be a whole number");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_has_its_limit_and_must_be_json() {
    let node = test_node().await;
    for kind in ["counters", "bounded", "sets", "maps"] {
        let path = format!("/{kind}/k/metadata");
        for (len, fits) in
            [(MAX_METADATA_BYTES - 1, true), (MAX_METADATA_BYTES, true), (MAX_METADATA_BYTES + 1, false)]
        {
            let metadata = format!(" \"{}\" ", "m".repeat(len - 2));
            let answer = node.ask("PUT", &path, metadata).await;
            assert_fits(&answer, fits, 413, 10030, "Metadata length of 1025 exceeds limit of 1024");
        }
        for bad in ["", "{", "'a'", "{} {}"] {
            assert_problem(&node.ask("PUT", &path, bad).await, 400, 10021, "metadata must be valid JSON");
        }
        receipt(&node.ask("PUT", &path, "null").await);
        assert_eq!(node.done("DELETE", &path, "").await, json!({ "receipt": null }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_methods_that_are_not_there_are_told() {
    let node = test_node().await;
    for (method, path, allow) in [
        ("POST", "/counters", "GET"),
        ("PUT", "/counters/k", "GET, POST, DELETE"),
        ("PUT", "/bounded/k", "GET, POST, DELETE"),
        ("PATCH", "/sets/k", "GET, POST, DELETE"),
        ("POST", "/maps/k", "GET, PATCH, DELETE"),
        ("GET", "/maps/k/metadata", "PUT, DELETE"),
        ("POST", "/sets/k/members/m", "GET, PUT, DELETE"),
    ] {
        let answer = node.ask(method, path, "").await;
        assert_problem(&answer, 405, 10405, allow);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    for path in ["/sets/", "/sets/k/", "/sets//members/m", "/counters/a/b", "/maps/k/members/m", "/lists"] {
        assert_eq!(node.ask("DELETE", path, "").await.status, 404, "{path}");
    }
}

/// Kinds do not meet: one key names a value, a counter, a set and a map.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_of_each_kind_apart() {
    let node = test_node().await;
    node.send("PUT", "/values/k", "value").await.ok();
    node.done("POST", "/counters/k", r#"{"add":1}"#).await;
    node.done("PUT", "/sets/k/members/m", "").await;
    node.done("PUT", "/maps/k/fields/m", "v").await;
    node.done("DELETE", "/sets/k", "").await;
    node.done("DELETE", "/counters/k", "").await;
    assert_eq!(node.value("k").await, b"value");
    assert_eq!(node.ask("GET", "/maps/k/fields/m", "").await.body, b"v");
    node.send("DELETE", "/values/k", "").await.ok();
    assert_eq!(names(&node.done("GET", "/maps", "").await["keys"]), ["k"]);
    assert_eq!(node.send("GET", "/keys", "").await.ok(), json!([]));
}
