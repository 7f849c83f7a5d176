//! The simulator as a command: `cargo sim -- --seeds 1000`, and `cargo sim -- --seed 7` to see one run.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use littoral_tests::sim::{self, Outcome, Scenario, mutants, seeds};

/// Runs seeds of the simulator and checks what must hold.
#[derive(Parser)]
struct Arguments {
    /// How many seeds of each scenario to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one alone, and print its scenario and trace.
    #[arg(long)]
    seed: Option<u64>,
    /// The scenario; without it all of them, and of a single seed `swarm`.
    #[arg(long)]
    scenario: Option<String>,
    /// Look for every planted bug instead, in a build that has them; each must be found.
    #[arg(long)]
    mutants: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.mutants {
        let (found, missed) = mutants::run()?;
        return Ok(ended(found, missed));
    }
    let names: Vec<&str> = match &arguments.scenario {
        Some(name) => vec![name],
        None => Scenario::names().map(|(name, _)| name).collect(),
    };
    let known: Vec<_> = Scenario::names().map(|(name, pushes)| format!("  {name}: {pushes}")).collect();
    let unknown = || format!("no such scenario; there are\n{}", known.join("\n"));
    if let Some(seed) = arguments.seed {
        let scenario = Scenario::named(names[0], seed).with_context(unknown)?;
        println!("{scenario:#?}");
        return Ok(match sim::run(&scenario, true) {
            Ok(outcome) => {
                println!("{}{outcome}", outcome.log);
                ended(1, 0)
            }
            Err(violation) => {
                println!("{violation}");
                ended(0, 1)
            }
        });
    }
    let (mut passed, mut failed) = (0, 0);
    for name in names {
        Scenario::named(name, 0).with_context(unknown)?;
        let mut total = Outcome::default();
        seeds::run_all(name, arguments.from..arguments.from + arguments.seeds, |seed, result| {
            match result {
                Ok(outcome) => {
                    passed += 1;
                    total.add(&outcome);
                }
                Err(violation) => {
                    failed += 1;
                    println!("{name}, seed {seed}: {violation}");
                    println!("replay it with: cargo sim -- --scenario {name} --seed {seed}");
                }
            }
            true
        });
        println!("{name}: {total}");
    }
    Ok(ended(passed, failed))
}

fn ended(passed: usize, failed: usize) -> ExitCode {
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
