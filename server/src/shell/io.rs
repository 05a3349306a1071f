//! Work that may block: a queue, and the threads that empty it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use memkv_transport::buf::{Buf, BufMut};

use super::{Ended, Shell};
use crate::read::{self, Source};
use crate::service::{BodyJob, ReadCommand};
use crate::store::{Command, IoError};

pub(super) enum Job {
    Device(Command<Buf>),
    Read(ReadCommand),
    Body(BodyJob),
}

/// First come, first served. Its length is bounded by the service's windows.
#[derive(Default)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub fn push(&self, job: Job) {
        self.lock().waiting.push_back(job);
        self.more.notify_one();
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    /// Hands out jobs until the queue is closed, or `work` wants no more.
    pub fn run(&self, work: impl Fn(Job) -> bool) {
        loop {
            let mut jobs = self.lock();
            let job = loop {
                if let Some(job) = jobs.waiting.pop_front() {
                    break job;
                }
                if jobs.closed {
                    return;
                }
                jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            };
            drop(jobs);
            if !work(job) {
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
            Job::Device(command) => Ended::Device(command.id, self.devices.execute(&command)),
            Job::Read(command) => {
                let id = command.id;
                Ended::Read(id, read::execute(&command, &mut DeviceSource(self)))
            }
            Job::Body(job) => Ended::Body(job.join()),
        }
    }
}

struct DeviceSource<'a>(&'a Shell);

impl Source for DeviceSource<'_> {
    fn read(&mut self, device: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.0.devices.device(device)?.read(offset, into)
    }

    /// What is read is bounded by the windows, so memory beside the pool is only slower.
    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut> {
        self.0.read.try_take(size_bytes).or_else(|_| BufMut::unpooled(size_bytes)).ok()
    }
}
