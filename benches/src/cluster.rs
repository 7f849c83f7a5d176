//! Littoral as an operator runs it: PoPs as processes, made by the command line, on ports that were free.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use config::{
    Budgets, Config, Conflicts, Documents, Http, Log, Node, Peer, PopName, Replication, Storage, Token,
};
use littoral::api::{Position, Status};
use littoral::{Client, Namespace};

use crate::load::{Connection, Protocol};
use crate::process::{self, Server};
use crate::text;

/// The account of every cluster here.
pub(crate) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
/// Its token.
pub(crate) const TOKEN: &str = "bench-token";
/// How long something awaited may take.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// The pause between two looks at something awaited.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// The cache of each store: all that is written here fits.
const CACHE_BYTES: u64 = 256 << 20;
/// Where free ports are looked for: below those that Linux gives to outgoing connections.
const FREE_PORTS: std::ops::Range<u16> = 12_000..30_000;

/// PoPs, numbered from 0; all linked with each other.
pub(crate) struct Cluster {
    binary: PathBuf,
    pops: Vec<Pop>,
}

struct Pop {
    folder: PathBuf,
    address: SocketAddr,
    client: Client,
    server: Option<Server>,
}

/// What the links of a PoP have carried since it started, in bytes of UDP payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Wire {
    /// Both directions.
    pub(crate) fn total(self) -> u64 {
        self.sent + self.received
    }
}

impl Cluster {
    /// Makes a cluster in this folder, starts it, and waits until all of it serves.
    pub(crate) async fn start(folder: &Path, pops: usize) -> anyhow::Result<Self> {
        let mut cluster = Self { binary: process::littoral()?, pops: Vec::new() };
        let authority = folder.join("cluster");
        cluster.cli(&["cluster".as_ref(), "init".as_ref(), authority.as_os_str()])?;
        let names: Vec<PopName> = (1..=pops).map(|n| format!("pop{n}").parse()).collect::<Result<_, _>>()?;
        let listens: Vec<_> =
            (0..pops).map(|_| Ok((unused_port()?, unused_port()?))).collect::<anyhow::Result<_>>()?;
        for (own, name) in names.iter().enumerate() {
            let folder = folder.join(name.as_ref());
            std::fs::create_dir(&folder)?;
            let token = ["cluster", "join-token"].map(AsRef::as_ref);
            let pop = ["--pop", name.as_ref()].map(AsRef::as_ref);
            let token = cluster.cli(&[&token[..], &[authority.as_os_str()], &pop].concat())?;
            let identity = folder.join("identity");
            let token = ["--token", token.as_str()].map(AsRef::as_ref);
            cluster.cli(&[&["node".as_ref(), "init".as_ref(), identity.as_os_str()], &token[..]].concat())?;
            std::fs::write(folder.join("config.toml"), config(own, &names, &listens)?.to_toml())?;
            let address = local(listens[own].0);
            let client = Client::new(&format!("http://{address}"), TOKEN)?;
            cluster.pops.push(Pop { folder, address, client, server: None });
        }
        for pop in 0..pops {
            cluster.start_pop(pop)?;
        }
        for pop in 0..pops {
            cluster.wait_ready(pop).await?;
        }
        Ok(cluster)
    }

    pub(crate) fn start_pop(&mut self, pop: usize) -> anyhow::Result<()> {
        let Pop { folder, server, .. } = &mut self.pops[pop];
        let log = File::create(folder.join("log"))?;
        let mut command = command(&self.binary);
        // The pipe tells the node when this process is gone, however it went.
        command.args(["serve", "--parent-pipe", "--config"]).arg(folder.join("config.toml"));
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        *server = Some(Server::start(&mut command)?);
        Ok(())
    }

    /// Stops it as an operator does, with SIGTERM.
    pub(crate) fn stop_pop(&mut self, pop: usize) -> anyhow::Result<()> {
        self.pops[pop].server.take().context("it does not run")?.stop()
    }

    pub(crate) async fn wait_ready(&mut self, pop: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.pops[pop].client.is_ready().await {
            let Pop { folder, server, .. } = &mut self.pops[pop];
            let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            server.as_mut().context("it does not run")?.check().with_context(log)?;
            ensure!(started.elapsed() < MAX_WAIT, "not ready within {MAX_WAIT:?}: {}", log());
            tokio::time::sleep(POLL_PAUSE).await;
        }
        Ok(())
    }

    /// Waits until all PoPs hold the same: equal vectors, then equal roots.
    pub(crate) async fn wait_equal(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let mut statuses = Vec::new();
            for pop in 0..self.pops.len() {
                statuses.push(self.status(pop).await?);
            }
            let first = held(&statuses[0]);
            if statuses.iter().all(|status| held(status) == first) {
                let roots: Vec<&str> = statuses.iter().map(|status| status.root.as_str()).collect();
                ensure!(roots.iter().all(|root| *root == roots[0]), "equal vectors, and roots {roots:?}");
                return Ok(());
            }
            ensure!(started.elapsed() < MAX_WAIT, "the PoPs do not agree within {MAX_WAIT:?}");
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    pub(crate) async fn status(&self, pop: usize) -> anyhow::Result<Status> {
        Ok(self.pops[pop].client.status().await?)
    }

    pub(crate) fn server(&self, pop: usize) -> anyhow::Result<&Server> {
        self.pops[pop].server.as_ref().context("it does not run")
    }

    pub(crate) fn address(&self, pop: usize) -> SocketAddr {
        self.pops[pop].address
    }

    /// The namespace of this title, made where there is none.
    pub(crate) async fn namespace(&self, pop: usize, title: &str) -> anyhow::Result<Namespace> {
        Ok(self.pops[pop].client.account(ACCOUNT).namespace_titled(title).await?)
    }

    /// What its metrics say of its links. Brought up to date once a second.
    pub(crate) async fn wire(&self, pop: usize) -> anyhow::Result<Wire> {
        Ok(Wire {
            sent: self.metric(pop, "littoral_link_wire_sent_bytes").await?,
            received: self.metric(pop, "littoral_link_wire_received_bytes").await?,
        })
    }

    /// A counter of a PoP, summed over its labels.
    pub(crate) async fn metric(&self, pop: usize, name: &str) -> anyhow::Result<u64> {
        let mut connection = Connection::open(self.address(pop), Protocol::Http).await?;
        let page = connection.exchange(b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
        let page = std::str::from_utf8(page)?;
        let rows =
            page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
        let figure = |line: &str| line.rsplit_once(' ')?.1.parse::<u64>().ok();
        rows.map(|line| figure(line).context("a metric that is not a number")).sum()
    }

    /// How many links a PoP has had since it started.
    pub(crate) fn links(&self, pop: usize) -> anyhow::Result<usize> {
        let log = std::fs::read_to_string(self.pops[pop].folder.join("log"))?;
        Ok(log.lines().filter(|line| line.contains(" linked ")).count())
    }

    fn cli(&self, arguments: &[&std::ffi::OsStr]) -> anyhow::Result<String> {
        let output = command(&self.binary).args(arguments).output().context("running littoral")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "littoral {arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// A request that reads this key.
pub(crate) fn get(namespace: &str, key: &str) -> Bytes {
    format!("GET {} HTTP/1.1\r\n{HEADERS}\r\n", path(namespace, key)).into()
}

/// A request that writes this key, durably.
pub(crate) fn put(namespace: &str, key: &str, value: &str) -> Bytes {
    let (path, length) = (path(namespace, key), value.len());
    format!("PUT {path} HTTP/1.1\r\n{HEADERS}content-length: {length}\r\n\r\n{value}").into()
}

/// Requests of one kind for many keys.
pub(crate) fn requests(keys: u64, request: impl Fn(&str, &str) -> Bytes) -> Rc<[Bytes]> {
    (0..keys).map(|number| request(&text::key(number), &text::value(number))).collect()
}

const HEADERS: &str = "host: bench\r\nauthorization: Bearer bench-token\r\n";

fn path(namespace: &str, key: &str) -> String {
    format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces/{namespace}/values/{key}")
}

/// What a PoP holds, by origin, in one order.
fn held(status: &Status) -> Vec<(&str, u64, u64)> {
    let position = |at: &'_ Position| (at.wall_ms, at.ops);
    let mut held: Vec<_> = status
        .vector
        .iter()
        .map(|at| {
            let (wall_ms, ops) = position(at);
            (at.replica.as_str(), wall_ms, ops)
        })
        .collect();
    held.sort_unstable();
    held
}

fn config(own: usize, names: &[PopName], listens: &[(u16, u16)]) -> anyhow::Result<Config> {
    let peers = names.iter().zip(listens).enumerate().filter(|(other, _)| *other != own);
    let peer = |(_, (pop, (_, quic))): (_, (&PopName, &(u16, u16)))| {
        Peer::new(pop.clone(), local(*quic).to_string())
    };
    let (http, quic) = listens[own];
    Ok(Config {
        node: Node {
            pop: names[own].clone(),
            region: "local".into(),
            data_dir: "data".into(),
            identity_dir: "identity".into(),
        },
        http: Http {
            listen: local(http),
            tokens: vec![Token { account: ACCOUNT.parse()?, token: TOKEN.parse()?, cluster: true }],
            ..Http::default()
        },
        replication: Replication {
            listen: local(quic),
            peers: peers.map(peer).collect(),
            ..Replication::default()
        },
        budgets: Budgets::default(),
        documents: Documents::default(),
        conflicts: Conflicts::default(),
        storage: Storage { cache_bytes: CACHE_BYTES, ..Storage::default() },
        log: Log::default(),
    })
}

/// Settings of the person who measures are not the cluster's.
fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LITTORAL_")) {
        command.env_remove(name);
    }
    command
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port that nothing listens on, neither TCP nor UDP.
pub(crate) fn unused_port() -> anyhow::Result<u16> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Benchmarks that run at once start at different places.
    let first = (std::process::id() % 997) as u16 * 17;
    let span = FREE_PORTS.end - FREE_PORTS.start;
    for _ in 0..span {
        let port = FREE_PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        if TcpListener::bind(local(port)).is_ok() && UdpSocket::bind(local(port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free between {} and {}", FREE_PORTS.start, FREE_PORTS.end)
}
