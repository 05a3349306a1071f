//! What is on the devices, what survives the loss of power, and who waits for it.
//!
//! A wait names positions: writes that must be flushed, journal positions that must be written and then flushed. Waiters that
//! arrive while a flush is in flight share the next one: that is the group commit. A flush covers exactly the writes
//! that were completed when it was handed out. A failed flush fails its device; it is never tried again.
//!
//! A full file system breaks nothing: a frame or a superblock that it refuses is written again later, and is waited for.

use super::*;
use crate::store::format::SUPERBLOCK_OFFSETS;
use crate::store::journal::{ENTRY_RECORDS_MAX, Entry, Listed};
use crate::store::remove::Deletion;
use crate::store::space::{Flushing, JournalWaiter, Own, OwnWrite};

/// Someone who goes on when everything he waits for is durable.
pub(super) struct Wait {
    remaining: u32,
    forced: bool,
    failed: Option<StoreError>,
    then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
    Synced(Ticket),
    Answer(Ticket, Result<Outcome, StoreError>),
    /// The chunks are durable: write the manifest's record.
    ManifestRecord(OpId),
    /// The record is durable: make it visible.
    ManifestVisible(OpId),
    /// What was published under the name before is durably gone: delete the manifest.
    DeleteManifest(Box<Deletion>),
    /// So are all of that many removed records of manifests.
    Settled {
        removals: u64,
    },
    /// Moved records are durable.
    Moved(BatchId),
    /// So is the freeing of their extents.
    Freed(BatchId),
    /// Nothing is in flight and everything is durable: say so in the superblocks.
    Drained(Ticket),
    Stopped(Ticket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// This many completed writes of the device.
    Writes { device: usize, count: u64 },
    /// The device's journal up to here.
    Journal { device: usize, position: u64 },
    /// The device's superblock, as it is wanted now.
    Superblock { device: usize },
}

/// How long a write rests that a full file system refused, unless something is discarded meanwhile.
const HELD_BACK_MS: u64 = 200;

impl<B: AsRef<[u8]> + Clone> Store<B> {
    pub(super) fn wait(&mut self, needs: impl IntoIterator<Item = Need>, then: Then) {
        let id = WaitId(self.fresh_id());
        // Old bytes are overwritten only when the new ones are safe, whatever the clients chose.
        let forced = match then {
            Then::Moved(_) | Then::Freed(_) | Then::Drained(_) | Then::Synced(_) => true,
            Then::DeleteManifest(_) | Then::Settled { .. } => true,
            Then::Answer(..) | Then::ManifestRecord(_) | Then::ManifestVisible(_) | Then::Stopped(_) => false,
        };
        let mut wait = Wait { remaining: 0, forced, failed: None, then };
        for need in needs {
            match need {
                Need::Writes { device, .. } | Need::Journal { device, .. } | Need::Superblock { device }
                    if self.devices[device].failed =>
                {
                    wait.failed = Some(StoreError::DeviceFailed { device: self.devices[device].index });
                }
                Need::Superblock { device } => {
                    self.devices[device].superblock_waiters.push((self.generation, id));
                    wait.remaining += 1;
                }
                Need::Writes { device, count } => {
                    wait.remaining += u32::from(self.wait_flush(device, count, id, forced))
                }
                Need::Journal { device, position } => {
                    let target = &mut self.devices[device];
                    if target.journal.written >= position {
                        let count = target.completed;
                        let durable = target.journal.durable >= position;
                        wait.remaining += u32::from(!durable && self.wait_flush(device, count, id, forced));
                    } else {
                        target.journal_waiters.push((position, JournalWaiter::Durable(id)));
                        target.journal.want();
                        wait.remaining += 1;
                    }
                }
            }
        }
        if wait.remaining == 0 {
            self.go_on(wait.then, wait.failed);
        } else {
            self.waits.insert(id, wait);
        }
    }

    /// Whether there is a flush to wait for.
    fn wait_flush(&mut self, device: usize, count: u64, id: WaitId, forced: bool) -> bool {
        let target = &mut self.devices[device];
        let lazy = self.config.sync != Sync::Always && !forced;
        if !target.geometry.persistent || target.flushed >= count || lazy {
            return false;
        }
        target.flush_waiters.push((count, id));
        true
    }

    fn wait_step(&mut self, id: WaitId, failed: Option<StoreError>) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        wait.remaining -= 1;
        wait.failed = wait.failed.take().or(failed);
        if wait.remaining == 0
            && let Some(wait) = self.waits.remove(&id)
        {
            self.go_on(wait.then, wait.failed);
        }
    }

    fn go_on(&mut self, then: Then, failed: Option<StoreError>) {
        self.waits_ended += 1;
        match (then, failed) {
            (Then::ManifestRecord(op), failed) => self.manifest_chunks_durable(op, failed),
            (Then::ManifestVisible(op), failed) => self.manifest_durable(op, failed),
            (Then::Synced(ticket) | Then::Answer(ticket, _), Some(error)) => self.answer(ticket, Err(error)),
            (Then::Synced(ticket), None) => self.answer(ticket, Ok(Outcome::Synced)),
            (Then::Answer(ticket, result), None) => self.answer(ticket, result),
            // A failed device brings nothing back.
            (Then::DeleteManifest(deletion), _) => self.delete_manifest_now(*deletion),
            (Then::Settled { removals }, _) => self.manifests_settled(removals),
            // When the device failed, there is nothing to free.
            (Then::Moved(batch), None) => self.batch_moved(batch),
            (Then::Freed(batch), None) => self.batch_freed(batch),
            (Then::Moved(batch) | Then::Freed(batch), Some(_)) => {
                self.reclaim.batches.remove(&batch);
            }
            // A failed device is no reason to stay.
            (Then::Drained(ticket), _) => self.drained(ticket),
            (Then::Stopped(ticket), _) => self.answer(ticket, Ok(Outcome::Stopped)),
        }
    }

    pub(super) fn wait_for_everything(&mut self, then: Then) {
        let healthy = self.devices.iter().enumerate().filter(|(_, device)| !device.failed);
        let needs: Vec<_> = healthy
            .flat_map(|(index, device)| {
                let journal = Need::Journal { device: index, position: device.journal.appended };
                [journal, Need::Writes { device: index, count: device.completed }]
            })
            .collect();
        self.wait(needs, then);
    }

    /// The journals' positions that make every removal so far durable.
    ///
    /// A device that failed may come back when the server starts again, with all that it held. One that stays says then that
    /// this one had left; when none stays, nothing can be known to be gone.
    pub(super) fn removal_needs(&self) -> Vec<Need> {
        let lasting = || self.devices.iter().enumerate().filter(|(_, device)| device.geometry.persistent);
        let mut needs = Vec::new();
        if lasting().all(|(_, device)| device.failed)
            && let Some((device, _)) = lasting().next()
        {
            needs.push(Need::Superblock { device });
        }
        for (device, state) in self.devices.iter().enumerate().filter(|(_, device)| !device.failed) {
            if state.journal.removals > state.journal.durable {
                needs.push(Need::Journal { device, position: state.journal.removals });
            }
            // A device that left took values with it: they must not come back.
            if state.geometry.persistent && state.superblock_durable < self.generation {
                needs.push(Need::Superblock { device });
            }
        }
        needs
    }

    /// A superblock reached its device: whoever waited for its generation goes on.
    pub(super) fn superblock_written(&mut self, device: usize) {
        let target = &mut self.devices[device];
        target.superblock_durable = target.superblock.generation.get();
        let generation = target.superblock_durable;
        let waiters = std::mem::take(&mut target.superblock_waiters);
        let (ready, later) = waiters.into_iter().partition::<Vec<_>, _>(|(wanted, _)| *wanted <= generation);
        target.superblock_waiters = later;
        ready.into_iter().for_each(|(_, id)| self.wait_step(id, None));
    }

    /// For `Sync::Interval`: everything written is flushed, nobody waits.
    pub(super) fn flush_all(&mut self) {
        for device in 0..self.devices.len() {
            self.devices[device].journal.want();
            self.journal_pump(device);
            let target = &mut self.devices[device];
            match target.flushing {
                None if target.is_dirty() => self.issue_flush(device),
                None => {}
                // What came since then must not wait for the next interval.
                Some(flushing) => target.flush_due = flushing.completed < target.completed,
            }
        }
    }

    pub(super) fn flush_pump(&mut self, device: usize) {
        let target = &self.devices[device];
        let due = !target.flush_waiters.is_empty() || target.wants_seal() || target.flush_due;
        if target.flushing.is_none() && due && !target.failed {
            self.issue_flush(device);
        }
    }

    fn issue_flush(&mut self, device: usize) {
        let target = &mut self.devices[device];
        target.flush_due = false;
        target.flushing = Some(Flushing {
            completed: target.completed,
            journal_written: target.journal.written,
            journal_epoch: target.journal.epoch,
        });
        self.counters.flushes += 1;
        self.issue(device, Op::Flush, InFlight::Flush { device });
    }

    pub(super) fn flush_ended(&mut self, device: usize, result: Result<(), IoError>) {
        let target = &mut self.devices[device];
        let Some(Flushing { completed, journal_written, journal_epoch }) = target.flushing.take() else {
            return;
        };
        if result.is_err() {
            self.fail_device(device);
            return;
        }
        target.flushed = completed;
        if target.journal.epoch == journal_epoch {
            target.journal.durable = journal_written;
        }
        let (ready, later) =
            target.flush_waiters.drain(..).partition::<Vec<_>, _>(|(count, _)| *count <= completed);
        target.flush_waiters = later;
        let unsealed = std::mem::take(&mut target.unsealed);
        for local in unsealed {
            self.seal_if_settled(self.devices[device].base + local);
        }
        ready.into_iter().for_each(|(_, id)| self.wait_step(id, None));
    }

    pub(super) fn journal_pump(&mut self, device: usize) {
        // Before a switch the old chain stands still.
        if !self.devices[device].rewrite.as_ref().is_some_and(|rewrite| rewrite.holds_old()) {
            self.frame_pump(device, false);
        }
    }

    /// Writes the next frame of a device's journal, or of the one that is to take its place.
    pub(super) fn frame_pump(&mut self, device: usize, rewrite: bool) {
        let (next_lsn, next_seq) = (self.next_lsn, self.next_extent_seq);
        let target = &mut self.devices[device];
        let journal = match (rewrite, &mut target.rewrite) {
            (true, Some(rewrite)) => &mut rewrite.journal,
            (true, None) => return,
            (false, _) => &mut target.journal,
        };
        if target.failed || !journal.wants_frame() {
            return;
        }
        if journal.needs_spare()
            && let Some(extent) = target.free.pop_front()
        {
            target.extents[extent as usize].state = ExtentState::Journal;
            journal.spare = Some(extent);
        }
        let Some(frame) = journal.cut(&self.secrets, next_lsn, next_seq) else {
            // The reserve makes this unreachable; without a journal nothing more can be promised.
            return self.fail_device(device);
        };
        let epoch = journal.epoch;
        let offset = target.offset(frame.extent, frame.offset);
        self.counters.journal_bytes_written += frame.bytes.len() as u64;
        self.write_own(device, OwnWrite { what: Own::Frame { epoch }, offset, bytes: frame.bytes.into() });
    }

    pub(super) fn write_own(&mut self, device: usize, write: OwnWrite) {
        let segments = vec![Segment::Owned(write.bytes.clone())];
        self.issue(device, Op::Write { offset: write.offset, segments }, InFlight::Own { device, write });
    }

    /// A frame or a superblock was written, or not. One that a full file system refused is kept: nothing may take its place, and
    /// whoever waits for it waits on.
    pub(super) fn own_write_ended(&mut self, device: usize, write: OwnWrite, result: Result<(), IoError>) {
        self.devices[device].full = false;
        match (result, write.what) {
            (Err(IoError::NoSpace), _) if !self.devices[device].failed => self.hold_back(device, write),
            (result, Own::Frame { epoch }) => self.journal_ended(device, epoch, result),
            (result, Own::Superblock) => self.superblock_step(device, result),
        }
    }

    fn hold_back(&mut self, device: usize, write: OwnWrite) {
        self.counters.write_errors += 1;
        let target = &mut self.devices[device];
        target.full = true;
        target.held_back.push(write);
        target.held_back_until_ms = self.now_ms + HELD_BACK_MS;
        // What is placed in an extent whose opening is not written would wait, too: let it go elsewhere, or be refused.
        for stream in [Stream::Hot, Stream::Cold] {
            let target = &self.devices[device];
            let opened_at = |open: OpenExtent| target.extents[open.extent as usize].opened_at;
            if target.open[stream as usize].is_some_and(|open| opened_at(open) > target.journal.written) {
                self.close_open(device, stream);
            }
        }
    }

    /// There may be room now for what a full file system refused.
    pub(super) fn write_held_back(&mut self, device: usize) {
        let held_back = std::mem::take(&mut self.devices[device].held_back);
        held_back.into_iter().for_each(|write| self.write_own(device, write));
    }

    pub(super) fn journal_ended(&mut self, device: usize, epoch: u64, result: Result<(), IoError>) {
        if result.is_err() {
            return self.fail_device(device);
        }
        let target = &mut self.devices[device];
        target.completed += 1;
        match &mut target.rewrite {
            Some(rewrite) if rewrite.journal.epoch == epoch => rewrite.journal.frame_written(),
            Some(_) | None => target.journal.frame_written(),
        }
        self.wake_journal_waiters(device);
    }

    /// Those whose position is written go on, or wait for the flush.
    pub(super) fn wake_journal_waiters(&mut self, device: usize) {
        let target = &mut self.devices[device];
        let (written, completed) = (target.journal.written, target.completed);
        let waiters = std::mem::take(&mut target.journal_waiters);
        let (ready, later) = waiters.into_iter().partition::<Vec<_>, _>(|(position, _)| *position <= written);
        target.journal_waiters = later;
        for (_, waiter) in ready {
            match waiter {
                JournalWaiter::Job(job) => self.job_write_ended(job, device, Ok(())),
                JournalWaiter::Durable(id) => {
                    let forced = self.waits.get(&id).is_some_and(|wait| wait.forced);
                    if !self.wait_flush(device, completed, id, forced) {
                        self.wait_step(id, None);
                    }
                }
            }
        }
    }

    /// A write to an extent ended, well or not.
    pub(super) fn write_ended(&mut self, device: usize, local: u32, result: Result<(), IoError>) {
        let target = &mut self.devices[device];
        let extent = &mut target.extents[local as usize];
        extent.busy -= 1;
        match result {
            Ok(()) => {
                target.completed += 1;
                extent.last_write = target.completed;
                self.free_if_idle(device, local);
            }
            // The file system is full, the device is not broken: this extent takes nothing more.
            Err(IoError::NoSpace) => {
                self.counters.write_errors += 1;
                for stream in [Stream::Hot, Stream::Cold] {
                    if self.devices[device].open[stream as usize].is_some_and(|open| open.extent == local) {
                        self.close_open(device, stream);
                    }
                }
            }
            Err(_) => {
                self.counters.write_errors += 1;
                self.fail_device(device);
            }
        }
    }

    /// Lists a full extent's residents in the journal, once none is on its way and all are flushed: what is listed is
    /// believed after a crash, what is not is read and checked.
    pub(super) fn seal_if_settled(&mut self, extent: u32) {
        let (device, local) = self.locate(extent);
        let target = &mut self.devices[device];
        let state = &target.extents[local as usize];
        if state.state != ExtentState::Full || state.pending > 0 || target.failed {
            return;
        }
        if target.geometry.persistent && target.flushed < state.last_write {
            return target.unsealed.push(local);
        }
        let entries = self.listing(device, local);
        self.define_namespaces(device, &entries, false);
        let target = &mut self.devices[device];
        // The opening is known; what follows it is new.
        entries.iter().skip(1).for_each(|entry| target.log(entry));
        target.extents[local as usize].state = ExtentState::Sealed;
        self.free_if_dead(extent);
    }

    /// The entries that tell of an extent: its opening, its residents, and that there are no more.
    pub(super) fn listing(&self, device: usize, local: u32) -> Vec<Entry> {
        let target = &self.devices[device];
        let seq = target.extents[local as usize].seq;
        let mut entries = vec![Entry::Opened { extent: local, seq }];
        let residents = self.catalog.residents(target.base + local);
        let listed: Vec<_> = residents.into_iter().map(|(id, part)| self.listed(id, part)).collect();
        let chunks = listed.chunks(ENTRY_RECORDS_MAX);
        entries.extend(chunks.map(|records| Entry::Records {
            extent: local,
            seq,
            records: records.to_vec(),
        }));
        entries.push(Entry::Sealed { extent: local, seq });
        entries
    }

    /// Defines the namespaces that these entries use, in the journals that do not know them yet.
    pub(super) fn define_namespaces(&mut self, device: usize, entries: &[Entry], rewrite_alone: bool) {
        let target = &mut self.devices[device];
        for entry in entries {
            let Entry::Records { records, .. } = entry else { continue };
            for record in records {
                let name = &self.namespaces.names[record.namespace as usize].name;
                if let Some(rewrite) = &mut target.rewrite {
                    rewrite.journal.define_namespace(record.namespace, name);
                }
                if !rewrite_alone {
                    target.journal.define_namespace(record.namespace, name);
                }
            }
        }
    }

    fn listed(&self, id: EntryId, part: u32) -> Listed {
        let view = self.catalog.view(id);
        let places = self.catalog.places(id);
        Listed {
            digest: view.digest,
            checksum: view.checksum.0,
            offset: places[part as usize].offset,
            length: view.length as u32,
            part: part as u16,
            part_count: places.len() as u16,
            namespace: view.namespace,
            kind: if view.manifest { Kind::Manifest } else { Kind::Value } as u8,
            packed: Shape::value(view.length).packed(),
        }
    }

    /// The device takes nothing more; every value with a byte on it is gone.
    pub(super) fn fail_device(&mut self, device: usize) {
        let target = &mut self.devices[device];
        if std::mem::replace(&mut target.failed, true) {
            return;
        }
        self.counters.devices_failed += 1;
        let target = &mut self.devices[device];
        target.open = [None; 2];
        let error = StoreError::DeviceFailed { device: target.index };
        let flush_waiters = std::mem::take(&mut target.flush_waiters);
        let journal_waiters = std::mem::take(&mut target.journal_waiters);
        let superblock_waiters = std::mem::take(&mut target.superblock_waiters);
        target.rewrite = None;
        target.held_back.clear();
        let extents = target.base..target.base + target.extents.len() as u32;
        let residents = extents.flat_map(|extent| self.catalog.residents(extent));
        // A striped value may be listed more than once.
        let lost: Set<_> = residents.map(|(id, _)| id).collect();
        self.lose_all(&lost, &error);
        // Those that stay must know that this one left, before it can come back.
        self.generation += 1;
        for other in self.devices.iter_mut().filter(|other| !other.failed && other.geometry.persistent) {
            other.superblock_write.wanted = true;
        }
        let waiters = flush_waiters.into_iter().chain(superblock_waiters);
        waiters.for_each(|(_, id)| self.wait_step(id, Some(error.clone())));
        for (_, waiter) in journal_waiters {
            match waiter {
                JournalWaiter::Job(job) => self.job_write_ended(job, device, Err(IoError::Gone)),
                JournalWaiter::Durable(id) => self.wait_step(id, Some(error.clone())),
            }
        }
    }

    /// Ends a stop once nothing is left to do.
    pub(super) fn finish_stop(&mut self) {
        let Some(ticket) = self.stopping else { return };
        let writing = !self.jobs.is_empty() || !self.manifest_ops.is_empty() || !self.allocations.is_empty();
        let reclaiming = !self.reclaim.batches.is_empty() || self.devices.iter().any(Device::is_discarding);
        if writing || reclaiming || std::mem::replace(&mut self.stop_begun, true) {
            return;
        }
        for device in 0..self.devices.len() {
            self.close_open(device, Stream::Hot);
            self.close_open(device, Stream::Cold);
        }
        self.wait_for_everything(Then::Drained(ticket));
        (0..self.devices.len()).for_each(|device| self.journal_pump(device));
        (0..self.devices.len()).for_each(|device| self.flush_pump(device));
    }

    /// Everything so far is durable; what it let be sealed is to be in the journal, too, so that nothing need be read again.
    fn drained(&mut self, ticket: Ticket) {
        let behind = |device: &Device| {
            !device.failed && (device.journal.appended > device.journal.written || device.is_dirty())
        };
        if self.devices.iter().any(behind) {
            self.wait_for_everything(Then::Drained(ticket));
        } else {
            self.close(ticket);
        }
    }

    /// Marks the superblocks: the store was closed in good order.
    fn close(&mut self, ticket: Ticket) {
        self.closing = true;
        self.generation += 1;
        let mut needs = Vec::new();
        for (device, state) in self.devices.iter_mut().enumerate() {
            if !state.failed && state.geometry.persistent {
                state.superblock_write.wanted = true;
                needs.push(Need::Superblock { device });
            }
        }
        self.wait(needs, Then::Stopped(ticket));
    }
}

/// Where the superblock of this sequence goes.
pub(super) fn superblock_offset(sequence: u64) -> u64 {
    SUPERBLOCK_OFFSETS[(sequence % 2) as usize]
}
