//! Chunks of large values, asked for by name: one bidirectional stream per request.
//!
//! | | bytes |
//! |---|---|
//! | request | the kind of stream(1), then id(32) urgency(1) offset(4, big endian) |
//! | answer | status(1), then one frame: the whole chunk, or what comes after the offset |
//!
//! What has come stays when a link is cut or falls silent, and the next request goes on after it, whoever is asked then.
//! The rule upheld here: bytes that do not hash to the name asked for go no further. Where they came in parts they are
//! asked for once more from the first byte, since it is not known whose part was wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use metrics::Counter;
use quinn::{RecvStream, SendStream};
use replication::entry::CHUNK_BYTES;
use replication::{ChunkId, Lane};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::call::StreamKind;
use super::links::{Candidate, Links};
use super::refusal::Refusal;
use super::turn::{Gate, Place};
use super::{ChunkSource, frame, link};

/// How long a peer may send nothing before the next is asked. How long a whole chunk takes is up to the budget.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// The most chunks of which parts are kept while nobody gives the rest.
const MAX_PARTS: usize = 32;

/// Length of a request.
const REQUEST_BYTES: usize = 32 + 1 + 4;
/// Builds that knew neither urgency nor offset ask with the id alone, for the whole chunk.
const OLD_REQUEST_BYTES: usize = 32;

/// The answer holds the whole chunk.
const FOUND: u8 = 0;
/// The answer is empty: the chunk is not here.
const NOT_HERE: u8 = 1;
/// The answer is empty: the chunk could not be read.
const FAILED: u8 = 2;
/// The answer holds what comes after the offset.
const REST: u8 = 3;

/// Who waits for a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody yet: it is to be here when somebody does.
    #[default]
    Background,
    /// A reader. It goes ahead of others of its lane.
    Reader,
}

/// What a peer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    id: ChunkId,
    urgency: Urgency,
    /// How many bytes of the chunk have come already; at most [`CHUNK_BYTES`].
    offset: u32,
}

impl Request {
    pub(crate) fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32] = self.urgency as u8;
        bytes[33..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// `None` for anything but a request.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<32>()?;
        let (id, background) = (ChunkId(*id), Urgency::Background);
        if bytes.len() == OLD_REQUEST_BYTES {
            return Some(Self { id, urgency: background, offset: 0 });
        }
        let (urgency, offset) = rest.split_first()?;
        let urgency = [background, Urgency::Reader].into_iter().find(|known| *known as u8 == *urgency)?;
        let offset = u32::from_be_bytes(offset.try_into().ok()?);
        (offset as usize <= CHUNK_BYTES).then_some(Self { id, urgency, offset })
    }
}

/// Why no peer gave the chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nobody to ask.
    #[error("chunk {id} is not here and no peer is connected; try again once one is")]
    NoPeer {
        /// The chunk.
        id: ChunkId,
    },
    /// None of the peers has it.
    #[error("none of the {asked} connected peers has chunk {id}; try again when its writer is connected")]
    NotFound {
        /// The chunk.
        id: ChunkId,
        /// How many were asked.
        asked: usize,
    },
    /// Some peer failed to answer, and the others do not have it.
    #[error("cannot fetch chunk {id} from {pop}: {problem}; try again")]
    Failed {
        /// The chunk.
        id: ChunkId,
        /// The last peer that failed.
        pop: String,
        /// How.
        problem: &'static str,
    },
}

/// Parts of chunks whose rest did not come, the oldest first; at most [`MAX_PARTS`].
#[derive(Default)]
pub(super) struct Parts(Mutex<VecDeque<(ChunkId, BytesMut)>>);

impl Parts {
    fn take(&self, id: ChunkId) -> BytesMut {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = parts.iter().position(|(known, _)| *known == id);
        at.and_then(|at| parts.remove(at)).map(|(_, part)| part).unwrap_or_default()
    }

    pub(super) fn keep(&self, id: ChunkId, part: BytesMut) {
        if part.is_empty() {
            return;
        }
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|(known, _)| *known != id);
        if parts.len() == MAX_PARTS {
            parts.pop_front();
        }
        parts.push_back((id, part));
    }
}

/// How an answer ended that did not break off.
enum Answer {
    /// All it had to give has come.
    Complete,
    NotHere,
    /// It has become more urgent: ask again.
    Raised,
}

/// Asks the connected peers in turn, the nearest first.
pub(super) async fn fetch(
    links: &Links,
    parts: &Parts,
    id: ChunkId,
    mut urgency: watch::Receiver<Urgency>,
) -> Result<Bytes, FetchError> {
    let peers = links.nearest_first();
    let mut outcome = match peers.len() {
        0 => FetchError::NoPeer { id },
        asked => FetchError::NotFound { id, asked },
    };
    let mut part = parts.take(id);
    for peer in peers {
        match fetch_from(&peer, id, &mut part, &mut urgency).await {
            Ok(true) => return Ok(part.freeze()),
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(peer = peer.pop, chunk = %id, have = part.len(), "cannot fetch a chunk: {problem}");
                outcome = FetchError::Failed { id, pop: peer.pop, problem };
            }
        }
    }
    parts.keep(id, part);
    Err(outcome)
}

/// Asks one peer for what is lacking. Gives whether the chunk is whole, and right.
async fn fetch_from(
    peer: &Candidate,
    id: ChunkId,
    part: &mut BytesMut,
    urgency: &mut watch::Receiver<Urgency>,
) -> Result<bool, &'static str> {
    loop {
        let had = part.len();
        match ask(peer, id, part, urgency).await? {
            Answer::NotHere => return Ok(false),
            Answer::Raised => {}
            Answer::Complete if ChunkId::of(part) == id => return Ok(true),
            Answer::Complete => {
                part.clear();
                if had == 0 {
                    return Err("it sent bytes that are not the chunk's");
                }
                tracing::warn!(peer = peer.pop, chunk = %id, "the parts of a chunk do not fit: it is fetched anew");
            }
        }
    }
}

async fn ask(
    peer: &Candidate,
    id: ChunkId,
    part: &mut BytesMut,
    urgency: &mut watch::Receiver<Urgency>,
) -> Result<Answer, &'static str> {
    let offset = u32::try_from(part.len()).expect("a part is at most a chunk");
    let request = Request { id, urgency: *urgency.borrow_and_update(), offset };
    let (_seat, mut recv) = in_time(send_request(peer, &request)).await?;
    let raised = async {
        if urgency.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let received = link::received_bytes(&peer.pop, Lane::Bulk);
    tokio::select! {
        biased;
        answer = receive(&mut recv, part, &received) => answer,
        () = raised => Ok(Answer::Raised),
    }
}

const GONE: &str = "the link went down";

async fn send_request(
    peer: &Candidate,
    request: &Request,
) -> Result<(OwnedSemaphorePermit, RecvStream), &'static str> {
    let seat = peer.chunks_out.clone().acquire_owned().await.map_err(|_| GONE)?;
    let (mut send, recv) = peer.connection.open_bi().await.map_err(|_| GONE)?;
    send.write_all(StreamKind::Chunk.number()).await.map_err(|_| GONE)?;
    send.write_all(&request.encode()).await.map_err(|_| GONE)?;
    send.finish().map_err(|_| GONE)?;
    Ok((seat, recv))
}

/// Adds what the answer holds to the part, as it comes.
async fn receive(
    recv: &mut RecvStream,
    part: &mut BytesMut,
    received: &Counter,
) -> Result<Answer, &'static str> {
    let mut head = [0; 5];
    in_time(async { recv.read_exact(&mut head).await.map_err(|_| GONE) }).await?;
    let [status, len @ ..] = head;
    match status {
        FOUND => part.clear(),
        REST => {}
        NOT_HERE => return Ok(Answer::NotHere),
        _ => return Err("it could not read the chunk"),
    }
    let mut left = u32::from_be_bytes(len) as usize;
    if left > CHUNK_BYTES - part.len() {
        return Err("it sent more than a chunk may hold");
    }
    part.reserve(left);
    while left > 0 {
        let come = in_time(async { recv.read_chunk(left, true).await.map_err(|_| GONE) }).await?;
        let bytes = come.ok_or(GONE)?.bytes;
        part.extend_from_slice(&bytes);
        received.increment(bytes.len() as u64);
        left -= bytes.len();
    }
    Ok(Answer::Complete)
}

async fn in_time<T>(step: impl Future<Output = Result<T, &'static str>>) -> Result<T, &'static str> {
    timeout(PROGRESS_TIMEOUT, step).await.unwrap_or(Err("it has sent nothing for 10 s"))
}

/// Answers one request. How many there are at once is bounded by QUIC's stream limit.
pub(super) async fn serve<C: ChunkSource>(
    mut send: SendStream,
    mut recv: RecvStream,
    chunks: Arc<C>,
    gate: Arc<Gate>,
    sent: Counter,
) -> Result<(), Refusal> {
    use quinn::ReadToEndError::TooLong;
    let request = match recv.read_to_end(REQUEST_BYTES).await {
        Ok(request) => Request::decode(&request),
        Err(TooLong) => None,
        // A peer that went away, or thought better of it.
        Err(_) => return Ok(()),
    };
    let Some(Request { id, urgency, offset }) = request else {
        return Err(Refusal::ProtocolViolation("a request for a chunk that is none"));
    };
    let is_paused = gate.is_paused(Lane::Bulk);
    let found = tokio::task::spawn_blocking(move || if is_paused { Ok(None) } else { chunks.read(&id) });
    let (status, bytes) = match found.await {
        Ok(Ok(Some(bytes))) if bytes.len() <= CHUNK_BYTES && offset == 0 => (FOUND, bytes),
        Ok(Ok(Some(bytes))) if bytes.len() <= CHUNK_BYTES => {
            (REST, bytes.slice(bytes.len().min(offset as usize)..))
        }
        Ok(Ok(None)) => (NOT_HERE, Bytes::new()),
        outcome => {
            tracing::error!(chunk = %id, "cannot read a chunk for a peer: {}", problem(outcome));
            (FAILED, Bytes::new())
        }
    };
    let len = bytes.len() as u64;
    let place = match urgency {
        Urgency::Background => Place::of(Lane::Bulk),
        Urgency::Reader => Place::READER,
    };
    // A peer that went away no longer needs the answer.
    let _ = send.set_priority(place.priority());
    let parts = frame::parts(label(status), bytes).into();
    if gate.write(&mut send, place, parts).await.is_ok() && send.finish().is_ok() {
        sent.increment(len);
    }
    Ok(())
}

/// The byte that an answer begins with.
fn label(status: u8) -> &'static [u8] {
    const STATUSES: [[u8; 1]; 4] = [[FOUND], [NOT_HERE], [FAILED], [REST]];
    &STATUSES[usize::from(status)]
}

fn problem(outcome: Result<std::io::Result<Option<Bytes>>, tokio::task::JoinError>) -> String {
    match outcome {
        Ok(Ok(_)) => format!("it is larger than {CHUNK_BYTES} bytes"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_and_anything_else_is_refused() {
        let id = ChunkId([7; 32]);
        for (urgency, offset) in [
            (Urgency::Background, 0),
            (Urgency::Reader, 1),
            (Urgency::Background, CHUNK_BYTES as u32 - 1),
            (Urgency::Reader, CHUNK_BYTES as u32),
        ] {
            let request = Request { id, urgency, offset };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let whole = Request { id, urgency: Urgency::Background, offset: 0 };
        assert_eq!(Request::decode(&id.0), Some(whole), "as older builds ask");
        let bytes = whole.encode();
        for len in (0..bytes.len()).filter(|len| *len != OLD_REQUEST_BYTES) {
            assert_eq!(Request::decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(Request::decode(&[&bytes[..], &[0]].concat()), None);
        let beyond = Request { offset: CHUNK_BYTES as u32 + 1, ..whole };
        assert_eq!(Request::decode(&beyond.encode()), None);
        let mut unknown = bytes;
        unknown[32] = 2;
        assert_eq!(Request::decode(&unknown), None);
    }

    #[test]
    fn of_parts_the_oldest_goes() {
        let parts = Parts::default();
        let id = |number: usize| ChunkId([number as u8; 32]);
        for number in 0..MAX_PARTS + 1 {
            parts.keep(id(number), BytesMut::from(&b"part"[..]));
            parts.keep(id(number), BytesMut::new());
        }
        assert!(parts.take(id(0)).is_empty());
        assert_eq!(parts.take(id(1)), &b"part"[..]);
        assert!(parts.take(id(1)).is_empty(), "whoever took it has it");
        assert_eq!(parts.take(id(MAX_PARTS)), &b"part"[..]);
    }
}
