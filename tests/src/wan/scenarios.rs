//! What is measured over the wide-area network with real nodes: each scenario makes its own cluster, prints what it
//! saw beside the wish, and fails only where something is wrong (nodes that do not agree, a write that is lost), never
//! because a figure is worse than wished for.

mod budget;
mod caps;
mod catch_up;
mod live;
mod regions;
mod report;
mod stage;
mod storm;

use anyhow::{bail, ensure};

pub use self::report::{Report, Row};
pub use self::stage::Stage;

use super::Apart;

/// What a run is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Chooses what is lost and, in `storm`, what goes wrong.
    pub seed: u64,
    /// How long `storm` lasts.
    pub minutes: u64,
}

/// The names of the scenarios, and what each is about.
pub const SCENARIOS: [(&str, &str); 7] = [
    ("trickle", "200 writes a second of 100 B, 2 PoPs: bytes on the wire, visibility"),
    ("burst", "100,000 writes of 100 B in bulk, 2 PoPs: bytes on the wire"),
    ("ocean", "80 ms, 0.5 % loss, 2 Mbit/s, 70 % of it used, 2 PoPs: visibility"),
    ("budget", "the same line under a budget, alone and beside large values: visibility"),
    ("catch-up", "100,000 writes missed behind a cut, and by a node that was down"),
    ("regions", "6 PoPs in 3 regions: bytes between regions"),
    ("storm", "6 PoPs under cuts, loss, rate cliffs and kills: nothing is lost"),
];

/// Refuses a name that is none of theirs, with the list.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let known: Vec<_> = SCENARIOS.iter().map(|(name, about)| format!("  {name:9} {about}")).collect();
    let is_known = SCENARIOS.iter().any(|(known, _)| *known == name);
    ensure!(is_known, "no such scenario: {name}; there are\n{}", known.join("\n"));
    Ok(())
}

/// Runs one by name; `place` is where the clients are.
pub async fn run(name: &str, place: &Apart, request: Request) -> anyhow::Result<Report> {
    match name {
        "trickle" => live::trickle(place, request.seed).await,
        "burst" => live::burst(place, request.seed).await,
        "ocean" => live::ocean(place, request.seed).await,
        "budget" => budget::run(place, request.seed).await,
        "catch-up" => catch_up::run(place, request.seed).await,
        "regions" => regions::run(place, request.seed).await,
        "storm" => storm::run(place, request).await,
        _ => bail!("no such scenario: {name}"),
    }
}
