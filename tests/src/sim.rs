//! The simulator: a cluster of replicas in one thread, on virtual time, from one seed.
//!
//! It drives the very core that ships, over stores that lose what was not flushed and a network that loses,
//! delays, repeats and reorders. What must hold is checked by the [`oracle`], which knows every write that
//! was issued and acknowledged, and nothing of how replicas work. Same seed, same trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;

use bytes::Bytes;
use replication::codec::message::{Message, Stage};
use replication::replica::WriteError;
use replication::store::memory::MemoryStore;
use replication::{
    Body, DigestKey, EntryId, Lane, MemberRecord, NamespaceId, Now, Payload, Replica, ReplicaId, Settings,
    Value,
};

pub mod amnesia;
pub mod oracle;
use crate::random::{Random, mix};
use oracle::Oracle;

/// How long faults go on, in virtual microseconds.
const FAULTY_US: u64 = 10_000_000;

/// How long replicas may take to agree once faults have stopped.
const HEALING_US: u64 = 120_000_000;

/// Wall clocks start here: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// How long a lane without room stays so.
const BUSY_US: u64 = 10_000;

/// Frames a lane takes at once.
const FRAMES_AT_ONCE: usize = 2;

/// What one seed expands to.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed it came from.
    pub seed: u64,
    /// How many replicas.
    pub replicas: usize,
    /// How many keys are written; few keys mean many conflicts.
    pub keys: u64,
    /// Mean time between two writes, anywhere.
    pub write_every_us: u64,
    /// Frames lost, of 1,000.
    pub lost_permille: u64,
    /// Frames delivered twice, of 1,000.
    pub repeated_permille: u64,
    /// Least one-way delay.
    pub delay_us: u64,
    /// What is added to it at random: beyond the time between frames, they overtake one another.
    pub jitter_us: u64,
    /// Mean time between two faults (cuts, crashes).
    pub fault_every_us: u64,
    /// Of 1,000 groups that are not flushed at once, how many meet a crash there and then.
    pub crash_unflushed_permille: u64,
    /// How far a replica's wall clock may be off, either way. It is set anew whenever the replica starts.
    pub skew_ms: u64,
    /// How long a crashed replica may stay down.
    pub down_us: u64,
    /// Of 1,000 times that a lane is looked at, how often it has no room.
    pub busy_permille: u64,
    /// Size of a frame at which an interval is split.
    pub frame_bytes: usize,
    /// Whether a replica forgets entries it claims to hold.
    pub amnesia: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Random::new(seed);
        let lossy = rng.permille(500);
        Self {
            seed,
            replicas: 2 + rng.below(4) as usize,
            keys: *rng.pick(&[3, 30, 300]),
            write_every_us: *rng.pick(&[4_000, 20_000, 200_000]),
            lost_permille: if lossy { rng.below(200) } else { 0 },
            repeated_permille: if lossy { rng.below(100) } else { 0 },
            delay_us: *rng.pick(&[100, 5_000, 80_000]),
            jitter_us: *rng.pick(&[0, 1_000, 50_000]),
            fault_every_us: *rng.pick(&[300_000, 2_000_000, 30_000_000]),
            crash_unflushed_permille: *rng.pick(&[0, 10, 50]),
            skew_ms: *rng.pick(&[0, 10, 190]),
            down_us: *rng.pick(&[1_000, 200_000, 3_000_000]),
            busy_permille: *rng.pick(&[0, 300, 900]),
            frame_bytes: *rng.pick(&[64, 1_000, 64 << 10]),
            amnesia: rng.permille(250),
        }
    }
}

/// What a run saw.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Writes acknowledged as durable.
    pub acknowledged: u64,
    /// Frames delivered.
    pub delivered: u64,
    /// Crashes.
    pub crashes: u64,
    /// Entries repaired by anti-entropy.
    pub repaired: u64,
    /// Virtual time until all agreed, after faults had stopped.
    pub healed_after_us: u64,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// The readable trace, where asked for.
    pub log: String,
    /// Some of the frames that were delivered.
    pub frames: crate::decoders::recording::Recording,
}

enum Happening {
    Deliver { from: usize, to: usize, link: u64, frame: Bytes },
    Wake { node: usize },
    Write,
    Fault,
    Reconnect { a: usize, b: usize },
    Restart { node: usize },
}

struct Node {
    id: ReplicaId,
    skew_ms: i64,
    /// None while it is down.
    replica: Option<Replica<MemoryStore>>,
    disk: MemoryStore,
    wake_us: u64,
    /// Writes staged and not yet acknowledged.
    staged: Vec<(replication::Dot, EntryId, Body)>,
}

/// A running simulation.
pub struct Simulation {
    scenario: Scenario,
    rng: Random,
    now_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    nodes: Vec<Node>,
    /// The number of the link between two nodes, while it is up.
    links: BTreeMap<(usize, usize), u64>,
    /// When the latest frame of a lane arrives.
    last_arrival_us: BTreeMap<(usize, usize, Lane), u64>,
    faults: bool,
    forgot: bool,
    oracle: Oracle,
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
        format!("at {at_s:.6} s: {violation}\n{scenario:#?}\n{}", outcome.log)
    })
}

impl Simulation {
    fn new(scenario: Scenario, verbose: bool) -> Self {
        let rng = Random::new(scenario.seed ^ 0x5eed);
        let nodes = (0..scenario.replicas)
            .map(|index| Node {
                id: ReplicaId([index as u8 + 1; 16]),
                skew_ms: 0,
                replica: None,
                disk: MemoryStore::default(),
                wake_us: u64::MAX,
                staged: Vec::new(),
            })
            .collect();
        Self {
            rng,
            now_us: 0,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            nodes,
            links: BTreeMap::new(),
            last_arrival_us: BTreeMap::new(),
            faults: true,
            forgot: false,
            oracle: Oracle::default(),
            outcome: Outcome::default(),
            verbose,
            scenario,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            self.restart(node)?;
        }
        let now = self.now(0);
        if let Some(founder) = &mut self.nodes[0].replica {
            let record = MemberRecord { pop: "pop-0".into(), region: "sim".into() };
            founder.found(now, &record).map_err(|error| format!("founding failed: {error}"))?;
        }
        self.drive(0, true)?;
        self.after(0, Happening::Write);
        self.after(self.scenario.fault_every_us, Happening::Fault);
        while self.now_us < FAULTY_US {
            self.step()?;
        }
        self.heal()?;
        while !self.agreed() {
            if self.now_us > FAULTY_US + HEALING_US {
                return Err(format!(
                    "no agreement {} s after faults stopped{}",
                    HEALING_US / 1_000_000,
                    self.views()
                ));
            }
            self.step()?;
        }
        self.outcome.healed_after_us = self.now_us - FAULTY_US;
        self.final_checks()
    }

    fn settings(&self) -> Settings {
        Settings { epoch_every_ms: 1_000, ..Settings::new([1; 16], DigestKey::new([2; 32])) }
    }

    fn now(&self, node: usize) -> Now {
        let wall_ms = (EPOCH_MS + self.now_us / 1000).saturating_add_signed(self.nodes[node].skew_ms);
        Now { wall_ms, mono_us: self.now_us }
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
                if self.links.get(&pair(from, to)) == Some(&link) {
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
        }
        if self.rng.permille(5) {
            self.check_claims()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let pause_us = self.rng.below(2 * self.scenario.write_every_us);
        self.after(pause_us, Happening::Write);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let key = format!("key-{}", self.rng.below(self.scenario.keys));
        let id = EntryId::value(NamespaceId([9; 16]), key);
        let body = if self.rng.permille(250) {
            Body::Tombstone
        } else {
            let text = format!("value {} of node {node}", self.next);
            let expires_at_s = self.rng.permille(50).then_some(EPOCH_MS / 1000 + 5);
            Body::Value(Value { payload: Payload::Inline(Bytes::from(text)), metadata: None, expires_at_s })
        };
        let now = self.now(node);
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        let seen = oracle::entry(replica, &id)?;
        let dot = match replica.write(now, id.clone(), body.clone()) {
            Ok(dot) => dot,
            Err(WriteError::NotMember) => return Ok(()),
            Err(error) => return Err(format!("a write failed: {error}")),
        };
        // Who writes after having seen a state means to replace it.
        if let Some((before, _)) = seen.filter(|(before, _)| *before >= dot) {
            return Err(format!(
                "{dot:?} on {:?} would lose to {before:?}, which its writer had seen",
                id.key
            ));
        }
        self.nodes[node].staged.push((dot, id, body));
        // Sometimes the group is committed later, so that a crash finds it unflushed.
        let at_once = self.rng.permille(700);
        self.drive(node, at_once)?;
        if !at_once && self.rng.permille(self.scenario.crash_unflushed_permille) {
            self.crash(node)?;
        }
        Ok(())
    }

    fn deliver(&mut self, from: usize, to: usize, frame: &Bytes) -> Result<(), String> {
        self.outcome.delivered += 1;
        self.outcome.trace = mix(self.outcome.trace ^ frame.iter().fold(7, |h, b| mix(h ^ u64::from(*b))));
        let message =
            Message::from_frame(frame).map_err(|why| format!("a replica sent a bad frame: {why}"))?;
        self.outcome.frames.note(&message, frame);
        self.note(|| format!("{from} -> {to} {message:?}"));
        let (now, peer) = (self.now(to), self.nodes[from].id);
        let Some(replica) = &mut self.nodes[to].replica else { return Ok(()) };
        replica
            .handle_message(now, peer, message)
            .map_err(|error| format!("a message was refused: {error}"))?;
        self.drive(to, true)
    }

    /// What a driver owes its replica; see [`Replica`].
    fn drive(&mut self, node: usize, flush: bool) -> Result<(), String> {
        let now = self.now(node);
        let Node { replica: Some(replica), staged, .. } = &mut self.nodes[node] else { return Ok(()) };
        let fail = |error| format!("node {node} failed: {error}");
        if flush {
            replica.flush().map_err(fail)?;
        } else if self.rng.permille(500) {
            replica.commit().map_err(fail)?;
        }
        if replica.poll_timeout().is_some_and(|due| due <= now.mono_us) {
            replica.handle_timeout(now).map_err(fail)?;
            if flush {
                replica.flush().map_err(fail)?;
            }
        }
        while let Some(event) = replica.poll_event() {
            use replication::replica::Event;
            if let Event::OlderCopy { .. }
            | Event::Cloned { .. }
            | Event::Behind { .. }
            | Event::Removed { .. } = event
            {
                return Err(format!("node {node}: {event:?}"));
            }
            if let Event::Recorded { dot, id, body } = event {
                staged.push((dot, id, body));
            }
        }
        if flush {
            for (dot, id, body) in self.nodes[node].staged.drain(..) {
                self.oracle.acknowledge(dot, id, body)?;
                self.outcome.acknowledged += 1;
            }
        }
        self.transmit(node)?;
        self.sleep(node);
        Ok(())
    }

    fn transmit(&mut self, node: usize) -> Result<(), String> {
        let now = self.now(node);
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let Some(link) = self.links.get(&pair(node, to)).copied() else { continue };
            let peer = self.nodes[to].id;
            for lane in Lane::ALL {
                if self.rng.permille(self.scenario.busy_permille) {
                    self.wake_after(node, BUSY_US);
                    continue;
                }
                for _ in 0..FRAMES_AT_ONCE {
                    let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
                    let frame = replica
                        .poll_transmit(now, peer, lane, self.scenario.frame_bytes)
                        .map_err(|error| format!("node {node} cannot send: {error}"))?;
                    let Some(frame) = frame else { break };
                    self.send(node, to, lane, link, frame);
                }
            }
        }
        Ok(())
    }

    /// While there are faults, frames of one lane may be lost, come twice, or overtake one another, which is worse
    /// than a link may be; then they arrive in order, as the core may count on.
    fn send(&mut self, from: usize, to: usize, lane: Lane, link: u64, frame: Bytes) {
        let lossy = self.faults;
        if lossy && self.rng.permille(self.scenario.lost_permille) {
            return;
        }
        let copies = 1 + u64::from(lossy && self.rng.permille(self.scenario.repeated_permille));
        for _ in 0..copies {
            let mut delay_us = self.scenario.delay_us + self.rng.below(self.scenario.jitter_us + 1);
            let last_us = self.last_arrival_us.entry((from, to, lane)).or_default();
            if !lossy {
                delay_us = delay_us.max(last_us.saturating_sub(self.now_us));
            }
            *last_us = (self.now_us + delay_us).max(*last_us);
            self.after(delay_us, Happening::Deliver { from, to, link, frame: frame.clone() });
        }
    }

    /// Has the node woken when its replica next has something to do, or a lane has room again.
    fn sleep(&mut self, node: usize) {
        let Some(due_us) = self.nodes[node].replica.as_ref().and_then(Replica::poll_timeout) else { return };
        self.wake_after(node, due_us.saturating_sub(self.now_us).max(1_000));
    }

    fn wake_after(&mut self, node: usize, delay_us: u64) {
        let wake_us = self.now_us + delay_us;
        if wake_us < self.nodes[node].wake_us {
            self.nodes[node].wake_us = wake_us;
            self.after(delay_us, Happening::Wake { node });
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let next_us = self.rng.below(2 * self.scenario.fault_every_us);
        self.after(next_us, Happening::Fault);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        if self.rng.permille(500) {
            return self.crash(node);
        }
        let other = self.rng.below(self.nodes.len() as u64) as usize;
        if node != other && self.disconnect(node, other) {
            let back_us = self.rng.below(5_000_000);
            self.after(back_us, Happening::Reconnect { a: node, b: other });
        }
        Ok(())
    }

    fn crash(&mut self, node: usize) -> Result<(), String> {
        let Some(replica) = self.nodes[node].replica.take() else { return Ok(()) };
        self.note(|| format!("{node} crashes"));
        self.outcome.crashes += 1;
        self.outcome.repaired += replica.counters().repaired;
        let mut disk = replica.into_store();
        let kept = self.rng.below(disk.unflushed() as u64 + 1) as usize;
        disk.crash(kept);
        self.nodes[node].disk = disk;
        for (dot, id, body) in std::mem::take(&mut self.nodes[node].staged) {
            self.oracle.crashed(dot, id, body);
        }
        // Once: two that forget the same would be a true loss.
        if self.scenario.amnesia && !self.forgot && self.rng.permille(300) {
            let others: Vec<_> = self.replicas().map(oracle::entries).collect::<Result<_, _>>()?;
            let elsewhere =
                |id: &EntryId, dot| others.iter().any(|held| held.get(id).is_some_and(|(at, _)| *at >= dot));
            let settings = self.settings();
            let disk = &mut self.nodes[node].disk;
            let forgotten = amnesia::forget(disk, &settings.digest_key, &mut self.rng, &elsewhere);
            self.forgot = forgotten > 0;
            self.note(|| format!("{node} forgets {forgotten} entries"));
        }
        let down_us = self.rng.below(self.scenario.down_us);
        self.after(down_us, Happening::Restart { node });
        Ok(())
    }

    fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].replica.is_some() {
            return Ok(());
        }
        // Only now do the others notice: what was on its way when it crashed still arrived.
        for other in 0..self.nodes.len() {
            self.disconnect(node, other);
        }
        self.note(|| format!("{node} starts"));
        let disk = std::mem::take(&mut self.nodes[node].disk);
        let skew_ms = self.scenario.skew_ms;
        self.nodes[node].skew_ms = self.rng.below(2 * skew_ms + 1) as i64 - skew_ms as i64;
        let replica = Replica::open(disk, self.settings(), self.nodes[node].id);
        let mut replica =
            replica.map_err(|error| format!("node {node} does not open after a crash: {error}"))?;
        if node > 0 {
            replica.join(MemberRecord { pop: format!("pop-{node}"), region: "sim".into() });
        }
        self.oracle.started(&replica)?;
        self.nodes[node].replica = Some(replica);
        self.check_claims()?;
        for other in 0..self.nodes.len() {
            self.connect(node, other)?;
        }
        self.drive(node, true)
    }

    fn disconnect(&mut self, a: usize, b: usize) -> bool {
        let was_up = self.links.remove(&pair(a, b)).is_some();
        if was_up {
            self.note(|| format!("{a} - {b} cut"));
            for (node, peer) in [(a, b), (b, a)] {
                let peer = self.nodes[peer].id;
                if let Some(replica) = &mut self.nodes[node].replica {
                    replica.handle_disconnected(peer);
                }
            }
        }
        was_up
    }

    fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let both_up = self.nodes[a].replica.is_some() && self.nodes[b].replica.is_some();
        if a == b || !both_up || self.links.contains_key(&pair(a, b)) {
            return Ok(());
        }
        self.next += 1;
        self.links.insert(pair(a, b), self.next);
        for (node, peer) in [(a, b), (b, a)] {
            let (now, peer) = (self.now(node), self.nodes[peer].id);
            if let Some(replica) = &mut self.nodes[node].replica {
                replica.handle_connected(now, peer);
            }
            self.drive(node, true)?;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.note(|| "faults stop".into());
        self.faults = false;
        for node in 0..self.nodes.len() {
            self.restart(node)?;
            for other in 0..node {
                self.connect(node, other)?;
            }
            self.drive(node, true)?;
        }
        Ok(())
    }

    fn replicas(&self) -> impl Iterator<Item = &Replica<MemoryStore>> {
        self.nodes.iter().filter_map(|node| node.replica.as_ref())
    }

    /// Everyone holds the same, and everyone knows it.
    fn agreed(&self) -> bool {
        let mut replicas = self.replicas();
        let Some(first) = replicas.next() else { return false };
        // Claims follow the clocks while nothing is written; events do not.
        let events = |replica: &Replica<MemoryStore>| -> Vec<_> {
            replica.vector().iter().map(|(origin, at)| (origin, at.ops)).collect()
        };
        let is_settled = |replica: &Replica<MemoryStore>| {
            replica.is_swept() && replica.epoch() == first.epoch() && replica.stage() == Stage::Member
        };
        let same = is_settled(first)
            && replicas.all(|replica| {
                events(replica) == events(first) && replica.root() == first.root() && is_settled(replica)
            });
        let no_lag = |node: usize| {
            let replica = self.nodes[node].replica.as_ref();
            replica.is_some_and(|r| r.lag(self.now(node)).is_ok_and(|lag| lag.iter().all(|lag| lag.ops == 0)))
        };
        same && (0..self.nodes.len()).all(no_lag)
    }

    fn views(&self) -> String {
        self.replicas().fold(String::new(), |mut text, replica| {
            let _ =
                write!(text, "\n  {:?} root {:?} holds {:?}", replica.id(), replica.root(), replica.vector());
            let _ = write!(text, "\n    {:?}", replica.counters());
            let _ = write!(text, "\n    {:?} {:?}", replica.stage(), replica.garbage());
            text
        })
    }

    /// Holds at any moment.
    fn check_claims(&mut self) -> Result<(), String> {
        let forgetful = self.forgot;
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else { continue };
            if !forgetful {
                self.oracle.check_claims(replica)?;
                self.oracle.check_origins(replica)?;
            }
            self.oracle.check_lag(replica, self.now(number))?;
        }
        Ok(())
    }

    fn final_checks(&mut self) -> Result<(), String> {
        let repaired: u64 = self.replicas().map(|replica| replica.counters().repaired).sum();
        if !self.forgot && self.outcome.repaired + repaired > 0 {
            return Err(
                "anti-entropy repaired what bookkeeping had claimed, and nothing was forgotten".into()
            );
        }
        for node in &self.nodes {
            let Some(replica) = &node.replica else { return Err("a node is down at the end".into()) };
            self.outcome.repaired += replica.counters().repaired;
            self.oracle.check_end(replica)?;
            // Opening reads every row, and compares counts and root with the summary.
            let reopened = Replica::open(replica.store().clone(), self.settings(), node.id);
            let reopened =
                reopened.map_err(|error| format!("the stored digest is not the recomputed one: {error}"))?;
            if reopened.root() != replica.root() {
                return Err("the root changes when the store is opened again".into());
            }
        }
        Ok(())
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
