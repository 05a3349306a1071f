//! Chunks that were asked for together and are taken one by one.
//!
//! Owns at most [`PREFETCH_SIZE_BYTES_MAX`] bytes; the oldest go first when more come. A chunk is taken once: engines
//! restore each one once, and a second `get_chunk` asks the server.

use std::collections::{HashMap, VecDeque};

use memkv_client::Value;

use crate::buffer::Hash;

/// The most bytes that wait to be taken.
pub(crate) const PREFETCH_SIZE_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Default)]
pub(crate) struct Prefetched {
    values: HashMap<Hash, (u64, Value)>,
    order: VecDeque<(u64, Hash)>,
    added: u64,
    size_bytes: u64,
}

impl Prefetched {
    pub fn contains(&self, hash: &Hash) -> bool {
        self.values.contains_key(hash)
    }

    pub fn add(&mut self, hash: Hash, value: Value) {
        self.add_within(hash, value, PREFETCH_SIZE_BYTES_MAX);
    }

    fn add_within(&mut self, hash: Hash, value: Value, size_bytes_max: u64) {
        self.take(&hash);
        self.added += 1;
        self.size_bytes += value.size_bytes();
        self.values.insert(hash, (self.added, value));
        self.order.push_back((self.added, hash));
        while self.size_bytes > size_bytes_max {
            let Some((added, oldest)) = self.order.pop_front() else { break };
            if self.values.get(&oldest).is_some_and(|(own, _)| *own == added) {
                self.take(&oldest);
            }
        }
    }

    pub fn take(&mut self, hash: &Hash) -> Option<Value> {
        let (_, value) = self.values.remove(hash)?;
        self.size_bytes -= value.size_bytes();
        // What was taken is forgotten in the order too, from the front and at the latest when nothing is left.
        if self.values.is_empty() {
            self.order.clear();
        }
        while let Some((added, front)) = self.order.front() {
            if self.values.get(front).is_some_and(|(own, _)| own == added) {
                break;
            }
            self.order.pop_front();
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memkv_client::Buf;

    fn value(size_bytes: usize) -> Value {
        Value::from(Buf::copy_of(&vec![7; size_bytes]).expect("a small buffer"))
    }

    fn hash(seed: u8) -> Hash {
        Hash::new(&[seed]).expect("a hash")
    }

    #[test]
    fn the_oldest_go_first_and_each_is_taken_once() {
        let mut prefetched = Prefetched::default();
        for seed in 0..5 {
            prefetched.add_within(hash(seed), value(30), 100);
        }
        assert!(!prefetched.contains(&hash(0)) && !prefetched.contains(&hash(1)));
        assert_eq!(prefetched.take(&hash(3)).map(|v| v.size_bytes()), Some(30));
        assert!(prefetched.take(&hash(3)).is_none());
        prefetched.add_within(hash(2), value(40), 100);
        assert_eq!(prefetched.size_bytes, 70);
        prefetched.add_within(hash(9), value(101), 100);
        assert_eq!((prefetched.size_bytes, prefetched.values.len(), prefetched.order.len()), (0, 0, 0));
    }
}
