//! The seed's random numbers. Everything in a world that is left to chance comes from one of these.

/// SplitMix64: small, seedable with anything, the same everywhere.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    /// Drawn before anything else is, from the end.
    choices: Vec<u8>,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed, choices: Vec::new() }
    }

    /// Draws these bytes first: a fuzzer's way to decide what happens.
    pub fn choosing(choices: &[u8]) -> Random {
        Random { state: 0, choices: choices.iter().rev().copied().collect() }
    }

    /// A stream of its own, so that one part of the world draws no numbers from another.
    pub fn fork(&mut self) -> Random {
        Random::new(self.next())
    }

    pub fn next(&mut self) -> u64 {
        if let Some(chosen) = self.chosen(8) {
            return chosen;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// So many bytes of the choices, if there are as many left.
    fn chosen(&mut self, size_bytes: usize) -> Option<u64> {
        let rest = self.choices.len().checked_sub(size_bytes)?;
        Some(self.choices.drain(rest..).fold(0, |chosen, byte| chosen << 8 | u64::from(byte)))
    }

    /// From 0 to one below the bound. The bias of the remainder does not matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        let needed = if bound <= 256 { 1 } else { 4 };
        self.chosen(needed).unwrap_or_else(|| self.next()) % bound
    }

    pub fn happens(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}
