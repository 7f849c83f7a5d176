//! The laws of sketches: folding and subtracting keep what peeling needs, and forged cells end in nothing.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Well-mixed bits by number (SplitMix64), as a keyed hash gives them.
fn bits(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn items(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    numbers.into_iter().map(|number| Item::of(bits(number)).id()).collect()
}

fn sketch(ids: &BTreeSet<u64>) -> Sketch {
    let mut sketch = Sketch::default();
    ids.iter().for_each(|id| sketch.add(Item::of(id << CHECK_BITS)));
    sketch
}

fn sizes() -> Vec<u32> {
    (MIN_SIZE..=CELLS).filter(|size| is_size(*size)).collect()
}

/// Checks that what two sets do not share is named exactly, by folds of this size.
#[track_caller]
fn check(ours: &BTreeSet<u64>, theirs: &BTreeSet<u64>, size: u32) {
    let difference = sketch(ours).fold(size).less(&sketch(theirs).fold(size));
    let expected = Named {
        ours: ours.difference(theirs).copied().collect(),
        theirs: theirs.difference(ours).copied().collect(),
    };
    assert_eq!(named(difference), Some(expected));
}

#[test]
fn the_symmetric_difference_is_named_exactly() {
    let ours = items(0..20_000);
    check(&ours, &ours, MIN_SIZE);
    check(&items([]), &items([]), MIN_SIZE);
    check(&ours, &items(10..20_000), 20);
    check(&items(10..20_000), &items(5..19_990), 20);
    check(&ours, &items([]), 10_240);
    check(&items(0..12_000), &items(8_000..20_000), 10_240);
    check(&items([]), &ours, CELLS);
}

#[test]
fn too_few_cells_are_told_from_enough() {
    let ours = items(0..1_000);
    for size in sizes().into_iter().filter(|size| TABLES as u32 * size < 1_000) {
        assert_eq!(named(sketch(&ours).fold(size)), None, "{size}");
    }
}

#[test]
fn removing_what_was_added_leaves_nothing() {
    let mut sketch = sketch(&items(0..500));
    items(0..500).into_iter().rev().for_each(|id| sketch.remove(Item::of(id << CHECK_BITS)));
    assert_eq!(sketch.fold(CELLS), Fold::empty(CELLS));
}

#[test]
fn sizes_are_fine_grained_and_fit_what_is_kept() {
    let sizes = sizes();
    assert_eq!((sizes.first(), sizes.last()), (Some(&MIN_SIZE), Some(&CELLS)));
    for pair in sizes.windows(2).filter(|pair| pair[1] <= CELLS / 8) {
        assert!(pair[1] * 3 <= pair[0] * 4, "{pair:?}");
    }
    for size in [0, 1, MIN_SIZE - 1, 17, CELLS - 1, CELLS + 1, 2 * CELLS, u32::MAX] {
        assert!(!is_size(size), "{size}");
    }
    assert_eq!(size_for(f64::from(TABLES as u32 * CELLS)), Some(CELLS));
    assert_eq!(size_for(f64::from(TABLES as u32 * CELLS) + 1.0), None);
    assert_eq!(size_for(f64::NAN), None);
}

#[test]
fn every_size_but_the_widest_has_a_wider_one_that_folds_to_it() {
    for size in sizes() {
        match Fold::wider(size) {
            Some(wider) => assert!(is_size(wider) && wider > size && wider.is_multiple_of(size), "{size}"),
            None => assert_eq!(size, CELLS),
        }
    }
}

#[test]
fn a_wider_fold_follows_from_the_narrow_one_and_the_cells_beyond() {
    let sketch = sketch(&items(0..3_000));
    for size in sizes().into_iter().filter(|size| *size < 500 || *size > 9_000) {
        let Some(wider) = Fold::wider(size) else { continue };
        let (narrow, wide) = (sketch.fold(size), sketch.fold(wider));
        assert_eq!(narrow.widened(wider, &wide.beyond(size)).as_ref(), Some(&wide), "{size} to {wider}");
        assert_eq!(narrow.widened(wider, &wide.beyond(size)[1..]), None);
        assert_eq!(narrow.widened(size, &[]), None);
        assert_eq!(narrow.widened(wider + 1, &wide.beyond(size)), None);
    }
}

#[test]
fn the_number_of_differences_is_estimated_from_counts() {
    let size = 20;
    for differing in [100, 1_000, 10_000u64] {
        for seed in 0..20 {
            let ids = items((0..differing).map(|n| n + (seed << 32)));
            let (ours, theirs): (BTreeSet<u64>, BTreeSet<u64>) = ids.iter().partition(|id| **id % 3 == 0);
            let difference = sketch(&ours).fold(size).less(&sketch(&theirs).fold(size));
            let mut places = vec![0; 256];
            ours.iter().for_each(|id| places[(id >> 40) as usize] += 1);
            theirs.iter().for_each(|id| places[(id >> 40) as usize] -= 1);
            let fine = Estimate::of(&difference, &places);
            // Five standard deviations of each.
            let within = |items: f64, share: f64| (items / differing as f64 - 1.0).abs() < share;
            assert!(fine.coarse || within(fine.items, 0.4), "{differing}: {fine:?}");
            // Old states have no surplus anywhere.
            let coarse = Estimate::of(&difference, &[0; 256]);
            assert!(coarse.coarse && within(coarse.items, 0.8), "{differing}: {coarse:?}");
        }
    }
}

#[test]
fn the_size_that_the_estimate_gives_names_nearly_all() {
    let mut failed = 0;
    for seed in 0..200u64 {
        let ids = items((0..300).map(|n| n + (seed << 32)));
        let kept = sketch(&ids);
        let mut places = vec![0; 256];
        ids.iter().for_each(|id| places[(id >> 40) as usize] += 1);
        let size = Estimate::of(&kept.fold(20), &places).size().unwrap();
        failed += u32::from(named(kept.fold(size)).is_none());
    }
    assert!(failed <= 6, "{failed} of 200");
}

proptest! {
    #[test]
    fn folding_a_fold_is_folding_once(numbers in prop::collection::btree_set(any::<u64>(), 0..50), pick in any::<(u16, u16)>()) {
        let sizes = sizes();
        let wide = sizes[usize::from(pick.0) % sizes.len()];
        let narrower: Vec<u32> = sizes.into_iter().filter(|size| wide.is_multiple_of(*size)).collect();
        let narrow = narrower[usize::from(pick.1) % narrower.len()];
        let sketch = sketch(&items(numbers));
        prop_assert_eq!(sketch.fold(wide).fold(narrow), sketch.fold(narrow));
    }

    #[test]
    fn subtracting_sketches_is_subtracting_sets(shared in 0..200u64, ours in 0..200u64, theirs in 0..200u64) {
        let both = |from: u64, own: u64| items((0..shared).chain((from..from + own).map(|n| n + (1 << 20))));
        let (left, right) = (both(0, ours), both(1 << 20, theirs));
        let difference = sketch(&left).fold(48).less(&sketch(&right).fold(48));
        let alone = sketch(&left.difference(&right).copied().collect()).fold(48);
        let alone = alone.less(&sketch(&right.difference(&left).copied().collect()).fold(48));
        prop_assert_eq!(difference, alone);
    }

    /// Cells that no sets have, among them items in too few cells, twice, and in circles.
    #[test]
    fn forged_cells_end_in_nothing_or_in_names_that_fit_them(
        cells in prop::collection::vec((0..40u64, -2..3i64, any::<bool>()), TABLES * 16),
        planted in prop::collection::vec((0..30u64, -1..2i64), 0..10),
    ) {
        let cells = cells.into_iter().map(|(number, count, filled)| match filled && number < 5 {
            true => Cell { word: Item::of(bits(number)).0, count },
            false => Cell::default(),
        });
        let mut fold = Fold::of_cells(16, cells.collect()).unwrap();
        for (number, count) in planted {
            let item = Item::of(bits(number));
            for table in 0..TABLES {
                let index = fold.index(table, item);
                fold.cells[index].word ^= item.0;
                fold.cells[index].count += count;
            }
        }
        if let Some(found) = named(fold.clone()) {
            let ours = sketch(&found.ours.into_iter().collect()).fold(16);
            let theirs = sketch(&found.theirs.into_iter().collect()).fold(16);
            prop_assert_eq!(fold, ours.less(&theirs));
        }
    }
}

#[test]
fn cells_of_one_item_that_point_at_one_another_are_no_endless_loop() {
    for count in [1, -1, 0, i64::MAX, i64::MIN] {
        for number in 1..20 {
            let word = Item::of(bits(number)).0;
            let fold = Fold::of_cells(16, vec![Cell { word, count }; TABLES * 16]).unwrap();
            assert_eq!(named(fold), None);
        }
    }
}
