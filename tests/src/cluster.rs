//! Clusters of real `littoral` processes in a temporary folder, made and run as an operator would: by the
//! command line, one configuration file for each PoP.
//!
//! Processes are killed and the folder is removed on drop; when the test panics, the end of each log is
//! printed and the folder stays. `TEST_LITTORAL_BINARY` names a program to use instead of building one.

mod binary;
mod load;
mod ports;
mod rest;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use self::binary::binary;
pub use self::load::{Load, Stopped, Verdict, verify};
pub use self::rest::{ACCOUNT, Answer, Rest, TOKEN};

use crate::wan::Namespace;

/// How long a node may take until it says it is ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop when asked to.
pub const STOP_WITHIN: Duration = Duration::from_secs(20);
/// The pause between two looks at something awaited.
const POLL_PAUSE: Duration = Duration::from_millis(10);
/// Lines of each log printed when a test fails.
const LOG_TAIL_LINES: usize = 60;

/// The settings of a cluster that suites choose; everything else is the default of the node.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many PoPs.
    pub pops: usize,
    /// `storage.cache_bytes`.
    pub cache_bytes: u64,
    /// `storage.min_free_bytes`.
    pub min_free_bytes: u64,
    /// `storage.chunk_grace_s`.
    pub chunk_grace_s: u64,
    /// `replication.epoch_ms`.
    pub epoch_ms: u64,
    /// `replication.max_away_s`.
    pub max_away_s: u64,
    /// Further sections of each PoP's configuration, as they stand in a file.
    pub more_settings: String,
    /// The store of PoP 0, when it is to be on a disk of its own.
    pub first_data_dir: Option<PathBuf>,
    /// Where the PoPs are, by number; one that has no place here is on loopback.
    pub sites: Vec<Site>,
}

/// Where a PoP is.
#[derive(Clone, Debug)]
pub struct Site {
    /// `node.region`.
    pub region: String,
    /// Where it listens for clients.
    pub http: Ipv4Addr,
    /// Where it listens for its peers.
    pub replication: Ipv4Addr,
    /// The network its process runs in; ours where it has none of its own.
    pub namespace: Option<Arc<Namespace>>,
}

impl Default for Site {
    fn default() -> Self {
        let loopback = Ipv4Addr::LOCALHOST;
        Self { region: "local".into(), http: loopback, replication: loopback, namespace: None }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pops: 1,
            cache_bytes: 32 << 20,
            min_free_bytes: 1 << 20,
            chunk_grace_s: 3_600,
            epoch_ms: 60_000,
            max_away_s: 604_800,
            more_settings: String::new(),
            first_data_dir: None,
            sites: Vec::new(),
        }
    }
}

/// The cluster. PoPs are numbered from 0 and named `pop-0`, `pop-1`, ...
pub struct Cluster {
    options: Options,
    pops: Vec<Pop>,
    folder: TempDir,
}

struct Pop {
    name: String,
    /// Its own folder, with its configuration, log and identity.
    folder: String,
    /// The folder of the PoP whose identity it has: its own, unless it is a clone.
    identity: String,
    http_port: u16,
    replication_port: u16,
    data_dir: PathBuf,
    site: Site,
    process: Option<Child>,
}

impl Pop {
    /// The PoP of this number, under the identity of its own name, or of the one it is a clone of.
    fn new(name: String, folder: String, data_dir: PathBuf, sites: &[Site], number: usize) -> Self {
        Self {
            identity: name.clone(),
            name,
            folder,
            http_port: ports::unused(),
            replication_port: ports::unused(),
            data_dir,
            site: sites.get(number).cloned().unwrap_or_default(),
            process: None,
        }
    }
}

impl Cluster {
    /// Makes the identities and configurations; nothing runs yet.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("littoral-cluster-").tempdir()?;
        let mut pops = Vec::new();
        for index in 0..options.pops {
            let name = format!("pop-{index}");
            let data_dir = match &options.first_data_dir {
                Some(data_dir) if index == 0 => data_dir.clone(),
                _ => folder.path().join(&name).join("data"),
            };
            pops.push(Pop::new(name.clone(), name, data_dir, &options.sites, index));
        }
        let cluster = Self { options, pops, folder };
        cluster.make_identities()?;
        for index in 0..cluster.pops.len() {
            cluster.write_config(index)?;
        }
        Ok(cluster)
    }

    /// Makes a cluster and starts every PoP of it; all are ready when it returns.
    pub async fn started(options: Options) -> anyhow::Result<Self> {
        let mut cluster = Self::new(options)?;
        for index in 0..cluster.pops.len() {
            cluster.start(index)?;
        }
        for index in 0..cluster.pops.len() {
            cluster.wait_ready(index).await?;
        }
        Ok(cluster)
    }

    /// Starts a PoP that does not run.
    pub fn start(&mut self, index: usize) -> anyhow::Result<()> {
        self.start_with(index, &[])
    }

    /// Starts a PoP that does not run, with further arguments for `serve`.
    pub fn start_with(&mut self, index: usize, arguments: &[&str]) -> anyhow::Result<()> {
        assert!(self.pops[index].process.is_none(), "{} runs already", self.pops[index].name);
        self.pops[index].process = Some(self.spawn(index, arguments)?);
        Ok(())
    }

    /// Starts a further process with the configuration of a PoP. The caller ends it.
    pub fn spawn(&self, index: usize, arguments: &[&str]) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path(index))?;
        let mut command = self.command()?;
        // The pipe tells the node when this process is gone, however it went.
        command.args(["serve", "--parent-pipe", "--config"]).arg(self.config_path(index));
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        match &self.pops[index].site.namespace {
            Some(namespace) => namespace.enter(|| command.spawn().context("starting littoral")),
            None => command.spawn().context("starting littoral"),
        }
    }

    /// Kills a PoP as `kill -9` does.
    pub fn kill9(&mut self, index: usize) -> anyhow::Result<()> {
        let mut process = self.pops[index].process.take().context("it does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Stops a PoP with SIGTERM and waits until it has ended.
    pub fn stop(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        let mut process = self.pops[index].process.take().context("it does not run")?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("no such process")?;
        kill_process(pid, Signal::TERM)?;
        let status = wait_exit(&mut process, STOP_WITHIN);
        if status.is_err() {
            process.kill()?;
            process.wait()?;
        }
        status
    }

    /// Lays out one more PoP, from a join token for its name; the others are its peers. Gives its number.
    pub fn add(&mut self, token: &str) -> anyhow::Result<usize> {
        let index = self.pops.len();
        let name = format!("pop-{index}");
        let folder = self.folder.path().join(&name);
        std::fs::create_dir(&folder)?;
        let identity = folder.join("identity");
        self.cli(&["node", "init", identity.to_str().context("not UTF-8")?, "--token", token])?;
        self.push(name.clone(), name, folder.join("data"))
    }

    /// Puts another machine in the place of a PoP that does not run: with an identity from this token, and no data.
    pub fn replace(&mut self, index: usize, token: &str) -> anyhow::Result<()> {
        let next = format!("{}-next", self.pops[index].folder);
        let folder = self.folder.path().join(&next);
        std::fs::create_dir(&folder)?;
        let identity = folder.join("identity");
        self.cli(&["node", "init", identity.to_str().context("not UTF-8")?, "--token", token])?;
        self.pops[index].identity = next;
        self.move_data(index, folder.join("data"))
    }

    /// Lays out a second node of a PoP, with its identity and this data folder. Gives its number.
    pub fn add_clone(&mut self, index: usize, data_dir: PathBuf) -> anyhow::Result<usize> {
        let original = self.pops[index].name.clone();
        std::fs::create_dir(self.folder.path().join(format!("{original}-clone")))?;
        self.push(original.clone(), format!("{original}-clone"), data_dir)
    }

    fn push(&mut self, name: String, folder: String, data_dir: PathBuf) -> anyhow::Result<usize> {
        self.pops.push(Pop::new(name, folder, data_dir, &self.options.sites, self.pops.len()));
        self.write_config(self.pops.len() - 1)?;
        Ok(self.pops.len() - 1)
    }

    /// Runs the command line with the address and token of a PoP, and gives its standard output; the error has its
    /// standard error.
    pub fn run(&self, index: usize, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command()?;
        command.env("LITTORAL_URL", self.url(index)).env("LITTORAL_TOKEN", TOKEN).args(args);
        output(command, args)
    }

    /// The folder of the cluster's authority.
    pub fn authority(&self) -> String {
        self.folder.path().join("cluster").to_string_lossy().into_owned()
    }

    /// Waits until a PoP says it is ready.
    pub async fn wait_ready(&mut self, index: usize) -> anyhow::Result<()> {
        let answer = self.wait_answer(index, "/readyz", |status| status == 200).await?;
        answer.with_context(|| format!("{} is not ready", self.pops[index].name)).map(drop)
    }

    /// Waits until a PoP answers `path` with a status that `wanted` takes; the inner error has the last
    /// answer that came, when the time is over.
    pub async fn wait_answer(
        &mut self,
        index: usize,
        path: &str,
        wanted: impl Fn(u16) -> bool,
    ) -> anyhow::Result<anyhow::Result<Answer>> {
        let rest = self.rest(index, "");
        let deadline = Instant::now() + READY_WITHIN;
        let mut last = String::from("nothing");
        while Instant::now() < deadline {
            match rest.page(path).await {
                Ok(answer) if wanted(answer.status) => return Ok(Ok(answer)),
                Ok(answer) => last = format!("{} {}", answer.status, answer.text()),
                Err(error) => last = format!("{error:?}"),
            }
            let process = self.pops[index].process.as_mut().context("it does not run")?;
            if let Some(status) = process.try_wait()? {
                bail!("{} ended ({status})\n{}", self.pops[index].name, self.log_tail(index));
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
        Ok(Err(anyhow::anyhow!("the last answer to {path} was: {last}")))
    }

    /// The base address of a PoP.
    pub fn url(&self, index: usize) -> String {
        format!("http://{}", self.http_address(index))
    }

    /// A client of a PoP and of the namespace with this id.
    pub fn rest(&self, index: usize, namespace: &str) -> Rest {
        Rest::new(&self.url(index), namespace)
    }

    /// Where a PoP listens for its peers (UDP).
    pub fn replication_address(&self, index: usize) -> SocketAddr {
        (self.pops[index].site.replication, self.pops[index].replication_port).into()
    }

    /// Where a PoP listens for clients (TCP).
    pub fn http_address(&self, index: usize) -> SocketAddr {
        (self.pops[index].site.http, self.pops[index].http_port).into()
    }

    /// Where the store of a PoP is.
    pub fn data_dir(&self, index: usize) -> &Path {
        &self.pops[index].data_dir
    }

    /// Gives a PoP that does not run another data folder.
    pub fn move_data(&mut self, index: usize, data_dir: PathBuf) -> anyhow::Result<()> {
        ensure!(self.pops[index].process.is_none(), "{} runs", self.pops[index].name);
        self.pops[index].data_dir = data_dir;
        self.write_config(index)
    }

    /// Gives a PoP new ports; for one that is to run beside, or instead of, the one it was.
    pub fn move_ports(&mut self, index: usize) -> anyhow::Result<()> {
        self.pops[index].http_port = ports::unused();
        self.pops[index].replication_port = ports::unused();
        self.write_config(index)
    }

    /// All a PoP has logged.
    pub fn log(&self, index: usize) -> String {
        std::fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }

    /// The end of what a PoP has logged.
    pub fn log_tail(&self, index: usize) -> String {
        let log = self.log(index);
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "log of {}:\n{}",
            self.pops[index].name,
            lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
        )
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(binary()?);
        // Settings of the person who runs the tests are not the cluster's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LITTORAL_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }

    fn cli(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command()?;
        command.args(args);
        output(command, args)
    }

    fn make_identities(&self) -> anyhow::Result<()> {
        let cluster = self.folder.path().join("cluster");
        let cluster = cluster.to_str().context("a temporary folder that is not UTF-8")?;
        self.cli(&["cluster", "init", cluster])?;
        for pop in &self.pops {
            let folder = self.folder.path().join(&pop.name);
            std::fs::create_dir(&folder)?;
            let token = self.cli(&["cluster", "join-token", cluster, "--pop", &pop.name])?;
            let identity = folder.join("identity");
            let identity = identity.to_str().context("a temporary folder that is not UTF-8")?;
            self.cli(&["node", "init", identity, "--token", &token])?;
        }
        Ok(())
    }

    fn write_config(&self, index: usize) -> anyhow::Result<()> {
        let Self { options, pops, folder } = self;
        let pop = &pops[index];
        let identity_dir = folder.path().join(&pop.identity).join("identity");
        let mut text = format!(
            "[node]\npop = {:?}\nregion = {:?}\ndata_dir = {:?}\nidentity_dir = {identity_dir:?}\n\
             [http]\nlisten = \"{}\"\n[[http.tokens]]\naccount = {ACCOUNT:?}\ntoken = {TOKEN:?}\n\
             [storage]\ncache_bytes = {}\nmin_free_bytes = {}\nchunk_grace_s = {}\n\
             [log]\nlevel = \"info\"\n\
             [replication]\nlisten = \"{}\"\nepoch_ms = {}\nmax_away_s = {}\n",
            pop.name,
            pop.site.region,
            pop.data_dir,
            self.http_address(index),
            options.cache_bytes,
            options.min_free_bytes,
            options.chunk_grace_s,
            self.replication_address(index),
            options.epoch_ms,
            options.max_away_s,
        );
        for peer in pops.iter().filter(|peer| peer.name != pop.name) {
            let address = format!("{}:{}", peer.site.replication, peer.replication_port);
            write!(text, "[[replication.peers]]\npop = {:?}\naddress = {address:?}\n", peer.name)?;
        }
        text.push_str(&options.more_settings);
        std::fs::write(self.config_path(index), text).context("writing a configuration")
    }

    /// The configuration of a PoP.
    pub fn config_path(&self, index: usize) -> PathBuf {
        self.folder.path().join(&self.pops[index].folder).join("config.toml")
    }

    fn log_path(&self, index: usize) -> PathBuf {
        self.folder.path().join(&self.pops[index].folder).join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for pop in &mut self.pops {
            if let Some(mut process) = pop.process.take() {
                // It may have ended by itself; either way it is gone after this.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for index in 0..self.pops.len() {
                eprintln!("{}", self.log_tail(index));
            }
            self.folder.disable_cleanup(true);
            eprintln!("the cluster's folder is kept: {}", self.folder.path().display());
        }
    }
}

fn output(mut command: Command, args: &[&str]) -> anyhow::Result<String> {
    let output = command.output().context("running littoral")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "littoral {} {}: {errors}", args[0], args[1]);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Copies a folder with all in it.
pub fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Waits until a process ends.
pub fn wait_exit(process: &mut Child, within: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        if let Some(status) = process.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(POLL_PAUSE);
    }
    bail!("it has not ended within {within:?}")
}
