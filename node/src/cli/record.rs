//! One line of an NDJSON import or export: a key with all that is stored under it.
//!
//! `{"key": "...", "value": "...", "base64"?: true, "metadata"?: JSON, "expiration"?: UNIX SECONDS}`.
//! A value that is no text travels as base64 and says so; what was exported imports to equal bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use littoral::api::kv::{BulkPair, MAX_KEY_BYTES, MAX_METADATA_BYTES, MAX_VALUE_BYTES, MIN_TTL_S};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::Failure;

/// What a line asks for.
#[derive(Debug)]
pub(super) enum Line {
    /// Nothing: it is blank.
    Blank,
    /// Nothing any more: its expiry has passed, or is nearer than a write may ask for.
    Expired,
    /// A write.
    Write(BulkPair),
}

/// The line as it must be. An unknown field is a mistake, not an extension.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    key: String,
    value: String,
    #[serde(default)]
    base64: bool,
    expiration: Option<u64>,
    expiration_ttl: Option<u64>,
    metadata: Option<Box<RawValue>>,
}

/// Understands a line, or says what is wrong with it. All that a server would refuse is refused here,
/// where the line's number is known.
pub(super) fn parse(line: &[u8], now_s: u64) -> Result<Line, String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(Line::Blank);
    }
    let record: Record = serde_json::from_slice(line).map_err(in_line)?;
    let Record { key, value, base64, expiration, expiration_ttl, metadata } = record;
    if matches!(key.as_str(), "" | "." | "..") {
        return Err(format!("{key:?} is not a valid key"));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("the key has {} bytes; the limit is {MAX_KEY_BYTES}", key.len()));
    }
    let value_bytes = if base64 { decoded_len(&value)? } else { value.len() };
    if value_bytes > MAX_VALUE_BYTES {
        return Err(format!("the value has {value_bytes} bytes; the limit is {MAX_VALUE_BYTES}"));
    }
    if let Some(metadata) = &metadata
        && metadata.get().len() > MAX_METADATA_BYTES
    {
        return Err(format!(
            "the metadata has {} bytes; the limit is {MAX_METADATA_BYTES}",
            metadata.get().len()
        ));
    }
    if expiration_ttl.is_some_and(|ttl_s| ttl_s < MIN_TTL_S) {
        return Err(format!("expiration_ttl must be at least {MIN_TTL_S}"));
    }
    // expiration_ttl wins over expiration, so that only without it the latter can have passed.
    if expiration_ttl.is_none() && expiration.is_some_and(|at_s| at_s <= now_s + MIN_TTL_S) {
        return Ok(Line::Expired);
    }
    Ok(Line::Write(BulkPair { key, value, base64, expiration, expiration_ttl, metadata }))
}

/// The line for what is stored under a key, with its line end.
pub(super) fn write(
    key: String,
    value: &[u8],
    expiration: Option<u64>,
    metadata: Option<Box<RawValue>>,
) -> Result<Vec<u8>, Failure> {
    let (value, base64) = match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (BASE64.encode(value), true),
    };
    let pair = BulkPair { key, value, base64, expiration, expiration_ttl: None, metadata };
    let mut line = serde_json::to_vec(&pair).map_err(Failure::new)?;
    line.push(b'\n');
    Ok(line)
}

fn decoded_len(text: &str) -> Result<usize, String> {
    BASE64.decode(text).map(|bytes| bytes.len()).map_err(|error| format!("the value is not base64: {error}"))
}

/// serde_json counts lines from the start of what it was given; here that is always one line.
fn in_line(error: serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} (column {column})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_000_000;

    fn check(line: &str, expected: &str) {
        let outcome = match parse(line.as_bytes(), NOW_S) {
            Ok(Line::Blank) => "blank".to_owned(),
            Ok(Line::Expired) => "expired".to_owned(),
            Ok(Line::Write(pair)) => serde_json::to_string(&pair).expect("a pair is JSON"),
            Err(what) => what,
        };
        assert_eq!(outcome, expected, "{line}");
    }

    #[test]
    fn good_lines_are_understood() {
        check(" \t\r", "blank");
        for line in [
            r#"{"key":"k","value":""}"#,
            r#"{"key":"ü/..","value":"v","expiration":1000061,"metadata":{"b":1e400,"a":[]}}"#,
            r#"{"key":"k","value":"AP8=","base64":true,"expiration_ttl":60}"#,
        ] {
            check(line, line);
        }
        check(r#"{"key":"k","value":"v","expiration":1000060}"#, "expired");
        check(r#"{"key":"k","value":"v","metadata":null}"#, r#"{"key":"k","value":"v"}"#);
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        check("{", "EOF while parsing an object (column 1)");
        check("[1]", "invalid type: integer `1`, expected a string (column 2)");
        check(r#"{"key":"k"}"#, "missing field `value` (column 11)");
        check(r#"{"key":"k","value":1}"#, "invalid type: integer `1`, expected a string (column 20)");
        check(r#"{"key":"..","value":""}"#, r#"".." is not a valid key"#);
        check(
            r#"{"key":"k","value":"?","base64":true}"#,
            "the value is not base64: Invalid symbol 63, offset 0.",
        );
        check(r#"{"key":"k","value":"v","expiration_ttl":59}"#, "expiration_ttl must be at least 60");
        let unknown = "unknown field `ttl`, expected one of `key`, `value`, `base64`, `expiration`, \
                       `expiration_ttl`, `metadata` (column 16)";
        check(r#"{"key":"k","ttl":1}"#, unknown);
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let key = |len| format!(r#"{{"key":"{}","value":""}}"#, "k".repeat(len));
        let metadata = |len| format!(r#"{{"key":"k","value":"","metadata":"{}"}}"#, "m".repeat(len - 2));
        let value = |len| format!(r#"{{"key":"k","value":"{}"}}"#, "v".repeat(len));
        let base64 =
            |len| format!(r#"{{"key":"k","value":"{}","base64":true}}"#, BASE64.encode(vec![0; len]));
        for (line, limit) in [
            (&key as &dyn Fn(usize) -> String, MAX_KEY_BYTES),
            (&metadata, MAX_METADATA_BYTES),
            (&value, MAX_VALUE_BYTES),
            (&base64, MAX_VALUE_BYTES),
        ] {
            assert!(matches!(parse(line(limit).as_bytes(), NOW_S), Ok(Line::Write(_))), "{limit}");
            assert!(parse(line(limit + 1).as_bytes(), NOW_S).is_err(), "{limit}");
        }
    }

    #[test]
    fn any_bytes_survive_a_line() {
        for value in [b"text \n\"\0".to_vec(), (0..=255).collect(), Vec::new()] {
            let line = write("k".into(), &value, Some(NOW_S * 2), None).expect("a line");
            let Ok(Line::Write(pair)) = parse(&line, NOW_S) else { panic!("{line:?}") };
            let bytes =
                if pair.base64 { BASE64.decode(pair.value).expect("base64") } else { pair.value.into() };
            assert_eq!(bytes, value);
        }
    }
}
