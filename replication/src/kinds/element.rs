//! A member of a set, or a field of a map: present while any part says so.
//!
//! A put spends what it has seen of others, and a removal all that it has seen; a put that the removal has not seen
//! survives it (add wins). Of several contents put at once, the last by dot is shown, until the next put spends them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Cleared, Frontier, Joined, is_expired, rename};
use crate::clock::{Dot, Hlc, ReplicaId};

/// The state of a member or field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// What each replica has said last.
    pub parts: BTreeMap<ReplicaId, ElementPart>,
}

/// What one replica has said last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementPart {
    /// By this event.
    pub hlc: Hlc,
    /// And whether it still stands.
    pub state: PartState,
}

/// Whether what was said still stands. In the order of a join: of one event, the later of these wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartState {
    /// It does.
    Alive(Content),
    /// It was removed or overwritten. A removal's own part is spent by itself.
    Spent {
        /// By this event, the least of those that are known.
        by: Dot,
    },
}

/// What was put.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// A field's value, at most [`crate::entry::MAX_INLINE_BYTES`]; empty for a member.
    pub bytes: Bytes,
    /// From that Unix second on, no reader sees it.
    pub expires_at_s: Option<u64>,
}

impl ElementPart {
    fn join(&self, other: &Self) -> Self {
        let state = match (&self.state, &other.state) {
            _ if self.hlc != other.hlc => return if self.hlc < other.hlc { other } else { self }.clone(),
            (PartState::Spent { by: one }, PartState::Spent { by: two }) => {
                PartState::Spent { by: *one.min(two) }
            }
            (one, two) => one.max(two).clone(),
        };
        Self { hlc: self.hlc, state }
    }

    fn spend(&mut self, by: Dot) {
        if matches!(self.state, PartState::Alive(_)) {
            self.state = PartState::Spent { by };
        }
    }
}

impl Element {
    /// The state after a put by the event `dot`, which has seen `current`.
    pub(crate) fn put(current: Option<&Self>, dot: Dot, content: Content) -> Self {
        Self::said(current, dot, PartState::Alive(content))
    }

    /// The state after a removal by the event `dot`, which has seen `current`.
    pub(crate) fn remove(current: Option<&Self>, dot: Dot) -> Self {
        Self::said(current, dot, PartState::Spent { by: dot })
    }

    fn said(current: Option<&Self>, dot: Dot, state: PartState) -> Self {
        let mut element = current.cloned().unwrap_or_default();
        if !planted!(RemovalSpendsNothing) {
            element.parts.values_mut().for_each(|part| part.spend(dot));
        }
        element.parts.insert(dot.replica, ElementPart { hlc: dot.hlc, state });
        element
    }

    /// Whether nothing stands, expired or not.
    pub fn is_dead(&self) -> bool {
        self.parts.values().all(|part| matches!(part.state, PartState::Spent { .. }))
    }

    /// What stands, in the order of the events, the last one last. `cleared` says what went with the whole.
    pub fn alive(&self, cleared: &Cleared, now_s: u64) -> Vec<(Dot, &Content)> {
        let standing = self.parts.iter().filter_map(|(replica, part)| match &part.state {
            PartState::Alive(content) => Some((Dot { hlc: part.hlc, replica: *replica }, content)),
            PartState::Spent { .. } => None,
        });
        let mut alive: Vec<_> = standing
            .filter(|(dot, content)| !cleared.covers(*dot) && !is_expired(content.expires_at_s, now_s))
            .collect();
        alive.sort_unstable_by_key(|(dot, _)| *dot);
        alive
    }

    /// Bytes of what stands.
    pub(crate) fn content_bytes(&self) -> u64 {
        let contents = self.parts.values().map(|part| match &part.state {
            PartState::Alive(content) => content.bytes.len() as u64,
            PartState::Spent { .. } => 0,
        });
        contents.sum()
    }

    pub(crate) fn rename(&mut self, from: ReplicaId, to: ReplicaId) {
        rename(&mut self.parts, from, to);
        for part in self.parts.values_mut() {
            match &mut part.state {
                PartState::Spent { by } if by.replica == from => by.replica = to,
                _ => {}
            }
        }
    }

    /// When the next of what stands expires, in Unix seconds.
    pub fn next_expiry(&self) -> Option<u64> {
        let expiries = self.parts.values().filter_map(|part| match &part.state {
            PartState::Alive(content) => content.expires_at_s,
            PartState::Spent { .. } => None,
        });
        expiries.min()
    }

    /// The state without what the whole's removal, which everyone holds, has covered; `None` if that is all.
    pub(crate) fn without_cleared(&self, cleared: &Cleared) -> Option<Self> {
        let stays = |(replica, part): &(&ReplicaId, &ElementPart)| {
            !cleared.covers(Dot { hlc: part.hlc, replica: **replica })
        };
        let parts = self.parts.iter().filter(stays).map(|(replica, part)| (*replica, part.clone()));
        Some(Self { parts: parts.collect() }).filter(|element: &Self| !element.parts.is_empty())
    }
}

impl Joined for Element {
    fn join(&self, other: &Self) -> Self {
        let mut parts = self.parts.clone();
        for (replica, theirs) in &other.parts {
            let joined = parts.get(replica).map_or_else(|| theirs.clone(), |ours| ours.join(theirs));
            parts.insert(*replica, joined);
        }
        Self { parts }
    }

    fn last_of(&self, replica: ReplicaId) -> Hlc {
        self.parts.get(&replica).map_or(Hlc::ZERO, |part| part.hlc)
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        self.parts.iter().map(|(replica, part)| Dot { hlc: part.hlc, replica: *replica })
    }

    fn settle(&self, frontier: Frontier<'_>) -> Option<Self> {
        let stays = |(replica, part): &(&ReplicaId, &ElementPart)| {
            let is_known = frontier.is_stable(Dot { hlc: part.hlc, replica: **replica });
            let is_over = match &part.state {
                PartState::Alive(content) => frontier.is_past(content.expires_at_s),
                PartState::Spent { by } => frontier.is_stable(*by) || planted!(PartDroppedOnceSpent),
            };
            !(is_known && is_over)
        };
        let parts = self.parts.iter().filter(stays).map(|(replica, part)| (*replica, part.clone()));
        Some(Self { parts: parts.collect() }).filter(|element: &Self| !element.parts.is_empty())
    }

    fn fresh(&self, current: Option<&Self>, frontier: Frontier<'_>) -> Option<Self> {
        let is_held = |dot: Dot| current.is_some_and(|current| current.last_of(dot.replica) >= dot.hlc);
        let stays = |(replica, part): &(&ReplicaId, &ElementPart)| {
            let dot = Dot { hlc: part.hlc, replica: **replica };
            !frontier.is_stable(dot) || is_held(dot)
        };
        let parts = self.parts.iter().filter(stays).map(|(replica, part)| (*replica, part.clone()));
        Some(Self { parts: parts.collect() })
    }

    fn said_by(&self, replica: ReplicaId) -> Option<Self> {
        self.parts.get(&replica)?;
        let is_its_doing = |(whose, part): &(&ReplicaId, &ElementPart)| {
            **whose == replica || matches!(part.state, PartState::Spent { by } if by.replica == replica)
        };
        let parts = self.parts.iter().filter(is_its_doing);
        Some(Self { parts: parts.map(|(whose, part)| (*whose, part.clone())).collect() })
    }

    fn said_anew(&self, current: Option<&Self>, old: ReplicaId, new: Dot, _: Frontier<'_>) -> Self {
        let mut element = current.cloned().unwrap_or_default();
        // What the old incarnation has spent of others is spent by the new event.
        for (replica, part) in self.parts.iter().filter(|(replica, _)| **replica != old) {
            if let Some(ours) = element.parts.get_mut(replica).filter(|ours| ours.hlc <= part.hlc) {
                ours.spend(new);
            }
        }
        let state = match self.parts.get(&old) {
            Some(ElementPart { hlc, state: PartState::Alive(content) }) => {
                let said = Dot { hlc: *hlc, replica: old };
                let nothing = Cleared::default();
                let newest = element.alive(&nothing, 0).last().map(|(dot, newest)| (*dot, (*newest).clone()));
                // The last writer wins, also over what is written again.
                let newest = newest.filter(|(dot, _)| *dot > said).map(|(_, newest)| newest);
                PartState::Alive(newest.unwrap_or_else(|| content.clone()))
            }
            _ => PartState::Spent { by: new },
        };
        // Of its own older word nothing stands any more.
        if let Some(part) = element.parts.get_mut(&old) {
            part.spend(new);
        }
        // What the new incarnation has said itself by now is the later word.
        let own = element.parts.get(&new.replica).map(|part| part.state.clone());
        let state = own.filter(|own| matches!(own, PartState::Alive(_))).unwrap_or(state);
        element.parts.insert(new.replica, ElementPart { hlc: new.hlc, state });
        element
    }
}

impl From<Element> for crate::entry::Body {
    fn from(element: Element) -> Self {
        Self::Element(element)
    }
}
