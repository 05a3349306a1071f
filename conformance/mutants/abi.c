// SPDX-License-Identifier: Apache-2.0
//
// Broken backends, each the plain-directory backend with one of its promises broken (see mutant.h).
// conformance/mutants/abi.txt says which case must catch which.
//
// Build: cc -std=c11 -O1 -fPIC -shared -pthread -I conformance/include conformance/mutants/abi.c -o libkv_store_dir.so

#include "mutant.h"

#include <signal.h>

// ---- Puts ----

static int put_nothing(S *s, In h, size_t hn, In d, size_t n) { return (void)s, (void)h, (void)hn, (void)d, (void)n, 0; }

static int put_lose_some(S *s, In h, size_t hn, In d, size_t n) {
    static atomic_int count;
    return atomic_fetch_add(&count, 1) % 1000 == 999 ? 0 : good->put_chunk(s, h, hn, d, n);
}

static int put_until_nul(S *s, In h, size_t hn, In d, size_t n) {
    size_t length = n > 0 ? strnlen((const char *)d, n) : 0;
    return good->put_chunk(s, h, hn, d, length > 0 ? length : n);
}

static int put_up_to_32_mib(S *s, In h, size_t hn, In d, size_t n) {
    return n > (32u << 20) ? -1 : good->put_chunk(s, h, hn, d, n);
}

static int put_padded(S *s, In h, size_t hn, In d, size_t n) {
    size_t padded = (n + 511) / 512 * 512;
    uint8_t *copy = calloc(1, padded + 1);
    memcpy(copy, d, n);
    int code = good->put_chunk(s, h, hn, copy, n > 4096 ? padded : n);
    free(copy);
    return code;
}

static int put_wrong_byte_far_out(S *s, In h, size_t hn, In d, size_t n) {
    if (n <= 1 << 20) return good->put_chunk(s, h, hn, d, n);
    uint8_t *copy = malloc(n);
    memcpy(copy, d, n);
    copy[1 << 20] ^= 1;
    int code = good->put_chunk(s, h, hn, copy, n);
    free(copy);
    return code;
}

static int put_present_fails(S *s, In h, size_t hn, In d, size_t n) {
    uint8_t *data;
    size_t length;
    if (good->get_chunk(s, h, hn, &data, &length) != 0) return good->put_chunk(s, h, hn, d, n);
    free(data);
    return -1;
}

static int put_replaces(S *s, In h, size_t hn, In d, size_t n) {
    char leaf[LEAF_BYTES_MAX];
    if (chunk_leaf(h, hn, leaf) == OK) unlinkat(s->chunks_fd, leaf, 0);
    return good->put_chunk(s, h, hn, d, n);
}

static int put_writes_input(S *s, In h, size_t hn, In d, size_t n) {
    int code = good->put_chunk(s, h, hn, d, n);
    if (n > 10000) ((uint8_t *)d)[n - 1] ^= 0xff;
    return code;
}

static int put_positive(S *s, In h, size_t hn, In d, size_t n) {
    return good->put_chunk(s, h, hn, d, n) == 0 ? (int)n : -1;
}

static int put_prints(S *s, In h, size_t hn, In d, size_t n) {
    printf("put %zu bytes\n", n);
    return good->put_chunk(s, h, hn, d, n);
}

static int put_aborts_on_short(S *s, In h, size_t hn, In d, size_t n) {
    if (n < 2) abort();
    return good->put_chunk(s, h, hn, d, n);
}

// ---- Puts that wait ----

typedef struct Waiting {
    struct Waiting *next;
    S *store;
    uint8_t hash[64];
    size_t hash_len, len;
    In given;
    uint8_t *data;
} Waiting;

static Waiting *waiting;

static int put_later(S *s, In h, size_t hn, In d, size_t n) {
    Waiting *put = calloc(1, sizeof *put);
    put->store = s, put->hash_len = hn, put->len = n, put->given = d;
    put->data = malloc(n + 1);
    memcpy(put->hash, h, hn);
    memcpy(put->data, d, n);
    pthread_mutex_lock(&lock);
    put->next = waiting;
    waiting = put;
    pthread_mutex_unlock(&lock);
    return 0;
}

static void write_waiting(bool given) {
    pthread_mutex_lock(&lock);
    Waiting *put = waiting;
    waiting = NULL;
    pthread_mutex_unlock(&lock);
    while (put != NULL) {
        Waiting *next = put->next;
        good->put_chunk(put->store, put->hash, put->hash_len, given ? put->given : put->data, put->len);
        free(put->data);
        free(put);
        put = next;
    }
}

static int get_waiting(S *s, In h, size_t hn, Out data, size_t *len) {
    pthread_mutex_lock(&lock);
    for (Waiting *put = waiting; put != NULL; put = put->next) {
        if (put->store != s || put->hash_len != hn || memcmp(put->hash, h, hn) != 0) continue;
        *data = malloc(put->len + 1), *len = put->len;
        memcpy(*data, put->data, put->len);
        pthread_mutex_unlock(&lock);
        return 0;
    }
    pthread_mutex_unlock(&lock);
    return good->get_chunk(s, h, hn, data, len);
}

static int manifest_then_chunks(S *s, const char *name, In d, size_t n) {
    int code = good->put_manifest(s, name, d, n);
    for (int i = 0; i < 50; i++) sched_yield();
    write_waiting(false);
    return code;
}

static int chunks_then_manifest_of_given(S *s, const char *name, In d, size_t n) {
    write_waiting(true);
    return good->put_manifest(s, name, d, n);
}

static int chunks_unless_empty(S *s, const char *name, In d, size_t n) {
    if (n > 0) write_waiting(false);
    return good->put_manifest(s, name, d, n);
}

static int chunks_then_manifest(S *s, const char *name, In d, size_t n) {
    write_waiting(false);
    return good->put_manifest(s, name, d, n);
}

static void close_forgets(S *s) {
    pthread_mutex_lock(&lock);
    waiting = NULL;
    pthread_mutex_unlock(&lock);
    good->close(s);
}

static void close_writes(S *s) {
    write_waiting(false);
    good->close(s);
}

// ---- Gets ----

static int get_shorter(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    if (code == 0 && *len > 1) *len -= 1;
    return code;
}

static int get_miss_is_success(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    if (code == MISSING) *data = malloc(1);
    return code == MISSING ? 0 : code;
}

static int get_miss_is_positive(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    return code == MISSING ? ENOENT : code;
}

static int get_miss_hangs(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    while (code == MISSING) pause();
    return code;
}

static int get_miss_dangles(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    if (code == MISSING) {
        *data = malloc(16);
        free(*data);
    }
    return code;
}

static int get_static(S *s, In h, size_t hn, Out data, size_t *len) {
    static uint8_t buffer[1 << 16];
    int code = good->get_chunk(s, h, hn, data, len);
    if (code != 0 || *len > sizeof buffer) return code;
    memcpy(buffer, *data, *len);
    free(*data);
    *data = buffer;
    return 0;
}

static int get_interior(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    if (code != 0) return code;
    uint8_t *block = malloc(*len + 64);
    memcpy(block + 32, *data, *len);
    free(*data);
    *data = block + 32;
    return 0;
}

// The latest value is kept, and handed out again.
static int get_shared(S *s, In h, size_t hn, Out data, size_t *len) {
    static uint8_t hash[64], *kept;
    static size_t kept_len, kept_hash_len;
    if (kept != NULL && kept_hash_len == hn && memcmp(hash, h, hn) == 0) {
        *data = kept, *len = kept_len;
        return 0;
    }
    int code = good->get_chunk(s, h, hn, data, len);
    if (code == 0) kept = *data, kept_len = *len, kept_hash_len = hn, memcpy(hash, h, hn);
    return code;
}

static uint8_t *handed_out[4096];
static atomic_int handed_out_count;

static int get_remembered(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    int at = atomic_fetch_add(&handed_out_count, 1);
    if (code == 0 && at < 4096) handed_out[at] = *data;
    return code;
}

static void close_clears_buffers(S *s) {
    for (int i = 0; i < 4096 && i < handed_out_count; i++) {
        if (handed_out[i] != NULL) memset(handed_out[i], 0, 16);
        handed_out[i] = NULL;
    }
    good->close(s);
}

static int get_leaks(S *s, In h, size_t hn, Out data, size_t *len) {
    void *volatile lost = malloc(24);
    memset(lost, 1, 24);
    return good->get_chunk(s, h, hn, data, len);
}

static int get_miss_leaks(S *s, In h, size_t hn, Out data, size_t *len) {
    int code = good->get_chunk(s, h, hn, data, len);
    char *volatile lost = code == MISSING ? strdup("an error text, told to nobody") : NULL;
    return (void)lost, code;
}

// One scratch place for all threads: the hash of another call may be the one that is looked up.
static int get_races(S *s, In h, size_t hn, Out data, size_t *len) {
    static uint8_t scratch[64];
    memcpy(scratch, h, hn);
    for (int i = 0; i < 20; i++) sched_yield();
    return good->get_chunk(s, scratch, hn, data, len);
}

static int get_misses_stay(S *s, In h, size_t hn, Out data, size_t *len) {
    static uint64_t missed[1 << 16];
    uint64_t key = 1;
    for (size_t i = 0; i < hn; i++) key = (key ^ h[i]) * 0x100000001b3u;
    if (missed[key >> 48] == key) {
        *data = NULL;
        return MISSING;
    }
    int code = good->get_chunk(s, h, hn, data, len);
    if (code == MISSING) missed[key >> 48] = key;
    return code;
}

static pid_t loader;

static int get_hangs_after_fork(S *s, In h, size_t hn, Out data, size_t *len) {
    while (getpid() != loader) pause();
    return good->get_chunk(s, h, hn, data, len);
}

static int get_in_child_disturbs(S *s, In h, size_t hn, Out data, size_t *len) {
    if (getpid() != loader) kill(getppid(), SIGUSR1);
    return good->get_chunk(s, h, hn, data, len);
}

// ---- Hashes ----

static int put_short_hash(S *s, In h, size_t hn, In d, size_t n) { return good->put_chunk(s, h, hn < 16 ? hn : 16, d, n); }
static int get_short_hash(S *s, In h, size_t hn, Out d, size_t *n) { return good->get_chunk(s, h, hn < 16 ? hn : 16, d, n); }

static size_t up_to_nul(In h, size_t hn) {
    size_t length = strnlen((const char *)h, hn);
    return length > 0 ? length : 1;
}
static int put_text_hash(S *s, In h, size_t hn, In d, size_t n) { return good->put_chunk(s, h, up_to_nul(h, hn), d, n); }
static int get_text_hash(S *s, In h, size_t hn, Out d, size_t *n) { return good->get_chunk(s, h, up_to_nul(h, hn), d, n); }

static int put_padded_hash(S *s, In h, size_t hn, In d, size_t n) {
    uint8_t padded[64] = {0};
    memcpy(padded, h, hn);
    return good->put_chunk(s, padded, 64, d, n);
}
static int get_padded_hash(S *s, In h, size_t hn, Out d, size_t *n) {
    uint8_t padded[64] = {0};
    memcpy(padded, h, hn);
    return good->get_chunk(s, padded, 64, d, n);
}

static int put_seven_bits(S *s, In h, size_t hn, In d, size_t n) {
    uint8_t plain[64];
    for (size_t i = 0; i < hn; i++) plain[i] = h[i] & 0x7f;
    return good->put_chunk(s, plain, hn, d, n);
}
static int get_seven_bits(S *s, In h, size_t hn, Out d, size_t *n) {
    uint8_t plain[64];
    for (size_t i = 0; i < hn; i++) plain[i] = h[i] & 0x7f;
    return good->get_chunk(s, plain, hn, d, n);
}

static int put_wide_hash_only(S *s, In h, size_t hn, In d, size_t n) { return hn > 32 ? -1 : good->put_chunk(s, h, hn, d, n); }

#include "abi_manifests.h"

// ---- Prefetching ----

static uint8_t prefetched[64 * 4096];
static size_t prefetched_len, prefetched_count;

static int prefetch_remembers(S *s, In hashes, size_t hn, size_t n) {
    pthread_mutex_lock(&lock);
    prefetched_len = hn, prefetched_count = n < 4096 ? n : 4096;
    memcpy(prefetched, hashes, prefetched_len * prefetched_count);
    pthread_mutex_unlock(&lock);
    return good->prefetch_chunks(s, hashes, hn, n);
}

// The value of the hash after it: an off-by-one between the hint and what it brought.
static int get_next_prefetched(S *s, In h, size_t hn, Out data, size_t *len) {
    for (size_t i = 0; i + 1 < prefetched_count && hn == prefetched_len; i++) {
        if (memcmp(prefetched + i * hn, h, hn) == 0) return good->get_chunk(s, prefetched + (i + 1) * hn, hn, data, len);
    }
    return good->get_chunk(s, h, hn, data, len);
}

static uint64_t absent[1 << 16];

static int prefetch_remembers_misses(S *s, In hashes, size_t hn, size_t n) {
    for (size_t i = 0; i < n && hn >= 8; i++) {
        uint8_t *data;
        size_t len;
        uint64_t key;
        memcpy(&key, hashes + i * hn, 8);
        if (good->get_chunk(s, hashes + i * hn, hn, &data, &len) != 0) absent[key >> 48] = key;
        else free(data);
    }
    return 0;
}
static int get_unless_absent(S *s, In h, size_t hn, Out data, size_t *len) {
    uint64_t key;
    memcpy(&key, h, hn < 8 ? hn : 8);
    return hn >= 8 && absent[key >> 48] == key ? MISSING : good->get_chunk(s, h, hn, data, len);
}

static int prefetch_wants_all(S *s, In hashes, size_t hn, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t *data;
        size_t len;
        if (good->get_chunk(s, hashes + i * hn, hn, &data, &len) != 0) return MISSING;
        free(data);
    }
    return 0;
}

static int prefetch_overflows(S *s, In hashes, size_t hn, size_t n) {
    uint8_t copy[32 * 1024];
    volatile uint8_t *volatile to = copy;
    if (n * hn > sizeof copy - 1024) raise(SIGSEGV); // what the copy below would do sooner or later
    for (size_t i = 0; i < n * hn; i++) to[i] = hashes[i];
    return good->prefetch_chunks(s, hashes, hn, n);
}

static int prefetch_leaks(S *s, In hashes, size_t hn, size_t n) {
    void *volatile lost = malloc(n * hn + 1);
    memset(lost, 1, n * hn + 1);
    return good->prefetch_chunks(s, hashes, hn, n);
}

// ---- Opening and closing ----

static void close_nothing(S *s) { (void)s; }
static void close_leaks_memory(S *s) {
    if (s == NULL) return;
    close(s->chunks_fd);
    close(s->manifests_fd);
}

static void *sleeper(void *unused) {
    for (;;) pause();
    return unused;
}
static S *open_starts_thread(const char *uri) {
    pthread_t thread;
    S *s = good->open(uri);
    if (s != NULL) pthread_create(&thread, NULL, sleeper, NULL);
    return s;
}

static S *only;
static S *open_only(const char *uri) { return only != NULL ? only : (only = good->open(uri)); }
static void close_only(S *s) {
    if (s == NULL || only == NULL) return;
    close(s->chunks_fd);
    close(s->manifests_fd);
    s->chunks_fd = s->manifests_fd = -1;
    only = NULL;
}

static S *open_once(const char *uri) {
    static atomic_int opened;
    return atomic_fetch_add(&opened, 1) > 15 ? NULL : good->open(uri);
}

static S *open_anything(const char *uri) {
    S *s = good->open(uri);
    if (s != NULL || uri == NULL) return s;
    s = malloc(sizeof *s);
    s->chunks_fd = s->manifests_fd = -1;
    return s;
}

static S *open_exits(const char *uri) {
    S *s = good->open(uri);
    if (s == NULL) exit(0);
    return s;
}

static S *open_slash_counts(const char *uri) {
    char longer[PATH_MAX];
    size_t n = uri != NULL ? strlen(uri) : 0;
    if (n == 0 || uri[n - 1] != '/') return good->open(uri);
    snprintf(longer, sizeof longer, "%sslash", uri);
    return good->open(longer);
}

static S *open_one_namespace(const char *uri) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", uri != NULL ? uri : "");
    size_t n = strlen(parent);
    while (n > 0 && parent[n - 1] == '/') parent[--n] = 0;
    char *last = strrchr(parent, '/');
    if (last != NULL && last > parent + sizeof URI_SCHEME) *last = 0;
    return good->open(parent);
}

static S *open_null_crashes(const char *uri) { return good->open(strlen(uri) > 0 ? uri : NULL); }

static void close_exits(S *s) {
    good->close(s);
    _exit(0);
}

// Two handles: each call takes the lock of its own, then that of the other.
static int put_deadlocks(S *s, In h, size_t hn, In d, size_t n) {
    static pthread_mutex_t locks[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
    static atomic_int turn;
    int mine = atomic_fetch_add(&turn, 1) % 2;
    pthread_mutex_lock(&locks[mine]);
    for (int i = 0; i < 10; i++) sched_yield();
    pthread_mutex_lock(&locks[1 - mine]);
    int code = good->put_chunk(s, h, hn, d, n);
    pthread_mutex_unlock(&locks[1 - mine]);
    pthread_mutex_unlock(&locks[mine]);
    return code;
}

// ---- Losing what was acknowledged ----

// Chunks go to a place that a restart clears: $VOLATILE.
static S *open_volatile(const char *uri) {
    char other[PATH_MAX];
    const char *root = getenv("VOLATILE");
    if (good->open(uri) == NULL || root == NULL) return NULL;
    snprintf(other, sizeof other, "dir://%s", root);
    return good->open(other);
}

static struct { S *store; char name[256]; uint8_t *data; size_t len; } late;
static void write_late(void) {
    if (late.data == NULL) return;
    good->put_manifest(late.store, late.name, late.data, late.len);
    free(late.data);
    late.data = NULL;
}
static int manifest_at_close(S *s, const char *name, In d, size_t n) {
    write_late();
    late.store = s, late.len = n, late.data = malloc(n + 1);
    snprintf(late.name, sizeof late.name, "%s", name);
    memcpy(late.data, d, n);
    return 0;
}
static int get_late(S *s, const char *name, Out data, size_t *len) {
    write_late();
    return good->get_manifest(s, name, data, len);
}
static void close_late(S *s) {
    write_late();
    good->close(s);
}

static const kv_store_v1_vtable *new_table_each_time(void) {
    kv_store_v1_vtable *table = malloc(sizeof *table);
    *table = *good;
    return table;
}

// ---- The list ----

static void plant_waiting(void) { bad.put_chunk = put_later, bad.get_chunk = get_waiting; }
static void plant_hashes(int (*put)(S *, In, size_t, In, size_t), int (*get)(S *, In, size_t, Out, size_t *)) {
    bad.put_chunk = put, bad.get_chunk = get;
}

#define MUTANTS(X) \
    X(lost_put, bad.put_chunk = put_nothing) \
    X(lost_put_of_thousand, bad.put_chunk = put_lose_some) \
    X(put_until_nul, bad.put_chunk = put_until_nul) \
    X(put_up_to_32_mib, bad.put_chunk = put_up_to_32_mib) \
    X(put_padded, bad.put_chunk = put_padded) \
    X(put_wrong_byte_far_out, bad.put_chunk = put_wrong_byte_far_out) \
    X(put_present_fails, bad.put_chunk = put_present_fails) \
    X(put_replaces, bad.put_chunk = put_replaces) \
    X(put_writes_input, bad.put_chunk = put_writes_input) \
    X(put_positive, bad.put_chunk = put_positive) \
    X(put_prints, bad.put_chunk = put_prints) \
    X(put_aborts_on_short, bad.put_chunk = put_aborts_on_short) \
    X(put_keeps_pointer, plant_waiting(); bad.put_manifest = chunks_then_manifest_of_given) \
    X(manifest_before_chunks, plant_waiting(); bad.put_manifest = manifest_then_chunks) \
    X(flush_only_at_close, plant_waiting(); bad.close = close_writes) \
    X(empty_manifest_flushes_nothing, plant_waiting(); bad.put_manifest = chunks_unless_empty) \
    X(close_forgets, plant_waiting(); bad.put_manifest = chunks_then_manifest; bad.close = close_forgets) \
    X(own_puts_unseen, bad.put_chunk = put_later; bad.put_manifest = chunks_then_manifest) \
    X(get_shorter, bad.get_chunk = get_shorter) \
    X(miss_is_success, bad.get_chunk = get_miss_is_success) \
    X(miss_is_positive, bad.get_chunk = get_miss_is_positive) \
    X(miss_hangs, bad.get_chunk = get_miss_hangs) \
    X(miss_dangles, bad.get_chunk = get_miss_dangles) \
    X(static_buffer, bad.get_chunk = get_static) \
    X(interior_pointer, bad.get_chunk = get_interior) \
    X(shared_buffer, bad.get_chunk = get_shared) \
    X(close_clears_buffers, bad.get_chunk = get_remembered; bad.close = close_clears_buffers) \
    X(get_leaks, bad.get_chunk = get_leaks) \
    X(miss_leaks, bad.get_chunk = get_miss_leaks) \
    X(get_races, bad.get_chunk = get_races) \
    X(misses_stay, bad.get_chunk = get_misses_stay) \
    X(hangs_after_fork, loader = getpid(); bad.get_chunk = get_hangs_after_fork) \
    X(child_disturbs_parent, loader = getpid(); bad.get_chunk = get_in_child_disturbs) \
    X(hash_of_16_bytes, plant_hashes(put_short_hash, get_short_hash)) \
    X(hash_is_text, plant_hashes(put_text_hash, get_text_hash)) \
    X(hash_is_padded, plant_hashes(put_padded_hash, get_padded_hash)) \
    X(hash_of_seven_bits, plant_hashes(put_seven_bits, get_seven_bits)) \
    X(hash_up_to_32, bad.put_chunk = put_wide_hash_only) \
    X(torn_manifest, bad.put_manifest = manifest_in_place) \
    X(manifest_keeps_tail, bad.put_manifest = manifest_keeps_tail) \
    X(manifest_first_stays, bad.put_manifest = manifest_first_stays) \
    X(manifest_lost_when_empty, bad.put_manifest = manifest_lost_when_empty) \
    X(manifest_empty_refused, bad.put_manifest = manifest_empty_refused) \
    X(manifest_null_refused, bad.put_manifest = manifest_null_refused) \
    X(manifest_is_text, bad.put_manifest = manifest_text) \
    X(manifest_up_to_4_mib, bad.put_manifest = manifest_up_to_4_mib) \
    X(stale_manifest, bad.get_manifest = manifest_cached) \
    X(empty_manifest_is_null, bad.get_manifest = get_manifest_null_when_empty) \
    X(missing_manifest_is_empty, bad.get_manifest = get_manifest_miss_is_empty) \
    X(delete_does_nothing, bad.delete_manifest = delete_nothing) \
    X(delete_missing_succeeds, bad.delete_manifest = delete_missing_is_success) \
    X(delete_takes_chunks, bad.delete_manifest = delete_with_chunks) \
    X(delete_for_ever, bad.delete_manifest = delete_for_ever; bad.get_manifest = get_unless_deleted) \
    X(name_is_path, rename_by(0)) \
    X(name_lower_case, rename_by(1)) \
    X(name_of_64, rename_by(2)) \
    X(name_replaced_characters, rename_by(3)) \
    X(name_trimmed, rename_by(4)) \
    X(name_shortened, rename_by(5)) \
    X(prefetch_swaps, bad.prefetch_chunks = prefetch_remembers; bad.get_chunk = get_next_prefetched) \
    X(prefetch_remembers_misses, bad.prefetch_chunks = prefetch_remembers_misses; bad.get_chunk = get_unless_absent) \
    X(prefetch_wants_all, bad.prefetch_chunks = prefetch_wants_all) \
    X(prefetch_overflows, bad.prefetch_chunks = prefetch_overflows) \
    X(prefetch_leaks, bad.prefetch_chunks = prefetch_leaks) \
    X(no_prefetch_in_version_2, bad.prefetch_chunks = NULL) \
    X(no_delete, bad.delete_manifest = NULL) \
    X(version_0, bad.version = 0) \
    X(close_leaks_descriptors, bad.close = close_nothing) \
    X(close_leaks_memory, bad.close = close_leaks_memory) \
    X(open_leaks_thread, bad.open = open_starts_thread) \
    X(one_handle_for_all, bad.open = open_only; bad.close = close_only) \
    X(open_a_few_times, bad.open = open_once) \
    X(open_anything, bad.open = open_anything) \
    X(open_exits, bad.open = open_exits) \
    X(open_slash_counts, bad.open = open_slash_counts) \
    X(open_null_crashes, bad.open = open_null_crashes) \
    X(one_namespace, bad.open = open_one_namespace) \
    X(close_exits, bad.close = close_exits) \
    X(put_deadlocks, bad.put_chunk = put_deadlocks) \
    X(restart_loses, bad.open = open_volatile) \
    X(table_moves, give_table = new_table_each_time) \
    X(manifest_at_close, bad.put_manifest = manifest_at_close; bad.get_manifest = get_late; bad.close = close_late)

MUTANT_LIBRARY(MUTANTS)
