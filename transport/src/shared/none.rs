//! For systems without sealed memory files: no memory is shared, and bytes go through the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use super::{FileId, RegionError};

/// See the Linux module; it cannot be made here.
#[derive(Debug)]
pub enum SharedMemory {}

impl SharedMemory {
    pub fn create(_size_bytes: usize) -> io::Result<SharedMemory> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn size_bytes(&self) -> usize {
        match *self {}
    }

    pub fn populate(&self, _size_bytes: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        match *self {}
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

/// See the Linux module; it cannot be opened here.
#[derive(Debug)]
pub enum Region {}

impl Region {
    pub fn identify(_file: &OwnedFd) -> Result<FileId, RegionError> {
        Err(RegionError::NoSystem)
    }

    pub fn open(_file: OwnedFd, _length: u64) -> Result<Region, RegionError> {
        Err(RegionError::NoSystem)
    }

    pub fn size_bytes(&self) -> usize {
        match *self {}
    }

    pub fn check(&self, _offset: u64, _length: usize) -> Result<(), RegionError> {
        match *self {}
    }

    pub fn read(&self, _offset: u64, _into: &mut [u8]) -> Result<(), RegionError> {
        match *self {}
    }

    pub fn write(&self, _offset: u64, _bytes: &[u8]) -> Result<(), RegionError> {
        match *self {}
    }
}
