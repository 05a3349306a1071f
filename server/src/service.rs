//! The server's logic, without a clock, a socket, a thread or a disk.
//!
//! A [`Service`] owns the connections' requests and the store. It takes the time (`now_ms`, monotonic), frames whose
//! MACs held and whose bytes are checksummed ([`payload`]), ends of device commands and of reads; it hands out
//! [`Output`]s: reply frames, work for the devices, and connections to close. One seed can run it in virtual time.
//!
//! How to drive it, under one lock: call one of the inputs, then [`Service::drain`] the outputs; outside the lock,
//! carry them out. A request lives from its first frame to its reply's last one. A reply's last frame never goes out
//! before the request's last frame came in, so that a request id is never ambiguous.
//!
//! Bounds, per connection: requests in flight, bytes of keys and references kept for open requests, bytes of
//! manifest bodies, bytes being written (the peer is not read from meanwhile), bytes read and not yet sent, or landed in
//! shared memory and not yet told of (no more is read from the devices meanwhile). What exceeds a bound is refused with
//! `busy`, or makes the peer wait.
//!
//! Not checked here: MACs, and that the checksums handed in are those of the bytes.

mod audit;
mod batch_write;
mod connection;
mod dispatch;
mod manifests;
pub mod payload;
mod plans;
mod reads;
mod reply;
mod scrub;
mod slab;
mod stats;
#[cfg(test)]
mod tests;
mod unended;
mod values;

use std::collections::VecDeque;

use memkv_transport::buf::Buf;
use memkv_transport::planted::{self, Bug};
use memkv_transport::stream::Outgoing;
use memkv_wire::{Operation, PayloadUse, Request, Status, Undispatched, dispatch, limits};

pub use self::audit::{AuditError, Held};
use self::connection::Connection;
pub use self::connection::{CloseReason, ConnectionId};
pub use self::manifests::{BodyJob, Joined};
use self::payload::PieceBytes;
use self::plans::Plans;
use self::reads::ReadInFlight;
pub use self::reads::{Landing, ReadCommand, ReadError, ReadId, ReadOutcome, ReadPiece};
pub use self::reply::Reply;
use self::slab::{Name, Slab};
pub use self::stats::Counters;
use self::unended::Unended;
use crate::store::{ClientId, Command, CommandId, Done, Event, IoError, Outcome, Store, StoreError, Ticket};

/// What the caller carries out.
#[derive(Debug)]
pub enum Output {
    /// To be sent; then reported with [`Service::sent`].
    Reply(Reply),
    /// To be run; then reported with [`Service::device_done`].
    Device(Command<Buf>),
    /// To be read and verified; then reported with [`Service::read_done`].
    Read(ReadCommand),
    /// To be joined; then reported with [`Service::body_joined`].
    Body(BodyJob),
    /// Nothing more is to be received on this connection until it is resumed.
    Pause(ConnectionId),
    Resume(ConnectionId),
    /// The connection is forgotten already; what was sent before may still be.
    Close {
        connection: ConnectionId,
        reason: CloseReason,
    },
    /// Everything that was acknowledged is durable and nothing is in flight.
    Stopped,
}

/// Bounds that the specification leaves to the server.
#[derive(Clone, Copy, Debug)]
pub struct ServiceLimits {
    /// Requests of one connection in flight.
    pub requests_max: usize,
    /// Keys and references kept for the open requests of one connection.
    pub kept_bytes_max: usize,
    /// Bytes of one connection on their way to the devices, before the peer is made to wait.
    pub writing_bytes_max: usize,
    /// Bytes of one connection read from the devices and not yet sent, or landed and not yet told of.
    pub window_bytes_max: usize,
    /// The same for the whole server; beyond it each connection has one block at a time, of a manifest's body one record.
    pub window_bytes_total_max: usize,
    /// Control bytes of one connection that wait to be sent, before the peer is made to wait.
    pub unsent_bytes_max: usize,
    /// Manifests in the making, bodies and references, on one connection, and on the whole server.
    pub body_bytes_max: usize,
    pub body_bytes_total_max: usize,
    /// How long a message that has not ended may go without a frame, before the connection is closed: once for certain, never twice.
    pub stall_ms_max: u64,
}

impl Default for ServiceLimits {
    fn default() -> ServiceLimits {
        ServiceLimits {
            requests_max: limits::REQUESTS_IN_FLIGHT_MAX as usize,
            kept_bytes_max: 8 << 20,
            writing_bytes_max: 16 << 20,
            window_bytes_max: 8 << 20,
            window_bytes_total_max: 256 << 20,
            unsent_bytes_max: 1 << 20,
            body_bytes_max: 160 << 20,
            body_bytes_total_max: BODY_BYTES_TOTAL_MAX,
            stall_ms_max: STALL_MS_MAX,
        }
    }
}

/// How long a peer may leave others waiting: for the rest of a frame or of a message, or for taking its replies.
pub const STALL_MS_MAX: u64 = 60_000;

/// Manifest bodies in the making hold memory for payloads until their last frame came, so they may never hold all of it.
pub const BODY_BYTES_TOTAL_MAX: usize = 256 << 20;

/// A received frame. Its control message was decoded, its payload cut into pieces by [`payload::split`].
#[derive(Debug)]
pub struct Frame<'a> {
    pub request_id: u32,
    pub last: bool,
    pub request: &'a Request<'a>,
    pub payload_bytes: usize,
    /// `None` when the pieces do not add up to the payload.
    pub pieces: Option<&'a mut Vec<PieceBytes>>,
}

/// See the module's head.
pub struct Service {
    store: Store<Buf>,
    limits: ServiceLimits,
    now_ms: u64,
    started_ms: u64,
    connections: Slab<Connection>,
    requests: Slab<Open>,
    tickets: Slab<Pending>,
    reads: Slab<ReadInFlight>,
    plans: Plans,
    /// Those of the last `Exists`, for their memory.
    lengths: Vec<u64>,
    /// The pieces of the frame at hand.
    given: Vec<PieceBytes>,
    outputs: VecDeque<Output>,
    /// Requests with results that no frame carries yet.
    gathered: Vec<Name>,
    /// Reply frames whose memory is used again.
    spare: Vec<Outgoing>,
    /// Ended reads, for the same.
    spare_readings: Vec<reads::Reading>,
    window_bytes_total: usize,
    body_bytes_total: usize,
    unended: Unended,
    counters: Counters,
    stopping: bool,
}

/// A request that has not been answered to its end.
struct Open {
    connection: ConnectionId,
    request_id: u32,
    opcode: u16,
    operation: Option<Operation>,
    /// A digest of the message's scalar fields; `None` before its first frame was looked at.
    scalars: Option<u128>,
    /// Its last frame is in.
    ended: bool,
    /// A frame of it came since the unended messages were looked at.
    heard: bool,
    /// Store requests and reads that have not ended.
    outstanding: u32,
    /// How it will end, whatever else it carries.
    fault: Option<Status>,
    kept_bytes: usize,
    state: State,
}

/// What an open request has gathered.
enum State {
    /// Nothing: it is answered at once, or by the end of one store request.
    Plain,
    Counted {
        items: usize,
    },
    Delete(values::Deleting),
    Write(values::Writing),
    BatchWrite(batch_write::BatchWriting),
    Read(reads::Reading),
    PutManifest(manifests::Putting),
    DeleteManifest(manifests::Deleting),
}

/// A store request in flight: whose it is and what its end means.
struct Pending {
    request: Option<Name>,
    /// Counted in the connection's bytes being written.
    connection: ConnectionId,
    writing_bytes: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Put,
    Piece,
    Commit,
    CommitAlone,
    ItemPut { item: u32 },
    ItemPiece { item: u32 },
    ItemCommit { item: u32 },
    Delete { place: u32 },
    PutManifest,
    DeleteManifest,
    Stop,
}

/// What a handler gets beside the request: whose reply it is. Replies go out in whatever order they are made.
//= MKV-MSG-2
#[derive(Clone, Copy, Debug)]
pub struct Call {
    name: Name,
    client: ClientId,
}

impl Service {
    pub fn new(store: Store<Buf>, limits: ServiceLimits, now_ms: u64) -> Service {
        Service {
            store,
            limits,
            now_ms,
            started_ms: now_ms,
            connections: Slab::default(),
            requests: Slab::default(),
            tickets: Slab::default(),
            reads: Slab::default(),
            plans: Plans::default(),
            lengths: Vec::new(),
            given: Vec::new(),
            outputs: VecDeque::new(),
            gathered: Vec::new(),
            spare: Vec::new(),
            spare_readings: Vec::new(),
            window_bytes_total: 0,
            body_bytes_total: 0,
            unended: Unended::default(),
            counters: Counters::default(),
            stopping: false,
        }
    }

    /// A peer finished its set-up.
    pub fn connected(&mut self, now_ms: u64, client_id: &[u8; 16]) -> ConnectionId {
        self.now_ms = self.now_ms.max(now_ms);
        self.counters.connections += 1;
        self.counters.connections_total += 1;
        ConnectionId(self.connections.insert(Connection::new(connection::client(client_id))))
    }

    /// A peer is gone. What it had begun leaves nothing visible.
    //= MKV-WR-4
    pub fn disconnected(&mut self, now_ms: u64, connection: ConnectionId) {
        self.now_ms = self.now_ms.max(now_ms);
        self.forget(connection);
        self.settle_store();
    }

    /// A frame came in. Its pieces are taken out of the frame.
    pub fn frame(&mut self, now_ms: u64, connection: ConnectionId, frame: Frame<'_>) {
        self.now_ms = self.now_ms.max(now_ms);
        self.counters.frames_received += 1;
        self.given.clear();
        let split = frame.pieces.is_some();
        if let Some(pieces) = frame.pieces {
            std::mem::swap(pieces, &mut self.given);
        }
        let Some(name) = self.admit(connection, frame.request_id, frame.request, frame.last) else { return };
        self.check_shape(name, frame.last, frame.payload_bytes, split);
        self.hand_over(name, frame.request);
        self.given.clear();
        self.settle(name);
        self.settle_store();
    }

    /// A device command ended.
    pub fn device_done(&mut self, now_ms: u64, id: CommandId, result: Result<Done, IoError>) {
        self.now_ms = self.now_ms.max(now_ms);
        self.store.complete(self.now_ms, id, result);
        self.settle_store();
    }

    /// Time passed. To be called at [`Service::next_deadline`].
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.store.tick(self.now_ms);
        self.close_silent();
        self.settle_store();
    }

    pub fn next_deadline(&self) -> Option<u64> {
        [self.store.next_deadline(), self.next_look_ms()].into_iter().flatten().min()
    }

    /// Accepts no new request and makes everything durable; ends in [`Output::Stopped`].
    pub fn stop(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        if !std::mem::replace(&mut self.stopping, true) {
            let ticket = self.ticket(None, What::Stop, 0);
            self.store.stop(self.now_ms, ticket);
        }
        self.settle_store();
    }

    /// Whether a request that came to its end is not answered to its end. Takes time in proportion to the requests.
    pub fn has_unanswered(&self) -> bool {
        self.requests.iter().any(|(_, open)| open.ended)
    }

    /// Moves everything there is to do to `into`, after results that belong together were put together.
    pub fn drain(&mut self, into: &mut Vec<Output>) {
        self.send_gathered();
        into.extend(self.outputs.drain(..));
    }

    /// One thing there is to do, as [`Service::drain`] would give it.
    pub fn next_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.send_gathered();
        }
        self.outputs.pop_front()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub fn store(&self) -> &Store<Buf> {
        &self.store
    }
}

// ---------------------------------------------------------------- the life of a request

impl Service {
    /// The open request that the frame belongs to, a new one if need be.
    fn admit(
        &mut self,
        connection: ConnectionId,
        request_id: u32,
        request: &Request<'_>,
        last: bool,
    ) -> Option<Name> {
        let open = self.connections.get(connection.0)?.open.get(&request_id).copied();
        if let Some(name) = open {
            let open = self.requests.get_mut(name)?;
            if open.ended {
                //= MKV-MSG-1
                self.close(connection, CloseReason::RequestIdReused);
                return None;
            }
            (open.ended, open.heard) = (last, true);
            let contradicts = open.opcode != request.which.opcode();
            if last {
                self.end_unended();
            }
            if contradicts {
                //= MKV-MSG-3
                self.fail(name, Status::Invalid);
            }
            return Some(name);
        }
        //= MKV-LIM-2
        if self.connections.get(connection.0)?.open.len() >= self.limits.requests_max {
            self.close(connection, CloseReason::TooManyRequests);
            return None;
        }
        self.counters.requests += 1;
        let name = self.requests.insert(Open {
            connection,
            request_id,
            opcode: request.which.opcode(),
            operation: request.which.operation(),
            scalars: None,
            ended: last,
            heard: true,
            outstanding: 0,
            fault: self.stopping.then_some(Status::ShuttingDown),
            kept_bytes: 0,
            state: State::Plain,
        });
        self.connections.get_mut(connection.0)?.open.insert(request_id, name);
        if !last {
            self.begin_unended();
        }
        Some(name)
    }

    /// Whether the frame is one that its operation may have.
    fn check_shape(&mut self, name: Name, last: bool, payload_bytes: usize, split: bool) {
        let Some(operation) = self.requests.get(name).and_then(|open| open.operation) else { return };
        let fits = match operation.payload() {
            PayloadUse::None => last && payload_bytes == 0,
            PayloadUse::Frames => payload_bytes == 0,
            //= MKV-VAL-2
            PayloadUse::Pieces | PayloadUse::Body => split,
        };
        if !fits {
            self.fail(name, Status::Invalid);
        }
    }

    /// Calls the handler, unless the request has failed already.
    fn hand_over(&mut self, name: Name, request: &Request<'_>) {
        let Some(open) = self.requests.get(name).filter(|open| open.fault.is_none()) else { return };
        let Some(connection) = self.connections.get(open.connection.0) else { return };
        let call = Call { name, client: connection.client };
        match dispatch(self, call, request) {
            Ok(()) => {}
            //= MKV-MSG-5
            Err(Undispatched::Unknown { call, .. }) => self.fail(call.name, Status::UnknownOperation),
            Err(Undispatched::Setup { call, .. }) => self.fail(call.name, Status::Invalid),
        }
    }

    /// The first frame's scalar fields, or the same ones again. False: they contradict, the message has failed.
    //= MKV-MSG-3
    fn same_message(&mut self, name: Name, scalars: u128) -> bool {
        let Some(open) = self.requests.get_mut(name) else { return false };
        if *open.scalars.get_or_insert(scalars) == scalars {
            return true;
        }
        self.fail(name, Status::Invalid);
        false
    }

    /// The request will end with this status; the first one counts.
    fn fail(&mut self, name: Name, status: Status) {
        if let Some(open) = self.requests.get_mut(name) {
            open.fault.get_or_insert(status);
        }
    }

    /// Ends the request if nothing more is to come.
    fn settle(&mut self, name: Name) {
        let Some(open) = self.requests.get(name) else { return };
        if !open.ended || open.outstanding > 0 {
            return;
        }
        if let Some(status) = open.fault {
            return self.finish_failed(name, status);
        }
        match open.state {
            State::Plain | State::Counted { .. } => {}
            State::Delete(_) => self.settle_delete(name),
            State::Write(_) => self.settle_write(name),
            State::BatchWrite(_) => self.settle_batch_write(name),
            State::Read(_) => self.settle_read(name),
            State::PutManifest(_) => self.settle_put_manifest(name),
            State::DeleteManifest(_) => self.settle_delete_manifest(name),
        }
    }

    /// Forgets a request and what it holds.
    fn release(&mut self, name: Name) {
        let Some(open) = self.requests.remove(name) else { return };
        if !open.ended {
            self.end_unended();
        }
        if let Some(connection) = self.connections.get_mut(open.connection.0) {
            connection.open.remove(&open.request_id);
            connection.kept_bytes -= open.kept_bytes;
        }
        match open.state {
            State::Plain | State::Counted { .. } | State::Delete(_) | State::DeleteManifest(_) => {}
            State::Write(writing) => self.abandon_write(writing),
            State::BatchWrite(batch) => self.abandon_batch_write(batch),
            State::Read(reading) => self.abandon_read(open.connection, reading),
            State::PutManifest(putting) => self.abandon_put_manifest(open.connection, putting),
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id.0) else { return };
        let open: Vec<Name> = connection.open.values().copied().collect();
        if !planted::is(Bug::RequestForgotten) {
            open.into_iter().for_each(|name| self.release(name));
        }
        self.connections.remove(id.0);
        self.counters.connections -= 1;
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.counters.connections_closed_by_fault += 1;
        self.forget(connection);
        self.outputs.push_back(Output::Close { connection, reason });
    }

    /// Room for bytes kept with a request; `busy` when its connection has no more of it.
    fn keep(&mut self, name: Name, bytes: usize) -> bool {
        let Some(open) = self.requests.get_mut(name) else { return false };
        let Some(connection) = self.connections.get_mut(open.connection.0) else { return false };
        if connection.kept_bytes + bytes > self.limits.kept_bytes_max {
            self.fail(name, Status::Busy);
            return false;
        }
        connection.kept_bytes += bytes;
        open.kept_bytes += bytes;
        true
    }
}

// ---------------------------------------------------------------- the store's answers

impl Service {
    /// A ticket for a store request of this open request, which now waits for its end.
    fn ticket(&mut self, request: Option<Name>, what: What, writing_bytes: usize) -> Ticket {
        let open = request.and_then(|name| self.requests.get_mut(name));
        let connection = open.map(|open| {
            open.outstanding += 1;
            open.connection
        });
        // A request of the server's own belongs to no connection; no slab hands this name out.
        let connection = connection.unwrap_or(ConnectionId(Name::from_u64(u64::MAX)));
        if let Some(connection) = self.connections.get_mut(connection.0) {
            connection.writing_bytes += writing_bytes;
        }
        Ticket(self.tickets.insert(Pending { request, connection, writing_bytes, what }).to_u64())
    }

    /// Takes what the store has to say, until it has nothing more.
    fn settle_store(&mut self) {
        loop {
            while let Some(command) = self.store.poll_command() {
                self.outputs.push_back(Output::Device(command));
            }
            let Some(event) = self.store.poll_event() else { return };
            self.store_event(event);
        }
    }

    fn store_event(&mut self, event: Event) {
        let Some(pending) = self.tickets.remove(Name::from_u64(event.ticket.0)) else {
            debug_assert!(false, "a ticket ends once");
            return;
        };
        if let Some(connection) = self.connections.get_mut(pending.connection.0) {
            connection.writing_bytes -= pending.writing_bytes;
        }
        self.pause_or_resume(pending.connection);
        if let What::Stop = pending.what {
            return self.outputs.push_back(Output::Stopped);
        }
        // The connection may be gone; then nobody waits for the answer.
        let Some(name) = pending.request else { return };
        let Some(open) = self.requests.get_mut(name) else { return };
        open.outstanding -= 1;
        self.store_answer(name, pending.what, event.result);
        self.settle(name);
    }

    fn store_answer(&mut self, name: Name, what: What, result: Result<Outcome, StoreError>) {
        match what {
            What::Put | What::Commit => self.value_stored(name, result),
            What::Piece => self.piece_written(name, result),
            What::CommitAlone => self.committed(name, result),
            What::ItemPut { item } | What::ItemCommit { item } => self.item_stored(name, item, result),
            What::ItemPiece { item } => self.item_piece_written(name, item, result),
            What::Delete { place } => self.deleted(name, place, result),
            What::PutManifest => self.manifest_put(name, result),
            What::DeleteManifest => self.manifest_deleted(name, result),
            What::Stop => {}
        }
    }
}
