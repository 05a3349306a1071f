//! A file's bytes in this process, for reading and writing; another process may have them, too.

#![expect(unsafe_code, reason = "mapped memory")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: it owns its mapping, and mapped memory may be used and unmapped by any thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` copies, and gives out its address; who uses that answers for the access.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first bytes of a file. The caller knows that the file has them and never becomes shorter.
    pub fn new(file: BorrowedFd<'_>, size_bytes: usize) -> io::Result<Mapping> {
        let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice replaces none that is there.
        let base = unsafe { mmap(std::ptr::null_mut(), size_bytes, read_write, shared, file, 0) }?;
        let base: NonNull<u8> = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, size_bytes })
    }

    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they do not lie in the mapping.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        // SAFETY: the range lies inside the mapping, which is readable to its end, for the file is never shorter; `into`
        // is memory of our own. Another process may write meanwhile: the copy then holds bytes of several moments, and
        // nothing is believed of them before they were verified.
        unsafe { copy(self.base.as_ptr().add(offset), into.as_mut_ptr(), into.len()) };
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// As [`Mapping::read`].
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the range lies inside the mapping, which is writable to its end, for the file is never shorter; `bytes`
        // is memory of our own. What another process does to its bytes meanwhile is its own loss.
        unsafe { copy(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) };
    }

    fn check(&self, offset: usize, length: usize) {
        assert!(
            offset <= self.size_bytes && length <= self.size_bytes - offset,
            "bytes outside of a mapping"
        );
    }
}

/// Copies between our memory and memory that another process may be using. Never inlined, so that the compiler knows
/// nothing of where the bytes come from and cannot read them a second time.
///
/// # Safety
/// `from` is good for reads of `length` bytes, `into` for writes, and they do not overlap.
#[inline(never)]
unsafe fn copy(from: *const u8, into: *mut u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(from, into, length) };
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and its owner is going: nobody uses the address any more. An error would mean
        // that it is no mapping, and there is nothing to do about it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.size_bytes) };
    }
}
