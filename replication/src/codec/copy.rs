//! The rows of a store on their way to a replica that copies it ([`crate::replica`] tells how).

use bincode::de::{BorrowDecode, BorrowDecoder, Decode};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode as DeriveDecode, Encode as DeriveEncode};

use super::delta::{decode_id, encode_id};
use super::round::RepairRow;
use super::row::LogRow;
use crate::clock::{Hlc, ReplicaId};
use crate::vector::VersionVector;

/// A range of rows, for a replica that copies the store. It replaces all that the receiver has in the range.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Snapshot {
    /// The session.
    pub session: u32,
    /// The range begins with this row key of the sender.
    pub from: Vec<u8>,
    /// And ends before this one.
    pub until: Vec<u8>,
    /// With the first frame of a session: what the sender held durably before it.
    pub base: Option<VersionVector>,
    /// The sender's epoch now: what is over at it is not among the rows.
    pub epoch: Hlc,
    /// Entries there are at the sender, for a progress bar.
    pub total: u64,
    /// The entries in the range.
    pub rows: Vec<RepairRow>,
    /// The events in the range, with their origins.
    pub log: Vec<SnapshotLog>,
    /// Whether nothing comes after it.
    pub last: bool,
}

/// A log row on its way to a replica that copies the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotLog {
    /// Whose event.
    pub origin: ReplicaId,
    /// The row.
    pub row: LogRow,
}

impl Encode for SnapshotLog {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.origin, self.row.position, self.row.previous, self.row.goes_on).encode(encoder)?;
        encode_id(&self.row.id, encoder)
    }
}

impl<'de, C> BorrowDecode<'de, C> for SnapshotLog {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (origin, position, previous, goes_on) = Decode::decode(decoder)?;
        let id = decode_id(decoder)?;
        Ok(Self { origin, row: LogRow { position, previous, id, goes_on } })
    }
}
