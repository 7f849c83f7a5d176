//! A sketch folded to the size that a difference needs: what is sent, subtracted and peeled.

use super::{CELLS, Item, TABLES, is_size};

/// The xor and the count of some items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The items' xor.
    pub word: u64,
    /// How many; in a difference, ours less theirs.
    pub count: i64,
}

impl Cell {
    /// Takes `other` out.
    pub(super) fn subtract(&mut self, other: Cell) {
        self.word ^= other.word;
        self.count = self.count.wrapping_sub(other.count);
    }
}

/// A sketch with tables of [`Fold::size`] cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    size: u32,
    /// Table by table.
    pub(super) cells: Vec<Cell>,
}

impl Fold {
    /// A sketch of nothing.
    pub(super) fn empty(size: u32) -> Self {
        debug_assert!(is_size(size), "{size} cells");
        Self { size, cells: vec![Cell::default(); TABLES * size as usize] }
    }

    /// The fold with these cells, table by table; `None` where they are not as many as a fold has.
    pub fn of_cells(size: u32, cells: Vec<Cell>) -> Option<Self> {
        (is_size(size) && cells.len() == TABLES * size as usize).then_some(Self { size, cells })
    }

    /// Cells of each table.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The cells, table by table.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Gives the cells away.
    pub fn into_cells(self) -> Vec<Cell> {
        self.cells
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks_exact(self.size as usize)
    }

    pub(super) fn index(&self, table: usize, item: Item) -> usize {
        table * self.size as usize + item.position(table, self.size)
    }

    /// Folds further, to a size that divides this one.
    pub fn fold(&self, size: u32) -> Self {
        debug_assert!(self.size.is_multiple_of(size));
        let mut fold = Self::empty(size);
        for (table, cells) in self.tables().enumerate() {
            for (at, cell) in cells.iter().enumerate() {
                let sum = &mut fold.cells[table * size as usize + at % size as usize];
                sum.word ^= cell.word;
                sum.count = sum.count.wrapping_add(cell.count);
            }
        }
        fold
    }

    /// What is left of this sketch without `other`, of the same size.
    pub fn less(mut self, other: &Self) -> Self {
        debug_assert_eq!(self.size, other.size);
        self.cells.iter_mut().zip(&other.cells).for_each(|(cell, other)| cell.subtract(*other));
        self
    }

    /// The next size to try when this one was too small: the least multiple that divides what is kept.
    pub fn wider(size: u32) -> Option<u32> {
        (2..=CELLS / size).map(|times| times * size).find(|size| is_size(*size))
    }

    /// The cells that a fold of size `narrow` does not determine, table by table: all but the first `narrow` of each.
    pub fn beyond(&self, narrow: u32) -> Vec<Cell> {
        self.tables().flat_map(|cells| &cells[narrow as usize..]).copied().collect()
    }

    /// The fold of size `size` that folds to this one and has these cells beyond it; `None` where they are not as
    /// many.
    pub fn widened(&self, size: u32, beyond: &[Cell]) -> Option<Self> {
        let (narrow, wide) = (self.size as usize, size as usize);
        if !is_size(size) || wide <= narrow || wide % narrow != 0 || beyond.len() != TABLES * (wide - narrow)
        {
            return None;
        }
        let mut cells = Vec::with_capacity(TABLES * wide);
        for (first, rest) in self.tables().zip(beyond.chunks_exact(wide - narrow)) {
            let start = cells.len();
            cells.extend_from_slice(first);
            cells.extend_from_slice(rest);
            rest.iter().enumerate().for_each(|(at, cell)| cells[start + at % narrow].subtract(*cell));
        }
        Some(Self { size, cells })
    }
}
