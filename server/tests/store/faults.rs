//! Devices that fail, lie, or come back changed: what is reported, and that nothing else is lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memkv_server::io::{Device, Devices, Faults, FaultyDevice, MemoryDevice, open_directory};
use memkv_server::store::*;

use crate::rig::*;

const SHARDS: u16 = 4;
const CAPACITY: u64 = 160 << 20;

fn files(path: &Path) -> Vec<Arc<dyn Device>> {
    open_directory(path, SHARDS, CAPACITY).unwrap().devices
}

/// A store in a directory with 40 values of 1 MiB, so that every shard has some; closed.
fn filled(path: &Path) {
    let mut rig = Rig::format(files(path), config());
    for n in 0..40u64 {
        rig.put(format!("k{n}").as_bytes(), &bytes(1 << 20, n)).unwrap();
    }
    drop(rig.stop());
}

/// How many of them read as they should; none may read as anything else.
fn found(rig: &mut Rig) -> usize {
    let mut count = 0;
    for n in 0..40u64 {
        if let Some(value) = rig.get(format!("k{n}").as_bytes()) {
            assert!(value == bytes(1 << 20, n), "k{n} is another");
            count += 1;
        }
    }
    count
}

fn shard(path: &Path, n: u16) -> std::path::PathBuf {
    path.join(format!("shard-{n:02}.memkv"))
}

#[test]
fn a_deleted_shard_is_reported_and_never_replaced() {
    let place = tempfile::tempdir().unwrap();
    filled(place.path());
    std::fs::remove_file(shard(place.path(), 2)).unwrap();
    let mut rig = Rig::open(Devices::new(files(place.path())), config());
    assert_eq!(rig.report.problems, [(2, DeviceProblem::Unreadable(IoError::Gone))]);
    assert_eq!(rig.report.absent, [2]);
    let left = found(&mut rig);
    assert!((20..40).contains(&left), "{left}");
    rig.put(b"new", b"value").unwrap();
    assert_eq!(rig.get(b"new").as_deref(), Some(&b"value"[..]));
    assert!(!shard(place.path(), 2).exists());
}

#[test]
fn a_shard_that_was_away_for_a_generation_is_refused() {
    let place = tempfile::tempdir().unwrap();
    filled(place.path());
    let hidden = place.path().join("hidden");
    std::fs::rename(shard(place.path(), 1), &hidden).unwrap();
    let rig = Rig::open(Devices::new(files(place.path())), config());
    assert_eq!(rig.report.absent, [1]);
    drop(rig);
    std::fs::rename(&hidden, shard(place.path(), 1)).unwrap();
    let mut rig = Rig::open(Devices::new(files(place.path())), config());
    assert!(
        matches!(rig.report.problems[..], [(1, DeviceProblem::Stale { .. })]),
        "{:?}",
        rig.report.problems
    );
    assert!(found(&mut rig) < 40);
}

#[test]
fn a_truncated_shard_is_reported() {
    let place = tempfile::tempdir().unwrap();
    filled(place.path());
    let file = std::fs::OpenOptions::new().write(true).open(shard(place.path(), 3)).unwrap();
    file.set_len(20 << 20).unwrap();
    let mut rig = Rig::open(Devices::new(files(place.path())), config());
    assert_eq!(rig.report.problems, [(3, DeviceProblem::Truncated)]);
    assert!(found(&mut rig) >= 20);
}

#[test]
fn shards_in_another_order_are_the_same_store() {
    let place = tempfile::tempdir().unwrap();
    filled(place.path());
    let (a, b, aside) = (shard(place.path(), 0), shard(place.path(), 3), place.path().join("aside"));
    std::fs::rename(&a, &aside).unwrap();
    std::fs::rename(&b, &a).unwrap();
    std::fs::rename(&aside, &b).unwrap();
    let mut rig = Rig::open(Devices::new(files(place.path())), config());
    assert_eq!((rig.report.problems.len(), found(&mut rig)), (0, 40));
}

#[test]
fn a_shard_of_another_server_is_refused() {
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(place.path());
    let mut devices = Devices::new(files(other.path()));
    format(&mut devices, &config(), FormatOptions { server_id: [8; 16], secrets: [8; 32] }).unwrap();
    drop(devices);
    std::fs::copy(shard(other.path(), 1), shard(place.path(), 1)).unwrap();
    let mut rig = Rig::open(Devices::new(files(place.path())), config());
    assert_eq!(rig.report.problems, [(1, DeviceProblem::Foreign)]);
    assert!(found(&mut rig) >= 20);
}

#[test]
fn a_directory_in_use_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let _open = files(place.path());
    let again = open_directory(place.path(), SHARDS, CAPACITY);
    assert!(again.is_err_and(|error| error.to_string().contains("in use by another server")));
}

fn faulty(faults: Faults, seed: u64) -> Arc<FaultyDevice<MemoryDevice>> {
    Arc::new(FaultyDevice::new(MemoryDevice::new(48 << 20), faults, seed))
}

#[test]
fn a_device_that_vanishes_takes_its_values_and_no_others() {
    let pair = [faulty(Faults::default(), 1), faulty(Faults::default(), 2)];
    let devices = pair.iter().map(|device| Arc::clone(device) as Arc<dyn Device>).collect();
    let mut rig = Rig::format(devices, config());
    for n in 0..40u64 {
        rig.put(format!("k{n}").as_bytes(), &bytes(1 << 20, n)).unwrap();
    }
    pair[1].break_down();
    let mut failed = 0;
    for n in 100..110u64 {
        match rig.put(format!("n{n}").as_bytes(), &bytes(1 << 20, n)) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, StoreError::DeviceFailed { device: 1 });
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1, "only what was on its way to it");
    assert!(rig.store.device_status()[1].failed && !rig.store.device_status()[0].failed);
    let left = found(&mut rig);
    assert!((10..40).contains(&left), "{left}");
    assert_eq!(rig.store.audit(), Ok(()));
    assert_eq!(rig.store.counters().devices_failed, 1);
    // The device that stays can say, should the other come back, that it had left.
    let lost = (0..40).map(|n| rig.delete(format!("k{n}").as_bytes()));
    let lost = lost.filter(|result| *result == Err(StoreError::NotFound)).count();
    assert_eq!(lost, 40 - left, "what it held is gone, and no more");
}

#[test]
fn a_full_file_system_is_no_broken_device() {
    let device = faulty(Faults { no_space: 300_000, ..Faults::default() }, 3);
    let mut devices = Devices::new(vec![Arc::new(MemoryDevice::new(1 << 20)) as Arc<dyn Device>]);
    assert!(
        format(&mut devices, &config(), options())
            .is_err_and(|error| matches!(error, OpenError::TooSmall { .. }))
    );
    // Formatting itself may hit it; then it says so.
    let list = || vec![Arc::clone(&device) as Arc<dyn Device>];
    let mut formatted = Devices::new(list());
    while format(&mut formatted, &config(), options()).is_err() {}
    let mut rig = loop {
        if let Ok(rig) = Rig::try_open(Devices::new(list()), config()) {
            break rig;
        }
    };
    let (mut stored, mut refused) = (Vec::new(), 0);
    for n in 0..30u64 {
        match rig.put(format!("k{n}").as_bytes(), &bytes(100_000, n)) {
            Ok(_) => stored.push(n),
            Err(error) => {
                assert_eq!(error, StoreError::OutOfSpace);
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && !stored.is_empty());
    assert!(!rig.store.device_status()[0].failed);
    for n in stored {
        assert!(rig.get(format!("k{n}").as_bytes()) == Some(bytes(100_000, n)));
    }
}

/// A shard file on a file system that someone else fills now and then.
struct Crowded {
    device: Formatted,
    full: AtomicBool,
}

impl Device for Crowded {
    fn geometry(&self) -> Result<Geometry, IoError> {
        self.device.geometry()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.device.read(offset, into)
    }

    fn write(&self, offset: u64, slices: &[std::io::IoSlice<'_>]) -> Result<(), IoError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(IoError::NoSpace);
        }
        self.device.write(offset, slices)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.device.flush()
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        self.device.discard(ranges)
    }
}

fn one_shard(path: &Path) -> Formatted {
    Formatted(Devices::new(open_directory(path, 1, CAPACITY).unwrap().devices))
}

fn crowded(path: &Path) -> Arc<Crowded> {
    Arc::new(Crowded { device: one_shard(path), full: AtomicBool::new(false) })
}

#[test]
fn a_full_file_system_keeps_what_is_stored_and_waits_for_room() {
    let place = tempfile::tempdir().unwrap();
    let device = crowded(place.path());
    let mut rig = Rig::format(vec![Arc::clone(&device) as Arc<dyn Device>], config());
    for name in [b"gone", b"kept"] {
        rig.put(name, &bytes(3 << 18, u64::from(name[0]))).unwrap();
    }
    device.full.store(true, Ordering::SeqCst);
    // The journal has no room for the removal: nobody is told that it is gone.
    let deleted = rig.ticket();
    rig.store.delete(rig.now_ms, CLIENT, deleted, key(b"gone"));
    rig.pass(1000);
    assert!(!rig.has_ended(deleted) && !rig.store.device_status()[0].failed);
    assert!(rig.store.next_deadline().is_some_and(|ms| ms > rig.now_ms), "it is tried again, not at once");
    for n in 0..3u64 {
        assert_eq!(rig.put(format!("new{n}").as_bytes(), &bytes(3 << 18, n)), Err(StoreError::OutOfSpace));
    }
    assert_eq!(rig.get(b"gone"), None);
    assert!(rig.get(b"kept") == Some(bytes(3 << 18, u64::from(b'k'))));
    // A stop waits for room, too.
    let stopped = rig.ticket();
    rig.store.stop(rig.now_ms, stopped);
    rig.pass(1000);
    assert!(!rig.has_ended(stopped) && !rig.has_ended(deleted));
    device.full.store(false, Ordering::SeqCst);
    assert_eq!(rig.end(stopped), Ok(Outcome::Stopped));
    assert_eq!(rig.end(deleted), Ok(Outcome::Deleted));
    assert_eq!(rig.store.counters().devices_failed, 0);
    let mut rig = Rig::open(rig.devices, config());
    assert_eq!(rig.report.problems, []);
    assert_eq!(rig.get(b"gone"), None);
    assert!(rig.get(b"kept") == Some(bytes(3 << 18, u64::from(b'k'))));
}

/// The other device leaves: its word has to wait for room, and the delete of what it held with it.
#[test]
fn a_full_file_system_takes_a_superblock_later() {
    let (full, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let device = crowded(full.path());
    let other = Arc::new(FaultyDevice::new(one_shard(broken.path()), Faults::default(), 1));
    let mut rig = Rig::format(vec![Arc::clone(&device) as _, Arc::clone(&other) as _], config());
    let names: Vec<_> = (0..8u64).map(|n| format!("k{n}")).collect();
    for (n, name) in (0..).zip(&names) {
        rig.put(name.as_bytes(), &bytes(3 << 18, n)).unwrap();
    }
    device.full.store(true, Ordering::SeqCst);
    other.break_down();
    let synced = rig.ticket();
    rig.store.sync(rig.now_ms, synced);
    let _ = rig.put(b"new", &bytes(3 << 18, 9));
    rig.pass(1000);
    let failed = |rig: &Rig| rig.store.device_status().iter().map(|one| one.failed).collect::<Vec<_>>();
    assert_eq!(failed(&rig), [false, true]);
    let lost = names.iter().find(|name| rig.store.exists(rig.now_ms, key(name.as_bytes())).is_none());
    let lost = lost.expect("the device that left held some");
    let deleted = rig.ticket();
    rig.store.delete(rig.now_ms, CLIENT, deleted, key(lost.as_bytes()));
    rig.pass(1000);
    assert!(!rig.has_ended(deleted));
    device.full.store(false, Ordering::SeqCst);
    assert_eq!(rig.end(deleted), Err(StoreError::NotFound));
    assert_eq!(failed(&rig), [false, true]);
    rig.stop();
}

#[test]
fn lies_and_rot_are_misses_and_are_counted() {
    for seed in 0..10 {
        let faults =
            Faults { bit_rot: 50_000, torn_write: 50_000, misdirected_write: 20_000, ..Faults::default() };
        let device = FaultyDevice::new(MemoryDevice::new(96 << 20), Faults::default(), 0);
        let list: Vec<Arc<dyn Device>> = vec![Arc::new(device)];
        let mut devices = Devices::new(list);
        format(&mut devices, &config(), options()).unwrap();
        // The store is formatted; from here on the device lies.
        let lying = FaultyDevice::new(Formatted(devices), faults, seed);
        let mut rig = Rig::open(Devices::new(vec![Arc::new(lying) as Arc<dyn Device>]), config());
        let mut misses = 0;
        for n in 0..120u64 {
            let length = 1 + (n as usize * 7919) % 150_000;
            let name = format!("k{n}");
            rig.put(name.as_bytes(), &bytes(length, n)).unwrap();
            match rig.get(name.as_bytes()) {
                Some(value) => assert!(value == bytes(length, n), "seed {seed}: wrong bytes"),
                None => misses += 1,
            }
        }
        assert!(misses > 0, "seed {seed}");
        assert_eq!(rig.store.counters().corrupt, misses);
        assert_eq!(rig.store.counters().values_lost, misses);
        assert_eq!(rig.store.audit(), Ok(()));
    }
}

/// The one device of a list, to be wrapped again.
struct Formatted(Devices);

impl Device for Formatted {
    fn geometry(&self) -> Result<Geometry, IoError> {
        self.0.device(0)?.geometry()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.0.device(0)?.read(offset, into)
    }

    fn write(&self, offset: u64, slices: &[std::io::IoSlice<'_>]) -> Result<(), IoError> {
        self.0.device(0)?.write(offset, slices)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.0.device(0)?.flush()
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        self.0.device(0)?.discard(ranges)
    }
}

#[test]
fn a_failed_flush_fails_the_device_and_the_manifest() {
    let place = tempfile::tempdir().unwrap();
    let mut devices = Devices::new(open_directory(place.path(), 1, CAPACITY).unwrap().devices);
    format(&mut devices, &config(), options()).unwrap();
    // It fails at the first flush after the opening's own two.
    let flaky = Arc::new(Flaky { device: Formatted(devices), flushes: std::sync::atomic::AtomicU32::new(0) });
    let mut rig = Rig::open(Devices::new(vec![flaky as Arc<dyn Device>]), config());
    rig.put(b"a", b"one").unwrap();
    assert_eq!(rig.put_manifest(b"m", &[b"a"], b"body"), Err(StoreError::DeviceFailed { device: 0 }));
    assert!(rig.store.device_status()[0].failed);
    assert_eq!(rig.get(b"a"), None);
    assert_eq!(rig.get_manifest(b"m"), None);
    // It may come back when the server starts again: nobody is told that these are gone.
    //= MKV-DEL-1 test
    assert_eq!(rig.delete(b"a"), Err(StoreError::DeviceFailed { device: 0 }));
    assert_eq!(rig.delete_manifest(b"m"), Err(StoreError::DeviceFailed { device: 0 }));
}

/// The pieces reached the device, the journal's word of their extent did not.
#[test]
fn a_commit_ends_when_the_device_of_its_pieces_has_failed() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(open_directory(place.path(), 2, CAPACITY).unwrap().devices, config());
    let value = bytes(2 * BLOCK_BYTES, 3);
    let Ok(Allocated::New { id, .. }) = rig.store.allocate(0, CLIENT, key(b"k"), 2 << 20, None, 0) else {
        panic!("there is room");
    };
    let pieces: Vec<_> = blocks(&value).into_iter().map(|piece| (rig.ticket(), piece)).collect();
    for (index, (ticket, piece)) in pieces.iter().enumerate() {
        rig.store.write_piece(0, *ticket, id, (index * BLOCK_BYTES) as u64, piece.clone());
    }
    let of_pieces = |command: &Command<Bytes>| match &command.op {
        Op::Write { segments, .. } => segments.iter().any(|segment| matches!(segment, Segment::Payload(_))),
        Op::Read { .. } | Op::Flush | Op::Discard { .. } => false,
    };
    let commands: Vec<_> = std::iter::from_fn(|| rig.store.poll_command()).collect();
    let (writes, journals): (Vec<_>, Vec<_>) = commands.into_iter().partition(of_pieces);
    let device = writes[0].device;
    assert!(writes.len() == 2 && journals.iter().any(|command| command.device == device));
    for command in writes {
        let result = rig.devices.execute(&command);
        rig.store.complete(0, command.id, result);
    }
    for command in journals {
        let broken = command.device == device;
        let result = if broken { Err(IoError::Gone) } else { rig.devices.execute(&command) };
        rig.store.complete(0, command.id, result);
    }
    for (ticket, _) in pieces {
        assert_eq!(rig.end(ticket), Ok(Outcome::PieceWritten));
    }
    let ticket = rig.ticket();
    rig.store.commit(0, ticket, id, Some(Checksum::of_value(&value)));
    assert_eq!(rig.end(ticket), Err(StoreError::DeviceFailed { device }));
    assert_eq!(rig.get(b"k"), None);
    rig.put(b"k", &value).unwrap();
    assert!(rig.get(b"k") == Some(value));
    rig.stop();
}

/// Runs what the store hands out, but for what is held: that is answered.
fn run_but(rig: &mut Rig, held: impl Fn(&Command<Bytes>) -> bool) -> Vec<Command<Bytes>> {
    let mut kept = Vec::new();
    while let Some(command) = rig.store.poll_command() {
        if held(&command) {
            kept.push(command);
        } else {
            let result = rig.devices.execute(&command);
            rig.store.complete(rig.now_ms, command.id, result);
        }
    }
    kept
}

/// One device has flushed its part of the record and fails, while the other still flushes.
#[test]
fn a_manifest_fails_with_any_device_of_its_record() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(open_directory(place.path(), 2, CAPACITY).unwrap().devices, config());
    let ticket = rig.ticket();
    let body = blocks(&bytes(2 * BLOCK_BYTES, 5));
    let (generation, role) = (None, Role::Home);
    let put = PutManifest { namespace: b"ns", name: b"m", generation, role, chunks: &[], body, lease_ms: 0 };
    rig.store.put_manifest(0, CLIENT, ticket, put);
    let is_flush = |command: &Command<Bytes>| matches!(command.op, Op::Flush);
    let flushes = run_but(&mut rig, is_flush);
    let [early, late] = &flushes[..] else { panic!("one for each device: {flushes:?}") };
    assert_ne!(early.device, late.device);
    rig.store.complete(0, early.id, Ok(Done::Ok));
    for n in 0..4u64 {
        let ticket = rig.ticket();
        rig.store.put(0, CLIENT, ticket, key(format!("k{n}").as_bytes()), blocks(&bytes(BLOCK_BYTES, n)));
    }
    let broken = run_but(&mut rig, |command| command.device == early.device);
    assert!(broken.iter().any(|command| matches!(command.op, Op::Write { .. })));
    for command in broken {
        rig.store.complete(0, command.id, Err(IoError::Gone));
    }
    assert!(rig.store.device_status()[early.device as usize].failed);
    rig.store.complete(0, late.id, Ok(Done::Ok));
    assert_eq!(rig.end(ticket), Err(StoreError::DeviceFailed { device: early.device }));
    assert_eq!(rig.get_manifest(b"m"), None);
    assert_eq!(rig.store.audit(), Ok(()));
    rig.stop();
}

/// A device fails with values that many manifests name, twice over: each is lost once, and what names none of them stays.
#[test]
fn a_device_takes_the_manifests_of_its_values_and_no_others() {
    let pair = [faulty(Faults::default(), 1), faulty(Faults::default(), 2)];
    let devices = pair.iter().map(|device| Arc::clone(device) as Arc<dyn Device>).collect();
    let mut rig = Rig::format(devices, config());
    let names: Vec<_> = (0..16u64).map(|n| format!("k{n}")).collect();
    for (n, name) in (0..).zip(&names) {
        rig.put(name.as_bytes(), &bytes(1 << 20, n)).unwrap();
    }
    let chunks = |n: usize| [names[n].as_bytes(), names[(n + 1) % 16].as_bytes()];
    for n in 0..16 {
        rig.put_manifest(format!("m{n}").as_bytes(), &chunks(n), b"body").unwrap();
    }
    pair[1].break_down();
    let ticket = rig.ticket();
    rig.store.put(0, CLIENT, ticket, key(b"new"), blocks(&bytes(1 << 20, 99)));
    rig.settle();
    let ticket = rig.ticket();
    rig.store.put(0, CLIENT, ticket, key(b"newer"), blocks(&bytes(1 << 20, 98)));
    rig.settle();
    assert!(rig.store.device_status()[1].failed);
    let there: Vec<_> =
        names.iter().map(|name| rig.store.exists(0, key(name.as_bytes())).is_some()).collect();
    let (mut lost, mut whole) = (there.iter().filter(|there| !**there).count() as u64, 0);
    assert!(lost > 0 && lost < 16);
    assert_eq!(rig.store.counters().values_lost, lost);
    lost = 0;
    for n in 0..16 {
        let manifest = rig.get_manifest(format!("m{n}").as_bytes());
        match there[n] && there[(n + 1) % 16] {
            // Its own record may have been on the device.
            true => whole += u64::from(manifest.is_some()),
            false => {
                lost += 1;
                assert_eq!(manifest, None, "m{n}");
            }
        }
    }
    assert!(rig.store.counters().manifests_lost <= lost && whole + lost <= 16);
    assert_eq!(rig.store.audit(), Ok(()));
}

/// What is acknowledged while a flush is in flight is in the next one, and that begins when this one ends.
#[test]
fn an_interval_does_not_wait_for_the_next_when_a_flush_is_slow() {
    let place = tempfile::tempdir().unwrap();
    let config = Config { sync: Sync::Interval { ms: 100 }, ..config() };
    let mut rig = Rig::format(open_directory(place.path(), 1, CAPACITY).unwrap().devices, config);
    let is_flush = |command: &Command<Bytes>| matches!(command.op, Op::Flush);
    rig.pass(100);
    rig.put(b"a", b"one").unwrap();
    rig.now_ms = 200;
    rig.store.tick(200);
    let slow = run_but(&mut rig, is_flush);
    assert_eq!(slow.len(), 1);
    let ticket = rig.ticket();
    rig.store.put(200, CLIENT, ticket, key(b"b"), blocks(b"two"));
    assert_eq!(run_but(&mut rig, is_flush).len(), 0);
    assert!(rig.end(ticket).is_ok());
    rig.now_ms = 300;
    rig.store.tick(300);
    assert_eq!(run_but(&mut rig, is_flush).len(), 0, "one at a time");
    rig.store.complete(300, slow[0].id, Ok(Done::Ok));
    let next = run_but(&mut rig, is_flush);
    assert_eq!(next.len(), 1, "it is due");
    rig.store.complete(300, next[0].id, Ok(Done::Ok));
    assert_eq!(run_but(&mut rig, is_flush).len(), 0, "all is durable");
    rig.stop();
}

#[test]
fn a_stop_waits_for_what_is_being_reclaimed_and_begins_no_more() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(open_directory(place.path(), 1, 48 << 20).unwrap().devices, config());
    let is_discard = |command: &Command<Bytes>| matches!(command.op, Op::Discard { .. });
    let mut discards = Vec::new();
    for n in 0..200u64 {
        let ticket = rig.ticket();
        rig.store.put(
            rig.now_ms,
            CLIENT,
            ticket,
            key(format!("k{n}").as_bytes()),
            blocks(&bytes(1 << 20, n)),
        );
        discards = run_but(&mut rig, is_discard);
        // Leases end, so that something may go.
        rig.now_ms += 20_000;
        if !discards.is_empty() {
            break;
        }
    }
    assert!(!discards.is_empty(), "room was short");
    let stopped = rig.ticket();
    rig.store.stop(rig.now_ms, stopped);
    discards.extend(run_but(&mut rig, is_discard));
    rig.settle();
    assert!(!rig.has_ended(stopped), "an extent is being discarded");
    for command in discards {
        let result = rig.devices.execute(&command);
        rig.store.complete(rig.now_ms, command.id, result);
    }
    assert_eq!(rig.end(stopped), Ok(Outcome::Stopped));
    assert!(rig.store.poll_command().is_none());
}

struct Flaky {
    device: Formatted,
    flushes: std::sync::atomic::AtomicU32,
}

impl Device for Flaky {
    fn geometry(&self) -> Result<Geometry, IoError> {
        self.device.geometry()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.device.read(offset, into)
    }

    fn write(&self, offset: u64, slices: &[std::io::IoSlice<'_>]) -> Result<(), IoError> {
        self.device.write(offset, slices)
    }

    fn flush(&self) -> Result<(), IoError> {
        match self.flushes.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0..2 => self.device.flush(),
            _ => Err(IoError::Failed { errno: 5 }),
        }
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        self.device.discard(ranges)
    }
}
