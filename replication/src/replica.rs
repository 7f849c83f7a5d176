//! The replica: a state machine that holds one PoP's copy and keeps it converging with its peers.
//!
//! It has no sockets, threads or clocks. The driver owns those, and these duties:
//!
//! 1. Call [`Replica::write`] and [`Replica::handle_message`] as requests and frames come in. Both only
//!    stage their effect.
//! 2. Then call [`Replica::flush`], which commits and makes durable all that was staged, as one group.
//!    Acknowledge writes only after it.
//! 3. Then call [`Replica::poll_transmit`] for every peer and lane that can take a frame, and
//!    [`Replica::poll_event`] until it is empty. Nothing is sent before it is flushed: while something is
//!    not, `poll_transmit` gives nothing.
//! 4. Call [`Replica::handle_timeout`] when the time of [`Replica::poll_timeout`] has come.
//!
//! What to send is decided when a link can take it, so that a slow link costs no memory and always gets the
//! latest state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::clock::{Clock, Dot, Hlc, Now, ReplicaId};
use crate::codec::Malformed;
use crate::codec::member as member_codec;
use crate::codec::message::{Ack, Delta, Message, Stage};
use crate::codec::row::{self, Summary};
use crate::digest::{Digest, DigestKey, DigestTree};
use crate::entry::{Body, ChunkId, Entry, EntryId};
use crate::keys;
use crate::link::Lane;
use crate::member::{MemberRecord, Members, RemovalReason};
use crate::store::{Batch, Store, StoreError};
use crate::vector::VersionVector;

mod acknowledgement;
pub mod anti_entropy;
mod apply;
pub mod batch;
pub mod changed;
mod chunk_index;
pub mod conflicts;
mod copy;
pub mod documents;
pub mod epoch;
mod eviction;
mod fold;
mod lag;
mod membership;
mod open;
mod peer;
mod push;
mod reach;
pub mod returned;
mod rights;
mod skew;
mod standing;
mod sweep;
mod topology;
mod usage;
pub mod veil;
pub mod verify;
mod write;

pub use epoch::{Garbage, Holder};
pub use eviction::Quorum;
pub use lag::Lag;
pub use peer::PeerView;
pub use push::MAX_AHEAD_MS;
pub use rights::MAX_RIGHTS_WANTED;
pub use skew::CLOCK_SKEW_LIMIT_MS;
pub use standing::{Obstacle, Standing};
pub use usage::{Growth, Usage};
pub use write::WriteError;

/// The most chunks that one event names; a driver finds the others when they are read, or when it looks at all.
const MAX_CHUNKS_TOLD: usize = 65_536;

/// What a replica needs to know beside its store.
#[derive(Clone, Copy)]
pub struct Settings {
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
    /// The key of the cluster's digests.
    pub digest_key: DigestKey,
    /// Time between heartbeats to a peer, in microseconds.
    pub heartbeat_every_us: u64,
    /// The longest that a fresh event waits for others to go with, where the round trip is long enough for that not to
    /// matter; 0 for never. In microseconds.
    pub gather_us: u64,
    /// The stable frontier moves in steps of this many milliseconds.
    pub epoch_every_ms: u64,
    /// A member that is silent for longer than this is evicted, so that the others need not keep tombstones for
    /// it for ever. In milliseconds.
    pub max_away_ms: u64,
    /// Where more than this waits for those that are away, tombstones and log rows together, a hundredth of that time is
    /// all a member may be silent for. In bytes.
    pub max_waiting_bytes: u64,
    /// Values that have lost unseen: how long they are kept, and how many of them.
    pub conflicts: conflicts::Bounds,
    /// With so many changes that all members hold and that are not folded yet, a document is folded.
    pub fold_from: usize,
    /// A random number of this run of the process, by which two that run under one id are told apart.
    pub boot: u64,
}

impl Settings {
    /// What a cluster is run with where nothing else is asked for: heartbeats twice a second, 5 ms to gather,
    /// epochs of a minute, a week away, 16 GiB that wait, [`conflicts::Bounds::USUAL`], folds of 128 changes on.
    pub const fn new(cluster: [u8; 16], digest_key: DigestKey) -> Self {
        Self {
            cluster,
            digest_key,
            heartbeat_every_us: 500_000,
            gather_us: 5_000,
            epoch_every_ms: 60_000,
            max_away_ms: 7 * 24 * 3_600_000,
            max_waiting_bytes: 16 << 30,
            conflicts: conflicts::Bounds::USUAL,
            fold_from: 128,
            boot: 0,
        }
    }
}

/// Why a store cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not what its last batch left: serving it would show missing rows as absent.
    #[error("the store is damaged: {reason}")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
    /// It belongs to another cluster.
    #[error("the store belongs to another cluster")]
    OtherCluster,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The peer broke the protocol: close the link.
    #[error("{reason}")]
    Protocol {
        /// How.
        reason: String,
    },
}

impl From<Malformed> for MessageError {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol { reason: malformed.to_string() }
    }
}

/// What the driver must know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Entries of [`crate::NamespaceId::SYSTEM`] have changed.
    SystemChanged,
    /// Values have come in whose chunks, of so many bytes, may not be here yet.
    ChunksWanted(Vec<(ChunkId, u64)>),
    /// States that named these chunks are gone, durably, and at that moment none was left that did: their bytes may go.
    ChunksReleased(Vec<ChunkId>),
    /// What a peer holds of our own events is not what this store says we wrote, or we have claimed more to it than
    /// is here: this store is an older copy, or was cloned. Stop serving; the replica takes no more writes. Make it anew ([`returned`]).
    OlderCopy {
        /// The peer that says so.
        peer: ReplicaId,
    },
    /// A peer hears of two processes that run under this replica's id. As with [`Event::OlderCopy`].
    Cloned {
        /// The peer that says so.
        peer: ReplicaId,
    },
    /// The others have dropped what this replica has not heard of yet. As with [`Event::OlderCopy`].
    Behind {
        /// The epoch that is not covered.
        epoch: Hlc,
    },
    /// This replica was removed from its cluster. One that was silent may be made anew at once ([`returned`]);
    /// else an operator must decide.
    Removed {
        /// Why.
        reason: RemovalReason,
    },
    /// This replica has become a full member, or its members have changed.
    MembersChanged,
    /// This replica has staged an event of its own accord: a record about members, the history of a document, or rights
    /// that a peer has asked for.
    Recorded {
        /// The event.
        dot: Dot,
        /// The record's entry.
        id: EntryId,
        /// What it says.
        body: Body,
    },
    /// A returned state was written anew, by this event.
    WrittenAnew {
        /// The event of the earlier incarnation.
        old: Dot,
        /// The event that took its place.
        new: Dot,
        /// What it wrote.
        id: EntryId,
        /// The state.
        body: Body,
    },
    /// A verification has ended.
    Verified(Box<verify::Verified>),
    /// An anti-entropy round has ended.
    RoundEnded {
        /// With whom.
        peer: ReplicaId,
        /// Entries that were truly missing or older here.
        repaired: u64,
    },
}

/// Plain counters, since this replica was opened; the driver exports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events of other replicas applied from deltas.
    pub events_applied: u64,
    /// Events sent in deltas, repeats included.
    pub events_sent: u64,
    /// Deltas that did not join what is held: catch-up was asked for.
    pub gaps: u64,
    /// Streams sent again because no acknowledgement came.
    pub rewinds: u64,
    /// Deltas put off because they come from too far in the future.
    pub held_back: u64,
    /// Anti-entropy rounds begun.
    pub rounds: u64,
    /// Entries repaired here by anti-entropy.
    pub repaired: u64,
    /// Entries dropped because they were over: tombstones and expired values.
    pub dropped: u64,
    /// Returned states written anew.
    pub written_anew: u64,
    /// Returned states that a newer one had overtaken.
    pub superseded: u64,
    /// Values that lost to one whose writer had not seen them.
    pub conflicts: u64,
    /// Of those, how many were not kept to their time for want of room.
    pub conflicts_dropped: u64,
    /// Entries that readers may have seen with a part of a batch only.
    pub batches_torn: u64,
    /// Changes of documents that were folded together.
    pub folded: u64,
}

/// One PoP's copy.
pub struct Replica<S: Store> {
    id: ReplicaId,
    settings: Settings,
    store: S,
    /// Rows written but not yet committed; reads inside the core look here first.
    staged: Batch,
    /// Whether there are commits the store has not flushed.
    unflushed: bool,
    /// The store failed, or is an older copy: nothing may be written any more.
    failed: Option<StoreError>,
    /// What is held, staged events included.
    held: VersionVector,
    /// What is here beyond that.
    ahead: reach::Ahead,
    /// What readers must not see yet of that, and of what is held.
    veils: veil::Veils,
    /// What is held durably, with the root at that moment.
    durable: VersionVector,
    durable_root: Digest,
    /// Origins by their index in rows.
    origins: Vec<ReplicaId>,
    clock: Clock,
    tree: DigestTree,
    entries: u64,
    log_rows: u64,
    /// Chunks that a state has ceased to name since the last flush.
    let_go: BTreeSet<ChunkId>,
    /// The ledger of conflicts.
    ledger: conflicts::Ledger,
    /// What each namespace has.
    usages: usage::Usages,
    /// What waits to be dropped.
    waiting: epoch::Waiting,
    /// All that is over at or below this is dropped, or about to be.
    epoch: Hlc,
    /// Where the sweep to this epoch stands; `None` when it is done.
    sweep: Option<sweep::Sweep>,
    /// Since when a new epoch waits for rounds to end.
    put_off_since_us: Option<u64>,
    /// When to look whether a round has left a difference that a thorough sweep may end.
    thorough_due_us: Option<u64>,
    members: Members,
    progress: membership::Progress,
    /// What this replica says of itself when it asks to be let in.
    own_record: Option<MemberRecord>,
    /// When this replica was first told the time since it was opened.
    running_since_us: Option<u64>,
    /// When to ask for another record of our membership, if ours is lost.
    record_due_us: u64,
    /// When to look at the time again though nobody speaks to us.
    tick_due_us: u64,
    /// Whether returned states may wait to be written anew.
    returned_wait: bool,
    /// The oldest of them that can be judged, as of the latest look.
    carried: Option<Hlc>,
    /// Where to go on with them.
    returned_cursor: Vec<u8>,
    peers: BTreeMap<ReplicaId, peer::Peer>,
    /// Relays, and what is awaited by them.
    topology: topology::Topology,
    /// Whether peers' vectors have changed since they were last stored.
    peers_changed: bool,
    peers_stored_us: u64,
    /// What has changed, where somebody is to be told.
    changed: Option<changed::Changed>,
    /// Which documents have changed, and which are to be mended.
    documents: documents::Documents,
    /// Which changes of documents may be folded together.
    foldable: fold::Foldable,
    /// Rights that writers wait for.
    rights: rights::Rights,
    /// The verification that is running.
    walk: Option<verify::Walk>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl<S: Store> Replica<S> {
    /// This replica's name.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// What is held durably.
    pub fn vector(&self) -> &VersionVector {
        &self.durable
    }

    /// The digest of everything, at [`Replica::vector`].
    pub fn root(&self) -> Digest {
        self.durable_root
    }

    /// What is kept of all states: the root, and what rounds of anti-entropy begin with.
    pub fn tree(&self) -> &DigestTree {
        &self.tree
    }

    /// Entry rows: values and tombstones.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The store, to read from.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for a driver that simulates its failures.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back, as it is: what was not flushed is not in it, or not durably.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Takes a message from a connected peer. Its effect is staged; see [`Replica::flush`].
    pub fn handle_message(
        &mut self,
        now: Now,
        from: ReplicaId,
        message: Message,
    ) -> Result<(), MessageError> {
        self.check_usable()?;
        if !self.peers.get(&from).is_some_and(|peer| peer.connected) || self.stage() == Stage::Removed {
            return Ok(());
        }
        if self.members.removal(from).is_some() && !planted!(FenceForgotten) {
            self.turn_away(from);
            return Ok(());
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard_us = now.mono_us;
        }
        match message {
            Message::Heartbeat(heartbeat) => self.handle_heartbeat(now, from, heartbeat),
            Message::Ack(Ack { yours, others }) => {
                let own = yours.map(|position| (self.id, position));
                self.handle_ack(now, from, own.into_iter().chain(others).collect());
                Ok(())
            }
            Message::Pull { origin, after, whole } => {
                self.handle_pull(now, from, origin, (after, whole));
                Ok(())
            }
            Message::Delta(delta) => self.handle_delta(now, from, delta.heard_from(from)),
            Message::Round(round) => self.handle_round(now, from, round),
            Message::Join { pop, region } => self.handle_join(now, from, MemberRecord { pop, region }),
            Message::Admitted { at } => {
                self.handle_admitted(now, from, at);
                Ok(())
            }
            Message::Removed { reason, .. } => {
                let reason = member_codec::reason_of(reason)?;
                self.leave(reason);
                Ok(())
            }
            Message::Behind { epoch } => {
                self.fall_behind(epoch);
                Ok(())
            }
            Message::Cloned => {
                self.stop("two processes run under this replica's id", Event::Cloned { peer: from });
                Ok(())
            }
            Message::OlderCopy => {
                self.stop("this store is an older copy of itself", Event::OlderCopy { peer: from });
                Ok(())
            }
            Message::Copy { session, from: cursor } => {
                self.handle_copy(from, session, cursor);
                Ok(())
            }
            Message::Snapshot(snapshot) => self.handle_snapshot(now, from, snapshot),
            Message::Rights(wanted) => self.handle_rights(now, from, wanted),
        }
    }

    /// The next frame for this lane of this peer, of at most about `max_bytes` (a single entry may exceed
    /// it); `None` when there is nothing to send now.
    pub fn poll_transmit(
        &mut self,
        now: Now,
        to: ReplicaId,
        lane: Lane,
        max_bytes: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        self.check_usable()?;
        let sendable = planted!(SentBeforeFlush) || !self.unflushed && self.staged.is_empty();
        if !sendable || !self.peers.get(&to).is_some_and(|peer| peer.connected) {
            return Ok(None);
        }
        self.mind_lost_relay(now);
        let said = |delta: Delta, sender| Message::Delta(delta.said_by(sender));
        let message = match lane {
            Lane::Control => self.next_control(now, to)?,
            Lane::Delta => self.next_delta(now, to, lane, max_bytes)?.map(|delta| said(delta, self.id)),
            Lane::CatchUp => match self.next_delta(now, to, lane, max_bytes)? {
                Some(delta) => Some(said(delta, self.id)),
                None => self.next_snapshot(to, max_bytes)?.map(Message::Snapshot),
            },
            Lane::AntiEntropy => self.next_anti_entropy(now, to),
            Lane::Bulk => None,
        };
        Ok(message.map(|message| message.to_frame()))
    }

    /// Commits all that is staged and makes it durable.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.commit()?;
        if self.unflushed {
            let flushed = if planted!(AcknowledgedBeforeFlush) { Ok(()) } else { self.store.flush() };
            self.fail_on_error(flushed)?;
            self.unflushed = false;
            self.durable = self.held.clone();
            self.ahead.settle(&self.durable);
            self.durable_root = self.tree.root();
            self.release_chunks()?;
        }
        Ok(())
    }

    /// Commits all that is staged without making it durable: readers of the store see it from now on.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.check_usable()?;
        if self.staged.is_empty() {
            return Ok(());
        }
        let summary = row::encode_summary(&self.summary());
        self.staged.insert(keys::SUMMARY.to_vec(), Some(summary));
        let committed = self.store.commit(std::mem::take(&mut self.staged));
        self.fail_on_error(committed)?;
        self.veils.committed();
        self.unflushed = true;
        Ok(())
    }

    /// The next thing the driver must know of.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Queues an event, joined with one of its kind that waits already: however much one turn of the driver brings
    /// in, the queue stays short, and no kind can crowd out another.
    fn emit(&mut self, event: Event) {
        let is_joined = self.events.iter_mut().any(|waiting| match (waiting, &event) {
            (Event::ChunksWanted(waiting), Event::ChunksWanted(more)) => {
                waiting.extend(more.iter().take(MAX_CHUNKS_TOLD.saturating_sub(waiting.len())));
                true
            }
            (Event::ChunksReleased(waiting), Event::ChunksReleased(more)) => {
                waiting.extend(more.iter().take(MAX_CHUNKS_TOLD.saturating_sub(waiting.len())));
                true
            }
            _ => false,
        });
        if !is_joined && !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            origins: self.origins.iter().map(|origin| (*origin, self.held.position(*origin))).collect(),
            entries: self.entries,
            log_rows: self.log_rows,
            root: self.tree.root(),
            epoch: self.epoch,
            swept: self.sweep.is_none(),
        }
    }

    /// Takes no more writes and sends nothing any more; the driver learns why.
    fn stop(&mut self, reason: &str, event: Event) {
        if self.failed.is_none() {
            self.failed = Some(StoreError::new(format!("{reason}; rebuild this node under a new identity")));
        }
        self.emit(event);
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// After a failed commit or flush memory is ahead of the disk: only opening anew mends that.
    fn fail_on_error(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }
}

fn damaged(what: &str, why: &Malformed) -> OpenError {
    OpenError::Damaged { reason: format!("{what}: {why}") }
}

fn damaged_row(why: &Malformed) -> StoreError {
    StoreError::new(format!("the row of an entry is damaged: {why}"))
}

fn entry_of_row(origins: &[ReplicaId], row: row::EntryRow) -> Result<Entry, Malformed> {
    let replica = origins.get(usize::from(row.origin_index));
    let replica = *replica.ok_or_else(|| Malformed::Form("an origin outside the table".into()))?;
    Ok(row.entry(replica))
}

#[cfg(test)]
mod tests;
