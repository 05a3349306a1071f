//! What is on the devices, what survives the loss of power, and who waits for it.
//!
//! A wait names positions: writes that must be flushed, journal positions that must be written and then flushed. Waiters that
//! arrive while a flush is in flight share the next one: that is the group commit. A flush covers exactly the writes
//! that were completed when it was handed out. A failed flush fails its device; it is never tried again.

use super::*;
use crate::store::format::SUPERBLOCK_OFFSETS;
use crate::store::journal::{ENTRY_RECORDS_MAX, Entry, Listed};
use crate::store::space::JournalWaiter;

/// Someone who goes on when everything he waits for is durable.
pub(super) struct Wait {
    remaining: u32,
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
    Stopped(Ticket),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// This many completed writes of the device.
    Writes { device: usize, count: u64 },
    /// The device's journal up to here.
    Journal { device: usize, position: u64 },
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    pub(super) fn wait(&mut self, needs: impl IntoIterator<Item = Need>, then: Then) {
        let id = WaitId(self.fresh_id());
        let mut wait = Wait { remaining: 0, failed: None, then };
        for need in needs {
            match need {
                Need::Writes { device, .. } | Need::Journal { device, .. } if self.devices[device].failed => {
                    wait.failed = Some(StoreError::DeviceFailed { device: self.devices[device].index });
                }
                Need::Writes { device, count } => {
                    wait.remaining += u32::from(self.wait_flush(device, count, id))
                }
                Need::Journal { device, position } => {
                    let target = &mut self.devices[device];
                    if target.journal.written >= position {
                        let count = target.completed;
                        let durable = target.journal.durable >= position;
                        wait.remaining += u32::from(!durable && self.wait_flush(device, count, id));
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
    fn wait_flush(&mut self, device: usize, count: u64, id: WaitId) -> bool {
        let target = &mut self.devices[device];
        if !target.geometry.persistent || target.flushed >= count || self.config.sync != Sync::Always {
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
        match (then, failed) {
            (Then::ManifestRecord(op), failed) => self.manifest_chunks_durable(op, failed),
            (Then::ManifestVisible(op), failed) => self.manifest_durable(op, failed),
            (Then::Synced(ticket) | Then::Answer(ticket, _), Some(error)) => self.answer(ticket, Err(error)),
            (Then::Synced(ticket), None) => self.answer(ticket, Ok(Outcome::Synced)),
            (Then::Answer(ticket, result), None) => self.answer(ticket, result),
            // A failed device is no reason to stay.
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
    pub(super) fn removal_needs(&self) -> Vec<Need> {
        let healthy = self.devices.iter().enumerate().filter(|(_, device)| !device.failed);
        let dirty = healthy.filter(|(_, device)| device.journal.removals > device.journal.durable);
        dirty.map(|(device, state)| Need::Journal { device, position: state.journal.removals }).collect()
    }

    /// For `Sync::Interval`: everything written is flushed, nobody waits.
    pub(super) fn flush_all(&mut self) {
        for device in 0..self.devices.len() {
            self.devices[device].journal.want();
            self.journal_pump(device);
            let target = &self.devices[device];
            if target.is_dirty() && target.flushing.is_none() {
                self.issue_flush(device);
            }
        }
    }

    pub(super) fn flush_pump(&mut self, device: usize) {
        let target = &self.devices[device];
        if target.flushing.is_none() && !target.flush_waiters.is_empty() && !target.failed {
            self.issue_flush(device);
        }
    }

    fn issue_flush(&mut self, device: usize) {
        let target = &mut self.devices[device];
        target.flushing = Some((target.completed, target.journal.written));
        self.counters.flushes += 1;
        self.issue(device, Op::Flush, InFlight::Flush { device });
    }

    pub(super) fn flush_ended(&mut self, device: usize, result: Result<(), IoError>) {
        let target = &mut self.devices[device];
        let Some((completed, journal_written)) = target.flushing.take() else { return };
        if result.is_err() {
            self.fail_device(device);
            return;
        }
        target.flushed = completed;
        target.journal.durable = journal_written;
        let (ready, later) =
            target.flush_waiters.drain(..).partition::<Vec<_>, _>(|(count, _)| *count <= completed);
        target.flush_waiters = later;
        ready.into_iter().for_each(|(_, id)| self.wait_step(id, None));
    }

    pub(super) fn journal_pump(&mut self, device: usize) {
        let (next_lsn, next_seq) = (self.next_lsn, self.next_extent_seq);
        let target = &mut self.devices[device];
        if target.failed || !target.journal.wants_frame() {
            return;
        }
        if target.journal.needs_spare()
            && let Some(extent) = target.free.pop_front()
        {
            target.extents[extent as usize].state = ExtentState::Journal;
            target.journal.spare = Some(extent);
        }
        let Some(frame) = target.journal.cut(&self.secrets, next_lsn, next_seq) else {
            if !target.journal.is_writing() {
                // The reserve makes this unreachable; without a journal nothing more can be promised.
                self.fail_device(device);
            }
            return;
        };
        let offset = target.offset(frame.extent, frame.offset);
        self.counters.journal_bytes_written += frame.bytes.len() as u64;
        let segments = vec![Segment::Owned(frame.bytes.into())];
        self.issue(device, Op::Write { offset, segments }, InFlight::Journal { device });
    }

    pub(super) fn journal_ended(&mut self, device: usize, result: Result<(), IoError>) {
        if result.is_err() {
            self.fail_device(device);
            return;
        }
        let target = &mut self.devices[device];
        target.completed += 1;
        target.journal.frame_written();
        let (written, completed) = (target.journal.written, target.completed);
        let waiters = std::mem::take(&mut target.journal_waiters);
        let (ready, later) = waiters.into_iter().partition::<Vec<_>, _>(|(position, _)| *position <= written);
        target.journal_waiters = later;
        for (_, waiter) in ready {
            match waiter {
                JournalWaiter::Job(job) => self.job_write_ended(job, device, Ok(())),
                JournalWaiter::Durable(id) => {
                    if !self.wait_flush(device, completed, id) {
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

    /// Lists a full extent's residents in the journal, once none is on its way.
    pub(super) fn seal_if_settled(&mut self, extent: u32) {
        let (device, local) = self.locate(extent);
        let state = &self.devices[device].extents[local as usize];
        if state.state != ExtentState::Full || state.pending > 0 || self.devices[device].failed {
            return;
        }
        let seq = state.seq;
        let residents = self.catalog.residents(extent);
        let listed: Vec<_> = residents.into_iter().map(|(id, part)| self.listed(id, part)).collect();
        let target = &mut self.devices[device];
        for record in &listed {
            target
                .journal
                .define_namespace(record.namespace, &self.namespaces.names[record.namespace as usize].name);
        }
        for records in listed.chunks(ENTRY_RECORDS_MAX) {
            target.journal.append(&Entry::Records { extent: local, seq, records: records.to_vec() });
        }
        target.journal.append(&Entry::Sealed { extent: local, seq });
        target.extents[local as usize].state = ExtentState::Sealed;
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
        let extents = target.base..target.base + target.extents.len() as u32;
        for extent in extents {
            for (id, _) in self.catalog.residents(extent) {
                // A striped value may be listed more than once.
                if self.catalog.is_live(id) {
                    self.lose(id);
                }
            }
        }
        flush_waiters.into_iter().for_each(|(_, id)| self.wait_step(id, Some(error.clone())));
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
        let busy = !self.jobs.is_empty() || !self.manifest_ops.is_empty() || !self.allocations.is_empty();
        if busy || std::mem::replace(&mut self.stop_begun, true) {
            return;
        }
        for device in 0..self.devices.len() {
            self.close_open(device, Stream::Hot);
            self.close_open(device, Stream::Cold);
        }
        self.wait_for_everything(Then::Stopped(ticket));
        (0..self.devices.len()).for_each(|device| self.journal_pump(device));
        (0..self.devices.len()).for_each(|device| self.flush_pump(device));
    }
}

/// Where the superblock of this sequence goes.
pub(super) fn superblock_offset(sequence: u64) -> u64 {
    SUPERBLOCK_OFFSETS[(sequence % 2) as usize]
}
