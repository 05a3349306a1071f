//! Memory of this process alone, in huge pages: reserved ones where the system has enough, else whatever it finds.
//!
//! A drive is asked for a value in one request when its memory is one stretch; scattered over pages of 4 KiB, 64 KiB are
//! sixteen. Pages appear as they are touched.

#![expect(unsafe_code, reason = "mapped memory")]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{HUGE_PAGE_BYTES, prefer_huge_pages};

#[derive(Debug)]
pub(super) struct HugeMemory {
    mapping: NonNull<u8>,
    mapping_size_bytes: usize,
    base: NonNull<u8>,
    size_bytes: usize,
    reserved: bool,
}

// SAFETY: it owns its mapping, and mapped memory may be used and unmapped by any thread.
unsafe impl Send for HugeMemory {}

impl HugeMemory {
    /// Zeroed memory, rounded up to whole huge pages.
    pub fn map(size_bytes: usize) -> io::Result<HugeMemory> {
        let size_bytes = size_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        if let Some(mapping) = map_reserved(size_bytes) {
            return Ok(HugeMemory {
                mapping,
                mapping_size_bytes: size_bytes,
                base: mapping,
                size_bytes,
                reserved: true,
            });
        }
        // One page more than is needed, so that a stretch of it begins where a huge page may.
        let mapping_size_bytes = size_bytes + HUGE_PAGE_BYTES;
        let mapping = map(mapping_size_bytes, MapFlags::PRIVATE)?;
        let offset = mapping.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: less than the one page more, so within the mapping.
        let base = unsafe { mapping.add(offset) };
        prefer_huge_pages(base, size_bytes);
        Ok(HugeMemory { mapping, mapping_size_bytes, base, size_bytes, reserved: false })
    }

    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Whether the system kept its pages for this.
    pub fn is_reserved(&self) -> bool {
        self.reserved
    }
}

#[cfg(target_os = "linux")]
fn map_reserved(size_bytes: usize) -> Option<NonNull<u8>> {
    map(size_bytes, MapFlags::PRIVATE | MapFlags::HUGETLB).ok()
}

#[cfg(not(target_os = "linux"))]
fn map_reserved(_size_bytes: usize) -> Option<NonNull<u8>> {
    None
}

fn map(size_bytes: usize, flags: MapFlags) -> io::Result<NonNull<u8>> {
    let read_write = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice replaces none that is there.
    let mapping = unsafe { mmap_anonymous(std::ptr::null_mut(), size_bytes, read_write, flags) }?;
    NonNull::new(mapping.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Drop for HugeMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, once; the pool that owns it keeps it for as long as a buffer lies in it.
        let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapping_size_bytes) };
    }
}
