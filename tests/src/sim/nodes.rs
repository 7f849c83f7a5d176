//! The nodes of a simulation: what a driver owes its replica, and the clients that write and read there.

use bytes::Bytes;
use replication::codec::message::Message;
use replication::link::MAX_FRAME_BYTES;
use replication::replica::{Event, WriteError};
use replication::{Body, Dot, EntryId, Lane, NamespaceId, Payload, Replica, ReplicaId, Value};

use super::disk::Disk;
use super::{EPOCH_MS, Happening, Simulation, oracle};
use crate::random::mix;

/// How long a lane without room stays so.
const BUSY_US: u64 = 10_000;

/// Frames a lane takes at once.
const FRAMES_AT_ONCE: usize = 2;

/// The most events that may wait for a driver: one of each kind, and of some kinds one for each peer.
const MAX_EVENTS: usize = 64;

/// Of 1,000 writes, how many are committed with their group at once.
const FLUSHED_AT_ONCE_PERMILLE: u64 = 700;

/// One node: a disk, a clock, and a replica while it is up.
pub(super) struct Node {
    pub(super) id: ReplicaId,
    /// Its wall clock less the true time.
    pub(super) clock_off_ms: i64,
    /// None while it is down.
    pub(super) replica: Option<Replica<Disk>>,
    pub(super) disk: Disk,
    pub(super) wake_us: u64,
    /// Writes staged and not yet acknowledged.
    pub(super) staged: Vec<(Dot, EntryId, Body)>,
}

impl Node {
    pub(super) fn new(number: usize) -> Self {
        Self {
            id: ReplicaId([number as u8 + 1; 16]),
            clock_off_ms: 0,
            replica: None,
            disk: Disk::default(),
            wake_us: u64::MAX,
            staged: Vec::new(),
        }
    }
}

impl Simulation {
    pub(super) fn write(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let pause_us = self.rng.below(2 * self.scenario.write_every_us);
        self.after(pause_us, Happening::Write);
        let reader = self.any_node();
        let read = self.any_entry();
        self.read(reader, &read)?;
        let node = self.any_node();
        let (id, body) = (self.any_entry(), self.any_body(node));
        let now = self.now(node);
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        let seen = oracle::entry(replica, &id)?;
        let dot = match replica.write(now, id.clone(), body.clone()) {
            Ok(dot) => dot,
            Err(WriteError::ClockSkew { .. } | WriteError::ClockBehind { .. })
                if self.scenario.clocks_may_seem_off() =>
            {
                self.outcome.refused += 1;
                return Ok(());
            }
            Err(error) => return Err(format!("a write failed: {error}")),
        };
        self.note(|| format!("{node} writes {:?} by {dot:?}", id.key));
        // Who writes after having seen a state means to replace it.
        if let Some((before, _)) = seen.filter(|(before, _)| *before >= dot) {
            return Err(format!(
                "{dot:?} on {:?} would lose to {before:?}, which its writer had seen",
                id.key
            ));
        }
        self.nodes[node].staged.push((dot, id, body));
        // Sometimes the group is committed later, so that a crash finds it unflushed.
        let at_once = self.rng.permille(FLUSHED_AT_ONCE_PERMILLE);
        self.drive(node, at_once)?;
        if !at_once && self.rng.permille(self.scenario.crash_unflushed_permille) {
            self.crash(node)?;
        }
        Ok(())
    }

    fn read(&mut self, node: usize, id: &EntryId) -> Result<(), String> {
        let Some(replica) = &self.nodes[node].replica else { return Ok(()) };
        let shown = oracle::entry(replica, id)?.map(|(dot, _)| dot);
        match self.forgot {
            // Who forgets what it held breaks every promise, until anti-entropy has mended it.
            true => Ok(()),
            false => self.sessions.read(node, id, shown),
        }
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    fn any_entry(&mut self) -> EntryId {
        EntryId::value(NamespaceId([9; 16]), format!("key-{}", self.rng.below(self.scenario.keys)))
    }

    fn any_body(&mut self, node: usize) -> Body {
        if self.rng.permille(self.scenario.delete_permille) {
            return Body::Tombstone;
        }
        let text = format!("value {} of node {node}", self.next);
        let expires = self.rng.permille(self.scenario.expire_permille);
        let expires_at_s = expires.then_some(EPOCH_MS / 1000 + 5);
        Body::Value(Value { payload: Payload::Inline(Bytes::from(text)), metadata: None, expires_at_s })
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, frame: &Bytes) -> Result<(), String> {
        self.outcome.delivered += 1;
        self.outcome.trace = mix(self.outcome.trace ^ frame.iter().fold(7, |h, b| mix(h ^ u64::from(*b))));
        let message =
            Message::from_frame(frame).map_err(|why| format!("a replica sent a bad frame: {why}"))?;
        self.note(|| format!("{from} -> {to} {message:?}"));
        let (now, peer) = (self.now(to), self.nodes[from].id);
        let Some(replica) = &mut self.nodes[to].replica else { return Ok(()) };
        replica
            .handle_message(now, peer, message)
            .map_err(|error| format!("a message was refused: {error}"))?;
        self.drive(to, true)
    }

    /// What a driver owes its replica; see [`Replica`].
    pub(super) fn drive(&mut self, node: usize, flush: bool) -> Result<(), String> {
        let now = self.now(node);
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
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
        let mut events = Vec::new();
        while let Some(event) = replica.poll_event() {
            events.push(event);
        }
        if flush {
            for (dot, id, body) in self.nodes[node].staged.drain(..) {
                self.sessions.wrote(node, &id, dot);
                self.oracle.acknowledge(dot, id, body)?;
                self.outcome.acknowledged += 1;
            }
        }
        self.answer(node, &events)?;
        self.transmit(node)?;
        self.sleep(node);
        Ok(())
    }

    fn answer(&mut self, node: usize, events: &[Event]) -> Result<(), String> {
        if events.len() > MAX_EVENTS {
            return Err(format!("{} events waited for the driver of node {node}", events.len()));
        }
        match events.iter().find(|event| matches!(event, Event::OlderCopy { .. })) {
            Some(_) => Err(format!("node {node} was called an older copy of itself")),
            None => Ok(()),
        }
    }

    fn transmit(&mut self, node: usize) -> Result<(), String> {
        let now = self.now(node);
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let Some(link) = self.network.link(node, to) else { continue };
            let peer = self.nodes[to].id;
            for lane in Lane::ALL {
                if self.rng.permille(self.scenario.busy_permille) {
                    self.wake_after(node, BUSY_US);
                    continue;
                }
                for _ in 0..FRAMES_AT_ONCE {
                    let busy_us = self.network.busy_us(node, to, self.now_us);
                    if busy_us > 0 {
                        self.wake_after(node, busy_us);
                        break;
                    }
                    let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
                    let frame = replica
                        .poll_transmit(now, peer, lane, self.scenario.frame_bytes)
                        .map_err(|error| format!("node {node} cannot send: {error}"))?;
                    let Some(frame) = frame else { break };
                    self.send(node, to, lane, link, &frame)?;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, lane: Lane, link: u64, frame: &Bytes) -> Result<(), String> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(format!("node {from} sent a frame of {} bytes", frame.len()));
        }
        let delays = self.network.send(
            (from, to, lane),
            frame.len(),
            self.now_us,
            self.faulty,
            (&self.scenario, &mut self.rng),
        );
        for delay_us in delays {
            self.after(delay_us, Happening::Deliver { from, to, link, frame: frame.clone() });
        }
        Ok(())
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
}
