//! The MemKV server.
//!
//! | module | owns |
//! |---|---|
//! | `cli`, `banner`, `config`, `keys`, `data_directory`, `logging` | what people give it and what it tells them |
//! | `start` | a server's life: from its settings to its last flush |
//! | `shell` | sockets, threads, the clock and the service's lock |
//! | `service` | requests and replies, sans-io |
//! | `read` | reading and verifying what a plan says |
//! | `store` | values and manifests in a log of extents, sans-io |
//! | `io` | devices: memory and files |
#![deny(unsafe_code)]

pub mod banner;
pub mod cli;
pub mod config;
pub mod data_directory;
pub mod io;
pub mod keys;
pub mod logging;
pub mod read;
pub mod service;
pub mod shell;
pub mod start;
pub mod store;
