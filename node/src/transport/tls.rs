//! QUIC and TLS settings: mutual TLS 1.3 with the cluster's authority as the only root, and the limits of
//! one connection.
//!
//! The rule upheld here: the crypto provider is always named (ring), never the process's default, and no
//! handshake is shortened: without resumption, each link proves its certificate anew.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};
use replication::Lane;
use replication::entry::CHUNK_BYTES;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::TransportError;
use super::call::MAX_CALLS;
use super::congestion::Tolerant;
use crate::identity::Identity;

/// The protocol's name in the TLS handshake.
pub(super) const ALPN: &[u8] = b"littoral/1";
/// A link that is silent for this long is dead.
const IDLE_TIMEOUT_MS: u32 = 5_000;
/// How many packets a peer may leave unacknowledged, for as long as the 25 ms of RFC 9000: an acknowledgement costs some
/// 70 bytes on the wire, and pays for half a small write. (By the extension of draft-ietf-quic-ack-frequency-04, which
/// has gaps acknowledged at once.)
const ACKNOWLEDGED_AFTER: u32 = 9;
/// An idle link says this often that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How far a sender may run ahead of the reader on one stream: 28 MB/s at a round trip of 150 ms.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// How many chunks a peer may be asking for at once.
pub(super) const MAX_CHUNK_REQUESTS: u32 = 16;
/// One stream for the hello, and one for each lane.
const MAX_UNI_STREAMS: u32 = 1 + Lane::ALL.len() as u32;
/// The most that is buffered for a link, in each direction. It has room for every stream's window, so that
/// a low lane that fills its own never keeps a higher one from writing.
pub(super) const LINK_WINDOW_BYTES: u32 =
    (Lane::ALL.len() as u32 + MAX_CALLS) * STREAM_WINDOW_BYTES + MAX_CHUNK_REQUESTS * CHUNK_BYTES as u32;

/// The two halves of a node's TLS.
pub(super) struct Tls {
    pub(super) server: quinn::ServerConfig,
    pub(super) client: quinn::ClientConfig,
}

impl Tls {
    pub(super) fn new(identity: &Identity) -> Result<Self, TransportError> {
        let unusable =
            |problem: &dyn std::fmt::Display| TransportError::Identity { problem: problem.to_string() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(identity.authority.clone()).map_err(|e| unusable(&e))?;
        let roots = Arc::new(roots);
        warn_when_invalid(identity, &roots, &provider);
        let key = || PrivateKeyDer::Pkcs8(identity.key.clone_key());
        let only_tls13 = &[&rustls::version::TLS13];

        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| unusable(&e))?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(only_tls13)
            .map_err(|e| unusable(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain.clone(), key())
            .map_err(|e| unusable(&e))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;

        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(only_tls13)
            .map_err(|e| unusable(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain.clone(), key())
            .map_err(|e| unusable(&e))?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();

        let server = QuicServerConfig::try_from(server).map_err(|e| unusable(&e))?;
        let client = QuicClientConfig::try_from(client).map_err(|e| unusable(&e))?;
        let mut tls = Self {
            server: quinn::ServerConfig::with_crypto(Arc::new(server)),
            client: quinn::ClientConfig::new(Arc::new(client)),
        };
        let limits = Arc::new(link_limits());
        tls.server.transport_config(limits.clone());
        // A link's budget goes by the address at its other end; one that changes dials anew.
        tls.server.migration(false);
        tls.client.transport_config(limits);
        Ok(tls)
    }
}

/// An expired certificate does not stop a node from serving its PoP, but a person must act.
fn warn_when_invalid(identity: &Identity, roots: &RootCertStore, provider: &CryptoProvider) {
    let Some((leaf, intermediates)) = identity.chain.split_first() else { return };
    let valid = webpki::EndEntityCert::try_from(leaf).and_then(|leaf| {
        leaf.verify_for_usage(
            provider.signature_verification_algorithms.all,
            &roots.roots,
            intermediates,
            UnixTime::now(),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .map(|_| ())
    });
    if let Err(problem) = valid {
        tracing::error!(
            pop = identity.pop,
            "peers will refuse this node's certificate ({problem}); make a fresh join token, run `littoral node init` into a new folder and restart with it"
        );
    }
}

/// GSO, path MTU discovery and the initial round trip are left at quinn's defaults on purpose.
fn link_limits() -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGED_AFTER));
    let mut limits = TransportConfig::default();
    limits
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(LINK_WINDOW_BYTES))
        .send_window(u64::from(LINK_WINDOW_BYTES))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNI_STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_CHUNK_REQUESTS + MAX_CALLS))
        .congestion_controller_factory(Arc::new(Tolerant::default()))
        .ack_frequency_config(Some(acknowledgements))
        .datagram_receive_buffer_size(None);
    limits
}
