//! The small file from which an import or export goes on where an earlier one stood.
//!
//! The rule: it never claims more than is done. It is replaced as a whole, so that no crash leaves half.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The largest resume file that is read.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// How far an import has come: all lines before this point are acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Imported {
    /// The namespace's id.
    pub(super) namespace: String,
    /// Lines.
    pub(super) lines: u64,
    /// The bytes of those lines.
    pub(super) bytes: u64,
    /// BLAKE3 of those bytes: another file is not taken for the one begun.
    pub(super) hash: String,
}

/// How far an export has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exported {
    /// The namespace's id.
    pub(super) namespace: String,
    /// What was asked for.
    pub(super) prefix: String,
    /// Where the listing goes on.
    pub(super) cursor: Option<String>,
    /// Keys written.
    pub(super) keys: u64,
    /// Bytes of the output that hold them.
    pub(super) bytes: u64,
    /// Whether that was all.
    pub(super) is_done: bool,
}

/// Reads a resume file; `None` if there is none yet.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match File::open(path) {
        Ok(file) => io::read_to_string(io::Read::take(file, MAX_FILE_BYTES)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::new(format!("{} is not a resume file: {error}", path.display())).hint(start_anew(path))
    })
}

/// Replaces a resume file.
pub(super) fn save(path: &Path, state: &impl Serialize) -> Result<(), Failure> {
    let replace = || -> io::Result<()> {
        let mut temporary = PathBuf::from(path).into_os_string();
        temporary.push(".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    replace().map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// What to do about a resume file that cannot be used.
pub(super) fn start_anew(path: &Path) -> String {
    format!("to start from the beginning, remove {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_file_survives_its_text_and_foreign_ones_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        assert!(matches!(load::<Imported>(&path), Ok(None)));
        let state = Imported { namespace: "ns".into(), lines: 7, bytes: 99, hash: "aa".into() };
        save(&path, &state).expect("saved");
        assert_eq!(load(&path).expect("loaded"), Some(state));
        fs::write(&path, "{").expect("written");
        assert!(load::<Imported>(&path).is_err());
    }
}
