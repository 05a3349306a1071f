//! Damage on devices: what a check of a store at rest finds, and what scrubbing does about it in a running one.

#[allow(dead_code, reason = "shared with the store's other tests")]
#[path = "store/rig.rs"]
mod rig;

use std::fs::{self, File};
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use memkv_server::io::{Device, Devices, FileDevice, open_directory, shard_paths};
use memkv_server::store::check::{Check, Findings, Problem, Summary};
use memkv_server::store::*;
use proptest::prelude::*;
use rig::*;

const SHARDS: u16 = 3;
const CAPACITY: u64 = 54 << 20;

fn files(path: &Path) -> Vec<Arc<dyn Device>> {
    open_directory(path, SHARDS, CAPACITY).unwrap().devices
}

fn small(n: u64) -> Vec<u8> {
    bytes(100 + n as usize * 700, n)
}

/// Small values, whole blocks, a striped one, manifests that name some of them, and some that were deleted.
fn fill(rig: &mut Rig) {
    for n in 0..20 {
        rig.put(format!("small{n}").as_bytes(), &small(n)).unwrap();
    }
    for n in 0..6 {
        rig.put(format!("block{n}").as_bytes(), &bytes(1 << 20, 100 + n)).unwrap();
    }
    rig.put(b"striped", &bytes(5 << 20, 200)).unwrap();
    rig.put_manifest(b"session", &[b"small1", b"block1", b"striped"], b"a body").unwrap();
    rig.put_manifest_as(b"refs", Some(3), Role::Refs, &[b"small2"], b"").unwrap();
    for n in 15..20 {
        rig.delete(format!("small{n}").as_bytes()).unwrap();
    }
}

fn values() -> Vec<(String, Vec<u8>)> {
    let smalls = (0..15).map(|n| (format!("small{n}"), small(n)));
    let blocks = (0..6).map(|n| (format!("block{n}"), bytes(1 << 20, 100 + n)));
    smalls.chain(blocks).chain([("striped".to_owned(), bytes(5 << 20, 200))]).collect()
}

fn check(devices: &mut Devices) -> Summary {
    let check = Check::open(config(), devices).unwrap();
    let plans = (0..check.extents()).filter_map(|extent| check.plan(extent));
    let findings: Vec<Findings> = plans.flat_map(|plan| read(&check, devices, &plan)).collect();
    check.finish(findings)
}

fn read(check: &Check, devices: &Devices, plan: &ExtentPlan) -> Vec<Findings> {
    let mut bytes = vec![0; plan.length];
    match devices.device(plan.device).unwrap().read(plan.offset, &mut bytes) {
        Ok(()) => vec![check.verify(plan, &bytes)],
        Err(error) if plan.records() == 1 => vec![check.unreadable(plan, error)],
        Err(_) => plan.split().iter().flat_map(|part| read(check, devices, part)).collect(),
    }
}

/// One whole pass; answers how many records did not hold.
fn scrub(rig: &mut Rig) -> usize {
    let mut cursor = ScrubCursor::default();
    let mut count = 0;
    while let Some(plan) = rig.store.scrub_next(&mut cursor) {
        let damage = verify(&rig.devices, &plan);
        count += damage.len();
        rig.store.scrub_done(rig.now_ms, &plan, &damage);
        rig.settle();
    }
    rig.store.audit().unwrap();
    count
}

fn verify(devices: &Devices, plan: &ExtentPlan) -> Vec<Damage> {
    let mut bytes = vec![0; plan.length];
    match devices.device(plan.device).unwrap().read(plan.offset, &mut bytes) {
        Ok(()) => plan.verify(&bytes),
        Err(error) if plan.records() == 1 => plan.unreadable(error),
        Err(_) => plan.split().iter().flat_map(|part| verify(devices, part)).collect(),
    }
}

/// Where these bytes lie: shard and offset.
fn find(paths: &[PathBuf], wanted: &[u8]) -> (PathBuf, u64) {
    for path in paths {
        let bytes = fs::read(path).unwrap();
        // Blocks begin at multiples of 8.
        let mut places = (0..bytes.len()).step_by(8);
        if let Some(at) = places.find(|at| bytes[*at..].starts_with(wanted)) {
            return (path.clone(), at as u64);
        }
    }
    panic!("the bytes are on a shard");
}

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn a_whole_store_holds_however_it_was_closed() {
    for clean in [true, false] {
        let place = tempfile::tempdir().unwrap();
        let mut rig = Rig::format(files(place.path()), config());
        fill(&mut rig);
        let mut devices = if clean { rig.stop() } else { rig.devices };
        let summary = check(&mut devices);
        assert_eq!(summary.problems, []);
        assert_eq!((summary.opening.values, summary.opening.manifests), (22, 2));
        assert_eq!(summary.opening.clean, clean);
        // The striped value is five records, every other one is one.
        assert_eq!(summary.records, 21 + 5 + 2);
    }
}

#[test]
fn a_check_writes_nothing_and_can_be_repeated() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(files(place.path()), config());
    fill(&mut rig);
    drop(rig);
    let contents =
        || shard_paths(place.path()).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = contents();
    for _ in 0..2 {
        assert_eq!(check(&mut Devices::new(files(place.path()))).problems, []);
    }
    assert!(contents() == before);
}

#[test]
fn damage_is_told_with_what_it_is_on() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(files(place.path()), config());
    fill(&mut rig);
    drop(rig.stop());
    let paths = shard_paths(place.path());
    let (path, at) = find(&paths, &small(1)[..64]);
    flip(&path, at + 5);
    let (path, at) = find(&paths, &bytes(1 << 20, 103)[..64]);
    flip(&path, at + 500_000);
    let summary = check(&mut Devices::new(files(place.path())));
    let told: Vec<_> = summary.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    for expected in [["`small1`", "`ns`", "which 1 manifests name"], ["`block3`", "block 0", "checksum"]] {
        assert!(told.iter().any(|told| expected.iter().all(|word| told.contains(word))), "{told:?}");
    }
}

#[test]
fn a_journal_that_breaks_off_is_found() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(files(place.path()), config());
    fill(&mut rig);
    drop(rig.stop());
    // A formatted device's journal is in its first extent, its second frame on the second sector or later.
    let path = &shard_paths(place.path())[0];
    let bytes = fs::read(path).unwrap();
    let is_frame = |at: &usize| bytes[at + 16..at + 20] == *b"MKVJ";
    let frames: Vec<usize> = (1 << 20..(1 << 20) + EXTENT as usize).step_by(4096).filter(is_frame).collect();
    assert!(frames.len() > 3, "{frames:?}");
    flip(path, frames[1] as u64 + 100);
    let summary = check(&mut Devices::new(files(place.path())));
    let broken = |problem: &Problem| matches!(problem, Problem::JournalBroken { device: 0, extent: 0, .. });
    assert!(summary.problems.iter().any(broken), "{:?}", summary.problems);
}

#[test]
fn a_shard_that_is_gone_or_foreign_is_told() {
    let (place, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for path in [place.path(), other.path()] {
        let mut rig = Rig::format(files(path), config());
        fill(&mut rig);
        drop(rig.stop());
    }
    let paths = shard_paths(place.path());
    fs::copy(&paths[0], &paths[1]).unwrap();
    let summary = check(&mut Devices::new(files(place.path())));
    let told: Vec<_> = summary.problems.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|told| told.contains("says it is device 0")), "{told:?}");
    assert!(told.iter().any(|told| told.contains("device 1 of the store is not there")), "{told:?}");
    fs::remove_file(&paths[1]).unwrap();
    let summary = check(&mut Devices::new(files(place.path())));
    let gone = Problem::LeftOut { device: 1, problem: DeviceProblem::Unreadable(IoError::Gone) };
    assert!(summary.problems.contains(&gone), "{:?}", summary.problems);
}

#[test]
fn scrubbing_turns_rotten_records_into_misses() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(files(place.path()), config());
    fill(&mut rig);
    assert_eq!(scrub(&mut rig), 0);
    let paths = shard_paths(place.path());
    let rotten = ["small3", "block2", "striped"];
    for (wanted, at) in [(small(3), 50), (bytes(1 << 20, 102), 1_000_000), (bytes(5 << 20, 200), 300_000)] {
        let (path, offset) = find(&paths, &wanted[..100]);
        flip(&path, offset + at);
    }
    assert_eq!(scrub(&mut rig), 3);
    let counters = rig.store.counters();
    assert_eq!((counters.corrupt, counters.values_lost, counters.manifests_lost), (3, 3, 1));
    for (name, value) in values() {
        let found = rig.get(name.as_bytes());
        assert_eq!(found.is_some(), !rotten.contains(&name.as_str()), "{name}");
        assert!(found.is_none_or(|found| found == value));
    }
    assert_eq!(rig.get_manifest(b"session"), None, "it named a value that is lost");
    assert_eq!(rig.store.counters().corrupt, 3, "no reader met any of them");
    // What was lost can be stored again, and stays lost where it was.
    rig.put(b"small3", &small(3)).unwrap();
    assert_eq!(scrub(&mut rig), 0);
    let mut rig = Rig::open(rig.stop(), config());
    assert_eq!(rig.get(b"small3"), Some(small(3)));
    assert_eq!(rig.get(b"block2"), None);
}

/// What a scrub read is judged against what is there when it ends.
#[test]
fn a_value_that_went_or_was_written_anew_meanwhile_is_not_lost() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(files(place.path()), config());
    rig.put(b"a", &small(1)).unwrap();
    rig.put(b"b", &small(2)).unwrap();
    let paths = shard_paths(place.path());
    for n in [1, 2] {
        let (path, at) = find(&paths, &small(n)[..64]);
        flip(&path, at);
    }
    let mut cursor = ScrubCursor::default();
    let plan = rig.store.scrub_next(&mut cursor).unwrap();
    let damage = verify(&rig.devices, &plan);
    assert_eq!(damage.len(), 2);
    rig.delete(b"a").unwrap();
    rig.put(b"a", &small(1)).unwrap();
    rig.delete(b"b").unwrap();
    rig.store.scrub_done(rig.now_ms, &plan, &damage);
    rig.settle();
    rig.store.audit().unwrap();
    assert_eq!(rig.get(b"a"), Some(small(1)));
    assert_eq!(rig.store.counters().values_lost, 0);
}

/// Reads of a range of the device end in an error.
struct BadPlaces {
    device: FileDevice,
    bad: Mutex<Vec<std::ops::Range<u64>>>,
    reads: AtomicU64,
}

impl BadPlaces {
    fn make(path: &Path) -> Arc<BadPlaces> {
        let device = FileDevice::create(path, 40 << 20).unwrap();
        Arc::new(BadPlaces { device, bad: Mutex::default(), reads: AtomicU64::new(0) })
    }
}

impl Device for BadPlaces {
    fn geometry(&self) -> Result<Geometry, IoError> {
        self.device.geometry()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let end = offset + into.len() as u64;
        if self.bad.lock().unwrap().iter().any(|bad| bad.start < end && offset < bad.end) {
            return Err(IoError::Failed { errno: libc::EIO });
        }
        self.device.read(offset, into)
    }

    fn write(&self, offset: u64, slices: &[IoSlice<'_>]) -> Result<(), IoError> {
        self.device.write(offset, slices)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.device.flush()
    }

    fn discard(&self, ranges: &[(u64, u64)]) -> Result<(), IoError> {
        self.device.discard(ranges)
    }
}

#[test]
fn a_bad_place_costs_what_lies_on_it_and_no_more() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("device");
    let device = BadPlaces::make(&path);
    let mut rig = Rig::format(vec![Arc::clone(&device) as _], config());
    for n in 0..8 {
        rig.put(&[b'k', n as u8], &bytes(100_000, n)).unwrap();
    }
    let (_, at) = find(&[path], &bytes(100_000, 5)[..64]);
    device.bad.lock().unwrap().push(at + 20_000..at + 24_096);
    assert_eq!(scrub(&mut rig), 1);
    let counters = rig.store.counters();
    assert_eq!((counters.read_errors, counters.values_lost, counters.devices_failed), (1, 1, 0));
    for n in 0..8 {
        assert_eq!(rig.get(&[b'k', n as u8]).is_some(), n != 5, "{n}");
    }
}

#[test]
fn a_device_that_gives_nothing_back_is_taken_out_of_service() {
    let place = tempfile::tempdir().unwrap();
    let bad = BadPlaces::make(&place.path().join("bad"));
    let good = BadPlaces::make(&place.path().join("good"));
    let mut rig = Rig::format(vec![Arc::clone(&bad) as _, Arc::clone(&good) as _], config());
    for n in 0..40u64 {
        rig.put(&n.to_le_bytes(), &bytes(200_000, n)).unwrap();
    }
    bad.bad.lock().unwrap().push(0..u64::MAX);
    let mut served = 0;
    for n in 0..40u64 {
        let Ok(plan) = rig.store.read(0, key(&n.to_le_bytes()), 0..1) else { continue };
        let verdict = match run_plan(&rig.devices, &plan) {
            Ok(_) => Verdict::Good,
            Err(_) => Verdict::Unreadable(IoError::Failed { errno: libc::EIO }),
        };
        served += usize::from(verdict == Verdict::Good);
        rig.store.release(0, plan.pin, verdict);
        rig.settle();
    }
    assert_eq!(rig.store.counters().devices_failed, 1);
    assert!((10..40).contains(&served), "{served} on the other device");
    let reads = bad.reads.load(Ordering::Relaxed);
    rig.put(b"new", b"value").unwrap();
    assert_eq!(rig.get(b"new").as_deref(), Some(&b"value"[..]));
    assert_eq!(bad.reads.load(Ordering::Relaxed), reads, "nothing more is asked of it");
    rig.store.audit().unwrap();
}

/// A place that fails now and then under load is no failing device.
#[test]
fn errors_that_pass_cost_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut rig = Rig::format(files(place.path()), config());
    rig.put(b"k", &small(3)).unwrap();
    for errno in [libc::ENOMEM, libc::EAGAIN] {
        for _ in 0..20 {
            let plan = rig.store.read(0, key(b"k"), 0..1).unwrap();
            rig.store.release(0, plan.pin, Verdict::Unreadable(IoError::Failed { errno }));
        }
    }
    assert_eq!(rig.get(b"k"), Some(small(3)));
    assert_eq!(rig.store.counters().devices_failed, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever byte changes: a check ends and says so if it matters; the store opens, and no wrong byte comes out of it.
    #[test]
    fn any_flipped_bytes_are_survived(flips in prop::collection::vec((0..SHARDS, any::<prop::sample::Index>()), 1..12)) {
        let place = tempfile::tempdir().unwrap();
        let mut rig = Rig::format(files(place.path()), config());
        fill(&mut rig);
        drop(rig.stop());
        let paths = shard_paths(place.path());
        for (shard, at) in flips {
            let path = &paths[usize::from(shard)];
            // Where something was written; holes are of no interest.
            let bytes = fs::read(path).unwrap();
            let written: Vec<usize> = (0..bytes.len() / 512).filter(|sector| bytes[sector * 512..][..512].iter().any(|byte| *byte != 0)).collect();
            let sector = written[at.index(written.len())];
            flip(path, (sector * 512 + at.index(512)) as u64);
        }
        let checked = Check::open(config(), &mut Devices::new(files(place.path())));
        let summary = checked.ok().map(|_| check(&mut Devices::new(files(place.path()))));
        let Ok(mut rig) = Rig::try_open(Devices::new(files(place.path())), config()) else {
            prop_assert!(summary.is_none_or(|summary| !summary.problems.is_empty()));
            return Ok(());
        };
        let mut missing = 0;
        for (name, value) in values() {
            match rig.get(name.as_bytes()) {
                Some(found) => prop_assert!(found == value, "{}", name),
                None => missing += 1,
            }
        }
        // What no check finds: the last frame of a journal, as after a loss of power.
        let quiet = summary.is_some_and(|summary| summary.problems.is_empty());
        prop_assert!(missing == 0 || !quiet || rig.report.extents_scanned > 0, "{} are missing", missing);
        scrub(&mut rig);
        rig.store.audit().unwrap();
    }
}
