//! A device in memory: nothing survives the process.
//!
//! **Large payloads are not copied.** A written buffer that fills its block is held as it is, and lent to readers: the memory that
//! a value arrived in is the memory it is kept in and sent from. Copying it in and out took a third of the server's
//! processor time. Everything else is copied into granules; one that was written from beginning to end, as packs of small values
//! are, is lent, too.
//!
//! Invariants: a byte is in at most one held piece; pieces lie over granules, whose bytes there are stale; a granule that pieces cover is
//! given back; one that may be lent is written again only when nobody has a loan of it, else a copy is. So the memory in use is what
//! was written and not discarded, rounded up to granules and blocks. A lent buffer stays as it was lent, whatever is written to its
//! place later. Memory is locked by the region: clones and small copies happen under a lock.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use memkv_transport::buf::{BUFFER_SIZE_BYTES_MAX, Buf, BufMut};
use smallvec::SmallVec;

use super::{Device, io_slices};
use crate::store::{Geometry, IoError, Segment};

const REGION_BYTES: usize = 16 << 20;
const GRANULE_BYTES: usize = 64 << 10;
/// Shorter payloads are copied: what it takes to hold them would be more than the copy.
const HELD_BYTES_MIN: usize = 32 << 10;

const _: () = assert!(GRANULE_BYTES <= BUFFER_SIZE_BYTES_MAX);
const FITS: &str = "a granule is no larger than a buffer may be";

pub struct MemoryDevice {
    capacity_bytes: u64,
    regions: Vec<RwLock<Region>>,
}

/// Offsets are within the region.
#[derive(Default)]
struct Region {
    /// By where they begin.
    pieces: BTreeMap<usize, Piece>,
    granules: Vec<Option<Granule>>,
}

enum Granule {
    /// How far it was written without a gap.
    Open(BufMut, usize),
    Whole(Buf),
}

impl Default for Granule {
    fn default() -> Granule {
        Granule::Open(BufMut::unpooled(GRANULE_BYTES).expect(FITS), 0)
    }
}

impl Granule {
    fn bytes(&self) -> &[u8] {
        match self {
            Granule::Open(bytes, _) => bytes,
            Granule::Whole(bytes) => bytes,
        }
    }

    fn write(&mut self, from: usize, bytes: &[u8]) {
        let (mut own, mut written) = match std::mem::replace(self, Granule::Whole(Buf::default())) {
            Granule::Open(own, written) => (own, written),
            Granule::Whole(shared) => {
                (shared.try_into_mut().unwrap_or_else(|lent| BufMut::copy_of(&lent).expect(FITS)), 0)
            }
        };
        let end = from + bytes.len();
        own[from..end].copy_from_slice(bytes);
        if from <= written {
            written = written.max(end);
        }
        *self =
            if written == GRANULE_BYTES { Granule::Whole(own.freeze()) } else { Granule::Open(own, written) };
    }
}

/// Bytes that are held as they were written.
#[derive(Clone)]
enum Piece {
    Payload(Buf),
    Header(Arc<[u8]>, Range<usize>),
    Zeros(usize),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Payload(bytes) => bytes.len(),
            Piece::Header(_, range) => range.len(),
            Piece::Zeros(length) => *length,
        }
    }

    fn slice(&self, range: Range<usize>) -> Piece {
        match self {
            Piece::Payload(bytes) => Piece::Payload(bytes.slice(range)),
            Piece::Header(bytes, within) => {
                Piece::Header(Arc::clone(bytes), within.start + range.start..within.start + range.end)
            }
            Piece::Zeros(_) => Piece::Zeros(range.len()),
        }
    }

    fn copy_to(&self, from: usize, into: &mut [u8]) {
        match self {
            Piece::Payload(bytes) => into.copy_from_slice(&bytes[from..from + into.len()]),
            Piece::Header(bytes, within) => {
                into.copy_from_slice(&bytes[within.start + from..within.start + from + into.len()]);
            }
            Piece::Zeros(_) => into.fill(0),
        }
    }
}

impl Region {
    /// The piece that holds this byte, and where it begins.
    fn piece_at(&self, at: usize) -> Option<(usize, &Piece)> {
        let (start, piece) = self.pieces.range(..=at).next_back()?;
        (at < start + piece.len()).then_some((*start, piece))
    }

    fn granule(&mut self, index: usize) -> &mut Option<Granule> {
        if self.granules.len() <= index {
            self.granules.resize_with(index + 1, || None);
        }
        &mut self.granules[index]
    }

    /// No piece holds any of these bytes any more.
    fn clear(&mut self, range: &Range<usize>) {
        if let Some((start, piece)) = self.piece_at(range.start) {
            let (left, end) = (range.start - start, start + piece.len());
            let kept = (left > 0).then(|| piece.slice(0..left));
            let right = (end > range.end).then(|| piece.slice(range.end - start..piece.len()));
            self.pieces.remove(&start);
            self.pieces.extend(kept.map(|piece| (start, piece)));
            self.pieces.extend(right.map(|piece| (range.end, piece)));
        }
        while let Some((start, _)) = self.pieces.range(range.clone()).next() {
            let start = *start;
            let Some(piece) = self.pieces.remove(&start) else { break };
            if start + piece.len() > range.end {
                self.pieces.insert(range.end, piece.slice(range.end - start..piece.len()));
            }
        }
    }

    fn copy_in(&mut self, at: usize, bytes: &[u8]) {
        self.clear(&(at..at + bytes.len()));
        let mut done = 0;
        while done < bytes.len() {
            let (index, from) = ((at + done) / GRANULE_BYTES, (at + done) % GRANULE_BYTES);
            let length = (bytes.len() - done).min(GRANULE_BYTES - from);
            let granule = self.granule(index).get_or_insert_default();
            granule.write(from, &bytes[done..done + length]);
            done += length;
        }
    }

    fn hold(&mut self, at: usize, piece: Piece) {
        let range = at..at + piece.len();
        if range.is_empty() {
            return;
        }
        self.clear(&range);
        self.pieces.insert(at, piece);
        for index in range.start / GRANULE_BYTES..=(range.end - 1) / GRANULE_BYTES {
            if self.granule(index).is_some() && self.covered(index) {
                *self.granule(index) = None;
            }
        }
    }

    /// Whether pieces hold every byte of a granule.
    fn covered(&self, index: usize) -> bool {
        let (mut at, end) = (index * GRANULE_BYTES, (index + 1) * GRANULE_BYTES);
        while at < end {
            let Some((start, piece)) = self.piece_at(at) else { return false };
            at = start + piece.len();
        }
        true
    }

    fn read(&self, mut at: usize, mut into: &mut [u8]) {
        while !into.is_empty() {
            let length;
            if let Some((start, piece)) = self.piece_at(at) {
                length = into.len().min(start + piece.len() - at);
                piece.copy_to(at - start, &mut into[..length]);
            } else {
                let next = self.pieces.range(at..).next().map_or(usize::MAX, |(start, _)| start - at);
                length = into.len().min(next).min(GRANULE_BYTES - at % GRANULE_BYTES);
                let from = at % GRANULE_BYTES;
                match self.granules.get(at / GRANULE_BYTES).and_then(Option::as_ref) {
                    Some(granule) => into[..length].copy_from_slice(&granule.bytes()[from..from + length]),
                    None => into[..length].fill(0),
                }
            }
            into = &mut into[length..];
            at += length;
        }
    }

    fn lend(&self, at: usize, length: usize) -> Option<Buf> {
        match self.piece_at(at) {
            Some((start, Piece::Payload(bytes))) if at + length <= start + bytes.len() => {
                Some(bytes.slice(at - start..at - start + length))
            }
            Some((_, Piece::Payload(_) | Piece::Header(..) | Piece::Zeros(_))) => None,
            None => self.lend_granule(at, length),
        }
    }

    fn lend_granule(&self, at: usize, length: usize) -> Option<Buf> {
        let Granule::Whole(bytes) = self.granules.get(at / GRANULE_BYTES)?.as_ref()? else { return None };
        let from = at % GRANULE_BYTES;
        let held = self.pieces.range(at..at + length).next().is_some();
        (from + length <= bytes.len() && !held).then(|| bytes.slice(from..from + length))
    }
}

impl MemoryDevice {
    /// The capacity is rounded down to whole granules.
    pub fn new(capacity_bytes: u64) -> Self {
        let capacity_bytes = capacity_bytes - capacity_bytes % GRANULE_BYTES as u64;
        let count = capacity_bytes.div_ceil(REGION_BYTES as u64) as usize;
        Self { capacity_bytes, regions: (0..count).map(|_| RwLock::default()).collect() }
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), IoError> {
        let end = offset.checked_add(length).ok_or(IoError::OutOfRange)?;
        if end > self.capacity_bytes { Err(IoError::OutOfRange) } else { Ok(()) }
    }

    fn region(&self, offset: u64) -> RwLockReadGuard<'_, Region> {
        self.regions[offset as usize / REGION_BYTES].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn region_mut(&self, offset: u64) -> RwLockWriteGuard<'_, Region> {
        self.regions[offset as usize / REGION_BYTES].write().unwrap_or_else(PoisonError::into_inner)
    }

    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        for (offset, range) in by_region(offset, bytes.len()) {
            self.region_mut(offset).copy_in(offset as usize % REGION_BYTES, &bytes[range]);
        }
    }

    fn hold(&self, offset: u64, piece: &Piece) {
        for (offset, range) in by_region(offset, piece.len()) {
            self.region_mut(offset).hold(offset as usize % REGION_BYTES, piece.slice(range));
        }
    }
}

/// A run of bytes cut where regions end: where each part begins, and which of the bytes it is.
fn by_region(offset: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let part = (length - done).min(REGION_BYTES - at as usize % REGION_BYTES);
        done += part;
        (part > 0).then(|| (at, done - part..done))
    })
}

/// Whether a segment is to be held; its buffer counts as kept then.
fn keep(segment: &Segment<Buf>) -> bool {
    match segment {
        Segment::Payload(bytes) => bytes.len() >= HELD_BYTES_MIN && bytes.keep(),
        Segment::Owned(_) | Segment::Slice(..) | Segment::Zeros(_) => false,
    }
}

impl Device for MemoryDevice {
    /// A discard gives held buffers back to those who receive, and they are used again while they are in cache.
    fn geometry(&self) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.capacity_bytes, persistent: false, discard: true })
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.check(offset, into.len() as u64)?;
        for (offset, range) in by_region(offset, into.len()) {
            self.region(offset).read(offset as usize % REGION_BYTES, &mut into[range]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.check(offset, slices.iter().map(|slice| slice.len() as u64).sum())?;
        let mut at = offset;
        for slice in slices {
            self.copy_in(at, slice);
            at += slice.len() as u64;
        }
        Ok(())
    }

    fn write_segments(&self, offset: u64, segments: &[Segment<Buf>]) -> Result<(), IoError> {
        self.check(offset, segments.iter().map(|segment| segment.len() as u64).sum())?;
        let held: SmallVec<[bool; 8]> = segments.iter().map(keep).collect();
        if !held.contains(&true) {
            return self.write(offset, &io_slices(segments));
        }
        let mut at = offset;
        for (segment, held) in segments.iter().zip(held) {
            match segment {
                Segment::Payload(bytes) if held => self.hold(at, &Piece::Payload(bytes.clone())),
                // Held beside the payload, or they would take a granule.
                Segment::Owned(bytes) => self.hold(at, &Piece::Header(Arc::clone(bytes), 0..bytes.len())),
                Segment::Zeros(length) => self.hold(at, &Piece::Zeros(*length)),
                // A part of something larger would keep all of that.
                Segment::Slice(..) | Segment::Payload(_) => {
                    self.copy_in(at, segment.bytes().unwrap_or_default());
                }
            }
            at += segment.len() as u64;
        }
        Ok(())
    }

    fn lend(&self, offset: u64, length: usize) -> Option<Buf> {
        self.check(offset, length as u64).ok()?;
        self.region(offset).lend(offset as usize % REGION_BYTES, length)
    }

    fn kept_bytes_max(&self) -> usize {
        // A buffer that is held fills seven eighths of its block.
        (self.capacity_bytes + self.capacity_bytes / 7) as usize
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    /// Granules stay: their bytes are as good as any.
    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        for (offset, length) in ranges {
            self.check(*offset, *length)?;
            for (offset, range) in by_region(*offset, *length as usize) {
                let at = offset as usize % REGION_BYTES;
                self.region_mut(offset).clear(&(at..at + range.len()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use memkv_transport::buf::BufPool;

    use super::*;

    #[test]
    fn bytes_cross_regions_and_ends_are_refused() {
        let device = MemoryDevice::new((32 << 20) + 5);
        let bytes: Vec<u8> = (0..12288).map(|n| n as u8).collect();
        device
            .write((16 << 20) - 4096, &[IoSlice::new(&bytes[..5000]), IoSlice::new(&bytes[5000..])])
            .unwrap();
        let mut back = vec![9; 16384];
        device.read((16 << 20) - 8192, &mut back).unwrap();
        assert_eq!(back[..4096], [0; 4096]);
        assert_eq!(back[4096..], bytes[..]);
        assert_eq!(device.write(32 << 20, &[IoSlice::new(&[0; 4096])]), Err(IoError::OutOfRange));
        assert_eq!(device.read(u64::MAX, &mut back), Err(IoError::OutOfRange));
        assert!(device.lend(u64::MAX, 4096).is_none() && device.lend(0, 64 << 20).is_none());
        device.discard(&[(0, 32 << 20)]).unwrap();
        assert_eq!(device.discard(&[(32 << 20, 1)]), Err(IoError::OutOfRange));
    }

    /// SplitMix64.
    fn random(state: &mut u64) -> usize {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize
    }

    /// Records of all kinds, written over one another, read and lent; a plain vector says what is right.
    #[test]
    fn writes_of_every_shape_read_back_as_a_vector_would() {
        const SECTORS: usize = (18 << 20) / 4096;
        for seed in 0..6 {
            let mut state = seed;
            let pool = BufPool::keeping(64 << 20, 32 << 20);
            let device = MemoryDevice::new((SECTORS * 4096) as u64);
            let mut right = vec![0u8; SECTORS * 4096];
            let mut loans: Vec<(Buf, Vec<u8>)> = Vec::new();
            for step in 0..400u32 {
                // Most near the end of a region.
                let base = if random(&mut state).is_multiple_of(4) { 0 } else { SECTORS - 1024 };
                let at = base + random(&mut state) % 700;
                let length = 1 + random(&mut state) % 300_000;
                let offset = at * 4096;
                match random(&mut state) % 4 {
                    0 => {
                        let length = length.next_multiple_of(4096);
                        let mut back = vec![1; length];
                        device.read(offset as u64, &mut back).unwrap();
                        assert!(back == right[offset..offset + length], "seed {seed}, step {step}");
                    }
                    1 => {
                        let length = length.min(70_000);
                        if let Some(loan) = device.lend((offset + 4096) as u64, length) {
                            let expected = right[offset + 4096..offset + 4096 + length].to_vec();
                            assert!(loan[..] == expected[..], "seed {seed}, step {step}");
                            loans.push((loan, expected));
                        }
                    }
                    _ => {
                        let mut payload = pool.try_take(length).unwrap();
                        payload.fill(step as u8);
                        let header: Arc<[u8]> = vec![!(step as u8); 200].into();
                        let payload = payload.freeze();
                        let end = (4096 + length).next_multiple_of(4096);
                        let segments = [
                            Segment::Owned(header.clone()),
                            Segment::Zeros(4096 - 200),
                            Segment::Payload(payload.clone()),
                            Segment::Zeros(end - 4096 - length),
                        ];
                        device.write_segments(offset as u64, &segments).unwrap();
                        right[offset..offset + end].fill(0);
                        right[offset..offset + 200].copy_from_slice(&header);
                        right[offset + 4096..offset + 4096 + length].copy_from_slice(&payload);
                    }
                }
            }
            let mut back = vec![1; right.len()];
            device.read(0, &mut back).unwrap();
            assert!(back == right, "seed {seed}");
            assert!(loans.iter().all(|(loan, expected)| loan[..] == expected[..]), "a loan never changes");
            assert!(!loans.is_empty() && pool.kept_size_bytes() > 0, "something was held and lent");
            // Loans are of kept blocks: they take nothing of the budget.
            assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
            drop(loans);
            device.discard(&[(0, right.len() as u64)]).unwrap();
            assert_eq!(pool.kept_size_bytes(), 0);
            assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
        }
    }

    #[test]
    fn a_granule_that_is_whole_is_lent_and_loans_stay() {
        let device = MemoryDevice::new(1 << 20);
        let write = |offset: usize, byte: u8| {
            device
                .write(offset as u64, &[IoSlice::new(&[byte; 3000]), IoSlice::new(&[!byte; 5192])])
                .unwrap();
        };
        let right = |byte: u8| [[byte; 3000].as_slice(), &[!byte; 5192]].concat();
        let fill = |byte: u8| (0..GRANULE_BYTES).step_by(8192).for_each(|offset| write(offset, byte));
        write(0, 1);
        assert!(device.lend(0, 8192).is_none(), "more may be written to it in place");
        fill(1);
        let loan = device.lend(8192, 8192).unwrap();
        assert_eq!(loan[..], right(1));
        write(8192, 2);
        assert_eq!(loan[..], right(1));
        let mut back = vec![0; 16384];
        device.read(0, &mut back).unwrap();
        assert_eq!(back, [right(1), right(2)].concat());
        assert!(device.lend(8192, 8192).is_none());
        fill(3);
        let place = device.lend(0, 8192).unwrap().as_ptr();
        assert_eq!(device.lend(8192, 8192).unwrap()[..], right(3));
        // Nobody has a loan: the same memory is written again.
        fill(4);
        let loan = device.lend(0, GRANULE_BYTES).unwrap();
        assert!(loan.as_ptr() == place && loan[..8192] == right(4));
        fill(5);
        assert_ne!(device.lend(0, 8192).unwrap().as_ptr(), place);
        assert!(loan[..8192] == right(4));
        // Not what lies in two of them, nor what a held piece lies over.
        device.write(GRANULE_BYTES as u64, &[IoSlice::new(&[6; GRANULE_BYTES])]).unwrap();
        assert!(device.lend(GRANULE_BYTES as u64, GRANULE_BYTES).is_some());
        assert!(device.lend(GRANULE_BYTES as u64 - 4096, 8192).is_none());
        let payload = BufPool::keeping(16 << 20, 4 << 20).try_take(HELD_BYTES_MIN).unwrap().freeze();
        device.write_segments(16384, &[Segment::Payload(payload)]).unwrap();
        assert!(device.lend(8192, 16384).is_none() && device.lend(8192, 8192).is_some());
    }

    #[test]
    fn a_granule_under_held_pieces_is_given_back() {
        let pool = BufPool::keeping(16 << 20, 4 << 20);
        let device = MemoryDevice::new(1 << 20);
        let granules = || {
            let region = device.region(0);
            region.granules.iter().filter(|granule| granule.is_some()).count()
        };
        device.write(0, &[IoSlice::new(&vec![1; 256 << 10])]).unwrap();
        assert_eq!(granules(), 4);
        let payload = pool.try_take(64 << 10).unwrap().freeze();
        for record in 0..2 {
            let header: Arc<[u8]> = vec![2; 100].into();
            let segments = [Segment::Owned(header), Segment::Zeros(3996), Segment::Payload(payload.clone())];
            device.write_segments(record * (68 << 10), &segments).unwrap();
        }
        assert_eq!(granules(), 2, "136 KiB are held: two granules, and a part of a third");
    }
}
