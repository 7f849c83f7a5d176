//! HTTP/2 from clients that keep to no rule: frames written byte by byte (RFC 9113), at the limits and beyond.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::{Secured, secured};
use super::{ACCOUNT, LIMITS, Limits, TOKEN, namespaces_path};

/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// Flags of frames.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Why something ends.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// What the node announces.
const MAX_STREAMS: u32 = 128;
const MAX_HEAD_BYTES: usize = 64 << 10;
/// The most requests that may be taken back at once.
const MAX_RESET_STREAMS: u32 = 20;
/// The most bytes in a frame.
const MAX_FRAME_BYTES: usize = 16 << 10;

/// A connection whose frames are ours.
struct Raw(TlsStream<TcpStream>);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The number that ends the payload, or is all of it.
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field whose name is at this place of HPACK's static table (RFC 7541), as a literal.
fn field(name: u8, value: &str) -> Vec<u8> {
    let name = if name < 15 { vec![name] } else { vec![15, name - 15] };
    [name, string(value)].concat()
}

fn string(text: &str) -> Vec<u8> {
    // A number with a prefix of seven bits.
    let mut bytes = match text.len() {
        len if len < 127 => vec![len as u8],
        mut len => {
            len -= 127;
            let mut bytes = vec![127];
            while len >= 128 {
                bytes.push(len as u8 | 128);
                len >>= 7;
            }
            bytes.push(len as u8);
            bytes
        }
    };
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The fields of a request, and how many bytes of a list of fields they are: name and value of each, and 32.
fn request(method: &str, path: &str) -> (Vec<u8>, usize) {
    let bearer = format!("Bearer {TOKEN}");
    let fields = [(2, ":method", method), (4, ":path", path), (1, ":authority", "localhost")];
    let fields = fields.into_iter().chain([(7, ":scheme", "https"), (23, "authorization", &bearer)]);
    let (mut block, mut len) = (Vec::new(), 0);
    for (at, name, value) in fields {
        block.extend(field(at, value));
        len += name.len() + value.len() + 32;
    }
    (block, len)
}

impl Raw {
    /// A connection that has sent its preface and these settings, and has those of the node.
    async fn connect(node: &Secured, settings: &[u8]) -> Self {
        let mut raw = Self(node.connect(&node.certificate, "h2").await.unwrap());
        raw.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, settings)[..]].concat()).await;
        let theirs = raw.frame_of(SETTINGS).await;
        let announced = |id: u8| {
            let of_id = theirs.payload.chunks(6).find(|setting| setting[..2] == [0, id]);
            of_id.map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()))
        };
        assert_eq!((announced(3), announced(6)), (Some(MAX_STREAMS), Some(MAX_HEAD_BYTES as u32)));
        raw.send(&frame(SETTINGS, ACK, 0, &[])).await;
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn get(&mut self, stream: u32, path: &str) {
        let (block, _) = request("GET", path);
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).await;
    }

    async fn frame(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Frame { kind: head[3], flags: head[4], stream, payload }
    }

    /// The next frame of this kind; others that come before it are left out.
    async fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The frames of this kind that come before the answer to a ping.
    async fn frames_until_pong(&mut self, kind: u8) -> Vec<Frame> {
        self.send(&frame(PING, 0, 0, &[7; 8])).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.frame().await;
            if frame.kind == PING && frame.flags == ACK {
                return frames;
            }
            if frame.kind == kind {
                frames.push(frame);
            }
        }
    }

    /// Asks for a page, which is given.
    async fn check_serves(&mut self, stream: u32) {
        self.get(stream, "/healthz").await;
        let head = self.frame_of(HEADERS).await;
        // ":status: 200" has a place of its own.
        assert_eq!((head.stream, head.payload[0]), (stream, 0x88));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_announced_number_are_refused_one_by_one() {
    let node = secured(LIMITS).await;
    for count in [MAX_STREAMS - 1, MAX_STREAMS, MAX_STREAMS + 1] {
        let mut raw = Raw::connect(&node, &[]).await;
        let (block, _) = request("POST", &namespaces_path(ACCOUNT));
        let streams: Vec<u32> = (0..count).map(|n| 2 * n + 1).collect();
        for stream in &streams {
            raw.send(&frame(HEADERS, END_HEADERS, *stream, &block)).await;
        }
        let refused = raw.frames_until_pong(RST_STREAM).await;
        let refused: Vec<_> = refused.iter().map(|frame| (frame.stream, frame.code())).collect();
        let beyond = streams.iter().skip(MAX_STREAMS as usize);
        assert_eq!(refused, beyond.map(|stream| (*stream, REFUSED_STREAM)).collect::<Vec<_>>());
        // The others go on.
        raw.send(&frame(DATA, END_STREAM, 1, format!("{{\"title\":\"{count}\"}}").as_bytes())).await;
        let answer = raw.frame_of(HEADERS).await;
        assert_eq!((answer.stream, answer.payload[0]), (1, 0x88));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_the_announced_size_is_refused_and_the_connection_goes_on() {
    let node = secured(LIMITS).await;
    for size in [MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES, MAX_HEAD_BYTES + 1] {
        let mut raw = Raw::connect(&node, &[]).await;
        let (mut block, len) = request("GET", "/healthz");
        // "a": a literal whose name is in no table.
        block.extend([vec![0], string("a"), string(&"x".repeat(size - len - 33))].concat());
        let pieces: Vec<_> = block.chunks(MAX_FRAME_BYTES).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            let end_stream = if number == 0 { END_STREAM } else { 0 };
            let end_headers = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
            raw.send(&frame(kind, end_stream | end_headers, 1, piece)).await;
        }
        let answer = raw.frame_of(HEADERS).await;
        // The crate h2 takes one byte less than it announces.
        assert_eq!(answer.payload[0] == 0x88, size < MAX_HEAD_BYTES, "{size}: {:?}", answer.payload);
        raw.check_serves(3).await;
    }
}

/// CVE-2023-44487: each costs the client nothing and the server a request.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_in_a_flood_end_the_connection() {
    let node = secured(LIMITS).await;
    for count in [MAX_RESET_STREAMS - 1, MAX_RESET_STREAMS, MAX_RESET_STREAMS + 1] {
        let mut raw = Raw::connect(&node, &[]).await;
        let (block, _) = request("GET", "/v1/status");
        let pairs = (0..count).flat_map(|n| {
            let stream = 2 * n + 1;
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
            [open, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
        });
        // In one write, so that the node finds them all at once.
        raw.send(&pairs.collect::<Vec<_>>()).await;
        if count <= MAX_RESET_STREAMS {
            raw.check_serves(2 * count + 1).await;
        } else {
            assert_eq!(raw.frame_of(GOAWAY).await.code(), ENHANCE_YOUR_CALM);
        }
    }
    Raw::connect(&node, &[]).await.check_serves(1).await;
}

/// CVE-2024-27316 and its like: a head that never ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_ends_the_connection() {
    let node = secured(LIMITS).await;
    let mut raw = Raw::connect(&node, &[]).await;
    let (block, _) = request("GET", "/healthz");
    raw.send(&frame(HEADERS, END_STREAM, 1, &block)).await;
    let piece = [vec![0], string("a"), string(&"x".repeat(MAX_FRAME_BYTES - 16))].concat();
    let more = frame(CONTINUATION, 0, 1, &piece);
    let (mut reading, mut writing) = tokio::io::split(raw.0);
    let flood = async { while writing.write_all(&more).await.is_ok() {} };
    let mut left = Vec::new();
    let read = reading.read_to_end(&mut left);
    let both = async { tokio::join!(flood, read) };
    let _ = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it is cut off");
    let goaway = frame(GOAWAY, 0, 0, &[[0, 0, 0, 1], ENHANCE_YOUR_CALM.to_be_bytes()].concat());
    assert!(left.windows(9).any(|bytes| bytes[3] == goaway[3] && bytes[5..] == goaway[5..9]), "{left:?}");
    Raw::connect(&node, &[]).await.check_serves(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_to_go_when_its_place_is_needed() {
    let node = secured(Limits { max_connections: 2, ..LIMITS }).await;
    let mut idle = Raw::connect(&node, &[]).await;
    idle.check_serves(1).await;
    let mut busy = Raw::connect(&node, &[]).await;
    let (block, _) = request("POST", &namespaces_path(ACCOUNT));
    busy.send(&frame(HEADERS, END_HEADERS, 1, &block)).await;
    busy.frames_until_pong(HEADERS).await;
    Raw::connect(&node, &[]).await.check_serves(1).await;
    assert_eq!(idle.frame_of(GOAWAY).await.code(), 0);
    busy.send(&frame(DATA, END_STREAM, 1, b"{\"title\":\"t\"}")).await;
    assert_eq!(busy.frame_of(HEADERS).await.payload[0], 0x88);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_whose_answers_nobody_reads_end_the_connection() {
    let node = secured(Limits { stalled_timeout_ms: 500, ..LIMITS }).await;
    let mut raw = Raw::connect(&node, &[]).await;
    raw.check_serves(1).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(10_000);
    let flood = async { while raw.0.write_all(&pings).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), flood).await.expect("it is cut off");
    Raw::connect(&node, &[]).await.check_serves(1).await;
}

/// The window of the stream stays closed: nothing can be sent, though the connection is well.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_let_in_is_reset_and_others_are_given() {
    let node = secured(Limits { stalled_timeout_ms: 1_000, ..LIMITS }).await;
    let client = littoral::Client::builder().authorities(node.pem());
    let client = client.build(&format!("https://localhost:{}", node.address.port()), TOKEN).unwrap();
    let namespace = client.account(ACCOUNT).create_namespace("t").await.unwrap().id;
    let kv = client.account(ACCOUNT).namespace(&namespace);
    kv.put("large", super::noise(1 << 20), Default::default()).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE: 1,000 bytes.
    let mut raw = Raw::connect(&node, &[0, 4, 0, 0, 3, 232]).await;
    let path = format!("{}/{namespace}/values/large", namespaces_path(ACCOUNT));
    raw.get(1, &path).await;
    assert_eq!(raw.frame_of(DATA).await.payload.len(), 1_000);
    raw.check_serves(3).await;
    let reset = raw.frame_of(RST_STREAM).await;
    assert_eq!((reset.stream, reset.code()), (1, CANCEL));
    raw.check_serves(5).await;
}
