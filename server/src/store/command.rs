//! What the store asks of devices, and what devices answer.
//!
//! The store never does I/O. It hands out [`Command`]s; whoever runs it executes each one exactly once, in any
//! order, and hands the result to `Store::complete`. A command that cannot be submitted is completed with an error.

use std::ops::Range;
use std::sync::Arc;

/// One command in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

#[derive(Clone, Debug)]
pub struct Command<B> {
    pub id: CommandId,
    /// The place of the device in the list that the store was opened with.
    pub device: u16,
    pub op: Op<B>,
}

/// Offsets and lengths of reads and writes are multiples of `SECTOR_BYTES`.
#[derive(Clone, Debug)]
pub enum Op<B> {
    /// Answered with exactly `length` bytes.
    Read { offset: u64, length: usize },
    /// The segments follow one another from `offset` on.
    Write { offset: u64, segments: Vec<Segment<B>> },
    /// Makes every write that was completed before this was submitted survive the loss of power.
    Flush,
    /// The bytes of these (offset, length) ranges are not needed any more.
    Discard { ranges: Vec<(u64, u64)> },
}

impl<B: AsRef<[u8]>> Op<B> {
    /// The bytes that a write carries; 0 for the others.
    pub fn write_length(&self) -> usize {
        match self {
            Op::Write { segments, .. } => segments.iter().map(Segment::len).sum(),
            Op::Read { .. } | Op::Flush | Op::Discard { .. } => 0,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Segment<B> {
    /// Bytes of the store's own making.
    Owned(Arc<[u8]>),
    /// A part of bytes that were read.
    Slice(Arc<[u8]>, Range<usize>),
    /// The caller's bytes, all of them.
    Payload(B),
    Zeros(usize),
}

impl<B: AsRef<[u8]>> Segment<B> {
    pub fn len(&self) -> usize {
        match self {
            Segment::Owned(bytes) => bytes.len(),
            Segment::Slice(_, range) => range.len(),
            Segment::Payload(bytes) => bytes.as_ref().len(),
            Segment::Zeros(length) => *length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, when they lie in memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Segment::Owned(bytes) => Some(bytes),
            Segment::Slice(bytes, range) => Some(&bytes[range.clone()]),
            Segment::Payload(bytes) => Some(bytes.as_ref()),
            Segment::Zeros(_) => None,
        }
    }
}

/// A finished command.
#[derive(Clone, Debug)]
pub enum Done {
    /// A write, flush or discard.
    Ok,
    Read(Arc<[u8]>),
}

/// Why a device did not do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    #[error("the device answered with errno {errno}")]
    Failed { errno: i32 },
    #[error("the device moved {done} of {asked} bytes")]
    Short { done: u64, asked: u64 },
    #[error("no space left on the device's file system")]
    NoSpace,
    #[error("the device is gone")]
    Gone,
    #[error("permission denied")]
    PermissionDenied,
    #[error("beyond the end of the device")]
    OutOfRange,
}

impl IoError {
    /// Whether another attempt would end in the same way: the bytes are not coming.
    pub fn lasts(self) -> bool {
        match self {
            IoError::Failed { errno } => {
                !matches!(errno, libc::EINTR | libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS)
            }
            IoError::Short { .. } | IoError::Gone | IoError::OutOfRange => true,
            IoError::NoSpace | IoError::PermissionDenied => false,
        }
    }
}

/// What the store must know about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub capacity_bytes: u64,
    /// Whether a flushed write survives the end of the process. False: the store starts empty each time.
    pub persistent: bool,
    pub discard: bool,
}

/// Blocking access to all devices, used only while a store is formatted or opened.
///
/// Slots are the places that `Command::device` names.
pub trait Disks {
    fn count(&self) -> u16;
    fn geometry(&self, slot: u16) -> Result<Geometry, IoError>;
    /// Fills every buffer, in any order; one answer for each request. Requests may run at the same time.
    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, ReadResult)>;
    fn write(&mut self, slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError>;
    fn flush(&mut self, slot: u16) -> Result<(), IoError>;

    fn read(&mut self, slot: u16, offset: u64, length: usize) -> ReadResult {
        let mut answers = self.read_batch(vec![ReadRequest { slot, offset, length }]);
        match answers.pop() {
            Some((_, result)) => result,
            None => Err(IoError::Gone),
        }
    }

    /// Reads, and calls `meanwhile` once: while the device is busy, if this can be done.
    fn read_while(&mut self, request: ReadRequest, meanwhile: &mut dyn FnMut()) -> ReadResult {
        meanwhile();
        self.read(request.slot, request.offset, request.length)
    }
}

pub type ReadResult = Result<Arc<[u8]>, IoError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    pub slot: u16,
    pub offset: u64,
    pub length: usize,
}
