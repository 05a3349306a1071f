//! Seeded worlds: a store over recording devices in virtual time, with crashes, against a model.
//!
//! Commands complete in random order. A crash keeps what was flushed; of every other write each sector is kept, dropped or
//! torn by itself. After it the store is opened on what is left, and checked:
//! - every acknowledged manifest is there and whole, unless it was evicted or deleted; none is half there;
//! - whatever is read is what was once put under that key, and never what was durably deleted;
//! - after the end of the process alone, every acknowledged value is there (unless evicted);
//! - the books add up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use memkv_server::store::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::rig::{EXTENT, Stretch, config, options};

const KEYS: usize = 30;
const NAMES: usize = 5;
const SECTOR: u64 = SECTOR_BYTES as u64;

type Sector = Arc<[u8; SECTOR_BYTES]>;

/// A device that remembers which writes a crash may undo.
#[derive(Clone, Default)]
struct Disk {
    capacity_bytes: u64,
    /// What a reader sees.
    seen: HashMap<u64, Sector>,
    /// What survives.
    stable: HashMap<u64, Sector>,
    /// Writes since, in order: number, sector, bytes.
    loose: Vec<(u64, u64, Sector)>,
    writes: u64,
    /// Everything fails from now on.
    gone: bool,
}

impl Disk {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        self.writes += 1;
        for (index, chunk) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let sector: Sector = Arc::new(chunk.try_into().expect("writes are whole sectors"));
            let at = offset / SECTOR + index as u64;
            self.seen.insert(at, Arc::clone(&sector));
            self.loose.push((self.writes, at, sector));
        }
        self.writes
    }

    /// Makes these writes survive.
    fn flush(&mut self, completed: impl Fn(u64) -> bool) {
        let (stable, loose) = self.loose.drain(..).partition::<Vec<_>, _>(|(number, ..)| completed(*number));
        self.loose = loose;
        for (_, at, sector) in stable {
            self.stable.insert(at, sector);
        }
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        for at in offset / SECTOR..(offset + length as u64) / SECTOR {
            match self.seen.get(&at) {
                Some(sector) => out.extend_from_slice(&sector[..]),
                None => out.resize(out.len() + SECTOR_BYTES, 0),
            }
        }
        out
    }

    /// What is left when power goes.
    fn crash(&mut self, rng: &mut StdRng) {
        for (_, at, sector) in std::mem::take(&mut self.loose) {
            match rng.random_range(0..10) {
                0..5 => drop(self.stable.insert(at, sector)),
                5 => {
                    // Torn at a 512-byte boundary.
                    let before = self.stable.get(&at).map_or([0; SECTOR_BYTES], |old| **old);
                    let mut torn = before;
                    let cut = rng.random_range(1..8) * 512;
                    torn[..cut].copy_from_slice(&sector[..cut]);
                    self.stable.insert(at, Arc::new(torn));
                }
                _ => {}
            }
        }
        self.seen = self.stable.clone();
    }
}

struct Disks<'a>(&'a mut [Disk]);

impl memkv_server::store::Disks for Disks<'_> {
    fn count(&self) -> u16 {
        self.0.len() as u16
    }

    fn geometry(&self, slot: u16) -> Result<Geometry, IoError> {
        let disk = &self.0[slot as usize];
        if disk.gone {
            return Err(IoError::Gone);
        }
        Ok(Geometry { capacity_bytes: disk.capacity_bytes, persistent: true, discard: slot == 1 })
    }

    fn read_batch(&mut self, requests: Vec<ReadRequest>) -> Vec<(ReadRequest, ReadResult)> {
        let read = |request: ReadRequest| {
            let disk = &self.0[request.slot as usize];
            (request, Ok(disk.read(request.offset, request.length).into()))
        };
        requests.into_iter().map(read).collect()
    }

    fn write(&mut self, slot: u16, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        self.0[slot as usize].write(offset, bytes);
        Ok(())
    }

    fn flush(&mut self, slot: u16) -> Result<(), IoError> {
        self.0[slot as usize].flush(|_| true);
        Ok(())
    }
}

/// A manifest as its writer knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    generation: u64,
    /// Key and version of each chunk.
    chunks: Vec<(usize, u32)>,
    body: usize,
}

#[derive(Clone, Default)]
struct KeyModel {
    /// The version that a put writes next.
    version: u32,
    /// Versions below are durably deleted.
    version_min: u32,
    /// The latest acknowledged version, `None` when deleted or never put.
    stored: Option<u32>,
    delete_pending: bool,
}

#[derive(Clone, Default)]
struct NameModel {
    /// The latest acknowledged state.
    acked: Option<Session>,
    /// Puts that may have become visible, by generation.
    pending: BTreeMap<u64, Session>,
    delete_pending: bool,
    next_generation: u64,
}

enum Asked {
    Put { key: usize, version: u32 },
    Delete { key: usize },
    Manifest { name: usize, session: Session },
    DeleteManifest { name: usize },
    Stop,
}

/// A command handed out: its device's write number once it ran.
struct Flying {
    command: Command<Stretch>,
    ran: Option<(u64, Result<Done, IoError>)>,
    /// For a flush: writes completed when it was handed out.
    covers: Vec<u64>,
}

pub struct World {
    seed: u64,
    rng: StdRng,
    disks: Vec<Disk>,
    /// Writes that were completed, by device.
    completed: Vec<Vec<u64>>,
    store: Store<Stretch>,
    config: Config,
    flying: Vec<Flying>,
    asked: HashMap<Ticket, Asked>,
    ticket: u64,
    now_ms: u64,
    keys: Vec<KeyModel>,
    names: Vec<NameModel>,
    source: Arc<[u8]>,
    faults: bool,
    /// Counters of former lives.
    evicted: u64,
    manifests_evicted: u64,
    lost_devices: u64,
    pub crashes: u64,
    pub checkpoints: u64,
    pub reclaimed: u64,
    pub moved: u64,
}

fn source() -> Arc<[u8]> {
    static SOURCE: std::sync::OnceLock<Arc<[u8]>> = std::sync::OnceLock::new();
    Arc::clone(SOURCE.get_or_init(|| crate::rig::bytes(8 << 20, 77).into()))
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(1..4);
        let capacity_bytes = (1 << 20) + u64::from(EXTENT) * rng.random_range(16..26);
        let mut disks: Vec<_> = (0..count).map(|_| Disk { capacity_bytes, ..Disk::default() }).collect();
        let mut config = config();
        config.checkpoint_bytes = rng.random_range(500..15_000);
        config.lease_ms_default = 20;
        if rng.random_bool(0.3) {
            config.placement = Placement::Spread;
        }
        format(&mut Disks(&mut disks), &config, options()).unwrap();
        let (store, _) = Store::open(0, config.clone(), &mut Disks(&mut disks)).unwrap();
        // The last device of a store takes all with it: nothing would be left to check.
        let faults = count > 1 && rng.random_bool(0.2);
        Self {
            seed,
            completed: vec![Vec::new(); disks.len()],
            disks,
            store,
            config,
            rng,
            flying: Vec::new(),
            asked: HashMap::new(),
            ticket: 0,
            now_ms: 0,
            keys: vec![KeyModel::default(); KEYS],
            names: vec![NameModel { next_generation: 1, ..NameModel::default() }; NAMES],
            source: source(),
            faults,
            evicted: 0,
            manifests_evicted: 0,
            lost_devices: 0,
            crashes: 0,
            checkpoints: 0,
            reclaimed: 0,
            moved: 0,
        }
    }

    /// Sizes are a key's own, so that versions differ in bytes alone.
    fn content(&self, key: usize, version: u32) -> Vec<Stretch> {
        let length = match key % 10 {
            0..5 => 1 + key * 397,
            5..7 => 70_000 + key * 1001,
            7..9 => 300_000 + key * 17,
            _ => (1 << 20) + 500_000,
        };
        let start = (key * 7919 + version as usize * 104_729) % (self.source.len() - length);
        let blocks = (start..start + length).step_by(BLOCK_BYTES);
        let end = start + length;
        blocks.map(|at| Stretch(Arc::clone(&self.source), at..end.min(at + BLOCK_BYTES))).collect()
    }

    fn blocks(&self, key: usize, version: u32) -> Vec<Block<Stretch>> {
        let block = |bytes: Stretch| Block { checksum: Checksum::of_block(bytes.as_ref()), bytes };
        self.content(key, version).into_iter().map(block).collect()
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        self.ticket += 1;
        self.asked.insert(Ticket(self.ticket), asked);
        Ticket(self.ticket)
    }

    fn is_asked(&self, what: impl Fn(&Asked) -> bool) -> bool {
        self.asked.values().any(what)
    }

    /// One random thing a client does.
    fn act(&mut self) {
        let client = ClientId(self.rng.random_range(0..3));
        let key = self.rng.random_range(0..KEYS);
        let name = self.rng.random_range(0..NAMES);
        match self.rng.random_range(0..100) {
            // A put and a delete of one key (or name) at the same time may end in either order: that is the client's affair.
            0..55
                if self.is_asked(|asked| matches!(asked, Asked::Delete { key: other } if *other == key)) => {}
            55..65
                if self.is_asked(|asked| matches!(asked, Asked::Put { key: other, .. } if *other == key)) => {
            }
            65..85
                if self
                    .is_asked(|asked| matches!(asked, Asked::DeleteManifest { name: n } if *n == name)) => {}
            85..92
                if self.is_asked(|asked| matches!(asked, Asked::Manifest { name: n, .. } if *n == name)) => {}
            0..55 => {
                let version = self.keys[key].stored.unwrap_or(self.keys[key].version);
                let ticket = self.ask(Asked::Put { key, version });
                let blocks = self.blocks(key, version);
                let name = key_name(key);
                self.store.put(self.now_ms, client, ticket, Key::new(b"ns", &name), blocks);
            }
            55..65 => {
                let ticket = self.ask(Asked::Delete { key });
                self.keys[key].delete_pending = true;
                self.store.delete(self.now_ms, client, ticket, Key::new(b"ns", &key_name(key)));
            }
            65..85 => self.put_manifest(name, client),
            85..92 => {
                let ticket = self.ask(Asked::DeleteManifest { name });
                self.names[name].delete_pending = true;
                self.store.delete_manifest(
                    self.now_ms,
                    ticket,
                    b"ns",
                    &[name as u8 + b'a'],
                    Slot::Published,
                    None,
                );
            }
            92..97 => self.read(key),
            _ => self.store.tick(self.now_ms),
        }
    }

    fn put_manifest(&mut self, name: usize, client: ClientId) {
        let stored: Vec<_> =
            (0..KEYS).filter_map(|key| self.keys[key].stored.map(|version| (key, version))).collect();
        let count = self.rng.random_range(0..8).min(stored.len());
        let chunks: Vec<_> = (0..count).map(|_| stored[self.rng.random_range(0..stored.len())]).collect();
        let generation = self.names[name].next_generation;
        self.names[name].next_generation += 1;
        let body = self.rng.random_range(0..3000);
        let session = Session { generation, chunks, body };
        let ticket = self.ask(Asked::Manifest { name, session: session.clone() });
        let keys: Vec<_> = session.chunks.iter().map(|(key, _)| key_name(*key)).collect();
        let refs: Vec<_> = session
            .chunks
            .iter()
            .zip(&keys)
            .map(|((key, version), name)| {
                let blocks = self.blocks(*key, *version);
                let length = blocks.iter().map(|block| block.bytes.as_ref().len() as u64).sum();
                let checksum = Some(Checksum::of_blocks(blocks.iter().map(|block| &block.checksum)));
                ChunkRef { key: name, length, checksum }
            })
            .collect();
        let bytes = Stretch(Arc::clone(&self.source), 0..session.body);
        let body = match session.body {
            0 => vec![],
            _ => vec![Block { checksum: Checksum::of_block(bytes.as_ref()), bytes }],
        };
        self.names[name].pending.insert(generation, session.clone());
        let put = PutManifest {
            namespace: b"ns",
            name: &[name as u8 + b'a'],
            generation: Some(generation),
            role: Role::Both,
            chunks: &refs,
            body,
            lease_ms: 5,
        };
        self.store.put_manifest(self.now_ms, client, ticket, put);
    }

    /// Takes the store's commands, runs or completes some, takes its events.
    fn turn(&mut self) {
        while let Some(command) = self.store.poll_command() {
            let covers = match command.op {
                Op::Flush => self.completed[command.device as usize].clone(),
                Op::Read { .. } | Op::Write { .. } | Op::Discard { .. } => Vec::new(),
            };
            self.flying.push(Flying { command, ran: None, covers });
        }
        for _ in 0..self.rng.random_range(0..4) {
            if self.flying.is_empty() {
                break;
            }
            let index = self.rng.random_range(0..self.flying.len());
            match self.flying[index].ran {
                None => self.run(index),
                Some(_) => self.complete(index),
            }
        }
        self.events();
    }

    fn run(&mut self, index: usize) {
        let fault = self.faults && self.rng.random_bool(0.0004);
        let flying = &mut self.flying[index];
        let disk = &mut self.disks[flying.command.device as usize];
        disk.gone |= fault && self.lost_devices == 0;
        if disk.gone {
            self.lost_devices = 1;
            flying.ran = Some((0, Err(IoError::Failed { errno: 5 })));
            return;
        }
        let mut number = 0;
        let done = match &flying.command.op {
            Op::Read { offset, length } => Done::Read(disk.read(*offset, *length).into()),
            Op::Write { offset, segments } => {
                let mut bytes = Vec::new();
                for segment in segments {
                    match segment.bytes() {
                        Some(part) => bytes.extend_from_slice(part),
                        None => bytes.resize(bytes.len() + segment.len(), 0),
                    }
                }
                assert_eq!((offset % SECTOR, bytes.len() % SECTOR_BYTES), (0, 0), "seed {}", self.seed);
                number = disk.write(*offset, &bytes);
                Done::Ok
            }
            Op::Flush => {
                let covers = std::mem::take(&mut flying.covers);
                disk.flush(|number| covers.contains(&number));
                Done::Ok
            }
            Op::Discard { ranges } => {
                for (offset, length) in ranges {
                    for at in offset / SECTOR..(offset + length) / SECTOR {
                        disk.seen.remove(&at);
                        disk.stable.remove(&at);
                        disk.loose.retain(|(_, sector, _)| *sector != at);
                    }
                }
                Done::Ok
            }
        };
        flying.ran = Some((number, Ok(done)));
    }

    fn complete(&mut self, index: usize) {
        let flying = self.flying.swap_remove(index);
        let Some((number, result)) = flying.ran else { return };
        if number > 0 {
            self.completed[flying.command.device as usize].push(number);
        }
        self.store.complete(self.now_ms, flying.command.id, result);
    }

    fn events(&mut self) {
        while let Some(event) = self.store.poll_event() {
            let asked = self.asked.remove(&event.ticket).expect("a ticket is answered once");
            self.event(asked, event.result);
        }
    }

    fn event(&mut self, asked: Asked, result: Result<Outcome, StoreError>) {
        if let Asked::Delete { key } = asked {
            self.keys[key].delete_pending = false;
        }
        match (asked, result) {
            (Asked::Put { key, version }, Ok(Outcome::Stored { .. })) => {
                self.keys[key].stored = Some(version);
            }
            // Deleted while the put was on its way, and another version put meanwhile.
            (Asked::Put { .. }, Err(StoreError::Conflict { .. } | StoreError::OutOfSpace)) => {}
            (Asked::Put { .. } | Asked::Manifest { .. }, Err(StoreError::DeviceFailed { .. }))
                if self.faults => {}
            (Asked::Delete { key }, Ok(Outcome::Deleted)) => {
                let model = &mut self.keys[key];
                if let Some(version) = model.stored.take() {
                    model.version_min = version + 1;
                    model.version = version + 1;
                }
            }
            (
                Asked::Delete { .. },
                Err(StoreError::NotFound | StoreError::Referenced { .. } | StoreError::Leased { .. }),
            ) => {}
            (Asked::Delete { .. } | Asked::DeleteManifest { .. }, Err(StoreError::DeviceFailed { .. }))
                if self.faults => {}
            (Asked::Manifest { name, session }, Ok(Outcome::ManifestStored { generation, .. })) => {
                assert_eq!(generation, session.generation);
                let model = &mut self.names[name];
                model.pending.remove(&generation);
                model.acked = Some(session);
                model.delete_pending = false;
            }
            (Asked::Manifest { name, session }, result) => {
                self.names[name].pending.remove(&session.generation);
                match result {
                    Ok(Outcome::ManifestIncomplete { .. } | Outcome::ManifestConflict { .. }) => {}
                    Err(
                        StoreError::StaleGeneration { .. } | StoreError::OutOfSpace | StoreError::NotFound,
                    ) => {}
                    other => panic!("seed {}: manifest ended in {other:?}", self.seed),
                }
            }
            (Asked::DeleteManifest { name }, Ok(Outcome::ManifestDeleted { generation })) => {
                let model = &mut self.names[name];
                if model.acked.as_ref().is_some_and(|session| session.generation <= generation) {
                    model.acked = None;
                }
            }
            (Asked::DeleteManifest { .. }, Err(StoreError::NotFound)) => {}
            (Asked::Stop, Ok(Outcome::Stopped)) => {}
            (Asked::Put { .. }, result) => panic!("seed {}: put ended in {result:?}", self.seed),
            (Asked::Delete { .. } | Asked::DeleteManifest { .. }, result) => {
                panic!("seed {}: delete ended in {result:?}", self.seed)
            }
            (Asked::Stop, result) => panic!("seed {}: stop ended in {result:?}", self.seed),
        }
    }

    /// Reads a value and checks it against every version it may have.
    fn read(&mut self, key: usize) {
        if let Some(bytes) = self.get(key) {
            let model = self.keys[key].clone();
            let fits = (model.version_min..=model.version).any(|version| self.is(&bytes, key, version));
            assert!(fits, "seed {}: key {key} reads as nothing it ever was", self.seed);
        }
    }

    fn is(&self, bytes: &[u8], key: usize, version: u32) -> bool {
        bytes == self.content(key, version).iter().flat_map(|part| part.as_ref()).copied().collect::<Vec<_>>()
    }

    fn get(&mut self, key: usize) -> Option<Vec<u8>> {
        let name = key_name(key);
        let info = self.store.exists(self.now_ms, Key::new(b"ns", &name))?;
        let count = info.length.div_ceil(BLOCK_BYTES as u64) as u32;
        let plan = self.store.read(self.now_ms, Key::new(b"ns", &name), 0..count).ok()?;
        let (pin, result) = (plan.pin, self.run_plan(&plan));
        let verdict = result.as_ref().map_or_else(|corrupt| Verdict::Corrupt(*corrupt), |_| Verdict::Good);
        self.store.release(self.now_ms, pin, verdict);
        result.ok()
    }

    fn run_plan(&self, plan: &ReadPlan) -> Result<Vec<u8>, Corrupt> {
        let mut out = Vec::new();
        for record in &plan.records {
            let disk = &self.disks[record.device as usize];
            let head = disk.read(record.head_offset, record.head_bytes);
            let data = disk.read(record.data_offset, record.data_bytes);
            let sums = record.check_head(&head)?;
            for place in &record.blocks {
                let from = if place.in_head { &head } else { &data };
                let bytes = &from[place.at..place.at + place.length];
                record.check_block(&sums, place.block, bytes)?;
                out.extend_from_slice(bytes);
            }
        }
        Ok(out)
    }

    /// Ends the process or the power, and opens the store again.
    fn crash(&mut self) {
        let power = self.rng.random_bool(0.7);
        self.crashes += 1;
        // Writes in flight may have reached the device, too.
        for index in 0..self.flying.len() {
            if self.flying[index].ran.is_none()
                && matches!(self.flying[index].command.op, Op::Write { .. })
                && self.rng.random_bool(0.5)
            {
                self.run(index);
            }
        }
        self.flying.clear();
        self.asked.clear();
        self.tally();
        for index in 0..self.disks.len() {
            if power {
                let mut rng = StdRng::seed_from_u64(self.rng.random());
                self.disks[index].crash(&mut rng);
            } else {
                self.disks[index].flush(|_| true);
            }
        }
        self.reopen();
        self.check(!power);
    }

    fn tally(&mut self) {
        let counters = self.store.counters();
        self.evicted += counters.values_evicted;
        self.manifests_evicted += counters.manifests_evicted;
        self.checkpoints += counters.checkpoints;
        self.reclaimed += counters.extents_reclaimed;
        self.moved += counters.records_moved;
    }

    fn reopen(&mut self) {
        let opened = Store::open(self.now_ms, self.config.clone(), &mut Disks(&mut self.disks));
        let (store, report) = match opened {
            Ok(opened) => opened,
            Err(error) => panic!("seed {}: {error}", self.seed),
        };
        assert!(
            self.lost_devices > 0 || report.problems.is_empty(),
            "seed {}: {:?}",
            self.seed,
            report.problems
        );
        self.store = store;
        self.completed.iter_mut().for_each(Vec::clear);
        self.audit();
    }

    fn audit(&self) {
        assert_eq!(self.store.audit(), Ok(()), "seed {}", self.seed);
    }

    /// Compares all that is stored with all that may be.
    fn check(&mut self, process_alone: bool) {
        for name in 0..NAMES {
            self.check_name(name);
        }
        for key in 0..KEYS {
            let found = self.get(key);
            let model = self.keys[key].clone();
            let must = process_alone && self.evicted == 0 && self.lost_devices == 0 && !model.delete_pending;
            if let (Some(version), true) = (model.stored, must) {
                let bytes = found
                    .as_ref()
                    .unwrap_or_else(|| panic!("seed {}: acknowledged key {key} is gone", self.seed));
                assert!(self.is(bytes, key, version), "seed {}: key {key} is another", self.seed);
            }
            let version = found.map(|bytes| {
                let versions = model.version_min..=model.version;
                versions.rev().find(|version| self.is(&bytes, key, *version)).unwrap_or_else(|| {
                    panic!(
                        "seed {}: key {key} is deleted or wrong (at least {})",
                        self.seed, model.version_min
                    )
                })
            });
            // The clients find out what is there, and go on from it.
            self.keys[key].stored = version;
            self.keys[key].delete_pending = false;
            self.keys[key].version = version.unwrap_or(model.version);
        }
    }

    fn check_name(&mut self, name: usize) {
        let model = self.names[name].clone();
        let label = [name as u8 + b'a'];
        let client = ClientId(9);
        let found = self.store.get_manifest(self.now_ms, client, b"ns", &label, 1);
        let Ok((info, plan)) = found else {
            let excused = self.manifests_evicted > 0 || self.lost_devices > 0 || model.delete_pending;
            assert!(model.acked.is_none() || excused, "seed {}: manifest {name} is gone", self.seed);
            self.names[name] = NameModel { next_generation: model.next_generation, ..NameModel::default() };
            return;
        };
        let acked = model.acked.iter().chain(model.pending.values());
        let session = acked.into_iter().find(|session| session.generation == info.generation).cloned();
        let Some(session) = session else {
            panic!(
                "seed {}: manifest {name} generation {} was deleted or never put: {model:?}",
                self.seed,
                info.generation,
                model = model.acked
            )
        };
        let acked = model.acked.as_ref().map_or(0, |session| session.generation);
        assert!(
            info.generation >= acked || self.lost_devices > 0,
            "seed {}: manifest {name} is an old one",
            self.seed
        );
        let pin = plan.pin;
        let body = self
            .run_plan(&plan)
            .unwrap_or_else(|error| panic!("seed {}: body of {name}: {error}", self.seed));
        self.store.release(self.now_ms, pin, Verdict::Good);
        let body_length = if session.body == 0 { 0 } else { body.len() };
        assert_eq!(body_length, session.body, "seed {}", self.seed);
        assert!(body[..body_length] == self.source[..session.body], "seed {}", self.seed);
        for (key, version) in &session.chunks {
            let bytes =
                self.get(*key).unwrap_or_else(|| panic!("seed {}: chunk {key} of {name} is gone", self.seed));
            assert!(self.is(&bytes, *key, *version), "seed {}: chunk {key} of {name} is another", self.seed);
        }
        let next_generation = model.next_generation;
        self.names[name] = NameModel { acked: Some(session), next_generation, ..NameModel::default() };
    }

    /// Lets everything in flight end.
    fn drain(&mut self) {
        for turn in 0.. {
            if self.asked.is_empty() && self.flying.is_empty() {
                return;
            }
            assert!(turn < 20_000, "seed {}: {} requests never end", self.seed, self.asked.len());
            self.turn();
        }
    }

    pub fn run_for(&mut self, steps: usize) {
        for step in 0..steps {
            self.now_ms += self.rng.random_range(0..4);
            if self.rng.random_bool(0.4) {
                self.act();
            }
            self.turn();
            if self.rng.random_bool(0.004) {
                self.crash();
            }
            if step % 64 == 0 {
                self.audit();
            }
        }
        self.drain();
        self.audit();
        self.tally();
        self.check(true);
        self.drain();
        let ticket = self.ask(Asked::Stop);
        self.store.stop(self.now_ms, ticket);
        self.drain();
        self.tally();
        self.reopen();
        self.check(true);
    }
}

fn key_name(key: usize) -> Vec<u8> {
    format!("key-{key:04}").into_bytes()
}

#[test]
fn crashes_at_any_moment_lose_nothing_acknowledged() {
    let first: u64 = std::env::var("MEMKV_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("MEMKV_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60);
    let (mut crashes, mut checkpoints, mut reclaimed, mut moved) = (0, 0, 0, 0);
    for seed in first..first + count {
        let mut world = World::new(seed);
        world.run_for(1200);
        crashes += world.crashes;
        checkpoints += world.checkpoints;
        reclaimed += world.reclaimed;
        moved += world.moved;
    }
    println!(
        "{count} worlds: {crashes} crashes, {checkpoints} checkpoints, {reclaimed} extents, {moved} moves"
    );
    if count >= 50 {
        assert!(crashes > count && checkpoints > 0 && reclaimed > 0 && moved > 0, "the worlds are too quiet");
    }
}
