//! Batches: several writes of this replica's own that become visible together, here and at every other replica.
//!
//! The rule this file upholds: of a batch, nothing is staged before all of it is known to be possible, and the rows of
//! all of it go into one batch of the store.

use super::Replica;
use super::veil::may_be_in_batch;
use super::write::WriteError;
use crate::clock::{Dot, Now};
use crate::entry::{Body, EntryId};
use crate::kinds::Change;
use crate::store::{MAX_BATCH_ROWS, Store, StoreError};

/// The most writes in a batch.
pub const MAX_BATCH_WRITES: usize = 100;
/// The most bytes of a batch: names of entries, and what is written to them. So it fits into one frame with room for what
/// others have written to the same entries.
pub const MAX_BATCH_BYTES: usize = 256 << 10;

/// About how many rows of the store a write takes: its entry, log, expiry, and of a value that lost unseen two.
const ROWS_A_WRITE: usize = 5;

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchWrite {
    /// As [`Replica::write`].
    Write(Body),
    /// As [`Replica::change`].
    Change(Change),
}

/// Why a batch was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BatchError {
    /// The write that cannot be done, counted from 0; `None` where none can.
    pub index: Option<usize>,
    /// Why.
    #[source]
    pub error: WriteError,
}

impl<E: Into<WriteError>> From<E> for BatchError {
    fn from(error: E) -> Self {
        Self { index: None, error: error.into() }
    }
}

impl<S: Store> Replica<S> {
    /// Stages these writes as a batch, each to another entry, and gives their events. All of them are visible at once, at
    /// every replica; as one they may be acknowledged as durable after the next [`Replica::flush`].
    ///
    /// # Errors
    /// Nothing was written, unless the store failed.
    ///
    /// # Panics
    /// With more than [`MAX_BATCH_WRITES`] writes, two of one entry, or one of a document: the caller has checked that.
    pub fn write_batch(
        &mut self,
        now: Now,
        writes: Vec<(EntryId, BatchWrite)>,
    ) -> Result<Vec<Dot>, BatchError> {
        assert!(writes.len() <= MAX_BATCH_WRITES, "a batch of {} writes", writes.len());
        self.check_not_draining()?;
        self.check_may_write(now)?;
        self.check_changes(&writes)?;
        if self.staged.len() + self.room_rows() + writes.len() * ROWS_A_WRITE >= MAX_BATCH_ROWS {
            self.commit()?;
        }
        let (mut dots, count) = (Vec::with_capacity(writes.len()), writes.len());
        for (number, (id, write)) in writes.into_iter().enumerate() {
            let goes_on = number + 1 < count && !planted!(BatchForgotten);
            let dot = self.append_event(now, (id.clone(), goes_on), |replica, current, dot| match write {
                BatchWrite::Write(body) => Ok(replica.over_what_is_seen(&id, current, dot, body)?),
                BatchWrite::Change(change) => replica.changed(&id, current, change, dot),
            });
            // It was possible a moment ago, so the store has failed; half a batch must not be written.
            dots.push(dot.inspect_err(|error| self.failed = Some(StoreError::new(error.to_string())))?);
        }
        if let Some(last) = dots.last().filter(|_| dots.len() > 1) {
            self.veils.note_end(self.id, last.hlc);
        }
        Ok(dots)
    }

    /// Whether each of the changes can be made. They are of different entries, so none changes what another meets.
    fn check_changes(&self, writes: &[(EntryId, BatchWrite)]) -> Result<(), BatchError> {
        let mut ids: Vec<&EntryId> = writes.iter().map(|(id, _)| id).collect();
        assert!(ids.iter().all(|id| may_be_in_batch(id)), "a batch with a document");
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "two writes of one entry in a batch");
        for (index, (id, write)) in writes.iter().enumerate() {
            if let BatchWrite::Change(change) = write {
                let dot = Dot { hlc: self.clock.last().next(), replica: self.id };
                self.changed(id, self.entry(id)?.as_ref(), change.clone(), dot)
                    .map_err(|error| BatchError { index: Some(index), error })?;
            }
        }
        Ok(())
    }
}
