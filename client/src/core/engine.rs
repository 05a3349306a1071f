//! The inside of a [`Core`]: how calls move between queue, connections and their end.

use std::sync::Arc;

use memkv_transport::planted::{self, Bug};
use memkv_transport::receiver::Frame;
use memkv_wire::{Response, Retry, Status, control};

use super::call::{Call, CallId, Class, Message, Place, Verdict};
use super::connection::{Connection, ConnectionId, Naming, Sharing, State};
use super::{Command, Core, SPARE_MESSAGES_MAX};
use crate::error::{ConnectionError, Error, PeerMisbehaved};

/// Attempts of one call that `checksumMismatch` may end.
const RESENDS_MAX: u32 = 2;

/// Calls: slots, queues, ends.
impl Core {
    pub(super) fn new_call(&mut self) -> CallId {
        let slot = self.free_calls.pop().unwrap_or_else(|| {
            self.calls.push(Call::new());
            self.calls.len() as u32 - 1
        });
        let call = &self.calls[slot as usize];
        debug_assert!(matches!(call.place, Place::Free), "a free slot is free");
        CallId { slot, generation: call.generation }
    }

    pub(super) fn free_call(&mut self, id: CallId) {
        let call = &mut self.calls[id.slot as usize];
        debug_assert_eq!(call.generation, id.generation, "a call is freed once");
        let message = std::mem::replace(&mut call.message, Message::empty());
        call.reset();
        self.free_calls.push(id.slot);
        self.recycle(message);
    }

    fn recycle(&mut self, mut message: Message) {
        if message.has_memory() && self.spare.len() < SPARE_MESSAGES_MAX {
            message.clear();
            self.spare.push(message);
        }
    }

    pub(super) fn call_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.calls.get_mut(id.slot as usize).filter(|call| call.generation == id.generation)
    }

    pub(super) fn queue(&mut self, id: CallId) {
        let call = &mut self.calls[id.slot as usize];
        call.place = Place::Queued;
        self.queued[call.class as usize].push_back(id);
    }

    pub(super) fn finish(&mut self, id: CallId, result: Result<(), Error>) {
        let call = &mut self.calls[id.slot as usize];
        if result.is_err() {
            call.inbox.clear();
            call.restarted = false;
        }
        // The payload may be large, and the owner slow to ask.
        let message = std::mem::replace(&mut call.message, Message::empty());
        call.place = Place::Finished(result);
        self.recycle(message);
        self.commands.push_back(Command::Wake(id));
    }

    /// The deadline of a call passed.
    pub(super) fn expire(&mut self, now_ms: u64, id: CallId) {
        let last = self.last_error.clone();
        let call = &mut self.calls[id.slot as usize];
        let error = Error::Timeout { timeout_ms: call.options.timeout_ms, last };
        let Place::Outstanding { connection, request_id } = call.place else {
            return self.finish(id, Err(error));
        };
        let slot = usize::from(connection);
        // The owner gets its answer now; a call nobody owns takes over what is left of the request.
        let heir = self.new_call();
        let call = &mut self.calls[id.slot as usize];
        let message = std::mem::replace(&mut call.message, Message::empty());
        self.calls[heir.slot as usize].message = message;
        self.calls[heir.slot as usize].place = Place::Outstanding { connection, request_id };
        self.finish(id, Err(error));
        let connection = &mut self.connections[slot];
        let mut silent = false;
        if let Some(outstanding) = connection.requests[request_id as usize].as_mut() {
            outstanding.call = heir;
            silent = connection.last_received_ms < outstanding.assigned_at_ms;
        }
        self.abandon(now_ms, heir, slot, request_id);
        if silent && self.connections[slot].is_ready() {
            self.commands.push_back(Command::Close(self.connection_id(slot)));
            self.lose(now_ms, slot, ConnectionError::Silent);
        }
    }

    /// Nobody waits for this reply any more. A message that was begun is sent to its end: the server is owed the
    /// rest of it, and its id stays taken until the reply came (MKV-MSG-1).
    pub(super) fn abandon(&mut self, now_ms: u64, id: CallId, slot: usize, request_id: u32) {
        let call = &mut self.calls[id.slot as usize];
        call.abandoned = true;
        call.inbox.clear();
        let payload_size_bytes = call.message.payload_size_bytes();
        let connection = &mut self.connections[slot];
        let untouched = connection.outstanding(request_id).is_some_and(|o| o.frames_sent == 0);
        if untouched {
            connection.withdraw(request_id);
            connection.payload_outstanding_bytes -= payload_size_bytes;
            return self.free_call(id);
        }
        let (calls, window) = (&self.calls, connection.window);
        let abandoned =
            connection.requests.iter().flatten().filter(|o| calls[o.call.slot as usize].abandoned).count();
        if 2 * abandoned > window {
            self.commands.push_back(Command::Close(self.connection_id(slot)));
            self.lose(now_ms, slot, ConnectionError::Silent);
        }
    }
}

/// Connections: which are wanted, what goes on them, what comes back.
impl Core {
    pub(super) fn connection_id(&self, slot: usize) -> ConnectionId {
        ConnectionId { slot: slot as u16, epoch: self.connections[slot].epoch }
    }

    /// The connection, if this is still the same life of it.
    pub(super) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(usize::from(id.slot)).filter(|c| c.epoch == id.epoch)
    }

    pub(super) fn arm(&mut self, at_ms: u64) {
        self.timer_ms = self.timer_ms.min(at_ms);
    }

    pub(super) fn earliest_ms(&self) -> u64 {
        let calls = self.calls.iter().filter(|call| !call.abandoned).filter_map(|call| match call.place {
            Place::Free | Place::Finished(_) => None,
            Place::Delayed { until_ms } => Some(until_ms.min(call.deadline_ms)),
            _ if planted::is(Bug::DeadlineNotArmed) => None,
            Place::Queued | Place::Outstanding { .. } => Some(call.deadline_ms),
        });
        let connections = self.connections.iter().filter_map(|connection| match connection.state {
            State::Idle | State::Ready => None,
            State::Connecting { deadline_ms } => Some(deadline_ms),
            State::Backoff { until_ms } => Some(until_ms),
        });
        calls.chain(connections).min().unwrap_or(u64::MAX)
    }

    /// Puts queued calls on connections, and asks for connections where they are wanted.
    pub(super) fn pump(&mut self, now_ms: u64) {
        for class in [Class::Control, Class::Bulk] {
            while let Some(&id) = self.queued[class as usize].front() {
                // A call that ended in the queue leaves its id there.
                let queued = self.call_mut(id).filter(|call| matches!(call.place, Place::Queued));
                if let Some(named) = queued.map(|call| call.message.named()) {
                    self.want(now_ms, class);
                    if self.is_connected() && !self.connections.iter().any(|one| one.suits(named)) {
                        self.finish(id, Err(ConnectionError::MemoryGone.into()));
                    } else {
                        let Some(slot) = self.choose(class, named) else { break };
                        self.assign(now_ms, id, slot);
                    }
                }
                self.queued[class as usize].pop_front();
            }
        }
    }

    /// The connection a call of this class goes to now, if one has room.
    fn choose(&self, class: Class, named: Naming) -> Option<usize> {
        let (control, bulk) = self.connections.split_at(1);
        let suits = |connection: &Connection| connection.suits(named);
        let least_loaded = bulk
            .iter()
            .enumerate()
            .filter(|(_, connection)| suits(connection) && connection.has_room())
            .min_by_key(|(_, connection)| (connection.payload_outstanding_bytes, connection.in_flight()))
            .map(|(i, _)| i + 1);
        let control_room = (suits(&control[0]) && control[0].has_room()).then_some(0);
        match class {
            Class::Control if suits(&control[0]) => control_room,
            Class::Control => least_loaded,
            Class::Bulk if bulk.iter().any(suits) => least_loaded,
            Class::Bulk => control_room,
        }
    }

    /// Opens the connections that calls of this class use, where they may be tried now.
    fn want(&mut self, now_ms: u64, class: Class) {
        let count = match class {
            Class::Control => 1,
            Class::Bulk => self.connections.len(),
        };
        let deadline_ms = now_ms.saturating_add(self.settings.setup_timeout_ms);
        for slot in 0..count {
            if self.connections[slot].state == State::Idle {
                self.connections[slot].state = State::Connecting { deadline_ms };
                self.arm(deadline_ms);
                self.commands.push_back(Command::Connect(self.connection_id(slot)));
            }
        }
    }

    fn assign(&mut self, now_ms: u64, id: CallId, slot: usize) {
        let call = &mut self.calls[id.slot as usize];
        let connection = &mut self.connections[slot];
        let Some(request_id) = connection.take(id, call.message.frames().len(), now_ms) else {
            unreachable!("the connection chosen has room");
        };
        connection.payload_outstanding_bytes += call.message.payload_size_bytes();
        call.place = Place::Outstanding { connection: slot as u16, request_id };
        self.commands.push_back(Command::Send(self.connection_id(slot)));
    }

    /// Hands a frame to the call that it answers.
    pub(super) fn deliver(
        &mut self,
        now_ms: u64,
        slot: usize,
        frame: Frame<'_>,
    ) -> Result<(), PeerMisbehaved> {
        let connection = &mut self.connections[slot];
        connection.last_received_ms = now_ms;
        connection.failures = 0;
        let request_id = frame.request_id;
        let unknown = PeerMisbehaved::UnknownRequest { request_id };
        let outstanding = connection.outstanding(request_id).ok_or(unknown)?;
        // Nothing of it was sent yet, or its reply was whole before.
        if outstanding.frames_sent == 0 || outstanding.replied {
            return Err(unknown);
        }
        let id = outstanding.call;
        let call = &mut self.calls[id.slot as usize];
        let message = control::Message::new(frame.control).map_err(|_| PeerMisbehaved::Message)?;
        let response = Response::decode(&message).map_err(|_| PeerMisbehaved::Message)?;
        let same = response.which.operation() == Some(call.message.operation());
        if !same && response.status != Status::UnknownOperation {
            return Err(PeerMisbehaved::WrongOperation);
        }
        let last = frame.last;
        if last {
            outstanding.replied = true;
            self.counters.round_trips += 1;
            let delay = self.jitter.delay_ms(
                self.settings.backoff_ms_min,
                self.settings.backoff_ms_max,
                call.refusals,
            );
            call.verdict = verdict(now_ms, call, &response, delay);
        }
        let sent_whole = outstanding.sent_whole();
        if !call.abandoned && call.verdict == Verdict::Done {
            call.answered = true;
            let mut reply = self.spare_replies.pop().unwrap_or_default();
            reply.control.extend_from_slice(frame.control);
            reply.sums.extend_from_slice(frame.sums);
            reply.payload = frame.payload;
            if planted::is(Bug::ReplyBufferReused)
                && let Some(unread) = call.inbox.back_mut()
            {
                unread.control.clone_from(&reply.control);
            }
            let to =
                if planted::now_and_then(Bug::ReplyToAnotherCall, 4) { self.another_call(id) } else { id };
            reply.checker = match &self.connections[slot].sharing {
                Sharing::OneSided(checker) => Some(Arc::clone(checker)),
                Sharing::No | Sharing::Mapped => None,
            };
            self.calls[to.slot as usize].inbox.push_back(reply);
            // The end of a call wakes its owner too.
            if !(last && sent_whole) {
                self.commands.push_back(Command::Wake(id));
            }
        }
        if last && sent_whole {
            self.complete(now_ms, id, slot, request_id);
        }
        Ok(())
    }

    /// Another call of the same operation, where a planted bug sends a reply.
    fn another_call(&self, id: CallId) -> CallId {
        let operation = self.calls[id.slot as usize].message.operation();
        let other = |(slot, call): &(usize, &Call)| {
            let outstanding = matches!(call.place, Place::Outstanding { .. }) && !call.abandoned;
            outstanding && *slot != id.slot as usize && call.message.operation() == operation
        };
        let found = self.calls.iter().enumerate().find(other);
        found.map_or(id, |(slot, call)| CallId { slot: slot as u32, generation: call.generation })
    }

    /// A message is sent whole and answered whole.
    pub(super) fn complete(&mut self, now_ms: u64, id: CallId, slot: usize, request_id: u32) {
        let call = &mut self.calls[id.slot as usize];
        let connection = &mut self.connections[slot];
        connection.release(request_id);
        connection.payload_outstanding_bytes -= call.message.payload_size_bytes();
        if call.abandoned {
            return self.free_call(id);
        }
        match std::mem::replace(&mut call.verdict, Verdict::Done) {
            Verdict::Done => self.finish(id, Ok(())),
            Verdict::Again { delay_ms } => {
                let until_ms = now_ms + delay_ms;
                call.restart();
                call.refusals += 1;
                call.place = Place::Delayed { until_ms };
                self.counters.retries += 1;
                self.arm(until_ms);
            }
        }
    }

    /// A connection is gone: its calls begin anew where that is safe, and it may be tried again later.
    pub(super) fn lose(&mut self, now_ms: u64, slot: usize, error: ConnectionError) {
        self.expose(slot);
        let connection = &mut self.connections[slot];
        let was_ready = connection.is_ready();
        self.counters.connections_lost += u64::from(was_ready);
        let delay_ms = self.jitter.delay_ms(
            self.settings.backoff_ms_min,
            self.settings.backoff_ms_max,
            connection.failures,
        );
        let until_ms = now_ms + delay_ms;
        connection.failures = connection.failures.saturating_add(1);
        connection.epoch = connection.epoch.wrapping_add(1);
        connection.state = State::Backoff { until_ms };
        self.last_error = Some(error.clone());
        connection.sending.clear();
        connection.payload_outstanding_bytes = 0;
        let mut requests = std::mem::take(&mut connection.requests);
        for outstanding in requests.drain(..).flatten() {
            let id = outstanding.call;
            let call = &mut self.calls[id.slot as usize];
            // A message of which nothing went out was not seen; any other may have been carried out.
            let again = outstanding.frames_sent == 0 || call.message.operation().idempotent();
            if call.abandoned {
                self.free_call(id);
            } else if again && call.losses < self.settings.call_retries_max {
                call.losses += 1;
                call.repeated |= outstanding.sent_whole();
                call.restart();
                self.counters.retries += 1;
                self.queue(id);
                self.commands.push_back(Command::Wake(id));
            } else {
                self.finish(id, Err(error.clone().into()));
            }
        }
        self.connections[slot].requests = requests;
        self.arm(until_ms);
        if !was_ready && !self.is_connected() {
            self.fail_fast(&error);
        }
    }

    /// Keeps what the server may still write to, when a connection ends before its requests were answered.
    pub(super) fn expose(&mut self, slot: usize) {
        for outstanding in self.connections[slot].requests.iter().flatten() {
            if outstanding.frames_sent > 0 {
                let message = &self.calls[outstanding.call.slot as usize].message;
                let id = ConnectionId { slot: slot as u16, epoch: self.connections[slot].epoch };
                self.exposed.extend(message.destinations().iter().map(|memory| (id, memory.clone())));
            }
        }
    }

    /// No connection could be made: ends the calls that do not wait for one.
    fn fail_fast(&mut self, error: &ConnectionError) {
        for class in [Class::Control, Class::Bulk] {
            for i in 0..self.queued[class as usize].len() {
                let id = self.queued[class as usize][i];
                let waits = self
                    .call_mut(id)
                    .is_none_or(|c| !c.options.fail_fast || !matches!(c.place, Place::Queued));
                if !waits {
                    self.finish(id, Err(error.clone().into()));
                }
            }
        }
    }
}

/// What the last frame of a reply means. A status that its owner must hear of is no failure of the call.
fn verdict(now_ms: u64, call: &Call, response: &Response<'_>, backoff_ms: u64) -> Verdict {
    let delay_ms = match response.status.retry() {
        //= MKV-STAT-1
        // An unknown status says `no` too.
        Retry::No => return Verdict::Done,
        // Refused, so not carried out: this is safe for every operation.
        Retry::AfterDelay => backoff_ms.max(u64::from(response.retry_after_ms)),
        Retry::Resend if call.message.operation().idempotent() && call.refusals < RESENDS_MAX => 0,
        Retry::Resend => return Verdict::Done,
    };
    if now_ms.saturating_add(delay_ms) >= call.deadline_ms {
        return Verdict::Done;
    }
    Verdict::Again { delay_ms }
}
