//! Chunk files: the bytes of values too large for a row, one file per chunk, named by its BLAKE3 hash.
//!
//! The rule this file upholds: a chunk that [`ChunkStore::write`] has returned survives a power cut, and
//! [`ChunkStore::read`] gives the bytes of that name or none at all. Chunks that no manifest names (an
//! upload that broke off) are not removed here; that is the purge's work.
//!
//! Layout of the folder: `ab/<64 hexadecimal digits>` by the first byte of the name, `tmp/` for files being
//! written (emptied at open), `damaged/` for files whose bytes no longer match their name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use replication::ChunkId;
use replication::entry::CHUNK_BYTES;

const UNFINISHED: &str = "tmp";
const DAMAGED: &str = "damaged";

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

/// The folder of chunk files. All methods block on the disk.
pub struct ChunkStore {
    folder: PathBuf,
    /// Names the next unfinished file: unique within the process, and `tmp/` is emptied at open.
    next_unfinished: AtomicU64,
}

impl ChunkStore {
    /// Opens (or creates, durably) the folder. One store per folder: a second one would empty the first
    /// one's `tmp/`.
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
        Ok(Self { folder: folder.to_owned(), next_unfinished: AtomicU64::new(0) })
    }

    /// Whether the chunk is here. Its bytes are not checked; [`ChunkStore::read`] does that.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.path(id).exists()
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
        let len = file.metadata()?.len().min(CHUNK_BYTES as u64) as usize;
        let mut bytes = Vec::with_capacity(len + 1);
        file.take(CHUNK_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if ChunkId::of(&bytes) == *id {
            return Ok(ChunkState::Good(bytes.into()));
        }
        tracing::warn!(chunk = %id, "a chunk file is damaged: moved aside, to be fetched again");
        match fs::rename(&path, self.folder.join(DAMAGED).join(id.to_string())) {
            // Another reader has moved it already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ChunkState::Damaged),
            moved => moved.map(|()| ChunkState::Damaged),
        }
    }

    /// Stores a chunk of at most [`CHUNK_BYTES`]; durable when it returns (temporary file, fsync, rename,
    /// fsync of the folder). A chunk that is here already is not written again.
    pub fn write(&self, bytes: &[u8]) -> io::Result<ChunkId> {
        if bytes.len() > CHUNK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a chunk is at most 512 KiB"));
        }
        let id = ChunkId::of(bytes);
        let path = self.path(&id);
        // Read, not only looked for: a damaged file must not stand in for these bytes.
        if self.read(&id)?.is_none() {
            let number = self.next_unfinished.fetch_add(1, Ordering::Relaxed);
            let unfinished = self.folder.join(UNFINISHED).join(number.to_string());
            write_and_rename(bytes, &unfinished, &path).inspect_err(|_| {
                let _ = fs::remove_file(&unfinished);
            })?;
        }
        // Also for a chunk found here: another writer may have renamed it and not synced the folder yet.
        sync_folder(path.parent().unwrap_or(&self.folder))?;
        Ok(id)
    }

    fn path(&self, id: &ChunkId) -> PathBuf {
        let name = id.to_string();
        self.folder.join(&name[..2]).join(name)
    }
}

fn write_and_rename(bytes: &[u8], unfinished: &Path, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
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
}
