//! Turns: which lane of a link writes next.
//!
//! A more urgent lane goes first; but a lane that waits is let go before it once others have written so much meanwhile that
//! this one would get less than its floor. So repair gets its part of a link that new writes alone would fill, and a new
//! write never waits for more than the slice that is being written.

use crate::link::Lane;

/// The most bytes that are written in one turn.
pub const MAX_SLICE_BYTES: usize = 16 << 10;

/// The least: about a datagram.
pub const MIN_SLICE_BYTES: usize = 1 << 10;

/// The part of a link that a lane gets whatever the others want, in percent. Large values come last, but they come.
fn floor_percent(lane: Lane) -> Option<u64> {
    match lane {
        Lane::Control | Lane::Delta => None,
        Lane::CatchUp => Some(20),
        Lane::AntiEntropy => Some(2),
        Lane::Bulk => Some(1),
    }
}

/// The turns of one link.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// How many wait, by lane.
    waiting: [usize; Lane::ALL.len()],
    /// What others have written while this lane waited, since its last turn.
    passed_bytes: [u64; Lane::ALL.len()],
    /// What this lane wrote in its last turn.
    last_bytes: [u64; Lane::ALL.len()],
    is_taken: bool,
}

impl Turns {
    /// Somebody wants to write on this lane.
    pub fn wait(&mut self, lane: Lane) {
        self.waiting[lane as usize] += 1;
    }

    /// Somebody who waited has gone.
    pub fn leave(&mut self, lane: Lane) {
        self.waiting[lane as usize] = self.waiting[lane as usize].saturating_sub(1);
    }

    /// Whether somebody has the turn.
    pub fn is_taken(&self) -> bool {
        self.is_taken
    }

    /// Takes the turn for somebody who waits on this lane, if it is free and this lane is next.
    pub fn take(&mut self, lane: Lane) -> bool {
        let is_next = !self.is_taken && self.next() == Some(lane);
        if is_next {
            self.leave(lane);
            self.is_taken = true;
            self.passed_bytes[lane as usize] = 0;
        }
        is_next
    }

    /// The turn is over: so much was written.
    pub fn give_back(&mut self, lane: Lane, bytes: usize) {
        self.is_taken = false;
        self.last_bytes[lane as usize] = bytes as u64;
        for other in Lane::ALL {
            if other != lane && self.waiting[other as usize] > 0 {
                self.passed_bytes[other as usize] += bytes as u64;
            }
        }
    }

    /// The lane whose turn it is, of those that wait.
    pub fn next(&self) -> Option<Lane> {
        let waiting = || Lane::ALL.into_iter().filter(|lane| self.waiting[*lane as usize] > 0);
        waiting().find(|lane| self.is_due(*lane)).or_else(|| waiting().next())
    }

    /// Whether others have written so much while this lane waited that its floor is due.
    pub fn is_due(&self, lane: Lane) -> bool {
        let (passed, last) = (self.passed_bytes[lane as usize], self.last_bytes[lane as usize]);
        let its_own = last.max(MIN_SLICE_BYTES as u64);
        floor_percent(lane).is_some_and(|floor| passed * floor >= its_own * (100 - floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each lane gets of so many turns, where these lanes always want more.
    fn shares(lanes: &[Lane], turns_taken: usize, slice_bytes: usize) -> Vec<usize> {
        let mut turns = Turns::default();
        let mut taken = vec![0; Lane::ALL.len()];
        lanes.iter().for_each(|lane| turns.wait(*lane));
        for _ in 0..turns_taken {
            let lane = turns.next().unwrap();
            assert!(turns.take(lane) && !turns.take(lane));
            turns.wait(lane);
            turns.give_back(lane, slice_bytes);
            taken[lane as usize] += 1;
        }
        taken
    }

    #[test]
    fn a_lane_gets_its_floor_and_the_most_urgent_all_else() {
        let all = [Lane::Delta, Lane::CatchUp, Lane::AntiEntropy, Lane::Bulk];
        for slice_bytes in [MIN_SLICE_BYTES, MAX_SLICE_BYTES] {
            // 20, 2 and 1 percent; a first turn, of unknown length, may come early.
            let shares = shares(&all, 10_000, slice_bytes);
            assert!(shares[2] == 2_000 && (199..=200).contains(&shares[3]), "{shares:?}");
            assert!((99..=100).contains(&shares[4]), "{shares:?}");
        }
        for slice_bytes in [MIN_SLICE_BYTES, MAX_SLICE_BYTES] {
            assert_eq!(shares(&[Lane::Delta, Lane::CatchUp], 1_000, slice_bytes), [0, 800, 200, 0, 0]);
        }
        assert_eq!(shares(&[Lane::AntiEntropy], 10, MIN_SLICE_BYTES), [0, 0, 0, 10, 0]);
    }

    #[test]
    fn a_new_write_waits_for_no_more_than_the_present_turn() {
        let mut turns = Turns::default();
        turns.wait(Lane::Bulk);
        assert!(turns.take(Lane::Bulk));
        turns.wait(Lane::Bulk);
        turns.wait(Lane::Delta);
        assert!(!turns.take(Lane::Delta));
        turns.give_back(Lane::Bulk, MAX_SLICE_BYTES);
        assert!(!turns.take(Lane::Bulk) && turns.take(Lane::Delta));
        turns.give_back(Lane::Delta, 100);
        // Who has gone is not waited for.
        turns.leave(Lane::Bulk);
        assert_eq!(turns.next(), None);
    }
}
