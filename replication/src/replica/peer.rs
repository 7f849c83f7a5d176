//! What a replica knows of each peer, and the control lane: heartbeats, acknowledgements, requests.
//!
//! The rule this file upholds: what is said of a peer's holdings comes from the peer's own durable claims,
//! never from what was sent to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::acknowledgement::Acknowledgement;
use super::anti_entropy::{Initiator, Responder};
use super::copy::Source;
use super::push::{Outgoing, Span};
use super::skew::ClockSample;
use super::verify;
use super::{Event, MessageError, Replica};
use crate::clock::{Hlc, Now, ReplicaId};
use crate::codec::member as member_codec;
use crate::codec::message::{Heartbeat, Message, Stage};
use crate::codec::row;
use crate::digest::Digest;
use crate::entry::EntryId;
use crate::keys;
use crate::member::MemberRecord;
use crate::store::{Store, StoreError};
use crate::vector::{Position, VersionVector};

/// How long a request for an origin's events may go without progress before another peer is asked.
const PULL_TIMEOUT_US: u64 = 5_000_000;

/// How long the claim for a connected origin may stand still, while a peer has more of it, before that
/// peer is asked: the origin itself is expected to push.
const STALLED_ORIGIN_US: u64 = 3_000_000;

/// A gap in an origin's events is asked for again after this long.
const REPEAT_REQUEST_AFTER_US: u64 = 500_000;

/// At most this often are the peers' claims stored.
const STORE_PEERS_EVERY_US: u64 = 1_000_000;

/// One peer.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) connected: bool,
    /// Whether a heartbeat has come over the present link: before, nothing is pushed to it.
    pub(super) heard: bool,
    /// What it holds durably, as it said.
    pub(super) claims: VersionVector,
    /// What it had claimed when the present link came up.
    claimed_before: VersionVector,
    /// Its whole vector in its latest heartbeat; acknowledgements are not in it.
    pub(super) told: Option<VersionVector>,
    /// Its wall clock when it said so, in Unix milliseconds.
    pub(super) told_ms: u64,
    /// All it wrote up to then, by its clock, was here before it said so.
    pub(super) complete_ms: u64,
    root: Option<Digest>,
    /// How far it has come into the cluster.
    pub(super) stage: Stage,
    pub(super) epoch: Hlc,
    pub(super) swept: bool,
    /// The oldest write that it is yet to write anew.
    pub(super) carried: Option<Hlc>,
    /// The digest of the members it knows.
    pub(super) members: Option<u64>,
    /// Whom it hears.
    pub(super) hears: Vec<ReplicaId>,
    /// The run of its process its latest heartbeat came from, and the one before it.
    boots: (Option<u64>, Option<u64>),
    /// The streams of events to it, by origin.
    pub(super) outgoing: BTreeMap<ReplicaId, Outgoing>,
    pub(super) acknowledgement: Acknowledgement,
    /// When the first of the streams that gather is to be looked at again.
    pub(super) gathers_until_us: Option<u64>,
    /// Origins to ask it for, and whether for a state with every event.
    pull_due: BTreeMap<ReplicaId, bool>,
    /// Bounded counters it is to be asked for rights to.
    pub(super) rights_due: BTreeSet<EntryId>,
    /// What it is to be told.
    pub(super) join_due: bool,
    pub(super) admission_due: bool,
    pub(super) removal_due: bool,
    pub(super) behind_due: bool,
    clone_due: bool,
    older_copy_due: bool,
    /// It copies this store.
    pub(super) source: Option<Source>,
    /// Origins it was asked for, and when to give up waiting.
    pulls: BTreeMap<ReplicaId, u64>,
    heartbeat_due_us: u64,
    /// When it last said something.
    pub(super) heard_us: u64,
    /// It is to be our relay only where there is no other, until then.
    pub(super) shunned_until_us: u64,
    /// Since when its root, in each heartbeat, was not ours.
    pub(super) differs_since_us: Option<u64>,
    /// Its monotonic clock in its latest heartbeat, and ours when that came.
    echo: Option<(u64, u64)>,
    pub(super) rtt_us: Option<u64>,
    pub(super) clock: Option<ClockSample>,
    pub(super) initiator: Option<Initiator>,
    pub(super) responder: Option<Responder>,
    pub(super) next_round_us: u64,
}

impl Peer {
    /// A run of its process that comes back after another was seen still runs: there are two.
    fn note_boot(&mut self, boot: u64) {
        if self.boots.0 == Some(boot) {
            return;
        }
        self.clone_due |= self.boots.1 == Some(boot);
        self.boots = (Some(boot), self.boots.0);
    }

    /// What stays known when a link goes. A skew counts until the next link tells better.
    fn without_link(self) -> Self {
        let Self {
            claims,
            told,
            told_ms,
            complete_ms,
            root,
            stage,
            epoch,
            swept,
            carried,
            members,
            boots,
            clock,
            ..
        } = self;
        Self {
            claims,
            told,
            told_ms,
            complete_ms,
            root,
            stage,
            epoch,
            swept,
            carried,
            members,
            boots,
            clock,
            ..Self::default()
        }
    }
}

/// A peer as the driver may show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its replica.
    pub replica: ReplicaId,
    /// Whether a link is up.
    pub connected: bool,
    /// What it holds durably, as it last said.
    pub claims: VersionVector,
    /// The root it last reported.
    pub root: Option<Digest>,
    /// The epoch it had adopted then.
    pub epoch: Hlc,
    /// How far it had come into the cluster.
    pub stage: Stage,
    /// Its wall clock less ours, in milliseconds, of its latest heartbeat.
    pub clock_offset_ms: Option<i64>,
    /// The round trip of its latest heartbeat, in microseconds; its time in queues included.
    pub rtt_us: Option<u64>,
    /// Whether our own events go to its region by it: it is our relay there.
    pub is_relay: bool,
    /// Origins of other regions whose events it has brought us latest.
    pub brings: Vec<ReplicaId>,
    /// Origins of other regions whose events we pass on to it: we are their relay here, or were.
    pub is_brought: Vec<ReplicaId>,
}

impl<S: Store> Replica<S> {
    /// A link to this peer is up.
    pub fn handle_connected(&mut self, now: Now, peer: ReplicaId) {
        let known = self.peers.remove(&peer).unwrap_or_default();
        let fresh = Peer {
            connected: true,
            claimed_before: known.claims.clone(),
            heartbeat_due_us: now.mono_us,
            heard_us: now.mono_us,
            next_round_us: now.mono_us,
            ..known.without_link()
        };
        self.peers.insert(peer, fresh);
    }

    /// The link to this peer is gone, and with it every frame on its way.
    pub fn handle_disconnected(&mut self, peer: ReplicaId) {
        self.note_relay_gone(peer);
        // What a removed one claims is of no use any more.
        if let Some(known) = self.peers.remove(&peer)
            && self.members.removal(peer).is_none()
        {
            self.peers.insert(peer, known.without_link());
        }
    }

    /// Does what is due: heartbeats, repeats, slices of anti-entropy. Call it at [`Replica::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), StoreError> {
        self.check_usable()?;
        self.verify_slice(now)?;
        let peers: Vec<ReplicaId> =
            self.peers.iter().filter(|(_, p)| p.connected).map(|(id, _)| *id).collect();
        for peer in self.peers.values_mut() {
            // Whoever has room is asked after this; a lane without room is asked when it has.
            peer.gathers_until_us = peer.gathers_until_us.filter(|until_us| *until_us > now.mono_us);
        }
        for peer in peers {
            self.rewind_unacknowledged(now, peer);
            self.work_on_rounds(now, peer)?;
        }
        self.tick_due_us = now.mono_us + self.settings.heartbeat_every_us;
        self.choose_relays(now);
        self.ask_for_awaited(now);
        self.ask_for_rights(now)?;
        self.work_on_membership(now)?;
        if self.peers.values().all(|peer| !peer.connected) {
            self.claim_idle_time(now)?;
            self.consider_epoch(now);
        }
        if self.veils.due_us().is_some_and(|due_us| due_us <= now.mono_us) {
            self.tear()?;
        }
        self.settle_returned(now)?;
        self.consider_thorough_sweep(now);
        self.mend_document(now)?;
        self.sweep_slice()?;
        self.fold_slice()?;
        self.sweep_ledger(now)?;
        if self.peers_changed && now.mono_us >= self.peers_stored_us + STORE_PEERS_EVERY_US {
            self.store_peers(now);
        }
        Ok(())
    }

    /// When [`Replica::handle_timeout`] or [`Replica::poll_transmit`] next has something to do, by the
    /// monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let spoken_to = |id: &ReplicaId, peer: &Peer| peer.connected && self.members.removal(*id).is_none();
        let connected = self.peers.iter().filter(|(id, peer)| spoken_to(id, peer));
        let due = connected.flat_map(|(_, peer)| {
            let streams = peer.outgoing.values().filter_map(Outgoing::rewind_due_us);
            let rounds = peer
                .initiator
                .iter()
                .map(Initiator::due_us)
                .chain(peer.responder.iter().map(Responder::due_us));
            let soon = peer.acknowledgement.due_us().into_iter().chain(peer.gathers_until_us);
            streams.chain(rounds).chain(soon).chain([peer.heartbeat_due_us])
        });
        let peers = self.peers_changed.then_some(self.peers_stored_us + STORE_PEERS_EVERY_US);
        let may_judge = self.returned_wait && self.stage() == Stage::Member && self.is_settled();
        let mend = self.documents_due_us();
        let at_once = self.sweep.is_some() && mend.is_none() || self.may_fold() || may_judge;
        let walk = self.walk.as_ref().map(verify::Walk::due_us);
        let due = due
            .chain(peers)
            .chain(walk)
            .chain(mend)
            .chain(self.membership_due_us())
            .chain(self.ledger_due_us())
            .chain([self.tick_due_us]);
        let due = due.chain(self.topology_due_us()).chain(self.rights.due_us()).chain(self.veils.due_us());
        due.chain(at_once.then_some(0)).min()
    }

    /// Everything known of the peers, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().map(|(id, peer)| PeerView {
            replica: *id,
            connected: peer.connected,
            claims: peer.claims.clone(),
            root: peer.root,
            epoch: peer.epoch,
            stage: peer.stage,
            clock_offset_ms: peer.clock.map(|clock| clock.offset_ms),
            rtt_us: peer.rtt_us,
            is_relay: self.is_relay(*id),
            brings: self.topology.brought_by(*id),
            is_brought: self.passed_on_to(*id, peer),
        })
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        now: Now,
        from: ReplicaId,
        heartbeat: Heartbeat,
    ) -> Result<(), MessageError> {
        if !self.wrote(heartbeat.vector.position(self.id))? {
            let reason =
                format!("this store is an older copy, or a clone: peer {from:?} holds other events of it");
            self.stop(&reason, Event::OlderCopy { peer: from });
            return Ok(());
        }
        let own_root = self.durable_root;
        let complete_ms = self.complete_of_ms(from);
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        peer.root = Some(heartbeat.root());
        peer.differs_since_us =
            (heartbeat.root() != own_root).then(|| peer.differs_since_us.unwrap_or(now.mono_us));
        (peer.stage, peer.epoch, peer.swept) = (heartbeat.stage, heartbeat.epoch, heartbeat.swept);
        (peer.members, peer.carried, peer.hears) =
            (Some(heartbeat.members), heartbeat.carried, heartbeat.hears);
        // Claims are durable before they are said, so they never fall, but in a store that was put back.
        peer.older_copy_due |= !heartbeat.vector.covers_all(&peer.claimed_before);
        peer.note_boot(heartbeat.boot);
        peer.echo = Some((heartbeat.mono_us, now.mono_us));
        if let Some((sent_us, lay_us)) = heartbeat.echo_us {
            let rtt_us = now.mono_us.saturating_sub(sent_us).saturating_sub(lay_us);
            peer.rtt_us = Some(rtt_us);
            peer.clock = Some(ClockSample::of(now, heartbeat.wall_ms, rtt_us));
        }
        peer.heard = true;
        peer.complete_ms = complete_ms;
        (peer.told, peer.told_ms) = (Some(heartbeat.vector.clone()), heartbeat.wall_ms);
        let takes_events = heartbeat.stage.takes_part();
        if !takes_events {
            peer.outgoing.clear();
        }
        self.handle_ack(now, from, heartbeat.vector);
        self.choose_relays(now);
        let is_pushed_to = self.peers.get(&from).is_some_and(|peer| peer.outgoing.contains_key(&self.id));
        if takes_events && !is_pushed_to && self.is_own_pushed_to(from) {
            self.start_stream(from, self.id, false, Span::Open);
        }
        if heartbeat.stage == Stage::Member {
            self.hears_epoch(now, heartbeat.epoch);
        }
        self.claim_idle_time(now)?;
        self.consider_epoch(now);
        if self.stage().takes_part() && takes_events {
            self.ask_for_missing(now, from);
            self.consider_round(now, from);
        }
        Ok(())
    }

    /// Whether this store's own log says the same of its events up to there as a peer does. Below the epoch there is
    /// no log to ask any more.
    fn wrote(&self, position: Position) -> Result<bool, StoreError> {
        if planted!(OlderCopyUnnoticed) {
            return Ok(true);
        }
        if position.hlc > self.held.hlc(self.id) {
            return Ok(false);
        }
        let Some(index) = self.known_origin_index(self.id).filter(|_| position.hlc >= self.epoch) else {
            return Ok(true);
        };
        let mut next = None;
        self.store.scan(&keys::log(index, position.hlc.next()), &mut |row_key, row| {
            next = keys::parse_log(row_key, index).map(|hlc| row::decode_log(row_key, hlc, &row));
            ControlFlow::Break(())
        })?;
        let ops_up_to_there = match next {
            Some(Ok(row)) => row.position.ops.saturating_sub(1),
            Some(Err(why)) => return Err(StoreError::new(format!("a log row is damaged: {why}"))),
            None => self.durable.position(self.id).ops,
        };
        Ok(ops_up_to_there == position.ops)
    }

    /// The peer holds this much, durably.
    pub(super) fn handle_ack(&mut self, now: Now, from: ReplicaId, claims: VersionVector) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        for (origin, position) in claims.iter() {
            if let Some(stream) = peer.outgoing.get_mut(&origin) {
                stream.acknowledged(now, position);
            }
        }
        if !peer.claims.covers_all(&claims) {
            peer.claims.join_bounded(&claims);
            self.peers_changed = true;
        }
    }

    /// Asks `from` for origins it has more of, unless they are on their way already.
    fn ask_for_missing(&mut self, now: Now, from: ReplicaId) {
        let Some(peer) = self.peers.get(&from) else { return };
        let missing: Vec<ReplicaId> = peer
            .claims
            .iter()
            .filter(|(origin, theirs)| {
                *origin != self.id
                    && (*origin != from || self.is_far(from))
                    && theirs.hlc > self.held.hlc(*origin)
                    && self.may_hand_on(from, *origin)
            })
            .map(|(origin, _)| origin)
            .collect();
        for origin in missing {
            if self.is_far(origin) {
                self.await_events(now, origin);
                continue;
            }
            if self.is_far(from) && self.is_held_near(origin) {
                continue;
            }
            let asked = self.peers.values().any(|peer| {
                peer.connected
                    && peer.pulls.get(&origin).is_some_and(|deadline_us| *deadline_us > now.mono_us)
            });
            if asked {
                continue;
            }
            // A connected origin pushes by itself: wait for it a while, as for a request, before asking.
            match self.peers.get_mut(&origin).filter(|peer| peer.connected) {
                Some(direct) if !direct.pulls.contains_key(&origin) => {
                    direct.pulls.insert(origin, now.mono_us + STALLED_ORIGIN_US);
                }
                _ => self.request(now, from, origin, false),
            }
        }
    }

    /// As [`Replica::request`], unless that was done just now: a gap shows in every delta that is under way.
    pub(super) fn request_once(&mut self, now: Now, from: ReplicaId, origin: ReplicaId, whole: bool) {
        let deadline_us = self.peers.get(&from).and_then(|peer| peer.pulls.get(&origin)).copied();
        let fresh_us = now.mono_us + PULL_TIMEOUT_US - REPEAT_REQUEST_AFTER_US;
        if deadline_us.is_none_or(|deadline_us| deadline_us <= fresh_us) {
            self.request(now, from, origin, whole);
        }
    }

    /// Has `origin`'s events asked for at `from`.
    pub(super) fn request(&mut self, now: Now, from: ReplicaId, origin: ReplicaId, whole: bool) {
        for peer in self.peers.values_mut() {
            peer.pulls.remove(&origin);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.pull_due.insert(origin, whole);
            peer.pulls.insert(origin, now.mono_us + PULL_TIMEOUT_US);
        }
    }

    /// The claim for `origin` has risen by a delta of `from`: whoever was asked for it has more time.
    pub(super) fn request_progressed(&mut self, now: Now, origin: ReplicaId) {
        let complete = self.peers.values().all(|peer| peer.claims.hlc(origin) <= self.held.hlc(origin));
        for peer in self.peers.values_mut() {
            if complete {
                peer.pulls.remove(&origin);
            } else if let Some(deadline_us) = peer.pulls.get_mut(&origin) {
                *deadline_us = now.mono_us + PULL_TIMEOUT_US;
            }
        }
    }

    /// The next message of the control lane.
    pub(super) fn next_control(&mut self, now: Now, to: ReplicaId) -> Result<Option<Message>, StoreError> {
        if self.members.removal(to).is_some() {
            // Nothing else is for it to know.
            return Ok(self.next_notice(to));
        }
        if self.peers.get(&to).is_some_and(|peer| now.mono_us >= peer.heartbeat_due_us) {
            self.carried = self.carried_from()?;
            return Ok(self.next_heartbeat(now, to).map(Message::Heartbeat));
        }
        let said = self.next_notice(to).or_else(|| self.next_acknowledgement(now, to).map(Message::Ack));
        match said.or_else(|| self.next_pull(to)) {
            None => Ok(self.next_rights_wanted(to)?.map(Message::Rights)),
            said => Ok(said),
        }
    }

    fn next_heartbeat(&mut self, now: Now, to: ReplicaId) -> Option<Heartbeat> {
        let hears = self.peers.keys().copied().filter(|id| *id != to && self.is_heard(*id)).collect();
        let peer = self.peers.get_mut(&to)?;
        peer.heartbeat_due_us = now.mono_us + self.settings.heartbeat_every_us;
        peer.acknowledgement.take();
        Some(Heartbeat {
            wall_ms: now.wall_ms,
            mono_us: now.mono_us,
            echo_us: peer.echo.map(|(theirs, came_us)| (theirs, now.mono_us.saturating_sub(came_us))),
            vector: self.durable.clone(),
            root: self.durable_root.to_bytes(),
            epoch: self.epoch,
            swept: self.sweep.is_none(),
            stage: self.stage(),
            members: self.members.digest(),
            carried: self.carried,
            hears,
            boot: self.settings.boot,
        })
    }

    fn next_pull(&mut self, to: ReplicaId) -> Option<Message> {
        let (origin, whole) = self.peers.get_mut(&to)?.pull_due.pop_first()?;
        Some(Message::Pull { origin, after: self.held.hlc(origin), whole })
    }

    /// What this peer must know of its place in the cluster.
    fn next_notice(&mut self, to: ReplicaId) -> Option<Message> {
        let removal = self.members.removal(to);
        let joined_at = self.joined_at(to);
        let record = self.own_record.clone();
        let cut = self.durable.hlc(to);
        let peer = self.peers.get_mut(&to)?;
        if std::mem::take(&mut peer.removal_due)
            && let Some((reason, _)) = removal
        {
            return Some(Message::Removed { reason: member_codec::reason_number(reason), cut });
        }
        if std::mem::take(&mut peer.clone_due) {
            return Some(Message::Cloned);
        }
        if std::mem::take(&mut peer.older_copy_due) {
            return Some(Message::OlderCopy);
        }
        if std::mem::take(&mut peer.behind_due) {
            return Some(Message::Behind { epoch: self.epoch });
        }
        if std::mem::take(&mut peer.admission_due)
            && let Some(at) = joined_at
        {
            return Some(Message::Admitted { at });
        }
        if std::mem::take(&mut peer.join_due)
            && let Some(MemberRecord { pop, region }) = record
        {
            return Some(Message::Join { pop, region });
        }
        self.next_fetch(to).map(|(session, from)| Message::Copy { session, from })
    }

    fn store_peers(&mut self, now: Now) {
        let members = self.peers.iter().filter(|(id, _)| self.members.contains(**id));
        let claims: Vec<_> = members.map(|(id, peer)| (*id, peer.claims.clone())).collect();
        self.staged.insert(keys::PEERS.to_vec(), Some(row::encode_peers(&claims)));
        self.peers_changed = false;
        self.peers_stored_us = now.mono_us;
    }

    pub(super) fn load_peers(&mut self) -> Result<(), super::OpenError> {
        let Some(row) = self.store.read(keys::PEERS)? else { return Ok(()) };
        let claims = row::decode_peers(&row).map_err(|why| super::damaged("the row of the peers", &why))?;
        self.peers =
            claims.into_iter().map(|(id, claims)| (id, Peer { claims, ..Peer::default() })).collect();
        Ok(())
    }

    pub(super) fn is_converged_with(&self, peer: &Peer) -> bool {
        peer.claims.covers_all(&self.durable) && self.durable.covers_all(&peer.claims)
    }

    pub(super) fn root_differs(&self, peer: &Peer) -> bool {
        peer.root.is_some_and(|root| root != self.durable_root)
    }

    /// Whether rounds may be held with this peer: what is over must be gone on both sides, and what they hold be alive.
    /// It is where they cover one epoch, as members do, and who catches up does that has adopted it.
    pub(super) fn may_compare(&self, peer: &Peer) -> bool {
        let take_part = self.stage().takes_part() && peer.stage.takes_part();
        take_part && self.sweep.is_none() && peer.swept && peer.epoch == self.epoch
    }
}
