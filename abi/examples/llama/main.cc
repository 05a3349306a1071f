// SPDX-License-Identifier: Apache-2.0
//
// Saves a real llama.cpp session through a kv_store_v1 backend and restores it in another process.
// What each command does is in USAGE; README.md says what the whole shows.

#include "engine.h"
#include "manifest.h"
#include "state.h"
#include "store.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <set>
#include <stdexcept>

using namespace session;

namespace {

constexpr char USAGE[] =
    "llama_session COMMAND [--option VALUE]...\n"
    "\n"
    "reference  prefills the prompt and decodes on, without any store: the run to compare with\n"
    "           --model --flash-attention --tokens --shared --session --steps --logits\n"
    "save       prefills the prompt and saves the session; with --die 1, ends by SIGKILL then;\n"
    "           with --omit N, forgets to put that chunk, which a backend may or may not notice\n"
    "           --model --flash-attention --tokens --shared --session --store --name --window\n"
    "restore    restores the session and decodes on\n"
    "           --model --flash-attention --tokens --shared --session --store --name --steps --logits\n"
    "tamper     copies a session, one byte of one chunk changed, every hash and checksum correct\n"
    "           --store --name --to --chunk --byte\n"
    "round-trip splits and joins a state whose cells are out of order; needs no store\n"
    "           --model --flash-attention --window\n"
    "\n"
    "A prompt is --tokens ids, of which the first --shared are the same in every --session.\n"
    "Logits are written as 32-bit floats, one vector after another.\n";

constexpr char ENGINE[] = "llama.cpp";
constexpr llama_token VOCABULARY = 512; // of the model that make_model.py writes

class Options {
  public:
    Options(int argc, char **argv) {
        for (int i = 2; i < argc; i += 2) {
            if (std::strncmp(argv[i], "--", 2) != 0 || i + 1 == argc) throw std::invalid_argument(USAGE);
            values_[argv[i] + 2] = argv[i + 1];
        }
    }

    const std::string &text(const char *name) const {
        const auto found = values_.find(name);
        if (found == values_.end()) throw std::invalid_argument(std::string("missing --") + name);
        return found->second;
    }

    uint32_t number(const char *name) const { return static_cast<uint32_t>(std::stoul(text(name))); }
    bool is(const char *name, size_t value) const { return values_.count(name) != 0 && number(name) == value; }
    bool flag(const char *name) const { return values_.count(name) != 0 && number(name) != 0; }

  private:
    std::map<std::string, std::string> values_;
};

// SplitMix64: fixed, spread-out token ids.
llama_token token_at(uint64_t session, uint64_t position) {
    uint64_t z = (session << 32 | position) * 0x9e3779b97f4a7c15 + 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<llama_token>((z ^ (z >> 31)) % VOCABULARY);
}

// The prompt, and one token more: the first of the continuation.
Tokens prompt_and_next(const Options &options) {
    const uint32_t shared = options.number("shared"), session = options.number("session");
    Tokens tokens;
    for (uint32_t i = 0; i <= options.number("tokens"); i++) tokens.push_back(token_at(i < shared ? 0 : session, i));
    return tokens;
}

Tokens prompt(const Options &options) {
    Tokens tokens = prompt_and_next(options);
    tokens.pop_back();
    return tokens;
}

Engine engine_for(const Options &options) { return Engine(options.text("model"), options.flag("flash-attention")); }

void decode_and_write(Engine &engine, const Options &options) {
    const Tokens tokens = prompt_and_next(options);
    const auto position = static_cast<llama_pos>(tokens.size() - 1);
    std::ofstream file(options.text("logits"), std::ios::binary);
    for (const Logits &logits : engine.decode_greedily(tokens.back(), position, options.number("steps"))) {
        file.write(reinterpret_cast<const char *>(logits.data()),
                   static_cast<std::streamsize>(logits.size() * sizeof logits[0]));
    }
    file.close();
    if (!file) throw std::runtime_error("cannot write the logits");
}

void reference(const Options &options) {
    Engine engine = engine_for(options);
    engine.run(prompt(options), 0);
    decode_and_write(engine, options);
}

void save(const Options &options) {
    Engine engine = engine_for(options);
    const Tokens tokens = prompt(options);
    engine.run(tokens, 0);
    const uint32_t window = options.number("window");
    const SplitState split = split_state(engine.state(), window);

    Store store(options.text("store"));
    SessionManifest manifest{ENGINE, LLAMA_STATE_SEQ_VERSION, file_fingerprint(options.text("model")), window, tokens,
                             split.skeleton, {}};
    std::set<Bytes> distinct;
    for (const Chunk &chunk : split.chunks) {
        const Bytes hash = chunk_hash(chunk.data);
        distinct.insert(hash);
        if (!options.is("omit", manifest.chunks.size())) store.put_chunk(hash, chunk.data);
        manifest.chunks.push_back({chunk.place, static_cast<uint32_t>(chunk.data.size()), hash});
    }
    store.put_manifest(options.text("name"), encode_manifest(manifest));
    std::printf("chunks %zu\n", distinct.size());
    std::fflush(stdout);
    // Nothing after put_manifest, no close, no exit handler, may be needed for the session to be safe.
    if (options.flag("die")) std::raise(SIGKILL);
}

void restore(const Options &options) {
    Engine engine = engine_for(options);
    Store store(options.text("store"));
    const SessionManifest manifest = decode_manifest(store.manifest(options.text("name")));
    if (manifest.engine != ENGINE || manifest.engine_state_version != LLAMA_STATE_SEQ_VERSION) {
        throw std::runtime_error("the session was saved by another engine");
    }
    if (manifest.model_fingerprint != file_fingerprint(options.text("model"))) {
        throw std::runtime_error("the session belongs to another model");
    }
    if (manifest.tokens != prompt(options)) throw std::runtime_error("the session is of another prompt");

    std::vector<Bytes> hashes;
    for (const ChunkEntry &entry : manifest.chunks) hashes.push_back(entry.hash);
    store.prefetch(hashes);
    std::vector<Chunk> chunks;
    for (const ChunkEntry &entry : manifest.chunks) {
        chunks.push_back({entry.place, store.chunk(entry.hash)});
        if (chunk_hash(chunks.back().data) != entry.hash) throw std::runtime_error("a chunk is not what its hash says");
    }
    engine.set_state(join_state(manifest.engine_state, chunks));
    decode_and_write(engine, options);
}

void tamper(const Options &options) {
    Store store(options.text("store"));
    SessionManifest manifest = decode_manifest(store.manifest(options.text("name")));
    ChunkEntry &entry = manifest.chunks.at(options.number("chunk"));
    Bytes data = store.chunk(entry.hash);
    // 0x02 is a bit of the mantissa in the upper byte of a half float: a change, but no infinity.
    data.at(options.number("byte")) ^= 0x02;
    entry.hash = chunk_hash(data);
    store.put_chunk(entry.hash, data);
    store.put_manifest(options.text("to"), encode_manifest(manifest));
}

// Lets another sequence take cells first and leave, so that the session's later positions fall into
// earlier cells, as happens in a server that has been busy for a while.
void round_trip(const Options &options) {
    Tokens tokens;
    for (uint32_t i = 0; i < 192; i++) tokens.push_back(token_at(0, i));
    const Tokens early(tokens.begin(), tokens.begin() + 64), late(tokens.begin() + 64, tokens.end());
    Engine busy = engine_for(options);
    busy.run(late, 0, 1);
    busy.run(early, 0);
    busy.forget(1);
    busy.run(late, 64);
    const Bytes blob = busy.state();
    const std::vector<int32_t> positions = cell_positions(blob);
    if (std::is_sorted(positions.begin(), positions.end())) throw std::runtime_error("the cells are in order");

    const SplitState split = split_state(blob, options.number("window"));
    const std::vector<Chunk> backwards(split.chunks.rbegin(), split.chunks.rend());
    const Bytes joined = join_state(split.skeleton, backwards);
    Engine fresh = engine_for(options);
    fresh.set_state(joined);
    if (fresh.state() != joined) throw std::runtime_error("the state that llama.cpp returns is not the one it was given");
    const SplitState again = split_state(fresh.state(), options.number("window"));
    for (size_t i = 0; i < split.chunks.size(); i++) {
        if (again.chunks.at(i).data != split.chunks[i].data) throw std::runtime_error("the order of the cells shows");
    }
    std::printf("chunks %zu\n", split.chunks.size());
}

} // namespace

int main(int argc, char **argv) {
    const std::map<std::string, void (*)(const Options &)> commands{
        {"reference", reference}, {"save", save}, {"restore", restore}, {"tamper", tamper}, {"round-trip", round_trip}};
    try {
        const auto command = commands.find(argc > 1 ? argv[1] : "");
        if (command == commands.end()) throw std::invalid_argument(USAGE);
        command->second(Options(argc, argv));
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "llama_session: %s\n", error.what());
        return 1;
    }
}
