//! Writes of this replica's own.

use super::Replica;
use super::push::MAX_AHEAD_MS;
use super::skew::CLOCK_SKEW_LIMIT_MS;
use crate::clock::{Dot, Now};
use crate::codec::message::Stage;
use crate::entry::{Body, Entry, EntryId};
use crate::kinds::{Change, ChangeError};
use crate::store::{Store, StoreError};

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change is not one that this entry can take.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// This replica is not a full member of its cluster: not yet, or no more.
    #[error("this replica is no member of the cluster, or not yet")]
    NotMember,
    /// This member is being drained.
    #[error("this member is being drained")]
    Draining,
    /// This replica's clock is further from its peers' than [`CLOCK_SKEW_LIMIT_MS`].
    #[error("the clock is {skew_ms} ms away from the peers' median")]
    ClockSkew {
        /// Ours less theirs.
        skew_ms: i64,
    },
    /// This replica's clock is further than [`MAX_AHEAD_MS`] behind an event it holds: it has been set back,
    /// and peers would put off what it wrote now.
    #[error("the clock is {behind_ms} ms behind events that are already here")]
    ClockBehind {
        /// How far.
        behind_ms: u64,
    },
}

impl<S: Store> Replica<S> {
    /// Stages a write of this replica's own and gives its event. It may be acknowledged as durable after
    /// the next [`Replica::flush`].
    pub fn write(&mut self, now: Now, id: EntryId, body: Body) -> Result<Dot, WriteError> {
        self.check_not_draining()?;
        self.append(now, id.clone(), |replica, current, dot| {
            Ok(replica.over_what_is_seen(&id, current, dot, body)?)
        })
    }

    /// As [`Replica::write`], for the kinds beside value: what is written follows from the entry's state.
    pub fn change(&mut self, now: Now, id: EntryId, change: Change) -> Result<Dot, WriteError> {
        self.check_not_draining()?;
        self.append_change(now, &id, change)
    }

    pub(super) fn append_change(
        &mut self,
        now: Now,
        id: &EntryId,
        change: Change,
    ) -> Result<Dot, WriteError> {
        self.append(now, id.clone(), |replica, current, dot| replica.changed(id, current, change, dot))
    }

    /// The state that this change leaves.
    pub(super) fn changed(
        &self,
        id: &EntryId,
        current: Option<&Entry>,
        change: Change,
        dot: Dot,
    ) -> Result<Entry, WriteError> {
        Ok(Entry::over(current, dot, Entry::changed(id, current, change, dot, &self.held)?))
    }

    pub(super) fn check_not_draining(&self) -> Result<(), WriteError> {
        let draining = self.members.find(self.id).is_some_and(|me| me.draining);
        if draining { Err(WriteError::Draining) } else { Ok(()) }
    }

    /// Stages a new event of this replica, which writes what `state` makes of the entry's state and the event's dot.
    pub(super) fn append(
        &mut self,
        now: Now,
        id: EntryId,
        state: impl FnOnce(&Self, Option<&Entry>, Dot) -> Result<Entry, WriteError>,
    ) -> Result<Dot, WriteError> {
        self.check_may_write(now)?;
        self.commit_if_full()?;
        self.append_event(now, (id, false), state)
    }

    /// Whether this replica may write anything now.
    pub(super) fn check_may_write(&self, now: Now) -> Result<(), WriteError> {
        self.check_usable()?;
        if self.stage() != Stage::Member {
            return Err(WriteError::NotMember);
        }
        if let Some(skew_ms) = self.clock_skew_ms().filter(|skew| skew.unsigned_abs() > CLOCK_SKEW_LIMIT_MS) {
            return Err(WriteError::ClockSkew { skew_ms });
        }
        let behind_ms = self.clock.last().wall_ms().saturating_sub(now.wall_ms);
        if behind_ms > MAX_AHEAD_MS {
            return Err(WriteError::ClockBehind { behind_ms });
        }
        Ok(())
    }

    /// As [`Replica::append`], once that is made sure of, and into the batch of the store that is being staged. It may be of
    /// a batch that goes on with the next event.
    pub(super) fn append_event(
        &mut self,
        now: Now,
        (id, goes_on): (EntryId, bool),
        state: impl FnOnce(&Self, Option<&Entry>, Dot) -> Result<Entry, WriteError>,
    ) -> Result<Dot, WriteError> {
        let dot = Dot { hlc: self.clock.tick(now), replica: self.id };
        let current = self.entry(&id)?;
        let entry = state(self, current.as_ref(), dot)?;
        let written = id.user_bytes() as u64 + entry.user_bytes();
        let position = self.held.position(self.id).after(dot.hlc, written);
        self.apply_event_over(current, self.id, position, (&id, goes_on), Some(entry))?;
        self.show_own_write(&id)?;
        self.claim(self.id, position)?;
        Ok(dot)
    }
}
