//! Memory that two processes of one host share, so that bulk bytes need not go through a socket.
//!
//! A client makes a [`SharedMemory`], passes its file to the server and keeps its buffers in it; the server opens that file as
//! a [`Region`] and copies between it and memory of its own. Invariants of a region, whatever its client does:
//! - access lies within the bytes that were registered, and the file cannot become shorter than that;
//! - nobody gets a reference into it: bytes are copied out before anyone looks at them, so what was verified is what is
//!   stored.
//!
//! A region promises nothing about *when* its client writes: bytes copied out may be of several moments. Whoever copies
//! verifies a checksum on the copy. The client's side does hand out references: it trusts the server, which holds the key and
//! which the system says is the same user, to write only where a request in flight named a place.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod mapping;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod memory;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod none;

use std::io;

#[cfg(target_os = "linux")]
use self::linux as system;
#[cfg(target_os = "macos")]
use self::macos as system;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
use self::none as system;

#[cfg(any(target_os = "linux", target_os = "macos"))]
pub use self::memory::SharedMemory;
pub use self::system::Region;
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub use self::system::SharedMemory;

/// The largest region.
pub const REGION_SIZE_BYTES_MAX: u64 = 1 << 30;

/// Why a file was not opened as a region, or a copy not made.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    #[error("{length} bytes at {offset} do not lie in a region of {size_bytes} bytes")]
    Outside { offset: u64, length: usize, size_bytes: usize },
    #[error("the file is no memory file")]
    NotMemory,
    #[error("the memory file is made of huge pages")]
    HugePages,
    #[error("the memory file is not sealed against shrinking")]
    Unsealed,
    #[error("the memory file has {size_bytes} bytes, fewer than the {length} that were announced")]
    Short { size_bytes: u64, length: u64 },
    #[error("a region of {length} bytes, more than {REGION_SIZE_BYTES_MAX} or none")]
    Length { length: u64 },
    #[error("this system shares no memory between processes in a way that a server can rely on")]
    NoSystem,
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

/// Names the file behind a region, whichever descriptor it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// Whether these bytes lie in a region of that size.
//= MKV-REG-1
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn check_range(size_bytes: usize, offset: u64, length: usize) -> Result<(), RegionError> {
    let end = offset.checked_add(length as u64);
    if end.is_some_and(|end| end <= size_bytes as u64) {
        return Ok(());
    }
    Err(RegionError::Outside { offset, length, size_bytes })
}
