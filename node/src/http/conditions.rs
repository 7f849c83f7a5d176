//! `If-Match` and `If-None-Match`: from the headers of a request to what it is for, and what answers say of it.
//!
//! The rule this file upholds: a condition that cannot be read, or that nobody would decide, is refused and never
//! passed over: a write that was meant for one state must not be done to another.

use axum::body::Body;
use hyper::header::{ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::{HeaderMap, Response, StatusCode};
use littoral::api::values::{CONDITION_HEADER, MAX_TAGS};

use super::error::ApiError;
use crate::engine::{Etag, Precondition, Tag, Tags, Verdict, WriteError};

/// What a request is for; `None` where it does not say.
pub(super) fn asked(headers: &HeaderMap) -> Result<Option<Precondition>, ApiError> {
    let precondition = Precondition { is: tags(headers, IF_MATCH)?, is_not: tags(headers, IF_NONE_MATCH)? };
    Ok(Some(precondition).filter(|asked| *asked != Precondition::default()))
}

/// Whether a request has a condition, of whatever form.
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH)
}

/// Whose decision it was.
pub(super) fn sign(response: &mut Response<Body>, pop: &str) {
    // Names of PoPs are letters, digits and hyphens.
    if let Ok(pop) = HeaderValue::from_str(&format!("pop={pop}")) {
        response.headers_mut().insert(HeaderName::from_static(CONDITION_HEADER), pop);
    }
}

/// Decides about a read of this state. Where it is known to the client already, that is the answer.
pub(super) fn read(
    precondition: Option<&Precondition>,
    current: Option<&Etag>,
) -> Result<Option<Response<Body>>, ApiError> {
    match precondition.map_or(Verdict::Holds, |precondition| precondition.verdict(current)) {
        Verdict::Holds => Ok(None),
        Verdict::IsNot => Err(WriteError::Precondition { index: 0, current: current.cloned() }.into()),
        Verdict::Is => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            Ok(Some(tagged(response, current)))
        }
    }
}

/// Decides about a write that turns out to have nothing to do, or is done in two steps.
pub(super) fn decide(precondition: Option<&Precondition>, current: Option<&Etag>) -> Result<(), ApiError> {
    match precondition.map_or(Verdict::Holds, |precondition| precondition.verdict(current)) {
        Verdict::Holds => Ok(()),
        Verdict::Is | Verdict::IsNot => {
            Err(WriteError::Precondition { index: 0, current: current.cloned() }.into())
        }
    }
}

/// The answer with the name of the state that it is about.
pub(super) fn tagged(mut response: Response<Body>, etag: Option<&Etag>) -> Response<Body> {
    if let Some(etag) = etag {
        response.headers_mut().insert(ETAG, header(etag));
    }
    response
}

/// As it stands in headers.
pub(super) fn header(etag: &Etag) -> HeaderValue {
    HeaderValue::from_str(&quoted(etag)).expect("it is made of hexadecimal digits and a hyphen")
}

pub(super) fn quoted(etag: &Etag) -> String {
    format!("\"{}\"", etag.as_str())
}

/// What a text of this name asks for, that is written as a header would be.
pub(super) fn tags_in(name: &str, text: &str) -> Result<Tags, ApiError> {
    if text.trim() == "*" {
        return Ok(Tags::Any);
    }
    let found = list(text.trim()).ok_or_else(|| no_tags(name, text))?;
    if found.len() > MAX_TAGS { Err(too_many_tags(name)) } else { Ok(Tags::These(found)) }
}

fn no_tags(name: &str, given: &str) -> ApiError {
    let example = "\"019c0a8b-...\"";
    ApiError::invalid(format!(
        "{name} must be * or tags as ETag gave them, with their quotes, such as {example}: not {given}"
    ))
}

fn too_many_tags(name: &str) -> ApiError {
    ApiError::invalid(format!("{name} has more than {MAX_TAGS} tags"))
}

/// The tags of all headers of this name.
fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, ApiError> {
    let mut found = Vec::new();
    let mut is_any = false;
    for value in headers.get_all(&name) {
        let wrong = || no_tags(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        let text = value.to_str().map_err(|_| wrong())?.trim();
        if text == "*" {
            is_any = true;
        } else {
            found.append(&mut list(text).ok_or_else(wrong)?);
        }
        if is_any && !found.is_empty() {
            return Err(wrong());
        }
        if found.len() > MAX_TAGS {
            return Err(too_many_tags(name.as_str()));
        }
    }
    let these = (!found.is_empty()).then_some(Tags::These(found));
    Ok(if is_any { Some(Tags::Any) } else { these })
}

/// The tags of one header, at least one; `None` where it is no list of tags.
fn list(mut text: &str) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    loop {
        let (is_weak, quoted) = match text.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let (tag, rest) = quoted.strip_prefix('"')?.split_once('"')?;
        tags.push(Tag { text: tag.to_owned(), is_weak });
        let rest = rest.trim_start();
        if rest.is_empty() {
            return Some(tags);
        }
        text = rest.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_condition_is_a_star_or_a_list_of_quoted_tags_and_nothing_else() {
        let check = |values: &[&str], expected: Option<&[&str]>| {
            let found = tags(&headers(IF_MATCH, values), IF_MATCH);
            let shown = found.ok().flatten().map(|tags| match tags {
                Tags::Any => vec!["*".to_owned()],
                Tags::These(tags) => {
                    let weak = |tag: &Tag| if tag.is_weak { "W/" } else { "" };
                    tags.iter().map(|tag| format!("{}{}", weak(tag), tag.text)).collect()
                }
            });
            let expected = expected.map(|tags| tags.iter().map(|tag| (*tag).to_owned()).collect());
            assert_eq!(shown, expected, "{values:?}");
        };
        check(&["*"], Some(&["*"]));
        check(&[" * "], Some(&["*"]));
        check(&["\"a\""], Some(&["a"]));
        check(&["\"a\" , W/\"b,c\",\"\""], Some(&["a", "W/b,c", ""]));
        check(&["\"a\"", "\"b\""], Some(&["a", "b"]));
        for bad in ["", "a", "\"a", "a\"", "\"a\" \"b\"", "\"a\",", ",\"a\"", "w/\"a\"", "*, \"a\"", "'a'"] {
            check(&[bad], None);
        }
        check(&["*", "\"a\""], None);
        assert!(tags(&HeaderMap::new(), IF_MATCH).unwrap().is_none());
    }

    #[test]
    fn there_are_only_so_many_tags() {
        for (count, fits) in [(MAX_TAGS - 1, true), (MAX_TAGS, true), (MAX_TAGS + 1, false)] {
            let given = vec!["\"a\""; count].join(",");
            assert_eq!(asked(&headers(IF_NONE_MATCH, &[&given])).is_ok(), fits, "{count}");
            assert_eq!(asked(&headers(IF_NONE_MATCH, &vec!["\"a\""; count])).is_ok(), fits, "{count}");
        }
    }
}
