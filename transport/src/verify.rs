//! Which of the bytes that come one-sided are held against the MAC that came with them.
//!
//! Bytes in frames are verified always: they pass through this side's processor anyway. Bytes that a device moves need not, and who has more of
//! them than processors can read may check a sample, or none. A sample is drawn anew for every piece, from where nobody else knows.

use std::sync::atomic::{AtomicU64, Ordering};

use memkv_wire::mac::{BulkHasher, BulkKey};

/// How many of the pieces are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    #[default]
    Always,
    /// One in [`SAMPLE`].
    Sampled,
    Never,
}

/// Of so many pieces one is checked, where a sample is.
pub const SAMPLE: u64 = 16;

/// Checks what one peer's device brings.
#[derive(Debug)]
pub struct Checker {
    key: BulkKey,
    verify: Verify,
    drawn: AtomicU64,
}

impl Checker {
    /// `key` is that of the peer's tags.
    pub fn new(key: BulkKey, verify: Verify) -> Checker {
        let mut seed = [0; 8];
        // Without randomness a sample is only easier to guess.
        let _ = getrandom::fill(&mut seed);
        Checker { key, verify, drawn: AtomicU64::new(u64::from_ne_bytes(seed)) }
    }

    /// Begins the MAC of a piece; `None` if it is not to be checked, neither by its MAC nor by its checksum.
    pub fn begin(&self) -> Option<BulkHasher> {
        let due = match self.verify {
            Verify::Always => true,
            Verify::Sampled => self.draw().is_multiple_of(SAMPLE),
            Verify::Never => false,
        };
        due.then(|| self.key.begin_region())
    }

    /// A step of SplitMix64.
    fn draw(&self) -> u64 {
        let mut drawn = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^ (drawn >> 31)
    }
}

#[cfg(test)]
mod tests {
    use memkv_wire::mac::{BulkAlgorithm, Direction, Key, Schedule};

    use super::*;

    #[test]
    fn as_many_are_checked_as_is_asked_for() {
        let schedule = Schedule::new(&Key::from_bytes([9; 32]), b"C", b"R", 1);
        let checked = |verify| {
            let key = schedule.bulk_key(Direction::ClientToServer, BulkAlgorithm::HmacSha256);
            let checker = Checker::new(key, verify);
            (0..16_000).filter(|_| checker.begin().is_some()).count()
        };
        assert_eq!((checked(Verify::Always), checked(Verify::Never)), (16_000, 0));
        // One in sixteen, and the chance of being so far off is less than one in 10^20.
        assert!((700..1300).contains(&checked(Verify::Sampled)));
    }
}
