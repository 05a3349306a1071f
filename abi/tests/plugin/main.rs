//! The plugin and the client against a real server: processes, sockets, files.
//!
//! The server is the `memkv` binary of the same build; where it is not built, a test says so and is counted as skipped.

mod client;
mod faults;
mod library;
#[cfg(target_os = "linux")]
mod rdma;
#[cfg(target_os = "linux")]
#[path = "../../../server/tests/support/residue.rs"]
mod residue;
mod saves;
mod server;
mod sessions;
mod transports;
