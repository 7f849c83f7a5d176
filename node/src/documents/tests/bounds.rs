//! What is too much.

use serde_json::{Value as Json, json};

use super::super::tree::Tree;
use super::super::{DocumentError, MAX_CHANGE_OPS, MAX_DEPTH, MAX_JSON_BYTES, MAX_PATCH_OPERATIONS};
use super::{Copy, Document, Edit, Limits, Patch};

#[test]
fn a_document_has_so_many_operations_and_no_more() {
    for (max_ops, is_fine) in [(3, false), (4, true), (5, true)] {
        let mut document = Document::load(&[], &[1; 24]).unwrap();
        let limits = Limits::of_node(4 << 20, max_ops);
        let edited = document.edit(&Edit::Put(&json!({"a": [1, 2, 3]})), None, 0, limits);
        assert_eq!(edited.is_ok(), is_fine, "{max_ops}: {edited:?}");
        assert_eq!(document.is_new(), !is_fine);
        if !is_fine {
            assert_eq!(edited, Err(DocumentError::TooManyOps { given: 4, limit: limits.max_ops }));
        }
    }
}

/// Counted is what it takes as one saved document, not as all its changes.
#[test]
fn a_document_has_so_many_bytes_and_no_more() {
    let mut copy = Copy::of(&json!({"n": 0}), 1);
    for n in 1..50 {
        copy.merge(&json!({"n": n}));
    }
    let stored: usize = copy.rows.iter().map(Vec::len).sum();
    let saved = copy.document.doc_bytes();
    assert!(saved < stored as u64 / 2, "{saved} of {stored}");
    let edit = |max_bytes| {
        let mut document = copy.fork(2).document;
        let heads = document.heads();
        let limits = Limits::of_node(max_bytes, 1_000_000);
        let edited = document.edit(&Edit::Merge(&json!({"n": "x"})), None, 0, limits);
        assert_eq!(document.heads() == heads, edited.is_err());
        edited
    };
    let limit = match edit(saved) {
        Err(DocumentError::TooLarge { given, limit }) if limit.most == saved => given,
        other => panic!("{other:?}"),
    };
    for (limit, is_fine) in [(limit - 1, false), (limit, true), (limit + 1, true)] {
        assert_eq!(edit(limit).is_ok(), is_fine, "{limit}");
    }
}

#[test]
fn a_change_has_so_many_operations_and_no_more() {
    for (len, is_fine) in [(MAX_CHANGE_OPS - 1, true), (MAX_CHANGE_OPS, false)] {
        let mut copy = Copy::of(&json!({"a": 1}), 1);
        let put = copy.edit(&Edit::Merge(&json!({"t": {"$text": "x".repeat(len)}})));
        assert_eq!(put.is_ok(), is_fine, "{put:?}");
        assert!(is_fine || matches!(put, Err(DocumentError::ChangeTooLong)));
    }
}

#[test]
fn a_patch_has_so_many_operations_and_no_more() {
    for (count, is_fine) in [(MAX_PATCH_OPERATIONS, true), (MAX_PATCH_OPERATIONS + 1, false)] {
        let operations = vec![json!({"op": "test", "path": "", "value": {}}); count];
        assert_eq!(Patch::parse(&Json::Array(operations)).is_ok(), is_fine);
    }
}

/// However it comes to be: as a whole, or piece by piece.
#[test]
fn a_document_is_nested_so_deep_and_no_deeper() {
    let nested = |depth: usize| (1..depth).fold(json!({}), |inner, _| json!({"a": inner}));
    let deepest = nested(MAX_DEPTH);
    let mut copy = Copy::of(&deepest, 1);
    assert_eq!(copy.json(), deepest);
    assert!(matches!(copy.edit(&Edit::Put(&nested(MAX_DEPTH + 1))), Err(DocumentError::TooDeep)));
    assert!(matches!(copy.edit(&Edit::Merge(&nested(MAX_DEPTH + 1))), Err(DocumentError::TooDeep)));
    let path = "/a".repeat(MAX_DEPTH - 1);
    for (value, is_fine) in [(json!(1), true), (json!([]), false), (json!({}), false)] {
        let patch = json!([{"op": "add", "path": format!("{path}/a"), "value": value}]);
        assert_eq!(copy.patch(&patch).is_ok(), is_fine, "{patch}");
    }
    let patch = json!([{"op": "copy", "from": "", "path": format!("{path}/a")}]);
    assert!(copy.patch(&patch).unwrap_err().to_string().contains("deeper"));
    assert!(copy.merge(&json!({"b": {"c": 1}})));
    assert_eq!(Tree::from_json(&copy.json(), 1).unwrap().depth(), MAX_DEPTH);
}

/// A patch that reads a large document again and again stops.
#[test]
fn what_one_patch_reads_is_bounded() {
    let mut copy = Copy::of(&json!({"s": "x".repeat(MAX_JSON_BYTES / 8)}), 1);
    let value = copy.json();
    let tests = |count| Json::Array(vec![json!({"op": "test", "path": "", "value": value}); count]);
    assert!(copy.patch(&tests(7)).is_ok());
    let error = copy.patch(&tests(9)).unwrap_err().to_string();
    assert!(error.contains("more than 33554432 bytes"), "{error}");
}
