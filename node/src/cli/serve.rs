//! `serve`: the process of one node; and the check of the file it starts from.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::Config;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;

use super::failure::Failure;
use super::print;

/// How long a node whose parent is gone may take to stop cleanly.
const ORPHAN_STOP_TIME: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(long)]
    config: PathBuf,
    /// Return under a new identity first, as `store rebuild` does
    #[arg(long)]
    rebuild: bool,
    /// Stop when standard input ends: the process that holds its other end is gone
    #[arg(long, hide = true)]
    parent_pipe: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = load(&args.config)?;
    if args.parent_pipe {
        std::thread::spawn(stop_with_the_parent);
    }
    crate::node::run(config, args.rebuild).map_err(|error| Failure::new(format!("{error:#}")))
}

pub(super) fn check(file: &Path, json: bool) -> Result<(), Failure> {
    load(file)?;
    if json {
        return print::json(&json!({ "file": file, "valid": true }));
    }
    print::line(format!("{} is valid", file.display()))
}

pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    Config::load(file).map_err(|error| {
        Failure::new(error).hint("config/example.toml of the source shows every key, its unit and its bounds")
    })
}

/// A pipe tells of the parent's end however it came, SIGKILL included, and needs no unsafe code, as
/// PR_SET_PDEATHSIG would.
fn stop_with_the_parent() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    if kill_process(getpid(), Signal::TERM).is_ok() {
        std::thread::sleep(ORPHAN_STOP_TIME);
    }
    std::process::exit(1);
}
