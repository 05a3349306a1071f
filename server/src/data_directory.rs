//! The directory a server owns: private to its user, used by one server at a time, with an identity of its own.
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

pub const SERVER_ID_SIZE_BYTES: usize = 16;
const LOCK_FILE: &str = "lock";
const SERVER_ID_FILE: &str = "server.id";

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
    #[error(
        "the server's identity in {path} is damaged: it must be 32 hexadecimal characters; restore it, or remove the file"
    )]
    Identity { path: PathBuf },
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
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

    /// Drawn on the first start and the same ever after.
    pub fn server_id(&self) -> Result<[u8; SERVER_ID_SIZE_BYTES], DataDirectoryError> {
        let path = self.path.join(SERVER_ID_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let mut id = [0; SERVER_ID_SIZE_BYTES];
                match hex::decode_to_slice(text.trim(), &mut id) {
                    Ok(()) => Ok(id),
                    Err(_) => Err(DataDirectoryError::Identity { path }),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.draw_server_id(&path),
            Err(source) => Err(DataDirectoryError::Unwritable { path, source }),
        }
    }

    fn draw_server_id(&self, path: &Path) -> Result<[u8; SERVER_ID_SIZE_BYTES], DataDirectoryError> {
        let id = random_server_id()?;
        let aside = path.with_extension("id-new");
        let text = format!("{}\n", hex::encode(id));
        fs::write(&aside, text)
            .and_then(|()| fs::File::open(&aside)?.sync_all())
            .and_then(|()| fs::rename(&aside, path))
            .map_err(|source| DataDirectoryError::Unwritable { path: path.to_owned(), source })?;
        Ok(id)
    }
}

/// An identity for a server that keeps nothing.
pub fn random_server_id() -> Result<[u8; SERVER_ID_SIZE_BYTES], DataDirectoryError> {
    let mut id = [0; SERVER_ID_SIZE_BYTES];
    getrandom::fill(&mut id).map_err(DataDirectoryError::Random)?;
    Ok(id)
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
    fn the_identity_outlives_restarts() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(parent.path()).unwrap().server_id().unwrap();
        let directory = DataDirectory::open(parent.path()).unwrap();
        assert_eq!(directory.server_id().unwrap(), first);
        fs::write(parent.path().join(SERVER_ID_FILE), "nonsense").unwrap();
        assert!(directory.server_id().unwrap_err().to_string().contains("damaged"));
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
