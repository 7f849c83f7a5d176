//! Batches, and what readers see of them.

use super::*;
use crate::kinds::Change;
use crate::read::shown::Shown;
use crate::replica::batch::{BatchError, BatchWrite, MAX_BATCH_WRITES};
use crate::replica::veil::{MAX_VEILED_US, MAX_VEILS};

fn value(text: &str) -> BatchWrite {
    let payload = Payload::Inline(Bytes::from(text.to_owned()));
    BatchWrite::Write(Body::Value(Value { payload, metadata: None, expires_at_s: None }))
}

fn id(key: impl Into<String>) -> EntryId {
    EntryId::value(NamespaceId([9; 16]), key.into())
}

impl Pair {
    fn write_batch(&mut self, side: usize, writes: Vec<(EntryId, BatchWrite)>) {
        let now = self.now(side);
        self.replicas[side].write_batch(now, writes).unwrap();
        self.replicas[side].flush().unwrap();
    }

    /// What a reader sees.
    fn shown(&self, side: usize, key: &str) -> Option<String> {
        let (replica, veils) = (&self.replicas[side], self.replicas[side].veil_count());
        let shown = Shown::new(replica.store(), &veils);
        let value = crate::read::value(&shown, NamespaceId([9; 16]), key.as_bytes(), START_MS / 1000);
        let page = crate::read::page(&shown, NamespaceId([9; 16]), key.as_bytes(), None, 9, START_MS / 1000);
        let value = value.unwrap();
        assert_eq!(page.unwrap().rows.iter().any(|(listed, _)| listed == key), value.is_some());
        value.map(|value| match value.payload {
            Payload::Inline(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Payload::Chunked(_) => "chunks".to_owned(),
        })
    }

    /// Frames of one event or batch from A to B, as many as these.
    fn deliver(&mut self, frames: usize) -> usize {
        let mut delivered = 0;
        while delivered < frames {
            let now = self.now(0);
            let lanes = [Lane::Delta, Lane::CatchUp];
            let frame =
                lanes.iter().find_map(|lane| self.replicas[0].poll_transmit(now, B, *lane, 1).unwrap());
            let Some(frame) = frame else { break };
            self.receive(1, &frame);
            delivered += 1;
            self.now_us += 10_000;
        }
        delivered
    }

    fn veils(&self) -> usize {
        self.replicas[1].veil_count().load(std::sync::atomic::Ordering::Acquire)
    }
}

/// The first event goes with the state that the batch has left, before the batch.
fn with_a_veil() -> Pair {
    let mut pair = Pair::connected();
    pair.run_ms(2_000);
    pair.put(0, "one", "before").unwrap();
    pair.write_batch(0, vec![(id("one"), value("after")), (id("two"), value("after"))]);
    assert_eq!(pair.deliver(1), 1);
    pair
}

#[test]
fn a_state_that_shows_a_part_of_a_batch_is_veiled_until_the_rest_is_here() {
    let mut pair = with_a_veil();
    assert_eq!((pair.text(1, "one").as_deref(), pair.text(1, "two")), (Some("after"), None));
    assert_eq!((pair.shown(1, "one"), pair.veils()), (None, 1));
    let (held, shown) = (pair.replicas[1].vector().hlc(A), pair.replicas[1].shown().hlc(A));
    assert!(shown < held, "what is hidden is not said to be shown");
    // A restart forgets nothing of it.
    let reopened = Replica::open(pair.replicas[1].store().clone(), SETTINGS, B).unwrap();
    assert_eq!(reopened.shown_entry(&id("one")).unwrap(), None);
    assert_eq!(reopened.shown(), pair.replicas[1].shown());
    assert_eq!(pair.deliver(9), 1, "a batch is one frame");
    assert_eq!(
        (pair.shown(1, "one").as_deref(), pair.shown(1, "two").as_deref()),
        (Some("after"), Some("after"))
    );
    assert_eq!((pair.veils(), pair.replicas[1].counters().batches_torn), (0, 0));
    assert_eq!(pair.replicas[1].shown(), *pair.replicas[1].vector());
    assert_eq!(pair.replicas[0].root(), pair.replicas[1].root());
}

#[test]
fn an_own_write_is_seen_at_once_and_what_it_did_not_replace_stays_veiled() {
    let count = |name: &'static str| EntryId::whole(NamespaceId([9; 16]), crate::Kind::Counter, name);
    let add = |amount| Change::Add { amount, expires_at_s: None };
    let mut pair = Pair::connected();
    pair.run_ms(2_000);
    let now = pair.now(0);
    pair.replicas[0].change(now, count("from"), add(0)).unwrap();
    pair.replicas[0].flush().unwrap();
    let moved = |amount| BatchWrite::Change(add(amount));
    pair.write_batch(0, vec![(count("from"), moved(-5)), (count("to"), moved(5))]);
    pair.deliver(1);
    pair.put(0, "other", "text").unwrap();
    let now = pair.now(1);
    pair.replicas[1].change(now, count("from"), add(100)).unwrap();
    pair.replicas[1].flush().unwrap();
    let counted = |pair: &Pair, name: &str| {
        let (replica, veils) = (&pair.replicas[1], pair.replicas[1].veil_count());
        let shown = Shown::new(replica.store(), &veils);
        let found =
            crate::read::kinds::counter(&shown, NamespaceId([9; 16]), name.as_bytes(), START_MS / 1000);
        found.unwrap().map(|found| found.count)
    };
    assert_eq!((counted(&pair, "from"), counted(&pair, "to")), (Some(100), None));
    pair.deliver(1);
    assert_eq!((counted(&pair, "from"), counted(&pair, "to")), (Some(95), Some(5)));
    // Of a value nothing else is left.
    let mut pair = with_a_veil();
    pair.put(1, "one", "mine").unwrap();
    assert_eq!((pair.shown(1, "one").as_deref(), pair.veils()), (Some("mine"), 0));
    // With the last veil goes what was said to be hidden: sessions waited for it.
    assert_eq!(pair.replicas[1].shown(), *pair.replicas[1].vector());
}

#[test]
fn a_batch_is_written_whole_or_not_at_all() {
    let mut pair = Pair::connected();
    let stock = EntryId::whole(NamespaceId([9; 16]), crate::Kind::Bounded, "stock");
    let take = BatchWrite::Change(Change::Add { amount: -1, expires_at_s: None });
    let now = pair.now(0);
    let refused = pair.replicas[0].write_batch(now, vec![(id("one"), value("sold")), (stock, take)]);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, BatchError { index: Some(1), error: WriteError::Change(_) }), "{refused:?}");
    pair.replicas[0].flush().unwrap();
    assert_eq!(pair.text(0, "one"), None);
}

#[test]
fn a_batch_has_at_most_so_many_writes() {
    let write = |count: usize| {
        let mut pair = Pair::connected();
        pair.write_batch(0, (0..count).map(|number| (id(number.to_string()), value("x"))).collect());
        pair.text(0, &(count - 1).to_string())
    };
    for count in [MAX_BATCH_WRITES - 1, MAX_BATCH_WRITES] {
        assert_eq!(write(count).as_deref(), Some("x"));
    }
    assert!(std::panic::catch_unwind(|| write(MAX_BATCH_WRITES + 1)).is_err());
}

#[test]
fn there_are_at_most_so_many_veils_and_then_parts_are_shown_and_counted() {
    let mut pair = Pair::connected();
    pair.run_ms(2_000);
    // Each was written twice before a batch: the first event of each goes with the state of the second.
    for text in ["first", "second"] {
        for number in 0..=MAX_VEILS {
            let body = Body::Value(Value {
                payload: Payload::Inline(Bytes::from(text)),
                metadata: None,
                expires_at_s: None,
            });
            let now = pair.now(0);
            pair.replicas[0].write(now, id(number.to_string()), body).unwrap();
        }
    }
    pair.write_batch(0, vec![(id("one"), value("x")), (id("two"), value("x"))]);
    pair.deliver(MAX_VEILS - 1);
    assert_eq!(pair.veils(), MAX_VEILS - 1);
    pair.deliver(1);
    assert_eq!((pair.veils(), pair.replicas[1].counters().batches_torn), (MAX_VEILS, 0));
    assert_eq!(pair.shown(1, "0"), None);
    pair.deliver(1);
    assert_eq!((pair.veils(), pair.replicas[1].counters().batches_torn), (0, MAX_VEILS as u64));
    assert_eq!(pair.shown(1, "0").as_deref(), Some("second"));
}

#[test]
fn a_veil_hangs_for_at_most_so_long() {
    for (late_us, veils) in [(-1, 1), (0, 0), (1, 0)] {
        let mut pair = with_a_veil();
        let due_us = pair.replicas[1].veils.due_us().unwrap();
        assert!(due_us <= pair.now_us + MAX_VEILED_US);
        pair.now_us = due_us.saturating_add_signed(late_us);
        let now = pair.now(1);
        pair.replicas[1].handle_timeout(now).unwrap();
        pair.replicas[1].flush().unwrap();
        assert_eq!(pair.veils(), veils, "{late_us} us late");
        assert_eq!(pair.replicas[1].counters().batches_torn, 1 - veils as u64);
    }
}
