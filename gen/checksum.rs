//! Checksums of stored bytes: XXH3-128, in canonical (big-endian) form.
//!
//! They find damage, not forgery: whoever can change the bytes can change the checksum. The MAC keeps strangers out.
//! A value's checksum is made of its blocks' checksums, so that a part of a value can be verified by itself.

use twox_hash::XxHash3_128;

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
    // Most values have few blocks, and a hasher that takes bytes piece by piece is an allocation.
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

/// The checksum of bytes that come piece by piece: the same as [`block`] of them joined.
///
/// The state is an allocation, made with the first bytes: a hasher that is never used, or reset and not used again, costs nothing.
#[derive(Clone, Default)]
pub struct BlockHasher(Option<XxHash3_128>);

impl BlockHasher {
    pub fn new() -> BlockHasher {
        BlockHasher::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.get_or_insert_with(XxHash3_128::new).write(bytes);
    }

    /// The checksum of all bytes since the beginning or the last reset.
    pub fn finish(&self) -> Checksum {
        self.0.as_ref().map_or_else(|| block(&[]), |state| state.finish_128().to_be_bytes())
    }

    pub fn reset(&mut self) {
        self.0 = None;
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
