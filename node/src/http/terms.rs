//! On which terms a request about keys is answered: what its session has seen, how stale the answer may be, and who else
//! must hold what it writes.
//!
//! The rule this file upholds: no answer breaks its terms. What they ask for is waited for, for a bounded time and by a
//! bounded number; then the request is refused before anything was done, or, where it has written, told what came true.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use littoral::api::kinds::RECEIPT_HEADER;
use metrics::counter;
use replication::Dot;

use super::error::ApiError;
use super::listener::{Access, Door};
use super::native_path::ACCOUNTS;
use super::query::Query;
use super::route::{self, Operation, Routed};
use super::session::{SESSION_HEADER, Session};
use super::wait::{self, Wanted};
use super::{Surface, auth, batch, binding, conflicts, documents, homes, kinds};
use crate::engine::reach::{NotReached, WaiterSeat};
use crate::engine::{Engine, show_dot};

/// What the answer to a read may lack at most, in milliseconds.
const STALENESS: HeaderName = HeaderName::from_static("littoral-staleness-ms");
/// What it is to lack at most; as a parameter, `max-staleness`.
const MAX_STALENESS: HeaderName = HeaderName::from_static("littoral-max-staleness-ms");
/// How long the request is to wait at most, in milliseconds; as a parameter, `timeout`.
const TIMEOUT: HeaderName = HeaderName::from_static("littoral-timeout-ms");

tokio::task_local! {
    /// The last event that the request has written.
    static WRITTEN: Cell<Option<Dot>>;
}

/// Notes what the request that is being answered has written.
pub(super) fn note_written(dots: &[Dot]) {
    // A namespace that is made is written beside any terms.
    let _ = WRITTEN.try_with(|written| written.set(dots.last().copied().or(written.get())));
}

/// Whose form the answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binding,
    Kv,
    Native,
}

impl Form {
    /// Of a request about keys.
    fn of(door: Door, head: &Parts) -> Option<Self> {
        let path = head.uri.path();
        if binding::is_meant(door, head) {
            return Some(Self::Binding);
        }
        if path.starts_with("/client/v4/accounts/") {
            return Some(Self::Kv);
        }
        let is_native = path.starts_with(ACCOUNTS) && path.contains("/namespaces/");
        let is_about_namespace = is_native && matches!(path.split('/').nth(6), Some("quota" | "home"));
        (is_native && !is_about_namespace).then_some(Self::Native)
    }
}

/// What a request asks for beside its answer.
struct Terms {
    form: Form,
    /// Whether it changes nothing.
    is_read: bool,
    /// Whether what it does depends on what is here.
    looks: bool,
    session: Option<Session>,
    max_staleness_ms: Option<u64>,
    wanted: Option<Wanted>,
    /// How long it may wait before it is answered.
    patience: Duration,
}

/// Answers a request, on its terms.
pub(super) async fn answer(
    surface: &Arc<Surface>,
    door: Door,
    head: Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let Some(form) = Form::of(door, &head) else { return surface.answer_at(door, head, body).await };
    let _deciding = match homes::decide(surface, door, &head).await {
        Ok(deciding) => deciding,
        Err(error) => {
            let operation = operation(form, &head);
            let error = surface.refuse(error, &head, body).await;
            return (operation, shown(error, form, operation, &head.headers));
        }
    };
    let admitted = async {
        let terms = Terms::of(surface, form, &head)?;
        let seat = terms.admit(surface, door, &head.headers).await?;
        Ok::<_, ApiError>((terms, seat))
    };
    let (terms, seat) = match admitted.await {
        Ok(admitted) => admitted,
        Err(error) => {
            let operation = operation(form, &head);
            let error = surface.refuse(error, &head, body).await;
            return (operation, shown(error, form, operation, &head.headers));
        }
    };
    // Before the read: what comes in meanwhile makes it no staler.
    let complete_ms = surface.engine.complete_upto_ms();
    let answered = async {
        let answered = surface.answer_at(door, head, body).await;
        (answered, WRITTEN.with(Cell::get))
    };
    let ((operation, response), written) = WRITTEN.scope(Cell::new(None), answered).await;
    (operation, terms.complete(surface, response, written, complete_ms, seat).await)
}

impl Terms {
    fn of(surface: &Surface, form: Form, head: &Parts) -> Result<Self, ApiError> {
        let headers = &head.headers;
        // What a Worker asks for is for its binding's own parameters.
        let query =
            Query::parse(head.uri.query().filter(|query| form != Form::Binding && is_about_terms(query)))?;
        let number =
            |header, name| number(headers, header)?.map_or_else(|| query.number(name), |n| Ok(Some(n)));
        let is_read = is_read(head);
        let wanted = query.text("wait").map(Wanted::parse).transpose()?;
        if wanted.is_some() && is_read {
            return Err(ApiError::invalid("wait is for writes: a read takes max-staleness, or a session"));
        }
        let session = Session::carried(&surface.engine, headers)?;
        if is_stream(head) && (wanted.is_some() || session.is_some()) {
            return Err(ApiError::invalid(
                "a stream of orders is answered before they are carried out: it takes no wait and no Littoral-Session",
            ));
        }
        Ok(Self {
            form,
            is_read,
            looks: is_read || looks(head),
            session,
            max_staleness_ms: number(MAX_STALENESS, "max-staleness")?,
            wanted,
            patience: patience(surface, headers, &query)?,
        })
    }

    /// Waits until the request may be carried out. Gives the seat of one that will wait afterwards.
    async fn admit(
        &self,
        surface: &Surface,
        door: Door,
        headers: &HeaderMap,
    ) -> Result<Option<WaiterSeat>, ApiError> {
        let engine = &surface.engine;
        if let Some(wanted) = &self.wanted {
            wanted.check(&engine.held())?;
        }
        let lacks = self.lacks(engine);
        if lacks.is_none() && self.wanted.is_none() {
            return Ok(None);
        }
        // Whoever is nobody waits for nothing.
        if !matches!(door, Door::Namespace { access: Access::Socket, .. }) {
            surface.tokens.grant(auth::presented(headers)?)?.ok_or(ApiError::Forbidden)?;
        }
        engine.store()?;
        let seat = engine.take_seat().map_err(|_| ApiError::TooManyWaiters)?;
        if lacks.is_some() {
            self.wait(engine, &seat).await?;
        }
        Ok(self.wanted.is_some().then_some(seat))
    }

    async fn wait(&self, engine: &Engine, seat: &WaiterSeat) -> Result<(), ApiError> {
        let reached = match self.looks {
            true => seat.wait(self.patience, || self.lacks(engine).is_none().then_some(())).await,
            false => self.wait_for_clock(engine).await,
        };
        let result = if reached.is_ok() { "reached" } else { "timeout" };
        counter!("littoral_session_waits_total", "result" => result).increment(1);
        match (reached, self.lacks(engine)) {
            (Err(_), Some(reason)) => Err(ApiError::NotReached { reason }),
            _ => Ok(()),
        }
    }

    /// A write must come after all that its session has seen, by this PoP's clock, which may be behind that of another.
    async fn wait_for_clock(&self, engine: &Engine) -> Result<(), NotReached> {
        let ahead = Duration::from_millis(self.clock_lacks_ms(engine));
        tokio::time::sleep(ahead.min(self.patience)).await;
        if ahead > self.patience { Err(NotReached::InTime) } else { Ok(()) }
    }

    fn clock_lacks_ms(&self, engine: &Engine) -> u64 {
        let newest = self.session.as_ref().and_then(|session| session.lacking(engine));
        newest.map_or(0, |lacking| (lacking.newest.wall_ms() + 1).saturating_sub(Engine::staleness_ms(0)))
    }

    /// Why the request may not be carried out yet.
    fn lacks(&self, engine: &Engine) -> Option<String> {
        if !self.looks {
            let ahead_ms = self.clock_lacks_ms(engine);
            let why = || format!("the session has seen events {ahead_ms} ms ahead of this PoP's clock");
            return (ahead_ms > 0).then(why);
        }
        if let Some(lacking) = self.session.as_ref().and_then(|session| session.lacking(engine)) {
            return Some(lacking.explain());
        }
        let most_ms = self.max_staleness_ms?;
        let staleness_ms = Engine::staleness_ms(engine.complete_upto_ms());
        let why =
            || format!("this PoP may be {staleness_ms} ms behind, more than max-staleness = {most_ms} ms");
        (staleness_ms > most_ms).then(why)
    }

    /// Adds to the answer what the terms have it tell.
    async fn complete(
        self,
        surface: &Surface,
        mut response: Response<Body>,
        written: Option<Dot>,
        complete_ms: u64,
        seat: Option<WaiterSeat>,
    ) -> Response<Body> {
        let engine = &surface.engine;
        let status = response.status();
        if self.is_read && (status.is_success() || is_miss(status)) {
            response.headers_mut().insert(STALENESS, Engine::staleness_ms(complete_ms).into());
        }
        if let Some(dot) = written {
            if self.form != Form::Binding && !response.headers().contains_key(RECEIPT_HEADER) {
                insert(&mut response, RECEIPT_HEADER, &show_dot(dot));
            }
            if let (Some(wanted), Some(seat)) = (&self.wanted, &seat) {
                let is_met =
                    seat.wait(self.patience, || wanted.is_met(&engine.held(), dot.hlc).then_some(())).await;
                let held = engine.held();
                if status.is_success() {
                    response =
                        wait::told(response, &held, dot.hlc, is_met.is_ok() || wanted.is_met(&held, dot.hlc));
                }
            }
        }
        if let Some(mut session) = self.session {
            if let Some(dot) = written {
                session.has_written(dot);
            }
            // A node that cannot tell any more has not answered from its store either.
            let read = if self.looks { session.has_read(engine).await } else { Ok(()) };
            if read.is_ok() || !status.is_success() {
                insert(&mut response, SESSION_HEADER, &session.encode(engine));
            }
        }
        response
    }
}

fn insert(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// How long a request may wait before it is answered: as it says, and no longer than the node lets any.
pub(super) fn patience(
    surface: &Surface,
    headers: &HeaderMap,
    query: &Query<'_>,
) -> Result<Duration, ApiError> {
    let asked_ms = number(headers, TIMEOUT)?.map_or_else(|| query.number("timeout"), |ms| Ok(Some(ms)))?;
    let most = surface.session_wait;
    Ok(asked_ms.map_or(most, |ms| Duration::from_millis(ms).min(most)))
}

/// Whether it tells of something that is not there, or not changed.
fn is_miss(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED)
}

/// Whether a query may have parameters of ours; most have none, and are read once only.
fn is_about_terms(query: &str) -> bool {
    ["wait", "timeout", "max-staleness"].iter().any(|name| query.contains(name))
}

/// The number in a header.
pub(super) fn number(headers: &HeaderMap, name: HeaderName) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| ApiError::invalid(format!("{name} must be a whole number of milliseconds")))
}

fn is_read(head: &Parts) -> bool {
    let is_bulk_read = head.method == Method::POST && head.uri.path().ends_with("/bulk/get");
    matches!(head.method, Method::GET | Method::HEAD) || is_bulk_read
}

/// Whether a write depends on what is here: one with a condition, one that takes away what it sees, or that answers with
/// what comes of it.
fn looks(head: &Parts) -> bool {
    if head.headers.contains_key(IF_MATCH) || head.headers.contains_key(IF_NONE_MATCH) {
        return true;
    }
    let path = head.uri.path();
    if let Some(asked) = kinds::route(path) {
        return asked.looks(&head.method);
    }
    match head.method {
        // An edit of a document is made of what is different from here.
        _ if documents::route(path).is_some() => true,
        Method::PUT => false,
        Method::DELETE => path.starts_with("/v1/"),
        _ => !path.ends_with("/bulk/delete"),
    }
}

/// Whether it is answered while it is read, so that nobody knows at its head what it will have written.
pub(super) fn is_stream(head: &Parts) -> bool {
    kinds::route(head.uri.path()).is_some_and(|asked| asked.takes_orders(&head.method))
}

/// What a refused request has asked for.
fn operation(form: Form, head: &Parts) -> Operation {
    let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
    match form {
        Form::Binding => match *method {
            Method::PUT => Operation::BindingPut,
            Method::DELETE => Operation::BindingDelete,
            Method::POST => Operation::BindingBulkGet,
            _ => Operation::BindingGet,
        },
        Form::Kv => match route::route(method, head.uri.path()) {
            Routed::Call(call) => call.operation,
            _ => Operation::Unrouted,
        },
        Form::Native if documents::route(head.uri.path()).is_some() => Operation::Documents,
        Form::Native if conflicts::route(head.uri.path()).is_some() => Operation::Conflicts,
        Form::Native if batch::route(head.uri.path()).is_some() => Operation::Batch,
        Form::Native => kinds::route(head.uri.path()).map_or(Operation::Native, |asked| asked.operation()),
    }
}

/// The refusal, with the session as it was sent.
fn shown(error: ApiError, form: Form, operation: Operation, headers: &HeaderMap) -> Response<Body> {
    let is_token_good = matches!(error, ApiError::NotReached { .. } | ApiError::TooManyWaiters);
    let mut response = match form {
        Form::Binding => error.into_binding_response(),
        Form::Kv => error.into_response(operation.name()),
        Form::Native => error.into_problem(),
    };
    for token in headers.get_all(SESSION_HEADER).iter().filter(|_| is_token_good) {
        response.headers_mut().append(HeaderName::from_static(SESSION_HEADER), token.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_what_depends_on_what_is_here_looks() {
        let ns = "/v1/accounts/a/namespaces/n";
        for (method, path, headers, expected) in [
            ("PUT", format!("{ns}/values/k"), &[][..], false),
            ("PUT", format!("{ns}/values/k"), &[("if-match", "\"x\"")][..], true),
            ("PUT", format!("{ns}/values/k"), &[("if-none-match", "*")][..], true),
            ("DELETE", format!("{ns}/values/k"), &[][..], false),
            ("DELETE", format!("{ns}/sets/s/members/m"), &[][..], true),
            ("PUT", format!("{ns}/sets/s/members/m"), &[][..], false),
            ("DELETE", format!("{ns}/sets/values/members/m"), &[][..], true),
            ("DELETE", format!("{ns}/values"), &[][..], true),
            ("POST", format!("{ns}/values"), &[][..], true),
            ("PUT", format!("{ns}/values/k/metadata"), &[][..], true),
            ("PATCH", format!("{ns}/maps/m"), &[][..], true),
            ("PUT", format!("{ns}/docs/d"), &[][..], true),
            ("PATCH", format!("{ns}/docs/d"), &[][..], true),
            ("DELETE", format!("{ns}/docs/values"), &[][..], true),
            ("POST", format!("{ns}/docs/d/changes"), &[][..], true),
            ("POST", format!("{ns}/counters/c"), &[][..], true),
            // What it holds may be conditional, or take away what it sees.
            ("POST", format!("{ns}/batch"), &[][..], true),
            ("DELETE", "/client/v4/accounts/a/storage/kv/namespaces/n/values/k".into(), &[][..], false),
            ("POST", "/client/v4/accounts/a/storage/kv/namespaces/n/bulk/delete".into(), &[][..], false),
        ] {
            assert_eq!(looks(&head(method, &path, headers)), expected, "{method} {path}");
        }
    }

    #[test]
    fn only_requests_about_keys_have_terms() {
        for (path, form) in [
            ("/client/v4/accounts/a/storage/kv/namespaces/n/values/k", Some(Form::Kv)),
            ("/v1/accounts/a/namespaces/n/sets/s", Some(Form::Native)),
            ("/v1/accounts/a/namespaces/n/quota", None),
            ("/v1/accounts/a/namespaces/n/home", None),
            // Keys may be called so.
            ("/v1/accounts/a/namespaces/n/values/quota", Some(Form::Native)),
            ("/v1/accounts/a/namespaces/n/docs/home", Some(Form::Native)),
            ("/binding/n/k", Some(Form::Binding)),
            ("/v1/accounts", None),
            ("/v1/status", None),
            ("/metrics", None),
        ] {
            assert_eq!(Form::of(Door::Node, &head("GET", path, &[])), form, "{path}");
        }
    }
}
