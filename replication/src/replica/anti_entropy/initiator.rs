//! The initiator's side of a round: it probes, peels what comes back, and lists where that is asked for.

use super::super::{MessageError, Replica};
use super::exchange::Exchange;
use super::holes::Missing;
use super::walk::{Errand, Gathering, Leaves, Pick};
use super::{MAX_FOLLOWING, MAX_LISTED, PROBE_SIZE, protocol};
use crate::clock::{Now, ReplicaId};
use crate::codec::round::{CellList, Cells, Counts, Outline, Probe, Ranges, Step};
use crate::digest::NODE_LEAVES;
use crate::sketch::{Cell, Fold, TABLES, is_size, named};
use crate::store::Store;

/// The initiator's side of a round.
pub(in crate::replica) struct Initiator {
    pub(super) exchange: Exchange,
    stage: Stage,
    course: Course,
}

/// What a round has to know of the one it follows.
#[derive(Clone, Copy)]
pub(super) struct Course {
    /// Rounds before it, without a pause.
    before: u32,
    /// Whether the last one has looked for holes, in vain.
    plain: bool,
    /// Where the next listing begins.
    list_from: u16,
}

/// How far the initiator is.
enum Stage {
    /// The probe is on its way.
    Probing,
    /// Cells come in.
    Collecting {
        size: u32,
        /// What is known already: a narrower fold of the same sketch.
        narrow: Option<Fold>,
        cells: Vec<Cell>,
    },
    /// The list is in the making.
    Listing(Gathering),
    /// The list is out.
    Listed,
    /// Whole leaves are exchanged.
    Holes,
    /// What differs is known.
    Named,
}

impl Initiator {
    pub(in crate::replica) fn due_us(&self) -> u64 {
        self.exchange.due_us(matches!(self.stage, Stage::Listing(_)))
    }

    pub(super) fn take_gathering(&mut self) -> Option<Gathering> {
        match std::mem::replace(&mut self.stage, Stage::Listed) {
            Stage::Listing(gathering) => Some(gathering),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    pub(super) fn put_gathering(&mut self, gathering: Gathering) {
        self.stage = Stage::Listing(gathering);
    }

    /// Whether and how another round follows this one, which has ended.
    pub(super) fn following(&self) -> Option<Course> {
        let moved = self.exchange.repaired + self.exchange.sent > 0;
        let (follows, plain) = match self.stage {
            // What is not covered yet cannot be moved: look at the rest.
            Stage::Holes => (true, !moved),
            Stage::Listed => (moved, self.course.plain),
            _ => (false, false),
        };
        let next = Course { before: self.course.before + 1, plain, ..self.course };
        (follows && next.before < MAX_FOLLOWING).then_some(next)
    }
}

impl<S: Store> Replica<S> {
    pub(super) fn begin_round(&mut self, now: Now, with: ReplicaId, course: Option<Course>) {
        self.counters.rounds += 1;
        let number = self.counters.rounds as u32;
        // A list that was not finished begins elsewhere the next time, so that each part has its turn.
        let list_from = (number.wrapping_mul(40_503) & 0xffff) as u16;
        let course = course.unwrap_or(Course { before: 0, plain: false, list_from });
        let probe = Step::Probe(Probe {
            plain: course.plain,
            nodes: Counts(self.tree.node_counts()),
            size: PROBE_SIZE,
            cells: CellList(self.tree.fold(PROBE_SIZE).into_cells()),
        });
        if let Some(peer) = self.peers.get_mut(&with) {
            let exchange = Exchange::new(now, number, [probe]);
            peer.initiator = Some(Initiator { exchange, stage: Stage::Probing, course });
        }
    }

    pub(super) fn handle_cells(&mut self, from: ReplicaId, part: Cells) -> Result<(), MessageError> {
        let Some(initiator) = self.peers.get_mut(&from).and_then(|peer| peer.initiator.as_mut()) else {
            return Ok(());
        };
        let Cells { size, beyond, from: first, cells } = part;
        if !is_size(size) || beyond >= size {
            return Err(protocol("cells of a size that no sketch has"));
        }
        if matches!(initiator.stage, Stage::Probing) && beyond == 0 {
            initiator.stage = Stage::Collecting { size, narrow: None, cells: Vec::new() };
        }
        let Stage::Collecting { size: wished, narrow, cells: collected } = &mut initiator.stage else {
            return Ok(());
        };
        let known = narrow.as_ref().map_or(0, Fold::size);
        let fits = *wished == size && known == beyond && collected.len() == first as usize;
        let all = TABLES * (size - beyond) as usize;
        if !fits || collected.len() + cells.0.len() > all {
            return Ok(());
        }
        collected.extend(cells.0);
        if collected.len() < all {
            return Ok(());
        }
        let collected = std::mem::take(collected);
        let whole = match narrow {
            Some(narrow) => narrow.widened(size, &collected),
            None => Fold::of_cells(size, collected),
        };
        let Some(theirs) = whole else { return Ok(()) };
        let named = named(self.tree.fold(size).less(&theirs));
        let Some(initiator) = self.peers.get_mut(&from).and_then(|peer| peer.initiator.as_mut()) else {
            return Ok(());
        };
        match (named, Fold::wider(size)) {
            (Some(named), _) => {
                initiator.exchange.name(named.ours, named.theirs);
                initiator.stage = Stage::Named;
            }
            (None, Some(wider)) => {
                initiator.exchange.say(Step::More);
                initiator.stage = Stage::Collecting { size: wider, narrow: Some(theirs), cells: Vec::new() };
            }
            (None, None) => self.begin_listing(from),
        }
        Ok(())
    }

    pub(super) fn handle_outline(&mut self, from: ReplicaId, outline: Outline) -> Result<(), MessageError> {
        let Some(initiator) = self.peers.get_mut(&from).and_then(|peer| peer.initiator.as_mut()) else {
            return Ok(());
        };
        if !matches!(initiator.stage, Stage::Probing) {
            return Ok(());
        }
        let rising = outline.nodes.iter().map(|(node, _)| node).is_sorted_by(|a, b| a < b)
            && outline.edges.iter().map(|(node, _)| node).is_sorted_by(|a, b| a < b);
        let edge = |node: u8| outline.edges.iter().find(|(edge, _)| *edge == node);
        if !rising || outline.nodes.iter().any(|(node, _)| edge(*node).is_some()) {
            return Err(protocol("nodes named twice or out of order"));
        }
        let mut missing = Missing::default();
        for node in 0..=u8::MAX {
            let first = u16::from(node) * NODE_LEAVES as u16;
            let ours = self.tree.leaf_counts(node);
            if let Some((_, theirs)) = outline.nodes.iter().find(|(named, _)| *named == node) {
                missing.note(first, first + (NODE_LEAVES - 1) as u16, ours.iter().sum(), *theirs);
            } else if let Some((_, theirs)) = edge(node) {
                for (leaf, (our, their)) in (first..=u16::MAX).zip(ours.iter().zip(&theirs.0)) {
                    missing.note(leaf, leaf, *our, *their);
                }
            }
        }
        initiator.stage = Stage::Holes;
        initiator.exchange.say(Step::Fetch(Ranges(missing.here)));
        initiator.exchange.errand = Some(Errand::new(Pick::Leaves(Leaves::of(&missing.there))));
        Ok(())
    }

    pub(super) fn handle_list(&mut self, from: ReplicaId) {
        let initiator = self.peers.get(&from).and_then(|peer| peer.initiator.as_ref());
        let waits =
            |initiator: &Initiator| matches!(initiator.stage, Stage::Probing | Stage::Collecting { .. });
        if initiator.is_some_and(waits) {
            self.begin_listing(from);
        }
    }

    /// Lists as many leaves as a listing has room for, and at least one.
    fn begin_listing(&mut self, with: ReplicaId) {
        let Some(initiator) = self.peers.get_mut(&with).and_then(|peer| peer.initiator.as_mut()) else {
            return;
        };
        let counts = self.tree.leaves();
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let first = if total <= MAX_LISTED as u64 { 0 } else { initiator.course.list_from };
        let mut listed = 0;
        let mut last = first;
        for (leaf, count) in (first..=u16::MAX).zip(&counts[usize::from(first)..]) {
            listed += u64::from(*count);
            if listed > MAX_LISTED as u64 {
                break;
            }
            last = leaf;
        }
        initiator.course.list_from = last.wrapping_add(1);
        initiator.put_gathering(Gathering::new(first, last));
    }
}
