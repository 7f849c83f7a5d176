//! Real nodes on a wide-area network, as a command: `cargo wan` runs every scenario, `cargo wan -- --scenario ocean`
//! one. It ends with a failure where something is wrong, not where a figure misses its wish.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use littoral_tests::cluster;
use littoral_tests::random::Random;
use littoral_tests::wan::scenarios::{self, Request, SCENARIOS};
use littoral_tests::wan::{self, Apart};

/// Measures real nodes over delay, loss, rates and cuts.
#[derive(Parser)]
struct Arguments {
    /// The scenario; without it all of them.
    #[arg(long)]
    scenario: Option<String>,
    /// Chooses what is lost and what goes wrong; a fresh one where none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long `storm` lasts.
    #[arg(long, default_value_t = 2)]
    minutes: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let names: Vec<&str> = match &arguments.scenario {
        Some(name) => vec![name],
        None => SCENARIOS.iter().map(|(name, _)| *name).collect(),
    };
    scenarios::check_name(names[0])?;
    if let Some(reason) = wan::missing() {
        println!("SKIP: there can be no wide-area network here: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    // Before the network is gone, in case that something has to be fetched.
    cluster::binary()?;
    let seed = arguments.seed.unwrap_or_else(Random::fresh_seed);
    println!("seed {seed}");
    let request = Request { seed, minutes: arguments.minutes };
    let failed = wan::apart(|place| Ok(names.iter().filter(|name| !passes(name, place, request)).count()))?;
    println!("{} passed, {failed} failed", names.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn passes(name: &str, place: &Apart, request: Request) -> bool {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = |runtime: tokio::runtime::Runtime| runtime.block_on(scenarios::run(name, place, request));
    match runtime.map_err(anyhow::Error::from).and_then(run) {
        Ok(report) => {
            println!("\n{report}  ({:.0} s)", started.elapsed().as_secs_f64());
            true
        }
        Err(error) => {
            println!("\n{name}: FAILED: {error:#}");
            println!("again, with the same choices: cargo wan -- --scenario {name} --seed {}", request.seed);
            false
        }
    }
}
