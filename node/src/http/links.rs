//! The pages about links: what is sent to whom, within which budgets, and how long it will take.
//!
//! The rule this file upholds: an order changes this node until it stops, and no other; what is to outlast it belongs into
//! the configuration.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Json;
use hyper::HeaderMap;
use littoral::api::Lag;
use littoral::api::links::{Budget, Link, Links, LinksReport, Pause, SetBudget, SetLinkBudget};
use replication::budget::{LinkClass, MAX_RATE, MIN_RATE, Rate, Scope};

use super::error::PageError;
use super::members::order;
use super::native::Native;
use crate::transport::{LinkView, NoSuchLink, SharedBudget};

/// A PoP that is further behind than this gets of what is overwritten the last state only.
const COALESCING_AFTER_MS: u64 = 1_000;

/// The links, as these pages need them.
pub trait LinkControl: Send + Sync {
    /// Every PoP that is linked, or to be.
    fn links(&self) -> Vec<LinkView>;
    /// What links share.
    fn shared_budgets(&self) -> Vec<SharedBudget>;
    /// Sets or lifts a budget.
    fn set_budget(&self, scope: &Scope<String>, rate: Option<Rate>) -> Result<(), NoSuchLink>;
    /// Has nothing but heartbeats sent, or all again.
    fn pause(&self, pop: &str, paused: bool) -> Result<(), NoSuchLink>;
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

pub(super) async fn set_own(
    State(native): State<Native>,
    Path(pop): Path<String>,
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
    Path(pop): Path<String>,
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
    let to_send = |pop: &str| status.lag.iter().find(|lag| lag.origin == status.pop && lag.peer == pop);
    let links = native.links.links().into_iter().map(|view| link(to_send(&view.pop), view)).collect();
    let budgets = native.links.shared_budgets().iter().map(budget).collect();
    Ok(Json(LinksReport { budgets, links, pop: status.pop }))
}

fn budget(shared: &SharedBudget) -> Budget {
    Budget {
        of: shared.class.map_or(Links::Node, kind),
        bytes_per_s: shared.budget.map(Rate::bytes_per_s),
        sent_bytes: shared.sent.bytes,
        sent_bytes_per_s: shared.sent.bytes_per_s,
    }
}

fn link(to_send: Option<&Lag>, view: LinkView) -> Link {
    let (behind_ops, behind_bytes, behind_ms) =
        to_send.map_or((0, 0, 0), |lag| (lag.ops, lag.bytes, lag.time_ms));
    let is_sending = view.up.is_some() && !view.is_paused;
    let gone_in_ms = match (behind_ops, view.sent.bytes_per_s) {
        (0, _) => Some(0),
        (_, rate) if is_sending => (u128::from(behind_bytes) * 1_000).checked_div(rate.into()),
        _ => None,
    };
    Link {
        up: view.up.is_some(),
        kind: view.up.map(|up| kind(up.class)),
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
        gone_in_ms: gone_in_ms.map(|ms| ms.try_into().unwrap_or(u64::MAX)),
        pop: view.pop,
    }
}

fn kind(class: LinkClass) -> Links {
    match class {
        LinkClass::Region => Links::Region,
        LinkClass::InterRegion => Links::InterRegion,
        LinkClass::Metered => Links::Metered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Sent, Up};
    use replication::ReplicaId;

    #[test]
    fn a_link_says_how_long_its_backlog_will_last_only_while_it_is_being_sent() {
        let up = Up {
            replica: ReplicaId([1; 16]),
            class: LinkClass::Metered,
            rtt_us: 80_000,
            tightest: Rate::new(1_000_000),
        };
        let sent = Sent { bytes: 5_000_000, bytes_per_s: 500_000 };
        let view = |up, is_paused, sent| LinkView { pop: "sin".into(), up, is_paused, budget: None, sent };
        let behind = |time_ms| Lag {
            origin: "fra".into(),
            peer: "sin".into(),
            ops: 10_000,
            bytes: 1_000_000,
            time_ms,
        };
        let sending = link(Some(&behind(3_000)), view(Some(up), false, sent));
        assert_eq!((sending.gone_in_ms, sending.coalescing), (Some(2_000), true));
        assert_eq!((sending.kind, sending.tightest_bytes_per_s), (Some(Links::Metered), Some(1_000_000)));
        assert!(!link(Some(&behind(900)), view(Some(up), false, sent)).coalescing);
        for stands_still in [view(None, false, sent), view(Some(up), true, sent)] {
            let link = link(Some(&behind(3_000)), stands_still);
            assert_eq!((link.gone_in_ms, link.coalescing, link.behind_ops), (None, false, 10_000));
        }
        let idle = Sent { bytes_per_s: 0, ..sent };
        assert_eq!(link(Some(&behind(3_000)), view(Some(up), false, idle)).gone_in_ms, None);
        assert_eq!(link(None, view(None, false, idle)).gone_in_ms, Some(0));
    }

    #[test]
    fn a_rate_out_of_bounds_is_refused_with_the_bounds() {
        assert_eq!(rate(None).unwrap(), None);
        assert_eq!(rate(Some(MIN_RATE)).unwrap(), Rate::new(MIN_RATE));
        let refused = rate(Some(MIN_RATE - 1)).unwrap_err().to_string();
        assert!(refused.contains("16383: use 16384 to 107374182400, or null"), "{refused}");
    }
}
