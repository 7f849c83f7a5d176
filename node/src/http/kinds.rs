//! Values, counters (bounded or not), sets and maps under `/v1/accounts/{account}/namespaces/{namespace}`: from the path to what is
//! asked.
//!
//! The rule this file upholds: the path is taken apart at its slashes as it was sent, and each part is decoded once.
//! An empty part leads nowhere, so that what a URL parser makes of the member ".." is no call about the whole.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response};
use littoral::api::kinds::{KeysPage, MAX_PAGE_ROWS, MIN_TTL_S, RECEIPT_HEADER, Written};
use littoral::api::kv::KeyInfo;
use littoral::api::tokens::Action;
use replication::entry::{MAX_ELEMENT_BYTES, MAX_KEY_BYTES, MAX_METADATA_BYTES, MAX_VALUE_BYTES};
use replication::{Change, Dot, EntryId, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Surface;
use super::attributes::{self, expires_later_than, now_s};
use super::auth::Place;
use super::body::{DRAIN_SLACK_BYTES, Upload};
use super::bulk::wait_for_memory;
use super::conditions;
use super::error::ApiError;
use super::native_path::NativePath;
use super::query::{Query, check_element, decode_element};
use super::route::Operation;
use super::values::metadata_json;
use crate::engine::{Etag, Precondition, Write, show_dot};

mod bounded;
mod counters;
mod maps;
mod sets;
mod values;

pub(super) use values::as_header;

/// The most bytes of a JSON body here: the names of all that may be changed at once, each byte escaped as JSON can.
const MAX_BODY_BYTES: u64 = 4 << 20;
/// The most bytes of a body with metadata: white space is dropped before its own limit counts.
const MAX_METADATA_BODY_BYTES: u64 = 16 * MAX_METADATA_BYTES as u64;

/// What a request asks for, its path taken apart but not yet decoded or checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    kind: Kind,
    account: &'a str,
    namespace: &'a str,
    target: Target<'a>,
}

/// What it is about; keys and elements are percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'a> {
    /// All keys of the kind.
    Keys,
    /// A value, counter, set or map.
    Whole { key: &'a str },
    /// What is stored along with it.
    Metadata { key: &'a str },
    /// A member or field.
    Element { key: &'a str, element: &'a str },
}

/// What is asked for under this path; `None` where it is not one of these pages.
pub(super) fn route(path: &str) -> Option<Asked<'_>> {
    let NativePath { account, namespace, page, rest } = NativePath::parse(path)?;
    let (kind, elements) = match page {
        "values" => (Kind::Value, None),
        "counters" => (Kind::Counter, None),
        "bounded" => (Kind::Bounded, None),
        "sets" => (Kind::Set, Some("members")),
        "maps" => (Kind::Map, Some("fields")),
        _ => return None,
    };
    let target = match rest {
        [None, ..] => Target::Keys,
        [Some(""), ..] => return None,
        [Some(key), None, _] => Target::Whole { key },
        [Some(key), Some("metadata"), None] => Target::Metadata { key },
        // An empty element is refused with a word of its own.
        [Some(key), part, Some(element)] if part == elements => Target::Element { key, element },
        _ => return None,
    };
    Some(Asked { kind, account, namespace, target })
}

/// The methods that there are under a path; `None` where it is not one of these pages.
#[cfg(test)]
pub(super) fn allowed(path: &str) -> Option<&'static str> {
    route(path).map(|asked| asked.allow())
}

impl Asked<'_> {
    /// The methods that there are.
    fn allow(&self) -> &'static str {
        match (self.target, self.kind) {
            (Target::Keys, Kind::Value) => "GET, POST, DELETE",
            (Target::Keys, _) => "GET",
            (Target::Whole { .. }, Kind::Value) => "GET, PUT, DELETE",
            (Target::Whole { .. }, Kind::Map) => "GET, PATCH, DELETE",
            (Target::Whole { .. }, _) => "GET, POST, DELETE",
            (Target::Metadata { .. }, _) => "PUT, DELETE",
            (Target::Element { .. }, _) => "GET, PUT, DELETE",
        }
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace
    }

    pub(super) fn operation(&self) -> Operation {
        match self.kind {
            Kind::Set => Operation::Sets,
            Kind::Map => Operation::Maps,
            Kind::Value => Operation::Values,
            Kind::Counter => Operation::Counters,
            Kind::Bounded => Operation::Bounded,
            Kind::Doc => Operation::Documents,
        }
    }

    /// Whether it is about one state, so that it can be for certain states only.
    fn is_decided(&self) -> bool {
        match self.target {
            Target::Keys => false,
            Target::Element { .. } => true,
            Target::Whole { .. } | Target::Metadata { .. } => match self.kind {
                Kind::Value | Kind::Counter | Kind::Bounded => true,
                Kind::Set | Kind::Map | Kind::Doc => false,
            },
        }
    }

    /// Whether such a write depends on what is here: takes away what it sees, or answers with what comes of it.
    pub(super) fn looks(&self, method: &Method) -> bool {
        match (self.target, self.kind) {
            (Target::Whole { .. }, Kind::Value) => false,
            (Target::Element { .. }, _) => *method != Method::PUT,
            _ => true,
        }
    }

    /// Whether its body is orders, answered while they come.
    pub(super) fn takes_orders(&self, method: &Method) -> bool {
        (self.target, self.kind, method) == (Target::Keys, Kind::Value, &Method::POST)
    }

    /// What a token needs for this.
    fn action(&self, method: &Method) -> Action {
        match (*method == Method::GET, self.target, self.kind) {
            (false, _, _) => Action::Write,
            (true, Target::Keys, _) | (true, Target::Whole { .. }, Kind::Set | Kind::Map) => Action::List,
            (true, _, _) => Action::Read,
        }
    }
}

pub(super) async fn answer(
    surface: &Arc<Surface>,
    asked: &Asked<'_>,
    head: &Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let mut upload = Upload::new(&head.headers, body, surface.stalled);
    let answer = match enter(surface, asked, head) {
        Ok(entered) if asked.takes_orders(&head.method) => {
            match values::orders::check(&entered.query, &head.headers) {
                Ok(ack) => {
                    let answer = values::orders::begin(surface, entered.place, ack, upload);
                    return (asked.operation(), answer);
                }
                Err(error) => Err(error),
            }
        }
        Ok(entered) => dispatch(surface, asked, head, &entered, &mut upload).await,
        Err(error) => Err(error),
    };
    let longest = if asked.kind == Kind::Value { MAX_VALUE_BYTES } else { MAX_BODY_BYTES };
    upload.drain(longest + DRAIN_SLACK_BYTES).await;
    let mut answer = answer.unwrap_or_else(ApiError::into_problem);
    if asked.is_decided() && conditions::is_conditional(&head.headers) {
        conditions::sign(&mut answer, surface.engine.pop());
    }
    (asked.operation(), answer)
}

/// A request that who asks may make, as far as its head tells.
pub(super) struct Entered<'a> {
    pub(super) place: Place,
    pub(super) query: Query<'a>,
    /// In which states of one entry it is to be done.
    pub(super) precondition: Option<Precondition>,
}

/// Whether who asks may do this to this key.
pub(super) fn check(surface: &Surface, asked: &Asked<'_>, head: &Parts) -> Result<(), ApiError> {
    let entered = enter(surface, asked, head)?;
    match asked.target {
        Target::Keys => Ok(()),
        Target::Whole { key } | Target::Metadata { key } | Target::Element { key, .. } => {
            entered.place.key(key).map(drop)
        }
    }
}

/// Of an answer to HEAD, hyper sends the head only.
pub(super) fn method_of(head: &Parts) -> &Method {
    if head.method == Method::HEAD { &Method::GET } else { &head.method }
}

fn enter<'a>(surface: &Surface, asked: &Asked<'_>, head: &'a Parts) -> Result<Entered<'a>, ApiError> {
    let method = method_of(head);
    let named = (asked.account, asked.namespace);
    let place = Place::named(surface, head, named, asked.allow(), asked.action(method))?;
    let query = Query::parse(head.uri.query())?;
    let precondition = match asked.is_decided() {
        true => conditions::asked(&head.headers)?,
        // Known lists are read anew.
        false if *method == Method::GET => None,
        false if conditions::is_conditional(&head.headers) => {
            return Err(ApiError::invalid(
                "If-Match and If-None-Match are for one value, counter, member or field, not for this: leave them out",
            ));
        }
        false => None,
    };
    Ok(Entered { place, query, precondition })
}

async fn dispatch(
    surface: &Arc<Surface>,
    asked: &Asked<'_>,
    head: &Parts,
    entered: &Entered<'_>,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let method = method_of(head);
    let Entered { place, query, .. } = entered;
    let whole = |key| Whole::enter(surface, entered, asked.kind, key);
    match (asked.target, asked.kind, method) {
        (Target::Keys, Kind::Value, &Method::DELETE) => values::prefix::delete(surface, place, query).await,
        (Target::Keys, Kind::Value, _) => values::list::list(surface, place, query, &head.headers).await,
        (Target::Keys, kind, _) => list_keys(surface, place, kind, query),
        (Target::Whole { key }, Kind::Value, &Method::GET) => {
            values::read(&whole(key)?, head.method == Method::HEAD).await
        }
        (Target::Whole { key }, Kind::Value, &Method::PUT) => {
            values::put(&whole(key)?, &head.headers, upload).await
        }
        (Target::Whole { key }, Kind::Value, _) => values::delete(&whole(key)?).await,
        (Target::Metadata { key }, Kind::Value, &Method::PUT) => {
            let body = upload.collect(MAX_METADATA_BODY_BYTES).await?;
            values::describe(&whole(key)?, attributes::metadata(&body)?).await
        }
        (Target::Metadata { key }, Kind::Value, _) => values::describe(&whole(key)?, None).await,
        (Target::Whole { key }, _, &Method::DELETE) => whole(key)?.change(Change::Clear).await,
        (Target::Metadata { key }, _, &Method::PUT) => whole(key)?.describe(upload).await,
        (Target::Metadata { key }, _, _) => whole(key)?.forget_metadata().await,
        (Target::Whole { key }, Kind::Set, &Method::GET) => sets::list(&whole(key)?),
        (Target::Whole { key }, Kind::Set, _) => sets::change(&whole(key)?, upload).await,
        (Target::Whole { key }, Kind::Map, &Method::GET) => maps::list(&whole(key)?),
        (Target::Whole { key }, Kind::Map, _) => maps::change(&whole(key)?, upload).await,
        (Target::Whole { key }, Kind::Bounded, &Method::GET) => bounded::read(&whole(key)?),
        (Target::Whole { key }, Kind::Bounded, _) => {
            bounded::change(&whole(key)?, &head.headers, upload).await
        }
        (Target::Whole { key }, _, &Method::GET) => counters::read(&whole(key)?),
        (Target::Whole { key }, _, _) => counters::add(&whole(key)?, upload).await,
        (Target::Element { key, element }, kind, method) => {
            let whole = whole(key)?;
            let element = decode_element(element, whole.element_word())?;
            match (kind, method) {
                (_, &Method::DELETE) => whole.change_elements(vec![(element, Change::Remove)]).await,
                (Kind::Map, &Method::PUT) => maps::put(&whole, element, upload).await,
                (Kind::Map, _) => maps::read(&whole, &element).await,
                (_, &Method::PUT) => sets::put(&whole, element).await,
                (_, _) => sets::read(&whole, &element),
            }
        }
    }
}

/// A value, counter, set, map or document, whether there is one or not, to which who asks may do what is asked.
pub(super) struct Whole<'a> {
    pub(super) surface: &'a Surface,
    pub(super) place: &'a Place,
    kind: Kind,
    pub(super) key: Cow<'a, str>,
    pub(super) query: &'a Query<'a>,
    /// In which states the request is to be done.
    precondition: Option<&'a Precondition>,
}

impl<'a> Whole<'a> {
    pub(super) fn enter(
        surface: &'a Surface,
        entered: &'a Entered<'a>,
        kind: Kind,
        raw_key: &'a str,
    ) -> Result<Self, ApiError> {
        let Entered { place, query, precondition } = entered;
        let key = place.key(raw_key)?;
        Ok(Self { surface, place, kind, key, query, precondition: precondition.as_ref() })
    }

    /// The entry that stands for all of it.
    pub(super) fn id(&self) -> EntryId {
        EntryId::whole(self.place.namespace, self.kind, Bytes::copy_from_slice(self.key.as_bytes()))
    }

    /// The entry of a member or field.
    fn element_id(&self, element: &str) -> EntryId {
        EntryId { element: Bytes::copy_from_slice(element.as_bytes()), ..self.id() }
    }

    /// What errors call its elements.
    fn element_word(&self) -> &'static str {
        if self.kind == Kind::Map { "the field" } else { "the member" }
    }

    /// Writes one change of it all.
    async fn change(&self, change: Change) -> Result<Response<Body>, ApiError> {
        Ok(written(self.write(vec![Write::Change { id: self.id(), change }]).await?))
    }

    /// Writes changes of members or fields as one group.
    async fn change_elements(
        &self,
        changes: Vec<(Cow<'_, str>, Change)>,
    ) -> Result<Response<Body>, ApiError> {
        let write =
            |(element, change): (Cow<'_, str>, _)| Write::Change { id: self.element_id(&element), change };
        Ok(written(self.write(changes.into_iter().map(write).collect()).await?))
    }

    /// Puts one member or field, and names the state that it is in now: what was put has replaced all that was seen.
    async fn put_element(&self, element: &str, change: Change) -> Result<Response<Body>, ApiError> {
        let dot = self.write(vec![Write::Change { id: self.element_id(element), change }]).await?;
        Ok(conditions::tagged(written(dot), dot.map(Etag::of_event).as_ref()))
    }

    /// Writes these as one group, at least one, and gives the last event. A conditional request has one.
    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<Option<Dot>, ApiError> {
        let conditional = |write| match self.precondition {
            Some(asked) => Write::If { precondition: asked.clone(), write: Box::new(write) },
            None => write,
        };
        let writes = writes.into_iter().map(conditional).collect();
        let dots = self.place.write(self.surface, writes, self.query.ack()?).await?;
        Ok(dots.last().copied())
    }

    /// Replaces the metadata by the JSON in the body; null takes it away.
    pub(super) async fn describe(&self, upload: &mut Upload) -> Result<Response<Body>, ApiError> {
        let body = upload.collect(MAX_METADATA_BODY_BYTES).await?;
        match attributes::metadata(&body)? {
            None => self.forget_metadata().await,
            some => self.change(Change::Describe(some)).await,
        }
    }

    /// Takes the metadata away. Where there is none nothing is written, which would make a counter of what is none.
    pub(super) async fn forget_metadata(&self) -> Result<Response<Body>, ApiError> {
        self.query.ack()?;
        match self.metadata()? {
            None if self.precondition.is_some() => {
                let (engine, namespace, key) =
                    (&self.surface.engine, self.place.namespace, self.key.as_bytes());
                let etag = match self.kind {
                    Kind::Bounded => engine.bounded(namespace, key)?.map(|(_, etag)| etag),
                    _ => engine.counter(namespace, key)?.map(|(_, etag)| etag),
                };
                conditions::decide(self.precondition, etag.as_ref())?;
                Ok(written(None))
            }
            None => Ok(written(None)),
            Some(_) => self.change(Change::Describe(None)).await,
        }
    }

    pub(super) fn metadata(&self) -> Result<Option<Bytes>, ApiError> {
        let (engine, namespace, key) = (&self.surface.engine, self.place.namespace, self.key.as_bytes());
        Ok(match self.kind {
            Kind::Counter => engine.counter(namespace, key)?.and_then(|(counter, _)| counter.metadata),
            Kind::Bounded => engine.bounded(namespace, key)?.and_then(|(bounded, _)| bounded.metadata),
            kind => engine.metadata(namespace, kind, key)?,
        })
    }

    /// The page of members or fields that is asked for, in the form `T` of each; and where the next one begins.
    fn elements<T>(
        &self,
        show: impl Fn(String, replication::Content) -> T,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        let span = Span::asked(self.query)?;
        for text in [Some(span.prefix), span.after].into_iter().flatten().filter(|text| !text.is_empty()) {
            if text.len() > MAX_ELEMENT_BYTES {
                check_element(text, self.element_word())?;
            }
        }
        let whole = (self.place.namespace, self.kind, self.key.as_bytes());
        let list =
            || self.surface.engine.elements(whole, span.prefix_bytes(), span.after_bytes(), span.limit);
        let page = tokio::task::block_in_place(list)?;
        // Names are checked to be UTF-8 where they enter.
        let rows = page.rows.into_iter().map(|(element, content)| show(text(&element), content));
        Ok((rows.collect(), page.next_after.as_deref().map(text)))
    }
}

/// Which part of a listing is asked for.
struct Span<'a> {
    prefix: &'a str,
    /// Strictly after this.
    after: Option<&'a str>,
    limit: usize,
}

impl<'a> Span<'a> {
    fn asked(query: &'a Query<'_>) -> Result<Self, ApiError> {
        let limit = query.number("limit")?.unwrap_or(MAX_PAGE_ROWS as u64);
        if !(1..=MAX_PAGE_ROWS as u64).contains(&limit) {
            return Err(ApiError::invalid(format!("limit must be 1 to {MAX_PAGE_ROWS}, not {limit}")));
        }
        Ok(Self {
            prefix: query.text("prefix").unwrap_or_default(),
            after: query.text("after").filter(|after| !after.is_empty()),
            limit: limit as usize,
        })
    }

    fn prefix_bytes(&self) -> &'a [u8] {
        self.prefix.as_bytes()
    }

    fn after_bytes(&self) -> Option<&'a [u8]> {
        self.after.map(str::as_bytes)
    }
}

pub(super) fn list_keys(
    surface: &Surface,
    place: &Place,
    kind: Kind,
    query: &Query<'_>,
) -> Result<Response<Body>, ApiError> {
    let span = Span::asked(query)?;
    let longest = span.prefix.len().max(span.after.map_or(0, str::len));
    if longest > MAX_KEY_BYTES {
        return Err(ApiError::KeyTooLong { len: longest });
    }
    place.check(span.prefix)?;
    let of = (place.namespace, kind);
    let list = || surface.engine.keys_of(of, span.prefix_bytes(), span.after_bytes(), span.limit);
    let page = tokio::task::block_in_place(list)?;
    let keys = page.keys.iter().map(|row| KeyInfo {
        name: text(&row.key),
        expiration: row.expires_at_s,
        metadata: metadata_of(row.metadata.as_deref()),
    });
    Ok(json(&KeysPage { keys: keys.collect(), next_after: page.next_after.as_deref().map(text) }))
}

/// A name as text, which it is.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

pub(super) fn metadata_of(metadata: Option<&[u8]>) -> Option<Box<RawValue>> {
    metadata_json(metadata).map(ToOwned::to_owned)
}

/// The expiry that the query asks for.
pub(super) fn asked_expiry(query: &Query<'_>) -> Result<Option<u64>, ApiError> {
    expires_later_than(MIN_TTL_S, query.float("expiration")?, query.float("expiration_ttl")?, now_s())
}

/// What a JSON body asks for.
async fn received<T: DeserializeOwned>(surface: &Surface, upload: &mut Upload) -> Result<T, ApiError> {
    let _share = wait_for_memory(surface, upload.announced()).await?;
    let body = upload.collect(MAX_BODY_BYTES).await?;
    let not_json = |reason: String| ApiError::NotJson { reason };
    // An array of the values of its fields would be taken for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(not_json("it is no object".to_owned()));
    }
    serde_json::from_slice(&body).map_err(|error| not_json(error.to_string()))
}

pub(super) fn json(answer: &impl Serialize) -> Response<Body> {
    let mut response = Response::new(Body::from(json_bytes(answer)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn json_bytes(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("our types have string keys and no failing fields")
}

/// The answer to a write that has nothing else to tell.
pub(super) fn written(dot: Option<Dot>) -> Response<Body> {
    with_receipt(json(&Written { receipt: dot.map(show_dot) }), dot)
}

/// The answer with the event by which a write was done.
pub(super) fn with_receipt(mut response: Response<Body>, dot: Option<Dot>) -> Response<Body> {
    let receipt = dot.and_then(|dot| HeaderValue::from_str(&show_dot(dot)).ok());
    if let Some(receipt) = receipt {
        response.headers_mut().insert(HeaderName::from_static(RECEIPT_HEADER), receipt);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_routed_as_sent_and_empty_parts_lead_nowhere() {
        let check = |path: &str, expected: Option<(Kind, Target<'_>)>| {
            let full = format!("/v1/accounts/acc/namespaces/ns{path}");
            let found = route(&full).map(|asked| {
                assert_eq!((asked.account, asked.namespace), ("acc", "ns"));
                (asked.kind, asked.target)
            });
            assert_eq!(found, expected, "{path}");
        };
        let member = |key, element| Some((Kind::Set, Target::Element { key, element }));
        check("/counters", Some((Kind::Counter, Target::Keys)));
        check("/counters/k", Some((Kind::Counter, Target::Whole { key: "k" })));
        check("/counters/metadata", Some((Kind::Counter, Target::Whole { key: "metadata" })));
        check("/bounded/k", Some((Kind::Bounded, Target::Whole { key: "k" })));
        check("/values", Some((Kind::Value, Target::Keys)));
        check("/values/a%2Fb", Some((Kind::Value, Target::Whole { key: "a%2Fb" })));
        check("/values/k/metadata", Some((Kind::Value, Target::Metadata { key: "k" })));
        check("/maps/a%2Fb/metadata", Some((Kind::Map, Target::Metadata { key: "a%2Fb" })));
        check("/maps/k/fields/f", Some((Kind::Map, Target::Element { key: "k", element: "f" })));
        check("/sets/k/members/metadata", member("k", "metadata"));
        check("/sets/members/members/%2F", member("members", "%2F"));
        check("/sets/k/members/", member("k", ""));
        for nowhere in [
            "/counters/",
            "/counters/k/",
            "/counters/k/members/m",
            "/bounded/k/members/m",
            "/values/",
            "/values/a/b",
            "/values/k/fields/f",
            "/sets/k/",
            "/sets/k/members",
            "/sets/k/fields/f",
            "/sets//members/m",
            "/sets//metadata",
            "/sets/k/members/m/",
            "/sets/k/members/a/b",
            "/maps/k/metadata/",
            "/quota",
            "/",
            "",
        ] {
            check(nowhere, None);
        }
        for nowhere in ["/v1/accounts//namespaces/ns/sets", "/v1/accounts/a/namespaces//sets", "/v1/sets"] {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
    }
}
