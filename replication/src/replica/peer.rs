//! What a replica knows of each peer, and the control lane: heartbeats, acknowledgements, requests.
//!
//! The rule this file upholds: what is said of a peer's holdings comes from the peer's own durable claims,
//! never from what was sent to it.

use std::collections::{BTreeMap, BTreeSet};

use super::anti_entropy::{Initiator, Responder};
use super::push::Outgoing;
use super::{Event, MessageError, Replica};
use crate::clock::{Now, ReplicaId};
use crate::codec::message::{Heartbeat, Message};
use crate::codec::row;
use crate::digest::Digest;
use crate::keys;
use crate::store::{Store, StoreError};
use crate::vector::VersionVector;

/// A replica whose clock is further than this from its peers' median refuses writes: its events would
/// win or lose merges they should not.
pub const CLOCK_SKEW_LIMIT_MS: u64 = 400;

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
    heard: bool,
    /// What it holds durably, as it said.
    pub(super) claims: VersionVector,
    root: Option<Digest>,
    /// The streams of events to it, by origin.
    pub(super) outgoing: BTreeMap<ReplicaId, Outgoing>,
    /// Origins whose claims have risen here by its deltas, and are to be acknowledged.
    pub(super) ack_due: BTreeSet<ReplicaId>,
    /// Origins to ask it for, and whether for a state with every event.
    pull_due: BTreeMap<ReplicaId, bool>,
    /// Origins it was asked for, and when to give up waiting.
    pulls: BTreeMap<ReplicaId, u64>,
    heartbeat_due_us: u64,
    /// Its monotonic clock in its latest heartbeat, and ours when that came.
    echo: Option<(u64, u64)>,
    rtt_us: Option<u64>,
    /// Its wall clock less ours.
    clock_offset_ms: Option<i64>,
    pub(super) initiator: Option<Initiator>,
    pub(super) responder: Option<Responder>,
    pub(super) next_round_us: u64,
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
    /// Its wall clock less ours, in milliseconds, of its latest heartbeat.
    pub clock_offset_ms: Option<i64>,
    /// The round trip of its latest heartbeat, in microseconds; its time in queues included.
    pub rtt_us: Option<u64>,
}

impl<S: Store> Replica<S> {
    /// A link to this peer is up.
    pub fn handle_connected(&mut self, now: Now, peer: ReplicaId) {
        let known = self.peers.remove(&peer).unwrap_or_default();
        let fresh = Peer {
            connected: true,
            claims: known.claims,
            root: known.root,
            // A skew known before the link broke counts until the new link tells better.
            clock_offset_ms: known.clock_offset_ms,
            heartbeat_due_us: now.mono_us,
            next_round_us: now.mono_us,
            ..Peer::default()
        };
        self.peers.insert(peer, fresh);
    }

    /// The link to this peer is gone, and with it every frame on its way.
    pub fn handle_disconnected(&mut self, peer: ReplicaId) {
        if let Some(known) = self.peers.remove(&peer) {
            let Peer { claims, root, clock_offset_ms, .. } = known;
            self.peers.insert(peer, Peer { claims, root, clock_offset_ms, ..Peer::default() });
        }
    }

    /// Does what is due: heartbeats, repeats, slices of anti-entropy. Call it at [`Replica::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), StoreError> {
        self.check_usable()?;
        let peers: Vec<ReplicaId> =
            self.peers.iter().filter(|(_, p)| p.connected).map(|(id, _)| *id).collect();
        for peer in peers {
            self.rewind_unacknowledged(now, peer);
            self.work_on_rounds(now, peer)?;
        }
        if self.peers_changed && now.mono_us >= self.peers_stored_us + STORE_PEERS_EVERY_US {
            self.store_peers(now);
        }
        Ok(())
    }

    /// When [`Replica::handle_timeout`] or [`Replica::poll_transmit`] next has something to do, by the
    /// monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let connected = self.peers.values().filter(|peer| peer.connected);
        let due = connected.flat_map(|peer| {
            let streams = peer.outgoing.values().filter_map(Outgoing::rewind_due_us);
            let rounds = peer
                .initiator
                .iter()
                .map(Initiator::due_us)
                .chain(peer.responder.iter().map(Responder::due_us));
            streams.chain(rounds).chain([peer.heartbeat_due_us])
        });
        let peers = self.peers_changed.then_some(self.peers_stored_us + STORE_PEERS_EVERY_US);
        due.chain(peers).min()
    }

    /// Everything known of the peers, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().map(|(id, peer)| PeerView {
            replica: *id,
            connected: peer.connected,
            claims: peer.claims.clone(),
            root: peer.root,
            clock_offset_ms: peer.clock_offset_ms,
            rtt_us: peer.rtt_us,
        })
    }

    /// This replica's clock less the median of all clocks it sees, its own included: so one wrong clock
    /// among three is the one that stands out.
    pub fn clock_skew_ms(&self) -> Option<i64> {
        let connected = self.peers.values().filter(|peer| peer.connected);
        let mut offsets: Vec<i64> = connected.filter_map(|peer| peer.clock_offset_ms).collect();
        offsets.push(0);
        offsets.sort_by_key(|offset| (*offset, offset.unsigned_abs()));
        let (low, high) = (offsets[(offsets.len() - 1) / 2], offsets[offsets.len() / 2]);
        // Of two middle ones, the one nearer to us: two replicas that disagree both go on.
        let median = if low.unsigned_abs() <= high.unsigned_abs() { low } else { high };
        (offsets.len() > 1).then_some(median.saturating_neg())
    }

    pub(super) fn handle_heartbeat(
        &mut self,
        now: Now,
        from: ReplicaId,
        heartbeat: Heartbeat,
    ) -> Result<(), MessageError> {
        if heartbeat.vector.hlc(self.id) > self.held.hlc(self.id) {
            self.failed = Some(StoreError::new(format!(
                "this store is an older copy, or a copy: peer {from:?} holds events of it up to {}, and it has them up \
                 to {}; rebuild this node under a new identity (move its data folder aside)",
                heartbeat.vector.hlc(self.id),
                self.held.hlc(self.id)
            )));
            self.emit(Event::OlderCopy { peer: from });
            return Ok(());
        }
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        peer.root = Some(heartbeat.root());
        peer.echo = Some((heartbeat.mono_us, now.mono_us));
        if let Some((sent_us, lay_us)) = heartbeat.echo_us {
            let rtt_us = now.mono_us.saturating_sub(sent_us).saturating_sub(lay_us);
            peer.rtt_us = Some(rtt_us);
            let half_way_ms = (rtt_us / 2_000) as i64;
            // A peer may say anything of its clock.
            let theirs_ms = (heartbeat.wall_ms as i64).saturating_add(half_way_ms);
            peer.clock_offset_ms = Some(theirs_ms.saturating_sub(now.wall_ms as i64));
        }
        let first = !std::mem::replace(&mut peer.heard, true);
        self.handle_ack(now, from, heartbeat.vector);
        if first {
            self.start_stream(from, self.id, false);
        }
        self.ask_for_missing(now, from);
        self.consider_round(now, from);
        Ok(())
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
            peer.claims.join(&claims);
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
                *origin != self.id && *origin != from && theirs.hlc > self.held.hlc(*origin)
            })
            .map(|(origin, _)| origin)
            .collect();
        for origin in missing {
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
    fn request(&mut self, now: Now, from: ReplicaId, origin: ReplicaId, whole: bool) {
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
    pub(super) fn next_control(&mut self, now: Now, to: ReplicaId) -> Option<Message> {
        let peer = self.peers.get_mut(&to)?;
        if now.mono_us >= peer.heartbeat_due_us {
            peer.heartbeat_due_us = now.mono_us + self.settings.heartbeat_every_us;
            peer.ack_due.clear();
            return Some(Message::Heartbeat(Heartbeat {
                wall_ms: now.wall_ms,
                mono_us: now.mono_us,
                echo_us: peer.echo.map(|(theirs, came_us)| (theirs, now.mono_us.saturating_sub(came_us))),
                vector: self.durable.clone(),
                root: self.durable_root.to_bytes(),
                epoch: Default::default(),
            }));
        }
        if !peer.ack_due.is_empty() {
            let origins = std::mem::take(&mut peer.ack_due);
            return Some(Message::Ack(origins.into_iter().map(|o| (o, self.durable.position(o))).collect()));
        }
        let (origin, whole) = peer.pull_due.pop_first()?;
        Some(Message::Pull { origin, after: self.held.hlc(origin), whole })
    }

    fn store_peers(&mut self, now: Now) {
        let claims: Vec<_> = self.peers.iter().map(|(id, peer)| (*id, peer.claims.clone())).collect();
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
}
