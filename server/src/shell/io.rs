//! Work that may block: a queue, and the threads that empty it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use memkv_transport::buf::{Buf, BufMut};

use super::{Ended, Shell};
use crate::read::{self, Source};
use crate::service::{BodyJob, ReadCommand, ReadError, ReadOutcome};
use crate::store::{Command, IoError, Op};

/// Jobs that one thread takes at a time.
const JOBS_AT_ONCE_MAX: usize = 16;

pub(super) enum Job {
    Device(Command<Buf>),
    Read(ReadCommand),
    Body(BodyJob),
}

impl Job {
    fn is_flush(&self) -> bool {
        matches!(self, Job::Device(Command { op: Op::Flush, .. }))
    }
}

/// First come, first served. Its length is bounded by the service's windows.
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// How many threads empty it.
    threads: usize,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub fn new(threads: usize) -> Queue {
        Queue { jobs: Mutex::default(), more: Condvar::new(), threads: threads.max(1) }
    }

    pub fn push(&self, job: Job) {
        self.lock().waiting.push_back(job);
        self.more.notify_one();
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    /// Hands out jobs until the queue is closed, or `work` wants no more. When many wait, several at a time: their
    /// results then leave in fewer frames and under fewer locks.
    pub fn run(&self, work: impl Fn(&mut Vec<Job>) -> bool) {
        let mut taken = Vec::with_capacity(JOBS_AT_ONCE_MAX);
        loop {
            let mut jobs = self.lock();
            while jobs.waiting.is_empty() {
                if jobs.closed {
                    return;
                }
                jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            }
            let share = (jobs.waiting.len() / self.threads).clamp(1, JOBS_AT_ONCE_MAX);
            // A flush is slow: nothing else waits for its end.
            let quick = jobs.waiting.iter().take(share).take_while(|job| !job.is_flush()).count();
            taken.extend(jobs.waiting.drain(..quick.max(1)));
            drop(jobs);
            if !work(&mut taken) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shell {
    /// Does one job to its end, on this thread.
    pub(super) fn execute(&self, job: Job) -> Ended {
        match job {
            Job::Device(command) => Ended::Device(command.id, self.drives.execute(&command)),
            Job::Read(command) => Ended::Read(command.id, self.read(&command)),
            Job::Body(job) => Ended::Body(job.join()),
        }
    }

    /// Reads, verifies, and puts the bytes where they are wanted.
    fn read(&self, command: &ReadCommand) -> Result<ReadOutcome, ReadError> {
        let Some(landing) = command.landing else {
            return read::execute(command, &mut DeviceSource(self));
        };
        // Asked first: a device is not read for a place that is not there.
        let link = self.link(landing.connection).ok_or(ReadError::Landing)?;
        let length = command.range.end.saturating_sub(command.range.start) as usize;
        if !link.regions.has(landing.region, landing.offset, length) {
            return Err(ReadError::Landing);
        }
        let mut outcome = read::execute(command, &mut DeviceSource(self))?;
        for piece in &mut outcome.pieces {
            let offset = landing.offset + (piece.offset - command.range.start);
            if !link.regions.land(landing.region, offset, &mut piece.bytes) {
                return Err(ReadError::Landing);
            }
        }
        Ok(outcome)
    }
}

struct DeviceSource<'a>(&'a Shell);

impl Source for DeviceSource<'_> {
    fn read(&mut self, device: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.0.drives.read(device, offset, into)
    }

    fn lend(&mut self, device: u16, offset: u64, length: usize) -> Option<Buf> {
        self.0.drives.lend(device, offset, length)
    }

    /// What is read is bounded by the windows, so memory beside the pool is only slower.
    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut> {
        self.0.read.try_take(size_bytes).or_else(|_| BufMut::unpooled(size_bytes)).ok()
    }
}
