//! The load generator: many connections on one thread, requests made beforehand, answers barely parsed.
//!
//! Generator and servers share the machine, so the rule here is to spend as little as can be on a request,
//! and the same for every contender: one write, one read, one histogram step.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// The longest latency recorded, in nanoseconds; a longer one counts as this.
const MAX_LATENCY_NS: u64 = 60_000_000_000;
/// Significant digits of latencies.
const LATENCY_DIGITS: u8 = 2;
/// The most bytes of one answer: a page of metrics is the largest.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Neighbouring requests are this far apart in the list, so that servers cannot profit from their order.
const STRIDE: usize = 7_919;

/// How a server is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, kept alive; every answer has a Content-Length.
    Http,
    /// That of redis, version 2.
    Resp,
}

/// What a run of load came to.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    latency_ns: Histogram<u64>,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the requests did not exceed, in microseconds.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// A histogram of latencies in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(MAX_LATENCY_NS, LATENCY_DIGITS).expect("bounds that a histogram takes")
}

/// Opens this many connections.
pub(crate) async fn connect(
    address: SocketAddr,
    protocol: Protocol,
    connections: usize,
) -> anyhow::Result<Vec<Connection>> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(address, protocol).await?);
    }
    Ok(opened)
}

/// Sends `requests` round and round, for this long, each connection its next one once it has its answer.
/// Gives the connections back.
pub(crate) async fn drive(
    connections: Vec<Connection>,
    requests: &Rc<[Bytes]>,
    lasting: Duration,
) -> anyhow::Result<(Vec<Connection>, Outcome)> {
    let latency_ns = Rc::new(RefCell::new(latencies()));
    let next = Rc::new(Cell::new(0));
    let started = Instant::now();
    let ends = started + lasting;
    let tasks = LocalSet::new();
    let spawn = |mut connection: Connection| {
        let (requests, latency_ns, next) = (requests.clone(), latency_ns.clone(), next.clone());
        tasks.spawn_local(async move {
            let mut sent = Instant::now();
            while sent < ends {
                let turn = next.replace(next.get() + 1);
                connection.exchange(&requests[turn * STRIDE % requests.len()]).await?;
                let answered = Instant::now();
                latency_ns.borrow_mut().saturating_record((answered - sent).as_nanos() as u64);
                sent = answered;
            }
            anyhow::Ok(connection)
        })
    };
    let running: Vec<_> = connections.into_iter().map(spawn).collect();
    tasks.await;
    let elapsed = started.elapsed();
    let mut connections = Vec::with_capacity(running.len());
    for task in running {
        connections.push(task.await??);
    }
    let latency_ns = latency_ns.replace(latencies());
    Ok((connections, Outcome { requests: latency_ns.len(), elapsed, latency_ns }))
}

/// One connection: a request, then its answer.
pub(crate) struct Connection {
    stream: TcpStream,
    protocol: Protocol,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, protocol: Protocol) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, protocol, answer: Vec::with_capacity(4096) })
    }

    /// Sends a request and gives the body of its answer; fails unless that is a success.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        match self.try_exchange(request).await? {
            Some(body) => Ok(&self.answer[body]),
            None => bail!("not a success: {}", self.answer.escape_ascii()),
        }
    }

    /// As [`Connection::exchange`], and gives `None` where there is no such key.
    pub(crate) async fn find(&mut self, request: &[u8]) -> anyhow::Result<Option<&[u8]>> {
        match self.try_exchange(request).await? {
            Some(body) => Ok(Some(&self.answer[body])),
            None if self.answer.starts_with(b"HTTP/1.1 404") => Ok(None),
            None => bail!("not a success: {}", self.answer.escape_ascii()),
        }
    }

    async fn try_exchange(&mut self, request: &[u8]) -> anyhow::Result<Option<Range<usize>>> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed the connection after {}", self.answer.escape_ascii());
            ensure!(self.answer.len() <= MAX_ANSWER_BYTES, "an answer without an end");
            let parsed = match self.protocol {
                Protocol::Http => parse_http(&self.answer)?,
                Protocol::Resp => parse_resp(&self.answer)?,
            };
            if let Some(answer) = parsed {
                return Ok(answer.is_success.then_some(answer.body));
            }
        }
    }
}

struct Parsed {
    is_success: bool,
    body: Range<usize>,
}

/// The answer in `bytes`; `None` while it is not complete. hyper writes names of fields in lower case.
fn parse_http(bytes: &[u8]) -> anyhow::Result<Option<Parsed>> {
    let Some(head) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let length = find(&bytes[..head], b"content-length: ").context("an answer without a length")? + 16;
    let digits = bytes[length..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let body = head + 4..head + 4 + length;
    Ok((bytes.len() >= body.end).then(|| Parsed { is_success: bytes.starts_with(b"HTTP/1.1 200"), body }))
}

/// As [`parse_http`]; simple strings, errors and bulk strings only.
fn parse_resp(bytes: &[u8]) -> anyhow::Result<Option<Parsed>> {
    let Some(line) = find(bytes, b"\r\n") else { return Ok(None) };
    let (body, end) = match bytes[0] {
        b'+' | b'-' => (1..line, line + 2),
        b'$' if bytes[1] == b'-' => (0..0, line + 2),
        b'$' => {
            let length: usize = std::str::from_utf8(&bytes[1..line])?.parse()?;
            (line + 2..line + 2 + length, line + 4 + length)
        }
        _ => bail!("an answer of a kind nobody asked for: {}", bytes.escape_ascii()),
    };
    let is_success = bytes[0] == b'+' || !body.is_empty() && bytes[0] == b'$';
    Ok((bytes.len() >= end).then_some(Parsed { is_success, body }))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_their_beginnings_and_from_failures() {
        type Parse = fn(&[u8]) -> anyhow::Result<Option<Parsed>>;
        let check = |parse: Parse, answer: &str, is_success: bool, body: &str| {
            let bytes = answer.as_bytes();
            for end in 0..bytes.len() {
                assert!(parse(&bytes[..end]).unwrap().is_none(), "{end} bytes of {answer}");
            }
            let parsed = parse(bytes).unwrap().unwrap();
            assert_eq!((parsed.is_success, &answer[parsed.body]), (is_success, body));
        };
        check(parse_http, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\nabc", true, "abc");
        check(parse_http, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false, "");
        check(parse_resp, "+OK\r\n", true, "OK");
        check(parse_resp, "$3\r\nabc\r\n", true, "abc");
        check(parse_resp, "$-1\r\n", false, "");
        check(parse_resp, "-ERR no\r\n", false, "ERR no");
        assert!(parse_http(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_resp(b":1\r\n").is_err());
    }
}
