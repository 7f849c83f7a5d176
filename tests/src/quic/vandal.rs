//! Those who mean no good: frames that are none over a link of good standing, and datagrams of noise.

use std::net::SocketAddr;

use bytes::Bytes;
use littoral_node::transport::{LinkEvents, LinkSender, PeerInfo};
use replication::{Lane, ReplicaId};

use super::network::Network;
use crate::random::Random;

/// The largest frame of noise.
const MAX_NOISE_BYTES: u64 = 4_096;
/// The largest datagram of noise.
const MAX_DATAGRAM_BYTES: u64 = 1_472;

/// Who a vandal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The holder of a certificate of the cluster.
    Member,
    /// One who has the address of a node that is down, and a certificate of another cluster in its name.
    Impostor {
        /// The node.
        node: usize,
    },
}

/// Stands where the engine of an admitted node does, and sends one frame of noise on each link.
#[derive(Clone)]
pub struct Vandal {
    /// Where the noise comes from.
    pub seed: u64,
}

impl LinkEvents for Vandal {
    async fn connected(&self, peer: PeerInfo, link: LinkSender) {
        let mut rng = Random::new(self.seed ^ u64::from(peer.replica.0[0]));
        let mut noise = vec![0; rng.below(MAX_NOISE_BYTES) as usize];
        rng.fill(&mut noise);
        link.send(*rng.pick(&Lane::ALL), Bytes::from(noise));
    }

    async fn disconnected(&self, _: ReplicaId) {}

    async fn frame(&self, _: ReplicaId, _: Lane, _: Bytes) {}

    fn ready(&self, _: ReplicaId, _: Lane) {}
}

/// Sends a datagram of noise from an address, which may be somebody else's.
pub fn send_noise(network: &Network, rng: &mut Random, from: SocketAddr, to: SocketAddr) {
    let mut noise = vec![0; 1 + rng.below(MAX_DATAGRAM_BYTES) as usize];
    rng.fill(&mut noise);
    // The forms of a QUIC header, long and short, so that the noise gets past the first glance.
    noise[0] = *rng.pick(&[noise[0], 0xc0, 0xe0, 0x40]);
    if noise.len() > 5 && rng.permille(500) {
        noise[1..5].copy_from_slice(&1_u32.to_be_bytes());
    }
    network.inject(from, to, Bytes::from(noise));
}
