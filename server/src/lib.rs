//! The MemKV server.
//!
//! | module | owns |
//! |---|---|
//! | `cli`, `config`, `keys`, `data_directory`, `logging` | what people give it and what it tells them |
#![deny(unsafe_code)]

pub mod config;
pub mod data_directory;
pub mod keys;
pub mod logging;
