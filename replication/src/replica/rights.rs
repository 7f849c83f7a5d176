//! Moving rights of bounded counters to where a writer lacks them.
//!
//! While a writer waits, the member that holds the most is asked, then the next; when all were asked, it begins anew.
//! Who is asked gives what is lacking, and half of what it has left after that, so that the next writer need not wait.
//! The rule this file upholds: a question gets nothing that is on its way already. It says what its sender had received
//! from the one it asks; that is less than what was given, until the gift has arrived there.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, MessageError, Replica, WriteError};
use crate::clock::{Now, ReplicaId};
use crate::codec::message::{RightsWanted, Stage};
use crate::entry::{Body, EntryId, Kind};
use crate::kinds::{Bounded, Change};
use crate::store::{Store, StoreError};

/// The most bounded counters for which rights are asked at once.
pub const MAX_RIGHTS_WANTED: usize = 1_024;

/// A member that was asked is given so long before the next is, and all of them before they are asked again.
const ASK_AGAIN_US: u64 = 400_000;

/// What writers wait for.
#[derive(Debug, Default)]
pub(super) struct Rights {
    wanted: BTreeMap<EntryId, Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// How much is to be taken.
    amount: u64,
    /// Nobody waits for it after that.
    until_us: u64,
    /// Whom to ask next is looked up then.
    ask_us: u64,
    /// Who was asked is asked again from then on.
    again_us: u64,
    asked: BTreeSet<ReplicaId>,
}

impl Rights {
    /// When the next is to be asked.
    pub(super) fn due_us(&self) -> Option<u64> {
        self.wanted.values().map(|wanted| wanted.ask_us.min(wanted.until_us)).min()
    }

    /// Takes note of a state that came in: what was given may have arrived, and be too little.
    pub(super) fn note(&mut self, id: &EntryId) {
        if id.kind == Kind::Bounded
            && let Some(wanted) = self.wanted.get_mut(id)
        {
            wanted.ask_us = 0;
        }
    }
}

impl<S: Store> Replica<S> {
    /// Has the other members asked for rights to a bounded counter, until this replica may take `amount` from it, or
    /// `until_us` by the monotonic clock. They come as events do. False where rights to [`MAX_RIGHTS_WANTED`] others are
    /// asked for already.
    pub fn want_rights(&mut self, id: EntryId, amount: u64, until_us: u64) -> bool {
        let rights = &mut self.rights.wanted;
        if rights.len() >= MAX_RIGHTS_WANTED && !rights.contains_key(&id) {
            return false;
        }
        let wanted = rights.entry(id).or_default();
        wanted.amount = wanted.amount.max(amount);
        wanted.until_us = wanted.until_us.max(until_us);
        true
    }

    /// Chooses whom to ask, where that is due.
    pub(super) fn ask_for_rights(&mut self, now: Now) -> Result<(), StoreError> {
        self.rights.wanted.retain(|_, wanted| wanted.until_us > now.mono_us);
        let is_due = |wanted: &Wanted| wanted.ask_us <= now.mono_us;
        let due = self.rights.wanted.iter().filter(|(_, wanted)| is_due(wanted));
        let due: Vec<EntryId> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let bounded = self.bounded(&id)?.unwrap_or_default();
            let here = bounded.rights(self.id);
            let Some(wanted) = self.rights.wanted.get_mut(&id) else { continue };
            if here >= wanted.amount {
                self.rights.wanted.remove(&id);
                continue;
            }
            if wanted.again_us <= now.mono_us {
                wanted.asked.clear();
            }
            let is_askable = |replica: &ReplicaId| {
                self.members.contains(*replica)
                    && self.peers.get(replica).is_some_and(|peer| peer.connected)
                    && !wanted.asked.contains(replica)
            };
            let holders = bounded.holders();
            let most =
                holders.iter().filter(|(replica, _)| is_askable(replica)).max_by_key(|(_, rights)| **rights);
            if wanted.asked.is_empty() || most.is_some() {
                wanted.again_us = now.mono_us + ASK_AGAIN_US;
            }
            wanted.ask_us = wanted.again_us;
            let Some((holder, _)) = most else { continue };
            wanted.asked.insert(*holder);
            if let Some(peer) = self.peers.get_mut(holder) {
                peer.rights_due.insert(id);
            }
        }
        Ok(())
    }

    /// The next question to this peer.
    pub(super) fn next_rights_wanted(&mut self, to: ReplicaId) -> Result<Option<RightsWanted>, StoreError> {
        loop {
            let Some(peer) = self.peers.get_mut(&to) else { return Ok(None) };
            let Some(id) = peer.rights_due.pop_first() else { return Ok(None) };
            let Some(amount) = self.rights.wanted.get(&id).map(|wanted| wanted.amount) else { continue };
            let bounded = self.bounded(&id)?.unwrap_or_default();
            let lacking = amount.saturating_sub(bounded.rights(self.id));
            if lacking > 0 {
                let received = bounded.given(to, self.id);
                return Ok(Some(RightsWanted { id, lacking, received }));
            }
        }
    }

    /// Gives a member rights that it lacks, of those that this replica holds.
    pub(super) fn handle_rights(
        &mut self,
        now: Now,
        from: ReplicaId,
        wanted: RightsWanted,
    ) -> Result<(), MessageError> {
        let RightsWanted { id, lacking, received } = wanted;
        if id.kind != Kind::Bounded {
            return Err(MessageError::Protocol {
                reason: "it wants rights to what is no bounded counter".into(),
            });
        }
        if self.stage() != Stage::Member || !self.members.contains(from) {
            return Ok(());
        }
        // Of two that lack rights one keeps its own, or they would hand them to and fro.
        if self.rights.wanted.contains_key(&id) && self.id < from {
            return Ok(());
        }
        let Some(bounded) = self.bounded(&id)? else { return Ok(()) };
        let on_its_way = bounded.given(self.id, from).saturating_sub(received);
        let lacking = lacking.saturating_sub(on_its_way);
        let here = bounded.rights(self.id);
        let amount = here.min(lacking.saturating_add(here.saturating_sub(lacking) / 2));
        if lacking == 0 || amount == 0 {
            return Ok(());
        }
        match self.append_change(now, &id, Change::Give { to: from, amount }) {
            Ok(dot) => {
                let body = self.entry(&id)?.map_or(Body::Tombstone, |entry| entry.body);
                self.emit(Event::Recorded { dot, id, body });
                Ok(())
            }
            Err(WriteError::Store(error)) => Err(error.into()),
            // A clock that is off, say: another is asked.
            Err(_) => Ok(()),
        }
    }

    fn bounded(&self, id: &EntryId) -> Result<Option<Bounded>, StoreError> {
        Ok(self.entry(id)?.and_then(|entry| match entry.body {
            Body::Bounded(bounded) => Some(bounded),
            _ => None,
        }))
    }
}
