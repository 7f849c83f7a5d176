//! One replica alone on virtual time, verified while things happen to its rows.

use super::*;
use crate::clock::{Dot, ReplicaId};
use crate::entry::{Body, ChunkId, Entry, EntryId, Manifest, NamespaceId, Payload, Value};
use crate::member::MemberRecord;
use crate::replica::Settings;
use crate::store::Batch;
use crate::store::memory::MemoryStore;

const START_MS: u64 = 1_800_000_000_000;
/// Enough for several slices of entries and of log rows.
const KEYS: u64 = 1_000;

struct Alone {
    replica: Replica<MemoryStore>,
    now_us: u64,
}

impl Alone {
    fn with_keys() -> Self {
        let mut settings = Settings::new([7; 16], DigestKey::new([8; 32]));
        settings.epoch_every_ms = 1_000;
        let replica = Replica::open(MemoryStore::default(), settings, ReplicaId([1; 16])).unwrap();
        let mut alone = Self { replica, now_us: 0 };
        let record = MemberRecord { pop: "a".into(), region: "here".into() };
        alone.replica.found(alone.now(), &record).unwrap();
        (0..KEYS).for_each(|n| alone.put(n, Some(n)));
        alone.replica.flush().unwrap();
        alone
    }

    fn now(&self) -> Now {
        Now { wall_ms: START_MS + self.now_us / 1000, mono_us: self.now_us }
    }

    /// Writes a value, or a tombstone. Every seventh value expires soon, and some are chunks that others name too.
    fn put(&mut self, key: u64, value: Option<u64>) {
        let expires_at_s = key.is_multiple_of(7).then_some(START_MS / 1000 + 2);
        let body = value.map_or(Body::Tombstone, |value| {
            let chunks = vec![ChunkId([(value % 11) as u8; 32])];
            let payload = match value % 5 {
                3 => Payload::Chunked(Manifest { len: 1 + value % 2, chunks }),
                _ => Payload::Inline(Bytes::from(value.to_string())),
            };
            Body::Value(Value { payload, metadata: None, expires_at_s })
        });
        self.replica.write(self.now(), id(key), body).unwrap();
    }

    /// Verifies, with a turn of a driver after each of its slices, in which `meanwhile` happens.
    fn verify(&mut self, mut meanwhile: impl FnMut(&mut Self, u64)) -> Verified {
        assert_eq!(self.replica.verify(self.now()), Ok(true));
        assert_eq!(self.replica.verify(self.now()), Ok(false), "one runs already");
        for turn in 0.. {
            self.now_us = self.now_us.max(self.replica.poll_timeout().unwrap());
            self.replica.handle_timeout(self.now()).unwrap();
            self.replica.flush().unwrap();
            while let Some(event) = self.replica.poll_event() {
                if let Event::Verified(verified) = event {
                    assert_eq!(self.replica.verifying(), None);
                    return *verified;
                }
            }
            meanwhile(self, turn);
            self.replica.flush().unwrap();
        }
        unreachable!("the turns do not end")
    }

    fn assert_fits(&self, verified: &Verified) {
        assert_eq!(verified.mismatches, []);
        let found = (verified.entries, verified.log_rows, verified.root);
        assert_eq!(found, (self.replica.entries, self.replica.log_rows, self.replica.root()));
    }
}

fn id(key: u64) -> EntryId {
    EntryId::value(NamespaceId([9; 16]), format!("key {key:04}"))
}

#[test]
fn a_store_fits_its_books_and_progress_shows() {
    let mut alone = Alone::with_keys();
    let mut seen = Vec::new();
    let verified = alone.verify(|alone, _| seen.extend(alone.replica.verifying()));
    alone.assert_fits(&verified);
    assert!(verified.entries > KEYS && verified.log_rows >= KEYS && verified.bytes > 40 * KEYS);
    assert_eq!(verified.began_ms, START_MS);
    assert!(seen.len() as u64 >= 2 * KEYS / SLICE_ROWS as u64, "{seen:?}");
    assert!(seen.is_sorted_by(|a, b| a.done <= b.done && b.done < b.total), "{seen:?}");
}

#[test]
fn writes_deletes_and_drops_do_not_disturb_it() {
    let mut alone = Alone::with_keys();
    let verified = alone.verify(|alone, turn| {
        // New, overwritten and deleted keys, before and behind the walk.
        for n in 0..40 {
            let key = (turn * 131 + n * 29) % (2 * KEYS);
            alone.put(key, (n % 3 != 0).then_some(turn));
        }
        // So much at a time that an epoch passes, whose sweep drops entries and log rows between two slices.
        if turn == 1 {
            alone.now_us += 3_000_000;
        }
        for _ in 0..5 {
            alone.replica.flush().unwrap();
            alone.replica.sweep_slice().unwrap();
        }
    });
    assert!(alone.replica.counters().dropped > 100, "{:?}", alone.replica.counters());
    alone.assert_fits(&verified);
}

/// What is done to the store behind the replica's back, and what is then found.
fn check(spoil: impl FnOnce(&mut MemoryStore), is_found: impl FnOnce(&[Mismatch]) -> bool) {
    check_replica(|replica| spoil(replica.store_mut()), is_found);
}

fn check_replica(spoil: impl FnOnce(&mut Replica<MemoryStore>), is_found: impl FnOnce(&[Mismatch]) -> bool) {
    let mut alone = Alone::with_keys();
    spoil(&mut alone.replica);
    let verified = alone.verify(|alone, turn| alone.put(turn, None));
    assert!(is_found(&verified.mismatches), "{:?}", verified.mismatches);
    assert!(!verified.mismatches.iter().any(|mismatch| mismatch.to_string().is_empty()));
}

#[test]
fn a_lost_entry_is_found() {
    check(
        |store| assert!(store.lose(&keys::entry(&id(500)))),
        |found| matches!(found, [Mismatch::Entries { found, expected }, Mismatch::Root { .. }] if found + 1 == *expected),
    );
}

#[test]
fn a_lost_row_of_the_chunk_index_is_found() {
    let row_key = keys::chunk(&ChunkId([503 % 11; 32].map(|name: u16| name as u8)), &keys::entry(&id(503)));
    check(
        |store| assert!(store.lose(&row_key)),
        |found| matches!(found, [Mismatch::ChunkIndex { found, expected }] if found + 1 == *expected),
    );
}

#[test]
fn a_lost_log_row_is_found() {
    check(
        |store| {
            let mut key = None;
            let find = &mut |row_key: &[u8], _| {
                key = Some(row_key.to_vec());
                ControlFlow::Break(())
            };
            store.scan(&[keys::LOG], find).unwrap();
            assert!(store.lose(&key.unwrap()));
        },
        |found| matches!(found, [Mismatch::LogRows { found, expected }] if found + 1 == *expected),
    );
}

/// The row is whole, as an older copy of it is that comes back.
#[test]
fn a_row_of_another_state_is_found() {
    check(
        |store| {
            let key = keys::entry(&id(500));
            let row = store.read(&key).unwrap().unwrap();
            let mut decoded = row::decode_entry(&key, &row).unwrap();
            decoded.hlc = decoded.hlc.next();
            let other = row::encode_entry(&key, &decoded);
            store.commit(Batch::from([(key, Some(other))])).unwrap();
        },
        |found| matches!(found, [Mismatch::Root { .. }]),
    );
}

/// The root is right; a round would look for what differs in the wrong place.
#[test]
fn a_count_in_the_wrong_leaf_is_found() {
    check_replica(
        |replica| {
            let key = replica.digest_key();
            let dot = Dot { hlc: Hlc::new(START_MS, 0), replica: replica.id() };
            let [here, there] = [1, 2].map(|name| key.name_hash(&id(KEYS * name)));
            let state = key.state_digest(here, &Entry::first(dot, Body::Tombstone));
            replica.tree.replace(here, None, Some(state));
            replica.tree.replace(there, Some(state), None);
        },
        |found| matches!(found, [Mismatch::Tree]),
    );
}

#[test]
fn a_wrong_count_of_what_a_namespace_has_is_found() {
    check_replica(
        |replica| replica.usages.change(&id(500), Some(&Body::Tombstone), Some(&counted())),
        |found| matches!(found, [Mismatch::Usage]),
    );
}

/// A value that is in no row.
fn counted() -> Body {
    Body::Value(Value { payload: Payload::Inline("x".into()), metadata: None, expires_at_s: None })
}

#[test]
fn a_damaged_row_ends_it() {
    for key in [keys::entry(&id(500)), keys::entry(&id(999))] {
        check(
            |store| {
                let mut row = store.read(&key).unwrap().unwrap().to_vec();
                row[4] ^= 1;
                store.commit(Batch::from([(key.clone(), Some(row))])).unwrap();
            },
            |found| matches!(found, [Mismatch::Damaged { row, .. }] if row.contains("key 0")),
        );
    }
}
