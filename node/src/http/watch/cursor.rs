//! Where a watch stands, as its client keeps it: what was held when everything up to there had been told.
//!
//! The rule this file upholds: a cursor means the same at every PoP and after every restart, since version vectors do. It is
//! good for the watch it was given to only, and what is no cursor of ours is refused.
//!
//! The bytes, in base64 for URLs: version(1) check(4), then for each origin id(8) hlc(8, big endian) and its count of events
//! (LEB128). The check is of these and of what is watched.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use replication::{Dot, Entry, Hlc, Position, ReplicaId, VersionVector};

/// What a cursor begins with: the version of its format.
const CURSOR_VERSION: u8 = 1;
/// How much of a BLAKE3 hash tells a cursor of this watch from any other text.
const CHECK_BYTES: usize = 4;
/// How much of an origin's random id tells it from the others.
const ID_BYTES: usize = 8;
/// The most origins in a cursor, those with the latest events. One that is left out counts as not told of: what it wrote is
/// told again, or all is.
pub(super) const MAX_CURSOR_ORIGINS: usize = 512;
/// The longest cursor, in bytes of base64.
const MAX_CURSOR_BYTES: usize = (1 + CHECK_BYTES + MAX_CURSOR_ORIGINS * (ID_BYTES + 8 + 10)).div_ceil(3) * 4;

type Id = [u8; ID_BYTES];

/// By origin, up to which event all was told, and how many events it had written by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor(BTreeMap<Id, (Hlc, u64)>);

impl Cursor {
    /// The cursor of who was told all that is held.
    pub(super) fn of(vector: &VersionVector) -> Self {
        let mut cursor = Self::default();
        cursor.join(vector);
        cursor
    }

    /// All of this was told too.
    pub(super) fn join(&mut self, vector: &VersionVector) {
        for (origin, position) in vector.iter() {
            let told = self.0.entry(short(origin)).or_default();
            if position.hlc > told.0 {
                *told = (position.hlc, position.ops);
            }
        }
    }

    /// Up to where this origin's events were told.
    pub(super) fn position(&self, origin: ReplicaId) -> Position {
        let (hlc, ops) = self.0.get(&short(origin)).copied().unwrap_or_default();
        Position { hlc, ops, bytes: 0 }
    }

    /// Whether the effect of this event was told.
    pub(super) fn covers(&self, dot: Dot) -> bool {
        self.position(dot.replica).hlc >= dot.hlc
    }

    /// Whether this state, or one that has replaced it, was told.
    pub(super) fn covers_all(&self, entry: &Entry) -> bool {
        entry.all_dots(|dot| self.covers(dot))
    }

    /// Whether all that was told by this cursor is held.
    pub(super) fn is_within(&self, vector: &VersionVector) -> bool {
        let held = Self::of(vector);
        self.0.iter().all(|(id, (hlc, _))| held.0.get(id).is_some_and(|(held, _)| held >= hlc))
    }

    /// The text of a watch of `watched`.
    pub(super) fn encode(&self, watched: &[u8]) -> String {
        let mut latest: Vec<_> = self.0.iter().collect();
        latest.sort_unstable_by_key(|(_, (hlc, _))| std::cmp::Reverse(*hlc));
        latest.truncate(MAX_CURSOR_ORIGINS);
        let mut bytes = vec![CURSOR_VERSION; 1 + CHECK_BYTES];
        for (id, (hlc, ops)) in latest {
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(&hlc.to_bits().to_be_bytes());
            push_count(&mut bytes, *ops);
        }
        let check = check_of(watched, &bytes[1 + CHECK_BYTES..]);
        bytes[1..=CHECK_BYTES].copy_from_slice(&check);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor of a watch of `watched`; `None` for any other text.
    pub(super) fn decode(text: &str, watched: &[u8]) -> Option<Self> {
        if text.len() > MAX_CURSOR_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (check, mut rest) = bytes.strip_prefix(&[CURSOR_VERSION])?.split_at_checked(CHECK_BYTES)?;
        if check != check_of(watched, rest) {
            return None;
        }
        let mut cursor = Self::default();
        while !rest.is_empty() {
            let (id, after) = rest.split_first_chunk::<ID_BYTES>()?;
            let (hlc, after) = after.split_first_chunk::<8>()?;
            let (ops, after) = split_count(after)?;
            cursor.0.insert(*id, (Hlc::from_bits(u64::from_be_bytes(*hlc)), ops));
            rest = after;
        }
        Some(cursor)
    }
}

fn short(origin: ReplicaId) -> Id {
    *origin.0.first_chunk().expect("an id is longer than its beginning")
}

fn check_of(watched: &[u8], bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(watched.len() as u64).to_be_bytes()).update(watched).update(bytes);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than the check")
}

fn push_count(bytes: &mut Vec<u8>, mut count: u64) {
    while count > 0x7f {
        bytes.push(count as u8 | 0x80);
        count >>= 7;
    }
    bytes.push(count as u8);
}

fn split_count(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut count = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        count |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((count, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: u64) -> ReplicaId {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ReplicaId(id)
    }

    fn vector(origins: u64) -> VersionVector {
        let position = |n| Position { hlc: Hlc::new(1_800_000_000_000 + n, 3), ops: n << 20, bytes: 0 };
        (0..origins).map(|n| (origin(n), position(n))).collect()
    }

    #[test]
    fn a_cursor_leads_back_to_where_it_was_given_and_nothing_else_does() {
        for origins in [0, 1, 3, MAX_CURSOR_ORIGINS as u64] {
            let cursor = Cursor::of(&vector(origins));
            let text = cursor.encode(b"here");
            assert_eq!(Cursor::decode(&text, b"here"), Some(cursor.clone()));
            assert_eq!(Cursor::decode(&text, b"there"), None);
            let mut flipped = text.clone().into_bytes();
            flipped[2] ^= 1;
            assert_eq!(Cursor::decode(std::str::from_utf8(&flipped).unwrap(), b"here"), None);
            assert_eq!(Cursor::decode(&text[..text.len() - 2], b"here"), None);
        }
        let too_long = "A".repeat(MAX_CURSOR_BYTES + 1);
        for bad in ["", "a", "not base64!", "AAAAAAAA", "AgAAAAA", &too_long] {
            assert_eq!(Cursor::decode(bad, b"here"), None, "{bad}");
        }
    }

    /// An origin that is left out is told of again, never passed over.
    #[test]
    fn a_cursor_keeps_the_origins_with_the_latest_events() {
        let cursor = Cursor::of(&vector(MAX_CURSOR_ORIGINS as u64 + 1));
        let decoded = Cursor::decode(&cursor.encode(b""), b"").unwrap();
        assert_eq!(decoded.position(origin(0)), Position::default());
        assert_eq!(decoded.position(origin(1)), cursor.position(origin(1)));
        assert_eq!(decoded.0.len(), MAX_CURSOR_ORIGINS);
    }

    #[test]
    fn a_cursor_only_rises_and_may_be_ahead_of_a_pop() {
        let mut cursor = Cursor::of(&vector(3));
        assert!(
            cursor.is_within(&vector(3)) && cursor.is_within(&vector(4)) && !cursor.is_within(&vector(2))
        );
        let before = cursor.clone();
        cursor.join(&[(origin(1), Position { hlc: Hlc::new(5, 0), ops: 1, bytes: 0 })].into_iter().collect());
        assert_eq!(cursor, before);
    }

    #[test]
    fn counts_of_all_lengths_are_read_back() {
        for count in [0, 1, 127, 128, 1 << 20, u64::MAX] {
            let mut bytes = Vec::new();
            push_count(&mut bytes, count);
            assert_eq!(split_count(&bytes), Some((count, &[][..])));
        }
        assert_eq!(split_count(&[0x80; 11]), None);
    }
}
