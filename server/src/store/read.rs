//! How values get out: plans for whoever reads, and pins that keep the bytes in place meanwhile.
//!
//! A plan says which bytes to read from which devices, and how to check them: the record's header against its tag, the full
//! key's digest and the catalogue's checksum, each block against the checksum in that header. The reader does all of it
//! outside the store's lock, then releases the pin with what it found. Bytes that do not hold are never returned.

use std::ops::Range;

use memkv_transport::cold;
use memkv_transport::planted::{self, Bug};

use super::*;
use smallvec::SmallVec;

use crate::store::format::{Blocks, PACK_ALIGN, Record, ShortBytes, header_bytes};

/// What to read, and the pin to release afterwards.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    pub pin: PinId,
    /// The whole value's; of a manifest, its body's.
    pub value: ValueInfo,
    /// The blocks asked for.
    pub blocks: Range<u32>,
    pub records: SmallVec<[RecordRead; 1]>,
}

/// One record of a plan. All offsets and lengths are multiples of `SECTOR_BYTES`.
#[derive(Clone, Debug)]
pub struct RecordRead {
    pub device: u16,
    /// The bytes with the record's header; of a packed record, with its blocks too.
    pub head_offset: u64,
    pub head_bytes: usize,
    /// The bytes with the wanted blocks; none for a packed record. They may follow the head directly.
    pub data_offset: u64,
    pub data_bytes: usize,
    pub blocks: Blocks<BlockPlace>,
    check: Check,
}

/// Where a wanted block is among the bytes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Its number in the value.
    pub block: u32,
    /// In the head's bytes rather than the data's.
    pub in_head: bool,
    pub at: usize,
    pub length: usize,
}

#[derive(Clone, Debug)]
struct Check {
    secrets: Secrets,
    part_blocks: u32,
    header_at: usize,
    digest: Digest,
    namespace: ShortBytes,
    key: ShortBytes,
    checksum: Checksum,
    extent_seq: u64,
    offset: u32,
    part: u32,
}

/// Why bytes that were read are not those that were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    #[error("the record's header does not hold")]
    Header,
    #[error("another record is in its place")]
    OtherRecord,
    #[error("block {block} does not match its checksum")]
    Block { block: u32 },
}

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Not the bytes that were stored: the value is lost.
    Corrupt(Corrupt),
    /// The device did not answer: the value is lost, unless another attempt may do better.
    Unreadable(IoError),
}

/// Different values of one device that cannot be read, and none between them that can, before the device is given up.
const UNREADABLE_IN_A_ROW_MAX: u32 = 8;

/// A pinned read.
pub(super) struct Pin {
    extents: SmallVec<[u32; 2]>,
    digest: Digest,
    place: Place,
    /// `None` when its parts are on several: then a failure is nobody's.
    device: Option<usize>,
}

impl RecordRead {
    /// Checks the head's bytes; answers the checksums of the record's blocks, with the number of the first.
    pub fn check_head(&self, head: &[u8]) -> Result<(u32, Blocks<Checksum>), Corrupt> {
        let check = &self.check;
        let bytes = head.get(check.header_at..).ok_or(Corrupt::Header)?;
        let record = Record::decode(bytes, &check.secrets, check.part_blocks).ok_or(Corrupt::Header)?;
        let found = (record.extent_seq, record.offset, record.part, record.digest, record.checksum);
        if found != (check.extent_seq, check.offset, check.part, check.digest, check.checksum) {
            return Err(Corrupt::OtherRecord);
        }
        // The digest is keyed and 128 bits wide, and still the full key in the record is compared.
        if (&record.namespace[..], &record.key[..]) != (&check.namespace[..], &check.key[..]) {
            return Err(Corrupt::OtherRecord);
        }
        Ok((record.layout(check.part_blocks).first_block, record.block_checksums))
    }

    /// Checks one block's bytes against the checksums that `check_head` answered.
    pub fn check_block(
        &self,
        checksums: &(u32, Blocks<Checksum>),
        block: u32,
        bytes: &[u8],
    ) -> Result<Checksum, Corrupt> {
        let expected = checksums.1.get((block - checksums.0) as usize).ok_or(Corrupt::Header)?;
        let holds = cold::block_checksum(bytes) == expected.0 || planted::is(Bug::ChecksumUnchecked);
        if holds { Ok(*expected) } else { Err(Corrupt::Block { block }) }
    }

    /// Whether head and data are one run of bytes.
    pub fn is_contiguous(&self) -> bool {
        self.data_bytes > 0 && self.head_offset + self.head_bytes as u64 == self.data_offset
    }
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Plans the read of some of a value's blocks and counts it as used.
    pub fn read(&mut self, now_ms: u64, key: Key<'_>, blocks: Range<u32>) -> Result<ReadPlan, StoreError> {
        self.advance(now_ms);
        let id = self.find_value(key)?;
        self.read_blocks(id, key, blocks)
    }

    /// As [`Store::read`], of the blocks that these bytes lie in: from the first one on, so many at most.
    pub fn read_bytes(
        &mut self,
        now_ms: u64,
        key: Key<'_>,
        bytes: Range<u64>,
        blocks_max: u32,
    ) -> Result<ReadPlan, StoreError> {
        self.advance(now_ms);
        let id = self.find_value(key)?;
        let end = bytes.end.min(self.catalog.view(id).length);
        if bytes.start >= end {
            return Err(StoreError::InvalidRange);
        }
        // A value's length fits 30 bits.
        let block_of = |byte: u64| (byte / BLOCK_BYTES as u64) as u32;
        let (first, last) = (block_of(bytes.start), block_of(end - 1));
        self.read_blocks(id, key, first..last.min(first + blocks_max - 1) + 1)
    }

    fn read_blocks(&mut self, id: EntryId, key: Key<'_>, blocks: Range<u32>) -> Result<ReadPlan, StoreError> {
        let shape = Shape::value(self.catalog.view(id).length);
        if blocks.start >= blocks.end || blocks.end > shape.blocks() {
            return Err(StoreError::InvalidRange);
        }
        self.touch(id);
        self.counters.reads += 1;
        let bytes: usize = blocks.clone().map(|block| shape.block_length(block)).sum();
        self.counters.read_bytes += bytes as u64;
        Ok(self.plan(id, shape, key, blocks))
    }

    /// Leases a value; the plan reads its block checksums, no blocks.
    //= MKV-LEASE-1
    pub fn lookup(
        &mut self,
        now_ms: u64,
        client: ClientId,
        key: Key<'_>,
        lease_ms: u64,
    ) -> Result<ReadPlan, StoreError> {
        self.advance(now_ms);
        let id = self.find_value(key)?;
        self.touch(id);
        let until_ms = self.now_ms + self.config.lease_ms(lease_ms);
        self.leases.take(client, id, until_ms)?;
        Ok(self.plan(id, Shape::value(self.catalog.view(id).length), key, 0..0))
    }

    /// What is stored under a key; it counts as used.
    //= MKV-EX-1
    pub fn exists(&mut self, now_ms: u64, key: Key<'_>) -> Option<ValueInfo> {
        self.advance(now_ms);
        let id = self.find_value(key).ok()?;
        self.touch(id);
        let view = self.catalog.view(id);
        Some(ValueInfo { length: view.length, checksum: view.checksum })
    }

    /// Ends a read.
    pub fn release(&mut self, now_ms: u64, pin: PinId, verdict: Verdict) {
        self.advance(now_ms);
        let Some(pin) = self.pins.remove(&pin) else { return };
        for extent in &pin.extents {
            self.extent_mut(*extent).busy -= 1;
            let (device, local) = self.locate(*extent);
            self.free_if_idle(device, local);
        }
        match verdict {
            Verdict::Good => {
                if let Some(device) = pin.device {
                    self.devices[device].unreadable_in_a_row = 0;
                }
            }
            Verdict::Corrupt(_) => {
                self.counters.corrupt += 1;
                self.lose_if_at(&pin.digest, 0, pin.place);
            }
            Verdict::Unreadable(error) => {
                self.counters.read_errors += 1;
                if error.lasts() {
                    self.lose_if_at(&pin.digest, 0, pin.place);
                    if let Some(device) = pin.device {
                        self.read_failed(device, error);
                    }
                }
            }
        }
    }

    /// Loses what lies in a place, unless it is no longer what was read there.
    pub(super) fn lose_if_at(&mut self, digest: &Digest, part: u32, place: Place) {
        if let Some(id) = self.catalog.find(digest)
            && self.catalog.places(id).get(part as usize) == Some(&place)
        {
            self.lose(id);
        }
    }

    /// A device that gives back nothing of what is asked of it is not waited for to fail a write, too.
    pub(super) fn read_failed(&mut self, device: usize, error: IoError) {
        let target = &mut self.devices[device];
        target.unreadable_in_a_row += 1;
        if error == IoError::Gone || target.unreadable_in_a_row >= UNREADABLE_IN_A_ROW_MAX {
            self.fail_device(device);
        }
    }

    fn find_value(&mut self, key: Key<'_>) -> Result<EntryId, StoreError> {
        check_key(key)?;
        let digest = self.value_digests.digest(key.namespace, key.key);
        let found = self.catalog.find(&digest);
        self.counters.misses += u64::from(found.is_none());
        found.ok_or(StoreError::NotFound)
    }

    /// Plans the read of blocks of an entry, pinned. With an empty range, all its headers.
    pub(super) fn plan(&mut self, id: EntryId, shape: Shape, key: Key<'_>, blocks: Range<u32>) -> ReadPlan {
        let view = self.catalog.view(id);
        let places = self.catalog.places(id);
        let parts = match blocks.is_empty() {
            true => 0..places.len() as u32,
            false if shape.packed() => 0..1,
            false => blocks.start / self.part_blocks..(blocks.end - 1) / self.part_blocks + 1,
        };
        let mut records = SmallVec::with_capacity(parts.len());
        let mut extents: SmallVec<[u32; 2]> = SmallVec::with_capacity(parts.len());
        for part in parts {
            let place = places[part as usize];
            extents.push(place.extent);
            self.extent_mut(place.extent).busy += 1;
            records.push(self.record_read(&view, shape, key, part, place, &blocks));
        }
        let pin = PinId(self.fresh_id());
        let device_of = |extent: &u32| self.locate(*extent).0;
        let first = extents.first().map(device_of);
        let device = first.filter(|first| extents.iter().all(|extent| device_of(extent) == *first));
        self.pins.insert(pin, Pin { extents, digest: view.digest, place: view.place, device });
        let value = ValueInfo { length: view.length, checksum: view.checksum };
        ReadPlan { pin, value, blocks, records }
    }

    fn record_read(
        &self,
        view: &View,
        shape: Shape,
        key: Key<'_>,
        part: u32,
        place: Place,
        wanted: &Range<u32>,
    ) -> RecordRead {
        let (device, local) = self.locate(place.extent);
        let target = &self.devices[device];
        let count = shape.part_range(part, self.part_blocks).len();
        let header = header_bytes(count, key.namespace, key.key);
        let layout = shape.part(part, self.part_blocks, header);
        let start = target.offset(local, place.offset as usize);
        let head_offset = start - start % SECTOR_BYTES as u64;
        let header_at = (start - head_offset) as usize;
        let in_head = shape.packed();
        let mut blocks = Blocks::new();
        for (index, (at, length)) in layout.blocks.iter().enumerate() {
            let block = layout.first_block + index as u32;
            if wanted.contains(&block) {
                blocks.push(BlockPlace { block, in_head, at: *at, length: *length });
            }
        }
        let head_end = if in_head { layout.span } else { header };
        let (mut data_offset, mut data_bytes) = (0, 0);
        if let (false, Some(first), Some(last)) = (in_head, blocks.first().copied(), blocks.last().copied()) {
            data_offset = start + first.at as u64;
            data_bytes = (last.at + last.length - first.at).next_multiple_of(SECTOR_BYTES);
            blocks.iter_mut().for_each(|block| block.at -= first.at);
        } else {
            blocks.iter_mut().for_each(|block| block.at += header_at);
        }
        RecordRead {
            device: target.slot,
            head_offset,
            head_bytes: (header_at + head_end).next_multiple_of(SECTOR_BYTES),
            data_offset,
            data_bytes,
            blocks,
            check: Check {
                secrets: self.secrets,
                part_blocks: self.part_blocks,
                header_at,
                digest: view.digest,
                namespace: key.namespace.into(),
                key: key.key.into(),
                checksum: view.checksum,
                extent_seq: target.extents[local as usize].seq,
                offset: place.offset,
                part,
            },
        }
    }
}

const _: () = assert!(SECTOR_BYTES.is_multiple_of(PACK_ALIGN));
