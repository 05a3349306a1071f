//! What both peers share: frames over a wire.
#![deny(unsafe_code)]

pub mod buf;
