// SPDX-License-Identifier: Apache-2.0
//
// The mutants whose mistakes are with manifests and their names; a part of abi.c.

// ---- Manifests ----

static int open_leaf(S *s, const char *name, int flags) {
    char leaf[LEAF_BYTES_MAX];
    return manifest_leaf(name, leaf) == OK ? openat(s->manifests_fd, leaf, flags, 0600) : -1;
}

static int manifest_in_place(S *s, const char *name, In d, size_t n) {
    int fd = open_leaf(s, name, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0) return -1;
    int code = write_all(fd, d, n / 2);
    sched_yield();
    if (code == 0) code = write_all(fd, d + n / 2, n - n / 2);
    close(fd);
    return code;
}

static int manifest_keeps_tail(S *s, const char *name, In d, size_t n) {
    int fd = open_leaf(s, name, O_WRONLY | O_CREAT);
    if (fd < 0) return -1;
    int code = write_all(fd, d, n);
    close(fd);
    return code;
}

static int manifest_first_stays(S *s, const char *name, In d, size_t n) {
    int fd = open_leaf(s, name, O_RDONLY);
    if (fd < 0) return good->put_manifest(s, name, d, n);
    close(fd);
    return 0;
}

static int manifest_lost_when_empty(S *s, const char *name, In d, size_t n) {
    return n == 0 ? 0 : good->put_manifest(s, name, d, n);
}

static int manifest_empty_refused(S *s, const char *name, In d, size_t n) {
    return n == 0 ? -1 : good->put_manifest(s, name, d, n);
}

static int manifest_null_refused(S *s, const char *name, In d, size_t n) {
    return d == NULL ? -1 : good->put_manifest(s, name, d, n);
}

static int manifest_text(S *s, const char *name, In d, size_t n) {
    return good->put_manifest(s, name, d, n > 0 ? strnlen((const char *)d, n) : 0);
}

static int manifest_up_to_4_mib(S *s, const char *name, In d, size_t n) {
    return n > (4u << 20) ? -1 : good->put_manifest(s, name, d, n);
}

// What this handle read once, it reads for ever.
static int manifest_cached(S *s, const char *name, Out data, size_t *len) {
    static struct { S *store; char name[256]; uint8_t *data; size_t len; } cache[64];
    static int count;
    for (int i = 0; i < count; i++) {
        if (cache[i].store != s || strcmp(cache[i].name, name) != 0) continue;
        *data = malloc(cache[i].len + 1), *len = cache[i].len;
        memcpy(*data, cache[i].data, *len);
        return 0;
    }
    int code = good->get_manifest(s, name, data, len);
    if (code == 0 && count < 64 && strlen(name) < 256) {
        cache[count].store = s, cache[count].len = *len, cache[count].data = malloc(*len + 1);
        strcpy(cache[count].name, name);
        memcpy(cache[count++].data, *data, *len);
    }
    return code;
}

static int get_manifest_null_when_empty(S *s, const char *name, Out data, size_t *len) {
    int code = good->get_manifest(s, name, data, len);
    if (code == 0 && *len == 0) {
        free(*data);
        *data = NULL;
    }
    return code;
}

static int get_manifest_miss_is_empty(S *s, const char *name, Out data, size_t *len) {
    int code = good->get_manifest(s, name, data, len);
    if (code == MISSING) *data = malloc(1);
    return code == MISSING ? 0 : code;
}

static int delete_nothing(S *s, const char *name) { return (void)s, (void)name, 0; }

static int delete_missing_is_success(S *s, const char *name) {
    int code = good->delete_manifest(s, name);
    return code == MISSING ? 0 : code;
}

// "Collects the garbage": what the deleted manifest lists, whoever else lists it.
static int delete_with_chunks(S *s, const char *name) {
    uint8_t *data;
    size_t len;
    if (good->get_manifest(s, name, &data, &len) != 0) return MISSING;
    for (size_t at = 0; at + 16 <= len; at += 16) {
        char leaf[LEAF_BYTES_MAX];
        if (chunk_leaf(data + at, 16, leaf) == OK) unlinkat(s->chunks_fd, leaf, 0);
    }
    free(data);
    return good->delete_manifest(s, name);
}

static char tombs[64][256];
static int tomb_count;

static int delete_for_ever(S *s, const char *name) {
    if (tomb_count < 64 && strlen(name) < 256) strcpy(tombs[tomb_count++], name);
    return good->delete_manifest(s, name);
}
static int get_unless_deleted(S *s, const char *name, Out data, size_t *len) {
    for (int i = 0; i < tomb_count; i++) {
        if (strcmp(tombs[i], name) == 0) return MISSING;
    }
    return good->get_manifest(s, name, data, len);
}

// ---- Names ----

static char *renamed(const char *name, int how) {
    static _Thread_local char copy[16384];
    snprintf(copy, sizeof copy, "%s", name);
    switch (how) {
    case 0: return strrchr(copy, '/') != NULL ? strrchr(copy, '/') + 1 : copy; // the last part of a path
    case 1: for (char *c = copy; *c != 0; c++) *c = (char)tolower((unsigned char)*c); return copy;
    case 2: if (strlen(copy) > 64) copy[64] = 0; return copy;
    case 3: for (char *c = copy; *c != 0; c++) if (strchr("/\\:*?\"<>|%", *c) != NULL) *c = '_'; return copy;
    case 4: while (*copy != 0 && isspace((unsigned char)copy[strlen(copy) - 1])) copy[strlen(copy) - 1] = 0; return copy;
    default: if (strlen(copy) > 127) copy[127] = 0; return copy;
    }
}

static int naming;
static int put_renamed(S *s, const char *name, In d, size_t n) { return good->put_manifest(s, renamed(name, naming), d, n); }
static int get_renamed(S *s, const char *name, Out d, size_t *n) { return good->get_manifest(s, renamed(name, naming), d, n); }
static int delete_renamed(S *s, const char *name) { return good->delete_manifest(s, renamed(name, naming)); }

static void rename_by(int how) {
    naming = how;
    bad.put_manifest = put_renamed, bad.get_manifest = get_renamed, bad.delete_manifest = delete_renamed;
}
