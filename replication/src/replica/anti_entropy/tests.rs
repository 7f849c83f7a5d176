//! Two replicas that agree by the bookkeeping and differ in fact: rounds find what is missing, repair it once, count
//! it exactly, and leave alone what is on its way.

use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::tests::{A, B, MEMBERSHIP_OPS, Pair, SETTINGS};
use super::*;
use crate::clock::{Dot, Hlc};
use crate::codec::message::Stage;
use crate::codec::round::{CellList, Cells, Counts, Ids, Listing, Outline, Probe, Ranges, RepairRow, Wanted};
use crate::codec::row;
use crate::digest::{DigestTree, NODES};
use crate::entry::{Body, Entry, EntryId, NamespaceId, Payload, Value};
use crate::keys;
use crate::link::Lane;
use crate::sketch::{Cell, TABLES};
use crate::store::Batch;

/// What befalls an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// It is in a state of long ago.
    Old,
}

/// Replicas with `entries` equal entries, then each with what its `fate` left, by the number of the key and its leaf.
/// Gives how many entries differ.
fn plant(entries: u32, fate: [&dyn Fn(u32, u16) -> Fate; 2]) -> (Pair, u64) {
    let mut pair = Pair::connected();
    for number in 0..entries {
        let (now, id) = (pair.now(0), id(number));
        pair.replicas[0].write(now, id, Body::Tombstone).unwrap();
        if number % 1000 == 0 {
            pair.now_us += 1000;
        }
    }
    pair.replicas[0].flush().unwrap();
    pair.run_ms(2_000);
    pair.assert_equal();
    pair.disconnect();
    let planted = [0, 1].map(|side| strike(&mut pair, side, fate[side]));
    (pair, planted.iter().sum())
}

fn id(number: u32) -> EntryId {
    EntryId::value(NamespaceId([9; 16]), format!("key {number}"))
}

/// Changes the store behind the replica's back, so that counts and root fit, and opens it anew.
fn strike(pair: &mut Pair, side: usize, fate: &dyn Fn(u32, u16) -> Fate) -> u64 {
    let mut store = pair.replicas[side].store().clone();
    let mut summary = row::decode_summary(&store.read(keys::SUMMARY).unwrap().unwrap()).unwrap();
    let mut tree = DigestTree::default();
    let mut batch = Batch::new();
    let mut planted = 0;
    let visit = &mut |row_key: &[u8], bytes: Bytes| {
        let Some(id) = keys::parse_entry(row_key) else { return ControlFlow::Break(()) };
        let mut row = row::decode_entry(row_key, &bytes).unwrap();
        let name = SETTINGS.digest_key.name_hash(&id);
        // The records of the members stay.
        let number: Option<u32> = std::str::from_utf8(&id.key[4..]).unwrap().parse().ok();
        let fate = number.map_or(Fate::Kept, |number| fate(number, name.leaf()));
        planted += u64::from(fate != Fate::Kept);
        if fate == Fate::Lost {
            summary.entries -= 1;
            batch.insert(row_key.to_vec(), None);
            return ControlFlow::Continue(());
        }
        if fate == Fate::Old {
            row.hlc = Hlc::from_bits(u64::from(number.unwrap_or(0)) + 1);
            batch.insert(row_key.to_vec(), Some(row::encode_entry(row_key, &row)));
        }
        let replica = summary.origins[usize::from(row.origin_index)].0;
        let entry = Entry { dot: Dot { hlc: row.hlc, replica }, body: row.body, base: row.base };
        let digest = SETTINGS.digest_key.state_digest(name, &entry);
        tree.replace(name, None, Some(digest));
        ControlFlow::Continue(())
    };
    store.scan(&[keys::ENTRY], visit).unwrap();
    summary.root = tree.root();
    batch.insert(keys::SUMMARY.to_vec(), Some(row::encode_summary(&summary)));
    store.commit(batch).unwrap();
    store.flush().unwrap();
    pair.replicas[side] = Replica::open(store, SETTINGS, [A, B][side]).unwrap();
    planted
}

fn repaired(pair: &Pair) -> u64 {
    pair.replicas.iter().map(|replica| replica.counters().repaired).sum()
}

/// Checks that rounds make both equal, and count what was planted, no more.
#[track_caller]
fn check(entries: u32, fate: [&dyn Fn(u32, u16) -> Fate; 2]) -> Pair {
    let (mut pair, planted) = plant(entries, fate);
    assert!(planted > 0);
    pair.sent_bytes = [0, 0];
    pair.connect();
    for _ in 0..60 {
        if pair.replicas[0].root() == pair.replicas[1].root() {
            break;
        }
        pair.run_ms(1_000);
    }
    pair.assert_equal();
    assert_eq!(repaired(&pair), planted);
    pair
}

fn kept(_: u32, _: u16) -> Fate {
    Fate::Kept
}

/// Loses entries whose number leaves `rest` when divided by `of`.
fn lost_each(of: u32, rest: u32) -> impl Fn(u32, u16) -> Fate {
    move |number, _| if number % of == rest { Fate::Lost } else { Fate::Kept }
}

fn lost_leaves(first: u16, last: u16) -> impl Fn(u32, u16) -> Fate {
    move |_, leaf| if (first..=last).contains(&leaf) { Fate::Lost } else { Fate::Kept }
}

#[test]
fn a_few_rows_lost_on_either_side_or_both_are_repaired_by_the_first_exchange() {
    for fate in [[&lost_each(300, 1) as &dyn Fn(u32, u16) -> Fate, &kept], [&kept, &lost_each(300, 1)]] {
        let pair = check(3_000, fate);
        assert_eq!(pair.replicas[0].counters().rounds, 1);
        // Ten names, two probes' worth of cells and counts, a few heartbeats, and ten rows.
        let bytes: usize = pair.sent_bytes.iter().sum();
        assert!(bytes < 1_600 + 10 * 60 + 10 * 150, "{bytes} bytes");
    }
    check(3_000, [&lost_each(300, 1), &lost_each(300, 2)]);
}

#[test]
fn states_of_long_ago_are_brought_up_to_date_on_either_side() {
    let old = |number: u32, _| if number % 100 == 3 { Fate::Old } else { Fate::Kept };
    check(2_000, [&old, &kept]);
    check(2_000, [&kept, &old]);
    let older = |number: u32, _| if number % 10 == 4 { Fate::Old } else { Fate::Kept };
    check(20_000, [&older, &lost_each(100, 0)]);
}

#[test]
fn what_the_probe_cannot_name_a_larger_fold_names() {
    let pair = check(20_000, [&lost_each(40, 1), &lost_each(40, 2)]);
    assert_eq!(pair.replicas[0].counters().rounds, 1);
    check(20_000, [&lost_each(20, 1), &kept]);
    check(20_000, [&kept, &lost_each(20, 1)]);
}

#[test]
fn where_most_of_it_differs_lists_are_sent_a_part_at_a_time() {
    let pair = check(5_000, [&lost_each(2, 1), &lost_each(4, 2)]);
    assert!(pair.replicas[0].counters().rounds >= 2);
    check(1_000, [&lost_each(2, 1), &lost_each(4, 2)]);
    let old = |_, _| Fate::Old;
    check(2_000, [&kept, &old]);
    check(3, [&lost_each(3, 0), &lost_each(3, 1)]);
}

#[test]
fn a_lost_range_of_hashes_costs_little_beside_its_rows() {
    // From the middle of one node to the middle of another, and the leaves at its ends only in part.
    let partly = |number: u32, leaf: u16| match leaf {
        0x10_80..0x15_30 => Fate::Lost,
        0x15_30 if number.is_multiple_of(2) => Fate::Lost,
        _ => Fate::Kept,
    };
    for fate in [[&partly as &dyn Fn(u32, u16) -> Fate, &kept], [&kept, &partly]] {
        let pair = check(40_000, fate);
        let bytes: usize = pair.sent_bytes.iter().sum();
        let rows = repaired(&pair) as usize * 55;
        assert!(bytes < rows + 6_000 + 10 * 150, "{bytes} bytes for rows of {rows}");
    }
    // A hole on either side, and single rows beside them.
    let with_more = |number: u32, leaf: u16| match leaf {
        0xa0_00.. => Fate::Lost,
        0x20_00..=0x40_ff => Fate::Kept,
        _ => lost_each(500, 7)(number, leaf),
    };
    check(20_000, [&lost_leaves(0x20_00, 0x40_ff), &with_more]);
}

#[test]
fn a_side_that_has_lost_everything_gets_it_all() {
    let all = |_, _| Fate::Lost;
    check(5_000, [&all, &kept]);
    check(5_000, [&kept, &all]);
    check(20, [&kept, &all]);
}

/// Links both sides, and lets them say no more yet than that they may compare.
fn link(pair: &mut Pair) {
    for side in 0..2 {
        let (now, peer) = (pair.now(side), pair.replicas[1 - side].id());
        pair.replicas[side].handle_connected(now, peer);
        let epoch = pair.replicas[1 - side].epoch();
        let known = pair.replicas[side].peers.get_mut(&peer).unwrap();
        (known.stage, known.epoch, known.swept) = (Stage::Member, epoch, true);
    }
}

/// Delivers frames of the anti-entropy lane alone, at most so many. Gives how many there were, and the rows in them.
fn exchange_rounds(pair: &mut Pair, most: usize) -> (usize, usize) {
    let mut frames = 0;
    let mut rows_sent = 0;
    let mut quiet = 0;
    while quiet < 100 && frames < most {
        quiet += 1;
        for side in 0..2 {
            let (now, peer) = (pair.now(side), pair.replicas[1 - side].id());
            pair.replicas[side].handle_timeout(now).unwrap();
            pair.replicas[side].flush().unwrap();
            let sent = pair.replicas[side].poll_transmit(now, peer, Lane::AntiEntropy, 1000).unwrap();
            if let Some(frame) = sent.filter(|_| frames < most) {
                (frames, quiet) = (frames + 1, 0);
                if let Ok(Message::Round(Round { step: Step::Rows(rows), .. })) = Message::from_frame(&frame)
                {
                    rows_sent += rows.rows.len();
                }
                pair.receive(1 - side, &frame);
            }
        }
    }
    (frames, rows_sent)
}

#[test]
fn entries_in_flight_are_left_alone() {
    let (mut pair, _) = plant(200, [&kept, &lost_each(100, 1)]);
    link(&mut pair);
    for number in 200..230 {
        pair.put((number % 2) as usize, &format!("key {number}"), "on its way").unwrap();
    }
    let now = pair.now(0);
    pair.replicas[0].begin_round(now, B, None);
    // Who sends holds them back.
    assert_eq!(exchange_rounds(&mut pair, usize::MAX).1, 2);
    assert!(pair.replicas[0].peers[&B].initiator.is_none() && pair.replicas[1].peers[&A].responder.is_none());
    assert_eq!(repaired(&pair), 2);
    assert_eq!(pair.replicas[0].entries(), MEMBERSHIP_OPS + 215);
    assert_eq!(pair.replicas[1].entries(), MEMBERSHIP_OPS + 215);
    // Who gets them all the same does, too.
    pair.replicas[0].begin_round(now, B, None);
    let number = pair.replicas[0].counters().rounds as u32;
    let dot = Dot { hlc: pair.replicas[1].vector().hlc(B), replica: B };
    let rows = vec![RepairRow { id: id(5_000), entry: Entry::first(dot, Body::Tombstone) }];
    let message = Message::Round(Round { number, step: Step::Rows(Rows { rows, more: true }) });
    pair.replicas[0].handle_message(now, B, message).unwrap();
    assert_eq!(repaired(&pair), 2);
}

#[test]
fn a_round_given_up_anywhere_is_begun_again_and_nothing_is_counted_twice() {
    for after_frames in 0..10 {
        let hole = |number: u32, leaf| match leaf {
            0x10_00..0x12_00 => Fate::Lost,
            _ => lost_each(30, 1)(number, leaf),
        };
        let elsewhere = |number, leaf| match hole(number, leaf) {
            Fate::Kept => lost_each(50, 2)(number, leaf),
            _ => Fate::Kept,
        };
        let (mut pair, planted) = plant(20_000, [&hole, &elsewhere]);
        link(&mut pair);
        let now = pair.now(0);
        pair.replicas[0].begin_round(now, B, None);
        let (frames, _) = exchange_rounds(&mut pair, after_frames);
        assert_eq!(frames, after_frames, "the round was over");
        pair.disconnect();
        pair.connect();
        pair.run_ms(40_000);
        pair.assert_equal();
        assert_eq!(repaired(&pair), planted);
    }
}

#[test]
fn messages_of_a_round_that_is_over_are_left_alone() {
    let (mut pair, _) = plant(100, [&kept, &lost_each(10, 1)]);
    link(&mut pair);
    let payload = Payload::Inline(Bytes::from("late"));
    let body = Body::Value(Value { payload, metadata: None, expires_at_s: None });
    let entry = Entry::first(Dot { hlc: Hlc::from_bits(1), replica: A }, body);
    let rows = vec![RepairRow { id: id(5_000), entry }];
    let late =
        |number| Message::Round(Round { number, step: Step::Rows(Rows { rows: rows.clone(), more: true }) });
    let now = pair.now(0);
    pair.replicas[0].begin_round(now, B, None);
    let number = pair.replicas[0].counters().rounds as u32;
    for (number, taken) in [(number + 1, 0), (number, 1)] {
        pair.replicas[0].handle_message(now, B, late(number)).unwrap();
        assert_eq!(repaired(&pair), taken);
    }
    for replica in &mut pair.replicas {
        replica.peers.values_mut().for_each(|peer| (peer.initiator, peer.responder) = (None, None));
    }
    pair.replicas[0].handle_message(now, B, late(number)).unwrap();
    assert_eq!(repaired(&pair), 1);
}

fn forged() -> impl Strategy<Value = Step> {
    let cell = (any::<u64>(), -2..3i64).prop_map(|(word, count)| Cell { word, count });
    let cells = |len| prop::collection::vec(cell.clone(), len).prop_map(CellList);
    let counts = || prop::collection::vec(prop_oneof![0..90u32, any::<u32>()], NODES).prop_map(Counts);
    let ids =
        || prop::collection::btree_set(any::<u64>(), 0..20).prop_map(|ids| Ids(ids.into_iter().collect()));
    let size = || prop_oneof![Just(16u32), Just(20), Just(32), Just(0), any::<u32>()];
    prop_oneof![
        (any::<bool>(), counts(), size(), cells(0..70))
            .prop_map(|(plain, nodes, size, cells)| Step::Probe(Probe { plain, nodes, size, cells })),
        (any::<bool>(), counts(), cells(TABLES * 16..TABLES * 16 + 1))
            .prop_map(|(plain, nodes, cells)| Step::Probe(Probe { plain, nodes, size: 16, cells })),
        (size(), size(), 0..3u32, cells(0..70)).prop_map(|(size, beyond, from, cells)| Step::Cells(Cells {
            size,
            beyond,
            from,
            cells
        })),
        cells(TABLES * 16..TABLES * 16 + 1).prop_map(|cells| Step::Cells(Cells {
            size: 16,
            beyond: 0,
            from: 0,
            cells
        })),
        cells(TABLES * 4..TABLES * 4 + 1).prop_map(|cells| Step::Cells(Cells {
            size: 20,
            beyond: 16,
            from: 0,
            cells
        })),
        Just(Step::More),
        Just(Step::List),
        (
            prop::collection::vec(any::<(u8, u32)>(), 0..4),
            prop::collection::vec((any::<u8>(), counts()), 0..3)
        )
            .prop_map(|(nodes, edges)| Step::Outline(Outline { nodes, edges })),
        prop::collection::vec(any::<(u16, u16)>(), 0..4).prop_map(|ranges| Step::Fetch(Ranges(ranges))),
        (any::<(u16, u16)>(), ids(), any::<bool>())
            .prop_map(|((first, last), ids, more)| Step::Listing(Listing { first, last, ids, more })),
        (ids(), any::<bool>()).prop_map(|(ids, more)| Step::Wanted(Wanted { ids, more })),
        any::<bool>().prop_map(|more| Step::Rows(Rows { rows: Vec::new(), more })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a peer says, in whatever order: a protocol error or a fruitless round, and the next one is sound.
    #[test]
    fn no_forged_round_panics_or_keeps_the_next_from_working(
        to_initiator in prop::collection::vec(forged(), 0..8),
        to_responder in prop::collection::vec(forged(), 0..8),
    ) {
        let (mut pair, planted) = plant(60, [&kept, &lost_each(10, 1)]);
        link(&mut pair);
        let now = pair.now(0);
        pair.replicas[0].begin_round(now, B, None);
        let number = pair.replicas[0].counters().rounds as u32;
        for (side, steps) in [(0, to_initiator), (1, to_responder)] {
            let peer = pair.replicas[1 - side].id();
            for step in steps {
                let message = Message::Round(Round { number, step });
                let _ = pair.replicas[side].handle_message(now, peer, message);
                pair.replicas[side].flush().unwrap();
                pair.replicas[side].handle_timeout(now).unwrap();
                let frame = pair.replicas[side].poll_transmit(now, peer, Lane::AntiEntropy, 1000).unwrap();
                prop_assert!(frame.is_none_or(|frame| Message::from_frame(&frame).is_ok()));
            }
        }
        pair.run_ms(30_000);
        pair.assert_equal();
        prop_assert_eq!(repaired(&pair), planted);
    }
}
