//! The return codes, and which error is which.

use std::ffi::c_int;

use memkv_client::Error;
use memkv_wire::Status;

/// Done.
pub const KV_STORE_OK: c_int = 0;
/// No such chunk or manifest.
pub const KV_STORE_NOT_FOUND: c_int = -1;
/// A manifest names a chunk that is neither stored nor put through this handle, or that the server lost after this handle
/// knew it to be stored: nothing was published, and what was stored under the name before still is. Once put again it can be.
pub const KV_STORE_MISSING_CHUNK: c_int = -2;
/// An argument is NULL, out of range, or not what it should be.
pub const KV_STORE_INVALID: c_int = -3;
/// Other bytes are stored under this hash.
pub const KV_STORE_CONFLICT: c_int = -4;
/// The store, or the memory of this process, has no room.
pub const KV_STORE_NO_SPACE: c_int = -5;
/// The server cannot be reached, did not answer in time, or is stopping. What was put is kept, and written when it is
/// back.
pub const KV_STORE_UNAVAILABLE: c_int = -6;
/// The store's device failed, or bytes were damaged.
pub const KV_STORE_DAMAGED: c_int = -7;
/// The handle is closed, or was opened by the parent of this process.
pub const KV_STORE_CLOSED: c_int = -8;
/// A bug in this library or in the server.
pub const KV_STORE_INTERNAL: c_int = -9;

/// A failure on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    NotFound,
    MissingChunk,
    Invalid(&'static str),
    Conflict,
    NoMemory,
    Closed,
    Client(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl Failure {
    pub fn code(&self) -> c_int {
        match self {
            Self::NotFound => KV_STORE_NOT_FOUND,
            Self::MissingChunk => KV_STORE_MISSING_CHUNK,
            Self::Invalid(_) => KV_STORE_INVALID,
            Self::Conflict => KV_STORE_CONFLICT,
            Self::NoMemory => KV_STORE_NO_SPACE,
            Self::Closed => KV_STORE_CLOSED,
            Self::Client(error) => of_client(error),
        }
    }
}

fn of_client(error: &Error) -> c_int {
    match error {
        Error::Misuse(_) => KV_STORE_INVALID,
        Error::Connection(_) | Error::Timeout { .. } => KV_STORE_UNAVAILABLE,
        Error::Peer(_) => KV_STORE_DAMAGED,
        Error::Closed => KV_STORE_CLOSED,
        Error::Storage(error) => of_status(error.status),
    }
}

fn of_status(status: Status) -> c_int {
    match status {
        Status::NotFound => KV_STORE_NOT_FOUND,
        Status::MissingChunks => KV_STORE_MISSING_CHUNK,
        Status::Conflict | Status::StaleGeneration | Status::Referenced => KV_STORE_CONFLICT,
        Status::OutOfSpace | Status::QuotaExceeded => KV_STORE_NO_SPACE,
        Status::TooLarge | Status::Invalid => KV_STORE_INVALID,
        Status::Busy | Status::ShuttingDown => KV_STORE_UNAVAILABLE,
        Status::ChecksumMismatch | Status::StorageFailed => KV_STORE_DAMAGED,
        // A failure without a status would be a bug of this library.
        Status::Ok
        | Status::Unsupported
        | Status::UnsupportedVersion
        | Status::UnknownOperation
        | Status::LeaseExpired
        | Status::Internal
        | Status::Unknown(_) => KV_STORE_INTERNAL,
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::MissingChunk => {
                f.write_str("the manifest names a chunk that is neither stored nor put through this handle")
            }
            Self::Invalid(what) => f.write_str(what),
            Self::Conflict => f.write_str("other bytes are stored under this hash"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::Closed => f.write_str("the handle is closed, or belongs to the parent process"),
            Self::Client(error) => error.fmt(f),
        }
    }
}
