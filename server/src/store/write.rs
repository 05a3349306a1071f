//! How values get in: put in one, or allocate, write pieces, commit.
//!
//! A `Job` writes one value's records and makes it visible when all of them are on their devices and the extents'
//! openings are in the journals. Values of less than 64 KiB gather in packs, one write for many; while a pack is in
//! flight the next one gathers, so the packs grow with the load.
//!
//! An allocation writes its blocks as they come and its headers at commit. A value of one block is held until then and
//! written at once with its header.

use super::*;
use crate::store::catalog::NewEntry;
use crate::store::format::{PACK_ALIGN, PartLayout, Record, header_bytes};
use crate::store::space::JournalWaiter;

/// Bytes gathered for one write of small values.
const PACK_BYTES_MAX: usize = 256 << 10;
/// Packs of one device in flight.
const PACKS_IN_FLIGHT_MAX: u32 = 2;

/// A value's or manifest's records on their way to the devices.
pub(super) struct Job<B> {
    pub kind: Kind,
    pub digest: Digest,
    pub namespace: u16,
    pub key: Vec<u8>,
    pub shape: Shape,
    pub checksum: Checksum,
    pub block_checksums: Vec<Checksum>,
    /// Not yet handed out; `None` for those an allocation has written.
    pub blocks: Vec<Option<Segment<B>>>,
    pub lsn: u64,
    pub places: Vec<Place>,
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
    Put(Vec<(Ticket, ClientId)>),
    Manifest(OpId),
}

/// What waits for room.
#[derive(Clone, Copy)]
pub(super) enum Placing {
    Job(JobId),
    Piece(AllocationId, u32),
}

pub(super) struct Allocation<B> {
    client: ClientId,
    digest: Digest,
    namespace: u16,
    key: Vec<u8>,
    length: u64,
    expected: Option<Checksum>,
    until_ms: u64,
    blocks: Vec<BlockState<B>>,
    checksums: Vec<Checksum>,
    places: Vec<Option<Place>>,
    /// Writes in flight.
    outstanding: u32,
    dropped: bool,
}

enum BlockState<B> {
    Empty,
    /// Waits for room, or (the only block of a value) for the commit.
    Held(B, Ticket),
    Writing(Ticket),
    Written,
}

/// What `allocate` answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocated {
    /// Write the pieces, then commit, before the lease ends.
    New { id: AllocationId, lease_ms: u64 },
    /// The value is stored already.
    Present(ValueInfo),
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
        blocks: Vec<Block<B>>,
    ) {
        self.advance(now_ms);
        if let Err(error) = self.begin_put(client, ticket, key, blocks) {
            self.answer(ticket, Err(error));
        }
    }

    fn begin_put(
        &mut self,
        client: ClientId,
        ticket: Ticket,
        key: Key<'_>,
        blocks: Vec<Block<B>>,
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
        let block_checksums: Vec<_> = blocks.iter().map(|block| block.checksum).collect();
        let value = ValueInfo { length, checksum: Checksum::of_blocks(&block_checksums) };
        let digest = self.secrets.digest(Kind::Value, key.namespace, key.key, None);
        if self.is_there(client, ticket, digest, value)? {
            return Ok(());
        }
        let namespace = self.admit(key.namespace, length)?;
        self.start_job(Job {
            kind: Kind::Value,
            digest,
            namespace,
            key: key.key.to_vec(),
            shape: Shape::value(length),
            checksum: value.checksum,
            block_checksums,
            blocks: blocks.into_iter().map(|block| Some(Segment::Payload(block.bytes))).collect(),
            lsn: 0,
            places: Vec::new(),
            parts_issued: 0,
            outstanding: 0,
            failed: None,
            then: JobThen::Put(vec![(ticket, client)]),
        });
        Ok(())
    }

    /// Answers, now or with the write in flight, when this very value is stored or being stored.
    fn is_there(
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
    fn admit(&mut self, namespace: &[u8], length: u64) -> Result<u16, StoreError> {
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

    /// Reserves room for a value that is written piecewise. What is not committed when the lease ends is reclaimed.
    //= MKV-ALLOC-1
    //= MKV-ALLOC-2
    pub fn allocate(
        &mut self,
        now_ms: u64,
        client: ClientId,
        key: Key<'_>,
        length: u64,
        checksum: Option<Checksum>,
        lease_ms: u64,
    ) -> Result<Allocated, StoreError> {
        self.advance(now_ms);
        self.accepting()?;
        check_key(key)?;
        if length == 0 {
            return Err(StoreError::InvalidRange);
        }
        if length > VALUE_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes_max: VALUE_BYTES_MAX });
        }
        let digest = self.secrets.digest(Kind::Value, key.namespace, key.key, None);
        if let Some(id) = self.catalog.find(&digest) {
            let view = self.catalog.view(id);
            if view.length != length || checksum.is_some_and(|sum| sum != view.checksum) {
                return Err(StoreError::Conflict { length: view.length, checksum: view.checksum });
            }
            self.touch(id);
            self.lease_quietly(client, id);
            return Ok(Allocated::Present(ValueInfo { length, checksum: view.checksum }));
        }
        if self.allocations.len() >= self.config.allocations_max {
            return Err(StoreError::TooMany { what: Limit::Allocations });
        }
        let namespace = self.admit(key.namespace, length)?;
        let lease_ms = self.config.lease_ms(lease_ms);
        let id = AllocationId(self.fresh_id());
        let until_ms = self.now_ms + lease_ms;
        let shape = Shape::value(length);
        let blocks = shape.blocks() as usize;
        self.allocation_ends.insert((until_ms, id));
        let allocation = Allocation {
            client,
            digest,
            namespace,
            key: key.key.to_vec(),
            length,
            expected: checksum,
            until_ms,
            blocks: (0..blocks).map(|_| BlockState::Empty).collect(),
            checksums: vec![Checksum::default(); blocks],
            places: vec![None; shape.parts(self.part_blocks) as usize],
            outstanding: 0,
            dropped: false,
        };
        self.allocations.insert(id, allocation);
        Ok(Allocated::New { id, lease_ms })
    }

    /// Stores one block of an allocation, whole. Ends in [`Outcome::PieceWritten`].
    pub fn write_piece(
        &mut self,
        now_ms: u64,
        ticket: Ticket,
        id: AllocationId,
        offset: u64,
        piece: Block<B>,
    ) {
        self.advance(now_ms);
        if let Err(error) = self.begin_piece(ticket, id, offset, piece) {
            self.answer(ticket, Err(error));
        }
    }

    fn begin_piece(
        &mut self,
        ticket: Ticket,
        id: AllocationId,
        offset: u64,
        piece: Block<B>,
    ) -> Result<(), StoreError> {
        self.accepting()?;
        self.expire_allocations();
        let allocation = self.open_allocation(id)?;
        let block = offset / BLOCK_BYTES as u64;
        let shape = Shape::value(allocation.length);
        let aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && block < u64::from(shape.blocks());
        if !aligned || piece.bytes.as_ref().len() != shape.block_length(block as u32) {
            return Err(StoreError::InvalidRange);
        }
        let index = block as usize;
        if !matches!(allocation.blocks[index], BlockState::Empty) {
            // The same block again is fine, other bytes are not: the value is immutable.
            if allocation.checksums[index] != piece.checksum {
                return Err(StoreError::ChecksumMismatch { actual: allocation.checksums[index] });
            }
            return match allocation.blocks[index] {
                BlockState::Writing(_) => Err(StoreError::InvalidRange),
                BlockState::Empty | BlockState::Held(..) | BlockState::Written => {
                    self.answer(ticket, Ok(Outcome::PieceWritten));
                    Ok(())
                }
            };
        }
        allocation.checksums[index] = piece.checksum;
        allocation.blocks[index] = BlockState::Held(piece.bytes, ticket);
        if allocation.blocks.len() == 1 {
            self.answer(ticket, Ok(Outcome::PieceWritten));
        } else {
            self.placing.push_back(Placing::Piece(id, block as u32));
        }
        Ok(())
    }

    fn open_allocation(&mut self, id: AllocationId) -> Result<&mut Allocation<B>, StoreError> {
        let found = self.allocations.get_mut(&id).filter(|allocation| !allocation.dropped);
        found.ok_or(StoreError::LeaseExpired)
    }

    /// Makes an allocation's value visible. Ends in [`Outcome::Stored`].
    ///
    /// With blocks missing it fails with `Incomplete` and the allocation stays; with another checksum than the expected
    /// one the allocation is given up.
    //= MKV-COMMIT-1
    //= MKV-COMMIT-2
    pub fn commit(&mut self, now_ms: u64, ticket: Ticket, id: AllocationId, expected: Option<Checksum>) {
        self.advance(now_ms);
        if let Err(error) = self.begin_commit(ticket, id, expected) {
            self.answer(ticket, Err(error));
        }
    }

    fn begin_commit(
        &mut self,
        ticket: Ticket,
        id: AllocationId,
        expected: Option<Checksum>,
    ) -> Result<(), StoreError> {
        self.accepting()?;
        self.expire_allocations();
        let allocation = self.open_allocation(id)?;
        let single = allocation.blocks.len() == 1;
        let ready = |block: &&BlockState<B>| match block {
            BlockState::Written => true,
            BlockState::Held(..) => single,
            BlockState::Empty | BlockState::Writing(_) => false,
        };
        let missing = allocation.blocks.len() - allocation.blocks.iter().filter(ready).count();
        if missing > 0 {
            return Err(StoreError::Incomplete { missing: missing as u32 });
        }
        let actual = Checksum::of_blocks(&allocation.checksums);
        let value = ValueInfo { length: allocation.length, checksum: actual };
        let (client, digest) = (allocation.client, allocation.digest);
        let unexpected = [expected, allocation.expected].into_iter().flatten().any(|sum| sum != actual);
        if unexpected {
            self.drop_allocation(id);
            return Err(StoreError::ChecksumMismatch { actual });
        }
        match self.is_there(client, ticket, digest, value) {
            Ok(false) => self.write_headers(ticket, id, value),
            Ok(true) => self.drop_allocation(id),
            Err(error) => {
                self.drop_allocation(id);
                return Err(error);
            }
        }
        Ok(())
    }

    fn write_headers(&mut self, ticket: Ticket, id: AllocationId, value: ValueInfo) {
        let Some(allocation) = self.allocations.remove(&id) else { return };
        self.allocation_ends.remove(&(allocation.until_ms, id));
        let blocks = allocation.blocks.into_iter().map(|block| match block {
            BlockState::Held(bytes, _) => Some(Segment::Payload(bytes)),
            BlockState::Empty | BlockState::Writing(_) | BlockState::Written => None,
        });
        self.start_job(Job {
            kind: Kind::Value,
            digest: allocation.digest,
            namespace: allocation.namespace,
            key: allocation.key,
            shape: Shape::value(value.length),
            checksum: value.checksum,
            block_checksums: allocation.checksums,
            blocks: blocks.collect(),
            lsn: 0,
            places: allocation.places.into_iter().flatten().collect(),
            parts_issued: 0,
            outstanding: 0,
            failed: None,
            then: JobThen::Put(vec![(ticket, allocation.client)]),
        });
    }

    /// Gives an allocation up; its room is reclaimed.
    pub fn abort(&mut self, now_ms: u64, id: AllocationId) -> Result<(), StoreError> {
        self.advance(now_ms);
        self.open_allocation(id)?;
        self.drop_allocation(id);
        Ok(())
    }

    pub(super) fn expire_allocations(&mut self) {
        while let Some(&(until, id)) = self.allocation_ends.first() {
            if until > self.now_ms {
                return;
            }
            self.counters.allocations_expired += 1;
            self.drop_allocation(id);
        }
    }

    pub(super) fn drop_allocation(&mut self, id: AllocationId) {
        let Some(allocation) = self.allocations.get_mut(&id) else { return };
        if !std::mem::replace(&mut allocation.dropped, true) {
            self.allocation_ends.remove(&(allocation.until_ms, id));
            self.namespaces.refund(allocation.namespace, allocation.length);
            let blocks = std::mem::take(&mut allocation.blocks);
            let single = blocks.len() == 1;
            for block in blocks {
                match block {
                    BlockState::Held(_, ticket) if !single => {
                        self.events.push_back(Event { ticket, result: Err(StoreError::LeaseExpired) });
                    }
                    BlockState::Writing(ticket) => {
                        self.events.push_back(Event { ticket, result: Err(StoreError::LeaseExpired) });
                    }
                    BlockState::Held(..) | BlockState::Empty | BlockState::Written => {}
                }
            }
        }
        self.bury_allocation(id);
    }

    /// Forgets a dropped allocation once nothing of it is in flight.
    fn bury_allocation(&mut self, id: AllocationId) {
        let over = self.allocations.get(&id).is_some_and(|allocation| allocation.outstanding == 0);
        if over && let Some(allocation) = self.allocations.remove(&id) {
            allocation.places.into_iter().flatten().for_each(|place| self.give_up_place(place));
        }
    }

    /// Places what waits for room, in the order it came.
    pub(super) fn place_waiting(&mut self) {
        while let Some(next) = self.placing.front().copied() {
            let placed = match next {
                Placing::Job(job) => self.place_job(job),
                Placing::Piece(allocation, block) => self.place_piece(allocation, block),
            };
            if placed == Placed::Waits {
                return;
            }
            self.placing.pop_front();
        }
    }

    fn place_job(&mut self, id: JobId) -> Placed {
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
            self.issue_part(id, part, place, &layout);
        }
    }

    fn job_layout(&self, job: &Job<B>, part: u32) -> PartLayout {
        let count = job.shape.part_range(part, self.part_blocks).len();
        let namespace = &self.namespaces.names[job.namespace as usize].name;
        job.shape.part(part, self.part_blocks, header_bytes(count, namespace, &job.key))
    }

    /// The record of a job's part at a place.
    fn record(&self, job: &Job<B>, part: u32, place: Place, layout: &PartLayout) -> Record {
        let (device, local) = self.locate(place.extent);
        let first = layout.first_block as usize;
        let namespace = self.namespaces.names[job.namespace as usize].name.clone();
        Record {
            kind: job.kind,
            packed: job.shape.packed(),
            header_bytes: header_bytes(layout.blocks.len(), &namespace, &job.key),
            span: layout.span,
            lsn: job.lsn,
            extent_seq: self.devices[device].extents[local as usize].seq,
            offset: place.offset,
            part,
            part_count: job.shape.parts(self.part_blocks),
            shape: job.shape,
            checksum: job.checksum,
            digest: job.digest,
            block_checksums: job.block_checksums[first..first + layout.blocks.len()].to_vec(),
            namespace,
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
        self.issue_write(device, local, place.offset, segments, vec![id], false);
        self.await_opening(id, device, local);
    }

    /// A job's record is not acknowledged before its extent's opening is written.
    fn await_opening(&mut self, id: JobId, device: usize, local: u32) {
        let opened_at = self.devices[device].extents[local as usize].opened_at;
        if self.devices[device].journal.written < opened_at {
            self.devices[device].journal_waiters.push((opened_at, JournalWaiter::Job(id)));
            if let Some(job) = self.jobs.get_mut(&id) {
                job.outstanding += 1;
            }
        }
    }

    fn issue_write(
        &mut self,
        device: usize,
        local: u32,
        offset: u32,
        segments: Vec<Segment<B>>,
        jobs: Vec<JobId>,
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

    fn place_piece(&mut self, id: AllocationId, block: u32) -> Placed {
        let part_blocks = self.part_blocks;
        let part = (block / part_blocks) as usize;
        let Some(allocation) = self.allocations.get(&id).filter(|allocation| !allocation.dropped) else {
            return Placed::Done;
        };
        // Headers of unpacked records fit a sector, whatever the key.
        let layout = Shape::value(allocation.length).part(part as u32, part_blocks, SECTOR_BYTES);
        let place = match allocation.places[part] {
            Some(place) => place,
            None => match self.take_place(Stream::Hot, layout.span, SECTOR_BYTES) {
                Some(place) => place,
                None => return self.no_room(Placing::Piece(id, block)),
            },
        };
        let Some(allocation) = self.allocations.get_mut(&id) else { return Placed::Done };
        allocation.places[part] = Some(place);
        let held = &mut allocation.blocks[block as usize];
        let BlockState::Held(bytes, ticket) = std::mem::replace(held, BlockState::Empty) else {
            return Placed::Done;
        };
        *held = BlockState::Writing(ticket);
        allocation.outstanding += 1;
        let (at, length) = layout.blocks[block as usize - layout.first_block as usize];
        let mut segments = vec![Segment::Payload(bytes)];
        push_zeros(&mut segments, length.next_multiple_of(SECTOR_BYTES) - length);
        let (device, local) = self.locate(place.extent);
        let op =
            Op::Write { offset: self.devices[device].offset(local, place.offset as usize + at), segments };
        let bytes = op.write_length();
        self.devices[device].extents[local as usize].busy += 1;
        self.devices[device].bytes_in_flight += bytes;
        self.counters.device_bytes_written += bytes as u64;
        self.issue(device, op, InFlight::Piece { device, extent: local, allocation: id, block, bytes });
        Placed::Done
    }

    pub(super) fn piece_ended(
        &mut self,
        id: AllocationId,
        block: u32,
        device: usize,
        result: Result<(), IoError>,
    ) {
        let Some(allocation) = self.allocations.get_mut(&id) else { return };
        allocation.outstanding -= 1;
        if allocation.dropped {
            return self.bury_allocation(id);
        }
        match result {
            Ok(()) => {
                let state = std::mem::replace(&mut allocation.blocks[block as usize], BlockState::Written);
                if let BlockState::Writing(ticket) = state {
                    self.answer(ticket, Ok(Outcome::PieceWritten));
                }
            }
            Err(error) => {
                let state = std::mem::replace(&mut allocation.blocks[block as usize], BlockState::Empty);
                if let BlockState::Writing(ticket) = state {
                    let error = self.write_error(device, error);
                    self.answer(ticket, Err(error));
                }
                self.drop_allocation(id);
            }
        }
    }

    /// Gathers small values into writes.
    pub(super) fn pack_waiting(&mut self) {
        while !self.packing.is_empty() {
            let Some(device) = self.hot_device(PACKS_IN_FLIGHT_MAX) else {
                if self.devices.iter().any(|device| !device.failed && device.packs_in_flight > 0) {
                    return;
                }
                let Some(id) = self.packing.front().copied() else { return };
                if self.no_room(Placing::Job(id)) == Placed::Waits {
                    return;
                }
                self.packing.pop_front();
                continue;
            };
            if !self.pack_on(device) {
                self.close_open(device, Stream::Hot);
            }
        }
    }

    /// Writes one pack into a device's open extent. False when not even one value fits.
    fn pack_on(&mut self, device: usize) -> bool {
        let mut segments = Vec::new();
        let mut jobs = Vec::new();
        let mut start = None;
        let mut end = 0;
        while let Some(id) = self.packing.front().copied() {
            let Some(job) = self.jobs.get(&id) else {
                self.packing.pop_front();
                continue;
            };
            let layout = self.job_layout(job, 0);
            let align = if start.is_none() { SECTOR_BYTES } else { PACK_ALIGN };
            let Some((local, offset)) = self.devices[device].take_room(Stream::Hot, layout.span, align)
            else {
                break;
            };
            let place = Place { extent: self.devices[device].base + local, offset };
            self.extent_mut(place.extent).pending += 1;
            let Some(job) = self.jobs.get(&id) else { break };
            let header = self.record(job, 0, place, &layout).encode(&self.secrets);
            let begin = *start.get_or_insert(offset);
            push_zeros(&mut segments, offset as usize - end.max(begin as usize));
            let Some(job) = self.jobs.get_mut(&id) else { break };
            append_record(&mut segments, header, &mut job.blocks, &layout, PACK_ALIGN);
            job.places.push(place);
            job.parts_issued += 1;
            job.outstanding += 1;
            end = offset as usize + layout.span;
            jobs.push((id, local));
            self.packing.pop_front();
            if end - begin as usize >= PACK_BYTES_MAX {
                break;
            }
        }
        let (Some(begin), Some(&(_, local))) = (start, jobs.first()) else { return self.packing.is_empty() };
        push_zeros(&mut segments, end.next_multiple_of(SECTOR_BYTES) - end);
        if let Some(open) = self.devices[device].open[Stream::Hot as usize].as_mut() {
            open.cursor = end.next_multiple_of(SECTOR_BYTES);
        }
        let ids: Vec<_> = jobs.iter().map(|(id, _)| *id).collect();
        self.issue_write(device, local, begin, segments, ids.clone(), true);
        ids.into_iter().for_each(|id| self.await_opening(id, device, local));
        true
    }

    /// A write of this job's records ended.
    pub(super) fn job_write_ended(&mut self, id: JobId, device: usize, result: Result<(), IoError>) {
        if let Err(error) = result {
            let error = self.write_error(device, error);
            if let Some(job) = self.jobs.get_mut(&id) {
                job.failed.get_or_insert(error);
            }
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.outstanding -= 1;
        }
        self.job_step(id);
    }

    /// What a caller is told about a failed write.
    fn write_error(&self, device: usize, error: IoError) -> StoreError {
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
        // A part may have been written well before its device failed.
        let lost = job
            .places
            .iter()
            .map(|place| self.locate(place.extent).0)
            .find(|device| self.devices[*device].failed);
        if let Some(device) = lost {
            job.failed.get_or_insert(StoreError::DeviceFailed { device: self.devices[device].index });
        }
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
        let tick = self.recency.now();
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
            let extent = self.extent_mut(place.extent);
            extent.live_bytes += weight;
            extent.pending -= 1;
            self.seal_if_settled(place.extent);
        }
        entry
    }

    /// The room a part counts for; the same when it comes and when it goes.
    pub(super) fn weight(&self, length: u64, part: u32) -> u32 {
        Shape::value(length).part(part, self.part_blocks, 192).span as u32
    }

    /// A placed record will not be.
    pub(super) fn give_up_place(&mut self, place: Place) {
        self.extent_mut(place.extent).pending -= 1;
        self.seal_if_settled(place.extent);
    }

    /// Nothing fits now: wait when room may come, else fail.
    fn no_room(&mut self, what: Placing) -> Placed {
        if self.room_may_come() {
            return Placed::Waits;
        }
        self.counters.out_of_space += 1;
        match what {
            Placing::Job(id) => {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.failed.get_or_insert(StoreError::OutOfSpace);
                }
                self.job_step(id);
            }
            Placing::Piece(id, block) => {
                if let Some(allocation) = self.allocations.get_mut(&id)
                    && let BlockState::Held(_, ticket) =
                        std::mem::replace(&mut allocation.blocks[block as usize], BlockState::Empty)
                {
                    self.answer(ticket, Err(StoreError::OutOfSpace));
                }
            }
        }
        Placed::Done
    }

    fn take_place(&mut self, stream: Stream, span: usize, align: usize) -> Option<Place> {
        for _ in 0..=self.devices.len() {
            let device = self.hot_device(u32::MAX)?;
            if let Some((local, offset)) = self.devices[device].take_room(stream, span, align) {
                let place = Place { extent: self.devices[device].base + local, offset };
                self.extent_mut(place.extent).pending += 1;
                return Some(place);
            }
            self.close_open(device, stream);
        }
        None
    }

    /// A device with an open extent for new records, opening one if need be.
    fn hot_device(&mut self, packs_max: u32) -> Option<usize> {
        let count = self.devices.len();
        let start = match self.config.placement {
            Placement::Rotate => self.rotor,
            Placement::Spread => {
                let load = |index: &usize| self.devices[*index].bytes_in_flight;
                let fit = |index: &usize| {
                    let device = &self.devices[*index];
                    let open = device.open[Stream::Hot as usize].is_some() || device.may_open(Stream::Hot);
                    !device.failed && open && device.packs_in_flight < packs_max
                };
                (0..count).map(|step| (self.rotor + 1 + step) % count).filter(fit).min_by_key(load)?
            }
        };
        for step in 0..count {
            let index = (start + step) % count;
            if self.devices[index].failed {
                continue;
            }
            if self.devices[index].open[Stream::Hot as usize].is_none()
                && !self.open_extent(index, Stream::Hot)
            {
                continue;
            }
            self.rotor = index;
            return (self.devices[index].packs_in_flight < packs_max).then_some(index);
        }
        None
    }

    fn open_extent(&mut self, device: usize, stream: Stream) -> bool {
        if !self.devices[device].may_open(stream) {
            return false;
        }
        let target = &mut self.devices[device];
        let Some(local) = target.free.pop_front() else { return false };
        let seq = self.next_extent_seq;
        self.next_extent_seq += 1;
        target.journal.append(&journal::Entry::Opened { extent: local, seq });
        target.journal.want();
        let extent = &mut target.extents[local as usize];
        extent.state = ExtentState::Open;
        extent.seq = seq;
        extent.opened_at = target.journal.appended;
        target.open[stream as usize] = Some(OpenExtent { extent: local, cursor: 0 });
        true
    }

    /// The open extent takes nothing more; the next record goes to the next device.
    pub(super) fn close_open(&mut self, device: usize, stream: Stream) {
        let Some(open) = self.devices[device].open[stream as usize].take() else { return };
        self.devices[device].extents[open.extent as usize].state = ExtentState::Full;
        self.seal_if_settled(self.devices[device].base + open.extent);
        if stream == Stream::Hot {
            self.rotor = (device + 1) % self.devices.len();
        }
    }
}

#[derive(PartialEq, Eq)]
enum Placed {
    Done,
    Waits,
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

fn push_zeros<B>(segments: &mut Vec<Segment<B>>, count: usize) {
    if count > 0 {
        segments.push(Segment::Zeros(count));
    }
}

/// Appends a record's header and blocks, each padded to the alignment. Blocks that are written already must be all or none.
fn append_record<B: AsRef<[u8]>>(
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
