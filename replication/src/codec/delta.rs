//! The compact encoding of a [`Delta`]: about 7 bytes an event beside key and value.
//!
//! Namespaces and foreign replicas stand in tables at the head, positions are differences to the row
//! before, and the counts of events and bytes are written only where they are not what the row itself says. What
//! nearly every delta has in common is not said at all: that its sender wrote it ([`ReplicaId::SENDER`]), that it
//! ends with its last row, and that it is of group 0. Whether a state has a base stands beside its namespace's index:
//! the flags have no bit left.

use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder, read::Reader};
use bincode::enc::{Encode, Encoder, write::Writer};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;

use super::row::{CHUNKED, EXPIRES, METADATA, TOMBSTONE, flags};
use super::{parts, read_number, write_number};
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::entry::{
    Body, Entry, EntryId, Kind, MAX_ELEMENT_BYTES, MAX_INLINE_BYTES, MAX_KEY_BYTES, MAX_METADATA_BYTES,
    NamespaceId, Payload, Value,
};
use crate::vector::{MAX_ORIGINS, Position};

/// The dot is not the event of this row: a later event has overwritten it.
const OTHER_DOT: u8 = 16;
/// Only the log row: the entry's state went out with an earlier row.
const LOG_ONLY: u8 = 32;
/// The counts are not those of one more event that wrote this row.
const COUNTS: u8 = 64;
/// The entry is no value: its kind follows, and for sets and maps the element.
const KIND: u8 = 128;

/// At the head: the origin is named, for it is not the sender.
const ORIGIN: u8 = 1;
/// At the head: the interval ends elsewhere than with its last row.
const UPTO: u8 = 2;
/// At the head: a placement group other than 0.
const GROUP: u8 = 4;
/// At the head: there is something to say of batches.
const BATCHES: u8 = 8;

/// The interval `(after, upto]` of one origin's events, as the latest state of each entry they touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Whose events; [`ReplicaId::SENDER`] while it travels, where they are the sender's own.
    pub origin: ReplicaId,
    /// The placement group the entries belong to; 0, until there is more than one.
    pub group: u32,
    /// The receiver must hold the origin's events up to here for the interval to join.
    pub after: Position,
    /// With this applied, the receiver holds the origin's events up to here.
    pub upto: Position,
    /// By rising position.
    pub rows: Vec<DeltaRow>,
    /// What its receiver must know of batches.
    pub batches: Batches,
}

/// Which events are of one batch, and which origins have written batches that the receiver may lack
/// ([`crate::replica::batch`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// The rows, by rising number, that go on with the next one.
    pub going_on: Vec<u32>,
    /// The last event of the last batch of such an origin, as far as the sender knows.
    pub ends: Vec<(ReplicaId, Hlc)>,
}

impl Batches {
    fn is_empty(&self) -> bool {
        self.going_on.is_empty() && self.ends.is_empty()
    }

    /// Whether the batch of this row goes on with the next.
    pub fn goes_on(&self, row: usize) -> bool {
        u32::try_from(row).is_ok_and(|row| self.going_on.binary_search(&row).is_ok())
    }
}

/// One event of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaRow {
    /// The event.
    pub position: Position,
    /// The entry it wrote.
    pub id: EntryId,
    /// The entry's latest state, which the event's effect is part of; `None` when an earlier row of the
    /// same stream has carried it already.
    pub entry: Option<Entry>,
}

impl Delta {
    /// As its sender says it: of itself without its name.
    pub fn said_by(self, sender: ReplicaId) -> Self {
        self.renamed(sender, ReplicaId::SENDER)
    }

    /// As its receiver hears it.
    pub fn heard_from(self, sender: ReplicaId) -> Self {
        self.renamed(ReplicaId::SENDER, sender)
    }

    fn renamed(mut self, from: ReplicaId, to: ReplicaId) -> Self {
        for (replica, _) in self.batches.ends.iter_mut().filter(|(replica, _)| *replica == from) {
            *replica = to;
        }
        // Of another's events the receiver needs the names, also where one was overwritten by the sender.
        if self.origin == from {
            self.origin = to;
            let entries = self.rows.iter_mut().filter_map(|row| row.entry.as_mut());
            entries.filter(|entry| entry.dot.replica == from).for_each(|entry| entry.renamed(from, to));
        }
        self
    }

    fn end_of_rows(&self) -> Position {
        self.rows.last().map_or(self.after, |row| row.position)
    }
}

impl DeltaRow {
    fn written_bytes(&self) -> u64 {
        self.id.user_bytes() as u64 + self.entry.as_ref().map_or(0, Entry::user_bytes)
    }

    /// About how many bytes this row takes in a frame.
    pub fn frame_bytes(&self) -> usize {
        let body = self.entry.as_ref().map_or(0, |entry| entry.body.frame_bytes());
        32 + self.id.user_bytes() + body
    }
}

/// The tables at the head of a delta, in order of first use. The origin comes first among the replicas, unsaid.
struct Tables {
    namespaces: Vec<NamespaceId>,
    replicas: Vec<ReplicaId>,
}

impl Tables {
    fn of(delta: &Delta) -> Self {
        let mut tables = Self { namespaces: Vec::new(), replicas: vec![delta.origin] };
        for row in &delta.rows {
            if tables.namespaces.last() != Some(&row.id.namespace)
                && !tables.namespaces.contains(&row.id.namespace)
            {
                tables.namespaces.push(row.id.namespace);
            }
            if let Some(Entry { dot, .. }) = row.entry
                && !tables.replicas.contains(&dot.replica)
            {
                tables.replicas.push(dot.replica);
            }
        }
        tables
    }
}

fn index_of<T: PartialEq>(table: &[T], item: &T) -> u32 {
    table.iter().position(|known| known == item).expect("the table was made from these rows") as u32
}

fn entry_of<T: Copy>(table: &[T], index: u32) -> Result<T, DecodeError> {
    table.get(index as usize).copied().ok_or(DecodeError::Other("an index outside its table"))
}

impl Encode for Delta {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let said = |bit, is_said| if is_said { bit } else { 0 };
        let bits = said(ORIGIN, self.origin != ReplicaId::SENDER)
            | said(UPTO, self.upto != self.end_of_rows())
            | said(GROUP, self.group != 0)
            | said(BATCHES, !self.batches.is_empty());
        encoder.writer().write(&[bits])?;
        if bits & ORIGIN != 0 {
            self.origin.encode(encoder)?;
        }
        if bits & GROUP != 0 {
            self.group.encode(encoder)?;
        }
        self.after.encode(encoder)?;
        if bits & UPTO != 0 {
            self.upto.encode(encoder)?;
        }
        let tables = Tables::of(self);
        tables.namespaces.iter().map(|id| id.0).collect::<Vec<_>>().encode(encoder)?;
        tables.replicas[1..].to_vec().encode(encoder)?;
        (self.rows.len() as u32).encode(encoder)?;
        let mut before = self.after;
        for row in &self.rows {
            encode_row(self.origin, before, row, &tables, encoder)?;
            before = row.position;
        }
        if bits & BATCHES != 0 {
            (&self.batches.going_on, &self.batches.ends).encode(encoder)?;
        }
        Ok(())
    }
}

fn encode_row<E: Encoder>(
    origin: ReplicaId,
    before: Position,
    row: &DeltaRow,
    tables: &Tables,
    encoder: &mut E,
) -> Result<(), EncodeError> {
    let own_dot = Dot { hlc: row.position.hlc, replica: origin };
    let expected = before.after(row.position.hlc, row.written_bytes());
    let mut bits = row
        .entry
        .as_ref()
        .map_or(LOG_ONLY, |entry| flags(&entry.body) | if entry.dot == own_dot { 0 } else { OTHER_DOT });
    if expected != row.position {
        bits |= COUNTS;
    }
    if row.id.kind != Kind::Value {
        bits |= KIND;
    }
    encoder.writer().write(&[bits])?;
    let has_base = row.entry.as_ref().is_some_and(|entry| entry.base != Hlc::ZERO);
    (index_of(&tables.namespaces, &row.id.namespace) << 1 | u32::from(has_base)).encode(encoder)?;
    (row.position.hlc.wall_ms() - before.hlc.wall_ms(), row.position.hlc.counter()).encode(encoder)?;
    if bits & COUNTS != 0 {
        // Differences wrap: a forged or odd count must not stop an honest delta.
        let ops = row.position.ops.wrapping_sub(before.ops);
        (ops, row.position.bytes.wrapping_sub(before.bytes)).encode(encoder)?;
    }
    if bits & KIND != 0 {
        encode_kind(&row.id, encoder)?;
    }
    row.id.key.as_ref().encode(encoder)?;
    let Some(entry) = &row.entry else { return Ok(()) };
    if bits & OTHER_DOT != 0 {
        (index_of(&tables.replicas, &entry.dot.replica), entry.dot.hlc).encode(encoder)?;
    }
    encode_base(entry.dot.hlc, entry.base, encoder)?;
    encode_body(entry, encoder)
}

impl<'de, C> BorrowDecode<'de, C> for Delta {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bits = decode_byte(decoder)?;
        if bits & !(ORIGIN | UPTO | GROUP | BATCHES) != 0 {
            return Err(DecodeError::Other("a delta of a form this build does not know"));
        }
        let origin = if bits & ORIGIN != 0 { ReplicaId::decode(decoder)? } else { ReplicaId::SENDER };
        let group = if bits & GROUP != 0 { u32::decode(decoder)? } else { 0 };
        let after = Position::decode(decoder)?;
        let upto = if bits & UPTO != 0 { Some(Position::decode(decoder)?) } else { None };
        let namespaces: Vec<[u8; 16]> = Decode::decode(decoder)?;
        let foreign: Vec<ReplicaId> = Decode::decode(decoder)?;
        let tables = Tables {
            namespaces: namespaces.into_iter().map(NamespaceId).collect(),
            replicas: [origin].into_iter().chain(foreign).collect(),
        };
        let count = u32::decode(decoder)?;
        let mut rows = Vec::new();
        let mut before = after;
        for _ in 0..count {
            let row = decode_row(origin, before, &tables, decoder)?;
            // Strictly rising and inside the interval, or nothing that follows can be trusted.
            if row.position.hlc <= before.hlc || upto.is_some_and(|upto| row.position.hlc > upto.hlc) {
                return Err(DecodeError::Other("rows out of order"));
            }
            before = row.position;
            rows.push(row);
        }
        let batches =
            if bits & BATCHES != 0 { decode_batches(rows.len(), decoder)? } else { Batches::default() };
        Ok(Self { origin, group, after, upto: upto.unwrap_or(before), rows, batches })
    }
}

fn decode_batches<D: Decoder>(rows: usize, decoder: &mut D) -> Result<Batches, DecodeError> {
    let batches = Batches { going_on: Decode::decode(decoder)?, ends: Decode::decode(decoder)? };
    let are_rows = batches.going_on.last().is_none_or(|last| (*last as usize) < rows);
    let is_rising = batches.going_on.windows(2).all(|pair| pair[0] < pair[1]);
    if batches.is_empty() || !are_rows || !is_rising || batches.ends.len() > MAX_ORIGINS {
        return Err(DecodeError::Other("batches of events that are not there"));
    }
    Ok(batches)
}

fn decode_row<'de, D: BorrowDecoder<'de>>(
    origin: ReplicaId,
    before: Position,
    tables: &Tables,
    decoder: &mut D,
) -> Result<DeltaRow, DecodeError> {
    let bits = decode_byte(decoder)?;
    let index: u32 = Decode::decode(decoder)?;
    let has_base = index & 1 != 0;
    if has_base && bits & (LOG_ONLY | KIND) != 0 {
        return Err(DecodeError::Other("a base of what is no value"));
    }
    let namespace = entry_of(&tables.namespaces, index >> 1)?;
    let (wall_ms, counter): (u64, u16) = Decode::decode(decoder)?;
    let hlc = Hlc::new(before.hlc.wall_ms().saturating_add(wall_ms), counter);
    let counts: Option<(u64, u64)> = if bits & COUNTS != 0 { Some(Decode::decode(decoder)?) } else { None };
    let (kind, element) = if bits & KIND != 0 { decode_kind(decoder)? } else { (Kind::Value, Bytes::new()) };
    let id = EntryId { namespace, kind, key: decode_key(decoder)?, element };
    let entry = if bits & LOG_ONLY != 0 {
        None
    } else {
        let dot = if bits & OTHER_DOT != 0 {
            let (replica, hlc) = Decode::decode(decoder)?;
            Dot { hlc, replica: entry_of(&tables.replicas, replica)? }
        } else {
            Dot { hlc, replica: origin }
        };
        let base = if has_base { decode_base(dot.hlc, decoder)? } else { Hlc::ZERO };
        Some(Entry { dot, body: decode_body(&id, bits & 0x0f, dot, decoder)?, base })
    };
    let mut row = DeltaRow { position: Position { hlc, ops: 0, bytes: 0 }, id, entry };
    row.position = match counts {
        Some((ops, bytes)) => {
            Position { hlc, ops: before.ops.wrapping_add(ops), bytes: before.bytes.wrapping_add(bytes) }
        }
        None => Position {
            hlc,
            ops: before.ops.wrapping_add(1),
            bytes: before.bytes.wrapping_add(row.written_bytes()),
        },
    };
    Ok(row)
}

fn decode_byte<D: Decoder>(decoder: &mut D) -> Result<u8, DecodeError> {
    decoder.claim_bytes_read(1)?;
    let mut byte = [0];
    decoder.reader().read(&mut byte)?;
    Ok(byte[0])
}

/// A key within its bounds; anything else is a peer's fault.
pub(super) fn decode_key<'de, D: BorrowDecoder<'de>>(decoder: &mut D) -> Result<Bytes, DecodeError> {
    let key: &[u8] = BorrowDecode::borrow_decode(decoder)?;
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(DecodeError::Other("a key of a length no key has"));
    }
    Ok(Bytes::copy_from_slice(key))
}

/// The kind of an entry, and its element.
fn encode_kind<E: Encoder>(id: &EntryId, encoder: &mut E) -> Result<(), EncodeError> {
    (id.kind as u8).encode(encoder)?;
    if id.kind.has_elements() { id.element.as_ref().encode(encoder) } else { Ok(()) }
}

fn decode_kind<'de, D: BorrowDecoder<'de>>(decoder: &mut D) -> Result<(Kind, Bytes), DecodeError> {
    let kind = Kind::of(decode_byte(decoder)?);
    let kind = kind.ok_or(DecodeError::Other("a kind that this build does not know"))?;
    let element = if kind.has_elements() { copied(decoder, MAX_ELEMENT_BYTES)? } else { Bytes::new() };
    Ok((kind, element))
}

/// Writes the name of an entry, where nothing else says of which kind it is.
pub(super) fn encode_id<E: Encoder>(id: &EntryId, encoder: &mut E) -> Result<(), EncodeError> {
    id.namespace.0.encode(encoder)?;
    encode_kind(id, encoder)?;
    id.key.as_ref().encode(encoder)
}

/// Reads what [`encode_id`] wrote.
pub(super) fn decode_id<'de, D: BorrowDecoder<'de>>(decoder: &mut D) -> Result<EntryId, DecodeError> {
    let namespace = NamespaceId(Decode::decode(decoder)?);
    let (kind, element) = decode_kind(decoder)?;
    Ok(EntryId { namespace, kind, key: decode_key(decoder)?, element })
}

/// Writes the base of a state, if it has one: how many milliseconds it is before the event, and its counter. So it takes 2
/// bytes within an eighth of a second, 3 within 16 s, 4 within half an hour, 5 within three days and 6 within a year.
pub(super) fn encode_base<E: Encoder>(hlc: Hlc, base: Hlc, encoder: &mut E) -> Result<(), EncodeError> {
    if base == Hlc::ZERO {
        return Ok(());
    }
    write_number(encoder, hlc.wall_ms() - base.wall_ms())?;
    write_number(encoder, base.counter().into())
}

/// Reads the base of a state by an event of this time, where there is one.
pub(super) fn decode_base<D: Decoder>(hlc: Hlc, decoder: &mut D) -> Result<Hlc, DecodeError> {
    let (before_ms, counter) = (read_number(decoder)?, read_number(decoder)?);
    let wall_ms = hlc.wall_ms().checked_sub(before_ms);
    let base = wall_ms.zip(u16::try_from(counter).ok()).map(|(wall_ms, counter)| Hlc::new(wall_ms, counter));
    base.filter(|base| Hlc::ZERO < *base && *base < hlc)
        .ok_or(DecodeError::Other("a base that is not before its event"))
}

/// The fields of a body that its flags announce.
pub(super) fn encode_body<E: Encoder>(entry: &Entry, encoder: &mut E) -> Result<(), EncodeError> {
    let Body::Value(value) = &entry.body else { return parts::encode(&entry.body, entry.dot, encoder) };
    if let Some(at) = value.expires_at_s {
        at.encode(encoder)?;
    }
    if let Some(metadata) = &value.metadata {
        metadata.as_ref().encode(encoder)?;
    }
    match &value.payload {
        Payload::Inline(bytes) => bytes.as_ref().encode(encoder),
        Payload::Chunked(manifest) => manifest.encode(encoder),
    }
}

/// Reads what [`encode_body`] wrote.
pub(super) fn decode_body<'de, D: BorrowDecoder<'de>>(
    id: &EntryId,
    bits: u8,
    dot: Dot,
    decoder: &mut D,
) -> Result<Body, DecodeError> {
    if id.kind != Kind::Value {
        return parts::decode(id, bits, dot, decoder);
    }
    if bits & TOMBSTONE != 0 {
        return Ok(Body::Tombstone);
    }
    let expires_at_s = if bits & EXPIRES != 0 { Some(u64::decode(decoder)?) } else { None };
    let expires_at_s = expires_at_s.filter(|_| !planted!(ExpiryLostOnWire));
    let metadata = if bits & METADATA != 0 { Some(copied(decoder, MAX_METADATA_BYTES)?) } else { None };
    let payload = if bits & CHUNKED != 0 {
        Payload::Chunked(BorrowDecode::borrow_decode(decoder)?)
    } else {
        Payload::Inline(copied(decoder, MAX_INLINE_BYTES)?)
    };
    Ok(Body::Value(Value { payload, metadata, expires_at_s }))
}

/// A part of an entry within its bound: an entry beyond it might not fit a frame when it is sent on.
pub(super) fn copied<'de, D: BorrowDecoder<'de>>(
    decoder: &mut D,
    max_bytes: usize,
) -> Result<Bytes, DecodeError> {
    let bytes: &[u8] = BorrowDecode::borrow_decode(decoder)?;
    if bytes.len() > max_bytes {
        return Err(DecodeError::Other("an entry larger than any may be"));
    }
    Ok(Bytes::copy_from_slice(bytes))
}
