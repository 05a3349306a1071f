//! Frames over any asynchronous byte stream: TCP, a Unix socket, a pipe in memory.
//!
//! Owns the stream's two halves, [`Reader`] and [`Writer`], and the driving of set-up. No task, no thread and no channel of
//! its own: whoever holds a half drives it. Invariants: both halves may be cancelled at any await without losing
//! or repeating a byte; a writer's queue is bounded, and full queues are told to whoever pushes; the frames of one message reach the
//! wire in the order of pushing. Small frames overtake those with payload that writing has not got to, so that an answer of a few bytes
//! does not wait behind megabytes. It does not match replies to requests.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};

use memkv_wire::control::ControlBuf;
use memkv_wire::frame::TAG_SIZE_BYTES;
use memkv_wire::mac::{BulkKey, Key, KeyRing, Tag};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::buf::{Buf, BufPool, Place};
use crate::error::{SealError, SetupError, TransportError};
use crate::receiver::{Frame, Receiver, Step};
use crate::sealer::{Sealer, check};
use crate::session::{
    AwaitConnect, AwaitReply, Channel, ClientInfo, ClientTerms, ConfirmationStep, ConnectStep, Nonce,
    QueuePairIdentity, ReplyStep, SETUP_TIMEOUT, ServerInfo, ServerTerms, SetupPermit,
};
use crate::sums::Pieces;

/// Frames a writer queues before it is full.
pub const QUEUE_FRAMES_MAX: usize = 512;
/// Payload and control bytes a writer queues before it is full. One more frame may exceed it.
pub const QUEUE_SIZE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A frame without payload is small up to this size, and overtakes.
const SMALL_SIZE_BYTES_MAX: usize = 16 * 1024;
/// Small frames that may overtake one with payload: it is held up no longer than they take.
const OVERTAKEN_MAX: u16 = 64;
/// The slices of one write.
const SLICES_MAX: usize = 64;
/// Frames are sealed just before they are written, so that their bytes are still in cache: at most about so many bytes ahead.
const SEALED_SIZE_BYTES_MAX: usize = 256 * 1024;
/// The memory of empty frames kept for reuse.
const SPARE_SIZE_BYTES_MAX: usize = 24 * 1024;
/// The places of the queue that an idle connection keeps.
const QUEUE_FRAMES_RETAINED: usize = 64;

const _: () = assert!(SLICES_MAX <= 1024, "IOV_MAX");

// ---------------------------------------------------------------- receiving

/// The receiving half of a connection.
#[derive(Debug)]
pub struct Reader<R> {
    io: R,
    receiver: Receiver,
    pool: BufPool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub fn new(io: R, receiver: Receiver) -> Reader<R> {
        let pool = receiver.pool().clone();
        Reader { io, receiver, pool }
    }

    /// What is read from.
    pub fn io_mut(&mut self) -> &mut R {
        &mut self.io
    }

    /// As [`Receiver::sum`].
    pub fn sum(&mut self, pieces: Pieces) {
        self.receiver.sum(pieces);
    }

    /// The key of the peer's tags.
    pub fn bulk_key(&self) -> &BulkKey {
        self.receiver.bulk_key()
    }

    /// The bytes of a frame that is not whole yet; 0 between two frames. A peer that stays in one holds memory.
    pub fn pending_size_bytes(&self) -> usize {
        self.receiver.pending_size_bytes()
    }

    /// The next frame, or `None` when the peer closed the stream between two frames. Dropping the future loses nothing. While the
    /// buffer pool is exhausted it reads nothing, so that the peer is held back.
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>, TransportError> {
        loop {
            match self.receiver.step()? {
                Step::Frame => return Ok(Some(self.receiver.take_frame())),
                Step::Blocked { size_bytes } => {
                    let buffer = self.pool.take(size_bytes).await?;
                    self.receiver.supply(buffer);
                }
                Step::NeedBytes => {
                    let received_size_bytes = self.io.read(self.receiver.space()).await?;
                    if received_size_bytes == 0 {
                        self.receiver.close()?;
                        return Ok(None);
                    }
                    self.receiver.advance(received_size_bytes);
                }
            }
        }
    }
}

// ---------------------------------------------------------------- sending

/// A message frame to be sent. Take one from [`Writer::blank`], so that its memory is used again.
#[derive(Debug, Default)]
pub struct Outgoing {
    pub request_id: u32,
    /// Whether it is the last frame of its message.
    pub last: bool,
    pub control: ControlBuf,
    /// The payload's parts, in order.
    pub payload: Vec<Buf>,
    /// Bytes that go beside it, one-sided. Who moves them, and when, is not the writer's business.
    pub beside: Vec<Beside>,
    /// Bytes that it names and that the peer has in shared memory already: whoever counts payload counts them with it.
    pub landed_size_bytes: usize,
}

/// Bytes that a frame names and does not carry: their MAC goes into its control message as it is sealed.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Where in the control message the MAC has its 32 bytes.
    pub mac_at: usize,
    pub bytes: Buf,
    /// Where in the peer's memory they go; `None`: the peer fetches them.
    pub to: Option<Place>,
}

impl Outgoing {
    /// The bytes of its payload, of those beside it, and of those that landed before it.
    pub fn payload_size_bytes(&self) -> usize {
        let carried = self.payload.iter().map(|part| part.len());
        let beside = self.beside.iter().map(|beside| beside.bytes.len());
        carried.chain(beside).sum::<usize>() + self.landed_size_bytes
    }

    fn size_bytes(&self) -> usize {
        self.control.frame().len() + self.payload.iter().map(|part| part.len()).sum::<usize>()
    }

    /// The memory an empty frame holds.
    fn capacity_size_bytes(&self) -> usize {
        size_of::<Outgoing>()
            + self.control.capacity_size_bytes()
            + self.payload.capacity() * size_of::<Buf>()
            + self.beside.capacity() * size_of::<Beside>()
    }
}

/// Why a frame was not queued.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// [`Writer::flush`] first; the frame is handed back.
    #[error("the writer's queue is full")]
    Full(Box<Outgoing>),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A frame in the queue. It is sealed from the front, as writing gets to it.
#[derive(Debug)]
struct Queued {
    frame: Outgoing,
    size_bytes: usize,
    tag: Option<Tag>,
    /// What was read to seal it, beside its own bytes.
    beside_size_bytes: usize,
    /// How many frames went before it that were pushed after it.
    overtaken: u16,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub frames: u64,
    pub control_size_bytes: usize,
    /// With the bytes beside frames, and those that landed before them.
    pub payload_size_bytes: usize,
}

/// The sending half of a connection.
#[derive(Debug)]
pub struct Writer<W> {
    io: W,
    sealer: Sealer,
    queue: VecDeque<Queued>,
    /// How many frames at the front are sealed, and their size.
    sealed_frames: usize,
    sealed_size_bytes: usize,
    /// How much of the front frame is written.
    written_size_bytes: usize,
    queued_size_bytes: usize,
    written: Written,
    spare: Vec<Outgoing>,
    spare_size_bytes: usize,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(io: W, sealer: Sealer) -> Writer<W> {
        Writer {
            io,
            sealer,
            queue: VecDeque::new(),
            sealed_frames: 0,
            sealed_size_bytes: 0,
            written_size_bytes: 0,
            queued_size_bytes: 0,
            written: Written::default(),
            spare: Vec::new(),
            spare_size_bytes: 0,
        }
    }

    /// The key of this side's tags.
    pub fn bulk_key(&self) -> &BulkKey {
        self.sealer.bulk_key()
    }

    /// What is written to.
    pub fn io_mut(&mut self) -> &mut W {
        &mut self.io
    }

    /// An empty frame to fill and [`Writer::push`].
    pub fn blank(&mut self) -> Outgoing {
        let Some(frame) = self.spare.pop() else { return Outgoing::default() };
        self.spare_size_bytes -= frame.capacity_size_bytes();
        frame
    }

    /// Queues a frame. Nothing is written before [`Writer::flush`] or [`Writer::write`]; frames queued together are written
    /// together.
    pub fn push(&mut self, frame: Outgoing) -> Result<(), PushError> {
        if !self.has_room() {
            return Err(PushError::Full(Box::new(frame)));
        }
        let extent = check(frame.control.control(), &frame.payload)?;
        let size_bytes = frame.size_bytes() + extent.tag_size_bytes();
        self.queued_size_bytes += size_bytes;
        let place = self.place_of(&frame);
        for overtaken in self.queue.range_mut(place..) {
            overtaken.overtaken += 1;
        }
        self.queue.insert(place, Queued { frame, size_bytes, tag: None, beside_size_bytes: 0, overtaken: 0 });
        Ok(())
    }

    /// Where in the queue a frame goes: a small one before those with payload, unless they are of its own message, were sealed, or
    /// were overtaken often enough.
    fn place_of(&self, frame: &Outgoing) -> usize {
        let end = self.queue.len();
        if !frame.payload.is_empty() || frame.control.control().len() > SMALL_SIZE_BYTES_MAX {
            return end;
        }
        let passes = |queued: &&Queued| {
            queued.frame.request_id != frame.request_id && queued.overtaken < OVERTAKEN_MAX
        };
        let first = end - self.queue.range(self.sealed_frames..).rev().take_while(passes).count();
        // Before the first large one, so that small ones stay in the order they came in.
        let small = self.queue.range(first..).take_while(|queued| queued.frame.payload.is_empty()).count();
        first + small
    }

    /// What was written since this was asked the last time.
    pub fn take_written(&mut self) -> Written {
        std::mem::take(&mut self.written)
    }

    /// Whether [`Writer::push`] takes a frame now.
    pub fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_FRAMES_MAX && self.queued_size_bytes < QUEUE_SIZE_BYTES_MAX
    }

    /// Whether everything pushed is written.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn queued_size_bytes(&self) -> usize {
        self.queued_size_bytes
    }

    /// Writes all that is queued. Dropping the future loses nothing: the next call goes on where it stopped.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        while !self.queue.is_empty() {
            self.write_some().await?;
        }
        // A burst leaves no memory behind.
        self.queue.shrink_to(QUEUE_FRAMES_RETAINED);
        Ok(self.io.flush().await?)
    }

    /// Writes some of what is queued, once. Dropping the future loses nothing.
    pub async fn write(&mut self) -> Result<(), TransportError> {
        if !self.queue.is_empty() {
            self.write_some().await?;
        }
        if self.queue.is_empty() {
            // A burst leaves no memory behind.
            self.queue.shrink_to(QUEUE_FRAMES_RETAINED);
            self.io.flush().await?;
        }
        Ok(())
    }

    /// Writes until there is room for one more frame. Dropping the future loses nothing.
    pub async fn make_room(&mut self) -> Result<(), TransportError> {
        while !self.has_room() {
            self.write_some().await?;
        }
        Ok(())
    }

    /// Writes all that is queued, then tells the peer that nothing more comes.
    pub async fn shutdown(&mut self) -> Result<(), TransportError> {
        self.flush().await?;
        Ok(self.io.shutdown().await?)
    }

    /// One write of as many queued frames as fit.
    async fn write_some(&mut self) -> Result<(), TransportError> {
        self.seal_ahead()?;
        let written_size_bytes = std::future::poll_fn(|context| {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = gather(&self.queue, self.sealed_frames, self.written_size_bytes, &mut slices);
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, &slices[..count]));
            Poll::Ready(match written {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            })
        })
        .await?;
        self.retire(written_size_bytes);
        Ok(())
    }

    /// Seals frames from the front, up to a cache's worth and at least one.
    fn seal_ahead(&mut self) -> Result<(), SealError> {
        for queued in self.queue.iter_mut().skip(self.sealed_frames) {
            if self.sealed_frames > 0 && self.sealed_size_bytes + queued.size_bytes > SEALED_SIZE_BYTES_MAX {
                break;
            }
            let Outgoing { request_id, last, control, payload, beside, .. } = &mut queued.frame;
            for Beside { mac_at, bytes, .. } in beside.drain(..) {
                let mut hasher = self.sealer.bulk_key().begin_region();
                hasher.update(&bytes);
                queued.beside_size_bytes += bytes.len();
                if let Some(place) = control.control_mut().get_mut(mac_at..mac_at + TAG_SIZE_BYTES) {
                    place.copy_from_slice(&hasher.finish());
                }
            }
            queued.tag = self.sealer.sign(*request_id, *last, control, payload)?;
            self.sealed_frames += 1;
            self.sealed_size_bytes += queued.size_bytes + queued.beside_size_bytes;
        }
        Ok(())
    }

    /// Drops what is written from the front of the queue.
    fn retire(&mut self, written_size_bytes: usize) {
        self.written_size_bytes += written_size_bytes;
        while let Some(front) = self.queue.front()
            && self.written_size_bytes >= front.size_bytes
        {
            let Some(Queued { mut frame, size_bytes, beside_size_bytes, .. }) = self.queue.pop_front() else {
                break;
            };
            self.written_size_bytes -= size_bytes;
            self.queued_size_bytes -= size_bytes;
            self.sealed_size_bytes -= size_bytes + beside_size_bytes;
            self.sealed_frames -= 1;
            self.written.frames += 1;
            self.written.control_size_bytes += frame.control.control().len();
            self.written.payload_size_bytes += frame.payload_size_bytes() + beside_size_bytes;
            frame.payload.clear();
            frame.landed_size_bytes = 0;
            if self.spare_size_bytes + frame.capacity_size_bytes() <= SPARE_SIZE_BYTES_MAX {
                self.spare_size_bytes += frame.capacity_size_bytes();
                self.spare.push(frame);
            }
        }
    }
}

/// The slices of the first `frames` of the queue, without the first `skip` bytes. Returns how many there are.
fn gather<'a>(
    queue: &'a VecDeque<Queued>,
    frames: usize,
    mut skip: usize,
    slices: &mut [IoSlice<'a>; SLICES_MAX],
) -> usize {
    let parts = queue.iter().take(frames).flat_map(|queued| {
        let payload = queued.frame.payload.iter().map(|part| &part[..]);
        let tag = queued.tag.iter().map(<[u8; TAG_SIZE_BYTES]>::as_slice);
        std::iter::once(queued.frame.control.frame()).chain(payload).chain(tag)
    });
    let mut count = 0;
    for part in parts {
        if skip >= part.len() {
            skip -= part.len();
            continue;
        }
        if count == SLICES_MAX {
            break;
        }
        slices[count] = IoSlice::new(&part[skip..]);
        skip = 0;
        count += 1;
    }
    count
}

// ---------------------------------------------------------------- set-up

/// Sets a connection up from the client's end.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &Key,
    terms: &ClientTerms,
) -> Result<(Channel, ServerInfo), TransportError> {
    connect_asking(stream, key, terms, None, |_| std::future::ready(Ok(()))).await
}

/// As [`connect`], asking for a queue pair beside the stream when this side has one. `accept` is told which one the server answered with, if
/// any, and done before the server learns that the answer came.
pub async fn connect_asking<S: AsyncRead + AsyncWrite + Unpin, F>(
    stream: &mut S,
    key: &Key,
    terms: &ClientTerms,
    own: Option<&QueuePairIdentity>,
    accept: impl FnOnce(Option<QueuePairIdentity>) -> F,
) -> Result<(Channel, ServerInfo), TransportError>
where
    F: Future<Output = Result<(), TransportError>>,
{
    let begun = Instant::now();
    let set_up = async {
        let mut state = AwaitReply::begin_asking(key, terms, nonce()?, begun.elapsed(), own)?;
        let mut sent = stream.write_all(state.connect()).await;
        loop {
            // A server that refuses a key closes at once, so the write may fail as well as the read.
            let received = match std::mem::replace(&mut sent, Ok(())) {
                Ok(()) => stream.read(state.space()).await,
                Err(error) => Err(error),
            };
            let received_size_bytes = match received {
                Ok(0) => return Err(state.close().into()),
                Ok(received_size_bytes) => received_size_bytes,
                Err(error) if is_closed(&error) => return Err(state.close().into()),
                Err(error) => return Err(error.into()),
            };
            state = match state.advance(received_size_bytes, begun.elapsed())? {
                ReplyStep::NeedBytes(state) => state,
                ReplyStep::Established(established) => {
                    accept(established.server.queue_pair).await?;
                    stream.write_all(&established.confirmation).await?;
                    return Ok((established.channel, established.server));
                }
            };
        }
    };
    timeout_at(begun + SETUP_TIMEOUT, set_up).await.unwrap_or(Err(SetupError::TimedOut.into()))
}

/// Sets a connection up from the server's end. The permit is given back when it is done.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    keys: &KeyRing,
    terms: &ServerTerms,
    permit: SetupPermit,
) -> Result<(Channel, ClientInfo), TransportError> {
    accept_offering(stream, (keys, terms), permit, |_| None).await
}

/// As [`accept`]; `offer` makes a queue pair for a client that asks for one.
pub async fn accept_offering<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    (keys, terms): (&KeyRing, &ServerTerms),
    permit: SetupPermit,
    mut offer: impl FnMut(&QueuePairIdentity) -> Option<QueuePairIdentity>,
) -> Result<(Channel, ClientInfo), TransportError> {
    let begun = Instant::now();
    let set_up = async {
        let nonce = nonce()?;
        let mut state = AwaitConnect::begin(permit, begun.elapsed());
        let mut confirming = loop {
            let received_size_bytes = stream.read(state.space()).await?;
            if received_size_bytes == 0 {
                return Err(state.close().into());
            }
            let elapsed = begun.elapsed();
            match state.advance_offering(received_size_bytes, elapsed, (keys, terms), &nonce, &mut offer)? {
                ConnectStep::NeedBytes(waiting) => state = waiting,
                ConnectStep::Answered(answered) => break answered,
                ConnectStep::Refused(refusal) => {
                    stream.write_all(refusal.reply()).await?;
                    stream.shutdown().await?;
                    return Err(refusal.error().into());
                }
            }
        };
        stream.write_all(confirming.reply()).await?;
        let mut received_size_bytes = 0;
        loop {
            confirming = match confirming.advance(received_size_bytes, begun.elapsed())? {
                ConfirmationStep::NeedBytes(waiting) => waiting,
                ConfirmationStep::Accepted(accepted) => return Ok((accepted.channel, accepted.client)),
            };
            received_size_bytes = stream.read(confirming.space()).await?;
            if received_size_bytes == 0 {
                return Err(confirming.close().into());
            }
        }
    };
    timeout_at(begun + SETUP_TIMEOUT, set_up).await.unwrap_or(Err(SetupError::TimedOut.into()))
}

//= MKV-CONN-2
fn nonce() -> Result<Nonce, io::Error> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

/// Whether an error says that the peer closed the connection.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}
