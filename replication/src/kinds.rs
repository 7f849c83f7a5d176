//! The kinds beside *value*: counters, bounded ones, sets and maps, as joins of what each replica has said last.
//!
//! A state holds one *part* for each replica that has written to it, and only that replica writes its part. A part names the
//! replica's latest event, so a join takes the later part of each replica, and knows of every event whether it is in it. What
//! a removal or an overwrite has seen of others, it marks as *spent*, in their parts, by its own event; of two parts of
//! one event the spent one wins. States travel whole. So a join is commutative, associative, idempotent and monotone,
//! and no context has to be kept beside the parts: who holds a removal's event holds what it removed as spent. These are the
//! state-based observed-remove designs of Shapiro et al. (2011, sections 3.1.3 and 3.3.5) with the causal context folded
//! into the parts, as in Bieniusa et al., "An optimized conflict-free replicated set" (2012).
//!
//! What is spent can go when every member holds the event that has spent it, and so can what has expired: that is
//! the rule of [`crate::replica::epoch`], applied to a part ([`Joined::settle`]). Everyone drops it at one epoch, and nobody
//! can bring it back.
//!
//! | kind | rows | what a part says |
//! |---|---|---|
//! | counter | one | sums of its increments and decrements, and up to where they were reset ([`Counter`]) |
//! | bounded | one | by generations, what it has added, taken and given to others ([`Bounded`]) |
//! | set | one for each member, and a head | the member is in ([`Element`]) |
//! | map | one for each field, and a head | the field's value; the last one is shown ([`Element`]) |
//! | doc | one for each chunk of its history, and a head | the chunk ([`Element`], [`crate::doc`]) |
//!
//! The head of a set, map or document ([`Head`]) is there once the whole was deleted, is to expire, or was described by
//! metadata.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::clock::{Dot, Hlc, ReplicaId};
use crate::entry::Body;
use crate::vector::VersionVector;

mod bounded;
mod counter;
mod element;
mod head;

pub use bounded::{Bounded, BoundedPart, Generation, Tally};
pub use counter::{Counter, CounterPart, MAX_COUNT, Reset};
pub use element::{Content, Element, ElementPart, PartState};
pub use head::{Cleared, Head, MAX_CLEARS, MAX_EXPIRIES, Note, Times};

/// What is asked of an entry that is no value. What becomes of it depends on the entry's state, which the event has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The member is in the set, or the field has this value.
    Put(Content),
    /// The member is out, or the field is gone.
    Remove,
    /// Adds to a counter, bounded or not; a negative amount takes away.
    Add {
        /// How much, at most [`MAX_COUNT`] either way.
        amount: i64,
        /// From that Unix second on what this replica has added counts for nothing, and nothing of what the others have
        /// goes before it. `None` leaves that as it is. Bounded counters do not expire.
        expires_at_s: Option<u64>,
    },
    /// Gives another replica the right to take so much from a bounded counter.
    Give {
        /// To whom.
        to: ReplicaId,
        /// How much, of what this replica may take itself.
        amount: u64,
    },
    /// The counter begins again at zero; or the whole set, map or document is emptied.
    Clear,
    /// Metadata of a counter, or of a whole set, map or document; `None` takes it away.
    Describe(Option<Bytes>),
    /// From that Unix second on, all that was written to the set, map or document until then is gone. `None`: it stays.
    Expire(Option<u64>),
}

impl Change {
    /// A state of the size that an entry has after this change, where it is alone.
    pub fn outline(&self) -> Body {
        let dot = Dot { hlc: Hlc::ZERO.next(), replica: ReplicaId::SENDER };
        match self {
            Self::Put(content) => Element::put(None, dot, content.clone()).into(),
            Self::Add { .. } => Counter::add(None, dot, 0, None).map_or(Body::Tombstone, Body::Counter),
            Self::Give { .. } => Bounded::add(None, dot, 0).map_or(Body::Tombstone, Body::Bounded),
            Self::Remove | Self::Clear => Body::Tombstone,
            Self::Describe(bytes) => Head::describe(None, dot, bytes.clone()).into(),
            Self::Expire(at_s) => Head::expire(None, dot, *at_s).map_or(Body::Tombstone, Body::Head),
        }
    }
}

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A counter's part would pass [`MAX_COUNT`].
    #[error("the counter cannot count further than {MAX_COUNT} at one PoP")]
    TooFar,
    /// When it expires was said anew too often.
    #[error("when it expires was said {MAX_EXPIRIES} times in a minute or two; say it more rarely")]
    TooOften,
    /// More would be taken from a bounded counter, or given away, than this replica has rights to.
    #[error("this PoP holds the rights to take {here} of the {left} that are left as far as it knows")]
    LacksRights {
        /// How much it may take or give.
        here: u64,
        /// What the counter stands at.
        left: u64,
    },
    /// A bounded counter was given an expiry.
    #[error("a bounded counter does not expire: leave out the expiry, and delete it when it is over")]
    NoExpiry,
    /// The change is not one of this kind of entry.
    #[error("an entry of this kind has no such change")]
    WrongKind,
}

/// Whose events everyone holds: what was spent or has expired by then may go.
#[derive(Clone, Copy, Debug)]
pub struct Frontier<'a> {
    /// The epoch.
    pub epoch: Hlc,
    /// What this replica holds.
    pub held: &'a VersionVector,
}

impl Frontier<'_> {
    /// Whether everyone holds this event. One of a removed replica from above its cut is not in the claims.
    pub fn is_stable(&self, dot: Dot) -> bool {
        dot.hlc <= self.epoch && self.held.covers(dot)
    }

    /// Whether the expiry has come for everyone.
    pub(crate) fn is_past(&self, expires_at_s: Option<u64>) -> bool {
        expires_at_s.is_some_and(|at| expiry_hlc(at) <= self.epoch)
    }
}

/// The first moment at which what expires then is gone.
pub(crate) fn expiry_hlc(expires_at_s: u64) -> Hlc {
    Hlc::new(expires_at_s.saturating_mul(1000), 0)
}

/// Whether no reader may see it any more.
fn is_expired(expires_at_s: Option<u64>, now_s: u64) -> bool {
    expires_at_s.is_some_and(|at| at <= now_s)
}

/// What the bodies of these kinds have in common.
pub trait Joined: Clone + Eq + Into<Body> {
    /// The least state that holds the effect of both.
    fn join(&self, other: &Self) -> Self;

    /// The latest event of this replica in it; zero for none.
    fn last_of(&self, replica: ReplicaId) -> Hlc;

    /// Every replica's latest event in it.
    fn dots(&self) -> impl Iterator<Item = Dot>;

    /// The state without what nobody needs any more; `None` if that is all of it.
    fn settle(&self, frontier: Frontier<'_>) -> Option<Self>;

    /// What of this state, which has come with an event, is not dropped here already: who holds all up to the frontier,
    /// and has no part of that time, has had it, and it was over. `None` where that cannot be told apart.
    fn fresh(&self, current: Option<&Self>, frontier: Frontier<'_>) -> Option<Self>;

    /// What this replica has said: its own part, and what it has spent of others. `None` if it has said nothing. The
    /// latest event in it is the replica's.
    fn said_by(&self, replica: ReplicaId) -> Option<Self>;

    /// What `old`, a former incarnation of the replica `new.replica`, has said in this state and `current` does not
    /// hold, said anew upon `current` by the event `new`. What everyone has had and `current` has not, was over.
    fn said_anew(&self, current: Option<&Self>, old: ReplicaId, new: Dot, frontier: Frontier<'_>) -> Self;
}

/// Calls a replica by another name.
fn rename<T>(parts: &mut BTreeMap<ReplicaId, T>, from: ReplicaId, to: ReplicaId) {
    if let Some(part) = parts.remove(&from) {
        parts.insert(to, part);
    }
}

/// The latest of these events. Every state has one.
pub(crate) fn latest(dots: impl Iterator<Item = Dot>) -> Option<Dot> {
    dots.max()
}

#[cfg(test)]
mod tests;
