//! What one device says about itself, without opening the store: its superblock, and its space as its journal tells it.
//!
//! Reads alone. Whether the device belongs with others is not judged here.

use std::collections::HashMap;

use super::format::{DATA_OFFSET, SUPERBLOCK_OFFSETS, Secrets, Superblock};
use super::journal::{Entry, Journal};
use super::recovery::{EXTENTS_MIN, GENERATION_FIRST};
use super::space::{ExtentState, extents_that_fit};
use super::{DEVICES_MAX, Disks, IoError, SECTOR_BYTES};

/// Everything before this offset is superblocks, or nothing.
pub const LABEL_BYTES: usize = DATA_OFFSET as usize;

/// A device's superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub format_version: u16,
    pub server_id: [u8; 16],
    pub index: u16,
    /// Devices of the store when it was formatted.
    pub count: u16,
    pub generation: u64,
    pub sequence: u64,
    pub members: u64,
    /// The store was closed in good order.
    pub clean: bool,
    pub extent_bytes: u32,
    pub extents: u32,
    journal_extent: u32,
    journal_epoch: u64,
    secrets: Secrets,
}

impl Label {
    /// The one that counts among those in a device's first [`LABEL_BYTES`], or in as much of them as is there.
    pub fn find(start: &[u8]) -> Option<Label> {
        let places = SUPERBLOCK_OFFSETS.iter().filter_map(|offset| start.get(*offset as usize..));
        let blocks = places.filter_map(Superblock::read);
        blocks.max_by_key(|block| block.sequence.get()).map(|block| Label::of(&block))
    }

    fn of(block: &Superblock) -> Label {
        Label {
            format_version: block.version.get(),
            server_id: block.server_id,
            index: block.device_index.get(),
            count: block.device_count.get(),
            generation: block.generation.get(),
            sequence: block.sequence.get(),
            members: block.members.get(),
            clean: block.flags.get() & 1 != 0,
            extent_bytes: block.extent_bytes.get(),
            extents: block.extent_count.get(),
            journal_extent: block.journal_extent.get(),
            journal_epoch: block.journal_epoch.get(),
            secrets: block.secrets,
        }
    }

    /// The store was formatted and never opened: it holds nothing.
    pub fn is_unused(&self) -> bool {
        self.generation == GENERATION_FIRST
    }

    /// The bytes that the device must have.
    pub fn device_bytes(&self) -> u64 {
        DATA_OFFSET + u64::from(self.extents) * u64::from(self.extent_bytes)
    }

    pub fn is_member(&self, index: u16) -> bool {
        index < DEVICES_MAX && self.members >> index & 1 == 1
    }
}

/// Whether these are all devices of one store, and none of them ever left it.
pub fn are_one_store(labels: &[Label]) -> bool {
    let Some(latest) = labels.iter().max_by_key(|label| label.generation) else { return false };
    let same = |label: &Label| {
        label.server_id == latest.server_id
            && usize::from(label.count) == labels.len()
            && latest.is_member(label.index)
    };
    let mut indexes: Vec<u16> = labels.iter().map(|label| label.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes.len() == labels.len() && labels.iter().all(same)
}

/// The least bytes a device of a new store may have.
pub fn device_bytes_min(extent_bytes: u32) -> u64 {
    DATA_OFFSET + EXTENTS_MIN * u64::from(extent_bytes)
}

/// A device's extents and what the journal lists in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub free: u32,
    pub journal: u32,
    /// Not listed yet: what lives in them only a scan tells.
    pub open: u32,
    pub sealed: u32,
    /// Live records in sealed extents.
    pub records: u64,
    pub record_bytes: u64,
    pub journal_frames: u64,
    pub journal_entries: u64,
}

#[derive(Clone, Default)]
struct Extent {
    state: Option<ExtentState>,
    /// Lengths by offset.
    records: HashMap<u32, u32>,
}

/// Replays the journal of the device in this slot.
pub fn space(disks: &mut dyn Disks, slot: u16, label: &Label) -> Result<Space, IoError> {
    let extent_bytes = label.extent_bytes as usize;
    let fits = extents_that_fit(disks.geometry(slot)?.capacity_bytes, label.extent_bytes.max(1));
    let count = u64::from(label.extents).min(fits) as usize;
    let mut extents = vec![Extent::default(); count];
    let mut journal = Journal::new(label.journal_epoch, label.journal_extent, extent_bytes, true);
    let mut space = Space::default();
    let mut loaded: Option<(u32, std::sync::Arc<[u8]>)> = None;
    loop {
        let (extent, at) = journal.tail();
        if extent as usize >= count {
            break;
        }
        let bytes = match loaded.take() {
            Some((number, bytes)) if number == extent => bytes,
            Some(_) | None => {
                let offset = DATA_OFFSET + u64::from(extent) * extent_bytes as u64;
                disks.read(slot, offset, extent_bytes)?
            }
        };
        let frame = bytes.get(at..).and_then(|bytes| journal.replay(bytes, &label.secrets));
        loaded = Some((extent, bytes));
        let Some(frame) = frame else { break };
        space.journal_frames += 1;
        space.journal_entries += frame.entries.len() as u64;
        frame.entries.into_iter().for_each(|entry| apply(&mut extents, entry));
    }
    for extent in &journal.extents {
        if let Some(extent) = extents.get_mut(*extent as usize) {
            *extent = Extent { state: Some(ExtentState::Journal), records: HashMap::new() };
        }
    }
    for extent in &extents {
        match extent.state {
            None | Some(ExtentState::Free | ExtentState::Freeing) => space.free += 1,
            Some(ExtentState::Journal) => space.journal += 1,
            Some(ExtentState::Open | ExtentState::Full) => space.open += 1,
            Some(ExtentState::Sealed) => space.sealed += 1,
        }
        space.records += extent.records.len() as u64;
        space.record_bytes += extent.records.values().map(|length| u64::from(*length)).sum::<u64>();
    }
    Ok(space)
}

fn apply(extents: &mut [Extent], entry: Entry) {
    let number = match &entry {
        Entry::Opened { extent, .. }
        | Entry::Records { extent, .. }
        | Entry::Sealed { extent, .. }
        | Entry::Freed { extent, .. }
        | Entry::Removed { extent, .. } => *extent,
        Entry::Namespace { .. } => return,
    };
    let Some(extent) = extents.get_mut(number as usize) else { return };
    match entry {
        Entry::Opened { .. } => {
            *extent = Extent { state: Some(ExtentState::Open), records: HashMap::new() };
        }
        Entry::Freed { .. } => *extent = Extent::default(),
        Entry::Sealed { .. } => extent.state = Some(ExtentState::Sealed),
        Entry::Records { records, .. } => {
            extent.records.extend(records.into_iter().map(|record| (record.offset, record.length)));
        }
        Entry::Removed { offset, .. } => {
            extent.records.remove(&offset);
        }
        Entry::Namespace { .. } => {}
    }
}

const _: () = assert!(SUPERBLOCK_OFFSETS[1] as usize + SECTOR_BYTES <= LABEL_BYTES);
