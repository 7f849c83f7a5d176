//! Servers as processes of their own: their life, and the processor time they took.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A program to measure instead of building one. (Not `LITTORAL_...`: those are settings of a node.)
const OVERRIDE: &str = "BENCH_LITTORAL_BINARY";
/// Linux counts processes' time in hundredths of a second, whatever the kernel's own tick is.
const TICK_US: f64 = 10_000.0;
/// How long a server may take to stop when asked to.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// The pause between two looks at a process that is to end.
const POLL_PAUSE: Duration = Duration::from_millis(5);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child })
    }

    /// The pipe from its standard output, once.
    pub(crate) fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Processor time it has taken, in microseconds.
    pub(crate) fn cpu_us(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in brackets, may hold spaces. After it: state, then ten fields, then user and system time.
        let (_, fields) = stat.rsplit_once(") ").context("a stat without a name")?;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<f64>);
        let (user, system) =
            (ticks.next().context("no user time")??, ticks.next().context("no system time")??);
        Ok((user + system) * TICK_US)
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("it has ended by itself: {status}"),
            None => Ok(()),
        }
    }

    /// Stops it with SIGTERM and waits until it has ended.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process")?;
        kill_process(pid, Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(asked.elapsed() < STOP_WITHIN, "it has not stopped within {STOP_WITHIN:?}");
            std::thread::sleep(POLL_PAUSE);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program `littoral`, built in release mode if it is not up to date.
pub(crate) fn littoral() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return Ok(path.into());
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--package", "littoral-node", "--bin", "littoral"]);
    cargo.args(["--message-format", "json", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    // Where this program was built, the node's dependencies are built already.
    if let Some(target) = std::env::current_exe()?.parent().and_then(Path::parent) {
        cargo.arg("--target-dir").arg(target);
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("running cargo")?;
    ensure!(output.status.success(), "littoral cannot be built");
    let messages = String::from_utf8(output.stdout)?;
    let executable =
        |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["executable"].as_str()?.into());
    messages.lines().filter_map(executable).next_back().context("cargo named no executable")
}

/// Where a program is that the machine should have.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| Path::is_file(file))
}
