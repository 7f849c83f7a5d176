//! A counter that any replica adds to and takes from (a PN-counter: Shapiro et al. 2011, section 3.1.3), and that can
//! be reset.
//!
//! A reset notes, of each part, how far it had counted: what was added meanwhile elsewhere survives. A replica whose part
//! is void (reset, or expired) begins another, named by its first event. So parts of one replica are told apart, and
//! one that has forgotten its own, which only rot can bring about, begins another too and does not undo it.

use std::collections::BTreeMap;

use super::{ChangeError, Frontier, Joined, is_expired};
use crate::clock::{Dot, Hlc, ReplicaId};

use super::head::Note;

/// The most that one replica's increments, or its decrements, may add up to: what every JSON reader keeps exactly.
pub const MAX_COUNT: u64 = (1 << 53) - 1;

/// The state of a counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// What was counted, by the event with which that began.
    pub parts: BTreeMap<Dot, CounterPart>,
    /// Its metadata; the last writer wins.
    pub note: Option<Note>,
}

/// What one replica has counted. In the order of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CounterPart {
    /// The latest event.
    pub hlc: Hlc,
    /// Sum of the increments.
    pub up: u64,
    /// Sum of the decrements.
    pub down: u64,
    /// From that Unix second on the part counts for nothing.
    pub expires_at_s: Option<u64>,
    /// Up to where it was reset.
    pub reset: Option<Reset>,
}

/// What a reset has seen of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reset {
    /// The part's latest event.
    pub hlc: Hlc,
    /// Its increments.
    pub up: u64,
    /// Its decrements.
    pub down: u64,
    /// The event that reset it; of several that saw the same, the least.
    pub by: Dot,
}

impl CounterPart {
    fn join(&self, other: &Self) -> Self {
        let (earlier, later) = if self <= other { (self, other) } else { (other, self) };
        let mut joined = later.clone();
        if earlier.hlc == later.hlc {
            // It was given longer to live: never beats any time.
            joined.expires_at_s = match (earlier.expires_at_s, later.expires_at_s) {
                (Some(one), Some(two)) => Some(one.max(two)),
                _ => None,
            };
        }
        joined.reset = match (earlier.reset, later.reset) {
            (Some(one), Some(two)) if one.hlc == two.hlc => {
                Some(Reset { by: one.by.min(two.by), ..one.max(two) })
            }
            (one, two) => one.max(two),
        };
        if planted!(ResetForgotten) {
            joined.reset = later.reset;
        }
        joined
    }

    /// Whether all of it was reset.
    fn is_reset(&self) -> bool {
        self.reset.is_some_and(|reset| reset.hlc >= self.hlc)
    }

    fn is_void(&self, now_s: u64) -> bool {
        self.is_reset() || is_expired(self.expires_at_s, now_s)
    }

    fn count(&self) -> i128 {
        let (up, down) = self.reset.map_or((0, 0), |reset| (reset.up, reset.down));
        i128::from(self.up) - i128::from(up) - i128::from(self.down) + i128::from(down)
    }

    fn reset(&mut self, by: Dot) {
        if !self.is_reset() {
            self.reset = Some(Reset { hlc: self.hlc, up: self.up, down: self.down, by });
        }
    }
}

impl Counter {
    /// What it stands at; `None` where nobody has counted, or all of it was reset or has expired.
    pub fn count(&self, now_s: u64) -> Option<i128> {
        let mut standing = self.parts.values().filter(|part| !part.is_void(now_s)).peekable();
        standing.peek()?;
        Some(standing.map(CounterPart::count).sum())
    }

    /// What stands, part by part.
    pub(crate) fn standing(&self, now_s: u64) -> Vec<(Dot, i128)> {
        let standing = self.parts.iter().filter(|(_, part)| !part.is_void(now_s));
        standing.map(|(birth, part)| (*birth, part.count())).collect()
    }

    /// Its metadata.
    pub fn metadata(&self) -> Option<&bytes::Bytes> {
        self.note.as_ref().and_then(|note| note.bytes.as_ref())
    }

    /// When all of it will have expired, in Unix seconds; `None` if it will not.
    pub fn expires_at_s(&self, now_s: u64) -> Option<u64> {
        let standing = self.parts.values().filter(|part| !part.is_void(now_s));
        standing
            .map(|part| part.expires_at_s)
            .try_fold(0, |latest, at| Some(latest.max(at?)))
            .filter(|at| *at > 0)
    }

    /// Whether nothing stands, expired or not.
    pub fn is_dead(&self) -> bool {
        self.parts.values().all(CounterPart::is_reset)
    }

    /// When the next part expires, in Unix seconds; also one that was reset, which goes with its expiry if that is sooner.
    pub fn next_expiry(&self) -> Option<u64> {
        self.parts.values().filter_map(|part| part.expires_at_s).min()
    }

    /// The state after the event `dot` has added `amount`.
    pub(crate) fn add(
        current: Option<&Self>,
        dot: Dot,
        amount: i64,
        expires_at_s: Option<u64>,
    ) -> Result<Self, ChangeError> {
        let mut counter = current.cloned().unwrap_or_default();
        let now_s = dot.hlc.wall_ms() / 1000;
        let inherited = counter.expires_at_s(now_s);
        if let Some(at) = expires_at_s {
            for part in counter.parts.values_mut().filter(|part| !part.is_void(now_s)) {
                part.expires_at_s = part.expires_at_s.map(|present| present.max(at));
            }
        }
        let own = counter.own_part(dot, inherited);
        let sum = if amount < 0 { &mut own.down } else { &mut own.up };
        *sum = sum
            .checked_add(amount.unsigned_abs())
            .filter(|sum| *sum <= MAX_COUNT)
            .ok_or(ChangeError::TooFar)?;
        if expires_at_s.is_some() {
            own.expires_at_s = expires_at_s;
        }
        Ok(counter)
    }

    /// The state after the event `dot` has reset what it has seen.
    pub(crate) fn reset(current: Option<&Self>, dot: Dot) -> Self {
        let mut counter = current.cloned().unwrap_or_default();
        counter.own_part(dot, None);
        counter.note = counter.note.map(|_| Note { dot, bytes: None });
        counter.parts.values_mut().for_each(|part| part.reset(dot));
        counter
    }

    /// The state after the event `dot` has described it.
    pub(crate) fn describe(current: Option<&Self>, dot: Dot, bytes: Option<bytes::Bytes>) -> Self {
        let mut counter = current.cloned().unwrap_or_default();
        let inherited = counter.expires_at_s(dot.hlc.wall_ms() / 1000);
        counter.own_part(dot, inherited);
        counter.note = Some(Note { dot, bytes });
        counter
    }

    pub(crate) fn rename(&mut self, from: ReplicaId, to: ReplicaId) {
        let renamed = |dot: Dot| Dot { replica: if dot.replica == from { to } else { dot.replica }, ..dot };
        let parts = std::mem::take(&mut self.parts).into_iter();
        self.parts = parts.map(|(birth, part)| (renamed(birth), part)).collect();
        let resets =
            self.parts.values_mut().filter_map(|part| part.reset.as_mut()).map(|reset| &mut reset.by);
        let dots = resets.chain(self.note.as_mut().map(|note| &mut note.dot));
        dots.for_each(|dot| *dot = renamed(*dot));
    }

    /// The part that the replica whose event this is counts in, which names the event from now on; another where there is
    /// none that is not void.
    fn own_part(&mut self, dot: Dot, expires_at_s: Option<u64>) -> &mut CounterPart {
        let now_s = dot.hlc.wall_ms() / 1000;
        let mut own =
            self.parts.iter().filter(|(birth, part)| birth.replica == dot.replica && !part.is_void(now_s));
        let birth = own.next_back().map_or(dot, |(birth, _)| *birth);
        let begun = CounterPart { expires_at_s, ..CounterPart::default() };
        let own = self.parts.entry(birth).or_insert(begun);
        own.hlc = dot.hlc;
        own
    }
}

impl Joined for Counter {
    fn join(&self, other: &Self) -> Self {
        let mut parts = self.parts.clone();
        for (birth, theirs) in &other.parts {
            let joined = parts.get(birth).map_or_else(|| theirs.clone(), |ours| ours.join(theirs));
            parts.insert(*birth, joined);
        }
        Self { parts, note: self.note.clone().max(other.note.clone()) }
    }

    fn last_of(&self, replica: ReplicaId) -> Hlc {
        let own = self.parts.iter().filter(|(birth, _)| birth.replica == replica);
        own.map(|(_, part)| part.hlc).max().unwrap_or_default()
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        self.parts.iter().map(|(birth, part)| Dot { hlc: part.hlc, replica: birth.replica })
    }

    fn settle(&self, frontier: Frontier<'_>) -> Option<Self> {
        let stays = |(birth, part): &(&Dot, &CounterPart)| {
            let is_known = frontier.is_stable(Dot { hlc: part.hlc, replica: birth.replica });
            let is_reset = part.is_reset() && part.reset.is_some_and(|reset| frontier.is_stable(reset.by));
            !(is_known && (is_reset || frontier.is_past(part.expires_at_s)))
        };
        let parts: BTreeMap<_, _> =
            self.parts.iter().filter(stays).map(|(birth, part)| (*birth, part.clone())).collect();
        let is_note_over = |note: &Note| note.bytes.is_none() && frontier.is_stable(note.dot);
        let note = self.note.clone().filter(|note| !is_note_over(note));
        (!parts.is_empty()).then_some(Self { parts, note })
    }

    fn fresh(&self, current: Option<&Self>, frontier: Frontier<'_>) -> Option<Self> {
        let nothing = Self::default();
        let current = current.unwrap_or(&nothing);
        let mut parts = self.parts.clone();
        parts.retain(|birth, part| {
            let dot = Dot { hlc: part.hlc, replica: birth.replica };
            current.parts.contains_key(birth) || !frontier.is_stable(dot)
        });
        // One that was reset, and counts on for who has not heard of that: without the reset it would all be back.
        let is_back = |(birth, part): (&Dot, &CounterPart)| {
            !current.parts.contains_key(birth) && frontier.is_stable(*birth) && part.reset.is_none()
        };
        if parts.iter().any(is_back) {
            return None;
        }
        let is_new = |note: &Note| !frontier.is_stable(note.dot) || current.note.is_some();
        Some(Self { parts, note: self.note.clone().filter(is_new) })
    }

    fn said_by(&self, replica: ReplicaId) -> Option<Self> {
        let mut parts = BTreeMap::new();
        for (birth, part) in &self.parts {
            if birth.replica == replica {
                parts.insert(*birth, part.clone());
            } else if let Some(reset) = part.reset.filter(|reset| reset.by.replica == replica) {
                let Reset { hlc, up, down, .. } = reset;
                parts.insert(*birth, CounterPart { hlc, up, down, ..part.clone() });
            }
        }
        let note = self.note.clone().filter(|note| note.dot.replica == replica);
        parts.keys().any(|birth| birth.replica == replica).then_some(Self { parts, note })
    }

    fn said_anew(&self, current: Option<&Self>, old: ReplicaId, new: Dot, _: Frontier<'_>) -> Self {
        let mut counter = current.cloned().unwrap_or_default();
        let now_s = new.hlc.wall_ms() / 1000;
        // What of its own counts nobody else has heard of.
        let (mut up, mut down, mut expires_at_s) = (0_u64, 0_u64, None);
        for (_, said) in
            self.parts.iter().filter(|(birth, said)| birth.replica == old && !said.is_void(now_s))
        {
            up = up.saturating_add(said.up);
            down = down.saturating_add(said.down);
            expires_at_s = expires_at_s.max(said.expires_at_s);
        }
        for (birth, said) in &self.parts {
            let Some(known) = counter.parts.get_mut(birth) else { continue };
            if birth.replica == old && !said.is_void(now_s) {
                up = up.saturating_sub(known.up);
                down = down.saturating_sub(known.down);
            } else if known.hlc <= said.hlc && said.is_reset() {
                known.reset(new);
            }
        }
        if let Some(note) = &self.note {
            let is_newest = counter.note.as_ref().is_none_or(|ours| ours.dot < note.dot);
            counter.note =
                if is_newest { Some(Note { dot: new, bytes: note.bytes.clone() }) } else { counter.note };
        }
        let own = counter.own_part(new, expires_at_s);
        own.up = own.up.saturating_add(up).min(MAX_COUNT);
        own.down = own.down.saturating_add(down).min(MAX_COUNT);
        counter
    }
}

impl From<Counter> for crate::entry::Body {
    fn from(counter: Counter) -> Self {
        Self::Counter(counter)
    }
}
