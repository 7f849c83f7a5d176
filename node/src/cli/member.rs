//! `member`: who belongs to the cluster; letting PoPs in, draining, removing and replacing them.
//!
//! The rule this file upholds: what changes the cluster says beforehand what it will do, with `--dry-run` only that, and
//! what it leaves for a person to do it prints as commands to paste.

mod named;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

use littoral::Client;
use littoral::api::members::{Member, MembersReport, Reason, Removed, Stage};
use serde_json::json;

use self::named::find;
use super::cluster::duration;
use super::connection::Connection;
use super::failure::Failure;
use super::print;
use super::short_id;
use crate::identity;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the members, and those that were removed
    List(Connection),
    /// Make a join token for a new PoP, and print what to do with it
    Add(Add),
    /// Have a member take no more writes, so that it can be removed
    Drain(Drain),
    /// Take a member out of the cluster for ever
    Remove(Remove),
    /// Take a member out, and make a join token for its successor
    Replace(Replace),
}

#[derive(clap::Args)]
pub(super) struct Add {
    /// The new PoP's name
    pop: String,
    /// The cluster's folder, as `cluster init` made it
    #[arg(long)]
    authority: PathBuf,
    /// How long the token can be used: a number and s, m, h or d
    #[arg(long, default_value = "24h", value_parser = duration)]
    valid_for: Duration,
    /// Wait until it is ready, with a bar of its copy
    #[arg(long)]
    wait: bool,
    /// The new PoP's own address, which knows how far its copy is
    #[arg(long, requires = "wait")]
    new_url: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub(super) struct Drain {
    /// The PoP's name, or the beginning of its replica id
    pop: String,
    /// Let it take writes again
    #[arg(long)]
    undo: bool,
    /// Wait until all it wrote is at every other member
    #[arg(long, conflicts_with = "undo")]
    wait: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub(super) struct Remove {
    /// The PoP's name, or the beginning of its replica id
    pop: String,
    /// Remove it though writes may be lost
    #[arg(long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(clap::Args)]
pub(super) struct Replace {
    /// The PoP's name, or the beginning of its replica id
    pop: String,
    /// The cluster's folder, as `cluster init` made it
    #[arg(long)]
    authority: PathBuf,
    /// How long the token can be used: a number and s, m, h or d
    #[arg(long, default_value = "24h", value_parser = duration)]
    valid_for: Duration,
    /// Remove it though writes may be lost
    #[arg(long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::List(connection) => list(&connection.client()?, json).await,
        Command::Add(args) => add(&args, json).await,
        Command::Drain(args) => drain(&args, json).await,
        Command::Remove(args) => remove(&args, json).await,
        Command::Replace(args) => replace(&args, json).await,
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let report = client.members().await?;
    if json { print::json(&report) } else { print::line(page(&report)) }
}

fn page(report: &MembersReport) -> String {
    let rows = report.members.iter().map(row);
    let mut text = print::table(["MEMBER", "REPLICA", "LINK", "STATE", "LACKS", "UNSENT"], rows);
    if let Some(copy) = report.copy {
        let (entries, total) = (print::count(copy.entries), print::count(copy.total));
        text.push_str(&format!("\n\n{} copies: {entries} of {total} entries are here", report.pop));
    }
    if !report.removed.is_empty() {
        let rows = report.removed.iter().map(removed_row);
        text.push_str(&format!("\n\n{}", print::table(["REMOVED", "REPLICA", "WHY", "WHEN"], rows)));
    }
    text
}

fn row(member: &Member) -> [String; 6] {
    let link = match (member.is_this, member.connected) {
        (true, _) => "this",
        (false, true) => "up",
        (false, false) => "down",
    };
    [
        member.pop.clone(),
        short_id(&member.replica),
        link.into(),
        state(member).into(),
        format!("{} ops", print::count(member.lacks_ops)),
        format!("{} ops", print::count(member.unsent_ops)),
    ]
}

fn state(member: &Member) -> &'static str {
    match (member.stage, member.draining) {
        (Some(Stage::Copying), _) => "copying",
        (Some(Stage::CatchingUp), _) => "catching up",
        (_, true) if member.kept_because.is_none() => "drained",
        (_, true) => "draining",
        (Some(Stage::Member), _) => "member",
        (Some(Stage::Fresh | Stage::Removed) | None, _) => "not heard yet",
    }
}

fn removed_row(removed: &Removed) -> [String; 4] {
    let why = match removed.reason {
        Reason::Operator => "by an operator",
        Reason::Silent => "away too long",
        Reason::Replaced => "replaced",
    };
    [removed.pop.clone(), short_id(&removed.replica), why.into(), print::moment(removed.removed_ms)]
}

async fn add(args: &Add, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let report = client.members().await?;
    if let Some(member) = report.members.iter().find(|member| member.pop == args.pop) {
        return Err(Failure::new(format!(
            "{} is a member already, as replica {}",
            args.pop,
            short_id(&member.replica)
        ))
        .hint(format!("to put another machine in its place: littoral member replace {}", args.pop)));
    }
    if args.dry_run {
        let what = format!("would make a join token for {}; nothing changes before it is used", args.pop);
        return said(json, json!({ "pop": args.pop, "dry_run": true }), &what);
    }
    let token = make_token(&args.authority, &args.pop, args.valid_for)?;
    let known = json!({ "pop": args.pop, "token": token, "valid_for_s": args.valid_for.as_secs() });
    said(json, known, &instructions(&args.pop, &token, &report))?;
    if args.wait {
        let new = args.new_url.as_ref().map(|url| args.connection.at(url)).transpose()?;
        wait::until_ready(&client, new.as_ref(), &args.pop).await?;
        if !json {
            print::line(format!("{} is ready", args.pop))?;
        }
    }
    Ok(())
}

fn make_token(authority: &std::path::Path, pop: &str, valid_for: Duration) -> Result<String, Failure> {
    identity::join_token(authority, pop, valid_for).map_err(Failure::new)
}

/// What is to be typed on the new machine.
fn instructions(pop: &str, token: &str, report: &MembersReport) -> String {
    let peers: Vec<&str> = report.members.iter().map(|member| member.pop.as_str()).collect();
    format!(
        "On the machine of {pop} (the token is a secret; it is one line):\n\n    \
         littoral node init identity --token {token}\n    \
         littoral config check node.toml\n    \
         littoral serve --config node.toml\n\n\
         Its node.toml has node.pop = \"{pop}\", and as replication.peers: {}.\n\
         It serves when it has copied all. Then add {pop} to replication.peers of\n\
         the others, for their next start: a link from one side is enough.",
        peers.join(", ")
    )
}

async fn drain(args: &Drain, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let report = client.members().await?;
    let member = find(&report, &args.pop)?;
    let (pop, replica) = (&member.pop, &member.replica);
    let does = if args.undo { "take writes again" } else { "take no more writes" };
    if args.dry_run {
        let known = json!({ "pop": pop, "replica": replica, "draining": !args.undo, "dry_run": true });
        let what = format!("would have {pop} ({}) {does}", short_id(replica));
        return said(json, known, &what);
    }
    let mut after = client.drain_member(replica, !args.undo).await?;
    if args.wait {
        after = wait::until_drained(&client, replica).await?;
    }
    let member = find(&after, replica)?;
    let known = json!(member);
    let what = match (&member.kept_because, args.undo) {
        (_, true) => format!("{pop} may take writes again"),
        (None, _) => {
            format!("{pop} is drained: all it wrote is everywhere\nnext: littoral member remove {pop}")
        }
        (Some(why), _) => {
            format!("{pop} is being drained: {why}\nto wait for the end: littoral member drain {pop} --wait")
        }
    };
    said(json, known, &what)
}

async fn remove(args: &Remove, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let report = client.members().await?;
    let member = find(&report, &args.pop)?;
    if args.dry_run {
        return said(json, json!({ "member": member, "dry_run": true }), &removal_plan(member, args.force));
    }
    let after = take_out(&client, member, args.force).await?;
    said(json, json!(after), &format!("{} ({}) is removed", member.pop, short_id(&member.replica)))
}

async fn take_out(client: &Client, member: &Member, force: bool) -> Result<MembersReport, Failure> {
    let removed = client.remove_member(&member.replica, force).await;
    removed.map_err(|error| match error {
        littoral::Error::Api { status: 409, message, .. } => {
            let drain = format!("littoral member drain {} --wait", member.pop);
            let first = if member.connected { drain } else { format!("start it, then {drain}") };
            Failure::new(message).hint(format!("{first}; or --force, if what it has alone can go"))
        }
        other => other.into(),
    })
}

fn removal_plan(member: &Member, force: bool) -> String {
    let (pop, id) = (&member.pop, short_id(&member.replica));
    match (&member.kept_because, force) {
        (None, _) => format!("would remove {pop} ({id}); nothing would be lost"),
        (Some(why), true) => format!(
            "would remove {pop} ({id}), though\n{why}\n{} of its events are known of and not everywhere;\n\
             what is known of it is from {}",
            print::count(member.unsent_ops),
            print::moment(member.last_known_ms)
        ),
        (Some(why), false) => format!("would refuse to remove {pop} ({id}):\n{why}"),
    }
}

async fn replace(args: &Replace, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let report = client.members().await?;
    let member = find(&report, &args.pop)?;
    let pop = &member.pop;
    let is_drained_first = member.connected && !args.force;
    if args.dry_run {
        let first = if is_drained_first {
            format!("would drain {pop} and wait until all it wrote is everywhere\n")
        } else {
            String::new()
        };
        let plan = if is_drained_first {
            format!("would remove {pop} ({})", short_id(&member.replica))
        } else {
            removal_plan(member, args.force)
        };
        let what = format!("{first}{plan}\nwould make a join token for the next {pop}");
        return said(json, json!({ "member": member, "dry_run": true }), &what);
    }
    // A token that cannot be made is better known before anything is removed.
    let token = make_token(&args.authority, pop, args.valid_for)?;
    if is_drained_first {
        client.drain_member(&member.replica, true).await?;
        wait::until_drained(&client, &member.replica).await?;
    }
    let after = take_out(&client, member, args.force).await?;
    let known = json!({ "pop": pop, "token": token, "removed": member.replica, "members": after.members });
    let what = format!(
        "{pop} ({}) is removed. Stop it, if it runs.\n\n{}",
        short_id(&member.replica),
        instructions(pop, &token, &after)
    );
    said(json, known, &what)
}

fn said(json: bool, known: serde_json::Value, text: &str) -> Result<(), Failure> {
    if json { print::json(&known) } else { print::line(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_fits_80_columns() {
        let member = Member {
            pop: "a-pop-with-a-long-name".into(),
            region: "eu-west".into(),
            replica: "ab".repeat(16),
            is_this: false,
            connected: true,
            stage: Some(Stage::Member),
            draining: true,
            lacks_ops: 1_234_567,
            unsent_ops: 1_234_567,
            joined_ms: 0,
            last_known_ms: 0,
            kept_because: Some("it has not confirmed yet that it takes no more writes".into()),
        };
        let removed = Removed {
            pop: member.pop.clone(),
            replica: member.replica.clone(),
            reason: Reason::Operator,
            removed_ms: 1_700_000_000_000,
        };
        let report = MembersReport {
            pop: "ams".into(),
            replica: "cd".repeat(16),
            stage: Stage::Copying,
            copy: Some(littoral::api::members::Copy { entries: 1_000, total: 2_000 }),
            members: vec![member.clone()],
            removed: vec![removed],
        };
        for text in [page(&report), removal_plan(&member, false), removal_plan(&member, true)] {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
        let text = page(&report);
        assert!(text.contains("draining") && text.contains("1,000 of 2,000"), "{text}");
        assert!(text.contains("2023-11-14 22:13:20 UTC"), "{text}");
        assert_eq!(state(&Member { kept_because: None, ..member }), "drained");
    }
}
