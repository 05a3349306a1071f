//! What the fuzzers do with their input.
//!
//! Each module has one function, `run`, that takes any bytes and panics when something does not hold. The same bytes always
//! do the same, but for [`abi`], whose server has threads. `libfuzzer/` builds a binary around each; `tests/` replays
//! the committed corpus, in `corpus/`.
#![deny(unsafe_code)]

pub mod abi;
pub mod config;
pub mod frames;
pub mod manifest;
pub mod messages;
mod pair;
pub mod service;
pub mod setup;
pub mod world;

/// One target: what it does with its input.
pub type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("messages", messages::run),
    ("manifest", manifest::run),
    ("setup", setup::run),
    ("frames", frames::run),
    ("service", service::run),
    ("world", world::run),
    ("abi", abi::run),
    ("config", config::run),
];
