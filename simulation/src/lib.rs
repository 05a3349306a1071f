//! A seeded world in virtual time.
//!
//! One process runs the real client core and the real server (service and store) over a simulated link and simulated
//! disks: no clock, no socket, no thread, no file. A seed decides the work, the delays and the faults, so that it
//! repeats a run to the last byte. [`run`] drives one world to its end and says what promise it broke, if any.
#![forbid(unsafe_code)]

mod client;
mod content;
mod disk;
mod links;
mod model;
mod operation;
mod random;
mod server;
mod world;

pub use world::{Failure, Report, run, run_choices};
