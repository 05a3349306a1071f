//! Operations as messages: what a call sends, and what the frames of its reply mean.
//!
//! Everything here is a function of its arguments: requests are cut into frames (at most 1 MiB of payload and
//! [`CONTROL_FILL_SIZE_BYTES`] of control message each), and replies put together again. Who sends the
//! frames, waits and tries again is none of its business; the async client and the simulation both do that.
//!
//! Replies are not trusted: every index, length and range is held against what was asked, and bytes against
//! their checksums, before anyone sees them.

pub mod keys;
pub mod manifest;
pub mod read;
pub mod single;
#[cfg(test)]
mod tests;
pub mod write;

use memkv_wire::{Response, Status, control, limits};

use crate::core::{Naming, Reply};
use crate::error::{ApiMisuse, PeerMisbehaved, StorageError};

/// The bytes of a value that begin at one multiple of this are covered by one checksum.
pub(crate) const BLOCK_SIZE_BYTES: u64 = limits::BLOCK_SIZE_BYTES as u64;
pub(crate) const PAYLOAD_SIZE_BYTES_MAX: usize = limits::PAYLOAD_SIZE_BYTES_MAX as usize;
pub(crate) const FRAME_ITEMS_MAX: usize = limits::FRAME_ITEMS_MAX as usize;
/// The items of one message.
pub const BATCH_ITEMS_MAX: usize = limits::BATCH_ITEMS_MAX as usize;

/// Control messages are filled up to here, by upper bounds of what their entries take; the rest of the limit is
/// room for the fields beside the lists.
pub const CONTROL_FILL_SIZE_BYTES: usize = limits::CONTROL_SIZE_BYTES_MAX as usize - 8 * 1024;

/// An upper bound of what a data field adds to a control message, beside its pointer.
pub(crate) fn data_size_bytes(length: usize) -> usize {
    length.next_multiple_of(8)
}

/// What the server said about an item or a message that did not end well.
pub(crate) fn refusal(response: &Response<'_>) -> StorageError {
    StorageError { status: response.status, detail: response.detail.into() }
}

/// A status of one item; the server has no words for it.
pub(crate) fn item_refusal(status: Status) -> StorageError {
    StorageError { status, detail: Box::default() }
}

/// Decodes a frame that the core let pass, and hands the response to `see`.
pub(crate) fn with_response<R>(
    frame: &Reply,
    see: impl FnOnce(&Response<'_>) -> Result<R, PeerMisbehaved>,
) -> Result<R, PeerMisbehaved> {
    let message = control::Message::new(frame.control()).map_err(|_| PeerMisbehaved::Message)?;
    let response = Response::decode(&message).map_err(|_| PeerMisbehaved::Message)?;
    see(&response)
}

/// What is shorter goes with the frame where the server's device would have to fetch or put it: that takes longer than the bytes.
const ONE_SIDED_SIZE_BYTES_MIN: usize = 12 << 10;

/// Whether a message names memory for so many bytes.
pub(crate) fn names(naming: Naming, size_bytes: usize) -> bool {
    match naming {
        Naming::No => false,
        Naming::Places => true,
        Naming::Signed => size_bytes >= ONE_SIDED_SIZE_BYTES_MIN,
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), ApiMisuse> {
    let max = limits::KEY_SIZE_BYTES_MAX as usize;
    if key.is_empty() || key.len() > max {
        return Err(ApiMisuse::KeySize { size_bytes: key.len(), max });
    }
    Ok(())
}

pub(crate) fn check_name(name: &[u8]) -> Result<(), ApiMisuse> {
    let max = limits::MANIFEST_NAME_SIZE_BYTES_MAX as usize;
    if name.is_empty() || name.len() > max {
        return Err(ApiMisuse::NameSize { size_bytes: name.len(), max });
    }
    Ok(())
}

pub(crate) fn check_items(count: usize) -> Result<(), ApiMisuse> {
    match count {
        0 => Err(ApiMisuse::NoItems),
        1..=BATCH_ITEMS_MAX => Ok(()),
        _ => Err(ApiMisuse::Items { count, max: BATCH_ITEMS_MAX }),
    }
}

pub(crate) fn check_value(size_bytes: u64) -> Result<(), ApiMisuse> {
    let max = limits::VALUE_SIZE_BYTES_MAX;
    if size_bytes == 0 || size_bytes > max {
        return Err(ApiMisuse::ValueSize { size_bytes, max });
    }
    Ok(())
}
