//! Memory files: `memfd_create`, sealed, mapped by both sides.
//!
//! Why the server cannot be made to fault: a mapping of a memory file faults where the file ends, and the seal against
//! shrinking keeps it from ending earlier; files of huge pages can fail to get one at any access, so they are refused. A
//! hole is filled when it is touched, which fails only where the system promises memory strictly (`vm.overcommit_memory`
//! = 2): there the server copies with `pread` and `pwrite`, which report what a mapping would die of.

#![expect(unsafe_code, reason = "memory mapped from a file that another process has mapped too")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{
    FileType, MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate,
    memfd_create, seek,
};
use rustix::io::{Errno, pread, pwrite};
use rustix::mm::{Advice, madvise};

use super::mapping::Mapping;
use super::{FileId, REGION_SIZE_BYTES_MAX, RegionError, check_range};

/// The file system of memory files of ordinary pages.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
/// Pages made present by one call, so that a signal or a lack of memory ends it soon.
const POPULATE_STEP_BYTES: usize = 4 << 20;

/// Maps a memory file, in huge pages where there are any.
fn map(file: &OwnedFd, size_bytes: usize) -> io::Result<Mapping> {
    let mapping = Mapping::new(file.as_fd(), size_bytes)?;
    // Refused where huge pages of shared memory are off, which costs nothing but speed.
    // SAFETY: the range is this mapping; the advice changes no bytes.
    let _ = unsafe { madvise(mapping.base().as_ptr().cast(), size_bytes, Advice::LinuxHugepage) };
    Ok(mapping)
}

impl Mapping {
    /// Makes the pages of a range present, so that nobody pays for them later.
    pub(super) fn populate(&self, range: std::ops::Range<usize>) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end.min(self.size_bytes()) {
            let length = POPULATE_STEP_BYTES.min(self.size_bytes() - at).min(range.end - at);
            // SAFETY: the range lies in this mapping; populating changes no bytes.
            unsafe { madvise(self.base().as_ptr().add(at).cast(), length, Advice::LinuxPopulateWrite) }?;
            at += length;
        }
        Ok(())
    }
}

/// A new sealed file of zeroed memory, mapped; pages appear as they are touched.
pub(super) fn create(size_bytes: usize) -> io::Result<(OwnedFd, Mapping)> {
    let file = memfd_create("memkv", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, size_bytes as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mapping = map(&file, size_bytes)?;
    Ok((file, mapping))
}

/// A client's memory as the server sees it: a place to copy from and to.
#[derive(Debug)]
pub struct Region {
    access: Access,
    size_bytes: usize,
}

#[derive(Debug)]
enum Access {
    Mapped(Mapping),
    Calls(OwnedFd),
}

impl Region {
    /// Which file a descriptor stands for.
    pub fn identify(file: &OwnedFd) -> Result<FileId, RegionError> {
        let stat = fstat(file).map_err(io::Error::from)?;
        // The kernel's types differ between architectures.
        #[allow(clippy::unnecessary_cast)]
        Ok(FileId { device: stat.st_dev as u64, inode: stat.st_ino as u64 })
    }

    /// Opens the first `length` bytes of a client's file, if it is one that can be relied on.
    //= MKV-REG-4
    pub fn open(file: OwnedFd, length: u64) -> Result<Region, RegionError> {
        if length == 0 || length > REGION_SIZE_BYTES_MAX {
            return Err(RegionError::Length { length });
        }
        check_file(&file, length)?;
        let size_bytes = length as usize;
        if memory_is_promised() {
            return Ok(Region { access: Access::Calls(file), size_bytes });
        }
        let mapping = map(&file, size_bytes)?;
        // A region whose pages are not mapped yet is only slower.
        let _ = populate_present(&file, &mapping);
        Ok(Region { access: Access::Mapped(mapping), size_bytes })
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Whether these bytes lie in the region.
    pub fn check(&self, offset: u64, length: usize) -> Result<(), RegionError> {
        check_range(self.size_bytes(), offset, length)
    }

    /// Copies bytes out of the region.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), RegionError> {
        self.check(offset, into.len())?;
        match &self.access {
            Access::Mapped(mapping) => {
                mapping.read(offset as usize, into);
                Ok(())
            }
            Access::Calls(file) => read_all(file, offset, into),
        }
    }

    /// Copies bytes into the region.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), RegionError> {
        self.check(offset, bytes.len())?;
        match &self.access {
            Access::Mapped(mapping) => {
                mapping.write(offset as usize, bytes);
                Ok(())
            }
            Access::Calls(file) => write_all(file, offset, bytes),
        }
    }
}

fn read_all(file: &OwnedFd, mut offset: u64, mut into: &mut [u8]) -> Result<(), RegionError> {
    while !into.is_empty() {
        match pread(file, &mut *into, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => {
                into = &mut into[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(())
}

fn write_all(file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> Result<(), RegionError> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(())
}

fn check_file(file: &OwnedFd, length: u64) -> Result<(), RegionError> {
    let stat = fstat(file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RegionError::NotMemory);
    }
    let system = fstatfs(file).map_err(io::Error::from)?;
    // The kernel's types differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    match system.f_type as i64 {
        TMPFS_MAGIC => {}
        HUGETLBFS_MAGIC => return Err(RegionError::HugePages),
        _ => return Err(RegionError::NotMemory),
    }
    // Only memory files, and files of a mounted tmpfs, can be sealed; the latter cannot be unless they were made for it.
    let seals = fcntl_get_seals(file).map_err(|_| RegionError::NotMemory)?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(RegionError::Unsealed);
    }
    // After the seal was seen: from here on the file only grows.
    let size_bytes = fstat(file).map_err(io::Error::from)?.st_size as u64;
    if size_bytes < length {
        return Err(RegionError::Short { size_bytes, length });
    }
    Ok(())
}

/// Maps the pages that the client has touched already; holes stay holes.
fn populate_present(file: &OwnedFd, mapping: &Mapping) -> io::Result<()> {
    let mut at = 0;
    while at < mapping.size_bytes() as u64 {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.max(start + 1);
        mapping.populate(start as usize..end.min(mapping.size_bytes() as u64) as usize)?;
        at = end;
    }
    Ok(())
}

/// Whether the system gives out no more memory than it has, so that touching a hole may fail.
fn memory_is_promised() -> bool {
    static PROMISED: OnceLock<bool> = OnceLock::new();
    *PROMISED.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2")
    })
}
