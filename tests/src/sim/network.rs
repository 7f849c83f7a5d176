//! The network of a simulation: links that break, and directions of links that drop, delay, repeat or slow down.
//!
//! It decides when a frame arrives, and knows nothing of what is in it. While there are faults, frames of one lane may
//! be lost, come twice, or overtake one another, which is worse than a link may be; in peace they arrive in order, as
//! the core may count on.

use std::collections::BTreeMap;

use replication::Lane;

use super::scenario::Scenario;
use crate::random::Random;

/// What a slow direction queues before its lanes have no room.
const QUEUED_US: u64 = 50_000;

/// Every link, and each direction of it.
#[derive(Default)]
pub(super) struct Network {
    /// The number of the link between two nodes, while it is up.
    links: BTreeMap<(usize, usize), u64>,
    /// Until when there can be no link between two nodes.
    walls: BTreeMap<(usize, usize), u64>,
    directions: BTreeMap<(usize, usize), Direction>,
    made: u64,
}

#[derive(Default)]
struct Direction {
    /// Drops everything until then.
    mute_until_us: u64,
    /// Is slow until then.
    slow_until_us: u64,
    /// When what was sent before has left.
    free_us: u64,
    /// When the latest frame of a lane arrives.
    last_arrival_us: BTreeMap<Lane, u64>,
}

impl Network {
    /// The link between two nodes, while it is up.
    pub(super) fn link(&self, a: usize, b: usize) -> Option<u64> {
        self.links.get(&pair(a, b)).copied()
    }

    /// Sets up the link, unless it is up or cannot be. Gives whether it is new.
    pub(super) fn connect(&mut self, a: usize, b: usize, now_us: u64) -> bool {
        let walled = self.walls.get(&pair(a, b)).is_some_and(|until_us| *until_us > now_us);
        if a == b || walled || self.links.contains_key(&pair(a, b)) {
            return false;
        }
        self.made += 1;
        self.links.insert(pair(a, b), self.made).is_none()
    }

    /// Breaks the link. Gives whether it was up.
    pub(super) fn disconnect(&mut self, a: usize, b: usize) -> bool {
        self.links.remove(&pair(a, b)).is_some()
    }

    /// Allows no link between the two until then.
    pub(super) fn wall(&mut self, a: usize, b: usize, until_us: u64) {
        let wall = self.walls.entry(pair(a, b)).or_default();
        *wall = until_us.max(*wall);
    }

    /// Drops in silence all that `from` sends `to`, until then.
    pub(super) fn mute(&mut self, from: usize, to: usize, until_us: u64) {
        self.direction(from, to).mute_until_us = until_us;
    }

    /// Slows down what `from` sends `to`, until then.
    pub(super) fn throttle(&mut self, from: usize, to: usize, until_us: u64) {
        self.direction(from, to).slow_until_us = until_us;
    }

    /// Ends every wall, silence and slowness.
    pub(super) fn heal(&mut self) {
        self.walls.clear();
        for direction in self.directions.values_mut() {
            (direction.mute_until_us, direction.slow_until_us, direction.free_us) = (0, 0, 0);
        }
    }

    /// How long until the direction takes another frame; 0 when it does so now.
    pub(super) fn busy_us(&mut self, from: usize, to: usize, now_us: u64) -> u64 {
        self.direction(from, to).free_us.saturating_sub(now_us + QUEUED_US)
    }

    /// When copies of this frame arrive, after now: none, one, or two.
    pub(super) fn send(
        &mut self,
        (from, to, lane): (usize, usize, Lane),
        bytes: usize,
        now_us: u64,
        faulty: bool,
        (scenario, rng): (&Scenario, &mut Random),
    ) -> Vec<u64> {
        let direction = self.directions.entry((from, to)).or_default();
        if direction.slow_until_us > now_us {
            let takes_us = bytes as u64 * 1_000_000 / scenario.throttled_bytes_per_s;
            direction.free_us = direction.free_us.max(now_us) + takes_us;
        }
        let queued_us = direction.free_us.saturating_sub(now_us);
        let is_far = scenario.are_apart(from, to);
        let delay_least_us = scenario.delay_us + if is_far { scenario.far_delay_us } else { 0 };
        let mut copies = 1;
        let mut late_us = 0;
        if faulty {
            let mut lost = direction.mute_until_us > now_us || rng.permille(scenario.lost_permille);
            lost |= is_far && rng.permille(scenario.far_lost_permille);
            copies = if lost { 0 } else { 1 + u64::from(rng.permille(scenario.repeated_permille)) };
            let is_late = scenario.late_lanes.contains(&lane) && rng.permille(scenario.late_permille);
            late_us = if is_late { rng.below(scenario.late_us) } else { 0 };
        }
        let mut delays = Vec::new();
        for _ in 0..copies {
            let mut delay_us = queued_us + delay_least_us + rng.below(scenario.jitter_us + 1) + late_us;
            let last_us = direction.last_arrival_us.entry(lane).or_default();
            if !faulty {
                delay_us = delay_us.max(last_us.saturating_sub(now_us));
            }
            *last_us = (now_us + delay_us).max(*last_us);
            delays.push(delay_us);
        }
        delays
    }

    fn direction(&mut self, from: usize, to: usize) -> &mut Direction {
        self.directions.entry((from, to)).or_default()
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
