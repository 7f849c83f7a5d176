//! The node's own decoders: the handshake, requests for chunks, join tokens, what a client may ask, and the settings.

use config::Config;
use littoral_node::fuzzing;
use replication::entry::{MAX_KEY_BYTES, MAX_METADATA_BYTES, MAX_VALUE_BYTES};
use replication::link::MAX_FRAME_BYTES;
use replication::replica::batch::MAX_BATCH_WRITES;

/// The least time to live, in seconds, and the last second that anything expires at.
const EXPIRY_S: (u64, u64) = (60, 253_402_300_799);
/// The clock of every request here, Unix seconds.
const NOW_S: u64 = 1_767_225_600;
/// The namespace of a listener.
const LISTENER: [u8; 16] = [0x0f; 16];
/// It stands in JSON, and not in a header.
const DELETE_BYTE: u8 = 0x7f;
/// What ends the text of a configuration file; lines of `NAME=value` follow.
const END_OF_FILE: char = '\0';

/// There is one way to say a hello.
pub fn hello(bytes: &[u8]) {
    if let Some(again) = fuzzing::hello(bytes) {
        assert_eq!(again, bytes);
    }
}

/// There is one way to ask for a chunk, and an older one for a whole chunk, without what came later.
pub fn chunk_request(bytes: &[u8]) {
    if let Some(again) = fuzzing::chunk_request(bytes) {
        assert!(again == bytes || again.starts_with(bytes) && again[bytes.len()..] == [0; 5]);
        assert_eq!(fuzzing::chunk_request(&again), Some(again));
    }
}

/// What is unpacked is within its bound, and comes back the same when it is packed again.
pub fn packed(bytes: &[u8]) {
    let Some(frame) = fuzzing::unpacked(bytes) else { return };
    assert!(frame.len() <= MAX_FRAME_BYTES);
    // Too short a frame is not packed, though a stranger may have done so: 15 zeros in 12 bytes (`found-short`).
    if let Some(packed) = fuzzing::packed(&frame) {
        assert_eq!(fuzzing::unpacked(&packed), Some(frame));
    }
}

/// A join token is refused, or survives being packed again. Anything may stand behind a right checksum.
pub fn join_token(bytes: &[u8]) {
    let survives = |token: &str| {
        if let Some(again) = fuzzing::join_token(token) {
            assert_eq!(fuzzing::join_token(&again), Some(again));
        }
    };
    survives(&String::from_utf8_lossy(bytes));
    survives(&fuzzing::sealed_join_token(bytes));
}

/// Lines of a request: method, path, query, cursor.
pub fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    if let Some(key) = fuzzing::key_in_path(line(), line()) {
        check_key(&key);
    }
    if let Some(at_s) = fuzzing::expiry_in_query(line(), NOW_S) {
        assert!((NOW_S + EXPIRY_S.0..=EXPIRY_S.1).contains(&at_s), "{at_s}");
    }
    let cursor = line();
    if let Some((after, again)) = fuzzing::cursor(cursor) {
        assert!(after.len() <= MAX_KEY_BYTES);
        assert_eq!(again, cursor);
    }
    let made = fuzzing::real_cursor(bytes);
    assert_eq!(fuzzing::cursor(&made).is_some(), bytes.len() <= MAX_KEY_BYTES);
}

/// Lines of a request of the binding protocol: method, target, and headers. A key is one, metadata that is taken can be
/// given back, and the listener of a namespace leads to no other.
pub fn binding(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (method, target) = (line(), line());
    let headers: Vec<_> = lines.filter_map(header).collect();
    for listener in [None, Some(LISTENER)] {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), *value));
        let Some(request) = fuzzing::binding_request(listener, &method, &target, headers) else { continue };
        assert!(
            listener.is_none() || request.namespace == LISTENER.map(|byte| format!("{byte:02x}")).concat()
        );
        if let Some(key) = &request.key {
            check_key(key);
        }
        if let Some((stored, sent)) = request.metadata {
            assert!(stored.len() <= MAX_METADATA_BYTES);
            let sent = sent.expect("metadata that is taken fits its header");
            assert!(stored == sent || stored.contains(&DELETE_BYTE), "{stored:?} is sent as {sent:?}");
        }
    }
}

/// The name and the value in a line of a head.
fn header(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(line[..colon].to_vec()).ok()?;
    Some((name, line[colon + 1..].trim_ascii()))
}

/// A body is refused whole, or all of its keys and values are within bounds.
pub fn body(bytes: &[u8]) {
    for (key, len) in fuzzing::bulk_put(bytes).unwrap_or_default() {
        check_key(&key);
        assert!(len as u64 <= MAX_VALUE_BYTES);
    }
    fuzzing::bulk_delete(bytes).unwrap_or_default().iter().for_each(|key| check_key(key));
    fuzzing::bulk_read(bytes).unwrap_or_default().iter().for_each(|key| check_key(key));
    if let Some(keys) = fuzzing::batch(bytes) {
        assert!((1..=MAX_BATCH_WRITES).contains(&keys.len()));
        keys.iter().for_each(|key| check_key(key));
    }
    if let Some(stored) = fuzzing::metadata(bytes) {
        assert!(stored.len() <= MAX_METADATA_BYTES);
        assert_eq!(
            fuzzing::metadata(&stored).as_ref(),
            Some(&stored),
            "metadata as stored is stored as it is"
        );
    }
}

fn check_key(key: &str) {
    assert!((1..=MAX_KEY_BYTES).contains(&key.len()) && key != "." && key != "..", "{key:?} is no key");
}

/// A file and variables are refused with their problems named, or are settings that survive being written down.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (file, variables) = text.split_once(END_OF_FILE).unwrap_or((&text, ""));
    let pairs = variables.lines().filter_map(|line| line.split_once('='));
    match Config::parse(file, "fuzz.toml", pairs.map(|(name, value)| (name.into(), value.into()))) {
        Ok(config) => {
            let again = Config::parse(&config.to_toml(), "fuzz.toml", std::iter::empty());
            assert_eq!(again.ok(), Some(config));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
