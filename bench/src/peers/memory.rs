//! The yardstick on one host: a copy through memory that two threads share, and a checksum at each side that MemKV makes one on.
//!
//! One thread has the values, as a server has; the other is the client; between them are as many places as values are under way.
//! Reads: the server copies a value into a place, the client checksums it there. Writes: the client checksums a value that
//! lies in a place, the server copies it into its own memory and checksums the copy, for the client could change the original
//! meanwhile. No tags, no messages, no system calls but those of a channel.

use std::sync::mpsc::sync_channel;

use anyhow::{Result, bail, ensure};
use memkv_wire::checksum;

use super::case::{Act, Case, Peer, Sample, contents};

const BLOCK: usize = 1 << 20;

#[derive(Default)]
pub struct Memory {
    /// The server's.
    values: Vec<Vec<u8>>,
    checksums: Vec<Vec<[u8; 16]>>,
    /// What both see.
    places: Vec<Vec<u8>>,
}

fn checksums(bytes: &[u8]) -> Vec<[u8; 16]> {
    bytes.chunks(BLOCK).map(checksum::block).collect()
}

impl Peer for Memory {
    fn name(&self) -> &'static str {
        "bare copy"
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        let contents = contents(case);
        self.values = (0..case.count).map(|n| contents[n % contents.len()].clone()).collect();
        self.checksums = self.values.iter().map(|value| checksums(value)).collect();
        self.places = (0..case.in_flight).map(|n| contents[n % contents.len()].clone()).collect();
        Ok(())
    }

    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample> {
        let bytes = (case.count * case.value_bytes) as u64;
        Sample::of(
            bytes,
            || 0.0,
            || match act {
                Act::Read => self.read(),
                Act::Write => self.write(),
            },
        )
    }
}

impl Memory {
    fn read(&mut self) -> Result<()> {
        let (full, filled) = sync_channel::<(usize, Vec<u8>)>(self.places.len());
        let (empty, emptied) = sync_channel::<Vec<u8>>(self.places.len());
        for place in self.places.drain(..) {
            empty.send(place)?;
        }
        let (values, sums) = (&self.values, &self.checksums);
        std::thread::scope(|scope| {
            let server = scope.spawn(move || -> Result<Vec<Vec<u8>>> {
                for (n, value) in values.iter().enumerate() {
                    let mut place = emptied.recv()?;
                    place.copy_from_slice(value);
                    full.send((n, place))?;
                }
                drop(full);
                Ok(emptied.iter().collect())
            });
            while let Ok((n, place)) = filled.recv() {
                ensure!(checksums(&place) == sums[n], "a checksum does not hold");
                empty.send(place)?;
            }
            drop(empty);
            match server.join() {
                Ok(places) => self.places = places?,
                Err(_) => bail!("a thread panicked"),
            }
            Ok(())
        })
    }

    fn write(&mut self) -> Result<()> {
        let count = self.values.len();
        let (full, filled) = sync_channel::<(Vec<u8>, Vec<[u8; 16]>)>(self.places.len());
        let (empty, emptied) = sync_channel::<Vec<u8>>(self.places.len());
        for place in self.places.drain(..) {
            empty.send(place)?;
        }
        let values = self.values.iter_mut().zip(&mut self.checksums);
        std::thread::scope(|scope| {
            let server = scope.spawn(move || -> Result<()> {
                for (value, kept) in values {
                    let (place, sums) = filled.recv()?;
                    value.copy_from_slice(&place);
                    ensure!(checksums(value) == sums, "a checksum does not hold");
                    *kept = sums;
                    empty.send(place)?;
                }
                Ok(())
            });
            for _ in 0..count {
                let place = emptied.recv()?;
                let sums = checksums(&place);
                full.send((place, sums))?;
            }
            drop(full);
            match server.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a thread panicked"),
            }
            self.places = emptied.iter().collect();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_copied_and_checked() {
        let case = Case { name: "test", value_bytes: 10_000, in_flight: 3, batch: 1, count: 7 };
        let mut memory = Memory::default();
        memory.prepare(&case).unwrap();
        for act in [Act::Read, Act::Write, Act::Read] {
            assert_eq!(memory.pass(&case, act).unwrap().bytes, 70_000);
            assert_eq!(memory.places.len(), 3, "{act:?} gives every place back");
        }
        memory.values[4][99] ^= 1;
        assert!(memory.pass(&case, Act::Read).is_err(), "what is damaged is found");
    }
}
