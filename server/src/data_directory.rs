//! The directory a server owns: private to its user, used by one server at a time.
//!
//! The lock is the kernel's and ends with the process, however it ends. The directory must lie on a file
//! system that has such locks; network file systems that fake them are not detected.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;

const LOCK_FILE: &str = "lock";

#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Holds the lock until it is closed.
    _lock: fs::File,
}

#[derive(Debug, Error)]
pub enum DataDirectoryError {
    #[error("cannot make the data directory {path}: {source}; choose another with --data DIR")]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "cannot write to the data directory {path}: {source}; run as its owner, or choose another with --data DIR"
    )]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "the data directory {path} is in use by another server{}; stop it, or choose another with --data DIR",
        holder(*.pid)
    )]
    InUse { path: PathBuf, pid: Option<u32> },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl DataDirectory {
    /// Makes the directory where it is missing and takes its lock.
    pub fn open(path: &Path) -> Result<DataDirectory, DataDirectoryError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| DataDirectoryError::Create { path: path.to_owned(), source })?;
        let lock = take_lock(path)?;
        Ok(DataDirectory { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn take_lock(directory: &Path) -> Result<fs::File, DataDirectoryError> {
    let path = directory.join(LOCK_FILE);
    let unwritable = |source| DataDirectoryError::Unwritable { path: directory.to_owned(), source };
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unwritable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Only for people who look for the holder.
            fs::write(&path, format!("{}\n", std::process::id())).map_err(unwritable)?;
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            Err(DataDirectoryError::InUse { path: directory.to_owned(), pid })
        }
        Err(errno) => Err(unwritable(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_directory_is_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/data");
        let directory = DataDirectory::open(&path).unwrap();
        assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_server_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(parent.path()).unwrap();
        let error = DataDirectory::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()) && error.contains("--data"), "{error}");
        drop(first);
        DataDirectory::open(parent.path()).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_used_says_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDirectory::open(&file.join("data")).unwrap_err().to_string();
        assert!(error.contains("--data DIR"), "{error}");
    }
}
