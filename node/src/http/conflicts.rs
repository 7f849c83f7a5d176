//! Conflicts under `/v1/accounts/{account}/namespaces/{namespace}/conflicts`: values that lost at this PoP to a write
//! whose writer had not seen them, to be looked at, put back or dismissed.
//!
//! The rule this file upholds: a conflict is about its key. Whoever may not do something to the key may not do it to what
//! has lost there either.

use axum::body::Body;
use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::http::request::Parts;
use hyper::{Method, Response};
use littoral::api::conflicts::{
    Conflict, ConflictsPage, Dismissed, Lost, MAX_PAGE_CONFLICTS, PREVIEW_BYTES, Won,
};
use littoral::api::tokens::Action;
use littoral::api::values::METADATA_HEADER;
use replication::codec::conflict::Conflict as Row;
use replication::entry::MAX_KEY_BYTES;
use replication::read::conflicts::Keys;
use replication::{Body as State, Dot, NamespaceId, Payload, Value, keys};

use super::Surface;
use super::attributes::now_s;
use super::auth::Place;
use super::body::{DRAIN_SLACK_BYTES, Upload};
use super::conditions;
use super::error::ApiError;
use super::kinds::{json, metadata_of, method_of, written};
use super::native_path::NativePath;
use super::query::{Query, check_key};
use super::route::Operation;
use super::values::with_payload;
use crate::engine::{Etag, Known, OperatorError, Precondition, Write, WriteError};

/// The longest id: two digits for each byte of an escaped key, its end, and an event.
const MAX_ID_DIGITS: usize = 2 * (2 * MAX_KEY_BYTES + 2 + 24);

/// What a request asks for, its path taken apart but not yet decoded or checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    account: &'a str,
    namespace: &'a str,
    target: Target<'a>,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target<'a> {
    /// All there are.
    All,
    /// One.
    One { id: &'a str },
    /// That one should win after all.
    Restore { id: &'a str },
}

/// What is asked for under this path; `None` where it is not one of these pages.
pub(super) fn route(path: &str) -> Option<Asked<'_>> {
    let NativePath { account, namespace, page, rest } = NativePath::parse(path)?;
    let target = match rest {
        _ if page != "conflicts" => return None,
        [None, ..] => Target::All,
        [Some(""), ..] => return None,
        [Some(id), None, _] => Target::One { id },
        [Some(id), Some("restore"), None] => Target::Restore { id },
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
            Target::All => "GET",
            Target::One { .. } => "GET, DELETE",
            Target::Restore { .. } => "POST",
        }
    }

    /// What a token needs for this.
    fn action(&self, method: &Method) -> Action {
        match (*method == Method::GET, self.target) {
            (false, _) => Action::Write,
            (true, Target::All) => Action::List,
            (true, _) => Action::Read,
        }
    }

    /// In which states of the value under its key a conflict is to be restored.
    fn precondition(&self, head: &Parts) -> Result<Option<Precondition>, ApiError> {
        match self.target {
            Target::Restore { .. } => conditions::asked(&head.headers),
            _ if conditions::is_conditional(&head.headers) && *method_of(head) != Method::GET => {
                Err(ApiError::invalid(
                    "If-Match and If-None-Match are for restoring a conflict, not for this: leave them out",
                ))
            }
            _ => Ok(None),
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
    let answer = dispatch(surface, asked, head).await;
    upload.drain(DRAIN_SLACK_BYTES).await;
    let mut answer = answer.unwrap_or_else(ApiError::into_problem);
    if matches!(asked.target, Target::Restore { .. }) && conditions::is_conditional(&head.headers) {
        conditions::sign(&mut answer, surface.engine.pop());
    }
    (Operation::Conflicts, answer)
}

async fn dispatch(surface: &Surface, asked: &Asked<'_>, head: &Parts) -> Result<Response<Body>, ApiError> {
    let method = method_of(head);
    let named = (asked.account, asked.namespace);
    let place = Place::named(surface, head, named, asked.allow(), asked.action(method))?;
    let precondition = asked.precondition(head)?;
    let query = Query::parse(head.uri.query())?;
    match (asked.target, method) {
        (Target::All, _) => list(surface, &place, &query).await,
        (Target::One { id }, &Method::GET) => read(surface, &find(surface, &place, id)?).await,
        (Target::One { id }, _) => {
            let row = find(surface, &place, id)?;
            dismiss(surface, &row).await?;
            Ok(json(&Dismissed { id: id_of(&row.id.key, row.lost.dot) }))
        }
        (Target::Restore { id }, _) => {
            let row = find(surface, &place, id)?;
            restore(surface, &place, &query, precondition, row).await
        }
    }
}

async fn list(surface: &Surface, place: &Place, query: &Query<'_>) -> Result<Response<Body>, ApiError> {
    let limit = query.number("limit")?.unwrap_or(MAX_PAGE_CONFLICTS as u64);
    if !(1..=MAX_PAGE_CONFLICTS as u64).contains(&limit) {
        return Err(ApiError::invalid(format!("limit must be 1 to {MAX_PAGE_CONFLICTS}, not {limit}")));
    }
    let (prefix, key) = (query.text("prefix").unwrap_or_default(), query.text("key"));
    if key.is_some() && !prefix.is_empty() {
        return Err(ApiError::invalid("give either key or prefix, not both"));
    }
    let name = match key {
        Some(key) => check_key(key).map(|()| key)?,
        None if prefix.len() > MAX_KEY_BYTES => return Err(ApiError::KeyTooLong { len: prefix.len() }),
        None => prefix,
    };
    place.check(name)?;
    let shows = match query.text("include") {
        None | Some("") => false,
        // Whoever may list keys need not see what is under them.
        Some("preview") => place.check_to(Action::Read, name).map(|()| true)?,
        Some(other) => {
            return Err(ApiError::invalid(format!("include must be preview or left out, not {other:?}")));
        }
    };
    let of = if key.is_some() { Keys::One(name.as_bytes()) } else { Keys::Prefix(name.as_bytes()) };
    let no_cursor = || ApiError::invalid("after must be next_after of an earlier page, as it was given");
    let after = query.text("after").filter(|after| !after.is_empty());
    let after = after.map(|id| parse_id(place.namespace, id).ok_or_else(no_cursor)).transpose()?;
    let after = after.as_ref().map(|(key, lost)| (&key[..], *lost));
    let page = || surface.engine.conflicts(place.namespace, of, after, limit as usize);
    let page = tokio::task::block_in_place(page)?;
    let replicas = page.rows.iter().flat_map(|row| [row.lost.dot.replica, row.won.replica]).collect();
    let known = surface.engine.known_of_conflicts(replicas).await?;
    Ok(json(&ConflictsPage {
        conflicts: page.rows.iter().map(|row| shown(row, &known, shows)).collect(),
        next_after: page.next_after.map(|(key, lost)| id_of(&key, lost)),
    }))
}

fn shown(row: &Row, known: &Known, shows: bool) -> Conflict {
    let (lost, won) = (row.lost.dot, row.won);
    let pop = |dot: Dot| known.pops.get(&dot.replica).cloned();
    let value = lost_value(row);
    let preview = value.filter(|_| shows).and_then(|value| match &value.payload {
        Payload::Inline(bytes) => {
            Some(String::from_utf8_lossy(&bytes[..bytes.len().min(PREVIEW_BYTES)]).into_owned())
        }
        Payload::Chunked(_) => None,
    });
    Conflict {
        id: id_of(&row.id.key, lost),
        key: String::from_utf8_lossy(&row.id.key).into_owned(),
        lost: Lost {
            pop: pop(lost),
            replica: lost.replica.to_string(),
            written_ms: lost.hlc.wall_ms(),
            size: value.map_or(0, |value| value.payload.len()),
            preview,
            metadata: value.filter(|_| shows).and_then(|value| metadata_of(value.metadata.as_deref())),
            expiration: value.and_then(|value| value.expires_at_s),
        },
        won: Won {
            pop: pop(won),
            replica: won.replica.to_string(),
            written_ms: won.hlc.wall_ms(),
            deleted: row.deleted,
        },
        noticed_ms: row.noticed.wall_ms(),
        kept_until_ms: row.noticed.wall_ms().saturating_add(known.kept_ms),
    }
}

/// The bytes that lost, with what was stored along with them.
async fn read(surface: &Surface, row: &Row) -> Result<Response<Body>, ApiError> {
    let Value { payload, metadata, expires_at_s } = lost_value(row).cloned().ok_or_else(not_here)?;
    let mut response = with_payload(surface, payload).await?;
    let headers = response.headers_mut();
    if let Some(at_s) = expires_at_s {
        headers.insert(HeaderName::from_static("expiration"), at_s.into());
    }
    if let Some(metadata) = metadata.as_deref().and_then(super::kinds::as_header) {
        headers.insert(HeaderName::from_static(METADATA_HEADER), metadata);
    }
    Ok(response)
}

/// Writes what lost as a new value, and takes it from the ledger of this PoP.
async fn restore(
    surface: &Surface,
    place: &Place,
    query: &Query<'_>,
    precondition: Option<Precondition>,
    row: Row,
) -> Result<Response<Body>, ApiError> {
    let ack = query.ack()?;
    let value = lost_value(&row).cloned().ok_or_else(not_here)?;
    if value.is_expired(now_s()) {
        return Err(ApiError::invalid(
            "the value that lost has expired meanwhile: read it, and write it with another expiry",
        ));
    }
    // Until the new value names them.
    let pins: Vec<_> = match &value.payload {
        Payload::Inline(_) => Vec::new(),
        Payload::Chunked(manifest) => {
            manifest.chunks.iter().map(|chunk| surface.chunks.store.pin(*chunk)).collect()
        }
    };
    let put = Write::Put { namespace: place.namespace, key: row.id.key.clone(), value };
    let write = match precondition {
        Some(precondition) => Write::If { precondition, write: Box::new(put) },
        None => put,
    };
    let dot = place.write(surface, vec![write], ack).await?.last().copied();
    drop(pins);
    // What is restored is no conflict any more; one that stays after a crash at this point goes by its age.
    dismiss(surface, &row).await?;
    Ok(conditions::tagged(written(dot), dot.map(Etag::of_event).as_ref()))
}

async fn dismiss(surface: &Surface, row: &Row) -> Result<(), ApiError> {
    let dismissed = surface.engine.dismiss_conflict(row.id.namespace, &row.id.key, row.lost.dot).await;
    let unavailable = |error: OperatorError| WriteError::Unavailable { reason: error.to_string() };
    dismissed.map(drop).map_err(|error| unavailable(error).into())
}

/// The conflict of this id, if who asks may do to its key what is asked.
fn find(surface: &Surface, place: &Place, id: &str) -> Result<Row, ApiError> {
    let (key, lost) = parse_id(place.namespace, id).ok_or_else(not_here)?;
    place.check(std::str::from_utf8(&key).map_err(|_| not_here())?)?;
    surface.engine.conflict(place.namespace, &key, lost)?.ok_or_else(not_here)
}

fn not_here() -> ApiError {
    ApiError::NotHere { what: "conflict" }
}

fn lost_value(row: &Row) -> Option<&Value> {
    if let State::Value(value) = &row.lost.body { Some(value) } else { None }
}

/// The name of a conflict: key and event, so that it is the same everywhere, in the order of listings.
fn id_of(key: &[u8], lost: Dot) -> String {
    let row_key = keys::conflict(NamespaceId::SYSTEM, key, lost);
    let head = keys::conflicts(NamespaceId::SYSTEM, b"").len();
    row_key[head..].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_id(namespace: NamespaceId, id: &str) -> Option<(Bytes, Dot)> {
    if id.len() > MAX_ID_DIGITS
        || !id.len().is_multiple_of(2)
        || !id.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        return None;
    }
    let mut row_key = keys::conflicts(namespace, b"");
    for at in (0..id.len()).step_by(2) {
        row_key.push(u8::from_str_radix(&id[at..at + 2], 16).ok()?);
    }
    let (id, lost) = keys::parse_conflict(&row_key).filter(|(id, _)| !id.key.is_empty())?;
    Some((id.key, lost))
}

#[cfg(test)]
mod tests {
    use replication::{Hlc, ReplicaId};

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
        check("/conflicts", Some(Target::All));
        check("/conflicts/00ff", Some(Target::One { id: "00ff" }));
        check("/conflicts/restore", Some(Target::One { id: "restore" }));
        check("/conflicts/00ff/restore", Some(Target::Restore { id: "00ff" }));
        for nowhere in ["/conflicts/", "/conflicts//restore", "/conflicts/a/b", "/conflicts/a/restore/", ""] {
            check(nowhere, None);
        }
    }

    #[test]
    fn an_id_leads_back_and_ids_are_in_the_order_of_listings() {
        let namespace = NamespaceId([7; 16]);
        let lost = |ms| Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([9; 16]) };
        let longest = "\0".repeat(MAX_KEY_BYTES);
        let named = [("a", 1), ("a", 2), ("a\0", 1), ("ab", 1), ("ü", 1)].map(|(key, ms)| (key, lost(ms)));
        let ids: Vec<String> = named.iter().map(|(key, lost)| id_of(key.as_bytes(), *lost)).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        for ((key, lost), id) in named.iter().zip(&ids) {
            assert_eq!(parse_id(namespace, id), Some((Bytes::copy_from_slice(key.as_bytes()), *lost)));
        }
        let id = id_of(longest.as_bytes(), lost(1));
        assert_eq!(id.len(), MAX_ID_DIGITS);
        assert!(parse_id(namespace, &id).is_some());
        let short = &ids[0];
        for bad in ["", "0", "zz", "00", &short[2..], &short[..short.len() - 2], &format!("{id}00")] {
            assert_eq!(parse_id(namespace, bad), None, "{bad}");
        }
        assert_eq!(parse_id(namespace, &id_of(b"", lost(1))), None);
    }
}
