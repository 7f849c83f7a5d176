//! TLS on the TCP ports of the HTTP surface: which files hold certificate and key.
//!
//! The rule: both or neither. That the files exist and belong together shows when the node reads them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::path;
use crate::sections::folder;
use crate::source::Otherwise::Missing;
use crate::source::Source;

/// How often the files are looked at, in seconds.
pub const RELOAD_S: RangeInclusive<u64> = 1..=3_600;

const DEFAULT_RELOAD_S: u64 = 10;
const CERTIFICATE: &str = "http.tls.certificate";
const KEY: &str = "http.tls.key";
const RELOAD: &str = "http.tls.reload_s";

/// The certificate that TCP ports of the HTTP surface show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpTls {
    /// PEM: the certificate, and behind it those between it and the authority.
    #[serde(serialize_with = "path")]
    pub certificate: PathBuf,
    /// PEM: the certificate's private key, without a passphrase.
    #[serde(serialize_with = "path")]
    pub key: PathBuf,
    /// How often both files are looked at for new ones; within [`RELOAD_S`].
    pub reload_s: u64,
}

/// Reads the section: `Some(None)` where nothing of it is set. A relative path starts at `base`.
pub(crate) fn tls(source: &mut Source<'_>, base: &Path) -> Option<Option<HttpTls>> {
    if !["http.tls", CERTIFICATE, KEY, RELOAD].iter().any(|key| source.is_set(key)) {
        return Some(None);
    }
    let file = |text: &str| folder(base, text).map_err(|_| "is not a path: name a file");
    let certificate =
        source.text(CERTIFICATE, Missing("the PEM file of the certificate, such as \"tls.pem\""), file);
    let key = source.text(KEY, Missing("the PEM file of its private key, such as \"tls-key.pem\""), file);
    let reload_s = source.number(RELOAD, DEFAULT_RELOAD_S, RELOAD_S);
    Some(Some(HttpTls { certificate: certificate?, key: key?, reload_s: reload_s? }))
}
