//! The machine's block devices, and what is on them: asked before anything is written to one.
//!
//! Reads alone. What a kernel in another container has mounted is not seen here; the exclusive open that every writer
//! does tells of that.

mod reader;
mod signature;
#[cfg(target_os = "linux")]
mod system;

pub use reader::{ReadOnly, Sharing, is_in_use};
pub use signature::{Contents, TAIL_BYTES, contents};
#[cfg(target_os = "linux")]
pub use system::{BlockDevice, Use, block_devices, uses_of};
