//! The simulator: a cluster of replicas in one thread, on virtual time, from one seed.
//!
//! It drives the very core that ships, over stores that lose what was not flushed and a network that loses,
//! delays, repeats and reorders. What must hold is checked by the oracle (`sim/oracle.rs`), which knows every write that
//! was issued and acknowledged, and nothing of how replicas work. Same seed, same trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;

use bytes::Bytes;
use replication::codec::message::Stage;
use replication::replica::conflicts::Bounds;
use replication::{DigestKey, MemberRecord, Now, Settings};

mod amnesia;
mod batches;
mod bounded;
mod changes;
mod checks;
mod disk;
pub(crate) mod documents;
mod faults;
mod meetings;
mod membership;
pub mod mutants;
mod network;
mod nodes;
pub(crate) mod oracle;
mod relays;
mod rows;
pub mod scenario;
pub mod seeds;
mod sessions;

use crate::random::{Random, mix};
use network::Network;
use nodes::Node;
use oracle::Oracle;
pub use scenario::{Mode, Scenario};
use sessions::Sessions;

/// How long replicas may take to agree once faults have stopped.
const HEALING_US: u64 = 120_000_000;

/// How long a cluster may take to come together, before there are faults.
const FOUNDING_US: u64 = 60_000_000;

/// How often it is looked whether all agree.
const LOOKED_EVERY_US: u64 = 50_000;

/// How long ledgers keep what lost: a year, which no clock jumps.
const LEDGER_KEPT_MS: u64 = 365 * 24 * 3_600_000;

/// Wall clocks start here: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// The names of regions, where there are so many.
const REGIONS: [&str; 3] = ["sim", "east", "west"];

/// Of 1,000 things that happen, after how many all claims are checked.
const CHECKED_PERMILLE: u64 = 5;

/// What a run saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Writes acknowledged as durable.
    pub acknowledged: u64,
    /// Writes refused because of a clock.
    pub refused: u64,
    /// Writes refused because their node was no member, not yet, or being drained.
    pub turned_away: u64,
    /// Frames delivered.
    pub delivered: u64,
    /// Crashes.
    pub crashes: u64,
    /// Entries repaired by anti-entropy.
    pub repaired: u64,
    /// Nodes made anew, after eviction, removal, or as an older copy or a clone.
    pub rebuilt: u64,
    /// Entries dropped because they were over.
    pub dropped: u64,
    /// Changes of documents folded together.
    pub folded: u64,
    /// Writes of earlier incarnations written anew.
    pub written_anew: u64,
    /// Writes of earlier incarnations that are left for an operator.
    pub dead_letters: u64,
    /// Virtual time until all agreed, after faults had stopped.
    pub healed_after_us: u64,
    /// Bytes of keys and values that crossed regions while nothing was wrong.
    pub crossed_bytes: u64,
    /// What they would be if each write crossed to each other region once.
    pub to_cross_bytes: u64,
    /// The longest that a write took to be everywhere while a relay failed.
    pub slowest_us: u64,
    /// How relays failed.
    pub relay_failures: std::collections::BTreeSet<&'static str>,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// The readable trace, where asked for.
    pub log: String,
    /// Some of the frames that were delivered.
    pub frames: crate::decoders::recording::Recording,
}

impl Outcome {
    /// Adds what another run saw: sums, and of healing the longest.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.turned_away += other.turned_away;
        self.rebuilt += other.rebuilt;
        self.dropped += other.dropped;
        self.folded += other.folded;
        self.written_anew += other.written_anew;
        self.dead_letters += other.dead_letters;
        self.delivered += other.delivered;
        self.crashes += other.crashes;
        self.repaired += other.repaired;
        self.healed_after_us = self.healed_after_us.max(other.healed_after_us);
        self.crossed_bytes += other.crossed_bytes;
        self.to_cross_bytes += other.to_cross_bytes;
        self.slowest_us = self.slowest_us.max(other.slowest_us);
        self.relay_failures.extend(&other.relay_failures);
        self.trace = mix(self.trace ^ other.trace);
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acknowledged, refused, turned_away, delivered, crashes, .. } = self;
        let Self { repaired, rebuilt, dropped, folded, written_anew, dead_letters, trace, .. } = self;
        let healed_s = self.healed_after_us as f64 / 1e6;
        write!(
            f,
            "{acknowledged} writes acknowledged, {refused} refused by clocks, {turned_away} by members not in, \
             {delivered} frames delivered, {crashes} crashes, {repaired} entries repaired, {dropped} dropped, \
             {folded} changes folded, {rebuilt} nodes made anew, {written_anew} writes written anew, {dead_letters} dead letters, \
             healed within {healed_s:.1} s, trace {trace:016x}"
        )?;
        if self.to_cross_bytes == 0 {
            return Ok(());
        }
        let Self { crossed_bytes, to_cross_bytes, slowest_us, .. } = self;
        let slowest_s = *slowest_us as f64 / 1e6;
        write!(
            f,
            ", {crossed_bytes} bytes across regions for {to_cross_bytes} once each, {slowest_s:.2} s to be everywhere \
             while a relay failed"
        )
    }
}

enum Happening {
    Deliver { from: usize, to: usize, link: u64, frame: Bytes },
    Wake { node: usize },
    Write,
    Fault,
    Reconnect { a: usize, b: usize },
    Restart { node: usize },
    Rebuild { node: usize },
    Skip,
    SeeToMembers,
}

/// A running simulation.
struct Simulation {
    scenario: Scenario,
    rng: Random,
    now_us: u64,
    /// Time that went by at once, in which nothing happened.
    skipped_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    nodes: Vec<Node>,
    network: Network,
    faulty: bool,
    /// When faults end.
    ends_us: u64,
    forgot: bool,
    oracle: Oracle,
    sessions: Sessions,
    crossings: relays::Crossings,
    outcome: Outcome,
    verbose: bool,
}

/// Runs a scenario to its end.
///
/// # Errors
/// The first violation, with the time it was seen.
pub fn run(scenario: &Scenario, verbose: bool) -> Result<Outcome, String> {
    let mut simulation = Simulation::new(scenario.clone(), verbose);
    let result = simulation.run();
    let outcome = simulation.outcome;
    result.map(|()| outcome.clone()).map_err(|violation| {
        let at_s = simulation.now_us as f64 / 1e6;
        format!("{}at {at_s:.6} s: {violation}\n{scenario:?}", outcome.log)
    })
}

impl Simulation {
    fn new(scenario: Scenario, verbose: bool) -> Self {
        Self {
            rng: Random::new(scenario.seed ^ 0x5eed),
            now_us: 0,
            skipped_us: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            nodes: (0..scenario.replicas).map(Node::new).collect(),
            network: Network::default(),
            faulty: false,
            ends_us: 0,
            forgot: false,
            oracle: Oracle::default(),
            sessions: Sessions::default(),
            crossings: relays::Crossings::default(),
            outcome: Outcome::default(),
            verbose,
            scenario,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        self.found()?;
        self.faulty = true;
        self.ends_us = self.now_us + self.scenario.faulty_us;
        self.after(0, Happening::Write);
        self.after(self.scenario.fault_every_us, Happening::Fault);
        while self.now_us < self.ends_us {
            self.step()?;
        }
        self.check_always()?;
        if self.scenario.mode == Mode::Safety {
            return self.check_disks();
        }
        self.heal()?;
        let bound_us = self.now_us + HEALING_US;
        let all_agree = "everyone agrees, and all that was over is gone";
        self.step_until(bound_us, all_agree, Self::agreed)?;
        self.outcome.healed_after_us = self.now_us - self.ends_us;
        if self.scenario.regions > 1 {
            self.check_relays()?;
            self.step_until(self.now_us + HEALING_US, all_agree, Self::agreed)?;
        }
        self.check_end()
    }

    /// Brings the cluster together, before anything goes wrong.
    fn found(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            self.restart(node)?;
        }
        let (now, record) = (self.now(0), self.record(0));
        let founder = self.nodes[0].replica.as_mut().ok_or("the founder is down")?;
        founder.found(now, &record).map_err(|error| format!("founding failed: {error}"))?;
        self.drive(0, true)?;
        self.step_until(FOUNDING_US, "all are members", |simulation| {
            simulation.replicas().all(|replica| replica.stage() == Stage::Member)
        })
    }

    fn step_until(&mut self, bound_us: u64, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), String> {
        let mut look_us = self.now_us;
        loop {
            if self.now_us >= look_us {
                if is_so(self) {
                    return Ok(());
                }
                look_us = self.now_us + LOOKED_EVERY_US;
            }
            if self.now_us > bound_us {
                return Err(format!("not in time: {what}{}", self.views()));
            }
            self.step()?;
        }
    }

    fn settings(&self, boot: u64) -> Settings {
        let Scenario { epoch_every_ms, max_away_ms, max_waiting_bytes, .. } = self.scenario;
        let usual = Settings::new([1; 16], DigestKey::new([2; 32]));
        // Clocks jump by weeks, and what was noted must be there to be looked at.
        let conflicts = Bounds { kept_ms: LEDGER_KEPT_MS, ..Bounds::USUAL };
        // A run makes few edits.
        Settings { epoch_every_ms, max_away_ms, max_waiting_bytes, conflicts, boot, fold_from: 3, ..usual }
    }

    fn record(&self, node: usize) -> MemberRecord {
        let region = REGIONS[self.scenario.region_of(node)].into();
        MemberRecord { pop: self.nodes[node].pop.clone(), region }
    }

    fn now(&self, node: usize) -> Now {
        let mono_us = self.now_us + self.skipped_us;
        let wall_ms = (EPOCH_MS + mono_us / 1000).saturating_add_signed(self.nodes[node].clock_off_ms);
        Now { wall_ms: wall_ms - wall_ms % self.scenario.tick_ms, mono_us }
    }

    fn after(&mut self, delay_us: u64, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((self.now_us + delay_us, self.next)));
        self.happenings.insert(self.next, happening);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.verbose {
            let line = line();
            let _ = writeln!(self.outcome.log, "{:>12.6} {line}", self.now_us as f64 / 1e6);
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(Reverse((at_us, number))) = self.queue.pop() else {
            return Err("nothing left to happen".into());
        };
        self.now_us = at_us;
        let Some(happening) = self.happenings.remove(&number) else { return Ok(()) };
        self.outcome.trace = mix(self.outcome.trace ^ at_us ^ number);
        match happening {
            Happening::Deliver { from, to, link, frame } => {
                if self.network.link(from, to) == Some(link) {
                    self.deliver(from, to, &frame)?;
                }
            }
            Happening::Wake { node } => {
                if self.nodes[node].wake_us <= self.now_us {
                    self.nodes[node].wake_us = u64::MAX;
                    self.drive(node, true)?;
                }
            }
            Happening::Write => self.write()?,
            Happening::Fault => self.fault()?,
            Happening::Reconnect { a, b } => self.connect(a, b)?,
            Happening::Restart { node } => self.restart(node)?,
            Happening::Rebuild { node } => self.rebuild(node)?,
            Happening::Skip => self.skip_a_week(),
            Happening::SeeToMembers => self.see_to_members()?,
        }
        if self.rng.permille(CHECKED_PERMILLE) {
            self.check_always()?;
        }
        Ok(())
    }
}
