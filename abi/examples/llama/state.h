// SPDX-License-Identifier: Apache-2.0
//
// Splits the state llama.cpp serialises for one sequence into chunks and joins it again.
//
// A chunk holds what one layer keeps for one window of positions: the K rows, then the V rows. With
// flash attention off the V cache is transposed (one row for each channel, one column for each
// cell), a window is no contiguous piece of it, and each layer's V becomes a single chunk.
//
// Everything that is not tensor data is the skeleton: it travels in the manifest and says where the
// chunks belong. Cells are put in position order on the way, because the order in which the cache
// happened to hand out cells must not keep two sessions from sharing chunks.
//
// Not handled, and refused: several streams, cells of several sequences, M-RoPE (its cells are
// wider), sequences that do not start at position 0.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace session {

using Bytes = std::vector<uint8_t>;

enum class ChunkKind { keys_and_values, keys, values };

// Where a chunk belongs. A range of tokens is a range of positions here.
struct ChunkPlace {
    ChunkKind kind;
    uint32_t layer;
    uint32_t token_begin;
    uint32_t token_count;
};

struct Chunk {
    ChunkPlace place;
    Bytes data;
};

struct SplitState {
    Bytes skeleton;
    uint32_t token_count;
    std::vector<Chunk> chunks;
};

// Throws std::runtime_error when the blob is not a state of the kind described above.
SplitState split_state(const Bytes &blob, uint32_t window_tokens);

// The inverse, from a skeleton and the chunks in any order. Throws std::runtime_error when they do
// not cover the state exactly.
Bytes join_state(const Bytes &skeleton, const std::vector<Chunk> &chunks);

// The positions in the order of the cells in the blob.
std::vector<int32_t> cell_positions(const Bytes &blob);

} // namespace session
