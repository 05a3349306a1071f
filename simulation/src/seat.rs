//! One seat of a client: its real core for one server, over lines of the simulation. It does what the client's driver does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memkv_client::core::{CallId, Command, ConnectionId, Core, Progress, Settings};
use memkv_client::error::{ConnectionError, PeerMisbehaved};
use memkv_client::operation::read::inline_sizes;
use memkv_transport::buf::BufPool;
use memkv_transport::error::TransportError;
use memkv_transport::link::{Arrival, End};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{AwaitReply, ClientTerms, ReplyStep};
use memkv_wire::control::ControlBuf;
use memkv_wire::mac::Key;

use crate::links::{Line, Links, fingerprint};
use crate::random::Random;
use crate::server::{Server, millis};

/// Bytes of requests that wait for the link, before no more is sealed.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
const POOL_BYTES: usize = 64 << 20;

pub struct Seat {
    pub core: Core,
    number: usize,
    /// The server it talks to.
    pub server: usize,
    key: Key,
    terms: ClientTerms,
    random: Random,
    pool: BufPool,
    /// By slot of the core's connection.
    wires: BTreeMap<u16, Wire>,
    /// Calls that have news.
    woken: VecDeque<CallId>,
    /// A frame was given out that is not the next one the server sealed.
    pub violation: Option<String>,
}

struct Wire {
    id: ConnectionId,
    link: usize,
    state: State,
    unsent: VecDeque<u8>,
}

enum State {
    Connecting(Box<AwaitReply>),
    Open {
        sealer: Box<Sealer>,
        receiver: Box<Receiver>,
    },
    /// Only while a step consumes the former state.
    Moving,
}

impl Seat {
    /// Seats of one client share its id.
    pub fn new(
        (number, server): (usize, usize),
        id: [u8; 16],
        key: &Key,
        settings: Settings,
        mut random: Random,
    ) -> Seat {
        Seat {
            core: Core::new(settings, random.next()),
            number,
            server,
            key: key.clone(),
            terms: ClientTerms::new(id, "simulated"),
            pool: BufPool::new(POOL_BYTES),
            wires: BTreeMap::new(),
            woken: VecDeque::new(),
            violation: None,
            random,
        }
    }

    /// The next call that has news.
    pub fn woken(&mut self) -> Option<CallId> {
        self.woken.pop_front()
    }

    pub fn progress(&mut self, call: CallId) -> Option<Progress> {
        self.core.progress(call)
    }

    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let core = Some(self.core.deadline_ms()).filter(|ms| *ms != u64::MAX);
        core.map(|ms| Duration::from_millis(ms).max(now))
    }

    /// Every buffer is back, and no call is left.
    pub fn is_idle(&self) -> bool {
        let idle = self.pool.available_size_bytes() == self.pool.budget_size_bytes();
        idle && self.core.calls_open() == 0 && self.wires.is_empty()
    }

    /// What it holds, for a message.
    pub fn held(&self) -> String {
        let buffers = self.pool.budget_size_bytes() as i64 - self.pool.available_size_bytes() as i64;
        format!("{buffers} bytes of buffers, {} calls, {} lines", self.core.calls_open(), self.wires.len())
    }

    /// Does all that can be done now. True if anything was.
    pub fn step(&mut self, now: Duration, links: &mut Links, server: &mut Server) -> bool {
        let mut moved = false;
        if self.core.deadline_ms() <= millis(now) {
            self.core.tick(millis(now));
            moved = true;
        }
        while let Some(command) = self.core.command() {
            moved = true;
            self.carry_out(now, command, links, server);
        }
        let slots: Vec<u16> = self.wires.keys().copied().collect();
        for slot in slots {
            moved |= self.step_wire(now, slot, links);
        }
        moved
    }

    fn carry_out(&mut self, now: Duration, command: Command, links: &mut Links, server: &mut Server) {
        match command {
            Command::Connect(id) => self.connect(now, id, links, server),
            Command::Close(id) => {
                if self.wires.get(&id.slot()).is_some_and(|wire| wire.id == id)
                    && let Some(wire) = self.wires.remove(&id.slot())
                {
                    links.release(wire.link, End::Client, now);
                }
            }
            // Whatever is to be sent is asked for in every step.
            Command::Send(_) => {}
            Command::Wake(call) => self.woken.push_back(call),
        }
    }

    fn connect(&mut self, now: Duration, id: ConnectionId, links: &mut Links, server: &mut Server) {
        let link = links.open(self.number, self.server);
        if !server.accept(now, link) {
            links.release(link, End::Client, now);
            links.release(link, End::Server, now);
            let refused = ConnectionError::Io { kind: std::io::ErrorKind::ConnectionRefused, code: None };
            return self.core.closed(millis(now), id, refused);
        }
        let setup = AwaitReply::begin(&self.key, &self.terms, self.random.array(), now)
            .expect("the simulation's terms are within the limits");
        let unsent = setup.connect().iter().copied().collect();
        self.wires.insert(id.slot(), Wire { id, link, state: State::Connecting(Box::new(setup)), unsent });
    }

    fn step_wire(&mut self, now: Duration, slot: u16, links: &mut Links) -> bool {
        let Some(mut wire) = self.wires.remove(&slot) else { return false };
        let Some(line) = links.get_mut(wire.link) else { return false };
        match self.exchange(now, &mut wire, line) {
            Ok(moved) => {
                // A frame that came may have made the core close this very connection; its command is then on the way.
                self.wires.insert(slot, wire);
                moved
            }
            Err(error) => {
                links.release(wire.link, End::Client, now);
                self.core.closed(millis(now), wire.id, error);
                true
            }
        }
    }

    fn exchange(&mut self, now: Duration, wire: &mut Wire, line: &mut Line) -> Result<bool, ConnectionError> {
        let mut moved = false;
        loop {
            self.seal(now, wire, line)?;
            let sent = line.write_from(End::Client, now, &mut wire.unsent).ok_or(ConnectionError::Closed)?;
            moved |= sent > 0;
            if sent == 0 {
                break;
            }
        }
        Ok(self.receive(now, wire, line)? | moved)
    }

    fn seal(&mut self, now: Duration, wire: &mut Wire, line: &mut Line) -> Result<(), ConnectionError> {
        let State::Open { sealer, .. } = &mut wire.state else { return Ok(()) };
        let (mut control, mut payload) = (ControlBuf::new(), Vec::new());
        while wire.unsent.len() < UNSENT_BYTES_MAX {
            payload.clear();
            let next = self.core.next_frame(millis(now), wire.id, &mut control, &mut payload);
            let Some(frame) = next else { return Ok(()) };
            let parts = payload.iter().map(|part| &**part);
            let print = fingerprint(frame.request_id, frame.last, control.control(), parts);
            let sealed = sealer
                .seal(frame.request_id, frame.last, &mut control, &payload)
                .map_err(|_| ConnectionError::Local)?;
            self.core.count_sent(sealed.size_bytes() as u64);
            line.sealed(End::Client, print, sealed.slices(), &mut wire.unsent);
        }
        Ok(())
    }

    fn receive(&mut self, now: Duration, wire: &mut Wire, line: &mut Line) -> Result<bool, ConnectionError> {
        let mut moved = false;
        loop {
            let space = match &mut wire.state {
                State::Connecting(setup) => setup.space(),
                State::Open { receiver, .. } => receiver.space(),
                State::Moving => return Err(ConnectionError::Closed),
            };
            let count = match line.read(End::Client, now, space) {
                Ok(Arrival::Bytes(count)) => count,
                Ok(Arrival::Nothing) => return Ok(moved),
                Ok(Arrival::Closed) | Err(_) => return Err(ConnectionError::Closed),
            };
            moved = true;
            self.take(now, wire, line, count)?;
        }
    }

    fn take(
        &mut self,
        now: Duration,
        wire: &mut Wire,
        line: &mut Line,
        count: usize,
    ) -> Result<(), ConnectionError> {
        match std::mem::replace(&mut wire.state, State::Moving) {
            State::Connecting(setup) => {
                let step = setup.advance(count, now).map_err(ConnectionError::Setup)?;
                match step {
                    ReplyStep::NeedBytes(setup) => wire.state = State::Connecting(Box::new(setup)),
                    ReplyStep::Established(established) => {
                        wire.unsent.extend(established.confirmation);
                        let (sealer, mut receiver) = established.channel.split(self.pool.clone());
                        receiver.sum(inline_sizes);
                        wire.state = State::Open { sealer: Box::new(sealer), receiver: Box::new(receiver) };
                        let in_flight_max = established.server.requests_in_flight_max;
                        self.core.connected(millis(now), wire.id, in_flight_max);
                    }
                }
                Ok(())
            }
            State::Open { sealer, mut receiver } => {
                receiver.advance(count);
                let taken = self.take_frames(now, wire.id, line, &mut receiver);
                wire.state = State::Open { sealer, receiver };
                taken
            }
            State::Moving => Err(ConnectionError::Closed),
        }
    }

    fn take_frames(
        &mut self,
        now: Duration,
        id: ConnectionId,
        line: &mut Line,
        receiver: &mut Receiver,
    ) -> Result<(), ConnectionError> {
        loop {
            match receiver.next_frame() {
                Ok(Next::Frame(frame)) => {
                    let print =
                        fingerprint(frame.request_id, frame.last, frame.control, frame.payload.as_deref());
                    if !line.received(End::Client, print) {
                        self.violation = Some("a client took a frame that is not the next one".to_owned());
                    }
                    let size_bytes = frame.control.len() + frame.payload.as_ref().map_or(0, |p| p.len());
                    self.core.received(millis(now), id, frame, size_bytes as u64);
                }
                Ok(Next::NeedBytes) => return Ok(()),
                Ok(Next::Blocked { .. }) => return Err(ConnectionError::Local),
                Err(TransportError::Frame(error)) => {
                    return Err(ConnectionError::Peer(PeerMisbehaved::Frame(error)));
                }
                Err(_) => return Err(ConnectionError::Closed),
            }
        }
    }
}
