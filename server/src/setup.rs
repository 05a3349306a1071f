//! Making drives one store: what `memkv setup` does, apart from its words.
//!
//! Every drive is opened for itself alone (`O_EXCL` and a lock) and looked at before the first byte is written to any, and
//! stays so until the end. Then all are wiped, and only when every one is durably without a superblock are the new ones
//! written. Cut short at any moment it leaves drives that no server opens: some have no superblock, and one that
//! was never opened wants all its devices.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::StoreId;
use crate::io::{Device, Devices};
use crate::probe::{self, Contents, TAIL_BYTES, Use};
use crate::start::{StorageError, format_options, is_in_use, open_drive};
use crate::store::inspect::{LABEL_BYTES, Label, are_one_store, device_bytes_min};
use crate::store::{self, Config, DEVICES_MAX, IoError, OpenError};

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is on the drives is lost.
    pub force: bool,
    /// Drives that are one store already are left as they are.
    pub idempotent: bool,
}

/// A store that is there now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Made {
    pub id: StoreId,
    /// It was there before.
    pub already: bool,
}

#[derive(Debug, Error)]
pub enum SetupError {
    #[error("{count} drives; a store has 1 to {DEVICES_MAX}")]
    Count { count: usize },
    #[error("{} and {} are the same drive", first.display(), second.display())]
    Twice { first: PathBuf, second: PathBuf },
    #[error("cannot look at {}: {source}", drive.display())]
    Missing { drive: PathBuf, source: std::io::Error },
    #[error("{} is neither a block device nor a file", drive.display())]
    NotADrive { drive: PathBuf },
    #[error("{} is in use: {by}; it cannot be used, not even with --force", drive.display())]
    Used { drive: PathBuf, by: Use },
    #[error("{} is in use by another process (a server, or a tool); it cannot be used, not even with --force", drive.display())]
    InUse { drive: PathBuf },
    #[error("cannot open {} for direct I/O: {source}", drive.display())]
    Open { drive: PathBuf, source: std::io::Error },
    #[error("{} holds {what}; --force overwrites it", drive.display())]
    Holds { drive: PathBuf, what: &'static str },
    #[error("{} is drive {} of {} of the MemKV store {id}{}; --force overwrites it", drive.display(), index + 1, count, if *.unused { ", which was never started" } else { "" })]
    OfAStore { drive: PathBuf, id: StoreId, index: u16, count: u16, unused: bool },
    #[error(
        "the drives are the MemKV store {id} already: --idempotent prints its configuration, --force makes a new one of them"
    )]
    Already { id: StoreId },
    #[error("{} has {bytes} bytes, less than the least, {bytes_min}", drive.display())]
    TooSmall { drive: PathBuf, bytes: u64, bytes_min: u64 },
    #[error("{}: {source}", drive.display())]
    Io { drive: PathBuf, source: IoError },
    #[error("cannot make the store: {0}")]
    Format(#[from] OpenError),
    #[error(transparent)]
    Random(#[from] StorageError),
}

/// A drive, opened for this process alone.
struct Drive<'a> {
    path: &'a Path,
    device: Arc<dyn Device>,
    bytes: u64,
    contents: Contents,
}

pub fn run(drives: &[PathBuf], options: Options) -> Result<Made, SetupError> {
    if drives.is_empty() || drives.len() > usize::from(DEVICES_MAX) {
        return Err(SetupError::Count { count: drives.len() });
    }
    check_distinct(drives)?;
    let config = Config::default();
    let drives = drives.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let labels: Vec<Label> = drives.iter().filter_map(|drive| drive.label()).collect();
    let whole = labels.len() == drives.len() && are_one_store(&labels);
    if let (true, false, Some(label)) = (whole, options.force && !options.idempotent, labels.first()) {
        let id = StoreId(label.server_id);
        return if options.idempotent {
            Ok(Made { id, already: true })
        } else {
            Err(SetupError::Already { id })
        };
    }
    let bytes_min = device_bytes_min(config.extent_bytes);
    for drive in &drives {
        if !options.force {
            drive.check_free(options.idempotent, drives.len())?;
        }
        if drive.bytes < bytes_min {
            return Err(SetupError::TooSmall { drive: drive.path.to_owned(), bytes: drive.bytes, bytes_min });
        }
    }
    let random = format_options()?;
    for drive in &drives {
        drive.wipe().map_err(|source| SetupError::Io { drive: drive.path.to_owned(), source })?;
    }
    let mut devices = Devices::new(drives.iter().map(|drive| Arc::clone(&drive.device)).collect());
    store::format(&mut devices, &config, random).map_err(|error| name_the_drive(error, &drives))?;
    Ok(Made { id: StoreId(random.server_id), already: false })
}

fn name_the_drive(error: OpenError, drives: &[Drive<'_>]) -> SetupError {
    match error {
        OpenError::Io { slot, error: source } if usize::from(slot) < drives.len() => {
            SetupError::Io { drive: drives[usize::from(slot)].path.to_owned(), source }
        }
        error => SetupError::Format(error),
    }
}

/// Two paths may lead to one drive: links, or two nodes of one number.
fn check_distinct(drives: &[PathBuf]) -> Result<(), SetupError> {
    let mut seen: Vec<((bool, u64, u64), &PathBuf)> = Vec::with_capacity(drives.len());
    for drive in drives {
        let found = std::fs::metadata(drive)
            .map_err(|source| SetupError::Missing { drive: drive.clone(), source })?;
        let identity = match found.file_type() {
            kind if kind.is_block_device() => (true, found.rdev(), 0),
            kind if kind.is_file() => (false, found.dev(), found.ino()),
            _ => return Err(SetupError::NotADrive { drive: drive.clone() }),
        };
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == identity) {
            return Err(SetupError::Twice { first: (*first).clone(), second: drive.clone() });
        }
        seen.push((identity, drive));
    }
    Ok(())
}

fn open(path: &Path) -> Result<Drive<'_>, SetupError> {
    let drive = || path.to_owned();
    let found = std::fs::metadata(path).map_err(|source| SetupError::Missing { drive: drive(), source })?;
    if found.file_type().is_block_device() {
        let uses = probe::uses_of(path).map_err(|source| SetupError::Missing { drive: drive(), source })?;
        if let Some(by) = uses.into_iter().next() {
            return Err(SetupError::Used { drive: drive(), by });
        }
    }
    let device = open_drive(path).map_err(|source| match is_in_use(&source) {
        true => SetupError::InUse { drive: drive() },
        false => SetupError::Open { drive: drive(), source },
    })?;
    let failed = |source| SetupError::Io { drive: drive(), source };
    // Devices move whole sectors; what a drive has beyond the last one is never used.
    let bytes = device.geometry().map_err(failed)?.capacity_bytes & !(store::SECTOR_BYTES as u64 - 1);
    let part = |length: usize| bytes.min(length as u64);
    let mut head = vec![0; part(LABEL_BYTES) as usize];
    device.read(0, &mut head).map_err(failed)?;
    let mut tail = vec![0; part(TAIL_BYTES) as usize];
    device.read(bytes - tail.len() as u64, &mut tail).map_err(failed)?;
    let contents = probe::contents(&head, &tail, bytes);
    Ok(Drive { path, device: Arc::new(device), bytes, contents })
}

impl Drive<'_> {
    fn label(&self) -> Option<Label> {
        match self.contents {
            Contents::MemKv(label) => Some(label),
            Contents::Blank | Contents::Foreign { .. } | Contents::Unknown => None,
        }
    }

    /// Whether it may be overwritten without being asked to.
    fn check_free(&self, again: bool, count: usize) -> Result<(), SetupError> {
        let drive = || self.path.to_owned();
        match self.contents {
            Contents::Blank => Ok(()),
            // What an earlier attempt left behind; nothing was ever stored on it.
            Contents::MemKv(label) if again && label.is_unused() && usize::from(label.count) == count => {
                Ok(())
            }
            Contents::MemKv(label) => Err(SetupError::OfAStore {
                drive: drive(),
                id: StoreId(label.server_id),
                index: label.index,
                count: label.count,
                unused: label.is_unused(),
            }),
            Contents::Foreign { what } => Err(SetupError::Holds { drive: drive(), what }),
            Contents::Unknown => {
                Err(SetupError::Holds { drive: drive(), what: "something (its first MiB is not all zeros)" })
            }
        }
    }

    /// Zeros where superblocks, partition tables and their copies are.
    fn wipe(&self) -> Result<(), IoError> {
        // Only to tell the drive that all is free; not every drive can be told.
        let _ = self.device.discard(&[(0, self.bytes)]);
        let zeros = vec![0; LABEL_BYTES.min(self.bytes as usize)];
        self.device.write(0, &[std::io::IoSlice::new(&zeros)])?;
        let tail = &zeros[..TAIL_BYTES.min(zeros.len())];
        self.device.write(self.bytes - tail.len() as u64, &[std::io::IoSlice::new(tail)])?;
        self.device.flush()
    }
}
