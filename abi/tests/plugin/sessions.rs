//! Sessions as an engine would save them: chunks, and a manifest in MemKV's format that lists them.

use memkv_wire::{Chunk, ChunkKind, HashAlgorithm, List, Manifest, manifest};

/// Chunks of a session and its manifest.
pub struct Session {
    pub hashes: Vec<Vec<u8>>,
    pub chunks: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

impl Session {
    /// Chunks that differ for every seed and place. Made with different seeds but the same `shared`, sessions have their first
    /// chunks in common.
    pub fn new(seed: u64, shared: usize, sizes: &[usize]) -> Self {
        let chunk = |(place, size): (usize, &usize)| {
            bytes(if place < shared { 0 } else { seed }, place as u64, *size)
        };
        let chunks: Vec<_> = sizes.iter().enumerate().map(chunk).collect();
        let hashes: Vec<Vec<u8>> =
            chunks.iter().map(|chunk| xxhash_rust::xxh3::xxh3_64(chunk).to_be_bytes().to_vec()).collect();
        let manifest = blob(&hashes, &chunks);
        Self { hashes, chunks, manifest }
    }

    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }
}

/// A manifest that lists these chunks.
pub fn blob(hashes: &[Vec<u8>], chunks: &[Vec<u8>]) -> Vec<u8> {
    let row = |(place, chunk): (usize, &Vec<u8>)| Chunk {
        length: chunk.len() as u32,
        token_start: 0,
        token_count: 1,
        layer: place as u16,
        kind: ChunkKind::KeysValues,
    };
    let table: Vec<_> = chunks.iter().enumerate().map(row).collect();
    let manifest = Manifest {
        engine: "test",
        engine_state_version: 1,
        model_fingerprint: b"model",
        hash_algorithm: HashAlgorithm::Xxh3x64,
        window_tokens: 64,
        tokens: List::from(&[1, 2, 3][..]),
        engine_state: b"state",
        chunks: List::from(table.as_slice()),
        hashes: &hashes.concat(),
    };
    let mut blob = Vec::new();
    manifest::encode(&manifest, &mut blob).expect("a manifest within bounds");
    blob
}

/// Bytes that look like nothing.
pub fn bytes(seed: u64, place: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_mul(0xd1b5_4a32_d192_ed03) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
