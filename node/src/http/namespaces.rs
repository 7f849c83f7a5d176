//! Namespaces over REST. What they are is in `crate::namespaces`.

use axum::body::Body;
use hyper::Response;
use littoral::api::tokens::Action;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::auth::Place;
use super::body::Upload;
use super::envelope;
use super::error::ApiError;
use super::query::Query;
use super::{Surface, parse_namespace};
use crate::namespaces::Namespace;
use crate::tokens::Grant;

/// Namespaces a page, unless asked otherwise.
const DEFAULT_PER_PAGE: u64 = 20;
/// The most namespaces a page; a greater number is lowered to it, for some clients ask for "all".
const MAX_PER_PAGE: u64 = 1000;
/// The most bytes of `{"title": ...}`.
const MAX_BODY_BYTES: u64 = 64 << 10;

#[derive(Serialize)]
struct NamespaceRow<'a> {
    id: String,
    title: &'a str,
    supports_url_encoding: bool,
}

impl<'a> From<&'a Namespace> for NamespaceRow<'a> {
    fn from(namespace: &'a Namespace) -> Self {
        Self { id: namespace.id.to_string(), title: &namespace.title, supports_url_encoding: true }
    }
}

/// A page of the account's namespaces, of those that the token may list. Beyond the last page comes an empty one: clients read on until
/// they get it.
pub(super) fn list(
    surface: &Surface,
    grant: &Grant,
    account: &str,
    query: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    grant.check_listing()?;
    let query = Query::parse(query)?;
    let page = query.number("page")?.unwrap_or(1);
    if page == 0 {
        return Err(ApiError::invalid("page counts from 1"));
    }
    let per_page = query.number("per_page")?.unwrap_or(DEFAULT_PER_PAGE).clamp(1, MAX_PER_PAGE);
    // Clients differ in case here.
    let chosen = |name, options: [&'static str; 2]| match query.text(name) {
        None => Ok(options[0]),
        Some(given) => options
            .into_iter()
            .find(|option| option.eq_ignore_ascii_case(given))
            .ok_or_else(|| ApiError::invalid(format!("{name} must be {} or {}", options[0], options[1]))),
    };
    let order = chosen("order", ["id", "title"])?;
    let direction = chosen("direction", ["asc", "desc"])?;

    let mut namespaces = tokio::task::block_in_place(|| surface.namespaces.list(account))?;
    namespaces.retain(|namespace| grant.may_list(namespace.id));
    if order == "title" {
        // Stable: equal titles stay in the order of their ids.
        namespaces.sort_by(|a, b| a.title.cmp(&b.title));
    }
    if direction == "desc" {
        namespaces.reverse();
    }
    let skipped = usize::try_from((page - 1).saturating_mul(per_page)).unwrap_or(usize::MAX);
    let rows = namespaces.iter().skip(skipped).take(per_page as usize).map(NamespaceRow::from);
    let rows: Vec<_> = rows.collect();
    let info = json!({
        "page": page,
        "per_page": per_page,
        "count": rows.len(),
        "total_count": namespaces.len(),
        "total_pages": namespaces.len().div_ceil(per_page as usize),
    });
    Ok(envelope::page(rows, info))
}

pub(super) async fn create(
    surface: &Surface,
    grant: &Grant,
    account: &str,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    grant.check_account(Action::Admin)?;
    let title = receive_title(upload).await?;
    let namespace = surface.namespaces.create(account, &title).await?;
    Ok(envelope::result(NamespaceRow::from(&namespace)))
}

pub(super) fn find(
    surface: &Surface,
    grant: &Grant,
    account: &str,
    id: &str,
) -> Result<Response<Body>, ApiError> {
    let id = parse_namespace(id)?;
    if !grant.may_see(id) {
        grant.check_any(Action::List, id)?;
    }
    Ok(envelope::result(NamespaceRow::from(&surface.namespaces.find(account, id)?)))
}

pub(super) async fn rename(
    surface: &Surface,
    account: &str,
    place: &Place,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let title = receive_title(upload).await?;
    let namespace = surface.namespaces.rename(account, place.namespace, &title).await?;
    Ok(envelope::result(NamespaceRow::from(&namespace)))
}

pub(super) async fn delete(
    surface: &Surface,
    account: &str,
    place: &Place,
) -> Result<Response<Body>, ApiError> {
    surface.namespaces.delete(account, place.namespace).await?;
    Ok(envelope::done())
}

async fn receive_title(upload: &mut Upload) -> Result<String, ApiError> {
    let body = upload.collect(MAX_BODY_BYTES).await?;
    let json: Json =
        serde_json::from_slice(&body).map_err(|error| ApiError::NotJson { reason: error.to_string() })?;
    // Refused rather than ignored: whoever asks for it must not believe that the data stays there.
    if json.get("jurisdiction").is_some_and(|given| !given.is_null()) {
        return Err(ApiError::invalid("jurisdictions are not supported: every PoP holds every namespace"));
    }
    json.get("title").and_then(Json::as_str).map(str::to_owned).ok_or(ApiError::TitleRequired)
}
