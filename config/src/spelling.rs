//! Guesses what a misspelt name was meant to be. Only for messages: no guess is ever acted upon.

/// The candidate that `word` is a likely slip of: the start of it (a forgotten unit), or few edits away.
pub(crate) fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips = 1 + word.len() / 4;
    let likely = |candidate: &&str| {
        (!word.is_empty() && candidate.starts_with(word)) || edits(word, candidate) <= slips
    };
    nearest(word, candidates.into_iter().filter(likely))
}

/// The candidate the fewest edits away, the first of several; none only when there are no candidates.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| edits(word, candidate))
}

/// Levenshtein's distance: how many characters to insert, delete or replace.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, have) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, want) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(have != *want);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted_either_way() {
        for (a, b, count) in [("", "abc", 3), ("kitten", "sitting", 3), ("listen", "lisen", 1), ("a", "a", 0)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
    }

    #[test]
    fn a_slip_or_a_forgotten_unit_is_recognised_but_another_word_is_not() {
        let keys = ["listen", "cache_bytes", "header_timeout_ms"];
        let check = |word: &str, meant: Option<&str>| assert_eq!(suggest(word, keys), meant, "{word}");
        check("lisen", Some("listen"));
        check("cache", Some("cache_bytes"));
        check("header_timeout_s", Some("header_timeout_ms"));
        check("colour", None);
        check("", None);
    }
}
