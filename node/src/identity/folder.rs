//! Writes a folder of secrets that is there whole or not at all.
//!
//! The files are written and synced in a folder beside the one wanted, which then takes its place by one
//! rename. A rename onto a folder that is not empty fails, so nothing is ever overwritten; what a crash
//! leaves behind has a name of its own and is cleared by the next attempt.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::IdentityError;

/// One file to write.
pub(super) struct NewFile {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Whether only the owner may read it.
    pub(super) secret: bool,
}

/// Makes `folder` with these files; durable when it returns. `folder` must be absent or empty.
pub(super) fn write(folder: &Path, files: &[NewFile]) -> Result<(), IdentityError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| IdentityError::Io { doing: "write", path, source }
    };
    check_vacant(folder)?;
    let folder = std::path::absolute(folder).map_err(failed(folder))?;
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(IdentityError::Occupied { folder });
    };
    std::fs::create_dir_all(parent).map_err(failed(parent))?;
    let draft = parent.join(format!(".{}.incomplete", name.to_string_lossy()));
    match std::fs::remove_dir_all(&draft) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(&draft)(source)),
        _ => DirBuilder::new().mode(0o700).create(&draft).map_err(failed(&draft))?,
    }
    for file in files {
        let path = draft.join(file.name);
        write_file(&path, file).map_err(failed(&path))?;
    }
    sync_folder(&draft).map_err(failed(&draft))?;
    std::fs::rename(&draft, &folder).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            IdentityError::Occupied { folder: folder.clone() }
        }
        _ => failed(&folder)(source),
    })?;
    sync_folder(parent).map_err(failed(parent))
}

/// Refuses a folder with anything in it, before any work is done.
pub(super) fn check_vacant(folder: &Path) -> Result<(), IdentityError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(IdentityError::Occupied { folder: folder.into() }),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(IdentityError::Io { doing: "write", path: folder.into(), source }),
    }
}

fn write_file(path: &Path, file: &NewFile) -> io::Result<()> {
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    target.write_all(&file.bytes)?;
    target.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
