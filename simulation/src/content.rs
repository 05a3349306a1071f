//! What the world's clients store: chunks and manifests whose bytes follow from their numbers, so that every byte read can be
//! held against what it must be.

use std::cell::RefCell;
use std::collections::BTreeMap;

use memkv_transport::buf::{Buf, BufMut};

use crate::random::Random;

/// A chunk, by number.
pub type ChunkId = u32;
/// A version of a manifest; also its generation.
pub type Version = u64;

/// Chunks of this many numbers: few, so that sessions share them.
pub const CHUNKS: u64 = 48;
/// Where the disks are small, twice as many: more than fits.
pub const CHUNKS_TIGHT: u64 = 96;

pub fn key(chunk: ChunkId) -> [u8; 8] {
    Random::new(u64::from(chunk) ^ 0x6368_756e_6b00).next().to_le_bytes()
}

thread_local! {
    /// Made once for all worlds of a thread.
    static MADE: RefCell<BTreeMap<ChunkId, Buf>> = const { RefCell::new(BTreeMap::new()) };
}

/// The bytes of a chunk.
pub fn bytes(chunk: ChunkId) -> Buf {
    MADE.with_borrow_mut(|made| made.entry(chunk).or_insert_with(|| make(chunk)).clone())
}

fn make(chunk: ChunkId) -> Buf {
    let mut random = Random::new(u64::from(chunk) ^ 0x6279_7465_7300);
    // Tiny, packed, page-aligned, and a few of more than one block.
    let size_bytes = match random.below(20) {
        0..4 => 1 + random.below(200),
        4..12 => 1024 + random.below(40_000),
        12..19 => 60_000 + random.below(60_000),
        _ => (1 << 20) + random.below(300_000),
    };
    let mut bytes = BufMut::unpooled(size_bytes as usize).expect("a small buffer");
    random.fill(&mut bytes);
    bytes.freeze()
}

/// A manifest's body: its version, its chunks, and bytes that follow from the version.
pub fn body(version: Version, chunks: &[ChunkId]) -> Buf {
    let mut random = Random::new(version);
    let filler = random.below(3000) as usize;
    let mut bytes = BufMut::unpooled(12 + 4 * chunks.len() + filler).expect("a small buffer");
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes[8..12].copy_from_slice(&(chunks.len() as u32).to_le_bytes());
    for (at, chunk) in chunks.iter().enumerate() {
        bytes[12 + 4 * at..16 + 4 * at].copy_from_slice(&chunk.to_le_bytes());
    }
    random.fill(&mut bytes[12 + 4 * chunks.len()..]);
    bytes.freeze()
}

/// The version and the chunks of a body, if it is exactly one that [`body`] made.
pub fn read_body(bytes: &[u8]) -> Option<(Version, Vec<ChunkId>)> {
    let version = Version::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let count = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize;
    let ids = bytes.get(12..12usize.checked_add(count.checked_mul(4)?)?)?;
    let chunks: Vec<ChunkId> =
        ids.chunks_exact(4).map(|id| ChunkId::from_le_bytes([id[0], id[1], id[2], id[3]])).collect();
    (*body(version, &chunks) == *bytes).then_some((version, chunks))
}
