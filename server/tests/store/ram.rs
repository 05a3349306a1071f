//! A device in memory that outlives its store: what a test writes to a device, in sectors, with a cache that a crash may lose.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memkv_server::io::Device;
use memkv_server::store::{Geometry, IoError, SECTOR_BYTES};
use rand::Rng;
use rand::rngs::StdRng;

type Sector = Box<[u8; SECTOR_BYTES]>;

#[derive(Default)]
struct Sectors {
    seen: HashMap<u64, Sector>,
    stable: HashMap<u64, Sector>,
    /// Written since the last flush.
    loose: Vec<u64>,
}

/// Clones are the same device.
#[derive(Clone)]
pub struct Ram {
    capacity_bytes: u64,
    sectors: Arc<Mutex<Sectors>>,
}

impl Ram {
    pub fn new(capacity_bytes: u64) -> Self {
        Self { capacity_bytes, sectors: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Sectors> {
        self.sectors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&self, offset: u64, length: usize) -> Result<std::ops::Range<u64>, IoError> {
        let sector = SECTOR_BYTES as u64;
        assert!(offset.is_multiple_of(sector) && length.is_multiple_of(SECTOR_BYTES));
        let end = offset.checked_add(length as u64).ok_or(IoError::OutOfRange)?;
        if end > self.capacity_bytes { Err(IoError::OutOfRange) } else { Ok(offset / sector..end / sector) }
    }

    /// The power goes: of what was not flushed, some sectors are there.
    pub fn crash(&self, rng: &mut StdRng) {
        let sectors = &mut *self.lock();
        for at in std::mem::take(&mut sectors.loose) {
            if let (true, Some(sector)) = (rng.random_bool(0.5), sectors.seen.get(&at)) {
                sectors.stable.insert(at, sector.clone());
            }
        }
        sectors.seen = sectors.stable.clone();
    }

    /// One bit of every sector there changes at this rate.
    pub fn rot(&self, rate: f64, rng: &mut StdRng) {
        let sectors = &mut *self.lock();
        let mut places: Vec<_> = sectors.seen.keys().copied().collect();
        places.sort_unstable();
        for at in places {
            if !rng.random_bool(rate) {
                continue;
            }
            let bit = rng.random_range(0..SECTOR_BYTES * 8);
            for side in [&mut sectors.seen, &mut sectors.stable] {
                if let Some(sector) = side.get_mut(&at) {
                    sector[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// Every sector that holds anything but zeros, in order.
    pub fn content(&self) -> Vec<(u64, Vec<u8>)> {
        let sectors = self.lock();
        let filled = sectors.seen.iter().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
        let mut content: Vec<_> =
            filled.map(|(at, bytes)| (at * SECTOR_BYTES as u64, bytes.to_vec())).collect();
        content.sort_unstable();
        content
    }
}

impl Device for Ram {
    fn geometry(&self) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: true, discard: false })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let range = self.range(offset, into.len())?;
        let sectors = self.lock();
        for (at, part) in range.zip(into.chunks_mut(SECTOR_BYTES)) {
            match sectors.seen.get(&at) {
                Some(sector) => part.copy_from_slice(&sector[..]),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let range = self.range(offset, bytes.len())?;
        let mut sectors = self.lock();
        for (at, part) in range.zip(bytes.as_chunks().0) {
            sectors.seen.insert(at, Box::new(*part));
            sectors.loose.push(at);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        let sectors = &mut *self.lock();
        for at in std::mem::take(&mut sectors.loose) {
            if let Some(sector) = sectors.seen.get(&at) {
                sectors.stable.insert(at, sector.clone());
            }
        }
        Ok(())
    }

    fn discard(&self, _ranges: &[(u64, u64)]) -> Result<(), IoError> {
        Ok(())
    }
}
