//! The encoding of states that are made of parts, in rows and on the wire alike.
//!
//! Replicas stand in a table at the head, in order of first use; the one whose event is the state's dot comes first, unsaid,
//! as its time is. A member that one replica has put, and nothing else, is the flag [`PLAIN`] and no body at all.

use std::collections::BTreeMap;

use bincode::de::read::{Reader, SliceReader};
use bincode::de::{BorrowDecoder, Decode, Decoder, DecoderImpl};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;

use super::delta::copied;
use super::{CONFIG, Malformed};
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::entry::{Body, Entry, EntryId, Kind, MAX_INLINE_BYTES, MAX_METADATA_BYTES};
use crate::kinds::{
    Bounded, BoundedPart, Content, Counter, CounterPart, Element, ElementPart, Generation, Head, MAX_CLEARS,
    MAX_COUNT, Note, PartState, Reset, Tally,
};
use crate::vector::MAX_ORIGINS;

/// The state is one part, alive, by the event that is the state's dot.
pub(super) const PLAIN: u8 = 1;
/// Its content expires.
pub(super) const EXPIRES: u8 = 2;
/// It has content.
pub(super) const CONTENT: u8 = 4;

/// The flags of a state that is made of parts.
pub(super) fn flags(body: &Body) -> u8 {
    plain(body).map_or(0, |content| PLAIN | content_flags(content))
}

fn plain(body: &Body) -> Option<&Content> {
    let Body::Element(element) = body else { return None };
    let (_, part) = element.parts.first_key_value().filter(|_| element.parts.len() == 1)?;
    match &part.state {
        PartState::Alive(content) => Some(content),
        PartState::Spent { .. } => None,
    }
}

/// The replicas that a state names, its dot's first.
struct Table(Vec<ReplicaId>);

impl Table {
    fn of(dot: Dot, named: impl Iterator<Item = ReplicaId>) -> Self {
        let mut table = vec![dot.replica];
        for replica in named {
            if !table.contains(&replica) {
                table.push(replica);
            }
        }
        Self(table)
    }

    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0[1..].to_vec().encode(encoder)
    }

    fn decode<'de, D: BorrowDecoder<'de>>(dot: Dot, decoder: &mut D) -> Result<Self, DecodeError> {
        let others: Vec<ReplicaId> = Decode::decode(decoder)?;
        if others.len() >= MAX_ORIGINS || others.contains(&ReplicaId::SENDER) {
            return Err(DecodeError::Other(
                "a state of more replicas than there may be, or of an unnamed one",
            ));
        }
        Ok(Self([dot.replica].into_iter().chain(others).collect()))
    }

    fn index(&self, replica: ReplicaId) -> u32 {
        self.0.iter().position(|known| *known == replica).expect("the table was made from this state") as u32
    }

    fn encode_dot<E: Encoder>(&self, dot: Dot, encoder: &mut E) -> Result<(), EncodeError> {
        (self.index(dot.replica), dot.hlc).encode(encoder)
    }

    fn decode_dot<'de, D: BorrowDecoder<'de>>(&self, decoder: &mut D) -> Result<Dot, DecodeError> {
        let (index, hlc): (u32, Hlc) = Decode::decode(decoder)?;
        Ok(Dot { hlc, replica: self.replica(index)? })
    }

    fn replica(&self, index: u32) -> Result<ReplicaId, DecodeError> {
        let replica = self.0.get(index as usize).copied();
        replica.ok_or(DecodeError::Other("a replica outside its table"))
    }

    fn encode_times<E: Encoder>(
        &self,
        times: &BTreeMap<ReplicaId, Hlc>,
        encoder: &mut E,
    ) -> Result<(), EncodeError> {
        (times.len() as u32).encode(encoder)?;
        times.iter().try_for_each(|(replica, hlc)| (self.index(*replica), *hlc).encode(encoder))
    }

    fn decode_times<'de, D: BorrowDecoder<'de>>(
        &self,
        decoder: &mut D,
    ) -> Result<BTreeMap<ReplicaId, Hlc>, DecodeError> {
        let count = u32::decode(decoder)?;
        let mut times = BTreeMap::new();
        for _ in 0..count {
            let dot = self.decode_dot(decoder)?;
            times.insert(dot.replica, dot.hlc);
        }
        Ok(times)
    }
}

/// Writes a state whose flags are written.
pub(super) fn encode<E: Encoder>(body: &Body, dot: Dot, encoder: &mut E) -> Result<(), EncodeError> {
    if let Some(content) = plain(body) {
        return encode_content(content, encoder);
    }
    match body {
        Body::Value(_) | Body::Tombstone => Ok(()),
        Body::Counter(counter) => encode_counter(counter, dot, encoder),
        Body::Bounded(bounded) => encode_bounded(bounded, dot, encoder),
        Body::Element(element) => encode_element(element, dot, encoder),
        Body::Head(head) => encode_head(head, dot, encoder),
    }
}

/// Reads the state of this entry, which [`encode`] wrote.
pub(super) fn decode<'de, D: BorrowDecoder<'de>>(
    id: &EntryId,
    flags: u8,
    dot: Dot,
    decoder: &mut D,
) -> Result<Body, DecodeError> {
    let body = match id.kind {
        Kind::Value => return Err(DecodeError::Other("a value has no parts")),
        Kind::Counter => decode_counter(dot, decoder).map(Body::Counter)?,
        Kind::Bounded => decode_bounded(dot, decoder).map(Body::Bounded)?,
        Kind::Set | Kind::Map | Kind::Doc if id.element.is_empty() => {
            decode_head(dot, decoder).map(Body::Head)?
        }
        Kind::Set | Kind::Map | Kind::Doc if flags & PLAIN != 0 => {
            let state = PartState::Alive(decode_content(flags, decoder)?);
            let parts = BTreeMap::from([(dot.replica, ElementPart { hlc: dot.hlc, state })]);
            return Ok(Body::Element(Element { parts }));
        }
        Kind::Set | Kind::Map | Kind::Doc => decode_element(dot, decoder).map(Body::Element)?,
    };
    // Who comes first of two at one time cannot be told, while one of them goes by another name.
    let entry = Entry::first(dot, body);
    let is_its = flags == 0 && entry.dots().contains(&dot) && entry.all_dots(|other| other.hlc <= dot.hlc);
    if is_its { Ok(entry.body) } else { Err(DecodeError::Other("a state whose parts are not by its dot")) }
}

fn content_flags(content: &Content) -> u8 {
    let expires = if content.expires_at_s.is_some() { EXPIRES } else { 0 };
    expires | if content.bytes.is_empty() { 0 } else { CONTENT }
}

fn encode_content<E: Encoder>(content: &Content, encoder: &mut E) -> Result<(), EncodeError> {
    if let Some(at) = content.expires_at_s {
        at.encode(encoder)?;
    }
    if content.bytes.is_empty() { Ok(()) } else { content.bytes.as_ref().encode(encoder) }
}

fn decode_content<'de, D: BorrowDecoder<'de>>(flags: u8, decoder: &mut D) -> Result<Content, DecodeError> {
    let expires_at_s = if flags & EXPIRES != 0 { Some(u64::decode(decoder)?) } else { None };
    let bytes = if flags & CONTENT != 0 { copied(decoder, MAX_INLINE_BYTES)? } else { Bytes::new() };
    if flags & CONTENT != 0 && bytes.is_empty() {
        return Err(DecodeError::Other("content that is none"));
    }
    Ok(Content { bytes, expires_at_s })
}

/// The part was spent, by the event that follows.
const SPENT: u8 = 1;
/// The part was spent by its own event: it is a removal.
const REMOVAL: u8 = 8;

fn encode_element<E: Encoder>(element: &Element, dot: Dot, encoder: &mut E) -> Result<(), EncodeError> {
    let spenders = element.parts.values().filter_map(|part| match part.state {
        PartState::Spent { by } => Some(by.replica),
        PartState::Alive(_) => None,
    });
    let table = Table::of(dot, element.parts.keys().copied().chain(spenders));
    table.encode(encoder)?;
    (element.parts.len() as u32).encode(encoder)?;
    for (replica, part) in &element.parts {
        let own = Dot { hlc: part.hlc, replica: *replica };
        table.encode_dot(own, encoder)?;
        match &part.state {
            PartState::Spent { by } if *by == own => REMOVAL.encode(encoder)?,
            PartState::Spent { by } => {
                SPENT.encode(encoder)?;
                table.encode_dot(*by, encoder)?;
            }
            PartState::Alive(content) => {
                content_flags(content).encode(encoder)?;
                encode_content(content, encoder)?;
            }
        }
    }
    Ok(())
}

fn decode_element<'de, D: BorrowDecoder<'de>>(dot: Dot, decoder: &mut D) -> Result<Element, DecodeError> {
    let table = Table::decode(dot, decoder)?;
    let count = u32::decode(decoder)?;
    let mut parts = BTreeMap::new();
    for _ in 0..count {
        let own = table.decode_dot(decoder)?;
        let flags = u8::decode(decoder)?;
        let state = match flags {
            REMOVAL => PartState::Spent { by: own },
            SPENT => PartState::Spent { by: table.decode_dot(decoder)? },
            _ if flags & !(EXPIRES | CONTENT) == 0 => PartState::Alive(decode_content(flags, decoder)?),
            _ => return Err(DecodeError::Other("a part of a form this build does not know")),
        };
        parts.insert(own.replica, ElementPart { hlc: own.hlc, state });
    }
    Ok(Element { parts })
}

fn encode_counter<E: Encoder>(counter: &Counter, dot: Dot, encoder: &mut E) -> Result<(), EncodeError> {
    let by = counter.parts.values().filter_map(|part| Some(part.reset?.by.replica));
    let by = by.chain(counter.note.as_ref().map(|note| note.dot.replica));
    let table = Table::of(dot, counter.parts.keys().map(|birth| birth.replica).chain(by));
    table.encode(encoder)?;
    (counter.parts.len() as u32).encode(encoder)?;
    for (birth, part) in &counter.parts {
        table.encode_dot(*birth, encoder)?;
        (part.hlc, part.up, part.down, part.expires_at_s, part.reset.is_some()).encode(encoder)?;
        if let Some(reset) = part.reset {
            (reset.hlc, reset.up, reset.down).encode(encoder)?;
            table.encode_dot(reset.by, encoder)?;
        }
    }
    encode_note(counter.note.as_ref(), &table, encoder)
}

fn decode_counter<'de, D: BorrowDecoder<'de>>(dot: Dot, decoder: &mut D) -> Result<Counter, DecodeError> {
    let table = Table::decode(dot, decoder)?;
    let count = u32::decode(decoder)?;
    let mut parts = BTreeMap::new();
    for _ in 0..count {
        let birth = table.decode_dot(decoder)?;
        let (hlc, up, down, expires_at_s, is_reset) = Decode::decode(decoder)?;
        let reset = if is_reset {
            let (hlc, up, down) = Decode::decode(decoder)?;
            Some(Reset { hlc, up, down, by: table.decode_dot(decoder)? })
        } else {
            None
        };
        parts.insert(birth, CounterPart { hlc, up, down, expires_at_s, reset });
    }
    let form = u8::decode(decoder)?;
    Ok(Counter { parts, note: decode_note(form, &table, decoder)? })
}

fn encode_bounded<E: Encoder>(bounded: &Bounded, dot: Dot, encoder: &mut E) -> Result<(), EncodeError> {
    let parts = || bounded.generations.values().flat_map(|generation| &generation.parts);
    let tallies = parts().flat_map(|(_, part)| part.anew.values().chain([&part.tally]));
    let named = parts().flat_map(|(replica, part)| part.anew.keys().chain([replica]));
    let named = named.chain(tallies.flat_map(|tally| tally.given.keys())).copied();
    let ended = bounded.generations.values().filter_map(|generation| generation.ended);
    let dots =
        bounded.generations.keys().copied().chain(ended).chain(bounded.note.as_ref().map(|note| note.dot));
    let table = Table::of(dot, named.chain(dots.map(|dot| dot.replica)));
    table.encode(encoder)?;
    (bounded.generations.len() as u32).encode(encoder)?;
    for (birth, generation) in &bounded.generations {
        table.encode_dot(*birth, encoder)?;
        generation.ended.is_some().encode(encoder)?;
        if let Some(by) = generation.ended {
            table.encode_dot(by, encoder)?;
        }
        (generation.parts.len() as u32).encode(encoder)?;
        for (replica, part) in &generation.parts {
            encode_tally(*replica, &part.tally, &table, encoder)?;
            (part.anew.len() as u32).encode(encoder)?;
            for (other, tally) in &part.anew {
                encode_tally(*other, tally, &table, encoder)?;
            }
        }
    }
    encode_note(bounded.note.as_ref(), &table, encoder)
}

fn decode_bounded<'de, D: BorrowDecoder<'de>>(dot: Dot, decoder: &mut D) -> Result<Bounded, DecodeError> {
    let table = Table::decode(dot, decoder)?;
    let mut generations = BTreeMap::new();
    for _ in 0..u32::decode(decoder)? {
        let birth = table.decode_dot(decoder)?;
        let ended = if bool::decode(decoder)? { Some(table.decode_dot(decoder)?) } else { None };
        let mut parts = BTreeMap::new();
        for _ in 0..u32::decode(decoder)? {
            let (replica, tally) = decode_tally(&table, decoder)?;
            let mut anew = BTreeMap::new();
            for _ in 0..u32::decode(decoder)? {
                let (other, tally) = decode_tally(&table, decoder)?;
                anew.insert(other, tally);
            }
            parts.insert(replica, BoundedPart { tally, anew });
        }
        generations.insert(birth, Generation { parts, ended });
    }
    let form = u8::decode(decoder)?;
    Ok(Bounded { generations, note: decode_note(form, &table, decoder)? })
}

fn encode_tally<E: Encoder>(
    replica: ReplicaId,
    tally: &Tally,
    table: &Table,
    encoder: &mut E,
) -> Result<(), EncodeError> {
    table.encode_dot(Dot { hlc: tally.hlc, replica }, encoder)?;
    (tally.up, tally.down, tally.given.len() as u32).encode(encoder)?;
    tally.given.iter().try_for_each(|(to, given)| (table.index(*to), *given).encode(encoder))
}

fn decode_tally<'de, D: BorrowDecoder<'de>>(
    table: &Table,
    decoder: &mut D,
) -> Result<(ReplicaId, Tally), DecodeError> {
    let Dot { hlc, replica } = table.decode_dot(decoder)?;
    let (up, down, count): (u64, u64, u32) = Decode::decode(decoder)?;
    let mut given = BTreeMap::new();
    for _ in 0..count {
        let (to, amount): (u32, u64) = Decode::decode(decoder)?;
        given.insert(table.replica(to)?, amount);
    }
    if given.values().copied().chain([up, down]).any(|sum| sum > MAX_COUNT) {
        return Err(DecodeError::Other("a sum beyond what is counted"));
    }
    Ok((replica, Tally { hlc, up, down, given }))
}

fn encode_head<E: Encoder>(head: &Head, dot: Dot, encoder: &mut E) -> Result<(), EncodeError> {
    let said = head.note.as_ref().map(|note| note.dot).into_iter().chain(head.expiries.keys().copied());
    let by = head.clears.keys().copied().chain(said).map(|dot| dot.replica);
    let cleared = head.clears.values().flat_map(BTreeMap::keys);
    let table = Table::of(dot, head.events.keys().chain(cleared).copied().chain(by));
    table.encode(encoder)?;
    table.encode_times(&head.events, encoder)?;
    (head.clears.len() as u32).encode(encoder)?;
    for (by, cleared) in &head.clears {
        table.encode_dot(*by, encoder)?;
        table.encode_times(cleared, encoder)?;
    }
    // Expiries are told of where there are any, before the note.
    if !head.expiries.is_empty() {
        (EXPIRIES_FOLLOW, head.expiries.len() as u32).encode(encoder)?;
        for (by, at_s) in &head.expiries {
            table.encode_dot(*by, encoder)?;
            at_s.encode(encoder)?;
        }
    }
    encode_note(head.note.as_ref(), &table, encoder)
}

/// Where the form of a note may stand: expiries come before it.
const EXPIRIES_FOLLOW: u8 = 4;

fn decode_head<'de, D: BorrowDecoder<'de>>(dot: Dot, decoder: &mut D) -> Result<Head, DecodeError> {
    let table = Table::decode(dot, decoder)?;
    let events = table.decode_times(decoder)?;
    let count = u32::decode(decoder)?;
    if count as usize > MAX_CLEARS {
        return Err(DecodeError::Other("a head that tells of more emptyings than any does"));
    }
    let mut clears = BTreeMap::new();
    for _ in 0..count {
        let by = table.decode_dot(decoder)?;
        clears.insert(by, table.decode_times(decoder)?);
    }
    let mut form = u8::decode(decoder)?;
    let mut expiries = BTreeMap::new();
    if form == EXPIRIES_FOLLOW {
        for _ in 0..u32::decode(decoder)? {
            let by = table.decode_dot(decoder)?;
            expiries.insert(by, Decode::decode(decoder)?);
        }
        form = u8::decode(decoder)?;
    }
    Ok(Head { events, clears, note: decode_note(form, &table, decoder)?, expiries })
}

/// 0 for no note, 1 for one that takes the metadata away, 2 for metadata.
fn encode_note<E: Encoder>(note: Option<&Note>, table: &Table, encoder: &mut E) -> Result<(), EncodeError> {
    let Some(note) = note else { return 0_u8.encode(encoder) };
    (if note.bytes.is_some() { 2_u8 } else { 1 }).encode(encoder)?;
    table.encode_dot(note.dot, encoder)?;
    note.bytes.as_ref().map_or(Ok(()), |bytes| bytes.as_ref().encode(encoder))
}

fn decode_note<'de, D: BorrowDecoder<'de>>(
    form: u8,
    table: &Table,
    decoder: &mut D,
) -> Result<Option<Note>, DecodeError> {
    match form {
        0 => return Ok(None),
        1 | 2 => {}
        _ => return Err(DecodeError::Other("metadata of a form this build does not know")),
    }
    let dot = table.decode_dot(decoder)?;
    let bytes = if form == 2 { Some(copied(decoder, MAX_METADATA_BYTES)?) } else { None };
    Ok(Some(Note { dot, bytes }))
}

/// What the digest of a state made of parts is taken of, beside its dot: bytes that are equal exactly where the states are.
/// It does not say by which event a part was spent:
/// who was told of it by one who has dropped that part already may know of a later one only, until it drops it too.
pub(crate) fn canonical(body: &Body, dot: Dot) -> Vec<u8> {
    let mut body = body.clone();
    match &mut body {
        Body::Element(element) => {
            for (replica, part) in &mut element.parts {
                if let PartState::Spent { by } = &mut part.state {
                    *by = Dot { hlc: part.hlc, replica: *replica };
                }
            }
        }
        Body::Counter(counter) => {
            for (birth, part) in &mut counter.parts {
                part.reset = part.reset.map(|reset| Reset { by: *birth, ..reset });
            }
        }
        Body::Bounded(bounded) => {
            for (birth, generation) in &mut bounded.generations {
                generation.ended = generation.ended.map(|_| *birth);
            }
        }
        Body::Value(_) | Body::Tombstone | Body::Head(_) => {}
    }
    let mut bytes = vec![flags(&body)];
    encode_into_row(&body, dot, &mut bytes);
    bytes
}

/// Writes a state into a row, after the row's head.
pub(super) fn encode_into_row(body: &Body, dot: Dot, row: &mut Vec<u8>) {
    struct InRow<'a>(&'a Body, Dot);
    impl Encode for InRow<'_> {
        fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
            encode(self.0, self.1, encoder)
        }
    }
    super::encode_into(&InRow(body, dot), row);
}

/// Reads a state out of a row, from after the row's head to its end. A row names its dot's replica by number; here it
/// goes by [`ReplicaId::SENDER`], until who knows the numbers renames it.
pub(super) fn decode_from_row(id: &EntryId, flags: u8, hlc: Hlc, bytes: &[u8]) -> Result<Body, Malformed> {
    let mut decoder = DecoderImpl::new(SliceReader::new(bytes), CONFIG, ());
    let body = decode(id, flags, Dot { hlc, replica: ReplicaId::SENDER }, &mut decoder)?;
    match decoder.reader().peek_read(1) {
        None => Ok(body),
        Some(_) => Err(Malformed::Form("bytes left over".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{EntryRow, decode_entry, encode_entry};
    use super::*;
    use crate::codec::delta::{Batches, Delta, DeltaRow};
    use crate::codec::message::Message;
    use crate::entry::NamespaceId;
    use crate::keys;
    use crate::kinds::Change;
    use crate::vector::{Position, VersionVector};

    const ONE: ReplicaId = ReplicaId([1; 16]);
    const TWO: ReplicaId = ReplicaId([2; 16]);

    /// The state after these changes, each by its replica, a millisecond apart.
    fn state(id: &EntryId, changes: Vec<(ReplicaId, Change)>) -> Entry {
        let mut held = VersionVector::default();
        let mut current = None;
        for (number, (replica, change)) in (0..).zip(changes) {
            let dot = Dot { hlc: Hlc::new(1_800_000_000_000 + number, 0), replica };
            let body = Entry::changed(id, current.as_ref(), change, dot, &held).unwrap();
            held.advance(replica, Position { hlc: dot.hlc, ops: number, bytes: 0 });
            current = Entry::of_parts(body);
        }
        current.unwrap()
    }

    /// The lengths of its row, beside its key, and of a delta of it alone.
    fn check(id: &EntryId, entry: Entry) -> (usize, usize) {
        let row_key = keys::entry(id);
        let row = Bytes::from(encode_entry(&row_key, &EntryRow::of(3, entry.clone())));
        assert_eq!(decode_entry(&row_key, &row).unwrap().entry(entry.dot.replica), entry);
        for len in 0..row.len() {
            assert!(decode_entry(&row_key, &row.slice(..len)).is_err());
        }
        let after = Position { hlc: Hlc::new(1_799_999_999_999, 0), ops: 7, bytes: 99 };
        let position = Position { hlc: entry.dot.hlc, ops: 8, bytes: 110 };
        let rows = vec![DeltaRow { position, id: id.clone(), entry: Some(entry.clone()) }];
        let delta = Delta {
            origin: entry.dot.replica,
            group: 0,
            after,
            upto: position,
            rows,
            batches: Batches::default(),
        };
        let frame = Message::Delta(delta.clone().said_by(entry.dot.replica)).to_frame();
        match Message::from_frame(&frame) {
            Ok(Message::Delta(back)) => assert_eq!(back.heard_from(entry.dot.replica), delta),
            other => panic!("{other:?}"),
        }
        (row.len(), frame.len())
    }

    fn put(bytes: &'static str) -> Change {
        Change::Put(Content { bytes: Bytes::from(bytes), expires_at_s: None })
    }

    #[test]
    fn states_survive_and_cost_what_is_promised() {
        let member = EntryId::element(NamespaceId([9; 16]), Kind::Set, "some set", "member-000001");
        let (row, frame) = check(&member, state(&member, vec![(ONE, put(""))]));
        assert_eq!(row, 13, "a member costs its event and a check");
        assert!(frame <= 150, "{frame} bytes for a member on the wire");
        check(&member, state(&member, vec![(ONE, put("")), (TWO, put(""))]));
        check(&member, state(&member, vec![(ONE, put("")), (TWO, Change::Remove), (ONE, put(""))]));
        let field = EntryId::element(NamespaceId([9; 16]), Kind::Map, "k\0", "f");
        let expiring = Change::Put(Content { bytes: Bytes::from("v"), expires_at_s: Some(1_900_000_000) });
        assert_eq!(check(&field, state(&field, vec![(ONE, expiring)])).0, 13 + 5 + 2);
        let counter = EntryId::whole(NamespaceId([9; 16]), Kind::Counter, "k");
        let add = |amount, expires_at_s| Change::Add { amount, expires_at_s };
        check(&counter, state(&counter, vec![(ONE, add(5, None))]));
        check(
            &counter,
            state(
                &counter,
                vec![
                    (ONE, add(5, None)),
                    (TWO, add(-3, Some(1_900_000_000))),
                    (TWO, Change::Clear),
                    (ONE, Change::Describe(Some(Bytes::from("{}")))),
                ],
            ),
        );
        let bounded = EntryId::whole(NamespaceId([9; 16]), Kind::Bounded, "k");
        let (row, _) = check(&bounded, state(&bounded, vec![(ONE, add(5, None))]));
        assert!(row <= 48, "{row} bytes for a bounded counter that one replica has added to");
        let stock = state(
            &bounded,
            vec![
                (ONE, add(5, None)),
                (ONE, Change::Give { to: TWO, amount: 3 }),
                (TWO, add(-2, None)),
                (TWO, Change::Describe(Some(Bytes::from("{}")))),
            ],
        );
        check(&bounded, stock.clone());
        // With what another had heard, as one that came back tells it.
        check(&bounded, stock.said_by(TWO).unwrap());
        check(
            &bounded,
            state(&bounded, vec![(ONE, add(5, None)), (TWO, Change::Clear), (ONE, add(1, None))]),
        );
        let head = EntryId::whole(NamespaceId([9; 16]), Kind::Set, "k");
        check(&head, state(&head, vec![(ONE, Change::Clear), (TWO, Change::Clear)]));
        check(
            &head,
            state(&head, vec![(ONE, Change::Describe(Some(Bytes::from("[]")))), (TWO, Change::Clear)]),
        );
        let expires = |at_s| state(&head, vec![(ONE, Change::Clear), (TWO, Change::Expire(at_s))]);
        for at_s in [Some(1_900_000_000), None] {
            check(&head, expires(at_s));
        }
    }

    #[test]
    fn a_state_under_the_name_of_another_kind_is_refused() {
        let member = EntryId::element(NamespaceId([9; 16]), Kind::Set, "k", "m");
        let entry = state(&member, vec![(ONE, put("")), (TWO, Change::Remove)]);
        let frame = |id: &EntryId| {
            let position = Position { hlc: entry.dot.hlc, ops: 1, bytes: 2 };
            let rows = vec![DeltaRow { position, id: id.clone(), entry: Some(entry.clone()) }];
            let after = Position::default();
            Message::Delta(Delta {
                origin: TWO,
                group: 0,
                after,
                upto: position,
                rows,
                batches: Batches::default(),
            })
            .to_frame()
        };
        assert!(Message::from_frame(&frame(&member)).is_ok());
        for kind in [Kind::Counter, Kind::Bounded, Kind::Value] {
            let id = EntryId::whole(NamespaceId([9; 16]), kind, "k");
            assert!(Message::from_frame(&frame(&id)).is_err(), "{kind:?}");
        }
    }
}
