//! One connection, from its acceptance to its end: TLS where the port has it, then HTTP/1.1 or HTTP/2.
//!
//! The rule this file upholds: nobody holds a seat for nothing. A connection that does not come to a request in time
//! ends, and so does one of HTTP/2 that lies idle; HTTP/1.1 bounds its heads by itself. One without a request ends when
//! its seat is needed.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::listener::{Door, Stream};
use super::pace::{Pace, Reason, STALL, Stall, held};
use super::seats::Seat;
use super::tls::H2;
use super::watched::{Patience, Reset, Watched};
use super::{Limits, Surface};

/// The most bytes of a request's head, and of a body read at a time.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The most requests at once on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;
/// How far a client may send ahead of what is read, of one request and of all of a connection of HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The most bytes of an answer that wait for the client to take them, of each request of HTTP/2.
const MAX_SEND_BUFFER_BYTES: usize = 256 << 10;
/// Requests of HTTP/2 that a client took back before they were looked at: with more of them at once the connection ends.
const MAX_RESET_STREAMS: usize = 20;
/// Requests of HTTP/2 that broke the protocol and were refused for that: with more of them the connection ends.
const MAX_REFUSED_STREAMS: usize = 1_024;
/// How long an idle connection of HTTP/2 that must go may take to be told so.
const FAREWELL: Duration = Duration::from_millis(20);

/// What every connection is served with.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) surface: Arc<Surface>,
    pub(super) limits: Limits,
    /// Whether the node stops.
    pub(super) is_ending: watch::Receiver<bool>,
}

impl Service {
    /// Serves a connection until either side ends it.
    pub(super) async fn serve(mut self, stream: Stream, door: Door, seat: Seat) {
        let pace = &seat.pace;
        match stream {
            Stream::Unix(stream) => self.http1(stream, door, pace).await,
            // An answer is written in one piece; waiting for more to send would only delay it.
            Stream::Tcp(stream, _) if stream.set_nodelay(true).is_err() => {}
            Stream::Tcp(stream, None) => self.http1(stream, door, pace).await,
            Stream::Tcp(stream, Some(acceptor)) => {
                let Some(stream) = self.shake_hands(stream, acceptor, pace).await else { return };
                match stream.get_ref().1.alpn_protocol() == Some(H2) {
                    true => self.http2(stream, door, pace).await,
                    false => self.http1(stream, door, pace).await,
                }
            }
        }
    }

    async fn shake_hands(
        &mut self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        pace: &Pace,
    ) -> Option<TlsStream<TcpStream>> {
        let accepted = tokio::select! {
            biased;
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => return None,
            () = pace.told_to_go.notified() => {
                Reason::Crowded.count();
                return None;
            }
            accepted = tokio::time::timeout(self.limits.opening_timeout(), acceptor.accept(stream)) => accepted,
        };
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => Reason::Slow.count(),
        }
        None
    }

    async fn http1(
        self,
        stream: impl AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
        door: Door,
        pace: &Arc<Pace>,
    ) {
        let Self { surface, limits, is_ending } = self;
        let patience = Patience { head: Some(limits.opening_timeout()), stalled: limits.stalled_timeout() };
        let stream = Watched::new(stream, pace.clone(), patience);
        let service = service_fn(|request: Request<Incoming>| {
            let active = pace.begin();
            let surface = surface.clone();
            async move {
                let response = surface.answer(door, request.map(Body::new)).await;
                Ok::<_, Infallible>(held(response, active))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout())
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        drive(connection, pace, None, limits, is_ending).await;
    }

    async fn http2(
        self,
        stream: impl AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
        door: Door,
        pace: &Arc<Pace>,
    ) {
        let Self { surface, limits, is_ending } = self;
        let stalled = limits.stalled_timeout();
        let stream = Watched::new(stream, pace.clone(), Patience { head: None, stalled });
        let service = service_fn(|request: Request<Incoming>| {
            let active = pace.begin();
            let surface = surface.clone();
            async move {
                let response = surface.answer(door, request.map(Body::new)).await;
                Ok::<_, Infallible>(held(response, active))
            }
        });
        let end = CancellationToken::new();
        let _end_streams = end.clone().drop_guard();
        let connection = http2::Builder::new(Streams { end, stalled })
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(MAX_REFUSED_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        drive(connection, pace, Some(limits.header_timeout()), limits, is_ending).await;
    }
}

/// Polls a connection to its end. `idle` is how long it may be without a request, twice that at most, where HTTP does
/// not see to that.
async fn drive<C>(
    connection: C,
    pace: &Pace,
    idle: Option<Duration>,
    limits: Limits,
    mut is_ending: watch::Receiver<bool>,
) where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let mut look = pin!(tokio::time::sleep(limits.opening_timeout()));
    let mut is_timed = true;
    let mut is_closing = false;
    let mut is_leaving = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a connection ended early");
                }
                return;
            }
            _ = is_ending.wait_for(|is_ending| *is_ending), if !is_closing => {
                // The surface bounds how long it may still take.
                (is_closing, is_timed) = (true, false);
                connection.as_mut().graceful_shutdown();
            }
            () = pace.told_to_go.notified() => {
                Reason::Crowded.count();
                // HTTP/1.1 has no word for it.
                if idle.is_none() && pace.is_idle() {
                    return;
                }
                (is_closing, is_leaving, is_timed) = (true, true, true);
                connection.as_mut().graceful_shutdown();
                look.as_mut().reset(Instant::now() + FAREWELL);
            }
            () = look.as_mut(), if is_timed => {
                if is_leaving && !pace.is_idle() {
                    // One whose request came in that moment gets its answer.
                    look.as_mut().reset(Instant::now() + FAREWELL);
                    continue;
                }
                if is_leaving {
                    return;
                }
                if pace.begun() == 0 {
                    Reason::Slow.count();
                    return;
                }
                let Some(idle) = idle else {
                    is_timed = false;
                    continue;
                };
                if pace.was_active() {
                    look.as_mut().reset(Instant::now() + idle);
                } else if is_closing {
                    // It was told to go, and has not gone.
                    return;
                } else {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + limits.opening_timeout());
                }
            }
        }
    }
}

/// Runs the requests of a connection of HTTP/2, each of which ends with it at the latest, and when nobody takes its
/// answer.
#[derive(Clone)]
struct Streams {
    end: CancellationToken,
    stalled: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let Self { end, stalled } = self.clone();
        let stall = Arc::new(Stall::default());
        let answered = STALL.scope(stall.clone(), request);
        let watched = async move {
            tokio::select! {
                biased;
                _ = answered => {}
                () = stall.lasts(stalled) => Reason::Stalled.count(),
            }
        };
        tokio::spawn(async move { end.run_until_cancelled(watched).await });
    }
}
