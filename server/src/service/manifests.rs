//! Manifests: put, get, delete, list.
//!
//! A manifest in the making holds its references and the fragments of its body, both counted in budgets of the
//! connection and of the server. A body whose fragments are whole blocks is stored as it came; any other is joined
//! first, outside the service.

use memkv_transport::buf::{Buf, BufMut};
use memkv_wire::{
    DeleteManifest, DeleteManifestReply, GetManifest, List, ListManifests, ListManifestsReply, ManifestEntry,
    ManifestRole, PutManifest, PutManifestReply, ResponseWhich, Status, limits,
};

use super::connection::ConnectionId;
use super::payload::PieceBytes;
use super::reads::granted;
use super::reply::status_of;
use super::slab::Name;
use super::values::Scalars;
use super::{Call, Output, Service, State, What};
use crate::store::{self, BLOCK_BYTES, Block, Checksum, ChunkRef, Outcome, Role, Slot, StoreError};

/// Places that one frame of a reply lists.
const FRAME_PLACES_MAX: usize = limits::FRAME_ITEMS_MAX as usize;
/// What a listing's entries may take in a control message; the rest is for what is around them.
const LISTING_BYTES_MAX: usize = limits::CONTROL_SIZE_BYTES_MAX as usize - 4096;

/// A `PutManifest` that has not ended.
pub(super) struct Putting {
    role: Role,
    generation: u64,
    length: u64,
    checksum: Checksum,
    /// The namespace, the name, then the chunks' keys.
    text: Vec<u8>,
    namespace_bytes: usize,
    name_bytes: usize,
    chunks: Vec<Chunk>,
    fragments: Vec<PieceBytes>,
    received: u64,
    /// Counted in the budgets.
    held_bytes: usize,
    publishing: bool,
}

struct Chunk {
    key_end: usize,
    length: u64,
    checksum: Option<Checksum>,
}

/// A `DeleteManifest` that has not ended: what its parts brought.
#[derive(Default)]
pub(super) struct Deleting {
    deleted: Option<u64>,
    stale: Option<u64>,
}

/// Fragments of a body to be joined to blocks.
#[derive(Debug)]
pub struct BodyJob {
    name: Name,
    fragments: Vec<PieceBytes>,
    length: usize,
}

/// What [`BodyJob::join`] made.
#[derive(Debug)]
pub struct Joined {
    name: Name,
    /// `None`: there is no memory for it.
    blocks: Option<Vec<Block<Buf>>>,
}

impl BodyJob {
    /// Copies the fragments together and checksums the blocks. Not to be done under the service's lock.
    pub fn join(self) -> Joined {
        let mut blocks = Vec::with_capacity(self.length.div_ceil(BLOCK_BYTES));
        let mut bytes =
            self.fragments.iter().flat_map(|fragment| fragment.bytes.chunks(BLOCK_BYTES)).peekable();
        let mut rest: &[u8] = &[];
        let mut left = self.length;
        while left > 0 {
            let size = left.min(BLOCK_BYTES);
            let Ok(mut block) = BufMut::unpooled(size) else {
                return Joined { name: self.name, blocks: None };
            };
            let mut at = 0;
            while at < size {
                if rest.is_empty() {
                    let Some(next) = bytes.next() else { return Joined { name: self.name, blocks: None } };
                    rest = next;
                }
                let count = rest.len().min(size - at);
                block[at..at + count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                at += count;
            }
            let checksum = Checksum::of_block(&block);
            blocks.push(Block { bytes: block.freeze(), checksum });
            left -= size;
        }
        Joined { name: self.name, blocks: Some(blocks) }
    }
}

fn role_of(role: ManifestRole) -> Option<Role> {
    match role {
        ManifestRole::Both => Some(Role::Both),
        ManifestRole::Refs => Some(Role::Refs),
        ManifestRole::Home => Some(Role::Home),
        ManifestRole::Unknown(_) => None,
    }
}

// ---------------------------------------------------------------- put

impl Service {
    pub(super) fn on_put_manifest(&mut self, call: Call, namespace: &[u8], request: PutManifest<'_>) {
        let scalars = Scalars::of(namespace)
            .bytes(request.name)
            .number(request.generation)
            .number(u64::from(request.role.code()))
            .number(request.length)
            .checksum(Some(request.checksum))
            .finish();
        if !self.same_message(call.name, scalars) {
            return;
        }
        let Some(role) = role_of(request.role) else { return self.fail(call.name, Status::Invalid) };
        let Some(open) = self.requests.get_mut(call.name) else { return };
        let connection = open.connection;
        let mut putting = match std::mem::replace(&mut open.state, State::Plain) {
            State::PutManifest(putting) => putting,
            _ => Putting::new(role, namespace, &request),
        };
        let status = self.gather(connection, &mut putting, &request);
        if let Some(open) = self.requests.get_mut(call.name) {
            open.state = State::PutManifest(putting);
        }
        if status != Status::Ok {
            self.fail(call.name, status);
        }
    }

    /// Takes one frame's references and bytes, if there is room for them.
    fn gather(&mut self, id: ConnectionId, putting: &mut Putting, request: &PutManifest<'_>) -> Status {
        let bytes: usize = self.given.iter().map(|fragment| fragment.bytes.len()).sum();
        // A small fragment holds more memory than it has bytes.
        let held: usize = self.given.iter().map(|fragment| fragment.bytes.capacity()).sum();
        let keys: usize = request.chunks.iter().map(|chunk| chunk.key.len() + size_of::<Chunk>()).sum();
        let more = held + keys;
        putting.received += bytes as u64;
        if putting.received > putting.length {
            return Status::Invalid;
        }
        if putting.chunks.len() + request.chunks.len() > limits::MANIFEST_CHUNKS_MAX as usize
            || putting.held_bytes + more > self.limits.body_bytes_max
        {
            return Status::TooLarge;
        }
        let Some(connection) = self.connections.get_mut(id.0) else { return Status::Internal };
        if connection.body_bytes + more > self.limits.body_bytes_max
            || self.body_bytes_total + more > self.limits.body_bytes_total_max
        {
            return Status::Busy;
        }
        connection.body_bytes += more;
        self.body_bytes_total += more;
        putting.held_bytes += more;
        putting.fragments.append(&mut self.given);
        for chunk in request.chunks.iter() {
            putting.text.extend_from_slice(chunk.key);
            let checksum = chunk.checksum.map(|checksum| Checksum(*checksum));
            putting.chunks.push(Chunk { key_end: putting.text.len(), length: chunk.length, checksum });
        }
        Status::Ok
    }

    /// All frames are in: publishes, once the body is there in blocks.
    pub(super) fn settle_put_manifest(&mut self, name: Name) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::PutManifest(putting) = &mut open.state else { return };
        if putting.received != putting.length {
            return self.finish_failed(name, Status::Invalid);
        }
        if std::mem::replace(&mut putting.publishing, true) {
            // What began always ends in an answer or in a fault.
            return self.finish_failed(name, Status::Internal);
        }
        let fragments = std::mem::take(&mut putting.fragments);
        let whole = fragments.len().saturating_sub(1);
        if fragments[..whole].iter().all(|fragment| fragment.bytes.len() == BLOCK_BYTES) {
            let blocks =
                fragments.into_iter().map(|part| Block { bytes: part.bytes, checksum: part.checksum });
            return self.publish(name, blocks.collect());
        }
        let length = putting.length as usize;
        open.outstanding += 1;
        self.outputs.push_back(Output::Body(BodyJob { name, fragments, length }));
    }

    /// A body was joined.
    pub fn body_joined(&mut self, now_ms: u64, joined: Joined) {
        self.now_ms = self.now_ms.max(now_ms);
        let Some(open) = self.requests.get_mut(joined.name) else { return };
        open.outstanding -= 1;
        match joined.blocks {
            Some(blocks) => self.publish(joined.name, blocks),
            None => self.fail(joined.name, Status::Busy),
        }
        self.settle(joined.name);
        self.settle_store();
    }

    fn publish(&mut self, name: Name, body: Vec<Block<Buf>>) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::PutManifest(putting) = &open.state else { return };
        if Checksum::of_blocks(body.iter().map(|block| &block.checksum)) != putting.checksum {
            self.counters.checksum_mismatches += 1;
            return self.finish_failed(name, Status::ChecksumMismatch);
        }
        let connection = open.connection;
        let Some(client) = self.connections.get(connection.0).map(|connection| connection.client) else {
            return;
        };
        let State::PutManifest(putting) = std::mem::replace(&mut open.state, State::Plain) else { return };
        let ticket = self.ticket(Some(name), What::PutManifest, 0);
        let chunks = putting.references();
        let put = store::PutManifest {
            namespace: &putting.text[..putting.namespace_bytes],
            name: &putting.text[putting.namespace_bytes..putting.namespace_bytes + putting.name_bytes],
            generation: (putting.generation != 0).then_some(putting.generation),
            role: putting.role,
            chunks: &chunks,
            body,
            lease_ms: 0,
        };
        self.store.put_manifest(self.now_ms, client, ticket, put);
        drop(chunks);
        if let Some(open) = self.requests.get_mut(name) {
            open.state = State::PutManifest(putting);
        }
    }

    //= MKV-PUT-1
    //= MKV-PUT-2
    //= MKV-PUT-5
    pub(super) fn manifest_put(&mut self, name: Name, result: Result<Outcome, StoreError>) {
        let mut lease_ms = 0;
        let (status, generation, places) = match result {
            //= MKV-PUT-7
            Ok(Outcome::ManifestStored { generation, lease_ms: leased_ms }) => {
                self.counters.manifests_put += 1;
                lease_ms = u32::try_from(leased_ms).unwrap_or(u32::MAX);
                (Status::Ok, generation, Vec::new())
            }
            //= MKV-PUT-3
            Ok(Outcome::ManifestIncomplete { missing }) => {
                self.counters.manifests_incomplete += 1;
                lease_ms = granted(0);
                (Status::MissingChunks, 0, missing)
            }
            Ok(Outcome::ManifestConflict { chunks }) => (Status::Conflict, 0, chunks),
            Ok(other) => {
                debug_assert!(false, "a manifest does not end in {other:?}");
                (Status::Internal, 0, Vec::new())
            }
            Err(StoreError::StaleGeneration { current }) => (Status::StaleGeneration, current, Vec::new()),
            Err(error) => (status_of(&error), 0, Vec::new()),
        };
        let mut rest = &places[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(FRAME_PLACES_MAX));
            let reply = PutManifestReply { generation, missing: List::from(now), lease_ms };
            if later.is_empty() {
                return self.finish(name, status, ResponseWhich::PutManifest(reply));
            }
            let buf = self.reply_buf();
            self.send(name, false, status, ResponseWhich::PutManifest(reply), buf);
            rest = later;
        }
    }

    pub(super) fn abandon_put_manifest(&mut self, id: ConnectionId, putting: Putting) {
        self.body_bytes_total -= putting.held_bytes;
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.body_bytes -= putting.held_bytes;
        }
    }
}

impl Putting {
    fn new(role: Role, namespace: &[u8], request: &PutManifest<'_>) -> Putting {
        Putting {
            role,
            generation: request.generation,
            length: request.length,
            checksum: Checksum(*request.checksum),
            text: [namespace, request.name].concat(),
            namespace_bytes: namespace.len(),
            name_bytes: request.name.len(),
            chunks: Vec::with_capacity(request.chunks.len()),
            fragments: Vec::new(),
            received: 0,
            held_bytes: 0,
            publishing: false,
        }
    }

    fn references(&self) -> Vec<ChunkRef<'_>> {
        let mut start = self.namespace_bytes + self.name_bytes;
        let mut references = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            let key = &self.text[start..chunk.key_end];
            references.push(ChunkRef { key, length: chunk.length, checksum: chunk.checksum });
            start = chunk.key_end;
        }
        references
    }
}

// ---------------------------------------------------------------- get, delete, list

impl Service {
    //= MKV-GET-1
    pub(super) fn on_get_manifest(&mut self, call: Call, namespace: &[u8], request: GetManifest<'_>) {
        let lease_ms = u64::from(request.lease_ms);
        match self.store.get_manifest(self.now_ms, call.client, namespace, request.name, lease_ms) {
            Ok((info, plan)) => {
                self.counters.manifests_read += 1;
                self.begin_body(call.name, info.generation, granted(request.lease_ms), plan);
            }
            Err(error) => self.fail(call.name, status_of(&error)),
        }
    }

    /// Drops the published manifest and the references of a name alike.
    //= MKV-DELM-1
    //= MKV-DELM-2
    pub(super) fn on_delete_manifest(&mut self, call: Call, namespace: &[u8], request: DeleteManifest<'_>) {
        if let Some(open) = self.requests.get_mut(call.name) {
            open.state = State::DeleteManifest(Deleting::default());
        }
        let generation = (request.generation != 0).then_some(request.generation);
        for slot in [Slot::Published, Slot::Refs] {
            let ticket = self.ticket(Some(call.name), What::DeleteManifest, 0);
            self.store.delete_manifest(self.now_ms, ticket, namespace, request.name, slot, generation);
        }
    }

    pub(super) fn manifest_deleted(&mut self, name: Name, result: Result<Outcome, StoreError>) {
        let Some(open) = self.requests.get_mut(name) else { return };
        let State::DeleteManifest(deleting) = &mut open.state else { return };
        match result {
            Ok(Outcome::ManifestDeleted { generation }) => {
                self.counters.manifests_deleted += 1;
                deleting.deleted = deleting.deleted.max(Some(generation));
            }
            Ok(other) => debug_assert!(false, "a deletion does not end in {other:?}"),
            Err(StoreError::NotFound) => {}
            Err(StoreError::StaleGeneration { current }) => {
                deleting.stale = deleting.stale.max(Some(current))
            }
            Err(error) => self.fail(name, status_of(&error)),
        }
    }

    pub(super) fn settle_delete_manifest(&mut self, name: Name) {
        let Some(open) = self.requests.get(name) else { return };
        let State::DeleteManifest(deleting) = &open.state else { return };
        let (status, generation) = match (deleting.stale, deleting.deleted) {
            (Some(current), _) => (Status::StaleGeneration, current),
            (None, Some(generation)) => (Status::Ok, generation),
            (None, None) => (Status::NotFound, 0),
        };
        self.finish(name, status, ResponseWhich::DeleteManifest(DeleteManifestReply { generation }));
    }

    //= MKV-LIST-1
    pub(super) fn on_list_manifests(&mut self, call: Call, namespace: &[u8], request: ListManifests<'_>) {
        let count_max = match request.count_max {
            0 => limits::LIST_ENTRIES_MAX,
            count => count.min(limits::LIST_ENTRIES_MAX),
        };
        let page = self.store.list_manifests(namespace, request.prefix, request.cursor, count_max as usize);
        let mut entries = Vec::with_capacity(page.entries.len());
        let mut bytes = 0;
        let mut more = page.more;
        for info in &page.entries {
            // Five words of fields and one pointer, then the name.
            bytes += 48 + info.name.len().next_multiple_of(8);
            if bytes > LISTING_BYTES_MAX {
                more = true;
                break;
            }
            entries.push(ManifestEntry {
                name: &info.name,
                generation: info.generation,
                length: info.length,
                chunk_count: info.chunk_count,
                chunk_bytes: info.chunk_bytes,
            });
        }
        let reply = ListManifestsReply { entries: List::from(&entries), more };
        self.finish(call.name, Status::Ok, ResponseWhich::ListManifests(reply));
    }
}
