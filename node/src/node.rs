//! One node, from its settings to its clean stop: opens the store, starts the engine, the links and the HTTP
//! surface, and stops them in the order that loses nothing.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use config::{Config, LogFormat};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use replication::DigestKey;
use replication::budget::{Burst, LinkClass, Rate};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::chunk_flight::ChunkFlights;
use crate::chunks::ChunkStore;
use crate::engine::{self, Engine};
use crate::http::{self, Access, AccountToken, Door, HttpContext, Listener, Surface, Tls, TlsFiles};
use crate::identity::Identity;
use crate::peering::Peering;
use crate::rebuild::{Rebuild, RebuildError, Rebuilt};
use crate::sent_file::{SentFile, unix_s};
use crate::transport::{self, Budgets, Months, PerLinks, Schedule, Transport};
use crate::{chunk_collect, chunk_pull, gauges};

/// News of chunks that may wait to be heard; a read pulls what it lacks itself, and what had no room is looked for.
const MAX_CHUNK_NEWS: usize = 65_536;

/// The folder of chunk files, inside the data folder.
const CHUNK_FOLDER: &str = "chunks";

/// The upper bounds of the histograms' buckets, in seconds.
const SECONDS_BUCKETS: [f64; 14] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 10.0];

/// How long a node that returns under a new identity waits until its old self has let go of the store.
const LET_GO_MS: u64 = 30_000;

/// How long tasks of a node that has ended may take to end too.
pub(crate) const LAST_TASKS: Duration = Duration::from_secs(10);

/// What the page of metrics has where they are not this node's own.
const FOREIGN_METRICS: &str =
    "# This node is a part of another program, and its figures go to that program's recorder.\n";

/// Why a node has ended.
enum Ended {
    /// It was told to stop.
    Told,
    /// It must start anew, under a new identity.
    Returning,
}

/// Runs a node until SIGTERM or SIGINT. With `rebuild`, has it return under a new identity first. One that was away for
/// too long does so by itself.
///
/// # Errors
/// Where it cannot start: what is in the way, and what to do.
pub fn run(config: Config, rebuild: bool) -> anyhow::Result<()> {
    start_log(&config)?;
    if rebuild {
        rebuild_first(&config, 0)?;
    }
    // Signals must be heard while there is no node, too.
    let signals = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (tell, told) = watch::channel(false);
    let told_to_stop = {
        let _inside = signals.enter();
        told_to_stop()?
    };
    signals.spawn(async move {
        told_to_stop.await;
        tell.send_replace(true);
    });
    let part = Part {
        metrics: Some(install_metrics()?),
        serves_http: true,
        program_token: None,
        last_tasks: Duration::ZERO,
    };
    keep(&config, &part, &told, |_| {})
}

/// What of a node there is, beside its store and its links.
pub(crate) struct Part {
    /// The recorder, where it is this node's to look after.
    pub(crate) metrics: Option<PrometheusHandle>,
    /// Whether it listens for HTTP.
    pub(crate) serves_http: bool,
    /// See [`HttpContext::program_token`].
    pub(crate) program_token: Option<String>,
    /// How long what is left of it, blocking reads that nobody waits for, may hold up the end, and the store.
    pub(crate) last_tasks: Duration,
}

/// A node that is up.
pub(crate) struct Up {
    pub(crate) surface: Arc<Surface>,
    /// Where it listens for HTTP, if it does.
    pub(crate) http: Option<SocketAddr>,
    /// Where it listens for other PoPs; nowhere in quarantine.
    pub(crate) quic: Option<SocketAddr>,
    /// On which all of it runs.
    pub(crate) runtime: Handle,
}

/// Runs a node until it is told to stop, on a runtime of its own, and anew after it had to return under a new identity.
/// `tell` is told when it is up, and when it is so no more.
pub(crate) fn keep(
    config: &Config,
    part: &Part,
    told: &watch::Receiver<bool>,
    tell: impl Fn(Option<Up>),
) -> anyhow::Result<()> {
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(serve(config, part, told.clone(), &tell));
        tell(None);
        match ended {
            Ok(Ended::Returning) if !*told.borrow() => {
                // What is left of the old self holds the store.
                runtime.shutdown_timeout(LAST_TASKS);
                rebuild_first(config, LET_GO_MS)?;
            }
            ended => {
                runtime.shutdown_timeout(part.last_tasks);
                return ended.map(drop);
            }
        }
    }
}

/// Rebuilds the store of a node that starts right after.
fn rebuild_first(config: &Config, patience_ms: u64) -> anyhow::Result<()> {
    match rebuild_store(config, patience_ms, false) {
        Err(error) if error.downcast_ref().is_some_and(RebuildError::is_nothing_to_do) => {
            tracing::warn!("{error:#}");
            Ok(())
        }
        rebuilt => rebuilt.map(drop),
    }
}

/// Has a node that does not run return under a new identity at its next start, or says what that would do.
///
/// # Errors
/// Where its store is in use, or files cannot be written. The store is then as it was.
pub(crate) fn rebuild_store(config: &Config, patience_ms: u64, is_dry: bool) -> anyhow::Result<Rebuilt> {
    anyhow::ensure!(
        !config.replication.peers.is_empty(),
        "a rebuilt node copies from its peers, and this one has none (replication.peers)"
    );
    let identity = Identity::load(&config.node.identity_dir)?;
    let rebuild = Rebuild {
        data_folder: &config.node.data_dir,
        cache_bytes: config.storage.cache_bytes,
        settings: replica_settings(config, &identity),
        patience: Duration::from_millis(patience_ms),
    };
    let rebuilt = rebuild.run(is_dry).context("the store cannot be rebuilt")?;
    if !is_dry {
        if let Some(fault) = &rebuilt.fault {
            tracing::error!(%fault, "the old store could not be read, or not to its end");
        }
        tracing::warn!(
            old = rebuilt.old.map(tracing::field::display),
            new = rebuilt.new.map(tracing::field::display),
            carried = rebuilt.carried,
            unreadable = rebuilt.unreadable,
            aside = %rebuilt.aside.display(),
            "this node returns under a new identity; its old store is set aside"
        );
    }
    Ok(rebuilt)
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log.level).context("log.level")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

async fn serve(
    config: &Config,
    part: &Part,
    told_to_stop: watch::Receiver<bool>,
    tell: impl Fn(Option<Up>),
) -> anyhow::Result<Ended> {
    let identity = Identity::load(&config.node.identity_dir)?;
    let data_folder = config.node.data_dir.clone();
    std::fs::create_dir_all(&data_folder)
        .with_context(|| format!("the data folder {} cannot be made", data_folder.display()))?;
    // Before the store: a port in use must not cost the time of opening it.
    let tls = tls(config)?;
    let (listeners, http) =
        if part.serves_http { listeners(config, &tls).await? } else { (Vec::new(), None) };
    let chunks = Arc::new(ChunkStore::open(&data_folder.join(CHUNK_FOLDER)).context("the chunk files")?);

    let (chunk_news, news) = mpsc::channel(MAX_CHUNK_NEWS);
    let settings = engine_settings(config, &identity);
    // Reads every row of the store: on a thread where that may take its time.
    let engine = tokio::task::spawn_blocking(move || Engine::start(settings, chunk_news)).await??;
    let sent_file = SentFile::open(&data_folder);
    let budgets = budgets(config, sent_file.months().clone());
    let transport = match start_transport(config, budgets, &identity, &engine, &chunks).await {
        Ok(transport) => transport,
        Err(error) => {
            // It holds the store.
            engine.shutdown().await;
            return Err(error);
        }
    };
    let quic = transport.as_ref().map(Transport::local_addr);
    let peering = Arc::new(Peering(transport));
    // Before anything is sent by a budget that a schedule or a used-up cap holds down.
    peering.review_budgets(unix_s());
    let stop_counting = CancellationToken::new();
    let counting = tokio::spawn(sent_file.keep(peering.clone(), stop_counting.clone()));
    let flights = ChunkFlights::new(chunks.clone(), peering.clone());
    let grace = Duration::from_secs(config.storage.chunk_grace_s);
    let mut tasks = vec![
        tokio::spawn(chunk_pull::run(news, chunks.clone(), flights.clone(), engine.clone())),
        tokio::spawn(chunk_collect::run(chunks.clone(), engine.clone(), grace)),
        tokio::spawn(gauges::run(engine.clone(), peering.clone(), chunks.clone(), part.metrics.clone())),
    ];
    if let (Some(tls), Some(settings)) = (&tls, &config.http.tls) {
        tasks.push(tokio::spawn(tls.clone().keep_fresh(Duration::from_secs(settings.reload_s))));
    }

    let context = HttpContext {
        engine: engine.clone(),
        chunks,
        documents: http::DocumentSettings {
            max_bytes: config.documents.max_bytes,
            max_ops: config.documents.max_ops,
            warm_bytes: config.documents.warm_bytes,
        },
        tokens: tokens(config),
        flights,
        links: peering.clone(),
        program_token: part.program_token.clone(),
        render_metrics: render(part.metrics.clone()),
    };
    let surface = Arc::new(Surface::new(context, limits(config)));
    if let Some(calls) = peering.take_calls() {
        tasks.push(tokio::spawn(http::answer_calls(surface.clone(), calls)));
    }
    tracing::info!(pop = %config.node.pop, http = http.map(tracing::field::display), tls = tls.is_some(), bindings = config.http.bindings.len(), "littoral is up");
    tell(Some(Up { surface: surface.clone(), http, quic, runtime: Handle::current() }));
    let served = http::serve(listeners, surface, end(told_to_stop.clone(), engine.clone())).await;
    let is_told = *told_to_stop.borrow();

    // No more requests; then no more frames; then what is left becomes durable.
    tell(None);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(transport) = &peering.0 {
        transport.shutdown().await;
    }
    stop_counting.cancel();
    // It fails only by a panic, which has been reported.
    let _ = counting.await;
    engine.shutdown().await;
    served?;
    if is_told {
        tracing::info!("stopped; everything acknowledged is on disk");
        return Ok(Ended::Told);
    }
    Ok(Ended::Returning)
}

/// All that listens for HTTP, and where the first does.
async fn listeners(
    config: &Config,
    tls: &Option<Arc<Tls>>,
) -> anyhow::Result<(Vec<Listener>, Option<SocketAddr>)> {
    let listener = listen(config.http.listen, "http.listen").await?;
    let http = listener.local_addr()?;
    let mut listeners = vec![secured(Listener::tcp(listener, Door::Node), tls)];
    for (index, binding) in config.http.bindings.iter().enumerate() {
        listeners.push(secured(listen_for(binding, index).await?, tls));
    }
    Ok((listeners, Some(http)))
}

fn limits(config: &Config) -> http::Limits {
    http::Limits {
        max_connections: config.http.max_connections as usize,
        header_timeout_ms: config.http.header_timeout_ms,
        opening_timeout_ms: config.http.opening_timeout_ms,
        stalled_timeout_ms: config.http.stalled_timeout_ms,
        session_wait_ms: config.http.session_wait_ms,
        drain_ms: config.http.drain_s * 1000,
    }
}

/// What the page of metrics has.
fn render(metrics: Option<PrometheusHandle>) -> Arc<dyn Fn() -> String + Send + Sync> {
    match metrics {
        Some(metrics) => Arc::new(move || metrics.render()),
        None => Arc::new(|| FOREIGN_METRICS.to_owned()),
    }
}

/// Completes when the node is told to stop, or must return under a new identity.
async fn end(mut told_to_stop: watch::Receiver<bool>, engine: Engine) {
    tokio::select! {
        _ = told_to_stop.wait_for(|told| *told) => {}
        () = engine.must_return() => {}
    }
}

/// The recorder is one for the process.
fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = METRICS.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .context("the buckets of the histograms")?;
    let handle = builder.install_recorder().context("the metrics")?;
    Ok(METRICS.get_or_init(|| handle).clone())
}

async fn listen(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "TCP {address} is in use by another process; stop it, or set {key} to another port"
        ),
        _ => anyhow::anyhow!("cannot listen on TCP {address}: {error}; see {key}"),
    })
}

/// The certificate of the TCP ports, if they are to have one.
fn tls(config: &Config) -> anyhow::Result<Option<Arc<Tls>>> {
    let Some(tls) = &config.http.tls else { return Ok(None) };
    let files = TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone() };
    Ok(Some(Arc::new(Tls::load(files)?)))
}

fn secured(listener: Listener, tls: &Option<Arc<Tls>>) -> Listener {
    match tls {
        Some(tls) => listener.secured(tls.clone()),
        None => listener,
    }
}

/// The listener of one namespace.
async fn listen_for(binding: &config::Binding, index: usize) -> anyhow::Result<Listener> {
    let access = match binding.access {
        config::BindingAccess::Token => Access::Token,
        config::BindingAccess::Socket => Access::Socket,
    };
    let id = binding.namespace.as_ref().parse().expect("as many hexadecimal digits as an id has");
    let door = Door::Namespace { id, access };
    let key = format!("http.bindings[{index}].listen");
    match &binding.listen {
        config::BindingListen::Tcp(address) => Ok(Listener::tcp(listen(*address, &key).await?, door)),
        config::BindingListen::Unix(path) => Listener::unix(path, door)
            .with_context(|| format!("cannot listen on the unix socket {}; see {key}", path.display())),
    }
}

fn engine_settings(config: &Config, identity: &Identity) -> engine::Settings {
    engine::Settings {
        pop: config.node.pop.to_string(),
        region: config.node.region.clone(),
        peers: config.replication.peers.iter().map(|peer| peer.pop.to_string()).collect(),
        data_folder: config.node.data_dir.clone(),
        cache_bytes: config.storage.cache_bytes,
        min_free_bytes: config.storage.min_free_bytes,
        replica: replica_settings(config, identity),
    }
}

fn replica_settings(config: &Config, identity: &Identity) -> replication::Settings {
    replication::Settings {
        heartbeat_every_us: config.replication.heartbeat_ms * 1000,
        gather_us: config.replication.gather_ms * 1000,
        epoch_every_ms: config.replication.epoch_ms,
        max_away_ms: config.replication.max_away_s * 1000,
        max_waiting_bytes: config.replication.max_waiting_bytes,
        conflicts: replication::replica::conflicts::Bounds {
            kept_ms: config.conflicts.kept_days * 24 * 3_600_000,
            max_rows: config.conflicts.max_rows,
            max_bytes: config.conflicts.max_bytes,
        },
        boot: random_u64(),
        ..replication::Settings::new(identity.cluster.0, DigestKey::new(identity.digest_secret))
    }
}

/// Tells this run of the process from others under the same identity.
fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers the store could not have been opened either; then the start fails there.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// No links in quarantine: a damaged store gossips nothing.
async fn start_transport(
    config: &Config,
    budgets: Budgets,
    identity: &Identity,
    engine: &Engine,
    chunks: &Arc<ChunkStore>,
) -> anyhow::Result<Option<Transport>> {
    let Some(replica) = engine.replica() else { return Ok(None) };
    let settings = transport::Settings {
        listen: config.replication.listen,
        pop: config.node.pop.to_string(),
        region: config.node.region.clone(),
        replica,
        peers: config
            .replication
            .peers
            .iter()
            .map(|peer| (peer.pop.to_string(), peer.address.clone()))
            .collect(),
        budgets,
        packs: config.replication.compression == config::Compression::Zstd,
    };
    Ok(Some(transport::start(settings, identity, engine.clone(), chunks.clone()).await?))
}

fn budgets(config: &Config, months: Months) -> Budgets {
    let peers = &config.replication.peers;
    let is_metered = |peer: &&config::Peer| peer.path == config::PeerPath::Metered;
    let config::Budgets { monthly, schedules, .. } = &config.budgets;
    let cap = |bytes| Some(bytes).filter(|bytes| bytes < config::MONTHLY_BYTES.end());
    Budgets {
        base: PerLinks {
            node: limit(config.budgets.node_bytes_per_s),
            region: limit(config.budgets.region_bytes_per_s),
            inter_region: limit(config.budgets.inter_region_bytes_per_s),
            metered: limit(config.budgets.metered_bytes_per_s),
        },
        pops: peers
            .iter()
            .filter_map(|peer| Some((peer.pop.to_string(), limit(peer.bytes_per_s)?)))
            .collect(),
        metered: peers.iter().filter(is_metered).map(|peer| peer.pop.to_string()).collect(),
        schedules: schedules.iter().map(schedule).collect(),
        caps: PerLinks {
            node: cap(monthly.node_bytes),
            region: cap(monthly.region_bytes),
            inter_region: cap(monthly.inter_region_bytes),
            metered: cap(monthly.metered_bytes),
        },
        beyond_cap: limit(config.budgets.beyond_cap_bytes_per_s),
        burst: Burst::new(config.budgets.burst_ms).unwrap_or_default(),
        months,
    }
}

fn schedule(schedule: &config::Schedule) -> Schedule {
    Schedule {
        links: match schedule.links {
            config::BudgetLinks::Node => None,
            config::BudgetLinks::Region => Some(LinkClass::Region),
            config::BudgetLinks::InterRegion => Some(LinkClass::InterRegion),
            config::BudgetLinks::Metered => Some(LinkClass::Metered),
        },
        days: config::Day::ALL.map(|day| schedule.days.contains(&day)),
        from_minutes: schedule.from.minutes(),
        to_minutes: schedule.to.minutes(),
        rate: limit(schedule.bytes_per_s),
    }
}

/// The greatest rate is no limit.
fn limit(bytes_per_s: u64) -> Option<Rate> {
    Rate::new(bytes_per_s).filter(|_| bytes_per_s < *config::RATE.end())
}

fn tokens(config: &Config) -> Vec<AccountToken> {
    let token = |token: &config::Token| AccountToken {
        account: token.account.to_string(),
        token: token.token.reveal().to_owned(),
        cluster: token.cluster,
    };
    config.http.tokens.iter().map(token).collect()
}

/// Completes at the first SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}
