// SPDX-License-Identifier: Apache-2.0

#include "engine.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <stdexcept>

namespace session {

namespace {

constexpr uint32_t CONTEXT_TOKENS = 512;
// Rows computed in micro-batches of 64 tokens are the same whatever follows them; rows from smaller
// ones differ in rounding. So prompts that share a prefix share its rows up to the last full 64.
constexpr uint32_t MICRO_BATCH_TOKENS = 64;
// One for the session and one for the self-test, which needs another to be in the way.
constexpr uint32_t SEQUENCES = 2;

void print_warnings(ggml_log_level level, const char *text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

void initialise_once() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(print_warnings, nullptr);
        ggml_backend_load_all_from_path(LLAMA_LIBRARY_DIR);
        llama_backend_init();
    });
}

} // namespace

Engine::Engine(const std::string &model_path, bool flash_attention) {
    initialise_once();
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    model_.reset(llama_model_load_from_file(model_path.c_str(), model_params));
    if (!model_) throw std::runtime_error("cannot load the model " + model_path);

    llama_context_params params = llama_context_default_params();
    params.n_ctx = CONTEXT_TOKENS;
    params.n_batch = MICRO_BATCH_TOKENS;
    params.n_ubatch = MICRO_BATCH_TOKENS;
    params.n_seq_max = SEQUENCES;
    params.kv_unified = true;
    params.n_threads = 1;
    params.n_threads_batch = 1;
    params.flash_attn_type = flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    context_.reset(llama_init_from_model(model_.get(), params));
    if (!context_) throw std::runtime_error("cannot make a context");
}

Logits Engine::run(const Tokens &tokens, llama_pos position, llama_seq_id sequence) {
    llama_batch batch = llama_batch_init(MICRO_BATCH_TOKENS, 0, 1);
    std::unique_ptr<llama_batch, void (*)(llama_batch *)> freed(&batch, [](llama_batch *b) { llama_batch_free(*b); });
    for (size_t begin = 0; begin < tokens.size(); begin += MICRO_BATCH_TOKENS) {
        batch.n_tokens = static_cast<int32_t>(std::min<size_t>(MICRO_BATCH_TOKENS, tokens.size() - begin));
        for (int32_t i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = tokens[begin + static_cast<size_t>(i)];
            batch.pos[i] = position++;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = sequence;
            batch.logits[i] = i + 1 == batch.n_tokens;
        }
        if (llama_decode(context_.get(), batch) != 0) throw std::runtime_error("llama_decode failed");
    }
    const float *logits = llama_get_logits_ith(context_.get(), -1);
    if (!logits) throw std::runtime_error("there are no logits");
    return Logits(logits, logits + llama_vocab_n_tokens(llama_model_get_vocab(model_.get())));
}

std::vector<Logits> Engine::decode_greedily(llama_token first, llama_pos position, size_t steps) {
    std::vector<Logits> all;
    llama_token token = first;
    for (size_t step = 0; step < steps; step++) {
        all.push_back(run({token}, position++));
        const Logits &logits = all.back();
        token = static_cast<llama_token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
    return all;
}

void Engine::forget(llama_seq_id sequence) { llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, -1, -1); }

Bytes Engine::state() {
    Bytes blob(llama_state_seq_get_size(context_.get(), 0));
    blob.resize(llama_state_seq_get_data(context_.get(), blob.data(), blob.size(), 0));
    if (blob.empty()) throw std::runtime_error("llama.cpp returned no state");
    return blob;
}

void Engine::set_state(const Bytes &blob) {
    if (llama_state_seq_set_data(context_.get(), blob.data(), blob.size(), 0) != blob.size()) {
        throw std::runtime_error("llama.cpp refused the state");
    }
}

} // namespace session
