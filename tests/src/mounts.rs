//! Mounts and loop devices that cannot outlive the process: the thread that makes them has its own view of
//! the mounts, which the kernel takes down with the last process in it, and a loop device is released with
//! its mount. The guards here are for the orderly way out, panics included.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

/// How often, and how far apart, an unmount is tried while the kernel still holds on to the mount.
const UNMOUNT_TRIES: u32 = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(50);

/// The tmpfs of the probe.
const PROBE_BYTES: u64 = 1 << 20;

/// Why mounts cannot be made on this machine; `None` where they can.
pub fn missing() -> Option<String> {
    let probe = std::thread::spawn(|| -> anyhow::Result<()> {
        enter_private_mounts()?;
        let folder = tempfile::tempdir()?;
        Mount::tmpfs(PROBE_BYTES, folder.path()).map(drop)
    });
    match probe.join() {
        Ok(probed) => probed.err().map(|error| format!("{error:#}")),
        Err(_) => Some("the probe panicked".into()),
    }
}

/// Gives this thread, and whatever it starts from now on, mounts of its own.
pub fn enter_private_mounts() -> anyhow::Result<()> {
    // SAFETY: no memory is involved; only this thread's view of the file systems changes.
    #[allow(unsafe_code, reason = "no safe wrapper of unshare(2) among our dependencies")]
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("unshare(CLONE_NEWNS)");
    }
    run("mount", ["--make-rprivate", "/"]).map(drop)
}

/// A mounted folder; unmounted on drop.
#[derive(Debug)]
pub struct Mount {
    folder: PathBuf,
}

impl Mount {
    /// Mounts the ext4 file system in the file `disk` over `folder`, through a loop device.
    pub fn ext4(disk: &Path, folder: &Path) -> anyhow::Result<Self> {
        let device = LoopDevice::attach(disk)?;
        run("mount", ["-t".as_ref(), "ext4".as_ref(), device.path.as_os_str(), folder.as_os_str()])?;
        // Dropping the device now only marks it: the kernel releases it with the mount.
        Ok(Self { folder: folder.to_owned() })
    }

    /// Mounts an empty file system in memory over `folder`.
    pub fn tmpfs(bytes: u64, folder: &Path) -> anyhow::Result<Self> {
        let size = format!("size={bytes}");
        run(
            "mount",
            [
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                size.as_ref(),
                "tmpfs".as_ref(),
                folder.as_os_str(),
            ],
        )?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Gives a tmpfs another size.
    pub fn resize_tmpfs(&self, bytes: u64) -> anyhow::Result<()> {
        let options = format!("remount,size={bytes}");
        run("mount", ["-o".as_ref(), options.as_ref(), self.folder.as_os_str()]).map(drop)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Makes an empty ext4 file system in the file `disk`.
pub fn make_ext4(disk: &Path) -> anyhow::Result<()> {
    // Without the lazy options nothing is initialised in the background, so that a cut meets the
    // workload's own writes.
    let options = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"].map(OsStr::new);
    let device = LoopDevice::attach(disk)?;
    run("mkfs.ext4", options.into_iter().chain([device.path.as_os_str()])).map(drop)
}

/// Unmounts a folder, waiting while it is busy; at last it is taken out of sight and left to the kernel.
pub(crate) fn unmount(folder: &Path) {
    for _ in 0..UNMOUNT_TRIES {
        match run("umount", [folder]) {
            Ok(_) => return,
            Err(error) if format!("{error:#}").contains("busy") => std::thread::sleep(UNMOUNT_PAUSE),
            Err(error) => {
                eprintln!("cannot unmount {}: {error:#}", folder.display());
                break;
            }
        }
    }
    let _ = run("umount", ["--lazy".as_ref(), folder.as_os_str()]);
}

/// Runs a program of the system and gives what it printed.
fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A loop device; detached on drop, or, while a mount uses it, together with that mount.
struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    fn attach(file: &Path) -> anyhow::Result<Self> {
        let shown = run("losetup", ["--find".as_ref(), "--show".as_ref(), file.as_os_str()])?;
        Ok(Self { path: PathBuf::from(shown.trim()) })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", ["--detach".as_ref(), self.path.as_os_str()]) {
            eprintln!("cannot detach {}: {error:#}", self.path.display());
        }
    }
}
