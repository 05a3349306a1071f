//! One recency order over everything that is stored.
//!
//! Time advances with the bytes that are used: one tick for each 4096th of the capacity. Entries keep their tick; this keeps
//! how many bytes there are of each, so that the age below which the coldest bytes lie is known without sorting.

use std::collections::BTreeMap;

/// Ticks in one turnover of the capacity.
const TICKS: u64 = 4096;

pub struct Recency {
    now: u32,
    used_bytes: u64,
    tick_bytes: u64,
    bytes: BTreeMap<u32, u64>,
    sum: u64,
}

impl Recency {
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            now: 0,
            used_bytes: 0,
            tick_bytes: (capacity_bytes / TICKS).max(1),
            bytes: BTreeMap::new(),
            sum: 0,
        }
    }

    /// This many bytes are used now; answers what time that makes it.
    pub fn advance(&mut self, bytes: u64) -> u32 {
        self.used_bytes += bytes;
        let ticks = self.used_bytes / self.tick_bytes;
        self.used_bytes %= self.tick_bytes;
        self.now = self.now.saturating_add(ticks.min(u64::from(u32::MAX)) as u32);
        self.now
    }

    pub fn add(&mut self, tick: u32, bytes: u64) {
        if bytes > 0 {
            self.sum += bytes;
            *self.bytes.entry(tick).or_default() += bytes;
        }
    }

    pub fn remove(&mut self, tick: u32, bytes: u64) {
        if let Some(sum) = self.bytes.get_mut(&tick) {
            *sum -= bytes;
            self.sum -= bytes;
            if *sum == 0 {
                self.bytes.remove(&tick);
            }
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.sum
    }

    /// The first tick that is too recent to belong to the coldest `bytes`.
    pub fn cutoff(&self, bytes: u64) -> u32 {
        let mut sum = 0;
        for (tick, count) in &self.bytes {
            sum += count;
            if sum > bytes {
                return *tick;
            }
        }
        self.now.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cutoff_leaves_at_most_the_asked_bytes_below() {
        let mut recency = Recency::new(4096 * 100);
        for tick in 0..10 {
            recency.add(tick, 100);
        }
        assert_eq!(recency.cutoff(250), 2);
        recency.remove(0, 100);
        recency.remove(1, 100);
        assert_eq!(recency.cutoff(250), 4);
        assert_eq!(recency.advance(250), 2);
        assert_eq!(recency.advance(50), 3);
        assert_eq!(recency.cutoff(10_000), 4);
    }
}
