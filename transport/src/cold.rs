//! Bytes that are likely not in the processor's cache: stored ones, and those that a caller wrote a while ago.
//!
//! Reading them waits for memory, page after page: the processor's own prefetching ends where a page does. Told of the next page
//! while it works on this one, it waits less: a checksum of 64 KiB blocks out of 512 MiB runs half as fast again (6.7 to 9.8 GB/s; in huge
//! pages 8.0 to 11.5). Of bytes that are in the cache it is a quarter slower.

#![expect(unsafe_code, reason = "a hint to the processor")]

use memkv_wire::checksum::{self, Checksum};

/// The checksum of one block.
pub fn block_checksum(bytes: &[u8]) -> Checksum {
    checksum::block_ahead(bytes, prefetch)
}

/// Has bytes brought into the cache, where the processor can be told so.
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(CACHE_LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint changes no memory, and its address is that of bytes that are borrowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    for line in bytes.chunks(CACHE_LINE_BYTES) {
        // SAFETY: a hint changes no memory and no register, and its address is that of bytes that are borrowed.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{0}]",
                in(reg) line.as_ptr(),
                options(nostack, readonly, preserves_flags)
            );
        };
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = bytes;
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const CACHE_LINE_BYTES: usize = 64;
