//! A socket of quinn's over the network in memory, and the [`Wire`] that a transport of the tests runs on.
//!
//! The rule upheld here: an endpoint draws nothing by chance but from its seed.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use littoral_node::transport::{Seed, Wire};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, EndpointConfig, TokioRuntime, UdpPoller};

use super::network::{Datagram, Network};
use crate::random::Random;

/// As long as quinn's own.
const CONNECTION_ID_BYTES: usize = 8;

/// Plugs `address` into the network and gives all that a transport needs of it.
pub(super) fn wire(network: &Network, address: SocketAddr, seed: u64) -> Wire {
    let mut rng = Random::new(seed);
    let mut seeds = [[0; 32]; 2];
    seeds.iter_mut().for_each(|seed| rng.fill(seed));
    let mut endpoint = EndpointConfig::new(Arc::new(ResetKey(rng.next_u64())));
    endpoint.rng_seed(Some(seeds[0]));
    let ids = Ids(rng);
    endpoint.cid_generator(move || Box::new(ids.clone()));
    let plug = network.plug(address);
    Wire {
        socket: Arc::new(MemorySocket { network: network.clone(), address, plug }),
        runtime: Arc::new(TokioRuntime),
        endpoint,
        seed: Seed(seeds[1]),
    }
}

struct MemorySocket {
    network: Network,
    address: SocketAddr,
    plug: u64,
}

impl AsyncUdpSocket for MemorySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let len = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(len) {
            let bytes = Bytes::copy_from_slice(bytes);
            let datagram = Datagram { from: self.address, ecn: transmit.ecn, bytes };
            self.network.send_from(self.plug, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let room = bufs.len().min(meta.len());
        let taken = ready!(self.network.poll_take(cx, self.address, self.plug, room));
        for ((datagram, buf), meta) in taken.iter().zip(bufs).zip(meta) {
            let len = datagram.bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&datagram.bytes[..len]);
            *meta = RecvMeta { addr: datagram.from, len, stride: len, ecn: datagram.ecn, dst_ip: None };
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    /// So that quinn looks for the path's MTU, as it does on Linux.
    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for MemorySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemorySocket").field(&self.address).finish()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone)]
struct Ids(Random);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.next_u64().to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Signs as well as the tests need: nobody here guesses.
struct ResetKey(u64);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        let seed = data.iter().fold(self.0, |hash, byte| crate::random::mix(hash ^ u64::from(*byte)));
        Random::new(seed).fill(signature);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = vec![0; self.signature_len()];
        self.sign(data, &mut expected);
        if expected == signature { Ok(()) } else { Err(CryptoError) }
    }
}
