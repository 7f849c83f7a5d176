//! What is said of a set or map as a whole: that it was emptied, and its metadata.
//!
//! Emptying a set of a million members is one row. It says of each replica up to which event the members are gone: all that
//! whoever emptied it held. Members put meanwhile elsewhere survive. When every member of the cluster holds the
//! event, the rows are dropped ([`crate::replica::epoch`]), and then the head's word of it. Each emptying is kept
//! by itself until then, so that everyone drops the same rows at one epoch.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Frontier, Joined, rename};
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::vector::VersionVector;

/// The state of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Each replica's latest event on the head.
    pub events: Times,
    /// The events that emptied the whole, with the parts of elements that went: by the replica that wrote them, all up to
    /// this event. Of more than [`MAX_CLEARS`] the latest are told as one.
    pub clears: BTreeMap<Dot, Times>,
    /// The metadata; the last writer wins.
    pub note: Option<Note>,
}

/// Of each replica, an event.
pub type Times = BTreeMap<ReplicaId, Hlc>;

/// The most emptyings that a head tells apart.
pub const MAX_CLEARS: usize = 16;

/// Metadata. In the order of a join.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The event that wrote it.
    pub dot: Dot,
    /// Serialised JSON, at most [`crate::entry::MAX_METADATA_BYTES`]; `None` where it was taken away.
    pub bytes: Option<Bytes>,
}

impl Head {
    /// The state after the event `dot`, whose writer holds `held`, has emptied the whole.
    pub(crate) fn clear(current: Option<&Self>, dot: Dot, held: &VersionVector) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        let mut cleared: Times = held.iter().map(|(origin, position)| (origin, position.hlc)).collect();
        cleared.insert(dot.replica, dot.hlc);
        head.events.insert(dot.replica, dot.hlc);
        head.clears.insert(dot, cleared);
        head.note = head.note.map(|_| Note { dot, bytes: None });
        head.coalesced()
    }

    /// The state after the event `dot` has described the whole.
    pub(crate) fn describe(current: Option<&Self>, dot: Dot, bytes: Option<Bytes>) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        head.events.insert(dot.replica, dot.hlc);
        head.note = Some(Note { dot, bytes });
        head
    }

    pub(crate) fn rename(&mut self, from: ReplicaId, to: ReplicaId) {
        let renamed = |dot: Dot| Dot { replica: if dot.replica == from { to } else { dot.replica }, ..dot };
        rename(&mut self.events, from, to);
        let clears = std::mem::take(&mut self.clears).into_iter();
        self.clears = clears.map(|(dot, cleared)| (renamed(dot), cleared)).collect();
        self.clears.values_mut().for_each(|cleared| rename(cleared, from, to));
        self.note = self.note.take().map(|note| Note { dot: renamed(note.dot), ..note });
    }

    /// The metadata.
    pub fn metadata(&self) -> Option<&Bytes> {
        self.note.as_ref().and_then(|note| note.bytes.as_ref())
    }

    /// Up to where each replica's elements are gone.
    pub fn cleared(&self) -> Times {
        self.clears.values().fold(Times::new(), join_times)
    }

    /// Up to where they are gone by what everyone knows of, so that their rows may go; `None` where there is nothing.
    pub fn cleared_for_all(&self, frontier: Frontier<'_>) -> Option<Times> {
        let mut stable = self.clears.iter().filter(|(by, _)| frontier.is_stable(**by)).peekable();
        stable.peek()?;
        Some(stable.map(|(_, cleared)| cleared).fold(Times::new(), join_times))
    }

    /// The state when those rows are gone; `None` if nothing is left to say.
    pub(crate) fn without_clears_for_all(&self, frontier: Frontier<'_>) -> Option<Self> {
        let clears = self.clears.iter().filter(|(by, _)| !frontier.is_stable(**by));
        let clears = clears.map(|(by, cleared)| (*by, cleared.clone())).collect();
        Self { clears, ..self.clone() }.settle(frontier)
    }

    /// With the latest emptyings as one, where there are too many.
    fn coalesced(mut self) -> Self {
        while self.clears.len() > MAX_CLEARS {
            let (Some((by, latest)), Some((_, before))) = (self.clears.pop_last(), self.clears.pop_last())
            else {
                break;
            };
            self.clears.insert(by, join_times(before, &latest));
        }
        self
    }
}

fn join_times(mut one: Times, two: &Times) -> Times {
    for (replica, hlc) in two {
        let ours = one.entry(*replica).or_default();
        *ours = (*ours).max(*hlc);
    }
    one
}

impl Joined for Head {
    fn join(&self, other: &Self) -> Self {
        let mut clears = self.clears.clone();
        for (by, theirs) in &other.clears {
            let ours = clears.remove(by).unwrap_or_default();
            clears.insert(*by, join_times(ours, theirs));
        }
        let events = join_times(self.events.clone(), &other.events);
        Self { events, clears, note: self.note.clone().max(other.note.clone()) }.coalesced()
    }

    fn last_of(&self, replica: ReplicaId) -> Hlc {
        self.events.get(&replica).copied().unwrap_or_default()
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        self.events.iter().map(|(replica, hlc)| Dot { hlc: *hlc, replica: *replica })
    }

    /// What was emptied stays said: the sweep takes it back when the rows are gone.
    fn settle(&self, frontier: Frontier<'_>) -> Option<Self> {
        let is_over = |note: &Note| note.bytes.is_none() && frontier.is_stable(note.dot);
        let note = self.note.clone().filter(|note| !is_over(note));
        let is_new =
            |(replica, hlc): &(&ReplicaId, &Hlc)| !frontier.is_stable(Dot { hlc: **hlc, replica: **replica });
        let mut events: BTreeMap<_, _> =
            self.events.iter().filter(is_new).map(|(replica, hlc)| (*replica, *hlc)).collect();
        // What is still said stays under its event, whatever else that replica has said since.
        for dot in self.clears.keys().copied().chain(note.as_ref().map(|note| note.dot)) {
            let event = events.entry(dot.replica).or_default();
            *event = (*event).max(dot.hlc);
        }
        (!events.is_empty()).then(|| Self { events, note, ..self.clone() })
    }

    fn said_by(&self, replica: ReplicaId) -> Option<Self> {
        let event = *self.events.get(&replica)?;
        let clears = self.clears.iter().filter(|(by, _)| by.replica == replica);
        let clears = clears.map(|(by, cleared)| (*by, cleared.clone())).collect();
        let note = self.note.clone().filter(|note| note.dot.replica == replica);
        Some(Self { events: BTreeMap::from([(replica, event)]), clears, note })
    }

    fn fresh(&self, current: Option<&Self>, frontier: Frontier<'_>) -> Option<Self> {
        let nothing = Self::default();
        let current = current.unwrap_or(&nothing);
        let is_new = |dot: Dot| !frontier.is_stable(dot);
        let events = self.events.iter().map(|(replica, hlc)| Dot { hlc: *hlc, replica: *replica });
        let events = events.filter(|dot| is_new(*dot) || current.last_of(dot.replica) >= dot.hlc);
        let clears = self.clears.iter().filter(|(by, _)| is_new(**by) || current.clears.contains_key(by));
        let note = self.note.clone().filter(|note| is_new(note.dot) || current.note.is_some());
        Some(Self {
            events: events.map(|dot| (dot.replica, dot.hlc)).collect(),
            clears: clears.map(|(by, cleared)| (*by, cleared.clone())).collect(),
            note,
        })
    }

    fn said_anew(&self, current: Option<&Self>, _old: ReplicaId, new: Dot) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        head.events.insert(new.replica, new.hlc);
        if !self.clears.is_empty() {
            head.clears.insert(new, self.cleared());
            head = head.coalesced();
        }
        if let Some(note) = &self.note {
            let is_newest = head.note.as_ref().is_none_or(|ours| ours.dot < note.dot);
            head.note =
                if is_newest { Some(Note { dot: new, bytes: note.bytes.clone() }) } else { head.note };
        }
        head
    }
}

impl From<Head> for crate::entry::Body {
    fn from(head: Head) -> Self {
        Self::Head(head)
    }
}
