//! Reads: values, ranges of them, block checksums, manifest bodies.
//!
//! A read goes out in steps of a few blocks, as many as the connection's window holds; so a client that asks for much and
//! takes it slowly costs a window and no more. Requests of one connection take turns. The bytes come back verified
//! and leave in frames of at most one payload; small values share a frame. What ends well ends in a result that
//! is sent with or after its last byte; what fails later is told then.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use memkv_transport::buf::{Buf, Place as MemoryPlace};
use memkv_transport::stream::Beside;
use memkv_wire::{
    BatchRead, BatchReadReply, DestinationWhich, GetManifestReply, List, Lookup, LookupReply, Piece,
    PieceWhich, Read, ReadReply, ReadResult, Region, ResponseWhich, Status, limits,
};
use smallvec::SmallVec;

use super::connection::ConnectionId;
use super::reply::status_of;
use super::slab::Name;
use super::{Call, Output, Service, State};
use crate::store::{BLOCK_BYTES, Checksum, Corrupt, IoError, Key, ReadPlan, ValueInfo, Verdict};

/// Blocks that one step reads at most.
const STEP_BLOCKS_MAX: u32 = 4;
/// Ended reads whose memory is kept for the next ones, and how much of it.
const SPARES_MAX: usize = 64;
const SPARE_PLACES_MAX: usize = 128;
const SPARE_KEYS_BYTES_MAX: usize = 8192;
/// Pieces that one reply frame carries at most.
const FRAME_PIECES_MAX: usize = 512;
/// Results that one reply frame carries at most.
const FRAME_RESULTS_MAX: usize = 2048;
const PAYLOAD_BYTES_MAX: usize = limits::PAYLOAD_SIZE_BYTES_MAX as usize;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// Bytes to be read and verified, outside the service's lock.
#[derive(Clone, Debug)]
pub struct ReadCommand {
    pub id: ReadId,
    pub plan: Arc<ReadPlan>,
    /// Which of the plan's records.
    pub records: Range<usize>,
    /// The bytes of the value that are wanted; they lie in these records' blocks. Empty: only the heads are.
    pub range: Range<u64>,
    /// Where they are to go; `None`: into the reply.
    pub landing: Option<Landing>,
}

/// A place in memory that a client registered, for the first byte of a read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Landing {
    pub connection: ConnectionId,
    pub region: u32,
    pub offset: u64,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ReadId(Name);

/// The verified bytes of one block, cut to the range that is wanted.
#[derive(Clone, Debug)]
pub struct ReadPiece {
    pub offset: u64,
    pub length: usize,
    /// None when they are at their landing. Those that have one and are here go there before the frame that names them.
    pub bytes: Buf,
    /// That of these bytes.
    pub checksum: Checksum,
}

/// What a read brought.
#[derive(Clone, Debug, Default)]
pub struct ReadOutcome {
    /// In order.
    pub pieces: SmallVec<[ReadPiece; 1]>,
    /// The block checksums of the records that were read, in order.
    pub block_checksums: SmallVec<[Checksum; 4]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Device(#[from] IoError),
    #[error("no memory for the bytes")]
    NoMemory,
    #[error("the client named a place that it did not register")]
    Landing,
}

impl ReadError {
    fn verdict(self) -> Verdict {
        match self {
            ReadError::Corrupt(corrupt) => Verdict::Corrupt(corrupt),
            ReadError::Device(error) => Verdict::Unreadable(error),
            ReadError::NoMemory | ReadError::Landing => Verdict::Good,
        }
    }

    fn status(self) -> Status {
        match self {
            //= MKV-RD-2
            ReadError::Corrupt(_) => Status::NotFound,
            ReadError::Device(_) => Status::StorageFailed,
            ReadError::NoMemory => Status::Busy,
            //= MKV-REG-1
            ReadError::Landing => Status::Invalid,
        }
    }
}

/// A step under way.
pub(super) struct ReadInFlight {
    plan: Arc<ReadPlan>,
    pub(super) request: Name,
    connection: ConnectionId,
    item: usize,
    window_bytes: usize,
}

/// A request that reads: what is still to be read, and what no frame carries yet.
pub(super) struct Reading {
    kind: Kind,
    /// Items by index.
    items: Vec<Item>,
    /// The items from here on have not been begun.
    next_item: usize,
    /// Their keys, after the namespace.
    keys: Vec<u8>,
    namespace_bytes: usize,
    ready: VecDeque<(u32, ReadPiece)>,
    /// Of these pieces, wherever they are: counted in the window.
    ready_bytes: usize,
    /// Items with a result.
    results: VecDeque<(u32, Status)>,
    /// In the connection's queue of readers.
    queued: bool,
}

/// What it answers.
enum Kind {
    /// 16 bytes for each block.
    Lookup {
        lease_ms: u32,
        block_checksums: Vec<u8>,
    },
    Read,
    Batch,
    Manifest(Body),
}

/// A manifest's body, read record by record under one pin.
struct Body {
    plan: Arc<ReadPlan>,
    next_record: usize,
    /// A step holds the pin now.
    under_way: bool,
    generation: u64,
    lease_ms: u32,
}

/// Where a value's bytes go in a region.
#[derive(Clone, Copy)]
struct Place {
    region: u32,
    /// Of the byte at `from`.
    offset: u64,
    from: u64,
}

impl Place {
    fn of(&self, byte: u64) -> u64 {
        // Past the end of every region when it does not fit.
        self.offset.saturating_add(byte - self.from)
    }
}

struct Item {
    key: Range<usize>,
    /// What is stored under the key, once the first step has looked it up.
    value: Option<ValueInfo>,
    /// Bytes still to be asked for. Before the first step they may reach past the value's end.
    next: u64,
    end: u64,
    place: Option<Place>,
    /// Steps under way.
    outstanding: u32,
    ended: bool,
}

impl Reading {
    fn new(kind: Kind, namespace: &[u8]) -> Reading {
        Reading {
            kind,
            items: Vec::new(),
            next_item: 0,
            keys: namespace.to_vec(),
            namespace_bytes: namespace.len(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            results: VecDeque::new(),
            queued: false,
        }
    }

    fn add(
        &mut self,
        key: &[u8],
        value: Option<ValueInfo>,
        range: Range<u64>,
        region: Option<Region<'_>>,
    ) -> usize {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        let key = start..self.keys.len();
        let place =
            region.map(|region| Place { region: region.id, offset: region.offset, from: range.start });
        let (next, end) = (range.start, range.end);
        self.items.push(Item { key, value, next, end, place, outstanding: 0, ended: false });
        self.items.len() - 1
    }

    /// Lists an item of a `Read` or `BatchRead`, unless its bytes are to go where this server cannot put them.
    fn list(
        &mut self,
        key: &[u8],
        (offset, length): (u64, u64),
        destination: DestinationWhich<'_>,
    ) -> Status {
        let region = match destination {
            DestinationWhich::Inline => None,
            DestinationWhich::Region(region) => Some(region),
            DestinationWhich::Unknown(_) => {
                self.add(key, None, 0..0, None);
                return Status::Unsupported;
            }
        };
        let end = if length == 0 { u64::MAX } else { offset.saturating_add(length) };
        self.add(key, None, offset..end, region);
        Status::Ok
    }

    fn has_more(&self) -> bool {
        match &self.kind {
            Kind::Manifest(body) => !body.under_way && body.next_record < body.plan.records.len(),
            Kind::Lookup { .. } => false,
            Kind::Read | Kind::Batch => self.next_item < self.items.len(),
        }
    }

    /// Passes items of which nothing is left to ask for.
    fn advance(&mut self) {
        while self.items.get(self.next_item).is_some_and(|item| item.next >= item.end) {
            self.next_item += 1;
        }
    }

    /// The item has its result, once.
    fn end(&mut self, item: usize, status: Status) {
        if let Some(entry) = self.items.get_mut(item)
            && !std::mem::replace(&mut entry.ended, true)
        {
            entry.next = entry.end;
            self.results.push_back((item as u32, status));
        }
    }
}

// ---------------------------------------------------------------- requests

impl Service {
    pub(super) fn on_read(&mut self, call: Call, namespace: &[u8], request: Read<'_>) {
        let mut reading = self.reading(Kind::Read, namespace);
        let Read { key, offset, length, destination } = request;
        self.counters.reads += 1;
        match reading.list(key, (offset, length), destination.which) {
            Status::Ok => self.begin_reading(call.name, reading),
            status => self.fail(call.name, status),
        }
    }

    //= MKV-BATCH-1
    pub(super) fn on_batch_read(&mut self, call: Call, namespace: &[u8], request: BatchRead<'_>) {
        if !self.same_namespace(call.name, namespace) {
            return;
        }
        let Some(open) = self.requests.get_mut(call.name) else { return };
        let mut reading = match std::mem::replace(&mut open.state, State::Plain) {
            State::Read(reading) => reading,
            _ => self.reading(Kind::Batch, namespace),
        };
        let fits = reading.items.len() + request.items.len() <= limits::BATCH_ITEMS_MAX as usize;
        if !fits {
            self.fail(call.name, Status::Invalid);
        } else {
            let kept: usize = request.items.iter().map(|item| item.key.len() + size_of::<Item>()).sum();
            if self.keep(call.name, kept) {
                self.counters.reads += request.items.len() as u64;
                for item in request.items.iter() {
                    let status = reading.list(item.key, (item.offset, item.length), item.destination.which);
                    if status != Status::Ok {
                        reading.end(reading.items.len() - 1, status);
                    }
                }
            }
        }
        self.begin_reading(call.name, reading);
    }

    pub(super) fn on_lookup(&mut self, call: Call, namespace: &[u8], request: Lookup<'_>) {
        let key = Key::new(namespace, request.key);
        match self.store.lookup(self.now_ms, call.client, key, u64::from(request.lease_ms)) {
            Err(error) => self.fail(call.name, status_of(&error)),
            Ok(plan) => {
                let lease_ms = granted(request.lease_ms);
                let mut reading =
                    self.reading(Kind::Lookup { lease_ms, block_checksums: Vec::new() }, namespace);
                let item = reading.add(request.key, Some(plan.value), 0..0, None);
                reading.items[item].outstanding = 1;
                let records = 0..plan.records.len();
                self.issue(call.name, item, Arc::new(plan), records, 0..0, 0);
                self.begin_reading(call.name, reading);
            }
        }
    }

    /// Reads a manifest's body.
    pub(super) fn begin_body(&mut self, name: Name, generation: u64, lease_ms: u32, plan: ReadPlan) {
        let value = plan.value;
        let mut body = Body { plan: Arc::new(plan), next_record: 0, under_way: false, generation, lease_ms };
        if value.length == 0 {
            // Nothing to read: the plan names only the record's head.
            body.next_record = body.plan.records.len();
            self.store.release(self.now_ms, body.plan.pin, Verdict::Good);
        }
        let mut reading = self.reading(Kind::Manifest(body), &[]);
        let item = reading.add(&[], Some(value), 0..value.length, None);
        reading.items[item].ended = value.length == 0;
        self.begin_reading(name, reading);
    }

    fn reading(&mut self, kind: Kind, namespace: &[u8]) -> Reading {
        match self.spare_readings.pop() {
            None => Reading::new(kind, namespace),
            Some(mut spare) => {
                spare.kind = kind;
                spare.keys.extend_from_slice(namespace);
                spare.namespace_bytes = namespace.len();
                spare
            }
        }
    }

    fn begin_reading(&mut self, name: Name, mut reading: Reading) {
        reading.advance();
        let Some(open) = self.requests.get_mut(name) else { return };
        let connection = open.connection;
        open.state = State::Read(reading);
        self.queue_reader(name);
        self.note_gathered(name);
        self.pump_reads(connection);
    }

    /// Puts a request in its connection's queue of readers, if it has more to read.
    fn queue_reader(&mut self, name: Name) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Read(reading) = &mut open.state else { return };
        if !reading.queued && reading.has_more() {
            reading.queued = true;
            if let Some(connection) = self.connections.get_mut(open.connection.0) {
                connection.readers.push_back(name);
            }
        }
    }
}

/// The lease that a request gets.
pub(super) fn granted(lease_ms: u32) -> u32 {
    if lease_ms == 0 { limits::LEASE_MS_DEFAULT } else { lease_ms.min(limits::LEASE_MS_MAX) }
}

// ---------------------------------------------------------------- steps

impl Service {
    /// Begins as many steps as the connection's window holds, its requests in turn.
    pub(super) fn pump_reads(&mut self, id: ConnectionId) {
        loop {
            let Some(connection) = self.connections.get(id.0) else { return };
            let own_full = connection.window_bytes >= self.limits.window_bytes_max;
            if own_full || (connection.window_bytes > 0 && self.whole_window_full()) {
                return;
            }
            let Some(connection) = self.connections.get_mut(id.0) else { return };
            let Some(name) = connection.readers.pop_front() else { return };
            self.step(name);
        }
    }

    fn whole_window_full(&self) -> bool {
        self.window_bytes_total >= self.limits.window_bytes_total_max
    }

    /// Begins the next step of a request.
    fn step(&mut self, name: Name) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Read(reading) = &mut open.state else { return };
        reading.queued = false;
        match &mut reading.kind {
            Kind::Manifest(body) => {
                let record = body.next_record;
                let Some(read) = body.plan.records.get(record) else { return };
                body.next_record += 1;
                body.under_way = true;
                let Some(range) = bytes_of(read) else { return };
                let plan = Arc::clone(&body.plan);
                reading.items[0].outstanding += 1;
                let window_bytes = (range.end - range.start) as usize;
                self.issue(name, 0, plan, record..record + 1, range, window_bytes);
            }
            Kind::Read | Kind::Batch => self.step_item(name),
            Kind::Lookup { .. } => {}
        }
        self.queue_reader(name);
        self.settle(name);
    }

    fn step_item(&mut self, name: Name) {
        let blocks_max = if self.whole_window_full() { 1 } else { STEP_BLOCKS_MAX };
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Read(reading) = &mut open.state else { return };
        let index = reading.next_item;
        let Some(item) = reading.items.get_mut(index) else { return };
        let (namespace, key) = (&reading.keys[..reading.namespace_bytes], &reading.keys[item.key.clone()]);
        let wanted = item.next..item.end;
        match self.store.read_bytes(self.now_ms, Key::new(namespace, key), wanted, blocks_max) {
            // Another value may have come in its place between two steps.
            Ok(plan) if item.value.is_none_or(|value| value == plan.value) => {
                item.value = Some(plan.value);
                //= MKV-RD-3
                item.end = item.end.min(plan.value.length);
                let blocks_end = u64::from(plan.blocks.end) * BLOCK;
                let range = item.next..item.end.min(blocks_end);
                let window_bytes = blocks_end.min(plan.value.length) - u64::from(plan.blocks.start) * BLOCK;
                item.next = range.end;
                item.outstanding += 1;
                reading.advance();
                let records = 0..plan.records.len();
                let plan = self.plans.share(plan);
                self.issue(name, index, plan, records, range, window_bytes as usize);
            }
            Ok(plan) => {
                self.store.release(self.now_ms, plan.pin, Verdict::Good);
                self.end_item_read(name, index, Status::NotFound);
            }
            Err(error) => self.end_item_read(name, index, status_of(&error)),
        }
    }

    fn end_item_read(&mut self, name: Name, item: usize, status: Status) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Read(reading) = &mut open.state else { return };
        self.counters.read_misses += u64::from(status == Status::NotFound);
        reading.end(item, status);
        reading.advance();
        self.note_gathered(name);
    }

    fn issue(
        &mut self,
        name: Name,
        item: usize,
        plan: Arc<ReadPlan>,
        records: Range<usize>,
        range: Range<u64>,
        window_bytes: usize,
    ) {
        let Some(open) = self.requests.get_mut(name) else { return };
        open.outstanding += 1;
        let connection = open.connection;
        if let Some(connection) = self.connections.get_mut(connection.0) {
            connection.window_bytes += window_bytes;
        }
        self.window_bytes_total += window_bytes;
        let landing = match &open.state {
            State::Read(reading) => reading.landing(connection, item, range.start),
            _ => None,
        };
        let flight = ReadInFlight { plan: Arc::clone(&plan), request: name, connection, item, window_bytes };
        let id = ReadId(self.reads.insert(flight));
        self.outputs.push_back(Output::Read(ReadCommand { id, plan, records, range, landing }));
    }

    /// A read ended.
    pub fn read_done(&mut self, now_ms: u64, id: ReadId, result: Result<ReadOutcome, ReadError>) {
        self.now_ms = self.now_ms.max(now_ms);
        let Some(flight) = self.reads.remove(id.0) else {
            debug_assert!(false, "a read ends once");
            return;
        };
        let verdict = result.as_ref().err().map_or(Verdict::Good, |error| error.verdict());
        let arrived = match &result {
            // Those at their landing too: what was done for a peer counts until it is told, or there would be no end to it.
            Ok(outcome) => outcome.pieces.iter().map(|piece| piece.length).sum(),
            Err(_) => 0,
        };
        let alive = self.requests.get(flight.request).is_some();
        // Bytes that nobody waits for leave the window at once.
        let held = if alive { arrived } else { 0 };
        self.window_bytes_total = self.window_bytes_total - flight.window_bytes + held;
        if let Some(connection) = self.connections.get_mut(flight.connection.0) {
            connection.window_bytes = connection.window_bytes - flight.window_bytes + held;
        }
        let keeps_pin = self.keeps_pin(flight.request) && result.is_ok();
        if !keeps_pin {
            self.store.release(self.now_ms, flight.plan.pin, verdict);
        }
        if alive {
            self.take_outcome(&flight, result);
            self.queue_reader(flight.request);
            self.settle(flight.request);
        }
        self.plans.take_back(flight.plan);
        self.pump_reads(flight.connection);
        self.settle_store();
    }

    /// Whether later steps of the request go on under the same pin.
    fn keeps_pin(&mut self, name: Name) -> bool {
        let Some(open) = self.requests.get_mut(name) else { return false };
        let State::Read(Reading { kind: Kind::Manifest(body), .. }) = &mut open.state else { return false };
        body.under_way = false;
        body.next_record < body.plan.records.len()
    }

    fn take_outcome(&mut self, flight: &ReadInFlight, result: Result<ReadOutcome, ReadError>) {
        let Some(open) = self.requests.get_mut(flight.request) else { return };
        open.outstanding -= 1;
        let State::Read(reading) = &mut open.state else { return };
        let Some(item) = reading.items.get_mut(flight.item) else { return };
        item.outstanding -= 1;
        match result {
            Ok(outcome) => {
                if let Kind::Lookup { block_checksums, .. } = &mut reading.kind {
                    block_checksums.extend(outcome.block_checksums.iter().flat_map(|checksum| checksum.0));
                }
                for piece in outcome.pieces {
                    reading.ready_bytes += piece.length;
                    self.counters.read_bytes += piece.length as u64;
                    reading.ready.push_back((flight.item as u32, piece));
                }
                let more = item.next < item.end && !matches!(reading.kind, Kind::Manifest(_));
                let body_more = matches!(&reading.kind, Kind::Manifest(body) if body.next_record < body.plan.records.len());
                if item.outstanding == 0 && !more && !body_more {
                    reading.end(flight.item, Status::Ok);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a value could not be read");
                if let Kind::Manifest(body) = &mut reading.kind {
                    body.next_record = body.plan.records.len();
                }
                self.end_item_read(flight.request, flight.item, error.status());
            }
        }
        self.note_gathered(flight.request);
    }
}

/// The bytes of a value that the blocks of a record are.
fn bytes_of(record: &crate::store::RecordRead) -> Option<Range<u64>> {
    let (first, last) = (record.blocks.first()?, record.blocks.last()?);
    Some(u64::from(first.block) * BLOCK..u64::from(last.block) * BLOCK + last.length as u64)
}

// ---------------------------------------------------------------- replies

impl Service {
    /// The request has results or pieces that no frame carries yet.
    pub(super) fn note_gathered(&mut self, name: Name) {
        if self.gathered.last() != Some(&name) {
            self.gathered.push(name);
        }
    }

    /// Sends what was gathered for requests that go on.
    pub(super) fn send_gathered(&mut self) {
        while let Some(name) = self.gathered.pop() {
            let Some(open) = self.requests.get(name) else { continue };
            match &open.state {
                State::Read(_) if open.fault.is_none() => self.send_read(name, false),
                State::BatchWrite(_) => self.send_results(name),
                _ => {}
            }
        }
    }

    /// All frames are in, nothing is under way: the reply ends, unless there is more to read.
    pub(super) fn settle_read(&mut self, name: Name) {
        let Some(open) = self.requests.get(name) else { return };
        let State::Read(reading) = &open.state else { return };
        if !reading.queued && !reading.has_more() {
            self.send_read(name, true);
            self.release(name);
        }
    }

    /// Sends what there is, in as many frames as it takes; `ending`: the reply ends with the last one.
    fn send_read(&mut self, name: Name, ending: bool) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::Read(mut reading) = std::mem::replace(&mut open.state, State::Plain) else { return };
        // A value's status is that of the frame, and only the last frame has it.
        let alone = !matches!(reading.kind, Kind::Batch);
        while !reading.ready.is_empty() || ending || (!alone && !reading.results.is_empty()) {
            let last = self.send_read_frame(name, &mut reading, ending);
            if last {
                break;
            }
        }
        if let Some(open) = self.requests.get_mut(name) {
            open.state = State::Read(reading);
        }
    }

    /// Sends one frame; true when it was the reply's last.
    fn send_read_frame(&mut self, name: Name, reading: &mut Reading, ending: bool) -> bool {
        let mut buf = self.reply_buf();
        let mut taken: SmallVec<[(u32, ReadPiece); 16]> = SmallVec::new();
        let mut bytes = 0;
        while let Some((_, piece)) = reading.ready.front() {
            if bytes + piece.bytes.len() > PAYLOAD_BYTES_MAX || taken.len() == FRAME_PIECES_MAX {
                break;
            }
            bytes += piece.bytes.len();
            buf.landed_size_bytes += piece.length - piece.bytes.len();
            if let Some(next) = reading.ready.pop_front() {
                taken.push(next);
            }
        }
        reading.ready_bytes -= bytes + buf.landed_size_bytes;
        let pieces: SmallVec<[Piece<'_>; 16]> = taken
            .iter()
            .map(|(index, piece)| Piece {
                index: *index,
                offset: piece.offset,
                length: piece.length as u32,
                checksum: Some(&piece.checksum.0),
                which: reading.which(*index, piece),
            })
            .collect();
        let count = reading.results.len().min(FRAME_RESULTS_MAX);
        let ended: SmallVec<[(u32, Status); 16]> = match reading.kind {
            Kind::Batch => reading.results.drain(..count).collect(),
            Kind::Lookup { .. } | Kind::Read | Kind::Manifest(_) => SmallVec::new(),
        };
        let more = matches!(reading.kind, Kind::Batch) && !reading.results.is_empty();
        let last = ending && reading.ready.is_empty() && !more;
        let results: SmallVec<[ReadResult<'_>; 16]> =
            ended.iter().map(|(index, status)| reading.result(*index, *status)).collect();
        for (index, piece) in taken.iter().filter(|(_, piece)| !piece.bytes.is_empty()) {
            match reading.place_of(*index, piece) {
                None => buf.payload.push(piece.bytes.clone()),
                // Where the MAC goes is known when the message is encoded.
                to => buf.beside.push(Beside { mac_at: 0, bytes: piece.bytes.clone(), to }),
            }
        }
        //= MKV-MSG-4
        let status = match reading.results.front() {
            Some((_, status)) if last => *status,
            _ => Status::Ok,
        };
        self.send(name, last, status, reading.reply(&pieces, &results), buf);
        last
    }

    /// The request is forgotten: so are its bytes.
    pub(super) fn abandon_read(&mut self, connection: ConnectionId, reading: Reading) {
        self.window_bytes_total -= reading.ready_bytes;
        if let Some(connection) = self.connections.get_mut(connection.0) {
            connection.window_bytes -= reading.ready_bytes;
        }
        if let Kind::Manifest(body) = &reading.kind
            && !body.under_way
            && body.next_record < body.plan.records.len()
        {
            self.store.release(self.now_ms, body.plan.pin, Verdict::Good);
        }
        if self.spare_readings.len() < SPARES_MAX
            && let Some(spare) = reading.emptied()
        {
            self.spare_readings.push(spare);
        }
    }
}

impl Reading {
    /// Its memory, for another one, unless it is much.
    fn emptied(mut self) -> Option<Reading> {
        let places = self.items.capacity().max(self.ready.capacity()).max(self.results.capacity());
        if self.keys.capacity() > SPARE_KEYS_BYTES_MAX || places > SPARE_PLACES_MAX {
            return None;
        }
        self.kind = Kind::Read;
        self.items.clear();
        self.next_item = 0;
        self.keys.clear();
        self.ready.clear();
        self.ready_bytes = 0;
        self.results.clear();
        self.queued = false;
        Some(self)
    }

    /// Where the bytes of a step go that begins here.
    fn landing(&self, connection: ConnectionId, item: usize, byte: u64) -> Option<Landing> {
        let place = self.items.get(item)?.place?;
        Some(Landing { connection, region: place.region, offset: place.of(byte) })
    }

    //= MKV-RD-4
    fn which(&self, index: u32, piece: &ReadPiece) -> PieceWhich<'static> {
        match self.place_of(index, piece) {
            Some(MemoryPlace { region, offset }) => {
                // Made when the frame is sealed.
                let mac = (!piece.bytes.is_empty()).then_some(&[0; 32]);
                PieceWhich::Region(Region { id: region, offset, mac })
            }
            None => PieceWhich::Inline,
        }
    }

    /// Where in the client's memory a piece goes, if not into the reply.
    fn place_of(&self, index: u32, piece: &ReadPiece) -> Option<MemoryPlace> {
        let place = self.items.get(index as usize)?.place?;
        Some(MemoryPlace { region: place.region, offset: place.of(piece.offset) })
    }

    //= MKV-BATCH-4
    fn result(&self, index: u32, status: Status) -> ReadResult<'_> {
        let value = self.items.get(index as usize).and_then(|item| item.value.as_ref());
        let value = value.filter(|_| status == Status::Ok);
        let (length, checksum) = value.map_or((0, None), |value| (value.length, Some(&value.checksum.0)));
        ReadResult { index, status, length, checksum }
    }

    fn reply<'a>(&'a self, pieces: &'a [Piece<'a>], results: &'a [ReadResult<'a>]) -> ResponseWhich<'a> {
        let value = self.items.first().and_then(|item| item.value.as_ref());
        let length = value.map_or(0, |value| value.length);
        let checksum = value.map(|value| &value.checksum.0);
        match &self.kind {
            Kind::Lookup { lease_ms, block_checksums } => {
                ResponseWhich::Lookup(LookupReply { length, checksum, block_checksums, lease_ms: *lease_ms })
            }
            Kind::Read => ResponseWhich::Read(ReadReply { length, checksum, pieces: List::from(pieces) }),
            Kind::Batch => ResponseWhich::BatchRead(BatchReadReply {
                results: List::from(results),
                pieces: List::from(pieces),
            }),
            Kind::Manifest(body) => ResponseWhich::GetManifest(GetManifestReply {
                generation: body.generation,
                length,
                checksum,
                lease_ms: body.lease_ms,
            }),
        }
    }
}
