// SPDX-License-Identifier: Apache-2.0
//
// kv_store_v1: how an inference engine keeps saved KV state in a store that it loads at run time.
//
// A library named libkv_store_<scheme>.so (.dylib) exports one function, kv_store_get_vtable. <scheme> is that of the
// URIs it opens. This file is generated; the library behind it is MemKV's, and what is said here beyond the
// types is what MemKV promises.

#ifndef KV_STORE_V1_H
#define KV_STORE_V1_H

#include <stddef.h>
#include <stdint.h>

// Done.
#define KV_STORE_OK 0

// No such chunk or manifest.
#define KV_STORE_NOT_FOUND -1

// A manifest names a chunk that is neither stored nor put through this handle, or that the server lost after this handle
// knew it to be stored: nothing was published, and what was stored under the name before still is. Once put again it can be.
#define KV_STORE_MISSING_CHUNK -2

// An argument is NULL, out of range, or not what it should be.
#define KV_STORE_INVALID -3

// Other bytes are stored under this hash.
#define KV_STORE_CONFLICT -4

// The store, or the memory of this process, has no room.
#define KV_STORE_NO_SPACE -5

// The server cannot be reached, did not answer in time, or is stopping. What was put is kept, and written when it is
// back.
#define KV_STORE_UNAVAILABLE -6

// The store's device failed, or bytes were damaged.
#define KV_STORE_DAMAGED -7

// The handle is closed, or was opened by the parent of this process.
#define KV_STORE_CLOSED -8

// A bug in this library or in the server.
#define KV_STORE_INTERNAL -9

// An open store. It may be used from any number of threads at once. After fork(), a child must open its own: calls with
// its parent's are answered with KV_STORE_CLOSED.
typedef struct kv_store_v1 kv_store_v1;

// The functions of a store. They answer 0 for success and one of the negative KV_STORE codes for a failure, a miss
// included. A buffer that one of them hands out comes from malloc; the caller frees it. On failure nothing is handed
// out. They may be called from any thread, and never throw, unwind or abort.
typedef struct kv_store_v1_vtable {
    // 2: prefetch_chunks is there.
    uint32_t version;
    // Opens memkv://host:port/namespace with the key in the environment variable MEMKV_AUTH_KEY. NULL on failure; the
    // reason is written to stderr, unless MEMKV_LOG is "off".
    struct kv_store_v1 *(*open)(const char *uri);
    // Writes what is buffered, for a bounded time, and closes. NULL is ignored.
    void (*close)(struct kv_store_v1 *store);
    // Puts a chunk of 1 byte to 1 GiB under a hash of 1 to 64 bytes. Putting one that is there changes nothing. It may be
    // buffered until the next put_manifest; get_chunk on the same store finds it at once.
    int (*put_chunk)(struct kv_store_v1 *store, const uint8_t *hash, size_t hash_len, const uint8_t *data, size_t len);
    // Gets a chunk.
    int (*get_chunk)(struct kv_store_v1 *store, const uint8_t *hash, size_t hash_len, uint8_t **data, size_t *len);
    // Publishes a manifest of at most 64 MiB under a name of 1 to 1024 bytes, replacing the one that was there. In
    // MemKV's own format it references exactly the chunks it lists, which then stay as long as it does; one that is neither
    // stored nor put is KV_STORE_MISSING_CHUNK. Any other manifest is published after every chunk put before it;
    // an empty one is a flush.
    int (*put_manifest)(struct kv_store_v1 *store, const char *name, const uint8_t *data, size_t len);
    // Gets a manifest.
    int (*get_manifest)(struct kv_store_v1 *store, const char *name, uint8_t **data, size_t *len);
    // Deletes a manifest. Its chunks stay until their space is needed.
    int (*delete_manifest)(struct kv_store_v1 *store, const char *name);
    // Begins to read n chunks together, for get_chunk to find or to wait for: n hashes of hash_len bytes, back to back. A
    // chunk that is not stored is no failure here.
    int (*prefetch_chunks)(struct kv_store_v1 *store, const uint8_t *hashes, size_t hash_len, size_t n);
} kv_store_v1_vtable;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The table of this library. It is static: nothing to free.
const struct kv_store_v1_vtable *kv_store_get_vtable(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KV_STORE_V1_H */
