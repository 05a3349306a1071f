//! The MemKV server.
//!
//! | module | owns |
//! |---|---|
//! | `cli`, `config`, `keys`, `data_directory`, `logging` | what people give it and what it tells them |
//! | `io` | devices: memory and files |
//! | `store` | values and manifests in a log of extents, sans-io |
#![deny(unsafe_code)]

pub mod config;
pub mod data_directory;
pub mod io;
pub mod keys;
pub mod logging;
pub mod store;
