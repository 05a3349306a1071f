//! An open RDMA device: which one, which port, which address of it, and the protection domain that everything on it shares.
//!
//! Invariants: an open device outlives whatever was made on it, for each of those holds it; only ports of Ethernet that are
//! active are used, and the address is chosen by its type and network, never by its place in the table, which changes.
//!
//! One protection domain for each open device. Whoever registers memory for access by a peer opens a device of its own for that peer: then no
//! other peer has a queue pair in the domain.

#![expect(unsafe_code, reason = "calls into libibverbs")]

use std::ffi::CStr;
use std::io;
use std::net::Ipv6Addr;
use std::ptr::NonNull;
use std::sync::Arc;

use super::RdmaError;
use super::sys::{self, Library, ibv_context, ibv_pd};
use crate::gid::{GidType, Subnet};
use crate::session::Gid;

/// Which device, port and address to use; what is not said is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// As `ibv_devices` lists it; none: the first one that can be used.
    pub device: Option<String>,
    /// From 1; none: the first one that is active.
    pub port: Option<u8>,
    pub gid_type: GidType,
    pub subnet: Option<Subnet>,
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    library: &'static Library,
    context: NonNull<ibv_context>,
    domain: NonNull<ibv_pd>,
    name: String,
    port: u8,
    gid: Gid,
    gid_index: u8,
    path_mtu_bytes: u32,
    /// Of one queue.
    requests_max: u32,
    /// RDMA READs of one queue pair at a time, asked for and served.
    reads: Reads,
}

/// RDMA READs that a queue pair may have under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reads {
    pub asked_max: u8,
    pub served_max: u8,
}

/// What is made use of at most: as many as the cards in wide use serve.
const READS_MAX: i32 = 16;

// SAFETY: libibverbs is thread-safe: a context and a domain may be used and closed by any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens the first device that has what is asked for. May block for milliseconds.
    pub fn open(selection: &Selection) -> Result<Arc<Device>, RdmaError> {
        let library = Library::load().map_err(RdmaError::Library)?;
        let list = List::load(library)?;
        let mut refusal = None;
        for (device, name) in list.devices() {
            if selection.device.as_ref().is_some_and(|wanted| *wanted != name) {
                continue;
            }
            match Device::open_one(library, device, name, selection) {
                Ok(device) => return Ok(Arc::new(device)),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or(RdmaError::NoDevice))
    }

    fn open_one(
        library: &'static Library,
        device: *mut sys::ibv_device,
        name: String,
        selection: &Selection,
    ) -> Result<Device, RdmaError> {
        // SAFETY: a device of a list that is still there.
        let context = NonNull::new(unsafe { (library.ibv_open_device)(device) });
        let context = context.ok_or_else(|| RdmaError::last("open the device"))?;
        let closer = Closer { library, context };
        let (port, path_mtu_bytes) = closer.port(selection.port)?;
        let (gid, gid_index) = closer.gid(port, selection)?;
        let (requests_max, reads) = closer.limits()?;
        // SAFETY: an open device.
        let domain = NonNull::new(unsafe { (library.ibv_alloc_pd)(context.as_ptr()) });
        let domain = domain.ok_or_else(|| RdmaError::last("make a protection domain"))?;
        // From here on the device is closed with the value that is returned.
        std::mem::forget(closer);
        Ok(Device {
            library,
            context,
            domain,
            name,
            port,
            gid,
            gid_index,
            path_mtu_bytes,
            requests_max,
            reads,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn port(&self) -> u8 {
        self.port
    }

    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// The payload of a packet.
    pub fn path_mtu_bytes(&self) -> u32 {
        self.path_mtu_bytes
    }

    /// The requests that a queue of it can hold.
    pub fn requests_max(&self) -> u32 {
        self.requests_max
    }

    pub(super) fn reads(&self) -> Reads {
        self.reads
    }

    pub(super) fn gid_index(&self) -> u8 {
        self.gid_index
    }

    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    pub(super) fn context(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }

    pub(super) fn domain(&self) -> *mut ibv_pd {
        self.domain.as_ptr()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: whatever was made in the domain held the device, and is gone. What fails here stays with the process.
        unsafe {
            (self.library.ibv_dealloc_pd)(self.domain.as_ptr());
            (self.library.ibv_close_device)(self.context.as_ptr());
        }
    }
}

/// The names of the devices that there are, whether they can be used or not; none where that cannot be found out.
pub fn names() -> Vec<String> {
    let Ok(library) = Library::load() else { return Vec::new() };
    List::load(library).map_or_else(|_| Vec::new(), |list| list.devices().map(|(_, name)| name).collect())
}

/// How many leading bits two addresses share: the more, the nearer they are.
pub fn nearness(one: Gid, other: Gid) -> u32 {
    (u128::from_be_bytes(one) ^ u128::from_be_bytes(other)).leading_zeros()
}

/// The path MTUs that there are, with the library's codes.
const PATH_MTUS: [(u32, i32); 5] = [(256, 1), (512, 2), (1024, 3), (2048, 4), (4096, 5)];

fn mtu_bytes(code: i32) -> u32 {
    PATH_MTUS.iter().find(|(_, own)| *own == code).map_or(256, |(bytes, _)| *bytes)
}

/// The code of the path MTU between two ports: the smaller of theirs.
//= MKV-RDMA-6
pub(super) fn path_mtu_code(own_bytes: u32, peer_bytes: u32) -> i32 {
    mtu_code(own_bytes.min(peer_bytes))
}

/// The code of the largest path MTU that is not larger than so many bytes.
fn mtu_code(bytes: u32) -> i32 {
    PATH_MTUS.iter().rev().find(|(own, _)| *own <= bytes).map_or(1, |(_, code)| *code)
}

/// The system's devices.
struct List {
    library: &'static Library,
    devices: NonNull<*mut sys::ibv_device>,
    count: usize,
}

impl List {
    fn load(library: &'static Library) -> Result<List, RdmaError> {
        let mut count = 0;
        // SAFETY: `count` is written.
        let devices = NonNull::new(unsafe { (library.ibv_get_device_list)(&mut count) });
        let devices = devices.ok_or_else(|| RdmaError::last("list the devices"))?;
        Ok(List { library, devices, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = (*mut sys::ibv_device, String)> {
        (0..self.count).map(|at| {
            // SAFETY: the list has so many entries, each a device with a name that ends with a zero byte.
            unsafe {
                let device = *self.devices.as_ptr().add(at);
                let name = CStr::from_ptr((self.library.ibv_get_device_name)(device));
                (device, name.to_string_lossy().into_owned())
            }
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the library's list, once; devices that were opened do not need it.
        unsafe { (self.library.ibv_free_device_list)(self.devices.as_ptr()) };
    }
}

/// A device that is open and not yet accepted.
struct Closer {
    library: &'static Library,
    context: NonNull<ibv_context>,
}

impl Closer {
    fn limits(&self) -> Result<(u32, Reads), RdmaError> {
        // SAFETY: all zeros are values of these plain fields.
        let mut found: sys::ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open device; `found` is written.
        let failed = unsafe { (self.library.ibv_query_device)(self.context.as_ptr(), &mut found) };
        RdmaError::check("query the device", failed)?;
        let reads = |most: i32| most.clamp(0, READS_MAX) as u8;
        let (asked_max, served_max) = (reads(found.max_qp_init_rd_atom), reads(found.max_qp_rd_atom));
        Ok((u32::try_from(found.max_qp_wr).unwrap_or(0), Reads { asked_max, served_max }))
    }

    /// The port that is wanted, or the first one that can be used, and its packets' payload.
    fn port(&self, wanted: Option<u8>) -> Result<(u8, u32), RdmaError> {
        let candidates = wanted.map_or(1..=u8::MAX, |port| port..=port);
        let mut refusal = RdmaError::NoPort;
        for port in candidates {
            let mut found = sys::ibv_port_attr::default();
            // SAFETY: an open device; `found` is written, and has room for all that any version of this call writes.
            if unsafe { (self.library.ibv_query_port)(self.context.as_ptr(), port, &mut found) } != 0 {
                break;
            }
            if found.link_layer != sys::LINK_LAYER_ETHERNET {
                refusal = RdmaError::LinkLayer;
            } else if found.state == sys::PORT_ACTIVE {
                return Ok((port, mtu_bytes(found.active_mtu)));
            }
        }
        Err(refusal)
    }

    fn gid(&self, port: u8, selection: &Selection) -> Result<(Gid, u8), RdmaError> {
        const ENTRIES_MAX: usize = 1024;
        let mut entries = vec![sys::ibv_gid_entry::default(); ENTRIES_MAX];
        let entry_size_bytes = size_of::<sys::ibv_gid_entry>();
        // SAFETY: an open device; `entries` has room for so many.
        let count = unsafe {
            (self.library._ibv_query_gid_table)(
                self.context.as_ptr(),
                entries.as_mut_ptr(),
                ENTRIES_MAX,
                0,
                entry_size_bytes,
            )
        };
        entries.truncate(usize::try_from(count).map_err(|_| RdmaError::last("list the addresses"))?);
        let fitting = entries.iter().filter_map(|entry| {
            let mut gid = Gid::default();
            gid[..8].copy_from_slice(&entry.gid[0].to_ne_bytes());
            gid[8..].copy_from_slice(&entry.gid[1].to_ne_bytes());
            let fits = entry.port_num == u32::from(port)
                && entry.gid_type == gid_type_code(selection.gid_type)
                && selection.subnet.is_none_or(|subnet| subnet.holds(gid));
            Some((gid, u8::try_from(entry.gid_index).ok()?)).filter(|_| fits)
        });
        fitting.min_by_key(|(gid, _)| reluctance(*gid)).ok_or(RdmaError::NoGid)
    }
}

fn gid_type_code(gid_type: GidType) -> u32 {
    match gid_type {
        GidType::RoceV1 => sys::GID_TYPE_ROCE_V1,
        GidType::RoceV2 => sys::GID_TYPE_ROCE_V2,
    }
}

/// IPv4 first, then what is routed, then what is of one link alone.
fn reluctance(gid: Gid) -> u8 {
    let address = Ipv6Addr::from(gid);
    match address.to_ipv4_mapped() {
        Some(_) => 0,
        None if address.is_unicast_link_local() => 2,
        None => 1,
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        // SAFETY: an open device on which nothing was made.
        unsafe { (self.library.ibv_close_device)(self.context.as_ptr()) };
    }
}

impl RdmaError {
    /// What the system says of the call that just failed.
    pub(super) fn last(doing: &'static str) -> RdmaError {
        RdmaError::System { doing, source: io::Error::last_os_error() }
    }

    /// An error where a call answered with an error number instead of 0.
    pub(super) fn check(doing: &'static str, answer: i32) -> Result<(), RdmaError> {
        match answer {
            0 => Ok(()),
            // Some providers answer -1 and set errno, some a negative number, most the number itself.
            -1 => Err(RdmaError::last(doing)),
            number => Err(RdmaError::System {
                doing,
                source: io::Error::from_raw_os_error(number.saturating_abs()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_addresses_that_are_routed_come_first() {
        let gid = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        assert!(reluctance(gid("::ffff:10.0.0.1")) < reluctance(gid("fd00::1")));
        assert!(reluctance(gid("fd00::1")) < reluctance(gid("fe80::1")));
        let near = nearness(gid("::ffff:10.0.0.1"), gid("::ffff:10.0.0.2"));
        assert!(near > nearness(gid("::ffff:10.0.0.1"), gid("::ffff:10.0.1.1")));
    }

    //= MKV-RDMA-6 test
    #[test]
    fn the_smaller_path_mtu_is_used() {
        for (own, peer, code) in [(4096, 1024, 3), (1024, 4096, 3), (4096, 4096, 5), (256, 2048, 1)] {
            assert_eq!(path_mtu_code(own, peer), code, "{own} and {peer}");
        }
    }

    #[test]
    fn path_mtus_have_codes() {
        for (bytes, code) in PATH_MTUS {
            assert_eq!((mtu_code(bytes), mtu_bytes(code)), (code, bytes));
            assert_eq!(mtu_code(bytes + 1), code);
        }
        assert_eq!((mtu_code(0), mtu_code(u32::MAX)), (1, 5));
    }
}
