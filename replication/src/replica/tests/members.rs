//! Members, epochs and returns, between two replicas over a perfect link.

use super::*;
use crate::codec::round::RepairRow;
use crate::member::{RemovalReason, member_entry};

const EPOCH_MS: u64 = SETTINGS.epoch_every_ms;

impl Pair {
    fn delete(&mut self, side: usize, key: &str) -> Dot {
        let id = EntryId::value(NamespaceId([9; 16]), key.to_owned());
        let dot = self.replicas[side].write(self.now(side), id, Body::Tombstone).unwrap();
        self.replicas[side].flush().unwrap();
        dot
    }

    fn put_until(&mut self, side: usize, key: &str, expires_at_s: u64) {
        let payload = Payload::Inline(Bytes::from("v"));
        let value = Value { payload, metadata: None, expires_at_s: Some(expires_at_s) };
        let id = EntryId::value(NamespaceId([9; 16]), key.to_owned());
        self.replicas[side].write(self.now(side), id, Body::Value(value)).unwrap();
        self.replicas[side].flush().unwrap();
    }

    /// Lets so many epochs pass, in coarse steps.
    fn pass_epochs(&mut self, count: u64) {
        for _ in 0..4 * count {
            self.now_us += EPOCH_MS * 250;
            self.run_ms(600);
            self.run_ms(600);
        }
    }

    fn entry_exists(&self, side: usize, key: &str) -> bool {
        let row_key = crate::keys::key_parts(NamespaceId([9; 16]), crate::entry::Kind::Value, key.as_bytes());
        self.replicas[side].store().read(&row_key).unwrap().is_some()
    }
}

#[test]
fn what_is_over_everywhere_is_dropped_with_its_log() {
    let mut pair = Pair::connected();
    pair.put(0, "kept", "v").unwrap();
    pair.put(0, "gone", "v").unwrap();
    pair.run_ms(10);
    pair.delete(1, "gone");
    pair.put_until(1, "short", START_MS / 1000 + 60);
    pair.run_ms(10);
    assert!(pair.entry_exists(0, "gone") && pair.entry_exists(1, "short"));
    pair.pass_epochs(4);
    pair.assert_equal();
    for side in 0..2 {
        let garbage = pair.replicas[side].garbage();
        assert_eq!((garbage.waiting.tombstones, garbage.waiting.expiring), (0, 0), "{garbage:?}");
        assert_eq!((garbage.log_rows, garbage.waiting.log_bytes), (0, 0), "{garbage:?}");
        assert!(garbage.epoch.wall_ms() > START_MS && garbage.swept, "{garbage:?}");
        for key in ["gone", "short"] {
            assert!(!pair.entry_exists(side, key), "{key} at {side}");
        }
        assert_eq!(pair.text(side, "kept").as_deref(), Some("v"));
        // Opening recomputes every count and digest.
        let reopened = Replica::open(pair.replicas[side].store().clone(), SETTINGS, A).unwrap();
        assert_eq!(reopened.root(), pair.replicas[side].root());
        assert_eq!(reopened.garbage().epoch, garbage.epoch);
    }
}

#[test]
fn a_member_that_is_away_holds_the_epoch_back_and_is_named() {
    let mut pair = Pair::connected();
    pair.put(0, "k", "v").unwrap();
    pair.run_ms(10);
    pair.disconnect();
    pair.delete(0, "k");
    let before = pair.replicas[0].epoch();
    pair.pass_epochs(3);
    let garbage = pair.replicas[0].garbage();
    assert_eq!(garbage.epoch, before);
    assert_eq!(garbage.waiting.tombstones, 1);
    assert!(garbage.holders.iter().any(|holder| holder.member == B), "{garbage:?}");
    pair.connect();
    pair.pass_epochs(2);
    assert_eq!(pair.replicas[0].garbage().waiting.tombstones, 0);
    assert!(!pair.entry_exists(0, "k") && !pair.entry_exists(1, "k"));
}

#[test]
fn a_removed_replica_is_told_and_what_it_alone_wrote_is_salvaged() {
    let mut pair = Pair::connected();
    pair.put(1, "known", "1").unwrap();
    pair.run_ms(10);
    pair.disconnect();
    pair.put(1, "unseen", "2").unwrap();
    pair.put(1, "overtaken", "3").unwrap();
    pair.run_ms(5);
    pair.put(0, "overtaken", "4").unwrap();
    pair.replicas[0].remove_member(pair.now(0), B, RemovalReason::Silent).unwrap();
    pair.replicas[0].flush().unwrap();
    pair.connect();
    pair.run_ms(1_000);
    assert_eq!(pair.replicas[1].stage(), Stage::Removed);
    assert_eq!(pair.put(1, "k", "v"), Err(WriteError::NotMember));
    assert_eq!(pair.text(0, "unseen"), None, "it is fenced");

    // What its driver does: a new store under a new name, that keeps what the old one alone may hold.
    let old = pair.replicas[1].store().clone();
    let new = ReplicaId([3; 16]);
    pair.disconnect();
    pair.replicas[1] = Replica::open(MemoryStore::default(), SETTINGS, new).unwrap();
    let mut salvaged = Vec::new();
    let mut take = |state: RepairRow| {
        salvaged.push(state);
        Ok(())
    };
    assert_eq!(crate::replica::returned::salvage(&old, &mut take), Ok(0));
    salvaged.iter().for_each(|state| pair.replicas[1].keep_returned(state).unwrap());
    pair.replicas[1].flush().unwrap();
    pair.replicas[1].join(record("b"));
    pair.connect();
    pair.run_ms(4_000);
    pair.assert_equal();
    for (key, expected) in [("known", "1"), ("unseen", "2"), ("overtaken", "4")] {
        assert_eq!(pair.text(0, key).as_deref(), Some(expected), "{key}");
    }
    assert_eq!(pair.replicas[1].dead_letters(), Ok(Vec::new()));
    let counters = pair.replicas[1].counters();
    assert_eq!((counters.written_anew, counters.superseded), (1, 2));
}

#[test]
fn a_returned_state_too_old_to_judge_is_a_dead_letter_until_someone_decides() {
    let mut pair = Pair::connected();
    pair.pass_epochs(2);
    let dot = |ms| Dot { hlc: Hlc::new(START_MS + ms, 0), replica: ReplicaId([8; 16]) };
    let state = |key: &'static str, ms| RepairRow {
        id: EntryId::value(NamespaceId([9; 16]), key),
        entry: Entry {
            dot: dot(ms),
            body: Body::Value(Value {
                payload: Payload::Inline(Bytes::from("old")),
                metadata: None,
                expires_at_s: None,
            }),
            base: Hlc::ZERO,
        },
    };
    for state in [state("written", 1), state("forgotten", 2)] {
        pair.replicas[0].keep_returned(&state).unwrap();
    }
    pair.replicas[0].flush().unwrap();
    pair.run_ms(2_000);
    let listed: Vec<Dot> =
        pair.replicas[0].dead_letters().unwrap().into_iter().map(|state| state.entry.dot).collect();
    assert_eq!(listed, [dot(1), dot(2)]);
    let now = pair.now(0);
    assert_eq!(pair.replicas[0].settle_dead_letter(now, dot(1), true), Ok(true));
    assert_eq!(pair.replicas[0].settle_dead_letter(now, dot(2), false), Ok(true));
    pair.replicas[0].flush().unwrap();
    assert_eq!(pair.replicas[0].settle_dead_letter(now, dot(2), true), Ok(false));
    pair.run_ms(10);
    assert_eq!(pair.text(1, "written").as_deref(), Some("old"));
    assert_eq!(pair.text(1, "forgotten"), None);
    assert_eq!(pair.replicas[0].dead_letters(), Ok(Vec::new()));
}

/// Found by the suite of members, when a PoP was rebuilt over the turn of a minute: an epoch passed while it copied, and a
/// write that nobody had deleted became a dead letter.
#[test]
fn no_epoch_passes_what_a_member_is_yet_to_write_anew() {
    let mut pair = Pair::connected();
    // It takes no writes for a while, so that it cannot do it at once.
    pair.replicas[0].drain_member(pair.now(0), B, true).unwrap();
    pair.replicas[0].flush().unwrap();
    pair.run_ms(10);
    let dot = Dot { hlc: Hlc::new(pair.now(0).wall_ms, 0), replica: ReplicaId([8; 16]) };
    let body = Body::Tombstone;
    let state =
        RepairRow { id: EntryId::value(NamespaceId([9; 16]), "carried"), entry: Entry::first(dot, body) };
    pair.replicas[1].keep_returned(&state).unwrap();
    pair.replicas[1].flush().unwrap();
    pair.pass_epochs(2);
    for side in 0..2 {
        let garbage = pair.replicas[side].garbage();
        assert!(garbage.epoch < dot.hlc, "{garbage:?}");
        assert_eq!((garbage.holders[0].member, garbage.holders[0].upto), (B, dot.hlc.previous()));
    }
    pair.replicas[0].drain_member(pair.now(0), B, false).unwrap();
    pair.replicas[0].flush().unwrap();
    pair.run_ms(2_000);
    assert_eq!(pair.replicas[1].counters().written_anew, 1);
    assert_eq!(pair.replicas[1].dead_letters(), Ok(Vec::new()));
    pair.pass_epochs(2);
    assert!(pair.replicas[0].epoch() > dot.hlc);
}

#[test]
fn an_older_copy_is_noticed_also_when_it_has_written_on() {
    // The copy is of before the second write; then it writes as much as its peer has seen of it, and more.
    for writes_on in 0..3 {
        let mut pair = Pair::connected();
        pair.put(0, "first", "v").unwrap();
        pair.run_ms(10);
        let copy = pair.replicas[0].store().clone();
        pair.put(0, "second", "v").unwrap();
        pair.run_ms(10);
        pair.disconnect();
        pair.replicas[0] = Replica::open(copy, SETTINGS, A).unwrap();
        for number in 0..writes_on {
            pair.put(0, &format!("third {number}"), "v").unwrap();
        }
        pair.connect();
        pair.run_ms(10);
        let events: Vec<_> = std::iter::from_fn(|| pair.replicas[0].poll_event()).collect();
        let is_noticed = events.iter().any(|event| matches!(event, Event::OlderCopy { peer: B }));
        assert!(is_noticed, "after {writes_on} writes: {events:?}");
        assert!(matches!(pair.put(0, "k", "v"), Err(WriteError::Store(_))));
    }
}

#[test]
fn two_processes_under_one_name_are_both_told() {
    let mut pair = Pair::connected();
    let copy = pair.replicas[0].store().clone();
    let open = |copy, boot| Replica::open(copy, Settings { boot, ..SETTINGS }, A).unwrap();
    let mut runs = [open(copy.clone(), 1), open(copy, 2)];
    // They take turns, as two nodes do whose links displace each other's.
    let mut is_told = [false; 2];
    for turn in 0..4 {
        let run = turn % 2;
        std::mem::swap(&mut pair.replicas[0], &mut runs[run]);
        pair.disconnect();
        pair.connect();
        pair.run_ms(1_000);
        is_told[run] |= std::iter::from_fn(|| pair.replicas[0].poll_event())
            .any(|event| matches!(event, Event::Cloned { peer: B }));
        std::mem::swap(&mut pair.replicas[0], &mut runs[run]);
    }
    assert_eq!(is_told, [true, true]);
}

#[test]
fn a_draining_member_takes_no_writes_until_it_may_again() {
    let mut pair = Pair::connected();
    for (draining, expected) in [(true, Err(WriteError::Draining)), (false, Ok(()))] {
        pair.replicas[0].drain_member(pair.now(0), B, draining).unwrap();
        pair.replicas[0].flush().unwrap();
        pair.run_ms(10);
        assert_eq!(pair.put(1, "k", "v").map(|_| ()), expected);
    }
}

#[test]
fn a_second_node_of_a_pop_is_not_let_in_while_the_first_is_here() {
    let mut pair = Pair::connected();
    let second = ReplicaId([4; 16]);
    pair.replicas[0].handle_connected(pair.now(0), second);
    let join = Message::Join { pop: "b".into(), region: "here".into() };
    pair.replicas[0].handle_message(pair.now(0), second, join.clone()).unwrap();
    pair.replicas[0].flush().unwrap();
    assert!(!pair.replicas[0].members().contains(second));
    // Its place is free when it is gone.
    pair.disconnect();
    pair.replicas[0].handle_message(pair.now(0), second, join).unwrap();
    pair.replicas[0].flush().unwrap();
    assert!(pair.replicas[0].members().contains(second));
    assert_eq!(
        pair.replicas[0].members().removal(B).map(|(reason, _)| reason),
        Some(RemovalReason::Replaced)
    );
}

/// Found by the simulator (`restore`, seed 20029): a PoP was made anew twice, and on either side of a cut one of the two was
/// let in. Nobody took the first out, and no epoch came any more.
#[test]
fn an_earlier_incarnation_that_another_let_in_is_replaced() {
    let mut pair = Pair::connected();
    let [earlier, later] = [4, 5].map(|id| ReplicaId([id; 16]));
    for id in [earlier, B, later] {
        let now = pair.now(0);
        pair.replicas[0].record(now, member_entry(id, &record("b"))).unwrap();
    }
    pair.replicas[0].flush().unwrap();
    pair.run_ms(2_000);
    for replica in &pair.replicas {
        let removal = |id| replica.members().removal(id).map(|(reason, _)| reason);
        assert_eq!([earlier, B, later].map(removal), [Some(RemovalReason::Replaced), None, None]);
    }
}

/// Has A let in a third replica that is never heard again.
fn let_in_and_lose(pair: &mut Pair, third: ReplicaId) {
    let now = pair.now(0);
    pair.replicas[0].handle_connected(now, third);
    let join = Message::Join { pop: "c".into(), region: "here".into() };
    pair.replicas[0].handle_message(now, third, join).unwrap();
    pair.replicas[0].flush().unwrap();
    pair.replicas[0].handle_disconnected(third);
    pair.run_ms(1_000);
    assert!(pair.replicas.iter().all(|replica| replica.members().contains(third)));
}

/// A new member once waited for an idle one's next claim: a quarter of an epoch, 15 s.
#[test]
fn an_idle_member_says_at_once_what_a_new_one_waits_for() {
    let (mut pair, third) = (Pair::connected(), ReplicaId([4; 16]));
    let_in_and_lose(&mut pair, third);
    let joined = pair.replicas[0].joined_at(third).unwrap();
    assert!(pair.replicas[0].vector().hlc(B) > joined);
}

#[test]
fn where_too_much_waits_the_silent_are_evicted_sooner() {
    let (mut pair, third) = (Pair::connected(), ReplicaId([4; 16]));
    let_in_and_lose(&mut pair, third);
    pair.delete(0, "k");
    pair.now_us += SETTINGS.max_away_ms * 1000 / 50;
    pair.run_ms(1_000);
    assert!(pair.replicas[0].members().contains(third), "it may be away for a week");
    pair.replicas[0].settings.max_waiting_bytes = 1;
    pair.run_ms(1_000);
    let removal = pair.replicas[0].members().removal(third);
    assert_eq!(removal.map(|(reason, _)| reason), Some(RemovalReason::Silent));
}

/// Found by the simulator, `late-frames` seed 179 of that day: cut off from each other, two took each other out by the same
/// witness, which heard both and was behind in handing on what either said.
#[test]
fn whom_another_member_hears_is_not_silent() {
    let (mut pair, third) = (Pair::connected(), ReplicaId([4; 16]));
    let_in_and_lose(&mut pair, third);
    pair.replicas[1].handle_connected(pair.now(1), third);
    let heartbeat = Message::Heartbeat(heartbeat(pair.now(1)));
    pair.replicas[1].handle_message(pair.now(1), third, heartbeat).unwrap();
    pair.run_ms(1_000);
    pair.now_us += 2 * SETTINGS.max_away_ms * 1000;
    pair.run_ms(1_000);
    assert!(pair.replicas.iter().all(|replica| replica.members().contains(third)));
    pair.replicas[1].handle_disconnected(third);
    pair.run_ms(1_000);
    let removal = pair.replicas[0].members().removal(third);
    assert_eq!(removal.map(|(reason, _)| reason), Some(RemovalReason::Silent));
}

#[test]
fn too_few_are_here_once_the_other_is_gone() {
    let mut pair = Pair::connected();
    pair.run_ms(1_000);
    assert_eq!(pair.replicas[0].quorum(), Quorum { here: 2, of: 2 });
    pair.disconnect();
    assert!(!pair.replicas[0].quorum().is_met());
    // Nor are there more here after others were taken out, as long as one does not know of it.
    pair.connect();
    let_in_and_lose(&mut pair, ReplicaId([4; 16]));
    pair.replicas[0].remove_member(pair.now(0), ReplicaId([4; 16]), RemovalReason::Operator).unwrap();
    pair.replicas[0].flush().unwrap();
    assert_eq!(pair.replicas[0].quorum(), Quorum { here: 2, of: 3 });
    pair.run_ms(1_000);
    assert_eq!(pair.replicas[0].quorum(), Quorum { here: 2, of: 2 });
}

/// Found by the simulator, `evicted` seed 22 of that day: a replica let in by one that was evicted handed on what that one
/// wrote after its cut; some had it from there, others had dropped all up to a later time, and both called themselves
/// equal. Seed 4576: it wrote itself, and what it deleted came back, since no epoch had waited for it.
#[test]
fn what_a_removed_replica_wrote_is_taken_from_members_only() {
    let (mut pair, third, stranger) = (Pair::connected(), ReplicaId([4; 16]), ReplicaId([5; 16]));
    let_in_and_lose(&mut pair, third);
    pair.replicas[0].remove_member(pair.now(0), third, RemovalReason::Silent).unwrap();
    pair.replicas[0].flush().unwrap();
    pair.run_ms(10);
    let upto = Position { hlc: Hlc::new(pair.now(0).wall_ms, 0), ops: 0, bytes: 0 };
    let delta = crate::codec::message::Delta {
        origin: third,
        group: 0,
        after: Position::default(),
        upto,
        rows: Vec::new(),
        batches: crate::codec::message::Batches::default(),
    };
    let now = pair.now(0);
    pair.replicas[0].handle_connected(now, stranger);
    for (from, held) in [(stranger, Hlc::ZERO), (B, upto.hlc)] {
        pair.replicas[0].handle_message(now, from, Message::Delta(delta.clone())).unwrap();
        pair.replicas[0].flush().unwrap();
        assert_eq!(pair.replicas[0].vector().hlc(third), held);
    }
    // What the stranger wrote itself comes when a record tells of it: no epoch waits for it.
    let own = crate::codec::message::Delta { origin: stranger, ..delta };
    pair.replicas[0].handle_message(now, stranger, Message::Delta(own)).unwrap();
    pair.replicas[0].flush().unwrap();
    assert_eq!(pair.replicas[0].vector().hlc(stranger), Hlc::ZERO);
}

/// Found by the simulator, `membership` seed 1284 of that day: a member that did not know yet when a replica had joined told
/// others that its events were dropped, and one of them gave up its store for it.
#[test]
fn nobody_falls_behind_for_one_that_joined_after_the_epoch() {
    let (mut pair, third) = (Pair::connected(), ReplicaId([4; 16]));
    pair.put(0, "k", "v").unwrap();
    pair.pass_epochs(2);
    let epoch = pair.replicas[0].epoch();
    let_in_and_lose(&mut pair, third);
    pair.replicas[0].remove_member(pair.now(0), third, RemovalReason::Operator).unwrap();
    pair.replicas[0].flush().unwrap();
    let joined = pair.replicas[0].joined_at(third).unwrap();
    assert!(Hlc::ZERO < epoch && epoch < joined);
    let claimed = Position { hlc: joined.next(), ..Position::default() };
    pair.replicas[0].peers.get_mut(&B).unwrap().claims.advance(third, claimed);
    pair.replicas[0].handle_message(pair.now(0), B, Message::Behind { epoch }).unwrap();
    pair.put(0, "k", "v").unwrap();
}
