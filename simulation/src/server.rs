//! One server of the world: the real service and store, over lines and disks of the simulation.
//!
//! Owns the service, its connections in every state of set-up, the disks, and the work that takes time. It does what the
//! program's threads do, one step at a time. A crash drops everything but the disks. After each step that moved anything the
//! service's books are audited ([`Server::check`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memkv_server::read;
use memkv_server::service::{
    self, BodyJob, ConnectionId, Held, Output, ReadCommand, Reply, Service, ServiceLimits, payload,
};
use memkv_server::store::{
    self, Command, CommandId, Disks, Done, FormatOptions, Geometry, IoError, ReadRequest, ReadResult, Store,
};
use memkv_transport::buf::{Buf, BufMut, BufPool};
use memkv_transport::link::{Arrival, End};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{
    AwaitConfirmation, AwaitConnect, ConfirmationStep, ConnectStep, ServerTerms, SetupGate,
};
use memkv_wire::control::Message;
use memkv_wire::mac::{Key, KeyRing};
use memkv_wire::{Request, limits};

use crate::disk::{Disk, DiskFault, Effect};
use crate::links::{Line, Links, fingerprint};
use crate::model::Trust;
use crate::operation::Violation;
use crate::random::Random;

/// Bytes of replies that wait for the link, before no more is sealed.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
const POOL_BYTES: usize = 64 << 20;

/// How a server's devices behave.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    pub devices: usize,
    pub capacity_bytes: u64,
    pub latency_max: Duration,
}

/// One bit of so many reads flips, on disks that rot; in parts of a million.
const ROT_PPM: u32 = 20_000;

/// The server, running or not.
pub struct Server {
    number: usize,
    disks: Vec<Disk>,
    options: DiskOptions,
    trust: Trust,
    /// Whether reads are damaged.
    pub rots: bool,
    /// Its process does not run before.
    stalled_until: Duration,
    config: store::Config,
    keys: KeyRing,
    random: Random,
    running: Option<Running>,
    /// Reads that the disks damaged.
    pub rotten: u64,
}

struct Running {
    service: Service,
    /// What the store held when it was opened.
    opened_with: u64,
    /// Frames that the service was given, and those it was told are sent.
    frames: (u64, u64),
    violation: Option<Violation>,
    stopped: bool,
    gate: SetupGate,
    terms: ServerTerms,
    pool: BufPool,
    /// By link.
    peers: BTreeMap<usize, Peer>,
    /// What takes time, by when it ends.
    work: BTreeMap<(Duration, u64), Work>,
    work_count: u64,
}

enum Work {
    Device { id: CommandId, device: usize, effect: Effect },
    Read(ReadCommand),
    Body(BodyJob),
}

enum Peer {
    Connecting(AwaitConnect),
    Confirming { setup: Box<AwaitConfirmation>, reply: VecDeque<u8> },
    Open(Box<OpenPeer>),
}

struct OpenPeer {
    id: ConnectionId,
    sealer: Sealer,
    receiver: Receiver,
    replies: VecDeque<Reply>,
    unsent: VecDeque<u8>,
    /// The frames in `unsent`: bytes left, and what the service counts them as.
    frames: VecDeque<(usize, usize, usize)>,
    paused: bool,
}

impl Server {
    /// A server with newly formatted disks, not running.
    pub fn new(
        number: usize,
        key: &Key,
        trust: Trust,
        options: DiskOptions,
        config: store::Config,
        mut random: Random,
    ) -> Server {
        let disks = (0..options.devices).map(|_| Disk::new(options.capacity_bytes)).collect();
        let format = FormatOptions { server_id: random.array(), secrets: random.array() };
        let keys = KeyRing::from(key.clone());
        let stalled_until = Duration::ZERO;
        let mut server = Server {
            number,
            disks,
            options,
            trust,
            rots: false,
            stalled_until,
            config,
            keys,
            random,
            running: None,
            rotten: 0,
        };
        store::format(&mut Mounted(&mut server.disks), &server.config, format)
            .expect("a new disk can be formatted");
        server
    }

    /// Opens the store and serves. False: its disks are beyond that.
    pub fn start(&mut self, now: Duration) -> Result<bool, Violation> {
        let config = self.config.clone();
        let opened = Store::open(millis(now), config, &mut Mounted(&mut self.disks));
        let (store, report) = match opened {
            Ok(opened) => opened,
            Err(_) if self.trust == Trust::Bytes => return Ok(false),
            Err(error) => return Err(format!("server {} cannot be opened: {error}", self.number)),
        };
        if self.trust > Trust::Losing && !report.problems.is_empty() {
            return Err(format!("server {}: a disk was left out: {report:?}", self.number));
        }
        let opened_with = store.usage().values;
        let terms = ServerTerms {
            server_id: store.server_id(),
            server_name: "simulated".to_owned(),
            local_path: String::new(),
            queue_pairs: false,
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX,
            lease_ms: limits::LEASE_MS_DEFAULT,
            bulk_macs: memkv_wire::mac::BulkAlgorithm::preference().to_vec(),
        };
        self.running = Some(Running {
            service: Service::new(store, ServiceLimits::default(), millis(now)),
            opened_with,
            frames: (0, 0),
            violation: None,
            stopped: false,
            gate: SetupGate::new(limits::SETUP_CONNECTIONS_MAX),
            terms,
            pool: BufPool::new(POOL_BYTES),
            peers: BTreeMap::new(),
            work: BTreeMap::new(),
            work_count: 0,
        });
        Ok(true)
    }

    /// Asks it to stop; [`Server::has_stopped`] once it has.
    pub fn stop(&mut self, now: Duration) {
        if let Some(running) = &mut self.running {
            running.service.stop(millis(now));
        }
    }

    pub fn has_stopped(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.stopped)
    }

    pub fn stalled_until(&self) -> Duration {
        self.stalled_until
    }

    pub fn stall(&mut self, until: Duration) {
        self.stalled_until = until;
    }

    pub fn disk_fails(&mut self, disk: usize, fault: DiskFault) {
        self.disks[disk].suffer(fault, &mut self.random);
    }

    /// Nothing goes wrong with it any more.
    pub fn heal(&mut self) {
        self.rots = false;
        self.stalled_until = Duration::ZERO;
        self.disks.iter_mut().for_each(Disk::heal);
    }

    /// The process is gone: writes under way are torn, what was not written is lost. With `power`, so is
    /// what no flush covered.
    pub fn crash(&mut self, power: bool) {
        let Some(running) = self.running.take() else { return };
        for work in running.work.into_values() {
            if let Work::Device { device, effect: Effect::Write { offset, bytes }, .. } = work {
                self.disks[device].tear(offset, &bytes, &mut self.random);
            }
        }
        if power {
            self.disks.iter_mut().for_each(|disk| disk.lose_power(&mut self.random));
        }
    }

    /// A client's link reaches this server. False: nobody listens.
    pub fn accept(&mut self, now: Duration, link: usize) -> bool {
        let Some(running) = &mut self.running else { return false };
        let Ok(permit) = running.gate.enter() else { return false };
        running.peers.insert(link, Peer::Connecting(AwaitConnect::begin(permit, now)));
        true
    }

    /// When something is due that no link's arrival announces.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let running = self.running.as_ref()?;
        let work = running.work.keys().next().map(|(due, _)| *due);
        let service = running.service.next_deadline().map(|ms| Duration::from_millis(ms).max(now));
        let setups = running.peers.values().filter_map(|peer| match peer {
            Peer::Connecting(setup) => Some(setup.deadline()),
            Peer::Confirming { setup, .. } => Some(setup.deadline()),
            Peer::Open(_) => None,
        });
        setups.chain(work).chain(service).min().map(|due| due.max(self.stalled_until))
    }

    /// Does all that can be done now. True if anything was.
    pub fn step(&mut self, now: Duration, links: &mut Links) -> bool {
        if now < self.stalled_until {
            return false;
        }
        let Some(mut running) = self.running.take() else { return false };
        let mut moved = self.finish_work(now, &mut running);
        if running.service.next_deadline().is_some_and(|ms| Duration::from_millis(ms) <= now) {
            running.service.tick(millis(now));
            moved = true;
        }
        let ids: Vec<usize> = running.peers.keys().copied().collect();
        for link in ids {
            moved |= running.step_peer(now, link, links, &self.keys, &mut self.random);
        }
        moved |= self.carry_out(now, &mut running, links);
        self.running = Some(running);
        moved
    }

    /// The service, if the process runs.
    pub fn service(&self) -> Option<&Service> {
        self.running.as_ref().map(|running| &running.service)
    }

    /// Whether nothing is held for anybody, and nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.running
            .as_ref()
            .is_none_or(|running| running.service.held() == Held::default() && running.work.is_empty())
    }

    /// Whether every buffer is back, too, and no lease is left.
    pub fn is_idle(&self) -> bool {
        let idle = |running: &Running| {
            let buffers = running.pool.available_size_bytes() == running.pool.budget_size_bytes();
            buffers && running.service.store().usage().leases == 0
        };
        self.is_quiet() && self.running.as_ref().is_none_or(idle)
    }

    /// What it holds, for a message.
    pub fn held(&self) -> String {
        self.running.as_ref().map_or_else(String::new, |running| {
            let buffers =
                running.pool.budget_size_bytes() as i64 - running.pool.available_size_bytes() as i64;
            format!(
                "{buffers} bytes of buffers, {} commands, {:?}",
                running.work.len(),
                running.service.held()
            )
        })
    }

    fn finish_work(&mut self, now: Duration, running: &mut Running) -> bool {
        let mut moved = false;
        while let Some(entry) = running.work.first_entry().filter(|entry| entry.key().0 <= now) {
            moved = true;
            match entry.remove() {
                Work::Device { id, device, effect } => {
                    let result = self.disks[device].carry_out(effect, &mut self.random);
                    let result = self.rot(result);
                    running.service.device_done(millis(now), id, result);
                }
                Work::Read(command) => {
                    let mut source = Source {
                        disks: &mut self.disks,
                        rots: self.rots,
                        random: &mut self.random,
                        rotten: &mut self.rotten,
                    };
                    let result = read::execute(&command, &mut source);
                    running.service.read_done(millis(now), command.id, result);
                }
                Work::Body(job) => {
                    let joined = job.join();
                    running.service.body_joined(millis(now), joined);
                }
            }
        }
        moved
    }

    /// What a disk that rots makes of what was read.
    fn rot(&mut self, result: Result<Done, IoError>) -> Result<Done, IoError> {
        match result {
            Ok(Done::Read(bytes)) if self.rots && self.random.happens(ROT_PPM) => {
                let mut bytes = bytes.to_vec();
                flip(&mut bytes, &mut self.random);
                self.rotten += 1;
                Ok(Done::Read(bytes.into()))
            }
            result => result,
        }
    }

    /// Whether the books add up at this moment.
    pub fn check(&self) -> Result<(), Violation> {
        let Some(running) = &self.running else { return Ok(()) };
        let fails = |what: String| Err(format!("server {}: {what}", self.number));
        if let Some(violation) = &running.violation {
            return fails(violation.clone());
        }
        if let Err(error) = running.service.audit() {
            return fails(format!("the books do not add up: {error}"));
        }
        let (store, service) = (running.service.store(), running.service.counters());
        let (counters, usage) = (store.counters(), store.usage());
        let gone = counters.deletes + counters.values_evicted + counters.values_lost;
        if running.opened_with + counters.puts != usage.values + gone {
            return fails(format!(
                "{} values are not the {} found, {} put and {gone} gone",
                usage.values, running.opened_with, counters.puts
            ));
        }
        if (service.frames_received, service.frames_sent) != running.frames {
            return fails(format!("{service:?} counts other frames than {:?}", running.frames));
        }
        let open = running.peers.values().filter(|peer| matches!(peer, Peer::Open(_))).count();
        if service.connections != open as u64 {
            return fails(format!("{} connections counted, {open} open", service.connections));
        }
        let faults =
            counters.corrupt + counters.read_errors + counters.write_errors + counters.devices_failed;
        if self.trust > Trust::Losing && faults > 0 {
            return fails(format!("the disks are honest, and yet {counters:?}"));
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Duration, running: &mut Running, links: &mut Links) -> bool {
        let mut outputs = Vec::new();
        running.service.drain(&mut outputs);
        let moved = !outputs.is_empty();
        for output in outputs {
            match output {
                Output::Reply(reply) => running.queue(reply),
                Output::Device(command) => self.submit(now, running, &command),
                Output::Read(command) => self.begin(now, running, Work::Read(command)),
                Output::Body(job) => self.begin(now, running, Work::Body(job)),
                Output::Pause(id) => running.pause(id, true),
                Output::Resume(id) => running.pause(id, false),
                Output::Close { connection, .. } => running.close(now, connection, links),
                Output::Stopped => running.stopped = true,
            }
        }
        moved
    }

    fn submit(&mut self, now: Duration, running: &mut Running, command: &Command<Buf>) {
        let device = usize::from(command.device);
        let effect = self.disks[device].submit(&command.op);
        self.begin(now, running, Work::Device { id: command.id, device, effect });
    }

    fn begin(&mut self, now: Duration, running: &mut Running, work: Work) {
        let latency = self.random.below(self.options.latency_max.as_nanos() as u64 + 1);
        running.work_count += 1;
        running.work.insert((now + Duration::from_nanos(latency), running.work_count), work);
    }
}

impl Running {
    fn step_peer(
        &mut self,
        now: Duration,
        link_id: usize,
        links: &mut Links,
        keys: &KeyRing,
        random: &mut Random,
    ) -> bool {
        let (Some(peer), Some(line)) = (self.peers.remove(&link_id), links.get_mut(link_id)) else {
            return false;
        };
        let stepped = match peer {
            Peer::Connecting(setup) => self.step_connecting(now, setup, line, keys, random),
            Peer::Confirming { setup, reply } => self.step_confirming(now, setup, reply, line),
            Peer::Open(peer) => self.step_open(now, peer, line),
        };
        match stepped {
            Some((peer, moved)) => {
                self.peers.insert(link_id, peer);
                moved
            }
            None => {
                links.release(link_id, End::Server, now);
                true
            }
        }
    }

    fn step_connecting(
        &mut self,
        now: Duration,
        mut setup: AwaitConnect,
        line: &mut Line,
        keys: &KeyRing,
        random: &mut Random,
    ) -> Option<(Peer, bool)> {
        if now >= setup.deadline() {
            return None;
        }
        let count = match line.read(End::Server, now, setup.space()) {
            Ok(Arrival::Bytes(count)) => count,
            Ok(Arrival::Nothing) => return Some((Peer::Connecting(setup), false)),
            Ok(Arrival::Closed) | Err(_) => return None,
        };
        match setup.advance(count, now, keys, &self.terms, &random.array()).ok()? {
            ConnectStep::NeedBytes(setup) => Some((Peer::Connecting(setup), true)),
            ConnectStep::Answered(setup) => {
                let reply = setup.reply().iter().copied().collect();
                Some((Peer::Confirming { setup, reply }, true))
            }
            ConnectStep::Refused(_) => None,
        }
    }

    fn step_confirming(
        &mut self,
        now: Duration,
        mut setup: Box<AwaitConfirmation>,
        mut reply: VecDeque<u8>,
        line: &mut Line,
    ) -> Option<(Peer, bool)> {
        if now >= setup.deadline() {
            return None;
        }
        let mut moved = line.write_from(End::Server, now, &mut reply)? > 0;
        let count = match line.read(End::Server, now, setup.space()) {
            Ok(Arrival::Bytes(count)) => count,
            Ok(Arrival::Nothing) => 0,
            Ok(Arrival::Closed) | Err(_) => return None,
        };
        moved |= count > 0;
        match setup.advance(count, now).ok()? {
            ConfirmationStep::NeedBytes(setup) => Some((Peer::Confirming { setup, reply }, moved)),
            ConfirmationStep::Accepted(accepted) => {
                let id = self.service.connected(millis(now), &accepted.client.client_id);
                let (sealer, mut receiver) = accepted.channel.split(self.pool.clone());
                receiver.sum(payload::inline_sizes);
                let open = OpenPeer {
                    id,
                    sealer,
                    receiver,
                    replies: VecDeque::new(),
                    unsent: VecDeque::new(),
                    frames: VecDeque::new(),
                    paused: false,
                };
                Some((Peer::Open(Box::new(open)), true))
            }
        }
    }

    fn step_open(&mut self, now: Duration, mut peer: Box<OpenPeer>, line: &mut Line) -> Option<(Peer, bool)> {
        let moved = self.exchange(now, &mut peer, line);
        match moved {
            Some(moved) => Some((Peer::Open(peer), moved)),
            None => {
                self.lose(now, *peer);
                None
            }
        }
    }

    /// Sends and receives what it can; `None` ends the connection.
    fn exchange(&mut self, now: Duration, peer: &mut OpenPeer, line: &mut Line) -> Option<bool> {
        let mut moved = false;
        loop {
            self.seal(peer, line);
            let sent = line.write_from(End::Server, now, &mut peer.unsent)?;
            self.count_sent(now, peer, sent);
            moved |= sent > 0;
            if sent == 0 {
                break;
            }
        }
        if peer.paused {
            return Some(moved);
        }
        loop {
            let space = peer.receiver.space();
            if !space.is_empty() {
                match line.read(End::Server, now, space) {
                    Ok(Arrival::Bytes(count)) => peer.receiver.advance(count),
                    Ok(Arrival::Nothing) => return Some(moved),
                    Ok(Arrival::Closed) | Err(_) => return None,
                }
                moved = true;
            }
            if !self.take_frames(now, peer, line)? {
                return Some(moved);
            }
        }
    }

    /// Hands whole frames to the service. False: the pool has no memory for what comes.
    fn take_frames(&mut self, now: Duration, peer: &mut OpenPeer, line: &mut Line) -> Option<bool> {
        loop {
            let frame = match peer.receiver.next_frame().ok()? {
                Next::Frame(frame) => frame,
                Next::NeedBytes => return Some(true),
                Next::Blocked { .. } => return Some(false),
            };
            let print = fingerprint(frame.request_id, frame.last, frame.control, frame.payload.as_deref());
            if !line.received(End::Server, print) {
                self.violation = Some("a server took a frame that is not the next one".to_owned());
            }
            let message = Message::new(frame.control).ok()?;
            let request = Request::decode(&message).ok()?;
            let empty = Buf::default();
            let bytes = frame.payload.as_ref().unwrap_or(&empty);
            let mut pieces = Vec::new();
            let payload = payload::Payload { bytes, sums: frame.sums };
            let split = payload::split(&request, payload, &mut pieces);
            let frame = service::Frame {
                request_id: frame.request_id,
                last: frame.last,
                request: &request,
                payload_bytes: bytes.len(),
                pieces: split.is_ok().then_some(&mut pieces),
            };
            self.frames.0 += 1;
            self.service.frame(millis(now), peer.id, frame);
        }
    }

    fn seal(&mut self, peer: &mut OpenPeer, line: &mut Line) {
        while peer.unsent.len() < UNSENT_BYTES_MAX {
            let Some(mut reply) = peer.replies.pop_front() else { return };
            let (control, payload) = (reply.control_bytes(), reply.payload_bytes());
            let frame = &mut reply.frame;
            let parts = frame.payload.iter().map(|part| &**part);
            let print = fingerprint(frame.request_id, frame.last, frame.control.control(), parts);
            let sealed = peer
                .sealer
                .seal(frame.request_id, frame.last, &mut frame.control, &frame.payload)
                .expect("a reply is within the limits");
            let before = peer.unsent.len();
            line.sealed(End::Server, print, sealed.slices(), &mut peer.unsent);
            peer.frames.push_back((peer.unsent.len() - before, control, payload));
            self.service.recycle(reply.frame);
        }
    }

    fn count_sent(&mut self, now: Duration, peer: &mut OpenPeer, mut sent: usize) {
        while sent > 0 {
            let Some((left, control, payload)) = peer.frames.front_mut() else { return };
            let count = sent.min(*left);
            *left -= count;
            sent -= count;
            if *left == 0 {
                self.frames.1 += 1;
                self.service.sent(millis(now), peer.id, 1, *control, *payload);
                peer.frames.pop_front();
            }
        }
    }

    fn lose(&mut self, now: Duration, peer: OpenPeer) {
        self.service.disconnected(millis(now), peer.id);
        self.frames.1 += (peer.frames.len() + peer.replies.len()) as u64;
        for (_, control, payload) in peer.frames {
            self.service.sent(millis(now), peer.id, 1, control, payload);
        }
        for reply in peer.replies {
            self.service.sent(millis(now), peer.id, 1, reply.control_bytes(), reply.payload_bytes());
        }
    }

    fn peer(&mut self, id: ConnectionId) -> Option<&mut OpenPeer> {
        self.peers.values_mut().find_map(|peer| match peer {
            Peer::Open(peer) if peer.id == id => Some(&mut **peer),
            _ => None,
        })
    }

    fn queue(&mut self, reply: Reply) {
        match self.peer(reply.connection) {
            Some(peer) => peer.replies.push_back(reply),
            None => {
                let (control, payload) = (reply.control_bytes(), reply.payload_bytes());
                self.frames.1 += 1;
                self.service.sent(0, reply.connection, 1, control, payload);
            }
        }
    }

    fn pause(&mut self, id: ConnectionId, paused: bool) {
        if let Some(peer) = self.peer(id) {
            peer.paused = paused;
        }
    }

    fn close(&mut self, now: Duration, id: ConnectionId, links: &mut Links) {
        let link = self.peers.iter().find_map(|(link, peer)| match peer {
            Peer::Open(peer) if peer.id == id => Some(*link),
            _ => None,
        });
        let Some(link) = link else { return };
        links.release(link, End::Server, now);
        if let Some(Peer::Open(peer)) = self.peers.remove(&link) {
            self.lose(now, *peer);
        }
    }
}

pub fn millis(now: Duration) -> u64 {
    now.as_millis() as u64
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let bit = random.below(bytes.len() as u64 * 8) as usize;
    bytes[bit / 8] ^= 1 << (bit % 8);
}

struct Source<'a> {
    disks: &'a mut [Disk],
    rots: bool,
    random: &'a mut Random,
    rotten: &'a mut u64,
}

impl read::Source for Source<'_> {
    fn read(&mut self, device: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.disks[usize::from(device)].read_or_fail(offset, into)?;
        if self.rots && self.random.happens(ROT_PPM) {
            flip(into, self.random);
            *self.rotten += 1;
        }
        Ok(())
    }

    fn buffer(&mut self, size_bytes: usize) -> Option<BufMut> {
        BufMut::unpooled(size_bytes).ok()
    }
}

/// The disks while a store is opened: nothing takes time.
struct Mounted<'a>(&'a mut [Disk]);

impl Disks for Mounted<'_> {
    fn count(&self) -> u16 {
        self.0.len() as u16
    }

    fn geometry(&self, slot: u16) -> Result<Geometry, IoError> {
        let capacity_bytes = self.0[usize::from(slot)].capacity_bytes();
        Ok(Geometry { capacity_bytes, persistent: true, discard: true })
    }

    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, ReadResult)> {
        let read = |request: ReadRequest| {
            let mut bytes = vec![0; request.length];
            let result = self.0[usize::from(request.slot)].read(request.offset, &mut bytes);
            (request, result.map(|()| bytes.into()))
        };
        requests.into_iter().map(read).collect()
    }

    fn write(&mut self, slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.0[usize::from(slot)].write(offset, bytes.to_vec())
    }

    fn flush(&mut self, slot: u16) -> Result<(), IoError> {
        self.0[usize::from(slot)].flush_all();
        Ok(())
    }
}
