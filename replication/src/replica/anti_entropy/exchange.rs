//! What both sides of a round do alike: ask for states by name, and send those the other lacks.

use std::collections::VecDeque;

use super::walk::{Errand, Pick, SHORT_BITS};
use super::{MAX_NAMED, MessageError, ROUND_TIMEOUT_US, SIGN_OF_LIFE_US, protocol};
use crate::clock::Now;
use crate::codec::message::Round;
use crate::codec::round::{Ids, MAX_IDS_A_MESSAGE, Rows, Step, Wanted};

/// One side's part of a round.
pub(super) struct Exchange {
    pub(super) number: u32,
    pub(super) deadline_us: u64,
    outbox: VecDeque<Step>,
    last_sent_us: u64,
    /// What the other side has asked for so far, while its list is not complete.
    asked: Vec<u64>,
    /// The walk for the rows the other side lacks, while it is on.
    pub(super) errand: Option<Errand>,
    /// Rows sent.
    pub(super) sent: u64,
    sent_all: bool,
    pub(super) received_all: bool,
    /// Entries repaired here.
    pub(super) repaired: u64,
}

impl Exchange {
    pub(super) fn new(now: Now, number: u32, first: impl IntoIterator<Item = Step>) -> Self {
        Self {
            number,
            deadline_us: now.mono_us + ROUND_TIMEOUT_US,
            outbox: first.into_iter().collect(),
            last_sent_us: now.mono_us,
            asked: Vec::new(),
            errand: None,
            sent: 0,
            sent_all: false,
            received_all: false,
            repaired: 0,
        }
    }

    pub(super) fn say(&mut self, step: Step) {
        self.outbox.push_back(step);
    }

    pub(super) fn next_step(&mut self, now: Now) -> Option<Round> {
        let step = self.outbox.pop_front()?;
        if let Step::Rows(rows) = &step {
            self.sent += rows.rows.len() as u64;
            self.sent_all |= !rows.more;
        }
        self.last_sent_us = now.mono_us;
        Some(Round { number: self.number, step })
    }

    /// While something waits for room on the link, walks rest.
    pub(super) fn may_walk(&self) -> bool {
        self.outbox.is_empty()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.sent_all && self.received_all
    }

    pub(super) fn due_us(&self, walking: bool) -> u64 {
        if self.may_walk() && (walking || self.errand.is_some()) { 0 } else { self.deadline_us }
    }

    /// Tells the other side that the walk goes on, where it has heard nothing for long.
    pub(super) fn show_life(&mut self, now: Now) {
        if self.outbox.is_empty() && now.mono_us >= self.last_sent_us + SIGN_OF_LIFE_US {
            self.outbox.push_back(Step::Rows(Rows { rows: Vec::new(), more: true }));
            // The round is alive on this side, too.
            self.deadline_us = self.deadline_us.max(now.mono_us + ROUND_TIMEOUT_US);
        }
    }

    /// Asks for the states with these ids, rising.
    pub(super) fn ask(&mut self, ids: &[u64]) {
        let ids = if planted!(LackNotAskedFor) { &[] } else { ids };
        let mut parts: Vec<_> = ids.chunks(MAX_IDS_A_MESSAGE).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            self.say(Step::Wanted(Wanted { ids: Ids(part.to_vec()), more: at < last }));
        }
    }

    /// Both sides' lists are known: asks for `lacked`, and sets out to send `had`, both as long ids.
    pub(super) fn name(&mut self, had: Vec<u64>, lacked: Vec<u64>) {
        let short = |ids: Vec<u64>| {
            let mut ids: Vec<u64> = ids.into_iter().map(|id| id >> (48 - SHORT_BITS)).collect();
            ids.dedup();
            ids
        };
        self.ask(&short(lacked));
        self.errand = Some(Errand::new(Pick::named(short(had))));
    }

    pub(super) fn take_wanted(&mut self, wanted: Wanted) -> Result<(), MessageError> {
        self.asked.extend(wanted.ids.0);
        if self.asked.len() > MAX_NAMED {
            return Err(protocol("it asks for more states than any round names"));
        }
        // A list that comes twice, or when it is this side that asked, is too late.
        if !wanted.more && self.errand.is_none() && !self.sent_all {
            self.errand = Some(Errand::new(Pick::named(std::mem::take(&mut self.asked))));
        }
        Ok(())
    }
}
