//! A seeded source of numbers and bytes: one seed, one run.

/// SplitMix64: small, fast enough, and the same everywhere for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

/// Bytes are drawn once per this many and repeated with a change in each copy: a case may need 64 MiB of them.
const REPEAT_SIZE_BYTES: usize = 64 * 1024;

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A source of its own for everything that is named differently.
    pub fn named(seed: u64, names: &[&str]) -> Random {
        let mut random = Random(seed);
        for byte in names.join("\0").bytes() {
            random.0 ^= u64::from(byte);
            random.next();
        }
        random
    }

    #[expect(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length.min(REPEAT_SIZE_BYTES) {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        while bytes.len() < length {
            let from = bytes.len() - REPEAT_SIZE_BYTES;
            let to = from + REPEAT_SIZE_BYTES.min(length - bytes.len());
            let copy = bytes.len();
            bytes.extend_from_within(from..to);
            bytes[copy] = bytes[copy].wrapping_add(1);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_everything() {
        // The first numbers of the published algorithm for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!([random.next(), random.next()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_ne!(Random::named(1, &["a", "b"]).next(), Random::named(1, &["a", "c"]).next());
        assert_eq!(Random::named(1, &["a"]).next(), Random::named(1, &["a"]).next());
    }

    #[test]
    fn bytes_have_their_length_and_do_not_repeat() {
        for length in [0, 1, 7, 8, 9, REPEAT_SIZE_BYTES - 1, REPEAT_SIZE_BYTES, 3 * REPEAT_SIZE_BYTES + 5] {
            assert_eq!(Random::new(3).bytes(length).len(), length);
        }
        let bytes = Random::new(3).bytes(4 * REPEAT_SIZE_BYTES);
        let mut pieces: Vec<&[u8]> = bytes.chunks(REPEAT_SIZE_BYTES).collect();
        pieces.sort_unstable();
        pieces.dedup();
        assert_eq!(pieces.len(), 4);
    }
}
