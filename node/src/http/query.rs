//! What is percent-encoded in a request's target: the query's parameters and the key.
//!
//! The rule this file upholds: each is decoded exactly once, into UTF-8, or refused.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use replication::entry::{MAX_ELEMENT_BYTES, MAX_KEY_BYTES};

use super::error::ApiError;
use crate::engine::Ack;

/// The parameters of a query, decoded as HTML forms encode them ("+" is a space).
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn parse(query: Option<&'a str>) -> Result<Self, ApiError> {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((form_decode(name)?, form_decode(value)?))
        });
        decoded.collect::<Result<_, _>>().map(Self)
    }

    /// The parameter of this name; the first where it was given more than once.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_ref())
    }

    /// A whole number. Clients in Python write ten as "10.0".
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let parse = |text: &str| {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let fraction_is_zero = !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0');
            let number = if fraction_is_zero { whole } else { text };
            number
                .parse()
                .map_err(|_| ApiError::invalid(format!("{name} must be a whole number, not \"{text}\"")))
        };
        self.text(name).map(parse).transpose()
    }

    /// A number that some clients send as a float.
    pub(crate) fn float(&self, name: &str) -> Result<Option<f64>, ApiError> {
        let parse = |text: &str| {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            number.ok_or_else(|| {
                ApiError::BadExpiry(format!("Invalid {name} of {text}. Please specify a number of seconds."))
            })
        };
        self.text(name).map(parse).transpose()
    }

    /// When the write is to be acknowledged: our own parameter, `durable` unless given.
    pub(crate) fn ack(&self) -> Result<Ack, ApiError> {
        match self.text("ack") {
            None | Some("durable") => Ok(Ack::Durable),
            Some("buffered") => Ok(Ack::Buffered),
            Some(other) => {
                Err(ApiError::invalid(format!("ack must be durable or buffered, not \"{other}\"")))
            }
        }
    }
}

/// The key in a path.
pub(crate) fn decode_key(raw: &str) -> Result<Cow<'_, str>, ApiError> {
    let key = percent_decode(raw, "the key")?;
    check_key(&key)?;
    Ok(key)
}

/// Whether a key is one: 1 to [`MAX_KEY_BYTES`] bytes, and neither "." nor "..".
pub(crate) fn check_key(key: &str) -> Result<(), ApiError> {
    match key {
        "" => Err(ApiError::invalid("a key name cannot be empty")),
        "." | ".." => Err(ApiError::invalid(format!("\"{key}\" is not allowed as a key name"))),
        _ if key.len() > MAX_KEY_BYTES => Err(ApiError::KeyTooLong { len: key.len() }),
        _ => Ok(()),
    }
}

/// The member or field in a path; `what` says which.
pub(crate) fn decode_element<'a>(raw: &'a str, what: &'static str) -> Result<Cow<'a, str>, ApiError> {
    let element = percent_decode(raw, what)?;
    check_element(&element, what)?;
    Ok(element)
}

/// Whether a member or field is one: 1 to [`MAX_ELEMENT_BYTES`] bytes, and neither "." nor "..", which no path names.
pub(crate) fn check_element(element: &str, what: &'static str) -> Result<(), ApiError> {
    match element {
        "" => Err(ApiError::invalid(format!("{what} cannot be empty"))),
        "." | ".." => Err(ApiError::invalid(format!("\"{element}\" is not allowed as {what}"))),
        _ if element.len() > MAX_ELEMENT_BYTES => Err(ApiError::ElementTooLong { what, len: element.len() }),
        _ => Ok(()),
    }
}

fn form_decode(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.contains('+') {
        return percent_decode(text, "the query");
    }
    let spaced = text.replace('+', " ");
    percent_decode(&spaced, "the query").map(|decoded| Cow::Owned(decoded.into_owned()))
}

fn percent_decode<'a>(text: &'a str, what: &str) -> Result<Cow<'a, str>, ApiError> {
    if !text.as_bytes().contains(&b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut escapes =
        text.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'%').map(|(at, _)| at + 1);
    let is_hex =
        |digits: Option<&[u8]>| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !escapes.all(|at| is_hex(text.as_bytes().get(at..at + 2))) {
        return Err(ApiError::invalid(format!(
            "{what} has a \"%\" that two hexadecimal digits do not follow"
        )));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map_err(|_| ApiError::invalid(format!("{what} is not percent-encoded UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_exactly_once() {
        let cases = [
            ("a", Some("a")),
            ("a+b", Some("a+b")),
            ("a/../b", Some("a/../b")),
            ("x%2Fy", Some("x/y")),
            ("x%252Fy", Some("x%2Fy")),
            ("%C3%BC%00%0D%0A", Some("ü\0\r\n")),
            ("", None),
            (".", None),
            ("%2e%2E", None),
            ("...", Some("...")),
            ("100%", None),
            ("%+1", None),
            ("%ED%A0%80", None),
            ("%FF", None),
        ];
        for (raw, expected) in cases {
            assert_eq!(decode_key(raw).ok().as_deref(), expected, "{raw}");
        }
        assert!(decode_key(&"%61".repeat(MAX_KEY_BYTES)).is_ok());
        assert!(matches!(decode_key(&"a".repeat(MAX_KEY_BYTES + 1)), Err(ApiError::KeyTooLong { len: 513 })));
    }

    #[test]
    fn parameters_are_decoded_as_forms_are() {
        let query = Query::parse(Some("prefix=a+b%2B&limit=10&&empty=&ttl=60.0&flag&limit=20")).unwrap();
        assert_eq!(query.text("prefix"), Some("a b+"));
        assert_eq!(query.text("empty"), Some(""));
        assert_eq!(query.text("flag"), Some(""));
        assert_eq!(query.text("absent"), None);
        assert_eq!(query.number("limit").unwrap(), Some(10));
        assert_eq!(query.float("ttl").unwrap(), Some(60.0));
        assert!(query.number("prefix").is_err());
        for (text, expected) in [
            ("10.0", Some(10)),
            ("1000.000", Some(1000)),
            ("10.5", None),
            ("10.", None),
            (".0", None),
            ("-1.0", None),
            ("10.0.0", None),
            ("1e1", None),
            ("18446744073709551616.0", None),
        ] {
            let limit = format!("limit={text}");
            let number = Query::parse(Some(&limit)).unwrap().number("limit");
            assert_eq!(number.ok().flatten(), expected, "{text}");
        }
        assert!(Query::parse(Some("prefix=%FF")).is_err());
        for bad in ["NaN", "inf", "", "6o"] {
            assert!(Query::parse(Some(&format!("ttl={bad}"))).unwrap().float("ttl").is_err(), "{bad}");
        }
    }
}
