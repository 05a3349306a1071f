//! A drive or a shard file, to be read and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{Contents, TAIL_BYTES, contents};
use crate::io::Device;
use crate::store::inspect::LABEL_BYTES;
use crate::store::{Geometry, IoError};

/// Who else may have it open meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Anyone: what is read may change.
    Anyone,
    /// Other readers.
    Readers,
    /// Nobody.
    Nobody,
}

#[derive(Debug)]
pub struct ReadOnly {
    file: File,
    capacity_bytes: u64,
}

/// What a killed server had in flight holds its drives a little longer.
const PAUSE: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 20;

impl ReadOnly {
    pub fn open(path: &Path, sharing: Sharing) -> io::Result<ReadOnly> {
        let block_device = std::fs::metadata(path)?.file_type().is_block_device();
        let mut attempt = 1;
        loop {
            match ReadOnly::try_open(path, sharing, block_device) {
                Err(error) if is_in_use(&error) && sharing == Sharing::Nobody && attempt < ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn try_open(path: &Path, sharing: Sharing, block_device: bool) -> io::Result<ReadOnly> {
        let exclusive = block_device && sharing == Sharing::Nobody && cfg!(target_os = "linux");
        let flags = if exclusive { libc::O_EXCL } else { 0 };
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        match sharing {
            Sharing::Anyone => {}
            Sharing::Readers => flock(&file, FlockOperation::NonBlockingLockShared)?,
            Sharing::Nobody => flock(&file, FlockOperation::NonBlockingLockExclusive)?,
        }
        let capacity_bytes = file.seek(SeekFrom::End(0))?;
        // What the page cache holds is not what the drive holds.
        #[cfg(target_os = "linux")]
        if sharing != Sharing::Anyone {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(ReadOnly { file, capacity_bytes })
    }

    /// What its first and last bytes say.
    pub fn contents(&self) -> Result<Contents, IoError> {
        let part = |length: usize| vec![0; self.capacity_bytes.min(length as u64) as usize];
        let (mut head, mut tail) = (part(LABEL_BYTES), part(TAIL_BYTES));
        self.read(0, &mut head)?;
        self.read(self.capacity_bytes - tail.len() as u64, &mut tail)?;
        Ok(contents(&head, &tail, self.capacity_bytes))
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }
}

/// Whether opening failed because of someone else who has it open.
pub fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock)
}

impl Device for ReadOnly {
    fn geometry(&self) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: true, discard: false })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        match self.file.read_exact_at(into, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(IoError::OutOfRange),
            result => Ok(result?),
        }
    }

    fn write(&self, _offset: u64, _slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        Err(IoError::PermissionDenied)
    }

    fn flush(&self) -> Result<(), IoError> {
        Err(IoError::PermissionDenied)
    }

    fn discard(&self, _ranges: &[(u64, u64)]) -> Result<(), IoError> {
        Err(IoError::PermissionDenied)
    }
}
