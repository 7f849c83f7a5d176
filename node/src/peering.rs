//! What the rest of the node asks of the links: chunks and figures. In quarantine there are none to ask.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use replication::{ChunkId, ReplicaId};

use crate::http::ChunkFetch;
use crate::transport::{LinkStats, Transport};

/// The node's transport; none in quarantine.
pub(crate) struct Peering(pub(crate) Option<Transport>);

impl Peering {
    /// Figures of the link to this replica, where there is one.
    pub(crate) fn link_stats(&self, replica: ReplicaId) -> Option<LinkStats> {
        self.0.as_ref()?.link_stats(replica)
    }
}

impl ChunkFetch for Peering {
    fn fetch(&self, id: ChunkId) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            match &self.0 {
                Some(transport) => transport.fetch_chunk(id).await.map_err(|error| error.to_string()),
                None => Err("this node has no links: its store is quarantined".into()),
            }
        })
    }
}
