//! Rewriting a device's journal: a checkpoint is the start of a new chain that lists what is alive.
//!
//! While the new chain is being filled, a few extents at a time, every entry goes to both chains: replaying the new one
//! alone gives the same catalogue, since entries about an extent that is not listed yet say nothing, and those about one that is
//! come after its list. Then: the old chain takes no more frames; what is in the new one is flushed; the superblock
//! points to it and is flushed; the old chain's extents are free. Whoever waited for the old chain meanwhile waits for the new one.
//!
//! Superblocks are written one at a time on a device; a changed membership and a checkpoint may share one.

use super::*;
use crate::store::durability::superblock_offset;
use crate::store::journal::Journal;
use crate::store::space::{JournalWaiter, Own, OwnWrite};

/// A chain of fewer extents is never rewritten.
const CHAIN_EXTENTS_MIN: usize = 4;
/// Entry bytes of the new chain that may wait for the device before more is listed.
const LISTED_AHEAD_BYTES: usize = 1 << 20;

/// A new chain on its way.
pub(super) struct Rewrite {
    pub journal: Journal,
    /// The next extent to list.
    cursor: u32,
    /// Extents opened since then tell their whole life to the new chain themselves.
    since_seq: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Listing,
    /// Everything is listed; up to this position it must be written.
    Writing(u64),
    /// A flush, then the superblock that points to the new chain, are due or in flight.
    Switching,
}

/// The superblock of a device, as it is to be.
#[derive(Default)]
pub(super) struct SuperblockWrite {
    /// It differs from what is on the device.
    pub wanted: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// What it will point to must be durable first. Whether it is to point to the new chain was decided before the flush.
    FlushBefore {
        switch: bool,
    },
    Writing,
    FlushAfter,
}

impl Rewrite {
    /// Whether extents are still to be listed.
    pub fn is_listing(&self) -> bool {
        self.phase == Phase::Listing
    }

    /// Whether the old chain must take no more frames.
    pub fn holds_old(&self) -> bool {
        self.phase != Phase::Listing
    }
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Starts, continues or finishes the rewriting of a device's journal.
    pub(super) fn checkpoint_pump(&mut self, device: usize) {
        let (since_seq, bytes_max) = (self.next_extent_seq, self.config.checkpoint_bytes);
        let target = &mut self.devices[device];
        if target.failed || !target.geometry.persistent {
            return;
        }
        if target.rewrite.is_none() {
            let live = target.journal_live_extents();
            let long = target.journal.extents.len() > CHAIN_EXTENTS_MIN.max(2 * live + 1);
            let due = long || target.journal.written - target.journal.listed > bytes_max;
            if !due || self.stopping.is_some() || target.free.len() <= live + 1 {
                return;
            }
            let Some(extent) = target.free.pop_front() else { return };
            target.extents[extent as usize].state = ExtentState::Journal;
            let journal = Journal::new(target.journal.epoch + 1, extent, target.extent_bytes, true);
            target.rewrite = Some(Rewrite { journal, cursor: 0, since_seq, phase: Phase::Listing });
        }
        self.list_some(device);
        self.frame_pump(device, true);
        let target = &mut self.devices[device];
        let idle = !target.journal.is_writing();
        if let Some(rewrite) = &mut target.rewrite
            && let Phase::Writing(position) = rewrite.phase
            && rewrite.journal.written >= position
            && idle
        {
            rewrite.phase = Phase::Switching;
            target.superblock_write.wanted = true;
        }
        self.superblock_pump(device);
    }

    /// Lists some more sealed extents in the new chain.
    fn list_some(&mut self, device: usize) {
        loop {
            let target = &self.devices[device];
            let Some(rewrite) = &target.rewrite else { return };
            if rewrite.phase != Phase::Listing || rewrite.journal.pending_bytes() > LISTED_AHEAD_BYTES {
                return;
            }
            let local = rewrite.cursor;
            if local as usize == target.extents.len() {
                let Some(rewrite) = &mut self.devices[device].rewrite else { return };
                rewrite.journal.want();
                rewrite.phase = Phase::Writing(rewrite.journal.appended);
                return;
            }
            let younger = target.extents[local as usize].seq >= rewrite.since_seq;
            let entries = match target.state(local) {
                ExtentState::Free | ExtentState::Journal => Vec::new(),
                _ if younger => Vec::new(),
                // Dead records of an extent that is not sealed stand in the old chain alone: it is sealed first.
                ExtentState::Open => {
                    self.close_open(device, Stream::Hot);
                    self.close_open(device, Stream::Cold);
                    continue;
                }
                ExtentState::Full => return,
                ExtentState::Sealed | ExtentState::Freeing => self.listing(device, local),
            };
            self.define_namespaces(device, &entries, true);
            let Some(rewrite) = &mut self.devices[device].rewrite else { return };
            entries.iter().for_each(|entry| rewrite.journal.append(entry));
            rewrite.cursor += 1;
        }
    }

    /// Writes the superblock when it is wanted: flush, write, flush.
    pub(super) fn superblock_pump(&mut self, device: usize) {
        let target = &mut self.devices[device];
        let write = &mut target.superblock_write;
        if target.failed || !write.wanted || write.stage != Stage::Idle {
            return;
        }
        let switch = target.rewrite.as_ref().is_some_and(|rewrite| rewrite.phase == Phase::Switching);
        write.wanted = false;
        write.stage = Stage::FlushBefore { switch };
        self.issue(device, Op::Flush, InFlight::Superblock { device });
    }

    pub(super) fn superblock_step(&mut self, device: usize, result: Result<(), IoError>) {
        if result.is_err() {
            return self.fail_device(device);
        }
        let (generation, members, clean) = (self.generation, self.members(), self.closing);
        let target = &mut self.devices[device];
        if target.failed {
            return;
        }
        match target.superblock_write.stage {
            Stage::Idle => debug_assert!(false, "a superblock's step has a stage"),
            Stage::FlushBefore { switch } => {
                if let Some(rewrite) = target.rewrite.as_ref().filter(|_| switch) {
                    target.superblock.journal_epoch = rewrite.journal.epoch.into();
                    target.superblock.journal_extent = rewrite.journal.extents[0].into();
                }
                let bytes = target.next_superblock(generation, members, clean);
                let offset = superblock_offset(target.superblock.sequence.get());
                target.superblock_write.stage = Stage::Writing;
                self.write_own(device, OwnWrite { what: Own::Superblock, offset, bytes: bytes.into() });
            }
            Stage::Writing => {
                target.superblock_write.stage = Stage::FlushAfter;
                self.issue(device, Op::Flush, InFlight::Superblock { device });
            }
            Stage::FlushAfter => {
                target.superblock_write.stage = Stage::Idle;
                let epoch = target.superblock.journal_epoch.get();
                if target.rewrite.as_ref().is_some_and(|rewrite| rewrite.journal.epoch == epoch) {
                    self.switch_journal(device);
                }
                self.superblock_written(device);
            }
        }
    }

    /// The superblock points to the new chain, durably.
    fn switch_journal(&mut self, device: usize) {
        let target = &mut self.devices[device];
        let Some(rewrite) = target.rewrite.take() else { return };
        let old = std::mem::replace(&mut target.journal, rewrite.journal);
        target.journal.listed = target.journal.written;
        self.counters.checkpoints += 1;
        for extent in old.extents.iter().chain(&old.spare) {
            target.extents[*extent as usize].state = ExtentState::Free;
            target.free.push_back(*extent);
        }
        // Positions of the old chain mean: everything appended to the new one so far.
        let now = target.journal.appended;
        let translate = |position: u64, reached: u64| if position > reached { now } else { 0 };
        target.journal.removals = translate(old.removals, old.durable);
        target.journal.manifest_removals = translate(old.manifest_removals, old.durable);
        for extent in &mut target.extents {
            extent.opened_at = translate(extent.opened_at, old.durable);
        }
        if !target.journal_waiters.is_empty() {
            target.journal.want();
        }
        for (position, waiter) in &mut target.journal_waiters {
            debug_assert!(matches!(waiter, JournalWaiter::Job(_) | JournalWaiter::Durable(_)));
            *position = now;
        }
        // Those may be reached already.
        self.wake_journal_waiters(device);
    }

    /// The devices that belong to the store now.
    fn members(&self) -> u64 {
        self.devices.iter().filter(|device| !device.failed).map(|device| 1 << device.index).sum()
    }
}

impl Device {
    /// Extents that a chain of what is alive would take, at the most.
    pub(super) fn journal_live_extents(&self) -> usize {
        let bytes = self.records * 48 + self.extents.len() as u64 * 64;
        // Frames are padded to sectors, and a little of each extent's end is left.
        (bytes * 9 / 8).div_ceil((self.extent_bytes - super::journal::FRAME_BYTES_MAX) as u64) as usize + 1
    }
}
