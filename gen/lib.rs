//! The MemKV wire protocol.
#![forbid(unsafe_code)]

pub mod checksum;
pub mod frame;
pub mod mac;
