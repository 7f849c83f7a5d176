//! The HTTP surface: accepts connections and hands each request to what it asks for.
//!
//! The REST API of Workers KV is routed here on the raw path, past axum, because its keys are whatever
//! follows `values/` undecoded, and because reading a small value is the hot path: between hyper and the
//! engine stand one hash of the token and two look-ups. The node's own pages go through an axum router.
//!
//! The rule this file upholds: connections, heads and bodies are bounded in number, bytes and time.

pub(crate) mod attributes;
mod auth;
pub(crate) mod batch;
pub(crate) mod binding;
mod body;
pub(crate) mod bulk;
mod conditions;
mod conflicts;
mod connection;
mod diff;
mod documents;
mod envelope;
mod error;
mod homes;
mod idempotency;
mod inside;
pub(crate) mod keys;
mod kinds;
mod large;
mod links;
mod listener;
mod measures;
mod members;
mod namespaces;
mod native;
mod native_path;
mod openapi;
mod pace;
pub(crate) mod query;
mod quotas;
pub(crate) mod route;
mod seats;
mod session;
mod terms;
mod tls;
mod tokens;
mod values;
mod verify;
mod wait;
mod watch;
mod watched;
mod whereabouts;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use futures_util::future::select_all;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use littoral::api::tokens::Action;
use replication::NamespaceId;
use replication::entry::MAX_VALUE_BYTES;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

pub(crate) use self::homes::answer_calls;
pub use self::links::LinkControl;
pub(crate) use self::links::links_of;
pub use self::listener::{Access, Door, Listener};
pub use self::tls::{MAX_PEM_BYTES, Tls, TlsError, TlsFiles};
pub use crate::documents::Settings as DocumentSettings;
pub use crate::tokens::AccountToken;

use self::auth::{Owner, Place};
use self::body::{DRAIN_SLACK_BYTES, Upload};
use self::connection::Service as Connections;
use self::error::ApiError;
use self::listener::Stream;
use self::route::{Call, Operation, Routed};
use self::seats::{Seat, Seats};
use crate::accounts::Accounts;
use crate::chunk_flight::ChunkFlights;
use crate::chunks::ChunkStore;
use crate::documents::WarmDocuments;
use crate::engine::Engine;
use crate::homes::{Home, Homes};
use crate::namespaces::Namespaces;
use crate::quotas::Quotas;
use crate::tokens::{Grant, Tokens};
use crate::verifier::Verifier;

/// The pause after a connection could not be accepted, for want of file descriptors most likely.
const ACCEPT_RETRY_MS: u64 = 50;

/// What the HTTP surface stands on.
pub struct HttpContext {
    /// Reads and writes.
    pub engine: Engine,
    /// The bytes of large values.
    pub chunks: Arc<ChunkStore>,
    /// Who may do what.
    pub tokens: Vec<AccountToken>,
    /// How large documents may be, and how many are kept in memory.
    pub documents: DocumentSettings,
    /// Brings chunks that are not here.
    pub flights: Arc<ChunkFlights>,
    /// What is sent to the peers.
    pub links: Arc<dyn LinkControl>,
    /// What the program shows that this node is a part of, where it is; with it everything may be done.
    pub program_token: Option<String>,
    /// The page `/metrics`.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The bounds an operator sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once. When one more comes, one without a request is ended; where all have one, it waits.
    pub max_connections: usize,
    /// How long a connection may be idle until the head of its next request has come.
    pub header_timeout_ms: u64,
    /// How long a new connection may take for its TLS handshake, then for the head of its first request, and any later
    /// head over HTTP/1.1 once it has begun.
    pub opening_timeout_ms: u64,
    /// How long a body may stand still on its way in, and an answer on its way out.
    pub stalled_timeout_ms: u64,
    /// How long a request may wait for replication, where it does not ask for less.
    pub session_wait_ms: u64,
    /// How long requests being answered at shutdown may still take.
    pub drain_ms: u64,
}

impl Limits {
    fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    fn opening_timeout(&self) -> Duration {
        Duration::from_millis(self.opening_timeout_ms)
    }

    fn stalled_timeout(&self) -> Duration {
        Duration::from_millis(self.stalled_timeout_ms)
    }
}

/// Serves all listeners, if there are any, until `shutdown` completes, then lets requests being answered finish, also those
/// of the program itself, for at most [`Limits::drain_ms`]. Needs the multi-threaded runtime.
pub async fn serve(
    listeners: Vec<Listener>,
    surface: Arc<Surface>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (end, is_ending) = tokio::sync::watch::channel(false);
    let limits = surface.limits;
    let (watches, inside) = (surface.is_ending.clone(), surface.inside.clone());
    let service = Connections { surface, limits, is_ending };
    let seats = Seats::new(limits.max_connections);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    {
        // Kept from one look to the next: it may hold a connection that waits for a seat.
        let mut accepting = pin!(accept(&listeners, 0, &seats));
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (stream, door, seat, next) = accepting.as_mut() => {
                    connections.spawn(service.clone().serve(stream, door, seat));
                    accepting.set(accept(&listeners, next, &seats));
                }
                Some(ended) = connections.join_next() => report_panic(ended),
            }
        }
    }
    drop(listeners);
    end.send_replace(true);
    watches.cancel();
    inside.close();
    let ended = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
        inside.wait().await;
    };
    if tokio::time::timeout(Duration::from_millis(limits.drain_ms), ended).await.is_err() {
        let (connections, inside) = (connections.len(), inside.len());
        tracing::warn!(connections, inside, "requests were not answered in time and are cut off");
    }
    connections.shutdown().await;
    Ok(())
}

/// The next connection, once there is a seat for it, and which listener is to be asked first then. They take turns,
/// beginning with `next`: where one always has connections waiting, the others are heard too.
async fn accept(listeners: &[Listener], mut next: usize, seats: &Arc<Seats>) -> (Stream, Door, Seat, usize) {
    if listeners.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let (first, last) = listeners.split_at(next);
        let accepting =
            last.iter().chain(first).map(|listener| async { (listener.accept().await, listener.door) });
        let ((accepted, door), index, _) = select_all(accepting.map(Box::pin)).await;
        next = (next + index + 1) % listeners.len();
        match accepted {
            Ok(stream) => return (stream, door, seats.take().await, next),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            }
        }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed: this is a bug, please report it");
    }
}

/// What every request is answered from.
pub struct Surface {
    engine: Engine,
    namespaces: Arc<Namespaces>,
    accounts: Arc<Accounts>,
    quotas: Arc<Quotas>,
    chunks: large::Chunks,
    documents: Arc<WarmDocuments>,
    tokens: Arc<Tokens>,
    homes: Arc<Homes>,
    links: Arc<dyn LinkControl>,
    /// What requests show that the node makes of itself.
    own_bearer: HeaderValue,
    /// What was done under keys of its own.
    keys: idempotency::Keys,
    /// What whoever opens a unix socket without tokens may do there.
    everything: Arc<Grant>,
    /// What the program that this node is a part of may do.
    program: Arc<Grant>,
    /// A permit per KiB of bulk bodies in memory.
    bulk_memory: Semaphore,
    measures: measures::Measures,
    limits: Limits,
    /// How long a body may stand still.
    stalled: Duration,
    /// How long a request may wait for replication.
    session_wait: Duration,
    /// Requests of the program that this node is a part of, until their answers are told.
    inside: TaskTracker,
    /// Ends the watches, which would go on for as long as the node does.
    is_ending: CancellationToken,
    native: Router,
}

impl Surface {
    /// Needs the metrics recorder in place.
    pub fn new(context: HttpContext, limits: Limits) -> Self {
        let HttpContext { engine, chunks, documents, tokens, flights, links, program_token, render_metrics } =
            context;
        let tokens = Tokens::new(engine.clone(), tokens);
        let own_token = program_token.unwrap_or_else(random_token);
        let tokens = Arc::new(tokens.with_program(own_token.as_bytes()));
        let mut own_bearer =
            HeaderValue::try_from(format!("Bearer {own_token}")).expect("a token is visible ASCII");
        own_bearer.set_sensitive(true);
        let homes = Arc::new(Homes::new(engine.clone()));
        let namespaces = Arc::new(Namespaces::new(engine.clone()));
        let accounts = Arc::new(Accounts::new(engine.clone(), namespaces.clone(), tokens.clone()));
        let quotas = Arc::new(Quotas::new(engine.clone()));
        let native = native::Native {
            engine: engine.clone(),
            links: links.clone(),
            tokens: tokens.clone(),
            chunks: chunks.clone(),
            verifier: Arc::new(Verifier::new(engine.clone(), chunks.clone())),
            diff: Arc::default(),
            accounts: accounts.clone(),
            namespaces: namespaces.clone(),
            quotas: quotas.clone(),
            homes: homes.clone(),
            render_metrics,
        };
        Self {
            namespaces,
            accounts,
            quotas,
            documents: Arc::new(WarmDocuments::new(engine.clone(), documents)),
            chunks: large::Chunks { engine: engine.clone(), store: chunks, flights, recent: Arc::default() },
            engine,
            tokens,
            homes,
            links,
            own_bearer,
            keys: idempotency::Keys::new(),
            everything: Arc::new(Grant::of_everything(Vec::new(), false)),
            bulk_memory: Semaphore::new(bulk::MAX_HELD_KIB as usize),
            measures: measures::Measures::new(),
            program: Arc::new(Grant::of_the_program()),
            limits,
            stalled: limits.stalled_timeout(),
            session_wait: Duration::from_millis(limits.session_wait_ms),
            inside: TaskTracker::new(),
            is_ending: CancellationToken::new(),
            native: native::router(native),
        }
    }

    async fn answer(self: &Arc<Self>, door: Door, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let (operation, response) = if let Some((operation, home)) = homes::elsewhere(self, door, &head) {
            (operation, self.pass_on(home, head, body).await)
        } else if idempotency::is_meant(&head) {
            idempotency::answer(self, door, head, body).await
        } else {
            terms::answer(self, door, head, body).await
        };
        self.measures.record(operation, response.status(), started.elapsed());
        response
    }

    async fn pass_on(&self, home: Result<Arc<Home>, ApiError>, head: Parts, body: Body) -> Response<Body> {
        let answer = match home {
            Ok(home) => homes::pass_on(self, &home, head, body).await,
            Err(error) => Err(self.refuse(error, &head, body).await),
        };
        answer.unwrap_or_else(ApiError::into_problem)
    }

    async fn answer_at(self: &Arc<Self>, door: Door, head: Parts, body: Body) -> (Operation, Response<Body>) {
        if binding::is_meant(door, &head) {
            binding::answer(self, door, &head, body).await
        } else if let Some(asked) = kinds::route(head.uri.path()) {
            kinds::answer(self, &asked, &head, body).await
        } else if let Some(asked) = documents::route(head.uri.path()) {
            documents::answer(self, &asked, &head, body).await
        } else if let Some(asked) = conflicts::route(head.uri.path()) {
            conflicts::answer(self, &asked, &head, body).await
        } else if let Some(asked) = batch::route(head.uri.path()) {
            batch::answer(self, &asked, &head, body).await
        } else {
            self.answer_routed(head, body).await
        }
    }

    async fn answer_routed(&self, head: Parts, body: Body) -> (Operation, Response<Body>) {
        // Of an answer to HEAD, hyper sends the head only.
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let (operation, answer) = match route::route(method, head.uri.path()) {
            Routed::Call(call) => (call.operation, self.answer_call(&call, &head, body).await),
            Routed::WrongMethod { allow } => (
                Operation::Unrouted,
                Err(self.refuse(ApiError::MethodNotAllowed { allow }, &head, body).await),
            ),
            Routed::Nowhere => (Operation::Unrouted, Err(self.refuse(no_route(&head), &head, body).await)),
            Routed::Native => {
                let response = match watch::target(head.uri.path()) {
                    Some(target) => watch::answer(self, target, &head).await,
                    None => {
                        let Ok(response) = self.native.clone().call(Request::from_parts(head, body)).await;
                        response
                    }
                };
                (Operation::Native, Ok(response))
            }
        };
        (operation, answer.unwrap_or_else(|error| error.into_response(operation.name())))
    }

    async fn answer_call(
        &self,
        call: &Call<'_>,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        let mut upload = Upload::new(&head.headers, body, self.stalled);
        let answer = self.dispatch(call, head, &mut upload).await;
        let drained_bytes = match call.operation {
            Operation::BulkPut | Operation::BulkDelete => bulk::MAX_BULK_BYTES + DRAIN_SLACK_BYTES,
            _ => MAX_VALUE_BYTES + DRAIN_SLACK_BYTES,
        };
        upload.drain(drained_bytes).await;
        answer
    }

    async fn dispatch(
        &self,
        call: &Call<'_>,
        head: &Parts,
        upload: &mut Upload,
    ) -> Result<Response<Body>, ApiError> {
        let grant = auth::grant_of(&self.tokens, &head.headers)?;
        if call.operation == Operation::VerifyToken {
            return Ok(tokens::verified(&grant));
        }
        let account = grant.account(call.account).ok_or(ApiError::Forbidden)?;
        let query = head.uri.query();
        let place = |action| self.place(&grant, account, call.namespace, action);
        match call.operation {
            Operation::ReadValue => values::read(self, &place(Action::Read)?, call.key).await,
            Operation::PutValue => {
                values::put(self, &place(Action::Write)?, call.key, query, &head.headers, upload).await
            }
            Operation::DeleteValue => values::delete(self, &place(Action::Write)?, call.key, query).await,
            Operation::ReadMetadata => values::read_metadata(self, &place(Action::Read)?, call.key),
            Operation::ListKeys => keys::list(self, &place(Action::List)?, query),
            Operation::BulkPut => bulk::put(self, &place(Action::Write)?, query, upload).await,
            Operation::BulkDelete => bulk::delete(self, &place(Action::Write)?, query, upload).await,
            Operation::BulkRead => bulk::read(self, &place(Action::Read)?, upload).await,
            Operation::ListNamespaces => namespaces::list(self, &grant, account, query),
            Operation::CreateNamespace => namespaces::create(self, &grant, account, upload).await,
            Operation::FindNamespace => namespaces::find(self, &grant, account, call.namespace),
            Operation::RenameNamespace => {
                namespaces::rename(self, account, &place(Action::Admin)?, upload).await
            }
            Operation::DeleteNamespace => namespaces::delete(self, account, &place(Action::Admin)?).await,
            // No call is routed to these.
            Operation::VerifyToken
            | Operation::BindingGet
            | Operation::BindingPut
            | Operation::BindingDelete
            | Operation::BindingList
            | Operation::BindingBulkGet
            | Operation::Counters
            | Operation::Bounded
            | Operation::Sets
            | Operation::Maps
            | Operation::Values
            | Operation::Documents
            | Operation::Conflicts
            | Operation::Batch
            | Operation::Unrouted
            | Operation::Native => Err(no_route(head)),
        }
    }

    /// The error, once the client can read it: wrangler sends a whole value to where the key ".." leads.
    async fn refuse(&self, error: ApiError, head: &Parts, body: Body) -> ApiError {
        let mut upload = Upload::new(&head.headers, body, self.stalled);
        upload.drain(MAX_VALUE_BYTES + DRAIN_SLACK_BYTES).await;
        error
    }

    /// The namespace of this id, if it is one of the account's and the token may do this there.
    fn place(&self, grant: &Arc<Grant>, account: &str, id: &str, action: Action) -> Result<Place, ApiError> {
        let id = parse_namespace(id)?;
        Place::enter(self, grant.clone(), Owner::Account(account), id, action)
    }
}

/// A token that nobody else has.
fn random_token() -> String {
    let mut random = [0; 32];
    // Without random numbers the store could not have been opened either.
    getrandom::fill(&mut random).expect("the system gives random numbers");
    blake3::Hash::from_bytes(random).to_hex().to_string()
}

fn parse_namespace(given: &str) -> Result<NamespaceId, ApiError> {
    given.parse().map_err(|_| ApiError::BadNamespaceId { given: given.to_owned() })
}

fn no_route(head: &Parts) -> ApiError {
    ApiError::NoRoute { path: head.uri.path().to_owned() }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_listener_with_many_waiting_does_not_silence_another() {
        let namespace = Door::Namespace { id: NamespaceId([1; 16]), access: Access::Token };
        let mut listeners = Vec::new();
        let mut waiting = Vec::new();
        for door in [Door::Node, namespace] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            for _ in 0..8 {
                waiting.push(tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            }
            listeners.push(Listener::tcp(listener, door));
        }
        let seats = Seats::new(waiting.len());
        let mut next = 0;
        let mut of_namespace = 0;
        for _ in 0..8 {
            let (_, door, _, then) = accept(&listeners, next, &seats).await;
            next = then;
            of_namespace += usize::from(matches!(door, Door::Namespace { .. }));
        }
        assert!((3..=5).contains(&of_namespace), "{of_namespace} of 8, of two in turn");
    }
}
