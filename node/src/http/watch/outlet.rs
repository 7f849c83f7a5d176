//! The way of events to a client: framed, gathered into pieces, and handed over as fast as the client takes them.
//!
//! The rule this file upholds: what waits for a client is bounded, and so is for how long.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use littoral::api::watch::WatchEvent;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A piece goes when it is so large, in bytes. Two of them wait for a client, besides what its connection has.
const PIECE_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is left: it goes on from its last cursor when it comes back.
const MAX_STALL: Duration = Duration::from_secs(60);

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events, as the HTML standard has them; the cursor is the event's id.
    EventStream,
    /// A JSON object a line, the cursor in it.
    NdJson,
}

/// The client has gone, or takes nothing.
pub(super) struct Gone;

/// The way to one client.
pub(super) struct Outlet {
    form: Form,
    pieces: mpsc::Sender<Bytes>,
    gathered: BytesMut,
    /// The event that is not written yet, for it may get a cursor.
    last: Option<String>,
    written: Instant,
    /// [`MAX_STALL`].
    max_stall: Duration,
}

impl Outlet {
    /// An outlet, and where its pieces come out.
    pub(super) fn new(form: Form) -> (Self, mpsc::Receiver<Bytes>) {
        let (pieces, receiver) = mpsc::channel(1);
        (
            Self {
                form,
                pieces,
                gathered: BytesMut::new(),
                last: None,
                written: Instant::now(),
                max_stall: MAX_STALL,
            },
            receiver,
        )
    }

    /// Completes when the client has gone.
    pub(super) async fn gone(&self) {
        self.pieces.closed().await;
    }

    /// When something was last handed over.
    pub(super) fn written(&self) -> Instant {
        self.written
    }

    /// Tells of an event, given as a JSON object.
    pub(super) async fn tell(&mut self, json: &str) -> Result<(), Gone> {
        self.write_last(None);
        self.last = Some(json.to_owned());
        if self.gathered.len() >= PIECE_BYTES { self.hand_over().await } else { Ok(()) }
    }

    /// As [`Outlet::tell`], of an event that is not about an entry.
    pub(super) async fn tell_event(&mut self, event: &WatchEvent) -> Result<(), Gone> {
        self.tell(&json(event)).await
    }

    /// Whether an event has been told of since the last cursor.
    pub(super) fn awaits_cursor(&self) -> bool {
        self.last.is_some()
    }

    /// After what was told, one may go on from this cursor. Hands over all there is.
    pub(super) async fn reached(&mut self, cursor: &str) -> Result<(), Gone> {
        self.write_last(Some(cursor));
        self.hand_over().await
    }

    /// Hands over all there is, without a cursor.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        self.write_last(None);
        self.hand_over().await
    }

    /// Says that the connection lives, and where to go on.
    pub(super) async fn heartbeat(&mut self, cursor: &str) -> Result<(), Gone> {
        match self.form {
            Form::EventStream => {
                self.gathered.extend_from_slice(format!(": heartbeat\nid: {cursor}\n\n").as_bytes());
            }
            Form::NdJson => {
                let line = format!("{{\"type\":\"cursor\",\"cursor\":\"{cursor}\"}}\n");
                self.gathered.extend_from_slice(line.as_bytes());
            }
        }
        self.hand_over().await
    }

    fn write_last(&mut self, cursor: Option<&str>) {
        let Some(json) = self.last.take() else { return };
        // An event of ours is an object with at least a type.
        let open = json.strip_suffix('}').unwrap_or(&json);
        match (self.form, cursor) {
            (Form::NdJson, None) => self.put(&[&json, "\n"]),
            (Form::NdJson, Some(cursor)) => self.put(&[open, ",\"cursor\":\"", cursor, "\"}\n"]),
            (Form::EventStream, None) => self.put(&["data: ", &json, "\n\n"]),
            (Form::EventStream, Some(cursor)) => {
                self.put(&["id: ", cursor, "\ndata: ", open, ",\"cursor\":\"", cursor, "\"}\n\n"]);
            }
        }
    }

    fn put(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.gathered.extend_from_slice(part.as_bytes()));
    }

    async fn hand_over(&mut self) -> Result<(), Gone> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = self.gathered.split().freeze();
        self.written = Instant::now();
        match tokio::time::timeout(self.max_stall, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// An event as JSON.
pub(super) fn json(event: &WatchEvent) -> String {
    serde_json::to_string(event).expect("events have text for keys, so they can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(form: Form) -> String {
        let (mut outlet, mut pieces) = Outlet::new(form);
        for json in [r#"{"type":"put"}"#, r#"{"type":"delete"}"#] {
            assert!(outlet.tell(json).await.is_ok());
        }
        assert!(outlet.awaits_cursor() && outlet.reached("abc").await.is_ok() && !outlet.awaits_cursor());
        let piece = pieces.recv().await.unwrap();
        assert!(outlet.heartbeat("def").await.is_ok());
        String::from_utf8([piece, pieces.recv().await.unwrap()].concat()).unwrap()
    }

    #[tokio::test]
    async fn only_the_last_of_what_belongs_together_has_a_cursor() {
        let events = "data: {\"type\":\"put\"}\n\n\
                      id: abc\ndata: {\"type\":\"delete\",\"cursor\":\"abc\"}\n\n\
                      : heartbeat\nid: def\n\n";
        assert_eq!(told(Form::EventStream).await, events);
        let lines = "{\"type\":\"put\"}\n{\"type\":\"delete\",\"cursor\":\"abc\"}\n\
                     {\"type\":\"cursor\",\"cursor\":\"def\"}\n";
        assert_eq!(told(Form::NdJson).await, lines);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_left() {
        let (mut outlet, _pieces) = Outlet::new(Form::NdJson);
        outlet.max_stall = Duration::ZERO;
        assert!(outlet.heartbeat("a").await.is_ok());
        assert!(outlet.heartbeat("b").await.is_err());
    }
}
