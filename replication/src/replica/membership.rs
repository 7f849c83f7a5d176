//! Coming into the cluster, and leaving it: founding, joining, draining, removal. Eviction is in [`super::eviction`].
//!
//! A new replica asks a member to let it in. That member writes the record, and answers when it is durable; only
//! then does the new one copy ([`super::copy`]), so that whoever counts members for the stable frontier counts it
//! before it can hold anything. It is a full member when it holds what the cluster had when it was let in.

use super::copy::Copying;
use super::peer::Peer;
use super::{Event, MAX_AHEAD_MS, Replica, WriteError};
use crate::clock::{Dot, Hlc, Now, ReplicaId};
use crate::codec::member::{self as member_codec, StageRow};
use crate::codec::message::Stage;
use crate::entry::{Body, Entry, EntryId};
use crate::keys;
use crate::member::{
    MAX_NAME_BYTES, Member, MemberRecord, Members, RemovalReason, drain_entry, member_entry, removal_entry,
};
use crate::replica::{MessageError, OpenError};
use crate::store::{Store, StoreError};
use crate::vector::VersionVector;

/// How long a request to be let in may go without an answer before it is made again, perhaps to another.
const JOIN_EVERY_US: u64 = 2_000_000;

/// How often one who wants to be let in looks for a member.
const LOOK_EVERY_US: u64 = 50_000;

/// How far this replica has come into its cluster.
#[derive(Debug, Default)]
pub(super) enum Progress {
    /// Not a member.
    #[default]
    Fresh,
    /// Wants to be a member.
    Asking {
        next_us: u64,
    },
    Copying(Copying),
    CatchingUp {
        target: VersionVector,
    },
    Member,
    Removed,
}

impl<S: Store> Replica<S> {
    /// How far this replica has come into its cluster.
    pub fn stage(&self) -> Stage {
        match &self.progress {
            Progress::Fresh | Progress::Asking { .. } => Stage::Fresh,
            Progress::Copying(_) => Stage::Copying,
            Progress::CatchingUp { .. } => Stage::CatchingUp,
            Progress::Member => Stage::Member,
            Progress::Removed => Stage::Removed,
        }
    }

    /// Who is, or was, a member.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Makes this empty replica the first member of a new cluster. Exactly one replica of a cluster may do this, once.
    pub fn found(&mut self, now: Now, record: &MemberRecord) -> Result<(), WriteError> {
        if self.stage() != Stage::Fresh {
            return Ok(());
        }
        self.progress = Progress::Member;
        self.store_stage();
        self.record(now, member_entry(self.id, record))?;
        self.emit(Event::MembersChanged);
        Ok(())
    }

    /// Has this empty replica ask a member to let it in, as soon as one is connected.
    pub fn join(&mut self, record: MemberRecord) {
        self.own_record = Some(record);
        if matches!(self.progress, Progress::Fresh) {
            self.progress = Progress::Asking { next_us: 0 };
        }
    }

    /// Takes a member out for ever: it is fenced at once by everyone who hears of it.
    pub fn remove_member(
        &mut self,
        now: Now,
        replica: ReplicaId,
        reason: RemovalReason,
    ) -> Result<Dot, WriteError> {
        self.record(now, removal_entry(replica, reason))
    }

    /// Has a member take no more writes, so that it can be removed once all hold what it wrote; or lets it again.
    pub fn drain_member(&mut self, now: Now, replica: ReplicaId, draining: bool) -> Result<Dot, WriteError> {
        self.record(now, drain_entry(replica, draining))
    }

    pub(super) fn record(&mut self, now: Now, (id, body): (EntryId, Body)) -> Result<Dot, WriteError> {
        let dot =
            self.append(now, id.clone(), |_, current, dot| Ok(Entry::over(current, dot, body.clone())))?;
        self.emit(Event::Recorded { dot, id, body });
        Ok(dot)
    }

    /// An entry of the system namespace has come.
    pub(super) fn note_system_entry(&mut self, id: &EntryId, entry: &Entry) {
        self.members.note(id, entry);
        self.emit(Event::SystemChanged);
        if crate::member::is_about_members(&id.key) {
            self.emit(Event::MembersChanged);
        }
        if let Some((reason, _)) = self.members.removal(self.id)
            && self.stage().takes_part()
        {
            self.leave(reason);
        }
    }

    /// We are a member no more.
    pub(super) fn leave(&mut self, reason: RemovalReason) {
        if !matches!(self.progress, Progress::Removed) {
            self.progress = Progress::Removed;
            self.emit(Event::Removed { reason });
        }
    }

    /// A removed replica speaks to us: it shall know.
    pub(super) fn turn_away(&mut self, from: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.removal_due = true;
        }
    }

    pub(super) fn handle_join(
        &mut self,
        now: Now,
        from: ReplicaId,
        record: MemberRecord,
    ) -> Result<(), MessageError> {
        if record.pop.len() > MAX_NAME_BYTES || record.region.len() > MAX_NAME_BYTES {
            return Err(MessageError::Protocol { reason: format!("a name over {MAX_NAME_BYTES} bytes") });
        }
        if self.stage() != Stage::Member {
            return Ok(());
        }
        // Who is in already asks only where what it has of its record is lost to others.
        let asks_again = self.peers.get(&from).is_some_and(|peer| peer.stage == Stage::CatchingUp);
        if asks_again || !self.members.contains(from) || !self.is_recorded(from) {
            let earlier: Vec<ReplicaId> = self
                .members
                .current()
                .filter(|(_, member)| member.record.as_ref().is_some_and(|known| known.pop == record.pop))
                .map(|(id, _)| id)
                .filter(|id| *id != from)
                .collect();
            // Two nodes of one PoP at a time would take each other's place for ever.
            if earlier.contains(&self.id) || earlier.iter().any(|id| self.is_connected(*id)) {
                return Ok(());
            }
            let removals = earlier.into_iter().map(|old| removal_entry(old, RemovalReason::Replaced));
            for entry in removals.chain([member_entry(from, &record)]) {
                match self.record(now, entry) {
                    Ok(_) => {}
                    Err(WriteError::Store(error)) => return Err(error.into()),
                    // A clock that is off lets nobody in; another member is asked.
                    Err(_) => return Ok(()),
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.admission_due = true;
        }
        Ok(())
    }

    pub(super) fn is_connected(&self, replica: ReplicaId) -> bool {
        self.peers.get(&replica).is_some_and(|peer| peer.connected)
    }

    /// When the record of this member was written.
    pub(super) fn joined_at(&self, replica: ReplicaId) -> Option<Hlc> {
        Some(self.members.find(replica)?.joined?.hlc)
    }

    pub(super) fn handle_admitted(&mut self, now: Now, from: ReplicaId, at: Hlc) {
        if at.wall_ms() > now.wall_ms + MAX_AHEAD_MS {
            return;
        }
        // All that we write comes after our record, also after a second one.
        self.clock.observe(at);
        if matches!(self.progress, Progress::Asking { .. }) {
            self.progress = Progress::Copying(Copying::new(now, from));
            self.store_stage();
        }
    }

    /// Does what is due: asks to be let in, goes on copying, becomes a full member, evicts the silent.
    pub(super) fn work_on_membership(&mut self, now: Now) -> Result<(), StoreError> {
        match &self.progress {
            Progress::Asking { next_us, .. } if *next_us <= now.mono_us => {
                let sponsor = self.nearest_member();
                let pause_us = if sponsor.is_some() { JOIN_EVERY_US } else { LOOK_EVERY_US };
                if let Progress::Asking { next_us } = &mut self.progress {
                    *next_us = now.mono_us + pause_us;
                }
                if let Some(peer) = sponsor.and_then(|id| self.peers.get_mut(&id)) {
                    peer.join_due = true;
                }
            }
            Progress::Copying(_) => self.mind_copy(now),
            Progress::CatchingUp { .. } => {
                self.ask_to_be_recorded(now);
                self.finish_catching_up();
            }
            Progress::Member => {
                self.replace_earlier(now)?;
                self.evict_silent(now)?;
            }
            Progress::Fresh | Progress::Asking { .. } | Progress::Removed => {}
        }
        Ok(())
    }

    /// Takes earlier incarnations of this PoP out that are members still: who let this one in had not heard of them, since
    /// another let them in on the other side of a cut.
    fn replace_earlier(&mut self, now: Now) -> Result<(), StoreError> {
        let Some(own) = self.members.find(self.id) else { return Ok(()) };
        let (Some(record), Some(joined)) = (&own.record, own.joined) else { return Ok(()) };
        let is_earlier = |id: &ReplicaId, other: &Member| {
            let is_of_this_pop = other.record.as_ref().is_some_and(|other| other.pop == record.pop);
            *id != self.id && is_of_this_pop && other.joined.is_some_and(|other| other < joined)
        };
        let earlier = self.members.current().filter(|(id, other)| is_earlier(id, other)).map(|(id, _)| id);
        // As when it is let in: two nodes of one PoP that run at a time are for an operator.
        let gone: Vec<ReplicaId> = earlier.filter(|id| !self.is_connected(*id)).collect();
        for id in gone {
            // With a clock that is off it is tried again.
            if let Err(WriteError::Store(error)) =
                self.record(now, removal_entry(id, RemovalReason::Replaced))
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// The connected full member with the shortest round trip.
    pub(super) fn nearest_member(&self) -> Option<ReplicaId> {
        // One who knows no members yet takes the peers' word.
        let is_out = |id: &ReplicaId| self.members.removal(*id).is_some();
        let is_in =
            |id: &ReplicaId, peer: &Peer| peer.connected && peer.stage == Stage::Member && !is_out(id);
        let members = self.peers.iter().filter(|(id, peer)| is_in(id, peer));
        members.min_by_key(|(id, peer)| (peer.rtt_us.unwrap_or(u64::MAX), **id)).map(|(id, _)| *id)
    }

    pub(super) fn membership_due_us(&self) -> Option<u64> {
        match &self.progress {
            Progress::Asking { next_us, .. } => Some(*next_us),
            Progress::Copying(copying) => Some(copying.deadline_us()),
            _ => None,
        }
    }

    /// The copy is complete; what the connected members hold beyond it is still to come.
    pub(super) fn catch_up_with_members(&mut self) {
        let mut target = VersionVector::default();
        let connected = self.peers.iter().filter(|(id, peer)| peer.connected && self.members.contains(**id));
        connected.for_each(|(_, peer)| target.join(&peer.claims));
        self.progress = Progress::CatchingUp { target };
        self.store_stage();
    }

    fn finish_catching_up(&mut self) {
        let Progress::CatchingUp { target } = &self.progress else { return };
        // What no connected member has any more cannot be waited for.
        let is_complete = target.iter().all(|(origin, wanted)| {
            self.on_offer(origin).is_some_and(|best| self.durable.hlc(origin) >= wanted.hlc.min(best))
        });
        if is_complete && self.is_counted() {
            self.progress = Progress::Member;
            self.store_stage();
            self.emit(Event::MembersChanged);
        }
    }

    /// Our record may be lost to the others with the one who wrote it, who was removed: then one of them writes another.
    fn ask_to_be_recorded(&mut self, now: Now) {
        if self.is_recorded(self.id) || now.mono_us < self.record_due_us {
            return;
        }
        self.record_due_us = now.mono_us + JOIN_EVERY_US;
        if let Some(peer) = self.nearest_member().and_then(|id| self.peers.get_mut(&id)) {
            peer.join_due = true;
        }
    }

    /// The most that a connected member holds of this origin.
    fn on_offer(&self, origin: ReplicaId) -> Option<Hlc> {
        let is_in = |id: &ReplicaId, peer: &Peer| {
            peer.connected && peer.stage == Stage::Member && self.members.contains(*id)
        };
        let members = self.peers.iter().filter(|(id, peer)| is_in(id, peer));
        members.map(|(_, peer)| peer.claims.hlc(origin)).max()
    }

    /// Whether we cover every epoch that anyone may have found without counting us. Who does not know our record
    /// holds less of its writer than its time, so that no such epoch reaches it: it is enough to hold all that
    /// happened up to there. Of a member that nobody hears, all that is to be had must do; should it know more, we
    /// learn that we are behind. (The model of joining in the tests crate shows what less than this leads to.)
    fn is_counted(&self) -> bool {
        let Some(joined) = self.joined_at(self.id) else { return false };
        let members = || self.members.current().map(|(id, _)| id).filter(|id| *id != self.id);
        let holds = |origin| {
            let is_away =
                !self.is_connected(origin) && self.on_offer(origin).is_none_or(|best| best < joined);
            self.durable.hlc(origin) >= joined || is_away
        };
        let all_know_us = members()
            .filter(|id| self.is_heard(*id))
            .all(|id| self.peers.get(&id).is_some_and(|peer| peer.members == Some(self.members.digest())));
        self.is_recorded(self.id) && all_know_us && members().all(holds) && self.holds_all_of_the_removed()
    }

    /// Whether no member we hear holds more of a removed replica: below the epoch its log is gone, and what we lacked
    /// we should lack for ever.
    fn holds_all_of_the_removed(&self) -> bool {
        let removed = self.members.iter().filter(|(_, member)| member.removed.is_some());
        removed.map(|(id, _)| id).all(|id| self.on_offer(id).is_none_or(|best| self.durable.hlc(id) >= best))
    }

    /// As [`Replica::is_counted`], and no member is away: only then can nothing be dropped that we have not seen.
    pub(super) fn is_settled(&self) -> bool {
        let Some(joined) = self.joined_at(self.id) else { return false };
        let mut others = self.members.current().map(|(id, _)| id).filter(|id| *id != self.id);
        others.all(|origin| self.durable.hlc(origin) >= joined) && self.are_cuts_known()
    }

    /// Whether this member's record is by one whose events reach everyone. Those of a removed one from above its cut
    /// do not.
    fn is_recorded(&self, replica: ReplicaId) -> bool {
        let joined = self.members.find(replica).and_then(|member| member.joined);
        joined.is_some_and(|dot| self.members.removal(dot.replica).is_none())
    }

    pub(super) fn is_heard(&self, replica: ReplicaId) -> bool {
        self.peers.get(&replica).is_some_and(|peer| peer.connected && peer.heard)
    }

    pub(super) fn store_stage(&mut self) {
        let row = match &self.progress {
            Progress::Fresh | Progress::Asking { .. } | Progress::Removed => return,
            Progress::Copying(copying) => copying.to_row(),
            Progress::CatchingUp { target } => StageRow::CatchingUp { target: target.clone() },
            Progress::Member => StageRow::Member,
        };
        self.staged.insert(keys::STAGE.to_vec(), Some(member_codec::encode_stage(&row)));
    }

    pub(super) fn load_stage(&mut self) -> Result<(), OpenError> {
        let Some(row) = self.store.read(keys::STAGE)? else { return Ok(()) };
        let row =
            member_codec::decode_stage(&row).map_err(|why| super::damaged("the row of the stage", &why))?;
        self.progress = match row {
            StageRow::Copying { cursor, base } => Progress::Copying(Copying::resumed(cursor, base)),
            StageRow::CatchingUp { target } => Progress::CatchingUp { target },
            StageRow::Member => Progress::Member,
        };
        if let Some((reason, _)) = self.members.removal(self.id) {
            self.leave(reason);
        }
        Ok(())
    }
}
