//! What the replica tells of, and what becomes of that: it is logged, told to those who are to hear of it, or ends this
//! node's service.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use replication::replica::Event;
use replication::{ChunkId, Kind, RemovalReason, Replica};

use super::Driver;
use crate::engine::ChunkNews;

impl Driver {
    /// Takes all that there is.
    pub(super) fn handle_events(&mut self) {
        let mut system_changed = false;
        let mut members_changed = false;
        let (mut wanted, mut released) = (Vec::new(), Vec::new());
        while let Some(event) = self.replica.as_mut().and_then(Replica::poll_event) {
            match event {
                Event::SystemChanged => system_changed = true,
                Event::ChunksWanted(chunks) => wanted.extend(chunks),
                Event::ChunksReleased(chunks) => released.extend(chunks),
                Event::MembersChanged => members_changed = true,
                Event::Recorded { dot, id, .. } => {
                    let key = id.key.escape_ascii();
                    match id.kind {
                        // Keys of clients are told to who asks for them only.
                        Kind::Doc => tracing::debug!(event = ?dot, %key, "mended the history of a document"),
                        Kind::Bounded => {
                            tracing::debug!(event = ?dot, %key, "gave rights of a bounded counter")
                        }
                        _ => tracing::info!(event = ?dot, %key, "recorded a change of the members"),
                    }
                }
                Event::WrittenAnew { old, new, .. } => {
                    tracing::info!(?old, ?new, "a write of this node's earlier incarnation was written anew");
                }
                Event::OlderCopy { peer } => self.stop_serving(&format!(
                    "peer {} holds events of this store that it lacks itself: it is an older copy, or a clone",
                    self.pop_of(peer)
                )),
                Event::Cloned { peer } => self.stop_serving(&format!(
                    "peer {} hears of two processes under this store's identity: its data folder was cloned",
                    self.pop_of(peer)
                )),
                Event::Behind { .. } => self.come_back("the cluster has dropped deletes that this store has not seen"),
                Event::Removed { reason: RemovalReason::Silent } => {
                    self.come_back("this node was away for too long and was evicted from the cluster");
                }
                Event::Removed { reason: RemovalReason::Operator } => {
                    self.stop_serving("an operator has removed this node from the cluster");
                }
                Event::Removed { reason: RemovalReason::Replaced } => {
                    self.stop_serving("a later incarnation of this PoP has taken its place");
                }
                Event::Verified(verified) => {
                    let damage = verified.mismatches.first().filter(|_| verified.is_damaged()).cloned();
                    self.shared.verified.store(Some(Arc::new(*verified)));
                    if let Some(damage) = damage {
                        self.stop_serving(&damage.to_string());
                    }
                }
                Event::RoundEnded { peer, repaired } => {
                    let peer = self.pop_of(peer);
                    if repaired > 0 {
                        tracing::warn!(%peer, repaired, "anti-entropy found entries missing that bookkeeping had claimed");
                    } else {
                        tracing::debug!(%peer, "anti-entropy round ended");
                    }
                }
            }
        }
        self.tell_of_chunks(wanted, released.into_iter().collect());
        if members_changed {
            self.read_pops();
        }
        if system_changed {
            self.shared.system_version.fetch_add(1, Ordering::Release);
        }
    }

    /// Tells what has become of the names of these chunks.
    fn tell_of_chunks(&mut self, wanted: Vec<(ChunkId, u64)>, mut released: BTreeSet<ChunkId>) {
        let Some(replica) = &self.replica else { return };
        // One that is in both was named and let go in one turn, in whichever order. A store that has failed cannot tell; opened
        // again, it is looked through.
        let is_named = |chunk: &ChunkId| replica.is_chunk_named(chunk).unwrap_or(true);
        let is_wanted = |(chunk, _): &(ChunkId, u64)| !released.contains(chunk) || is_named(chunk);
        let wanted: Vec<_> = wanted.into_iter().filter(is_wanted).collect();
        for (chunk, _) in &wanted {
            released.remove(chunk);
        }
        let wanted = wanted.into_iter().map(|(chunk, bytes)| ChunkNews::Wanted { chunk, bytes });
        let released = released.into_iter().map(|chunk| ChunkNews::Released { chunk });
        for news in wanted.chain(released) {
            // A full queue loses no chunk: a read asks for what it lacks, and all is looked for again.
            let _ = self.chunk_news.try_send(news);
        }
    }
}
