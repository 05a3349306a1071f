//! A byte stream over a queue pair: SEND and RECV between registered slots, with credits.
//!
//! The bytes are those that TCP would carry, cut into messages of at most [`SLOT_SIZE_BYTES`]. Each message's immediate data grants credits:
//! how many more messages the peer may send. Invariants:
//! - a side sends a message with bytes only for a credit, so that it never meets an empty receive queue; empty messages, which grant and do nothing
//!   else, have receives of their own, posted again before anyone reads anything, so that granting never waits for a reader;
//! - a slot is the device's from posting to completion and ours at all other times;
//! - the memory outlives the queue pair, which is destroyed first.
//!
//! Beside it a TCP connection stays open. Nothing is sent on it after set-up: its end is the end of both. So a process that dies is
//! noticed at once, as on any stream, and a host that dies after [`SILENCE_MAX`](crate::tcp::SILENCE_MAX).
//! The pump looks at it, so that it matters to nobody which half waits, or whether one does.
//!
//! Immediate data is not covered by a MAC. Whoever can forge packets can break the connection with it, as with any forged packet; the bytes are
//! sealed as on every transport.

#![expect(unsafe_code, reason = "slots are shared with a device")]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::device::Device;
use super::memory::{Memory, Reach, RemotePlace, Ring};
use super::pump;
use super::queue_pair::{CHAIN_MAX, Completion, Depth, QueuePair, Verb};
use super::sys::{ibv_sge, ibv_wc};
use super::transfer::{Part, Posted, Progress, SendQueue, TRANSFERS_MAX};
use super::{CompletionError, RdmaError};
use crate::buf::{Buf, BufMut};
use crate::session::QueuePairIdentity;

/// Messages with bytes that may be on their way in one direction.
pub const MESSAGES_MAX: usize = 32;
/// The bytes of one message.
pub const SLOT_SIZE_BYTES: usize = 16 * 1024;
/// Empty messages that may be on their way. Two are enough for granting: a grant of half of the messages follows only on as many messages, and
/// those that were sent for an earlier grant tell that it came. One more is kept for the end.
const GRANTS_MAX: usize = 4;
/// So many receives are granted together.
const GRANT_BATCH: u32 = MESSAGES_MAX as u32 / 2;
/// Completions taken at a time.
const COMPLETIONS_MAX: usize = 16;

const DEPTH: Depth = Depth {
    send: (MESSAGES_MAX + GRANTS_MAX + TRANSFERS_MAX) as u32,
    receive: (MESSAGES_MAX + GRANTS_MAX) as u32,
};

const _: () = assert!(MESSAGES_MAX <= u16::MAX as usize && GRANTS_MAX <= u8::MAX as usize);

/// Marks the ids of receives, whose other bits are their slot's; those of other requests are their numbers.
const RECEIVE: u64 = 1 << 63;

/// A queue pair without memory: all that a peer that proved nothing yet can make a server hold.
#[derive(Debug)]
pub struct Prepared {
    pair: QueuePair,
    device: Arc<Device>,
}

impl Prepared {
    /// A queue pair whose peer reaches nothing but the slots that are posted for its messages.
    pub fn new(device: &Arc<Device>) -> Result<Prepared, RdmaError> {
        Prepared::reachable(device, Reach::Own)
    }

    /// One whose peer may reach what memory is registered for it on this device.
    pub fn reachable(device: &Arc<Device>, reach: Reach) -> Result<Prepared, RdmaError> {
        Ok(Prepared { pair: QueuePair::new(device, DEPTH, reach)?, device: Arc::clone(device) })
    }

    /// What the peer has to know of it. It has room for nothing yet.
    pub fn identity(&self) -> QueuePairIdentity {
        self.pair.identity(0)
    }

    /// Registers its memory and posts its receives.
    pub fn receive(self) -> Result<Endpoint, RdmaError> {
        let receive = Ring::new(&self.device, MESSAGES_MAX + GRANTS_MAX, SLOT_SIZE_BYTES, Reach::Own)?;
        let send = Ring::new(&self.device, MESSAGES_MAX, SLOT_SIZE_BYTES, Reach::Own)?;
        let shared = Shared {
            pair: self.pair,
            state: Mutex::new(State {
                receive,
                send,
                arrived: VecDeque::with_capacity(MESSAGES_MAX),
                free: (0..MESSAGES_MAX).collect(),
                credits: 0,
                receives_due: 0,
                grants_left: GRANTS_MAX as u32,
                grants_in_flight: 0,
                grants_due: 0,
                grants_given: GRANTS_MAX as u32,
                failure: None,
                ended: false,
                reader: None,
                writer: None,
                queue: SendQueue::default(),
                peer_reads_max: 0,
                counts: Counts::default(),
            }),
            memory: None,
            place: None,
        };
        {
            let state = shared.lock();
            for slot in 0..MESSAGES_MAX + GRANTS_MAX {
                state.post_receive(&shared.pair, slot)?;
            }
        }
        Ok(Endpoint { shared })
    }
}

/// A queue pair with memory and posted receives.
#[derive(Debug)]
pub struct Endpoint {
    shared: Shared,
}

impl Endpoint {
    /// What the peer has to know of it: it may send as soon as it does.
    pub fn identity(&self) -> QueuePairIdentity {
        self.shared.pair.identity(MESSAGES_MAX as u32)
    }

    /// Connects it to the peer. `granted`: the peer knows of this side's receives.
    pub fn connect(&self, peer: &QueuePairIdentity, granted: bool) -> Result<(), RdmaError> {
        self.shared.pair.connect(peer)?;
        let mut state = self.shared.lock();
        (state.credits, state.peer_reads_max) = (peer.receive_credits, peer.reads_max);
        if !granted {
            state.receives_due = MESSAGES_MAX as u32;
            state.grant(&self.shared.pair);
        }
        Ok(())
    }

    /// The halves, beside the socket that it was set up over. The place is given up with the queue pair, and so is the memory that it moves
    /// bytes from and to. Must be called inside a runtime.
    pub fn split(
        mut self,
        socket: TcpStream,
        memory: Option<Arc<Memory>>,
        place: Option<OwnedSemaphorePermit>,
    ) -> io::Result<(ReadHalf, WriteHalf)> {
        (self.shared.memory, self.shared.place) = (memory, place);
        let shared = Arc::new(self.shared);
        let (read, write) = socket.into_split();
        let pump = pump::spawn(Arc::clone(&shared), read)?;
        let life = Arc::new(Life { shared, pump });
        Ok((ReadHalf { life: Arc::clone(&life) }, WriteHalf { life, socket: Some(write) }))
    }
}

/// Ends the pump with the last half; the pump then lets go of the queue pair.
#[derive(Debug)]
struct Life {
    shared: Arc<Shared>,
    pump: AbortHandle,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    /// Before the memory that it uses.
    pub pair: QueuePair,
    /// Before the memory that its transfers use.
    state: Mutex<State>,
    memory: Option<Arc<Memory>>,
    /// Given up last.
    place: Option<OwnedSemaphorePermit>,
}

/// Why nothing more is sent or received.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Failure {
    #[error("the queue pair failed: {0}")]
    Completion(CompletionError),
    #[error("the queue pair takes no requests any more")]
    Posting,
    #[error("the device tells of no completions any more")]
    Events,
    #[error("the peer used a receive for what is no message")]
    NoMessage,
    #[error("the peer sent more empty messages than it was granted")]
    NotGranted,
    #[error("bytes on the socket beside a queue pair")]
    Stray,
}

impl Failure {
    fn kind(self) -> io::ErrorKind {
        match self {
            Failure::Completion(_) | Failure::Posting | Failure::Events => io::ErrorKind::ConnectionReset,
            Failure::NoMessage | Failure::NotGranted | Failure::Stray => io::ErrorKind::InvalidData,
        }
    }
}

#[derive(Debug)]
struct State {
    receive: Ring,
    send: Ring,
    /// Messages that came and were not read to their end, in order.
    arrived: VecDeque<Arrived>,
    /// Slots to send from.
    free: Vec<usize>,
    /// Messages that the peer has room for.
    credits: u32,
    /// Receives that were posted again, and that the peer does not know of.
    receives_due: u32,
    /// Empty messages that the peer has room for.
    grants_left: u32,
    grants_in_flight: u32,
    /// Empty messages that came and whose receives are posted again, and that the peer does not know of.
    grants_due: u32,
    /// Empty messages that the peer may send.
    grants_given: u32,
    failure: Option<Failure>,
    /// The peer closed its side: it grants nothing any more.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    queue: SendQueue,
    /// RDMA READs that the peer serves at a time.
    peer_reads_max: u16,
    counts: Counts,
}

/// What a side had its device do since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// SENDs with bytes.
    pub messages: u64,
    /// SENDs with bytes that came.
    pub received: u64,
    /// Empty SENDs.
    pub grants: u64,
    /// RDMA READs.
    pub fetches: u64,
    /// RDMA WRITEs.
    pub puts: u64,
}

#[derive(Debug)]
struct Arrived {
    slot: usize,
    start: usize,
    end: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is our bug, and leaves counts that are at worst too low.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every completion that is there; whether there was one.
    pub fn advance(&self) -> bool {
        let mut state = self.lock();
        let came = state.advance(&self.pair);
        if came {
            wake(state);
        }
        came
    }

    pub fn lose_events(&self) {
        let mut state = self.lock();
        state.failure.get_or_insert(Failure::Events);
        wake(state);
    }

    /// The peer closed the socket, or broke the rules with it.
    pub fn end(&self, stray: bool) {
        let mut state = self.lock();
        state.ended = true;
        if stray {
            state.failure.get_or_insert(Failure::Stray);
        }
        // What the peer sent before it closed is here, and may not have been taken.
        state.advance(&self.pair);
        wake(state);
    }
}

/// Wakes those who have news, with the lock free.
fn wake(mut state: MutexGuard<'_, State>) {
    let (halves, transfers) = state.wakers();
    drop(state);
    halves.into_iter().flatten().chain(transfers).for_each(Waker::wake);
}

impl State {
    fn wakers(&mut self) -> ([Option<Waker>; 2], Vec<Waker>) {
        let failed = self.failure.is_some();
        let over = failed || self.ended;
        let reader = if over || !self.arrived.is_empty() { self.reader.take() } else { None };
        let writer = if over || self.may_send() || self.is_sent() { self.writer.take() } else { None };
        ([reader, writer], self.queue.woken(failed))
    }

    fn may_send(&self) -> bool {
        self.credits > 0 && !self.free.is_empty() && self.queue.takes_message()
    }

    /// Whether the peer's device has everything.
    fn is_sent(&self) -> bool {
        self.free.len() == MESSAGES_MAX
    }

    /// The peer cannot keep it going: of the receives that are posted again here there are as many as it was granted empty messages, and more are
    /// granted only when all is taken.
    fn advance(&mut self, pair: &QueuePair) -> bool {
        let (mut space, mut came) = ([ibv_wc::default(); COMPLETIONS_MAX], false);
        loop {
            let taken = match pair.poll(&mut space) {
                Ok(completions) => completions.map(|completion| self.complete(pair, completion)).count(),
                Err(_) => {
                    self.failure.get_or_insert(Failure::Events);
                    return true;
                }
            };
            came |= taken > 0;
            if taken < COMPLETIONS_MAX {
                break;
            }
        }
        if !came {
            return false;
        }
        if self.queue.waiting() > 0 {
            self.post(pair, None);
        }
        self.grant(pair);
        true
    }

    fn complete(&mut self, pair: &QueuePair, completion: Completion) {
        let received = match completion.result {
            Ok(received) => received,
            Err(error) => {
                self.failure.get_or_insert(Failure::Completion(error));
                return;
            }
        };
        if completion.id & RECEIVE == 0 {
            let (free, grants_in_flight) = (&mut self.free, &mut self.grants_in_flight);
            self.queue.complete(completion.id, |posted| match posted {
                Posted::Message { slot } => free.push(slot),
                Posted::Grant => *grants_in_flight -= 1,
                Posted::Transfer { .. } => {}
            });
            return;
        }
        // Else the length is whatever the peer wrote elsewhere, and the slot has nothing of it.
        if !received.is_message(SLOT_SIZE_BYTES) {
            self.failure.get_or_insert(Failure::NoMessage);
            return;
        }
        let slot = (completion.id & !RECEIVE) as usize;
        let Grant { messages, grants } = Grant::from_immediate(received.immediate.unwrap_or(0));
        self.credits = self.credits.saturating_add(messages);
        self.grants_left = self.grants_left.saturating_add(grants);
        if received.size_bytes == 0 {
            //= MKV-RDMA-1
            let Some(left) = self.grants_given.checked_sub(1) else {
                self.failure.get_or_insert(Failure::NotGranted);
                return;
            };
            self.grants_given = left;
            self.grants_due += 1;
            self.repost(pair, slot);
        } else {
            self.counts.received += 1;
            self.arrived.push_back(Arrived { slot, start: 0, end: received.size_bytes as usize });
        }
    }

    /// Tells the peer of receives, when there are enough of them to tell of.
    //= MKV-RDMA-2
    fn grant(&mut self, pair: &QueuePair) {
        let may = self.grants_left > 1 && (self.grants_in_flight as usize) < GRANTS_MAX - 1;
        if self.receives_due < GRANT_BATCH || !may || self.failure.is_some() {
            return;
        }
        self.send_empty(pair);
    }

    /// An empty message has a completion, which tells of all before it, too: the last one is that of the end.
    fn conclude(&mut self, pair: &QueuePair) {
        if self.queue.is_quiet() && self.grants_left > 0 && self.failure.is_none() {
            self.send_empty(pair);
        }
    }

    fn send_empty(&mut self, pair: &QueuePair) {
        let immediate = self.take_grant().to_immediate();
        self.grants_left -= 1;
        self.grants_in_flight += 1;
        self.counts.grants += 1;
        self.post(pair, Some((Posted::Grant, Verb::Send { immediate }, None)));
    }

    /// Posts the transfers that wait, and a message behind them.
    fn post(&mut self, pair: &QueuePair, message: Option<(Posted, Verb, Option<ibv_sge>)>) {
        // SAFETY: an empty message names no memory; a slot is not free before its message's completion came, and the ring outlives the
        // queue pair.
        let posted = unsafe { self.queue.post(pair, message) };
        if self.failure.is_none() && posted.is_err() {
            self.failure = Some(Failure::Posting);
        }
    }

    fn take_grant(&mut self) -> Grant {
        let grants = self.grants_due.min(u32::from(u8::MAX));
        self.grants_due -= grants;
        self.grants_given += grants;
        Grant { messages: std::mem::take(&mut self.receives_due), grants }
    }

    /// Sends as much of these bytes as there are slots and credits for; how much that was.
    //= MKV-RDMA-1
    //= MKV-RDMA-3
    fn send(&mut self, pair: &QueuePair, slices: &[IoSlice<'_>]) -> usize {
        if self.queue.waiting() >= CHAIN_MAX - 1 {
            self.post(pair, None);
        }
        if !self.queue.takes_message() {
            return 0;
        }
        let mut sent = 0;
        let mut rest = slices.iter().map(|slice| &slice[..]).filter(|slice| !slice.is_empty());
        let mut slice = rest.next();
        while slice.is_some() && self.credits > 0 && self.failure.is_none() {
            let Some(slot) = self.free.pop() else { break };
            let mut filled = 0;
            // SAFETY: a free slot is not posted.
            let space = unsafe { self.send.slot_mut(slot) };
            while let Some(bytes) = slice
                && filled < space.len()
            {
                let count = bytes.len().min(space.len() - filled);
                space[filled..filled + count].copy_from_slice(&bytes[..count]);
                filled += count;
                slice = if count < bytes.len() { Some(&bytes[count..]) } else { rest.next() };
            }
            let immediate = self.take_grant().to_immediate();
            let entry = self.send.entry(slot, filled);
            self.post(pair, Some((Posted::Message { slot }, Verb::Send { immediate }, Some(entry))));
            self.counts.messages += 1;
            self.credits -= 1;
            sent += filled;
        }
        sent
    }

    /// Moves bytes that arrived, as many as there are and fit.
    fn read(&mut self, pair: &QueuePair, into: &mut ReadBuf<'_>) {
        while into.remaining() > 0
            && let Some(Arrived { slot, start, end }) = self.arrived.front_mut()
        {
            let slot = *slot;
            let count = into.remaining().min(*end - *start);
            // SAFETY: a slot whose message arrived is not posted before it was read.
            into.put_slice(unsafe { &self.receive.slot(slot)[*start..*start + count] });
            *start += count;
            if start == end {
                self.arrived.pop_front();
                self.receives_due += 1;
                self.repost(pair, slot);
            }
        }
        self.grant(pair);
    }

    fn repost(&mut self, pair: &QueuePair, slot: usize) {
        if self.failure.is_none() && self.post_receive(pair, slot).is_err() {
            self.failure = Some(Failure::Posting);
        }
    }

    fn post_receive(&self, pair: &QueuePair, slot: usize) -> Result<(), RdmaError> {
        let entry = self.receive.entry(slot, SLOT_SIZE_BYTES);
        // SAFETY: a slot is posted when nobody reads it, and not read before its message arrived; the ring outlives the queue pair.
        unsafe { pair.post_receive(RECEIVE | slot as u64, entry) }
    }

    fn error(&self) -> Option<io::Error> {
        self.failure.map(|failure| io::Error::new(failure.kind(), failure))
    }
}

/// What a message grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    /// Messages that the peer may send more.
    messages: u32,
    /// Empty ones.
    grants: u32,
}

impl Grant {
    fn to_immediate(self) -> u32 {
        self.grants << 16 | self.messages
    }

    fn from_immediate(immediate: u32) -> Grant {
        Grant { messages: immediate & 0xffff, grants: immediate >> 16 & 0xff }
    }
}

// ---------------------------------------------------------------- halves

/// The half that receives.
#[derive(Debug)]
pub struct ReadHalf {
    life: Arc<Life>,
}

/// The half that sends.
#[derive(Debug)]
pub struct WriteHalf {
    life: Arc<Life>,
    /// Gone once nothing more is to be sent.
    socket: Option<OwnedWriteHalf>,
}

impl ReadHalf {
    /// Whether the device still has the queue pair as connected.
    pub fn is_ready(&self) -> Result<bool, RdmaError> {
        self.life.shared.pair.is_ready()
    }

    /// Breaks the connection as an error of the device would. From then on the peer reaches no memory over it.
    pub fn fail(&self) -> Result<(), RdmaError> {
        self.life.shared.pair.fail()
    }

    /// What moves bytes from and to the peer's memory; `None` without memory of this side's own to move them to and from, and where the peer
    /// lets nobody reach its memory: a READ would wait for ever.
    //= MKV-RDMA-7
    pub fn one_sided(&self) -> Option<OneSided> {
        self.life.shared.memory.as_ref().filter(|_| self.life.shared.lock().peer_reads_max > 0)?;
        Some(OneSided { shared: Arc::clone(&self.life.shared) })
    }

    pub fn counts(&self) -> Counts {
        self.life.shared.lock().counts
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.life.shared;
        let mut state = shared.lock();
        if let Some(answer) = state.try_read(&shared.pair, into) {
            return Poll::Ready(answer);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl State {
    /// What a reader gets now, if anything.
    fn try_read(&mut self, pair: &QueuePair, into: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if self.arrived.is_empty() {
            let end = self.ended.then_some(Ok(()));
            return self.error().map(Err).or(end);
        }
        self.read(pair, into);
        Some(Ok(()))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &self.life.shared;
        let mut state = shared.lock();
        let sent = state.send(&shared.pair, slices);
        if sent > 0 || slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(sent));
        }
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        if state.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is posted already; when it arrives is the device's business.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends with everything in the peer's memory.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = self.get_mut();
        {
            let mut state = half.life.shared.lock();
            state.conclude(&half.life.shared.pair);
            if state.failure.is_none() && !state.is_sent() {
                state.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        half.end();
        Poll::Ready(Ok(()))
    }
}

impl WriteHalf {
    /// Tells the peer, by dropping this half of the socket; after that its memory is not touched any more.
    //= MKV-REG-6
    fn end(&mut self) {
        let busy = self.socket.is_some() && self.life.shared.lock().queue.under_way() > 0;
        if busy {
            // Nothing that the peer was told of: those that come before a message end before it does.
            let _ = self.life.shared.pair.fail();
        }
        self.socket = None;
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.end();
    }
}

// ---------------------------------------------------------------- one-sided

/// Moves bytes between memory of this side and memory that the peer registered.
#[derive(Clone, Debug)]
pub struct OneSided {
    shared: Arc<Shared>,
}

impl OneSided {
    /// Begins to read parts of the peer's memory into a buffer. The rest of the buffer is as it was.
    ///
    /// # Panics
    /// If a part does not lie in the buffer.
    pub fn fetch(&self, into: BufMut, parts: &[Part]) -> Result<Fetch, RdmaError> {
        let mut state = self.usable()?;
        let memory = self.shared.memory.as_ref().ok_or(RdmaError::Broken)?;
        let batch = state.queue.fetch(memory, into, parts)?;
        state.counts.fetches += parts.len() as u64;
        state.post(&self.shared.pair, None);
        drop(state);
        Ok(Fetch { shared: Arc::clone(&self.shared), batch: Some(batch) })
    }

    /// Begins to write bytes to the peer's memory. They are there before any message that is sent after this call returned.
    //= MKV-REG-9
    pub fn put(&self, bytes: Buf, to: RemotePlace) -> Result<(), RdmaError> {
        let mut state = self.usable()?;
        let memory = self.shared.memory.as_ref().ok_or(RdmaError::Broken)?;
        state.queue.put(memory, bytes, to)?;
        state.counts.puts += 1;
        // A message follows, and takes it along; many do not wait for that.
        if state.queue.waiting() >= CHAIN_MAX - 1 {
            state.post(&self.shared.pair, None);
        }
        Ok(())
    }

    fn usable(&self) -> Result<MutexGuard<'_, State>, RdmaError> {
        let state = self.shared.lock();
        if state.failure.is_some() || state.ended { Err(RdmaError::Broken) } else { Ok(state) }
    }
}

/// Bytes on their way from the peer's memory. Dropping it gives them up.
#[derive(Debug)]
pub struct Fetch {
    shared: Arc<Shared>,
    batch: Option<usize>,
}

impl Future for Fetch {
    type Output = Result<BufMut, RdmaError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<BufMut, RdmaError>> {
        let fetch = &mut *self;
        let Some(batch) = fetch.batch else { return Poll::Ready(Err(RdmaError::Broken)) };
        let mut state = fetch.shared.lock();
        match state.queue.take(batch, context.waker()) {
            Progress::Done(memory) => {
                fetch.batch = None;
                Poll::Ready(Ok(memory))
            }
            Progress::UnderWay if state.failure.is_some() => Poll::Ready(Err(RdmaError::Broken)),
            Progress::UnderWay => Poll::Pending,
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.shared.lock().queue.abandon(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_fit_immediate_data() {
        for (messages, grants) in [(0, 0), (1, 0), (0, 1), (MESSAGES_MAX as u32, GRANTS_MAX as u32)] {
            let grant = Grant { messages, grants };
            assert_eq!(Grant::from_immediate(grant.to_immediate()), grant);
        }
    }
}
