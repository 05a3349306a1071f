//! What is stored under the keys: bytes that follow from key and version.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use memkv_server::store::{BLOCK_BYTES, Block, Checksum};

use crate::rig::Stretch;

fn source() -> Arc<[u8]> {
    static SOURCE: OnceLock<Arc<[u8]>> = OnceLock::new();
    Arc::clone(SOURCE.get_or_init(|| crate::rig::bytes(8 << 20, 77).into()))
}

pub fn key_name(key: usize) -> Vec<u8> {
    format!("key-{key:04}").into_bytes()
}

/// A key's own, so that versions differ in bytes alone.
pub fn length(key: usize) -> usize {
    match key % 12 {
        0..5 => 1 + key * 397,
        5 => (64 << 10) - 1,
        6..8 => (64 << 10) + key * 1001,
        8..10 => 250_000 + key * 17,
        10 => BLOCK_BYTES,
        _ => BLOCK_BYTES + 200_000,
    }
}

fn stretches(key: usize, version: u32) -> Vec<Stretch> {
    let (length, source) = (length(key), source());
    let start = (key * 7919 + version as usize * 104_729) % (source.len() - length);
    let (blocks, end) = ((start..start + length).step_by(BLOCK_BYTES), start + length);
    blocks.map(|at| Stretch(Arc::clone(&source), at..end.min(at + BLOCK_BYTES))).collect()
}

pub fn blocks(key: usize, version: u32) -> Vec<Block<Stretch>> {
    let sums = sums(key, version).0;
    let blocks = stretches(key, version).into_iter().zip(sums);
    blocks.map(|(bytes, checksum)| Block { bytes, checksum }).collect()
}

/// The checksums of the blocks and of the whole.
type Sums = (Vec<Checksum>, Checksum);

fn sums(key: usize, version: u32) -> Sums {
    thread_local! {
        static KNOWN: RefCell<HashMap<(usize, u32), Sums>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let sums = known.entry((key, version)).or_insert_with(|| {
            let blocks: Vec<_> =
                stretches(key, version).iter().map(|bytes| Checksum::of_block(bytes.as_ref())).collect();
            let whole = Checksum::of_blocks(&blocks);
            (blocks, whole)
        });
        sums.clone()
    })
}

pub fn checksum(key: usize, version: u32) -> Checksum {
    sums(key, version).1
}

/// A manifest's body of this length.
pub fn body(length: usize) -> Vec<Block<Stretch>> {
    if length == 0 {
        return Vec::new();
    }
    let bytes = Stretch(source(), 0..length);
    vec![Block { checksum: Checksum::of_block(bytes.as_ref()), bytes }]
}

pub fn body_checksum(length: usize) -> Checksum {
    Checksum::of_blocks(body(length).iter().map(|block| &block.checksum))
}
