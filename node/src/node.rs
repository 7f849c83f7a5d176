//! One node, from its settings to its clean stop: opens the store, starts the engine, the links and the HTTP
//! surface, and stops them in the order that loses nothing.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use config::{Config, LogFormat};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use replication::DigestKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::chunks::ChunkStore;
use crate::engine::{self, Engine};
use crate::http::{self, AccountToken, HttpContext};
use crate::identity::Identity;
use crate::peering::Peering;
use crate::transport::{self, Transport};
use crate::{chunk_pull, gauges, storage};

/// Chunks that may wait to be pulled; a read pulls what it lacks itself.
const MAX_CHUNKS_WAITING: usize = 65_536;

/// The folder of chunk files, inside the data folder.
const CHUNK_FOLDER: &str = "chunks";

/// The upper bounds of the histograms' buckets, in seconds.
const SECONDS_BUCKETS: [f64; 14] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1.0, 10.0];

/// Runs a node until SIGTERM or SIGINT. With `rebuild`, sets its store aside first, and copies it anew from
/// the peers under a new identity.
///
/// # Errors
/// Where it cannot start: what is in the way, and what to do.
pub fn run(config: Config, rebuild: bool) -> anyhow::Result<()> {
    start_log(&config)?;
    if rebuild {
        anyhow::ensure!(
            !config.replication.peers.is_empty(),
            "--rebuild copies from peers, and there are none"
        );
        let aside = storage::set_aside(&config.node.data_dir).context("the store cannot be set aside")?;
        tracing::warn!(aside = %aside.display(), "the old store is set aside; a new one is copied from the peers");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(config));
    // Blocking reads that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    result
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

async fn serve(config: Config) -> anyhow::Result<()> {
    let metrics = install_metrics()?;
    let identity = Identity::load(&config.node.identity_dir)?;
    let data_folder = config.node.data_dir.clone();
    std::fs::create_dir_all(&data_folder)
        .with_context(|| format!("the data folder {} cannot be made", data_folder.display()))?;
    // Before the store: a port in use must not cost the time of opening it.
    let listener = listen(config.http.listen).await?;
    let chunks = Arc::new(ChunkStore::open(&data_folder.join(CHUNK_FOLDER)).context("the chunk files")?);

    let (chunks_wanted, wanted) = mpsc::channel(MAX_CHUNKS_WAITING);
    let settings = engine_settings(&config, &identity);
    // Reads every row of the store: on a thread where that may take its time.
    let engine = tokio::task::spawn_blocking(move || Engine::start(settings, chunks_wanted)).await??;
    let transport = start_transport(&config, &identity, &engine, &chunks).await?;
    let peering = Arc::new(Peering(transport));
    let pulling = tokio::spawn(chunk_pull::run(wanted, chunks.clone(), peering.clone(), engine.clone()));
    let measuring = tokio::spawn(gauges::run(engine.clone(), peering.clone(), metrics.clone()));

    let context = HttpContext {
        engine: engine.clone(),
        chunks,
        tokens: tokens(&config),
        fetch: peering.clone(),
        render_metrics: Arc::new(move || metrics.render()),
    };
    let limits = http::Limits {
        max_connections: config.http.max_connections as usize,
        header_timeout_ms: config.http.header_timeout_ms,
    };
    tracing::info!(pop = %config.node.pop, http = %listener.local_addr()?, "littoral is up");
    let served = http::serve(listener, context, limits, told_to_stop()?).await;

    // No more requests; then no more frames; then what is left becomes durable.
    pulling.abort();
    measuring.abort();
    if let Some(transport) = &peering.0 {
        transport.shutdown().await;
    }
    engine.shutdown().await;
    tracing::info!("stopped; everything acknowledged is on disk");
    Ok(served?)
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

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "TCP {address} is in use by another process; stop it, or set http.listen to another port"
        ),
        _ => anyhow::anyhow!("cannot listen on TCP {address}: {error}; see http.listen"),
    })
}

fn engine_settings(config: &Config, identity: &Identity) -> engine::Settings {
    engine::Settings {
        pop: config.node.pop.to_string(),
        region: config.node.region.clone(),
        peers: config.replication.peers.iter().map(|peer| peer.pop.to_string()).collect(),
        data_folder: config.node.data_dir.clone(),
        cache_bytes: config.storage.cache_bytes,
        min_free_bytes: config.storage.min_free_bytes,
        replica: replication::Settings {
            heartbeat_every_us: config.replication.heartbeat_ms * 1000,
            boot: random_u64(),
            ..replication::Settings::new(identity.cluster.0, DigestKey::new(identity.digest_secret))
        },
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
    };
    Ok(Some(transport::start(settings, identity, engine.clone(), chunks.clone()).await?))
}

fn tokens(config: &Config) -> Vec<AccountToken> {
    let token = |token: &config::Token| AccountToken {
        account: token.account.to_string(),
        token: token.token.reveal().to_owned(),
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
