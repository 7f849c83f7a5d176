//! The program `littoral-bench`: measures Littoral beside its peers and prints tables.
//!
//! The rule it upholds: a figure is worth something only beside another of the same go, so contenders take
//! turns in rounds, and ratios are taken within a round. `docs/benchmarks.md` has the figures and what they
//! mean.

mod anti_entropy;
mod catch_up;
mod cluster;
mod documents;
mod embedded;
mod folds;
mod hello;
mod http;
mod kinds;
mod load;
mod machine;
mod process;
mod replica;
mod report;
mod storage;
mod text;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::report::Tables;

/// The nodes' allocator, so that what runs in this process is not at a disadvantage.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Littoral beside its peers.
#[derive(Parser)]
#[command(name = "littoral-bench", version)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
    /// Print the tables as Markdown
    #[arg(long, global = true)]
    markdown: bool,
    /// Where stores go: a folder on the disk to be measured, not on a tmpfs
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// GET and durable PUT over HTTP, against an axum "hello" and redis-server
    Http(http::Options),
    /// Bytes on the wire per replicated write, and when a write is visible at a peer
    Wire(wire::Options),
    /// A PoP that missed writes catches up: time, and bytes on the wire
    CatchUp(catch_up::Options),
    /// Two replicas that differ: bytes and round trips of a round, against other ways to find differences
    AntiEntropy(anti_entropy::Options),
    /// The replication core in memory: nanoseconds per step
    Core,
    /// Group commit on the real store, in this process
    Storage(storage::Options),
    /// GET of a node in this process, against the store below it and HTTP
    Embedded(embedded::Options),
    /// What a member costs as a set grows, beside a plain value
    Kinds(kinds::Options),
    /// What one more edit costs a document that has had many, at each PoP
    Documents(documents::Options),
    /// What a long document takes on the disk, with its changes folded
    Folds(folds::Options),
    /// Many who watch: when each hears of a write
    Watch(watch::Options),
    /// The server that `http` compares with
    #[command(hide = true)]
    Hello {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    let Arguments { part, markdown, folder } = Arguments::parse();
    if let Part::Hello { listen } = part {
        return many_threads()?.block_on(hello::serve(listen));
    }
    let mut scratch = tempfile::Builder::new();
    scratch.prefix("littoral-bench-");
    let scratch = folder.map_or_else(|| scratch.tempdir(), |folder| scratch.tempdir_in(folder))?;
    println!("{}", machine::describe());
    let mut tables = Tables::new(markdown);
    match part {
        Part::Http(options) => one_thread()?.block_on(http::run(&options, scratch.path(), &mut tables))?,
        Part::Wire(options) => one_thread()?.block_on(wire::run(&options, scratch.path(), &mut tables))?,
        Part::CatchUp(options) => {
            one_thread()?.block_on(catch_up::run(&options, scratch.path(), &mut tables))?;
        }
        Part::AntiEntropy(options) => anti_entropy::run(&options, &mut tables)?,
        Part::Embedded(options) => {
            one_thread()?.block_on(embedded::run(&options, scratch.path(), &mut tables))?;
        }
        Part::Kinds(options) => kinds::run(&options, scratch.path(), &mut tables)?,
        Part::Documents(options) => {
            one_thread()?.block_on(documents::run(&options, scratch.path(), &mut tables))?;
        }
        Part::Folds(options) => folds::run(&options, scratch.path(), &mut tables)?,
        Part::Core => replica::run(&mut tables)?,
        Part::Storage(options) => {
            many_threads()?.block_on(storage::run(&options, scratch.path(), &mut tables))?;
        }
        Part::Watch(options) => one_thread()?.block_on(watch::run(&options, scratch.path(), &mut tables))?,
        Part::Hello { .. } => unreachable!("served above"),
    }
    println!("{}", machine::describe());
    Ok(())
}

/// For load: one thread drives every connection, and leaves the rest of the machine to the servers.
fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// For servers, as the node has it.
fn many_threads() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
