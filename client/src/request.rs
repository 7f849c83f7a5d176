//! One request, sent until it is answered or retrying stops making sense. Every call passes here.
//!
//! Retried are overload (429), server trouble (500, 502, 503, 504) and failures of the connection; at most
//! [`MAX_ATTEMPTS`] times, with doubling, jittered pauses, or as long as the server's `Retry-After` asks.
//! A call that is not idempotent is repeated only where the server cannot have carried it out.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::kv::Envelope;
use crate::client::Client;
use crate::error::Error;

/// The most times one call is sent.
pub const MAX_ATTEMPTS: u32 = 5;
/// The longest pause a server's `Retry-After` can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How much of an answer that is no envelope goes into the error message.
const MAX_QUOTED_CHARS: usize = 200;

/// What encodeURIComponent leaves alone.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Begins with a slash; already percent-encoded.
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    /// With its content type.
    pub(crate) body: Option<(String, Bytes)>,
    pub(crate) idempotent: bool,
    /// The form of the answer, where there are several.
    pub(crate) accept: Option<&'static str>,
}

impl Request {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None, idempotent: true, accept: None }
    }

    pub(crate) fn read(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(crate) fn body(mut self, content_type: impl Into<String>, bytes: Bytes) -> Self {
        self.body = Some((content_type.into(), bytes));
        self
    }

    pub(crate) fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Error::invalid(format!("the body cannot be written as JSON: {error}")))?;
        Ok(self.body("application/json", bytes.into()))
    }

    pub(crate) fn accept(mut self, content_type: &'static str) -> Self {
        self.accept = Some(content_type);
        self
    }

    pub(crate) fn not_idempotent(mut self) -> Self {
        self.idempotent = false;
        self
    }
}

/// A path segment. Dots alone are refused: every URL parser folds them, encoded or not, so that a delete
/// of the key `..` would arrive as the delete of its namespace.
pub(crate) fn segment(text: &str, what: &str) -> Result<String, Error> {
    match text {
        "" | "." | ".." => Err(Error::invalid(format!("{text:?} is not a valid {what}"))),
        _ => Ok(utf8_percent_encode(text, SEGMENT).to_string()),
    }
}

/// 64 unpredictable bits: for jitter and for boundaries, not for secrets.
pub(crate) fn random_bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// Sends until the head of a good answer is here.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Error> {
        let mut attempts = Attempts::new(request);
        loop {
            match self.send_once(request).await {
                Ok(response) => return Ok(response),
                Err(failed) => attempts.pause_after(failed).await?,
            }
        }
    }

    /// Sends until a good answer is here to its last byte.
    pub(crate) async fn fetch(&self, request: &Request) -> Result<Answer, Error> {
        let mut attempts = Attempts::new(request);
        loop {
            match self.fetch_once(request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => attempts.pause_after(failed).await?,
            }
        }
    }

    /// The answer as JSON of this type.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        let answer = self.fetch(request).await?;
        serde_json::from_slice(&answer.body).map_err(|error| self.not_understood(request, error))
    }

    /// The result inside the envelope, and what it says about paging.
    pub(crate) async fn enveloped<T: DeserializeOwned, I: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(Option<T>, Option<I>), Error> {
        let envelope: Envelope<T, I> = self.json(request).await?;
        if !envelope.success {
            return Err(self.not_understood(request, "success is false under an HTTP status of success"));
        }
        Ok((envelope.result, envelope.result_info))
    }

    /// The result inside the envelope, where there must be one.
    pub(crate) async fn result<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        let (result, _) = self.enveloped::<T, Box<RawValue>>(request).await?;
        result.ok_or_else(|| self.not_understood(request, "it has no result"))
    }

    pub(crate) fn not_understood(&self, request: &Request, reason: impl ToString) -> Error {
        Error::Decode { url: self.url(request), reason: reason.to_string() }
    }

    pub(crate) async fn fetch_once(&self, request: &Request) -> Result<Answer, Failed> {
        let response = self.send_once(request).await?;
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(|error| self.interrupted(request, &error))?;
        Ok(Answer { headers, body })
    }

    async fn send_once(&self, request: &Request) -> Result<Response, Failed> {
        let mut builder = self.http.request(request.method.clone(), self.url(request)).query(&request.query);
        if let Some((content_type, bytes)) = &request.body {
            builder = builder.header(CONTENT_TYPE, content_type).body(bytes.clone());
        }
        if let Some(content_type) = request.accept {
            builder = builder.header(ACCEPT, content_type);
        }
        let response = builder.send().await.map_err(|error| self.interrupted(request, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(response).await)
    }

    fn interrupted(&self, request: &Request, error: &reqwest::Error) -> Failed {
        let retry = if error.is_connect() { Retry::Safe } else { Retry::IfIdempotent };
        Failed { error: Error::transport(&self.url(request), error), retry, retry_after: None }
    }

    fn url(&self, request: &Request) -> String {
        format!("{}{}", self.base_url, request.path)
    }
}

/// One attempt's failure.
pub(crate) struct Failed {
    error: Error,
    retry: Retry,
    retry_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Retry {
    /// The server cannot have carried the call out.
    Safe,
    /// It may have.
    IfIdempotent,
    /// The same call would fail again.
    Pointless,
}

/// The attempts at one request.
struct Attempts {
    idempotent: bool,
    made: u32,
}

impl Attempts {
    fn new(request: &Request) -> Self {
        Self { idempotent: request.idempotent, made: 0 }
    }

    /// Waits until the next attempt, or gives the error back when there shall be none.
    async fn pause_after(&mut self, failed: Failed) -> Result<(), Error> {
        self.made += 1;
        let useful = match failed.retry {
            Retry::Safe => true,
            Retry::IfIdempotent => self.idempotent,
            Retry::Pointless => false,
        };
        if !useful || self.made >= MAX_ATTEMPTS {
            return Err(failed.error);
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.made - 1).min(16)).min(LONGEST_PAUSE);
        // Half fixed, half random: clients that failed together do not come back together.
        let jittered = doubled / 2 + doubled.mul_f64(random_bits() as f64 / u64::MAX as f64 / 2.0);
        tokio::time::sleep(failed.retry_after.unwrap_or(jittered)).await;
        Ok(())
    }
}

/// What an answer other than a success says.
async fn refused(response: Response) -> Failed {
    let status = response.status();
    let retry = match status {
        StatusCode::TOO_MANY_REQUESTS => Retry::Safe,
        StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Retry::IfIdempotent,
        _ => Retry::Pointless,
    };
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    let body = response.bytes().await.unwrap_or_default();
    let (code, message) = match serde_json::from_slice::<Envelope<Box<RawValue>, Box<RawValue>>>(&body) {
        Ok(Envelope { errors, .. }) if !errors.is_empty() => (errors[0].code, errors[0].message.clone()),
        _ => match serde_json::from_slice::<Problem>(&body) {
            Ok(Problem { detail, code }) => (code, detail),
            Err(_) => (0, quoted(status, &body)),
        },
    };
    Failed { error: Error::Api { status: status.as_u16(), code, message }, retry, retry_after }
}

/// How a node's own pages refuse: problem details, as RFC 9457 has them.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    code: u32,
}

/// The beginning of an answer that is neither: some proxy's, most likely.
fn quoted(status: StatusCode, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_QUOTED_CHARS).collect();
    if text.is_empty() { status.canonical_reason().unwrap_or("an empty answer").to_owned() } else { text }
}
