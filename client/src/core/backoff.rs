//! Delays that grow and spread: how long to wait before the next attempt.

/// A small generator (SplitMix64) for jitter; not for anything secret.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The delay before attempt number `attempt` (from 0): between half and all of `min * 2^attempt`, and
    /// never over `max`, so that clients that lost a server together do not return together.
    pub fn delay_ms(&mut self, min_ms: u64, max_ms: u64, attempt: u32) -> u64 {
        let doubled = min_ms.saturating_mul(1u64.checked_shl(attempt).unwrap_or(u64::MAX));
        let full = doubled.clamp(1, max_ms.max(1));
        full - self.next() % (full / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn between_half_and_all(seed: u64, attempt in 0u32..100, min in 1u64..1000, more in 0u64..100_000) {
            let max = min + more;
            let delay = Jitter::new(seed).delay_ms(min, max, attempt);
            let full = u128::from(min) << attempt.min(64);
            let full = full.min(u128::from(max)) as u64;
            prop_assert!(delay >= full / 2 && delay <= full, "{delay} of {full}");
        }
    }

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..8).map(|i| jitter.delay_ms(100, 100_000, i)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
