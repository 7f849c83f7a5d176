//! Opening the store of an engine.
//!
//! The rule this file upholds: what is damaged, or older than its checkpoint, is told from what cannot be opened for another
//! reason. The first starts in quarantine, and the second does not start.

use std::io::ErrorKind;

use replication::replica::OpenError;
use replication::{Replica, ReplicaId};

use super::{REMEDY, Settings};
use crate::rebuild;
use crate::storage::{Checkpoint, SledStore};

/// Why there is no store to work with.
pub(super) enum Unopened {
    /// What is there must not be served.
    Damaged(String),
    /// This node cannot start with it.
    Refused(String),
}

/// Opens the store, and finishes a rebuild that was cut short.
pub(super) fn open(settings: &Settings) -> Result<Replica<SledStore>, Unopened> {
    let folder = &settings.data_folder;
    let finished = rebuild::finish(folder).map_err(|error| {
        Unopened::Refused(format!("a rebuild in {} cannot be finished: {error}", folder.display()))
    })?;
    if finished {
        tracing::warn!("a rebuild that was cut short is finished; this node returns under a new identity");
    }
    let checkpoint = Checkpoint::load(folder).map_err(|error| {
        let reason = format!("the checkpoint in {} is unreadable: {error}", folder.display());
        match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                Unopened::Damaged(format!("{reason}; {REMEDY}"))
            }
            _ => Unopened::Refused(reason),
        }
    })?;
    let store = SledStore::open(folder, settings.cache_bytes).map_err(|error| {
        if error.reason.contains("is damaged") {
            Unopened::Damaged(format!("{error}; {REMEDY}"))
        } else {
            Unopened::Refused(error.reason)
        }
    })?;
    let damaged = |reason: String| Unopened::Damaged(format!("{reason}; {REMEDY}"));
    if checkpoint.is_some() {
        let identity = replication::Store::read(&store, replication::keys::IDENTITY);
        if identity.map_err(|error| damaged(error.reason))?.is_none() {
            return Err(damaged("the store is empty, though a checkpoint says that it was not".into()));
        }
    }
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(|error| Unopened::Refused(format!("no random numbers: {error}")))?;
    let replica = Replica::open(store, settings.replica, ReplicaId(fresh)).map_err(|error| match error {
        OpenError::OtherCluster => Unopened::Refused(format!("{}: {error}", folder.display())),
        OpenError::Store(_) | OpenError::Damaged { .. } => damaged(error.to_string()),
    })?;
    match checkpoint.and_then(|checkpoint| checkpoint.contradicts(replica.id(), replica.vector())) {
        Some(reason) => Err(damaged(format!("the store does not fit its checkpoint: {reason}"))),
        None => Ok(replica),
    }
}
