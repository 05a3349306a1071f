//! Many values in one message: each item is put, or allocated, written and committed, by itself.
//!
//! An item of one block is put as soon as its piece is here; its key is copied only when that is in a later frame.
//! Larger items get an allocation each, as a `Write` does.

use std::ops::Range;

use memkv_wire::{
    BatchWrite, BatchWriteReply, List, Piece, ResponseWhich, Status, WriteItem, WriteResult, limits,
};

use super::payload::PieceBytes;
use super::reply::status_of;
use super::slab::Name;
use super::values::{Cover, is_block, stored};
use super::{Call, Service, State, What};
use crate::store::{Allocated, AllocationId, BLOCK_BYTES, Block, Checksum, Key, Outcome, StoreError};

/// A `BatchWrite` that has not ended.
#[derive(Default)]
pub(super) struct BatchWriting {
    items: Vec<Item>,
    /// The namespace and the keys of items whose piece is still to come.
    kept: Vec<u8>,
    /// Results that no frame carries yet.
    results: Vec<WriteResult>,
}

struct Item {
    length: u64,
    declared: Option<Checksum>,
    phase: Phase,
}

enum Phase {
    /// Its only block is not here; its key is at this place of the frame at hand.
    Listed { place: usize },
    /// Its only block is not here; its key was copied.
    Kept { key: Range<usize> },
    /// More than one block.
    Pieces { target: Target, cover: Box<Cover>, outstanding: u32 },
    /// The put or the commit is under way.
    Ending,
    /// It has its result.
    Ended,
}

#[derive(Clone, Copy)]
enum Target {
    Own(AllocationId),
    /// A value of this checksum is stored.
    Present(Checksum),
}

// ---------------------------------------------------------------- frames

impl Service {
    //= MKV-BATCH-1
    //= MKV-BATCH-3
    pub(super) fn on_batch_write(&mut self, call: Call, namespace: &[u8], request: BatchWrite<'_>) {
        if !self.same_namespace(call.name, namespace) {
            return;
        }
        let Some(mut batch) = self.take_batch(call.name) else { return };
        let before = batch.items.len();
        if before + request.items.len() > limits::BATCH_ITEMS_MAX as usize {
            self.fail(call.name, Status::Invalid);
        } else {
            for (place, item) in request.items.iter().enumerate() {
                self.list_item(call, namespace, &mut batch, place, &item);
            }
            let mut given = std::mem::take(&mut self.given);
            self.take_pieces(call, namespace, &request, &mut batch, &mut given);
            self.given = given;
            self.keep_keys(call.name, &request, &mut batch, before);
        }
        self.put_batch_back(call.name, batch);
    }

    fn take_batch(&mut self, name: Name) -> Option<BatchWriting> {
        let open = self.requests.get_mut(name)?;
        match std::mem::replace(&mut open.state, State::Plain) {
            State::BatchWrite(batch) => Some(batch),
            _ => Some(BatchWriting::default()),
        }
    }

    fn put_batch_back(&mut self, name: Name, batch: BatchWriting) {
        if let Some(open) = self.requests.get_mut(name) {
            open.state = State::BatchWrite(batch);
        }
    }

    fn list_item(
        &mut self,
        call: Call,
        namespace: &[u8],
        batch: &mut BatchWriting,
        place: usize,
        item: &WriteItem<'_>,
    ) {
        let index = batch.items.len();
        let declared = item.checksum.map(|checksum| Checksum(*checksum));
        batch.items.push(Item { length: item.length, declared, phase: Phase::Listed { place } });
        if item.length <= BLOCK_BYTES as u64 {
            return;
        }
        let key = Key::new(namespace, item.key);
        let target = match self.store.allocate(self.now_ms, call.client, key, item.length, declared, 0) {
            Ok(Allocated::New { id, .. }) => Target::Own(id),
            Ok(Allocated::Present(value)) => Target::Present(value.checksum),
            Err(error) => return self.end_item(call.name, batch, index, status_of(&error)),
        };
        let cover = Box::new(Cover::new(item.length));
        // What an allocation holds in memory for each block.
        let blocks = item.length.div_ceil(BLOCK_BYTES as u64) as usize;
        batch.items[index].phase = Phase::Pieces { target, cover, outstanding: 0 };
        if !self.keep(call.name, blocks * 32) {
            self.end_item(call.name, batch, index, Status::Busy);
        }
    }

    fn take_pieces(
        &mut self,
        call: Call,
        namespace: &[u8],
        request: &BatchWrite<'_>,
        batch: &mut BatchWriting,
        given: &mut Vec<PieceBytes>,
    ) {
        for (piece, given) in request.pieces.iter().zip(given.drain(..)) {
            let index = piece.index as usize;
            let Some(item) = batch.items.get(index) else { return self.fail(call.name, Status::Invalid) };
            if let Phase::Ended = item.phase {
                continue;
            }
            match given.refused {
                //= MKV-VAL-3
                Some(status) => {
                    self.counters.checksum_mismatches += u64::from(status == Status::ChecksumMismatch);
                    self.end_item(call.name, batch, index, status);
                }
                None => self.take_piece(call, namespace, request, batch, &piece, given),
            }
        }
    }

    fn take_piece(
        &mut self,
        call: Call,
        namespace: &[u8],
        request: &BatchWrite<'_>,
        batch: &mut BatchWriting,
        piece: &Piece<'_>,
        given: PieceBytes,
    ) {
        let index = piece.index as usize;
        let item = &mut batch.items[index];
        let single = match &mut item.phase {
            Phase::Listed { .. } | Phase::Kept { .. } => is_block(piece, item.length),
            Phase::Pieces { target, cover, outstanding } => {
                if cover.add(piece, given.checksum) {
                    let bytes = given.bytes.len();
                    if let Target::Own(allocation) = *target {
                        *outstanding += 1;
                        let what = What::ItemPiece { item: piece.index };
                        let ticket = self.ticket(Some(call.name), what, bytes);
                        let block = Block { bytes: given.bytes, checksum: given.checksum };
                        self.store.write_piece(self.now_ms, ticket, allocation, piece.offset, block);
                    }
                    return self.count_written(call.name, bytes);
                }
                false
            }
            Phase::Ending | Phase::Ended => false,
        };
        if !single {
            //= MKV-BATCH-2
            return self.end_item(call.name, batch, index, Status::Invalid);
        }
        let checksum = Checksum::of_blocks([&given.checksum]);
        if item.declared.is_some_and(|declared| declared != checksum) {
            self.counters.checksum_mismatches += 1;
            return self.end_item(call.name, batch, index, Status::ChecksumMismatch);
        }
        let phase = std::mem::replace(&mut item.phase, Phase::Ending);
        let key = match &phase {
            Phase::Listed { place } => request.items.get(*place).map(|item| item.key),
            Phase::Kept { key } => batch.kept.get(key.clone()),
            Phase::Pieces { .. } | Phase::Ending | Phase::Ended => None,
        };
        let Some(key) = key else { return };
        let bytes = given.bytes.len();
        let ticket = self.ticket(Some(call.name), What::ItemPut { item: piece.index }, bytes);
        let block = Block { bytes: given.bytes, checksum: given.checksum };
        self.store.put(self.now_ms, call.client, ticket, Key::new(namespace, key), [block]);
        self.count_written(call.name, bytes);
    }

    /// Copies the keys that later frames will need.
    fn keep_keys(&mut self, name: Name, request: &BatchWrite<'_>, batch: &mut BatchWriting, first: usize) {
        if self.requests.get(name).is_none_or(|open| open.ended || open.fault.is_some()) {
            return;
        }
        for index in first..batch.items.len() {
            let Phase::Listed { place } = batch.items[index].phase else { continue };
            let Some(key) = request.items.get(place).map(|item| item.key) else { continue };
            if !self.keep(name, key.len() + size_of::<Item>()) {
                return;
            }
            let start = batch.kept.len();
            batch.kept.extend_from_slice(key);
            batch.items[index].phase = Phase::Kept { key: start..batch.kept.len() };
        }
    }
}

// ---------------------------------------------------------------- ends

impl Service {
    /// An item's result is known. It goes out with the next frame.
    fn end_item(&mut self, name: Name, batch: &mut BatchWriting, index: usize, status: Status) {
        let item = &mut batch.items[index];
        let phase = std::mem::replace(&mut item.phase, Phase::Ended);
        if let Phase::Ended = phase {
            return;
        }
        if let Phase::Pieces { target: Target::Own(allocation), .. } = phase {
            // Unknown means that it has ended already: there is nothing to give up.
            let _ = self.store.abort(self.now_ms, allocation);
        }
        batch.results.push(WriteResult { index: index as u32, status });
        self.note_gathered(name);
    }

    pub(super) fn item_stored(&mut self, name: Name, item: u32, result: Result<Outcome, StoreError>) {
        let Some(mut batch) = self.take_batch(name) else { return };
        let status = match stored(result) {
            Ok((_, present)) => {
                self.counters.writes += 1;
                self.counters.writes_present += u64::from(present);
                Status::Ok
            }
            Err(error) => status_of(&error),
        };
        self.end_item(name, &mut batch, item as usize, status);
        self.put_batch_back(name, batch);
    }

    pub(super) fn item_piece_written(&mut self, name: Name, item: u32, result: Result<Outcome, StoreError>) {
        let Some(mut batch) = self.take_batch(name) else { return };
        if let Phase::Pieces { outstanding, .. } = &mut batch.items[item as usize].phase {
            *outstanding -= 1;
            match result {
                Ok(_) => self.commit_item(name, &mut batch, item),
                Err(error) => self.end_item(name, &mut batch, item as usize, status_of(&error)),
            }
        }
        self.put_batch_back(name, batch);
    }

    /// Commits an item that is whole and on its devices.
    fn commit_item(&mut self, name: Name, batch: &mut BatchWriting, index: u32) {
        let item = &mut batch.items[index as usize];
        let Phase::Pieces { target: Target::Own(allocation), cover, outstanding: 0 } = &item.phase else {
            return;
        };
        if cover.is_whole() {
            let (allocation, declared) = (*allocation, item.declared);
            item.phase = Phase::Ending;
            let ticket = self.ticket(Some(name), What::ItemCommit { item: index }, 0);
            self.store.commit(self.now_ms, ticket, allocation, declared);
        }
    }

    /// All frames are in and nothing is under way: what has no result yet is not whole.
    //= MKV-BATCH-2
    pub(super) fn settle_batch_write(&mut self, name: Name) {
        let Some(mut batch) = self.take_batch(name) else { return };
        for index in 0..batch.items.len() {
            let status = match &batch.items[index].phase {
                Phase::Ended => continue,
                Phase::Pieces { target: Target::Present(stored), cover, .. } if cover.is_whole() => {
                    let same = cover.checksum() == *stored;
                    self.counters.writes_present += u64::from(same);
                    //= MKV-WR-3
                    if same { Status::Ok } else { Status::Conflict }
                }
                Phase::Listed { .. } | Phase::Kept { .. } | Phase::Pieces { .. } => Status::Invalid,
                // What began has ended, for nothing is under way.
                Phase::Ending => Status::Internal,
            };
            self.end_item(name, &mut batch, index, status);
        }
        let results = std::mem::take(&mut batch.results);
        self.put_batch_back(name, batch);
        let reply = BatchWriteReply { results: List::from(&results) };
        self.finish(name, Status::Ok, ResponseWhich::BatchWrite(reply));
    }

    /// Sends the results there are, if more are to come.
    pub(super) fn send_results(&mut self, name: Name) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::BatchWrite(batch) = &mut open.state else { return };
        if batch.results.is_empty() {
            return;
        }
        let results = std::mem::take(&mut batch.results);
        let buf = self.reply_buf();
        let reply = BatchWriteReply { results: List::from(&results) };
        self.send(name, false, Status::Ok, ResponseWhich::BatchWrite(reply), buf);
    }

    pub(super) fn abandon_batch_write(&mut self, batch: BatchWriting) {
        for item in batch.items {
            if let Phase::Pieces { target: Target::Own(allocation), .. } = item.phase {
                // Unknown means that it has ended already: there is nothing to give up.
                let _ = self.store.abort(self.now_ms, allocation);
            }
        }
    }
}
