//! The world: virtual time, several clients and servers, what happens to them, and the promises that must hold.
//!
//! Promises, after every step: what the stores show is one of the states that the [`Model`] allows, chunks that must be there are
//! there, the books of every server add up, a receiver gives out exactly the frames that were sealed, in order, and no call is
//! open behind its deadline. At every answer: no byte is wrong, and the answer was true at some moment while it was asked for.
//! At the end, with all faults healed: everything acknowledged is read back; and when everybody went home, nobody
//! holds a buffer, a request, a lease or a line.
//!
//! The state machines see one clock, which never goes back: it may stand still for a process, and it may jump.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use memkv_client::core::{CallId, CallOptions, Message};
use memkv_server::store::Key as StoreKey;
use memkv_transport::link::{End, LinkOptions};
use memkv_wire::limits;
use memkv_wire::mac::Key;

use crate::content::{CHUNKS_TIGHT, ChunkId, key};
use crate::links::Links;
use crate::model::{Model, Name, Trust};
use crate::operation::{Judge, NAMESPACE, Next, Operation, Plan, Violation};
use crate::random::Random;
use crate::schedule::{Condition, Event, Schedule, Setup};
use crate::seat::Seat;
use crate::server::{Server, millis};

/// Operations of one client at a time.
const RUNNING_MAX: usize = 5;
const TIMEOUT_MS: u64 = 4000;
/// How late a call's end may come: its clock counts milliseconds.
const LATE_MS_MAX: u64 = 10;
/// A world that takes more steps than this goes round in circles.
const STEPS_MAX: u64 = 1_000_000;
/// Steps of a millisecond in which everything under way must end when nobody asks for more.
const QUIET_STEPS_MAX: u32 = 5_000;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub operations: u32,
    pub kills: u32,
    pub power_losses: u32,
    pub stops: u32,
    pub clients_killed: u32,
    pub cuts: u32,
    pub stalls: u32,
    pub jumps: u32,
    pub disk_faults: u32,
    /// Reads that the disks damaged.
    pub rotten: u64,
    pub evicted: u64,
    pub moved: u64,
    pub virtual_ms: u64,
    pub steps: u64,
    /// Of everything that happened, in order: equal for equal runs.
    pub digest: u64,
}

impl Report {
    pub fn add(&mut self, other: &Report) {
        self.operations += other.operations;
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.stops += other.stops;
        self.clients_killed += other.clients_killed;
        self.cuts += other.cuts;
        self.stalls += other.stalls;
        self.jumps += other.jumps;
        self.disk_faults += other.disk_faults;
        self.rotten += other.rotten;
        self.evicted += other.evicted;
        self.moved += other.moved;
        self.virtual_ms += other.virtual_ms;
        self.steps += other.steps;
    }
}

/// What a world broke.
pub struct Broken {
    pub violation: Violation,
    pub at: Duration,
}

pub struct World<'a> {
    schedule: &'a Schedule,
    /// Events that do not happen, by number.
    left_out: &'a BTreeSet<usize>,
    next_event: usize,
    now: Duration,
    random: Random,
    key: Key,
    links: Links,
    servers: Vec<Server>,
    models: Vec<Model>,
    /// A client's seats follow one another, one for each server.
    seats: Vec<Seat>,
    ids: Vec<[u8; 16]>,
    /// What each client is still to do.
    waiting: Vec<VecDeque<(usize, Plan)>>,
    /// By seat and the call's slot.
    running: BTreeMap<(usize, usize), Running>,
    /// When a server that is down starts again.
    starts: BTreeMap<usize, Duration>,
    /// Servers that were asked to stop, and how long they stay down.
    stopping: BTreeMap<usize, Duration>,
    /// Clients that are gone, until when.
    absent: BTreeMap<usize, Duration>,
    report: Report,
    /// What happened, also for when this world does not live to tell.
    history: &'a RefCell<Vec<String>>,
}

struct Running {
    call: CallId,
    operation: Operation,
    since: Duration,
}

impl<'a> World<'a> {
    pub fn new(
        schedule: &'a Schedule,
        left_out: &'a BTreeSet<usize>,
        mut random: Random,
        history: &'a RefCell<Vec<String>>,
    ) -> World<'a> {
        let Setup { clients, servers, trust, disks, store, link, settings } = &schedule.setup;
        let key = Key::from_bytes(random.array());
        let conditions = schedule.conditions(left_out);
        let mut link = *link;
        if conditions.contains(&Condition::Damage) {
            (link.corrupt_ppm, link.duplicate_ppm) = (300, 200);
        }
        if conditions.contains(&Condition::Cuts) {
            link.cut_ppm = 200;
        }
        let mut links = Links::new(link, random.fork());
        links.meddled = conditions.contains(&Condition::Meddling);
        let mut servers: Vec<Server> = (0..*servers)
            .map(|number| Server::new(number, &key, *trust, *disks, store.clone(), random.fork()))
            .collect();
        servers.iter_mut().for_each(|server| server.rots = conditions.contains(&Condition::Rot));
        *history.borrow_mut() = vec![
            format!("{link:?} {disks:?} {settings:?}"),
            format!(
                "{clients} clients, {} servers, {trust:?}, leases of {} ms, {:?}, {conditions:?}",
                servers.len(),
                store.lease_ms_default,
                store.placement
            ),
        ];
        let mut world = World {
            now: Duration::ZERO,
            links,
            models: servers.iter().map(|_| Model::new(*trust, store.lease_ms_default)).collect(),
            seats: Vec::new(),
            ids: (0..*clients).map(|_| random.array()).collect(),
            waiting: vec![VecDeque::new(); *clients],
            running: BTreeMap::new(),
            starts: (0..servers.len()).map(|server| (server, Duration::ZERO)).collect(),
            stopping: BTreeMap::new(),
            absent: BTreeMap::new(),
            report: Report::default(),
            history,
            schedule,
            left_out,
            next_event: 0,
            key,
            servers,
            random,
        };
        for client in 0..*clients {
            for server in 0..world.servers.len() {
                let seat = world.new_seat(client, server);
                world.seats.push(seat);
            }
        }
        world
    }

    fn new_seat(&mut self, client: usize, server: usize) -> Seat {
        let number = client * self.servers.len() + server;
        let settings = self.schedule.setup.settings;
        Seat::new((number, server), self.ids[client], &self.key, settings, self.random.fork())
    }

    pub fn live(mut self) -> Result<Report, Box<Broken>> {
        match self.run() {
            Ok(()) => {
                for server in &self.servers {
                    self.report.rotten += server.rotten;
                }
                self.report.virtual_ms = millis(self.now);
                Ok(self.report)
            }
            Err(violation) => Err(Box::new(Broken { violation, at: self.now })),
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        while self.next_event < self.schedule.events.len() || self.is_busy() {
            self.turn()?;
        }
        self.heal();
        while !self.starts.is_empty() || !self.stopping.is_empty() || !self.absent.is_empty() {
            self.turn()?;
        }
        for server in 0..self.servers.len() {
            for name in self.models[server].names() {
                self.waiting[0].push_back((server, Plan::Restore { name }));
            }
            let chunks: Vec<ChunkId> = (0..CHUNKS_TIGHT as ChunkId).collect();
            self.waiting[0].push_back((server, Plan::Exists { chunks }));
        }
        while self.is_busy() {
            self.turn()?;
        }
        self.go_home()
    }

    fn is_busy(&self) -> bool {
        !self.running.is_empty() || self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Everything that can happen now, then on to the next moment.
    fn turn(&mut self) -> Result<(), Violation> {
        self.report.steps += 1;
        if self.report.steps > STEPS_MAX {
            return Err("the world goes round in circles".into());
        }
        self.happen();
        self.begin_again()?;
        self.act();
        self.settle()?;
        self.overdue()?;
        let soon = self.now + Duration::from_nanos(1);
        let expected = self.is_busy() || !self.starts.is_empty() || !self.stopping.is_empty();
        let next = if self.may_begin() { Some(soon) } else { self.next_moment() };
        self.now = match next {
            Some(next) => next.max(soon),
            None if expected => return Err("nothing will ever happen again".into()),
            None => soon,
        };
        Ok(())
    }

    /// Lets everybody do what can be done now.
    fn settle(&mut self) -> Result<(), Violation> {
        loop {
            let mut moved = false;
            for number in 0..self.seats.len() {
                let seat = &mut self.seats[number];
                moved |= seat.step(self.now, &mut self.links, &mut self.servers[seat.server]);
                if let Some(violation) = seat.violation.take() {
                    return Err(violation);
                }
            }
            for server in 0..self.servers.len() {
                if self.servers[server].step(self.now, &mut self.links) {
                    moved = true;
                    self.check(server)?;
                }
            }
            if !(moved | self.hear()?) {
                return Ok(());
            }
        }
    }

    fn next_moment(&self) -> Option<Duration> {
        let event = self.schedule.events.get(self.next_event).map(|timed| timed.at);
        let looks = |server: usize| self.servers[server].stalled_until();
        let mut due: Vec<Option<Duration>> = vec![
            event,
            self.starts.values().min().copied(),
            self.absent.values().min().copied(),
            self.links.next_arrival(self.now, looks),
        ];
        due.extend(self.seats.iter().map(|seat| seat.next_due(self.now)));
        due.extend(self.servers.iter().map(|server| server.next_due(self.now)));
        due.into_iter().flatten().min()
    }

    // ------------------------------------------------------------ work

    /// Begins what the clients are to do now.
    fn act(&mut self) {
        for client in 0..self.waiting.len() {
            if self.absent.contains_key(&client) {
                continue;
            }
            let seats = self.seats_of(client);
            while self.running.range((seats.start, 0)..(seats.end, 0)).count() < RUNNING_MAX {
                let Some((server, plan)) = self.waiting[client].pop_front() else { break };
                self.begin(seats.start + server, plan);
            }
        }
    }

    /// Whether a client that was busy no longer is.
    fn may_begin(&self) -> bool {
        let free = |client: &usize| {
            let seats = self.seats_of(*client);
            let busy = self.running.range((seats.start, 0)..(seats.end, 0)).count() >= RUNNING_MAX;
            !self.waiting[*client].is_empty() && !self.absent.contains_key(client) && !busy
        };
        (0..self.waiting.len()).any(|client| free(&client))
    }

    fn seats_of(&self, client: usize) -> std::ops::Range<usize> {
        let count = self.servers.len();
        client * count..(client + 1) * count
    }

    fn begin(&mut self, number: usize, plan: Plan) {
        self.note(format!("{} begins {plan:?}", self.seat_name(number)));
        self.report.operations += 1;
        let seat = &mut self.seats[number];
        let mut judge = Judge { model: &mut self.models[seat.server], now_ms: millis(self.now) };
        let (operation, message) = Operation::begin(plan, &mut seat.core, &mut judge);
        self.submit(number, operation, message);
    }

    fn seat_name(&self, number: usize) -> String {
        let count = self.servers.len();
        format!("client {} at server {}", number / count, number % count)
    }

    fn submit(&mut self, number: usize, operation: Operation, message: Message) {
        let options = CallOptions { timeout_ms: TIMEOUT_MS, fail_fast: false };
        let call = self.seats[number].core.submit(millis(self.now), message, options);
        self.running.insert((number, call.slot()), Running { call, operation, since: self.now });
    }

    /// Lets every call that has news go on.
    fn hear(&mut self) -> Result<bool, Violation> {
        let mut moved = false;
        for number in 0..self.seats.len() {
            while let Some(call) = self.seats[number].woken() {
                let place = (number, call.slot());
                let Some(mut running) = self.running.remove(&place) else { continue };
                if running.call != call {
                    self.running.insert(place, running);
                    continue;
                }
                moved = true;
                match self.follow(number, call, &mut running.operation)? {
                    Next::Wait => {
                        self.running.insert(place, running);
                    }
                    Next::Call(message) => self.submit(number, running.operation, message),
                    Next::Over => {
                        self.note(format!("{} ended {:?}", self.seat_name(number), running.operation.plan));
                    }
                }
            }
        }
        Ok(moved)
    }

    fn follow(&mut self, number: usize, call: CallId, operation: &mut Operation) -> Result<Next, Violation> {
        while let Some(progress) = self.seats[number].progress(call) {
            self.digest(format!("{number} {call:?} {progress:?}").as_bytes());
            let seat = &mut self.seats[number];
            let mut judge = Judge { model: &mut self.models[seat.server], now_ms: millis(self.now) };
            let next = operation.progress(progress, &mut seat.core, &mut judge);
            match next.map_err(|violation| format!("{}: {violation}", self.seat_name(number)))? {
                Next::Wait => {}
                next => return Ok(next),
            }
        }
        Ok(Next::Wait)
    }

    // ------------------------------------------------------------ promises

    fn overdue(&self) -> Result<(), Violation> {
        let late = Duration::from_millis(TIMEOUT_MS + LATE_MS_MAX);
        match self.running.values().find(|running| self.now > running.since + late) {
            None => Ok(()),
            Some(running) => Err(format!("{:?} hangs past its deadline", running.operation.plan)),
        }
    }

    /// Holds a server that did something against the model, and against its own books.
    fn check(&mut self, server: usize) -> Result<(), Violation> {
        self.servers[server].check()?;
        let Some(service) = self.servers[server].service() else { return Ok(()) };
        let (store, model) = (service.store(), &mut self.models[server]);
        let fails = |violation: Violation| format!("server {server}: {violation}");
        let page = store.list_manifests(NAMESPACE, &[], &[], limits::LIST_ENTRIES_MAX as usize);
        let mut shown: BTreeMap<Name, u64> = BTreeMap::new();
        for entry in &page.entries {
            let [name] = entry.name[..] else { return Err(fails("a name nobody gave".into())) };
            shown.insert(name, entry.generation);
        }
        for name in model.names() {
            model.shows(name, shown.remove(&name)).map_err(fails)?;
        }
        if let Some((name, version)) = shown.pop_first().filter(|_| model.trust() > Trust::Bytes) {
            return Err(fails(format!("name {name} is {version}, and nobody put it")));
        }
        for chunk in model.must_be_there(millis(self.now)).into_keys() {
            if store.holds(StoreKey::new(NAMESPACE, &key(chunk))).is_none() {
                return Err(fails(format!("chunk {chunk} was acknowledged, and is not there")));
            }
        }
        Ok(())
    }

    // ------------------------------------------------------------ what befalls it

    /// Everything that is due by now, but for what is left out.
    fn happen(&mut self) {
        while let Some(timed) = self.schedule.events.get(self.next_event).filter(|timed| timed.at <= self.now)
        {
            let (number, event) = (self.next_event, timed.event.clone());
            self.next_event += 1;
            if !self.left_out.contains(&number) {
                self.befall(event);
            }
        }
    }

    fn befall(&mut self, event: Event) {
        if !matches!(event, Event::Act { .. } | Event::Condition(_)) {
            self.note(format!("{event:?}"));
        }
        match event {
            Event::Condition(_) => {}
            Event::Act { client, server, plan } => self.waiting[client].push_back((server, plan)),
            Event::Cut { number } => {
                if let Some(line) = self.links.choose(number) {
                    self.report.cuts += 1;
                    self.links.cut(line, self.now);
                }
            }
            Event::ServerDies { server, power, for_ } => self.kill_server(server, power, for_),
            Event::ServerStops { server, for_ } => {
                if self.servers[server].service().is_some() {
                    self.report.stops += 1;
                    self.servers[server].stop(self.now);
                    self.stopping.insert(server, for_);
                }
            }
            Event::ClientDies { client, for_ } => self.kill_client(client, for_),
            Event::ServerStalls { server, for_ } => {
                self.report.stalls += 1;
                self.servers[server].stall(self.now + for_);
            }
            Event::ClockJumps { by } => {
                self.report.jumps += 1;
                self.now += by;
            }
            Event::DiskFails { server, disk, fault } => {
                self.report.disk_faults += 1;
                self.servers[server].disk_fails(disk, fault);
            }
        }
    }

    fn kill_server(&mut self, server: usize, power: bool, for_: Duration) {
        if let Some(service) = self.servers[server].service() {
            let counters = service.store().counters();
            self.report.evicted += counters.values_evicted;
            self.report.moved += counters.records_moved;
            if power {
                self.report.power_losses += 1;
            } else {
                self.report.kills += 1;
            }
            self.servers[server].crash(power);
            self.links.release_all(End::Server, server, self.now);
            self.models[server].server_died(power);
            self.stopping.remove(&server);
            self.starts.insert(server, self.now + for_);
        }
    }

    fn kill_client(&mut self, client: usize, for_: Duration) {
        self.report.clients_killed += 1;
        for number in self.seats_of(client) {
            self.links.release_all(End::Client, number, self.now);
            let server = number % self.servers.len();
            self.seats[number] = self.new_seat(client, server);
            let calls: Vec<_> =
                self.running.range((number, 0)..(number + 1, 0)).map(|(place, _)| *place).collect();
            for place in calls {
                if let Some(mut running) = self.running.remove(&place) {
                    running.operation.give_up(&mut self.models[server]);
                }
            }
        }
        self.absent.insert(client, self.now + for_);
    }

    /// Starts what is down long enough, and ends what has stopped.
    fn begin_again(&mut self) -> Result<(), Violation> {
        let due: Vec<_> =
            self.starts.iter().filter(|(_, at)| **at <= self.now).map(|(server, _)| *server).collect();
        for server in due {
            self.starts.remove(&server);
            self.note(format!("server {server} starts"));
            self.servers[server].start(self.now)?;
            self.check(server)?;
        }
        self.absent.retain(|_, until| *until > self.now);
        let stopped: Vec<_> =
            self.stopping.keys().copied().filter(|server| self.servers[*server].has_stopped()).collect();
        for server in stopped {
            let for_ = self.stopping.remove(&server).unwrap_or_default();
            self.kill_server(server, true, for_);
        }
        Ok(())
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        self.note("heals".into());
        self.links.options = LinkOptions::reliable();
        self.links.meddled = false;
        self.links.cut_all(self.now);
        self.servers.iter_mut().for_each(Server::heal);
        self.starts.values_mut().for_each(|at| *at = self.now);
        self.absent.clear();
    }

    /// Everybody goes home; nothing may be left behind, but for what is leased or allocated, and that not for ever.
    fn go_home(&mut self) -> Result<(), Violation> {
        self.note("goes home".into());
        self.seats.iter_mut().for_each(|seat| seat.core.close());
        self.quiet_down(Server::is_quiet)?;
        self.now += Duration::from_millis(u64::from(limits::LEASE_MS_MAX) + 1);
        self.quiet_down(Server::is_idle)?;
        for server in &self.servers {
            let Some(service) = server.service() else { continue };
            let counters = service.store().counters();
            self.report.evicted += counters.values_evicted;
            self.report.moved += counters.records_moved;
        }
        Ok(())
    }

    /// Lets end what is under way, until every client, every line and every server is as it should be.
    fn quiet_down(&mut self, is_quiet: fn(&Server) -> bool) -> Result<(), Violation> {
        for _ in 0..QUIET_STEPS_MAX {
            self.settle()?;
            let quiet = self.seats.iter().all(Seat::is_idle) && self.servers.iter().all(is_quiet);
            if quiet && self.links.len() == 0 {
                return Ok(());
            }
            self.now += Duration::from_millis(1);
        }
        let seats = self.seats.iter().filter(|seat| !seat.is_idle()).map(Seat::held);
        let servers = self.servers.iter().filter(|server| !is_quiet(server)).map(Server::held);
        let held: Vec<String> = seats.chain(servers).collect();
        Err(format!("everybody went home, and left behind: {held:?}, {} lines", self.links.len()))
    }

    // ------------------------------------------------------------ records

    fn note(&mut self, what: String) {
        self.digest(what.as_bytes());
        self.history.borrow_mut().push(format!("{:>12.6} {what}", self.now.as_secs_f64()));
    }

    /// FNV-1a, over all that happens.
    fn digest(&mut self, bytes: &[u8]) {
        let now = self.now.as_nanos() as u64;
        for byte in now.to_le_bytes().iter().chain(bytes) {
            self.report.digest = (self.report.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
