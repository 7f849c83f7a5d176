//! From a network address, or a knock at the door, to a peer that has proven who it is.
//!
//! After TLS each side opens a unidirectional stream with one frame, its [`Hello`]. The rule upheld here:
//! whoever is not let in is told why, with a close code of its own.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Connection, ConnectionError, Incoming};
use replication::ReplicaId;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::hello::{Hello, MAX_HELLO_BYTES};
use super::refusal::{Refusal, close_code};
use super::{Local, frame};
use crate::identity::pop_dns_name;

/// How long TLS may take, and again how long the hello may.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection whose peer has proven who it is.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) connection: Connection,
    /// What the peer said, checked.
    pub(super) hello: Hello,
    /// Which of the two replicas dialled.
    pub(super) dialler: ReplicaId,
}

/// Why there is no link.
#[derive(Debug)]
pub(super) enum Failure {
    /// This side turned the peer away.
    Refused(Refusal),
    /// The connection could not be made, or ended.
    Lost(ConnectionError),
    /// The peer was too slow.
    TimedOut,
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Refusal::of_handshake(&error).map_or(Self::Lost(error), Self::Refused)
    }
}

/// Dials `to`, which must prove to be `pop`.
pub(super) async fn dial(local: &Local, pop: &str, to: SocketAddr) -> Result<Greeted, Failure> {
    let connecting =
        local.endpoint.connect_with(local.client.clone(), to, &pop_dns_name(pop)).map_err(|error| {
            tracing::debug!(peer = pop, "cannot dial {to}: {error}");
            Failure::Lost(ConnectionError::LocallyClosed)
        })?;
    let connection = timeout(STEP_TIMEOUT, connecting).await.map_err(|_| Failure::TimedOut)??;
    let hello = greet(&local.hello, &connection).await?;
    Ok(Greeted { connection, hello, dialler: local.hello.replica })
}

/// Lets in whoever knocks, if they prove to be of the cluster.
pub(super) async fn accept(local: &Local, incoming: Incoming) -> Result<Greeted, Failure> {
    let connecting = incoming.accept()?;
    let connection = timeout(STEP_TIMEOUT, connecting).await.map_err(|_| Failure::TimedOut)??;
    let hello = greet(&local.hello, &connection).await?;
    Ok(Greeted { connection, dialler: hello.replica, hello })
}

/// Says hello and hears the peer's, both at once.
async fn greet(ours: &Hello, connection: &Connection) -> Result<Hello, Failure> {
    let both = async { tokio::join!(say(ours, connection), hear(ours, connection)) };
    match timeout(STEP_TIMEOUT, both).await {
        Ok((Ok(()), Ok(theirs))) => Ok(theirs),
        Ok((_, Err(Failure::Refused(refusal)))) => {
            refusal.close(connection);
            Err(Failure::Refused(refusal))
        }
        Ok((Err(error), _) | (_, Err(error))) => Err(error),
        Err(_) => {
            connection.close(close_code::TIMEOUT, b"no hello in time");
            Err(Failure::TimedOut)
        }
    }
}

async fn say(ours: &Hello, connection: &Connection) -> Result<(), Failure> {
    let mut stream = connection.open_uni().await?;
    // The only ways to fail end the connection, which the other half of the greeting sees too.
    if frame::write(&mut stream, &[], ours.encode().into()).await.is_ok() {
        let _ = stream.finish();
    }
    Ok(())
}

async fn hear(ours: &Hello, connection: &Connection) -> Result<Hello, Failure> {
    // Streams are accepted in the order of their ids, so this is the first that the peer opened.
    let mut stream = connection.accept_uni().await?;
    let bytes = match frame::read(&mut stream, MAX_HELLO_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return Err(broken_hello(error, connection)),
    };
    let theirs = Hello::decode(&bytes).map_err(Failure::Refused)?;
    let chain =
        connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = chain.as_ref().and_then(|chain| chain.first());
    let leaf =
        leaf.ok_or(Failure::Refused(Refusal::ProtocolViolation("a connection without a certificate")))?;
    ours.check(&theirs, leaf).map_err(Failure::Refused)?;
    Ok(theirs)
}

fn broken_hello(error: frame::FrameError, connection: &Connection) -> Failure {
    match (error, connection.close_reason()) {
        (frame::FrameError::Ended, Some(lost)) => Failure::Lost(lost),
        (frame::FrameError::Ended, None) => {
            Failure::Refused(Refusal::MalformedHello("its stream ended early"))
        }
        (frame::FrameError::TooLong { .. }, _) => Failure::Refused(Refusal::MalformedHello("it is too long")),
    }
}
