//! A client's side of shared memory, the same on every system that has some.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use super::mapping::Mapping;
use super::system;

/// A client's own memory, which it can share by passing the file.
#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    mapping: Mapping,
}

impl SharedMemory {
    /// Zeroed memory of so many bytes; pages appear as they are touched.
    pub fn create(size_bytes: usize) -> io::Result<SharedMemory> {
        let (file, mapping) = system::create(size_bytes)?;
        Ok(SharedMemory { file, mapping })
    }

    pub fn size_bytes(&self) -> usize {
        self.mapping.size_bytes()
    }

    /// Makes the first so many bytes present. Nobody may have been given the file yet.
    pub fn populate(&self, size_bytes: usize) -> io::Result<()> {
        self.mapping.populate(0..size_bytes.min(self.mapping.size_bytes()))
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.mapping.base()
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
