//! Work that may block: a queue, and the threads that empty it.
//!
//! Each thread waits for what it does. So that a drive that does not answer holds no more than its share of them, jobs wait in
//! lanes: one for each drive, one for reads that touch several, one for work without a drive. Of one lane first come is first served; lanes
//! take turns. A store on one drive has one lane, whose share is all threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use memkv_transport::buf::{Buf, BufMut};

use super::link::Link;
use super::{Ended, Shell};
use crate::read::{self, Source};
use crate::service::{BodyJob, Landing, ReadCommand, ReadError, ReadOutcome, ReadPiece};
use crate::store::{Command, IoError, Op};

/// Jobs that one thread takes at a time.
const JOBS_AT_ONCE_MAX: usize = 16;

pub(super) enum Job {
    Device(Command<Buf>),
    Read(ReadCommand),
    Body(BodyJob),
}

/// The devices that a job waits for.
enum Touches {
    One(u16),
    Several,
    Nothing,
}

impl Job {
    fn is_flush(&self) -> bool {
        matches!(self, Job::Device(Command { op: Op::Flush, .. }))
    }

    fn touches(&self) -> Touches {
        match self {
            Job::Device(command) => Touches::One(command.device),
            Job::Read(command) => {
                let records = command.plan.records.get(command.records.clone()).unwrap_or_default();
                let mut devices = records.iter().map(|record| record.device);
                match devices.next() {
                    Some(first) if devices.all(|device| device == first) => Touches::One(first),
                    Some(_) => Touches::Several,
                    None => Touches::Nothing,
                }
            }
            Job::Body(_) => Touches::Nothing,
        }
    }
}

/// Its length is bounded by the service's windows.
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// Devices that may be slow alone.
    devices: usize,
    /// Threads that jobs of one lane may have at a time.
    share: usize,
}

struct Jobs {
    lanes: Vec<Lane>,
    /// Whose turn it is.
    turn: usize,
    closed: bool,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
    /// Threads with jobs of it.
    threads: usize,
}

impl Lane {
    fn is_ready(&self, share: usize) -> bool {
        !self.waiting.is_empty() && self.threads < share
    }
}

impl Queue {
    /// `devices`: how many may be slow alone.
    pub fn new(threads: usize, devices: usize) -> Queue {
        // A drive that does not answer holds its own share and that of reads of several; the other drives keep theirs.
        let (lanes, shares) = if devices > 1 { (devices + 2, devices + 1) } else { (1, 1) };
        let lanes = std::iter::repeat_with(Lane::default).take(lanes).collect();
        Queue {
            jobs: Mutex::new(Jobs { lanes, turn: 0, closed: false }),
            more: Condvar::new(),
            devices,
            share: (threads / shares).max(1),
        }
    }

    pub fn push(&self, job: Job) {
        let lane = match job.touches() {
            Touches::One(device) => device as usize,
            Touches::Several => self.devices,
            Touches::Nothing => self.devices + 1,
        };
        let mut jobs = self.lock();
        let last = jobs.lanes.len() - 1;
        jobs.lanes[lane.min(last)].waiting.push_back(job);
        drop(jobs);
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
        let mut lane = None;
        loop {
            lane = self.take(lane, &mut taken);
            if lane.is_none() || !work(&mut taken) {
                return;
            }
        }
    }

    /// Gives back the place in the lane whose jobs have ended, and takes jobs of one lane, which it names; `None` once the queue is closed.
    fn take(&self, ended: Option<usize>, taken: &mut Vec<Job>) -> Option<usize> {
        let mut jobs = self.lock();
        if let Some(ended) = ended {
            jobs.lanes[ended].threads -= 1;
        }
        let lane = loop {
            match jobs.next_lane(self.share) {
                Some(lane) => break lane,
                None if jobs.closed => return None,
                None => jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        jobs.take(lane, self.share, taken);
        // Whoever was woken for a job of that lane may have found no place in it.
        if ended.is_some_and(|ended| ended != lane && jobs.lanes[ended].is_ready(self.share)) {
            drop(jobs);
            self.more.notify_one();
        }
        Some(lane)
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    /// The next lane in turn that a thread may take jobs of.
    fn next_lane(&self, share: usize) -> Option<usize> {
        let lanes = self.lanes.len();
        (0..lanes).map(|step| (self.turn + step) % lanes).find(|lane| self.lanes[*lane].is_ready(share))
    }

    fn take(&mut self, lane: usize, share: usize, taken: &mut Vec<Job>) {
        self.turn = (lane + 1) % self.lanes.len();
        let Lane { waiting, threads } = &mut self.lanes[lane];
        *threads += 1;
        let count = (waiting.len() / share).clamp(1, JOBS_AT_ONCE_MAX);
        // A flush is slow: nothing else waits for its end.
        let quick = waiting.iter().take(count).take_while(|job| !job.is_flush()).count();
        taken.extend(waiting.drain(..quick.max(1)));
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
            return read::execute(command, &mut DeviceSource { shell: self, landing: None });
        };
        // Asked first: a device is not read for a place that is not there.
        let link = self.link(landing.connection).ok_or(ReadError::Landing)?;
        let length = command.range.end.saturating_sub(command.range.start) as usize;
        if !link.regions.has(landing.region, landing.offset, length) {
            return Err(ReadError::Landing);
        }
        let landing = LandingPlace { link, landing, first: command.range.start };
        read::execute(command, &mut DeviceSource { shell: self, landing: Some(landing) })
    }
}

struct DeviceSource<'a> {
    shell: &'a Shell,
    landing: Option<LandingPlace>,
}

/// Where a read's bytes go in a client's memory.
struct LandingPlace {
    link: Arc<Link>,
    landing: Landing,
    /// The byte of the value that goes to the landing's own place.
    first: u64,
}

impl Source for DeviceSource<'_> {
    fn read(&mut self, device: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.shell.drives.read(device, offset, into)
    }

    fn lend(&mut self, device: u16, offset: u64, length: usize) -> Option<Buf> {
        self.shell.drives.lend(device, offset, length)
    }

    /// What is read is bounded by the windows, so memory beside the pool is only slower.
    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut> {
        self.shell.read.try_take(size_bytes).or_else(|_| BufMut::unpooled(size_bytes)).ok()
    }

    fn land(&mut self, piece: &mut ReadPiece) -> Result<(), ReadError> {
        let Some(LandingPlace { link, landing, first }) = &self.landing else { return Ok(()) };
        let offset = landing.offset + (piece.offset - first);
        let landed = link.regions.land(landing.region, offset, &mut piece.bytes);
        landed.then_some(()).ok_or(ReadError::Landing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::store::CommandId;

    /// Nothing here takes as long, unless it never ends.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn job(device: u16) -> Job {
        Job::Device(Command { id: CommandId(0), device, op: Op::Discard { ranges: Vec::new() } })
    }

    fn flush(device: u16) -> Job {
        Job::Device(Command { id: CommandId(0), device, op: Op::Flush })
    }

    fn device(job: &Job) -> u16 {
        let Touches::One(device) = job.touches() else { panic!("a command is for one device") };
        device
    }

    /// Threads that empty a queue; none is waited for.
    fn start(queue: &Arc<Queue>, threads: usize, work: impl Fn(Job) + Clone + Send + 'static) {
        for _ in 0..threads {
            let (queue, work) = (Arc::clone(queue), work.clone());
            std::thread::spawn(move || {
                queue.run(|jobs| {
                    jobs.drain(..).for_each(&work);
                    true
                });
            });
        }
    }

    #[test]
    fn a_drive_that_does_not_answer_stops_no_other() {
        for (threads, devices) in [(24, 2), (40, 8), (4, 2), (6, 5)] {
            let queue = Arc::new(Queue::new(threads, devices));
            let drive = Arc::new(Mutex::new(()));
            let stuck = drive.lock().unwrap();
            let (done, ended) = mpsc::channel();
            let at_drive = Arc::clone(&drive);
            start(&queue, threads, move |job| {
                if device(&job) == 0 {
                    drop(at_drive.lock());
                }
                done.send(device(&job)).unwrap();
            });
            let jobs = 5 * threads;
            (0..jobs).for_each(|_| queue.push(job(0)));
            for number in 0..jobs {
                let device = (1 + number % (devices - 1)) as u16;
                queue.push(if number % 3 == 0 { flush(device) } else { job(device) });
            }
            for _ in 0..jobs {
                assert_ne!(ended.recv_timeout(PATIENCE), Ok(0));
            }
            drop(stuck);
            for _ in 0..jobs {
                assert_eq!(ended.recv_timeout(PATIENCE), Ok(0));
            }
            queue.close();
            assert_eq!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
        }
    }

    #[test]
    fn one_drive_has_all_threads() {
        const THREADS: usize = 8;
        let queue = Arc::new(Queue::new(THREADS, 1));
        let together = Arc::new(Barrier::new(THREADS));
        let (done, ended) = mpsc::channel();
        start(&queue, THREADS, move |_| {
            together.wait();
            done.send(()).unwrap();
        });
        (0..THREADS).for_each(|_| queue.push(flush(0)));
        (0..THREADS).for_each(|_| ended.recv_timeout(PATIENCE).unwrap());
        queue.close();
    }

    #[test]
    fn several_jobs_of_one_device_are_taken_together_and_a_flush_alone() {
        let queue = Queue::new(3, 2);
        let mut taken = Vec::new();
        let mut take = |ended| {
            let lane = queue.take(ended, &mut taken).unwrap();
            assert!(taken.iter().all(|job| usize::from(device(job)) == lane));
            (lane, taken.drain(..).count())
        };
        (0..9).for_each(|_| queue.push(job(1)));
        (0..9).for_each(|_| queue.push(job(0)));
        assert_eq!(take(None), (0, 9));
        assert_eq!(take(None), (1, 9));
        [flush(0), job(0), job(0), flush(0)].into_iter().for_each(|job| queue.push(job));
        assert_eq!(take(Some(0)), (0, 1), "a flush");
        assert_eq!(take(Some(0)), (0, 2), "what is before the next flush");
        assert_eq!(take(Some(0)), (0, 1));
    }
}
