//! Verbs and nothing else, between two ends in one process: what measurements hold the rest of this module against, and with what tests break
//! its rules.
//!
//! No bytes of a stream, no credits, no queue of transfers: whoever drives a [`Side`] posts a receive for each message to come and takes every
//! completion. Invariants: a side names memory of its own by slots, which live as long as it; its queues are destroyed before them. It
//! does not know what the other end has under way: see [`Side::bytes`].

#![expect(unsafe_code, reason = "slots are shared with a device")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::RdmaError;
use super::device::Device;
use super::memory::{Reach, RemotePlace, Ring};
use super::queue_pair::{Depth, QueuePair, Request, Verb};
use super::sys::ibv_wc;
use crate::session::QueuePairIdentity;

/// Requests of each queue.
const REQUESTS_MAX: u32 = 64;
/// One of so many messages has a completion of its own.
const SIGNALED_EVERY: u64 = 16;

/// One end of a connected pair.
#[derive(Debug)]
pub struct Side {
    /// Before the memory that it uses.
    pair: QueuePair,
    slots: Ring,
    messages: u64,
}

/// What a request is that is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A message came into this slot.
    Received(usize),
    /// A transfer from or to this slot is done.
    Moved(usize),
    /// Messages were sent.
    Sent,
}

const RECEIVE: u64 = 1 << 63;
const MESSAGE: u64 = 1 << 62;

impl Side {
    /// Two ends that reach each other's slots.
    pub fn connected(
        device: &Arc<Device>,
        slots: usize,
        slot_size_bytes: usize,
    ) -> Result<[Side; 2], RdmaError> {
        let side = || Side::alone(device, slots, slot_size_bytes);
        let sides = [side()?, side()?];
        sides[0].connect(&sides[1].identity())?;
        sides[1].connect(&sides[0].identity())?;
        Ok(sides)
    }

    /// An end that is connected to nobody.
    pub fn alone(device: &Arc<Device>, slots: usize, slot_size_bytes: usize) -> Result<Side, RdmaError> {
        let depth = Depth { send: REQUESTS_MAX, receive: REQUESTS_MAX };
        let pair = QueuePair::new(device, depth, Reach::Peer)?;
        Ok(Side { pair, slots: Ring::new(device, slots, slot_size_bytes, Reach::Peer)?, messages: 0 })
    }

    /// What the other end has to know of it: it takes no messages of a stream.
    pub fn identity(&self) -> QueuePairIdentity {
        self.pair.identity(0)
    }

    pub fn connect(&self, peer: &QueuePairIdentity) -> Result<(), RdmaError> {
        self.pair.connect(peer)
    }

    /// What the other end names a slot by.
    pub fn place(&self, slot: usize) -> RemotePlace {
        self.slots.place(slot)
    }

    /// Takes a message into a slot when it comes.
    pub fn receive(&mut self, slot: usize) -> Result<(), RdmaError> {
        let into = self.slots.entry(slot, self.slots.slot_size_bytes());
        // SAFETY: the slot is looked at through `bytes` alone, whose callers promise that nothing is under way; the slots outlive the queue pair.
        unsafe { self.pair.post_receive(RECEIVE | slot as u64, into) }
    }

    /// Sends the beginning of a slot.
    pub fn send(&mut self, slot: usize, size_bytes: usize) -> Result<(), RdmaError> {
        self.messages += 1;
        let signaled = self.messages.is_multiple_of(SIGNALED_EVERY);
        self.post(MESSAGE, Verb::Send { immediate: 0 }, (slot, size_bytes), signaled)
    }

    /// Reads from the other end's memory into a slot.
    pub fn read(&mut self, slot: usize, size_bytes: usize, from: RemotePlace) -> Result<(), RdmaError> {
        self.post(slot as u64, Verb::Read(from), (slot, size_bytes), true)
    }

    /// Writes a slot to the other end's memory.
    pub fn write(&mut self, slot: usize, size_bytes: usize, to: RemotePlace) -> Result<(), RdmaError> {
        self.post(slot as u64, Verb::Write(to), (slot, size_bytes), true)
    }

    /// As [`Side::write`]; the other end learns of it as it would of a message.
    pub fn write_with_immediate(
        &mut self,
        slot: usize,
        size_bytes: usize,
        to: RemotePlace,
    ) -> Result<(), RdmaError> {
        self.post(slot as u64, Verb::WriteWithImmediate(to), (slot, size_bytes), true)
    }

    fn post(
        &mut self,
        id: u64,
        verb: Verb,
        (slot, size_bytes): (usize, usize),
        signaled: bool,
    ) -> Result<(), RdmaError> {
        // To some devices no bytes mean 2 GiB.
        let memory = (size_bytes > 0).then(|| self.slots.entry(slot, size_bytes));
        // SAFETY: as in `receive`.
        unsafe { self.pair.post(&[Request { id, verb, memory, signaled }]) }
    }

    /// Takes the completions that are there.
    pub fn take(&mut self, mut ended: impl FnMut(Ended)) -> Result<usize, RdmaError> {
        let mut space = [ibv_wc::default(); 16];
        let mut count = 0;
        for completion in self.pair.poll(&mut space)? {
            count += 1;
            completion.result.map_err(|_| RdmaError::Broken)?;
            let slot = (completion.id & !(RECEIVE | MESSAGE)) as usize;
            ended(match completion.id {
                id if id & RECEIVE != 0 => Ended::Received(slot),
                id if id & MESSAGE != 0 => Ended::Sent,
                _ => Ended::Moved(slot),
            });
        }
        Ok(count)
    }

    /// Asks for an event with the next completion.
    pub fn arm(&self) -> Result<(), RdmaError> {
        self.pair.arm()
    }

    /// Takes an event, if there is one.
    pub fn take_event(&self) -> Result<bool, RdmaError> {
        self.pair.take_event()
    }

    /// Lets [`Side::take_event`] wait for an event.
    pub fn block(&self) -> Result<(), RdmaError> {
        let flags = rustix::fs::fcntl_getfl(&self.pair);
        let set = flags.and_then(|flags| rustix::fs::fcntl_setfl(&self.pair, flags - OFlags::NONBLOCK));
        set.map_err(|errno| RdmaError::System { doing: "set up a completion channel", source: errno.into() })
    }

    /// The bytes of a slot.
    ///
    /// # Safety
    /// Nothing is under way from or to the slot, by this end or the other, while the reference lives.
    pub unsafe fn bytes(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { self.slots.slot_mut(slot) }
    }
}

/// Readable when an event is there.
impl AsFd for Side {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pair.as_fd()
    }
}

impl AsRawFd for Side {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
