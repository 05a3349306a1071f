//! Block devices (and files) through io_uring, past the page cache when they are opened so.
//!
//! O_DIRECT wants whole sectors at aligned addresses. Payloads come aligned and go to the device from where they are;
//! headers, padding and whatever else is not aligned is gathered in the staging pool, memory that is registered with the ring and
//! lies in huge pages where the system has some reserved.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ring::{Action, Ring};
use super::staging::Staging;
use super::{Device, ZEROS, io_error};
use crate::store::{Geometry, IoError, SECTOR_BYTES};

/// Memory of one device for what must be copied.
const STAGING_BYTES: usize = 32 << 20;
/// Slices of one request, at most; what has more is gathered whole.
const SLICES_MAX: usize = 256;

/// How the page cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// O_DIRECT.
    Direct,
    /// Through the page cache.
    Cached,
}

pub struct UringDevice {
    // Dropped before the memory that is registered with it.
    ring: Ring,
    staging: Staging,
    file: Arc<File>,
    path: PathBuf,
    capacity_bytes: u64,
    mode: Mode,
    block_device: bool,
}

impl UringDevice {
    /// Opens a block device or a file that is there. A block device that is mounted or in use is refused.
    pub fn open(path: &Path, mode: Mode) -> std::io::Result<Self> {
        let block_device = std::fs::metadata(path)?.file_type().is_block_device();
        let direct = if mode == Mode::Direct { libc::O_DIRECT } else { 0 };
        let exclusive = if block_device { libc::O_EXCL } else { 0 };
        let mut file =
            OpenOptions::new().read(true).write(true).custom_flags(direct | exclusive).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        let capacity_bytes = file.seek(SeekFrom::End(0))?;
        let file = Arc::new(file);
        let staging = Staging::new(STAGING_BYTES)?;
        let name = path.file_name().map_or("device".into(), |name| name.to_string_lossy());
        let ring = Ring::start(Arc::clone(&file), Some(staging.range()), &format!("ring-{name}"))?;
        Ok(Self { ring, staging, file, path: path.to_owned(), capacity_bytes, mode, block_device })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the staging memory lies in huge pages.
    pub fn huge_pages(&self) -> bool {
        self.staging.is_huge()
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let end = offset.checked_add(length).ok_or(IoError::OutOfRange)?;
        if end > self.capacity_bytes { Err(IoError::OutOfRange) } else { Ok(()) }
    }

    fn may_lend(&self, bytes: &[u8]) -> bool {
        self.mode == Mode::Cached || bytes.as_ptr().addr().is_multiple_of(SECTOR_BYTES)
    }
}

impl Device for UringDevice {
    fn geometry(&self) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: true, discard: self.block_device })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, into.len() as u64)?;
        if self.may_lend(into) {
            return self.ring.run(Action::Read { offset, into, fixed: false });
        }
        let mut at = offset;
        for part in into.chunks_mut(self.staging.piece_bytes_max()) {
            let mut piece = self.staging.take(part.len());
            self.ring.run(Action::Read { offset: at, into: &mut piece, fixed: true })?;
            part.copy_from_slice(&piece);
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        self.check(offset, length as u64)?;
        let plan = plan(slices, |bytes| self.may_lend(bytes));
        let copied: usize = plan.iter().map(Stretch::copied).sum();
        if copied > self.staging.piece_bytes_max() || plan.len() > SLICES_MAX {
            return self.write_copied(offset, slices);
        }
        let mut piece = self.staging.take(copied);
        let mut lent = Vec::with_capacity(plan.len());
        {
            let mut rest: &mut [u8] = &mut piece;
            for stretch in &plan {
                if let Stretch::Copied(parts) = stretch {
                    for part in parts {
                        let (to, after) = rest.split_at_mut(part.len());
                        to.copy_from_slice(part);
                        rest = after;
                    }
                }
            }
        }
        let mut rest: &[u8] = &piece;
        for stretch in plan {
            match stretch {
                Stretch::Lent(bytes) => lent.push(bytes),
                Stretch::Copied(_) => {
                    let (bytes, after) = rest.split_at(stretch.copied());
                    lent.push(bytes);
                    rest = after;
                }
            }
        }
        let fixed = lent.len() == 1 && copied == length;
        self.ring.run(Action::Write { offset, slices: lent, fixed })
    }

    fn flush(&self) -> Result<(), IoError> {
        self.ring.run(Action::Flush)
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        for (offset, length) in ranges {
            self.check(*offset, *length)?;
            match self.block_device {
                true => super::staging::discard(&self.file, *offset, *length)?,
                false => {
                    use rustix::fs::{FallocateFlags, fallocate};
                    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(&*self.file, punch, *offset, *length)
                        .map_err(|errno| io_error(errno.raw_os_error()))?;
                }
            }
        }
        Ok(())
    }
}

impl UringDevice {
    /// Everything through the staging memory, a piece at a time.
    fn write_copied(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let mut at = offset;
        let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut bytes = slices.iter().map(|slice| &**slice).filter(|slice| !slice.is_empty());
        let mut current: &[u8] = &[];
        while left > 0 {
            let mut piece = self.staging.take(left.min(self.staging.piece_bytes_max()));
            let mut filled = 0;
            while filled < piece.len() {
                if current.is_empty() {
                    current = bytes.next().unwrap_or(&ZEROS);
                }
                let count = current.len().min(piece.len() - filled);
                piece[filled..filled + count].copy_from_slice(&current[..count]);
                current = &current[count..];
                filled += count;
            }
            self.ring.run(Action::Write { offset: at, slices: vec![&piece], fixed: true })?;
            at += piece.len() as u64;
            left -= piece.len();
        }
        Ok(())
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        // The kernel closes a ring, and with it the last reference to the file, some time later: until then the lock
        // would keep others out.
        let _ = rustix::fs::flock(&*self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// A run of whole sectors of a write.
#[derive(Debug, PartialEq, Eq)]
enum Stretch<'a> {
    /// From where they are.
    Lent(&'a [u8]),
    /// Gathered first.
    Copied(Vec<&'a [u8]>),
}

impl Stretch<'_> {
    fn copied(&self) -> usize {
        match self {
            Stretch::Lent(_) => 0,
            Stretch::Copied(parts) => parts.iter().map(|part| part.len()).sum(),
        }
    }
}

/// Divides a write into stretches of whole sectors: what lies on sectors and may be lent is, all else is gathered.
fn plan<'a>(slices: &'a [IoSlice<'_>], may_lend: impl Fn(&[u8]) -> bool) -> Vec<Stretch<'a>> {
    let mut plan: Vec<Stretch<'a>> = Vec::new();
    let mut at = 0;
    for slice in slices {
        let mut rest: &[u8] = slice;
        while !rest.is_empty() {
            let on_sector = at % SECTOR_BYTES == 0;
            let whole = rest.len() - rest.len() % SECTOR_BYTES;
            let lent = on_sector && whole > 0 && may_lend(rest);
            let length = match (lent, on_sector) {
                (true, _) => whole,
                // A tail of less than a sector, or bytes at a bad address.
                (false, true) => rest.len(),
                (false, false) => rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES),
            };
            let (part, after) = rest.split_at(length);
            match plan.last_mut() {
                _ if lent => plan.push(Stretch::Lent(part)),
                Some(Stretch::Copied(parts)) => parts.push(part),
                Some(Stretch::Lent(_)) | None => plan.push(Stretch::Copied(vec![part])),
            }
            at += length;
            rest = after;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_sectors_is_lent_and_all_else_gathered() {
        let (header, payload, pad) = ([1; 300], vec![2; 8192 + 100], [0; 4096 - 300]);
        let tail = [0; 4096 - 100];
        let slices = [&header[..], &pad, &payload, &tail].map(IoSlice::new);
        let lengths: Vec<_> = plan(&slices, |_| true)
            .iter()
            .map(|stretch| match stretch {
                Stretch::Lent(bytes) => (true, bytes.len()),
                Stretch::Copied(_) => (false, stretch.copied()),
            })
            .collect();
        assert_eq!(lengths, [(false, 4096), (true, 8192), (false, 4096)]);
        let all: usize = plan(&slices, |_| false).iter().map(Stretch::copied).sum();
        assert_eq!((plan(&slices, |_| false).len(), all), (1, 4096 + 8192 + 4096));
    }
}
