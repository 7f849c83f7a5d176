//! The body of a request as it comes in: piece by piece, bounded in bytes and in silence.
//!
//! The rule this file upholds: a client that is refused early still gets to read the answer. Its body is
//! drained first, within a bound, because a connection closed on unread bytes is reset and the answer lost.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::header::EXPECT;
use tokio::time::Instant;

use super::error::ApiError;
use super::idempotency;
use super::pace::MIN_PROGRESS_BYTES;

/// How long the draining of a refused body may take in all.
const MAX_DRAIN_MS: u64 = 30_000;
/// What a refused request may have beyond the limit it broke and still be drained: room for a multipart
/// body's own lines, and for clients that send one byte too many.
pub(crate) const DRAIN_SLACK_BYTES: u64 = 1 << 20;
/// The most memory set aside on the word of a Content-Length, before the bytes are there.
const MAX_RESERVED_BYTES: u64 = 1 << 20;

/// A request body being received.
pub(crate) struct Upload {
    body: Body,
    received: u64,
    /// The client sends nothing before it is told to go on, which happens at the first reading.
    waits_to_be_asked: bool,
    /// It broke off or stood still: nothing more is expected of it.
    failed: bool,
    /// For how long it may stand still.
    stalled: Duration,
    /// For how long it was waited for since enough of it came, and how much did.
    waited: Duration,
    came: u64,
}

impl Upload {
    /// A body that is given up when it stands still for this long.
    pub(crate) fn new(headers: &HeaderMap, body: Body, stalled: Duration) -> Self {
        let waits_to_be_asked = headers.contains_key(EXPECT);
        let waited = Duration::ZERO;
        Self { body, received: 0, waits_to_be_asked, failed: false, stalled, waited, came: 0 }
    }

    /// How many bytes are still to come, where the request has said so.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.waits_to_be_asked = false;
        loop {
            let began = Instant::now();
            let left = self.stalled.saturating_sub(self.waited);
            let frame = tokio::time::timeout(left, self.body.frame()).await;
            self.waited += began.elapsed();
            match frame {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    // A frame that is no data is a trailer, which nothing here has a use for.
                    if let Ok(bytes) = frame.into_data() {
                        self.note(bytes.len() as u64);
                        idempotency::note_body(&bytes);
                        return Ok(Some(bytes));
                    }
                }
                Ok(Some(Err(error))) => {
                    self.failed = true;
                    let reason = format!("the request body ended before it was complete: {error}");
                    return Err(ApiError::BadBody { reason });
                }
                Err(_) => {
                    self.failed = true;
                    return Err(ApiError::BodyTooSlow { stalled_ms: self.stalled.as_millis() as u64 });
                }
            }
        }
    }

    /// Bytes have come.
    fn note(&mut self, bytes: u64) {
        self.received += bytes;
        self.came += bytes;
        if self.came >= MIN_PROGRESS_BYTES {
            (self.came, self.waited) = (0, Duration::ZERO);
        }
    }

    /// The rest of the body as a stream.
    pub(crate) fn pieces(&mut self) -> impl Stream<Item = Result<Bytes, ApiError>> + Send + '_ {
        futures_util::stream::try_unfold(self, |upload| async {
            Ok(upload.piece().await?.map(|bytes| (bytes, upload)))
        })
    }

    /// The whole body, at most `limit` bytes.
    pub(crate) async fn collect(&mut self, limit: u64) -> Result<Vec<u8>, ApiError> {
        let announced = self.announced().unwrap_or(0);
        if announced > limit {
            return Err(ApiError::BodyTooLarge { limit });
        }
        let mut whole = Vec::with_capacity(announced.min(MAX_RESERVED_BYTES) as usize);
        while let Some(bytes) = self.piece().await? {
            if whole.len() as u64 + bytes.len() as u64 > limit {
                return Err(ApiError::BodyTooLarge { limit });
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// The hash of the whole body, if it is at most `limit` bytes and comes to its end.
    pub(crate) async fn hash(&mut self, limit: u64) -> Option<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        while let Some(bytes) = self.piece().await.ok()? {
            hasher.update(&bytes);
            if self.received > limit {
                return None;
            }
        }
        Some(*hasher.finalize().as_bytes())
    }

    /// Reads what has not been read, as long as the whole body is at most `limit` bytes. What is left
    /// after that makes hyper close the connection.
    pub(crate) async fn drain(&mut self, limit: u64) {
        if self.failed || self.waits_to_be_asked || self.body.is_end_stream() {
            return;
        }
        if self.announced().is_some_and(|left| self.received.saturating_add(left) > limit) {
            return;
        }
        let drained = async { while self.received <= limit && matches!(self.piece().await, Ok(Some(_))) {} };
        let _ = tokio::time::timeout(Duration::from_millis(MAX_DRAIN_MS), drained).await;
    }
}
