//! Chunks that were asked for together and are taken one by one.
//!
//! They come in the background, in groups, while the first of them are taken: whoever wants one that is on its way waits for it,
//! and not for the others. Owns at most [`PREFETCH_SIZE_BYTES_MAX`] bytes; the oldest go first when more come, or when too little of the memory for
//! received bytes is free: a chunk holds the whole frame that it came in, together with others that were taken long ago. A chunk is taken
//! once: engines restore each one once, and a second `get_chunk` asks the server. Invariant: a chunk is on its way only
//! while a [`Fetch`] lists it, so that nobody waits for what nobody reads.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use memkv_client::{BufPool, Value};

use crate::buffer::Hash;

/// The most bytes that wait to be taken.
pub(crate) const PREFETCH_SIZE_BYTES_MAX: u64 = 256 << 20;
/// Bytes that are asked for at a time: many enough that a request costs little beside them.
const GROUP_SIZE_BYTES: u64 = 8 << 20;
const GROUP_CHUNKS_MAX: usize = 512;
/// The part of the memory for received bytes that is left to others.
const FREE_SHARE: usize = 4;

/// What is on its way, and what came. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Prefetch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What chunks are received in.
    pool: BufPool,
    state: Mutex<State>,
    /// Something came, or will not.
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    came: Prefetched,
    coming: HashSet<Hash>,
}

/// A chunk that is wanted, and its length.
pub(crate) type Wanted = (Hash, u64);

/// Groups of chunks that several tasks read, one group each at a time.
#[derive(Debug)]
pub(crate) struct Fetch {
    prefetch: Prefetch,
    groups: Mutex<VecDeque<Vec<Wanted>>>,
}

impl Prefetch {
    /// Of chunks that are received into this pool.
    pub fn new(pool: BufPool) -> Self {
        Self(Arc::new(Shared { pool, state: Mutex::default(), news: Condvar::new() }))
    }

    /// Lets go of the oldest chunks where so much of the pool is not free without it: something else is to be received.
    pub fn leave_free(&self, size_bytes: usize) {
        if self.0.pool.available_size_bytes() < size_bytes {
            self.lock().came.leave_free(&self.0.pool, size_bytes);
        }
    }

    /// Whether it came or is on its way.
    pub fn has(&self, hash: &Hash) -> bool {
        let state = self.lock();
        state.came.contains(hash) || state.coming.contains(hash)
    }

    /// Takes a chunk, after waiting for it if it is on its way. `None`: it is to be asked for.
    pub fn take(&self, hash: &Hash) -> Option<Value> {
        let mut state = self.lock();
        loop {
            if let Some(value) = state.came.take(hash) {
                return Some(value);
            }
            if !state.coming.contains(hash) {
                return None;
            }
            state = self.0.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Chunks to be read now, as many as may wait, in the order in which they are wanted. Those that are here are left out.
    pub fn begin(&self, wanted: impl IntoIterator<Item = Wanted>) -> Fetch {
        let mut state = self.lock();
        let (mut groups, mut total_bytes) = (VecDeque::new(), 0);
        let (mut group, mut group_bytes) = (Vec::new(), 0);
        for (hash, size_bytes) in wanted {
            // A length is what the server says.
            if size_bytes.saturating_add(total_bytes) > PREFETCH_SIZE_BYTES_MAX {
                break;
            }
            if state.came.contains(&hash) || !state.coming.insert(hash) {
                continue;
            }
            total_bytes += size_bytes;
            group.push((hash, size_bytes));
            group_bytes += size_bytes;
            if group_bytes >= GROUP_SIZE_BYTES || group.len() == GROUP_CHUNKS_MAX {
                groups.push_back(std::mem::take(&mut group));
                group_bytes = 0;
            }
        }
        groups.extend((!group.is_empty()).then_some(group));
        Fetch { prefetch: self.clone(), groups: Mutex::new(groups) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch {
    /// The next group that nobody reads yet. It is on its way until this is dropped.
    pub fn next(&self) -> Option<Group<'_>> {
        let wanted = self.groups().pop_front()?;
        Some(Group { prefetch: &self.prefetch, wanted })
    }

    pub fn len(&self) -> usize {
        self.groups().len()
    }

    fn groups(&self) -> MutexGuard<'_, VecDeque<Vec<Wanted>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fetch {
    /// What nobody has begun is not on its way any more.
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

/// Chunks that are being read.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    prefetch: &'a Prefetch,
    pub wanted: Vec<Wanted>,
}

impl Group<'_> {
    /// One of the group came. What does not is asked for again, alone, when it is wanted.
    pub fn came(&self, place: usize, value: Value) {
        let Some((hash, _)) = self.wanted.get(place) else { return };
        let mut state = self.prefetch.lock();
        // Whoever read it twice has it already.
        if state.coming.remove(hash) {
            state.came.add(*hash, value);
            let pool = &self.prefetch.0.pool;
            state.came.leave_free(pool, pool.budget_size_bytes() / FREE_SHARE);
            self.prefetch.0.news.notify_all();
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        let mut state = self.prefetch.lock();
        for (hash, _) in &self.wanted {
            state.coming.remove(hash);
        }
        self.prefetch.0.news.notify_all();
    }
}

// ------------------------------------------------------------------------------------------ what came

#[derive(Debug, Default)]
struct Prefetched {
    values: HashMap<Hash, (u64, Value)>,
    order: VecDeque<(u64, Hash)>,
    added: u64,
    size_bytes: u64,
}

impl Prefetched {
    fn contains(&self, hash: &Hash) -> bool {
        self.values.contains_key(hash)
    }

    fn add(&mut self, hash: Hash, value: Value) {
        self.add_within(hash, value, PREFETCH_SIZE_BYTES_MAX);
    }

    fn add_within(&mut self, hash: Hash, value: Value, size_bytes_max: u64) {
        self.take(&hash);
        self.added += 1;
        self.size_bytes += value.size_bytes();
        self.values.insert(hash, (self.added, value));
        self.order.push_back((self.added, hash));
        while self.size_bytes > size_bytes_max && self.drop_oldest() {}
    }

    /// Others may hold what is not free, and then all goes for nothing: chunks can be read again, and who waits for memory cannot go on.
    fn leave_free(&mut self, pool: &BufPool, size_bytes: usize) {
        while pool.available_size_bytes() < size_bytes && self.drop_oldest() {}
    }

    /// False: there is none.
    fn drop_oldest(&mut self) -> bool {
        // The first in order is there, see `take`.
        let oldest = self.order.front().map(|(_, hash)| *hash);
        oldest.is_some_and(|hash| self.take(&hash).is_some())
    }

    fn take(&mut self, hash: &Hash) -> Option<Value> {
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

    #[test]
    fn whoever_waits_gets_what_comes_or_is_told_that_nothing_will() {
        let prefetch = Prefetch::new(BufPool::new(0));
        let size_bytes = GROUP_SIZE_BYTES / 2;
        let fetch = prefetch.begin((0..5).chain(0..2).map(|seed| (hash(seed), size_bytes)));
        assert_eq!(fetch.len(), 3, "two chunks make a group, and none is read twice");
        assert_eq!(prefetch.begin([(hash(4), 1)]).len(), 0, "it is on its way already");
        std::thread::scope(|scope| {
            let wait = |seed| {
                let prefetch = &prefetch;
                scope.spawn(move || prefetch.take(&hash(seed)).map(|value| value.size_bytes()))
            };
            let waiting: Vec<_> = (0..5).map(wait).collect();
            let first = fetch.next().expect("a group");
            first.came(0, value(3));
            drop(first);
            drop(fetch.next().expect("a group that fails"));
            drop(fetch);
            let taken: Vec<_> = waiting.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            assert_eq!(taken, [Some(3), None, None, None, None]);
        });
        assert!(!prefetch.has(&hash(0)) && prefetch.lock().coming.is_empty());
        let too_much = prefetch.begin((0..9).map(|seed| (hash(seed), PREFETCH_SIZE_BYTES_MAX / 4)));
        assert_eq!(too_much.len(), 4);
        drop(too_much);
        let absurd = prefetch.begin([(hash(0), 1), (hash(1), u64::MAX)]);
        assert_eq!(absurd.next().map(|group| group.wanted.len()), Some(1));
    }

    /// 64 KiB of each frame of 1 MiB are left, and frames go on to come.
    #[test]
    fn what_nobody_takes_leaves_memory_for_others() {
        let pool = BufPool::new(16 << 20);
        let prefetch = Prefetch::new(pool.clone());
        for seed in 0..64 {
            let frame = pool.try_take(1 << 20).expect("memory is left").freeze();
            let fetch = prefetch.begin([(hash(seed), 64 << 10)]);
            fetch.next().expect("a group").came(0, Value::from(frame.slice(0..64 << 10)));
        }
        assert_eq!(pool.available_size_bytes(), 4 << 20);
        assert!(!prefetch.has(&hash(51)) && prefetch.has(&hash(52)), "the oldest went first");
        prefetch.leave_free(8 << 20);
        assert_eq!(pool.available_size_bytes(), 8 << 20);
        assert!(!prefetch.has(&hash(55)) && prefetch.take(&hash(56)).is_some());
        prefetch.leave_free(usize::MAX);
        assert_eq!(pool.available_size_bytes(), 16 << 20);
    }

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
