//! Names for the states that readers see, which a client hands back to say which one it has seen.
//!
//! The rule this file upholds: two states of an entry in which a reader sees something different have different
//! names, and what only housekeeping changes, such as the dropping of what is over, keeps the name. So a name is made
//! of the events that stand, never of the last one alone: of two fields put at once at two PoPs the later shows in
//! both states, before and after the other has come.

use bytes::Bytes;
use replication::kinds::{Bounded, Cleared, Content, Counter};
use replication::read::kinds::{BoundedView, CounterView, cleared};
use replication::{Body, Dot, Entry, EntryId, Kind, NamespaceId, ReplicaId, Value, read};

use super::{Engine, ReadError, show_dot, unix_ms};

/// How much of a BLAKE3 hash names a state of several parts.
const HASH_BYTES: usize = 16;

/// The name of a state, without the quotes that HTTP has around it: the event that wrote all of it, or 32 hexadecimal
/// digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// The name of a value, member or field right after this event has written it.
    pub fn of_event(dot: Dot) -> Self {
        Self(show_dot(dot))
    }

    /// What a reader sees at this second of an entry in this state; `None` where that is nothing. `cleared` says what
    /// went with the whole set or map.
    pub(super) fn of(entry: &Entry, cleared: &Cleared, now_s: u64) -> Option<Self> {
        match &entry.body {
            Body::Value(value) if !value.is_expired(now_s) => Some(Self::of_event(entry.dot)),
            Body::Value(_) | Body::Tombstone | Body::Head(_) => None,
            Body::Counter(counter) => {
                counter.count(now_s)?;
                Some(Self::of_parts(&counter_parts(counter, now_s)))
            }
            Body::Bounded(bounded) => {
                bounded.count()?;
                Some(Self::of_parts(&bounded_parts(bounded)))
            }
            Body::Element(element) => match &element.alive(cleared, now_s)[..] {
                [] => None,
                [(dot, _)] => Some(Self::of_event(*dot)),
                several => {
                    let dots: Vec<_> = several.iter().map(|(dot, _)| show_dot(*dot)).collect();
                    Some(Self::of_parts(&dots))
                }
            },
        }
    }

    /// Each part is told apart from the next by a byte that none of them has.
    fn of_parts(parts: &[String]) -> Self {
        Self::of_hash(blake3::hash(parts.join("\n").as_bytes()))
    }

    /// The name of a state that is all in this hash.
    pub(crate) fn of_hash(hash: blake3::Hash) -> Self {
        Self(hash.to_hex()[..2 * HASH_BYTES].to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// All that makes a difference to a reader: of each part that counts its events, sums and expiry, and the metadata.
fn counter_parts(counter: &Counter, now_s: u64) -> Vec<String> {
    let is_over = |at: Option<u64>| at.is_some_and(|at| at <= now_s);
    let standing = counter.parts.iter().filter(|(_, part)| {
        !is_over(part.expires_at_s) && part.reset.is_none_or(|reset| reset.hlc < part.hlc)
    });
    let told = standing.map(|(birth, part)| {
        let reset = part.reset.map(|reset| (reset.hlc, reset.up, reset.down));
        format!(
            "{} {:?} {} {} {:?} {reset:?}",
            show_dot(*birth),
            part.hlc,
            part.up,
            part.down,
            part.expires_at_s
        )
    });
    let note = counter.note.as_ref().filter(|note| note.bytes.is_some());
    told.chain(note.map(|note| show_dot(note.dot))).collect()
}

/// The same of a bounded counter: what can be taken where is seen too.
fn bounded_parts(bounded: &Bounded) -> Vec<String> {
    let living = bounded.generations.iter().filter(|(_, generation)| generation.ended.is_none());
    let told = living.flat_map(|(birth, generation)| {
        let tallies = generation.tallies().into_iter();
        tallies
            .map(|(replica, tally)| format!("{} {replica} {tally:?}", show_dot(*birth)))
            .collect::<Vec<_>>()
    });
    let note = bounded.note.as_ref().filter(|note| note.bytes.is_some());
    told.chain(note.map(|note| show_dot(note.dot))).collect()
}

impl Engine {
    /// As [`Engine::read`], with the name of the state.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn tagged_value(
        &self,
        namespace: NamespaceId,
        key: &[u8],
    ) -> Result<Option<(Value, Etag)>, ReadError> {
        let id = EntryId::value(namespace, Bytes::copy_from_slice(key));
        self.tagged(&id, |entry, _, _| match entry.body {
            Body::Value(value) => Some(value),
            _ => None,
        })
    }

    /// The counter under `key` with the name of its state; `None` where nobody has counted, or all of it was reset or
    /// has expired.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn counter(
        &self,
        namespace: NamespaceId,
        key: &[u8],
    ) -> Result<Option<(CounterView, Etag)>, ReadError> {
        let id = EntryId::whole(namespace, Kind::Counter, Bytes::copy_from_slice(key));
        self.tagged(&id, |entry, _, now_s| {
            let Body::Counter(counter) = entry.body else { return None };
            Some(CounterView {
                count: counter.count(now_s)?,
                metadata: counter.metadata().cloned(),
                expires_at_s: counter.expires_at_s(now_s),
            })
        })
    }

    /// The bounded counter under `key` with the name of its state; `None` where nobody has added to it, or it was deleted.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn bounded(
        &self,
        namespace: NamespaceId,
        key: &[u8],
    ) -> Result<Option<(BoundedView, Etag)>, ReadError> {
        let id = EntryId::whole(namespace, Kind::Bounded, Bytes::copy_from_slice(key));
        let here = self.shared.replica.unwrap_or(ReplicaId::SENDER);
        self.tagged(&id, |entry, _, _| {
            let Body::Bounded(bounded) = &entry.body else { return None };
            BoundedView::of(bounded, here)
        })
    }

    /// The content of a field, or of a member, for which it is empty, with the name of its state; `None` where it is
    /// not there.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn element(&self, id: &EntryId) -> Result<Option<(Content, Etag)>, ReadError> {
        self.tagged(id, |entry, cleared, now_s| {
            let Body::Element(element) = &entry.body else { return None };
            element.alive(cleared, now_s).last().map(|(_, content)| (*content).clone())
        })
    }

    /// What is shown of an entry, and the name of the very state that it is shown of.
    fn tagged<T>(
        &self,
        id: &EntryId,
        show: impl FnOnce(Entry, &Cleared, u64) -> Option<T>,
    ) -> Result<Option<(T, Etag)>, ReadError> {
        let store = &self.shared.readable()?;
        let now_s = unix_ms() / 1000;
        let found = || {
            // Before the row: what is emptied between the two shows as it was.
            let cleared = match id.kind.has_elements() {
                true => cleared(store, (id.namespace, id.kind, &id.key), now_s)?,
                false => Cleared::default(),
            };
            Ok((read::entry(store, id)?, cleared))
        };
        let (entry, cleared) = found().map_err(|error| self.shared.read_failed(error))?;
        Ok(entry.and_then(|entry| {
            let etag = Etag::of(&entry, &cleared, now_s)?;
            Some((show(entry, &cleared, now_s)?, etag))
        }))
    }
}

#[cfg(test)]
mod tests {
    use replication::Hlc;
    use replication::kinds::{CounterPart, Element, ElementPart, Head, Note, PartState, Reset, Times};

    use super::*;

    const NOW_S: u64 = 1_000;

    fn dot(replica: u8, ms: u64) -> Dot {
        Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([replica; 16]) }
    }

    /// The name of the state of a field with these parts.
    fn of_field(parts: &[(Dot, PartState)], cleared: &Cleared) -> Option<Etag> {
        let parts = parts
            .iter()
            .map(|(dot, state)| (dot.replica, ElementPart { hlc: dot.hlc, state: state.clone() }));
        let body = Body::Element(Element { parts: parts.collect() });
        Etag::of(&Entry::first(dot(9, 9), body), cleared, NOW_S)
    }

    #[test]
    fn states_with_the_same_last_event_have_different_names() {
        let alive = |at| PartState::Alive(Content { bytes: "v".into(), expires_at_s: at });
        let spent = PartState::Spent { by: dot(2, 20) };
        let none = Cleared::default();
        let last = (dot(2, 20), alive(None));
        let alone = of_field(std::slice::from_ref(&last), &none);
        assert_eq!(alone, Some(Etag::of_event(dot(2, 20))));
        let both = of_field(&[(dot(1, 10), alive(None)), last.clone()], &none);
        let other = of_field(&[(dot(1, 11), alive(None)), last.clone()], &none);
        assert!(both.is_some() && both != alone && both != other, "{both:?} {other:?}");
        // What a reader does not see does not count: overwritten, expired, or emptied away.
        assert_eq!(of_field(&[(dot(1, 10), spent.clone()), last.clone()], &none), alone);
        assert_eq!(of_field(&[(dot(1, 10), alive(Some(NOW_S))), last.clone()], &none), alone);
        assert_ne!(of_field(&[(dot(1, 10), alive(Some(NOW_S + 1))), last.clone()], &none), alone);
        let times = Times::from([(dot(1, 10).replica, dot(1, 10).hlc)]);
        let cleared = Head { clears: [(dot(2, 11), times)].into(), ..Head::default() }.cleared(NOW_S);
        assert_eq!(of_field(&[(dot(1, 10), alive(None)), last], &cleared), alone);
        assert_eq!(of_field(&[(dot(1, 10), alive(None))], &cleared), None);
        assert_eq!(of_field(&[(dot(1, 10), spent)], &none), None);
    }

    #[test]
    fn all_that_shows_of_a_counter_is_in_its_name() {
        let part = |ms, up| CounterPart { hlc: Hlc::new(ms, 0), up, ..CounterPart::default() };
        let name = |parts: &[(Dot, CounterPart)], note: Option<Note>| {
            let body = Body::Counter(Counter { parts: parts.iter().cloned().collect(), note });
            Etag::of(&Entry::first(dot(9, 9), body), &Cleared::default(), NOW_S)
        };
        let base = [(dot(1, 1), part(5, 3)), (dot(2, 2), part(9, 4))];
        let reset = |hlc: u64| Some(Reset { hlc: Hlc::new(hlc, 0), up: 1, down: 0, by: dot(2, 9) });
        let expiring = |at| CounterPart { expires_at_s: Some(at), ..part(5, 3) };
        let note =
            |ms, bytes: Option<&'static str>| Some(Note { dot: dot(1, ms), bytes: bytes.map(Bytes::from) });
        let states = [
            name(&base, None),
            name(&base[1..], None),
            name(&[(dot(1, 1), part(6, 3)), base[1].clone()], None),
            name(&[(dot(1, 1), CounterPart { reset: reset(4), ..part(5, 3) }), base[1].clone()], None),
            name(&[(dot(1, 1), expiring(NOW_S + 1)), base[1].clone()], None),
            name(&base, note(5, Some("1"))),
            name(&base, note(6, Some("1"))),
        ];
        for (index, state) in states.iter().enumerate() {
            assert!(state.is_some() && !states[..index].contains(state), "{index}: {states:?}");
        }
        // Void parts and metadata that was taken away go when everyone holds that; the name stays.
        assert_eq!(name(&[(dot(1, 1), expiring(NOW_S)), base[1].clone()], None), states[1]);
        let void = CounterPart { reset: reset(5), ..part(5, 3) };
        assert_eq!(name(&[(dot(1, 1), void.clone()), base[1].clone()], None), states[1]);
        assert_eq!(name(&base, note(6, None)), states[0]);
        assert_eq!(name(&[(dot(1, 1), void)], None), None);
    }
}
