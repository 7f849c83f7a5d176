//! Requests of the program that the node is a part of: without a socket, and small values without a request.
//!
//! The rule this file upholds: what is read without a request is what a request would read, or nothing, and then a request
//! is made. It tells what is wrong, so that there is one place for that.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use futures_util::{StreamExt, stream};
use hyper::body::Body as _;
use hyper::{Request, Response};
use littoral::api::tokens::Action;
use littoral::transport::Read;
use replication::{NamespaceId, Payload};
use tokio::sync::mpsc;

use super::Surface;
use super::auth::{Owner, Place};
use super::listener::Door;
use super::query::check_key;
use super::session::Session;
use crate::engine::Engine;

/// An answer up to this size is handed over whole, a larger one or one without an end in pieces.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
/// Pieces of an answer that wait to be taken.
const MAX_PIECES: usize = 4;

impl Surface {
    /// The value of a key, where it is at hand. `None` where a request is to be made. Blocks for as long as it takes to read
    /// a row.
    pub(crate) fn read_at_once(&self, account: &str, namespace: &str, key: &str) -> Option<Read> {
        let id: NamespaceId = namespace.parse().ok()?;
        let account = self.program.account(account)?;
        check_key(key).ok()?;
        let place =
            Place::enter(self, self.program.clone(), Owner::Account(account), id, Action::Read).ok()?;
        // Before the read: what comes in meanwhile makes it no staler.
        let complete_ms = self.engine.complete_upto_ms();
        let value = match self.engine.read(place.namespace, key.as_bytes()).ok()? {
            None => None,
            Some(value) => match value.payload {
                Payload::Inline(bytes) => Some(littoral::Value { bytes, expires_at_s: value.expires_at_s }),
                Payload::Chunked(_) => return None,
            },
        };
        // A session's token must cover it.
        self.engine.seen_by_now()?;
        Some(Read { value, staleness: Duration::from_millis(Engine::staleness_ms(complete_ms)) })
    }

    /// A session's token for all that was read so.
    pub(crate) fn shown_at_once(&self) -> Option<String> {
        let mut session = Session::default();
        session.has_seen(&self.engine.seen_so_far());
        Some(session.encode(&self.engine))
    }

    /// Answers a request, which shows the program's token. `None` where the node is about to stop. Call it on the node's own
    /// runtime: all of the answer is made there.
    pub(crate) async fn answer_inside(self: &Arc<Self>, request: Request<Body>) -> Option<Response<Body>> {
        if self.is_ending.is_cancelled() {
            return None;
        }
        let _counted = self.inside.token();
        let response = self.answer(Door::Node, request).await;
        let (head, body) = response.into_parts();
        let is_short = body.size_hint().upper().is_some_and(|bytes| bytes <= MAX_WHOLE_BYTES);
        let body = match is_short {
            true => to_bytes(body, MAX_WHOLE_BYTES as usize).await.map_or_else(broken, Body::from),
            false => self.in_pieces(body),
        };
        Some(Response::from_parts(head, body))
    }

    /// The same body, made by a task of its own for as long as somebody takes it.
    fn in_pieces(&self, body: Body) -> Body {
        let (pieces, taken) = mpsc::channel::<Result<Bytes, axum::Error>>(MAX_PIECES);
        let mut made = body.into_data_stream();
        self.inside.spawn(async move {
            loop {
                let piece = tokio::select! {
                    () = pieces.closed() => return,
                    piece = made.next() => piece,
                };
                let Some(piece) = piece else { return };
                if pieces.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Body::from_stream(stream::unfold(taken, |mut taken| async { Some((taken.recv().await?, taken)) }))
    }
}

/// A body that ends as the one that could not be made.
fn broken(error: axum::Error) -> Body {
    Body::from_stream(stream::once(async { Err::<Bytes, _>(error) }))
}
