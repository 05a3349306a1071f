//! What can go wrong, who is at fault, and what the caller may do about it.
//!
//! Every error of this crate is one of five kinds: the caller's mistake ([`ApiMisuse`]), the server's answer
//! ([`StorageError`]), the network ([`ConnectionError`]), a peer that breaks the protocol
//! ([`PeerMisbehaved`]), or time that ran out. A miss is no error: reads answer it with `None` or [`Miss`].
//!
//! [`Miss`]: crate::ReadStatus

use std::io;

use memkv_transport::buf::PoolError;
use memkv_transport::error::{FrameError, SetupError, TransportError};
use memkv_wire::{EncodeError, Status};

use crate::uri::UriError;

/// Any failure of an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The call itself was wrong; the same call will fail again.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The server answered with a failure.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No connection, and the operation cannot be sent again.
    #[error(transparent)]
    Connection(ConnectionError),
    /// The server broke the protocol; the connection was closed.
    #[error(transparent)]
    Peer(#[from] PeerMisbehaved),
    /// The deadline passed. What the operation would have changed may or may not have happened.
    #[error("no answer within {timeout_ms} ms{}", Because(.last))]
    Timeout {
        /// The time it was given.
        timeout_ms: u64,
        /// The latest failure to connect, if there was one since the operation began.
        last: Option<ConnectionError>,
    },
    /// The client is closed, or its runtime has ended.
    #[error("the client is closed")]
    Closed,
}

/// The caller's mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiMisuse {
    /// A URI that is none.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// More than one server.
    #[error(
        "the URI names {servers} servers, but this release talks to one: name a single server until \
         clusters are supported"
    )]
    SeveralServers {
        /// How many.
        servers: usize,
    },
    /// No key in the environment.
    #[error("MEMKV_AUTH_KEY is not set: export the key that `memkv start` prints (64 hexadecimal digits)")]
    KeyAbsent,
    /// A key that is none.
    #[error("MEMKV_AUTH_KEY is not a key: it must be 64 hexadecimal digits, as `memkv keygen` prints them")]
    KeyMalformed,
    /// A transport that there is none of.
    #[error("MEMKV_TRANSPORT is none of `auto`, `tcp`, `local` and `rdma`")]
    Transport,
    /// A kind of address that there is none of.
    #[error("MEMKV_RDMA_GID_TYPE is neither `roce-v2` nor `roce-v1`")]
    GidType,
    /// A network that is none.
    #[error("MEMKV_RDMA_SUBNET is no network, such as 10.0.0.0/24 or fd00::/64")]
    Subnet,
    /// A choice of what to verify that there is none of.
    #[error("MEMKV_VERIFY is none of `always`, `sampled` and `never`")]
    Verify,
    /// A number of connections that there cannot be.
    #[error("MEMKV_CONNECTIONS is no number from 1 to {}", crate::core::CONNECTIONS_MAX)]
    Connections,
    /// A time to stay awake that is none.
    #[error("MEMKV_SPIN_US is no number of microseconds from 0 to {}", memkv_transport::spin::SPIN_US_MAX)]
    Spin,
    /// RDMA was asked for where there is none.
    #[error("RDMA needs Linux: set MEMKV_TRANSPORT to `auto`, or leave it out")]
    NoRdma,
    /// A key of a value without bytes, or too long.
    #[error("a key has 1 to {max} bytes, this one has {size_bytes}")]
    KeySize {
        /// Its length.
        size_bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A namespace that is too long.
    #[error("a namespace has at most {max} bytes, this one has {size_bytes}")]
    NamespaceSize {
        /// Its length.
        size_bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A buffer that no pool gives.
    #[error(transparent)]
    Buffer(#[from] PoolError),
    /// A manifest name without bytes, or too long.
    #[error("a manifest name has 1 to {max} bytes, this one has {size_bytes}")]
    NameSize {
        /// Its length.
        size_bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A value without bytes, or over 1 GiB.
    #[error("a value has 1 to {max} bytes, this one has {size_bytes}")]
    ValueSize {
        /// Its length.
        size_bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A manifest body over 64 MiB.
    #[error("a manifest has at most {max} bytes, this one has {size_bytes}")]
    ManifestSize {
        /// Its length.
        size_bytes: u64,
        /// The limit.
        max: u64,
    },
    /// More references than a manifest may hold.
    #[error("a manifest names at most {max} chunks, this one names {count}")]
    ManifestChunks {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A list of items longer than one message may carry.
    #[error("one call takes at most {max} items, this one has {count}")]
    Items {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A batch without any item.
    #[error("the list of items is empty")]
    NoItems,
    /// The value that was read does not fit the buffer.
    #[error("the value has {needed_bytes} bytes, the buffer {buffer_bytes}")]
    BufferTooSmall {
        /// What the value has.
        needed_bytes: u64,
        /// What the buffer has.
        buffer_bytes: u64,
    },
    /// What was asked for is more than the client may hold at all.
    #[error(
        "{needed_bytes} bytes are stored there, and the client may hold {held_bytes_max} (`receive_size_bytes_max`): read them into memory of your \
         own with `get_into`, or in ranges"
    )]
    BeyondMemory {
        /// What was asked for has.
        needed_bytes: u64,
        /// What the client may hold.
        held_bytes_max: u64,
    },
    /// A field outside the protocol's bounds.
    #[error("the request cannot be sent: {0}")]
    Bound(#[from] EncodeError),
    /// A piece that does not lie in its value, or does not begin at a block.
    #[error(
        "bytes {offset}..{offset}+{length} do not begin at a block, or do not lie in a value of {value} bytes"
    )]
    Range {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
        /// How long the value is.
        value: u64,
    },
}

/// A failure that the server reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server answered {}{}: {}", .status.name(), Detail(.detail), advice(*.status))]
pub struct StorageError {
    /// What it answered.
    pub status: Status,
    /// Its words for people and logs; may be empty.
    pub detail: Box<str>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The network refused or failed.
    #[error("the network failed: {}", OsError { kind: *.kind, code: *.code })]
    Io {
        /// Its kind.
        kind: io::ErrorKind,
        /// The system's number for it, if it came from there.
        code: Option<i32>,
    },
    /// The host's name has no address.
    #[error("the server's host name has no address")]
    NoAddress,
    /// It took too long.
    #[error("no connection within the time for set-up: is a server listening there?")]
    SetupTimeout,
    /// It was refused, or is not with whom it should be.
    #[error(transparent)]
    Setup(SetupError),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The connection was silent while answers were due.
    #[error("the server fell silent")]
    Silent,
    /// The peer broke the protocol.
    #[error(transparent)]
    Peer(PeerMisbehaved),
    /// The server offers no local socket that this process can use, but the configuration allows nothing else.
    #[error(
        "the server offers no local socket that can be used from here: is it on this host, and of the same user?"
    )]
    NoLocal,
    /// There is no RDMA device that can be used here, or the server has no queue pair to give, but the configuration allows nothing else.
    #[error(
        "no RDMA: look for a device here with `ibv_devices`, and for the server's `rdma` settings; MEMKV_TRANSPORT=auto goes on over TCP"
    )]
    NoRdma,
    /// The configuration names an RDMA device that is not there.
    #[error("there is no RDMA device {wanted} here{}", Found(.found))]
    NoRdmaDevice {
        /// What is named and not there.
        wanted: Box<str>,
        /// What is there.
        found: Vec<String>,
    },
    /// This process may not lock the memory that a queue pair needs.
    #[error("memory cannot be registered for RDMA: raise the limit of locked memory (ulimit -l)")]
    RdmaMemory,
    /// A queue pair was set up, and no packet passes.
    #[error(
        "a queue pair was set up and nothing came over it: RDMA packets do not pass between the two devices, or the server gave it up (its log says so)"
    )]
    RdmaLost,
    /// The shared memory that a message names is registered on no connection any more. Operations build their message
    /// anew.
    #[error("the connection that shared memory was registered on is gone")]
    MemoryGone,
    /// This side has no memory for what comes, or made a frame that cannot be sent.
    #[error("this client cannot hold or make a frame that is within the protocol's limits")]
    Local,
}

/// How a server broke the protocol. The connection it did it on is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A frame whose header, MAC, tag or order does not hold.
    #[error(transparent)]
    Frame(FrameError),
    /// A control message that cannot be decoded.
    #[error("the server sent a message that cannot be decoded")]
    Message,
    /// A reply to no request.
    #[error("the server answered request {request_id}, which was not asked")]
    UnknownRequest {
        /// The id in the frame.
        request_id: u32,
    },
    /// A reply of another operation.
    #[error("the server answered with another operation than it was asked")]
    WrongOperation,
    /// More, fewer or other results than asked for.
    #[error("the server's results do not match the items asked for")]
    Results,
    /// Pieces that overlap, leave gaps, or do not match the payload.
    #[error("the server's pieces do not cover the value")]
    Pieces,
    /// A manifest body that does not match its length.
    #[error("the server's manifest does not have the announced length")]
    Manifest,
    /// Bytes that are not those the writer's checksum was made of, again and again.
    #[error("the bytes received do not match their checksum")]
    Checksum,
    /// Chunks reported missing that were not asked about.
    #[error("the server reports chunks missing that the manifest does not name")]
    Missing,
}

/// What a caller may do about a status.
fn advice(status: Status) -> &'static str {
    match status {
        Status::Ok => "nothing is wrong",
        Status::NotFound => "it is not stored",
        Status::Conflict => "other bytes are stored under this key: use another key, or delete it first",
        Status::MissingChunks => "chunks that the manifest names are not stored: write them and try again",
        Status::OutOfSpace => "everything stored is in use: free space or try again later",
        Status::QuotaExceeded => "the namespace's share is used up: delete something or raise the quota",
        Status::TooLarge => "a limit of the server is exceeded: split it",
        Status::Invalid => "the request contradicts itself: this is a bug in the caller or the client",
        Status::Unsupported => "the server cannot do this: check its release and configuration",
        Status::UnsupportedVersion => "client and server speak different versions: upgrade the older one",
        Status::UnknownOperation => "the server does not know this operation: upgrade it",
        Status::ChecksumMismatch => "bytes were damaged on the way: send them again",
        Status::LeaseExpired => "the allocation is gone: begin again with allocate",
        Status::StaleGeneration => "a newer manifest is stored under this name: read it first",
        Status::Referenced => "a manifest names it: delete the manifest first",
        Status::Busy => "the server is at a limit: try again later",
        Status::StorageFailed => "a device failed: look at the server's log",
        Status::ShuttingDown => "the server is stopping: try again when it is back",
        Status::Internal => "the server failed: look at its log",
        Status::Unknown(_) => "this client does not know the status: upgrade it",
    }
}

struct Because<'a>(&'a Option<ConnectionError>);

impl std::fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

struct Detail<'a>(&'a str);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => Ok(()),
            detail => write!(f, " ({detail})"),
        }
    }
}

struct Found<'a>(&'a [String]);

impl std::fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str(": there is none at all"),
            names => write!(f, "; there are: {}", names.join(", ")),
        }
    }
}

struct OsError {
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl std::fmt::Display for OsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code).fmt(f),
            None => self.kind.fmt(f),
        }
    }
}

impl From<&io::Error> for ConnectionError {
    fn from(error: &io::Error) -> Self {
        Self::Io { kind: error.kind(), code: error.raw_os_error() }
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Peer(error) => Self::Peer(error),
            error => Self::Connection(error),
        }
    }
}

impl From<&TransportError> for ConnectionError {
    fn from(error: &TransportError) -> Self {
        match error {
            TransportError::Io(error) => Self::from(error),
            TransportError::Frame(error) => Self::Peer(PeerMisbehaved::Frame(*error)),
            TransportError::Setup(error) => Self::Setup(*error),
            TransportError::Seal(_) | TransportError::Pool(_) => Self::Local,
        }
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Misuse(ApiMisuse::Bound(error))
    }
}
