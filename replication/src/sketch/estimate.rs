//! How many items differ, from counts alone, and how many cells will name them.

use super::{CELLS, Fold, MIN_SIZE, TABLES, is_size};

/// Cells for each item that is thought to differ, where the estimate is good and where it is coarse. Measured: 1.35
/// name them where the estimate is exact; with these, an estimate two to three standard deviations too low still does.
const CELLS_AN_ITEM: [f64; 2] = [1.7, 2.1];

/// The fewest cells for each item with which the widest fold is worth a try.
const LEAST_CELLS_AN_ITEM: f64 = 1.4;

/// Cells beside those, since small tables fail more often.
const CELLS_BESIDE: f64 = 24.0;

/// Two estimates that are this near to each other, as a share of the one, are of the same thing.
const AGREEMENT: f64 = 0.35;

/// How many items differ, more or less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// How many.
    pub items: f64,
    /// Whether that comes from one sketch alone.
    pub coarse: bool,
}

impl Estimate {
    /// From the difference of two folds, and the differences of some other `counts` of the same sets, by place
    /// and not by state: those do not see an entry that has one state here and another there, so they are
    /// believed only where they say the same.
    ///
    /// Between the two, one may hold more: the difference has at least that many items.
    pub fn of(fold: &Fold, counts: &[i64]) -> Self {
        let by_state: f64 =
            fold.tables().map(|cells| spread(cells.iter().map(|cell| cell.count))).sum::<f64>()
                / TABLES as f64;
        let by_place = spread(counts.iter().copied());
        let surplus = counts.iter().map(|count| *count as f64).sum::<f64>().abs();
        let coarse = (by_place - by_state).abs() > AGREEMENT * by_state;
        // Weights are the numbers of squares that each is a mean of.
        let (states, places) = (TABLES as f64 * f64::from(fold.size() - 1), counts.len() as f64 - 1.0);
        let joint = (by_state * states + by_place * places) / (states + places);
        Self { items: if coarse { by_state } else { joint }.max(surplus), coarse }
    }

    /// The least size of a fold that names as many; `None` where none does.
    pub fn size(self) -> Option<u32> {
        let wished = size_for(self.items * CELLS_AN_ITEM[usize::from(self.coarse)] + CELLS_BESIDE);
        let possible = self.items * LEAST_CELLS_AN_ITEM <= TABLES as f64 * f64::from(CELLS);
        wished.or(possible.then_some(CELLS))
    }
}

/// How many items there are, by the scatter of their counts over places: wherever it falls and whichever side it is
/// of, an item adds 1 - 1/S to the sum of squares around the mean of S counts. The relative error is sqrt(2 / (S - 1)).
pub fn spread(counts: impl ExactSizeIterator<Item = i64> + Clone) -> f64 {
    let len = counts.len().max(2) as f64;
    let mean = counts.clone().map(|count| count as f64).sum::<f64>() / len;
    let squares: f64 = counts.map(|count| (count as f64 - mean) * (count as f64 - mean)).sum();
    squares * len / (len - 1.0)
}

/// The least size with which all tables together have so many cells.
pub fn size_for(cells: f64) -> Option<u32> {
    (MIN_SIZE..=CELLS).find(|size| is_size(*size) && f64::from(*size) * TABLES as f64 >= cells)
}
