//! Large values on their way in and out: cut into chunks when written, put together when read.
//!
//! The rule this file upholds: a reader gets the whole value or an error. Bytes are sent only once they are
//! checked, and when a later chunk cannot be had the connection breaks off short of its Content-Length.
//! Memory stays at one chunk per request that writes; of those that read, all together hold [`MAX_RECENT_CHUNKS`], and
//! each a piece of [`PIECE_BYTES`], however slowly its client takes it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use replication::entry::{CHUNK_BYTES, MAX_INLINE_BYTES, MAX_VALUE_BYTES};
use replication::{ChunkId, Manifest, Payload};

use super::error::ApiError;
use crate::chunk_flight::ChunkFlights;
use crate::chunks::{ChunkStore, Pin};
use crate::engine::{Ack, Engine};
use crate::transport::Urgency;

/// How much of a value is handed out at a time.
const PIECE_BYTES: usize = 64 << 10;
/// The most chunks in memory for those who are reading them: 64 MiB.
const MAX_RECENT_CHUNKS: usize = 128;

/// Where chunks are kept, and where missing ones come from.
#[derive(Clone)]
pub(crate) struct Chunks {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<ChunkStore>,
    pub(crate) flights: Arc<ChunkFlights>,
    pub(crate) recent: Arc<Recent>,
}

/// The chunks that were read last, the one read longest ago in front. Whoever is slow reads a chunk again for its next
/// piece; 300 slow readers held 200 MB before.
#[derive(Default)]
pub(crate) struct Recent(Mutex<VecDeque<(ChunkId, Bytes)>>);

impl Recent {
    fn find(&self, id: &ChunkId) -> Option<Bytes> {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = chunks.iter().position(|(held, _)| held == id).and_then(|at| chunks.remove(at))?;
        let bytes = found.1.clone();
        chunks.push_back(found);
        Some(bytes)
    }

    fn keep(&self, id: ChunkId, bytes: Bytes) {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chunks.iter().any(|(held, _)| *held == id) {
            return;
        }
        if chunks.len() == MAX_RECENT_CHUNKS {
            chunks.pop_front();
        }
        chunks.push_back((id, bytes));
    }
}

impl Chunks {
    /// A value as the body of an answer. The first piece is at hand when this returns.
    pub(crate) async fn body(&self, manifest: Manifest) -> Result<Body, ApiError> {
        let first = self.piece(&manifest, 0).await?;
        let chunks = self.clone();
        let rest = stream::try_unfold((first.len() as u64, manifest), move |(start, manifest)| {
            let chunks = chunks.clone();
            async move {
                if start == manifest.len {
                    return Ok::<_, ApiError>(None);
                }
                let bytes = chunks.piece(&manifest, start).await.inspect_err(|error| {
                    tracing::warn!(%error, "a large value broke off while it was sent");
                })?;
                Ok(Some((bytes.clone(), (start + bytes.len() as u64, manifest))))
            }
        });
        let first = stream::once(std::future::ready(Ok(first)));
        Ok(Body::from_stream(futures_util::StreamExt::chain(first, rest)))
    }

    /// A value in memory, for the few operations that need it whole.
    pub(crate) async fn whole(&self, payload: Payload) -> Result<Bytes, ApiError> {
        let manifest = match payload {
            Payload::Inline(bytes) => return Ok(bytes),
            Payload::Chunked(manifest) => manifest,
        };
        let mut whole = BytesMut::new();
        for index in 0..manifest.chunks.len() {
            whole.extend_from_slice(&self.chunk(&manifest, index).await?);
        }
        Ok(whole.freeze())
    }

    /// What a value has from `start` on, at least a byte. A copy: a part of the chunk would keep all of it.
    async fn piece(&self, manifest: &Manifest, start: u64) -> Result<Bytes, ApiError> {
        let index = (start / CHUNK_BYTES as u64) as usize;
        let chunk = self.chunk(manifest, index).await?;
        self.recent.keep(manifest.chunks[index], chunk.clone());
        let from = (start % CHUNK_BYTES as u64) as usize;
        Ok(Bytes::copy_from_slice(&chunk[from..chunk.len().min(from + PIECE_BYTES)]))
    }

    /// One chunk of a value, from here or else from a peer. A manifest may have come from a peer, so its
    /// length is not taken on trust.
    async fn chunk(&self, manifest: &Manifest, index: usize) -> Result<Bytes, ApiError> {
        let unavailable = |reason: String| ApiError::ChunkUnavailable { reason };
        let start = (index * CHUNK_BYTES) as u64;
        let sound = manifest.len <= MAX_VALUE_BYTES
            && manifest.chunks.len() == Manifest::chunk_count(manifest.len)
            && start < manifest.len;
        if !sound {
            return Err(unavailable("its list of chunks does not match its length".to_owned()));
        }
        let id = manifest.chunks[index];
        let bytes = match self.recent.find(&id) {
            Some(bytes) => bytes,
            None => match self.stored(id).await? {
                Some(bytes) => bytes,
                None => self.flights.fetch(id, Urgency::Reader).await.map_err(unavailable)?,
            },
        };
        if bytes.len() as u64 != (manifest.len - start).min(CHUNK_BYTES as u64) {
            return Err(unavailable(format!(
                "chunk {id} has {} bytes, not what its value needs",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    async fn stored(&self, id: ChunkId) -> io::Result<Option<Bytes>> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.read(&id)).await.map_err(io::Error::other)?
    }

    /// Stores a chunk of a value that comes in, and keeps it until the pin is dropped.
    async fn keep(&self, bytes: Bytes) -> io::Result<Pin> {
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let pin = store.pin(ChunkId::of(&bytes));
            store.write(&bytes).map(|_| pin)
        });
        kept.await.map_err(io::Error::other)?
    }
}

/// A value that was received. Its chunks are durable, and stay at least until this is dropped: not before it is written.
pub(crate) struct Received {
    pub(crate) payload: Payload,
    pub(crate) pins: Vec<Pin>,
}

/// A value being received: kept in memory up to [`MAX_INLINE_BYTES`], beyond that stored chunk by chunk.
/// The chunks of an upload that breaks off are collected in a while.
pub(crate) struct ValueWriter<'a> {
    chunks: &'a Chunks,
    buffer: BytesMut,
    len: u64,
    stored: Vec<Pin>,
}

impl<'a> ValueWriter<'a> {
    pub(crate) fn new(chunks: &'a Chunks) -> Self {
        Self { chunks, buffer: BytesMut::new(), len: 0, stored: Vec::new() }
    }

    /// Takes the next bytes; refuses those beyond [`MAX_VALUE_BYTES`].
    pub(crate) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), ApiError> {
        self.len += bytes.len() as u64;
        if self.len > MAX_VALUE_BYTES {
            return Err(ApiError::ValueTooLarge { len: self.len });
        }
        while !bytes.is_empty() {
            if self.buffer.len() == CHUNK_BYTES {
                self.store_buffer().await?;
            }
            let (taken, left) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            bytes = left;
        }
        Ok(())
    }

    /// The value; its chunks, if it has any, are durable.
    pub(crate) async fn finish(mut self) -> Result<Received, ApiError> {
        if self.len <= MAX_INLINE_BYTES as u64 {
            return Ok(Received { payload: Payload::Inline(self.buffer.freeze()), pins: Vec::new() });
        }
        if !self.buffer.is_empty() {
            self.store_buffer().await?;
        }
        let chunks = self.stored.iter().map(Pin::chunk).collect();
        let payload = Payload::Chunked(Manifest { len: self.len, chunks });
        Ok(Received { payload, pins: self.stored })
    }

    async fn store_buffer(&mut self) -> Result<(), ApiError> {
        if self.stored.is_empty() {
            // No write at all asks whether one would be taken. A node that takes none, its disk being full
            // perhaps, must not fill the disk with chunks of values that will not be.
            self.chunks.engine.write(Vec::new(), Ack::Buffered).await?;
        }
        let chunk = self.buffer.split().freeze();
        self.stored.push(self.chunks.keep(chunk).await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_longest_ago_is_let_go_when_there_are_too_many() {
        let recent = Recent::default();
        let chunk = |n: usize| Bytes::from(n.to_string());
        let id = |n: usize| ChunkId::of(&chunk(n));
        for n in 0..MAX_RECENT_CHUNKS {
            recent.keep(id(n), chunk(n));
            recent.keep(id(n), chunk(n));
        }
        assert_eq!(recent.find(&id(0)), Some(chunk(0)));
        recent.keep(id(MAX_RECENT_CHUNKS), chunk(MAX_RECENT_CHUNKS));
        assert_eq!(recent.find(&id(0)), Some(chunk(0)), "it was read after the next one");
        assert_eq!(recent.find(&id(1)), None);
        assert_eq!(recent.0.lock().unwrap().len(), MAX_RECENT_CHUNKS);
    }
}
