//! Network namespaces without a name: each lives as long as a file of this process or a process inside it, so that
//! nothing can be left behind, however a run ends. To look into one, `nsenter --net --target PID` of its node.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, bail};

use super::calls;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// Makes one; its loopback interface is up, and IPv6 is off, so that no packet is sent that nobody asked for.
    pub fn new() -> anyhow::Result<Self> {
        let made = std::thread::spawn(|| -> anyhow::Result<Self> {
            calls::unshare_network().context("unshare(CLONE_NEWNET)")?;
            // Where the kernel has no IPv6, there is nothing to turn off.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            ip("link set lo up")?;
            Ok(Self { handle: File::open("/proc/thread-self/ns/net")? })
        });
        made.join().expect("it does not panic")
    }

    /// Does something on a thread inside: sockets it opens and processes it starts are there, and stay.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                calls::enter_network(&self.handle).context("setns(CLONE_NEWNET)")?;
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A path under which other processes find it, while it is held here.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// Runs `ip` in this thread's namespace.
pub(super) fn ip(arguments: &str) -> anyhow::Result<()> {
    let output =
        Command::new("ip").args(arguments.split(' ').map(OsStr::new)).output().context("running ip")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
