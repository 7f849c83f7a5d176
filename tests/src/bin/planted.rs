//! Seeds of the simulator against one planted bug, until one finds it. Only `cargo sim -- --mutants` builds and runs
//! this with bugs in it; an ordinary build of it has none, and says so.

use std::process::ExitCode;

#[cfg(not(planted_bugs))]
fn main() -> ExitCode {
    eprintln!("this build has no planted bugs in it: run cargo sim -- --mutants");
    ExitCode::FAILURE
}

#[cfg(planted_bugs)]
fn main() -> ExitCode {
    run::main()
}

#[cfg(planted_bugs)]
mod run {
    use std::panic;
    use std::process::ExitCode;

    use clap::Parser;
    use littoral_tests::sim::mutants::{FOUND, NOT_FOUND};
    use littoral_tests::sim::{self, Scenario};
    use replication::planted::{self, Bug};

    /// Looks for a planted bug.
    #[derive(Parser)]
    struct Arguments {
        /// Prints every bug, its place and what is wrong, and stops.
        #[arg(long)]
        list: bool,
        /// The bug; without it none is planted.
        #[arg(long)]
        bug: Option<String>,
        /// The scenario to look in.
        #[arg(long, default_value = "swarm")]
        scenario: String,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// The most seeds.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
    }

    pub(super) fn main() -> ExitCode {
        let arguments = Arguments::parse();
        if arguments.list {
            for bug in Bug::ALL {
                println!("{}\t{}\t{}", bug.name(), bug.place(), bug.wrong());
            }
            return ExitCode::SUCCESS;
        }
        let named =
            |name: &String| *Bug::ALL.iter().find(|bug| bug.name() == name).expect("a bug of the list");
        let bug = arguments.bug.as_ref().map(named);
        // A bug may break what the core asserts: that finds it too.
        panic::set_hook(Box::new(|_| ()));
        for seed in arguments.from..arguments.from + arguments.seeds {
            let scenario = Scenario::named(&arguments.scenario, seed).expect("a scenario of the list");
            let run = |bug| {
                planted::select(bug);
                let ended = panic::catch_unwind(|| sim::run(&scenario, false).err());
                ended.unwrap_or_else(|_| Some("an assertion failed".into()))
            };
            // A seed that finds something where no bug is planted says nothing about the bug.
            let is_found = |_: &String| bug.is_none() || run(None).is_none();
            if let Some(violation) = run(bug).filter(is_found) {
                println!("{seed}\t{}", violation.lines().next().unwrap_or_default());
                return ExitCode::from(FOUND);
            }
        }
        ExitCode::from(NOT_FOUND)
    }
}
