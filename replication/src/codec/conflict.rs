//! The row of a value that has lost to one whose writer had not seen it.
//!
//! It names replicas in full: it stays when nothing else in the store tells of them.

use crate::clock::{Dot, Hlc};
use crate::entry::{Entry, EntryId};

use super::round::RepairRow;
use super::row::{ROW_VERSION, versioned};
use super::{Malformed, decode_exact, encode_into, seal, unseal};

/// A value that has lost to one whose writer had not seen it ([`Entry::is_unseen_by`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The entry both were written to.
    pub id: EntryId,
    /// The state that lost: a value, whole.
    pub lost: Entry,
    /// The event that won.
    pub won: Dot,
    /// Whether that deleted the entry.
    pub deleted: bool,
    /// When this store noticed, by its clock: not before either event.
    pub noticed: Hlc,
}

/// The bytes of the row.
pub fn encode_conflict(row_key: &[u8], conflict: &Conflict) -> Vec<u8> {
    let Conflict { id, lost, won, deleted, noticed } = conflict.clone();
    let mut bytes = vec![ROW_VERSION << 4];
    encode_into(&(RepairRow { id, entry: lost }, won.replica, won.hlc, deleted, noticed), &mut bytes);
    seal(row_key, bytes)
}

/// Reads it back.
pub fn decode_conflict(row_key: &[u8], row: &[u8]) -> Result<Conflict, Malformed> {
    let (lost, replica, hlc, deleted, noticed) = decode_exact(&versioned(unseal(row_key, row)?)?[1..])?;
    let RepairRow { id, entry: lost } = lost;
    Ok(Conflict { id, lost, won: Dot { hlc, replica }, deleted, noticed })
}

/// The bytes of the row that lists it by age.
pub fn encode_conflict_age(row_key: &[u8]) -> Vec<u8> {
    seal(row_key, vec![ROW_VERSION << 4])
}

/// Checks that row.
pub fn decode_conflict_age(row_key: &[u8], row: &[u8]) -> Result<(), Malformed> {
    match versioned(unseal(row_key, row)?)? {
        [_] => Ok(()),
        longer => Err(Malformed::Form(format!("{} bytes left over", longer.len() - 1))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::ReplicaId;
    use crate::entry::{Body, NamespaceId, Payload, Value};

    #[test]
    fn lost_values_survive_and_nothing_cut_short_does() {
        let value = Value {
            payload: Payload::Inline(Bytes::from("lost")),
            metadata: Some(Bytes::from("{}")),
            expires_at_s: Some(1_900_000_000),
        };
        let at = |ms, replica| Dot { hlc: Hlc::new(ms, 1), replica: ReplicaId([replica; 16]) };
        let conflict = Conflict {
            id: EntryId::value(NamespaceId([3; 16]), "k"),
            lost: Entry { dot: at(7, 1), body: Body::Value(value), base: Hlc::new(5, 0) },
            won: at(9, 2),
            deleted: true,
            noticed: Hlc::new(11, 0),
        };
        let row = encode_conflict(b"fk", &conflict);
        assert_eq!(decode_conflict(b"fk", &row), Ok(conflict));
        for len in 0..row.len() {
            assert!(decode_conflict(b"fk", &row[..len]).is_err());
        }
        assert_eq!(decode_conflict_age(b"g", &encode_conflict_age(b"g")), Ok(()));
        assert!(decode_conflict_age(b"g", &encode_conflict_age(b"h")).is_err());
    }
}
