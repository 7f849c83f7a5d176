//! Many seeds on all cores: results come in the order of the seeds, whichever core is done first.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use super::{Outcome, Scenario, run};

/// How many of the machine's cores there are to run on.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs the seeds of a named scenario, and calls `done` with each result, by rising seed, until it says stop by giving
/// `false`.
///
/// # Panics
/// When there is no scenario of this name.
pub fn run_all(name: &str, seeds: Range<u64>, mut done: impl FnMut(u64, Result<Outcome, String>) -> bool) {
    let next = AtomicU64::new(seeds.start);
    let (results, inbox) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..cores() {
            let (next, results, end) = (&next, results.clone(), seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let scenario = Scenario::named(name, seed).expect("the caller knows the names");
                    if results.send((seed, run(&scenario, false))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut waiting = BTreeMap::new();
        let mut due = seeds.start;
        for (seed, result) in &inbox {
            waiting.insert(seed, result);
            while let Some(result) = waiting.remove(&due) {
                if !done(due, result) {
                    next.store(seeds.end, Ordering::Relaxed);
                    return;
                }
                due += 1;
            }
        }
    });
}
