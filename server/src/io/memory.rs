//! A device in memory: nothing survives the process.
//!
//! Memory is taken by the megabyte when it is first written, and given back by a discard. Each megabyte has its own
//! lock, so copies of different values run side by side.

use std::io::IoSlice;
use std::sync::{PoisonError, RwLock};

use super::Device;
use crate::store::{Geometry, IoError};

const CHUNK_BYTES: usize = 1 << 20;

type Chunk = RwLock<Option<Box<[u8]>>>;

pub struct MemoryDevice {
    capacity_bytes: u64,
    chunks: Vec<Chunk>,
}

impl MemoryDevice {
    /// The capacity is rounded down to whole megabytes.
    pub fn new(capacity_bytes: u64) -> Self {
        let count = (capacity_bytes / CHUNK_BYTES as u64) as usize;
        let chunks = (0..count).map(|_| RwLock::new(None)).collect();
        Self { capacity_bytes: count as u64 * CHUNK_BYTES as u64, chunks }
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let end = offset.checked_add(length).ok_or(IoError::OutOfRange)?;
        if end > self.capacity_bytes { Err(IoError::OutOfRange) } else { Ok(()) }
    }
}

impl Device for MemoryDevice {
    fn geometry(&self) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: false, discard: false })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, into.len() as u64)?;
        let mut at = offset as usize;
        let mut rest = into;
        while !rest.is_empty() {
            let from = at % CHUNK_BYTES;
            let (part, after) = rest.split_at_mut(rest.len().min(CHUNK_BYTES - from));
            let chunk = self.chunks[at / CHUNK_BYTES].read().unwrap_or_else(PoisonError::into_inner);
            match chunk.as_deref() {
                Some(bytes) => part.copy_from_slice(&bytes[from..from + part.len()]),
                None => part.fill(0),
            }
            at += part.len();
            rest = after;
        }
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.check(offset, slices.iter().map(|slice| slice.len() as u64).sum())?;
        let mut at = offset as usize;
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let to = at % CHUNK_BYTES;
                let (part, after) = rest.split_at(rest.len().min(CHUNK_BYTES - to));
                let mut chunk = self.chunks[at / CHUNK_BYTES].write().unwrap_or_else(PoisonError::into_inner);
                let bytes = chunk.get_or_insert_with(|| vec![0; CHUNK_BYTES].into());
                bytes[to..to + part.len()].copy_from_slice(part);
                at += part.len();
                rest = after;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        for (offset, length) in ranges {
            self.check(*offset, *length)?;
            let first = (*offset as usize).div_ceil(CHUNK_BYTES);
            let last = (*offset + *length) as usize / CHUNK_BYTES;
            for chunk in self.chunks.get(first..last).unwrap_or_default() {
                *chunk.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cross_chunks_and_ends_are_refused() {
        let device = MemoryDevice::new((2 << 20) + 5);
        let bytes: Vec<u8> = (0..12288).map(|n| n as u8).collect();
        device
            .write((1 << 20) - 4096, &[IoSlice::new(&bytes[..5000]), IoSlice::new(&bytes[5000..])])
            .unwrap();
        let mut back = vec![9; 16384];
        device.read((1 << 20) - 8192, &mut back).unwrap();
        assert_eq!(back[..4096], [0; 4096]);
        assert_eq!(back[4096..], bytes[..]);
        assert_eq!(device.write(2 << 20, &[IoSlice::new(&[0; 4096])]), Err(IoError::OutOfRange));
        assert_eq!(device.read(u64::MAX, &mut back), Err(IoError::OutOfRange));
        device.discard(&[(0, 2 << 20)]).unwrap();
        device.read((1 << 20) - 8192, &mut back).unwrap();
        assert_eq!(back, [0; 16384]);
    }
}
