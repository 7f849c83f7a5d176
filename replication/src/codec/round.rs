//! The messages of an anti-entropy round, and their compact encoding.
//!
//! Counts are written as differences to their mean, ids as differences to the one before, both in as many
//! 7-bit groups as they need: about 9 bytes a cell, 4 to 5 an id, and 1 to 2 a count.

use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder, read::Reader};
use bincode::enc::{Encode, Encoder, write::Writer};
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode as DeriveDecode, Encode as DeriveEncode};

use super::delta::{decode_base, decode_body, decode_id, encode_base, encode_body, encode_id};
use super::row::flags;
use super::{read_number, write_number};
use crate::clock::{Dot, Hlc};
use crate::digest::{NODE_LEAVES, NODES};
use crate::entry::{Entry, EntryId, Kind};
use crate::sketch::Cell;

/// The most cells of one message.
pub const MAX_CELLS_A_MESSAGE: usize = 6_144;

/// The most ids of one message.
pub const MAX_IDS_A_MESSAGE: usize = 16_384;

/// The most ranges of leaves that one message asks for: every other leaf.
pub const MAX_RANGES: usize = NODES * NODE_LEAVES / 2;

/// The most nodes whose leaves are counted out in one message.
pub const MAX_EDGES: usize = 8;

/// Among the flags of a row's body: the state has a base.
const BASE: u8 = 16;

/// One message of a round.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Round {
    /// The number the initiator gave it.
    pub number: u32,
    /// What is said.
    pub step: Step,
}

/// What is said in a round; [`crate::replica::anti_entropy`] tells when.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub enum Step {
    /// Initiator: this is what I have, in little.
    Probe(Probe),
    /// Responder: this is what I have, in cells.
    Cells(Cells),
    /// Initiator: those were too few.
    More,
    /// Responder: this is where one of us lacks a whole range.
    Outline(Outline),
    /// Initiator: send me all you have in these leaves, from the first to the last of each range.
    Fetch(Ranges),
    /// Responder: too much differs; list what you have, a part of it at a time.
    List,
    /// Initiator: all I have in these leaves.
    Listing(Listing),
    /// Either: send me the states with these ids.
    Wanted(Wanted),
    /// Either: states you lack, and whether more follow. The last one ends the sender's part of the round; an empty
    /// one before it says that the sender is still at it.
    Rows(Rows),
}

/// The initiator's counts and cells.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Probe {
    /// Name what differs, also where whole ranges seem to be missing: they have just been looked at.
    pub plain: bool,
    /// Entries below each node.
    pub nodes: Counts,
    /// Cells of each table.
    pub size: u32,
    /// The cells, table by table.
    pub cells: CellList,
}

/// A part of a fold.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Cells {
    /// Cells of each table.
    pub size: u32,
    /// Of each table, only the cells from here on are sent; the others follow from a fold to this size.
    pub beyond: u32,
    /// How many of the cells to be sent were sent before.
    pub from: u32,
    /// These.
    pub cells: CellList,
}

/// Where one side lacks a whole range, by the responder's counts.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Outline {
    /// Nodes one side has next to nothing of, with the responder's count.
    pub nodes: Vec<(u8, u32)>,
    /// Nodes one side lacks a part of, with the counts of their leaves; at most [`MAX_EDGES`].
    pub edges: Vec<(u8, Counts)>,
}

/// What the initiator has between two leaves, both included.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Listing {
    /// The first leaf.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Ids of states there.
    pub ids: Ids,
    /// Whether the list goes on.
    pub more: bool,
}

/// States the sender lacks.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Wanted {
    /// Their ids.
    pub ids: Ids,
    /// Whether the list goes on.
    pub more: bool,
}

/// Entries the receiver lacks, or has in another state, although its vector covers them.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEncode, DeriveDecode)]
pub struct Rows {
    /// The entries.
    pub rows: Vec<RepairRow>,
    /// Whether more follow.
    pub more: bool,
}

/// One entry on its way to where it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairRow {
    /// Its name.
    pub id: EntryId,
    /// Its state.
    pub entry: Entry,
}

impl Encode for RepairRow {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encode_id(&self.id, encoder)?;
        let bits = flags(&self.entry.body) | if self.entry.base == Hlc::ZERO { 0 } else { BASE };
        (self.entry.dot.replica, self.entry.dot.hlc, bits).encode(encoder)?;
        encode_base(self.entry.dot.hlc, self.entry.base, encoder)?;
        encode_body(&self.entry, encoder)
    }
}

impl<'de, C> BorrowDecode<'de, C> for RepairRow {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let id = decode_id(decoder)?;
        let (replica, hlc, bits): (_, _, u8) = Decode::decode(decoder)?;
        let dot = Dot { hlc, replica };
        if bits & BASE != 0 && id.kind != Kind::Value {
            return Err(DecodeError::Other("a base of what is no value"));
        }
        let base = if bits & BASE != 0 { decode_base(hlc, decoder)? } else { Hlc::ZERO };
        let body = decode_body(&id, bits & !BASE, dot, decoder)?;
        Ok(Self { id, entry: Entry { dot, body, base } })
    }
}

/// Counts of like size: 256 of them, as nodes and the leaves of a node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(pub Vec<u32>);

/// How many counts are sent at a time.
const COUNTS: usize = NODES;
const _: () = assert!(COUNTS == NODE_LEAVES, "one form serves both");

impl Encode for Counts {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        debug_assert_eq!(self.0.len(), COUNTS);
        let mean = mean(self.0.iter().map(|count| i64::from(*count)));
        write_signed(encoder, mean)?;
        self.0.iter().try_for_each(|count| write_signed(encoder, i64::from(*count) - mean))
    }
}

impl<C> Decode<C> for Counts {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let mean = read_signed(decoder)?;
        let count = |decoder: &mut D| {
            let count = mean.wrapping_add(read_signed(decoder)?);
            u32::try_from(count).map_err(|_| DecodeError::Other("a count that no leaf has"))
        };
        Ok(Self((0..COUNTS).map(|_| count(decoder)).collect::<Result<_, _>>()?))
    }
}
bincode::impl_borrow_decode!(Counts);

/// Cells, at most [`MAX_CELLS_A_MESSAGE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellList(pub Vec<Cell>);

impl Encode for CellList {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let mean = mean(self.0.iter().map(|cell| cell.count));
        write_number(encoder, self.0.len() as u64)?;
        write_signed(encoder, mean)?;
        self.0.iter().try_for_each(|cell| {
            encoder.writer().write(&cell.word.to_le_bytes())?;
            write_signed(encoder, cell.count.wrapping_sub(mean))
        })
    }
}

impl<C> Decode<C> for CellList {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = read_len(decoder, MAX_CELLS_A_MESSAGE)?;
        let mean = read_signed(decoder)?;
        let cell = |decoder: &mut D| {
            let mut word = [0; 8];
            decoder.claim_bytes_read(word.len())?;
            decoder.reader().read(&mut word)?;
            let count = mean.wrapping_add(read_signed(decoder)?);
            Ok(Cell { word: u64::from_le_bytes(word), count })
        };
        Ok(Self((0..len).map(|_| cell(decoder)).collect::<Result<_, DecodeError>>()?))
    }
}
bincode::impl_borrow_decode!(CellList);

/// Ids of states, strictly rising, at most [`MAX_IDS_A_MESSAGE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids(pub Vec<u64>);

impl Encode for Ids {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        write_number(encoder, self.0.len() as u64)?;
        encode_rising(self.0.iter().copied(), encoder)
    }
}

impl<C> Decode<C> for Ids {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = read_len(decoder, MAX_IDS_A_MESSAGE)?;
        Ok(Self(decode_rising(len, decoder)?))
    }
}
bincode::impl_borrow_decode!(Ids);

/// Ranges of leaves, first and last of each, rising and apart; at most [`MAX_RANGES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(pub Vec<(u16, u16)>);

impl Encode for Ranges {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        write_number(encoder, self.0.len() as u64)?;
        // The end that is not part of the range, so that all the bounds rise.
        let bounds = self.0.iter().flat_map(|(first, last)| [u64::from(*first), u64::from(*last) + 1]);
        encode_rising(bounds, encoder)
    }
}

impl<C> Decode<C> for Ranges {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = read_len(decoder, MAX_RANGES)?;
        let bounds = decode_rising(2 * len, decoder)?;
        let leaf =
            |bound: u64| u16::try_from(bound).map_err(|_| DecodeError::Other("a leaf outside the tree"));
        let range = |bounds: &[u64]| Ok((leaf(bounds[0])?, leaf(bounds[1] - 1)?));
        Ok(Self(bounds.chunks_exact(2).map(range).collect::<Result<_, DecodeError>>()?))
    }
}
bincode::impl_borrow_decode!(Ranges);

fn encode_rising<E: Encoder>(numbers: impl Iterator<Item = u64>, encoder: &mut E) -> Result<(), EncodeError> {
    let mut least = 0;
    for number in numbers {
        debug_assert!(number >= least, "{number} does not rise");
        write_number(encoder, number - least)?;
        least = number + 1;
    }
    Ok(())
}

fn decode_rising<D: Decoder>(len: usize, decoder: &mut D) -> Result<Vec<u64>, DecodeError> {
    let mut least = 0u64;
    let mut numbers = Vec::new();
    for _ in 0..len {
        let number = least.checked_add(read_number(decoder)?).filter(|number| *number < u64::MAX);
        let number = number.ok_or(DecodeError::Other("a number beyond all"))?;
        numbers.push(number);
        least = number + 1;
    }
    Ok(numbers)
}

/// What most of the numbers are near to.
fn mean(numbers: impl ExactSizeIterator<Item = i64>) -> i64 {
    let len = numbers.len().max(1) as i128;
    let sum: i128 = numbers.map(i128::from).sum();
    ((sum + len / 2) / len) as i64
}

fn read_len<D: Decoder>(decoder: &mut D, most: usize) -> Result<usize, DecodeError> {
    let len = read_number(decoder)?;
    usize::try_from(len)
        .ok()
        .filter(|len| *len <= most)
        .ok_or(DecodeError::Other("more than one message may have"))
}

fn write_signed<E: Encoder>(encoder: &mut E, number: i64) -> Result<(), EncodeError> {
    write_number(encoder, (number << 1 ^ number >> 63) as u64)
}

fn read_signed<D: Decoder>(decoder: &mut D) -> Result<i64, DecodeError> {
    let number = read_number(decoder)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

#[cfg(test)]
mod tests;
