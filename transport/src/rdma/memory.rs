//! Registered memory: slots for messages.
//!
//! Invariants: memory is registered for this side's own queue pairs alone, so that no peer can address it; it is registered for as long as its
//! [`Ring`] lives, which holds the device, and freed after that.

#![expect(unsafe_code, reason = "memory that a device reads and writes")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

use super::RdmaError;
use super::device::Device;
use super::sys::{self, ibv_mr, ibv_sge};

/// A stretch of memory that a device may use.
#[derive(Debug)]
struct Registration {
    region: NonNull<ibv_mr>,
    base: NonNull<u8>,
    size_bytes: usize,
    device: Arc<Device>,
}

impl Registration {
    /// Registers memory: its pages are made present and stay. May block for as long as that takes.
    ///
    /// # Safety
    /// The memory is valid for reads and writes until the registration is dropped, and whoever holds references into it
    /// answers for what work requests do to it.
    unsafe fn new(
        device: &Arc<Device>,
        base: NonNull<u8>,
        size_bytes: usize,
    ) -> Result<Registration, RdmaError> {
        let (library, memory) = (device.library(), base.as_ptr().cast());
        // SAFETY: a domain of an open device, and the caller's promise about the memory.
        let region =
            unsafe { (library.ibv_reg_mr)(device.domain(), memory, size_bytes, sys::ACCESS_LOCAL_WRITE) };
        let region = NonNull::new(region).ok_or_else(|| {
            let source = std::io::Error::last_os_error();
            RdmaError::Registration { size_bytes, source }
        })?;
        Ok(Registration { region, base, size_bytes, device: Arc::clone(device) })
    }

    fn entry(&self, offset: usize, length: usize) -> ibv_sge {
        assert!(offset + length <= self.size_bytes, "within the registration");
        // SAFETY: the library keeps the structure until it is deregistered.
        let lkey = unsafe { self.region.as_ref() }.lkey;
        ibv_sge { addr: (self.base.as_ptr().addr() + offset) as u64, length: length as u32, lkey }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered once, deregistered once. What fails stays registered for as long as the process lives.
        unsafe { (self.device.library().ibv_dereg_mr)(self.region.as_ptr()) };
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

impl Ring {
    pub fn new(device: &Arc<Device>, slots: usize, slot_size_bytes: usize) -> Result<Ring, RdmaError> {
        let layout = Layout::from_size_align(slots * slot_size_bytes, 4096);
        let layout = layout.expect("a few slots of some pages");
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        let mut ring = Ring { registration: None, base, layout, slot_size_bytes };
        // SAFETY: the memory is freed after the registration, by `drop`; nobody has a reference to a slot that is posted.
        let registration = unsafe { Registration::new(device, base, layout.size()) };
        ring.registration = Some(registration?);
        Ok(ring)
    }

    /// What a work request says of the beginning of a slot.
    pub fn entry(&self, slot: usize, length: usize) -> ibv_sge {
        assert!(length <= self.slot_size_bytes);
        match &self.registration {
            Some(registration) => registration.entry(slot * self.slot_size_bytes, length),
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
