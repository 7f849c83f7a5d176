//! The digest tree: a Merkle tree of fixed shape over the keyed hashes of the entries' names.
//!
//! A node is the *sum* of its children (mod 2^128), and a leaf the sum of its entries' digests, so changing
//! one entry is five additions, whatever the size of the store, and the tree never lags the data. Sums of
//! hashes are safe against accidents, not against someone who can choose the summands (Bellare and
//! Micciancio, "A New Paradigm for Collision-Free Hashing", 1997): hence BLAKE3 is keyed with a secret of
//! the cluster.

use std::fmt;

use crate::clock::ReplicaId;
use crate::entry::{Body, Entry, EntryId, Payload};

/// How many bits of an entry's hash one level of the tree decides: 16 children a node.
const BITS_PER_LEVEL: u32 = 4;
/// Levels below the root.
pub const DEPTH: u8 = 4;
/// Leaves of the tree.
pub const LEAVES: usize = 1 << (BITS_PER_LEVEL * DEPTH as u32);
/// Children of a node.
pub const FANOUT: usize = 1 << BITS_PER_LEVEL;

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

    /// Eight bytes that tell states of one entry apart within a round.
    pub const fn short(self) -> u64 {
        self.0 as u64
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

/// The keyed hash of an entry's name: its place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameHash(u128);

impl NameHash {
    /// The leaf it falls into.
    pub fn leaf(self) -> u16 {
        (self.0 >> (128 - BITS_PER_LEVEL * u32::from(DEPTH))) as u16
    }

    /// Eight bytes that name the entry within a round.
    pub fn short(self) -> u64 {
        self.0 as u64
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
        hasher.update(&id.key);
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
        if let Body::Value(value) = &entry.body {
            let chunked = matches!(value.payload, Payload::Chunked(_));
            head[40] = 1 | u8::from(chunked) << 1 | u8::from(value.metadata.is_some()) << 2;
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
        Digest(first_half(&hasher))
    }
}

fn first_half(hasher: &blake3::Hasher) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(bytes)
}

/// The tree: 1.1 MiB, whatever the size of the store.
#[derive(Clone)]
pub struct DigestTree {
    /// Level 0 is the root, level [`DEPTH`] the leaves.
    levels: Vec<Vec<Digest>>,
}

impl Default for DigestTree {
    fn default() -> Self {
        Self { levels: (0..=DEPTH).map(|level| vec![Digest::default(); nodes_at(level)]).collect() }
    }
}

impl DigestTree {
    /// The digest of everything.
    pub fn root(&self) -> Digest {
        self.levels[0][0]
    }

    /// The digest of one node; `None` when there is no such node.
    pub fn node(&self, level: u8, index: u16) -> Option<Digest> {
        self.levels.get(usize::from(level))?.get(usize::from(index)).copied()
    }

    /// Puts `new` in the place of `old` for the entry with this name.
    pub fn replace(&mut self, name: NameHash, old: Option<Digest>, new: Option<Digest>) {
        for (level, nodes) in self.levels.iter_mut().enumerate() {
            let index = usize::from(name.leaf()) >> (BITS_PER_LEVEL as usize * (usize::from(DEPTH) - level));
            if let Some(old) = old.filter(|_| !planted!(DigestNeverSubtracts)) {
                nodes[index].subtract(old);
            }
            if let Some(new) = new {
                nodes[index].add(new);
            }
        }
    }
}

/// How many nodes a level has.
pub fn nodes_at(level: u8) -> usize {
    FANOUT.pow(u32::from(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Dot, Hlc};
    use crate::entry::{NamespaceId, Value};
    use bytes::Bytes;

    const KEY: DigestKey = DigestKey([9; 32]);

    fn entry(ms: u64, body: Body) -> Entry {
        Entry { dot: Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([1; 16]) }, body }
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
    fn order_of_changes_does_not_show_and_every_level_sums_up() {
        let changes: Vec<_> = (0..200u64)
            .map(|n| {
                let name = KEY.name_hash(&EntryId::value(NamespaceId([0; 16]), n.to_string()));
                (name, KEY.state_digest(name, &entry(n, Body::Tombstone)))
            })
            .collect();
        let mut forward = DigestTree::default();
        changes.iter().for_each(|(name, digest)| forward.replace(*name, None, Some(*digest)));
        let mut backward = DigestTree::default();
        changes.iter().rev().for_each(|(name, digest)| backward.replace(*name, None, Some(*digest)));
        assert_eq!(forward.levels, backward.levels);
        for level in 0..DEPTH {
            for index in 0..nodes_at(level) {
                let mut sum = Digest::default();
                (0..FANOUT).for_each(|child| {
                    sum.add(forward.levels[usize::from(level) + 1][index * FANOUT + child])
                });
                assert_eq!(forward.node(level, index as u16), Some(sum));
            }
        }
        changes.iter().for_each(|(name, digest)| forward.replace(*name, Some(*digest), None));
        assert_eq!(forward.root(), Digest::default());
    }
}
