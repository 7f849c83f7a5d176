//! The shipping links on virtual time: nodes with quinn, mutual TLS and all, in one thread and from one seed.
//!
//! What the simulator of the core ([`crate::sim`]) takes for granted of links is put to the test here: a network
//! of datagrams that are lost, delayed, repeated and reordered, paths that are cut in one direction or
//! throttled, nodes that stop and crash. Same seed, same trace of datagrams.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

pub mod cluster;
mod identities;
pub mod network;
mod node;
mod socket;
pub mod vandal;

use crate::random::Random;
use cluster::{Cluster, address, on_virtual_time};
use network::Path;

/// How long faults go on, in virtual microseconds.
const FAULTY_US: u64 = 30_000_000;
/// How long nodes may take to agree once faults have stopped: an idle timeout, a handshake in vain, the longest
/// pause, a handshake, each 5 s, and as much again.
const HEALING_S: u64 = 40;
/// What passes a path in a second while it is throttled: 64 kbit/s.
pub const CLIFF_BYTES_PER_S: u64 = 8_000;
/// How often claims are checked while there are faults.
const CHECK_EVERY_US: u64 = 5_000_000;

/// What one seed expands to.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed it came from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How many keys are written.
    pub keys: u64,
    /// Mean time between two writes, anywhere.
    pub write_every_us: u64,
    /// The largest value.
    pub value_bytes: u64,
    /// All paths, where and while no fault changes them.
    pub path: Path,
    /// Mean time between two faults.
    pub fault_every_us: u64,
    /// The longest that a fault lasts.
    pub fault_us: u64,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Random::new(seed);
        let delay_us = *rng.pick(&[500, 10_000, 75_000]);
        Self {
            seed,
            nodes: 3 + rng.below(3) as usize,
            keys: *rng.pick(&[5, 50, 500]),
            write_every_us: *rng.pick(&[20_000, 100_000]),
            value_bytes: *rng.pick(&[100, 2_000, 15_000]),
            path: Path {
                delay_us,
                jitter_us: *rng.pick(&[0, delay_us / 4, 2 * delay_us]),
                lost_permille: *rng.pick(&[0, 10, 100]),
                repeated_permille: *rng.pick(&[0, 20, 100]),
                // What becomes of a damaged header depends on keys, and TLS draws those by chance: not of a seed.
                damaged_permille: 0,
                bytes_per_s: *rng.pick(&[None, Some(1_000_000)]),
                cut: false,
            },
            fault_every_us: *rng.pick(&[1_000_000, 4_000_000]),
            fault_us: *rng.pick(&[500_000, 4_000_000, 12_000_000]),
        }
    }
}

/// What a run saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A hash of every datagram: time, source, destination, length.
    pub trace: u64,
    /// What became of the datagrams.
    pub datagrams: network::Tally,
    /// Paths cut, in one direction or both, or throttled.
    pub path_faults: u64,
    /// Nodes stopped or crashed.
    pub restarts: u64,
    /// Virtual time from the first start to agreement.
    pub virtual_us: u64,
    /// Virtual time until all agreed, after faults had stopped.
    pub healed_after_us: u64,
    /// Every fault and datagram, where asked for.
    pub log: String,
}

/// Runs a scenario to its end.
///
/// # Errors
/// The first violation, with the scenario.
pub fn run(scenario: &Scenario, verbose: bool) -> Result<Outcome, String> {
    let outcome = on_virtual_time(async { Run::start(scenario.clone(), verbose)?.finish().await });
    outcome.map_err(|violation| format!("{violation}\n{scenario:#?}"))
}

struct Run {
    scenario: Scenario,
    rng: Random,
    cluster: Cluster,
    /// What ends, by when.
    ends: BTreeMap<(u64, u64), End>,
    outcome: Outcome,
}

enum End {
    OfPaths(Vec<(usize, usize)>),
    OfDowntime(usize),
}

impl Run {
    fn start(scenario: Scenario, verbose: bool) -> Result<Self, String> {
        let run = Self {
            rng: Random::new(scenario.seed ^ 0xfa17),
            cluster: Cluster::start(scenario.seed, scenario.nodes, scenario.path)?,
            ends: BTreeMap::new(),
            outcome: Outcome::default(),
            scenario,
        };
        if verbose {
            run.cluster.network.keep_log();
        }
        Ok(run)
    }

    async fn finish(mut self) -> Result<Outcome, String> {
        let (mut write_us, mut fault_us, mut check_us) = (0, self.scenario.fault_every_us, CHECK_EVERY_US);
        while self.now_us() < FAULTY_US {
            let end_us = self.ends.first_key_value().map_or(u64::MAX, |((due_us, _), _)| *due_us);
            let next_us = write_us.min(fault_us).min(check_us).min(end_us).min(FAULTY_US);
            sleep(Duration::from_micros(next_us.saturating_sub(self.now_us()))).await;
            self.cluster.check()?;
            let now_us = self.now_us();
            if now_us >= write_us {
                self.write();
                write_us = now_us + self.rng.below(2 * self.scenario.write_every_us);
            }
            if let Some(due) = self.ends.first_entry().filter(|first| first.key().0 <= now_us) {
                let end = due.remove();
                self.end(end)?;
            }
            if now_us >= fault_us {
                self.fault().await;
                fault_us = self.now_us() + self.rng.below(2 * self.scenario.fault_every_us);
            }
            if now_us >= check_us {
                self.cluster.check_claims()?;
                check_us = now_us + CHECK_EVERY_US;
            }
        }
        self.heal().await
    }

    fn now_us(&self) -> u64 {
        self.cluster.network.now_us()
    }

    fn write(&mut self) {
        let node = self.any_node();
        let key = format!("key-{}", self.rng.below(self.scenario.keys));
        let len = self.rng.below(self.scenario.value_bytes + 1) as usize;
        self.cluster.write(node, &key, len);
    }

    async fn fault(&mut self) {
        let (node, other) = (self.any_node(), self.any_node());
        let there_and_back = [(node, other), (other, node)];
        let end = match self.rng.below(6) {
            0 => self.change_paths(&there_and_back, |path| path.cut = true),
            1 => self.change_paths(&there_and_back[..1], |path| path.cut = true),
            2 => {
                let around = (0..self.scenario.nodes).flat_map(|peer| [(node, peer), (peer, node)]);
                self.change_paths(&around.collect::<Vec<_>>(), |path| path.cut = true)
            }
            3 => self.change_paths(&there_and_back, |path| path.bytes_per_s = Some(CLIFF_BYTES_PER_S)),
            4 => {
                self.outcome.restarts += 1;
                self.cluster.network.log(&format!("stop {node}"));
                self.cluster.stop(node).await;
                End::OfDowntime(node)
            }
            _ => {
                self.outcome.restarts += 1;
                self.cluster.network.log(&format!("crash {node}"));
                self.cluster.crash(node);
                End::OfDowntime(node)
            }
        };
        let end_us = self.now_us() + self.rng.below(self.scenario.fault_us);
        let number = self.outcome.restarts + self.outcome.path_faults;
        self.ends.insert((end_us, number), end);
    }

    fn change_paths(&mut self, paths: &[(usize, usize)], change: impl Fn(&mut Path)) -> End {
        self.outcome.path_faults += 1;
        self.cluster.network.log(&format!("fault of paths {paths:?}"));
        for (from, to) in paths {
            self.cluster.network.change_path(address(*from), address(*to), &change);
        }
        End::OfPaths(paths.to_vec())
    }

    fn end(&mut self, end: End) -> Result<(), String> {
        match end {
            End::OfDowntime(node) => {
                self.cluster.network.log(&format!("restart {node}"));
                self.cluster.restart(node)
            }
            End::OfPaths(paths) => {
                for (from, to) in paths {
                    let path = self.scenario.path;
                    self.cluster.network.change_path(address(from), address(to), |changed| *changed = path);
                }
                Ok(())
            }
        }
    }

    async fn heal(mut self) -> Result<Outcome, String> {
        let Path { delay_us, .. } = self.scenario.path;
        self.cluster.network.heal(Path { delay_us, ..Path::default() });
        for node in 0..self.scenario.nodes {
            self.cluster.restart(node)?;
        }
        let healed_us = self.now_us();
        self.cluster.until("all agree after faults have stopped", HEALING_S, Cluster::agrees).await?;
        self.cluster.check_end()?;
        Ok(Outcome {
            trace: self.cluster.network.trace(),
            log: self.cluster.network.take_log(),
            datagrams: self.cluster.network.tally(),
            virtual_us: self.now_us(),
            healed_after_us: self.now_us() - healed_us,
            ..self.outcome
        })
    }

    fn any_node(&mut self) -> usize {
        self.rng.below(self.scenario.nodes as u64) as usize
    }
}
