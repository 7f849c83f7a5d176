//! What is taken for a conflict and what is not, and the bounds of the ledger.

use bytes::Bytes;

use super::*;
use crate::clock::ReplicaId;
use crate::codec::round::RepairRow;
use crate::entry::Payload;
use crate::read::conflicts::{self, Keys};
use crate::replica::tests::{A, B, Pair, SETTINGS};
use crate::replica::{Settings, verify};
use crate::store::MAX_BATCH_ROWS;
use crate::store::memory::MemoryStore;

const NAMESPACE: NamespaceId = NamespaceId([9; 16]);

fn id(key: &str) -> EntryId {
    EntryId::value(NAMESPACE, key.to_owned())
}

fn body(text: &str, expires_at_s: Option<u64>) -> Body {
    Body::Value(Value {
        payload: Payload::Inline(Bytes::from(text.to_owned())),
        metadata: None,
        expires_at_s,
    })
}

fn write(pair: &mut Pair, side: usize, key: &str, body: Body) -> Dot {
    // Each write has a millisecond of its own, so that the order of writes is that of the test.
    pair.now_us += 1_000;
    let now = pair.now(side);
    let dot = pair.replicas[side].write(now, id(key), body).unwrap();
    pair.replicas[side].flush().unwrap();
    dot
}

fn listed(replica: &Replica<MemoryStore>) -> Vec<Conflict> {
    conflicts::page(replica.store(), NAMESPACE, Keys::Prefix(b""), None, 1_000).unwrap().rows
}

/// Who lost to whom, at one replica.
fn lost(replica: &Replica<MemoryStore>) -> Vec<(Dot, Dot)> {
    let rows = listed(replica);
    assert_eq!(replica.conflicts_kept().rows, rows.len() as u64);
    rows.iter().map(|conflict| (conflict.lost.dot, conflict.won)).collect()
}

/// What both list after they have met.
fn met(mut pair: Pair) -> [Vec<(Dot, Dot)>; 2] {
    pair.connect();
    pair.run_ms(100);
    assert_eq!(pair.replicas[0].root(), pair.replicas[1].root());
    [lost(&pair.replicas[0]), lost(&pair.replicas[1])]
}

#[test]
fn two_writes_while_parted_are_a_conflict_at_both_ends_and_once() {
    let mut pair = Pair::new();
    let first = write(&mut pair, 0, "a", body("one", None));
    let second = write(&mut pair, 1, "a", body("two", None));
    let noticed_ms = pair.now(0).wall_ms;
    pair.connect();
    pair.run_ms(100);
    for replica in &mut pair.replicas {
        assert_eq!(lost(replica), [(first, second)]);
        let conflict = listed(replica).remove(0);
        assert_eq!((&conflict.lost.body, conflict.deleted), (&body("one", None), false));
        assert!(conflict.noticed.wall_ms() >= noticed_ms);
        // Met again, by a repair.
        let state = RepairRow { id: id("a"), entry: conflict.lost };
        assert_eq!(replica.apply_repair(&state.id, state.entry), Ok(false));
        assert_eq!((lost(replica).len(), replica.counters().conflicts), (1, 1));
    }
}

#[test]
fn what_was_seen_is_overwritten_and_not_lost() {
    let mut pair = Pair::connected();
    for round in 0..10 {
        write(&mut pair, round % 2, "a", body(&round.to_string(), None));
        write(&mut pair, round % 2, "a", body(&format!("{round} again"), None));
        pair.run_ms(50);
    }
    // Nor where the peer gets only the last of several.
    pair.disconnect();
    for round in 0..5 {
        write(&mut pair, 0, "a", body(&format!("{round} alone"), None));
    }
    assert_eq!(met(pair), [vec![], vec![]]);
}

#[test]
fn a_run_of_writes_hides_nothing_that_its_first_passed_over() {
    let mut pair = Pair::new();
    write(&mut pair, 0, "a", body("first of a run", None));
    let unseen = write(&mut pair, 1, "a", body("unseen", None));
    write(&mut pair, 0, "a", body("second of the run", None));
    let third = write(&mut pair, 0, "a", body("third of the run", None));
    assert_eq!(met(pair), [vec![(unseen, third)], vec![(unseen, third)]]);
}

#[test]
fn what_lost_goes_on_to_those_who_were_away_and_so_does_what_came_after_it() {
    let mut pair = Pair::new();
    let unseen = write(&mut pair, 0, "a", body("unseen", None));
    let won = write(&mut pair, 1, "a", body("won", None));
    // A has both by the time it tells B of its own, and writes over what won.
    let state = RepairRow { id: id("a"), entry: pair.replicas[1].entry(&id("a")).unwrap().unwrap() };
    pair.replicas[0].apply_repair(&state.id, state.entry).unwrap();
    write(&mut pair, 0, "a", body("last", None));
    pair.connect();
    pair.run_ms(100);
    assert_eq!(pair.text(1, "a").as_deref(), Some("last"));
    assert_eq!(met(pair), [vec![(unseen, won)], vec![(unseen, won)]]);
}

#[test]
fn what_loses_in_the_midst_of_a_run_is_noted_as_it_comes() {
    let mut pair = Pair::new();
    let unseen = write(&mut pair, 1, "a", body("unseen", None));
    let first = write(&mut pair, 0, "a", body("first of a run", None));
    pair.connect();
    pair.run_ms(50);
    write(&mut pair, 0, "a", body("second of the run", None));
    assert_eq!(met(pair), [vec![(unseen, first)], vec![(unseen, first)]]);
}

#[test]
fn deletes_win_and_are_not_missed() {
    let mut pair = Pair::new();
    let unseen = write(&mut pair, 0, "a", body("unseen", None));
    let deleted = write(&mut pair, 1, "a", Body::Tombstone);
    write(&mut pair, 0, "b", Body::Tombstone);
    write(&mut pair, 1, "b", body("over a tombstone", None));
    pair.connect();
    pair.run_ms(50);
    assert!(listed(&pair.replicas[0])[0].deleted);
    assert_eq!(met(pair), [vec![(unseen, deleted)], vec![(unseen, deleted)]]);
}

#[test]
fn what_nobody_would_miss_is_not_noted() {
    let mut pair = Pair::new();
    let past_s = pair.now(0).wall_ms / 1000;
    for (key, one, two) in [
        ("the same", body("same", None), body("same", Some(past_s + 1_000))),
        ("expired", body("one", Some(past_s)), body("two", None)),
    ] {
        write(&mut pair, 0, key, one);
        write(&mut pair, 1, key, two);
    }
    pair.now_us += 1_000;
    for side in 0..2 {
        let now = pair.now(side);
        let system = EntryId::value(NamespaceId::SYSTEM, "token/1");
        pair.replicas[side].write(now, system, body(&side.to_string(), None)).unwrap();
        pair.replicas[side].flush().unwrap();
    }
    let replicas = met(pair);
    assert_eq!(replicas, [vec![], vec![]]);
}

#[test]
fn what_comes_back_with_a_return_lost_or_wins_as_it_was_written_then() {
    let mut pair = Pair::connected();
    let early = pair.now(0).wall_ms;
    let unseen = write(&mut pair, 1, "unseen", body("here", None));
    let seen = write(&mut pair, 1, "seen", body("here", None));
    write(&mut pair, 1, "newer", body("here", None));
    pair.run_ms(50);
    let late = pair.now(0).wall_ms;
    let mut keep = |key, ms, base| {
        let dot = Dot { hlc: Hlc::new(ms, 7), replica: ReplicaId([7; 16]) };
        let entry = Entry { dot, body: body("of an earlier life", None), base };
        pair.replicas[0].keep_returned(&RepairRow { id: id(key), entry }).unwrap();
        dot
    };
    // Two are newer than what is here: one was written without knowledge of it, the other in its place.
    keep("unseen", late - 1, Hlc::ZERO);
    keep("seen", late, seen.hlc);
    // Of a clock that has been set back since: what it names is yet to come.
    keep("ahead", late + 3_600_000, Hlc::new(late + 3_000_000, 0));
    let older = keep("newer", early, Hlc::ZERO);
    pair.replicas[0].flush().unwrap();
    pair.run_ms(1_000);
    for key in ["unseen", "seen", "ahead"] {
        assert_eq!(pair.text(1, key).as_deref(), Some("of an earlier life"), "{key}");
    }
    let losers = met(pair).map(|lost| lost.into_iter().map(|(lost, _)| lost).collect::<Vec<_>>());
    assert_eq!(losers, [vec![older, unseen], vec![unseen]]);
}

/// A replica whose ledger has these bounds, with so many conflicts noted one after the other.
fn noted(bounds: Bounds, conflicts: u64, text: &str) -> Replica<MemoryStore> {
    let settings = Settings { conflicts: bounds, ..SETTINGS };
    let mut replica = Replica::open(MemoryStore::default(), settings, A).unwrap();
    for number in 0..conflicts {
        note(&mut replica, number, text);
        replica.flush().unwrap();
    }
    replica
}

fn note(replica: &mut Replica<MemoryStore>, number: u64, text: &str) {
    let at = |ms, replica| Dot { hlc: Hlc::new(ms, 0), replica };
    let id = id(&format!("key-{number:05}"));
    let won = Entry::first(at(10 * number + 2, A), body("won", None));
    replica.apply_repair(&id, won).unwrap();
    replica.apply_repair(&id, Entry::first(at(10 * number + 1, B), body(text, None))).unwrap();
}

#[test]
fn the_oldest_go_first_when_there_is_no_room() {
    for (max_rows, expected) in [(2, 2), (3, 3), (4, 3)] {
        let replica = noted(Bounds { max_rows, ..Bounds::USUAL }, 3, "x");
        let rows = listed(&replica);
        assert_eq!(rows.len(), expected);
        assert_eq!(rows.last().unwrap().id, id("key-00002"), "the newest stays");
        let dropped = 3 - expected as u64;
        assert_eq!((replica.counters().conflicts, replica.counters().conflicts_dropped), (3, dropped));
    }
    let one = noted(Bounds::USUAL, 1, "x").conflicts_kept().bytes;
    for (max_bytes, expected) in [(2 * one - 1, 1), (2 * one, 2), (2 * one + 1, 2)] {
        let replica = noted(Bounds { max_bytes, ..Bounds::USUAL }, 2, "x");
        assert_eq!(replica.conflicts_kept(), Kept { rows: expected, bytes: expected * one });
        assert_eq!(listed(&replica).len() as u64, expected);
    }
    assert_eq!(
        noted(Bounds { max_bytes: one - 1, ..Bounds::USUAL }, 2, "x").conflicts_kept(),
        Kept::default()
    );
    assert_eq!(noted(Bounds { kept_ms: 0, ..Bounds::USUAL }, 2, "x").counters().conflicts, 0, "it is off");
}

#[test]
fn a_large_value_drives_out_so_many_small_ones_and_no_more() {
    let small = noted(Bounds::USUAL, 1, "").conflicts_kept().bytes;
    for (number, is_kept) in [(49, true), (50, true), (51, false)] {
        // Room for 60 small ones; the large one needs that of `number` of them.
        let bounds = Bounds { max_bytes: 60 * small, ..Bounds::USUAL };
        let mut replica = noted(bounds, 60, "");
        let text = "x".repeat(((number - 1) * small) as usize - 10);
        note(&mut replica, 99, &text);
        replica.flush().unwrap();
        let has_it = listed(&replica).iter().any(|conflict| conflict.id == id("key-00099"));
        assert_eq!(has_it, is_kept, "{number}");
        assert!(replica.conflicts_kept().bytes <= bounds.max_bytes);
    }
}

/// One value may drive out fifty, and a batch that was almost full grew by all their rows.
#[test]
fn what_is_driven_out_fits_into_the_batch() {
    let small = noted(Bounds::USUAL, 1, "").conflicts_kept().bytes;
    let mut replica = noted(Bounds { max_bytes: 200 * small, ..Bounds::USUAL }, 200, "");
    for number in 200..2_000 {
        // One large value for 46 small ones.
        let text = if number % 47 == 0 { "x".repeat(40 * small as usize) } else { String::new() };
        replica.commit_if_full().unwrap();
        note(&mut replica, number, &text);
        let rows = replica.staged.len();
        assert!(rows <= MAX_BATCH_ROWS + 8, "{rows} rows");
    }
    assert!(replica.counters().conflicts_dropped > 200);
}

#[test]
fn what_was_kept_for_its_time_goes_in_slices_and_lowered_bounds_hold() {
    let mut replica = noted(Bounds { kept_ms: 1_000, ..Bounds::USUAL }, SLICE_ROWS as u64 + 101, "x");
    let last_ms = listed(&replica).iter().map(|conflict| conflict.noticed.wall_ms()).max().unwrap();
    let at = |wall_ms, mono_us| Now { wall_ms, mono_us };
    replica.sweep_ledger(at(last_ms, 1)).unwrap();
    assert_eq!(replica.conflicts_kept().rows, 101, "a slice has gone");
    replica.sweep_ledger(at(last_ms, 1)).unwrap();
    replica.flush().unwrap();
    assert_eq!(lost(&replica).len(), 100, "those of the last second are kept");
    replica.sweep_ledger(at(last_ms + 1_000, LOOKED_EVERY_US)).unwrap();
    assert_eq!(replica.conflicts_kept().rows, 100, "it is not time to look again");
    replica.sweep_ledger(at(last_ms + 1_000, LOOKED_EVERY_US + 1)).unwrap();
    replica.flush().unwrap();
    assert_eq!(lost(&replica), []);
    assert_eq!(replica.conflicts_kept(), Kept::default());

    let store = noted(Bounds::USUAL, 5, "x").into_store();
    let lowered = Settings { conflicts: Bounds { max_rows: 2, ..Bounds::USUAL }, ..SETTINGS };
    let mut replica = Replica::open(store, lowered, A).unwrap();
    assert_eq!(replica.conflicts_kept().rows, 5);
    replica.sweep_ledger(at(1_000, 1)).unwrap();
    replica.flush().unwrap();
    assert_eq!(lost(&replica).len(), 2);
}

#[test]
fn a_verification_counts_the_ledger_while_it_changes() {
    let mut replica = noted(Bounds::USUAL, 300, "x");
    let mut now = Now { wall_ms: 10_000, mono_us: 1 };
    assert!(replica.verify(now).unwrap());
    let mut number = 300;
    let verified = loop {
        if let Some(Event::Verified(verified)) = replica.poll_event() {
            break verified;
        }
        note(&mut replica, number, "y");
        let first = listed(&replica).remove(0);
        replica.dismiss_conflict(NAMESPACE, &first.id.key, first.lost.dot).unwrap();
        replica.flush().unwrap();
        number += 1;
        now.mono_us += 10_000;
        replica.verify_slice(now).unwrap();
    };
    assert_eq!(verified.mismatches, []);
    // One that is lost shows.
    let lost = listed(&replica).remove(0);
    let row_key = keys::conflict(NAMESPACE, &lost.id.key, lost.lost.dot);
    assert!(replica.store_mut().lose(&row_key));
    assert!(replica.verify(now).unwrap());
    let verified = loop {
        if let Some(Event::Verified(verified)) = replica.poll_event() {
            break verified;
        }
        now.mono_us += 10_000;
        replica.verify_slice(now).unwrap();
    };
    assert_eq!(verified.mismatches, [verify::Mismatch::Conflicts { found: 299, expected: 300 }]);
}

#[test]
fn pages_of_the_ledger_join_and_stay_under_their_keys() {
    let mut replica = noted(Bounds::USUAL, 5, "x");
    note(&mut replica, 7, "y");
    replica.flush().unwrap();
    let store = replica.store();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let from = after.as_ref().map(|(key, lost): &(Bytes, Dot)| (&key[..], *lost));
        let page = conflicts::page(store, NAMESPACE, Keys::Prefix(b"key-"), from, 2).unwrap();
        seen.extend(page.rows);
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, listed(&replica));
    let count = |of| conflicts::page(store, NAMESPACE, of, None, 100).unwrap().rows.len();
    assert_eq!(
        [Keys::One(b"key-00001"), Keys::One(b"key-0000"), Keys::Prefix(b"key-0000")].map(count),
        [1, 0, 6]
    );
    let one = &seen[3];
    let found = conflicts::conflict(store, NAMESPACE, &one.id.key, one.lost.dot).unwrap();
    assert_eq!(found.as_ref(), Some(one));
    assert_eq!(conflicts::conflict(store, NAMESPACE, b"key-00001", one.lost.dot), Ok(None));
}
