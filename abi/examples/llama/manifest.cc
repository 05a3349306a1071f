// SPDX-License-Identifier: Apache-2.0

#include "manifest.h"

#include "manifest.capnp.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>

namespace session {

namespace {

constexpr size_t HEADER_BYTES = ::MANIFEST_HEADER_SIZE_BYTES;
constexpr size_t CHECKED_HEADER_BYTES = 16;
constexpr size_t HASH_BYTES = sizeof(XXH64_canonical_t);

static_assert(HEADER_BYTES == CHECKED_HEADER_BYTES + sizeof(XXH128_canonical_t));
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the header's integers are copied as they are");

void require(bool holds, const char *what) {
    if (!holds) throw std::runtime_error(what);
}

template <class T> void put(uint8_t *at, T value) { std::memcpy(at, &value, sizeof value); }

template <class T> T get(const uint8_t *at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

XXH128_canonical_t checksum(const uint8_t *header, const uint8_t *message, size_t message_bytes) {
    std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t *)> state(XXH3_createState(), XXH3_freeState);
    if (!state) throw std::bad_alloc();
    XXH3_128bits_reset(state.get());
    XXH3_128bits_update(state.get(), header, CHECKED_HEADER_BYTES);
    XXH3_128bits_update(state.get(), message, message_bytes);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
    return canonical;
}

::ChunkKind to_format(ChunkKind kind) {
    switch (kind) {
    case ChunkKind::keys_and_values: return ::ChunkKind::KEYS_VALUES;
    case ChunkKind::keys: return ::ChunkKind::KEYS;
    case ChunkKind::values: return ::ChunkKind::VALUES;
    }
    throw std::logic_error("a chunk has no kind");
}

ChunkKind from_format(::ChunkKind kind) {
    switch (kind) {
    case ::ChunkKind::KEYS_VALUES: return ChunkKind::keys_and_values;
    case ::ChunkKind::KEYS: return ChunkKind::keys;
    case ::ChunkKind::VALUES: return ChunkKind::values;
    case ::ChunkKind::OTHER: break;
    }
    throw std::runtime_error("a chunk is of a kind this engine does not write");
}

kj::ArrayPtr<const kj::byte> data_of(const Bytes &bytes) { return kj::arrayPtr(bytes.data(), bytes.size()); }

Bytes bytes_of(capnp::Data::Reader data) { return Bytes(data.begin(), data.end()); }

void fill(::Manifest::Builder out, const SessionManifest &manifest) {
    out.setEngine(manifest.engine);
    out.setEngineStateVersion(manifest.engine_state_version);
    out.setModelFingerprint(data_of(manifest.model_fingerprint));
    out.setHashAlgorithm(::HashAlgorithm::XXH3X64);
    out.setWindowTokens(manifest.window_tokens);
    out.setTokens(kj::arrayPtr(manifest.tokens.data(), manifest.tokens.size()));
    out.setEngineState(data_of(manifest.engine_state));

    const auto count = static_cast<unsigned>(manifest.chunks.size());
    auto chunks = out.initChunks(count);
    auto hashes = out.initHashes(count * HASH_BYTES);
    for (unsigned i = 0; i < count; i++) {
        const ChunkEntry &entry = manifest.chunks[i];
        require(entry.hash.size() == HASH_BYTES, "a chunk hash has the wrong length");
        chunks[i].setLength(entry.length);
        chunks[i].setTokenStart(entry.place.token_begin);
        chunks[i].setTokenCount(entry.place.token_count);
        chunks[i].setLayer(static_cast<uint16_t>(entry.place.layer));
        chunks[i].setKind(to_format(entry.place.kind));
        std::memcpy(hashes.begin() + i * HASH_BYTES, entry.hash.data(), HASH_BYTES);
    }
}

} // namespace

Bytes encode_manifest(const SessionManifest &manifest) {
    capnp::MallocMessageBuilder draft;
    fill(draft.initRoot<::Manifest>(), manifest);
    // The format has one segment: copy the message into a builder whose first segment holds all of it.
    const auto content = draft.getRoot<::Manifest>().asReader();
    capnp::MallocMessageBuilder message(static_cast<unsigned>(content.totalSize().wordCount + 1));
    message.setRoot(content);
    const auto segments = message.getSegmentsForOutput();
    require(segments.size() == 1, "the manifest took more than one segment");
    const auto body = segments[0].asBytes();

    Bytes blob(HEADER_BYTES);
    put<uint64_t>(&blob[0], ::MANIFEST_MAGIC);
    put<uint16_t>(&blob[8], ::MANIFEST_FORMAT_VERSION);
    put<uint32_t>(&blob[12], static_cast<uint32_t>(segments[0].size()));
    put(&blob[CHECKED_HEADER_BYTES], checksum(blob.data(), body.begin(), body.size()));
    blob.insert(blob.end(), body.begin(), body.end());
    return blob;
}

SessionManifest decode_manifest(const Bytes &blob) {
    require(blob.size() >= HEADER_BYTES, "the manifest is truncated");
    require(get<uint64_t>(&blob[0]) == ::MANIFEST_MAGIC, "not a manifest of this format");
    require(get<uint16_t>(&blob[8]) == ::MANIFEST_FORMAT_VERSION, "the manifest is of another version");
    require(get<uint16_t>(&blob[10]) == 0, "the manifest's reserved bytes are not 0");
    const size_t words = get<uint32_t>(&blob[12]);
    require(blob.size() - HEADER_BYTES == words * sizeof(capnp::word), "the manifest has the wrong length");
    const uint8_t *body = blob.data() + HEADER_BYTES;
    const XXH128_canonical_t sum = checksum(blob.data(), body, blob.size() - HEADER_BYTES);
    require(std::memcmp(&sum, &blob[CHECKED_HEADER_BYTES], sizeof sum) == 0, "the manifest is damaged");

    // A copy, because the message needs word alignment and a byte vector promises none.
    auto aligned = kj::heapArray<capnp::word>(words);
    std::memcpy(aligned.begin(), body, words * sizeof(capnp::word));
    const kj::ArrayPtr<const capnp::word> segment = aligned;
    capnp::ReaderOptions limits;
    limits.traversalLimitInWords = 2 * words; // every object once, and slack for far fewer than that
    limits.nestingLimit = 4;
    capnp::SegmentArrayMessageReader message(kj::arrayPtr(&segment, 1), limits);
    const auto in = message.getRoot<::Manifest>();

    SessionManifest manifest;
    manifest.engine = in.getEngine().cStr();
    manifest.engine_state_version = in.getEngineStateVersion();
    manifest.model_fingerprint = bytes_of(in.getModelFingerprint());
    require(in.getHashAlgorithm() == ::HashAlgorithm::XXH3X64, "the manifest uses another hash");
    manifest.window_tokens = in.getWindowTokens();
    for (int32_t token : in.getTokens()) manifest.tokens.push_back(token);
    manifest.engine_state = bytes_of(in.getEngineState());

    const auto hashes = in.getHashes();
    require(hashes.size() == in.getChunks().size() * HASH_BYTES, "chunks and hashes do not match");
    const kj::byte *hash = hashes.begin();
    for (const auto chunk : in.getChunks()) {
        const uint32_t begin = chunk.getTokenStart(), count = chunk.getTokenCount();
        require(uint64_t{begin} + count <= manifest.tokens.size(), "a chunk's tokens are out of range");
        const ChunkPlace place{from_format(chunk.getKind()), chunk.getLayer(), begin, count};
        manifest.chunks.push_back({place, chunk.getLength(), Bytes(hash, hash + HASH_BYTES)});
        hash += HASH_BYTES;
    }
    return manifest;
}

Bytes chunk_hash(const Bytes &data) {
    XXH64_canonical_t canonical;
    XXH64_canonicalFromHash(&canonical, XXH3_64bits(data.data(), data.size()));
    return Bytes(canonical.digest, canonical.digest + sizeof canonical.digest);
}

Bytes file_fingerprint(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    require(file.good(), "cannot open the model");
    const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(content.data(), content.size()));
    return Bytes(canonical.digest, canonical.digest + sizeof canonical.digest);
}

} // namespace session
