//! One connection of the pool: its state, and which calls are on it.
//!
//! Request ids are the places of a small table, so that an id is free again exactly when its slot is:
//! after the last frame of the reply came and the last frame of the request went (MKV-MSG-1).

use std::collections::VecDeque;

use super::call::CallId;

/// Names one life of one connection: a later one in the same place has another epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(super) slot: u16,
    pub(super) epoch: u32,
}

impl ConnectionId {
    /// The connection's place in the pool.
    pub fn slot(self) -> u16 {
        self.slot
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected, and nobody asked for it.
    Idle,
    /// Being set up.
    Connecting {
        deadline_ms: u64,
    },
    Ready,
    /// Not connected, and not to be tried before.
    Backoff {
        until_ms: u64,
    },
}

/// A request id that is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outstanding {
    pub call: CallId,
    pub frames_sent: usize,
    pub frames_total: usize,
    /// The last frame of the reply came.
    pub replied: bool,
    pub assigned_at_ms: u64,
}

impl Outstanding {
    pub fn sent_whole(&self) -> bool {
        self.frames_sent == self.frames_total
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub epoch: u32,
    pub state: State,
    /// Failures in a row.
    pub failures: u32,
    /// Requests allowed on it now.
    pub window: usize,
    pub requests: Vec<Option<Outstanding>>,
    free: Vec<u32>,
    /// Requests with frames to send; those in front take turns.
    pub sending: VecDeque<u32>,
    pub turn: usize,
    pub payload_outstanding_bytes: u64,
    pub last_received_ms: u64,
    /// The client's shared memory is registered on it.
    pub shares: bool,
}

impl Connection {
    pub fn new() -> Self {
        Self {
            epoch: 0,
            state: State::Idle,
            failures: 0,
            window: 0,
            requests: Vec::new(),
            free: Vec::new(),
            sending: VecDeque::new(),
            turn: 0,
            payload_outstanding_bytes: 0,
            last_received_ms: 0,
            shares: false,
        }
    }

    /// Not connected; a later life of it has another epoch.
    pub fn reset(&mut self) {
        *self = Self { epoch: self.epoch.wrapping_add(1), ..Self::new() };
    }

    /// Ready for requests, `window` at a time.
    pub fn open(&mut self, now_ms: u64, window: usize, shares: bool) {
        self.state = State::Ready;
        self.shares = shares;
        self.window = window;
        self.last_received_ms = now_ms;
        self.requests.clear();
        self.requests.resize(window, None);
        self.free.clear();
        self.free.extend((0..window as u32).rev());
        self.sending.clear();
        self.turn = 0;
        self.payload_outstanding_bytes = 0;
    }

    pub fn has_room(&self) -> bool {
        self.state == State::Ready && !self.free.is_empty()
    }

    /// Ready for messages, for those that name shared memory if that is asked for.
    pub fn suits(&self, names_memory: bool) -> bool {
        self.state == State::Ready && (self.shares || !names_memory)
    }

    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub fn in_flight(&self) -> usize {
        self.window - self.free.len()
    }

    /// Takes an id for a message of so many frames.
    //= MKV-MSG-1
    pub fn take(&mut self, call: CallId, frames_total: usize, now_ms: u64) -> Option<u32> {
        let id = self.free.pop()?;
        let taken =
            Outstanding { call, frames_sent: 0, frames_total, replied: false, assigned_at_ms: now_ms };
        self.requests[id as usize] = Some(taken);
        self.sending.push_back(id);
        Some(id)
    }

    pub fn outstanding(&mut self, id: u32) -> Option<&mut Outstanding> {
        self.requests.get_mut(id as usize)?.as_mut()
    }

    /// Gives an id back.
    pub fn release(&mut self, id: u32) {
        debug_assert!(self.requests[id as usize].is_some(), "an id is released once");
        self.requests[id as usize] = None;
        self.free.push(id);
    }

    /// Whose turn it is to send a frame: the first `interleaved_max` messages alternate, so that a short
    /// one is not held up by a long one before it.
    pub fn next_sender(&mut self, interleaved_max: usize) -> Option<u32> {
        let active = self.sending.len().min(interleaved_max);
        if active == 0 {
            return None;
        }
        self.turn %= active;
        Some(self.sending[self.turn])
    }

    /// The message in turn has sent a frame, its last one or not.
    pub fn sent(&mut self, last: bool) {
        if last {
            self.sending.remove(self.turn);
        } else {
            self.turn += 1;
        }
    }

    /// Takes back a message of which nothing was sent.
    pub fn withdraw(&mut self, id: u32) {
        self.sending.retain(|&sending| sending != id);
        self.release(id);
    }
}
