//! Where a client stands, as it keeps it: up to which event of each origin it was told all, or has seen something.
//!
//! The rule this file upholds: a cursor means the same at every PoP and after every restart, since version vectors do. It is
//! good for what it was given for only, a watch of some keys or a session, and what is no cursor of ours is refused.
//!
//! The bytes, in base64 for URLs: version(1) check(4), then for each origin id(8) hlc(8, big endian) and its count of events
//! (LEB128). The check is of these and of what the cursor is for.

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
pub(crate) const MAX_CURSOR_ORIGINS: usize = 512;
/// The longest cursor, in bytes of base64.
const MAX_CURSOR_BYTES: usize = (1 + CHECK_BYTES + MAX_CURSOR_ORIGINS * (ID_BYTES + 8 + 10)).div_ceil(3) * 4;

type Id = [u8; ID_BYTES];

/// What of an origin one cursor reaches and another does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beyond {
    id: Id,
    /// The newest event.
    pub(crate) hlc: Hlc,
    /// How many events, at least; 0 where that is not known.
    pub(crate) ops: u64,
}

impl Beyond {
    /// Whether it is of this origin.
    pub(crate) fn is_of(&self, origin: ReplicaId) -> bool {
        self.id == short(origin)
    }

    /// Whether it stands for all origins, see [`Cursor::fold`].
    pub(crate) fn is_of_all(&self) -> bool {
        self.is_of(ReplicaId::SENDER)
    }
}

/// By origin, up to which event all was told, and how many events it had written by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor(BTreeMap<Id, (Hlc, u64)>);

impl Cursor {
    /// The cursor of who was told all that is held.
    pub(crate) fn of(vector: &VersionVector) -> Self {
        let mut cursor = Self::default();
        cursor.join(vector);
        cursor
    }

    /// All of this was told too.
    pub(crate) fn join(&mut self, vector: &VersionVector) {
        for (origin, position) in vector.iter() {
            let told = self.0.entry(short(origin)).or_default();
            if position.hlc > told.0 {
                *told = (position.hlc, position.ops);
            }
        }
    }

    /// This event was told too, the last of so many.
    pub(crate) fn tell(&mut self, dot: Dot, ops: u64) {
        let told = self.0.entry(short(dot.replica)).or_default();
        *told = (dot.hlc, ops).max(*told);
    }

    /// All that another cursor tells of was told too.
    pub(crate) fn join_all(&mut self, other: &Self) {
        for (id, told) in &other.0 {
            let known = self.0.entry(*id).or_default();
            *known = (*known).max(*told);
        }
    }

    /// Of this origin, or whoever else, nothing up to here needs to be kept.
    pub(crate) fn forget_upto(&mut self, hlc: Hlc) {
        self.0.retain(|_, (told, _)| *told > hlc);
    }

    /// Replaces the oldest of more than `most` origins by one that stands for all there are.
    pub(crate) fn fold(&mut self, most: usize) {
        if self.0.len() <= most {
            return;
        }
        let mut by_age: Vec<_> = self.0.iter().map(|(id, (hlc, _))| (*hlc, *id)).collect();
        by_age.sort_unstable();
        let folded = &by_age[..by_age.len() + 1 - most];
        for (_, id) in folded {
            self.0.remove(id);
        }
        let newest = folded.iter().map(|(hlc, _)| *hlc).max().unwrap_or_default();
        self.tell(Dot { hlc: newest, replica: ReplicaId::SENDER }, 0);
    }

    /// Of this, what another cursor does not reach: whose, up to where, and how many events are between.
    pub(crate) fn beyond(&self, other: &Self) -> Vec<Beyond> {
        let beyond = self.0.iter().filter_map(|(id, (hlc, ops))| {
            let (held, held_ops) = other.0.get(id).copied().unwrap_or_default();
            (held < *hlc).then_some(Beyond { id: *id, hlc: *hlc, ops: ops.saturating_sub(held_ops) })
        });
        beyond.collect()
    }

    /// Up to where this origin's events were told.
    pub(crate) fn position(&self, origin: ReplicaId) -> Position {
        let (hlc, ops) = self.0.get(&short(origin)).copied().unwrap_or_default();
        Position { hlc, ops, bytes: 0 }
    }

    /// Whether the effect of this event was told.
    pub(crate) fn covers(&self, dot: Dot) -> bool {
        self.position(dot.replica).hlc >= dot.hlc
    }

    /// Whether this state, or one that has replaced it, was told.
    pub(crate) fn covers_all(&self, entry: &Entry) -> bool {
        entry.all_dots(|dot| self.covers(dot))
    }

    /// Whether all that was told by this cursor is held.
    pub(crate) fn is_within(&self, vector: &VersionVector) -> bool {
        let held = Self::of(vector);
        self.0.iter().all(|(id, (hlc, _))| held.0.get(id).is_some_and(|(held, _)| held >= hlc))
    }

    /// The text of a watch of `watched`.
    pub(crate) fn encode(&self, watched: &[u8]) -> String {
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
    pub(crate) fn decode(text: &str, watched: &[u8]) -> Option<Self> {
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

    /// Whoever holds all up to the time of the one that stands for the others holds what they stood for.
    #[test]
    fn a_folded_cursor_covers_no_less() {
        for (origins, left) in [(3, 3), (4, 4), (5, 4), (9, 4)] {
            let whole = Cursor::of(&vector(origins));
            let mut folded = whole.clone();
            folded.fold(4);
            assert_eq!(folded.0.len(), left, "{origins}");
            let all = folded.position(ReplicaId::SENDER).hlc;
            let is_covered = |n| folded.position(origin(n)).hlc.max(all) >= whole.position(origin(n)).hlc;
            assert!((0..origins).all(is_covered), "{origins}");
        }
    }

    #[test]
    fn what_lies_beyond_is_told_with_how_many_events() {
        let (three, two) = (Cursor::of(&vector(3)), Cursor::of(&vector(2)));
        let beyond = three.beyond(&two);
        assert!(beyond.len() == 1 && beyond[0].is_of(origin(2)) && beyond[0].ops == 2 << 20);
        assert_eq!(two.beyond(&three), []);
        let mut forgotten = three.clone();
        forgotten.forget_upto(three.position(origin(1)).hlc);
        assert_eq!(forgotten.0.len(), 1);
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
