//! A device that misbehaves on purpose, for tests: seeded, so that one seed gives one sequence of faults.
//!
//! Faults come at the probabilities of [`Faults`], or once and for all with [`FaultyDevice::break_down`]. A lost flush answers
//! well and does nothing; a torn write answers well and stops half-way; a misdirected one answers well and goes elsewhere; bit rot
//! flips one bit of what is read.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Device;
use crate::store::{Geometry, IoError, SECTOR_BYTES};

/// How often what goes wrong, in a million calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub read_error: u32,
    pub write_error: u32,
    pub flush_error: u32,
    pub no_space: u32,
    pub short_read: u32,
    pub short_write: u32,
    pub torn_write: u32,
    pub misdirected_write: u32,
    pub lost_flush: u32,
    pub bit_rot: u32,
    /// Added to every call.
    pub latency: Duration,
}

pub struct FaultyDevice<D> {
    device: D,
    faults: Faults,
    state: AtomicU64,
    broken: AtomicBool,
}

impl<D: Device> FaultyDevice<D> {
    pub fn new(device: D, faults: Faults, seed: u64) -> Self {
        Self { device, faults, state: AtomicU64::new(seed), broken: AtomicBool::new(false) }
    }

    /// From now on the device is gone.
    pub fn break_down(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// The next number of the sequence (SplitMix64).
    fn next(&self) -> u64 {
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn strikes(&self, per_million: u32) -> bool {
        per_million > 0 && self.next() % 1_000_000 < u64::from(per_million)
    }

    fn begin(&self) -> Result<(), IoError> {
        if !self.faults.latency.is_zero() {
            std::thread::sleep(self.faults.latency);
        }
        if self.broken.load(Ordering::SeqCst) { Err(IoError::Gone) } else { Ok(()) }
    }
}

const EIO: IoError = IoError::Failed { errno: libc::EIO };

impl<D: Device> Device for FaultyDevice<D> {
    fn geometry(&self) -> Result<Geometry, IoError> {
        self.begin()?;
        self.device.geometry()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.begin()?;
        if self.strikes(self.faults.read_error) {
            return Err(EIO);
        }
        if self.strikes(self.faults.short_read) && into.len() > SECTOR_BYTES {
            let whole = into.len() / SECTOR_BYTES;
            let done = (self.next() as usize % whole) * SECTOR_BYTES;
            self.device.read(offset, &mut into[..done])?;
            return Err(IoError::Short { done: done as u64, asked: into.len() as u64 });
        }
        self.device.read(offset, into)?;
        if self.strikes(self.faults.bit_rot) && !into.is_empty() {
            let bit = self.next() as usize % (into.len() * 8);
            into[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.begin()?;
        if self.strikes(self.faults.write_error) {
            return Err(EIO);
        }
        if self.strikes(self.faults.no_space) {
            return Err(IoError::NoSpace);
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let torn = self.strikes(self.faults.torn_write);
        let short = self.strikes(self.faults.short_write);
        if (torn || short) && length > SECTOR_BYTES {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let whole = length / SECTOR_BYTES;
            let done = (1 + self.next() as usize % (whole - 1).max(1)) * SECTOR_BYTES;
            self.device.write(offset, &[IoSlice::new(&bytes[..done])])?;
            return if torn {
                Ok(())
            } else {
                Err(IoError::Short { done: done as u64, asked: length as u64 })
            };
        }
        if self.strikes(self.faults.misdirected_write) {
            let capacity = self.device.geometry()?.capacity_bytes;
            let elsewhere = offset + length.next_multiple_of(SECTOR_BYTES) as u64;
            if elsewhere + length as u64 <= capacity {
                return self.device.write(elsewhere, slices);
            }
        }
        self.device.write(offset, slices)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.begin()?;
        if self.strikes(self.faults.flush_error) {
            return Err(EIO);
        }
        if self.strikes(self.faults.lost_flush) { Ok(()) } else { self.device.flush() }
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        self.begin()?;
        self.device.discard(ranges)
    }
}
