//! What can go wrong between two peers, and who is at fault.
//!
//! A connection that failed once is over: nothing here can be retried on it. Whether a request may be sent again on
//! another connection is the business of whoever knows the operation.

use std::io;

use memkv_wire::frame::{
    CONTROL_SIZE_BYTES_MAX, ExtentError, HELLO_SIZE_BYTES_MAX, Kind, PAYLOAD_SIZE_BYTES_MAX,
};
use memkv_wire::mac::KeyId;
use memkv_wire::{DecodeError, EncodeError, Status};

use crate::buf::PoolError;

/// Why a connection ended or did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The network or the operating system failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer broke the protocol, or bytes were changed on the way.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection never came to be.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// This side asked for something that no frame can hold.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// This side's buffer pool cannot give what a frame needs.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Whom to blame, for logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The network, or the peer's end.
    Wire,
    /// The peer sent what the specification forbids, or somebody between changed it.
    Peer,
    /// The keys or versions of the two sides do not fit.
    Configuration,
    /// This side.
    Caller,
}

impl TransportError {
    pub fn fault(&self) -> Fault {
        match self {
            TransportError::Io(_) => Fault::Wire,
            TransportError::Frame(error) => error.fault(),
            TransportError::Setup(error) => error.fault(),
            TransportError::Seal(_) | TransportError::Pool(_) => Fault::Caller,
        }
    }
}

/// Why a frame was refused. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the peer does not speak MemKV: a frame begins with {found:08x}")]
    Magic { found: u32 },
    #[error(transparent)]
    Extent(#[from] ExtentError),
    #[error("a control message's MAC does not hold: the bytes were changed, or belong to another connection")]
    ControlMac,
    #[error("a payload's tag does not hold: the bytes were changed")]
    PayloadTag,
    #[error("a frame of version {found} on a connection of version {agreed}")]
    Version { found: u8, agreed: u8 },
    #[error("a frame of kind {found:?} where only {expected:?} belongs")]
    Kind { found: Kind, expected: Kind },
    #[error("frame {found} came where {expected} belongs: it was replayed, left out or moved")]
    Sequence { found: u64, expected: u64 },
    #[error("{credits} receive credits on a byte stream")]
    Credits { credits: u32 },
    #[error("a frame without a control message")]
    NoControl,
    #[error("the connection ended inside a frame, {received_size_bytes} bytes after its beginning")]
    Truncated { received_size_bytes: usize },
}

impl FrameError {
    pub fn fault(self) -> Fault {
        match self {
            FrameError::Truncated { .. } => Fault::Wire,
            FrameError::Magic { .. }
            | FrameError::Extent(_)
            | FrameError::ControlMac
            | FrameError::PayloadTag
            | FrameError::Version { .. }
            | FrameError::Kind { .. }
            | FrameError::Sequence { .. }
            | FrameError::Credits { .. }
            | FrameError::NoControl => Fault::Peer,
        }
    }
}

/// Why a connection never came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    // What a client sees.
    #[error(
        "the server closed the connection without an answer: most likely it does not hold the key {key_id} \
         (check MEMKV_AUTH_KEY on both sides), or it has too many connections in set-up"
    )]
    NoAnswer { key_id: KeyId },
    #[error("the server's answer is not signed with the key {key_id}: whoever answered does not hold it")]
    AnswerMac { key_id: KeyId },
    #[error("the server speaks protocol versions {server_min} to {server_max}, this side speaks {own}")]
    UnsupportedVersion { own: u8, server_min: u8, server_max: u8 },
    #[error("the server refused the connection: {}", status.name())]
    Refused { status: Status },
    #[error("the server's answer does not echo this connection's nonce: it answers another one")]
    Nonce,
    #[error("the server chose bulk MAC {code}, which was not offered")]
    BulkMac { code: u16 },

    // What a server sees.
    #[error("the client signed with key {key_id}, which this server does not hold")]
    UnknownKey { key_id: KeyId },
    #[error("the client's Connect is not signed with the key {key_id} that it names")]
    ConnectMac { key_id: KeyId },
    #[error("the client speaks protocol version {client}, this server speaks {own}")]
    ClientVersion { client: u8, own: u8 },
    #[error("the client offers no bulk MAC that this server speaks")]
    NoCommonBulkMac,
    #[error("{connections_max} connections are in set-up already")]
    TooManyConnections { connections_max: u32 },
    #[error("the client did not confirm the connection")]
    NoConfirmation,

    // What both see.
    #[error("a hello frame of {size_bytes} bytes, more than {HELLO_SIZE_BYTES_MAX}")]
    HelloTooLong { size_bytes: usize },
    #[error("a hello frame that is no {expected}")]
    UnexpectedHello { expected: &'static str },
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a hello frame's control message is malformed: {0}")]
    Decode(#[from] DecodeError),
    #[error("this side's own hello is malformed: {0}")]
    Encode(#[from] EncodeError),
    #[error("set-up was not done in time")]
    TimedOut,
}

impl SetupError {
    pub fn fault(self) -> Fault {
        match self {
            SetupError::NoAnswer { .. }
            | SetupError::AnswerMac { .. }
            | SetupError::UnsupportedVersion { .. }
            | SetupError::UnknownKey { .. }
            | SetupError::ConnectMac { .. }
            | SetupError::ClientVersion { .. }
            | SetupError::NoCommonBulkMac => Fault::Configuration,
            SetupError::Refused { .. }
            | SetupError::Nonce
            | SetupError::BulkMac { .. }
            | SetupError::HelloTooLong { .. }
            | SetupError::UnexpectedHello { .. }
            | SetupError::Decode(_) => Fault::Peer,
            SetupError::Frame(error) => error.fault(),
            SetupError::TooManyConnections { .. } | SetupError::NoConfirmation | SetupError::TimedOut => {
                Fault::Wire
            }
            SetupError::Encode(_) => Fault::Caller,
        }
    }
}

/// Why a message cannot be sent as one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("a frame without a control message")]
    NoControl,
    #[error("a control message of {size_bytes} bytes, more than {CONTROL_SIZE_BYTES_MAX}")]
    ControlTooLong { size_bytes: usize },
    #[error("a payload of {size_bytes} bytes, more than {PAYLOAD_SIZE_BYTES_MAX}")]
    PayloadTooLong { size_bytes: usize },
}
