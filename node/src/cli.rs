//! The command line: what can be typed, and which file carries it out.
//!
//! The rule: except for `serve`, `dev`'s own processes, and the making of identities, everything here
//! speaks to a PoP only through the REST API, as any other client does.

mod account;
mod batch;
mod cluster;
mod condition;
mod conflict;
mod connection;
mod dev;
mod diff;
mod doc;
mod export;
mod failure;
mod gc;
mod home;
mod import;
mod kinds;
mod kv;
mod lag;
mod link;
mod member;
mod print;
mod quota;
mod record;
mod resume;
mod serve;
mod status;
mod store;
mod token;
mod verify;
mod watch;
mod whereabouts;
mod workers;

#[cfg(test)]
mod fake_pop;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::connection::Connection;
use self::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command was not understood
  3  the PoP cannot be reached
  4  there is no such key, member, field, namespace, account or token";

/// An edge key-value store: a full copy at every PoP, converging.
#[derive(Parser)]
#[command(name = "littoral", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Args),
    /// Run a whole cluster on this machine, to try it or to check it
    Dev(dev::Args),
    /// Make a cluster and the tokens with which nodes join it
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Give a node its identity
    #[command(subcommand)]
    Node(cluster::NodeCommand),
    /// Show what a PoP knows of itself and its peers
    Status(Connection),
    /// Show how far each PoP is behind each other
    Lag(lag::Args),
    /// Show which PoPs hold a write
    Where(whereabouts::Args),
    /// Look at what a PoP sends to its peers, and set budgets
    #[command(subcommand)]
    Link(link::Command),
    /// Check a PoP's store, while it serves: digests, counts, and the files of large values
    Verify(Connection),
    /// Show which keys differ between two PoPs, and why
    Diff(diff::Args),
    /// Let PoPs into the cluster, and take them out
    #[command(subcommand)]
    Member(member::Command),
    /// Look at what waits to be dropped
    #[command(subcommand)]
    Gc(gc::Command),
    /// Rebuild a store, and look at what was left behind
    #[command(subcommand)]
    Store(store::Command),
    /// Make and delete accounts
    #[command(subcommand)]
    Account(account::Command),
    /// Make tokens that may do some things in an account, and revoke them
    #[command(subcommand)]
    Token(token::Command),
    /// Read and write keys
    Kv(kv::Args),
    /// Look at values that lost to a write whose writer had not seen them, and put them back
    Conflict(conflict::Args),
    /// Count, at every PoP at once
    Counter(kinds::CounterArgs),
    /// Count down to zero and no further, at every PoP at once
    Bounded(kinds::BoundedArgs),
    /// Put members into sets, and take them out
    Set(kinds::SetArgs),
    /// Read and write fields of maps
    Map(kinds::MapArgs),
    /// Read and edit JSON documents, at every PoP at once
    Doc(doc::Args),
    /// Use namespaces in Workers
    #[command(subcommand)]
    Workers(workers::Command),
    /// Look at configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script that completes commands in your shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a configuration file, and the LITTORAL_* variables, without starting anything
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Runs the command line and gives the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => {
            // Help that nobody reads to its end is no failure.
            let _ = help_or_error.print();
            return ExitCode::from(u8::try_from(help_or_error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    let json = cli.json;
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => block_on(dev::run(args, json)),
        Command::Cluster(command) => cluster::run(command, json),
        Command::Node(command) => cluster::run_node(command, json),
        Command::Status(connection) => block_on(status::run(connection, json)),
        Command::Lag(args) => block_on(lag::run(args, json)),
        Command::Where(args) => block_on(whereabouts::run(args, json)),
        Command::Link(command) => block_on(link::run(command, json)),
        Command::Verify(connection) => block_on(verify::run(connection, json)),
        Command::Diff(args) => block_on(diff::run(args, json)),
        Command::Member(command) => block_on(member::run(command, json)),
        Command::Gc(command) => block_on(gc::run(command, json)),
        Command::Store(store::Command::Rebuild(args)) => store::rebuild(&args, json),
        Command::Store(store::Command::DeadLetters(args)) => block_on(store::dead_letters(&args, json)),
        Command::Account(command) => block_on(account::run(command, json)),
        Command::Token(command) => block_on(token::run(command, json)),
        Command::Kv(args) => block_on(kv::run(args, json)),
        Command::Conflict(args) => block_on(conflict::run(args, json)),
        Command::Counter(args) => block_on(kinds::counter(args, json)),
        Command::Bounded(args) => block_on(kinds::bounded(args, json)),
        Command::Set(args) => block_on(kinds::set(args, json)),
        Command::Map(args) => block_on(kinds::map(args, json)),
        Command::Doc(args) => block_on(doc::run(args, json)),
        Command::Workers(command) => block_on(workers::run(command, json)),
        Command::Config(ConfigCommand::Check { file }) => serve::check(&file, json),
        Command::Completions { shell } => completions(shell),
    }
}

/// How much of an id tells it from others.
const SHORT_ID_CHARS: usize = 8;

/// The beginning of an id, for people.
fn short_id(id: &str) -> String {
    id.chars().take(SHORT_ID_CHARS).collect()
}

/// One thread is enough for a client.
fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A read of a terminal's standard input cannot be called off; do not wait for it.
    runtime.shutdown_background();
    outcome
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "littoral", &mut script);
    print::bytes(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_typed_is_understood_or_refused() {
        for (line, is_understood) in [
            ("serve --config a.toml", true),
            ("serve", false),
            ("dev", true),
            ("dev --pops 16 --check --json", true),
            ("dev --pops 0", false),
            ("dev --pops 17", false),
            ("dev --account 0123456789abcdef0123456789ABCDEF --token t", true),
            ("dev --account 0123", false),
            ("dev --token with\u{7f}control", false),
            ("cluster init d", true),
            ("cluster join-token d --pop ams --valid-for 90m", true),
            ("cluster join-token d --pop ams --valid-for soon", false),
            ("node init d --token -", true),
            ("status --url http://h:1", true),
            ("status --url https://h:1 --ca ca.pem", true),
            ("lag --watch", true),
            ("where 0123-ab --url http://h:1", true),
            ("where --session AT9x", true),
            ("where", false),
            ("link list --url http://h:1", true),
            ("link budget 12.5MB --pop sin", true),
            ("link budget none --of inter-region", true),
            ("link budget 12.5MB", false),
            ("link budget fast --of node", false),
            ("link pause sin", true),
            ("link resume", false),
            ("verify --url http://h:1 --json", true),
            ("diff http://h:1 http://h:2 --limit 5 --token t", true),
            ("diff https://h:1 https://h:2 --ca ca.pem --token t", true),
            ("diff http://h:1", false),
            ("member list --url http://h:1 --json", true),
            ("member add sin --authority ca --wait --new-url http://h:1", true),
            ("member add sin", false),
            ("member add sin --authority ca --new-url http://h:1", false),
            ("member drain sin --wait --dry-run", true),
            ("member drain sin --undo --wait", false),
            ("member remove sin --force", true),
            ("member replace sin --authority ca --dry-run", true),
            ("gc explain", true),
            ("store rebuild --config f --dry-run", true),
            ("store rebuild", false),
            ("store dead-letters --write e", true),
            ("store dead-letters --write e --forget e", false),
            ("account create shop --id 0123456789abcdef0123456789ABCDEF", true),
            ("account list --json", true),
            ("account delete", false),
            ("token create reader --scope read,list:*", true),
            (
                "token create x --scope read:demo:a/ --scope write:demo:b/ --expires-in 30d --requests-per-s 5",
                true,
            ),
            ("token create reader", false),
            ("token create reader --scope read", false),
            ("token create reader --scope reed:*", false),
            ("token create reader --scope read:* --expires-in soon", false),
            ("token list --account 0123456789abcdef0123456789ABCDEF", true),
            ("token revoke 0123456789abcdef", true),
            ("token show", true),
            ("kv put k v --ttl 60", true),
            ("kv put k v --path f", false),
            ("kv put k --ttl 60 --expires-at 9", false),
            ("kv get k --json", true),
            ("kv list --prefix p --limit 5", true),
            ("kv import --resume s --skip-bad", true),
            ("kv export f --resume s", true),
            ("kv export --resume s", false),
            ("kv namespace create demo", true),
            ("kv namespace quota demo", true),
            ("kv namespace quota demo --max-bytes 10GiB --max-keys none --requests-per-s 100", true),
            ("kv namespace quota demo --max-bytes lots", false),
            ("kv namespace quota", false),
            ("kv namespace home demo", true),
            ("kv namespace home demo --region eu", true),
            ("kv namespace home demo --none", true),
            ("kv namespace home demo --none --region eu", false),
            ("conflict list --prefix p --preview --limit 5", true),
            ("conflict list --prefix p --key k", false),
            ("conflict show 00ff", true),
            ("conflict restore 00ff --if-match e", true),
            ("conflict dismiss", false),
            ("counter add hits", true),
            ("counter add hits -5 --ttl 60", true),
            ("counter add hits many", false),
            ("counter get hits --json", true),
            ("counter reset", false),
            ("bounded add seats 100", true),
            ("bounded take seats --timeout 0", true),
            ("bounded take seats -1", false),
            ("bounded delete", false),
            ("set add s m --ttl 1", true),
            ("set add s", false),
            ("set contains s m", true),
            ("set list s --prefix p --limit 5", true),
            ("map put m f -v", false),
            ("map put m f v --ttl 1", true),
            ("map get m f", true),
            ("map list m --json", true),
            ("workers config demo --binding KV --url http://h:1", true),
            ("workers config demo --binding K-V", false),
            ("workers config", false),
            ("config check f", true),
            ("completions zsh", true),
        ] {
            let typed = std::iter::once("littoral").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(typed).is_ok(), is_understood, "{line}");
        }
    }
}
