//! Real frames, kept while the simulator runs: a few of every kind of message there is, by size.
//!
//! Kinds are told apart by the enum itself, so a message added tomorrow is recorded without a change here.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use bytes::Bytes;
use replication::codec::message::Message;

/// The first frame seen of each kind and order of size.
#[derive(Clone, Debug, Default)]
pub struct Recording(HashMap<(Discriminant<Message>, u32), Bytes>);

impl Recording {
    /// Keeps the frame of this message, if it is the first of its kind and order of size.
    pub fn note(&mut self, message: &Message, frame: &Bytes) {
        self.0.entry((discriminant(message), frame.len().ilog2())).or_insert_with(|| frame.clone());
    }

    /// The frames, each with a name for what it is: `heartbeat-7` is one of 128 to 255 bytes.
    pub fn frames(&self) -> impl Iterator<Item = (String, &Bytes)> {
        self.0.iter().filter_map(|((_, order), frame)| {
            let message = Message::from_frame(frame).ok()?;
            Some((format!("{}-{order}", kind(&message)), frame))
        })
    }
}

/// What the enum calls this message, in lower case.
pub fn kind(message: &Message) -> String {
    let text = format!("{message:?}");
    text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}
