//! What lies under the links: a socket, the clock and timers that go with it, and what chance is drawn from.
//!
//! The rule upheld here: the transport asks the system for packets, time and randomness only through its
//! [`Wire`]. So the links that ship run in the tests over a network in memory, on virtual time, from a seed.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use quinn::{AsyncUdpSocket, EndpointConfig, Runtime, TokioRuntime};

/// What a transport runs on.
pub struct Wire {
    /// Sends and receives datagrams; bound already.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// QUIC's clock, timers and tasks. Tokio's, which the transport itself uses, must tell the same time.
    pub runtime: Arc<dyn Runtime>,
    /// How QUIC makes connection ids and what else an endpoint draws by chance.
    pub endpoint: EndpointConfig,
    /// Where the transport's own choices come from.
    pub seed: Seed,
}

impl Wire {
    /// The operating system's: what a node runs on.
    pub(super) fn of_system(socket: UdpSocket) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| io::Error::other(format!("the system has no random bytes: {error}")))?;
        Ok(Self {
            socket: TokioRuntime.wrap_udp_socket(socket)?,
            runtime: Arc::new(TokioRuntime),
            endpoint: EndpointConfig::default(),
            seed: Seed(seed),
        })
    }
}

/// What one process draws its choices from: none of them a secret, all of them unlike another process's.
#[derive(Clone)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// The bytes that this seed has for `purpose`.
    pub(super) fn draw<const N: usize>(&self, purpose: &str) -> [u8; N] {
        let mut drawn = [0; N];
        blake3::Hasher::new_keyed(&self.0).update(purpose.as_bytes()).finalize_xof().fill(&mut drawn);
        drawn
    }
}
