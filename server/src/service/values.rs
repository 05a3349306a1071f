//! Single values: allocate, lookup, commit, delete, exists, write.

use memkv_wire::{
    Allocate, AllocateReply, Commit, CommitReply, Delete, DeleteReply, Exists, ExistsReply, List, Piece,
    ResponseWhich, Status, Write, WriteReply, limits,
};
use smallvec::{SmallVec, smallvec};
use xxhash_rust::xxh3::Xxh3;

use super::payload::PieceBytes;
use super::reply::status_of;
use super::slab::Name;
use super::{Call, Service, State, What};
use crate::store::{
    Allocated, AllocationId, BLOCK_BYTES, Block, Checksum, Key, Outcome, StoreError, ValueInfo,
};

/// A digest of a message's scalar fields, so that its later frames can be compared with the first.
pub(super) struct Scalars(Xxh3);

impl Scalars {
    pub fn of(namespace: &[u8]) -> Scalars {
        Scalars(Xxh3::new()).bytes(namespace)
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Scalars {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub fn number(mut self, number: u64) -> Scalars {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub fn checksum(self, checksum: Option<&[u8; 16]>) -> Scalars {
        self.bytes(checksum.map_or(&[], |checksum| &checksum[..]))
    }

    pub fn finish(self) -> u128 {
        self.0.digest128()
    }
}

/// Which blocks of a value arrived, and their checksums.
pub(super) struct Cover {
    length: u64,
    left: u32,
    sums: SmallVec<[Option<Checksum>; 4]>,
}

impl Cover {
    pub fn new(length: u64) -> Cover {
        let blocks = length.div_ceil(BLOCK_BYTES as u64) as usize;
        Cover { length, left: blocks as u32, sums: smallvec![None; blocks] }
    }

    pub fn is_whole(&self) -> bool {
        self.left == 0
    }

    /// Marks the block of a piece. False: it is no block of the value, or there already.
    //= MKV-VAL-1
    pub fn add(&mut self, piece: &Piece<'_>, checksum: Checksum) -> bool {
        if !is_block(piece, self.length) {
            return false;
        }
        let Some(sum) = self.sums.get_mut((piece.offset / BLOCK_BYTES as u64) as usize) else { return false };
        if sum.is_some() {
            return false;
        }
        *sum = Some(checksum);
        self.left -= 1;
        true
    }

    /// The value's checksum, once it is whole.
    pub fn checksum(&self) -> Checksum {
        Checksum::of_blocks(self.sums.iter().flatten())
    }
}

/// Whether a piece is exactly one block of a value of this length: what begins at a block's start, stays in it and
/// covers the value together with others exactly once can be nothing else.
pub(super) fn is_block(piece: &Piece<'_>, length: u64) -> bool {
    let block = BLOCK_BYTES as u64;
    piece.offset.is_multiple_of(block)
        && piece.offset < length
        && u64::from(piece.length) == (length - piece.offset).min(block)
}

/// A `Write` that has not ended.
pub(super) struct Writing {
    target: Target,
    declared: Option<Checksum>,
    cover: Cover,
    commit_begun: bool,
    /// The value is on its devices.
    stored: Option<Checksum>,
}

/// Where its pieces go.
enum Target {
    /// The only block's put begins as soon as it is here.
    Single,
    /// An allocation of the message's own.
    Own(AllocationId),
    /// One that the client made and will commit.
    Given(AllocationId),
    /// Nowhere: a value of this checksum is stored.
    Present(Checksum),
}

/// A `Delete` that has not ended.
#[derive(Default)]
pub(super) struct Deleting {
    statuses: Vec<Status>,
}

// ---------------------------------------------------------------- allocate, commit, lookup

impl Service {
    pub(super) fn on_allocate(&mut self, call: Call, namespace: &[u8], request: Allocate<'_>) {
        let key = Key::new(namespace, request.key);
        let checksum = request.checksum.map(|checksum| Checksum(*checksum));
        let lease_ms = u64::from(request.lease_ms);
        match self.store.allocate(self.now_ms, call.client, key, request.length, checksum, lease_ms) {
            Ok(Allocated::New { id, lease_ms }) => {
                let reply = AllocateReply { allocation: id.0, lease_ms: lease_ms as u32, present: false };
                self.finish(call.name, Status::Ok, ResponseWhich::Allocate(reply));
            }
            //= MKV-ALLOC-2
            Ok(Allocated::Present(_)) => {
                let reply = AllocateReply { allocation: 0, lease_ms: 0, present: true };
                self.finish(call.name, Status::Ok, ResponseWhich::Allocate(reply));
            }
            Err(error) => self.finish_failed(call.name, status_of(&error)),
        }
    }

    pub(super) fn on_commit(&mut self, call: Call, request: Commit<'_>) {
        let checksum = request.checksum.map(|checksum| Checksum(*checksum));
        let id = AllocationId(request.allocation);
        if let Err(error) = self.store.check_allocation(id, call.client, None) {
            return self.finish_failed(call.name, status_of(&error));
        }
        let ticket = self.ticket(Some(call.name), What::CommitAlone, 0);
        self.store.commit(self.now_ms, ticket, id, checksum);
    }

    //= MKV-COMMIT-1
    //= MKV-COMMIT-2
    pub(super) fn committed(&mut self, name: Name, result: Result<Outcome, StoreError>) {
        match stored(result) {
            Ok((value, _)) => {
                let reply = CommitReply { checksum: Some(&value.checksum.0) };
                self.finish(name, Status::Ok, ResponseWhich::Commit(reply));
            }
            Err(error) => self.finish_failed(name, status_of(&error)),
        }
    }

    //= MKV-EX-1
    pub(super) fn on_exists(&mut self, call: Call, namespace: &[u8], request: Exists<'_>) {
        if !self.count_items(call.name, request.keys.len()) || !self.same_namespace(call.name, namespace) {
            return;
        }
        let mut lengths = std::mem::take(&mut self.lengths);
        lengths.clear();
        for key in request.keys.iter() {
            let value = self.store.exists(self.now_ms, Key::new(namespace, key));
            self.counters.exists_misses += u64::from(value.is_none());
            lengths.push(value.map_or(0, |value| value.length));
        }
        self.counters.exists += lengths.len() as u64;
        let reply = ResponseWhich::Exists(ExistsReply { lengths: List::from(&lengths) });
        match self.requests.get(call.name).is_some_and(|open| open.ended) {
            true => self.finish(call.name, Status::Ok, reply),
            false => {
                let buf = self.reply_buf();
                self.send(call.name, false, Status::Ok, reply, buf);
            }
        }
        self.lengths = lengths;
    }

    /// Counts the items of a message's frames. False: there are too many, the message has failed.
    pub(super) fn count_items(&mut self, name: Name, more: usize) -> bool {
        let Some(open) = self.requests.get_mut(name) else { return false };
        let before = match open.state {
            State::Counted { items } => items,
            _ => 0,
        };
        let items = before + more;
        open.state = State::Counted { items };
        if items > limits::BATCH_ITEMS_MAX as usize {
            self.fail(name, Status::Invalid);
            return false;
        }
        true
    }

    pub(super) fn same_namespace(&mut self, name: Name, namespace: &[u8]) -> bool {
        self.same_message(name, Scalars::of(namespace).finish())
    }
}

// ---------------------------------------------------------------- delete

impl Service {
    pub(super) fn on_delete(&mut self, call: Call, namespace: &[u8], request: Delete<'_>) {
        if !self.same_namespace(call.name, namespace) {
            return;
        }
        let Some(open) = self.requests.get_mut(call.name) else { return };
        if !matches!(open.state, State::Delete(_)) {
            open.state = State::Delete(Deleting::default());
        }
        let State::Delete(deleting) = &mut open.state else { return };
        let first = deleting.statuses.len();
        if first + request.keys.len() > limits::BATCH_ITEMS_MAX as usize {
            return self.fail(call.name, Status::Invalid);
        }
        deleting.statuses.resize(first + request.keys.len(), Status::Internal);
        self.counters.deletes += request.keys.len() as u64;
        for (place, key) in (first as u32..).zip(request.keys.iter()) {
            let ticket = self.ticket(Some(call.name), What::Delete { place }, 0);
            self.store.delete(self.now_ms, call.client, ticket, Key::new(namespace, key));
        }
    }

    //= MKV-DEL-1
    //= MKV-DEL-2
    pub(super) fn deleted(&mut self, name: Name, place: u32, result: Result<Outcome, StoreError>) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Delete(deleting) = &mut open.state else { return };
        deleting.statuses[place as usize] = match result {
            Ok(_) => Status::Ok,
            Err(error) => status_of(&error),
        };
    }

    pub(super) fn settle_delete(&mut self, name: Name) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Delete(deleting) = &mut open.state else { return };
        let statuses = std::mem::take(&mut deleting.statuses);
        let reply = DeleteReply { statuses: List::from(&statuses) };
        self.finish(name, Status::Ok, ResponseWhich::Delete(reply));
    }
}

// ---------------------------------------------------------------- write

impl Service {
    pub(super) fn on_write(&mut self, call: Call, namespace: &[u8], request: Write<'_>) {
        let scalars = Scalars::of(namespace)
            .bytes(request.key)
            .number(request.length)
            .checksum(request.checksum)
            .number(request.allocation)
            .finish();
        if !self.same_message(call.name, scalars) {
            return;
        }
        let begun = self.requests.get(call.name).is_some_and(|open| matches!(open.state, State::Write(_)));
        if !begun && !self.begin_write(call, namespace, &request) {
            return;
        }
        let mut given = std::mem::take(&mut self.given);
        for (piece, given) in request.pieces.iter().zip(given.drain(..)) {
            self.write_piece(call, Key::new(namespace, request.key), &piece, given);
        }
        self.given = given;
    }

    fn begin_write(&mut self, call: Call, namespace: &[u8], request: &Write<'_>) -> bool {
        let declared = request.checksum.map(|checksum| Checksum(*checksum));
        let target = if request.allocation != 0 {
            let id = AllocationId(request.allocation);
            let value = (Key::new(namespace, request.key), request.length);
            if let Err(error) = self.store.check_allocation(id, call.client, Some(value)) {
                self.fail(call.name, status_of(&error));
                return false;
            }
            Target::Given(id)
        } else if request.length <= BLOCK_BYTES as u64 {
            Target::Single
        } else {
            let key = Key::new(namespace, request.key);
            match self.store.allocate(self.now_ms, call.client, key, request.length, declared, 0) {
                Ok(Allocated::New { id, .. }) => Target::Own(id),
                Ok(Allocated::Present(value)) => Target::Present(value.checksum),
                Err(error) => {
                    self.fail(call.name, status_of(&error));
                    return false;
                }
            }
        };
        let Some(open) = self.requests.get_mut(call.name) else { return false };
        let cover = Cover::new(request.length);
        open.state = State::Write(Writing { target, declared, cover, commit_begun: false, stored: None });
        true
    }

    fn write_piece(&mut self, call: Call, key: Key<'_>, piece: &Piece<'_>, given: PieceBytes) {
        let Some(open) = self.requests.get_mut(call.name).filter(|open| open.fault.is_none()) else { return };
        let State::Write(writing) = &mut open.state else { return };
        if let Some(status) = given.refused {
            //= MKV-VAL-3
            self.counters.checksum_mismatches += u64::from(status == Status::ChecksumMismatch);
            return self.fail(call.name, status);
        }
        if piece.index != 0 || !writing.cover.add(piece, given.checksum) {
            return self.fail(call.name, Status::Invalid);
        }
        let bytes = given.bytes.len();
        let block = Block { bytes: given.bytes, checksum: given.checksum };
        match writing.target {
            Target::Single => {
                //= MKV-WR-6
                let checksum = Checksum::of_blocks([&given.checksum]);
                if writing.declared.is_some_and(|declared| declared != checksum) {
                    self.counters.checksum_mismatches += 1;
                    return self.fail(call.name, Status::ChecksumMismatch);
                }
                let ticket = self.ticket(Some(call.name), What::Put, bytes);
                self.store.put(self.now_ms, call.client, ticket, key, [block]);
            }
            Target::Own(allocation) | Target::Given(allocation) => {
                let ticket = self.ticket(Some(call.name), What::Piece, bytes);
                self.store.write_piece(self.now_ms, ticket, allocation, piece.offset, block);
            }
            Target::Present(_) => {}
        }
        self.count_written(call.name, bytes);
    }

    pub(super) fn count_written(&mut self, name: Name, bytes: usize) {
        self.counters.write_bytes += bytes as u64;
        if let Some(connection) = self.requests.get(name).map(|open| open.connection) {
            self.pause_or_resume(connection);
        }
    }

    pub(super) fn piece_written(&mut self, name: Name, result: Result<Outcome, StoreError>) {
        if let Err(error) = result {
            self.fail(name, status_of(&error));
        }
    }

    /// All frames are in and all pieces are on their devices: commits, or says what is wrong.
    //= MKV-WR-1
    pub(super) fn settle_write(&mut self, name: Name) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Write(writing) = &mut open.state else { return };
        match (&writing.target, writing.stored) {
            (Target::Given(_), _) => {
                let reply = ResponseWhich::Write(WriteReply { checksum: None });
                self.finish(name, Status::Ok, reply);
            }
            _ if !writing.cover.is_whole() => self.finish_failed(name, Status::Invalid),
            //= MKV-WR-2
            (Target::Single | Target::Own(_), Some(checksum)) => {
                let reply = WriteReply { checksum: Some(&checksum.0) };
                self.finish(name, Status::Ok, ResponseWhich::Write(reply));
            }
            (Target::Own(allocation), None) if !writing.commit_begun => {
                let (allocation, declared) = (*allocation, writing.declared);
                writing.commit_begun = true;
                let ticket = self.ticket(Some(name), What::Commit, 0);
                self.store.commit(self.now_ms, ticket, allocation, declared);
            }
            // What began always ends in `stored` or in a fault.
            (Target::Single | Target::Own(_), None) => self.finish_failed(name, Status::Internal),
            //= MKV-WR-3
            (Target::Present(stored), _) if writing.cover.checksum() == *stored => {
                let stored = *stored;
                self.counters.writes_present += 1;
                let reply = WriteReply { checksum: Some(&stored.0) };
                self.finish(name, Status::Ok, ResponseWhich::Write(reply));
            }
            (Target::Present(_), _) => self.finish_failed(name, Status::Conflict),
        }
    }

    /// The value of a `Write` is stored, or failed to be.
    pub(super) fn value_stored(&mut self, name: Name, result: Result<Outcome, StoreError>) {
        match stored(result) {
            Ok((value, present)) => {
                self.counters.writes += 1;
                self.counters.writes_present += u64::from(present);
                if let Some(State::Write(writing)) = self.requests.get_mut(name).map(|open| &mut open.state) {
                    writing.stored = Some(value.checksum);
                }
            }
            Err(error) => self.fail(name, status_of(&error)),
        }
    }

    pub(super) fn abandon_write(&mut self, writing: Writing) {
        if let Target::Own(allocation) = writing.target
            && !writing.commit_begun
        {
            // Unknown means that it has ended already: there is nothing to give up.
            let _ = self.store.abort(self.now_ms, allocation);
        }
    }
}

/// What is stored now, and whether it was before.
pub(super) fn stored(result: Result<Outcome, StoreError>) -> Result<(ValueInfo, bool), StoreError> {
    match result? {
        Outcome::Stored { value, already_present } => Ok((value, already_present)),
        other => {
            debug_assert!(false, "a put ends in a stored value, not in {other:?}");
            Err(StoreError::NotFound)
        }
    }
}
