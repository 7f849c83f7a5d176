//! Large values on their way in and out: cut into chunks when written, put together when read.
//!
//! The rule this file upholds: a reader gets the whole value or an error. Bytes are sent only once they are
//! checked, and when a later chunk cannot be had the connection breaks off short of its Content-Length.
//! Memory stays at one chunk per request.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream;
use replication::entry::{CHUNK_BYTES, MAX_INLINE_BYTES, MAX_VALUE_BYTES};
use replication::{ChunkId, Manifest, Payload};

use super::error::ApiError;
use crate::chunks::ChunkStore;
use crate::engine::{Ack, Engine};

/// Brings a chunk that is not here from a peer that has it.
pub trait ChunkFetch: Send + Sync {
    /// The chunk's bytes, or why no peer gave them. The caller checks them against the name.
    fn fetch(&self, id: ChunkId) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// Where chunks are kept, and where missing ones come from.
#[derive(Clone)]
pub(crate) struct Chunks {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<ChunkStore>,
    pub(crate) fetch: Arc<dyn ChunkFetch>,
}

impl Chunks {
    /// A value as the body of an answer. The first chunk is at hand when this returns.
    pub(crate) async fn body(&self, manifest: Manifest) -> Result<Body, ApiError> {
        let first = self.chunk(&manifest, 0).await?;
        let chunks = self.clone();
        let rest = stream::try_unfold((1, manifest), move |(index, manifest)| {
            let chunks = chunks.clone();
            async move {
                if index == manifest.chunks.len() {
                    return Ok::<_, ApiError>(None);
                }
                let bytes = chunks.chunk(&manifest, index).await.inspect_err(|error| {
                    tracing::warn!(%error, "a large value broke off while it was sent");
                })?;
                Ok(Some((bytes, (index + 1, manifest))))
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
        let bytes = match self.stored(id).await? {
            Some(bytes) => bytes,
            None => self.fetched(id).await.map_err(unavailable)?,
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

    async fn fetched(&self, id: ChunkId) -> Result<Bytes, String> {
        let bytes = self.fetch.fetch(id).await?;
        if ChunkId::of(&bytes) != id {
            return Err(format!("a peer sent other bytes than chunk {id}"));
        }
        // Served even if it cannot be kept: then the next reader fetches it again.
        if let Err(error) = self.keep(bytes.clone()).await {
            tracing::warn!(%error, chunk = %id, "a fetched chunk could not be stored");
        }
        Ok(bytes)
    }

    async fn keep(&self, bytes: Bytes) -> io::Result<ChunkId> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.write(&bytes)).await.map_err(io::Error::other)?
    }
}

/// A value being received: kept in memory up to [`MAX_INLINE_BYTES`], beyond that stored chunk by chunk.
/// The chunks of an upload that breaks off stay behind until they are purged.
pub(crate) struct ValueWriter<'a> {
    chunks: &'a Chunks,
    buffer: BytesMut,
    len: u64,
    stored: Vec<ChunkId>,
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
    pub(crate) async fn finish(mut self) -> Result<Payload, ApiError> {
        if self.len <= MAX_INLINE_BYTES as u64 {
            return Ok(Payload::Inline(self.buffer.freeze()));
        }
        if !self.buffer.is_empty() {
            self.store_buffer().await?;
        }
        Ok(Payload::Chunked(Manifest { len: self.len, chunks: self.stored }))
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
