//! The keys of the rows in a store: one ordered key space, told apart by the first byte.
//!
//! | key | row |
//! |---|---|
//! | `e` namespace(16) kind(1) key | one entry of a kind without elements ([`crate::codec::row`]) |
//! | `e` namespace(16) kind(1) key `00 00` element | a member of a set or field of a map; without an element, its head. `00` in the key is `00 ff` |
//! | `f` namespace(16) key `00 00` hlc(8, big endian) replica(16) | a value under this key that lost, by the event that wrote it; `00` in the key is `00 ff` |
//! | `g` hlc(8, big endian) row key of a lost value | when it was noticed that it had lost |
//! | `h` row key of a document's head, element | changes of that document that were folded together, that element among them ([`crate::store::folding`]) |
//! | `l` origin index(2, big endian) hlc(8, big endian) | one row of the log: this event wrote that entry |
//! | `x` expiry(8, big endian) row key of an entry | that entry expires then (Unix seconds) |
//! | `c` chunk(32) row key of an entry, returned state or lost value | that state names the chunk; its length in bytes |
//! | `d` hlc(8, big endian) replica(16) | a state of an earlier incarnation of this store, not yet written anew |
//! | `v` row key of an entry | what readers see of that entry until batches are complete |
//! | `m` `identity` | whose store this is |
//! | `m` `peers` | what the peers last said they hold |
//! | `m` `stage` | how far this replica has come into its cluster |
//! | `m` `summary` | the version vector, row counts, root and epoch, rewritten by every batch |
//! | `m` `veiling` | what holds of all rows under `v` together |
//!
//! Entries of one namespace and kind lie in the order of their keys, which is the order of listings.

use bytes::Bytes;

use crate::clock::{Dot, Hlc, ReplicaId};
use crate::entry::{ChunkId, EntryId, Kind, NamespaceId};

/// First byte of entry rows.
pub const ENTRY: u8 = b'e';
/// First byte of log rows.
pub const LOG: u8 = b'l';
/// First byte of the rows that list entries by their expiry.
pub const EXPIRY: u8 = b'x';
/// First byte of the rows that list states by the chunks they name.
pub const CHUNK: u8 = b'c';
/// First byte of the rows of values that have lost to one whose writer had not seen them: the ledger of conflicts.
pub const CONFLICT: u8 = b'f';
/// First byte of the rows that list those by age.
pub const CONFLICT_AGE: u8 = b'g';
/// First byte of the rows of changes that were folded together.
pub const FOLD: u8 = b'h';
/// First byte of the rows of returned states.
pub const RETURNED: u8 = b'd';
/// First byte of the rows of what readers see of entries whose state shows a part of a batch.
pub const VEIL: u8 = b'v';
/// Whose store this is.
pub const IDENTITY: &[u8] = b"midentity";
/// What the peers last said they hold.
pub const PEERS: &[u8] = b"mpeers";
/// How far this replica has come into its cluster.
pub const STAGE: &[u8] = b"mstage";
/// What holds of all veils together.
pub const VEILING: &[u8] = b"mveiling";
/// Vector, counts, root and epoch.
pub const SUMMARY: &[u8] = b"msummary";

/// Length of an entry's row key before the application's key.
const ENTRY_HEAD_BYTES: usize = 1 + 16 + 1;

/// After the key of a set or map, whose own zeros are followed by [`ESCAPE`].
const END_OF_KEY: [u8; 2] = [0, 0];
/// After a zero in the key of a set or map.
const ESCAPE: u8 = 0xff;

/// Row key of an entry.
pub fn entry(id: &EntryId) -> Vec<u8> {
    let mut row_key = key_parts(id.namespace, id.kind, &id.key);
    if id.kind.has_elements() {
        row_key.extend_from_slice(&END_OF_KEY);
        row_key.extend_from_slice(&id.element);
    }
    row_key
}

/// The start of the row keys of all entries whose keys start with `key`; of a kind without elements the row key of
/// that entry.
pub fn key_parts(namespace: NamespaceId, kind: Kind, key: &[u8]) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(ENTRY_HEAD_BYTES + key.len() + 16);
    row_key.push(ENTRY);
    row_key.extend_from_slice(&namespace.0);
    row_key.push(kind as u8);
    if !kind.has_elements() {
        row_key.extend_from_slice(key);
        return row_key;
    }
    push_escaped(&mut row_key, key);
    row_key
}

fn push_escaped(row_key: &mut Vec<u8>, key: &[u8]) {
    for byte in key {
        row_key.push(*byte);
        if *byte == 0 {
            row_key.push(ESCAPE);
        }
    }
}

/// A key that was escaped, and what follows its end.
fn split_escaped(escaped: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut key = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    loop {
        match rest {
            [0, 0, after @ ..] => return Some((key, after)),
            [0, ESCAPE, after @ ..] => {
                key.push(0);
                rest = after;
            }
            [0, ..] | [] => return None,
            [byte, after @ ..] => {
                key.push(*byte);
                rest = after;
            }
        }
    }
}

/// The entry a row key names; `None` when it is not an entry's row key.
pub fn parse_entry(row_key: &[u8]) -> Option<EntryId> {
    let (head, key) = row_key.split_at_checked(ENTRY_HEAD_BYTES)?;
    let namespace = NamespaceId(head[1..17].try_into().ok()?);
    let kind = Kind::of(head[17]).filter(|_| head[0] == ENTRY)?;
    if !kind.has_elements() {
        return Some(EntryId::whole(namespace, kind, Bytes::copy_from_slice(key)));
    }
    let (key, element) = split_escaped(key)?;
    Some(EntryId::element(namespace, kind, key, Bytes::copy_from_slice(element)))
}

/// The entry a row key names, if its state is made of parts.
pub(crate) fn parse_entry_with_parts(row_key: &[u8]) -> Option<EntryId> {
    let kind = *row_key.get(ENTRY_HEAD_BYTES - 1)?;
    if row_key[0] == ENTRY && kind != Kind::Value as u8 { parse_entry(row_key) } else { None }
}

/// Row key of the log row of an event, by the origin's index in this store.
pub fn log(origin_index: u16, hlc: Hlc) -> [u8; 11] {
    let mut row_key = [LOG; 11];
    row_key[1..3].copy_from_slice(&origin_index.to_be_bytes());
    row_key[3..].copy_from_slice(&hlc.to_bits().to_be_bytes());
    row_key
}

/// The event a log row is about, when it is one of this origin.
pub fn parse_log(row_key: &[u8], origin_index: u16) -> Option<Hlc> {
    let row_key: &[u8; 11] = row_key.try_into().ok()?;
    let same_origin = row_key[0] == LOG && row_key[1..3] == origin_index.to_be_bytes();
    let hlc: [u8; 8] = row_key[3..].try_into().ok()?;
    same_origin.then(|| Hlc::from_bits(u64::from_be_bytes(hlc)))
}

/// The origin's index and the event that a log row is about.
pub fn parse_any_log(row_key: &[u8]) -> Option<(u16, Hlc)> {
    let index = u16::from_be_bytes(row_key.get(1..3)?.try_into().ok()?);
    Some((index, parse_log(row_key, index)?))
}

/// Row key that lists an entry by its expiry.
pub fn expiry(expires_at_s: u64, entry_key: &[u8]) -> Vec<u8> {
    [&[EXPIRY][..], &expires_at_s.to_be_bytes(), entry_key].concat()
}

/// The expiry and the entry's row key that a row of the expiry index is about.
pub fn parse_expiry(row_key: &[u8]) -> Option<(u64, &[u8])> {
    let (at, entry_key) = row_key.strip_prefix(&[EXPIRY])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), entry_key))
}

/// Row key that lists a state, by its own row key, under a chunk it names.
pub fn chunk(chunk: &ChunkId, state_key: &[u8]) -> Vec<u8> {
    [&[CHUNK][..], &chunk.0, state_key].concat()
}

/// The chunk and the state's row key that a row of the chunk index is about.
pub fn parse_chunk(row_key: &[u8]) -> Option<(ChunkId, &[u8])> {
    let (chunk, state_key) = row_key.strip_prefix(&[CHUNK])?.split_first_chunk::<32>()?;
    Some((ChunkId(*chunk), state_key))
}

/// Row key of what readers see of an entry meanwhile.
pub fn veil(entry_key: &[u8]) -> Vec<u8> {
    [&[VEIL][..], entry_key].concat()
}

/// Row key of changes that were folded together, by the row key of the first.
pub fn fold(entry_key: &[u8]) -> Vec<u8> {
    [&[FOLD][..], entry_key].concat()
}

/// The row key of a document's head and the element, if this is the row key of an entry of a document. Nothing else lies
/// between a document's head and its last element.
pub fn split_document(row_key: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_document =
        row_key.first() == Some(&ENTRY) && row_key.get(ENTRY_HEAD_BYTES - 1) == Some(&(Kind::Doc as u8));
    let key = row_key.get(ENTRY_HEAD_BYTES..).filter(|_| is_document)?;
    let mut at = 0;
    loop {
        match key.get(at..)? {
            [0, 0, ..] => return Some(row_key.split_at(ENTRY_HEAD_BYTES + at + END_OF_KEY.len())),
            [0, ..] => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether there may be documents from this row key on and before that one, both of entries or beyond them.
pub fn may_pass_documents(from: &[u8], before: &[u8]) -> bool {
    const DOC: u8 = Kind::Doc as u8;
    match (from.get(..ENTRY_HEAD_BYTES), before.get(..ENTRY_HEAD_BYTES)) {
        (Some([one @ .., from]), Some([other @ .., before])) if one == other => {
            *from <= DOC && DOC <= *before
        }
        _ => from.first().is_none_or(|first| *first <= ENTRY),
    }
}

/// Row key of a returned state.
pub fn returned(dot: Dot) -> Vec<u8> {
    [&[RETURNED][..], &dot.hlc.to_bits().to_be_bytes(), &dot.replica.0].concat()
}

/// The start of the row keys of values that have lost, under keys that start with `prefix`.
pub fn conflicts(namespace: NamespaceId, prefix: &[u8]) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(1 + 16 + prefix.len() + 2 + 24);
    row_key.push(CONFLICT);
    row_key.extend_from_slice(&namespace.0);
    push_escaped(&mut row_key, prefix);
    row_key
}

/// The start of the row keys of values that have lost under this key.
pub fn conflicts_of_key(namespace: NamespaceId, key: &[u8]) -> Vec<u8> {
    let mut row_key = conflicts(namespace, key);
    row_key.extend_from_slice(&END_OF_KEY);
    row_key
}

/// Row key of the value under this entry's key that the event `lost` wrote.
pub fn conflict(namespace: NamespaceId, key: &[u8], lost: Dot) -> Vec<u8> {
    let mut row_key = conflicts_of_key(namespace, key);
    row_key.extend_from_slice(&lost.hlc.to_bits().to_be_bytes());
    row_key.extend_from_slice(&lost.replica.0);
    row_key
}

/// The entry and the event that the row of a lost value is about.
pub fn parse_conflict(row_key: &[u8]) -> Option<(EntryId, Dot)> {
    let (namespace, key) = row_key.strip_prefix(&[CONFLICT])?.split_first_chunk::<16>()?;
    let (key, lost) = split_escaped(key)?;
    let (hlc, replica) = lost.split_first_chunk::<8>()?;
    let lost =
        Dot { hlc: Hlc::from_bits(u64::from_be_bytes(*hlc)), replica: ReplicaId(replica.try_into().ok()?) };
    Some((EntryId::value(NamespaceId(*namespace), key), lost))
}

/// Row key that lists a lost value, by its own row key, under the time when that was noticed.
pub fn conflict_age(noticed: Hlc, conflict_key: &[u8]) -> Vec<u8> {
    [&[CONFLICT_AGE][..], &noticed.to_bits().to_be_bytes(), conflict_key].concat()
}

/// The time and the row key of the lost value that a row of the index by age is about.
pub fn parse_conflict_age(row_key: &[u8]) -> Option<(Hlc, &[u8])> {
    let (noticed, conflict_key) = row_key.strip_prefix(&[CONFLICT_AGE])?.split_first_chunk::<8>()?;
    Some((Hlc::from_bits(u64::from_be_bytes(*noticed)), conflict_key))
}

/// The least key above every key that starts with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_lie_behind_the_head_of_their_key_and_nowhere_else() {
        let head = |key: &'static [u8]| entry(&EntryId::whole(NamespaceId([7; 16]), Kind::Set, key));
        let member = |key: &'static [u8], member: &'static [u8]| {
            let id = EntryId::element(NamespaceId([7; 16]), Kind::Set, key, member);
            assert_eq!(parse_entry(&entry(&id)), Some(id.clone()));
            entry(&id)
        };
        // Zeros in keys and members are what could make one the other.
        let row_keys = [
            head(b"a"),
            member(b"a", b"\0"),
            member(b"a", b"\0\0b"),
            member(b"a", b"\xff"),
            head(b"a\0"),
            member(b"a\0", b"a"),
            head(b"a\0\0"),
            member(b"a\0\xff", b"x"),
            head(b"ab"),
        ];
        assert!(row_keys.is_sorted(), "{row_keys:?}");
        let within = |head: &[u8]| row_keys.iter().filter(|row_key| row_key.starts_with(head)).count();
        assert_eq!([within(&row_keys[0]), within(&row_keys[4]), within(&row_keys[6])], [4, 2, 1]);
        for cut in 18..row_keys[0].len() {
            assert_eq!(parse_entry(&row_keys[0][..cut]), None, "a key that has no end");
        }
    }

    #[test]
    fn row_keys_parse_back_and_keep_the_order_of_keys_and_events() {
        let id = |key: &'static str| EntryId::value(NamespaceId([7; 16]), key);
        assert_eq!(parse_entry(&entry(&id("some/key"))), Some(id("some/key")));
        assert!(entry(&id("a")) < entry(&id("aa")) && entry(&id("aa")) < entry(&id("b")));
        assert_eq!(parse_log(&log(3, Hlc::new(9, 1)), 3), Some(Hlc::new(9, 1)));
        assert_eq!(parse_log(&log(3, Hlc::new(9, 1)), 4), None);
        assert!(log(3, Hlc::new(9, 1)) < log(3, Hlc::new(10, 0)));
        assert_eq!(parse_expiry(&expiry(7, b"ek")), Some((7, &b"ek"[..])));
        assert!(expiry(7, b"z") < expiry(8, b"a"));
        let named = ChunkId([3; 32]);
        assert_eq!(parse_chunk(&chunk(&named, b"ek")), Some((named, &b"ek"[..])));
        assert_eq!(parse_chunk(&chunk(&named, b"")[..32]), None);
    }

    #[test]
    fn lost_values_lie_under_their_key_by_time() {
        let row = |key: &'static [u8], ms, replica| {
            let lost = Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([replica; 16]) };
            let row_key = conflict(NamespaceId([7; 16]), key, lost);
            assert_eq!(parse_conflict(&row_key), Some((EntryId::value(NamespaceId([7; 16]), key), lost)));
            row_key
        };
        let row_keys = [
            row(b"a", 1, 2),
            row(b"a", 2, 1),
            row(b"a\0", 1, 1),
            row(b"a\0\xff", 1, 1),
            row(b"ab", 1, 1),
            row(b"b", 1, 1),
        ];
        assert!(row_keys.is_sorted(), "{row_keys:?}");
        let within = |start: Vec<u8>| row_keys.iter().filter(|row_key| row_key.starts_with(&start)).count();
        assert_eq!(within(conflicts_of_key(NamespaceId([7; 16]), b"a")), 2);
        assert_eq!(within(conflicts(NamespaceId([7; 16]), b"a")), 5);
        let aged = conflict_age(Hlc::new(5, 0), &row_keys[0]);
        assert_eq!(parse_conflict_age(&aged), Some((Hlc::new(5, 0), &row_keys[0][..])));
        assert!(aged < conflict_age(Hlc::new(6, 0), b""));
        for cut in 0..row_keys[0].len() {
            assert_eq!(parse_conflict(&row_keys[0][..cut]), None, "a row key cut short");
        }
    }

    #[test]
    fn the_key_after_a_prefix_is_above_all_that_start_with_it() {
        assert_eq!(after_prefix(b"ab"), b"ac");
        assert_eq!(after_prefix(b"a\xff\xff"), b"b");
    }

    #[test]
    fn foreign_row_keys_are_no_entries() {
        for row_key in [&b""[..], b"e", b"m12345678901234567", SUMMARY] {
            assert_eq!(parse_entry(row_key), None, "{row_key:?}");
        }
    }
}
