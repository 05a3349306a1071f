/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_store_v1: a table of functions through which an inference engine keeps its context in a store.
 *
 * A library libkv_store_<scheme>.so (.dylib on macOS) exports kv_store_get_vtable and serves the URIs of its scheme.
 * What each function owes its caller is numbered in conformance/kv_store_v1.md.
 */
#ifndef KV_STORE_V1_H
#define KV_STORE_V1_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A handle. Any number of threads may use one at the same time. */
typedef struct kv_store_v1 kv_store_v1;

/* Every int is 0 for success and below 0 for a failure, a miss included. Buffers handed out are the caller's to free(). */
typedef struct kv_store_v1_vtable {
    /* 1; or 2 or more, when prefetch_chunks is there. */
    uint32_t version;
    /* NULL on failure. */
    kv_store_v1 *(*open)(const char *uri);
    void (*close)(kv_store_v1 *store);
    /* Chunks are immutable: putting a present one changes nothing. May be buffered until the next put_manifest. */
    int (*put_chunk)(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, const uint8_t *data, size_t len);
    int (*get_chunk)(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, uint8_t **data, size_t *len);
    /* Once it is visible, so is every chunk put before it on this handle. */
    int (*put_manifest)(kv_store_v1 *store, const char *name, const uint8_t *data, size_t len);
    int (*get_manifest)(kv_store_v1 *store, const char *name, uint8_t **data, size_t *len);
    int (*delete_manifest)(kv_store_v1 *store, const char *name);
    /* Since version 2. A hint: n hashes of hash_len bytes each, back to back. */
    int (*prefetch_chunks)(kv_store_v1 *store, const uint8_t *hashes, size_t hash_len, size_t n);
} kv_store_v1_vtable;

/* The one exported symbol. The table is static. */
const kv_store_v1_vtable *kv_store_get_vtable(void);

#ifdef __cplusplus
}
#endif

#endif
