//! A session's state, made up: the size and shape of a real one, and bytes that a seed decides.
//!
//! 24 layers and windows of 64 tokens; a chunk is one layer's K rows and V rows of one window, for a model with two KV
//! heads of 64 sixteen-bit numbers: 32 KiB. 256 tokens make 96 chunks, 3.15 MB.

use memkv_wire::manifest::{self, ManifestError};
use memkv_wire::{Chunk, ChunkKind, HashAlgorithm, List, Manifest};
use xxhash_rust::xxh3::xxh3_64;

use crate::noise;

const LAYERS: usize = 24;
const WINDOW_TOKENS: usize = 64;
const ROW_SIZE_BYTES: usize = 2 * 64 * 2;
const CHUNK_SIZE_BYTES: usize = 2 * WINDOW_TOKENS * ROW_SIZE_BYTES;

/// What an engine gives to a store: each chunk under its hash, and the manifest that lists them.
pub struct State {
    /// By window, then by layer.
    pub chunks: Vec<Vec<u8>>,
    pub hashes: Vec<[u8; 8]>,
    pub manifest: Vec<u8>,
}

impl State {
    pub fn new(token_count: usize, seed: u64) -> Result<State, ManifestError> {
        let mut draws = seed;
        let chunk = || {
            let mut bytes = vec![0; CHUNK_SIZE_BYTES];
            noise::fill(&mut bytes, noise::next(&mut draws));
            bytes
        };
        let count = token_count.div_ceil(WINDOW_TOKENS) * LAYERS;
        let chunks: Vec<Vec<u8>> = std::iter::repeat_with(chunk).take(count).collect();
        let hashes: Vec<[u8; 8]> = chunks.iter().map(|chunk| xxh3_64(chunk).to_be_bytes()).collect();
        let described: Vec<Chunk> = (0..count).map(|index| described(index, token_count)).collect();
        let tokens: Vec<i32> = (0..token_count).map(|token| (seed as i32 ^ token as i32) & 0xffff).collect();
        let mut blob = Vec::new();
        let manifest = Manifest {
            engine: "memkv bench",
            engine_state_version: 1,
            model_fingerprint: b"24 layers, 2 heads of 64",
            hash_algorithm: HashAlgorithm::Xxh3x64,
            window_tokens: WINDOW_TOKENS as u32,
            tokens: List::from(&tokens),
            engine_state: &[],
            chunks: List::from(&described),
            hashes: hashes.as_flattened(),
        };
        manifest::encode(&manifest, &mut blob)?;
        Ok(State { chunks, hashes, manifest: blob })
    }

    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum::<usize>() + self.manifest.len()
    }
}

fn described(index: usize, token_count: usize) -> Chunk {
    let start = index / LAYERS * WINDOW_TOKENS;
    Chunk {
        length: CHUNK_SIZE_BYTES as u32,
        token_start: start as u32,
        token_count: WINDOW_TOKENS.min(token_count - start) as u32,
        layer: (index % LAYERS) as u16,
        kind: ChunkKind::KeysValues,
    }
}
