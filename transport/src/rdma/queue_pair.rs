//! A reliable queue pair with a completion queue of its own, driven by events.
//!
//! Owns the three objects and their order of destruction: queue pair, completion queue, channel. Invariants: the completion queue has room for
//! every request that the two queues can hold; a completion is looked at once, in order. It does not know what a request was for, and
//! does not keep the memory that requests name: its owner does, until the completion came or the queue pair is gone.
//!
//! Basic completion queues, for the extended ones of soft-RoCE in common releases report completions that never were; seven retries
//! mean "for ever" there, so there are six.

#![expect(unsafe_code, reason = "calls into libibverbs")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::io::Errno;

use super::device::{Device, path_mtu_code};
use super::memory::{Reach, RemotePlace};
use super::sys::{self, ibv_comp_channel, ibv_cq, ibv_qp, ibv_sge, ibv_wc};
use super::{CompletionError, RdmaError};
use crate::session::QueuePairIdentity;

/// An unacknowledged packet is sent again after 4.096 µs * 2^14 = 67 ms, six times; a peer that is gone is found out within a second.
const TIMEOUT_CODE: u8 = 14;
const RETRIES: u8 = 6;
/// A receiver without a buffer asks to be tried again after 0.64 ms. Credits keep this from happening.
const NOT_READY_CODE: u8 = 12;
const HOPS_MAX: u8 = 64;

/// How many requests a queue pair holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    pub send: u32,
    pub receive: u32,
}

/// Requests that are posted together.
pub(super) const CHAIN_MAX: usize = 16;

/// A request of the send queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub id: u64,
    pub verb: Verb,
    /// Of this side; an empty message names none.
    pub memory: Option<ibv_sge>,
    /// Whether it has a completion of its own.
    pub signaled: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Send {
        immediate: u32,
    },
    /// From the peer's memory.
    Read(RemotePlace),
    /// To the peer's memory.
    Write(RemotePlace),
    /// As [`Verb::Write`], and the peer is told: it takes one of its receives.
    WriteWithImmediate(RemotePlace),
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub id: u64,
    pub result: Result<Received, CompletionError>,
}

/// What took a receive; nothing of it means anything for other requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Whether a SEND did. A WRITE with immediate data takes a receive, too, and puts nothing into its memory.
    is_send: bool,
    pub size_bytes: u32,
    pub immediate: Option<u32>,
}

impl Received {
    fn of(completion: &ibv_wc) -> Received {
        Received {
            is_send: completion.opcode == sys::WC_RECV,
            size_bytes: completion.byte_len,
            immediate: (completion.wc_flags & sys::WC_WITH_IMM != 0)
                .then_some(u32::from_be(completion.imm_data)),
        }
    }

    /// Whether it is a message whose bytes are in the memory that was posted for it, which has room for so many.
    pub fn is_message(&self, size_bytes_max: usize) -> bool {
        self.is_send && self.size_bytes as usize <= size_bytes_max
    }
}

#[derive(Debug)]
pub(super) struct QueuePair {
    pair: NonNull<ibv_qp>,
    completions: Completions,
    packet_sequence: u32,
    reach: Reach,
    device: Arc<Device>,
}

// SAFETY: libibverbs is thread-safe; the pointers are to objects that any thread may use.
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// A queue pair that takes receives and is connected to nobody. `reach`: whether its peer reaches memory that is registered for that.
    pub fn new(device: &Arc<Device>, depth: Depth, reach: Reach) -> Result<QueuePair, RdmaError> {
        let most = device.requests_max();
        if depth.send.max(depth.receive) > most {
            return Err(RdmaError::Depth { wanted: depth.send.max(depth.receive), most });
        }
        let mut random = [0; 4];
        getrandom::fill(&mut random)
            .map_err(io::Error::from)
            .map_err(|source| RdmaError::System { doing: "draw a packet number", source })?;
        let completions = Completions::new(device, depth.send + depth.receive)?;
        let mut wanted = sys::ibv_qp_init_attr {
            qp_context: null_mut(),
            send_cq: completions.queue.as_ptr(),
            recv_cq: completions.queue.as_ptr(),
            srq: null_mut(),
            cap: sys::ibv_qp_cap {
                max_send_wr: depth.send,
                max_recv_wr: depth.receive,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: sys::QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: a domain of an open device, a live completion queue, and attributes that the call may change.
        let pair = unsafe { (device.library().ibv_create_qp)(device.domain(), &mut wanted) };
        let pair = NonNull::new(pair).ok_or_else(|| RdmaError::last("make a queue pair"))?;
        let packet_sequence = u32::from_ne_bytes(random) & 0x00ff_ffff;
        let own = QueuePair { pair, completions, packet_sequence, reach, device: Arc::clone(device) };
        let mut attributes = blank();
        attributes.qp_state = sys::QPS_INIT;
        attributes.port_num = device.port();
        attributes.qp_access_flags = reach.remote_access() as u32;
        let mask = sys::QP_STATE | sys::QP_PKEY_INDEX | sys::QP_PORT | sys::QP_ACCESS_FLAGS;
        own.modify("begin a queue pair", attributes, mask)?;
        Ok(own)
    }

    /// What the peer has to know of it.
    pub fn identity(&self, receive_credits: u32) -> QueuePairIdentity {
        QueuePairIdentity {
            // SAFETY: the library keeps the structure until the queue pair is destroyed.
            number: unsafe { self.pair.as_ref() }.qp_num,
            packet_sequence: self.packet_sequence,
            gid: self.device.gid(),
            path_mtu_bytes: self.device.path_mtu_bytes(),
            receive_credits,
            reads_max: u16::from(self.reads_served_max()),
        }
    }

    //= MKV-RDMA-7
    fn reads_served_max(&self) -> u8 {
        match self.reach {
            Reach::Own | Reach::PeerWrites => 0,
            Reach::Peer | Reach::PeerReads => self.device.reads().served_max,
        }
    }

    /// Connects it: it receives and sends from now on.
    pub fn connect(&self, peer: &QueuePairIdentity) -> Result<(), RdmaError> {
        let mut gid = [[0; 8]; 2];
        gid[0].copy_from_slice(&peer.gid[..8]);
        gid[1].copy_from_slice(&peer.gid[8..]);
        let mut attributes = blank();
        attributes.qp_state = sys::QPS_RTR;
        attributes.path_mtu = path_mtu_code(self.device.path_mtu_bytes(), peer.path_mtu_bytes);
        attributes.dest_qp_num = peer.number & 0x00ff_ffff;
        attributes.rq_psn = peer.packet_sequence & 0x00ff_ffff;
        attributes.min_rnr_timer = NOT_READY_CODE;
        attributes.max_dest_rd_atomic = self.reads_served_max();
        attributes.ah_attr = sys::ibv_ah_attr {
            grh: sys::ibv_global_route {
                dgid: gid.map(u64::from_ne_bytes),
                flow_label: 0,
                sgid_index: self.device.gid_index(),
                hop_limit: HOPS_MAX,
                traffic_class: 0,
            },
            dlid: 0,
            sl: 0,
            src_path_bits: 0,
            static_rate: 0,
            is_global: 1,
            port_num: self.device.port(),
        };
        let mask = sys::QP_STATE
            | sys::QP_AV
            | sys::QP_PATH_MTU
            | sys::QP_DEST_QPN
            | sys::QP_RQ_PSN
            | sys::QP_MAX_DEST_RD_ATOMIC
            | sys::QP_MIN_RNR_TIMER;
        self.modify("connect a queue pair", attributes, mask)?;
        attributes.qp_state = sys::QPS_RTS;
        attributes.timeout = TIMEOUT_CODE;
        attributes.retry_cnt = RETRIES;
        attributes.rnr_retry = RETRIES;
        attributes.sq_psn = self.packet_sequence;
        attributes.max_rd_atomic = u16::from(self.device.reads().asked_max).min(peer.reads_max) as u8;
        let mask = sys::QP_STATE
            | sys::QP_TIMEOUT
            | sys::QP_RETRY_CNT
            | sys::QP_RNR_RETRY
            | sys::QP_SQ_PSN
            | sys::QP_MAX_QP_RD_ATOMIC;
        self.modify("let a queue pair send", attributes, mask)
    }

    /// Ends it: what is posted comes back as flushed.
    pub fn fail(&self) -> Result<(), RdmaError> {
        let mut attributes = blank();
        attributes.qp_state = sys::QPS_ERR;
        self.modify("end a queue pair", attributes, sys::QP_STATE)
    }

    /// Whether it can send and receive, as the device sees it; what the library remembers is not kept up to date.
    pub fn is_ready(&self) -> Result<bool, RdmaError> {
        let mut attributes = blank();
        // SAFETY: all zeros are values of these plain fields.
        let mut initial: sys::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        // SAFETY: a live queue pair; both structures are written.
        let failed = unsafe {
            let library = self.device.library();
            (library.ibv_query_qp)(self.pair.as_ptr(), &mut attributes, sys::QP_STATE, &mut initial)
        };
        RdmaError::check("query a queue pair", failed)?;
        Ok(attributes.qp_state == sys::QPS_RTS)
    }

    fn modify(
        &self,
        doing: &'static str,
        mut attributes: sys::ibv_qp_attr,
        mask: i32,
    ) -> Result<(), RdmaError> {
        // SAFETY: a live queue pair, and attributes as the mask says.
        let failed =
            unsafe { (self.device.library().ibv_modify_qp)(self.pair.as_ptr(), &mut attributes, mask) };
        RdmaError::check(doing, failed)
    }

    /// Posts memory for one message to come.
    ///
    /// # Safety
    /// The memory stays registered and is nobody else's until this request's completion was polled, or the queue pair is gone.
    pub unsafe fn post_receive(&self, id: u64, mut into: ibv_sge) -> Result<(), RdmaError> {
        let mut request = sys::ibv_recv_wr { wr_id: id, next: null_mut(), sg_list: &mut into, num_sge: 1 };
        let mut refused = null_mut();
        // SAFETY: a live queue pair; the request is copied before the call returns; the caller answers for the memory.
        let failed = unsafe {
            let post = (*self.context()).ops.post_recv.ok_or(RdmaError::NoPosting)?;
            post(self.pair.as_ptr(), &mut request, &mut refused)
        };
        RdmaError::check("post a receive", failed)
    }

    /// Posts requests as one chain: the device is told once. They begin in this order, and their completions come in it.
    ///
    /// # Safety
    /// The memory stays registered until the completion of its request, or of a later one, was polled, or the queue pair is gone; until
    /// then nobody changes what is sent or written, and nobody looks at what is read.
    pub unsafe fn post(&self, chain: &[Request]) -> Result<(), RdmaError> {
        assert!(chain.len() <= CHAIN_MAX, "whoever makes a chain bounds it");
        let mut entries = [ibv_sge { addr: 0, length: 0, lkey: 0 }; CHAIN_MAX];
        let mut requests = [blank_request(); CHAIN_MAX];
        let (first_entry, first) = (entries.as_mut_ptr(), requests.as_mut_ptr());
        for (at, request) in chain.iter().enumerate() {
            // SAFETY: `at` is inside of both arrays, which outlive the call below and are reached through these pointers alone.
            let (own, entry) = unsafe { (&mut *first.add(at), first_entry.add(at)) };
            request.fill(own);
            if let Some(memory) = request.memory {
                // SAFETY: as above.
                unsafe { *entry = memory };
                (own.sg_list, own.num_sge) = (entry, 1);
            }
            if at + 1 < chain.len() {
                // SAFETY: as above.
                own.next = unsafe { first.add(at + 1) };
            }
        }
        let mut refused = null_mut();
        // SAFETY: a live queue pair; the requests are copied before the call returns; the caller answers for the memory.
        let failed = unsafe {
            let post = (*self.context()).ops.post_send.ok_or(RdmaError::NoPosting)?;
            post(self.pair.as_ptr(), first, &mut refused)
        };
        RdmaError::check("post requests", failed)
    }

    fn context(&self) -> *mut sys::ibv_context {
        // SAFETY: the library keeps the structure until the queue pair is destroyed.
        unsafe { self.pair.as_ref() }.context
    }

    /// Takes the completions that are there, up to the end of `into`.
    pub fn poll<'a>(
        &self,
        into: &'a mut [ibv_wc],
    ) -> Result<impl Iterator<Item = Completion> + use<'a>, RdmaError> {
        let wanted = i32::try_from(into.len()).unwrap_or(i32::MAX);
        // SAFETY: a live completion queue; `into` has room for so many.
        let count = unsafe {
            let poll = (*self.context()).ops.poll_cq.ok_or(RdmaError::NoPosting)?;
            poll(self.completions.queue.as_ptr(), wanted, into.as_mut_ptr())
        };
        let count = usize::try_from(count).map_err(|_| RdmaError::last("poll completions"))?;
        let library = self.device.library();
        Ok(into[..count].iter().map(move |completion| Completion {
            id: completion.wr_id,
            result: match completion.status {
                0 => Ok(Received::of(completion)),
                status => Err(CompletionError::new(library, status)),
            },
        }))
    }

    /// Asks for an event with the next completion.
    pub fn arm(&self) -> Result<(), RdmaError> {
        // SAFETY: a live completion queue.
        let failed = unsafe {
            let arm = (*self.context()).ops.req_notify_cq.ok_or(RdmaError::NoPosting)?;
            arm(self.completions.queue.as_ptr(), 0)
        };
        RdmaError::check("ask for events", failed)
    }

    /// Takes an event, if there is one.
    pub fn take_event(&self) -> Result<bool, RdmaError> {
        let (mut queue, mut context) = (null_mut(), null_mut());
        let library = self.device.library();
        // SAFETY: a live channel, which does not block; both places are written.
        let failed = unsafe {
            (library.ibv_get_cq_event)(self.completions.channel.as_ptr(), &mut queue, &mut context)
        };
        if failed != 0 {
            let source = io::Error::last_os_error();
            return match source.kind() {
                io::ErrorKind::WouldBlock => Ok(false),
                _ => Err(RdmaError::System { doing: "take an event", source }),
            };
        }
        // SAFETY: the queue that the event is of, which is the only one of the channel.
        unsafe { (library.ibv_ack_cq_events)(queue, 1) };
        Ok(true)
    }
}

/// Readable when an event is there.
impl AsFd for QueuePair {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the library keeps the structure, and the file open, until the channel is destroyed.
        unsafe { BorrowedFd::borrow_raw(self.completions.channel.as_ref().fd) }
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once, before its completion queue.
        unsafe { (self.device.library().ibv_destroy_qp)(self.pair.as_ptr()) };
    }
}

fn blank() -> sys::ibv_qp_attr {
    // SAFETY: all zeros are values of these plain fields.
    unsafe { std::mem::zeroed() }
}

fn blank_request() -> sys::ibv_send_wr {
    sys::ibv_send_wr {
        wr_id: 0,
        next: null_mut(),
        sg_list: null_mut(),
        num_sge: 0,
        opcode: 0,
        send_flags: 0,
        imm_data: 0,
        remote_address: 0,
        remote_key: 0,
        unused: [0; 9],
    }
}

impl Request {
    fn fill(&self, request: &mut sys::ibv_send_wr) {
        request.wr_id = self.id;
        if self.signaled {
            request.send_flags = sys::SEND_SIGNALED;
        }
        match self.verb {
            Verb::Send { immediate } => {
                (request.opcode, request.imm_data) = (sys::WR_SEND_WITH_IMM, immediate.to_be());
            }
            Verb::Read(RemotePlace { address, key }) => {
                request.opcode = sys::WR_RDMA_READ;
                (request.remote_address, request.remote_key) = (address, key);
            }
            Verb::Write(RemotePlace { address, key }) => {
                request.opcode = sys::WR_RDMA_WRITE;
                (request.remote_address, request.remote_key) = (address, key);
            }
            Verb::WriteWithImmediate(RemotePlace { address, key }) => {
                request.opcode = sys::WR_RDMA_WRITE_WITH_IMM;
                (request.remote_address, request.remote_key) = (address, key);
            }
        }
    }
}

/// A completion queue and the channel that its events come over.
#[derive(Debug)]
struct Completions {
    queue: NonNull<ibv_cq>,
    channel: NonNull<ibv_comp_channel>,
    device: Arc<Device>,
}

impl Completions {
    fn new(device: &Arc<Device>, entries: u32) -> Result<Completions, RdmaError> {
        let library = device.library();
        // SAFETY: an open device.
        let channel = NonNull::new(unsafe { (library.ibv_create_comp_channel)(device.context()) });
        let channel = channel.ok_or_else(|| RdmaError::last("make a completion channel"))?;
        let destroy = || {
            // SAFETY: the channel that was just made and that nothing uses.
            unsafe { (library.ibv_destroy_comp_channel)(channel.as_ptr()) };
        };
        // SAFETY: the library keeps the file open until the channel is destroyed.
        let file = unsafe { BorrowedFd::borrow_raw(channel.as_ref().fd) };
        if let Err(errno) = set_nonblocking(file) {
            destroy();
            return Err(RdmaError::System { doing: "set up a completion channel", source: errno.into() });
        }
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: an open device and its channel.
        let queue =
            unsafe { (library.ibv_create_cq)(device.context(), entries, null_mut(), channel.as_ptr(), 0) };
        let Some(queue) = NonNull::new(queue) else {
            let error = RdmaError::last("make a completion queue");
            destroy();
            return Err(error);
        };
        Ok(Completions { queue, channel, device: Arc::clone(device) })
    }
}

fn set_nonblocking(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::NONBLOCK)
}

impl Drop for Completions {
    fn drop(&mut self) {
        let library = self.device.library();
        // SAFETY: made once, destroyed once; every event was acknowledged, and the queue pair is gone.
        unsafe {
            (library.ibv_destroy_cq)(self.queue.as_ptr());
            (library.ibv_destroy_comp_channel)(self.channel.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(opcode: i32, size_bytes: u32) -> Received {
        Received::of(&ibv_wc { opcode, byte_len: size_bytes, ..ibv_wc::default() })
    }

    /// 128 and 129 are what the library calls the ends of a SEND and of a WRITE with immediate data.
    #[test]
    fn a_message_is_a_send_that_fits() {
        for size_bytes in [0, 1, 4096] {
            assert!(received(128, size_bytes).is_message(4096), "{size_bytes} bytes");
            assert!(!received(129, size_bytes).is_message(4096), "{size_bytes} bytes written");
        }
        assert!(!received(128, 4097).is_message(4096) && !received(128, u32::MAX).is_message(4096));
    }
}
