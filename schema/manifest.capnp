@0xb1d2a6f0c3e94a55;
using Spec = import "spec.capnp";
using Types = import "types.capnp";

# MemKV's own manifest format: what an engine needs to put a saved session together again.

const manifestMagic :UInt64 = 0x46494e414d564b4d $Spec.layout;
# The bytes `MKVMANIF`.
const manifestFormatVersion :UInt16 = 1 $Spec.layout;
const manifestHeaderSizeBytes :UInt32 = 32 $Spec.layout;

enum HashAlgorithm {
  xxh3x64 @0;
  # XXH3-64, 8 bytes, canonical form.
  xxh3x128 @1;
  # XXH3-128, 16 bytes, canonical form.
  sha256 @2;
  # 32 bytes.
  blake3 @3;
  # 32 bytes.
}

enum ChunkKind {
  keysValues @0;
  # One layer's K rows and then its V rows, for the token range.
  keys @1;
  # K rows alone.
  values @2;
  # V rows, or all of a transposed V.
  other @3;
  # Anything else; `engineState` says what.
}

struct Chunk {
  length @0 :UInt32 $Spec.min(1) $Spec.max(1073741824);
  tokenStart @1 :UInt32;
  # The first token position of the range.
  tokenCount @2 :UInt32;
  layer @3 :UInt16;
  kind @4 :ChunkKind;
}

struct Manifest $Spec.message("manifestSizeBytesMax") {
  # A manifest blob is a 32-byte header and one Cap'n Proto message of a single segment without a segment table, its root a `Manifest`:
  #
  # | offset | size | field |
  # |---|---|---|
  # | 0 | 8 | magic `MKVMANIF` |
  # | 8 | 2 | format version, little-endian |
  # | 10 | 2 | 0 |
  # | 12 | 4 | length of the message, 8-byte words, little-endian |
  # | 16 | 16 | XXH3-128, canonical form, over bytes 0 to 15 and the message |
  #
  # [MKV-MAN-1] A reader MUST refuse a blob whose lengths or checksum do not hold, and one of a newer format version.
  # [MKV-MAN-2] `hashes` holds exactly one hash of `hashAlgorithm`'s size for each chunk, in the order of `chunks`.
  # [MKV-MAN-3] Two chunks with the same hash MUST have the same length.
  # [MKV-MAN-4] A chunk's token range lies within `tokens`, when tokens are given.
  # [MKV-MAN-5] A client that publishes a manifest in this format makes it reference exactly the chunks that it lists.
  engine @0 :Text $Spec.lenMin(1) $Spec.lenMax(64);
  # Such as `llama.cpp`.
  engineStateVersion @1 :UInt32;
  # The engine's own version of its state format: the state's bytes carry none.
  modelFingerprint @2 :Data $Spec.lenMin(1) $Spec.lenMax(64);
  # Whatever the engine uses to tell models apart: state of one model must never be loaded into another.
  hashAlgorithm @3 :HashAlgorithm;
  windowTokens @4 :UInt32 $Spec.min(1);
  # The tokens of one chunk; the last window may be shorter.
  tokens @5 :List(Int32) $Spec.countMax(4194304);
  # The session's token ids.
  engineState @6 :Data $Spec.lenMax(33554432);
  # The engine's bytes that are not tensors: headers, cell metadata, sampler state.
  chunks @7 :List(Chunk) $Spec.countMax(1048576);
  hashes @8 :Data $Spec.lenMax(33554432);
}
