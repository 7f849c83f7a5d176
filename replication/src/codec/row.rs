//! The rows of a store: entries, log rows, the identity and the summary.
//!
//! An entry row costs 13 bytes beside key and value: version and flags in one byte, the origin's index, the
//! event's time, and the check. Metadata and expiry are there only when set, and the value is the rest. What was written
//! over something else has its base, too, of 2 to 6 bytes ([`super::delta`]).

use bincode::de::{BorrowDecode, BorrowDecoder, Decode, read::BorrowReader};
use bincode::enc::{Encode, Encoder, write::Writer};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;

use super::delta::{decode_base, encode_base};
use super::round::RepairRow;
use super::{Malformed, decode_exact, decode_head, encode_into, parts, seal, unseal};
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::digest::Digest;
use crate::entry::{Body, ChunkId, Entry, EntryId, Manifest, Payload, Value};
use crate::keys;
use crate::vector::{Position, VersionVector};

/// The version of every row this build writes, but for those of [`BASED_ROW_VERSION`]; in the upper half of a row's first
/// byte.
pub(super) const ROW_VERSION: u8 = 1;
/// The version of the row of a value or tombstone that has a base. One without is written as it was before there were
/// any.
const BASED_ROW_VERSION: u8 = 2;

pub(super) const TOMBSTONE: u8 = 1;
pub(super) const EXPIRES: u8 = 2;
pub(super) const METADATA: u8 = 4;
pub(super) const CHUNKED: u8 = 8;

/// An entry as its row has it: the origin is an index into the store's own table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// The index of the dot's replica in this store's summary.
    pub origin_index: u16,
    /// The dot's time.
    pub hlc: Hlc,
    /// What was written. A state made of parts has [`ReplicaId::SENDER`] for the dot's replica.
    pub body: Body,
    /// The base ([`Entry::base`]).
    pub base: Hlc,
}

impl EntryRow {
    /// The row of an entry whose dot's replica has this index.
    pub fn of(origin_index: u16, mut entry: Entry) -> Self {
        entry.renamed(entry.dot.replica, ReplicaId::SENDER);
        Self { origin_index, hlc: entry.dot.hlc, body: entry.body, base: entry.base }
    }

    /// The entry, whose dot's replica is this one.
    pub fn entry(self, replica: ReplicaId) -> Entry {
        let mut entry = Entry { dot: self.dot(), body: self.body, base: self.base };
        entry.renamed(ReplicaId::SENDER, replica);
        entry
    }

    fn dot(&self) -> Dot {
        Dot { hlc: self.hlc, replica: ReplicaId::SENDER }
    }
}

/// The flags that say which fields of a body are written.
pub(super) fn flags(body: &Body) -> u8 {
    match body {
        Body::Tombstone => TOMBSTONE,
        Body::Value(value) => {
            let expires = if value.expires_at_s.is_some() { EXPIRES } else { 0 };
            let metadata = if value.metadata.is_some() { METADATA } else { 0 };
            let chunked = if matches!(value.payload, Payload::Chunked(_)) { CHUNKED } else { 0 };
            expires | metadata | chunked
        }
        Body::Counter(_) | Body::Bounded(_) | Body::Element(_) | Body::Head(_) => parts::flags(body),
    }
}

struct Head<'a> {
    flags: u8,
    origin_index: u16,
    hlc: Hlc,
    base: Hlc,
    expires_at_s: Option<u64>,
    metadata: Option<&'a [u8]>,
}

impl Encode for Head<'_> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let version = if self.base == Hlc::ZERO { ROW_VERSION } else { BASED_ROW_VERSION };
        encoder.writer().write(&[version << 4 | self.flags])?;
        self.origin_index.encode(encoder)?;
        self.hlc.encode(encoder)?;
        encode_base(self.hlc, self.base, encoder)?;
        if let Some(at) = self.expires_at_s {
            at.encode(encoder)?;
        }
        match self.metadata {
            Some(metadata) => metadata.encode(encoder),
            None => Ok(()),
        }
    }
}

impl<'de, C> BorrowDecode<'de, C> for Head<'de> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let byte = decoder.borrow_reader().take_bytes(1)?[0];
        let flags = byte & 0x0f;
        let origin_index = Decode::decode(decoder)?;
        let hlc = Decode::decode(decoder)?;
        let has_base = byte >> 4 == BASED_ROW_VERSION;
        Ok(Self {
            flags,
            origin_index,
            hlc,
            base: if has_base { decode_base(hlc, decoder)? } else { Hlc::ZERO },
            expires_at_s: if flags & EXPIRES != 0 { Some(Decode::decode(decoder)?) } else { None },
            metadata: if flags & METADATA != 0 { Some(BorrowDecode::borrow_decode(decoder)?) } else { None },
        })
    }
}

/// The bytes of an entry row.
pub fn encode_entry(row_key: &[u8], row: &EntryRow) -> Vec<u8> {
    let value = match &row.body {
        Body::Value(value) => Some(value),
        _ => None,
    };
    let head = Head {
        flags: flags(&row.body),
        origin_index: row.origin_index,
        hlc: row.hlc,
        base: row.base,
        expires_at_s: value.and_then(|value| value.expires_at_s),
        metadata: value.and_then(|value| value.metadata.as_deref()),
    };
    let mut bytes =
        Vec::with_capacity(32 + value.map_or(0, |value| value.payload.len().min(64 << 10) as usize));
    encode_into(&head, &mut bytes);
    match value.map(|value| &value.payload) {
        None => parts::encode_into_row(&row.body, row.dot(), &mut bytes),
        Some(Payload::Inline(payload)) => bytes.extend_from_slice(payload),
        Some(Payload::Chunked(manifest)) => encode_into(manifest, &mut bytes),
    }
    seal(row_key, bytes)
}

/// Reads an entry row back. Copies nothing: the value is a slice of `row`.
pub fn decode_entry(row_key: &[u8], row: &Bytes) -> Result<EntryRow, Malformed> {
    let bytes = unseal(row_key, row)?;
    let with_parts = keys::parse_entry_with_parts(row_key);
    let is_based = with_parts.is_none() && bytes.first().is_some_and(|byte| byte >> 4 == BASED_ROW_VERSION);
    let bytes = if is_based { bytes } else { versioned(bytes)? };
    if let Some(id) = with_parts {
        let flags = bytes[0] & 0x0f;
        let ((origin_index, hlc), rest) = decode_head(&bytes[1..])?;
        let body = parts::decode_from_row(&id, flags, hlc, rest)?;
        return Ok(EntryRow { origin_index, hlc, body, base: Hlc::ZERO });
    }
    let (head, rest) = decode_head::<Head<'_>>(bytes)?;
    let body = if head.flags & TOMBSTONE != 0 {
        Body::Tombstone
    } else {
        let payload = if head.flags & CHUNKED != 0 {
            Payload::Chunked(decode_exact(rest)?)
        } else {
            Payload::Inline(row.slice_ref(rest))
        };
        let metadata = head.metadata.map(|metadata| row.slice_ref(metadata));
        Body::Value(Value { payload, metadata, expires_at_s: head.expires_at_s })
    };
    Ok(EntryRow { origin_index: head.origin_index, hlc: head.hlc, body, base: head.base })
}

/// The row, if this build knows its version.
pub(super) fn versioned(row: &[u8]) -> Result<&[u8], Malformed> {
    match row.first() {
        Some(byte) if byte >> 4 == ROW_VERSION => Ok(row),
        Some(byte) => Err(Malformed::Version(byte >> 4)),
        None => Err(Malformed::Form("empty".into())),
    }
}

impl Encode for Manifest {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.len.encode(encoder)?;
        self.chunks.iter().try_for_each(|chunk| encoder.writer().write(&chunk.0))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Manifest {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = u64::decode(decoder)?;
        if len > crate::entry::MAX_VALUE_BYTES {
            return Err(DecodeError::Other("a value longer than any may be"));
        }
        let chunks = (0..Manifest::chunk_count(len))
            .map(|_| Ok(ChunkId(<[u8; 32]>::decode(decoder)?)))
            .collect::<Result<_, DecodeError>>()?;
        Ok(Self { len, chunks })
    }
}

/// A log row: the event wrote `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// The event's place in its origin's sequence.
    pub position: Position,
    /// The origin's previous event on the same entry, as far as this store knew; zero for none.
    pub previous: Hlc,
    /// The entry it wrote.
    pub id: EntryId,
    /// Whether the origin's next event is of the same batch.
    pub goes_on: bool,
}

/// In a log row: the batch goes on with the next event.
const GOES_ON: u8 = 1;

/// The bytes of a log row.
pub fn encode_log(row_key: &[u8], row: &LogRow) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION << 4 | if row.goes_on { GOES_ON } else { 0 }];
    encode_into(&(row.position.ops, row.position.bytes, row.previous), &mut bytes);
    bytes.extend_from_slice(&keys::entry(&row.id));
    seal(row_key, bytes)
}

/// Reads the log row of the event at `hlc` back.
pub fn decode_log(row_key: &[u8], hlc: Hlc, row: &[u8]) -> Result<LogRow, Malformed> {
    let bytes = versioned(unseal(row_key, row)?)?;
    let ((ops, bytes_written, previous), rest) = decode_head::<(u64, u64, Hlc)>(&bytes[1..])?;
    let id = keys::parse_entry(rest).ok_or_else(|| Malformed::Form("no entry's key".into()))?;
    let goes_on = bytes[0] & GOES_ON != 0;
    Ok(LogRow { position: Position { hlc, ops, bytes: bytes_written }, previous, id, goes_on })
}

/// The bytes of a row of the chunk index: how long the chunk is, in bytes.
pub fn encode_chunk(row_key: &[u8], chunk_bytes: u64) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION << 4];
    encode_into(&chunk_bytes, &mut bytes);
    seal(row_key, bytes)
}

/// Reads a row of the chunk index back.
pub fn decode_chunk(row_key: &[u8], row: &[u8]) -> Result<u64, Malformed> {
    decode_exact(&versioned(unseal(row_key, row)?)?[1..])
}

/// Whose store this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The replica, for the life of the data folder.
    pub replica: ReplicaId,
    /// The cluster it belongs to.
    pub cluster: [u8; 16],
}

/// What every batch leaves behind: the claims, and the means to notice at open that rows are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The origins with what is held of each; an origin's index in rows is its place here.
    pub origins: Vec<(ReplicaId, Position)>,
    /// Entry rows.
    pub entries: u64,
    /// Log rows.
    pub log_rows: u64,
    /// The digest of all entries.
    pub root: Digest,
    /// Nothing that is over at or below this need be here, and no log row of it.
    pub epoch: Hlc,
    /// Whether all of that has been dropped.
    pub swept: bool,
}

/// The bytes of the identity row.
pub fn encode_identity(identity: &Identity) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION << 4];
    encode_into(&(identity.replica, identity.cluster), &mut bytes);
    seal(keys::IDENTITY, bytes)
}

/// Reads the identity row back.
pub fn decode_identity(row: &[u8]) -> Result<Identity, Malformed> {
    let (replica, cluster) = decode_exact(&versioned(unseal(keys::IDENTITY, row)?)?[1..])?;
    Ok(Identity { replica, cluster })
}

/// The bytes of the summary row.
pub fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION << 4];
    let counts = (summary.entries, summary.log_rows, summary.root.to_bytes());
    encode_into(&(&summary.origins, counts, summary.epoch, summary.swept), &mut bytes);
    seal(keys::SUMMARY, bytes)
}

/// Reads the summary row back.
pub fn decode_summary(row: &[u8]) -> Result<Summary, Malformed> {
    let (origins, (entries, log_rows, root), epoch, swept) =
        decode_exact(&versioned(unseal(keys::SUMMARY, row)?)?[1..])?;
    Ok(Summary { origins, entries, log_rows, root: Digest::from_bytes(root), epoch, swept })
}

/// The bytes of the row that keeps what the peers last said they hold.
pub fn encode_peers(claims: &Vec<(ReplicaId, VersionVector)>) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION << 4];
    encode_into(claims, &mut bytes);
    seal(keys::PEERS, bytes)
}

/// Reads the row of the peers back.
pub fn decode_peers(row: &[u8]) -> Result<Vec<(ReplicaId, VersionVector)>, Malformed> {
    decode_exact(&versioned(unseal(keys::PEERS, row)?)?[1..])
}

/// The bytes of a returned state: an entry that an earlier incarnation of this store held, with its own dot.
pub fn encode_returned(row_key: &[u8], row: &RepairRow) -> Vec<u8> {
    let mut bytes = vec![ROW_VERSION << 4];
    encode_into(row, &mut bytes);
    seal(row_key, bytes)
}

/// Reads a returned state back.
pub fn decode_returned(row_key: &[u8], row: &[u8]) -> Result<RepairRow, Malformed> {
    decode_exact(&versioned(unseal(row_key, row)?)?[1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{CHUNK_BYTES, NamespaceId};

    fn check(body: Body) -> usize {
        check_over(body, Hlc::ZERO)
    }

    fn check_over(body: Body, base: Hlc) -> usize {
        let row = EntryRow { origin_index: 2, hlc: Hlc::new(1_800_000_000_000, 3), body, base };
        let bytes = Bytes::from(encode_entry(b"k", &row));
        assert_eq!(decode_entry(b"k", &bytes), Ok(row));
        // Cut short anywhere, it is refused and nothing panics.
        for len in 0..bytes.len() {
            assert!(decode_entry(b"k", &bytes.slice(..len)).is_err());
        }
        bytes.len()
    }

    fn value(payload: Payload, metadata: Option<&'static str>, expires_at_s: Option<u64>) -> Body {
        Body::Value(Value { payload, metadata: metadata.map(Bytes::from), expires_at_s })
    }

    #[test]
    fn rows_survive_and_cost_what_is_promised() {
        let inline = |text: &'static str| Payload::Inline(Bytes::from(text));
        assert_eq!(check(Body::Tombstone), 13);
        assert_eq!(check(value(inline("hello"), None, None)), 13 + 5);
        assert_eq!(check(value(inline(""), Some("{}"), None)), 13 + 3);
        assert_eq!(check(value(inline("x"), None, Some(1_800_000_000))), 13 + 1 + 5);
        let manifest =
            Manifest { len: CHUNK_BYTES as u64 + 1, chunks: vec![ChunkId([1; 32]), ChunkId([2; 32])] };
        check(value(Payload::Chunked(manifest), Some("1"), Some(5)));
    }

    #[test]
    fn a_base_costs_nothing_where_there_is_none_and_little_where_it_is_near() {
        let plain = check(Body::Tombstone);
        let at = Hlc::new(1_800_000_000_000, 3);
        let over = |before_ms| check_over(Body::Tombstone, Hlc::new(at.wall_ms() - before_ms, 2)) - plain;
        let hour_ms = 3_600_000;
        let costs =
            [0, 127, 128, 16_000, 17_000, hour_ms / 2, 3 * 24 * hour_ms, 365 * 24 * hour_ms].map(over);
        assert_eq!(costs, [2, 2, 3, 3, 4, 4, 5, 6]);
        check_over(value(Payload::Inline(Bytes::from("x")), Some("{}"), Some(5)), at.previous());
    }

    #[test]
    fn a_row_without_a_base_is_as_it_was_before_there_were_any() {
        let row = EntryRow { origin_index: 2, hlc: Hlc::new(9, 0), body: Body::Tombstone, base: Hlc::ZERO };
        let old = seal(b"k", vec![0x11, 2, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode_entry(b"k", &row), old);
        assert_eq!(decode_entry(b"k", &Bytes::from(old)), Ok(row));
    }

    #[test]
    fn a_base_that_is_not_before_its_event_is_refused() {
        // 0 ms before 9 ms, and a counter of 0: the event itself, or a later one; 9 ms before it: none.
        for base in [[0, 0], [0, 1], [9, 0], [10, 0]] {
            let row = seal(b"k", [&[0x21, 2, 9, 0, 0, 0, 0, 0, 0][..], &base].concat());
            assert!(matches!(decode_entry(b"k", &Bytes::from(row)), Err(Malformed::Form(_))), "{base:?}");
        }
    }

    #[test]
    fn a_row_of_a_later_version_is_named_as_such() {
        let row = Bytes::from(seal(b"k", vec![0x30, 0, 0]));
        assert_eq!(decode_entry(b"k", &row), Err(Malformed::Version(3)));
    }

    #[test]
    fn log_identity_and_summary_rows_survive() {
        let position = Position { hlc: Hlc::new(8, 1), ops: 40, bytes: 1 << 40 };
        let id = EntryId::value(NamespaceId([3; 16]), "k");
        for goes_on in [false, true] {
            let row = LogRow { position, previous: Hlc::new(7, 0), id: id.clone(), goes_on };
            assert_eq!(decode_log(b"lk", position.hlc, &encode_log(b"lk", &row)), Ok(row));
        }
        assert_eq!(decode_chunk(b"ck", &encode_chunk(b"ck", 524_288)), Ok(524_288));
        assert!(decode_chunk(b"cl", &encode_chunk(b"ck", 524_288)).is_err());
        let identity = Identity { replica: ReplicaId([4; 16]), cluster: [5; 16] };
        assert_eq!(decode_identity(&encode_identity(&identity)), Ok(identity));
        let origins = vec![(ReplicaId([4; 16]), position)];
        let summary = Summary {
            origins,
            entries: 3,
            log_rows: 9,
            root: Digest::from_bytes([6; 16]),
            epoch: Hlc::new(60_000, 0),
            swept: true,
        };
        assert_eq!(decode_summary(&encode_summary(&summary)), Ok(summary));
    }
}
