//! The store as its callers see it: one body of behaviour over every kind of device, crashes, faults, and a model.

mod behaviour;
mod faults;
mod images;
#[cfg(target_os = "linux")]
#[path = "../support/loops.rs"]
mod loops;
mod rig;
mod sim;
