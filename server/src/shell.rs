//! Around the service: its lock, its clock, the links to peers, and whoever carries out what it hands out.
//!
//! The service is locked for its inputs alone: MACs, checksums, device I/O and sending happen outside. Device work
//! of a store in memory is done at once by whoever caused it; work that may block goes to a few threads ([`io`]).
//!
//! Bounds: what waits for the devices is bounded by the service's windows; what waits to be sent by those and by
//! pausing a peer. Lock order: the service, then the links, then one link.

mod connection;
mod control;
mod drives;
mod io;
mod link;
#[cfg(target_os = "linux")]
mod one_sided;
mod regions;
mod scrub;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use memkv_transport::buf::BufPool;
use memkv_wire::limits;
use smallvec::SmallVec;
use tokio::sync::Notify;

pub use self::connection::{Door, serve, serve_local};
pub use self::control::{Control, Controlled};
pub use self::drives::{DriveErrors, Drives};
use self::io::{Job, Queue};
use self::link::Link;
use self::regions::Mapped;
pub use self::scrub::Scrubber;
use crate::service::{
    BODY_BYTES_TOTAL_MAX, CloseReason, ConnectionId, Joined, Output, ReadError, ReadId, ReadOutcome, Service,
};
use crate::store::{BLOCK_BYTES, CommandId, Done, IoError};

/// The service's deadlines are coarse; this is how often it is ticked when none comes earlier.
const TICK_MS_MAX: u64 = 1000;
/// How often it is looked whether the last requests have ended.
const FINISH_PAUSE: Duration = Duration::from_millis(10);
/// Memory for payloads that come in. What may be held for long leaves some of it, or nobody could go on.
const RECEIVED_BYTES_MAX: usize = 1 << 30;
/// Memory for bytes that are read from devices, kept for reuse.
const READ_BYTES_MAX: usize = 512 << 20;
/// Allocations that may be open at a time. One of a value of one block holds that block until it is committed.
pub const ALLOCATIONS_MAX: usize = 512;

const _: () = assert!(ALLOCATIONS_MAX * BLOCK_BYTES + BODY_BYTES_TOTAL_MAX <= RECEIVED_BYTES_MAX / 4 * 3);

pub struct Shell {
    service: Mutex<Service>,
    links: RwLock<HashMap<ConnectionId, Arc<Link>>>,
    drives: Drives,
    /// Failed drives that the log told of.
    drives_failed: AtomicU64,
    queue: Arc<Queue>,
    begun: Instant,
    received: BufPool,
    read: BufPool,
    mapped: Arc<Mapped>,
    stopped: Notify,
}

/// What one input of the service usually leaves to do fits without an allocation.
const WORK_INLINE: usize = 4;

type Work = SmallVec<[Job; WORK_INLINE]>;

/// The end of something that was carried out.
enum Ended {
    Device(CommandId, Result<Done, IoError>),
    Read(ReadId, Result<ReadOutcome, ReadError>),
    Body(Joined),
}

impl Shell {
    /// Starts the threads for device work that may block. `registered_bytes`: how much memory of each direction is to lie in one stretch,
    /// to be registered with RDMA devices.
    pub fn start(
        service: Service,
        drives: Drives,
        registered_bytes: Option<usize>,
    ) -> std::io::Result<Arc<Shell>> {
        let threads = if drives.at_once() { 0 } else { drives.threads() };
        let devices_apart = drives.apart();
        let failed_before = service.store().counters().devices_failed;
        let received = BufPool::keeping(RECEIVED_BYTES_MAX, drives.kept_bytes_max());
        let read = BufPool::new(READ_BYTES_MAX);
        // A device fills one stretch of memory in one request. One in memory keeps what was received: over huge pages a reader
        // of all of it seldom waits for the address of the next page, which made reads a tenth faster.
        let (read_bytes, received_bytes) = match (registered_bytes, drives.at_once()) {
            (Some(bytes), _) => (Some(bytes), Some(bytes)),
            (None, true) => (None, Some(RECEIVED_BYTES_MAX + drives.kept_bytes_max())),
            (None, false) => (Some(READ_BYTES_MAX), None),
        };
        for (pool, bytes) in [(&received, received_bytes), (&read, read_bytes)] {
            if let Some(Err(error)) = bytes.map(|bytes| pool.use_huge_pages(bytes)) {
                tracing::warn!(%error, "no stretch of memory for payloads: they take what the allocator gives");
            }
        }
        let shell = Arc::new(Shell {
            service: Mutex::new(service),
            links: RwLock::default(),
            drives,
            drives_failed: AtomicU64::new(failed_before),
            queue: Arc::new(Queue::new(threads, devices_apart)),
            begun: Instant::now(),
            received,
            read,
            mapped: Arc::default(),
            stopped: Notify::new(),
        });
        for thread in 0..threads {
            let (shell, queue) = (Arc::downgrade(&shell), Arc::clone(&shell.queue));
            std::thread::Builder::new()
                .name(format!("io-{thread}"))
                .spawn(move || queue.run(|jobs| shell.upgrade().is_some_and(|shell| shell.run(jobs))))?;
        }
        Ok(shell)
    }

    /// The memory that payloads come into, and that devices are read into.
    pub fn pools(&self) -> [&BufPool; 2] {
        [&self.received, &self.read]
    }

    pub fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Gives the service an input, then carries out what it hands out, and what follows from that.
    pub fn with_service<T>(&self, input: impl FnOnce(&mut Service, u64) -> T) -> T {
        let mut work = Work::new();
        let result = {
            let mut service = self.lock();
            let result = input(&mut service, self.now_ms());
            self.route(&mut service, &mut work);
            result
        };
        self.carry_out(work);
        result
    }

    /// Ticks the service for as long as the shell lives.
    pub async fn keep_time(self: Arc<Shell>) {
        loop {
            let now_ms = self.now_ms();
            let next_ms = self.lock().next_deadline().unwrap_or(u64::MAX);
            let wait_ms = next_ms.saturating_sub(now_ms).clamp(1, TICK_MS_MAX);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            let short = self.is_short_of_memory();
            self.with_service(|service, now_ms| {
                if short {
                    service.receives_nothing();
                }
                service.tick(now_ms);
            });
        }
    }

    /// Whether a peer that sends may have to wait for memory: then it is not its fault if nothing comes.
    fn is_short_of_memory(&self) -> bool {
        self.received.available_size_bytes() < limits::PAYLOAD_SIZE_BYTES_MAX as usize
    }

    /// Ends the service in good order: answered once everything acknowledged is durable.
    pub async fn stop(&self) {
        let stopped = self.stopped.notified();
        self.with_service(Service::stop);
        stopped.await;
    }

    /// Waits until whatever was asked for to its end is answered, for as long as peers take their answers: once no frame has gone out
    /// for `idle_max`, the rest is given up. The store waits for what it changes, not for reads.
    pub async fn finish_requests(&self, idle_max: Duration) {
        let (mut frames_before, mut moved) = (0, Instant::now());
        loop {
            let (waiting, frames_sent) = {
                let service = self.lock();
                (service.has_unanswered(), service.counters().frames_sent)
            };
            if frames_sent != frames_before {
                (frames_before, moved) = (frames_sent, Instant::now());
            }
            if !waiting || moved.elapsed() >= idle_max {
                return;
            }
            tokio::time::sleep(FINISH_PAUSE).await;
        }
    }

    /// Closes every connection, after what waits to be sent was.
    pub fn close_links(&self) {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().for_each(|link| link.finish());
    }

    pub fn links_open(&self) -> usize {
        self.links.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn lock(&self) -> MutexGuard<'_, Service> {
        // A panic under the lock is our bug; what is stored stays readable.
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, connection: ConnectionId) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&connection).cloned()
    }

    /// Hands what is for peers to their links, still under the service's lock: frames of one reply stay in order.
    /// What is left is work.
    fn route(&self, service: &mut Service, work: &mut Work) {
        while let Some(output) = service.next_output() {
            match output {
                Output::Device(command) => work.push(Job::Device(command)),
                Output::Read(command) => work.push(Job::Read(command)),
                Output::Body(job) => work.push(Job::Body(job)),
                Output::Reply(reply) => match self.link(reply.connection) {
                    Some(link) => link.push(reply.frame),
                    None => {
                        let (control, payload) = (reply.control_bytes(), reply.payload_bytes());
                        service.sent(self.now_ms(), reply.connection, 1, control, payload);
                    }
                },
                Output::Pause(id) => self.link(id).into_iter().for_each(|link| link.pause(true)),
                Output::Resume(id) => self.link(id).into_iter().for_each(|link| link.pause(false)),
                Output::Close { connection, reason } => self.close(connection, reason),
                Output::Stopped => self.stopped.notify_one(),
            }
        }
        self.tell_of_failed_drives(service);
    }

    fn tell_of_failed_drives(&self, service: &Service) {
        let failed = service.store().counters().devices_failed;
        if self.drives_failed.swap(failed, Ordering::Relaxed) == failed {
            return;
        }
        for status in service.store().device_status().into_iter().filter(|status| status.failed) {
            let drive = self.drives.name(status.slot);
            tracing::error!(drive, "a drive is out of service; what was on it are misses, the others go on");
        }
    }

    /// Does the work, or has it done, and what follows from it: of a peer's reads no more than its window, until it was sent to.
    fn carry_out(&self, mut work: Work) {
        if !self.drives.at_once() {
            return work.into_iter().for_each(|job| self.queue.push(job));
        }
        while !work.is_empty() {
            let ended: SmallVec<_> = work.drain(..).map(|job| self.execute(job)).collect();
            self.report(ended, &mut work);
        }
    }

    fn close(&self, connection: ConnectionId, reason: CloseReason) {
        if let Some(link) = self.link(connection) {
            tracing::warn!(%reason, "a connection is closed for the peer's fault");
            link.close();
        }
    }

    fn report(&self, ended: SmallVec<[Ended; WORK_INLINE]>, work: &mut Work) {
        let mut service = self.lock();
        let now_ms = self.now_ms();
        for end in ended {
            match end {
                Ended::Device(id, result) => service.device_done(now_ms, id, result),
                Ended::Read(id, result) => service.read_done(now_ms, id, result),
                Ended::Body(joined) => service.body_joined(now_ms, joined),
            }
        }
        self.route(&mut service, work);
    }

    /// A thread's work: a few jobs and all that follows from them.
    fn run(&self, jobs: &mut Vec<Job>) -> bool {
        let ended = jobs.drain(..).map(|job| self.execute(job)).collect();
        let mut work = Work::new();
        self.report(ended, &mut work);
        self.carry_out(work);
        true
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.queue.close();
    }
}
