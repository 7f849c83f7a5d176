//! Digests of entries' states, and what is kept of them in memory: the root, counts by place, and the sketch.
//!
//! The root is the *sum* of all digests (mod 2^128), so changing one entry is two additions, whatever the size of
//! the store, and it never lags the data. Sums of hashes are safe against accidents, not against someone who can
//! choose the summands (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997): hence BLAKE3
//! is keyed with a secret of the cluster. The root says *whether* two replicas differ, the sketch *in what*
//! ([`crate::sketch`]), and the counts whether a whole range is missing.

use std::fmt;

use crate::clock::{Hlc, ReplicaId};
use crate::codec::parts;
use crate::entry::{Body, Entry, EntryId, Payload};
use crate::sketch::{Fold, Item, Sketch};

/// Leaves, by the first 16 bits of the hash of an entry's name.
pub const LEAVES: usize = 1 << 16;
/// Nodes above them, by the first 8 bits.
pub const NODES: usize = 1 << 8;
/// Leaves below a node.
pub const NODE_LEAVES: usize = LEAVES / NODES;

/// A digest: of an entry's state, or the sum over many.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// As it is stored and sent.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From its stored form.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// What the sketch knows the state by.
    pub const fn item(self) -> Item {
        Item::of(self.0 as u64)
    }

    fn add(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }

    fn subtract(&mut self, other: Digest) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// In the head of what is hashed of a state made of parts.
const MADE_OF_PARTS: u8 = 8;

/// In the head of what is hashed of a state with a base, whose time is hashed last.
const HAS_BASE: u8 = 16;

/// The keyed hash of an entry's name: its place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameHash(u128);

impl NameHash {
    /// The hash itself.
    pub const fn to_bits(self) -> u128 {
        self.0
    }

    /// The leaf it falls into.
    pub fn leaf(self) -> u16 {
        (self.0 >> (128 - 16)) as u16
    }
}

/// The cluster's digest secret.
#[derive(Clone, Copy)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// The key made of the cluster's secret.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Where an entry stands in the tree.
    pub fn name_hash(&self, id: &EntryId) -> NameHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&id.namespace.0);
        hasher.update(&[id.kind as u8]);
        if id.kind.has_elements() {
            hasher.update(&(id.key.len() as u32).to_be_bytes());
        }
        hasher.update(&id.key).update(&id.element);
        NameHash(first_half(&hasher))
    }

    /// The digest of one state of an entry: equal exactly where name and state are equal.
    pub fn state_digest(&self, name: NameHash, entry: &Entry) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let ReplicaId(replica) = entry.dot.replica;
        let mut head = [0; 16 + 16 + 8 + 1];
        head[..16].copy_from_slice(&name.0.to_be_bytes());
        head[16..32].copy_from_slice(&replica);
        head[32..40].copy_from_slice(&entry.dot.hlc.to_bits().to_be_bytes());
        let has_base = entry.base != Hlc::ZERO;
        if has_base {
            head[40] = HAS_BASE;
        }
        if !matches!(entry.body, Body::Value(_) | Body::Tombstone) {
            head[40] = MADE_OF_PARTS;
            hasher.update(&head).update(&parts::canonical(&entry.body, entry.dot));
        } else if let Body::Value(value) = &entry.body {
            let chunked = matches!(value.payload, Payload::Chunked(_));
            head[40] |= 1 | u8::from(chunked) << 1 | u8::from(value.metadata.is_some()) << 2;
            hasher.update(&head);
            hasher.update(&value.expires_at_s.unwrap_or(0).to_be_bytes());
            hasher.update(&value.payload.len().to_be_bytes());
            match &value.payload {
                Payload::Inline(bytes) => hasher.update(bytes),
                Payload::Chunked(manifest) => {
                    manifest.chunks.iter().fold(&mut hasher, |h, chunk| h.update(&chunk.0))
                }
            };
            hasher.update(value.metadata.as_deref().unwrap_or_default());
        } else {
            hasher.update(&head);
        }
        if has_base {
            hasher.update(&entry.base.to_bits().to_be_bytes());
        }
        Digest(first_half(&hasher))
    }
}

fn first_half(hasher: &blake3::Hasher) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(bytes)
}

/// What is kept of all states: 4 MiB, whatever the size of the store. A tree of two levels (its counts), with the
/// root and the sketch beside them.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestTree {
    root: Digest,
    /// Entries by leaf.
    leaves: Vec<u32>,
    sketch: Sketch,
}

impl Default for DigestTree {
    fn default() -> Self {
        Self { root: Digest::default(), leaves: vec![0; LEAVES], sketch: Sketch::default() }
    }
}

impl DigestTree {
    /// The digest of everything.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// Entries below each of the [`NODES`].
    pub fn node_counts(&self) -> Vec<u32> {
        self.leaves.chunks_exact(NODE_LEAVES).map(|leaves| leaves.iter().sum()).collect()
    }

    /// Entries in each leaf below a node.
    pub fn leaf_counts(&self, node: u8) -> &[u32] {
        &self.leaves[usize::from(node) * NODE_LEAVES..][..NODE_LEAVES]
    }

    /// Entries by leaf.
    pub fn leaves(&self) -> &[u32] {
        &self.leaves
    }

    /// The sketch of all states, with tables of `size` cells.
    pub fn fold(&self, size: u32) -> Fold {
        self.sketch.fold(size)
    }

    /// Puts `new` in the place of `old` for the entry with this name.
    pub fn replace(&mut self, name: NameHash, old: Option<Digest>, new: Option<Digest>) {
        let leaf = &mut self.leaves[usize::from(name.leaf())];
        if let Some(old) = old.filter(|_| !planted!(DigestNeverSubtracts)) {
            self.root.subtract(old);
            self.sketch.remove(old.item());
            *leaf = leaf.wrapping_sub(1);
        }
        if let Some(new) = new {
            self.root.add(new);
            self.sketch.add(new.item());
            *leaf = leaf.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Dot, Hlc};
    use crate::entry::{NamespaceId, Value};
    use crate::sketch::CELLS;
    use bytes::Bytes;

    const KEY: DigestKey = DigestKey([9; 32]);

    fn entry(ms: u64, body: Body) -> Entry {
        Entry::first(Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([1; 16]) }, body)
    }

    fn value(text: &'static str, metadata: Option<&'static str>, expires_at_s: Option<u64>) -> Body {
        let payload = Payload::Inline(Bytes::from(text));
        Body::Value(Value { payload, metadata: metadata.map(Bytes::from), expires_at_s })
    }

    #[test]
    fn every_part_of_a_state_shows_in_its_digest() {
        let name = KEY.name_hash(&EntryId::value(NamespaceId([0; 16]), "k"));
        let states = [
            entry(1, Body::Tombstone),
            entry(2, Body::Tombstone),
            entry(1, value("", None, None)),
            entry(1, value("a", None, None)),
            entry(1, value("", Some("a"), None)),
            entry(1, value("", Some(""), None)),
            entry(1, value("a", None, Some(7))),
        ];
        let digests: Vec<_> = states.iter().map(|state| KEY.state_digest(name, state)).collect();
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "state {i}");
        }
    }

    #[test]
    fn order_of_changes_does_not_show_and_undoing_them_leaves_nothing() {
        let changes: Vec<_> = (0..200u64)
            .map(|n| {
                let name = KEY.name_hash(&EntryId::value(NamespaceId([0; 16]), n.to_string()));
                (name, KEY.state_digest(name, &entry(n, Body::Tombstone)))
            })
            .collect();
        let show = |tree: &DigestTree| (tree.root(), tree.node_counts(), tree.fold(CELLS));
        let mut forward = DigestTree::default();
        changes.iter().for_each(|(name, digest)| forward.replace(*name, None, Some(*digest)));
        let mut backward = DigestTree::default();
        changes.iter().rev().for_each(|(name, digest)| backward.replace(*name, None, Some(*digest)));
        assert!(show(&forward) == show(&backward));
        assert_eq!(forward.node_counts().iter().sum::<u32>(), 200);
        for node in 0..=u8::MAX {
            assert_eq!(
                forward.leaf_counts(node).iter().sum::<u32>(),
                forward.node_counts()[usize::from(node)]
            );
        }
        changes.iter().for_each(|(name, digest)| forward.replace(*name, Some(*digest), None));
        assert!(show(&forward) == show(&DigestTree::default()));
    }
}
