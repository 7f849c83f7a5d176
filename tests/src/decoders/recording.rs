//! Real frames, kept while the simulator runs: a few of every kind of message there is, by size.
//!
//! A message added tomorrow does not compile here until it has a name, and no corpus is whole without a frame of it.

use std::collections::HashMap;

use bytes::Bytes;
use replication::codec::message::Message;

/// The first frame seen of each kind and order of size.
#[derive(Clone, Debug, Default)]
pub struct Recording(HashMap<(&'static str, u32), Bytes>);

impl Recording {
    /// Keeps the frame of this message, if it is the first of its kind and order of size.
    pub fn note(&mut self, message: &Message, frame: &Bytes) {
        self.0.entry((kind(message), frame.len().ilog2())).or_insert_with(|| frame.clone());
    }

    /// The frames, each with a name for what it is: `heartbeat-7` is one of 128 to 255 bytes.
    pub fn frames(&self) -> impl Iterator<Item = (String, &Bytes)> {
        self.0.iter().map(|((kind, order), frame)| (format!("{kind}-{order}"), frame))
    }
}

/// Every kind of frame, as [`kind`] calls them.
pub const KINDS: [&str; 14] = [
    "heartbeat",
    "ack",
    "pull",
    "delta",
    "round",
    "join",
    "admitted",
    "removed",
    "behind",
    "cloned",
    "oldercopy",
    "copy",
    "snapshot",
    "rights",
];

/// What kind of frame a message is: the start of its name in the corpus.
pub fn kind(message: &Message) -> &'static str {
    let index = match message {
        Message::Heartbeat(_) => 0,
        Message::Ack(_) => 1,
        Message::Pull { .. } => 2,
        Message::Delta(_) => 3,
        Message::Round(_) => 4,
        Message::Join { .. } => 5,
        Message::Admitted { .. } => 6,
        Message::Removed { .. } => 7,
        Message::Behind { .. } => 8,
        Message::Cloned => 9,
        Message::OlderCopy => 10,
        Message::Copy { .. } => 11,
        Message::Snapshot(_) => 12,
        Message::Rights(_) => 13,
    };
    KINDS[index]
}
