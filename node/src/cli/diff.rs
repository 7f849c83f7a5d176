//! `diff`: which keys differ between two PoPs, and why.
//!
//! Both are asked for the digests of their leaves; the entries of the leaves that differ are fetched from both and
//! joined by name. What differs is looked at twice, since under writes two readings are never of one moment.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use littoral::Client;
use littoral::api::diff::{BodyKind, EntryState, Holding, LEAVES, Leaves, MAX_LEAVES_NAMED};
use serde::Serialize;

use self::classify::{Why, why};
use super::connection;
use super::failure::Failure;
use super::print;

mod classify;

/// The pause before what differs is looked at again: some heartbeats and round trips.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How much of a namespace's id tells namespaces apart.
const SHORT_ID_CHARS: usize = 8;
/// How much of a key is shown in the table.
const KEY_CHARS: usize = 28;
/// Where the cluster keeps its own entries.
const SYSTEM: &str = "00000000000000000000000000000000";

const EXIT_CODES: &str = "\
Exit codes:
  0  equal, but for entries that are expired or dropped, which no reader can tell
  1  some keys differ, or the comparison failed (it then says so on standard error)
  2  the command was not understood
  3  a PoP cannot be reached";

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Args {
    /// One PoP's address, such as http://127.0.0.1:8787
    left: String,
    /// The other's
    right: String,
    #[command(flatten)]
    token: connection::Token,
    /// The most keys to list; all are counted
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

/// An entry that differs.
#[derive(Debug, Serialize)]
struct Difference {
    why: Why,
    left: Option<EntryState>,
    right: Option<EntryState>,
}

/// What came out.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    left: String,
    right: String,
    /// Entries at each.
    entries: [u64; 2],
    diverged: u64,
    in_flight: u64,
    expired: u64,
    dropped: u64,
    /// No more than asked for.
    differences: Vec<Difference>,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let clients = [args.token.client(&args.left)?, args.token.client(&args.right)?];
    let (left, right) = tokio::try_join!(clients[0].leaves(), clients[1].leaves())?;
    let differing = differing(&left, &right)?;
    let found = if differing.is_empty() { BTreeMap::new() } else { look_twice(&clients, &differing).await? };
    let outcome = Outcome::new([&left, &right], found, args.limit);
    if json {
        print::json(&outcome)?
    } else {
        print::line(page(&outcome, unix_ms()))?
    }
    if outcome.diverged + outcome.in_flight > 0 { Err(Failure::Said) } else { Ok(()) }
}

/// The leaves whose digests differ.
fn differing(left: &Leaves, right: &Leaves) -> Result<Vec<u16>, Failure> {
    let sums = |leaves: &Leaves| {
        let bytes = STANDARD.decode(&leaves.digests).ok().filter(|bytes| bytes.len() == LEAVES * 8);
        bytes.ok_or_else(|| Failure::new(format!("{} gave digests of another form", leaves.holding.pop)))
    };
    let (left, right) = (sums(left)?, sums(right)?);
    let sums = left.chunks_exact(8).zip(right.chunks_exact(8));
    Ok((0..=u16::MAX).zip(sums).filter(|(_, (left, right))| left != right).map(|(leaf, _)| leaf).collect())
}

/// What differs now and still does after a moment, and why it does then.
async fn look_twice(
    clients: &[Client; 2],
    leaves: &[u16],
) -> Result<BTreeMap<(String, String), Difference>, Failure> {
    let first = look(clients, leaves).await?;
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    let mut second = look(clients, leaves).await?;
    second.retain(|name, _| first.contains_key(name));
    Ok(second)
}

/// What differs in these leaves, by namespace and name.
async fn look(
    clients: &[Client; 2],
    leaves: &[u16],
) -> Result<BTreeMap<(String, String), Difference>, Failure> {
    // More cannot be named in one question, and then most of the store differs anyway.
    let leaves = if leaves.len() > MAX_LEAVES_NAMED { &[] } else { leaves };
    let (left, right) = tokio::try_join!(entries(&clients[0], leaves), entries(&clients[1], leaves))?;
    let (holdings, now_s) = ([&left.0, &right.0], unix_ms() / 1_000);
    let mut joined: BTreeMap<_, [Option<EntryState>; 2]> = BTreeMap::new();
    for (side, states) in [left.1, right.1].into_iter().enumerate() {
        for state in states {
            let pair = joined.entry((state.namespace.clone(), state.name.clone())).or_default();
            pair[side] = Some(state);
        }
    }
    let differs = |(name, [left, right]): (_, [Option<EntryState>; 2])| {
        let why = why([left.as_ref(), right.as_ref()], holdings, now_s)?;
        Some((name, Difference { why, left, right }))
    };
    Ok(joined.into_iter().filter_map(differs).collect())
}

/// All entries of these leaves, with the vector from before they were read and the epoch from after.
async fn entries(client: &Client, leaves: &[u16]) -> Result<(Holding, Vec<EntryState>), littoral::Error> {
    let page = client.entries(leaves, None).await?;
    let (mut holding, mut entries, mut after) = (page.holding, page.entries, page.next_after);
    while let Some(next) = after {
        let page = client.entries(leaves, Some(&next)).await?;
        holding.epoch = holding.epoch.max(page.holding.epoch);
        entries.extend(page.entries);
        after = page.next_after;
    }
    Ok((holding, entries))
}

impl Outcome {
    fn new([left, right]: [&Leaves; 2], found: BTreeMap<(String, String), Difference>, limit: usize) -> Self {
        let count = |why| found.values().filter(|difference| difference.why == why).count() as u64;
        let mut outcome = Self {
            left: left.holding.pop.clone(),
            right: right.holding.pop.clone(),
            entries: [left.entries, right.entries],
            diverged: count(Why::Diverged),
            in_flight: count(Why::InFlight),
            expired: count(Why::Expired),
            dropped: count(Why::Dropped),
            differences: Vec::new(),
        };
        outcome.differences = found.into_values().collect();
        outcome.differences.sort_by_key(|difference| difference.why);
        outcome.differences.truncate(limit);
        outcome
    }

    fn count(&self) -> u64 {
        self.diverged + self.in_flight + self.expired + self.dropped
    }
}

fn page(outcome: &Outcome, now_ms: u64) -> String {
    if outcome.count() == 0 {
        let entries = print::count(outcome.entries[0]);
        return format!("{} and {} are equal: {entries} entries", outcome.left, outcome.right);
    }
    let rows = outcome.differences.iter().map(|difference| {
        let [left, right] = [&difference.left, &difference.right].map(|state| cell(state.as_ref(), now_ms));
        let (namespace, key) =
            difference.left.as_ref().or(difference.right.as_ref()).map(named).unwrap_or_default();
        [namespace, key, difference.why.text().into(), left, right]
    });
    let table = print::table(["NAMESPACE", "KEY", "WHY", &outcome.left, &outcome.right], rows);
    let more = outcome.count() - outcome.differences.len() as u64;
    let more = if more > 0 { format!("\n({} more; see --limit)", print::count(more)) } else { String::new() };
    format!(
        "{table}{more}\n\n{} diverged, {} in flight, {} expired, {} dropped",
        print::count(outcome.diverged),
        print::count(outcome.in_flight),
        print::count(outcome.expired),
        print::count(outcome.dropped)
    )
}

/// Namespace and key, short enough for a table.
fn named(state: &EntryState) -> (String, String) {
    let namespace = match state.namespace.as_str() {
        SYSTEM => "system".to_owned(),
        id => id.chars().take(SHORT_ID_CHARS).collect(),
    };
    let Some(key) = &state.key else { return (namespace, format!("(hidden) {}", state.name)) };
    let key = match &state.element {
        Some(element) => format!("{}[{}]", print::name(key), print::name(element)),
        None => print::name(key),
    };
    let short: String = key.chars().take(KEY_CHARS).collect();
    (namespace, if short.len() < key.len() { format!("{short}…") } else { short })
}

/// One PoP's state: what it is, and how long ago it was written.
fn cell(state: Option<&EntryState>, now_ms: u64) -> String {
    let Some(state) = state else { return "-".into() };
    let what = match state.body {
        _ if classify::is_expired(state, now_ms / 1_000) => "expired",
        BodyKind::Value => "value",
        BodyKind::LargeValue => "large",
        BodyKind::Counter => "counter",
        BodyKind::Bounded => "bounded counter",
        BodyKind::Member => "member",
        BodyKind::Field => "field",
        BodyKind::Chunk => "chunk",
        BodyKind::Whole => "whole",
        BodyKind::Tombstone => "deleted",
    };
    let age = Duration::from_millis(now_ms.saturating_sub(state.hlc >> 16));
    format!("{what}, {}", print::time(age))
}

/// The wall clock; 0 before 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(pop: &str, changed: &[u16]) -> Leaves {
        let mut bytes = vec![0; LEAVES * 8];
        changed.iter().for_each(|leaf| bytes[usize::from(*leaf) * 8 + 3] = 1);
        let holding = Holding { pop: pop.into(), ..Holding::default() };
        Leaves { holding, entries: 1_234, digests: STANDARD.encode(bytes) }
    }

    fn state(key: Option<&str>, body: BodyKind) -> EntryState {
        EntryState {
            namespace: "0123456789abcdef0123456789abcdef".into(),
            name: "fedcba9876543210".into(),
            key: key.map(str::to_owned),
            element: None,
            replica: "aa".into(),
            hlc: 1_000 << 16,
            body,
            expires_at_s: None,
            digest: "d".into(),
        }
    }

    #[test]
    fn differing_leaves_are_named_and_another_form_is_refused() {
        let (left, right) = (leaves("a", &[0, 7]), leaves("b", &[7, 65_535]));
        assert_eq!(differing(&left, &right).unwrap(), [0, 65_535]);
        let cut = Leaves { digests: STANDARD.encode([0; 8]), ..left };
        assert!(differing(&cut, &right).is_err());
    }

    #[test]
    fn the_page_fits_80_columns_and_the_worst_comes_first() {
        let sides = [&leaves("a-long-pop-name1", &[]), &leaves("a-long-pop-name2", &[])];
        assert!(page(&Outcome::new(sides, BTreeMap::new(), 9), 0).ends_with("are equal: 1,234 entries"));
        let long = "key".repeat(100);
        let difference = |why, key| Difference {
            why,
            left: Some(state(key, BodyKind::LargeValue)),
            right: Some(state(key, BodyKind::Tombstone)),
        };
        let found = BTreeMap::from([
            (("n".to_owned(), "1".to_owned()), difference(Why::InFlight, Some("k"))),
            (("n".to_owned(), "2".to_owned()), difference(Why::Diverged, Some(&long))),
            (("n".to_owned(), "3".to_owned()), difference(Why::Dropped, None)),
        ]);
        let text = page(&Outcome::new(sides, found, 2), 60_000);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.find("diverged") < text.find("in flight"), "{text}");
        assert!(text.contains("(1 more; see --limit)"), "{text}");
        assert!(text.ends_with("1 diverged, 1 in flight, 0 expired, 1 dropped"), "{text}");
        assert_eq!(named(&state(None, BodyKind::Value)).1, "(hidden) fedcba9876543210");
        let member = EntryState { element: Some("m".into()), ..state(Some("k"), BodyKind::Member) };
        assert_eq!(named(&member).1, "k[m]");
    }
}
