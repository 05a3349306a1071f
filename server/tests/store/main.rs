//! The store as its callers see it: one body of behaviour over every kind of device, crashes, faults, and a model.

mod behaviour;
mod faults;
mod golden;
mod images;
#[cfg(target_os = "linux")]
#[path = "../support/loops.rs"]
mod loops;
mod model;
mod ram;
mod reclaim;
mod rig;
mod sim;
