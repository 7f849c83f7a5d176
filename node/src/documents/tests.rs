//! What edits do to documents, and what merging them gives.

use automerge::ChangeHash;
use bytes::Bytes;
use replication::doc::{Chunk, Form};
use serde_json::{Value as Json, json};

use super::{Document, DocumentError, Edit, Limits, Patch};

mod bounds;
mod hostile;
mod merging;
mod patching;

const WIDE: Limits = Limits::of_node(4 << 20, 1_000_000);

/// A document, and the rows it is stored as.
struct Copy {
    document: Document,
    rows: Vec<Vec<u8>>,
}

impl Copy {
    fn new(actor: u8) -> Self {
        Self { document: Document::load(&[], &[actor; 24]).unwrap(), rows: Vec::new() }
    }

    fn of(json: &Json, actor: u8) -> Self {
        let mut copy = Self::new(actor);
        copy.put(json);
        copy
    }

    /// Another copy of what this is, for another to edit.
    fn fork(&self, actor: u8) -> Self {
        let document = Document::load(&chunks(&self.rows), &[actor; 24]).unwrap();
        Self { document, rows: self.rows.clone() }
    }

    fn edit(&mut self, edit: &Edit<'_>) -> Result<bool, DocumentError> {
        let change = self.document.edit(edit, None, 7, WIDE)?;
        let is_changed = change.is_some();
        self.rows.extend(change);
        Ok(is_changed)
    }

    fn put(&mut self, json: &Json) -> bool {
        self.edit(&Edit::Put(json)).unwrap()
    }

    fn merge(&mut self, patch: &Json) -> bool {
        self.edit(&Edit::Merge(patch)).unwrap()
    }

    fn patch(&mut self, patch: &Json) -> Result<bool, DocumentError> {
        self.edit(&Edit::Patch(&Patch::parse(patch)?))
    }

    /// Takes what the other has and this has not.
    fn absorb(&mut self, other: &Self) {
        let new: Vec<_> = other.rows.iter().filter(|row| !self.rows.contains(row)).cloned().collect();
        self.document.absorb(&chunks(&new)).unwrap();
        self.rows.extend(new);
    }

    fn json(&self) -> Json {
        self.document.json("", None).unwrap()
    }

    fn heads(&self) -> Vec<ChangeHash> {
        self.document.heads()
    }

    /// The operations of the last change.
    fn last_ops(&self) -> u64 {
        self.document.history(None, 1_000).unwrap().changes.last().unwrap().ops
    }
}

/// Changes as they are stored.
fn chunks(changes: &[Vec<u8>]) -> Vec<Chunk> {
    let chunk = |bytes: &Vec<u8>| Chunk {
        form: Form::Change,
        bytes: Bytes::from(bytes.clone()),
        dots: Vec::new(),
        elements: Vec::new(),
    };
    changes.iter().map(chunk).collect()
}

/// What two make of one document at once is the same whoever hears of the other first, and in which order it is loaded.
fn meet(base: &Json, one: impl FnOnce(&mut Copy), other: impl FnOnce(&mut Copy)) -> Json {
    let base = Copy::of(base, 1);
    let (mut a, mut b) = (base.fork(2), base.fork(3));
    one(&mut a);
    other(&mut b);
    let from_a = Copy { document: a.document.clone(), rows: a.rows.clone() };
    a.absorb(&b);
    b.absorb(&from_a);
    assert_eq!(a.json(), b.json());
    assert_eq!(a.heads(), b.heads());
    a.rows.reverse();
    assert_eq!(a.fork(4).json(), a.json());
    a.json()
}

#[test]
fn what_is_there_already_makes_no_change() {
    let json =
        json!({"a": {"b": [1, {"c": "x"}, [2.0]]}, "n": null, "t": {"$text": "hello"}, "k": {"$counter": 3}});
    let mut copy = Copy::of(&json, 1);
    let heads = copy.heads();
    assert!(!copy.put(&json));
    assert!(!copy.put(&copy.json()));
    assert!(!copy.merge(&copy.json().as_object().map(|all| json!({"a": all["a"], "k": 3})).unwrap()));
    assert!(!copy.merge(&json!({"absent": null, "a": {}, "t": "hello"})));
    assert!(!copy.patch(&json!([{"op": "test", "path": "/n", "value": null}])).unwrap());
    assert_eq!(copy.heads(), heads);
}

#[test]
fn edits_have_as_few_operations_as_say_them() {
    let base = json!({"list": (0..100).collect::<Vec<_>>(), "t": {"$text": "0123456789"}, "m": {"a": {"b": 1, "c": 2}},
        "rows": [{"id": 1, "v": 1}, {"id": 2, "v": 2}], "k": {"$counter": 1}, "s": "0123456789"});
    let check = |change: &dyn Fn(&mut Json), ops| {
        let mut copy = Copy::of(&base, 1);
        let mut json = copy.json();
        change(&mut json);
        assert!(copy.put(&json));
        assert_eq!((copy.last_ops(), copy.json()), (ops, json));
    };
    check(&|json| json["m"]["a"]["b"] = json!(9), 1);
    check(&|json| json["list"].as_array_mut().unwrap().insert(50, json!("x")), 1);
    check(&|json| drop(json["list"].as_array_mut().unwrap().remove(50)), 1);
    check(&|json| json["list"][50] = json!("x"), 1);
    check(&|json| json["rows"][1]["v"] = json!(3), 1);
    check(&|json| json["t"] = json!("01234x56789"), 1);
    check(&|json| json["t"] = json!("x123456789y"), 3);
    check(&|json| json["s"] = json!("01234x56789"), 1);
    check(&|json| json["k"] = json!(5), 1);
    check(&|json| drop(json.as_object_mut().unwrap().remove("m")), 1);
}

#[test]
fn history_is_told_from_the_first_change_on_in_pages() {
    let mut copy = Copy::of(&json!({"a": 1}), 1);
    for n in 2..=5 {
        copy.merge(&json!({"a": n, "b": n}));
    }
    let all = copy.document.history(None, 10).unwrap();
    assert_eq!(all.changes.iter().map(|change| change.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!((all.changes[0].ops, all.changes[0].time_s, all.next_after), (1, 7, None));
    assert!(all.changes.windows(2).all(|two| two[1].deps == [two[0].hash]));
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = copy.document.history(after, 2).unwrap();
        pages.extend(page.changes);
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, all.changes);
    let unknown = copy.document.history(Some(ChangeHash([9; 32])), 2);
    assert!(matches!(unknown, Err(DocumentError::UnknownHeads { .. })), "{unknown:?}");
}

#[test]
fn a_document_is_read_as_it_was_at_any_heads() {
    let mut copy = Copy::of(&json!({"a": [1], "t": {"$text": "ab"}}), 1);
    let (first, before) = (copy.heads(), copy.json());
    copy.patch(
        &json!([{"op": "add", "path": "/a/0", "value": 0}, {"op": "replace", "path": "/t", "value": "xb"}]),
    )
    .unwrap();
    assert_eq!(copy.document.json("", Some(&first)).unwrap(), before);
    assert_eq!(copy.document.json("/a/0", Some(&first)).unwrap(), json!(1));
    assert_eq!(copy.json(), json!({"a": [0, 1], "t": "xb"}));
    let unknown = copy.document.json("", Some(&[first[0], ChangeHash([9; 32])]));
    assert_eq!(unknown, Err(DocumentError::UnknownHeads { hashes: vec!["09".repeat(32)] }));
}

#[test]
fn all_values_written_at_once_can_be_seen_and_one_of_them_chosen() {
    let base = Copy::of(&json!({"a": 0, "b": 0}), 1);
    let (mut one, mut other) = (base.fork(2), base.fork(3));
    one.merge(&json!({"a": 1}));
    other.merge(&json!({"a": {"deep": 2}}));
    one.absorb(&other);
    let conflicts = one.document.conflicts("/a").unwrap();
    let values: Vec<_> = conflicts.iter().map(|conflict| &conflict.value).collect();
    assert_eq!(values, [&json!(1), &json!({"deep": 2})]);
    assert_eq!(values.last(), Some(&&one.json()["a"]));
    assert_eq!(conflicts[0].actor, "02".repeat(24));
    let all = one.document.history(None, 10).unwrap().changes;
    assert!(
        all.iter().any(|change| (change.hash, &change.actor) == (conflicts[0].hash, &conflicts[0].actor))
    );
    assert_eq!(one.document.conflicts("/b").unwrap().len(), 1);
    assert!(matches!(one.document.conflicts("/c").as_deref(), Ok([])));

    let mut third = base.fork(4);
    third.merge(&json!({"a": 3}));
    one.absorb(&third);
    let read = one.json();
    assert!(one.merge(&json!({"a": read["a"].as_i64().unwrap_or(0)})));
    assert_eq!(one.document.conflicts("/a").unwrap().len(), 1);
}

#[test]
fn raw_changes_go_from_copy_to_copy() {
    let mut one = Copy::of(&json!({"a": 1, "long": "x".repeat(1000)}), 1);
    let heads = one.heads();
    one.merge(&json!({"a": 2}));
    one.merge(&json!({"a": 3}));
    let mut other = Copy::new(2);
    let tail = one.document.changes_since(&heads).unwrap();
    let missing = other.document.take(&tail, WIDE).unwrap_err();
    assert_eq!(missing, DocumentError::MissingChanges { hashes: vec![heads[0].to_string()] });
    assert!(other.document.is_new());
    let all = one.document.changes_since(&[]).unwrap();
    let stored = other.document.take(&all, WIDE).unwrap();
    assert_eq!((stored.len(), other.json(), other.heads()), (3, one.json(), one.heads()));
    assert!(other.document.take(&all, WIDE).unwrap().is_empty());
    assert!(one.document.changes_since(&one.heads()).unwrap().is_empty());
    let reloaded = Document::load(&chunks(&stored), &[3; 24]).unwrap();
    assert_eq!(reloaded.heads(), one.heads());
}

#[test]
fn a_document_can_be_empty_and_is_one_then() {
    for edit in [Edit::Put(&json!({})), Edit::Merge(&json!({"a": null}))] {
        let mut copy = Copy::new(1);
        assert!(copy.document.is_new());
        assert!(copy.edit(&edit).unwrap());
        assert!(!copy.edit(&edit).unwrap());
        assert_eq!(
            (copy.json(), copy.fork(2).json(), copy.fork(2).document.is_new()),
            (json!({}), json!({}), false)
        );
    }
}

/// Rows come in any order, and some later.
#[test]
fn what_follows_on_changes_that_are_still_to_come_waits() {
    let mut copy = Copy::of(&json!({"a": 1}), 1);
    copy.merge(&json!({"a": 2}));
    let all = chunks(&copy.rows);
    let late = Document::load(&all[1..], &[2; 24]).unwrap();
    assert!(!late.is_whole() && late.is_new());
    let mut early = Document::load(&all[..1], &[2; 24]).unwrap();
    assert!(early.is_whole());
    early.absorb(&all[1..]).unwrap();
    assert_eq!(early.json("", None).unwrap(), json!({"a": 2}));
}
