//! What both peers share: frames over a wire.
//!
//! - [`buf`]: payload memory, aligned and pooled under a budget;
//! - [`session`]: set-up of a connection, and the keys that come out of it;
//! - [`receiver`] and [`sealer`]: one direction each of an established connection;
//! - [`error`]: what can go wrong, and who is at fault;
//! - [`link`]: a byte link in virtual time, with faults, for simulations;
//! - [`stream`] and [`tcp`]: all this over asynchronous byte streams.
//!
//! All but the last two are driven from outside: they hold no clock, no socket, no thread and no random source.
//! No module here knows an operation; only set-up reads and writes control messages.
#![deny(unsafe_code)]

pub mod buf;
pub mod error;
pub mod link;
pub mod receiver;
pub mod sealer;
pub mod session;
pub mod stream;
pub mod tcp;
