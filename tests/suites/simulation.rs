//! Seeds of the simulator, few enough for every test run; `cargo sim` runs more.

use littoral_tests::sim::{self, Scenario};

/// Seeds each test runs.
const SEEDS: u64 = 200;

#[test]
fn replicas_converge_and_lose_nothing_whatever_happens() {
    let (mut crashes, mut repaired) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = sim::run(&Scenario::of(seed), false);
        let outcome = outcome.unwrap_or_else(|violation| {
            panic!("seed {seed}: {violation}\nreplay it with: cargo sim -- --seed {seed}")
        });
        crashes += outcome.crashes;
        repaired += outcome.repaired;
    }
    // A run in which nothing went wrong shows nothing.
    assert!(crashes > SEEDS && repaired > 0, "{crashes} crashes, {repaired} repaired");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let traces = [0, 1].map(|_| sim::run(&Scenario::of(seed), false).map(|outcome| outcome.trace));
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
