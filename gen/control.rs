//! Control messages as bytes: [`Message`] to read one, [`ControlBuf`] to write one.
//!
//! A message is one segment of whole words without a segment table; both kinds of buffer say nothing about what
//! is in them before the generated `decode` and `encode` did.

use zerocopy::IntoBytes;

use crate::error::{DecodeError, EncodeError};
use crate::layout::FRAME_HEADER_SIZE_BYTES;
use crate::list::List;
use crate::read::{Struct, Walk};
use crate::write::{Measure, Out};
use crate::{Piece, PieceWhich};

const WORD: usize = 8;
const HEAD_WORDS: usize = FRAME_HEADER_SIZE_BYTES / WORD;

/// The bytes of a message, not yet decoded. Their alignment does not matter.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    segment: &'a [u8],
}

impl<'a> Message<'a> {
    pub fn new(segment: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        if !segment.len().is_multiple_of(WORD) {
            return Err(DecodeError::NotWholeWords { length: segment.len() });
        }
        if segment.is_empty() {
            return Err(DecodeError::Empty);
        }
        Ok(Message { segment })
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.segment
    }

    pub(crate) fn root<T: Struct<'a>>(&self, size_bytes_max: usize) -> Result<T, DecodeError> {
        if self.segment.len() > size_bytes_max {
            return Err(DecodeError::TooLong { length: self.segment.len(), max: size_bytes_max });
        }
        Walk::root(self.segment)
    }
}

/// A buffer to encode messages into, again and again: room for a frame's header, then the control message, with
/// nothing between them. It grows to the largest message it ever held and never shrinks.
#[derive(Debug)]
pub struct ControlBuf {
    /// Words keep the message aligned; their bytes are in wire order, whatever the machine's is.
    words: Vec<u64>,
}

impl ControlBuf {
    pub fn new() -> ControlBuf {
        ControlBuf { words: vec![0; HEAD_WORDS] }
    }

    /// With room for messages of up to `control_size_bytes`.
    pub fn with_capacity(control_size_bytes: usize) -> ControlBuf {
        let mut words = Vec::with_capacity(HEAD_WORDS + control_size_bytes.div_ceil(WORD));
        words.resize(HEAD_WORDS, 0);
        ControlBuf { words }
    }

    /// The memory it holds.
    pub fn capacity_size_bytes(&self) -> usize {
        self.words.capacity() * WORD
    }

    /// The encoded message; empty before the first one.
    pub fn control(&self) -> &[u8] {
        self.words.as_bytes().get(FRAME_HEADER_SIZE_BYTES..).unwrap_or_default()
    }

    /// The room for the frame's header, zeroed by every encoding.
    pub fn head_mut(&mut self) -> &mut [u8; FRAME_HEADER_SIZE_BYTES] {
        let head = self.words.as_mut_bytes().first_chunk_mut();
        head.expect("a control buffer always has room for the header")
    }

    /// The encoded message, to put bytes in that were not known when it was encoded.
    pub fn control_mut(&mut self) -> &mut [u8] {
        self.words.as_mut_bytes().get_mut(FRAME_HEADER_SIZE_BYTES..).unwrap_or_default()
    }

    /// Where in the encoded message these bytes are, which a decoded view of it borrows.
    pub fn place_of(&self, part: &[u8]) -> Option<usize> {
        let at = part.as_ptr().addr().checked_sub(self.control().as_ptr().addr())?;
        at.checked_add(part.len()).filter(|end| *end <= self.control().len()).map(|_| at)
    }

    /// Where in the encoded message the MACs of these pieces are, which are a decoded view of it.
    pub fn macs_of<'a>(&'a self, pieces: List<'a, Piece<'a>>) -> impl Iterator<Item = usize> + 'a {
        pieces.iter().filter_map(|piece| match piece.which {
            PieceWhich::Region(region) => self.place_of(region.mac?),
            PieceWhich::Inline | PieceWhich::Unknown(_) => None,
        })
    }

    /// Header and message, contiguous.
    pub fn frame(&self) -> &[u8] {
        self.words.as_bytes()
    }

    /// The encoded message, to be decoded. Fails only before the first encoding.
    pub fn message(&self) -> Result<Message<'_>, DecodeError> {
        Message::new(self.control())
    }

    pub(crate) fn encode<'a, T: Struct<'a>>(
        &mut self,
        root: &T,
        size_bytes_max: usize,
    ) -> Result<(), EncodeError> {
        let words = Measure::message(root)?;
        if words * WORD > size_bytes_max {
            return Err(EncodeError::TooLong { length: words * WORD, max: size_bytes_max });
        }
        self.words.clear();
        self.words.resize(HEAD_WORDS + words, 0);
        Out::message(root, self.words[HEAD_WORDS..].as_mut_bytes());
        Ok(())
    }
}

impl Clone for ControlBuf {
    fn clone(&self) -> ControlBuf {
        ControlBuf { words: self.words.clone() }
    }

    /// Uses the memory that is there.
    fn clone_from(&mut self, source: &ControlBuf) {
        self.words.clone_from(&source.words);
    }
}

impl Default for ControlBuf {
    fn default() -> ControlBuf {
        ControlBuf::new()
    }
}
