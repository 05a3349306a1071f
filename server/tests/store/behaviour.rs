//! One body of tests for every kind of device.

use std::sync::Arc;

use memkv_server::io::{Device, Devices, MemoryDevice, open_directory};
#[cfg(target_os = "linux")]
use memkv_server::io::{Mode, UringDevice};
use memkv_server::store::*;

#[cfg(target_os = "linux")]
use crate::loops::{Loop, loops};
use crate::rig::*;

/// Where a test's store lives. Reopening gives the same devices again, or `None` when they keep nothing.
pub trait World {
    fn devices(&self, capacity_bytes: u64) -> Vec<Arc<dyn Device>>;
    fn reopened(&self, devices: Devices) -> Option<Devices>;
}

struct Memory;

impl World for Memory {
    fn devices(&self, capacity_bytes: u64) -> Vec<Arc<dyn Device>> {
        (0..2).map(|_| Arc::new(MemoryDevice::new(capacity_bytes / 2)) as Arc<dyn Device>).collect()
    }

    fn reopened(&self, _devices: Devices) -> Option<Devices> {
        None
    }
}

struct Files(tempfile::TempDir);

impl World for Files {
    fn devices(&self, capacity_bytes: u64) -> Vec<Arc<dyn Device>> {
        let directory = open_directory(self.0.path(), 3, capacity_bytes).unwrap();
        assert!(directory.created);
        directory.devices
    }

    fn reopened(&self, devices: Devices) -> Option<Devices> {
        drop(devices);
        let directory = open_directory(self.0.path(), 3, 0).unwrap();
        assert!(!directory.created);
        Some(Devices::new(directory.devices))
    }
}

/// Files through io_uring: through the page cache or past it (O_DIRECT), which needs no privilege.
#[cfg(target_os = "linux")]
struct Ring {
    place: tempfile::TempDir,
    mode: Mode,
}

#[cfg(target_os = "linux")]
fn open_ring(path: &std::path::Path, mode: Mode) -> Arc<dyn Device> {
    Arc::new(UringDevice::open(path, mode).unwrap())
}

#[cfg(target_os = "linux")]
impl Ring {
    fn new(mode: Mode) -> Self {
        // Not below /tmp, which may be a tmpfs that knows no O_DIRECT.
        Self { place: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), mode }
    }

    fn open(&self) -> Vec<Arc<dyn Device>> {
        (0..2).map(|n| open_ring(&self.place.path().join(format!("disk-{n}")), self.mode)).collect()
    }
}

#[cfg(target_os = "linux")]
impl World for Ring {
    fn devices(&self, capacity_bytes: u64) -> Vec<Arc<dyn Device>> {
        for n in 0..2 {
            let file = std::fs::File::create_new(self.place.path().join(format!("disk-{n}"))).unwrap();
            file.set_len(capacity_bytes / 2).unwrap();
        }
        self.open()
    }

    fn reopened(&self, devices: Devices) -> Option<Devices> {
        drop(devices);
        Some(Devices::new(self.open()))
    }
}

/// Loop devices, real block devices to the kernel.
#[cfg(target_os = "linux")]
struct Drives {
    _place: tempfile::TempDir,
    drives: Vec<Loop>,
}

#[cfg(target_os = "linux")]
impl Drives {
    fn new(test: &str) -> Option<Self> {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let drives = loops(test, place.path(), 2, (CAPACITY / 2) >> 20)?;
        Some(Self { _place: place, drives })
    }

    fn open(&self) -> Vec<Arc<dyn Device>> {
        self.drives.iter().map(|drive| open_ring(&drive.path, Mode::Direct)).collect()
    }
}

#[cfg(target_os = "linux")]
impl World for Drives {
    fn devices(&self, _capacity_bytes: u64) -> Vec<Arc<dyn Device>> {
        self.open()
    }

    fn reopened(&self, devices: Devices) -> Option<Devices> {
        drop(devices);
        Some(Devices::new(self.open()))
    }
}

macro_rules! behaviour {
    ($($test:ident)*) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&super::Memory); })*
        }
        mod file {
            $(#[test] fn $test() { super::$test(&super::Files(tempfile::tempdir().unwrap())); })*
        }
        #[cfg(target_os = "linux")]
        mod ring {
            $(#[test] fn $test() { super::$test(&super::Ring::new(super::Mode::Cached)); })*
        }
        #[cfg(target_os = "linux")]
        mod direct {
            $(#[test] fn $test() { super::$test(&super::Ring::new(super::Mode::Direct)); })*
        }
        #[cfg(target_os = "linux")]
        mod drives {
            $(#[test] fn $test() {
                if let Some(drives) = super::Drives::new(concat!("behaviour::drives::", stringify!($test))) {
                    super::$test(&drives);
                }
            })*
        }
    };
}

behaviour! {
    values_of_all_sizes_come_back
    values_survive_a_restart
    a_present_value_is_left_and_another_is_a_conflict
    pieces_become_a_value_at_commit
    an_allocation_ends_with_its_lease
    a_piece_may_be_written_again_while_it_is_under_way
    an_allocation_is_not_mistaken_for_one_before_a_restart
    a_manifest_needs_its_chunks
    a_manifest_holds_its_chunks
    manifests_survive_a_restart
    generations_only_rise
    attempts_of_one_put_are_one
    a_deleted_value_stays_deleted
    leases_keep_others_from_deleting
    names_are_listed_in_order
    bad_requests_are_refused
    a_full_store_says_so
    quotas_bound_a_namespace
    the_coldest_go_first
    a_session_keeps_its_chunks_until_it_is_the_coldest
    age_outlives_a_restart
    a_pinned_read_is_not_overwritten
}

const CAPACITY: u64 = 96 << 20;

fn fresh(world: &dyn World) -> Rig {
    Rig::format(world.devices(CAPACITY), config())
}

fn sizes() -> Vec<usize> {
    let block = BLOCK_BYTES;
    vec![1, 7, 8, 4095, 4096, 65535, 65536, 65537, block - 1, block, block + 1, 3 * block, 5 * block + 77]
}

fn values_of_all_sizes_come_back(world: &dyn World) {
    let mut rig = fresh(world);
    for (index, size) in sizes().into_iter().enumerate() {
        let value = bytes(size, index as u64);
        let name = format!("key-{size}");
        let info = ValueInfo { length: size as u64, checksum: Checksum::of_value(&value) };
        assert_eq!(
            rig.put(name.as_bytes(), &value),
            Ok(Outcome::Stored { value: info, already_present: false })
        );
        assert!(rig.get(name.as_bytes()) == Some(value), "size {size}");
    }
    for (index, size) in sizes().into_iter().enumerate() {
        assert!(rig.get(format!("key-{size}").as_bytes()) == Some(bytes(size, index as u64)));
    }
    // A range of blocks in the middle.
    let plan = rig.store.read(0, key(format!("key-{}", 5 * BLOCK_BYTES + 77).as_bytes()), 2..4).unwrap();
    let whole = bytes(5 * BLOCK_BYTES + 77, 12);
    assert!(rig.read_plan(plan).unwrap() == whole[2 * BLOCK_BYTES..4 * BLOCK_BYTES]);
    assert_eq!(rig.get(b"absent"), None);
}

#[test]
fn the_largest_value_comes_back_from_memory() {
    the_largest_value_comes_back(&Memory);
}

#[test]
fn the_largest_value_comes_back_from_files() {
    // Not below /tmp, which may be in memory.
    the_largest_value_comes_back(&Files(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()));
}

/// 1 GiB: 1024 blocks, of which neighbours differ.
fn the_largest_value_comes_back(world: &dyn World) {
    let kinds: Vec<Block<Bytes>> = (0..7).flat_map(|n| blocks(&bytes(BLOCK_BYTES, n))).collect();
    let value: Vec<_> = (0..1024).map(|n| kinds[n % kinds.len()].clone()).collect();
    let mut rig = Rig::format(world.devices(5 << 28), Config::default());
    let ticket = rig.ticket();
    rig.store.put(0, CLIENT, ticket, key(b"largest"), value);
    let end = rig.end(ticket);
    assert!(
        matches!(end, Ok(Outcome::Stored { value: ValueInfo { length: 1_073_741_824, .. }, .. })),
        "{end:?}"
    );
    read_largest(&mut rig, &kinds);
    let Some(devices) = world.reopened(rig.devices) else { return };
    read_largest(&mut Rig::open(devices, Config::default()), &kinds);
}

fn read_largest(rig: &mut Rig, kinds: &[Block<Bytes>]) {
    const STEP: u32 = 64;
    assert_eq!(rig.store.audit(), Ok(()));
    for first in (0..1024).step_by(STEP as usize) {
        let plan = rig.store.read(0, key(b"largest"), first..first + STEP).unwrap();
        let read = rig.read_plan(plan).unwrap();
        for (n, block) in (first as usize..).zip(read.chunks(BLOCK_BYTES)) {
            assert!(block == &*kinds[n % kinds.len()].bytes, "block {n}");
        }
    }
}

fn values_survive_a_restart(world: &dyn World) {
    let mut rig = fresh(world);
    for round in 0..3 {
        for (index, size) in sizes().into_iter().enumerate() {
            let value = bytes(size, index as u64);
            rig.put(format!("key-{size}").as_bytes(), &value).unwrap();
            rig.put(format!("key-{size}-{round}").as_bytes(), &value[..size.min(200_000)]).unwrap();
        }
        // Once in good order, once not.
        let devices = if round == 1 { rig.stop() } else { rig.devices };
        let Some(devices) = world.reopened(devices) else { return };
        rig = Rig::open(devices, config());
        assert_eq!(rig.report.problems, []);
        assert_eq!(rig.report.torn_records, 0);
        assert_eq!(rig.report.values, (sizes().len() * (round + 2)) as u64);
        for (index, size) in sizes().into_iter().enumerate() {
            assert!(
                rig.get(format!("key-{size}").as_bytes()) == Some(bytes(size, index as u64)),
                "size {size}"
            );
        }
    }
}

fn a_present_value_is_left_and_another_is_a_conflict(world: &dyn World) {
    let mut rig = fresh(world);
    let value = bytes(100_000, 1);
    rig.put(b"k", &value).unwrap();
    let written = rig.store.counters().device_bytes_written;
    //= MKV-WR-3 test
    let again = rig.put(b"k", &value).unwrap();
    assert!(matches!(again, Outcome::Stored { already_present: true, .. }));
    assert_eq!(rig.store.counters().device_bytes_written, written);
    let checksum = Checksum::of_value(&value);
    assert_eq!(rig.put(b"k", &bytes(100_000, 2)), Err(StoreError::Conflict { length: 100_000, checksum }));
    assert_eq!(rig.put(b"k", &value[..9]), Err(StoreError::Conflict { length: 100_000, checksum }));
    // Two at the same time: the second waits for the first.
    let (first, second) = (rig.ticket(), rig.ticket());
    rig.store.put(0, CLIENT, first, key(b"two"), blocks(&value));
    rig.store.put(0, OTHER, second, key(b"two"), blocks(&value));
    let third = rig.ticket();
    rig.store.put(0, OTHER, third, key(b"two"), blocks(&value[1..]));
    assert!(matches!(rig.end(first), Ok(Outcome::Stored { already_present: false, .. })));
    assert!(matches!(rig.end(second), Ok(Outcome::Stored { already_present: true, .. })));
    assert!(matches!(rig.end(third), Err(StoreError::Conflict { .. })));
    assert_eq!(rig.get(b"two"), Some(value));
}

fn pieces_become_a_value_at_commit(world: &dyn World) {
    let mut rig = fresh(world);
    for (name, size) in [(b"big", 3 * BLOCK_BYTES + 5), (b"one", 5000)] {
        let value = bytes(size, 3);
        let pieces = blocks(&value);
        let length = size as u64;
        let Ok(Allocated::New { id, .. }) = rig.store.allocate(0, CLIENT, key(name), length, None, 0) else {
            panic!("there is room");
        };
        //= MKV-COMMIT-1 test
        let early = rig.ticket();
        rig.store.commit(0, early, id, None);
        assert_eq!(rig.end(early), Err(StoreError::Incomplete { missing: pieces.len() as u32 }));
        for (index, piece) in pieces.into_iter().enumerate().rev() {
            let ticket = rig.ticket();
            rig.store.write_piece(0, ticket, id, (index * BLOCK_BYTES) as u64, piece);
            assert_eq!(rig.end(ticket), Ok(Outcome::PieceWritten));
            assert_eq!(rig.get(name), None);
        }
        let ticket = rig.ticket();
        rig.store.commit(0, ticket, id, Some(Checksum::of_value(&value)));
        assert!(matches!(rig.end(ticket), Ok(Outcome::Stored { already_present: false, .. })));
        assert!(rig.get(name) == Some(value.clone()));
        let again = rig.store.allocate(0, CLIENT, key(name), length, None, 0);
        //= MKV-ALLOC-2 test
        assert_eq!(again, Ok(Allocated::Present(ValueInfo { length, checksum: Checksum::of_value(&value) })));
    }
    //= MKV-COMMIT-2 test
    let Ok(Allocated::New { id, .. }) = rig.store.allocate(0, CLIENT, key(b"x"), 3, None, 0) else {
        panic!("there is room");
    };
    let (piece, commit) = (rig.ticket(), rig.ticket());
    rig.store.write_piece(0, piece, id, 0, blocks(b"abc").remove(0));
    rig.store.commit(0, commit, id, Some(Checksum::of_value(b"abd")));
    assert_eq!(rig.end(commit), Err(StoreError::ChecksumMismatch { actual: Checksum::of_value(b"abc") }));
    assert_eq!(rig.get(b"x"), None);
}

fn an_allocation_ends_with_its_lease(world: &dyn World) {
    let mut rig = fresh(world);
    let value = bytes(2 * BLOCK_BYTES, 3);
    let Ok(Allocated::New { id, lease_ms }) = rig.store.allocate(0, CLIENT, key(b"k"), 2 << 20, None, 500)
    else {
        panic!("there is room");
    };
    assert_eq!(lease_ms, 500);
    let ticket = rig.ticket();
    rig.store.write_piece(0, ticket, id, 0, blocks(&value).remove(0));
    assert_eq!(rig.end(ticket), Ok(Outcome::PieceWritten));
    assert!(rig.store.next_deadline() <= Some(500));
    //= MKV-ALLOC-1 test
    rig.pass(500);
    let ticket = rig.ticket();
    rig.store.write_piece(500, ticket, id, 1 << 20, blocks(&value).remove(1));
    assert_eq!(rig.end(ticket), Err(StoreError::LeaseExpired));
    assert_eq!(rig.store.counters().allocations_expired, 1);
    assert_eq!(rig.store.abort(500, id), Err(StoreError::LeaseExpired));
    rig.put(b"k", &value).unwrap();
}

/// A client that lost its connection writes a piece again before the server is through with the first attempt.
fn a_piece_may_be_written_again_while_it_is_under_way(world: &dyn World) {
    let mut rig = fresh(world);
    for size in [5000, 2 * BLOCK_BYTES] {
        let (value, name) = (bytes(size, 3), size.to_string());
        let allocated = rig.store.allocate(0, CLIENT, key(name.as_bytes()), size as u64, None, 0);
        let Ok(Allocated::New { id, .. }) = allocated else { panic!("there is room") };
        for (index, piece) in blocks(&value).into_iter().enumerate() {
            let (first, second) = (rig.ticket(), rig.ticket());
            rig.store.write_piece(0, first, id, (index * BLOCK_BYTES) as u64, piece.clone());
            // So that it is on its way.
            let under_way = rig.store.poll_command();
            rig.store.write_piece(0, second, id, (index * BLOCK_BYTES) as u64, piece);
            if let Some(command) = under_way {
                let result = rig.devices.execute(&command);
                rig.store.complete(0, command.id, result);
            }
            assert_eq!(rig.end(second), Ok(Outcome::PieceWritten));
            assert_eq!(rig.end(first), Ok(Outcome::PieceWritten));
        }
        let ticket = rig.ticket();
        rig.store.commit(0, ticket, id, Some(Checksum::of_value(&value)));
        assert!(matches!(rig.end(ticket), Ok(Outcome::Stored { already_present: false, .. })));
        assert!(rig.get(name.as_bytes()) == Some(value));
    }
}

/// A client may go on with an allocation that the server's death took: it is told so, and disturbs nobody else's.
fn an_allocation_is_not_mistaken_for_one_before_a_restart(world: &dyn World) {
    let allocate = |rig: &mut Rig| match rig.store.allocate(0, CLIENT, key(b"k"), 5000, None, 0) {
        Ok(Allocated::New { id, .. }) => id,
        other => panic!("{other:?}"),
    };
    let mut rig = fresh(world);
    let before = allocate(&mut rig);
    let Some(devices) = world.reopened(rig.devices) else { return };
    let mut rig = Rig::open(devices, config());
    assert_ne!(allocate(&mut rig), before);
    assert_eq!(rig.store.abort(0, before), Err(StoreError::LeaseExpired));
}

fn a_manifest_needs_its_chunks(world: &dyn World) {
    let mut rig = fresh(world);
    rig.put(b"a", b"one").unwrap();
    //= MKV-PUT-3 test
    let missing = rig.put_manifest(b"m", &[b"a", b"b", b"c"], b"body");
    assert_eq!(missing, Ok(Outcome::ManifestIncomplete { missing: vec![1, 2] }));
    assert_eq!(rig.get_manifest(b"m"), None);
    rig.put(b"b", b"two").unwrap();
    rig.put(b"c", &bytes(200_000, 1)).unwrap();
    //= MKV-PUT-1 test
    let stored = rig.put_manifest(b"m", &[b"a", b"b", b"c"], b"body");
    //= MKV-PUT-7 test
    assert_eq!(stored, Ok(Outcome::ManifestStored { generation: 1, lease_ms: 10_000 }));
    assert_eq!(rig.get_manifest(b"m").as_deref(), Some(&b"body"[..]));
    let wrong = [ChunkRef { key: b"a", length: 4, checksum: None }];
    let other = [ChunkRef { key: b"a", length: 3, checksum: Some(Checksum::of_value(b"two")) }];
    for chunks in [&wrong, &other] {
        let ticket = rig.ticket();
        let put = PutManifest {
            namespace: b"ns",
            name: b"n",
            generation: None,
            role: Role::Both,
            chunks,
            body: vec![],
            lease_ms: 0,
        };
        rig.store.put_manifest(0, CLIENT, ticket, put);
        assert_eq!(rig.end(ticket), Ok(Outcome::ManifestConflict { chunks: vec![0] }));
    }
    // An empty one is legal, again and again.
    for generation in 1..4 {
        let stored = rig.put_manifest(b"flush", &[], b"");
        assert_eq!(stored, Ok(Outcome::ManifestStored { generation, lease_ms: 0 }));
        assert_eq!(rig.get_manifest(b"flush").as_deref(), Some(&b""[..]));
    }
}

fn a_manifest_holds_its_chunks(world: &dyn World) {
    let mut rig = fresh(world);
    rig.put(b"a", b"one").unwrap();
    rig.put_manifest(b"m", &[b"a", b"a"], b"1").unwrap();
    rig.put_manifest(b"n", &[b"a"], b"2").unwrap();
    assert_eq!(rig.delete(b"a"), Err(StoreError::Referenced { manifests: 3 }));
    //= MKV-PUT-6 test
    rig.put_manifest(b"m", &[], b"3").unwrap();
    assert_eq!(rig.delete(b"a"), Err(StoreError::Referenced { manifests: 1 }));
    //= MKV-DELM-1 test
    assert_eq!(rig.delete_manifest(b"n"), Ok(Outcome::ManifestDeleted { generation: 1 }));
    assert_eq!(rig.delete_manifest(b"n"), Err(StoreError::NotFound));
    assert_eq!(rig.get(b"a").as_deref(), Some(&b"one"[..]));
    assert_eq!(rig.delete(b"a"), Ok(Outcome::Deleted));
    // Role home checks nothing, role refs holds without being listed.
    rig.put(b"r", b"value").unwrap();
    rig.put_manifest_as(b"home", None, Role::Home, &[b"elsewhere"], b"x").unwrap();
    rig.put_manifest_as(b"refs", Some(4), Role::Refs, &[b"r"], b"").unwrap();
    rig.put_manifest_as(b"refs", Some(5), Role::Refs, &[b"r"], b"").unwrap();
    assert_eq!(rig.delete(b"r"), Err(StoreError::Referenced { manifests: 2 }));
    assert_eq!(rig.get_manifest(b"refs"), None);
    let ticket = rig.ticket();
    rig.store.delete_manifest(0, ticket, b"ns", b"refs", Slot::Refs, Some(4));
    assert_eq!(rig.end(ticket), Ok(Outcome::ManifestDeleted { generation: 4 }));
    assert_eq!(rig.delete(b"r"), Err(StoreError::Referenced { manifests: 1 }));
}

fn manifests_survive_a_restart(world: &dyn World) {
    let mut rig = fresh(world);
    let body = bytes(2 * BLOCK_BYTES + 1000, 5);
    let names: Vec<_> = (0..600).map(|n| format!("chunk-{n}").into_bytes()).collect();
    for (index, name) in names.iter().enumerate() {
        rig.put(name, &bytes(100 + index, index as u64)).unwrap();
    }
    let chunks: Vec<&[u8]> = names.iter().map(|name| &name[..]).collect();
    rig.put_manifest(b"small", &chunks[..10], b"small").unwrap();
    rig.put_manifest(b"small", &chunks, b"second").unwrap();
    rig.put_manifest(b"large", &chunks, &body).unwrap();
    rig.put_manifest(b"gone", &chunks, &body).unwrap();
    rig.delete_manifest(b"gone").unwrap();
    for orderly in [false, true, false] {
        let devices = if orderly { rig.stop() } else { rig.devices };
        let Some(devices) = world.reopened(devices) else { return };
        rig = Rig::open(devices, config());
        assert_eq!((rig.report.manifests, rig.report.manifests_dropped), (2, 0));
        assert!(rig.get_manifest(b"large") == Some(body.clone()));
        assert_eq!(rig.get_manifest(b"small").as_deref(), Some(&b"second"[..]));
        assert_eq!(rig.get_manifest(b"gone"), None);
        assert_eq!(rig.delete(&names[20]), Err(StoreError::Referenced { manifests: 2 }));
        let page = rig.store.list_manifests(b"ns", b"", b"", 10);
        assert_eq!(page.entries.iter().map(|entry| entry.generation).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(page.entries[0].chunk_count, 600);
        assert_eq!(page.entries[0].checksum, Checksum::of_value(&body));
    }
}

fn generations_only_rise(world: &dyn World) {
    let mut rig = fresh(world);
    let put =
        |rig: &mut Rig, generation, body: &[u8]| rig.put_manifest_as(b"m", generation, Role::Both, &[], body);
    assert_eq!(put(&mut rig, Some(5), b"five"), Ok(Outcome::ManifestStored { generation: 5, lease_ms: 0 }));
    //= MKV-PUT-5 test
    assert_eq!(put(&mut rig, Some(5), b"five"), Ok(Outcome::ManifestStored { generation: 5, lease_ms: 0 }));
    assert_eq!(put(&mut rig, Some(5), b"other"), Err(StoreError::StaleGeneration { current: 5 }));
    assert_eq!(put(&mut rig, Some(4), b"four"), Err(StoreError::StaleGeneration { current: 5 }));
    assert_eq!(put(&mut rig, None, b"six"), Ok(Outcome::ManifestStored { generation: 6, lease_ms: 0 }));
    //= MKV-DELM-2 test
    let ticket = rig.ticket();
    rig.store.delete_manifest(0, ticket, b"ns", b"m", Slot::Published, Some(5));
    assert_eq!(rig.end(ticket), Err(StoreError::StaleGeneration { current: 6 }));
    assert_eq!(rig.get_manifest(b"m").as_deref(), Some(&b"six"[..]));
    // Several at once: all are answered, the latest stays.
    let tickets: Vec<_> = (0..5).map(|_| rig.ticket()).collect();
    for (index, ticket) in tickets.iter().enumerate() {
        let put = PutManifest {
            namespace: b"ns",
            name: b"m",
            generation: None,
            role: Role::Both,
            chunks: &[],
            body: blocks(&[index as u8]),
            lease_ms: 0,
        };
        rig.store.put_manifest(0, CLIENT, *ticket, put);
    }
    for (index, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(
            rig.end(ticket),
            Ok(Outcome::ManifestStored { generation: 7 + index as u64, lease_ms: 0 })
        );
    }
    assert_eq!(rig.get_manifest(b"m").as_deref(), Some(&[4][..]));
}

/// A client that lost its connection puts again what may still be under way.
fn attempts_of_one_put_are_one(world: &dyn World) {
    let mut rig = fresh(world);
    for generation in [Some(5), None] {
        let before = rig.store.counters().manifests_put;
        let attempts = [(CLIENT, b"body"), (OTHER, b"body"), (CLIENT, b"else")].map(|(client, body)| {
            let (ticket, body) = (rig.ticket(), blocks(body));
            let put = PutManifest {
                namespace: b"ns",
                name: b"m",
                generation,
                role: Role::Both,
                chunks: &[],
                body,
                lease_ms: 0,
            };
            rig.store.put_manifest(0, client, ticket, put);
            ticket
        });
        let [first, second, third] = attempts.map(|ticket| rig.end(ticket));
        assert!(matches!(first, Ok(Outcome::ManifestStored { .. })), "{first:?}");
        assert_eq!(first, second);
        // Another body is another put.
        match generation {
            Some(current) => assert_eq!(third, Err(StoreError::StaleGeneration { current })),
            None => assert_eq!(third, Ok(Outcome::ManifestStored { generation: 7, lease_ms: 0 })),
        }
        let published = 1 + u64::from(generation.is_none());
        assert_eq!(rig.store.counters().manifests_put - before, published);
    }
}

fn a_deleted_value_stays_deleted(world: &dyn World) {
    let mut rig = fresh(world);
    rig.put(b"small", b"v").unwrap();
    rig.put(b"large", &bytes(3 * BLOCK_BYTES, 1)).unwrap();
    assert_eq!(rig.delete(b"small"), Ok(Outcome::Deleted));
    assert_eq!(rig.delete(b"large"), Ok(Outcome::Deleted));
    //= MKV-DEL-1 test
    assert_eq!(rig.delete(b"small"), Err(StoreError::NotFound));
    rig.put(b"small", b"another").unwrap();
    //= MKV-DEL-2 test
    let Some(devices) = world.reopened(rig.devices) else { return };
    let mut rig = Rig::open(devices, config());
    assert_eq!(rig.get(b"small").as_deref(), Some(&b"another"[..]));
    assert_eq!(rig.get(b"large"), None);
}

fn leases_keep_others_from_deleting(world: &dyn World) {
    let mut rig = fresh(world);
    rig.put(b"k", b"v").unwrap();
    //= MKV-WR-5 test
    let ticket = rig.ticket();
    rig.store.delete(0, OTHER, ticket, key(b"k"));
    assert_eq!(rig.end(ticket), Err(StoreError::Leased { until_ms: 10_000 }));
    //= MKV-LEASE-1 test
    let plan = rig.store.lookup(0, OTHER, key(b"k"), 20_000).unwrap();
    assert_eq!(rig.read_plan(plan), Ok(vec![]));
    rig.pass(10_000);
    assert_eq!(rig.delete(b"k"), Err(StoreError::Leased { until_ms: 20_000 }));
    rig.pass(10_000);
    assert_eq!(rig.delete(b"k"), Ok(Outcome::Deleted));
    assert_eq!(rig.store.usage().leases, 0);
}

fn names_are_listed_in_order(world: &dyn World) {
    let mut rig = fresh(world);
    for name in ["b/2", "a", "b/1", "c", "b/10", "b"] {
        rig.put_manifest(name.as_bytes(), &[], b"").unwrap();
    }
    //= MKV-LIST-1 test
    let mut names = Vec::new();
    let mut cursor = Vec::new();
    loop {
        let page = rig.store.list_manifests(b"ns", b"b", &cursor, 2);
        assert!(page.entries.len() <= 2);
        names.extend(page.entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()));
        if !page.more {
            break;
        }
        cursor = names.last().unwrap().clone().into_bytes();
    }
    assert_eq!(names, ["b", "b/1", "b/10", "b/2"]);
    assert_eq!(rig.store.list_manifests(b"other", b"", b"", 9).entries, []);
}

fn bad_requests_are_refused(world: &dyn World) {
    let mut rig = fresh(world);
    assert_eq!(rig.put(b"", b"v"), Err(StoreError::InvalidKey));
    assert_eq!(rig.put(&[0; 513], b"v"), Err(StoreError::InvalidKey));
    assert_eq!(rig.put(b"k", b""), Err(StoreError::InvalidRange));
    let ticket = rig.ticket();
    let mut short = blocks(&bytes(2 * BLOCK_BYTES, 1));
    short[0].bytes = short[0].bytes[1..].into();
    rig.store.put(0, CLIENT, ticket, key(b"k"), short);
    assert_eq!(rig.end(ticket), Err(StoreError::InvalidRange));
    let long = rig.store.allocate(0, CLIENT, key(b"k"), (1 << 30) + 1, None, 0);
    assert_eq!(long, Err(StoreError::TooLarge { bytes_max: 1 << 30 }));
    rig.put(b"k", b"v").unwrap();
    assert_eq!(rig.store.read(0, key(b"k"), 0..2).unwrap_err(), StoreError::InvalidRange);
    assert_eq!(rig.store.read(0, key(b"k"), 1..1).unwrap_err(), StoreError::InvalidRange);
    assert_eq!(rig.put_manifest(b"", &[], b""), Err(StoreError::InvalidKey));
}

fn a_full_store_says_so(world: &dyn World) {
    let mut rig = fresh(world);
    let value = bytes(BLOCK_BYTES, 1);
    let mut stored = 0;
    let error = loop {
        match rig.put(format!("k{stored}").as_bytes(), &value) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 96);
    };
    assert_eq!(error, StoreError::OutOfSpace);
    assert!(stored >= 60, "{stored} of 96 MiB");
    for index in 0..stored {
        assert!(rig.get(format!("k{index}").as_bytes()).as_ref() == Some(&value));
    }
}

fn quotas_bound_a_namespace(world: &dyn World) {
    let mut config = config();
    config.quotas.insert(b"ns".to_vec(), 1000);
    let mut rig = Rig::format(world.devices(CAPACITY), config);
    rig.put(b"a", &[1; 600]).unwrap();
    assert_eq!(rig.put(b"b", &[2; 600]), Err(StoreError::QuotaExceeded { bytes_max: 1000 }));
    rig.put(b"b", &[2; 400]).unwrap();
    let ticket = rig.ticket();
    rig.store.put(0, CLIENT, ticket, Key::new(b"free", b"b"), blocks(&[2; 600]));
    assert!(rig.end(ticket).is_ok());
    rig.delete(b"a").unwrap();
    rig.put(b"c", &[3; 600]).unwrap();
}

/// Fills the store several times over with values that nobody leases any more.
fn churn(rig: &mut Rig, label: &str, count: usize, length: usize) {
    for n in 0..count {
        rig.put(format!("{label}-{n}").as_bytes(), &bytes(length, n as u64)).unwrap();
        rig.pass(20_000);
    }
}

fn the_coldest_go_first(world: &dyn World) {
    let mut rig = fresh(world);
    rig.put(b"used", &bytes(70_000, 1)).unwrap();
    for n in 0..400u64 {
        rig.put(format!("k{n}").as_bytes(), &bytes(700_000, n)).unwrap();
        rig.pass(20_000);
        assert!(rig.get(b"used").is_some(), "what is used stays, at {n}");
    }
    let counters = rig.store.counters();
    assert!(counters.values_evicted > 200);
    assert!(
        counters.bytes_moved < counters.put_bytes,
        "moving is for what stays: {} of {}",
        counters.bytes_moved,
        counters.put_bytes
    );
    let stored = |rig: &mut Rig, n: u64| rig.get(format!("k{n}").as_bytes());
    for n in 380..400 {
        assert!(stored(&mut rig, n) == Some(bytes(700_000, n)), "the latest are there, {n}");
    }
    // Extents are reclaimed by device, so a few old ones outlive their time on the other.
    let old = (0..200).filter(|n| stored(&mut rig, *n).is_some()).count();
    assert!(old <= 20, "the oldest are gone, but for {old}");
    assert_eq!(rig.store.audit(), Ok(()));
    let Some(devices) = world.reopened(rig.devices) else { return };
    let mut rig = Rig::open(devices, config());
    assert!(stored(&mut rig, 399) == Some(bytes(700_000, 399)));
}

fn a_session_keeps_its_chunks_until_it_is_the_coldest(world: &dyn World) {
    let mut rig = fresh(world);
    let chunks: [&[u8]; 3] = [b"c0", b"c1", b"c2"];
    for (n, chunk) in chunks.iter().enumerate() {
        rig.put(chunk, &bytes(1 << 20, n as u64)).unwrap();
    }
    rig.put_manifest(b"restored", &chunks, b"body").unwrap();
    rig.put(b"cold chunk", &bytes(1 << 20, 9)).unwrap();
    rig.put_manifest(b"forgotten", &[b"cold chunk"], b"body").unwrap();
    for round in 0..8 {
        churn(&mut rig, &format!("r{round}"), 40, 1 << 20);
        //= MKV-PUT-4 test
        assert_eq!(rig.get_manifest(b"restored").as_deref(), Some(&b"body"[..]), "round {round}");
        for (n, chunk) in chunks.iter().enumerate() {
            assert!(rig.get(chunk) == Some(bytes(1 << 20, n as u64)), "round {round}");
        }
    }
    assert_eq!(rig.get_manifest(b"forgotten"), None);
    assert_eq!(rig.store.counters().manifests_evicted, 1);
    assert_eq!(rig.store.audit(), Ok(()));
}

fn age_outlives_a_restart(world: &dyn World) {
    let mut rig = fresh(world);
    for (name, after) in [(&b"old chunk"[..], 40), (b"new chunk", 12)] {
        rig.put(name, &bytes(1 << 20, 9)).unwrap();
        rig.put_manifest(&[name, b" session"].concat(), &[name], b"body").unwrap();
        churn(&mut rig, &String::from_utf8_lossy(name), after, 1 << 20);
    }
    let devices = rig.stop();
    let Some(devices) = world.reopened(devices) else { return };
    let mut rig = Rig::open(devices, config());
    assert_eq!(rig.store.audit(), Ok(()));
    churn(&mut rig, "r", 36, 1 << 20);
    assert_eq!(rig.store.counters().manifests_evicted, 1, "room was short");
    assert_eq!(rig.get_manifest(b"old chunk session"), None);
    assert_eq!(rig.get_manifest(b"new chunk session").as_deref(), Some(&b"body"[..]));
}

fn a_pinned_read_is_not_overwritten(world: &dyn World) {
    let mut rig = fresh(world);
    let value = bytes(1 << 20, 1);
    rig.put(b"k", &value).unwrap();
    let plan = rig.store.read(0, key(b"k"), 0..1).unwrap();
    assert_eq!(rig.delete(b"k"), Ok(Outcome::Deleted));
    churn(&mut rig, "r", 200, 1 << 20);
    assert_eq!(rig.get(b"k"), None);
    assert!(rig.read_plan(plan) == Ok(value), "the bytes stayed where they were");
}
