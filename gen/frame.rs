//! The frame header: 64 bytes before every control message.
//!
//! Owns the layout and the typed view of it. A [`Header`] is plain bytes: reading one checks nothing, so that the MAC
//! can be verified over exactly what arrived. Lengths are checked against their limits by [`Header::extent`], the only
//! thing a receiver may look at before the MAC held; magic, kind, version and sequence are checked by the transport.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{layout, limits};

/// The size of a header, in bytes.
pub const HEADER_SIZE_BYTES: usize = layout::FRAME_HEADER_SIZE_BYTES;
/// The size of a payload's tag, in bytes. The tag is there exactly when the payload is not empty.
pub const TAG_SIZE_BYTES: usize = layout::FRAME_TAG_SIZE_BYTES;
/// The part of the header that is under the MAC: everything before the MAC itself.
pub const SIGNED_SIZE_BYTES: usize = layout::FRAME_MAC_OFFSET;
/// The bytes `MKV1`.
pub const MAGIC: u32 = layout::FRAME_MAGIC;
/// The version this crate speaks.
pub const VERSION: u8 = layout::PROTOCOL_VERSION;
/// A control message is made of words of this size.
pub const WORD_SIZE_BYTES: usize = 8;
/// The longest control message of one frame.
pub const CONTROL_SIZE_BYTES_MAX: usize = limits::CONTROL_SIZE_BYTES_MAX as usize;
/// The longest payload of one frame.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = limits::PAYLOAD_SIZE_BYTES_MAX as usize;
/// The longest hello frame, header included.
pub const HELLO_SIZE_BYTES_MAX: usize = limits::HELLO_SIZE_BYTES_MAX as usize;

/// A frame's header as it is on the wire.
//= MKV-FRAME-1
//= MKV-FRAME-3
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    pub magic: U32,
    pub version: u8,
    /// See [`Kind`].
    pub kind: u8,
    /// See [`Flags`].
    pub flags: U16,
    pub control_words: U32,
    /// The key id in hello frames, the request id in all others.
    pub id: U32,
    pub payload_length: U32,
    /// Receive credits granted to the peer; 0 on byte streams.
    pub credits: U32,
    pub sequence: U64,
    pub mac: [u8; 32],
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_SIZE_BYTES);
    assert!(offset_of!(Header, magic) == layout::FRAME_MAGIC_OFFSET);
    assert!(offset_of!(Header, version) == layout::FRAME_VERSION_OFFSET);
    assert!(offset_of!(Header, kind) == layout::FRAME_KIND_OFFSET);
    assert!(offset_of!(Header, flags) == layout::FRAME_FLAGS_OFFSET);
    assert!(offset_of!(Header, control_words) == layout::FRAME_CONTROL_WORDS_OFFSET);
    assert!(offset_of!(Header, id) == layout::FRAME_ID_OFFSET);
    assert!(offset_of!(Header, payload_length) == layout::FRAME_PAYLOAD_LENGTH_OFFSET);
    assert!(offset_of!(Header, credits) == layout::FRAME_CREDITS_OFFSET);
    assert!(offset_of!(Header, sequence) == layout::FRAME_SEQUENCE_OFFSET);
    assert!(offset_of!(Header, mac) == layout::FRAME_MAC_OFFSET);
    assert!(HEADER_SIZE_BYTES.is_multiple_of(WORD_SIZE_BYTES));
    assert!(CONTROL_SIZE_BYTES_MAX.is_multiple_of(WORD_SIZE_BYTES));
};

/// How many bytes follow a header. Both lengths are within their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub control_size_bytes: usize,
    pub payload_size_bytes: usize,
}

impl Extent {
    /// Everything after the header: control message, payload and the payload's tag.
    pub fn size_bytes(self) -> usize {
        self.control_size_bytes + self.payload_size_bytes + self.tag_size_bytes()
    }

    /// The tag's size: nothing when there is no payload.
    pub fn tag_size_bytes(self) -> usize {
        if self.payload_size_bytes == 0 { 0 } else { TAG_SIZE_BYTES }
    }
}

/// A length in a header that exceeds its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    #[error("the frame announces {words} control words, more than {CONTROL_SIZE_BYTES_MAX} bytes")]
    ControlTooLong { words: u32 },
    #[error("the frame announces {size_bytes} payload bytes, more than {PAYLOAD_SIZE_BYTES_MAX}")]
    PayloadTooLong { size_bytes: u32 },
}

impl Header {
    /// A header that lacks its MAC.
    pub fn new(kind: Kind, flags: Flags, id: u32, extent: Extent, sequence: u64) -> Header {
        debug_assert!(extent.control_size_bytes <= CONTROL_SIZE_BYTES_MAX);
        debug_assert!(extent.control_size_bytes.is_multiple_of(WORD_SIZE_BYTES));
        debug_assert!(extent.payload_size_bytes <= PAYLOAD_SIZE_BYTES_MAX);
        Header {
            magic: U32::new(MAGIC),
            version: VERSION,
            kind: kind.code(),
            flags: U16::new(flags.0),
            control_words: U32::new((extent.control_size_bytes / WORD_SIZE_BYTES) as u32),
            id: U32::new(id),
            payload_length: U32::new(extent.payload_size_bytes as u32),
            credits: U32::new(0),
            sequence: U64::new(sequence),
            mac: [0; 32],
        }
    }

    /// The header at the front of `bytes`, if all of it is there.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        Header::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// The bytes under the control MAC, before the control message.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.as_bytes()[..SIGNED_SIZE_BYTES]
    }

    pub fn kind(&self) -> Kind {
        Kind::from_code(self.kind)
    }

    pub fn flags(&self) -> Flags {
        Flags(self.flags.get())
    }

    /// The lengths of what follows, once they are known to be within their limits.
    //= MKV-LIM-1
    pub fn extent(&self) -> Result<Extent, ExtentError> {
        let words = self.control_words.get();
        if words as usize > CONTROL_SIZE_BYTES_MAX / WORD_SIZE_BYTES {
            return Err(ExtentError::ControlTooLong { words });
        }
        let size_bytes = self.payload_length.get();
        if size_bytes as usize > PAYLOAD_SIZE_BYTES_MAX {
            return Err(ExtentError::PayloadTooLong { size_bytes });
        }
        Ok(Extent {
            control_size_bytes: words as usize * WORD_SIZE_BYTES,
            payload_size_bytes: size_bytes as usize,
        })
    }
}

/// What a frame belongs to. Unknown values are kept, so that an error can name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Session set-up.
    Hello,
    /// From the side that connected.
    Request,
    /// From the side that accepted.
    Response,
    Unknown(u8),
}

impl Kind {
    pub const fn code(self) -> u8 {
        match self {
            Kind::Hello => 1,
            Kind::Request => 2,
            Kind::Response => 3,
            Kind::Unknown(code) => code,
        }
    }

    pub const fn from_code(code: u8) -> Kind {
        match code {
            1 => Kind::Hello,
            2 => Kind::Request,
            3 => Kind::Response,
            code => Kind::Unknown(code),
        }
    }
}

/// The flag bits of a header.
//= MKV-FRAME-7
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// Set on the last frame of a message.
    pub const LAST: u16 = layout::FRAME_FLAG_LAST;

    pub const fn new(last: bool) -> Flags {
        Flags(if last { Flags::LAST } else { 0 })
    }

    pub const fn last(self) -> bool {
        self.0 & Flags::LAST != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameKind;

    //= MKV-FRAME-1 test
    #[test]
    fn header_bytes_are_those_of_the_specification() {
        let extent = Extent { control_size_bytes: 0x0102 * 8, payload_size_bytes: 0x0005_0607 };
        let mut header =
            Header::new(Kind::Response, Flags::new(true), 0x1112_1314, extent, 0x2122_2324_2526_2728);
        header.credits = U32::new(0x3132_3334);
        header.mac = [0xee; 32];
        let mut expected = Vec::new();
        expected.extend_from_slice(b"MKV1");
        expected.extend_from_slice(&[1, 3, 1, 0]);
        expected.extend_from_slice(&[0x02, 0x01, 0, 0]);
        expected.extend_from_slice(&[0x14, 0x13, 0x12, 0x11]);
        expected.extend_from_slice(&[0x07, 0x06, 0x05, 0]);
        expected.extend_from_slice(&[0x34, 0x33, 0x32, 0x31]);
        expected.extend_from_slice(&[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
        expected.extend_from_slice(&[0xee; 32]);
        assert_eq!(header.as_bytes(), expected);
        assert_eq!(Header::read(&expected), Some(header));
        assert_eq!(Header::read(&expected[..63]), None);
        assert_eq!(header.signed_bytes(), &expected[..32]);
    }

    //= MKV-LIM-1 test
    #[test]
    fn lengths_beyond_their_limits_are_refused() {
        let extent = Extent { control_size_bytes: 8, payload_size_bytes: 0 };
        let mut header = Header::new(Kind::Request, Flags::new(true), 1, extent, 0);
        assert_eq!(header.extent(), Ok(extent));
        assert_eq!(extent.size_bytes(), 8);
        header.control_words = U32::new(32 * 1024);
        assert_eq!(header.extent().map(|extent| extent.control_size_bytes), Ok(262_144));
        for words in [32 * 1024 + 1, 1 << 29, u32::MAX] {
            header.control_words = U32::new(words);
            assert_eq!(header.extent(), Err(ExtentError::ControlTooLong { words }));
        }
        header.control_words = U32::new(0);
        header.payload_length = U32::new(1 << 20);
        assert_eq!(header.extent().map(Extent::size_bytes), Ok((1 << 20) + 32));
        for size_bytes in [(1 << 20) + 1, u32::MAX] {
            header.payload_length = U32::new(size_bytes);
            assert_eq!(header.extent(), Err(ExtentError::PayloadTooLong { size_bytes }));
        }
    }

    //= MKV-FRAME-7 test
    #[test]
    fn unknown_flags_are_ignored_and_unknown_kinds_are_kept() {
        assert!(Flags(0xffff).last());
        assert!(!Flags(0xfffe).last());
        assert_eq!(Flags::new(true), Flags(1));
        for code in 0..=255 {
            assert_eq!(Kind::from_code(code).code(), code);
        }
        assert_eq!(Kind::from_code(9), Kind::Unknown(9));
        for (kind, generated) in [
            (Kind::Hello, FrameKind::Hello),
            (Kind::Request, FrameKind::Request),
            (Kind::Response, FrameKind::Response),
        ] {
            assert_eq!(u16::from(kind.code()), generated.code());
        }
    }
}
