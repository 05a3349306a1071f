//! What the store can be told.

use std::collections::HashMap;

use super::catalog::{ENTRIES_MAX, Place};
use super::space::EXTENT_BYTES_MIN;
use super::types::SECTOR_BYTES;

/// Devices of one store, at most: a superblock names its members in 64 bits.
pub const DEVICES_MAX: u16 = 64;
pub const EXTENT_BYTES_DEFAULT: u32 = (4 << 20) + (64 << 10);

/// When acknowledged manifests and deletes are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before they are acknowledged.
    Always,
    /// At this interval, so that a loss of power takes at most that much: manifests put, or deleted, since then. One that was
    /// replaced since then may be gone with the one that replaced it, or one before it be there again.
    Interval { ms: u64 },
}

/// Which device takes the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// One device until its extent is full, then the next: a small save touches, and flushes, one device.
    Rotate,
    /// The device with the least in flight: many drives work at once.
    Spread,
}

#[derive(Clone, Debug)]
pub struct Config {
    /// Devices of any other store are left out. Without it, those of the most common one make up the store.
    pub server_id: Option<[u8; 16]>,
    /// Of a newly formatted store, a multiple of 4096. The default holds four blocks with a header each.
    pub extent_bytes: u32,
    pub sync: Sync,
    pub placement: Placement,
    pub lease_ms_default: u64,
    pub lease_ms_max: u64,
    pub leases_per_client_max: u32,
    /// Of all clients together. A lease takes about 140 bytes of memory.
    pub leases_max: usize,
    pub allocations_max: usize,
    pub values_max: usize,
    /// Bytes of values by namespace; others are unlimited.
    pub quotas: HashMap<Vec<u8>, u64>,
    /// A device's journal is rewritten when it grew by this many bytes, even if it is not long yet.
    pub checkpoint_bytes: u64,
    /// Whether free extents are discarded on devices that can.
    pub discard: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_id: None,
            extent_bytes: EXTENT_BYTES_DEFAULT,
            sync: Sync::Always,
            placement: Placement::Rotate,
            lease_ms_default: 10_000,
            lease_ms_max: 60_000,
            leases_per_client_max: 1 << 20,
            leases_max: 1 << 22,
            allocations_max: 4096,
            values_max: ENTRIES_MAX,
            quotas: HashMap::new(),
            checkpoint_bytes: u64::MAX,
            discard: true,
        }
    }
}

impl Config {
    pub(crate) fn extent_bytes_fit(&self) -> bool {
        let range = EXTENT_BYTES_MIN..=Place::OFFSET_MAX;
        range.contains(&self.extent_bytes) && self.extent_bytes.is_multiple_of(SECTOR_BYTES as u32)
    }

    pub(crate) fn lease_ms(&self, asked_ms: u64) -> u64 {
        if asked_ms == 0 { self.lease_ms_default } else { asked_ms.min(self.lease_ms_max) }
    }
}
