@0xb1d2a6f0c3e94a52;
using Spec = import "spec.capnp";

# ---------------------------------------------------------------- frame header

const protocolVersion :UInt8 = 1 $Spec.layout;
# The version of this specification.

const frameMagic :UInt32 = 0x31564b4d $Spec.layout;
# The bytes `MKV1`.
# [MKV-FRAME-2] A receiver MUST close the connection when the first four bytes of a frame are anything else.

const frameMagicOffset :UInt8 = 0 $Spec.layout;
const frameVersionOffset :UInt8 = 4 $Spec.layout;
# [MKV-FRAME-3] The MAC is checked before the version. Bytes 0 to 31 and the place of the MAC never change in any version.
const frameKindOffset :UInt8 = 5 $Spec.layout;
const frameFlagsOffset :UInt8 = 6 $Spec.layout;
const frameControlWordsOffset :UInt8 = 8 $Spec.layout;
const frameIdOffset :UInt8 = 12 $Spec.layout;
# The key id in hello frames, the request id in all others.
const framePayloadLengthOffset :UInt8 = 16 $Spec.layout;
const frameCreditsOffset :UInt8 = 20 $Spec.layout;
# Not used: a queue pair's credits ride beside its frames, see `QueuePair`. [MKV-FRAME-4] It MUST be 0; a receiver closes the connection
# when it is not.
const frameSequenceOffset :UInt8 = 24 $Spec.layout;
const frameMacOffset :UInt8 = 32 $Spec.layout;
# HMAC-SHA256 over header bytes 0 to 31 and the control message.
# [MKV-FRAME-5] A receiver MUST verify the MAC, in constant time, before it acts on anything in the frame but its lengths, and MUST close
# the connection when it does not hold.
const frameHeaderSizeBytes :UInt32 = 64 $Spec.layout;
# [MKV-FRAME-1] A frame is a 64-byte header, a control message of whole 8-byte words, and, when the payload length is not zero,
# the payload and its 32-byte tag, with nothing between them. All integers are little-endian.
const frameTagSizeBytes :UInt32 = 32 $Spec.layout;
# A payload's tag is the negotiated bulk MAC over the frame's 64-byte header and the payload.
# [MKV-FRAME-6] No byte of a payload may become visible to anyone before its tag held; when it does not hold the receiver MUST close the
# connection.

const frameFlagLast :UInt16 = 1 $Spec.layout;
# The last frame of its message. [MKV-FRAME-7] Other flag bits MUST be sent as 0 and MUST be ignored when received.

enum FrameKind {
  reserved @0;
  hello @1;
  # Session set-up: `Connect` and its reply.
  request @2;
  # From the side that connected.
  response @3;
  # From the side that accepted. [MKV-FRAME-8] A frame of a kind that this side does not expect closes the connection.
}

# ---------------------------------------------------------------- limits

const controlSizeBytesMax :UInt32 = 262144 $Spec.limit("bytes");
# The control message of one frame.
# [MKV-LIM-1] A receiver MUST check every length against these limits before it reserves memory for it, and MUST close the connection when a
# frame's length exceeds its limit.
const helloSizeBytesMax :UInt32 = 4096 $Spec.limit("bytes");
# A whole hello frame. Also all that a server holds for a connection before the first frame under derived keys.
const payloadSizeBytesMax :UInt32 = 1048576 $Spec.limit("bytes");
# The payload of one frame.
const blockSizeBytes :UInt32 = 1048576 $Spec.limit("bytes");
# Checksums are made over blocks of a value of this size; the last block may be shorter.
const valueSizeBytesMax :UInt64 = 1073741824 $Spec.limit("bytes");
const keySizeBytesMax :UInt32 = 512 $Spec.limit("bytes");
const namespaceSizeBytesMax :UInt32 = 255 $Spec.limit("bytes");
const manifestNameSizeBytesMax :UInt32 = 1024 $Spec.limit("bytes");
const manifestSizeBytesMax :UInt32 = 67108864 $Spec.limit("bytes");
# A manifest's body, whatever its format.
const manifestChunksMax :UInt32 = 1048576 $Spec.limit("chunks");
const batchItemsMax :UInt32 = 4096 $Spec.limit("items");
# The keys or items of one Exists, Delete, BatchRead or BatchWrite message, over all its frames.
const frameItemsMax :UInt32 = 4096 $Spec.limit("items");
# The pieces or chunk references listed in one frame.
const listEntriesMax :UInt32 = 1024 $Spec.limit("entries");
# The entries of one ListManifests reply.
const requestsInFlightMax :UInt32 = 256 $Spec.limit("requests");
# The requests of one connection that are not answered yet. [MKV-LIM-2] A server MUST NOT accept more; it closes the connection.
const leaseMsDefault :UInt32 = 10000 $Spec.limit("ms");
const leaseMsMax :UInt32 = 60000 $Spec.limit("ms");
const leasesPerClientMax :UInt32 = 1048576 $Spec.limit("leases");
const setupTimeoutMs :UInt32 = 5000 $Spec.limit("ms");
# The life of a connection that has not yet sent a frame under derived keys.
const setupConnectionsMax :UInt32 = 256 $Spec.limit("connections");
# Such connections on the whole server.
const putManifestRetriesMax :UInt32 = 4 $Spec.limit("retries");
const regionsMax :UInt32 = 64 $Spec.limit("regions");
# The regions one connection has registered.
const detailSizeBytesMax :UInt32 = 512 $Spec.limit("bytes");
const hashSizeBytesMax :UInt32 = 64 $Spec.limit("bytes");
# A chunk hash in the `kv_store_v1` ABI.

# ---------------------------------------------------------------- statuses

enum Status {
  # [MKV-STAT-1] A status that the receiver does not know MUST be treated as a failure that must not be retried; it is never taken for `ok`.
  ok @0 $Spec.atFault(nobody) $Spec.mayRetry(no);
  notFound @1 $Spec.atFault(nobody) $Spec.mayRetry(no);
  # No such value or manifest: a miss.
  conflict @2 $Spec.atFault(caller) $Spec.mayRetry(no);
  # A value with another length or checksum is stored under this key.
  missingChunks @3 $Spec.atFault(nobody) $Spec.mayRetry(no);
  # PutManifest committed nothing: the listed chunks are not stored. Those that are were leased.
  outOfSpace @4 $Spec.atFault(server) $Spec.mayRetry(afterDelay);
  # Nothing may be evicted at this moment.
  quotaExceeded @5 $Spec.atFault(caller) $Spec.mayRetry(afterDelay);
  tooLarge @6 $Spec.atFault(caller) $Spec.mayRetry(no);
  invalid @7 $Spec.atFault(caller) $Spec.mayRetry(no) $Spec.anyOperation;
  # The request is well formed, but its fields contradict one another or break a limit.
  unsupported @8 $Spec.atFault(caller) $Spec.mayRetry(no) $Spec.anyOperation;
  # The server knows the operation but not this use of it.
  unsupportedVersion @9 $Spec.atFault(caller) $Spec.mayRetry(no);
  unknownOperation @10 $Spec.atFault(caller) $Spec.mayRetry(no) $Spec.anyOperation;
  checksumMismatch @11 $Spec.atFault(peer) $Spec.mayRetry(resend);
  # The bytes are not those the checksum was made of.
  leaseExpired @12 $Spec.atFault(caller) $Spec.mayRetry(no);
  # The allocation is unknown: never made, finished, or reclaimed when its lease ended.
  staleGeneration @13 $Spec.atFault(caller) $Spec.mayRetry(no);
  # A manifest of the same or a later generation is stored under this name.
  referenced @14 $Spec.atFault(caller) $Spec.mayRetry(no);
  # A manifest names the value: it cannot be deleted alone.
  busy @15 $Spec.atFault(server) $Spec.mayRetry(afterDelay) $Spec.anyOperation;
  # A limit of the server is reached (leases, memory, open writes).
  storageFailed @16 $Spec.atFault(server) $Spec.mayRetry(no) $Spec.anyOperation;
  # The device failed; nothing was acknowledged.
  shuttingDown @17 $Spec.atFault(server) $Spec.mayRetry(afterDelay) $Spec.anyOperation;
  internal @18 $Spec.atFault(server) $Spec.mayRetry(no) $Spec.anyOperation;
}

# ---------------------------------------------------------------- shared structs

struct Region {
  # A place in memory that the client registered on this connection.
  # [MKV-REG-1] A server MUST refuse, with `invalid`, a place outside the registered bytes.
  # [MKV-REG-3] The pieces of one frame, inline and in regions, have together at most `payloadSizeBytesMax` bytes; a message with a frame of more
  # is `invalid`.
  # [MKV-REG-6] When a connection ends, the server closes its side after its last access to memory that was registered on it; until then a client
  # MUST NOT use memory again that an unanswered request named.
  # [MKV-REG-5] A server MUST copy bytes out of shared memory before it verifies them, and store that copy.
  id @0 :UInt32;
  offset @1 :UInt64;
  mac @2 :Data $Spec.optional $Spec.len(32);
  # Over RDMA, in the piece that brings the bytes, whoever sends it: the negotiated bulk MAC of that direction over 64 bytes, the ASCII text
  # `memkv region` and zeros, and the bytes. Through shared memory it is absent or ignored.
  # [MKV-REG-7] Bytes that came one-sided MUST NOT become visible before this MAC, beside the checksum, held on the receiver's own copy; a piece
  # of a request without it, or whose MAC does not hold, fails with `checksumMismatch`. A receiver whose operator said so may check a sample
  # of the pieces, or none.
}

struct RegionDescriptor {
  # A registration. [MKV-REG-2] Regions belong to one connection and end with it.
  id @0 :UInt32;
  length @1 :UInt64 $Spec.min(1);
  union {
    sharedMemory @2 :Void;
    # The file descriptor rides beside this frame, or an earlier one, on the local transport; one per descriptor, in order.
    # [MKV-REG-4] A server MUST refuse, with `invalid`, any file but a memory file of ordinary pages that is sealed against shrinking and has at least
    # `length` bytes.
    rdma @3 :RdmaMemory;
  }
}

struct RdmaMemory {
  # Memory that the server reaches one-sided, over this connection's queue pair: with RDMA READ for what is written, with RDMA WRITE for
  # what is read. Only a connection over a queue pair can register it; elsewhere it is `unsupported`.
  # [MKV-REG-8] A client MUST register it in a protection domain in which no queue pair leads to anyone but this server, and a server
  # MUST NOT let its own memory be reached at all. A region that does not end within 64 bits of address is `invalid`.
  # [MKV-REG-9] The bytes of a read are written before the SEND that names them on the same queue pair.
  address @0 :UInt64;
  remoteKey @1 :UInt32;
}

struct QueuePair {
  # One side of an RDMA reliable connection over RoCE. Once both sides know the other's, all frames go over it: the bytes that the stream would
  # carry, in order, cut into SENDs anywhere. The stream carries nothing more; its end is the end of the connection.
  # [MKV-RDMA-1] Every SEND has immediate data, 32 bits: bits 0 to 15 are the SENDs with bytes, bits 16 to 23 the empty SENDs, that its receiver
  # may send more than it was told before; the others are 0. A side MUST NOT send what it was not granted, so that no SEND meets an empty
  # receive queue.
  # [MKV-RDMA-2] A side MUST always have receives posted for 4 empty SENDs beside those that it granted, and post them again without waiting
  # for whoever reads the bytes: a grant never waits for a reader. Both sides begin with 4 empty SENDs granted.
  # [MKV-RDMA-3] A SEND has at most 16384 bytes. A side that reads none for too long is given up as on any stream.
  # [MKV-RDMA-4] A server grants nothing in its reply, and holds no memory for a queue pair, before the client has confirmed; it then grants with
  # an empty SEND. A client that asks has its receives posted, and says how many are for SENDs with bytes in `receiveCredits`.
  # [MKV-RDMA-5] A server that has no queue pair to give answers `stream`, and the connection goes on over the stream.
  number @0 :UInt32;
  packetSequence @1 :UInt32;
  # Of its first packet, 24 bits.
  gid @2 :Data $Spec.len(16);
  # The port's address.
  pathMtuBytes @3 :UInt32;
  # [MKV-RDMA-6] The smaller one of both sides' is used.
  receiveCredits @4 :UInt32;
  readsMax @5 :UInt16;
  # [MKV-RDMA-7] The RDMA READs that this side serves at a time; the other one MUST NOT have more under way. 0 for a side that lets nobody
  # reach its memory.
}

struct Piece {
  # Consecutive bytes of one value.
  # [MKV-VAL-1] A piece begins at a multiple of `blockSizeBytes` and does not cross a block's end, unless it answers a read of a range that
  # begins inside a block.
  # [MKV-VAL-2] Inline bytes of a frame's pieces follow one another in the payload in the order of the list, with nothing between; their
  # lengths add up to the payload length.
  index @0 :UInt32 $Spec.max(4095);
  # The item of the batch that it belongs to; 0 in Read and Write.
  offset @1 :UInt64 $Spec.max(1073741824);
  length @2 :UInt32 $Spec.max(1048576);
  checksum @3 :Data $Spec.optional $Spec.len(16);
  # XXH3-128 of the piece's bytes, canonical (big-endian) form.
  # [MKV-VAL-3] A receiver MUST verify it before the bytes become visible; one that does not hold fails its item with `checksumMismatch`.
  union {
    inline @4 :Void;
    region @5 :Region;
  }
}

struct ChunkReference {
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  length @1 :UInt64 $Spec.min(1) $Spec.max(1073741824);
  checksum @2 :Data $Spec.optional $Spec.len(16);
  # The value's checksum: XXH3-128 over the list of its blocks' checksums.
}
