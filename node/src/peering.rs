//! What the rest of the node asks of the links: chunks and figures. In quarantine there are none to ask.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use replication::budget::{Burst, Rate, Scope};
use replication::{ChunkId, ReplicaId};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};

use crate::chunk_flight::ChunkFetch;
use crate::http::{LinkControl, links_of};
use crate::transport::{
    Call, CallError, LinkError, LinkStats, LinkView, Months, Passed, SharedBudget, Transport, Urgency,
};

/// The node's transport; none in quarantine.
pub(crate) struct Peering(pub(crate) Option<Transport>);

impl Peering {
    /// Figures of the link to this replica, where there is one.
    pub(crate) fn link_stats(&self, replica: ReplicaId) -> Option<LinkStats> {
        self.0.as_ref()?.link_stats(replica)
    }

    /// The calls of other PoPs.
    pub(crate) fn take_calls(&self) -> Option<mpsc::Receiver<Call>> {
        self.0.as_ref()?.take_calls()
    }

    /// Has budgets follow schedules and monthly caps, and tells what was sent in each month.
    pub(crate) fn review_budgets(&self, unix_s: u64) -> Option<Months> {
        let transport = self.0.as_ref()?;
        for Passed { links, percent, sent_bytes, cap_bytes } in transport.review_budgets(unix_s) {
            let links = links_of(links).name();
            tracing::warn!(links, sent_bytes, cap_bytes, "{percent} % of a monthly cap are used up");
        }
        Some(transport.months())
    }
}

impl LinkControl for Peering {
    fn links(&self) -> Vec<LinkView> {
        self.0.as_ref().map(Transport::links).unwrap_or_default()
    }

    fn shared_budgets(&self) -> Vec<SharedBudget> {
        self.0.as_ref().map(Transport::shared_budgets).unwrap_or_default()
    }

    fn set_budget(&self, scope: &Scope<String>, rate: Option<Rate>) -> Result<(), LinkError> {
        self.0.as_ref().ok_or(LinkError::Quarantined)?.set_budget(scope, rate)
    }

    fn burst(&self) -> Burst {
        self.0.as_ref().map(Transport::burst).unwrap_or_default()
    }

    fn set_burst(&self, burst: Burst) -> Result<(), LinkError> {
        self.0.as_ref().ok_or(LinkError::Quarantined)?.set_burst(burst);
        Ok(())
    }

    fn pause(&self, pop: &str, paused: bool) -> Result<(), LinkError> {
        self.0.as_ref().ok_or(LinkError::Quarantined)?.pause(pop, paused)
    }

    fn call<'a>(&'a self, pop: &'a str) -> BoxFuture<'a, Result<DuplexStream, CallError>> {
        Box::pin(async move {
            match &self.0 {
                Some(transport) => transport.call(pop).await,
                None => Err(CallError::NoLink { pop: pop.to_owned() }),
            }
        })
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
