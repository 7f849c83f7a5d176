//! Rights of bounded counters: who gets them, and how often.

use super::*;
use crate::codec::message::RightsWanted;
use crate::entry::Kind;
use crate::kinds::{Bounded, Change, ChangeError};

fn id(key: impl Into<Bytes>) -> EntryId {
    EntryId::whole(NamespaceId([9; 16]), Kind::Bounded, key)
}

fn add(pair: &mut Pair, side: usize, amount: i64) -> Result<Dot, WriteError> {
    let change = Change::Add { amount, expires_at_s: None };
    let dot = pair.replicas[side].change(pair.now(side), id("stock"), change)?;
    pair.replicas[side].flush().unwrap();
    Ok(dot)
}

fn stock(pair: &Pair, side: usize) -> Bounded {
    match pair.replicas[side].entry(&id("stock")).unwrap().unwrap().body {
        Body::Bounded(bounded) => bounded,
        body => panic!("{body:?}"),
    }
}

fn rights(pair: &Pair, side: usize) -> [u64; 2] {
    [A, B].map(|replica| stock(pair, side).rights(replica))
}

/// A has 10, of which B knows.
fn stocked() -> Pair {
    let mut pair = Pair::connected();
    add(&mut pair, 0, 10).unwrap();
    pair.run_ms(20);
    assert_eq!(rights(&pair, 1), [10, 0]);
    pair
}

#[test]
fn what_is_lacking_comes_with_half_of_the_rest_and_can_be_taken() {
    let mut pair = stocked();
    let refused = add(&mut pair, 1, -4).unwrap_err();
    assert_eq!(refused, WriteError::Change(ChangeError::LacksRights { here: 0, left: 10 }));
    let until_us = pair.now_us + 1_000_000;
    assert!(pair.replicas[1].want_rights(id("stock"), 4, until_us));
    pair.run_ms(30);
    assert_eq!((rights(&pair, 0), rights(&pair, 1)), ([3, 7], [3, 7]));
    add(&mut pair, 1, -7).unwrap();
    pair.run_ms(20);
    assert_eq!(stock(&pair, 0).count(), Some(3));
    assert!(pair.replicas[1].rights.due_us().is_none(), "nobody waits any more");
}

/// A question that is asked again, or comes late, would bring the same once more.
#[test]
fn a_question_is_not_answered_twice() {
    let mut pair = stocked();
    let question = RightsWanted { id: id("stock"), lacking: 2, received: 0 };
    for _ in 0..3 {
        let now = pair.now(0);
        pair.replicas[0].handle_message(now, B, Message::Rights(question.clone())).unwrap();
        pair.replicas[0].flush().unwrap();
        assert_eq!(rights(&pair, 0), [4, 6]);
    }
    pair.run_ms(20);
    add(&mut pair, 1, -6).unwrap();
    pair.run_ms(20);
    // Late: it was all used up since.
    let now = pair.now(0);
    pair.replicas[0].handle_message(now, B, Message::Rights(question.clone())).unwrap();
    assert_eq!(rights(&pair, 0), [4, 0]);
    let next = RightsWanted { received: 6, ..question };
    pair.replicas[0].handle_message(now, B, Message::Rights(next)).unwrap();
    assert_eq!(rights(&pair, 0), [1, 3]);
}

#[test]
fn nobody_gives_more_than_it_holds_and_asking_ends() {
    let mut pair = stocked();
    let until_us = pair.now_us + 2_000_000;
    assert!(pair.replicas[1].want_rights(id("stock"), 11, until_us));
    pair.run_ms(30);
    assert_eq!(rights(&pair, 1), [0, 10]);
    // It goes on as long as somebody waits.
    add(&mut pair, 0, 1).unwrap();
    pair.run_ms(1_000);
    assert_eq!(rights(&pair, 1), [0, 11]);
    assert!(pair.replicas[1].want_rights(id("stock"), 99, pair.now_us + 1_000));
    pair.run_ms(2_000);
    assert!(pair.replicas[1].rights.due_us().is_none());
}

/// Each gave the other what that lacked, at once, and so on for as long as both waited.
#[test]
fn of_two_that_lack_rights_one_gets_them() {
    let mut pair = stocked();
    pair.replicas[1].want_rights(id("stock"), 5, u64::MAX);
    pair.run_ms(30);
    assert_eq!(rights(&pair, 0), [3, 7]);
    let until_us = pair.now_us + 3_000_000;
    assert!(pair.replicas[0].want_rights(id("stock"), 8, until_us));
    assert!(pair.replicas[1].want_rights(id("stock"), 8, until_us));
    pair.run_ms(30);
    assert!(rights(&pair, 0)[0] >= 8, "{:?}", rights(&pair, 0));
    assert_eq!(rights(&pair, 0), rights(&pair, 1));
}

#[test]
fn what_is_no_bounded_counter_has_no_rights() {
    let mut pair = stocked();
    let counter = EntryId::whole(NamespaceId([9; 16]), Kind::Counter, "stock");
    let question = RightsWanted { id: counter, lacking: 2, received: 0 };
    let now = pair.now(0);
    assert!(pair.replicas[0].handle_message(now, B, Message::Rights(question)).is_err());
}

#[test]
fn so_many_are_asked_for_at_once_and_no_more() {
    let mut pair = stocked();
    let until_us = pair.now_us + 1_000;
    for number in 0..=MAX_RIGHTS_WANTED {
        let is_taken = pair.replicas[1].want_rights(id(number.to_string()), 1, until_us);
        assert_eq!(is_taken, number < MAX_RIGHTS_WANTED, "{number}");
    }
    assert!(pair.replicas[1].want_rights(id("0"), 2, until_us), "one that is asked for already");
}
