//! How values get in: jobs that write records and make them visible.
//!
//! A `Job` writes one value's records and makes it visible when all of them are on their devices and the extents'
//! openings are in the journals. Values of less than 64 KiB gather in packs, one write for many; while a pack is in
//! flight the next one gathers, so the packs grow with the load.

use memkv_transport::planted::{self, Bug};
use smallvec::{SmallVec, smallvec};

use super::*;
use crate::store::catalog::NewEntry;
use crate::store::format::{Blocks, PartLayout, Record, ShortBytes, header_bytes};
use crate::store::place::{Placed, Placing};
use crate::store::space::JournalWaiter;

/// A value's or manifest's records on their way to the devices.
pub(super) struct Job<B> {
    pub kind: Kind,
    pub digest: Digest,
    pub namespace: u16,
    pub key: ShortBytes,
    pub shape: Shape,
    pub checksum: Checksum,
    pub block_checksums: Blocks<Checksum>,
    /// Not yet handed out; `None` for those an allocation has written.
    pub blocks: Blocks<Option<Segment<B>>>,
    pub lsn: u64,
    pub places: SmallVec<[Place; 2]>,
    /// Parts whose records (or headers) were handed out.
    pub parts_issued: u32,
    /// Commands and journal positions that it waits for.
    pub outstanding: u32,
    pub failed: Option<StoreError>,
    pub then: JobThen,
}

/// What a finished job is for.
pub(super) enum JobThen {
    /// Answer everyone who put this value.
    Put(SmallVec<[(Ticket, ClientId); 1]>),
    Manifest(OpId),
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Stores a whole value. Ends in [`Outcome::Stored`]; the value is born leased to the client.
    ///
    /// A value that is present with the same length and checksum is left as it is; with another, `Conflict`.
    pub fn put(
        &mut self,
        now_ms: u64,
        client: ClientId,
        ticket: Ticket,
        key: Key<'_>,
        blocks: impl IntoIterator<Item = Block<B>>,
    ) {
        self.advance(now_ms);
        if let Err(error) = self.begin_put(client, ticket, key, blocks.into_iter().collect()) {
            self.answer(ticket, Err(error));
        }
    }

    fn begin_put(
        &mut self,
        client: ClientId,
        ticket: Ticket,
        key: Key<'_>,
        blocks: Blocks<Block<B>>,
    ) -> Result<(), StoreError> {
        self.accepting()?;
        check_key(key)?;
        let length = blocks_length(&blocks)?;
        if length == 0 {
            return Err(StoreError::InvalidRange);
        }
        if length > VALUE_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes_max: VALUE_BYTES_MAX });
        }
        let block_checksums: Blocks<_> = blocks.iter().map(|block| block.checksum).collect();
        let value = ValueInfo { length, checksum: Checksum::of_blocks(&block_checksums) };
        let digest = self.value_digests.digest(key.namespace, key.key);
        if self.is_there(client, ticket, digest, value)? {
            return Ok(());
        }
        let namespace = self.admit(key.namespace, length)?;
        let mut waiters = smallvec![(ticket, client)];
        if planted::is(Bug::EarlyAck) {
            waiters.clear();
            self.answer(ticket, Ok(Outcome::Stored { value, already_present: false }));
        }
        self.start_job(Job {
            kind: Kind::Value,
            digest,
            namespace,
            key: key.key.into(),
            shape: Shape::value(length),
            checksum: value.checksum,
            block_checksums,
            blocks: blocks.into_iter().map(|block| Some(Segment::Payload(block.bytes))).collect(),
            lsn: 0,
            places: SmallVec::new(),
            parts_issued: 0,
            outstanding: 0,
            failed: None,
            then: JobThen::Put(waiters),
        });
        Ok(())
    }

    /// Answers, now or with the write in flight, when this very value is stored or being stored.
    pub(super) fn is_there(
        &mut self,
        client: ClientId,
        ticket: Ticket,
        digest: Digest,
        value: ValueInfo,
    ) -> Result<bool, StoreError> {
        if let Some(id) = self.catalog.find(&digest) {
            let view = self.catalog.view(id);
            if (view.length, view.checksum) != (value.length, value.checksum) {
                return Err(StoreError::Conflict { length: view.length, checksum: view.checksum });
            }
            self.touch(id);
            self.lease_quietly(client, id);
            self.counters.puts_present += 1;
            self.answer(ticket, Ok(Outcome::Stored { value, already_present: true }));
            return Ok(true);
        }
        let Some(job) = self.writing.get(&digest).and_then(|id| self.jobs.get_mut(id)) else {
            return Ok(false);
        };
        if (job.shape.length, job.checksum) != (value.length, value.checksum) {
            return Err(StoreError::Conflict { length: job.shape.length, checksum: job.checksum });
        }
        match &mut job.then {
            JobThen::Put(waiters) => waiters.push((ticket, client)),
            JobThen::Manifest(_) => debug_assert!(false, "a value's digest is no manifest's"),
        }
        Ok(true)
    }

    /// Counts a new value in: its namespace and the limits.
    pub(super) fn admit(&mut self, namespace: &[u8], length: u64) -> Result<u16, StoreError> {
        if self.catalog.len() + self.jobs.len() >= self.config.values_max {
            return Err(StoreError::TooMany { what: Limit::Values });
        }
        if length > self.data_bytes_max() {
            return Err(StoreError::OutOfSpace);
        }
        let id = self.namespaces.intern(namespace, &self.config)?;
        self.namespaces.charge(id, length)?;
        Ok(id)
    }

    fn data_bytes_max(&self) -> u64 {
        self.devices.iter().filter(|device| !device.failed).map(Device::data_bytes_max).sum()
    }

    pub(super) fn start_job(&mut self, mut job: Job<B>) {
        let id = JobId(self.fresh_id());
        if job.lsn == 0 {
            job.lsn = self.next_lsn;
            self.next_lsn += 1;
        }
        if job.kind == Kind::Value {
            self.writing.insert(job.digest, id);
        }
        let packed = job.shape.packed();
        self.jobs.insert(id, job);
        if packed {
            self.packing.push_back(id);
        } else {
            self.placing.push_back(Placing::Job(id));
        }
    }

    pub(super) fn place_job(&mut self, id: JobId) -> Placed {
        loop {
            let Some(job) = self.jobs.get(&id) else { return Placed::Done };
            let parts = job.shape.parts(self.part_blocks);
            if job.parts_issued == parts || job.failed.is_some() {
                self.job_step(id);
                return Placed::Done;
            }
            let part = job.parts_issued;
            let layout = self.job_layout(job, part);
            let place = match job.places.get(part as usize) {
                Some(place) => *place,
                None => match self.take_place(Stream::Hot, layout.span, SECTOR_BYTES) {
                    Some(place) => place,
                    None => return self.no_room(Placing::Job(id)),
                },
            };
            // Pieces may have been written well before their device failed; its journal will not tell of their extent.
            if let Some(error) = self.failed_under(&[place]) {
                self.fail_job(id, error);
                return Placed::Done;
            }
            self.issue_part(id, part, place, &layout);
        }
    }

    /// Nothing more of a job is written; it ends once what is in flight has.
    pub(super) fn fail_job(&mut self, id: JobId, error: StoreError) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.failed.get_or_insert(error);
        }
        self.job_step(id);
    }

    pub(super) fn job_layout(&self, job: &Job<B>, part: u32) -> PartLayout {
        let count = job.shape.part_range(part, self.part_blocks).len();
        let namespace = &self.namespaces.names[job.namespace as usize].name;
        job.shape.part(part, self.part_blocks, header_bytes(count, namespace, &job.key))
    }

    /// The record of a job's part at a place.
    pub(super) fn record(&self, job: &Job<B>, part: u32, place: Place, layout: &PartLayout) -> Record {
        let (device, local) = self.locate(place.extent);
        let first = layout.first_block as usize;
        let namespace = &self.namespaces.names[job.namespace as usize].name;
        Record {
            kind: job.kind,
            packed: job.shape.packed(),
            header_bytes: header_bytes(layout.blocks.len(), namespace, &job.key),
            span: layout.span,
            lsn: job.lsn,
            extent_seq: self.devices[device].extents[local as usize].seq,
            offset: place.offset,
            part,
            part_count: job.shape.parts(self.part_blocks),
            shape: job.shape,
            checksum: job.checksum,
            digest: job.digest,
            block_checksums: job.block_checksums[first..first + layout.blocks.len()].into(),
            namespace: namespace.as_slice().into(),
            key: job.key.clone(),
        }
    }

    /// Hands out the write of one part: header and blocks, or the header alone when the blocks are written.
    fn issue_part(&mut self, id: JobId, part: u32, place: Place, layout: &PartLayout) {
        let Some(job) = self.jobs.get(&id) else { return };
        let header = self.record(job, part, place, layout).encode(&self.secrets);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut segments = Vec::with_capacity(2 * layout.blocks.len() + 2);
        append_record(&mut segments, header, &mut job.blocks, layout, SECTOR_BYTES);
        if job.places.len() == part as usize {
            job.places.push(place);
        }
        job.parts_issued += 1;
        job.outstanding += 1;
        let (device, local) = self.locate(place.extent);
        self.issue_write(device, local, place.offset, segments, smallvec![id], false);
        self.await_opening(id, device, local);
    }

    /// A job's record is not acknowledged before its extent's opening is written.
    pub(super) fn await_opening(&mut self, id: JobId, device: usize, local: u32) {
        let opened_at = self.devices[device].extents[local as usize].opened_at;
        if self.devices[device].journal.written < opened_at {
            self.devices[device].journal_waiters.push((opened_at, JournalWaiter::Job(id)));
            if let Some(job) = self.jobs.get_mut(&id) {
                job.outstanding += 1;
            }
        }
    }

    pub(super) fn issue_write(
        &mut self,
        device: usize,
        local: u32,
        offset: u32,
        segments: Vec<Segment<B>>,
        jobs: SmallVec<[JobId; 1]>,
        packed: bool,
    ) {
        let op = Op::Write { offset: self.devices[device].offset(local, offset as usize), segments };
        let bytes = op.write_length();
        let target = &mut self.devices[device];
        target.extents[local as usize].busy += 1;
        target.bytes_in_flight += bytes;
        target.packs_in_flight += u32::from(packed);
        self.counters.device_bytes_written += bytes as u64;
        self.issue(device, op, InFlight::Records { device, extent: local, jobs, bytes, packed });
    }

    /// A write of this job's records ended.
    pub(super) fn job_write_ended(&mut self, id: JobId, device: usize, result: Result<(), IoError>) {
        if let Err(error) = result {
            let error = self.write_error(device, error);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.failed.get_or_insert(error);
            }
            self.forget_openings(id);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.outstanding -= 1;
        }
        self.job_step(id);
    }

    /// A failed job waits for no extent's opening: a full file system may not let it be written for long.
    fn forget_openings(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for device in &mut self.devices {
            let before = device.journal_waiters.len();
            device.journal_waiters.retain(|(_, waiter)| *waiter != JournalWaiter::Job(id));
            job.outstanding -= (before - device.journal_waiters.len()) as u32;
        }
    }

    /// What a caller is told about a failed write.
    pub(super) fn write_error(&self, device: usize, error: IoError) -> StoreError {
        match error {
            IoError::NoSpace => StoreError::OutOfSpace,
            IoError::Failed { .. }
            | IoError::Short { .. }
            | IoError::Gone
            | IoError::PermissionDenied
            | IoError::OutOfRange => StoreError::DeviceFailed { device: self.devices[device].index },
        }
    }

    /// Ends a job that waits for nothing more.
    pub(super) fn job_step(&mut self, id: JobId) {
        let part_blocks = self.part_blocks;
        let over = self.jobs.get(&id).is_some_and(|job| {
            let issued = job.parts_issued == job.shape.parts(part_blocks);
            job.outstanding == 0 && (issued || job.failed.is_some())
        });
        if !over {
            return;
        }
        let Some(mut job) = self.jobs.remove(&id) else { return };
        job.failed = job.failed.take().or_else(|| self.failed_under(&job.places));
        if job.kind == Kind::Value {
            self.writing.remove(&job.digest);
        }
        match (&job.then, &job.failed) {
            (JobThen::Manifest(op), _) => {
                let op = *op;
                self.manifest_written(op, job);
            }
            (JobThen::Put(_), None) => self.value_written(job),
            (JobThen::Put(_), Some(_)) => self.value_failed(job),
        }
    }

    /// A part may have been written, and flushed, well before its device failed.
    pub(super) fn failed_under(&self, places: &[Place]) -> Option<StoreError> {
        let mut devices = places.iter().map(|place| &self.devices[self.locate(place.extent).0]);
        let failed = devices.find(|device| device.failed)?;
        Some(StoreError::DeviceFailed { device: failed.index })
    }

    fn value_written(&mut self, job: Job<B>) {
        let entry = self.make_visible(&job);
        self.counters.puts += 1;
        self.counters.put_bytes += job.shape.length;
        let value = ValueInfo { length: job.shape.length, checksum: job.checksum };
        let JobThen::Put(waiters) = job.then else { return };
        for (place, (ticket, client)) in waiters.into_iter().enumerate() {
            //= MKV-WR-5
            self.lease_quietly(client, entry);
            self.answer(ticket, Ok(Outcome::Stored { value, already_present: place > 0 }));
        }
    }

    fn value_failed(&mut self, job: Job<B>) {
        self.namespaces.refund(job.namespace, job.shape.length);
        job.places.iter().for_each(|place| self.give_up_place(*place));
        let error = job.failed.unwrap_or(StoreError::OutOfSpace);
        let JobThen::Put(waiters) = job.then else { return };
        waiters.into_iter().for_each(|(ticket, _)| self.answer(ticket, Err(error.clone())));
    }

    /// Enters a written job into the catalogue.
    pub(super) fn make_visible(&mut self, job: &Job<B>) -> EntryId {
        let tick = self.recency.advance(job.shape.length);
        let entry = self.catalog.insert(NewEntry {
            digest: job.digest,
            checksum: job.checksum,
            length: job.shape.length as u32,
            namespace: job.namespace,
            manifest: job.kind == Kind::Manifest,
            tick,
            places: &job.places,
        });
        self.recency.add(tick, job.shape.length);
        for (part, place) in job.places.iter().enumerate() {
            let weight = self.weight(job.shape.length, part as u32);
            let (device, _) = self.locate(place.extent);
            self.devices[device].records += 1;
            let extent = self.extent_mut(place.extent);
            extent.live_bytes += weight;
            extent.pending -= 1;
            self.seal_if_settled(place.extent);
        }
        entry
    }
}

/// The length of a value in blocks, when all but the last are full.
pub(super) fn blocks_length<B: AsRef<[u8]>>(blocks: &[Block<B>]) -> Result<u64, StoreError> {
    let Some((last, full)) = blocks.split_last() else { return Ok(0) };
    let last = last.bytes.as_ref().len();
    let whole = full.iter().all(|block| block.bytes.as_ref().len() == BLOCK_BYTES);
    if !whole || last == 0 || last > BLOCK_BYTES {
        return Err(StoreError::InvalidRange);
    }
    Ok((full.len() * BLOCK_BYTES + last) as u64)
}

pub(super) fn push_zeros<B>(segments: &mut Vec<Segment<B>>, count: usize) {
    if count > 0 {
        segments.push(Segment::Zeros(count));
    }
}

/// Appends a record's header and blocks, each padded to the alignment. Blocks that are written already must be all or none.
pub(super) fn append_record<B: AsRef<[u8]>>(
    segments: &mut Vec<Segment<B>>,
    header: Vec<u8>,
    blocks: &mut [Option<Segment<B>>],
    layout: &PartLayout,
    align: usize,
) {
    let mut at = header.len();
    segments.push(Segment::Owned(header.into()));
    let first = layout.first_block as usize;
    for (index, (offset, length)) in layout.blocks.iter().enumerate() {
        let Some(segment) = blocks[first + index].take() else { continue };
        push_zeros(segments, offset - at);
        segments.push(segment);
        at = offset + length;
    }
    push_zeros(segments, at.next_multiple_of(align) - at);
}
