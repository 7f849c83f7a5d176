//! What goes wrong in a simulation: crashes, broken, silent and slow links, partitions, clocks that jump. What
//! happens to whole nodes is in [`super::membership`].

use replication::Replica;

use super::scenario::{Amnesia, Fault};
use super::{Happening, Simulation, amnesia, rows};

/// How long a node takes to dial again after another took its link.
const REDIAL_US: u64 = 1_000_000;

impl Simulation {
    /// One fault of the kinds the scenario has.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let next_us = self.rng.below(2 * self.scenario.fault_every_us);
        self.after(next_us, Happening::Fault);
        let total: u64 = self.scenario.faults.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.rng.below(total.max(1));
        let drawn = self.scenario.faults.iter().find(|(_, weight)| {
            let is_drawn = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_drawn
        });
        match drawn.map(|(fault, _)| *fault) {
            None => Ok(()),
            Some(Fault::Crash) => {
                let node = self.any_node();
                self.crash(node)
            }
            Some(Fault::Cut) => self.cut_link(),
            Some(Fault::OneWay) => self.mute_direction(),
            Some(Fault::Partition) => self.partition(),
            Some(Fault::Throttle) => self.throttle_direction(),
            Some(Fault::ClockJump) => self.jump_clock(),
            Some(Fault::Isolate) => {
                let node = self.any_node();
                self.isolate(node, self.scenario.partition_us)
            }
            Some(Fault::Away) => self.send_away(),
            Some(Fault::Restore) => self.back_up_or_restore(),
            Some(Fault::Clone) => self.clone_node(),
            Some(Fault::Remove) => self.remove_member(),
            Some(Fault::Add) => self.add_node(),
            Some(Fault::Drain) => self.drain_member(),
            Some(Fault::RegionCut) => self.cut_region_off(),
            Some(Fault::Estranged) => self.estrange_any(),
        }
    }

    fn cut_link(&mut self) -> Result<(), String> {
        let (a, b) = (self.any_node(), self.any_node());
        if self.disconnect(a, b) {
            let back_us = self.rng.below(self.scenario.cut_us);
            self.after(back_us, Happening::Reconnect { a, b });
        }
        Ok(())
    }

    fn mute_direction(&mut self) -> Result<(), String> {
        let (from, to) = (self.any_node(), self.any_node());
        let until_us = self.now_us + self.rng.below(self.scenario.cut_us);
        self.note(|| format!("{from} -> {to} drops everything until {:.3} s", until_us as f64 / 1e6));
        self.network.mute(from, to, until_us);
        Ok(())
    }

    fn throttle_direction(&mut self) -> Result<(), String> {
        let (from, to) = (self.any_node(), self.any_node());
        let until_us = self.now_us + self.rng.below(self.scenario.cut_us);
        self.note(|| format!("{from} -> {to} is slow until {:.3} s", until_us as f64 / 1e6));
        self.network.throttle(from, to, until_us);
        Ok(())
    }

    /// Cuts a group of nodes off from the others.
    fn partition(&mut self) -> Result<(), String> {
        let sides: Vec<bool> = self.nodes.iter().map(|_| self.rng.permille(500)).collect();
        self.divide(&sides, self.scenario.partition_us)
    }

    /// Cuts one node off from all others.
    pub(super) fn isolate(&mut self, node: usize, at_most_us: u64) -> Result<(), String> {
        let sides: Vec<bool> = (0..self.nodes.len()).map(|other| other == node).collect();
        self.divide(&sides, at_most_us)
    }

    fn cut_region_off(&mut self) -> Result<(), String> {
        let region = self.rng.below(self.scenario.regions as u64) as usize;
        let sides: Vec<bool> =
            (0..self.nodes.len()).map(|node| self.scenario.region_of(node) == region).collect();
        self.divide(&sides, self.scenario.partition_us)
    }

    fn estrange_any(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let (lasts_us, is_silent) = (self.rng.below(self.scenario.partition_us), self.rng.permille(500));
        self.note(|| format!("{node} is cut off from its region for {lasts_us} us, silent: {is_silent}"));
        self.estrange(node, lasts_us, is_silent);
        Ok(())
    }

    /// Cuts a node off from the others of its region.
    pub(super) fn estrange(&mut self, node: usize, lasts_us: u64, is_silent: bool) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if !self.scenario.are_apart(node, other) {
                self.separate(node, other, lasts_us, is_silent);
            }
        }
    }

    /// Half of the time nobody is told: links stay up and carry nothing.
    fn divide(&mut self, sides: &[bool], at_most_us: u64) -> Result<(), String> {
        let lasts_us = self.rng.below(at_most_us);
        let until_us = self.now_us + lasts_us;
        let is_silent = self.rng.permille(500);
        self.note(|| {
            format!("partition {sides:?} until {:.3} s, silent: {is_silent}", until_us as f64 / 1e6)
        });
        for a in 0..sides.len() {
            for b in (0..a).filter(|b| sides[*b] != sides[a]) {
                self.separate(a, b, lasts_us, is_silent);
            }
        }
        Ok(())
    }

    /// Cuts two nodes off from each other; in silence, their link stays up and carries nothing.
    pub(super) fn separate(&mut self, a: usize, b: usize, lasts_us: u64, is_silent: bool) {
        let until_us = self.now_us + lasts_us;
        if is_silent {
            self.network.mute(a, b, until_us);
            self.network.mute(b, a, until_us);
        } else {
            self.disconnect(a, b);
            self.network.wall(a, b, until_us);
            self.after(lasts_us, Happening::Reconnect { a, b });
        }
    }

    fn jump_clock(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let jump_ms = self.scenario.jump_ms;
        let off_ms = self.rng.below(2 * jump_ms + 1) as i64 - jump_ms as i64;
        self.note(|| format!("the clock of {node} jumps to {off_ms} ms off"));
        self.nodes[node].clock_off_ms = off_ms;
        Ok(())
    }

    /// Takes the power from a node.
    pub(super) fn crash(&mut self, node: usize) -> Result<(), String> {
        if !self.take_down(node) {
            return Ok(());
        }
        self.outcome.crashes += 1;
        // Once: two that forget the same would be a true loss.
        if self.scenario.amnesia != Amnesia::None && !self.forgot && self.rng.permille(300) {
            self.forget(node)?;
        }
        let down_us = self.rng.below(self.scenario.down_us);
        self.after(down_us, Happening::Restart { node });
        Ok(())
    }

    /// Stops a node as a power cut does: of the batches that were not flushed, the first few may survive. Gives whether
    /// it was up.
    pub(super) fn take_down(&mut self, node: usize) -> bool {
        let Some(replica) = self.nodes[node].replica.take() else { return false };
        self.note(|| format!("{node} goes down"));
        self.oracle.note(replica.id(), replica.vector());
        self.oracle.note_members(&replica);
        self.outcome.repaired += replica.counters().repaired;
        self.outcome.dropped += replica.counters().dropped;
        self.outcome.folded += replica.counters().folded;
        self.outcome.written_anew += replica.counters().written_anew;
        self.sessions.end(node);
        let mut disk = replica.into_store();
        let kept = self.rng.below(disk.memory().unflushed() as u64 + 1) as usize;
        disk.memory_mut().crash(kept);
        self.nodes[node].disk = disk;
        for (dot, id, body) in std::mem::take(&mut self.nodes[node].staged) {
            self.oracle.crashed(node, dot, id, body);
        }
        true
    }

    fn forget(&mut self, node: usize) -> Result<(), String> {
        let others: Vec<_> =
            self.replicas().map(|replica| rows::entries(replica.store())).collect::<Result<_, _>>()?;
        let elsewhere =
            |id: &_, dot| others.iter().any(|held| held.get(id).is_some_and(|(at, _)| *at >= dot));
        let settings = self.settings(0);
        let disk = &mut self.nodes[node].disk;
        let kind = (self.scenario.amnesia, &mut self.rng);
        let forgotten = amnesia::forget(disk, &settings.digest_key, kind, &elsewhere);
        self.forgot = forgotten > 0;
        self.note(|| format!("{node} forgets {forgotten} entries"));
        Ok(())
    }

    /// Starts a node that is down, with its clock set anew.
    pub(super) fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].replica.is_some() || self.nodes[node].is_out {
            return Ok(());
        }
        self.open(node)?;
        self.connect_all(node)
    }

    /// Opens a node's disk, and has it join where it is new.
    pub(super) fn open(&mut self, node: usize) -> Result<(), String> {
        // Only now do the others notice: what was on its way when it crashed still arrived.
        self.disconnect_all(node);
        self.note(|| format!("{node} starts"));
        self.set_clock(node);
        let disk = std::mem::take(&mut self.nodes[node].disk);
        let boot = self.rng.next_u64();
        let settings = self.settings(boot);
        let replica = Replica::open(disk, settings, self.nodes[node].id);
        let mut replica =
            replica.map_err(|error| format!("node {node} does not open after a crash: {error}"))?;
        self.oracle.started(node, &replica)?;
        self.oracle.check_covered(&replica)?;
        if node > 0 || self.nodes[node].incarnation > 0 {
            replica.join(self.record(node));
        }
        self.nodes[node].replica = Some(replica);
        self.check_always()
    }

    pub(super) fn connect_all(&mut self, node: usize) -> Result<(), String> {
        for other in 0..self.nodes.len() {
            self.connect(node, other)?;
        }
        self.drive(node, true)
    }

    /// Sets a clock as well as this cluster's clocks are.
    fn set_clock(&mut self, node: usize) {
        let skew_ms = self.scenario.skew_ms;
        self.nodes[node].clock_off_ms = self.rng.below(2 * skew_ms + 1) as i64 - skew_ms as i64;
    }

    pub(super) fn disconnect_all(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.disconnect(node, other);
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) -> bool {
        let was_up = self.network.disconnect(a, b);
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

    pub(super) fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let both_up = self.nodes[a].replica.is_some() && self.nodes[b].replica.is_some();
        if !both_up || self.nodes[a].id == self.nodes[b].id || self.network.link(a, b).is_some() {
            return Ok(());
        }
        self.displace(a, b);
        self.displace(b, a);
        if !self.network.connect(a, b, self.now_us) {
            return Ok(());
        }
        for (node, peer) in [(a, b), (b, a)] {
            let (now, peer) = (self.now(node), self.nodes[peer].id);
            if let Some(replica) = &mut self.nodes[node].replica {
                replica.handle_connected(now, peer);
            }
            self.drive(node, true)?;
        }
        Ok(())
    }

    /// Of two links to one identity the later stays; who lost its link dials again.
    fn displace(&mut self, at: usize, newcomer: usize) {
        let id = self.nodes[newcomer].id;
        for other in (0..self.nodes.len()).filter(|other| *other != newcomer) {
            if self.nodes[other].id == id && self.disconnect(at, other) {
                self.after(REDIAL_US, Happening::Reconnect { a: at, b: other });
            }
        }
    }

    /// Ends all faults: everyone is up, every link works, clocks are right again.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.note(|| "faults stop".into());
        self.faulty = false;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.set_clock(node);
            self.restart(node)?;
            for other in 0..node {
                self.connect(node, other)?;
            }
            self.drive(node, true)?;
        }
        self.see_to_members()
    }
}
