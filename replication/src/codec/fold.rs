//! The row of changes of a document that were folded together ([`crate::store::folding`]).
//!
//! What a change of some few operations takes is mostly names: the SHA-256 of what it follows on, its author, a checksum, and
//! in its row its own name again. In a fold a change that is in it already is named by its place, checksums and names are
//! computed anew, and what is left is compressed together: of some 250 bytes an edit keeps about 30. Every change comes
//! out to the byte as it went in; one that would not is kept as it is.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

use super::row::{ROW_VERSION, versioned};
use super::{Malformed, decode_head, encode_into, seal, unseal};
use crate::clock::Hlc;
use crate::entry::MAX_INLINE_BYTES;

/// The most changes in one fold.
pub const MAX_FOLDED: usize = 256;
/// The most bytes of their changes, packed and not yet compressed.
pub const MAX_PACKED_BYTES: usize = MAX_INLINE_BYTES;
/// The most bytes of a change that is folded: a large one takes little more in a row of its own.
pub const MAX_FOLDED_CHANGE_BYTES: usize = 4 << 10;

/// The most bytes a fold may unpack to: what is said of each change beside its bytes is less than 64, and up to so many
/// changes that it follows on are named in 34 each, which its own bytes have room for.
const MAX_UNPACKED_BYTES: usize = MAX_PACKED_BYTES + MAX_FOLDED_CHANGE_BYTES + MAX_FOLDED * 64;
/// A time has 48 bits.
const MAX_MS: u64 = (1 << 48) - 1;
/// Bytes of a change's name by which a fold tells that it is not in it.
const MARK_BYTES: usize = 4;

/// By which a fold tells that an element is not in it. Two elements may have the same.
pub type Mark = [u8; MARK_BYTES];

/// How each chunk of Automerge's begins, before its checksum (<https://automerge.org/automerge-binary-format-spec/>).
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Bytes of the magic number and the checksum.
const HEAD_BYTES: usize = 8;
/// The type of a change; and of one that is compressed.
const CHANGE: u8 = 1;
const COMPRESSED_CHANGE: u8 = 2;
/// The most bytes that a change in a fold may have before Automerge compressed it, to be named by its place.
const MAX_INFLATED_BYTES: u64 = 256 << 10;
/// Bytes of a change's hash.
const HASH_BYTES: usize = 32;

type Hash = [u8; HASH_BYTES];

/// A change in a fold, with the event that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldedChange {
    /// The index of the event's replica in this store's summary.
    pub origin_index: u16,
    /// Its time.
    pub hlc: Hlc,
    /// The change, as Automerge has it.
    pub change: Bytes,
}

/// A fold in the making.
#[derive(Debug, Default)]
pub struct FoldBuilder {
    marks: Vec<u8>,
    events: Vec<u8>,
    changes: Vec<u8>,
    hashes: Vec<Option<Hash>>,
    last_ms: u64,
}

impl FoldBuilder {
    /// How many changes are in it.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Adds a change, by the name of its element; false where there is no room for it.
    pub fn add(&mut self, element: &[u8], folded: &FoldedChange) -> bool {
        if self.len() == MAX_FOLDED {
            return false;
        }
        let packed = pack(&folded.change, &self.hashes);
        if self.changes.len() + packed.len() > MAX_PACKED_BYTES {
            return false;
        }
        let hash = change_hash(&folded.change);
        let wall_ms = folded.hlc.wall_ms();
        let event = (folded.origin_index, wall_ms.wrapping_sub(self.last_ms) as i64, folded.hlc.counter());
        encode_into(&(event, packed.len() as u64), &mut self.events);
        self.last_ms = wall_ms;
        self.changes.extend_from_slice(&packed);
        self.marks.extend_from_slice(&mark(element));
        self.hashes.push(hash);
        true
    }

    /// The bytes of its row.
    pub fn finish(self, row_key: &[u8]) -> Vec<u8> {
        let gone = vec![0; self.len().div_ceil(8)];
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(&self.events).and_then(|()| deflate.write_all(&self.changes)).expect(WRITES);
        encode_row(row_key, self.hashes.len(), &gone, &self.marks, &deflate.finish().expect(WRITES))
    }
}

/// Why writing to a `Vec` cannot fail.
const WRITES: &str = "a Vec takes every write";

fn encode_row(row_key: &[u8], count: usize, gone: &[u8], marks: &[u8], packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + gone.len() + marks.len() + packed.len() + 4);
    bytes.push(ROW_VERSION << 4);
    encode_into(&(count as u64), &mut bytes);
    [gone, marks, packed].iter().for_each(|part| bytes.extend_from_slice(part));
    seal(row_key, bytes)
}

/// A fold, as its row has it.
#[derive(Debug)]
pub struct Fold<'a> {
    count: usize,
    /// A bit for each change: it is not in it any more.
    gone: &'a [u8],
    marks: &'a [u8],
    packed: &'a [u8],
}

impl<'a> Fold<'a> {
    /// Reads the row of a fold.
    pub fn read(row_key: &[u8], row: &'a [u8]) -> Result<Self, Malformed> {
        let bytes = versioned(unseal(row_key, row)?)?;
        let (count, rest) = decode_head::<u64>(&bytes[1..])?;
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_FOLDED).contains(count));
        let count = count.ok_or_else(|| form("more changes in a fold than there may be, or none"))?;
        let split =
            |bytes: &'a [u8], len| bytes.split_at_checked(len).ok_or_else(|| form("a fold cut short"));
        let (gone, rest) = split(rest, count.div_ceil(8))?;
        let (marks, packed) = split(rest, count * MARK_BYTES)?;
        Ok(Self { count, gone, marks, packed })
    }

    /// The places of what is in it, with marks of their elements.
    pub fn marks(&self) -> impl Iterator<Item = (usize, Mark)> {
        let (marks, _) = self.marks.as_chunks::<MARK_BYTES>();
        marks.iter().copied().enumerate().filter(|(at, _)| !self.is_gone(*at))
    }

    /// Whether the change at this place is not in it any more.
    pub fn is_gone(&self, at: usize) -> bool {
        self.gone[at / 8] & 1 << (at % 8) != 0
    }

    /// All that were ever put into it, place by place.
    pub fn unfold(&self) -> Result<Vec<FoldedChange>, Malformed> {
        let mut unpacked = Vec::new();
        let inflate = DeflateDecoder::new(self.packed).take(MAX_UNPACKED_BYTES as u64 + 1);
        let inflated = { inflate }.read_to_end(&mut unpacked);
        inflated.map_err(|_| form("a fold that is not well compressed"))?;
        if unpacked.len() > MAX_UNPACKED_BYTES {
            return Err(form("a fold larger than any may be"));
        }
        let mut rest = &unpacked[..];
        let (mut events, mut last_ms) = (Vec::with_capacity(self.count), 0u64);
        for _ in 0..self.count {
            type Event = ((u16, i64, u16), u64);
            let (((origin_index, more_ms, counter), len), left) = decode_head::<Event>(rest)?;
            last_ms = last_ms.wrapping_add(more_ms as u64) & MAX_MS;
            events.push((origin_index, Hlc::new(last_ms, counter), len));
            rest = left;
        }
        let (mut hashes, mut unfolded) = (Vec::with_capacity(self.count), Vec::with_capacity(self.count));
        for (origin_index, hlc, len) in events {
            let len = usize::try_from(len).map_err(|_| form("a fold cut short"))?;
            let (packed, left) = rest.split_at_checked(len).ok_or_else(|| form("a fold cut short"))?;
            rest = left;
            let change = unpack(packed, &hashes)?;
            hashes.push(change_hash(&change));
            unfolded.push(FoldedChange { origin_index, hlc, change: change.into() });
        }
        if rest.is_empty() { Ok(unfolded) } else { Err(form("bytes left over in a fold")) }
    }

    /// The bytes of its row without the changes at these places; `None` where none is left.
    pub fn without(&self, row_key: &[u8], places: &[usize]) -> Option<Vec<u8>> {
        let mut gone = self.gone.to_vec();
        places.iter().for_each(|at| gone[at / 8] |= 1 << (at % 8));
        let left = gone.iter().map(|byte| byte.count_ones() as usize).sum::<usize>() < self.count;
        left.then(|| encode_row(row_key, self.count, &gone, self.marks, self.packed))
    }
}

fn form(what: &str) -> Malformed {
    Malformed::Form(what.into())
}

/// The mark of an element: the last bytes of its name.
pub fn mark(element: &[u8]) -> Mark {
    element.last_chunk().copied().unwrap_or_default()
}

/// In a packed change: it is as it was.
const AS_IT_WAS: u8 = 0;
/// Its checksum and the names of what it follows on are left out, where a fold has them.
const SHORTENED: u8 = 1;

/// A change, shorter: what it follows on is named by how many places before it that is, or by 0 and its name.
fn pack(change: &[u8], before: &[Option<Hash>]) -> Vec<u8> {
    let shortened = shorten(change, before);
    // To the byte, however its author's Automerge wrote it.
    match shortened.filter(|packed| unpack(packed, before).is_ok_and(|unpacked| unpacked == change)) {
        Some(packed) => packed,
        None => [&[AS_IT_WAS], change].concat(),
    }
}

fn shorten(change: &[u8], before: &[Option<Hash>]) -> Option<Vec<u8>> {
    let content = content(change, CHANGE)?;
    let (deps, mut rest) = read_leb(content)?;
    let mut packed = vec![SHORTENED];
    write_leb(&mut packed, deps);
    for _ in 0..deps {
        let (dep, left) = rest.split_first_chunk::<HASH_BYTES>()?;
        match before.iter().rev().position(|hash| hash.as_ref() == Some(dep)) {
            Some(places) => write_leb(&mut packed, places as u64 + 1),
            None => {
                write_leb(&mut packed, 0);
                packed.extend_from_slice(dep);
            }
        }
        rest = left;
    }
    packed.extend_from_slice(rest);
    Some(packed)
}

fn unpack(packed: &[u8], before: &[Option<Hash>]) -> Result<Vec<u8>, Malformed> {
    match packed.split_first() {
        Some((&AS_IT_WAS, change)) => Ok(change.to_vec()),
        Some((&SHORTENED, packed)) => {
            lengthen(packed, before).ok_or_else(|| form("a change in a fold that is none"))
        }
        _ => Err(form("a change in a fold of no known form")),
    }
}

fn lengthen(packed: &[u8], before: &[Option<Hash>]) -> Option<Vec<u8>> {
    let (deps, mut rest) = read_leb(packed)?;
    let mut content = Vec::with_capacity(packed.len() + HASH_BYTES);
    write_leb(&mut content, deps);
    for _ in 0..deps {
        let (places, left) = read_leb(rest)?;
        rest = left;
        if places == 0 {
            let (dep, left) = rest.split_first_chunk::<HASH_BYTES>()?;
            content.extend_from_slice(dep);
            rest = left;
        } else {
            let at = before.len().checked_sub(usize::try_from(places).ok()?)?;
            content.extend_from_slice(before[at].as_ref()?);
        }
        if content.len() > MAX_UNPACKED_BYTES {
            return None;
        }
    }
    content.extend_from_slice(rest);
    let chunk = chunk(&content);
    let checksum = *Sha256::digest(&chunk).first_chunk::<4>()?;
    Some([&MAGIC[..], &checksum, &chunk].concat())
}

/// A change's own bytes, before its head.
fn chunk(content: &[u8]) -> Vec<u8> {
    let mut chunk = vec![CHANGE];
    write_leb(&mut chunk, content.len() as u64);
    chunk.extend_from_slice(content);
    chunk
}

/// What is in a chunk of this type; `None` where it is another.
fn content(change: &[u8], kind: u8) -> Option<&[u8]> {
    let chunk = change.get(HEAD_BYTES..).filter(|_| change.starts_with(&MAGIC))?;
    let (first, rest) = chunk.split_first()?;
    let (len, content) = read_leb(rest)?;
    (*first == kind && len == content.len() as u64).then_some(content)
}

/// The name by which changes that follow on this one name it.
fn change_hash(change: &[u8]) -> Option<Hash> {
    let hash = |content: &[u8]| Sha256::digest(chunk(content)).into();
    if let Some(content) = content(change, CHANGE) {
        return Some(hash(content));
    }
    let mut inflated = Vec::new();
    let compressed = content(change, COMPRESSED_CHANGE)?;
    DeflateDecoder::new(compressed).take(MAX_INFLATED_BYTES + 1).read_to_end(&mut inflated).ok()?;
    (inflated.len() as u64 <= MAX_INFLATED_BYTES).then(|| hash(&inflated))
}

fn read_leb(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

fn write_leb(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
