//! `store`: the store of a node that does not run, and what earlier incarnations of a PoP left behind.

use std::path::PathBuf;

use littoral::api::members::{DeadLetter, DeadLetters};
use serde_json::json;

use super::connection::Connection;
use super::failure::Failure;
use super::{print, serve, short_id};
use crate::rebuild::Rebuilt;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Have a stopped node return under a new identity, with what its store alone has
    Rebuild(Rebuild),
    /// List writes of earlier incarnations that are not part of the state; settle them
    DeadLetters(Letters),
}

#[derive(clap::Args)]
pub(super) struct Rebuild {
    /// The node's configuration file
    #[arg(long)]
    config: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
pub(super) struct Letters {
    /// Write this one anew, by its event
    #[arg(long, value_name = "EVENT", conflicts_with = "forget")]
    write: Option<String>,
    /// Forget this one, by its event
    #[arg(long, value_name = "EVENT")]
    forget: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn rebuild(args: &Rebuild, json: bool) -> Result<(), Failure> {
    let config = serve::load(&args.config)?;
    let rebuilt = crate::node::rebuild_store(&config, 0, args.dry_run)
        .map_err(|error| Failure::new(format!("{error:#}")))?;
    if json {
        return print::json(&json!({
            "dry_run": args.dry_run,
            "old": rebuilt.old.map(|id| id.to_string()),
            "new": rebuilt.new.map(|id| id.to_string()),
            "carried": rebuilt.carried,
            "unreadable": rebuilt.unreadable,
            "fault": rebuilt.fault,
            "aside": rebuilt.aside,
        }));
    }
    print::line(told(&rebuilt, args.dry_run))
}

fn told(rebuilt: &Rebuilt, is_dry: bool) -> String {
    let old = rebuilt.old.map_or("of unknown identity".into(), |id| format!("of replica {id}"));
    let new = rebuilt.new.map(|id| format!(" {id}")).unwrap_or_default();
    let carried = print::count(rebuilt.carried);
    let unreadable = match rebuilt.unreadable {
        0 => String::new(),
        rows => format!("; {} rows could not be read", print::count(rows)),
    };
    let fault = rebuilt.fault.as_ref().map(|fault| format!("\nfault: {fault}")).unwrap_or_default();
    let (kept, goes, next) = if is_dry {
        ("would be carried over", "would go to", "nothing was changed".to_owned())
    } else {
        ("are carried over", "is in", format!("next: start the node; it joins as the new replica{new}"))
    };
    format!(
        "the store is {old}\n{carried} writes of its own {kept}{unreadable}{fault}\n\
         the old store {goes} {}\n{next}",
        rebuilt.aside.display()
    )
}

pub(super) async fn dead_letters(args: &Letters, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let report = client.dead_letters().await?;
    let (dot, write) = match (&args.write, &args.forget) {
        (Some(dot), _) => (dot, true),
        (None, Some(dot)) => (dot, false),
        (None, None) => {
            return if json { print::json(&report) } else { print::line(page(&report)) };
        }
    };
    let letter = find(&report, dot)?;
    let (key, namespace) = (print::name(&letter.key), short_id(&letter.namespace));
    if args.dry_run {
        let does = if write { "write anew" } else { "forget" };
        let what = format!("would {does} {key} in {namespace}");
        return if json {
            print::json(&json!({ "letter": letter, "write": write, "dry_run": true }))
        } else {
            print::line(what)
        };
    }
    let left = client.settle_dead_letter(&letter.dot, write).await?;
    if json {
        return print::json(&left);
    }
    let done = if write { "is written anew" } else { "is forgotten" };
    print::line(format!("{key} in {namespace} {done}; {} are left", left.letters.len()))
}

/// The letter whose event begins so.
fn find<'a>(report: &'a DeadLetters, dot: &str) -> Result<&'a DeadLetter, Failure> {
    let found: Vec<&DeadLetter> =
        report.letters.iter().filter(|letter| letter.dot.starts_with(dot)).collect();
    match found[..] {
        [letter] => Ok(letter),
        [] => Err(Failure::not_found(format!("there is no dead letter {dot}"))),
        _ => Err(Failure::usage(format!("{dot} is the beginning of {} events", found.len()))),
    }
}

fn page(report: &DeadLetters) -> String {
    if report.letters.is_empty() {
        return format!("{} has no dead letters", report.pop);
    }
    let rows = report.letters.iter().map(row);
    format!(
        "Writes of earlier incarnations of {}, too old to tell whether their keys were\n\
         deleted since. Settle each with --write EVENT or --forget EVENT.\n\n{}",
        report.pop,
        print::table(["EVENT", "WRITTEN", "NAMESPACE", "VALUE", "KEY"], rows)
    )
}

/// The time of an event tells it from others of its replica.
fn row(letter: &DeadLetter) -> [String; 5] {
    let event = letter.dot.split('-').next().unwrap_or_default();
    [
        event.into(),
        print::moment(letter.written_ms),
        short_id(&letter.namespace),
        letter.bytes.map_or("delete".into(), print::size),
        print::name(&letter.key),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_listed_within_80_columns_and_found_by_the_beginning_of_their_event() {
        let letter = |number: u64, bytes| DeadLetter {
            dot: format!("{number:016x}-{}", "ab".repeat(16)),
            written_ms: 1_700_000_000_000,
            namespace: "cd".repeat(16),
            key: "a/key/that/is/long/and/has\u{1b}control".into(),
            bytes,
        };
        let report = DeadLetters {
            pop: "ams".into(),
            letters: vec![letter(u64::MAX, Some(1_536)), letter(u64::MAX - 1, None)],
        };
        let text = page(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("delete") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(find(&report, "ffffffffffffffff").unwrap().bytes, Some(1_536));
        assert!(find(&report, "ff").is_err() && find(&report, "0").is_err());
        assert_eq!(page(&DeadLetters { letters: Vec::new(), ..report }), "ams has no dead letters");
    }
}
