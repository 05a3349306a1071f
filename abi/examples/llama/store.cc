// SPDX-License-Identifier: Apache-2.0

#include "store.h"

#include <cstdlib>
#include <dlfcn.h>
#include <memory>
#include <stdexcept>

namespace session {

namespace {

void require_ok(int status, const char *call) {
    if (status != 0) throw std::runtime_error(std::string(call) + " answered " + std::to_string(status));
}

std::string library_for(const std::string &uri) {
    const size_t colon = uri.find("://");
    if (colon == std::string::npos) throw std::runtime_error("not a store uri: " + uri);
    const std::string file = "libkv_store_" + uri.substr(0, colon) + ".so";
    const char *directory = std::getenv("KV_STORE_LIBRARY_PATH");
    return directory ? std::string(directory) + "/" + file : file;
}

// Takes over a buffer that the backend made with malloc.
Bytes take_buffer(uint8_t *data, size_t len) {
    std::unique_ptr<uint8_t, void (*)(void *)> owned(data, std::free);
    return Bytes(data, data + len);
}

} // namespace

Store::Store(const std::string &uri) {
    const std::string path = library_for(uri);
    void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) throw std::runtime_error(dlerror());
    using TableFunction = const kv_store_v1_vtable *(*)();
    const auto function = reinterpret_cast<TableFunction>(dlsym(library, "kv_store_get_vtable"));
    if (!function) throw std::runtime_error(path + " exports no kv_store_get_vtable");
    table_ = function();
    if (!table_ || table_->version < 1) throw std::runtime_error(path + " has no table of a known version");
    handle_ = table_->open(uri.c_str());
    if (!handle_) throw std::runtime_error("cannot open " + uri);
    // The library stays loaded: backends may run threads of their own.
}

Store::~Store() { table_->close(handle_); }

void Store::put_chunk(const Bytes &hash, const Bytes &data) {
    require_ok(table_->put_chunk(handle_, hash.data(), hash.size(), data.data(), data.size()), "put_chunk");
}

void Store::put_manifest(const std::string &name, const Bytes &data) {
    require_ok(table_->put_manifest(handle_, name.c_str(), data.data(), data.size()), "put_manifest");
}

Bytes Store::chunk(const Bytes &hash) {
    uint8_t *data = nullptr;
    size_t len = 0;
    require_ok(table_->get_chunk(handle_, hash.data(), hash.size(), &data, &len), "get_chunk");
    return take_buffer(data, len);
}

Bytes Store::manifest(const std::string &name) {
    uint8_t *data = nullptr;
    size_t len = 0;
    require_ok(table_->get_manifest(handle_, name.c_str(), &data, &len), "get_manifest");
    return take_buffer(data, len);
}

void Store::prefetch(const std::vector<Bytes> &hashes) {
    if (table_->version < 2 || hashes.empty()) return;
    Bytes all;
    for (const Bytes &hash : hashes) all.insert(all.end(), hash.begin(), hash.end());
    require_ok(table_->prefetch_chunks(handle_, all.data(), hashes[0].size(), hashes.size()), "prefetch_chunks");
}

} // namespace session
