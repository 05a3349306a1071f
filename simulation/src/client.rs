//! One client of the world: the real core, over links of the simulation. It does what the client's driver does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memkv_client::core::{CallId, Command, ConnectionId, Core, Progress, Settings};
use memkv_client::error::{ConnectionError, PeerMisbehaved};
use memkv_transport::buf::BufPool;
use memkv_transport::error::TransportError;
use memkv_transport::link::{Arrival, End, Link};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{AwaitReply, ClientTerms, ReplyStep};
use memkv_wire::control::ControlBuf;
use memkv_wire::mac::Key;

use crate::links::{Links, write_from};
use crate::random::Random;
use crate::server::{Server, millis};

/// Bytes of requests that wait for the link, before no more is sealed.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
const POOL_BYTES: usize = 64 << 20;

pub struct Client {
    pub core: Core,
    key: Key,
    terms: ClientTerms,
    random: Random,
    pool: BufPool,
    /// By slot of the core's connection.
    wires: BTreeMap<u16, Wire>,
    /// Calls that have news.
    woken: VecDeque<CallId>,
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

impl Client {
    pub fn new(key: &Key, settings: Settings, mut random: Random) -> Client {
        Client {
            core: Core::new(settings, random.next()),
            key: key.clone(),
            terms: ClientTerms::new(random.array(), "simulated"),
            pool: BufPool::new(POOL_BYTES),
            wires: BTreeMap::new(),
            woken: VecDeque::new(),
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
                    links.cut(wire.link, now);
                }
            }
            // Whatever is to be sent is asked for in every step.
            Command::Send(_) => {}
            Command::Wake(call) => self.woken.push_back(call),
        }
    }

    fn connect(&mut self, now: Duration, id: ConnectionId, links: &mut Links, server: &mut Server) {
        let link = links.open();
        if !server.accept(now, link) {
            links.forget(link);
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
        let Some(link) = links.get_mut(wire.link) else { return false };
        match self.exchange(now, &mut wire, link) {
            Ok(moved) => {
                // A frame that came may have made the core close this very connection; its command is then on the way.
                self.wires.insert(slot, wire);
                moved
            }
            Err(error) => {
                links.cut(wire.link, now);
                self.core.closed(millis(now), wire.id, error);
                true
            }
        }
    }

    fn exchange(&mut self, now: Duration, wire: &mut Wire, link: &mut Link) -> Result<bool, ConnectionError> {
        let mut moved = false;
        loop {
            self.seal(now, wire)?;
            let sent = write_from(link, End::Client, now, &mut wire.unsent).ok_or(ConnectionError::Closed)?;
            moved |= sent > 0;
            if sent == 0 {
                break;
            }
        }
        Ok(self.receive(now, wire, link)? | moved)
    }

    fn seal(&mut self, now: Duration, wire: &mut Wire) -> Result<(), ConnectionError> {
        let State::Open { sealer, .. } = &mut wire.state else { return Ok(()) };
        let (mut control, mut payload) = (ControlBuf::new(), Vec::new());
        while wire.unsent.len() < UNSENT_BYTES_MAX {
            payload.clear();
            let next = self.core.next_frame(millis(now), wire.id, &mut control, &mut payload);
            let Some(frame) = next else { return Ok(()) };
            let sealed = sealer
                .seal(frame.request_id, frame.last, &mut control, &payload)
                .map_err(|_| ConnectionError::Local)?;
            self.core.count_sent(sealed.size_bytes() as u64);
            sealed.slices().for_each(|slice| wire.unsent.extend(slice));
        }
        Ok(())
    }

    fn receive(&mut self, now: Duration, wire: &mut Wire, link: &mut Link) -> Result<bool, ConnectionError> {
        let mut moved = false;
        loop {
            let space = match &mut wire.state {
                State::Connecting(setup) => setup.space(),
                State::Open { receiver, .. } => receiver.space(),
                State::Moving => return Err(ConnectionError::Closed),
            };
            let count = match link.read(End::Client, now, space) {
                Ok(Arrival::Bytes(count)) => count,
                Ok(Arrival::Nothing) => return Ok(moved),
                Ok(Arrival::Closed) | Err(_) => return Err(ConnectionError::Closed),
            };
            moved = true;
            self.take(now, wire, count)?;
        }
    }

    fn take(&mut self, now: Duration, wire: &mut Wire, count: usize) -> Result<(), ConnectionError> {
        match std::mem::replace(&mut wire.state, State::Moving) {
            State::Connecting(setup) => {
                let step = setup.advance(count, now).map_err(ConnectionError::Setup)?;
                match step {
                    ReplyStep::NeedBytes(setup) => wire.state = State::Connecting(Box::new(setup)),
                    ReplyStep::Established(established) => {
                        wire.unsent.extend(established.confirmation);
                        let (sealer, receiver) = established.channel.split(self.pool.clone());
                        wire.state = State::Open { sealer: Box::new(sealer), receiver: Box::new(receiver) };
                        let in_flight_max = established.server.requests_in_flight_max;
                        self.core.connected(millis(now), wire.id, in_flight_max);
                    }
                }
                Ok(())
            }
            State::Open { sealer, mut receiver } => {
                receiver.advance(count);
                let taken = self.take_frames(now, wire.id, &mut receiver);
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
        receiver: &mut Receiver,
    ) -> Result<(), ConnectionError> {
        loop {
            match receiver.next_frame() {
                Ok(Next::Frame(frame)) => {
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
