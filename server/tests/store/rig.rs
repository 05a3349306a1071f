//! A store with its devices, driven to rest after every call.

use std::collections::HashMap;
use std::sync::Arc;

use memkv_server::io::{Device, Devices};
use memkv_server::store::*;

pub type Bytes = Arc<[u8]>;

pub const EXTENT: u32 = (1 << 20) + (64 << 10);
pub const CLIENT: ClientId = ClientId(1);
pub const OTHER: ClientId = ClientId(2);
/// How often a device may refuse the same write.
const TRIES_MAX: usize = 8;

/// A caller's bytes: a stretch of one shared buffer.
#[derive(Clone)]
pub struct Stretch(pub Arc<[u8]>, pub std::ops::Range<usize>);

impl AsRef<[u8]> for Stretch {
    fn as_ref(&self) -> &[u8] {
        &self.0[self.1.clone()]
    }
}

pub struct Rig {
    pub store: Store<Bytes>,
    pub devices: Devices,
    pub report: OpenReport,
    pub now_ms: u64,
    tickets: u64,
    ended: HashMap<Ticket, Result<Outcome, StoreError>>,
}

pub fn config() -> Config {
    Config { extent_bytes: EXTENT, ..Config::default() }
}

pub fn options() -> FormatOptions {
    FormatOptions { server_id: [7; 16], secrets: [9; 32] }
}

/// Bytes that differ from one another everywhere.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

pub fn blocks(bytes: &[u8]) -> Vec<Block<Bytes>> {
    let block = |bytes: &[u8]| Block { bytes: bytes.into(), checksum: Checksum::of_block(bytes) };
    bytes.chunks(BLOCK_BYTES).map(block).collect()
}

pub fn key(name: &[u8]) -> Key<'_> {
    Key::new(b"ns", name)
}

impl Rig {
    pub fn format(devices: Vec<Arc<dyn Device>>, config: Config) -> Self {
        let mut devices = Devices::new(devices);
        format(&mut devices, &config, options()).unwrap();
        Self::open(devices, config)
    }

    pub fn open(devices: Devices, config: Config) -> Self {
        Self::try_open(devices, config).unwrap()
    }

    pub fn try_open(mut devices: Devices, config: Config) -> Result<Self, OpenError> {
        let (store, report) = Store::open(0, config, &mut devices)?;
        Ok(Self::with(store, report, devices))
    }

    pub fn with(store: Store<Bytes>, report: OpenReport, devices: Devices) -> Self {
        let mut rig = Self { store, devices, report, now_ms: 0, tickets: 0, ended: HashMap::new() };
        rig.settle();
        rig
    }

    /// Runs commands until there are none, then collects events.
    pub fn settle(&mut self) {
        while let Some(command) = self.store.poll_command() {
            let result = self.devices.execute(&command);
            self.store.complete(self.now_ms, command.id, result);
        }
        while let Some(event) = self.store.poll_event() {
            let before = self.ended.insert(event.ticket, event.result);
            assert!(before.is_none(), "a request ends once");
        }
    }

    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub fn has_ended(&self, ticket: Ticket) -> bool {
        self.ended.contains_key(&ticket)
    }

    pub fn end(&mut self, ticket: Ticket) -> Result<Outcome, StoreError> {
        self.settle();
        for _ in 0..TRIES_MAX {
            if self.has_ended(ticket) {
                break;
            }
            // What a full file system refuses is tried again later.
            self.pass(200);
        }
        self.ended.remove(&ticket).expect("the request has ended")
    }

    pub fn put(&mut self, name: &[u8], value: &[u8]) -> Result<Outcome, StoreError> {
        let ticket = self.ticket();
        self.store.put(self.now_ms, CLIENT, ticket, key(name), blocks(value));
        self.end(ticket)
    }

    pub fn delete(&mut self, name: &[u8]) -> Result<Outcome, StoreError> {
        let ticket = self.ticket();
        self.store.delete(self.now_ms, CLIENT, ticket, key(name));
        self.end(ticket)
    }

    pub fn read_plan(&mut self, plan: ReadPlan) -> Result<Vec<u8>, Corrupt> {
        let (pin, result) = (plan.pin, run_plan(&self.devices, &plan));
        let verdict = match &result {
            Ok(_) => Verdict::Good,
            Err(corrupt) => Verdict::Corrupt(*corrupt),
        };
        self.store.release(self.now_ms, pin, verdict);
        self.settle();
        result
    }

    /// The whole value, `None` on a miss. Bytes that do not hold are a miss.
    pub fn get(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let info = self.store.exists(self.now_ms, key(name))?;
        let count = info.length.div_ceil(BLOCK_BYTES as u64) as u32;
        let plan = self.store.read(self.now_ms, key(name), 0..count).ok()?;
        assert_eq!(plan.value, info);
        self.read_plan(plan).ok()
    }

    pub fn put_manifest(
        &mut self,
        name: &[u8],
        chunks: &[&[u8]],
        body: &[u8],
    ) -> Result<Outcome, StoreError> {
        self.put_manifest_as(name, None, Role::Both, chunks, body)
    }

    pub fn put_manifest_as(
        &mut self,
        name: &[u8],
        generation: Option<u64>,
        role: Role,
        chunks: &[&[u8]],
        body: &[u8],
    ) -> Result<Outcome, StoreError> {
        let lengths: Vec<_> = chunks.iter().map(|chunk| self.store.exists(self.now_ms, key(chunk))).collect();
        let refs: Vec<_> = chunks
            .iter()
            .zip(lengths)
            .map(|(key, info)| ChunkRef { key, length: info.map_or(1, |info| info.length), checksum: None })
            .collect();
        let ticket = self.ticket();
        let put = PutManifest {
            namespace: b"ns",
            name,
            generation,
            role,
            chunks: &refs,
            body: blocks(body),
            lease_ms: 0,
        };
        self.store.put_manifest(self.now_ms, CLIENT, ticket, put);
        self.end(ticket)
    }

    pub fn delete_manifest(&mut self, name: &[u8]) -> Result<Outcome, StoreError> {
        let ticket = self.ticket();
        self.store.delete_manifest(self.now_ms, ticket, b"ns", name, Slot::Published, None);
        self.end(ticket)
    }

    pub fn get_manifest(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let (_, plan) = self.store.get_manifest(self.now_ms, OTHER, b"ns", name, 0).ok()?;
        self.read_plan(plan).ok()
    }

    pub fn stop(mut self) -> Devices {
        let ticket = self.ticket();
        self.store.stop(self.now_ms, ticket);
        assert_eq!(self.end(ticket), Ok(Outcome::Stopped));
        self.devices
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.store.tick(self.now_ms);
        self.settle();
    }
}

/// Reads a plan's blocks, checking everything that is to be checked.
pub fn run_plan(devices: &Devices, plan: &ReadPlan) -> Result<Vec<u8>, Corrupt> {
    let mut out = Vec::new();
    for record in &plan.records {
        let device = devices.device(record.device).expect("a plan names devices that are there");
        let mut head = vec![0; record.head_bytes];
        device.read(record.head_offset, &mut head).map_err(|_| Corrupt::Header)?;
        let mut data = vec![0; record.data_bytes];
        if record.data_bytes > 0 {
            device.read(record.data_offset, &mut data).map_err(|_| Corrupt::Header)?;
        }
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
