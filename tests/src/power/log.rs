//! The controls: an append log that is flushed after each record must survive every cut, the same log
//! without the flush must not, and neither must one whose records went to the disk but were not flushed
//! there. If any is not so, the emulator shows nothing about anything else.
//!
//! The log is written by a process of its own, which says `ack N` on its standard output; the process that
//! serves the disk only reads that, and so knows what was acknowledged before a cut.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::PoweredDisk;
use crate::random::Random;

/// The disk of one run.
const DISK_BYTES: usize = 64 << 20;
/// Records are of 1 to this many bytes: within a sector, across some, across a block of ext4.
const MAX_RECORD_BYTES: u64 = 6000;
/// The pause after a record that is not flushed: a run must not fill the disk.
const UNFLUSHED_PAUSE: Duration = Duration::from_micros(500);
/// A cut comes this long after the start or the cut before, and up to twice that.
const CUT_AFTER: Duration = Duration::from_millis(400);
/// How long the writer may take until its first record is written, on a busy machine too.
const FIRST_ACK_WITHIN: Duration = Duration::from_secs(30);
/// The pause between two looks at something awaited.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// The name of the log on the disk.
const FILE_NAME: &str = "log";

/// The log of [`Flush::WriteBack`] is laid out in advance, so that a record is lost for no other reason
/// than the disk's cache.
const LAID_OUT_BYTES: usize = 24 << 20;

/// What is done after each record, before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// `fdatasync`: nothing may be lost.
    EachRecord,
    /// `sync_file_range`: the record is in the disk's volatile cache, which is what sled calls a flush.
    WriteBack,
    /// Nothing: the record is in the page cache.
    Never,
}

impl Flush {
    /// All of them, by the names the command line has for them.
    pub const NAMED: [(&str, Self); 3] =
        [("each-record", Self::EachRecord), ("write-back", Self::WriteBack), ("never", Self::Never)];

    /// Whether the cuts of one run left what this kind of flush promises: everything, or not everything.
    pub fn is_shown_by(self, outcomes: &[Outcome]) -> bool {
        let lost: u64 = outcomes.iter().map(Outcome::lost).sum();
        (lost == 0) == (self == Self::EachRecord)
    }
}

/// What one cut left of the log.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Records acknowledged before the cut.
    pub acked: u64,
    /// Records from the first on that are there, byte for byte.
    pub intact: u64,
    /// What became of the unflushed sectors.
    pub cut: super::disk::Cut,
}

impl Outcome {
    /// Acknowledged records that are gone.
    pub fn lost(&self) -> u64 {
        self.acked.saturating_sub(self.intact)
    }
}

/// Runs the log on a fresh disk and cuts the power `cuts` times. `writer` is the program whose
/// subcommand `write-log FOLDER FLUSH` calls [`write()`].
pub fn run(writer: &Path, flush: Flush, seed: u64, cuts: u64) -> anyhow::Result<Vec<Outcome>> {
    let mut random = Random::new(seed);
    let disk = PoweredDisk::new(DISK_BYTES)?;
    let log = Writer::start(writer, disk.folder(), flush)?;
    log.wait_for_an_ack()?;
    let mut images = Vec::new();
    for _ in 0..cuts {
        std::thread::sleep(CUT_AFTER + Duration::from_micros(random.below(CUT_AFTER.as_micros() as u64)));
        // First what was acknowledged, then the cut: everything counted was acknowledged before it.
        let acked = log.acked();
        images.push((acked, disk.cut(random.next_u64())?));
    }
    drop(log);
    let check = |(acked, image): (u64, super::CutImage)| {
        let cut = image.cut;
        let after = image.mount().context("mounting what a cut left")?;
        Ok(Outcome { acked, intact: intact_records(&after.folder().join(FILE_NAME))?, cut })
    };
    images.into_iter().map(check).collect()
}

/// The writer's side: appends records to a log in `folder` until it is killed.
pub fn write(folder: &Path, flush: Flush) -> anyhow::Result<()> {
    let mut log = OpenOptions::new().create_new(true).write(true).open(folder.join(FILE_NAME))?;
    if flush == Flush::WriteBack {
        log.write_all(&vec![0; LAID_OUT_BYTES])?;
        log.rewind()?;
    }
    // The file as it begins is safe in every run: only the records are in question.
    log.sync_all()?;
    File::open(folder)?.sync_all()?;
    let mut stdout = std::io::stdout().lock();
    for number in 1.. {
        log.write_all(&record(number))?;
        match flush {
            Flush::EachRecord => log.sync_data()?,
            Flush::WriteBack => write_back(&log)?,
            Flush::Never => {}
        }
        if flush != Flush::EachRecord {
            std::thread::sleep(UNFLUSHED_PAUSE);
        }
        writeln!(stdout, "ack {number}")?;
        stdout.flush()?;
    }
    Ok(())
}

/// Sends the file's pages to the disk and waits until it has them.
fn write_back(file: &File) -> std::io::Result<()> {
    let how =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: a call on a file descriptor that is open; no memory is involved.
    #[allow(unsafe_code, reason = "no safe wrapper of sync_file_range(2) among our dependencies")]
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, how) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn record(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let mut bytes = vec![0; 1 + random.below(MAX_RECORD_BYTES) as usize];
    random.fill(&mut bytes);
    bytes
}

fn intact_records(log: &PathBuf) -> anyhow::Result<u64> {
    let bytes = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let mut rest = bytes.as_slice();
    let mut intact = 0;
    while let Some(after) = rest.strip_prefix(record(intact + 1).as_slice()) {
        rest = after;
        intact += 1;
    }
    Ok(intact)
}

/// The writing process; killed on drop.
struct Writer {
    process: Child,
    acked: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(program: &Path, folder: &Path, flush: Flush) -> anyhow::Result<Self> {
        let (flush, _) = Flush::NAMED.into_iter().find(|named| named.1 == flush).expect("all are named");
        let mut command = Command::new(program);
        command.arg("write-log").arg(folder).arg(flush).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let stdout = process.stdout.take().expect("piped above");
        let acked = Arc::new(AtomicU64::new(0));
        let reader = std::thread::spawn({
            let acked = acked.clone();
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some(number) = line.strip_prefix("ack ").and_then(|number| number.parse().ok()) {
                        acked.store(number, Ordering::SeqCst);
                    }
                }
            }
        });
        Ok(Self { process, acked, reader: Some(reader) })
    }

    /// The log is laid out before its first record; what a cut leaves of that shows nothing.
    fn wait_for_an_ack(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + FIRST_ACK_WITHIN;
        while self.acked() == 0 {
            ensure!(Instant::now() < deadline, "the log's writer does not write");
            std::thread::sleep(POLL_PAUSE);
        }
        Ok(())
    }

    fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
