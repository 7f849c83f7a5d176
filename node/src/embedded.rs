//! A node inside a program: its store, its links to other PoPs and, if wanted, its HTTP, on threads of its own.
//!
//! The rule this file upholds: nothing of the process is taken that the program may want for itself: no signal, no log, no
//! recorder of metrics; and all of the node's work is done on the node's own threads, whatever runtime the program has,
//! but for the reading of small values.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use config::{Budgets, Config, Conflicts, Documents, Http, Log, Node, Replication, Storage};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Uri};
use littoral::transport::{self, Read, Response, Transport, Unanswered};
use littoral::{Account, Client, Error};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::identity;
use crate::node::{self, Part, Up};

/// The random bytes of the token that the program's own requests show.
const TOKEN_BYTES: usize = 32;
/// How long a join token that is used at once is good for.
const JOIN_TOKEN_VALIDITY: Duration = Duration::from_secs(600);
/// How often a node that does not serve yet is asked whether it does.
const READY_EVERY: Duration = Duration::from_millis(10);
/// The PoP and region of a node that is alone.
const ALONE_POP: &str = "embedded";
const ALONE_REGION: &str = "local";
/// The memory for the cache of a node that is alone: most of it is the program's.
const ALONE_CACHE_BYTES: u64 = 64 << 20;

/// A node in this process. Its [`Client`] is the one for a PoP elsewhere, with all it can do; only that no socket is between,
/// and that [`get`](littoral::Namespace::get) takes microseconds. The program is trusted: it may do everything, in every
/// account.
///
/// Dropped, it stops as [`Embedded::close`] has it, but nobody waits for that. A program that ends meanwhile loses nothing
/// that was acknowledged: it is as if it had been killed.
///
/// ```no_run
/// use littoral_node::embedded::{self, Embedded};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Embedded::open(embedded::alone("data".as_ref())?).await?;
/// let kv = node.account("0123456789abcdef0123456789abcdef").namespace_titled("demo").await?;
/// kv.put("greeting", "hello", Default::default()).await?;
/// assert_eq!(kv.get("greeting").await?.map(|value| value.bytes), Some("hello".into()));
/// node.close().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Embedded {
    inside: Arc<Inside>,
    client: Client,
    tell: watch::Sender<bool>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

/// Why a node could not be opened, or has not stopped as it should: what is in the way, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct EmbeddedError {
    reason: String,
}

impl EmbeddedError {
    fn of(error: impl Into<anyhow::Error>) -> Self {
        Self { reason: format!("{:#}", error.into()) }
    }
}

/// The settings of a node without other PoPs, that keeps all it has in this folder: its identity, too, which is made where
/// there is none. It listens for other PoPs at a free port of the loopback, and for HTTP, if that is wanted, at another.
///
/// # Errors
/// Where the folder, or the identity in it, cannot be made or read.
pub fn alone(folder: &Path) -> Result<Config, EmbeddedError> {
    let cannot = |error: io::Error| EmbeddedError {
        reason: format!("the folder {} cannot be made: {error}", folder.display()),
    };
    // It holds keys: nobody else may look in.
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
    let (authority, identity_dir) = (folder.join("cluster"), folder.join("identity"));
    if !authority.exists() {
        identity::init_cluster(&authority).map_err(EmbeddedError::of)?;
    }
    if !identity_dir.exists() {
        let token = identity::join_token(&authority, ALONE_POP, JOIN_TOKEN_VALIDITY);
        identity::init_node(&identity_dir, &token.map_err(EmbeddedError::of)?).map_err(EmbeddedError::of)?;
    }
    let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(Config {
        node: Node {
            pop: ALONE_POP.parse().map_err(EmbeddedError::of)?,
            region: ALONE_REGION.into(),
            data_dir: folder.join("data"),
            identity_dir,
        },
        http: Http { listen: free_port, ..Http::default() },
        replication: Replication { listen: free_port, ..Replication::default() },
        budgets: Budgets::default(),
        storage: Storage { cache_bytes: ALONE_CACHE_BYTES, ..Storage::default() },
        documents: Documents::default(),
        conflicts: Conflicts::default(),
        log: Log::default(),
    })
}

impl Embedded {
    /// Opens a node of these settings, of which those of HTTP and of the log have no meaning, and waits until it is up. With
    /// other PoPs it may not serve yet: see [`Embedded::ready`].
    ///
    /// # Errors
    /// Where it cannot start; also where the folder is open already, in this process or another.
    pub async fn open(config: Config) -> Result<Self, EmbeddedError> {
        Self::start(config, false).await
    }

    /// As [`Embedded::open`], and serves HTTP beside, as its settings say.
    ///
    /// # Errors
    /// As [`Embedded::open`]; also where a port is in use.
    pub async fn open_with_http(config: Config) -> Result<Self, EmbeddedError> {
        Self::start(config, true).await
    }

    async fn start(config: Config, serves_http: bool) -> Result<Self, EmbeddedError> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| EmbeddedError { reason: format!("no random numbers: {error}") })?;
        let token = blake3::Hash::from_bytes(random).to_hex().to_string();
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(EmbeddedError::of)?;
        bearer.set_sensitive(true);
        let pop = config.node.pop.to_string();
        let inside = Arc::new(Inside { pop: pop.clone(), bearer, up: ArcSwapOption::empty() });
        let client = Client::over(inside.clone(), &pop).map_err(EmbeddedError::of)?;
        let (tell, told) = watch::channel(false);
        let (begun, is_begun) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        let part =
            Part { metrics: None, serves_http, program_token: Some(token), last_tasks: node::LAST_TASKS };
        let kept = inside.clone();
        let keep = move || {
            let begun = std::sync::Mutex::new(Some(begun));
            let kept_end = node::keep(&config, &part, &told, |up| {
                let is_up = up.is_some();
                kept.up.store(up.map(Arc::new));
                let begun = begun.lock().ok().and_then(|mut begun| begun.take_if(|_| is_up));
                begun.map(|begun| begun.send(()));
            });
            drop(begun);
            // Nobody may wait for it.
            let _ = end.send(kept_end);
        };
        std::thread::Builder::new().name("littoral".into()).spawn(keep).map_err(EmbeddedError::of)?;
        if is_begun.await.is_err() {
            return Err(match (&mut ended).await {
                Ok(Err(error)) => EmbeddedError::of(error),
                _ => EmbeddedError { reason: "the node ended before it was up".into() },
            });
        }
        Ok(Self { inside, client, tell, ended })
    }

    /// Waits until the node serves. One without other PoPs does so at once; one that is new copies first what they have.
    pub async fn ready(&self) {
        while !self.client.is_ready().await {
            tokio::time::sleep(READY_EVERY).await;
        }
    }

    /// The client of this node. It may do everything.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The account with this id, 32 hexadecimal digits in lower case.
    pub fn account(&self, id: &str) -> Account {
        self.client.account(id)
    }

    /// Where the node listens for HTTP, if it does.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.inside.up.load().as_ref()?.http
    }

    /// Where it listens for other PoPs (UDP); nowhere where its store is in quarantine.
    pub fn quic_address(&self) -> Option<SocketAddr> {
        self.inside.up.load().as_ref()?.quic
    }

    /// Stops the node: calls under way may finish, for `http.drain_s` at most, and all that was taken becomes durable. Then
    /// the folder may be opened again. Clients of it get errors from now on.
    ///
    /// # Errors
    /// Where it has failed, now or before.
    pub async fn close(mut self) -> Result<(), EmbeddedError> {
        self.tell.send_replace(true);
        match (&mut self.ended).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(EmbeddedError::of(error)),
            Err(_) => Err(EmbeddedError { reason: "the node's thread failed: this is a bug".into() }),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.tell.send_replace(true);
    }
}

/// The way to the node, which outlives it.
struct Inside {
    pop: String,
    /// What its own requests show.
    bearer: HeaderValue,
    /// Empty before it is up, while it returns under a new identity, and after it was stopped.
    up: ArcSwapOption<Up>,
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").field("pop", &self.pop).finish_non_exhaustive()
    }
}

impl Transport for Inside {
    fn call(&self, request: transport::Request) -> BoxFuture<'_, Result<Response, Unanswered>> {
        self.answer(request).boxed()
    }

    fn read(&self, account: &str, namespace: &str, key: &str) -> Option<Read> {
        self.up.load().as_ref()?.surface.read_at_once(account, namespace, key)
    }

    fn shown(&self) -> Option<String> {
        self.up.load().as_ref()?.surface.shown_at_once()
    }
}

impl Inside {
    async fn answer(&self, request: transport::Request) -> Result<Response, Unanswered> {
        let url = request.url().to_string();
        let no_answer = |reason: &str, may_be_done| Unanswered {
            error: Error::Transport { url: url.clone(), reason: reason.to_owned() },
            may_be_done,
        };
        let away = || no_answer("this node is not up: it was closed, or is about to return", false);
        let mut request = Request::try_from(request).map_err(|error| no_answer(&error.to_string(), false))?;
        let path = request.uri().path_and_query().cloned().map(Uri::from);
        *request.uri_mut() = path.unwrap_or_default();
        request.headers_mut().insert(AUTHORIZATION, self.bearer.clone());
        let up = self.up.load_full().ok_or_else(away)?;
        let surface = up.surface.clone();
        let work = async move { surface.answer_inside(request.map(Body::new)).await };
        // It ends when whoever called goes away, as with a connection.
        let answered = AbortOnDropHandle::new(up.runtime.spawn(work));
        drop(up);
        match answered.await {
            Ok(Some(response)) => {
                let body = |body: Body| transport::Body::wrap_stream(body.into_data_stream());
                Ok(Response::from(response.map(body)))
            }
            Ok(None) => Err(away()),
            Err(_) => Err(no_answer("this node has stopped meanwhile", true)),
        }
    }
}
