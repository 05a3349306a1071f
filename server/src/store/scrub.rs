//! Rereading what is stored, an extent at a time, so that damage is found before a reader meets it.
//!
//! A plan names the bytes of one extent and what lives in them; whoever runs it reads and verifies outside the store's lock. The
//! extent is pinned meanwhile. A record that moves during a pass may be passed over: when it is moved only its header is looked at, and
//! its blocks, with the checksums they had, wait for a reader or the next pass.
//! What does not hold is lost, with the manifests that name it, and counted.

use super::*;
use crate::store::format::Record;

/// How far a pass has come: device and extent by their own numbers, so that it outlives the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrubCursor {
    /// The device's index in the store.
    pub device: u16,
    pub extent: u32,
}

/// The live records of one extent.
#[derive(Clone, Debug)]
pub struct ExtentPlan {
    /// The device's slot.
    pub device: u16,
    /// On the device, multiples of `SECTOR_BYTES`.
    pub offset: u64,
    pub length: usize,
    /// Of the whole store.
    extent: u32,
    /// Of `offset`, in the extent.
    start: usize,
    extent_bytes: usize,
    secrets: Secrets,
    part_blocks: u32,
    /// By their offsets.
    records: Vec<Expected>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub id: EntryId,
    digest: Digest,
    checksum: Checksum,
    extent_seq: u64,
    pub offset: u32,
    pub part: u32,
}

/// A record that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The device's slot.
    pub device: u16,
    /// Of the whole store.
    pub(super) extent: u32,
    pub offset: u32,
    pub(super) digest: Digest,
    pub(super) part: u32,
    pub wrong: Wrong,
    /// Namespace and key, or a manifest's name, if the record still tells.
    pub name: Option<RecordName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordName {
    pub namespace: Vec<u8>,
    pub key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error("cannot be read: {0}")]
    Unreadable(#[from] IoError),
}

fn name(record: Record) -> RecordName {
    RecordName { namespace: record.namespace.into_vec(), key: record.key.into_vec() }
}

impl ExtentPlan {
    pub fn records(&self) -> usize {
        self.records.len()
    }

    pub(super) fn extent(&self) -> u32 {
        self.extent
    }

    /// Verifies bytes that were read from this plan's place.
    pub fn verify(&self, bytes: &[u8]) -> Vec<Damage> {
        self.verify_each(bytes, |_, _| {})
    }

    pub(super) fn verify_each(&self, bytes: &[u8], mut good: impl FnMut(&Expected, Record)) -> Vec<Damage> {
        let mut damage = Vec::new();
        for expected in &self.records {
            let at = expected.offset as usize - self.start;
            match self.verify_one(expected, bytes.get(at..).unwrap_or_default()) {
                Ok(record) => good(expected, record),
                Err((wrong, name)) => damage.push(self.damage(expected, Wrong::Corrupt(wrong), name)),
            }
        }
        damage
    }

    fn verify_one(&self, expected: &Expected, bytes: &[u8]) -> Result<Record, (Corrupt, Option<RecordName>)> {
        let record = Record::decode(bytes, &self.secrets, self.part_blocks).ok_or((Corrupt::Header, None))?;
        let found = (record.extent_seq, record.offset, record.part, record.digest, record.checksum);
        let Expected { extent_seq, offset, part, digest, checksum, .. } = *expected;
        if found != (extent_seq, offset, part, digest, checksum) {
            return Err((Corrupt::OtherRecord, None));
        }
        let layout = record.layout(self.part_blocks);
        let wrong = (layout.first_block..).zip(layout.blocks.iter().zip(&record.block_checksums)).find(
            |(_, ((at, length), sum))| {
                bytes.get(*at..at + length).is_none_or(|block| Checksum::of_block(block) != **sum)
            },
        );
        if let Some((block, _)) = wrong {
            return Err((Corrupt::Block { block }, Some(name(record))));
        }
        if record.part_count == 1 && Checksum::of_blocks(&record.block_checksums) != record.checksum {
            return Err((Corrupt::Header, Some(name(record))));
        }
        Ok(record)
    }

    /// When the bytes cannot be read in one piece: a plan for each record.
    pub fn split(&self) -> Vec<ExtentPlan> {
        let end = self.start + self.length;
        let ends = self.records.iter().skip(1).map(|next| next.offset as usize).chain([end]);
        let piece = |(expected, next): (&Expected, usize)| {
            let start = expected.offset as usize - expected.offset as usize % SECTOR_BYTES;
            let end = next.next_multiple_of(SECTOR_BYTES).min(self.extent_bytes);
            ExtentPlan {
                offset: self.offset - self.start as u64 + start as u64,
                length: end - start,
                start,
                records: vec![*expected],
                ..self.clone()
            }
        };
        self.records.iter().zip(ends).map(piece).collect()
    }

    /// What is to be said of the plan's records when none of its bytes can be read.
    pub fn unreadable(&self, error: IoError) -> Vec<Damage> {
        self.records.iter().map(|expected| self.damage(expected, Wrong::Unreadable(error), None)).collect()
    }

    fn damage(&self, expected: &Expected, wrong: Wrong, name: Option<RecordName>) -> Damage {
        let Expected { digest, offset, part, .. } = *expected;
        Damage { device: self.device, extent: self.extent, offset, digest, part, wrong, name }
    }
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// The next extent at or behind the cursor in which something lives, pinned; the cursor moves behind it. `None`: the pass is
    /// over.
    pub fn scrub_next(&mut self, cursor: &mut ScrubCursor) -> Option<ExtentPlan> {
        for device in 0..self.devices.len() {
            let target = &self.devices[device];
            if target.failed || target.index < cursor.device {
                continue;
            }
            let from = if target.index == cursor.device { cursor.extent } else { 0 };
            let (index, count) = (target.index, target.extents.len() as u32);
            for local in from..count {
                *cursor = ScrubCursor { device: index, extent: local + 1 };
                if let Some(plan) = self.extent_plan(device, local) {
                    self.devices[device].extents[local as usize].busy += 1;
                    return Some(plan);
                }
            }
            *cursor = ScrubCursor { device: index + 1, extent: 0 };
        }
        None
    }

    /// Ends a plan: unpins its extent, and what was damaged is lost, unless it went or was written anew meanwhile.
    pub fn scrub_done(&mut self, now_ms: u64, plan: &ExtentPlan, damage: &[Damage]) {
        self.advance(now_ms);
        self.extent_mut(plan.extent).busy -= 1;
        let (device, local) = self.locate(plan.extent);
        self.free_if_idle(device, local);
        let mut unreadable = Vec::new();
        for damage in damage {
            let place = Place { extent: damage.extent, offset: damage.offset };
            match damage.wrong {
                Wrong::Corrupt(_) => {
                    self.counters.corrupt += 1;
                    self.lose_if_at(&damage.digest, damage.part, place);
                }
                Wrong::Unreadable(error) => {
                    self.counters.read_errors += 1;
                    if error.lasts() {
                        self.lose_if_at(&damage.digest, damage.part, place);
                        unreadable.push(error);
                    }
                }
            }
        }
        // Bad places lie together: many of one extent are no more than one.
        match unreadable.first() {
            Some(error) if unreadable.len() == plan.records.len() => self.read_failed(device, *error),
            Some(_) | None => self.devices[device].unreadable_in_a_row = 0,
        }
    }

    /// Extents that a whole pass visits.
    pub fn scrub_extents(&self) -> u64 {
        let extents = self.devices.iter().filter(|device| !device.failed).flat_map(|device| &device.extents);
        extents.filter(|extent| extent.live_bytes > 0).count() as u64
    }

    /// What lives in an extent; nothing of one that is being emptied.
    pub(super) fn extent_plan(&self, device: usize, local: u32) -> Option<ExtentPlan> {
        let target = &self.devices[device];
        match target.state(local) {
            ExtentState::Open | ExtentState::Full | ExtentState::Sealed => {}
            ExtentState::Free | ExtentState::Freeing | ExtentState::Journal => return None,
        }
        let extent = target.base + local;
        let extent_seq = target.extents[local as usize].seq;
        let mut records = Vec::new();
        let mut end = 0;
        for (id, part) in self.catalog.residents(extent) {
            let view = self.catalog.view(id);
            let place = self.catalog.places(id)[part as usize];
            let Place { offset, .. } = place;
            end = end.max(self.end_at_most(id, part, offset as usize, target.extent_bytes));
            let (digest, checksum) = (view.digest, view.checksum);
            records.push(Expected { id, digest, checksum, extent_seq, offset, part });
        }
        records.sort_unstable_by_key(|record| record.offset);
        let first = records.first()?.offset as usize;
        let start = first - first % SECTOR_BYTES;
        Some(ExtentPlan {
            device: target.slot,
            offset: target.offset(local, start),
            length: end - start,
            extent,
            start,
            extent_bytes: target.extent_bytes,
            secrets: self.secrets,
            part_blocks: self.part_blocks,
            records,
        })
    }
}
