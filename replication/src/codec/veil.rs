//! The rows of what readers see of entries until batches are complete.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::row::{decode_entry, versioned};
use super::{Malformed, decode_exact, encode_into, seal, unseal};
use crate::clock::{Hlc, ReplicaId};
use crate::entry::Body;
use crate::keys;

/// The form of these rows, in their first byte.
const VERSION: u8 = 1;
/// In that byte too: there was a row.
const SHOWN: u8 = 1;

/// What holds of all veils together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Veiling {
    /// Up to which events of these origins all must be held before they are lifted.
    pub needs: BTreeMap<ReplicaId, Hlc>,
    /// By origin, the first event that readers do not see though it is held.
    pub hides: BTreeMap<ReplicaId, Hlc>,
}

/// The bytes of the row of a veil: what readers see instead of the entry's own row, that row as it was, if there was one.
pub fn encode_veil(row_key: &[u8], shown: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = vec![VERSION << 4 | if shown.is_some() { SHOWN } else { 0 }];
    bytes.extend_from_slice(shown.unwrap_or_default());
    seal(row_key, bytes)
}

/// Reads such a row back. Copies nothing: what is shown is a slice of `row`.
pub fn decode_veil(row_key: &[u8], row: &Bytes) -> Result<Option<Bytes>, Malformed> {
    let bytes = versioned(unseal(row_key, row)?)?;
    Ok((bytes[0] & SHOWN != 0).then(|| row.slice_ref(&bytes[1..])))
}

/// What the row of a veil shows of its entry.
pub fn shown_body(row_key: &[u8], row: &Bytes) -> Result<Option<Body>, Malformed> {
    let Some(shown) = decode_veil(row_key, row)? else { return Ok(None) };
    decode_entry(&row_key[1..], &shown).map(|row| Some(row.body))
}

/// The bytes of the row of what holds of all veils.
pub fn encode_veiling(veiling: &Veiling) -> Vec<u8> {
    let mut bytes = vec![VERSION << 4];
    let listed = |map: &BTreeMap<ReplicaId, Hlc>| map.iter().map(|(id, hlc)| (*id, *hlc)).collect::<Vec<_>>();
    encode_into(&(listed(&veiling.needs), listed(&veiling.hides)), &mut bytes);
    seal(keys::VEILING, bytes)
}

/// Reads that row back.
pub fn decode_veiling(row: &[u8]) -> Result<Veiling, Malformed> {
    type Listed = Vec<(ReplicaId, Hlc)>;
    let (needs, hides): (Listed, Listed) = decode_exact(&versioned(unseal(keys::VEILING, row)?)?[1..])?;
    Ok(Veiling { needs: needs.into_iter().collect(), hides: hides.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive() {
        for shown in [None, Some(&b""[..]), Some(b"the row of an entry")] {
            let row = Bytes::from(encode_veil(b"vk", shown));
            assert_eq!(decode_veil(b"vk", &row).unwrap().as_deref(), shown);
            for len in 0..row.len() {
                assert!(decode_veil(b"vk", &row.slice(..len)).is_err());
            }
        }
        let at = |replica, ms| (ReplicaId([replica; 16]), Hlc::new(ms, 1));
        let veiling = Veiling { needs: [at(1, 9), at(2, 8)].into(), hides: [at(3, 7)].into() };
        assert_eq!(decode_veiling(&encode_veiling(&veiling)), Ok(veiling));
    }
}
