//! What the store counts.

use super::*;

/// Since the store was opened; sums, never reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub puts: u64,
    pub put_bytes: u64,
    /// Puts of values that were stored already.
    pub puts_present: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub misses: u64,
    pub deletes: u64,
    pub manifests_put: u64,
    pub manifests_incomplete: u64,
    pub manifests_deleted: u64,
    pub allocations_expired: u64,
    pub leases_refused: u64,
    pub out_of_space: u64,
    pub values_evicted: u64,
    pub bytes_evicted: u64,
    pub manifests_evicted: u64,
    pub records_moved: u64,
    pub bytes_moved: u64,
    pub extents_reclaimed: u64,
    pub discards: u64,
    pub checkpoints: u64,
    /// To extents of records, headers and padding included.
    pub device_bytes_written: u64,
    pub journal_bytes_written: u64,
    pub flushes: u64,
    pub write_errors: u64,
    pub read_errors: u64,
    /// Records whose bytes did not match their checksums.
    pub corrupt: u64,
    /// Values gone with a device or with wrong bytes.
    pub values_lost: u64,
    pub manifests_lost: u64,
    pub devices_failed: u64,
}

/// What is stored at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub values: u64,
    pub manifests: u64,
    pub capacity_bytes: u64,
    /// In extents that are not free.
    pub used_bytes: u64,
    pub leases: u64,
    pub pins: u64,
    pub catalog_bytes: u64,
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceStatus {
    pub slot: u16,
    pub index: u16,
    pub failed: bool,
    pub extents: u32,
    pub extents_free: u32,
    pub journal_extents: u32,
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn usage(&self) -> Usage {
        let healthy = || self.devices.iter().filter(|device| !device.failed);
        let extents: u64 = healthy().map(|device| (device.extents.len() * device.extent_bytes) as u64).sum();
        let free: u64 = healthy().map(|device| (device.free_extents() * device.extent_bytes) as u64).sum();
        Usage {
            values: (self.catalog.len() - self.manifests.len()) as u64,
            manifests: self.manifests.len() as u64,
            capacity_bytes: extents,
            used_bytes: extents - free,
            leases: self.leases.len() as u64,
            pins: self.pins.len() as u64,
            catalog_bytes: self.catalog.memory_bytes() as u64,
        }
    }

    pub fn device_status(&self) -> Vec<DeviceStatus> {
        let status = |device: &Device| DeviceStatus {
            slot: device.slot,
            index: device.index,
            failed: device.failed,
            extents: device.extents.len() as u32,
            extents_free: device.free_extents() as u32,
            journal_extents: device.journal.extents.len() as u32,
        };
        self.devices.iter().map(status).collect()
    }
}
