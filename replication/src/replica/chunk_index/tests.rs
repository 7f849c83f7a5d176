//! The index against the states, after all that can happen to a state.

use bytes::Bytes;

use super::*;
use crate::clock::{Dot, Hlc, ReplicaId};
use crate::codec::round::RepairRow;
use crate::entry::{CHUNK_BYTES, Entry, EntryId, Manifest, NamespaceId, Payload, Value};
use crate::replica::Settings;
use crate::replica::tests::{A, Pair, SETTINGS};
use crate::store::Batch;
use crate::store::memory::MemoryStore;

fn chunk(number: u8) -> ChunkId {
    ChunkId([number; 32])
}

fn id(key: &'static str) -> EntryId {
    EntryId::value(NamespaceId([9; 16]), key)
}

/// A value of these chunks, the last of them one byte long.
fn value(chunks: &[u8], expires_at_s: Option<u64>) -> Body {
    let len = (chunks.len() as u64 - 1) * CHUNK_BYTES as u64 + 1;
    let manifest = Manifest { len, chunks: chunks.iter().map(|number| chunk(*number)).collect() };
    Body::Value(Value { payload: Payload::Chunked(manifest), metadata: None, expires_at_s })
}

fn write(pair: &mut Pair, side: usize, key: &'static str, body: Body) {
    let now = pair.now(side);
    pair.replicas[side].write(now, id(key), body).unwrap();
    pair.replicas[side].flush().unwrap();
}

/// The chunks released since the last question, by their numbers.
fn released(replica: &mut Replica<MemoryStore>) -> Vec<u8> {
    let mut released = Vec::new();
    while let Some(event) = replica.poll_event() {
        if let Event::ChunksReleased(chunks) = event {
            released.extend(chunks.iter().map(|chunk| chunk.0[0]));
        }
    }
    released
}

/// The chunks named at a replica, which its index must have right.
fn named_at(replica: &Replica<MemoryStore>) -> Vec<u8> {
    let (mut listed, mut expected) = (ChunkRows::default(), ChunkRows::default());
    let scan = &mut |row_key: &[u8], row: Bytes| {
        match row_key.first() {
            Some(&keys::CHUNK) => listed.add(row_key, row::decode_chunk(row_key, &row).unwrap()),
            Some(&keys::ENTRY) => {
                expected.add_all(row_key, &row::decode_entry(row_key, &row).unwrap().body);
            }
            Some(&keys::CONFLICT) => {
                expected.add_all(row_key, &decode_conflict(row_key, &row).unwrap().lost.body);
            }
            Some(&keys::RETURNED) => {
                expected.add_all(row_key, &row::decode_returned(row_key, &row).unwrap().entry.body);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    };
    replica.store().scan(&[], scan).unwrap();
    assert_eq!(listed, expected);
    let mut named = Vec::new();
    crate::read::chunks(replica.store(), &mut |chunk, _| named.push(chunk.0[0])).unwrap();
    for number in 0..10 {
        assert_eq!(replica.is_chunk_named(&chunk(number)).unwrap(), named.contains(&number));
    }
    named
}

#[test]
fn a_chunk_is_released_when_the_last_value_that_names_it_goes() {
    let mut pair = Pair::connected();
    write(&mut pair, 0, "a", value(&[1, 2, 2], None));
    write(&mut pair, 0, "b", value(&[2, 3], None));
    pair.run_ms(50);
    for side in 0..2 {
        assert_eq!(named_at(&pair.replicas[side]), [1, 2, 3]);
        assert_eq!(released(&mut pair.replicas[side]), []);
    }
    assert_eq!(pair.replicas[0].chunk_bytes(&chunk(1)), Ok(Some(CHUNK_BYTES as u64)));
    assert_eq!(pair.replicas[0].chunk_bytes(&chunk(3)), Ok(Some(1)));
    // Overwritten here, and by a merge there: what the other value names stays.
    write(&mut pair, 0, "a", value(&[4], None));
    pair.run_ms(50);
    for side in 0..2 {
        assert_eq!(named_at(&pair.replicas[side]), [2, 3, 4]);
        assert_eq!(released(&mut pair.replicas[side]), [1]);
    }
    write(&mut pair, 1, "b", Body::Tombstone);
    pair.run_ms(50);
    for side in 0..2 {
        assert_eq!(named_at(&pair.replicas[side]), [4]);
        assert_eq!(released(&mut pair.replicas[side]), [2, 3]);
    }
    assert_eq!(pair.replicas[0].root(), pair.replicas[1].root());
    let asked = (1..6).map(chunk).collect();
    let unnamed = pair.replicas[0].unnamed_chunks(asked).unwrap();
    assert_eq!(unnamed, Some([1, 2, 3, 5].map(chunk).to_vec()));
}

#[test]
fn a_chunk_named_again_in_the_same_flush_is_not_released() {
    let mut pair = Pair::new();
    write(&mut pair, 0, "a", value(&[1, 2], None));
    for body in [value(&[3], None), value(&[2], None)] {
        let now = pair.now(0);
        pair.replicas[0].write(now, id("a"), body).unwrap();
    }
    assert_eq!(pair.replicas[0].is_chunk_named(&chunk(1)), Ok(false), "staged changes count");
    assert_eq!(pair.replicas[0].is_chunk_named(&chunk(2)), Ok(true));
    assert_eq!(released(&mut pair.replicas[0]), [], "nothing is released before it is flushed");
    pair.replicas[0].flush().unwrap();
    assert_eq!(released(&mut pair.replicas[0]), [1, 3]);
    assert_eq!(named_at(&pair.replicas[0]), [2]);
}

#[test]
fn an_expired_value_lets_go_of_its_chunks_when_it_is_swept() {
    let mut pair = Pair::connected();
    let now_s = pair.now(0).wall_ms / 1000;
    write(&mut pair, 0, "a", value(&[1], Some(now_s + 1)));
    write(&mut pair, 0, "b", value(&[2], None));
    pair.run_ms(2_000);
    assert_eq!(named_at(&pair.replicas[1]), [1, 2], "it has expired, and is there still");
    pair.run_ms(2 * SETTINGS.epoch_every_ms);
    for side in 0..2 {
        assert_eq!(named_at(&pair.replicas[side]), [2]);
        assert_eq!(released(&mut pair.replicas[side]), [1]);
    }
}

#[test]
fn a_value_that_lost_unseen_names_its_chunks_while_it_is_kept() {
    let mut pair = Pair::new();
    write(&mut pair, 0, "a", value(&[1, 2], None));
    pair.run_ms(5);
    write(&mut pair, 1, "a", value(&[2, 3], None));
    pair.connect();
    pair.run_ms(50);
    for side in 0..2 {
        assert_eq!(named_at(&pair.replicas[side]), [1, 2, 3]);
        assert_eq!(released(&mut pair.replicas[side]), []);
        let listed = crate::read::conflicts::page(
            pair.replicas[side].store(),
            NamespaceId([9; 16]),
            crate::read::conflicts::Keys::One(b"a"),
            None,
            10,
        );
        let lost = listed.unwrap().rows.pop().unwrap().lost.dot;
        // An index that was lost is made anew with it.
        let store = pair.replicas[side].store_mut();
        assert!(store.lose(&keys::chunk(&chunk(1), &keys::conflict(NamespaceId([9; 16]), b"a", lost))));
        let reopened = Replica::open(store.clone(), SETTINGS, A).unwrap();
        assert_eq!(named_at(&reopened), [1, 2, 3]);
        pair.replicas[side] = reopened;
        assert_eq!(pair.replicas[side].dismiss_conflict(NamespaceId([9; 16]), b"a", lost), Ok(true));
        pair.replicas[side].flush().unwrap();
        assert_eq!(named_at(&pair.replicas[side]), [2, 3]);
        assert_eq!(released(&mut pair.replicas[side]), [1]);
    }
}

#[test]
fn a_returned_state_names_its_chunks_until_it_is_settled() {
    let mut pair = Pair::new();
    let dot = Dot { hlc: Hlc::new(5, 0), replica: ReplicaId([7; 16]) };
    let state = RepairRow { id: id("late"), entry: Entry::first(dot, value(&[1, 2], None)) };
    pair.replicas[0].keep_returned(&state).unwrap();
    pair.replicas[0].flush().unwrap();
    assert_eq!(named_at(&pair.replicas[0]), [1, 2]);
    let now = pair.now(0);
    assert_eq!(pair.replicas[0].settle_dead_letter(now, dot, false), Ok(true));
    pair.replicas[0].flush().unwrap();
    assert_eq!(named_at(&pair.replicas[0]), []);
    assert_eq!(released(&mut pair.replicas[0]), [1, 2]);

    pair.replicas[0].keep_returned(&state).unwrap();
    pair.replicas[0].settle_dead_letter(now, dot, true).unwrap();
    pair.replicas[0].flush().unwrap();
    assert_eq!(named_at(&pair.replicas[0]), [1, 2], "written anew");
    assert_eq!(released(&mut pair.replicas[0]), []);
}

/// A store of a build that knew no index, and one that has lost rows of it.
#[test]
fn an_index_that_does_not_fit_is_made_anew_at_open() {
    let mut pair = Pair::new();
    // More rows than fit into a batch.
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        let numbers: Vec<u8> = (0..50).collect();
        write(&mut pair, 0, key, value(&numbers, None));
    }
    let whole = pair.replicas[0].store().clone();
    let mut rows = Vec::new();
    let scan = &mut |row_key: &[u8], _: Bytes| {
        let is_of_index = row_key.first() == Some(&keys::CHUNK);
        rows.extend(is_of_index.then(|| row_key.to_vec()));
        if is_of_index { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    whole.scan(&[keys::CHUNK], scan).unwrap();
    assert_eq!(rows.len(), 500);
    let stray_key = keys::chunk(&chunk(77), b"enothing");
    let stray = row::encode_chunk(&stray_key, 1);
    let without = |lost: &[Vec<u8>]| lost.iter().map(|row_key| (row_key.clone(), None)).collect::<Batch>();
    for batch in [without(&rows), without(&rows[3..4]), Batch::from([(stray_key, Some(stray))])] {
        let mut store = whole.clone();
        store.commit(batch).unwrap();
        let replica = Replica::open(store, SETTINGS, A).unwrap();
        assert_eq!(named_at(&replica).len(), 50);
        assert_eq!(replica.root(), pair.replicas[0].root());
    }
}

/// What it is to copy may name any chunk.
#[test]
fn one_that_is_no_member_can_spare_no_chunk() {
    let settings: Settings = SETTINGS;
    let mut fresh = Replica::open(MemoryStore::default(), settings, A).unwrap();
    assert_eq!(fresh.unnamed_chunks(vec![chunk(1)]), Ok(None));
}

#[test]
fn after_a_failed_flush_nothing_is_said_to_be_unnamed() {
    let mut pair = Pair::new();
    write(&mut pair, 0, "a", value(&[1], None));
    let now = pair.now(0);
    pair.replicas[0].write(now, id("a"), Body::Tombstone).unwrap();
    pair.replicas[0].store_mut().fail(StoreError::new("the disk is gone"));
    assert!(pair.replicas[0].flush().is_err());
    assert_eq!(released(&mut pair.replicas[0]), []);
    assert!(pair.replicas[0].unnamed_chunks(vec![chunk(1)]).is_err());
}
