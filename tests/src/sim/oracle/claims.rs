//! What holds at any moment: claims, origins, lag, epochs.

use replication::codec::message::Stage;
use replication::entry::{Kind, Settled};
use replication::kinds::Frontier;
use replication::{Body, Dot, Entry, EntryId, Hlc, Now, Replica, ReplicaId, Store, VersionVector};

use super::{NAMESPACE, Oracle};
use crate::sim::rows::{self, States};

impl Oracle {
    /// Takes note of what this replica claims, and of the members it knows. Call it before [`Oracle::check_epoch`].
    pub(crate) fn note(&mut self, id: ReplicaId, vector: &VersionVector) {
        self.claims.entry(id).or_default().join(vector);
    }

    /// Takes note of the members a replica knows, and whether it is a full one itself.
    pub(crate) fn note_members(&mut self, replica: &Replica<impl Store>) {
        if replica.stage() == Stage::Member {
            self.full_members.insert(replica.id());
        }
        for (id, member) in replica.members().iter() {
            let known = self.members.entry(id).or_default();
            // One whose sponsor was removed is recorded anew, later.
            known.0 = member.joined.max(known.0);
            known.1 |= member.removed.is_some();
        }
    }

    /// The epoch is not above what every full member holds durably of every other. One whose record was written by a
    /// member that was evicted, on that member's side of a cut, may be passed: it is as one evicted.
    pub(crate) fn check_epoch(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        let epoch = replica.epoch();
        let counts =
            |joined: Option<Dot>, removed: bool| !removed && joined.is_some_and(|dot| dot.hlc <= epoch);
        let members: Vec<ReplicaId> = self
            .members
            .iter()
            .filter(|(id, (at, out))| counts(*at, *out) && self.full_members.contains(id))
            .map(|(id, _)| *id)
            .filter(|id| !self.was_let_in_by_a_removed_one(*id))
            .collect();
        let nothing = VersionVector::default();
        for member in &members {
            let claims = self.claims.get(member).unwrap_or(&nothing);
            if let Some(origin) = members.iter().find(|origin| claims.hlc(**origin) < epoch) {
                let upto = claims.hlc(*origin);
                return Err(format!(
                    "{:?} has adopted epoch {epoch}, but {member:?} holds {origin:?} up to {upto} only",
                    replica.id()
                ));
            }
        }
        Ok(())
    }

    /// A store that takes part holds all of every other member that its own epoch covers: what it lacks of that, nobody
    /// could tell it any more.
    pub(crate) fn check_covered(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        let epoch = replica.epoch();
        let from_before = |joined: Option<Dot>| joined.is_some_and(|dot| dot.hlc <= epoch);
        let mut members = replica.members().current().filter(|(_, member)| from_before(member.joined));
        match members.find(|(id, _)| *id != replica.id() && replica.vector().hlc(*id) < epoch) {
            Some((id, _)) if replica.stage().takes_part() => Err(format!(
                "{:?} has adopted epoch {epoch}, and holds {id:?} up to {} only",
                replica.id(),
                replica.vector().hlc(id)
            )),
            _ => Ok(()),
        }
    }

    /// A replica claims all that it has acknowledged itself.
    pub(crate) fn check_own(&self, id: ReplicaId, vector: &VersionVector) -> Result<(), String> {
        let newest = self.durable.keys().filter(|dot| dot.replica == id).max();
        match newest.filter(|dot| !self.doubts(id) && !vector.covers(**dot)) {
            Some(dot) => Err(format!("{id:?} has acknowledged {dot:?}, and does not claim it")),
            None => Ok(()),
        }
    }

    /// The states that a replica holds are what it claims, and what their origins have made durable.
    pub(crate) fn check_states(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        let states = rows::states(replica.store())?;
        self.check_claims(replica, &states)?;
        self.check_claimed_changes(replica, &states)?;
        self.check_origins(replica, &states)
    }

    /// `vector[o] >= t` implies the effect of all of `o`'s acknowledged events up to `t`. An entry may be absent where
    /// the newest of them is over at the replica's epoch.
    fn check_claims(&self, replica: &Replica<impl Store>, states: &States) -> Result<(), String> {
        for (id, _) in self.values() {
            let Some((newest, body)) = self.newest_covered(id, replica.vector()) else { continue };
            let held = states.get(id).map(|state| state.dot);
            let is_right = match held {
                Some(held) => held >= newest,
                None => self.may_be_absent(id, newest, body, replica.epoch()),
            };
            if !is_right {
                return Err(format!(
                    "{:?} claims to hold {newest:?} ({body:?}) on {:?}, and has {held:?}; its epoch is {}",
                    replica.id(),
                    id.key,
                    replica.epoch()
                ));
            }
        }
        Ok(())
    }

    /// What a replica holds of another was durable there before it left.
    fn check_origins(&self, replica: &Replica<impl Store>, states: &States) -> Result<(), String> {
        let is_known = |dot: &Dot| {
            self.durable.contains_key(dot) || self.doubtful_writes.iter().any(|(known, ..)| known == dot)
        };
        let is_foreign = |id: &EntryId, dot: Dot| id.namespace == NAMESPACE && dot.replica != replica.id();
        let foreign =
            states.iter().map(|(id, state)| (id, state.dot)).filter(|(id, dot)| is_foreign(id, *dot));
        match { foreign }.find(|(_, dot)| !is_known(dot)) {
            Some((id, dot)) => Err(format!(
                "{:?} holds {dot:?} on {:?}, which its origin has not made durable",
                replica.id(),
                id.key
            )),
            None => Ok(()),
        }
    }

    /// A replica knows of its own events exactly how many each member lacks.
    pub(crate) fn check_lag(&self, replica: &Replica<impl Store>, now: Now) -> Result<(), String> {
        let me = replica.id();
        if self.doubts(me) {
            return Ok(());
        }
        let lags = replica.lag(now).map_err(|error| error.to_string())?;
        for peer in replica.peers().filter(|peer| replica.members().contains(peer.replica)) {
            let missing = self.durable_after(me, peer.claims.hlc(me), replica.vector().hlc(me));
            let said = lags.iter().find(|lag| lag.origin == me && lag.replica == peer.replica);
            let said = said.ok_or_else(|| format!("{me:?} does not tell the lag of {:?}", peer.replica))?;
            if said.ops != missing {
                return Err(format!(
                    "{me:?} says {:?} lacks {} events, and it lacks {missing}",
                    peer.replica, said.ops
                ));
            }
        }
        Ok(())
    }

    /// Durable events of `origin` after one time and up to another.
    fn durable_after(&self, origin: ReplicaId, after: Hlc, upto: Hlc) -> u64 {
        let inside = |dot: &&Dot| dot.replica == origin && dot.hlc > after && dot.hlc <= upto;
        self.durable.keys().filter(inside).count() as u64
    }

    /// What is over at a replica's epoch is gone from its store when it says so.
    pub(crate) fn check_swept(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        if !replica.is_swept() {
            return Ok(());
        }
        let epoch = replica.epoch();
        let entries = rows::entries(replica.store())?;
        // What a removed replica wrote above its cut, and this one holds ahead of its claims, stays.
        let is_claimed = |dot: &Dot| replica.vector().covers(*dot);
        let left =
            entries.iter().find(|(_, (dot, body))| rows::is_over(*dot, body, epoch) && is_claimed(dot));
        match left {
            Some((id, (dot, _))) => {
                Err(format!("{:?} still has {:?} by {dot:?} after epoch {epoch}", replica.id(), id.key))
            }
            None => self.check_settled(replica),
        }
    }

    /// As [`Oracle::check_swept`], of what is made of parts.
    fn check_settled(&self, replica: &Replica<impl Store>) -> Result<(), String> {
        let frontier = Frontier { epoch: replica.epoch(), held: replica.vector() };
        let is_emptied = |entry: &Entry| matches!(&entry.body, Body::Head(head) if head.cleared_for_all(frontier).is_some());
        let states = rows::states(replica.store())?.into_iter().filter(|(id, _)| id.kind != Kind::Value);
        let mut left =
            states.filter(|(_, entry)| entry.settled(frontier) != Settled::Same || is_emptied(entry));
        match left.next() {
            Some((id, entry)) => Err(format!(
                "{:?} still has {entry:?} of {id:?} after epoch {}",
                replica.id(),
                frontier.epoch
            )),
            None => Ok(()),
        }
    }

    /// Whether a session that has seen a state of this entry may find nothing now: what came to be known here since is
    /// over.
    pub(crate) fn may_be_gone(&self, id: &EntryId, seen: Dot, replica: &Replica<impl Store>) -> bool {
        let is_over = |(dot, body)| self.may_be_absent(id, dot, body, replica.epoch());
        let is_gone = |vector| self.newest_covered(id, vector).is_none_or(is_over);
        // A veil may hide what came last, and show what is over by now: what was seen itself, or what came after it.
        let shown_is_over = || self.states_since(id, seen).any(is_over);
        is_gone(replica.vector()) || is_gone(&replica.shown()) || shown_is_over()
    }
}
