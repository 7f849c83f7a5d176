//! The records of membership and the stage of a replica, as bytes.

use bincode::{BorrowDecode, Decode, Encode};

use super::{Malformed, decode_exact, encode_into, seal, unseal};
use crate::keys;
use crate::member::{MAX_NAME_BYTES, MemberRecord, RemovalReason};
use crate::vector::VersionVector;

/// The version of the records this build writes; their first byte.
const RECORD_VERSION: u8 = 1;

/// How far a replica has come into its cluster, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StageRow {
    /// It copies entries; of claims, it has none yet.
    Copying {
        /// Everything up to this row key is here.
        cursor: Vec<u8>,
        /// What it may claim when it has all.
        base: Option<VersionVector>,
    },
    /// It holds what it copied, and catches up with this.
    CatchingUp {
        /// What the cluster had when it began.
        target: VersionVector,
    },
    /// It is a full member.
    Member,
}

/// The bytes of a member's record.
pub fn encode_record(record: &MemberRecord) -> Vec<u8> {
    let mut bytes = vec![RECORD_VERSION];
    encode_into(&(record.pop.as_str(), record.region.as_str()), &mut bytes);
    bytes
}

/// Reads a member's record back.
pub fn decode_record(bytes: &[u8]) -> Result<MemberRecord, Malformed> {
    let (pop, region): (&str, &str) = decode_versioned(bytes)?;
    if pop.len() > MAX_NAME_BYTES || region.len() > MAX_NAME_BYTES {
        return Err(Malformed::Form(format!("a name over {MAX_NAME_BYTES} bytes")));
    }
    Ok(MemberRecord { pop: pop.into(), region: region.into() })
}

/// The bytes of a removal.
pub fn encode_reason(reason: RemovalReason) -> Vec<u8> {
    vec![RECORD_VERSION, reason_number(reason)]
}

/// Reads a removal back.
pub fn decode_reason(bytes: &[u8]) -> Result<RemovalReason, Malformed> {
    reason_of(decode_versioned(bytes)?)
}

pub(crate) fn reason_number(reason: RemovalReason) -> u8 {
    match reason {
        RemovalReason::Operator => 0,
        RemovalReason::Silent => 1,
        RemovalReason::Replaced => 2,
    }
}

pub(crate) fn reason_of(number: u8) -> Result<RemovalReason, Malformed> {
    match number {
        0 => Ok(RemovalReason::Operator),
        1 => Ok(RemovalReason::Silent),
        2 => Ok(RemovalReason::Replaced),
        _ => Err(Malformed::Form("an unknown reason of a removal".into())),
    }
}

fn decode_versioned<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, rest)) => decode_exact(rest),
        Some((version, _)) => Err(Malformed::Version(*version)),
        None => Err(Malformed::Form("empty".into())),
    }
}

/// The bytes of the stage row.
pub fn encode_stage(stage: &StageRow) -> Vec<u8> {
    let mut bytes = vec![RECORD_VERSION];
    encode_into(stage, &mut bytes);
    seal(keys::STAGE, bytes)
}

/// Reads the stage row back.
pub fn decode_stage(row: &[u8]) -> Result<StageRow, Malformed> {
    decode_versioned(unseal(keys::STAGE, row)?)
}

/// The bytes of a row of the expiry index: nothing but its check.
pub fn encode_expiry(row_key: &[u8]) -> Vec<u8> {
    seal(row_key, vec![RECORD_VERSION])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_stages_survive_and_strangers_are_refused() {
        let record = MemberRecord { pop: "ams".into(), region: "eu".into() };
        assert_eq!(decode_record(&encode_record(&record)), Ok(record.clone()));
        let long = MemberRecord { pop: "x".repeat(MAX_NAME_BYTES + 1), ..record };
        assert!(decode_record(&encode_record(&long)).is_err());
        for reason in [RemovalReason::Operator, RemovalReason::Silent, RemovalReason::Replaced] {
            assert_eq!(decode_reason(&encode_reason(reason)), Ok(reason));
        }
        assert!(decode_reason(&[RECORD_VERSION, 9]).is_err());
        assert_eq!(decode_reason(&[9, 0]), Err(Malformed::Version(9)));
        let stages = [
            StageRow::Copying { cursor: b"ek".to_vec(), base: None },
            StageRow::CatchingUp { target: VersionVector::default() },
            StageRow::Member,
        ];
        for stage in stages {
            assert_eq!(decode_stage(&encode_stage(&stage)), Ok(stage));
        }
    }
}
