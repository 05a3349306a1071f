//! Receiving: turns a byte stream into verified frames.
//!
//! Owns one direction's keys, the sequence number that must come next, and the bytes of at most one frame beside a
//! small read-ahead. Driven from outside: put bytes into [`Receiver::space`], say how many with
//! [`Receiver::advance`], then take frames with [`Receiver::next_frame`] until it needs more. Invariants:
//! - lengths are checked before memory is reserved for them, the MAC before anything else in the frame is acted on;
//! - a payload's bytes go into a pooled buffer once, are hashed while they are in cache, and leave only after their tag held;
//! - after an error nothing but that error ever comes out.
//!
//! It does not decode control messages; whoever takes a frame must close the connection when one is malformed.
//!
//! Small frames are read many at a time through the read-ahead. While large payloads come, reads before a payload are
//! kept as short as the next head is expected to be, so that the payload itself is read straight into its buffer.

use memkv_wire::frame::{
    Extent, HEADER_SIZE_BYTES, Header, Kind, MAGIC, PAYLOAD_SIZE_BYTES_MAX, TAG_SIZE_BYTES, VERSION,
};
use memkv_wire::mac::{BulkHasher, BulkKey, ControlMac, Tag};
use zerocopy::IntoBytes;

use crate::buf::{BUFFER_SIZE_BYTES_MAX, Buf, BufMut, BufPool, PoolError};
use crate::error::{FrameError, TransportError};
use crate::planted::{self, Bug};
use crate::sums::{Pieces, Sum, Sums};

/// How much is read ahead of what is needed.
pub const READ_AHEAD_SIZE_BYTES: usize = 16 * 1024;
/// Missing bytes of a control message or payload are read straight into their place when there are at least so many.
const DIRECT_SIZE_BYTES_MIN: usize = 4096;
/// After a payload of at least this size, the next one is expected to be alike.
const LARGE_PAYLOAD_SIZE_BYTES: usize = 16 * 1024;
/// The memory for control messages that an idle connection keeps at most.
const CONTROL_RETAINED_SIZE_BYTES: usize = 16 * 1024;

const WORD: usize = size_of::<u64>();

const _: () = assert!(PAYLOAD_SIZE_BYTES_MAX <= BUFFER_SIZE_BYTES_MAX);
const _: () = assert!(READ_AHEAD_SIZE_BYTES >= HEADER_SIZE_BYTES + DIRECT_SIZE_BYTES_MIN + TAG_SIZE_BYTES);

/// A verified frame. The control message stays where it was received until the next one is asked for.
#[derive(Debug)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub request_id: u32,
    /// Whether it is the last one of its message.
    pub last: bool,
    /// Whole words, aligned to 8 bytes, not yet decoded.
    pub control: &'a [u8],
    pub payload: Option<Buf>,
    /// The checksums of the payload's pieces, if they were asked for ([`Receiver::sum`]): all of them or none.
    pub sums: &'a [Sum],
}

/// What a receiver has, or lacks.
#[derive(Debug)]
pub enum Next<'a> {
    Frame(Frame<'a>),
    /// Nothing more in the bytes so far.
    NeedBytes,
    /// The pool cannot hold the payload that comes. Nothing is read on until there is memory: ask again later, or
    /// [`Receiver::supply`] a buffer of this size.
    Blocked {
        size_bytes: usize,
    },
}

/// [`Next`] without the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Frame,
    NeedBytes,
    Blocked { size_bytes: usize },
}

/// The keys and the order of one direction's frames.
#[derive(Debug)]
pub struct Opener {
    control_mac: ControlMac,
    bulk_key: BulkKey,
    kind: Kind,
    sequence: u64,
}

impl Opener {
    pub(crate) fn new(control_mac: ControlMac, bulk_key: BulkKey, kind: Kind, sequence: u64) -> Opener {
        Opener { control_mac, bulk_key, kind, sequence }
    }

    /// Checks everything about a frame but its payload.
    //= MKV-FRAME-5
    //= MKV-FRAME-8
    //= MKV-FRAME-4
    //= MKV-CONN-3
    //= MKV-CONN-10
    fn open(&mut self, header: &Header, control: &[u8]) -> Result<(), FrameError> {
        let verified = self.control_mac.verify(&[header.signed_bytes(), control], &header.mac);
        if !planted::is(Bug::ControlMacUnchecked) {
            verified.map_err(|_| FrameError::ControlMac)?;
        }
        if header.version != VERSION {
            return Err(FrameError::Version { found: header.version, agreed: VERSION });
        }
        if header.kind() != self.kind {
            return Err(FrameError::Kind { found: header.kind(), expected: self.kind });
        }
        if header.sequence.get() != self.sequence && !planted::is(Bug::SequenceUnchecked) {
            return Err(FrameError::Sequence { found: header.sequence.get(), expected: self.sequence });
        }
        if header.credits.get() != 0 {
            return Err(FrameError::Credits { credits: header.credits.get() });
        }
        if control.is_empty() {
            return Err(FrameError::NoControl);
        }
        self.sequence += 1;
        Ok(())
    }
}

/// Checks what must be so before a frame's lengths mean anything, then the lengths.
//= MKV-FRAME-2
//= MKV-LIM-1
pub(crate) fn extent_of(header: &Header) -> Result<Extent, FrameError> {
    if header.magic.get() != MAGIC {
        return Err(FrameError::Magic { found: header.magic.get() });
    }
    Ok(header.extent()?)
}

/// Where the frame in progress stands.
#[derive(Debug)]
enum Stage {
    Head,
    Control {
        header: Header,
        extent: Extent,
        filled: usize,
    },
    /// The head is verified; memory for the payload is missing.
    Payload {
        header: Header,
        extent: Extent,
    },
    Filling {
        header: Header,
        payload: BufMut,
        filled: usize,
    },
    Ready {
        header: Header,
        payload: Option<Buf>,
    },
    Failed(FrameError),
}

/// Receives one direction of a connection.
#[derive(Debug)]
pub struct Receiver {
    opener: Opener,
    pool: BufPool,
    ahead: ReadAhead,
    stage: Stage,
    /// The tag in the making while a payload is filled; fresh at all other times. Beside the stage, which moves often.
    hasher: BulkHasher,
    /// As the tag, and fresh when a frame's head is whole.
    sums: Sums,
    /// The control message of the frame in progress, in words so that it is aligned.
    control: Vec<u64>,
    control_size_bytes: usize,
    /// How long the next head is expected to be, while large payloads come.
    head_expected_size_bytes: Option<usize>,
}

impl Receiver {
    /// `leftover` is what came behind the last hello frame.
    pub(crate) fn new(opener: Opener, pool: BufPool, leftover: &[u8]) -> Receiver {
        Receiver {
            hasher: opener.bulk_key.begin(),
            sums: Sums::default(),
            opener,
            pool,
            ahead: ReadAhead::holding(leftover),
            stage: Stage::Head,
            control: Vec::new(),
            control_size_bytes: 0,
            head_expected_size_bytes: None,
        }
    }

    /// Makes the checksums of payloads' pieces as their bytes come.
    pub fn sum(&mut self, pieces: Pieces) {
        self.sums.of(pieces);
    }

    /// Where payloads take their memory from.
    pub fn pool(&self) -> &BufPool {
        &self.pool
    }

    /// The key of the peer's tags.
    pub fn bulk_key(&self) -> &BulkKey {
        &self.opener.bulk_key
    }

    /// Where to put the bytes that come next. Empty while a frame waits to be taken, while the pool is exhausted, and
    /// after an error.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.stage {
            Stage::Head => {
                let wanted = self.head_expected_size_bytes.unwrap_or(READ_AHEAD_SIZE_BYTES);
                self.ahead.space(wanted)
            }
            Stage::Control { extent, filled, .. } => {
                if extent.control_size_bytes - *filled >= DIRECT_SIZE_BYTES_MIN {
                    return &mut self.control.as_mut_bytes()[*filled..extent.control_size_bytes];
                }
                self.ahead.space(READ_AHEAD_SIZE_BYTES)
            }
            Stage::Filling { payload, filled, .. } => {
                if payload.len() - *filled >= DIRECT_SIZE_BYTES_MIN {
                    return &mut payload[*filled..];
                }
                let expected = self
                    .head_expected_size_bytes
                    .map_or(READ_AHEAD_SIZE_BYTES, |head| payload.len() - *filled + TAG_SIZE_BYTES + head);
                self.ahead.space(expected)
            }
            Stage::Payload { .. } | Stage::Ready { .. } | Stage::Failed(_) => &mut [],
        }
    }

    /// Says that the first `received_size_bytes` of the last [`Receiver::space`] are filled.
    ///
    /// # Panics
    /// If that is more than the space was.
    pub fn advance(&mut self, received_size_bytes: usize) {
        match &mut self.stage {
            Stage::Control { extent, filled, .. }
                if extent.control_size_bytes - *filled >= DIRECT_SIZE_BYTES_MIN =>
            {
                *filled += received_size_bytes;
                assert!(*filled <= extent.control_size_bytes);
            }
            Stage::Filling { payload, filled, .. } if payload.len() - *filled >= DIRECT_SIZE_BYTES_MIN => {
                let end = *filled + received_size_bytes;
                hash(&mut self.hasher, &mut self.sums, &payload[..end], *filled);
                *filled = end;
            }
            Stage::Head | Stage::Control { .. } | Stage::Filling { .. } => {
                self.ahead.advance(received_size_bytes)
            }
            Stage::Payload { .. } | Stage::Ready { .. } | Stage::Failed(_) => {
                assert_eq!(received_size_bytes, 0)
            }
        }
    }

    /// The next frame in the bytes so far.
    pub fn next_frame(&mut self) -> Result<Next<'_>, TransportError> {
        match self.step()? {
            Step::Frame => Ok(Next::Frame(self.take_frame())),
            Step::NeedBytes => Ok(Next::NeedBytes),
            Step::Blocked { size_bytes } => Ok(Next::Blocked { size_bytes }),
        }
    }

    /// Gives the buffer that [`Next::Blocked`] asked for. One of another size is dropped, and changes nothing.
    pub fn supply(&mut self, buffer: BufMut) {
        if let Stage::Payload { header, extent } = &self.stage
            && buffer.len() == extent.payload_size_bytes
        {
            self.stage = self.fill(*header, buffer);
        }
    }

    /// The bytes of a frame that is not whole yet; 0 between two frames.
    pub fn pending_size_bytes(&self) -> usize {
        self.ahead.len()
            + match &self.stage {
                Stage::Head | Stage::Ready { .. } | Stage::Failed(_) => 0,
                Stage::Control { filled, .. } => HEADER_SIZE_BYTES + filled,
                Stage::Payload { extent, .. } => HEADER_SIZE_BYTES + extent.control_size_bytes,
                Stage::Filling { filled, .. } => HEADER_SIZE_BYTES + self.control_size_bytes + filled,
            }
    }

    /// Says that the stream ended. An error if it ended inside a frame.
    pub fn close(&mut self) -> Result<(), FrameError> {
        if let Stage::Failed(error) = &self.stage {
            return Err(*error);
        }
        let received_size_bytes = self.pending_size_bytes();
        if received_size_bytes == 0 {
            Ok(())
        } else {
            Err(self.fail(FrameError::Truncated { received_size_bytes }))
        }
    }

    /// Works on the bytes so far, up to the next frame. [`Receiver::take_frame`] must follow [`Step::Frame`].
    pub(crate) fn step(&mut self) -> Result<Step, TransportError> {
        loop {
            let stage = std::mem::replace(&mut self.stage, Stage::Head);
            let (stage, step) = match stage {
                Stage::Head => self.begin()?,
                Stage::Control { header, extent, filled } => self.continue_control(header, extent, filled)?,
                Stage::Payload { header, extent } => match self.pool.try_take(extent.payload_size_bytes) {
                    Ok(buffer) => (self.fill(header, buffer), None),
                    Err(PoolError::Exhausted) => {
                        let size_bytes = extent.payload_size_bytes;
                        (Stage::Payload { header, extent }, Some(Step::Blocked { size_bytes }))
                    }
                    Err(error @ PoolError::TooLarge { .. }) => {
                        self.stage = Stage::Payload { header, extent };
                        return Err(error.into());
                    }
                },
                Stage::Filling { header, payload, filled } => {
                    self.continue_payload(header, payload, filled)?
                }
                stage @ Stage::Ready { .. } => (stage, Some(Step::Frame)),
                Stage::Failed(error) => return Err(self.fail(error).into()),
            };
            self.stage = stage;
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// The frame that [`Step::Frame`] announced.
    pub(crate) fn take_frame(&mut self) -> Frame<'_> {
        let Stage::Ready { header, payload } = std::mem::replace(&mut self.stage, Stage::Head) else {
            unreachable!("a frame is taken only after it was announced");
        };
        Frame {
            kind: header.kind(),
            request_id: header.id.get(),
            last: header.flags().last(),
            control: &self.control.as_bytes()[..self.control_size_bytes],
            payload,
            sums: self.sums.made(),
        }
    }

    fn begin(&mut self) -> Result<(Stage, Option<Step>), FrameError> {
        let Some(header) = Header::read(self.ahead.bytes()) else {
            // Whatever was in the last message is done with: a rare long one leaves no memory behind.
            if self.control.len() > CONTROL_RETAINED_SIZE_BYTES / WORD {
                self.control = Vec::new();
            }
            return Ok((Stage::Head, Some(Step::NeedBytes)));
        };
        self.ahead.consume(HEADER_SIZE_BYTES);
        let extent = extent_of(&header).map_err(|error| self.fail(error))?;
        self.reserve_control(extent.control_size_bytes);
        Ok((Stage::Control { header, extent, filled: 0 }, None))
    }

    fn continue_control(
        &mut self,
        header: Header,
        extent: Extent,
        mut filled: usize,
    ) -> Result<(Stage, Option<Step>), FrameError> {
        filled += self.ahead.move_into(&mut self.control.as_mut_bytes()[filled..extent.control_size_bytes]);
        if filled < extent.control_size_bytes {
            return Ok((Stage::Control { header, extent, filled }, Some(Step::NeedBytes)));
        }
        let control = &self.control.as_bytes()[..extent.control_size_bytes];
        self.opener.open(&header, control).map_err(|error| self.fail(error))?;
        self.sums.begin(&self.control.as_bytes()[..extent.control_size_bytes], extent.payload_size_bytes);
        let large = extent.payload_size_bytes >= LARGE_PAYLOAD_SIZE_BYTES;
        self.head_expected_size_bytes = large.then_some(HEADER_SIZE_BYTES + extent.control_size_bytes);
        let stage = match extent.payload_size_bytes {
            0 => Stage::Ready { header, payload: None },
            _ => Stage::Payload { header, extent },
        };
        Ok((stage, None))
    }

    fn continue_payload(
        &mut self,
        header: Header,
        mut payload: BufMut,
        mut filled: usize,
    ) -> Result<(Stage, Option<Step>), FrameError> {
        let moved = self.ahead.move_into(&mut payload[filled..]);
        hash(&mut self.hasher, &mut self.sums, &payload[..filled + moved], filled);
        filled += moved;
        let tag: Option<Tag> = match payload.len() - filled {
            0 => self.ahead.bytes().first_chunk().copied(),
            _ => None,
        };
        let Some(tag) = tag else {
            return Ok((Stage::Filling { header, payload, filled }, Some(Step::NeedBytes)));
        };
        self.ahead.consume(TAG_SIZE_BYTES);
        //= MKV-FRAME-6
        let hasher = std::mem::replace(&mut self.hasher, self.opener.bulk_key.begin());
        let verified = hasher.verify(&tag);
        if !planted::is(Bug::PayloadTagUnchecked) {
            verified.map_err(|_| self.fail(FrameError::PayloadTag))?;
        }
        Ok((Stage::Ready { header, payload: Some(payload.freeze()) }, None))
    }

    fn fill(&mut self, header: Header, payload: BufMut) -> Stage {
        self.hasher.update(header.as_bytes());
        Stage::Filling { header, payload, filled: 0 }
    }

    /// Makes room for a control message whose length was checked.
    fn reserve_control(&mut self, size_bytes: usize) {
        let words = size_bytes.div_ceil(WORD);
        if self.control.len() < words {
            self.control.resize(words, 0);
        }
        self.control_size_bytes = size_bytes;
    }

    /// Remembers what ended the connection.
    fn fail(&mut self, error: FrameError) -> FrameError {
        self.stage = Stage::Failed(error);
        error
    }
}

/// Authenticates what came of a payload behind `before`, and checksums the pieces that are whole by it: each while it is in cache.
fn hash(hasher: &mut BulkHasher, sums: &mut Sums, filled: &[u8], mut before: usize) {
    while let Some(end) = sums.end().filter(|end| *end <= filled.len()) {
        hasher.update(&filled[before..end]);
        sums.filled(&filled[..end]);
        before = end;
    }
    hasher.update(&filled[before..]);
}

/// Bytes received ahead of their use.
struct ReadAhead {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    fn holding(bytes: &[u8]) -> ReadAhead {
        let mut memory = vec![0; READ_AHEAD_SIZE_BYTES.max(bytes.len())].into_boxed_slice();
        memory[..bytes.len()].copy_from_slice(bytes);
        ReadAhead { memory, start: 0, end: bytes.len() }
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Room behind the bytes that are there, for `wanted` bytes altogether or as many as fit.
    fn space(&mut self, wanted: usize) -> &mut [u8] {
        if self.start != 0 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // What was expected is there and was not enough: the expectation is wrong.
        let end = if wanted > self.end { wanted.min(self.memory.len()) } else { self.memory.len() };
        &mut self.memory[self.end..end]
    }

    fn advance(&mut self, received_size_bytes: usize) {
        self.end += received_size_bytes;
        assert!(self.end <= self.memory.len());
    }

    fn consume(&mut self, size_bytes: usize) {
        self.start += size_bytes;
        debug_assert!(self.start <= self.end);
    }

    /// Moves as many bytes as both sides have room for.
    fn move_into(&mut self, place: &mut [u8]) -> usize {
        let count = place.len().min(self.len());
        place[..count].copy_from_slice(&self.memory[self.start..][..count]);
        self.start += count;
        count
    }
}

impl std::fmt::Debug for ReadAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadAhead({} bytes)", self.len())
    }
}
