// SPDX-License-Identifier: Apache-2.0
//
// The few calls of libllama that an engine with saved sessions makes, set up so that a run can be
// repeated bit for bit: one thread, micro-batches of a fixed size, one sequence.

#pragma once

#include "state.h"

#include "llama.h"

#include <memory>
#include <string>
#include <vector>

namespace session {

using Tokens = std::vector<llama_token>;
using Logits = std::vector<float>;

class Engine {
  public:
    // Throws std::runtime_error when the model cannot be loaded.
    Engine(const std::string &model_path, bool flash_attention);

    // Runs `tokens` at the positions from `position` on and returns the last one's logits.
    Logits run(const Tokens &tokens, llama_pos position, llama_seq_id sequence = 0);

    // The first token is given, each next one is the most likely. Returns the logits of every step.
    std::vector<Logits> decode_greedily(llama_token first, llama_pos position, size_t steps);

    void forget(llama_seq_id sequence);

    Bytes state();
    void set_state(const Bytes &blob);

  private:
    struct FreeModel { void operator()(llama_model *model) const { llama_model_free(model); } };
    struct FreeContext { void operator()(llama_context *context) const { llama_free(context); } };

    std::unique_ptr<llama_model, FreeModel> model_;
    std::unique_ptr<llama_context, FreeContext> context_;
};

} // namespace session
