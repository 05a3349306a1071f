//! Formatting devices, and opening what is on them.
//!
//! Opening reads the superblocks, decides which devices belong, replays their journals, scans the extents that were open,
//! takes up the manifests that are whole, and raises the generation on all devices before anything is served. A device that
//! missed a generation in which it was no member is refused: it may have missed deletes.
//!
//! Runs once, before the store serves, over blocking `Disks`.

mod journals;
mod replay;

use std::collections::HashSet;

use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::store::durability::superblock_offset;
use crate::store::format::{DATA_OFFSET, FORMAT_VERSION, SUPERBLOCK_MAGIC, SUPERBLOCK_OFFSETS, Superblock};
use crate::store::journal::Journal;
use crate::store::space::extents_that_fit;
use replay::Replay;

/// The fewest extents a device may have.
pub(super) const EXTENTS_MIN: u64 = 8;
/// That of a store which was never opened.
pub(super) const GENERATION_FIRST: u64 = 1;
/// Extent and record numbers of one generation, at most; the generation makes up the rest.
const GENERATION_SHIFT: u32 = 40;

/// What a newly formatted store is given.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Random.
    pub server_id: [u8; 16],
    /// Random; keys of digests and tags, kept in the superblocks.
    pub secrets: [u8; 32],
}

/// Why a store cannot be formatted or opened at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("there is no device")]
    NoDevices,
    #[error("more than {devices_max} devices")]
    TooManyDevices { devices_max: u16 },
    #[error("the extent size is not a multiple of 4096 between {bytes_min} and {bytes_max}")]
    ExtentSize { bytes_min: u32, bytes_max: u32 },
    #[error("device {slot} has room for {extents} extents; {extents_min} are the least")]
    TooSmall { slot: u16, extents: u64, extents_min: u64 },
    #[error("device {slot}: {error}")]
    Io { slot: u16, error: IoError },
    #[error(
        "{found} of {count} devices are there, and the store was never opened before: it was not made whole"
    )]
    Unfinished { found: u16, count: u16 },
    #[error("none of the devices can be used; the first of them: {first}")]
    Unusable { first: DeviceProblem },
}

/// Why one device is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceProblem {
    #[error("cannot be read: {0}")]
    Unreadable(IoError),
    #[error("has no superblock of a MemKV store")]
    NotFormatted,
    #[error("is of format version {version}, newer than this program's")]
    NewerVersion { version: u16 },
    #[error("belongs to another server")]
    Foreign,
    #[error("left the store in generation {generation} and must be formatted anew")]
    Stale { generation: u64 },
    #[error("is smaller than when it was formatted")]
    Truncated,
    #[error("says it is device {index}, as another one does")]
    Duplicate { index: u16 },
    #[error("does not belong with the others: another extent size")]
    OtherLayout,
    #[error("cannot be written: {0}")]
    Unwritable(IoError),
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Devices left out, by slot. What was on them are misses.
    pub problems: Vec<(u16, DeviceProblem)>,
    /// Devices of the last generation that are not there, by index.
    pub absent: Vec<u16>,
    /// The store was closed in good order.
    pub clean: bool,
    pub values: u64,
    pub manifests: u64,
    pub journal_frames: u64,
    /// Extents that were open and had to be read.
    pub extents_scanned: u64,
    /// Records in them whose header held but whose bytes did not.
    pub torn_records: u64,
    /// Manifests that were not whole and not taken up.
    pub manifests_dropped: u64,
}

/// Makes all devices one empty store. What was on them is lost.
pub fn format(disks: &mut dyn Disks, config: &Config, options: FormatOptions) -> Result<(), OpenError> {
    let count = disks.count();
    if count == 0 {
        return Err(OpenError::NoDevices);
    }
    if count > DEVICES_MAX {
        return Err(OpenError::TooManyDevices { devices_max: DEVICES_MAX });
    }
    if !config.extent_bytes_fit() {
        let (bytes_min, bytes_max) = (space::EXTENT_BYTES_MIN, Place::OFFSET_MAX);
        return Err(OpenError::ExtentSize { bytes_min, bytes_max });
    }
    let mut blocks = Vec::new();
    for slot in 0..count {
        let geometry = disks.geometry(slot).map_err(|error| OpenError::Io { slot, error })?;
        let extents = extents_that_fit(geometry.capacity_bytes, config.extent_bytes);
        if extents < EXTENTS_MIN {
            return Err(OpenError::TooSmall { slot, extents, extents_min: EXTENTS_MIN });
        }
        let extents_max = Place::EXTENTS_MAX / u32::from(DEVICES_MAX);
        blocks.push(first_superblock(slot, count, extents.min(extents_max.into()) as u32, config, &options));
    }
    for (slot, block) in (0..count).zip(&blocks) {
        let write = |disks: &mut dyn Disks| {
            // The older place is cleared, so that no former superblock outranks the new one.
            disks.write(slot, superblock_offset(0), &[0; SECTOR_BYTES])?;
            // Nor is a former journal found where the new one begins.
            disks.write(slot, DATA_OFFSET, &[0; SECTOR_BYTES])?;
            disks.flush(slot)?;
            disks.write(slot, superblock_offset(1), block.as_bytes())?;
            disks.flush(slot)
        };
        write(disks).map_err(|error| OpenError::Io { slot, error })?;
    }
    Ok(())
}

fn first_superblock(
    index: u16,
    count: u16,
    extents: u32,
    config: &Config,
    options: &FormatOptions,
) -> Superblock {
    let mut block = Superblock::new_zeroed();
    block.magic = SUPERBLOCK_MAGIC;
    block.version = FORMAT_VERSION.into();
    block.device_index = index.into();
    block.device_count = count.into();
    block.server_id = options.server_id;
    block.sequence = 1.into();
    block.generation = GENERATION_FIRST.into();
    block.members = all_members(count).into();
    block.extent_bytes = config.extent_bytes.into();
    block.extent_count = extents.into();
    block.data_offset = DATA_OFFSET.into();
    block.part_blocks = ((config.extent_bytes - SECTOR_BYTES as u32) / BLOCK_BYTES as u32).into();
    block.journal_epoch = 1.into();
    block.secrets.digest_key.copy_from_slice(&options.secrets[..16]);
    block.secrets.tag_key.copy_from_slice(&options.secrets[16..]);
    block.seal();
    block
}

fn all_members(count: u16) -> u64 {
    u64::MAX >> (u64::BITS - u32::from(count))
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Opens the store on these devices, in whatever order they come.
    ///
    /// Devices that cannot be used are left out and reported; only when none can be used this is an error.
    pub fn open(now_ms: u64, config: Config, disks: &mut dyn Disks) -> Result<(Self, OpenReport), OpenError> {
        let (mut store, mut report) = Self::load(now_ms, config, disks)?;
        store.raise_generation(disks, &mut report)?;
        store.count_found(&mut report);
        Ok((store, report))
    }

    /// What is on these devices, as it will be when the store is opened. Nothing is written.
    pub(super) fn load(
        now_ms: u64,
        config: Config,
        disks: &mut dyn Disks,
    ) -> Result<(Self, OpenReport), OpenError> {
        let mut report = OpenReport::default();
        let found = find_devices(disks, &mut report);
        let Some(members) = choose_members(found, config.server_id, &mut report) else {
            let first = report
                .problems
                .first()
                .map_or(OpenError::NoDevices, |(_, problem)| OpenError::Unusable { first: *problem });
            return Err(first);
        };
        let first = &members[0].2;
        let (found, count) = (members.len() as u16, first.device_count.get());
        // Opening raises the generation on all devices: in the first one a device that is not there was never formatted.
        if first.generation.get() == GENERATION_FIRST && found < count {
            return Err(OpenError::Unfinished { found, count });
        }
        let mut store = Self::empty(now_ms, config, members);
        Replay::run(&mut store, disks, &mut report);
        store.count_found(&mut report);
        Ok((store, report))
    }

    fn count_found(&self, report: &mut OpenReport) {
        report.values = (self.catalog.len() - self.manifests.len()) as u64;
        report.manifests = self.manifests.len() as u64;
    }

    fn empty(now_ms: u64, config: Config, members: Vec<(u16, Geometry, Superblock)>) -> Self {
        let first = members[0].2;
        let mut devices = Vec::with_capacity(members.len());
        let mut base = 0;
        for (slot, geometry, block) in members {
            let extent_bytes = block.extent_bytes.get() as usize;
            let journal = Journal::new(
                block.journal_epoch.get(),
                block.journal_extent.get(),
                extent_bytes,
                geometry.persistent,
            );
            devices.push(Device::new(slot, geometry, block, base, journal));
            base += block.extent_count.get();
        }
        let capacity: u64 =
            devices.iter().map(|device| (device.extents.len() * device.extent_bytes) as u64).sum();
        Self {
            now_ms,
            server_id: first.server_id,
            generation: first.generation.get(),
            secrets: first.secrets,
            value_digests: ValueDigests::new(first.secrets),
            part_blocks: first.part_blocks.get(),
            devices,
            rotor: 0,
            catalog: Catalog::new(base),
            recency: Recency::new(capacity),
            namespaces: Namespaces::default(),
            manifests: Manifests::default(),
            leases: Leases::new(config.leases_per_client_max, config.leases_max),
            pins: Map::default(),
            counters: Counters::default(),
            next_lsn: 0,
            next_extent_seq: 0,
            next_id: 0,
            jobs: Map::default(),
            writing: Map::default(),
            placing: VecDeque::new(),
            packing: VecDeque::new(),
            allocations: Map::default(),
            allocation_ends: BTreeSet::new(),
            manifest_ops: Map::default(),
            waits: Map::default(),
            waits_ended: 0,
            reclaim: Reclaim::default(),
            in_flight: Map::default(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            next_sync_ms: now_ms,
            stopping: None,
            stop_begun: false,
            closing: false,
            config,
        }
    }

    /// Writes superblocks of the next generation, with exactly the devices that took them as members.
    fn raise_generation(&mut self, disks: &mut dyn Disks, report: &mut OpenReport) -> Result<(), OpenError> {
        loop {
            self.generation += 1;
            let healthy = || self.devices.iter().filter(|device| !device.failed);
            let members: u64 = healthy().map(|device| 1 << device.index).sum();
            let mut refused = Vec::new();
            for (index, device) in self.devices.iter_mut().enumerate().filter(|(_, device)| !device.failed) {
                let bytes = device.next_superblock(self.generation, members, false);
                let offset = superblock_offset(device.superblock.sequence.get());
                // What is behind the journal's end may be a frame that lacks a sector. One of ours that is torn over it could put
                // just that sector in its place, and everything behind it would be true again: so its first one goes.
                let cleared = match device.journal_end() {
                    Some(end) => disks.write(device.slot, end, &[0; SECTOR_BYTES]),
                    None => Ok(()),
                };
                // The superblock that was read may not be flushed, if a process was killed: then it must be before the
                // other place is written, or a loss of power now could take both.
                let written = cleared
                    .and_then(|()| disks.flush(device.slot))
                    .and_then(|()| disks.write(device.slot, offset, &bytes))
                    .and_then(|()| disks.flush(device.slot));
                if let Err(error) = written {
                    refused.push((index, error));
                }
            }
            if refused.is_empty() {
                self.devices.iter_mut().for_each(|device| device.superblock_durable = self.generation);
                break;
            }
            for (index, error) in refused {
                report.problems.push((self.devices[index].slot, DeviceProblem::Unwritable(error)));
                self.fail_device(index);
            }
            if let (true, Some((_, first))) =
                (self.devices.iter().all(|device| device.failed), report.problems.last().copied())
            {
                return Err(OpenError::Unusable { first });
            }
        }
        self.next_lsn = self.generation << GENERATION_SHIFT;
        self.next_extent_seq = self.generation << GENERATION_SHIFT;
        // A client may still name an allocation of the process before: it must not mean another one.
        self.next_id = self.generation << GENERATION_SHIFT;
        Ok(())
    }
}

impl Device {
    /// Where the journal's next frame goes.
    fn journal_end(&self) -> Option<u64> {
        let (extent, at) = self.journal.tail();
        let inside = self.geometry.persistent && (extent as usize) < self.extents.len();
        inside.then(|| self.offset(extent, at))
    }

    /// The superblock after the present one.
    pub(super) fn next_superblock(&mut self, generation: u64, members: u64, clean: bool) -> Vec<u8> {
        let block = &mut self.superblock;
        block.sequence = (block.sequence.get() + 1).into();
        block.generation = generation.into();
        block.members = members.into();
        block.flags = u16::from(clean).into();
        block.seal();
        block.as_bytes().to_vec()
    }
}

type Found = (u16, Geometry, Superblock);

/// Reads every device's superblock.
fn find_devices(disks: &mut dyn Disks, report: &mut OpenReport) -> Vec<Found> {
    let mut found = Vec::new();
    for slot in 0..disks.count().min(DEVICES_MAX) {
        match find_device(disks, slot) {
            Ok((geometry, block)) => found.push((slot, geometry, block)),
            Err(problem) => report.problems.push((slot, problem)),
        }
    }
    found
}

fn find_device(disks: &mut dyn Disks, slot: u16) -> Result<(Geometry, Superblock), DeviceProblem> {
    let geometry = disks.geometry(slot).map_err(DeviceProblem::Unreadable)?;
    let mut best: Option<Superblock> = None;
    for offset in SUPERBLOCK_OFFSETS {
        if offset + SECTOR_BYTES as u64 > geometry.capacity_bytes {
            return Err(DeviceProblem::Truncated);
        }
        let bytes = disks.read(slot, offset, SECTOR_BYTES).map_err(DeviceProblem::Unreadable)?;
        let block = Superblock::read(&bytes);
        best = best.into_iter().chain(block).max_by_key(|block| block.sequence.get());
    }
    let block = best.ok_or(DeviceProblem::NotFormatted)?;
    if block.version.get() > FORMAT_VERSION {
        return Err(DeviceProblem::NewerVersion { version: block.version.get() });
    }
    let fits = extents_that_fit(geometry.capacity_bytes, block.extent_bytes.get().max(1));
    if u64::from(block.extent_count.get()) > fits {
        return Err(DeviceProblem::Truncated);
    }
    Ok((geometry, block))
}

/// Which of the devices make up the store: those of the wanted or else the most common server, of its latest generation.
fn choose_members(
    found: Vec<Found>,
    wanted: Option<[u8; 16]>,
    report: &mut OpenReport,
) -> Option<Vec<Found>> {
    let mut by_server: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    found.iter().for_each(|(_, _, block)| *by_server.entry(block.server_id).or_default() += 1);
    let most_common = by_server.into_iter().max_by_key(|(_, count)| *count).map(|(server, _)| server)?;
    let server = wanted.unwrap_or(most_common);
    let ours = found.iter().filter(|(_, _, block)| block.server_id == server);
    let latest = ours.max_by_key(|(_, _, block)| block.generation.get()).map(|(_, _, block)| *block);
    let Some(latest) = latest else {
        report.problems.extend(found.iter().map(|(slot, ..)| (*slot, DeviceProblem::Foreign)));
        return None;
    };
    report.clean = latest.flags.get() & 1 != 0;
    let mut indexes = HashSet::new();
    let mut members = Vec::new();
    for (slot, geometry, block) in found {
        let index = block.device_index.get();
        let member = index < DEVICES_MAX && latest.members.get() >> index & 1 == 1;
        let layout =
            |block: &Superblock| (block.extent_bytes, block.part_blocks, block.data_offset, block.secrets);
        let problem = if block.server_id != server {
            DeviceProblem::Foreign
        } else if !member {
            DeviceProblem::Stale { generation: block.generation.get() }
        } else if layout(&block) != layout(&latest) {
            DeviceProblem::OtherLayout
        } else if !indexes.insert(index) {
            DeviceProblem::Duplicate { index }
        } else {
            members.push((slot, geometry, block));
            continue;
        };
        report.problems.push((slot, problem));
    }
    report.absent =
        (0..DEVICES_MAX).filter(|i| latest.members.get() >> i & 1 == 1 && !indexes.contains(i)).collect();
    members.sort_by_key(|(_, _, block)| block.device_index.get());
    if let Some((_, _, first)) = members.first_mut() {
        first.generation = latest.generation;
    }
    (!members.is_empty()).then_some(members)
}
