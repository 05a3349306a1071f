//! What a seed makes of a world: how it is set up, and everything that is to happen in it, by number.
//!
//! All of it is drawn before the world begins, so that leaving some of it out changes nothing about the rest: that is how a failure's
//! history is shrunk. What follows from the world's course (how long a command takes, where a link tears a write) is drawn
//! as it comes.

use std::collections::BTreeSet;
use std::time::Duration;

use memkv_client::core::Settings;
use memkv_server::store;
use memkv_transport::link::LinkOptions;

use crate::content::{CHUNKS, CHUNKS_TIGHT, ChunkId, Version};
use crate::disk::DiskFault;
use crate::model::{Name, Trust};
use crate::operation::Plan;
use crate::random::Random;
use crate::server::DiskOptions;

const NAMES: u64 = 6;
const ACTIONS_MIN: u64 = 40;
const ACTIONS_SPREAD: u64 = 60;
/// Room for one block and little else.
const TIGHT_EXTENT_BYTES: u32 = (1 << 20) + (64 << 10);
/// Versions that come late lie between two others.
const VERSION_STEP: Version = 1000;

/// How a world is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub clients: usize,
    pub servers: usize,
    pub trust: Trust,
    pub disks: DiskOptions,
    pub store: store::Config,
    pub link: LinkOptions,
    pub settings: Settings,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    Condition(Condition),
    /// A client begins an operation.
    Act {
        client: usize,
        server: usize,
        plan: Plan,
    },
    /// One line breaks, whichever the number chooses.
    Cut {
        number: u64,
    },
    /// The server's process dies, with `power` the machine's power goes; it starts again after a while.
    ServerDies {
        server: usize,
        power: bool,
        for_: Duration,
    },
    /// The server is asked to stop, does, and starts again.
    ServerStops {
        server: usize,
        for_: Duration,
    },
    ClientDies {
        client: usize,
        for_: Duration,
    },
    /// The server's process does not run for a while, though its clock does.
    ServerStalls {
        server: usize,
        for_: Duration,
    },
    /// Nothing runs for a while, and then everybody's clock has jumped.
    ClockJumps {
        by: Duration,
    },
    DiskFails {
        server: usize,
        disk: usize,
        fault: DiskFault,
    },
}

/// Something that is so from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Bits of what lines carry flip, and segments arrive twice.
    Damage,
    /// Lines break by themselves.
    Cuts,
    /// Somebody repeats and drops frames.
    Meddling,
    /// Bits of what disks read flip.
    Rot,
}

#[derive(Clone, Debug)]
pub struct Timed {
    pub at: Duration,
    pub event: Event,
}

/// A world before it begins. Events have the numbers of their places.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub setup: Setup,
    pub events: Vec<Timed>,
}

impl Schedule {
    /// `segment_size_bytes_min`: links carry at least so many bytes at a time.
    pub fn draw(random: &mut Random, segment_size_bytes_min: usize) -> Schedule {
        let mut draw = Draw { random, version: 0, late: 0 };
        let trust = draw.trust();
        let setup = draw.setup(trust, segment_size_bytes_min);
        let mut events = draw.conditions(trust);
        let actions = draw.actions(&setup);
        let end = actions.last().map_or(Duration::ZERO, |last| last.at);
        events.extend(actions);
        events.extend(draw.faults(&setup, end));
        events.sort_by_key(|timed| timed.at);
        Schedule { setup, events }
    }

    /// The conditions that hold when these events are left out.
    pub fn conditions(&self, left_out: &BTreeSet<usize>) -> BTreeSet<Condition> {
        let there = self.events.iter().enumerate().filter(|(number, _)| !left_out.contains(number));
        there
            .filter_map(|(_, timed)| match timed.event {
                Event::Condition(condition) => Some(condition),
                _ => None,
            })
            .collect()
    }
}

struct Draw<'a> {
    random: &'a mut Random,
    version: Version,
    /// How many came late; no two are the same.
    late: Version,
}

impl Draw<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn micros(&mut self, from: u64, spread: u64) -> Duration {
        Duration::from_micros(from + self.random.below(spread))
    }

    fn trust(&mut self) -> Trust {
        match self.below(12) {
            0..5 => Trust::Full,
            5..9 => Trust::Evicting,
            9..11 => Trust::Losing,
            _ => Trust::Bytes,
        }
    }

    fn setup(&mut self, trust: Trust, segment_size_bytes_min: usize) -> Setup {
        let tight = trust == Trust::Evicting || trust < Trust::Evicting && self.below(2) == 0;
        let disks = DiskOptions {
            devices: 1 + self.below(3) as usize,
            capacity_bytes: if tight {
                (10 + self.below(8)) * u64::from(TIGHT_EXTENT_BYTES)
            } else {
                192 << 20
            },
            latency_max: self.micros(50, if tight { 6_000 } else { 20_000 }),
        };
        let store = store::Config {
            placement: if self.below(2) == 0 { store::Placement::Rotate } else { store::Placement::Spread },
            extent_bytes: if tight { TIGHT_EXTENT_BYTES } else { store::EXTENT_BYTES_DEFAULT },
            lease_ms_default: if tight { 20 + self.below(400) } else { 10_000 },
            // A small one is rewritten again and again.
            checkpoint_bytes: if self.below(3) == 0 { 4096 << self.below(4) } else { u64::MAX },
            ..store::Config::default()
        };
        let link = LinkOptions {
            delay_max: self.micros(50, 5_000),
            segment_size_bytes_max: (1 + self.below(200_000) as usize).max(segment_size_bytes_min),
            ..LinkOptions::reliable()
        };
        Setup {
            clients: 1 + self.below(3) as usize,
            servers: [1, 1, 1, 2, 2, 3][self.below(6) as usize],
            trust,
            disks,
            store,
            link,
            settings: Settings { connections: 1 + self.below(4) as u16, ..Settings::default() },
        }
    }

    fn conditions(&mut self, trust: Trust) -> Vec<Timed> {
        let mut conditions = Vec::new();
        let mut condition = |holds: bool, condition: Condition| {
            if holds {
                conditions.push(Timed { at: Duration::ZERO, event: Event::Condition(condition) });
            }
        };
        condition(self.below(4) == 0, Condition::Damage);
        condition(self.below(2) == 0, Condition::Cuts);
        condition(self.below(4) == 0, Condition::Meddling);
        condition(trust == Trust::Losing && self.below(2) == 0, Condition::Rot);
        conditions
    }

    fn actions(&mut self, setup: &Setup) -> Vec<Timed> {
        let count = ACTIONS_MIN + self.below(ACTIONS_SPREAD);
        let gap_micros = 5_000 + self.below(30_000);
        let chunks = if setup.store.lease_ms_default < 10_000 { CHUNKS_TIGHT } else { CHUNKS };
        let mut at = Duration::ZERO;
        let mut actions = Vec::new();
        for _ in 0..count {
            at += self.micros(0, gap_micros);
            let client = self.below(setup.clients as u64) as usize;
            let server = self.below(setup.servers as u64) as usize;
            let plan = self.plan(chunks);
            actions.push(Timed { at, event: Event::Act { client, server, plan } });
        }
        actions
    }

    fn plan(&mut self, chunks: u64) -> Plan {
        let name = self.below(NAMES) as Name;
        match self.below(20) {
            0..7 => {
                let version = self.version();
                Plan::Save { name, version, chunks: self.chunks(chunks, 12) }
            }
            7..11 => Plan::Restore { name },
            11..13 => Plan::Write { chunks: self.chunks(chunks, 6) },
            13..15 => Plan::Read { chunks: self.chunks(chunks, 6) },
            15 => Plan::Exists { chunks: self.chunks(chunks, 20) },
            16 => Plan::Delete { chunks: self.chunks(chunks, 3) },
            17 => Plan::DeleteManifest { name },
            18 => Plan::List,
            _ => Plan::Piecewise { chunk: self.below(chunks) as ChunkId },
        }
    }

    /// The next version, or one that is older than some before it.
    fn version(&mut self) -> Version {
        self.version += VERSION_STEP;
        if self.below(8) > 0 {
            return self.version;
        }
        self.late += 1;
        let before = self.below(3).min(self.version / VERSION_STEP - 1) + 1;
        self.version - before * VERSION_STEP + self.late
    }

    fn chunks(&mut self, of: u64, count_max: u64) -> Vec<ChunkId> {
        let count = 1 + self.below(count_max);
        let mut chunks: Vec<ChunkId> = (0..count).map(|_| self.below(of) as ChunkId).collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    /// What goes wrong until the last action.
    fn faults(&mut self, setup: &Setup, end: Duration) -> Vec<Timed> {
        let mut kinds = vec![0; 2 + self.below(3) as usize];
        kinds.iter_mut().for_each(|kind| *kind = self.below(8));
        let mut events = Vec::new();
        let mut at = self.micros(0, 200_000);
        while at < end {
            let kind = kinds[self.below(kinds.len() as u64) as usize];
            let event = self.fault(kind, setup);
            events.extend(event.map(|event| Timed { at, event }));
            at += self.micros(20_000, 300_000);
        }
        events
    }

    fn fault(&mut self, kind: u64, setup: &Setup) -> Option<Event> {
        let server = self.below(setup.servers as u64) as usize;
        let for_ = self.micros(0, 400_000);
        let of = |faults: &[DiskFault], number: u64| faults[number as usize % faults.len()];
        let number = self.below(256);
        Some(match kind {
            0 => Event::Cut { number },
            1 => Event::ServerDies { server, power: false, for_ },
            2 | 3 => Event::ServerDies { server, power: true, for_ },
            4 => Event::ServerStops { server, for_ },
            5 => Event::ClientDies { client: self.below(setup.clients as u64) as usize, for_ },
            6 if self.below(4) == 0 => Event::ClockJumps { by: self.micros(0, 6_000_000) },
            6 => Event::ServerStalls { server, for_: for_ / 2 },
            _ => {
                let disk = self.below(setup.disks.devices as u64) as usize;
                let fault = match setup.trust {
                    Trust::Full | Trust::Evicting => {
                        return Some(Event::ServerDies { server, power: true, for_ });
                    }
                    Trust::Losing => of(&DiskFault::HONEST, number),
                    Trust::Bytes if !number.is_multiple_of(3) => of(&DiskFault::LIES, number / 3),
                    Trust::Bytes => of(&DiskFault::HONEST, number / 3),
                };
                Event::DiskFails { server, disk, fault }
            }
        })
    }
}
