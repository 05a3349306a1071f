//! One call: a request message on its way to a server, and the frames that answer it.

use std::collections::VecDeque;
use std::sync::Arc;

use memkv_transport::buf::Buf;
use memkv_transport::planted::{self, Bug};
use memkv_transport::stream::Beside;
use memkv_transport::sums::Sum;
use memkv_transport::verify::Checker;
use memkv_wire::control::ControlBuf;
use memkv_wire::{EncodeError, Operation, Request};

use super::connection::Naming;
use crate::error::Error;

/// A request message: its frames, encoded, each with the payload that follows it.
///
/// The encoded control messages stay until the call ends, so that a lost connection costs no encoding.
#[derive(Debug)]
pub struct Message {
    operation: Operation,
    frames: Vec<RequestFrame>,
    // Frames from here on are left over from earlier messages, kept for their memory.
    used: usize,
    payload_size_bytes: u64,
    /// What it may say of the client's memory: the connections that were there when it was begun have it registered.
    naming: Naming,
    /// It names memory, and can go on no other connections.
    names_memory: bool,
    /// Shared memory that the server reads.
    sources: Vec<Buf>,
    /// Shared memory that the server writes.
    destinations: Vec<Buf>,
}

/// One frame of a request message.
#[derive(Debug, Default)]
pub struct RequestFrame {
    /// The encoded control message.
    pub control: ControlBuf,
    /// The payload, in order; its bytes are shared, not copied.
    pub payload: Vec<Buf>,
    /// Bytes that the server fetches, where their MACs are part of the message.
    pub beside: Vec<Beside>,
}

impl Message {
    pub(crate) fn empty() -> Self {
        Self {
            operation: Operation::Ping,
            frames: Vec::new(),
            used: 0,
            payload_size_bytes: 0,
            naming: Naming::No,
            names_memory: false,
            sources: Vec::new(),
            destinations: Vec::new(),
        }
    }

    /// Whether it is worth keeping for another message.
    pub(super) fn has_memory(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Forgets the contents, keeps the memory.
    pub(crate) fn clear(&mut self) {
        for frame in &mut self.frames[..self.used] {
            frame.payload.clear();
            frame.beside.clear();
        }
        self.used = 0;
        self.payload_size_bytes = 0;
        self.naming = Naming::No;
        self.names_memory = false;
        self.sources.clear();
        self.destinations.clear();
    }

    pub(super) fn begin(&mut self, naming: Naming) {
        self.naming = naming;
    }

    /// What it may say of the client's memory.
    pub(crate) fn naming(&self) -> Naming {
        self.naming
    }

    /// What it says of the client's memory.
    pub(super) fn named(&self) -> Naming {
        if self.names_memory { self.naming } else { Naming::No }
    }

    /// Keeps bytes that a piece of the last frame names, until the server has answered. `mac_at`: where in the frame's control message their MAC
    /// goes, if it has a place.
    pub(crate) fn attach_source(&mut self, bytes: Buf, mac_at: Option<usize>) {
        self.names_memory = true;
        self.payload_size_bytes += bytes.len() as u64;
        if let (Some(mac_at), Some(frame)) = (mac_at, self.frames[..self.used].last_mut()) {
            frame.beside.push(Beside { mac_at, bytes: bytes.clone(), to: None });
        }
        self.sources.push(bytes);
    }

    /// Keeps memory that the server is to write to, until it has answered.
    pub(crate) fn attach_destination(&mut self, memory: Buf) {
        self.names_memory = true;
        self.destinations.push(memory);
    }

    /// The memory that the server may write to as long as its side of the connection is open.
    pub(super) fn destinations(&self) -> &[Buf] {
        &self.destinations
    }

    /// Adds a frame. All frames of a message are of one operation.
    pub(crate) fn push(&mut self, request: &Request<'_>) -> Result<&mut RequestFrame, EncodeError> {
        if self.used == self.frames.len() {
            self.frames.push(RequestFrame::default());
        }
        let frame = &mut self.frames[self.used];
        request.encode(&mut frame.control)?;
        self.operation = request.which.operation().unwrap_or(self.operation);
        self.used += 1;
        Ok(frame)
    }

    /// Adds bytes to the payload of the last frame.
    pub(crate) fn attach(&mut self, bytes: Buf) {
        debug_assert!(self.used > 0, "a payload belongs to a frame");
        self.payload_size_bytes += bytes.len() as u64;
        self.frames[self.used - 1].payload.push(bytes);
    }

    pub(crate) fn operation(&self) -> Operation {
        self.operation
    }

    pub(crate) fn frames(&self) -> &[RequestFrame] {
        &self.frames[..self.used]
    }

    pub(crate) fn payload_size_bytes(&self) -> u64 {
        self.payload_size_bytes
    }
}

/// One frame of a reply, verified by the transport.
#[derive(Debug, Default)]
pub struct Reply {
    pub(super) control: Vec<u8>,
    /// The bytes that came with it.
    pub payload: Option<Buf>,
    /// The checksums of its pieces that were made as they came.
    pub(crate) sums: Vec<Sum>,
    /// What bytes are checked with that the server's device put in the client's memory; `None` where they came another way.
    pub checker: Option<Arc<Checker>>,
}

impl Reply {
    #[cfg(test)]
    pub(crate) fn new(control: Vec<u8>, payload: Option<Buf>) -> Self {
        Self { control, payload, ..Self::default() }
    }

    /// Keeps nothing but its memory.
    pub(super) fn clear(&mut self) {
        self.control.clear();
        self.sums.clear();
        (self.payload, self.checker) = (None, None);
    }

    /// The control message, not decoded.
    pub fn control(&self) -> &[u8] {
        &self.control
    }
}

/// Names a call of one [`Core`](super::Core).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl CallId {
    /// A small number, used again after the call ended.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// How long a call may take, and whether it waits for a server that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOptions {
    /// From submission to the last frame of the reply, over all attempts.
    pub timeout_ms: u64,
    /// End with the error of the first attempt to connect that fails, instead of waiting for a later one.
    pub fail_fast: bool,
}

/// What happened to a call since its owner last looked.
#[derive(Debug)]
pub enum Progress {
    /// A frame of the reply, in order.
    Frame(Reply),
    /// The reply begins anew: what came before belongs to an attempt that was cut off.
    Restarted,
    /// The last frame was handed over before; the call is over.
    Done,
    /// The call is over and there is no whole reply.
    Failed(Error),
}

/// Which connections a call prefers, so that small requests never wait behind megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Control,
    Bulk,
}

impl Class {
    /// Payloads up to this size count as control: they take well under a millisecond to send.
    const CONTROL_PAYLOAD_SIZE_BYTES_MAX: u64 = 128 * 1024;

    pub fn of(message: &Message) -> Self {
        match message.operation() {
            Operation::Read | Operation::BatchRead => Self::Bulk,
            _ if message.payload_size_bytes() > Self::CONTROL_PAYLOAD_SIZE_BYTES_MAX => Self::Bulk,
            _ => Self::Control,
        }
    }
}

#[derive(Debug)]
pub(super) enum Place {
    /// The slot is unused.
    Free,
    /// In the queue of its class.
    Queued,
    /// Waits before it is queued again.
    Delayed { until_ms: u64 },
    /// On a connection.
    Outstanding { connection: u16, request_id: u32 },
    /// Over; the owner has not yet asked.
    Finished(Result<(), Error>),
}

/// What the last frame of a reply means for its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The reply is whole: its owner reads it, whatever its status.
    Done,
    /// The server refused for now.
    Again { delay_ms: u64 },
}

#[derive(Debug)]
pub(super) struct Call {
    pub generation: u32,
    pub place: Place,
    pub class: Class,
    pub message: Message,
    pub options: CallOptions,
    pub deadline_ms: u64,
    /// Frames of the reply that the owner has not yet taken.
    pub inbox: VecDeque<Reply>,
    /// The owner holds frames of an attempt that was cut off, and is told before it gets others.
    pub restarted: bool,
    /// Frames of this attempt were put into the inbox.
    pub answered: bool,
    /// The owner is gone: the message is sent to its end, and the reply ignored.
    pub abandoned: bool,
    /// What is to be done once the message is sent whole; the reply came.
    pub verdict: Verdict,
    /// Attempts that a passing status ended.
    pub refusals: u32,
    /// Attempts that a lost connection ended.
    pub losses: u32,
    /// One of them was sent whole: the server may have carried it out.
    pub repeated: bool,
}

impl Call {
    pub fn new() -> Self {
        Self {
            generation: 0,
            place: Place::Free,
            class: Class::Control,
            message: Message::empty(),
            options: CallOptions { timeout_ms: 0, fail_fast: false },
            deadline_ms: 0,
            inbox: VecDeque::new(),
            restarted: false,
            answered: false,
            abandoned: false,
            verdict: Verdict::Done,
            refusals: 0,
            losses: 0,
            repeated: false,
        }
    }

    /// Makes the slot free for another call; ids of this one mean nothing any more.
    pub fn reset(&mut self) {
        let inbox = std::mem::take(&mut self.inbox);
        *self = Self { generation: self.generation.wrapping_add(1), inbox, ..Self::new() };
        self.inbox.clear();
    }

    /// Begins the reply anew.
    pub fn restart(&mut self) {
        if planted::is(Bug::RestartUntold) {
            return;
        }
        self.restarted |= self.answered;
        self.answered = false;
        self.inbox.clear();
    }
}
