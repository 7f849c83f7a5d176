//! Whether the simulator finds bugs that are there: it is run against every planted bug, and must find each.
//!
//! The bugs are in no other build than the one made here (`build`); which they are is said by that build. Here stands
//! only where to look for each.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::{Scenario, seeds};

/// How the process that looks for a bug ends when a seed has found it.
pub const FOUND: u8 = 10;

/// How it ends when no seed has.
pub const NOT_FOUND: u8 = 11;

/// The most seeds it may take to find a bug.
pub const MAX_SEEDS: u64 = 600;

/// The longest that looking for one bug may take.
const MAX_SEARCH: Duration = Duration::from_secs(240);

/// The most of what was seen that a row of the table shows, in characters: some findings tell all that was written to a key.
const MAX_SEEN_CHARS: usize = 240;

/// Seeds of each scenario that must find nothing where no bug is planted.
const CONTROL_SEEDS: u64 = 5;

/// How often a search is looked at.
const POLLED_EVERY: Duration = Duration::from_millis(20);

/// Where to look for a bug.
struct Hunt {
    bug: &'static str,
    scenario: &'static str,
    from: u64,
}

const fn hunt(bug: &'static str, scenario: &'static str, from: u64) -> Hunt {
    Hunt { bug, scenario, from }
}

/// Every bug with the scenario that is about its like, and the first seed to try.
const HUNTS: [Hunt; 37] = [
    hunt("AcknowledgedBeforeFlush", "power-cuts", 0),
    hunt("SentBeforeFlush", "power-cuts", 140),
    hunt("TieBreakForgotten", "partitions", 0),
    hunt("MergeReplacesAlways", "swarm", 0),
    hunt("GapIgnored", "swarm", 0),
    hunt("ClaimBeyondCut", "swarm", 0),
    hunt("EventTakenOnTrust", "late-frames", 0),
    hunt("LogRowForgotten", "partitions", 0),
    hunt("DigestNeverSubtracts", "swarm", 0),
    hunt("SeenTimeIgnored", "swarm", 0),
    hunt("ClockFromClaimsOnly", "states-ahead", 0),
    hunt("LackNotAskedFor", "amnesia", 0),
    hunt("SketchCountForgotten", "amnesia", 0),
    hunt("EventsMiscounted", "swarm", 0),
    hunt("ExpiryLostOnWire", "ttl", 0),
    hunt("DroppedAboveEpoch", "gc-partition", 0),
    hunt("DroppedOnceHeldByAll", "gc-partition", 0),
    hunt("RoundOutlivesEpoch", "stale-repairs", 120),
    hunt("EpochTakenOnTrust", "restore", 55),
    hunt("CutFromAcknowledgements", "evicted", 1095),
    hunt("DroppedAtExpiry", "ttl", 0),
    hunt("FenceForgotten", "evicted", 385),
    hunt("OlderCopyUnnoticed", "restore", 445),
    hunt("ChunkRowStays", "swarm", 0),
    hunt("RelayKeepsEvents", "regions", 0),
    hunt("RemovalSpendsNothing", "swarm", 0),
    hunt("PartDroppedOnceSpent", "gc-partition", 0),
    hunt("PartsReplacedNotJoined", "swarm", 0),
    hunt("StaleJoinedAgain", "gc-partition", 0),
    hunt("ResetForgotten", "swarm", 0),
    hunt("RightsKeptByGiver", "swarm", 0),
    hunt("SalvageSkipped", "evicted", 0),
    hunt("RunForgotten", "partitions", 0),
    hunt("BatchForgotten", "batches", 0),
    hunt("AheadShown", "batches", 0),
    hunt("BatchMatesShown", "batches", 0),
    hunt("FoldKeepsRemoved", "gc-partition", 0),
];

/// What came of one search.
struct Search {
    row: String,
    is_right: bool,
}

type Job<'a> = Box<dyn Fn() -> anyhow::Result<Search> + Send + Sync + 'a>;

/// Builds the simulator with the bugs in it, and looks for each; prints a table, and gives how many were found, and how
/// many not.
///
/// # Errors
/// Where it cannot be built or run.
pub fn run() -> anyhow::Result<(usize, usize)> {
    let binary = build()?;
    let listed = Command::new(&binary).arg("--list").output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let bugs: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    let names = |bug: &Vec<&str>| bug[0].to_string();
    let hunted: Vec<String> = HUNTS.iter().map(|hunt| hunt.bug.to_string()).collect();
    ensure!(bugs.iter().map(names).collect::<Vec<_>>() == hunted, "HUNTS and planted.rs differ: {listed}");
    let mut searches: Vec<Job<'_>> = Vec::new();
    for (bug, hunt) in bugs.iter().zip(&HUNTS) {
        let binary = &binary;
        searches.push(Box::new(move || search(binary, hunt, bug)));
    }
    for (name, _) in Scenario::names() {
        let binary = &binary;
        searches.push(Box::new(move || control(binary, name)));
    }
    println!(
        "{:<26} {:<28} {:<14} {:>6} {:>6} {:>6}  what was seen",
        "planted", "place", "scenario", "seed", "seeds", "s"
    );
    let searches = in_parallel(&searches)?;
    searches.iter().for_each(|search| println!("{}", search.row));
    let found = searches.iter().filter(|search| search.is_right).count();
    Ok((found, searches.len() - found))
}

/// Builds the program that has the bugs in it, beside the dependencies that are built already, and takes it away to
/// where nobody looks for a program to ship.
fn build() -> anyhow::Result<PathBuf> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is around this crate")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).env("RUSTC_WORKSPACE_WRAPPER", root.join("tests/scripts/planted-rustc"));
    cargo.args(["build", "--quiet", "--package", "littoral-tests", "--bin", "planted"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    ensure!(cargo.status()?.success(), "the simulator does not build with planted bugs");
    let folder = std::env::current_exe()?.parent().context("a program is in a folder")?.to_path_buf();
    let kept = folder.parent().context("a profile's folder is in the target folder")?.join("planted");
    std::fs::create_dir_all(&kept)?;
    let binary = kept.join("planted");
    std::fs::rename(folder.join("planted"), &binary)?;
    Ok(binary)
}

/// Runs these on all cores; their results in their order.
fn in_parallel(jobs: &[Job<'_>]) -> anyhow::Result<Vec<Search>> {
    let waiting = Mutex::new(jobs.iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..seeds::cores() {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no job panics while it holds it").next();
                    let Some((number, job)) = next else { return };
                    let result = job();
                    done.lock().expect("no job panics while it holds it").push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("all threads have ended");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

fn search(binary: &Path, hunt: &Hunt, bug: &[&str]) -> anyhow::Result<Search> {
    let started = Instant::now();
    let mut command = Command::new(binary);
    command.args(["--bug", hunt.bug, "--scenario", hunt.scenario]);
    command.args(["--from", &hunt.from.to_string(), "--seeds", &MAX_SEEDS.to_string()]);
    let (ended, said) = finish(command)?;
    let place = bug.get(1).copied().unwrap_or_default();
    let head = format!("{:<26} {place:<28} {:<14}", hunt.bug, hunt.scenario);
    let seconds = started.elapsed().as_secs_f64();
    let Some((seed, seen)) = said.trim().split_once('\t').filter(|_| ended == Some(FOUND.into())) else {
        let why = if ended == Some(NOT_FOUND.into()) { "NOT FOUND" } else { "NOT FOUND: it did not end" };
        return Ok(Search {
            row: format!("{head} {:>6} {MAX_SEEDS:>6} {seconds:>6.1}  {why}", "-"),
            is_right: false,
        });
    };
    let tried = seed.parse::<u64>()? + 1 - hunt.from;
    let seen: String = seen.chars().take(MAX_SEEN_CHARS).collect();
    Ok(Search { row: format!("{head} {seed:>6} {tried:>6} {seconds:>6.1}  {seen}"), is_right: true })
}

/// The same program without a bug must find none.
fn control(binary: &Path, scenario: &str) -> anyhow::Result<Search> {
    let started = Instant::now();
    let mut command = Command::new(binary);
    command.args(["--scenario", scenario, "--seeds", &CONTROL_SEEDS.to_string()]);
    let (ended, said) = finish(command)?;
    let is_right = ended == Some(NOT_FOUND.into());
    let seen = if is_right { "nothing, as it must be" } else { said.trim() };
    let seconds = started.elapsed().as_secs_f64();
    let row = format!(
        "{:<26} {:<28} {scenario:<14} {:>6} {CONTROL_SEEDS:>6} {seconds:>6.1}  {seen}",
        "none (control)", "-", "-"
    );
    Ok(Search { row, is_right })
}

/// The exit code and output of a command; a code of `None` when it took too long.
fn finish(mut command: Command) -> anyhow::Result<(Option<i32>, String)> {
    let started = Instant::now();
    let mut child: Child = command.stdout(Stdio::piped()).spawn()?;
    while child.try_wait()?.is_none() {
        if started.elapsed() > MAX_SEARCH {
            child.kill()?;
            child.wait()?;
            return Ok((None, String::new()));
        }
        thread::sleep(POLLED_EVERY);
    }
    let output = child.wait_with_output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}
