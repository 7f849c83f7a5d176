//! `/v1/leaves` and `/v1/entries`: what this PoP holds, for a comparison with another. Never values.
//!
//! The rule: one walk over the rows at a time, in bounded pages and with pauses, and keys are shown only to tokens
//! whose accounts own the namespace. To others an entry is the keyed hash of its name.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::{HeaderMap, StatusCode};
use littoral::api::diff::{BodyKind, EntryPage, EntryState, Holding, Leaves, MAX_LEAVES_NAMED};
use replication::read::states;
use replication::{Kind, NamespaceId, StoreError};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::problem;
use super::native::Native;
use crate::engine::ReadError;

/// The most states in a page.
const PAGE_STATES: usize = 1_000;
/// The pause between two pages of rows while leaves are summed: readers and the engine go between.
const PAUSE: Duration = Duration::from_millis(2);
/// The keys of the system namespace that name accounts begin with one of these.
const ACCOUNT_KEYS: [&[u8]; 3] = [b"account/", b"accounts/", b"token/"];

/// The place for the one walk that may be under way.
pub(crate) struct Slot(Arc<Semaphore>);

impl Default for Slot {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Slot {
    async fn take(&self) -> OwnedSemaphorePermit {
        self.0.clone().acquire_owned().await.expect("the semaphore is never closed")
    }
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    /// Hexadecimal, apart by dots.
    leaves: Option<String>,
    after: Option<String>,
}

pub(crate) async fn leaves(State(native): State<Native>, headers: HeaderMap) -> Response {
    if let Err(refused) = native.authorize(&headers) {
        return refused.into_response();
    }
    let slot = native.diff.take().await;
    let (store, key) = match native.engine.states().await {
        Ok(states) => states,
        Err(error) => return unavailable(&error),
    };
    // Not block_in_place: it reads all rows. It keeps its place also when the client has hung up.
    let summed = move || {
        let _slot = slot;
        states::leaves(&store, &key, &mut || std::thread::sleep(PAUSE))
    };
    match tokio::task::spawn_blocking(summed).await {
        Ok(Ok((holding, sums, entries))) => {
            let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_be_bytes()).collect();
            let holding = native.holding(&holding);
            Json(Leaves { holding, entries, digests: STANDARD.encode(bytes) }).into_response()
        }
        Ok(Err(error)) => native.damaged(error),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

pub(crate) async fn entries(
    State(native): State<Native>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let grant = match native.authorize(&headers) {
        Ok(grant) => grant,
        Err(refused) => return refused.into_response(),
    };
    let parsed = asked.map_err(|error| error.body_text()).and_then(|Query(asked)| asked.parse());
    let (leaves, from) = match parsed {
        Ok(parsed) => parsed,
        Err(reason) => return problem(StatusCode::BAD_REQUEST, &reason),
    };
    let _slot = native.diff.take().await;
    let (store, key) = match native.engine.states().await {
        Ok(states) => states,
        Err(error) => return unavailable(&error),
    };
    let wanted = |leaf: u16| leaves.is_empty() || leaves.binary_search(&leaf).is_ok();
    let page = tokio::task::block_in_place(|| states::page(&store, &key, &from, PAGE_STATES, &wanted));
    let page = match page {
        Ok(page) => page,
        Err(error) => return native.damaged(error),
    };
    let entries: Result<Vec<_>, _> =
        page.states.into_iter().map(|state| native.shown(&grant.accounts, state)).collect();
    match entries {
        Ok(entries) => {
            let holding = native.holding(&page.holding);
            let next_after = page.next.map(|next| URL_SAFE_NO_PAD.encode(next));
            Json(EntryPage { holding, entries, next_after }).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

impl Asked {
    /// The leaves, sorted, and where to begin.
    fn parse(&self) -> Result<(Vec<u16>, Vec<u8>), String> {
        let named = self.leaves.as_deref().unwrap_or_default();
        let named = named.split('.').filter(|leaf| !leaf.is_empty());
        let parsed: Result<Vec<u16>, _> =
            named.take(MAX_LEAVES_NAMED + 1).map(|leaf| u16::from_str_radix(leaf, 16)).collect();
        let mut leaves = parsed.map_err(|_| "leaves: hexadecimal numbers of a leaf, apart by dots")?;
        if leaves.len() > MAX_LEAVES_NAMED {
            return Err(format!("leaves: at most {MAX_LEAVES_NAMED}; leave them out to be given all"));
        }
        leaves.sort_unstable();
        let after = self.after.as_deref().unwrap_or_default();
        let from = URL_SAFE_NO_PAD.decode(after).map_err(|_| "after: not what a page has given")?;
        Ok((leaves, from))
    }
}

impl Native {
    fn holding(&self, holding: &states::Holding) -> Holding {
        let vector = holding.vector.iter().map(|(origin, at)| (origin.to_string(), at.hlc.to_bits()));
        Holding { pop: self.engine.pop().into(), vector: vector.collect(), epoch: holding.epoch.to_bits() }
    }

    fn shown(&self, accounts: &[String], state: states::State) -> Result<EntryState, ReadError> {
        let namespace = state.id.namespace;
        let names_account = ACCOUNT_KEYS.iter().any(|start| state.id.key.starts_with(start));
        let mut may_see = namespace == NamespaceId::SYSTEM && !names_account;
        for account in accounts {
            may_see = may_see || self.namespaces.owns(account, namespace)?;
        }
        let element = Some(&state.id.element[..]).filter(|element| may_see && !element.is_empty());
        Ok(EntryState {
            namespace: namespace.to_string(),
            name: format!("{:016x}", state.name),
            key: may_see.then(|| String::from_utf8_lossy(&state.id.key).into_owned()),
            element: element.map(|element| match state.id.kind {
                Kind::Doc => element.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => String::from_utf8_lossy(element).into_owned(),
            }),
            replica: state.dot.replica.to_string(),
            hlc: state.dot.hlc.to_bits(),
            body: match (state.value, state.id.kind) {
                (None, _) => BodyKind::Tombstone,
                (Some(value), _) if value.is_chunked => BodyKind::LargeValue,
                (Some(_), Kind::Value) => BodyKind::Value,
                (Some(_), Kind::Counter) => BodyKind::Counter,
                (Some(_), Kind::Bounded) => BodyKind::Bounded,
                (Some(_), kind) if kind.has_elements() && state.id.element.is_empty() => BodyKind::Whole,
                (Some(_), Kind::Set) => BodyKind::Member,
                (Some(_), Kind::Map) => BodyKind::Field,
                (Some(_), Kind::Doc) => BodyKind::Chunk,
            },
            expires_at_s: state.value.and_then(|value| value.expires_at_s),
            digest: format!("{:016x}", state.digest),
        })
    }

    fn damaged(&self, error: StoreError) -> Response {
        unavailable(&self.engine.states_failed(error))
    }
}

fn unavailable(error: &ReadError) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, &error.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(leaves: Option<&str>, after: Option<&str>, expected: Result<(&[u16], &[u8]), &str>) {
        let asked = Asked { leaves: leaves.map(str::to_owned), after: after.map(str::to_owned) };
        match (asked.parse(), expected) {
            (Ok((leaves, from)), Ok(expected)) => assert_eq!((&leaves[..], &from[..]), expected),
            (Err(reason), Err(word)) => assert!(reason.contains(word), "{reason}"),
            (parsed, expected) => panic!("{parsed:?} for {expected:?}"),
        }
    }

    #[test]
    fn what_is_asked_is_parsed_or_refused() {
        let many = |count: usize| vec!["a"; count].join(".");
        check(None, None, Ok((&[], &[])));
        check(Some("ffff.0.1f"), Some("ZWs"), Ok((&[0, 0x1f, 0xffff], b"ek")));
        check(Some("10000"), None, Err("leaves"));
        check(Some("x"), None, Err("leaves"));
        check(None, Some("%"), Err("after"));
        check(Some(&many(MAX_LEAVES_NAMED)), None, Ok((&[0xa; MAX_LEAVES_NAMED], &[])));
        check(Some(&many(MAX_LEAVES_NAMED + 1)), None, Err("at most"));
    }
}
