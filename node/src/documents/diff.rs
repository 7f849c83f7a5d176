//! Where two sequences differ, in few edits.
//!
//! E. Myers, "An O(ND) difference algorithm and its variations" (1986), between what they begin and end with in common.
//! Where the two differ too much for that, everything in between is one edit.

/// The most insertions and deletions that are looked for one by one. What is kept meanwhile grows as its square: 4 MiB.
const MAX_EDITS: usize = 512;
/// The most comparisons of items for all sequences of one change.
pub(crate) const MAX_STEPS: usize = 16 << 20;

/// Of the old, so many from here are replaced by so many of the new from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hunk {
    pub(crate) old: usize,
    pub(crate) delete: usize,
    pub(crate) new: usize,
    pub(crate) insert: usize,
}

/// What makes the new of the old, in order. `steps` are the comparisons that may still be made.
pub(crate) fn hunks<T: PartialEq>(old: &[T], new: &[T], steps: &mut usize) -> Vec<Hunk> {
    let start = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let all = Hunk { old: 0, delete: old.len(), new: 0, insert: new.len() };
    let between = match (old.len(), new.len()) {
        (0, 0) => Vec::new(),
        (0, _) | (_, 0) => vec![all],
        _ => shortest(old, new, steps).unwrap_or_else(|| vec![all]),
    };
    between.into_iter().map(|hunk| Hunk { old: hunk.old + start, new: hunk.new + start, ..hunk }).collect()
}

/// The furthest that each diagonal has been followed to, by its number from `-MAX_EDITS - 1` on.
type Furthest = Vec<isize>;

fn at(diagonal: isize) -> usize {
    (diagonal + MAX_EDITS as isize + 1) as usize
}

/// From which diagonal the furthest on this one is reached with `edits`.
fn previous(furthest: &Furthest, diagonal: isize, edits: isize) -> isize {
    let goes_down =
        diagonal == -edits || (diagonal != edits && furthest[at(diagonal - 1)] < furthest[at(diagonal + 1)]);
    if goes_down { diagonal + 1 } else { diagonal - 1 }
}

/// The fewest edits; `None` where they or the steps are too many.
fn shortest<T: PartialEq>(old: &[T], new: &[T], steps: &mut usize) -> Option<Vec<Hunk>> {
    let mut furthest: Furthest = vec![0; 2 * MAX_EDITS + 3];
    let mut before = Vec::new();
    for edits in 0..=MAX_EDITS as isize {
        before.push(furthest.clone());
        for diagonal in (-edits..=edits).step_by(2) {
            let mut x = match edits {
                0 => 0,
                _ => {
                    let from = previous(&furthest, diagonal, edits);
                    furthest[at(from)] + isize::from(from < diagonal)
                }
            } as usize;
            let mut y = (x as isize - diagonal) as usize;
            *steps = steps.checked_sub(1)?;
            while x < old.len() && y < new.len() && old[x] == new[y] {
                (x, y) = (x + 1, y + 1);
                *steps = steps.checked_sub(1)?;
            }
            furthest[at(diagonal)] = x as isize;
            if x >= old.len() && y >= new.len() {
                return Some(back(&before, old.len() as isize, new.len() as isize));
            }
        }
    }
    None
}

/// The way back, told from its beginning.
fn back(before: &[Furthest], mut x: isize, mut y: isize) -> Vec<Hunk> {
    let mut hunks: Vec<Hunk> = Vec::new();
    for edits in (1..before.len()).rev() {
        let furthest = &before[edits];
        let from = previous(furthest, x - y, edits as isize);
        let is_insert = from > x - y;
        x = furthest[at(from)];
        y = x - from;
        let edit = Hunk {
            old: x as usize,
            delete: usize::from(!is_insert),
            new: y as usize,
            insert: usize::from(is_insert),
        };
        match hunks.last_mut() {
            Some(next) if touches(&edit, next) => {
                *next = Hunk { delete: edit.delete + next.delete, insert: edit.insert + next.insert, ..edit };
            }
            _ => hunks.push(edit),
        }
    }
    hunks.reverse();
    hunks
}

fn touches(one: &Hunk, next: &Hunk) -> bool {
    one.old + one.delete == next.old && one.new + one.insert == next.new
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(old: &str, new: &str, mut steps: usize) -> Vec<Hunk> {
        let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
        let hunks = hunks(&old, &new, &mut steps);
        let mut made = old.clone();
        for hunk in hunks.iter().rev() {
            made.splice(
                hunk.old..hunk.old + hunk.delete,
                new[hunk.new..hunk.new + hunk.insert].iter().copied(),
            );
        }
        assert_eq!(made, new);
        hunks
    }

    #[test]
    fn edits_are_few_and_apart() {
        let sizes = |old, new| {
            check(old, new, MAX_STEPS).iter().map(|hunk| (hunk.old, hunk.delete, hunk.insert)).collect()
        };
        type Sizes = Vec<(usize, usize, usize)>;
        let cases: [(&str, &str, Sizes); 7] = [
            ("", "", vec![]),
            ("abc", "abc", vec![]),
            ("abc", "abxc", vec![(2, 0, 1)]),
            ("abc", "", vec![(0, 3, 0)]),
            ("abcdef", "xbcdey", vec![(0, 1, 1), (5, 1, 1)]),
            ("aaa", "aa", vec![(2, 1, 0)]),
            ("0123456789", "a0123x6789z", vec![(0, 0, 1), (4, 2, 1), (10, 0, 1)]),
        ];
        for (old, new, expected) in cases {
            let found: Sizes = sizes(old, new);
            assert_eq!(found, expected, "{old} {new}");
        }
    }

    #[test]
    fn what_differs_too_much_is_one_edit() {
        let [old, new] = ["a", "b"].map(|letter| format!("<{}|{}>", letter.repeat(300), letter.repeat(300)));
        assert_eq!(check(&old, &new, MAX_STEPS).len(), 1);
        assert_eq!(check("xabcdefy", "yabcdefx", 3).len(), 1);
        assert_eq!(check("xabcdefy", "yabcdefx", MAX_STEPS).len(), 2);
    }

    proptest! {
        #[test]
        fn the_new_is_made_of_the_old(old in "[abc]{0,40}", new in "[abc]{0,40}", steps in 0_usize..2000) {
            check(&old, &new, steps);
        }
    }
}
