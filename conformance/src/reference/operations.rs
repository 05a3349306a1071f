//! What each operation does, message by message.

use std::collections::HashSet;

use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES, Checksum};
use memkv_wire::control::{ControlBuf, Message};
use memkv_wire::limits::{BATCH_ITEMS_MAX, LEASE_MS_DEFAULT, PAYLOAD_SIZE_BYTES_MAX};
use memkv_wire::*;

use super::flaw::Flaw;
use super::pieces::{Gathered, cut};
use super::state::{Allocation, ClientId, Filling, Namespace, State, Value, end_of_lease};

/// One frame of a request, decoded.
pub struct Part<'a> {
    pub request: Request<'a>,
    pub payload: &'a [u8],
}

/// The frames of a reply: control message and payload.
#[derive(Default)]
pub struct Out {
    pub frames: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Out {
    pub fn push(&mut self, status: Status, which: ResponseWhich<'_>, payload: &[u8]) {
        let mut buffer = ControlBuf::new();
        let response = Response { status, retry_after_ms: 0, detail: "", which };
        // Everything here is within the bounds of what was asked for; an empty message shows if it is not.
        let control =
            response.encode(&mut buffer).map_or_else(|_| Vec::new(), |()| buffer.control().to_vec());
        self.frames.push((control, payload.to_vec()));
    }

    /// The answer to a read with the pieces of two frames in one where its payload has room for both.
    pub fn together(self) -> Out {
        let mut out = Out::default();
        for (control, payload) in self.frames {
            let joined = out.frames.last().and_then(|(before, bytes)| {
                let payload = [bytes.as_slice(), &payload].concat();
                let fits = payload.len() <= PAYLOAD_SIZE_BYTES_MAX as usize;
                Some((join_reads(before, &control).filter(|_| fits)?, payload))
            });
            match joined {
                Some(joined) => drop(out.frames.splice(out.frames.len() - 1.., [joined])),
                None => out.frames.push((control, payload)),
            }
        }
        out
    }

    fn ok(which: ResponseWhich<'_>) -> Out {
        let mut out = Out::default();
        out.push(Status::Ok, which, &[]);
        out
    }

    pub fn failed(operation: Option<Operation>, status: Status) -> Out {
        let mut out = Out::default();
        let which = operation.map_or(ResponseWhich::Ping(PingReply::default()), Operation::empty_reply);
        out.push(status, which, &[]);
        out
    }
}

/// The control message with the pieces of both, when they answer a read and it went well.
fn join_reads(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let (first, second) = (Message::new(first).ok()?, Message::new(second).ok()?);
    let (first, second) = (Response::decode(&first).ok()?, Response::decode(&second).ok()?);
    let (ResponseWhich::Read(mut read), ResponseWhich::Read(more)) = (first.which, second.which) else {
        return None;
    };
    let pieces: Vec<Piece<'_>> = read.pieces.iter().chain(more.pieces.iter()).collect();
    read.pieces = List::from(&pieces);
    let mut out = Out::default();
    out.push(second.status, ResponseWhich::Read(read), &[]);
    out.frames.pop().map(|(control, _)| control)
}

/// A message, whole.
pub struct Whole<'a> {
    pub namespace: &'a [u8],
    pub parts: &'a [Part<'a>],
    pub client: ClientId,
    pub flaw: Option<Flaw>,
}

/// Answers a message.
pub fn answer(state: &mut State, parts: &[Part<'_>], client: ClientId, flaw: Option<Flaw>) -> Out {
    let Some(first) = parts.first() else { return Out::failed(None, Status::Invalid) };
    let Some(operation) = first.request.which.operation() else {
        return Out::failed(None, Status::UnknownOperation);
    };
    let whole = Whole { namespace: first.request.namespace, parts, client, flaw };
    match whole.check(operation).and_then(|()| whole.perform(state, &first.request.which)) {
        Ok(out) => out,
        Err(status) if flaw == Some(Flaw::FailureArmWrong) => Out::failed(Some(Operation::Ping), status),
        Err(status) => Out::failed(Some(operation), status),
    }
}

type Answer = Result<Out, Status>;

impl Whole<'_> {
    /// What the frames of a message owe each other.
    //= MKV-MSG-3
    fn check(&self, operation: Operation) -> Result<(), Status> {
        let payload_fits = match operation.payload() {
            PayloadUse::None => {
                self.parts.len() == 1 && self.parts.iter().all(|part| part.payload.is_empty())
            }
            PayloadUse::Frames => self.parts.iter().all(|part| part.payload.is_empty()),
            PayloadUse::Pieces | PayloadUse::Body => true,
        };
        if !payload_fits {
            return Err(Status::Invalid);
        }
        if self.namespace.is_empty() && self.flaw == Some(Flaw::EmptyNamespaceRefused) {
            return Err(Status::Invalid);
        }
        let mut scalars = self.parts.iter().map(|part| scalars(&part.request, self.flaw));
        let first = scalars.next();
        let same = scalars.all(|other| Some(other) == first);
        if same || self.flaw == Some(Flaw::ContradictionTaken) { Ok(()) } else { Err(Status::Invalid) }
    }

    fn perform(&self, state: &mut State, which: &RequestWhich<'_>) -> Answer {
        match which {
            RequestWhich::Connect(_) => Err(Status::Invalid),
            RequestWhich::Allocate(allocate) => self.allocate(state, allocate),
            RequestWhich::Lookup(lookup) => self.lookup(state, lookup),
            RequestWhich::Commit(commit) => self.commit(state, commit),
            RequestWhich::Delete(_) => self.delete(state),
            RequestWhich::Exists(_) => self.exists(state),
            RequestWhich::Read(read) => self.read(state, read),
            RequestWhich::Write(write) if write.allocation != 0 => self.fill(state, write),
            RequestWhich::Write(write) => self.write(state, write),
            RequestWhich::BatchRead(_) => self.batch_read(state),
            RequestWhich::BatchWrite(_) => self.batch_write(state),
            RequestWhich::PutManifest(put) => self.put_manifest(state, put),
            RequestWhich::GetManifest(get) => self.get_manifest(state, get),
            RequestWhich::DeleteManifest(delete) => self.delete_manifest(state, delete),
            RequestWhich::ListManifests(list) => self.list_manifests(state, list),
            RequestWhich::Ping(ping) => self.ping(ping),
            RequestWhich::Stats(_) => Ok(Out::ok(ResponseWhich::Stats(StatsReply::default()))),
            RequestWhich::Unknown(_) => Err(Status::UnknownOperation),
        }
    }

    fn space<'s>(&self, state: &'s mut State) -> &'s mut Namespace {
        state.namespace(self.namespace, self.flaw)
    }

    fn ping(&self, ping: &Ping<'_>) -> Answer {
        if !ping.regions.is_empty() && self.flaw != Some(Flaw::RegionsTakenOnStream) {
            return Err(Status::Unsupported);
        }
        let echo = match self.flaw {
            Some(Flaw::EchoLost) => 0,
            Some(Flaw::EchoAsDouble) => ping.echo as f64 as u64,
            _ => ping.echo,
        };
        Ok(Out::ok(ResponseWhich::Ping(PingReply { echo, uptime_ms: 1 })))
    }

    // ---- Keys

    fn exists(&self, state: &mut State) -> Answer {
        let keys = self.keys(|which| match which {
            RequestWhich::Exists(exists) => Some(exists.keys),
            _ => None,
        })?;
        let space = self.space(state);
        let length = |key: &&[u8]| space.values.get(self.key(key)).map_or(0, |value| value.data.len() as u64);
        let mut lengths: Vec<u64> = keys.iter().map(length).collect();
        if self.flaw == Some(Flaw::ExistsTellsOne) {
            lengths.iter_mut().for_each(|length| *length = 1.min(*length));
        }
        match self.flaw {
            Some(Flaw::ExistsReversed) => lengths.reverse(),
            Some(Flaw::ExistsTooFew) => drop(lengths.pop()),
            _ => {}
        }
        Ok(Out::ok(ResponseWhich::Exists(ExistsReply { lengths: List::from(&lengths) })))
    }

    //= MKV-DEL-1
    fn delete(&self, state: &mut State) -> Answer {
        let keys = self.keys(|which| match which {
            RequestWhich::Delete(delete) => Some(delete.keys),
            _ => None,
        })?;
        let mut statuses = Vec::new();
        for (number, key) in keys.into_iter().enumerate() {
            let leased =
                state.is_leased(self.namespace, key, self.client) && self.flaw != Some(Flaw::LeasesIgnored);
            let space = self.space(state);
            let referenced = space.is_referenced(key) && self.flaw != Some(Flaw::DeleteIgnoresReferences);
            statuses.push(match space.values.contains_key(key) {
                false if self.flaw != Some(Flaw::DeleteOfMissing) => Status::NotFound,
                true if referenced => Status::Referenced,
                true if leased => Status::Busy,
                _ if number > 0 && self.flaw == Some(Flaw::DeleteOnlyFirst) => Status::Ok,
                _ => {
                    state.remove(self.namespace, key, self.flaw);
                    Status::Ok
                }
            });
        }
        if self.flaw == Some(Flaw::DeleteReversed) {
            statuses.reverse();
        }
        Ok(Out::ok(ResponseWhich::Delete(DeleteReply { statuses: List::from(&statuses) })))
    }

    fn keys<'a>(
        &'a self,
        of: impl Fn(&RequestWhich<'a>) -> Option<List<'a, &'a [u8]>>,
    ) -> Result<Vec<&'a [u8]>, Status> {
        let mut keys: Vec<&[u8]> = self
            .parts
            .iter()
            .filter_map(|part| of(&part.request.which))
            .flat_map(|keys| keys.iter())
            .collect();
        match self.flaw {
            Some(Flaw::BatchMaxByFrame) => keys.truncate(BATCH_ITEMS_MAX as usize),
            Some(Flaw::KeysDeduplicated) => {
                let mut seen = HashSet::new();
                keys.retain(|key| seen.insert(*key));
            }
            _ => {}
        }
        if self.is_too_many(keys.len()) { Err(Status::Invalid) } else { Ok(keys) }
    }

    fn is_too_many(&self, items: usize) -> bool {
        let refused = usize::from(self.flaw == Some(Flaw::BatchOfMaxRefused));
        items + refused > BATCH_ITEMS_MAX as usize
    }

    /// A key as it is kept.
    fn key<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        if self.flaw == Some(Flaw::KeyLastByteLost) { &key[..key.len().min(511)] } else { key }
    }

    fn lookup(&self, state: &mut State, lookup: &Lookup<'_>) -> Answer {
        let found = self.space(state).values.get(lookup.key).cloned();
        let value = match self.flaw {
            Some(Flaw::LookupOfMissing) => found.unwrap_or(Value::new(vec![0])),
            _ => found.ok_or(Status::NotFound)?,
        };
        state.lease(self.namespace, lookup.key, self.client, lookup.lease_ms, self.flaw);
        let mut blocks: Vec<u8> = value.data.chunks(BLOCK_SIZE_BYTES).flat_map(checksum::block).collect();
        match self.flaw {
            Some(Flaw::LookupBlocksWrong) => blocks.reverse(),
            Some(Flaw::LookupBlocksFloor) => blocks.truncate(value.data.len() / BLOCK_SIZE_BYTES * 16),
            _ => {}
        }
        let length = match self.flaw {
            Some(Flaw::LookupLengthWrong) => value.data.len().next_multiple_of(BLOCK_SIZE_BYTES),
            _ => value.data.len(),
        };
        Ok(Out::ok(ResponseWhich::Lookup(LookupReply {
            length: length as u64,
            checksum: Some(&value.checksum),
            block_checksums: &blocks,
            lease_ms: LEASE_MS_DEFAULT,
        })))
    }

    // ---- Writing

    //= MKV-ALLOC-2
    fn allocate(&self, state: &mut State, allocate: &Allocate<'_>) -> Answer {
        let mut reply = AllocateReply { lease_ms: LEASE_MS_DEFAULT, ..AllocateReply::default() };
        if let Some(value) = self.space(state).values.get(allocate.key) {
            let same = value.data.len() as u64 == allocate.length
                && (self.flaw == Some(Flaw::PresentForAll)
                    || allocate.checksum.is_none_or(|checksum| *checksum == value.checksum));
            if !same {
                return Err(Status::Conflict);
            }
            if self.flaw != Some(Flaw::PresentUnsaid) {
                reply.present = true;
                return Ok(Out::ok(ResponseWhich::Allocate(reply)));
            }
        }
        state.next_allocation += 1;
        reply.allocation = state.next_allocation;
        state.allocations.insert(
            reply.allocation,
            Allocation {
                namespace: self.namespace.to_vec(),
                key: allocate.key.to_vec(),
                checksum: allocate.checksum.copied(),
                filling: Filling::new(allocate.length),
                client: self.client,
                until: match self.flaw {
                    Some(Flaw::AllocationLeaseIgnored) => end_of_lease(0),
                    _ => end_of_lease(allocate.lease_ms),
                },
            },
        );
        Ok(Out::ok(ResponseWhich::Allocate(reply)))
    }

    /// Forgets the allocations whose time is over.
    //= MKV-ALLOC-1
    fn reclaim(&self, state: &mut State) {
        if self.flaw != Some(Flaw::LeasesIgnored) {
            let now = std::time::Instant::now();
            state.allocations.retain(|_, allocation| allocation.until > now);
        }
    }

    /// Write with an allocation.
    //= MKV-ALLOC-3
    fn fill(&self, state: &mut State, write: &Write<'_>) -> Answer {
        self.reclaim(state);
        let allocation = state.allocations.get_mut(&write.allocation).ok_or(Status::LeaseExpired)?;
        if allocation.client != self.client && self.flaw != Some(Flaw::AllocationForAll) {
            return Err(Status::LeaseExpired);
        }
        let same = allocation.key == write.key && allocation.filling.data.len() as u64 == write.length;
        if !same && self.flaw != Some(Flaw::AllocationOfAnything) {
            return Err(Status::Invalid);
        }
        for (piece, bytes) in self.pieces()? {
            match allocation.filling.put(&piece, bytes, true, self.flaw) {
                Status::Ok => {}
                failed => return Err(failed),
            }
        }
        Ok(Out::ok(ResponseWhich::Write(WriteReply { checksum: None })))
    }

    //= MKV-COMMIT-1
    //= MKV-COMMIT-2
    fn commit(&self, state: &mut State, commit: &Commit<'_>) -> Answer {
        self.reclaim(state);
        let allocation = state.allocations.get(&commit.allocation).ok_or(Status::LeaseExpired)?;
        if allocation.client != self.client && self.flaw != Some(Flaw::AllocationForAll) {
            return Err(Status::LeaseExpired);
        }
        if !allocation.filling.is_whole() && self.flaw != Some(Flaw::CommitOfPart) {
            if self.flaw == Some(Flaw::FailedCommitForgets) {
                state.allocations.remove(&commit.allocation);
            }
            return Err(Status::Invalid);
        }
        let value = Value::new(allocation.filling.data.clone());
        let checked = [commit.checksum.copied(), allocation.checksum];
        let holds = |expected: &Checksum| *expected == value.checksum;
        if !checked.iter().flatten().all(holds) && self.flaw != Some(Flaw::CommitChecksumNotChecked) {
            return Err(Status::ChecksumMismatch);
        }
        let (namespace, key) = (allocation.namespace.clone(), allocation.key.clone());
        let checksum = value.checksum;
        match state.store(&namespace, &key, self.client, value, self.flaw) {
            Status::Ok => {
                if self.flaw != Some(Flaw::CommitTwice) {
                    state.allocations.remove(&commit.allocation);
                }
                Ok(Out::ok(ResponseWhich::Commit(CommitReply { checksum: Some(&checksum) })))
            }
            failed => Err(failed),
        }
    }

    /// Every piece of the message with its bytes.
    fn pieces(&self) -> Result<Vec<(Piece<'_>, &[u8])>, Status> {
        let mut all = Vec::new();
        for part in self.parts {
            let pieces = match part.request.which {
                RequestWhich::Write(write) => write.pieces,
                RequestWhich::BatchWrite(batch) => batch.pieces,
                _ => List::empty(),
            };
            all.extend(cut(pieces, part.payload)?);
        }
        Ok(all)
    }

    //= MKV-WR-1
    fn write(&self, state: &mut State, write: &Write<'_>) -> Answer {
        let mut gathered = Gathered::new(std::iter::once(write.length));
        for (piece, bytes) in self.pieces()? {
            if !gathered.put(&piece, bytes, self.flaw) {
                return Err(Status::Invalid);
            }
        }
        let data = gathered.finish(self.flaw).pop().ok_or(Status::Invalid)??;
        let value = Value::new(data);
        let checksum = value.checksum;
        self.store_value(state, write.key, value, write.checksum)?;
        Ok(Out::ok(ResponseWhich::Write(WriteReply { checksum: Some(&checksum) })))
    }

    //= MKV-WR-6
    fn store_value(
        &self,
        state: &mut State,
        key: &[u8],
        value: Value,
        checksum: Option<&Checksum>,
    ) -> Result<(), Status> {
        let key = self.key(key);
        let expected = checksum.filter(|_| match self.flaw {
            Some(Flaw::ValueChecksumNotChecked) => false,
            Some(Flaw::OneBlockUnverified) => value.data.len() > BLOCK_SIZE_BYTES,
            _ => true,
        });
        if expected.is_some_and(|expected| *expected != value.checksum) {
            if self.flaw == Some(Flaw::MismatchStored) {
                state.store(self.namespace, key, self.client, value, self.flaw);
            }
            return Err(Status::ChecksumMismatch);
        }
        match state.store(self.namespace, key, self.client, value, self.flaw) {
            Status::Ok => Ok(()),
            failed => Err(failed),
        }
    }

    //= MKV-BATCH-1
    //= MKV-BATCH-3
    fn batch_write(&self, state: &mut State) -> Answer {
        let (mut items, mut pieces) = (Vec::new(), Vec::new());
        for part in self.parts {
            let RequestWhich::BatchWrite(batch) = part.request.which else { return Err(Status::Invalid) };
            items.extend(batch.items.iter());
            for (piece, bytes) in cut(batch.pieces, part.payload)? {
                if piece.index as usize >= items.len() {
                    return Err(Status::Invalid);
                }
                pieces.push((piece, bytes));
            }
        }
        if self.is_too_many(items.len()) {
            return Err(Status::Invalid);
        }
        let mut gathered = Gathered::new(items.iter().map(|item| item.length));
        for (piece, bytes) in pieces {
            gathered.put(&piece, bytes, self.flaw);
        }
        let flaw = match self.flaw {
            Some(Flaw::BatchGapsTaken) => Some(Flaw::GapsTaken),
            flaw => flaw,
        };
        let mut results = Vec::new();
        for ((index, item), data) in (0..).zip(&items).zip(gathered.finish(flaw)) {
            let repeated = items.iter().take(index as usize).any(|earlier| earlier.key == item.key);
            if repeated && self.flaw == Some(Flaw::BatchRepeatWins) {
                self.space(state).values.remove(item.key);
            }
            let stored =
                data.and_then(|data| self.store_value(state, item.key, Value::new(data), item.checksum));
            results.push(WriteResult { index, status: stored.err().unwrap_or(Status::Ok) });
        }
        match self.flaw {
            Some(Flaw::BatchFailsAsAWhole) => {
                let failed = results.iter().map(|result| result.status).find(|status| *status != Status::Ok);
                if let Some(failed) = failed {
                    results.iter_mut().for_each(|result| result.status = failed);
                }
            }
            Some(Flaw::BatchAnswersTooFew) => drop(results.pop()),
            Some(Flaw::BatchAnswersTwice) => results.extend(results.first().copied()),
            Some(Flaw::BatchIndexBeyond) => {
                let beyond = results.len() as u32;
                results.last_mut().into_iter().for_each(|result| result.index = beyond);
            }
            _ => {}
        }
        Ok(Out::ok(ResponseWhich::BatchWrite(BatchWriteReply { results: List::from(&results) })))
    }

    // ---- Reading

    fn read(&self, state: &mut State, read: &Read<'_>) -> Answer {
        let item = ReadItem {
            key: read.key,
            offset: read.offset,
            length: read.length,
            destination: read.destination,
        };
        let (value, range) = self.found(state, &item)?;
        let mut out = Out::default();
        let pieces = self.pieces_of(&value, range);
        let (length, checksum) = (value.data.len() as u64, Some(&value.checksum));
        for (offset, bytes) in pieces {
            let sum = self.checksum_told(&bytes);
            let piece = [piece(0, offset, &bytes, &sum)];
            let reply = ReadReply { length, checksum, pieces: List::from(&piece) };
            out.push(Status::Ok, ResponseWhich::Read(reply), &bytes);
        }
        if out.frames.is_empty() {
            let reply = ReadReply { length, checksum, pieces: List::empty() };
            out.push(Status::Ok, ResponseWhich::Read(reply), &[]);
        }
        Ok(out)
    }

    //= MKV-BATCH-4
    fn batch_read(&self, state: &mut State) -> Answer {
        let items = self.parts.iter().flat_map(|part| match part.request.which {
            RequestWhich::BatchRead(batch) => batch.items,
            _ => List::empty(),
        });
        let mut items: Vec<ReadItem<'_>> = items.collect();
        if self.is_too_many(items.len()) {
            return Err(Status::Invalid);
        }
        if self.flaw == Some(Flaw::BatchReadWhole) {
            items.iter_mut().for_each(|item| (item.offset, item.length) = (0, 0));
        }
        let mut missed = false;
        let mut out = Out::default();
        let mut push = |results: &[ReadResult<'_>], pieces: &[Piece<'_>], payload: &[u8]| {
            let reply = BatchReadReply { results: List::from(results), pieces: List::from(pieces) };
            out.push(Status::Ok, ResponseWhich::BatchRead(reply), payload);
        };
        for (index, item) in (0..).zip(&items) {
            if self.flaw == Some(Flaw::BatchAnswersTooFew) && index as usize == items.len() - 1 {
                continue;
            }
            let found = match self.found(state, item) {
                _ if missed && self.flaw == Some(Flaw::BatchReadStopsAtMiss) => Err(Status::NotFound),
                found => found,
            };
            let (value, range) = match found {
                Ok(found) => found,
                Err(status) => {
                    missed = true;
                    push(&[ReadResult { index, status, length: 0, checksum: None }], &[], &[]);
                    continue;
                }
            };
            let length = value.data.len() as u64;
            push(
                &[ReadResult { index, status: Status::Ok, length, checksum: Some(&value.checksum) }],
                &[],
                &[],
            );
            for (offset, bytes) in self.pieces_of(&value, range) {
                let sum = self.checksum_told(&bytes);
                push(&[], &[piece(index, offset, &bytes, &sum)], &bytes);
            }
        }
        if out.frames.is_empty() {
            out.push(Status::Ok, ResponseWhich::BatchRead(BatchReadReply::default()), &[]);
        }
        Ok(out)
    }

    /// The value and the range that is asked for.
    //= MKV-RD-3
    fn found(
        &self,
        state: &mut State,
        item: &ReadItem<'_>,
    ) -> Result<(Value, std::ops::Range<usize>), Status> {
        if !matches!(item.destination.which, DestinationWhich::Inline) {
            return Err(Status::Unsupported);
        }
        let found =
            self.space(state).values.get(self.key(item.key)).filter(|_| self.flaw != Some(Flaw::ReadMisses));
        let value = found.cloned().ok_or(Status::NotFound)?;
        let (start, length) = (item.offset as usize, item.length as usize);
        if start == value.data.len() && self.flaw == Some(Flaw::RangeAtEndEmpty) {
            return Ok((value, start..start));
        }
        if start >= value.data.len() {
            return if self.flaw == Some(Flaw::ReadPastEnd) {
                Ok((value, 0..1))
            } else {
                Err(Status::Invalid)
            };
        }
        if self.flaw == Some(Flaw::RangeNotCut) && start + length > value.data.len() {
            return Err(Status::Invalid);
        }
        let length = if self.flaw == Some(Flaw::LengthIgnored) { 0 } else { length };
        let start = if self.flaw == Some(Flaw::ReadIgnoresOffset) { 0 } else { start };
        let end = if length == 0 { value.data.len() } else { value.data.len().min(start + length) };
        Ok((value, start..end))
    }

    /// The range in pieces that lie in one block each.
    //= MKV-RD-1
    fn pieces_of(&self, value: &Value, range: std::ops::Range<usize>) -> Vec<(u64, Vec<u8>)> {
        let (mut pieces, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let end = range.end.min((at / BLOCK_SIZE_BYTES + 1) * BLOCK_SIZE_BYTES);
            let mut bytes = value.data[at..end].to_vec();
            if matches!(self.flaw, Some(Flaw::ReadOtherBytes | Flaw::ReadChecksumWrong)) {
                bytes[0] ^= 1;
            }
            pieces.push((at as u64, bytes));
            at = end;
        }
        match (self.flaw, pieces.first().cloned()) {
            (Some(Flaw::ReadEmpty), _) => pieces.clear(),
            (Some(Flaw::ReadTooShort), Some((_, mut bytes))) if pieces.len() == 1 => {
                bytes.pop();
                pieces = vec![(range.start as u64, bytes)];
            }
            (Some(Flaw::ReadTooShort), _) => drop(pieces.pop()),
            (Some(Flaw::ReadOverlaps), Some(first)) => pieces.push(first),
            _ => {}
        }
        pieces
    }

    fn checksum_told(&self, bytes: &[u8]) -> Checksum {
        let mut sum = checksum::block(bytes);
        if self.flaw == Some(Flaw::ReadChecksumWrong) {
            sum[0] ^= 1;
        }
        sum
    }
}

fn piece<'a>(index: u32, offset: u64, bytes: &[u8], checksum: &'a Checksum) -> Piece<'a> {
    Piece { index, offset, length: bytes.len() as u32, checksum: Some(checksum), which: PieceWhich::Inline }
}

/// Everything in a frame that must be the same in all frames of its message.
fn scalars(request: &Request<'_>, flaw: Option<Flaw>) -> Vec<u8> {
    let mut scalars = request.which.opcode().to_le_bytes().to_vec();
    let mut add = |bytes: &[u8]| {
        scalars.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        scalars.extend_from_slice(bytes);
    };
    if flaw != Some(Flaw::LaterNamespaceIgnored) {
        add(request.namespace);
    }
    match request.which {
        RequestWhich::Write(write) => {
            add(write.key);
            add(&write.length.to_le_bytes());
            add(write.checksum.map_or(&[], |checksum| checksum));
            add(&write.allocation.to_le_bytes());
        }
        RequestWhich::PutManifest(put) => {
            add(put.name);
            add(&put.generation.to_le_bytes());
            add(&put.role.code().to_le_bytes());
            add(&put.length.to_le_bytes());
            add(put.checksum);
        }
        // The others have nothing but lists, or one frame.
        _ => {}
    }
    scalars
}
