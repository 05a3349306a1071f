//! Blocks of one stretch of memory, by buddies.
//!
//! Owns which places of the memory are free. A place of a class lies at a multiple of its capacity; two free halves of
//! one are joined again. The lowest free place is handed out first, so that what was made present is used first.

use std::collections::BTreeSet;
use std::ptr::NonNull;

use super::huge::HugeMemory;
use super::{ALIGNMENT_BYTES, BUFFER_SIZE_BYTES_MAX, CLASS_COUNT, capacity_of};
use crate::shared::SharedMemory;

/// What a slab is cut from.
#[derive(Debug)]
pub(super) enum Memory {
    Shared(SharedMemory),
    Huge(HugeMemory),
}

impl Memory {
    fn size_bytes(&self) -> usize {
        match self {
            Memory::Shared(memory) => memory.size_bytes(),
            Memory::Huge(memory) => memory.size_bytes(),
        }
    }

    fn base(&self) -> NonNull<u8> {
        match self {
            Memory::Shared(memory) => memory.base(),
            Memory::Huge(memory) => memory.base(),
        }
    }
}

/// Memory that buffers are taken from.
#[derive(Debug)]
pub(super) struct Slab {
    memory: Memory,
    /// Offsets of free places, by class.
    free: [BTreeSet<usize>; CLASS_COUNT],
}

impl Slab {
    /// What does not make up a largest buffer at the end of the memory is not used.
    pub fn new(memory: Memory) -> Slab {
        let mut free: [BTreeSet<usize>; CLASS_COUNT] = Default::default();
        let count = memory.size_bytes() / BUFFER_SIZE_BYTES_MAX;
        free[CLASS_COUNT - 1].extend((0..count).map(|place| place * BUFFER_SIZE_BYTES_MAX));
        Slab { memory, free }
    }

    /// The memory, if others can share it.
    pub fn shared(&self) -> Option<&SharedMemory> {
        match &self.memory {
            Memory::Shared(memory) => Some(memory),
            Memory::Huge(_) => None,
        }
    }

    /// Where all of it is in this process.
    #[cfg(target_os = "linux")]
    pub fn extent(&self) -> (NonNull<u8>, usize) {
        (self.memory.base(), self.memory.size_bytes())
    }

    /// A free place of this class: its offset.
    pub fn take(&mut self, class: usize) -> Option<usize> {
        let found = (class..CLASS_COUNT).find(|class| !self.free[*class].is_empty())?;
        let offset = self.free[found].pop_first()?;
        // What is not needed of a larger place is its halves, quarters and so on from its end.
        for smaller in class..found {
            self.free[smaller].insert(offset + capacity_of(smaller));
        }
        Some(offset)
    }

    /// Takes a place back.
    pub fn give(&mut self, mut offset: usize, mut class: usize) {
        while class < CLASS_COUNT - 1 && self.free[class].remove(&(offset ^ capacity_of(class))) {
            offset &= !capacity_of(class);
            class += 1;
        }
        self.free[class].insert(offset);
    }

    /// Where a place is in this process.
    pub fn address(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset.is_multiple_of(ALIGNMENT_BYTES) && offset < self.memory.size_bytes());
        let address = self.memory.base().addr().get() + offset;
        // The address of the mapping's beginning, moved within the mapping, so not 0.
        let address = std::num::NonZero::new(address).unwrap_or(std::num::NonZero::<usize>::MIN);
        self.memory.base().with_addr(address)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn places_never_overlap_and_join_again() {
        let memory = SharedMemory::create(3 * BUFFER_SIZE_BYTES_MAX + 5).unwrap();
        let mut slab = Slab::new(Memory::Shared(memory));
        let mut random = 88_172_645_463_325_252u64;
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for _ in 0..4000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(3) && !taken.is_empty() {
                let (offset, class) = taken.swap_remove(random as usize % taken.len());
                slab.give(offset, class);
                continue;
            }
            let class = (random >> 20) as usize % CLASS_COUNT;
            let Some(offset) = slab.take(class) else { continue };
            let range = offset..offset + capacity_of(class);
            assert!(offset.is_multiple_of(capacity_of(class)) && range.end <= 3 * BUFFER_SIZE_BYTES_MAX);
            for (other, class) in &taken {
                assert!(range.end <= *other || other + capacity_of(*class) <= range.start);
            }
            taken.push((offset, class));
        }
        assert!(!taken.is_empty());
        taken.into_iter().for_each(|(offset, class)| slab.give(offset, class));
        let whole: Vec<_> = std::iter::from_fn(|| slab.take(CLASS_COUNT - 1)).collect();
        assert_eq!(whole, [0, BUFFER_SIZE_BYTES_MAX, 2 * BUFFER_SIZE_BYTES_MAX]);
    }
}
