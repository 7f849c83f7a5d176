//! Calls: what a node has another do for a client of its own, as bytes both ways on a bidirectional stream.
//!
//! What the bytes mean is up to the two ends: see [`crate::http`]. The rule upheld here: calls are bounded, and take their
//! turns like all else on the link, so that none keeps chunks or lanes from their room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use metrics::Counter;
use quinn::{RecvStream, SendStream};
use replication::Lane;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::link::{received_bytes, sent_bytes};
use super::links::{Candidate, Links};
use super::turn::{Gate, Place};

/// The most calls at once over one link, in each direction.
pub(super) const MAX_CALLS: u32 = 8;
/// Calls that have come in and wait for somebody to take them.
pub(super) const MAX_WAITING: usize = 64;
/// Among writes that are pushed: a client waits for the answer.
const LANE: Lane = Lane::Delta;
/// The most bytes that are between a stream and whoever talks over it, and the most in one piece.
const PIPE_BYTES: usize = 64 << 10;
/// How long a call waits for others to end, or for QUIC.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A call that has come in.
#[derive(Debug)]
pub struct Call {
    /// The PoP that calls; its certificate has proven it.
    pub pop: String,
    /// What it says, and what it is answered.
    pub stream: DuplexStream,
}

/// Why a PoP could not be called. Nothing has reached it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no link, or none that may be used now.
    #[error("this PoP has no link to {pop}")]
    NoLink {
        /// The PoP.
        pop: String,
    },
    /// An operator has paused the link.
    #[error("the link to {pop} is paused")]
    Paused {
        /// The PoP.
        pop: String,
    },
    /// As many calls are under way as may be.
    #[error("{MAX_CALLS} calls to {pop} are under way, the most that may, and none has ended for {} s", OPEN_TIMEOUT.as_secs())]
    Busy {
        /// The PoP.
        pop: String,
    },
}

/// Calls a PoP. What is written to the stream goes there once there is any.
pub(super) async fn open(links: &Links, pop: &str) -> Result<DuplexStream, CallError> {
    let no_link = || CallError::NoLink { pop: pop.to_owned() };
    let peer = links.to_pop(pop).ok_or_else(no_link)?;
    if peer.gate.is_paused(LANE) {
        return Err(CallError::Paused { pop: pop.to_owned() });
    }
    let opening = async {
        let seat = peer.calls_out.clone().acquire_owned().await.map_err(|_| no_link())?;
        let (send, recv) = peer.connection.open_bi().await.map_err(|_| no_link())?;
        Ok((seat, send, recv))
    };
    let opened = timeout(OPEN_TIMEOUT, opening).await;
    let (seat, send, recv) = opened.unwrap_or_else(|_| Err(CallError::Busy { pop: pop.to_owned() }))?;
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(Carrier::new(&peer, seat).carry(StreamKind::Call.number(), send, recv, theirs));
    Ok(ours)
}

/// Has a call that came in answered by whoever takes calls here; refused where there are too many.
pub(super) async fn serve(
    peer: Candidate,
    mut send: SendStream,
    mut recv: RecvStream,
    takers: mpsc::Sender<Call>,
) {
    let seat = peer.calls_in.clone().try_acquire_owned();
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    match seat {
        Ok(seat) if takers.try_send(Call { pop: peer.pop.clone(), stream: theirs }).is_ok() => {
            Carrier::new(&peer, seat).carry(&[], send, recv, ours).await;
        }
        _ => {
            // A stream that is closed already needs no refusal.
            let _ = send.reset(0_u32.into());
            let _ = recv.stop(0_u32.into());
        }
    }
}

/// What a bidirectional stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// A request for a chunk.
    Chunk = 0,
    /// A call.
    Call = 1,
}

impl StreamKind {
    pub(super) fn number(self) -> &'static [u8] {
        const NUMBERS: [[u8; 1]; 2] = [[0], [1]];
        &NUMBERS[self as usize]
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Chunk, Self::Call].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Carries the bytes of one call between a pipe and the link.
struct Carrier {
    gate: Arc<Gate>,
    sent: Counter,
    received: Counter,
    _seat: OwnedSemaphorePermit,
}

impl Carrier {
    fn new(peer: &Candidate, seat: OwnedSemaphorePermit) -> Self {
        Self {
            gate: peer.gate.clone(),
            sent: sent_bytes(&peer.pop, LANE),
            received: received_bytes(&peer.pop, LANE),
            _seat: seat,
        }
    }

    /// Until both directions have ended, or nobody is there to talk to.
    async fn carry(
        self,
        head: &'static [u8],
        mut send: SendStream,
        mut recv: RecvStream,
        pipe: DuplexStream,
    ) {
        // It fails only where the stream is gone, which the first write finds.
        let _ = send.set_priority(Place::of(LANE).priority());
        let (mut from_pipe, mut to_pipe) = tokio::io::split(pipe);
        let outwards = async {
            let mut parts: VecDeque<_> = [Bytes::from_static(head)].into_iter().collect();
            loop {
                let mut piece = BytesMut::with_capacity(PIPE_BYTES);
                let Ok(1..) = from_pipe.read_buf(&mut piece).await else { break };
                let len = piece.len() as u64;
                parts.push_back(piece.freeze());
                if self.gate.write(&mut send, Place::of(LANE), std::mem::take(&mut parts)).await.is_err() {
                    return;
                }
                self.sent.increment(len);
            }
            // The stream may be gone, with its link.
            let _ = send.finish();
        };
        let inwards = async {
            while let Ok(Some(piece)) = recv.read_chunk(PIPE_BYTES, true).await {
                self.received.increment(piece.bytes.len() as u64);
                if to_pipe.write_all(&piece.bytes).await.is_err() {
                    let _ = recv.stop(0_u32.into());
                    return;
                }
            }
            // Whoever reads may be gone.
            let _ = to_pipe.shutdown().await;
        };
        tokio::join!(outwards, inwards);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_streams_are_numbered() {
        for kind in [StreamKind::Chunk, StreamKind::Call] {
            assert_eq!(StreamKind::from_number(kind.number()[0]), Some(kind));
        }
        assert_eq!(StreamKind::from_number(2), None);
    }
}
