//! The service: any sequence of frames on any number of connections, over a device that answers when the input says so, and
//! sometimes fails. Held against a model: what is read is what was written under the key.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use memkv_server::read::{self, Source};
use memkv_server::service::{ConnectionId, Frame, Output, Reply, Service, ServiceLimits, payload};
use memkv_server::store::{
    self, Config, Disks, Done, FormatOptions, Geometry, IoError, Op, ReadRequest, Store,
};
use memkv_transport::buf::{Buf, BufMut};
use memkv_wire::arbitrary::request;
use memkv_wire::{
    Allocate, BatchRead, BatchWrite, ChunkReference, Commit, ControlBuf, Delete, DeleteManifest, Destination,
    Exists, GetManifest, List, ListManifests, Lookup, ManifestRole, Message, Operation, Piece, PieceWhich,
    PutManifest, Read, ReadItem, Request, RequestWhich, Response, ResponseWhich, Status, Write, WriteItem,
    checksum, limits,
};

const DEVICE_SIZE_BYTES: usize = 12 << 20;
const STEPS_MAX: usize = 200;
const KEYS: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
const NAMESPACE: &[u8] = b"ns";

const LIMITS: ServiceLimits = ServiceLimits {
    requests_max: 8,
    kept_bytes_max: 64 << 10,
    writing_bytes_max: 64 << 10,
    window_bytes_max: 64 << 10,
    window_bytes_total_max: 128 << 10,
    unsent_bytes_max: 64 << 10,
    body_bytes_max: 64 << 10,
    body_bytes_total_max: 96 << 10,
    stall_ms_max: 60_000,
};

pub fn run(data: &[u8]) {
    let mut world = World::new();
    let mut u = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        // Bytes that end draw nothing more.
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
    }
    world.end();
}

struct World {
    service: Service,
    disk: Disk,
    now_ms: u64,
    connections: Vec<ConnectionId>,
    /// Work that was not yet carried out, and replies whose sending was not yet reported.
    held: VecDeque<Output>,
    unsent: Vec<(ConnectionId, usize, usize)>,
    hold: bool,
    stall: bool,
    stopped: bool,
    /// The operations of requests that are open, by connection and request id.
    open: HashMap<(ConnectionId, u32), Option<Operation>>,
}

impl World {
    fn new() -> World {
        let config = Config { extent_bytes: (1 << 20) + (64 << 10), allocations_max: 8, ..Config::default() };
        let mut disk = Disk { bytes: vec![0; DEVICE_SIZE_BYTES], failing: false };
        let options = FormatOptions { server_id: [7; 16], secrets: [9; 32] };
        store::format(&mut disk, &config, options).expect("an empty device can be formatted");
        let (store, _) = Store::open(0, config, &mut disk).expect("a formatted device can be opened");
        World {
            service: Service::new(store, LIMITS, 0),
            disk,
            now_ms: 0,
            connections: Vec::new(),
            held: VecDeque::new(),
            unsent: Vec::new(),
            hold: false,
            stall: false,
            stopped: false,
            open: HashMap::new(),
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.connections.is_empty() {
            self.connections.push(self.service.connected(self.now_ms, &[0; 16]));
        }
        let connection = *u.choose(&self.connections)?;
        match u.int_in_range(0..=15u8)? {
            0 => self.now_ms += u64::from(u.arbitrary::<u16>()?),
            1 => {
                let client = u.int_in_range(0..=2)?;
                self.connections.push(self.service.connected(self.now_ms, &[client; 16]));
            }
            2 => self.hold = true,
            3 => self.release(u.int_in_range(0..=4usize)?),
            4 => self.stall = true,
            5 => self.report_sent(),
            6 => self.service.tick(self.now_ms),
            7 => {
                self.service.disconnected(self.now_ms, connection);
                self.forget(connection);
            }
            8 => self.disk.failing = u.ratio(1, 4u8)?,
            9..=10 => self.drawn_frame(u, connection)?,
            _ => self.likely_frame(u, connection)?,
        }
        self.settle();
        Ok(())
    }

    /// Any message, with as much payload as the input likes.
    fn drawn_frame(&mut self, u: &mut Unstructured<'_>, connection: ConnectionId) -> Result<()> {
        let mut control = ControlBuf::new();
        if request(u, &mut control).is_err() {
            return Ok(());
        }
        let payload = vec![1; u.int_in_range(0..=2000)?];
        self.frame(u, connection, &control, &payload)
    }

    /// A message that mostly does what it should, on a few keys, so that requests meet each other.
    fn likely_frame(&mut self, u: &mut Unstructured<'_>, connection: ConnectionId) -> Result<()> {
        let (key, other) = (*u.choose(&KEYS)?, *u.choose(&KEYS)?);
        let (data, keys) = (value_of(key), [key, other]);
        let sum = checksum::value_of(&data);
        let pieces = [piece(0, &data)];
        let (index, second) = (u.int_in_range(0..=1)?, value_of(other));
        let both = [piece(0, &data), piece(index, &second)];
        let allocation = u.int_in_range(0..=4)?;
        let references =
            keys.map(|key| ChunkReference { key, length: value_of(key).len() as u64, checksum: None });
        let items = [write_item(key), write_item(other)];
        let range = (u64::from(u.arbitrary::<u8>()?), u64::from(u.arbitrary::<u8>()?));
        let destination = Destination::default();
        let reads = keys.map(|key| ReadItem { key, offset: range.0, length: range.1, destination });
        let empty = checksum::value_of(&[]);
        let generation = u.int_in_range(0..=3)?;
        let lease_ms = u.int_in_range(0..=2000)?;
        let length = data.len() as u64;
        let put = PutManifest {
            name: other,
            generation,
            role: ManifestRole::from_code(u.int_in_range(0..=2)?),
            length: 0,
            checksum: &empty,
            chunks: List::from(&references),
        };
        let write = Write { key, length, checksum: Some(&sum), allocation: 0, pieces: List::from(&pieces) };
        let batch = BatchWrite { items: List::from(&items), pieces: List::from(&both) };
        let joined = [data.as_slice(), &second].concat();
        let (which, payload): (RequestWhich<'_>, &[u8]) = match u.int_in_range(0..=12u8)? {
            0..=1 => (RequestWhich::Write(write), &data),
            2 => (RequestWhich::Write(Write { allocation, ..write }), &data),
            3 => (RequestWhich::Allocate(Allocate { key, length, checksum: None, lease_ms }), &[]),
            4 => (RequestWhich::Commit(Commit { allocation: allocation.max(1), checksum: None }), &[]),
            5 => (RequestWhich::Read(Read { key, offset: range.0, length: range.1, destination }), &[]),
            6 => (RequestWhich::BatchRead(BatchRead { items: List::from(&reads) }), &[]),
            7 => (RequestWhich::BatchWrite(batch), &joined),
            8 => (RequestWhich::PutManifest(put), &[]),
            9 => (RequestWhich::GetManifest(GetManifest { name: other, lease_ms }), &[]),
            10 => (RequestWhich::DeleteManifest(DeleteManifest { name: other, generation }), &[]),
            11 => (RequestWhich::Delete(Delete { keys: List::from(&keys) }), &[]),
            _ => match u.int_in_range(0..=2u8)? {
                0 => (RequestWhich::Exists(Exists { keys: List::from(&keys) }), &[]),
                1 => (RequestWhich::Lookup(Lookup { key, lease_ms }), &[]),
                _ => (RequestWhich::ListManifests(ListManifests::default()), &[]),
            },
        };
        let mut control = ControlBuf::new();
        Request { namespace: NAMESPACE, which }.encode(&mut control).expect("it is within its bounds");
        self.frame(u, connection, &control, payload)
    }

    fn frame(
        &mut self,
        u: &mut Unstructured<'_>,
        connection: ConnectionId,
        control: &ControlBuf,
        bytes: &[u8],
    ) -> Result<()> {
        let message = control.message().expect("what was encoded is a message");
        let request = Request::decode(&message).expect("what was encoded can be decoded");
        let bytes = Buf::copy_of(bytes).expect("there is memory");
        let mut pieces = Vec::new();
        let split = payload::split(&request, (&bytes).into(), &mut pieces).is_ok();
        let request_id = u.int_in_range(0..=5)?;
        let last = !u.ratio(1, 5u8)?;
        self.open.entry((connection, request_id)).or_insert(request.which.operation());
        let frame = Frame {
            request_id,
            last,
            request: &request,
            payload_bytes: bytes.len(),
            pieces: split.then_some(&mut pieces),
        };
        self.service.frame(self.now_ms, connection, frame);
        Ok(())
    }

    fn settle(&mut self) {
        let mut outputs = Vec::new();
        loop {
            self.service.drain(&mut outputs);
            if outputs.is_empty() {
                return;
            }
            for output in outputs.drain(..) {
                self.carry_out(output);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Device(_) | Output::Read(_) | Output::Body(_) if self.hold => self.held.push_back(output),
            Output::Device(command) => {
                let result = self.disk.run(command.op);
                self.service.device_done(self.now_ms, command.id, result);
            }
            Output::Read(command) => {
                let result = read::execute(&command, &mut self.disk);
                self.service.read_done(self.now_ms, command.id, result);
            }
            Output::Body(job) => self.service.body_joined(self.now_ms, job.join()),
            Output::Reply(reply) => self.reply(reply),
            Output::Pause(_) | Output::Resume(_) => {}
            Output::Close { connection, .. } => self.forget(connection),
            Output::Stopped => self.stopped = true,
        }
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.connections.retain(|open| *open != connection);
        self.open.retain(|(of, _), _| *of != connection);
    }

    fn reply(&mut self, reply: Reply) {
        let (control, payload) = (reply.control_bytes(), reply.payload_bytes());
        assert!(control <= limits::CONTROL_SIZE_BYTES_MAX as usize);
        assert!(payload <= limits::PAYLOAD_SIZE_BYTES_MAX as usize);
        let bytes: Vec<u8> = reply.frame.payload.iter().flat_map(|part| part.to_vec()).collect();
        let message = Message::new(reply.frame.control.control()).expect("a reply is a message");
        let response = Response::decode(&message).expect("a reply can be decoded");
        let id = (reply.connection, reply.frame.request_id);
        self.judge(id, &response, &bytes);
        if reply.frame.last {
            self.open.remove(&id);
        }
        if self.stall {
            self.unsent.push((reply.connection, control, payload));
        } else {
            self.service.sent(self.now_ms, reply.connection, 1, control, payload);
        }
        self.service.recycle(reply.frame);
    }

    /// What the reply says is possible, and what it carries was written.
    fn judge(&self, id: (ConnectionId, u32), response: &Response<'_>, bytes: &[u8]) {
        let operation = self.open.get(&id).copied().flatten();
        if let Some(operation) = operation {
            let status = response.status;
            assert!(operation.may_answer(status), "{} answered {}", operation.name(), status.name());
        }
        let pieces = match response.which {
            ResponseWhich::Read(read) if response.status == Status::Ok => read.pieces,
            ResponseWhich::BatchRead(read) => read.pieces,
            _ => return assert!(bytes.is_empty() || operation == Some(Operation::GetManifest)),
        };
        let mut rest = bytes;
        for piece in pieces {
            let (bytes, after) = rest.split_at(piece.length as usize);
            let own = KEYS.iter().any(|key| holds(&value_of(key), piece.offset as usize, bytes));
            assert!(own || bytes.iter().all(|byte| *byte == 1), "bytes that nobody wrote");
            assert!(piece.checksum.is_none_or(|sum| *sum == checksum::block(bytes)));
            rest = after;
        }
        assert!(rest.is_empty(), "a payload that is longer than its pieces");
    }

    fn release(&mut self, count: usize) {
        self.hold = false;
        for _ in 0..count {
            let Some(output) = self.held.pop_front() else { break };
            self.carry_out(output);
            self.settle();
        }
    }

    fn report_sent(&mut self) {
        self.stall = false;
        for (connection, control, payload) in std::mem::take(&mut self.unsent) {
            self.service.sent(self.now_ms, connection, 1, control, payload);
            self.settle();
        }
    }

    /// Whatever happened, everything ends, and nothing is left over.
    fn end(mut self) {
        self.disk.failing = false;
        for connection in std::mem::take(&mut self.connections) {
            self.service.disconnected(self.now_ms, connection);
            self.settle();
        }
        self.release(usize::MAX);
        self.report_sent();
        assert_eq!(self.service.held().requests, 0, "requests are left over");
        self.service.stop(self.now_ms);
        self.settle();
        assert!(self.stopped, "the service does not stop");
    }
}

/// What is written under a key, always.
fn value_of(key: &[u8]) -> Vec<u8> {
    let seed = key.first().copied().unwrap_or(0);
    let length = [1, 300, 5000, 70_000][usize::from(seed) % 4];
    (0..length).map(|place: u32| seed.wrapping_add((place / 7) as u8)).collect()
}

fn holds(value: &[u8], offset: usize, bytes: &[u8]) -> bool {
    value.get(offset..offset + bytes.len()) == Some(bytes)
}

fn piece(index: u32, data: &[u8]) -> Piece<'static> {
    Piece { index, offset: 0, length: data.len() as u32, checksum: None, which: PieceWhich::Inline }
}

fn write_item(key: &[u8]) -> WriteItem<'_> {
    WriteItem { key, length: value_of(key).len() as u64, checksum: None }
}

/// A device in memory.
struct Disk {
    bytes: Vec<u8>,
    /// Reads fail, and writes of what is stored.
    failing: bool,
}

impl Disks for Disk {
    fn count(&self) -> u16 {
        1
    }

    fn geometry(&self, _slot: u16) -> std::result::Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.bytes.len() as u64, persistent: true, discard: false })
    }

    fn read_batch(
        &mut self,
        requests: Vec<ReadRequest>,
    ) -> Vec<(ReadRequest, std::result::Result<Arc<[u8]>, IoError>)> {
        let read = |request: ReadRequest| {
            let start = request.offset as usize;
            let bytes = self.bytes.get(start..start + request.length).ok_or(IoError::OutOfRange);
            (request, bytes.map(Arc::from))
        };
        requests.into_iter().map(read).collect()
    }

    fn write(&mut self, _slot: u16, offset: u64, bytes: &[u8]) -> std::result::Result<(), IoError> {
        let start = offset as usize;
        let place = self.bytes.get_mut(start..start + bytes.len()).ok_or(IoError::OutOfRange)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self, _slot: u16) -> std::result::Result<(), IoError> {
        Ok(())
    }
}

impl Disk {
    fn run(&mut self, op: Op<Buf>) -> std::result::Result<Done, IoError> {
        match op {
            Op::Read { .. } if self.failing => Err(IoError::Gone),
            Op::Read { offset, length } => {
                let start = offset as usize;
                let bytes = self.bytes.get(start..start + length).ok_or(IoError::OutOfRange)?;
                Ok(Done::Read(Arc::from(bytes)))
            }
            Op::Write { mut offset, segments } => {
                for segment in segments {
                    let bytes = segment.bytes().map_or(vec![0; segment.len()], <[u8]>::to_vec);
                    Disks::write(self, 0, offset, &bytes)?;
                    offset += bytes.len() as u64;
                }
                Ok(Done::Ok)
            }
            Op::Flush | Op::Discard { .. } => Ok(Done::Ok),
        }
    }
}

impl Source for Disk {
    fn read(&mut self, _device: u16, offset: u64, into: &mut [u8]) -> std::result::Result<(), IoError> {
        if self.failing {
            return Err(IoError::Gone);
        }
        let start = offset as usize;
        into.copy_from_slice(self.bytes.get(start..start + into.len()).ok_or(IoError::OutOfRange)?);
        Ok(())
    }

    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut> {
        BufMut::unpooled(size_bytes).ok()
    }
}
