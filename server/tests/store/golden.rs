//! Format version 1, as committed bytes that today's code must read; and what becomes of bytes of a later version.
//!
//! `golden/v1.txt` holds two devices of a store that was closed once in good order, went on, and was killed: sealed extents that a
//! journal lists, a rewritten journal, and open extents that must be scanned. `MEMKV_GOLDEN=write` makes such a file anew; that is right only
//! when there is no release yet that wrote the old one.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use memkv_server::io::{Device, Devices};
use memkv_server::store::*;
use xxhash_rust::xxh3::xxh3_128;

use crate::ram::Ram;
use crate::rig::*;

const CAPACITY: u64 = 16 << 20;
/// Bytes of a line of the file.
const LINE: usize = 32;

fn file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "store", "golden", "v1.txt"].iter().collect()
}

/// Mostly zeros, so that the file stays small: the text, now and then.
fn sparse(text: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes.chunks_mut(50_000).for_each(|chunk| {
        let count = text.len().min(chunk.len());
        chunk[..count].copy_from_slice(&text[..count]);
    });
    bytes
}

fn unpacked() -> Vec<u8> {
    sparse(b"a value on sectors", 70_000)
}

fn striped() -> Vec<u8> {
    sparse(b"a value in two parts", BLOCK_BYTES + 60_000)
}

/// The devices as the file tells them.
fn committed() -> Vec<Ram> {
    let text = std::fs::read_to_string(file()).unwrap();
    let devices: Vec<_> = (0..2).map(|_| Ram::new(CAPACITY)).collect();
    let mut sector = [0; SECTOR_BYTES];
    let mut at = None;
    let put = |at: Option<(usize, u64)>, sector: &mut [u8; SECTOR_BYTES]| {
        if let Some((device, offset)) = at {
            devices[device].write(offset, &[IoSlice::new(sector)]).unwrap();
        }
        *sector = [0; SECTOR_BYTES];
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (device, offset) = (words.next().unwrap(), words.next().unwrap());
        let (device, offset): (usize, u64) = (device.parse().unwrap(), offset.parse().unwrap());
        let bytes = hex::decode(words.next().unwrap()).unwrap();
        let inside = offset as usize % SECTOR_BYTES;
        let begin = Some((device, offset - inside as u64));
        if at != begin {
            put(at, &mut sector);
            at = begin;
        }
        sector[inside..inside + bytes.len()].copy_from_slice(&bytes);
    }
    put(at, &mut sector);
    devices.iter().for_each(|device| device.flush().unwrap());
    devices
}

fn opened(devices: &[Ram]) -> Result<Rig, OpenError> {
    let list = devices.iter().map(|device| Arc::new(device.clone()) as Arc<dyn Device>);
    Rig::try_open(Devices::new(list.collect()), golden_config())
}

fn golden_config() -> Config {
    Config { checkpoint_bytes: 600, discard: false, ..config() }
}

/// Makes the file from a store of today.
fn write() {
    let devices: Vec<_> = (0..2).map(|_| Ram::new(CAPACITY)).collect();
    let list = devices.iter().map(|device| Arc::new(device.clone()) as Arc<dyn Device>);
    let mut rig = Rig::format(list.collect(), golden_config());
    rig.put(b"small", b"a small value").unwrap();
    rig.put(b"unpacked", &unpacked()).unwrap();
    rig.put(b"deleted", b"not there").unwrap();
    rig.put_manifest(b"session", &[b"small"], b"the first").unwrap();
    rig.put_manifest(b"gone", &[b"small"], b"not there").unwrap();
    for n in 0..10 {
        let name = format!("filler-{n}");
        rig.put(name.as_bytes(), name.as_bytes()).unwrap();
        rig.delete(name.as_bytes()).unwrap();
    }
    rig.put(b"striped", &striped()).unwrap();
    assert!(rig.store.counters().checkpoints > 0);
    drop(rig.stop());
    let mut rig = opened(&devices).unwrap();
    assert!(rig.report.clean);
    rig.put_manifest(b"session", &[b"small", b"unpacked", b"striped"], b"the second").unwrap();
    rig.put_manifest_as(b"refs", Some(7), Role::Refs, &[b"small"], b"").unwrap();
    rig.put(b"late", b"a late value").unwrap();
    rig.delete(b"deleted").unwrap();
    rig.delete_manifest(b"gone").unwrap();
    let mut text = String::from("# device, offset, bytes; what is not here is zero\n");
    for (number, device) in devices.iter().enumerate() {
        for (offset, sector) in device.content() {
            for (line, bytes) in sector.chunks(LINE).enumerate() {
                if bytes.iter().any(|byte| *byte != 0) {
                    let at = offset + (line * LINE) as u64;
                    text += &format!("{number} {at} {}\n", hex::encode(bytes));
                }
            }
        }
    }
    std::fs::create_dir_all(file().parent().unwrap()).unwrap();
    std::fs::write(file(), text).unwrap();
}

#[test]
fn a_store_of_version_1_is_read() {
    if std::env::var("MEMKV_GOLDEN").is_ok_and(|what| what == "write") {
        write();
    }
    let mut rig = opened(&committed()).unwrap();
    assert_eq!((rig.report.problems.len(), rig.report.absent.len(), rig.report.torn_records), (0, 0, 0));
    assert_eq!((rig.report.values, rig.report.manifests, rig.report.clean), (4, 2, false));
    assert!(rig.report.extents_scanned > 0);
    assert_eq!(rig.store.server_id(), [7; 16]);
    assert_eq!(rig.get(b"small").as_deref(), Some(&b"a small value"[..]));
    assert_eq!(rig.get(b"late").as_deref(), Some(&b"a late value"[..]));
    assert!(rig.get(b"unpacked") == Some(unpacked()));
    assert!(rig.get(b"striped") == Some(striped()));
    assert_eq!(rig.get(b"deleted"), None);
    assert_eq!(rig.get_manifest(b"session").as_deref(), Some(&b"the second"[..]));
    assert_eq!(rig.get_manifest(b"gone"), None);
    assert_eq!(rig.delete(b"small"), Err(StoreError::Referenced { manifests: 2 }));
    assert_eq!(rig.delete(b"striped"), Err(StoreError::Referenced { manifests: 1 }));
    let page = rig.store.list_manifests(b"ns", b"", b"", 9);
    assert_eq!(page.entries.len(), 1);
    assert_eq!((page.entries[0].generation, page.entries[0].chunk_count), (2, 3));
    assert_eq!(rig.store.audit(), Ok(()));
    // It goes on.
    rig.put(b"new", b"value").unwrap();
    rig.put_manifest(b"session", &[b"new"], b"the third").unwrap();
    rig.stop();
}

/// Both superblocks of a device say so.
fn become_version(device: &Ram, version: u16) {
    for offset in [0, 64 << 10] {
        let mut sector = [0; SECTOR_BYTES];
        device.read(offset, &mut sector).unwrap();
        if sector[..8] == *b"MKVSUPER" {
            sector[8..10].copy_from_slice(&version.to_le_bytes());
            let checksum = xxh3_128(&sector[..SECTOR_BYTES - 16]).to_be_bytes();
            sector[SECTOR_BYTES - 16..].copy_from_slice(&checksum);
            device.write(offset, &[IoSlice::new(&sector)]).unwrap();
        }
    }
}

#[test]
fn a_later_version_is_refused_and_left_as_it_is() {
    let devices = committed();
    devices.iter().for_each(|device| become_version(device, 2));
    let before: Vec<_> = devices.iter().map(Ram::content).collect();
    let error = opened(&devices).err().expect("nothing of it can be read");
    assert_eq!(error, OpenError::Unusable { first: DeviceProblem::NewerVersion { version: 2 } });
    let said = "none of the devices can be used; the first of them: is of format version 2, newer than this program's";
    assert_eq!(error.to_string(), said);
    assert!(devices.iter().map(Ram::content).eq(before), "nothing was written");
    // One device alone: the other is served, and this one stays as it is.
    let devices = committed();
    become_version(&devices[1], 2);
    let before = devices[1].content();
    let mut rig = opened(&devices).unwrap();
    assert_eq!(rig.report.problems, [(1, DeviceProblem::NewerVersion { version: 2 })]);
    rig.put(b"new", b"value").unwrap();
    assert!(devices[1].content() == before);
}
