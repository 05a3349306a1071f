//! Checksums of stored bytes: XXH3-128, in canonical (big-endian) form.
//!
//! They find damage, not forgery: whoever can change the bytes can change the checksum. The MAC keeps strangers out.
//! A value's checksum is made of its blocks' checksums, so that a part of a value can be verified by itself.

use twox_hash::XxHash3_128;
use twox_hash::xxhash3_128::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

/// The size of a checksum, in bytes.
pub const SIZE_BYTES: usize = 16;
/// Checksums are made over blocks of a value of this size; the last block may be shorter.
pub const BLOCK_SIZE_BYTES: usize = crate::limits::BLOCK_SIZE_BYTES as usize;

/// A checksum in canonical form.
pub type Checksum = [u8; SIZE_BYTES];

/// The checksum of one block, or of any other run of bytes.
pub fn block(bytes: &[u8]) -> Checksum {
    XxHash3_128::oneshot(bytes).to_be_bytes()
}

/// The checksum of a value, made of its blocks' checksums in order. An empty value has no blocks.
pub fn value<'a>(blocks: impl IntoIterator<Item = &'a Checksum>) -> Checksum {
    of_list(blocks.into_iter().copied())
}

fn of_list(mut blocks: impl Iterator<Item = Checksum>) -> Checksum {
    // Most values have few blocks; bytes in one slice take less time than those that come piece by piece.
    let mut list = [0; FEW_BLOCKS * SIZE_BYTES];
    let mut length = 0;
    while let Some(checksum) = blocks.next() {
        if length == list.len() {
            let mut hasher = BlockHasher::new();
            hasher.update(&list);
            hasher.update(&checksum);
            blocks.for_each(|checksum| hasher.update(&checksum));
            return hasher.finish();
        }
        list[length..length + SIZE_BYTES].copy_from_slice(&checksum);
        length += SIZE_BYTES;
    }
    block(&list[..length])
}

const FEW_BLOCKS: usize = 32;

/// The checksum of a value whose bytes are all at hand.
pub fn value_of(bytes: &[u8]) -> Checksum {
    of_list(bytes.chunks(BLOCK_SIZE_BYTES).map(block))
}

/// The checksum of one block that is likely not in the processor's cache. `ahead` is told of the bytes that come next, in time to
/// have them fetched: processors see a stream coming, but not across the end of a page.
pub fn block_ahead(bytes: &[u8], ahead: impl Fn(&[u8])) -> Checksum {
    if bytes.len() <= PAGE_BYTES {
        return block(bytes);
    }
    let mut hasher = BlockHasher::new();
    ahead(&bytes[..PAGE_BYTES]);
    let mut pages = bytes.chunks(PAGE_BYTES).peekable();
    while let Some(page) = pages.next() {
        pages.peek().into_iter().for_each(|next| ahead(next));
        hasher.update(page);
    }
    hasher.finish()
}

const PAGE_BYTES: usize = 4096;

/// The checksum of bytes that come piece by piece: the same as [`block`] of them joined. Allocates nothing.
#[derive(Clone)]
pub struct BlockHasher(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl Default for BlockHasher {
    fn default() -> BlockHasher {
        BlockHasher(RawHasher::new(SecretBuffer::default()))
    }
}

impl BlockHasher {
    pub fn new() -> BlockHasher {
        BlockHasher::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The checksum of all bytes since the beginning or the last reset.
    pub fn finish(&self) -> Checksum {
        self.0.finish_128().to_be_bytes()
    }

    pub fn reset(&mut self) {
        *self = BlockHasher::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementation: `xxhsum -H2` of nothing and of "a".
    #[test]
    fn blocks_match_the_reference() {
        assert_eq!(hex(block(b"")), "99aa06d3014798d86001c324468d497f");
        assert_eq!(hex(block(b"a")), "a96faf705af16834e6c632b61e964e1f");
    }

    #[test]
    fn pieces_join() {
        let bytes: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for cut in [0, 1, 16, 239, 240, 241, 256, 1024, 4999, 5000] {
            let mut hasher = BlockHasher::new();
            hasher.update(&bytes[..cut]);
            hasher.update(&bytes[cut..]);
            assert_eq!(hasher.finish(), block(&bytes), "cut at {cut}");
            hasher.reset();
            assert_eq!(hasher.finish(), block(b""));
        }
    }

    /// Another implementation, which uses no vector instructions that were not there when it was compiled.
    #[test]
    fn every_length_matches_another_implementation() {
        let bytes: Vec<u8> = (0..70_000u32).map(|n| (n.wrapping_mul(2_246_822_519) >> 23) as u8).collect();
        for length in (0..1100).chain([4095, 4096, 4097, 65_535, 65_536, 65_537, 70_000]) {
            for from in [0, 1].into_iter().filter(|from| *from <= length) {
                let bytes = &bytes[from..length];
                assert_eq!(
                    block(bytes),
                    xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes(),
                    "{from}..{length}"
                );
                let ahead = std::cell::Cell::new(0);
                let told = |next: &[u8]| ahead.set(ahead.get() + next.len());
                assert_eq!(block_ahead(bytes, told), block(bytes), "{from}..{length}, told of what comes");
                let told = if bytes.len() > PAGE_BYTES { bytes.len() } else { 0 };
                assert_eq!(ahead.get(), told, "of each byte once");
            }
        }
    }

    #[test]
    fn a_value_is_the_list_of_its_blocks() {
        let bytes = vec![7u8; BLOCK_SIZE_BYTES + 3];
        let first = block(&bytes[..BLOCK_SIZE_BYTES]);
        let second = block(&bytes[BLOCK_SIZE_BYTES..]);
        assert_eq!(value([&first, &second]), block(&[first, second].concat()));
        assert_eq!(value_of(&bytes), value([&first, &second]));
        assert_eq!(value_of(b"abc"), block(&block(b"abc")));
        assert_eq!(value([]), block(b""));
        assert_eq!(value_of(b""), value([]));
        for count in [FEW_BLOCKS - 1, FEW_BLOCKS, FEW_BLOCKS + 1, 3 * FEW_BLOCKS] {
            let blocks: Vec<Checksum> = (0..count).map(|n| block(&[n as u8])).collect();
            assert_eq!(value(&blocks), block(&blocks.concat()), "{count} blocks");
        }
    }

    fn hex(checksum: Checksum) -> String {
        checksum.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
