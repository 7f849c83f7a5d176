//! What was sent in each month, kept over restarts in a small file of the data folder.
//!
//! The rule this file upholds: no state of that file keeps a node from starting. One that cannot be read is set aside,
//! with a word to the operator, and counting begins at zero.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::peering::Peering;
use crate::storage::replace_file;
use crate::transport::Months;

/// The file, inside the data folder.
const NAME: &str = "sent.json";
/// Where a file that cannot be read is moved.
const ASIDE_NAME: &str = "sent.json.damaged";
/// The file has some kilobytes; a larger one is none of ours.
const MAX_BYTES: u64 = 64 << 10;
/// How often budgets are reviewed: a schedule begins, and a cap ends, at most this late.
const REVIEW_EVERY: Duration = Duration::from_secs(1);
/// After so many reviews the file is written, where anything was sent: what a kill may lose of the count.
const REVIEWS_A_FILE: u64 = 5;

/// The file, and what is in it.
pub(crate) struct SentFile {
    path: PathBuf,
    stored: Months,
    /// Whether it could not be written the last time.
    has_failed: bool,
}

impl SentFile {
    /// Reads the file of this data folder; an absent one is empty.
    pub(crate) fn open(data_folder: &Path) -> Self {
        let path = data_folder.join(NAME);
        let stored = match read(&path) {
            Ok(stored) => stored,
            Err(error) => {
                set_aside(&path, &data_folder.join(ASIDE_NAME), &error);
                Months::default()
            }
        };
        Self { path, stored, has_failed: false }
    }

    /// What it says.
    pub(crate) fn months(&self) -> &Months {
        &self.stored
    }

    /// Reviews the budgets and keeps the file up to date, until it is told to stop; then a last time.
    pub(crate) async fn keep(mut self, peering: Arc<Peering>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REVIEW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for review in 1_u64.. {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let Some(months) = peering.review_budgets(unix_s()) else { return };
            if is_last || review.is_multiple_of(REVIEWS_A_FILE) {
                tokio::task::block_in_place(|| self.store(months));
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes the file, where it says something else. One that cannot be written is told of once, and tried again.
    fn store(&mut self, months: Months) {
        if months == self.stored {
            return;
        }
        let bytes = serde_json::to_vec(&months).map_err(io::Error::from);
        match bytes.and_then(|bytes| replace_file(&self.path, &bytes)) {
            Ok(()) => (self.stored, self.has_failed) = (months, false),
            Err(error) if !std::mem::replace(&mut self.has_failed, true) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "what was sent this month cannot be written; a restart would forget it");
            }
            Err(_) => {}
        }
    }
}

/// The wall clock; 0 before 1970.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read(path: &Path) -> io::Result<Months> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")))
        }
        Ok(_) => Ok(serde_json::from_slice(&std::fs::read(path)?)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Months::default()),
        Err(error) => Err(error),
    }
}

fn set_aside(path: &Path, aside: &Path, error: &io::Error) {
    let moved = std::fs::rename(path, aside).map_or_else(
        |error| format!("it cannot be moved either: {error}"),
        |()| format!("it is now {}", aside.display()),
    );
    let path = path.display();
    tracing::warn!(%path, %error, %moved, "what was sent this month cannot be read: monthly caps count from zero");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = r#"{"months":{"2026-11":{"node":7,"region":1,"inter_region":2,"metered":4}}}"#;

    #[test]
    fn what_is_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = SentFile::open(folder.path());
        assert_eq!(file.months(), &Months::default());
        let months: Months = serde_json::from_str(SENT).unwrap();
        file.store(months.clone());
        assert_eq!(std::fs::read_to_string(folder.path().join(NAME)).unwrap(), SENT);
        let again = SentFile::open(folder.path());
        assert_eq!(again.months(), &months);
        assert_eq!(again.months().sent("2026-11").metered, 4);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft stays behind");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_counting_begins_at_zero() {
        let large = " ".repeat(MAX_BYTES as usize + 1);
        let wrong_kind = SENT.replace('7', "-7");
        for text in ["", "{", &SENT[..30], "[]", &wrong_kind, &large] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(NAME), text).unwrap();
            let mut file = SentFile::open(folder.path());
            assert_eq!(file.months(), &Months::default());
            assert_eq!(std::fs::read_to_string(folder.path().join(ASIDE_NAME)).unwrap(), text);
            file.store(serde_json::from_str(SENT).unwrap());
            assert_eq!(SentFile::open(folder.path()).months().sent("2026-11").node, 7);
        }
        // Not even one that cannot be moved is in the way.
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(NAME)).unwrap();
        std::fs::write(folder.path().join(ASIDE_NAME), "").unwrap();
        assert_eq!(SentFile::open(folder.path()).months(), &Months::default());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut file = SentFile::open(&data);
        let months: Months = serde_json::from_str(SENT).unwrap();
        file.store(months.clone());
        assert!(file.has_failed);
        std::fs::create_dir(&data).unwrap();
        file.store(months.clone());
        assert!(!file.has_failed);
        assert_eq!(SentFile::open(&data).months(), &months);
    }
}
