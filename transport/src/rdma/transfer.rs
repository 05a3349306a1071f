//! The send queue of a queue pair, and the one-sided transfers that share it with messages.
//!
//! Owns what is posted, in order, and what is not posted yet. Invariants:
//! - the device takes requests in the order in which they were posted and completes them in that order, so that the completion of one tells of
//!   all before it: of several requests only the last has a completion;
//! - memory that a request names is held here from queueing to completion, or until the queue pair is gone, whoever gives up meanwhile;
//! - at most [`TRANSFERS_MAX`] transfers are posted; the others wait, in order, and a message waits for all to the peer that are queued when it is
//!   posted, so that bytes are in the peer's memory before it is told of them. It waits for no others: as long as bytes are fetched, there
//!   are always more of those.
//!
//! It trusts its caller with the peer's places: a wrong one ends the connection.

#![expect(unsafe_code, reason = "memory that a device reads and writes")]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use super::RdmaError;
use super::memory::{Memory, Reach, Registration, RemotePlace};
use super::queue_pair::{CHAIN_MAX, QueuePair, Request, Verb};
use super::sys::ibv_sge;
use crate::buf::{Buf, BufMut};

/// Transfers that are posted at a time.
pub(super) const TRANSFERS_MAX: usize = 64;
/// One of so many transfers to the peer has a completion of its own, when no message follows that has.
const UNSIGNALED_MAX: usize = TRANSFERS_MAX / 4;
/// One of so many messages has a completion of its own, when nothing before it holds a payload's memory: a slot can wait.
const QUIET_MAX: usize = 8;

/// Bytes of a peer's memory, and where in a buffer they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub at: usize,
    pub size_bytes: usize,
    pub from: RemotePlace,
}

/// What a posted request was for.
#[derive(Debug)]
pub(super) enum Posted {
    Message { slot: usize },
    Grant,
    Transfer { batch: usize },
}

/// Transfers that end together, and the memory that they are from or to.
#[derive(Debug)]
struct Batch {
    /// Before the memory that it is of.
    _registration: Option<Registration>,
    memory: Held,
    left: usize,
    /// Somebody wants the memory back.
    wanted: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Held {
    Target(BufMut),
    Source { _bytes: Buf },
}

/// A transfer that is not posted yet.
#[derive(Debug)]
struct Queued {
    batch: usize,
    verb: Verb,
    memory: ibv_sge,
    /// The last one of its batch, and somebody waits for that.
    awaited: bool,
}

/// How a batch stands.
pub(super) enum Progress {
    Done(BufMut),
    UnderWay,
}

#[derive(Debug, Default)]
pub(super) struct SendQueue {
    posted: VecDeque<Posted>,
    /// The number of the first one of `posted`.
    first: u64,
    queued: VecDeque<Queued>,
    /// Transfers that ever were queued, and posted.
    queued_count: u64,
    posted_count: u64,
    /// Of those that were queued, up to the last one to the peer.
    put_count: u64,
    /// Transfers in `posted`.
    under_way: usize,
    /// Transfers after the last request that has a completion of its own, and messages.
    unsignaled: usize,
    quiet: usize,
    batches: Vec<Option<Batch>>,
    free: Vec<usize>,
    woken: Vec<Waker>,
}

impl SendQueue {
    /// Queues reads of the peer's memory into a buffer. The number names them from then on.
    pub fn fetch(
        &mut self,
        memory: &Arc<Memory>,
        mut into: BufMut,
        parts: &[Part],
    ) -> Result<usize, RdmaError> {
        let (entry, registration) = register(memory, &mut into)?;
        let left = parts.len();
        let batch = Batch {
            _registration: registration,
            memory: Held::Target(into),
            left,
            wanted: true,
            waker: None,
        };
        let number = self.add(batch);
        for (place, part) in parts.iter().enumerate() {
            let memory = within(entry, part.at, part.size_bytes);
            let awaited = place + 1 == left;
            self.queue(Queued { batch: number, verb: Verb::Read(part.from), memory, awaited });
        }
        Ok(number)
    }

    /// Queues a write to the peer's memory.
    pub fn put(&mut self, memory: &Arc<Memory>, bytes: Buf, to: RemotePlace) -> Result<(), RdmaError> {
        let (entry, registration) = match memory.entry(&bytes) {
            Some(entry) => (entry, None),
            None => {
                let base = NonNull::from(&bytes[..]).cast();
                // SAFETY: the buffer is held in the batch until the device has done with it, and nobody writes it; the registration goes first.
                let own = unsafe { Registration::new(memory.device(), base, bytes.len(), Reach::Own) }?;
                (own.entry(0, bytes.len()), Some(own))
            }
        };
        let batch = Batch {
            _registration: registration,
            memory: Held::Source { _bytes: bytes },
            left: 1,
            wanted: false,
            waker: None,
        };
        let number = self.add(batch);
        self.queue(Queued { batch: number, verb: Verb::Write(to), memory: entry, awaited: false });
        Ok(())
    }

    fn add(&mut self, batch: Batch) -> usize {
        match self.free.pop() {
            Some(number) => {
                self.batches[number] = Some(batch);
                number
            }
            None => {
                self.batches.push(Some(batch));
                self.batches.len() - 1
            }
        }
    }

    fn queue(&mut self, queued: Queued) {
        self.queued_count += 1;
        if matches!(queued.verb, Verb::Write(_)) {
            self.put_count = self.queued_count;
        }
        self.queued.push_back(queued);
    }

    /// Whether all that was put is posted, or will be with the next message.
    pub fn takes_message(&self) -> bool {
        let room = (TRANSFERS_MAX - self.under_way).min(CHAIN_MAX - 1);
        self.posted_count + (self.queued.len().min(room) as u64) >= self.put_count
    }

    pub fn waiting(&self) -> usize {
        self.queued.len()
    }

    pub fn under_way(&self) -> usize {
        self.under_way + self.queued.len()
    }

    /// Posts what waits, as far as there is room, and behind it a message or a grant, if there is one.
    ///
    /// # Safety
    /// The message's memory is as [`QueuePair::post`] needs it.
    pub unsafe fn post(
        &mut self,
        pair: &QueuePair,
        message: Option<(Posted, Verb, Option<ibv_sge>)>,
    ) -> Result<(), RdmaError> {
        let mut message = message;
        loop {
            let mut chain = SmallVec::<[Request; CHAIN_MAX]>::new();
            while chain.len() < CHAIN_MAX - 1
                && self.under_way < TRANSFERS_MAX
                && let Some(queued) = self.queued.pop_front()
            {
                let request = self.begin(&queued);
                chain.push(request);
            }
            let more = !self.queued.is_empty() && self.under_way < TRANSFERS_MAX;
            if !more && let Some((posted, verb, memory)) = message.take() {
                let signaled = self.is_signaled(&posted);
                chain.push(Request { id: self.number(), verb, memory, signaled });
                self.posted.push_back(posted);
            }
            if chain.is_empty() {
                return Ok(());
            }
            // SAFETY: batches hold the memory of transfers until completion, and the caller answers for the message.
            unsafe { pair.post(&chain) }?;
        }
    }

    /// Whether a message that is posted now has a completion of its own. Grants have, for there are few of them at a time.
    fn is_signaled(&mut self, posted: &Posted) -> bool {
        let waits = matches!(posted, Posted::Message { .. }) && self.unsignaled == 0;
        let signaled = !waits || self.quiet + 1 >= QUIET_MAX;
        (self.unsignaled, self.quiet) = (0, if signaled { 0 } else { self.quiet + 1 });
        signaled
    }

    /// Whether messages were posted whose end no completion will tell of before another request is posted.
    pub fn is_quiet(&self) -> bool {
        self.quiet > 0
    }

    fn begin(&mut self, queued: &Queued) -> Request {
        let id = self.number();
        let signaled = queued.awaited || self.unsignaled + 1 >= UNSIGNALED_MAX;
        self.unsignaled = if signaled { 0 } else { self.unsignaled + 1 };
        self.quiet = if signaled { 0 } else { self.quiet };
        self.posted.push_back(Posted::Transfer { batch: queued.batch });
        self.posted_count += 1;
        self.under_way += 1;
        Request { id, verb: queued.verb, memory: Some(queued.memory), signaled }
    }

    /// Of the next request.
    fn number(&self) -> u64 {
        self.first + self.posted.len() as u64
    }

    /// Takes a completion: that of this request and of all before it.
    pub fn complete(&mut self, number: u64, mut ended: impl FnMut(Posted)) {
        while self.first <= number
            && let Some(posted) = self.posted.pop_front()
        {
            self.first += 1;
            match posted {
                Posted::Transfer { batch } => {
                    self.under_way -= 1;
                    self.advance(batch);
                }
                Posted::Message { .. } | Posted::Grant => ended(posted),
            }
        }
    }

    fn advance(&mut self, number: usize) {
        let Some(batch) = self.batches.get_mut(number).and_then(Option::as_mut) else { return };
        batch.left -= 1;
        if batch.left > 0 {
            return;
        }
        if batch.wanted {
            self.woken.extend(batch.waker.take());
        } else {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: usize) -> Option<Batch> {
        let batch = self.batches.get_mut(number)?.take()?;
        self.free.push(number);
        Some(batch)
    }

    /// Takes a fetch's memory when all of it came; else whoever asks is woken then.
    pub fn take(&mut self, number: usize, waker: &Waker) -> Progress {
        match self.batches.get_mut(number) {
            Some(Some(batch)) if batch.left > 0 => {
                batch.waker = Some(waker.clone());
                Progress::UnderWay
            }
            Some(Some(_)) => match self.remove(number).map(|batch| batch.memory) {
                Some(Held::Target(memory)) => Progress::Done(memory),
                Some(Held::Source { .. }) | None => Progress::Done(BufMut::default()),
            },
            Some(None) | None => Progress::Done(BufMut::default()),
        }
    }

    /// Nobody wants a fetch's memory any more.
    pub fn abandon(&mut self, number: usize) {
        let Some(batch) = self.batches.get_mut(number).and_then(Option::as_mut) else { return };
        if batch.left > 0 {
            (batch.wanted, batch.waker) = (false, None);
        } else {
            self.remove(number);
        }
    }

    /// Those who have news; `failed`: everybody.
    pub fn woken(&mut self, failed: bool) -> Vec<Waker> {
        if failed {
            let waiting = self.batches.iter_mut().flatten().filter_map(|batch| batch.waker.take());
            self.woken.extend(waiting);
        }
        std::mem::take(&mut self.woken)
    }
}

/// What a request says of the whole of a buffer that a device is to fill.
fn register(memory: &Arc<Memory>, into: &mut BufMut) -> Result<(ibv_sge, Option<Registration>), RdmaError> {
    if let Some(entry) = memory.entry(into) {
        return Ok((entry, None));
    }
    let base = NonNull::from(&mut into[..]).cast();
    // SAFETY: the buffer has this handle alone, which the batch holds, unused, until the device has done with it; the registration goes first.
    let own = unsafe { Registration::new(memory.device(), base, into.len(), Reach::Own) }?;
    Ok((own.entry(0, into.len()), Some(own)))
}

fn within(entry: ibv_sge, at: usize, size_bytes: usize) -> ibv_sge {
    assert!(at + size_bytes <= entry.length as usize, "within the buffer");
    ibv_sge { addr: entry.addr + at as u64, length: size_bytes as u32, ..entry }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: RemotePlace = RemotePlace { address: 0, key: 0 };

    fn queue(queue: &mut SendQueue, verb: Verb, count: usize) {
        for _ in 0..count {
            let memory = ibv_sge { addr: 0, length: 0, lkey: 0 };
            queue.queue(Queued { batch: 0, verb, memory, awaited: false });
        }
    }

    fn begin(queue: &mut SendQueue, count: usize) {
        for _ in 0..count {
            let queued = queue.queued.pop_front().unwrap();
            queue.begin(&queued);
        }
    }

    /// A message that could not be sent at once waits for what was put meanwhile, too.
    #[test]
    fn a_message_waits_for_all_that_was_put() {
        let mut sends = SendQueue::default();
        queue(&mut sends, Verb::Write(PLACE), 15);
        assert!(sends.takes_message(), "they are posted with it");
        queue(&mut sends, Verb::Write(PLACE), 2);
        begin(&mut sends, 1);
        assert!(!sends.takes_message());
        begin(&mut sends, 1);
        assert!(sends.takes_message());
        begin(&mut sends, 15);
        queue(&mut sends, Verb::Write(PLACE), TRANSFERS_MAX - 17);
        begin(&mut sends, TRANSFERS_MAX - 17);
        queue(&mut sends, Verb::Write(PLACE), 1);
        assert!(!sends.takes_message(), "there is no room for one more");
    }

    /// Fetches that follow one another without end keep nothing from being sent, except for what was put between them.
    #[test]
    fn a_message_waits_for_nothing_that_is_fetched() {
        let mut sends = SendQueue::default();
        queue(&mut sends, Verb::Read(PLACE), 40);
        assert!(sends.takes_message());
        queue(&mut sends, Verb::Write(PLACE), 1);
        assert!(!sends.takes_message());
        queue(&mut sends, Verb::Read(PLACE), 100);
        begin(&mut sends, 26);
        assert!(sends.takes_message());
    }
}
