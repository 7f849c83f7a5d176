//! `conflict`: what lost to a write whose writer had not seen it, from the command line.

use littoral::api::conflicts::Conflict;
use littoral::{ConflictOptions, PageOptions};
use serde_json::json;

use super::condition::quoted;
use super::connection::AccountArgs;
use super::failure::Failure;
use super::{print, record};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List what lost at this PoP, by key, the oldest of a key first
    List {
        /// Only under keys that begin with this
        #[arg(long, default_value = "", conflicts_with = "key")]
        prefix: String,
        /// Only under this key
        #[arg(long)]
        key: Option<String>,
        /// Show the beginning of each value, too
        #[arg(long)]
        preview: bool,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Write the bytes that lost to standard output, as they are
    Show {
        /// The conflict, as `conflict list` shows it
        id: String,
    },
    /// Write what lost as a new value, which wins everywhere
    Restore {
        /// The conflict
        id: String,
        /// Only if this PoP has the value in this state, as `kv get --etag` shows it
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
    },
    /// Forget what lost, at this PoP
    Dismiss {
        /// The conflict
        id: String,
    },
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let namespace = args.account.namespace().await?;
    let missing = |id: &str| {
        Failure::not_found(format!("there is no conflict {id} at this PoP"))
            .hint("`littoral conflict list` shows those there are; each PoP keeps its own, for a while")
    };
    match args.command {
        Command::List { prefix, key, preview, limit } => {
            let page = PageOptions { prefix, ..PageOptions::default() };
            let mut pages = namespace.conflicts(ConflictOptions { page, key, preview });
            let mut left = limit.unwrap_or(usize::MAX);
            while left > 0
                && let Some(page) = pages.next_page().await?
            {
                for conflict in page.conflicts.iter().take(left) {
                    if json {
                        print::bytes(&line(conflict)?)?;
                    } else {
                        print::line(told(conflict))?;
                    }
                }
                left -= page.conflicts.len().min(left);
            }
            Ok(())
        }
        Command::Show { id } => {
            let lost = namespace.conflict(&id).await?.ok_or_else(|| missing(&id))?;
            if json {
                return print::bytes(&record::write(id, &lost.bytes, lost.expires_at_s, lost.metadata)?);
            }
            print::bytes(&lost.bytes)
        }
        Command::Restore { id, if_match } => {
            let etag = if_match.as_deref().map(quoted);
            let written = namespace.restore_conflict(&id, etag.as_deref()).await?;
            let written = written.ok_or_else(|| missing(&id))?;
            if json { print::json(&json!({ "id": id, "receipt": written.receipt })) } else { Ok(()) }
        }
        Command::Dismiss { id } => {
            if !namespace.dismiss_conflict(&id).await? {
                return Err(missing(&id));
            }
            if json { print::json(&json!({ "id": id, "dismissed": true })) } else { Ok(()) }
        }
    }
}

fn line(conflict: &Conflict) -> Result<Vec<u8>, Failure> {
    let mut line = serde_json::to_vec(conflict).map_err(Failure::new)?;
    line.push(b'\n');
    Ok(line)
}

/// For people: two lines, the id on one of its own, so that it can be taken whole.
fn told(conflict: &Conflict) -> String {
    let Conflict { id, key, lost, won, .. } = conflict;
    let place = |pop: &Option<String>, replica: &str| pop.clone().unwrap_or_else(|| super::short_id(replica));
    let what = if won.deleted { "a delete" } else { "a write" };
    let preview = lost.preview.as_ref().map(|text| format!(": {}", print::name(text))).unwrap_or_default();
    format!(
        "{}: {} written at {}, {}, lost to {what} at {}, {}{preview}\n  {id}",
        print::name(key),
        print::size(lost.size),
        place(&lost.pop, &lost.replica),
        print::moment(lost.written_ms),
        place(&won.pop, &won.replica),
        print::moment(won.written_ms),
    )
}

#[cfg(test)]
mod tests {
    use littoral::api::conflicts::{Lost, Won};

    use super::*;

    #[test]
    fn a_conflict_is_told_with_both_sides_and_its_id_on_a_line_of_its_own() {
        let conflict = Conflict {
            id: "61".into(),
            key: "cart\n1".into(),
            lost: Lost {
                pop: Some("fra".into()),
                replica: "0123456789abcdef".into(),
                written_ms: 1_800_000_000_000,
                size: 5,
                preview: Some("apple".into()),
                metadata: None,
                expiration: None,
            },
            won: Won {
                pop: None,
                replica: "fedcba9876543210".into(),
                written_ms: 1_800_000_001_000,
                deleted: true,
            },
            noticed_ms: 0,
            kept_until_ms: 0,
        };
        let told = told(&conflict);
        let (what, id) = told.split_once("\n  ").unwrap();
        assert_eq!(id, "61");
        assert!(what.contains("written at fra") && what.contains("a delete at fedcba98"), "{what}");
        assert!(!what.contains('\n') && what.ends_with("apple"), "{what}");
    }
}
