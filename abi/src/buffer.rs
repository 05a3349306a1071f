//! Chunks that were put and are not yet known to be stored.
//!
//! Owns their bytes, copied once into slabs of [`SLAB_SIZE_BYTES`] that come from the client's pool, so that their memory is
//! warm from save to save and goes to the socket without another copy. Invariants: at most
//! [`BUFFER_SIZE_BYTES_MAX`] bytes, in at most [`SLABS_MAX`] slabs; a chunk leaves only when its owner says that the server has it; a slab is given back
//! with its last chunk.

use std::collections::HashMap;
use std::ops::Range;

use memkv_client::{Buf, BufMut, BufPool};
use memkv_wire::checksum::{self, BlockHasher, Checksum};

use crate::cbuf::Malloced;
use crate::code::Failure;

/// The most bytes that wait; more are written early.
pub(crate) const BUFFER_SIZE_BYTES_MAX: usize = 64 << 20;
/// A slab. Small enough that a chunk which lingers does not hold much memory, large enough for few writes.
const SLAB_SIZE_BYTES: usize = 1 << 20;
/// What is sent is not added to, so that each flush which fails leaves a slab that is not full.
const SLABS_MAX: usize = 2 * BUFFER_SIZE_BYTES_MAX / SLAB_SIZE_BYTES;
/// Bytes that are checksummed and then copied while the processor's cache has them.
const STEP_SIZE_BYTES: usize = 16 << 10;
/// A chunk's hash.
pub(crate) const HASH_SIZE_BYTES_MAX: usize = memkv_wire::limits::HASH_SIZE_BYTES_MAX as usize;

const _: () = assert!(BUFFER_SIZE_BYTES_MAX >= SLAB_SIZE_BYTES);
const _: () = assert!(SLAB_SIZE_BYTES.is_multiple_of(checksum::BLOCK_SIZE_BYTES));

/// A chunk's hash, as the engine gave it; also its key in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hash {
    size_bytes: u8,
    bytes: [u8; HASH_SIZE_BYTES_MAX],
}

/// What is behind the hash is zeros: maps need not look at it.
impl std::hash::Hash for Hash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.as_bytes());
    }
}

impl Hash {
    pub fn new(hash: &[u8]) -> Result<Self, Failure> {
        if hash.is_empty() || hash.len() > HASH_SIZE_BYTES_MAX {
            return Err(Failure::Invalid("a hash has 1 to 64 bytes"));
        }
        let mut bytes = [0; HASH_SIZE_BYTES_MAX];
        bytes[..hash.len()].copy_from_slice(hash);
        Ok(Self { size_bytes: hash.len() as u8, bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size_bytes)]
    }
}

/// A chunk, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub hash: Hash,
    pub size_bytes: usize,
    pub parts: Vec<Buf>,
    pub blocks: Vec<Checksum>,
}

/// What a manifest needs to know about a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub size_bytes: usize,
    pub checksum: Checksum,
}

#[derive(Debug)]
pub(crate) struct PutBuffer {
    chunks: HashMap<Hash, Chunk>,
    slabs: HashMap<u64, Slab>,
    /// The slab that is being filled.
    open: Option<u64>,
    slabs_made: u64,
    chunks_put: u64,
    size_bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    /// Counts the chunks, so that they are written in the order of putting.
    order: u64,
    size_bytes: usize,
    spans: Vec<Span>,
    blocks: Vec<Checksum>,
}

#[derive(Debug)]
struct Span {
    slab: u64,
    range: Range<usize>,
}

#[derive(Debug)]
struct Slab {
    memory: Memory,
    /// Spans of chunks that are here.
    spans: usize,
}

#[derive(Debug)]
enum Memory {
    Filling { bytes: BufMut, used: usize },
    Full(Buf),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Filling { bytes, .. } => bytes,
            Self::Full(bytes) => bytes,
        }
    }

    /// The same memory for sharing; nothing is added to it any more.
    fn freeze(&mut self) -> &Buf {
        if let Self::Filling { bytes, .. } = self {
            *self = Self::Full(std::mem::take(bytes).freeze());
        }
        match self {
            Self::Full(bytes) => bytes,
            Self::Filling { .. } => unreachable!("just frozen"),
        }
    }
}

/// The checksums of a chunk's blocks, made as its bytes come.
#[derive(Default)]
struct Sums {
    blocks: Vec<Checksum>,
    hasher: BlockHasher,
    /// Bytes of the block that is not whole.
    pending: usize,
}

impl Sums {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(checksum::BLOCK_SIZE_BYTES - self.pending));
            self.hasher.update(now);
            self.pending += now.len();
            if self.pending == checksum::BLOCK_SIZE_BYTES {
                self.end_block();
            }
            bytes = later;
        }
    }

    fn end_block(&mut self) {
        self.blocks.push(self.hasher.finish());
        self.hasher.reset();
        self.pending = 0;
    }

    fn finish(mut self) -> Vec<Checksum> {
        if self.pending > 0 {
            self.end_block();
        }
        self.blocks
    }
}

impl PutBuffer {
    pub fn new() -> Self {
        Self {
            chunks: HashMap::new(),
            slabs: HashMap::new(),
            open: None,
            slabs_made: 0,
            chunks_put: 0,
            size_bytes: 0,
        }
    }

    pub fn has_room(&self, size_bytes: usize) -> bool {
        self.size_bytes + size_bytes <= BUFFER_SIZE_BYTES_MAX
            && self.slabs.len() + size_bytes.div_ceil(SLAB_SIZE_BYTES) <= SLABS_MAX
    }

    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    pub fn contains(&self, hash: &Hash) -> bool {
        self.chunks.contains_key(hash)
    }

    pub fn known(&self, hash: &Hash) -> Option<Known> {
        let chunk = self.chunks.get(hash)?;
        Some(Known { size_bytes: chunk.size_bytes, checksum: checksum::value(&chunk.blocks) })
    }

    /// Keeps a copy of a chunk that is not here yet and that there is room for.
    pub fn put(&mut self, pool: &BufPool, hash: Hash, data: &[u8]) -> Result<(), Failure> {
        debug_assert!(self.has_room(data.len()) && !self.contains(&hash) && !data.is_empty());
        let mut sums = Sums::default();
        let mut spans = Vec::with_capacity(1 + data.len() / SLAB_SIZE_BYTES);
        let mut rest = data;
        while !rest.is_empty() {
            match self.fill(pool, &mut rest, &mut sums) {
                Ok(span) => spans.push(span),
                Err(failure) => {
                    self.release(&spans);
                    return Err(failure);
                }
            }
        }
        self.size_bytes += data.len();
        self.chunks_put += 1;
        let chunk = Chunk { order: self.chunks_put, size_bytes: data.len(), spans, blocks: sums.finish() };
        self.chunks.insert(hash, chunk);
        Ok(())
    }

    /// Copies as much as fits into one slab, and checksums it on the way.
    fn fill(&mut self, pool: &BufPool, rest: &mut &[u8], sums: &mut Sums) -> Result<Span, Failure> {
        let id = match self.open {
            Some(id) => id,
            None => self.open_slab(pool)?,
        };
        let Some(Slab { memory: Memory::Filling { bytes, used }, spans }) = self.slabs.get_mut(&id) else {
            unreachable!("the open slab is being filled");
        };
        let (now, later) = rest.split_at(rest.len().min(bytes.len() - *used));
        let range = *used..*used + now.len();
        for (from, to) in now.chunks(STEP_SIZE_BYTES).zip(bytes[range.clone()].chunks_mut(STEP_SIZE_BYTES)) {
            sums.add(from);
            to.copy_from_slice(from);
        }
        *used = range.end;
        *spans += 1;
        *rest = later;
        if *used == bytes.len() {
            self.open = None;
        }
        Ok(Span { slab: id, range })
    }

    fn open_slab(&mut self, pool: &BufPool) -> Result<u64, Failure> {
        // A pool that is used up is no reason to refuse: the buffer has its own bound.
        let bytes = pool.try_take(SLAB_SIZE_BYTES).or_else(|_| BufMut::unpooled(SLAB_SIZE_BYTES));
        let bytes = bytes.map_err(|_| Failure::NoMemory)?;
        let id = self.slabs_made;
        self.slabs_made += 1;
        self.slabs.insert(id, Slab { memory: Memory::Filling { bytes, used: 0 }, spans: 0 });
        self.open = Some(id);
        Ok(id)
    }

    /// A copy of a chunk for the engine.
    pub fn copy(&self, hash: &Hash) -> Option<Result<Malloced, Failure>> {
        let chunk = self.chunks.get(hash)?;
        let mut copy = match Malloced::new(chunk.size_bytes) {
            Ok(copy) => copy,
            Err(failure) => return Some(Err(failure)),
        };
        for span in &chunk.spans {
            copy.push(&self.slabs[&span.slab].memory.bytes()[span.range.clone()]);
        }
        Some(Ok(copy))
    }

    /// A chunk for sending; it stays here.
    pub fn ready(&mut self, hash: &Hash) -> Option<Ready> {
        let chunk = self.chunks.get(hash)?;
        let mut parts = Vec::with_capacity(chunk.spans.len());
        for span in &chunk.spans {
            let slab = self.slabs.get_mut(&span.slab)?;
            parts.push(slab.memory.freeze().slice(span.range.clone()));
            if self.open == Some(span.slab) {
                self.open = None;
            }
        }
        Some(Ready { hash: *hash, size_bytes: chunk.size_bytes, parts, blocks: chunk.blocks.clone() })
    }

    /// Every chunk that is here, in the order of putting.
    pub fn hashes(&self) -> Vec<Hash> {
        let mut hashes: Vec<_> = self.chunks.iter().map(|(hash, chunk)| (chunk.order, *hash)).collect();
        hashes.sort_unstable();
        hashes.into_iter().map(|(_, hash)| hash).collect()
    }

    /// The server has this chunk, or will never take it.
    pub fn remove(&mut self, hash: &Hash) {
        if let Some(chunk) = self.chunks.remove(hash) {
            self.size_bytes -= chunk.size_bytes;
            self.release(&chunk.spans);
        }
    }

    fn release(&mut self, spans: &[Span]) {
        for span in spans {
            let Some(slab) = self.slabs.get_mut(&span.slab) else { continue };
            slab.spans -= 1;
            if slab.spans > 0 {
                continue;
            }
            match &mut slab.memory {
                // Still open and empty: filled again from its beginning, while its memory is warm.
                Memory::Filling { used, .. } if self.open == Some(span.slab) => *used = 0,
                Memory::Filling { .. } | Memory::Full(_) => {
                    self.slabs.remove(&span.slab);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn hash(seed: u8) -> Hash {
        Hash::new(&[seed, 1, 2]).expect("a hash")
    }

    fn data(seed: u8, size_bytes: usize) -> Vec<u8> {
        (0..size_bytes).map(|i| seed ^ (i as u8) ^ ((i >> 8) as u8)).collect()
    }

    fn joined(ready: &Ready) -> Vec<u8> {
        ready.parts.iter().map(|part| &part[..]).collect::<Vec<_>>().concat()
    }

    #[test]
    fn hashes_have_1_to_64_bytes() {
        assert!(Hash::new(&[]).is_err());
        assert!(Hash::new(&[0; 65]).is_err());
        let zeros = Hash::new(&[0; 64]).expect("the longest");
        assert_eq!(zeros.as_bytes(), [0; 64]);
        assert_ne!(zeros, Hash::new(&[0; 63]).expect("a shorter one"), "padding does not mix hashes up");
    }

    #[test]
    fn what_cannot_be_sent_pins_a_bounded_number_of_slabs() {
        let pool = BufPool::new(32 << 20);
        let mut buffer = PutBuffer::new();
        let mut put = 0u8;
        while put < u8::MAX && buffer.has_room(1) {
            buffer.put(&pool, hash(put), &[put]).expect("memory");
            assert!(buffer.ready(&hash(put)).is_some(), "for a flush that fails");
            put += 1;
        }
        assert_eq!((usize::from(put), buffer.slabs.len()), (SLABS_MAX, SLABS_MAX));
        buffer.remove(&hash(0));
        assert!(buffer.has_room(SLAB_SIZE_BYTES) && !buffer.has_room(SLAB_SIZE_BYTES + 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against a map of vectors: the same chunks, the same bytes, no memory left behind.
        #[test]
        fn a_buffer_is_a_map(acts in prop::collection::vec((0u8..12, 0u8..4, 1usize..1_500_000), 1..30)) {
            let pool = BufPool::new(32 << 20);
            let mut buffer = PutBuffer::new();
            let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
            for (seed, act, size_bytes) in acts {
                let hash = hash(seed);
                match act {
                    0 | 1 => {
                        let data = data(seed, size_bytes);
                        if !buffer.contains(&hash) && buffer.has_room(data.len()) {
                            buffer.put(&pool, hash, &data).expect("memory");
                            model.insert(seed, data);
                        }
                    }
                    2 => {
                        buffer.remove(&hash);
                        model.remove(&seed);
                    }
                    _ => {
                        let ready = buffer.ready(&hash);
                        let bytes = ready.map(|ready| joined(&ready));
                        prop_assert!(bytes.as_ref() == model.get(&seed));
                    }
                }
                prop_assert_eq!(buffer.len(), model.len());
                prop_assert_eq!(buffer.size_bytes, model.values().map(Vec::len).sum::<usize>());
            }
            for (seed, expected) in &model {
                let known = buffer.known(&super::tests::hash(*seed)).expect("there");
                prop_assert_eq!(known.checksum, checksum::value_of(expected));
                let ready = buffer.ready(&super::tests::hash(*seed)).expect("there");
                prop_assert!(joined(&ready) == *expected);
            }
            for hash in buffer.hashes() {
                buffer.remove(&hash);
            }
            prop_assert!(buffer.slabs.len() <= 1, "all slabs but the open one are given back");
            prop_assert_eq!(buffer.size_bytes, 0);
        }
    }
}
