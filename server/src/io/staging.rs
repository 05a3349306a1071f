//! The staging pool: aligned memory, in huge pages where the system has some reserved, lent out in pieces.
//!
//! Pieces are whole sectors and never overlap: a piece is taken from the free list under its lock and goes back when it is
//! dropped. Whoever finds no piece free waits.

#![expect(unsafe_code, reason = "mapped memory, and an ioctl")]

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::io_error;
use crate::store::{IoError, SECTOR_BYTES};

/// A piece, at most.
const PIECE_BYTES: usize = 1 << 20;
/// A huge page, of the larger of the usual sizes.
const HUGE_BYTES: usize = 32 << 20;

pub struct Staging {
    address: usize,
    length: usize,
    huge: bool,
    free: Mutex<Vec<usize>>,
    returned: Condvar,
}

impl Staging {
    pub fn new(length: usize) -> std::io::Result<Arc<Self>> {
        // Part of a huge page would be mapped whole, and could not be unmapped.
        let huge = length.is_multiple_of(HUGE_BYTES).then(|| map(length, libc::MAP_HUGETLB));
        let (address, is_huge) = match huge {
            Some(Ok(address)) => (address, true),
            Some(Err(_)) | None => (map(length, 0)?, false),
        };
        let free = (0..length / PIECE_BYTES).collect();
        let free = Mutex::new(free);
        Ok(Arc::new(Self { address, length, huge: is_huge, free, returned: Condvar::new() }))
    }

    /// Address and length, for registration.
    pub fn range(&self) -> (usize, usize) {
        (self.address, self.length)
    }

    pub fn is_huge(&self) -> bool {
        self.huge
    }

    pub fn piece_bytes_max(&self) -> usize {
        PIECE_BYTES
    }

    /// A piece of this length, which must be whole sectors and at most `piece_bytes_max`; waits for one to be free.
    pub fn take(self: &Arc<Self>, length: usize) -> Piece {
        assert!(length <= PIECE_BYTES && length.is_multiple_of(SECTOR_BYTES), "the caller divides");
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if length == 0 {
                return self.piece(None, length);
            }
            if let Some(number) = free.pop() {
                return self.piece(Some(number), length);
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same, if the length is not too much and one is free now.
    pub fn try_take(self: &Arc<Self>, length: usize) -> Option<Piece> {
        if length > PIECE_BYTES || !length.is_multiple_of(SECTOR_BYTES) {
            return None;
        }
        if length == 0 {
            return Some(self.piece(None, length));
        }
        let number = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(self.piece(Some(number), length))
    }

    fn piece(self: &Arc<Self>, number: Option<usize>, length: usize) -> Piece {
        Piece { staging: Arc::clone(self), number, length }
    }
}

fn map(length: usize, flags: i32) -> std::io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | flags;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(address.addr()) }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, once; pieces and the ring hold the pool, so none is left.
        unsafe { libc::munmap(self.address as *mut libc::c_void, self.length) };
    }
}

/// A stretch of the pool that is nobody else's.
pub struct Piece {
    staging: Arc<Staging>,
    number: Option<usize>,
    length: usize,
}

impl Piece {
    fn address(&self) -> *mut u8 {
        let start = self.staging.address + self.number.unwrap_or(0) * PIECE_BYTES;
        start as *mut u8
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: inside the mapping, initialised by the kernel, and lent to this piece alone.
        unsafe { std::slice::from_raw_parts(self.address(), self.length) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the piece is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.length) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.staging.free.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            self.staging.returned.notify_one();
        }
    }
}

const BLKDISCARD: libc::c_ulong = 0x1277;

/// Tells a block device that a range is not needed any more. One that cannot discard keeps it.
pub fn discard(file: &File, offset: u64, length: u64) -> Result<(), IoError> {
    let range = [offset, length];
    // SAFETY: BLKDISCARD reads two u64 from the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD as _, range.as_ptr()) };
    if result == 0 {
        return Ok(());
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOTTY) => Ok(()),
        errno => Err(io_error(errno.unwrap_or(0))),
    }
}
