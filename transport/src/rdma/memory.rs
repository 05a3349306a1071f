//! Registered memory: slots for messages, and the memory of buffer pools for one-sided transfers.
//!
//! Invariants: slots are registered for this side's own queue pairs alone, so that no peer can address them; what peers can address is said so
//! by whoever registers it ([`Reach::Peer`]). Memory is registered for as long as its [`Ring`] or [`Memory`] lives, which holds the device,
//! and freed after that.

#![expect(unsafe_code, reason = "memory that a device reads and writes")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use super::RdmaError;
use super::device::Device;
use super::sys::{self, ibv_mr, ibv_sge};
use crate::buf::BufPool;

/// Who may address memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This side's own requests alone.
    Own,
    /// The peer's requests, too, over any queue pair of the device that lets it.
    Peer,
    /// The peer's RDMA READs.
    PeerReads,
    /// The peer's RDMA WRITEs.
    PeerWrites,
}

impl Reach {
    /// The library's flags for a peer that has it.
    pub(super) fn remote_access(self) -> i32 {
        match self {
            Reach::Own => 0,
            Reach::Peer => sys::ACCESS_REMOTE_READ | sys::ACCESS_REMOTE_WRITE,
            Reach::PeerReads => sys::ACCESS_REMOTE_READ,
            Reach::PeerWrites => sys::ACCESS_REMOTE_WRITE,
        }
    }
}

/// A stretch of memory that a device may use.
#[derive(Debug)]
pub(super) struct Registration {
    region: NonNull<ibv_mr>,
    base: NonNull<u8>,
    size_bytes: usize,
    device: Arc<Device>,
}

// SAFETY: libibverbs is thread-safe, and nothing here gives access to the memory itself.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers memory: its pages are made present and stay. May block for as long as that takes.
    ///
    /// # Safety
    /// The memory is valid for reads and writes until the registration is dropped, and whoever holds references into it
    /// answers for what work requests do to it.
    pub unsafe fn new(
        device: &Arc<Device>,
        base: NonNull<u8>,
        size_bytes: usize,
        reach: Reach,
    ) -> Result<Registration, RdmaError> {
        let (library, memory) = (device.library(), base.as_ptr().cast());
        let access = sys::ACCESS_LOCAL_WRITE | reach.remote_access();
        // SAFETY: a domain of an open device, and the caller's promise about the memory.
        let region = unsafe { (library.ibv_reg_mr)(device.domain(), memory, size_bytes, access) };
        let region = NonNull::new(region).ok_or_else(|| {
            let source = std::io::Error::last_os_error();
            RdmaError::Registration { size_bytes, source }
        })?;
        Ok(Registration { region, base, size_bytes, device: Arc::clone(device) })
    }

    /// What a work request says of some of the memory.
    pub fn entry(&self, offset: usize, length: usize) -> ibv_sge {
        assert!(offset + length <= self.size_bytes, "within the registration");
        // SAFETY: the library keeps the structure until it is deregistered.
        let lkey = unsafe { self.region.as_ref() }.lkey;
        ibv_sge { addr: (self.base.as_ptr().addr() + offset) as u64, length: length as u32, lkey }
    }

    /// What a peer says of it.
    fn place(&self) -> RemotePlace {
        // SAFETY: the library keeps the structure until it is deregistered.
        let key = unsafe { self.region.as_ref() }.rkey;
        RemotePlace { address: self.base.as_ptr().addr() as u64, key }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered once, deregistered once. What fails stays registered for as long as the process lives.
        unsafe { (self.device.library().ibv_dereg_mr)(self.region.as_ptr()) };
    }
}

/// A place in a peer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePlace {
    pub address: u64,
    pub key: u32,
}

/// The memory of a pool, as its registration tells a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id that the pool's memory has.
    pub region: Option<u32>,
    pub place: RemotePlace,
    pub size_bytes: usize,
}

/// Pools whose memory a device may read and write: what one-sided transfers of this side move, or what a peer's do.
#[derive(Debug)]
pub struct Memory {
    /// Before the pools, whose memory they are of.
    stretches: Vec<(Registration, Option<u32>)>,
    _pools: Vec<BufPool>,
    device: Arc<Device>,
}

impl Memory {
    /// Registers the one stretch of memory that each of these pools has; a pool without one has nothing to register. May block for as
    /// long as it takes to make all of it present.
    pub fn register(device: &Arc<Device>, pools: &[(&BufPool, Reach)]) -> Result<Memory, RdmaError> {
        let mut stretches = Vec::with_capacity(pools.len());
        let with_memory = pools.iter().filter_map(|(pool, reach)| Some((pool.stretch()?, *reach)));
        for (stretch, reach) in with_memory {
            // SAFETY: a pool's stretch of memory stays until the pool is gone, which is held longer than the registration. References
            // into it are of buffers: who posts a request holds the buffer, and a peer is told of places by whoever does.
            let registration = unsafe { Registration::new(device, stretch.base, stretch.size_bytes, reach) }?;
            stretches.push((registration, stretch.region));
        }
        let pools = pools.iter().map(|(pool, _)| (*pool).clone()).collect();
        Ok(Memory { stretches, _pools: pools, device: Arc::clone(device) })
    }

    /// What a peer has to be told.
    pub fn registered(&self) -> impl Iterator<Item = Registered> {
        self.stretches.iter().map(|(registration, region)| Registered {
            region: *region,
            place: registration.place(),
            size_bytes: registration.size_bytes,
        })
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// What a work request says of these bytes, if all of them are registered.
    pub(super) fn entry(&self, bytes: &[u8]) -> Option<ibv_sge> {
        self.stretches.iter().find_map(|(registration, _)| {
            let offset = bytes.as_ptr().addr().checked_sub(registration.base.as_ptr().addr())?;
            let inside = offset.checked_add(bytes.len()).is_some_and(|end| end <= registration.size_bytes);
            inside.then(|| registration.entry(offset, bytes.len()))
        })
    }
}

/// Slots of memory for a queue pair's messages.
#[derive(Debug)]
pub(super) struct Ring {
    registration: Option<Registration>,
    base: NonNull<u8>,
    layout: Layout,
    slot_size_bytes: usize,
}

// SAFETY: it owns its memory, which any thread may use and free.
unsafe impl Send for Ring {}
// SAFETY: a shared reference leads to the memory only through a call whose caller promises that nobody writes it.
unsafe impl Sync for Ring {}

impl Ring {
    pub fn new(
        device: &Arc<Device>,
        slots: usize,
        slot_size_bytes: usize,
        reach: Reach,
    ) -> Result<Ring, RdmaError> {
        let layout = Layout::from_size_align(slots * slot_size_bytes, 4096);
        let layout = layout.expect("a few slots of some pages");
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        let mut ring = Ring { registration: None, base, layout, slot_size_bytes };
        // SAFETY: the memory is freed after the registration, by `drop`; nobody has a reference to a slot that is posted.
        let registration = unsafe { Registration::new(device, base, layout.size(), reach) };
        ring.registration = Some(registration?);
        Ok(ring)
    }

    pub fn slot_size_bytes(&self) -> usize {
        self.slot_size_bytes
    }

    /// What a work request says of the beginning of a slot.
    pub fn entry(&self, slot: usize, length: usize) -> ibv_sge {
        assert!(length <= self.slot_size_bytes);
        self.registration().entry(slot * self.slot_size_bytes, length)
    }

    /// What a peer says of a slot.
    pub fn place(&self, slot: usize) -> RemotePlace {
        let RemotePlace { address, key } = self.registration().place();
        RemotePlace { address: address + (slot * self.slot_size_bytes) as u64, key }
    }

    fn registration(&self) -> &Registration {
        match &self.registration {
            Some(registration) => registration,
            None => unreachable!("a ring is registered before anyone has it"),
        }
    }

    /// The bytes of a slot.
    ///
    /// # Safety
    /// The slot is not posted: no device writes to it while the reference lives.
    pub unsafe fn slot(&self, slot: usize) -> &[u8] {
        // SAFETY: within the memory, which is initialised; the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(self.slot_base(slot), self.slot_size_bytes) }
    }

    /// The bytes of a slot, to fill.
    ///
    /// # Safety
    /// The slot is not posted: no device reads or writes it while the reference lives.
    pub unsafe fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` keeps others out.
        unsafe { std::slice::from_raw_parts_mut(self.slot_base(slot), self.slot_size_bytes) }
    }

    fn slot_base(&self, slot: usize) -> *mut u8 {
        let offset = slot * self.slot_size_bytes;
        assert!(offset < self.layout.size());
        // SAFETY: the offset is inside of the allocation.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.registration = None;
        // SAFETY: allocated with this layout; whoever owns the ring destroyed its queue pair before.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
