//! Replies: how they are built, and what the store's errors are called on the wire.

use memkv_transport::stream::Outgoing;
use memkv_wire::{Operation, Response, ResponseWhich, Retry, Status};

use super::connection::ConnectionId;
use super::slab::Name;
use super::{Output, Service};
use crate::store::{Limit, StoreError};

/// How long a client had better wait before it asks again.
const RETRY_AFTER_MS: u32 = 100;
/// Buffers kept for later replies.
const SPARE_MAX: usize = 1024;

/// A frame for the peer.
#[derive(Debug)]
pub struct Reply {
    pub connection: ConnectionId,
    pub frame: Outgoing,
}

impl Reply {
    pub fn control_bytes(&self) -> usize {
        self.frame.control.control().len()
    }

    pub fn payload_bytes(&self) -> usize {
        self.frame.payload_size_bytes()
    }
}

impl Service {
    /// Takes a reply's buffer back.
    pub fn recycle(&mut self, mut frame: Outgoing) {
        if self.spare.len() < SPARE_MAX {
            frame.payload.clear();
            frame.beside.clear();
            frame.landed_size_bytes = 0;
            self.spare.push(frame);
        }
    }

    pub(super) fn reply_buf(&mut self) -> Outgoing {
        self.spare.pop().unwrap_or_default()
    }

    /// Sends one frame of a request's reply. The payload is in `buf`; its bytes are counted in the window already.
    pub(super) fn send(
        &mut self,
        name: Name,
        last: bool,
        status: Status,
        which: ResponseWhich<'_>,
        mut frame: Outgoing,
    ) {
        let Some(open) = self.requests.get(name) else { return self.recycle(frame) };
        let connection = open.connection;
        frame.request_id = open.request_id;
        frame.last = last;
        let retry_after_ms = match status.retry() {
            Retry::AfterDelay => RETRY_AFTER_MS,
            Retry::No | Retry::Resend => 0,
        };
        let response = Response { status, retry_after_ms, detail: "", which };
        if let Err(error) = response.encode(&mut frame.control) {
            // Handlers keep replies within the limits; a mistake of ours must not leave the client waiting.
            debug_assert!(false, "a reply exceeds its limits: {error}");
            tracing::error!(%error, "a reply exceeds its limits");
            let which = empty_reply(open.operation, open.opcode);
            let response = Response { status: Status::Internal, retry_after_ms: 0, detail: "", which };
            if response.encode(&mut frame.control).is_err() {
                return;
            }
        }
        place_macs(&mut frame);
        if last && status != Status::Ok && !matches!(status, Status::NotFound | Status::MissingChunks) {
            self.counters.requests_failed += 1;
        }
        if let Some(connection) = self.connections.get_mut(connection.0) {
            connection.unsent_bytes += frame.control.control().len();
        }
        self.outputs.push_back(Output::Reply(Reply { connection, frame }));
        self.pause_or_resume(connection);
    }

    /// Sends the last frame of a request's reply and forgets the request.
    pub(super) fn finish(&mut self, name: Name, status: Status, which: ResponseWhich<'_>) {
        let buf = self.reply_buf();
        self.send(name, true, status, which, buf);
        self.release(name);
    }

    pub(super) fn finish_failed(&mut self, name: Name, status: Status) {
        let Some(open) = self.requests.get(name) else { return };
        let which = empty_reply(open.operation, open.opcode);
        self.finish(name, status, which);
    }
}

/// Finds the places that the control message has for the MACs of the bytes beside it, which come in the order of the pieces.
fn place_macs(frame: &mut Outgoing) {
    let Outgoing { control, beside, .. } = frame;
    if beside.is_empty() {
        return;
    }
    let Ok(message) = control.message() else { return };
    let Ok(response) = Response::decode(&message) else { return };
    let pieces = match response.which {
        ResponseWhich::Read(reply) => reply.pieces,
        ResponseWhich::BatchRead(reply) => reply.pieces,
        _ => return,
    };
    for (beside, mac_at) in beside.iter_mut().zip(control.macs_of(pieces)) {
        beside.mac_at = mac_at;
    }
}

//= MKV-MSG-7
fn empty_reply(operation: Option<Operation>, opcode: u16) -> ResponseWhich<'static> {
    operation.map_or(ResponseWhich::Unknown(opcode), Operation::empty_reply)
}

/// The store's error as the wire has it.
pub(super) fn status_of(error: &StoreError) -> Status {
    match error {
        StoreError::OutOfSpace => Status::OutOfSpace,
        StoreError::Conflict { .. } => Status::Conflict,
        StoreError::NotFound => Status::NotFound,
        StoreError::TooLarge { .. } => Status::TooLarge,
        StoreError::InvalidKey | StoreError::InvalidRange | StoreError::Incomplete { .. } => Status::Invalid,
        StoreError::QuotaExceeded { .. } => Status::QuotaExceeded,
        StoreError::DeviceFailed { .. } => Status::StorageFailed,
        StoreError::LeaseExpired => Status::LeaseExpired,
        StoreError::Referenced { .. } => Status::Referenced,
        // The lease ends by itself.
        StoreError::Leased { .. } => Status::Busy,
        StoreError::ChecksumMismatch { .. } => Status::ChecksumMismatch,
        StoreError::StaleGeneration { .. } => Status::StaleGeneration,
        StoreError::TooMany { what: Limit::Leases | Limit::Allocations } => Status::Busy,
        // Only deletes help.
        StoreError::TooMany { what: Limit::Namespaces | Limit::Values } => Status::OutOfSpace,
        // The next attempt is told which.
        StoreError::ChunkLost => Status::Busy,
        StoreError::Stopping => Status::ShuttingDown,
    }
}
