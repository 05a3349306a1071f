//! The world: virtual time, a workload, faults, and the promises that must hold.
//!
//! Promises, checked at every answer: no byte is ever wrong; an acknowledged manifest is there, whole, until it is replaced
//! or deleted; an acknowledged value survives the server's process; every call ends by its deadline; at the end,
//! with all faults healed, everything acknowledged is read back, and the server holds nothing for anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use memkv_client::core::{CallId, CallOptions, Settings};
use memkv_server::store;
use memkv_transport::link::LinkOptions;
use memkv_wire::mac::Key;

use crate::client::Client;
use crate::content::{CHUNKS, ChunkId, Chunks, Version};
use crate::links::Links;
use crate::model::{Model, Name};
use crate::operation::{Judge, Next, Operation, Plan, Violation};
use crate::random::Random;
use crate::server::{DiskOptions, Server, millis};

const NAMES: u64 = 6;
const ACTIONS: u32 = 60;
/// Operations at a time.
const RUNNING_MAX: usize = 6;
/// Room for one block and little else.
const TIGHT_EXTENT_BYTES: u32 = (1 << 20) + (64 << 10);
const TIMEOUT_MS: u64 = 4000;
/// A world that takes more steps than this goes round in circles.
const STEPS_MAX: u64 = 2_000_000;

/// Links that carry a few bytes at a time make a world take minutes: a fuzzer would look for nothing else.
const CHOSEN_SEGMENT_SIZE_BYTES_MIN: usize = 4096;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub operations: u32,
    pub kills: u32,
    pub power_losses: u32,
    pub cuts: u32,
    /// Reads that the disks damaged.
    pub rotten: u64,
    pub virtual_ms: u64,
    pub steps: u64,
    /// Of everything that happened, in order: equal for equal runs.
    pub digest: u64,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub violation: String,
    pub at: Duration,
    /// What the client did and what befell the world.
    pub history: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} at {:?}: {}", self.seed, self.at, self.violation)?;
        self.history.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Runs the world of a seed.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    live(World::new(Random::new(seed), 1), seed)
}

/// Runs the world in which these bytes decide what happens, as long as they last. A failure has no seed.
pub fn run_choices(choices: &[u8]) -> Result<Report, Box<Failure>> {
    live(World::new(Random::choosing(choices), CHOSEN_SEGMENT_SIZE_BYTES_MIN), 0)
}

fn live(mut world: World, seed: u64) -> Result<Report, Box<Failure>> {
    match world.live() {
        Ok(()) => Ok(world.finish()),
        Err(violation) => Err(Box::new(Failure { seed, violation, at: world.now, history: world.history })),
    }
}

struct World {
    now: Duration,
    random: Random,
    links: Links,
    server: Server,
    client: Client,
    running: BTreeMap<usize, Running>,
    model: Model,
    chunks: Chunks,
    next_action: Duration,
    next_fault: Duration,
    restart_at: Option<Duration>,
    actions_left: u32,
    version: Version,
    faults: Faults,
    report: Report,
    history: Vec<String>,
}

struct Running {
    call: CallId,
    operation: Operation,
    since: Duration,
}

/// What this seed's world suffers from.
#[derive(Clone, Copy, Debug)]
struct Faults {
    kills: bool,
    power: bool,
    cuts: bool,
    rot: bool,
    /// The disks hold less than is written.
    tight: bool,
}

impl World {
    fn new(mut random: Random, segment_size_bytes_min: usize) -> World {
        let faults = Faults {
            kills: random.below(4) != 0,
            power: random.below(2) == 0,
            cuts: random.below(4) != 0,
            rot: random.below(8) == 0,
            tight: random.below(3) == 0,
        };
        let key = Key::from_bytes(random.array());
        let disks = DiskOptions {
            devices: 1 + random.below(3) as usize,
            capacity_bytes: if faults.tight {
                (14 + random.below(10)) * u64::from(TIGHT_EXTENT_BYTES)
            } else {
                192 << 20
            },
            latency_max: Duration::from_micros(50 + random.below(20_000)),
            rot_ppm: if faults.rot { 20_000 } else { 0 },
        };
        let config = store::Config {
            placement: if random.below(2) == 0 { store::Placement::Rotate } else { store::Placement::Spread },
            extent_bytes: if faults.tight { TIGHT_EXTENT_BYTES } else { store::EXTENT_BYTES_DEFAULT },
            ..store::Config::default()
        };
        let damage = random.below(3) == 0;
        let link = LinkOptions {
            delay_max: Duration::from_micros(50 + random.below(5_000)),
            segment_size_bytes_max: (1 + random.below(200_000) as usize).max(segment_size_bytes_min),
            corrupt_ppm: if damage { 300 } else { 0 },
            duplicate_ppm: if damage { 200 } else { 0 },
            cut_ppm: if faults.cuts { 200 } else { 0 },
            ..LinkOptions::reliable()
        };
        let settings = Settings { connections: 1 + random.below(4) as u16, ..Settings::default() };
        let mut server = Server::new(&key, disks, config, random.fork());
        server.start(Duration::ZERO);
        World {
            now: Duration::ZERO,
            links: Links::new(link, random.fork()),
            client: Client::new(&key, settings, random.fork()),
            server,
            running: BTreeMap::new(),
            model: Model::default(),
            chunks: Chunks::default(),
            next_action: Duration::ZERO,
            next_fault: Duration::from_millis(random.below(200)),
            restart_at: None,
            actions_left: ACTIONS,
            version: 0,
            faults,
            report: Report::default(),
            history: vec![format!("{faults:?} {disks:?} {link:?} {settings:?}")],
            random,
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        while self.actions_left > 0 || !self.running.is_empty() {
            self.turn()?;
        }
        self.heal();
        for name in self.model.names() {
            self.begin(Plan::Restore { name });
        }
        let chunks: Vec<ChunkId> = (0..CHUNKS as ChunkId).collect();
        self.begin(Plan::Exists { chunks });
        while !self.running.is_empty() {
            self.turn()?;
        }
        self.end()
    }

    /// Everything that can happen now, then on to the next moment.
    fn turn(&mut self) -> Result<(), Violation> {
        self.report.steps += 1;
        if self.report.steps > STEPS_MAX {
            return Err("the world goes round in circles".into());
        }
        self.act();
        self.suffer();
        loop {
            let moved = self.client.step(self.now, &mut self.links, &mut self.server)
                | self.server.step(self.now, &mut self.links)
                | self.hear()?;
            if !moved {
                break;
            }
        }
        self.overdue()?;
        let next = self.next_moment().ok_or("nothing will ever happen again")?;
        self.now = next.max(self.now + Duration::from_nanos(1));
        Ok(())
    }

    fn next_moment(&self) -> Option<Duration> {
        let action = (self.actions_left > 0 && self.running.len() < RUNNING_MAX).then_some(self.next_action);
        let fault = (self.actions_left > 0).then_some(self.next_fault);
        let due = [
            action,
            fault,
            self.restart_at,
            self.links.next_arrival(self.now),
            self.client.next_due(self.now),
            self.server.next_due(self.now),
        ];
        due.into_iter().flatten().min()
    }

    // ------------------------------------------------------------ work

    fn act(&mut self) {
        while self.actions_left > 0 && self.running.len() < RUNNING_MAX && self.next_action <= self.now {
            self.actions_left -= 1;
            self.next_action = self.now + Duration::from_micros(self.random.below(40_000));
            let plan = self.draw();
            let busy = |running: &Running| running.operation.plan.name() == plan.name();
            if plan.name().is_none() || !self.running.values().any(busy) {
                self.begin(plan);
            }
        }
    }

    fn draw(&mut self) -> Plan {
        let name = self.random.below(NAMES) as Name;
        match self.random.below(20) {
            0..7 => {
                self.version += 1;
                Plan::Save { name, version: self.version, chunks: self.draw_chunks(12) }
            }
            7..11 => Plan::Restore { name },
            11..13 => Plan::Write { chunks: self.draw_chunks(4) },
            13..15 => Plan::Read { chunks: self.draw_chunks(6) },
            15 => Plan::Exists { chunks: self.draw_chunks(20) },
            16 => Plan::Delete { chunks: self.draw_chunks(3) },
            17 => Plan::DeleteManifest { name },
            18 => Plan::List,
            _ => Plan::Piecewise { chunk: self.random.below(CHUNKS) as ChunkId },
        }
    }

    fn draw_chunks(&mut self, count_max: u64) -> Vec<ChunkId> {
        let count = 1 + self.random.below(count_max);
        let mut chunks: Vec<ChunkId> = (0..count).map(|_| self.random.below(CHUNKS) as ChunkId).collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    fn begin(&mut self, plan: Plan) {
        self.note(format!("begins {plan:?}"));
        // From here on a delete may take effect at any moment.
        if let Plan::Delete { chunks } = &plan {
            chunks.iter().for_each(|chunk| self.model.chunk_may_be_gone(*chunk));
        }
        self.report.operations += 1;
        let (operation, message) =
            Operation::begin(plan, &mut self.client.core, &mut self.chunks, &self.model);
        self.submit(operation, message);
    }

    fn submit(&mut self, operation: Operation, message: memkv_client::core::Message) {
        let options = CallOptions { timeout_ms: TIMEOUT_MS, fail_fast: false };
        let call = self.client.core.submit(millis(self.now), message, options);
        self.running.insert(call.slot(), Running { call, operation, since: self.now });
    }

    /// Lets every call that has news go on.
    fn hear(&mut self) -> Result<bool, Violation> {
        let mut moved = false;
        while let Some(call) = self.client.woken() {
            let Some(mut running) = self.running.remove(&call.slot()) else { continue };
            if running.call != call {
                self.running.insert(call.slot(), running);
                continue;
            }
            moved = true;
            match self.follow(call, &mut running.operation)? {
                Next::Wait => {
                    self.running.insert(call.slot(), running);
                }
                Next::Call(message) => self.submit(running.operation, message),
                Next::Over => self.note(format!("ended {:?}", running.operation.plan)),
            }
        }
        Ok(moved)
    }

    fn follow(&mut self, call: CallId, operation: &mut Operation) -> Result<Next, Violation> {
        while let Some(progress) = self.client.progress(call) {
            self.digest(format!("{call:?} {progress:?}").as_bytes());
            let mut judge = Judge {
                model: &mut self.model,
                chunks: &mut self.chunks,
                rot: self.faults.rot,
                tight: self.faults.tight,
            };
            match operation.progress(progress, &mut self.client.core, &mut judge)? {
                Next::Wait => {}
                next => return Ok(next),
            }
        }
        Ok(Next::Wait)
    }

    fn overdue(&self) -> Result<(), Violation> {
        let late = |running: &&Running| self.now > running.since + Duration::from_millis(TIMEOUT_MS + 10);
        match self.running.values().find(late) {
            None => Ok(()),
            Some(running) => Err(format!("{:?} hangs past its deadline", running.operation.plan)),
        }
    }

    // ------------------------------------------------------------ faults

    fn suffer(&mut self) {
        if self.restart_at.is_some_and(|at| at <= self.now) {
            self.restart_at = None;
            self.note("the server starts".into());
            self.server.start(self.now);
        }
        if self.actions_left == 0 || self.next_fault > self.now {
            return;
        }
        self.next_fault = self.now + Duration::from_millis(20 + self.random.below(400));
        match self.random.below(3) {
            0 if self.faults.cuts => {
                let number = self.random.next();
                if let Some(link) = self.links.choose(number) {
                    self.note(format!("link {link} is cut"));
                    self.report.cuts += 1;
                    self.links.cut(link, self.now);
                }
            }
            1 if self.faults.kills && self.server.is_running() => self.crash(false),
            2 if self.faults.power && self.server.is_running() => self.crash(true),
            _ => {}
        }
    }

    fn crash(&mut self, power: bool) {
        self.note(if power { "the power fails" } else { "the server is killed" }.into());
        self.server.crash(power);
        self.links.cut_all(self.now);
        self.model.server_died();
        if power {
            self.report.power_losses += 1;
            self.model.power_lost();
        } else {
            self.report.kills += 1;
        }
        self.restart_at = Some(self.now + Duration::from_millis(self.random.below(500)));
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        self.note("heals".into());
        self.links.options = LinkOptions::reliable();
        self.links.cut_all(self.now);
        if !self.server.is_running() {
            self.restart_at = Some(self.now);
        }
    }

    /// Everybody goes home; nothing may be left behind.
    fn end(&mut self) -> Result<(), Violation> {
        self.client.core.close();
        for _ in 0..1000 {
            self.turn_quietly()?;
        }
        match self.server.requests_open() {
            0 => Ok(()),
            open => Err(format!("{open} requests are still open when every client is gone")),
        }
    }

    fn turn_quietly(&mut self) -> Result<(), Violation> {
        self.client.step(self.now, &mut self.links, &mut self.server);
        self.links.cut_all(self.now);
        self.server.step(self.now, &mut self.links);
        self.now += Duration::from_millis(1);
        Ok(())
    }

    // ------------------------------------------------------------ records

    fn note(&mut self, what: String) {
        self.digest(what.as_bytes());
        self.history.push(format!("{:>12.6} {what}", self.now.as_secs_f64()));
    }

    /// FNV-1a, over all that happens.
    fn digest(&mut self, bytes: &[u8]) {
        let now = self.now.as_nanos() as u64;
        for byte in now.to_le_bytes().iter().chain(bytes) {
            self.report.digest = (self.report.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(mut self) -> Report {
        self.report.rotten = self.server.rotten;
        self.report.virtual_ms = millis(self.now);
        self.report
    }
}
