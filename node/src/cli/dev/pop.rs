//! One PoP of a local cluster: a process of this same program.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use littoral::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Failure;

/// How long a PoP may take until it serves.
const READY_TIME: Duration = Duration::from_secs(60);
/// How often it is asked.
const READY_INTERVAL: Duration = Duration::from_millis(25);
/// How long one such question may take.
const READY_ANSWER_TIME: Duration = Duration::from_secs(1);
/// How long a PoP may take to stop before it is killed.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How much of a log is told when its PoP fails.
const LOG_LINES_TOLD: usize = 5;
/// How much of it is read for that.
const LOG_BYTES_READ: u64 = 16 << 10;

/// A PoP, running or not.
pub(super) struct Pop {
    pub(super) name: String,
    pub(super) client: Client,
    folder: PathBuf,
    config_file: PathBuf,
    child: Option<Child>,
}

impl Pop {
    pub(super) fn new(name: String, folder: PathBuf, config_file: PathBuf, client: Client) -> Self {
        Self { name, client, folder, config_file, child: None }
    }

    /// Where its log is.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("littoral.log")
    }

    /// The id of its process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Starts the process. It holds the read end of a pipe whose write end is ours alone, and stops when
    /// that is closed.
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--parent-pipe", "--config"]).arg(&self.config_file);
        // What is set for this command must not reach into every PoP's configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C reaches a terminal's whole process group; here only the parent shall act on it.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn();
        self.child =
            Some(child.map_err(|error| Failure::new(format!("cannot start {}: {error}", self.name)))?);
        Ok(())
    }

    /// Waits until it serves.
    pub(super) async fn wait_ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < READY_TIME {
            if !self.is_running() {
                return Err(self.failed("stopped by itself before it was ready"));
            }
            let asked = tokio::time::timeout(READY_ANSWER_TIME, self.client.is_ready()).await;
            if asked.unwrap_or(false) {
                return Ok(());
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
        Err(self.failed(&format!("was not ready after {} s", READY_TIME.as_secs())))
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the process with SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends the process with SIGTERM, or with SIGKILL if that takes too long.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // Fails only if it is gone already.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_TIME, child.wait()).await.is_ok() {
            return Ok(());
        }
        child.kill().await?;
        Err(Failure::new(format!(
            "{} did not stop within {} s and was killed",
            self.name,
            STOP_TIME.as_secs()
        )))
    }

    fn failed(&self, what: &str) -> Failure {
        let log = self.end_of_log().unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES_TOLD)..].join("\n  ");
        Failure::new(format!("{} {what}; the end of its log:\n  {end}", self.name))
    }

    /// A log that was kept may be of any size.
    fn end_of_log(&self) -> std::io::Result<String> {
        let mut log = File::open(self.log())?;
        let skipped = log.metadata()?.len().saturating_sub(LOG_BYTES_READ);
        log.seek(SeekFrom::Start(skipped))?;
        let mut end = Vec::new();
        log.take(LOG_BYTES_READ).read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    }
}

/// Whether the variable sets a node's configuration. The log's stay: they are asked for on purpose.
fn is_setting(variable: &str) -> bool {
    variable.starts_with("LITTORAL_") && !variable.starts_with("LITTORAL_LOG_")
}
