//! One established link: its lanes in both directions, from the first frame to the last.
//!
//! Each lane is one unidirectional stream per direction, opened when the first frame is sent: the lane's
//! number (one byte), then frames, packed ([`super::packing`]). QUIC priorities put a lower lane's bytes behind a higher one's.
//!
//! The rule upheld here: for each link the engine sees `connected`, then frames, then `disconnected`, and
//! nothing after that; every task of a link has ended before the engine hears that the link has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use replication::Lane;
use replication::budget::Rate;
use replication::link::MAX_FRAME_BYTES;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::call::{self, Call, StreamKind};
use super::links::Candidate;
use super::pacer::Pacer;
use super::packing::{Packer, Unpacker, Unreadable};
use super::refusal::{Refusal, RefusalLog, close_code};
use super::turn::{Gate, Place, window_bytes};
use super::{ChunkSource, LinkEvents, chunk_fetch};
use crate::transport::PeerInfo;

/// How many frames of one lane wait to be written.
pub const LANE_QUEUE_FRAMES: usize = 2;
const LANES: usize = Lane::ALL.len();
/// How often a link is fitted to its path.
const FIT_EVERY: Duration = Duration::from_millis(100);

/// The engine's end of a link: a bounded queue of frames per lane.
#[derive(Clone, Debug)]
pub struct LinkSender {
    lanes: Arc<[mpsc::Sender<Bytes>; LANES]>,
    closing: watch::Sender<Option<String>>,
    gate: Arc<Gate>,
}

/// The transport's end of what [`LinkSender`] fills; in tests of the engine, the test's.
#[derive(Debug)]
pub struct LinkQueues {
    /// By the lanes' numbers.
    pub lanes: [mpsc::Receiver<Bytes>; LANES],
    /// Why the engine wants the link closed, once it does.
    pub closing: watch::Receiver<Option<String>>,
}

impl LinkSender {
    /// A sender with the queues it fills.
    pub fn channel() -> (Self, LinkQueues) {
        Self::through(Arc::default())
    }

    fn through(gate: Arc<Gate>) -> (Self, LinkQueues) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..LANES).map(|_| mpsc::channel(LANE_QUEUE_FRAMES)).unzip();
        let (closing, closing_receiver) = watch::channel(None);
        let lanes = Arc::new(senders.try_into().expect("one per lane"));
        let queues =
            LinkQueues { lanes: receivers.try_into().expect("one per lane"), closing: closing_receiver };
        (Self { lanes, closing, gate }, queues)
    }

    /// Whether the lane can take one more frame now. False while it is paused, and once the link is gone.
    pub fn has_room(&self, lane: Lane) -> bool {
        let queue = &self.lanes[lane as usize];
        queue.capacity() > 0 && !queue.is_closed() && !self.gate.is_paused(lane)
    }

    /// About how large a frame is to be: the less a budget lets through, the smaller.
    pub fn frame_bytes(&self) -> usize {
        self.gate.frame_bytes()
    }

    /// The least rate that its bytes pass, where there is any.
    pub fn budget(&self) -> Option<Rate> {
        self.gate.rate()
    }

    /// Queues a frame of at most [`MAX_FRAME_BYTES`]. Call only after [`LinkSender::has_room`]; without
    /// room, or with the link gone, the frame is dropped, which the protocol survives.
    pub fn send(&self, lane: Lane, frame: Bytes) {
        debug_assert!(frame.len() <= MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
        // A refused frame is the documented outcome.
        let _ = self.lanes[lane as usize].try_send(frame);
    }

    /// Closes the link; the peer's log has the reason. The engine still hears `disconnected`.
    pub fn close(&self, reason: &str) {
        self.closing.send_replace(Some(reason.to_owned()));
    }
}

/// Who is behind the links of a node.
pub(super) struct Behind<'a, E, C> {
    pub(super) events: &'a E,
    pub(super) chunks: &'a Arc<C>,
    pub(super) calls: &'a mpsc::Sender<Call>,
}

/// Runs an admitted link to its end, and says how it ended.
pub(super) async fn drive<E: LinkEvents, C: ChunkSource>(
    candidate: &Candidate,
    peer: PeerInfo,
    Behind { events, chunks, calls }: Behind<'_, E, C>,
    refusals: &RefusalLog,
    pacer: &Arc<Pacer>,
) -> ConnectionError {
    let Candidate { connection, gate, packs, .. } = candidate;
    let (sender, LinkQueues { lanes, mut closing }) = LinkSender::through(gate.clone());
    let up = metrics::gauge!("littoral_link_up", "peer" => peer.pop.clone());
    up.set(1.0);
    tracing::info!(peer = peer.pop, replica = ?peer.replica, address = %connection.remote_address(), "linked");
    gate.paced_by(pacer.clone(), peer.replica);
    events.connected(peer.clone(), sender).await;

    let mut tasks = JoinSet::new();
    for (lane, queue) in Lane::ALL.into_iter().zip(lanes) {
        let (gate, packer) = (gate.clone(), Packer::new(*packs));
        tasks.spawn(write_lane(connection.clone(), lane, queue, gate, packer, peer.clone(), events.clone()));
    }
    let lanes_seen = Arc::new(AtomicU8::new(0));
    let mut closed = std::pin::pin!(connection.closed());
    let mut fitting = tokio::time::interval(FIT_EVERY);
    fitting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        // In this order, so that a peer that keeps opening streams holds up neither the end of the link nor
        // that of tasks, and one seed of the simulated network gives one trace.
        tokio::select! {
            biased;
            end = &mut closed => break end,
            Ok(reason) = closing.wait_for(Option::is_some) => {
                connection.close(close_code::ENGINE, reason.as_deref().unwrap_or_default().as_bytes());
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => {
                    refusals.record(&refusal, &peer.pop);
                    refusal.close(connection);
                }
                Err(bug) => {
                    // A link that lacks a lane would stall in silence.
                    tracing::error!(peer = peer.pop, "a task of the link failed: {bug}");
                    connection.close(close_code::FAULT, b"internal error");
                }
            },
            _ = fitting.tick() => fit(connection, gate, pacer.tightest(peer.replica)),
            Ok(stream) = connection.accept_uni() => {
                tasks.spawn(read_lane(stream, lanes_seen.clone(), peer.clone(), events.clone()));
            }
            Ok((send, recv)) = connection.accept_bi() => {
                tasks.spawn(answer(candidate.clone(), send, recv, chunks.clone(), calls.clone()));
            }
        }
    };
    tasks.shutdown().await;
    up.set(0.0);
    tracing::info!(peer = peer.pop, replica = ?peer.replica, "link down: {end}");
    events.disconnected(peer.replica).await;
    end
}

/// Fits what QUIC is given to the link's budget and round trip.
pub(super) fn fit(connection: &Connection, gate: &Gate, rate: Option<Rate>) {
    gate.fit(rate);
    let path = connection.stats().path;
    connection.set_send_window(window_bytes(rate, path.cwnd, path.rtt));
}

async fn write_lane<E: LinkEvents>(
    connection: Connection,
    lane: Lane,
    mut queue: mpsc::Receiver<Bytes>,
    gate: Arc<Gate>,
    mut packer: Packer,
    peer: PeerInfo,
    events: E,
) -> Result<(), Refusal> {
    let sent = sent_bytes(&peer.pop, lane);
    let Some(first) = queue.recv().await else { return Ok(()) };
    // An error below means that the connection is gone, which the link's owner sees for itself.
    let Ok(mut stream) = connection.open_uni().await else { return Ok(()) };
    let _ = stream.set_priority(Place::of(lane).priority());
    let mut next = Some((number_of(lane), first));
    while let Some((number, frame)) = next {
        let len = frame.len() as u64;
        let [head, packed] = packer.pack(frame);
        let parts = [Bytes::from_static(number), head, packed];
        if gate.write(&mut stream, Place::of(lane), parts.into()).await.is_err() {
            return Ok(());
        }
        sent.increment(len);
        events.ready(peer.replica, lane);
        next = queue.recv().await.map(|frame| (&[][..], frame));
    }
    Ok(())
}

/// Answers what a peer asks on a stream of its own.
async fn answer<C: ChunkSource>(
    peer: Candidate,
    send: SendStream,
    mut recv: RecvStream,
    chunks: Arc<C>,
    calls: mpsc::Sender<Call>,
) -> Result<(), Refusal> {
    let mut number = [0];
    if recv.read_exact(&mut number).await.is_err() {
        return Ok(());
    }
    match StreamKind::from_number(number[0]) {
        Some(StreamKind::Chunk) => {
            let sent = sent_bytes(&peer.pop, Lane::Bulk);
            chunk_fetch::serve(send, recv, chunks, peer.gate, sent).await
        }
        Some(StreamKind::Call) => {
            call::serve(peer, send, recv, calls).await;
            Ok(())
        }
        None => Err(Refusal::ProtocolViolation("a stream of no known kind")),
    }
}

async fn read_lane<E: LinkEvents>(
    mut stream: RecvStream,
    lanes_seen: Arc<AtomicU8>,
    peer: PeerInfo,
    events: E,
) -> Result<(), Refusal> {
    let mut number = [0];
    if stream.read_exact(&mut number).await.is_err() {
        return Ok(());
    }
    let lane = Lane::from_number(number[0]).ok_or(Refusal::ProtocolViolation("a stream of no known lane"))?;
    let bit = 1 << lane as u8;
    if lanes_seen.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        // Two streams of one lane would have no order between them.
        return Err(Refusal::ProtocolViolation("a second stream of one lane"));
    }
    let received = received_bytes(&peer.pop, lane);
    let mut unpacker = Unpacker::new();
    loop {
        match unpacker.read(&mut stream, MAX_FRAME_BYTES).await {
            Ok(frame) => {
                received.increment(frame.len() as u64);
                events.frame(peer.replica, lane, frame).await;
            }
            Err(Unreadable::TooLong { len }) => return Err(Refusal::FrameTooLong { lane, len }),
            Err(Unreadable::Malformed) => {
                return Err(Refusal::ProtocolViolation("a frame that cannot be unpacked"));
            }
            Err(Unreadable::Ended) => return Ok(()),
        }
    }
}

/// What a lane's stream begins with.
fn number_of(lane: Lane) -> &'static [u8] {
    const NUMBERS: [[u8; 1]; LANES] = [[0], [1], [2], [3], [4]];
    &NUMBERS[lane as usize]
}

pub(super) fn sent_bytes(peer: &str, lane: Lane) -> Counter {
    metrics::counter!("littoral_link_sent_bytes", "peer" => peer.to_owned(), "lane" => label(lane))
}

pub(super) fn received_bytes(peer: &str, lane: Lane) -> Counter {
    metrics::counter!("littoral_link_received_bytes", "peer" => peer.to_owned(), "lane" => label(lane))
}

fn label(lane: Lane) -> &'static str {
    match lane {
        Lane::Control => "control",
        Lane::Delta => "delta",
        Lane::CatchUp => "catch_up",
        Lane::AntiEntropy => "anti_entropy",
        Lane::Bulk => "bulk",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_takes_two_frames_and_no_more() {
        let (sender, mut queues) = LinkSender::channel();
        for taken in 0..LANE_QUEUE_FRAMES {
            assert!(sender.has_room(Lane::Delta), "after {taken}");
            sender.send(Lane::Delta, Bytes::from_static(b"x"));
        }
        assert!(!sender.has_room(Lane::Delta));
        assert!(sender.has_room(Lane::Control), "lanes are independent");
        sender.send(Lane::Delta, Bytes::from_static(b"dropped"));
        queues.lanes[Lane::Delta as usize].try_recv().unwrap();
        assert!(sender.has_room(Lane::Delta));
        drop(queues);
        assert!(!sender.has_room(Lane::Delta), "the link is gone");
        sender.send(Lane::Delta, Bytes::from_static(b"dropped too"));
    }

    #[test]
    fn numbers_follow_the_lanes() {
        for lane in Lane::ALL {
            assert_eq!(number_of(lane), [lane as u8]);
        }
    }
}
