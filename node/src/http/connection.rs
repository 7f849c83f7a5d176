//! One connection, from its acceptance to its end: TLS where the port has it, then HTTP/1.1 or HTTP/2.
//!
//! The rule this file upholds: nobody holds a place for nothing. A connection that does not come to a request in time
//! ends, and so does one of HTTP/2 that lies idle; HTTP/1.1 bounds its heads by itself.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
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
use super::tls::H2;
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
    pub(super) async fn serve(mut self, stream: Stream, door: Door) {
        match stream {
            Stream::Unix(stream) => self.http1(stream, door).await,
            // An answer is written in one piece; waiting for more to send would only delay it.
            Stream::Tcp(stream, _) if stream.set_nodelay(true).is_err() => {}
            Stream::Tcp(stream, None) => self.http1(stream, door).await,
            Stream::Tcp(stream, Some(acceptor)) => {
                let Some(stream) = self.shake_hands(stream, acceptor).await else { return };
                match stream.get_ref().1.alpn_protocol() == Some(H2) {
                    true => self.http2(stream, door).await,
                    false => self.http1(stream, door).await,
                }
            }
        }
    }

    async fn shake_hands(
        &mut self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
    ) -> Option<TlsStream<TcpStream>> {
        let accepted = tokio::select! {
            biased;
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => return None,
            accepted = tokio::time::timeout(self.limits.opening_timeout(), acceptor.accept(stream)) => accepted,
        };
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
        None
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, door: Door) {
        let Self { surface, limits, is_ending } = self;
        let pace = Pace::default();
        let service = service_fn(|request| {
            pace.has_begun.store(true, Ordering::Relaxed);
            let surface = surface.clone();
            async move { Ok::<_, Infallible>(surface.answer(door, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout())
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        drive(connection, &pace, None, limits, is_ending).await;
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, door: Door) {
        let Self { surface, limits, is_ending } = self;
        let pace = Arc::new(Pace::default());
        let service = service_fn(|request: Request<Incoming>| {
            let active = Active::begin(&pace);
            let surface = surface.clone();
            async move {
                let response = surface.answer(door, request).await;
                Ok::<_, Infallible>(held(response, active))
            }
        });
        let streams = CancellationToken::new();
        let _end_streams = streams.clone().drop_guard();
        let connection = http2::Builder::new(Streams(streams))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        drive(connection, &pace, Some(limits.header_timeout()), limits, is_ending).await;
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
            () = look.as_mut(), if is_timed => {
                if !pace.has_begun.load(Ordering::Relaxed) {
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

/// What a connection is about.
#[derive(Default)]
struct Pace {
    /// There was a request.
    has_begun: AtomicBool,
    /// Requests whose answers are not sent yet.
    active: AtomicUsize,
    /// There was a request since the last look.
    is_fresh: AtomicBool,
}

impl Pace {
    /// Whether there is a request, or was one since this was last asked.
    fn was_active(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed) || self.active.load(Ordering::Relaxed) > 0
    }
}

/// A request until the last byte of its answer is sent.
struct Active(Arc<Pace>);

impl Active {
    fn begin(pace: &Arc<Pace>) -> Self {
        pace.has_begun.store(true, Ordering::Relaxed);
        pace.active.fetch_add(1, Ordering::Relaxed);
        Self(pace.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // What ends now was under way since the last look.
        self.0.is_fresh.store(true, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer whose request counts until its body is gone.
fn held(response: Response<Body>, active: Active) -> Response<Held> {
    response.map(|body| Held { body, _active: active })
}

struct Held {
    body: Body,
    _active: Active,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the requests of a connection of HTTP/2, each of which ends with it at the latest.
#[derive(Clone)]
struct Streams(CancellationToken);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, request: F) {
        let end = self.0.clone();
        tokio::spawn(async move { end.run_until_cancelled(request).await });
    }
}
