//! What relays promise, looked at when all faults of a run are over: a write crosses to each other region once, and is
//! everywhere in time, also while a relay fails.
//!
//! Who relays for whom is asked of the replicas, only to know whom to take away; what is checked is what crosses and
//! who holds it.

use std::collections::BTreeMap;

use bytes::Bytes;
use replication::codec::message::Message;
use replication::codec::round::Step;
use replication::{Body, Dot, Entry, EntryId, Payload, Value};

use super::oracle::NAMESPACE;
use super::{Happening, Simulation};

/// After so long without faults, nobody is passed over any more, and nobody goes on with what it was asked for.
const SETTLED_US: u64 = 12_000_000;

/// For how long there are writes, in peace and while a relay fails.
const WRITTEN_US: u64 = 3_000_000;

/// Time between two of them.
const WRITE_EVERY_US: u64 = 40_000;

/// Bytes of a written value.
const VALUE_BYTES: usize = 200;

/// The longest that a write may take to be everywhere in peace: less than anyone waits before asking for it.
const FRESH_US: u64 = 500_000;

/// The longest it may take while a relay fails.
const HEALED_US: u64 = 2_000_000;

/// Of 1,000 bytes that must cross, how many may.
const CROSSED_PERMILLE: u64 = 1_050;

/// Bytes of keys and values that went from one region to another, while they are counted.
#[derive(Default)]
pub(super) struct Crossings {
    are_counted: bool,
    bytes: BTreeMap<(usize, usize), u64>,
    /// Written meanwhile in each region.
    written_bytes: BTreeMap<usize, u64>,
    /// Keys written so far.
    keys: u64,
}

/// How a relay fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// It stops, and its links stay up.
    Crash,
    /// It loses all links.
    Cut { is_silent: bool },
    /// It loses its links to its own region.
    Estranged { is_silent: bool },
}

const FAILURES: [(&str, Failure); 5] = [
    ("crash", Failure::Crash),
    ("cut", Failure::Cut { is_silent: false }),
    ("cut in silence", Failure::Cut { is_silent: true }),
    ("estranged", Failure::Estranged { is_silent: false }),
    ("estranged in silence", Failure::Estranged { is_silent: true }),
];

impl Simulation {
    /// Takes note of what crosses regions.
    pub(super) fn note_crossing(&mut self, from: usize, to: usize, message: &Message) {
        if !self.crossings.are_counted || !self.scenario.are_apart(from, to) {
            return;
        }
        let state =
            |id: &EntryId, entry: Option<&Entry>| id.key.len() as u64 + entry.map_or(0, Entry::user_bytes);
        let bytes: u64 = match message {
            Message::Delta(delta) => delta.rows.iter().map(|row| state(&row.id, row.entry.as_ref())).sum(),
            Message::Round(round) => match &round.step {
                Step::Rows(rows) => rows.rows.iter().map(|row| state(&row.id, Some(&row.entry))).sum(),
                _ => 0,
            },
            _ => 0,
        };
        let ends = (self.scenario.region_of(from), self.scenario.region_of(to));
        *self.crossings.bytes.entry(ends).or_default() += bytes;
    }

    /// Writes in peace, and then while a relay fails.
    pub(super) fn check_relays(&mut self) -> Result<(), String> {
        // Whatever is lost from now on is lost on purpose.
        let scenario = &mut self.scenario;
        (scenario.lost_permille, scenario.far_lost_permille, scenario.repeated_permille) = (0, 0, 0);
        (scenario.late_permille, scenario.jitter_us) = (0, 0);
        self.settle()?;
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.crossings.are_counted = true;
        self.write_and_watch(&all, &all, FRESH_US)?;
        self.crossings.are_counted = false;
        self.check_crossings()?;
        for origin in all {
            self.check_views(origin)?;
        }
        self.fail_a_relay()
    }

    fn settle(&mut self) -> Result<(), String> {
        let until_us = self.now_us + SETTLED_US;
        self.step_until(until_us + 1_000_000, "time goes by", |simulation| simulation.now_us >= until_us)
    }

    /// Writes for a while, and gives the longest that a write took to be held durably by all of `holders`.
    fn write_and_watch(
        &mut self,
        writers: &[usize],
        holders: &[usize],
        bound_us: u64,
    ) -> Result<u64, String> {
        let (ends_us, mut next_us) = (self.now_us + WRITTEN_US, self.now_us);
        let (mut watched, mut slowest_us, mut turn) = (Vec::new(), 0, 0);
        while self.now_us < ends_us || !watched.is_empty() {
            if self.now_us >= next_us && self.now_us < ends_us {
                next_us = self.now_us + WRITE_EVERY_US;
                let writer = writers[turn % writers.len()];
                turn += 1;
                watched.push((self.write_new(writer)?, self.now_us));
            }
            self.step()?;
            let now_us = self.now_us;
            let lacks = |dot: Dot| {
                let covers = |node: usize| {
                    self.nodes[node].replica.as_ref().is_some_and(|replica| replica.vector().covers(dot))
                };
                holders.iter().copied().find(|node| !covers(*node))
            };
            for (dot, written_us) in &watched {
                if lacks(*dot).is_none() {
                    slowest_us = slowest_us.max(now_us - written_us);
                }
            }
            watched.retain(|(dot, _)| lacks(*dot).is_some());
            if let Some((dot, _)) = watched.iter().find(|(_, written_us)| now_us - written_us > bound_us) {
                let node = lacks(*dot);
                return Err(format!("after {bound_us} us, {dot:?} is not at {node:?}{}", self.views()));
            }
        }
        Ok(slowest_us)
    }

    fn write_new(&mut self, node: usize) -> Result<Dot, String> {
        let now = self.now(node);
        self.crossings.keys += 1;
        let id = EntryId::value(NAMESPACE, format!("crossing-{}", self.crossings.keys));
        let payload = Payload::Inline(Bytes::from(vec![b'x'; VALUE_BYTES]));
        let body = Body::Value(Value { payload, metadata: None, expires_at_s: None });
        let replica = self.nodes[node].replica.as_mut().ok_or("a writer is down")?;
        let dot = replica
            .write(now, id.clone(), body.clone())
            .map_err(|error| format!("a write failed: {error}"))?;
        if self.crossings.are_counted {
            let region = self.scenario.region_of(node);
            *self.crossings.written_bytes.entry(region).or_default() += (id.key.len() + VALUE_BYTES) as u64;
        }
        self.nodes[node].staged.push((dot, id, body));
        self.drive(node, true)?;
        Ok(dot)
    }

    /// What was written in each region has crossed to each other one, and hardly anything twice.
    fn check_crossings(&mut self) -> Result<(), String> {
        let regions = 0..self.scenario.regions;
        let pairs = regions.clone().flat_map(|from| regions.clone().map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let crossed = self.crossings.bytes.get(&(from, to)).copied().unwrap_or_default();
            let written = self.crossings.written_bytes.get(&from).copied().unwrap_or_default();
            self.outcome.crossed_bytes += crossed;
            self.outcome.to_cross_bytes += written;
            if crossed < written || crossed * 1_000 > written * CROSSED_PERMILLE {
                return Err(format!(
                    "of {written} bytes written in region {from}, {crossed} crossed to region {to}"
                ));
            }
        }
        Ok(())
    }

    /// Everyone says the same of who relays for `origin`: itself, its relays, and those they pass its events on to.
    fn check_views(&self, origin: usize) -> Result<(), String> {
        let view = |at: usize, of: usize| {
            let mut views = self.nodes[at].replica.iter().flat_map(|replica| replica.peers());
            views.find(|view| view.replica == self.nodes[of].id)
        };
        let id = self.nodes[origin].id;
        let is_relay = |node: &usize| view(origin, *node).is_some_and(|view| view.is_relay);
        let relays: Vec<usize> = (0..self.nodes.len()).filter(is_relay).collect();
        let is_elsewhere = |node: &usize| self.scenario.are_apart(origin, *node);
        if !relays.iter().all(is_elsewhere) || relays.len() + 1 != self.scenario.regions {
            return Err(format!("{origin} has the relays {relays:?}"));
        }
        for relay in relays {
            let others = (0..self.nodes.len()).filter(|node| *node != relay && *node != origin);
            for other in others {
                let is_expected = !self.scenario.are_apart(relay, other);
                let is_brought = view(relay, other).is_some_and(|view| view.is_brought.contains(&id));
                let brings = view(other, relay).is_some_and(|view| view.brings.contains(&id));
                if (is_brought, brings) != (is_expected, is_expected) {
                    return Err(format!(
                        "{relay} relays for {origin}, and passes on to {other}: {is_brought}, which says {brings}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Has the relay of some origin fail, and watches the writes of those that may send by it.
    fn fail_a_relay(&mut self) -> Result<(), String> {
        // These two have two members at least.
        let region = self.rng.below(2) as usize;
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..self.nodes.len()).partition(|node| self.scenario.region_of(*node) == region);
        let origin = *self.rng.pick(&outside);
        let replica = self.nodes[origin].replica.as_ref().ok_or("an origin is down")?;
        let views: Vec<_> = replica.peers().filter(|view| view.is_relay).map(|view| view.replica).collect();
        let relays: Vec<usize> =
            inside.iter().copied().filter(|node| views.contains(&self.nodes[*node].id)).collect();
        let [relay] = relays[..] else {
            return Err(format!("{origin} has the relays {relays:?} in region {region}"));
        };
        let (name, failure) = *self.rng.pick(&FAILURES);
        self.note(|| format!("{relay}, the relay of {origin}, fails: {name}"));
        self.outcome.relay_failures.insert(name);
        self.faulty = true;
        let lasts_us = WRITTEN_US + 2 * HEALED_US;
        let mut holders: Vec<usize> = (0..self.nodes.len()).collect();
        match failure {
            Failure::Crash => {
                self.take_down(relay);
                self.after(lasts_us, Happening::Restart { node: relay });
            }
            Failure::Cut { is_silent } => {
                for other in (0..self.nodes.len()).filter(|other| *other != relay) {
                    self.separate(relay, other, lasts_us, is_silent);
                }
            }
            Failure::Estranged { is_silent } => self.estrange(relay, lasts_us, is_silent),
        }
        if !matches!(failure, Failure::Estranged { .. }) {
            holders.retain(|node| *node != relay);
        }
        let slowest_us = self.write_and_watch(&outside, &holders, HEALED_US)?;
        self.outcome.slowest_us = self.outcome.slowest_us.max(slowest_us);
        self.heal()
    }
}
