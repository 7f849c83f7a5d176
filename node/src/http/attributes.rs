//! What is written along with a value: when it expires, and its metadata.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use replication::entry::MAX_METADATA_BYTES;
use serde_json::value::RawValue;

use super::error::ApiError;

/// How far ahead an expiry must be, in seconds (the limit of Workers KV).
const MIN_TTL_S: u64 = 60;
/// The last second of the year 9999: nothing expires later than dates can be written.
const MAX_EXPIRES_AT_S: u64 = 253_402_300_799;

/// Unix seconds.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When a value written at `now_s` expires. A TTL wins over an absolute time; a fraction of a second is
/// dropped.
pub(crate) fn expires_at_s(
    expiration: Option<f64>,
    ttl: Option<f64>,
    now_s: u64,
) -> Result<Option<u64>, ApiError> {
    expires_later_than(MIN_TTL_S, expiration, ttl, now_s)
}

/// The same, of what must not expire sooner than `min_ttl_s` from now.
pub(crate) fn expires_later_than(
    min_ttl_s: u64,
    expiration: Option<f64>,
    ttl: Option<f64>,
    now_s: u64,
) -> Result<Option<u64>, ApiError> {
    let at_s = match (expiration, ttl) {
        (_, Some(ttl)) if ttl < min_ttl_s as f64 => {
            let message = "Expiration TTL must be at least";
            return Err(ApiError::BadExpiry(format!(
                "Invalid expiration_ttl of {ttl}. {message} {min_ttl_s}."
            )));
        }
        (Some(at), None) if at < (now_s + min_ttl_s) as f64 => {
            let message = format!("Expiration times must be at least {min_ttl_s} seconds in the future.");
            return Err(ApiError::BadExpiry(format!("Invalid expiration of {at}. {message}")));
        }
        // A cast from a float saturates.
        (_, Some(ttl)) => now_s.saturating_add(ttl as u64),
        (Some(at), None) => at as u64,
        (None, None) => return Ok(None),
    };
    if at_s > MAX_EXPIRES_AT_S {
        return Err(ApiError::BadExpiry("Invalid expiration: it is after the year 9999.".to_owned()));
    }
    Ok(Some(at_s))
}

/// The metadata in this JSON text, without the white space around its parts; `None` for null. Numbers,
/// the order of fields and escapes stay as they were written.
pub(crate) fn metadata(text: &[u8]) -> Result<Option<Bytes>, ApiError> {
    if let Err(error) = serde_json::from_slice::<&RawValue>(text) {
        return Err(ApiError::invalid(format!("metadata must be valid JSON: {error}")));
    }
    let compact = without_space(text);
    match compact.len() {
        len if len > MAX_METADATA_BYTES => Err(ApiError::MetadataTooLarge { len }),
        _ if compact == b"null" => Ok(None),
        _ => Ok(Some(compact.into())),
    }
}

/// Valid JSON without the white space outside its strings.
fn without_space(json: &[u8]) -> Vec<u8> {
    let mut in_string = false;
    let mut escaped = false;
    let keep = |byte: &u8| {
        let kept = in_string || !byte.is_ascii_whitespace();
        match byte {
            b'"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && *byte == b'\\' && !escaped;
        kept
    };
    json.iter().copied().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_minute_ahead_or_refused() {
        const NOW_S: u64 = 1_000;
        type Case = (Option<f64>, Option<f64>, Result<Option<u64>, &'static str>);
        let cases: [Case; 10] = [
            (None, None, Ok(None)),
            (None, Some(60.0), Ok(Some(1_060))),
            (None, Some(60.9), Ok(Some(1_060))),
            (None, Some(59.0), Err("Invalid expiration_ttl of 59. Expiration TTL must be at least 60.")),
            (None, Some(-1.0), Err("Invalid expiration_ttl of -1. Expiration TTL must be at least 60.")),
            (Some(1_060.0), None, Ok(Some(1_060))),
            (
                Some(1_059.0),
                None,
                Err(
                    "Invalid expiration of 1059. Expiration times must be at least 60 seconds in the future.",
                ),
            ),
            (Some(1.0), Some(100.0), Ok(Some(1_100))),
            (Some(MAX_EXPIRES_AT_S as f64), None, Ok(Some(MAX_EXPIRES_AT_S))),
            (None, Some(1e300), Err("Invalid expiration: it is after the year 9999.")),
        ];
        for (expiration, ttl, expected) in cases {
            let found = expires_at_s(expiration, ttl, NOW_S).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{expiration:?} {ttl:?}");
        }
    }

    #[test]
    fn metadata_loses_its_white_space_and_nothing_else() {
        let cases: [(&str, Option<&str>); 6] = [
            ("null", None),
            (" null\n", None),
            (
                r#" { "b" : 1.0 , "a": [ 1e400, 12345678901234567890123 ] } "#,
                Some(r#"{"b":1.0,"a":[1e400,12345678901234567890123]}"#),
            ),
            (r#""a \" b \\" "#, Some(r#""a \" b \\""#)),
            (r#"{"\\" : "\\\" x"}"#, Some(r#"{"\\":"\\\" x"}"#)),
            ("\"\u{fc} \u{2028}\"", Some("\"\u{fc} \u{2028}\"")),
        ];
        for (text, expected) in cases {
            assert_eq!(metadata(text.as_bytes()).unwrap().as_deref(), expected.map(str::as_bytes), "{text}");
        }
        for bad in ["", "{", "{} {}", "nul", "'a'", "\"\n\""] {
            assert!(metadata(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(metadata(b"\"\xff\"").is_err());
        let of_len = |len: usize| format!("  \"{}\"  ", "m".repeat(len - 2));
        assert!(metadata(of_len(MAX_METADATA_BYTES).as_bytes()).is_ok());
        assert!(metadata(of_len(MAX_METADATA_BYTES + 1).as_bytes()).is_err());
    }
}
