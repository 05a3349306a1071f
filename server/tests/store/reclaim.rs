//! Making room when something stands in the way: records that are long, unreadable or damaged, readers that are slow.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memkv_server::io::{Device, MemoryDevice};
use memkv_server::store::*;

use crate::rig::*;

const CAPACITY: u64 = 32 << 20;
const MIB: usize = 1 << 20;

/// A device of which some sectors cannot be read.
struct Bad {
    device: MemoryDevice,
    sectors: Mutex<BTreeSet<u64>>,
}

impl Bad {
    fn new() -> Arc<Self> {
        Arc::new(Self { device: MemoryDevice::new(CAPACITY), sectors: Mutex::default() })
    }

    fn sectors(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.sectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Bad {
    fn geometry(&self) -> Result<Geometry, IoError> {
        self.device.geometry()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let first = offset / SECTOR_BYTES as u64;
        let end = first + (into.len() / SECTOR_BYTES) as u64;
        match self.sectors().range(first..end).next() {
            Some(_) => Err(IoError::Failed { errno: 5 }),
            None => self.device.read(offset, into),
        }
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

fn fresh() -> Rig {
    Rig::format(vec![Arc::new(MemoryDevice::new(CAPACITY))], config())
}

/// Values of 1 MiB, one an extent, until there is no room; answers how many.
fn fill(rig: &mut Rig) -> usize {
    let name = |n: usize| format!("fill-{n}");
    let stored = (0..).take_while(|n| rig.put(name(*n).as_bytes(), &bytes(MIB, *n as u64)).is_ok());
    stored.count()
}

/// Its table is a block of its own: it has one more than a value of the same length, and here one more record.
#[test]
fn a_manifest_whose_table_has_a_record_of_its_own_is_moved_whole() {
    let mut rig = fresh();
    let body = bytes(100_000, 1);
    // The table does not fit the extent of the body, and is alone in its own once what is beside it is deleted.
    rig.put(b"before", &bytes(994_000, 2)).unwrap();
    rig.put(b"chunk", b"value").unwrap();
    rig.put_manifest(b"m", &[&b"chunk"[..]; 300], &body).unwrap();
    rig.put(b"beside", &bytes(MIB, 3)).unwrap();
    fill(&mut rig);
    assert_eq!(rig.store.counters().records_moved, 0);
    rig.delete(b"beside").unwrap();
    // One extent is emptied and one taken for what was in it: that makes no room.
    assert_eq!(rig.put(b"new", &bytes(MIB, 4)), Err(StoreError::OutOfSpace));
    let counters = rig.store.counters();
    assert_eq!((counters.records_moved, counters.corrupt), (1, 0));
    assert!(rig.get_manifest(b"m") == Some(body));
    assert_eq!(rig.get(b"chunk").as_deref(), Some(&b"value"[..]));
    assert_eq!(rig.store.audit(), Ok(()));
}

/// Where a value's header and its first block are on the device.
fn offsets(rig: &mut Rig, name: &[u8]) -> (u64, u64) {
    let plan = rig.store.read(rig.now_ms, key(name), 0..1).unwrap();
    let (head, data) = (plan.records[0].head_offset, plan.records[0].data_offset);
    rig.read_plan(plan).unwrap();
    (head, data)
}

#[test]
fn a_record_that_cannot_be_read_is_lost_when_it_is_to_be_moved_and_no_other() {
    let device = Bad::new();
    let mut rig = Rig::format(vec![Arc::clone(&device) as Arc<dyn Device>], config());
    for (n, name) in [b"a", b"b", b"c"].into_iter().enumerate() {
        rig.put(name, &bytes(200_000, n as u64)).unwrap();
    }
    let (_, data) = offsets(&mut rig, b"b");
    device.sectors().insert(data / SECTOR_BYTES as u64);
    fill(&mut rig);
    let counters = rig.store.counters();
    assert_eq!((counters.records_moved, counters.values_lost, counters.devices_failed), (2, 1, 0));
    assert_eq!((counters.values_evicted, counters.corrupt), (0, 0));
    // All three, then two of them, then one.
    assert_eq!(counters.read_errors, 3);
    assert_eq!(rig.get(b"b"), None);
    for (n, name) in [(0, b"a"), (2, b"c")] {
        assert!(rig.get(name) == Some(bytes(200_000, n)));
    }
    assert_eq!(rig.store.audit(), Ok(()));
}

/// A write that never arrived: the header of a former value of the key is what is found.
#[test]
fn a_record_of_another_time_is_not_moved() {
    let device = Arc::new(MemoryDevice::new(CAPACITY));
    let mut rig = Rig::format(vec![Arc::clone(&device) as Arc<dyn Device>], config());
    let mut header = vec![0; SECTOR_BYTES];
    rig.put(b"k", &bytes(200_000, 1)).unwrap();
    device.read(offsets(&mut rig, b"k").0, &mut header).unwrap();
    rig.delete(b"k").unwrap();
    rig.put(b"k", &bytes(200_000, 2)).unwrap();
    rig.put(b"other", &bytes(200_000, 3)).unwrap();
    device.write(offsets(&mut rig, b"k").0, &[IoSlice::new(&header)]).unwrap();
    fill(&mut rig);
    let counters = rig.store.counters();
    assert_eq!((counters.records_moved, counters.corrupt, counters.values_lost), (1, 1, 1));
    assert_eq!(rig.get(b"k"), None);
    assert!(rig.get(b"other") == Some(bytes(200_000, 3)));
}

#[test]
fn a_slow_reader_keeps_its_extent_and_not_the_others() {
    let mut rig = fresh();
    let count = fill(&mut rig);
    let name = |n: usize| format!("fill-{n}");
    // The coldest of all is leased, the others are not: what counts as cold first makes no room.
    let plan = rig.store.lookup(0, OTHER, key(b"fill-0"), 60_000).unwrap();
    rig.read_plan(plan).unwrap();
    for n in 1..count {
        rig.get(name(n).as_bytes()).unwrap();
    }
    let slow = rig.store.read(0, key(b"fill-5"), 0..1).unwrap();
    rig.delete(b"fill-5").unwrap();
    rig.pass(20_000);
    assert_eq!(rig.store.counters().values_evicted, 0);
    rig.put(b"new", &bytes(MIB, 7)).unwrap();
    assert!(rig.store.counters().values_evicted > 0);
    assert!(rig.get(b"fill-0").is_some(), "it is leased");
    assert!(rig.read_plan(slow) == Ok(bytes(MIB, 5)), "what is read stays where it is");
    rig.put(b"newer", &bytes(MIB, 8)).unwrap();
    assert_eq!(rig.store.audit(), Ok(()));
}

#[test]
fn a_slow_reader_of_a_store_that_is_leased_lets_writers_know() {
    let mut rig = fresh();
    fill(&mut rig);
    let slow = rig.store.read(0, key(b"fill-5"), 0..1).unwrap();
    rig.delete(b"fill-5").unwrap();
    assert_eq!(rig.put(b"new", &bytes(MIB, 7)), Err(StoreError::OutOfSpace));
    assert!(rig.read_plan(slow) == Ok(bytes(MIB, 5)));
    rig.put(b"new", &bytes(MIB, 7)).unwrap();
}

/// Whoever connects chooses whom to be: what each may lease bounds nothing.
#[test]
fn all_clients_together_lease_no_more_than_the_store_allows() {
    let config = Config { leases_max: 6, ..config() };
    let mut rig = Rig::format(vec![Arc::new(MemoryDevice::new(CAPACITY))], config);
    rig.put(b"a", b"1").unwrap();
    rig.put(b"b", b"2").unwrap();
    rig.put_manifest(b"m", &[b"a", b"b"], b"body").unwrap();
    assert_eq!(rig.store.usage().leases, 3);
    let get = |rig: &mut Rig, client| {
        let (_, plan) = rig.store.get_manifest(rig.now_ms, ClientId(client), b"ns", b"m", 0)?;
        Ok::<_, StoreError>(rig.read_plan(plan))
    };
    assert_eq!(get(&mut rig, 10), Ok(Ok(b"body".to_vec())));
    for client in 11..20 {
        assert_eq!(get(&mut rig, client), Err(StoreError::TooMany { what: Limit::Leases }));
    }
    assert_eq!(rig.store.usage().leases, 6);
    // Who did not ask for a lease is not refused for want of one.
    rig.put(b"c", b"3").unwrap();
    assert_eq!(rig.store.counters().leases_refused, 1);
    rig.pass(20_000);
    assert_eq!(get(&mut rig, 11), Ok(Ok(b"body".to_vec())));
}
