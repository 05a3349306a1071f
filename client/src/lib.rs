//! The MemKV client.
//!
//! [`Client`] is the async API; [`blocking::Client`] the same for threads. Both stand on [`core`], the protocol logic
//! without clock or socket, and on [`operation`], which turns operations into frames and back; a
//! simulation drives these two itself.
//!
//! Keys of values and names of manifests are bytes. A value is stored once and never changes; a manifest names the values
//! that it keeps alive, and is replaced as a whole.
#![forbid(unsafe_code)]

mod batch;
pub mod blocking;
mod client;
mod config;
pub mod core;
mod driver;
pub mod error;
mod local;
pub mod operation;
#[cfg(target_os = "linux")]
mod rdma;
mod reading;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod uri;
mod writing;

pub use client::{Allocation, Client, Found, ManifestEntry, Page};
pub use config::{
    CONNECTIONS_VARIABLE, Config, KEY_VARIABLE, RDMA_DEVICES_VARIABLE, TRANSPORT_VARIABLE, Transport,
    VERIFY_VARIABLE, Verify, key_from_env,
};
pub use core::{Counters, Settings};
pub use error::Error;
pub use memkv_transport::buf::{Buf, BufMut, BufPool};
pub use operation::manifest::{Published, Reference, StoredManifest};
pub use operation::read::{ReadRange, Value};
pub use operation::write::PutItem;
pub use uri::Uri;
