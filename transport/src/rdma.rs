//! Frames over RDMA: reliable queue pairs of RoCE devices, through the system's libibverbs.
//!
//! - [`device`]: which device, port and address;
//! - [`endpoint`]: the byte stream over a queue pair, which [`crate::net`] makes a connection's halves of;
//! - [`connect`], [`accept`] and [`Offer`]: how two sides come to have one;
//! - [`OneSided`]: bytes between the memory of both sides, beside the stream;
//! - [`bare`]: verbs without any of that, for measurements;
//! - `memory`, `queue_pair`, `pump`, `transfer` and `sys`: the verbs themselves.
//!
//! The library is loaded when the first device is opened; where there is none, that is an error and nothing else changes. What a queue
//! pair needs to know of its peer rides in `Connect` and its reply ([`crate::session`]).
//!
//! Reliable connections over Ethernet alone: InfiniBand's own links address by other means, and iWARP has no immediate data.

pub mod bare;
pub mod device;
pub mod endpoint;
mod memory;
mod pump;
mod queue_pair;
mod setup;
mod sys;
mod transfer;

use std::ffi::CStr;

use crate::error::TransportError;

pub use self::device::{Device, Selection};
pub use self::endpoint::{Counts, Endpoint, Fetch, OneSided, Prepared, ReadHalf, WriteHalf};
pub use self::memory::{Memory, Reach, Registered, RemotePlace};
pub use self::setup::{Offer, accept, connect, connect_reachable};
pub use self::transfer::Part;
pub use crate::gid::{GidType, Subnet};

/// Why RDMA cannot be used, here or now.
#[derive(Debug, thiserror::Error)]
pub enum RdmaError {
    #[error("libibverbs cannot be loaded: {0}; install the system's RDMA user-space libraries")]
    Library(&'static libloading::Error),
    #[error("there is no such RDMA device")]
    NoDevice,
    #[error("the RDMA device has no such port that is active")]
    NoPort,
    #[error("the RDMA port's link is not Ethernet: only RoCE is supported")]
    LinkLayer,
    #[error("the RDMA port has no address of the wanted type and network")]
    NoGid,
    #[error("the RDMA device takes {most} requests in a queue, fewer than the {wanted} that are needed")]
    Depth { wanted: u32, most: u32 },
    #[error(
        "{size_bytes} bytes of memory cannot be registered: {source}; the limit of locked memory (ulimit -l) may be too low"
    )]
    Registration { size_bytes: usize, source: std::io::Error },
    #[error("the RDMA device's provider has no way to post requests")]
    NoPosting,
    #[error("the queue pair is not connected any more")]
    Broken,
    #[error("cannot {doing}: {source}")]
    System { doing: &'static str, source: std::io::Error },
}

impl From<RdmaError> for TransportError {
    fn from(error: RdmaError) -> TransportError {
        TransportError::Io(std::io::Error::other(error))
    }
}

/// Why a request failed, in the library's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({code})")]
pub struct CompletionError {
    /// `enum ibv_wc_status`.
    pub code: i32,
    text: &'static str,
}

impl CompletionError {
    #[expect(unsafe_code, reason = "a call into libibverbs")]
    fn new(library: &'static sys::Library, code: i32) -> CompletionError {
        // SAFETY: the call answers with a constant text for every number, and the library stays loaded.
        let text = unsafe { CStr::from_ptr((library.ibv_wc_status_str)(code)) };
        CompletionError { code, text: text.to_str().unwrap_or("unknown error") }
    }
}
