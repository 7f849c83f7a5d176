//! Bytes that are crafted, or broken on the way.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT};
use proptest::prelude::*;
use serde_json::json;

use super::super::DocumentError;
use super::{Copy, WIDE};

fn changes() -> Vec<u8> {
    let mut copy = Copy::of(&json!({"a": [1, "x"], "t": {"$text": "hello"}, "k": {"$counter": 3}}), 1);
    copy.merge(&json!({"a": [1, "y", null], "t": "hullo", "k": 4}));
    copy.document.changes_since(&[]).unwrap()
}

fn refused(body: &[u8]) -> String {
    let mut copy = Copy::of(&json!({"a": 1}), 9);
    let heads = copy.heads();
    let error = copy.document.take(body, WIDE).unwrap_err();
    assert!(matches!(error, DocumentError::BadChanges { .. } | DocumentError::TooMany { .. }), "{error:?}");
    assert_eq!(copy.heads(), heads);
    assert!(copy.merge(&json!({"a": 2})));
    error.to_string()
}

/// A chunk around this content, as a change has it, its checksum not the right one.
fn chunk(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, kind];
    push_number(&mut chunk, content.len() as u64);
    chunk.extend(content);
    chunk
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A change with one column.
fn change(start_op: u64, spec: u8, column: &[u8]) -> Vec<u8> {
    let mut content = vec![0, 1, 7, 1];
    push_number(&mut content, start_op);
    content.extend([0, 0, 0, 1, spec]);
    push_number(&mut content, column.len() as u64);
    content.extend(column);
    content
}

#[test]
fn what_unpacks_to_more_than_there_is_room_for_is_refused_before() {
    // 2^40 times one value, as action, as key of a member, as flag, and as what is there no value of.
    let run = |mut rest: Vec<u8>| {
        let mut column = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        column.append(&mut rest);
        column
    };
    let zero_run = [&[0][..], &run(vec![])].concat();
    for (spec, column) in [
        (0x42, run(vec![1])),
        (0x15, run(vec![1, b'k'])),
        (0x34, run(vec![])),
        (0x42, zero_run),
        // One row that others are to belong to.
        (0x70, [&[1][..], &run(vec![])].concat()),
    ] {
        let body = chunk(1, &change(1, spec, &column));
        let error = refused(&body);
        assert!(error.contains("too many"), "{spec:x}: {error}");
    }
    let error = refused(&chunk(1, &change(1 << 32, 0x42, &[1, 1])));
    assert!(error.contains("number is beyond"), "{error}");
}

#[test]
fn what_is_compressed_is_unpacked_within_a_bound() {
    use std::io::Write as _;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..48 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let error = refused(&chunk(2, &encoder.finish().unwrap()));
    assert!(error.contains("too many unpacked bytes"), "{error}");
}

#[test]
fn only_changes_are_taken() {
    let saved = AutoCommit::new().save();
    for (body, expected) in [
        (&b"hello, this is no change"[..], "no automerge changes"),
        (&changes()[..20], "end too early"),
        (&saved, "send single changes"),
    ] {
        let error = refused(body);
        assert!(error.contains(expected), "{error}");
    }
    let mut broken = changes();
    broken[5] ^= 1;
    assert!(refused(&broken).contains("checksum"), "{}", refused(&broken));
}

/// What has the right form but cannot be read within bounds is not stored.
#[test]
fn what_is_nested_too_deep_is_refused() {
    let mut doc = AutoCommit::new();
    let mut object = ROOT;
    for _ in 0..3_000 {
        object = doc.put_object(&object, "a", ObjType::Map).unwrap();
    }
    let bytes = doc.save_after(&[]);
    let mut copy = Copy::new(1);
    assert_eq!(copy.document.take(&bytes, WIDE), Err(DocumentError::TooDeep));
    assert!(copy.document.is_new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// With the right checksum, as one who means harm has it: what is taken can be used.
    #[test]
    fn no_bytes_bring_it_down(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let whole = changes();
        let first = &super::super::measure::changes(&whole).unwrap()[0].to_vec();
        let mut bytes = first.clone();
        for (index, byte) in flips {
            let at = 9 + index.index(bytes.len() - 9);
            bytes[at] = byte;
        }
        if let Ok(hash) = automerge::Change::try_from(&bytes[..]).map(|change| change.hash()) {
            bytes[4..8].copy_from_slice(&hash.0[..4]);
        }
        let mut copy = Copy::new(3);
        if copy.document.take(&bytes, WIDE).is_ok() {
            let _ = copy.document.json("", None);
            let _ = copy.document.edit(&super::Edit::Merge(&json!({"a": [2], "t": "x", "k": 9})), None, 0, WIDE);
            let _ = copy.document.history(None, 10);
        }
    }
}
