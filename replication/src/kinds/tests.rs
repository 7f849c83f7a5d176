//! Each kind against an obvious model: a bag of events, each of which knows which events it has seen.
//!
//! Replicas write, hear of each other, and drop what is over at epochs of their own choice, as far as all hold everything.
//! What a reader sees must be what the model says at each step, and replicas that have heard of everything and dropped at
//! one epoch must be in one state, however they came there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::entry::{Entry, EntryId, Kind, NamespaceId, Settled};
use crate::vector::Position;

mod bounded;

const REPLICAS: usize = 3;
/// Each step takes so long.
const STEP_MS: u64 = 400;
const START_MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    Change(usize, Change),
    /// One hears what another holds.
    Hear(usize, usize),
    /// One drops what is over, at the latest epoch there can be.
    Settle(usize),
}

fn changes(kind: Kind) -> BoxedStrategy<Change> {
    // Offsets from the start, in seconds; made absolute when the change is made.
    let expiry = prop_oneof![3 => Just(None), 1 => (1..12_u64).prop_map(Some)];
    let put = (0..3_u8, expiry.clone()).prop_map(move |(content, expires_at_s)| {
        let bytes = if kind == Kind::Map { Bytes::from(vec![b'a' + content]) } else { Bytes::new() };
        Change::Put(Content { bytes, expires_at_s })
    });
    match kind {
        Kind::Counter => prop_oneof![
            4 => (-5..9_i64, expiry).prop_map(|(amount, expires_at_s)| Change::Add { amount, expires_at_s }),
            1 => Just(Change::Clear),
            1 => prop_oneof![Just(None), Just(Some(Bytes::from("{}")))].prop_map(Change::Describe),
        ]
        .boxed(),
        Kind::Bounded => prop_oneof![
            3 => (0..9_i64).prop_map(|amount| Change::Add { amount, expires_at_s: None }),
            3 => (-6..0_i64).prop_map(|amount| Change::Add { amount, expires_at_s: None }),
            2 => (0..REPLICAS, 0..6_u64).prop_map(|(to, amount)| Change::Give { to: replica(to), amount }),
            1 => Just(Change::Clear),
            1 => prop_oneof![Just(None), Just(Some(Bytes::from("{}")))].prop_map(Change::Describe),
        ]
        .boxed(),
        // Of these the heads are tried.
        Kind::Doc => prop_oneof![
            2 => expiry.prop_map(Change::Expire),
            1 => Just(Change::Clear),
            1 => prop_oneof![Just(None), Just(Some(Bytes::from("{}")))].prop_map(Change::Describe),
        ]
        .boxed(),
        _ => prop_oneof![2 => put, 1 => Just(Change::Remove)].boxed(),
    }
}

fn steps(kind: Kind) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..REPLICAS, changes(kind)).prop_map(|(at, change)| Step::Change(at, change)),
        3 => (0..REPLICAS, 0..REPLICAS).prop_map(|(at, from)| Step::Hear(at, from)),
        1 => (0..REPLICAS).prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 1..40)
}

/// An event with those it has seen.
#[derive(Clone, Debug)]
struct ModelEvent {
    change: Change,
    seen: BTreeSet<Dot>,
}

struct World {
    kind: Kind,
    now_ms: u64,
    states: Vec<Option<Entry>>,
    held: Vec<VersionVector>,
    epochs: Vec<Hlc>,
    /// What each replica has heard of, by the model.
    heard: Vec<BTreeSet<Dot>>,
    events: BTreeMap<Dot, ModelEvent>,
    refused: usize,
}

fn replica(at: usize) -> ReplicaId {
    ReplicaId([at as u8 + 1; 16])
}

impl World {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            now_ms: START_MS,
            states: vec![None; REPLICAS],
            held: vec![VersionVector::default(); REPLICAS],
            epochs: vec![Hlc::ZERO; REPLICAS],
            heard: vec![BTreeSet::new(); REPLICAS],
            events: BTreeMap::new(),
            refused: 0,
        }
    }

    fn id(&self) -> EntryId {
        let element =
            if matches!(self.kind, Kind::Counter | Kind::Bounded | Kind::Doc) { "" } else { "member" };
        EntryId::element(NamespaceId([9; 16]), self.kind, "key", element)
    }

    fn now_s(&self) -> u64 {
        self.now_ms / 1000
    }

    fn apply(&mut self, step: Step) {
        self.now_ms += STEP_MS;
        match step {
            Step::Change(at, change) => self.change(at, change),
            Step::Hear(at, from) => self.hear(at, from),
            Step::Settle(at) => self.settle(at, self.frontier()),
        }
    }

    fn change(&mut self, at: usize, mut change: Change) {
        if let Change::Put(Content { expires_at_s: Some(after), .. })
        | Change::Add { expires_at_s: Some(after), .. }
        | Change::Expire(Some(after)) = &mut change
        {
            *after += self.now_ms / 1000;
        }
        let dot = Dot { hlc: Hlc::new(self.now_ms, 0), replica: replica(at) };
        let body = Entry::changed(&self.id(), self.states[at].as_ref(), change.clone(), dot, &self.held[at]);
        // Of a bounded counter more may be asked than there is here.
        if matches!(body, Err(ChangeError::LacksRights { .. })) {
            self.refused += 1;
            return;
        }
        self.states[at] = Entry::of_parts(body.unwrap());
        self.held[at].advance(dot.replica, Position { hlc: dot.hlc, ops: 0, bytes: 0 });
        self.events.insert(dot, ModelEvent { change, seen: self.heard[at].clone() });
        self.heard[at].insert(dot);
    }

    fn hear(&mut self, at: usize, from: usize) {
        let theirs = self.held[from].clone();
        self.held[at].join(&theirs);
        let heard = self.heard[from].clone();
        self.heard[at].extend(heard);
        let Some(state) = self.states[from].clone() else { return };
        let joined = match self.states[at].clone() {
            Some(current) => current.join(state),
            None => state,
        };
        self.states[at] = match joined.settled(Frontier { epoch: self.epochs[at], held: &self.held[at] }) {
            Settled::Less(less) => Some(less),
            Settled::Same | Settled::Gone => Some(joined),
        };
    }

    /// The latest time up to which all hold everything.
    fn frontier(&self) -> Hlc {
        let lacked = self.events.keys().filter(|dot| self.heard.iter().any(|heard| !heard.contains(dot)));
        let first = lacked.map(|dot| dot.hlc).min();
        first.map_or(Hlc::new(self.now_ms, 0), Hlc::previous)
    }

    fn settle(&mut self, at: usize, epoch: Hlc) {
        self.epochs[at] = self.epochs[at].max(epoch);
        let Some(state) = &self.states[at] else { return };
        match state.settled(Frontier { epoch: self.epochs[at], held: &self.held[at] }) {
            Settled::Same => {}
            Settled::Less(less) => self.states[at] = Some(less),
            Settled::Gone => self.states[at] = None,
        }
    }

    /// What a reader sees, as text: of a counter what it stands at, else the content.
    fn seen(&self, at: usize) -> Option<String> {
        let now_s = self.now_s();
        match &self.states[at].as_ref()?.body {
            Body::Counter(counter) => counter.count(now_s).map(|count| count.to_string()),
            Body::Bounded(bounded) => bounded.count().map(|count| count.to_string()),
            Body::Element(element) => {
                let alive = element.alive(&Cleared::default(), now_s);
                alive.last().map(|(_, content)| String::from_utf8(content.bytes.to_vec()).unwrap())
            }
            body => panic!("{body:?}"),
        }
    }

    /// What it should see.
    fn expected(&self, at: usize) -> Option<String> {
        let heard: Vec<(Dot, &ModelEvent)> =
            self.heard[at].iter().map(|dot| (*dot, &self.events[dot])).collect();
        let is_seen_by = |dot: Dot, kinds: fn(&Change) -> bool| {
            heard.iter().any(|(_, later)| kinds(&later.change) && later.seen.contains(&dot))
        };
        let puts = heard.iter().filter_map(|(dot, event)| match &event.change {
            Change::Put(content) if !is_seen_by(*dot, |_| true) => Some((*dot, content)),
            _ => None,
        });
        let alive = puts.filter(|(_, content)| !is_expired(content.expires_at_s, self.now_s()));
        alive
            .max_by_key(|(dot, _)| *dot)
            .map(|(_, content)| String::from_utf8(content.bytes.to_vec()).unwrap())
    }

    /// As [`World::expected`], of a counter without expiries.
    fn expected_count(&self, at: usize) -> i128 {
        let heard: Vec<(Dot, &ModelEvent)> =
            self.heard[at].iter().map(|dot| (*dot, &self.events[dot])).collect();
        let is_reset = |dot: &Dot| {
            heard.iter().any(|(_, later)| later.change == Change::Clear && later.seen.contains(dot))
        };
        let added = heard.iter().filter(|(dot, _)| !is_reset(dot)).map(|(_, event)| match event.change {
            Change::Add { amount, .. } => i128::from(amount),
            _ => 0,
        });
        added.sum()
    }

    /// Everyone hears of everything, and drops what is over at one epoch.
    fn converge(&mut self) {
        for at in 0..REPLICAS {
            (0..REPLICAS).for_each(|from| self.hear(at, from));
        }
        for at in 0..REPLICAS {
            self.hear(at, 0);
            self.hear(at, REPLICAS - 1);
        }
        let epoch = self.epochs.iter().max().copied().unwrap();
        (0..REPLICAS).for_each(|at| self.settle(at, epoch));
    }
}

fn check_elements(kind: Kind, steps: Vec<Step>) {
    let mut world = World::new(kind);
    for step in steps {
        world.apply(step.clone());
        for at in 0..REPLICAS {
            assert_eq!(world.seen(at), world.expected(at), "at {at} after {step:?}: {:?}", world.states[at]);
        }
    }
    world.converge();
    assert_eq!(world.states[0], world.states[1]);
    assert_eq!(world.states[0], world.states[2]);
}

fn states(kind: Kind) -> impl Strategy<Value = Vec<Option<Entry>>> {
    steps(kind).prop_map(move |steps| {
        let mut world = World::new(kind);
        steps.into_iter().for_each(|step| world.apply(step));
        world.states
    })
}

fn check_laws(states: &[Option<Entry>]) {
    let states: Vec<Entry> = states.iter().flatten().cloned().collect();
    let joined = |a: &Entry, b: &Entry| a.clone().join(b.clone());
    for a in &states {
        assert_eq!(&joined(a, a), a, "idempotent");
        for b in &states {
            assert_eq!(joined(a, b), joined(b, a), "commutative");
            assert_eq!(joined(&joined(a, b), b), joined(a, b), "monotone");
            assert!(joined(a, b).dots().iter().all(|dot| a.covers(*dot) || b.covers(*dot)));
            assert!(a.dots().iter().chain(&b.dots()).all(|dot| joined(a, b).covers(*dot)), "nothing is lost");
            for c in &states {
                assert_eq!(joined(&joined(a, b), c), joined(a, &joined(b, c)), "associative");
            }
        }
    }
}

proptest! {
    #[test]
    fn members_are_what_the_model_says(steps in steps(Kind::Set)) {
        check_elements(Kind::Set, steps);
    }

    #[test]
    fn fields_are_what_the_model_says(steps in steps(Kind::Map)) {
        check_elements(Kind::Map, steps);
    }

    #[test]
    fn counters_sum_exactly(steps in steps(Kind::Counter)) {
        let mut world = World::new(Kind::Counter);
        for mut step in steps {
            if let Step::Change(_, Change::Add { expires_at_s, .. }) = &mut step {
                *expires_at_s = None;
            }
            world.apply(step.clone());
            for at in 0..REPLICAS {
                let seen = world.seen(at).unwrap_or_else(|| "0".into());
                assert_eq!(seen, world.expected_count(at).to_string(), "at {at} after {step:?}: {:?}", world.states[at]);
            }
        }
        world.converge();
        prop_assert_eq!(&world.states[0], &world.states[1]);
        prop_assert_eq!(&world.states[0], &world.states[2]);
    }

    #[test]
    fn counters_that_expire_converge(steps in steps(Kind::Counter)) {
        let mut world = World::new(Kind::Counter);
        steps.into_iter().for_each(|step| world.apply(step));
        world.converge();
        prop_assert_eq!(&world.states[0], &world.states[1]);
        prop_assert_eq!(&world.states[0], &world.states[2]);
    }

    /// Rows are dropped by what the head says at an epoch: it must say the same everywhere.
    #[test]
    fn what_went_with_a_whole_is_the_same_everywhere_at_one_epoch(steps in steps(Kind::Doc)) {
        let mut world = World::new(Kind::Doc);
        for step in steps {
            world.apply(step);
            let epoch = world.frontier();
            let gone = |at: usize| match world.states[at].as_ref().map(|state| &state.body) {
                Some(Body::Head(head)) => head.cleared_for_all(Frontier { epoch, held: &world.held[at] }),
                _ => None,
            };
            prop_assert_eq!(gone(0), gone(1));
            prop_assert_eq!(gone(0), gone(2));
        }
        world.converge();
        prop_assert_eq!(&world.states[0], &world.states[1]);
        prop_assert_eq!(&world.states[0], &world.states[2]);
    }

    /// An expiry that had been put off stood again where one epoch passed both, and not where there was one between them.
    #[test]
    fn who_skips_an_epoch_has_the_same_left_of_a_whole(steps in steps(Kind::Doc)) {
        let mut world = World::new(Kind::Doc);
        steps.into_iter().filter(|step| !matches!(step, Step::Settle(_))).for_each(|step| world.apply(step));
        world.hear(0, 1);
        world.hear(0, 2);
        let Some(Body::Head(head)) = world.states[0].as_ref().map(|state| &state.body) else { return Ok(()) };
        let left = |head: &Head, s: u64| {
            let epoch = Hlc::new(START_MS + 1_000 * s, 0);
            head.without_clears_for_all(Frontier { epoch, held: &world.held[0] })
        };
        for last in 0..30 {
            let at_once = left(head, last);
            for between in 0..last {
                prop_assert_eq!(&left(head, between).and_then(|head| left(&head, last)), &at_once);
            }
        }
    }

    #[test]
    fn joining_heads_keeps_the_laws(states in states(Kind::Doc)) {
        check_laws(&states);
    }

    #[test]
    fn joining_members_keeps_the_laws(states in states(Kind::Set)) {
        check_laws(&states);
    }

    #[test]
    fn joining_fields_keeps_the_laws(states in states(Kind::Map)) {
        check_laws(&states);
    }

    #[test]
    fn joining_counters_keeps_the_laws(states in states(Kind::Counter)) {
        check_laws(&states);
    }
}

/// A counter with a time to live counts in windows: what has expired is not there any more, and what comes after begins at
/// nothing.
#[test]
fn an_expired_count_begins_anew() {
    let mut world = World::new(Kind::Counter);
    world.apply(Step::Change(0, Change::Add { amount: 5, expires_at_s: Some(2) }));
    assert_eq!(world.seen(0), Some("5".into()));
    world.now_ms += 3_000;
    assert_eq!(world.seen(0), None);
    world.apply(Step::Change(0, Change::Add { amount: 2, expires_at_s: Some(2) }));
    assert_eq!(world.seen(0), Some("2".into()));
}

/// The index of expiries left it out, so who was reset before the sweep came by kept it, and others had dropped it.
#[test]
fn what_was_reset_after_it_had_expired_still_goes_with_its_expiry() {
    let mut world = World::new(Kind::Counter);
    world.apply(Step::Change(0, Change::Add { amount: 5, expires_at_s: Some(2) }));
    let expires_at_s = world.states[0].as_ref().and_then(|state| state.body.next_expiry());
    world.now_ms += 3_000;
    world.apply(Step::Change(0, Change::Clear));
    let state = world.states[0].as_ref().unwrap();
    assert!(matches!(&state.body, Body::Counter(counter) if counter.is_dead()));
    assert_eq!(state.body.next_expiry(), expires_at_s);
    assert!(expires_at_s.is_some());
}

/// Whoever adds without a word about time must not keep alive for ever what the others let expire.
#[test]
fn an_increment_without_expiry_takes_on_that_of_the_others() {
    let mut world = World::new(Kind::Counter);
    world.apply(Step::Change(0, Change::Add { amount: 5, expires_at_s: Some(4) }));
    world.apply(Step::Hear(1, 0));
    world.apply(Step::Change(1, Change::Add { amount: 1, expires_at_s: None }));
    assert_eq!(world.seen(1), Some("6".into()));
    world.now_ms += 5_000;
    assert_eq!(world.seen(1), None);
}
