//! Pulls the chunks of large values that came in by replication, so that a read finds them here.
//!
//! A chunk that cannot be had now is tried again in a while: its holder may be away. It holds up no other meanwhile, and
//! is given up when no value names it any more. Nothing depends on it; a read of a value whose chunk is still missing
//! fetches it first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use replication::ChunkId;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::chunk_flight::ChunkFlights;
use crate::chunks::ChunkStore;
use crate::engine::{ChunkNews, Engine};
use crate::transport::Urgency;

/// Chunks pulled at once.
const AT_ONCE: usize = 4;

/// The pause before a chunk that nobody had is asked for again, and its bound.
const RETRY_AFTER: Duration = Duration::from_millis(500);
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// How often all that is named is looked for: what was damaged, say.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// How soon where the queue of news had no room for more.
const LOOK_SOON: Duration = Duration::from_secs(60);

/// News taken at once.
const NEWS_AT_ONCE: usize = 256;

/// A chunk to be pulled: when next, and how long to wait after that.
type Due = (Instant, ChunkId, Duration);

struct Puller {
    chunks: Arc<ChunkStore>,
    flights: Arc<ChunkFlights>,
    /// Of chunks that are lacking, those that are not being pulled at this moment.
    due: BTreeSet<Due>,
    /// Each gives when to try again, if that is needed.
    pulling: JoinSet<Option<Due>>,
}

/// Pulls what comes in by the news, beginning with what was still missing when this node last stopped.
pub(crate) async fn run(
    mut news: mpsc::Receiver<ChunkNews>,
    chunks: Arc<ChunkStore>,
    flights: Arc<ChunkFlights>,
    engine: Engine,
) {
    let (due, pulling) = (BTreeSet::new(), JoinSet::new());
    let mut puller = Puller { chunks, flights, due, pulling };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut told = Vec::new();
    loop {
        puller.pull();
        let next = puller.due.first().map_or_else(|| Instant::now() + RETRY_AT_MOST, |due| due.0);
        let is_full = puller.pulling.len() >= AT_ONCE;
        tokio::select! {
            count = news.recv_many(&mut told, NEWS_AT_ONCE) => {
                if count == 0 {
                    return;
                }
                if news.len() + count >= news.max_capacity() {
                    looks.reset_after(LOOK_SOON);
                }
                puller.hear(std::mem::take(&mut told)).await;
            }
            Some(ended) = puller.pulling.join_next() => puller.due.extend(ended.ok().flatten()),
            () = sleep_until(next), if !is_full => {}
            _ = looks.tick() => puller.look(&engine).await,
        }
    }
}

impl Puller {
    /// Pulls as many as there are slots for.
    fn pull(&mut self) {
        while self.pulling.len() < AT_ONCE
            && let Some(due) = self.due.first().copied().filter(|due| due.0 <= Instant::now())
        {
            self.due.remove(&due);
            // It may have come for a reader, or be named no more.
            if self.chunks.is_lacking(&due.1) {
                self.pulling.spawn(pull(due, self.chunks.clone(), self.flights.clone()));
            }
        }
    }

    async fn hear(&mut self, told: Vec<ChunkNews>) {
        let chunks = self.chunks.clone();
        let lacking = spawn_blocking(move || {
            let mut lacking = Vec::new();
            for news in told {
                let heard = match news {
                    // Touched, since it is counted on from now on.
                    ChunkNews::Wanted { chunk, bytes } => chunks.touch(&chunk).map(|is_here| {
                        if !is_here && !chunks.is_lacking(&chunk) {
                            chunks.lacks(chunk, bytes);
                            lacking.push(chunk);
                        }
                    }),
                    ChunkNews::Released { chunk } => chunks.let_go(chunk),
                };
                if let Err(error) = heard {
                    tracing::warn!(%error, "a chunk file cannot be looked at");
                }
            }
            lacking
        });
        self.take(lacking.await.unwrap_or_default());
    }

    /// Looks for everything that is named.
    async fn look(&mut self, engine: &Engine) {
        let (engine, chunks) = (engine.clone(), self.chunks.clone());
        let lacking = spawn_blocking(move || {
            let mut lacking = Vec::new();
            for (chunk, bytes) in engine.chunks_named(&|chunk| !chunks.contains(chunk)) {
                if !chunks.is_lacking(&chunk) {
                    chunks.lacks(chunk, bytes);
                    lacking.push(chunk);
                }
            }
            lacking
        });
        self.take(lacking.await.unwrap_or_default());
    }

    fn take(&mut self, lacking: Vec<ChunkId>) {
        let now = Instant::now();
        self.due.extend(lacking.into_iter().map(|chunk| (now, chunk, RETRY_AFTER)));
    }
}

/// Pulls one chunk. Gives when to try again.
async fn pull((_, chunk, pause): Due, chunks: Arc<ChunkStore>, flights: Arc<ChunkFlights>) -> Option<Due> {
    if let Err(error) = flights.fetch(chunk, Urgency::Background).await {
        tracing::debug!(%chunk, %error, "a chunk could not be had yet");
    }
    chunks.is_lacking(&chunk).then(|| (Instant::now() + pause, chunk, (pause * 2).min(RETRY_AT_MOST)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use replication::DigestKey;
    use tokio::sync::watch;

    use super::*;
    use crate::chunk_flight::ChunkFetch;
    use crate::engine::Settings;

    /// Has one chunk.
    struct Peer(Bytes);

    impl ChunkFetch for Peer {
        fn fetch(&self, id: ChunkId, _: watch::Receiver<Urgency>) -> BoxFuture<'_, Result<Bytes, String>> {
            let found = (ChunkId::of(&self.0) == id).then(|| self.0.clone());
            Box::pin(async move { found.ok_or_else(|| "no peer has it".to_owned()) })
        }
    }

    /// Four that nobody had once kept all slots for ever.
    #[tokio::test]
    async fn chunks_that_nobody_has_hold_up_no_other_and_are_given_up_when_they_are_released() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            pop: "a".into(),
            region: "here".into(),
            peers: Vec::new(),
            data_folder: folder.path().to_owned(),
            cache_bytes: 16 << 20,
            min_free_bytes: 0,
            replica: replication::Settings::new([1; 16], DigestKey::new([2; 32])),
        };
        let engine = Engine::start(settings, mpsc::channel(1).0).unwrap();
        let chunks = Arc::new(ChunkStore::open(&folder.path().join("chunks")).unwrap());
        let flights = ChunkFlights::new(chunks.clone(), Arc::new(Peer(Bytes::from_static(b"here"))));
        let (tell, news) = mpsc::channel(100);
        let pulling = tokio::spawn(run(news, chunks.clone(), flights, engine.clone()));

        let lost = (0..2 * AT_ONCE as u8).map(|number| ChunkId([number; 32]));
        for chunk in lost.clone() {
            tell.send(ChunkNews::Wanted { chunk, bytes: 10 }).await.unwrap();
        }
        let chunk = ChunkId::of(b"here");
        tell.send(ChunkNews::Wanted { chunk, bytes: 4 }).await.unwrap();
        while !chunks.contains(&chunk) || chunks.figures().missing_bytes != 80 {
            tokio::task::yield_now().await;
        }
        for chunk in lost {
            tell.send(ChunkNews::Released { chunk }).await.unwrap();
        }
        while chunks.figures().missing > 0 {
            tokio::task::yield_now().await;
        }
        drop(tell);
        pulling.await.unwrap();
        engine.shutdown().await;
    }
}
