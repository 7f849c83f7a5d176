//! Requests that are for one state of a document only.
//!
//! A state is named by its heads, so two PoPs that hold the same changes have one tag for it.

use automerge::ChangeHash;
use axum::body::Body;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use littoral::api::docs::{HEADS_HEADER, MAX_HEADS};

use super::super::conditions::{decide, read};
use super::super::error::ApiError;
use crate::documents::Document;
use crate::engine::{Etag, Precondition};

/// The name of the state with these heads.
pub(super) fn etag(heads: &[ChangeHash]) -> Etag {
    let mut hasher = blake3::Hasher::new();
    let mut sorted = heads.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    for hash in sorted {
        hasher.update(&hash.0);
    }
    Etag::of_hash(hasher.finalize())
}

/// Whether a write that is for certain states may be done to this one.
pub(super) fn check_write(precondition: Option<&Precondition>, document: &Document) -> Result<(), ApiError> {
    let current =
        Some(document).filter(|document| !document.is_new()).map(|document| etag(&document.heads()));
    decide(precondition, current.as_ref())
}

/// The answer to who has what is asked for already; `None` to who has not. Who wants another state is refused.
pub(super) fn known(
    precondition: Option<&Precondition>,
    heads: &[ChangeHash],
) -> Result<Option<Response<Body>>, ApiError> {
    Ok(read(precondition, Some(&etag(heads)))?.map(|answer| tagged(answer, heads)))
}

/// The answer with the name of the state that it is of.
pub(super) fn tagged(response: Response<Body>, heads: &[ChangeHash]) -> Response<Body> {
    let mut response = super::super::conditions::tagged(response, Some(&etag(heads)));
    // As many as can be sent back. More come about only where so many edit at once.
    if heads.len() <= MAX_HEADS {
        let heads: Vec<_> = heads.iter().map(ToString::to_string).collect();
        let heads = HeaderValue::from_str(&heads.join(",")).expect("hexadecimal digits and commas");
        response.headers_mut().insert(HeaderName::from_static(HEADS_HEADER), heads);
    }
    response
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{IF_MATCH, IF_NONE_MATCH};
    use serde_json::json;

    use super::super::super::conditions::{asked, quoted};
    use super::*;
    use crate::documents::{Edit, Limits};

    #[test]
    fn writes_are_for_the_states_that_they_name() {
        let new = Document::load(&[], &[1; 24]).unwrap();
        let mut there = new.clone();
        let limits = Limits::of_node(1 << 20, 1_000);
        there.edit(&Edit::Put(&json!({"a": 1})), None, 0, limits).unwrap();
        let current = quoted(&etag(&there.heads()));
        let weak = format!("W/{current}");
        let many = format!("\"x\" , {current}");
        let check = |name: HeaderName, value: &str, to_new: bool, to_there: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            let precondition = asked(&headers).unwrap();
            let found = [&new, &there].map(|document| check_write(precondition.as_ref(), document).is_ok());
            assert_eq!(found, [to_new, to_there], "{value}");
        };
        check(IF_MATCH, &current, false, true);
        check(IF_MATCH, &many, false, true);
        check(IF_MATCH, &weak, false, false);
        check(IF_MATCH, "*", false, true);
        check(IF_MATCH, "\"x\"", false, false);
        check(IF_NONE_MATCH, "*", true, false);
        check(IF_NONE_MATCH, &weak, true, false);
        check(IF_NONE_MATCH, "\"x\"", true, true);
        assert!(check_write(None, &new).is_ok());
    }
}
