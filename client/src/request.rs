//! One request, sent until it is answered or retrying stops making sense. Every call passes here.
//!
//! Retried are overload (429), server trouble (500, 502, 503, 504) and failures of the connection; at most
//! [`MAX_ATTEMPTS`] times, with doubling, jittered pauses, or as long as the server's `Retry-After` asks.
//! A call that is not idempotent is repeated only where the server cannot have carried it out; or, where it is about keys
//! under `/v1`, at
//! the same PoP under one `Idempotency-Key`, by which the node knows whether it has.
//!
//! Where there are several PoPs, an idempotent call about keys goes on at the next one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::kv::Envelope;
use crate::client::Client;
use crate::error::Error;
use crate::session::Session;
use crate::transport::Unanswered;

/// The most times one call is sent.
pub const MAX_ATTEMPTS: u32 = 5;
/// The longest pause a server's `Retry-After` can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Names one call, however often it is sent.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const FIRST_SENT: &str = "littoral-first-sent-ms";
const TIMEOUT: &str = "littoral-timeout-ms";
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
    /// Further headers.
    pub(crate) headers: HeaderMap,
}

impl Request {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            idempotent: true,
            accept: None,
            headers: HeaderMap::new(),
        }
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

    pub(crate) fn header(mut self, name: HeaderName, value: String) -> Result<Self, Error> {
        let value = HeaderValue::try_from(value)
            .map_err(|_| Error::invalid(format!("{name} has characters that no HTTP header can carry")))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(crate) fn accept(mut self, content_type: &'static str) -> Self {
        self.accept = Some(content_type);
        self
    }

    /// Whether it is about keys, which are the same at every PoP.
    fn is_about_keys(&self) -> bool {
        self.path.contains("/namespaces") || self.path == "/v1/where"
    }

    fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD) && !self.path.ends_with("/bulk/get")
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
            match self.send_once(request, &attempts.at(self)).await {
                Ok(response) => return Ok(response),
                Err(failed) => attempts.pause_after(self, failed).await?,
            }
        }
    }

    /// Sends until a good answer is here to its last byte.
    pub(crate) async fn fetch(&self, request: &Request) -> Result<Answer, Error> {
        let mut attempts = Attempts::new(request);
        loop {
            match self.fetch_at(request, &attempts.at(self)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => attempts.pause_after(self, failed).await?,
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
        self.fetch_at(request, &Attempts::new(request).at(self)).await
    }

    async fn fetch_at(&self, request: &Request, attempt: &Attempt) -> Result<Answer, Failed> {
        let response = self.send_once(request, attempt).await?;
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(|error| self.interrupted(request, &error))?;
        Ok(Answer { headers, body })
    }

    async fn send_once(&self, request: &Request, attempt: &Attempt) -> Result<Response, Failed> {
        let mut sent = self.outgoing(request.method.clone(), attempt.endpoint, &request.path)?;
        add_query(&mut sent, request.query.iter().map(|(name, value)| (*name, value.as_str())));
        let headers = sent.headers_mut();
        headers.extend(request.headers.clone());
        if let Some((content_type, bytes)) = &request.body {
            headers.insert(CONTENT_TYPE, header(content_type)?);
            *sent.body_mut() = Some(bytes.clone().into());
        }
        let headers = sent.headers_mut();
        if let Some(content_type) = request.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(content_type));
        }
        if let Some(key) = &attempt.key {
            headers.insert(IDEMPOTENCY_KEY, header(key)?);
        }
        if let Some(ms) = attempt.first_sent_ms {
            headers.insert(FIRST_SENT, ms.into());
        }
        if request.is_about_keys() {
            self.on_terms(request, &mut sent);
        }
        let session = self.session.as_ref().filter(|_| request.is_about_keys());
        let tokens = session.map(|session| session.tokens()).unwrap_or_default();
        if session.is_some() {
            Session::carry(&tokens, sent.headers_mut());
        }
        let response = self.transport.call(sent).await?;
        if let Some(session) = session {
            session.take(&tokens, response.headers());
        }
        self.told.take(response.headers());
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(response).await)
    }

    /// Sends a body as it is made, once; gives the head of a good answer, which may come while it is sent.
    pub(crate) async fn stream_up(
        &self,
        path: &str,
        content_type: &'static str,
        body: reqwest::Body,
    ) -> Result<Response, Error> {
        let mut sent =
            self.outgoing(Method::POST, self.endpoints.current(), path).map_err(|failed| failed.error)?;
        sent.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        *sent.body_mut() = Some(body);
        let response = self.transport.call(sent).await.map_err(|unanswered| unanswered.error)?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refused(response).await.error),
        }
    }

    /// A request to this path, without anything else.
    fn outgoing(&self, method: Method, endpoint: usize, path: &str) -> Result<reqwest::Request, Failed> {
        let url = format!("{}{path}", self.endpoints.url(endpoint));
        let url =
            Url::parse(&url).map_err(|error| Failed::invalid(format!("{url:?} is not a URL: {error}")))?;
        Ok(reqwest::Request::new(method, url))
    }

    /// Asks for what the client's writes, and its patience, are bound to.
    fn on_terms(&self, request: &Request, sent: &mut reqwest::Request) {
        if let Some(wait) = self.waiting.wait.as_ref().filter(|_| request.is_write()) {
            add_query(sent, [("wait", wait.as_str())]);
        }
        if let Some(timeout) = self.waiting.timeout {
            sent.headers_mut().insert(TIMEOUT, (timeout.as_millis() as u64).into());
        }
    }

    fn interrupted(&self, request: &Request, error: &reqwest::Error) -> Failed {
        Unanswered { error: Error::transport(&self.url(request), error), may_be_done: true }.into()
    }

    fn url(&self, request: &Request) -> String {
        format!("{}{}", self.endpoints.url(self.endpoints.current()), request.path)
    }
}

/// One attempt's failure.
pub(crate) struct Failed {
    error: Error,
    retry: Retry,
    retry_after: Option<Duration>,
    /// The PoP cannot be reached, or does not serve.
    is_away: bool,
}

impl Failed {
    fn invalid(reason: String) -> Self {
        Self { error: Error::invalid(reason), retry: Retry::Pointless, retry_after: None, is_away: false }
    }
}

impl From<Unanswered> for Failed {
    fn from(Unanswered { error, may_be_done }: Unanswered) -> Self {
        let retry = if may_be_done { Retry::IfIdempotent } else { Retry::Safe };
        Self { error, retry, retry_after: None, is_away: true }
    }
}

/// A query that is empty would leave its mark.
fn add_query<'a>(sent: &mut reqwest::Request, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut pairs = pairs.into_iter().peekable();
    if pairs.peek().is_some() {
        sent.url_mut().query_pairs_mut().extend_pairs(pairs);
    }
}

fn header(text: &str) -> Result<HeaderValue, Failed> {
    HeaderValue::from_str(text)
        .map_err(|_| Failed::invalid(format!("{text:?} has characters that no HTTP header can carry")))
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

/// One of them.
struct Attempt {
    endpoint: usize,
    key: Option<String>,
    /// How long ago the first was sent, if that may have been carried out.
    first_sent_ms: Option<u64>,
}

/// The attempts at one request.
struct Attempts {
    idempotent: bool,
    is_about_keys: bool,
    /// By it the node knows that it was asked before.
    key: Option<String>,
    began: Instant,
    /// Where it may have been carried out, though it is not idempotent.
    bound_to: Option<usize>,
    endpoint: usize,
    made: u32,
}

impl Attempts {
    fn new(request: &Request) -> Self {
        let is_about_keys = request.is_about_keys();
        let key = || format!("{:016x}{:016x}", random_bits(), random_bits());
        Self {
            idempotent: request.idempotent,
            is_about_keys,
            // The REST API of Workers KV knows no such keys.
            key: (is_about_keys && !request.idempotent && request.path.starts_with("/v1/")).then(key),
            began: Instant::now(),
            bound_to: None,
            endpoint: 0,
            made: 0,
        }
    }

    /// The next one.
    fn at(&mut self, client: &Client) -> Attempt {
        self.endpoint = self.bound_to.unwrap_or_else(|| client.endpoints.current());
        let ago_ms = self.began.elapsed().as_millis() as u64;
        Attempt {
            endpoint: self.endpoint,
            key: self.key.clone(),
            first_sent_ms: self.bound_to.is_some().then_some(ago_ms),
        }
    }

    /// Waits until the next attempt, or gives the error back when there shall be none.
    async fn pause_after(&mut self, client: &Client, failed: Failed) -> Result<(), Error> {
        self.made += 1;
        let useful = match failed.retry {
            Retry::Safe => true,
            Retry::IfIdempotent => self.idempotent || self.key.is_some(),
            Retry::Pointless => false,
        };
        if !useful || self.made >= MAX_ATTEMPTS {
            return Err(failed.error);
        }
        if !self.idempotent && failed.retry == Retry::IfIdempotent {
            self.bound_to = Some(self.endpoint);
        }
        if failed.is_away && self.is_about_keys && self.bound_to.is_none() {
            client.endpoints.leave(self.endpoint);
            if (self.made as usize) < client.endpoints.count() {
                // Another PoP is asked at once.
                return Ok(());
            }
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
        // The same call is under way there.
        StatusCode::CONFLICT if response.headers().contains_key(RETRY_AFTER) => Retry::IfIdempotent,
        _ => Retry::Pointless,
    };
    let is_away = status.is_server_error();
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
    Failed { error: Error::Api { status: status.as_u16(), code, message }, retry, retry_after, is_away }
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
