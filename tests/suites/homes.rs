//! Homes at real processes: whoever is asked, one PoP decides; and while it cannot be asked, nobody does.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use littoral_tests::cluster::{Answer, Cluster, Options, Rest, Site};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value as Json, json};

/// How soon what is awaited must be.
const WITHIN: Duration = Duration::from_secs(30);

/// Two PoPs in "west", one in "east", and a namespace that all know.
struct World {
    cluster: Cluster,
    id: String,
    rests: Vec<Rest>,
}

impl World {
    async fn new() -> Self {
        let sites = ["west", "west", "east"].map(|region| Site { region: region.into(), ..Site::default() });
        let options = Options { pops: 3, sites: sites.into(), ..Options::default() };
        let cluster = Cluster::started(options).await.unwrap();
        let id = cluster.rest(0, "").create_namespace("homes").await.unwrap();
        let rests: Vec<Rest> = (0..3).map(|pop| cluster.rest(pop, &id)).collect();
        let world = Self { cluster, id, rests };
        world
            .until("all know the namespace", async |rest| rest.get("/values/none").await.status == 404)
            .await;
        world
    }

    /// Waits until something is so at every PoP that runs.
    async fn until(&self, what: &str, is_so: impl AsyncFn(&Asked<'_>) -> bool) {
        for pop in 0..3 {
            self.until_at(pop, what, &is_so).await;
        }
    }

    async fn until_at(&self, pop: usize, what: &str, is_so: &impl AsyncFn(&Asked<'_>) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !is_so(&self.at(pop)).await {
            assert!(Instant::now() < deadline, "not in time at pop-{pop}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn at(&self, pop: usize) -> Asked<'_> {
        Asked { rest: &self.rests[pop] }
    }

    async fn set_home(&self, pop: usize, region: Option<&str>) -> Answer {
        self.at(pop).send(Method::PUT, "/home", &[], &json!({ "region": region }).to_string()).await.0
    }

    /// Has the region decide, and waits until all know.
    async fn move_to(&self, region: &str, pop: &str) {
        let set = self.set_home(1, Some(region)).await;
        assert_eq!(set.status, 200, "{}", set.text());
        let expected = json!({ "namespace": self.id, "region": region, "pop": pop });
        assert_eq!(json_of(&set), expected);
        self.until("the home is known", async |rest| json_of(&rest.get("/home").await) == expected).await;
    }
}

/// A PoP that is asked about the namespace.
struct Asked<'a> {
    rest: &'a Rest,
}

impl Asked<'_> {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (Answer, HeaderMap) {
        self.rest.native(method, path, headers, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await.0
    }

    async fn create(&self, key: &str, value: &str) -> (Answer, HeaderMap) {
        self.send(Method::PUT, &format!("/values/{key}"), &[("if-none-match", "*")], value).await
    }
}

fn json_of(answer: &Answer) -> Json {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn decided_by(headers: &HeaderMap) -> &str {
    headers.get("littoral-condition").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_create_at_all_pops_at_once_one_wins() {
    let world = World::new().await;
    world.move_to("east", "pop-2").await;
    for round in 0..20 {
        let key = format!("lock-{round}");
        let contenders = (0..9).map(|number| {
            let asked = world.at(number % 3);
            let key = key.clone();
            async move { asked.create(&key, &format!("contender {number}")).await }
        });
        let answers = futures_util::future::join_all(contenders).await;
        let mut won = BTreeMap::new();
        for (number, (answer, headers)) in answers.iter().enumerate() {
            assert!(matches!(answer.status, 200 | 201 | 204 | 412), "{}: {}", answer.status, answer.text());
            assert_eq!(decided_by(headers), "pop=pop-2");
            if answer.status != 412 {
                won.insert(number, headers);
            }
        }
        assert_eq!(won.len(), 1, "{key}: {won:?}");
        let winner = format!("contender {}", won.keys().next().unwrap());
        world.until(&winner, async |rest| rest.get(&format!("/values/{key}")).await.body == winner).await;
    }
    // One who writes without a condition writes where it asks, as ever.
    let (plain, _) = world.at(0).send(Method::PUT, "/values/plain", &[], "here").await;
    assert!(plain.status < 300, "{}", plain.text());
    assert_eq!(world.at(0).get("/values/plain").await.body, "here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_home_answers_comes_back_as_it_is() {
    let world = World::new().await;
    world.move_to("east", "pop-2").await;
    let large = "x".repeat(3 << 20);
    let (created, headers) = world.at(0).create("large", &large).await;
    assert!(created.status < 300, "{}", created.text());
    let etag = headers.get("etag").unwrap().to_str().unwrap().to_owned();
    let receipt = headers.get("littoral-receipt").unwrap().to_str().unwrap();
    assert!(!receipt.is_empty());
    world.until("the large value", async |rest| rest.get("/values/large").await.body == large).await;
    // A session reads at another PoP what the home has written for it.
    let (written, headers) = world
        .at(0)
        .send(Method::PUT, "/values/large", &[("if-match", &etag), ("littoral-session", "new")], "small")
        .await;
    assert!(written.status < 300, "{}", written.text());
    let session = headers.get("littoral-session").unwrap().to_str().unwrap();
    let (read, _) =
        world.at(1).send(Method::GET, "/values/large", &[("littoral-session", session)], "").await;
    assert_eq!(read.body, "small");
    // With the tag that was good before.
    let (refused, headers) =
        world.at(1).send(Method::PUT, "/values/large", &[("if-match", &etag)], "late").await;
    assert_eq!((refused.status, refused.code(), decided_by(&headers)), (412, Some(20_020), "pop=pop-2"));
    // Documents, and metadata of counters, too; and what is wrong is told where it is decided.
    let (document, headers) = world
        .at(0)
        .send(Method::PUT, "/docs/d", &[("if-none-match", "*"), ("content-type", "application/json")], "{}")
        .await;
    assert!(document.status < 300, "{}", document.text());
    assert_eq!(decided_by(&headers), "pop=pop-2");
    let (wrong, _) = world.at(0).send(Method::PUT, "/values/k", &[("if-match", "no tag")], "v").await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    // Nobody gets there by a token that is none.
    let stranger = world.rests[0].clone().with_token("wrong");
    let (refused, _) =
        stranger.native(Method::PUT, "/values/k", &[("if-none-match", "*")], "v").await.unwrap();
    assert_eq!(refused.status, 401);
    assert_eq!(world.at(2).get("/values/k").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_home_is_down_nobody_decides_and_all_else_goes_on() {
    let mut world = World::new().await;
    world.move_to("east", "pop-2").await;
    world.cluster.kill9(2).unwrap();
    let refused_everywhere = async |asked: &Asked<'_>| {
        let (refused, headers) = asked.create("k", "v").await;
        // While the link has not been missed yet, the call breaks off.
        assert!(matches!(refused.code(), Some(20_050 | 20_051)), "{}: {}", refused.status, refused.text());
        assert!(refused.text().contains("pop-2"), "{}", refused.text());
        refused.status == 503 && headers.get("retry-after").is_some()
    };
    for pop in 0..2 {
        world.until_at(pop, "the home is missed", &refused_everywhere).await;
        assert_eq!(world.at(pop).get("/values/k").await.status, 404);
    }
    let (plain, _) = world.at(0).send(Method::PUT, "/values/plain", &[], "v").await;
    assert!(plain.status < 300, "{}", plain.text());
    let set = world.set_home(0, Some("west")).await;
    assert_eq!(set.status, 503, "{}", set.text());
    world.cluster.start(2).unwrap();
    world.cluster.wait_ready(2).await.unwrap();
    // An answer may get lost while the link comes back; what was asked for may be done then.
    let decides = async |asked: &Asked<'_>| matches!(asked.create("k", "v").await.0.status, 200..300 | 412);
    world.until_at(0, "the home decides again", &decides).await;
    let decides_the_same = async |asked: &Asked<'_>| {
        let (answer, _) = asked.create("k", "w").await;
        assert!(matches!(answer.status, 412 | 503 | 504), "{}: {}", answer.status, answer.text());
        answer.status == 412
    };
    world.until_at(1, "the home decides here again, too", &decides_the_same).await;
    let metrics = world.cluster.rest(0, "").page("/metrics").await.unwrap().text();
    for result in ["answered", "unreachable"] {
        assert!(metrics.contains(&format!("littoral_home_calls_total{{result=\"{result}\"}}")), "{result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_moves_between_decisions_and_a_removed_one_is_replaced() {
    let mut world = World::new().await;
    world.move_to("east", "pop-2").await;
    // A number that is counted up by If-Match at all PoPs, while the home moves to and fro.
    world.at(0).create("n", "0").await;
    let count = async |pop: usize| {
        let mut done = 0_u64;
        while done < 20 {
            let (read, headers) = world.at(pop).send(Method::GET, "/values/n", &[], "").await;
            let Some(etag) = headers.get("etag").filter(|_| read.status == 200) else { continue };
            let next = (read.text().parse::<u64>().unwrap() + 1).to_string();
            let etag = etag.to_str().unwrap();
            let (written, _) =
                world.at(pop).send(Method::PUT, "/values/n", &[("if-match", etag)], &next).await;
            assert!(
                matches!(written.status, 200..=299 | 412 | 503),
                "{}: {}",
                written.status,
                written.text()
            );
            done += u64::from(written.status < 300);
        }
    };
    let moves = async {
        for region in ["west", "east", "west", "east"] {
            let deadline = Instant::now() + WITHIN;
            loop {
                let set = world.set_home(1, Some(region)).await;
                if set.status == 200 {
                    break;
                }
                assert!(set.status == 503 && Instant::now() < deadline, "{}: {}", set.status, set.text());
            }
        }
    };
    tokio::join!(count(0), count(1), count(2), moves);
    world.until("60 counts", async |rest| rest.get("/values/n").await.body == "60").await;
    // Whoever is the home is lost for good.
    world.move_to("east", "pop-2").await;
    world.cluster.kill9(2).unwrap();
    let refused = world.set_home(0, Some("north")).await;
    assert_ne!(refused.status, 200);
    world.cluster.run(0, &["member", "remove", "pop-2", "--force"]).unwrap();
    let is_gone = async |asked: &Asked<'_>| {
        let (refused, _) = asked.create("after", "v").await;
        refused.text().contains("no member any more")
    };
    world.until_at(0, "the home is known to be gone", &is_gone).await;
    let unknown = world.set_home(0, Some("north")).await;
    assert_eq!(unknown.status, 400, "{}", unknown.text());
    assert!(unknown.text().contains("there are west"), "{}", unknown.text());
    let set = world.set_home(0, Some("west")).await;
    assert_eq!((set.status, &json_of(&set)["pop"]), (200, &json!("pop-0")), "{}", set.text());
    assert!(world.at(0).create("after", "v").await.0.status < 300);
    let none = world.set_home(0, None).await;
    assert_eq!((none.status, &json_of(&none)["pop"]), (200, &Json::Null));
    let (alone, headers) = world.at(0).create("alone", "v").await;
    assert!(alone.status < 300);
    assert_eq!(decided_by(&headers), "pop=pop-0");
}
