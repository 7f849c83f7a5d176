//! What is written to a document.
//!
//! The rule this file upholds: an edit is made in memory, stored, and only then told of. Who goes away in between leaves
//! nothing in memory that may not be stored.

use axum::body::Body;
use bytes::Bytes;
use hyper::Response;
use hyper::header::CONTENT_TYPE;
use littoral::api::docs::{DocWritten, JSON_PATCH, MAX_DOC_BODY_BYTES, MAX_MESSAGE_BYTES, MERGE_PATCH};
use replication::doc::rows;
use replication::{Change, Dot, EntryId};
use serde_json::Value as Json;
use tokio::task::block_in_place;

use super::super::attributes::now_s;
use super::super::body::Upload;
use super::super::bulk::wait_for_memory;
use super::super::error::ApiError;
use super::super::kinds::{asked_expiry, json, with_receipt, written};
use super::{Named, conditions};
use crate::documents::{Document, DocumentError, Edit, Opened, Patch};
use crate::engine::{Write, show_dot};

/// Makes the whole document the JSON in the body.
pub(super) async fn put(named: &Named<'_>, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
    let json = received(named, upload).await?;
    edit(named, &Edit::Put(&json)).await
}

/// Applies the patch in the body, of the kind that its type says.
pub(super) async fn patch(named: &Named<'_>, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
    let content_type =
        named.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        MERGE_PATCH => {
            let json = received(named, upload).await?;
            edit(named, &Edit::Merge(&json)).await
        }
        JSON_PATCH => {
            let json = received(named, upload).await?;
            let patch = block_in_place(|| Patch::parse(&json))?;
            edit(named, &Edit::Patch(&patch)).await
        }
        _ => {
            Err(ApiError::WrongType { wanted: "application/merge-patch+json or application/json-patch+json" })
        }
    }
}

/// Takes the raw changes in the body in.
pub(super) async fn take(named: &Named<'_>, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
    let _share = wait_for_memory(named.whole.surface, upload.announced()).await?;
    let body = upload.collect(MAX_DOC_BODY_BYTES).await?;
    let limits = named.limits();
    change(named, |document| document.take(&body, limits)).await
}

/// Takes away all of it that this PoP has seen, and what is stored along with it.
pub(super) async fn delete(named: &Named<'_>) -> Result<Response<Body>, ApiError> {
    named.whole.query.ack()?;
    let mut opened = named.open().await?;
    conditions::check_write(named.precondition.as_ref(), opened.document())?;
    // Whatever becomes of it: what is in memory goes.
    opened.edited();
    Ok(written(named.whole.write(vec![named.clear()]).await?))
}

async fn edit(named: &Named<'_>, edit: &Edit<'_>) -> Result<Response<Body>, ApiError> {
    let message = named.whole.query.text("message");
    if message.is_some_and(|message| message.len() > MAX_MESSAGE_BYTES) {
        return Err(ApiError::invalid(format!("message must be at most {MAX_MESSAGE_BYTES} bytes")));
    }
    let limits = named.limits();
    change(named, |document| {
        let change = document.edit(edit, message, now_s(), limits)?;
        Ok(change.into_iter().collect())
    })
    .await
}

/// Changes the document, and stores the changes that come of it.
async fn change(
    named: &Named<'_>,
    make: impl FnOnce(&mut Document) -> Result<Vec<Vec<u8>>, DocumentError>,
) -> Result<Response<Body>, ApiError> {
    named.whole.query.ack()?;
    let expires_at_s = asked_expiry(named.whole.query)?;
    let mut opened = named.open().await?;
    conditions::check_write(named.precondition.as_ref(), opened.document())?;
    let made = block_in_place(|| make(opened.edited()));
    let changes = match made {
        Ok(changes) => changes,
        Err(error @ DocumentError::Broken { .. }) => return Err(error.into()),
        Err(error) => {
            opened.written(&[]);
            return Err(error.into());
        }
    };
    let heads = opened.document().heads();
    let dot = store(named, &mut opened, changes, expires_at_s).await?;
    let told =
        DocWritten { receipt: dot.map(show_dot), heads: heads.iter().map(ToString::to_string).collect() };
    Ok(conditions::tagged(with_receipt(json(&told), dot), &heads))
}

async fn store(
    named: &Named<'_>,
    opened: &mut Opened,
    changes: Vec<Vec<u8>>,
    expires_at_s: Option<u64>,
) -> Result<Option<Dot>, ApiError> {
    let whole = named.whole.id();
    let (mut writes, mut elements) = (Vec::new(), Vec::new());
    for change in changes {
        let limit = named.limits().max_bytes;
        let too_large = |_| DocumentError::TooLarge { given: change.len() as u64, limit };
        for (element, content) in rows(&Bytes::from(change.clone())).map_err(too_large)? {
            elements.push(element.clone());
            writes.push(Write::Change {
                id: EntryId { element, ..whole.clone() },
                change: Change::Put(content),
            });
        }
    }
    if expires_at_s.is_some() {
        writes.push(Write::Change { id: whole, change: Change::Expire(expires_at_s) });
    }
    let dot = match writes.is_empty() {
        true => None,
        false => named.whole.write(writes).await?,
    };
    opened.written(&elements);
    Ok(dot)
}

/// The JSON in the body.
async fn received(named: &Named<'_>, upload: &mut Upload) -> Result<Json, ApiError> {
    let _share = wait_for_memory(named.whole.surface, upload.announced()).await?;
    let body = upload.collect(MAX_DOC_BODY_BYTES).await?;
    let parsed = block_in_place(|| serde_json::from_slice(&body));
    parsed.map_err(|error| ApiError::NotJson { reason: error.to_string() })
}
