//! A store that folds, beside one that does not: nobody sees a difference.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use proptest::prelude::*;

use super::*;
use crate::clock::Hlc;
use crate::entry::{EntryId, Kind, NamespaceId};
use crate::store::conformance;
use crate::store::memory::MemoryStore;

const NAMESPACE: NamespaceId = NamespaceId([7; 16]);

/// Edits of one document by two who see each other's, as small ones are: each a change.
fn edits(count: usize) -> Vec<Bytes> {
    let mut one = AutoCommit::new().with_actor(ActorId::from([1; 24]));
    let mut other = one.fork().with_actor(ActorId::from([2; 24]));
    let mut changes = Vec::new();
    for n in 0..count {
        let edited = if n % 3 == 0 { &mut other } else { &mut one };
        // Some are so long that Automerge compresses them.
        let text = if n % 20 == 19 { "a long text of words ".repeat(40) } else { format!("text {n}") };
        edited.put(ROOT, format!("field {}", n % 10), text).unwrap();
        edited.commit();
        changes.push(Bytes::from(edited.get_last_local_change().unwrap().bytes().into_owned()));
        if n % 5 == 4 {
            one.merge(&mut other).unwrap();
            other.merge(&mut one).unwrap();
        }
    }
    changes
}

fn head(key: &'static str) -> Vec<u8> {
    keys::entry(&EntryId::whole(NAMESPACE, Kind::Doc, key))
}

/// The row of a change that the `n`th event put.
fn put(head: &[u8], n: u64, change: &Bytes) -> Row {
    let hlc = Hlc::new(1_800_000_000_000 + 700 * n, (n % 3) as u16);
    unfolded_row(head, FoldedChange { origin_index: (n % 3) as u16, hlc, change: change.clone() })
}

fn elements(head: &[u8], rows: &[Row]) -> Vec<Bytes> {
    rows.iter().map(|(row_key, _)| Bytes::copy_from_slice(&row_key[head.len()..])).collect()
}

fn commit(store: &mut impl Store, rows: &[Row]) {
    let batch = rows.iter().map(|(row_key, row)| (row_key.clone(), Some(row.to_vec()))).collect();
    store.commit(batch).unwrap();
}

fn scan(store: &impl Store, from: &[u8], limit: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut visit = |row_key: &[u8], row| {
        rows.push((row_key.to_vec(), row));
        if rows.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(from, &mut visit).unwrap();
    rows
}

/// What the rows of a store take.
fn bytes(store: &impl Store) -> usize {
    scan(store, b"", usize::MAX).iter().map(|(row_key, row)| row_key.len() + row.len()).sum()
}

#[test]
fn it_is_a_store_as_any() {
    conformance::check(&mut Folding::<MemoryStore>::default);
}

#[test]
fn edits_that_are_folded_take_a_fraction_and_are_read_as_before() {
    let head = head("page");
    let edits = edits(150).into_iter().filter(|change| change.len() < 200);
    let rows: Vec<Row> = edits.zip(0..).map(|(change, n)| put(&head, n, &change)).collect();
    let mut store = Folding::<MemoryStore>::default();
    commit(&mut store, &rows);
    let (before, apart) = (scan(&store, b"", usize::MAX), bytes(store.beneath()));
    let folded = store.fold(&head, &elements(&head, &rows)).unwrap();
    assert_eq!(folded, Folded { seen: rows.len(), kept: rows.len() });
    assert_eq!(scan(&store, b"", usize::MAX), before);
    assert!(rows.iter().all(|(row_key, row)| store.read(row_key).unwrap().as_ref() == Some(row)));
    let together = bytes(store.beneath());
    assert!(together * 5 < apart, "{} changes took {apart} bytes and take {together}", rows.len());
}

#[test]
fn what_is_not_a_change_in_a_row_of_its_own_stays_where_it_is() {
    let head = head("page");
    let edits = edits(3);
    let mut rows: Vec<Row> = edits.iter().zip(0..).map(|(change, n)| put(&head, n, change)).collect();
    let no_change = put(&head, 9, &Bytes::from("no change at all"));
    let damaged = (put(&head, 9, &Bytes::from("damaged")).0, Bytes::from("damaged"));
    let elsewhere = ([&rows[0].0[..], b"x"].concat(), rows[0].1.clone());
    rows.extend([no_change, damaged, elsewhere]);
    let mut store = Folding::<MemoryStore>::default();
    commit(&mut store, &rows);
    let before = scan(&store, b"", usize::MAX);
    let mut asked = elements(&head, &rows);
    asked.push(Bytes::from("of which there is none"));
    // What says nothing to Automerge is folded as it is.
    assert_eq!(store.fold(&head, &asked), Ok(Folded { seen: 7, kept: 4 }));
    assert_eq!(scan(&store, b"", usize::MAX), before);
}

#[test]
fn what_was_folded_and_deleted_stays_deleted() {
    let head = head("page");
    let rows: Vec<Row> = edits(6).iter().zip(0..).map(|(change, n)| put(&head, n, change)).collect();
    let mut store = Folding::<MemoryStore>::default();
    commit(&mut store, &rows);
    store.fold(&head, &elements(&head, &rows)).unwrap();
    let none: Batch = rows[..5].iter().map(|(row_key, _)| (row_key.clone(), None)).collect();
    // Something lay over one of them.
    commit(&mut store, &[put(&head, 77, &edits(1)[0])]);
    store.commit(none).unwrap();
    assert_eq!(scan(&store, b"", usize::MAX), rows[5..]);
    store.commit(Batch::from([(rows[5].0.clone(), None)])).unwrap();
    assert!(scan(store.beneath(), b"", usize::MAX).is_empty(), "the fold goes with the last change in it");
}

#[test]
fn what_was_folded_twice_is_in_one_fold() {
    let head = head("page");
    let changes = edits(4);
    let rows: Vec<Row> = changes.iter().zip(0..).map(|(change, n)| put(&head, n, change)).collect();
    let anew: Vec<Row> = changes.iter().zip(50..).map(|(change, n)| put(&head, n, change)).collect();
    let mut store = Folding::<MemoryStore>::default();
    for rows in [&rows, &anew] {
        commit(&mut store, rows);
        assert_eq!(store.fold(&head, &elements(&head, rows)), Ok(Folded { seen: 4, kept: 4 }));
    }
    store.commit(Batch::from([(anew[0].0.clone(), None)])).unwrap();
    let mut left = anew[1..].to_vec();
    left.sort_unstable();
    assert_eq!(scan(&store, b"", usize::MAX), left);
}

/// A store whose document is folded right after the rows of it were read, and before the folds are.
#[derive(Default)]
struct FoldedMeanwhile {
    before: MemoryStore,
    after: MemoryStore,
    /// How many reads still find it as it was.
    reads: std::cell::Cell<usize>,
}

impl FoldedMeanwhile {
    fn now(&self) -> &MemoryStore {
        let left = self.reads.get();
        self.reads.set(left.saturating_sub(1));
        if left > 0 { &self.before } else { &self.after }
    }
}

impl Store for FoldedMeanwhile {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.now().read(key)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.now().scan(from, visit)
    }

    fn commit(&mut self, _: Batch) -> Result<(), StoreError> {
        unreachable!("it is only read")
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        unreachable!("it is only read")
    }
}

#[test]
fn who_reads_while_it_is_folded_misses_nothing() {
    let head = head("page");
    let rows: Vec<Row> = edits(20).iter().zip(0..).map(|(change, n)| put(&head, n, change)).collect();
    let mut store = Folding::<MemoryStore>::default();
    commit(&mut store, &rows);
    let all = scan(&store, b"", usize::MAX);
    let before = store.beneath().clone();
    store.fold(&head, &elements(&head, &rows)).unwrap();
    for reads in 0..6 {
        let (before, after) = (before.clone(), store.beneath().clone());
        let store = Folding::new(FoldedMeanwhile { before, after, reads: reads.into() });
        assert_eq!(scan(&store, b"", usize::MAX), all);
        store.rows.reads.set(reads);
        assert_eq!(store.read(&rows[3].0).unwrap().as_ref(), Some(&rows[3].1));
    }
}

#[test]
fn a_fold_that_is_damaged_is_said_to_be() {
    let head = head("page");
    let rows: Vec<Row> = edits(20).iter().zip(0..).map(|(change, n)| put(&head, n, change)).collect();
    let mut store = Folding::<MemoryStore>::default();
    commit(&mut store, &rows);
    store.fold(&head, &elements(&head, &rows)).unwrap();
    let (fold_key, fold) = scan(store.beneath(), b"", 1).remove(0);
    for at in 0..fold.len() {
        let mut damaged = fold.to_vec();
        damaged[at] ^= 1;
        let mut spoilt = Folding::new(store.beneath().clone());
        spoilt.beneath_mut().commit(Batch::from([(fold_key.clone(), Some(damaged))])).unwrap();
        let error = spoilt.scan(b"", &mut |_, _| ControlFlow::Continue(())).unwrap_err();
        assert!(error.reason.contains("rebuild this node"), "{error}");
    }
}

/// What somebody does to a store.
#[derive(Clone, Debug)]
enum Deed {
    Put { key: usize, change: usize, at: u64 },
    Remove { key: usize, change: usize },
    Value { kind: u8, key: usize },
    Fold { key: usize, from: usize, count: usize },
}

const KEYS: [&str; 4] = ["a", "a\0", "a\0b", "b"];
const CHANGES: usize = 30;

fn deed() -> impl Strategy<Value = Deed> {
    let key = || 0..KEYS.len();
    prop_oneof![
        6 => (key(), 0..CHANGES, 0..100u64).prop_map(|(key, change, at)| Deed::Put { key, change, at }),
        2 => (key(), 0..CHANGES).prop_map(|(key, change)| Deed::Remove { key, change }),
        1 => (1..7u8, key()).prop_map(|(kind, key)| Deed::Value { kind, key }),
        2 => (key(), 0..CHANGES, 1..CHANGES).prop_map(|(key, from, count)| Deed::Fold { key, from, count }),
    ]
}

proptest! {
    #[test]
    fn nobody_sees_what_is_folded(
        deeds in prop::collection::vec(prop::collection::vec(deed(), 1..12), 1..30),
        from in (0..KEYS.len(), 0..CHANGES, 1..40usize),
    ) {
        let changes = edits(CHANGES);
        let (mut plain, mut store) = (MemoryStore::default(), Folding::<MemoryStore>::default());
        let row_key = |key: usize, change: usize| put(&head(KEYS[key]), 0, &changes[change]).0;
        let row_key_of = |(key, change)| row_key(key, change);
        for deeds in deeds {
            let mut batch = Batch::new();
            for deed in &deeds {
                match *deed {
                    Deed::Put { key, change, at } => {
                        let (row_key, row) = put(&head(KEYS[key]), at, &changes[change]);
                        batch.insert(row_key, Some(row.to_vec()));
                    }
                    Deed::Remove { key, change } => drop(batch.insert(row_key(key, change), None)),
                    Deed::Value { kind, key } => {
                        let kind = Kind::of(kind).unwrap();
                        let whole = keys::entry(&EntryId::whole(NAMESPACE, kind, KEYS[key]));
                        drop(batch.insert(whole, Some(vec![1])));
                    }
                    Deed::Fold { .. } => {}
                }
            }
            plain.commit(batch.clone()).unwrap();
            store.commit(batch).unwrap();
            for deed in deeds {
                if let Deed::Fold { key, from, count } = deed {
                    let elements: Vec<Bytes> = changes.iter().skip(from).take(count).map(doc::element_of).collect();
                    // A change that two replicas have put is named twice: folded twice, it once outlived its removal.
                    let elements: Vec<Bytes> = elements.iter().chain(elements.iter().take(2)).cloned().collect();
                    store.fold(&head(KEYS[key]), &elements).unwrap();
                }
            }
            prop_assert_eq!(scan(&store, b"", usize::MAX), scan(&plain, b"", usize::MAX));
            for row_key in (0..KEYS.len()).flat_map(|key| (0..CHANGES).step_by(3).map(move |change| (key, change))) {
                let row_key = row_key_of(row_key);
                prop_assert_eq!(store.read(&row_key).unwrap(), plain.read(&row_key).unwrap());
            }
        }
        let (key, change, limit) = from;
        let from = row_key(key, change);
        prop_assert_eq!(scan(&store, &from, limit), scan(&plain, &from, limit));
        prop_assert_eq!(scan(&store, &head(KEYS[key]), limit), scan(&plain, &head(KEYS[key]), limit));
        for change in 0..CHANGES {
            let row_key = row_key(key, change);
            prop_assert_eq!(store.read(&row_key).unwrap(), plain.read(&row_key).unwrap());
        }
    }
}
