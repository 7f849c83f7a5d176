//! What is said of a set or map as a whole: that it was emptied, and its metadata.
//!
//! Emptying a set of a million members is one row. It says of each replica up to which event the members are gone: all that
//! whoever emptied it held. Members put meanwhile elsewhere survive. When every member of the cluster holds the
//! event, the rows are dropped ([`crate::replica::epoch`]), and then the head's word of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Frontier, Joined, rename};
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::vector::VersionVector;

/// The state of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// Each replica's latest event on the head.
    pub events: BTreeMap<ReplicaId, Hlc>,
    /// What elements' parts are gone, by the replica that wrote them: all up to this event.
    pub cleared: BTreeMap<ReplicaId, Hlc>,
    /// The latest event that emptied the whole.
    pub cleared_by: Option<Dot>,
    /// The metadata; the last writer wins.
    pub note: Option<Note>,
}

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
        let seen = Self {
            events: BTreeMap::from([(dot.replica, dot.hlc)]),
            cleared: held.iter().map(|(origin, position)| (origin, position.hlc)).collect(),
            cleared_by: Some(dot),
            note: head.note.as_ref().map(|_| Note { dot, bytes: None }),
        };
        head = head.join(&seen);
        head.cleared.insert(dot.replica, dot.hlc);
        head
    }

    /// The state after the event `dot` has described the whole.
    pub(crate) fn describe(current: Option<&Self>, dot: Dot, bytes: Option<Bytes>) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        head.events.insert(dot.replica, dot.hlc);
        head.note = Some(Note { dot, bytes });
        head
    }

    pub(crate) fn rename(&mut self, from: ReplicaId, to: ReplicaId) {
        rename(&mut self.events, from, to);
        rename(&mut self.cleared, from, to);
        let dots = self.cleared_by.as_mut().into_iter().chain(self.note.as_mut().map(|note| &mut note.dot));
        dots.filter(|dot| dot.replica == from).for_each(|dot| dot.replica = to);
    }

    /// The metadata.
    pub fn metadata(&self) -> Option<&Bytes> {
        self.note.as_ref().and_then(|note| note.bytes.as_ref())
    }

    /// Whether everyone knows that the whole was emptied, so that the rows of what is gone may go.
    pub fn is_clear_stable(&self, frontier: Frontier<'_>) -> bool {
        self.cleared_by.is_some_and(|by| frontier.is_stable(by))
    }

    /// The state when those rows are gone; `None` if nothing is left to say.
    pub(crate) fn without_clear(&self, frontier: Frontier<'_>) -> Option<Self> {
        Self { cleared: BTreeMap::new(), cleared_by: None, ..self.clone() }.settle(frontier)
    }
}

fn join_times(one: &BTreeMap<ReplicaId, Hlc>, two: &BTreeMap<ReplicaId, Hlc>) -> BTreeMap<ReplicaId, Hlc> {
    let mut joined = one.clone();
    for (replica, hlc) in two {
        let ours = joined.entry(*replica).or_default();
        *ours = (*ours).max(*hlc);
    }
    joined
}

impl Joined for Head {
    fn join(&self, other: &Self) -> Self {
        Self {
            events: join_times(&self.events, &other.events),
            cleared: join_times(&self.cleared, &other.cleared),
            cleared_by: self.cleared_by.max(other.cleared_by),
            note: self.note.clone().max(other.note.clone()),
        }
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
        for dot in self.cleared_by.into_iter().chain(note.as_ref().map(|note| note.dot)) {
            let event = events.entry(dot.replica).or_default();
            *event = (*event).max(dot.hlc);
        }
        (!events.is_empty()).then(|| Self { events, note, ..self.clone() })
    }

    fn said_by(&self, replica: ReplicaId) -> Option<Self> {
        let event = *self.events.get(&replica)?;
        let cleared_by = self.cleared_by.filter(|by| by.replica == replica);
        let cleared = if cleared_by.is_some() { self.cleared.clone() } else { BTreeMap::new() };
        let note = self.note.clone().filter(|note| note.dot.replica == replica);
        Some(Self { events: BTreeMap::from([(replica, event)]), cleared, cleared_by, note })
    }

    fn said_anew(&self, current: Option<&Self>, _old: ReplicaId, new: Dot) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        head.events.insert(new.replica, new.hlc);
        if self.cleared_by.is_some() {
            head.cleared = join_times(&head.cleared, &self.cleared);
            head.cleared_by = Some(new);
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
