// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes MemKV's manifest format (schema/manifest.capnp) with the C++ Cap'n Proto
// library: what one language writes, the other must be able to read.

#pragma once

#include "state.h"

#include <string>
#include <vector>

namespace session {

struct ChunkEntry {
    ChunkPlace place;
    uint32_t length;
    Bytes hash; // XXH3-64 of the chunk's bytes in canonical (big-endian) form
};

struct SessionManifest {
    std::string engine;
    uint32_t engine_state_version;
    Bytes model_fingerprint;
    uint32_t window_tokens;
    std::vector<int32_t> tokens;
    Bytes engine_state;
    std::vector<ChunkEntry> chunks;
};

Bytes encode_manifest(const SessionManifest &manifest);

// Throws when the blob is damaged, of a newer version, or breaks a rule of the format.
SessionManifest decode_manifest(const Bytes &blob);

// The chunk's key in the store.
Bytes chunk_hash(const Bytes &data);

// XXH3-128 of a whole file, in canonical form: tells models apart.
Bytes file_fingerprint(const std::string &path);

} // namespace session
