#ifndef KV_STORE_V1_H
#define KV_STORE_V1_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kv_store_v1 kv_store_v1;

typedef struct kv_store_v1_vtable {
    uint32_t version;
    kv_store_v1 *(*open)(const char *uri);
    void (*close)(kv_store_v1 *store);
    int (*put_chunk)(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, const uint8_t *data, size_t len);
    int (*get_chunk)(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, uint8_t **data, size_t *len);
    int (*put_manifest)(kv_store_v1 *store, const char *name, const uint8_t *data, size_t len);
    int (*get_manifest)(kv_store_v1 *store, const char *name, uint8_t **data, size_t *len);
    int (*delete_manifest)(kv_store_v1 *store, const char *name);
    int (*prefetch_chunks)(kv_store_v1 *store, const uint8_t *hashes, size_t hash_len, size_t n);
} kv_store_v1_vtable;

const kv_store_v1_vtable *kv_store_get_vtable(void);

#ifdef __cplusplus
}
#endif

#endif
