//! Devices: where the store's bytes live.
//!
//! A [`Device`] moves bytes and flushes; it knows nothing of records. All calls block, and may be made from many threads
//! at once. `memory` keeps nothing; `file` is one shard file of a directory with plain system calls; `direct` is a block device
//! or a file through io_uring, on Linux. Unsafe code is in `ring` and `staging` alone.
//!
//! [`execute`] runs one of the store's commands to its end; [`Device::start`] begins a [`Transfer`] and goes on, for devices that
//! work on their own ([`Device::is_asynchronous`]). [`Devices`] is the list of them all, in the order of their slots, and serves as
//! the store's `Disks` while it is formatted or opened.

#[cfg(target_os = "linux")]
mod direct;
mod faulty;
mod file;
mod memory;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod staging;

use std::io::IoSlice;
use std::sync::Arc;

use memkv_transport::buf::{Buf, BufMut};
use smallvec::SmallVec;

use crate::store::{Command, Disks, Done, Geometry, IoError, Op, ReadRequest, ReadResult, Segment};
#[cfg(target_os = "linux")]
pub use direct::{Mode, UringDevice};
pub use faulty::{Faults, FaultyDevice};
pub use file::{Absent, Directory, DirectoryError, FileDevice, open_directory, shard_path, shard_paths};
pub use memory::MemoryDevice;

/// Something that keeps bytes. Offsets and lengths are multiples of 4096.
pub trait Device: Send + Sync {
    fn geometry(&self) -> Result<Geometry, IoError>;
    /// Fills the whole buffer.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError>;
    /// Writes all slices, one after another, from the offset on.
    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError>;
    /// As `write`. A device in memory keeps the buffers instead of a copy, where it can.
    fn write_segments(&self, offset: u64, segments: &[Segment<Buf>]) -> Result<(), IoError> {
        self.write(offset, &io_slices(segments))
    }
    /// These very bytes, where a device in memory holds them in one buffer; any range, not only whole sectors. `None`: `read` them.
    fn lend(&self, _offset: u64, _length: usize) -> Option<Buf> {
        None
    }
    /// The memory that it may keep of the buffers written to it.
    fn kept_bytes_max(&self) -> usize {
        0
    }
    /// Makes every write that returned before this call survive the loss of power.
    fn flush(&self) -> Result<(), IoError>;
    /// The bytes of these (offset, length) ranges are not needed any more. What they read as afterwards is open.
    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError>;

    /// Whether `start` returns before the transfer is done.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// Does the transfer and calls `then` exactly once. On an asynchronous device `then` runs on the device's own thread, or on the
    /// caller's when the transfer cannot even begin: it must not block, and no lock that it takes may be held here.
    fn start(&self, mut transfer: Transfer, then: Then) {
        let result = match &mut transfer {
            Transfer::Read { offset, into } => self.read(*offset, into),
            Transfer::Write { offset, segments } => self.write_segments(*offset, segments),
            Transfer::Flush => self.flush(),
        };
        then(transfer, result);
    }
}

/// What a device can do on its own. The buffers travel with it, so nobody has to wait to lend them.
#[derive(Debug)]
pub enum Transfer {
    /// Fills the buffer.
    Read { offset: u64, into: BufMut },
    /// The segments follow one another from `offset` on.
    Write { offset: u64, segments: Vec<Segment<Buf>> },
    /// As [`Device::flush`].
    Flush,
}

/// Takes a transfer back, and how it ended.
pub type Then = Box<dyn FnOnce(Transfer, Result<(), IoError>) + Send>;

impl Transfer {
    /// What a store's command asks for, unless it must block.
    pub fn of(op: Op<Buf>) -> Result<Transfer, Op<Buf>> {
        match op {
            Op::Write { offset, segments } => Ok(Transfer::Write { offset, segments }),
            Op::Flush => Ok(Transfer::Flush),
            op @ (Op::Read { .. } | Op::Discard { .. }) => Err(op),
        }
    }
}

/// Most writes are a header, padding, a payload and padding.
pub type Slices<'a> = SmallVec<[IoSlice<'a>; 8]>;

/// Zeros for the padding between segments.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Runs a command to its end.
pub fn execute<B: AsRef<[u8]>>(device: &dyn Device, op: &Op<B>) -> Result<Done, IoError> {
    match op {
        Op::Read { offset, length } => {
            let mut bytes = vec![0; *length];
            device.read(*offset, &mut bytes)?;
            Ok(Done::Read(bytes.into()))
        }
        Op::Write { offset, segments } => {
            device.write(*offset, &io_slices(segments))?;
            Ok(Done::Ok)
        }
        Op::Flush => device.flush().map(|()| Done::Ok),
        Op::Discard { ranges } => device.discard(ranges).map(|()| Done::Ok),
    }
}

/// The segments as slices, zeros included.
pub fn io_slices<B: AsRef<[u8]>>(segments: &[Segment<B>]) -> Slices<'_> {
    let mut slices = Slices::new();
    for segment in segments {
        match segment.bytes() {
            Some(bytes) => slices.push(IoSlice::new(bytes)),
            None => {
                let mut left = segment.len();
                while left > 0 {
                    let length = left.min(ZEROS.len());
                    slices.push(IoSlice::new(&ZEROS[..length]));
                    left -= length;
                }
            }
        }
    }
    slices
}

/// All devices of a store, by slot.
#[derive(Clone)]
pub struct Devices(Arc<[Arc<dyn Device>]>);

impl Devices {
    pub fn new(devices: Vec<Arc<dyn Device>>) -> Self {
        Self(devices.into())
    }

    /// A store's command, run to its end.
    pub fn execute<B: AsRef<[u8]>>(&self, command: &Command<B>) -> Result<Done, IoError> {
        execute(self.device(command.device)?, &command.op)
    }

    pub fn device(&self, slot: u16) -> Result<&dyn Device, IoError> {
        self.0.get(slot as usize).map(|device| &**device).ok_or(IoError::Gone)
    }

    /// Of all devices.
    pub fn kept_bytes_max(&self) -> usize {
        self.0.iter().map(|device| device.kept_bytes_max()).sum()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn read_one(&self, request: ReadRequest) -> ReadResult {
        // In its last place at once: a vector would be copied into the `Arc`.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, request.length).collect();
        let into = Arc::get_mut(&mut bytes).ok_or(IoError::Gone)?;
        self.device(request.slot)?.read(request.offset, into)?;
        Ok(bytes)
    }
}

/// Reads of one batch that run at a time.
const READERS_MAX: usize = 16;

impl Disks for Devices {
    fn count(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }

    fn geometry(&self, slot: u16) -> Result<Geometry, IoError> {
        self.device(slot)?.geometry()
    }

    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, ReadResult)> {
        let devices = &*self;
        let read = |request: ReadRequest| (request, devices.read_one(request));
        if requests.len() == 1 {
            return requests.into_iter().map(read).collect();
        }
        let share = requests.len().div_ceil(READERS_MAX).max(1);
        std::thread::scope(|scope| {
            let readers: Vec<_> = requests
                .chunks(share)
                .map(|chunk| scope.spawn(move || chunk.iter().copied().map(read).collect::<Vec<_>>()))
                .collect();
            readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default()).collect()
        })
    }

    fn read_while(&mut self, request: ReadRequest, meanwhile: &mut dyn FnMut()) -> ReadResult {
        let devices = &*self;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || devices.read_one(request));
            meanwhile();
            reader.join().unwrap_or(Err(IoError::Gone))
        })
    }

    fn write(&mut self, slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.device(slot)?.write(offset, &[IoSlice::new(bytes)])
    }

    fn flush(&mut self, slot: u16) -> Result<(), IoError> {
        self.device(slot)?.flush()
    }
}

/// What an errno means to the store.
pub fn io_error(errno: i32) -> IoError {
    match errno {
        libc::ENOSPC | libc::EDQUOT => IoError::NoSpace,
        libc::ENODEV | libc::ENXIO | libc::EBADF | libc::ENOENT => IoError::Gone,
        libc::EACCES | libc::EPERM | libc::EROFS => IoError::PermissionDenied,
        errno => IoError::Failed { errno },
    }
}

impl From<std::io::Error> for IoError {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => io_error(errno),
            None => IoError::Failed { errno: 0 },
        }
    }
}
