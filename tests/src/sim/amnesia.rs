//! Makes a store forget entries it claims to hold, or have them in a state of long ago, and leaves no trace that
//! bookkeeping could see: what a bug would do. Only anti-entropy can find it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use replication::codec::row;
use replication::digest::DigestTree;
use replication::store::Batch;
use replication::store::memory::MemoryStore;
use replication::{Body, DigestKey, Dot, Entry, EntryId, Hlc, Store, keys};

use crate::random::Random;

/// Removes about a third of the entries that `held_elsewhere` says are safe, or sets them back, takes their log
/// rows away, and makes counts and root fit again. Gives how many.
pub fn forget(
    store: &mut MemoryStore,
    key: &DigestKey,
    rng: &mut Random,
    held_elsewhere: &dyn Fn(&EntryId, Dot) -> bool,
) -> usize {
    let Some(summary) = store.read(keys::SUMMARY).expect("memory reads") else { return 0 };
    let mut summary = row::decode_summary(&summary).expect("the replica wrote it");
    let mut tree = DigestTree::default();
    let mut forgotten = BTreeSet::new();
    let mut set_back = Batch::new();
    let mut doomed = Vec::new();
    let mut visit = |row_key: &[u8], bytes: bytes::Bytes| {
        if let (Some(id), Ok(mut row)) = (keys::parse_entry(row_key), row::decode_entry(row_key, &bytes)) {
            let replica = summary.origins[usize::from(row.origin_index)].0;
            let is_chosen = rng.permille(333) && held_elsewhere(&id, Dot { hlc: row.hlc, replica });
            let is_removed = is_chosen && rng.permille(500);
            if is_chosen && !is_removed {
                row.hlc = Hlc::from_bits(1);
                row.body = Body::Tombstone;
                set_back.insert(row_key.to_vec(), Some(row::encode_entry(row_key, &row)));
            }
            if is_chosen {
                forgotten.insert(id.clone());
            }
            if is_removed {
                doomed.push(row_key.to_vec());
            } else {
                let name = key.name_hash(&id);
                let entry = Entry { dot: Dot { hlc: row.hlc, replica }, body: row.body };
                tree.replace(name, None, Some(key.state_digest(name, &entry)));
            }
        }
        ControlFlow::Continue(())
    };
    store.scan(&[keys::ENTRY], &mut visit).expect("memory scans");
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
    store.scan(&[keys::LOG], &mut visit).expect("memory scans");
    summary.entries -= doomed.iter().filter(|row_key| row_key.first() == Some(&keys::ENTRY)).count() as u64;
    doomed.iter().for_each(|row_key| assert!(store.lose(row_key)));
    summary.log_rows -= log_rows;
    summary.root = tree.root();
    set_back.insert(keys::SUMMARY.to_vec(), Some(row::encode_summary(&summary)));
    store.commit(set_back).and_then(|()| store.flush()).expect("memory commits");
    forgotten.len()
}
