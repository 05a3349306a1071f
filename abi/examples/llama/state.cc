// SPDX-License-Identifier: Apache-2.0

#include "state.h"

#include "llama.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>

// The layout below is version 3. The blob carries no version of its own, so a newer llama.h has to
// stop the build here. Version 4 is known to add two words before the tensors.
static_assert(LLAMA_STATE_SEQ_VERSION == 3, "the state layout may have changed");

namespace session {

namespace {

constexpr uint32_t STATE_MAGIC = 0xaf143cd8;
// Bounds what a damaged skeleton can make this program allocate.
constexpr uint32_t CELLS_MAX = 1u << 24;
constexpr uint32_t LAYERS_MAX = 1u << 12;
constexpr uint64_t ROW_BYTES_MAX = 1u << 24;

void require(bool holds, const char *what) {
    if (!holds) throw std::runtime_error(what);
}

class Reader {
  public:
    explicit Reader(const Bytes &bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

    template <class T> T number() {
        T value;
        std::memcpy(&value, take(sizeof value), sizeof value);
        return value;
    }

    const uint8_t *take(size_t len) {
        require(len <= static_cast<size_t>(end_ - at_), "the state is truncated");
        const uint8_t *start = at_;
        at_ += len;
        return start;
    }

    bool done() const { return at_ == end_; }

  private:
    const uint8_t *at_;
    const uint8_t *end_;
};

class Writer {
  public:
    template <class T> void number(T value) { bytes(reinterpret_cast<const uint8_t *>(&value), sizeof value); }
    void bytes(const uint8_t *data, size_t len) { out.insert(out.end(), data, data + len); }

    Bytes out;
};

// One layer's K or V. `cell_bytes` is what one cell takes: a row, or, transposed, `rows` elements.
struct Tensor {
    int32_t type;
    uint64_t element_bytes; // the size of a row when it is not transposed
    uint32_t rows;          // 1 when it is not transposed

    uint64_t cell_bytes() const { return element_bytes * rows; }
};

struct Layout {
    int32_t sequence;
    std::vector<int32_t> positions; // in cell order
    bool v_transposed;
    std::vector<Tensor> keys, values; // by layer

    size_t cells() const { return positions.size(); }
};

using TensorBytes = std::vector<const uint8_t *>; // by layer

Tensor read_tensor_header(Reader &in, bool transposed) {
    Tensor tensor{in.number<int32_t>(), 0, 1};
    if (transposed) {
        tensor.element_bytes = in.number<uint32_t>();
        tensor.rows = in.number<uint32_t>();
    } else {
        tensor.element_bytes = in.number<uint64_t>();
    }
    require(tensor.element_bytes > 0 && tensor.element_bytes <= ROW_BYTES_MAX, "a row has an absurd size");
    require(tensor.rows > 0 && tensor.cell_bytes() <= ROW_BYTES_MAX, "a tensor has an absurd size");
    return tensor;
}

void write_tensor_header(Writer &out, const Tensor &tensor, bool transposed) {
    out.number(tensor.type);
    if (transposed) {
        out.number(static_cast<uint32_t>(tensor.element_bytes));
        out.number(tensor.rows);
    } else {
        out.number(tensor.element_bytes);
    }
}

void read_cells(Reader &in, Layout &layout) {
    require(in.number<uint32_t>() == STATE_MAGIC, "not a sequence state");
    layout.sequence = in.number<int32_t>();
    require(in.number<uint32_t>() == 1, "the state has several streams");
    const uint32_t cell_count = in.number<uint32_t>();
    require(cell_count > 0 && cell_count <= CELLS_MAX, "the state has an absurd number of cells");
    for (uint32_t cell = 0; cell < cell_count; cell++) {
        layout.positions.push_back(in.number<int32_t>());
        require(in.number<uint32_t>() == 1, "a cell belongs to several sequences");
        require(in.number<int32_t>() == layout.sequence, "a cell belongs to another sequence");
    }
}

// Reads a whole state, or, with `tensors` null, a skeleton: the same bytes without the tensors'.
Layout read_layout(const Bytes &bytes, TensorBytes *keys, TensorBytes *values) {
    Reader in(bytes);
    Layout layout{};
    read_cells(in, layout);
    const uint32_t v_transposed = in.number<uint32_t>();
    require(v_transposed <= 1, "the transposition flag is neither 0 nor 1");
    layout.v_transposed = v_transposed == 1;
    const uint32_t layer_count = in.number<uint32_t>();
    require(layer_count > 0 && layer_count <= LAYERS_MAX, "the state has an absurd number of layers");
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        layout.keys.push_back(read_tensor_header(in, false));
        if (keys) keys->push_back(in.take(layout.keys.back().cell_bytes() * layout.cells()));
    }
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        layout.values.push_back(read_tensor_header(in, layout.v_transposed));
        if (values) values->push_back(in.take(layout.values.back().cell_bytes() * layout.cells()));
    }
    require(in.done(), "bytes follow the state");
    return layout;
}

// Writes a whole state, or, without tensors, a skeleton.
Bytes write_layout(const Layout &layout, const std::vector<Bytes> *keys, const std::vector<Bytes> *values) {
    Writer out;
    out.number(STATE_MAGIC);
    out.number(layout.sequence);
    out.number(uint32_t{1});
    out.number(static_cast<uint32_t>(layout.cells()));
    for (int32_t position : layout.positions) {
        out.number(position);
        out.number(uint32_t{1});
        out.number(layout.sequence);
    }
    out.number(uint32_t{layout.v_transposed});
    out.number(static_cast<uint32_t>(layout.keys.size()));
    for (size_t layer = 0; layer < layout.keys.size(); layer++) {
        write_tensor_header(out, layout.keys[layer], false);
        if (keys) out.bytes((*keys)[layer].data(), (*keys)[layer].size());
    }
    for (size_t layer = 0; layer < layout.values.size(); layer++) {
        write_tensor_header(out, layout.values[layer], layout.v_transposed);
        if (values) out.bytes((*values)[layer].data(), (*values)[layer].size());
    }
    return std::move(out.out);
}

// The cells in position order; their positions must be 0, 1, 2, ...
std::vector<size_t> cells_by_position(const Layout &layout) {
    std::vector<size_t> order(layout.cells());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return layout.positions[a] < layout.positions[b]; });
    for (size_t i = 0; i < order.size(); i++) {
        require(layout.positions[order[i]] == static_cast<int32_t>(i), "positions are not 0, 1, 2, ...");
    }
    return order;
}

// Appends the cells `order[begin .. begin + count]` of one tensor, row by row.
void gather(Bytes &out, const Tensor &tensor, const uint8_t *data, const std::vector<size_t> &order, size_t begin,
            size_t count) {
    for (uint32_t row = 0; row < tensor.rows; row++) {
        const uint8_t *start = data + row * order.size() * tensor.element_bytes;
        for (size_t i = begin; i < begin + count; i++) {
            const uint8_t *element = start + order[i] * tensor.element_bytes;
            out.insert(out.end(), element, element + tensor.element_bytes);
        }
    }
}

// The tensors of a state that is being put together, and how much of each has been filled. Chunks
// that overlap make the sum too large before, or too small after, another is missing: `place`
// rejects a range that was filled, `finish` a state with a gap.
class Assembly {
  public:
    explicit Assembly(const Layout &layout) : layout_(layout) {
        for (const Tensor &tensor : layout.keys) keys_.emplace_back(tensor.cell_bytes() * layout.cells());
        for (const Tensor &tensor : layout.values) values_.emplace_back(tensor.cell_bytes() * layout.cells());
        keys_filled_.assign(keys_.size(), std::vector<bool>(layout.cells()));
        values_filled_.assign(values_.size(), std::vector<bool>(layout.cells()));
    }

    void place(const Chunk &chunk) {
        const ChunkPlace &at = chunk.place;
        require(at.layer < layout_.keys.size(), "a chunk names a layer that is not there");
        const bool has_keys = at.kind != ChunkKind::values, has_values = at.kind != ChunkKind::keys;
        const Tensor &keys = layout_.keys[at.layer], &values = layout_.values[at.layer];
        const size_t keys_bytes = has_keys ? keys.cell_bytes() * at.token_count : 0;
        const size_t values_bytes = has_values ? values.cell_bytes() * at.token_count : 0;
        require(chunk.data.size() == keys_bytes + values_bytes, "a chunk has the wrong length");
        if (has_keys) fill(keys_[at.layer], keys_filled_[at.layer], keys, at, chunk.data.data());
        if (has_values) fill(values_[at.layer], values_filled_[at.layer], values, at, chunk.data.data() + keys_bytes);
    }

    Bytes finish() const {
        for (const auto *filled : {&keys_filled_, &values_filled_}) {
            for (const auto &cells : *filled) {
                require(std::find(cells.begin(), cells.end(), false) == cells.end(), "a chunk is missing");
            }
        }
        return write_layout(layout_, &keys_, &values_);
    }

  private:
    void fill(Bytes &out, std::vector<bool> &filled, const Tensor &tensor, const ChunkPlace &at, const uint8_t *data) {
        const size_t cells = layout_.cells();
        require(at.token_begin <= cells && at.token_count <= cells - at.token_begin, "a chunk is out of range");
        for (size_t i = at.token_begin; i < size_t{at.token_begin} + at.token_count; i++) {
            require(!filled[i], "two chunks overlap");
            filled[i] = true;
        }
        const size_t run_bytes = at.token_count * tensor.element_bytes;
        for (uint32_t row = 0; row < tensor.rows; row++) {
            uint8_t *target = out.data() + (row * cells + at.token_begin) * tensor.element_bytes;
            if (run_bytes > 0) std::memcpy(target, data + row * run_bytes, run_bytes);
        }
    }

    const Layout &layout_;
    std::vector<Bytes> keys_, values_;
    std::vector<std::vector<bool>> keys_filled_, values_filled_;
};

} // namespace

SplitState split_state(const Bytes &blob, uint32_t window_tokens) {
    require(window_tokens > 0, "a window needs at least one token");
    TensorBytes keys, values;
    Layout layout = read_layout(blob, &keys, &values);
    const std::vector<size_t> order = cells_by_position(layout);
    const auto tokens = static_cast<uint32_t>(order.size());

    SplitState split{{}, tokens, {}};
    for (uint32_t layer = 0; layer < layout.keys.size(); layer++) {
        const ChunkKind kind = layout.v_transposed ? ChunkKind::keys : ChunkKind::keys_and_values;
        for (uint32_t begin = 0; begin < tokens; begin += window_tokens) {
            const uint32_t count = std::min(window_tokens, tokens - begin);
            Chunk chunk{{kind, layer, begin, count}, {}};
            gather(chunk.data, layout.keys[layer], keys[layer], order, begin, count);
            if (!layout.v_transposed) gather(chunk.data, layout.values[layer], values[layer], order, begin, count);
            split.chunks.push_back(std::move(chunk));
        }
        if (layout.v_transposed) {
            Chunk chunk{{ChunkKind::values, layer, 0, tokens}, {}};
            gather(chunk.data, layout.values[layer], values[layer], order, 0, tokens);
            split.chunks.push_back(std::move(chunk));
        }
    }
    std::sort(layout.positions.begin(), layout.positions.end());
    split.skeleton = write_layout(layout, nullptr, nullptr);
    return split;
}

Bytes join_state(const Bytes &skeleton, const std::vector<Chunk> &chunks) {
    const Layout layout = read_layout(skeleton, nullptr, nullptr);
    Assembly assembly(layout);
    for (const Chunk &chunk : chunks) assembly.place(chunk);
    return assembly.finish();
}

std::vector<int32_t> cell_positions(const Bytes &blob) {
    TensorBytes keys, values;
    return read_layout(blob, &keys, &values).positions;
}

} // namespace session
