//! The store on disk: sled behind the core's [`Store`], and the checkpoint that notices what sled does not.
//!
//! sled 0.34.7 is fast and not careful: its flush does not reach the disk's platter, a truncated file opens
//! empty without a word, and damage panics at open. The rules this file upholds: a flush here is a flush and
//! an `fdatasync`; a panic is an error; a store that lost rows it once had is not opened.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use replication::store::folding::Folding;
use replication::store::{Batch, Folded, Visit};
use replication::{Hlc, Position, ReplicaId, Store, StoreError, VersionVector};
use serde::{Deserialize, Serialize};

/// sled's segment size. Values above a quarter of it would go to sled's blob files, which it never syncs: a
/// power cut then leaves a database that cannot be opened. Rows here are far below that.
const SEGMENT_BYTES: usize = 16 << 20;

/// Room allocated beyond the end of sled's file, and below: sled does not survive a write that the disk has no
/// room for, so that room must be there before the write, whoever else fills the disk.
const RESERVED_BYTES: u64 = 2 * SEGMENT_BYTES as u64;

/// How often sled's own thread flushes; it also collects garbage there.
const FLUSH_EVERY_MS: u64 = 500;

/// The folder of sled's files, inside the data folder.
const STORE_FOLDER: &str = "store";
/// The checkpoint's file, inside the data folder.
const CHECKPOINT_FILE: &str = "checkpoint.json";

/// A store on disk. Clones read and write the same store; only the engine's writes.
pub struct SledStore {
    rows: Folding<Rows>,
}

impl Clone for SledStore {
    fn clone(&self) -> Self {
        Self { rows: self.rows.handle() }
    }
}

/// Its rows, as sled has them.
#[derive(Clone)]
struct Rows {
    tree: sled::Tree,
    db: sled::Db,
    file: std::sync::Arc<File>,
    /// Batches that were committed, or are about to be.
    commits: std::sync::Arc<AtomicU64>,
}

impl SledStore {
    /// Opens the store in this data folder, or makes one. `cache_bytes` should hold the working set: at a fifth
    /// of the data reads become several times slower.
    pub fn open(data_folder: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let folder = data_folder.join(STORE_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| at(&folder, "cannot be made", &error))?;
        let config = sled::Config::new()
            .path(&folder)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        // Damage can panic inside sled; nothing of ours is shared with it, so unwinding leaves nothing broken.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(error))) if is_locked(&error) => {
                return Err(StoreError::new(format!(
                    "{} is open in another process; stop that one, or choose another data folder",
                    folder.display()
                )));
            }
            Ok(Err(error)) => return Err(at(&folder, "cannot be opened", &error)),
            Err(_) => {
                return Err(StoreError::new(format!(
                    "{} is damaged: sled panicked opening it",
                    folder.display()
                )));
            }
        };
        let path = folder.join("db");
        let file =
            File::options().write(true).open(&path).map_err(|error| at(&path, "cannot be opened", &error))?;
        sync_folders(&folder).map_err(|error| at(&folder, "cannot be synced", &error))?;
        let tree = sled::Tree::clone(&db);
        let mut rows = Rows { tree, db, file: std::sync::Arc::new(file), commits: std::sync::Arc::default() };
        rows.flush()?;
        Ok(Self { rows: Folding::new(rows) })
    }
}

impl SledStore {
    /// How many batches readers may have seen something of, since the store was opened.
    pub(crate) fn commits(&self) -> u64 {
        self.rows.beneath().commits.load(Ordering::SeqCst)
    }

    /// Makes sure that sled's next writes find room, or says that there is none.
    ///
    /// # Errors
    /// When the disk cannot give the room.
    pub fn reserve_room(&self) -> io::Result<()> {
        let file = &*self.rows.beneath().file;
        let end = file.metadata()?.len();
        let from = end.saturating_sub(RESERVED_BYTES);
        let bytes = end - from + RESERVED_BYTES;
        Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, from, bytes)?)
    }
}

/// Whether this error of `open` says that another process holds the lock.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Makes the names of new files in these folders durable.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for folder in folder.ancestors().take(3).filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn at(path: &Path, what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::new(format!("{} {what}: {error}", path.display()))
}

fn failed(error: &sled::Error) -> StoreError {
    StoreError::new(format!("the store failed: {error}"))
}

impl Store for SledStore {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.read(key)
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rows.scan(from, visit)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.rows.commit(batch)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.rows.flush()
    }

    fn fold(&mut self, document: &[u8], elements: &[Bytes]) -> Result<Folded, StoreError> {
        self.rows.fold(document, elements)
    }
}

impl Store for Rows {
    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let row = self.tree.get(key).map_err(|error| failed(&error))?;
        Ok(row.map(|row| Bytes::copy_from_slice(&row)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for row in self.tree.range(from..) {
            let (key, row) = row.map_err(|error| failed(&error))?;
            if let ControlFlow::Break(()) = visit(&key, Bytes::copy_from_slice(&row)) {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = sled::Batch::default();
        for (key, row) in batch {
            match row {
                Some(row) => rows.insert(key, row),
                None => rows.remove(key),
            }
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.tree.apply_batch(rows).map_err(|error| failed(&error))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        // sled's flush writes with sync_file_range, which leaves the disk's cache alone.
        self.db.flush().map_err(|error| failed(&error))?;
        rustix::fs::fdatasync(&*self.file)
            .map_err(|error| StoreError::new(format!("fdatasync of the store failed: {error}")))
    }
}

/// What a store held at some moment, in a file of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The replica, as 32 hexadecimal digits.
    pub replica: String,
    /// By origin (32 hexadecimal digits), its newest event then, as [`Hlc::to_bits`].
    pub vector: Vec<(String, u64)>,
    /// Entry rows then.
    pub entries: u64,
    /// The root then.
    pub root: String,
}

impl Checkpoint {
    /// The checkpoint in this data folder; `None` where there has never been one.
    pub fn load(data_folder: &Path) -> io::Result<Option<Self>> {
        let path = data_folder.join(CHECKPOINT_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts this in the place of the last one; durable when it returns.
    pub fn store(&self, data_folder: &Path) -> io::Result<()> {
        replace_file(&data_folder.join(CHECKPOINT_FILE), &serde_json::to_vec(self)?)
    }

    /// Why a store that now holds `vector` cannot be the one this was written for; `None` when it can. The root is no
    /// reason: a sweep drops what is over, and a repair brings what was missing, at the same vector.
    pub fn contradicts(&self, replica: ReplicaId, vector: &VersionVector) -> Option<String> {
        if self.replica != replica.to_string() {
            return Some(format!("it is of replica {replica}, and the checkpoint of {}", self.replica));
        }
        let claims: VersionVector = self
            .vector
            .iter()
            .filter_map(|(origin, hlc)| Some((origin.parse().ok()?, Hlc::from_bits(*hlc))))
            .map(|(origin, hlc)| (origin, Position { hlc, ..Position::default() }))
            .collect();
        (!vector.covers_all(&claims)).then(|| "it holds less than it did at its last checkpoint".into())
    }
}

/// Replaces a file as one step, durably.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary: PathBuf = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Whether there is a store in this data folder.
pub fn has_store(data_folder: &Path) -> bool {
    data_folder.join(STORE_FOLDER).exists()
}

/// Where [`set_aside`] would move the store now.
pub fn aside_folder(data_folder: &Path) -> PathBuf {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let folder = |unix_s: u64| data_folder.join(format!("quarantine-{unix_s}"));
    (unix_s..).map(folder).find(|folder| !folder.exists()).unwrap_or_else(|| folder(unix_s))
}

/// Moves a store and its checkpoint aside, and gives their new place. The folder is then as new.
///
/// # Errors
/// Where a file cannot be moved.
pub fn set_aside(data_folder: &Path) -> io::Result<PathBuf> {
    let aside = aside_folder(data_folder);
    std::fs::create_dir(&aside)?;
    for name in [STORE_FOLDER, CHECKPOINT_FILE] {
        let from = data_folder.join(name);
        if from.exists() {
            std::fs::rename(&from, aside.join(name))?;
        }
    }
    File::open(&aside)?.sync_all()?;
    File::open(data_folder)?.sync_all()?;
    Ok(aside)
}

/// Moves the store of one data folder into another, which has none. Durable when it returns.
///
/// # Errors
/// Where it cannot be moved.
pub fn move_store(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from.join(STORE_FOLDER), to.join(STORE_FOLDER))?;
    File::open(to)?.sync_all()
}

/// Bytes an unprivileged process may still write to this file system.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail * stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use replication::codec::row::{EntryRow, encode_entry};
    use replication::kinds::{Element, ElementPart, PartState};
    use replication::store::conformance;
    use replication::{Body, Dot, Entry, EntryId, Kind, NamespaceId, doc, keys};

    use super::*;

    #[test]
    fn sled_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = 0;
        conformance::check(&mut || {
            made += 1;
            SledStore::open(&folder.path().join(made.to_string()), 1 << 20).unwrap()
        });
    }

    /// Rows go into folds, and folds lose what is deleted, while others read: sled's scans are no snapshots.
    #[test]
    fn who_reads_while_the_engine_folds_misses_nothing() {
        const CHANGES: u32 = 4_000;
        const GROUP: usize = 40;
        let folder = tempfile::tempdir().unwrap();
        let mut store = SledStore::open(folder.path(), 1 << 20).unwrap();
        let whole = EntryId::whole(NamespaceId([9; 16]), Kind::Doc, "page");
        let head = keys::entry(&whole);
        let row = |n: u32| {
            let (element, content) = doc::rows(&Bytes::from(format!("change {n}"))).unwrap().remove(0);
            let dot = Dot { hlc: Hlc::new(u64::from(n), 0), replica: ReplicaId([1; 16]) };
            let part = ElementPart { hlc: dot.hlc, state: PartState::Alive(content) };
            let body = Body::Element(Element { parts: [(dot.replica, part)].into() });
            let row_key = keys::entry(&EntryId { element: element.clone(), ..whole.clone() });
            let row = encode_entry(&row_key, &EntryRow::of(0, Entry { dot, body, base: Hlc::ZERO }));
            (element, row_key, row)
        };
        let rows: Vec<_> = (0..CHANGES).map(row).collect();
        let put = rows.iter().map(|(_, row_key, row)| (row_key.clone(), Some(row.clone())));
        store.commit(put.collect()).unwrap();
        // Those that are folded now, of which the second half is never deleted.
        let groups: Vec<_> = rows.chunks(GROUP).map(|group| group.split_at(GROUP / 2)).collect();
        let folding = AtomicUsize::new(0);
        let kept_now = || groups.get(folding.load(Ordering::SeqCst)).map(|(_, kept)| kept.iter());
        let read = |store: &SledStore| {
            while let Some(kept) = kept_now() {
                for (_, row_key, row) in kept {
                    assert_eq!(store.read(row_key).unwrap().as_deref(), Some(&row[..]));
                }
            }
        };
        let scan = |store: &SledStore| {
            while let Some(mut kept) = kept_now() {
                let mut seen = Vec::new();
                let mut visit = |row_key: &[u8], _| {
                    seen.push(row_key.to_vec());
                    ControlFlow::Continue(())
                };
                store.scan(&head, &mut visit).unwrap();
                assert!(seen.is_sorted_by(|one, other| one < other), "a row is there twice");
                assert!(kept.all(|(_, row_key, _)| seen.binary_search(row_key).is_ok()), "a row is missing");
            }
        };
        let [reading, scanning] = &[store.clone(), store.clone()];
        let mut kept = 0;
        std::thread::scope(|scope| {
            let readers = [scope.spawn(|| read(reading)), scope.spawn(|| scan(scanning))];
            for (deleted, others) in &groups {
                let elements: Vec<Bytes> =
                    deleted.iter().chain(*others).map(|(element, ..)| element.clone()).collect();
                kept += store.fold(&head, &elements).unwrap().kept;
                store
                    .commit(deleted.iter().map(|(_, row_key, _)| (row_key.clone(), None)).collect())
                    .unwrap();
                folding.fetch_add(1, Ordering::SeqCst);
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        assert_eq!(kept, rows.len());
        let is_deleted = |(_, row_key, _): &(_, Vec<u8>, _)| store.read(row_key).unwrap().is_none();
        assert!(groups.iter().all(|(deleted, _)| deleted.iter().all(is_deleted)));
    }

    #[test]
    fn a_store_open_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _open = SledStore::open(folder.path(), 1 << 20).unwrap();
        let error = SledStore::open(folder.path(), 1 << 20).err().unwrap();
        assert!(error.reason.contains("is open in another process"), "{error}");
    }

    #[test]
    fn a_checkpoint_contradicts_what_fell_back_and_nothing_else() {
        let (me, other) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let at = |ms| Position { hlc: Hlc::new(ms, 0), ops: 1, bytes: 1 };
        let vector = |ms| VersionVector::from_iter([(me, at(ms)), (other, at(5))]);
        let checkpoint = Checkpoint {
            replica: me.to_string(),
            vector: vector(7).iter().map(|(origin, at)| (origin.to_string(), at.hlc.to_bits())).collect(),
            entries: 2,
            root: "r".into(),
        };
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap(), None);
        checkpoint.store(folder.path()).unwrap();
        assert_eq!(Checkpoint::load(folder.path()).unwrap().as_ref(), Some(&checkpoint));
        // Once the root had to be the same at the same vector: a node that was killed after a sweep, and before its next
        // checkpoint, took its own store for damaged.
        for (replica, ms, fits) in [(me, 7, true), (me, 9, true), (me, 6, false), (other, 7, false)] {
            assert_eq!(checkpoint.contradicts(replica, &vector(ms)).is_none(), fits, "{ms}");
        }
    }
}
