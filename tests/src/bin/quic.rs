//! The links on virtual time as a command: `cargo quic -- --seeds 100`, and `cargo quic -- --seed 7` to see one run.

use std::time::Instant;

use anyhow::bail;
use clap::Parser;
use littoral_tests::quic::{self, Outcome, Scenario};
use littoral_tests::random::mix;

/// Runs seeds of the links on virtual time and checks what must hold.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one alone, and print its scenario and datagrams.
    #[arg(long)]
    seed: Option<u64>,
    /// Run each seed this often, and compare the traces.
    #[arg(long, default_value_t = 1)]
    times: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let scenario = Scenario::of(seed);
        println!("{scenario:#?}");
        let outcome = quic::run(&scenario, true).map_err(|violation| anyhow::anyhow!(violation))?;
        println!("{}{}", outcome.log, summary(&outcome));
        return Ok(());
    }
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    let mut total = Outcome::default();
    for seed in arguments.from..arguments.from + arguments.seeds {
        let mut first = None;
        for _ in 0..arguments.times {
            let outcome = quic::run(&Scenario::of(seed), false).and_then(|outcome| {
                let first = *first.get_or_insert(outcome.trace);
                let same = first == outcome.trace;
                same.then_some(outcome).ok_or_else(|| format!("another trace than {first:016x}, its first"))
            });
            match outcome {
                Ok(outcome) => {
                    passed += 1;
                    add(&mut total, &outcome);
                }
                Err(violation) => {
                    failed += 1;
                    println!("seed {seed}: {violation}\nreplay it with: cargo quic -- --seed {seed}");
                }
            }
        }
    }
    let elapsed_s = start.elapsed().as_secs_f64();
    println!("{}", summary(&total));
    println!("{:.0} simulated seconds per second", total.virtual_us as f64 / 1e6 / elapsed_s);
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("{failed} runs found a violation");
    }
    Ok(())
}

fn add(total: &mut Outcome, outcome: &Outcome) {
    total.datagrams.sent += outcome.datagrams.sent;
    total.datagrams.delivered += outcome.datagrams.delivered;
    total.datagrams.lost += outcome.datagrams.lost;
    total.datagrams.cut += outcome.datagrams.cut;
    total.path_faults += outcome.path_faults;
    total.restarts += outcome.restarts;
    total.virtual_us += outcome.virtual_us;
    total.healed_after_us = total.healed_after_us.max(outcome.healed_after_us);
    total.trace = mix(total.trace ^ outcome.trace);
}

fn summary(outcome: &Outcome) -> String {
    format!(
        "{:?}, {} faults of paths, {} restarts, healed within {:.1} s, {:.1} simulated s, trace {:016x}",
        outcome.datagrams,
        outcome.path_faults,
        outcome.restarts,
        outcome.healed_after_us as f64 / 1e6,
        outcome.virtual_us as f64 / 1e6,
        outcome.trace
    )
}
