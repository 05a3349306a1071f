//! Buffers for payloads: aligned for direct I/O, reference-counted, sliceable, recycled under a byte budget.
//!
//! Owns the memory of every payload in flight. Invariants:
//! - every block begins at a multiple of [`ALIGNMENT_BYTES`] and its capacity is a power of two of at least that size;
//! - a [`BufMut`] is the only handle to its block; a [`Buf`] shares it and nobody writes any more;
//! - the capacities of all blocks of a pool, in use or idle, never exceed its budget and what is kept ([`Buf::keep`]);
//! - whoever waits for memory gets it before whoever asks later, so a small request cannot starve a large one.
//!
//! A block lives until its pool is gone, and is handed out again as it is: its bytes are initialised, but stale.
//! The pool does not wipe them; a receiver exposes only what it filled.
//!
//! A pool may be given memory that is shared with another process: it then takes blocks from there first, and a buffer
//! tells where in that memory it lies ([`Buf::place`]). The other process is trusted to write only where it was asked to, and
//! a buffer that it may yet write to is never given back ([`Buf::leak`]).

#![expect(unsafe_code, reason = "aligned allocation and reference counts that outlive one allocation")]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, TryAcquireError};

use self::huge::HugeMemory;
use self::slab::{Memory, Slab};
use crate::planted::{self, Bug};
use crate::shared::SharedMemory;

mod huge;
mod slab;
#[cfg(test)]
mod tests;

/// Every buffer begins at a multiple of this: what O_DIRECT asks for on every device we know.
pub const ALIGNMENT_BYTES: usize = 4096;
/// The largest buffer.
pub const BUFFER_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The smallest budget: one buffer of the largest size.
pub const BUDGET_SIZE_BYTES_MIN: usize = BUFFER_SIZE_BYTES_MAX;

/// What a huge page holds on the machines we know. A drive is asked for a block in one request when its memory is one stretch; in
/// pages of 4 KiB a request of 1 MiB and its header is two.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
const CLASS_COUNT: usize = 13;
/// What keeps a block has to need so much of it.
const KEPT_SHARE: (usize, usize) = (7, 8);
const REFERENCES_MAX: usize = isize::MAX as usize;

const _: () = assert!(ALIGNMENT_BYTES << (CLASS_COUNT - 1) == BUFFER_SIZE_BYTES_MAX);

/// Why a pool gives no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The budget is in use. Wait with [`BufPool::take`], or ask again when a buffer came back.
    #[error("the buffer pool's budget is in use")]
    Exhausted,
    #[error("a buffer of {size_bytes} bytes is larger than {BUFFER_SIZE_BYTES_MAX}")]
    TooLarge { size_bytes: usize },
}

// ---------------------------------------------------------------- the pool

/// Hands out buffers and takes them back when the last reference is dropped. Clones share the pool.
#[derive(Clone)]
pub struct BufPool(Arc<Pool>);

struct Pool {
    budget_size_bytes: usize,
    kept_size_bytes_max: usize,
    /// One permit for each page that may still be handed out. It queues in the order of asking.
    pages: Semaphore,
    shelves: Mutex<Shelves>,
}

/// Idle blocks by class, and the capacity of all blocks, idle or in use.
struct Shelves {
    idle: [Vec<NonNull<Block>>; CLASS_COUNT],
    /// Those of shared memory.
    idle_shared: [Vec<NonNull<Block>>; CLASS_COUNT],
    shared: Option<Shared>,
    resident_size_bytes: usize,
    /// Of those in use: what counts beside the budget.
    kept_size_bytes: usize,
}

/// One stretch of memory that a pool's blocks are cut from.
struct Shared {
    /// Its name among those that share it; `None` when it is nobody else's.
    region: Option<u32>,
    slab: Slab,
}

/// A pool's one stretch of memory.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// The id that it was given to the pool with.
    pub region: Option<u32>,
    pub base: NonNull<u8>,
    pub size_bytes: usize,
}

/// Where in shared memory a buffer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The id that the memory was given to the pool with.
    pub region: u32,
    pub offset: u64,
}

/// Where in its pool's one stretch of memory a block is.
#[derive(Clone, Copy)]
struct Cut {
    region: Option<u32>,
    offset: usize,
}

// SAFETY: a block on a shelf has no other handle, and it is plain memory that any thread may free.
unsafe impl Send for Shelves {}

impl BufPool {
    /// A pool that never holds more than `budget_size_bytes`, rounded down to whole pages.
    pub fn new(budget_size_bytes: usize) -> BufPool {
        BufPool::keeping(budget_size_bytes, 0)
    }

    /// As [`BufPool::new`], for someone who may keep so many bytes of what it handed out for as long as they like.
    pub fn keeping(budget_size_bytes: usize, kept_size_bytes_max: usize) -> BufPool {
        let budget_size_bytes = budget_size_bytes.max(BUDGET_SIZE_BYTES_MIN);
        let pages = (budget_size_bytes / ALIGNMENT_BYTES).min(Semaphore::MAX_PERMITS);
        BufPool(Arc::new(Pool {
            budget_size_bytes: pages * ALIGNMENT_BYTES,
            kept_size_bytes_max,
            pages: Semaphore::new(pages),
            shelves: Mutex::new(Shelves {
                idle: Default::default(),
                idle_shared: Default::default(),
                shared: None,
                resident_size_bytes: 0,
                kept_size_bytes: 0,
            }),
        }))
    }

    /// Takes blocks from this memory from now on, as long as it has room. False: the pool has shared memory already.
    pub fn share(&self, region: u32, memory: SharedMemory) -> bool {
        let mut shelves = self.0.lock();
        if shelves.shared.is_some() {
            return false;
        }
        shelves.shared = Some(Shared { region: Some(region), slab: Slab::new(Memory::Shared(memory)) });
        // What is idle would be used before the memory that was just given.
        while shelves.evict(false) {}
        true
    }

    /// Joins the idle blocks of shared memory, so that the next ones are taken from its beginning, whatever their size: after
    /// memory was made ready there.
    pub fn regroup(&self) {
        let mut shelves = self.0.lock();
        while shelves.evict(true) {}
    }

    /// Shows the pool's shared memory, if it has any.
    pub fn with_shared<T>(&self, see: impl FnOnce(u32, &SharedMemory) -> T) -> Option<T> {
        let shelves = self.0.lock();
        let shared = shelves.shared.as_ref()?;
        Some(see(shared.region?, shared.slab.shared()?))
    }

    /// Takes blocks from huge pages from now on, as far as so many bytes go; pages appear as they are used. Answers whether
    /// the system had them reserved. A pool that has memory of its own already keeps that.
    pub fn use_huge_pages(&self, size_bytes: usize) -> std::io::Result<bool> {
        let memory = HugeMemory::map(size_bytes.min(self.budget_size_bytes() + self.0.kept_size_bytes_max))?;
        let reserved = memory.is_reserved();
        let mut shelves = self.0.lock();
        if shelves.shared.is_none() {
            shelves.shared = Some(Shared { region: None, slab: Slab::new(Memory::Huge(memory)) });
            while shelves.evict(false) {}
        }
        Ok(reserved)
    }

    /// The one stretch of memory that blocks are taken from first, if there is one. It stays where it is for as long as the pool lives.
    #[cfg(target_os = "linux")]
    pub(crate) fn stretch(&self) -> Option<Stretch> {
        let shelves = self.0.lock();
        let shared = shelves.shared.as_ref()?;
        let (base, size_bytes) = shared.slab.extent();
        Some(Stretch { region: shared.region, base, size_bytes })
    }

    /// A buffer of exactly this length, if the budget allows it now and nobody is waiting.
    pub fn try_take(&self, size_bytes: usize) -> Result<BufMut, PoolError> {
        let Some(class) = class_of(size_bytes)? else { return Ok(BufMut::default()) };
        match self.0.pages.try_acquire_many(pages_of(class)) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => return Err(PoolError::Exhausted),
        }
        Ok(self.provide(class, size_bytes))
    }

    /// A buffer of exactly this length, as soon as the budget allows it. Those who wait are served in turn; dropping
    /// the future gives the turn up.
    pub async fn take(&self, size_bytes: usize) -> Result<BufMut, PoolError> {
        let Some(class) = class_of(size_bytes)? else { return Ok(BufMut::default()) };
        match self.0.pages.acquire_many(pages_of(class)).await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(PoolError::Exhausted),
        }
        Ok(self.provide(class, size_bytes))
    }

    pub fn budget_size_bytes(&self) -> usize {
        self.0.budget_size_bytes
    }

    /// What is not handed out at this moment.
    pub fn available_size_bytes(&self) -> usize {
        self.0.pages.available_permits() * ALIGNMENT_BYTES
    }

    /// The memory the pool holds, handed out or idle.
    pub fn resident_size_bytes(&self) -> usize {
        self.0.lock().resident_size_bytes
    }

    /// What [`Buf::keep`] took out of the budget and still lives.
    pub fn kept_size_bytes(&self) -> usize {
        self.0.lock().kept_size_bytes
    }

    fn provide(&self, class: usize, size_bytes: usize) -> BufMut {
        let block = self.0.obtain(class);
        // SAFETY: `obtain` hands out blocks that have no other handle.
        unsafe { (*block.as_ptr()).pool = Some(Arc::clone(&self.0)) };
        BufMut { block: Some(block), length: size_bytes }
    }
}

impl Pool {
    /// A block of this class that has no other handle. The caller holds its pages.
    fn obtain(&self, class: usize) -> NonNull<Block> {
        let mut shelves = self.lock();
        if let Some(block) = shelves.idle_shared[class].pop() {
            return block;
        }
        if let Some(block) = shelves.carve(class, self.budget_size_bytes) {
            return block;
        }
        if let Some(block) = shelves.idle[class].pop() {
            return block;
        }
        shelves.make_room(class, self.budget_size_bytes);
        drop(shelves);
        Block::allocate(class)
    }

    /// Counts a block as kept, once, and gives its pages back. False: no more may be kept.
    fn keep(&self, block: &Block) -> bool {
        {
            let mut shelves = self.lock();
            if block.kept.load(Ordering::Relaxed) {
                return true;
            }
            let capacity = capacity_of(block.class);
            if shelves.kept_size_bytes + capacity > self.kept_size_bytes_max {
                return false;
            }
            shelves.kept_size_bytes += capacity;
            block.kept.store(true, Ordering::Relaxed);
        }
        self.pages.add_permits(pages_of(block.class) as usize);
        true
    }

    /// Takes a kept block back: onto its shelf, unless there is as much as the budget allows.
    fn shelve_kept(&self, block: NonNull<Block>, class: usize) {
        let mut shelves = self.lock();
        shelves.kept_size_bytes -= capacity_of(class);
        shelves.put(block, class);
        shelves.trim(self.budget_size_bytes);
    }

    /// Takes a block back. It is on its shelf before its pages are free, so that the budget holds at every moment.
    fn shelve(&self, block: NonNull<Block>, class: usize) {
        self.lock().put(block, class);
        self.pages.add_permits(pages_of(class) as usize);
        if planted::now_and_then(Bug::BufferGivenBackTwice, 40) {
            self.pages.add_permits(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Nothing in a critical section leaves the shelves half changed.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    /// Takes a live block whose last handle the caller gives up.
    fn put(&mut self, block: NonNull<Block>, class: usize) {
        // SAFETY: the block is live, and nobody else has a handle.
        match unsafe { block.as_ref() }.cut {
            Some(_) => self.idle_shared[class].push(block),
            None => self.idle[class].push(block),
        }
    }

    /// A new block in shared memory, if that has room for it.
    fn carve(&mut self, class: usize, budget_size_bytes: usize) -> Option<NonNull<Block>> {
        self.shared.as_ref()?;
        let taken = self.shared.as_mut()?.slab.take(class);
        let offset = match taken {
            Some(offset) => offset,
            None => {
                // Idle blocks of other classes may join to one of this class.
                while self.evict(true) {}
                self.shared.as_mut()?.slab.take(class)?
            }
        };
        self.make_room(class, budget_size_bytes);
        let shared = self.shared.as_ref()?;
        let cut = Cut { region: shared.region, offset };
        Some(Block::leak(shared.slab.address(offset), class, Some(cut)))
    }

    /// Counts one more block of this class, after freeing what is idle as far as the budget asks for it.
    fn make_room(&mut self, class: usize, budget_size_bytes: usize) {
        // What is in use and not kept, this block included, fits the budget, for pages are held for all of it. So enough is idle.
        self.resident_size_bytes += capacity_of(class);
        self.trim(budget_size_bytes);
    }

    /// Frees what is idle as far as the budget asks for it.
    fn trim(&mut self, budget_size_bytes: usize) {
        while self.resident_size_bytes > budget_size_bytes + self.kept_size_bytes {
            if !self.evict(false) && !self.evict(true) {
                break;
            }
        }
    }

    /// Frees the largest idle block of shared memory, or of the rest. False: there is none.
    fn evict(&mut self, shared: bool) -> bool {
        let shelves = if shared { &mut self.idle_shared } else { &mut self.idle };
        let Some(block) = shelves.iter_mut().rev().find_map(Vec::pop) else { return false };
        // SAFETY: a block on a shelf has no other handle.
        let (cut, class) = unsafe { Block::free(block) };
        self.resident_size_bytes -= capacity_of(class);
        if let (Some(cut), Some(shared)) = (cut, &mut self.shared) {
            shared.slab.give(cut.offset, class);
        }
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let shelves = self.shelves.get_mut().unwrap_or_else(PoisonError::into_inner);
        while shelves.evict(false) || shelves.evict(true) {}
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufPool")
            .field("budget_size_bytes", &self.budget_size_bytes())
            .field("available_size_bytes", &self.available_size_bytes())
            .finish_non_exhaustive()
    }
}

/// The class of the smallest block that holds so many bytes; `None` for no bytes, which need no block.
fn class_of(size_bytes: usize) -> Result<Option<usize>, PoolError> {
    match size_bytes {
        0 => Ok(None),
        1..=BUFFER_SIZE_BYTES_MAX => {
            let pages = size_bytes.div_ceil(ALIGNMENT_BYTES).next_power_of_two();
            Ok(Some(pages.trailing_zeros() as usize))
        }
        _ => Err(PoolError::TooLarge { size_bytes }),
    }
}

const fn capacity_of(class: usize) -> usize {
    ALIGNMENT_BYTES << class
}

const fn pages_of(class: usize) -> u32 {
    1 << class
}

// ---------------------------------------------------------------- blocks

/// Aligned memory and its reference count. It is recycled together with its memory, so that taking a buffer from a
/// warm pool allocates nothing.
struct Block {
    references: AtomicUsize,
    memory: NonNull<u8>,
    class: usize,
    /// Whether its pool counts it as kept. Changes under the lock of the pool's shelves.
    kept: AtomicBool,
    /// Where in its pool's one stretch of memory it lies. The mapping lives as long as the pool, and the pool as long as a block in use.
    cut: Option<Cut>,
    /// Where it returns to; `None` on a shelf, so that the pool does not keep itself alive, and outside any pool.
    pool: Option<Arc<Pool>>,
}

impl Block {
    /// A block with one reference and zeroed memory.
    fn allocate(class: usize) -> NonNull<Block> {
        let layout = Block::layout(class);
        if layout.align() < HUGE_PAGE_BYTES {
            // SAFETY: the layout's size is not zero.
            let memory = unsafe { alloc_zeroed(layout) };
            let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
            return Block::leak(memory, class, None);
        }
        // SAFETY: the layout's size is not zero.
        let Some(memory) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        // Before the memory is touched, or it has small pages already.
        prefer_huge_pages(memory, layout.size());
        // SAFETY: fresh memory of this size.
        unsafe { memory.write_bytes(0, layout.size()) };
        Block::leak(memory, class, None)
    }

    /// A block with one reference on memory that is nobody else's.
    fn leak(memory: NonNull<u8>, class: usize, cut: Option<Cut>) -> NonNull<Block> {
        let block = Block {
            references: AtomicUsize::new(1),
            memory,
            class,
            kept: AtomicBool::new(false),
            cut,
            pool: None,
        };
        NonNull::from(Box::leak(Box::new(block)))
    }

    fn layout(class: usize) -> Layout {
        // Large blocks can lie in huge pages then.
        let huge = capacity_of(class) >= HUGE_PAGE_BYTES;
        let alignment = if huge { HUGE_PAGE_BYTES } else { ALIGNMENT_BYTES };
        Layout::from_size_align(capacity_of(class), alignment)
            .expect("at most 16 MiB, aligned to a power of two")
    }

    /// Frees a block and tells its class, and its place in shared memory, which is free then.
    ///
    /// # Safety
    /// `block` comes from [`Block::allocate`] or [`Block::leak`] and has no other handle.
    unsafe fn free(block: NonNull<Block>) -> (Option<Cut>, usize) {
        // SAFETY: a box was leaked, and the caller gives up the last handle.
        let block = unsafe { Box::from_raw(block.as_ptr()) };
        if block.cut.is_none() {
            // SAFETY: `allocate` got the memory with this same layout.
            unsafe { dealloc(block.memory.as_ptr(), Block::layout(block.class)) };
        }
        (block.cut, block.class)
    }

    /// Gives up one handle; the last one sends the block home.
    ///
    /// # Safety
    /// `block` is a live block and the caller owns one of its references, which it never uses again.
    unsafe fn release(block: NonNull<Block>) {
        // SAFETY: the caller's reference keeps the block alive here.
        if unsafe { block.as_ref() }.references.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Everything other threads did with the block happened before this thread recycles it.
        fence(Ordering::Acquire);
        // SAFETY: the count fell to 0, so no other handle exists.
        let exclusive = unsafe { &mut *block.as_ptr() };
        *exclusive.references.get_mut() = 1;
        let class = exclusive.class;
        let kept = std::mem::take(exclusive.kept.get_mut());
        match exclusive.pool.take() {
            Some(pool) if kept => pool.shelve_kept(block, class),
            Some(pool) => pool.shelve(block, class),
            None => {
                // SAFETY: as above, no other handle exists.
                unsafe { Block::free(block) };
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn prefer_huge_pages(memory: NonNull<u8>, size_bytes: usize) {
    use rustix::mm::{Advice, madvise};
    // A wish: without huge pages everything works as it is.
    // SAFETY: the memory is ours, whole pages of it, and the advice changes nothing of what it holds.
    let _ = unsafe { madvise(memory.as_ptr().cast(), size_bytes, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn prefer_huge_pages(_memory: NonNull<u8>, _size_bytes: usize) {}

// ---------------------------------------------------------------- handles

/// A buffer with one owner, who may write it. The default one is empty.
#[derive(Default)]
pub struct BufMut {
    block: Option<NonNull<Block>>,
    length: usize,
}

// SAFETY: it owns its block alone, and a block is memory, a count and an `Arc`, all of which may move between threads.
unsafe impl Send for BufMut {}
// SAFETY: a shared `BufMut` only reads.
unsafe impl Sync for BufMut {}

impl BufMut {
    /// A zeroed buffer that belongs to no pool and is freed when dropped.
    pub fn unpooled(size_bytes: usize) -> Result<BufMut, PoolError> {
        let block = class_of(size_bytes)?.map(Block::allocate);
        Ok(BufMut { block, length: size_bytes })
    }

    /// A copy, in a buffer outside any pool.
    pub fn copy_of(bytes: &[u8]) -> Result<BufMut, PoolError> {
        let mut copy = BufMut::unpooled(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// How long it can become.
    pub fn capacity(&self) -> usize {
        // SAFETY: a handle keeps its block alive.
        self.block.map_or(0, |block| capacity_of(unsafe { block.as_ref() }.class))
    }

    /// Changes the length, up to the capacity. Bytes that come in sight are initialised, but stale.
    ///
    /// # Panics
    /// If `length` exceeds the capacity.
    pub fn resize(&mut self, length: usize) {
        assert!(length <= self.capacity(), "{length} bytes do not fit a buffer of {}", self.capacity());
        self.length = length;
    }

    /// Gives up writing, for sharing.
    pub fn freeze(mut self) -> Buf {
        Buf { block: self.block.take(), start: 0, length: self.length }
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.block {
            None => &[],
            // SAFETY: the memory is initialised, holds at least `length` bytes, and only this handle can write it.
            Some(block) => unsafe { std::slice::from_raw_parts(block.as_ref().memory.as_ptr(), self.length) },
        }
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self.block {
            None => &mut [],
            // SAFETY: the memory is initialised, holds at least `length` bytes, and this is its only handle.
            Some(block) => unsafe {
                std::slice::from_raw_parts_mut(block.as_ref().memory.as_ptr(), self.length)
            },
        }
    }
}

impl Drop for BufMut {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            // SAFETY: this handle's reference, taken out of it.
            unsafe { Block::release(block) };
        }
    }
}

impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({} bytes)", self.length)
    }
}

/// A range of a buffer that any number of owners share and nobody writes. Cloning and slicing copy no bytes.
#[derive(Default)]
pub struct Buf {
    block: Option<NonNull<Block>>,
    start: usize,
    length: usize,
}

// SAFETY: all handles of a shared block only read its memory, and its count is atomic.
unsafe impl Send for Buf {}
// SAFETY: as above.
unsafe impl Sync for Buf {}

impl Buf {
    /// A copy of these bytes outside any pool.
    pub fn copy_of(bytes: &[u8]) -> Result<Buf, PoolError> {
        Ok(BufMut::copy_of(bytes)?.freeze())
    }

    /// A part of it, sharing the memory.
    ///
    /// # Panics
    /// If the range does not lie within it, as slices do.
    pub fn slice(&self, range: Range<usize>) -> Buf {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} bytes", self.length);
        let mut part = self.clone();
        part.start += range.start;
        part.length = range.len();
        part
    }

    /// Whether its first byte lies at a multiple of [`ALIGNMENT_BYTES`].
    pub fn is_aligned(&self) -> bool {
        self.start.is_multiple_of(ALIGNMENT_BYTES)
    }

    /// The bytes from its beginning to the end of its block: how far an aligned device write may read past its end.
    /// What lies past its end is stale.
    pub fn capacity(&self) -> usize {
        // SAFETY: a handle keeps its block alive.
        self.block.map_or(0, |block| capacity_of(unsafe { block.as_ref() }.class) - self.start)
    }

    /// Counts its block as kept rather than as under way, for whoever is going to hold it for long: the pool's budget is free
    /// for others again. False, and nothing has changed: it is too small a part of its block to be worth all of it,
    /// or the pool lets no more be kept.
    pub fn keep(&self) -> bool {
        let Some(block) = self.block else { return false };
        // SAFETY: a handle keeps its block alive.
        let block = unsafe { block.as_ref() };
        if self.length < capacity_of(block.class) / KEPT_SHARE.1 * KEPT_SHARE.0 {
            return false;
        }
        block.pool.as_ref().is_some_and(|pool| pool.keep(block))
    }

    /// Where in shared memory it begins; `None` if it lies elsewhere.
    pub fn place(&self) -> Option<Place> {
        self.place_of(0)
    }

    /// Where in shared memory one of its bytes is.
    pub fn place_of(&self, at: usize) -> Option<Place> {
        // SAFETY: a handle keeps its block alive.
        let cut = unsafe { self.block?.as_ref() }.cut?;
        Some(Place { region: cut.region?, offset: (cut.offset + self.start + at) as u64 })
    }

    /// Never gives the memory back: another process may still write to it. It stays counted in its pool's budget.
    pub fn leak(self) {
        std::mem::forget(self);
    }

    /// Writable again, from the beginning of the block, if nobody shares it.
    pub fn try_into_mut(mut self) -> Result<BufMut, Buf> {
        let Some(block) = self.block else { return Ok(BufMut::default()) };
        // SAFETY: a handle keeps its block alive. Acquire pairs with the release of whoever dropped the last other handle.
        if unsafe { block.as_ref() }.references.load(Ordering::Acquire) != 1 {
            return Err(self);
        }
        self.block = None;
        Ok(BufMut { block: Some(block), length: self.start + self.length })
    }
}

impl Clone for Buf {
    fn clone(&self) -> Buf {
        if let Some(block) = self.block {
            // SAFETY: a handle keeps its block alive.
            let before = unsafe { block.as_ref() }.references.fetch_add(1, Ordering::Relaxed);
            if before > REFERENCES_MAX {
                // A count that wraps would free memory in use.
                std::process::abort();
            }
        }
        Buf { block: self.block, start: self.start, length: self.length }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.block {
            None => &[],
            // SAFETY: `start + length` lies within the initialised memory, and nobody writes a shared block.
            Some(block) => unsafe {
                std::slice::from_raw_parts(block.as_ref().memory.as_ptr().add(self.start), self.length)
            },
        }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            // SAFETY: this handle's reference, taken out of it.
            unsafe { Block::release(block) };
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.length)
    }
}
