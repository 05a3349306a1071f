// The limits of the protocol.
// Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew.

/// In bytes.
/// The control message of one frame.
/// \[MKV-LIM-1\] A receiver MUST check every length against these limits before it reserves memory for it, and MUST close the connection when a
/// frame's length exceeds its limit.
pub const CONTROL_SIZE_BYTES_MAX: u32 = 262144;

/// In bytes.
/// A whole hello frame. Also all that a server holds for a connection before the first frame under derived keys.
pub const HELLO_SIZE_BYTES_MAX: u32 = 4096;

/// In bytes.
/// The payload of one frame.
pub const PAYLOAD_SIZE_BYTES_MAX: u32 = 1048576;

/// In bytes.
/// Checksums are made over blocks of a value of this size; the last block may be shorter.
pub const BLOCK_SIZE_BYTES: u32 = 1048576;

/// In bytes.
pub const VALUE_SIZE_BYTES_MAX: u64 = 1073741824;

/// In bytes.
pub const KEY_SIZE_BYTES_MAX: u32 = 512;

/// In bytes.
pub const NAMESPACE_SIZE_BYTES_MAX: u32 = 255;

/// In bytes.
pub const MANIFEST_NAME_SIZE_BYTES_MAX: u32 = 1024;

/// In bytes.
/// A manifest's body, whatever its format.
pub const MANIFEST_SIZE_BYTES_MAX: u32 = 67108864;

/// In chunks.
pub const MANIFEST_CHUNKS_MAX: u32 = 1048576;

/// In items.
/// The keys or items of one Exists, Delete, BatchRead or BatchWrite message, over all its frames.
pub const BATCH_ITEMS_MAX: u32 = 4096;

/// In items.
/// The pieces or chunk references listed in one frame.
pub const FRAME_ITEMS_MAX: u32 = 4096;

/// In entries.
/// The entries of one ListManifests reply.
pub const LIST_ENTRIES_MAX: u32 = 1024;

/// In requests.
/// The requests of one connection that are not answered yet. \[MKV-LIM-2\] A server MUST NOT accept more; it closes the connection.
pub const REQUESTS_IN_FLIGHT_MAX: u32 = 256;

/// In ms.
pub const LEASE_MS_DEFAULT: u32 = 10000;

/// In ms.
pub const LEASE_MS_MAX: u32 = 60000;

/// In leases.
pub const LEASES_PER_CLIENT_MAX: u32 = 1048576;

/// In ms.
/// The life of a connection that has not yet sent a frame under derived keys.
pub const SETUP_TIMEOUT_MS: u32 = 5000;

/// In connections.
/// Such connections on the whole server.
pub const SETUP_CONNECTIONS_MAX: u32 = 256;

/// In retries.
pub const PUT_MANIFEST_RETRIES_MAX: u32 = 4;

/// In regions.
/// The regions one connection has registered.
pub const REGIONS_MAX: u32 = 64;

/// In bytes.
pub const DETAIL_SIZE_BYTES_MAX: u32 = 512;

/// In bytes.
/// A chunk hash in the `kv_store_v1` ABI.
pub const HASH_SIZE_BYTES_MAX: u32 = 64;
