//! Chunk files: the bytes of values too large for a row, one file per chunk, named by its BLAKE3 hash.

use std::path::Path;

use bytes::Bytes;
use replication::ChunkId;

/// The folder of chunk files.
pub struct ChunkStore {}

impl ChunkStore {
    /// Opens (or creates, durably) the folder.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let _ = folder;
        todo!()
    }

    /// Whether the chunk is here.
    pub fn contains(&self, id: &ChunkId) -> bool {
        let _ = id;
        todo!()
    }

    /// The bytes of a chunk, checked against its name; `None` when it is not here. A damaged file is
    /// moved aside and reported as not here, so that it is fetched again.
    pub fn read(&self, id: &ChunkId) -> std::io::Result<Option<Bytes>> {
        let _ = id;
        todo!()
    }

    /// Stores a chunk; durable when it returns (temporary file, fsync, rename, fsync of the folder).
    pub fn write(&self, bytes: &[u8]) -> std::io::Result<ChunkId> {
        let _ = bytes;
        todo!()
    }
}
