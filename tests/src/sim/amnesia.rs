//! Makes a store forget entries it claims to hold, or have them in a state of long ago, and leaves no trace that
//! bookkeeping could see: what a bug would do. Only anti-entropy can find it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use replication::codec::row;
use replication::digest::DigestTree;
use replication::store::Batch;
use replication::{Body, DigestKey, Dot, EntryId, Hlc, Store, keys};

use super::disk::Disk;
use super::oracle::NAMESPACE;
use super::scenario::Amnesia;
use crate::random::Random;

/// Bits of a leaf's number below those that tell which of four parts of the tree it is in.
const BITS_BELOW_PART: u32 = 14;

/// Removes entries that `held_elsewhere` says are safe, about a third or one part of the tree, or sets some back, takes
/// their log rows away, and makes counts and root fit again. Gives how many. Entries with events of the store's own in
/// the log stay: of those, more than entries would tell.
pub(super) fn forget(
    store: &mut Disk,
    key: &DigestKey,
    (kind, rng): (Amnesia, &mut Random),
    held_elsewhere: &dyn Fn(&EntryId, Dot) -> bool,
) -> usize {
    let Some(summary) = store.read(keys::SUMMARY).expect("a disk in memory reads") else { return 0 };
    let mut summary = row::decode_summary(&summary).expect("the replica wrote it");
    let mut tree = DigestTree::default();
    let mut forgotten = BTreeSet::new();
    let mut set_back = Batch::new();
    let mut doomed = Vec::new();
    let part = rng.below(1 << (16 - BITS_BELOW_PART)) as u16;
    let own = own_events(store);
    let mut visit = |row_key: &[u8], bytes: bytes::Bytes| {
        if let (Some(id), Ok(mut row)) = (keys::parse_entry(row_key), row::decode_entry(row_key, &bytes)) {
            let replica = summary.origins[usize::from(row.origin_index)].0;
            let is_meant = match kind {
                Amnesia::None => false,
                Amnesia::Some => rng.permille(333),
                Amnesia::Shard => key.name_hash(&id).leaf() >> BITS_BELOW_PART == part,
            };
            // A tombstone that two have lost (who forgets it hands on a log without it) would be dropped by the others one
            // day, and then nothing would say that an older value is dead.
            let stays = matches!(&row.body, Body::Value(value) if value.expires_at_s.is_none());
            let may_go = stays && id.namespace == NAMESPACE && !own.contains(&id);
            let is_chosen = is_meant && may_go && held_elsewhere(&id, Dot { hlc: row.hlc, replica });
            let is_removed = is_chosen && (kind == Amnesia::Shard || rng.permille(500));
            if is_chosen && !is_removed {
                (row.hlc, row.base) = (Hlc::from_bits(1), Hlc::ZERO);
                set_back.insert(row_key.to_vec(), Some(row::encode_entry(row_key, &row)));
            }
            if is_chosen {
                forgotten.insert(id.clone());
            }
            if is_removed {
                doomed.push(row_key.to_vec());
            } else {
                let name = key.name_hash(&id);
                tree.replace(name, None, Some(key.state_digest(name, &row.entry(replica))));
            }
        }
        ControlFlow::Continue(())
    };
    store.scan(&[keys::ENTRY], &mut visit).expect("a disk in memory scans");
    let mut log_rows = 0;
    let mut visit = |row_key: &[u8], bytes: bytes::Bytes| {
        if row_key.first() == Some(&keys::LOG)
            && let Ok(row) = row::decode_log(row_key, Hlc::ZERO, &bytes)
            && forgotten.contains(&row.id)
        {
            doomed.push(row_key.to_vec());
            log_rows += 1;
        }
        ControlFlow::Continue(())
    };
    store.scan(&[keys::LOG], &mut visit).expect("a disk in memory scans");
    summary.entries -= doomed.iter().filter(|row_key| row_key.first() == Some(&keys::ENTRY)).count() as u64;
    doomed.iter().for_each(|row_key| assert!(store.lose(row_key)));
    summary.log_rows -= log_rows;
    summary.root = tree.root();
    set_back.insert(keys::SUMMARY.to_vec(), Some(row::encode_summary(&summary)));
    store.commit(set_back).and_then(|()| store.flush()).expect("a disk in memory commits");
    forgotten.len()
}

/// The entries that events of the store's own wrote, as far as its log goes back.
fn own_events(store: &Disk) -> BTreeSet<EntryId> {
    let mut own = BTreeSet::new();
    let mut visit = |row_key: &[u8], bytes: bytes::Bytes| {
        if keys::parse_log(row_key, 0).is_none() {
            return ControlFlow::Break(());
        }
        if let Ok(row) = row::decode_log(row_key, Hlc::ZERO, &bytes) {
            own.insert(row.id);
        }
        ControlFlow::Continue(())
    };
    store.scan(&keys::log(0, Hlc::ZERO), &mut visit).expect("a disk in memory scans");
    own
}
