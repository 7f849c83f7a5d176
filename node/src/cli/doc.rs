//! `doc`: JSON documents, from the command line.

use std::io::Read;

use littoral::api::docs::{DocWritten, MAX_DOC_BODY_BYTES};
use littoral::{ChangeOptions, Doc, DocOptions};
use serde_json::{Value as Json, json};

use super::condition::{ConditionArgs, show_etag};
use super::connection::AccountArgs;
use super::failure::Failure;
use super::print;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show a document as JSON, or a part of it
    Get {
        /// The key
        key: String,
        /// What to show, as a JSON pointer such as /chapters/0/title
        #[arg(default_value = "")]
        pointer: String,
        /// As it was at these changes: hashes of the history, with commas between them
        #[arg(long, value_delimiter = ',')]
        heads: Vec<String>,
        /// Write the name of its state instead, for --if-match
        #[arg(long, conflicts_with = "heads")]
        etag: bool,
    },
    /// Make a document this JSON; only what is otherwise is written
    Put {
        /// The key
        key: String,
        /// The JSON, an object; without it, it is read from standard input
        value: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Apply a JSON merge patch: what is to be otherwise, with null for what is to go
    Merge {
        /// The key
        key: String,
        /// The patch; without it, it is read from standard input
        patch: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Apply a JSON patch, a list of operations: all of it, or nothing
    Patch {
        /// The key
        key: String,
        /// The patch; without it, it is read from standard input
        patch: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// List the changes that a document was made by, the first first
    History {
        /// The key
        key: String,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show all values that were written at one place at once; the last is the one that is read
    Conflicts {
        /// The key
        key: String,
        /// The place, as a JSON pointer such as /title
        pointer: String,
    },
    /// Delete a document; no error if there is none
    Delete {
        /// The key
        key: String,
    },
}

#[derive(clap::Args)]
struct Options {
    /// What the change is about, for the history
    #[arg(short, long)]
    message: Option<String>,
    /// The whole document is gone so many seconds from now
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    #[command(flatten)]
    condition: ConditionArgs,
}

impl Options {
    fn given(self) -> DocOptions {
        let condition = self.condition.given();
        let change = ChangeOptions { expiration_ttl_s: self.ttl, condition, ..ChangeOptions::default() };
        DocOptions { change, message: self.message }
    }
}

/// The most changes that are asked for at once.
const PAGE_CHANGES: usize = 1_000;

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let namespace = args.account.namespace().await?;
    match args.command {
        Command::Get { key, pointer, heads, etag } => {
            let missing =
                || Failure::not_found(format!("there is nothing at {pointer:?} of the document {key:?}"));
            let snapshot =
                namespace.doc(&key).snapshot::<Json>(&pointer, &heads).await?.ok_or_else(missing)?;
            if etag {
                return show_etag(&key, &snapshot.etag, json);
            }
            if json {
                let found = json!({ "key": key, "value": snapshot.value, "heads": snapshot.heads });
                return print::json(&found);
            }
            print::json(&snapshot.value)
        }
        Command::Put { key, value, options } => {
            written(json, &key, namespace.doc(&key).put_with(&given(value)?, options.given()).await?)
        }
        Command::Merge { key, patch, options } => {
            written(json, &key, namespace.doc(&key).merge_with(&given(patch)?, options.given()).await?)
        }
        Command::Patch { key, patch, options } => {
            written(json, &key, namespace.doc(&key).patch_with(&given(patch)?, options.given()).await?)
        }
        Command::History { key, limit } => {
            history(json, &namespace.doc(&key), limit.unwrap_or(usize::MAX)).await
        }
        Command::Conflicts { key, pointer } => {
            for value in namespace.doc(&key).conflicts(&pointer).await? {
                match json {
                    true => print::line(serde_json::to_string(&value).map_err(Failure::new)?)?,
                    false => print::line(format!("{}  {}  {}", value.time, value.actor, value.value))?,
                }
            }
            Ok(())
        }
        Command::Delete { key } => {
            namespace.doc(&key).delete().await?;
            if json { print::json(&json!({ "key": key, "deleted": true })) } else { Ok(()) }
        }
    }
}

async fn history(json: bool, doc: &Doc, mut left: usize) -> Result<(), Failure> {
    let mut after = None;
    while left > 0 {
        let page = doc.history(after.as_deref(), left.min(PAGE_CHANGES)).await?;
        left -= page.changes.len().min(left);
        for change in page.changes {
            if json {
                print::line(serde_json::to_string(&change).map_err(Failure::new)?)?;
                continue;
            }
            let message = change.message.as_deref().map(print::name).unwrap_or_default();
            let (hash, time, ops) = (change.hash, change.time, change.ops);
            print::line(format!("{hash}  {time}  {ops} operations  {message}").trim_end())?;
        }
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// The JSON of the command line, or of standard input.
fn given(text: Option<String>) -> Result<Json, Failure> {
    let text = match text {
        Some(text) => text,
        None => {
            let mut text = String::new();
            std::io::stdin().take(MAX_DOC_BODY_BYTES + 1).read_to_string(&mut text).map_err(Failure::new)?;
            text
        }
    };
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("that is no JSON: {error}")))
}

fn written(json: bool, key: &str, written: DocWritten) -> Result<(), Failure> {
    if !json {
        return Ok(());
    }
    print::json(&json!({ "key": key, "receipt": written.receipt, "heads": written.heads }))
}
