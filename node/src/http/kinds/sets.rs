//! One set: its members, and changing some of them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use axum::body::Body;
use bytes::Bytes;
use hyper::Response;
use littoral::api::kinds::{MAX_CHANGES, Member, MembersPage, SetChange};
use replication::{Change, Content};

use super::super::body::Upload;
use super::super::conditions;
use super::super::error::ApiError;
use super::super::query::check_element;
use super::{Whole, asked_expiry, json, metadata_of, received};

pub(super) fn list(set: &Whole<'_>) -> Result<Response<Body>, ApiError> {
    let (members, next_after) = set.elements(member)?;
    let metadata = metadata_of(set.metadata()?.as_deref());
    Ok(json(&MembersPage { key: set.key.clone().into_owned(), metadata, members, next_after }))
}

pub(super) fn read(set: &Whole<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    let found = set.surface.engine.element(&set.element_id(name))?;
    if let Some(answer) = conditions::read(set.precondition, found.as_ref().map(|(_, etag)| etag))? {
        return Ok(answer);
    }
    let (content, etag) = found.ok_or(ApiError::NotHere { what: "member" })?;
    Ok(conditions::tagged(json(&member(name.to_owned(), content)), Some(&etag)))
}

pub(super) async fn put(set: &Whole<'_>, name: Cow<'_, str>) -> Result<Response<Body>, ApiError> {
    set.put_element(&name, joins(asked_expiry(set.query)?)).await
}

/// Puts members in and takes others out, as one group.
pub(super) async fn change(set: &Whole<'_>, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
    let SetChange { add, remove } = received(set.surface, upload).await?;
    let given = add.len() + remove.len();
    if given == 0 {
        return Err(ApiError::invalid("there is nothing to change: give members to \"add\" or \"remove\""));
    }
    if given > MAX_CHANGES {
        return Err(ApiError::TooManyChanges { given, limit: MAX_CHANGES });
    }
    let mut seen = BTreeSet::new();
    for name in add.iter().chain(&remove) {
        check_element(name, set.element_word())?;
        if !seen.insert(name) {
            return Err(ApiError::invalid(format!("the member \"{name}\" is given twice")));
        }
    }
    let expires_at_s = asked_expiry(set.query)?;
    let joining = add.into_iter().map(|name| (Cow::Owned(name), joins(expires_at_s)));
    let leaving = remove.into_iter().map(|name| (Cow::Owned(name), Change::Remove));
    set.change_elements(joining.chain(leaving).collect()).await
}

fn joins(expires_at_s: Option<u64>) -> Change {
    Change::Put(Content { bytes: Bytes::new(), expires_at_s })
}

fn member(name: String, content: Content) -> Member {
    Member { name, expiration: content.expires_at_s }
}
