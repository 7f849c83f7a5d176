//! Whether nodes keep to their budgets, from what the paths between them have counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::report::Report;
use crate::wan::Counts;

/// Stretches of time that are looked at, and how far above the budget each may be: by a burst, those of processes that
/// were started anew, and what a busy machine counts later than it was sent.
const STRETCHES: [(Duration, &str, f64); 2] =
    [(Duration::from_secs(1), "a second", 1.15), (Duration::from_secs(60), "a minute", 1.02)];

/// What each node has sent, by when.
pub(super) struct Caps {
    budget_bytes_per_s: u64,
    seen: VecDeque<(Instant, Vec<u64>)>,
    /// By stretch, the most that a node has sent in one, as a part of what its budget gives meanwhile.
    most: [f64; STRETCHES.len()],
}

impl Caps {
    pub(super) fn new(budget_bytes_per_s: u64) -> Self {
        Self { budget_bytes_per_s, seen: VecDeque::new(), most: [0.0; STRETCHES.len()] }
    }

    /// Looks at what was sent until now; to be called many times a second.
    pub(super) fn look(&mut self, nodes: usize, counts: &BTreeMap<(usize, usize), Counts>) {
        let now = Instant::now();
        let sent_by = |node: usize| {
            let paths = counts.iter().filter(|((from, _), _)| *from == node);
            paths.map(|(_, counts)| counts.sent_bytes).sum()
        };
        let sent: Vec<u64> = (0..nodes).map(sent_by).collect();
        for ((stretch, ..), most) in STRETCHES.iter().zip(&mut self.most) {
            let Some((then, before)) = self.seen.iter().rev().find(|(then, _)| now - *then >= *stretch)
            else {
                continue;
            };
            let gives = self.budget_bytes_per_s as f64 * (now - *then).as_secs_f64();
            let used = sent.iter().zip(before).map(|(sent, before)| (sent - before) as f64 / gives);
            *most = used.fold(*most, f64::max);
        }
        self.seen.push_back((now, sent));
        let (longest, ..) = STRETCHES[STRETCHES.len() - 1];
        while self.seen.get(1).is_some_and(|(then, _)| now - *then > longest) {
            self.seen.pop_front();
        }
    }

    pub(super) fn tell(&self, report: &mut Report) {
        for ((_, name, slack), most) in STRETCHES.into_iter().zip(self.most) {
            report.at_most(format!("most sent by a PoP in {name} / its budget"), most, slack, 3);
        }
    }
}
