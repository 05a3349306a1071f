//! Values that are written piecewise: allocate, write pieces, commit.
//!
//! Blocks are written as they come, headers at commit, so a value that is never committed is never found again. A value of
//! one block is held until the commit and written at once with its header. What is not committed when its lease ends
//! is dropped; its room counts as dead once nothing of it is in flight.

use smallvec::{SmallVec, smallvec};

use super::*;
use crate::store::place::{Placed, Placing};
use crate::store::write::{JobThen, push_zeros};

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
    /// Waits for room, or (the only block of a value, whose writer is answered) for the commit.
    Held(B, Writers),
    Writing(Writers),
    Written,
}

/// Who wrote a block and is to hear when it is on its device: more than one when an attempt was repeated meanwhile.
type Writers = SmallVec<[Ticket; 1]>;

impl<B> Allocation<B> {
    /// The bytes it is charged with in a namespace.
    pub(super) fn charged_bytes(&self, namespace: u16) -> Option<u64> {
        (!self.dropped && self.namespace == namespace).then_some(self.length)
    }
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
        let digest = self.value_digests.digest(key.namespace, key.key);
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
            let single = allocation.blocks.len() == 1;
            match &mut allocation.blocks[index] {
                BlockState::Held(_, writers) | BlockState::Writing(writers) if !single => {
                    writers.push(ticket)
                }
                BlockState::Held(..) | BlockState::Writing(_) | BlockState::Empty | BlockState::Written => {
                    self.answer(ticket, Ok(Outcome::PieceWritten));
                }
            }
            return Ok(());
        }
        allocation.checksums[index] = piece.checksum;
        if allocation.blocks.len() == 1 {
            allocation.blocks[index] = BlockState::Held(piece.bytes, Writers::new());
            self.answer(ticket, Ok(Outcome::PieceWritten));
        } else {
            allocation.blocks[index] = BlockState::Held(piece.bytes, smallvec![ticket]);
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
            key: allocation.key.into(),
            shape: Shape::value(value.length),
            checksum: value.checksum,
            block_checksums: allocation.checksums.into(),
            blocks: blocks.collect(),
            lsn: 0,
            places: allocation.places.into_iter().flatten().collect(),
            parts_issued: 0,
            outstanding: 0,
            failed: None,
            then: JobThen::Put(smallvec![(ticket, allocation.client)]),
        });
    }

    /// Whether an allocation is this client's, and, when they are given, for this key and length.
    //= MKV-ALLOC-3
    pub fn check_allocation(
        &mut self,
        id: AllocationId,
        client: ClientId,
        value: Option<(Key<'_>, u64)>,
    ) -> Result<(), StoreError> {
        let allocation = self.allocations.get(&id).filter(|allocation| allocation.client == client);
        let allocation = allocation.ok_or(StoreError::LeaseExpired)?;
        let same = value.is_none_or(|(key, length)| {
            let digest = self.value_digests.digest(key.namespace, key.key);
            digest == allocation.digest && length == allocation.length
        });
        if same { Ok(()) } else { Err(StoreError::InvalidRange) }
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
            for block in blocks {
                match block {
                    BlockState::Held(_, writers) | BlockState::Writing(writers) => {
                        self.answer_all(writers, Err(StoreError::LeaseExpired));
                    }
                    BlockState::Empty | BlockState::Written => {}
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

    pub(super) fn place_piece(&mut self, id: AllocationId, block: u32) -> Placed {
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
        let BlockState::Held(bytes, writers) = std::mem::replace(held, BlockState::Empty) else {
            return Placed::Done;
        };
        *held = BlockState::Writing(writers);
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
                if let BlockState::Writing(writers) = state {
                    self.answer_all(writers, Ok(Outcome::PieceWritten));
                }
            }
            Err(error) => {
                let state = std::mem::replace(&mut allocation.blocks[block as usize], BlockState::Empty);
                if let BlockState::Writing(writers) = state {
                    let error = self.write_error(device, error);
                    self.answer_all(writers, Err(error));
                }
                self.drop_allocation(id);
            }
        }
    }

    /// There is no room for a block.
    pub(super) fn refuse_piece(&mut self, id: AllocationId, block: u32) {
        let Some(allocation) = self.allocations.get_mut(&id) else { return };
        let Some(state) = allocation.blocks.get_mut(block as usize) else { return };
        if let BlockState::Held(_, writers) = std::mem::replace(state, BlockState::Empty) {
            self.answer_all(writers, Err(StoreError::OutOfSpace));
        }
    }

    fn answer_all(&mut self, writers: Writers, result: Result<Outcome, StoreError>) {
        writers.into_iter().for_each(|ticket| self.answer(ticket, result.clone()));
    }
}
