//! An io_uring of one file, and the thread that owns it.
//!
//! Every buffer outlives its use by the kernel: the caller of `Ring::run` blocks and so holds the borrow until the
//! completion arrived; what `Ring::start` is given owns its buffers and is not touched until then. The thread ends each request
//! exactly once, even when it ends itself. Requests in flight never exceed the submission queue, nor therefore the completion
//! queue.
//!
//! Why two ways: a caller that blocks costs two switches of threads a request, which is more than the request itself when
//! values are small. What is started ends on the ring's thread, which hands the next requests to the kernel in one call.
//!
//! The file is registered, and so is the staging pool: requests that lie in it whole use the fixed operations.

#![expect(unsafe_code, reason = "the kernel reads and writes memory by address")]

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};
use smallvec::SmallVec;

use memkv_transport::buf::BufMut;

use super::staging::{Piece, Staging};
use super::{Then, Transfer, io_error};
use crate::store::IoError;

/// Requests in flight.
const ENTRIES: u32 = 128;
/// Requests that the kernel is handed at once: it gathers more than two for merging.
const HANDED_MAX: usize = 2;
/// What the thread waits when the kernel has no memory or no room for completions just now, and between looks at the last ones.
const PAUSE: Duration = Duration::from_millis(1);
/// Marks the completion of the wake-up read.
const WAKE: u64 = u64::MAX;
/// Marks completions of writing behind, which nobody waits for.
const BEHIND: u64 = u64::MAX - 1;
/// Bytes in the page cache that the drive is told to begin with.
const BEHIND_BYTES: u64 = 1 << 20;

/// What the kernel is to do.
pub enum Action<'a> {
    Read { offset: u64, into: &'a mut [u8], fixed: bool },
    Write { offset: u64, slices: Vec<&'a [u8]>, fixed: bool },
    Flush,
}

/// A transfer, with what it needs until its end.
pub struct Task {
    pub transfer: Transfer,
    /// What had to be gathered.
    pub gathered: Gathered,
    pub then: Then,
}

/// Memory for bytes that cannot be lent as they lie.
pub enum Gathered {
    Nothing,
    Staged(Piece),
    /// When no piece was free or none is large enough.
    Heap(BufMut),
}

impl Gathered {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Gathered::Nothing => &[],
            Gathered::Staged(piece) => piece,
            Gathered::Heap(buffer) => buffer,
        }
    }
}

/// How a request began, and so how it ends.
enum End {
    /// Someone blocks for it.
    Reply(Arc<Reply>),
    Task(Box<Task>),
}

impl End {
    fn answer(self, result: Result<(), IoError>) {
        match self {
            End::Reply(reply) => reply.answer(result),
            End::Task(task) => {
                let Task { transfer, gathered, then } = *task;
                drop(gathered);
                then(transfer, result);
            }
        }
    }
}

/// A request with its borrow erased. Addresses stay valid until `end` is answered.
struct Request {
    kind: Kind,
    offset: u64,
    iovecs: Iovecs,
    /// The first iovec that is not done yet.
    at: usize,
    done: u64,
    asked: u64,
    fixed: bool,
    /// Its number among the worker's submissions.
    pushed: u64,
    end: End,
}

/// Where a request's bytes are.
pub type Iovecs = SmallVec<[libc::iovec; 4]>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Flush,
}

// SAFETY: the iovecs point to memory that the blocked caller of `Ring::run` lends to whoever holds the request, or that the
// request's own task owns; that is one thread at a time, and for reads the borrow is exclusive.
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
    registered: bool,
    thread: Option<JoinHandle<()>>,
}

impl Ring {
    /// Starts the thread. `staging` is registered for fixed operations, if the process may lock that much memory.
    ///
    /// `write_behind` is for the page cache: the drive begins with what was written while more is coming, so that a flush finds
    /// little left to do.
    pub fn open(
        file: Arc<File>,
        staging: Arc<Staging>,
        write_behind: bool,
        name: &str,
    ) -> std::io::Result<Self> {
        Self::open_with(file, staging, write_behind, name, |uring| uring.submit_and_wait(1))
    }

    fn open_with(
        file: Arc<File>,
        staging: Arc<Staging>,
        write_behind: bool,
        name: &str,
        enter: Enter,
    ) -> std::io::Result<Self> {
        let uring = IoUring::new(ENTRIES * 2)?;
        uring.submitter().register_files(&[file.as_raw_fd()])?;
        let (address, length) = staging.range();
        let iovec = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: length };
        // SAFETY: the worker holds the staging memory until the ring is gone.
        let registered = match unsafe { uring.submitter().register_buffers(&[iovec]) } {
            Ok(()) => true,
            // The process may not lock that much.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => false,
            Err(error) => return Err(error),
        };
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
            registered,
            behind: write_behind.then_some(0..0),
            enter,
            pushed: 0,
            failed: None,
            _file: file,
            _staging: staging,
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, registered, thread: Some(thread) })
    }

    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Does one thing, to its end.
    pub fn run(&self, action: Action<'_>) -> Result<(), IoError> {
        let reply = Arc::new(Reply::default());
        let (kind, offset, iovecs, fixed) = match action {
            Action::Read { offset, into, fixed } => {
                (Kind::Read, offset, Iovecs::from_elem(iovec_mut(into), 1), fixed)
            }
            Action::Write { offset, slices, fixed } => {
                (Kind::Write, offset, slices.iter().map(|slice| iovec(slice)).collect(), fixed)
            }
            Action::Flush => (Kind::Flush, 0, Iovecs::new(), false),
        };
        if let Err(request) =
            self.push(Request::new(kind, offset, iovecs, fixed, End::Reply(Arc::clone(&reply))))
        {
            request.end.answer(Err(IoError::Gone));
        }
        // The borrow of the caller's memory ends only after this.
        reply.wait()
    }

    /// Begins a task. `slices` tells what a write takes from where: only memory behind the task's handles (buffers, shared
    /// slices, pieces) or static one.
    pub fn start(&self, task: Task, slices: impl FnOnce(&Task) -> Iovecs) {
        let mut task = Box::new(task);
        let fixed = matches!(&task.gathered, Gathered::Staged(_));
        let (kind, offset, iovecs) = match &mut task.transfer {
            Transfer::Read { offset, into } => (Kind::Read, *offset, Iovecs::from_elem(iovec_mut(into), 1)),
            Transfer::Write { offset, .. } => (Kind::Write, *offset, slices(&task)),
            Transfer::Flush => (Kind::Flush, 0, Iovecs::new()),
        };
        // A fixed write lies in the registered memory whole.
        let fixed = fixed && kind == Kind::Write && iovecs.len() == 1;
        if let Err(request) = self.push(Request::new(kind, offset, iovecs, fixed, End::Task(task))) {
            request.end.answer(Err(IoError::Gone));
        }
    }

    /// Gives the request back when the ring is closed.
    fn push(&self, request: Request) -> Result<(), Box<Request>> {
        let mut queue = self.shared.lock();
        if queue.closed {
            return Err(Box::new(request));
        }
        queue.requests.push_back(request);
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.shared.wake();
        }
        Ok(())
    }
}

/// Where these bytes are, for a request that does not outlive them.
pub fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn iovec_mut(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake();
        // What a task ends with may hold the last handle: the thread cannot wait for itself, and ends by itself.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Submits, and waits for a completion.
type Enter = fn(&IoUring) -> std::io::Result<usize>;

/// The thread's side.
struct Worker {
    uring: IoUring,
    shared: Arc<Shared>,
    flying: Vec<Option<Request>>,
    free: Vec<usize>,
    /// Where the kernel puts the eventfd's count.
    wake_word: Box<u64>,
    /// Whether fixed operations may be used.
    registered: bool,
    /// What was written to the page cache and not yet asked to be written to the drive.
    behind: Option<std::ops::Range<u64>>,
    enter: Enter,
    /// Entries put into the submission queue, ever.
    pushed: u64,
    /// The kernel takes nothing more: what is left of a request is not asked for.
    failed: Option<IoError>,
    _file: Arc<File>,
    _staging: Arc<Staging>,
}

impl Worker {
    fn run(mut self) {
        let mut listening = false;
        loop {
            while self.hand_over() {}
            if !self.may_sleep() {
                continue;
            }
            if self.is_over() {
                // The kernel takes a ring down some time later; it need not hold the file until then.
                let _ = self.uring.submitter().unregister_files();
                return;
            }
            if !listening {
                self.listen();
                listening = true;
            }
            match (self.enter)(&self.uring) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Completions that are taken make room, and memory comes back.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => std::thread::sleep(PAUSE),
                    _ => return self.fail(error.into()),
                },
            }
            self.shared.lock().asleep = false;
            listening &= !self.reap();
        }
    }

    fn flying_count(&self) -> usize {
        ENTRIES as usize - 1 - self.free.len()
    }

    /// Nothing more comes, and nothing is in flight.
    fn is_over(&self) -> bool {
        self.flying_count() == 0 && self.shared.lock().closed
    }

    /// From now on whoever has a request must wake the thread; unless there is one that could be handed over.
    fn may_sleep(&self) -> bool {
        let mut queue = self.shared.lock();
        queue.asleep = queue.requests.is_empty() || self.free.is_empty();
        queue.asleep
    }

    /// Hands the next requests to the kernel, if there are any.
    ///
    /// A few at a time: of many handed over at once, the block layer makes one large request of those that lie side by side, and then
    /// the drive has one thing to do and not many.
    fn hand_over(&mut self) -> bool {
        for handed in 0..HANDED_MAX {
            let Some(slot) = self.free.pop() else { return false };
            let next = self.shared.lock().requests.pop_front();
            let Some(request) = next else {
                self.free.push(slot);
                return handed > 0 && self.submit_all();
            };
            self.submit(slot, request);
        }
        self.submit_all()
    }

    fn submit_all(&mut self) -> bool {
        // What the kernel does not take now, it is offered again when the thread waits.
        let _ = self.uring.submit();
        true
    }

    /// Builds the request's submission, for all that is left of it.
    fn submit(&mut self, slot: usize, request: Request) {
        self.pushed += 1;
        let request = self.flying[slot].insert(request);
        request.pushed = self.pushed;
        let iovecs = &request.iovecs[request.at..];
        let offset = request.offset + request.done;
        let file = types::Fixed(0);
        let entry = match (request.kind, request.fixed && self.registered, iovecs) {
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
        self.pushed += 1;
        debug_assert!(pushed.is_ok(), "a slot is kept for it");
    }

    /// Has the drive begin with what was written, a stretch at a time.
    fn write_behind(&mut self, written: std::ops::Range<u64>) {
        let Some(behind) = &mut self.behind else { return };
        if behind.end == written.start {
            behind.end = written.end;
        } else {
            // Writes end in any order: what is passed over here is left to the flush.
            *behind = written;
        }
        if behind.end - behind.start < BEHIND_BYTES {
            return;
        }
        let range = std::mem::replace(behind, behind.end..behind.end);
        let length = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
        let entry = opcode::SyncFileRange::new(types::Fixed(0), length)
            .offset(range.start)
            .flags(libc::SYNC_FILE_RANGE_WRITE)
            .build()
            .user_data(BEHIND);
        // SAFETY: the entry refers to no memory.
        // A full queue is no harm: the flush does it.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        self.pushed += u64::from(pushed.is_ok());
    }

    /// Takes all completions. Answers whether the wake-up was among them.
    fn reap(&mut self) -> bool {
        let mut woken = false;
        let ended: Vec<_> =
            self.uring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (slot, result) in ended {
            if slot == WAKE || slot == BEHIND {
                woken |= slot == WAKE;
                continue;
            }
            let slot = slot as usize;
            let Some(mut request) = self.flying.get_mut(slot).and_then(Option::take) else { continue };
            match (request.advance(result), self.failed) {
                (Progress::More, None) => self.submit(slot, request),
                (Progress::More, Some(error)) => {
                    self.free.push(slot);
                    request.end.answer(Err(error));
                }
                (Progress::Over(result), _) => {
                    self.free.push(slot);
                    if request.kind == Kind::Write && result.is_ok() {
                        self.write_behind(request.offset..request.offset + request.asked);
                    }
                    request.end.answer(result);
                    // What followed from it need not wait for the others' turn.
                    self.hand_over();
                }
            }
        }
        woken
    }

    /// The ring itself does not work any more: nothing new is taken, and what the kernel has is waited for.
    fn fail(mut self, error: IoError) {
        self.failed = Some(error);
        let mut queue = self.shared.lock();
        queue.closed = true;
        let waiting = std::mem::take(&mut queue.requests);
        drop(queue);
        waiting.into_iter().for_each(|request| request.end.answer(Err(error)));
        // The kernel takes submissions in their order: the last ones it has never seen, and will not.
        let taken = self.pushed - self.uring.submission().len() as u64;
        for slot in 0..self.flying.len() {
            if let Some(request) = self.flying[slot].take_if(|request| request.pushed > taken) {
                self.free.push(slot);
                request.end.answer(Err(error));
            }
        }
        // The kernel may still use the memory of the others, and closing the ring would not wait for it: none is answered, and so
        // no borrow ends, before its completion came.
        while self.flying_count() > 0 {
            self.reap();
            std::thread::sleep(PAUSE);
        }
        // The wake-up's read may still be under way: its word outlives the ring.
        std::mem::forget(std::mem::take(&mut self.wake_word));
    }
}

enum Progress {
    More,
    Over(Result<(), IoError>),
}

impl Request {
    fn new(kind: Kind, offset: u64, iovecs: Iovecs, fixed: bool, end: End) -> Request {
        let asked = iovecs.iter().map(|iovec| iovec.iov_len as u64).sum();
        Request { kind, offset, iovecs, at: 0, done: 0, asked, fixed, pushed: 0, end }
    }

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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;

    use memkv_transport::buf::BufPool;

    use super::*;

    thread_local! {
        /// Each ring has a thread, so these are the calls of one ring.
        static CALLS: Cell<usize> = const { Cell::new(0) };
    }

    fn call() -> usize {
        CALLS.replace(CALLS.get() + 1)
    }

    fn open(file: File, enter: Enter) -> Option<Ring> {
        let staging = Staging::new(1 << 20).unwrap();
        // Containers often forbid io_uring.
        Ring::open_with(Arc::new(file), staging, false, "ring", enter).ok()
    }

    #[test]
    fn a_kernel_that_is_busy_is_asked_again() {
        let enter: Enter = |uring| match [libc::EAGAIN, libc::EBUSY, libc::ENOMEM].get(call()) {
            Some(errno) => Err(std::io::Error::from_raw_os_error(*errno)),
            None => uring.submit_and_wait(1),
        };
        let Some(ring) = open(tempfile::tempfile().unwrap(), enter) else { return };
        let bytes = [7; 4096];
        ring.run(Action::Write { offset: 0, slices: vec![&bytes], fixed: false }).unwrap();
        let mut back = [0; 4096];
        ring.run(Action::Read { offset: 0, into: &mut back, fixed: false }).unwrap();
        assert_eq!(back, bytes);
    }

    #[test]
    fn a_ring_that_fails_answers_nothing_that_the_kernel_still_has() {
        // Whatever ends the first wait, the read is handed over before the second one.
        let enter: Enter = |uring| match call() {
            0 => uring.submit_and_wait(1),
            _ => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        };
        let (reader, mut writer) = std::io::pipe().unwrap();
        let Some(ring) = open(File::from(OwnedFd::from(reader)), enter) else { return };
        let (sender, answers) = std::sync::mpsc::channel();
        let into = BufPool::new(1 << 20).try_take(4096).unwrap();
        let then: Then = Box::new(move |transfer, result| sender.send((transfer, result)).unwrap());
        let transfer = Transfer::Read { offset: 0, into };
        ring.start(Task { transfer, gathered: Gathered::Nothing, then }, |_| Iovecs::new());
        assert!(ring.run(Action::Flush).is_err());
        let early = answers.recv_timeout(100 * PAUSE);
        assert!(early.is_err(), "there is nothing in the pipe: the kernel may still write to the buffer");
        writer.write_all(&[7; 4096]).unwrap();
        let (transfer, result) = answers.recv().unwrap();
        assert!(matches!(&transfer, Transfer::Read { into, .. } if into[..] == [7; 4096]));
        assert_eq!((result, ring.run(Action::Flush)), (Ok(()), Err(IoError::Gone)));
    }
}
