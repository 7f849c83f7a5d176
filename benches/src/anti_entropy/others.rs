//! Two other ways to find what two sets do not share, on the very sets that the replicas have: range-based
//! reconciliation (the `negentropy` crate) and a Merkle tree of 16-way nodes. They find ids; rows are not moved.

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use super::{Cost, Known, cpu_ms};

/// Bits of a hash that one level of the tree decides.
const BITS_PER_LEVEL: u32 = 4;
/// Levels below the root: 65,536 leaves.
const DEPTH: u32 = 4;
/// Bytes of a node that is compared: its index and its digest.
const COMPARED_BYTES: u64 = 2 + 16;
/// Bytes of the index of a node that differs.
const DIFFERING_BYTES: u64 = 2;
/// Bytes of an entry listed from a leaf: eight of its name and eight of its state.
const LISTED_BYTES: u64 = 16;
/// Bytes to ask for an entry.
const WANTED_BYTES: u64 = 8;

/// The digests of the entries that are left, rising.
pub(super) fn set(known: &[Known], lost: &[u64]) -> Vec<u128> {
    let left = known.iter().filter(|known| lost.binary_search(&known.number).is_err());
    let mut set: Vec<u128> = left.map(|known| u128::from_be_bytes(known.digest.to_bytes())).collect();
    set.sort_unstable();
    set
}

/// Range-based reconciliation (Meyer, "Range-Based Set Reconciliation", 2023), with its ids of 32 bytes, no limit of
/// frames, and one time for all.
pub(super) fn negentropy(sets: &[Vec<u128>; 2]) -> anyhow::Result<Cost> {
    let storage = |set: &Vec<u128>| -> anyhow::Result<NegentropyStorageVector> {
        let mut storage = NegentropyStorageVector::with_capacity(set.len());
        for digest in set {
            let mut bytes = [0; 32];
            bytes[..16].copy_from_slice(&digest.to_be_bytes());
            bytes[16..].copy_from_slice(&digest.rotate_left(64).to_be_bytes());
            storage.insert(0, Id::from_byte_array(bytes))?;
        }
        storage.seal()?;
        Ok(storage)
    };
    let storages = [storage(&sets[0])?, storage(&sets[1])?];
    let started = cpu_ms();
    let mut initiator = Negentropy::borrowed(&storages[0], 0)?;
    let mut responder = Negentropy::borrowed(&storages[1], 0)?;
    let (mut had, mut lacked) = (Vec::new(), Vec::new());
    let mut cost = Cost::default();
    let mut next = Some(initiator.initiate()?);
    while let Some(message) = next {
        let answer = responder.reconcile(&message)?;
        cost.bytes[0] += message.len() as u64;
        cost.bytes[1] += answer.len() as u64;
        cost.half_trips += 2;
        next = initiator.reconcile_with_ids(&answer, &mut had, &mut lacked)?;
    }
    cost.cpu_ms = cpu_ms() - started;
    // What the responder lacks comes with the next half round trip, what the initiator lacks with the one after.
    cost.half_trips += if lacked.is_empty() { u32::from(!had.is_empty()) } else { 2 };
    cost.bytes[0] += 32 * lacked.len() as u64;
    Ok(cost)
}

/// A walk down a Merkle tree, then lists of the leaves that differ.
pub(super) fn merkle(sets: &[Vec<u128>; 2]) -> Cost {
    let started = cpu_ms();
    let trees = [tree(&sets[0]), tree(&sets[1])];
    let mut cost = Cost::default();
    let differs = |level: u32, node: usize| trees[0][level as usize][node] != trees[1][level as usize][node];
    let mut differing = if differs(0, 0) { vec![0] } else { Vec::new() };
    for level in 1..=DEPTH {
        if differing.is_empty() {
            break;
        }
        let children: Vec<usize> = differing
            .iter()
            .flat_map(|node| (0..1 << BITS_PER_LEVEL).map(move |c| node << BITS_PER_LEVEL | c))
            .collect();
        cost.bytes[0] += children.len() as u64 * COMPARED_BYTES;
        differing = children.into_iter().filter(|node| differs(level, *node)).collect();
        cost.bytes[1] += differing.len() as u64 * DIFFERING_BYTES;
        cost.half_trips += 2;
    }
    let leaf = |digest: u128| (digest >> (128 - BITS_PER_LEVEL * DEPTH)) as usize;
    let listed = sets[0].iter().filter(|digest| differing.binary_search(&leaf(**digest)).is_ok()).count();
    cost.bytes[0] += listed as u64 * LISTED_BYTES;
    let (lacked, asked) = (missing(&sets[0], &sets[1]), missing(&sets[1], &sets[0]));
    cost.bytes[1] += asked * WANTED_BYTES;
    if !differing.is_empty() {
        cost.half_trips += 1 + u32::from(lacked + asked > 0) + u32::from(asked > 0);
    }
    cost.cpu_ms = cpu_ms() - started;
    cost
}

/// How many of `of` are not in `set`.
fn missing(set: &[u128], of: &[u128]) -> u64 {
    of.iter().filter(|digest| set.binary_search(digest).is_err()).count() as u64
}

/// The sums of all nodes, by level.
fn tree(set: &[u128]) -> Vec<Vec<u128>> {
    let mut levels: Vec<Vec<u128>> =
        (0..=DEPTH).map(|level| vec![0; 1 << (BITS_PER_LEVEL * level)]).collect();
    for digest in set {
        for (level, nodes) in (0..).zip(&mut levels) {
            let node = if level == 0 { 0 } else { digest >> (128 - BITS_PER_LEVEL * level) };
            nodes[node as usize] = nodes[node as usize].wrapping_add(*digest);
        }
    }
    levels
}
