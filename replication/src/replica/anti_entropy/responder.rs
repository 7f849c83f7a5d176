//! The responder's side of a round: it judges the probe, and gives the initiator what names the difference.

use super::super::{MessageError, Replica};
use super::exchange::Exchange;
use super::holes::holes;
use super::walk::{Errand, Leaves, Pick};
use super::{MAX_LISTED, ROUND_PAUSE_US, protocol};
use crate::clock::{Now, ReplicaId};
use crate::codec::round::{
    CellList, Cells, Counts, Listing, MAX_CELLS_A_MESSAGE, Outline, Probe, Ranges, Step,
};
use crate::sketch::{Cell, Estimate, Fold, named};
use crate::store::Store;

/// The most cells of each table that a probe may have.
const MAX_PROBE_SIZE: u32 = 64;

/// Bytes for each state that a sketch names, all in all.
const SKETCH_BYTES: f64 = 19.0;

/// Bytes for each state that a list has.
const LIST_BYTES: f64 = 5.0;

/// The responder's side of a round.
pub(in crate::replica) struct Responder {
    pub(super) exchange: Exchange,
    stage: Stage,
}

/// How far the responder is.
enum Stage {
    /// Cells were sent: the size of that fold, and the wider one they are of, should it be asked for.
    Cells { size: u32, reserve: Option<Fold> },
    /// Whole leaves are exchanged, once the initiator has told which it lacks.
    Outlined,
    /// A list comes in.
    Listing { ids: Vec<u64> },
    /// What differs is known.
    Named,
}

impl Responder {
    pub(in crate::replica) fn due_us(&self) -> u64 {
        self.exchange.due_us(false)
    }
}

impl<S: Store> Replica<S> {
    pub(super) fn handle_probe(
        &mut self,
        now: Now,
        from: ReplicaId,
        number: u32,
        probe: Probe,
    ) -> Result<(), MessageError> {
        let theirs = Fold::of_cells(probe.size, probe.cells.0).filter(|fold| fold.size() <= MAX_PROBE_SIZE);
        let theirs = theirs.ok_or_else(|| protocol("a probe of a size that none has"))?;
        let difference = self.tree.fold(theirs.size()).less(&theirs);
        let mut exchange = Exchange::new(now, number, []);
        let stage = match named(difference.clone()) {
            Some(named) => {
                exchange.name(named.ours, named.theirs);
                Stage::Named
            }
            None => self.answer(&mut exchange, &difference, &probe.nodes.0, probe.plain),
        };
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.responder = Some(Responder { exchange, stage });
            peer.next_round_us = now.mono_us + ROUND_PAUSE_US;
        }
        Ok(())
    }

    /// The cheapest way to the names, or around them.
    fn answer(&self, exchange: &mut Exchange, difference: &Fold, theirs: &[u32], plain: bool) -> Stage {
        let ours = self.tree.node_counts();
        let holes = holes(&ours, theirs);
        if !(plain || holes.nodes.is_empty() && holes.edges.is_empty()) {
            let mut edges = holes.edges;
            edges.sort_unstable();
            let leaves = |node: u8| (node, Counts(self.tree.leaf_counts(node).to_vec()));
            exchange.say(Step::Outline(Outline {
                nodes: holes.nodes.iter().map(|node| (*node, ours[usize::from(*node)])).collect(),
                edges: edges.into_iter().map(leaves).collect(),
            }));
            return Stage::Outlined;
        }
        let surplus: Vec<i64> =
            ours.iter().zip(theirs).map(|(our, their)| i64::from(*our) - i64::from(*their)).collect();
        let estimate = Estimate::of(difference, &surplus);
        let listed: f64 = theirs.iter().map(|count| f64::from(*count)).sum();
        match estimate.size().filter(|_| estimate.items * SKETCH_BYTES <= listed * LIST_BYTES) {
            Some(size) => {
                let reserve = Fold::wider(size).map(|wider| self.tree.fold(wider));
                let fold = reserve.as_ref().map_or_else(|| self.tree.fold(size), |wide| wide.fold(size));
                send_cells(exchange, size, 0, &fold.into_cells());
                Stage::Cells { size, reserve }
            }
            None => {
                exchange.say(Step::List);
                Stage::Listing { ids: Vec::new() }
            }
        }
    }

    pub(super) fn handle_more(&mut self, from: ReplicaId) {
        let Some(responder) = self.peers.get_mut(&from).and_then(|peer| peer.responder.as_mut()) else {
            return;
        };
        let Stage::Cells { size, reserve } = &mut responder.stage else { return };
        match reserve.take() {
            Some(wide) => {
                send_cells(&mut responder.exchange, wide.size(), *size, &wide.beyond(*size));
                *size = wide.size();
            }
            // Still more cells would have to be of the same moment as these, and nobody kept them.
            None => {
                responder.exchange.say(Step::List);
                responder.stage = Stage::Listing { ids: Vec::new() };
            }
        }
    }

    /// The initiator knows what differs: it needs no more cells.
    pub(super) fn drop_reserve(&mut self, from: ReplicaId) {
        let responder = self.peers.get_mut(&from).and_then(|peer| peer.responder.as_mut());
        if let Some(responder) = responder.filter(|responder| matches!(responder.stage, Stage::Cells { .. }))
        {
            responder.stage = Stage::Named;
        }
    }

    pub(super) fn handle_fetch(&mut self, from: ReplicaId, ranges: Ranges) -> Result<(), MessageError> {
        let Some(responder) = self.peers.get_mut(&from).and_then(|peer| peer.responder.as_mut()) else {
            return Ok(());
        };
        if matches!(responder.stage, Stage::Outlined) {
            responder.stage = Stage::Named;
            responder.exchange.errand = Some(Errand::new(Pick::Leaves(Leaves::of(&ranges.0))));
        }
        Ok(())
    }

    pub(super) fn handle_listing(&mut self, from: ReplicaId, listing: Listing) -> Result<(), MessageError> {
        let Some(responder) = self.peers.get_mut(&from).and_then(|peer| peer.responder.as_mut()) else {
            return Ok(());
        };
        // After cells that did not suffice, the initiator goes over to a list by itself.
        if matches!(responder.stage, Stage::Cells { .. }) {
            responder.stage = Stage::Listing { ids: Vec::new() };
        }
        let Stage::Listing { ids } = &mut responder.stage else { return Ok(()) };
        ids.extend(listing.ids.0);
        if ids.len() > 2 * MAX_LISTED {
            return Err(protocol("a listing longer than any may be"));
        }
        if !listing.more {
            let leaves = Leaves::of(&[(listing.first, listing.last)]);
            responder.exchange.errand = Some(Errand::new(Pick::unlisted(leaves, std::mem::take(ids))));
            responder.stage = Stage::Named;
        }
        Ok(())
    }
}

/// Sends cells in messages of bounded size.
fn send_cells(exchange: &mut Exchange, size: u32, beyond: u32, cells: &[Cell]) {
    for (part, cells) in cells.chunks(MAX_CELLS_A_MESSAGE).enumerate() {
        let from = (part * MAX_CELLS_A_MESSAGE) as u32;
        exchange.say(Step::Cells(Cells { size, beyond, from, cells: CellList(cells.to_vec()) }));
    }
}
