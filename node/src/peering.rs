//! What the rest of the node asks of the links: chunks and figures. In quarantine there are none to ask.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use replication::budget::{Rate, Scope};
use replication::{ChunkId, ReplicaId};
use tokio::sync::watch;

use crate::chunk_flight::ChunkFetch;
use crate::http::LinkControl;
use crate::transport::{LinkStats, LinkView, NoSuchLink, SharedBudget, Transport, Urgency};

/// The node's transport; none in quarantine.
pub(crate) struct Peering(pub(crate) Option<Transport>);

impl Peering {
    /// Figures of the link to this replica, where there is one.
    pub(crate) fn link_stats(&self, replica: ReplicaId) -> Option<LinkStats> {
        self.0.as_ref()?.link_stats(replica)
    }
}

impl LinkControl for Peering {
    fn links(&self) -> Vec<LinkView> {
        self.0.as_ref().map(Transport::links).unwrap_or_default()
    }

    fn shared_budgets(&self) -> Vec<SharedBudget> {
        self.0.as_ref().map(Transport::shared_budgets).unwrap_or_default()
    }

    fn set_budget(&self, scope: &Scope<String>, rate: Option<Rate>) -> Result<(), NoSuchLink> {
        self.0.as_ref().map_or(Ok(()), |transport| transport.set_budget(scope, rate))
    }

    fn pause(&self, pop: &str, paused: bool) -> Result<(), NoSuchLink> {
        let none = || NoSuchLink { pop: pop.to_owned() };
        self.0.as_ref().ok_or_else(none)?.pause(pop, paused)
    }
}

impl ChunkFetch for Peering {
    fn fetch(&self, id: ChunkId, urgency: watch::Receiver<Urgency>) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            match &self.0 {
                Some(transport) => {
                    transport.fetch_chunk(id, urgency).await.map_err(|error| error.to_string())
                }
                None => Err("this node has no links: its store is quarantined".into()),
            }
        })
    }
}
