//! A disk in memory that forgets what was not flushed.
//!
//! Owns what is stored, what a loss of power would leave of it, and the writes between two flushes. Invariants: a read
//! sees every completed write; after [`Disk::lose_power`] every byte is one that was flushed, or of a write since, whole, torn
//! at a sector, or missing, in any mixture: a drive may write its cache in any order. That holds of an honest disk; one that
//! is told to by a [`DiskFault`] fails, or lies, once for each.
//!
//! Latency is not its business; the world decides when a command takes place.

use std::collections::BTreeMap;

use memkv_server::store::{Done, IoError, Op};
use memkv_transport::buf::Buf;

use crate::random::Random;

const PAGE_BYTES: usize = 4096;
/// What a drive writes whole or not at all.
const SECTOR_BYTES: usize = 512;

type Pages = BTreeMap<u64, Box<[u8; PAGE_BYTES]>>;

#[derive(Debug)]
pub struct Disk {
    capacity_bytes: u64,
    /// What a reader sees. Pages that were never written are zero.
    current: Pages,
    /// What the last flush made safe.
    durable: Pages,
    /// Completed since, in order.
    unflushed: Vec<Write>,
    /// Numbers completed writes, so that a flush covers those completed before it was submitted.
    completed: u64,
    /// Faults that wait for a command to befall.
    faults: Vec<DiskFault>,
    /// Writes to come that find no space.
    full: u32,
}

/// What a disk does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// A read ends in an error.
    ReadFails,
    /// A write ends in an error and changes nothing.
    WriteFails,
    /// A flush ends in an error and makes nothing safe.
    FlushFails,
    /// A write stops half-way and says so.
    WriteShort,
    /// There is no space for some writes.
    Full,
    /// A write goes to another place, and all seems well.
    WriteMisdirected,
    /// A flush does nothing, and all seems well.
    FlushLost,
    /// A stored bit flips for good.
    BitRot,
}

impl DiskFault {
    /// The faults that the disk owns up to.
    pub const HONEST: [DiskFault; 5] = [
        DiskFault::ReadFails,
        DiskFault::WriteFails,
        DiskFault::FlushFails,
        DiskFault::WriteShort,
        DiskFault::Full,
    ];
    pub const LIES: [DiskFault; 3] = [DiskFault::WriteMisdirected, DiskFault::FlushLost, DiskFault::BitRot];
}

const EIO: IoError = IoError::Failed { errno: 5 };
/// How many writes find a full disk full.
const FULL_WRITES: u32 = 12;

#[derive(Clone, Debug)]
struct Write {
    number: u64,
    offset: u64,
    bytes: Vec<u8>,
}

/// A command's effect, fixed when it is submitted.
#[derive(Debug)]
pub enum Effect {
    Write { offset: u64, bytes: Vec<u8> },
    Flush { completed: u64 },
    Discard { ranges: Vec<(u64, u64)> },
    Read { offset: u64, length: usize },
}

impl Disk {
    pub fn new(capacity_bytes: u64) -> Disk {
        Disk {
            capacity_bytes,
            current: Pages::new(),
            durable: Pages::new(),
            unflushed: Vec::new(),
            completed: 0,
            faults: Vec::new(),
            full: 0,
        }
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// What the command will do when it takes place.
    pub fn submit(&self, op: &Op<Buf>) -> Effect {
        match op {
            Op::Read { offset, length } => Effect::Read { offset: *offset, length: *length },
            Op::Write { offset, segments } => {
                let mut bytes = Vec::new();
                for segment in segments {
                    match segment.bytes() {
                        Some(part) => bytes.extend_from_slice(part),
                        None => bytes.resize(bytes.len() + segment.len(), 0),
                    }
                }
                Effect::Write { offset: *offset, bytes }
            }
            Op::Flush => Effect::Flush { completed: self.completed },
            Op::Discard { ranges } => Effect::Discard { ranges: ranges.clone() },
        }
    }

    /// The next command that this fault can befall suffers it.
    pub fn suffer(&mut self, fault: DiskFault, random: &mut Random) {
        match fault {
            DiskFault::Full => self.full = FULL_WRITES,
            DiskFault::BitRot => self.rot(random),
            fault => self.faults.push(fault),
        }
    }

    /// No fault befalls it any more.
    pub fn heal(&mut self) {
        self.faults.clear();
        self.full = 0;
    }

    fn rot(&mut self, random: &mut Random) {
        let count = self.durable.len() as u64;
        let Some(number) = random.next().checked_rem(count) else { return };
        let Some((page, bytes)) = self.durable.iter_mut().nth(number as usize) else { return };
        let (at, bit) = (random.below(PAGE_BYTES as u64) as usize, 1 << random.below(8));
        bytes[at] ^= bit;
        if let Some(current) = self.current.get_mut(page) {
            current[at] ^= bit;
        }
    }

    fn is_befallen(&mut self, fault: DiskFault) -> bool {
        let found = self.faults.iter().position(|waiting| *waiting == fault);
        found.is_some_and(|place| {
            self.faults.swap_remove(place);
            true
        })
    }

    /// A command takes place.
    pub fn carry_out(&mut self, effect: Effect, random: &mut Random) -> Result<Done, IoError> {
        match effect {
            Effect::Write { offset, bytes } => self.write_or_fail(offset, bytes, random)?,
            Effect::Flush { .. } if self.is_befallen(DiskFault::FlushFails) => return Err(EIO),
            Effect::Flush { .. } if self.is_befallen(DiskFault::FlushLost) => {}
            Effect::Flush { completed } => self.flush(completed),
            Effect::Discard { ranges } => self.discard(&ranges),
            Effect::Read { offset, length } => {
                let mut bytes = vec![0; length];
                self.read_or_fail(offset, &mut bytes)?;
                return Ok(Done::Read(bytes.into()));
            }
        }
        Ok(Done::Ok)
    }

    fn write_or_fail(&mut self, offset: u64, bytes: Vec<u8>, random: &mut Random) -> Result<(), IoError> {
        if self.full > 0 {
            self.full -= 1;
            return Err(IoError::NoSpace);
        }
        if self.is_befallen(DiskFault::WriteFails) {
            return Err(EIO);
        }
        if self.is_befallen(DiskFault::WriteShort) {
            let asked = bytes.len() as u64;
            let done = random.below(asked / SECTOR_BYTES as u64 + 1) * SECTOR_BYTES as u64;
            self.write(offset, bytes[..done.min(asked) as usize].to_vec())?;
            return Err(IoError::Short { done, asked });
        }
        if self.is_befallen(DiskFault::WriteMisdirected) {
            let last = (self.capacity_bytes - bytes.len() as u64) / SECTOR_BYTES as u64;
            return self.write(random.below(last + 1) * SECTOR_BYTES as u64, bytes);
        }
        self.write(offset, bytes)
    }

    pub fn read_or_fail(&mut self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        if self.is_befallen(DiskFault::ReadFails) {
            return Err(EIO);
        }
        self.read(offset, into)
    }

    pub fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Result<(), IoError> {
        self.check(offset, bytes.len())?;
        apply(&mut self.current, offset, &bytes);
        self.completed += 1;
        self.unflushed.push(Write { number: self.completed, offset, bytes });
        Ok(())
    }

    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, into.len())?;
        let mut at = 0;
        while at < into.len() {
            let from = offset + at as u64;
            let inside = (from % PAGE_BYTES as u64) as usize;
            let count = (PAGE_BYTES - inside).min(into.len() - at);
            let part = &mut into[at..at + count];
            match self.current.get(&(from / PAGE_BYTES as u64)) {
                Some(page) => part.copy_from_slice(&page[inside..inside + count]),
                None => part.fill(0),
            }
            at += count;
        }
        Ok(())
    }

    /// Makes the writes up to this number safe.
    pub fn flush(&mut self, completed: u64) {
        let (safe, rest): (Vec<Write>, Vec<Write>) =
            std::mem::take(&mut self.unflushed).into_iter().partition(|write| write.number <= completed);
        for write in safe {
            apply(&mut self.durable, write.offset, &write.bytes);
        }
        self.unflushed = rest;
    }

    /// Everything completed so far is safe: for use before a world begins.
    pub fn flush_all(&mut self) {
        self.flush(self.completed);
    }

    /// Discarded bytes read as zeros, at once and for good: the worst that a drive may do.
    pub fn discard(&mut self, ranges: &[(u64, u64)]) {
        for &(offset, length) in ranges {
            let zeros = vec![0; length as usize];
            if self.check(offset, zeros.len()).is_ok() {
                apply(&mut self.current, offset, &zeros);
                apply(&mut self.durable, offset, &zeros);
            }
        }
    }

    /// The process was killed while this write was under way: any of its sectors may be there.
    pub fn tear(&mut self, offset: u64, bytes: &[u8], random: &mut Random) {
        let kept = tear(offset, bytes, random);
        for (offset, part) in kept {
            if self.write(offset, part).is_err() {
                return;
            }
        }
    }

    /// The power failed.
    pub fn lose_power(&mut self, random: &mut Random) {
        for write in std::mem::take(&mut self.unflushed) {
            match random.below(3) {
                0 => {}
                1 => apply(&mut self.durable, write.offset, &write.bytes),
                _ => {
                    for (offset, part) in tear(write.offset, &write.bytes, random) {
                        apply(&mut self.durable, offset, &part);
                    }
                }
            }
        }
        self.current = self.durable.clone();
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), IoError> {
        let end = offset.checked_add(length as u64).ok_or(IoError::OutOfRange)?;
        if end <= self.capacity_bytes { Ok(()) } else { Err(IoError::OutOfRange) }
    }
}

/// Some of a write's sectors.
fn tear(offset: u64, bytes: &[u8], random: &mut Random) -> Vec<(u64, Vec<u8>)> {
    let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
    // Mostly a prefix, as when the power goes; sometimes any mixture.
    let prefix = random.below(bytes.len() as u64 / SECTOR_BYTES as u64 + 1);
    let mixed = random.below(3) == 0;
    sectors
        .filter(|(at, _)| if mixed { random.below(2) == 0 } else { (*at as u64) < prefix })
        .map(|(at, sector)| (offset + (at * SECTOR_BYTES) as u64, sector.to_vec()))
        .collect()
}

fn apply(pages: &mut Pages, offset: u64, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let to = offset + at as u64;
        let inside = (to % PAGE_BYTES as u64) as usize;
        let count = (PAGE_BYTES - inside).min(bytes.len() - at);
        let page = pages.entry(to / PAGE_BYTES as u64).or_insert_with(|| Box::new([0; PAGE_BYTES]));
        page[inside..inside + count].copy_from_slice(&bytes[at..at + count]);
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte_at(disk: &Disk, offset: u64) -> u8 {
        let mut byte = [0];
        disk.read(offset, &mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn a_flushed_write_survives_and_others_may_not() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..100 {
            let mut disk = Disk::new(1 << 20);
            disk.write(4000, vec![1; 5000]).unwrap();
            disk.flush_all();
            disk.write(4000, vec![2; 5000]).unwrap();
            disk.lose_power(&mut Random::new(seed));
            for offset in [4000, 8999] {
                match byte_at(&disk, offset) {
                    1 => lost += 1,
                    2 => kept += 1,
                    other => panic!("a byte from nowhere: {other}"),
                }
            }
        }
        assert!(lost > 10 && kept > 10, "both happen: {lost} lost, {kept} kept");
    }

    #[test]
    fn a_flush_covers_what_was_completed_when_it_was_submitted() {
        let mut disk = Disk::new(1 << 20);
        disk.write(0, vec![1; 512]).unwrap();
        let Effect::Flush { completed } = disk.submit(&Op::Flush) else { panic!("a flush") };
        disk.write(512, vec![2; 512]).unwrap();
        disk.flush(completed);
        assert_eq!(disk.unflushed.len(), 1);
        assert_eq!(disk.unflushed[0].offset, 512);
    }
}
