//! A connection's bytes on their way, watched for clients that stand still.
//!
//! The rule this file upholds: a head that has begun to come, and bytes that are to go, get on in their time, or the
//! connection ends. Nothing is timed while all goes well: a clock is set when there is something to wait for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::pace::{MIN_PROGRESS_BYTES, Pace, Reason};

/// A stream that can be given up with what is still to go.
pub(super) trait Reset {
    /// Has the system forget what it was given to send, once the stream is closed: it would keep it for many minutes.
    fn reset(&self);
}

impl Reset for TcpStream {
    fn reset(&self) {
        // Otherwise it goes as others do.
        let _ = self.set_zero_linger();
    }
}

impl Reset for TlsStream<TcpStream> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

impl Reset for UnixStream {
    /// Whoever closes its other end has what was sent dropped.
    fn reset(&self) {}
}

/// How long a connection may stand still.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a head to its last; none where bytes between requests are no head.
    pub(super) head: Option<Duration>,
    /// With bytes to go and fewer than [`MIN_PROGRESS_BYTES`] of them taken.
    pub(super) stalled: Duration,
}

/// A stream that ends with [`io::ErrorKind::TimedOut`] when its client stands still.
pub(super) struct Watched<S> {
    stream: S,
    pace: Arc<Pace>,
    patience: Patience,
    /// How many requests had begun when bytes came and none was under way: the next head is what they are of.
    head_after: Option<usize>,
    head_end: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since there were some that could not go, and when enough of them must be.
    stall: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<S: Reset> Watched<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>, patience: Patience) -> Self {
        Self { stream, pace, patience, head_after: None, head_end: None, stall: None }
    }

    /// Bytes have come.
    fn came(&mut self) {
        let begun = self.pace.begun();
        if self.pace.is_idle() && self.head_after != Some(begun) {
            (self.head_after, self.head_end) = (Some(begun), None);
        }
    }

    /// Nothing comes now.
    fn wait_for_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_in_head = self.pace.is_idle() && self.head_after == Some(self.pace.begun());
        let Some(patience) = self.patience.head.filter(|_| is_in_head) else {
            self.head_end = None;
            return Poll::Pending;
        };
        let end = self.head_end.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(end.as_mut().poll(context));
        Reason::Slow.count();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// So many bytes have gone.
    fn went(&mut self, bytes: usize) {
        if let Some((taken, _)) = &mut self.stall {
            *taken += bytes as u64;
            if *taken >= MIN_PROGRESS_BYTES {
                self.stall = None;
            }
        }
    }

    /// Nothing goes now.
    fn wait_to_go<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let stalled = self.patience.stalled;
        let (_, end) = self.stall.get_or_insert_with(|| (0, Box::pin(tokio::time::sleep(stalled))));
        ready!(end.as_mut().poll(context));
        Reason::Stalled.count();
        self.stream.reset();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Reset + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.came(),
            Poll::Ready(_) => {}
            Poll::Pending => return self.wait_for_head(context),
        }
        read
    }
}

impl<S: AsyncWrite + Reset + Unpin> Watched<S> {
    fn watch_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.went(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.wait_to_go(context),
        }
        written
    }

    fn watch_flush(
        &mut self,
        context: &mut Context<'_>,
        flushed: Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        match flushed {
            Poll::Ready(_) => self.stall = None,
            Poll::Pending => return self.wait_to_go(context),
        }
        flushed
    }
}

impl<S: AsyncWrite + Reset + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_flush(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch_flush(context, shut)
    }
}
