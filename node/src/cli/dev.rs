//! `dev`: a whole cluster on this machine, each PoP a process of its own; to try it, or to check it.
//!
//! The rule: no PoP outlives this process, however this process ends.

mod check;
mod cluster;
mod live;
mod pop;
mod ports;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use config::{AccountId, Secret};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::cluster::Cluster;
use self::ports::Ports;
use super::failure::Failure;
use super::print;

/// The most PoPs of one machine.
const MAX_POPS: u16 = 16;

#[derive(clap::Args)]
pub(super) struct Args {
    /// How many PoPs, 1 to 16
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_POPS)))]
    pops: u16,
    /// Keep data and identities in this folder; without it they are gone at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The first PoP's HTTP port; the others follow [default: 8787; with --check: free ones]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http_port: Option<u16>,
    /// The first PoP's QUIC port (UDP); the others follow [default: --http-port + 1000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    quic_port: Option<u16>,
    /// The bearer token of the cluster's only account
    #[arg(long, value_name = "T", default_value = "littoral-dev")]
    token: Secret,
    /// That account's id: 32 hexadecimal digits
    #[arg(long, value_name = "A", default_value = "0123456789abcdef0123456789abcdef")]
    account: AccountId,
    /// Write everywhere, kill a PoP, write on, restart it, compare all, and exit
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    // Asked for before the first process starts, so that none can be left behind.
    let mut stop = StopSignals::listen()?;
    let ports = Ports::choose(&args)?;
    let folder = Folder::open(args.dir.as_deref())?;
    let mut cluster = Cluster::lay_out(&folder.path, args.pops, &ports, &args.account, &args.token)?;

    let outcome = tokio::select! {
        outcome = work(&mut cluster, args.check, json) => outcome,
        () = stop.wait() => {
            // On a line of its own, below the ^C that the terminal shows; one that is gone needs no word.
            if !json && io::stdout().is_terminal() {
                let _ = print::line("\nstopping all PoPs");
            }
            if args.check { Err(Failure::new("interrupted")) } else { Ok(()) }
        }
    };
    // A second signal does not wait for a clean stop: dropping the cluster kills what is left.
    let stopped = tokio::select! {
        stopped = cluster.stop() => stopped,
        () = stop.wait() => Ok(()),
    };
    drop(cluster);
    match outcome.and(stopped) {
        Ok(()) => folder.remove(),
        Err(failure) if args.check => {
            let kept = format!("data and logs are kept in {}", folder.path.display());
            Err(failure.hint(kept))
        }
        Err(failure) => folder.remove().and(Err(failure)),
    }
}

async fn work(cluster: &mut Cluster, check: bool, json: bool) -> Result<(), Failure> {
    if check { check::run(cluster, json).await } else { live::run(cluster, json).await }
}

/// Ctrl-C and its kin.
struct StopSignals([Signal; 3]);

impl StopSignals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Where the cluster lives.
struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    fn open(dir: Option<&Path>) -> Result<Self, Failure> {
        let cannot = |path: &Path, error| Failure::new(format!("cannot make {}: {error}", path.display()));
        if let Some(dir) = dir {
            fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
            let path = fs::canonicalize(dir)?;
            return Ok(Self { path, is_temporary: false });
        }
        let random = getrandom::u64().map_err(Failure::new)?;
        let path = std::env::temp_dir().join(format!("littoral-dev-{random:016x}"));
        // It holds keys: nobody else may look in.
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| cannot(&path, error))?;
        Ok(Self { path, is_temporary: true })
    }

    fn remove(self) -> Result<(), Failure> {
        if self.is_temporary {
            fs::remove_dir_all(&self.path)
                .map_err(|error| Failure::new(format!("cannot remove {}: {error}", self.path.display())))?;
        }
        Ok(())
    }
}
