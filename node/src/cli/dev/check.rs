//! `dev --check`: the main promise, tried on real processes.
//!
//! Every PoP takes writes; one is killed while the others take more; it comes back. Then all must hold the
//! same keys with the same bytes, and those must be what was acknowledged. Every wait has an end.

mod compare;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use littoral::{ListOptions, Namespace, PutOptions};
use serde_json::json;

use self::compare::{difference, disagreement};
use super::Failure;
use super::cluster::Cluster;
use crate::cli::print;

/// How long the PoPs may take to agree once writing has stopped.
const AGREE_TIME: Duration = Duration::from_secs(60);
/// How often they are asked.
const AGREE_INTERVAL: Duration = Duration::from_millis(25);
/// Keys each PoP writes in each of the two rounds.
const KEYS_PER_ROUND: usize = 200;
/// Keys that every PoP writes at the same time.
const CONTESTED_KEYS: usize = 20;
/// Keys of the killed PoP that the others overwrite, and as many that they delete.
const KEYS_CHANGED: usize = 40;
/// Every so many keys one has a large value, above what is kept in a row.
const LARGE_EVERY: usize = 100;
const LARGE_BYTES: usize = 200_000;
/// Calls on their way at once.
const CALLS_IN_FLIGHT: usize = 16;

/// What a key must hold.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    /// The one value that was last acknowledged.
    Value(Bytes),
    /// The value of any of the PoPs that wrote at the same time; the same everywhere.
    OneOf(Vec<Bytes>),
    /// Nothing.
    Deleted,
}

pub(super) async fn run(cluster: &mut Cluster, json: bool) -> Result<(), Failure> {
    let mut check = Check { expected: BTreeMap::new(), begun: Instant::now(), json, steps: Vec::new() };
    let pops = cluster.pops.len();
    let killed = pops - 1;
    let name = cluster.pops[killed].name.clone();

    cluster.start().await?;
    let namespace = cluster.namespace().await?;
    let everywhere = cluster.namespace_everywhere(namespace.id());
    wait_for_namespace(&everywhere).await?;
    check.tell(
        "started",
        format!("{} in {}", count_of(pops), cluster.folder.display()),
        json!({ "pops": pops }),
    )?;

    let writes = check.write_round("first", &everywhere).await?;
    check.tell(
        "wrote",
        format!("{} times, on {}", print::count(writes), count_of(pops)),
        json!({ "writes": writes }),
    )?;
    check.agree(cluster).await?;

    cluster.pops[killed].kill().await?;
    check.tell("killed", format!("{name}, with SIGKILL"), json!({ "pop": name }))?;
    let others = &everywhere[..killed];
    let writes = check.write_round("second", others).await? + check.change_keys_of(&name, others).await?;
    check.tell(
        "wrote on",
        format!("{} times, on {}", print::count(writes), count_of(killed)),
        json!({ "writes": writes }),
    )?;

    cluster.pops[killed].start()?;
    cluster.pops[killed].wait_ready().await?;
    check.tell("restarted", format!("{name}, and it serves"), json!({ "pop": name }))?;
    check.agree(cluster).await?;

    let keys = check.verify(cluster, &everywhere).await?;
    let what = format!("{} keys, equal in listings and bytes on {}", print::count(keys), count_of(pops));
    check.tell("compared", what, json!({ "keys": keys, "pops": pops }))?;
    check.finish()
}

fn count_of(pops: usize) -> String {
    if pops == 1 { "1 PoP".into() } else { format!("{pops} PoPs") }
}

/// A namespace is an entry like any other: it takes a moment to be everywhere.
async fn wait_for_namespace(everywhere: &[Namespace]) -> Result<(), Failure> {
    let begun = Instant::now();
    for namespace in everywhere {
        while let Err(error) = namespace.list(ListOptions::default()).next_page().await {
            if begun.elapsed() > AGREE_TIME || !error.is_namespace_not_found() {
                return Err(Failure::from(error).while_doing("waiting for the namespace to be everywhere"));
            }
            tokio::time::sleep(AGREE_INTERVAL).await;
        }
    }
    Ok(())
}

struct Check {
    expected: BTreeMap<String, Expected>,
    /// When the present step began.
    begun: Instant,
    json: bool,
    steps: Vec<serde_json::Value>,
}

impl Check {
    /// Ends a step: what it saw, and how long it took.
    fn tell(&mut self, step: &str, what: String, mut facts: serde_json::Value) -> Result<(), Failure> {
        let time = self.begun.elapsed();
        self.begun = Instant::now();
        if !self.json {
            return print::line(format!("{step:<10} {what} ({})", print::time(time)));
        }
        facts["step"] = step.into();
        facts["time_ms"] = json!(time.as_micros() as f64 / 1e3);
        self.steps.push(facts);
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        if self.json {
            print::json(&json!({ "ok": true, "steps": self.steps }))
        } else {
            print::line("all agree")
        }
    }

    /// Writes own keys and contested ones at every writer, all at the same time.
    async fn write_round(&mut self, round: &str, writers: &[Namespace]) -> Result<u64, Failure> {
        let mut writes = Vec::new();
        for index in 0..KEYS_PER_ROUND {
            for (number, writer) in (1..).zip(writers) {
                let key = format!("{round}/pop{number}/{index:04}");
                let value = value(&key, index);
                self.expected.insert(key.clone(), Expected::Value(value.clone()));
                writes.push((writer, key, value));
            }
        }
        for index in 0..CONTESTED_KEYS {
            let key = format!("{round}/contested/{index:04}");
            let values = (1..=writers.len()).map(|number| value(&format!("pop{number} {key}"), 1));
            let values: Vec<_> = values.collect();
            writes.extend(
                writers.iter().zip(&values).map(|(writer, value)| (writer, key.clone(), value.clone())),
            );
            if !values.is_empty() {
                self.expected.insert(key, Expected::OneOf(values));
            }
        }
        let count = writes.len() as u64;
        put_all(writes).await?;
        Ok(count)
    }

    /// Overwrites and deletes some of what a PoP wrote in the first round.
    async fn change_keys_of(&mut self, pop: &str, writers: &[Namespace]) -> Result<u64, Failure> {
        let Some(writer) = writers.first() else { return Ok(0) };
        let key = |index: usize| format!("first/{pop}/{index:04}");
        let mut writes = Vec::new();
        for index in 0..KEYS_CHANGED {
            let value = value(&format!("changed {}", key(index)), index);
            self.expected.insert(key(index), Expected::Value(value.clone()));
            writes.push((writer, key(index), value));
        }
        put_all(writes).await?;
        for index in KEYS_CHANGED..2 * KEYS_CHANGED {
            writer.delete(&key(index)).await?;
            self.expected.insert(key(index), Expected::Deleted);
        }
        Ok(2 * KEYS_CHANGED as u64)
    }

    /// Waits until all PoPs have equal roots and nothing on its way.
    async fn agree(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        loop {
            let statuses = cluster.statuses().await;
            let why_not = match disagreement(&statuses) {
                Ok(status) => {
                    let what = format!("root {}, {} entries", status.root, print::count(status.entries));
                    return self.tell(
                        "agreed",
                        what,
                        json!({ "root": status.root, "entries": status.entries }),
                    );
                }
                Err(why_not) => why_not,
            };
            if self.begun.elapsed() > AGREE_TIME {
                let waited = AGREE_TIME.as_secs();
                return Err(Failure::new(format!("the PoPs do not agree after {waited} s: {why_not}")));
            }
            tokio::time::sleep(AGREE_INTERVAL).await;
        }
    }

    /// Lists and reads everything at every PoP; gives the number of keys.
    async fn verify(&self, cluster: &Cluster, everywhere: &[Namespace]) -> Result<u64, Failure> {
        let mut first: Option<Vec<(String, Bytes)>> = None;
        for (pop, namespace) in cluster.pops.iter().zip(everywhere) {
            let rows = read_all(namespace).await.map_err(|failure| failure.while_doing(&pop.name))?;
            self.verify_expected(&pop.name, &rows)?;
            let first = first.get_or_insert_with(|| rows.clone());
            if let Some(difference) = difference(first, &rows) {
                let what = format!("{} and {} differ: {difference}", cluster.pops[0].name, pop.name);
                return Err(Failure::new(what));
            }
        }
        Ok(first.map_or(0, |rows| rows.len() as u64))
    }

    fn verify_expected(&self, pop: &str, rows: &[(String, Bytes)]) -> Result<(), Failure> {
        let found: BTreeMap<_, _> = rows.iter().map(|(key, value)| (key, value)).collect();
        for (key, expected) in &self.expected {
            let is_right = match (expected, found.get(key)) {
                (Expected::Value(value), Some(found)) => value == *found,
                (Expected::OneOf(values), Some(found)) => values.contains(found),
                (Expected::Deleted, found) => found.is_none(),
                (_, None) => false,
            };
            if !is_right {
                let wanted = if *expected == Expected::Deleted { "deleted" } else { "written" };
                let found = if found.contains_key(key) { "has another value" } else { "does not have it" };
                return Err(Failure::new(format!("{key} was {wanted} and acknowledged; {pop} {found}")));
            }
        }
        Ok(())
    }
}

/// Bytes that are no text and differ from key to key.
fn value(seed: &str, index: usize) -> Bytes {
    let len = if index.is_multiple_of(LARGE_EVERY) { LARGE_BYTES } else { 64 + index };
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

async fn put_all(writes: Vec<(&Namespace, String, Bytes)>) -> Result<(), Failure> {
    stream::iter(writes)
        .map(|(writer, key, value)| async move { writer.put(&key, value, PutOptions::default()).await })
        .buffer_unordered(CALLS_IN_FLIGHT)
        .try_collect::<()>()
        .await
        .map_err(|error| Failure::from(error).while_doing("writing"))
}

/// All keys in the order of the listing, with their values.
async fn read_all(namespace: &Namespace) -> Result<Vec<(String, Bytes)>, Failure> {
    let keys = namespace.list(ListOptions::default()).keys();
    let read = keys.map_ok(|key| async move { Ok((namespace.get(&key.name).await?, key.name)) });
    let rows: Vec<_> = read.try_buffered(CALLS_IN_FLIGHT).try_collect().await.map_err(Failure::from)?;
    let row = |(value, key): (Option<littoral::Value>, String)| match value {
        Some(value) => Ok((key, value.bytes)),
        None => Err(Failure::new(format!("{key} is listed and cannot be read"))),
    };
    rows.into_iter().map(row).collect()
}
