//! Devices as the store sees them: extents, where the next record goes, and how far each device is durable.
//!
//! An extent's life: `Free` -> `Open` (records are appended) -> `Full` (no more room, some records still on their way, or not flushed
//! yet) -> `Sealed` (its residents are listed in the journal, which is believed without looking at them) -> `Freeing` (nothing lives in it, the journal says so, not yet
//! durably) -> `Free`. Nothing is written to an extent before its opening stands in the journal, as far as any
//! acknowledgement can tell; nothing is reused before its freeing is durable.
//!
//! Extents are numbered over the whole store (`base + index`), a number that never reaches a device.

use std::collections::VecDeque;
use std::sync::Arc;

use memkv_transport::planted::{self, Bug};

use super::checkpoint::{Rewrite, SuperblockWrite};
use super::command::Geometry;
use super::format::{DATA_OFFSET, Superblock};
use super::journal::{Entry, FRAME_BYTES_MAX, Journal};
use super::types::SECTOR_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentState {
    Free,
    Open,
    Full,
    Sealed,
    Freeing,
    Journal,
}

#[derive(Clone, Debug)]
pub struct Extent {
    pub state: ExtentState,
    /// Which life of this extent it is; rises over the whole store.
    pub seq: u64,
    /// Of its visible records.
    pub live_bytes: u32,
    /// Records placed in it that are not visible or given up yet.
    pub pending: u32,
    /// Commands in flight and pins: reasons why its bytes must stay as they are.
    pub busy: u32,
    /// The device's count of completed writes when the last one to this extent completed.
    pub last_write: u64,
    /// The journal position that must be written before a record in it is acknowledged.
    pub opened_at: u64,
    /// `Freeing`, and the journal says so durably.
    pub freed: bool,
}

const FREE: Extent = Extent {
    state: ExtentState::Free,
    seq: 0,
    live_bytes: 0,
    pending: 0,
    busy: 0,
    last_write: 0,
    opened_at: 0,
    freed: false,
};

/// What kind of records an open extent gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// New ones.
    Hot = 0,
    /// Those that outlived their extent.
    Cold = 1,
}

/// What a flush will make durable: how far things were when it began.
#[derive(Clone, Copy, Debug)]
pub struct Flushing {
    pub completed: u64,
    /// Of the journal of this epoch. A checkpoint that ends meanwhile starts another one, with positions of its own.
    pub journal_written: u64,
    pub journal_epoch: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct OpenExtent {
    pub extent: u32,
    pub cursor: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Who goes on when a journal position is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalWaiter {
    /// A record in an extent whose opening was on its way.
    Job(JobId),
    /// Someone who then waits for a flush too.
    Durable(WaitId),
}

/// What the store writes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Of the journal of this epoch.
    Frame {
        epoch: u64,
    },
    Superblock,
}

/// Such a write, kept until it is on its device.
#[derive(Debug)]
pub struct OwnWrite {
    pub what: Own,
    pub offset: u64,
    pub bytes: Arc<[u8]>,
}

pub struct Device {
    /// Where the shell knows it.
    pub slot: u16,
    /// Where the superblock knows it.
    pub index: u16,
    pub geometry: Geometry,
    pub superblock: Superblock,
    pub extent_bytes: usize,
    /// The number of its first extent.
    pub base: u32,
    pub extents: Vec<Extent>,
    /// The next one first.
    pub free: VecDeque<u32>,
    pub open: [Option<OpenExtent>; 2],
    pub journal: Journal,
    /// The chain that is to take its place.
    pub rewrite: Option<Rewrite>,
    pub superblock_write: SuperblockWrite,
    /// What a full file system refused: at most one frame of each chain, and one superblock.
    pub held_back: Vec<OwnWrite>,
    /// When that is tried again.
    pub held_back_until_ms: u64,
    /// The last such write was refused: nothing that is begun here would come to an end now.
    pub full: bool,
    /// Records that are alive, for the length of a rewritten journal.
    pub records: u64,
    pub failed: bool,
    /// Values that could not be read since one last could.
    pub unreadable_in_a_row: u32,
    /// Writes completed, ever.
    pub completed: u64,
    /// `completed` as of the start of the last successful flush.
    pub flushed: u64,
    /// A flush in flight.
    pub flushing: Option<Flushing>,
    /// An interval passed meanwhile: the next one begins when it ends.
    pub flush_due: bool,
    pub flush_waiters: Vec<(u64, WaitId)>,
    /// The generation of the superblock that is durable.
    pub superblock_durable: u64,
    pub superblock_waiters: Vec<(u64, WaitId)>,
    pub journal_waiters: Vec<(u64, JournalWaiter)>,
    pub bytes_in_flight: usize,
    pub packs_in_flight: u32,
    /// Full extents whose records are all decided; they are sealed once a flush covers their writes.
    pub unsealed: Vec<u32>,
    /// Freed extents that are to be discarded first.
    pub discards: Vec<u32>,
    pub discards_in_flight: u32,
    /// The extents of these.
    pub discarding: usize,
}

/// Full extents that may wait for a flush, at most; all of them are read after a crash.
const UNSEALED_MAX: usize = 64;

/// Extents kept back so that the journal can always go on and be rewritten, and moving records never starves.
const RESERVE_EXTENTS: usize = 3;

impl Device {
    pub fn new(slot: u16, geometry: Geometry, superblock: Superblock, base: u32, journal: Journal) -> Self {
        Self {
            slot,
            index: superblock.device_index.get(),
            geometry,
            superblock,
            extent_bytes: superblock.extent_bytes.get() as usize,
            base,
            extents: vec![FREE; superblock.extent_count.get() as usize],
            free: VecDeque::new(),
            open: [None; 2],
            journal,
            rewrite: None,
            superblock_write: SuperblockWrite::default(),
            held_back: Vec::new(),
            held_back_until_ms: 0,
            full: false,
            records: 0,
            failed: false,
            unreadable_in_a_row: 0,
            completed: 0,
            flushed: 0,
            flushing: None,
            flush_due: false,
            flush_waiters: Vec::new(),
            superblock_durable: 0,
            superblock_waiters: Vec::new(),
            journal_waiters: Vec::new(),
            bytes_in_flight: 0,
            packs_in_flight: 0,
            unsealed: Vec::new(),
            discards: Vec::new(),
            discards_in_flight: 0,
            discarding: 0,
        }
    }

    /// The device's byte offset of a place in an extent.
    pub fn offset(&self, extent: u32, offset: usize) -> u64 {
        DATA_OFFSET + u64::from(extent) * self.extent_bytes as u64 + offset as u64
    }

    /// Takes room in the open extent, if there is enough.
    pub fn take_room(&mut self, stream: Stream, span: usize, align: usize) -> Option<(u32, u32)> {
        let open = self.open[stream as usize].as_mut()?;
        let start = open.cursor.next_multiple_of(align);
        if start + span > self.extent_bytes {
            return None;
        }
        open.cursor = start + span;
        Some((open.extent, start as u32))
    }

    /// Adds an entry to the journal.
    pub fn log(&mut self, entry: &Entry) {
        // The journal of a failed device is written no more.
        if self.failed || planted::now_and_then(Bug::JournalEntryLost, 8) {
            return;
        }
        self.journal.append(entry);
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.journal.append(entry);
        }
    }

    /// Free extents that new records may not have.
    pub fn kept_back(&self) -> usize {
        RESERVE_EXTENTS + self.journal_rewrite_extents()
    }

    /// Whether a new extent may be opened for this stream.
    pub fn may_open(&self, stream: Stream) -> bool {
        let reserve = match stream {
            Stream::Hot => self.kept_back(),
            Stream::Cold => self.journal_rewrite_extents() + 1,
        };
        !self.failed && !self.full && self.free.len() > reserve
    }

    /// An extent is free again. Drives take the oldest first, so that all places wear alike; memory the newest, whose bytes may
    /// still be in cache and whose pages are there.
    pub fn give_back(&mut self, extent: u32) {
        match self.geometry.persistent {
            true => self.free.push_back(extent),
            false => self.free.push_front(extent),
        }
    }

    /// Extents that hold nothing a reader or the journal needs.
    pub fn free_extents(&self) -> usize {
        self.free.len()
    }

    /// Those, and the ones that are being discarded first.
    pub fn free_extents_soon(&self) -> usize {
        self.free.len() + self.discards.len() + self.discarding
    }

    /// Extents that a rewritten journal would take.
    pub fn journal_rewrite_extents(&self) -> usize {
        let taken = self.rewrite.as_ref().map_or(0, |rewrite| rewrite.journal.extents.len());
        if self.geometry.persistent { self.journal_live_extents().saturating_sub(taken) } else { 0 }
    }

    /// What the device can hold for records, at most.
    pub fn data_bytes_max(&self) -> u64 {
        let kept = RESERVE_EXTENTS + self.journal.extents.len() + usize::from(self.journal.spare.is_some());
        self.extents.len().saturating_sub(kept) as u64 * self.extent_bytes as u64
    }

    /// Whether a flush is due for the sake of extents that wait to be sealed.
    pub fn wants_seal(&self) -> bool {
        let many = self.unsealed.len() >= (self.extents.len() / 32).clamp(1, UNSEALED_MAX);
        let listing = self.rewrite.as_ref().is_some_and(Rewrite::is_listing);
        !self.unsealed.is_empty() && (many || listing || self.free_extents_soon() <= self.low_water())
    }

    pub fn is_discarding(&self) -> bool {
        self.discards_in_flight > 0 || !self.failed && !self.discards.is_empty()
    }

    pub fn state(&self, extent: u32) -> ExtentState {
        self.extents[extent as usize].state
    }

    pub fn is_dirty(&self) -> bool {
        self.geometry.persistent && !self.failed && self.flushed < self.completed
    }
}

/// How many extents fit a device.
pub fn extents_that_fit(capacity_bytes: u64, extent_bytes: u32) -> u64 {
    capacity_bytes.saturating_sub(DATA_OFFSET) / u64::from(extent_bytes)
}

/// The smallest extent: a part of one block with its header, and a journal frame's worth of slack.
pub const EXTENT_BYTES_MIN: u32 = (1 << 20) + (2 * SECTOR_BYTES) as u32;

const _: () = assert!(EXTENT_BYTES_MIN as usize > 2 * FRAME_BYTES_MAX);
