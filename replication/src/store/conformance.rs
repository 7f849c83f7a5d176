//! What every [`Store`] must do: one suite for all of them.

use std::ops::ControlFlow;

use super::{Batch, Store};

/// Runs the suite against stores made by `fresh`.
///
/// # Panics
/// Where the store does not conform; the message says in what.
pub fn check<S: Store>(fresh: &mut dyn FnMut() -> S) {
    reads_see_committed_batches(&mut fresh());
    scans_are_ordered_and_stop_when_told(&mut fresh());
    the_last_write_of_a_key_stands(&mut fresh());
    any_bytes_are_a_key_and_a_row(&mut fresh());
}

fn put<S: Store>(store: &mut S, rows: &[(&[u8], Option<&[u8]>)]) {
    let batch: Batch = rows.iter().map(|(key, row)| (key.to_vec(), row.map(<[u8]>::to_vec))).collect();
    store.commit(batch).expect("a healthy store commits");
}

fn keys<S: Store>(store: &S, from: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _| {
        keys.push(key.to_vec());
        if keys.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(from, &mut visit).expect("a healthy store scans");
    keys
}

fn reads_see_committed_batches<S: Store>(store: &mut S) {
    put(store, &[(b"a", Some(b"1")), (b"b", Some(b""))]);
    assert_eq!(store.read(b"a").unwrap_or_default().as_deref(), Some(&b"1"[..]), "a read after a commit");
    assert_eq!(store.read(b"b").unwrap_or_default().as_deref(), Some(&b""[..]), "an empty row is a row");
    assert_eq!(store.read(b"c").unwrap_or_default(), None, "a key never written");
    put(store, &[(b"a", None), (b"c", None)]);
    assert_eq!(store.read(b"a").unwrap_or_default(), None, "a removed row");
    store.flush().expect("a healthy store flushes");
    assert_eq!(store.read(b"b").unwrap_or_default().as_deref(), Some(&b""[..]), "a read after a flush");
}

fn scans_are_ordered_and_stop_when_told<S: Store>(store: &mut S) {
    put(store, &[(b"b", Some(b"")), (b"a\xff", Some(b"")), (b"a", Some(b"")), (b"c", Some(b""))]);
    assert_eq!(keys(store, b"", 9), [&b"a"[..], b"a\xff", b"b", b"c"], "a scan from the start");
    assert_eq!(keys(store, b"a\x00", 2), [&b"a\xff"[..], b"b"], "a scan from between two keys");
    assert_eq!(keys(store, b"d", 9), [&b""[..]; 0], "a scan from behind the last key");
}

fn the_last_write_of_a_key_stands<S: Store>(store: &mut S) {
    for row in 0..50u8 {
        put(store, &[(b"k", Some(&[row]))]);
    }
    assert_eq!(store.read(b"k").unwrap_or_default().as_deref(), Some(&[49][..]), "the last of 50 writes");
}

fn any_bytes_are_a_key_and_a_row<S: Store>(store: &mut S) {
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let long = vec![0xa5; 64 << 10];
    put(store, &[(&every, Some(&long))]);
    assert_eq!(store.read(&every).unwrap_or_default().as_deref(), Some(&long[..]), "64 KiB under 256 bytes");
}
