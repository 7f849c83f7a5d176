//! When PoPs agree, and how two listings differ.

use bytes::Bytes;
use littoral::api::{State, Status};

/// Why the PoPs do not agree yet; where they do, what one of them says and all of them could.
pub(super) fn disagreement(statuses: &[Option<Status>]) -> Result<&Status, String> {
    let known: Vec<_> = statuses.iter().flatten().collect();
    let Some(first) = known.first().filter(|_| known.len() == statuses.len()) else {
        return Err("not all of them answer".into());
    };
    for status in &known {
        if status.state != State::Ready {
            return Err(format!("{} is not ready", status.pop));
        }
        let linked = status.peers.iter().filter(|peer| peer.connected).count();
        if linked + 1 != known.len() {
            return Err(format!("{} has a link to {linked} of {} others", status.pop, known.len() - 1));
        }
        if let Some(lag) = status.lag.iter().find(|lag| lag.ops > 0) {
            return Err(format!(
                "{} is {} ops behind {}, says {}",
                lag.peer, lag.ops, lag.origin, status.pop
            ));
        }
        if status.root != first.root {
            return Err(format!("{} has root {}, {} has {}", first.pop, first.root, status.pop, status.root));
        }
    }
    Ok(first)
}

/// The first difference of two listings.
pub(super) fn difference(left: &[(String, Bytes)], right: &[(String, Bytes)]) -> Option<String> {
    if let Some((l, r)) = left.iter().zip(right).find(|(l, r)| l != r) {
        let what = if l.0 == r.0 { "the value of" } else { "the listing at" };
        return Some(format!("{what} {}", l.0));
    }
    (left.len() != right.len()).then(|| format!("{} and {} keys", left.len(), right.len()))
}

#[cfg(test)]
mod tests {
    use littoral::api::{Lag, Peer};

    use super::*;
    use crate::cli::fake_pop;

    fn status(pop: &str) -> Status {
        let peer = Peer { pop: "other".into(), connected: true, ..Peer::default() };
        Status { peers: vec![peer], ..fake_pop::status(pop) }
    }

    fn check(change: impl FnOnce(&mut Vec<Option<Status>>), expected: Result<&str, &str>) {
        let mut statuses = vec![Some(status("a")), Some(status("b"))];
        change(&mut statuses);
        let outcome = disagreement(&statuses).map(|status| status.root.as_str());
        assert_eq!(outcome, expected.map_err(str::to_owned));
    }

    #[test]
    fn pops_agree_only_when_all_answer_with_equal_roots_and_nothing_on_its_way() {
        fn second(statuses: &mut [Option<Status>]) -> &mut Status {
            statuses[1].as_mut().expect("it answers")
        }
        let lag =
            Lag { origin: "a".into(), peer: "b".into(), ops: 3, bytes: 9, time_ms: 1, ..Lag::default() };
        check(|_| {}, Ok("r1"));
        check(|statuses| statuses[1] = None, Err("not all of them answer"));
        check(|statuses| second(statuses).state = State::Bootstrapping, Err("b is not ready"));
        check(|statuses| second(statuses).peers[0].connected = false, Err("b has a link to 0 of 1 others"));
        check(|statuses| second(statuses).lag.push(lag), Err("b is 3 ops behind a, says b"));
        check(|statuses| second(statuses).root = "r2".into(), Err("a has root r1, b has r2"));
    }

    #[test]
    fn the_first_difference_is_named() {
        let row = |key: &str, value: &'static str| (key.to_owned(), Bytes::from(value));
        let left = [row("a", "1"), row("b", "2")];
        for (right, expected) in [
            (vec![row("a", "1"), row("b", "2")], None),
            (vec![row("a", "1"), row("b", "3")], Some("the value of b")),
            (vec![row("a", "1"), row("c", "2")], Some("the listing at b")),
            (vec![row("a", "1")], Some("2 and 1 keys")),
        ] {
            assert_eq!(difference(&left, &right).as_deref(), expected);
        }
    }
}
