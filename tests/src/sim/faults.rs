//! What goes wrong in a simulation: crashes, broken, silent and slow links, partitions, clocks that jump.

use replication::Replica;

use super::{Happening, Simulation, amnesia, oracle};

impl Simulation {
    /// One fault of the kinds the scenario has.
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let next_us = self.rng.below(2 * self.scenario.fault_every_us);
        self.after(next_us, Happening::Fault);
        let weights = self.scenario.faults;
        let kinds: [(u64, fn(&mut Self) -> Result<(), String>); 6] = [
            (weights.crash, Self::crash_one),
            (weights.cut, Self::cut_link),
            (weights.one_way, Self::mute_direction),
            (weights.partition, Self::partition),
            (weights.throttle, Self::throttle_direction),
            (weights.clock_jump, Self::jump_clock),
        ];
        let mut drawn = self.rng.below(kinds.iter().map(|(weight, _)| weight).sum::<u64>().max(1));
        for (weight, fault) in kinds {
            if drawn < weight {
                return fault(self);
            }
            drawn -= weight;
        }
        Ok(())
    }

    fn crash_one(&mut self) -> Result<(), String> {
        let node = self.any_node();
        self.crash(node)
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

    /// Cuts a group of nodes off from the others. Half of the time nobody is told: links stay up and carry nothing.
    fn partition(&mut self) -> Result<(), String> {
        let sides: Vec<bool> = self.nodes.iter().map(|_| self.rng.permille(500)).collect();
        let lasts_us = self.rng.below(self.scenario.partition_us);
        let until_us = self.now_us + lasts_us;
        let is_silent = self.rng.permille(500);
        self.note(|| format!("partition {sides:?} until {:.3} s, silent: {is_silent}", until_us as f64 / 1e6));
        for a in 0..sides.len() {
            for b in (0..a).filter(|b| sides[*b] != sides[a]) {
                if is_silent {
                    self.network.mute(a, b, until_us);
                    self.network.mute(b, a, until_us);
                } else {
                    self.disconnect(a, b);
                    self.network.wall(a, b, until_us);
                    self.after(lasts_us, Happening::Reconnect { a, b });
                }
            }
        }
        Ok(())
    }

    fn jump_clock(&mut self) -> Result<(), String> {
        let node = self.any_node();
        let jump_ms = self.scenario.jump_ms;
        let off_ms = self.rng.below(2 * jump_ms + 1) as i64 - jump_ms as i64;
        self.note(|| format!("the clock of {node} jumps to {off_ms} ms off"));
        self.nodes[node].clock_off_ms = off_ms;
        Ok(())
    }

    /// Takes the power from a node. Of the batches that were not flushed, the first few may survive.
    pub(super) fn crash(&mut self, node: usize) -> Result<(), String> {
        let Some(replica) = self.nodes[node].replica.take() else { return Ok(()) };
        self.note(|| format!("{node} crashes"));
        self.outcome.crashes += 1;
        self.outcome.repaired += replica.counters().repaired;
        self.sessions.end(node);
        let mut disk = replica.into_store();
        let kept = self.rng.below(disk.memory.unflushed() as u64 + 1) as usize;
        disk.memory.crash(kept);
        self.nodes[node].disk = disk;
        for (dot, id, body) in std::mem::take(&mut self.nodes[node].staged) {
            self.oracle.crashed(dot, id, body);
        }
        // Once: two that forget the same would be a true loss.
        if self.scenario.amnesia && !self.forgot && self.rng.permille(300) {
            self.forget(node)?;
        }
        let down_us = self.rng.below(self.scenario.down_us);
        self.after(down_us, Happening::Restart { node });
        Ok(())
    }

    fn forget(&mut self, node: usize) -> Result<(), String> {
        let others: Vec<_> = self.replicas().map(oracle::entries).collect::<Result<_, _>>()?;
        let elsewhere =
            |id: &_, dot| others.iter().any(|held| held.get(id).is_some_and(|(at, _)| *at >= dot));
        let settings = self.settings();
        let disk = &mut self.nodes[node].disk.memory;
        let forgotten = amnesia::forget(disk, &settings.digest_key, &mut self.rng, &elsewhere);
        self.forgot = forgotten > 0;
        self.note(|| format!("{node} forgets {forgotten} entries"));
        Ok(())
    }

    /// Starts a node that is down, with its clock set anew.
    pub(super) fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].replica.is_some() {
            return Ok(());
        }
        // Only now do the others notice: what was on its way when it crashed still arrived.
        for other in 0..self.nodes.len() {
            self.disconnect(node, other);
        }
        self.note(|| format!("{node} starts"));
        self.set_clock(node);
        let disk = std::mem::take(&mut self.nodes[node].disk);
        let replica = Replica::open(disk, self.settings(), self.nodes[node].id);
        let replica = replica.map_err(|error| format!("node {node} does not open after a crash: {error}"))?;
        self.oracle.started(&replica)?;
        self.nodes[node].replica = Some(replica);
        self.check_always()?;
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
        if !both_up || !self.network.connect(a, b, self.now_us) {
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
        Ok(())
    }
}
