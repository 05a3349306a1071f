//! The MemKV server.
//!
//! | module | owns |
//! |---|---|
//! | `cli`, `banner`, `config`, `keys`, `data_directory`, `logging` | what people give it and what it tells them |
//! | `setup`, `probe` | making drives a store; what is on a drive, and who uses it |
//! | `control` | what the command and a running server say to each other |
//! | `start` | a server's life: from its settings to its last flush |
//! | `shell` | sockets, threads, the clock and the service's lock |
//! | `service` | requests and replies, sans-io |
//! | `read` | reading and verifying what a plan says |
//! | `store` | values and manifests in a log of extents, sans-io |
//! | `io` | devices: memory, files and whole drives |
#![deny(unsafe_code)]

pub mod banner;
pub mod cli;
pub mod config;
pub mod control;
pub mod data_directory;
pub mod io;
pub mod keys;
pub mod logging;
pub mod probe;
pub mod read;
pub mod service;
#[cfg(target_os = "linux")]
pub mod setup;
pub mod shell;
pub mod start;
pub mod store;
