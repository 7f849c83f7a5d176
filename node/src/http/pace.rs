//! What a connection is about: whether it has come to a request, whether one is under way, and whether its answer stands
//! still for want of a reader.
//!
//! The rule this file upholds: a request counts from its head to the last byte of its answer, and only while one counts is
//! a connection not idle.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::Response;
use hyper::body::{Frame, SizeHint};
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A connection on which less than this moves in the time it may stand still for counts as standing still, so that
/// one byte now and then does not hold a seat.
pub(super) const MIN_PROGRESS_BYTES: u64 = 4 << 10;
/// The most bytes of an answer that are handed to HTTP/2 at a time: so much must be taken in the time it may stand still
/// for, and so much waits in memory of a reader who is slow.
const MAX_PIECE_BYTES: usize = 16 << 10;
/// Connections that were ended for what their clients did, or did not.
const CLOSED: &str = "littoral_http_connections_closed_total";

/// Why a connection, or a request of one, is ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// Its handshake or a head did not come in time.
    Slow,
    /// Its client takes nothing of what is sent.
    Stalled,
    /// It was without a request, and its seat was needed.
    Crowded,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Slow, Self::Stalled, Self::Crowded];

    /// Has every reason on the page of metrics, before it happens too.
    pub(super) fn describe() {
        metrics::describe_counter!(
            CLOSED,
            "Connections, and requests of HTTP/2, ended for their clients' sake"
        );
        Self::ALL.iter().for_each(|reason| reason.counter().increment(0));
    }

    pub(super) fn count(self) {
        tracing::debug!(reason = self.name(), "a connection is ended");
        self.counter().increment(1);
    }

    fn counter(self) -> metrics::Counter {
        counter!(CLOSED, "reason" => self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Crowded => "crowded",
        }
    }
}

/// Whether somebody waits for a seat, and how it is told that a connection has become idle.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) is_wanted: AtomicBool,
    pub(super) freed: Notify,
    /// How often a connection has become idle.
    turns: AtomicU64,
}

/// What a connection is about.
pub(super) struct Pace {
    /// Requests that have begun.
    begun: AtomicUsize,
    /// Requests whose answers are not sent yet.
    active: AtomicUsize,
    /// There was a request since the last look.
    is_fresh: AtomicBool,
    /// When the last request ended, or else the connection began: a turn of [`Wanted`].
    idle_since: AtomicU64,
    /// Its seat is needed.
    is_told: AtomicBool,
    pub(super) told_to_go: Notify,
    wanted: Arc<Wanted>,
}

impl Pace {
    pub(super) fn new(wanted: Arc<Wanted>) -> Self {
        let idle_since = AtomicU64::new(wanted.turns.fetch_add(1, Ordering::Relaxed));
        Self {
            begun: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            is_fresh: AtomicBool::new(false),
            idle_since,
            is_told: AtomicBool::new(false),
            told_to_go: Notify::new(),
            wanted,
        }
    }

    /// A request that begins. It ends when what is given is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Active {
        // The order of all that tells whether a connection is idle, and whether somebody waits for that.
        self.active.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.active.load(Ordering::SeqCst) == 0
    }

    /// Whether there is a request, or was one since this was last asked.
    pub(super) fn was_active(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed) || !self.is_idle()
    }

    /// Who goes first when seats run out: first who has not come to a request at all, of each kind who has been idle
    /// for longest. None while a request is under way, or where it was told already.
    pub(super) fn leaves_at(&self) -> Option<(bool, u64)> {
        let may_go = self.is_idle() && !self.is_told.load(Ordering::Relaxed);
        may_go.then(|| (self.begun() > 0, self.idle_since.load(Ordering::Relaxed)))
    }

    pub(super) fn tell_to_go(&self) {
        self.is_told.store(true, Ordering::Relaxed);
        self.told_to_go.notify_one();
    }
}

/// A request until the last byte of its answer is sent.
pub(super) struct Active(Arc<Pace>);

impl Drop for Active {
    fn drop(&mut self) {
        let Pace { active, is_fresh, idle_since, wanted, .. } = &*self.0;
        // What ends now was under way since the last look.
        is_fresh.store(true, Ordering::Relaxed);
        idle_since.store(wanted.turns.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        active.fetch_sub(1, Ordering::SeqCst);
        if wanted.is_wanted.load(Ordering::SeqCst) {
            wanted.freed.notify_one();
        }
    }
}

/// Since when a piece of an answer of HTTP/2 waits to be taken.
#[derive(Default)]
pub(super) struct Stall(Mutex<Option<Instant>>);

tokio::task_local! {
    /// That of the request which the task answers.
    pub(super) static STALL: Arc<Stall>;
}

impl Stall {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Completes once a piece has waited for this long.
    pub(super) async fn lasts(&self, limit: Duration) {
        let mut look = Instant::now() + limit;
        loop {
            tokio::time::sleep_until(look).await;
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            look = since.unwrap_or_else(Instant::now) + limit;
            if look <= Instant::now() {
                return;
            }
        }
    }
}

/// An answer whose request counts until its body is gone, in pieces that tell its [`Stall`], where it has one.
pub(super) fn held(response: Response<Body>, active: Active) -> Response<Held> {
    let stall = STALL.try_with(Arc::clone).ok();
    response.map(|body| Held { body, rest: Bytes::new(), stall, _active: active })
}

pub(super) struct Held {
    body: Body,
    /// What of a piece of the body is not given yet.
    rest: Bytes,
    stall: Option<Arc<Stall>>,
    _active: Active,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(stall) = self.stall.clone() else { return Pin::new(&mut self.body).poll_frame(context) };
        // Whoever asks for a piece has got rid of the one before.
        stall.set(None);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.rest = bytes,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let len = self.rest.len().min(MAX_PIECE_BYTES);
        stall.set(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_given_in_pieces_and_stands_still_while_the_next_is_not_asked_for() {
        let pace = Arc::new(Pace::new(Arc::default()));
        let whole: Bytes = (0..40_000_u32).map(|n| n as u8).collect();
        let stall = Arc::new(Stall::default());
        let response = Response::new(Body::from(whole.clone()));
        let answer = STALL.sync_scope(stall.clone(), || held(response, pace.begin()));
        let mut body = answer.into_body();
        let limit = Duration::from_millis(10);
        let does_last = || async { tokio::time::timeout(3 * limit, stall.lasts(limit)).await.is_ok() };
        assert!(!does_last().await, "nothing was given yet");
        let mut given = Vec::new();
        for len in [MAX_PIECE_BYTES, MAX_PIECE_BYTES, whole.len() - 2 * MAX_PIECE_BYTES] {
            use hyper::body::Body as _;
            assert_eq!(body.size_hint().exact(), Some((whole.len() - given.len()) as u64));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece.len(), len);
            given.extend_from_slice(&piece);
            assert!(does_last().await);
        }
        assert_eq!(given, whole);
        assert!(body.frame().await.is_none() && !does_last().await);
        assert!(!pace.is_idle() && pace.leaves_at().is_none());
        drop(body);
        assert!(pace.is_idle() && pace.leaves_at().is_some_and(|(has_begun, _)| has_begun));
    }
}
