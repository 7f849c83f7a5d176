//! A counter that never goes below zero: each replica may take only what it holds rights to (the bounded counter of Balegas
//! et al., "Extending Eventually Consistent Cloud Databases for Enforcing Numeric Invariants", SRDS 2015).
//!
//! What is added makes rights, which the replica holds that has added; what is taken uses them up; and a replica gives its
//! own to another by an event that it alone writes. So no taking needs another replica's word. The rule this file upholds: a
//! state that tells of a taking tells of the rights that it has used, and so none of them ever adds up to less than zero.
//! That holds because states travel whole, and because whoever says anew what an earlier incarnation has said repeats
//! with it all that one had heard.
//!
//! It is kept by generations. A deletion ends those that it has seen, with all that was taken from them, also meanwhile
//! elsewhere; one that was begun meanwhile stands. Only a replica that knows of none that lives begins another.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::counter::MAX_COUNT;
use super::head::Note;
use super::{ChangeError, Frontier, Joined};
use crate::clock::{Dot, Hlc, ReplicaId};

/// The state of a bounded counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bounded {
    /// Its generations, by the event with which each began.
    pub generations: BTreeMap<Dot, Generation>,
    /// Its metadata; the last writer wins.
    pub note: Option<Note>,
}

/// What was counted until a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// What each replica has said.
    pub parts: BTreeMap<ReplicaId, BoundedPart>,
    /// The event that ended it; of several, the least.
    pub ended: Option<Dot>,
}

/// What one replica has said. In the order of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundedPart {
    /// Of itself.
    pub tally: Tally,
    /// Of an earlier incarnation, and of what that one had heard of others, where that was not known here. Those are the
    /// tallies of the others as they have said them.
    pub anew: BTreeMap<ReplicaId, Tally>,
}

/// What one replica has counted, up to an event of its own. In the order of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tally {
    /// The latest event.
    pub hlc: Hlc,
    /// Sum of what it has added.
    pub up: u64,
    /// Sum of what it has taken.
    pub down: u64,
    /// Sums of the rights that it has given, by those who got them.
    pub given: BTreeMap<ReplicaId, u64>,
}

impl Generation {
    /// The latest that is known of each replica.
    pub fn tallies(&self) -> BTreeMap<ReplicaId, &Tally> {
        let own = self.parts.iter().map(|(replica, part)| (*replica, &part.tally));
        let anew = self.parts.values().flat_map(|part| &part.anew).map(|(replica, tally)| (*replica, tally));
        let mut latest = BTreeMap::new();
        for (replica, tally) in own.chain(anew) {
            let known = latest.entry(replica).or_insert(tally);
            *known = tally.max(known);
        }
        latest
    }

    /// What it stands at. Below zero only where one replica's rights were spent by two copies of its store.
    fn count(&self) -> i128 {
        self.tallies().values().map(|tally| i128::from(tally.up) - i128::from(tally.down)).sum()
    }

    /// What this replica may take from it.
    fn rights(&self, replica: ReplicaId) -> u64 {
        let tallies = self.tallies();
        let got: u64 = tallies.values().filter_map(|tally| tally.given.get(&replica)).sum();
        let Some(own) = tallies.get(&replica) else { return got };
        let mut spent = u128::from(own.down);
        if !planted!(RightsKeptByGiver) {
            spent += own.given.values().copied().map(u128::from).sum::<u128>();
        }
        let rights = (u128::from(got) + u128::from(own.up)).saturating_sub(spent);
        u64::try_from(rights).unwrap_or(u64::MAX)
    }

    fn join(&self, other: &Self) -> Self {
        let mut parts = self.parts.clone();
        for (replica, theirs) in &other.parts {
            let ours = parts.entry(*replica).or_default();
            if *ours < *theirs {
                *ours = theirs.clone();
            }
        }
        let ended = match (self.ended, other.ended) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self { parts, ended }
    }

    /// The replica's own part, which names this event from now on.
    fn own(&mut self, dot: Dot) -> &mut BoundedPart {
        let known: BTreeMap<_, _> =
            self.parts.iter().map(|(replica, part)| (*replica, part.tally.hlc)).collect();
        let own = self.parts.entry(dot.replica).or_default();
        own.tally.hlc = dot.hlc;
        own.anew.retain(|replica, tally| known.get(replica).is_none_or(|hlc| *hlc < tally.hlc));
        own
    }
}

impl Bounded {
    /// Those that no deletion has ended, the oldest first.
    fn living(&self) -> impl Iterator<Item = (&Dot, &Generation)> {
        self.generations.iter().filter(|(_, generation)| generation.ended.is_none())
    }

    /// What it stands at; `None` where nobody has added to it, or it was deleted.
    pub fn count(&self) -> Option<i128> {
        let mut living = self.living().peekable();
        living.peek()?;
        Some(living.map(|(_, generation)| generation.count()).sum())
    }

    /// How much this replica may take.
    pub fn rights(&self, replica: ReplicaId) -> u64 {
        let rights = self.living().map(|(_, generation)| generation.rights(replica));
        rights.fold(0, u64::saturating_add)
    }

    /// How much of its rights one replica has given another, as far as is known here.
    pub fn given(&self, from: ReplicaId, to: ReplicaId) -> u64 {
        let tallies = self.living().map(|(_, generation)| generation.tallies());
        let given = tallies.filter_map(|tallies| tallies.get(&from)?.given.get(&to).copied());
        given.fold(0, u64::saturating_add)
    }

    /// Who holds rights that can be taken or given, with how much.
    pub fn holders(&self) -> BTreeMap<ReplicaId, u64> {
        let mut holders = BTreeMap::new();
        for (_, generation) in self.living() {
            let tallies = generation.tallies();
            let given = tallies.values().flat_map(|tally| tally.given.keys());
            let all: std::collections::BTreeSet<_> = tallies.keys().chain(given).collect();
            for replica in all {
                *holders.entry(*replica).or_insert(0_u64) += generation.rights(*replica);
            }
        }
        holders.retain(|_, rights| *rights > 0);
        holders
    }

    /// What stands, part by part.
    pub fn standing(&self) -> Vec<(Dot, i128)> {
        let tallies = self.living().flat_map(|(_, generation)| generation.tallies());
        let count = |tally: &Tally| i128::from(tally.up) - i128::from(tally.down);
        tallies.map(|(replica, tally)| (Dot { hlc: tally.hlc, replica }, count(tally))).collect()
    }

    /// Its metadata.
    pub fn metadata(&self) -> Option<&Bytes> {
        self.note.as_ref().and_then(|note| note.bytes.as_ref())
    }

    /// Whether nothing stands.
    pub fn is_dead(&self) -> bool {
        self.living().next().is_none()
    }

    /// About how many bytes it takes in a message, without its metadata.
    pub(crate) fn frame_bytes(&self) -> usize {
        let of_part = |part: &BoundedPart| {
            let tallies = part.anew.values().chain([&part.tally]);
            tallies.map(|tally| 40 + 12 * tally.given.len()).sum::<usize>()
        };
        parts_of(&self.generations).map(|(_, part)| 16 + of_part(part)).sum()
    }

    /// The state after the event `dot` has added `amount`.
    pub(crate) fn add(current: Option<&Self>, dot: Dot, amount: u64) -> Result<Self, ChangeError> {
        let mut bounded = current.cloned().unwrap_or_default();
        let own = &mut bounded.oldest(dot).own(dot).tally;
        own.up = counted(own.up, amount)?;
        Ok(bounded)
    }

    /// The state after the event `dot` has taken `amount`.
    pub(crate) fn take(current: Option<&Self>, dot: Dot, amount: u64) -> Result<Self, ChangeError> {
        Self::spend(current, dot, amount, |own, part| {
            own.down = counted(own.down, part)?;
            Ok(())
        })
    }

    /// The state after the event `dot` has given the rights to take `amount` to another replica.
    pub(crate) fn give(
        current: Option<&Self>,
        dot: Dot,
        to: ReplicaId,
        amount: u64,
    ) -> Result<Self, ChangeError> {
        Self::spend(current, dot, amount, |own, part| {
            let given = own.given.entry(to).or_default();
            *given = counted(*given, part)?;
            Ok(())
        })
    }

    /// Uses up rights to `amount` of the replica whose event this is, of the oldest generation first.
    fn spend(
        current: Option<&Self>,
        dot: Dot,
        amount: u64,
        spent: impl Fn(&mut Tally, u64) -> Result<(), ChangeError>,
    ) -> Result<Self, ChangeError> {
        let mut bounded = current.cloned().unwrap_or_default();
        let here = bounded.rights(dot.replica);
        if here < amount || bounded.is_dead() {
            let left = bounded.count().unwrap_or_default().max(0);
            return Err(ChangeError::LacksRights { here, left: u64::try_from(left).unwrap_or(u64::MAX) });
        }
        let mut lacking = amount;
        let living = bounded.generations.values_mut().filter(|generation| generation.ended.is_none());
        for (number, generation) in living.enumerate() {
            let part = generation.rights(dot.replica).min(lacking);
            // Of nothing too there is an event.
            if part > 0 || amount == 0 && number == 0 {
                lacking -= part;
                spent(&mut generation.own(dot).tally, part)?;
            }
        }
        Ok(bounded)
    }

    /// The state after the event `dot` has deleted what it has seen.
    pub(crate) fn end(current: Option<&Self>, dot: Dot) -> Self {
        let mut bounded = current.cloned().unwrap_or_default();
        bounded.oldest(dot);
        for generation in bounded.generations.values_mut().filter(|generation| generation.ended.is_none()) {
            generation.own(dot);
            generation.ended = Some(dot);
        }
        bounded.note = bounded.note.map(|_| Note { dot, bytes: None });
        bounded
    }

    /// The state after the event `dot` has described it.
    pub(crate) fn describe(current: Option<&Self>, dot: Dot, bytes: Option<Bytes>) -> Self {
        let mut bounded = current.cloned().unwrap_or_default();
        bounded.oldest(dot).own(dot);
        bounded.note = Some(Note { dot, bytes });
        bounded
    }

    /// The oldest generation that lives; one that this event begins, where there is none.
    fn oldest(&mut self, dot: Dot) -> &mut Generation {
        let birth = self.living().next().map_or(dot, |(birth, _)| *birth);
        self.generations.entry(birth).or_default()
    }

    pub(crate) fn rename(&mut self, from: ReplicaId, to: ReplicaId) {
        let named = |replica: ReplicaId| if replica == from { to } else { replica };
        let renamed = |dot: Dot| Dot { replica: named(dot.replica), ..dot };
        let tally = |tally: Tally| {
            let given = tally.given.into_iter().map(|(replica, given)| (named(replica), given)).collect();
            Tally { given, ..tally }
        };
        let part = |part: BoundedPart| {
            let anew = part.anew.into_iter().map(|(replica, said)| (named(replica), tally(said)));
            BoundedPart { tally: tally(part.tally), anew: anew.collect() }
        };
        let generation = |generation: Generation| {
            let parts = generation.parts.into_iter().map(|(replica, said)| (named(replica), part(said)));
            Generation { parts: parts.collect(), ended: generation.ended.map(renamed) }
        };
        let generations = std::mem::take(&mut self.generations).into_iter();
        self.generations = generations.map(|(birth, known)| (renamed(birth), generation(known))).collect();
        self.note.iter_mut().for_each(|note| note.dot = renamed(note.dot));
    }
}

/// The sum, within what may be counted.
fn counted(sum: u64, more: u64) -> Result<u64, ChangeError> {
    sum.checked_add(more).filter(|sum| *sum <= MAX_COUNT).ok_or(ChangeError::TooFar)
}

fn parts_of(generations: &BTreeMap<Dot, Generation>) -> impl Iterator<Item = (ReplicaId, &BoundedPart)> {
    generations.values().flat_map(|generation| &generation.parts).map(|(replica, part)| (*replica, part))
}

impl Joined for Bounded {
    fn join(&self, other: &Self) -> Self {
        let mut generations = self.generations.clone();
        for (birth, theirs) in &other.generations {
            let joined = generations.get(birth).map_or_else(|| theirs.clone(), |ours| ours.join(theirs));
            generations.insert(*birth, joined);
        }
        Self { generations, note: self.note.clone().max(other.note.clone()) }
    }

    fn last_of(&self, replica: ReplicaId) -> Hlc {
        let own = parts_of(&self.generations).filter(|(said_by, _)| *said_by == replica);
        own.map(|(_, part)| part.tally.hlc).max().unwrap_or_default()
    }

    fn dots(&self) -> impl Iterator<Item = Dot> {
        parts_of(&self.generations).map(|(replica, part)| Dot { hlc: part.tally.hlc, replica })
    }

    fn settle(&self, frontier: Frontier<'_>) -> Option<Self> {
        let mut generations = self.generations.clone();
        for generation in generations.values_mut() {
            if generation.ended.is_some_and(|by| frontier.is_stable(by)) {
                // Of one that lives nothing goes: what was taken would have no rights.
                let is_known = |replica: ReplicaId, part: &BoundedPart| {
                    frontier.is_stable(Dot { hlc: part.tally.hlc, replica })
                };
                generation.parts.retain(|replica, part| !is_known(*replica, part));
            }
        }
        generations.retain(|_, generation| !generation.parts.is_empty());
        let is_note_over = |note: &Note| note.bytes.is_none() && frontier.is_stable(note.dot);
        let note = self.note.clone().filter(|note| !is_note_over(note));
        (!generations.is_empty()).then_some(Self { generations, note })
    }

    fn fresh(&self, current: Option<&Self>, frontier: Frontier<'_>) -> Option<Self> {
        let nothing = Self::default();
        let current = current.unwrap_or(&nothing);
        let is_had =
            |replica: ReplicaId, part: &BoundedPart| frontier.is_stable(Dot { hlc: part.tally.hlc, replica });
        let mut generations = BTreeMap::new();
        for (birth, come) in &self.generations {
            let here = current.generations.get(birth);
            let is_dropped = match here {
                Some(here) => here.ended.is_some_and(|by| frontier.is_stable(by)),
                None => {
                    frontier.is_stable(*birth)
                        || come.parts.iter().any(|(replica, part)| is_had(*replica, part))
                }
            };
            let mut left = come.clone();
            if is_dropped {
                let is_here = |replica: &ReplicaId| here.is_some_and(|here| here.parts.contains_key(replica));
                left.parts.retain(|replica, part| is_here(replica) || !is_had(*replica, part));
                // It was ended, and lives for who has not heard of that: it would all be back.
                if !left.parts.is_empty() && here.is_none() && come.ended.is_none() {
                    return None;
                }
            }
            if !left.parts.is_empty() {
                generations.insert(*birth, left);
            }
        }
        let is_new = |note: &Note| !frontier.is_stable(note.dot) || current.note.is_some();
        Some(Self { generations, note: self.note.clone().filter(is_new) })
    }

    /// With all that the replica had heard of others: what it took, it took of that.
    fn said_by(&self, replica: ReplicaId) -> Option<Self> {
        let mut generations = BTreeMap::new();
        for (birth, generation) in &self.generations {
            let Some(own) = generation.parts.get(&replica) else { continue };
            let heard = generation.tallies().into_iter().filter(|(other, _)| *other != replica);
            let anew = heard.map(|(other, tally)| (other, tally.clone())).collect();
            let parts = BTreeMap::from([(replica, BoundedPart { tally: own.tally.clone(), anew })]);
            let ended = generation.ended.filter(|by| by.replica == replica);
            generations.insert(*birth, Generation { parts, ended });
        }
        let note = self.note.clone().filter(|note| note.dot.replica == replica);
        (!generations.is_empty()).then_some(Self { generations, note })
    }

    /// What was counted is told in the other's name, so that it counts once, whoever else has heard of it; it makes no
    /// rights for who tells it.
    fn said_anew(&self, current: Option<&Self>, old: ReplicaId, new: Dot, frontier: Frontier<'_>) -> Self {
        let mut bounded = current.cloned().unwrap_or_default();
        for (birth, said) in &self.generations {
            let Some(theirs) = said.parts.get(&old) else { continue };
            let is_over = match bounded.generations.get(birth) {
                Some(known) => known.ended.is_some(),
                None => frontier.is_stable(*birth) || said.ended.is_some(),
            };
            if is_over {
                continue;
            }
            let generation = bounded.generations.entry(*birth).or_default();
            let known: BTreeMap<_, _> =
                generation.tallies().into_iter().map(|(replica, tally)| (replica, tally.hlc)).collect();
            let own = generation.own(new);
            let told = theirs.anew.iter().map(|(replica, tally)| (*replica, tally));
            for (replica, tally) in told.chain([(old, &theirs.tally)]) {
                if known.get(&replica).is_none_or(|hlc| *hlc < tally.hlc) {
                    own.anew.insert(replica, tally.clone());
                }
            }
            if said.ended.is_some() {
                generation.ended = Some(new);
            }
        }
        if let Some(note) = &self.note
            && bounded.note.as_ref().is_none_or(|ours| ours.dot < note.dot)
        {
            bounded.note = Some(Note { dot: new, bytes: note.bytes.clone() });
        }
        if bounded.last_of(new.replica) < new.hlc {
            // Nothing was left to say: the event is told of all the same.
            let is_dead = bounded.is_dead();
            let generation = bounded.oldest(new);
            generation.own(new);
            generation.ended = is_dead.then_some(new);
        }
        bounded
    }
}

impl From<Bounded> for crate::entry::Body {
    fn from(bounded: Bounded) -> Self {
        Self::Bounded(bounded)
    }
}
