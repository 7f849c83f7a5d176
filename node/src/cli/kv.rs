//! `kv`: keys and namespaces, from the command line.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use littoral::api::kv::{KeyInfo, MAX_VALUE_BYTES};
use littoral::{Ack, ListOptions, PutOptions};
use serde_json::json;
use serde_json::value::RawValue;

use super::condition::{ConditionArgs, show_etag};
use super::connection::{AccountArgs, is_id};
use super::failure::Failure;
use super::{batch, export, home, import, print, quota, record, watch};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write the bytes of a key to standard output, as they are
    Get {
        /// The key
        key: String,
        /// Write the name of the value's state instead, for `put --if-match`
        #[arg(long)]
        etag: bool,
    },
    /// Write a value; what was stored along with the old one is replaced too
    Put(PutArgs),
    /// Delete a key; no error if there is none. Or all keys with a prefix
    Delete(DeleteArgs),
    /// List keys, one a line, in the order of their bytes
    List {
        /// Only keys that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Do several writes of any kinds as one, from JSON: {"writes": [...]}
    Batch(batch::Args),
    /// Show what is there, then what changes, a line for each event, until Ctrl-C
    Watch(watch::Args),
    /// Write many keys from NDJSON, one object a line:
    /// {"key", "value", "base64"?, "metadata"?, "expiration"?}
    Import(import::Args),
    /// Write all keys as NDJSON, in the form that `import` reads
    Export(export::Args),
    /// List, make and delete namespaces
    #[command(subcommand)]
    Namespace(NamespaceCommand),
}

#[derive(clap::Args)]
struct PutArgs {
    /// The key
    key: String,
    /// The value; standard input if neither this nor --path is given
    #[arg(conflicts_with = "path")]
    value: Option<String>,
    /// The file with the value
    #[arg(long)]
    path: Option<PathBuf>,
    /// Expire so many seconds from now, at least 60
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Expire at this Unix time, in seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "ttl")]
    expires_at: Option<u64>,
    /// JSON to store along with the value
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Do not wait for the disk: a power cut within the next moment may lose the write
    #[arg(long)]
    buffered: bool,
    #[command(flatten)]
    condition: ConditionArgs,
}

#[derive(clap::Args)]
struct DeleteArgs {
    /// The key
    #[arg(required_unless_present_any = ["prefix", "all"])]
    key: Option<String>,
    /// Every key that begins with this
    #[arg(long, conflicts_with = "key")]
    prefix: Option<String>,
    /// Every key
    #[arg(long, conflicts_with_all = ["key", "prefix"])]
    all: bool,
}

#[derive(clap::Subcommand)]
enum NamespaceCommand {
    /// List the account's namespaces
    List,
    /// Make a namespace
    Create {
        /// Its title
        title: String,
    },
    /// Delete a namespace with all its keys
    Delete {
        /// Its id
        id: String,
    },
    /// Show what a namespace may hold and be asked, and what it has; or set that
    Quota(quota::Args),
    /// Show which PoP decides about conditional writes of a namespace, or have one region decide
    Home(home::Args),
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let account = &args.account;
    match args.command {
        Command::Get { key, etag: true } => etag(account, &key, json).await,
        Command::Get { key, .. } => get(account, &key, json).await,
        Command::Put(put_args) => put(account, put_args, json).await,
        Command::Delete(delete_args) => delete(account, delete_args, json).await,
        Command::List { prefix, limit } => list(account, prefix, limit.unwrap_or(usize::MAX), json).await,
        Command::Batch(batch_args) => batch::run(&batch_args, account, json).await,
        Command::Watch(watch_args) => watch::run(watch_args, account, json).await,
        Command::Import(import_args) => import::run(import_args, account, json).await,
        Command::Export(export_args) => export::run(export_args, account, json).await,
        Command::Namespace(command) => namespaces(account, command, json).await,
    }
}

async fn get(account: &AccountArgs, key: &str, json: bool) -> Result<(), Failure> {
    let namespace = account.namespace().await?;
    let missing = || Failure::not_found(format!("there is no key {key:?}"));
    if json {
        let value = namespace.get(key).await?.ok_or_else(missing)?;
        let metadata = namespace.metadata(key).await?.flatten();
        return print::bytes(&record::write(key.into(), &value.bytes, value.expires_at_s, metadata)?);
    }
    let stream = namespace.get_stream(key).await?.ok_or_else(missing)?;
    let mut stream = std::pin::pin!(stream);
    while let Some(part) = stream.try_next().await? {
        print::bytes(&part)?;
    }
    Ok(())
}

async fn etag(account: &AccountArgs, key: &str, json: bool) -> Result<(), Failure> {
    let missing = || Failure::not_found(format!("there is no key {key:?}"));
    let entry = account.namespace().await?.get_versioned(key).await?.ok_or_else(missing)?;
    show_etag(key, &entry.etag, json)
}

async fn delete(account: &AccountArgs, args: DeleteArgs, json: bool) -> Result<(), Failure> {
    let namespace = account.namespace().await?;
    let deleted = match (args.key, args.prefix) {
        (Some(key), _) => {
            namespace.delete(&key).await?;
            return if json { print::json(&json!({ "key": key, "deleted": true })) } else { Ok(()) };
        }
        (None, Some(prefix)) if prefix.is_empty() => {
            return Err(Failure::usage("an empty prefix is every key").hint("--all deletes every key"));
        }
        (None, Some(prefix)) => namespace.delete_prefix(&prefix).await?,
        (None, None) => namespace.delete_all().await?,
    };
    if json {
        print::json(&json!({ "deleted": deleted }))
    } else {
        print::line(format!("{deleted} keys deleted"))
    }
}

async fn put(account: &AccountArgs, args: PutArgs, json: bool) -> Result<(), Failure> {
    let value = match (args.value, &args.path) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(path)) => {
            let open = std::fs::File::open(path).map_err(|error| cannot_read(path, error))?;
            read_value(open).map_err(|error| cannot_read(path, error))?
        }
        (None, None) => {
            if io::stdin().is_terminal() {
                eprintln!("reading the value from standard input; Ctrl-D ends it");
            }
            read_value(io::stdin())?
        }
    };
    let metadata = args.metadata.map(RawValue::from_string).transpose();
    let options = PutOptions {
        metadata: metadata.map_err(|error| Failure::usage(format!("--metadata is not JSON: {error}")))?,
        expiration_ttl_s: args.ttl,
        expires_at_s: args.expires_at,
        ack: if args.buffered { Ack::Buffered } else { Ack::Durable },
        condition: args.condition.given(),
    };
    let bytes = value.len();
    if options.condition.is_some() {
        let etag = account.namespace().await?.put_versioned(&args.key, value, options).await?;
        return show_etag(&args.key, &etag, json);
    }
    account.namespace().await?.put(&args.key, value, options).await?;
    if json { print::json(&json!({ "key": args.key, "bytes": bytes })) } else { Ok(()) }
}

fn read_value(input: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    input.take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut value)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(io::Error::other(format!("the value is larger than {MAX_VALUE_BYTES} bytes")));
    }
    Ok(value)
}

fn cannot_read(path: &Path, error: io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}

async fn list(account: &AccountArgs, prefix: String, limit: usize, json: bool) -> Result<(), Failure> {
    let options = ListOptions { prefix, ..ListOptions::default() };
    let mut listing = account.namespace().await?.list(options);
    let mut left = limit;
    while left > 0
        && let Some(page) = listing.next_page().await?
    {
        let lines = page.keys.iter().take(left).map(|key| list_line(key, json));
        print::bytes(lines.collect::<Result<String, Failure>>()?.as_bytes())?;
        left -= page.keys.len().min(left);
    }
    Ok(())
}

fn list_line(key: &KeyInfo, json: bool) -> Result<String, Failure> {
    let text = if json { serde_json::to_string(key).map_err(Failure::new)? } else { print::name(&key.name) };
    Ok(text + "\n")
}

async fn namespaces(account: &AccountArgs, command: NamespaceCommand, json: bool) -> Result<(), Failure> {
    let account = account.account()?;
    match command {
        NamespaceCommand::Quota(args) => quota::run(&args, &account, json).await,
        NamespaceCommand::Home(args) => home::run(&args, &account, json).await,
        NamespaceCommand::List => {
            let all = account.namespaces().await?;
            if json {
                return print::json(&all);
            }
            all.iter().try_for_each(|one| print::line(format!("{}  {}", one.id, print::name(&one.title))))
        }
        NamespaceCommand::Create { title } => {
            let made = account.create_namespace(&title).await?;
            if json {
                print::json(&made)
            } else {
                print::line(format!("{}  {}", made.id, print::name(&made.title)))
            }
        }
        NamespaceCommand::Delete { id } => {
            if !is_id(&id) {
                let what = format!("{id:?} is not a namespace id; a title is not enough to delete by");
                return Err(Failure::usage(what).hint("`littoral kv namespace list` shows the ids"));
            }
            account.delete_namespace(&id).await?;
            if json { print::json(&json!({ "id": id, "deleted": true })) } else { Ok(()) }
        }
    }
}
