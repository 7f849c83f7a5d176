//! One verification of the whole node: the rows, which the engine walks, then the chunk files of large values.
//!
//! The rule: one at a time, at a bounded pace, and whatever it finds is logged and counted, whether or not somebody
//! still asks for it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use littoral::api::verify::{ChunkCheck, Verification, VerifyProgress, VerifyStage};
use metrics::{counter, describe_counter};
use replication::ChunkId;
use replication::replica::verify::Verified;

use crate::chunks::{ChunkState, ChunkStore};
use crate::engine::{Engine, ReadError};

/// Counts verifications that found something wrong.
const FAILURES: &str = "littoral_verify_failures_total";
/// How often the engine is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The most bytes of chunk files read in a second.
const MAX_CHUNK_BYTES_PER_S: u64 = 128 << 20;
/// A chunk that is missing may be on its way: it is looked for again after this.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The most chunks that are named in the findings; the others are counted.
const MAX_NAMED: u64 = 10;

/// Runs verifications, and remembers the last.
pub(crate) struct Verifier {
    engine: Engine,
    chunks: Arc<ChunkStore>,
    state: Mutex<Progress>,
}

/// How far the running verification is, and what the last one found.
#[derive(Clone, Default)]
pub(crate) struct Progress {
    pub(crate) running: Option<VerifyProgress>,
    pub(crate) last: Option<Verification>,
}

/// Why no verification was begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBegun {
    #[error("a verification is running already; GET /v1/verify tells how far it is")]
    Running,
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Verifier {
    /// Registers with the recorder of the process, which must be in place by now.
    pub(crate) fn new(engine: Engine, chunks: Arc<ChunkStore>) -> Self {
        describe_counter!(FAILURES, "Verifications that found rows or chunks damaged or lost");
        counter!(FAILURES).increment(0);
        Self { engine, chunks, state: Mutex::default() }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Begins one, which goes on by itself.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<(), NotBegun> {
        {
            let mut state = self.lock();
            if state.running.is_some() {
                return Err(NotBegun::Running);
            }
            state.running = Some(VerifyProgress { began_ms: 0, stage: VerifyStage::Rows, done: 0, total: 0 });
        }
        let verifier = self.clone();
        // On a task of its own: a client that hangs up must not leave one begun that never ends.
        let begun = tokio::spawn(async move {
            let begun = verifier.engine.verify().await;
            let Ok(Some(began_ms)) = begun else {
                verifier.lock().running = None;
                return begun.map_err(NotBegun::Read).and(Err(NotBegun::Running));
            };
            verifier.show(VerifyProgress { began_ms, stage: VerifyStage::Rows, done: 0, total: 0 });
            tokio::spawn(async move {
                let found = tokio::spawn({
                    let verifier = verifier.clone();
                    async move { verifier.verify(began_ms).await }
                });
                // One that ends in a bug must not stand in the way of the next.
                let found = found.await.unwrap_or_else(|error| unfinished(began_ms, &error.to_string()));
                report(&found);
                *verifier.lock() = Progress { running: None, last: Some(found) };
            });
            Ok(())
        });
        begun.await.unwrap_or(Err(NotBegun::Running))
    }

    async fn verify(self: &Arc<Self>, began_ms: u64) -> Verification {
        let started = Instant::now();
        let mut found = self.await_rows(began_ms).await;
        // With a damaged row the store is in quarantine, and what its values name is not known.
        if self.engine.verifying().await.is_ok() {
            let verifier = self.clone();
            let checked = tokio::task::spawn_blocking(move || verifier.check_chunks(began_ms)).await;
            let mut checked = checked.unwrap_or_default();
            if !checked.missing.is_empty() {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                let verifier = self.clone();
                let looked = move || verifier.look_again(&checked.missing);
                checked.counts.missing = tokio::task::spawn_blocking(looked).await.unwrap_or_default();
            }
            found.chunks = checked.counts;
            found.damaged_chunks = checked.damaged;
        }
        found.took_ms = started.elapsed().as_millis() as u64;
        found
    }

    /// Waits until the engine has walked all rows.
    async fn await_rows(&self, began_ms: u64) -> Verification {
        let ended = loop {
            match self.engine.verifying().await {
                Ok(Some(rows)) => self.show(VerifyProgress {
                    began_ms,
                    stage: VerifyStage::Rows,
                    done: rows.done,
                    total: rows.total,
                }),
                Ok(None) => break "its store failed".to_owned(),
                Err(error) => break error.reason,
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        match self.engine.verified().filter(|verified| verified.began_ms == began_ms) {
            Some(verified) => of_rows(&verified),
            None => unfinished(began_ms, &ended),
        }
    }

    /// Reads every chunk that a value names. Blocking.
    fn check_chunks(&self, began_ms: u64) -> Checked {
        let named = self.engine.chunks_named(&|_| true);
        let mut checked = Checked::default();
        let (started, total) = (Instant::now(), named.len() as u64);
        for (done, (chunk, _)) in (0..).zip(&named) {
            self.show(VerifyProgress { began_ms, stage: VerifyStage::Chunks, done, total });
            checked.take(chunk, self.chunks.examine(chunk));
            let due = Duration::from_secs_f64(checked.counts.bytes as f64 / MAX_CHUNK_BYTES_PER_S as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        checked
    }

    /// How many of these are missing still, and named still. Blocking.
    fn look_again(&self, missing: &BTreeSet<ChunkId>) -> u64 {
        let lacking = |chunk: &ChunkId| missing.contains(chunk) && !self.chunks.contains(chunk);
        self.engine.chunks_named(&lacking).len() as u64
    }

    fn show(&self, progress: VerifyProgress) {
        self.lock().running = Some(progress);
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // A panic elsewhere leaves figures that are still figures.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of the chunks.
#[derive(Default)]
struct Checked {
    counts: ChunkCheck,
    /// They take a sixteen-thousandth of the room that their bytes would.
    missing: BTreeSet<ChunkId>,
    damaged: Vec<String>,
}

impl Checked {
    fn take(&mut self, chunk: &ChunkId, state: io::Result<ChunkState>) {
        let damage = match state {
            Ok(ChunkState::Good(bytes)) => {
                self.counts.good += 1;
                self.counts.bytes += bytes.len() as u64;
                return;
            }
            Ok(ChunkState::Missing) => {
                self.missing.insert(*chunk);
                return;
            }
            Ok(ChunkState::Damaged) => "its bytes are not those of its name".to_owned(),
            Err(error) => error.to_string(),
        };
        self.counts.damaged += 1;
        if self.counts.damaged <= MAX_NAMED {
            self.damaged.push(format!("{chunk}: {damage}"));
        }
    }
}

fn unfinished(began_ms: u64, reason: &str) -> Verification {
    let mismatches = vec![format!("the verification did not come to its end: {reason}")];
    Verification { began_ms, mismatches, ..Verification::default() }
}

fn of_rows(verified: &Verified) -> Verification {
    Verification {
        began_ms: verified.began_ms,
        took_ms: 0,
        entries: verified.entries,
        log_rows: verified.log_rows,
        bytes: verified.bytes,
        root: verified.root.to_string(),
        mismatches: verified.mismatches.iter().map(ToString::to_string).collect(),
        ..Verification::default()
    }
}

/// Tells those who run this node.
fn report(found: &Verification) {
    let (entries, took_ms, missing) = (found.entries, found.took_ms, found.chunks.missing);
    if !found.is_sound() {
        counter!(FAILURES).increment(1);
        for mismatch in &found.mismatches {
            tracing::error!(%mismatch, "the store is not what was written to it; rebuild this node");
        }
        if found.chunks.damaged > 0 {
            let (damaged, named) = (found.chunks.damaged, &found.damaged_chunks);
            tracing::error!(
                damaged,
                ?named,
                "chunk files are damaged; they are set aside, and come from a peer again"
            );
        }
    } else if missing > 0 {
        tracing::warn!(missing, "chunks that values name are not here; a read fetches them from a peer");
    } else {
        tracing::info!(entries, took_ms, "the store was verified, and fits");
    }
}
