//! The service alone: frames in, frames out, over devices that are vectors.

mod behaviour;
mod hostile;

use std::collections::VecDeque;
use std::sync::Arc;

use memkv_transport::buf::{Buf, BufMut};
use memkv_wire::{ControlBuf, Message, Request, RequestWhich, Response};

use super::*;
use crate::read::{self, Source};
use crate::store::{self, Config, Disks, FormatOptions, Geometry, Op, ReadRequest, SECTOR_BYTES};

pub(super) const BLOCK: usize = crate::store::BLOCK_BYTES;

/// A reply frame as a client sees it.
pub(super) struct Got {
    pub request_id: u32,
    pub last: bool,
    control: Vec<u64>,
    pub payload: Vec<u8>,
}

impl Got {
    pub fn with<T>(&self, look: impl FnOnce(&Response<'_>) -> T) -> T {
        let bytes: Vec<u8> = self.control.iter().flat_map(|word| word.to_le_bytes()).collect();
        let message = Message::new(&bytes).unwrap();
        look(&Response::decode(&message).unwrap())
    }

    pub fn status(&self) -> Status {
        self.with(|response| response.status)
    }
}

/// A service over one device, its clock, and what it handed out.
pub(super) struct World {
    pub service: Service,
    pub disk: Disk,
    pub now_ms: u64,
    pub replies: VecDeque<(ConnectionId, Got)>,
    pub closed: Vec<(ConnectionId, CloseReason)>,
    pub paused: Vec<ConnectionId>,
    /// Commands that are held back while this is set.
    pub hold: bool,
    pub held: Vec<Output>,
    /// Replies are not reported as sent while this is set.
    pub stall: bool,
    pub unsent: Vec<(ConnectionId, usize, usize)>,
    /// What is read for a place in shared memory is put there.
    pub lands: bool,
    pub landed_bytes: usize,
    pub stopped: bool,
}

#[derive(Clone)]
pub(super) struct Disk {
    pub bytes: Vec<u8>,
}

impl Disks for Disk {
    fn count(&self) -> u16 {
        1
    }

    fn geometry(&self, _slot: u16) -> Result<Geometry, IoError> {
        Ok(Geometry { capacity_bytes: self.bytes.len() as u64, persistent: true, discard: false })
    }

    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, Result<Arc<[u8]>, IoError>)> {
        requests
            .into_iter()
            .map(|request| {
                let start = request.offset as usize;
                let bytes = self.bytes.get(start..start + request.length).ok_or(IoError::OutOfRange);
                (request, bytes.map(Arc::from))
            })
            .collect()
    }

    fn write(&mut self, _slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let start = offset as usize;
        let place = self.bytes.get_mut(start..start + bytes.len()).ok_or(IoError::OutOfRange)?;
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self, _slot: u16) -> Result<(), IoError> {
        Ok(())
    }
}

impl Disk {
    fn run(&mut self, op: Op<Buf>) -> Result<Done, IoError> {
        match op {
            Op::Read { offset, length } => {
                let request = ReadRequest { slot: 0, offset, length };
                self.read_batch(vec![request])
                    .pop()
                    .map_or(Err(IoError::Gone), |(_, bytes)| bytes.map(Done::Read))
            }
            Op::Write { mut offset, segments } => {
                for segment in segments {
                    let bytes = segment.bytes().map_or(vec![0; segment.len()], <[u8]>::to_vec);
                    self.write(0, offset, &bytes)?;
                    offset += bytes.len() as u64;
                }
                assert_eq!(offset % SECTOR_BYTES as u64, 0);
                Ok(Done::Ok)
            }
            Op::Flush | Op::Discard { .. } => Ok(Done::Ok),
        }
    }
}

impl Source for Disk {
    fn read(&mut self, _device: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let start = offset as usize;
        into.copy_from_slice(self.bytes.get(start..start + into.len()).ok_or(IoError::OutOfRange)?);
        Ok(())
    }

    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut> {
        BufMut::unpooled(size_bytes).ok()
    }
}

impl World {
    pub fn new() -> World {
        World::with(96 << 20, ServiceLimits::default(), Config::default())
    }

    pub fn with(device_bytes: usize, limits: ServiceLimits, config: Config) -> World {
        let mut disk = Disk { bytes: vec![0; device_bytes] };
        let options = FormatOptions { server_id: [7; 16], secrets: [9; 32] };
        store::format(&mut disk, &config, options).unwrap();
        World::over(disk, limits, config)
    }

    /// Opens what is on the device.
    pub fn over(mut disk: Disk, limits: ServiceLimits, config: Config) -> World {
        let (store, _) = Store::open(0, config, &mut disk).unwrap();
        World {
            service: Service::new(store, limits, 0),
            disk,
            now_ms: 0,
            replies: VecDeque::new(),
            closed: Vec::new(),
            paused: Vec::new(),
            hold: false,
            held: Vec::new(),
            stall: false,
            unsent: Vec::new(),
            lands: false,
            landed_bytes: 0,
            stopped: false,
        }
    }

    pub fn connect(&mut self, client: u8) -> ConnectionId {
        self.service.connected(self.now_ms, &[client; 16])
    }

    /// Hands a frame in and carries out everything that follows.
    pub fn frame(
        &mut self,
        connection: ConnectionId,
        request_id: u32,
        last: bool,
        request: &Request<'_>,
        payload: &[u8],
    ) {
        let mut control = ControlBuf::new();
        request.encode(&mut control).unwrap();
        let message = control.message().unwrap();
        let request = Request::decode(&message).unwrap();
        self.decoded(connection, request_id, last, &request, payload);
    }

    pub fn decoded(
        &mut self,
        connection: ConnectionId,
        request_id: u32,
        last: bool,
        request: &Request<'_>,
        payload: &[u8],
    ) {
        let payload = Buf::copy_of(payload).unwrap();
        let mut pieces = Vec::new();
        let split = payload::split(request, (&payload).into(), &mut pieces).is_ok();
        let frame = Frame {
            request_id,
            last,
            request,
            payload_bytes: payload.len(),
            pieces: split.then_some(&mut pieces),
        };
        self.service.frame(self.now_ms, connection, frame);
        self.settle();
    }

    /// One request of one frame, and its reply's frames.
    pub fn call(&mut self, connection: ConnectionId, which: RequestWhich<'_>, payload: &[u8]) -> Vec<Got> {
        let request = Request { namespace: b"ns", which };
        let request_id = 1_000_000;
        self.frame(connection, request_id, true, &request, payload);
        let frames = self.take(connection, request_id);
        assert!(frames.last().is_some_and(|frame| frame.last), "the reply must end");
        frames
    }

    /// The reply frames of a request so far.
    pub fn take(&mut self, connection: ConnectionId, request_id: u32) -> Vec<Got> {
        let (mine, others) = std::mem::take(&mut self.replies)
            .into_iter()
            .partition(|(id, got)| *id == connection && got.request_id == request_id);
        self.replies = others;
        VecDeque::into_iter(mine).map(|(_, got)| got).collect()
    }

    pub fn settle(&mut self) {
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

    pub fn release_held(&mut self) {
        self.hold = false;
        for output in std::mem::take(&mut self.held) {
            self.carry_out(output);
            self.settle();
        }
    }

    pub fn report_sent(&mut self) {
        self.stall = false;
        for (connection, control, payload) in std::mem::take(&mut self.unsent) {
            self.service.sent(self.now_ms, connection, 1, control, payload);
            self.settle();
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Device(_) | Output::Read(_) | Output::Body(_) if self.hold => self.held.push(output),
            Output::Device(command) => {
                let result = self.disk.run(command.op);
                self.service.device_done(self.now_ms, command.id, result);
            }
            Output::Read(command) => {
                let mut result = read::execute(&command, &mut self.disk);
                if let (Ok(outcome), true) = (&mut result, self.lands && command.landing.is_some()) {
                    for piece in &mut outcome.pieces {
                        self.landed_bytes += std::mem::take(&mut piece.bytes).len();
                    }
                }
                self.service.read_done(self.now_ms, command.id, result);
            }
            Output::Body(job) => self.service.body_joined(self.now_ms, job.join()),
            Output::Reply(reply) => self.receive(reply),
            Output::Pause(connection) => self.paused.push(connection),
            Output::Resume(connection) => self.paused.retain(|paused| *paused != connection),
            Output::Close { connection, reason } => self.closed.push((connection, reason)),
            Output::Stopped => self.stopped = true,
        }
    }

    fn receive(&mut self, reply: Reply) {
        let (control, payload) = (reply.control_bytes(), reply.payload_bytes());
        assert!(control <= limits::CONTROL_SIZE_BYTES_MAX as usize);
        let carried = payload - reply.frame.landed_size_bytes;
        assert!(carried <= limits::PAYLOAD_SIZE_BYTES_MAX as usize);
        let words = reply.frame.control.control().chunks(8);
        let got = Got {
            request_id: reply.frame.request_id,
            last: reply.frame.last,
            control: words.map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect(),
            payload: reply.frame.payload.iter().flat_map(|part| part.to_vec()).collect(),
        };
        self.replies.push_back((reply.connection, got));
        if self.stall {
            self.unsent.push((reply.connection, control, payload));
        } else {
            self.service.sent(self.now_ms, reply.connection, 1, control, payload);
        }
        self.service.recycle(reply.frame);
    }
}
