//! Seeds of every scenario of the simulator, few enough for every test run; `cargo sim` runs more.

use littoral_tests::sim::{Outcome, Scenario, run, seeds};

/// Seeds of each scenario.
const SEEDS: u64 = 12;
/// Seeds of each scenario that are run twice.
const REPEATED_SEEDS: u64 = 2;

/// Runs the seeds of a scenario, none of which may find a violation.
#[track_caller]
fn check(name: &str) -> Outcome {
    let mut total = Outcome::default();
    seeds::run_all(name, 0..SEEDS, |seed, outcome| {
        total.add(&outcome.unwrap_or_else(|violation| {
            panic!("seed {seed}: {violation}\nreplay it with: cargo sim -- --scenario {name} --seed {seed}")
        }));
        true
    });
    total
}

#[test]
fn replicas_converge_and_lose_nothing_whatever_happens() {
    let mut total = Outcome::default();
    for (name, _) in Scenario::names() {
        let seen = check(name);
        // A run in which nothing was done shows nothing: where clocks jump all the time, much is refused.
        let enough = seen.acknowledged > 50 * SEEDS && seen.acknowledged > seen.refused + seen.turned_away;
        assert!(enough, "{name}: {seen}");
        total.add(&seen);
    }
    // Nor does one in which nothing went wrong.
    let Outcome { crashes, repaired, refused, rebuilt, dropped, written_anew, dead_letters, .. } = total;
    let seen = [crashes, repaired, refused, rebuilt, dropped, written_anew, dead_letters];
    assert!(seen.iter().all(|count| *count > 0), "{total}");
}

#[test]
fn a_write_crosses_to_each_region_once_and_a_relay_may_fail() {
    let seen = check("regions");
    // Seeds in safety mode end before that is looked at.
    let Outcome { crossed_bytes, to_cross_bytes, slowest_us, relay_failures, .. } = &seen;
    assert!(
        *to_cross_bytes > 0 && (*to_cross_bytes..=to_cross_bytes * 105 / 100).contains(crossed_bytes),
        "{seen}"
    );
    assert!((1..=2_000_000).contains(slowest_us), "{seen}");
    assert!(relay_failures.len() > 2, "{relay_failures:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for (name, _) in Scenario::names() {
        for seed in 0..REPEATED_SEEDS {
            let scenario = Scenario::named(name, seed).expect("it is one of the names");
            let traces = [0, 1].map(|_| run(&scenario, false).map(|outcome| outcome.trace));
            assert_eq!(traces[0], traces[1], "{name}, seed {seed}");
        }
    }
}

#[test]
fn other_seeds_and_scenarios_give_other_traces() {
    let trace = |name, seed| {
        let scenario = Scenario::named(name, seed).expect("it is one of the names");
        run(&scenario, false).map(|outcome| outcome.trace)
    };
    assert_ne!(trace("swarm", 1), trace("swarm", 2));
    assert_ne!(trace("swarm", 1), trace("partitions", 1));
}
