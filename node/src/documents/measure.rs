//! How much a client's changes are, before automerge unpacks them.
//!
//! Changes are packed: columns say "this, so many times", and the whole may be compressed. A few bytes can stand for more
//! than there is memory, and no `catch_unwind` helps against that. So what they unpack to is counted here, by the format
//! (<https://automerge.org/automerge-binary-format-spec/>). Whether they are right is not looked at.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use super::{DocumentError, MAX_CHANGE_OPS, MAX_CHANGES, MAX_JSON_BYTES};

/// How each chunk begins.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// The bytes of a checksum.
const CHECKSUM_BYTES: usize = 4;
/// The bytes of a change's hash.
const HASH_BYTES: usize = 32;
/// The kinds of chunks that are changes.
const CHANGE: u8 = 1;
const COMPRESSED_CHANGE: u8 = 2;
/// The most bytes that all changes of one body have when they are not compressed.
const MAX_UNPACKED_BYTES: usize = 32 << 20;
/// The last number an operation may have, so that all who edit have numbers left.
const MAX_OP_NUMBER: u64 = 1 << 31;

/// The changes in these bytes, each by itself, once it is known that they can be unpacked.
pub(super) fn changes(body: &[u8]) -> Result<Vec<&[u8]>, DocumentError> {
    let mut changes = Vec::new();
    let mut left_bytes = MAX_UNPACKED_BYTES;
    let mut bytes = Bytes(body);
    while !bytes.0.is_empty() {
        if changes.len() == MAX_CHANGES {
            return Err(DocumentError::TooMany {
                what: "changes",
                given: MAX_CHANGES + 1,
                limit: MAX_CHANGES,
            });
        }
        let whole = bytes.0;
        let (kind, content) = chunk(&mut bytes)?;
        match kind {
            CHANGE => {
                left_bytes =
                    left_bytes.checked_sub(content.len()).ok_or_else(|| too_large("unpacked bytes"))?;
                change(content)?;
            }
            COMPRESSED_CHANGE => {
                let unpacked = unpacked(content, left_bytes)?;
                left_bytes -= unpacked.len();
                change(&unpacked)?;
            }
            _ => {
                return Err(bad("send single changes, not a saved document or a bundle"));
            }
        }
        changes.push(&whole[..whole.len() - bytes.0.len()]);
    }
    Ok(changes)
}

/// The checksum in a chunk: the first bytes of its change's hash.
pub(super) fn checksum(chunk: &[u8]) -> &[u8] {
    chunk.get(MAGIC.len()..MAGIC.len() + CHECKSUM_BYTES).unwrap_or_default()
}

fn bad(reason: impl Into<String>) -> DocumentError {
    DocumentError::BadChanges { reason: reason.into() }
}

fn too_large(what: &str) -> DocumentError {
    bad(format!("they have too many {what}; send smaller changes"))
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DocumentError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| bad("they end too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number in LEB128, signed or not: of signed ones, the two's complement.
    fn number(&mut self, is_signed: bool) -> Result<u64, DocumentError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let is_negative = is_signed && byte & 0x40 != 0 && shift + 7 < 64;
                return Ok(if is_negative { number | (u64::MAX << (shift + 7)) } else { number });
            }
        }
        Err(bad("a number in them is too large"))
    }

    fn unsigned(&mut self) -> Result<u64, DocumentError> {
        self.number(false)
    }

    fn len(&mut self) -> Result<usize, DocumentError> {
        usize::try_from(self.unsigned()?).map_err(|_| bad("they end too early"))
    }

    fn prefixed(&mut self) -> Result<&'a [u8], DocumentError> {
        let len = self.len()?;
        self.take(len)
    }
}

/// The kind and content of the next chunk.
fn chunk<'a>(bytes: &mut Bytes<'a>) -> Result<(u8, &'a [u8]), DocumentError> {
    if bytes.take(MAGIC.len())? != MAGIC {
        return Err(bad("they are no automerge changes"));
    }
    bytes.take(CHECKSUM_BYTES)?;
    let kind = bytes.take(1)?[0];
    Ok((kind, bytes.prefixed()?))
}

fn unpacked(content: &[u8], left_bytes: usize) -> Result<Vec<u8>, DocumentError> {
    let mut unpacked = Vec::new();
    let read = DeflateDecoder::new(content).take(left_bytes as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|_| bad("one is compressed, and not well"))?;
    if unpacked.len() > left_bytes { Err(too_large("unpacked bytes")) } else { Ok(unpacked) }
}

/// Goes over a change, not compressed.
fn change(content: &[u8]) -> Result<(), DocumentError> {
    let mut bytes = Bytes(content);
    let deps = bytes.len()?;
    bytes.take(deps.checked_mul(HASH_BYTES).ok_or_else(|| bad("they end too early"))?)?;
    bytes.prefixed()?; // the actor
    bytes.unsigned()?; // its number of the change
    if bytes.unsigned()? > MAX_OP_NUMBER {
        return Err(bad(format!("an operation's number is beyond {MAX_OP_NUMBER}")));
    }
    bytes.number(true)?; // the time
    bytes.prefixed()?; // the message
    for _ in 0..bytes.unsigned()? {
        bytes.prefixed()?; // other actors
    }
    let mut columns = Vec::new();
    for _ in 0..bytes.unsigned()? {
        columns.push((bytes.unsigned()?, bytes.len()?));
    }
    columns.into_iter().try_for_each(|(spec, len)| column(spec, bytes.take(len)?))
}

/// What a column unpacks to.
#[derive(Default)]
struct Sum {
    rows: u64,
    /// What its values add up to: lengths, or how many others belong to a row.
    weight: u64,
}

impl Sum {
    fn add(&mut self, rows: u64, weight: u64) -> Result<(), DocumentError> {
        self.rows = self.rows.saturating_add(rows);
        self.weight = self.weight.saturating_add(rows.saturating_mul(weight));
        match () {
            () if self.rows > MAX_CHANGE_OPS as u64 => Err(too_large("operations in one")),
            () if self.weight > MAX_JSON_BYTES as u64 => Err(too_large("bytes that repeat")),
            () => Ok(()),
        }
    }
}

/// Goes over a column. The last bits of its name tell how it is packed.
fn column(spec: u64, content: &[u8]) -> Result<(), DocumentError> {
    const GROUP: u64 = 0;
    const DELTA: u64 = 3;
    const BOOLEAN: u64 = 4;
    const STRING: u64 = 5;
    const VALUE_LENGTH: u64 = 6;
    const VALUE: u64 = 7;
    let mut bytes = Bytes(content);
    let mut sum = Sum::default();
    let value = |bytes: &mut Bytes<'_>| match spec & 7 {
        STRING => Ok(bytes.prefixed()?.len() as u64),
        GROUP => bytes.unsigned(),
        VALUE_LENGTH => Ok(bytes.unsigned()? >> 4),
        DELTA => bytes.number(true).map(|_| 0),
        _ => bytes.unsigned().map(|_| 0),
    };
    while !bytes.0.is_empty() && spec & 7 != VALUE {
        if spec & 7 == BOOLEAN {
            sum.add(bytes.unsigned()?, 0)?;
            continue;
        }
        match bytes.number(true)? as i64 {
            0 => sum.add(bytes.unsigned()?, 0)?,
            run if run > 0 => {
                let weight = value(&mut bytes)?;
                sum.add(run as u64, weight)?;
            }
            literal => {
                for _ in 0..literal.unsigned_abs() {
                    let weight = value(&mut bytes)?;
                    sum.add(1, weight)?;
                }
            }
        }
    }
    Ok(())
}
