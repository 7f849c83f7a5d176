//! Why an entry differs between two PoPs: a decision on what both have said, and nothing else.

use littoral::api::diff::{BodyKind, EntryState, Holding};
use serde::Serialize;

/// Why an entry differs, the harmless reasons last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// The PoP claims to hold the newer side's event, and does not.
    Diverged,
    /// The newer side's event has not come to the other PoP yet.
    InFlight,
    /// Its time has passed: no reader is shown it at either PoP.
    Expired,
    /// It is over at or below the epoch of the PoP that lacks it, which has dropped it.
    Dropped,
}

impl Why {
    /// As a person reads it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Diverged => "diverged",
            Self::InFlight => "in flight",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }
}

/// Why the two states of one entry differ; `None` where they do not. A holding's vector must be from before its
/// state was read, and its epoch from after.
pub(super) fn why(states: [Option<&EntryState>; 2], holdings: [&Holding; 2], now_s: u64) -> Option<Why> {
    let [left, right] = states;
    if left.map(|state| &state.digest) == right.map(|state| &state.digest) {
        return None;
    }
    let newer = usize::from(dot(right) > dot(left));
    let (state, other) = (states[newer]?, states[1 - newer]);
    let there = holdings[1 - newer];
    let both = || [Some(state), other].into_iter().flatten();
    let epoch = if other.is_some() { there.epoch.max(holdings[newer].epoch) } else { there.epoch };
    if both().all(|state| is_over(state, epoch)) {
        Some(Why::Dropped)
    } else if !covers(there, state) {
        Some(Why::InFlight)
    } else if both().all(|state| is_hidden(state, now_s)) && both().any(|state| is_expired(state, now_s)) {
        Some(Why::Expired)
    } else {
        Some(Why::Diverged)
    }
}

/// The order in which states replace each other.
fn dot(state: Option<&EntryState>) -> Option<(u64, &str)> {
    state.map(|state| (state.hlc, state.replica.as_str()))
}

fn covers(holding: &Holding, state: &EntryState) -> bool {
    holding.vector.iter().any(|(origin, upto)| *origin == state.replica && *upto >= state.hlc)
}

/// As the replica decides it: tombstones from their own time on, values from their expiry or their own time on.
fn is_over(state: &EntryState, epoch: u64) -> bool {
    /// 48 bits of milliseconds above 16 of a counter.
    const MAX_MS: u64 = (1 << 48) - 1;
    match (state.body, state.expires_at_s) {
        (BodyKind::Tombstone, _) => state.hlc <= epoch,
        (_, Some(at)) => state.hlc.max(at.saturating_mul(1_000).min(MAX_MS) << 16) <= epoch,
        (_, None) => false,
    }
}

/// Whether its time has passed.
pub(super) fn is_expired(state: &EntryState, now_s: u64) -> bool {
    state.body != BodyKind::Tombstone && state.expires_at_s.is_some_and(|at| at <= now_s)
}

fn is_hidden(state: &EntryState, now_s: u64) -> bool {
    state.body == BodyKind::Tombstone || is_expired(state, now_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_000;

    /// A state written by `a` at so many seconds.
    fn at(seconds: u64, body: BodyKind, expires_at_s: Option<u64>) -> EntryState {
        EntryState {
            namespace: "n".into(),
            name: "0".into(),
            key: None,
            element: None,
            replica: "a".into(),
            hlc: (seconds * 1_000) << 16,
            body,
            expires_at_s,
            digest: format!("{seconds} {body:?} {expires_at_s:?}"),
        }
    }

    fn value(seconds: u64) -> Option<EntryState> {
        Some(at(seconds, BodyKind::Value, None))
    }

    fn expiring(seconds: u64, expires_at_s: u64) -> Option<EntryState> {
        Some(at(seconds, BodyKind::LargeValue, Some(expires_at_s)))
    }

    fn tombstone(seconds: u64) -> Option<EntryState> {
        Some(at(seconds, BodyKind::Tombstone, None))
    }

    /// What holds everything of `a` up to some second, with an epoch at another.
    fn holds(upto_s: u64, epoch_s: u64) -> Holding {
        let packed = |seconds: u64| (seconds * 1_000) << 16;
        Holding { pop: "p".into(), vector: vec![("a".into(), packed(upto_s))], epoch: packed(epoch_s) }
    }

    /// The newer state is at a PoP that holds all; the same must come out with the sides changed.
    fn check(newer: Option<EntryState>, older: Option<EntryState>, there: &Holding, expected: Option<Why>) {
        let here = holds(NOW_S, 0);
        let (newer, older) = (newer.as_ref(), older.as_ref());
        let told = format!("{newer:?} {older:?} {there:?}");
        assert_eq!(why([newer, older], [&here, there], NOW_S), expected, "{told}");
        assert_eq!(why([older, newer], [there, &here], NOW_S), expected, "turned round: {told}");
    }

    #[test]
    fn equal_states_do_not_differ() {
        check(None, None, &holds(0, 0), None);
        check(value(5), value(5), &holds(0, 0), None);
    }

    #[test]
    fn what_the_other_does_not_claim_is_in_flight() {
        for older in [None, value(3), tombstone(3), expiring(3, 4)] {
            check(value(5), older.clone(), &holds(4, 0), Some(Why::InFlight));
            check(tombstone(5), older, &holds(4, 0), Some(Why::InFlight));
        }
        check(value(5), None, &Holding::default(), Some(Why::InFlight));
    }

    #[test]
    fn what_the_other_claims_and_has_not_is_diverged() {
        for older in [None, value(3), tombstone(3)] {
            check(value(5), older, &holds(5, 0), Some(Why::Diverged));
        }
        check(tombstone(5), value(3), &holds(9, 0), Some(Why::Diverged));
        check(tombstone(5), None, &holds(9, 0), Some(Why::Diverged));
        // Nobody drops a value that stays.
        check(value(5), None, &holds(9, 8), Some(Why::Diverged));
        // It came back from the dead: the tombstone is below the epoch, and the value is not over.
        check(tombstone(5), value(3), &holds(9, 8), Some(Why::Diverged));
        // One event, two contents, as a clone of a data folder makes them.
        let other = value(5).map(|state| EntryState { digest: "other".into(), ..state });
        check(value(5), other, &holds(9, 0), Some(Why::Diverged));
    }

    #[test]
    fn what_no_reader_is_shown_is_expired() {
        check(expiring(5, NOW_S), None, &holds(9, 0), Some(Why::Expired));
        check(expiring(5, NOW_S), tombstone(3), &holds(9, 0), Some(Why::Expired));
        check(tombstone(5), expiring(3, 4), &holds(9, 0), Some(Why::Expired));
        check(expiring(5, NOW_S + 1), None, &holds(9, 0), Some(Why::Diverged));
        // A reader is shown the older one.
        check(expiring(5, NOW_S), value(3), &holds(9, 0), Some(Why::Diverged));
    }

    #[test]
    fn what_is_over_at_the_others_epoch_is_dropped() {
        check(tombstone(5), None, &holds(9, 5), Some(Why::Dropped));
        check(tombstone(5), None, &holds(9, 4), Some(Why::Diverged));
        check(expiring(5, 8), None, &holds(9, 8), Some(Why::Dropped));
        check(expiring(5, 8), None, &holds(9, 7), Some(Why::Expired));
        check(tombstone(5), expiring(3, 4), &holds(9, 5), Some(Why::Dropped));
    }
}
