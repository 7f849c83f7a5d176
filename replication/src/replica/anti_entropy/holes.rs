//! Where one side lacks a whole range, by counts alone: no name needs to be worked out for rows that can be sent
//! leaf by leaf.

use crate::codec::round::MAX_EDGES;

/// Who has less than this share of the other's count, in percent, lacks the range.
const HOLE_PERCENT: u64 = 3;

/// Nodes with fewer entries are too few to tell a hole from chance.
const HOLE_MIN_COUNT: u32 = 32;

/// The least surplus of a node that pays for a look at its leaves: their counts cost what some 20 names do.
const EDGE_MIN_SURPLUS: f64 = 64.0;

/// A surplus this many standard deviations off that of the other nodes is no chance.
const EDGE_DEVIATIONS: f64 = 6.0;

/// The median of a squared standard normal variable.
const MEDIAN_OF_SQUARES: f64 = 0.455;

/// Nodes where one side lacks a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holes {
    /// One side has next to nothing.
    pub(super) nodes: Vec<u8>,
    /// One side lacks a part; at most [`MAX_EDGES`], the greatest.
    pub(super) edges: Vec<u8>,
}

/// Compares the counts of all nodes.
pub(super) fn holes(ours: &[u32], theirs: &[u32]) -> Holes {
    let total = |counts: &[u32]| counts.iter().map(|count| u64::from(*count)).sum::<u64>();
    let pairs: Vec<(u32, u32)> = ours.iter().copied().zip(theirs.iter().copied()).collect();
    let indices = 0..=u8::MAX;
    let least = total(ours).max(total(theirs)) >= u64::from(HOLE_MIN_COUNT);
    if least && is_hole(total(ours), total(theirs)) {
        return Holes { nodes: indices.collect(), edges: Vec::new() };
    }
    let whole = |(our, their): &(u32, u32)| {
        *our.max(their) >= HOLE_MIN_COUNT && is_hole(u64::from(*our), u64::from(*their))
    };
    let (nodes, rest): (Vec<_>, Vec<_>) = indices.zip(pairs).partition(|(_, pair)| whole(pair));
    let surplus = |(our, their): (u32, u32)| f64::from(our) - f64::from(their);
    let usual = median(rest.iter().map(|(_, pair)| surplus(*pair)).collect());
    let beyond = |pair: (u32, u32)| (surplus(pair) - usual).abs();
    let squares = median(rest.iter().map(|(_, pair)| beyond(*pair).powi(2)).collect());
    let deviation = (squares / MEDIAN_OF_SQUARES).max(1.0).sqrt();
    let limit = EDGE_MIN_SURPLUS.max(EDGE_DEVIATIONS * deviation);
    let mut edges: Vec<_> = rest.into_iter().filter(|(_, pair)| beyond(*pair) >= limit).collect();
    edges.sort_by(|(_, a), (_, b)| beyond(*b).total_cmp(&beyond(*a)));
    edges.truncate(MAX_EDGES);
    let index = |(index, _): &(u8, _)| *index;
    Holes { nodes: nodes.iter().map(index).collect(), edges: edges.iter().map(index).collect() }
}

/// The leaves one side is to send, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// What they lack.
    pub(super) there: Vec<(u16, u16)>,
    /// What we lack.
    pub(super) here: Vec<(u16, u16)>,
}

impl Missing {
    /// Notes the leaves from `first` to `last`, by both sides' counts. Call it by rising leaf.
    pub(super) fn note(&mut self, first: u16, last: u16, ours: u32, theirs: u32) {
        if !is_hole(u64::from(ours), u64::from(theirs)) {
            return;
        }
        let ranges = if ours > theirs { &mut self.there } else { &mut self.here };
        match ranges.last_mut() {
            Some(before) if u32::from(before.1) + 1 == u32::from(first) => before.1 = last,
            _ => ranges.push((first, last)),
        }
    }
}

fn is_hole(one: u64, other: u64) -> bool {
    one.min(other) * 100 < one.max(other) * HOLE_PERCENT
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ours: &[u32], theirs: &[u32], nodes: &[u8], edges: &[u8]) {
        let expected = Holes { nodes: nodes.to_vec(), edges: edges.to_vec() };
        assert_eq!(holes(ours, theirs), expected);
        assert_eq!(holes(theirs, ours), expected, "the other way round");
    }

    fn changed(counts: &[u32], at: &[(usize, u32)]) -> Vec<u32> {
        let mut counts = counts.to_vec();
        at.iter().for_each(|(at, count)| counts[*at] = *count);
        counts
    }

    #[test]
    fn holes_and_their_edges_are_told_from_even_losses() {
        let full: Vec<u32> = (0..256).map(|n| 4000 + n % 7 * 10).collect();
        check(&full, &full, &[], &[]);
        // Two nodes gone, and parts of the two beside them.
        check(&full, &changed(&full, &[(4, 3000), (5, 0), (6, 119), (7, 3700)]), &[5, 6], &[4, 7]);
        // Just above the share that makes a hole.
        check(&full, &changed(&full, &[(7, 120)]), &[], &[7]);
        // A tenth gone everywhere, more or less.
        let thinned: Vec<u32> =
            full.iter().enumerate().map(|(n, count)| count - 400 + n as u32 % 41).collect();
        check(&full, &thinned, &[], &[]);
        // And a hole beside that.
        check(&full, &changed(&thinned, &[(9, 0), (10, 2000)]), &[9], &[10]);
    }

    #[test]
    fn everything_lost_is_one_hole_also_in_a_small_store() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        check(&[1; 256], &[0; 256], &all, &[]);
        check(&changed(&[0; 256], &[(3, HOLE_MIN_COUNT)]), &[0; 256], &all, &[]);
        check(&changed(&[0; 256], &[(3, HOLE_MIN_COUNT - 1)]), &[0; 256], &[], &[]);
        check(&[0; 256], &[0; 256], &[], &[]);
    }

    #[test]
    fn no_counts_a_peer_can_send_make_it_panic() {
        check(&[u32::MAX; 256], &[0; 256], &(0..=u8::MAX).collect::<Vec<_>>(), &[]);
        let _ = holes(&[u32::MAX; 256], &[u32::MAX / 2; 256]);
    }

    #[test]
    fn neighbouring_leaves_make_one_range() {
        let mut missing = Missing::default();
        for (leaf, ours, theirs) in [(0, 9, 0), (1, 9, 0), (2, 9, 9), (3, 0, 1), (4, 5, 0), (u16::MAX, 1, 0)]
        {
            missing.note(leaf, leaf, ours, theirs);
        }
        assert_eq!(missing.there, [(0, 1), (4, 4), (u16::MAX, u16::MAX)]);
        assert_eq!(missing.here, [(3, 3)]);
    }
}
