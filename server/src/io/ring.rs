//! An io_uring of one file, and the thread that owns it.
//!
//! Callers block until their request is done, so every buffer they lend outlives its use by the kernel: the caller of
//! `Ring::run` holds the borrow until the completion arrived, and the ring's thread answers each request exactly once, even
//! when it ends. Requests in flight never exceed the submission queue, nor therefore the completion queue.
//!
//! The file is registered, and so is the staging pool: requests that lie in it whole use the fixed operations.

#![expect(unsafe_code, reason = "the kernel reads and writes memory by address")]

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use io_uring::{IoUring, opcode, types};

use super::io_error;
use crate::store::IoError;

/// Requests in flight.
const ENTRIES: u32 = 128;
/// Marks the completion of the wake-up read.
const WAKE: u64 = u64::MAX;

/// What the kernel is to do.
pub enum Action<'a> {
    Read { offset: u64, into: &'a mut [u8], fixed: bool },
    Write { offset: u64, slices: Vec<&'a [u8]>, fixed: bool },
    Flush,
}

/// A request with its borrow erased. Addresses stay valid until `reply` is answered.
struct Request {
    kind: Kind,
    offset: u64,
    iovecs: Vec<libc::iovec>,
    /// The first iovec that is not done yet.
    at: usize,
    done: u64,
    asked: u64,
    fixed: bool,
    reply: Arc<Reply>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Flush,
}

// SAFETY: the iovecs point to memory that the blocked caller of `Ring::run` lends to whoever holds the request, which is
// one thread at a time; for reads that borrow is exclusive.
unsafe impl Send for Request {}

#[derive(Default)]
struct Reply {
    result: Mutex<Option<Result<(), IoError>>>,
    ended: Condvar,
}

impl Reply {
    fn answer(&self, result: Result<(), IoError>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.ended.notify_one();
    }

    fn wait(&self) -> Result<(), IoError> {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            result = self.ended.wait(result).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Shared {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
    /// The thread sleeps in the kernel and must be woken.
    asleep: bool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // An eventfd's counter cannot overflow here: each write is preceded by a sleep that resets it.
        let _ = rustix::io::write(&self.wake, &one);
    }
}

pub struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ring {
    /// Starts the thread. `staging` is registered for fixed operations; it must stay where it is for the ring's life.
    pub fn start(file: Arc<File>, staging: Option<(usize, usize)>, name: &str) -> std::io::Result<Self> {
        let uring = IoUring::new(ENTRIES)?;
        uring.submitter().register_files(&[file.as_raw_fd()])?;
        if let Some((address, length)) = staging {
            let iovec = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: length };
            // SAFETY: the caller keeps the staging memory mapped until the ring is dropped.
            unsafe { uring.submitter().register_buffers(&[iovec])? };
        }
        // SAFETY: eventfd takes no pointers; a negative result is checked before it becomes a descriptor.
        let wake = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if wake < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let wake = unsafe { OwnedFd::from_raw_fd(wake) };
        let shared = Arc::new(Shared { queue: Mutex::default(), wake });
        let worker = Worker {
            uring,
            shared: Arc::clone(&shared),
            flying: (0..ENTRIES).map(|_| None).collect(),
            free: (0..ENTRIES as usize - 1).collect(),
            wake_word: Box::new(0),
            _file: file,
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Does one thing, to its end.
    pub fn run(&self, action: Action<'_>) -> Result<(), IoError> {
        let reply = Arc::new(Reply::default());
        let iovec =
            |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let (kind, offset, iovecs, fixed) = match action {
            Action::Read { offset, into, fixed } => {
                let iovec = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
                (Kind::Read, offset, vec![iovec], fixed)
            }
            Action::Write { offset, slices, fixed } => {
                (Kind::Write, offset, slices.iter().map(|slice| iovec(slice)).collect(), fixed)
            }
            Action::Flush => (Kind::Flush, 0, Vec::new(), false),
        };
        let asked = iovecs.iter().map(|iovec| iovec.iov_len as u64).sum();
        let request =
            Request { kind, offset, iovecs, at: 0, done: 0, asked, fixed, reply: Arc::clone(&reply) };
        let mut queue = self.shared.lock();
        if queue.closed {
            return Err(IoError::Gone);
        }
        queue.requests.push_back(request);
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.shared.wake();
        }
        // The borrow of the caller's memory ends only after this.
        reply.wait()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Worker {
    uring: IoUring,
    shared: Arc<Shared>,
    flying: Vec<Option<Request>>,
    free: Vec<usize>,
    /// Where the kernel puts the eventfd's count.
    wake_word: Box<u64>,
    _file: Arc<File>,
}

impl Worker {
    fn run(mut self) {
        let mut listening = false;
        loop {
            let idle = self.take_requests();
            let Some(idle) = idle else {
                // The kernel takes a ring down some time later; it need not hold the file until then.
                let _ = self.uring.submitter().unregister_files();
                return;
            };
            if !listening {
                self.listen();
                listening = true;
            }
            let wanted = usize::from(idle || self.free.is_empty() || self.flying_count() > 0);
            match self.uring.submit_and_wait(wanted) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return self.fail(error.into()),
            }
            listening &= !self.reap();
        }
    }

    fn flying_count(&self) -> usize {
        ENTRIES as usize - 1 - self.free.len()
    }

    /// Hands new requests to the kernel. `None` when the ring is closed and nothing is in flight; else whether there was
    /// nothing new and the thread may sleep.
    fn take_requests(&mut self) -> Option<bool> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        let mut none = true;
        while let Some(slot) = self.free.pop() {
            let Some(request) = queue.requests.pop_front() else {
                self.free.push(slot);
                break;
            };
            none = false;
            self.submit(slot, request);
        }
        if queue.closed && none && self.flying_count() == 0 {
            return None;
        }
        queue.asleep = true;
        Some(none)
    }

    /// Builds the request's submission, for all that is left of it.
    fn submit(&mut self, slot: usize, request: Request) {
        let request = self.flying[slot].insert(request);
        let iovecs = &request.iovecs[request.at..];
        let offset = request.offset + request.done;
        let file = types::Fixed(0);
        let entry = match (request.kind, request.fixed, iovecs) {
            (Kind::Flush, ..) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Kind::Read, true, [one]) => {
                opcode::ReadFixed::new(file, one.iov_base.cast(), one.iov_len as u32, 0)
                    .offset(offset)
                    .build()
            }
            (Kind::Write, true, [one]) => {
                let base = one.iov_base.cast_const().cast();
                opcode::WriteFixed::new(file, base, one.iov_len as u32, 0).offset(offset).build()
            }
            (Kind::Read, ..) => {
                opcode::Readv::new(file, iovecs.as_ptr(), iovecs.len() as u32).offset(offset).build()
            }
            (Kind::Write, ..) => {
                opcode::Writev::new(file, iovecs.as_ptr(), iovecs.len() as u32).offset(offset).build()
            }
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the iovecs live in `self.flying[slot]` and what they point to is lent by the blocked caller, both
        // until `reap` saw the completion. There are never more entries than the queue holds.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "slots are as many as the queue is long");
    }

    /// Reads the eventfd in the ring, so that new requests end the thread's sleep.
    fn listen(&mut self) {
        let word: *mut u64 = &mut *self.wake_word;
        let fd = types::Fd(self.shared.wake.as_raw_fd());
        let entry = opcode::Read::new(fd, word.cast(), 8).build().user_data(WAKE);
        // SAFETY: the word is boxed and lives as long as the ring; one slot of the queue is kept for this entry.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "a slot is kept for it");
    }

    /// Takes all completions. Answers whether the wake-up was among them.
    fn reap(&mut self) -> bool {
        let mut woken = false;
        let ended: Vec<_> =
            self.uring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (slot, result) in ended {
            if slot == WAKE {
                woken = true;
                continue;
            }
            let slot = slot as usize;
            let Some(mut request) = self.flying.get_mut(slot).and_then(Option::take) else { continue };
            match request.advance(result) {
                Progress::More => self.submit(slot, request),
                Progress::Over(result) => {
                    self.free.push(slot);
                    request.reply.answer(result);
                }
            }
        }
        woken
    }

    /// The ring itself does not work any more: nobody waits for ever.
    fn fail(mut self, error: IoError) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.requests);
        drop(queue);
        waiting.into_iter().for_each(|request| request.reply.answer(Err(error)));
        // What the kernel still holds must not be answered before it let go of the memory: closing the ring waits for it.
        let flying = std::mem::take(&mut self.flying);
        drop(self);
        flying.into_iter().flatten().for_each(|request| request.reply.answer(Err(error)));
    }
}

enum Progress {
    More,
    Over(Result<(), IoError>),
}

impl Request {
    /// Takes a completion's result: the one place where its sign and its count are looked at.
    fn advance(&mut self, result: i32) -> Progress {
        if result < 0 {
            let errno = -result;
            return match errno {
                libc::EINTR | libc::EAGAIN => Progress::More,
                errno => Progress::Over(Err(io_error(errno))),
            };
        }
        self.done += result as u64;
        if self.done >= self.asked {
            return Progress::Over(Ok(()));
        }
        // Short: go on behind what was done, unless nothing was.
        let mut left = result as usize;
        if left == 0 {
            return Progress::Over(Err(IoError::Short { done: self.done, asked: self.asked }));
        }
        while let Some(iovec) = self.iovecs.get_mut(self.at) {
            let step = left.min(iovec.iov_len);
            iovec.iov_base = iovec.iov_base.wrapping_byte_add(step);
            iovec.iov_len -= step;
            left -= step;
            if iovec.iov_len > 0 {
                break;
            }
            self.at += 1;
        }
        Progress::More
    }
}
