//! One replica alone, whose documents are folded once their changes are stable.

use std::ops::ControlFlow;

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};

use super::*;
use crate::doc;
use crate::entry::Kind;
use crate::kinds::Change;
use crate::store::folding::Folding;

const PAGE: (NamespaceId, &[u8]) = (NamespaceId([9; 16]), b"page");
const SETTINGS: Settings = Settings { epoch_every_ms: 1_000, ..super::SETTINGS };
const ENOUGH: usize = SETTINGS.fold_from;

struct Alone {
    replica: Replica<Folding<MemoryStore>>,
    document: AutoCommit,
    now_us: u64,
}

impl Alone {
    fn new() -> Self {
        let replica = Replica::open(Folding::default(), SETTINGS, A).unwrap();
        let document = AutoCommit::new().with_actor(ActorId::from([1; 24]));
        let mut alone = Self { replica, document, now_us: 0 };
        alone.replica.found(alone.now(), &record("a")).unwrap();
        alone.replica.flush().unwrap();
        alone
    }

    fn now(&self) -> Now {
        Now { wall_ms: START_MS + self.now_us / 1000, mono_us: self.now_us }
    }

    fn change(&mut self, element: Bytes, change: Change) {
        let id = EntryId { element, ..EntryId::whole(PAGE.0, Kind::Doc, PAGE.1) };
        self.replica.change(self.now(), id, change).unwrap();
        self.replica.flush().unwrap();
        self.now_us += 1_000;
    }

    fn edit(&mut self, times: usize) {
        for n in 0..times {
            self.document.put(ROOT, "n", n as u64).unwrap();
            self.document.commit();
            let change = self.document.get_last_local_change().unwrap().bytes().into_owned();
            let (element, content) = doc::rows(&change.into()).unwrap().remove(0);
            self.change(element, Change::Put(content));
        }
    }

    /// Lets time pass, and all that is due happen.
    fn settle(&mut self) {
        let until_us = self.now_us + 5_000_000;
        while self.now_us < until_us {
            self.now_us = self.now_us.max(self.replica.poll_timeout().unwrap());
            self.replica.handle_timeout(self.now()).unwrap();
            self.replica.flush().unwrap();
        }
    }

    fn verify(&mut self) {
        assert_eq!(self.replica.verify(self.now()), Ok(true));
        self.settle();
        let verified = std::iter::from_fn(|| self.replica.poll_event()).find_map(|event| match event {
            Event::Verified(verified) => Some(verified),
            _ => None,
        });
        assert_eq!(verified.unwrap().mismatches, []);
    }

    /// As a node that is started again.
    fn opened_again(self) -> Self {
        let replica = Replica::open(self.replica.into_store(), SETTINGS, A).unwrap();
        Self { replica, ..self }
    }

    fn chunks(&self) -> usize {
        doc::read(self.replica.store(), PAGE, START_MS / 1000).unwrap().standing.len()
    }

    /// How many rows the store really has of entries and of folds.
    fn rows(&self) -> (usize, usize) {
        let (mut entries, mut folds) = (0, 0);
        let mut visit = |row_key: &[u8], _| {
            entries += usize::from(row_key[0] == keys::ENTRY);
            folds += usize::from(row_key[0] == keys::FOLD);
            ControlFlow::Continue(())
        };
        self.replica.store().beneath().scan(&[], &mut visit).unwrap();
        (entries, folds)
    }
}

#[test]
fn edits_that_all_members_hold_are_folded_and_nothing_else_is_to_be_seen() {
    let mut alone = Alone::new();
    let (others, _) = alone.rows();
    alone.edit(ENOUGH - 1);
    alone.settle();
    assert_eq!(alone.rows(), (others + ENOUGH - 1, 0), "they are too few");
    let root = alone.replica.root();
    alone.edit(1);
    assert_ne!(alone.replica.root(), root);
    let root = alone.replica.root();
    alone.settle();
    assert_eq!(alone.rows(), (others, 1));
    assert_eq!(alone.replica.counters().folded, ENOUGH as u64);
    assert_eq!((alone.replica.root(), alone.chunks()), (root, ENOUGH));
    alone.verify();
    let alone = alone.opened_again();
    assert_eq!((alone.replica.root(), alone.chunks()), (root, ENOUGH));
}

#[test]
fn a_deleted_document_takes_its_folds_with_it() {
    let mut alone = Alone::new();
    let before = alone.rows();
    alone.edit(3 * ENOUGH);
    alone.settle();
    let (rows, folds) = alone.rows();
    assert!(rows < before.0 + ENOUGH && folds > 1, "{rows} rows of entries and {folds} folds");
    alone.change(Bytes::new(), Change::Clear);
    assert_eq!(alone.chunks(), 0);
    alone.settle();
    assert_eq!(alone.rows(), before);
    alone.verify();
}

/// What waits to be folded is known in memory only.
#[test]
fn a_verification_finds_what_a_restart_left_unfolded() {
    let mut alone = Alone::new();
    let (others, _) = alone.rows();
    for _ in 0..2 {
        alone.edit(ENOUGH - 1);
        alone.settle();
        alone = alone.opened_again();
    }
    alone.settle();
    assert_eq!(alone.rows(), (others + 2 * (ENOUGH - 1), 0));
    alone.verify();
    alone.settle();
    let (left, folds) = alone.rows();
    assert!(left < others + ENOUGH && folds == 1, "{left} rows of entries and {folds} folds");
    assert_eq!(alone.chunks(), 2 * (ENOUGH - 1));
}
