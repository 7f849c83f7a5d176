//! One bounded counter: what it stands at, adding to it, and taking what there is.
//!
//! The rule this file upholds: a taking is done or refused by what this PoP holds rights to, and nothing is taken in part.
//! It waits for the rights of others only where there is enough in all, outside of the engine, and for a bounded time.

use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::{HeaderMap, Response};
use littoral::api::kinds::{BoundedInfo, MAX_AMOUNT};
use metrics::counter;
use replication::kinds::ChangeError;
use replication::read::kinds::BoundedView;
use replication::{Change, Dot};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::body::Upload;
use super::super::conditions;
use super::super::error::ApiError;
use super::super::terms::patience;
use super::{Whole, json, metadata_of, received, with_receipt};
use crate::engine::{Etag, Write, WriteError};

/// A taking that waits is tried again after so long in any case: what came may have gone to another that waited, and then the
/// others must be asked again.
const TRIED_EVERY: Duration = Duration::from_millis(200);

/// The body of `POST`, with what other kinds take and this one does not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    add: Option<u64>,
    take: Option<u64>,
    expiration: Option<IgnoredAny>,
    expiration_ttl: Option<IgnoredAny>,
}

pub(super) fn read(bounded: &Whole<'_>) -> Result<Response<Body>, ApiError> {
    let found = found(bounded)?;
    if let Some(answer) = conditions::read(bounded.precondition, found.as_ref().map(|(_, etag)| etag))? {
        return Ok(answer);
    }
    let (view, etag) = found.ok_or(ApiError::NotHere { what: "bounded counter" })?;
    Ok(conditions::tagged(json(&info(bounded, view)), Some(&etag)))
}

/// Adds or takes, and answers with what it stands at here. Others may have taken between the two.
pub(super) async fn change(
    bounded: &Whole<'_>,
    headers: &HeaderMap,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let asked: Asked = received(bounded.surface, upload).await?;
    if asked.expiration.or(asked.expiration_ttl).is_some() {
        return Err(ApiError::invalid(ChangeError::NoExpiry.to_string()));
    }
    let dot = match (asked.add, asked.take) {
        (Some(amount), None) => write(bounded, amount_of("add", 0, amount)?).await?,
        (None, Some(amount)) => take(bounded, amount_of("take", 1, amount)?, headers).await?,
        _ => return Err(ApiError::invalid("give one of \"add\" and \"take\", with how much")),
    };
    // Gone again already: it was deleted.
    let gone = BoundedView { count: 0, rights_here: 0, metadata: None };
    let (view, etag) = found(bounded)?.map_or((gone, None), |(view, etag)| (view, Some(etag)));
    Ok(conditions::tagged(with_receipt(json(&info(bounded, view)), dot), etag.as_ref()))
}

fn amount_of(name: &str, least: i64, given: u64) -> Result<i64, ApiError> {
    let amount = i64::try_from(given).ok().filter(|amount| (least..=MAX_AMOUNT).contains(amount));
    amount.ok_or_else(|| ApiError::invalid(format!("{name} must be {least} to {MAX_AMOUNT}, not {given}")))
}

async fn take(bounded: &Whole<'_>, amount: i64, headers: &HeaderMap) -> Result<Option<Dot>, ApiError> {
    let engine = &bounded.surface.engine;
    let until = Instant::now() + patience(bounded.surface, headers, bounded.query)?;
    let wanted = amount.unsigned_abs();
    let mut seat = None;
    loop {
        let lacks = match write(bounded, -amount).await {
            Err(ApiError::Write(WriteError::Change {
                error: ChangeError::LacksRights { here, left },
                ..
            })) => ApiError::LacksRights { wanted, here, left },
            done => {
                if seat.is_some() {
                    counter!("littoral_rights_waits_total", "result" => "moved").increment(1);
                }
                return done;
            }
        };
        let within = until.saturating_duration_since(Instant::now());
        let is_pointless = matches!(lacks, ApiError::LacksRights { left, .. } if left < wanted);
        if is_pointless || within.is_zero() {
            if seat.is_some() {
                counter!("littoral_rights_waits_total", "result" => "timeout").increment(1);
            }
            return Err(lacks);
        }
        if seat.is_none() {
            seat = Some(engine.take_seat().map_err(|_| ApiError::TooManyWaiters)?);
        }
        if !engine.want_rights(bounded.id(), wanted, within).await? {
            return Err(ApiError::TooManyWaiters);
        }
        // What else is wrong the next try tells, as it does when nothing came in time.
        let is_worth_a_try = || match found(bounded) {
            Ok(Some((view, _))) => view.rights_here >= wanted || view.count < i128::from(wanted),
            _ => true,
        };
        if let Some(seat) = &seat {
            let _ = seat.wait(within.min(TRIED_EVERY), || is_worth_a_try().then_some(())).await;
        }
    }
}

/// Adds so much; below zero takes it.
async fn write(bounded: &Whole<'_>, amount: i64) -> Result<Option<Dot>, ApiError> {
    let change = Change::Add { amount, expires_at_s: None };
    bounded.write(vec![Write::Change { id: bounded.id(), change }]).await
}

fn found(bounded: &Whole<'_>) -> Result<Option<(BoundedView, Etag)>, ApiError> {
    Ok(bounded.surface.engine.bounded(bounded.place.namespace, bounded.key.as_bytes())?)
}

fn info(bounded: &Whole<'_>, view: BoundedView) -> BoundedInfo {
    BoundedInfo {
        key: bounded.key.clone().into_owned(),
        // More than a thousand PoPs would have to add as much as one may.
        count: i64::try_from(view.count).unwrap_or(i64::MAX),
        rights_here: view.rights_here,
        metadata: metadata_of(view.metadata.as_deref()),
    }
}
