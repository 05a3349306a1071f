//! The store: values and manifests in a log of extents over several devices.
//!
//! Sans-io. A [`Store`] owns the catalogue, the space of its devices, leases, pins and everything in flight; it takes the time
//! (`now_ms`, monotonic), requests and completions, and hands out [`Command`]s and [`Event`]s. It never touches payload
//! bytes: callers verify and checksum them before they call, and readers verify what a [`ReadPlan`] returns.
//!
//! How to drive it, under one lock:
//! 1. call a request (`put`, `commit`, `put_manifest`, ...), or `complete`, or `tick`;
//! 2. take every command from `poll_command` and every event from `poll_event`, until both are empty;
//! 3. outside the lock, run the commands and answer the events' tickets. Call `tick` at `next_deadline`.
//!
//! Promises, as the sum of the submodules':
//! - a value is visible only when its header and all its blocks are on their devices;
//! - an acknowledged value survives the process, an acknowledged manifest (and all it names) and an acknowledged delete
//!   the loss of power;
//! - bytes under a pin are not overwritten; values under a lease or named by a manifest are not evicted;
//! - nothing a client sends can make it panic. Asserts guard against its own mistakes alone.
//!
//! Not checked here: that payload bytes match their checksums, and that commands are executed once.

mod allocate;
mod audit;
mod catalog;
pub mod check;
mod checkpoint;
mod command;
mod config;
mod counters;
mod durability;
mod format;
pub mod inspect;
mod journal;
mod leases;
mod manifest;
mod place;
mod read;
mod recency;
mod reclaim;
mod recovery;
mod remove;
mod scrub;
mod space;
mod types;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

pub use allocate::Allocated;
use allocate::Allocation;
pub use audit::AuditError;
use catalog::{Catalog, EntryId, Place, View};
pub use command::{Command, CommandId, Disks, Done, Geometry, IoError, Op, ReadRequest, ReadResult, Segment};
pub use config::{Config, DEVICES_MAX, EXTENT_BYTES_DEFAULT, Placement, Sync};
pub use counters::{Counters, DeviceStatus, Usage};
use durability::Wait;
use format::{Digest, Kind, Secrets, Shape, ValueDigests};
use leases::Leases;
use manifest::{ManifestOp, Manifests, OpId};
use place::Placing;
use read::Pin;
pub use read::{BlockPlace, Corrupt, ReadPlan, RecordRead, Verdict};
use recency::Recency;
use reclaim::{BatchId, Move, MoveRead, Reclaim};
pub use recovery::{DeviceProblem, FormatOptions, OpenError, OpenReport, format};
pub use scrub::{Damage, ExtentPlan, RecordName, ScrubCursor, Wrong};
use smallvec::SmallVec;
use space::{Device, ExtentState, JobId, OpenExtent, Stream, WaitId};
pub use types::*;
use write::Job;

/// A table by numbers that are given out here, or by keyed digests: nobody outside chooses them so that they collide.
type Map<K, V> = rustc_hash::FxHashMap<K, V>;

/// The same without values.
type Set<K> = rustc_hash::FxHashSet<K>;

/// See the module's head.
pub struct Store<B> {
    config: Config,
    now_ms: u64,
    server_id: [u8; 16],
    generation: u64,
    secrets: Secrets,
    value_digests: ValueDigests,
    part_blocks: u32,
    devices: Vec<Device>,
    /// The device whose open extent takes the next record, when placement rotates.
    rotor: usize,
    catalog: Catalog,
    recency: Recency,
    namespaces: Namespaces,
    manifests: Manifests,
    leases: Leases,
    pins: Map<PinId, Pin>,
    counters: Counters,
    next_lsn: u64,
    next_extent_seq: u64,
    next_id: u64,
    jobs: Map<JobId, Job<B>>,
    /// Values being written, by digest.
    writing: Map<Digest, JobId>,
    placing: VecDeque<Placing>,
    packing: VecDeque<JobId>,
    allocations: Map<AllocationId, Allocation<B>>,
    allocation_ends: BTreeSet<(u64, AllocationId)>,
    manifest_ops: Map<OpId, ManifestOp<B>>,
    waits: Map<WaitId, Wait>,
    waits_ended: u64,
    reclaim: Reclaim,
    in_flight: Map<CommandId, InFlight>,
    commands: VecDeque<Command<B>>,
    events: VecDeque<Event>,
    next_sync_ms: u64,
    stopping: Option<Ticket>,
    stop_begun: bool,
    /// The superblocks say that the store was closed in good order.
    closing: bool,
}

/// What a completion is about.
enum InFlight {
    /// Whole records, or headers, in one extent.
    Records {
        device: usize,
        extent: u32,
        jobs: SmallVec<[JobId; 1]>,
        bytes: usize,
        packed: bool,
    },
    /// One block of an allocation.
    Piece {
        device: usize,
        extent: u32,
        allocation: AllocationId,
        block: u32,
        bytes: usize,
    },
    /// A frame of the journal, or a superblock.
    Own {
        device: usize,
        write: space::OwnWrite,
    },
    /// A flush before or after a superblock is written.
    Superblock {
        device: usize,
    },
    Flush {
        device: usize,
    },
    MoveRead(MoveRead),
    Moves {
        device: usize,
        extent: u32,
        batch: BatchId,
        moves: Vec<Move>,
    },
    Discard {
        device: usize,
        extents: Vec<u32>,
    },
}

/// The namespaces in use, by number.
#[derive(Default)]
struct Namespaces {
    names: Vec<Namespace>,
    by_name: HashMap<Vec<u8>, u16>,
}

struct Namespace {
    name: Vec<u8>,
    used_bytes: u64,
    quota_bytes: Option<u64>,
}

impl Namespaces {
    fn find(&self, name: &[u8]) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    fn intern(&mut self, name: &[u8], config: &Config) -> Result<u16, StoreError> {
        if let Some(id) = self.find(name) {
            return Ok(id);
        }
        let id =
            u16::try_from(self.names.len()).map_err(|_| StoreError::TooMany { what: Limit::Namespaces })?;
        let quota_bytes = config.quotas.get(name).copied();
        self.names.push(Namespace { name: name.to_vec(), used_bytes: 0, quota_bytes });
        self.by_name.insert(name.to_vec(), id);
        Ok(id)
    }

    fn charge(&mut self, id: u16, bytes: u64) -> Result<(), StoreError> {
        let namespace = &mut self.names[id as usize];
        if let Some(bytes_max) = namespace.quota_bytes
            && namespace.used_bytes + bytes > bytes_max
        {
            return Err(StoreError::QuotaExceeded { bytes_max });
        }
        namespace.used_bytes += bytes;
        Ok(())
    }

    fn refund(&mut self, id: u16, bytes: u64) {
        self.names[id as usize].used_bytes -= bytes;
    }
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// The next command to run. Everything that can be started is started before this answers `None`.
    pub fn poll_command(&mut self) -> Option<Command<B>> {
        while self.commands.is_empty() {
            let before = (self.reclaim.batches_ended, self.waits_ended);
            self.pump();
            // A batch, or a wait for what is durable already, may end without any I/O: what that lets begin must begin now, for
            // nobody will complete anything.
            if (self.reclaim.batches_ended, self.waits_ended) == before {
                break;
            }
        }
        self.commands.pop_front()
    }

    /// The next finished request.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A command ended.
    pub fn complete(&mut self, now_ms: u64, id: CommandId, result: Result<Done, IoError>) {
        self.advance(now_ms);
        let Some(what) = self.in_flight.remove(&id) else {
            debug_assert!(false, "a command is completed once");
            return;
        };
        let what = match what {
            InFlight::MoveRead(read) => return self.move_read_ended(read, result),
            what => what,
        };
        let result = result.map(|_| ());
        match what {
            InFlight::Records { device, extent, jobs, bytes, packed } => {
                let result = self.unless_failed(device, result);
                self.devices[device].bytes_in_flight -= bytes;
                self.devices[device].packs_in_flight -= u32::from(packed);
                self.write_ended(device, extent, result);
                jobs.into_iter().for_each(|job| self.job_write_ended(job, device, result));
            }
            InFlight::Piece { device, extent, allocation, block, bytes } => {
                let result = self.unless_failed(device, result);
                self.devices[device].bytes_in_flight -= bytes;
                self.write_ended(device, extent, result);
                self.piece_ended(allocation, block, device, result);
            }
            InFlight::Own { device, write } => self.own_write_ended(device, write, result),
            InFlight::Superblock { device } => self.superblock_step(device, result),
            InFlight::Flush { device } => self.flush_ended(device, result),
            InFlight::Moves { device, extent, batch, moves } => {
                let result = self.unless_failed(device, result);
                self.write_ended(device, extent, result);
                self.moves_ended(batch, device, moves, result);
            }
            InFlight::Discard { device, extents } => {
                self.discard_ended(device, extents);
                // The shards share a file system.
                (0..self.devices.len()).for_each(|device| self.write_held_back(device));
            }
            InFlight::MoveRead(_) => debug_assert!(false, "handled above"),
        }
    }

    /// What a failed device still writes counts for nothing.
    fn unless_failed(&self, device: usize, result: Result<(), IoError>) -> Result<(), IoError> {
        if self.devices[device].failed { Err(IoError::Gone) } else { result }
    }

    /// Time passed: leases and allocations end, intervals come due.
    pub fn tick(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.leases.expire(self.now_ms);
        self.expire_allocations();
        if let Sync::Interval { ms } = self.config.sync
            && self.now_ms >= self.next_sync_ms
        {
            self.next_sync_ms = self.now_ms + ms.max(1);
            self.flush_all();
        }
        for device in 0..self.devices.len() {
            if self.now_ms >= self.devices[device].held_back_until_ms {
                self.write_held_back(device);
            }
        }
    }

    /// When `tick` has something to do at the latest.
    pub fn next_deadline(&self) -> Option<u64> {
        let allocation = self.allocation_ends.first().map(|(until, _)| *until);
        let sync = match self.config.sync {
            Sync::Interval { .. } => Some(self.next_sync_ms),
            Sync::Always => None,
        };
        let held_back = self.devices.iter().filter(|device| !device.held_back.is_empty());
        let held_back = held_back.map(|device| device.held_back_until_ms).min();
        [self.leases.next_end(), allocation, sync, held_back].into_iter().flatten().min()
    }

    /// Makes everything acknowledged so far durable; ends in [`Outcome::Synced`].
    pub fn sync(&mut self, now_ms: u64, ticket: Ticket) {
        self.advance(now_ms);
        self.wait_for_everything(durability::Then::Synced(ticket));
    }

    /// Accepts nothing more, lets everything in flight end, makes it durable; ends in [`Outcome::Stopped`].
    ///
    /// On a full file system that is when there is room for the journals again. Whoever does not wait so long leaves what a loss
    /// of power would: nothing acknowledged is lost.
    pub fn stop(&mut self, now_ms: u64, ticket: Ticket) {
        self.advance(now_ms);
        self.stopping = Some(ticket);
        let open: Vec<_> = self.allocations.keys().copied().collect();
        open.into_iter().for_each(|id| self.drop_allocation(id));
    }

    pub fn server_id(&self) -> [u8; 16] {
        self.server_id
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Outcome, StoreError>) {
        self.events.push_back(Event { ticket, result });
    }

    fn accepting(&self) -> Result<(), StoreError> {
        if self.stopping.is_some() { Err(StoreError::Stopping) } else { Ok(()) }
    }

    /// Hands out a command.
    fn issue(&mut self, device: usize, op: Op<B>, what: InFlight) {
        let id = CommandId(self.fresh_id());
        self.in_flight.insert(id, what);
        self.commands.push_back(Command { id, device: self.devices[device].slot, op });
    }

    /// Starts whatever can be started.
    fn pump(&mut self) {
        self.reclaim_pump();
        self.place_waiting();
        self.pack_waiting();
        for device in 0..self.devices.len() {
            self.discard_pump(device);
            self.journal_pump(device);
            self.checkpoint_pump(device);
            self.superblock_pump(device);
            self.flush_pump(device);
        }
        self.finish_stop();
    }

    /// The device and the local number of an extent.
    fn locate(&self, extent: u32) -> (usize, u32) {
        let device = self.devices.partition_point(|device| device.base <= extent) - 1;
        (device, extent - self.devices[device].base)
    }

    fn extent_mut(&mut self, extent: u32) -> &mut space::Extent {
        let (device, local) = self.locate(extent);
        &mut self.devices[device].extents[local as usize]
    }
}

/// A key within the limits.
fn check_key(key: Key<'_>) -> Result<(), StoreError> {
    let fits = (1..=KEY_BYTES_MAX).contains(&key.key.len()) && key.namespace.len() <= NAMESPACE_BYTES_MAX;
    if fits { Ok(()) } else { Err(StoreError::InvalidKey) }
}
