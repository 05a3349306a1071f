//! One connection of the pool: its state, and which calls are on it.
//!
//! Request ids are the places of a small table, so that an id is free again exactly when its slot is:
//! after the last frame of the reply came and the last frame of the request went (MKV-MSG-1).

use std::collections::VecDeque;
use std::sync::Arc;

use memkv_transport::verify::Checker;

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
    /// How the client's memory is registered on it.
    pub sharing: Sharing,
}

/// How a server reaches the client's memory over a connection.
#[derive(Debug, Clone, Default)]
pub enum Sharing {
    /// Not at all.
    #[default]
    No,
    /// It is mapped by the server, on the same host.
    Mapped,
    /// One-sided, by the server's RDMA device; what it brings is checked with this.
    OneSided(Arc<Checker>),
}

/// What a message may say of the client's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Naming {
    /// Nothing.
    #[default]
    No,
    /// Places.
    Places,
    /// Places, and the MACs of the bytes there.
    Signed,
}

impl Sharing {
    /// What a message has to say, at least, that names memory on such a connection.
    pub fn naming(&self) -> Naming {
        match self {
            Sharing::No => Naming::No,
            Sharing::Mapped => Naming::Places,
            Sharing::OneSided(_) => Naming::Signed,
        }
    }
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
            sharing: Sharing::No,
        }
    }

    /// Not connected; a later life of it has another epoch.
    pub fn reset(&mut self) {
        *self = Self { epoch: self.epoch.wrapping_add(1), ..Self::new() };
    }

    /// Ready for requests, `window` at a time.
    pub fn open(&mut self, now_ms: u64, window: usize, sharing: Sharing) {
        self.state = State::Ready;
        self.sharing = sharing;
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

    /// Ready for messages that say this of the client's memory.
    pub fn suits(&self, named: Naming) -> bool {
        let reached = match named {
            Naming::No => true,
            Naming::Places => matches!(self.sharing, Sharing::Mapped),
            Naming::Signed => !matches!(self.sharing, Sharing::No),
        };
        self.state == State::Ready && reached
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
