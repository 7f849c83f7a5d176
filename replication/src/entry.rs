//! What a replica stores: entries, their names, and how two states of one entry merge.
//!
//! How the kinds beside *value* merge is told in [`crate::kinds`].
//!
//! An entry of kind *value* is a last-writer-wins register (Shapiro et al., "A comprehensive study of
//! Convergent and Commutative Replicated Data Types", 2011, section 3.2.1): the greater [`Dot`] wins, and
//! payload, metadata and expiry travel as one. A delete is a state like any other, a tombstone.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::clock::{Dot, Hlc, NotHex, ReplicaId, parse_hex};
use crate::kinds::{
    Bounded, Change, ChangeError, Counter, Element, Frontier, Head, Joined, expiry_hlc, latest,
};
use crate::vector::VersionVector;

mod body;

pub use body::{Body, ChunkId, Manifest, Payload, Value};

/// The longest key, in bytes of UTF-8 (the limit of Workers KV).
pub const MAX_KEY_BYTES: usize = 512;
/// The longest member of a set, or name of a field of a map, in bytes.
pub const MAX_ELEMENT_BYTES: usize = 512;
/// The longest metadata, in bytes of serialised JSON (the limit of Workers KV).
pub const MAX_METADATA_BYTES: usize = 1024;
/// The largest value (the limit of Workers KV: 25 MiB).
pub const MAX_VALUE_BYTES: u64 = 25 << 20;
/// The largest value kept inside its row; a larger one is a [`Manifest`] of chunks.
pub const MAX_INLINE_BYTES: usize = 16 << 10;
/// The size of every chunk of a large value but its last.
pub const CHUNK_BYTES: usize = 512 << 10;

/// A namespace, as the API shows it: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub [u8; 16]);

impl NamespaceId {
    /// Where the cluster keeps its own entries (the list of namespaces); never served to applications.
    pub const SYSTEM: Self = Self([0; 16]);
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NamespaceId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self)
    }
}

/// How an entry merges. Part of its name, so that two kinds never meet in a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Last writer wins.
    Value = 1,
    /// Sums of increments and decrements.
    Counter = 2,
    /// Members, put and removed one by one: one entry each.
    Set = 3,
    /// Fields with values: one entry each.
    Map = 4,
    /// A document that all may edit: one entry for each chunk of its history ([`crate::doc`]).
    Doc = 5,
    /// A sum that never goes below zero.
    Bounded = 6,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 6] = [Self::Value, Self::Counter, Self::Set, Self::Map, Self::Doc, Self::Bounded];

    /// Its name in documents, URLs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Map => "map",
            Self::Doc => "doc",
            Self::Bounded => "bounded",
        }
    }

    /// Whether an entry of this kind is one of many under its key.
    pub const fn has_elements(self) -> bool {
        matches!(self, Self::Set | Self::Map | Self::Doc)
    }

    /// The kind of this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The namespace it belongs to.
    pub namespace: NamespaceId,
    /// How it merges.
    pub kind: Kind,
    /// UTF-8, 1 to [`MAX_KEY_BYTES`] bytes; checked where it enters.
    pub key: Bytes,
    /// The member of a set, the field of a map, or the name of a document's chunk, 1 to [`MAX_ELEMENT_BYTES`] bytes; empty
    /// for their heads, and for kinds without elements.
    pub element: Bytes,
}

impl EntryId {
    /// The entry of kind value under `key`.
    pub fn value(namespace: NamespaceId, key: impl Into<Bytes>) -> Self {
        Self::whole(namespace, Kind::Value, key)
    }

    /// The entry that stands for all of `key`: the only one, or the head of a set or map.
    pub fn whole(namespace: NamespaceId, kind: Kind, key: impl Into<Bytes>) -> Self {
        Self { namespace, kind, key: key.into(), element: Bytes::new() }
    }

    /// The entry of a member or field.
    pub fn element(
        namespace: NamespaceId,
        kind: Kind,
        key: impl Into<Bytes>,
        element: impl Into<Bytes>,
    ) -> Self {
        Self { namespace, kind, key: key.into(), element: element.into() }
    }

    /// Bytes of its name that the application has chosen.
    pub fn user_bytes(&self) -> usize {
        self.key.len() + self.element.len()
    }
}

/// One state of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The event that wrote this state.
    pub dot: Dot,
    /// What it wrote.
    pub body: Body,
    /// Of a value or tombstone: the time of what its writer had there when its run of writes began
    /// ([`Entry::is_unseen_by`]); [`Hlc::ZERO`] where there was nothing, and for what is made of parts.
    pub base: Hlc,
}

impl Entry {
    /// The state that this event leaves where its writer had nothing.
    pub const fn first(dot: Dot, body: Body) -> Self {
        Self { dot, body, base: Hlc::ZERO }
    }

    /// The state that this event of `dot.replica` leaves where its writer has `current`. A write over one's own goes on
    /// with a run of writes, and what the run began with stays its base.
    pub fn over(current: Option<&Entry>, dot: Dot, body: Body) -> Self {
        let base = match current.filter(|current| matches!(current.body, Body::Value(_) | Body::Tombstone)) {
            Some(own) if own.dot.replica == dot.replica && !planted!(RunForgotten) => own.base,
            Some(foreign) => foreign.dot.hlc,
            None => Hlc::ZERO,
        };
        Self { dot, body, base }
    }

    /// The state that a kind with parts is in.
    pub(crate) fn of_parts(body: Body) -> Option<Self> {
        Some(Self::first(latest(body.dots()?.into_iter())?, body))
    }

    /// The least state that holds the effect of both; for values, the one that the later event wrote.
    pub fn join(self, other: Entry) -> Entry {
        let body = match (&self.body, &other.body) {
            (Body::Counter(one), Body::Counter(two)) => Body::Counter(one.join(two)),
            (Body::Bounded(one), Body::Bounded(two)) => Body::Bounded(one.join(two)),
            (Body::Element(one), Body::Element(two)) => Body::Element(one.join(two)),
            (Body::Head(one), Body::Head(two)) => Body::Head(one.join(two)),
            _ => return if self.is_replaced_by(&other) { other } else { self },
        };
        Entry::first(self.dot.max(other.dot), body)
    }

    /// Whether this state, of a value, loses to `winner` though nobody chose that: `winner` comes of a run of writes by
    /// another replica that had not seen this one when it began.
    ///
    /// It asks whether this one is newer than what the run began with. Whoever had seen it by then had it there, or what had
    /// replaced it, so the base is at or above it; that is never taken for a conflict. Where the base is below it, it was
    /// not there, and the run's first write passed over it unseen. If it came later, in the midst of the run, and lost, it
    /// had lost to that first write. Own writes do not raise the base, or the second of a run would hide what the first
    /// passed over.
    ///
    /// A base is one time, where a dotted version vector (Preguiça, Baquero, Almeida et al., "Dotted Version Vectors:
    /// Logical Clocks for Optimistic Replication", 2010) has one for each replica, and tells all that a writer had seen. So
    /// a state that is older than the base, and yet had never reached the writer, is not found here; it is found where it
    /// meets what the base names, before that is overwritten there.
    pub fn is_unseen_by(&self, winner: &Entry) -> bool {
        self.dot.replica != winner.dot.replica && winner.base < self.dot.hlc
    }

    /// Whether `other` replaces this state, of a value. A total order, so merging is commutative, associative and
    /// idempotent. One dot names one event, and so one state, unless two clones of one data folder have
    /// written: then the contents decide, so that replicas agree all the same.
    pub fn is_replaced_by(&self, other: &Entry) -> bool {
        if planted!(TieBreakForgotten) {
            return self.dot.hlc <= other.dot.hlc;
        }
        let contents = || self.body.cmp(&other.body).then(self.base.cmp(&other.base));
        self.dot.cmp(&other.dot).then_with(contents) == Ordering::Less
    }

    /// The latest event of this replica that the state names; zero for none.
    pub fn last_of(&self, replica: ReplicaId) -> Hlc {
        match &self.body {
            Body::Value(_) | Body::Tombstone if self.dot.replica == replica => self.dot.hlc,
            Body::Value(_) | Body::Tombstone => Hlc::ZERO,
            Body::Counter(counter) => counter.last_of(replica),
            Body::Bounded(bounded) => bounded.last_of(replica),
            Body::Element(element) => element.last_of(replica),
            Body::Head(head) => head.last_of(replica),
        }
    }

    /// Whether the state holds the effect of this event, or of one that has replaced it.
    pub fn covers(&self, dot: Dot) -> bool {
        match &self.body {
            Body::Value(_) | Body::Tombstone => self.dot >= dot,
            _ => self.last_of(dot.replica) >= dot.hlc,
        }
    }

    /// The latest event of each replica that the state names; of a value, the one that wrote it.
    pub fn dots(&self) -> Vec<Dot> {
        self.body.dots().unwrap_or_else(|| vec![self.dot])
    }

    /// Whether all events that the state names pass this test.
    pub fn all_dots(&self, passes: impl Fn(Dot) -> bool) -> bool {
        match &self.body {
            Body::Value(_) | Body::Tombstone => passes(self.dot),
            _ => self.dots().into_iter().all(passes),
        }
    }

    /// What is left of the state when everyone holds everything up to the frontier.
    pub fn settled(&self, frontier: Frontier<'_>) -> Settled {
        let body = match &self.body {
            Body::Value(_) | Body::Tombstone => {
                let is_over = self.is_over_at().is_some_and(|at| at <= frontier.epoch);
                return if is_over && frontier.held.covers(self.dot) { Settled::Gone } else { Settled::Same };
            }
            Body::Counter(counter) => counter.settle(frontier).map(Body::Counter),
            Body::Bounded(bounded) => bounded.settle(frontier).map(Body::Bounded),
            Body::Element(element) => element.settle(frontier).map(Body::Element),
            Body::Head(head) => head.settle(frontier).map(Body::Head),
        };
        match body.and_then(Self::of_parts) {
            None => Settled::Gone,
            Some(entry) if entry == *self => Settled::Same,
            Some(entry) => Settled::Less(entry),
        }
    }

    /// The time from which on nobody needs this state, once everybody holds all that happened up to it: a
    /// tombstone's own, or that of an expiry. `None` for a value that stays, and for what is made of parts.
    pub fn is_over_at(&self) -> Option<Hlc> {
        match &self.body {
            Body::Tombstone => Some(self.dot.hlc),
            Body::Value(value) => value.expires_at_s.map(|at| self.dot.hlc.max(expiry_hlc(at))),
            Body::Counter(_) | Body::Bounded(_) | Body::Element(_) | Body::Head(_) => None,
        }
    }

    /// Bytes of application data in this state beside its name: what lag and budgets count.
    pub fn user_bytes(&self) -> u64 {
        self.body.user_bytes()
    }

    /// What of this state, which has come with an event, is not dropped here already ([`Joined::fresh`]).
    pub(crate) fn fresh(&self, current: Option<&Entry>, frontier: Frontier<'_>) -> Option<Body> {
        let current = current.map(|current| &current.body);
        match &self.body {
            Body::Counter(come) => come.fresh(current.and_then(Body::counter), frontier).map(Body::Counter),
            Body::Bounded(come) => come.fresh(current.and_then(Body::bounded), frontier).map(Body::Bounded),
            Body::Element(come) => come.fresh(current.and_then(Body::element), frontier).map(Body::Element),
            Body::Head(come) => come.fresh(current.and_then(Body::head), frontier).map(Body::Head),
            Body::Value(_) | Body::Tombstone => Some(self.body.clone()),
        }
    }

    /// What this replica alone has said in the state, so that its dot is the replica's; `None` if nothing.
    pub fn said_by(&self, replica: ReplicaId) -> Option<Entry> {
        let body = match &self.body {
            Body::Value(_) | Body::Tombstone => return (self.dot.replica == replica).then(|| self.clone()),
            Body::Counter(counter) => Body::Counter(counter.said_by(replica)?),
            Body::Bounded(bounded) => Body::Bounded(bounded.said_by(replica)?),
            Body::Element(element) => Body::Element(element.said_by(replica)?),
            Body::Head(head) => Body::Head(head.said_by(replica)?),
        };
        Self::of_parts(body)
    }

    /// The body that says anew, by the event `new`, what this state of a former incarnation has said.
    pub(crate) fn said_anew(&self, current: Option<&Entry>, new: Dot, frontier: Frontier<'_>) -> Body {
        let old = self.dot.replica;
        let current = current.map(|current| &current.body);
        match &self.body {
            Body::Counter(said) => said.said_anew(current.and_then(Body::counter), old, new, frontier).into(),
            Body::Bounded(said) => said.said_anew(current.and_then(Body::bounded), old, new, frontier).into(),
            Body::Element(said) => said.said_anew(current.and_then(Body::element), old, new, frontier).into(),
            Body::Head(said) => said.said_anew(current.and_then(Body::head), old, new, frontier).into(),
            Body::Value(_) | Body::Tombstone => self.body.clone(),
        }
    }

    /// The body after a change by the event `dot`, whose writer holds `held`.
    pub(crate) fn changed(
        id: &EntryId,
        current: Option<&Entry>,
        change: Change,
        dot: Dot,
        held: &VersionVector,
    ) -> Result<Body, ChangeError> {
        let current = current.map(|current| &current.body);
        let counter = current.and_then(Body::counter);
        let bounded = current.and_then(Body::bounded);
        let element = current.and_then(Body::element);
        let head = current.and_then(Body::head);
        let is_head = id.element.is_empty();
        Ok(match (id.kind, change) {
            (Kind::Counter, Change::Add { amount, expires_at_s }) => {
                Counter::add(counter, dot, amount, expires_at_s)?.into()
            }
            (Kind::Counter, Change::Clear) => Counter::reset(counter, dot).into(),
            (Kind::Counter, Change::Describe(bytes)) => Counter::describe(counter, dot, bytes).into(),
            (Kind::Bounded, Change::Add { expires_at_s: Some(_), .. }) => return Err(ChangeError::NoExpiry),
            (Kind::Bounded, Change::Add { amount: taken @ ..0, .. }) => {
                Bounded::take(bounded, dot, taken.unsigned_abs())?.into()
            }
            (Kind::Bounded, Change::Add { amount, .. }) => {
                Bounded::add(bounded, dot, amount.unsigned_abs())?.into()
            }
            (Kind::Bounded, Change::Give { to, amount }) => Bounded::give(bounded, dot, to, amount)?.into(),
            (Kind::Bounded, Change::Clear) => Bounded::end(bounded, dot).into(),
            (Kind::Bounded, Change::Describe(bytes)) => Bounded::describe(bounded, dot, bytes).into(),
            (kind, Change::Put(content)) if kind.has_elements() && !is_head => {
                Element::put(element, dot, content).into()
            }
            (kind, Change::Remove) if kind.has_elements() && !is_head => Element::remove(element, dot).into(),
            (kind, change) if kind.has_elements() && is_head => match change {
                Change::Clear => Head::clear(head, dot, held).into(),
                Change::Describe(bytes) => Head::describe(head, dot, bytes).into(),
                Change::Expire(at_s) => Head::expire(head, dot, at_s)?.into(),
                _ => return Err(ChangeError::WrongKind),
            },
            _ => return Err(ChangeError::WrongKind),
        })
    }

    /// As another replica is called; in a message, where its sender is not named.
    pub(crate) fn renamed(&mut self, from: ReplicaId, to: ReplicaId) {
        if self.dot.replica == from {
            self.dot.replica = to;
        }
        match &mut self.body {
            Body::Value(_) | Body::Tombstone => {}
            Body::Counter(counter) => counter.rename(from, to),
            Body::Bounded(bounded) => bounded.rename(from, to),
            Body::Element(element) => element.rename(from, to),
            Body::Head(head) => head.rename(from, to),
        }
    }
}

/// What is left of a state ([`Entry::settled`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All of it.
    Same,
    /// This.
    Less(Entry),
    /// Nothing.
    Gone,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::ReplicaId;

    /// Few times and replicas, so that ties are common. One dot names one event, so the body follows from it.
    fn states() -> impl Strategy<Value = Entry> {
        (0..4u64, 0..3u8).prop_map(|(ms, replica)| {
            let dot = Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([replica; 16]) };
            let payload = Payload::Inline(Bytes::from(format!("{ms} {replica}")));
            let value = Value { payload, metadata: None, expires_at_s: None };
            Entry::first(dot, if ms % 3 == 0 { Body::Tombstone } else { Body::Value(value) })
        })
    }

    fn merged(left: &Entry, right: &Entry) -> Entry {
        if left.is_replaced_by(right) { right.clone() } else { left.clone() }
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(a in states(), b in states(), c in states()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a);
        }

        #[test]
        fn merging_never_goes_back(a in states(), b in states()) {
            let merged = merged(&a, &b);
            prop_assert!(merged.dot >= a.dot && merged.dot >= b.dot);
        }
    }

    #[test]
    fn the_lengths_of_chunks_add_up_to_the_value() {
        let chunk_bytes = CHUNK_BYTES as u64;
        for len in [1, chunk_bytes - 1, chunk_bytes, chunk_bytes + 1, 3 * chunk_bytes] {
            let chunks = vec![ChunkId([1; 32]); Manifest::chunk_count(len)];
            let lens: Vec<u64> = Manifest { len, chunks }.parts().map(|(_, bytes)| bytes).collect();
            assert_eq!(lens.iter().sum::<u64>(), len);
            assert!(lens[..lens.len() - 1].iter().all(|bytes| *bytes == chunk_bytes), "{lens:?}");
        }
    }

    #[test]
    fn a_value_is_gone_from_the_second_it_expires_at() {
        let value = Value { payload: Payload::Inline(Bytes::new()), metadata: None, expires_at_s: Some(100) };
        let seen = [99, 100, 101].map(|now_s| value.is_expired(now_s));
        assert_eq!(seen, [false, true, true]);
    }
}
