//! Power cuts, a few of them: the controls that prove the emulator, then the store. The command
//! `cargo run --release -p littoral-tests --bin power-loss -- --images 100` does more of the same.

#![allow(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::path::Path;

use littoral_tests::mounts;
use littoral_tests::power::log::{self, Flush};
use littoral_tests::power::{self, store};
use littoral_tests::random::Random;

/// Cuts in the run of each control.
const CONTROL_CUTS: u64 = 3;
/// Cuts in the run of the store.
const STORE_CUTS: u64 = 2;

/// Runs `test` with mounts of its own; `None` where power cuts cannot be emulated.
fn with_power_cuts<T>(test: impl FnOnce(u64) -> anyhow::Result<T>) -> Option<T> {
    if let Some(reason) = power::missing() {
        println!("SKIP: power cuts cannot be emulated here: {reason}");
        return None;
    }
    mounts::enter_private_mounts().unwrap();
    let seed = Random::fresh_seed();
    println!(
        "replay the choices: cargo run --release -p littoral-tests --bin power-loss -- --images 1 --seed {seed}"
    );
    Some(test(seed).unwrap())
}

fn check_control(flush: Flush) {
    let writer = Path::new(env!("CARGO_BIN_EXE_power-loss"));
    let Some(outcomes) = with_power_cuts(|seed| log::run(writer, flush, seed, CONTROL_CUTS)) else { return };
    assert!(outcomes.iter().any(|outcome| outcome.acked > 0), "nothing was written: {outcomes:#?}");
    assert!(flush.is_shown_by(&outcomes), "{outcomes:#?}");
}

#[test]
fn a_log_flushed_after_each_record_loses_nothing() {
    check_control(Flush::EachRecord);
}

#[test]
fn a_log_that_only_reaches_the_cache_of_the_disk_loses_records() {
    check_control(Flush::WriteBack);
}

#[test]
fn a_log_that_is_never_flushed_loses_records() {
    check_control(Flush::Never);
}

#[test]
fn the_store_loses_no_acknowledged_write() {
    let Some(outcomes) = with_power_cuts(|seed| store::run(seed, STORE_CUTS)) else { return };
    for outcome in outcomes {
        println!("{} acknowledged writes, {:?}", outcome.acked, outcome.cut);
        assert!(outcome.acked > 0, "nothing was written");
        assert_eq!(outcome.wrong, 0, "{outcome:?}");
    }
}
