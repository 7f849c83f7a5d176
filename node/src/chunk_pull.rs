//! Pulls the chunks of large values that came in by replication, so that a read finds them here.
//!
//! A chunk that cannot be had now is tried again in a while: its holder may be away. Nothing depends on it; a
//! read of a value whose chunk is still missing fetches it first.

use std::sync::Arc;
use std::time::Duration;

use replication::ChunkId;
use tokio::sync::{Semaphore, mpsc};

use crate::chunks::ChunkStore;
use crate::engine::Engine;
use crate::http::ChunkFetch;

/// Chunks pulled at once.
const AT_ONCE: usize = 4;

/// The pause before a chunk that nobody had is asked for again, and its bound.
const RETRY_AFTER: Duration = Duration::from_millis(500);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// Pulls what comes in on `wanted`, beginning with what was still missing when this node last stopped.
pub(crate) async fn run(
    mut wanted: mpsc::Receiver<ChunkId>,
    chunks: Arc<ChunkStore>,
    fetch: Arc<dyn ChunkFetch>,
    engine: Engine,
) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let missing = {
        let chunks = chunks.clone();
        tokio::task::spawn_blocking(move || engine.chunks_named(&|chunk| !chunks.contains(chunk))).await
    };
    for chunk in missing.unwrap_or_default() {
        pull(chunk, &slots, &chunks, &fetch).await;
    }
    while let Some(chunk) = wanted.recv().await {
        if !chunks.contains(&chunk) {
            pull(chunk, &slots, &chunks, &fetch).await;
        }
    }
}

/// Pulls one chunk as soon as there is a slot for it.
async fn pull(chunk: ChunkId, slots: &Arc<Semaphore>, chunks: &Arc<ChunkStore>, fetch: &Arc<dyn ChunkFetch>) {
    let Ok(slot) = slots.clone().acquire_owned().await else { return };
    let (chunks, fetch) = (chunks.clone(), fetch.clone());
    tokio::spawn(async move {
        let mut pause = RETRY_AFTER;
        while !chunks.contains(&chunk) {
            match fetch.fetch(chunk).await {
                Ok(bytes) => {
                    let chunks = chunks.clone();
                    let stored = tokio::task::spawn_blocking(move || chunks.write(&bytes)).await;
                    if let Ok(Err(error)) = stored {
                        tracing::warn!(%chunk, %error, "a chunk could not be stored; it is tried again");
                    }
                }
                Err(error) => tracing::debug!(%chunk, %error, "a chunk could not be had yet"),
            }
            if !chunks.contains(&chunk) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_AT_MOST);
            }
        }
        drop(slot);
    });
}
