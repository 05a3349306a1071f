@0xb1d2a6f0c3e94a54;
using Spec = import "spec.capnp";
using Types = import "types.capnp";
using Session = import "session.capnp";

# Every operation. One set serves every transport: where the bytes of a piece are is said in the piece.

struct Request $Spec.message("controlSizeBytesMax") {
  # A message is one or more frames of one request id and one operation; the last has `frameFlagLast`.
  # [MKV-MSG-1] A request id MUST NOT be used again on a connection before its reply's last frame arrived; that frame is sent only after
  # the message's last frame came in, however early it failed.
  # [MKV-MSG-2] Frames of different messages may interleave, and replies come in any order.
  # [MKV-MSG-3] Each frame is complete in itself: it lists the pieces, results or references it carries, and repeats the scalar fields of
  # its message. A frame that contradicts the first one of its message ends the message with `invalid`.
  # [MKV-MSG-4] A reply frame that carries bytes is sent only after these were read and verified; what fails later is told in a later
  # frame of the same reply.
  # [MKV-MSG-5] A message whose operation the receiver does not know is answered with `unknownOperation`; the connection goes on.
  # [MKV-MSG-6] A control message that is not a valid Cap'n Proto message, or breaks a bound of this specification, closes the connection.
  namespace @0 :Data $Spec.lenMax(255);
  # Keeps tenants from colliding: keys and names of different namespaces are different. No security boundary.
  union {
    connect @1 :Session.Connect $Spec.opcode(0) $Spec.since(1) $Spec.setup $Spec.idempotent(true) $Spec.payload(none)
        $Spec.errors(["unsupportedVersion"]);
    allocate @2 :Allocate $Spec.opcode(1) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none)
        $Spec.errors(["conflict", "outOfSpace", "quotaExceeded", "tooLarge"]);
    lookup @3 :Lookup $Spec.opcode(2) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none) $Spec.errors(["notFound"]);
    commit @4 :Commit $Spec.opcode(3) $Spec.since(1) $Spec.idempotent(false) $Spec.payload(none)
        $Spec.errors(["leaseExpired", "conflict", "checksumMismatch"]);
    delete @5 :Delete $Spec.opcode(4) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(frames)
        $Spec.errors(["notFound", "referenced"]);
    exists @6 :Exists $Spec.opcode(5) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(frames) $Spec.errors([]);
    read @7 :Read $Spec.opcode(6) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none)
        $Spec.errors(["notFound", "checksumMismatch"]);
    write @8 :Write $Spec.opcode(7) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(pieces)
        $Spec.errors(["conflict", "outOfSpace", "quotaExceeded", "tooLarge", "leaseExpired", "checksumMismatch"]);
    batchRead @9 :BatchRead $Spec.opcode(8) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(frames)
        $Spec.errors(["notFound", "checksumMismatch"]);
    batchWrite @10 :BatchWrite $Spec.opcode(9) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(pieces)
        $Spec.errors(["conflict", "outOfSpace", "quotaExceeded", "tooLarge", "checksumMismatch"]);
    putManifest @11 :PutManifest $Spec.opcode(10) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(body)
        $Spec.errors(["missingChunks", "conflict", "staleGeneration", "outOfSpace", "quotaExceeded", "tooLarge", "checksumMismatch"]);
    getManifest @12 :GetManifest $Spec.opcode(11) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none)
        $Spec.errors(["notFound"]);
    deleteManifest @13 :DeleteManifest $Spec.opcode(12) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none)
        $Spec.errors(["notFound", "staleGeneration"]);
    listManifests @14 :ListManifests $Spec.opcode(13) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none)
        $Spec.errors([]);
    ping @15 :Ping $Spec.opcode(14) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none) $Spec.errors([]);
    stats @16 :Stats $Spec.opcode(15) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none) $Spec.errors([]);
  }
}

struct Response $Spec.message("controlSizeBytesMax") {
  # [MKV-MSG-7] The arm is that of the request; when `status` is not `ok`, all fields of the arm but those its comment names are to be ignored.
  status @0 :Types.Status;
  retryAfterMs @1 :UInt32 $Spec.max(60000);
  detail @2 :Text $Spec.lenMax(512);
  # For people and logs; its wording is no part of the protocol.
  union {
    connect @3 :Session.ConnectReply;
    allocate @4 :AllocateReply;
    lookup @5 :LookupReply;
    commit @6 :CommitReply;
    delete @7 :DeleteReply;
    exists @8 :ExistsReply;
    read @9 :ReadReply;
    write @10 :WriteReply;
    batchRead @11 :BatchReadReply;
    batchWrite @12 :BatchWriteReply;
    putManifest @13 :PutManifestReply;
    getManifest @14 :GetManifestReply;
    deleteManifest @15 :DeleteManifestReply;
    listManifests @16 :ListManifestsReply;
    ping @17 :PingReply;
    stats @18 :StatsReply;
  }
}

# ---------------------------------------------------------------- values

struct Allocate {
  # Reserves room for a value that is written piecewise: Allocate, Write with the allocation, Commit.
  # [MKV-ALLOC-1] What is not committed when the lease ends is reclaimed.
  # [MKV-ALLOC-2] If the value is already stored with this length (and this checksum, when one is given), the reply has `present` set and no allocation.
  # [MKV-ALLOC-3] An allocation serves the client that made it, and a value of this key and length: for another client it is unknown, and a Write
  # that names another key or length is `invalid`.
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  length @1 :UInt64 $Spec.min(1) $Spec.max(1073741824);
  checksum @2 :Data $Spec.optional $Spec.len(16);
  leaseMs @3 :UInt32 $Spec.max(60000);
  # 0 asks for the server's default.
}

struct AllocateReply {
  allocation @0 :UInt64;
  leaseMs @1 :UInt32;
  present @2 :Bool;
}

struct Commit {
  # Makes an allocation's value visible.
  # [MKV-COMMIT-1] A value becomes visible only when all its bytes were written and verified; otherwise the reply is `invalid` and the allocation stays.
  # [MKV-COMMIT-2] When `checksum` is given and is not that of the value written, the reply is `checksumMismatch` and nothing becomes visible.
  allocation @0 :UInt64 $Spec.min(1);
  checksum @1 :Data $Spec.optional $Spec.len(16);
}

struct CommitReply {
  checksum @0 :Data $Spec.optional $Spec.len(16);
}

struct Write {
  # Allocate, transfer and commit in one; or, with an allocation, the transfer alone.
  # [MKV-WR-1] Without an allocation the pieces of the message cover the value exactly once; it is committed when the last one is stored.
  # [MKV-WR-2] An `ok` follows the device write: the value survives the end of the server's process.
  # [MKV-WR-3] Writing a value that is stored with the same length and checksum changes nothing and is `ok`; with another it is `conflict`.
  # [MKV-WR-4] A message that ends or is cut off before the value is whole leaves nothing visible.
  # [MKV-WR-5] A new value is born leased, for the server's default time.
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  length @1 :UInt64 $Spec.min(1) $Spec.max(1073741824);
  # The whole value's.
  checksum @2 :Data $Spec.optional $Spec.len(16);
  # The whole value's. [MKV-WR-6] When given, it is verified before the value becomes visible.
  allocation @3 :UInt64;
  # 0: the message carries the whole value.
  pieces @4 :List(Types.Piece) $Spec.countMax(4096);
}

struct WriteReply {
  checksum @0 :Data $Spec.optional $Spec.len(16);
  # The value's, once it is whole.
}

struct BatchWrite {
  # Many values. [MKV-BATCH-1] Each item succeeds or fails by itself: a slow, missing or failing one never fails or delays the others.
  # [MKV-BATCH-2] The pieces of all frames cover each item's value exactly once; an item whose pieces do not is `invalid`.
  # [MKV-BATCH-3] An item's index is its place among all items of the message, in the order in which its frames list them.
  # A frame may carry pieces only of items that it or an earlier frame lists.
  items @0 :List(WriteItem) $Spec.countMax(4096);
  pieces @1 :List(Types.Piece) $Spec.countMax(4096);
}

struct WriteItem {
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  length @1 :UInt64 $Spec.min(1) $Spec.max(1073741824);
  checksum @2 :Data $Spec.optional $Spec.len(16);
}

struct BatchWriteReply {
  # Each item is answered once, in the frame that follows its completion.
  results @0 :List(WriteResult) $Spec.countMax(4096);
}

struct WriteResult {
  index @0 :UInt32 $Spec.max(4095);
  status @1 :Types.Status;
}

struct Read {
  # A value, or a range of it.
  # [MKV-RD-1] The pieces of the reply cover the range exactly once, in any order; a piece is at most one block.
  # [MKV-RD-2] The bytes are verified against the checksums that the writer made before they are sent; what does not hold is reported as a miss
  # and counted, never returned.
  # [MKV-RD-3] A range that begins at or after the value's end is `invalid`; one that ends after it is cut there.
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  offset @1 :UInt64 $Spec.max(1073741824);
  length @2 :UInt64 $Spec.max(1073741824);
  # 0: to the end.
  destination @3 :Destination;
}

struct Destination {
  # Where the bytes of a read are to go.
  union {
    inline @0 :Void;
    region @1 :Types.Region;
    # The first byte that is read goes to this place, the others behind it. [MKV-RD-4] The bytes are there before a piece of
    # the reply names them.
  }
}

struct ReadReply {
  length @0 :UInt64;
  # The whole value's.
  checksum @1 :Data $Spec.optional $Spec.len(16);
  # The whole value's.
  pieces @2 :List(Types.Piece) $Spec.countMax(4096);
}

struct BatchRead {
  # Many values or ranges. Items are counted as in BatchWrite.
  items @0 :List(ReadItem) $Spec.countMax(4096);
}

struct ReadItem {
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  offset @1 :UInt64 $Spec.max(1073741824);
  length @2 :UInt64 $Spec.max(1073741824);
  destination @3 :Destination;
}

struct BatchReadReply {
  # [MKV-BATCH-4] Each item is answered by exactly one result; one that is `ok` may be followed or preceded by pieces in other frames.
  results @0 :List(ReadResult) $Spec.countMax(4096);
  pieces @1 :List(Types.Piece) $Spec.countMax(4096);
}

struct ReadResult {
  index @0 :UInt32 $Spec.max(4095);
  status @1 :Types.Status;
  length @2 :UInt64;
  checksum @3 :Data $Spec.optional $Spec.len(16);
}

struct Lookup {
  # What is stored under a key, and a lease on it.
  # [MKV-LEASE-1] A leased value is neither evicted nor deleted before the lease ends; leases are counted by client, and one that
  # would be one too many is refused with `busy`.
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
  leaseMs @1 :UInt32 $Spec.max(60000);
}

struct LookupReply {
  length @0 :UInt64;
  checksum @1 :Data $Spec.optional $Spec.len(16);
  blockChecksums @2 :Data $Spec.lenMax(16384);
  # 16 bytes for each block.
  leaseMs @3 :UInt32;
}

struct Exists {
  # [MKV-EX-1] One answer for each key, in order; a key that is stored counts as used now.
  keys @0 :List(Data) $Spec.countMin(1) $Spec.countMax(4096) $Spec.itemLenMin(1) $Spec.itemLenMax(512);
}

struct ExistsReply {
  lengths @0 :List(UInt64) $Spec.countMax(4096);
  # The value's length in bytes, or 0 when it is not stored.
}

struct Delete {
  # [MKV-DEL-1] One answer for each key, in order: `ok`, `notFound`, or `referenced` when a manifest names it.
  # [MKV-DEL-2] A delete is durable when it is acknowledged.
  keys @0 :List(Data) $Spec.countMin(1) $Spec.countMax(4096) $Spec.itemLenMin(1) $Spec.itemLenMax(512);
}

struct DeleteReply {
  statuses @0 :List(Types.Status) $Spec.countMax(4096);
}

# ---------------------------------------------------------------- manifests

enum ManifestRole {
  both @0;
  # This server owns the chunks and the name.
  refs @1;
  # It owns the chunks: they are referenced, the name is not listed here.
  home @2;
  # It owns the name: the chunks are not checked here.
}

struct PutManifest {
  # Publishes a manifest. Its body, opaque to the server, is the payload of the message's frames, joined.
  # [MKV-PUT-1] If every chunk is stored with this length (and this checksum, when one is given), the manifest becomes visible atomically;
  # if one is stored with another length or checksum the reply is `conflict`; if any is missing the reply is `missingChunks` and nothing changes.
  # [MKV-PUT-2] When it is acknowledged, the manifest and all the chunks it names survive the loss of power.
  # [MKV-PUT-3] With `missingChunks`, the chunks that are stored are leased in the same step as the check, so that none is evicted before
  # the client tries again; a client tries at most `putManifestRetriesMax` times.
  # [MKV-PUT-4] A chunk that a manifest names is not evicted while the manifest stays.
  # [MKV-PUT-5] Generation 0 lets the server choose the next one. Any other must be greater than that of the stored manifest, else the reply is
  # `staleGeneration`; the same generation with the same body is `ok`.
  # [MKV-PUT-6] A manifest replaces the one of the same name; the chunks of the old one lose its references.
  # [MKV-PUT-7] With `ok` and a `leaseMs` that is not 0, the chunks are leased for so long, counted from the check. So a client may leave out
  # the bytes of a chunk that it puts again meanwhile.
  name @0 :Data $Spec.lenMin(1) $Spec.lenMax(1024);
  generation @1 :UInt64;
  role @2 :ManifestRole;
  length @3 :UInt64 $Spec.max(67108864);
  # The body's, in bytes; 0 is an empty body.
  checksum @4 :Data $Spec.len(16);
  # The body's, as that of a value; of an empty body, that of an empty list.
  chunks @5 :List(Types.ChunkReference) $Spec.countMax(4096);
  # The chunks it references, in this frame.
}

struct PutManifestReply {
  generation @0 :UInt64;
  # The one stored; with `staleGeneration` too.
  missing @1 :List(UInt32) $Spec.countMax(4096);
  # With `missingChunks`, here and in the reply's other frames: places in the request's list of chunks, counted over all its frames.
  # With `conflict`: the chunks in conflict.
  leaseMs @2 :UInt32;
  # With `missingChunks`: how long the chunks that are stored are leased. With `ok`: how long all of them are; 0 if they are not.
}

struct GetManifest {
  # [MKV-GET-1] The chunks of the version that is returned are leased, so that a restore in progress loses none of them.
  name @0 :Data $Spec.lenMin(1) $Spec.lenMax(1024);
  leaseMs @1 :UInt32 $Spec.max(60000);
}

struct GetManifestReply {
  # The body is the payload of the reply's frames, joined.
  generation @0 :UInt64;
  length @1 :UInt64 $Spec.max(67108864);
  checksum @2 :Data $Spec.optional $Spec.len(16);
  leaseMs @3 :UInt32;
}

struct DeleteManifest {
  # [MKV-DELM-1] The name is free and its references are dropped, durably, when it is acknowledged; chunks that no manifest names stay
  # until their space is needed.
  # [MKV-DELM-2] With a generation, only that one or an earlier one is deleted; a later one is left, with `staleGeneration`.
  name @0 :Data $Spec.lenMin(1) $Spec.lenMax(1024);
  generation @1 :UInt64;
  # 0: whichever is stored.
}

struct DeleteManifestReply {
  generation @0 :UInt64;
}

struct ListManifests {
  # [MKV-LIST-1] The names of the namespace that begin with `prefix`, in byte order, after `cursor`; a name that is there during the whole listing is
  # listed exactly once.
  prefix @0 :Data $Spec.lenMax(1024);
  cursor @1 :Data $Spec.lenMax(1024);
  # The last name of the page before; empty to begin.
  countMax @2 :UInt32 $Spec.max(1024);
  # 0: as many as fit.
}

struct ListManifestsReply {
  entries @0 :List(ManifestEntry) $Spec.countMax(1024);
  more @1 :Bool;
}

struct ManifestEntry {
  name @0 :Data $Spec.lenMin(1) $Spec.lenMax(1024);
  generation @1 :UInt64;
  length @2 :UInt64;
  chunkCount @3 :UInt32;
  chunkBytes @4 :UInt64;
}

# ---------------------------------------------------------------- the server itself

struct Ping {
  # Liveness, and the registration of memory.
  echo @0 :UInt64;
  # [MKV-PING-1] Returned as it came.
  regions @1 :List(Types.RegionDescriptor) $Spec.countMax(64);
  # To register. [MKV-PING-2] Either all of them are registered or none; on a connection that cannot register memory of this
  # kind the status is `unsupported`.
  released @2 :List(UInt32) $Spec.countMax(64);
  # The ids of regions to forget.
}

struct PingReply {
  echo @0 :UInt64;
  uptimeMs @1 :UInt64;
}

struct Stats {
  prefix @0 :Text $Spec.lenMax(64);
  # Only counters whose names begin so.
}

struct StatsReply {
  counters @0 :List(Counter) $Spec.countMax(1024);
}

struct Counter {
  name @0 :Text $Spec.lenMin(1) $Spec.lenMax(64);
  value @1 :UInt64;
}
