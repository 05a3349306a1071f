//! The words the store's callers speak: identifiers, checksums, keys, values, outcomes and errors.

use memkv_wire::checksum;

/// Values are checksummed in blocks of this size; the last block may be shorter.
pub const BLOCK_BYTES: usize = 1 << 20;
/// The unit of every aligned device transfer.
pub const SECTOR_BYTES: usize = 4096;
pub const VALUE_BYTES_MAX: u64 = 1 << 30;
pub const KEY_BYTES_MAX: usize = 512;
pub const NAMESPACE_BYTES_MAX: usize = 255;
pub const MANIFEST_NAME_BYTES_MAX: usize = 1024;
pub const MANIFEST_BODY_BYTES_MAX: u64 = 64 << 20;
pub const MANIFEST_CHUNKS_MAX: usize = 1 << 20;

/// Whoever holds leases: one number for each session of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// The caller's own number for a request that ends in an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A value that is being written piecewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u64);

/// Keeps the bytes of one read where they are until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PinId(pub u64);

/// XXH3-128 in canonical (big-endian) form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Checksum(pub [u8; 16]);

impl Checksum {
    /// The checksum of one block's bytes.
    pub fn of_block(bytes: &[u8]) -> Self {
        Self(checksum::block(bytes))
    }

    /// A value's checksum: that of the list of its blocks' checksums.
    pub fn of_blocks<'a>(blocks: impl IntoIterator<Item = &'a Checksum>) -> Self {
        Self(checksum::value(blocks.into_iter().map(|block| &block.0)))
    }

    /// The checksum of a whole value that lies in one slice.
    pub fn of_value(bytes: &[u8]) -> Self {
        let blocks: Vec<_> = bytes.chunks(BLOCK_BYTES).map(Self::of_block).collect();
        Self::of_blocks(&blocks)
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A value's full name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<'a> {
    pub namespace: &'a [u8],
    pub key: &'a [u8],
}

impl<'a> Key<'a> {
    pub fn new(namespace: &'a [u8], key: &'a [u8]) -> Self {
        Self { namespace, key }
    }
}

/// One block of a value: at most [`BLOCK_BYTES`], all but the last exactly that.
///
/// The checksum is that of the bytes; the caller verified it, the store does not touch the bytes.
#[derive(Clone, Debug)]
pub struct Block<B> {
    pub bytes: B,
    pub checksum: Checksum,
}

/// What the store knows about a value without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    pub length: u64,
    pub checksum: Checksum,
}

/// What a manifest does on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The name and the chunks are here.
    Both,
    /// Only the references: not listed, and kept for each generation until deleted.
    Refs,
    /// Only the name and the body: the chunks are not checked here.
    Home,
}

/// Which manifests of a name a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The published one (role `Both` or `Home`).
    Published,
    /// Those of role `Refs`, of every generation the call allows.
    Refs,
}

/// A chunk that a manifest names.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRef<'a> {
    pub key: &'a [u8],
    pub length: u64,
    pub checksum: Option<Checksum>,
}

/// A manifest to publish.
#[derive(Clone, Debug)]
pub struct PutManifest<'a, B> {
    pub namespace: &'a [u8],
    pub name: &'a [u8],
    /// `None` lets the store choose the next one.
    pub generation: Option<u64>,
    pub role: Role,
    pub chunks: &'a [ChunkRef<'a>],
    /// The body's blocks, none for an empty body.
    pub body: Vec<Block<B>>,
    pub lease_ms: u64,
}

/// A published manifest, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    pub name: Vec<u8>,
    pub generation: u64,
    /// The body's.
    pub length: u64,
    /// The body's.
    pub checksum: Checksum,
    pub chunk_count: u32,
    pub chunk_bytes: u64,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPage {
    pub entries: Vec<ManifestInfo>,
    pub more: bool,
}

/// The end of a request.
#[derive(Debug)]
pub struct Event {
    pub ticket: Ticket,
    pub result: Result<Outcome, StoreError>,
}

/// How a request ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value is visible; `already_present` when it was before and nothing was written.
    Stored { value: ValueInfo, already_present: bool },
    /// The piece is on its device.
    PieceWritten,
    /// Durably gone.
    Deleted,
    /// Visible and durable, as are all the chunks it names, which are leased for so long; 0: they are not.
    ManifestStored { generation: u64, lease_ms: u64 },
    /// Nothing was stored. `missing` are places in the list of chunks; the others were leased.
    ManifestIncomplete { missing: Vec<u32> },
    /// Nothing was stored: these chunks are stored with another length or checksum.
    ManifestConflict { chunks: Vec<u32> },
    /// Durably gone. The highest generation that was removed.
    ManifestDeleted { generation: u64 },
    /// Every acknowledged write before this is durable.
    Synced,
    /// Nothing is in flight, everything is durable, and the store accepts nothing more.
    Stopped,
}

/// Why a request failed, and whose doing it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("no space: nothing may be evicted at this moment")]
    OutOfSpace,
    #[error("another value is stored under this key ({length} bytes, checksum {checksum:?})")]
    Conflict { length: u64, checksum: Checksum },
    #[error("not stored")]
    NotFound,
    #[error("longer than the limit of {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("a key, name or namespace is empty or too long")]
    InvalidKey,
    #[error("the range or the blocks do not fit the value")]
    InvalidRange,
    #[error("the namespace's quota of {bytes_max} bytes is used up")]
    QuotaExceeded { bytes_max: u64 },
    #[error("device {device} failed")]
    DeviceFailed { device: u16 },
    #[error("a chunk that the manifest names was damaged meanwhile")]
    ChunkLost,
    #[error("the allocation is unknown, finished, or its lease ended")]
    LeaseExpired,
    #[error("{manifests} manifests name the value")]
    Referenced { manifests: u32 },
    #[error("another client holds a lease on the value until {until_ms} ms")]
    Leased { until_ms: u64 },
    #[error("the value's checksum is {actual:?}, not the expected one")]
    ChecksumMismatch { actual: Checksum },
    #[error("{missing} blocks of the allocation were not written")]
    Incomplete { missing: u32 },
    #[error("generation {current} is stored")]
    StaleGeneration { current: u64 },
    #[error("the store's limit on {what} is reached")]
    TooMany { what: Limit },
    #[error("the store is stopping")]
    Stopping,
}

/// A bounded resource of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Leases,
    Allocations,
    Namespaces,
    Values,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::Leases => "leases",
            Limit::Allocations => "open allocations",
            Limit::Namespaces => "namespaces",
            Limit::Values => "values",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_one_block_hashes_the_list_of_one() {
        // Both computed with Python's xxhash package; the second is xxh3_128(xxh3_128_digest(b"memkv")).
        assert_eq!(format!("{:?}", Checksum::of_block(b"")), "99aa06d3014798d86001c324468d497f");
        assert_eq!(format!("{:?}", Checksum::of_value(b"memkv")), "58915e9b1ab068e44cee56dc446197cb");
    }
}
