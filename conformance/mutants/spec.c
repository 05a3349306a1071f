// SPDX-License-Identifier: Apache-2.0
//
// Broken backends that were written from kv_store_v1.md alone, before their author had seen a case of the suite (see
// mutant.h). conformance/mutants/spec.txt says which case must catch which, README.md what each violates.
//
// Build: cc -std=c11 -O1 -fPIC -shared -pthread -I conformance/include conformance/mutants/spec.c -o libkv_store_dir.so

#include "mutant.h"

#include <dirent.h>

// ---- Bytes of chunks ----

// KVS-CHUNK-1: the longest chunk is one byte too long.
static int put_below_64_mib(S *s, In h, size_t hn, In d, size_t n) {
    return n >= 64u << 20 ? -1 : good->put_chunk(s, h, hn, d, n);
}

// KVS-CHUNK-1: written in blocks of 1 MiB and a rest; when the rest is empty, the block before it is not written.
static int put_all_but_last_block(S *s, In h, size_t hn, In d, size_t n) {
    const size_t block = 1 << 20;
    if (n <= block || n % block != 0) return good->put_chunk(s, h, hn, d, n);
    uint8_t *copy = calloc(1, n);
    memcpy(copy, d, n - block);
    int code = good->put_chunk(s, h, hn, copy, n);
    free(copy);
    return code;
}

// KVS-CHUNK-1: zeros at the end are taken for padding.
static int put_trimmed(S *s, In h, size_t hn, In d, size_t n) {
    while (n > 1 && d[n - 1] == 0) n--;
    return good->put_chunk(s, h, hn, d, n);
}

// KVS-CHUNK-4: a shorter chunk is taken for a torn one, and repaired.
static int put_longer(S *s, In h, size_t hn, In d, size_t n) {
    char leaf[LEAF_BYTES_MAX];
    struct stat info;
    if (s == NULL || chunk_leaf(h, hn, leaf) != OK) return -1;
    bool torn = fstatat(s->chunks_fd, leaf, &info, 0) == 0 && (size_t)info.st_size < n;
    return torn ? write_file(s->chunks_fd, leaf, d, n) : good->put_chunk(s, h, hn, d, n);
}

// KVS-CHUNK-1: the length is handed out as 32 bits; the caller's other 32 stay.
static int get_len_32(S *s, In h, size_t hn, Out d, size_t *n) {
    size_t whole = 0;
    int code = good->get_chunk(s, h, hn, d, &whole);
    if (code == 0) memcpy(n, &whole, sizeof(uint32_t));
    return code;
}

static void leak(void) {
    static void *volatile last; // volatile: a compiler may leave out what nobody can see
    last = malloc(4096);
    memset(last, 1, 4096);
}

// KVS-LEAK-1: what was made ready for the write is forgotten when the chunk turns out to be there.
static int put_leaks_when_stored(S *s, In h, size_t hn, In d, size_t n) {
    char leaf[LEAF_BYTES_MAX];
    if (s != NULL && chunk_leaf(h, hn, leaf) == OK && faccessat(s->chunks_fd, leaf, F_OK, 0) == 0) {
        leak();
    }
    return good->put_chunk(s, h, hn, d, n);
}

// KVS-MEM-2: the bytes are enciphered where they are, and deciphered again.
static int put_enciphers(S *s, In h, size_t hn, In d, size_t n) {
    volatile uint8_t *bytes = (volatile uint8_t *)d;
    uint8_t *copy = calloc(1, n + 1);
    for (size_t i = 0; i < n; i++) bytes[i] ^= 0x5a;
    for (size_t i = 0; i < n; i++) copy[i] = bytes[i] ^ 0x5a;
    int code = good->put_chunk(s, h, hn, copy, n);
    for (size_t i = 0; i < n; i++) bytes[i] ^= 0x5a;
    free(copy);
    return code;
}

// KVS-THR-1: the hash is prepared in a buffer that all threads share.
static int put_static_hash(S *s, In h, size_t hn, In d, size_t n) {
    static uint8_t shared[64];
    if (h == NULL || hn > sizeof shared) return -1;
    memcpy(shared, h, hn);
    sched_yield();
    return good->put_chunk(s, shared, hn, d, n);
}

// ---- Hashes: what they are before they are looked up ----

static void (*map_hash)(uint8_t h[64], size_t *hn);

// KVS-CHUNK-2: the last byte of the longest hash is the place of a terminator.
static void hash_last_byte(uint8_t h[64], size_t *hn) { if (*hn == 32) h[31] = 0; }

// KVS-CHUNK-2: a column of 32 bytes, filled up with zeros.
static void hash_padded(uint8_t h[64], size_t *hn) { (void)h; if (*hn < 32) *hn = 32; }

// KVS-CHUNK-2: letters are the same in both cases, as in some databases' keys.
static void hash_case(uint8_t h[64], size_t *hn) {
    for (size_t i = 0; i < *hn; i++) h[i] = isascii(h[i]) ? (uint8_t)tolower(h[i]) : h[i];
}

static int put_mapped(S *s, In h, size_t hn, In d, size_t n) {
    uint8_t mapped[64] = {0};
    if (h == NULL || hn > sizeof mapped) return -1;
    memcpy(mapped, h, hn);
    map_hash(mapped, &hn);
    return good->put_chunk(s, mapped, hn, d, n);
}

static int get_mapped(S *s, In h, size_t hn, Out d, size_t *n) {
    uint8_t mapped[64] = {0};
    if (h == NULL || hn > sizeof mapped) return -1;
    memcpy(mapped, h, hn);
    map_hash(mapped, &hn);
    return good->get_chunk(s, mapped, hn, d, n);
}

static void plant_map_hash(void (*map)(uint8_t h[64], size_t *hn)) {
    map_hash = map;
    bad.put_chunk = put_mapped;
    bad.get_chunk = get_mapped;
}

// ---- Names: what they are before they are looked up ----

static void (*map_name)(char *name);

// KVS-MAN-4: a name that is too long is shortened.
static void name_shortened(char *name) { name[strnlen(name, NAME_BYTES_MAX)] = '\0'; }

// KVS-MAN-4: blanks at the end do not count, as in columns of fixed length.
static void name_spaces(char *name) {
    for (size_t n = strlen(name); n > 1 && name[n - 1] == ' '; n--) name[n - 1] = '\0';
}

// KVS-MAN-4: what is not ASCII is replaced by a question mark, as a careless conversion does.
static void name_lossy(char *name) {
    for (; *name != '\0'; name++) if ((unsigned char)*name >= 0x80) *name = '?';
}

// KVS-MAN-4: %41 means A, since a name becomes a part of a URL.
static void name_percent(char *name) {
    char *to = name;
    for (; *name != '\0'; name++) {
        unsigned byte;
        if (name[0] == '%' && isxdigit(name[1]) && isxdigit(name[2]) && sscanf(name + 1, "%2x", &byte) == 1 && byte) {
            *to++ = (char)byte;
            name += 2;
        } else {
            *to++ = *name;
        }
    }
    *to = '\0';
}

static int put_named(S *s, const char *name, In d, size_t n) {
    char *mapped = name == NULL ? NULL : strdup(name);
    if (mapped != NULL) map_name(mapped);
    int code = good->put_manifest(s, mapped, d, n);
    free(mapped);
    return code;
}

static int get_named(S *s, const char *name, Out d, size_t *n) {
    char *mapped = name == NULL ? NULL : strdup(name);
    if (mapped != NULL) map_name(mapped);
    int code = good->get_manifest(s, mapped, d, n);
    free(mapped);
    return code;
}

static int delete_named(S *s, const char *name) {
    char *mapped = name == NULL ? NULL : strdup(name);
    if (mapped != NULL) map_name(mapped);
    int code = good->delete_manifest(s, mapped);
    free(mapped);
    return code;
}

static void plant_map_name(void (*map)(char *name)) {
    map_name = map;
    bad.put_manifest = put_named;
    bad.get_manifest = get_named;
    bad.delete_manifest = delete_named;
}

// KVS-MAN-4: the longest name has no room for its terminator.
static int put_name_below_127(S *s, const char *name, In d, size_t n) {
    return name != NULL && strlen(name) >= NAME_BYTES_MAX ? -1 : good->put_manifest(s, name, d, n);
}

// ---- Manifests ----

// KVS-MAN-1: lengths have 24 bits, so that 16 MiB is nothing.
static int put_manifest_24_bits(S *s, const char *name, In d, size_t n) {
    return good->put_manifest(s, name, d, n & 0xffffff);
}

static bool is_stored(S *s, const char *name, size_t *n) {
    char leaf[LEAF_BYTES_MAX];
    struct stat info;
    if (s == NULL || manifest_leaf(name, leaf) != OK || fstatat(s->manifests_fd, leaf, &info, 0) != 0) return false;
    *n = (size_t)info.st_size;
    return true;
}

// KVS-MAN-1: an empty manifest is taken for a flush, and does not replace what is there.
static int put_empty_keeps(S *s, const char *name, In d, size_t n) {
    size_t stored;
    return n == 0 && is_stored(s, name, &stored) ? 0 : good->put_manifest(s, name, d, n);
}

// KVS-MAN-2: a manifest of the same length is written over the one before.
static int put_in_place(S *s, const char *name, In d, size_t n) {
    char leaf[LEAF_BYTES_MAX];
    size_t stored;
    if (!is_stored(s, name, &stored) || stored != n || n < 2) return good->put_manifest(s, name, d, n);
    if (manifest_leaf(name, leaf) != OK) return -1;
    int fd = openat(s->manifests_fd, leaf, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    bool written = pwrite(fd, d, n / 2, 0) == (ssize_t)(n / 2);
    sched_yield();
    written = written && pwrite(fd, d + n / 2, n - n / 2, (off_t)(n / 2)) == (ssize_t)(n - n / 2);
    close(fd);
    return written ? 0 : -1;
}

// KVS-MAN-6: names are paths, and what lies below one goes with it.
static int delete_below(S *s, const char *name) {
    char leaf[LEAF_BYTES_MAX + 2];
    int code = good->delete_manifest(s, name);
    if (code != 0 || manifest_leaf(name, leaf) != OK) return code;
    strcat(leaf, "2f");
    int fd = openat(s->manifests_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *all = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *one; all != NULL && (one = readdir(all)) != NULL;) {
        if (strncmp(one->d_name, leaf, strlen(leaf)) == 0) unlinkat(s->manifests_fd, one->d_name, 0);
    }
    if (all != NULL) closedir(all);
    return code;
}

// KVS-RET-2: the buffer of a get that failed was freed and is told all the same.
static int get_dangles(S *s, const char *name, Out d, size_t *n) {
    int code = good->get_manifest(s, name, d, n);
    if (code == 0 || d == NULL) return code;
    uint8_t *volatile freed = malloc(64);
    *d = freed;
    free(freed);
    return code;
}

// KVS-MAN-1: a handle has room for 256 names; the next one takes the place of the first.
typedef struct { S *s; unsigned count; char names[256][NAME_BYTES_MAX + 1]; } Names;
static Names tables[8];

static int put_256_names(S *s, const char *name, In d, size_t n) {
    int code = good->put_manifest(s, name, d, n);
    if (code != 0) return code;
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < 7 && tables[i].s != s && tables[i].s != NULL) i++;
    Names *table = &tables[i];
    table->s = s;
    bool known = false;
    for (size_t j = 0; j < 256; j++) known = known || strcmp(table->names[j], name) == 0;
    if (!known) {
        char *place = table->names[table->count++ % 256];
        if (*place != '\0') good->delete_manifest(s, place);
        strcpy(place, name);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static void close_256_names(S *s) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < 8; i++) if (tables[i].s == s) memset(&tables[i], 0, sizeof tables[i]);
    pthread_mutex_unlock(&lock);
    good->close(s);
}

// ---- Misses that are remembered, for each handle ----

typedef struct { S *s; size_t n; uint8_t bytes[NAME_BYTES_MAX]; } Miss;
static Miss misses[4096];
static size_t next_miss;

static Miss *miss_of(S *s, const void *bytes, size_t n) {
    for (size_t i = 0; i < 4096; i++) {
        if (misses[i].s == s && misses[i].n == n && memcmp(misses[i].bytes, bytes, n) == 0) return &misses[i];
    }
    return NULL;
}

static bool is_missed(S *s, const void *bytes, size_t n) {
    pthread_mutex_lock(&lock);
    bool missed = s != NULL && bytes != NULL && miss_of(s, bytes, n) != NULL;
    pthread_mutex_unlock(&lock);
    return missed;
}

static void miss(S *s, const void *bytes, size_t n) {
    pthread_mutex_lock(&lock);
    if (n <= NAME_BYTES_MAX && miss_of(s, bytes, n) == NULL) {
        Miss *place = &misses[next_miss++ % 4096];
        place->s = s;
        place->n = n;
        memcpy(place->bytes, bytes, n);
    }
    pthread_mutex_unlock(&lock);
}

static void found(S *s, const void *bytes, size_t n) {
    pthread_mutex_lock(&lock);
    Miss *missed = s == NULL || bytes == NULL ? NULL : miss_of(s, bytes, n);
    if (missed != NULL) missed->s = NULL;
    pthread_mutex_unlock(&lock);
}

static void close_missed(S *s) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < 4096; i++) if (misses[i].s == s) misses[i].s = NULL;
    pthread_mutex_unlock(&lock);
    good->close(s);
}

// KVS-MAN-3: a miss is remembered until this handle puts the name; what other handles put is not seen.
static int get_manifest_missed(S *s, const char *name, Out d, size_t *n) {
    if (name != NULL && d != NULL && is_missed(s, name, strlen(name))) return *d = NULL, MISSING;
    int code = good->get_manifest(s, name, d, n);
    if (code == MISSING) miss(s, name, strlen(name));
    return code;
}

static int put_manifest_found(S *s, const char *name, In d, size_t n) {
    if (name != NULL) found(s, name, strlen(name));
    return good->put_manifest(s, name, d, n);
}

// KVS-VIS-1: the same with chunks.
static int get_chunk_missed(S *s, In h, size_t hn, Out d, size_t *n) {
    if (d != NULL && is_missed(s, h, hn)) return *d = NULL, MISSING;
    int code = good->get_chunk(s, h, hn, d, n);
    if (code == MISSING) miss(s, h, hn);
    return code;
}

static int put_chunk_found(S *s, In h, size_t hn, In d, size_t n) {
    found(s, h, hn);
    return good->put_chunk(s, h, hn, d, n);
}

// KVS-PRE-1: what a prefetch did not find stays missing for the handle that asked.
static int prefetch_missed(S *s, In h, size_t hn, size_t n) {
    int code = good->prefetch_chunks(s, h, hn, n);
    for (size_t i = 0; code == 0 && i < n; i++) {
        uint8_t *data = NULL;
        size_t length;
        if (good->get_chunk(s, h + i * hn, hn, &data, &length) == MISSING) miss(s, h + i * hn, hn);
        free(data);
    }
    return code;
}

static int get_chunk_prefetched(S *s, In h, size_t hn, Out d, size_t *n) {
    if (d != NULL && is_missed(s, h, hn)) return *d = NULL, MISSING;
    return good->get_chunk(s, h, hn, d, n);
}

// KVS-RET-1: how many chunks it found.
static int prefetch_counts(S *s, In h, size_t hn, size_t n) {
    int code = good->prefetch_chunks(s, h, hn, n), count = 0;
    for (size_t i = 0; code == 0 && i < n; i++) {
        uint8_t *data = NULL;
        size_t length;
        if (good->get_chunk(s, h + i * hn, hn, &data, &length) == 0) count++;
        free(data);
    }
    return code == 0 ? count : code;
}

// ---- Puts that wait for the next manifest ----

typedef struct Pending {
    struct Pending *next;
    S *s;
    pthread_t thread;
    const uint8_t *hash_at;
    uint8_t hash[HASH_BYTES_MAX];
    size_t hn;
    uint8_t *data;
    size_t n;
} Pending;
static Pending *pending, **pending_end = &pending;
static bool second_put_wins, hash_stays_theirs, own_thread_only, same_is_skipped;
static unsigned flushed_at_once = UINT_MAX;

static uint8_t *copy_of(In d, size_t n) {
    uint8_t *copy = malloc(n + 1);
    if (n > 0) memcpy(copy, d, n);
    return copy;
}

static Pending *pending_of(S *s, In h, size_t hn) {
    Pending *one = pending;
    while (one != NULL && !(one->s == s && one->hn == hn && memcmp(one->hash, h, hn) == 0)) one = one->next;
    return one;
}

static int put_pending(S *s, In h, size_t hn, In d, size_t n) {
    char leaf[LEAF_BYTES_MAX];
    if (s == NULL || (d == NULL && n > 0) || chunk_leaf(h, hn, leaf) != OK) return -1;
    if (faccessat(s->chunks_fd, leaf, F_OK, 0) == 0) return 0;
    pthread_mutex_lock(&lock);
    Pending *one = pending_of(s, h, hn);
    if (one == NULL) {
        one = calloc(1, sizeof *one);
        *one = (Pending){.s = s, .thread = pthread_self(), .hash_at = h, .hn = hn, .data = copy_of(d, n), .n = n};
        memcpy(one->hash, h, hn);
        *pending_end = one;
        pending_end = &one->next;
    } else if (second_put_wins) {
        free(one->data);
        one->data = copy_of(d, n);
        one->n = n;
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static int get_pending(S *s, In h, size_t hn, Out d, size_t *n) {
    pthread_mutex_lock(&lock);
    Pending *one = s == NULL || h == NULL || d == NULL || n == NULL ? NULL : pending_of(s, h, hn);
    if (one != NULL) {
        *d = copy_of(one->data, one->n);
        *n = one->n;
    }
    pthread_mutex_unlock(&lock);
    return one != NULL ? 0 : good->get_chunk(s, h, hn, d, n);
}

static int flush_pending(S *s, bool all) {
    int code = 0;
    unsigned count = 0;
    pthread_mutex_lock(&lock);
    for (Pending **at = &pending; *at != NULL && code == 0;) {
        Pending *one = *at;
        bool other = own_thread_only && !pthread_equal(one->thread, pthread_self());
        if (one->s != s || (!all && (other || count == flushed_at_once))) {
            at = &one->next;
            continue;
        }
        code = good->put_chunk(s, hash_stays_theirs ? one->hash_at : one->hash, one->hn, one->data, one->n);
        count++;
        if (one->next == NULL) pending_end = at;
        *at = one->next;
        free(one->data);
        free(one);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static int put_manifest_flushes(S *s, const char *name, In d, size_t n) {
    if (same_is_skipped && s != NULL && (d != NULL || n == 0)) {
        uint8_t *stored = NULL;
        size_t length;
        bool same = good->get_manifest(s, name, &stored, &length) == 0 && length == n && (n == 0 || !memcmp(stored, d, n));
        free(stored);
        if (same) return 0;
    }
    return s != NULL && flush_pending(s, false) != 0 ? -1 : good->put_manifest(s, name, d, n);
}

static void close_flushes(S *s) {
    if (s != NULL && !hash_stays_theirs) flush_pending(s, true);
    good->close(s);
}

static void plant_pending(void) {
    bad.put_chunk = put_pending;
    bad.get_chunk = get_pending;
    bad.put_manifest = put_manifest_flushes;
    bad.close = close_flushes;
}

// ---- Chunks that are counted by manifest ----

// KVS-VIS-4: when a manifest is replaced, the chunks that were put for the one before are thrown away.
typedef struct { S *s; char name[NAME_BYTES_MAX + 1]; char leaf[LEAF_BYTES_MAX]; } Owned;
static Owned owned[4096];
static size_t next_owned;

static int put_chunk_owned(S *s, In h, size_t hn, In d, size_t n) {
    int code = good->put_chunk(s, h, hn, d, n);
    if (code != 0) return code;
    pthread_mutex_lock(&lock);
    Owned *place = &owned[next_owned++ % 4096];
    place->s = s;
    place->name[0] = '\0';
    chunk_leaf(h, hn, place->leaf);
    pthread_mutex_unlock(&lock);
    return 0;
}

static bool is_new(S *s, const char *leaf) {
    for (size_t i = 0; i < 4096; i++) {
        if (owned[i].s == s && owned[i].name[0] == '\0' && strcmp(owned[i].leaf, leaf) == 0) return true;
    }
    return false;
}

static int put_manifest_frees(S *s, const char *name, In d, size_t n) {
    int code = good->put_manifest(s, name, d, n);
    if (code != 0) return code;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < 4096; i++) {
        if (owned[i].s != s || strcmp(owned[i].name, name) != 0) continue;
        if (!is_new(s, owned[i].leaf)) unlinkat(s->chunks_fd, owned[i].leaf, 0);
        owned[i].s = NULL;
    }
    for (size_t i = 0; i < 4096; i++) {
        if (owned[i].s == s && owned[i].name[0] == '\0') strcpy(owned[i].name, name);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static void close_owned(S *s) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < 4096; i++) if (owned[i].s == s) owned[i].s = NULL;
    pthread_mutex_unlock(&lock);
    good->close(s);
}

// ---- Locks ----

// KVS-THR-2: chunks take one lock and then the other, manifests the other way round.
static pthread_mutex_t index_lock = PTHREAD_MUTEX_INITIALIZER;

static int put_chunk_locks(S *s, In h, size_t hn, In d, size_t n) {
    pthread_mutex_lock(&lock);
    sched_yield();
    pthread_mutex_lock(&index_lock);
    int code = good->put_chunk(s, h, hn, d, n);
    pthread_mutex_unlock(&index_lock);
    pthread_mutex_unlock(&lock);
    return code;
}

static int put_manifest_locks(S *s, const char *name, In d, size_t n) {
    pthread_mutex_lock(&index_lock);
    sched_yield();
    pthread_mutex_lock(&lock);
    int code = good->put_manifest(s, name, d, n);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&index_lock);
    return code;
}

// ---- Opening ----

// KVS-OPEN-1: handles of one URI are one, and the first close ends it for all.
typedef struct { S *s; unsigned opened; char uri[PATH_MAX]; } Shared;
static Shared shared[64];

static S *open_shared(const char *uri) {
    pthread_mutex_lock(&lock);
    Shared *place = NULL;
    for (size_t i = 0; i < 64 && uri != NULL; i++) {
        bool same = shared[i].s != NULL && strcmp(shared[i].uri, uri) == 0 && shared[i].s->chunks_fd >= 0;
        if (same) {
            shared[i].opened++;
            pthread_mutex_unlock(&lock);
            return shared[i].s;
        }
        if (shared[i].s == NULL) place = &shared[i];
    }
    S *s = good->open(uri);
    if (s != NULL && place != NULL) {
        place->s = s;
        place->opened = 1;
        snprintf(place->uri, sizeof place->uri, "%s", uri);
    }
    pthread_mutex_unlock(&lock);
    return s;
}

static void close_shared(S *s) {
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < 64 && s != NULL; i++) {
        if (shared[i].s != s) continue;
        if (s->chunks_fd >= 0) close(s->chunks_fd);
        if (s->manifests_fd >= 0) close(s->manifests_fd);
        s->chunks_fd = s->manifests_fd = -1;
        if (--shared[i].opened == 0) {
            free(s);
            shared[i].s = NULL;
        }
        break;
    }
    pthread_mutex_unlock(&lock);
}

// KVS-OPEN-5: manifests are apart, chunks are everybody's.
static S *open_chunks_of_all(const char *uri) {
    S *s = good->open(uri);
    char path[PATH_MAX];
    if (s == NULL) return NULL;
    snprintf(path, sizeof path, "%s/../chunks-of-all", uri + sizeof URI_SCHEME - 1);
    mkdir(path, 0700);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return s;
    close(s->chunks_fd);
    s->chunks_fd = fd;
    return s;
}

// KVS-CHUNK-1 and KVS-MAN-4: a hash and a name of the same bytes are one key.
static S *open_one_keyspace(const char *uri) {
    S *s = good->open(uri);
    if (s == NULL) return NULL;
    close(s->manifests_fd);
    s->manifests_fd = fcntl(s->chunks_fd, F_DUPFD_CLOEXEC, 0);
    return s;
}

// KVS-OPEN-2: a scheme that begins like its own is its own.
static S *open_scheme_prefix(const char *uri) {
    char path[PATH_MAX];
    const char *rest = uri == NULL ? NULL : strstr(uri, "://");
    if (rest == NULL || strncmp(uri, "dir", 3) != 0) return good->open(uri);
    snprintf(path, sizeof path, "dir%s", rest);
    return good->open(path);
}

// KVS-LEAK-1: an open that fails leaves its socket behind.
static S *open_leaks_failed(const char *uri) {
    S *s = good->open(uri);
    if (s == NULL) (void)!open("/dev/null", O_RDONLY | O_CLOEXEC);
    return s;
}

// KVS-LEAK-2: every handle leaves an entry in a table of the process.
static S *open_leaks_entry(const char *uri) {
    S *s = good->open(uri);
    if (s != NULL) leak();
    return s;
}

// ---- The table ----

#define MUTANTS(X) \
    X(chunk_of_64_mib_refused, bad.put_chunk = put_below_64_mib) \
    X(chunk_last_block_unwritten, bad.put_chunk = put_all_but_last_block) \
    X(chunk_zeros_trimmed, bad.put_chunk = put_trimmed) \
    X(chunk_longer_wins, bad.put_chunk = put_longer) \
    X(chunk_length_of_32_bits, bad.get_chunk = get_len_32) \
    X(chunk_input_enciphered, bad.put_chunk = put_enciphers) \
    X(chunk_hash_shared_by_threads, bad.put_chunk = put_static_hash) \
    X(chunk_stored_leaks, bad.put_chunk = put_leaks_when_stored) \
    X(hash_last_byte_lost, plant_map_hash(hash_last_byte)) \
    X(hash_filled_up, plant_map_hash(hash_padded)) \
    X(hash_case_folded, plant_map_hash(hash_case)) \
    X(name_shortened, plant_map_name(name_shortened)) \
    X(name_spaces_trimmed, plant_map_name(name_spaces)) \
    X(name_not_ascii_lost, plant_map_name(name_lossy)) \
    X(name_percent_decoded, plant_map_name(name_percent)) \
    X(name_of_127_refused, bad.put_manifest = put_name_below_127) \
    X(manifest_length_of_24_bits, bad.put_manifest = put_manifest_24_bits) \
    X(manifest_empty_keeps_old, bad.put_manifest = put_empty_keeps) \
    X(manifest_same_length_in_place, bad.put_manifest = put_in_place) \
    X(manifest_257th_evicts, bad.put_manifest = put_256_names; bad.close = close_256_names) \
    X(manifest_failed_get_dangles, bad.get_manifest = get_dangles) \
    X(manifest_delete_takes_below, bad.delete_manifest = delete_below) \
    X(manifest_miss_remembered, bad.get_manifest = get_manifest_missed; bad.put_manifest = put_manifest_found; \
        bad.close = close_missed) \
    X(manifest_replaced_frees_chunks, bad.put_chunk = put_chunk_owned; bad.put_manifest = put_manifest_frees; \
        bad.close = close_owned) \
    X(chunk_miss_remembered, bad.get_chunk = get_chunk_missed; bad.put_chunk = put_chunk_found; \
        bad.close = close_missed) \
    X(prefetch_miss_remembered, bad.get_chunk = get_chunk_prefetched; bad.prefetch_chunks = prefetch_missed; \
        bad.close = close_missed) \
    X(prefetch_returns_count, bad.prefetch_chunks = prefetch_counts) \
    X(flush_of_256, plant_pending(); flushed_at_once = 256) \
    X(flush_of_own_thread, plant_pending(); own_thread_only = true) \
    X(flush_unless_same_manifest, plant_pending(); same_is_skipped = true) \
    X(flush_second_put_wins, plant_pending(); second_put_wins = true) \
    X(flush_reads_callers_hash, plant_pending(); hash_stays_theirs = true) \
    X(two_locks_deadlocks, bad.put_chunk = put_chunk_locks; bad.put_manifest = put_manifest_locks) \
    X(open_shares_handles, bad.open = open_shared; bad.close = close_shared) \
    X(open_shares_chunks, bad.open = open_chunks_of_all) \
    X(open_one_keyspace, bad.open = open_one_keyspace) \
    X(open_scheme_prefix, bad.open = open_scheme_prefix) \
    X(open_failed_leaks, bad.open = open_leaks_failed) \
    X(open_leaks_entry, bad.open = open_leaks_entry)

MUTANT_LIBRARY(MUTANTS)
