//! Manifests: published with their references, read back whole, listed in pages.

use memkv_transport::buf::Buf;
use memkv_wire::{
    ChunkReference, DeleteManifest, GetManifest, List, ManifestRole, PutManifest, Request, RequestWhich,
    ResponseWhich, Status, checksum, limits,
};

use super::read::Value;
use super::write::value_checksum;
use super::{
    CONTROL_FILL_SIZE_BYTES, FRAME_ITEMS_MAX, PAYLOAD_SIZE_BYTES_MAX, check_key, check_name, check_value,
    data_size_bytes, refusal, with_response,
};
use crate::core::{Message, Reply};
use crate::error::{ApiMisuse, Error, PeerMisbehaved, StorageError};

/// A chunk that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// What it is stored under.
    pub key: &'a [u8],
    /// The length of its value.
    pub length: u64,
    /// The checksum of its value; when given, another value under the key is a conflict.
    pub checksum: Option<&'a checksum::Checksum>,
}

/// What came of publishing a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is visible, and it and all it names are durable.
    Committed {
        /// Its generation.
        generation: u64,
        /// How long all it names is safe from eviction, whatever becomes of the manifest; 0: not at all.
        lease_ms: u32,
    },
    /// Nothing changed: these chunks are not stored. Those that are were leased, for so long.
    Missing {
        /// Places in the list of references, ascending.
        chunks: Vec<u32>,
        /// How long the others are safe.
        lease_ms: u32,
    },
    /// Nothing changed: these chunks are stored with another length or checksum.
    Conflict {
        /// Places in the list of references, ascending.
        chunks: Vec<u32>,
    },
    /// Nothing changed: a manifest of this, or a later, generation is stored.
    Stale {
        /// Its generation.
        generation: u64,
    },
}

// What a reference takes at most: its data section and pointers, and its checksum.
const REFERENCE_SIZE_BYTES: usize = 32 + 16;
const NAME_SIZE_BYTES_MAX: usize = limits::MANIFEST_NAME_SIZE_BYTES_MAX as usize;

/// Fills a message with a manifest. `generation` 0 lets the server choose the next one.
pub fn put_manifest(
    message: &mut Message,
    namespace: &[u8],
    name: &[u8],
    generation: u64,
    references: &[Reference<'_>],
    body: &[Buf],
) -> Result<(), Error> {
    check_name(name)?;
    check_manifest(references, body)?;
    let length = body.iter().map(|part| part.len() as u64).sum();
    let checksum = value_checksum(body);
    let mut parts = Payloads { parts: body, start: 0 };
    let mut rest = references;
    let mut chunks = Vec::new();
    loop {
        chunks.clear();
        let mut control_size_bytes = NAME_SIZE_BYTES_MAX;
        while let Some((reference, later)) = rest.split_first().filter(|_| chunks.len() < FRAME_ITEMS_MAX) {
            control_size_bytes += REFERENCE_SIZE_BYTES + data_size_bytes(reference.key.len());
            if control_size_bytes > CONTROL_FILL_SIZE_BYTES {
                break;
            }
            let Reference { key, length, checksum } = *reference;
            chunks.push(ChunkReference { key, length, checksum });
            rest = later;
        }
        let which = RequestWhich::PutManifest(PutManifest {
            name,
            generation,
            role: ManifestRole::Both,
            length,
            checksum: &checksum,
            chunks: List::from(chunks.as_slice()),
        });
        message.push(&Request { namespace, which })?;
        parts.attach(message);
        if rest.is_empty() && parts.parts.is_empty() {
            return Ok(());
        }
    }
}

fn check_manifest(references: &[Reference<'_>], body: &[Buf]) -> Result<(), ApiMisuse> {
    let max = limits::MANIFEST_CHUNKS_MAX as usize;
    if references.len() > max {
        return Err(ApiMisuse::ManifestChunks { count: references.len(), max });
    }
    for reference in references {
        check_key(reference.key)?;
        check_value(reference.length)?;
    }
    let max = u64::from(limits::MANIFEST_SIZE_BYTES_MAX);
    let size_bytes = body.iter().map(|part| part.len() as u64).sum();
    if size_bytes > max {
        return Err(ApiMisuse::ManifestSize { size_bytes, max });
    }
    Ok(())
}

/// What is left of a body.
struct Payloads<'a> {
    parts: &'a [Buf],
    start: usize,
}

impl Payloads<'_> {
    /// Attaches as much as a frame takes.
    fn attach(&mut self, message: &mut Message) {
        let mut room = PAYLOAD_SIZE_BYTES_MAX;
        while let Some(part) = self.parts.first() {
            let take = room.min(part.len() - self.start);
            if take > 0 {
                message.attach(part.slice(self.start..self.start + take));
            }
            room -= take;
            self.start += take;
            if self.start < part.len() {
                return;
            }
            self.parts = &self.parts[1..];
            self.start = 0;
        }
    }
}

/// The reply to a `PutManifest`, being put together.
#[derive(Debug)]
pub struct PutManifestReplies {
    count: usize,
    listed: Vec<u32>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    generation: u64,
    lease_ms: u32,
    refused: Option<StorageError>,
}

impl PutManifestReplies {
    /// For a manifest with so many references.
    pub fn new(count: usize) -> Self {
        Self { count, listed: Vec::new(), last: None }
    }

    /// Forgets the frames of an attempt that was cut off.
    pub fn restart(&mut self) {
        self.listed.clear();
        self.last = None;
    }

    /// Takes a frame.
    pub fn frame(&mut self, frame: &Reply) -> Result<(), PeerMisbehaved> {
        with_response(frame, |response| {
            let refused = (response.status != Status::Ok).then(|| refusal(response));
            let ResponseWhich::PutManifest(reply) = response.which else {
                // Only a server that does not know the operation answers with another arm.
                self.last = Some(Last { generation: 0, lease_ms: 0, refused });
                return Ok(());
            };
            if matches!(response.status, Status::MissingChunks | Status::Conflict) {
                self.listed.extend(reply.missing.iter());
            }
            if self.listed.len() > self.count || self.listed.iter().any(|&place| place as usize >= self.count)
            {
                return Err(PeerMisbehaved::Missing);
            }
            self.last = Some(Last { generation: reply.generation, lease_ms: reply.lease_ms, refused });
            Ok(())
        })
    }

    /// The whole reply.
    pub fn finish(mut self) -> Result<Published, Error> {
        let last = self.last.ok_or(PeerMisbehaved::Results)?;
        let Some(refused) = last.refused else {
            return Ok(Published::Committed { generation: last.generation, lease_ms: last.lease_ms });
        };
        self.listed.sort_unstable();
        self.listed.dedup();
        match refused.status {
            Status::MissingChunks if self.listed.is_empty() => Err(PeerMisbehaved::Missing.into()),
            Status::MissingChunks => Ok(Published::Missing { chunks: self.listed, lease_ms: last.lease_ms }),
            Status::Conflict => Ok(Published::Conflict { chunks: self.listed }),
            Status::StaleGeneration => Ok(Published::Stale { generation: last.generation }),
            //= MKV-STAT-1
            _ => Err(refused.into()),
        }
    }
}

/// Fills a message that asks for a manifest.
pub fn get_manifest(
    message: &mut Message,
    namespace: &[u8],
    name: &[u8],
    lease_ms: u32,
) -> Result<(), Error> {
    check_name(name)?;
    let which = RequestWhich::GetManifest(GetManifest { name, lease_ms });
    message.push(&Request { namespace, which })?;
    Ok(())
}

/// A manifest as it is stored.
#[derive(Debug, Clone)]
pub struct StoredManifest {
    /// Its generation.
    pub generation: u64,
    /// Its body.
    pub body: Value,
    /// How long its chunks are safe from eviction.
    pub lease_ms: u32,
}

/// The reply to a `GetManifest`, being put together.
#[derive(Debug, Default)]
pub struct GetManifestReplies {
    body: Value,
    received_bytes: u64,
    head: Option<Head>,
    refused: Option<StorageError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    generation: u64,
    length: u64,
    checksum: Option<checksum::Checksum>,
    lease_ms: u32,
}

impl GetManifestReplies {
    /// Forgets the frames of an attempt that was cut off.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Takes a frame.
    pub fn frame(&mut self, frame: &Reply) -> Result<(), PeerMisbehaved> {
        with_response(frame, |response| {
            if response.status != Status::Ok {
                self.refused = Some(refusal(response));
                return Ok(());
            }
            let ResponseWhich::GetManifest(reply) = response.which else {
                return Err(PeerMisbehaved::WrongOperation);
            };
            let head = Head {
                generation: reply.generation,
                length: reply.length,
                checksum: reply.checksum.copied(),
                lease_ms: reply.lease_ms,
            };
            if *self.head.get_or_insert(head) != head {
                return Err(PeerMisbehaved::Manifest);
            }
            if let Some(payload) = frame.payload.as_ref().filter(|payload| !payload.is_empty()) {
                self.body.add(self.received_bytes, payload.clone());
                self.received_bytes += payload.len() as u64;
            }
            if self.received_bytes > head.length { Err(PeerMisbehaved::Manifest) } else { Ok(()) }
        })
    }

    /// The whole reply; `None` if there is no manifest of this name.
    pub fn finish(self) -> Result<Option<StoredManifest>, Error> {
        match self.refused {
            Some(refused) if refused.status == Status::NotFound => return Ok(None),
            Some(refused) => return Err(refused.into()),
            None => {}
        }
        let head = self.head.ok_or(PeerMisbehaved::Results)?;
        if self.received_bytes != head.length {
            return Err(PeerMisbehaved::Manifest.into());
        }
        let parts: Vec<Buf> = self.body.parts().cloned().collect();
        if head.checksum.is_some_and(|theirs| theirs != value_checksum(&parts)) {
            return Err(PeerMisbehaved::Checksum.into());
        }
        Ok(Some(StoredManifest { generation: head.generation, body: self.body, lease_ms: head.lease_ms }))
    }
}

/// Fills a message that deletes a manifest: of this generation or an earlier one; 0: whichever is stored.
pub fn delete_manifest(
    message: &mut Message,
    namespace: &[u8],
    name: &[u8],
    generation: u64,
) -> Result<(), Error> {
    check_name(name)?;
    let which = RequestWhich::DeleteManifest(DeleteManifest { name, generation });
    message.push(&Request { namespace, which })?;
    Ok(())
}

/// What came of deleting a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// There was none of this name.
    Absent,
    /// A later one is stored, and was left.
    Stale {
        /// Its generation.
        generation: u64,
        /// What the server said.
        refused: StorageError,
    },
}

impl Deleted {
    /// Whether there was a manifest to delete.
    pub fn existed(self) -> Result<bool, StorageError> {
        match self {
            Self::Gone => Ok(true),
            Self::Absent => Ok(false),
            Self::Stale { refused, .. } => Err(refused),
        }
    }
}

/// What the reply to a `DeleteManifest` says, in its only frame.
pub fn deleted(frame: &Reply) -> Result<Result<Deleted, StorageError>, PeerMisbehaved> {
    with_response(frame, |response| match (response.status, response.which) {
        (Status::Ok, ResponseWhich::DeleteManifest(_)) => Ok(Ok(Deleted::Gone)),
        (Status::Ok, _) => Err(PeerMisbehaved::WrongOperation),
        (Status::NotFound, _) => Ok(Ok(Deleted::Absent)),
        (Status::StaleGeneration, ResponseWhich::DeleteManifest(reply)) => {
            Ok(Ok(Deleted::Stale { generation: reply.generation, refused: refusal(response) }))
        }
        //= MKV-STAT-1
        _ => Ok(Err(refusal(response))),
    })
}
