//! `where`: which PoPs hold a write.

use std::time::Duration;

use littoral::api::whereabouts::{HeldAt, Holders};

use super::connection::Connection;
use super::failure::Failure;
use super::print;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// The receipt of a write, or with --session the token of a session
    receipt: String,
    /// It is a session's token: which PoPs hold all that it has seen
    #[arg(long)]
    session: bool,
}

pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let holders = match args.session {
        false => client.holders(&args.receipt).await?,
        true => client.session_holders(&args.receipt).await?,
    };
    if json { print::json(&holders) } else { print::line(page(&holders)) }
}

fn page(holders: &Holders) -> String {
    print::table(["POP", "REGION", "HOLDS IT", "BEHIND BY", "BYTES", "TIME"], holders.members.iter().map(row))
}

fn row(held: &HeldAt) -> [String; 6] {
    [
        held.pop.clone(),
        held.region.clone(),
        if held.holds { "yes" } else { "no" }.into(),
        print::count(held.ops),
        print::size(held.bytes),
        print::time(Duration::from_millis(held.time_ms)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_who_holds_it() {
        let at = |pop: &str, holds, ops| HeldAt { pop: pop.into(), holds, ops, ..HeldAt::default() };
        let holders = Holders { pop: "ams".into(), members: vec![at("ams", true, 0), at("sin", false, 3)] };
        let page = page(&holders);
        let lines: Vec<_> = page.lines().collect();
        assert!(lines[1].starts_with("ams") && lines[1].contains("yes"), "{page}");
        assert!(lines[2].starts_with("sin") && lines[2].contains("no") && lines[2].contains('3'), "{page}");
    }
}
