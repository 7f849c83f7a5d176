//! What a watcher is told of a state: one JSON object, without where to go on.
//!
//! The rule this file upholds: an event tells what a reader would see at that moment, not which change led there. Only of a
//! document it tells the change, since a copy is brought along by changes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use littoral::api::values::text_or_base64;
use littoral::api::watch::{WatchEvent, WatchKind, WatchType};
use replication::kinds::Element;
use replication::read::kinds::cleared;
use replication::{Body, Dot, Entry, EntryId, Kind, Payload, Store, StoreError, doc};
use serde_json::value::RawValue;

use crate::engine::show_dot;

/// The event that tells of this state, as of `now_s` (Unix seconds); `None` for what a reader never hears of, which is a change of
/// a document that went with it.
pub(super) fn told<S: Store>(
    store: &S,
    id: &EntryId,
    entry: &Entry,
    now_s: u64,
) -> Result<Option<WatchEvent>, StoreError> {
    let mut event = named(id, entry.dot);
    match &entry.body {
        Body::Tombstone => {}
        Body::Value(value) if value.is_expired(now_s) => {}
        Body::Value(value) => {
            event.what = WatchType::Put;
            match &value.payload {
                Payload::Inline(bytes) => (event.value, event.base64) = text_or_base64(bytes),
                Payload::Chunked(manifest) => event.size = Some(manifest.len),
            }
            event.metadata = metadata(value.metadata.as_deref());
            event.expiration = value.expires_at_s;
        }
        Body::Counter(counter) => {
            if let Some(count) = counter.count(now_s) {
                (event.what, event.count) = (WatchType::Put, Some(count));
                event.metadata = metadata(counter.metadata().map(|bytes| &bytes[..]));
                event.expiration = counter.expires_at_s(now_s);
            }
        }
        Body::Bounded(bounded) => {
            if let Some(count) = bounded.count() {
                (event.what, event.count) = (WatchType::Put, Some(count));
                event.metadata = metadata(bounded.metadata().map(|bytes| &bytes[..]));
            }
        }
        Body::Element(element) if id.kind == Kind::Doc => return change(store, id, element, now_s),
        Body::Element(element) => {
            let cleared = cleared(store, (id.namespace, id.kind, &id.key), now_s)?;
            if let Some((dot, content)) = element.alive(&cleared, now_s).last() {
                event = named(id, *dot);
                event.what = WatchType::Put;
                if id.kind == Kind::Map {
                    (event.value, event.base64) = text_or_base64(&content.bytes);
                }
                event.expiration = content.expires_at_s;
            }
        }
        Body::Head(head) => {
            // Whether the latest event on it has emptied it, is not known; told twice does no harm.
            event.what = if head.clears.is_empty() { WatchType::Describe } else { WatchType::Clear };
            event.metadata = metadata(head.metadata().map(|bytes| &bytes[..]));
            event.expiration = head.expires_at_s();
        }
    }
    Ok(Some(event))
}

/// Tells of a change of a document.
fn change<S: Store>(
    store: &S,
    id: &EntryId,
    element: &Element,
    now_s: u64,
) -> Result<Option<WatchEvent>, StoreError> {
    let cleared = doc::cleared(store, (id.namespace, &id.key), now_s)?;
    let standing = element.alive(&cleared, now_s);
    let Some((dot, content)) = standing.last() else { return Ok(None) };
    let mut event = named(id, *dot);
    event.what = WatchType::Put;
    event.change_base64 = doc::change_in(&id.element, &content.bytes).map(|bytes| STANDARD.encode(bytes));
    Ok(Some(event))
}

/// Whether a snapshot tells of it: of what is there.
pub(super) fn is_in_snapshot(event: &WatchEvent) -> bool {
    match event.what {
        WatchType::Put => true,
        WatchType::Clear | WatchType::Describe => event.metadata.is_some(),
        _ => false,
    }
}

/// A deletion, until more is known.
fn named(id: &EntryId, dot: Dot) -> WatchEvent {
    let mut event = WatchEvent::of(WatchType::Delete);
    event.kind = Some(match id.kind {
        Kind::Value => WatchKind::Value,
        Kind::Counter => WatchKind::Counter,
        Kind::Bounded => WatchKind::Bounded,
        Kind::Set => WatchKind::Set,
        Kind::Map => WatchKind::Map,
        Kind::Doc => WatchKind::Doc,
    });
    // Keys are checked to be UTF-8 where they enter.
    event.key = Some(String::from_utf8_lossy(&id.key).into_owned());
    if !id.element.is_empty() && id.kind != Kind::Doc {
        (event.element, event.element_base64) = text_or_base64(&id.element);
    }
    event.origin = Some(dot.replica.to_string());
    event.time = Some(dot.hlc.wall_ms());
    event.receipt = Some(show_dot(dot));
    event
}

/// It was checked when it was written; what cannot be read is left out. An event is one line, and what breaks lines is white
/// space in JSON.
fn metadata(bytes: Option<&[u8]>) -> Option<Box<RawValue>> {
    let on_one_line = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    let line: Vec<u8> = bytes?.iter().map(on_one_line).collect();
    serde_json::from_slice(&line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata with a line of its own could otherwise pass for an event.
    #[test]
    fn metadata_stays_on_one_line() {
        let hostile = b"{\n\n\"a\":\r\n\"b\\n\"}";
        assert_eq!(metadata(Some(hostile)).unwrap().get(), "{  \"a\":  \"b\\n\"}");
        assert!(metadata(Some(b"{\n")).is_none() && metadata(None).is_none());
    }
}
