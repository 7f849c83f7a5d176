//! Bounded counters: never below zero, in no view of them, and exact against a bag of events.

use super::*;

/// What an event did to a generation.
#[derive(Clone, Copy, Debug, Default)]
struct Effect {
    up: i128,
    down: i128,
    given: Option<(ReplicaId, i128)>,
}

/// What an event did: to which generations what, and which it ended.
#[derive(Clone, Debug, Default)]
struct Did {
    effects: Vec<(Dot, Effect)>,
    ended: Vec<Dot>,
}

/// What each event did, which follows from those it had seen.
struct Model(BTreeMap<Dot, Did>);

impl Model {
    fn of(world: &World) -> Self {
        let mut model = Self(BTreeMap::new());
        for (dot, event) in &world.events {
            let did = model.done_by(*dot, event);
            model.0.insert(*dot, did);
        }
        model
    }

    fn done_by(&self, dot: Dot, event: &ModelEvent) -> Did {
        let living = self.living(&event.seen);
        let oldest = living.first().copied().unwrap_or(dot);
        let effects = match event.change {
            Change::Add { amount: taken @ ..0, .. } => {
                let parts = self.split(dot, event, i128::from(-taken));
                parts.map(|(birth, down)| (birth, Effect { down, ..Effect::default() })).collect()
            }
            Change::Give { to, amount } => {
                let parts = self.split(dot, event, i128::from(amount));
                parts
                    .map(|(birth, part)| (birth, Effect { given: Some((to, part)), ..Effect::default() }))
                    .collect()
            }
            Change::Add { amount, .. } => {
                vec![(oldest, Effect { up: i128::from(amount), ..Effect::default() })]
            }
            _ => vec![(oldest, Effect::default())],
        };
        let is_end = event.change == Change::Clear;
        Did {
            effects,
            ended: if is_end && living.is_empty() {
                vec![dot]
            } else if is_end {
                living
            } else {
                Vec::new()
            },
        }
    }

    fn split(&self, dot: Dot, event: &ModelEvent, mut lacking: i128) -> impl Iterator<Item = (Dot, i128)> {
        let parts = self.living(&event.seen).into_iter().map(|birth| {
            let part = self.rights(&event.seen, birth, dot.replica).min(lacking);
            lacking -= part;
            (birth, part)
        });
        parts.collect::<Vec<_>>().into_iter()
    }

    fn living(&self, seen: &BTreeSet<Dot>) -> Vec<Dot> {
        let ended: BTreeSet<Dot> = seen.iter().flat_map(|dot| self.0[dot].ended.clone()).collect();
        let begun: BTreeSet<Dot> =
            seen.iter().flat_map(|dot| &self.0[dot].effects).map(|(birth, _)| *birth).collect();
        begun.difference(&ended).copied().collect()
    }

    fn rights(&self, seen: &BTreeSet<Dot>, birth: Dot, of: ReplicaId) -> i128 {
        let all = seen.iter().flat_map(|dot| self.0[dot].effects.iter().map(|effect| (dot.replica, effect)));
        let its = all.filter(|(_, (of_birth, _))| *of_birth == birth);
        its.map(|(by, (_, effect))| {
            let own = if by == of { effect.up - effect.down } else { 0 };
            let (to, given) = effect.given.unwrap_or((by, 0));
            own + if to == of { given } else { 0 } - if by == of { given } else { 0 }
        })
        .sum()
    }

    fn count(&self, seen: &BTreeSet<Dot>) -> Option<i128> {
        let living = self.living(seen);
        let all = || seen.iter().flat_map(|dot| &self.0[dot].effects);
        let counted =
            all().filter(|(birth, _)| living.contains(birth)).map(|(_, effect)| effect.up - effect.down);
        (!living.is_empty()).then(|| counted.sum())
    }
}

/// No generation of it stands below zero, nor has anybody spent more rights than it had.
fn check_never_negative(state: &Entry) {
    let Body::Bounded(bounded) = &state.body else { panic!("{state:?}") };
    for (birth, generation) in &bounded.generations {
        if generation.ended.is_some() {
            continue;
        }
        let tallies = generation.tallies();
        let got = |of: ReplicaId| tallies.values().filter_map(|tally| tally.given.get(&of)).sum::<u64>();
        for (replica, tally) in &tallies {
            let spent = tally.down + tally.given.values().sum::<u64>();
            assert!(spent <= tally.up + got(*replica), "{replica:?} of {birth:?}: {generation:?}");
        }
        let (up, down): (u64, u64) =
            tallies.values().fold((0, 0), |(up, down), tally| (up + tally.up, down + tally.down));
        assert!(down <= up, "{birth:?}: {generation:?}");
    }
}

fn run(steps: Vec<Step>) -> World {
    let mut world = World::new(Kind::Bounded);
    steps.into_iter().for_each(|step| world.apply(step));
    world
}

proptest! {
    #[test]
    fn bounded_counters_are_what_the_model_says_and_never_negative(steps in steps(Kind::Bounded)) {
        let mut world = World::new(Kind::Bounded);
        for step in steps {
            let refused = world.refused;
            if let Step::Change(at, change) = &step {
                let model = Model::of(&world);
                let heard = &world.heard[*at];
                let rights: i128 =
                    model.living(heard).iter().map(|birth| model.rights(heard, *birth, replica(*at))).sum();
                let wanted = match change {
                    Change::Add { amount: taken @ ..0, .. } => Some(i128::from(-taken)),
                    Change::Give { amount, .. } => Some(i128::from(*amount)),
                    _ => None,
                };
                let is_over = model.living(heard).is_empty();
                world.apply(step.clone());
                let is_refused = wanted.is_some_and(|wanted| wanted > rights || is_over);
                prop_assert_eq!(world.refused > refused, is_refused, "{:?}", step);
            } else {
                world.apply(step.clone());
            }
            let model = Model::of(&world);
            for at in 0..REPLICAS {
                world.states[at].iter().for_each(check_never_negative);
                let expected = model.count(&world.heard[at]).map(|count| count.to_string());
                prop_assert_eq!(world.seen(at), expected, "at {} after {:?}: {:?}", at, step, world.states[at]);
                let Some(Body::Bounded(bounded)) = world.states[at].as_ref().map(|state| &state.body) else { continue };
                let living = model.living(&world.heard[at]);
                for of in (0..REPLICAS).map(replica) {
                    let rights: i128 =
                        living.iter().map(|birth| model.rights(&world.heard[at], *birth, of)).sum();
                    prop_assert_eq!(i128::from(bounded.rights(of)), rights);
                }
            }
        }
        world.converge();
        prop_assert_eq!(&world.states[0], &world.states[1]);
        prop_assert_eq!(&world.states[0], &world.states[2]);
    }

    #[test]
    fn joining_bounded_counters_keeps_the_laws(states in states(Kind::Bounded)) {
        check_laws(&states);
    }

    #[test]
    fn no_view_of_some_replicas_is_negative(states in states(Kind::Bounded)) {
        let states: Vec<Entry> = states.into_iter().flatten().collect();
        for a in &states {
            for b in &states {
                check_never_negative(&a.clone().join(b.clone()));
            }
        }
    }

    /// The last replica is out, and comes back by another name; so may the one before it, which it may have heard of last.
    #[test]
    fn what_came_back_counts_once_and_never_makes_it_negative(steps in steps(Kind::Bounded), both: bool) {
        let mut world = run(steps);
        let at_ms = world.now_ms;
        let has_ended = world.events.values().any(|event| event.change == Change::Clear);
        let mut current = world.states[0].clone();
        let mut heard = world.heard[0].clone();
        let came_back = if both { vec![2, 1] } else { vec![2] };
        for (number, old) in (1..).zip(came_back) {
            let Some(said) = world.states[old].as_ref().and_then(|state| state.said_by(replica(old))) else {
                continue;
            };
            prop_assert_eq!(said.dot.replica, replica(old));
            let new = Dot { hlc: Hlc::new(at_ms + number, 0), replica: replica(old + REPLICAS) };
            let frontier = Frontier { epoch: Hlc::ZERO, held: &world.held[0] };
            let body = said.said_anew(current.as_ref(), new, frontier);
            let told = Entry::of_parts(body).unwrap();
            prop_assert_eq!(told.dot, new);
            check_never_negative(&told);
            heard.extend(world.heard[old].clone());
            current = Some(told);
        }
        let Some(told) = current else { return Ok(()) };
        let count = |state: &Entry| match &state.body {
            Body::Bounded(bounded) => bounded.count().unwrap_or_default(),
            body => panic!("{body:?}"),
        };
        let model = Model::of(&world);
        let births: BTreeSet<Dot> = model.0.values().flat_map(|did| &did.effects).map(|(birth, _)| *birth).collect();
        // Of a generation in which it has said nothing, others tell what it had heard.
        if !has_ended && (both || births.len() == 1) {
            let expected = model.count(&heard).unwrap_or_default();
            prop_assert_eq!(count(&told), expected);
        }
        // Whoever has heard of the old ones themselves counts nothing twice.
        for old in 1..REPLICAS {
            if let Some(state) = world.states[old].take() {
                check_never_negative(&told.clone().join(state));
            }
        }
    }
}

/// A seat that was sold while the sale was being ended elsewhere is no seat of the next.
#[test]
fn a_deletion_ends_what_was_taken_meanwhile_and_what_is_begun_meanwhile_stands() {
    let mut world = World::new(Kind::Bounded);
    let add = |at, amount| Step::Change(at, Change::Add { amount, expires_at_s: None });
    world.apply(add(0, 5));
    world.apply(Step::Hear(1, 0));
    world.apply(Step::Change(1, Change::Clear));
    assert_eq!((world.seen(0), world.seen(1)), (Some("5".into()), None));
    world.apply(add(1, 3));
    world.apply(add(0, -2));
    world.apply(Step::Hear(1, 0));
    world.apply(Step::Hear(0, 1));
    assert_eq!((world.seen(0), world.seen(1)), (Some("3".into()), Some("3".into())));
    world.apply(add(0, -1));
    assert_eq!(world.refused, 1, "the rights are at the other");
}

#[test]
fn it_has_no_expiry() {
    let mut world = World::new(Kind::Bounded);
    let change = Change::Add { amount: 1, expires_at_s: Some(2_000) };
    let dot = Dot { hlc: Hlc::new(1, 0), replica: replica(0) };
    let changed = Entry::changed(&world.id(), None, change, dot, &world.held[0]);
    assert_eq!(changed, Err(ChangeError::NoExpiry));
    world.apply(Step::Change(0, Change::Clear));
    assert_eq!(world.seen(0), None);
}

#[test]
fn one_replica_counts_so_far_and_no_further() {
    for (amount, more, expected) in
        [(MAX_COUNT - 2, 1, Ok(())), (MAX_COUNT - 1, 1, Ok(())), (MAX_COUNT, 1, Err(ChangeError::TooFar))]
    {
        let dot = |ms| Dot { hlc: Hlc::new(ms, 0), replica: replica(0) };
        let first = Bounded::add(None, dot(1), amount).unwrap();
        assert_eq!(Bounded::add(Some(&first), dot(2), more).map(|_| ()), expected, "{amount}");
    }
}
