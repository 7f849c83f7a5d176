//! What is said of a set, map or document as a whole: that it was emptied, when it expires, and its metadata.
//!
//! Emptying a set of a million members is one row. It says of each replica up to which event the members are gone: all that
//! whoever emptied it held. Members put meanwhile elsewhere survive. When every member of the cluster holds the
//! event, the rows are dropped ([`crate::replica::epoch`]), and then the head's word of it. Each emptying is kept
//! by itself until then, so that everyone drops the same rows at one epoch. An expiry is an emptying whose moment is known
//! beforehand: what was written before it goes when it comes, whoever wrote it, and what is written later stays. It comes
//! unless a later event has put it off by then, and that is known of all events before it when the epoch has passed it; so
//! expiries too are kept apart until then.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ChangeError, Frontier, Joined, expiry_hlc, rename};
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
    /// When it expires, by the events that said so; the last one wins, if it was in time. `None`: never.
    pub expiries: BTreeMap<Dot, Option<u64>>,
}

/// Of each replica, an event.
pub type Times = BTreeMap<ReplicaId, Hlc>;

/// The most emptyings that a head tells apart.
pub const MAX_CLEARS: usize = 16;
/// The most times that it can be said anew when a whole expires, until all members know of the first.
pub const MAX_EXPIRIES: usize = 256;

/// Metadata. In the order of a join.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The event that wrote it.
    pub dot: Dot,
    /// Serialised JSON, at most [`crate::entry::MAX_METADATA_BYTES`]; `None` where it was taken away.
    pub bytes: Option<Bytes>,
}

/// Which parts of elements went with the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Of each replica, all up to this event.
    times: Times,
    /// Of everyone, what was written before this.
    expired: Hlc,
}

impl Cleared {
    /// Whether what this event put is gone.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.hlc < self.expired || self.times.get(&dot.replica).is_some_and(|upto| dot.hlc <= *upto)
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty() && self.expired == Hlc::ZERO
    }
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
        if head.expires_at_s().is_some() {
            head.expiries.insert(dot, None);
        }
        head.coalesced()
    }

    /// The state after the event `dot` has described the whole.
    pub(crate) fn describe(current: Option<&Self>, dot: Dot, bytes: Option<Bytes>) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        head.events.insert(dot.replica, dot.hlc);
        head.note = Some(Note { dot, bytes });
        head
    }

    /// The state after the event `dot` has said when the whole expires.
    pub(crate) fn expire(current: Option<&Self>, dot: Dot, at_s: Option<u64>) -> Result<Self, ChangeError> {
        let mut head = current.cloned().unwrap_or_default();
        if head.expiries.len() >= MAX_EXPIRIES {
            return Err(ChangeError::TooOften);
        }
        head.events.insert(dot.replica, dot.hlc);
        head.expiries.insert(dot, at_s);
        Ok(head)
    }

    pub(crate) fn rename(&mut self, from: ReplicaId, to: ReplicaId) {
        let renamed = |dot: Dot| Dot { replica: if dot.replica == from { to } else { dot.replica }, ..dot };
        rename(&mut self.events, from, to);
        let clears = std::mem::take(&mut self.clears).into_iter();
        self.clears = clears.map(|(dot, cleared)| (renamed(dot), cleared)).collect();
        self.clears.values_mut().for_each(|cleared| rename(cleared, from, to));
        self.note = self.note.take().map(|note| Note { dot: renamed(note.dot), ..note });
        let expiries = std::mem::take(&mut self.expiries).into_iter();
        self.expiries = expiries.map(|(dot, at_s)| (renamed(dot), at_s)).collect();
    }

    /// The metadata.
    pub fn metadata(&self) -> Option<&Bytes> {
        self.note.as_ref().and_then(|note| note.bytes.as_ref())
    }

    /// When it expires, in Unix seconds.
    pub fn expires_at_s(&self) -> Option<u64> {
        self.expiries.last_key_value().and_then(|(_, at_s)| *at_s)
    }

    /// The first expiry that is not put off.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        standing_expiries(&self.expiries).filter_map(|(_, at_s)| at_s).min()
    }

    /// What is gone as of `now_s` (Unix seconds).
    pub fn cleared(&self, now_s: u64) -> Cleared {
        let come = standing_expiries(&self.expiries).filter_map(|(_, at_s)| at_s).filter(|at| *at <= now_s);
        Cleared { times: self.cleared_times(), expired: come.max().map_or(Hlc::ZERO, expiry_hlc) }
    }

    /// Up to where each replica's elements were emptied.
    pub(crate) fn cleared_times(&self) -> Times {
        self.clears.values().fold(Times::new(), join_times)
    }

    /// What is gone by what everyone knows of, so that the rows may go; `None` where there is nothing.
    pub fn cleared_for_all(&self, frontier: Frontier<'_>) -> Option<Cleared> {
        let stable = self.clears.iter().filter(|(by, _)| frontier.is_stable(**by));
        let times = stable.map(|(_, cleared)| cleared).fold(Times::new(), join_times);
        let stable = self.stable_expiries(frontier);
        let come =
            standing_expiries(&stable).filter_map(|(_, at_s)| at_s).filter(|at| frontier.is_past(Some(*at)));
        let expired = come.max().map_or(Hlc::ZERO, expiry_hlc);
        Some(Cleared { times, expired }).filter(|cleared| !cleared.is_empty())
    }

    /// The expiries of which everyone knows.
    fn stable_expiries(&self, frontier: Frontier<'_>) -> BTreeMap<Dot, Option<u64>> {
        let stable = self.expiries.iter().filter(|(dot, _)| frontier.is_stable(**dot));
        stable.map(|(dot, at_s)| (*dot, *at_s)).collect()
    }

    /// The state when those rows are gone; `None` if nothing is left to say. What an expiry has put off goes before it, or
    /// it would stand again when that expiry is past.
    pub(crate) fn without_clears_for_all(&self, frontier: Frontier<'_>) -> Option<Self> {
        let mut head = self.settle(frontier)?;
        head.clears.retain(|by, _| !frontier.is_stable(*by));
        head.expiries.retain(|dot, at_s| !(frontier.is_stable(*dot) && frontier.is_past(*at_s)));
        head.settle(frontier)
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

/// The expiries that no later event has put off in time.
fn standing_expiries(expiries: &BTreeMap<Dot, Option<u64>>) -> impl Iterator<Item = (Dot, Option<u64>)> + '_ {
    let later = expiries.keys().skip(1).map(Some).chain([None]);
    let is_put_off = |at_s: Option<u64>, later: Option<&Dot>| {
        later.is_some_and(|later| at_s.is_none_or(|at_s| later.hlc < expiry_hlc(at_s)))
    };
    let standing = expiries.iter().zip(later).filter(move |((_, at_s), later)| !is_put_off(**at_s, *later));
    standing.map(|((dot, at_s), _)| (*dot, *at_s))
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
        let note = self.note.clone().max(other.note.clone());
        let mut expiries = self.expiries.clone();
        expiries.extend(&other.expiries);
        Self { events, clears, note, expiries }.coalesced()
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
        let stable = self.stable_expiries(frontier);
        let standing: BTreeMap<_, _> =
            standing_expiries(&stable).filter(|(_, at_s)| at_s.is_some()).collect();
        let stays = |dot: &Dot| standing.contains_key(dot) || !stable.contains_key(dot);
        let expiries = self.expiries.iter().filter(|(dot, _)| stays(dot));
        let expiries: BTreeMap<_, _> = expiries.map(|(dot, at_s)| (*dot, *at_s)).collect();
        let is_new =
            |(replica, hlc): &(&ReplicaId, &Hlc)| !frontier.is_stable(Dot { hlc: **hlc, replica: **replica });
        let mut events: BTreeMap<_, _> =
            self.events.iter().filter(is_new).map(|(replica, hlc)| (*replica, *hlc)).collect();
        // What is still said stays under its event, whatever else that replica has said since.
        let said = note.as_ref().map(|note| note.dot).into_iter().chain(expiries.keys().copied());
        for dot in self.clears.keys().copied().chain(said) {
            let event = events.entry(dot.replica).or_default();
            *event = (*event).max(dot.hlc);
        }
        (!events.is_empty()).then(|| Self { events, note, expiries, ..self.clone() })
    }

    fn said_by(&self, replica: ReplicaId) -> Option<Self> {
        let event = *self.events.get(&replica)?;
        let clears = self.clears.iter().filter(|(by, _)| by.replica == replica);
        let clears = clears.map(|(by, cleared)| (*by, cleared.clone())).collect();
        let note = self.note.clone().filter(|note| note.dot.replica == replica);
        let expiries = self.expiries.iter().filter(|(by, _)| by.replica == replica);
        let expiries = expiries.map(|(by, at_s)| (*by, *at_s)).collect();
        Some(Self { events: BTreeMap::from([(replica, event)]), clears, note, expiries })
    }

    fn fresh(&self, current: Option<&Self>, frontier: Frontier<'_>) -> Option<Self> {
        let nothing = Self::default();
        let current = current.unwrap_or(&nothing);
        let is_new = |dot: Dot| !frontier.is_stable(dot);
        let events = self.events.iter().map(|(replica, hlc)| Dot { hlc: *hlc, replica: *replica });
        let events = events.filter(|dot| is_new(*dot) || current.last_of(dot.replica) >= dot.hlc);
        let clears = self.clears.iter().filter(|(by, _)| is_new(**by) || current.clears.contains_key(by));
        let note = self.note.clone().filter(|note| is_new(note.dot) || current.note.is_some());
        let expiries =
            self.expiries.iter().filter(|(by, _)| is_new(**by) || current.expiries.contains_key(by));
        Some(Self {
            events: events.map(|dot| (dot.replica, dot.hlc)).collect(),
            clears: clears.map(|(by, cleared)| (*by, cleared.clone())).collect(),
            note,
            expiries: expiries.map(|(by, at_s)| (*by, *at_s)).collect(),
        })
    }

    fn said_anew(&self, current: Option<&Self>, _: ReplicaId, new: Dot, _: Frontier<'_>) -> Self {
        let mut head = current.cloned().unwrap_or_default();
        head.events.insert(new.replica, new.hlc);
        if !self.clears.is_empty() {
            head.clears.insert(new, self.cleared_times());
            head = head.coalesced();
        }
        if let Some(note) = &self.note {
            let is_newest = head.note.as_ref().is_none_or(|ours| ours.dot < note.dot);
            head.note =
                if is_newest { Some(Note { dot: new, bytes: note.bytes.clone() }) } else { head.note };
        }
        if let Some((dot, at_s)) = self.expiries.last_key_value()
            && head.expiries.last_key_value().is_none_or(|(ours, _)| ours < dot)
        {
            head.expiries.insert(new, *at_s);
        }
        head
    }
}

impl From<Head> for crate::entry::Body {
    fn from(head: Head) -> Self {
        Self::Head(head)
    }
}
