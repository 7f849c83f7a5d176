//! What is read of a document: all or part of it, now or as it was, and what it was made by.

use automerge::ChangeHash;
use axum::body::Body;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use littoral::api::docs::{ChangeInfo, ConflictingValue, Conflicts, HistoryPage, MAX_HEADS};
use littoral::api::kinds::MAX_PAGE_ROWS;
use serde_json::value::to_raw_value;
use tokio::task::block_in_place;

use super::super::error::ApiError;
use super::super::kinds::json;
use super::Named;
use super::conditions;

/// The document as JSON, or what a pointer leads to.
pub(super) async fn document(named: &Named<'_>) -> Result<Response<Body>, ApiError> {
    let pointer = named.whole.query.text("pointer").unwrap_or_default();
    let asked = heads(named, "heads")?;
    let opened = named.open_there().await?;
    let document = opened.document();
    let shown = asked.clone().unwrap_or_else(|| document.heads());
    if let Some(known) = conditions::known(named.precondition.as_ref(), &shown)? {
        return Ok(known);
    }
    let body = block_in_place(|| document.json(pointer, asked.as_deref()).map(|found| json(&found)))?;
    let mut response = conditions::tagged(body, &shown);
    if let Some(at_s) = opened.expires_at_s() {
        response.headers_mut().insert(HeaderName::from_static("expiration"), at_s.into());
    }
    Ok(response)
}

/// What is stored along with it.
pub(super) fn metadata(named: &Named<'_>) -> Result<Response<Body>, ApiError> {
    let bytes = named.whole.metadata()?.ok_or(ApiError::NotHere { what: "metadata" })?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The raw changes that whoever has the heads in `since` does not have.
pub(super) async fn changes(named: &Named<'_>) -> Result<Response<Body>, ApiError> {
    let since = heads(named, "since")?.unwrap_or_default();
    let opened = named.open_there().await?;
    let changes = block_in_place(|| opened.document().changes_since(&since))?;
    let mut response = Response::new(Body::from(changes));
    let content_type = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(conditions::tagged(response, &opened.document().heads()))
}

/// A page of the changes that it was made by.
pub(super) async fn history(named: &Named<'_>) -> Result<Response<Body>, ApiError> {
    let limit = named.whole.query.number("limit")?.unwrap_or(MAX_PAGE_ROWS as u64);
    if !(1..=MAX_PAGE_ROWS as u64).contains(&limit) {
        return Err(ApiError::invalid(format!("limit must be 1 to {MAX_PAGE_ROWS}, not {limit}")));
    }
    let after = heads(named, "after")?.unwrap_or_default();
    if after.len() > 1 {
        return Err(ApiError::invalid("after must be one change's hash"));
    }
    let opened = named.open_there().await?;
    let page = block_in_place(|| opened.document().history(after.first().copied(), limit as usize))?;
    let info = |change: crate::documents::ChangeInfo| ChangeInfo {
        hash: change.hash.to_string(),
        actor: change.actor,
        seq: change.seq,
        time: change.time_s,
        message: change.message,
        ops: change.ops,
        deps: change.deps.iter().map(ToString::to_string).collect(),
    };
    let next_after = page.next_after.map(|hash| hash.to_string());
    Ok(json(&HistoryPage { changes: page.changes.into_iter().map(info).collect(), next_after }))
}

/// All values that were written at once where a pointer leads.
pub(super) async fn conflicts(named: &Named<'_>) -> Result<Response<Body>, ApiError> {
    let pointer = named.whole.query.text("pointer").filter(|pointer| !pointer.is_empty());
    let pointer =
        pointer.ok_or_else(|| ApiError::invalid("give a pointer to a part, such as ?pointer=/title"))?;
    let opened = named.open_there().await?;
    let found = block_in_place(|| opened.document().conflicts(pointer))?;
    if found.is_empty() {
        return Err(ApiError::NotHere { what: "part of the document" });
    }
    let value = |conflict: crate::documents::Conflict| ConflictingValue {
        value: to_raw_value(&conflict.value).expect("it is JSON"),
        hash: conflict.hash.to_string(),
        actor: conflict.actor,
        time: conflict.time_s,
    };
    let values = found.into_iter().map(value).collect();
    Ok(conditions::tagged(json(&Conflicts { values }), &opened.document().heads()))
}

/// The changes that a parameter names, with commas between them; `None` without it.
fn heads(named: &Named<'_>, parameter: &str) -> Result<Option<Vec<ChangeHash>>, ApiError> {
    let Some(text) = named.whole.query.text(parameter) else { return Ok(None) };
    let parse = |hash: &str| {
        let wrong = |_| {
            ApiError::invalid(format!("{parameter} must be hashes of 64 hexadecimal digits, not \"{hash}\""))
        };
        hash.parse().map_err(wrong)
    };
    let hashes = text.split(',').filter(|hash| !hash.is_empty());
    let heads: Vec<ChangeHash> = hashes.map(parse).collect::<Result<_, _>>()?;
    match heads.len() {
        count if count > MAX_HEADS => {
            Err(ApiError::invalid(format!("{parameter} names {count} changes, more than {MAX_HEADS}")))
        }
        _ => Ok(Some(heads)),
    }
}
