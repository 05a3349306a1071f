// Places, sizes and values in the frame header and in stored headers.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

/// The version of this specification.
pub const PROTOCOL_VERSION: u8 = 1;

/// The bytes `MKV1`.
/// \[MKV-FRAME-2\] A receiver MUST close the connection when the first four bytes of a frame are anything else.
pub const FRAME_MAGIC: u32 = 0x31564b4d;

pub const FRAME_MAGIC_OFFSET: usize = 0;

/// \[MKV-FRAME-3\] The MAC is checked before the version. Bytes 0 to 31 and the place of the MAC never change in any version.
pub const FRAME_VERSION_OFFSET: usize = 4;

pub const FRAME_KIND_OFFSET: usize = 5;

pub const FRAME_FLAGS_OFFSET: usize = 6;

pub const FRAME_CONTROL_WORDS_OFFSET: usize = 8;

/// The key id in hello frames, the request id in all others.
pub const FRAME_ID_OFFSET: usize = 12;

pub const FRAME_PAYLOAD_LENGTH_OFFSET: usize = 16;

/// Not used: a queue pair's credits ride beside its frames, see `QueuePair`. \[MKV-FRAME-4\] It MUST be 0; a receiver closes the connection
/// when it is not.
pub const FRAME_CREDITS_OFFSET: usize = 20;

pub const FRAME_SEQUENCE_OFFSET: usize = 24;

/// HMAC-SHA256 over header bytes 0 to 31 and the control message.
/// \[MKV-FRAME-5\] A receiver MUST verify the MAC, in constant time, before it acts on anything in the frame but its lengths, and MUST close
/// the connection when it does not hold.
pub const FRAME_MAC_OFFSET: usize = 32;

/// \[MKV-FRAME-1\] A frame is a 64-byte header, a control message of whole 8-byte words, and, when the payload length is not zero,
/// the payload and its 32-byte tag, with nothing between them. All integers are little-endian.
pub const FRAME_HEADER_SIZE_BYTES: usize = 64;

/// A payload's tag is the negotiated bulk MAC over the frame's 64-byte header and the payload.
/// \[MKV-FRAME-6\] No byte of a payload may become visible to anyone before its tag held; when it does not hold the receiver MUST close the
/// connection.
pub const FRAME_TAG_SIZE_BYTES: usize = 32;

/// The last frame of its message. \[MKV-FRAME-7\] Other flag bits MUST be sent as 0 and MUST be ignored when received.
pub const FRAME_FLAG_LAST: u16 = 1;

/// The bytes `MKVMANIF`.
pub const MANIFEST_MAGIC: u64 = 0x46494e414d564b4d;

pub const MANIFEST_FORMAT_VERSION: u16 = 1;

pub const MANIFEST_HEADER_SIZE_BYTES: usize = 32;
