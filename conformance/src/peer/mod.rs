//! Frames by hand: what the wire suites speak with.
//!
//! Built on the wire crate's bytes, keys and messages alone, so that every check a peer owes can be left out, and every
//! byte a peer sends can be wrong. Blocking, one thread for each connection.

pub mod frame;
#[cfg_attr(not(target_os = "linux"), path = "no_rdma.rs")]
pub mod rdma;
pub mod session;
