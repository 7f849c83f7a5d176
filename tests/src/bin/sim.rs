//! The simulator as a command: `cargo sim -- --seeds 1000`, and `cargo sim -- --seed 7` to see one run.

use anyhow::bail;
use clap::Parser;
use littoral_tests::sim::{self, Outcome, Scenario};

/// Runs seeds of the simulator and checks what must hold.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one alone, and print its scenario and trace.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let scenario = Scenario::of(seed);
        println!("{scenario:#?}");
        let outcome = sim::run(&scenario, true).map_err(|violation| anyhow::anyhow!(violation))?;
        println!("{}{}", outcome.log, summary(&outcome));
        return Ok(());
    }
    let (mut passed, mut failed) = (0, 0);
    let mut total = Outcome::default();
    for seed in arguments.from..arguments.from + arguments.seeds {
        match sim::run(&Scenario::of(seed), false) {
            Ok(outcome) => {
                passed += 1;
                total.acknowledged += outcome.acknowledged;
                total.delivered += outcome.delivered;
                total.crashes += outcome.crashes;
                total.repaired += outcome.repaired;
                total.healed_after_us = total.healed_after_us.max(outcome.healed_after_us);
            }
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {violation}\nreplay it with: cargo sim -- --seed {seed}");
            }
        }
    }
    println!("{}", summary(&total));
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("{failed} seeds found a violation");
    }
    Ok(())
}

fn summary(outcome: &Outcome) -> String {
    format!(
        "{} writes acknowledged, {} frames delivered, {} crashes, {} entries repaired, healed within {:.1} s, trace {:016x}",
        outcome.acknowledged,
        outcome.delivered,
        outcome.crashes,
        outcome.repaired,
        outcome.healed_after_us as f64 / 1e6,
        outcome.trace
    )
}
