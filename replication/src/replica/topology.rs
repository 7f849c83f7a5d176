//! Which way events go between regions: once across, by a relay, which passes them on where it is.
//!
//! Inside a region everyone pushes its events to everyone. To another region a replica pushes them to one member there,
//! its *relay*: who comes first by rendezvous hash among those that take part. A delta that comes from another region
//! is passed on to all of one's own, up to where it went and no further, so that nobody has to be told who is whose
//! relay, and a former one stops by itself. Streams begin at what a peer claims: what goes two ways costs bytes, never
//! truth.
//!
//! Two things heal it, each without the other:
//!
//! - The sender passes over a relay that is silent, or does not acknowledge, for [`SILENT_AFTER_HALF_BEATS`]
//!   halves of the time between heartbeats.
//! - The receivers hear from everyone, by heartbeats, what they lack. They wait for it a while ([`PATIENCE_US`]), one a
//!   little longer than the other, and then ask whoever has it: of their own region if anyone there does, else across.
//!   Who is asked goes on for [`LEASE_US`], to one member of a region at a time: the lazy second relay.
//!
//! A replica whose region is not known, this one included, counts as near: it is pushed to as if there were one region.

use std::collections::{BTreeMap, BTreeSet};

use super::Replica;
use super::peer::Peer;
use super::push::{Outgoing, Span};
use crate::clock::{Hlc, Now, ReplicaId};
use crate::store::Store;

/// After so many halves of the time between heartbeats without a word, or an acknowledgement that is due, a relay is passed over.
const SILENT_AFTER_HALF_BEATS: u64 = 5;

/// For how long a relay that did not acknowledge is passed over, where there is another.
const SHUNNED_US: u64 = 10_000_000;

/// A member that holds events from longer ago than this after another's is no relay before that one.
const BEHIND_MS: u64 = 2_000;

/// How long events of another region may be on their way before they are asked for.
const PATIENCE_US: u64 = 600_000;

/// By how much longer each further member of a region waits, so that the first can pass on what it gets.
const PATIENCE_STEP_US: u64 = 100_000;

/// From this member of a region on, all wait equally long.
const MAX_PATIENCE_STEPS: u64 = 4;

/// How long a member of the same region may take to answer before another is asked.
const NEAR_ANSWER_US: u64 = 400_000;

/// How long a member of another region may take.
const FAR_ANSWER_US: u64 = 1_500_000;

/// Who is asked for events goes on sending for so long, where regions are crossed or their events are meant.
const LEASE_US: u64 = 10_000_000;

/// Roots of replicas in two regions that hold the same may differ for so long before any two of them look into it.
const FAR_ROUND_AFTER_US: u64 = 20_000_000;

/// What a replica remembers of the ways between regions.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// For each other region the member that our own events are pushed to.
    relays: BTreeMap<String, ReplicaId>,
    /// Whether the link to one of them was lost since they were chosen.
    has_lost_relay: bool,
    /// The digest of the members that were known then.
    members: u64,
    /// When they are to be looked at again.
    review_due_us: Option<u64>,
    /// Origins of other regions of which events are missing here.
    awaited: BTreeMap<ReplicaId, Awaited>,
    /// Who brought us the latest event of an origin of another region.
    bringers: BTreeMap<ReplicaId, ReplicaId>,
}

/// Events that are known to exist, and are on their way.
#[derive(Debug)]
struct Awaited {
    /// When to ask for them.
    due_us: u64,
    /// Who was asked last, since they last came on.
    asked: Option<ReplicaId>,
}

impl Topology {
    /// The origins whose latest events came from this peer.
    pub(super) fn brought_by(&self, peer: ReplicaId) -> Vec<ReplicaId> {
        self.bringers.iter().filter(|(_, by)| **by == peer).map(|(origin, _)| *origin).collect()
    }
}

impl<S: Store> Replica<S> {
    fn region(&self, replica: ReplicaId) -> Option<&str> {
        Some(self.members.find(replica)?.record.as_ref()?.region.as_str())
    }

    /// Whether this replica is known to be in another region than ours.
    pub(super) fn is_far(&self, replica: ReplicaId) -> bool {
        let regions = (self.region(self.id), self.region(replica));
        matches!(regions, (Some(own), Some(theirs)) if own != theirs)
    }

    fn is_usable(&self, id: ReplicaId, peer: &Peer) -> bool {
        let is_up = peer.connected && peer.heard && peer.stage.takes_part();
        is_up && self.members.removal(id).is_none()
    }

    /// The members of our own region that are here.
    fn near(&self) -> impl Iterator<Item = (ReplicaId, &Peer)> {
        let is_near = |(id, peer): &(&ReplicaId, &Peer)| self.is_usable(**id, peer) && !self.is_far(**id);
        self.peers.iter().filter(is_near).map(|(id, peer)| (*id, peer))
    }

    fn silent_after_us(&self) -> u64 {
        self.settings.heartbeat_every_us * SILENT_AFTER_HALF_BEATS / 2
    }

    fn is_still(&self, now: Now, peer: &Peer) -> bool {
        now.mono_us >= peer.heard_us + self.silent_after_us()
    }

    // Sending our own events.

    /// Whether our own events go to this peer unasked.
    pub(super) fn is_own_pushed_to(&self, peer: ReplicaId) -> bool {
        !self.is_far(peer) || self.is_relay(peer)
    }

    /// Whether our own events go to this peer's region by it.
    pub(super) fn is_relay(&self, peer: ReplicaId) -> bool {
        self.topology.relays.values().any(|relay| *relay == peer)
    }

    pub(super) fn note_relay_gone(&mut self, peer: ReplicaId) {
        self.topology.has_lost_relay |= self.is_relay(peer);
    }

    /// Has another take the place of a relay whose link was lost, before anything else is sent.
    pub(super) fn mind_lost_relay(&mut self, now: Now) {
        if self.topology.has_lost_relay {
            self.choose_relays(now);
        }
    }

    /// Looks who is to be our relay in each other region, and begins and ends streams where that has changed.
    pub(super) fn choose_relays(&mut self, now: Now) {
        self.topology.has_lost_relay = false;
        self.topology.review_due_us = None;
        self.shun_stalled(now);
        let mut candidates: BTreeMap<&str, Vec<(ReplicaId, &Peer)>> = BTreeMap::new();
        for (id, peer) in self.peers.iter().filter(|(id, peer)| self.is_usable(**id, peer)) {
            if self.is_far(*id)
                && let Some(region) = self.region(*id)
            {
                candidates.entry(region).or_default().push((*id, peer));
            }
        }
        if candidates.is_empty() && self.topology.relays.is_empty() {
            return;
        }
        let chosen: BTreeMap<String, ReplicaId> = candidates
            .into_iter()
            .filter_map(|(region, peers)| Some((region.to_string(), self.first_relay(now, &peers)?)))
            .collect();
        let before = std::mem::replace(&mut self.topology.relays, chosen);
        let after: Vec<ReplicaId> = self.topology.relays.values().copied().collect();
        let members = self.members.digest();
        if before != self.topology.relays || members != self.topology.members {
            self.topology.members = members;
            self.end_unasked_streams();
        }
        for relay in after.into_iter().filter(|id| !before.values().any(|known| known == id)) {
            self.start_stream(relay, self.id, false, Span::Open);
        }
        self.topology.review_due_us = self.next_review_us(now);
    }

    /// Ends the streams without an end that cross regions, or bring what did, but those to our relays: to former ones, and
    /// those from before it was known who is where.
    fn end_unasked_streams(&mut self) {
        let far: BTreeSet<ReplicaId> =
            self.members.iter().map(|(id, _)| id).filter(|id| self.is_far(*id)).collect();
        let relays: BTreeSet<ReplicaId> = self.topology.relays.values().copied().collect();
        let own = self.id;
        for (id, peer) in &mut self.peers {
            peer.outgoing.retain(|origin, stream| {
                let is_near = !far.contains(id) && !far.contains(origin);
                let is_to_relay = *origin == own && relays.contains(id);
                is_near || is_to_relay || stream.span() != Span::Open
            });
        }
    }

    /// Remembers of a relay that does not acknowledge that it is to be passed over.
    fn shun_stalled(&mut self, now: Now) {
        let silent_after_us = self.silent_after_us();
        for relay in self.topology.relays.values() {
            let Some(peer) = self.peers.get_mut(relay) else { continue };
            let stream = peer.outgoing.get(&self.id);
            if stream
                .and_then(Outgoing::waiting_since_us)
                .is_some_and(|since_us| now.mono_us >= since_us + silent_after_us)
            {
                peer.shunned_until_us = now.mono_us + SHUNNED_US;
            }
        }
    }

    /// Of the members of one region, the one to push to. Who is it stays it until it is silent or stalled: that another
    /// has acknowledged first means nothing, and after a while without writes one event is all that there is to be behind.
    fn first_relay(&self, now: Now, peers: &[(ReplicaId, &Peer)]) -> Option<ReplicaId> {
        let claim = |peer: &Peer| peer.claims.position(self.id);
        let best = peers.iter().map(|(_, peer)| claim(peer)).max_by_key(|claim| claim.hlc)?;
        let is_behind = |id: ReplicaId, peer: &Peer| {
            let claim = claim(peer);
            let is_old = claim.hlc.wall_ms() + BEHIND_MS < best.hlc.wall_ms();
            !self.is_relay(id) && claim.ops < best.ops && is_old
        };
        let order = |(id, peer): &&(ReplicaId, &Peer)| {
            let is_shunned = peer.shunned_until_us > now.mono_us;
            (self.is_still(now, peer), is_shunned, is_behind(*id, peer), rank(self.id, *id))
        };
        peers.iter().min_by_key(order).map(|(id, _)| *id)
    }

    /// When time alone may change who is to be our relay.
    fn next_review_us(&self, now: Now) -> Option<u64> {
        let silent_after_us = self.silent_after_us();
        let relays = self.topology.relays.values().filter_map(|relay| self.peers.get(relay));
        let silences = relays.flat_map(|peer| {
            let stream = peer.outgoing.get(&self.id);
            let waiting_since_us = stream.and_then(Outgoing::waiting_since_us);
            [Some(peer.heard_us), waiting_since_us].map(|since_us| Some(since_us? + silent_after_us))
        });
        let shunned = self.peers.values().map(|peer| Some(peer.shunned_until_us));
        silences.chain(shunned).flatten().filter(|due_us| *due_us > now.mono_us).min()
    }

    /// When [`Replica::choose_relays`] or [`Replica::ask_for_awaited`] has something to do.
    pub(super) fn topology_due_us(&self) -> Option<u64> {
        if self.failed.is_some() {
            return None;
        }
        let awaited = self.topology.awaited.values().map(|awaited| awaited.due_us);
        let lost = self.topology.has_lost_relay.then_some(0);
        awaited.chain(self.topology.review_due_us).chain(lost).min()
    }

    // Passing on what others send, and answering who asks.

    /// Events of another region have come from `from`: new ones up to `news`, where there were any.
    pub(super) fn far_events_came(
        &mut self,
        now: Now,
        from: ReplicaId,
        origin: ReplicaId,
        news: Option<Hlc>,
    ) {
        // Its origin knows soon how far each is, and where a stream to another relay would begin.
        self.owe_word_to_origin(now, origin);
        let Some(upto) = news else { return };
        self.topology.bringers.insert(origin, from);
        self.awaited_came(now, origin);
        if self.is_far(from) && !planted!(RelayKeepsEvents) {
            self.pass_on(origin, upto);
        }
    }

    fn pass_on(&mut self, origin: ReplicaId, upto: Hlc) {
        let near: Vec<ReplicaId> = self.near().map(|(id, _)| id).collect();
        for to in near {
            let stream = self.peers.get_mut(&to).and_then(|peer| peer.outgoing.get_mut(&origin));
            match stream {
                Some(stream) => stream.extend_to(upto),
                None => self.start_stream(to, origin, false, Span::To(upto)),
            }
        }
    }

    /// The origins of other regions whose events we pass on to this peer.
    pub(super) fn passed_on_to(&self, id: ReplicaId, peer: &Peer) -> Vec<ReplicaId> {
        let is_near = !self.is_far(id);
        let passed = peer.outgoing.iter().filter(|(_, stream)| is_near && stream.span() != Span::Open);
        passed.map(|(origin, _)| *origin).filter(|origin| self.is_far(*origin)).collect()
    }

    /// How far to go with a stream that `to` has asked for.
    pub(super) fn span_of_pull(&self, now: Now, to: ReplicaId, origin: ReplicaId) -> Span {
        let is_pushed = origin == self.id && self.is_relay(to);
        if is_pushed || !self.is_far(to) && !self.is_far(origin) {
            return Span::Open;
        }
        let at_least = self.durable.hlc(origin);
        let has_lease = |peer: &Peer| match peer.outgoing.get(&origin).map(Outgoing::span) {
            Some(Span::Leased { until_us, .. }) => until_us > now.mono_us,
            Some(Span::Open | Span::To(_)) | None => false,
        };
        // One of a region is enough: it passes on what it gets.
        let mut others =
            self.peers.iter().filter(|(id, _)| **id != to && self.region(**id) == self.region(to));
        if self.is_far(to) && others.any(|(_, peer)| has_lease(peer)) {
            return Span::To(at_least);
        }
        Span::Leased { at_least, until_us: now.mono_us + LEASE_US }
    }

    // Waiting for what others have.

    /// Whether a member of our own region has more of this origin than we do.
    pub(super) fn is_held_near(&self, origin: ReplicaId) -> bool {
        self.near().any(|(_, peer)| peer.claims.hlc(origin) > self.held.hlc(origin))
    }

    /// Events of an origin of another region exist that are missing here.
    pub(super) fn await_events(&mut self, now: Now, origin: ReplicaId) {
        let due_us = now.mono_us + self.patience_us(origin);
        self.topology.awaited.entry(origin).or_insert(Awaited { due_us, asked: None });
    }

    fn awaited_came(&mut self, now: Now, origin: ReplicaId) {
        let due_us = now.mono_us + self.patience_us(origin);
        let held = self.held.hlc(origin);
        if self.peers.values().all(|peer| peer.claims.hlc(origin) <= held) {
            self.topology.awaited.remove(&origin);
        } else if let Some(awaited) = self.topology.awaited.get_mut(&origin) {
            *awaited = Awaited { due_us, asked: None };
        }
    }

    /// Who comes first in its region for this origin waits least.
    fn patience_us(&self, origin: ReplicaId) -> u64 {
        let own = rank(origin, self.id);
        let before = self.near().filter(|(id, _)| rank(origin, *id) < own).count() as u64;
        PATIENCE_US + PATIENCE_STEP_US * before.min(MAX_PATIENCE_STEPS)
    }

    /// Asks for what has been awaited for long enough.
    pub(super) fn ask_for_awaited(&mut self, now: Now) {
        if !self.stage().takes_part() {
            self.topology.awaited.clear();
        }
        let due = self.topology.awaited.iter().filter(|(_, awaited)| awaited.due_us <= now.mono_us);
        let due: Vec<(ReplicaId, Option<ReplicaId>)> =
            due.map(|(origin, awaited)| (*origin, awaited.asked)).collect();
        for (origin, asked) in due {
            let Some(holder) = self.best_holder(now, origin, asked) else {
                self.topology.awaited.remove(&origin);
                continue;
            };
            self.request(now, holder, origin, false);
            let answer_us = if self.is_far(holder) { FAR_ANSWER_US } else { NEAR_ANSWER_US };
            let asked = Awaited { due_us: now.mono_us + answer_us, asked: Some(holder) };
            self.topology.awaited.insert(origin, asked);
        }
    }

    /// Whom to ask for this origin's events: not who was just asked in vain, one of our region, the origin itself, the
    /// nearest.
    fn best_holder(&self, now: Now, origin: ReplicaId, asked: Option<ReplicaId>) -> Option<ReplicaId> {
        let has_more = |id: ReplicaId, peer: &Peer| {
            let may_tell = self.is_usable(id, peer) && self.may_hand_on(id, origin);
            may_tell && peer.claims.hlc(origin) > self.held.hlc(origin)
        };
        let holders = self.peers.iter().filter(|(id, peer)| has_more(**id, peer));
        let order = |(id, peer): &(&ReplicaId, &Peer)| {
            let is_vain = Some(**id) == asked || self.is_still(now, peer);
            (is_vain, self.is_far(**id), **id != origin, peer.rtt_us.unwrap_or(u64::MAX), **id)
        };
        holders.min_by_key(order).map(|(id, _)| *id)
    }

    // Rounds of anti-entropy.

    /// Whether a round with this peer would cross regions for something that is healed, or looked into, at less cost:
    /// each region agrees within itself first, and then the first members of two regions look into it for all.
    pub(super) fn is_round_for_others(&self, now: Now, with: ReplicaId, peer: &Peer) -> bool {
        if !self.is_far(with) {
            return false;
        }
        let is_old =
            peer.differs_since_us.is_some_and(|since_us| now.mono_us >= since_us + FAR_ROUND_AFTER_US);
        if is_old && self.is_converged_with(peer) {
            return false;
        }
        let comparable =
            || self.peers.iter().filter(|(id, peer)| self.is_usable(**id, peer) && self.may_compare(peer));
        let near = || comparable().filter(|(id, _)| !self.is_far(**id));
        let theirs = || comparable().filter(|(id, _)| self.region(**id) == self.region(with));
        let is_first = near().all(|(id, _)| *id > self.id) && theirs().all(|(id, _)| *id >= with);
        let heals_at_home = near().any(|(_, peer)| self.is_converged_with(peer) && self.root_differs(peer))
            || theirs().any(|(_, peer)| !self.root_differs(peer));
        !is_first || heals_at_home
    }
}

/// Where a member stands among those that may be the relay of an origin: rendezvous hashing, by which each origin has
/// its own order, and who leaves changes nobody else's place. (Thaler and Ravishankar, 1996.)
fn rank(origin: ReplicaId, member: ReplicaId) -> [u8; 32] {
    *blake3::Hasher::new().update(&origin.0).update(&member.0).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(origin: u8, members: std::ops::Range<u8>) -> Vec<u8> {
        let mut order: Vec<u8> = members.collect();
        order.sort_by_key(|member| rank(ReplicaId([origin; 16]), ReplicaId([*member; 16])));
        order
    }

    #[test]
    fn origins_share_the_work_of_relaying_among_all_members() {
        let mut relayed = [0; 4];
        (10..210).for_each(|origin| relayed[usize::from(order(origin, 0..4)[0])] += 1);
        assert!(relayed.iter().all(|origins| (30..=70).contains(origins)), "{relayed:?}");
    }

    #[test]
    fn who_leaves_changes_nobody_elses_place() {
        for origin in 10..60 {
            let mut before = order(origin, 0..6);
            before.retain(|member| *member != 5);
            assert_eq!(before, order(origin, 0..5));
        }
    }

    #[test]
    fn a_stream_ends_where_its_span_does() {
        let at = |mono_us| Now { wall_ms: 0, mono_us };
        let hlc = |ms| Hlc::new(ms, 0);
        let leased = Span::Leased { at_least: hlc(5), until_us: 100 };
        let cases = [
            (Span::Open, 9, 1_000, false),
            (Span::To(hlc(5)), 4, 1_000, false),
            (Span::To(hlc(5)), 5, 0, true),
            (leased, 4, 1_000, false),
            (leased, 9, 99, false),
            (leased, 5, 100, true),
        ];
        for (span, sent_ms, mono_us, is_over) in cases {
            assert_eq!(span.is_over(at(mono_us), hlc(sent_ms)), is_over, "{span:?} {sent_ms} {mono_us}");
        }
    }
}
