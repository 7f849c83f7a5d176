//! Power cuts: an ext4 file system on a disk whose write cache is lost, so that what a program has not
//! truly flushed is gone. The chain is disk in memory -> FUSE file -> loop device -> ext4; a cut is an image
//! of the disk taken while the workload runs, and mounted elsewhere afterwards.
//!
//! It needs root, FUSE, loop devices and mkfs.ext4; [`missing`] says what is not there.

pub mod disk;
pub mod fuse_file;
pub mod log;
pub mod store;

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

use self::disk::{Cut, Disk};
use self::fuse_file::FuseFile;
use crate::mounts::{self, Mount};
use crate::random::Random;

/// The smallest disk mkfs.ext4 gives a journal.
const PROBE_DISK_BYTES: usize = 16 << 20;

/// Why power cuts cannot be emulated on this machine; `None` where they can. It tries the whole chain on a
/// small disk, so that nothing is skipped, or fails, for another reason than the one given.
pub fn missing() -> Option<String> {
    let probe = std::thread::spawn(|| -> anyhow::Result<()> {
        mounts::enter_private_mounts()?;
        PoweredDisk::new(PROBE_DISK_BYTES).map(drop)
    });
    match probe.join() {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("the probe panicked".into()),
    }
}

/// A mounted ext4 file system that can lose power.
pub struct PoweredDisk {
    // In the order in which they must go: the mount, the disk under it, the folder.
    mount: Mount,
    file: FuseFile,
    _folder: TempDir,
}

impl PoweredDisk {
    /// An empty file system on a disk of this size. The thread must have called
    /// [`mounts::enter_private_mounts`].
    pub fn new(bytes: usize) -> anyhow::Result<Self> {
        Self::start(Disk::new(bytes), mounts::make_ext4)
    }

    /// The file system that a cut left, on a disk that can lose power again.
    pub fn revived(image: &CutImage) -> anyhow::Result<Self> {
        Self::start(Disk::of_image(std::fs::read(&image.image)?), |_| Ok(()))
    }

    fn start(disk: Disk, prepare: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("littoral-power-").tempdir()?;
        let file = FuseFile::mount(disk, &subfolder(folder.path(), "fuse")?)?;
        prepare(&file.path())?;
        let mount = Mount::ext4(&file.path(), &subfolder(folder.path(), "live")?)?;
        Ok(Self { mount, file, _folder: folder })
    }

    /// The root of the file system, for the workload only: a program that serves FUSE must not itself
    /// write to what stands on it.
    pub fn folder(&self) -> &Path {
        self.mount.folder()
    }

    /// Takes the image a power cut now could leave; the workload goes on.
    pub fn cut(&self, seed: u64) -> anyhow::Result<CutImage> {
        let folder = tempfile::Builder::new().prefix("littoral-cut-").tempdir()?;
        let image = folder.path().join("image");
        let cut = self.file.cut(&mut Random::new(seed), &image).context("writing the image of a cut")?;
        Ok(CutImage { image, folder, cut })
    }
}

/// What a power cut left.
#[derive(Debug)]
pub struct CutImage {
    image: PathBuf,
    folder: TempDir,
    /// What became of the unflushed sectors.
    pub cut: Cut,
}

impl CutImage {
    /// Mounts the image, as the machine does when it is switched on again; ext4 replays its journal. The
    /// image is used up by this.
    pub fn mount(self) -> anyhow::Result<RevivedDisk> {
        let mount = Mount::ext4(&self.image, &subfolder(self.folder.path(), "after")?)?;
        // The loop device holds it open; its blocks go back when the mount does.
        std::fs::remove_file(&self.image)?;
        Ok(RevivedDisk { mount, _folder: self.folder })
    }
}

/// The file system after the power is back.
#[derive(Debug)]
pub struct RevivedDisk {
    mount: Mount,
    _folder: TempDir,
}

impl RevivedDisk {
    /// The root of the file system.
    pub fn folder(&self) -> &Path {
        self.mount.folder()
    }
}

fn subfolder(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}
