//! Waiting for a member to have copied all, or for all it wrote to be everywhere, with a bar.

use std::time::Duration;

use littoral::Client;
use littoral::api::members::{Member, MembersReport, Stage};

use super::super::failure::Failure;
use super::super::print;
use super::find;

/// How often the PoP is asked.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Waits until this PoP is a full member. `new` is the PoP itself, which knows how much it has copied; it may not run yet.
pub(super) async fn until_ready(client: &Client, new: Option<&Client>, pop: &str) -> Result<(), Failure> {
    let bar = print::bar(new.map(|_| 0), "");
    loop {
        let report = client.members().await?;
        let member = report.members.iter().find(|member| member.pop == pop);
        let stage = member.and_then(|member| member.stage);
        if stage == Some(Stage::Member) {
            bar.finish_and_clear();
            return Ok(());
        }
        let copy = match new {
            Some(new) => new.members().await.ok().and_then(|report| report.copy),
            None => None,
        };
        if let Some(copy) = copy {
            bar.set_length(copy.total.max(copy.entries));
            bar.set_position(copy.entries);
        }
        bar.set_message(match (member, stage) {
            (None, _) => format!("{pop} has not asked to be let in yet"),
            (_, Some(Stage::Copying)) => format!("{pop} copies"),
            (_, Some(Stage::CatchingUp)) => format!("{pop} catches up"),
            _ => format!("{pop} was let in"),
        });
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Waits until a member that is being drained can go without loss.
pub(super) async fn until_drained(client: &Client, replica: &str) -> Result<MembersReport, Failure> {
    let mut most = 0;
    let bar = print::bar(Some(0), "");
    loop {
        let report = client.members().await?;
        let member = find(&report, replica)?;
        let Some(why) = &member.kept_because else {
            bar.finish_and_clear();
            return Ok(report);
        };
        most = most.max(member.unsent_ops);
        bar.set_length(most);
        bar.set_position(most - member.unsent_ops);
        bar.set_message(format!("{why}{}", away(&report, member)));
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Who is away, and so keeps one waiting.
fn away(report: &MembersReport, draining: &Member) -> String {
    // It must confirm that it takes no more writes, or the others must take what it wrote.
    let is_needed = |member: &Member| member.replica != draining.replica || draining.unsent_ops == 0;
    let is_away = |member: &&Member| !member.connected && is_needed(member);
    let pops: Vec<&str> = report.members.iter().filter(is_away).map(|member| member.pop.as_str()).collect();
    if pops.is_empty() { String::new() } else { format!(" (no link to {})", pops.join(", ")) }
}
