//! The core's decoders: frames of peers, rows of a disk that may have rotted, and keys of rows.

use std::fmt::Debug;

use bytes::Bytes;
use replication::codec::fold::Fold;
use replication::codec::message::Message;
use replication::codec::{Malformed, conflict, row, seal, veil};
use replication::link::MAX_FRAME_BYTES;
use replication::{Hlc, keys};

/// The key of the rows that are forged here.
const ROW_KEY: &[u8] = b"k";

/// A frame is refused, or is a message that survives being sent on.
pub fn frame(bytes: &[u8]) {
    let Ok(message) = Message::from_frame(bytes) else { return };
    let again = message.to_frame();
    assert!(again.len() <= MAX_FRAME_BYTES, "{} bytes from {}", again.len(), bytes.len());
    assert_eq!(Message::from_frame(&again), Ok(message));
}

/// A row is refused, or is one that survives being written again; without its check it is always refused, but for
/// one in four billion.
pub fn row(bytes: &[u8]) {
    check_rows(bytes, |_| bytes.to_vec());
    check_rows(bytes, |row_key| seal(row_key, bytes.to_vec()));
}

fn check_rows(bytes: &[u8], row_under: impl Fn(&[u8]) -> Vec<u8>) {
    let entry = |bytes: &[u8]| row::decode_entry(ROW_KEY, &Bytes::copy_from_slice(bytes));
    survives(entry, |decoded| row::encode_entry(ROW_KEY, decoded), &row_under(ROW_KEY));
    let hlc = Hlc::from_bits(bytes.len() as u64);
    let log = |bytes: &[u8]| row::decode_log(ROW_KEY, hlc, bytes);
    survives(log, |decoded| row::encode_log(ROW_KEY, decoded), &row_under(ROW_KEY));
    let chunk = |bytes: &[u8]| row::decode_chunk(ROW_KEY, bytes);
    survives(chunk, |decoded| row::encode_chunk(ROW_KEY, *decoded), &row_under(ROW_KEY));
    let lost = |bytes: &[u8]| conflict::decode_conflict(ROW_KEY, bytes);
    survives(lost, |decoded| conflict::encode_conflict(ROW_KEY, decoded), &row_under(ROW_KEY));
    let veil = |bytes: &[u8]| veil::decode_veil(ROW_KEY, &Bytes::copy_from_slice(bytes));
    survives(veil, |shown| veil::encode_veil(ROW_KEY, shown.as_deref()), &row_under(ROW_KEY));
    // What a fold is made of is compressed: one that is made again need not be the same.
    let _ = Fold::read(ROW_KEY, &row_under(ROW_KEY)).and_then(|fold| fold.unfold());
    survives(veil::decode_veiling, veil::encode_veiling, &row_under(keys::VEILING));
    survives(row::decode_summary, row::encode_summary, &row_under(keys::SUMMARY));
    survives(row::decode_identity, row::encode_identity, &row_under(keys::IDENTITY));
    survives(row::decode_peers, row::encode_peers, &row_under(keys::PEERS));
}

fn survives<T: Debug + PartialEq>(
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
    encode: impl Fn(&T) -> Vec<u8>,
    bytes: &[u8],
) {
    let Ok(decoded) = decode(bytes) else { return };
    assert_eq!(decode(&encode(&decoded)), Ok(decoded));
}

/// A key of a row names one thing, and naming it gives the same key.
pub fn row_key(bytes: &[u8]) {
    if let Some(id) = keys::parse_entry(bytes) {
        assert_eq!(keys::entry(&id), bytes);
    }
    if let Some((head, element)) = keys::split_document(bytes) {
        assert_eq!([head, element].concat(), bytes);
        assert!(keys::parse_entry(bytes).is_none_or(|id| id.element == element));
    }
    if let Some((chunk, state_key)) = keys::parse_chunk(bytes) {
        assert_eq!(keys::chunk(&chunk, state_key), bytes);
    }
    if let Some((id, lost)) = keys::parse_conflict(bytes) {
        assert_eq!(keys::conflict(id.namespace, &id.key, lost), bytes);
    }
    if let Some((noticed, conflict_key)) = keys::parse_conflict_age(bytes) {
        assert_eq!(keys::conflict_age(noticed, conflict_key), bytes);
    }
    let index = bytes.get(1..3).map_or(0, |index| u16::from_be_bytes([index[0], index[1]]));
    if let Some(hlc) = keys::parse_log(bytes, index) {
        assert_eq!(keys::log(index, hlc), bytes);
    }
    let end = keys::after_prefix(bytes);
    let all_start_before = end.as_slice() > bytes && !end.starts_with(bytes);
    assert!(all_start_before || bytes.iter().all(|byte| *byte == u8::MAX), "{end:?} after {bytes:?}");
}
