//! Making room when something stands in the way: records that are long, unreadable or damaged, readers that are slow.

use std::sync::Arc;

use memkv_server::io::MemoryDevice;

use crate::rig::*;

const CAPACITY: u64 = 32 << 20;
const MIB: usize = 1 << 20;

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
    // A third of the extent stays empty: making room moves all that is in it.
    rig.put(b"beside", &bytes(600_000, 2)).unwrap();
    rig.put(b"chunk", b"value").unwrap();
    rig.put_manifest(b"m", &[&b"chunk"[..]; 300], &body).unwrap();
    fill(&mut rig);
    let counters = rig.store.counters();
    assert_eq!((counters.records_moved, counters.corrupt), (4, 0));
    assert!(rig.get_manifest(b"m") == Some(body));
    assert_eq!(rig.get(b"chunk").as_deref(), Some(&b"value"[..]));
    assert_eq!(rig.store.audit(), Ok(()));
}
