//! The engine's thread: drives the replica in the order its documentation demands.
//!
//! One turn: take what waits, stage it, commit, flush, acknowledge, then send. So nothing is acknowledged as
//! durable, and nothing leaves for a peer, before it is on this disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use littoral::api::State;
use replication::codec::message::{Message, Stage};
use replication::codec::round::{Round, Step};
use replication::replica::batch::{BatchError, BatchWrite};
use replication::replica::{CLOCK_SKEW_LIMIT_MS, MAX_AHEAD_MS, MessageError, WriteError as CoreError};
use replication::{Dot, Lane, MemberRecord, Now, Replica, ReplicaId};
use replication::{StoreError, VersionVector};
use tokio::sync::mpsc;

use super::forecast::Forecasts;
use super::inbox::{Command, Reply};
use super::members::Answer;
use super::precondition::{Undecided, decide};
use super::reach::Publisher;
use super::{Ack, ChunkNews, Condition, REMEDY, Settings, Shared, StorageQuota, Write, WriteError, report};
use crate::storage::{Checkpoint, SledStore, free_bytes};
use crate::transport::LinkSender;

mod events;

/// The most writes that share one flush: bounds how long the first of them waits.
const MAX_GROUP_WRITES: usize = 1_024;

/// The longest the thread sleeps without looking at the clock.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// How often a changed store leaves a checkpoint. What damage takes away of the writes since the last one goes
/// unnoticed when the node was killed, so this is short.
const CHECKPOINT_EVERY_US: u64 = 1_000_000;

/// How often free space is looked up.
const FREE_SPACE_EVERY_US: u64 = 200_000;

/// What a peer is told of the end of its link to a node that must not gossip.
const QUARANTINED: &str = "this node's store is quarantined";

/// Starts the thread.
pub(super) fn spawn(
    shared: Arc<Shared>,
    settings: Settings,
    replica: Option<Replica<SledStore>>,
    chunk_news: mpsc::Sender<ChunkNews>,
) -> std::io::Result<()> {
    let driver = Driver {
        shared,
        settings,
        replica,
        chunk_news,
        links: BTreeMap::new(),
        pops: BTreeMap::new(),
        forecasts: Forecasts::default(),
        unanswered: Vec::new(),
        publisher: Publisher::default(),
        checkpointed: VersionVector::default(),
        checkpoint_due_us: 0,
        clock_refuses: false,
        free_bytes: u64::MAX,
        free_bytes_due_us: 0,
    };
    std::thread::Builder::new().name("engine".into()).spawn(move || driver.run())?;
    Ok(())
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    pub(super) settings: Settings,
    /// None in quarantine.
    pub(super) replica: Option<Replica<SledStore>>,
    chunk_news: mpsc::Sender<ChunkNews>,
    pub(super) links: BTreeMap<ReplicaId, LinkSender>,
    /// The PoPs of the replicas met or read about.
    pub(super) pops: BTreeMap<ReplicaId, String>,
    /// When what peers are behind will be gone.
    pub(super) forecasts: Forecasts,
    /// Groups of this turn, with their events, or the state that they are not for.
    unanswered: Vec<(Reply, Result<Vec<Dot>, WriteError>)>,
    publisher: Publisher,
    checkpointed: VersionVector,
    checkpoint_due_us: u64,
    /// Whether writes are being refused because of the clock.
    clock_refuses: bool,
    free_bytes: u64,
    free_bytes_due_us: u64,
}

impl Driver {
    fn run(mut self) {
        self.read_pops();
        let record = self.record();
        self.with_replica(|replica| replica.join(record));
        loop {
            let mut commands = self.shared.inbox.take(self.patience()).into_iter().peekable();
            loop {
                if let Some(stopped) = self.turn(&mut commands) {
                    // Whoever waits for the end may open the store again.
                    drop((commands, self));
                    let _ = stopped.send(());
                    return;
                }
                if commands.peek().is_none() {
                    break;
                }
            }
        }
    }

    /// How long there is nothing to do, if nothing comes in.
    fn patience(&self) -> Duration {
        let due_us = self.replica.as_ref().and_then(Replica::poll_timeout);
        let now_us = self.shared.clocks.now().mono_us;
        due_us.map_or(MAX_SLEEP, |due_us| Duration::from_micros(due_us.saturating_sub(now_us)).min(MAX_SLEEP))
    }

    /// One turn. Gives whom to tell when it was the last.
    fn turn(
        &mut self,
        commands: &mut impl Iterator<Item = Command>,
    ) -> Option<tokio::sync::oneshot::Sender<()>> {
        let mut group = 0;
        let mut stop = None;
        let mut asked = Vec::new();
        let mut asks = Vec::new();
        let mut answers: Vec<Answer> = Vec::new();
        for command in commands {
            match command {
                Command::Write { quota, writes, as_one, ack, reply } => {
                    group += writes.len();
                    let staged = self.stage(quota, writes, as_one);
                    self.acknowledge(staged, ack, reply);
                }
                Command::Frame { from, frame, _place } => self.frame(from, &frame),
                Command::Connected { link, .. } if self.replica.is_none() => link.close(QUARANTINED),
                Command::Connected { peer, link } => {
                    self.pops.insert(peer.replica, peer.pop);
                    self.links.insert(peer.replica, link);
                    let now = self.shared.clocks.now();
                    self.with_replica(|replica| replica.handle_connected(now, peer.replica));
                }
                Command::Disconnected { replica } => {
                    self.links.remove(&replica);
                    self.with_replica(|core| core.handle_disconnected(replica));
                }
                Command::Status { reply } => asked.push(reply),
                Command::Ask { ask } => asks.push(ask),
                Command::Act { act } => answers.push(act(self)),
                Command::Stop { reply } => stop = Some(reply),
            }
            if group >= MAX_GROUP_WRITES || stop.is_some() {
                break;
            }
        }
        let settled = self.settle();
        if let Err(error) = &settled {
            // An event may tell why.
            self.handle_events();
            self.fail(error);
        }
        answers.into_iter().for_each(|answer| answer(settled.as_ref().err()));
        for reply in asked {
            // Whoever asked may be gone.
            let condition = self.shared.condition.load_full();
            let _ = reply.send(report::status(self, &condition));
        }
        for ask in asks {
            ask(self.replica.as_mut(), self.shared.clocks.now());
        }
        if stop.is_some() {
            self.checkpoint();
        }
        stop
    }

    fn acknowledge(&mut self, staged: Result<Vec<Dot>, WriteError>, ack: Ack, reply: Reply) {
        if staged.is_ok() && std::mem::take(&mut self.clock_refuses) {
            tracing::info!("the clock is right again; this node takes writes");
        }
        match staged {
            // That state may have been staged a moment ago: it is told of when it is durable.
            Err(WriteError::Precondition { .. }) => self.unanswered.push((reply, staged)),
            Err(error) => {
                if matches!(error, WriteError::ClockSkew { .. } | WriteError::ClockBehind { .. })
                    && !self.clock_refuses
                {
                    self.clock_refuses = true;
                    tracing::error!(%error, "this node refuses writes");
                }
                let _ = reply.send(Err(error));
            }
            Ok(dots) if ack == Ack::Buffered => {
                // Visible to readers before it is acknowledged.
                self.foresee();
                let committed = self.with_replica(|replica| replica.commit()).unwrap_or(Ok(()));
                let _ = reply.send(committed.map(|()| dots).map_err(|error| unavailable(&error)));
            }
            Ok(dots) => self.unanswered.push((reply, Ok(dots))),
        }
    }

    fn stage(
        &mut self,
        quota: StorageQuota,
        writes: Vec<Write>,
        as_one: bool,
    ) -> Result<Vec<Dot>, WriteError> {
        let now = self.shared.clocks.now();
        self.check_free_space(now.mono_us)?;
        let condition = self.shared.condition.load();
        let Some(replica) = self.replica.as_mut().filter(|_| condition.state == State::Ready) else {
            return Err(WriteError::Unavailable { reason: condition.explain() });
        };
        let writes = decide(replica, writes, now).map_err(|error| match error {
            Undecided::Refused(error) => error,
            Undecided::Store(error) => unavailable(&error),
        })?;
        if let Some(first) = writes.first().filter(|_| !quota.is_boundless()) {
            let usage = replica.usage(first.namespace());
            let outlines: Vec<_> = writes.iter().map(Write::outline).collect();
            let growth = replica.growth(&outlines).map_err(|error| unavailable(&error))?;
            quota.check(usage, growth)?;
        }
        let refused = |BatchError { index, error }| match error {
            CoreError::Change(error) => WriteError::Change { index: index.unwrap_or_default(), error },
            CoreError::Store(error) => unavailable(&error),
            CoreError::NotMember => WriteError::Unavailable { reason: condition.explain() },
            CoreError::Draining => WriteError::Draining,
            CoreError::ClockSkew { skew_ms } => {
                WriteError::ClockSkew { skew_ms, limit_ms: CLOCK_SKEW_LIMIT_MS }
            }
            CoreError::ClockBehind { behind_ms } => {
                WriteError::ClockBehind { behind_ms, limit_ms: MAX_AHEAD_MS }
            }
        };
        let mut writes = writes.into_iter().map(Write::undisguised);
        if as_one {
            return replica.write_batch(now, writes.collect()).map_err(refused);
        }
        let written = writes.try_fold(Vec::new(), |mut dots, (id, write)| {
            let written = match write {
                BatchWrite::Write(body) => replica.write(now, id, body),
                BatchWrite::Change(change) => replica.change(now, id, change),
            };
            let index = Some(dots.len());
            dots.push(written.map_err(|error| BatchError { index, error })?);
            Ok(dots)
        });
        written.map_err(refused)
    }

    fn check_free_space(&mut self, now_us: u64) -> Result<(), WriteError> {
        if now_us >= self.free_bytes_due_us {
            // Unknown is not full: the write itself will tell.
            self.free_bytes = free_bytes(&self.settings.data_folder).unwrap_or(u64::MAX);
            let reserved = self.replica.as_ref().map_or(Ok(()), |replica| replica.store().reserve_room());
            if reserved.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
                self.free_bytes = 0;
            }
            self.free_bytes_due_us = now_us + FREE_SPACE_EVERY_US;
        }
        let (free_bytes, min_free_bytes) = (self.free_bytes, self.settings.min_free_bytes);
        if free_bytes < min_free_bytes {
            Err(WriteError::DiskFull { free_bytes, min_free_bytes })
        } else {
            Ok(())
        }
    }

    fn frame(&mut self, from: ReplicaId, frame: &Bytes) {
        let now = self.shared.clocks.now();
        let message = Message::from_frame(frame).map_err(MessageError::from);
        // A full disk takes no peer's events either; they stay at the peer, and show there as lag.
        if message.as_ref().is_ok_and(brings_entries) && self.check_free_space(now.mono_us).is_err() {
            return;
        }
        let Some(replica) = &mut self.replica else { return };
        let taken = message.and_then(|message| replica.handle_message(now, from, message));
        match taken {
            Ok(()) => {}
            Err(MessageError::Store(error)) => self.fail(&error),
            Err(MessageError::Protocol { reason }) => {
                tracing::warn!(peer = %self.pop_of(from), %reason, "closing the link: the peer broke the protocol");
                if let Some(link) = self.links.get(&from) {
                    link.close(&reason);
                }
            }
        }
    }

    /// The second half of a turn: everything staged becomes durable, is acknowledged, and is sent.
    fn settle(&mut self) -> Result<(), StoreError> {
        let now = self.shared.clocks.now();
        if self.shared.condition.load().state == State::Quarantined {
            self.quarantine();
        }
        self.foresee();
        let Some(replica) = &mut self.replica else { return Ok(()) };
        replica.flush()?;
        self.shared.followed.note(replica.take_changed_documents());
        for (reply, written) in self.unanswered.drain(..) {
            // Whoever wrote may be gone; the write stands.
            let _ = reply.send(written);
        }
        if replica.poll_timeout().is_some_and(|due_us| due_us <= now.mono_us) {
            replica.handle_timeout(now)?;
            replica.flush()?;
            self.shared.followed.note(replica.take_changed_documents());
        }
        self.shared.feed.publish(replica);
        self.handle_events();
        // Who is woken by it may look at records that came with it, such as a namespace made elsewhere.
        if let Some(replica) = &self.replica {
            self.publisher.publish(&self.shared, replica);
        }
        self.transmit()?;
        self.finish_bootstrap();
        if now.mono_us >= self.checkpoint_due_us {
            self.checkpoint();
            self.checkpoint_due_us = now.mono_us + CHECKPOINT_EVERY_US;
        }
        Ok(())
    }

    /// Readers may see what is staged from now on.
    fn foresee(&mut self) {
        if let Some(replica) = &self.replica {
            self.publisher.foresee(&self.shared, replica);
        }
    }

    fn transmit(&mut self) -> Result<(), StoreError> {
        let Some(replica) = &mut self.replica else { return Ok(()) };
        for (peer, link) in &self.links {
            for lane in Lane::ALL {
                while link.has_room(lane) {
                    let now = self.shared.clocks.now();
                    match replica.poll_transmit(now, *peer, lane, link.frame_bytes())? {
                        Some(frame) => link.send(lane, frame),
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }

    /// Serving begins when this replica is a full member of its cluster.
    fn finish_bootstrap(&mut self) {
        if self.shared.condition.load().state != State::Bootstrapping {
            return;
        }
        let Some(replica) = &self.replica else { return };
        match replica.stage() {
            Stage::Member => self.shared.change(Condition::ready()),
            Stage::Fresh if self.may_found() => {
                let record = self.record();
                let now = self.shared.clocks.now();
                let founded = self.with_replica(|replica| replica.found(now, &record));
                if let Some(Err(error)) = founded {
                    tracing::warn!(%error, "the cluster could not be founded; it is tried again");
                }
                // Flushed with the next turn, which comes at once.
                self.shared.inbox.wake();
            }
            stage => {
                let reason = self.bootstrap_reason(stage);
                self.shared.change(Condition::of(State::Bootstrapping, reason));
            }
        }
    }

    /// A new cluster is founded by one of its PoPs, when all that it is configured with have met and none of them is
    /// a member yet: so there can be no second founder.
    fn may_found(&self) -> bool {
        let Some(replica) = &self.replica else { return false };
        let is_fresh = |pop: &String| {
            replica.peers().any(|peer| {
                peer.connected
                    && peer.root.is_some()
                    && peer.stage == Stage::Fresh
                    && peer.replica > replica.id()
                    && self.pops.get(&peer.replica) == Some(pop)
            })
        };
        self.settings.peers.iter().all(is_fresh)
    }

    fn bootstrap_reason(&self, stage: Stage) -> String {
        let copied = self.replica.as_ref().and_then(Replica::copied);
        match (stage, copied) {
            (Stage::Copying, Some((_, 0))) => "it was let in, and begins to copy".into(),
            (Stage::Copying, Some((copied, total))) => format!("{copied} of {total} entries are copied"),
            (Stage::CatchingUp, _) => "it catches up with what was written meanwhile".into(),
            _ if self.links.is_empty() => "it has not heard from a peer yet".into(),
            _ => "it waits to be let in by a member; a new cluster begins when all its PoPs have met".into(),
        }
    }

    /// What this node says of itself when it joins.
    pub(super) fn record(&self) -> MemberRecord {
        MemberRecord { pop: self.settings.pop.clone(), region: self.settings.region.clone() }
    }

    fn read_pops(&mut self) {
        let Some(replica) = &self.replica else { return };
        let named = replica.members().iter().filter_map(|(id, member)| Some((id, member.record.as_ref()?)));
        self.pops.extend(named.map(|(id, record)| (id, record.pop.clone())));
    }

    /// This store must not be served any more: it is not what the cluster takes it for.
    fn stop_serving(&mut self, why: &str) {
        self.shared.change(Condition::of(State::Quarantined, format!("{why}; {REMEDY}")));
        self.quarantine();
    }

    /// As [`Driver::stop_serving`], where nothing but time has passed: no operator is needed.
    fn come_back(&mut self, why: &str) {
        let reason = format!("{why}; it sets its store aside and returns by itself under a new identity");
        self.shared.change(Condition::of(State::Quarantined, reason));
        self.quarantine();
        self.shared.returning.send_replace(true);
    }

    fn fail(&mut self, error: &StoreError) {
        for (reply, _) in self.unanswered.drain(..) {
            let _ = reply.send(Err(unavailable(error)));
        }
        if self.shared.condition.load().state == State::Ready {
            self.shared.change(Condition::of(State::ReadOnly, error.reason.clone()));
        }
    }

    /// Neither serves nor gossips any more; the links close, so that peers see it.
    fn quarantine(&mut self) {
        self.replica = None;
        for link in std::mem::take(&mut self.links).into_values() {
            link.close(QUARANTINED);
        }
        for (reply, _) in self.unanswered.drain(..) {
            let _ =
                reply.send(Err(WriteError::Unavailable { reason: self.shared.condition.load().explain() }));
        }
    }

    fn checkpoint(&mut self) {
        let Some(replica) = &self.replica else { return };
        let vector = replica.vector();
        if *vector == self.checkpointed {
            return;
        }
        let checkpoint = Checkpoint {
            replica: replica.id().to_string(),
            vector: vector.iter().map(|(origin, at)| (origin.to_string(), at.hlc.to_bits())).collect(),
            entries: replica.entries(),
            root: replica.root().to_string(),
        };
        match checkpoint.store(&self.settings.data_folder) {
            Ok(()) => self.checkpointed = vector.clone(),
            Err(error) => tracing::warn!(%error, "the checkpoint could not be written; it is tried again"),
        }
    }

    pub(super) fn pop_of(&self, replica: ReplicaId) -> String {
        self.pops.get(&replica).cloned().unwrap_or_else(|| replica.to_string())
    }

    pub(super) fn is_linked(&self, replica: ReplicaId) -> bool {
        self.links.contains_key(&replica)
    }

    pub(super) fn condition(&self) -> Arc<Condition> {
        self.shared.condition.load_full()
    }

    pub(super) fn now(&self) -> Now {
        self.shared.clocks.now()
    }

    pub(super) fn with_replica<T>(&mut self, act: impl FnOnce(&mut Replica<SledStore>) -> T) -> Option<T> {
        self.replica.as_mut().map(act)
    }
}

/// Whether a message brings entries, for which there must be room. What peers say of themselves is taken in any case: a
/// full disk is no reason to be taken for silent, nor to forget what they hold.
fn brings_entries(message: &Message) -> bool {
    let is_repair = matches!(message, Message::Round(Round { step: Step::Rows(_), .. }));
    // Who is asked for rights gives them by an event.
    is_repair || matches!(message, Message::Delta(_) | Message::Snapshot(_) | Message::Rights(_))
}

fn unavailable(error: &StoreError) -> WriteError {
    WriteError::Unavailable { reason: error.reason.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::codec::message::Ack;
    use replication::codec::round::Rows;

    /// On a full disk all frames were dropped once, heartbeats too: peers took the node for silent, its view of them
    /// stood still, and it could not hear that it had been removed.
    #[test]
    fn a_full_disk_refuses_entries_and_hears_all_else() {
        let rows = Rows { rows: Vec::new(), more: false };
        assert!(brings_entries(&Message::Round(Round { number: 1, step: Step::Rows(rows) })));
        let heard = [
            Message::Ack(Ack::default()),
            Message::Behind { epoch: replication::Hlc::ZERO },
            Message::Cloned,
            Message::Round(Round { number: 1, step: Step::More }),
            Message::Admitted { at: replication::Hlc::ZERO },
        ];
        assert!(!heard.iter().any(brings_entries));
    }
}
