//! Dropping what is over at the epoch, a slice at a time.
//!
//! The log leads to what a delete, a removal or a reset has left; the expiry index to what has expired. Of a set or map
//! that was emptied, the rows of all that went are walked, while the log row that led there stays. Between slices
//! everything is as it should be, so a sweep may be cut short, and begins again after a restart.

use std::ops::ControlFlow;

use super::{Replica, entry_of_row};
use crate::clock::{Dot, Hlc, Now};
use crate::codec::row::{self, LogRow};
use crate::entry::{Body, Entry, EntryId, Kind, Settled};
use crate::keys;
use crate::store::{Store, StoreError};

/// Rows looked at in one slice of a sweep.
const SLICE_ROWS: usize = 150;

/// Entries looked at in one slice of a thorough sweep.
const THOROUGH_SLICE_ROWS: usize = 1_000;

/// Where a sweep stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    /// The log of this origin is being swept; past the last, the expiry index is.
    origin_index: u16,
    /// Where to go on in the expiry index.
    expiry_cursor: Vec<u8>,
    is_expiry_done: bool,
    /// Where to go on among the entries themselves, in a thorough sweep.
    entry_cursor: Option<Vec<u8>>,
    /// The set or map whose elements are being dropped.
    emptying: Option<Emptying>,
}

/// A set or map that was emptied, whose rows go.
#[derive(Clone, Debug)]
struct Emptying {
    head: EntryId,
    /// Where to go on.
    cursor: Vec<u8>,
}

impl Emptying {
    fn of(head: EntryId) -> Self {
        Self { cursor: keys::entry(&head), head }
    }
}

impl Sweep {
    /// One that looks at the entries too, for those that no index tells of any more.
    pub(super) fn thorough() -> Self {
        Self { entry_cursor: Some(vec![keys::ENTRY]), ..Self::default() }
    }

    pub(super) fn is_thorough(&self) -> bool {
        self.entry_cursor.is_some()
    }
}

/// Whether the log row of this event is the one that leads to what is over of the entry. Of a value only the event that
/// wrote its present state does, and its expiry has an index of its own.
fn speaks_for(dot: Dot, entry: &Entry) -> bool {
    match entry.body {
        Body::Value(_) => false,
        Body::Tombstone => entry.dot == dot,
        _ => true,
    }
}

impl<S: Store> Replica<S> {
    /// Drops a slice of what is over.
    pub(super) fn sweep_slice(&mut self) -> Result<(), StoreError> {
        // It looks at committed rows only.
        if self.unflushed || !self.staged.is_empty() || self.documents_due_us().is_some() {
            return Ok(());
        }
        let Some(mut sweep) = self.sweep.take() else { return Ok(()) };
        let is_done = if sweep.emptying.is_some() {
            self.sweep_elements(&mut sweep)?;
            false
        } else if usize::from(sweep.origin_index) < self.origins.len() {
            self.sweep_log(&mut sweep)?;
            false
        } else if !sweep.is_expiry_done {
            sweep.is_expiry_done = self.sweep_expired(&mut sweep)?;
            sweep.is_expiry_done && sweep.entry_cursor.is_none()
        } else {
            self.sweep_entries(&mut sweep)?
        };
        if is_done {
            self.staged.entry(keys::SUMMARY.to_vec()).or_default();
        } else {
            self.sweep = Some(sweep);
        }
        Ok(())
    }

    fn sweep_log(&mut self, sweep: &mut Sweep) -> Result<(), StoreError> {
        let index = sweep.origin_index;
        let mut upto = self.epoch;
        if planted!(DroppedAboveEpoch) {
            upto = Hlc::new(upto.wall_ms() + 500, 0);
        }
        if planted!(DroppedOnceHeldByAll) {
            let held = self.peers.values().map(|peer| peer.claims.hlc(self.origins[usize::from(index)]));
            upto = held.min().unwrap_or_default();
        }
        let mut over: Vec<(LogRow, usize)> = Vec::new();
        let mut fault = None;
        self.store.scan(&keys::log(index, Hlc::ZERO), &mut |row_key, row| {
            let Some(hlc) = keys::parse_log(row_key, index).filter(|hlc| *hlc <= upto) else {
                return ControlFlow::Break(());
            };
            match row::decode_log(row_key, hlc, &row) {
                Ok(log_row) => over.push((log_row, row_key.len() + row.len())),
                Err(why) => fault = Some(StoreError::new(format!("the log row of {hlc} is damaged: {why}"))),
            }
            if over.len() == SLICE_ROWS || fault.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        fault.map_or(Ok(()), Err)?;
        if over.len() < SLICE_ROWS {
            sweep.origin_index += 1;
        }
        let origin = self.origins[usize::from(index)];
        for (log_row, bytes) in over {
            let dot = Dot { hlc: log_row.position.hlc, replica: origin };
            let entry = self.entry(&log_row.id)?;
            if entry.as_ref().is_some_and(|entry| self.is_emptied(entry)) {
                // The log row stays for as long as rows do that it leads to.
                sweep.origin_index = index;
                sweep.emptying = Some(Emptying::of(log_row.id));
                return Ok(());
            }
            let row_key = keys::log(index, dot.hlc);
            self.staged.insert(row_key.to_vec(), None);
            self.log_rows -= 1;
            if let Some(walk) = &mut self.walk {
                walk.log_changed(&row_key, true, false);
            }
            self.waiting.log_row_went(bytes);
            self.foldable.note(&log_row.id, dot.hlc, self.settings.fold_from);
            if let Some(entry) = entry.filter(|entry| speaks_for(dot, entry)) {
                self.settle_entry(&log_row.id, entry)?;
            }
        }
        Ok(())
    }

    /// Drops what of a state is over.
    fn settle_entry(&mut self, id: &EntryId, entry: Entry) -> Result<(), StoreError> {
        match entry.settled(self.frontier()) {
            Settled::Same => {}
            Settled::Less(less) => self.put_entry(id, Some(entry), less)?,
            Settled::Gone => {
                self.drop_entry(id, &entry);
                self.counters.dropped += 1;
            }
        }
        Ok(())
    }

    /// Gives whether the index is swept to its end.
    fn sweep_expired(&mut self, sweep: &mut Sweep) -> Result<bool, StoreError> {
        let upto = if planted!(DroppedAtExpiry) { self.clock.last() } else { self.epoch };
        let mut listed = Vec::new();
        let mut next = None;
        let from =
            if sweep.expiry_cursor.is_empty() { vec![keys::EXPIRY] } else { sweep.expiry_cursor.clone() };
        self.store.scan(&from, &mut |row_key, _| {
            let is_over = keys::parse_expiry(row_key)
                .is_some_and(|(at, _)| Hlc::new(at.saturating_mul(1000), 0) <= upto);
            if !is_over {
                return ControlFlow::Break(());
            }
            if listed.len() == SLICE_ROWS {
                next = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            listed.push(row_key.to_vec());
            ControlFlow::Continue(())
        })?;
        for expiry_key in listed {
            let Some(id) = keys::parse_expiry(&expiry_key).and_then(|(_, key)| keys::parse_entry(key)) else {
                continue;
            };
            match self.entry(&id)? {
                Some(entry) if planted!(DroppedAtExpiry) && id.kind == Kind::Value => {
                    self.drop_entry(&id, &entry);
                }
                Some(entry) if self.is_emptied(&entry) => {
                    // Its row of the index leads here again until the rows are gone.
                    sweep.expiry_cursor = expiry_key;
                    sweep.emptying = Some(Emptying::of(id));
                    return Ok(false);
                }
                Some(entry) => self.settle_entry(&id, entry)?,
                None => {}
            }
        }
        let is_done = next.is_none();
        sweep.expiry_cursor = next.unwrap_or_default();
        Ok(is_done)
    }

    /// Gives whether all entries have been looked at.
    fn sweep_entries(&mut self, sweep: &mut Sweep) -> Result<bool, StoreError> {
        let Some(from) = sweep.entry_cursor.take() else { return Ok(true) };
        let mut over = Vec::new();
        let mut seen = 0;
        self.store.scan(&from, &mut |row_key, row| {
            if row_key.first() != Some(&keys::ENTRY) {
                return ControlFlow::Break(());
            }
            if seen == THOROUGH_SLICE_ROWS || over.len() == SLICE_ROWS {
                sweep.entry_cursor = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            seen += 1;
            // A row that cannot be read is for whoever reads it.
            if let Some(id) = keys::parse_entry(row_key)
                && let Ok(row) = row::decode_entry(row_key, &row)
                && let Ok(entry) = entry_of_row(&self.origins, row)
            {
                if self.is_emptied(&entry) {
                    sweep.entry_cursor = Some(row_key.to_vec());
                    sweep.emptying = Some(Emptying::of(id));
                    return ControlFlow::Break(());
                }
                if entry.settled(self.frontier()) != Settled::Same {
                    over.push((id, entry));
                }
            }
            ControlFlow::Continue(())
        })?;
        for (id, entry) in over {
            self.settle_entry(&id, entry)?;
        }
        Ok(sweep.entry_cursor.is_none())
    }

    /// Whether this is the head of a whole of which everyone knows that it was emptied, or has expired.
    fn is_emptied(&self, entry: &Entry) -> bool {
        matches!(&entry.body, Body::Head(head) if head.cleared_for_all(self.frontier()).is_some())
    }

    /// Drops a slice of the elements that went with the whole, and at their end the head's word of it.
    fn sweep_elements(&mut self, sweep: &mut Sweep) -> Result<(), StoreError> {
        let Some(Emptying { head: id, cursor }) = sweep.emptying.take() else { return Ok(()) };
        let Some(Entry { dot, body: Body::Head(head), .. }) = self.entry(&id)? else { return Ok(()) };
        let Some(cleared) = head.cleared_for_all(self.frontier()) else { return Ok(()) };
        let head_key = keys::entry(&id);
        let mut over = Vec::new();
        let mut next = None;
        let mut seen = 0;
        let mut fault = None;
        self.store.scan(&cursor, &mut |row_key, row| {
            if !row_key.starts_with(&head_key) {
                return ControlFlow::Break(());
            }
            if seen == THOROUGH_SLICE_ROWS || over.len() == SLICE_ROWS {
                next = Some(row_key.to_vec());
                return ControlFlow::Break(());
            }
            seen += 1;
            let decoded = row::decode_entry(row_key, &row).and_then(|row| entry_of_row(&self.origins, row));
            match (keys::parse_entry(row_key), decoded) {
                (Some(id), Ok(Entry { dot, body: Body::Element(element), .. })) => {
                    let left = element.without_cleared(&cleared);
                    if left.as_ref() != Some(&element) {
                        over.push((id, Entry::first(dot, Body::Element(element)), left));
                    }
                }
                (_, Ok(_)) => {}
                (_, Err(why)) => {
                    fault = Some(StoreError::new(format!("the row of an element is damaged: {why}")));
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        fault.map_or(Ok(()), Err)?;
        for (id, entry, left) in over {
            match left.map(Body::Element).and_then(Entry::of_parts) {
                Some(left) => self.put_entry(&id, Some(entry), left)?,
                None => {
                    self.drop_entry(&id, &entry);
                    self.counters.dropped += 1;
                }
            }
        }
        if let Some(next) = next {
            sweep.emptying = Some(Emptying { head: id, cursor: next });
            return Ok(());
        }
        let left = head.without_clears_for_all(self.frontier()).map(Body::Head).and_then(Entry::of_parts);
        let entry = Entry::first(dot, Body::Head(head));
        match left {
            Some(left) => self.put_entry(&id, Some(entry), left),
            None => {
                self.drop_entry(&id, &entry);
                self.counters.dropped += 1;
                Ok(())
            }
        }
    }

    /// Looks for what is over and was not found by the indices, as a lost log row leaves it: two replicas that differ
    /// in nothing else would compare for ever.
    pub(super) fn consider_thorough_sweep(&mut self, now: Now) {
        if self.sweep.is_some() || self.thorough_due_us.is_none_or(|due_us| due_us > now.mono_us) {
            return;
        }
        let comparable = || self.peers.values().filter(|peer| peer.connected && self.may_compare(peer));
        if comparable().next().is_none() {
            return;
        }
        let differs = comparable().any(|peer| self.root_differs(peer));
        self.thorough_due_us = None;
        if differs {
            self.sweep = Some(Sweep::thorough());
            self.staged.entry(keys::SUMMARY.to_vec()).or_default();
        }
    }
}
