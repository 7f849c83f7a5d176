//! Stub: QUIC links to the peers.

use bytes::Bytes;
use replication::Lane;

/// The engine's end of a link: a bounded queue of frames per lane.
#[derive(Clone)]
pub struct LinkSender {}

impl LinkSender {
    /// Whether the lane can take one more frame now.
    pub fn has_room(&self, lane: Lane) -> bool {
        let _ = lane;
        todo!()
    }

    /// Queues a frame. Call only after [`LinkSender::has_room`]; without room, or with the link gone, the
    /// frame is dropped, which the protocol survives.
    pub fn send(&self, lane: Lane, frame: Bytes) {
        let _ = (lane, frame);
        todo!()
    }

    /// Closes the link; the reason goes to the peer.
    pub fn close(&self, reason: &str) {
        let _ = reason;
        todo!()
    }
}
