//! The engine's queue: bounded, and taken whole, so that all who wait share one flush.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use littoral::api::Status;
use replication::{Dot, Now, Replica, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::members::Act;
use super::{Ack, ReadError, StorageQuota, Write, WriteError};
use crate::storage::SledStore;
use crate::transport::{LinkSender, PeerInfo};

/// The most writes that may wait for the engine; one more is refused as overload.
const MAX_QUEUED_WRITES: usize = 16_384;

/// The most frames of peers that may wait for the engine; further ones wait in QUIC's windows.
const MAX_QUEUED_FRAMES: usize = 64;

/// The answer to a group of writes.
pub(super) type Reply = oneshot::Sender<Result<Vec<Dot>, WriteError>>;

/// A question to the replica, or to nobody in quarantine; it carries its own way to answer.
pub(super) type Ask = Box<dyn FnOnce(Option<&mut Replica<SledStore>>, Now) + Send>;

/// What the engine is asked to do.
pub(super) enum Command {
    Write {
        quota: StorageQuota,
        writes: Vec<Write>,
        /// Whether they are a batch.
        as_one: bool,
        ack: Ack,
        reply: Reply,
    },
    Connected {
        peer: PeerInfo,
        link: LinkSender,
    },
    Disconnected {
        replica: ReplicaId,
    },
    Frame {
        from: ReplicaId,
        frame: Bytes,
        _place: OwnedSemaphorePermit,
    },
    Status {
        reply: oneshot::Sender<Result<Status, ReadError>>,
    },
    /// A question or an order of an operator.
    Act {
        act: Act,
    },
    /// A question to the replica, answered when all that was staged is durable.
    Ask {
        ask: Ask,
    },
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// The queue.
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    frames: std::sync::Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    writes: usize,
    woken: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        let frames = std::sync::Arc::new(Semaphore::new(MAX_QUEUED_FRAMES));
        Self { waiting: Mutex::default(), arrived: Condvar::new(), frames }
    }
}

impl Inbox {
    pub(super) fn queue_writes(
        &self,
        quota: StorageQuota,
        writes: Vec<Write>,
        as_one: bool,
        ack: Ack,
        reply: Reply,
    ) -> Result<(), WriteError> {
        let mut waiting = self.lock();
        if waiting.writes + writes.len() > MAX_QUEUED_WRITES {
            return Err(WriteError::Overloaded { queued: waiting.writes });
        }
        waiting.writes += writes.len();
        waiting.commands.push(Command::Write { quota, writes, as_one, ack, reply });
        self.arrived.notify_one();
        Ok(())
    }

    pub(super) async fn queue_frame(&self, from: ReplicaId, frame: Bytes) {
        // The semaphore is never closed.
        if let Ok(place) = self.frames.clone().acquire_owned().await {
            self.queue(Command::Frame { from, frame, _place: place });
        }
    }

    pub(super) fn queue(&self, command: Command) {
        self.lock().commands.push(command);
        self.arrived.notify_one();
    }

    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.arrived.notify_one();
    }

    /// Takes all that waits; waits up to `patience` where nothing does.
    pub(super) fn take(&self, patience: Duration) -> Vec<Command> {
        let idle = |waiting: &mut Waiting| waiting.commands.is_empty() && !waiting.woken;
        let waited = self.arrived.wait_timeout_while(self.lock(), patience, idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.woken = false;
        waiting.writes = 0;
        std::mem::take(&mut waiting.commands)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // A panic elsewhere leaves a queue that is still a queue.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
