//! Batches at real processes: several writes of any kinds in one request, which are done as a whole or not at all.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::time::{Duration, Instant};

use littoral::{Client, Namespace};
use littoral_tests::cluster::{ACCOUNT, Answer, Cluster, Options, Rest, Site, TOKEN};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value as Json, json};

/// How soon what is awaited must be.
const WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
const POPS: usize = 3;

/// Two PoPs in "west", one in "east", and a namespace that all know.
struct World {
    cluster: Cluster,
    id: String,
    rests: Vec<Rest>,
}

impl World {
    async fn new() -> Self {
        let sites = ["west", "west", "east"].map(|region| Site { region: region.into(), ..Site::default() });
        let options = Options { pops: POPS, sites: sites.into(), ..Options::default() };
        let cluster = Cluster::started(options).await.unwrap();
        let id = cluster.rest(0, "").create_namespace("batches").await.unwrap();
        let rests = (0..POPS).map(|pop| cluster.rest(pop, &id)).collect();
        let world = Self { cluster, id, rests };
        world.until("the namespace", async |rest| get(rest, "/values/none").await.status == 404).await;
        world
    }

    /// Waits until something is so at every PoP.
    async fn until(&self, what: &str, is_so: impl AsyncFn(&Rest) -> bool) {
        for (pop, rest) in self.rests.iter().enumerate() {
            let deadline = Instant::now() + WITHIN;
            while !is_so(rest).await {
                assert!(Instant::now() < deadline, "not in time at pop-{pop}: {what}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Has the region decide, and waits until all know.
    async fn move_to(&self, region: &str) {
        let body = json!({ "region": region }).to_string();
        let set = self.rests[0].native(Method::PUT, "/home", &[], &body).await.unwrap().0;
        assert_eq!(set.status, 200, "{}", set.text());
        self.until("the home", async |rest| json_of(&get(rest, "/home").await)["region"] == region).await;
    }

    fn kv(&self, pop: usize) -> Namespace {
        Client::new(&self.cluster.url(pop), TOKEN).unwrap().account(ACCOUNT).namespace(&self.id)
    }
}

async fn get(rest: &Rest, path: &str) -> Answer {
    rest.native(Method::GET, path, &[], "").await.unwrap().0
}

async fn batch(rest: &Rest, query: &str, headers: &[(&str, &str)], writes: &Json) -> (Answer, HeaderMap) {
    let body = json!({ "writes": writes }).to_string();
    rest.native(Method::POST, &format!("/batch{query}"), headers, &body).await.unwrap()
}

fn json_of(answer: &Answer) -> Json {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn put(key: &str, value: &str) -> Json {
    json!({ "kind": "value", "op": "put", "key": key, "value": value })
}

fn add(key: &str, amount: i64) -> Json {
    json!({ "kind": "counter", "op": "add", "key": key, "amount": amount })
}

fn decided_by(headers: &HeaderMap) -> &str {
    headers.get("littoral-condition").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_one_batch_are_at_every_pop_once_all_hold_it() {
    let world = World::new().await;
    let writes = json!([
        put("v", "text"),
        { "kind": "value", "op": "delete", "key": "none" },
        add("c", -3),
        { "kind": "bounded", "op": "add", "key": "b", "amount": 7 },
        { "kind": "set", "op": "add", "key": "s", "member": "m" },
        { "kind": "map", "op": "put", "key": "m", "field": "f", "value": "x" },
    ]);
    let (done, headers) = batch(&world.rests[0], "?wait=all", &[], &writes).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(headers.get("littoral-wait").unwrap(), "held", "{headers:?}");
    for rest in &world.rests {
        assert_eq!(get(rest, "/values/v").await.body, "text");
        assert_eq!(json_of(&get(rest, "/counters/c").await)["count"], -3);
        assert_eq!(json_of(&get(rest, "/bounded/b").await)["count"], 7);
        assert_eq!(get(rest, "/sets/s/members/m").await.status, 200);
        assert_eq!(get(rest, "/maps/m/fields/f").await.body, "x");
    }

    // The SDK, with what it was told of the state, at another PoP.
    let kv = world.kv(1);
    let at_first = kv.get_versioned("v").await.unwrap().unwrap();
    let moved = || {
        kv.batch()
            .put("moved", at_first.bytes.clone())
            .if_absent()
            .delete("v")
            .if_match(&at_first.etag)
            .add("c", 10)
            .take("b", 0)
            .clear_set("s")
            .insert("s", "only")
            .expiration_ttl_s(3_600)
            .remove_field("m", "f")
    };
    let refused = moved().commit().await.unwrap_err();
    assert!(refused.to_string().contains("writes[3]") && refused.to_string().contains("amount"), "{refused}");
    let batch =
        kv.batch().put("moved", at_first.bytes.clone()).if_absent().delete("v").if_match(&at_first.etag);
    let done = batch.clone().add("c", 10).commit().await.unwrap();
    assert_eq!((done.writes.len(), done.writes[2].count), (3, Some(7)));
    let refused = batch.add("c", 10).commit().await.unwrap_err();
    assert!(refused.is_precondition_failed(), "{refused}");
    assert!(refused.to_string().contains("writes[0] (key \"moved\")"), "{refused}");
    let refused = kv.batch().put("sold", "1").take("b", 8).commit().await.unwrap_err();
    assert!(refused.lacks_rights(), "{refused}");
    let empty = kv.batch().commit().await.unwrap_err();
    assert!(empty.to_string().contains("at least 1 write"), "{empty}");
    world.until("the sum", async |rest| json_of(&get(rest, "/counters/c").await)["count"] == 7).await;
    world.until("the move", async |rest| get(rest, "/values/v").await.status == 404).await;
    assert_eq!(get(&world.rests[1], "/values/sold").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_batch_with_a_condition_that_fails_or_a_wrong_write_nothing_is_done_anywhere() {
    let world = World::new().await;
    let rest = &world.rests[0];
    assert_eq!(batch(rest, "", &[], &json!([put("there", "1")])).await.0.status, 200);
    let many: Json = (0..101).map(|number| put(&format!("many-{number}"), "1")).collect();
    let large: Json = (0..17).map(|number| put(&format!("large-{number}"), &"v".repeat(16 << 10))).collect();
    let first = || put("never", "1");
    for (writes, status, code, index) in [
        (
            json!([first(), { "kind": "value", "op": "put", "key": "there", "value": "2", "if_none_match": "*" }]),
            412,
            20020,
            1,
        ),
        (
            json!([{ "kind": "counter", "op": "add", "key": "never", "amount": 1, "if_match": "*" }, first()]),
            412,
            20020,
            0,
        ),
        (json!([first(), first()]), 400, 10021, 1),
        (json!([first(), add("c", 1), { "kind": "doc", "op": "put", "key": "d" }]), 400, 10021, 2),
        (json!([first(), { "kind": "value", "op": "put", "key": "k", "valeu": "1" }]), 400, 6008, 1),
        (json!([first(), put("k", &"v".repeat((16 << 10) + 1))]), 413, 10030, 1),
        (json!([first(), { "kind": "bounded", "op": "take", "key": "b", "amount": 1 }]), 409, 20040, 1),
        (many, 400, 10024, 100),
        (large, 413, 10030, 15),
    ] {
        let (refused, _) = batch(rest, "", &[], &writes).await;
        let problem = json_of(&refused);
        assert_eq!((refused.status, refused.code()), (status, Some(code)), "{}", refused.text());
        assert_eq!(problem["index"], index, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("writes[{index}]")), "{detail}");
    }
    assert_eq!(batch(rest, "", &[], &json!([])).await.0.status, 400);
    // What was written after all that is everywhere; nothing of it is.
    let (done, _) = batch(rest, "?wait=all", &[], &json!([put("last", "1")])).await;
    assert_eq!(done.status, 200, "{}", done.text());
    for rest in &world.rests {
        assert_eq!(get(rest, "/values/there").await.body, "1");
        assert_eq!(get(rest, "/counters/never").await.status, 404);
        let listed = json_of(&get(rest, "/values").await);
        let keys: Vec<_> = listed["values"].as_array().unwrap().iter().map(|row| &row["key"]).collect();
        assert_eq!(keys, ["last", "there"]);
    }
}

/// Whoever is asked, the home decides: also about a batch without a condition, for another may be about the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_batch_of_a_namespace_with_a_home_is_decided_there() {
    let world = World::new().await;
    world.move_to("east").await;
    for round in 0..10 {
        let lock = format!("lock-{round}");
        let contenders = (0..9).map(|number| {
            let rest = &world.rests[number % POPS];
            let lock = json!({ "kind": "value", "op": "put", "key": lock, "value": number.to_string(), "if_none_match": "*" });
            let mine = put(&format!("of-{round}-{number}"), "1");
            let writes = json!([mine, lock, add("won", 1)]);
            async move { batch(rest, "", &[], &writes).await }
        });
        let answers = futures_util::future::join_all(contenders).await;
        let mut won = Vec::new();
        for (number, (answer, headers)) in answers.iter().enumerate() {
            assert_eq!(decided_by(headers), "pop=pop-2", "{}", answer.text());
            match answer.status {
                200 => won.push(number),
                status => {
                    assert_eq!((status, &json_of(answer)["index"]), (412, &json!(1)), "{}", answer.text())
                }
            }
        }
        assert_eq!(won.len(), 1, "{lock}: {won:?}");
        let mine = format!("/values/of-{round}-{}", won[0]);
        world.until("what the winner wrote", async |rest| get(rest, &mine).await.status == 200).await;
    }
    world.until("all wins", async |rest| json_of(&get(rest, "/counters/won").await)["count"] == 10).await;
    let listed = json_of(&get(&world.rests[2], "/values?prefix=of-").await);
    assert_eq!(listed["values"].as_array().unwrap().len(), 10, "{listed}");

    // Sent again it is done once, and its session goes on where it was asked.
    let rest = &world.rests[0];
    let headers = [("idempotency-key", "once"), ("littoral-session", "new")];
    let (first, told) = batch(rest, "", &headers, &json!([add("once", 1)])).await;
    let (again, repeated) = batch(rest, "", &headers, &json!([add("once", 1)])).await;
    assert_eq!((first.status, first.text()), (200, again.text()));
    assert_eq!(repeated.get("idempotency-replayed").unwrap(), "true");
    assert_eq!(decided_by(&told), "pop=pop-2");
    let session = told.get("littoral-session").unwrap().to_str().unwrap();
    let (read, _) =
        rest.native(Method::GET, "/counters/once", &[("littoral-session", session)], "").await.unwrap();
    assert_eq!(json_of(&read)["count"], 1, "{}", read.text());

    // The home does not know who asks, so the rights to each key are looked at before it is asked.
    let scope = format!("write:{}:in/", world.id);
    let line = ["--json", "token", "create", "writer", "--scope", &scope, "--account", ACCOUNT];
    let made: Json = serde_json::from_str(&world.cluster.run(0, &line).unwrap()).unwrap();
    let writer = world.cluster.rest(0, &world.id).with_token(made["token"].as_str().unwrap());
    let (refused, _) = batch(&writer, "", &[], &json!([put("in/a", "1"), put("out", "1")])).await;
    assert_eq!((refused.status, &json_of(&refused)["index"]), (403, &json!(1)), "{}", refused.text());
    let (done, headers) = batch(&writer, "", &[], &json!([put("in/a", "1")])).await;
    assert_eq!((done.status, decided_by(&headers)), (200, "pop=pop-2"), "{}", done.text());
    assert_eq!(get(&world.rests[2], "/values/out").await.status, 404);
    let nobody = world.cluster.rest(0, &world.id).with_token("nobody");
    assert_eq!(batch(&nobody, "", &[], &json!([put("in/a", "1")])).await.0.status, 401);
    let (refused, _) = batch(rest, "", &[], &json!([put("", "1")])).await;
    assert_eq!((refused.status, refused.code()), (400, Some(10021)), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_does_a_batch_from_a_file() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("batch.json");
    let run = |writes: Json| {
        std::fs::write(&file, json!({ "writes": writes }).to_string()).unwrap();
        let line = ["kv", "batch", file.to_str().unwrap(), "--account", ACCOUNT, "--namespace", &world.id];
        world.cluster.run(1, &line)
    };
    let told = run(json!([put("a", "1"), add("hits", 5)])).unwrap();
    assert!(told.contains("2 written together") && told.contains("hits") && told.contains('5'), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 80), "{told}");
    assert_eq!(get(&world.rests[1], "/values/a").await.body, "1");
    let refused = run(json!([put("a", "1"), put("a", "2")])).unwrap_err().to_string();
    assert!(refused.contains("writes[1] (key \"a\")") && refused.contains("same entry"), "{refused}");
}
