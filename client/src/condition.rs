//! In which state something is to be written.

use reqwest::header::{ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};

use crate::client::Client;
use crate::error::Error;
use crate::request::Request;

/// In which state a value, counter, member, field or document is to be written. The PoP that is asked decides, against what it
/// has at that moment: at another one somebody may write at once, and then both are merged, as ever. Where the namespace has
/// a home ([`Account::set_home`](crate::Account::set_home)), the PoP there decides, whichever is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In this one: an `etag`, with its quotes.
    Match(String),
    /// Where there is none.
    Absent,
}

impl Condition {
    /// The request, for that state only. A second sending would meet what the first has written.
    pub(crate) fn of(&self, request: Request) -> Result<Request, Error> {
        let request = match self {
            Self::Match(etag) => request.header(IF_MATCH, etag.clone())?,
            Self::Absent => request.header(IF_NONE_MATCH, "*".to_owned())?,
        };
        Ok(request.not_idempotent())
    }
}

/// The name of the state that the answer to this request is about.
pub(crate) fn etag_of(client: &Client, request: &Request, headers: &HeaderMap) -> Result<String, Error> {
    let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
    etag.ok_or_else(|| client.not_understood(request, "it has no ETag"))
}
