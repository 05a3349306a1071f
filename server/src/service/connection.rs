//! What the service knows of one connection: its client, its open requests, and how much it holds for it.

use std::collections::{HashMap, VecDeque};

use memkv_wire::Status;
use xxhash_rust::xxh3::xxh3_64;

use super::slab::Name;
use super::{Output, Service};
use crate::store::ClientId;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConnectionId(pub(super) Name);

/// Why the server ends a connection. Each is the peer's doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CloseReason {
    #[error("a request id was used again before its reply had ended")]
    RequestIdReused,
    #[error("more requests in flight than allowed")]
    TooManyRequests,
    #[error("a message was begun and no more of it came for too long")]
    MessageStalled,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub client: ClientId,
    pub open: HashMap<u32, Name>,
    /// Keys and references kept for open requests.
    pub kept_bytes: usize,
    /// On their way to the devices.
    pub writing_bytes: usize,
    /// Being read, or read and not yet sent, or at their landing and not yet told of.
    pub window_bytes: usize,
    /// Control messages not yet sent.
    pub unsent_bytes: usize,
    /// Manifest bodies in the making.
    pub body_bytes: usize,
    /// Requests that have more to read, in turn.
    pub readers: VecDeque<Name>,
    pub paused: bool,
    /// It had to wait, since the unended messages were looked at.
    pub waited: bool,
    /// What became of the memory that the next Ping names.
    pub registration: Option<Status>,
}

impl Connection {
    pub fn new(client: ClientId) -> Connection {
        Connection {
            client,
            open: HashMap::new(),
            kept_bytes: 0,
            writing_bytes: 0,
            window_bytes: 0,
            unsent_bytes: 0,
            body_bytes: 0,
            readers: VecDeque::new(),
            paused: false,
            waited: false,
            registration: None,
        }
    }
}

/// Leases are counted by client, whatever connection it uses. The id is random, so 64 bits of it are enough.
pub(super) fn client(client_id: &[u8; 16]) -> ClientId {
    ClientId(xxh3_64(client_id))
}

impl Service {
    /// Says what became of the memory that the next frame of this connection, a Ping, registers. Whoever drives the
    /// service holds it; without a word from there no memory can be registered.
    pub fn registered(&mut self, id: ConnectionId, status: Status) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.registration = Some(status);
        }
    }

    pub(super) fn take_registration(&mut self, name: Name) -> Status {
        let id = self.requests.get(name).map(|open| open.connection);
        let connection = id.and_then(|id| self.connections.get_mut(id.0));
        connection.and_then(|connection| connection.registration.take()).unwrap_or(Status::Unsupported)
    }

    /// So many reply frames, of these sizes together, were sent, or will never be.
    pub fn sent(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        frames: u64,
        control_bytes: usize,
        payload_bytes: usize,
    ) {
        self.now_ms = self.now_ms.max(now_ms);
        self.window_bytes_total -= payload_bytes;
        self.counters.frames_sent += frames;
        self.counters.bytes_sent += (control_bytes + payload_bytes) as u64;
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.unsent_bytes -= control_bytes;
            connection.window_bytes -= payload_bytes;
        }
        self.pump_reads(id);
        self.pause_or_resume(id);
        self.settle_store();
    }

    /// Makes a peer wait that has too much on its way, and lets it go on when it has less.
    pub(super) fn pause_or_resume(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        let limits = &self.limits;
        let too_much = connection.writing_bytes > limits.writing_bytes_max
            || connection.unsent_bytes > limits.unsent_bytes_max;
        if too_much != connection.paused {
            connection.paused = too_much;
            connection.waited = true;
            self.outputs.push_back(if too_much { Output::Pause(id) } else { Output::Resume(id) });
        }
    }
}
