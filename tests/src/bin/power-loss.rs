//! Power cuts by the hundred: runs the two controls and the store on emulated disks, and compares what
//! the cuts left with what was acknowledged. CI runs a few of the same in `suites/power_loss.rs`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use littoral_tests::mounts;
use littoral_tests::power::log::{self, Flush};
use littoral_tests::power::{self, store};
use littoral_tests::random::Random;

/// Cuts taken of one run of a workload, before it begins again on an empty disk.
const CUTS_PER_RUN: u64 = 5;

#[derive(Parser)]
#[command(about = "Emulates power cuts and looks for acknowledged writes that are gone")]
struct Args {
    /// Images to make and check of the store; the controls are run beside them.
    #[arg(long, default_value_t = 10)]
    images: u64,
    /// Chooses the moments of the cuts and what they leave; a fresh one where none is given.
    #[arg(long)]
    seed: Option<u64>,
    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The writer of the controls, for this program itself.
    #[command(hide = true)]
    WriteLog { folder: PathBuf, flush: String },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Part::WriteLog { folder, flush }) = args.command {
        let named = Flush::NAMED.into_iter().find(|named| named.0 == flush);
        log::write(&folder, named.context("no such flush")?.1)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(reason) = power::missing() {
        println!("SKIP: power cuts cannot be emulated here: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    mounts::enter_private_mounts()?;
    let seed = args.seed.unwrap_or_else(Random::fresh_seed);
    println!("seed {seed}");
    let mut tally = Tally::default();
    let writer = std::env::current_exe()?;
    for run in 0..args.images.div_ceil(CUTS_PER_RUN) {
        let cuts = CUTS_PER_RUN.min(args.images - run * CUTS_PER_RUN);
        for (name, flush) in Flush::NAMED {
            let outcomes = log::run(&writer, flush, seed + run, cuts)?;
            tally.count(flush.is_shown_by(&outcomes), &format!("log, flush {name}: {outcomes:?}"));
        }
        match store::run(seed + run, cuts) {
            Ok(outcomes) => outcomes
                .iter()
                .for_each(|outcome| tally.count(outcome.wrong == 0, &format!("store: {outcome:?}"))),
            Err(error) => tally.count(false, &format!("store: {error:#}")),
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn count(&mut self, passed: bool, what: &str) {
        let verdict = if passed { "pass" } else { "FAIL" };
        println!("{verdict}  {what}");
        *(if passed { &mut self.passed } else { &mut self.failed }) += 1;
    }
}
