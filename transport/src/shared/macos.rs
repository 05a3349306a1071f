//! Shared memory objects of macOS: `shm_open`, unlinked at once, mapped by both sides. Compiled, and not yet run there.
//!
//! Why the server cannot be made to fault: the size of such an object is set once and can never be changed, so a mapping of
//! what it has keeps its pages. Files, which their owner can cut short, are told by their type: an object has none. Objects have
//! no number that tells them apart, so what two connections register is mapped twice.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, fstat, ftruncate};
use rustix::shm;

use super::mapping::Mapping;
use super::{FileId, REGION_SIZE_BYTES_MAX, RegionError, check_range};

/// A new object of zeroed memory, mapped; pages appear as they are touched.
pub(super) fn create(size_bytes: usize) -> io::Result<(OwnedFd, Mapping)> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    // Names have at most 31 bytes.
    let name = format!("/memkv-{:016x}", u64::from_ne_bytes(random));
    let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
    let file = shm::open(&name, flags, Mode::RUSR | Mode::WUSR)?;
    shm::unlink(&name)?;
    ftruncate(&file, size_bytes as u64)?;
    let mapping = Mapping::new(file.as_fd(), size_bytes)?;
    Ok((file, mapping))
}

impl Mapping {
    /// Makes the pages of a range of new memory present, by writing the zeros that they have: nobody else has it yet.
    pub(super) fn populate(&self, range: std::ops::Range<usize>) -> io::Result<()> {
        range.step_by(rustix::param::page_size()).for_each(|offset| self.write(offset, &[0]));
        Ok(())
    }
}

/// A client's memory as the server sees it: a place to copy from and to.
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
}

impl Region {
    /// A name that no other descriptor gets.
    pub fn identify(_file: &OwnedFd) -> Result<FileId, RegionError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(FileId { device: u64::MAX, inode: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Opens the first `length` bytes of a client's object.
    //= MKV-REG-4
    pub fn open(file: OwnedFd, length: u64) -> Result<Region, RegionError> {
        if length == 0 || length > REGION_SIZE_BYTES_MAX {
            return Err(RegionError::Length { length });
        }
        let stat = fstat(&file).map_err(io::Error::from)?;
        if stat.st_mode & libc::S_IFMT != 0 {
            return Err(RegionError::NotMemory);
        }
        // An object without a size could still be given one.
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if size_bytes < length {
            return Err(RegionError::Short { size_bytes, length });
        }
        Ok(Region { mapping: Mapping::new(file.as_fd(), length as usize)? })
    }

    pub fn size_bytes(&self) -> usize {
        self.mapping.size_bytes()
    }

    /// Whether these bytes lie in the region.
    pub fn check(&self, offset: u64, length: usize) -> Result<(), RegionError> {
        check_range(self.size_bytes(), offset, length)
    }

    /// Copies bytes out of the region.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), RegionError> {
        self.check(offset, into.len())?;
        self.mapping.read(offset as usize, into);
        Ok(())
    }

    /// Copies bytes into the region.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), RegionError> {
        self.check(offset, bytes.len())?;
        self.mapping.write(offset as usize, bytes);
        Ok(())
    }
}
