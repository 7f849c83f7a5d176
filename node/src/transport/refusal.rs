//! Why a link is refused or closed: the codes both sides see, and the one place that counts and logs them.
//!
//! The rule upheld here: no peer is turned away in silence, and no peer can flood the log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use quinn::{Connection, ConnectionError, VarInt};
use replication::Lane;
use replication::link::{MAX_FRAME_BYTES, PROTOCOL_VERSION};
use tokio::sync::watch;
use tokio::time::Instant;

use super::handshake::Failure;
use crate::identity::ClusterId;

/// A reason is logged for one peer at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How many (reason, peer) pairs the log remembers; beyond them it starts anew.
const MAX_REMEMBERED: usize = 1_024;

/// From here on, a close code tells of a refusal.
const FIRST_REFUSAL_CODE: u64 = 10;

/// Closes that refuse nothing.
pub(super) mod close_code {
    use quinn::VarInt;

    /// The node is stopping.
    pub(crate) const SHUTDOWN: VarInt = VarInt::from_u32(0);
    /// There is another link between the two, which stays.
    pub(crate) const DUPLICATE: VarInt = VarInt::from_u32(1);
    /// The engine wants this link gone.
    pub(crate) const ENGINE: VarInt = VarInt::from_u32(2);
    /// The other side did not say hello in time.
    pub(crate) const TIMEOUT: VarInt = VarInt::from_u32(3);
    /// A bug on the side that closes.
    pub(crate) const FAULT: VarInt = VarInt::from_u32(4);
}

/// The classes of refusal, as the label `reason` of `littoral_link_refused_total` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The first frame was no hello.
    MalformedHello,
    /// The peer speaks another version of the protocol.
    UnknownVersion,
    /// The peer belongs to another cluster.
    OtherCluster,
    /// The peer has our own replica id.
    OwnReplica,
    /// The peer's certificate is not for the PoP it says it is.
    WrongName,
    /// A frame was longer than the limit.
    FrameTooLong,
    /// Something else the protocol forbids.
    ProtocolViolation,
    /// The peer's certificate is of another authority.
    WrongCa,
    /// The peer's certificate is past its end.
    CertificateExpired,
    /// The peer showed no certificate.
    NoCertificate,
    /// The certificate cannot be used, or is not for the PoP that was dialled.
    BadCertificate,
    /// The TLS handshake failed in another way.
    Tls,
}

impl Reason {
    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::MalformedHello => "malformed_hello",
            Self::UnknownVersion => "unknown_version",
            Self::OtherCluster => "other_cluster",
            Self::OwnReplica => "own_replica",
            Self::WrongName => "wrong_name",
            Self::FrameTooLong => "frame_too_long",
            Self::ProtocolViolation => "protocol_violation",
            Self::WrongCa => "wrong_ca",
            Self::CertificateExpired => "certificate_expired",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Tls => "tls",
        }
    }
}

/// One refusal, with what a person needs to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("malformed hello: {0}")]
    MalformedHello(&'static str),
    #[error(
        "unknown protocol version {theirs}; this node speaks {PROTOCOL_VERSION}: upgrade the older of the two"
    )]
    UnknownVersion { theirs: u8 },
    #[error("the peer belongs to another cluster, {theirs}: see the peer list and the identity folders")]
    OtherCluster { theirs: ClusterId },
    #[error("{pop} has this node's own replica id: a data folder was copied, or a node dials itself")]
    OwnReplica { pop: String },
    #[error("the peer says it is {pop}, and its certificate does not")]
    NameNotInCertificate { pop: String },
    #[error("a frame of {len} bytes on lane {lane:?}; the limit is {MAX_FRAME_BYTES}")]
    FrameTooLong { lane: Lane, len: u64 },
    #[error("protocol violation: {0}")]
    ProtocolViolation(&'static str),
    #[error("TLS: {text}")]
    Tls { reason: Reason, text: String },
}

impl Refusal {
    /// The class.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::MalformedHello(_) => Reason::MalformedHello,
            Self::UnknownVersion { .. } => Reason::UnknownVersion,
            Self::OtherCluster { .. } => Reason::OtherCluster,
            Self::OwnReplica { .. } => Reason::OwnReplica,
            Self::NameNotInCertificate { .. } => Reason::WrongName,
            Self::FrameTooLong { .. } => Reason::FrameTooLong,
            Self::ProtocolViolation(_) => Reason::ProtocolViolation,
            Self::Tls { reason, .. } => *reason,
        }
    }

    /// The refusal in a failed TLS handshake, where it was this side that refused.
    pub(super) fn of_handshake(error: &ConnectionError) -> Option<Self> {
        let ConnectionError::TransportError(error) = error else { return None };
        let alert = u64::from(error.code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())?;
        // The numbers are those of RFC 8446, section 6.
        let reason = match alert {
            42 => Reason::BadCertificate,
            45 => Reason::CertificateExpired,
            48 => Reason::WrongCa,
            116 => Reason::NoCertificate,
            120 => Reason::UnknownVersion,
            _ => Reason::Tls,
        };
        Some(Self::Tls { reason, text: error.reason.clone() })
    }

    /// Tells the peer.
    pub(super) fn close(&self, connection: &Connection) {
        let code = match self.reason() {
            Reason::MalformedHello => 10,
            Reason::UnknownVersion => 11,
            Reason::OtherCluster => 12,
            Reason::OwnReplica => 13,
            Reason::WrongName => 14,
            Reason::FrameTooLong => 15,
            Reason::ProtocolViolation => 16,
            // TLS has told it already.
            Reason::WrongCa
            | Reason::CertificateExpired
            | Reason::NoCertificate
            | Reason::BadCertificate
            | Reason::Tls => return,
        };
        connection.close(VarInt::from_u32(code), self.to_string().as_bytes());
    }
}

/// Counts and logs refusals.
pub(super) struct RefusalLog {
    counts: watch::Sender<BTreeMap<Reason, u64>>,
    logged: Mutex<BTreeMap<(&'static str, String), Instant>>,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self { counts: watch::Sender::default(), logged: Mutex::default() }
    }

    /// How many were refused since the start, by reason.
    pub(super) fn counts(&self) -> watch::Receiver<BTreeMap<Reason, u64>> {
        self.counts.subscribe()
    }

    /// Takes note of a refusal. `peer` is its PoP, where known, or its IP address.
    pub(super) fn record(&self, refusal: &Refusal, peer: &str) {
        let reason = refusal.reason();
        metrics::counter!("littoral_link_refused_total", "reason" => reason.label()).increment(1);
        if self.is_due(reason.label(), peer, Instant::now()) {
            tracing::warn!(peer, reason = reason.label(), "refused a link: {refusal}");
        }
        self.counts.send_modify(|counts| *counts.entry(reason).or_default() += 1);
    }

    /// Counts and logs what came of an attempt at a link.
    pub(super) fn explain(&self, failure: &Failure, peer: &str) {
        match failure {
            Failure::Refused(refusal) => self.record(refusal, peer),
            Failure::Lost(error) => self.explain_end(error, peer),
            Failure::TimedOut => tracing::debug!(peer, "no handshake in time"),
        }
    }

    /// Logs how a connection ended. A refusal by the peer is the peer's to count, and a person's to read.
    pub(super) fn explain_end(&self, error: &ConnectionError, peer: &str) {
        if !refused_by_peer(error) {
            tracing::debug!(peer, "no link any more: {error}");
        } else if self.is_due("refused_by_peer", peer, Instant::now()) {
            tracing::warn!(peer, "the peer refused a link: {error}");
        }
    }

    fn is_due(&self, reason: &'static str, peer: &str, now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (reason, peer.to_owned());
        if logged.get(&key).is_some_and(|at| now.duration_since(*at) < LOG_INTERVAL) {
            return false;
        }
        if logged.len() >= MAX_REMEMBERED {
            logged.clear();
        }
        logged.insert(key, now);
        true
    }
}

/// Whether the peer turned us away, by its TLS or by one of our own codes.
pub(super) fn refused_by_peer(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner() >= FIRST_REFUSAL_CODE,
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) >= 0x100,
        _ => false,
    }
}

/// Whether the peer keeps another link with us.
pub(super) fn is_duplicate(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == close_code::DUPLICATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_logged_once_a_minute_for_a_peer() {
        let log = RefusalLog::new();
        let start = Instant::now();
        assert!(log.is_due("wrong_ca", "fra", start));
        assert!(!log.is_due("wrong_ca", "fra", start + LOG_INTERVAL / 2));
        assert!(log.is_due("wrong_ca", "ams", start));
        assert!(log.is_due("own_replica", "fra", start));
        assert!(log.is_due("wrong_ca", "fra", start + LOG_INTERVAL));
    }

    #[test]
    fn the_memory_of_the_log_is_bounded() {
        let log = RefusalLog::new();
        let now = Instant::now();
        for peer in 0..3 * MAX_REMEMBERED {
            log.is_due("tls", &peer.to_string(), now);
        }
        assert!(log.logged.lock().unwrap().len() <= MAX_REMEMBERED);
    }
}
