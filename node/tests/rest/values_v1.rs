//! Values under `/v1`: one at a time, by state, listed, and deleted by prefix.

mod orders;

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Answer, head};
use super::kinds::{assert_problem, receipt};
use super::{TOKEN, TestNode, noise, now_s, test_node};

const MAX_VALUE_BYTES: usize = 25 << 20;
const MAX_PAGE_VALUE_BYTES: usize = 4 << 20;
const MAX_INLINE_BYTES: usize = 16 << 10;

impl TestNode {
    /// A request with headers: `path` begins with "/".
    async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        self.client.send(method, &self.kinds_path(path), headers, body.as_ref()).await
    }
}

#[track_caller]
fn etag(answer: &Answer) -> String {
    let etag = answer.header("etag").unwrap_or_else(|| panic!("no ETag: {answer:?}")).to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "{etag}");
    etag
}

/// That the answer is to a condition, and who has decided.
#[track_caller]
fn assert_decided(answer: &Answer, status: u16) {
    assert_eq!(
        (answer.status, answer.header("littoral-condition")),
        (status, Some("pop=test")),
        "{answer:?}"
    );
}

/// That the condition did not hold, and which state was met.
#[track_caller]
fn assert_unmet(answer: &Answer, current: Option<&str>) {
    assert_decided(answer, 412);
    assert_problem(answer, 412, 20020, "is not one that this request is for");
    assert_eq!(answer.json()["etag"], json!(current), "{answer:?}");
    assert_eq!(answer.header("etag"), current);
}

fn keys(rows: &Json) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_written_read_described_and_deleted() {
    let node = test_node().await;
    assert_problem(&node.ask("GET", "/values/k", "").await, 404, 10009, "key not found");
    let written = node
        .ask_with(
            "PUT",
            "/values/k?expiration_ttl=1000",
            &[("Littoral-Metadata", r#"{"a": "ü"}"#)],
            b"\0\xff",
        )
        .await;
    assert_eq!(etag(&written), format!("\"{}\"", receipt(&written)));
    let read = node.ask("GET", "/values/k", "").await;
    assert_eq!((read.status, &read.body[..], etag(&read)), (200, &b"\0\xff"[..], etag(&written)));
    assert_eq!(read.header("littoral-metadata"), Some(r#"{"a":"\u00fc"}"#));
    assert_eq!(read.header("littoral-condition"), None);
    let at_s: u64 = read.header("expiration").unwrap().parse().unwrap();
    assert!((now_s() + 990..=now_s() + 1000).contains(&at_s), "{read:?}");
    // The two APIs have the same values.
    assert_eq!(node.value("k").await, b"\0\xff");

    let described = node.ask("PUT", "/values/k/metadata", "[1.0]").await;
    assert_ne!(etag(&described), etag(&read));
    let read = node.ask("GET", "/values/k", "").await;
    assert_eq!((&read.body[..], read.header("littoral-metadata")), (&b"\0\xff"[..], Some("[1.0]")));
    assert_eq!(read.header("expiration"), Some(&*at_s.to_string()));
    receipt(&node.ask("DELETE", "/values/k/metadata", "").await);
    let again = node.ask("DELETE", "/values/k/metadata", "").await;
    assert_eq!((again.status, again.json()), (200, json!({ "receipt": null })));
    assert_eq!(node.ask("GET", "/values/k", "").await.header("littoral-metadata"), None);
    assert_problem(&node.ask("PUT", "/values/none/metadata", "1").await, 404, 10009, "key not found");

    receipt(&node.ask("DELETE", "/values/k", "").await);
    receipt(&node.ask("DELETE", "/values/k", "").await);
    assert_eq!(node.ask("GET", "/values/k", "").await.status, 404);
    for (path, headers, status, code, text) in [
        ("/values/k?expiration_ttl=0", None, 400, 10034, "at least 1"),
        ("/values/k?ack=never", None, 400, 10021, "ack must be"),
        ("/values/k", Some("{"), 400, 10021, "metadata must be valid JSON"),
        ("/values/..%2E", None, 200, 0, ""),
        ("/values/%2E", None, 400, 10021, "not allowed as a key name"),
    ] {
        let headers: Vec<_> = headers.map(|json| ("Littoral-Metadata", json)).into_iter().collect();
        let answer = node.ask_with("PUT", path, &headers, "v").await;
        if status == 200 {
            receipt(&answer);
        } else {
            assert_problem(&answer, status, code, text);
        }
    }
    assert_eq!(node.ask("PATCH", "/values/k", "").await.header("allow"), Some("GET, PUT, DELETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_byte_exact_to_their_limit_and_their_heads_say_how_long_they_are() {
    let node = test_node().await;
    for len in [0, 1, MAX_INLINE_BYTES, MAX_INLINE_BYTES + 1, MAX_VALUE_BYTES] {
        let value = noise(len);
        receipt(&node.ask("PUT", "/values/k", &value).await);
        let read = node.ask("GET", "/values/k", "").await;
        assert!(read.body == value && read.complete, "{len}");
        let head = head(
            "HEAD",
            &node.kinds_path("/values/k"),
            &[("Authorization", format!("Bearer {TOKEN}")), ("Connection", "close".to_owned())],
        );
        let mut stream = node.client.connect().await;
        stream.write_all(&head).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        let told = told.to_ascii_lowercase();
        assert!(told.contains(&format!("content-length: {len}\r\n")) && told.ends_with("\r\n\r\n"), "{told}");
        assert!(told.contains(&format!("etag: {}\r\n", etag(&read))), "{told}");
    }
    let refused = node.ask("PUT", "/values/k", noise(MAX_VALUE_BYTES + 1)).await;
    assert_problem(&refused, 413, 10030, "exceeds limit of 26214400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_a_known_state_is_not_sent_again() {
    let node = test_node().await;
    receipt(&node.ask("PUT", "/values/v", "1").await);
    node.done("POST", "/counters/c", r#"{"add":1}"#).await;
    receipt(&node.ask("PUT", "/sets/s/members/m", "").await);
    receipt(&node.ask("PUT", "/maps/m/fields/f", "1").await);
    for (path, method, change) in [
        ("/values/v", "PUT", "2"),
        ("/counters/c", "POST", r#"{"add":0}"#),
        ("/sets/s/members/m", "PUT", ""),
        ("/maps/m/fields/f", "PUT", "2"),
    ] {
        let known = etag(&node.ask("GET", path, "").await);
        for tags in [known.clone(), format!("\"x\", W/{known}"), "*".to_owned()] {
            let answer = node.ask_raw_304(path, &tags).await;
            assert!(answer.contains(&known), "{path} {answer}");
        }
        let other = node.ask_with("GET", path, &[("If-None-Match", "\"x\"")], "").await;
        assert_decided(&other, 200);
        let matched = node.ask_with("GET", path, &[("If-Match", &known)], "").await;
        assert_decided(&matched, 200);
        let unmet = node.ask_with("GET", path, &[("If-Match", &format!("W/{known}"))], "").await;
        assert_unmet(&unmet, Some(&known));
        receipt(&node.ask(method, path, change).await);
        let now = node.ask_with("GET", path, &[("If-None-Match", &known)], "").await;
        assert_decided(&now, 200);
        assert_ne!(etag(&now), known, "{path}");
        let none = format!("{path}-none");
        assert_eq!(node.ask_with("GET", &none, &[("If-None-Match", "*")], "").await.status, 404);
        assert_unmet(&node.ask_with("GET", &none, &[("If-Match", "*")], "").await, None);
    }
}

impl TestNode {
    /// The head of an answer that has no body.
    async fn ask_raw_304(&self, path: &str, tags: &str) -> String {
        let headers = [
            ("Authorization", format!("Bearer {TOKEN}")),
            ("If-None-Match", tags.to_owned()),
            ("Connection", "close".to_owned()),
        ];
        let mut stream = self.client.connect().await;
        let head = head("GET", &self.kinds_path(path), &headers);
        stream.write_all(&head).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 304") && told.ends_with("\r\n\r\n"), "{told}");
        assert!(told.contains("littoral-condition: pop=test\r\n"), "{told}");
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_done_in_the_states_that_it_is_for() {
    let node = test_node().await;
    for (path, method, body) in [
        ("/values/v", "PUT", "1"),
        ("/counters/c", "POST", r#"{"add":1}"#),
        ("/sets/s/members/m", "PUT", ""),
        ("/maps/m/fields/f", "PUT", "1"),
    ] {
        let write = async |name: &str, tags: &str| node.ask_with(method, path, &[(name, tags)], body).await;
        let delete = async |name: &str, tags: &str| node.ask_with("DELETE", path, &[(name, tags)], "").await;
        assert_unmet(&write("If-Match", "*").await, None);
        assert_unmet(&delete("If-Match", "\"x\"").await, None);
        let first = write("If-None-Match", "*").await;
        assert_decided(&first, 200);
        let first = etag(&first);
        assert_eq!(etag(&node.ask("GET", path, "").await), first, "{path}");
        assert_unmet(&write("If-None-Match", "*").await, Some(&first));
        assert_unmet(&write("If-None-Match", &format!("\"x\",{first}")).await, Some(&first));
        assert_unmet(&write("If-Match", "\"x\"").await, Some(&first));
        assert_unmet(&write("If-Match", &format!("W/{first}")).await, Some(&first));
        let second = write("If-Match", &format!("\"x\", {first}")).await;
        assert_decided(&second, 200);
        let second = etag(&second);
        assert_ne!(first, second, "{path}");
        assert_unmet(&delete("If-Match", &first).await, Some(&second));
        let both = [("If-Match", "*"), ("If-None-Match", &*second)];
        assert_unmet(&node.ask_with("DELETE", path, &both, "").await, Some(&second));
        assert_decided(&delete("If-Match", &second).await, 200);
        assert_eq!(node.ask("GET", path, "").await.status, 404, "{path}");
        assert_unmet(&delete("If-Match", "*").await, None);
        assert_decided(&write("If-None-Match", &second).await, 200);
        for bad in ["x", "\"x", "*, \"x\"", "\"x\" \"y\"", ""] {
            let refused = write("If-Match", bad).await;
            assert_problem(&refused, 400, 10021, "if-match must be * or tags as ETag gave them");
        }
        let many = |count| vec!["\"x\""; count].join(",");
        assert_unmet(&write("If-Match", &many(32)).await, Some(&etag(&node.ask("GET", path, "").await)));
        assert_problem(&write("If-Match", &many(33)).await, 400, 10021, "more than 32 tags");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_nobody_would_decide_is_refused() {
    let node = test_node().await;
    for (method, path, body) in [
        ("DELETE", "/values?prefix=a", ""),
        ("POST", "/values", ""),
        ("POST", "/sets/s", r#"{"add":["a"]}"#),
        ("DELETE", "/sets/s", ""),
        ("PATCH", "/maps/m", r#"{"fields":{"a":"b"}}"#),
        ("PUT", "/maps/m/metadata", "1"),
    ] {
        let refused = node.ask_with(method, path, &[("If-Match", "*")], body).await;
        assert_problem(&refused, 400, 10021, "not for this");
    }
    assert_eq!(node.ask_with("GET", "/values", &[("If-None-Match", "*")], "").await.status, 200);
}

/// Found by schemathesis: of a document the state was looked at first, and the answer was 412.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_understood_is_told_so_whatever_the_state_is() {
    let node = test_node().await;
    for path in ["/values/k", "/docs/k", "/sets/s/members/m", "/maps/m/fields/f", "/counters/c"] {
        for method in ["PUT", "DELETE", "POST"] {
            let answer = node.ask_with(method, &format!("{path}?ack="), &[("If-Match", "\"x\"")], "1").await;
            assert!(matches!(answer.status, 400 | 405), "{method} {path}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_conditional_too_and_replaces_no_value_of_others() {
    let node = test_node().await;
    let first = etag(&node.ask("PUT", "/values/k", noise(20_000)).await);
    assert_unmet(
        &node.ask_with("PUT", "/values/k/metadata", &[("If-Match", "\"x\"")], "1").await,
        Some(&first),
    );
    assert_unmet(
        &node.ask_with("DELETE", "/values/k/metadata", &[("If-Match", "\"x\"")], "").await,
        Some(&first),
    );
    let described = node.ask_with("PUT", "/values/k/metadata", &[("If-Match", &first)], "1").await;
    assert_decided(&described, 200);
    assert_eq!(node.value("k").await, noise(20_000));
    node.done("POST", "/counters/c", r#"{"add":1}"#).await;
    let known = etag(&node.ask("GET", "/counters/c", "").await);
    receipt(&node.ask_with("PUT", "/counters/c/metadata", &[("If-Match", &known)], "1").await);
    assert_ne!(etag(&node.ask("GET", "/counters/c", "").await), known);
    assert_eq!(node.ask_with("PUT", "/counters/c/metadata", &[("If-Match", &known)], "2").await.status, 412);

    // While one describes, another writes: nothing that was written is lost.
    let node = Arc::new(node);
    let writer = {
        let node = node.clone();
        tokio::spawn(async move {
            for number in 0..100 {
                receipt(&node.ask("PUT", "/values/busy", number.to_string()).await);
            }
        })
    };
    while !writer.is_finished() {
        let answer = node.ask("PUT", "/values/busy/metadata", "1").await;
        assert!(matches!(answer.status, 200 | 404 | 429), "{answer:?}");
    }
    writer.await.unwrap();
    assert_eq!(node.value("busy").await, b"99");
}

/// Eight clients count by reading a value and writing the next one where nobody has meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn of_all_who_write_upon_one_state_one_does() {
    const CLIENTS: usize = 8;
    const INCREMENTS: usize = 25;
    let node = Arc::new(test_node().await);
    receipt(&node.ask("PUT", "/values/n", "0").await);
    let client = |node: Arc<TestNode>| async move {
        let (mut done, mut lost) = (0, 0);
        while done < INCREMENTS {
            let read = node.ask("GET", "/values/n", "").await;
            let next = String::from_utf8_lossy(&read.body).parse::<usize>().unwrap() + 1;
            let ack = if done % 2 == 0 { "durable" } else { "buffered" };
            let path = format!("/values/n?ack={ack}");
            let written = node.ask_with("PUT", &path, &[("If-Match", &etag(&read))], next.to_string()).await;
            match written.status {
                200 => done += 1,
                412 => lost += 1,
                _ => panic!("{written:?}"),
            }
        }
        lost
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(node.clone()))).collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(node.value("n").await, (CLIENTS * INCREMENTS).to_string().as_bytes());

    // All at once upon one state that they have all seen.
    for _ in 0..25 {
        let known = etag(&node.ask("GET", "/values/n", "").await);
        let write = |node: Arc<TestNode>, known: String| async move {
            node.ask_with("PUT", "/values/n", &[("If-Match", &known)], "x").await.status
        };
        let writes: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(write(node.clone(), known.clone()))).collect();
        let mut won = 0;
        for write in writes {
            won += usize::from(write.await.unwrap() == 200);
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_has_expired_is_none() {
    let node = test_node().await;
    let known = etag(&node.ask("PUT", "/values/k?expiration_ttl=1", "v").await);
    assert_unmet(&node.ask_with("PUT", "/values/k", &[("If-None-Match", "*")], "w").await, Some(&known));
    while node.ask("GET", "/values/k", "").await.status == 200 {}
    assert_unmet(&node.ask_with("PUT", "/values/k", &[("If-Match", &known)], "w").await, None);
    assert_decided(&node.ask_with("PUT", "/values/k", &[("If-None-Match", "*")], "w").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_listed_in_pages_and_written_again_from_their_lines() {
    let node = test_node().await;
    for key in ["a", "b%2F1", "b%2F2", "c"] {
        receipt(&node.ask_with("PUT", &format!("/values/{key}"), &[("Littoral-Metadata", "[1]")], key).await);
    }
    receipt(&node.ask("PUT", "/values/b%2F3?expiration_ttl=1000", b"\xff").await);
    let page = node.done("GET", "/values?prefix=b/&limit=2", "").await;
    assert_eq!(keys(&page["values"]), ["b/1", "b/2"]);
    assert_eq!(page["values"][0], json!({ "key": "b/1", "size": 5, "metadata": [1] }));
    assert_eq!((&page["next_after"], &page["omitted"]), (&json!("b/2"), &json!(0)));
    let page = node.done("GET", "/values?prefix=b/&limit=2&after=b/2&include=values", "").await;
    assert_eq!((keys(&page["values"]), &page["next_after"]), (vec!["b/3"], &Json::Null));
    assert_eq!(page["values"][0]["base64"], "/w==");

    let accept = [("Accept", "application/x-ndjson")];
    let lines = node.ask_with("GET", "/values?include=values&limit=3", &accept, "").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.header("littoral-next-after"), Some("b%2F2"));
    let lines = node.ask_with("GET", "/values?include=values", &accept, "").await;
    assert_eq!((lines.header("littoral-next-after"), lines.header("littoral-omitted")), (None, Some("0")));
    let text = String::from_utf8(lines.body.clone()).unwrap();
    assert_eq!(text.lines().count(), 5);
    assert_eq!(node.done("DELETE", "/values?all=true", "").await, json!({ "deleted": 5, "complete": true }));
    assert_eq!(keys(&node.done("GET", "/values", "").await["values"]), Vec::<&str>::new());
    let answers = node.order(text.clone()).await;
    assert!(answers.len() == 5 && answers.iter().all(|answer| answer["receipt"].is_string()), "{answers:?}");
    let again = node.ask_with("GET", "/values?include=values", &accept, "").await;
    assert_eq!(String::from_utf8(again.body).unwrap(), text);
    for (query, text) in [
        ("limit=0", "limit must be 1 to 1000"),
        ("limit=1001", "limit must be 1 to 1000"),
        ("include=all", "include must be values"),
    ] {
        assert_problem(&node.ask("GET", &format!("/values?{query}"), "").await, 400, 10021, text);
    }
    assert_eq!(node.ask("GET", "/values?limit=1", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_so_many_bytes_of_values_and_says_what_it_leaves_out() {
    let node = test_node().await;
    for (key, len) in [
        ("a", 1),
        ("b", MAX_PAGE_VALUE_BYTES - 1),
        ("c", MAX_PAGE_VALUE_BYTES),
        ("d", MAX_PAGE_VALUE_BYTES + 1),
        ("e", 1),
    ] {
        receipt(&node.ask("PUT", &format!("/values/{key}"), noise(len)).await);
    }
    let page = async |after: &str| {
        let page = node.done("GET", &format!("/values?include=values&after={after}"), "").await;
        let sizes = page["values"].as_array().unwrap().iter();
        let sizes: Vec<_> = sizes.map(|row| row["size"].as_u64()).collect();
        let keys = keys(&page["values"]).concat();
        (keys, sizes, page["omitted"].as_u64().unwrap(), page["next_after"].as_str().map(str::to_owned))
    };
    assert_eq!(page("").await, ("ab".into(), vec![None, None], 0, Some("b".into())));
    let size = Some(MAX_PAGE_VALUE_BYTES as u64 + 1);
    assert_eq!(page("b").await, ("cd".into(), vec![None, size], 1, Some("d".into())));
    assert_eq!(page("d").await, ("e".into(), vec![None], 0, None));
    // What is left out cannot be taken for a value.
    let answers = node.order("{\"key\":\"d\",\"size\":4194305}\n").await;
    assert_eq!(answers[0]["problem"]["code"], 10021, "{answers:?}");
    assert_eq!(node.value("d").await.len(), MAX_PAGE_VALUE_BYTES + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_with_a_prefix_are_deleted_however_many_and_no_others() {
    let node = test_node().await;
    for count in [0, 1, 199, 200, 201, 450] {
        let lines: String =
            (0..count).map(|number| format!("{{\"key\":\"p/{number}\",\"value\":\"\"}}\n")).collect();
        node.order(format!("{lines}{{\"key\":\"p\",\"value\":\"\"}}\n{{\"key\":\"q\",\"value\":\"\"}}\n"))
            .await;
        let deleted = node.done("DELETE", "/values?prefix=p/", "").await;
        assert_eq!(deleted, json!({ "deleted": count, "complete": true }));
        assert_eq!(keys(&node.done("GET", "/values", "").await["values"]), ["p", "q"]);
    }
    for path in ["/values", "/values?prefix=", "/values?all=false"] {
        assert_problem(&node.ask("DELETE", path, "").await, 400, 10021, "give prefix, or all=true");
    }
    assert_problem(&node.ask("DELETE", "/values?all=yes", "").await, 400, 10021, "all must be");
    for (len, fits) in [(511, true), (512, true), (513, false)] {
        let answer = node.ask("DELETE", &format!("/values?prefix={}", "x".repeat(len)), "").await;
        assert_eq!(answer.status, if fits { 200 } else { 414 }, "{answer:?}");
    }
    assert_eq!(node.done("DELETE", "/values?prefix=&all=true", "").await["deleted"], 2);
}
