//! Documents under `/v1/accounts/{account}/namespaces/{namespace}/docs`: from the path to what is asked.
//!
//! The rule this file upholds: as with the other kinds, the path is taken apart at its slashes as it was sent.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response};
use littoral::api::docs::MAX_DOC_BODY_BYTES;
use littoral::api::tokens::Action;
use replication::{Change, Kind};

use super::Surface;
use super::attributes::now_s;
use super::auth::Place;
use super::body::{DRAIN_SLACK_BYTES, Upload};
use super::conditions as preconditions;
use super::error::ApiError;
use super::kinds::{Entered, Whole, list_keys, method_of};
use super::native_path::NativePath;
use super::query::Query;
use super::route::Operation;
use crate::documents::{DocumentError, Limits, NotOpened, Opened};
use crate::engine::Precondition;

mod conditions;
mod edits;
mod reads;

/// How long a request waits for those that edit the same document.
const MAX_WAIT_MS: u64 = 10_000;

/// What a request asks for, its path taken apart but not yet decoded or checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    account: &'a str,
    namespace: &'a str,
    target: Target<'a>,
}

/// What it is about; keys are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'a> {
    /// All keys.
    Keys,
    /// A document.
    Document { key: &'a str },
    /// Something of it.
    Part { key: &'a str, part: Part },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is stored along with it.
    Metadata,
    /// Its changes, raw.
    Changes,
    /// Its changes, told.
    History,
    /// What was written at once at one place.
    Conflicts,
}

/// What is asked for under this path; `None` where it is not one of these pages.
pub(super) fn route(path: &str) -> Option<Asked<'_>> {
    let NativePath { account, namespace, page, rest } = NativePath::parse(path)?;
    let part = |key, part| Target::Part { key, part };
    let target = match rest {
        _ if page != "docs" => return None,
        [None, ..] => Target::Keys,
        [Some(""), ..] => return None,
        [Some(key), None, _] => Target::Document { key },
        [Some(key), Some("metadata"), None] => part(key, Part::Metadata),
        [Some(key), Some("changes"), None] => part(key, Part::Changes),
        [Some(key), Some("history"), None] => part(key, Part::History),
        [Some(key), Some("conflicts"), None] => part(key, Part::Conflicts),
        _ => return None,
    };
    Some(Asked { account, namespace, target })
}

/// The methods that there are under a path; `None` where it is not one of these pages.
#[cfg(test)]
pub(super) fn allowed(path: &str) -> Option<&'static str> {
    route(path).map(|asked| asked.allow())
}

impl Asked<'_> {
    /// The methods that there are.
    fn allow(&self) -> &'static str {
        match self.target {
            Target::Keys => "GET",
            Target::Document { .. } => "GET, PUT, PATCH, DELETE",
            Target::Part { part: Part::Metadata, .. } => "GET, PUT, DELETE",
            Target::Part { part: Part::Changes, .. } => "GET, POST",
            Target::Part { .. } => "GET",
        }
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace
    }

    /// Whether it can be for certain states of the document only.
    fn is_decided(&self) -> bool {
        match self.target {
            Target::Document { .. } | Target::Part { part: Part::Changes, .. } => true,
            Target::Keys | Target::Part { .. } => false,
        }
    }

    /// In which states of the document this is to be done.
    fn precondition(&self, method: &Method, headers: &HeaderMap) -> Result<Option<Precondition>, ApiError> {
        match self.is_decided() {
            true => preconditions::asked(headers),
            false if *method != Method::GET && preconditions::is_conditional(headers) => {
                Err(ApiError::invalid(
                    "If-Match and If-None-Match are for a document and its changes, not for this: leave them out",
                ))
            }
            false => Ok(None),
        }
    }

    /// What a token needs for this.
    fn action(&self, method: &Method) -> Action {
        match (*method == Method::GET, self.target) {
            (false, _) => Action::Write,
            (true, Target::Keys) => Action::List,
            (true, _) => Action::Read,
        }
    }
}

pub(super) async fn answer(
    surface: &Surface,
    asked: &Asked<'_>,
    head: &Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let mut upload = Upload::new(&head.headers, body, surface.stalled);
    let answer = dispatch(surface, asked, head, &mut upload).await;
    upload.drain(MAX_DOC_BODY_BYTES + DRAIN_SLACK_BYTES).await;
    let mut answer = answer.unwrap_or_else(ApiError::into_problem);
    if asked.is_decided() && preconditions::is_conditional(&head.headers) {
        preconditions::sign(&mut answer, surface.engine.pop());
    }
    (Operation::Documents, answer)
}

async fn dispatch(
    surface: &Surface,
    asked: &Asked<'_>,
    head: &Parts,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let method = method_of(head);
    let (entered, precondition) = enter(surface, asked, head)?;
    let (key, part) = match asked.target {
        Target::Keys => return list_keys(surface, &entered.place, Kind::Doc, &entered.query),
        Target::Document { key } => (key, None),
        Target::Part { key, part } => (key, Some(part)),
    };
    let whole = Whole::enter(surface, &entered, Kind::Doc, key)?;
    let named = Named { whole, precondition, headers: &head.headers };
    match (part, method) {
        (None, &Method::GET) => reads::document(&named).await,
        (None, &Method::PUT) => edits::put(&named, upload).await,
        (None, &Method::PATCH) => edits::patch(&named, upload).await,
        (None, _) => edits::delete(&named).await,
        (Some(Part::Metadata), &Method::GET) => reads::metadata(&named),
        (Some(Part::Metadata), &Method::PUT) => named.whole.describe(upload).await,
        (Some(Part::Metadata), _) => named.whole.forget_metadata().await,
        (Some(Part::Changes), &Method::GET) => reads::changes(&named).await,
        (Some(Part::Changes), _) => edits::take(&named, upload).await,
        (Some(Part::History), _) => reads::history(&named).await,
        (Some(Part::Conflicts), _) => reads::conflicts(&named).await,
    }
}

/// A request that who asks may make, as far as its head tells, and in which states of the document it is to be done: that is
/// decided here, not with each of its entries.
fn enter<'a>(
    surface: &Surface,
    asked: &Asked<'_>,
    head: &'a Parts,
) -> Result<(Entered<'a>, Option<Precondition>), ApiError> {
    let method = method_of(head);
    let named = (asked.account, asked.namespace);
    let place = Place::named(surface, head, named, asked.allow(), asked.action(method))?;
    let precondition = asked.precondition(method, &head.headers)?;
    Ok((Entered { place, query: Query::parse(head.uri.query())?, precondition: None }, precondition))
}

/// Whether who asks may do this to this document.
pub(super) fn check(surface: &Surface, asked: &Asked<'_>, head: &Parts) -> Result<(), ApiError> {
    let (entered, _) = enter(surface, asked, head)?;
    match asked.target {
        Target::Keys => Ok(()),
        Target::Document { key } | Target::Part { key, .. } => entered.place.key(key).map(drop),
    }
}

/// A document, whether there is one or not, to which who asks may do what is asked.
struct Named<'a> {
    whole: Whole<'a>,
    /// In which states it is to be done.
    precondition: Option<Precondition>,
    headers: &'a HeaderMap,
}

impl Named<'_> {
    /// The document as it is now, for this request alone.
    async fn open(&self) -> Result<Opened, ApiError> {
        let Whole { surface, place, key, .. } = &self.whole;
        let name = (place.namespace, Bytes::copy_from_slice(key.as_bytes()));
        let opening = surface.documents.open(name, now_s());
        let Ok(opened) = tokio::time::timeout(Duration::from_millis(MAX_WAIT_MS), opening).await else {
            return Err(ApiError::DocumentBusy);
        };
        let opened = opened?;
        let is_missing = opened.document().is_new();
        // What it is made of is on its way: nobody knows what it says.
        if is_missing && !opened.document().is_whole() {
            return Err(ApiError::DocumentIncomplete);
        }
        Ok(opened)
    }

    /// The same, where there is one.
    async fn open_there(&self) -> Result<Opened, ApiError> {
        let opened = self.open().await?;
        if opened.document().is_new() { Err(ApiError::NotHere { what: "document" }) } else { Ok(opened) }
    }

    /// What it may be.
    fn limits(&self) -> Limits {
        self.whole.place.document_limits(self.whole.surface)
    }

    /// Takes all of it away that this PoP has seen.
    fn clear(&self) -> crate::engine::Write {
        crate::engine::Write::Change { id: self.whole.id(), change: Change::Clear }
    }
}

impl From<NotOpened> for ApiError {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::Read(error) => Self::Read(error),
            NotOpened::Document(error) => Self::Document(error),
        }
    }
}

impl From<DocumentError> for ApiError {
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_routed_as_sent_and_empty_parts_lead_nowhere() {
        let check = |path: &str, expected: Option<Target<'_>>| {
            let full = format!("/v1/accounts/acc/namespaces/ns{path}");
            let found = route(&full).map(|asked| {
                assert_eq!((asked.account, asked.namespace), ("acc", "ns"));
                asked.target
            });
            assert_eq!(found, expected, "{path}");
        };
        let part = |key, part| Some(Target::Part { key, part });
        check("/docs", Some(Target::Keys));
        check("/docs/k", Some(Target::Document { key: "k" }));
        check("/docs/history", Some(Target::Document { key: "history" }));
        check("/docs/a%2Fb/metadata", part("a%2Fb", Part::Metadata));
        check("/docs/k/changes", part("k", Part::Changes));
        check("/docs/metadata/history", part("metadata", Part::History));
        check("/docs/k/conflicts", part("k", Part::Conflicts));
        for nowhere in [
            "/docs/",
            "/docs/k/",
            "/docs//changes",
            "/docs/k/x",
            "/docs/k/changes/",
            "/docs/k/changes/x",
            "/doc",
            "",
        ] {
            check(nowhere, None);
        }
        for nowhere in ["/v1/accounts//namespaces/ns/docs", "/v1/accounts/a/namespaces//docs", "/v1/docs"] {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
    }
}
