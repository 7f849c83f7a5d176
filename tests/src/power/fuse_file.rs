//! Shows a [`Disk`] as one FUSE file, for a loop device to stand on: a flush of the block layer comes
//! here as FSYNC. The file bypasses the page cache, so that the disk sees every write as it is made.

use std::ffi::OsStr;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request,
};

use super::disk::{Cut, Disk, SECTOR_BYTES};
use crate::mounts;
use crate::random::Random;

/// What a flush takes on this disk, as on a plain SSD. Without it the time in which something is written
/// and not yet flushed would be too short for a cut to meet it.
pub const FLUSH_TIME: Duration = Duration::from_millis(2);

/// The name of the one file.
const FILE_NAME: &str = "disk";
const ROOT_INODE: u64 = 1;
const FILE_INODE: u64 = 2;
/// `FOPEN_DIRECT_IO` of the FUSE protocol.
const DIRECT_IO: u32 = 1;
/// How long the kernel may remember names and attributes; they never change.
const ATTRIBUTES_VALID: Duration = Duration::from_secs(3600);

/// The mounted file; unmounted on drop.
pub struct FuseFile {
    disk: Arc<Mutex<Disk>>,
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl FuseFile {
    /// Mounts a disk over `folder`, in this thread's view of the mounts.
    pub fn mount(disk: Disk, folder: &Path) -> anyhow::Result<Self> {
        let disk = Arc::new(Mutex::new(disk));
        let options = [MountOption::FSName("littoral-power".into())];
        let session = fuser::spawn_mount2(Files { disk: disk.clone() }, folder, &options)
            .with_context(|| format!("mounting FUSE at {}", folder.display()))?;
        Ok(Self { disk, folder: folder.to_owned(), session: Some(session) })
    }

    /// The file that is the disk.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }

    /// Writes to `image` what a power cut at this moment could leave; the running system goes on.
    pub fn cut(&self, random: &mut Random, image: &Path) -> anyhow::Result<Cut> {
        let file = File::create(image)?;
        let disk = lock(&self.disk);
        file.set_len(disk.bytes() as u64)?;
        Ok(disk.cut(random, &mut BufWriter::new(file))?)
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        mounts::unmount(&self.folder);
        if let Some(session) = self.session.take() {
            session.join();
        }
    }
}

/// The file system: a root folder that holds the disk.
struct Files {
    disk: Arc<Mutex<Disk>>,
}

impl Files {
    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            ROOT_INODE => (FileType::Directory, 0o700, 0),
            FILE_INODE => (FileType::RegularFile, 0o600, lock(&self.disk).bytes() as u64),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR_BYTES as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let found =
            (parent == ROOT_INODE && name == FILE_NAME).then(|| self.attributes(FILE_INODE)).flatten();
        match found {
            Some(attributes) => reply.entry(&ATTRIBUTES_VALID, &attributes, 0),
            None => reply.error(libc::ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, _: Option<u64>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&ATTRIBUTES_VALID, &attributes),
            None => reply.error(libc::ENOENT),
        }
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, DIRECT_IO);
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        match lock(&self.disk).read(offset as u64, size as usize) {
            Some(bytes) => reply.data(&bytes),
            None => reply.error(libc::EINVAL),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        match lock(&self.disk).write(offset as u64, data) {
            Some(()) => reply.written(data.len() as u32),
            None => reply.error(libc::EINVAL),
        }
    }

    fn fsync(&mut self, _: &Request<'_>, _: u64, _: u64, _: bool, reply: ReplyEmpty) {
        std::thread::sleep(FLUSH_TIME);
        lock(&self.disk).flush();
        reply.ok();
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        // This is FUSE's word for close(2); it makes nothing safe.
        reply.ok();
    }

    fn fallocate(
        &mut self,
        _: &Request<'_>,
        _: u64,
        _: u64,
        offset: i64,
        length: i64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // The block layer punches holes and zeroes ranges this way; both read back as zeros here.
        if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) == 0 {
            return reply.error(libc::EOPNOTSUPP);
        }
        match lock(&self.disk).write(offset as u64, &vec![0; length as usize]) {
            Some(()) => reply.ok(),
            None => reply.error(libc::EINVAL),
        }
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}
