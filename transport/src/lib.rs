//! What both peers share: frames over a wire.
//!
//! - [`buf`]: payload memory, aligned and pooled under a budget;
//! - [`cold`]: bytes that are not in the cache yet;
//! - [`session`]: set-up of a connection, and the keys that come out of it;
//! - [`receiver`] and [`sealer`]: one direction each of an established connection;
//! - [`error`]: what can go wrong, and who is at fault;
//! - [`planted`]: bugs that the simulation has to find, in no build but its own;
//! - [`link`]: a byte link in virtual time, with faults, for simulations;
//! - [`shared`]: memory that two processes of one host share;
//! - [`sums`]: checksums of payloads, made as they come;
//! - [`stream`], [`net`], [`tcp`] and [`local`]: all this over asynchronous byte streams;
//! - `rdma`, on Linux: the same over queue pairs;
//! - [`spin`]: staying awake for what is about to come.
//!
//! All but the last six are driven from outside: they hold no clock, no socket, no thread and no random source.
//! No module here knows an operation; only set-up reads and writes control messages.
#![deny(unsafe_code)]

#[cfg(all(memkv_no_bulk_mac, any(feature = "planted-bugs", debug_assertions)))]
compile_error!("memkv_no_bulk_mac is for release builds that are measured, and for nothing else");

pub mod buf;
pub mod cold;
pub mod error;
pub mod gid;
pub mod link;
pub mod local;
pub mod net;
pub mod planted;
#[cfg(target_os = "linux")]
pub mod rdma;
pub mod receiver;
pub mod sealer;
pub mod session;
pub mod shared;
pub mod spin;
pub mod stream;
pub mod sums;
pub mod tcp;
pub mod verify;
