//! The one file (with its children) that knows bincode: bounded encoding and decoding.
//!
//! bincode is unmaintained (RUSTSEC-2025-0141), so nothing else may depend on its ways. Two rules keep foreign
//! bytes from hurting: every decode has a limit, and bytes left over are an error. Every stored record and
//! every frame starts with a version byte.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::{BorrowDecode, Decode, Decoder, read::Reader};
use bincode::enc::{Encode, Encoder, write::Writer};
use bincode::error::{DecodeError, EncodeError};

use crate::clock::{Hlc, ReplicaId};
use crate::vector::{MAX_ORIGINS, Position, VersionVector};

pub mod conflict;
pub mod copy;
pub mod delta;
pub mod fold;
pub mod member;
pub mod message;
pub(crate) mod parts;
pub mod round;
pub mod row;
pub mod veil;

/// The most bytes one decode may claim: the largest frame, with room for what decoding adds.
const DECODE_LIMIT_BYTES: usize = 4 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_LIMIT_BYTES>> =
    bincode::config::standard().with_limit::<DECODE_LIMIT_BYTES>();

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A version this build does not know.
    #[error("version {0} is not known to this build")]
    Version(u8),
    /// The stored check does not fit the bytes.
    #[error("the check does not match")]
    Check,
    /// Cut short, out of bounds, or followed by left-over bytes.
    #[error("{0}")]
    Form(String),
}

impl From<DecodeError> for Malformed {
    fn from(error: DecodeError) -> Self {
        Self::Form(error.to_string())
    }
}

/// Appends the encoding of `value`.
fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, CONFIG)
        .expect("a Vec takes every write, and no type here fails");
}

/// Decodes a `T` that fills `bytes` exactly.
fn decode_exact<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let (value, rest) = decode_head(bytes)?;
    if !rest.is_empty() {
        return Err(Malformed::Form(format!("{} bytes left over", rest.len())));
    }
    Ok(value)
}

/// Decodes a `T` at the start of `bytes`; gives what follows.
fn decode_head<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Malformed> {
    let (value, used) = bincode::borrow_decode_from_slice(bytes, CONFIG)?;
    Ok((value, &bytes[used..]))
}

/// Six bytes of milliseconds, then the counter, which is nearly always one byte.
impl Encode for Hlc {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encoder.writer().write(&self.wall_ms().to_le_bytes()[..6])?;
        self.counter().encode(encoder)
    }
}

impl<C> Decode<C> for Hlc {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let mut wall_ms = [0; 8];
        decoder.claim_bytes_read(6)?;
        decoder.reader().read(&mut wall_ms[..6])?;
        Ok(Hlc::new(u64::from_le_bytes(wall_ms), u16::decode(decoder)?))
    }
}
bincode::impl_borrow_decode!(Hlc);

impl Encode for ReplicaId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C> Decode<C> for ReplicaId {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(ReplicaId(Decode::decode(decoder)?))
    }
}
bincode::impl_borrow_decode!(ReplicaId);

impl Encode for Position {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.hlc, self.ops, self.bytes).encode(encoder)
    }
}

impl<C> Decode<C> for Position {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (hlc, ops, bytes) = Decode::decode(decoder)?;
        Ok(Position { hlc, ops, bytes })
    }
}
bincode::impl_borrow_decode!(Position);

impl Encode for VersionVector {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.iter().collect::<Vec<_>>().encode(encoder)
    }
}

impl<C> Decode<C> for VersionVector {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let positions = Vec::<(ReplicaId, Position)>::decode(decoder)?;
        if positions.len() > MAX_ORIGINS {
            return Err(DecodeError::Other("more origins than there may be"));
        }
        Ok(positions.into_iter().collect())
    }
}
bincode::impl_borrow_decode!(VersionVector);

/// Seven bits a byte, the lowest first (LEB128): bincode's own has no size between one byte, three and five.
fn write_number<E: Encoder>(encoder: &mut E, mut number: u64) -> Result<(), EncodeError> {
    let mut bytes = [0; 10];
    let mut len = 0;
    loop {
        bytes[len] = number as u8 & 0x7f | u8::from(number > 0x7f) << 7;
        len += 1;
        number >>= 7;
        if number == 0 {
            return encoder.writer().write(&bytes[..len]);
        }
    }
}

fn read_number<D: Decoder>(decoder: &mut D) -> Result<u64, DecodeError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        decoder.claim_bytes_read(1)?;
        let mut byte = [0];
        decoder.reader().read(&mut byte)?;
        let bits = u64::from(byte[0] & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(DecodeError::Other("a number of more than 64 bits"))
}

/// CRC-32 over a row's key and its bytes: a row that moved, or changed, does not pass.
fn row_check(row_key: &[u8], row: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(row_key);
    hasher.update(row);
    hasher.finalize().to_le_bytes()
}

/// Appends the check to a finished row. Public for tests, which forge rows to reach what is behind the check.
#[doc(hidden)]
pub fn seal(row_key: &[u8], mut row: Vec<u8>) -> Vec<u8> {
    let check = row_check(row_key, &row);
    row.extend_from_slice(&check);
    row
}

/// The row without its check, if that is right.
fn unseal<'a>(row_key: &[u8], row: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (row, check) = row.split_last_chunk::<4>().ok_or(Malformed::Check)?;
    if *check == row_check(row_key, row) { Ok(row) } else { Err(Malformed::Check) }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// The fuzz targets go further; this runs everywhere.
        #[test]
        fn no_foreign_bytes_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = row::decode_entry(b"k", &bytes.clone().into());
            // With a right check, so that what is behind it is reached.
            let sealed = seal(b"k", bytes.clone());
            let _ = row::decode_entry(b"k", &sealed.clone().into());
            let _ = row::decode_log(b"k", Hlc::ZERO, &sealed);
            let _ = fold::Fold::read(b"k", &sealed).map(|fold| fold.unfold());
            let _ = row::decode_summary(&seal(crate::keys::SUMMARY, bytes.clone()));
            let _ = row::decode_peers(&seal(crate::keys::PEERS, bytes.clone()));
            bytes.insert(0, crate::link::PROTOCOL_VERSION);
            let _ = message::Message::from_frame(&bytes);
        }
    }

    #[test]
    fn a_forged_length_is_refused_before_memory_is_taken() {
        // A vector that claims 2^60 elements in nine bytes.
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(decode_exact::<VersionVector>(&bytes).is_err());
        assert!(decode_exact::<Vec<u8>>(&bytes).is_err());
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let mut bytes = Vec::new();
        encode_into(&Hlc::new(5, 1), &mut bytes);
        assert_eq!(bytes.len(), 7);
        assert_eq!(decode_exact(&bytes), Ok(Hlc::new(5, 1)));
        bytes.push(0);
        assert!(matches!(decode_exact::<Hlc>(&bytes), Err(Malformed::Form(_))));
    }

    #[test]
    fn a_row_under_another_key_fails_its_check() {
        let row = seal(b"key", vec![1, 2, 3]);
        assert_eq!(unseal(b"key", &row), Ok(&[1, 2, 3][..]));
        assert_eq!(unseal(b"kez", &row), Err(Malformed::Check));
        assert_eq!(unseal(b"key", &[]), Err(Malformed::Check));
    }
}
