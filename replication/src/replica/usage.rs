//! What each namespace has: its live values and their bytes, counted as states come and go.
//!
//! The rule this file upholds: the counts follow from the entry rows alone. They are made from all rows when a store is
//! opened, changed with each state that passes the one door, and compared by a verification; they are in no row of
//! their own. A value that has expired counts until it is dropped.

use std::collections::BTreeMap;

use super::Replica;
use crate::entry::{Body, EntryId, NamespaceId};
use crate::store::{Store, StoreError};

/// What a namespace has at this replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Values, counters, members of sets and fields of maps that are not deleted.
    pub keys: u64,
    /// Their names, values and metadata, in bytes; large values whole, each for itself.
    pub bytes: u64,
}

/// What writes would add to a namespace; below 0 they take away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Values.
    pub keys: i64,
    /// Bytes, as [`Usage::bytes`] counts them.
    pub bytes: i64,
}

/// By namespace; one that has nothing is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usages(BTreeMap<NamespaceId, Usage>);

impl Usages {
    /// A state has come, or has gone, or one has come in the place of another.
    pub(super) fn change(&mut self, id: &EntryId, old: Option<&Body>, new: Option<&Body>) {
        let [old, new] = [old, new].map(|body| body.map_or_else(Usage::default, |body| usage_of(id, body)));
        let usage = self.0.entry(id.namespace).or_default();
        // Counted in before: nothing goes below zero, but in a store whose books are wrong, which a verification finds.
        usage.keys = (usage.keys + new.keys).saturating_sub(old.keys);
        usage.bytes = (usage.bytes + new.bytes).saturating_sub(old.bytes);
        if *usage == Usage::default() {
            self.0.remove(&id.namespace);
        }
    }

    fn of(&self, namespace: NamespaceId) -> Usage {
        self.0.get(&namespace).copied().unwrap_or_default()
    }
}

impl<S: Store> Replica<S> {
    /// What a namespace has, staged writes included.
    pub fn usage(&self, namespace: NamespaceId) -> Usage {
        self.usages.of(namespace)
    }

    /// What these writes would add to what there is, done one after the other. Reads the state of each entry.
    ///
    /// # Errors
    /// Where a row cannot be read.
    pub fn growth(&self, writes: &[(EntryId, Body)]) -> Result<Growth, StoreError> {
        let mut sizes: BTreeMap<&EntryId, [Usage; 2]> = BTreeMap::new();
        for (id, body) in writes {
            let after = usage_of(id, body);
            match sizes.get_mut(id) {
                Some([_, last]) => *last = after,
                None => {
                    let before =
                        self.entry(id)?.map_or_else(Usage::default, |entry| usage_of(id, &entry.body));
                    sizes.insert(id, [before, after]);
                }
            }
        }
        let added = |before: u64, after: u64| after.cast_signed() - before.cast_signed();
        Ok(sizes.values().fold(Growth::default(), |sum, [before, after]| Growth {
            keys: sum.keys + added(before.keys, after.keys),
            bytes: sum.bytes + added(before.bytes, after.bytes),
        }))
    }

    /// The books, and those of a verification that has passed the row, take note of a state.
    pub(super) fn usage_changed(
        &mut self,
        row_key: &[u8],
        id: &EntryId,
        old: Option<&Body>,
        new: Option<&Body>,
    ) {
        self.usages.change(id, old, new);
        if let Some(walk) = &mut self.walk {
            walk.usage_changed(row_key, id, old, new);
        }
    }
}

fn usage_of(id: &EntryId, body: &Body) -> Usage {
    if body.is_tombstone() {
        return Usage::default();
    }
    let is_head = matches!(body, Body::Head(_));
    let name_bytes = if is_head { 0 } else { id.user_bytes() as u64 };
    Usage { keys: u64::from(!is_head), bytes: name_bytes + body.user_bytes() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Settings;
    use super::*;
    use crate::clock::{Now, ReplicaId};
    use crate::digest::DigestKey;
    use crate::entry::{Manifest, Payload, Value};
    use crate::member::MemberRecord;
    use crate::store::memory::MemoryStore;

    const NAMESPACE: NamespaceId = NamespaceId([7; 16]);

    fn id(key: &'static str) -> EntryId {
        EntryId::value(NAMESPACE, key)
    }

    fn value(payload: Payload, metadata: Option<Bytes>) -> Body {
        Body::Value(Value { payload, metadata, expires_at_s: None })
    }

    fn inline(len: usize) -> Body {
        value(Payload::Inline(vec![0; len].into()), None)
    }

    #[test]
    fn keys_values_and_metadata_count_and_tombstones_do_not() {
        let mut usages = Usages::default();
        let with_metadata = value(Payload::Inline("four".into()), Some("{}".into()));
        let large = value(Payload::Chunked(Manifest { len: 1 << 20, chunks: Vec::new() }), None);
        usages.change(&id("ab"), None, Some(&with_metadata));
        assert_eq!(usages.of(NAMESPACE), Usage { keys: 1, bytes: 8 });
        usages.change(&id("ab"), Some(&with_metadata), Some(&large));
        assert_eq!(usages.of(NAMESPACE), Usage { keys: 1, bytes: (1 << 20) + 2 });
        usages.change(&id("c"), None, Some(&Body::Tombstone));
        usages.change(&EntryId::value(NamespaceId([8; 16]), "x"), None, Some(&inline(1)));
        assert_eq!(usages.of(NAMESPACE), Usage { keys: 1, bytes: (1 << 20) + 2 });
        usages.change(&id("ab"), Some(&large), Some(&Body::Tombstone));
        usages.change(&id("c"), Some(&Body::Tombstone), None);
        assert_eq!(usages.of(NAMESPACE), Usage::default());
        assert_eq!(usages.0.len(), 1, "what has nothing takes no room");
    }

    #[test]
    fn growth_is_the_difference_of_all_writes_one_after_the_other_and_opening_counts_anew() {
        let settings = Settings::new([7; 16], DigestKey::new([8; 32]));
        let mut replica = Replica::open(MemoryStore::default(), settings, ReplicaId([1; 16])).unwrap();
        let now = Now { wall_ms: 1_800_000_000_000, mono_us: 0 };
        replica.found(now, &MemberRecord { pop: "a".into(), region: "here".into() }).unwrap();
        let write = |replica: &mut Replica<MemoryStore>, writes: &[(EntryId, Body)]| {
            let growth = replica.growth(writes).unwrap();
            for (id, body) in writes {
                replica.write(now, id.clone(), body.clone()).unwrap();
            }
            (growth.keys, growth.bytes)
        };
        assert_eq!(write(&mut replica, &[(id("a"), inline(10)), (id("b"), inline(20))]), (2, 32));
        // Staged states count, and of several writes to one key the last.
        assert_eq!(write(&mut replica, &[(id("a"), inline(9)), (id("a"), inline(11))]), (0, 1));
        assert_eq!(write(&mut replica, &[(id("c"), inline(5)), (id("c"), Body::Tombstone)]), (0, 0));
        assert_eq!(write(&mut replica, &[(id("b"), Body::Tombstone), (id("d"), inline(0))]), (0, -20));
        assert_eq!(replica.usage(NAMESPACE), Usage { keys: 2, bytes: 13 });
        replica.flush().unwrap();
        let reopened = Replica::open(replica.into_store(), settings, ReplicaId([2; 16])).unwrap();
        assert_eq!(reopened.usage(NAMESPACE), Usage { keys: 2, bytes: 13 });
    }
}
