//! Return under a new identity: a new store that holds what the old one alone may have, and nothing else.
//!
//! The steps, in an order in which a crash at any point loses nothing:
//!
//! 1. `rebuild/store` is made beside the old store, with a new replica id, and what [`salvage`] finds goes into it.
//!    A crash leaves the old store as it was; the next rebuild begins again.
//! 2. It is flushed, and the file `rebuild/complete` says so. From here on any start goes on with step 3.
//! 3. The old store and its checkpoint move to `quarantine-<time>`, where they stay until an operator removes them.
//! 4. The new store moves into its place, and the folder `rebuild` goes.
//!
//! The old store stays open, and so locked, until it is aside. It is only read: copying from the peers, and writing anew
//! what was carried over, is the new replica's own work when it starts.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replication::codec::row;
use replication::replica::returned::salvage;
use replication::{Replica, ReplicaId, Settings, Store, StoreError, keys};

use crate::storage::{self, SledStore};

/// The folder of the new store while it is made, inside the data folder.
const REBUILD_FOLDER: &str = "rebuild";
/// The file that says that the new store is complete.
const COMPLETE_FILE: &str = "complete";
/// How often a store that is still open elsewhere is tried again.
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What is rebuilt.
pub(crate) struct Rebuild<'a> {
    pub(crate) data_folder: &'a Path,
    pub(crate) cache_bytes: u64,
    pub(crate) settings: Settings,
    /// How long to wait for the store to be let go of.
    pub(crate) patience: Duration,
}

/// What was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rebuilt {
    /// The old store's replica; `None` where it cannot be read.
    pub(crate) old: Option<ReplicaId>,
    /// The new one's; `None` in a dry run.
    pub(crate) new: Option<ReplicaId>,
    /// Writes carried over.
    pub(crate) carried: u64,
    /// Rows that could not be read.
    pub(crate) unreadable: u64,
    /// Why the old store could not be read, or not to its end.
    pub(crate) fault: Option<String>,
    /// Where the old store is, or would go.
    pub(crate) aside: PathBuf,
}

/// Why a store cannot be rebuilt. It is then as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildError {
    #[error("there is no store in {}: the next start makes one", folder.display())]
    NoStore { folder: PathBuf },
    #[error("{0}; stop the node first")]
    InUse(String),
    #[error("the new store cannot be made: {0}")]
    NewStore(String),
    #[error("{}: {error}", path.display())]
    Files { path: PathBuf, error: io::Error },
    #[error("an earlier rebuild of this store was cut short and is complete now: its new store is in place")]
    Finished,
}

impl RebuildError {
    /// Whether there is nothing to rebuild, so that the node may as well be started.
    pub(crate) fn is_nothing_to_do(&self) -> bool {
        matches!(self, Self::NoStore { .. } | Self::Finished)
    }
}

/// Goes on with a rebuild that was cut short after its second step. Gives whether there was one.
///
/// # Errors
/// Where files cannot be moved.
pub(crate) fn finish(data_folder: &Path) -> io::Result<bool> {
    let folder = data_folder.join(REBUILD_FOLDER);
    if !folder.join(COMPLETE_FILE).exists() {
        return Ok(false);
    }
    put_in_place(data_folder)?;
    Ok(true)
}

impl Rebuild<'_> {
    /// Does it; or only reads the old store, in a dry run.
    pub(crate) fn run(&self, is_dry: bool) -> Result<Rebuilt, RebuildError> {
        let files = |error| RebuildError::Files { path: self.data_folder.into(), error };
        if !is_dry && finish(self.data_folder).map_err(files)? {
            return Err(RebuildError::Finished);
        }
        if !storage::has_store(self.data_folder) {
            return Err(RebuildError::NoStore { folder: self.data_folder.into() });
        }
        let old = self.open_old()?;
        let mut rebuilt = Rebuilt {
            old: old.as_ref().ok().and_then(replica_of),
            new: None,
            carried: 0,
            unreadable: 0,
            fault: old.as_ref().err().cloned(),
            aside: storage::aside_folder(self.data_folder),
        };
        if is_dry {
            if let Ok(old) = &old {
                carry_over(old, &mut rebuilt, &mut |_| Ok(()))?;
            }
            return Ok(rebuilt);
        }
        self.make_new(old.as_ref().ok(), &mut rebuilt)?;
        rebuilt.aside = put_in_place(self.data_folder).map_err(files)?.unwrap_or(rebuilt.aside);
        drop(old);
        Ok(rebuilt)
    }

    /// The old store, or why it cannot be read.
    fn open_old(&self) -> Result<Result<SledStore, String>, RebuildError> {
        let deadline = Instant::now() + self.patience;
        loop {
            match SledStore::open(self.data_folder, self.cache_bytes) {
                Ok(store) => return Ok(Ok(store)),
                Err(error) if error.reason.contains("is open in another process") => {
                    if Instant::now() >= deadline {
                        return Err(RebuildError::InUse(error.reason));
                    }
                    std::thread::sleep(OPEN_AGAIN_AFTER);
                }
                Err(error) => return Ok(Err(error.reason)),
            }
        }
    }

    /// Steps 1 and 2.
    fn make_new(&self, old: Option<&SledStore>, rebuilt: &mut Rebuilt) -> Result<(), RebuildError> {
        let folder = self.data_folder.join(REBUILD_FOLDER);
        let files = |error| RebuildError::Files { path: folder.clone(), error };
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(files)?;
        }
        let new_store = |why: &dyn std::fmt::Display| RebuildError::NewStore(why.to_string());
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| new_store(&error))?;
        let store = SledStore::open(&folder, self.cache_bytes).map_err(|error| new_store(&error))?;
        let mut replica =
            Replica::open(store, self.settings, ReplicaId(id)).map_err(|error| new_store(&error))?;
        rebuilt.new = Some(replica.id());
        if let Some(old) = old {
            carry_over(old, rebuilt, &mut |state| replica.keep_returned(state))?;
        }
        replica.flush().map_err(|error| new_store(&error))?;
        drop(replica);
        storage::replace_file(&folder.join(COMPLETE_FILE), b"").map_err(files)
    }
}

/// Passes what the old store alone may hold to `keep`. A fault of the old store ends it, one of the new store fails it.
fn carry_over(
    old: &SledStore,
    rebuilt: &mut Rebuilt,
    keep: &mut dyn FnMut(&replication::codec::round::RepairRow) -> Result<(), StoreError>,
) -> Result<(), RebuildError> {
    let mut not_kept = None;
    let mut carried = 0;
    let salvaged = catch_unwind(AssertUnwindSafe(|| {
        salvage(old, &mut |state| match keep(&state) {
            Ok(()) => {
                carried += 1;
                Ok(())
            }
            Err(error) => {
                not_kept = Some(error.clone());
                Err(error)
            }
        })
    }));
    rebuilt.carried = carried;
    if let Some(error) = not_kept {
        return Err(RebuildError::NewStore(error.reason));
    }
    match salvaged {
        Ok(Ok(unreadable)) => rebuilt.unreadable = unreadable,
        Ok(Err(error)) => rebuilt.fault = Some(error.reason),
        Err(_) => rebuilt.fault = Some("the store is damaged: sled panicked reading it".into()),
    }
    if rebuilt.old.is_none() && rebuilt.fault.is_none() {
        rebuilt.fault = Some("the store has no identity that can be read".into());
    }
    Ok(())
}

fn replica_of(store: &SledStore) -> Option<ReplicaId> {
    let identity = store.read(keys::IDENTITY).ok().flatten()?;
    row::decode_identity(&identity).ok().map(|identity| identity.replica)
}

/// Steps 3 and 4; also where they were cut short. Gives where the old store went.
fn put_in_place(data_folder: &Path) -> io::Result<Option<PathBuf>> {
    let folder = data_folder.join(REBUILD_FOLDER);
    let mut aside = None;
    // Once the new store has moved, the one in its place is not the old one any more.
    if storage::has_store(&folder) {
        if storage::has_store(data_folder) {
            aside = Some(storage::set_aside(data_folder)?);
        }
        storage::move_store(&folder, data_folder)?;
    }
    std::fs::remove_dir_all(&folder)?;
    File::open(data_folder)?.sync_all()?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use replication::{
        Body, DigestKey, EntryId, MemberRecord, NamespaceId, Now, Payload, RemovalReason, Value,
    };

    const NOW: Now = Now { wall_ms: 1_700_000_000_000, mono_us: 0 };
    const WRITES: u64 = 500;

    fn settings() -> Settings {
        Settings::new([1; 16], DigestKey::new([2; 32]))
    }

    fn rebuild(folder: &Path) -> Rebuild<'_> {
        Rebuild {
            data_folder: folder,
            cache_bytes: 8 << 20,
            settings: settings(),
            patience: Duration::from_secs(20),
        }
    }

    /// A folder with the store of a member that has written something.
    fn folder_with_writes() -> (tempfile::TempDir, ReplicaId) {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(folder.path(), 8 << 20).unwrap();
        let mut replica = Replica::open(store, settings(), ReplicaId([7; 16])).unwrap();
        replica.found(NOW, &MemberRecord::default()).unwrap();
        for number in 0..WRITES {
            let id = EntryId::value(NamespaceId([9; 16]), format!("key-{number}"));
            let payload = Payload::Inline(Bytes::from_static(b"value"));
            replica
                .write(NOW, id, Body::Value(Value { payload, metadata: None, expires_at_s: None }))
                .unwrap();
        }
        replica.flush().unwrap();
        (folder, replica.id())
    }

    /// What the store in place holds: its replica, and how many returned states.
    fn found(folder: &Path) -> (ReplicaId, u64) {
        let store = rebuild(folder).open_old().unwrap().unwrap();
        let replica = Replica::open(store, settings(), ReplicaId([8; 16])).unwrap();
        (replica.id(), replica.dead_letters().unwrap().len() as u64)
    }

    #[test]
    fn what_a_store_alone_has_is_carried_over_and_it_goes_aside() {
        let (folder, old) = folder_with_writes();
        let dry = rebuild(folder.path()).run(true).unwrap();
        assert_eq!((dry.old, dry.new, dry.carried), (Some(old), None, WRITES));
        assert!(!dry.aside.exists() && storage::has_store(folder.path()));

        let done = rebuild(folder.path()).run(false).unwrap();
        assert_eq!((done.old, done.carried, done.unreadable, done.fault), (Some(old), WRITES, 0, None));
        assert!(done.aside.join("store").exists());
        let (new, returned) = found(folder.path());
        assert_eq!((Some(new), returned), (done.new, WRITES));
        assert_ne!(new, old);
        // What was carried over once is carried over again.
        let again = rebuild(folder.path()).run(false).unwrap();
        assert_eq!((again.old, again.carried), (Some(new), WRITES));
        assert_ne!(again.aside, done.aside);
    }

    #[test]
    fn a_rebuild_cut_short_at_any_step_loses_nothing() {
        for done in 0..4 {
            let (folder, _) = folder_with_writes();
            let data = folder.path();
            let half = data.join(REBUILD_FOLDER);
            let this = rebuild(data);
            let old = this.open_old().unwrap().unwrap();
            let mut rebuilt = Rebuilt {
                old: None,
                new: None,
                carried: 0,
                unreadable: 0,
                fault: None,
                aside: PathBuf::new(),
            };
            this.make_new(Some(&old), &mut rebuilt).unwrap();
            drop(old);
            match done {
                0 => std::fs::remove_file(half.join(COMPLETE_FILE)).unwrap(),
                1 => {}
                2 => drop(storage::set_aside(data).unwrap()),
                _ => {
                    storage::set_aside(data).unwrap();
                    storage::move_store(&half, data).unwrap();
                }
            }
            assert_eq!(finish(data).unwrap(), done > 0, "step {done}");
            if done == 0 {
                assert_eq!(this.run(false).unwrap().carried, WRITES);
            }
            assert!(!half.exists(), "step {done}");
            assert_eq!(found(data).1, WRITES, "step {done}");
            assert!(!finish(data).unwrap(), "step {done}");
        }
    }

    #[test]
    fn a_store_that_does_not_open_goes_aside_and_one_in_use_stays() {
        let (folder, _) = folder_with_writes();
        let open = SledStore::open(folder.path(), 8 << 20);
        let hasty = Rebuild { patience: Duration::ZERO, ..rebuild(folder.path()) };
        let open = open.or_else(|_| rebuild(folder.path()).open_old().unwrap().map_err(StoreError::new));
        assert!(matches!(hasty.run(false), Err(RebuildError::InUse(_))));
        drop(open.unwrap());
        // sled opens this as an empty store, without a word.
        drop(rebuild(folder.path()).open_old());
        std::fs::write(folder.path().join("store/db"), b"").unwrap();
        let rebuilt = rebuild(folder.path()).run(false).unwrap();
        assert_eq!((rebuilt.old, rebuilt.carried), (None, 0));
        assert!(rebuilt.fault.is_some());
        assert_eq!(found(folder.path()).1, 0);
    }

    #[test]
    fn a_removed_store_is_rebuilt_too() {
        let (folder, old) = folder_with_writes();
        let store = rebuild(folder.path()).open_old().unwrap().unwrap();
        let mut replica = Replica::open(store, settings(), ReplicaId([8; 16])).unwrap();
        replica.remove_member(NOW, old, RemovalReason::Silent).unwrap();
        replica.flush().unwrap();
        drop(replica);
        assert_eq!(rebuild(folder.path()).run(false).unwrap().carried, WRITES);
    }
}
