//! One map: its fields with their values, and changing some of them.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use hyper::Response;
use hyper::header::HeaderName;
use littoral::api::kinds::{Field, FieldsPage, MAX_CHANGES, MapChange};
use replication::entry::MAX_INLINE_BYTES;
use replication::{Change, Content, Payload};

use super::super::body::Upload;
use super::super::conditions;
use super::super::error::ApiError;
use super::super::query::check_element;
use super::super::values::with_payload;
use super::{Whole, asked_expiry, json, metadata_of, received};

pub(super) fn list(map: &Whole<'_>) -> Result<Response<Body>, ApiError> {
    let (fields, next_after) = map.elements(field)?;
    let metadata = metadata_of(map.metadata()?.as_deref());
    Ok(json(&FieldsPage { key: map.key.clone().into_owned(), metadata, fields, next_after }))
}

/// The bytes of a field, as they were written.
pub(super) async fn read(map: &Whole<'_>, name: &str) -> Result<Response<Body>, ApiError> {
    let found = map.surface.engine.element(&map.element_id(name))?;
    if let Some(answer) = conditions::read(map.precondition, found.as_ref().map(|(_, etag)| etag))? {
        return Ok(answer);
    }
    let (content, etag) = found.ok_or(ApiError::NotHere { what: "field" })?;
    let mut response = with_payload(map.surface, Payload::Inline(content.bytes)).await?;
    if let Some(at_s) = content.expires_at_s {
        response.headers_mut().insert(HeaderName::from_static("expiration"), at_s.into());
    }
    Ok(conditions::tagged(response, Some(&etag)))
}

pub(super) async fn put(
    map: &Whole<'_>,
    name: Cow<'_, str>,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let expires_at_s = asked_expiry(map.query)?;
    let bytes = upload.collect(MAX_INLINE_BYTES as u64).await.map_err(|error| match error {
        ApiError::BodyTooLarge { .. } => ApiError::FieldTooLarge,
        other => other,
    })?;
    let content = Content { bytes: bytes.into(), expires_at_s };
    map.put_element(&name, Change::Put(content)).await
}

/// Sets fields and takes others away, as one group.
pub(super) async fn change(map: &Whole<'_>, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
    let MapChange { fields } = received(map.surface, upload).await?;
    let given = fields.len();
    if given == 0 {
        return Err(ApiError::invalid("there is nothing to change: give \"fields\""));
    }
    if given > MAX_CHANGES {
        return Err(ApiError::TooManyChanges { given, limit: MAX_CHANGES });
    }
    let expires_at_s = asked_expiry(map.query)?;
    let change = |(name, text): (String, Option<String>)| {
        check_element(&name, map.element_word())?;
        let change = match text {
            None => Change::Remove,
            Some(text) if text.len() > MAX_INLINE_BYTES => return Err(ApiError::FieldTooLarge),
            Some(text) => Change::Put(Content { bytes: Bytes::from(text), expires_at_s }),
        };
        Ok((Cow::Owned(name), change))
    };
    let changes = fields.into_iter().map(change).collect::<Result<_, _>>()?;
    map.change_elements(changes).await
}

fn field(name: String, content: Content) -> Field {
    Field::new(name, &content.bytes, content.expires_at_s)
}
