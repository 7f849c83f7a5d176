//! Who comes and goes in a simulation: what an operator does, and how a node is made anew.

use replication::codec::message::Stage;
use replication::replica::{Event, WriteError, returned};
use replication::{RemovalReason, Replica, ReplicaId};

use super::disk::Disk;
use super::nodes::Node;
use super::scenario::{Fault, WEEK_MS};
use super::{Happening, Simulation, rows};

/// The most nodes a cluster grows to.
const MAX_NODES: usize = 7;

/// The least members that a removal or a second life may leave alone.
const MIN_MEMBERS: usize = 2;

/// How long an operator takes to notice that a node has stopped.
const OPERATOR_US: u64 = 400_000;

/// How often an operator looks at the members, once there are no faults.
const SEEN_TO_EVERY_US: u64 = 300_000;

impl Simulation {
    fn members_up(&self) -> Vec<usize> {
        let is_in = |node: &usize| {
            self.nodes[*node].replica.as_ref().is_some_and(|replica| replica.stage() == Stage::Member)
        };
        (0..self.nodes.len()).filter(is_in).collect()
    }

    /// A member that is up, where enough others are.
    fn any_member(&mut self) -> Option<usize> {
        let members = self.members_up();
        (members.len() > MIN_MEMBERS).then(|| *self.rng.pick(&members))
    }

    pub(super) fn add_node(&mut self) -> Result<(), String> {
        if self.nodes.len() >= MAX_NODES {
            return Ok(());
        }
        self.nodes.push(Node::new(self.nodes.len()));
        self.restart(self.nodes.len() - 1)
    }

    pub(super) fn remove_member(&mut self) -> Result<(), String> {
        let (Some(actor), Some(target)) = (self.any_member(), self.any_member()) else { return Ok(()) };
        if actor == target {
            return Ok(());
        }
        let id = self.nodes[target].id;
        if !self.is_quorum_at(actor) || self.nodes[actor].is_ordered_out {
            return Ok(());
        }
        self.nodes[target].is_ordered_out = true;
        self.note(|| format!("the operator removes {target} ({id:?}) at {actor}"));
        self.operate(actor, |replica, now| replica.remove_member(now, id, RemovalReason::Operator).map(drop))
    }

    /// Whether most members are here: where they are not, an operator does not insist, as long as the others may be up.
    /// Nor does one have a node remove others that is itself to go.
    fn is_quorum_at(&self, node: usize) -> bool {
        self.nodes[node].replica.as_ref().is_some_and(|replica| replica.quorum().is_met())
    }

    pub(super) fn drain_member(&mut self) -> Result<(), String> {
        let (Some(actor), Some(target)) = (self.any_member(), self.any_member()) else { return Ok(()) };
        let (id, draining) = (self.nodes[target].id, self.rng.permille(500));
        self.note(|| format!("the operator sets draining of {target} to {draining}"));
        self.operate(actor, |replica, now| replica.drain_member(now, id, draining).map(drop))
    }

    fn operate(
        &mut self,
        actor: usize,
        act: impl FnOnce(&mut Replica<Disk>, replication::Now) -> Result<(), WriteError>,
    ) -> Result<(), String> {
        let now = self.now(actor);
        let Some(replica) = &mut self.nodes[actor].replica else { return Ok(()) };
        match act(replica, now) {
            Ok(()) => self.drive(actor, true),
            Err(error) => self.refused(&error),
        }
    }

    /// What an operator sees to once there are no faults: all draining is ended, since a draining member refuses writes,
    /// those that return too; and who was removed and is still on the list, because the order was lost with the member
    /// that took it, is removed again.
    pub(super) fn see_to_members(&mut self) -> Result<(), String> {
        self.after(SEEN_TO_EVERY_US, Happening::SeeToMembers);
        let members = self.members_up();
        let Some(actor) = members.first().copied() else { return Ok(()) };
        let replica = self.nodes[actor].replica.as_ref().ok_or("it is up")?;
        let draining: Vec<ReplicaId> =
            replica.members().current().filter(|(_, member)| member.draining).map(|(id, _)| id).collect();
        let gone: Vec<ReplicaId> = (0..self.nodes.len())
            .filter(|node| self.is_out_for_good(*node))
            .map(|node| self.nodes[node].id)
            .filter(|id| replica.members().contains(*id))
            .collect();
        for id in draining {
            self.operate(actor, |replica, now| replica.drain_member(now, id, false).map(drop))?;
        }
        for id in gone {
            self.operate(actor, |replica, now| {
                replica.remove_member(now, id, RemovalReason::Operator).map(drop)
            })?;
        }
        Ok(())
    }

    /// Whether this node has stopped and will not be made anew.
    pub(super) fn is_out_for_good(&self, node: usize) -> bool {
        let is_made_anew =
            |happening: &Happening| matches!(happening, Happening::Rebuild { node: at } if *at == node);
        self.nodes[node].is_out && !self.happenings.values().any(is_made_anew)
    }

    /// Whether enough members with one history are up beside this one. Where all disks are rolled back, there is no
    /// cluster left to come back to.
    fn is_spare(&self, node: usize) -> bool {
        let members = self.members_up().into_iter();
        let sound = members.filter(|other| *other != node && !self.oracle.doubts(self.nodes[*other].id));
        sound.count() >= MIN_MEMBERS
    }

    /// Puts a copy of a disk aside; or starts the node from the copy there is.
    pub(super) fn back_up_or_restore(&mut self) -> Result<(), String> {
        let Some(node) = self.any_member() else { return Ok(()) };
        let is_spare = self.is_spare(node);
        let backup = self.nodes[node].backup.take_if(|_| is_spare && self.rng.permille(600));
        let Some(backup) = backup else {
            self.note(|| format!("the disk of {node} is backed up"));
            self.nodes[node].backup = self.nodes[node].durable_copy();
            return Ok(());
        };
        self.note(|| format!("{node} is restored"));
        self.note_claims();
        self.take_down(node);
        self.oracle.rolled_back_to(self.nodes[node].id, &rows::claims(&backup)?);
        self.sessions.forget(node);
        self.nodes[node].disk = backup;
        let down_us = self.rng.below(self.scenario.down_us);
        self.after(down_us, Happening::Restart { node });
        Ok(())
    }

    pub(super) fn clone_node(&mut self) -> Result<(), String> {
        let Some(node) = self.any_member() else { return Ok(()) };
        if self.nodes.len() >= MAX_NODES || !self.is_spare(node) {
            return Ok(());
        }
        let Some(disk) = self.nodes[node].durable_copy() else { return Ok(()) };
        let id = self.nodes[node].id;
        let clone = self.nodes.len();
        self.note(|| format!("{clone} is started from a copy of the disk of {node}"));
        self.oracle.doubt(id);
        let pop = self.nodes[node].pop.clone();
        self.nodes.push(Node { id, disk, pop, ..Node::new(clone) });
        self.restart(clone)
    }

    /// A node will be cut off, and in the middle of it a week goes by.
    pub(super) fn send_away(&mut self) -> Result<(), String> {
        let lasts_us = self.scenario.cut_us;
        let node = self.any_node();
        self.isolate(node, lasts_us)?;
        let skip_us = self.rng.below(lasts_us);
        self.after(skip_us, Happening::Skip);
        Ok(())
    }

    pub(super) fn skip_a_week(&mut self) {
        self.note(|| "a week goes by".into());
        self.skipped_us += WEEK_MS * 1000;
    }

    /// What the node's driver does on an event of its replica. Gives whether the replica is down now.
    ///
    /// # Errors
    /// Where nothing has happened that would call for it.
    pub(super) fn answer(&mut self, node: usize, event: Event) -> Result<bool, String> {
        let id = self.nodes[node].id;
        let (is_expected, delay_us) = match &event {
            Event::Recorded { dot, id, body } => {
                self.nodes[node].staged.push((*dot, id.clone(), body.clone()));
                return Ok(false);
            }
            Event::WrittenAnew { old, new, id, body } => {
                self.note(|| format!("{node} writes {old:?} anew as {new:?}"));
                self.oracle.was_written_anew(*old, *new, id, body)?;
                self.nodes[node].staged.push((*new, id.clone(), body.clone()));
                return Ok(false);
            }
            Event::OlderCopy { .. } | Event::Cloned { .. } => (self.oracle.doubts(id), OPERATOR_US),
            // Who was removed may hear of the epoch first, and who is not in yet may be passed by one.
            Event::Behind { .. } => {
                self.note_claims();
                let replica = self.nodes[node].replica.as_ref();
                let is_coming_in = replica.is_some_and(|replica| replica.stage() == Stage::CatchingUp);
                let is_known = !self.oracle.was_removed(id) && !self.oracle.was_let_in_by_a_removed_one(id);
                (is_coming_in || self.oracle.doubts(id) || !is_known, OPERATOR_US)
            }
            Event::Removed { reason: RemovalReason::Silent } => (self.scenario.evicts(), 1_000),
            Event::Removed { reason: RemovalReason::Operator } => {
                (self.scenario.has(Fault::Remove), 4 * OPERATOR_US)
            }
            Event::Removed { reason: RemovalReason::Replaced } => (self.oracle.doubts(id), OPERATOR_US),
            _ => return Ok(false),
        };
        self.note(|| format!("{node} stops: {event:?}"));
        if !is_expected {
            return Err(format!("node {node} ({id:?}) has no reason for {event:?}"));
        }
        self.take_down(node);
        self.nodes[node].is_out = true;
        if matches!(event, Event::Removed { reason: RemovalReason::Operator }) && self.rng.permille(300) {
            self.disconnect_all(node);
            return Ok(true);
        }
        let delay_us = self.rng.below(2 * delay_us);
        self.after(delay_us, Happening::Rebuild { node });
        Ok(true)
    }

    /// Makes a stopped node anew: a new identity and an empty store, and what its old store alone may hold.
    pub(super) fn rebuild(&mut self, node: usize) -> Result<(), String> {
        if !std::mem::take(&mut self.nodes[node].is_out) {
            return Ok(());
        }
        self.outcome.rebuilt += 1;
        let old = Replica::open(self.nodes[node].disk.clone(), self.settings(0), self.nodes[node].id);
        self.oracle.check_covered(&old.map_err(|error| format!("{node} does not open: {error}"))?)?;
        let mut states = Vec::new();
        let salvaged = returned::salvage(&self.nodes[node].disk, &mut |state| {
            states.push(state);
            Ok(())
        });
        salvaged.map_err(|error| format!("nothing can be salvaged: {error}"))?;
        // The others notice the end of the old incarnation before they hear of the new one.
        self.disconnect_all(node);
        let old = self.nodes[node].id;
        let has_twin = self.nodes.iter().filter(|other| other.id == old).count() > 1;
        let made = &mut self.nodes[node];
        made.incarnation += 1;
        made.is_ordered_out = false;
        if has_twin {
            // Of two clones the last to be made anew takes the place that both had.
            made.pop = format!("pop-{node}-{}", made.incarnation);
        }
        made.id = Node::name(node, made.incarnation);
        (made.disk, made.backup) = (Disk::default(), None);
        self.note(|| format!("{node} is made anew, with {} salvaged states", states.len()));
        self.sessions.forget(node);
        self.open(node)?;
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        let kept: Result<(), _> = states.iter().try_for_each(|state| replica.keep_returned(state));
        kept.and_then(|()| replica.flush()).map_err(|error| format!("states cannot be kept: {error}"))?;
        self.connect_all(node)
    }
}
