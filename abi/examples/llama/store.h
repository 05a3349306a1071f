// SPDX-License-Identifier: Apache-2.0
//
// A kv_store_v1 backend, found and loaded as engines do it: libkv_store_<scheme>.so in the
// directory KV_STORE_LIBRARY_PATH, or else by the system's loader.

#pragma once

#include "state.h"

#include "kv_store_v1.h"

#include <optional>
#include <string>

namespace session {

class Store {
  public:
    // Throws std::runtime_error when the library is not there or does not open the uri.
    explicit Store(const std::string &uri);
    ~Store();
    Store(const Store &) = delete;
    Store &operator=(const Store &) = delete;

    // Each throws std::runtime_error when the backend fails; `what` names the call.
    void put_chunk(const Bytes &hash, const Bytes &data);
    void put_manifest(const std::string &name, const Bytes &data);
    Bytes chunk(const Bytes &hash);
    Bytes manifest(const std::string &name);

    // A hint; hashes must have one length. Does nothing when the backend has no such function.
    void prefetch(const std::vector<Bytes> &hashes);

  private:
    const kv_store_v1_vtable *table_;
    kv_store_v1 *handle_;
};

} // namespace session
