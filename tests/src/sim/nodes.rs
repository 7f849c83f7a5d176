//! The nodes of a simulation: what a driver owes its replica, and the clients that write and read there.

use bytes::Bytes;
use replication::codec::message::Message;
use replication::codec::message::Stage;
use replication::entry::CHUNK_BYTES;
use replication::link::MAX_FRAME_BYTES;
use replication::replica::WriteError;
use replication::{Body, ChunkId, Dot, EntryId, Lane, Manifest, Payload, Replica, ReplicaId, Value};

use super::changes::CHANGES_PERMILLE;
use super::disk::Disk;
use super::oracle::NAMESPACE;
use super::{Happening, Simulation, rows};
use crate::random::mix;

/// How long a lane without room stays so.
const BUSY_US: u64 = 10_000;

/// Frames a lane takes at once.
const FRAMES_AT_ONCE: usize = 2;

/// The most events that may wait for a driver: one of each kind, of some kinds one for each peer, and a slice of
/// returned states.
const MAX_EVENTS: usize = 200;

/// One value in so many is large: of chunks.
const CHUNKED_EVERY: u64 = 4;

/// There are so many chunks, so that values share them.
const CHUNKS: u64 = 12;

/// The longest that a value lives which has an expiry.
const MAX_TTL_S: u64 = 5;

/// Of 1,000 writes, how many are committed with their group at once.
const FLUSHED_AT_ONCE_PERMILLE: u64 = 700;

/// One node: a disk, a clock, and a replica while it is up.
pub(super) struct Node {
    pub(super) id: ReplicaId,
    /// The PoP it says it is at.
    pub(super) pop: String,
    /// Its wall clock less the true time.
    pub(super) clock_off_ms: i64,
    /// None while it is down.
    pub(super) replica: Option<Replica<Disk>>,
    pub(super) disk: Disk,
    pub(super) wake_us: u64,
    /// Writes staged and not yet acknowledged.
    pub(super) staged: Vec<(Dot, EntryId, Body)>,
    /// A copy of its disk, put aside.
    pub(super) backup: Option<Disk>,
    /// How many times it was made anew.
    pub(super) incarnation: u8,
    /// It has stopped for good: it must be made anew, or stays out.
    pub(super) is_out: bool,
    /// The operator has had it removed, whether it knows or not.
    pub(super) is_ordered_out: bool,
}

impl Node {
    pub(super) fn new(number: usize) -> Self {
        Self {
            id: Self::name(number, 0),
            pop: format!("pop-{number}"),
            clock_off_ms: 0,
            replica: None,
            disk: Disk::default(),
            wake_us: u64::MAX,
            staged: Vec::new(),
            backup: None,
            incarnation: 0,
            is_out: false,
            is_ordered_out: false,
        }
    }

    /// The identity of one of its incarnations.
    pub(super) fn name(number: usize, incarnation: u8) -> ReplicaId {
        let mut id = [number as u8 + 1; 16];
        id[1] += 0x10 * incarnation;
        ReplicaId(id)
    }

    /// A copy of what its disk would hold after a power cut now.
    pub(super) fn durable_copy(&self) -> Option<Disk> {
        let mut copy = self.replica.as_ref()?.store().clone();
        copy.memory_mut().crash(0);
        Some(copy)
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
        // Nothing is drawn where there are no batches.
        if self.scenario.batches_permille > 0 && self.rng.permille(self.scenario.batches_permille) {
            let is_batch = self.rng.permille(800);
            return if is_batch { self.write_batch() } else { self.count_beside_batches() };
        }
        if self.rng.permille(CHANGES_PERMILLE) {
            return self.change();
        }
        let node = self.any_node();
        let now = self.now(node);
        let (id, body) = (self.any_entry(), self.any_body(node, now.wall_ms / 1000));
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
        let seen = rows::shown(replica, &id)?;
        let over = replica.shown_entry(&id).map_err(|error| error.to_string())?.map(|entry| entry.dot);
        let held = replica.shown();
        let dot = match replica.write(now, id.clone(), body.clone()) {
            Ok(dot) => dot,
            Err(error) => return self.refused(&error),
        };
        self.note(|| format!("{node} writes {:?} by {dot:?}", id.key));
        // Who writes after having seen a state means to replace it.
        if let Some((before, _)) = seen.filter(|(before, _)| *before >= dot) {
            return Err(format!(
                "{dot:?} on {:?} would lose to {before:?}, which its writer had seen",
                id.key
            ));
        }
        self.oracle.writes_over(dot, over, held);
        self.nodes[node].staged.push((dot, id, body));
        self.drive_or_crash(node)
    }

    /// Drives a node where something was staged. Sometimes the group is committed later, so that a crash finds it unflushed.
    pub(super) fn drive_or_crash(&mut self, node: usize) -> Result<(), String> {
        let at_once = self.rng.permille(FLUSHED_AT_ONCE_PERMILLE);
        self.drive(node, at_once)?;
        if !at_once && self.rng.permille(self.scenario.crash_unflushed_permille) {
            self.crash(node)?;
        }
        Ok(())
    }

    /// A write was refused.
    ///
    /// # Errors
    /// Where nothing has happened that would call for it.
    pub(super) fn refused(&mut self, error: &WriteError) -> Result<(), String> {
        match error {
            WriteError::ClockSkew { .. } | WriteError::ClockBehind { .. }
                if self.scenario.clocks_may_seem_off() =>
            {
                self.outcome.refused += 1;
                Ok(())
            }
            WriteError::NotMember | WriteError::Draining => {
                self.outcome.turned_away += 1;
                Ok(())
            }
            error => Err(format!("a write failed: {error}")),
        }
    }

    fn read(&mut self, node: usize, id: &EntryId) -> Result<(), String> {
        let Some(replica) = &self.nodes[node].replica else { return Ok(()) };
        // Who forgets what it held breaks every promise, until anti-entropy has mended it.
        if replica.stage() != Stage::Member || self.forgot {
            return Ok(());
        }
        let shown = rows::shown(replica, id)?.map(|(dot, _)| dot);
        self.sessions.read(node, id, shown, |seen| self.oracle.may_be_gone(id, seen, replica))
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.rng.below(self.nodes.len() as u64) as usize
    }

    fn any_entry(&mut self) -> EntryId {
        EntryId::value(NAMESPACE, format!("key-{}", self.rng.below(self.scenario.keys)))
    }

    fn any_body(&mut self, node: usize, now_s: u64) -> Body {
        if self.rng.permille(self.scenario.delete_permille) {
            return Body::Tombstone;
        }
        let text = format!("value {} of node {node}", self.next);
        let expires = self.rng.permille(self.scenario.expire_permille);
        let expires_at_s = expires.then(|| now_s + 1 + self.rng.below(MAX_TTL_S));
        // Some are large: of chunks of which others name some too.
        let payload = match self.next % CHUNKED_EVERY {
            0 => Payload::Chunked(shared_chunks(self.next / CHUNKED_EVERY)),
            _ => Payload::Inline(Bytes::from(text)),
        };
        Body::Value(Value { payload, metadata: None, expires_at_s })
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, frame: &Bytes) -> Result<(), String> {
        self.outcome.delivered += 1;
        self.outcome.trace = mix(self.outcome.trace ^ frame.iter().fold(7, |h, b| mix(h ^ u64::from(*b))));
        let message =
            Message::from_frame(frame).map_err(|why| format!("a replica sent a bad frame: {why}"))?;
        self.outcome.frames.note(&message, frame);
        self.note_crossing(from, to, &message);
        self.note(|| format!("{from} -> {to} {message:?}"));
        let (now, peer) = (self.now(to), self.nodes[from].id);
        let (me, meetings) = (self.nodes[to].id, self.meetings(to, peer, &message));
        let Some(replica) = &mut self.nodes[to].replica else { return Ok(()) };
        replica
            .handle_message(now, peer, message)
            .map_err(|error| format!("a message was refused: {error}"))?;
        self.drive(to, true)?;
        self.check_meetings(to, me, meetings)
    }

    /// What a driver owes its replica; see [`Replica`].
    pub(super) fn drive(&mut self, node: usize, flush: bool) -> Result<(), String> {
        let now = self.now(node);
        let fail = |error| format!("node {node} failed: {error}");
        // Events first: one may tell that nothing can be flushed any more.
        if self.answer_events(node)? {
            return Ok(());
        }
        let Some(replica) = &mut self.nodes[node].replica else { return Ok(()) };
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
        if self.answer_events(node)? {
            return Ok(());
        }
        if flush {
            for (dot, id, body) in std::mem::take(&mut self.nodes[node].staged) {
                self.sessions.wrote(node, &id, dot);
                self.outcome.acknowledged += u64::from(id.namespace == NAMESPACE);
                self.oracle.acknowledge(dot, id, body)?;
            }
        }
        self.check_bounded(&self.nodes[node])?;
        self.check_batches(&self.nodes[node])?;
        self.transmit(node)?;
        self.sleep(node);
        Ok(())
    }

    /// Gives whether the replica is down now.
    fn answer_events(&mut self, node: usize) -> Result<bool, String> {
        for _ in 0..MAX_EVENTS {
            let event = self.nodes[node].replica.as_mut().and_then(Replica::poll_event);
            let Some(event) = event else { return Ok(self.nodes[node].replica.is_none()) };
            if self.answer(node, event)? {
                return Ok(true);
            }
        }
        Err(format!("more than {MAX_EVENTS} events waited for the driver of node {node}"))
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
        self.wake_after(node, due_us.saturating_sub(self.now_us + self.skipped_us).max(1_000));
    }

    fn wake_after(&mut self, node: usize, delay_us: u64) {
        let wake_us = self.now_us + delay_us;
        if wake_us < self.nodes[node].wake_us {
            self.nodes[node].wake_us = wake_us;
            self.after(delay_us, Happening::Wake { node });
        }
    }
}

/// The chunks of the large value of this number: up to three of a few that there are, perhaps one twice.
fn shared_chunks(number: u64) -> Manifest {
    let count = 1 + number % 3;
    let name = |index| ChunkId([(mix(number * 3 + index) % CHUNKS) as u8; 32]);
    Manifest { len: count * CHUNK_BYTES as u64 - 1, chunks: (0..count).map(name).collect() }
}
