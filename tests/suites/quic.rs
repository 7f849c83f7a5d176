//! Seeds of the links on virtual time, few enough for every test run; `cargo quic` runs more.

use littoral_tests::quic::{self, Scenario};

/// Seeds that run with every test run. Any other may be added once it has found something.
const SEEDS: std::ops::Range<u64> = 0..8;

#[test]
fn writes_converge_and_none_is_lost_whatever_happens_to_links_and_nodes() {
    let (mut path_faults, mut restarts) = (0, 0);
    for seed in SEEDS {
        let outcome = quic::run(&Scenario::of(seed), false).unwrap_or_else(|violation| {
            panic!("seed {seed}: {violation}\nreplay it with: cargo quic -- --seed {seed}")
        });
        println!("{seed}: {outcome:?}");
        path_faults += outcome.path_faults;
        restarts += outcome.restarts;
    }
    // A run in which nothing went wrong shows nothing.
    assert!(path_faults > 10 && restarts > 10, "{path_faults} faults of paths, {restarts} restarts");
}

#[test]
fn the_same_seed_gives_the_same_trace_of_datagrams() {
    for seed in 0..2 {
        let outcomes = [0, 1].map(|_| quic::run(&Scenario::of(seed), false));
        assert_eq!(outcomes[0], outcomes[1], "seed {seed}");
    }
}
