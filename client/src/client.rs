//! The client itself: one PoP's address, a token, and a pool of connections.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::account::Account;
use crate::api::links::{Links, LinksReport, Pause, SetBudget, SetBurst, SetLinkBudget};
use crate::api::members::{DeadLetters, Drain, GarbageReport, MembersReport, Remove, Settle};
use crate::api::whereabouts::Holders;
use crate::api::{LagReport, Status};
use crate::endpoints::{self, Endpoints};
use crate::error::Error;
use crate::request::{Request, segment};
use crate::session::{Session, Told};
use crate::tls;
use crate::transport::Transport;
use crate::waiting::Waiting;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Speaks to one PoP, or to the next of several where that one does not answer. Cheap to clone; clones share their
/// connections and their session: what one has seen or written, none reads an older state of, at whichever PoP.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) endpoints: Endpoints,
    /// None where sessions are switched off.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) told: Arc<Told>,
    pub(crate) waiting: Waiting,
}

impl Client {
    /// A client with the default timeouts. `base_url` is a PoP's address, such as
    /// `http://127.0.0.1:8787` or `https://kv.example.net`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address or a token that cannot be used.
    pub fn new(base_url: &str, token: &str) -> Result<Self, Error> {
        Self::builder().build(base_url, token)
    }

    /// A client of the one PoP that this transport leads to: of a node inside the process (`littoral_node::Embedded` has one
    /// ready). `name` stands for the PoP's address in errors: a name as hosts have.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that can be none of a host.
    pub fn over(transport: Arc<dyn Transport>, name: &str) -> Result<Self, Error> {
        let url = format!("http://{name}");
        endpoints::parse(&url)?;
        let (session, told, waiting) = (Some(Arc::default()), Arc::default(), Waiting::default());
        Ok(Self { transport, endpoints: Endpoints::new(&[url]), session, told, waiting })
    }

    /// A client with timeouts of your own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            authorities: None,
            further: Vec::new(),
            carries_session: true,
        }
    }

    /// The address this client speaks to; of several the first that was given.
    pub fn base_url(&self) -> &str {
        self.endpoints.first()
    }

    /// The account with this id, 32 hexadecimal digits. Sends nothing.
    pub fn account(&self, id: &str) -> Account {
        Account { client: self.clone(), id: id.to_owned() }
    }

    /// What the PoP says of itself: state, root, vector, peers.
    pub async fn status(&self) -> Result<Status, Error> {
        self.json(&Request::read("/v1/status")).await
    }

    /// How far every replica is behind every origin, as the PoP knows it.
    pub async fn lag(&self) -> Result<LagReport, Error> {
        self.json(&Request::read("/v1/lag")).await
    }

    /// Who belongs to the cluster, and did, as the PoP knows it.
    pub async fn members(&self) -> Result<MembersReport, Error> {
        self.json(&Request::read("/v1/members")).await
    }

    /// Has a member take no more writes, or take them again.
    pub async fn drain_member(&self, replica: &str, draining: bool) -> Result<MembersReport, Error> {
        let path = format!("/v1/members/{}/drain", segment(replica, "replica id")?);
        self.json(&Request::new(Method::POST, path).json(&Drain { draining })?).await
    }

    /// Takes a member out for ever. Without `force` only one that can go without loss.
    pub async fn remove_member(&self, replica: &str, force: bool) -> Result<MembersReport, Error> {
        let path = format!("/v1/members/{}/remove", segment(replica, "replica id")?);
        self.json(&Request::new(Method::POST, path).json(&Remove { force })?).await
    }

    /// What the PoP sends to its peers, within which budgets.
    pub async fn links(&self) -> Result<LinksReport, Error> {
        self.json(&Request::read("/v1/links")).await
    }

    /// Sets the budget that links share, in bytes a second on the wire; without one it is lifted. It holds until the PoP's
    /// node stops.
    pub async fn set_budget(&self, of: Links, bytes_per_s: Option<u64>) -> Result<LinksReport, Error> {
        self.json(&Request::new(Method::POST, "/v1/budgets").json(&SetBudget { of, bytes_per_s })?).await
    }

    /// Sets what may go at once after a pause, of every budget: what its rate gives in 5 to 1,000 milliseconds, and 16 KiB at
    /// least. It holds until the PoP's node stops.
    pub async fn set_burst(&self, burst_ms: u64) -> Result<LinksReport, Error> {
        self.json(&Request::new(Method::POST, "/v1/budgets/burst").json(&SetBurst { burst_ms })?).await
    }

    /// As [`Client::set_budget`], of the link to one PoP.
    pub async fn set_link_budget(&self, pop: &str, bytes_per_s: Option<u64>) -> Result<LinksReport, Error> {
        let path = format!("/v1/links/{}/budget", segment(pop, "PoP")?);
        self.json(&Request::new(Method::POST, path).json(&SetLinkBudget { bytes_per_s })?).await
    }

    /// Has nothing but heartbeats and acknowledgements sent to a PoP, or all again. It holds until the node stops.
    pub async fn pause_link(&self, pop: &str, paused: bool) -> Result<LinksReport, Error> {
        let path = format!("/v1/links/{}/pause", segment(pop, "PoP")?);
        self.json(&Request::new(Method::POST, path).json(&Pause { paused })?).await
    }

    /// What waits to be dropped, and for whom.
    pub async fn garbage(&self) -> Result<GarbageReport, Error> {
        self.json(&Request::read("/v1/gc")).await
    }

    /// Writes of earlier incarnations of the PoP that are not part of its state.
    pub async fn dead_letters(&self) -> Result<DeadLetters, Error> {
        self.json(&Request::read("/v1/dead-letters")).await
    }

    /// Writes a dead letter anew, or forgets it; gives those that are left.
    pub async fn settle_dead_letter(&self, dot: &str, write: bool) -> Result<DeadLetters, Error> {
        let path = format!("/v1/dead-letters/{}", segment(dot, "event")?);
        let request = Request::new(Method::POST, path).json(&Settle { write })?;
        self.json(&request.not_idempotent()).await
    }

    /// Which PoPs hold a write, by its receipt (`Littoral-Receipt`, or [`crate::api::kinds::Written`]), and how far each is
    /// behind the PoP that took it.
    pub async fn holders(&self, receipt: &str) -> Result<Holders, Error> {
        self.json(&Request::read("/v1/where").query("receipt", receipt)).await
    }

    /// Which PoPs hold all that a session has seen, by its token.
    pub async fn session_holders(&self, token: &str) -> Result<Holders, Error> {
        self.json(&Request::read("/v1/where").query("session", token)).await
    }

    /// Whether the PoP serves: one question, no retries.
    pub async fn is_ready(&self) -> bool {
        self.fetch_once(&Request::read("/readyz")).await.is_ok()
    }
}

/// The timeouts of a [`Client`], and whom it believes.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    connect_timeout: Duration,
    idle_timeout: Duration,
    authorities: Option<Vec<u8>>,
    further: Vec<String>,
    carries_session: bool,
}

impl ClientBuilder {
    /// How long a connection may take to open. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the answer, or its next bytes, may keep one waiting. Default: 60 s.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Believes in these authorities, too, beside those of the system: one or more certificates in PEM form. For
    /// `https://` only.
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// One more PoP of the same cluster. Where the one spoken to cannot be reached, stops answering or does not serve, calls
    /// about keys that may be made twice go on at the next one, with the session: so reads never go back in time. What
    /// operators ask goes to the PoP that is spoken to then, and nowhere else.
    pub fn endpoint(mut self, base_url: &str) -> Self {
        self.further.push(base_url.to_owned());
        self
    }

    /// Whether calls carry what the client has seen, so that a PoP which lacks some of it waits before it answers, or
    /// refuses. Default: true.
    pub fn sessions(mut self, carries_session: bool) -> Self {
        self.carries_session = carries_session;
        self
    }

    /// See [`Client::new`]. `base_url` is the PoP that is spoken to first.
    ///
    /// # Errors
    /// [`Error::Invalid`], also for authorities that are no certificates.
    pub fn build(self, base_url: &str, token: &str) -> Result<Client, Error> {
        let given: Vec<String> = [base_url.to_owned()].into_iter().chain(self.further).collect();
        let urls = given.iter().map(|url| endpoints::parse(url)).collect::<Result<Vec<_>, _>>()?;
        // The settings for TLS fit the others as well.
        let url = urls.iter().find(|url| url.scheme() == "https").unwrap_or(&urls[0]);
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::invalid("the token has characters that no HTTP header can carry"))?;
        bearer.set_sensitive(true);

        let authorities = self.authorities.as_deref().map_or(Ok(Vec::new()), tls::authorities)?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::settings(url, authorities)?)
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.idle_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("littoral/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
        if urls.iter().all(|url| url.host_str().is_some_and(is_loopback)) {
            // A proxy set in the environment cannot reach this machine's own loopback.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| Error::invalid(format!("no HTTP client: {error}")))?;
        let session = self.carries_session.then(Arc::default);
        let (told, waiting) = (Arc::default(), Waiting::default());
        Ok(Client { transport: Arc::new(http), endpoints: Endpoints::new(&given), session, told, waiting })
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
