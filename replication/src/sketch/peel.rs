//! Peeling: from the difference of two sketches to the names of what differs.

use super::{Fold, Item, TABLES};

/// What two sets do not share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Items of the set that the other was taken from, by rising id.
    pub ours: Vec<u64>,
    /// Items of the set that was taken away.
    pub theirs: Vec<u64>,
}

/// Names every item of a difference; `None` where it has more than the fold can name, or is no difference of two
/// sets. A cell with one item gives that away; taken out of its other cells, it leaves more such cells.
///
/// The cells may be forged. Each item found ends the life of a cell or there is a cycle, so no more are taken than
/// there are cells, and the result stands only if nothing is left and none was found twice.
pub fn named(mut difference: Fold) -> Option<Named> {
    let mut found = Named::default();
    let mut hopeful: Vec<usize> = (0..difference.cells.len()).rev().collect();
    let most = difference.cells.len();
    while let Some(index) = hopeful.pop() {
        let cell = difference.cells[index];
        let item = Item(cell.word);
        let side = match cell.count {
            1 => &mut found.ours,
            -1 => &mut found.theirs,
            _ => continue,
        };
        let table = index / difference.size() as usize;
        if Item::of(cell.word) != item || difference.index(table, item) != index {
            continue;
        }
        side.push(item.id());
        if found.ours.len() + found.theirs.len() > most {
            return None;
        }
        for table in 0..TABLES {
            let index = difference.index(table, item);
            difference.cells[index].subtract(cell);
            if difference.cells[index].count.unsigned_abs() == 1 {
                hopeful.push(index);
            }
        }
    }
    if difference.cells.iter().any(|cell| cell.count != 0 || cell.word != 0) {
        return None;
    }
    found.ours.sort_unstable();
    found.theirs.sort_unstable();
    let mut all = [&found.ours[..], &found.theirs[..]].concat();
    all.sort_unstable();
    (!all.windows(2).any(|pair| pair[0] == pair[1])).then_some(found)
}
