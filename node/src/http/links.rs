//! The pages about links: what is sent to whom, within which budgets, and how long it will take.
//!
//! The rule this file upholds: an order changes this node until it stops, and no other; what is to outlast it belongs into
//! the configuration.

use axum::body::Body;
use axum::extract::State;
use axum::response::Json;
use futures_util::future::BoxFuture;
use hyper::HeaderMap;
use littoral::api::links::{
    Budget, Link, Links, LinksReport, Month, Pause, SetBudget, SetBurst, SetLinkBudget, Why,
};
use littoral::api::{Lag, Status};
use replication::budget::{BURST_MS, Burst, LinkClass, MAX_RATE, MIN_RATE, Rate, Scope};
use tokio::io::DuplexStream;

use super::error::PageError;
use super::members::{Named, order};
use super::native::Native;
use crate::transport::{self, CallError, LinkError, LinkView, SharedBudget};

/// A PoP that is further behind than this gets of what is overwritten the last state only.
const COALESCING_AFTER_MS: u64 = 1_000;

/// The links, as these pages need them.
pub trait LinkControl: Send + Sync {
    /// Every PoP that is linked, or to be.
    fn links(&self) -> Vec<LinkView>;
    /// What links share.
    fn shared_budgets(&self) -> Vec<SharedBudget>;
    /// Sets or lifts a budget.
    fn set_budget(&self, scope: &Scope<String>, rate: Option<Rate>) -> Result<(), LinkError>;
    /// What may go at once after a pause, of every budget.
    fn burst(&self) -> Burst;
    /// Sets that.
    fn set_burst(&self, burst: Burst) -> Result<(), LinkError>;
    /// Has nothing but heartbeats sent, or all again.
    fn pause(&self, pop: &str, paused: bool) -> Result<(), LinkError>;
    /// Calls a PoP: see [`transport::Transport::call`].
    fn call<'a>(&'a self, pop: &'a str) -> BoxFuture<'a, Result<DuplexStream, CallError>>;
}

type Page = Result<Json<LinksReport>, PageError>;

pub(super) async fn list(State(native): State<Native>, headers: HeaderMap) -> Page {
    native.authorize(&headers)?;
    report(&native).await
}

pub(super) async fn set_shared(State(native): State<Native>, headers: HeaderMap, body: Body) -> Page {
    let SetBudget { of, bytes_per_s } = order(&native, &headers, body).await?;
    let scope = match of {
        Links::Node => Scope::Node,
        Links::Region => Scope::Class(LinkClass::Region),
        Links::InterRegion => Scope::Class(LinkClass::InterRegion),
        Links::Metered => Scope::Class(LinkClass::Metered),
    };
    native.links.set_budget(&scope, rate(bytes_per_s)?)?;
    tracing::info!(?of, bytes_per_s, "a budget was changed");
    report(&native).await
}

pub(super) async fn set_burst(State(native): State<Native>, headers: HeaderMap, body: Body) -> Page {
    let SetBurst { burst_ms } = order(&native, &headers, body).await?;
    let (least, most) = (BURST_MS.start(), BURST_MS.end());
    let out_of_bounds = || PageError::OrderNotUnderstood {
        reason: format!("burst_ms is {burst_ms}: use {least} to {most} milliseconds"),
    };
    native.links.set_burst(Burst::new(burst_ms).ok_or_else(out_of_bounds)?)?;
    tracing::info!(burst_ms, "the burst of budgets was changed");
    report(&native).await
}

pub(super) async fn set_own(
    State(native): State<Native>,
    Named(pop): Named,
    headers: HeaderMap,
    body: Body,
) -> Page {
    let SetLinkBudget { bytes_per_s } = order(&native, &headers, body).await?;
    native.links.set_budget(&Scope::Link(pop.clone()), rate(bytes_per_s)?)?;
    tracing::info!(%pop, bytes_per_s, "the budget of a link was changed");
    report(&native).await
}

pub(super) async fn pause(
    State(native): State<Native>,
    Named(pop): Named,
    headers: HeaderMap,
    body: Body,
) -> Page {
    let Pause { paused } = order(&native, &headers, body).await?;
    native.links.pause(&pop, paused)?;
    tracing::info!(%pop, paused, "a link was paused, or goes on");
    report(&native).await
}

fn rate(bytes_per_s: Option<u64>) -> Result<Option<Rate>, PageError> {
    let out_of_bounds = |given| PageError::OrderNotUnderstood {
        reason: format!("bytes_per_s is {given}: use {MIN_RATE} to {MAX_RATE}, or null for no limit"),
    };
    bytes_per_s.map(|given| Rate::new(given).ok_or_else(|| out_of_bounds(given))).transpose()
}

async fn report(native: &Native) -> Page {
    let status = native.status().await.map_err(|reason| PageError::Busy { reason })?;
    let links = native.links.links().into_iter().map(|view| link(&status, view)).collect();
    let budgets = native.links.shared_budgets().into_iter().map(budget).collect();
    Ok(Json(LinksReport { budgets, links, burst_ms: native.links.burst().ms(), pop: status.pop }))
}

fn budget(shared: SharedBudget) -> Budget {
    let transport::MonthView { name, sent_bytes, cap_bytes, used_up_at_s } = shared.month;
    Budget {
        of: links_of(shared.class),
        bytes_per_s: shared.base.map(Rate::bytes_per_s),
        in_force_bytes_per_s: shared.in_force.rate.map(Rate::bytes_per_s),
        why: match shared.in_force.why {
            transport::Why::Base => Why::Base,
            transport::Why::Schedule { until_s } => Why::Schedule { until_s },
            transport::Why::MonthlyCap => Why::MonthlyCap,
        },
        month: Month { name, sent_bytes, cap_bytes, used_up_at_s },
        sent_bytes: shared.sent.bytes,
        sent_bytes_per_s: shared.sent.bytes_per_s,
    }
}

fn link(status: &Status, view: LinkView) -> Link {
    let is_ours = |lag: &&Lag| lag.origin == status.pop && lag.peer == view.pop;
    let Lag { ops: behind_ops, bytes: behind_bytes, time_ms: behind_ms, gone_in_ms, .. } =
        status.lag.iter().find(is_ours).cloned().unwrap_or_default();
    let is_sending = view.up.is_some() && !view.is_paused;
    Link {
        up: view.up.is_some(),
        kind: view.up.map(|up| links_of(Some(up.class))),
        is_relay: status.peers.iter().any(|peer| peer.pop == view.pop && peer.is_relay),
        paused: view.is_paused,
        bytes_per_s: view.budget.map(Rate::bytes_per_s),
        tightest_bytes_per_s: view.up.and_then(|up| up.tightest).map(Rate::bytes_per_s),
        sent_bytes: view.sent.bytes,
        sent_bytes_per_s: view.sent.bytes_per_s,
        rtt_us: view.up.map(|up| up.rtt_us),
        behind_ops,
        behind_bytes,
        behind_ms,
        coalescing: is_sending && behind_ms > COALESCING_AFTER_MS,
        gone_in_ms: if behind_ops == 0 { Some(0) } else { gone_in_ms.filter(|_| is_sending) },
        pop: view.pop,
    }
}

/// What the API, the command line and metrics call the links of a class; without one, all of the node.
pub(crate) fn links_of(class: Option<LinkClass>) -> Links {
    match class {
        None => Links::Node,
        Some(LinkClass::Region) => Links::Region,
        Some(LinkClass::InterRegion) => Links::InterRegion,
        Some(LinkClass::Metered) => Links::Metered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{PerLinks, Sent, Up};
    use littoral::api::Peer;
    use replication::ReplicaId;

    /// Of `ams`, behind which `sin` is.
    fn status(lag: Lag, is_relay: bool) -> Status {
        let none: Status = serde_json::from_value(serde_json::json!({
            "pop": "ams", "region": "eu", "replica": "", "version": "", "state": "ready", "root": "", "entries": 0,
            "vector": [], "peers": [], "lag": [],
        }))
        .unwrap();
        Status {
            peers: vec![Peer { pop: "sin".into(), is_relay, ..Peer::default() }],
            lag: vec![lag],
            ..none
        }
    }

    #[test]
    fn a_link_says_how_long_its_backlog_will_last_only_while_it_is_being_sent() {
        let up = Up {
            replica: ReplicaId([1; 16]),
            class: LinkClass::Metered,
            rtt_us: 80_000,
            tightest: Rate::new(1_000_000),
        };
        let sent = Sent { bytes: 5_000_000, bytes_per_s: 500_000 };
        let view = |up, is_paused| LinkView { pop: "sin".into(), up, is_paused, budget: None, sent };
        let behind = |origin: &str, time_ms| Lag {
            origin: origin.into(),
            peer: "sin".into(),
            ops: 10_000,
            bytes: 1_000_000,
            time_ms,
            gone_in_ms: Some(2_000),
            ..Lag::default()
        };
        let sending = link(&status(behind("ams", 3_000), true), view(Some(up), false));
        assert_eq!((sending.gone_in_ms, sending.coalescing, sending.is_relay), (Some(2_000), true, true));
        assert_eq!((sending.kind, sending.tightest_bytes_per_s), (Some(Links::Metered), Some(1_000_000)));
        let behind_a_little = link(&status(behind("ams", 900), false), view(Some(up), false));
        assert!(!behind_a_little.coalescing && !behind_a_little.is_relay);
        for stands_still in [view(None, false), view(Some(up), true)] {
            let link = link(&status(behind("ams", 3_000), false), stands_still);
            assert_eq!((link.gone_in_ms, link.coalescing, link.behind_ops), (None, false, 10_000));
        }
        let never = Lag { gone_in_ms: None, ..behind("ams", 3_000) };
        assert_eq!(link(&status(never, false), view(Some(up), false)).gone_in_ms, None);
        let of_another = link(&status(behind("fra", 3_000), false), view(None, false));
        assert_eq!((of_another.gone_in_ms, of_another.behind_ops), (Some(0), 0));
    }

    #[test]
    fn links_are_called_what_the_api_calls_them() {
        for links in PerLinks::<()>::ALL.map(links_of) {
            assert_eq!(serde_json::to_value(links).unwrap(), links.name());
        }
    }

    #[test]
    fn a_rate_out_of_bounds_is_refused_with_the_bounds() {
        assert_eq!(rate(None).unwrap(), None);
        assert_eq!(rate(Some(MIN_RATE)).unwrap(), Rate::new(MIN_RATE));
        let refused = rate(Some(MIN_RATE - 1)).unwrap_err().to_string();
        assert!(refused.contains("16383: use 16384 to 107374182400, or null"), "{refused}");
    }
}
