//! Chunks of large values, asked for by name: one bidirectional stream per chunk.
//!
//! The request is the chunk's id (32 bytes); the answer is a status byte, then one frame. The rule upheld
//! here: bytes that do not hash to the name asked for go no further.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use quinn::{Connection, RecvStream, SendStream};
use replication::entry::CHUNK_BYTES;
use replication::{ChunkId, Lane};
use tokio::time::timeout;

use super::links::Links;
use super::refusal::Refusal;
use super::turn::Gate;
use super::{ChunkSource, frame, link};

/// How long one peer may take to answer before the next is asked. A chunk takes 4 s at 1 Mbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer holds the chunk.
const FOUND: &[u8] = &[0];
/// The answer is empty: the chunk is not here.
const NOT_HERE: &[u8] = &[1];
/// The answer is empty: the chunk could not be read.
const FAILED: &[u8] = &[2];

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

/// Asks the connected peers in turn, the nearest first.
pub(super) async fn fetch(links: &Links, id: ChunkId) -> Result<Bytes, FetchError> {
    let peers = links.nearest_first();
    let mut outcome = match peers.len() {
        0 => FetchError::NoPeer { id },
        asked => FetchError::NotFound { id, asked },
    };
    for peer in peers {
        let answer = timeout(ANSWER_TIMEOUT, ask(&peer.connection, id)).await;
        match answer.unwrap_or(Err("it did not answer in time")) {
            Ok(Some(bytes)) => {
                link::received_bytes(&peer.pop, Lane::Bulk).increment(bytes.len() as u64);
                return Ok(bytes);
            }
            Ok(None) => {}
            Err(problem) => {
                tracing::warn!(peer = peer.pop, chunk = %id, "cannot fetch a chunk: {problem}");
                outcome = FetchError::Failed { id, pop: peer.pop, problem };
            }
        }
    }
    Err(outcome)
}

async fn ask(connection: &Connection, id: ChunkId) -> Result<Option<Bytes>, &'static str> {
    const GONE: &str = "the link went down";
    let (mut send, mut recv) = connection.open_bi().await.map_err(|_| GONE)?;
    send.write_all(&id.0).await.map_err(|_| GONE)?;
    send.finish().map_err(|_| GONE)?;
    let mut status = [0];
    recv.read_exact(&mut status).await.map_err(|_| GONE)?;
    let bytes = frame::read(&mut recv, CHUNK_BYTES).await.map_err(|error| match error {
        frame::FrameError::TooLong { .. } => "it sent more than a chunk may hold",
        frame::FrameError::Ended => GONE,
    })?;
    match &status[..] {
        FOUND if ChunkId::of(&bytes) == id => Ok(Some(bytes)),
        FOUND => Err("it sent bytes that are not the chunk's"),
        NOT_HERE => Ok(None),
        _ => Err("it could not read the chunk"),
    }
}

/// Answers one request. How many there are at once is bounded by QUIC's stream limit.
pub(super) async fn serve<C: ChunkSource>(
    mut send: SendStream,
    mut recv: RecvStream,
    chunks: Arc<C>,
    gate: Arc<Gate>,
    sent: Counter,
) -> Result<(), Refusal> {
    let mut id = [0; 32];
    if recv.read_exact(&mut id).await.is_err() {
        return Ok(());
    }
    let id = ChunkId(id);
    let is_paused = gate.is_paused(Lane::Bulk);
    let found = tokio::task::spawn_blocking(move || if is_paused { Ok(None) } else { chunks.read(&id) });
    let (status, bytes) = match found.await {
        Ok(Ok(Some(bytes))) if bytes.len() <= CHUNK_BYTES => (FOUND, bytes),
        Ok(Ok(None)) => (NOT_HERE, Bytes::new()),
        outcome => {
            tracing::error!(chunk = %id, "cannot read a chunk for a peer: {}", problem(outcome));
            (FAILED, Bytes::new())
        }
    };
    let len = bytes.len() as u64;
    // A peer that went away no longer needs the answer.
    let _ = send.set_priority(link::priority(Lane::Bulk));
    let parts = frame::parts(status, bytes).into();
    if gate.write(&mut send, Lane::Bulk, parts).await.is_ok() && send.finish().is_ok() {
        sent.increment(len);
    }
    Ok(())
}

fn problem(outcome: Result<std::io::Result<Option<Bytes>>, tokio::task::JoinError>) -> String {
    match outcome {
        Ok(Ok(_)) => format!("it is larger than {CHUNK_BYTES} bytes"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}
