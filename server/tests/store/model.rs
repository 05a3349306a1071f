//! Random operations against plain maps, over devices that misbehave. One seed reproduces a run.
//!
//! Some devices fail honestly (EIO, short transfers, a full file system, failed flushes); some lie as well (torn and misdirected
//! writes, lost flushes, bits that rot on the way or where they lie). The power goes at times, and what was not flushed may be lost.
//!
//! Whatever happens: what is read is what was put, and never what the maps say is not there. Over a crash, honest devices that are all
//! still there keep every acknowledged manifest and delete; devices that lied, or left, may have lost anything, and still no
//! byte is wrong.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use memkv_server::io::{Device, Devices, Faults, FaultyDevice};
use memkv_server::store::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ram::Ram;
use crate::rig::{CLIENT, EXTENT, Rig, blocks, bytes, config, key, options};

const KEYS: u64 = 40;
const NAMES: u64 = 6;
const STEPS: usize = 250;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    generation: u64,
    chunks: Vec<(u64, u64)>,
}

struct World {
    seed: u64,
    rng: StdRng,
    rams: Vec<Ram>,
    /// They lie, or not.
    faults: Faults,
    rig: Option<Rig>,
    /// What is stored: the version of each key, the session of each name.
    values: HashMap<u64, u64>,
    sessions: HashMap<u64, Session>,
    /// Versions and generations ever put.
    versions: HashMap<u64, u64>,
    generations: HashMap<u64, Vec<Session>>,
    /// Names and keys whose last change was not acknowledged.
    unsure: bool,
    lies: bool,
    /// A device failed or was left out, or something on it could not be read.
    lost: bool,
    /// Something made room for others.
    evicted: bool,
    trace: DefaultHasher,
    reads: u64,
    misses: u64,
    opened: u64,
    devices_failed: u64,
}

fn value(key: u64, version: u64) -> Vec<u8> {
    let length = match key % 8 {
        0..5 => 1 + key as usize * 331,
        5 | 6 => 66_000 + key as usize * 913,
        _ => BLOCK_BYTES + 100_000,
    };
    bytes(length, key * 1000 + version + 1)
}

fn body(name: u64, generation: u64) -> Vec<u8> {
    bytes(1 + (generation as usize * 997) % 9000, name * 77_777 + generation)
}

fn key_name(key: u64) -> Vec<u8> {
    format!("key-{key}").into_bytes()
}

fn session_name(name: u64) -> Vec<u8> {
    format!("session-{name}").into_bytes()
}

/// As the shell reads: an unreadable device is no proof that the bytes are wrong.
fn read(rig: &mut Rig, plan: &ReadPlan) -> Result<Vec<u8>, Verdict> {
    let result = try_read(&rig.devices, plan);
    let verdict = result.as_ref().err().copied().unwrap_or(Verdict::Good);
    rig.store.release(rig.now_ms, plan.pin, verdict);
    rig.settle();
    result
}

fn try_read(devices: &Devices, plan: &ReadPlan) -> Result<Vec<u8>, Verdict> {
    let mut out = Vec::new();
    for record in &plan.records {
        let device = devices.device(record.device).map_err(Verdict::Unreadable)?;
        let mut head = vec![0; record.head_bytes];
        device.read(record.head_offset, &mut head).map_err(Verdict::Unreadable)?;
        let mut data = vec![0; record.data_bytes];
        if record.data_bytes > 0 {
            device.read(record.data_offset, &mut data).map_err(Verdict::Unreadable)?;
        }
        let sums = record.check_head(&head).map_err(Verdict::Corrupt)?;
        for place in &record.blocks {
            let from = if place.in_head { &head } else { &data };
            let part = &from[place.at..place.at + place.length];
            record.check_block(&sums, place.block, part).map_err(Verdict::Corrupt)?;
            out.extend_from_slice(part);
        }
    }
    Ok(out)
}

/// Reads of a batch run one after another, so that the faults strike in the same order each time.
struct InOrder<'a>(&'a mut Devices);

impl Disks for InOrder<'_> {
    fn count(&self) -> u16 {
        self.0.count()
    }

    fn geometry(&self, slot: u16) -> Result<Geometry, IoError> {
        self.0.geometry(slot)
    }

    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, ReadResult)> {
        requests.into_iter().flat_map(|request| self.0.read_batch(vec![request])).collect()
    }

    fn write(&mut self, slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        Disks::write(self.0, slot, offset, bytes)
    }

    fn flush(&mut self, slot: u16) -> Result<(), IoError> {
        Disks::flush(self.0, slot)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let lies = rng.random_bool(0.5);
        let mut faults = Faults {
            read_error: 400,
            write_error: 100,
            flush_error: 100,
            no_space: 2_000,
            short_read: 400,
            short_write: 100,
            ..Faults::default()
        };
        if seed.is_multiple_of(16) {
            faults.latency = Duration::from_nanos(1);
        }
        if lies {
            let liar = Faults { torn_write: 5_000, misdirected_write: 3_000, lost_flush: 50_000, ..faults };
            faults = Faults { bit_rot: 3_000, ..liar };
        }
        let capacity_bytes = (1 << 20) + u64::from(EXTENT) * rng.random_range(14..20);
        let rams: Vec<_> = (0..rng.random_range(1..4)).map(|_| Ram::new(capacity_bytes)).collect();
        let mut devices = Devices::new(rams.iter().map(|ram| Arc::new(ram.clone()) as _).collect());
        format(&mut devices, &config(), options()).unwrap();
        let mut world = Self {
            seed,
            rng,
            rams,
            faults,
            rig: None,
            values: HashMap::new(),
            sessions: HashMap::new(),
            versions: HashMap::new(),
            generations: HashMap::new(),
            unsure: false,
            lies,
            lost: false,
            evicted: false,
            trace: DefaultHasher::new(),
            reads: 0,
            misses: 0,
            opened: 0,
            devices_failed: 0,
        };
        world.open();
        world
    }

    /// Opens the store on devices with a sequence of faults of their own. When none can be used any more, that is the end.
    fn open(&mut self) {
        let faulty = |ram: &Ram, seed| -> Arc<dyn Device> {
            Arc::new(FaultyDevice::new(ram.clone(), self.faults, seed))
        };
        let list = self.rams.iter().map(|ram| faulty(ram, self.rng.random())).collect();
        let mut devices = Devices::new(list);
        let opened = Store::open(0, config(), &mut InOrder(&mut devices));
        self.opened += 1;
        match opened {
            Ok((store, report)) => {
                let left_out = !report.problems.is_empty() || !report.absent.is_empty();
                // A record that could not be read is none.
                self.lost |= left_out || report.manifests_dropped > 0;
                self.rig = Some(Rig::with(store, report, devices));
                self.audit();
            }
            Err(error) => {
                assert!(
                    matches!(error, OpenError::Unusable { .. } | OpenError::Unfinished { .. }),
                    "seed {}: {error}",
                    self.seed
                );
                self.rig = None;
            }
        }
    }

    fn audit(&mut self) {
        let Some(rig) = &mut self.rig else { return };
        rig.settle();
        assert_eq!(rig.store.audit(), Ok(()), "seed {}", self.seed);
        let counters = rig.store.counters();
        let failed = counters.devices_failed;
        self.evicted |= counters.values_evicted + counters.manifests_evicted > 0;
        self.devices_failed += u64::from(failed > 0);
        let unread = counters.read_errors + counters.corrupt + counters.values_lost + counters.manifests_lost;
        self.lost |= failed + unread > 0;
    }

    fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    /// Something may be missing for a reason that was counted.
    fn excused(&self) -> bool {
        let counters = self.rig.as_ref().map(|rig| rig.store.counters()).unwrap_or_default();
        let lost = counters.values_lost + counters.manifests_lost + counters.corrupt + counters.read_errors;
        lost + counters.values_evicted + counters.manifests_evicted + counters.devices_failed > 0
    }

    fn put(&mut self, at: u64) {
        let version = self.values.get(&at).copied();
        let version = version.unwrap_or_else(|| self.versions.get(&at).map_or(0, |last| last + 1));
        self.versions.insert(at, version);
        let Some(rig) = &mut self.rig else { return };
        let result = rig.put(&key_name(at), &value(at, version));
        self.note(format!("{result:?}"));
        match result {
            Ok(Outcome::Stored { .. }) => drop(self.values.insert(at, version)),
            Err(StoreError::DeviceFailed { .. } | StoreError::OutOfSpace) => {}
            other => panic!("seed {}: put ended in {other:?}", self.seed),
        }
    }

    fn get(&mut self, at: u64) {
        self.reads += 1;
        let Some(rig) = &mut self.rig else { return };
        let name = key_name(at);
        let plan = match rig.store.exists(rig.now_ms, key(&name)) {
            Some(info) => {
                let count = info.length.div_ceil(BLOCK_BYTES as u64) as u32;
                rig.store.read(rig.now_ms, key(&name), 0..count).ok()
            }
            None => None,
        };
        let found = plan.map(|plan| read(rig, &plan));
        self.note(format!("{found:?}"));
        match (found, self.values.get(&at).copied()) {
            (Some(Ok(found)), Some(version)) => {
                assert!(found == value(at, version), "seed {}: key {at} reads as another", self.seed);
            }
            (Some(Ok(_)), None) => panic!("seed {}: key {at} is deleted and reads", self.seed),
            (Some(Err(Verdict::Unreadable(_))), _) => self.misses += 1,
            (Some(Err(_)) | None, Some(_)) => {
                assert!(self.excused(), "seed {}: key {at} is gone", self.seed);
                self.misses += 1;
                self.values.remove(&at);
            }
            (Some(Err(_)) | None, None) => {}
        }
    }

    fn delete(&mut self, at: u64) {
        let Some(rig) = &mut self.rig else { return };
        let result = rig.delete(&key_name(at));
        self.note(format!("{result:?}"));
        match result {
            Ok(Outcome::Deleted) | Err(StoreError::NotFound) => drop(self.values.remove(&at)),
            Err(StoreError::DeviceFailed { .. }) => {
                self.unsure = true;
                self.values.remove(&at);
            }
            Err(StoreError::Referenced { .. }) => {}
            other => panic!("seed {}: delete ended in {other:?}", self.seed),
        }
    }

    fn put_manifest(&mut self, name: u64) {
        let mut stored: Vec<_> = self.values.iter().map(|(at, version)| (*at, *version)).collect();
        stored.sort_unstable();
        let count = self.rng.random_range(0..5).min(stored.len());
        let chunks = (0..count).map(|_| stored[self.rng.random_range(0..stored.len())]).collect();
        let made = self.generations.entry(name).or_default();
        let session = Session { generation: made.last().map_or(1, |last| last.generation + 1), chunks };
        made.push(session.clone());
        let names: Vec<_> = session.chunks.iter().map(|(at, _)| key_name(*at)).collect();
        let contents: Vec<_> = session.chunks.iter().map(|(at, version)| value(*at, *version)).collect();
        let refs: Vec<_> = names
            .iter()
            .zip(&contents)
            .map(|(key, bytes)| ChunkRef {
                key,
                length: bytes.len() as u64,
                checksum: Some(Checksum::of_value(bytes)),
            })
            .collect();
        let Some(rig) = &mut self.rig else { return };
        let ticket = rig.ticket();
        let put = PutManifest {
            namespace: b"ns",
            name: &session_name(name),
            generation: Some(session.generation),
            role: Role::Both,
            chunks: &refs,
            body: blocks(&body(name, session.generation)),
            lease_ms: 0,
        };
        rig.store.put_manifest(rig.now_ms, CLIENT, ticket, put);
        let result = rig.end(ticket);
        self.note(format!("{result:?}"));
        match result {
            Ok(Outcome::ManifestStored { .. }) => drop(self.sessions.insert(name, session)),
            Ok(Outcome::ManifestIncomplete { .. }) => {
                assert!(self.excused(), "seed {}: {session:?} lacks chunks", self.seed);
            }
            Err(StoreError::DeviceFailed { .. }) => self.unsure = true,
            Err(StoreError::ChunkLost | StoreError::OutOfSpace) => {}
            other => panic!("seed {}: manifest ended in {other:?}", self.seed),
        }
    }

    fn get_manifest(&mut self, name: u64) {
        let known = self.sessions.get(&name).cloned();
        let found = self.look_up(name);
        self.note(&found);
        match (found, known) {
            (Some(found), Some(known)) => {
                assert_eq!(found, known, "seed {}: manifest {name}", self.seed);
                self.read_chunks(&known);
            }
            (Some(found), None) => panic!("seed {}: {found:?} is deleted and there", self.seed),
            (None, Some(_)) => {
                assert!(self.excused(), "seed {}: manifest {name} is gone", self.seed);
                self.sessions.remove(&name);
            }
            (None, None) => {}
        }
    }

    /// The session stored under a name, with the body it was put with. An unreadable one is not looked into.
    fn look_up(&mut self, name: u64) -> Option<Session> {
        let rig = self.rig.as_mut()?;
        let (info, plan) = rig.store.get_manifest(rig.now_ms, CLIENT, b"ns", &session_name(name), 1).ok()?;
        let result = read(rig, &plan);
        let made = self.generations.get(&name)?;
        let session = made.iter().find(|session| session.generation == info.generation).cloned();
        let session = session.unwrap_or_else(|| panic!("seed {}: {info:?} was never put", self.seed));
        match result {
            Ok(bytes) => {
                assert!(bytes == body(name, info.generation), "seed {}: body of {session:?}", self.seed);
                Some(session)
            }
            Err(Verdict::Unreadable(_)) => Some(session),
            Err(_) => None,
        }
    }

    fn read_chunks(&mut self, session: &Session) {
        for (at, version) in &session.chunks {
            // A chunk may have been found damaged by the read of another; then the manifest goes with it.
            if self.values.get(at) == Some(version) {
                self.get(*at);
            }
        }
    }

    fn delete_manifest(&mut self, name: u64) {
        let Some(rig) = &mut self.rig else { return };
        let result = rig.delete_manifest(&session_name(name));
        self.note(format!("{result:?}"));
        match result {
            Ok(_) | Err(StoreError::NotFound) => drop(self.sessions.remove(&name)),
            Err(StoreError::DeviceFailed { .. }) => {
                self.unsure = true;
                self.sessions.remove(&name);
            }
            other => panic!("seed {}: delete ended in {other:?}", self.seed),
        }
    }

    /// The power goes, or the store is closed; then it is opened again and everything looked at.
    fn restart(&mut self) {
        self.audit();
        let orderly = self.rng.random_bool(0.3);
        match self.rig.take() {
            Some(rig) if orderly => drop(rig.stop()),
            Some(_) | None => {}
        }
        for ram in &self.rams {
            if !orderly {
                ram.crash(&mut self.rng);
            }
            if self.lies && self.rng.random_bool(0.5) {
                ram.rot(0.002, &mut self.rng);
            }
        }
        self.open();
        let strict = !self.lies && !self.lost && !self.unsure;
        for at in 0..KEYS {
            self.adopt_value(at, strict);
        }
        for name in 0..NAMES {
            let found = self.look_up(name);
            let known = self.sessions.remove(&name);
            // What could not be read just now took its manifests with it.
            self.audit();
            if strict && !self.lost && !self.evicted {
                assert_eq!(found, known, "seed {}: manifest {name}", self.seed);
            }
            if let Some(session) = found {
                self.sessions.insert(name, session);
            }
        }
        self.audit();
    }

    /// What is there now is what was put once; after honest devices alone it is nothing that was deleted.
    fn adopt_value(&mut self, at: u64, strict: bool) {
        let known = self.values.remove(&at);
        let Some(rig) = &mut self.rig else { return };
        let name = key_name(at);
        let Some(info) = rig.store.exists(rig.now_ms, key(&name)) else { return };
        let count = info.length.div_ceil(BLOCK_BYTES as u64) as u32;
        let Ok(plan) = rig.store.read(rig.now_ms, key(&name), 0..count) else { return };
        let last = self.versions.get(&at).copied();
        let put =
            |sum: Checksum| (0..=last?).rev().find(|version| Checksum::of_value(&value(at, *version)) == sum);
        let version = put(info.checksum);
        let version = version.unwrap_or_else(|| panic!("seed {}: key {at} was never put", self.seed));
        match read(rig, &plan) {
            Ok(found) => assert!(found == value(at, version), "seed {}: key {at} is another", self.seed),
            Err(Verdict::Unreadable(_)) => {}
            Err(_) => return,
        }
        assert!(!strict || known == Some(version), "seed {}: key {at} came back", self.seed);
        self.values.insert(at, version);
    }

    fn step(&mut self) {
        let (at, name) = (self.rng.random_range(0..KEYS), self.rng.random_range(0..NAMES));
        match self.rng.random_range(0..100) {
            0..35 => self.put(at),
            35..60 => self.get(at),
            60..68 => self.delete(at),
            68..80 => self.put_manifest(name),
            80..90 => self.get_manifest(name),
            90..95 => self.delete_manifest(name),
            95..98 => {
                if let Some(rig) = &mut self.rig {
                    rig.pass(11_000);
                }
            }
            _ => self.restart(),
        }
    }

    fn run(seed: u64) -> Self {
        let mut world = Self::new(seed);
        for _ in 0..STEPS {
            world.step();
            if world.rig.is_none() {
                break;
            }
        }
        world.audit();
        world
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn devices_that_fail_or_lie_never_change_a_byte() {
    let first = from_environment("MEMKV_SEED").unwrap_or(0);
    let count = from_environment("MEMKV_SEEDS").unwrap_or(40);
    let (mut reads, mut misses, mut opened, mut failed) = (0, 0, 0, 0);
    for seed in first..first + count {
        println!("seed {seed}");
        let world = World::run(seed);
        reads += world.reads;
        misses += world.misses;
        opened += world.opened;
        failed += world.devices_failed;
    }
    println!("{count} runs: {reads} reads, {misses} misses, {opened} openings, {failed} with failed devices");
    if count >= 40 {
        assert!(misses > 0 && failed > 0 && opened > count, "the runs are too quiet");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..4 {
        let traces = [(); 2].map(|()| World::run(seed).trace.finish());
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
