//! Devices that are files: the shards of a directory, through the page cache; with io_uring where there is one, else with positional
//! reads and writes.
//!
//! A directory holds `shard-NN.memkv`, as many as it was made with; they are sparse until written. When any shard holds
//! anything, none is made anew: one that is missing stays missing, so that a lost shard is noticed and not replaced by an empty one.
//! Each shard is locked (flock) while it is open, so that no two servers use one directory.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use super::Device;
use crate::store::{DEVICES_MAX, Geometry, IoError};

/// One file.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    capacity_bytes: u64,
}

/// A shard that should be there and cannot be opened: every call answers why.
#[derive(Debug)]
pub struct Absent(pub IoError);

/// Why a directory cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is in use by another server")]
    InUse { path: PathBuf },
    #[error("{shards} shards are not between 1 and {DEVICES_MAX}")]
    ShardCount { shards: u16 },
}

/// Shards of a directory, and whether they hold no store yet and must be formatted.
pub struct Directory {
    pub devices: Vec<Arc<dyn Device>>,
    pub created: bool,
}

impl FileDevice {
    /// Opens a file that is there.
    pub fn open(path: &Path) -> Result<Self, std::io::Error> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Self::with(file, path)
    }

    /// Makes a sparse file of this size; it must not be there.
    pub fn create(path: &Path, capacity_bytes: u64) -> Result<Self, std::io::Error> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(capacity_bytes)?;
        Self::with(file, path)
    }

    fn with(file: File, path: &Path) -> Result<Self, std::io::Error> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let capacity_bytes = file.metadata()?.len();
        Ok(Self { file, path: path.to_owned(), capacity_bytes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let end = offset.checked_add(length).ok_or(IoError::OutOfRange)?;
        if end > self.capacity_bytes { Err(IoError::OutOfRange) } else { Ok(()) }
    }
}

/// The most slices one system call takes.
const SLICES_MAX: usize = 1024;

impl Device for FileDevice {
    fn geometry(&self) -> Result<Geometry, IoError> {
        let discard = cfg!(target_os = "linux");
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: true, discard })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, into.len() as u64)?;
        read_exact(&self.file, offset, into)
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.check(offset, slices.iter().map(|slice| slice.len() as u64).sum())?;
        let mut at = offset;
        let mut rest: Vec<&[u8]> =
            slices.iter().map(|slice| &**slice).filter(|slice| !slice.is_empty()).collect();
        while !rest.is_empty() {
            let batch: Vec<_> = rest.iter().take(SLICES_MAX).map(|slice| IoSlice::new(slice)).collect();
            let mut done = match rustix::io::pwritev(&self.file, &batch, at) {
                Ok(0) => return Err(IoError::Short { done: at - offset, asked: at - offset + 1 }),
                Ok(done) => done,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(super::io_error(errno.raw_os_error())),
            };
            at += done as u64;
            let whole = rest.iter().take_while(|slice| consume(&mut done, slice.len())).count();
            rest.drain(..whole);
            if let Some(first) = rest.first_mut() {
                *first = &first[done..];
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        // On macOS the standard library asks for F_FULLFSYNC.
        self.file.sync_data().map_err(Into::into)
    }

    #[cfg(target_os = "linux")]
    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        use rustix::fs::{FallocateFlags, fallocate};
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for (offset, length) in ranges {
            self.check(*offset, *length)?;
            match fallocate(&self.file, punch, *offset, *length) {
                // A file system without holes keeps the bytes: nothing is lost.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(super::io_error(errno.raw_os_error())),
            }
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn discard(&self, _ranges: &[(u64, u64)]) -> Result<(), IoError> {
        Ok(())
    }
}

/// Fills the buffer from a file.
pub(super) fn read_exact(file: &File, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
    match file.read_exact_at(into, offset) {
        Ok(()) => Ok(()),
        // The file was cut short under us.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(IoError::Short { done: 0, asked: into.len() as u64 })
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes a whole slice off the bytes done, if they cover it.
fn consume(done: &mut usize, length: usize) -> bool {
    let whole = *done >= length;
    if whole {
        *done -= length;
    }
    whole
}

impl Device for Absent {
    fn geometry(&self) -> Result<Geometry, IoError> {
        Err(self.0)
    }

    fn read(&self, _offset: u64, _into: &mut [u8]) -> Result<(), IoError> {
        Err(self.0)
    }

    fn write(&self, _offset: u64, _slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        Err(self.0)
    }

    fn flush(&self) -> Result<(), IoError> {
        Err(self.0)
    }

    fn discard(&self, _ranges: &[(u64, u64)]) -> Result<(), IoError> {
        Err(self.0)
    }
}

/// The file of one of a directory's shards.
pub fn shard_path(directory: &Path, shard: u16) -> PathBuf {
    directory.join(format!("shard-{shard:02}.memkv"))
}

/// The shards that a directory's store has, from the first to the last that is there.
pub fn shard_paths(directory: &Path) -> Vec<PathBuf> {
    let last = (0..DEVICES_MAX).rev().find(|shard| shard_path(directory, *shard).exists());
    let count = last.map_or(0, |last| last + 1);
    (0..count).map(|shard| shard_path(directory, shard)).collect()
}

/// A shard that is there, and whether io_uring was to be had for it. On other systems than Linux, and built with
/// `portable-io`, it is not asked for.
#[cfg(target_os = "linux")]
fn open_shard(path: &Path) -> std::io::Result<(Arc<dyn Device>, bool)> {
    if !cfg!(feature = "portable-io")
        && let Ok(device) = super::UringDevice::open(path, super::Mode::Cached)
    {
        return Ok((Arc::new(device), true));
    }
    // Containers often forbid io_uring. If it is the file that cannot be opened, this says so.
    Ok((Arc::new(FileDevice::open(path)?), cfg!(feature = "portable-io")))
}

#[cfg(not(target_os = "linux"))]
fn open_shard(path: &Path) -> std::io::Result<(Arc<dyn Device>, bool)> {
    Ok((Arc::new(FileDevice::open(path)?), true))
}

/// Nothing was ever written where a superblock goes.
fn is_blank(shard: &dyn Device) -> bool {
    let Ok(geometry) = shard.geometry() else { return false };
    let mut start = vec![1; (geometry.capacity_bytes.min(128 << 10)) as usize];
    shard.read(0, &mut start).is_ok() && start.iter().all(|byte| *byte == 0)
}

/// Opens a directory's shards, or makes them when there is no store yet: `shards` files that share `capacity_bytes`.
///
/// A shard that cannot be opened becomes an [`Absent`] device; the store reports it and goes on with the others.
pub fn open_directory(
    directory: &Path,
    shards: u16,
    capacity_bytes: u64,
) -> Result<Directory, DirectoryError> {
    if shards == 0 || shards > DEVICES_MAX {
        return Err(DirectoryError::ShardCount { shards });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| match source.kind() {
            ErrorKind::WouldBlock => DirectoryError::InUse { path },
            _ => DirectoryError::Io { path, source },
        }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    let last = (0..DEVICES_MAX).rev().find(|shard| shard_path(directory, *shard).exists());
    let count = shards.max(last.map_or(0, |last| last + 1));
    let opened: Vec<_> = (0..count).map(|shard| open_shard(&shard_path(directory, shard))).collect();
    // None was ever formatted: there is none, or an earlier first start was cut off.
    let created = opened.iter().all(|shard| match shard {
        Ok((device, _)) => is_blank(&**device),
        Err(error) => error.kind() == ErrorKind::NotFound,
    });
    let mut devices: Vec<Arc<dyn Device>> = Vec::new();
    let mut plain = 0;
    for (shard, opened) in (0..count).zip(opened) {
        let path = shard_path(directory, shard);
        match opened {
            Ok((device, as_wanted)) => {
                plain += usize::from(!as_wanted);
                devices.push(device);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(DirectoryError::InUse { path });
            }
            Err(_) if created => {
                let capacity_bytes = capacity_bytes / u64::from(count);
                drop(FileDevice::create(&path, capacity_bytes).map_err(failed(&path))?);
                devices.push(open_shard(&path).map_err(failed(&path))?.0);
            }
            Err(error) => devices.push(Arc::new(Absent(error.into()))),
        }
    }
    if created {
        File::open(directory).and_then(|handle| handle.sync_all()).map_err(failed(directory))?;
    }
    if plain > 0 {
        tracing::info!(shards = plain, "io_uring is not to be had here: shard files go without it");
    }
    Ok(Directory { devices, created })
}
