//! Who belongs to the cluster: records that are entries of the system namespace, and so replicate like any other.
//!
//! | key | state |
//! |---|---|
//! | `member/` replica | [`MemberRecord`]: written once, by a member, before the new one copies anything |
//! | `removed/` replica | [`RemovalReason`]: never taken back; a replica that was removed returns as a new one |
//! | `drain/` replica | a value while that member is being drained, a tombstone when no longer |
//!
//! The members are those with the first and without the second. What follows from it, for deletes above all, is
//! told in [`crate::replica::epoch`].

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::clock::{Dot, ReplicaId};
use crate::codec::member as codec;
use crate::entry::{Body, Entry, EntryId, NamespaceId, Payload, Value};

const MEMBER: &[u8] = b"member/";
const REMOVED: &[u8] = b"removed/";
const DRAIN: &[u8] = b"drain/";

/// The most bytes of a PoP's or region's name in a record.
pub const MAX_NAME_BYTES: usize = 64;

/// What a member says of itself when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its PoP, at most [`MAX_NAME_BYTES`].
    pub pop: String,
    /// Its region, at most [`MAX_NAME_BYTES`].
    pub region: String,
}

/// Why a replica is a member no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// An operator took it out. It stays out until an operator makes it anew.
    Operator,
    /// It was away for too long, and held up the dropping of tombstones for all. It may return by itself.
    Silent,
    /// A later incarnation of the same PoP has taken its place.
    Replaced,
}

/// One replica that is, or was, a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it said of itself; unknown where only its removal is known.
    pub record: Option<MemberRecord>,
    /// The event that made it a member.
    pub joined: Option<Dot>,
    /// Whether it takes no more writes, on its way out.
    pub draining: bool,
    /// The event that last began or ended its draining.
    pub drain_changed: Option<Dot>,
    /// Its removal, and the event that removed it.
    pub removed: Option<(RemovalReason, Dot)>,
}

/// The members a replica knows, from the entries it holds.
#[derive(Clone, Debug, Default)]
pub struct Members {
    by_id: BTreeMap<ReplicaId, Member>,
    digest: u64,
}

impl Members {
    /// Takes note of an entry of the system namespace; of those that are not about members, nothing.
    pub fn note(&mut self, id: &EntryId, entry: &Entry) {
        let Some((family, replica)) = parse(&id.key) else { return };
        let payload = match &entry.body {
            Body::Value(Value { payload: Payload::Inline(payload), .. }) => Some(payload),
            _ => None,
        };
        let none = Member { record: None, joined: None, draining: false, drain_changed: None, removed: None };
        let member = self.by_id.entry(replica).or_insert(none);
        match (family, payload) {
            (Family::Drain, payload) => {
                member.draining = payload.is_some();
                member.drain_changed = Some(entry.dot);
            }
            (Family::Member, Some(payload)) => {
                member.record = codec::decode_record(payload).ok();
                member.joined = Some(entry.dot);
            }
            (Family::Removed, Some(payload)) => {
                // What cannot be read is a removal all the same.
                let reason = codec::decode_reason(payload).unwrap_or(RemovalReason::Operator);
                member.removed = Some((reason, entry.dot));
            }
            (Family::Member | Family::Removed, None) => {}
        }
        let mut hasher = blake3::Hasher::new();
        for (replica, member) in &self.by_id {
            hasher.update(&replica.0);
            hasher.update(&[u8::from(member.joined.is_some()), u8::from(member.removed.is_some())]);
        }
        self.digest = hasher.finalize().as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes);
    }

    /// Equal exactly where the same replicas are members, and the same were.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether this replica is a member now.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.by_id.get(&replica).is_some_and(Member::is_in)
    }

    /// The removal of this replica, if it was removed.
    pub fn removal(&self, replica: ReplicaId) -> Option<(RemovalReason, Dot)> {
        self.by_id.get(&replica)?.removed
    }

    /// What is known of this replica.
    pub fn find(&self, replica: ReplicaId) -> Option<&Member> {
        self.by_id.get(&replica)
    }

    /// Everyone who is a member now, in the order of their ids.
    pub fn current(&self) -> impl Iterator<Item = (ReplicaId, &Member)> {
        self.iter().filter(|(_, member)| member.is_in())
    }

    /// Everyone who is or was a member, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Member)> {
        self.by_id.iter().map(|(replica, member)| (*replica, member))
    }
}

impl Member {
    /// Whether it is a member now.
    pub fn is_in(&self) -> bool {
        self.joined.is_some() && self.removed.is_none()
    }
}

/// Whether a key of the system namespace is about members.
pub fn is_about_members(key: &[u8]) -> bool {
    parse(key).is_some()
}

enum Family {
    Member,
    Removed,
    Drain,
}

fn parse(key: &[u8]) -> Option<(Family, ReplicaId)> {
    let (family, hex) = [(MEMBER, Family::Member), (REMOVED, Family::Removed), (DRAIN, Family::Drain)]
        .into_iter()
        .find_map(|(prefix, family)| Some((family, key.strip_prefix(prefix)?)))?;
    Some((family, std::str::from_utf8(hex).ok()?.parse().ok()?))
}

/// The entry that makes a replica a member.
pub fn member_entry(replica: ReplicaId, record: &MemberRecord) -> (EntryId, Body) {
    entry(MEMBER, replica, codec::encode_record(record))
}

/// The entry that removes a replica.
pub fn removal_entry(replica: ReplicaId, reason: RemovalReason) -> (EntryId, Body) {
    entry(REMOVED, replica, codec::encode_reason(reason))
}

/// The entry that begins or ends the draining of a member.
pub fn drain_entry(replica: ReplicaId, draining: bool) -> (EntryId, Body) {
    let (id, body) = entry(DRAIN, replica, Vec::new());
    (id, if draining { body } else { Body::Tombstone })
}

fn entry(prefix: &[u8], replica: ReplicaId, payload: Vec<u8>) -> (EntryId, Body) {
    let key = [prefix, replica.to_string().as_bytes()].concat();
    let payload = Payload::Inline(Bytes::from(payload));
    let value = Value { payload, metadata: None, expires_at_s: None };
    (EntryId::value(NamespaceId::SYSTEM, key), Body::Value(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;

    #[test]
    fn a_member_joins_drains_and_is_removed_for_ever() {
        let id = ReplicaId([7; 16]);
        let record = MemberRecord { pop: "ams".into(), region: "eu".into() };
        let mut members = Members::default();
        let note = |members: &mut Members, ms, (entry_id, body): (EntryId, Body)| {
            let dot = Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([1; 16]) };
            members.note(&entry_id, &Entry::first(dot, body));
        };
        note(&mut members, 1, member_entry(id, &record));
        assert!(members.contains(id));
        assert_eq!(members.find(id).and_then(|member| member.record.clone()), Some(record.clone()));
        note(&mut members, 2, drain_entry(id, true));
        assert!(members.find(id).is_some_and(|member| member.draining));
        note(&mut members, 3, drain_entry(id, false));
        assert!(members.find(id).is_some_and(|member| !member.draining));
        note(&mut members, 4, removal_entry(id, RemovalReason::Silent));
        note(&mut members, 5, member_entry(id, &record));
        assert!(!members.contains(id));
        assert_eq!(members.removal(id).map(|(reason, _)| reason), Some(RemovalReason::Silent));
    }

    #[test]
    fn other_system_entries_are_no_members() {
        let mut members = Members::default();
        let dot = Dot { hlc: Hlc::new(1, 0), replica: ReplicaId([1; 16]) };
        for key in ["namespace/x", "member/", "member/zz", "member"] {
            members.note(&EntryId::value(NamespaceId::SYSTEM, key), &Entry::first(dot, Body::Tombstone));
        }
        assert_eq!(members.iter().count(), 0);
    }
}
