// SPDX-License-Identifier: Apache-2.0
//
// Loads a kv_store_v1 backend and tries what a C consumer may do to it, right and wrong.
//
//   probe LIBRARY URI
//
// Must compile without a warning as C11 and as C++17 (-Wall -Wextra -Werror) and run clean under
// valgrind. Every failed check prints its line; the exit status is 1 when there was any.
//
// The uri's namespace or directory must be empty. What only MemKV promises is checked when the uri
// begins with "memkv:".

#define _DEFAULT_SOURCE

#include "kv_store_v1.h"

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- Layout: fixed by consumers that were compiled years ago ----

#ifdef __cplusplus
#define LAYOUT(condition) static_assert(condition, #condition)
#else
#define LAYOUT(condition) _Static_assert(condition, #condition)
#endif

LAYOUT(offsetof(kv_store_v1_vtable, version) == 0);
LAYOUT(sizeof(((kv_store_v1_vtable *)0)->version) == 4);
LAYOUT(offsetof(kv_store_v1_vtable, open) == 1 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, close) == 2 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, put_chunk) == 3 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, get_chunk) == 4 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, put_manifest) == 5 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, get_manifest) == 6 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, delete_manifest) == 7 * sizeof(void *));
LAYOUT(offsetof(kv_store_v1_vtable, prefetch_chunks) == 8 * sizeof(void *));
LAYOUT(sizeof(kv_store_v1_vtable) == 9 * sizeof(void *));

// The compiler compares these types with the header's.
typedef const kv_store_v1_vtable *(*table_function)(void);
typedef kv_store_v1 *(*open_function)(const char *);
typedef void (*close_function)(kv_store_v1 *);
typedef int (*put_chunk_function)(kv_store_v1 *, const uint8_t *, size_t, const uint8_t *, size_t);
typedef int (*get_chunk_function)(kv_store_v1 *, const uint8_t *, size_t, uint8_t **, size_t *);
typedef int (*put_manifest_function)(kv_store_v1 *, const char *, const uint8_t *, size_t);
typedef int (*get_manifest_function)(kv_store_v1 *, const char *, uint8_t **, size_t *);
typedef int (*delete_manifest_function)(kv_store_v1 *, const char *);
typedef int (*prefetch_chunks_function)(kv_store_v1 *, const uint8_t *, size_t, size_t);

static open_function kv_open;
static close_function kv_close;
static put_chunk_function put_chunk;
static get_chunk_function get_chunk;
static put_manifest_function put_manifest;
static get_manifest_function get_manifest;
static delete_manifest_function delete_manifest;
static prefetch_chunks_function prefetch_chunks;

// ---- Checks ----

static int failures;

#define CHECK(condition) check((condition) ? 1 : 0, #condition, __LINE__)

static void check(int holds, const char *what, int line) {
    if (holds) return;
    fprintf(stderr, "probe.c:%d: does not hold: %s\n", line, what);
    failures++;
}

enum { HASH_BYTES_MAX = 64, DATA_BYTES_MAX = 70000 };

static const size_t ABSURD[] = {SIZE_MAX, SIZE_MAX - 7, SIZE_MAX / 2 + 1};
enum { ABSURD_COUNT = sizeof ABSURD / sizeof ABSURD[0] };

static uint8_t pattern_data[DATA_BYTES_MAX];

// Contents and hashes differ for every seed; nothing here needs a real hash function.
static const uint8_t *pattern(size_t seed, size_t len) {
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < len; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        pattern_data[i] = (uint8_t)(state >> 56);
    }
    return pattern_data;
}

static void hash_of(size_t seed, uint8_t hash[HASH_BYTES_MAX]) {
    memcpy(hash, pattern(seed + 1000000, HASH_BYTES_MAX), HASH_BYTES_MAX);
}

static int chunk_is(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, const uint8_t *expected, size_t expected_len) {
    uint8_t *data = NULL;
    size_t len = 0;
    if (get_chunk(store, hash, hash_len, &data, &len) != 0) return 0;
    int same = len == expected_len && (len == 0 || memcmp(data, expected, len) == 0);
    free(data);
    return same;
}

static int manifest_is(kv_store_v1 *store, const char *name, const uint8_t *expected, size_t expected_len) {
    uint8_t *data = NULL;
    size_t len = 1;
    if (get_manifest(store, name, &data, &len) != 0) return 0;
    int same = len == expected_len && (len == 0 || memcmp(data, expected, len) == 0);
    free(data);
    return same;
}

// ---- What is wrong is answered, not obeyed ----

static void bad_uris_do_not_open(void) {
    CHECK(kv_open(NULL) == NULL);
    CHECK(kv_open("") == NULL);
    CHECK(kv_open("://") == NULL);
    CHECK(kv_open("neither a scheme nor a path") == NULL);
    CHECK(kv_open("another-scheme://127.0.0.1:1/x") == NULL);
}

static void a_null_handle_is_an_error(void) {
    const uint8_t hash[8] = {1};
    uint8_t *data = NULL;
    size_t len = 0;
    kv_close(NULL);
    CHECK(put_chunk(NULL, hash, sizeof hash, hash, sizeof hash) < 0);
    CHECK(get_chunk(NULL, hash, sizeof hash, &data, &len) < 0);
    CHECK(put_manifest(NULL, "name", hash, sizeof hash) < 0);
    CHECK(get_manifest(NULL, "name", &data, &len) < 0);
    CHECK(delete_manifest(NULL, "name") < 0);
    CHECK(prefetch_chunks(NULL, hash, sizeof hash, 1) < 0);
    CHECK(data == NULL);
}

static void null_arguments_are_errors(kv_store_v1 *store) {
    const uint8_t hash[8] = {2};
    uint8_t *data = NULL;
    size_t len = 0;
    CHECK(put_chunk(store, NULL, 8, hash, 1) < 0);
    CHECK(put_chunk(store, hash, 8, NULL, 1) < 0);
    CHECK(get_chunk(store, NULL, 8, &data, &len) < 0);
    CHECK(get_chunk(store, hash, 8, NULL, &len) < 0);
    CHECK(get_chunk(store, hash, 8, &data, NULL) < 0);
    CHECK(put_manifest(store, NULL, hash, 1) < 0);
    CHECK(put_manifest(store, "name", NULL, 1) < 0);
    CHECK(get_manifest(store, NULL, &data, &len) < 0);
    CHECK(get_manifest(store, "name", NULL, &len) < 0);
    CHECK(get_manifest(store, "name", &data, NULL) < 0);
    CHECK(delete_manifest(store, NULL) < 0);
    CHECK(prefetch_chunks(store, NULL, 8, 1) < 0);
    CHECK(data == NULL);
}

static void bad_lengths_are_errors(kv_store_v1 *store) {
    uint8_t hash[HASH_BYTES_MAX + 1] = {3};
    uint8_t *data = NULL;
    size_t len = 0;
    CHECK(put_chunk(store, hash, 0, hash, 1) < 0);
    CHECK(get_chunk(store, hash, 0, &data, &len) < 0);
    CHECK(prefetch_chunks(store, hash, 0, 1) < 0);
    CHECK(put_chunk(store, hash, sizeof hash, hash, 1) < 0);
    CHECK(get_chunk(store, hash, sizeof hash, &data, &len) < 0);
    CHECK(prefetch_chunks(store, hash, sizeof hash, 1) < 0);
    for (size_t i = 0; i < ABSURD_COUNT; i++) {
        CHECK(put_chunk(store, hash, ABSURD[i], hash, 1) < 0);
        CHECK(put_chunk(store, hash, 8, hash, ABSURD[i]) < 0);
        CHECK(get_chunk(store, hash, ABSURD[i], &data, &len) < 0);
        CHECK(put_manifest(store, "absurd", hash, ABSURD[i]) < 0);
        CHECK(prefetch_chunks(store, hash, ABSURD[i], 1) < 0);
        CHECK(prefetch_chunks(store, hash, 8, ABSURD[i]) < 0);
    }
    CHECK(prefetch_chunks(store, hash, 8, SIZE_MAX / 8) < 0); // the product is just in range
    CHECK(prefetch_chunks(store, hash, 64, SIZE_MAX / 64 + 2) < 0); // the product wraps to a small one
    CHECK(get_chunk(store, hash, 8, &data, &len) < 0);
    CHECK(get_manifest(store, "absurd", &data, &len) < 0);
    CHECK(data == NULL);
}

static void bad_names_are_errors(kv_store_v1 *store) {
    static char endless[1 << 16];
    memset(endless, 'n', sizeof endless - 1);
    uint8_t *data = NULL;
    size_t len = 0;
    const char *names[] = {"", endless};
    for (size_t i = 0; i < 2; i++) {
        CHECK(put_manifest(store, names[i], (const uint8_t *)"x", 1) < 0);
        CHECK(get_manifest(store, names[i], &data, &len) < 0);
        CHECK(delete_manifest(store, names[i]) < 0);
    }
    CHECK(data == NULL);
}

// ---- What is right works ----

static void hashes_of_every_length_work(kv_store_v1 *store) {
    static const size_t lens[] = {1, 7, 8, 4095, 4096, 4097, 65536, DATA_BYTES_MAX};
    enum { LENS = sizeof lens / sizeof lens[0] };
    uint8_t hash[HASH_BYTES_MAX];
    // One hash's prefixes: a backend that cut or padded them would mix them up.
    hash_of(10, hash);
    for (size_t hash_len = 1; hash_len <= HASH_BYTES_MAX; hash_len++) {
        const size_t len = lens[hash_len % LENS];
        CHECK(put_chunk(store, hash, hash_len, pattern(hash_len, len), len) == 0);
        CHECK(chunk_is(store, hash, hash_len, pattern(hash_len, len), len)); // before any flush
    }
    CHECK(put_manifest(store, "flush", NULL, 0) == 0);
    for (size_t hash_len = 1; hash_len <= HASH_BYTES_MAX; hash_len++) {
        const size_t len = lens[hash_len % LENS];
        CHECK(chunk_is(store, hash, hash_len, pattern(hash_len, len), len));
        CHECK(put_chunk(store, hash, hash_len, pattern(hash_len, len), len) == 0); // a no-op
    }
    CHECK(put_manifest(store, "flush", NULL, 0) == 0);
    CHECK(chunk_is(store, hash, 64, pattern(64, lens[64 % LENS]), lens[64 % LENS]));
}

// A backend may refuse an empty chunk; one that takes it must give it back.
static void an_empty_chunk_is_refused_or_kept(kv_store_v1 *store) {
    const uint8_t hash[5] = {'e', 'm', 'p', 't', 'y'};
    const int status = put_chunk(store, hash, sizeof hash, NULL, 0);
    CHECK(status <= 0);
    CHECK(put_manifest(store, "flush", NULL, 0) == 0);
    CHECK(chunk_is(store, hash, sizeof hash, NULL, 0) == (status == 0));
}

static void misses_are_told(kv_store_v1 *store) {
    uint8_t hash[HASH_BYTES_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    hash_of(20, hash);
    for (size_t hash_len = 2; hash_len <= HASH_BYTES_MAX; hash_len++) CHECK(get_chunk(store, hash, hash_len, &data, &len) < 0);
    CHECK(get_manifest(store, "nobody put this", &data, &len) < 0);
    CHECK(delete_manifest(store, "nobody put this") < 0);
    CHECK(data == NULL);
    CHECK(len == 0);
}

static void manifests_are_kept_replaced_and_deleted(kv_store_v1 *store) {
    static const char *const names[] = {"plain", "a/b", "../up", ".", "..", "sp ace", "\xff\xfe", "%00", "x:y\\z"};
    enum { NAMES = sizeof names / sizeof names[0] };
    uint8_t *data = NULL;
    size_t len = 0;
    for (size_t i = 0; i < NAMES; i++) CHECK(put_manifest(store, names[i], pattern(30 + i, 1000 + i), 1000 + i) == 0);
    for (size_t i = 0; i < NAMES; i++) CHECK(manifest_is(store, names[i], pattern(30 + i, 1000 + i), 1000 + i));
    CHECK(put_manifest(store, "plain", pattern(50, DATA_BYTES_MAX), DATA_BYTES_MAX) == 0);
    CHECK(manifest_is(store, "plain", pattern(50, DATA_BYTES_MAX), DATA_BYTES_MAX));
    for (size_t i = 0; i < NAMES; i++) {
        CHECK(delete_manifest(store, names[i]) == 0);
        CHECK(get_manifest(store, names[i], &data, &len) < 0);
    }
    CHECK(data == NULL);
}

static void an_empty_manifest_may_be_put_again_and_again(kv_store_v1 *store) {
    uint8_t hash[HASH_BYTES_MAX];
    for (size_t i = 0; i < 50; i++) {
        hash_of(100 + i, hash);
        CHECK(put_chunk(store, hash, 32, pattern(100 + i, 512), 512) == 0);
        CHECK(put_manifest(store, "barrier", i % 2 ? NULL : hash, 0) == 0);
        CHECK(chunk_is(store, hash, 32, pattern(100 + i, 512), 512));
        CHECK(manifest_is(store, "barrier", NULL, 0));
    }
}

static void prefetching_changes_nothing(kv_store_v1 *store) {
    static uint8_t hashes[60 * 32];
    uint8_t hash[HASH_BYTES_MAX];
    // The 50 chunks of the test before and 10 that are not there.
    for (size_t i = 0; i < 60; i++) {
        hash_of(100 + i, hash);
        memcpy(hashes + i * 32, hash, 32);
    }
    CHECK(prefetch_chunks(store, NULL, 32, 0) == 0);
    CHECK(prefetch_chunks(store, hashes, 32, 50) == 0);
    for (size_t i = 0; i < 50; i++) CHECK(chunk_is(store, hashes + i * 32, 32, pattern(100 + i, 512), 512));
    (void)prefetch_chunks(store, hashes, 32, 60); // whether a hint about a missing chunk fails is left open
    uint8_t *data = NULL;
    size_t len = 0;
    for (size_t i = 50; i < 60; i++) CHECK(get_chunk(store, hashes + i * 32, 32, &data, &len) < 0);
    for (size_t i = 0; i < 50; i++) CHECK(chunk_is(store, hashes + i * 32, 32, pattern(100 + i, 512), 512));
    CHECK(prefetch_chunks(store, hashes, 32, 50) == 0); // never fetched: close must free what came
    CHECK(data == NULL);
}

static void another_handle_sees_what_was_flushed(kv_store_v1 *store, const char *uri) {
    uint8_t hash[HASH_BYTES_MAX];
    hash_of(200, hash);
    CHECK(put_chunk(store, hash, 8, pattern(200, 9000), 9000) == 0);
    CHECK(put_manifest(store, "shared", pattern(201, 77), 77) == 0);
    kv_store_v1 *other = kv_open(uri);
    CHECK(other != NULL);
    if (other == NULL) return;
    CHECK(chunk_is(other, hash, 8, pattern(200, 9000), 9000));
    CHECK(manifest_is(other, "shared", pattern(201, 77), 77));
    hash_of(202, hash);
    CHECK(put_chunk(other, hash, 8, pattern(202, 9000), 9000) == 0);
    kv_close(other); // closing flushes
    CHECK(chunk_is(store, hash, 8, pattern(202, 9000), 9000));
}

// ---- What only MemKV promises ----

static void memkv_refuses_what_is_too_large(kv_store_v1 *store) {
    const uint8_t hash[8] = {9};
    CHECK(put_chunk(store, hash, sizeof hash, hash, ((size_t)1 << 30) + 1) < 0);
    CHECK(put_manifest(store, "large", hash, ((size_t)1 << 26) + 1) < 0);
}

static void memkv_refuses_a_damaged_manifest_of_its_own_format(kv_store_v1 *store) {
    uint8_t blob[64] = "MKVMANIF\x01";
    blob[12] = 4; // the right length, and no checksum
    CHECK(put_manifest(store, "damaged", (const uint8_t *)"kept", 4) == 0);
    CHECK(put_manifest(store, "damaged", blob, sizeof blob) < 0);
    CHECK(manifest_is(store, "damaged", (const uint8_t *)"kept", 4));
}

// A child's copy of the handle shares sockets with its parent's: using it would mix up their bytes.
static void memkv_refuses_a_handle_from_before_a_fork(kv_store_v1 *store) {
    uint8_t hash[HASH_BYTES_MAX];
    hash_of(200, hash);
    fflush(stderr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(30); // a hang ends in SIGALRM
        uint8_t *data = NULL;
        size_t len = 0;
        const int got = get_chunk(store, hash, 8, &data, &len);
        const int put = put_manifest(store, "fork", NULL, 0);
        kv_close(store);
        // Not by exit: valgrind would report what only the parent's other threads still held.
        if (got < 0 && put < 0) raise(SIGKILL);
        _exit(1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    CHECK(chunk_is(store, hash, 8, pattern(200, 9000), 9000));
}

// ---- Running ----

static const kv_store_v1_vtable *load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "probe: %s\n", dlerror());
        return NULL;
    }
    const table_function function = (table_function)dlsym(library, "kv_store_get_vtable");
    return function == NULL ? NULL : function();
}

static void run(kv_store_v1 *store, const char *uri) {
    null_arguments_are_errors(store);
    bad_lengths_are_errors(store);
    bad_names_are_errors(store);
    hashes_of_every_length_work(store);
    an_empty_chunk_is_refused_or_kept(store);
    misses_are_told(store);
    manifests_are_kept_replaced_and_deleted(store);
    an_empty_manifest_may_be_put_again_and_again(store);
    prefetching_changes_nothing(store);
    another_handle_sees_what_was_flushed(store, uri);
    if (strncmp(uri, "memkv:", 6) == 0) {
        memkv_refuses_what_is_too_large(store);
        memkv_refuses_a_damaged_manifest_of_its_own_format(store);
        memkv_refuses_a_handle_from_before_a_fork(store);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "probe LIBRARY URI\n");
        return 2;
    }
    const kv_store_v1_vtable *table = load(argv[1]);
    if (table == NULL || table->version != 2) {
        fprintf(stderr, "probe: %s has no table of version 2\n", argv[1]);
        return 1;
    }
    kv_open = table->open;
    kv_close = table->close;
    put_chunk = table->put_chunk;
    get_chunk = table->get_chunk;
    put_manifest = table->put_manifest;
    get_manifest = table->get_manifest;
    delete_manifest = table->delete_manifest;
    prefetch_chunks = table->prefetch_chunks;

    bad_uris_do_not_open();
    a_null_handle_is_an_error();
    kv_store_v1 *store = kv_open(argv[2]);
    if (store == NULL) {
        fprintf(stderr, "probe: cannot open %s\n", argv[2]);
        return 1;
    }
    run(store, argv[2]);
    kv_close(store);
    return failures == 0 ? 0 : 1;
}
