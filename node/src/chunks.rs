//! Chunk files: the bytes of values too large for a row, one file per chunk, named by its BLAKE3 hash.
//!
//! Two rules are upheld here. A chunk that [`ChunkStore::write`] has returned survives a power cut, and
//! [`ChunkStore::read`] gives the bytes of that name or none at all. And whoever was told that a chunk is here finds it
//! here for as long as something names it, or is about to:
//!
//! 1. A file is deleted in three steps: it is *condemned*, the engine is asked whether a state names it, and it is deleted
//!    if it is condemned still. Whoever is told that it is here ([`ChunkStore::write`], [`ChunkStore::touch`]) takes the
//!    sentence back, under the lock under which it is carried out. So of one who names the chunk before the question, the
//!    engine knows; one who was told after it has saved it; and one who asks later still finds it gone, and writes it.
//! 2. An upload holds a [`Pin`] on each of its chunks until its value is written or given up. What is pinned is not
//!    condemned, however long the upload takes and whatever the clock does.
//! 3. Nothing is condemned within the grace after it was last touched, by the time of the file, which outlives a restart.
//!    That is for peers that have yet to hear that a value is gone, and for readers in the middle of one.
//!
//! Layout of the folder: `ab/<64 hexadecimal digits>` by the first byte of the name, `tmp/` for files being
//! written (emptied at open), `damaged/` for files whose bytes no longer match their name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use replication::ChunkId;
use replication::entry::CHUNK_BYTES;

const UNFINISHED: &str = "tmp";
const DAMAGED: &str = "damaged";

/// The most chunks that wait to be looked at by whoever collects; a listing of the folder finds the others.
const MAX_LET_GO: usize = 65_536;

/// The most chunks that are known to be missing, half a tebibyte of them; a later look finds the others.
const MAX_MISSING: usize = 1 << 20;

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// It is here, and these are its bytes.
    Good(Bytes),
    /// Its file had other bytes than its name says, and was moved aside.
    Damaged,
    /// It is not here.
    Missing,
}

/// What was decided about a file that seems to be needed no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// It may be deleted, if nobody is told of it before.
    Condemned,
    /// It was touched a while ago, or is pinned: to be looked at again after this time.
    Spared(Duration),
    /// There is no such file.
    Gone,
}

/// Figures of the chunks; counts of files, and bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkFigures {
    /// Files here.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that no state names, and that wait for their grace to pass.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Files deleted since the node started.
    pub collected: u64,
    /// Their bytes.
    pub collected_bytes: u64,
    /// Chunks that states name and that are not here yet.
    pub missing: u64,
    /// Their bytes.
    pub missing_bytes: u64,
}

/// The folder of chunk files. All methods block on the disk, if shortly, but those about figures and pins.
pub struct ChunkStore {
    folder: PathBuf,
    /// Names the next unfinished file: unique within the process, and `tmp/` is emptied at open.
    next_unfinished: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What is known of chunks beside their files. Files come and go under its lock.
#[derive(Default)]
struct Ledger {
    /// How many uploads hold each chunk.
    pins: BTreeMap<ChunkId, u32>,
    condemned: BTreeSet<ChunkId>,
    /// Whoever needed them does so no more.
    let_go: BTreeSet<ChunkId>,
    /// Named and not here, with their lengths in bytes.
    missing: BTreeMap<ChunkId, u64>,
    figures: ChunkFigures,
}

impl ChunkStore {
    /// Opens (or creates, durably) the folder, and counts its files. One store per folder: a second one would empty the
    /// first one's `tmp/`.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let unfinished = folder.join(UNFINISHED);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        fs::create_dir_all(folder.join(DAMAGED))?;
        for first_byte in 0..=u8::MAX {
            fs::create_dir_all(folder.join(format!("{first_byte:02x}")))?;
        }
        sync_folder(folder)?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        let store =
            Self { folder: folder.to_owned(), next_unfinished: AtomicU64::new(0), ledger: Mutex::default() };
        for first_byte in 0..=u8::MAX {
            for (_, bytes) in store.list(first_byte)? {
                store.lock().came(bytes);
            }
        }
        Ok(store)
    }

    /// Whether the chunk is here, for whoever only wants to know. Its bytes are not checked; [`ChunkStore::read`] does
    /// that.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.path(id).exists()
    }

    /// Whether the chunk is here, for whoever counts on it: its grace begins anew.
    pub fn touch(&self, id: &ChunkId) -> io::Result<bool> {
        let mut ledger = self.lock();
        ledger.condemned.remove(id);
        match File::open(self.path(id)).and_then(|file| file.set_modified(SystemTime::now())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a chunk, checked against its name; `None` when it is not here. A damaged file is
    /// moved aside and reported as not here, so that it is fetched again.
    pub fn read(&self, id: &ChunkId) -> io::Result<Option<Bytes>> {
        Ok(match self.examine(id)? {
            ChunkState::Good(bytes) => Some(bytes),
            ChunkState::Damaged | ChunkState::Missing => None,
        })
    }

    /// As [`ChunkStore::read`], for whoever must tell a damaged file from one that is not here.
    pub fn examine(&self, id: &ChunkId) -> io::Result<ChunkState> {
        let path = self.path(id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ChunkState::Missing),
            Err(error) => return Err(error),
        };
        let file_bytes = file.metadata()?.len();
        let mut bytes = Vec::with_capacity(file_bytes.min(CHUNK_BYTES as u64) as usize + 1);
        file.take(CHUNK_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if ChunkId::of(&bytes) == *id {
            return Ok(ChunkState::Good(bytes.into()));
        }
        tracing::warn!(chunk = %id, "a chunk file is damaged: moved aside, to be fetched again");
        let mut ledger = self.lock();
        match fs::rename(&path, self.folder.join(DAMAGED).join(id.to_string())) {
            Ok(()) => ledger.went(file_bytes),
            // Another reader has moved it already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(ChunkState::Damaged)
    }

    /// Stores a chunk of at most [`CHUNK_BYTES`]; durable when it returns (temporary file, fsync, rename,
    /// fsync of the folder). A chunk that is here already is not written again, but touched.
    pub fn write(&self, bytes: &[u8]) -> io::Result<ChunkId> {
        if bytes.len() > CHUNK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a chunk is at most 512 KiB"));
        }
        let id = ChunkId::of(bytes);
        let path = self.path(&id);
        // Read, not only looked for: a damaged file must not stand in for these bytes. It may go between the two.
        if self.read(&id)?.is_none() || !self.touch(&id)? {
            let number = self.next_unfinished.fetch_add(1, Ordering::Relaxed);
            let unfinished = self.folder.join(UNFINISHED).join(number.to_string());
            write_durably(bytes, &unfinished)
                .and_then(|()| self.put_in_place(&unfinished, &id, bytes.len() as u64))
                .inspect_err(|_| {
                    let _ = fs::remove_file(&unfinished);
                })?;
        }
        // Also for a chunk found here: another writer may have renamed it and not synced the folder yet.
        sync_folder(path.parent().unwrap_or(&self.folder))?;
        self.lock().missing_went(&id);
        Ok(id)
    }

    /// Keeps a chunk, come or still to come, from being deleted until the pin is dropped.
    pub fn pin(self: &Arc<Self>, id: ChunkId) -> Pin {
        let mut ledger = self.lock();
        ledger.condemned.remove(&id);
        *ledger.pins.entry(id).or_default() += 1;
        Pin { store: self.clone(), id }
    }

    /// A state names this chunk, of so many bytes, which was looked for, and is not here. Of those only so many are noted.
    pub fn lacks(&self, id: ChunkId, bytes: u64) {
        let mut ledger = self.lock();
        let is_new = !ledger.missing.contains_key(&id) && ledger.missing.len() < MAX_MISSING;
        if is_new && !self.contains(&id) {
            ledger.missing.insert(id, bytes);
            ledger.figures.missing += 1;
            ledger.figures.missing_bytes += bytes;
        }
    }

    /// Whether a state names this chunk, as far as was said, and it is not here.
    pub fn is_lacking(&self, id: &ChunkId) -> bool {
        self.lock().missing.contains_key(id)
    }

    /// Whoever needed this chunk does so no more; its grace begins.
    pub fn let_go(&self, id: ChunkId) -> io::Result<()> {
        {
            let mut ledger = self.lock();
            ledger.missing_went(&id);
            ledger.let_go(id);
        }
        self.touch(&id).map(drop)
    }

    /// These are to be looked at again.
    pub(crate) fn offer(&self, ids: impl Iterator<Item = ChunkId>) {
        let mut ledger = self.lock();
        ids.for_each(|id| ledger.let_go(id));
    }

    /// The chunks let go since the last question.
    pub(crate) fn take_let_go(&self) -> BTreeSet<ChunkId> {
        std::mem::take(&mut self.lock().let_go)
    }

    /// Length of a chunk's file in bytes, and how long ago it was last touched; `None` where it is not here.
    pub(crate) fn age(&self, id: &ChunkId) -> io::Result<Option<(u64, Duration)>> {
        match fs::metadata(self.path(id)) {
            // A time in the future, by a clock set back, is as good as none: the grace begins now.
            Ok(found) => Ok(Some((found.len(), found.modified()?.elapsed().unwrap_or_default()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Condemns a chunk that was not touched for the time of `grace`, and is not pinned. Whether a state names it is to be
    /// asked after this.
    pub(crate) fn condemn(&self, id: &ChunkId, grace: Duration) -> io::Result<Sentence> {
        let mut ledger = self.lock();
        if ledger.pins.contains_key(id) {
            return Ok(Sentence::Spared(grace));
        }
        Ok(match self.age(id)? {
            None => Sentence::Gone,
            Some((_, age)) if age < grace => Sentence::Spared(grace - age),
            Some(_) => {
                ledger.condemned.insert(*id);
                Sentence::Condemned
            }
        })
    }

    /// Takes the sentence back.
    pub(crate) fn absolve(&self, id: &ChunkId) {
        self.lock().condemned.remove(id);
    }

    /// Deletes a chunk that is condemned still. Gives whether it did.
    pub(crate) fn delete_condemned(&self, id: &ChunkId) -> io::Result<bool> {
        let mut ledger = self.lock();
        if !ledger.condemned.remove(id) {
            return Ok(false);
        }
        let path = self.path(id);
        let bytes = fs::metadata(&path)?.len();
        fs::remove_file(&path)?;
        ledger.went(bytes);
        ledger.figures.collected += 1;
        ledger.figures.collected_bytes += bytes;
        Ok(true)
    }

    /// The chunks whose names begin with this byte, with the lengths of their files. Others' files are passed over.
    pub(crate) fn list(&self, first_byte: u8) -> io::Result<Vec<(ChunkId, u64)>> {
        let mut listed = Vec::new();
        for file in fs::read_dir(self.folder.join(format!("{first_byte:02x}")))? {
            let file = file?;
            let name = file.file_name();
            let id = name.to_str().and_then(|name| name.parse::<ChunkId>().ok());
            if let Some(id) = id.filter(|id| id.0[0] == first_byte) {
                match file.metadata() {
                    Ok(found) => listed.push((id, found.len())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(listed)
    }

    /// The figures at this moment.
    pub fn figures(&self) -> ChunkFigures {
        self.lock().figures
    }

    /// Sets what waits to be deleted.
    pub(crate) fn set_waiting(&self, files: u64, bytes: u64) {
        let mut ledger = self.lock();
        (ledger.figures.waiting, ledger.figures.waiting_bytes) = (files, bytes);
    }

    fn put_in_place(&self, unfinished: &Path, id: &ChunkId, bytes: u64) -> io::Result<()> {
        let mut ledger = self.lock();
        ledger.condemned.remove(id);
        let replaced = self.age(id)?;
        fs::rename(unfinished, self.path(id))?;
        if let Some((bytes, _)) = replaced {
            ledger.went(bytes);
        }
        ledger.came(bytes);
        Ok(())
    }

    fn path(&self, id: &ChunkId) -> PathBuf {
        let name = id.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves a ledger that is still one: each change to it is made whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn came(&mut self, bytes: u64) {
        self.figures.files += 1;
        self.figures.bytes += bytes;
    }

    fn went(&mut self, bytes: u64) {
        self.figures.files = self.figures.files.saturating_sub(1);
        self.figures.bytes = self.figures.bytes.saturating_sub(bytes);
    }

    fn missing_went(&mut self, id: &ChunkId) {
        if let Some(bytes) = self.missing.remove(id) {
            self.figures.missing -= 1;
            self.figures.missing_bytes -= bytes;
        }
    }

    fn let_go(&mut self, id: ChunkId) {
        if self.let_go.len() < MAX_LET_GO {
            self.let_go.insert(id);
        }
    }
}

/// Keeps a chunk here while a value that will name it is on its way in. When it is dropped, the chunk is let go: by then
/// the value is written and names it, or nothing may.
pub struct Pin {
    store: Arc<ChunkStore>,
    id: ChunkId,
}

impl Pin {
    /// The chunk it keeps.
    pub fn chunk(&self) -> ChunkId {
        self.id
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut ledger = self.store.lock();
        if let Some(count) = ledger.pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                ledger.pins.remove(&self.id);
            }
        }
        ledger.let_go(self.id);
    }
}

fn write_durably(bytes: &[u8], unfinished: &Path) -> io::Result<()> {
    let mut file = File::create_new(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::*;

    fn store() -> (tempfile::TempDir, ChunkStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(&folder.path().join("chunks")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written() {
        let (_folder, store) = store();
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
            assert!(!store.contains(&ChunkId::of(&bytes)));
            let id = store.write(&bytes).unwrap();
            assert!(store.contains(&id));
            assert_eq!(store.read(&id).unwrap().unwrap(), bytes);
        }
        assert_eq!(store.read(&ChunkId([9; 32])).unwrap(), None);
        assert!(store.write(&vec![0; CHUNK_BYTES + 1]).is_err());
    }

    #[test]
    fn a_damaged_chunk_is_moved_aside_and_can_be_written_again() {
        let (folder, store) = store();
        for damage in [&b"not hello"[..], b"", &[7; CHUNK_BYTES + 9]] {
            let id = store.write(b"hello").unwrap();
            fs::write(store.path(&id), damage).unwrap();
            assert_eq!(store.examine(&id).unwrap(), ChunkState::Damaged);
            assert_eq!(store.examine(&id).unwrap(), ChunkState::Missing);
            assert_eq!(store.read(&id).unwrap(), None);
            assert!(folder.path().join("chunks/damaged").join(id.to_string()).exists());
            fs::write(store.path(&id), damage).unwrap();
            assert_eq!(store.write(b"hello").unwrap(), id, "a write does not trust the damaged file");
            assert_eq!(store.read(&id).unwrap().unwrap(), &b"hello"[..]);
        }
    }

    #[test]
    fn opening_keeps_chunks_and_drops_unfinished_files() {
        let (folder, store) = store();
        let id = store.write(b"kept").unwrap();
        let unfinished = folder.path().join("chunks/tmp/0");
        fs::write(&unfinished, b"half").unwrap();
        drop(store);
        let store = ChunkStore::open(&folder.path().join("chunks")).unwrap();
        assert_eq!(store.read(&id).unwrap().unwrap(), &b"kept"[..]);
        assert!(!unfinished.exists());
    }

    #[test]
    fn writers_of_the_same_chunk_do_not_meet() {
        let (_folder, store) = store();
        std::thread::scope(|scope| {
            let writers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| store.write(&[5; 70_000]).unwrap())).collect();
            for writer in writers {
                assert_eq!(writer.join().unwrap(), ChunkId::of(&[5; 70_000]));
            }
        });
    }
    /// As the collector does, where nothing is named.
    fn collect(store: &ChunkStore, id: &ChunkId) -> bool {
        store.condemn(id, Duration::ZERO).unwrap() == Sentence::Condemned
            && store.delete_condemned(id).unwrap()
    }

    #[test]
    fn figures_are_those_of_the_files() {
        let (folder, store) = store();
        let id = store.write(b"hello").unwrap();
        store.write(b"hello").unwrap();
        store.write(b"you").unwrap();
        let counted = |store: &ChunkStore| (store.figures().files, store.figures().bytes);
        assert_eq!(counted(&store), (2, 8));
        fs::write(folder.path().join("chunks/ab/not-a-chunk"), b"of somebody else").unwrap();
        assert_eq!(counted(&ChunkStore::open(&folder.path().join("chunks")).unwrap()), (2, 8));
        assert!(collect(&store, &id) && !collect(&store, &id));
        let figures = store.figures();
        assert_eq!((counted(&store), figures.collected, figures.collected_bytes), ((1, 3), 1, 5));
        let id = store.write(b"gone bad").unwrap();
        fs::write(store.path(&id), b"gone sad").unwrap();
        assert_eq!(store.examine(&id).unwrap(), ChunkState::Damaged);
        assert_eq!(counted(&store), (1, 3));
    }

    #[test]
    fn what_is_lacking_is_counted_until_it_comes_or_is_let_go() {
        let (_folder, store) = store();
        let (id, other) = (ChunkId::of(b"late"), ChunkId([5; 32]));
        let missing = |store: &ChunkStore| (store.figures().missing, store.figures().missing_bytes);
        for _ in 0..2 {
            store.lacks(id, 4);
            store.lacks(other, 10);
        }
        assert_eq!(missing(&store), (2, 14));
        store.write(b"late").unwrap();
        store.lacks(id, 4);
        assert_eq!(missing(&store), (1, 10));
        store.let_go(other).unwrap();
        assert!(missing(&store) == (0, 0) && !store.is_lacking(&other));
    }

    #[test]
    fn a_chunk_stays_for_the_grace_after_it_was_touched() {
        let (_folder, store) = store();
        let id = store.write(b"hello").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        let age = || File::open(store.path(&id)).unwrap().set_modified(long_ago).unwrap();
        let grace = Duration::from_secs(30);
        assert!(matches!(store.condemn(&id, grace).unwrap(), Sentence::Spared(left) if left <= grace));
        age();
        assert_eq!(store.condemn(&id, grace).unwrap(), Sentence::Condemned);
        for touch in [
            &(|| store.touch(&id).unwrap()) as &dyn Fn() -> bool,
            &|| store.write(b"hello").unwrap() == id,
            &|| store.let_go(id).is_ok(),
        ] {
            age();
            assert_eq!(store.condemn(&id, grace).unwrap(), Sentence::Condemned);
            assert!(touch());
            assert!(!store.delete_condemned(&id).unwrap(), "the sentence was taken back");
            assert!(matches!(store.condemn(&id, grace).unwrap(), Sentence::Spared(_)));
        }
        age();
        store.condemn(&id, grace).unwrap();
        store.absolve(&id);
        assert!(!store.delete_condemned(&id).unwrap());
        assert_eq!(store.condemn(&ChunkId([1; 32]), grace).unwrap(), Sentence::Gone);
        assert!(!store.touch(&ChunkId([1; 32])).unwrap());
    }

    #[test]
    fn a_pinned_chunk_stays_and_is_let_go_with_its_last_pin() {
        let (_folder, store) = store();
        let store = Arc::new(store);
        let id = ChunkId::of(b"hello");
        let pins = [store.pin(id), store.pin(id)];
        store.write(b"hello").unwrap();
        for pin in pins {
            assert!(matches!(store.condemn(&id, Duration::ZERO).unwrap(), Sentence::Spared(_)));
            drop(pin);
        }
        assert_eq!(store.take_let_go(), BTreeSet::from([id]));
        assert_eq!(store.condemn(&id, Duration::ZERO).unwrap(), Sentence::Condemned);
        let pin = store.pin(id);
        assert!(!store.delete_condemned(&id).unwrap(), "it was pinned after it was condemned");
        drop(pin);
        assert!(collect(&store, &id));
    }

    /// Writers that name what they were told is here, against a collector that deletes whatever nobody names. It gives them
    /// time between its question and its deed, and they give it time to do it.
    #[test]
    fn a_chunk_that_a_writer_was_told_of_is_never_deleted_once_it_is_named() {
        const TURNS: usize = 100;
        let (_folder, store) = store();
        let store = Arc::new(store);
        let named = Mutex::new(BTreeSet::new());
        let (told, passes, writing) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(2));
        let chunks: Vec<Vec<u8>> = (0..4u8).map(|number| vec![number; 100]).collect();
        let collect_once = |id: &ChunkId| {
            if store.condemn(id, Duration::ZERO).unwrap() != Sentence::Condemned {
                return false;
            }
            if named.lock().unwrap().contains(id) {
                store.absolve(id);
                return false;
            }
            // Only what a writer is told of meanwhile is worth deleting here.
            let before = told.load(Ordering::SeqCst);
            let is_told = (0..1_000).any(|_| {
                std::thread::yield_now();
                told.load(Ordering::SeqCst) != before
            });
            if !is_told {
                store.absolve(id);
                return false;
            }
            store.delete_condemned(id).unwrap()
        };
        let write_once = |chunk: &[u8]| {
            let pin = store.pin(ChunkId::of(chunk));
            let id = store.write(chunk).unwrap();
            named.lock().unwrap().insert(id);
            drop(pin);
            told.fetch_add(1, Ordering::SeqCst);
            let before = passes.load(Ordering::SeqCst);
            while passes.load(Ordering::SeqCst) < before + 2 {
                std::thread::yield_now();
            }
            assert_eq!(store.read(&id).unwrap().as_deref(), Some(chunk), "it is named, and gone");
            named.lock().unwrap().remove(&id);
        };
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| {
                let mut deleted = 0;
                while writing.load(Ordering::SeqCst) > 0 {
                    deleted += chunks.iter().filter(|chunk| collect_once(&ChunkId::of(chunk))).count();
                    passes.fetch_add(1, Ordering::SeqCst);
                }
                deleted
            });
            for own in chunks.chunks(2) {
                let (writing, write_once) = (&writing, &write_once);
                scope.spawn(move || {
                    let written = catch_unwind(AssertUnwindSafe(|| {
                        (0..TURNS).for_each(|turn| write_once(&own[turn % 2]));
                    }));
                    // The collector ends when nobody writes, also if this has failed.
                    writing.fetch_sub(1, Ordering::SeqCst);
                    written.unwrap_or_else(|failure| resume_unwind(failure));
                });
            }
            assert!(collector.join().unwrap() > 0, "nothing was ever deleted");
        });
    }
}
