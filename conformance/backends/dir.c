// SPDX-License-Identifier: Apache-2.0
//
// libkv_store_dir: a complete kv_store_v1 backend over a plain directory.
//
// It is the smallest thing that keeps every promise of the interface, written to be read first by
// whoever writes another backend, and used as the reference the others are compared with.
//
//   uri        dir:///absolute/path     the directory is created when it is missing
//   on disk    PATH/chunks/<hex>        one file for each chunk, named by its hash
//              PATH/manifests/<hex>     one file for each manifest, named by its name's bytes
//
// How the promises are kept:
//   - a reader sees a whole value or none: files are written under a temporary name, flushed,
//     then renamed into place;
//   - when a manifest is visible, so is every chunk put before it: a chunk is renamed into place
//     before put_chunk returns, nothing is buffered;
//   - this also holds after a power cut: chunk contents are flushed by put_chunk, their directory
//     entries by put_manifest, before the manifest is written;
//   - any number of threads and processes may share a directory: a handle is never written to after
//     open, and rename is the only operation that publishes.
//
// What it does not do: verify that data matches its hash (hashes are opaque bytes here), find out
// which chunks a manifest names, delete chunks, or clean up temporary files of a process that died.
//
// Build: cc -std=c11 -Wall -Wextra -Werror -O2 -fPIC -shared -fvisibility=hidden
//           -I conformance/include conformance/backends/dir.c -o libkv_store_dir.so

#define _POSIX_C_SOURCE 200809L
#ifdef __APPLE__
#define _DARWIN_C_SOURCE // F_FULLFSYNC
#endif

#include "kv_store_v1.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OK = 0,
    FAILED = -1,
    MISSING = -2,

    // Names are written in hex and a file name holds 255 bytes.
    NAME_BYTES_MAX = 127,
    HASH_BYTES_MAX = 64,
    LEAF_BYTES_MAX = 2 * NAME_BYTES_MAX + 1,
    // A prefetch hint for more than this is taken for a mistake.
    PREFETCH_CHUNKS_MAX = 1 << 20,
};

static const char URI_SCHEME[] = "dir://";

struct kv_store_v1 {
    int chunks_fd;
    int manifests_fd;
};

// ---- Names ----

// Hex keeps any byte (a slash, a dot, a NUL in a hash) from meaning something to the file system.
static int leaf_from_bytes(const uint8_t *bytes, size_t len, size_t len_max, char leaf[LEAF_BYTES_MAX]) {
    static const char digits[] = "0123456789abcdef";
    if (bytes == NULL || len == 0 || len > len_max) return FAILED;
    for (size_t i = 0; i < len; i++) {
        leaf[2 * i] = digits[bytes[i] >> 4];
        leaf[2 * i + 1] = digits[bytes[i] & 15];
    }
    leaf[2 * len] = '\0';
    return OK;
}

static int chunk_leaf(const uint8_t *hash, size_t hash_len, char leaf[LEAF_BYTES_MAX]) {
    return leaf_from_bytes(hash, hash_len, HASH_BYTES_MAX, leaf);
}

static int manifest_leaf(const char *name, char leaf[LEAF_BYTES_MAX]) {
    if (name == NULL) return FAILED;
    return leaf_from_bytes((const uint8_t *)name, strlen(name), NAME_BYTES_MAX, leaf);
}

// ---- Files ----

static int flush(int fd) {
#ifdef F_FULLFSYNC
    if (fcntl(fd, F_FULLFSYNC) == 0) return OK; // fsync alone stops at the drive's cache on macOS
#endif
    return fsync(fd) == 0 ? OK : FAILED;
}

static int write_all(int fd, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t n = write(fd, data, len < SSIZE_MAX ? len : SSIZE_MAX);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return FAILED;
        data += n;
        len -= (size_t)n;
    }
    return OK;
}

static int read_all(int fd, uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t n = read(fd, data, len < SSIZE_MAX ? len : SSIZE_MAX);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return FAILED;
        data += n;
        len -= (size_t)n;
    }
    return OK;
}

// Opens a new file under a name nobody else has: the counter separates threads, the process id
// processes, and O_EXCL catches what a dead process of the same id left behind.
static int open_temporary(int dir_fd, char *leaf, size_t leaf_size) {
    static atomic_ulong counter;
    for (;;) {
        snprintf(leaf, leaf_size, ".tmp-%ld-%lu", (long)getpid(), atomic_fetch_add(&counter, 1));
        int fd = openat(dir_fd, leaf, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
}

static int write_file(int dir_fd, const char *leaf, const uint8_t *data, size_t len) {
    char temporary[64];
    int fd = open_temporary(dir_fd, temporary, sizeof temporary);
    if (fd < 0) return FAILED;
    int status = write_all(fd, data, len);
    if (status == OK) status = flush(fd);
    if (close(fd) != 0) status = FAILED;
    if (status == OK && renameat(dir_fd, temporary, dir_fd, leaf) != 0) status = FAILED;
    if (status != OK) unlinkat(dir_fd, temporary, 0);
    return status;
}

// The buffer is the caller's to free, also when the value is empty: malloc(0) may be NULL, which
// a consumer would take for a failure.
static int read_file(int dir_fd, const char *leaf, uint8_t **data, size_t *len) {
    int fd = openat(dir_fd, leaf, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? MISSING : FAILED;
    struct stat info;
    uint8_t *buffer = NULL;
    int status = FAILED;
    if (fstat(fd, &info) == 0 && info.st_size >= 0 && (uintmax_t)info.st_size < SIZE_MAX) {
        size_t size = (size_t)info.st_size;
        buffer = malloc(size > 0 ? size : 1);
        if (buffer != NULL) status = read_all(fd, buffer, size);
        if (status == OK) {
            *data = buffer;
            *len = size;
        }
    }
    close(fd);
    if (status != OK) free(buffer);
    return status;
}

// ---- Opening ----

static int make_directories(const char *path) {
    char prefix[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof prefix) return FAILED;
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(prefix, path, i);
        prefix[i] = '\0';
        if (mkdir(prefix, 0700) != 0 && errno != EEXIST) return FAILED;
    }
    return OK;
}

static int open_directory(int parent_fd, const char *leaf) {
    if (mkdirat(parent_fd, leaf, 0700) != 0 && errno != EEXIST) return -1;
    return openat(parent_fd, leaf, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void dir_close(kv_store_v1 *store) {
    if (store == NULL) return;
    if (store->chunks_fd >= 0) close(store->chunks_fd);
    if (store->manifests_fd >= 0) close(store->manifests_fd);
    free(store);
}

static kv_store_v1 *dir_open(const char *uri) {
    size_t scheme_len = sizeof URI_SCHEME - 1;
    if (uri == NULL || strncmp(uri, URI_SCHEME, scheme_len) != 0) return NULL;
    const char *path = uri + scheme_len;
    if (path[0] != '/' || make_directories(path) != OK) return NULL;

    int root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) return NULL;
    kv_store_v1 *store = malloc(sizeof *store);
    if (store != NULL) {
        store->chunks_fd = open_directory(root_fd, "chunks");
        store->manifests_fd = open_directory(root_fd, "manifests");
        if (store->chunks_fd < 0 || store->manifests_fd < 0 || flush(root_fd) != OK) {
            dir_close(store);
            store = NULL;
        }
    }
    close(root_fd);
    return store;
}

// ---- Chunks ----

static int dir_put_chunk(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, const uint8_t *data, size_t len) {
    char leaf[LEAF_BYTES_MAX];
    if (store == NULL || (data == NULL && len > 0) || len > PTRDIFF_MAX) return FAILED;
    if (chunk_leaf(hash, hash_len, leaf) != OK) return FAILED;
    // Chunks are immutable, so one that is there is the one being put.
    if (faccessat(store->chunks_fd, leaf, F_OK, 0) == 0) return OK;
    return write_file(store->chunks_fd, leaf, data, len);
}

static int dir_get_chunk(kv_store_v1 *store, const uint8_t *hash, size_t hash_len, uint8_t **data, size_t *len) {
    char leaf[LEAF_BYTES_MAX];
    if (data == NULL || len == NULL) return FAILED;
    *data = NULL;
    *len = 0;
    if (store == NULL || chunk_leaf(hash, hash_len, leaf) != OK) return FAILED;
    return read_file(store->chunks_fd, leaf, data, len);
}

// Asks the kernel to start reading the files in. A hint: chunks that are not there are skipped.
static int dir_prefetch_chunks(kv_store_v1 *store, const uint8_t *hashes, size_t hash_len, size_t n) {
    char leaf[LEAF_BYTES_MAX];
    if (store == NULL || hash_len == 0 || hash_len > HASH_BYTES_MAX) return FAILED;
    if (n > PREFETCH_CHUNKS_MAX || (hashes == NULL && n > 0)) return FAILED;
#ifdef POSIX_FADV_WILLNEED
    for (size_t i = 0; i < n; i++) {
        if (chunk_leaf(hashes + i * hash_len, hash_len, leaf) != OK) return FAILED;
        int fd = openat(store->chunks_fd, leaf, O_RDONLY | O_CLOEXEC);
        if (fd < 0) continue;
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
        close(fd);
    }
#else
    (void)leaf;
#endif
    return OK;
}

// ---- Manifests ----

static int dir_put_manifest(kv_store_v1 *store, const char *name, const uint8_t *data, size_t len) {
    char leaf[LEAF_BYTES_MAX];
    if (store == NULL || (data == NULL && len > 0) || len > PTRDIFF_MAX) return FAILED;
    if (manifest_leaf(name, leaf) != OK) return FAILED;
    // The order is the promise: chunks first, then the manifest that may name them.
    if (flush(store->chunks_fd) != OK) return FAILED;
    if (write_file(store->manifests_fd, leaf, data, len) != OK) return FAILED;
    return flush(store->manifests_fd);
}

static int dir_get_manifest(kv_store_v1 *store, const char *name, uint8_t **data, size_t *len) {
    char leaf[LEAF_BYTES_MAX];
    if (data == NULL || len == NULL) return FAILED;
    *data = NULL;
    *len = 0;
    if (store == NULL || manifest_leaf(name, leaf) != OK) return FAILED;
    return read_file(store->manifests_fd, leaf, data, len);
}

static int dir_delete_manifest(kv_store_v1 *store, const char *name) {
    char leaf[LEAF_BYTES_MAX];
    if (store == NULL || manifest_leaf(name, leaf) != OK) return FAILED;
    if (unlinkat(store->manifests_fd, leaf, 0) != 0) return errno == ENOENT ? MISSING : FAILED;
    return flush(store->manifests_fd);
}

// ---- The one exported symbol ----

__attribute__((visibility("default"))) const kv_store_v1_vtable *kv_store_get_vtable(void) {
    static const kv_store_v1_vtable table = {
        .version = 2,
        .open = dir_open,
        .close = dir_close,
        .put_chunk = dir_put_chunk,
        .get_chunk = dir_get_chunk,
        .put_manifest = dir_put_manifest,
        .get_manifest = dir_get_manifest,
        .delete_manifest = dir_delete_manifest,
        .prefetch_chunks = dir_prefetch_chunks,
    };
    return &table;
}
