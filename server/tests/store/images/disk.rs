//! Devices whose every write is logged, and the images that a crash may leave of them.
//!
//! A [`Platter`] follows a log: what was flushed is on its media, every other write is loose. A flush covers exactly the
//! writes that were completed when it was issued, from the moment it is completed. An image is the media with a [`Fate`] for each
//! loose write. Media are shared copy-on-write by region (a superblock, or an extent), so an image costs the regions that its
//! loose writes touch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memkv_server::store::{Geometry, IoError, ReadRequest, ReadResult, SECTOR_BYTES};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::EXTENT;

const DATA_OFFSET: u64 = 1 << 20;
const SECOND_SUPERBLOCK: u64 = 64 << 10;
/// What a drive writes whole.
const ATOM: usize = 512;

/// Some bytes of a device. The number names this very content: it changes with every write.
#[derive(Clone)]
struct Region {
    number: u64,
    bytes: Arc<[u8]>,
}

fn fresh_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn zeros(length: usize) -> Arc<[u8]> {
    static ZEROS: std::sync::OnceLock<[Arc<[u8]>; 2]> = std::sync::OnceLock::new();
    let [sector, extent] =
        ZEROS.get_or_init(|| [vec![0; SECTOR_BYTES].into(), vec![0; EXTENT as usize].into()]);
    Arc::clone(if length == SECTOR_BYTES { sector } else { extent })
}

/// One device's content: two superblocks, then extents.
#[derive(Clone)]
pub struct Medium {
    regions: Vec<Option<Region>>,
}

impl Medium {
    pub fn new(extents: u32) -> Self {
        Self { regions: vec![None; 2 + extents as usize] }
    }

    pub fn capacity_bytes(&self) -> u64 {
        DATA_OFFSET + (self.regions.len() as u64 - 2) * u64::from(EXTENT)
    }

    /// The region of an offset, the place in it, and its length.
    fn locate(offset: u64) -> (usize, usize, usize) {
        match offset {
            0..DATA_OFFSET => {
                let index = usize::from(offset >= SECOND_SUPERBLOCK);
                let at = offset - index as u64 * SECOND_SUPERBLOCK;
                (index, at as usize, SECTOR_BYTES)
            }
            _ => {
                let at = offset - DATA_OFFSET;
                let (extent, at) = (at / u64::from(EXTENT), at % u64::from(EXTENT));
                (2 + extent as usize, at as usize, EXTENT as usize)
            }
        }
    }

    fn change(&mut self, offset: u64, length: usize, change: impl FnOnce(&mut [u8])) {
        let (index, at, region_bytes) = Self::locate(offset);
        assert!(at + length <= region_bytes, "a write stays in its extent");
        let mut region =
            self.regions[index].take().unwrap_or(Region { number: 0, bytes: zeros(region_bytes) });
        region.number = fresh_number();
        change(&mut Arc::make_mut(&mut region.bytes)[at..at + length]);
        self.regions[index] = Some(region);
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.change(offset, bytes.len(), |place| place.copy_from_slice(bytes));
    }

    /// Whole extents become zeros.
    fn discard(&mut self, offset: u64, length: u64) {
        for step in 0..length / u64::from(EXTENT) {
            let (index, at, _) = Self::locate(offset + step * u64::from(EXTENT));
            assert_eq!(at, 0, "whole extents are discarded");
            self.regions[index] = None;
        }
    }

    fn read(&self, offset: u64, length: usize) -> Arc<[u8]> {
        let (index, at, region_bytes) = Self::locate(offset);
        let Some(region) = &self.regions[index] else { return vec![0; length].into() };
        if length == region_bytes { Arc::clone(&region.bytes) } else { region.bytes[at..at + length].into() }
    }

    /// Bytes, with what names them: the region's content and the place in it.
    pub fn peek(&self, offset: u64, length: usize) -> (&[u8], (u64, usize)) {
        let (index, at, _) = Self::locate(offset);
        match &self.regions[index] {
            Some(region) => (&region.bytes[at..at + length], (region.number, at)),
            None => (&[], (0, 0)),
        }
    }
}

/// What happened to the devices, in order.
#[derive(Clone)]
pub enum DiskEvent {
    /// Handed to the device; from now on any of it may be there.
    Write {
        id: u64,
        device: u16,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Discard {
        id: u64,
        device: u16,
        ranges: Vec<(u64, u64)>,
    },
    /// The store was told that the write or discard is done.
    Done {
        id: u64,
    },
    Flush {
        id: u64,
        device: u16,
    },
    /// The store was told that the flush is done.
    Flushed {
        id: u64,
    },
}

impl std::fmt::Debug for DiskEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskEvent::Write { id, device, offset, bytes } => {
                let (region, at, _) = Medium::locate(*offset);
                let magic = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]);
                let kind = ["MKVSUPER", "MKVJ", "MKVR"].into_iter().find(|kind| magic.contains(kind));
                let kind = kind.unwrap_or("blocks");
                let length = bytes.len();
                match region {
                    0 | 1 => write!(f, "write {id}: device {device} superblock {region}"),
                    _ => {
                        let extent = region - 2;
                        write!(
                            f,
                            "write {id}: device {device} extent {extent} at {at}, {length} bytes, {kind}"
                        )
                    }
                }
            }
            DiskEvent::Discard { id, device, ranges } => {
                let extents = ranges.iter().map(|(from, bytes)| (Medium::locate(*from).0 - 2, *bytes));
                write!(f, "discard {id}: device {device} {:?}", extents.collect::<Vec<_>>())
            }
            DiskEvent::Done { id } => write!(f, "done {id}"),
            DiskEvent::Flush { id, device } => write!(f, "flush {id}: device {device}"),
            DiskEvent::Flushed { id } => write!(f, "flushed {id}"),
        }
    }
}

/// The devices of a running store, blocking while it opens; everything done to them is logged.
pub struct Disks {
    pub media: Vec<Medium>,
    pub log: Vec<DiskEvent>,
    next_id: u64,
}

impl Disks {
    /// Whatever is done is numbered from `next_id` on.
    pub fn new(media: Vec<Medium>, next_id: u64) -> Self {
        Self { media, log: Vec::new(), next_id }
    }

    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A command's write, discard or flush took effect.
    pub fn finish(&mut self, event: &DiskEvent) {
        match event {
            DiskEvent::Write { id, device, offset, bytes } => {
                self.media[*device as usize].write(*offset, bytes);
                self.log.push(DiskEvent::Done { id: *id });
            }
            DiskEvent::Discard { id, device, ranges } => {
                let medium = &mut self.media[*device as usize];
                ranges.iter().for_each(|(offset, length)| medium.discard(*offset, *length));
                self.log.push(DiskEvent::Done { id: *id });
            }
            DiskEvent::Flush { id, .. } => self.log.push(DiskEvent::Flushed { id: *id }),
            DiskEvent::Done { .. } | DiskEvent::Flushed { .. } => unreachable!("these are no commands"),
        }
    }

    fn run(&mut self, event: DiskEvent) {
        self.log.push(event.clone());
        self.finish(&event);
    }

    pub fn bytes(&self, device: u16, offset: u64, length: usize) -> Arc<[u8]> {
        self.media[device as usize].read(offset, length)
    }
}

impl memkv_server::store::Disks for Disks {
    fn count(&self) -> u16 {
        self.media.len() as u16
    }

    fn geometry(&self, slot: u16) -> Result<Geometry, IoError> {
        let capacity_bytes = self.media[slot as usize].capacity_bytes();
        Ok(Geometry { capacity_bytes, persistent: true, discard: slot == 1 })
    }

    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, ReadResult)> {
        let read = |request: ReadRequest| {
            let bytes = self.bytes(request.slot, request.offset, request.length);
            (request, Ok(bytes))
        };
        requests.into_iter().map(read).collect()
    }

    fn write(&mut self, slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let id = self.fresh_id();
        self.run(DiskEvent::Write { id, device: slot, offset, bytes: bytes.into() });
        Ok(())
    }

    fn flush(&mut self, slot: u16) -> Result<(), IoError> {
        let id = self.fresh_id();
        self.run(DiskEvent::Flush { id, device: slot });
        Ok(())
    }
}

/// A write or discard that no flush covers yet.
#[derive(Clone)]
struct Loose {
    event: DiskEvent,
    id: u64,
    device: u16,
    done: bool,
}

/// The devices as they are at one place of the log: flushed media, and loose writes.
#[derive(Clone)]
pub struct Platter {
    media: Vec<Medium>,
    loose: Vec<Loose>,
    /// Flushes in flight, with the writes they cover.
    flushes: Vec<(u64, Vec<u64>)>,
}

/// What becomes of a loose write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Dropped,
    /// Its first so many bytes are there, a multiple of 512.
    Head(usize),
    /// All but its first so many bytes are there.
    Tail(usize),
    /// Each sector (or each 512 bytes) is there or not.
    Scattered {
        seed: u64,
        atom: usize,
    },
}

/// What ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The power goes: loose writes may be lost.
    Power,
    /// The process ends: what was done stays.
    Process,
}

impl Platter {
    pub fn new(media: Vec<Medium>) -> Self {
        Self { media, loose: Vec::new(), flushes: Vec::new() }
    }

    /// Whether an image made after this differs from those made before.
    pub fn apply(&mut self, event: &DiskEvent) -> bool {
        match event {
            DiskEvent::Write { id, device, .. } | DiskEvent::Discard { id, device, .. } => {
                self.loose.push(Loose { event: event.clone(), id: *id, device: *device, done: false });
                true
            }
            DiskEvent::Done { id } => {
                self.loose.iter_mut().filter(|loose| loose.id == *id).for_each(|loose| loose.done = true);
                false
            }
            DiskEvent::Flush { id, device } => {
                let covered = self.loose.iter().filter(|loose| loose.device == *device && loose.done);
                self.flushes.push((*id, covered.map(|loose| loose.id).collect()));
                false
            }
            DiskEvent::Flushed { id } => {
                let Some(at) = self.flushes.iter().position(|(flush, _)| flush == id) else { return false };
                let (_, covered) = self.flushes.swap_remove(at);
                let (stable, loose): (Vec<_>, Vec<_>) =
                    self.loose.drain(..).partition(|loose| covered.contains(&loose.id));
                self.loose = loose;
                stable.iter().for_each(|loose| lay_down(&mut self.media, &loose.event, Fate::Kept));
                !stable.is_empty()
            }
        }
    }

    /// A fate for each loose write. One of several manners, so that rare combinations are not that rare.
    pub fn fates(&self, crash: Crash, rng: &mut StdRng) -> Vec<Fate> {
        let count = self.loose.len();
        let share = [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)];
        let torn = [0.0, 0.2, 0.7][rng.random_range(0..3)];
        let mut fates: Vec<_> = (0..count)
            .map(|index| match rng.random_bool(torn) {
                true => self.torn(index, rng),
                false if rng.random_bool(share) => Fate::Kept,
                false => Fate::Dropped,
            })
            .collect();
        if count > 0 {
            let one = rng.random_range(0..count);
            match rng.random_range(0..6) {
                // All but one, one alone, all up to one, all from one on.
                0 => (0..count).for_each(|i| fates[i] = if i == one { Fate::Dropped } else { Fate::Kept }),
                1 => (0..count).for_each(|i| fates[i] = if i == one { Fate::Kept } else { Fate::Dropped }),
                2 => (0..count).for_each(|i| fates[i] = if i < one { Fate::Kept } else { Fate::Dropped }),
                3 => (0..count).for_each(|i| fates[i] = if i < one { Fate::Dropped } else { Fate::Kept }),
                _ => {}
            }
            if rng.random_bool(0.3) {
                fates[one] = self.torn(one, rng);
            }
        }
        if crash == Crash::Process {
            self.loose.iter().zip(&mut fates).filter(|(loose, _)| loose.done).for_each(|(_, fate)| {
                *fate = Fate::Kept;
            });
        }
        fates
    }

    fn torn(&self, index: usize, rng: &mut StdRng) -> Fate {
        let DiskEvent::Write { bytes, .. } = &self.loose[index].event else { return Fate::Dropped };
        let unit = if rng.random_bool(0.5) { ATOM } else { SECTOR_BYTES };
        let units = bytes.len() / unit;
        if units < 2 {
            return Fate::Scattered { seed: rng.random(), atom: ATOM };
        }
        match rng.random_range(0..3) {
            0 => Fate::Head(rng.random_range(1..units) * unit),
            1 => Fate::Tail(rng.random_range(1..units) * unit),
            _ => Fate::Scattered { seed: rng.random(), atom: unit },
        }
    }

    /// What is left after a crash, with these fates. With a seed the writes come in an order of its own.
    pub fn image(&self, fates: &[Fate], order: Option<u64>) -> Vec<Medium> {
        let mut media = self.media.clone();
        let mut indexes: Vec<_> = (0..self.loose.len()).collect();
        if let Some(seed) = order {
            indexes.shuffle(&mut StdRng::seed_from_u64(seed));
        }
        for index in indexes {
            lay_down(&mut media, &self.loose[index].event, fates[index]);
        }
        media
    }

    /// The devices after the process ended with these fates: they go on, with what was done in their caches.
    pub fn outlived(mut self, fates: &[Fate]) -> Self {
        self.flushes.clear();
        for (mut loose, fate) in std::mem::take(&mut self.loose).into_iter().zip(fates) {
            match fate {
                Fate::Kept => {
                    loose.done = true;
                    self.loose.push(loose);
                }
                fate => lay_down(&mut self.media, &loose.event, *fate),
            }
        }
        self
    }

    /// The loose writes, for a report.
    pub fn describe(&self, fates: &[Fate]) -> String {
        let line = |(loose, fate): (&Loose, &Fate)| {
            let done = if loose.done { "done" } else { "in flight" };
            format!("    {:?} ({done}): {fate:?}\n", loose.event)
        };
        self.loose.iter().zip(fates).map(line).collect()
    }
}

fn lay_down(media: &mut [Medium], event: &DiskEvent, fate: Fate) {
    match event {
        DiskEvent::Write { device, offset, bytes, .. } => {
            let medium = &mut media[*device as usize];
            match fate {
                Fate::Kept => medium.write(*offset, bytes),
                Fate::Dropped => {}
                Fate::Head(length) => medium.change(*offset, bytes.len(), |place| {
                    place[..length].copy_from_slice(&bytes[..length]);
                }),
                Fate::Tail(length) => medium.change(*offset, bytes.len(), |place| {
                    place[length..].copy_from_slice(&bytes[length..]);
                }),
                Fate::Scattered { seed, atom } => {
                    let mut rng = StdRng::seed_from_u64(seed);
                    medium.change(*offset, bytes.len(), |place| {
                        for (to, from) in place.chunks_mut(atom).zip(bytes.chunks(atom)) {
                            if rng.random_bool(0.5) {
                                to.copy_from_slice(from);
                            }
                        }
                    });
                }
            }
        }
        DiskEvent::Discard { device, ranges, .. } => {
            if fate == Fate::Kept {
                let medium = &mut media[*device as usize];
                ranges.iter().for_each(|(offset, length)| medium.discard(*offset, *length));
            }
        }
        DiskEvent::Done { .. } | DiskEvent::Flush { .. } | DiskEvent::Flushed { .. } => {}
    }
}
