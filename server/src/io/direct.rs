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

use memkv_transport::buf::BufMut;
use smallvec::SmallVec;

use super::ring::{Action, Gathered, Ring, Task, iovec};
use super::staging::Staging;
use super::{Device, Then, Transfer, io_error, io_slices};
use crate::store::{Geometry, IoError, SECTOR_BYTES};

/// Memory of one device for what must be copied.
const STAGING_BYTES: usize = 32 << 20;
/// The page cache takes bytes as they are, but for writes of very many pieces.
const STAGING_BYTES_CACHED: usize = 1 << 20;
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
    ring: Ring,
    staging: Arc<Staging>,
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
        let staging = Staging::new(match mode {
            Mode::Direct => STAGING_BYTES,
            Mode::Cached => STAGING_BYTES_CACHED,
        })?;
        let name = path.file_name().map_or("device".into(), |name| name.to_string_lossy());
        let write_behind = mode == Mode::Cached;
        let ring =
            Ring::open(Arc::clone(&file), Arc::clone(&staging), write_behind, &format!("ring-{name}"))?;
        Ok(Self { ring, staging, file, path: path.to_owned(), capacity_bytes, mode, block_device })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the staging memory lies in huge pages.
    pub fn huge_pages(&self) -> bool {
        self.staging.is_huge()
    }

    /// Whether the staging memory is registered with the kernel.
    pub fn is_registered(&self) -> bool {
        self.ring.is_registered()
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
        let discard = self.block_device || self.mode == Mode::Cached;
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: true, discard })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, into.len() as u64)?;
        // The caller waits in any case: for what the page cache has, another thread would cost more than the copy.
        if self.mode == Mode::Cached {
            return super::file::read_exact(&self.file, offset, into);
        }
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
        self.check(offset, length_of(slices))?;
        let plan = self.plan(slices);
        let gathered = self.gather(&plan)?;
        let fixed = matches!(gathered, Gathered::Staged(_)) && plan.len() == 1;
        let slices = lent(&plan, gathered.bytes()).to_vec();
        self.ring.run(Action::Write { offset, slices, fixed })
    }

    fn flush(&self) -> Result<(), IoError> {
        self.ring.run(Action::Flush)
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn start(&self, transfer: Transfer, then: Then) {
        let gathered = match self.begin(&transfer) {
            Ok(gathered) => gathered,
            Err(error) => return then(transfer, Err(error)),
        };
        self.ring.start(Task { transfer, gathered, then }, |task| {
            let Transfer::Write { segments, .. } = &task.transfer else { return Default::default() };
            let slices = io_slices(segments);
            lent(&self.plan(&slices), task.gathered.bytes()).iter().map(|bytes| iovec(bytes)).collect()
        });
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        for (offset, length) in ranges {
            self.check(*offset, *length)?;
            match self.block_device {
                true => super::staging::discard(&self.file, *offset, *length)?,
                false => {
                    use rustix::fs::{FallocateFlags, fallocate};
                    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    match fallocate(&*self.file, punch, *offset, *length) {
                        // A file system without holes keeps the bytes: nothing is lost.
                        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                        Err(errno) => return Err(io_error(errno.raw_os_error())),
                    }
                }
            }
        }
        Ok(())
    }
}

impl UringDevice {
    fn plan<'a>(&self, slices: &'a [IoSlice<'_>]) -> Plan<'a> {
        // The page cache takes bytes from wherever they lie.
        if self.mode == Mode::Cached && slices.len() <= SLICES_MAX {
            return slices.iter().map(|slice| Stretch::Lent(slice)).collect();
        }
        let plan = plan(slices, |bytes| self.may_lend(bytes));
        if plan.len() <= SLICES_MAX { plan } else { self::plan(slices, |_| false) }
    }

    /// Copies what a plan does not lend. Never waits: it may be called by whoever gives pieces back.
    fn gather(&self, plan: &[Stretch<'_>]) -> Result<Gathered, IoError> {
        let length = plan.iter().map(Stretch::copied).sum();
        if length == 0 {
            return Ok(Gathered::Nothing);
        }
        let mut gathered = match self.staging.try_take(length) {
            Some(piece) => Gathered::Staged(piece),
            None => Gathered::Heap(BufMut::unpooled(length).map_err(|_| IoError::OutOfRange)?),
        };
        let mut rest: &mut [u8] = match &mut gathered {
            Gathered::Nothing => &mut [],
            Gathered::Staged(piece) => piece,
            Gathered::Heap(buffer) => buffer,
        };
        for part in plan.iter().flat_map(Stretch::parts) {
            let (to, after) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = after;
        }
        Ok(gathered)
    }

    fn begin(&self, transfer: &Transfer) -> Result<Gathered, IoError> {
        match transfer {
            Transfer::Read { offset, into } => {
                self.check(*offset, into.len() as u64)?;
                Ok(Gathered::Nothing)
            }
            Transfer::Write { offset, segments } => {
                let slices = io_slices(segments);
                self.check(*offset, length_of(&slices))?;
                self.gather(&self.plan(&slices))
            }
            Transfer::Flush => Ok(Gathered::Nothing),
        }
    }
}

fn length_of(slices: &[IoSlice<'_>]) -> u64 {
    slices.iter().map(|slice| slice.len() as u64).sum()
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        // The kernel closes a ring, and with it the last reference to the file, some time later: until then the lock
        // would keep others out.
        let _ = rustix::fs::flock(&*self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// How a write goes to the device.
type Plan<'a> = SmallVec<[Stretch<'a>; 4]>;

/// A run of whole sectors of a write.
#[derive(Debug, PartialEq, Eq)]
enum Stretch<'a> {
    /// From where they are.
    Lent(&'a [u8]),
    /// Gathered first.
    Copied(SmallVec<[&'a [u8]; 4]>),
}

impl<'a> Stretch<'a> {
    fn parts(&self) -> &[&'a [u8]] {
        match self {
            Stretch::Lent(_) => &[],
            Stretch::Copied(parts) => parts,
        }
    }

    fn copied(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// The bytes of a plan in their order; those gathered lie one after another.
fn lent<'a, 'b: 'a>(plan: &[Stretch<'b>], mut gathered: &'a [u8]) -> SmallVec<[&'a [u8]; 4]> {
    let next = |stretch: &Stretch<'b>| match stretch {
        Stretch::Lent(bytes) => *bytes,
        Stretch::Copied(_) => {
            let (bytes, rest) = gathered.split_at(stretch.copied());
            gathered = rest;
            bytes
        }
    };
    plan.iter().map(next).collect()
}

/// Divides a write into stretches of whole sectors: what lies on sectors and may be lent is, all else is gathered.
fn plan<'a>(slices: &'a [IoSlice<'_>], may_lend: impl Fn(&[u8]) -> bool) -> Plan<'a> {
    let mut plan = Plan::new();
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
                Some(Stretch::Lent(_)) | None => plan.push(Stretch::Copied(SmallVec::from_slice(&[part]))),
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
