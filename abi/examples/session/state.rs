//! A session's state, made up: the size and shape of a real one, and bytes that a seed decides.
//!
//! 24 layers and windows of 64 tokens; a chunk is one layer's K rows and V rows of one window, for a model with two KV
//! heads of 64 sixteen-bit numbers: 32 KiB. Windows inside the shared prefix are the same in every session.

use memkv_wire::manifest::{self, ManifestError};
use memkv_wire::{Chunk, ChunkKind, HashAlgorithm, List, Manifest};
use xxhash_rust::xxh3::xxh3_64;

const LAYERS: usize = 24;
const WINDOW_TOKENS: usize = 64;
const ROW_SIZE_BYTES: usize = 2 * 64 * 2;
const CHUNK_SIZE_BYTES: usize = 2 * WINDOW_TOKENS * ROW_SIZE_BYTES;

pub struct State {
    tokens: Vec<i32>,
    /// By window, then by layer.
    chunks: Vec<Vec<u8>>,
}

/// What an engine writes into a store: each chunk under its hash, and the manifest that lists them.
pub struct Saved {
    pub hashes: Vec<[u8; 8]>,
    pub manifest: Vec<u8>,
}

impl State {
    /// Of `tokens` tokens, the first `shared` come from `prefix_seed` and the others from `seed`.
    pub fn new(tokens: usize, shared: usize, prefix_seed: u64, seed: u64) -> State {
        let windows = tokens.div_ceil(WINDOW_TOKENS);
        let seed_of = |token: usize| if token < shared { prefix_seed } else { seed };
        let chunks = (0..windows * LAYERS).map(|index| {
            // A window that begins in the prefix and ends after it is as much its own as one that begins after it.
            let last = ((index / LAYERS + 1) * WINDOW_TOKENS).min(tokens) - 1;
            fill(seed_of(last) ^ (index as u64) << 32)
        });
        State {
            chunks: chunks.collect(),
            tokens: (0..tokens).map(|t| (seed_of(t) as i32 ^ t as i32) & 0xffff).collect(),
        }
    }

    pub fn chunks(&self) -> &[Vec<u8>] {
        &self.chunks
    }

    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Hashes the chunks and writes the manifest: an engine's work, whatever the store.
    pub fn save(&self) -> Result<Saved, ManifestError> {
        let hashes: Vec<[u8; 8]> = self.chunks.iter().map(|chunk| xxh3_64(chunk).to_be_bytes()).collect();
        let chunks: Vec<Chunk> = (0..self.chunks.len()).map(|index| self.described(index)).collect();
        let mut blob = Vec::new();
        let manifest = Manifest {
            engine: "session example",
            engine_state_version: 1,
            model_fingerprint: b"24 layers, 2 heads of 64",
            hash_algorithm: HashAlgorithm::Xxh3x64,
            window_tokens: WINDOW_TOKENS as u32,
            tokens: List::from(&self.tokens),
            engine_state: &[],
            chunks: List::from(&chunks),
            hashes: hashes.as_flattened(),
        };
        manifest::encode(&manifest, &mut blob)?;
        Ok(Saved { hashes, manifest: blob })
    }

    fn described(&self, index: usize) -> Chunk {
        let start = index / LAYERS * WINDOW_TOKENS;
        Chunk {
            length: self.chunks[index].len() as u32,
            token_start: start as u32,
            token_count: WINDOW_TOKENS.min(self.tokens.len() - start) as u32,
            layer: (index % LAYERS) as u16,
            kind: ChunkKind::KeysValues,
        }
    }
}

/// A chunk of pseudo-random bytes (splitmix64).
fn fill(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(CHUNK_SIZE_BYTES);
    while bytes.len() < CHUNK_SIZE_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ z >> 31).to_le_bytes());
    }
    bytes
}
