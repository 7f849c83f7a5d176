//! `POST values`: orders, one a line, answered one a line while they come.
//!
//! The rule this file upholds: memory follows neither the number of orders nor the slowness of the client. What has
//! come is read into a bounded line, written in slices, and answered before more is read; so a client that does not
//! take the answers is not read from either. A line that is no order is told by its number, and the next one is read.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response};
use littoral::api::kinds::MIN_TTL_S;
use littoral::api::values::{MAX_LINE_BYTES, NDJSON, Order, Ordered};
use replication::{Dot, Value};
use serde_json::value::{RawValue, to_raw_value};

use super::super::super::Surface;
use super::super::super::attributes::{self, expires_later_than, now_s};
use super::super::super::auth::Place;
use super::super::super::body::Upload;
use super::super::super::bulk::{SLICE_WRITES, Share, decode_value};
use super::super::super::error::ApiError;
use super::super::super::large::ValueWriter;
use super::super::super::query::{Query, check_key};
use crate::chunks::Pin;
use crate::engine::{Ack, Write, WriteError, show_dot};

/// A line longer than this takes its share of the memory for bulk bodies.
const SHORT_LINE_BYTES: usize = 256 << 10;
/// That share, in KiB: the line, what is read of it, and its value.
const LONG_LINE_KIB: u32 = 3 * (MAX_LINE_BYTES / 1024) as u32;
/// The most bytes of lines that are written as one slice.
const SLICE_BYTES: usize = 1 << 20;

/// When the orders of this request are to be acknowledged, where they can be taken.
pub(in super::super) fn check(query: &Query<'_>, headers: &HeaderMap) -> Result<Ack, ApiError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.contains("ndjson") {
        let reason = format!("send one order a line, and Content-Type: {NDJSON}, not \"{content_type}\"");
        return Err(ApiError::invalid(reason));
    }
    query.ack()
}

/// Begins to answer.
pub(in super::super) fn begin(
    surface: &Arc<Surface>,
    place: Place,
    ack: Ack,
    upload: Upload,
) -> Response<Body> {
    let writer = Writer { surface: surface.clone(), place, ack };
    let orders = Orders { writer, upload, lines: Lines::default(), share: None, is_over: false };
    let answers = stream::unfold(orders, |mut orders| async {
        Some((Ok::<_, std::convert::Infallible>(orders.next().await?), orders))
    });
    let mut response = Response::new(Body::from_stream(answers));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers answers would stand in the way of a client that waits for one.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Orders as they come in.
struct Orders {
    writer: Writer,
    upload: Upload,
    lines: Lines,
    /// Of the memory for bulk bodies, while a long line is held.
    share: Option<Share>,
    /// No more is read.
    is_over: bool,
}

impl Orders {
    /// The next answers; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let slice = self.lines.take_slice(self.is_over);
            if !slice.is_empty() {
                let answers = self.writer.write(slice).await;
                if !answers.is_empty() {
                    return Some(answers.into());
                }
                continue;
            }
            if self.is_over {
                return None;
            }
            if !self.lines.is_long() {
                self.share = None;
            }
            if let Err(error) = self.read().await {
                // The line that has begun is not whole: it is no order.
                self.is_over = true;
                let line = self.lines.cut();
                return Some(line_of(&refused(line, None, &error)).into());
            }
        }
    }

    /// Takes what comes next.
    async fn read(&mut self) -> Result<(), ApiError> {
        let ending = self.writer.surface.is_ending.clone();
        let piece = tokio::select! {
            biased;
            piece = self.upload.piece() => piece?,
            () = ending.cancelled() => {
                let reason = "this node is stopping; send what was not answered again, or to another PoP".into();
                return Err(WriteError::Unavailable { reason }.into());
            }
        };
        match piece {
            Some(bytes) => self.lines.push(&bytes),
            None => self.is_over = true,
        }
        if self.lines.is_long() && self.share.is_none() {
            match Share::wait(&self.writer.surface, LONG_LINE_KIB).await {
                Ok(share) => self.share = Some(share),
                Err(error) => self.lines.skip(error),
            }
        }
        Ok(())
    }
}

/// What has come and is not yet answered: at most a line of [`MAX_LINE_BYTES`] and a piece of the body.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// So much of it has no end of a line.
    scanned: usize,
    /// The number of the last line that was taken.
    number: u64,
    /// Why the line that is being received is not kept.
    skipped: Option<ApiError>,
}

/// A line, with its number; or why it was not kept.
type Line = (u64, Result<Bytes, ApiError>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the line that is being received is a long one.
    fn is_long(&self) -> bool {
        self.buffer.len() > SHORT_LINE_BYTES
    }

    /// Does not keep what has come of this line, nor what is to come.
    fn skip(&mut self, error: ApiError) {
        let end = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        self.buffer.advance(end.map_or(self.buffer.len(), |at| self.scanned + at));
        self.scanned = 0;
        self.skipped.get_or_insert(error);
    }

    /// The number of the line that is not whole, which is let go.
    fn cut(&mut self) -> u64 {
        self.buffer.clear();
        (self.scanned, self.skipped) = (0, None);
        self.number + 1
    }

    /// The next lines, as many as are written at once; at the end of the body what is left is one too.
    fn take_slice(&mut self, is_over: bool) -> Vec<Line> {
        let (mut slice, mut bytes) = (Vec::new(), 0);
        while slice.len() < SLICE_WRITES && bytes < SLICE_BYTES {
            let Some((number, line)) = self.take(is_over) else { break };
            match line {
                Ok(line) if line.trim_ascii().is_empty() => {}
                line => {
                    bytes += line.as_ref().map_or(0, Bytes::len);
                    slice.push((number, line));
                }
            }
        }
        slice
    }

    fn take(&mut self, is_over: bool) -> Option<Line> {
        let end = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let end = end.map(|at| self.scanned + at);
        if end.unwrap_or(self.buffer.len()) > MAX_LINE_BYTES {
            let reason = format!("the line is longer than {MAX_LINE_BYTES} bytes; write its value with PUT");
            self.skipped.get_or_insert(ApiError::BadBulk { reason });
        }
        let line = match end {
            Some(at) => {
                let line = self.buffer.split_to(at).freeze();
                self.buffer.advance(1);
                line
            }
            None if is_over && !(self.buffer.is_empty() && self.skipped.is_none()) => {
                self.buffer.split().freeze()
            }
            None => {
                if self.skipped.is_some() {
                    self.buffer.clear();
                }
                self.scanned = self.buffer.len();
                return None;
            }
        };
        self.scanned = 0;
        self.number += 1;
        Some((self.number, self.skipped.take().map_or(Ok(line), Err)))
    }
}

/// Writes orders to one namespace.
struct Writer {
    surface: Arc<Surface>,
    place: Place,
    ack: Ack,
}

/// An order that can be carried out.
struct Ready {
    line: u64,
    key: String,
    write: Write,
    /// Until it is written, nothing else keeps its chunks.
    _pins: Vec<Pin>,
}

impl Writer {
    /// Carries out these orders, and gives a line of answer for each, in their order.
    async fn write(&self, slice: Vec<Line>) -> Vec<u8> {
        let mut ready = Vec::new();
        let mut answers = Vec::new();
        for (line, text) in slice {
            match self.prepare(line, text).await {
                Ok(order) => ready.push(order),
                Err((key, error)) => answers.push(refused(line, key, &error)),
            }
        }
        answers.extend(self.carry_out(ready).await);
        answers.sort_unstable_by_key(|answer| answer.line);
        answers.iter().flat_map(line_of).collect()
    }

    async fn prepare(
        &self,
        line: u64,
        text: Result<Bytes, ApiError>,
    ) -> Result<Ready, (Option<String>, ApiError)> {
        let text = text.map_err(|error| (None, error))?;
        let not_order = |error: serde_json::Error| (None, ApiError::NotJson { reason: error.to_string() });
        let order: Order = serde_json::from_slice(&text).map_err(not_order)?;
        let key = order.key.clone();
        match self.prepare_write(order).await {
            Ok((write, pins)) => Ok(Ready { line, key, write, _pins: pins }),
            Err(error) => Err((Some(key), error)),
        }
    }

    async fn prepare_write(&self, order: Order) -> Result<(Write, Vec<Pin>), ApiError> {
        check_key(&order.key)?;
        self.place.check(&order.key)?;
        let namespace = self.place.namespace;
        let key = Bytes::copy_from_slice(order.key.as_bytes());
        let bytes = match (order.value, order.base64, order.delete) {
            (None, None, true) => {
                let says_more =
                    order.metadata.is_some() || order.expiration.is_some() || order.expiration_ttl.is_some();
                return match says_more {
                    true => Err(ApiError::invalid("a delete takes no metadata and no expiry")),
                    false => Ok((Write::Delete { namespace, key }, Vec::new())),
                };
            }
            (Some(text), None, false) => text.into_bytes(),
            (None, Some(text), false) => decode_value(&order.key, &text)?,
            (None, None, false) if order.size.is_some() => {
                return Err(ApiError::invalid("this line tells only the size of a value: write it with PUT"));
            }
            _ => {
                return Err(ApiError::invalid(
                    "an order has one of \"value\", \"base64\" and \"delete\": true",
                ));
            }
        };
        let expires_at_s = expires_later_than(MIN_TTL_S, order.expiration, order.expiration_ttl, now_s())?;
        let metadata = order.metadata.map(|json| attributes::metadata(json.get().as_bytes())).transpose()?;
        let mut writer = ValueWriter::new(&self.surface.chunks);
        writer.push(&bytes).await?;
        let received = writer.finish().await?;
        let value = Value { payload: received.payload, metadata: metadata.flatten(), expires_at_s };
        Ok((Write::Put { namespace, key, value }, received.pins))
    }

    /// Writes them as one group. Where that is more than the namespace may hold, each by itself: some may fit.
    async fn carry_out(&self, orders: Vec<Ready>) -> Vec<Ordered> {
        if orders.is_empty() {
            return Vec::new();
        }
        let writes = orders.iter().map(|order| order.write.clone()).collect();
        match self.place.write(&self.surface, writes, self.ack).await {
            Ok(dots) => orders.into_iter().zip(dots).map(|(order, dot)| done(order, dot)).collect(),
            Err(ApiError::Write(WriteError::OverQuota { .. })) if orders.len() > 1 => {
                let mut answers = Vec::new();
                for order in orders {
                    let written = self.place.write(&self.surface, vec![order.write.clone()], self.ack).await;
                    answers.push(match written.as_deref() {
                        Ok([dot, ..]) => done(order, *dot),
                        Ok([]) => continue,
                        Err(error) => refused(order.line, Some(order.key), error),
                    });
                }
                answers
            }
            Err(error) => {
                orders.into_iter().map(|order| refused(order.line, Some(order.key), &error)).collect()
            }
        }
    }
}

fn done(order: Ready, dot: Dot) -> Ordered {
    Ordered { line: order.line, key: Some(order.key), receipt: Some(show_dot(dot)), problem: None }
}

fn refused(line: u64, key: Option<String>, error: &ApiError) -> Ordered {
    let problem: Option<Box<RawValue>> = to_raw_value(&error.details()).ok();
    Ordered { line, key, receipt: None, problem }
}

fn line_of(answer: &Ordered) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("an answer has string keys and no failing fields");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(slice: Vec<Line>) -> Vec<(u64, Option<String>)> {
        let text = |line: Bytes| String::from_utf8_lossy(&line).into_owned();
        slice.into_iter().map(|(number, line)| (number, line.ok().map(text))).collect()
    }

    #[test]
    fn lines_are_told_apart_wherever_they_are_cut() {
        let body = b"one\n\n  \r\ntwo\nthree";
        for step in 1..=body.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in body.chunks(step) {
                lines.push(piece);
                found.extend(texts(lines.take_slice(false)));
            }
            found.extend(texts(lines.take_slice(true)));
            let expected = [(1, "one"), (4, "two"), (5, "three")];
            assert_eq!(found, expected.map(|(number, text)| (number, Some(text.to_owned()))), "{step}");
            assert!(lines.take_slice(true).is_empty());
        }
    }

    #[test]
    fn a_line_may_be_so_long_and_one_that_is_longer_does_not_stop_the_next() {
        for (len, fits) in [(MAX_LINE_BYTES - 1, true), (MAX_LINE_BYTES, true), (MAX_LINE_BYTES + 1, false)] {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            let mut body = vec![b'x'; len];
            body.extend_from_slice(b"\nnext\n");
            for piece in body.chunks(1 << 20) {
                lines.push(piece);
                assert!(lines.buffer.len() <= MAX_LINE_BYTES + (1 << 20));
                found
                    .extend(lines.take_slice(false).into_iter().map(|(number, line)| (number, line.is_ok())));
            }
            found.extend(lines.take_slice(true).into_iter().map(|(number, line)| (number, line.is_ok())));
            assert_eq!(found, [(1, fits), (2, true)], "{len}");
        }
    }

    #[test]
    fn a_line_that_is_skipped_ends_where_it_ends() {
        for (first, rest) in
            [("xx", "xx\nnext\n"), ("xx\nne", "xt\n"), ("", "xx\nnext\n"), ("xx\n", "next\n")]
        {
            let mut lines = Lines::default();
            lines.push(first.as_bytes());
            lines.skip(ApiError::Busy);
            let mut found = texts(lines.take_slice(false));
            lines.push(rest.as_bytes());
            found.extend(texts(lines.take_slice(false)));
            assert_eq!(found, [(1, None), (2, Some("next".to_owned()))], "{first:?}");
        }
    }

    #[test]
    fn a_slice_has_a_bounded_number_of_lines_and_bytes() {
        let mut lines = Lines::default();
        lines.push(&b"x\n".repeat(SLICE_WRITES + 1));
        assert_eq!(lines.take_slice(false).len(), SLICE_WRITES);
        assert_eq!(lines.take_slice(false).len(), 1);
        let mut long = vec![b'x'; SLICE_BYTES];
        long.extend_from_slice(b"\ny\n");
        lines.push(&long);
        assert_eq!(lines.take_slice(false).len(), 1);
        assert_eq!(texts(lines.take_slice(false)), [(SLICE_WRITES as u64 + 3, Some("y".to_owned()))]);
    }
}
