//! One seeded history: a store over logged devices, clients that do random things, commands that complete in any order.

use std::collections::HashMap;
use std::sync::Arc;

use memkv_server::store::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::content;
use super::disk::{DiskEvent, Disks, Medium};
use super::model::{Asked, Fact, Model, Session};
use super::{EXTENT, KEYS, NAMES, NAMESPACE, REFS};
use crate::rig::{Stretch, options};

/// Everything that happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    Disk(DiskEvent),
    Fact(Fact),
}

/// A value that is written piecewise.
struct Filling {
    key: usize,
    version: u32,
    id: AllocationId,
    /// Blocks not written yet.
    left: Vec<usize>,
    outstanding: u32,
}

pub struct World {
    pub store: Store<Stretch>,
    pub disks: Disks,
    pub model: Model,
    pub log: Vec<Event>,
    pub config: Config,
    rng: StdRng,
    flying: Vec<(Command<Stretch>, Option<DiskEvent>)>,
    filling: Vec<Filling>,
    ticket: u64,
    now_ms: u64,
    evicted: (u64, u64),
}

/// How a history's devices and store are laid out.
fn layout(rng: &mut StdRng) -> (Vec<Medium>, Config) {
    let count = rng.random_range(1..4);
    let extents = rng.random_range(12..18);
    let mut config = Config { extent_bytes: EXTENT, lease_ms_default: 20, ..Config::default() };
    config.checkpoint_bytes = [700, 2_000, 8_000, 60_000, u64::MAX][rng.random_range(0..5)];
    if rng.random_bool(0.3) {
        config.placement = Placement::Spread;
    }
    if rng.random_bool(0.15) {
        config.sync = Sync::Interval { ms: 50 };
    }
    ((0..count).map(|_| Medium::new(extents)).collect(), config)
}

impl World {
    /// A store that has lived for a while, at rest, with everything on its devices.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (media, config) = layout(&mut rng);
        let mut disks = Disks::new(media, 0);
        format(&mut disks, &config, options()).unwrap();
        let (store, _) = Store::open(0, config.clone(), &mut disks).unwrap();
        let model = Model::new(config.sync != Sync::Always);
        let mut world = Self::with(store, disks, model, config, rng);
        let actions = [0, 5, 30, 100][world.rng.random_range(0..4)];
        world.live(actions);
        // Many short journal frames bring the chain close to the end of an extent.
        if world.rng.random_bool(0.25) {
            world.fill_journal();
        }
        world.log.clear();
        world.disks.log.clear();
        world
    }

    fn with(store: Store<Stretch>, disks: Disks, model: Model, config: Config, rng: StdRng) -> Self {
        Self {
            store,
            disks,
            model,
            log: Vec::new(),
            config,
            rng,
            flying: Vec::new(),
            filling: Vec::new(),
            ticket: 0,
            now_ms: 0,
            evicted: (0, 0),
        }
    }

    /// A store just opened on an image; the log begins with what the opening did.
    pub fn opened(store: Store<Stretch>, mut disks: Disks, model: Model, config: Config, seed: u64) -> Self {
        let opening = disks.log.drain(..).map(Event::Disk).collect();
        let mut world = Self::with(store, disks, model, config, StdRng::seed_from_u64(seed));
        world.log = opening;
        world
    }

    fn fill_journal(&mut self) {
        for _ in 0..self.rng.random_range(150..210) {
            let key = self.rng.random_range(0..3);
            self.now_ms += 25;
            self.store.tick(self.now_ms);
            self.put(key, ClientId(1));
            self.drain();
            self.delete(key, ClientId(1));
            self.drain();
        }
    }

    /// Clients do this many things, then everything in flight ends.
    pub fn live(&mut self, actions: usize) {
        for _ in 0..actions {
            self.act();
            for _ in 0..self.rng.random_range(1..4) {
                self.now_ms += self.rng.random_range(0..4);
                self.turn();
            }
        }
        self.drain();
    }

    /// What a store must always be able to do: take a value and a manifest that names it.
    pub fn works(&mut self) -> Result<(), String> {
        self.now_ms += 100;
        self.store.tick(self.now_ms);
        let client = ClientId(5);
        let key = self.rng.random_range(0..KEYS);
        let track = &self.model.keys[key];
        let version = track.stored.unwrap_or(track.latest());
        self.put_version(key, version as u32, client);
        self.drain();
        if self.model.keys[key].stored != Some(version) {
            return Err(format!("takes no value: {}", self.story()));
        }
        let name = self.rng.random_range(0..NAMES);
        let generation = self.model.names[name].next().max(1);
        let session = Session { generation, chunks: vec![(key, version as u32)], body: 10 };
        let ticket = self.ask(Asked::Manifest { name, session: session.clone() });
        self.publish(ticket, client, &[name as u8 + b'a'], Role::Both, &session);
        self.drain();
        match self.model.names[name].stored {
            Some(stored) if stored == generation => Ok(()),
            _ => Err(format!("takes no manifest {generation}: {}", self.story())),
        }
    }

    fn story(&self) -> String {
        self.log.iter().map(|event| format!("\n    {event:?}")).collect()
    }

    pub fn stop(&mut self) {
        let ticket = self.ask(Asked::Stop);
        self.store.stop(self.now_ms, ticket);
        self.drain();
    }

    /// Lets everything in flight end.
    pub fn drain(&mut self) {
        for turn in 0.. {
            self.turn();
            if self.model.is_idle() && self.flying.is_empty() {
                return;
            }
            assert!(turn < 20_000, "these never end: {:?}", self.model.pending());
        }
    }

    fn note(&mut self, fact: Fact) {
        self.take_disk_log();
        self.model.apply(&fact);
        self.log.push(Event::Fact(fact));
    }

    fn take_disk_log(&mut self) {
        self.log.extend(self.disks.log.drain(..).map(Event::Disk));
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        self.ticket += 1;
        self.note(Fact::Asked(self.ticket, asked));
        Ticket(self.ticket)
    }

    /// One random thing a client does. A put and a delete of one thing at the same time may end in either order: that is the
    /// client's affair, and not done here.
    fn act(&mut self) {
        let client = ClientId(self.rng.random_range(0..3));
        let key = self.rng.random_range(0..KEYS);
        let name = self.rng.random_range(0..NAMES);
        let putting = |asked: &Asked| matches!(asked, Asked::Put { key: other, .. } if *other == key);
        let deleting = |asked: &Asked| matches!(asked, Asked::Delete { key: other } if *other == key);
        let publishing = |asked: &Asked| matches!(asked, Asked::Manifest { name: n, .. } if *n == name);
        let withdrawing = |asked: &Asked| matches!(asked, Asked::DeleteManifest { name: n } if *n == name);
        match self.rng.random_range(0..100) {
            0..38 if !self.model.is_asked(deleting) => self.put(key, client),
            38..44 if !self.model.is_asked(deleting) => self.allocate(key, client),
            44..48 => self.fill_one(),
            48..56 if !self.model.is_asked(putting) => self.delete(key, client),
            56..76 if !self.model.is_asked(withdrawing) => self.put_manifest(name, client),
            76..82 if !self.model.is_asked(publishing) => {
                let ticket = self.ask(Asked::DeleteManifest { name });
                let label = [name as u8 + b'a'];
                self.store.delete_manifest(self.now_ms, ticket, NAMESPACE, &label, Slot::Published, None);
            }
            82..86 => self.put_refs(name % REFS, client),
            86..88 => self.delete_refs(name % REFS),
            88..91 => {
                let ticket = self.ask(Asked::Sync);
                self.store.sync(self.now_ms, ticket);
            }
            91..95 => {
                self.now_ms += 30;
                self.store.tick(self.now_ms);
            }
            _ => self.fill_one(),
        }
    }

    pub fn put(&mut self, key: usize, client: ClientId) {
        let track = &self.model.keys[key];
        // Now and then another value, as if the first were not there any more. While it is, that is a conflict.
        let version = match self.rng.random_range(0..10) {
            0 => track.next(),
            _ => track.stored.unwrap_or(track.latest()),
        };
        self.put_version(key, version as u32, client);
    }

    fn put_version(&mut self, key: usize, version: u32, client: ClientId) {
        let ticket = self.ask(Asked::Put { key, version });
        let blocks = content::blocks(key, version);
        self.store.put(self.now_ms, client, ticket, Key::new(NAMESPACE, &content::key_name(key)), blocks);
    }

    fn delete(&mut self, key: usize, client: ClientId) {
        let ticket = self.ask(Asked::Delete { key });
        self.store.delete(self.now_ms, client, ticket, Key::new(NAMESPACE, &content::key_name(key)));
    }

    fn allocate(&mut self, key: usize, client: ClientId) {
        let track = &self.model.keys[key];
        let version = track.stored.unwrap_or(track.latest()) as u32;
        let name = content::key_name(key);
        let length = content::length(key) as u64;
        let allocated =
            self.store.allocate(self.now_ms, client, Key::new(NAMESPACE, &name), length, None, 1000);
        if let Ok(Allocated::New { id, .. }) = allocated {
            let left = (0..content::blocks(key, version).len()).collect();
            self.filling.push(Filling { key, version, id, left, outstanding: 0 });
        }
    }

    /// Writes one more piece of an allocation, or commits it.
    fn fill_one(&mut self) {
        if self.filling.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.filling.len());
        let Filling { key, version, id, .. } = self.filling[at];
        if !self.filling[at].left.is_empty() {
            let pick = self.rng.random_range(0..self.filling[at].left.len());
            let block = self.filling[at].left.swap_remove(pick);
            self.filling[at].outstanding += 1;
            let ticket = self.ask(Asked::Piece { allocation: id.0 as usize });
            let piece = content::blocks(key, version).swap_remove(block);
            self.store.write_piece(self.now_ms, ticket, id, (block * BLOCK_BYTES) as u64, piece);
            return;
        }
        let deleting = |asked: &Asked| matches!(asked, Asked::Delete { key: other } if *other == key);
        if self.filling[at].outstanding == 0 && !self.model.is_asked(deleting) {
            self.filling.swap_remove(at);
            if self.model.keys[key].is_deleted(u64::from(version)) {
                self.store.abort(self.now_ms, id).ok();
                return;
            }
            let ticket = self.ask(Asked::Put { key, version });
            self.store.commit(self.now_ms, ticket, id, None);
        }
    }

    /// Some stored keys, with their versions.
    fn pick_chunks(&mut self, count: usize) -> Vec<(usize, u32)> {
        let stored = (0..KEYS).filter_map(|key| Some((key, self.model.keys[key].stored? as u32)));
        let stored: Vec<_> = stored.collect();
        let count = count.min(stored.len());
        (0..count).map(|_| stored[self.rng.random_range(0..stored.len())]).collect()
    }

    pub fn put_manifest(&mut self, name: usize, client: ClientId) {
        let count = self.rng.random_range(0..6);
        let chunks = self.pick_chunks(count);
        let body = [0, 100, 3_000, 70_000][self.rng.random_range(0..4)];
        let session = Session { generation: self.model.names[name].next().max(1), chunks, body };
        let ticket = self.ask(Asked::Manifest { name, session: session.clone() });
        self.publish(ticket, client, &[name as u8 + b'a'], Role::Both, &session);
    }

    fn put_refs(&mut self, name: usize, client: ClientId) {
        let generation = self.model.refs_generation[name] + 1;
        let session = Session { generation, chunks: self.pick_chunks(3), body: 0 };
        let ticket = self.ask(Asked::Refs { name, session: session.clone() });
        self.publish(ticket, client, &[name as u8 + b'x'], Role::Refs, &session);
    }

    fn delete_refs(&mut self, name: usize) {
        let generation = self.model.refs_generation[name];
        if self.model.is_asked(|asked| matches!(asked, Asked::Refs { name: other, .. } if *other == name)) {
            return;
        }
        let ticket = self.ask(Asked::DeleteRefs { name, generation });
        let label = [name as u8 + b'x'];
        self.store.delete_manifest(self.now_ms, ticket, NAMESPACE, &label, Slot::Refs, Some(generation));
    }

    fn publish(&mut self, ticket: Ticket, client: ClientId, name: &[u8], role: Role, session: &Session) {
        let keys: Vec<_> = session.chunks.iter().map(|(key, _)| content::key_name(*key)).collect();
        let chunks: Vec<_> = session
            .chunks
            .iter()
            .zip(&keys)
            .map(|((key, version), name)| ChunkRef {
                key: name,
                length: content::length(*key) as u64,
                checksum: Some(content::checksum(*key, *version)),
            })
            .collect();
        let put = PutManifest {
            namespace: NAMESPACE,
            name,
            generation: Some(session.generation),
            role,
            chunks: &chunks,
            body: content::body(session.body),
            lease_ms: 5,
        };
        self.store.put_manifest(self.now_ms, client, ticket, put);
    }

    /// Takes the store's commands and events, completes some commands.
    fn turn(&mut self) {
        self.poll();
        for _ in 0..self.rng.random_range(0..4) {
            if self.flying.is_empty() {
                break;
            }
            let index = self.rng.random_range(0..self.flying.len());
            self.complete(index);
            self.poll();
        }
    }

    fn poll(&mut self) {
        self.events();
        loop {
            let command = self.store.poll_command();
            self.events();
            self.look_for_evictions();
            let Some(command) = command else { return };
            self.issue(command);
        }
    }

    fn issue(&mut self, command: Command<Stretch>) {
        let id = self.disks.fresh_id();
        let device = command.device;
        let event = match &command.op {
            Op::Read { .. } => None,
            Op::Write { offset, segments } => {
                let mut bytes = Vec::with_capacity(command.op.write_length());
                for segment in segments {
                    match segment.bytes() {
                        Some(part) => bytes.extend_from_slice(part),
                        None => bytes.resize(bytes.len() + segment.len(), 0),
                    }
                }
                assert_eq!((*offset as usize % SECTOR_BYTES, bytes.len() % SECTOR_BYTES), (0, 0));
                Some(DiskEvent::Write { id, device, offset: *offset, bytes: Arc::from(bytes) })
            }
            Op::Flush => Some(DiskEvent::Flush { id, device }),
            Op::Discard { ranges } => Some(DiskEvent::Discard { id, device, ranges: ranges.clone() }),
        };
        self.take_disk_log();
        self.log.extend(event.clone().map(Event::Disk));
        self.flying.push((command, event));
    }

    fn complete(&mut self, index: usize) {
        let (command, event) = self.flying.swap_remove(index);
        let done = match (&command.op, &event) {
            (Op::Read { offset, length }, _) => {
                Done::Read(self.disks.bytes(command.device, *offset, *length))
            }
            (_, Some(event)) => {
                self.disks.finish(event);
                Done::Ok
            }
            (_, None) => Done::Ok,
        };
        self.take_disk_log();
        self.store.complete(self.now_ms, command.id, Ok(done));
    }

    fn events(&mut self) {
        while let Some(event) = self.store.poll_event() {
            let ticket = event.ticket.0;
            if let Ok(Outcome::PieceWritten) | Err(StoreError::LeaseExpired) = event.result {
                // The only tickets that end so are an allocation's.
                self.piece_ended(ticket);
            }
            self.note(Fact::Ended(ticket, event.result));
        }
    }

    fn piece_ended(&mut self, ticket: u64) {
        let allocation = self.model.asked(ticket).and_then(|asked| match asked {
            Asked::Piece { allocation } => Some(*allocation),
            _ => None,
        });
        let filling = self.filling.iter_mut().find(|filling| Some(filling.id.0 as usize) == allocation);
        if let Some(filling) = filling {
            filling.outstanding -= 1;
        }
    }

    /// The store does not say what it evicts; what can be looked up without counting as a use is.
    fn look_for_evictions(&mut self) {
        let counters = self.store.counters();
        let (values, manifests) = (counters.values_evicted, counters.manifests_evicted);
        let before = std::mem::replace(&mut self.evicted, (values, manifests));
        if values > before.0 {
            self.note(Fact::ValuesEvicted);
        }
        if manifests == before.1 {
            return;
        }
        let page = self.store.list_manifests(NAMESPACE, b"", b"", usize::MAX);
        let listed: HashMap<_, _> =
            page.entries.into_iter().map(|entry| (entry.name, entry.generation)).collect();
        let mut unlisted = manifests - before.1;
        for name in 0..NAMES {
            let stored = self.model.names[name].stored;
            let withdrawn = |asked: &Asked| matches!(asked, Asked::DeleteManifest { name: n } if *n == name);
            let gone = stored.is_some() && !listed.contains_key(&vec![name as u8 + b'a']);
            if gone && !self.model.is_asked(withdrawn) {
                self.note(Fact::ManifestGone { name });
                unlisted = unlisted.saturating_sub(1);
            }
        }
        if unlisted > 0 {
            self.note(Fact::RefsEvicted);
        }
    }
}
