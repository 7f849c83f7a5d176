//! Names and secrets as newtypes: one that exists is well formed. The rule: parsed here, checked nowhere else.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest label, in bytes (RFC 1035, section 2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;
/// The longest host name, in bytes (RFC 1035, section 2.3.4, less the length bytes of the wire).
pub const MAX_HOST_BYTES: usize = 253;
/// How many hexadecimal digits an account id has, as at Workers KV.
pub const ACCOUNT_DIGITS: usize = 32;
/// How many hexadecimal digits a namespace id has, as at Workers KV.
pub const NAMESPACE_DIGITS: usize = 32;
/// The longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 256;

/// The name of a PoP: one lower-case DNS label, so that it can stand in host names, certificates and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PopName(String);

/// An account of the REST API: 32 hexadecimal digits, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(String);

/// A namespace: 32 hexadecimal digits, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(String);

/// A bearer token. Neither its `Debug` nor any message of this crate shows it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Not one DNS label in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a DNS label: use 1 to {MAX_LABEL_BYTES} lower-case letters, digits and inner hyphens")]
pub struct NotALabel;

/// Not an account id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an account id: use {ACCOUNT_DIGITS} hexadecimal digits")]
pub struct NotAnAccountId;

/// Not a namespace id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a namespace id: use {NAMESPACE_DIGITS} hexadecimal digits, as `littoral kv namespace list` shows them"
)]
pub struct NotANamespaceId;

/// Not fit for an `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a token: use 1 to {MAX_TOKEN_BYTES} visible ASCII characters without spaces")]
pub struct NotAToken;

/// Not `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not host:port: use a name, an IPv4 or a [bracketed IPv6] address, and a port from 1 to 65535")]
pub struct NotAnEndpoint;

impl FromStr for PopName {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        label(text).map(Self)
    }
}

impl AsRef<str> for PopName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PopName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NamespaceId {
    type Err = NotANamespaceId;

    fn from_str(text: &str) -> Result<Self, NotANamespaceId> {
        hexadecimal(text, NAMESPACE_DIGITS).map(Self).ok_or(NotANamespaceId)
    }
}

impl AsRef<str> for NamespaceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccountId {
    type Err = NotAnAccountId;

    fn from_str(text: &str) -> Result<Self, NotAnAccountId> {
        hexadecimal(text, ACCOUNT_DIGITS).map(Self).ok_or(NotAnAccountId)
    }
}

impl AsRef<str> for AccountId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Secret {
    /// The secret itself. Keep it out of logs and errors.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is this secret, in a time that does not tell how much of it was right.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(candidate).fold(0, |seen, (a, b)| seen | (a ^ b));
        own.len() == candidate.len() && std::hint::black_box(differences) == 0
    }
}

impl FromStr for Secret {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let fits = (1..=MAX_TOKEN_BYTES).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(NotAToken)
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// So many hexadecimal digits, in lower case.
fn hexadecimal(text: &str, digits: usize) -> Option<String> {
    let is_one = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase())
}

/// A lower-case DNS label, as PoPs and regions are named.
pub(crate) fn label(text: &str) -> Result<String, NotALabel> {
    let shaped = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let hyphens_inside = !text.starts_with('-') && !text.ends_with('-');
    let fits = (1..=MAX_LABEL_BYTES).contains(&text.len());
    if shaped && hyphens_inside && fits { Ok(text.into()) } else { Err(NotALabel) }
}

/// A peer's `host:port`, whose name is looked up only when it is connected to.
pub(crate) fn endpoint(text: &str) -> Result<String, NotAnEndpoint> {
    let (host, port) = text.rsplit_once(':').ok_or(NotAnEndpoint)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port_fits = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || is_host_name(host),
    };
    if port_fits && host_fits { Ok(text.into()) } else { Err(NotAnEndpoint) }
}

/// A last label of digits alone is refused: such a name can only be a mistyped IPv4 address.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric_end =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= MAX_HOST_BYTES && host.split('.').all(is_label) && !numeric_end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accepted: bool, text: &str, parse: fn(&str) -> bool) {
        assert_eq!(parse(text), accepted, "{text:?}");
    }

    #[test]
    fn a_pop_is_named_by_one_lower_case_label() {
        let longest = "a".repeat(MAX_LABEL_BYTES);
        for good in ["a", "fra1", "eu-west-1", "1", &longest] {
            check(true, good, |text| text.parse::<PopName>().is_ok_and(|pop| pop.as_ref() == text));
        }
        for bad in ["", "Fra", "-a", "a-", "a.b", "a_b", "é", " a", &format!("{longest}a")] {
            check(false, bad, |text| text.parse::<PopName>().is_ok());
        }
    }

    #[test]
    fn an_account_or_a_namespace_is_32_digits_in_lower_case() {
        assert_eq!(
            "0123456789ABCDEFabcdef0123456789".parse::<AccountId>().map(|id| id.to_string()),
            Ok("0123456789abcdefabcdef0123456789".into())
        );
        for bad in ["a".repeat(31), "a".repeat(33), "g".repeat(32), "é".repeat(16)] {
            check(false, &bad, |text| text.parse::<AccountId>().is_ok());
            check(false, &bad, |text| text.parse::<NamespaceId>().is_ok());
        }
    }

    #[test]
    fn a_token_fits_a_header() {
        for good in ["t", "a~!b", &"t".repeat(MAX_TOKEN_BYTES)] {
            check(true, good, |text| text.parse::<Secret>().is_ok_and(|token| token.reveal() == text));
        }
        for bad in ["", "a b", "a\n", "é", &"t".repeat(MAX_TOKEN_BYTES + 1)] {
            check(false, bad, |text| text.parse::<Secret>().is_ok());
        }
    }

    #[test]
    fn a_secret_matches_only_itself_and_is_not_shown() {
        let secret: Secret = "s3cret".parse().unwrap();
        assert!(secret.matches(b"s3cret"));
        for other in ["", "s3cre", "s3cret1", "S3cret", "s3creu"] {
            assert!(!secret.matches(other.as_bytes()), "{other:?}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let longest = format!("{}a:1", "a.".repeat(126));
        for good in ["localhost:9787", "a_b.example:1", "10.0.0.1:65535", "[::1]:1", "1a.b2:7", &longest] {
            check(true, good, |text| endpoint(text).is_ok_and(|kept| kept == text));
        }
        let too_long = format!("a{longest}");
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:9",
            "[::1]",
            "[1.2.3.4]:1",
            "10.0.0.256:1",
            "a..b:1",
            "-a:1",
            "a b:1",
            "http://a:1",
            &too_long,
        ] {
            check(false, bad, |text| endpoint(text).is_ok());
        }
    }
}
