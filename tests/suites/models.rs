//! Every model, walked whole: the rules as built hold in all states, and each variant known to be wrong is found out.

use std::fmt::Debug;
use std::hash::Hash;

use littoral_tests::models::eviction::{self, Eviction, Play};
use littoral_tests::models::tombstones::{self, Tombstones, Write};
use littoral_tests::models::walk;
use stateright::Model;

/// The most steps a walk may take, those to states seen before included: many times what the largest model needs
/// would only hide that a model has grown, so a walk that comes to here fails.
const MAX_STEPS: usize = 20_000_000;

/// Walks a model, which must hold in all states, or break `sought`.
#[track_caller]
fn check<M>(name: &str, model: M, sought: Option<&'static str>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let walk = walk(model, sought, MAX_STEPS);
    println!("{name}: {walk}");
    match sought {
        Some(property) => {
            let found = walk.broken.iter().find(|(broken, _)| *broken == property);
            let (_, steps) = found.unwrap_or_else(|| panic!("{name} is not found out: {walk}"));
            println!("    {}", steps.join("\n    "));
        }
        None => {
            assert!(walk.broken.is_empty(), "{name}: {walk}\n{:#?}", walk.broken);
            assert!(walk.exhaustive, "{name}: {walk}");
            // A model in which the dangerous moment never comes shows nothing.
            assert!(walk.unseen.is_empty(), "{name} never shows {:?}", walk.unseen);
        }
    }
}

#[test]
fn a_tombstone_dropped_by_the_epoch_never_lets_a_value_back() {
    use tombstones::Rule::Built;
    let base = Tombstones::put_and_delete(Built);
    check("a put, a delete, a repair row", base.clone(), None);
    let two_in_flight = Tombstones { max_deltas: 2, max_repairs: 0, ..base.clone() };
    check("a put, a delete, two deltas", two_in_flight, None);
    let third = Write { origin: 2, deletes: false };
    let writes = base.writes.iter().copied().chain([third]).collect();
    check("three writes", Tombstones { writes, max_repairs: 0, ..base }, None);
}

#[test]
fn every_other_way_to_drop_a_tombstone_is_found_out() {
    use tombstones::Rule::{Age, EveryoneHasIt, RepairOfAnyEpoch, RowsHeldAlready};
    for rule in [Age, EveryoneHasIt, RepairOfAnyEpoch, RowsHeldAlready] {
        let base = Tombstones::put_and_delete(rule);
        let model = match rule {
            RepairOfAnyEpoch => base,
            _ => Tombstones { max_deltas: 2, max_repairs: 0, ..base },
        };
        check(&format!("{rule:?}"), model, Some(tombstones::STAYS_DELETED));
    }
}

#[test]
fn eviction_and_return_lose_nothing_and_bring_nothing_back() {
    for (play, removal_hlc) in [(Play::Return, 2), (Play::Return, 4), (Play::Growth, 2), (Play::Growth, 4)] {
        let model = Eviction { rule: eviction::Rule::Built, play, removal_hlc };
        check(&format!("{play:?}, removal at {removal_hlc}"), model, None);
    }
}

#[test]
fn each_part_of_eviction_is_needed() {
    use Play::{Growth, Return};
    use eviction::Rule::*;
    use eviction::{CLAIMS_TRUE, CONVERGES, CUT_HOLDS, NOT_BEHIND, REPLAYED_IN_TIME, STAYS_DELETED};
    let variants = [
        (CutOfAcknowledgements, Return, CUT_HOLDS),
        (CutOfOne, Return, CUT_HOLDS),
        (NoCut, Return, CUT_HOLDS),
        (CutWithoutJoiners, Growth, CUT_HOLDS),
        (NoFence, Return, STAYS_DELETED),
        (OldStoreMerged, Return, STAYS_DELETED),
        (OldWritesReplayed, Return, REPLAYED_IN_TIME),
        (EpochOfBegin, Return, REPLAYED_IN_TIME),
        (MemberEarly, Return, NOT_BEHIND),
        (MemberWithoutCut, Return, CONVERGES),
        (FloorOfNewOrigin, Return, CONVERGES),
        (BehindUnnoticed, Return, CLAIMS_TRUE),
        (CopyBeforeAdmission, Growth, CLAIMS_TRUE),
    ];
    for (rule, play, property) in variants {
        check(&format!("{rule:?}"), Eviction { rule, play, removal_hlc: 4 }, Some(property));
    }
}
