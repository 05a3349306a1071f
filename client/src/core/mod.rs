//! The client's protocol logic for one server, without clock, socket, thread or randomness of its own.
//!
//! A [`Core`] is told the time with every event and answers with what to do: connections to open and close
//! ([`Command`]), frames to send ([`Core::next_frame`]), calls whose owners have news
//! ([`Core::progress`]), and when to be called again ([`Core::deadline_ms`]). The same core runs under
//! sockets and in a simulation in virtual time; a run is repeated by its seed.
//!
//! A call lives through `queued -> outstanding on a connection -> finished`; a lost connection or a passing
//! status (`busy`, `outOfSpace`) sends it back to the queue, as often as its deadline, its operation's
//! idempotence and [`Settings::call_retries_max`] allow.
//!
//! Invariants: a request id is in use exactly while its message is not sent whole or its reply not whole; a call
//! is in exactly one place; every wait has a deadline.
//!
//! Not checked here: MACs, tags and sequence numbers (the transport does, before a frame gets here), and what a
//! reply says (its owner does, see `operation`), except that it answers the operation that was asked.

mod backoff;
mod call;
mod calls;
mod connection;
mod engine;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use memkv_transport::buf::Buf;
use memkv_transport::planted::{self, Bug};
use memkv_transport::receiver::Frame;
use memkv_transport::stream::Beside;
use memkv_wire::control::ControlBuf;

pub use self::call::{CallId, CallOptions, Message, Progress, Reply, RequestFrame};
pub use self::calls::{Calls, Pending};
pub use self::connection::{ConnectionId, Naming, Sharing};
pub use self::settings::{CONNECTIONS_MAX, Settings};

use self::backoff::Jitter;
use self::call::{Call, Class, Place};
use self::connection::{Connection, State};
use crate::error::{ConnectionError, Error, PeerMisbehaved};

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Set up this connection, then call [`Core::connected`] or [`Core::closed`].
    Connect(ConnectionId),
    /// Drop this connection. The core has forgotten it; nothing is to be reported.
    Close(ConnectionId),
    /// [`Core::next_frame`] of this connection has something.
    Send(ConnectionId),
    /// [`Core::progress`] of this call has something.
    Wake(CallId),
}

/// A frame to send, beside its control message and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// The id in the frame's header.
    pub request_id: u32,
    /// The last frame of its message.
    pub last: bool,
}

/// What a core counted since it was made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Messages that were answered.
    pub round_trips: u64,
    /// Connections set up.
    pub connections: u64,
    /// Connections lost after they were set up: the server may have ended, and forgotten its leases.
    pub connections_lost: u64,
    /// Calls sent again after a connection was lost or a passing status.
    pub retries: u64,
    /// Bytes of frames sent, with headers and tags.
    pub sent_bytes: u64,
    /// Bytes of frames received, with headers and tags.
    pub received_bytes: u64,
}

/// The client's side of all connections to one server.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    jitter: Jitter,
    connections: Vec<Connection>,
    /// See [`Core::take_exposed`].
    exposed: Vec<(ConnectionId, Buf)>,
    calls: Vec<Call>,
    free_calls: Vec<u32>,
    queued: [VecDeque<CallId>; 2],
    spare: Vec<Message>,
    /// Empty.
    spare_replies: Vec<Reply>,
    commands: VecDeque<Command>,
    timer_ms: u64,
    last_error: Option<ConnectionError>,
    counters: Counters,
    closed: bool,
}

/// Messages kept for their memory.
const SPARE_MESSAGES_MAX: usize = 64;
/// Control messages of replies kept for their memory, and how large each may be.
const SPARE_REPLIES_MAX: usize = 256;
const SPARE_REPLY_SIZE_BYTES_MAX: usize = 64 * 1024;

impl Core {
    /// A core with no connection and no call. `seed` is for the jitter of delays.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let settings = settings.bounded();
        Self {
            connections: (0..settings.connections).map(|_| Connection::new()).collect(),
            exposed: Vec::new(),
            settings,
            jitter: Jitter::new(seed),
            calls: Vec::new(),
            free_calls: Vec::new(),
            queued: [VecDeque::new(), VecDeque::new()],
            spare: Vec::new(),
            spare_replies: Vec::new(),
            commands: VecDeque::new(),
            timer_ms: u64::MAX,
            last_error: None,
            counters: Counters::default(),
            closed: false,
        }
    }

    // ------------------------------------------------------------------------------------------ calls

    /// An empty message to fill and submit.
    pub fn message(&mut self) -> Message {
        let mut message = self.spare.pop().unwrap_or_else(Message::empty);
        message.begin(self.naming());
        message
    }

    /// Whether a message that is begun now may name the client's memory.
    pub fn shares(&self) -> bool {
        self.naming() != Naming::No
    }

    /// What a message that is begun now may say of the client's memory: enough for every connection that is ready.
    pub fn naming(&self) -> Naming {
        let ready = self.connections.iter().filter(|connection| connection.is_ready());
        ready.fold(Naming::No, |naming, connection| match (naming, connection.sharing.naming()) {
            (naming, Naming::No) => naming,
            (Naming::Signed, _) | (_, Naming::Signed) => Naming::Signed,
            (_, Naming::Places) => Naming::Places,
        })
    }

    /// Starts a call.
    pub fn submit(&mut self, now_ms: u64, message: Message, options: CallOptions) -> CallId {
        debug_assert!(!message.frames().is_empty(), "a message has a frame");
        let id = self.new_call();
        let call = &mut self.calls[id.slot as usize];
        call.class = Class::of(&message);
        call.message = message;
        call.options = options;
        call.deadline_ms = now_ms.saturating_add(options.timeout_ms);
        let deadline_ms = call.deadline_ms;
        if self.closed {
            self.finish(id, Err(Error::Closed));
            return id;
        }
        if !planted::is(Bug::DeadlineNotArmed) {
            self.arm(deadline_ms);
        }
        self.queue(id);
        self.pump(now_ms);
        id
    }

    /// What happened to a call since the last time; `None` if nothing did. After [`Progress::Done`] or
    /// [`Progress::Failed`] the id means nothing any more.
    pub fn progress(&mut self, id: CallId) -> Option<Progress> {
        let call = self.call_mut(id)?;
        if std::mem::take(&mut call.restarted) {
            return Some(Progress::Restarted);
        }
        if let Some(frame) = call.inbox.pop_front() {
            return Some(Progress::Frame(frame));
        }
        match std::mem::replace(&mut call.place, Place::Free) {
            Place::Finished(result) => {
                self.free_call(id);
                Some(result.map_or_else(Progress::Failed, |()| Progress::Done))
            }
            other => {
                call.place = other;
                None
            }
        }
    }

    /// Whether a call was sent again after an attempt that the server may have carried out: what it answers may be the
    /// consequence of that.
    pub fn was_repeated(&mut self, id: CallId) -> bool {
        self.call_mut(id).is_some_and(|call| call.repeated)
    }

    /// Takes a frame back that its owner is done with, for its memory.
    pub fn give_back(&mut self, mut reply: Reply) {
        reply.clear();
        if self.spare_replies.len() < SPARE_REPLIES_MAX
            && reply.control.capacity() <= SPARE_REPLY_SIZE_BYTES_MAX
        {
            self.spare_replies.push(reply);
        }
    }

    /// The owner gives up. What the call would have changed may or may not happen.
    pub fn cancel(&mut self, now_ms: u64, id: CallId) {
        let Some(call) = self.call_mut(id) else { return };
        match call.place {
            Place::Outstanding { connection, request_id } => {
                self.abandon(now_ms, id, usize::from(connection), request_id);
            }
            Place::Free | Place::Queued | Place::Delayed { .. } | Place::Finished(_) => self.free_call(id),
        }
    }

    /// The owner found a reply to break the protocol, and wants no more of it. The connection it came on is closed,
    /// if it is known still.
    pub fn accuse(&mut self, now_ms: u64, id: CallId, error: PeerMisbehaved) {
        let Some(call) = self.call_mut(id) else { return };
        if let Place::Outstanding { connection, .. } = call.place {
            call.abandoned = true;
            let slot = usize::from(connection);
            self.commands.push_back(Command::Close(self.connection_id(slot)));
            self.lose(now_ms, slot, ConnectionError::Peer(error));
            self.pump(now_ms);
        } else {
            self.cancel(now_ms, id);
        }
    }

    /// Ends every call and connection; calls submitted later fail at once.
    pub fn close(&mut self) {
        self.closed = true;
        for slot in 0..self.connections.len() {
            self.expose(slot);
            if !matches!(self.connections[slot].state, State::Idle | State::Backoff { .. }) {
                let id = self.connection_id(slot);
                self.commands.push_back(Command::Close(id));
            }
            self.connections[slot].reset();
        }
        for slot in 0..self.calls.len() as u32 {
            let call = &self.calls[slot as usize];
            let id = CallId { slot, generation: call.generation };
            match call.place {
                Place::Free | Place::Finished(_) => {}
                Place::Outstanding { .. } if call.abandoned => self.free_call(id),
                Place::Outstanding { .. } | Place::Queued | Place::Delayed { .. } => {
                    self.finish(id, Err(Error::Closed));
                }
            }
        }
        self.queued.iter_mut().for_each(VecDeque::clear);
    }

    // ------------------------------------------------------------------------------------ connections

    /// A connection is set up; the server takes so many requests at a time on it.
    pub fn connected(&mut self, now_ms: u64, id: ConnectionId, requests_in_flight_max: u32) {
        self.connected_sharing(now_ms, id, requests_in_flight_max, Sharing::No);
    }

    /// As [`Core::connected`], with the client's memory registered on it.
    pub fn connected_sharing(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        requests_in_flight_max: u32,
        sharing: Sharing,
    ) {
        let Some(connection) = self.connection_mut(id) else { return };
        if !matches!(connection.state, State::Connecting { .. }) {
            return;
        }
        let theirs = requests_in_flight_max.max(1) as usize;
        let window = theirs.min(usize::from(self.settings.requests_in_flight_max));
        self.connections[usize::from(id.slot)].open(now_ms, window, sharing);
        self.counters.connections += 1;
        self.pump(now_ms);
    }

    /// A connection ended, or could not be set up.
    pub fn closed(&mut self, now_ms: u64, id: ConnectionId, error: ConnectionError) {
        if self.connection_mut(id).is_some() {
            self.lose(now_ms, usize::from(id.slot), error);
            self.pump(now_ms);
        }
    }

    /// A frame of so many bytes came. If it breaks the protocol, the connection is closed, with a command for the
    /// driver.
    pub fn received(&mut self, now_ms: u64, id: ConnectionId, frame: Frame<'_>, size_bytes: u64) {
        if self.connection_mut(id).is_none() {
            return;
        }
        self.counters.received_bytes += size_bytes;
        if let Err(error) = self.deliver(now_ms, usize::from(id.slot), frame) {
            self.commands.push_back(Command::Close(id));
            self.lose(now_ms, usize::from(id.slot), ConnectionError::Peer(error));
        }
        self.pump(now_ms);
    }

    /// The next frame to send on a connection: its control message is copied to `control`, its payload's parts are
    /// appended to `payload` (shared, not copied).
    pub fn next_frame(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        control: &mut ControlBuf,
        payload: &mut Vec<Buf>,
    ) -> Option<Outgoing> {
        self.next_frame_beside(now_ms, id, control, payload, &mut Vec::new())
    }

    /// As [`Core::next_frame`]; what goes beside the frame, and whose MACs are to be made, is appended to `beside`.
    pub fn next_frame_beside(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        control: &mut ControlBuf,
        payload: &mut Vec<Buf>,
        beside: &mut Vec<Beside>,
    ) -> Option<Outgoing> {
        let interleaved_max = usize::from(self.settings.requests_interleaved_max);
        let connection = self.connection_mut(id)?;
        let request_id = connection.next_sender(interleaved_max)?;
        let outstanding = connection.outstanding(request_id)?;
        let index = outstanding.frames_sent;
        outstanding.frames_sent += 1;
        let last = outstanding.sent_whole();
        let (call, replied) = (outstanding.call, outstanding.replied);
        connection.sent(last);
        let one_sided = matches!(connection.sharing, Sharing::OneSided(_));
        let frame = &self.calls[call.slot as usize].message.frames()[index];
        control.clone_from(&frame.control);
        payload.extend(frame.payload.iter().cloned());
        // Elsewhere nobody looks at the MACs.
        if one_sided {
            beside.extend(frame.beside.iter().cloned());
        }
        if last && replied {
            self.complete(now_ms, call, usize::from(id.slot), request_id);
        }
        Some(Outgoing { request_id, last })
    }

    /// Whether all that a connection is waited on for is the answer to one small request, which is about to come.
    pub fn expects_soon(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection_mut(id).filter(|connection| connection.in_flight() == 1)
        else {
            return false;
        };
        let Some(&asked) = connection.requests.iter().flatten().next() else { return false };
        asked.sent_whole() && self.calls[asked.call.slot as usize].class == Class::Control
    }

    /// Counts a frame that went out.
    pub fn count_sent(&mut self, size_bytes: u64) {
        self.counters.sent_bytes += size_bytes;
    }

    /// Memory that the server may still write to, for it was named in requests that a lost connection left unanswered. It
    /// must stay taken until the server's side of that connection is closed.
    pub fn take_exposed(&mut self, id: ConnectionId) -> Vec<Buf> {
        self.exposed.extract_if(.., |(owner, _)| *owner == id).map(|(_, memory)| memory).collect()
    }

    // ------------------------------------------------------------------------------- time and commands

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        if now_ms < self.timer_ms {
            return;
        }
        for slot in 0..self.calls.len() {
            let call = &self.calls[slot];
            let id = CallId { slot: slot as u32, generation: call.generation };
            match call.place {
                Place::Free | Place::Finished(_) => {}
                _ if call.abandoned => {}
                _ if call.deadline_ms <= now_ms => self.expire(now_ms, id),
                Place::Delayed { until_ms } if until_ms <= now_ms => self.queue(id),
                Place::Queued | Place::Delayed { .. } | Place::Outstanding { .. } => {}
            }
        }
        for slot in 0..self.connections.len() {
            match self.connections[slot].state {
                State::Connecting { deadline_ms } if deadline_ms <= now_ms => {
                    self.commands.push_back(Command::Close(self.connection_id(slot)));
                    self.lose(now_ms, slot, ConnectionError::SetupTimeout);
                }
                State::Backoff { until_ms } if until_ms <= now_ms => {
                    self.connections[slot].state = State::Idle;
                }
                State::Connecting { .. } | State::Backoff { .. } | State::Idle | State::Ready => {}
            }
        }
        self.pump(now_ms);
        self.timer_ms = self.earliest_ms();
    }

    /// When [`Core::tick`] has something to do at the earliest; `u64::MAX` if never.
    pub fn deadline_ms(&self) -> u64 {
        self.timer_ms
    }

    /// What to do next; ask until there is nothing.
    pub fn command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Calls that are not over, or whose owners have not asked what became of them, and those given up whose requests
    /// still are on a connection.
    pub fn calls_open(&self) -> usize {
        self.calls.len() - self.free_calls.len()
    }

    /// The places of the pool.
    pub fn connections_max(&self) -> u16 {
        self.settings.connections
    }

    /// Whether any connection is ready.
    pub fn is_connected(&self) -> bool {
        self.connections.iter().any(Connection::is_ready)
    }
}
