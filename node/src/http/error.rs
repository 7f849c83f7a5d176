//! Every error the HTTP surface gives, with its status, code and text: the one place where that is decided.
//!
//! The rule this file upholds: "not found" is said only of what is known not to be there. Codes below 20000
//! are those of the Workers KV REST API where public sources show one (10022, 10024 and 10030 are known to be
//! about limits, not about which). Codes of our own:
//!
//! | code | status | meaning |
//! |---|---|---|
//! | 20001 | 429 | too many writes, or too many bulk bodies, are waiting; try again (Retry-After) |
//! | 20002 | 507 | the disk has no room left |
//! | 20003 | 503 | this node's clock is off: it refuses writes |
//! | 20004 | 503 | the node is stopping, its store has failed, or it does not serve yet |
//! | 20005 | 503 | part of a large value is neither here nor at a peer now; try again (Retry-After) |
//! | 20006 | 400 | the request body broke off or is malformed |
//! | 20007 | 408 | the request body stopped coming |
//! | 20008 | 400 | the account has as many namespaces as it may have |
//! | 20009 | 500 | a chunk file could not be read or written |
//! | 20010 | 413 | the request body is larger than any of its kind may be |
//! | 20011 | 503 | this node is being drained: it takes no more writes |
//! | 20012 | 429 | the namespace would hold more than its quota (Retry-After) |
//! | 20013 | 503 | this PoP lacks what the session has seen, or is staler than asked for (Retry-After) |
//! | 20014 | 503 | as many requests wait for replication as may (Retry-After) |
//! | 20020 | 412 | the state here is not one that a conditional request is for |
//! | 20030 | 409 | changes that are needed first are not here |
//! | 20031 | 409 | a patch does not fit the document |
//! | 20032 | 415 | the body is of a type that is not taken here |
//! | 20033 | 500 | a document cannot be worked with |
//! | 20040 | 409 | a bounded counter has too little left, or this PoP got no rights to it in time |
//! | 20050 | 503 | the namespace's home decides about conditional writes, and cannot be asked: nothing was done (Retry-After) |
//! | 20051 | 504 | the namespace's home was asked and has not answered: it may have been done or not |

use std::borrow::Cow;
use std::io;

use axum::body::Body;
use axum::response::IntoResponse;
use hyper::ext::ReasonPhrase;
use hyper::header::{ALLOW, CONTENT_TYPE, ETAG, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use littoral::api::kinds::MAX_AMOUNT;
use replication::entry::{
    MAX_ELEMENT_BYTES, MAX_INLINE_BYTES, MAX_KEY_BYTES, MAX_METADATA_BYTES, MAX_VALUE_BYTES,
};
use serde_json::{Value as Json, json};

use super::conditions::{header, quoted};
use super::pace::MIN_PROGRESS_BYTES;
use crate::accounts::AccountError;
use crate::documents::DocumentError;
use crate::engine::reach::MAX_WAITERS;
use crate::engine::{MAX_BATCH_BYTES, MAX_BATCH_WRITES, OperatorError, ReadError, WriteError};
use crate::homes::HomeError;
use crate::namespaces::NamespaceError;
use crate::quotas::QuotaError;
use crate::request_rate::TooMany;
use crate::tokens::{MissingRight, TokenError};
use crate::transport::LinkError;

/// What a client is told to wait before it tries again.
const RETRY_AFTER_S: u32 = 1;

/// The longest reason phrase, in bytes.
const MAX_REASON_BYTES: usize = 512;

/// Why a request of the KV surface was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("Missing X-Auth-Key, X-Auth-Email or Authorization headers")]
    MissingCredentials,
    #[error("Invalid request headers: Authorization must be \"Bearer TOKEN\"")]
    BadAuthorization,
    #[error("Authentication error")]
    Forbidden,
    #[error(transparent)]
    MissingRight(#[from] MissingRight),
    #[error("{of} is asked too often: {refused}")]
    TooFast { of: &'static str, refused: TooMany },
    #[error("Could not route to {path}, perhaps your object identifier is invalid?")]
    NoRoute { path: String },
    #[error("Method not allowed here; allowed: {allow}")]
    MethodNotAllowed { allow: &'static str },
    #[error("could not parse UUID from request's namespace_id: '{given}'")]
    BadNamespaceId { given: String },
    #[error("key not found")]
    KeyNotFound,
    #[error("title is required: send {{\"title\": \"...\"}}")]
    TitleRequired,
    #[error("could not parse request body as JSON: {reason}")]
    NotJson { reason: String },
    #[error("could not parse request body: {reason}")]
    BadBulk { reason: String },
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    #[error("you must give at least 1 key")]
    NoKeys,
    #[error("{0}")]
    BadExpiry(String),
    #[error("UTF-8 encoded length of {len} exceeds key length limit of {MAX_KEY_BYTES}.")]
    KeyTooLong { len: usize },
    #[error("Value length of {len} exceeds limit of {MAX_VALUE_BYTES}.")]
    ValueTooLarge { len: u64 },
    #[error("Metadata length of {len} exceeds limit of {MAX_METADATA_BYTES}.")]
    MetadataTooLarge { len: usize },
    #[error("{given} keys exceed the limit of {limit} in one request")]
    TooManyKeys { given: usize, limit: usize },
    #[error("{what} of {len} bytes exceeds the limit of {MAX_ELEMENT_BYTES} bytes")]
    ElementTooLong { what: &'static str, len: usize },
    #[error("the value of a field exceeds {MAX_INLINE_BYTES} bytes; put it under a key of its own")]
    FieldTooLarge,
    #[error("{given} changes exceed the limit of {limit} in one request; send several")]
    TooManyChanges { given: usize, limit: usize },
    #[error("add must be at most {MAX_AMOUNT} either way, not {given}")]
    AmountTooLarge { given: i64 },
    #[error("{}", too_little(*wanted, *here, *left))]
    LacksRights { wanted: u64, here: u64, left: u64 },
    #[error("{}", no_rights_here(*wanted, *here, *left))]
    RightsElsewhere { wanted: u64, here: u64, left: u64 },
    #[error("a batch needs at least 1 write: send {{\"writes\": [...]}}")]
    NoWrites,
    #[error("{given} writes exceed the limit of {MAX_BATCH_WRITES} in one batch; send fewer")]
    TooManyWrites { given: usize },
    #[error(
        "up to here the batch has {given} bytes of keys, members, fields, values and metadata, more than {MAX_BATCH_BYTES}; \
         send fewer or smaller writes"
    )]
    BatchTooLarge { given: usize },
    #[error(
        "the value has {len} bytes, and one of a batch at most {MAX_INLINE_BYTES}; write it by itself, with PUT"
    )]
    BatchValueTooLarge { len: usize },
    #[error("writes[{index}]{}: {cause}", of_key(key.as_deref()))]
    InBatch { index: usize, key: Option<String>, cause: Box<ApiError> },
    #[error("there is no such {what} here")]
    NotHere { what: &'static str },
    #[error("account {id} is not one of this token's")]
    OtherAccount { id: String },
    #[error("the values add up to more than {limit} bytes; ask for fewer keys at once")]
    ValuesTooLarge { limit: u64 },
    #[error("the request body exceeds {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("{reason}")]
    BadBody { reason: String },
    #[error("the request body stopped coming: fewer than {MIN_PROGRESS_BYTES} bytes in {stalled_ms} ms")]
    BodyTooSlow { stalled_ms: u64 },
    #[error("others write this value all the time; try again in a second")]
    Contended,
    #[error("too many bulk requests are being read; try again in a second")]
    Busy,
    #[error(
        "part of this value is not here yet and could not be had from a peer: {reason}; try again in a second"
    )]
    ChunkUnavailable { reason: String },
    #[error("large values cannot be read or written now: {0}")]
    ChunkFile(#[from] io::Error),
    #[error("{deleted} were deleted, then: {cause}. Send it again to go on")]
    PartlyDeleted { deleted: u64, cause: Box<ApiError> },
    #[error("{done} of {total} were done, then: {cause}. Send the whole request again")]
    PartlyDone { done: usize, total: usize, cause: Box<ApiError> },
    #[error("the document is being edited by too many; try again in a second")]
    DocumentBusy,
    #[error(
        "part of this document's history is still on its way here; try again in a second, or at another PoP"
    )]
    DocumentIncomplete,
    #[error("the body must have the Content-Type {wanted}")]
    WrongType { wanted: &'static str },
    #[error(transparent)]
    Document(DocumentError),
    #[error("{reason}; try again in a second, or at another PoP")]
    NotReached { reason: String },
    #[error(
        "{MAX_WAITERS} requests wait for replication here, the most that may; try again in a second, or at another PoP"
    )]
    TooManyWaiters,
    #[error(transparent)]
    Namespace(NamespaceError),
    #[error(transparent)]
    Home(HomeError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<HomeError> for ApiError {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Read(error) => Self::Read(error),
            HomeError::Write(error) => Self::Write(error),
            other => Self::Home(other),
        }
    }
}

impl From<NamespaceError> for ApiError {
    fn from(error: NamespaceError) -> Self {
        match error {
            NamespaceError::Read(error) => Self::Read(error),
            NamespaceError::Write(error) => Self::Write(error),
            NamespaceError::BadTitle { len: 0 } => Self::TitleRequired,
            other => Self::Namespace(other),
        }
    }
}

impl ApiError {
    /// A request that is well formed but asks for what cannot be.
    pub(crate) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(reason.into())
    }

    /// Status, code.
    fn verdict(&self) -> (StatusCode, u16) {
        match self {
            Self::MissingCredentials => (StatusCode::BAD_REQUEST, 9106),
            Self::BadAuthorization => (StatusCode::BAD_REQUEST, 6003),
            // As with the real API, so that its clients say what is to be done.
            Self::Forbidden | Self::OtherAccount { .. } | Self::MissingRight(_) => {
                (StatusCode::FORBIDDEN, 10000)
            }
            Self::TooFast { .. } => (StatusCode::TOO_MANY_REQUESTS, 971),
            Self::Write(WriteError::OverQuota { .. }) => (StatusCode::TOO_MANY_REQUESTS, 20012),
            Self::NoRoute { .. } => (StatusCode::NOT_FOUND, 7003),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, 10405),
            Self::NotJson { .. } => (StatusCode::BAD_REQUEST, 6008),
            Self::KeyNotFound | Self::NotHere { .. } => (StatusCode::NOT_FOUND, 10009),
            Self::BadNamespaceId { .. } => (StatusCode::BAD_REQUEST, 10011),
            Self::BadBulk { .. } => (StatusCode::BAD_REQUEST, 10012),
            Self::Namespace(NamespaceError::NotFound) => (StatusCode::NOT_FOUND, 10013),
            // Never 409, which SDKs try again.
            Self::Namespace(NamespaceError::DuplicateTitle) => (StatusCode::BAD_REQUEST, 10014),
            Self::TitleRequired => (StatusCode::BAD_REQUEST, 10019),
            Self::Invalid(_)
            | Self::AmountTooLarge { .. }
            | Self::NoWrites
            | Self::Namespace(NamespaceError::BadTitle { .. }) => (StatusCode::BAD_REQUEST, 10021),
            Self::KeyTooLong { .. } => (StatusCode::URI_TOO_LONG, 10022),
            Self::ElementTooLong { .. } => (StatusCode::BAD_REQUEST, 10022),
            Self::TooManyKeys { .. } | Self::TooManyChanges { .. } | Self::TooManyWrites { .. } => {
                (StatusCode::BAD_REQUEST, 10024)
            }
            Self::NoKeys => (StatusCode::BAD_REQUEST, 10029),
            Self::ValueTooLarge { .. }
            | Self::FieldTooLarge
            | Self::BatchTooLarge { .. }
            | Self::BatchValueTooLarge { .. }
            | Self::MetadataTooLarge { .. }
            | Self::ValuesTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, 10030),
            Self::BadExpiry(_) => (StatusCode::BAD_REQUEST, 10034),
            Self::Busy | Self::Contended | Self::Write(WriteError::Overloaded { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, 20001)
            }
            Self::Write(WriteError::DiskFull { .. }) => (StatusCode::INSUFFICIENT_STORAGE, 20002),
            Self::ChunkFile(error) if is_disk_full(error) => (StatusCode::INSUFFICIENT_STORAGE, 20002),
            Self::Write(WriteError::ClockSkew { .. } | WriteError::ClockBehind { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, 20003)
            }
            Self::Write(WriteError::Draining) => (StatusCode::SERVICE_UNAVAILABLE, 20011),
            Self::Write(WriteError::Change { .. }) => (StatusCode::BAD_REQUEST, 10021),
            Self::Write(WriteError::Precondition { .. }) => (StatusCode::PRECONDITION_FAILED, 20020),
            Self::Write(WriteError::Unavailable { .. }) | Self::Read(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, 20004)
            }
            Self::Namespace(NamespaceError::Read(_) | NamespaceError::Write(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, 20004)
            }
            Self::LacksRights { .. } | Self::RightsElsewhere { .. } => (StatusCode::CONFLICT, 20040),
            Self::NotReached { .. } => (StatusCode::SERVICE_UNAVAILABLE, 20013),
            Self::TooManyWaiters => (StatusCode::SERVICE_UNAVAILABLE, 20014),
            Self::Home(HomeError::Silent { .. }) => (StatusCode::GATEWAY_TIMEOUT, 20051),
            Self::Home(_) => (StatusCode::SERVICE_UNAVAILABLE, 20050),
            Self::ChunkUnavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, 20005),
            Self::BadBody { .. } => (StatusCode::BAD_REQUEST, 20006),
            Self::BodyTooSlow { .. } => (StatusCode::REQUEST_TIMEOUT, 20007),
            Self::Namespace(NamespaceError::TooMany) => (StatusCode::BAD_REQUEST, 20008),
            Self::ChunkFile(_) => (StatusCode::INTERNAL_SERVER_ERROR, 20009),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, 20010),
            Self::DocumentBusy => (StatusCode::TOO_MANY_REQUESTS, 20001),
            Self::DocumentIncomplete => (StatusCode::SERVICE_UNAVAILABLE, 20005),
            Self::WrongType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, 20032),
            Self::Document(error) => document_verdict(error),
            Self::InBatch { cause, .. }
            | Self::PartlyDone { cause, .. }
            | Self::PartlyDeleted { cause, .. } => cause.verdict(),
        }
    }

    /// The answer in the envelope of the REST API. Errors of KV itself name the operation, as the real
    /// API does: `get: 'key not found'`.
    pub(crate) fn into_response(self, operation: &str) -> Response<Body> {
        let (status, code) = self.verdict();
        let message = match code {
            10009..=10404 | 20000.. => format!("{operation}: '{self}'"),
            _ => self.to_string(),
        };
        let body = json!({
            "success": false,
            "errors": [{ "code": code, "message": message }],
            "messages": [],
            "result": null,
        });
        self.with_advice(with_body(status, "application/json", body.to_string()))
    }

    /// The answer by the binding protocol. The reason phrase is all that a Worker sees of it; the body has the same
    /// text for people.
    pub(crate) fn into_binding_response(self) -> Response<Body> {
        let status = match (&self, self.verdict().0) {
            (Self::KeyNotFound, status) => status,
            (Self::MissingCredentials, _) => StatusCode::UNAUTHORIZED,
            // A Worker would take it for a key that is not there.
            (_, StatusCode::NOT_FOUND | StatusCode::GONE) => StatusCode::BAD_REQUEST,
            (_, status) => status,
        };
        let message = match &self {
            Self::NoKeys => "You must request a minimum of 1 key".to_owned(),
            Self::TooManyKeys { limit, .. } => format!("You can request a maximum of {limit} keys"),
            Self::MissingCredentials => {
                "no token was sent: inject the header Authorization, \"Bearer TOKEN\"".to_owned()
            }
            other => other.to_string(),
        };
        let mut response = with_body(status, "text/plain; charset=utf-8", message.clone());
        response.extensions_mut().insert(reason_phrase(&message));
        self.with_advice(response)
    }

    /// The answer of a page under `/v1` about keys: problem details, with our number for it as `code`.
    pub(crate) fn into_problem(self) -> Response<Body> {
        if matches!(self, Self::MissingCredentials | Self::BadAuthorization | Self::Forbidden) {
            return PageError::Unauthorized.into_response();
        }
        let (status, _) = self.verdict();
        let body = self.details().to_string();
        self.with_advice(with_body(status, "application/problem+json", body))
    }

    /// The same as JSON, for one of many in an answer. After a condition that did not hold it names the state that
    /// was met; of a batch, the write that is meant.
    pub(crate) fn details(&self) -> Json {
        if let Self::InBatch { index, key, cause } = self {
            let mut details = cause.details();
            (details["detail"], details["index"]) = (self.to_string().into(), (*index).into());
            if let Some(key) = key {
                details["key"] = key.as_str().into();
            }
            return details;
        }
        let (status, code) = self.verdict();
        let mut details = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "code": code,
        });
        if let Self::Write(WriteError::Precondition { current, .. }) = self {
            details["etag"] = current.as_ref().map(quoted).into();
        }
        if let Self::LacksRights { here, left, .. } | Self::RightsElsewhere { here, left, .. } = self {
            (details["rights_here"], details["count"]) = ((*here).into(), (*left).into());
        }
        details
    }

    /// Adds the headers that tell a client what it can do.
    fn with_advice(&self, mut response: Response<Body>) -> Response<Body> {
        let (_, code) = self.verdict();
        if let Self::MethodNotAllowed { allow } = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::Write(WriteError::Precondition { current: Some(etag), .. }) = self {
            response.headers_mut().insert(ETAG, header(etag));
        }
        if let Self::TooFast { refused, .. } = self {
            response.headers_mut().insert(RETRY_AFTER, refused.retry_after_s.into());
        }
        if matches!(code, 20001 | 20003..=20005 | 20011..=20014 | 20050) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S.into());
        }
        response
    }
}

/// Why nothing was taken from a bounded counter.
fn too_little(wanted: u64, here: u64, left: u64) -> String {
    if left < wanted {
        format!(
            "{left} left in the world as far as this PoP knows, fewer than the {wanted} wanted, so nothing was taken; take \
             fewer, or add some first"
        )
    } else {
        format!(
            "this PoP holds the rights to take {here} of the {left} left, fewer than the {wanted} wanted, and other PoPs gave \
             it no more in time, so nothing was taken; try again, or at another PoP"
        )
    }
}

/// Why nothing was taken from a bounded counter, and nothing else of its batch was done.
fn no_rights_here(wanted: u64, here: u64, left: u64) -> String {
    if left < wanted {
        return too_little(wanted, here, left);
    }
    format!(
        "this PoP holds the rights to take {here} of the {left} left, fewer than the {wanted} wanted, and a batch asks no \
         other PoP for more; take by itself, or send the batch to a PoP that holds more"
    )
}

/// A key as errors of a batch name it.
fn of_key(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!(" (key \"{key}\")"))
}

/// Status and code of what was not done with a document.
fn document_verdict(error: &DocumentError) -> (StatusCode, u16) {
    match error {
        DocumentError::Nothing { .. } => (StatusCode::NOT_FOUND, 10009),
        DocumentError::TooMany { .. } | DocumentError::ChangeTooLong => (StatusCode::BAD_REQUEST, 10024),
        DocumentError::TooLarge { .. } | DocumentError::TooManyOps { .. } | DocumentError::TooMuchJson => {
            (StatusCode::PAYLOAD_TOO_LARGE, 10030)
        }
        DocumentError::MissingChanges { .. } | DocumentError::UnknownHeads { .. } => {
            (StatusCode::CONFLICT, 20030)
        }
        DocumentError::Operation { cause, .. } => match &**cause {
            DocumentError::Nothing { .. }
            | DocumentError::OtherType { .. }
            | DocumentError::BadPosition { .. }
            | DocumentError::TestFailed { .. } => (StatusCode::CONFLICT, 20031),
            other => document_verdict(other),
        },
        DocumentError::Broken { .. } => (StatusCode::INTERNAL_SERVER_ERROR, 20033),
        _ => (StatusCode::BAD_REQUEST, 10021),
    }
}

/// Why a page of the native API is not given, or an order not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error("send \"Authorization: Bearer TOKEN\" with a token of this node")]
    Unauthorized,
    #[error("a name in the path is not percent-encoded UTF-8")]
    PathNotText,
    #[error(
        "this page needs a token of the cluster: one of the configuration ([[http.tokens]]) without cluster = false"
    )]
    NotOfCluster,
    #[error("account {id} is not one of this token's")]
    OtherAccount { id: String },
    #[error(transparent)]
    MissingRight(#[from] MissingRight),
    #[error("this token is asked too often: {0}")]
    TooFast(TooMany),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the body is larger than any order")]
    OrderTooLarge,
    #[error("the body is not understood: {reason}")]
    OrderNotUnderstood { reason: String },
    #[error("{reason}")]
    Busy { reason: String },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    NotDone(#[from] OperatorError),
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response<Body> {
        let status = match &self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotOfCluster | Self::OtherAccount { .. } | Self::MissingRight(_) => StatusCode::FORBIDDEN,
            Self::TooFast(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Account(AccountError::NotFound { .. }) | Self::Token(TokenError::NotFound { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::Account(AccountError::Exists { .. } | AccountError::NotEmpty { .. })
            | Self::Account(AccountError::Configured { .. } | AccountError::TooMany)
            | Self::Token(TokenError::TooMany) => StatusCode::CONFLICT,
            Self::Namespace(NamespaceError::NotFound) => StatusCode::NOT_FOUND,
            Self::Namespace(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Quota(QuotaError::OutOfBounds { .. }) => StatusCode::BAD_REQUEST,
            Self::Account(AccountError::Invalid { .. }) | Self::Token(TokenError::Invalid { .. }) => {
                StatusCode::BAD_REQUEST
            }
            Self::Account(AccountError::Read(_))
            | Self::Token(TokenError::Read(_))
            | Self::Quota(QuotaError::Read(_))
            | Self::Read(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Account(AccountError::Write(error))
            | Self::Token(TokenError::Write(error))
            | Self::Quota(QuotaError::Write(error)) => write_status(error),
            Self::Home(HomeError::NoSuchRegion { .. }) => StatusCode::BAD_REQUEST,
            Self::Home(HomeError::Silent { .. }) => StatusCode::GATEWAY_TIMEOUT,
            Self::Home(HomeError::Write(error)) => write_status(error),
            Self::Home(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::OrderTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::PathNotText | Self::OrderNotUnderstood { .. } => StatusCode::BAD_REQUEST,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Link(LinkError::NoSuchLink { .. }) => StatusCode::NOT_FOUND,
            Self::Link(LinkError::Quarantined) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotDone(OperatorError::NoSuchMember { .. } | OperatorError::NoSuchLetter { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::NotDone(OperatorError::Itself | OperatorError::WouldLose { .. }) => StatusCode::CONFLICT,
            Self::NotDone(OperatorError::Unavailable { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = problem(status, &self.to_string());
        if let Self::TooFast(refused) = &self {
            response.headers_mut().insert(RETRY_AFTER, refused.retry_after_s.into());
        }
        response
    }
}

/// An error of the native API: problem details as RFC 9457 has them.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = with_body(status, "application/problem+json", body.to_string());
    match status {
        StatusCode::UNAUTHORIZED => {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S.into());
        }
        _ => {}
    }
    response
}

/// What a page says of a write that was not done: as the KV surface does.
fn write_status(error: &WriteError) -> StatusCode {
    ApiError::Write(error.clone()).verdict().0
}

/// A message on the status line: on one line, and not too long for it.
fn reason_phrase(message: &str) -> ReasonPhrase {
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_REASON_BYTES;
    let printed = |c: char| if c.is_ascii_control() { ' ' } else { c };
    let line: String = message.char_indices().take_while(fits).map(|(_, c)| printed(c)).collect();
    ReasonPhrase::try_from(line).expect("without control characters it is one")
}

fn with_body(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_is_refused_has_a_status_that_says_who_must_act() {
        let text = String::new;
        let id = || "ab".repeat(16);
        let cases: [(PageError, u16); 24] = [
            (PageError::Busy { reason: text() }, 503),
            (LinkError::NoSuchLink { pop: text() }.into(), 404),
            (LinkError::Quarantined.into(), 503),
            (OperatorError::NoSuchMember { replica: text() }.into(), 404),
            (OperatorError::NoSuchLetter { dot: text() }.into(), 404),
            (OperatorError::Itself.into(), 409),
            (OperatorError::WouldLose { pop: text(), why: text(), loss: text() }.into(), 409),
            (OperatorError::Unavailable { reason: text() }.into(), 503),
            (PageError::NotOfCluster, 403),
            (PageError::OtherAccount { id: id() }, 403),
            (AccountError::NotFound { id: id() }.into(), 404),
            (AccountError::Exists { id: id() }.into(), 409),
            (AccountError::Configured { id: id() }.into(), 409),
            (TokenError::TooMany.into(), 409),
            (TokenError::Invalid { reason: text() }.into(), 400),
            (TokenError::Read(ReadError { reason: text() }).into(), 503),
            (NamespaceError::NotFound.into(), 404),
            (QuotaError::Write(WriteError::Draining).into(), 503),
            (QuotaError::Write(WriteError::Overloaded { queued: 9 }).into(), 429),
            (PageError::TooFast(TooMany { per_s: 1, retry_after_s: 1 }), 429),
            (PageError::Unauthorized, 401),
            (PageError::OrderTooLarge, 413),
            (PageError::PathNotText, 400),
            (PageError::OrderNotUnderstood { reason: text() }, 400),
        ];
        for (error, status) in cases {
            let text = error.to_string();
            let response = error.into_response();
            assert_eq!(response.status(), status, "{text}");
            // Only what passes by itself is worth another try.
            assert_eq!(response.headers().contains_key(RETRY_AFTER), matches!(status, 429 | 503), "{text}");
        }
    }

    #[test]
    fn a_worker_is_never_told_404_but_for_a_key_and_reads_why_on_the_status_line() {
        let reason = |response: &Response<Body>| {
            let phrase = response.extensions().get::<ReasonPhrase>().unwrap();
            String::from_utf8(phrase.as_bytes().to_vec()).unwrap()
        };
        let cases: [(ApiError, u16, &str); 8] = [
            (ApiError::KeyNotFound, 404, "key not found"),
            (NamespaceError::NotFound.into(), 400, "namespace not found"),
            (ApiError::NoRoute { path: "/".into() }, 400, "Could not route"),
            (ApiError::Forbidden, 403, "Authentication error"),
            (ApiError::MissingCredentials, 401, "inject the header Authorization"),
            (ApiError::NoKeys, 400, "You must request a minimum of 1 key"),
            (ApiError::TooManyKeys { given: 101, limit: 100 }, 400, "You can request a maximum of 100 keys"),
            (
                ApiError::KeyTooLong { len: 513 },
                414,
                "UTF-8 encoded length of 513 exceeds key length limit of 512.",
            ),
        ];
        for (error, status, text) in cases {
            let response = error.into_binding_response();
            assert_eq!(response.status(), status, "{text}");
            assert!(reason(&response).contains(text), "{}", reason(&response));
        }
        let busy = ApiError::Busy.into_binding_response();
        assert!(busy.headers().contains_key(RETRY_AFTER));
        let hostile = ApiError::invalid(format!("a\r\nSet-Cookie: x\0{}", "ü".repeat(MAX_REASON_BYTES)));
        let phrase = reason(&hostile.into_binding_response());
        assert!(phrase.starts_with("a  Set-Cookie: x ü") && phrase.len() <= MAX_REASON_BYTES, "{phrase}");
    }

    #[test]
    fn the_engines_errors_have_their_status_code_and_retry_after() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let over = WriteError::OverQuota { quota: "max_keys", limit: 1, used: 1, added: 1 };
        let cases: [(ApiError, u16, u16, bool); 11] = [
            (WriteError::Overloaded { queued: 9 }.into(), 429, 20001, true),
            (over.into(), 429, 20012, true),
            (WriteError::DiskFull { free_bytes: 1, min_free_bytes: 2 }.into(), 507, 20002, false),
            (WriteError::ClockSkew { skew_ms: -900, limit_ms: 400 }.into(), 503, 20003, true),
            (WriteError::ClockBehind { behind_ms: 900, limit_ms: 500 }.into(), 503, 20003, true),
            (WriteError::Unavailable { reason: "stopping".into() }.into(), 503, 20004, true),
            (WriteError::Draining.into(), 503, 20011, true),
            (ReadError { reason: "quarantined".into() }.into(), 503, 20004, true),
            (NamespaceError::Read(ReadError { reason: "quarantined".into() }).into(), 503, 20004, true),
            (full.into(), 507, 20002, false),
            (io::Error::other("torn").into(), 500, 20009, false),
        ];
        for (error, status, code, retried) in cases {
            let text = error.to_string();
            assert_eq!(error.verdict(), (StatusCode::from_u16(status).unwrap(), code), "{text}");
            let partly = ApiError::PartlyDone { done: 1, total: 2, cause: Box::new(error) };
            assert_eq!(partly.verdict().1, code, "{text}");
            assert_eq!(partly.into_response("put").headers().contains_key(RETRY_AFTER), retried, "{text}");
        }
    }
}
